use std::cmp::Ordering;
use std::ops::Range;

use bytes::{Buf, Bytes};
use planaria_types::Uid;

use super::decode::{Decoder, common_prefix, varint_u32};
use super::options::{MAX_BLOCK_BYTES, MAX_KEY_BYTES};
use crate::cursor::RecordKind;

/// The fixed fields at the end of a block.
pub(crate) const TAIL_BYTES: usize = 20;
/// A bucket of the hash index that no key falls into.
pub(crate) const BUCKET_EMPTY: u8 = 255;
/// A bucket that keys of several restart intervals fall into.
pub(crate) const BUCKET_COLLISION: u8 = 254;
/// The greatest number of restarts that a hash index can tell apart: the two values above are taken, and one is spare.
pub(crate) const MAX_HASHED_RESTARTS: usize = 253;

/// An entry takes at least three bytes: three integers.
const MIN_ENTRY_BYTES: usize = 3;
const RESTART_BYTES: usize = 4;

/// The bucket, out of `buckets`, of a key with this hash.
#[inline]
pub(crate) fn bucket_of(hash: u64, buckets: usize) -> usize {
    (((hash & 0xffff_ffff) * buckets as u64) >> 32) as usize
}

/// The bytes are not those of a block: what does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed(pub(crate) &'static str);

/// A sorted group of record versions, read where it lies. Cloning it shares the bytes.
///
/// The bytes may be anything: nothing that is asked of a block panics, or goes on for longer than the block has bytes.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    bytes: Bytes,
    base: u64,
    /// The end of the entries and the start of the UID column.
    entries_end: u32,
    buckets_start: u32,
    highest_start: u32,
    restarts_start: u32,
    count: u32,
    restarts: u32,
    buckets: u16,
    interval: u8,
    width: u8,
}

/// Where the parts of one entry lie, in bytes from the start of the block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// How many bytes of the key are those of the key before.
    pub(crate) shared: usize,
    /// The rest of the key goes from here …
    pub(crate) suffix: usize,
    /// … to here, where the row begins.
    pub(crate) row: usize,
    /// The end of the row and of the entry.
    pub(crate) end: usize,
    /// Put or delete.
    pub(crate) kind: RecordKind,
}

/// A version that a point read found.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Its UID.
    pub(crate) uid: Uid,
    /// Put or delete.
    pub(crate) kind: RecordKind,
    /// Where its row lies in the block.
    pub(crate) row: Range<usize>,
}

/// What the hash index says of a key.
enum Bucket {
    Absent,
    Restart(usize),
    Unknown,
}

impl Block {
    /// A block without records, where none is loaded.
    pub(crate) fn empty() -> Self {
        Self {
            bytes: Bytes::new(),
            base: 0,
            entries_end: 0,
            buckets_start: 0,
            highest_start: 0,
            restarts_start: 0,
            count: 0,
            restarts: 0,
            buckets: 0,
            interval: 1,
            width: 0,
        }
    }

