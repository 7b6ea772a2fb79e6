use std::fmt;

use bytes::Bytes;
use planaria_types::{HistoryHash, KeyRange, TableId, Uid};
use serde::{Deserialize, Serialize};

use crate::shared;

/// One commit as the live stream carries it: opaque bytes between two names.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// The commit's UID.
    pub uid: Uid,
    /// The UID of the commit right before it in the group; [`Uid::ZERO`] for the first. A receiver that has anything
    /// else as its last commit has missed something.
    pub predecessor: Uid,
    /// The group's running history hash after this commit.
    pub hash: HistoryHash,
    /// The records, as the engine encodes them.
    pub bytes: Bytes,
}

impl Commit {
    /// What a commit weighs in windows and buffers: its bytes and a flat charge for its head.
    pub fn weight(&self) -> u64 {
        self.bytes.len() as u64 + 48
    }
}

impl fmt::Debug for Commit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Commit({} after {}, {} bytes)", self.uid, self.predecessor, self.bytes.len())
    }
}

/// What a record does to its key.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RecordKind {
    /// The key has this row.
    Put,
    /// The key was deleted: a delete mark.
    Delete,
    /// All keys from the record's key up to, but without, this one were deleted; `None` has no upper limit.
    RangeDelete(Option<Bytes>),
    /// Nothing is known of the key at the snapshot, not even a mark. Only in answers to a rewind.
    Absent,
    /// Nothing of the key range is known beside the records that came before in the answer. Only in answers to a
    /// rewind; the range runs as in `RangeDelete`.
    RangeAbsent(Option<Bytes>),
}

/// The newest version of a key, as a delta or a rewind carries it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The table or index.
    pub table: TableId,
    /// The encoded key; the start of the range for the range kinds.
    #[serde(deserialize_with = "shared::deserialize")]
    pub key: Bytes,
    /// The commit that wrote this version; [`Uid::ZERO`] for the absent kinds.
    pub uid: Uid,
    /// What the version does.
    pub kind: RecordKind,
    /// The encoded row of a put, else empty.
    #[serde(deserialize_with = "shared::deserialize")]
    pub row: Bytes,
}

impl Record {
    /// What a record weighs in windows and buffers, in bytes.
    pub fn weight(&self) -> u64 {
        self.key.len() as u64 + self.row.len() as u64 + 32
    }

    /// The record that takes the place of one too new for the base of a refresh in an answer to a rewind: it clears
    /// what the copy holds of the key, and the live stream brings the version itself.
    #[must_use]
    pub(crate) fn cleared(self) -> Self {
        let kind = match self.kind {
            RecordKind::RangeDelete(end) | RecordKind::RangeAbsent(end) => RecordKind::RangeAbsent(end),
            RecordKind::Put | RecordKind::Delete | RecordKind::Absent => RecordKind::Absent,
        };
        Self { uid: Uid::ZERO, kind, row: Bytes::new(), ..self }
    }
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Record({}/{} {} {:?})", self.table, self.key.escape_ascii(), self.uid, self.kind)
    }
}

/// Something that a rewind asks the newest state of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RewindItem {
    /// One key.
    Key(TableId, Bytes),
    /// All keys of a range, because the copy deleted it beyond the fork.
    Range(TableId, KeyRange),
}

impl RewindItem {
    /// What an item weighs in a request, in bytes.
    pub fn weight(&self) -> u64 {
        let keys = match self {
            Self::Key(_, key) => key.len(),
            Self::Range(_, range) => range.start.len() + range.end.as_ref().map_or(0, Vec::len),
        };
        keys as u64 + 16
    }
}
