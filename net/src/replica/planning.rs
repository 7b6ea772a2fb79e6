//! What a refresh would take, told before anything moves.

use planaria_replication::{Choice, Situation, Way};
use planaria_types::{History, HistoryHash, Portion, Uid};

use super::Primary;
use super::executor;
use crate::{Error, Result};

/// What a refresh would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshPlan {
    /// The way, why, and the estimated bytes.
    pub choice: Choice,
    /// The estimated number of records; none for a tail, which moves commits.
    pub records: Option<u64>,
}

impl Primary {
    /// What a refresh of a copy with this history, durable position and hash there would take, if it began now, or of a
    /// partial one that holds a portion; nothing is begun.
    ///
    /// # Errors
    ///
    /// `Protocol` if the copy has no epoch in common with this primary.
    pub fn plan(
        &self,
        history: &History,
        durable: Uid,
        hash: Option<HistoryHash>,
        asked: Option<Way>,
        portion: Option<&Portion>,
    ) -> Result<RefreshPlan> {
        let (own, appended) = {
            let group = self.group.lock();
            if group.is_feeding() && !group.has_feed() {
                return Err(Error::NotReady);
            }
            (group.history().clone(), group.appended())
        };
        let fork = planaria_replication::fork(&own, appended, history, durable)
            .ok_or_else(|| Error::Protocol("the histories have no epoch in common: clone anew".into()))?;
        let estimate = executor::estimate(&self.db, portion, fork.uid)?;
        let known = if fork.uid == durable { self.db.history_hash_at(durable)? } else { None };
        let same_hash = hash.zip(known).is_none_or(|(theirs, ours)| theirs == ours);
        let mut choice = planaria_replication::choose(&Situation {
            since: fork.uid,
            retained: estimate.retained,
            mark_floor: self.db.mark_floor(),
            tail_bytes: estimate.tail_bytes,
            delta_bytes: estimate.delta_bytes,
            total_bytes: estimate.total_bytes,
            without_live: portion.is_some(),
            trusted: same_hash && planaria_replication::agree(&own, history),
            bulk: None,
            asked,
            bulk_bytes_min: self.options.bulk_bytes_min,
            tail_bytes_free: self.options.tail_bytes_free,
            is_partial: portion.is_some(),
            is_begun: false,
        });
        let versions: u64 = self.db.status()?.tables.iter().map(|table| table.versions).sum();
        let records = match choice.way {
            Way::Tail => None,
            Way::Bulk => Some(versions),
            Way::Delta | Way::PinnedDelta | Way::Reconcile | Way::PinnedReconcile => {
                let share = u128::from(versions) * u128::from(choice.bytes);
                Some((share / u128::from(estimate.total_bytes.max(choice.bytes).max(1))) as u64)
            }
        };
        if choice.way == Way::Bulk {
            choice.bytes = choice.bytes.saturating_add(estimate.memory_bytes);
        }
        Ok(RefreshPlan { choice, records })
    }
}
