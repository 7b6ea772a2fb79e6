//! Who is let in; nodes and copies that leave: what is gone for good, and what another one has replaced.

use std::net::SocketAddr;

use planaria_net::wire::control::{Join, JoinToken, NodeReport};
use planaria_replication::Millis;
use planaria_types::InstanceId;

use super::learn::shortened;
use super::{Center, NODES_MAX, Now};
use crate::catalog::{
    AdmissionRecord, Change, CloneRecord, CloneState, Declared, EventKind, InstanceRecord, JobRecord,
    JobState, RemovedRecord, RuleRecord,
};
use crate::{Error, Result};

/// Bytes of what an operator says of why a node leaves.
const REASON_BYTES_MAX: usize = 1_024;
/// Things that an answer names of those that are in the way of a removal.
const NAMED_MAX: usize = 5;

impl Center {
    /// Whether a node may join that says it is at an address: with the token of now, or as one that is known there with the token that
    /// it joined with.
    pub(super) fn check_token(&self, join: &Join, address: SocketAddr) -> Result<()> {
        if join.token == self.contents.token {
            return Ok(());
        }
        let name = &join.name;
        let hint = "`planaria cluster token show` tells the one to give with --join-token";
        let known = self.contents.nodes.get(name).map(|node| node.address);
        let admission = self.contents.admissions.get(name).filter(|known| known.token == join.token);
        match (admission, known) {
            (Some(_), Some(at)) if at == address => Ok(()),
            (Some(_), Some(at)) => Err(Error::refused(
                "token",
                format!(
                    "the token of node {name:?} was renewed, and lets it in at {at} alone, not at {address}"
                ),
                hint,
            )),
            _ if known.is_none() && self.contents.removed.contains_key(name) => Err(Error::refused(
                "removed",
                format!(
                    "node {name:?} was removed from the cluster, and its token is not that of it any more"
                ),
                hint,
            )),
            _ => Err(Error::refused(
                "token",
                format!("the token of node {name:?} is not that of this cluster"),
                hint,
            )),
        }
    }

    /// Writes down that a node knows the token of now.
    pub(super) fn note_token(&mut self, join: &Join) -> Result<()> {
        let is_older = self.contents.admissions.contains_key(&join.name);
        if !is_older || join.token != self.contents.token {
            return Ok(());
        }
        self.note(vec![Change::AdmissionRemoved(join.name.clone())])
    }

    /// Has nodes join with another token from now on, which was drawn at random. Those that are known are let in again with the one
    /// that they joined with, where they are, until they say the new one or leave.
    pub fn renew_token(&mut self, now: Now, token: JoinToken) -> Result<()> {
        let older = self.contents.token;
        let known = self.contents.nodes.keys().filter(|name| !self.contents.admissions.contains_key(*name));
        let admission =
            |name: &String| Change::Admission(AdmissionRecord { node: name.clone(), token: older });
        let mut changes: Vec<Change> = known.map(admission).collect();
        changes.push(Change::Token(token));
        let what = "the token with which nodes join was renewed".to_owned();
        changes.push(self.event(now, EventKind::TokenRenewed, None, "", what, Vec::new()));
        self.note(changes)
    }

    /// Has a node leave that is gone for good: its copies, its round trips and what was declared of it go with it. With `force` also
    /// one that led last, has clones that wait or run, or is named by schedules and rules: what is on its way to it is given up,
    /// and the epoch under which it led stays known.
    ///
    /// # Errors
    ///
    /// `unknown_node`; `node_heard` if it is heard, and `too_early` if it has had no time to be, both with `force`, too; `leads`,
    /// `busy`, `named`.
    pub fn remove_node(&mut self, now: Now, name: &str, reason: &str, force: bool) -> Result<()> {
        if !self.contents.nodes.contains_key(name) {
            return Err(super::source::unknown_node(name));
        }
        self.check_gone(now, name)?;
        if !force {
            self.check_unneeded(name)?;
        }
        self.end_work_of(now, name)?;
        let copies: Vec<InstanceRecord> =
            self.contents.instances.values().filter(|copy| copy.node == name).cloned().collect();
        let mut changes = self.forgotten_with(name, &copies);
        let reason = shortened(&reason.replace(char::is_control, " "), REASON_BYTES_MAX);
        changes.extend(self.remembered(RemovedRecord {
            node: name.to_owned(),
            removed_ms: now.wall_ms,
            reason: reason.clone(),
        }));
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let what = format!("{name} has left{why}");
        let reasons = self.words_of_gone(now, name, &copies, force);
        changes.push(self.event(now, EventKind::NodeRemoved, None, name, what, reasons));
        self.note(changes)?;
        if let Some(node) = self.live.remove(name) {
            if self.left.len() >= NODES_MAX {
                self.left.pop_first();
            }
            self.left.insert(node.session, name.to_owned());
        }
        self.seeding.forget(name);
        for watched in self.watched.values_mut() {
            watched.told_to_follow.retain(|copy, _| copies.iter().all(|gone| gone.instance != *copy));
        }
        self.run_queue(now)
    }

