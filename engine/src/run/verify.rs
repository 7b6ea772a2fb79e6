use std::cmp::Ordering;
use std::sync::Arc;

use planaria_types::{Fingerprint, Uid};

use super::block::{Block, Malformed};
use super::block_cursor::BlockCursor;
use super::chunks::{CHUNK_BYTES, ChunkHashes, HASH_BYTES};
use super::index::Index;
use super::reader::Run;
use crate::cursor::RecordKind;
use crate::error::{Error, Result};
use crate::hash::{key_hash, record_hash};

/// What a walk over all versions of a run has seen so far.
#[derive(Debug)]
struct Tally {
    records: u64,
    puts: u64,
    raw_bytes: u64,
    smallest_uid: Uid,
    largest_uid: Uid,
    fingerprint: Fingerprint,
    smallest_key: Vec<u8>,
    last_key: Vec<u8>,
    last_uid: Uid,
    last_hash: u64,
    hashes: Vec<u64>,
}

impl Tally {
    fn new() -> Self {
        Self {
            records: 0,
            puts: 0,
            raw_bytes: 0,
            smallest_uid: Uid::MAX,
            largest_uid: Uid::ZERO,
            fingerprint: Fingerprint::EMPTY,
            smallest_key: Vec::new(),
            last_key: Vec::new(),
            last_uid: Uid::ZERO,
            last_hash: 0,
            hashes: Vec::new(),
        }
    }

    /// Takes in the next version; the answer is whether its key is new, or that it does not sort behind the one before.
    fn add(&mut self, key: &[u8], uid: Uid, kind: RecordKind, row: &[u8]) -> Result<bool, Malformed> {
        let order = if self.records == 0 { Ordering::Less } else { self.last_key.as_slice().cmp(key) };
        let new_key = match order {
            Ordering::Less => true,
            Ordering::Equal if uid < self.last_uid => false,
            _ => return Err(Malformed("the records of a block are out of order")),
        };
        if self.records == 0 {
            self.smallest_key.extend_from_slice(key);
        }
        if new_key {
            self.last_hash = key_hash(key);
            self.hashes.push(self.last_hash);
            self.last_key.clear();
            self.last_key.extend_from_slice(key);
        }
        self.last_uid = uid;
        self.records += 1;
        self.puts += u64::from(kind == RecordKind::Put);
        self.raw_bytes += (key.len() + row.len()) as u64;
        self.smallest_uid = self.smallest_uid.min(uid);
        self.largest_uid = self.largest_uid.max(uid);
        Ok(new_key)
    }
}

impl Run {
    /// Reads the whole file, past cache and map, and checks everything that was computed from the records: chunk
    /// hashes, checksums, order, the index, the hash index and UID columns of each block, the filter, the
    /// fingerprints and the meta data. Answers how many bytes the file has. Memory: 8 bytes for each distinct key,
    /// and one block.
    pub(crate) fn verify(&self) -> Result<u64> {
        self.health().noted(self.verify_all())
    }

    fn verify_all(&self) -> Result<u64> {
        self.verify_chunks()?;
        let mut tally = Tally::new();
        for number in 0..self.index()?.len() {
            self.verify_block(number, &mut tally)?;
        }
        self.verify_totals(&tally)?;
        Ok(self.meta().len)
    }

    /// The hashes of the file's chunks as it lies, end and all, for whoever sends it. The first call checks the end of the file and
    /// hashes what lies there: what was damaged before must not be given away as if it were promised. Later ones answer the same.
    pub(crate) fn hashes_as_it_lies(&self) -> Result<Arc<[[u8; HASH_BYTES]]>> {
        match self.hashes.get() {
            Some(known) => Ok(Arc::clone(known)),
            None => self.health().noted(self.hash_as_it_lies()),
        }
    }

    fn hash_as_it_lies(&self) -> Result<Arc<[[u8; HASH_BYTES]]>> {
        let parts = self.parts()?;
        // The footer and what it leads to have checksums of their own.
        parts.meta()?;
        let list = self.chunk_hashes()?;
        if let Some(last) = list.len().checked_sub(1) {
            self.verify_chunk(&list, last)?;
        }
        // The list of the run ends with its contents: the chunks behind them, and one that they share, are hashed here.
        let meta = self.meta();
        let whole = meta.content_len / CHUNK_BYTES as u64;
        let mut hashes = list.hashes().get(..whole as usize).unwrap_or_default().to_vec();
        let starts = (whole * CHUNK_BYTES as u64..meta.len).step_by(CHUNK_BYTES);
        for start in starts {
            let bytes = parts.bytes(start, meta.len.min(start + CHUNK_BYTES as u64))?;
            hashes.push(*blake3::hash(&bytes).as_bytes());
        }
        Ok(Arc::clone(self.hashes.get_or_init(|| hashes.into())))
    }

    fn verify_chunks(&self) -> Result<()> {
        let list = self.chunk_hashes()?;
        (0..list.len()).try_for_each(|index| self.verify_chunk(&list, index))
    }

