//! Batches of rows, in a layout that is cut into rows without a copy.
//!
//! ```text
//! | count u32 | (uid u64 | key length u32 | value length u32 | key | value) × count |
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use planaria_types::Uid;

use super::limits::{ROWS_BYTES_MAX, ROWS_BYTES_TARGET, ROWS_MAX};
use super::{FrameError, FrameKind};
use crate::{Error, Result};

/// Bytes of the count, and of what precedes each row.
const COUNT_BYTES: usize = 4;
const ROW_HEADER_BYTES: usize = 16;

/// One row as stored: opaque key and value bytes.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Row {
    /// The commit that wrote it; [`Uid::ZERO`] in an import.
    pub uid: Uid,
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
}

/// Collects rows into a batch.
#[derive(Debug, Default)]
pub struct RowsBuilder {
    bytes: BytesMut,
    count: u32,
}

impl RowsBuilder {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`] if the batch has no room for it: take it out with [`RowsBuilder::take`] first. A row that
    /// does not fit into an empty batch does not fit at all.
    pub fn push(&mut self, uid: Uid, key: &[u8], value: &[u8]) -> Result<()> {
        let bytes = self.bytes.len().max(COUNT_BYTES) + ROW_HEADER_BYTES + key.len() + value.len();
        if bytes > ROWS_BYTES_MAX as usize || self.count as usize >= ROWS_MAX {
            return Err(Error::TooLarge {
                what: "a batch of rows",
                bytes: bytes as u64,
                limit: u64::from(ROWS_BYTES_MAX),
            });
        }
        if self.bytes.is_empty() {
            self.bytes.put_u32_le(0);
        }
        self.bytes.put_u64_le(uid.get());
        self.bytes.put_u32_le(key.len() as u32);
        self.bytes.put_u32_le(value.len() as u32);
        self.bytes.put_slice(key);
        self.bytes.put_slice(value);
        self.count += 1;
        Ok(())
    }

    /// Whether the batch is large enough to be sent.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= ROWS_BYTES_TARGET || self.count as usize >= ROWS_MAX
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// The batch as bytes; the builder is empty afterwards.
    pub fn take(&mut self) -> Bytes {
        let mut bytes = std::mem::take(&mut self.bytes);
        let count = std::mem::take(&mut self.count);
        match bytes.get_mut(..COUNT_BYTES) {
            Some(field) => field.copy_from_slice(&count.to_le_bytes()),
            None => bytes.put_u32_le(count),
        }
        bytes.freeze()
    }
}

/// Cuts a batch into rows that share its bytes.
///
/// # Errors
///
/// [`FrameError::Body`] unless the bytes are a batch from the first to the last.
pub fn decode(mut bytes: Bytes) -> Result<Vec<Row>, FrameError> {
    let wrong = |why: &str| FrameError::Body {
        kind: FrameKind::Rows,
        why: why.to_owned(),
    };
    let count = bytes.try_get_u32_le().map_err(|_| wrong("it has no count"))? as usize;
    if count > ROWS_MAX || count > bytes.len() / ROW_HEADER_BYTES {
        return Err(wrong("it announces more rows than it can have"));
    }
    let mut rows = Vec::with_capacity(count);
    for _ in 0..count {
        if bytes.len() < ROW_HEADER_BYTES {
            return Err(wrong("it ends within a row"));
        }
        let uid = Uid::new(bytes.get_u64_le());
        let (key, value) = (bytes.get_u32_le() as usize, bytes.get_u32_le() as usize);
        if key.checked_add(value).is_none_or(|both| both > bytes.len()) {
            return Err(wrong("it ends within a row"));
        }
        rows.push(Row {
            uid,
            key: bytes.split_to(key),
            value: bytes.split_to(value),
        });
    }
    if bytes.is_empty() {
        Ok(rows)
    } else {
        Err(wrong("bytes are left over"))
    }
}

#[cfg(test)]
mod tests {
    use super::{RowsBuilder, decode};
    use bytes::Bytes;
    use planaria_types::Uid;

    #[test]
    fn rows_survive_and_share_the_bytes_of_their_batch() {
        let mut rows = RowsBuilder::new();
        rows.push(Uid::new(7), b"key", b"value").unwrap();
        rows.push(Uid::ZERO, b"", b"").unwrap();
        assert_eq!((rows.len(), rows.is_full()), (2, false));
        let bytes = rows.take();
        assert!(rows.is_empty());
        let decoded = decode(bytes.clone()).unwrap();
        assert_eq!(decoded[0].key, &b"key"[..]);
        assert_eq!(
            (decoded[0].uid, &decoded[0].value[..]),
            (Uid::new(7), &b"value"[..])
        );
        assert_eq!(decoded[0].key.as_ptr(), bytes[20..].as_ptr());
        assert_eq!(decoded[1], super::Row::default());
        assert_eq!(decode(RowsBuilder::new().take()), Ok(vec![]));
    }

    #[test]
    fn any_cut_and_any_greater_count_is_refused() {
        let mut rows = RowsBuilder::new();
        rows.push(Uid::new(7), b"key", b"value").unwrap();
        let bytes = rows.take();
        for cut in 0..bytes.len() {
            assert!(decode(bytes.slice(..cut)).is_err(), "{cut}");
        }
        for at in 0..bytes.len() {
            let mut hostile = bytes.to_vec();
            hostile[at] ^= 0xff;
            let _ = decode(Bytes::from(hostile));
        }
        let mut many = bytes.to_vec();
        many[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(decode(Bytes::from(many)).is_err());
    }
}
