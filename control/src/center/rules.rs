//! Rules: what is done when a copy is behind for too long, or another copy leads than before.
//!
//! They go by how things are, not by what was seen to happen: the copy that led when a rule was last looked at, and the copies that
//! it has acted for, are in the catalog. So what happens while the control center is down is acted upon when it is back, once.

use std::collections::BTreeMap;

use planaria_net::wire::jobs::{CloneWish, is_clone_name};
use planaria_net::wire::message::CloneRole;
use planaria_net::wire::rules::{RULE_LAG_MIN_MS, RULE_PAUSE_MIN_MS, Rule, RuleAction, RuleEvent, RuleInfo};
use planaria_replication::Millis;
use planaria_replication::control::{CopyState, InstanceRole};
use planaria_types::InstanceId;

use super::clones::is_seed;
use super::succession::JOB_PATIENCE;
use super::{Center, Now};
use crate::catalog::{Change, EventKind, JobKind, JobRecord, JobState, RuleRecord};
use crate::{Error, Result};

/// Rules that are kept, at most.
const RULES_MAX: usize = 1_024;
/// Bytes of the name of a rule.
const NAME_BYTES_MAX: usize = 100;

/// What is remembered of rules since the control center started.
#[derive(Default)]
pub(super) struct Watching {
    /// Since when a copy is behind by more than a rule allows.
    behind: BTreeMap<(String, InstanceId), Millis>,
    /// Why a rule cannot act, in words.
    notes: BTreeMap<String, String>,
    /// Of what kind that was, as it was last written down.
    noted: BTreeMap<String, String>,
}

/// Why a rule is to act.
struct Cause {
    /// The copy: one that is behind, or the one that leads now.
    copy: InstanceId,
    what: String,
}

impl Center {
    /// Sets what is to be done when something happens, in place of a rule of that name.
    ///
    /// # Errors
    ///
    /// `invalid` for what cannot be, `unknown_database`, `ambiguous`, `unknown_node`, `not_spare`, `too_many`.
    pub fn set_rule(&mut self, now: Now, rule: &Rule) -> Result<()> {
        let record = self.rule_record(now, rule)?;
        let what = format!("{}: {}", record.name, words(&record));
        let event = self.event(now, EventKind::RuleSet, Some(record.database), "", what, Vec::new());
        self.watching.forget(&record.name);
        self.note(vec![Change::Rule(Box::new(record)), event])
    }

    /// A rule as it is kept, if it can be.
    pub(super) fn rule_record(&self, now: Now, rule: &Rule) -> Result<RuleRecord> {
        let invalid = |what: String| Error::refused("invalid", what, "see `planaria cluster rule --help`");
        if !is_clone_name(&rule.name) || rule.name.len() > NAME_BYTES_MAX {
            return Err(invalid(format!("{:?} is no name of a rule", rule.name)));
        }
        let rules = &self.contents.rules;
        if rules.len() >= RULES_MAX && !rules.contains_key(&rule.name) {
            return Err(Error::refused("too_many", format!("there are {RULES_MAX} rules"), "remove some"));
        }
        let database = self.database_named(rule.database.as_deref())?.database;
        if let RuleEvent::Lag { over_ms, role, .. } = rule.event {
            if over_ms < RULE_LAG_MIN_MS {
                return Err(invalid(format!(
                    "a copy is behind by {RULE_LAG_MIN_MS} ms at least: nodes report every second"
                )));
            }
            if role == Some(InstanceRole::Primary) {
                return Err(invalid("a primary is behind nobody".to_owned()));
            }
        }
        if rule.pause_ms < RULE_PAUSE_MIN_MS {
            return Err(invalid(format!(
                "a rule rests for {RULE_PAUSE_MIN_MS} ms at least after it has acted"
            )));
        }
        let action = match &rule.action {
            RuleAction::Reseed if rule.event == RuleEvent::Failover => {
                return Err(invalid(
                    "after a failover no copy is behind: there is none to be seeded anew".to_owned(),
                ));
            }
            RuleAction::Reseed => RuleAction::Reseed,
            RuleAction::Clone(wish) => {
                if wish.name.is_some() {
                    return Err(invalid("the clones of a rule are named by it and their numbers".to_owned()));
                }
                super::clones::check_shape(wish)?;
                if !wish.to.is_empty() {
                    self.check_wish(now, wish)?;
                } else if !is_seed(wish.role) {
                    return Err(invalid(
                        "a detached clone needs a node, and a backup a store: name it with --to".to_owned(),
                    ));
                }
                RuleAction::Clone(CloneWish { database: Some(database.to_string()), ..wish.clone() })
            }
        };
        Ok(RuleRecord {
            name: rule.name.clone(),
            database,
            event: rule.event,
            action,
            pause_ms: rule.pause_ms,
            leader: self.contents.leads.get(&database).map(|lead| lead.instance),
            handled: std::collections::BTreeSet::new(),
            acted_ms: None,
        })
    }

