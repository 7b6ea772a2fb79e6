use std::cmp::Ordering;
use std::path::Path;
use std::sync::Arc;

use planaria_types::{Fingerprint, Uid};

use super::block_builder::{BlockBuilder, NewVersion};
use super::decode::common_prefix;
use super::envelope::{FOOTER_BYTES, Footer, RunKind, encode_header};
use super::filter::Filter;
use super::frame::{TRAILER_BYTES, compress, trailer};
use super::index::{EndedBlock, IndexBuilder};
use super::meta::{RunIdentity, RunMeta};
use super::options::{Codec, MAX_KEY_BYTES, MAX_ROW_BYTES, RunOptions};
use super::output::{Output, Unsynced};
use crate::cursor::RecordKind;
use crate::error::{Error, Result};
use crate::hash::{key_hash, record_hash};
use crate::os::Os;

/// Writes a run from front to back. The same records, identity and options make the same bytes.
///
/// A writer that is dropped leaves an unfinished file, which no reader opens.
#[derive(Debug)]
pub(crate) struct RunWriter {
    output: Output,
    identity: RunIdentity,
    options: RunOptions,
    block: BlockBuilder,
    block_stats: BlockStats,
    index: IndexBuilder,
    /// The hash of each distinct key.
    hashes: Vec<u64>,
    packed: Vec<u8>,
    smallest_key: Vec<u8>,
    last_key: Vec<u8>,
    last_uid: Uid,
    records: u64,
    puts: u64,
    raw_bytes: u64,
    smallest_uid: Uid,
    largest_uid: Uid,
    fingerprint: Fingerprint,
}

/// What the index will say of the block that is being filled.
#[derive(Debug)]
struct BlockStats {
    smallest_uid: Uid,
    highest_uid: Uid,
    fingerprint: Fingerprint,
}

impl BlockStats {
    const NONE: Self =
        Self { smallest_uid: Uid::MAX, highest_uid: Uid::ZERO, fingerprint: Fingerprint::EMPTY };
}

impl RunWriter {
    /// Creates the file at `path`, which must not exist.
    pub(crate) fn create(
        os: &Arc<dyn Os>,
        path: &Path,
        identity: RunIdentity,
        options: RunOptions,
    ) -> Result<Self> {
        let options = options.clamped();
        let mut output = Output::create(os, path)?;
        let kind = if options.one_commit { RunKind::OneCommit } else { RunKind::Versions };
        output.write(&encode_header(identity, kind))?;
        Ok(Self {
            output,
            identity,
            options,
            block: BlockBuilder::new(options.restart_interval),
            block_stats: BlockStats::NONE,
            index: IndexBuilder::new(options.fingerprints),
            hashes: Vec::new(),
            packed: Vec::new(),
            smallest_key: Vec::new(),
            last_key: Vec::new(),
            last_uid: Uid::ZERO,
            records: 0,
            puts: 0,
            raw_bytes: 0,
            smallest_uid: Uid::MAX,
            largest_uid: Uid::ZERO,
            fingerprint: Fingerprint::EMPTY,
        })
    }

    /// How many versions have been added.
    #[cfg(test)]
    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    /// About how long the file would be if it ended here, in bytes.
    pub(crate) fn estimated_bytes(&self) -> u64 {
        let filter = self.hashes.len() as u64 * u64::from(self.options.bits_per_key) / 8;
        let rest = self.block.estimated_bytes() + self.index.len() + FOOTER_BYTES;
        self.output.position() + filter + rest as u64
    }

    /// Adds a version. They come by key, ascending, and by UID, descending, each (key, UID) once; a delete has no row.
    ///
    /// # Errors
    ///
    /// `TooLarge` for a key above [`MAX_KEY_BYTES`] or a row above [`MAX_ROW_BYTES`], `Invalid` for a version out of
    /// order or a range delete, and what the file system says. The writer is of no use after an error of the file
    /// system.
    pub(crate) fn add(&mut self, key: &[u8], uid: Uid, kind: RecordKind, row: &[u8]) -> Result<()> {
        check_sizes(key, kind, row)?;
        let shared = common_prefix(&self.last_key, key);
        let same_key = self.check_order(key, shared, uid)?;
        if !same_key {
            self.hashes.push(key_hash(key));
        }
        let fits = self.block.estimated_bytes_with(key.len(), row.len()) <= self.options.block_bytes;
        if self.block.len() > 0 && !fits {
            self.end_block(Some(key))?;
        }
        let hash = self.hashes.last().copied().unwrap_or_default();
        let version = NewVersion { key, hash, shared, same_key, uid, kind, row };
        self.block.add(&version);
        self.count(&version);
        self.last_key.truncate(shared);
        self.last_key.extend_from_slice(key.get(shared..).unwrap_or_default());
        self.last_uid = uid;
        Ok(())
    }

    /// Whether `key` is the key of the version before, or an error if the new one does not sort behind it.
    fn check_order(&self, key: &[u8], shared: usize, uid: Uid) -> Result<bool> {
        if self.records == 0 {
            return Ok(false);
        }
        let order = self.last_key.get(shared..).cmp(&key.get(shared..));
        match order {
            Ordering::Less => Ok(false),
            Ordering::Equal if uid < self.last_uid => Ok(true),
            _ => Err(Error::Invalid(format!(
                "a version at {uid} was added to the run {} behind one at {} that it does not sort behind",
                self.output.path().display(),
                self.last_uid
            ))),
        }
    }

