//! What fuzz targets do with arbitrary bytes: decoders answer with an error or something sound and never panic; a
//! database answers like an ordered map, whatever is done to it. Not part of the interface.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use planaria_types::{InstanceId, KeyRange, TableId, Uid};

use crate::commit::{Batch, EncodedCommit};
use crate::database::{Database, Durability};
use crate::error::Result;
use crate::log::{Log, LogOptions, Replay};
use crate::options::Options;
use crate::os::{CrashStyle, MemOs, OpenMode, Os};
use crate::run::Codec;
use crate::store::kept_fuzzing;
use crate::sync::Arc;
use crate::table::{self, Column, ColumnType, Schema, TableDef, Value};
use crate::version::Manifest;

const STORE: InstanceId = InstanceId(5);

/// A commit as it is logged and sent.
pub fn commit(bytes: &[u8]) {
    let Ok(commit) = EncodedCommit::parse(Bytes::copy_from_slice(bytes)) else { return };
    let ops: Vec<_> = commit.ops().collect();
    let in_order = ops.windows(2).all(|pair| match pair {
        [a, b] => (a.table, a.key) < (b.table, b.key),
        _ => true,
    });
    assert!(in_order, "a commit names a record twice");
    assert_eq!(&commit.bytes()[..], bytes);
}

/// A block, an index or a filter of a run, without its checksum.
pub fn block(bytes: &[u8]) {
    crate::run::fuzzing::parts(bytes);
}

/// A run file.
pub fn run_file(bytes: &[u8]) {
    let _ = crate::run::fuzzing::file(bytes);
}

/// A log segment: replayed, and followed to its end.
pub fn log_segment(bytes: &[u8]) {
    let os = MemOs::new(1);
    let _ = replay_segment(&os, bytes);
}

fn replay_segment(os: &MemOs, bytes: &[u8]) -> Result<u64> {
    let dir = Path::new("/log");
    let path = dir.join("0000000000000001.log");
    let failed = |error| crate::Error::io("write", &path, error);
    os.create_dir_all(dir).map_err(failed)?;
    os.open(&path, OpenMode::CreateNew).and_then(|file| file.write_all_at(bytes, 0)).map_err(failed)?;
    let mut records = 0;
    let options = LogOptions { segment_bytes: 8192, ..LogOptions::default() };
    let log = Log::open(Arc::new(os.clone()), dir, options, STORE, 1, &mut |entry| {
        records += 1;
        commit(entry.payload);
        Ok(Replay::Continue)
    })?;
    log.append(&[(1, b"after")])?;
    log.sync()?;
    Ok(records)
}

/// A manifest: a whole file, or, to get past the checksum, the payload of one.
pub fn manifest(bytes: &[u8]) {
    let path = Path::new("MANIFEST");
    for bytes in [bytes.to_vec(), Manifest::wrap(1, bytes), Manifest::wrap(2, bytes)] {
        if let Ok(manifest) = Manifest::decode(path, &bytes) {
            let again = manifest.encode().and_then(|bytes| Manifest::decode(path, &bytes));
            assert!(again.is_ok_and(|again| again == manifest), "a manifest survives its encoding");
        }
    }
}

/// What a copy has kept of a reconcile: a whole file, or, to get past the checksum, the payload of one.
pub fn kept(bytes: &[u8]) {
    if let Err(error) = open_with_kept(bytes) {
        panic!("what is kept of a refresh keeps a copy from being opened: {error}");
    }
}

fn open_with_kept(bytes: &[u8]) -> Result<()> {
    let made = MemOs::new(1);
    let (base, table) = make_kept(&made)?;
    let path = Path::new("/db").join(kept_fuzzing::NAME);
    for bytes in [bytes.to_vec(), kept_fuzzing::resealed(bytes)] {
        let os = made.crash(CrashStyle::ProcessKill, 1);
        let failed = |error| crate::Error::io("write", &path, error);
        os.remove_file(&path).map_err(failed)?;
        let file = os.open(&path, OpenMode::CreateNew).map_err(failed)?;
        file.write_all_at(&bytes, 0).map_err(failed)?;
        let db = Database::open_with("/db", kept_options(&os))?;
        drop(db.kept_refresh());
        if let Some(mut reconcile) = db.kept_reconcile() {
            reconcile.rebase(base)?;
            // What it says of its run files may be wrong: that is found by whoever reads them.
            let _ = reconcile.fingerprint(table, &KeyRange::ALL);
        }
        db.verify()?;
    }
    Ok(())
}

fn kept_options(os: &MemOs) -> Options {
    Options { background: false, os: Arc::new(os.clone()), ..Options::default() }
}

