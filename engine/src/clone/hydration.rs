//! Which chunks of a clone are here, and who waits for those that are not: a clone can be read before it is complete.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::target::{chunk_len, has_chunk};
use super::{CLONE_CHUNK_BYTES, CloneFile, FileKind, MissingChunk};
use crate::os::{OpenMode, Os};
use crate::sync::{Arc, AtomicU64, Condvar, Mutex, Ordering};

/// How long a reader waits for a chunk.
const PATIENCE: Duration = Duration::from_secs(30);
/// Readers that wait for chunks of one clone at a time; one more is refused.
const WAITING_MAX: usize = 256;

/// The chunks of one file, and which of them are here: a bit each, set when the bytes are in their place.
pub(super) struct Chunks {
    path: PathBuf,
    entry: CloneFile,
    here: Vec<AtomicU64>,
}

impl Chunks {
    pub(super) fn new(path: PathBuf, entry: &CloneFile) -> Self {
        let here = (0..entry.chunks.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Self { path, entry: entry.clone(), here }
    }

    fn is_here(&self, chunk: u64) -> bool {
        let word = usize::try_from(chunk / 64).ok().and_then(|at| self.here.get(at));
        word.is_some_and(|word| word.load(Ordering::Acquire) >> (chunk % 64) & 1 == 1)
    }

    fn set_here(&self, chunk: u64) {
        if let Some(word) = usize::try_from(chunk / 64).ok().and_then(|at| self.here.get(at)) {
            word.fetch_or(1 << (chunk % 64), Ordering::Release);
        }
    }

    fn chunk(&self, chunk: u64) -> MissingChunk {
        MissingChunk { kind: self.entry.kind, number: self.entry.number, chunk }
    }
}

/// The progress of a clone's files, shared by whoever brings chunks and whoever reads.
///
/// What is here is known in memory alone. After a restart each chunk that a file may hold is looked at, by its hash, before it
/// is read or fetched for the first time: nothing has to be synced for that, and no crash can leave a wrong mark.
pub struct Hydration {
    os: Arc<dyn Os>,
    files: BTreeMap<(FileKind, u64), Arc<Chunks>>,
    /// In which order the background fetches: first what reading any part of a file begins with, which lies at its end.
    order: Vec<MissingChunk>,
    state: Mutex<State>,
    /// Woken when a chunk came, or cannot come.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Not here, or not looked at yet.
    missing: BTreeSet<MissingChunk>,
    missing_bytes: u64,
    /// Those of the missing ones that an earlier attempt may have brought.
    unchecked: BTreeSet<MissingChunk>,
    /// What the background is fetching.
    claimed: BTreeSet<MissingChunk>,
    /// Up to where in the order all is claimed or here.
    next: usize,
    /// What readers wait for, and what of that nobody has begun to fetch.
    urgent: BTreeSet<MissingChunk>,
    wanted: VecDeque<MissingChunk>,
    waiting: usize,
    /// When somebody waited last, by the system's steady clock.
    read_at: Option<Duration>,
    resumed_bytes: u64,
    /// Why nothing comes now, if nothing does.
    away: Option<String>,
    waker: Option<Arc<dyn Fn() + Send + Sync>>,
}

impl State {
    /// Has a chunk fetched before all that nobody waits for.
    fn want(&mut self, chunk: MissingChunk) {
        if self.missing.contains(&chunk) && self.urgent.insert(chunk) {
            self.wanted.push_back(chunk);
            if let Some(waker) = &self.waker {
                waker();
            }
        }
    }
}

/// Why a part of a file could not be read.
#[derive(Debug)]
pub(crate) struct Absent {
    pub(crate) offset: u64,
    pub(crate) why: String,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {} has not come yet: {}", self.offset, self.why)
    }
}

impl std::error::Error for Absent {}

/// Chunks of one file that follow one another, to be fetched at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ChunkRange {
    /// The first one.
    pub first: MissingChunk,
    /// Their length, in bytes.
    pub length: u64,
}

impl Hydration {
    /// Of these files, `missing` are not known to be here; `unchecked` ones among them may be.
    pub(super) fn new(
        os: Arc<dyn Os>,
        files: BTreeMap<(FileKind, u64), Arc<Chunks>>,
        missing: BTreeSet<MissingChunk>,
        unchecked: BTreeSet<MissingChunk>,
    ) -> Self {
        for (name, chunks) in &files {
            for chunk in (0..chunks.entry.chunks.len() as u64).map(|chunk| chunks.chunk(chunk)) {
                debug_assert_eq!((chunk.kind, chunk.number), *name, "a file under another name");
                if !missing.contains(&chunk) {
                    chunks.set_here(chunk.chunk);
                }
            }
        }
        let mut hydration =
            Self { os, files, order: Vec::new(), state: Mutex::default(), changed: Condvar::new() };
        let is_last = |chunk: &MissingChunk| hydration.last_of(*chunk) == Some(*chunk);
        let (last, others): (Vec<_>, Vec<_>) = missing.iter().copied().partition(is_last);
        hydration.order = last.into_iter().chain(others).collect();
        let missing_bytes = missing.iter().map(|chunk| hydration.bytes_of(*chunk)).sum();
        hydration.state = Mutex::new(State { missing, missing_bytes, unchecked, ..State::default() });
        hydration
    }