    fn count(&mut self, version: &NewVersion<'_>) {
        let NewVersion { key, same_key, uid, kind, row, .. } = *version;
        if self.records == 0 {
            self.smallest_key.extend_from_slice(key);
        }
        self.records += 1;
        self.raw_bytes += (key.len() + row.len()) as u64;
        self.smallest_uid = self.smallest_uid.min(uid);
        self.largest_uid = self.largest_uid.max(uid);
        self.block_stats.smallest_uid = self.block_stats.smallest_uid.min(uid);
        self.block_stats.highest_uid = self.block_stats.highest_uid.max(uid);
        if kind == RecordKind::Put {
            self.puts += 1;
            if self.options.fingerprints && !same_key {
                let hash = record_hash(key, uid, row);
                self.fingerprint.add_hash(hash);
                self.block_stats.fingerprint.add_hash(hash);
            }
        }
    }

    /// Writes the block that is being filled; `next_key` is the first key of the next one.
    fn end_block(&mut self, next_key: Option<&[u8]>) -> Result<()> {
        let records = self.block.len() as u32;
        let plain = self.block.finish();
        let (stored, codec) = match self.options.codec {
            Codec::Lz4 if compress(plain, &mut self.packed) => (self.packed.as_slice(), Codec::Lz4),
            _ => (plain, Codec::None),
        };
        let len = (stored.len() + TRAILER_BYTES) as u32;
        let trailer = trailer(stored, codec, self.identity, self.output.position());
        self.output.write(stored)?;
        self.output.write(&trailer)?;
        let stats = std::mem::replace(&mut self.block_stats, BlockStats::NONE);
        self.index.add(&EndedBlock {
            last_key: &self.last_key,
            last_uid: self.last_uid,
            next_key,
            smallest_uid: stats.smallest_uid,
            highest_uid: stats.highest_uid,
            len,
            records,
            fingerprint: stats.fingerprint,
        });
        self.block.clear();
        Ok(())
    }

    /// Ends the run and makes its bytes durable; its name is durable once the caller has synced the directory.
    ///
    /// # Errors
    ///
    /// `Invalid` if nothing was added: a run without records is never written. `TooLarge` if the index passes 4 GiB.
    /// The file is removed if it cannot be completed.
    pub(crate) fn finish(self) -> Result<RunMeta> {
        let (os, path) = (Arc::clone(self.output.os()), self.output.path().to_path_buf());
        let (meta, unsynced) = self.end()?;
        if let Err(error) = unsynced.sync() {
            let _ = os.remove_file(&path);
            return Err(error);
        }
        Ok(meta)
    }

    /// As [`Self::finish`], but for the sync, which is up to the caller.
    pub(crate) fn end(mut self) -> Result<(RunMeta, Unsynced)> {
        let completed = self.complete();
        if completed.is_err() {
            // A file that stays behind is garbage that the next open removes.
            let _ = self.discard();
        }
        completed
    }

    fn complete(&mut self) -> Result<(RunMeta, Unsynced)> {
        if self.records == 0 {
            return Err(Error::Invalid(format!("the run {} has no records", self.output.path().display())));
        }
        self.end_block(None)?;
        let range_deletes = self.write_part(&0_u32.to_le_bytes())?;
        let filter = Filter::build(&self.hashes, self.options.bits_per_key).encode();
        let filter = self.write_part(&filter)?;
        let index = std::mem::replace(&mut self.index, IndexBuilder::new(false)).finish();
        let (bytes, limit) = (index.len() as u64, u64::from(u32::MAX));
        if bytes > limit {
            return Err(Error::TooLarge { what: "the index of a run", bytes, limit });
        }
        let index = self.write_part(&index)?;
        let mut meta = self.meta();
        let properties = self.write_part(&meta.encode_properties())?;
        let list = self.output.end_content()?;
        meta.content_len = self.output.position();
        meta.content_hash = list.content_hash();
        let chunks = self.write_part(&list.encode())?;
        let footer = Footer {
            range_deletes,
            filter,
            index,
            properties,
            chunks,
            end: self.output.position(),
            content_hash: meta.content_hash,
        };
        self.output.write(&footer.encode(self.identity))?;
        meta.len = self.output.position();
        Ok((meta, self.output.end()?))
    }

    /// Gives up and removes the file.
    pub(crate) fn discard(self) -> Result<()> {
        self.output.discard()
    }

    /// Writes a part behind the data blocks and says where it begins.
    fn write_part(&mut self, bytes: &[u8]) -> Result<u64> {
        let offset = self.output.position();
        let trailer = trailer(bytes, Codec::None, self.identity, offset);
        self.output.write(bytes)?;
        self.output.write(&trailer)?;
        Ok(offset)
    }

    /// The meta data, with the lengths and the content hash still to come.
    fn meta(&mut self) -> RunMeta {
        RunMeta {
            identity: self.identity,
            len: 0,
            content_len: 0,
            content_hash: [0; 32],
            records: self.records,
            puts: self.puts,
            smallest_key: std::mem::take(&mut self.smallest_key),
            largest_key: self.last_key.clone(),
            smallest_uid: self.smallest_uid,
            largest_uid: self.largest_uid,
            fingerprint: self.options.fingerprints.then_some(self.fingerprint),
            raw_bytes: self.raw_bytes,
        }
    }
}

fn check_sizes(key: &[u8], kind: RecordKind, row: &[u8]) -> Result<()> {
    for (what, bytes, limit) in [("a key", key.len(), MAX_KEY_BYTES), ("a row", row.len(), MAX_ROW_BYTES)] {
        if bytes > limit {
            return Err(Error::TooLarge { what, bytes: bytes as u64, limit: limit as u64 });
        }
    }
    match kind {
        RecordKind::Put => Ok(()),
        RecordKind::Delete if row.is_empty() => Ok(()),
        RecordKind::Delete => Err(Error::Invalid("a delete has no row".to_owned())),
        RecordKind::RangeDelete => Err(Error::Invalid("range deletes are not written yet".to_owned())),
    }
}