/// A copy that has replaced a range, and kept that; its end and a table of it.
fn make_kept(os: &MemOs) -> Result<(Uid, TableId)> {
    let db = Database::open_with("/db", kept_options(os))?;
    let table = db.create_raw_table("t")?;
    table.put("key", "row")?;
    table.put("other", "row")?;
    db.become_secondary(db.id())?;
    let (base, table) = (db.log_end().0, table.id());
    let mut reconcile = db.begin_reconcile(base)?;
    let keys = KeyRange::new(b"a".to_vec(), Some(b"l".to_vec()));
    let records = db.snapshot().range_records(table, &keys, usize::MAX)?.records;
    reconcile.replace(&[(table, keys)], &records)?;
    reconcile.keep()?;
    Ok((base, table))
}

/// A table definition, and with it a key and a row: `length u16 | definition | key length u8 | key | row`.
pub fn row(bytes: &[u8]) {
    let _ = TableDef::decode(bytes);
    let Some((len, rest)) = bytes.split_first_chunk::<2>() else { return };
    let Some((definition, rest)) = rest.split_at_checked(u16::from_le_bytes(*len) as usize) else { return };
    let Ok(definition) = TableDef::decode(definition) else { return };
    let Some((&len, rest)) = rest.split_first() else { return };
    let Some((key, row)) = rest.split_at_checked(len as usize) else { return };
    let Ok((_, schema)) = definition.schema() else { return };
    if let Ok(values) = table::decode_key(schema, key) {
        let encoded = table::encode_key_prefix(schema, &values);
        assert!(encoded.is_ok_and(|encoded| encoded == key), "a key has one encoding");
    }
    if let Ok(values) = table::decode(&definition, key, row) {
        let id = definition.schema().map(|(id, _)| id);
        let again = id.and_then(|id| table::encode(schema, id, &values));
        let again = again.and_then(|(key, row)| table::decode(&definition, &key, &row));
        assert!(again.is_ok_and(|again| format!("{again:?}") == format!("{values:?}")), "a row survives");
    }
}

/// Operations on a database, two bytes each, against an ordered map. Fails by panicking on a wrong answer.
pub fn operations(bytes: &[u8]) {
    if let Err(error) = operate(bytes) {
        panic!("an operation failed: {error}");
    }
}

fn operate(bytes: &[u8]) -> Result<()> {
    let os = MemOs::new(1);
    let options = Options {
        memtable_bytes: 64 << 10,
        log_segment_bytes: 64 << 10,
        log_bytes_max: 64 << 10,
        log_tail_bytes: 0,
        run_file_bytes: 16 << 10,
        fragment_bytes_max: 16 << 10,
        block_bytes: 256,
        cache_bytes: 1 << 14,
        background: false,
        os: Arc::new(os.clone()),
        ..Options::default()
    };
    let mut db = Database::open_with("/db", options.clone())?;
    let id = db.create_raw_table("t")?.id();
    let mut model = BTreeMap::new();
    let mut kept = None;
    for pair in bytes.chunks_exact(2).take(400) {
        let &[what, which] = pair else { continue };
        let key = vec![b'k', which % 32];
        match what % 16 {
            0..=5 => {
                let row = vec![which; usize::from(what) * 4];
                let mut batch = Batch::new();
                batch.put(id, key.clone(), row.clone());
                db.write(batch, Durability::Background)?;
                model.insert(key, row);
            }
            6..=8 => {
                let mut batch = Batch::new();
                batch.delete(id, key.clone());
                db.write(batch, Durability::Background)?;
                model.remove(&key);
            }
            9 => db.flush()?,
            10 => {
                let row = vec![which; usize::from(what)];
                let mut ingest = db.table("t")?.ingest()?;
                for number in which % 32..=which % 32 + which / 16 {
                    ingest.put([b'k', number], &row)?;
                    model.insert(vec![b'k', number], row.clone());
                }
                ingest.finish()?;
            }
            11 => db.store().compact_until_settled()?,
            12 => db.compact()?,
            13 => db.split(id, &key)?,
            14 => kept = Some((db.snapshot(), model.clone())),
            _ => {
                kept = None;
                drop(db);
                db = Database::open_with("/db", options.clone())?;
            }
        }
        let found = db.snapshot().get(id, &[b'k', which % 32])?;
        assert_eq!(found.as_deref(), model.get(&[b'k', which % 32][..]).map(Vec::as_slice));
    }
    if let Some((snapshot, model)) = kept {
        compare(&snapshot, id, &model)?;
    }
    compare(&db.snapshot(), id, &model)?;
    assert_eq!(db.verify()?.records, model.len() as u64);
    Ok(())
}

