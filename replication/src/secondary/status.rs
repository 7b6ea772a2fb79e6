use planaria_types::{Epoch, InstanceId, Uid};

use crate::{Millis, Reason, Way};

/// What a secondary is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// It has no session.
    #[default]
    Offline,
    /// It has a session and has not reached the tail.
    Stale,
    /// It is being refreshed, and reads at its old cut.
    Refreshing,
    /// It has reached the tail and follows.
    Online,
}

impl State {
    /// The name used in metrics and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Stale => "stale",
            Self::Refreshing => "refreshing",
            Self::Online => "online",
        }
    }
}

/// What a secondary has moved since its process started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Commits taken in from the live stream.
    pub commits: u64,
    /// Their weight in bytes.
    pub live_bytes: u64,
    /// Records taken in by deltas, rewinds and reconciles.
    pub records: u64,
    /// Their weight in bytes.
    pub refresh_bytes: u64,
    /// Records of deltas that were dropped, because the live stream brings them.
    pub records_dropped: u64,
    /// Parts whose fingerprints were compared.
    pub parts: u64,
    /// Ranges that were replaced.
    pub ranges: u64,
    /// Reconciles installed.
    pub reconciles: u64,
    /// Refreshes installed, hops and bulk included.
    pub refreshes: u64,
    /// Hops installed.
    pub hops: u64,
    /// Deltas that went on from what an interrupted one had brought.
    pub resumptions: u64,
    /// Times that held commits outgrew their buffer.
    pub overflows: u64,
    /// Sessions that said hello.
    pub sessions: u64,
    /// Times that something was taken back beyond a fork, by clip or by rewind.
    pub forks: u64,
}

/// How far a refresh has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Bytes of records taken in this round.
    pub bytes: u64,
    /// Bytes that the primary estimated for this round.
    pub bytes_expected: u64,
    /// Bytes of commits held at the receiver.
    pub held_bytes: u64,
    /// Bytes of the hop before the last, if there were two.
    pub hop_before_bytes: Option<u64>,
    /// Bytes of the last hop, if there was one.
    pub hop_bytes: Option<u64>,
}

impl Progress {
    /// Whether hops get smaller, so that one will fit; `None` until two can be compared.
    ///
    /// They do iff the link carries the rate of distinct changes.
    pub fn converges(&self) -> Option<bool> {
        Some(self.hop_bytes? < self.hop_before_bytes?)
    }

    /// How many more hops are predicted until one fits into `held_bytes_max`, the sizes falling as they did last;
    /// `None` if that cannot be told or they do not fall.
    pub fn hops_left(&self, held_bytes_max: u64) -> Option<u32> {
        let (before, last) = (self.hop_before_bytes?, self.hop_bytes?);
        if last >= before {
            return None;
        }
        let mut size = last;
        let mut hops = 0;
        while size > held_bytes_max && hops < 1_000 {
            size = (u128::from(size) * u128::from(last) / u128::from(before)) as u64;
            hops += 1;
        }
        Some(hops)
    }
}

/// What is to be expected of a copy that hops forward, because the live stream outgrew what can be held meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outlook {
    /// Nothing before the next hop, whose size tells.
    Open,
    /// So many more hops, the sizes falling as they did last; then one fits, and the copy is online.
    Ends {
        /// Hops, the one that fits included.
        hops: u32,
    },
    /// The hops do not shrink: more changes than the link carries, and the lag grows until there are fewer.
    FallsBehind,
}

impl std::fmt::Display for Outlook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open => f.write_str("the live stream outgrew what can be held, so it hops forward"),
            Self::Ends { hops } => {
                write!(f, "it hops forward, and is expected to be online after {hops} more hops")
            }
            Self::FallsBehind => f.write_str(
                "it hops forward and falls behind: more records change than the link carries; the lag grows until fewer do",
            ),
        }
    }
}

/// A secondary as others may see it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// What it is.
    pub state: State,
    /// Since when it is that.
    pub since: Millis,
    /// The epoch that it promised to follow.
    pub epoch: Epoch,
    /// Everything up to this UID is durable here and at the primary.
    pub durable: Uid,
    /// Everything up to this UID is visible here.
    pub visible: Uid,
    /// What the primary last told to be durable there.
    pub primary_durable: Uid,
    /// What is stable according to the primary, and shared with it: no floor of this copy may pass it. The driver must
    /// ask again before each time that it raises a floor.
    pub stable: Uid,
    /// No commit at or below this UID is missing here: the update time.
    pub closed: Uid,
    /// Whether the copy shows something that its primary does not have.
    pub diverged: bool,
    /// The way of the last refresh.
    pub way: Option<Way>,
    /// Why that way.
    pub reason: Option<Reason>,
    /// How far it has come.
    pub progress: Progress,
    /// Totals.
    pub counters: Counters,
    /// Connection attempts since the last session that worked.
    pub attempts: u32,
    /// Sessions that ended because another process follows as this copy, from the same directory once, since the last one that
    /// was left alone for a minute.
    pub displaced: u32,
    /// Why the last session ended, if one did.
    pub last_end: Option<String>,
    /// Whether the copy that is followed follows as well, as it said last.
    pub fed: bool,
    /// The copies that commits come through, from the one that is followed to the primary, as it said last.
    pub chain: Vec<InstanceId>,
}

impl Status {
    /// What is to be expected, if the copy hops: it is told how much it can hold while a round goes on, in bytes.
    pub fn outlook(&self, held_bytes_max: u64) -> Option<Outlook> {
        self.progress.hop_bytes?;
        Some(match (self.progress.converges(), self.progress.hops_left(held_bytes_max)) {
            (None, _) => Outlook::Open,
            (Some(true), Some(hops)) => Outlook::Ends { hops: hops + 1 },
            _ => Outlook::FallsBehind,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Outlook, Progress, Status};

    #[test]
    fn whoever_hops_says_what_is_to_be_expected() {
        let after = |before: Option<u64>, last: Option<u64>| {
            let progress = Progress { hop_before_bytes: before, hop_bytes: last, ..Progress::default() };
            Status { progress, ..Status::default() }.outlook(100)
        };
        assert_eq!(after(None, None), None);
        assert_eq!(after(None, Some(800)), Some(Outlook::Open));
        assert_eq!(after(Some(800), Some(400)), Some(Outlook::Ends { hops: 3 }));
        assert_eq!(after(Some(400), Some(80)), Some(Outlook::Ends { hops: 1 }));
        assert_eq!(after(Some(400), Some(400)), Some(Outlook::FallsBehind));
    }

    #[test]
    fn hops_that_shrink_are_predicted_to_fit_and_others_are_not() {
        let shrinking = Progress { hop_before_bytes: Some(800), hop_bytes: Some(400), ..Progress::default() };
        assert_eq!(shrinking.converges(), Some(true));
        assert_eq!(shrinking.hops_left(100), Some(2));
        let growing = Progress { hop_before_bytes: Some(400), hop_bytes: Some(400), ..Progress::default() };
        assert_eq!(growing.converges(), Some(false));
        assert_eq!(growing.hops_left(100), None);
        assert_eq!(Progress::default().converges(), None);
    }
}
