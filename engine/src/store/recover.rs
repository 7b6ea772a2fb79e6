//! Opening a store: the manifest says what there is, the log says what came after.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};

use planaria_types::{
    DatabaseId, FileId, FragmentId, History, HistoryHash, InstanceId, KeyRange, TableId, Uid,
};

use super::catalog::{boundary_of, with_boundary};
use super::kept::Kept;
use super::worker::Work;
use super::write::insert_op;
use super::{Floors, Gate, Published, Store, Writer, record_kind};
use crate::commit::{CommitQueue, EncodedCommit, Feed};
use crate::error::{Error, Result};
use crate::hash;
use crate::log::{KIND_BASE, Log, LogEntry, LogOptions, Replay};
use crate::options::Options;
use crate::os::{DirLock, Os};
use crate::planted::planted;
use crate::portion::Holding;
use crate::run::{BlockCache, Run};
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex};
use crate::version::{
    Fragment, GroupRecord, MANIFEST, Manifest, Role, RunRecord, RunRef, SegmentRecord, StoreVersion, run_dir,
    run_path,
};

pub(crate) const LOCK: &str = "LOCK";
/// Run files that are opened at a time.
const OPENING_THREADS: usize = 4;
/// Names of a store's directory that may be there before its manifest is: an interrupted creation.
const NAMES_OF_A_START: [&str; 5] = [LOCK, "MANIFEST.new", "runs", "log", "tls"];

/// Where a store keeps its log.
pub(crate) fn log_dir(dir: &Path) -> PathBuf {
    dir.join("log")
}

/// Fails with `Foreign` on a clone whose files have not all come in.
pub(crate) fn check_complete(dir: &Path, manifest: &Manifest) -> Result<()> {
    if manifest.partial {
        return Err(Error::Foreign {
            path: dir.to_path_buf(),
            what:
                "it is a clone that was not completed; resume it with `planaria clone create`, or remove it"
                    .into(),
        });
    }
    Ok(())
}

/// When the index and the filter of each run file are read, and checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ReadRuns {
    /// While the store is opened, which fails where one of them is damaged.
    AtOnce,
    /// When somebody needs them: the bytes of the files have been checked.
    Later,
}

impl Store {
    /// Opens the store in `dir`, or creates it if the options say so.
    pub(crate) fn open(dir: &Path, options: Options, read: ReadRuns) -> Result<Self> {
        options.validate()?;
        let os = Arc::clone(&options.os);
        let lock = lock_dir(&os, dir, options.create)?;
        let mut manifest = match Manifest::read(&os, dir)? {
            Some(manifest) => manifest,
            None if options.create => create(&os, dir)?,
            None => return Err(Error::NotFound { path: dir.to_path_buf() }),
        };
        check_complete(dir, &manifest)?;
        // A killed process may have renamed the manifest without syncing the name: until that is durable, a power cut
        // brings back the one before and with it the need for its files.
        os.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
        let kept = Kept::read(&os, dir, &manifest)?;
        remove_garbage(&os, dir, &manifest, kept.as_ref())?;
        let newest = kept.iter().flat_map(Kept::files).map(|file| file.0.saturating_add(1)).max();
        manifest.next_file = manifest.next_file.max(newest.unwrap_or(0));
        let cache = Arc::new(BlockCache::new(options.cache_bytes as u64));
        let open = |record: &RunRecord| {
            let (path, meta) = (run_path(dir, record.file), &record.meta);
            match read {
                ReadRuns::AtOnce => Run::open(&os, &path, meta.identity, meta, &cache, options.read_mode),
                ReadRuns::Later => Run::open_unread(&os, &path, meta, &cache, options.read_mode),
            }
        };
        let threads = if options.background { OPENING_THREADS } else { 1 };
        let version = open_runs(dir, &manifest, threads, open)?;
        let store = Self::replay(dir, options, lock, manifest, cache, version)?;
        store.settle_kept()?;
        Ok(store)
    }

