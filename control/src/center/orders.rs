//! What nodes are told to do, and what comes of it.

use planaria_net::wire::control::{Mode, NAME_BYTES_MAX, Order, Outcome};
use planaria_replication::Millis;
use planaria_replication::control::CopyState;
use planaria_types::{DatabaseId, EpochOrder};

use super::live::LiveCopy;
use super::succession::JOB_PATIENCE;
use super::{Center, Now};
use crate::Result;
use crate::catalog::{Change, EventKind, JobKind, JobRecord, JobState, LeadRecord};

/// A copy that was told to follow is not told again before.
const FOLLOW_PAUSE: Millis = Millis(5_000);

impl Center {
    /// What a node is to do now.
    pub(super) fn orders(&mut self, now: Now, name: &str) -> Result<Vec<Order>> {
        let stray: Vec<_> = self.live.get(name).map_or_else(Vec::new, |node| {
            let lead_of = |copy: &LiveCopy| self.lead_to_follow(now, copy);
            node.copies.values().filter_map(|copy| Some((copy.report.instance, lead_of(copy)?))).collect()
        });
        for (instance, lead) in stray {
            self.tell_to_follow(now, name, instance, &lead)?;
        }
        let Some(node) = self.live.get(name) else { return Ok(Vec::new()) };
        let own = self.open_jobs().values().filter(|job| node.copies.contains_key(&job.instance));
        let own = own.filter_map(|job| self.order_of(now, job));
        Ok(own.chain(self.clone_orders(name)).collect())
    }

    /// What is told for a job that is open; nothing if it is not to be done as things are now.
    fn order_of(&self, now: Now, job: &JobRecord) -> Option<Order> {
        let lead = self.contents.leads.get(&job.database)?;
        let (number, instance) = (job.number, job.instance);
        // Who leads is decided in one mode alone; a copy that follows takes everything anew in both.
        if job.kind != JobKind::Reseed && !self.is_automatic(job.database) {
            return None;
        }
        match job.kind {
            // The primary may be back since the job began.
            JobKind::Promote => {
                (!self.is_led(now, job.database)).then_some(Order::Promote { job: number, instance })
            }
            // So may the copy that was to follow have been made the primary.
            JobKind::Follow => (lead.instance != instance).then_some(Order::Follow {
                job: number,
                instance,
                primary: lead.address,
                epoch: lead.epoch,
            }),
            JobKind::Reseed => (lead.instance != instance).then_some(Order::Reseed { job: number, instance }),
        }
    }

    /// Whom a copy should follow and does not, where that is the control center's to decide.
    ///
    /// One that led under an older epoch, or was deposed, comes back as a secondary; one that follows another address and
    /// hears nobody there is told who leads now. What a copy has more than its primary goes into its quarantine.
    fn lead_to_follow(&self, now: Now, copy: &LiveCopy) -> Option<LeadRecord> {
        let report = &copy.report;
        // What there was no room for in the catalog is told nothing: jobs are bounded by it.
        self.contents.instances.get(&report.instance).filter(|known| known.database == report.database)?;
        let lead = self.contents.leads.get(&report.database)?;
        let decides = self.is_automatic(report.database) && self.is_led(now, report.database);
        if !decides || lead.instance == report.instance {
            return None;
        }
        // One that has promised a newer epoch knows of somebody who is about to lead.
        if report.promised.order(&lead.epoch) == EpochOrder::Newer {
            return None;
        }
        let strays = match report.state {
            CopyState::Primary => report.epoch.order(&lead.epoch) == EpochOrder::Older,
            CopyState::Deposed => true,
            CopyState::Offline | CopyState::Stale | CopyState::Partial => {
                report.primary != Some(lead.address)
            }
            CopyState::Online | CopyState::Refreshing => false,
        };
        strays.then(|| lead.clone())
    }

