use planaria_types::{TableId, Uid};

use super::encoding::{self, CommitHeader, CommitOp};
use crate::cursor::RecordKind;
use crate::error::{Error, Result};
use crate::key_order::head;

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 65_535;
/// The longest row, in bytes.
pub const MAX_ROW_BYTES: usize = 16 << 20;
/// The largest batch, encoded, in bytes.
pub const MAX_BATCH_BYTES: usize = 64 << 20;

/// Puts and deletes that are committed together or not at all, over any tables of a database.
///
/// Where a batch names a record twice, the last word counts. Records that come in the order of their tables and keys
/// cost the least: the batch holds them as they will be logged.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The commit, its header included once there is an operation, with the operations in the order in which they came.
    encoded: Vec<u8>,
    ops: Vec<Op>,
    /// Whether some operation does not sort behind the one before.
    unordered: bool,
    /// The tables, each once.
    tables: Vec<TableId>,
    longest_key: usize,
    longest_row: usize,
}

/// Where an operation lies in the encoded commit.
#[derive(Clone, Copy, Debug)]
struct Op {
    table: TableId,
    /// The head of the key.
    head: u64,
    start: usize,
    key: usize,
    key_end: usize,
    end: usize,
}

impl Op {
    /// What operations are sorted by. Sound for the bytes that the operation was written to.
    fn name<'a>(&self, encoded: &'a [u8]) -> (TableId, u64, &'a [u8]) {
        (self.table, self.head, encoded.get(self.key..self.key_end).unwrap_or_default())
    }
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a record, over an existing one if there is one.
    pub fn put(&mut self, table: TableId, key: impl AsRef<[u8]>, row: impl AsRef<[u8]>) -> &mut Self {
        self.push(table, key.as_ref(), RecordKind::Put, row.as_ref())
    }

    /// Deletes a record, whether it exists or not.
    pub fn delete(&mut self, table: TableId, key: impl AsRef<[u8]>) -> &mut Self {
        self.push(table, key.as_ref(), RecordKind::Delete, &[])
    }

    fn push(&mut self, table: TableId, key: &[u8], kind: RecordKind, row: &[u8]) -> &mut Self {
        self.write_header_if_empty();
        let name = (table, head(key, 0), key);
        self.unordered |= self.ops.last().is_some_and(|last| last.name(&self.encoded) >= name);
        if self.ops.last().is_none_or(|last| last.table != table) && !self.tables.contains(&table) {
            self.tables.push(table);
        }
        self.longest_key = self.longest_key.max(key.len());
        self.longest_row = self.longest_row.max(row.len());
        let start = self.encoded.len();
        let key = encoding::write_op(&mut self.encoded, table, key, kind, row);
        let (key, key_end, end) = (key.start, key.end, self.encoded.len());
        self.ops.push(Op { table, head: name.1, start, key, key_end, end });
        self
    }

    fn write_header_if_empty(&mut self) {
        if self.ops.is_empty() {
            CommitHeader { uid: Uid::ZERO, prev: Uid::ZERO, ops: 0 }.write(&mut self.encoded);
        }
    }

    /// The number of puts and deletes, doubles included.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The puts and deletes in the order in which they came, doubles included.
    pub fn ops(&self) -> impl Iterator<Item = CommitOp<'_>> {
        self.ops.iter().filter_map(|op| encoding::read_op(&mut self.encoded.get(op.start..op.end)?))
    }

    /// An upper bound of the encoded size, in bytes.
    pub fn bytes(&self) -> usize {
        self.encoded.len()
    }

    /// The tables that the batch writes to, each once.
    pub(crate) fn tables(&self) -> &[TableId] {
        &self.tables
    }

    /// Checks the limits and encodes: one record per key, the last, in (table, key) order, room for the UIDs in front.
    pub(crate) fn encode(mut self) -> Result<Vec<u8>> {
        self.write_header_if_empty();
        check_limit("a batch", self.encoded.len(), MAX_BATCH_BYTES)?;
        check_limit("a key", self.longest_key, MAX_KEY_BYTES)?;
        check_limit("a row", self.longest_row, MAX_ROW_BYTES)?;
        if self.unordered {
            self.sort();
        }
        let mut encoded = self.encoded;
        encoding::set_ops(&mut encoded, self.ops.len() as u32);
        Ok(encoded)
    }

    /// Puts the operations in order, and of each record only the last.
    fn sort(&mut self) {
        let encoded = std::mem::take(&mut self.encoded);
        // A stable sort keeps the words about one record in their order; reversed, the last comes first and stays.
        self.ops.reverse();
        self.ops.sort_by(|a, b| a.name(&encoded).cmp(&b.name(&encoded)));
        self.ops.dedup_by(|later, first| later.name(&encoded) == first.name(&encoded));
        self.encoded.reserve_exact(encoded.len());
        self.encoded.extend_from_slice(encoded.get(..encoding::HEADER_BYTES).unwrap_or_default());
        for op in &self.ops {
            self.encoded.extend_from_slice(encoded.get(op.start..op.end).unwrap_or_default());
        }
    }
}

fn check_limit(what: &'static str, bytes: usize, limit: usize) -> Result<()> {
    if bytes > limit {
        return Err(Error::TooLarge { what, bytes: bytes as u64, limit: limit as u64 });
    }
    Ok(())
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use planaria_types::TableId;

    use super::super::encoding::EncodedCommit;
    use super::{Batch, MAX_KEY_BYTES};
    use crate::cursor::RecordKind;

    #[test]
    fn the_last_word_about_a_record_counts() {
        let mut batch = Batch::new();
        batch.put(TableId(1), "b", "1").put(TableId(1), "a", "2").delete(TableId(1), "b").put(
            TableId(1),
            "a",
            "3",
        );
        let came: Vec<_> = batch.ops().map(|op| (op.key.to_vec(), op.row.to_vec())).collect();
        let came: Vec<_> = came.iter().map(|(key, row)| (&key[..], &row[..])).collect();
        assert_eq!(came, [(&b"b"[..], &b"1"[..]), (b"a", b"2"), (b"b", b""), (b"a", b"3")]);
        let commit = EncodedCommit::parse(batch.encode().unwrap().into()).unwrap();
        assert_eq!(commit.op_count(), 2);
        let ops: Vec<_> = commit.ops().map(|op| (op.key.to_vec(), op.kind, op.row.to_vec())).collect();
        assert_eq!(
            ops,
            [
                (b"a".to_vec(), RecordKind::Put, b"3".to_vec()),
                (b"b".to_vec(), RecordKind::Delete, Vec::new())
            ]
        );
    }

    #[test]
    fn a_key_over_the_limit_is_refused() {
        let mut batch = Batch::new();
        batch.put(TableId(1), vec![0; MAX_KEY_BYTES + 1], "");
        assert_eq!(batch.encode().unwrap_err().code(), "too_large");
    }
}
