use bytes::Bytes;
use planaria_types::Uid;

use crate::error::Result;

/// What a version of a record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum RecordKind {
    /// The record exists and has a row.
    Put = 0,
    /// The record does not exist: a delete mark.
    Delete = 1,
    /// Every record of a key range did not exist at this UID. Reserved: the formats carry it, nothing writes it yet.
    RangeDelete = 2,
}

impl RecordKind {
    /// The kind that `byte` stands for in files and on the wire.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Put),
            1 => Some(Self::Delete),
            2 => Some(Self::RangeDelete),
            _ => None,
        }
    }
}

/// One version of a record, owned and cheap to clone.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Version {
    /// The commit that wrote it.
    pub uid: Uid,
    /// Put or delete.
    pub kind: RecordKind,
    /// The row; empty for a delete.
    pub row: Bytes,
}

/// A position within a sorted set of record versions: a memtable, a run, or a merge of several.
///
/// Versions are ordered by key, ascending, then by UID, **descending**: the newest version of a key comes first.
/// `key`, `uid`, `kind` and `row` may be called only while `is_valid`. After an error the cursor is not valid.
pub(crate) trait Cursor {
    /// Whether the cursor stands on a version.
    fn is_valid(&self) -> bool;
    /// The key.
    fn key(&self) -> &[u8];
    /// The UID.
    fn uid(&self) -> Uid;
    /// Put or delete.
    fn kind(&self) -> RecordKind;
    /// The row, owned: a reference into a shared block where there is one, a copy otherwise.
    fn row(&self) -> Bytes;
    /// The row, borrowed for as long as the cursor stays.
    fn row_ref(&self) -> &[u8];
    /// Goes to the first version of all.
    fn seek_to_first(&mut self) -> Result<()>;
    /// Goes to the last version of all.
    fn seek_to_last(&mut self) -> Result<()>;
    /// Goes to the first version at or after (key, uid) in the order above: the newest version of `key` whose UID is
    /// at or below `uid`, else the newest of the next key.
    fn seek(&mut self, key: &[u8], uid: Uid) -> Result<()>;
    /// Goes to the last version before every version of `key`: the oldest version of the key below.
    fn seek_before(&mut self, key: &[u8]) -> Result<()>;
    /// Goes one version on.
    fn next(&mut self) -> Result<()>;
    /// Goes one version back.
    fn prev(&mut self) -> Result<()>;
}
