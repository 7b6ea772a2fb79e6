use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
#[cfg(test)]
use planaria_types::Fingerprint;
use planaria_types::Uid;

use super::block::{Block, Malformed};
use super::cache::BlockCache;
use super::chunks::{ChunkHashes, HASH_BYTES};
use super::envelope::{FOOTER_BYTES, Footer, HEADER_BYTES, RunKind, check_header};
use super::filter::Filter;
use super::frame::Frame;
use super::index::{Index, IndexEntry};
use super::meta::{RunIdentity, RunMeta};
use super::run_cursor::RunCursor;
use crate::cursor::Version;
use crate::error::{Error, Result};
use crate::health::Health;
use crate::os::{OpenMode, Os, OsFile};
use crate::sync::{AtomicBool, AtomicU64, OnceLock, Ordering};

/// How the data blocks of a run are read. The answers are the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ReadMode {
    /// By reads into the block cache.
    #[default]
    Cached,
    /// In place in a map of the file, where the system has maps; compressed blocks go through the cache.
    Mapped,
}

/// The fingerprint of one data block, and what it stands for.
#[cfg(test)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockFingerprint<'a> {
    /// A key below which, or at which, every earlier block ends; `None` for the first block.
    pub(crate) after: Option<&'a [u8]>,
    /// Whether the block goes on with the key `after`, so that the newest version of that key lies further ahead.
    pub(crate) continues: bool,
    /// A key at or below which every key of the block lies.
    pub(crate) last: &'a [u8],
    /// The highest UID in the block.
    pub(crate) highest_uid: Uid,
    /// The fingerprint over the versions in the block that are the newest of their key in the run, and puts.
    pub(crate) fingerprint: Fingerprint,
}

/// An open run. Index and filter are in memory, data blocks come as they are asked for; each is verified before it is
/// used.
#[derive(Debug)]
pub(crate) struct Run {
    os: Arc<dyn Os>,
    path: PathBuf,
    file: Arc<dyn OsFile>,
    meta: RunMeta,
    mode: ReadMode,
    /// What lies around the data blocks. There from the beginning, but for a run whose file may not be here yet.
    around: OnceLock<Surroundings>,
    /// The hashes of the file's chunks, once somebody has asked for them.
    pub(super) hashes: OnceLock<Arc<[[u8; HASH_BYTES]]>>,
    blocks: Arc<BlockCache>,
    cache_id: u64,
    obsolete: AtomicBool,
}

/// What is read of a run before its data blocks are.
#[derive(Debug)]
struct Surroundings {
    kind: RunKind,
    /// What is added to every UID in the file: that of the commit, for a run of one commit; else zero.
    uid_base: Uid,
    footer: Footer,
    index: Index,
    filter: Filter,
    map: Option<MappedBlocks>,
}

impl Surroundings {
    /// Reads them from the file, which must be exactly the one that `meta` describes.
    fn read(path: &Path, file: &dyn OsFile, meta: &RunMeta, mode: ReadMode) -> Result<Self> {
        let parts = Parts { path, file, identity: meta.identity, uid_base: Uid::ZERO };
        let (mut found, footer, kind) = parts.meta()?;
        let uid_base = match kind {
            RunKind::Versions => Uid::ZERO,
            RunKind::OneCommit => meta.smallest_uid,
        };
        if kind == RunKind::OneCommit {
            found.name_commit(uid_base);
        }
        if found != *meta {
            return Err(parts.mismatch(&found, meta));
        }
        parts.refuse_range_deletes(&footer)?;
        let filter = parts.part(footer.filter, footer.index)?;
        let filter = Filter::decode(&filter).map_err(|malformed| parts.damaged(footer.filter, malformed))?;
        let mut index = Index::decode(
            parts.part(footer.index, footer.properties)?,
            HEADER_BYTES as u64,
            footer.range_deletes,
        )
        .map_err(|malformed| parts.damaged(footer.index, malformed))?;
        index.raise(uid_base);
        let map = match mode {
            ReadMode::Cached => None,
            ReadMode::Mapped => file.map(meta.len).map_err(|error| Error::io("map", path, error))?,
        };
        let words = index.len().div_ceil(64);
        let map = map
            .map(|bytes| MappedBlocks { bytes, verified: (0..words).map(|_| AtomicU64::new(0)).collect() });
        Ok(Self { kind, uid_base, footer, index, filter, map })
    }
}

