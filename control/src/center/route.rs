//! Where clients are sent.

use planaria_net::wire::routes::{RouteInfo, TargetInfo};
use planaria_replication::control::{CopyState, InstanceRole, ReadCopy, choose_readers};
use planaria_types::{DatabaseId, EpochOrder};

use super::live::LiveCopy;
use super::{Center, Now};
use crate::Result;

impl Center {
    /// Where a client of a database is to turn: to the primary, or to a copy that is fresh enough.
    ///
    /// # Errors
    ///
    /// `unknown_database`, `ambiguous`.
    pub fn route(
        &mut self,
        now: Now,
        database: Option<&str>,
        staleness_max_ms: Option<u64>,
    ) -> Result<RouteInfo> {
        let known = self.database_named(database)?;
        let (database, name) = (known.database, known.name.clone());
        let copies = self.read_copies(now, database);
        let verdicts = choose_readers(&copies, staleness_max_ms, self.routed);
        self.routed = self.routed.wrapping_add(1);
        let target = |verdict: &planaria_replication::control::ReadVerdict| {
            let copy = copies.iter().find(|copy| copy.instance == verdict.instance)?;
            let node = self.node_of(verdict.instance);
            Some(TargetInfo {
                instance: verdict.instance,
                address: self.live.get(&node)?.address,
                node,
                role: copy.role,
                age_ms: copy.age_ms,
                serves: verdict.reason.serves(),
                code: verdict.reason.code().to_owned(),
                reason: verdict.reason.to_string(),
            })
        };
        let targets = verdicts.iter().filter_map(target).collect();
        let note = if self.is_led(now, database) { String::new() } else { self.note_of(database) };
        Ok(RouteInfo { database, name, targets, note })
    }

    /// The copies that were heard of since the control center started. One that leads under an epoch that is over does not
    /// know it yet.
    fn read_copies(&self, now: Now, database: DatabaseId) -> Vec<ReadCopy> {
        let newest = self.contents.leads.get(&database).map(|lead| lead.epoch);
        let read_copy = |(node, copy): (&str, &LiveCopy)| {
            let report = &copy.report;
            let is_over = newest.is_some_and(|newest| report.epoch.order(&newest) == EpochOrder::Older);
            let state = match report.state {
                CopyState::Primary if is_over => CopyState::Deposed,
                state => state,
            };
            ReadCopy {
                instance: report.instance,
                role: if state == CopyState::Primary { InstanceRole::Primary } else { report.role },
                state,
                is_reachable: self.is_heard(now, node),
                is_sound: !report.is_diverged && report.damage.is_empty(),
                age_ms: self.age_of(now, node, copy),
            }
        };
        self.copies_of(database).map(read_copy).collect()
    }

    /// How old what a copy shows was when its node reported it.
    fn age_of(&self, now: Now, node: &str, copy: &LiveCopy) -> u64 {
        let since_heard = self.heard_ago(now, node).unwrap_or_default();
        now.wall_ms.saturating_sub(since_heard).saturating_sub(copy.report.update.millis())
    }
}
