//! Where a command works: on a database in a directory of this machine, or on a node.
//!
//! [`Session`] is all that commands know of either, so that every command works on both. What it speaks of are the
//! words of the client protocol.

mod local;
mod remote;
#[cfg(test)]
pub(crate) mod testing;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use planaria_engine::{Schema, TableDef};
use planaria_net::wire::message::{
    CloneInfo, DatabaseStatus, ExtractInfo, ExtractRecord, Level, Promotion, PromotionWish, RefreshInfo,
    ReplicaAction, ReplicaInfo, ScanSpec, Shape,
};
use planaria_replication::{Span, Tiling};
use planaria_types::{Fingerprint, Position, Uid};

use crate::compare::KeySum;
use crate::handler::reads::Wanted;
use crate::output::CliError;

pub(crate) use local::LocalSession;
pub(crate) use remote::{RemoteSession, resolve};

/// Where a command works.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// A directory with a database in it.
    Directory(PathBuf),
    /// A node.
    Node {
        /// Its address: host and port.
        address: String,
        /// The directory with the certificates; the user's own if none is named.
        tls: Option<PathBuf>,
        /// What of it is meant, if not its own database: a clone that comes in, by its name.
        database: Option<String>,
    },
    /// A database of a cluster, at whoever leads it.
    Cluster {
        /// The address of the control center: host and port.
        center: String,
        /// The database by name or id; the only one if none is named.
        database: Option<String>,
        /// See [`Place::Node`].
        tls: Option<PathBuf>,
    },
}

/// What to do where there is no database in a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum IfAbsent {
    /// Fail: the command reads, or changes what must be there.
    Fail,
    /// Make one.
    Create,
}

impl Place {
    /// Opens the directory or connects to the node. The database of a node or a cluster is always there.
    pub(crate) fn open(&self, if_absent: IfAbsent) -> Result<Box<dyn Session>, CliError> {
        Ok(match self {
            Self::Directory(path) => Box::new(LocalSession::open(path, if_absent)?),
            Self::Node { address, tls, database } => {
                let session = RemoteSession::connect(address, tls.as_deref())?;
                Box::new(session.of_database(database.as_deref()))
            }
            Self::Cluster { center, database, tls } => {
                Box::new(RemoteSession::route(center, database.as_deref(), tls.as_deref())?)
            }
        })
    }

    /// The node that leads in place of its cluster, for what is done with one node from beginning to end.
    pub(crate) fn settled(self) -> Result<Self, CliError> {
        match self {
            Self::Cluster { ref tls, .. } => {
                Ok(Self::Node { address: self.address()?.to_string(), tls: tls.clone(), database: None })
            }
            place => Ok(place),
        }
    }

    /// The address of the node, or of the one that leads. Fails with `usage` for a directory.
    pub(crate) fn address(&self) -> Result<SocketAddr, CliError> {
        match self {
            Self::Directory(_) => Err(CliError::usage("a directory has no address")),
            Self::Node { address, .. } => resolve(address),
            Self::Cluster { center, database, tls } => {
                RemoteSession::route(center, database.as_deref(), tls.as_deref())?.leader()
            }
        }
    }

    /// How the place is named on the command line, for hints.
    pub(crate) fn argument(&self) -> String {
        match self {
            Self::Directory(path) => shell_word(path),
            Self::Node { address, .. } => format!("--node {address}"),
            Self::Cluster { center, database: None, .. } => format!("--cluster {center}"),
            Self::Cluster { center, database: Some(database), .. } => {
                format!("--cluster {center}/{database}")
            }
        }
    }
}

fn shell_word(path: &Path) -> String {
    path.display().to_string()
}

/// A table and its size.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TableSummary {
    /// Its definition. The id in it is that of the database, whichever it is.
    pub(crate) definition: TableDef,
    /// Bytes of its run files on disk; what is in memory only is not counted.
    pub(crate) disk_bytes: u64,
    /// Its fragments.
    pub(crate) fragments: u64,
}

/// A key and a row, as they are stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct StoredRow {
    /// The key.
    pub(crate) key: Bytes,
    /// The row.
    pub(crate) row: Bytes,
}

/// How writes are made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct WriteChoice {
    /// How many durable copies they wait for.
    pub(crate) level: Level,
    /// For how long, in milliseconds; 0 leaves it to the node.
    pub(crate) timeout_ms: u32,
    /// What makes the next write one and the same as an earlier one; a new one for each if none is given.
    pub(crate) token: Option<u128>,
}

/// A commit that was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Commit {
    /// Where it stands: what later reads may ask for.
    pub(crate) position: Position,
    /// Whether it had been made before, under the same token.
    pub(crate) again: bool,
}

/// What happens to a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RowChange {
    /// The key.
    pub(crate) key: Bytes,
    /// The row that it gets; none deletes it.
    pub(crate) row: Option<Bytes>,
}

/// What a verification has read, where the place tells it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Verification {
    /// Bytes of run files.
    pub(crate) bytes: u64,
    /// Run files.
    pub(crate) files: Option<u64>,
    /// Live records.
    pub(crate) records: Option<u64>,
    /// What is damaged; nothing if all is sound.
    pub(crate) damage: Vec<String>,
}

/// What a place hosts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct PlaceStatus {
    /// The directory, or the node by its own name.
    pub(crate) place: String,
    /// The software and its version.
    pub(crate) software: String,
    /// The databases.
    pub(crate) databases: Vec<DatabaseStatus>,
}

/// What sees the rows of a scan; `false` ends it.
pub(crate) type Visitor<'a> = dyn FnMut(&[u8], &[u8]) -> Result<bool, CliError> + 'a;