    /// Opens what is in `dir` to be read or linked, under a manifest that need not lie there. Run files are not read before
    /// somebody asks for something in them: they may still be coming in. Whoever calls this keeps others out of the directory.
    pub(crate) fn open_view(dir: &Path, manifest: Manifest, options: Options) -> Result<Self> {
        let cache = Arc::new(BlockCache::new(options.cache_bytes as u64));
        let unread = |record: &RunRecord| {
            let path = run_path(dir, record.file);
            Run::open_unread(&options.os, &path, &record.meta, &cache, options.read_mode)
        };
        let version = open_runs(dir, &manifest, 1, unread)?;
        Self::replay(dir, options, Box::new(Unlocked), manifest, cache, version)
    }

    fn replay(
        dir: &Path,
        options: Options,
        lock: Box<dyn DirLock>,
        manifest: Manifest,
        cache: Arc<BlockCache>,
        version: StoreVersion,
    ) -> Result<Self> {
        let os = Arc::clone(&options.os);
        let log_options = LogOptions {
            segment_bytes: options.log_segment_bytes,
            origins: manifest.log_origins.clone(),
            must_exist: !manifest.segments.is_empty(),
            ..LogOptions::default()
        };
        let mut replay = Recovery::new(&manifest, version, log_dir(dir));
        let log =
            Log::open(os, &log_dir(dir), log_options, manifest.instance, manifest.log_start, &mut |entry| {
                replay.handle(entry)
            })?;
        let role = manifest.group.role;
        let end = replay.state.last;
        let visible = match role {
            Role::Primary => end,
            Role::Secondary if planted!(options, ShowAllAtStart) => end,
            Role::Secondary => replay.cut.min(end),
        };
        let draw_above = if planted!(options, ReuseUid) { end } else { replay.reserved };
        Ok(Self {
            dir: dir.to_path_buf(),
            instance: manifest.instance,
            _lock: lock,
            log,
            cache,
            next_file: AtomicU64::new(manifest.next_file),
            next_fragment: AtomicU64::new(replay.next_fragment),
            published: Published::new(replay.version, visible.max(manifest.group.visible)),
            synced: Mutex::new(()),
            durable: AtomicU64::new(end.get()).into(),
            appended: AtomicU64::new(end.get()).into(),
            reserved: AtomicU64::new(replay.reserved.get()),
            queue: CommitQueue::new(),
            feed: Feed::new(options.log_tail_bytes),
            writer: Mutex::new(Writer { draw_above, ..replay.state }),
            segments: Mutex::new(replay.segments),
            floors: Mutex::new(Floors::default()),
            work: Work::new(),
            poisoned: Mutex::new(None),
            secondary: AtomicBool::new(role == Role::Secondary),
            holding: Holding::new(manifest.group.portion.is_some()),
            epoch_begun: AtomicBool::new(false),
            gate: Mutex::new(Gate::of(&manifest.group)),
            tokens: Mutex::new(None),
            unmeasured: AtomicU64::new(0).into(),
            structure: Mutex::new(manifest),
            options,
        })
    }
}

/// The lock of a store that changes nothing.
#[derive(Debug)]
struct Unlocked;

impl DirLock for Unlocked {}

/// What the replay of the log has found so far.
struct Recovery {
    log_dir: PathBuf,
    role: Role,
    version: StoreVersion,
    state: Writer,
    cut: Uid,
    reserved: Uid,
    segments: VecDeque<SegmentRecord>,
    next_fragment: u64,
}

impl Recovery {
    fn new(manifest: &Manifest, version: StoreVersion, log_dir: PathBuf) -> Self {
        let kept = manifest.segments.iter().filter(|segment| segment.number <= manifest.log_start);
        let segments: VecDeque<_> = kept.copied().collect();
        let base = segments.back().filter(|segment| segment.number == manifest.log_start);
        let state = Writer {
            last: base.map_or(Uid::ZERO, |base| base.uid),
            hash: base.map_or(HistoryHash::default(), |base| base.hash),
            segment: base.map_or(0, |base| base.number),
            draw_above: Uid::ZERO,
            rebases: 0,
        };
        Self {
            log_dir,
            role: manifest.group.role,
            version,
            state,
            cut: manifest.group.visible,
            reserved: manifest.group.reserved,
            segments,
            next_fragment: manifest.next_fragment,
        }
    }

