use std::cmp::Ordering;
use std::ops::Range;

use bytes::Bytes;
use planaria_types::{Fingerprint, Uid};

use super::block::Malformed;
use super::decode::{Decoder, common_prefix, put_varint};
use super::options::MAX_KEY_BYTES;
use crate::key_order::head;

const FLAG_FINGERPRINTS: u8 = 1;
/// An entry takes at least: key length, spanning flag, smallest UID, three integers.
const MIN_ENTRY_BYTES: usize = 13;

/// What the index says of one data block.
#[derive(Clone, Debug)]
pub(crate) struct IndexEntry {
    /// Where the block begins in the file.
    pub(crate) offset: u64,
    /// Its length in the file, with trailer.
    pub(crate) len: u32,
    /// How many versions it holds.
    pub(crate) records: u32,
    /// The smallest UID in the block.
    pub(crate) smallest_uid: Uid,
    /// The highest UID in the block.
    pub(crate) highest_uid: Uid,
    /// With the separator key: nothing in the block sorts behind, and everything in the next block does.
    separator_uid: Uid,
    separator_start: u32,
    separator_len: u32,
}

impl IndexEntry {
    /// Where the block lies in the file.
    pub(crate) fn range(&self) -> Range<u64> {
        self.offset..self.offset + u64::from(self.len)
    }
}

/// Which block may hold a version: one entry a block, in the order of the keys. Kept in memory while a run is open.
#[derive(Debug)]
pub(crate) struct Index {
    bytes: Bytes,
    entries: Vec<IndexEntry>,
    fingerprints: Vec<Fingerprint>,
    /// How many bytes all separators have in common.
    prefix_len: usize,
    /// The eight bytes of each separator that follow, the first byte highest: most comparisons need no more, and these
    /// lie side by side.
    heads: Vec<u64>,
}

impl Index {
    /// Reads the bytes of an index block; data blocks lie from `data_start` to `data_end`, without gaps.
    pub(crate) fn decode(bytes: Bytes, data_start: u64, data_end: u64) -> Result<Self, Malformed> {
        let malformed = Malformed("the index makes no sense");
        let mut index = Self::decode_entries(bytes, data_start).ok_or(malformed)?;
        let end = index.entries.last().map(|entry| entry.offset + u64::from(entry.len));
        if end != Some(data_end) {
            return Err(Malformed("the index does not end where the data blocks end"));
        }
        let ascending = (1..index.len()).all(|later| {
            let (before, after) = (index.separator(later - 1), index.separator(later));
            order(before.0, before.1, after.0, after.1) == Ordering::Less
        });
        if !ascending {
            return Err(Malformed("the keys of the index are out of order"));
        }
        index.prepare();
        Ok(index)
    }

    fn decode_entries(bytes: Bytes, data_start: u64) -> Option<Self> {
        let mut decoder = Decoder::new(&bytes);
        let count = decoder.u32()? as usize;
        let flags = decoder.u8()?;
        let possible = count <= decoder.remaining() / MIN_ENTRY_BYTES
            && flags & !FLAG_FINGERPRINTS == 0
            && u32::try_from(bytes.len()).is_ok();
        if !possible {
            return None;
        }
        let mut entries = Vec::with_capacity(count);
        let mut fingerprints = Vec::with_capacity(if flags == FLAG_FINGERPRINTS { count } else { 0 });
        let mut offset = data_start;
        for _ in 0..count {
            let entry = decode_entry(&mut decoder, bytes.len(), offset)?;
            offset = offset.checked_add(u64::from(entry.len))?;
            entries.push(entry);
            if flags == FLAG_FINGERPRINTS {
                fingerprints.push(Fingerprint { count: decoder.varint()?, sum: decoder.u128()? });
            }
        }
        decoder.end()?;
        Some(Self { bytes, entries, fingerprints, prefix_len: 0, heads: Vec::new() })
    }

    /// Computes what makes the search fast. The separators are in order, so what the first and the last have in common,
    /// all have.
    fn prepare(&mut self) {
        let last = self.len().saturating_sub(1);
        self.prefix_len = common_prefix(self.separator(0).0, self.separator(last).0);
        self.heads = (0..self.len()).map(|at| head(self.separator(at).0, self.prefix_len)).collect();
    }

