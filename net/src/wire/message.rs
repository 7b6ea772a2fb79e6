//! The messages of the client protocol, and the greeting that opens every connection.
//!
//! Bodies are encoded by postcard: variants by their place, fields in order. New variants and new optional messages go
//! to the end; a change of an existing one needs a new version in [`Hello`].

use std::fmt;
use std::net::SocketAddr;

use bytes::Bytes;
use planaria_replication::{Span, Tiling};
use planaria_types::{
    DatabaseId, Epoch, Fingerprint, GroupId, History, HistoryHash, InstanceId, KeyRange, Portion, Uid,
};
use serde::{Deserialize, Serialize};

pub use super::clones::{AsOf, CloneAction, CloneInfo, CloneRole, CloneSpec, CloneTake, Shape};
use super::control::{ControlRequest, ControlResponse};
use super::limits::{LIST_MAX, OPS_MAX, bounded};
pub use super::operations::{
    ExtractInfo, ExtractRecord, Promised, Promotion, PromotionWish, RefreshInfo, ReplicaAction,
};

/// The oldest version of the protocol that is understood.
pub const VERSION_MIN: u16 = 1;
/// The newest version of the protocol that is understood.
pub const VERSION_MAX: u16 = 1;

/// The greeting: which versions and optional features a side has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The oldest version that it understands.
    pub version_min: u16,
    /// The newest version that it understands.
    pub version_max: u16,
    /// Optional features, a bit each. Unknown bits are ignored.
    pub features: u64,
    /// The software and its version, for people.
    pub software: String,
}

impl Hello {
    /// The greeting of this build.
    pub fn ours() -> Self {
        Self {
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            features: 0,
            software: concat!("planaria ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }

    /// The version and the features that both have; `None` if there is no common version.
    pub fn agree(&self, other: &Self) -> Option<(u16, u64)> {
        let version = self.version_max.min(other.version_max);
        (version >= self.version_min.max(other.version_min))
            .then_some((version, self.features & other.features))
    }
}

/// How many durable copies a commit waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum Level {
    /// What the database prescribes.
    #[default]
    Database,
    /// The primary's own.
    Local,
    /// One more than the primary's.
    One,
    /// A majority of the promotable copies.
    Quorum,
    /// All promotable copies.
    All,
}

/// How a commit is made.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct WriteOptions {
    /// Whether the answer waits for durability at `level`; otherwise the commit becomes durable in the background.
    pub durable: bool,
    /// How many durable copies it waits for.
    pub level: Level,
    /// After this many milliseconds the answer is "unknown"; 0 waits as long as the node sees fit.
    pub timeout_ms: u32,
    /// Makes a retry safe: a commit with the same token is made once.
    pub token: Option<u128>,
}

/// One operation of a batch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum WriteOp {
    /// Sets a row.
    Put {
        /// The table.
        table: String,
        /// The key.
        key: Bytes,
        /// The row.
        value: Bytes,
    },
    /// Deletes a row.
    Delete {
        /// The table.
        table: String,
        /// The key.
        key: Bytes,
    },
    /// Deletes the rows of a range.
    DeleteRange {
        /// The table.
        table: String,
        /// The keys.
        range: KeyRange,
    },
}

/// Which rows a scan returns, and as of when.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScanSpec {
    /// The table.
    pub table: String,
    /// The keys.
    pub range: KeyRange,
    /// Whether from the greatest key down.
    pub reverse: bool,
    /// The greatest number of rows.
    pub limit: Option<u64>,
    /// The cut; the newest if none.
    pub at: Option<Uid>,
}

/// A request with what holds for every request.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Call {
    /// The database by name or id; none where the node hosts one.
    pub database: Option<String>,
    /// What is asked.
    pub request: Request,
}

