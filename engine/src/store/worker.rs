//! Background work: syncs, flushes, compactions, each on a thread of its own, woken when there is something to do.

use std::thread::JoinHandle;
use std::time::Duration;

use super::Store;
use crate::error::{Error, Result};
use crate::sync::{Arc, AtomicBool, Condvar, Mutex, MutexGuard, Ordering};

/// Frozen memtables may take this many times the memtable budget before writers wait.
const FROZEN_BUDGETS_MAX: usize = 2;
/// How long background work pauses after a failure, such as a full disk, before it tries again.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// What there is to do.
pub(crate) struct Work {
    state: Mutex<State>,
    changed: Condvar,
    /// Told when the store closes, for those who pause.
    closing: Condvar,
    flush: Mutex<()>,
    compact: Mutex<()>,
    unsynced: AtomicBool,
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a signal of its own")]
struct State {
    flush: bool,
    compact: bool,
    sync: bool,
    closing: bool,
    /// Why the last flush failed, until one succeeds: writers that wait for room wait for it.
    failure: Option<Error>,
}

/// A kind of background work.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "tests draw what the background does"))]
pub enum Task {
    /// Makes commits durable that nobody waits for, and prepares the log for what is to come.
    Sync,
    /// Writes out the memtables that are frozen.
    Flush,
    /// Merges and splits until nothing needs it.
    Compact,
}

impl Work {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State { compact: true, flush: true, ..State::default() }),
            changed: Condvar::new(),
            closing: Condvar::new(),
            flush: Mutex::new(()),
            compact: Mutex::new(()),
            unsynced: AtomicBool::new(false),
        }
    }

    fn signal(&self, set: impl FnOnce(&mut State)) {
        set(&mut self.state.lock());
        self.changed.notify_all();
    }

    pub(super) fn signal_flush(&self) {
        self.signal(|state| state.flush = true);
    }

    /// Tells the sync thread that something was appended; cheap while it has been told already.
    pub(super) fn signal_sync(&self) {
        if !self.unsynced.swap(true, Ordering::AcqRel) {
            self.signal(|state| state.sync = true);
        }
    }

    /// After a flush: there may be something to compact, and room for writers.
    pub(super) fn flushed(&self) {
        self.signal(|state| state.compact = true);
    }

    /// Keeps other flushes out.
    pub(super) fn flushing(&self) -> MutexGuard<'_, ()> {
        self.flush.lock()
    }

    /// Keeps other compactions out.
    pub(crate) fn compacting(&self) -> MutexGuard<'_, ()> {
        self.compact.lock()
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    /// Refuses changes once the store closes.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closing() { Err(Error::Closed) } else { Ok(()) }
    }

    /// Waits until `task` is due; `false` when the store closes.
    fn wait_for(&self, task: Task) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.closing {
                return false;
            }
            let due = match task {
                Task::Sync => &mut state.sync,
                Task::Flush => &mut state.flush,
                Task::Compact => &mut state.compact,
            };
            if std::mem::take(due) {
                return true;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Waits for `pause` or until the store closes. Signals of other work do not cut it short.
    fn pause(&self, pause: Duration) {
        let mut state = self.state.lock();
        if !state.closing {
            self.closing.wait_for(&mut state, pause);
        }
    }

    fn close(&self) {
        self.signal(|state| state.closing = true);
        self.closing.notify_all();
    }
}

impl Store {
    /// Has a thread read the indexes and filters of all run files.
    pub(crate) fn read_indexes(self: &Arc<Self>, threads: &mut Vec<JoinHandle<()>>) -> Result<()> {
        if !self.options.background {
            return Ok(());
        }
        let store = Arc::clone(self);
        let read = move || {
            let version = store.pin().0;
            let references = version.fragments().iter().flat_map(|fragment| fragment.references());
            for reference in references.take_while(|_| !store.work.is_closing()) {
                // Whoever needs what cannot be read is told why.
                let _ = reference.run.index();
            }
        };
        let thread = std::thread::Builder::new().name("planaria-open".into()).spawn(read);
        threads.push(thread.map_err(|error| Error::io("start a thread for", &self.dir, error))?);
        Ok(())
    }