    fn handle(&mut self, entry: LogEntry<'_>) -> Result<Replay> {
        if entry.kind == KIND_BASE {
            return Ok(Replay::Continue);
        }
        if entry.segment != self.state.segment {
            self.state.segment = entry.segment;
            let (uid, hash) = (self.state.last, self.state.hash);
            self.segments.push_back(SegmentRecord { number: entry.segment, uid, hash });
        }
        let uid_of = |payload: &[u8]| payload.try_into().map(u64::from_le_bytes).map(Uid::new);
        let damaged = |what: &str| {
            Error::damaged(&self.log_dir.join(format!("{:016x}.log", entry.segment)), entry.offset, what)
        };
        match entry.kind {
            record_kind::COMMIT => return self.commit(&entry),
            record_kind::RESERVE => {
                let bound = uid_of(entry.payload).map_err(|_| damaged("a bound of the wrong length"))?;
                self.reserved = self.reserved.max(bound);
            }
            record_kind::CUT => {
                let cut = uid_of(entry.payload).map_err(|_| damaged("a cut of the wrong length"))?;
                self.cut = self.cut.max(cut);
            }
            kind => return Err(damaged(&format!("an unknown record kind {kind}"))),
        }
        Ok(Replay::Continue)
    }

    fn commit(&mut self, entry: &LogEntry<'_>) -> Result<Replay> {
        let path = self.log_dir.join(format!("{:016x}.log", entry.segment));
        let commit = EncodedCommit::parse(bytes::Bytes::copy_from_slice(entry.payload))
            .map_err(|error| Error::damaged(&path, entry.offset, error.to_string()))?;
        if commit.prev() != self.state.last || commit.uid() <= self.state.last {
            if self.role == Role::Secondary {
                // Live commits of a refresh that was never installed: what they build on is not here.
                return Ok(Replay::StopHere);
            }
            let what = format!("commit {} does not follow {}", commit.uid(), self.state.last);
            return Err(Error::damaged(&path, entry.offset, what));
        }
        let uid = commit.uid();
        self.state.last = uid;
        self.state.hash = hash::extend_history(self.state.hash, uid, hash::commit_hash(commit.bytes()));
        for op in commit.ops() {
            if let Some(boundary) = boundary_of(&op) {
                self.next_fragment = self.next_fragment.max(boundary.id.0.saturating_add(1));
                if let Some(version) = with_boundary(&self.version, &boundary, uid.prev()) {
                    self.version = version;
                }
            }
            insert_op(&self.version, op.table, op.key, uid, op.kind, op.row, entry.segment);
        }
        Ok(Replay::Continue)
    }
}

/// Keeps other processes out of the directory, which is created if the options say so.
fn lock_dir(os: &Arc<dyn Os>, dir: &Path, create: bool) -> Result<Box<dyn DirLock>> {
    if !os.exists(dir) {
        if !create {
            return Err(Error::NotFound { path: dir.to_path_buf() });
        }
        os.create_dir_all(dir).map_err(|error| Error::io("create", dir, error))?;
    }
    if !os.exists(&dir.join(MANIFEST)) {
        if !create {
            return Err(Error::NotFound { path: dir.to_path_buf() });
        }
        let entries = os.list(dir).map_err(|error| Error::io("list", dir, error))?;
        if entries.iter().any(|entry| !NAMES_OF_A_START.contains(&entry.name.as_str())) {
            return Err(Error::Exists { path: dir.to_path_buf() });
        }
        // Also where the directory is found: whoever created it may have died before this.
        sync_ancestors(os, dir)?;
    }
    let path = dir.join(LOCK);
    os.lock(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::WouldBlock => Error::InUse { path: dir.to_path_buf() },
        _ => Error::io("lock", &path, error),
    })
}

/// Makes the name of a new directory durable, and those of the directories that it lies in, which may be new as well.
fn sync_ancestors(os: &Arc<dyn Os>, dir: &Path) -> Result<()> {
    use std::io::ErrorKind::{InvalidInput, PermissionDenied, Unsupported};
    for (level, parent) in dir.ancestors().skip(1).enumerate() {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        match os.sync_dir(parent) {
            // Further up there are directories that others own, which are not new.
            Err(error)
                if level > 0 && matches!(error.kind(), InvalidInput | PermissionDenied | Unsupported) => {}
            synced => synced.map_err(|error| Error::io("sync", parent, error))?,
        }
    }
    Ok(())
}

