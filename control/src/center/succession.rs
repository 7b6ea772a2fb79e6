//! What happens when a primary is lost.

use std::collections::BTreeSet;

use planaria_replication::control::{
    Contender, Reign, Succession, SuccessionRule, WhyNobody, choose_successor,
};
use planaria_replication::{Millis, Options, PromotableSets};
use planaria_types::{DatabaseId, InstanceId};

use super::live::LiveCopy;
use super::{Center, Now};
use crate::Result;
use crate::catalog::{Change, EventKind, JobKind, JobRecord, JobState, LeadRecord};

/// How long a copy that was asked to lead may take: it asks every other one, twice, and some do not answer.
pub(super) const JOB_PATIENCE: Millis = Millis(30_000);

impl Center {
    /// Finds out whether a database is led, and has another copy lead where that is the control center's to decide.
    pub(super) fn watch_lead(&mut self, now: Now, database: DatabaseId) -> Result<()> {
        let Some(lead) = self.contents.leads.get(&database).cloned() else { return Ok(()) };
        let unheard = self.unheard(now, database);
        if unheard < Millis(self.settings.lost_after_ms) {
            return Ok(());
        }
        if !self.watched.entry(database).or_default().is_lost {
            let what = format!("{} has not been heard to lead for {unheard}", lead.node);
            let event = self.event(now, EventKind::PrimaryLost, Some(database), &lead.node, what, Vec::new());
            self.note(vec![event])?;
            self.watched.entry(database).or_default().is_lost = true;
        }
        if !self.is_automatic(database) || self.waits_for_promotion(now, database)? {
            return Ok(());
        }
        let succession = self.succession(now, &lead);
        match succession.successor {
            Ok(successor) => self.ask_to_lead(now, &lead, successor, &succession),
            Err(why) => self.note_nobody(now, &lead, why, &succession),
        }
    }

    /// For how long nobody was heard to lead a database.
    pub(super) fn unheard(&self, now: Now, database: DatabaseId) -> Millis {
        let led = self.watched.get(&database).and_then(|watched| watched.led);
        now.at.since(led.unwrap_or(self.started))
    }

    /// Whether a copy was asked to lead and has time to answer, or all were and it is not yet time to ask again.
    fn waits_for_promotion(&mut self, now: Now, database: DatabaseId) -> Result<bool> {
        let is_promotion = |job: &&JobRecord| job.kind == JobKind::Promote && job.database == database;
        let open = self.open_jobs().values().find(is_promotion).cloned();
        let watched = self.watched.entry(database).or_default();
        let Some(job) = open else {
            watched.asked = None;
            return Ok(now.at < watched.pause_until);
        };
        // A job that was open when the control center started has its time from then on.
        let asked = *watched.asked.get_or_insert(now.at);
        if now.at.since(asked) < JOB_PATIENCE {
            return Ok(true);
        }
        watched.asked = None;
        watched.refused.insert(job.instance);
        let why = format!("{} did not say in {JOB_PATIENCE} whether it leads", job.node);
        self.end_job(now, job, JobState::Failed, EventKind::PromotionFailed, why)?;
        Ok(false)
    }

    fn ask_to_lead(
        &mut self,
        now: Now,
        lead: &LeadRecord,
        successor: InstanceId,
        succession: &Succession,
    ) -> Result<()> {
        let node = self.node_of(successor);
        let what = format!("{node} is asked to lead, as {} is lost", lead.node);
        let job = JobRecord {
            number: self.contents.last_job + 1,
            kind: JobKind::Promote,
            database: lead.database,
            instance: successor,
            node: node.clone(),
            state: JobState::Open,
            reason: what.clone(),
            began_ms: now.wall_ms,
            ended_ms: None,
        };
        let reasons = self.reasons(succession);
        let event = self.event(now, EventKind::PromotionAsked, Some(lead.database), &node, what, reasons);
        self.note(vec![Change::Job(job), event])?;
        let watched = self.watched.entry(lead.database).or_default();
        watched.asked = Some(now.at);
        watched.note.clear();
        Ok(())
    }