fn compare(snapshot: &crate::Snapshot, id: TableId, model: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<()> {
    let forward = snapshot.scan(id, KeyRange::ALL).collect::<Result<Vec<_>>>()?;
    let mut backward = snapshot.scan(id, KeyRange::ALL).rev().collect::<Result<Vec<_>>>()?;
    backward.reverse();
    assert_eq!(forward, backward);
    assert!(
        forward.iter().map(|(key, row)| (&key[..], &row[..])).eq(model.iter().map(|(k, r)| (&k[..], &r[..])))
    );
    Ok(())
}

/// A sound input of each target, by the target's name, to begin from.
pub fn samples() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut batch = Batch::new();
    batch.put(TableId(1), "key", "row").delete(TableId(1), "gone").put(TableId(300), "", vec![7; 200]);
    let commit = batch.encode()?;
    let os = MemOs::new(1);
    let options = Options { background: false, os: Arc::new(os.clone()), ..Options::default() };
    let db = Database::open_with(
        "/db",
        Options { log_segment_bytes: 64 << 10, log_bytes_max: 64 << 10, ..options },
    )?;
    db.create_raw_table("t")?.put("key", "row")?;
    db.flush()?;
    drop(db);
    Ok(vec![
        ("commit", commit.clone()),
        ("block", crate::run::fuzzing::sample_block()),
        ("run_file", crate::run::fuzzing::sample(Codec::None)?),
        ("run_file", crate::run::fuzzing::sample(Codec::Lz4)?),
        ("run_file", crate::run::fuzzing::sample_of_one_commit()?),
        ("log_segment", sample_segment(&commit)?),
        ("manifest", read(&os, Path::new("/db/MANIFEST"))?),
        ("row", sample_row()?),
        ("kept", sample_kept()?),
        ("operations", (0..=255).flat_map(|byte: u8| [byte.wrapping_mul(37), byte]).collect()),
    ])
}

fn sample_segment(commit: &[u8]) -> Result<Vec<u8>> {
    let (os, dir) = (MemOs::new(1), Path::new("/log"));
    let options = LogOptions { segment_bytes: 8192, ..LogOptions::default() };
    let log = Log::open(Arc::new(os.clone()), dir, options, STORE, 1, &mut |_| Ok(Replay::Continue))?;
    for _ in 0..3 {
        log.append(&[(1, commit), (2, &[0; 8])])?;
        log.sync()?;
    }
    log.seal()?;
    read(&os, &dir.join("0000000000000001.log"))
}

fn sample_kept() -> Result<Vec<u8>> {
    let os = MemOs::new(1);
    make_kept(&os)?;
    read(&os, &Path::new("/db").join(kept_fuzzing::NAME))
}

fn sample_row() -> Result<Vec<u8>> {
    let schema = Schema::builder()
        .column(Column::new("origin", ColumnType::Text))
        .column(Column::new("hour", ColumnType::Timestamp))
        .column(Column::new("wind", ColumnType::Int64).nullable())
        .column(Column::new("temp", ColumnType::Float64).nullable())
        .key(["origin", "hour"])
        .build()?;
    let definition = TableDef::typed(TableId(1), "weather", schema)?;
    let (id, schema) = definition.schema()?;
    let values = [Value::Text("JFK".into()), Value::Timestamp(1), Value::Int(-3), Value::Float(1.5)];
    let (key, row) = table::encode(schema, id, &values)?;
    let encoded = definition.encode()?;
    let len = (encoded.len() as u16).to_le_bytes();
    Ok([&len[..], &encoded, &[key.len() as u8], &key, &row].concat())
}

fn read(os: &MemOs, path: &Path) -> Result<Vec<u8>> {
    let failed = |error| crate::Error::io("read", &PathBuf::from(path), error);
    let file = os.open(path, OpenMode::Read).map_err(failed)?;
    let mut bytes = vec![0; file.len().map_err(failed)? as usize];
    file.read_exact_at(&mut bytes, 0).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::{Codec, EncodedCommit, Manifest, MemOs, Path, TableDef, replay_segment, samples};

    /// A target whose sample is refused at once would test nothing.
    #[test]
    fn every_sample_is_taken() {
        for (name, bytes) in samples().unwrap() {
            match name {
                "commit" => assert_eq!(EncodedCommit::parse(bytes.into()).unwrap().ops().count(), 3),
                "run_file" => crate::run::fuzzing::file(&bytes).unwrap(),
                "log_segment" => assert_eq!(replay_segment(&MemOs::new(1), &bytes).unwrap(), 6),
                "manifest" => drop(Manifest::decode(Path::new("MANIFEST"), &bytes).unwrap()),
                "row" => {
                    let len = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
                    assert!(TableDef::decode(&bytes[2..2 + len]).unwrap().is_typed());
                    super::row(&bytes);
                }
                "block" => super::block(&bytes),
                _ => super::operations(&bytes),
            }
        }
        crate::run::fuzzing::file(&crate::run::fuzzing::sample(Codec::Lz4).unwrap()).unwrap();
    }
}