    /// Starts the background threads.
    pub(crate) fn start(self: &Arc<Self>) -> Result<Vec<JoinHandle<()>>> {
        if !self.options.background {
            return Ok(Vec::new());
        }
        let tasks = [
            ("planaria-sync", Task::Sync),
            ("planaria-flush", Task::Flush),
            ("planaria-compact", Task::Compact),
        ];
        let mut threads = Vec::new();
        for (name, task) in tasks {
            let store = Arc::clone(self);
            let body = move || {
                while store.work.wait_for(task) {
                    store.run(task);
                }
            };
            match std::thread::Builder::new().name(name.into()).spawn(body) {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    self.stop(threads);
                    return Err(Error::io("start a thread for", &self.dir, error));
                }
            }
        }
        Ok(threads)
    }

    fn run(&self, task: Task) {
        if task == Task::Sync {
            self.work.pause(Duration::from_millis(self.options.sync_interval_ms));
            self.work.unsynced.store(false, Ordering::Release);
        }
        let worked = self.work_once(task);
        let failed = worked.is_err();
        match task {
            Task::Flush => {
                self.work.signal(|state| state.failure = worked.err());
                if failed {
                    self.work.pause(RETRY_AFTER);
                    self.work.signal_flush();
                }
            }
            Task::Compact if failed => {
                self.work.pause(RETRY_AFTER);
                self.work.flushed();
            }
            // A failed sync poisons the log or is one of room; either way the next writer hears of it.
            Task::Sync | Task::Compact => {}
        }
    }

    /// Does what is due of a kind of work, without waiting.
    pub(crate) fn work_once(&self, task: Task) -> Result<()> {
        match task {
            Task::Sync => {
                let synced = self.sync_log().and_then(|_| self.reserve_ahead());
                let prepared = self.log.prepare_spare();
                self.freeze_oldest_beyond_log_limit();
                synced.and(prepared.map(drop))
            }
            Task::Flush => {
                while self.flush_oldest()? {}
                Ok(())
            }
            Task::Compact => {
                self.compact_until_settled()?;
                self.split_large_fragments().map(drop)
            }
        }
    }

    /// Idle fragments must not pin the log: beyond its limit the fragment that needs the oldest segment is written out.
    fn freeze_oldest_beyond_log_limit(&self) {
        let version = self.pin().0;
        let Some(oldest) = version.fragments().iter().map(|fragment| fragment.active.first_segment()).min()
        else {
            return;
        };
        let segments = self.log.segments();
        let later = segments.iter().filter(|segment| segment.number > oldest);
        if later.map(|segment| segment.file_bytes).sum::<u64>() >= self.options.log_bytes_max {
            self.freeze(|fragment| fragment.active.first_segment() == oldest);
        }
    }

    /// Holds a writer back while too much waits to be written out.
    pub(super) fn wait_for_room(&self) -> Result<()> {
        self.work.check_open()?;
        if !self.options.background {
            return Ok(());
        }
        loop {
            if self.pin().0.frozen_bytes() <= self.options.memtable_bytes * FROZEN_BUDGETS_MAX {
                return Ok(());
            }
            let mut state = self.work.state.lock();
            if state.closing {
                return Err(Error::Closed);
            }
            if state.failure.is_some() {
                drop(state);
                // What failed may go well now, as when there is room on disk again: the writer finds out by itself.
                self.flush_oldest()?;
                continue;
            }
            self.work.changed.wait_for(&mut state, RETRY_AFTER);
        }
    }

    /// Ends background work, syncs, and waits for the threads.
    pub(crate) fn stop(&self, threads: Vec<JoinHandle<()>>) {
        self.work.close();
        for thread in threads {
            // A thread that panicked has nothing left to say; the log has what was acknowledged.
            let _ = thread.join();
        }
        // Who asked for durability has it; this is a courtesy to the rest, and protects the log's end from damage.
        let _ = self.sync_log().and_then(|_| self.log.seal());
    }

    pub(crate) fn work(&self) -> &Work {
        &self.work
    }
}
