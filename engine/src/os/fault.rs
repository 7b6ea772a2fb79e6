//! An operating system whose calls fail on demand.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::{DirEntry, DirLock, DiskSpace, OpenMode, Os, OsFile};
use crate::sync::Mutex;

/// A kind of call that can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// [`Os::open`] of an existing file.
    Open,
    /// [`Os::open`] of a new file.
    Create,
    /// [`OsFile::read_at`].
    Read,
    /// [`OsFile::write_all_at`]. About the first half of the bytes reaches the file all the same.
    Write,
    /// [`OsFile::set_len`].
    SetLen,
    /// [`OsFile::allocate`].
    Allocate,
    /// [`OsFile::sync_data`].
    SyncData,
    /// [`OsFile::map`].
    Map,
    /// [`Os::sync_dir`].
    SyncDir,
    /// [`Os::rename`].
    Rename,
    /// [`Os::exchange`].
    Exchange,
    /// [`Os::hard_link`].
    HardLink,
    /// [`Os::remove_file`] and [`Os::remove_dir_all`].
    Remove,
    /// [`Os::create_dir_all`].
    CreateDir,
    /// [`Os::list`].
    List,
    /// [`Os::lock`].
    Lock,
}

/// A call that fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The kind of call.
    pub call: Call,
    /// Which of them fails, counted from 1 at the injection.
    pub at: u64,
    /// What it fails with.
    pub error: io::ErrorKind,
    /// Whether all later ones fail as well.
    pub forever: bool,
}

/// Wraps an operating system and makes chosen calls fail. Clones share their faults.
#[derive(Clone, Debug)]
pub struct FaultOs {
    inner: Arc<dyn Os>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Default, Debug)]
struct Faults {
    injected: Vec<Injected>,
    hooks: Vec<Hook>,
    hits: u64,
}

/// Something to run before a call, once.
struct Hook {
    call: Call,
    /// How many calls it lets pass, the one that it runs before included.
    left: u64,
    run: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hook").field("call", &self.call).field("left", &self.left).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Injected {
    fault: Fault,
    name_part: String,
    seen: u64,
}

impl FaultOs {
    /// A system that behaves like `inner` until a fault is injected.
    pub fn new(inner: Arc<dyn Os>) -> Self {
        Self { inner, faults: Arc::default() }
    }

    /// Adds a fault for calls on any file.
    pub fn inject(&self, fault: Fault) {
        self.inject_on("", fault);
    }

    /// Adds a fault for calls on files whose path contains `name_part`; only those are counted.
    pub fn inject_on(&self, name_part: &str, fault: Fault) {
        self.faults.lock().injected.push(Injected { fault, name_part: name_part.to_owned(), seen: 0 });
    }

    /// Runs `hook` before the `at`-th call of a kind, counted from 1 now, in the thread that makes it: what would
    /// otherwise need two threads and luck happens at a chosen point.
    pub fn run_before(&self, call: Call, at: u64, hook: impl FnOnce() + Send + 'static) {
        self.faults.lock().hooks.push(Hook { call, left: at, run: Box::new(hook) });
    }

    /// Takes all faults and hooks back.
    pub fn clear(&self) {
        let mut faults = self.faults.lock();
        faults.injected.clear();
        faults.hooks.clear();
    }

    /// How many calls were made to fail so far.
    pub fn hits(&self) -> u64 {
        self.faults.lock().hits
    }

    fn check(&self, call: Call, path: &Path) -> io::Result<()> {
        // Hooks run without the lock: they may make calls themselves.
        for hook in self.due_hooks(call) {
            (hook.run)();
        }
        let mut faults = self.faults.lock();
        let mut failure = None;
        for injected in &mut faults.injected {
            if injected.fault.call != call || !path.to_string_lossy().contains(&injected.name_part) {
                continue;
            }
            injected.seen += 1;
            let Fault { at, error, forever, .. } = injected.fault;
            if injected.seen == at || (forever && injected.seen > at) {
                failure = Some(error);
            }
        }
        match failure {
            None => Ok(()),
            Some(error) => {
                faults.hits += 1;
                Err(io::Error::new(error, "injected fault"))
            }
        }
    }
}

impl FaultOs {
    fn due_hooks(&self, call: Call) -> Vec<Hook> {
        let mut faults = self.faults.lock();
        for hook in faults.hooks.iter_mut().filter(|hook| hook.call == call) {
            hook.left = hook.left.saturating_sub(1);
        }
        faults.hooks.extract_if(.., |hook| hook.call == call && hook.left == 0).collect()
    }
}

impl Os for FaultOs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn OsFile>> {
        let call = if mode == OpenMode::CreateNew { Call::Create } else { Call::Open };
        self.check(call, path)?;
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(FaultFile { inner, os: self.clone(), path: path.to_path_buf() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Call::Rename, to)?;
        self.inner.rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        self.check(Call::Exchange, other)?;
        self.inner.exchange(one, other)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.check(Call::HardLink, to)?;
        self.inner.hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.check(Call::Remove, path)?;
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.check(Call::Remove, path)?;
        self.inner.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.check(Call::CreateDir, path)?;
        self.inner.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.check(Call::SyncDir, path)?;
        self.inner.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.check(Call::List, path)?;
        self.inner.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        self.check(Call::Lock, path)?;
        self.inner.lock(path)
    }

    fn disk_space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.inner.disk_space(path)
    }

    fn now_millis(&self) -> u64 {
        self.inner.now_millis()
    }

    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }

    fn random_u64(&self) -> u64 {
        self.inner.random_u64()
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.canonicalize(path)
    }
}