    /// Takes `bytes` as a block, after checking that its parts fit together. Entries are checked when they are read.
    pub(crate) fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        let tail_start =
            bytes.len().checked_sub(TAIL_BYTES).ok_or(Malformed("a block is shorter than its tail"))?;
        let tail = bytes.get(tail_start..).unwrap_or_default();
        let block = Self::layout(tail).ok_or(Malformed("the parts of a block do not fit together"))?;
        let column = u64::from(block.width);
        let entries_end = u64::from(block.entries_end);
        let buckets_start = entries_end + u64::from(block.count) * column;
        let highest_start = buckets_start + u64::from(block.buckets);
        let restarts_start = highest_start + u64::from(block.restarts) * column;
        if restarts_start + u64::from(block.restarts) * RESTART_BYTES as u64 != tail_start as u64 {
            return Err(Malformed("the parts of a block do not add up to its length"));
        }
        if bytes.len() > MAX_BLOCK_BYTES {
            return Err(Malformed("a block is longer than any that is written"));
        }
        Ok(Self {
            buckets_start: buckets_start as u32,
            highest_start: highest_start as u32,
            restarts_start: restarts_start as u32,
            bytes,
            ..block
        })
    }

    /// The fields of the tail, with the places of the parts still to be filled in.
    fn layout(tail: &[u8]) -> Option<Self> {
        let mut decoder = Decoder::new(tail);
        let count = decoder.u32()?;
        let entries_end = decoder.u32()?;
        let base = decoder.u64()?;
        let buckets = decoder.array().map(u16::from_le_bytes)?;
        let width = decoder.u8()?;
        let interval = decoder.u8()?;
        decoder.end()?;
        let possible = count > 0
            && interval > 0
            && width <= 8
            && u64::from(count) * MIN_ENTRY_BYTES as u64 <= u64::from(entries_end);
        let restarts = count.div_ceil(u32::from(interval.max(1)));
        possible.then_some(Self {
            base,
            entries_end,
            count,
            restarts,
            buckets,
            interval,
            width,
            ..Self::empty()
        })
    }

    /// The block with all its UIDs raised by `uid`: what a run of one commit shows once the commit has its UID.
    #[inline]
    pub(crate) fn raised(self, uid: Uid) -> Self {
        Self { base: self.base.wrapping_add(uid.get()), ..self }
    }

    /// How many versions are in the block.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count as usize
    }

    /// How many restart intervals the block has.
    #[inline]
    pub(crate) fn restarts(&self) -> usize {
        self.restarts as usize
    }

    /// How many entries a restart interval has.
    #[inline]
    pub(crate) fn interval(&self) -> usize {
        usize::from(self.interval)
    }

    /// The bytes of the block, not compressed.
    #[inline]
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The part of the block, empty if it does not lie inside.
    #[inline]
    pub(crate) fn part(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// The part of the block as a value of its own that keeps the block's memory.
    #[inline]
    pub(crate) fn into_part(self, range: Range<usize>) -> Bytes {
        if range.start > range.end || range.end > self.bytes.len() {
            return Bytes::new();
        }
        let mut bytes = self.bytes;
        bytes.truncate(range.end);
        bytes.advance(range.start);
        bytes
    }

    /// The UID of the entry at `position`.
    #[inline]
    pub(crate) fn uid(&self, position: usize) -> Uid {
        self.column(self.entries_end as usize, position)
    }

    /// The highest UID of the entries from restart `restart` to the next.
    #[inline]
    pub(crate) fn highest_uid(&self, restart: usize) -> Uid {
        self.column(self.highest_start as usize, restart)
    }

    /// A value of a column of UIDs. Eight bytes are read and what belongs to others is masked away: the tail, longer
    /// than that, lies behind every column.
    #[inline]
    fn column(&self, start: usize, index: usize) -> Uid {
        let width = usize::from(self.width);
        let at = start + index * width;
        let read =
            self.bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |word| u64::from_le_bytes(*word));
        let mask = if width == 8 { u64::MAX } else { (1_u64 << (8 * width)) - 1 };
        Uid::new(self.base.wrapping_add(read & mask))
    }

    /// Where the entry of restart `restart` begins.
    #[inline]
    pub(crate) fn restart_offset(&self, restart: usize) -> Result<usize, Malformed> {
        let at = self.restarts_start as usize + restart * RESTART_BYTES;
        match self.bytes.get(at..).and_then(<[u8]>::first_chunk) {
            Some(offset) if restart < self.restarts() => Ok(u32::from_le_bytes(*offset) as usize),
            _ => Err(Malformed("a restart lies outside its block")),
        }
    }

    /// The entry that begins at `at`.
    #[inline]
    pub(crate) fn entry(&self, at: usize) -> Result<Entry, Malformed> {
        self.decode_entry(at).ok_or(Malformed("an entry runs over the end of its block"))
    }

    #[inline]
    fn decode_entry(&self, at: usize) -> Option<Entry> {
        let entries = self.bytes.get(..self.entries_end as usize)?;
        let (shared, unshared, row_field, suffix) = match entries.get(at..)?.first_chunk::<3>()? {
            &[shared, unshared, row] if (shared | unshared | row) < 0x80 => {
                (u32::from(shared), u32::from(unshared), u32::from(row), at + 3)
            }
            _ => {
                let (shared, at) = varint_u32(entries, at)?;
                let (unshared, at) = varint_u32(entries, at)?;
                let (row_field, at) = varint_u32(entries, at)?;
                if u64::from(shared) + u64::from(unshared) > MAX_KEY_BYTES as u64 {
                    return None;
                }
                (shared, unshared, row_field, at)
            }
        };
        let row = suffix.checked_add(unshared as usize)?;
        let (kind, row_bytes) = match row_field.checked_sub(1) {
            Some(bytes) => (RecordKind::Put, bytes as usize),
            None => (RecordKind::Delete, 0),
        };
        let end = row.checked_add(row_bytes)?;
        (end <= entries.len()).then_some(Entry { shared: shared as usize, suffix, row, end, kind })
    }

    /// How many keys have their newest version in this block above `since`. A version that follows another one of its key is
    /// older.
    pub(crate) fn keys_above(&self, since: Uid) -> Result<u64, Malformed> {
        let (mut key, mut keys) = (Vec::new(), 0);
        let mut offset = if self.count() > 0 { self.restart_offset(0)? } else { 0 };
        for position in 0..self.count() {
            let entry = self.entry(offset)?;
            offset = entry.end;
            let suffix = self.part(entry.suffix..entry.row);
            if position == 0 || key.get(entry.shared..) != Some(suffix) {
                key.truncate(entry.shared);
                key.extend_from_slice(suffix);
                keys += u64::from(self.uid(position) > since);
            }
        }
        Ok(keys)
    }

    /// The last restart whose entry is at or before the newest version of `key` with a UID at or below `uid`, or the
    /// first of all.
    pub(crate) fn restart_at_or_before(&self, key: &[u8], uid: Uid) -> Result<usize, Malformed> {
        let mut low = 0;
        let mut high = self.restarts();
        // Every restart below `low` is at or before the target, and every one from `high` on is behind it.
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(self.restart_offset(middle)?)?;
            if entry.shared != 0 {
                return Err(Malformed("a key at a restart is not stored in full"));
            }
            let order = self.part(entry.suffix..entry.row).cmp(key);
            let behind = match order {
                Ordering::Less => false,
                Ordering::Equal => self.uid(middle * self.interval()) < uid,
                Ordering::Greater => true,
            };
            if behind {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(low.saturating_sub(1))
    }

    /// What the hash index says of the key with this hash.
    #[inline]
    fn bucket(&self, hash: u64) -> Bucket {
        let buckets = usize::from(self.buckets);
        if buckets == 0 {
            return Bucket::Unknown;
        }
        let at = self.buckets_start as usize + bucket_of(hash, buckets);
        match self.bytes.get(at) {
            Some(&BUCKET_EMPTY) => Bucket::Absent,
            None | Some(&BUCKET_COLLISION) => Bucket::Unknown,
            Some(&restart) => Bucket::Restart(usize::from(restart)),
        }
    }

    /// Whether the hash index leads a reader to the key with this hash, whose first version lies behind `restart`.
    pub(crate) fn leads_to(&self, hash: u64, restart: usize) -> bool {
        match self.bucket(hash) {
            Bucket::Absent => false,
            Bucket::Restart(found) => found == restart,
            Bucket::Unknown => true,
        }
    }

    /// The newest version of `key`, whose hash is `hash`, with a UID at or below `at`.
    pub(crate) fn get(&self, key: &[u8], hash: u64, at: Uid) -> Result<Option<Found>, Malformed> {
        let (restart, hashed) = match self.bucket(hash) {
            Bucket::Absent => return Ok(None),
            Bucket::Restart(restart) => (restart, true),
            Bucket::Unknown => (self.restart_at_or_before(key, at)?, false),
        };
        self.scan_for(key, at, restart, hashed)
    }

    /// Looks for a version from `restart` on, without putting keys together: it is enough to know how many bytes of
    /// the current key, which sorts before `key`, are those of `key`. If the next key shares more with the current
    /// one, it still sorts before; if less, it sorts behind; only if just as many, the bytes have to be compared.
    ///
    /// With `one_interval`, the first version of the key lies in the interval of `restart` or nowhere.
    #[inline]
    fn scan_for(
        &self,
        key: &[u8],
        at: Uid,
        restart: usize,
        one_interval: bool,
    ) -> Result<Option<Found>, Malformed> {
        let first = restart * self.interval();
        let mut offset = self.restart_offset(restart)?;
        let mut matched = 0;
        let mut equal = false;
        let mut left = self.interval();
        for position in first..self.count() {
            if left == 0 {
                if one_interval && !equal {
                    return Ok(None);
                }
                matched = 0;
                left = self.interval();
            }
            left -= 1;
            let entry = self.entry(offset)?;
            offset = entry.end;
            match entry.shared.cmp(&matched) {
                Ordering::Less => return Ok(None),
                Ordering::Greater => continue,
                Ordering::Equal => {}
            }
            let suffix = self.part(entry.suffix..entry.row);
            let rest = key.get(matched..).unwrap_or_default();
            let common = common_prefix(suffix, rest);
            match (suffix.get(common), rest.get(common)) {
                (None, None) => {
                    let uid = self.uid(position);
                    if uid <= at {
                        return Ok(Some(Found { uid, kind: entry.kind, row: entry.row..entry.end }));
                    }
                    equal = true;
                }
                (Some(_), None) => return Ok(None),
                (Some(here), Some(there)) if here > there => return Ok(None),
                _ => equal = false,
            }
            matched += common;
        }
        Ok(None)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "block_tests.rs"]
mod tests;