    /// The length of a chunk, in bytes.
    pub fn bytes_of(&self, chunk: MissingChunk) -> u64 {
        let file = self.files.get(&(chunk.kind, chunk.number));
        file.map_or(0, |file| chunk_len(&file.entry, chunk.chunk))
    }

    /// The last chunk of the file that a chunk is of.
    fn last_of(&self, chunk: MissingChunk) -> Option<MissingChunk> {
        let chunks = self.files.get(&(chunk.kind, chunk.number))?.entry.chunks.len() as u64;
        Some(MissingChunk { chunk: chunks.checked_sub(1)?, ..chunk })
    }

    pub(super) fn chunks_of(&self, kind: FileKind, number: u64) -> Option<&Arc<Chunks>> {
        self.files.get(&(kind, number))
    }

    /// The chunks that are not known to be here, in the order of their files.
    pub fn missing(&self) -> Vec<MissingChunk> {
        self.state.lock().missing.iter().copied().collect()
    }

    /// The first chunk of a kind of file, or of one of them, that is not known to be here.
    pub(super) fn first_missing(&self, from: MissingChunk, to: Option<MissingChunk>) -> Option<MissingChunk> {
        let state = self.state.lock();
        state.missing.range(from..).next().copied().filter(|chunk| to.is_none_or(|to| *chunk <= to))
    }

    /// The bytes that are not known to be here.
    pub fn missing_bytes(&self) -> u64 {
        self.state.lock().missing_bytes
    }

    /// The bytes that were found here, brought by an earlier attempt.
    pub fn resumed_bytes(&self) -> u64 {
        self.state.lock().resumed_bytes
    }

    /// Readers that wait now.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// Has `waker` called whenever a reader begins to wait for a chunk. It must not block.
    pub fn on_wanted(&self, waker: impl Fn() + Send + Sync + 'static) {
        self.state.lock().waker = Some(Arc::new(waker));
    }

    /// The chunk that a reader has waited for the longest and that nobody fetches yet.
    pub fn next_wanted(&self) -> Option<MissingChunk> {
        let mut state = self.state.lock();
        while let Some(chunk) = state.wanted.pop_front() {
            if state.missing.contains(&chunk) {
                return Some(chunk);
            }
        }
        None
    }

    /// What the background fetches next, at most so many chunks; nothing once all the rest is under way. A range of no bytes was
    /// looked at instead, because an earlier attempt may have left it: ask again. That reads from the disk.
    pub fn claim(&self, chunks_max: usize) -> Option<ChunkRange> {
        let mut state = self.state.lock();
        let is_free = |state: &State, chunk: &MissingChunk| {
            state.missing.contains(chunk) && !state.claimed.contains(chunk)
        };
        while self.order.get(state.next).is_some_and(|chunk| !is_free(&state, chunk)) {
            state.next += 1;
        }
        let first = *self.order.get(state.next)?;
        let mut range = ChunkRange { first, length: 0 };
        if state.unchecked.remove(&first) {
            drop(state);
            self.look_at(first);
            return Some(range);
        }
        for chunk in (first.chunk..).take(chunks_max.max(1)) {
            let chunk = MissingChunk { chunk, ..first };
            if !is_free(&state, &chunk) || state.unchecked.contains(&chunk) {
                break;
            }
            state.claimed.insert(chunk);
            range.length += self.bytes_of(chunk);
        }
        Some(range)
    }

    /// Nothing comes from now on, and this is why: whoever waits is told so. What was under way is to be fetched anew.
    pub fn set_away(&self, why: &str) {
        let mut state = self.state.lock();
        state.away = Some(why.to_owned());
        state.claimed.clear();
        state.urgent.clear();
        state.wanted.clear();
        state.next = 0;
        self.changed.notify_all();
    }

    /// Chunks come again.
    pub fn set_back(&self) {
        let mut state = self.state.lock();
        state.away = None;
        // Whoever has waited for it reads now.
        state.read_at = Some(self.os.monotonic());
    }