/// An open file; its path is the one it was opened under.
#[derive(Debug)]
struct FaultFile {
    inner: Arc<dyn OsFile>,
    os: FaultOs,
    path: PathBuf,
}

impl OsFile for FaultFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.os.check(Call::Read, &self.path)?;
        self.inner.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        if let Err(error) = self.os.check(Call::Write, &self.path) {
            let (half, _) = buf.split_at(buf.len() / 2);
            self.inner.write_all_at(half, offset)?;
            return Err(error);
        }
        self.inner.write_all_at(buf, offset)
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.os.check(Call::SetLen, &self.path)?;
        self.inner.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.os.check(Call::Allocate, &self.path)?;
        self.inner.allocate(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.os.check(Call::SyncData, &self.path)?;
        self.inner.sync_data()
    }

    fn map(&self, len: u64) -> io::Result<Option<bytes::Bytes>> {
        self.os.check(Call::Map, &self.path)?;
        self.inner.map(len)
    }

    fn links(&self) -> io::Result<u64> {
        self.inner.links()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::io::ErrorKind;
    use std::path::Path;
    use std::sync::Arc;

    use super::{Call, Fault, FaultOs};
    use crate::os::{MemOs, OpenMode, Os};

    fn fault(call: Call, at: u64, forever: bool) -> Fault {
        Fault { call, at, error: ErrorKind::StorageFull, forever }
    }

    #[test]
    fn the_chosen_call_fails_once_or_for_good() {
        let os = FaultOs::new(Arc::new(MemOs::new(1)));
        let file = os.open(Path::new("/f"), OpenMode::CreateNew).unwrap();
        os.inject(fault(Call::SyncData, 2, false));
        let outcomes: Vec<_> = (0..4).map(|_| file.sync_data().is_ok()).collect();
        assert_eq!(outcomes, [true, false, true, true]);
        os.inject(fault(Call::SyncData, 2, true));
        let outcomes: Vec<_> = (0..4).map(|_| file.sync_data().is_ok()).collect();
        assert_eq!(outcomes, [true, false, false, false]);
        assert_eq!(os.hits(), 4);
        os.clear();
        file.sync_data().unwrap();
    }

    #[test]
    fn a_failed_write_leaves_a_part_behind() {
        let os = FaultOs::new(Arc::new(MemOs::new(1)));
        let file = os.open(Path::new("/f"), OpenMode::CreateNew).unwrap();
        os.inject(fault(Call::Write, 1, false));
        assert_eq!(file.write_all_at(b"abcdef", 0).unwrap_err().kind(), ErrorKind::StorageFull);
        assert_eq!(file.len().unwrap(), 3);
    }

    #[test]
    fn a_fault_can_be_bound_to_a_name() {
        let os = FaultOs::new(Arc::new(MemOs::new(1)));
        os.inject_on("log", fault(Call::Create, 1, true));
        os.open(Path::new("/run"), OpenMode::CreateNew).unwrap();
        assert!(os.open(Path::new("/a.log"), OpenMode::CreateNew).is_err());
    }

    #[test]
    fn a_hook_runs_once_before_its_call() {
        let mem = MemOs::new(1);
        let os = FaultOs::new(Arc::new(mem.clone()));
        let other = mem.clone();
        os.run_before(Call::SyncDir, 2, move || {
            other.create_dir_all(Path::new("/made")).unwrap();
        });
        os.sync_dir(Path::new("/")).unwrap();
        assert!(!mem.exists(Path::new("/made")));
        os.sync_dir(Path::new("/")).unwrap();
        assert!(mem.exists(Path::new("/made")));
        os.sync_dir(Path::new("/")).unwrap();
    }

    #[test]
    fn every_kind_of_call_can_fail() {
        let os = FaultOs::new(Arc::new(MemOs::new(1)));
        let root = Path::new("/");
        let file = os.open(Path::new("/f"), OpenMode::CreateNew).unwrap();
        let calls: Vec<(Call, Box<dyn Fn() -> bool>)> = vec![
            (Call::Open, Box::new(|| os.open(Path::new("/f"), OpenMode::Read).is_err())),
            (Call::Create, Box::new(|| os.open(Path::new("/g"), OpenMode::CreateNew).is_err())),
            (Call::Read, Box::new(|| file.read_at(&mut [0], 0).is_err())),
            (Call::Write, Box::new(|| file.write_all_at(b"x", 0).is_err())),
            (Call::SetLen, Box::new(|| file.set_len(1).is_err())),
            (Call::Allocate, Box::new(|| file.allocate(1).is_err())),
            (Call::SyncData, Box::new(|| file.sync_data().is_err())),
            (Call::Map, Box::new(|| file.map(0).is_err())),
            (Call::SyncDir, Box::new(|| os.sync_dir(root).is_err())),
            (Call::Rename, Box::new(|| os.rename(Path::new("/f"), Path::new("/h")).is_err())),
            (Call::Exchange, Box::new(|| os.exchange(Path::new("/f"), Path::new("/h")).is_err())),
            (Call::HardLink, Box::new(|| os.hard_link(Path::new("/f"), Path::new("/h")).is_err())),
            (Call::Remove, Box::new(|| os.remove_file(Path::new("/f")).is_err())),
            (Call::CreateDir, Box::new(|| os.create_dir_all(Path::new("/d")).is_err())),
            (Call::List, Box::new(|| os.list(root).is_err())),
            (Call::Lock, Box::new(|| os.lock(Path::new("/LOCK")).is_err())),
        ];
        for (call, run) in calls {
            os.clear();
            os.inject(fault(call, 1, false));
            assert!(run(), "{call:?} went through");
        }
    }
}
