//! Clones: a copy of a whole database at one cut, under a new identity.
//!
//! A cut is made by sealing the log: everything up to there lies in runs and sealed segments, neither of which changes
//! again. A local clone gives those files a second name ([`Database::clone_to`]). A remote one sends them as they lie
//! on disk, each chunk checked on arrival ([`FilePin`] at the source, [`CloneTarget`] at the target). Writers go on.
//!
//! [`Database::clone_to`]: crate::Database::clone_to

mod about;
mod archive;
mod claim;
mod file;
mod hydration;
mod local;
mod pin;
mod place;
mod record;
mod target;
mod view;

use std::path::{Path, PathBuf};

use planaria_types::{DatabaseId, Epoch, EpochOrder, FileId, InstanceId, Position};
use serde::{Deserialize, Serialize};

use crate::sealed::beside;
use crate::store::log_dir;
use crate::version::{Lineage, Manifest, Role, run_path};

pub use about::{CloneAbout, ClonePurpose};
pub use archive::LogSegment;
pub(crate) use hydration::Absent;
pub use hydration::{ChunkRange, Hydration};
pub use local::LocalClone;
pub use pin::FilePin;
pub use place::{ClonePlace, is_kept, unmark_kept};
pub use record::CloneRecord;
pub use target::{CloneTarget, MissingChunk};

/// The size of the pieces that are sent, checked and resumed by, in bytes.
pub const CLONE_CHUNK_BYTES: u64 = crate::run::CHUNK_BYTES as u64;

/// What a clone is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum CloneRole {
    /// A database of its own, which takes updates and has no more to do with its source.
    Detached,
    /// A secondary of the source's database.
    Secondary,
}

/// The kind of a file of a store.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum FileKind {
    /// A run.
    Run,
    /// A sealed log segment.
    Log,
}

/// A file of a clone: a kind and a number, never a path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CloneFile {
    /// What it is.
    pub kind: FileKind,
    /// Its number among its kind.
    pub number: u64,
    /// The bytes that are sent.
    pub len: u64,
    /// The length of the file; what is not sent of it is zeros.
    pub extent: u64,
    /// BLAKE3 of each chunk of [`CLONE_CHUNK_BYTES`]; the last chunk may be shorter.
    pub chunks: Vec<[u8; 32]>,
}

/// Everything that a target has to know before the first byte: what the files are and how they hang together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileList {
    /// The source's manifest, as of the cut.
    manifest: Manifest,
    /// The state that is cloned.
    pub position: Position,
    /// The files.
    pub files: Vec<CloneFile>,
}

impl FileList {
    /// Bytes of all files. A list that came from elsewhere may say anything: what does not fit counts as the most that does.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.len))
    }

    /// The epoch under which the source led when the cut was made.
    pub fn epoch(&self) -> Epoch {
        self.manifest.group.history.current()
    }

    /// The database that is cloned.
    pub fn database(&self) -> DatabaseId {
        self.manifest.database
    }

    /// The copy that is cloned.
    pub fn instance(&self) -> InstanceId {
        self.manifest.instance
    }

    /// What that copy was cloned from, if it was.
    pub fn lineage(&self) -> Option<&Lineage> {
        self.manifest.lineage.as_ref()
    }
}

/// `dir` of a clone that is not complete yet.
pub(crate) fn partial_dir(dir: &Path) -> PathBuf {
    beside(dir, ".partial")
}

/// Where a file of a clone lies in a store's directory.
fn file_path(dir: &Path, kind: FileKind, number: u64) -> PathBuf {
    match kind {
        FileKind::Run => run_path(dir, FileId(number)),
        FileKind::Log => log_dir(dir).join(format!("{number:016x}.log")),
    }
}

/// What a clone names as its source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Origin {
    /// The database that its files are of.
    This,
    /// What that database was made of, if it says: it was made to be given away.
    ItsSource,
}

impl Origin {
    /// Has the manifest of a clone name it, whose files are those of `given`.
    fn name_in(self, clone: Manifest, given: &Manifest) -> Manifest {
        match (self, &given.lineage) {
            (Self::ItsSource, Some(made_of)) => Manifest { lineage: Some(made_of.clone()), ..clone },
            _ => clone,
        }
    }
}

/// The manifest of a clone: the source's with an identity of its own. A secondary is one of `database`, a detached clone is
/// that.
fn clone_manifest(
    source: &Manifest,
    position: Position,
    role: CloneRole,
    instance: InstanceId,
    database: DatabaseId,
    now_ms: u64,
) -> Manifest {
    let mut log_origins = source.log_origins.clone();
    log_origins.push(source.instance);
    log_origins.dedup();
    let mut clone = Manifest {
        generation: 1,
        instance,
        created_ms: now_ms,
        lineage: Some(Lineage { database: source.database, instance: source.instance, position }),
        partial: false,
        log_origins,
        ..source.clone()
    };
    match role {
        CloneRole::Detached => {
            clone.database = database;
            clone.group.role = Role::Primary;
        }
        CloneRole::Secondary => {
            clone.database = database;
            clone.group.role = Role::Secondary;
            // A primary leads under an epoch that it never promised to follow; its follower has to.
            let epoch = clone.group.history.current();
            if epoch.order(&clone.group.promised) == EpochOrder::Newer {
                clone.group.promised = epoch;
            }
        }
    }
    clone
}

#[cfg(test)]
#[cfg(not(loom))]
mod archive_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod hydration_tests;
#[cfg(test)]
#[cfg(not(loom))]
mod target_crash_tests;
