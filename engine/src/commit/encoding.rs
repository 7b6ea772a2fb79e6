//! The encoding of a commit: the same bytes in the log, in the live stream and under the history hash.
//!
//! ```text
//! commit := version u8 (1) | group u32 | uid u64 | prev u64 | ops u32 | op * ops
//! op     := kind u8 | table varint | key length varint | key | [row length varint | row, for a put]
//! ```
//!
//! Integers are little-endian, varints LEB128. `prev` is the UID of the commit before, as it was sent. Operations are
//! in (table, key) order, one per record.

use std::ops::Range;

use bytes::Bytes;
use planaria_types::{GroupId, TableId, Uid};

use super::batch::{MAX_KEY_BYTES, MAX_ROW_BYTES};
use crate::cursor::RecordKind;
use crate::error::{Error, Result};

const FORMAT_VERSION: u8 = 1;
/// Bytes in front of the operations.
pub(super) const HEADER_BYTES: usize = 1 + 4 + 8 + 8 + 4;
const UID_AT: usize = 5;
const PREV_AT: usize = 13;
const OPS_AT: usize = 21;
/// Kind, table and two lengths take at most this.
const OP_OVERHEAD_MAX: usize = 1 + 5 + 5 + 5;
/// The group of every commit, as long as a database has one.
const GROUP: GroupId = GroupId(1);

/// What stands in front of the operations.
pub(super) struct CommitHeader {
    pub(super) uid: Uid,
    pub(super) prev: Uid,
    pub(super) ops: u32,
}

impl CommitHeader {
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.push(FORMAT_VERSION);
        out.extend_from_slice(&GROUP.0.to_le_bytes());
        out.extend_from_slice(&self.uid.get().to_le_bytes());
        out.extend_from_slice(&self.prev.get().to_le_bytes());
        out.extend_from_slice(&self.ops.to_le_bytes());
    }
}

/// Names an encoded commit: fills in the UID that it got and that of its predecessor.
pub(super) fn set_uids(encoded: &mut [u8], uid: Uid, prev: Uid) {
    if let Some(place) = encoded.get_mut(UID_AT..UID_AT + 8) {
        place.copy_from_slice(&uid.get().to_le_bytes());
    }
    if let Some(place) = encoded.get_mut(PREV_AT..PREV_AT + 8) {
        place.copy_from_slice(&prev.get().to_le_bytes());
    }
}

/// States how many operations an encoded commit has.
pub(super) fn set_ops(encoded: &mut [u8], ops: u32) {
    if let Some(place) = encoded.get_mut(OPS_AT..OPS_AT + 4) {
        place.copy_from_slice(&ops.to_le_bytes());
    }
}

/// Appends an operation and says where its key lies.
pub(super) fn write_op(
    out: &mut Vec<u8>,
    table: TableId,
    key: &[u8],
    kind: RecordKind,
    row: &[u8],
) -> Range<usize> {
    out.reserve(OP_OVERHEAD_MAX + key.len() + row.len());
    out.push(kind as u8);
    write_varint(out, u64::from(table.0));
    write_varint(out, key.len() as u64);
    let key_start = out.len();
    out.extend_from_slice(key);
    let key_end = out.len();
    if kind == RecordKind::Put {
        write_varint(out, row.len() as u64);
        out.extend_from_slice(row);
    }
    key_start..key_end
}

fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn read_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..35).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(head)
}

/// One put or delete of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CommitOp<'a> {
    /// The table.
    pub table: TableId,
    /// The key.
    pub key: &'a [u8],
    /// Put or delete.
    pub kind: RecordKind,
    /// The row; empty for a delete.
    pub row: &'a [u8],
}

pub(super) fn read_op<'a>(bytes: &mut &'a [u8]) -> Option<CommitOp<'a>> {
    let (&kind, rest) = bytes.split_first()?;
    *bytes = rest;
    let kind = RecordKind::from_byte(kind).filter(|kind| *kind != RecordKind::RangeDelete)?;
    let table = TableId(u32::try_from(read_varint(bytes)?).ok()?);
    let key_len = usize::try_from(read_varint(bytes)?).ok()?;
    let key = take(bytes, key_len)?;
    let row = if kind == RecordKind::Put {
        let row_len = usize::try_from(read_varint(bytes)?).ok()?;
        take(bytes, row_len)?
    } else {
        &[]
    };
    Some(CommitOp { table, key, kind, row })
}

