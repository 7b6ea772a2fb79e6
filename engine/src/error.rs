use std::io;
use std::path::{Path, PathBuf};

use crate::clone::Absent;

/// The result of an engine call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong in the engine: what happened, to what, and, where there is something to do, what.
///
/// [`Error::code`] is stable over releases, for programs.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb: "read", "sync".
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: std::sync::Arc<io::Error>,
    },
    /// Bytes on disk are not what was written.
    #[error("{} is damaged at byte {offset}: {what}. Restore the file from a copy of the database; nothing was changed", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// A file is of another kind, another store or a newer format.
    #[error("{} cannot be used: {what}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        what: String,
    },
    /// Another process has the directory open.
    #[error("{} is in use by another process; close it, or talk to its node with --node ADDR", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Somebody else takes a clone into the directory, or exchanges or removes the one there.
    #[error(
        "somebody is at work on the clone in {}: it is taken, exchanged or removed. Wait until that is over, or name another \
         directory",
        path.display()
    )]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A clone is whole, and cannot take the place of another one in a single step.
    #[error(
        "the file system does not exchange {} with the clone that was to take its place: {source}. That one is whole, in {}: end who \
         has the one before open, and rename both by hand",
        path.display(),
        whole.display()
    )]
    NotExchanged {
        /// The directory whose place it was to take.
        path: PathBuf,
        /// Where it is.
        whole: PathBuf,
        /// The system's answer.
        source: std::sync::Arc<io::Error>,
    },
    /// There is no database at the path.
    #[error("{} holds no database", path.display())]
    NotFound {
        /// The directory.
        path: PathBuf,
    },
    /// The target directory of a new database or clone holds something already.
    #[error("{} exists already and is not empty; choose a new directory", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// A sync failed earlier: what was not acknowledged may be lost, and nothing more is accepted.
    #[error(
        "the store takes no more writes: {reason}. Reads go on; reopen the database once the disk is well"
    )]
    Poisoned {
        /// The failure that caused it.
        reason: String,
    },
    /// The disk is full.
    #[error("no room on the disk of {}: {what}. Nothing acknowledged is lost; free some space and try again", path.display())]
    NoSpace {
        /// The file that could not grow.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
    },
    /// Something does not fit onto the disk, which was found out before any of it was written.
    #[error(
        "{needed_bytes} bytes do not fit into {}, where {available_bytes} are left: make room, or name a directory on \
         another disk",
        path.display()
    )]
    NoRoom {
        /// The directory.
        path: PathBuf,
        /// The bytes that it takes.
        needed_bytes: u64,
        /// The bytes that are left.
        available_bytes: u64,
    },
    /// No table of that name.
    #[error("there is no table {name:?}; `planaria table list` shows those that exist")]
    UnknownTable {
        /// The name asked for.
        name: String,
    },
    /// No extract of that name.
    #[error("there is no extract {name:?}; `planaria quarantine list` shows those that exist")]
    UnknownExtract {
        /// The name asked for.
        name: String,
    },
    /// A table of that name exists.
    #[error("table {name:?} exists already")]
    TableExists {
        /// The name.
        name: String,
    },
    /// A schema, a key or a row does not fit.
    #[error("{0}")]
    Schema(String),
    /// A key, row or batch is larger than its limit.
    #[error("{what} of {bytes} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The copy is a secondary: updates go to its primary.
    #[error("this copy is a secondary and takes no updates of its own; send them to its primary")]
    ReadOnly,
    /// A newer epoch exists: another copy leads.
    #[error(
        "this copy is deposed: another one leads under epoch {0}. Have it follow that one by `planaria serve DIR --replica-of ADDR`; what it has more is kept in its quarantine"
    )]
    Deposed(planaria_types::Epoch),
    /// The copy is partial, and does not hold what is asked for.
    #[error(
        "this copy does not hold {keys} of table {table:?}: it is partial and holds {holds}. Ask its primary, or choose the \
         table with --only where this copy is served"
    )]
    NotHeld {
        /// The table.
        table: String,
        /// The key or range asked for.
        keys: String,
        /// What it holds.
        holds: String,
    },
    /// The copy is partial, and can neither lead nor be a source of others.
    #[error(
        "a partial copy {what}: it holds {holds} and lacks the rest. Take its primary, or a secondary that holds everything"
    )]
    Partial {
        /// What it cannot do.
        what: &'static str,
        /// What it holds.
        holds: String,
    },
    /// The lead is being moved.
    #[error("this primary is handing its lead over to another copy; try again in a moment, and there")]
    HandingOver,
    /// A token names another commit.
    #[error("the token was used for another commit: each write needs a token of its own")]
    TokenReused,
    /// What is asked for is older than what is kept.
    #[error("{0} is older than what this copy keeps")]
    SnapshotTooOld(planaria_types::Uid),
    /// A commit does not follow the last one.
    #[error("commit {got} names {named} as its predecessor, but this copy ends at {have}: a gap")]
    Gap {
        /// The commit's UID.
        got: planaria_types::Uid,
        /// The predecessor that it names.
        named: planaria_types::Uid,
        /// The last UID here.
        have: planaria_types::Uid,
    },
    /// Input that cannot be understood or may not be combined.
    #[error("{0}")]
    Invalid(String),
    /// A part of a clone that is not complete has not come yet, and cannot be had now.
    #[error(
        "byte {offset} of {} has not come yet: {why}. What is here can be read; try again when a source of the clone answers, \
         or wait until the clone is complete",
        path.display()
    )]
    NotHere {
        /// The file.
        path: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// Why it cannot be had.
        why: String,
    },
    /// The database is closing.
    #[error("the database is closed")]
    Closed,
}