/// What a client asks. The answer is named in brackets.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Request {
    /// Nothing \[`Done`\].
    Ping,
    /// How the node is \[`Status`\].
    Status,
    /// The tables \[`Tables`\].
    TableList,
    /// One table \[`Table`\].
    TableShow {
        /// Its name.
        name: String,
    },
    /// Makes a table \[`Table`\].
    TableCreate {
        /// Its name.
        name: String,
        /// Its definition, in the engine's encoding; empty for raw bytes to bytes.
        definition: Bytes,
    },
    /// Deletes a table with its rows \[`Done`\].
    TableDrop {
        /// Its name.
        name: String,
    },
    /// One row \[`Row`\].
    Get {
        /// The table.
        table: String,
        /// The key.
        key: Bytes,
        /// The cut; the newest if none.
        at: Option<Uid>,
    },
    /// One commit \[`Committed`\].
    Write {
        /// What it does.
        #[serde(deserialize_with = "bounded::<_, _, OPS_MAX>")]
        ops: Vec<WriteOp>,
        /// How it is made.
        options: WriteOptions,
    },
    /// Many rows \[batches of rows, then `Scanned`\].
    Scan(ScanSpec),
    /// Takes batches of rows from the client \[acknowledgements, then `Imported`\].
    Import {
        /// The table.
        table: String,
        /// How each batch is committed.
        options: WriteOptions,
    },
    /// Fingerprints over decoded rows \[`Digests`\].
    Digest {
        /// The tables; all if empty.
        #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
        tables: Vec<String>,
        /// The cut; the newest if none.
        at: Option<Uid>,
    },
    /// Reads and checks every block \[`Verified`\].
    Verify,
    /// The copies that follow \[`Replicas`\].
    ReplicaList,
    /// Makes a clone \[`Clone`\].
    CloneCreate(CloneSpec),
    /// The clones \[`Clones`\].
    CloneList,
    /// One clone \[`Clone`\].
    CloneShow {
        /// Its name.
        name: String,
    },
    /// Does something with a clone \[`Clone`\].
    CloneDo {
        /// Its name.
        name: String,
        /// What is done.
        action: CloneAction,
    },
    /// Does something with a secondary \[`Replicas`: what there is afterwards\].
    ReplicaDo {
        /// Its name or instance.
        name: String,
        /// What is done.
        action: ReplicaAction,
    },
    /// What was taken back here and is kept \[`Extracts`\].
    ExtractList,
    /// Some records of an extract \[`ExtractPart`\].
    ExtractRead {
        /// Its name.
        name: String,
        /// Where to go on; none for the beginning.
        at: Option<u64>,
    },
    /// Removes an extract \[`Done`\].
    ExtractDrop {
        /// Its name.
        name: String,
    },
    /// Waits until reads show a commit, or are not older than a bound \[`Done`\].
    Await {
        /// The commit.
        after: Option<Uid>,
        /// The epoch under which it was written, where that matters.
        epoch: Option<Epoch>,
        /// How old what reads show may be, in milliseconds.
        staleness_max_ms: Option<u64>,
        /// Gives up after so many milliseconds; 0 waits as long as the node sees fit.
        timeout_ms: u32,
    },
    /// Makes a secondary the primary \[`Promotion`\].
    Promote(PromotionWish),
    /// Promises, durably, to follow no older epoch, and follows the node that asks \[`Promised`\].
    Promise {
        /// The epoch.
        epoch: Epoch,
        /// The port on which the node that begins it listens. Its host is the one that it speaks from.
        port: u16,
    },
    /// Stops taking updates, for the good of a successor \[`HandedOver` once it has all of them\].
    HandOver {
        /// The successor.
        to: InstanceId,
    },
    /// Follows another primary \[`Done`\].
    Follow {
        /// Its address.
        primary: SocketAddr,
    },
    /// Refreshes a secondary, or tells what that would take \[`Refresh`\].
    ReplicaRefresh {
        /// Only tell.
        dry_run: bool,
        /// The way: `tail`, `delta`, `reconcile` or `bulk`; the cheapest if none. Another is taken, with its reason, if
        /// this one does not lead to the primary's state.
        way: Option<String>,
    },
    /// Asks a primary what the refresh of a copy would take \[`Refresh`\].
    RefreshPlan {
        /// The copy's history.
        history: History,
        /// Its last durable commit.
        durable: Uid,
        /// The history hash there.
        hash: HistoryHash,
        /// The way, as in `ReplicaRefresh`.
        way: Option<String>,
        /// What it is to hold, if it is partial.
        portion: Option<Portion>,
    },
    /// The fingerprints of the parts of some spans \[`Parts`\].
    Compare {
        /// The cut; the newest if none.
        at: Option<Uid>,
        /// The spans; all tables if empty.
        #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
        spans: Vec<Span>,
        /// Into how many parts each is cut, at most.
        parts: u32,
    },
    /// The keys of the records of a span \[`Keys`\].
    SpanKeys {
        /// The cut.
        at: Uid,
        /// The span.
        span: Span,
    },
    /// Confirms, through a majority of the promotable copies, that this node still leads, and that what it has shown
    /// until now cannot be lost with it \[`Done`\].
    Confirm {
        /// Gives up after so many milliseconds; 0 waits as long as the node sees fit.
        timeout_ms: u32,
    },
    /// The rows of many keys of one table \[`Found`\].
    GetMany {
        /// The table.
        table: String,
        /// The keys.
        #[serde(deserialize_with = "bounded::<_, _, OPS_MAX>")]
        keys: Vec<Bytes>,
        /// The cut; the newest if none.
        at: Option<Uid>,
    },
    /// Something of the control center \[`Control`\].
    Control(Box<ControlRequest>),
    /// Takes a clone of another node's database, in the background \[`Clone`\].
    CloneTake(Box<CloneTake>),
    /// Takes updates again: the successor that asked for the lead does not take it \[`Done`\].
    HandBack {
        /// The successor.
        from: InstanceId,
    },
}