    /// Writes down why nobody is asked, whenever that changes; those who refused are asked again after a while.
    fn note_nobody(
        &mut self,
        now: Now,
        lead: &LeadRecord,
        why: WhyNobody,
        succession: &Succession,
    ) -> Result<()> {
        let mut note = vec![format!("nobody is asked to lead: {why}")];
        note.extend(self.reasons(succession));
        let pause = Millis(self.settings.lost_after_ms);
        let watched = self.watched.entry(lead.database).or_default();
        if !watched.refused.is_empty() {
            watched.refused.clear();
            watched.pause_until = now.at.plus(pause);
        }
        if watched.note != note {
            watched.note.clone_from(&note);
            let what = note.remove(0);
            let event =
                self.event(now, EventKind::NobodyPromoted, Some(lead.database), &lead.node, what, note);
            self.note(vec![event])?;
        }
        Ok(())
    }

    /// Who should lead a database after the one that does not any more.
    fn succession(&self, now: Now, lead: &LeadRecord) -> Succession {
        let level = self.contents.databases.get(&lead.database).map(|known| known.level.as_str());
        let reign = Reign {
            leader: lead.instance,
            epoch: lead.epoch,
            labels: self.labels(&lead.node),
            heard_ago_ms: self.unheard(now, lead.database).0,
            is_protected: matches!(level, Some("one" | "quorum" | "all")),
        };
        let refused = self.watched.get(&lead.database).map(|watched| watched.refused.clone());
        let rule = SuccessionRule {
            lost_after_ms: self.settings.lost_after_ms,
            refused: refused.unwrap_or_default(),
        };
        let contenders: Vec<Contender> =
            self.copies_of(lead.database).map(|(node, copy)| self.contender(now, node, copy)).collect();
        choose_successor(&Options::default(), &rule, &reign, &contenders)
    }

    fn contender(&self, now: Now, node: &str, copy: &LiveCopy) -> Contender {
        let report = &copy.report;
        let set = |ids: &[InstanceId]| ids.iter().copied().collect::<BTreeSet<_>>();
        Contender {
            instance: report.instance,
            role: report.role,
            labels: self.labels(node),
            state: report.state,
            is_diverged: report.is_diverged || !report.damage.is_empty(),
            position: report.position,
            promised: report.promised,
            sets: PromotableSets {
                now: set(&report.promotable),
                next: report.next_promotable.as_ref().map(|next| set(&next.0)),
            },
            heard_ago_ms: self.heard_ago(now, node),
            news_ago_ms: copy.news.map(|news| now.at.since(news).0),
        }
    }

    /// The copies of a database that were reported since the control center started, with their nodes.
    pub(super) fn copies_of(&self, database: DatabaseId) -> impl Iterator<Item = (&str, &LiveCopy)> {
        self.live
            .iter()
            .flat_map(|(name, node)| node.copies.values().map(move |copy| (name.as_str(), copy)))
            .filter(move |(_, copy)| copy.report.database == database)
    }

    /// The node of a copy, by name; the place of a store.
    pub(super) fn node_of(&self, instance: InstanceId) -> String {
        if let Some(place) = self.place_of(instance) {
            return place.to_owned();
        }
        let live = self.live.iter().find(|(_, node)| node.copies.contains_key(&instance));
        let live = live.map(|(name, _)| name.clone());
        let known = || self.contents.instances.get(&instance).map(|known| known.node.clone());
        live.or_else(known).unwrap_or_else(|| instance.to_string())
    }

    fn reasons(&self, succession: &Succession) -> Vec<String> {
        let line = |verdict: &planaria_replication::control::ContenderVerdict| {
            format!("{}: {} (has {})", self.node_of(verdict.instance), verdict.reason, verdict.position)
        };
        succession.verdicts.iter().map(line).collect()
    }
}