/// A map of the file, and which blocks of it have been verified since it was opened, a bit each.
#[derive(Debug)]
struct MappedBlocks {
    bytes: Bytes,
    verified: Vec<AtomicU64>,
}

impl MappedBlocks {
    fn is_verified(&self, at: usize) -> bool {
        self.verified.get(at / 64).is_some_and(|word| word.load(Ordering::Acquire) >> (at % 64) & 1 == 1)
    }

    fn set_verified(&self, at: usize) {
        if let Some(word) = self.verified.get(at / 64) {
            word.fetch_or(1 << (at % 64), Ordering::Release);
        }
    }

    /// The part of the map where `entry` lies.
    fn frame(&self, entry: &IndexEntry) -> Option<Bytes> {
        let start = usize::try_from(entry.offset).ok()?;
        let end = start.checked_add(entry.len as usize)?;
        (end <= self.bytes.len()).then(|| self.bytes.slice(start..end))
    }
}

impl Run {
    /// Opens the run at `path`, which must be exactly the one that `meta` describes. A run of one commit learns from
    /// `meta` the UID of its commit; zero for one that has none yet.
    ///
    /// # Errors
    ///
    /// `Damaged` where bytes do not fit their checksums or `meta`, `Foreign` for another file or a newer format.
    pub(crate) fn open(
        os: &Arc<dyn Os>,
        path: &Path,
        identity: RunIdentity,
        meta: &RunMeta,
        blocks: &Arc<BlockCache>,
        mode: ReadMode,
    ) -> Result<Arc<Self>> {
        let run = Self::open_unread(os, path, meta, blocks, mode)?;
        if identity != meta.identity {
            let (file, path) = (run.file.as_ref(), run.path.as_path());
            let parts = Parts { path, file, identity, uid_base: Uid::ZERO };
            return Err(parts.mismatch(&parts.meta()?.0, meta));
        }
        run.surroundings()?;
        Ok(run)
    }

    /// As [`Run::open`], for a file whose bytes may not be here yet: nothing of it is read, nor checked, before somebody
    /// asks for it.
    pub(crate) fn open_unread(
        os: &Arc<dyn Os>,
        path: &Path,
        meta: &RunMeta,
        blocks: &Arc<BlockCache>,
        mode: ReadMode,
    ) -> Result<Arc<Self>> {
        let file = os.open(path, OpenMode::Read).map_err(|error| Error::io("open", path, error))?;
        Ok(Arc::new(Self {
            os: Arc::clone(os),
            path: path.to_path_buf(),
            file,
            meta: meta.clone(),
            mode,
            around: OnceLock::new(),
            hashes: OnceLock::new(),
            cache_id: blocks.register(),
            blocks: Arc::clone(blocks),
            obsolete: AtomicBool::new(false),
        }))
    }

    /// What lies around the data blocks.
    #[inline]
    fn surroundings(&self) -> Result<&Surroundings> {
        match self.around.get() {
            Some(around) => Ok(around),
            None => self.read_surroundings(),
        }
    }

    #[cold]
    fn read_surroundings(&self) -> Result<&Surroundings> {
        let read =
            self.health().noted(Surroundings::read(&self.path, self.file.as_ref(), &self.meta, self.mode))?;
        // Where two threads have read them, they have read the same.
        Ok(self.around.get_or_init(|| read))
    }