impl Request {
    /// Whether it is about who leads: it must not wait until clients have been served.
    pub fn is_urgent(&self) -> bool {
        matches!(
            self,
            Self::Ping | Self::Status | Self::Promise { .. } | Self::HandOver { .. } | Self::HandBack { .. }
        )
    }

    /// Whether one copy asks another one for the lead: no operator does.
    pub fn takes_the_lead(&self) -> bool {
        matches!(self, Self::Promise { .. } | Self::HandOver { .. } | Self::HandBack { .. })
    }

    /// Whether it takes the role control rather than client.
    pub fn needs_control(&self) -> bool {
        if let Self::Control(request) = self {
            return request.needs_control();
        }
        matches!(
            self,
            Self::CloneCreate(_)
                | Self::CloneTake(_)
                | Self::CloneDo { .. }
                | Self::ReplicaDo { .. }
                | Self::ExtractDrop { .. }
                | Self::Promote(_)
                | Self::Promise { .. }
                | Self::HandOver { .. }
                | Self::HandBack { .. }
                | Self::Follow { .. }
                | Self::ReplicaRefresh { dry_run: false, .. }
        )
    }
}

/// What a node hosts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// Its software and version.
    pub software: String,
    /// Its databases.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub databases: Vec<DatabaseStatus>,
}

/// One group of one database on one node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DatabaseStatus {
    /// The database's name.
    pub name: String,
    /// Its id.
    pub database: DatabaseId,
    /// This copy.
    pub instance: InstanceId,
    /// The group.
    pub group: GroupId,
    /// `primary`, or the state of the secondary: `online`, `stale`, `refreshing`.
    pub state: String,
    /// The epoch that it follows.
    pub epoch: Epoch,
    /// The visible cut.
    pub visible: Uid,
    /// What is durable here.
    pub durable: Uid,
    /// The stable UID.
    pub stable: Uid,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// The newest epoch that it has promised to follow.
    pub promised: Epoch,
    /// The epoch under which `durable` was written.
    pub position_epoch: Epoch,
    /// The level that the database prescribes.
    pub level: String,
    /// The address of the primary that is followed, or that leads instead, if that is known.
    pub primary: String,
    /// What an operator should know of: what was given up, what will expire.
    #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
    pub notices: Vec<String>,
    /// The last refresh of a secondary, if there was one since the node started.
    pub refresh: Option<RefreshInfo>,
    /// What it holds, if it is a partial copy.
    pub portion: Option<Portion>,
    /// How far what a secondary shows is behind what whom it follows had when it told last, in milliseconds of update time; how
    /// far it may be behind where that one is not heard.
    pub lag_ms: Option<u64>,
    /// How many copies commits come through, the primary included, as whom a secondary follows said last: 1 where it follows
    /// the primary itself.
    pub depth: u32,
    /// What became of the siblings that a secondary is to be refreshed from, for people.
    pub refreshed: String,
}

/// One table.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct TableInfo {
    /// Its name.
    pub name: String,
    /// Its definition, in the engine's encoding.
    pub definition: Bytes,
    /// Rows, where known without counting.
    pub rows: Option<u64>,
    /// Bytes on disk.
    pub disk_bytes: u64,
    /// Its fragments.
    pub fragments: u32,
}

/// One registered secondary.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReplicaInfo {
    /// The copy.
    pub instance: InstanceId,
    /// Its node, by name.
    pub node: String,
    /// Where its node listens, if it told.
    pub address: String,
    /// `online`, `refreshing`, `paused` or `offline`.
    pub state: String,
    /// Whether it may be promoted.
    pub promotable: bool,
    /// Its durable position.
    pub durable: Uid,
    /// The cut that it shows, as far as known.
    pub visible: Uid,
    /// How far it is behind, in milliseconds.
    pub lag_ms: u64,
    /// How far it is behind in commits, where that is known.
    pub lag_commits: Option<u64>,
    /// How many bytes would bring it up to date, about.
    pub lag_bytes: u64,
    /// Bytes of delete marks that are preserved for it, about.
    pub preserved_bytes: u64,
    /// For how long they are, in milliseconds.
    pub preserved_age_ms: u64,
    /// Why nothing is preserved for it any more, or empty.
    pub given_up: String,
    /// The way of its last refresh since its primary started, or empty.
    pub way: String,
    /// The code of the reason for that way, or empty.
    pub reason: String,
    /// Records that it was sent since then.
    pub moved_records: u64,
    /// Commits that it was sent since then.
    pub moved_commits: u64,
    /// Bytes of both.
    pub moved_bytes: u64,
    /// What it holds, if it is partial, or empty.
    pub holds: String,
}