    /// Fails for a node that may be there.
    fn check_gone(&self, now: Now, name: &str) -> Result<()> {
        let lost_after = Millis(self.settings.lost_after_ms);
        if self.is_heard(now, name) {
            let ago = Millis(self.heard_ago(now, name).unwrap_or(0));
            return Err(Error::refused(
                "node_heard",
                format!("{name} was heard {ago} ago: it is not gone"),
                "stop it first; it counts as gone once it was not heard for --lost-after of `planaria control`",
            ));
        }
        if !self.live.contains_key(name) && now.at.since(self.started) < lost_after {
            return Err(Error::refused(
                "too_early",
                format!("the control center was started less than {lost_after} ago, and {name} may be there"),
                "try again when nodes have had that time to be heard",
            ));
        }
        Ok(())
    }

    /// Fails for a node that something still depends on.
    fn check_unneeded(&self, name: &str) -> Result<()> {
        let led = self.contents.leads.values().filter(|lead| lead.node == name);
        let led: Vec<String> = led.map(|lead| self.database_name(lead.database)).collect();
        if !led.is_empty() {
            return Err(Error::refused(
                "leads",
                format!("{name} led {} last, and no other copy leads", some_of(&led)),
                "have another copy lead first (`planaria promote`, `planaria cluster mode`); --force removes it all the same",
            ));
        }
        let jobs = self.open_jobs().values().filter(|job| job.node == name);
        let jobs = jobs.map(|job| format!("job {} ({})", job.number, job.kind.name()));
        let is_of_it = |clone: &&CloneRecord| {
            let gives = clone.state == CloneState::Running && clone.source_node == name;
            clone.node == name || gives
        };
        let clones = self.contents.clones.values().filter(is_of_it);
        let clones = clones.map(|clone| format!("clone {} ({})", clone.number, clone.state.name()));
        let open: Vec<String> = jobs.chain(clones).collect();
        if !open.is_empty() {
            return Err(Error::refused(
                "busy",
                format!("{name} has work that has not come to its end: {}", some_of(&open)),
                "cancel clones with `planaria cluster clone cancel`, and give jobs the half minute after which they are given up; --force gives up what goes to it",
            ));
        }
        let schedules = self.contents.schedules.values().filter(|schedule| schedule.wish.to == name);
        let schedules = schedules.map(|schedule| format!("the schedule {}", schedule.name));
        let rules = self.contents.rules.values().filter(|rule| rule.names(name));
        let named: Vec<String> =
            schedules.chain(rules.map(|rule| format!("the rule {}", rule.name))).collect();
        if named.is_empty() {
            return Ok(());
        }
        Err(Error::refused(
            "named",
            format!("{name} is to get clones by {}", some_of(&named)),
            "change or remove those first; --force lets them be, and each asks for its clones in vain",
        ))
    }

    /// Gives up what a node was told, and what is on its way to it.
    fn end_work_of(&mut self, now: Now, name: &str) -> Result<()> {
        let jobs: Vec<JobRecord> =
            self.open_jobs().values().filter(|job| job.node == name).cloned().collect();
        for job in jobs {
            let kind = job.kind.failure();
            self.end_job(now, job, JobState::Failed, kind, format!("{name} has left"))?;
        }
        let clones: Vec<CloneRecord> =
            self.contents.clones.values().filter(|clone| clone.node == name).cloned().collect();
        for clone in clones {
            let why = format!("{name} has left");
            self.end_clone(now, clone, CloneState::Cancelled, "node_removed", why)?;
        }
        Ok(())
    }

    /// What goes with a node.
    fn forgotten_with(&self, name: &str, copies: &[InstanceRecord]) -> Vec<Change> {
        let mut changes = vec![Change::NodeRemoved(name.to_owned())];
        changes.extend(copies.iter().map(|copy| Change::InstanceRemoved(copy.instance)));
        let of_it = self.contents.links.keys().filter(|(from, to)| from == name || to == name);
        changes.extend(of_it.map(|(from, to)| Change::LinkRemoved(from.clone(), to.clone())));
        if self.contents.declarations.contains_key(&(Declared::Node, name.to_owned())) {
            changes.push(Change::DeclarationRemoved(Declared::Node, name.to_owned()));
        }
        if self.contents.admissions.contains_key(name) {
            changes.push(Change::AdmissionRemoved(name.to_owned()));
        }
        let gone: Vec<InstanceId> = copies.iter().map(|copy| copy.instance).collect();
        changes.extend(self.handled_no_more(&gone));
        changes
    }