impl Error {
    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::Damaged { .. } => "damaged",
            Self::Foreign { .. } => "foreign",
            Self::InUse { .. } => "in_use",
            Self::Busy { .. } => "busy",
            Self::NotExchanged { .. } => "not_exchanged",
            Self::NotFound { .. } => "not_found",
            Self::Exists { .. } => "exists",
            Self::Poisoned { .. } => "poisoned",
            Self::NoSpace { .. } | Self::NoRoom { .. } => "no_space",
            Self::UnknownTable { .. } => "unknown_table",
            Self::UnknownExtract { .. } => "unknown_extract",
            Self::TableExists { .. } => "table_exists",
            Self::Schema(_) => "schema",
            Self::TooLarge { .. } => "too_large",
            Self::ReadOnly => "read_only",
            Self::Deposed(_) => "deposed",
            Self::NotHeld { .. } => "not_held",
            Self::Partial { .. } => "partial",
            Self::HandingOver => "handing_over",
            Self::TokenReused => "token_reused",
            Self::SnapshotTooOld(_) => "snapshot_too_old",
            Self::Gap { .. } => "gap",
            Self::Invalid(_) => "invalid",
            Self::NotHere { .. } => "not_here",
            Self::Closed => "closed",
        }
    }

    /// Wraps an answer of the operating system; a full disk gets its own variant.
    pub(crate) fn io(what: &'static str, path: &Path, source: io::Error) -> Self {
        if source.kind() == io::ErrorKind::StorageFull {
            return Self::NoSpace { path: path.to_path_buf(), what };
        }
        if let Some(absent) = source.get_ref().and_then(|source| source.downcast_ref::<Absent>()) {
            let (offset, why) = (absent.offset, absent.why.clone());
            return Self::NotHere { path: path.to_path_buf(), offset, why };
        }
        Self::Io { what, path: path.to_path_buf(), source: std::sync::Arc::new(source) }
    }

    /// Damage in a file.
    pub(crate) fn damaged(path: &Path, offset: u64, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_path_buf(), offset, what: what.into() }
    }
}