    /// Ends a rule. What it has asked for goes on.
    ///
    /// # Errors
    ///
    /// `unknown_rule`.
    pub fn remove_rule(&mut self, now: Now, name: &str) -> Result<()> {
        let Some(known) = self.contents.rules.get(name) else {
            let what = format!("no rule is called {name:?}");
            return Err(Error::refused("unknown_rule", what, "`planaria cluster rule list` shows them"));
        };
        let what = format!("{name}: the rule holds no more");
        let event = self.event(now, EventKind::RuleEnded, Some(known.database), "", what, Vec::new());
        self.watching.forget(name);
        self.note(vec![Change::RuleRemoved(name.to_owned()), event])
    }

    /// The rules, by name.
    pub fn rules(&self) -> Vec<RuleInfo> {
        self.contents.rules.values().map(|record| self.rule_info(record)).collect()
    }

    pub(super) fn rule_info(&self, record: &RuleRecord) -> RuleInfo {
        let known = self.contents.databases.get(&record.database);
        let database = known.map_or_else(|| record.database.to_string(), |known| known.name.clone());
        let action = match &record.action {
            RuleAction::Clone(wish) => {
                RuleAction::Clone(CloneWish { database: Some(database.clone()), ..wish.clone() })
            }
            RuleAction::Reseed => RuleAction::Reseed,
        };
        let name = record.name.clone();
        let rule =
            Rule { name, database: Some(database), event: record.event, action, pause_ms: record.pause_ms };
        let note = self.watching.notes.get(&record.name).cloned().unwrap_or_default();
        RuleInfo { rule, acted_ms: record.acted_ms, note }
    }

    /// Has the rules act whose time has come.
    pub(super) fn watch_rules(&mut self, now: Now) -> Result<()> {
        self.end_overdue_reseeds(now)?;
        // Nodes have had time to be heard.
        if now.at.since(self.started).0 < self.settings.lost_after_ms {
            return Ok(());
        }
        let rules: Vec<RuleRecord> = self.contents.rules.values().cloned().collect();
        for rule in rules {
            if !self.is_led(now, rule.database) {
                continue;
            }
            let cause = match rule.event {
                RuleEvent::Failover => self.failover(&rule)?,
                RuleEvent::Lag { over_ms, for_ms, role } => {
                    self.copy_behind(now, &rule, (over_ms, for_ms), role)?
                }
            };
            let rests = rule.acted_ms.is_some_and(|acted| now.wall_ms.saturating_sub(acted) < rule.pause_ms);
            match cause {
                Some(cause) if !rests => self.act(now, &rule.name, &cause)?,
                Some(_) => {}
                None => drop(self.watching.notes.remove(&rule.name)),
            }
        }
        Ok(())
    }

    /// Whether another copy leads than when a rule was last looked at.
    fn failover(&mut self, rule: &RuleRecord) -> Result<Option<Cause>> {
        let Some(lead) = self.contents.leads.get(&rule.database) else { return Ok(None) };
        let copy = lead.instance;
        match rule.leader {
            Some(before) if before == copy => Ok(None),
            Some(before) => {
                let what = format!("{} leads in place of {}", lead.node, self.node_of(before));
                Ok(Some(Cause { copy, what }))
            }
            None => {
                // The first that is heard to lead has replaced nobody.
                let record = RuleRecord { leader: Some(copy), ..rule.clone() };
                self.note(vec![Change::Rule(Box::new(record))])?;
                Ok(None)
            }
        }
    }

