//! An operating system in memory that can crash.

mod content;
mod disk;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::disk::{Disk, NodeId};
use super::{DirEntry, DirLock, DiskSpace, OpenMode, Os, OsFile};
use crate::sync::{Mutex, MutexGuard};

/// What a crash takes away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CrashStyle {
    /// The process died: all that was written is there, though no more durable than before.
    ProcessKill,
    /// The power went: only what was synced is there.
    PowerCutClean,
    /// The power went: of what was not synced, each sector of 512 bytes is in any state that it had since the sync, and
    /// name operations are there up to a point, or at random.
    PowerCutTorn,
}

impl CrashStyle {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ProcessKill, Self::PowerCutClean, Self::PowerCutTorn];
}

/// A file system, a clock and randomness in memory. Everything follows from the seed and the calls; clones share it.
///
/// It keeps apart what is synced and what is not: the sectors of a file since its last `sync_data`, the names of a
/// directory since its last `sync_dir`. [`MemOs::crash`] gives what would be found afterwards. Both clocks advance by
/// a fixed step at each reading. A file takes its length from the capacity, holes included.
#[derive(Clone, Debug)]
pub struct MemOs {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug)]
struct State {
    disk: Disk,
    dice: Dice,
    wall: Duration,
    monotonic: Duration,
    step: Duration,
    mutations: u64,
    /// The mutating call, counted from 1, at which the process dies.
    crash_at: Option<u64>,
    locked: BTreeSet<NodeId>,
}

impl MemOs {
    /// An empty file system with a root directory. The clock starts in 2023 and advances 1 ms at each reading.
    pub fn new(seed: u64) -> Self {
        Self::from_state(State {
            disk: Disk::new(),
            dice: Dice::new(seed),
            wall: Duration::from_secs(1_700_000_000),
            monotonic: Duration::from_secs(1),
            step: Duration::from_millis(1),
            mutations: 0,
            crash_at: None,
            locked: BTreeSet::new(),
        })
    }

    fn from_state(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// The system as a crash at this point would leave it. This one goes on unchanged, so that several crashes can
    /// be taken from one point. The clock goes on, the count of mutations begins anew, capacity stays.
    #[must_use]
    pub fn crash(&self, style: CrashStyle, seed: u64) -> Self {
        let state = self.state.lock();
        let mut dice = Dice::new(seed);
        Self::from_state(State {
            disk: state.disk.crash(style, &mut dice),
            dice,
            mutations: 0,
            crash_at: None,
            locked: BTreeSet::new(),
            ..*state
        })
    }

    /// How many mutating calls were made, those that failed included: creating, writing, cutting, allocating, syncing, renaming,
    /// linking, removing.
    pub fn mutations(&self) -> u64 {
        self.state.lock().mutations
    }

    /// Lets the process die at the `n`-th mutating call, counted from 1 at the beginning: it and every call after it
    /// fail, reading ones too. A write that dies leaves a part of its sectors behind; other calls that die do nothing.
    pub fn crash_at(&self, n: u64) {
        self.state.lock().crash_at = Some(n);
    }

    /// Whether the process has died at the call chosen by [`MemOs::crash_at`].
    pub fn has_crashed(&self) -> bool {
        self.state.lock().dead()
    }

    /// Limits the bytes of all files; beyond, writes fail with `StorageFull`.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().disk.capacity = bytes;
    }

    /// Bytes of all files that have a name or are open.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().disk.used()
    }

    /// Sets the wall clock, forwards or backwards, in milliseconds since 1970.
    pub fn set_now_millis(&self, millis: u64) {
        self.state.lock().wall = Duration::from_millis(millis);
    }

    /// Lets both clocks advance by `step` at each reading.
    pub fn set_clock_step(&self, step: Duration) {
        self.state.lock().step = step;
    }

    /// Advances both clocks.
    pub fn advance(&self, by: Duration) {
        self.state.lock().tick(by);
    }

    /// Flips the bits of `mask` in one byte of a file, as a decaying medium would: neither counted nor unsynced.
    /// Fails with `UnexpectedEof` beyond the end.
    pub fn flip(&self, path: &Path, offset: u64, mask: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let node = state.disk.find(path)?;
        let flipped = state.disk.content_mut(node)?.flip(offset as usize, mask);
        if flipped { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock();
        if state.dead() { Err(died()) } else { Ok(state) }
    }

    fn mutate(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.state.lock();
        if state.dead() {
            return Err(died());
        }
        state.mutations += 1;
        if state.dead() { Err(died()) } else { Ok(state) }
    }

    fn file(&self, node: NodeId, writable: bool) -> Arc<dyn OsFile> {
        Arc::new(MemFile { os: self.clone(), node, writable })
    }
}

fn died() -> io::Error {
    io::Error::other("the simulated process has died")
}

