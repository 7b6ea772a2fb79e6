//! Following the commits of a group in order, from memory while they are recent, from the log while it has them.

use planaria_types::{HistoryHash, Uid};

use crate::commit::{EncodedCommit, Listener, LoggedCommit};
use crate::database::Database;
use crate::error::Result;
use crate::hash;
use crate::log::{LogPosition, LogReader, Tail};
use crate::store::{Store, record_kind};
use crate::sync::Arc;

/// What comes next for a follower.
#[derive(Clone, Debug)]
pub enum Followed {
    /// Commits in order, each naming the one before; empty if there is nothing newer yet.
    Commits(Vec<LoggedCommit>),
    /// Some of what follows is in the log no more: the rest has to be found by comparing UIDs.
    NotRetained,
}

/// A reader of commits in order. It holds nothing back: what it has not read may go.
#[derive(Debug)]
pub struct Follower {
    store: Arc<Store>,
    at: Uid,
    /// Where in the log it reads, once memory does not reach back far enough.
    log: Option<LogState>,
}

#[derive(Debug)]
struct LogState {
    reader: LogReader,
    /// The last commit read, and the history hash behind it.
    uid: Uid,
    hash: HistoryHash,
}

impl Database {
    /// A follower of the commits after `uid`.
    pub fn follow(&self, uid: Uid) -> Follower {
        Follower { store: Arc::clone(self.store()), at: uid, log: None }
    }

    /// Has `listener` called after every append and every sync, until [`Database::unlisten`] with the same key. It is
    /// called by the commit leader and must not block.
    pub fn listen(&self, key: u64, listener: Listener) {
        self.store().feed.listen(key, listener);
    }

    /// Has a listener called no more.
    pub fn unlisten(&self, key: u64) {
        self.store().feed.unlisten(key);
    }

    /// The last commit in the log, durable or not, and the history hash behind it.
    pub fn log_end(&self) -> (Uid, HistoryHash) {
        self.store().log_end()
    }

    /// The history hash behind the commit `uid`, if it is known: in memory for recent commits, stored at the beginnings of
    /// epochs and log segments, worked out from the log in between.
    pub fn history_hash_at(&self, uid: Uid) -> Result<Option<HistoryHash>> {
        let store = self.store();
        let (last, hash) = store.log_end();
        if uid == last {
            return Ok(Some(hash));
        }
        if let Some(hash) = store.feed.hash_at(uid) {
            return Ok(Some(hash));
        }
        let entry =
            store.manifest().group.history.entries().iter().find(|entry| entry.inherited == uid).copied();
        if let Some(entry) = entry {
            return Ok(Some(entry.hash));
        }
        let Some(mut log) = LogState::before(store, uid)? else { return Ok(None) };
        while log.uid < uid {
            if log.next()?.is_none() {
                return Ok(None);
            }
        }
        Ok((log.uid == uid).then_some(log.hash))
    }
}

impl Follower {
    /// The last commit that was given out.
    pub fn at(&self) -> Uid {
        self.at
    }

    /// The commits that follow, about `bytes_max` of them but at least one if there is one.
    pub fn next(&mut self, bytes_max: usize) -> Result<Followed> {
        if self.at >= self.store.appended() {
            return Ok(Followed::Commits(Vec::new()));
        }
        let commits = if let Some(commits) = self.store.feed.after(self.at, bytes_max) {
            self.log = None;
            commits
        } else {
            let read = self.read_log(bytes_max);
            let Some(commits) = self.store.health().noted(read)? else { return Ok(Followed::NotRetained) };
            commits
        };
        if let Some(last) = commits.last() {
            self.at = last.commit.uid();
        }
        Ok(Followed::Commits(commits))
    }

    fn read_log(&mut self, bytes_max: usize) -> Result<Option<Vec<LoggedCommit>>> {
        let mut log = match self.log.take().filter(|log| log.uid == self.at) {
            Some(log) => log,
            None => match LogState::before(&self.store, self.at)? {
                Some(log) => log,
                None => return Ok(None),
            },
        };
        let mut commits = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max {
            let Some(logged) = log.next()? else { break };
            let uid = logged.commit.uid();
            if uid <= self.at {
                continue;
            }
            if commits.is_empty() && logged.commit.prev() != self.at {
                return Ok(None);
            }
            bytes += logged.commit.bytes().len();
            commits.push(logged);
        }
        if commits.is_empty() {
            return Ok(None);
        }
        self.log = Some(log);
        Ok(Some(commits))
    }
}

impl LogState {
    /// A reader of the segment that holds what follows `uid`, or of an earlier one.
    fn before(store: &Store, uid: Uid) -> Result<Option<Self>> {
        let Some(segment) = store.segment_before(uid) else { return Ok(None) };
        let at = LogPosition { segment: segment.number, offset: 0 };
        let reader = store.log.read_from(at)?;
        Ok(reader.map(|reader| Self { reader, uid: segment.uid, hash: segment.hash }))
    }

    /// The next commit; `None` at the end of the log, where it is retained no more, and where it goes on behind a bulk
    /// ingest, whose records it never had.
    fn next(&mut self) -> Result<Option<LoggedCommit>> {
        loop {
            let entry = match self.reader.next()? {
                Tail::Entry(entry) => entry,
                Tail::CaughtUp | Tail::NotRetained => return Ok(None),
            };
            if entry.kind != record_kind::COMMIT {
                continue;
            }
            let commit = EncodedCommit::parse(entry.payload)?;
            if commit.prev() != self.uid {
                return Ok(None);
            }
            self.uid = commit.uid();
            self.hash = hash::extend_history(self.hash, self.uid, hash::commit_hash(commit.bytes()));
            return Ok(Some(LoggedCommit { commit, hash: self.hash }));
        }
    }
}