    /// The copy that has been behind for too long and for which nothing was done yet; the one that is behind the most.
    fn copy_behind(
        &mut self,
        now: Now,
        rule: &RuleRecord,
        (over_ms, for_ms): (u64, u64),
        role: Option<InstanceRole>,
    ) -> Result<Option<Cause>> {
        let lags: BTreeMap<InstanceId, (u64, String)> = self.lags(now, rule, role);
        let is_over = |copy: &InstanceId| lags.get(copy).is_some_and(|(lag, _)| *lag > over_ms);
        // One that has caught up begins anew; one that is away is neither behind nor has it caught up.
        let caught_up = |copy: &InstanceId| lags.get(copy).is_some_and(|(lag, _)| *lag <= over_ms);
        self.watching.behind.retain(|(name, copy), _| *name != rule.name || is_over(copy));
        if rule.handled.iter().any(caught_up) {
            let handled = rule.handled.iter().copied().filter(|copy| !caught_up(copy)).collect();
            self.note(vec![Change::Rule(Box::new(RuleRecord { handled, ..rule.clone() }))])?;
        }
        let mut worst: Option<(u64, Cause)> = None;
        for (copy, (lag, node)) in lags.iter().filter(|(copy, _)| is_over(copy)) {
            let since = *self.watching.behind.entry((rule.name.clone(), *copy)).or_insert(now.at);
            let is_due = now.at.since(since).0 >= for_ms && !rule.handled.contains(copy);
            if is_due && worst.as_ref().is_none_or(|(most, _)| lag > most) {
                let what = format!("{node} is {lag} ms behind, more than {over_ms} ms for {for_ms} ms");
                worst = Some((*lag, Cause { copy: *copy, what }));
            }
        }
        Ok(worst.map(|(_, cause)| cause))
    }

    /// How far the copies are behind that follow and are heard, with their nodes: by the update times of both, which are
    /// about as old as the last reports.
    fn lags(
        &self,
        now: Now,
        rule: &RuleRecord,
        role: Option<InstanceRole>,
    ) -> BTreeMap<InstanceId, (u64, String)> {
        let leader = self.contents.leads.get(&rule.database).map(|lead| lead.instance);
        let of_leader = |copy: &&super::live::LiveCopy| Some(copy.report.instance) == leader;
        let newest = self.copies_of(rule.database).map(|(_, copy)| copy).find(of_leader);
        let Some(newest) = newest.map(|copy| copy.report.update.millis()) else { return BTreeMap::new() };
        let follows = |(node, copy): &(&str, &super::live::LiveCopy)| {
            let is_meant = role.is_none_or(|role| copy.report.role == role);
            let follows =
                !matches!(copy.report.state, CopyState::Primary | CopyState::Deposed | CopyState::Partial);
            follows && is_meant && self.is_heard(now, node)
        };
        let lag = |(node, copy): (&str, &super::live::LiveCopy)| {
            let lag = newest.saturating_sub(copy.report.update.millis());
            (copy.report.instance, (lag, node.to_owned()))
        };
        self.copies_of(rule.database).filter(follows).map(lag).collect()
    }