    /// Raises all UIDs by `uid`: what the index of a run of one commit says once the commit has its UID.
    pub(crate) fn raise(&mut self, uid: Uid) {
        let raised = |low: Uid| Uid::new(low.get().wrapping_add(uid.get()));
        for entry in &mut self.entries {
            entry.smallest_uid = raised(entry.smallest_uid);
            entry.highest_uid = raised(entry.highest_uid);
        }
    }

    /// How many blocks there are.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The entry of block `at`.
    #[inline]
    pub(crate) fn entry(&self, at: usize) -> Option<&IndexEntry> {
        self.entries.get(at)
    }

    /// The fingerprint over the newest versions in block `at`, if they are kept.
    pub(crate) fn fingerprint(&self, at: usize) -> Option<Fingerprint> {
        self.fingerprints.get(at).copied()
    }

    /// Whether the run keeps fingerprints.
    pub(crate) fn has_fingerprints(&self) -> bool {
        self.fingerprints.len() == self.entries.len()
    }

    /// The separator of block `at`: nothing in the block sorts behind it, and everything in the next block does. Its
    /// UID is zero unless the next block goes on with the same key.
    #[inline]
    pub(crate) fn separator(&self, at: usize) -> (&[u8], Uid) {
        match self.entries.get(at) {
            Some(entry) => {
                let start = entry.separator_start as usize;
                let end = start + entry.separator_len as usize;
                (self.bytes.get(start..end).unwrap_or_default(), entry.separator_uid)
            }
            None => (&[], Uid::ZERO),
        }
    }

    /// The one block that can hold the newest version of `key` at or below `uid`, and in or behind which everything
    /// that sorts behind that lies; `None` if everything in the run sorts before.
    #[inline]
    pub(crate) fn find(&self, key: &[u8], uid: Uid) -> Option<usize> {
        let (first, _) = self.separator(0);
        let prefix = first.get(..self.prefix_len).unwrap_or_default();
        if !key.starts_with(prefix) {
            return if key < prefix && !self.entries.is_empty() { Some(0) } else { None };
        }
        let wanted = head(key, self.prefix_len);
        let mut low = self.heads.partition_point(|head| *head < wanted);
        let mut high = low;
        while self.heads.get(high) == Some(&wanted) {
            high += 1;
            if high - low == TIES_IN_LINE {
                high =
                    low + self.heads.get(low..).unwrap_or_default().partition_point(|head| *head == wanted);
                break;
            }
        }
        while low < high {
            let middle = low + (high - low) / 2;
            let separator = self.separator(middle);
            if order(separator.0, separator.1, key, uid) == Ordering::Less {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        (low < self.len()).then_some(low)
    }
}

/// So many equal heads are counted one by one before a search for their end.
const TIES_IN_LINE: usize = 4;

/// The order of versions: by key, and the newest of a key first.
#[inline]
fn order(left: &[u8], left_uid: Uid, right: &[u8], right_uid: Uid) -> Ordering {
    left.cmp(right).then_with(|| right_uid.cmp(&left_uid))
}

fn decode_entry(decoder: &mut Decoder<'_>, total: usize, offset: u64) -> Option<IndexEntry> {
    let separator_len = usize::try_from(decoder.varint()?).ok().filter(|len| *len <= MAX_KEY_BYTES)?;
    let separator_start = total.checked_sub(decoder.remaining())? as u32;
    decoder.bytes(separator_len)?;
    let separator_uid = match decoder.u8()? {
        0 => Uid::ZERO,
        1 => Uid::new(decoder.u64()?),
        _ => return None,
    };
    let smallest = decoder.u64()?;
    let highest = smallest.checked_add(decoder.varint()?)?;
    let len = u32::try_from(decoder.varint()?).ok()?;
    let records = u32::try_from(decoder.varint()?).ok()?;
    Some(IndexEntry {
        offset,
        len,
        records,
        smallest_uid: Uid::new(smallest),
        highest_uid: Uid::new(highest),
        separator_uid,
        separator_start,
        separator_len: separator_len as u32,
    })
}

/// Collects the entries of an index while the blocks are written.
#[derive(Debug)]
pub(crate) struct IndexBuilder {
    bytes: Vec<u8>,
    count: u32,
    fingerprints: bool,
}

/// What the writer knows of a block that it has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EndedBlock<'a> {
    /// The last key in the block.
    pub(crate) last_key: &'a [u8],
    /// The UID of the last version.
    pub(crate) last_uid: Uid,
    /// The first key of the next block, if there is one.
    pub(crate) next_key: Option<&'a [u8]>,
    /// The smallest UID.
    pub(crate) smallest_uid: Uid,
    /// The highest UID.
    pub(crate) highest_uid: Uid,
    /// The length in the file.
    pub(crate) len: u32,
    /// How many versions the block holds.
    pub(crate) records: u32,
    /// The fingerprint over the newest versions of keys in the block.
    pub(crate) fingerprint: Fingerprint,
}

impl IndexBuilder {
    /// An index without entries.
    pub(crate) fn new(fingerprints: bool) -> Self {
        let flags = if fingerprints { FLAG_FINGERPRINTS } else { 0 };
        Self { bytes: vec![0, 0, 0, 0, flags], count: 0, fingerprints }
    }