/// The number of operations that the header states.
fn ops_of(encoded: &[u8]) -> u32 {
    let stated = encoded.get(OPS_AT..OPS_AT + 4).and_then(|part| part.try_into().ok());
    stated.map_or(0, u32::from_le_bytes)
}

/// A commit as it is logged and sent: checked, so that its operations can be read without failing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedCommit {
    bytes: Bytes,
    uid: Uid,
    prev: Uid,
}

impl EncodedCommit {
    /// Checks and wraps the bytes of a commit.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if they are not one whole, well-formed commit.
    pub fn parse(bytes: Bytes) -> Result<Self> {
        let invalid = |what: &str| Error::Invalid(format!("not a commit: {what}"));
        let header = bytes.get(..HEADER_BYTES).ok_or_else(|| invalid("too short"))?;
        if header.first() != Some(&FORMAT_VERSION) {
            return Err(invalid("unknown format version"));
        }
        let number = |at: usize| {
            header.get(at..at + 8).and_then(|part| part.try_into().ok()).map_or(0, u64::from_le_bytes)
        };
        let (uid, prev) = (Uid::new(number(UID_AT)), Uid::new(number(PREV_AT)));
        let ops = ops_of(&bytes);
        let mut rest = bytes.get(HEADER_BYTES..).unwrap_or_default();
        let mut last = None;
        for _ in 0..ops {
            let op = read_op(&mut rest).ok_or_else(|| invalid("a damaged operation"))?;
            if op.key.len() > MAX_KEY_BYTES || op.row.len() > MAX_ROW_BYTES {
                return Err(invalid("a key or a row over its limit"));
            }
            if last.replace((op.table, op.key)).is_some_and(|last| last >= (op.table, op.key)) {
                return Err(invalid("operations out of order"));
            }
        }
        if !rest.is_empty() {
            return Err(invalid("bytes behind the last operation"));
        }
        Ok(Self { bytes, uid, prev })
    }

    /// Wraps bytes that `Batch::encode` made and `set_uids` completed.
    pub(super) fn trusted(bytes: Bytes, uid: Uid, prev: Uid) -> Self {
        Self { bytes, uid, prev }
    }

    /// The commit's UID.
    pub fn uid(&self) -> Uid {
        self.uid
    }

    /// The UID of the commit before.
    pub fn prev(&self) -> Uid {
        self.prev
    }

    /// The encoded bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// How many puts and deletes it has.
    pub fn op_count(&self) -> u32 {
        ops_of(&self.bytes)
    }

    /// The puts and deletes, in (table, key) order.
    pub fn ops(&self) -> impl Iterator<Item = CommitOp<'_>> {
        let mut rest = self.bytes.get(HEADER_BYTES..).unwrap_or_default();
        std::iter::from_fn(move || if rest.is_empty() { None } else { read_op(&mut rest) })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use planaria_types::{TableId, Uid};

    use super::super::batch::Batch;
    use super::{EncodedCommit, set_uids};

    fn sample() -> Vec<u8> {
        let mut batch = Batch::new();
        batch.put(TableId(7), "key", "row").delete(TableId(300), "gone");
        let mut bytes = batch.encode().unwrap();
        set_uids(&mut bytes, Uid::new(9), Uid::new(8));
        bytes
    }

    #[test]
    fn the_encoding_is_what_the_format_says() {
        let expected = [
            &[1][..],
            &[1, 0, 0, 0],
            &[9, 0, 0, 0, 0, 0, 0, 0],
            &[8, 0, 0, 0, 0, 0, 0, 0],
            &[2, 0, 0, 0],
            &[0, 7, 3],
            b"key",
            &[3],
            b"row",
            &[1, 0xac, 2, 4],
            b"gone",
        ]
        .concat();
        assert_eq!(sample(), expected);
    }

    #[test]
    fn cut_or_extended_bytes_are_refused() {
        let bytes = sample();
        let commit = EncodedCommit::parse(bytes.clone().into()).unwrap();
        assert_eq!((commit.uid(), commit.prev()), (Uid::new(9), Uid::new(8)));
        for len in 0..bytes.len() {
            assert!(EncodedCommit::parse(bytes[..len].to_vec().into()).is_err(), "cut at {len}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(EncodedCommit::parse(longer.into()).is_err());
    }
}
