//! Where a clone to a node would be taken from.

use planaria_net::wire::control::{CandidateInfo, SourceInfo};
use planaria_net::wire::message::{AsOf, VERSION_MAX, VERSION_MIN};
use planaria_replication::control::{
    CopyState, InstanceRole, Priority, SourceCopy, SourceRule, StoreAccess, WaitingClone, plan,
};
use planaria_replication::{agree, fork};
use planaria_types::{DatabaseId, InstanceId};

use super::live::LiveCopy;
use super::stored::Asked;
use super::{Center, Now};
use crate::{Error, Result};

impl Center {
    /// Chooses the source of a clone, by what is known now. Nothing is done.
    ///
    /// # Errors
    ///
    /// `unknown_node`, `unknown_database`, `ambiguous`.
    pub fn choose_source(
        &self,
        now: Now,
        to: &str,
        database: Option<&str>,
        period_ms: u64,
        as_of: AsOf,
    ) -> Result<SourceInfo> {
        let database = self.database_named(database)?.database;
        if !self.contents.nodes.contains_key(to) {
            return Err(unknown_node(to));
        }
        let asked = Asked { as_of, is_as_it_is: true };
        let clone = WaitingClone {
            number: self.contents.last_job + 1,
            priority: Priority::AdHoc,
            submitted_ms: now.wall_ms,
            node: to.to_owned(),
            to: self.destination(to),
            is_reachable: self.is_heard(now, to),
            rule: SourceRule { period_ms, as_of: asked.uid(), ..SourceRule::default() },
            bytes_per_s: None,
            sources: self.queued_sources(now, to, database, asked),
        };
        let plan = plan(&self.limits(), now.wall_ms, &self.running(), &[clone]);
        let waits = plan.waits.into_iter().next();
        let note = waits.as_ref().map(|wait| wait.reason.to_string()).unwrap_or_default();
        let begins = plan.starts.into_iter().next().map(|start| start.choice);
        let Some(choice) = begins.or(waits.map(|wait| wait.choice)) else {
            return Ok(SourceInfo { note, ..SourceInfo::default() });
        };
        let candidate = |verdict: &planaria_replication::control::SourceVerdict| CandidateInfo {
            instance: verdict.instance,
            node: self.node_of(verdict.instance),
            role: verdict.role,
            update: verdict.update,
            distance: verdict.distance.to_string(),
            round_trip_us: verdict.round_trip_us,
            is_chosen: choice.source == Some(verdict.instance),
            code: verdict.reason.code().to_owned(),
            reason: verdict.reason.to_string(),
        };
        let candidates = choice.verdicts.iter().map(candidate).collect();
        Ok(SourceInfo { source: choice.source, candidates, note })
    }

    /// The copies of a database, for a clone to a node. What goes through their nodes the queue knows.
    pub(super) fn source_copies(&self, now: Now, to: &str, database: DatabaseId) -> Vec<SourceCopy> {
        let leader = self.leader_of(database);
        let live: Vec<_> = self.copies_of(database).collect();
        let is_live = |instance: InstanceId| live.iter().any(|(_, copy)| copy.report.instance == instance);
        let reported = live.iter().map(|(node, copy)| self.source_copy(now, (node, to), copy, leader));
        // Those that nothing was heard of since the control center started are told of, too.
        let away = self.contents.instances.values();
        let away = away.filter(|known| known.database == database && !is_live(known.instance));
        let away = away.map(|known| SourceCopy {
            instance: known.instance,
            role: known.role,
            labels: self.labels(&known.node),
            update: known.update,
            is_on_history: true,
            is_reachable: false,
            is_sound: true,
            is_whole: known.state != CopyState::Partial,
            versions: (VERSION_MIN, VERSION_MAX),
            clones: 0,
            clones_max: 0,
            free_bytes_per_s: 0,
            bytes: known.bytes,
            round_trip_us: None,
            store: StoreAccess::NotNeeded,
        });
        reported.chain(away).collect()
    }

    /// The copy that leads, as it was last reported.
    pub(super) fn leader_of(&self, database: DatabaseId) -> Option<&LiveCopy> {
        let lead = self.contents.leads.get(&database)?;
        self.copies_of(database).map(|(_, copy)| copy).find(|copy| copy.report.instance == lead.instance)
    }

    fn source_copy(
        &self,
        now: Now,
        (node, to): (&str, &str),
        copy: &LiveCopy,
        leader: Option<&LiveCopy>,
    ) -> SourceCopy {
        let report = &copy.report;
        let leads = report.state == CopyState::Primary;
        let is_leader = leader.is_some_and(|leader| leader.report.instance == report.instance);
        SourceCopy {
            instance: report.instance,
            role: if leads { InstanceRole::Primary } else { report.role },
            labels: self.labels(node),
            update: report.update,
            is_on_history: !report.is_diverged && (is_leader || is_on_history(copy, leader)),
            is_reachable: self.is_heard(now, node),
            is_sound: report.damage.is_empty(),
            is_whole: report.state != CopyState::Partial,
            versions: (VERSION_MIN, VERSION_MAX),
            clones: 0,
            clones_max: 0,
            free_bytes_per_s: 0,
            bytes: report.bytes,
            round_trip_us: self.round_trip_us(to, node),
            store: StoreAccess::NotNeeded,
        }
    }
}

pub(super) fn unknown_node(name: &str) -> Error {
    Error::refused(
        "unknown_node",
        format!("no node is called {name:?}"),
        "`planaria cluster nodes` lists those that are known",
    )
}

/// Whether all that a copy holds is part of the leader's history, which may have gone on since. Without a leader that was
/// heard of nothing is known against it.
fn is_on_history(copy: &LiveCopy, leader: Option<&LiveCopy>) -> bool {
    let Some(leader) = leader.map(|leader| &leader.report) else { return true };
    let report = &copy.report;
    let own_end = report.position.uid;
    // The leader may have written since it reported; what a follower has is what it had sent by then.
    let end = leader.position.uid.max(own_end);
    agree(&leader.history, &report.history)
        && fork(&leader.history, end, &report.history, own_end).is_some_and(|at| at.uid == own_end)
}