    /// Has a rule act, or writes down once why it cannot.
    fn act(&mut self, now: Now, name: &str, cause: &Cause) -> Result<()> {
        let Some(rule) = self.contents.rules.get(name).cloned() else { return Ok(()) };
        let acted = match &rule.action {
            RuleAction::Clone(wish) => self.act_by_clone(now, &rule, wish.clone(), cause),
            RuleAction::Reseed => self.act_by_reseed(now, &rule, cause),
        };
        match acted {
            Ok(()) => {
                self.watching.notes.remove(name);
                self.watching.noted.remove(name);
            }
            Err(Error::Refused { code, what, .. }) => {
                let what =
                    format!("the rule {name} would act, as {}, and cannot ({code}): {what}", cause.what);
                // What changes all the time is how far a copy is behind.
                let kind = format!("{code} {}", cause.copy);
                if self.watching.noted.get(name) != Some(&kind) {
                    let event = self.event(
                        now,
                        EventKind::RuleWaits,
                        Some(rule.database),
                        "",
                        what.clone(),
                        Vec::new(),
                    );
                    self.note(vec![event])?;
                    self.watching.noted.insert(name.to_owned(), kind);
                }
                self.watching.notes.insert(name.to_owned(), what);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The rule after it has acted, and the word of it.
    fn acted(&self, now: Now, rule: &RuleRecord, cause: &Cause) -> Vec<Change> {
        let mut next = RuleRecord { acted_ms: Some(now.wall_ms), ..rule.clone() };
        match rule.event {
            RuleEvent::Failover => next.leader = Some(cause.copy),
            RuleEvent::Lag { .. } => drop(next.handled.insert(cause.copy)),
        }
        let what = format!("the rule {} acts: {}", rule.name, cause.what);
        let node = self.node_of(cause.copy);
        let reasons = vec![words(rule)];
        let event = self.event(now, EventKind::RuleActed, Some(rule.database), &node, what, reasons);
        vec![Change::Rule(Box::new(next)), event]
    }

    fn act_by_clone(&mut self, now: Now, rule: &RuleRecord, wish: CloneWish, cause: &Cause) -> Result<()> {
        let to = if wish.to.is_empty() {
            let near = self.contents.instances.get(&cause.copy).cloned();
            let spare = self.best_spare(now, rule.database, wish.role, near.as_ref());
            spare.ok_or_else(|| {
                let what = format!("no node waits to become a {}", crate::catalog::role_name(wish.role));
                Error::refused("no_spare", what, "start one with `serve --spare` and that --role")
            })?
        } else {
            wish.to
        };
        let name = (wish.role == CloneRole::Detached)
            .then(|| format!("{}-{}", rule.name, self.contents.last_job + 1));
        let wish = CloneWish { to, name, ..wish };
        let origin = format!("the rule {}: {}", rule.name, cause.what);
        let acted = self.acted(now, rule, cause);
        self.submit_clone_with(now, &wish, &origin, acted)?;
        Ok(())
    }

    fn act_by_reseed(&mut self, now: Now, rule: &RuleRecord, cause: &Cause) -> Result<()> {
        let node = self.node_of(cause.copy);
        let mut open = self.open_jobs().values();
        if open.any(|job| job.kind == JobKind::Reseed && job.instance == cause.copy) {
            let what = format!("{node} was told already to take everything anew");
            return Err(Error::refused("exists", what, "wait until it has"));
        }
        let what = format!("{node} is told to take everything anew, as {}", cause.what);
        let job = JobRecord {
            number: self.contents.last_job + 1,
            kind: JobKind::Reseed,
            database: rule.database,
            instance: cause.copy,
            node: node.clone(),
            state: JobState::Open,
            reason: what.clone(),
            began_ms: now.wall_ms,
            ended_ms: None,
        };
        let mut changes = self.acted(now, rule, cause);
        changes.push(Change::Job(job));
        changes.push(self.event(now, EventKind::ReseedAsked, Some(rule.database), &node, what, Vec::new()));
        self.note(changes)
    }

    /// The rules that have a copy seeded anew, after that came to nothing.
    pub(super) fn acts_again_for(&self, copy: InstanceId) -> Vec<Change> {
        let has_acted =
            |rule: &&RuleRecord| rule.action == RuleAction::Reseed && rule.handled.contains(&copy);
        let again = |rule: &RuleRecord| {
            let handled = rule.handled.iter().copied().filter(|known| *known != copy).collect();
            Change::Rule(Box::new(RuleRecord { handled, ..rule.clone() }))
        };
        self.contents.rules.values().filter(has_acted).map(again).collect()
    }

    /// Ends what nodes were told and have not answered in time, by the clock of the wall: it goes on while the control center
    /// is down.
    fn end_overdue_reseeds(&mut self, now: Now) -> Result<()> {
        let is_overdue = |job: &&JobRecord| {
            job.kind == JobKind::Reseed && now.wall_ms.saturating_sub(job.began_ms) >= JOB_PATIENCE.0
        };
        let overdue: Vec<JobRecord> = self.open_jobs().values().filter(is_overdue).cloned().collect();
        for job in overdue {
            let why = format!("{} did not say in {JOB_PATIENCE} whether it takes everything anew", job.node);
            self.end_job(now, job, JobState::Failed, EventKind::ReseedFailed, why)?;
        }
        Ok(())
    }
}

impl Watching {
    fn forget(&mut self, rule: &str) {
        self.behind.retain(|(name, _), _| name != rule);
        self.notes.remove(rule);
        self.noted.remove(rule);
    }
}

/// A rule in words.
pub(super) fn words(rule: &RuleRecord) -> String {
    let event = match rule.event {
        RuleEvent::Lag { over_ms, for_ms, role } => {
            let who = role.map_or("a copy", InstanceRole::name);
            format!("if {who} is behind by more than {over_ms} ms for {for_ms} ms")
        }
        RuleEvent::Failover => "if another copy leads".to_owned(),
    };
    let action = match &rule.action {
        RuleAction::Reseed => "it takes everything anew".to_owned(),
        RuleAction::Clone(wish) => {
            let role = crate::catalog::role_name(wish.role);
            let to = if wish.to.is_empty() { "a node that waits for one" } else { &wish.to };
            format!("a {role} copy is made on {to}")
        }
    };
    format!("{event}, {action}; then not before {} ms", rule.pause_ms)
}