    /// The rules without copies that are gone.
    fn handled_no_more(&self, gone: &[InstanceId]) -> Vec<Change> {
        let knows = |rule: &&RuleRecord| gone.iter().any(|copy| rule.handled.contains(copy));
        let without = |rule: &RuleRecord| {
            let handled = rule.handled.iter().copied().filter(|copy| !gone.contains(copy)).collect();
            Change::Rule(Box::new(RuleRecord { handled, ..rule.clone() }))
        };
        self.contents.rules.values().filter(knows).map(without).collect()
    }

    /// That a node has left, in place of the oldest one of which that is remembered where there are too many.
    fn remembered(&self, removed: RemovedRecord) -> Vec<Change> {
        let known = &self.contents.removed;
        let is_full = known.len() >= NODES_MAX && !known.contains_key(&removed.node);
        let oldest = known.values().filter(|_| is_full).min_by_key(|known| known.removed_ms);
        let oldest = oldest.map(|oldest| Change::RemovedForgotten(oldest.node.clone()));
        oldest.into_iter().chain([Change::Removed(removed)]).collect()
    }

    /// What was known of a node that leaves, in words.
    fn words_of_gone(&self, now: Now, name: &str, copies: &[InstanceRecord], force: bool) -> Vec<String> {
        let heard = match self.heard_ago(now, name) {
            Some(ago) => format!("it was heard {} ago", Millis(ago)),
            None => "it was not heard since the control center started".to_owned(),
        };
        let copy = |copy: &InstanceRecord| {
            let database = self.database_name(copy.database);
            format!("its copy {} of {database} ({}) goes with it", copy.instance, copy.state)
        };
        let led = self.contents.leads.values().filter(|lead| lead.node == name);
        let led = led
            .map(|lead| format!("it led {} last, under {}", self.database_name(lead.database), lead.epoch));
        let forced = force.then(|| "by force".to_owned());
        [heard].into_iter().chain(copies.iter().map(copy)).chain(led).chain(forced).collect()
    }

    /// Of a node that joins and had left: what is forgotten, and the words of it.
    pub(super) fn back_after(&self, name: &str) -> Option<(Change, String)> {
        let removed = self.contents.removed.get(name)?;
        let micros = i64::try_from(removed.removed_ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let at = planaria_engine::Value::Timestamp(micros);
        let words = format!("it had left at {at}, and joined again with the token");
        Some((Change::RemovedForgotten(name.to_owned()), words))
    }

    /// The error of a report under a session that is none.
    pub(super) fn not_joined(&self, session: u64) -> Error {
        match self.left.get(&session) {
            Some(name) => Error::refused(
                "removed",
                format!("node {name:?} was removed from the cluster"),
                "it has to join again, with the token that `planaria cluster token show` tells",
            ),
            None => Error::refused("not_joined", "no node has joined under this session", "join first"),
        }
    }

    /// Has copies leave that a node reports no more, as it has another one in their place. One that leads by what is known stays
    /// until another one does, and one that a job is about until that has ended.
    pub(super) fn forget_replaced(&mut self, now: Now, name: &str, report: &NodeReport) -> Result<()> {
        let Some(present) = report.copies.first() else { return Ok(()) };
        let is_reported = |instance: InstanceId| {
            let is_live = |node: &super::LiveNode| node.copies.contains_key(&instance);
            report.copies.iter().any(|copy| copy.instance == instance) || self.live.values().any(is_live)
        };
        let is_needed = |instance: InstanceId| {
            self.contents.leads.values().any(|lead| lead.instance == instance)
                || self.open_jobs().values().any(|job| job.instance == instance)
        };
        let is_replaced = |copy: &&InstanceRecord| {
            copy.node == name && !is_reported(copy.instance) && !is_needed(copy.instance)
        };
        let replaced: Vec<InstanceRecord> =
            self.contents.instances.values().filter(is_replaced).cloned().collect();
        if replaced.is_empty() {
            return Ok(());
        }
        let gone: Vec<InstanceId> = replaced.iter().map(|copy| copy.instance).collect();
        let mut changes = self.handled_no_more(&gone);
        for copy in replaced {
            let database = self.database_name(copy.database);
            let what = format!(
                "the copy {} of {database} has left: {name} has {} in its place",
                copy.instance, present.instance
            );
            let kind = EventKind::CopyReplaced;
            changes.push(self.event(now, kind, Some(copy.database), name, what, Vec::new()));
            changes.push(Change::InstanceRemoved(copy.instance));
        }
        self.note(changes)
    }

    fn database_name(&self, database: planaria_types::DatabaseId) -> String {
        let known = self.contents.databases.get(&database);
        known.map_or_else(|| database.to_string(), |known| known.name.clone())
    }
}

/// The first few of several things, and how many more there are.
fn some_of(things: &[String]) -> String {
    let shown = things.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match things.len().saturating_sub(NAMED_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