    /// Whether a reader waits for a chunk now, or did until a moment ago and may be about to wait for the next one.
    pub fn is_being_read(&self, moment: Duration) -> bool {
        let state = self.state.lock();
        let since = state.read_at.map(|at| self.os.monotonic().saturating_sub(at));
        state.waiting > 0 || since.is_some_and(|since| since < moment)
    }

    /// A chunk is in its place. Answers whether it was not before.
    pub(super) fn arrived(&self, chunk: MissingChunk) -> bool {
        let bytes = self.bytes_of(chunk);
        let mut state = self.state.lock();
        if let Some(file) = self.files.get(&(chunk.kind, chunk.number)) {
            file.set_here(chunk.chunk);
        }
        state.claimed.remove(&chunk);
        state.urgent.remove(&chunk);
        state.unchecked.remove(&chunk);
        let is_new = state.missing.remove(&chunk);
        if is_new {
            state.missing_bytes -= bytes;
        }
        self.changed.notify_all();
        is_new
    }

    /// Looks at a chunk that an earlier attempt may have brought.
    fn look_at(&self, chunk: MissingChunk) {
        let Some(file) = self.files.get(&(chunk.kind, chunk.number)) else { return };
        let read = self.os.open(&file.path, OpenMode::Read);
        if read.is_ok_and(|read| has_chunk(&*read, &file.entry, chunk.chunk)) && self.arrived(chunk) {
            self.state.lock().resumed_bytes += self.bytes_of(chunk);
        }
    }

    /// Waits until these bytes of a file are here.
    pub(super) fn wait_for(&self, file: &Chunks, offset: u64, len: u64) -> io::Result<()> {
        let end = offset.saturating_add(len).min(file.entry.len);
        for chunk in offset / CLONE_CHUNK_BYTES..end.div_ceil(CLONE_CHUNK_BYTES) {
            if !file.is_here(chunk) {
                self.fetch(file.chunk(chunk)).map_err(|why| io::Error::other(Absent { offset, why }))?;
            }
        }
        Ok(())
    }

    /// Waits until a chunk is here, which is fetched before all that nobody waits for.
    fn fetch(&self, chunk: MissingChunk) -> Result<(), String> {
        let mut state = self.state.lock();
        if state.unchecked.remove(&chunk) {
            drop(state);
            self.look_at(chunk);
            state = self.state.lock();
        }
        if state.waiting >= WAITING_MAX {
            return Err(format!("{WAITING_MAX} readers wait for other parts of the clone already"));
        }
        let until = self.os.monotonic() + PATIENCE;
        state.waiting += 1;
        let outcome = loop {
            if !state.missing.contains(&chunk) {
                break Ok(());
            }
            if let Some(why) = &state.away {
                break Err(why.clone());
            }
            state.want(chunk);
            // Whoever begins with a file reads its first page and what lies at its end.
            let last = self.last_of(chunk).filter(|_| chunk.chunk == 0);
            if let Some(last) = last.filter(|last| !state.unchecked.contains(last)) {
                state.want(last);
            }
            let left = until.saturating_sub(self.os.monotonic());
            if left.is_zero() {
                break Err(format!("its source did not send it within {} s", PATIENCE.as_secs()));
            }
            self.changed.wait_for(&mut state, left);
        };
        state.waiting -= 1;
        state.read_at = Some(self.os.monotonic());
        outcome
    }
}

impl fmt::Debug for Hydration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hydration").field("missing", &self.state.lock().missing.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use std::path::PathBuf;

    use super::Chunks;
    use crate::clone::{CloneFile, FileKind};
    use crate::sync::{Arc, AtomicU64, Ordering};

    /// Two chunks come in at a time, whose bits lie in one word, while one is read.
    #[test]
    fn who_sees_that_a_chunk_is_here_sees_its_bytes_and_no_bit_is_lost() {
        loom::model(|| {
            let entry =
                CloneFile { kind: FileKind::Run, number: 1, len: 2, extent: 2, chunks: vec![[0; 32]; 2] };
            let chunks = Arc::new(Chunks::new(PathBuf::new(), &entry));
            let bytes: Arc<[AtomicU64; 2]> = Arc::new([AtomicU64::new(0), AtomicU64::new(0)]);
            let bring = |chunk: usize| {
                let (chunks, bytes) = (Arc::clone(&chunks), Arc::clone(&bytes));
                loom::thread::spawn(move || {
                    bytes[chunk].store(7, Ordering::Relaxed);
                    chunks.set_here(chunk as u64);
                })
            };
            let brought = [bring(0), bring(1)];
            if chunks.is_here(0) {
                assert_eq!(bytes[0].load(Ordering::Relaxed), 7);
            }
            for one in brought {
                one.join().unwrap();
            }
            assert!(chunks.is_here(0) && chunks.is_here(1));
        });
    }
}