    /// What the file at `path` says of itself, for when no manifest describes it.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn read_meta(os: &Arc<dyn Os>, path: &Path, identity: RunIdentity) -> Result<RunMeta> {
        let file = os.open(path, OpenMode::Read).map_err(|error| Error::io("open", path, error))?;
        let parts = Parts { path, file: file.as_ref(), identity, uid_base: Uid::ZERO };
        parts.meta().map(|(meta, ..)| meta)
    }

    /// Gives a run of one commit, opened before the commit had a UID and read by nobody yet, that UID.
    pub(crate) fn name_commit(self: Arc<Self>, uid: Uid) -> Result<Arc<Self>> {
        let misused = || Error::Invalid("the UIDs of a run change only before anybody reads it".to_owned());
        let mut run = Arc::into_inner(self).ok_or_else(misused)?;
        let around = run.around.get_mut().ok_or_else(misused)?;
        if around.kind == RunKind::Versions || around.uid_base != Uid::ZERO {
            return Err(misused());
        }
        around.index.raise(uid);
        around.uid_base = uid;
        run.meta.name_commit(uid);
        Ok(Arc::new(run))
    }

    /// Where damage that is met in it is remembered.
    #[inline]
    pub(crate) fn health(&self) -> &Health {
        self.blocks.health()
    }

    /// What a manifest holds of the run.
    pub(crate) fn meta(&self) -> &RunMeta {
        &self.meta
    }

    /// Where the file lies.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the run may hold the key with this hash: `false` is certain.
    #[cfg(test)]
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        self.surroundings().is_ok_and(|around| around.filter.may_contain(hash))
    }

    /// A key with about half of the blocks on either side; `None` if there is but one, or the index cannot be read.
    pub(crate) fn middle_key(&self) -> Option<Vec<u8>> {
        let index = self.index().ok()?;
        let blocks = index.len();
        (blocks > 1).then(|| index.separator(blocks / 2 - 1).0.to_vec())
    }

    /// The newest version of `key`, whose hash is `hash`, with a UID at or below `at`.
    pub(crate) fn get(&self, key: &[u8], hash: u64, at: Uid) -> Result<Option<Version>> {
        let Surroundings { filter, index, .. } = self.surroundings()?;
        if !filter.may_contain(hash) {
            return Ok(None);
        }
        let Some(number) = index.find(key, at) else {
            return Ok(None);
        };
        // Most reads are at a cut above the whole run, and spare the look at the index.
        if at < self.meta.largest_uid && index.entry(number).is_none_or(|entry| entry.smallest_uid > at) {
            return Ok(None);
        }
        let block = self.block(number)?;
        match block.get(key, hash, at) {
            Ok(Some(found)) => {
                let row = if found.row.is_empty() { Bytes::new() } else { block.into_part(found.row) };
                Ok(Some(Version { uid: found.uid, kind: found.kind, row }))
            }
            Ok(None) => Ok(None),
            Err(malformed) => Err(self.damaged(number, malformed)),
        }
    }

    /// A cursor over all versions, or over those with a UID above `since`; it stands nowhere yet.
    pub(crate) fn cursor(self: &Arc<Self>, since: Option<Uid>) -> RunCursor {
        RunCursor::new(Arc::clone(self), since, false)
    }

    /// As [`Self::cursor`], for reading much once: it reads ahead from the file and leaves the cache
    /// alone. A row that is kept keeps up to 256 KiB around it in memory.
    pub(crate) fn scan_cursor(self: &Arc<Self>, since: Option<Uid>) -> RunCursor {
        RunCursor::new(Arc::clone(self), since, true)
    }

    /// The fingerprints of the data blocks, in the order of the keys; none if the run was written without.
    #[cfg(test)]
    pub(crate) fn fingerprint_blocks(&self) -> impl Iterator<Item = BlockFingerprint<'_>> {
        let index = self.index().ok();
        (0..index.map_or(0, Index::len)).map_while(move |at| {
            let index = index?;
            let before = at.checked_sub(1).map(|before| index.separator(before));
            Some(BlockFingerprint {
                after: before.map(|(key, _)| key),
                continues: before.is_some_and(|(_, uid)| uid != Uid::ZERO),
                last: index.separator(at).0,
                highest_uid: index.entry(at)?.highest_uid,
                fingerprint: index.fingerprint(at)?,
            })
        })
    }

    /// The hashes of the file's chunks, read from the file and checked against the content hash.
    pub(crate) fn chunk_hashes(&self) -> Result<ChunkHashes> {
        let footer = &self.surroundings()?.footer;
        let table = self.parts()?.part(footer.chunks, footer.end)?;
        ChunkHashes::decode(&table, &self.meta).ok_or_else(|| {
            Error::damaged(&self.path, footer.chunks, "the chunk table does not match the content hash")
        })
    }

    /// Has the file removed when the last user of the run lets it go.
    pub(crate) fn mark_obsolete(&self) {
        self.obsolete.store(true, Ordering::Release);
    }

    /// The index. It fails only where the file is not here yet, or is read for the first time and damaged.
    #[inline]
    pub(crate) fn index(&self) -> Result<&Index> {
        Ok(&self.surroundings()?.index)
    }

    /// The filter.
    pub(crate) fn filter(&self) -> Result<&Filter> {
        Ok(&self.surroundings()?.filter)
    }

    /// The file as a whole, for reads past cache and map.
    pub(crate) fn parts(&self) -> Result<Parts<'_>> {
        let uid_base = self.surroundings()?.uid_base;
        Ok(Parts { path: &self.path, file: self.file.as_ref(), identity: self.meta.identity, uid_base })
    }

    /// Damage in block `number`.
    pub(crate) fn damaged(&self, number: usize, malformed: Malformed) -> Error {
        let entry = self.index().ok().and_then(|index| index.entry(number));
        Error::damaged(&self.path, entry.map_or(0, |entry| entry.offset), malformed.0)
    }

    /// The entry of block `number`.
    pub(crate) fn index_entry(&self, number: usize) -> Result<&IndexEntry> {
        let Surroundings { index, footer, .. } = self.surroundings()?;
        index.entry(number).ok_or_else(|| {
            Error::damaged(&self.path, footer.index, format!("the index has no block {number}"))
        })
    }

    /// Block `number`, verified.
    #[inline]
    pub(crate) fn block(&self, number: usize) -> Result<Block> {
        if let Some(map) = &self.surroundings()?.map
            && let Some(block) =
                self.health().noted(self.mapped_block(map, number, self.index_entry(number)?))?
        {
            return Ok(block);
        }
        if let Some(block) = self.blocks.get(self.cache_id, number) {
            return Ok(block);
        }
        let block = self.health().noted(self.parts()?.block(self.index_entry(number)?))?;
        self.blocks.insert(self.cache_id, number, &block);
        Ok(block)
    }

    /// The block where the map has it, or `None` if it is compressed. The first touch of a block is a read, so that a
    /// medium that fails answers with an error and not with a signal.
    fn mapped_block(&self, map: &MappedBlocks, number: usize, entry: &IndexEntry) -> Result<Option<Block>> {
        let malformed = |malformed| self.damaged(number, malformed);
        if !map.is_verified(number) {
            self.parts()?.frame(entry)?;
            map.set_verified(number);
        }
        let frame = map.frame(entry).ok_or_else(|| malformed(Malformed("a block lies behind the map")))?;
        let (frame, _) = Frame::open_verified(frame).map_err(malformed)?;
        if !frame.is_plain() {
            return Ok(None);
        }
        let block = Block::parse(frame.into_bytes(&self.path, entry.offset)?).map_err(malformed)?;
        Ok(Some(block.raised(self.surroundings()?.uid_base)))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        for number in 0..self.around.get().map_or(0, |around| around.index.len()) {
            self.blocks.remove(self.cache_id, number);
        }
        if self.obsolete.load(Ordering::Acquire) {
            // A file that cannot be removed now is no part of any version: the next start removes it.
            let _ = self.os.remove_file(&self.path);
        }
    }
}