impl State {
    fn dead(&self) -> bool {
        self.crash_at.is_some_and(|at| self.mutations >= at)
    }

    fn tick(&mut self, by: Duration) {
        self.wall = self.wall.saturating_add(by);
        self.monotonic = self.monotonic.saturating_add(by);
    }
}

impl Os for MemOs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn OsFile>> {
        let node = match mode {
            OpenMode::CreateNew => self.mutate()?.disk.create(path)?,
            OpenMode::Read | OpenMode::Write | OpenMode::WriteDirect => self.alive()?.disk.open(path)?,
        };
        Ok(self.file(node, mode != OpenMode::Read))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.mutate()?.disk.rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        self.mutate()?.disk.exchange(one, other)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.mutate()?.disk.hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.mutate()?.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.mutate()?.disk.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.mutate()?.disk.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.mutate()?.disk.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.alive()?.disk.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.alive().is_ok_and(|state| state.disk.find(path).is_ok())
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        if !self.exists(path) {
            match self.open(path, OpenMode::CreateNew) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let mut state = self.alive()?;
        let node = state.disk.find(path)?;
        if !state.locked.insert(node) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(MemLock { os: self.clone(), node }))
    }

    fn disk_space(&self, path: &Path) -> io::Result<DiskSpace> {
        let state = self.alive()?;
        state.disk.find(path)?;
        let total_bytes = state.disk.capacity.unwrap_or(1 << 50);
        Ok(DiskSpace { available_bytes: total_bytes.saturating_sub(state.disk.used()), total_bytes })
    }

    fn now_millis(&self) -> u64 {
        let mut state = self.state.lock();
        let step = state.step;
        state.tick(step);
        state.wall.as_millis() as u64
    }

    fn monotonic(&self) -> Duration {
        let mut state = self.state.lock();
        let step = state.step;
        state.tick(step);
        state.monotonic
    }

    fn random_u64(&self) -> u64 {
        self.state.lock().dice.next()
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.alive()?.disk.find(path)?;
        let mut absolute = PathBuf::from("/");
        for component in path.components() {
            match component {
                std::path::Component::Normal(name) => absolute.push(name),
                std::path::Component::ParentDir => {
                    absolute.pop();
                }
                _ => {}
            }
        }
        Ok(absolute)
    }
}

#[derive(Debug)]
struct MemLock {
    os: MemOs,
    node: NodeId,
}

impl DirLock for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.os.state.lock().locked.remove(&self.node);
    }
}

#[derive(Debug)]
struct MemFile {
    os: MemOs,
    node: NodeId,
    writable: bool,
}

impl Drop for MemFile {
    fn drop(&mut self) {
        self.os.state.lock().disk.close(self.node);
    }
}

impl MemFile {
    fn mutate(&self) -> io::Result<MutexGuard<'_, State>> {
        if self.writable { self.os.mutate() } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }

    fn resize(&self, len: u64) -> io::Result<()> {
        let mut state = self.mutate()?;
        state.disk.room_for(self.node, len)?;
        state.disk.content_mut(self.node)?.set_len(to_usize(len)?);
        Ok(())
    }
}

impl OsFile for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.os.alive()?;
        let live = state.disk.content(self.node)?.live();
        let rest = live.get(to_usize(offset)?..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let start = to_usize(offset)?;
        let end = offset.checked_add(buf.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut state = self.os.alive()?;
        state.mutations += 1;
        let part = if state.dead() {
            // The dying write gets some whole sectors out, counted from its beginning.
            let sectors = state.dice.below(buf.len().div_ceil(content::SECTOR) as u64);
            sectors as usize * content::SECTOR
        } else {
            buf.len()
        };
        state.disk.room_for(self.node, end)?;
        state.disk.content_mut(self.node)?.write(start, &buf[..part.min(buf.len())]);
        if state.dead() { Err(died()) } else { Ok(()) }
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.os.alive()?.disk.content(self.node)?.live().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.resize(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.resize(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        // A file opened to read can be synced too, as on the real system.
        self.os.mutate()?.disk.content_mut(self.node)?.sync();
        Ok(())
    }

    fn map(&self, len: u64) -> io::Result<Option<bytes::Bytes>> {
        let state = self.os.alive()?;
        let live = state.disk.content(self.node)?.live();
        let bytes = live.get(..to_usize(len)?).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Some(bytes::Bytes::copy_from_slice(bytes)))
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.os.alive()?.disk.links(self.node))
    }
}

fn to_usize(value: u64) -> io::Result<usize> {
    usize::try_from(value).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

/// Seeded randomness: `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    fn below(&mut self, bound: u64) -> u64 {
        self.next().checked_rem(bound).unwrap_or_default()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "mem_tests.rs"]
mod tests;
