use std::collections::VecDeque;
use std::sync::Arc;

use planaria_types::{HistoryHash, Uid};

use super::encoding::EncodedCommit;
use crate::sync::Mutex;

/// The most bytes of recent commits kept in memory for live streams.
const RECENT_BYTES_MAX: usize = 16 << 20;
/// The least, so that a live stream need not read the log for what was appended a moment ago.
const RECENT_BYTES_MIN: usize = 64 << 10;

/// A commit and the history hash after it.
#[derive(Clone, Debug)]
pub struct LoggedCommit {
    /// The commit.
    pub commit: EncodedCommit,
    /// The history hash of the group right after it.
    pub hash: HistoryHash,
}

/// Called after commits were appended, and after a sync; must not block.
pub type Listener = Arc<dyn Fn() + Send + Sync>;

/// The newest commits, in order, for those who follow live. Bounded: who falls behind reads the log.
pub(crate) struct Feed {
    recent_bytes_max: usize,
    recent: Mutex<Recent>,
    listeners: Mutex<Vec<(u64, Listener)>>,
}

#[derive(Default)]
struct Recent {
    commits: VecDeque<LoggedCommit>,
    bytes: usize,
}

impl Feed {
    /// A feed that keeps about `tail_bytes` of commits, within limits.
    pub(crate) fn new(tail_bytes: u64) -> Self {
        let bytes = usize::try_from(tail_bytes).unwrap_or(usize::MAX);
        Self {
            recent_bytes_max: bytes.clamp(RECENT_BYTES_MIN, RECENT_BYTES_MAX),
            recent: Mutex::default(),
            listeners: Mutex::default(),
        }
    }

    /// Adds commits behind the last.
    pub(crate) fn push(&self, commits: &[LoggedCommit]) {
        let mut recent = self.recent.lock();
        for logged in commits {
            recent.bytes += logged.commit.bytes().len();
            recent.commits.push_back(logged.clone());
        }
        while recent.bytes > self.recent_bytes_max && recent.commits.len() > 1 {
            if let Some(oldest) = recent.commits.pop_front() {
                recent.bytes -= oldest.commit.bytes().len();
            }
        }
    }

    /// The commits after `uid`, up to `bytes_max` but at least one if there is one; `None` if `uid` is so far back
    /// that some of them are gone.
    pub(crate) fn after(&self, uid: Uid, bytes_max: usize) -> Option<Vec<LoggedCommit>> {
        let recent = self.recent.lock();
        let from = recent.commits.partition_point(|logged| logged.commit.uid() <= uid);
        let first = recent.commits.get(from);
        if first.map_or_else(
            || recent.commits.back().is_none_or(|last| last.commit.uid() < uid),
            |first| first.commit.prev() > uid,
        ) {
            return None;
        }
        let mut bytes = 0;
        let fits = |logged: &&LoggedCommit| {
            let before = bytes;
            bytes += logged.commit.bytes().len();
            before == 0 || bytes <= bytes_max
        };
        Some(recent.commits.iter().skip(from).take_while(fits).cloned().collect())
    }

    /// The history hash right after the commit `uid`, if it is here.
    pub(crate) fn hash_at(&self, uid: Uid) -> Option<HistoryHash> {
        let recent = self.recent.lock();
        let at = recent.commits.binary_search_by_key(&uid, |logged| logged.commit.uid()).ok()?;
        recent.commits.get(at).map(|logged| logged.hash)
    }

    /// How many commits there are after `uid`, and their bytes; `None` if some of them are gone.
    pub(crate) fn measure_after(&self, uid: Uid) -> Option<(u64, u64)> {
        let recent = self.recent.lock();
        let from = recent.commits.partition_point(|logged| logged.commit.uid() <= uid);
        recent.commits.get(from).filter(|first| first.commit.prev() <= uid)?;
        let after = recent.commits.iter().skip(from);
        let bytes = after.map(|logged| logged.commit.bytes().len() as u64).sum();
        Some(((recent.commits.len() - from) as u64, bytes))
    }

    /// Forgets everything, as after taking back commits.
    pub(crate) fn clear(&self) {
        *self.recent.lock() = Recent::default();
    }

    /// Has `listener` called after every append and sync, until it is removed by `key`.
    pub(crate) fn listen(&self, key: u64, listener: Listener) {
        self.listeners.lock().push((key, listener));
    }

    /// Calls a listener no more.
    pub(crate) fn unlisten(&self, key: u64) {
        self.listeners.lock().retain(|(own, _)| *own != key);
    }

    /// Tells the listeners that something was appended or synced.
    pub(crate) fn notify(&self) {
        for (_, listener) in &*self.listeners.lock() {
            listener();
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use bytes::Bytes;
    use planaria_types::{HistoryHash, Uid};

    use super::{EncodedCommit, Feed, LoggedCommit, RECENT_BYTES_MAX};

    fn logged(uid: u64, bytes: usize) -> LoggedCommit {
        let commit = EncodedCommit::trusted(Bytes::from(vec![0; bytes]), Uid::new(uid), Uid::new(uid - 1));
        LoggedCommit { commit, hash: HistoryHash(u128::from(uid)) }
    }

    #[test]
    fn who_is_within_reach_gets_what_follows_and_who_fell_behind_is_told() {
        let feed = Feed::new(u64::MAX);
        feed.push(&[logged(1, 10), logged(2, 10), logged(3, 10)]);
        let uids = |after| feed.after(Uid::new(after), 15).map(|found| found.len());
        assert_eq!(uids(0), Some(1));
        assert_eq!(uids(3), Some(0));
        assert_eq!([2, 4].map(|uid| feed.hash_at(Uid::new(uid))), [Some(HistoryHash(2)), None]);
        feed.push(&[logged(4, RECENT_BYTES_MAX)]);
        assert_eq!(uids(2), None);
        assert_eq!(uids(3), Some(1));
        assert_eq!(uids(4), Some(0));
        assert_eq!([2, 4].map(|uid| feed.hash_at(Uid::new(uid))), [None, Some(HistoryHash(4))]);
    }
}
