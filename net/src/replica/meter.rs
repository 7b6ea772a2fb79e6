//! What a refresh takes: from the moment when the copy is behind until it is online again, over all sessions between.

use planaria_replication::secondary::{State, Status};
use planaria_replication::{Millis, Reason, Way};

use super::FollowStatus;
use crate::quic::Traffic;

/// Watches one refresh at a time.
#[derive(Debug, Default)]
pub(super) struct Meter {
    begun: Option<Begun>,
    /// What the session that runs had carried while the copy was online in it: news, and no refresh.
    news: Traffic,
    /// What had been moved, and how many refreshes were installed, when the copy was online last.
    online: Option<(Moved, u64)>,
}

/// A refresh that is under way.
#[derive(Debug)]
struct Begun {
    at: Millis,
    /// What had been moved before it.
    before: Moved,
    /// What sessions that have ended carried for it.
    carried: Traffic,
    /// What the first of them had carried before it.
    news: Traffic,
    /// Run files that it took: why, and how many bytes.
    bulk: Option<(Reason, u64)>,
}

/// What a copy has moved since its state machine began.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Moved {
    records: u64,
    logged_records: u64,
    bytes: u64,
    logged_bytes: u64,
}

impl Moved {
    fn of(status: &Status, logged_records: u64) -> Self {
        let counters = &status.counters;
        Self {
            records: counters.records,
            logged_records,
            bytes: counters.refresh_bytes,
            logged_bytes: counters.live_bytes,
        }
    }
}

impl Meter {
    /// A session ended; what it carried counts if a refresh is under way.
    pub(super) fn session_ended(&mut self, traffic: Traffic) {
        self.news = Traffic::default();
        if let Some(begun) = &mut self.begun {
            begun.carried = begun.carried.with(traffic);
        }
    }

    /// Run files were put in the place of the copy, and a state machine of their own begins with it.
    pub(super) fn took_run_files(&mut self, reason: Reason, bytes: u64) {
        if let Some(begun) = &mut self.begun {
            begun.before = Moved::default();
            begun.bulk = Some((reason, bytes));
        }
    }

    /// Begins when the copy is behind. When it is online again, `told` gets to know what that took; `traffic` is what
    /// the session that runs has carried, and `logged_records` what its copy has appended to the log.
    pub(super) fn look(
        &mut self,
        status: &Status,
        logged_records: u64,
        traffic: Traffic,
        now: Millis,
        told: &mut FollowStatus,
    ) {
        let moved = Moved::of(status, logged_records);
        match (status.state, &self.begun) {
            (State::Stale | State::Refreshing, None) => {
                let (carried, news) = (Traffic::default(), std::mem::take(&mut self.news));
                self.begun = Some(Begun { at: now, before: moved, carried, news, bulk: None });
            }
            (State::Online, begun) => {
                let refreshes = status.counters.refreshes;
                let round = self.online.filter(|(_, before)| begun.is_none() && refreshes > *before);
                if let Some((before, _)) = round {
                    // A round of a partial copy, which is online all the while.
                    tell_round(status, before, moved, told);
                }
                self.online = Some((moved, refreshes));
                if let Some(begun) = begun {
                    begun.tell(status, moved, now, told);
                    told.traffic = begun.carried.with(traffic).without(begun.news);
                }
                self.begun = None;
                self.news = traffic;
            }
            // One that is away, or told to wait, before anything has moved has not begun.
            (State::Offline, Some(begun)) if begun.before == moved && begun.bulk.is_none() => {
                self.begun = None;
            }
            _ => {}
        }
    }
}

fn tell_round(status: &Status, before: Moved, moved: Moved, told: &mut FollowStatus) {
    told.last_refresh_way = status.way;
    told.last_refresh_reason = status.reason;
    told.last_refresh_ms = None;
    told.last_refresh_records = moved.records.saturating_sub(before.records);
    told.last_refresh_bytes = moved.bytes.saturating_sub(before.bytes);
}

impl Begun {
    fn tell(&self, status: &Status, moved: Moved, now: Millis, told: &mut FollowStatus) {
        let mut records = moved.records.saturating_sub(self.before.records);
        let mut bytes = moved.bytes.saturating_sub(self.before.bytes);
        told.last_refresh_way = status.way;
        told.last_refresh_reason = status.reason;
        if let Some((reason, run_bytes)) = self.bulk {
            told.last_refresh_way = Some(Way::Bulk);
            told.last_refresh_reason = Some(reason);
            bytes += run_bytes;
        }
        // Commits that come while a delta is collected are news; those of a tail are what it moves.
        if status.way == Some(Way::Tail) {
            records += moved.logged_records.saturating_sub(self.before.logged_records);
            bytes += moved.logged_bytes.saturating_sub(self.before.logged_bytes);
        }
        if let Some((way, reason)) = told.last_refresh_way.zip(told.last_refresh_reason) {
            match told.refreshes.iter_mut().find(|known| (known.0, known.1) == (way, reason)) {
                Some((.., count)) => *count += 1,
                None => told.refreshes.push((way, reason, 1)),
            }
        }
        told.last_refresh_ms = Some(now.since(self.at).0);
        told.last_refresh_records = records;
        told.last_refresh_bytes = bytes;
    }
}