/// Reads the parts of a run file past cache and map, each verified.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    path: &'a Path,
    file: &'a dyn OsFile,
    identity: RunIdentity,
    uid_base: Uid,
}

impl Parts<'_> {
    /// The bytes from `start` to `end`, as they lie.
    pub(crate) fn bytes(&self, start: u64, end: u64) -> Result<Vec<u8>> {
        let len = end
            .checked_sub(start)
            .and_then(|len| usize::try_from(len).ok())
            .ok_or_else(|| Error::damaged(self.path, start, "a part of a run ends before it begins"))?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, start).map_err(|error| Error::io("read", self.path, error))?;
        Ok(bytes)
    }

    /// The block that `entry` names, as it is stored, its checksum compared.
    fn frame(&self, entry: &IndexEntry) -> Result<Frame> {
        let bytes = self.bytes(entry.offset, entry.offset + u64::from(entry.len))?;
        self.open_frame(Bytes::from_owner(bytes), entry.offset)
    }

    fn open_frame(&self, bytes: Bytes, offset: u64) -> Result<Frame> {
        Frame::open(bytes, self.identity, offset).map_err(|malformed| self.damaged(offset, malformed))
    }

    /// The block that `entry` names.
    pub(crate) fn block(&self, entry: &IndexEntry) -> Result<Block> {
        self.parse_block(self.frame(entry)?, entry.offset)
    }

    /// The block whose stored bytes, with trailer, are `bytes`.
    pub(crate) fn block_from(&self, bytes: Bytes, offset: u64) -> Result<Block> {
        self.parse_block(self.open_frame(bytes, offset)?, offset)
    }

    fn parse_block(&self, frame: Frame, offset: u64) -> Result<Block> {
        Block::parse(frame.into_bytes(self.path, offset)?)
            .map(|block| block.raised(self.uid_base))
            .map_err(|malformed| self.damaged(offset, malformed))
    }

    /// The contents of a part behind the data blocks.
    fn part(&self, start: u64, end: u64) -> Result<Bytes> {
        let bytes = Bytes::from_owner(self.bytes(start, end)?);
        self.open_frame(bytes, start)?.into_bytes(self.path, start)
    }

    /// What the file says of itself.
    pub(super) fn meta(&self) -> Result<(RunMeta, Footer, RunKind)> {
        let len = self.file.len().map_err(|error| Error::io("read the length of", self.path, error))?;
        let offset = len
            .checked_sub(FOOTER_BYTES as u64)
            .filter(|offset| *offset >= HEADER_BYTES as u64)
            .ok_or_else(|| Error::damaged(self.path, len, "the file is too short for a run"))?;
        let mut header = [0; HEADER_BYTES];
        self.file.read_exact_at(&mut header, 0).map_err(|error| Error::io("read", self.path, error))?;
        let kind = check_header(&header, self.identity, self.path)?;
        let mut footer = [0; FOOTER_BYTES];
        self.file.read_exact_at(&mut footer, offset).map_err(|error| Error::io("read", self.path, error))?;
        let footer = Footer::decode(&footer, self.identity, offset, self.path)?;
        let properties = self.part(footer.properties, footer.chunks)?;
        let meta =
            RunMeta::decode_properties(&properties, self.identity, len, footer.chunks, footer.content_hash)
                .filter(|meta| kind == RunKind::Versions || meta.largest_uid == Uid::ZERO)
                .ok_or_else(|| self.damaged(footer.properties, Malformed("the properties make no sense")))?;
        Ok((meta, footer, kind))
    }

    fn refuse_range_deletes(&self, footer: &Footer) -> Result<()> {
        if self.part(footer.range_deletes, footer.filter)?.as_ref() == 0_u32.to_le_bytes().as_slice() {
            return Ok(());
        }
        let what = "it holds range deletes, a newer format than this version of Planaria knows. Use the version that \
                    wrote it";
        Err(Error::Foreign { path: self.path.to_path_buf(), what: what.to_owned() })
    }

    fn mismatch(&self, found: &RunMeta, expected: &RunMeta) -> Error {
        if found.identity != expected.identity {
            let what = format!(
                "it is file {}, and file {} is expected",
                found.identity.file, expected.identity.file
            );
            return Error::Foreign { path: self.path.to_path_buf(), what };
        }
        let what = if found.len == expected.len {
            "the run is sound in itself, but not the one that the manifest names".to_owned()
        } else {
            format!("the file has {} bytes, and the manifest says {}", found.len, expected.len)
        };
        Error::damaged(self.path, found.len.min(expected.len), what)
    }

    fn damaged(&self, offset: u64, malformed: Malformed) -> Error {
        Error::damaged(self.path, offset, malformed.0)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "reader_tests.rs"]
mod tests;