    /// Adds the next block.
    pub(crate) fn add(&mut self, block: &EndedBlock<'_>) {
        let spans = block.next_key == Some(block.last_key);
        let shortened = block.next_key.filter(|_| !spans).and_then(|next| shorten(block.last_key, next));
        let separator = shortened.as_deref().unwrap_or(block.last_key);
        put_varint(&mut self.bytes, separator.len() as u64);
        self.bytes.extend_from_slice(separator);
        self.bytes.push(u8::from(spans));
        if spans {
            self.bytes.extend_from_slice(&block.last_uid.get().to_le_bytes());
        }
        self.bytes.extend_from_slice(&block.smallest_uid.get().to_le_bytes());
        put_varint(&mut self.bytes, block.highest_uid.get().saturating_sub(block.smallest_uid.get()));
        put_varint(&mut self.bytes, u64::from(block.len));
        put_varint(&mut self.bytes, u64::from(block.records));
        if self.fingerprints {
            put_varint(&mut self.bytes, block.fingerprint.count);
            self.bytes.extend_from_slice(&block.fingerprint.sum.to_le_bytes());
        }
        self.count += 1;
    }

    /// The size of the index so far, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of the index block.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        if let Some(count) = self.bytes.first_chunk_mut() {
            *count = self.count.to_le_bytes();
        }
        self.bytes
    }
}

/// A key shorter than `last` that is above it and below `next`, if there is one.
fn shorten(last: &[u8], next: &[u8]) -> Option<Vec<u8>> {
    let common = common_prefix(last, next);
    let (mut at, below) = (common, next.get(common).copied()?);
    let byte = last.get(at).copied()?;
    if byte.checked_add(1)? >= below {
        // The first differing bytes are neighbours: keep that of `last` and raise one behind it.
        at += 1;
        at += last.get(at..)?.iter().position(|byte| *byte < u8::MAX)?;
    }
    if at + 1 >= last.len() {
        return None;
    }
    let mut separator = last.get(..=at)?.to_vec();
    if let Some(raised) = separator.last_mut() {
        *raised += 1;
    }
    Some(separator)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::shorten;

    #[test]
    fn a_separator_is_shorter_than_the_last_key_and_lies_between() {
        for (last, next) in [
            (&b"abcdefg"[..], &b"abzzz"[..]),
            (b"abcdefg", b"abd"),
            (b"ab\xff\xffcde", b"ac"),
            (b"aaaa", b"b\x00"),
        ] {
            let separator = shorten(last, next).unwrap();
            assert!(
                separator.len() < last.len() && separator.as_slice() > last && separator.as_slice() < next
            );
        }
        assert_eq!(shorten(b"abc", b"abcd"), None);
        assert_eq!(shorten(b"ab", b"ac"), None);
        assert_eq!(shorten(b"ab\xff\xff", b"ac"), None);
        assert_eq!(shorten(b"", b"a"), None);
    }
}
