use planaria_types::Uid;

use super::block::{BUCKET_COLLISION, BUCKET_EMPTY, MAX_HASHED_RESTARTS, TAIL_BYTES, bucket_of};
use super::decode::put_varint;
use crate::cursor::RecordKind;

/// What an entry takes at most besides its key and row: three integers, a UID, a bucket, a share of its restart.
const ENTRY_OVERHEAD_BYTES: usize = 18;

/// A version on its way into a block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewVersion<'a> {
    /// The key.
    pub(crate) key: &'a [u8],
    /// The hash of the key.
    pub(crate) hash: u64,
    /// How many bytes of the key are those of the key before, whichever block that went to.
    pub(crate) shared: usize,
    /// Whether it is the same key.
    pub(crate) same_key: bool,
    /// The UID.
    pub(crate) uid: Uid,
    /// Put or delete.
    pub(crate) kind: RecordKind,
    /// The row; empty for a delete.
    pub(crate) row: &'a [u8],
}

/// Puts record versions, which come in order, into the bytes of a block.
#[derive(Debug)]
pub(crate) struct BlockBuilder {
    interval: usize,
    bytes: Vec<u8>,
    uids: Vec<u64>,
    restarts: Vec<u32>,
    /// The hash of each distinct key and the restart at or before its first version here.
    hashes: Vec<(u64, usize)>,
}

impl BlockBuilder {
    /// An empty block that stores every `interval`th key in full.
    pub(crate) fn new(interval: u8) -> Self {
        Self {
            interval: usize::from(interval.max(1)),
            bytes: Vec::new(),
            uids: Vec::new(),
            restarts: Vec::new(),
            hashes: Vec::new(),
        }
    }

    /// How many versions are in the block.
    pub(crate) fn len(&self) -> usize {
        self.uids.len()
    }

    /// About how many bytes the block would have, not compressed, if it ended here.
    pub(crate) fn estimated_bytes(&self) -> usize {
        self.bytes.len()
            + self.uids.len() * 6
            + self.hashes.len() * 4 / 3
            + self.restarts.len() * 8
            + TAIL_BYTES
    }

    /// About how many bytes the block would have with one more record of this size.
    pub(crate) fn estimated_bytes_with(&self, key_bytes: usize, row_bytes: usize) -> usize {
        self.estimated_bytes() + key_bytes + row_bytes + ENTRY_OVERHEAD_BYTES
    }

    /// Adds the next version.
    pub(crate) fn add(&mut self, version: &NewVersion<'_>) {
        let NewVersion { key, row, .. } = *version;
        let at_restart = self.uids.len().is_multiple_of(self.interval);
        if at_restart {
            self.restarts.push(self.bytes.len() as u32);
        }
        if !version.same_key || self.uids.is_empty() {
            self.hashes.push((version.hash, self.restarts.len() - 1));
        }
        let shared = if at_restart { 0 } else { version.shared };
        let suffix = key.get(shared..).unwrap_or_default();
        let row_field = if version.kind == RecordKind::Put { row.len() + 1 } else { 0 };
        self.bytes.reserve(ENTRY_OVERHEAD_BYTES + suffix.len() + row.len());
        if (shared | suffix.len() | row_field) < 0x80 {
            self.bytes.extend_from_slice(&[shared as u8, suffix.len() as u8, row_field as u8]);
        } else {
            for field in [shared, suffix.len(), row_field] {
                put_varint(&mut self.bytes, field as u64);
            }
        }
        self.bytes.extend_from_slice(suffix);
        self.bytes.extend_from_slice(row);
        self.uids.push(version.uid.get());
    }

    /// The bytes of the block. Only [`Self::clear`] may follow.
    pub(crate) fn finish(&mut self) -> &[u8] {
        let entries_bytes = self.bytes.len() as u32;
        let base = self.uids.iter().copied().min().unwrap_or(0);
        let range = self.uids.iter().copied().max().unwrap_or(0) - base;
        let width = (u64::BITS - range.leading_zeros()).div_ceil(8) as usize;
        for uid in &self.uids {
            put_uid(&mut self.bytes, uid - base, width);
        }
        let buckets = self.put_buckets();
        for interval in self.uids.chunks(self.interval) {
            let highest = interval.iter().copied().max().unwrap_or(base);
            put_uid(&mut self.bytes, highest - base, width);
        }
        for restart in &self.restarts {
            self.bytes.extend_from_slice(&restart.to_le_bytes());
        }
        self.bytes.extend_from_slice(&(self.uids.len() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&entries_bytes.to_le_bytes());
        self.bytes.extend_from_slice(&base.to_le_bytes());
        self.bytes.extend_from_slice(&buckets.to_le_bytes());
        self.bytes.push(width as u8);
        self.bytes.push(self.interval as u8);
        &self.bytes
    }

    /// Appends the hash index and says how many buckets it has: 0 where one byte cannot name every restart.
    fn put_buckets(&mut self) -> u16 {
        let buckets = self.hashes.len() * 4 / 3 + 1;
        if self.restarts.len() > MAX_HASHED_RESTARTS || buckets > usize::from(u16::MAX) {
            return 0;
        }
        let start = self.bytes.len();
        self.bytes.resize(start + buckets, BUCKET_EMPTY);
        let table = self.bytes.get_mut(start..).unwrap_or_default();
        for (hash, restart) in &self.hashes {
            if let Some(bucket) = table.get_mut(bucket_of(*hash, buckets)) {
                let restart = *restart as u8;
                *bucket = match *bucket {
                    BUCKET_EMPTY => restart,
                    taken if taken == restart => restart,
                    _ => BUCKET_COLLISION,
                };
            }
        }
        buckets as u16
    }

    /// Makes room for the next block.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.uids.clear();
        self.restarts.clear();
        self.hashes.clear();
    }
}

/// Appends the lowest `width` bytes of a UID's distance from the base.
fn put_uid(out: &mut Vec<u8>, distance: u64, width: usize) {
    let bytes = distance.to_le_bytes();
    out.extend_from_slice(bytes.get(..width).unwrap_or(&bytes));
}