    fn verify_chunk(&self, list: &ChunkHashes, index: usize) -> Result<()> {
        let range = list.range(index).unwrap_or_default();
        let bytes = self.parts()?.bytes(range.start, range.end)?;
        if list.matches(index, &bytes) {
            return Ok(());
        }
        let what = format!("the hash of a chunk of {CHUNK_BYTES} bytes does not match");
        Err(Error::damaged(self.path(), range.start, what))
    }

    fn verify_block(&self, number: usize, tally: &mut Tally) -> Result<()> {
        let (index, entry) = (self.index()?, self.index_entry(number)?);
        let block = self.parts()?.block(entry)?;
        if block.count() != entry.records as usize {
            return Err(
                self.damaged(number, Malformed("a block does not have the records that the index says"))
            );
        }
        let fingerprint = walk(&block, tally)
            .and_then(|walked| {
                verify_separator(index, number, &walked, tally)?;
                (walked.smallest_uid == entry.smallest_uid && walked.highest_uid == entry.highest_uid)
                    .then_some(walked.fingerprint)
                    .ok_or(Malformed("the UIDs of a block are not those that the index says"))
            })
            .map_err(|malformed| self.damaged(number, malformed))?;
        if index.fingerprint(number).is_some_and(|kept| kept != fingerprint) {
            return Err(
                self.damaged(number, Malformed("the fingerprint of a block does not match its records"))
            );
        }
        tally.fingerprint += fingerprint;
        Ok(())
    }

    fn verify_totals(&self, tally: &Tally) -> Result<()> {
        let meta = self.meta();
        let numbers = (tally.records, tally.puts, tally.raw_bytes, tally.smallest_uid, tally.largest_uid);
        let same = numbers == (meta.records, meta.puts, meta.raw_bytes, meta.smallest_uid, meta.largest_uid)
            && tally.smallest_key == meta.smallest_key
            && tally.last_key == meta.largest_key;
        let what = if !same {
            "the properties do not match the records"
        } else if meta.fingerprint.is_some_and(|kept| kept != tally.fingerprint)
            || meta.fingerprint.is_some() != self.index()?.has_fingerprints()
        {
            "the fingerprint of the run does not match its records"
        } else if self.filter()?.rebuild(&tally.hashes) != *self.filter()? {
            "the filter does not match the keys"
        } else {
            return Ok(());
        };
        Err(Error::damaged(self.path(), meta.content_len, what))
    }
}

/// The first version of the block sorts behind the separator before it, the last at or before its own.
fn verify_separator(index: &Index, number: usize, walked: &Walked, tally: &Tally) -> Result<(), Malformed> {
    let behind = |key: &[u8], uid: Uid, number: usize| {
        let (separator, separator_uid) = index.separator(number);
        key.cmp(separator).then_with(|| separator_uid.cmp(&uid)) == Ordering::Greater
    };
    let starts_behind =
        number.checked_sub(1).is_none_or(|before| behind(&walked.first_key, walked.first_uid, before));
    if !starts_behind || behind(&tally.last_key, tally.last_uid, number) {
        return Err(Malformed("the keys of a block are not those that the index says"));
    }
    Ok(())
}

/// What a walk over one block has seen.
struct Walked {
    first_key: Vec<u8>,
    first_uid: Uid,
    smallest_uid: Uid,
    highest_uid: Uid,
    fingerprint: Fingerprint,
}

/// Goes over the versions of a block and checks its hash index and its columns.
fn walk(block: &Block, tally: &mut Tally) -> Result<Walked, Malformed> {
    let mut cursor = BlockCursor::new(None);
    cursor.reset(block.clone());
    let mut stands = cursor.first()?;
    let mut walked = Walked {
        first_key: cursor.key().to_vec(),
        first_uid: cursor.uid(),
        smallest_uid: Uid::MAX,
        highest_uid: Uid::ZERO,
        fingerprint: Fingerprint::EMPTY,
    };
    let mut interval_highest = Uid::ZERO;
    while stands {
        let (key, uid) = (cursor.key(), cursor.uid());
        let position = cursor.position();
        let restart = position / block.interval();
        let new_key = tally.add(key, uid, cursor.kind(), cursor.row_ref())?;
        if (new_key || position == 0) && !block.leads_to(tally.last_hash, restart) {
            return Err(Malformed("the hash index of a block does not lead to a key"));
        }
        if position.is_multiple_of(block.interval()) {
            if !cursor.is_at_restart(restart)? {
                return Err(Malformed("a restart of a block does not lead to its entry"));
            }
            interval_highest = Uid::ZERO;
        }
        interval_highest = interval_highest.max(uid);
        let interval_ends = (position + 1).is_multiple_of(block.interval()) || position + 1 == block.count();
        if interval_ends && interval_highest != block.highest_uid(restart) {
            return Err(Malformed("the highest UID of a restart interval is wrong"));
        }
        if new_key && cursor.kind() == RecordKind::Put {
            walked.fingerprint.add_hash(record_hash(key, uid, cursor.row_ref()));
        }
        walked.smallest_uid = walked.smallest_uid.min(uid);
        walked.highest_uid = walked.highest_uid.max(uid);
        stands = cursor.next()?;
    }
    Ok(walked)
}