/// Writes the first manifest of a new store.
fn create(os: &Arc<dyn Os>, dir: &Path) -> Result<Manifest> {
    for sub in [run_dir(dir), log_dir(dir)] {
        os.create_dir_all(&sub).map_err(|error| Error::io("create", &sub, error))?;
    }
    // A power cut may keep the manifest's name without the names that were given before it.
    os.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
    let random = || u128::from(os.random_u64()) << 64 | u128::from(os.random_u64());
    let system = crate::version::FragmentRecord {
        id: FragmentId(1),
        table: TableId::SYSTEM,
        range: KeyRange::ALL,
        flushed: Uid::ZERO,
        references: Vec::new(),
    };
    let manifest = Manifest {
        generation: 1,
        instance: InstanceId(random()),
        database: DatabaseId(random()),
        created_ms: os.now_millis(),
        lineage: None,
        partial: false,
        next_file: 1,
        next_fragment: 2,
        group: GroupRecord {
            role: Role::Primary,
            history: History::default(),
            promised: planaria_types::Epoch::NONE,
            visible: Uid::ZERO,
            reserved: Uid::ZERO,
            version_floor: Uid::ZERO,
            mark_floor: Uid::ZERO,
            sparse: Vec::new(),
            portion: None,
        },
        fragments: vec![system],
        runs: Vec::new(),
        log_start: 0,
        segments: Vec::new(),
        log_origins: Vec::new(),
    };
    manifest.write(os, dir)?;
    Ok(manifest)
}

/// Removes run files that neither the manifest names nor a refresh has kept: left-overs of interrupted work.
fn remove_garbage(os: &Arc<dyn Os>, dir: &Path, manifest: &Manifest, kept: Option<&Kept>) -> Result<()> {
    let runs = run_dir(dir);
    let files = manifest.runs.iter().map(|run| run.file).chain(kept.into_iter().flat_map(Kept::files));
    let named: HashSet<_> = files.map(|file| run_path(dir, file)).collect();
    for entry in os.list(&runs).map_err(|error| Error::io("list", &runs, error))? {
        let path = runs.join(&entry.name);
        if !entry.is_dir && !named.contains(&path) {
            os.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
    }
    Ok(())
}

/// Opens the runs, some at a time: what is read of each may have to come from the disk.
fn open_all(
    records: &[RunRecord],
    threads: usize,
    open: &(impl Fn(&RunRecord) -> Result<Arc<Run>> + Sync),
) -> Vec<Result<Arc<Run>>> {
    if threads < 2 || records.len() < 2 {
        return records.iter().map(open).collect();
    }
    let (own, others) = records.split_at(records.len().div_ceil(threads));
    std::thread::scope(|scope| {
        let builder = std::thread::Builder::new().name("planaria-open".into());
        let Ok(opening) = builder.spawn_scoped(scope, || open_all(others, threads - 1, open)) else {
            return records.iter().map(open).collect();
        };
        let mut opened: Vec<_> = own.iter().map(open).collect();
        opened.extend(opening.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        opened
    })
}

fn open_runs(
    dir: &Path,
    manifest: &Manifest,
    threads: usize,
    open: impl Fn(&RunRecord) -> Result<Arc<Run>> + Sync,
) -> Result<StoreVersion> {
    let mut runs: HashMap<FileId, Arc<Run>> = HashMap::new();
    for (record, opened) in manifest.runs.iter().zip(open_all(&manifest.runs, threads, &open)) {
        runs.insert(record.file, opened?);
    }
    let fragments = manifest.fragments.iter().map(|record| {
        let mut fragment = Fragment::new(record.id, record.table, record.range.clone(), record.flushed);
        let references = record.references.iter().map(|reference| {
            let run = runs.get(&reference.file).ok_or_else(|| {
                Error::damaged(
                    &dir.join(MANIFEST),
                    0,
                    format!("it refers to run {}, which it lacks", reference.file),
                )
            })?;
            Ok(RunRef {
                file: reference.file,
                run: Arc::clone(run),
                keys: reference.keys.clone(),
                above: reference.above,
                upto: reference.upto,
            })
        });
        fragment.set_references(references.collect::<Result<_>>()?)?;
        Ok(Arc::new(fragment))
    });
    Ok(StoreVersion::new(fragments.collect::<Result<_>>()?))
}
