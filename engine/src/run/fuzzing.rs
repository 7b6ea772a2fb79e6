//! What a fuzzer does with the parts of a run.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use planaria_types::{FileId, InstanceId, Uid};

use super::block::Block;
use super::block_builder::{BlockBuilder, NewVersion};
use super::block_cursor::BlockCursor;
use super::decode::common_prefix;
use super::filter::Filter;
use super::index::Index;
use super::{BlockCache, Codec, ReadMode, Run, RunIdentity, RunOptions, RunWriter};
use crate::cursor::{Cursor, RecordKind};
use crate::error::Result;
use crate::hash::key_hash;
use crate::os::{MemOs, OpenMode, Os};

const IDENTITY: RunIdentity = RunIdentity { store: InstanceId(7), file: FileId(1) };
const CACHE_BYTES: u64 = 1 << 16;

/// Asks everything that can be asked of a block, an index and a filter.
pub(crate) fn parts(bytes: &[u8]) {
    if let Ok(filter) = Filter::decode(bytes) {
        assert_eq!(filter.encode(), bytes, "a filter is what it decodes from");
        let _ = filter.may_contain(key_hash(bytes));
    }
    let owned = Bytes::copy_from_slice(bytes);
    if let Ok(index) = Index::decode(owned.clone(), 0, bytes.len() as u64) {
        let _ = index.find(bytes, Uid::MAX).map(|at| index.entry(at).is_some());
    }
    let Ok(block) = Block::parse(owned) else { return };
    for since in [None, Some(Uid::new(1 << 20))] {
        let mut cursor = BlockCursor::new(since);
        cursor.reset(block.clone());
        let mut steps = 0;
        let mut moved = cursor.first();
        while moved == Ok(true) {
            let (key, uid) = (cursor.key().to_vec(), cursor.uid());
            let _ = block.get(&key, key_hash(&key), uid);
            steps += 1;
            assert!(steps <= block.count(), "a block shows more than it holds");
            moved = cursor.next();
        }
        let mut moved = cursor.last();
        while moved == Ok(true) {
            steps += 1;
            assert!(steps <= 2 * block.count(), "a block shows more backwards than it holds");
            moved = cursor.prev();
        }
        let _ = cursor.seek(bytes.get(..4).unwrap_or_default(), Uid::MAX);
    }
}

/// Opens bytes as a run file and reads it in every way.
pub(crate) fn file(bytes: &[u8]) -> Result<()> {
    let (os, path) = (system(), Path::new("/run"));
    let failed = |error| crate::Error::io("write", path, error);
    os.open(path, OpenMode::CreateNew).and_then(|file| file.write_all_at(bytes, 0)).map_err(failed)?;
    let meta = Run::read_meta(&os, path, IDENTITY)?;
    for mode in [ReadMode::Cached, ReadMode::Mapped] {
        let cache = Arc::new(BlockCache::new(CACHE_BYTES));
        let run = Run::open(&os, path, IDENTITY, &meta, &cache, mode)?;
        let mut cursor = run.cursor(None);
        cursor.seek_to_first()?;
        let mut count = 0;
        while cursor.is_valid() {
            let (key, uid) = (cursor.key().to_vec(), cursor.uid());
            let found = run.get(&key, key_hash(&key), uid)?;
            assert!(found.is_some_and(|found| found.uid == uid), "what a scan shows is found by its key");
            count += 1;
            cursor.next()?;
        }
        assert_eq!(count, meta.records, "a run shows as many versions as it says");
        run.verify()?;
    }
    Ok(())
}

/// A small sound run file.
pub(crate) fn sample(codec: Codec) -> Result<Vec<u8>> {
    let (os, path) = (system(), Path::new("/run"));
    let options = RunOptions { codec, block_bytes: 256, fingerprints: true, ..RunOptions::default() };
    let mut writer = RunWriter::create(&os, path, IDENTITY, options)?;
    for number in 0..40_u64 {
        let key = format!("key {number:03}");
        writer.add(key.as_bytes(), Uid::new(1000 + number), RecordKind::Put, key.repeat(3).as_bytes())?;
        if number % 5 == 0 {
            writer.add(key.as_bytes(), Uid::new(500 + number), RecordKind::Delete, b"")?;
        }
    }
    read(&os, path, writer)
}

/// A small sound run file of one commit.
pub(crate) fn sample_of_one_commit() -> Result<Vec<u8>> {
    let (os, path) = (system(), Path::new("/run"));
    let options = RunOptions { block_bytes: 256, one_commit: true, ..RunOptions::default() };
    let mut writer = RunWriter::create(&os, path, IDENTITY, options)?;
    for number in 0..40_u64 {
        let key = format!("key {number:03}");
        writer.add(key.as_bytes(), Uid::ZERO, RecordKind::Put, key.repeat(3).as_bytes())?;
    }
    read(&os, path, writer)
}

/// The bytes of the file that `writer` completes at `path`.
fn read(os: &Arc<dyn Os>, path: &Path, writer: RunWriter) -> Result<Vec<u8>> {
    let mut bytes = vec![0; writer.finish()?.len as usize];
    let failed = |error| crate::Error::io("read", path, error);
    os.open(path, OpenMode::Read).and_then(|file| file.read_exact_at(&mut bytes, 0)).map_err(failed)?;
    Ok(bytes)
}

/// A small sound block.
pub(crate) fn sample_block() -> Vec<u8> {
    let mut builder = BlockBuilder::new(4);
    let mut last = Vec::new();
    for number in 0..20_u64 {
        let key = format!("key {number:02}").into_bytes();
        builder.add(&NewVersion {
            key: &key,
            hash: key_hash(&key),
            shared: common_prefix(&last, &key),
            same_key: false,
            uid: Uid::new(1000 + number),
            kind: RecordKind::Put,
            row: b"a row",
        });
        last = key;
    }
    builder.finish().to_vec()
}

fn system() -> Arc<dyn Os> {
    Arc::new(MemOs::new(1))
}
