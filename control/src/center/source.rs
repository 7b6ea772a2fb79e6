//! Where a clone to a node would be taken from.

use planaria_net::wire::control::{CandidateInfo, SourceInfo};
use planaria_net::wire::message::{VERSION_MAX, VERSION_MIN};
use planaria_replication::control::{
    CopyState, Destination, InstanceRole, SourceCopy, SourceRule, choose_source,
};
use planaria_replication::{agree, fork};
use planaria_types::{DatabaseId, InstanceId};

use super::live::LiveCopy;
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
    ) -> Result<SourceInfo> {
        let database = self.database_named(database)?.database;
        let Some(node) = self.contents.nodes.get(to) else {
            return Err(Error::refused(
                "unknown_node",
                format!("no node is called {to:?}"),
                "`planaria cluster nodes` lists those that are known",
            ));
        };
        let live = self.live.get(to);
        let destination = Destination {
            holds: live.map(|live| live.copies.keys().copied().collect()).unwrap_or_default(),
            labels: node.labels.clone(),
            versions: (VERSION_MIN, VERSION_MAX),
            free_bytes: live
                .filter(|live| live.written.is_some())
                .map_or(node.free_bytes, |live| live.free_bytes),
        };
        let rule = SourceRule { period_ms, ..SourceRule::default() };
        let copies = self.source_copies(now, database);
        let choice = choose_source(&rule, &destination, &copies);
        let candidate = |verdict: &planaria_replication::control::SourceVerdict| CandidateInfo {
            instance: verdict.instance,
            node: self.node_of(verdict.instance),
            role: verdict.role,
            update: verdict.update,
            distance: verdict.distance.to_string(),
            is_chosen: choice.source == Some(verdict.instance),
            code: verdict.reason.code().to_owned(),
            reason: verdict.reason.to_string(),
        };
        Ok(SourceInfo { source: choice.source, candidates: choice.verdicts.iter().map(candidate).collect() })
    }

    fn source_copies(&self, now: Now, database: DatabaseId) -> Vec<SourceCopy> {
        let leader = self.leader_of(database);
        let live: Vec<_> = self.copies_of(database).collect();
        let is_live = |instance: InstanceId| live.iter().any(|(_, copy)| copy.report.instance == instance);
        let reported = live.iter().map(|(node, copy)| self.source_copy(now, node, copy, leader));
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
            clones_max: self.settings.clones_max,
            free_bytes_per_s: u64::MAX,
            bytes: known.bytes,
            round_trip_us: None,
        });
        reported.chain(away).collect()
    }

    /// The copy that leads, as it was last reported.
    fn leader_of(&self, database: DatabaseId) -> Option<&LiveCopy> {
        let lead = self.contents.leads.get(&database)?;
        self.copies_of(database).map(|(_, copy)| copy).find(|copy| copy.report.instance == lead.instance)
    }

    fn source_copy(&self, now: Now, node: &str, copy: &LiveCopy, leader: Option<&LiveCopy>) -> SourceCopy {
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
            clones_max: self.settings.clones_max,
            free_bytes_per_s: u64::MAX,
            bytes: report.bytes,
            round_trip_us: None,
        }
    }
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