/// What a node answers.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Response {
    /// It is done.
    Done,
    /// How the node is.
    Status(Status),
    /// The tables.
    Tables(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<TableInfo>),
    /// One table.
    Table(TableInfo),
    /// One row, or that there is none.
    Row(Option<(Uid, Bytes)>),
    /// The commit and whether it is durable at its level.
    Committed {
        /// Its UID.
        uid: Uid,
        /// The epoch under which it was written: with the UID, the position that later reads may ask for.
        epoch: Epoch,
        /// Whether it had been made before, under the same token.
        again: bool,
        /// False if durability was not asked for.
        durable: bool,
    },
    /// The end of a scan.
    Scanned {
        /// The cut that was read.
        at: Uid,
        /// The number of rows.
        rows: u64,
        /// Where to go on if a limit ended the scan.
        next_key: Option<Bytes>,
    },
    /// The end of an import.
    Imported {
        /// The UID of the last commit.
        uid: Uid,
        /// The epoch under which it was written.
        epoch: Epoch,
        /// The number of rows.
        rows: u64,
    },
    /// Fingerprints by table.
    Digests {
        /// The cut.
        at: Uid,
        /// Table and fingerprint.
        #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
        tables: Vec<(String, Fingerprint)>,
    },
    /// What a check found.
    Verified {
        /// Bytes that were read.
        bytes: u64,
        /// What is damaged; empty if nothing is.
        #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
        damage: Vec<String>,
    },
    /// The copies that follow.
    Replicas(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<ReplicaInfo>),
    /// The clones.
    Clones(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<CloneInfo>),
    /// One clone.
    Clone(CloneInfo),
    /// The extracts, oldest first.
    Extracts(#[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")] Vec<ExtractInfo>),
    /// Some records of an extract, in (table, key) order.
    ExtractPart {
        /// The records.
        #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
        records: Vec<ExtractRecord>,
        /// Where the next part begins; none after the last.
        next: Option<u64>,
    },
    /// What a promotion found, and did.
    Promotion(Promotion),
    /// What was promised.
    Promised(Promised),
    /// The lead may be taken: the successor has everything.
    HandedOver {
        /// The last commit of the old primary.
        end: Uid,
    },
    /// A refresh that was begun, or what it would take.
    Refresh(RefreshInfo),
    /// Fingerprints of parts.
    Parts {
        /// The cut.
        at: Uid,
        /// A tiling for each span; for each table, if none was named.
        #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
        tilings: Vec<Tiling>,
    },
    /// Keys of records with their UIDs and the hashes of their rows, in order.
    Keys {
        /// The keys.
        #[serde(deserialize_with = "bounded::<_, _, LIST_MAX>")]
        keys: Vec<(Bytes, Uid, [u8; 8])>,
        /// Whether there are more than one answer holds.
        more: bool,
    },
    /// What is under the keys that were asked for, from the first one on: as much as fits into one answer, and at least
    /// one.
    Found(#[serde(deserialize_with = "bounded::<_, _, OPS_MAX>")] Vec<Option<(Uid, Bytes)>>),
    /// What the control center answers.
    Control(Box<ControlResponse>),
}

/// What an import has taken so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ack {
    /// Batches.
    pub batches: u64,
    /// Rows.
    pub rows: u64,
}

/// A request that failed: a stable code for programs, and for people what happened, why, and what to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RemoteError {
    /// A stable code.
    pub code: String,
    /// What happened.
    pub what: String,
    /// Why; may be empty.
    pub why: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl RemoteError {
    /// An error that needs no further words.
    pub fn new(code: &str, what: impl Into<String>) -> Self {
        Self { code: code.to_owned(), what: what.into(), why: String::new(), hint: String::new() }
    }

    /// The same, with a word on what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: &str) -> Self {
        hint.clone_into(&mut self.hint);
        self
    }

    /// The client went away, or the node is shutting down.
    pub fn cancelled() -> Self {
        Self::new("cancelled", "the call was cancelled")
    }

    /// Cuts the texts so that the error fits its frame.
    #[must_use]
    pub(crate) fn cut(mut self) -> Self {
        for text in [&mut self.code, &mut self.what, &mut self.why, &mut self.hint] {
            if text.len() > 8 << 10 {
                text.truncate(text.floor_char_boundary(8 << 10));
            }
        }
        self
    }
}

impl fmt::Display for RemoteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for more in [&self.why, &self.hint].into_iter().filter(|text| !text.is_empty()) {
            write!(f, ". {more}")?;
        }
        Ok(())
    }
}

impl std::error::Error for RemoteError {}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