/// A database that commands work on.
///
/// Keys and rows are the encoded bytes of the table's definition. Writes are durable when a call returns, except those
/// of an [`Appender`], which are so when it is finished.
pub(crate) trait Session {
    /// What there is.
    fn status(&self) -> Result<PlaceStatus, CliError>;

    /// The tables, by name.
    fn tables(&self) -> Result<Vec<TableSummary>, CliError>;

    /// The table of that name; fails with `unknown_table`.
    fn table(&self, name: &str) -> Result<TableSummary, CliError>;

    /// Makes a table: of typed columns, or of bytes. Fails with `table_exists`.
    fn create_table(&self, name: &str, schema: Option<Schema>) -> Result<TableSummary, CliError>;

    /// The row of a key.
    fn get(&self, table: &TableSummary, key: &[u8]) -> Result<Option<Bytes>, CliError>;

    /// The rows of many keys, in their order, and the commits that wrote them. No consistent view: whoever needs one is
    /// the only writer.
    fn find_many(&self, table: &TableSummary, keys: &[&[u8]]) -> Result<Vec<Option<(Uid, Bytes)>>, CliError>;

    /// As [`Session::find_many`], the rows alone.
    fn get_many(&self, table: &TableSummary, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, CliError> {
        Ok(self.find_many(table, keys)?.into_iter().map(|found| found.map(|(_, row)| row)).collect())
    }

    /// How writes are made from now on.
    fn set_write_choice(&mut self, choice: WriteChoice) -> Result<(), CliError>;

    /// Waits until reads show what is asked for.
    fn wait_for(&self, wanted: &Wanted) -> Result<(), CliError>;

    /// Has the place confirm that what was read of it so far is the newest, and will not be lost.
    fn confirm(&self, timeout_ms: u32) -> Result<(), CliError>;

    /// Writes and deletes rows in one commit; the last word about a key counts.
    fn write(&self, table: &TableSummary, changes: Vec<RowChange>) -> Result<Commit, CliError>;

    /// Writes a row, over an existing one if there is one.
    fn put(&self, table: &TableSummary, row: StoredRow) -> Result<Commit, CliError> {
        self.write(table, vec![RowChange { key: row.key, row: Some(row.row) }])
    }

    /// Deletes a row.
    fn delete(&self, table: &TableSummary, key: &[u8]) -> Result<Commit, CliError> {
        self.write(table, vec![RowChange { key: Bytes::copy_from_slice(key), row: None }])
    }

    /// Shows the rows of a scan, in its order.
    fn scan(&self, scan: ScanSpec, visit: &mut Visitor<'_>) -> Result<(), CliError>;

    /// Begins to write many rows.
    fn append(&self, table: &TableSummary) -> Result<Box<dyn Appender + '_>, CliError>;

    /// The digests of the named tables, or of all.
    fn digests(&self, tables: &[String]) -> Result<Vec<(String, Fingerprint)>, CliError>;

    /// Reads and checks everything.
    fn verify(&self) -> Result<Verification, CliError>;

    /// The secondaries.
    fn replicas(&self) -> Result<Vec<ReplicaInfo>, CliError>;

    /// Does something with the secondary of that name or instance; gives those that there are afterwards.
    fn replica_do(&self, named: &str, action: ReplicaAction) -> Result<Vec<ReplicaInfo>, CliError>;

    /// Makes the place the primary.
    fn promote(&self, wish: PromotionWish) -> Result<Promotion, CliError>;

    /// Has the place follow another primary.
    fn follow(&self, primary: SocketAddr) -> Result<(), CliError>;

    /// Tells what a refresh of a secondary would take and, unless only that is asked for, begins it.
    fn refresh(&self, dry_run: bool, way: Option<&str>) -> Result<RefreshInfo, CliError>;

    /// At most so many parts of each span, of all tables if none is named, with their fingerprints, and the cut that was
    /// read: the newest if none is asked for.
    fn parts(&self, at: Option<Uid>, spans: &[Span], parts: u32) -> Result<(Uid, Vec<Tiling>), CliError>;

    /// The records of a span by key and hash, and whether there are more than are told.
    fn keys(&self, at: Uid, span: &Span) -> Result<(Vec<KeySum>, bool), CliError>;

    /// The clones that were taken.
    fn clones(&self) -> Result<Vec<CloneInfo>, CliError>;

    /// What was taken back here and is kept, oldest first.
    fn extracts(&self) -> Result<Vec<ExtractInfo>, CliError>;

    /// A part of an extract, from its beginning or from where the part before ended, and where the next one begins.
    fn read_extract(
        &self,
        name: &str,
        at: Option<u64>,
    ) -> Result<(Vec<ExtractRecord>, Option<u64>), CliError>;

    /// Removes an extract.
    fn drop_extract(&self, name: &str) -> Result<(), CliError>;

    /// Makes a clone on the disk of the place, or of what a shape leaves of it.
    fn clone_locally(&self, target: &Path, shape: Shape) -> Result<CloneInfo, CliError>;
}

/// Writes many rows, portion by portion, over existing ones where there are some.
///
/// The order of calls: [`Appender::push`] any number of times, [`Appender::settle`] where what was pushed is to be
/// read, [`Appender::finish`] at the end, also after a failure of something else: what was pushed stays.
pub(crate) trait Appender {
    /// Writes a portion. After an error none or all of it may be there.
    fn push(&mut self, rows: Vec<StoredRow>) -> Result<(), CliError>;

    /// Waits until what was pushed can be read.
    fn settle(&mut self) -> Result<(), CliError>;

    /// Makes what was pushed durable.
    fn finish(&mut self) -> Result<(), CliError>;

    /// The number of rows that are known to be taken, of those pushed.
    fn taken(&self) -> u64;
}
