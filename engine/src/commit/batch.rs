use bytes::Bytes;
use planaria_types::{TableId, Uid};

use super::encoding::{self, CommitHeader};
use crate::cursor::RecordKind;
use crate::error::{Error, Result};

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 65_535;
/// The longest row, in bytes.
pub const MAX_ROW_BYTES: usize = 16 << 20;
/// The largest batch, encoded, in bytes.
pub const MAX_BATCH_BYTES: usize = 64 << 20;

/// Puts and deletes that are committed together or not at all, over any tables of a database.
///
/// Where a batch names a record twice, the last word counts.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    ops: Vec<Op>,
    payload_bytes: usize,
}

#[derive(Clone, Debug)]
struct Op {
    table: TableId,
    key: Bytes,
    /// The row, or `None` for a delete.
    row: Option<Bytes>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a record, over an existing one if there is one.
    pub fn put(&mut self, table: TableId, key: impl Into<Bytes>, row: impl Into<Bytes>) -> &mut Self {
        self.push(table, key.into(), Some(row.into()))
    }

    /// Deletes a record, whether it exists or not.
    pub fn delete(&mut self, table: TableId, key: impl Into<Bytes>) -> &mut Self {
        self.push(table, key.into(), None)
    }

    fn push(&mut self, table: TableId, key: Bytes, row: Option<Bytes>) -> &mut Self {
        self.payload_bytes += key.len() + row.as_ref().map_or(0, Bytes::len) + encoding::OP_OVERHEAD_MAX;
        self.ops.push(Op { table, key, row });
        self
    }

    /// The number of puts and deletes, doubles included.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// An upper bound of the encoded size, in bytes.
    pub fn bytes(&self) -> usize {
        self.payload_bytes
    }

    /// The tables that the batch writes to, in order, each once.
    pub(crate) fn tables(&self) -> Vec<TableId> {
        let mut tables: Vec<_> = self.ops.iter().map(|op| op.table).collect();
        tables.sort_unstable();
        tables.dedup();
        tables
    }

    /// Checks the limits and encodes: one record per key, the last, in (table, key) order, room for the UIDs in front.
    pub(crate) fn encode(mut self) -> Result<Vec<u8>> {
        check_limit("a batch", self.payload_bytes, MAX_BATCH_BYTES)?;
        for op in &self.ops {
            check_limit("a key", op.key.len(), MAX_KEY_BYTES)?;
            check_limit("a row", op.row.as_ref().map_or(0, Bytes::len), MAX_ROW_BYTES)?;
        }
        let name = |op: &Op| (op.table, op.key.clone());
        if !self.ops.windows(2).all(|pair| (pair[0].table, &pair[0].key) < (pair[1].table, &pair[1].key)) {
            // A stable sort keeps the words about one record in their order; reversed, the last comes first and stays.
            self.ops.reverse();
            self.ops.sort_by(|a, b| (a.table, &a.key).cmp(&(b.table, &b.key)));
            self.ops.dedup_by(|later, first| name(later) == name(first));
        }
        let mut out = Vec::with_capacity(encoding::HEADER_BYTES + self.payload_bytes);
        CommitHeader { uid: Uid::ZERO, prev: Uid::ZERO, ops: self.ops.len() as u32 }.write(&mut out);
        for op in &self.ops {
            let kind = if op.row.is_some() { RecordKind::Put } else { RecordKind::Delete };
            encoding::write_op(&mut out, op.table, &op.key, kind, op.row.as_deref().unwrap_or_default());
        }
        Ok(out)
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
        let commit = EncodedCommit::parse(batch.encode().unwrap().into()).unwrap();
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
