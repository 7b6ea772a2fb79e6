//! The store: what a directory holds, how it is opened, written and kept in shape.
//!
//! Locks, in the order in which they may be taken: `writer` (the commit leader's state), `structure` (the manifest),
//! `synced` (the durable end), `version` (the fragments that readers see). Readers take only the last, for the time of
//! a reference count. Fragments come and go under `structure` only, so that what a manifest says of them holds until it
//! is in place.

mod catalog;
mod flush;
mod ingest;
mod kept;
mod published;
mod rebase;
mod recover;
mod replace;
mod structure;
mod tokens;
mod worker;
mod write;

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use planaria_types::{HistoryHash, InstanceId, Position, Uid};

pub(crate) use self::catalog::{
    CLONE_PREFIX, LEAD_KEY, REGISTRATION_PREFIX, TABLE_PREFIX, fragment_key, table_key,
};
pub(crate) use self::flush::{NewRun, NewRunWriter, Retain, RunRefParts, UnsyncedRuns};
#[cfg(any(test, feature = "testing"))]
pub(crate) use self::kept::fuzzing as kept_fuzzing;
pub(crate) use self::kept::{KeptRanges, KeptRefresh, KeptRun, boundaries_of, kept_boundaries};
use self::published::Published;
pub(crate) use self::rebase::{Changed, Install};
pub(crate) use self::recover::{LOCK, ReadRuns, check_complete, log_dir};
pub(crate) use self::replace::Replacement;
pub(crate) use self::tokens::token_key;
#[cfg(feature = "testing")]
pub use self::worker::Task;
use self::worker::Work;
pub use self::write::Written;
pub(crate) use self::write::{Gate, Pending, Token};
use crate::clone::CLONE_CHUNK_BYTES;
use crate::commit::{CommitQueue, Feed};
use crate::error::{Error, Result};
use crate::health::Health;
use crate::log::Log;
use crate::options::Options;
use crate::os::DirLock;
use crate::planted::planted;
use crate::portion::Holding;
use crate::run::BlockCache;
use crate::sync::{Arc, AtomicBool, AtomicU64, CachePadded, Mutex, Ordering};
use crate::version::{GroupRecord, Manifest, Role, SegmentRecord, StoreVersion, run_dir};

/// Kinds of log records.
pub(crate) mod record_kind {
    /// An encoded commit.
    pub(crate) const COMMIT: u8 = 1;
    /// The bound below which UIDs are drawn: 8 bytes, little-endian.
    pub(crate) const RESERVE: u8 = 2;
    /// The visible cut of a secondary: 8 bytes, little-endian.
    pub(crate) const CUT: u8 = 3;
}

/// An open store.
pub(crate) struct Store {
    pub(crate) options: Options,
    pub(crate) dir: PathBuf,
    /// This copy's name.
    instance: InstanceId,
    /// Held for as long as the store is open.
    _lock: Box<dyn DirLock>,
    pub(crate) log: Log,
    pub(crate) cache: Arc<BlockCache>,
    published: Published<StoreVersion>,
    /// Held while `durable` is set.
    synced: Mutex<()>,
    /// Every commit at or below is durable in the log.
    durable: CachePadded<AtomicU64>,
    /// The last commit that was appended to the log.
    appended: CachePadded<AtomicU64>,
    /// The bound below which UIDs are drawn.
    reserved: AtomicU64,
    queue: CommitQueue<Pending, Result<Written>>,
    pub(crate) feed: Feed,
    writer: Mutex<Writer>,
    /// The manifest as it was written last.
    structure: Mutex<Manifest>,
    /// Where each retained log segment begins.
    segments: Mutex<VecDeque<SegmentRecord>>,
    pub(crate) floors: Mutex<Floors>,
    work: Work,
    /// Why the manifest on disk is not known any more, once that is so.
    poisoned: Mutex<Option<String>>,
    secondary: AtomicBool,
    /// What a partial copy holds.
    pub(crate) holding: Holding,
    /// Whether commits are taken at all.
    pub(crate) gate: Mutex<Gate>,
    /// The tokens of commits, oldest first, once they have been looked for.
    tokens: Mutex<Option<VecDeque<(Uid, u128)>>>,
    /// Whether this start as a primary has its epoch.
    epoch_begun: AtomicBool,
    /// Bytes logged since the memtables were measured last.
    unmeasured: CachePadded<AtomicU64>,
    /// Names for run files that are being written.
    next_file: AtomicU64,
    next_fragment: AtomicU64,
}

/// The commit leader's state: where the log ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer {
    pub(crate) last: Uid,
    pub(crate) hash: HistoryHash,
    /// The segment of the last record.
    pub(crate) segment: u64,
    /// UIDs are drawn above: an earlier start may have used those below for commits that it lost.
    pub(crate) draw_above: Uid,
    /// Rises whenever the log begins anew: commits from before are not published after.
    pub(crate) rebases: u64,
}

