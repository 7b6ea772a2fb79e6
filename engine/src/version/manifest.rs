//! The manifest: which runs, fragments and log segments make up the store, and where its group stands.
//!
//! The whole state is one checksummed file. A change writes the next generation beside it, syncs it, renames it over
//! the old one and syncs the directory: whatever happens, one whole manifest is there. See FORMAT.md.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use planaria_types::{
    DatabaseId, Epoch, FileId, FragmentId, History, HistoryHash, InstanceId, KeyRange, Portion, Position,
    TableId, Uid,
};
use serde::{Deserialize, Serialize};

use super::reference::RefRecord;
use crate::error::{Error, Result};
use crate::os::{OpenMode, Os};
use crate::run::RunMeta;

/// The name of the manifest within a store's directory.
pub(crate) const MANIFEST: &str = "MANIFEST";
const MANIFEST_NEW: &str = "MANIFEST.new";
const MAGIC: &[u8; 8] = b"PLNRMANI";
/// The version of a whole copy's manifest.
const FORMAT_VERSION: u32 = 1;
/// That of a partial copy's: the portion that it holds stands behind the rest. A release that knows nothing of portions
/// would answer for what such a copy does not hold.
const FORMAT_VERSION_PARTIAL: u32 = 2;
const HEADER_BYTES: usize = 8 + 4 + 4 + 4;
/// The largest manifest that is read: some million files.
const MANIFEST_BYTES_MAX: u64 = 1 << 30;

/// Whether a copy takes updates or follows another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Takes updates.
    Primary,
    /// Follows a primary.
    Secondary,
}

/// What a clone was taken from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lineage {
    /// The source's database.
    pub database: DatabaseId,
    /// The source's instance.
    pub instance: InstanceId,
    /// The state that was cloned.
    pub position: Position,
}

/// Everything that the manifest holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// Rises with every change.
    pub(crate) generation: u64,
    pub(crate) instance: InstanceId,
    pub(crate) database: DatabaseId,
    /// Milliseconds since 1970.
    pub(crate) created_ms: u64,
    pub(crate) lineage: Option<Lineage>,
    /// `true` until a clone or a bulk copy has everything: such a directory cannot be opened.
    pub(crate) partial: bool,
    /// Names that are not used yet.
    pub(crate) next_file: u64,
    pub(crate) next_fragment: u64,
    pub(crate) group: GroupRecord,
    pub(crate) fragments: Vec<FragmentRecord>,
    pub(crate) runs: Vec<RunRecord>,
    /// Recovery replays from this log segment on.
    pub(crate) log_start: u64,
    /// Where each retained log segment begins, in order.
    pub(crate) segments: Vec<SegmentRecord>,
    /// Stores that wrote some of the log segments: those that this one was cloned from.
    pub(crate) log_origins: Vec<InstanceId>,
}

/// The one group of the database.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct GroupRecord {
    pub(crate) role: Role,
    pub(crate) history: History,
    /// The newest epoch that the copy has promised to follow.
    pub(crate) promised: Epoch,
    /// The visible cut when the manifest was written; it never falls.
    pub(crate) visible: Uid,
    /// UIDs are drawn above what recovery finds and above this.
    pub(crate) reserved: Uid,
    /// Reads as of a UID work at or above it.
    pub(crate) version_floor: Uid,
    /// No delete mark above it has been dropped.
    pub(crate) mark_floor: Uid,
    /// Intervals within which no cut is readable, both ends exclusive.
    pub(crate) sparse: Vec<(Uid, Uid)>,
    /// What a partial copy holds; none of a whole one. It stands at the end of the manifest.
    #[serde(skip)]
    pub(crate) portion: Option<Portion>,
}

/// A fragment and the rectangles of its runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct FragmentRecord {
    pub(crate) id: FragmentId,
    pub(crate) table: TableId,
    pub(crate) range: KeyRange,
    /// Everything at or below lies in runs.
    pub(crate) flushed: Uid,
    pub(crate) references: Vec<RefRecord>,
}

/// A run file of the store.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// Its number here, which names the file.
    pub(crate) file: FileId,
    /// What it must be. Its checksums are bound to the store that wrote it: in a clone, another one.
    pub(crate) meta: RunMeta,
}

/// The state right before the first record of a log segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct SegmentRecord {
    pub(crate) number: u64,
    pub(crate) uid: Uid,
    pub(crate) hash: HistoryHash,
}

impl Manifest {
    /// Reads the manifest of a store, or `None` if there is none.
    pub(crate) fn read(os: &Arc<dyn Os>, dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(MANIFEST);
        if !os.exists(&path) {
            return Ok(None);
        }
        let file = os.open(&path, OpenMode::Read).map_err(|error| Error::io("open", &path, error))?;
        let len = file.len().map_err(|error| Error::io("measure", &path, error))?;
        if len > MANIFEST_BYTES_MAX {
            return Err(Error::damaged(&path, 0, format!("{len} bytes are no manifest")));
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).map_err(|error| Error::io("read", &path, error))?;
        Self::decode(&path, &bytes).map(Some)
    }

    pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Self> {
        let damaged = |offset: u64, what: &str| Error::damaged(path, offset, what);
        let Some((header, payload)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(damaged(0, "it is shorter than its header"));
        };
        if header.get(..8) != Some(MAGIC) {
            return Err(Error::Foreign { path: path.to_path_buf(), what: "it is not a manifest".into() });
        }
        let number = |at: usize| {
            header.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, u32::from_le_bytes)
        };
        let version = number(8);
        if !matches!(version, FORMAT_VERSION | FORMAT_VERSION_PARTIAL) {
            let what =
                format!("its format version is {version}, this release reads up to {FORMAT_VERSION_PARTIAL}");
            return Err(Error::Foreign { path: path.to_path_buf(), what });
        }
        if number(12) as usize != payload.len() {
            return Err(damaged(12, "its length is not the one it states"));
        }
        if number(16) != checksum(version, payload) {
            return Err(damaged(16, "the checksum does not match"));
        }
        Self::decode_payload(version, payload)
            .map_err(|_| damaged(HEADER_BYTES as u64, "it cannot be decoded"))
    }

    fn decode_payload(version: u32, payload: &[u8]) -> postcard::Result<Self> {
        let (mut manifest, rest): (Self, _) = postcard::take_from_bytes(payload)?;
        if version == FORMAT_VERSION_PARTIAL {
            manifest.group.portion = Some(postcard::from_bytes(rest)?);
        }
        Ok(manifest)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let failed = |error| Error::Invalid(format!("the manifest cannot be encoded: {error}"));
        let payload = postcard::to_stdvec(self).map_err(failed)?;
        match &self.group.portion {
            None => Ok(Self::wrap(FORMAT_VERSION, &payload)),
            Some(portion) => {
                let payload = postcard::to_extend(portion, payload).map_err(failed)?;
                Ok(Self::wrap(FORMAT_VERSION_PARTIAL, &payload))
            }
        }
    }

    /// A payload behind its header.
    pub(crate) fn wrap(version: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&version.to_le_bytes());
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&checksum(version, payload).to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Makes this the store's manifest, durably, in one step.
    pub(crate) fn write(&self, os: &Arc<dyn Os>, dir: &Path) -> Result<(), Unwritten> {
        let (path, new) = (dir.join(MANIFEST), dir.join(MANIFEST_NEW));
        let certain = |error| Unwritten { error, is_uncertain: false };
        let bytes = self.encode().map_err(certain)?;
        write_file(os, &new, &bytes).map_err(certain)?;
        os.rename(&new, &path).map_err(|error| Unwritten {
            is_uncertain: error.kind() != std::io::ErrorKind::StorageFull,
            error: Error::io("rename", &new, error),
        })?;
        os.sync_dir(dir)
            .map_err(|error| Unwritten { error: Error::io("sync", dir, error), is_uncertain: true })
    }
}

#[cfg(feature = "planted")]
impl Manifest {
    /// The planted fault: a crash in between leaves no manifest, or a part of one.
    pub(crate) fn write_in_place(&self, os: &Arc<dyn Os>, dir: &Path) -> Result<()> {
        write_file(os, &dir.join(MANIFEST), &self.encode()?)?;
        os.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))
    }
}

/// Why a manifest is not, or may not be, in place.
#[derive(Debug)]
pub(crate) struct Unwritten {
    pub(crate) error: Error,
    /// Whether it may be in place all the same: the rename was begun.
    pub(crate) is_uncertain: bool,
}

impl From<Unwritten> for Error {
    fn from(unwritten: Unwritten) -> Self {
        unwritten.error
    }
}

/// Writes and syncs a whole file, in place of a left-over one.
pub(crate) fn write_file(os: &Arc<dyn Os>, path: &Path, bytes: &[u8]) -> Result<()> {
    if os.exists(path) {
        os.remove_file(path).map_err(|error| Error::io("remove", path, error))?;
    }
    let file = os.open(path, OpenMode::CreateNew).map_err(|error| Error::io("create", path, error))?;
    file.write_all_at(bytes, 0).map_err(|error| Error::io("write", path, error))?;
    file.sync_data().map_err(|error| Error::io("sync", path, error))
}

/// Where a store keeps its run files.
pub(crate) fn run_dir(dir: &Path) -> PathBuf {
    dir.join("runs")
}

/// The path of a run file.
pub(crate) fn run_path(dir: &Path, file: FileId) -> PathBuf {
    run_dir(dir).join(format!("{:016x}.run", file.0))
}

fn checksum(version: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&version.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}