    fn tell_to_follow(
        &mut self,
        now: Now,
        node: &str,
        instance: planaria_types::InstanceId,
        lead: &LeadRecord,
    ) -> Result<()> {
        let is_same = |job: &&JobRecord| job.kind == JobKind::Follow && job.instance == instance;
        let open = self.open_jobs().values().find(is_same).cloned();
        let watched = self.watched.entry(lead.database).or_default();
        let told = watched.told_to_follow.get(&instance).copied();
        if let Some(job) = open {
            if told.is_some_and(|told| now.at.since(told) < JOB_PATIENCE) {
                return Ok(());
            }
            watched.told_to_follow.insert(instance, now.at);
            if told.is_some() {
                let why = format!("{node} did not say in {JOB_PATIENCE} whether it follows");
                self.end_job(now, job, JobState::Failed, EventKind::FollowFailed, why)?;
            }
            return Ok(());
        }
        if told.is_some_and(|told| now.at.since(told) < FOLLOW_PAUSE) {
            return Ok(());
        }
        watched.told_to_follow.insert(instance, now.at);
        let what = format!("{node} is told to follow {}, which leads under {}", lead.node, lead.epoch);
        let job = JobRecord {
            number: self.contents.last_job + 1,
            kind: JobKind::Follow,
            database: lead.database,
            instance,
            node: node.to_owned(),
            state: JobState::Open,
            reason: what.clone(),
            began_ms: now.wall_ms,
            ended_ms: None,
        };
        let event = self.event(now, EventKind::FollowAsked, Some(lead.database), node, what, Vec::new());
        self.note(vec![Change::Job(job), event])
    }

    /// Takes in how a job has ended, from the node that was told.
    pub(super) fn take_outcome(&mut self, now: Now, name: &str, outcome: &Outcome) -> Result<()> {
        let Some(job) = self.open_jobs().get(&outcome.job).filter(|job| job.node == name).cloned() else {
            // It was given up meanwhile, or told twice.
            return Ok(());
        };
        let is_done = outcome.code.is_empty();
        let kind = match (job.kind, is_done) {
            (JobKind::Promote, true) => EventKind::Promoted,
            (JobKind::Follow, true) => EventKind::Follows,
            (JobKind::Reseed, true) => EventKind::Reseeds,
            (kind, false) => kind.failure(),
        };
        let watched = self.watched.entry(job.database).or_default();
        match job.kind {
            JobKind::Promote => {
                watched.asked = None;
                if is_done {
                    // Its next reports say under which epoch it leads.
                    watched.pause_until = now.at.plus(FOLLOW_PAUSE);
                } else {
                    watched.refused.insert(job.instance);
                }
            }
            JobKind::Follow => drop(watched.told_to_follow.insert(job.instance, now.at)),
            JobKind::Reseed => {}
        }
        let mut what = outcome.what.clone();
        what.truncate(what.floor_char_boundary(16 * NAME_BYTES_MAX));
        let state = if is_done { JobState::Done } else { JobState::Failed };
        self.end_job(now, job, state, kind, format!("{name}: {what}"))
    }

    pub(super) fn end_job(
        &mut self,
        now: Now,
        job: JobRecord,
        state: JobState,
        kind: EventKind,
        why: String,
    ) -> Result<()> {
        // Where a copy was not seeded anew, the rule that asked for it may do so again.
        let is_failed_reseed = job.kind == JobKind::Reseed && state == JobState::Failed;
        let again = if is_failed_reseed { self.acts_again_for(job.instance) } else { Vec::new() };
        let ended = self.ended(now, job, state, kind, why);
        self.note(ended.into_iter().chain(again).collect())
    }

    /// The end of a job, as changes.
    fn ended(&self, now: Now, job: JobRecord, state: JobState, kind: EventKind, why: String) -> [Change; 2] {
        let event = self.event(now, kind, Some(job.database), &job.node, why.clone(), Vec::new());
        [Change::Job(JobRecord { state, reason: why, ended_ms: Some(now.wall_ms), ..job }), event]
    }

    /// The end of all that the nodes of a database were told and have not answered, as an operator decides from now on.
    pub(super) fn called_off(&self, now: Now, database: DatabaseId) -> Vec<Change> {
        let decides = |job: &&JobRecord| job.kind != JobKind::Reseed && job.database == database;
        let open = self.open_jobs().values().filter(decides);
        let ended = |job: &JobRecord| {
            let (kind, asked) = match job.kind {
                JobKind::Promote => (EventKind::PromotionFailed, "to lead"),
                JobKind::Follow => (EventKind::FollowFailed, "to follow"),
                JobKind::Reseed => (EventKind::ReseedFailed, "to take everything anew"),
            };
            let why = format!("{} is told no more {asked}: an operator decides", job.node);
            self.ended(now, job.clone(), JobState::Failed, kind, why)
        };
        open.flat_map(ended).collect()
    }

    /// Whether the control center decides on promotions of a database.
    pub(super) fn is_automatic(&self, database: DatabaseId) -> bool {
        self.contents.databases.get(&database).is_some_and(|known| known.mode == Mode::Automatic)
    }
}