/// What retention goes by besides the visible cut.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Floors {
    /// The lowest durable position of those in the promotable set that old versions are kept for.
    pub(crate) versions: Option<Uid>,
    /// The lowest durable position in the promotable set, if there is one: no mark above it goes.
    pub(crate) stable: Option<Uid>,
    /// The lowest durable position of a registered secondary whose changes are still preserved.
    pub(crate) preserved: Option<Uid>,
    /// The lowest durable position of a copy that this one feeds, and whose changes are still preserved.
    pub(crate) fed: Option<Uid>,
    /// Held below while commits above are taken back, or ranges are replaced at it.
    fork: Option<Uid>,
}

impl Floors {
    /// The lowest position of any copy that something is preserved for.
    pub(crate) fn preserved_for_all(&self) -> Option<Uid> {
        self.preserved.into_iter().chain(self.fed).min()
    }
}

/// So many segments are few: each takes the room of a whole one, on both sides of a clone.
const FEW_SEGMENTS: usize = 2;

impl Store {
    /// Where damage that is met is remembered.
    pub(crate) fn health(&self) -> &Health {
        self.cache.health()
    }

    /// The first damage that was met in a file which is still in use.
    pub(crate) fn damage(&self) -> Option<String> {
        let version = self.pin().0;
        let runs = run_dir(&self.dir);
        self.health().damage(|path| {
            let mut references = version.fragments().iter().flat_map(|fragment| fragment.references());
            !path.starts_with(&runs) || references.any(|reference| reference.run.path() == path)
        })
    }

    /// The fragments and the cut to read them at.
    pub(crate) fn pin(&self) -> (Arc<StoreVersion>, Uid) {
        self.published.pin()
    }

    pub(crate) fn visible(&self) -> Uid {
        self.published.visible()
    }

    pub(crate) fn durable(&self) -> Uid {
        Uid::new(self.durable.load(Ordering::Acquire))
    }

    pub(crate) fn appended(&self) -> Uid {
        Uid::new(self.appended.load(Ordering::Acquire))
    }

    pub(crate) fn role(&self) -> Role {
        if self.secondary.load(Ordering::Acquire) { Role::Secondary } else { Role::Primary }
    }

    /// The manifest as it was written last.
    pub(crate) fn manifest(&self) -> Manifest {
        self.structure.lock().clone()
    }

    /// The durable position.
    pub(crate) fn position(&self) -> Position {
        self.structure.lock().group.history.position_of(self.durable())
    }

    /// Reads what the manifest says of the group.
    pub(crate) fn group<T>(&self, read: impl FnOnce(&GroupRecord) -> T) -> T {
        read(&self.structure.lock().group)
    }

    /// What a merge may drop now.
    pub(crate) fn retain(&self) -> Retain {
        let floors = *self.floors.lock();
        let floor = |floor: Option<Uid>| floor.unwrap_or(Uid::MAX);
        let versions = self.visible().min(floor(floors.versions)).min(floor(floors.fork));
        let versions = match self.options.keep_history_ms {
            0 => versions,
            kept => versions.min(Uid::from_millis(self.options.os.now_millis().saturating_sub(kept))),
        };
        let preserved =
            if planted!(self.options, DropMarksEarly) { Uid::MAX } else { floor(floors.preserved_for_all()) };
        let marks = versions.min(floor(floors.stable)).min(preserved);
        Retain { versions, marks, ..Retain::default() }
    }

    /// Raises the floors over what was dropped. It belongs to the manifest that names the outputs: whatever retention
    /// goes by meanwhile, what is gone is gone, and outputs that are not installed have dropped nothing.
    pub(crate) fn raise_floors(&self, group: &mut GroupRecord, dropped: &Retain) {
        if !planted!(self.options, DropMarksEarly) {
            group.mark_floor = group.mark_floor.max(dropped.marks_dropped);
        }
        group.version_floor = group.version_floor.max(dropped.thinned_to);
    }

    /// Whether a start would read little of the log, and few segments: what is not known to lie in runs, and what came beside it.
    pub(crate) fn has_little_to_replay(&self) -> bool {
        let version = self.published.version();
        let from =
            version.fragments().iter().map(|fragment| fragment.first_segment()).min().unwrap_or(u64::MAX);
        let segments = self.log.segments();
        let newest = segments.last().map_or(0, |segment| segment.number);
        let needed = segments.iter().filter(|segment| segment.number >= from.min(newest));
        let needed: Vec<_> = needed.map(|segment| segment.end_offset).collect();
        needed.len() <= FEW_SEGMENTS && needed.iter().sum::<u64>() <= self.little_log()
    }

    /// What is little to read of a log, in bytes: less than a run is worth, or a segment.
    pub(crate) fn little_log(&self) -> u64 {
        CLONE_CHUNK_BYTES.min(self.options.log_segment_bytes / 2)
    }

    /// The last retained log segment that begins at or before `uid`.
    pub(crate) fn segment_before(&self, uid: Uid) -> Option<SegmentRecord> {
        self.segments.lock().iter().rev().find(|segment| segment.uid <= uid).copied()
    }

    /// The first segment with a higher number than this, if its first position is known.
    pub(crate) fn segment_after(&self, number: u64) -> Option<SegmentRecord> {
        self.segments.lock().iter().find(|segment| segment.number > number).copied()
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error + use<> {
        let path = path.to_path_buf();
        move |error| Error::io(what, &path, error)
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("dir", &self.dir)
            .field("visible", &self.visible())
            .finish_non_exhaustive()
    }
}
