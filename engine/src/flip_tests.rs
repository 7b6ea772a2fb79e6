//! A closed database of which one bit is flipped: the exact answer or an error that names the file, never another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use planaria_types::KeyRange;

use crate::os::{CrashStyle, MemOs, Os};
use crate::{Codec, Database, Error, Options, Result};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn options(os: &MemOs) -> Options {
    Options {
        create: false,
        memtable_bytes: 64 << 10,
        log_segment_bytes: 64 << 10,
        log_bytes_max: 64 << 10,
        log_tail_bytes: 0,
        block_bytes: 256,
        background: false,
        os: Arc::new(os.clone()),
        ..Options::default()
    }
}

/// A closed database with compressed and plain runs, and commits that lie in the log only.
fn sample(codec: Codec) -> (MemOs, Rows) {
    let os = MemOs::new(1);
    let create = Options { create: true, bottom_codec: codec, ..options(&os) };
    let db = Database::open_with("/db", create).unwrap();
    let table = db.create_raw_table("t").unwrap();
    let mut rows = Rows::new();
    for number in 0..60_u64 {
        let key = format!("{:02}", number * 7 % 40).into_bytes();
        let row = format!("row {number} {}", "x".repeat(number as usize % 20)).into_bytes();
        if number % 5 == 0 {
            table.delete(key.clone()).unwrap();
            rows.remove(&key);
        } else {
            table.put(key.clone(), row.clone()).unwrap();
            rows.insert(key, row);
        }
        match number {
            20 => db.compact().unwrap(),
            40 | 50 => db.flush().unwrap(),
            45 => {
                let mut ingest = table.ingest().unwrap();
                for number in 38..44 {
                    let (key, row) = (format!("{number:02}"), format!("ingested {number}"));
                    ingest.put(&key, &row).unwrap();
                    rows.insert(key.into_bytes(), row.into_bytes());
                }
                ingest.finish().unwrap();
            }
            _ => {}
        }
    }
    drop((table, db));
    (os, rows)
}

/// Reads everything in every way: in order, by key, and as a verification does.
fn read(os: &MemOs, rows: &Rows) -> Result<Rows> {
    let db = Database::open_with("/db", options(os))?;
    let table = db.table("t")?;
    let found: Rows = table
        .scan(KeyRange::ALL)
        .map(|record| record.map(|(key, row)| (key.to_vec(), row.to_vec())))
        .collect::<Result<_>>()?;
    for number in 0..45 {
        let key = format!("{number:02}").into_bytes();
        assert_eq!(table.get(&key)?.as_deref(), rows.get(&key).map(Vec::as_slice), "a silent miss");
    }
    db.verify()?;
    Ok(found)
}

fn files(os: &MemOs, dir: &Path) -> Vec<(PathBuf, u64)> {
    let entries = os.list(dir).unwrap();
    let found = entries.into_iter().flat_map(|entry| {
        let path = dir.join(&entry.name);
        if entry.is_dir { files(os, &path) } else { vec![(path, entry.len)] }
    });
    found.collect()
}

fn names_a_file(error: &Error) -> bool {
    error.to_string().contains("/db/")
}

/// Flips one bit of every byte of the files that `chosen` likes. Returns how many flips were noticed.
fn sweep(os: &MemOs, rows: &Rows, chosen: impl Fn(&Path) -> bool) -> (u64, u64) {
    let (mut flips, mut noticed) = (0, 0);
    for (path, len) in files(os, Path::new("/db")).into_iter().filter(|(path, _)| chosen(path)) {
        // Of a log segment, only the part that was ever written holds anything.
        let len = if path.extension().is_some_and(|ext| ext == "log") { len.min(12 << 10) } else { len };
        for offset in 0..len {
            let damaged = os.crash(CrashStyle::ProcessKill, 1);
            damaged.flip(&path, offset, 1 << (offset % 8)).unwrap();
            flips += 1;
            match read(&damaged, rows) {
                Ok(found) => assert_eq!(&found, rows, "{}, byte {offset}", path.display()),
                Err(error) => {
                    assert!(names_a_file(&error), "{}, byte {offset}: {error}", path.display());
                    noticed += 1;
                }
            }
        }
    }
    (flips, noticed)
}

#[test]
fn a_flipped_bit_in_the_manifest_is_noticed() {
    let (os, rows) = sample(Codec::Lz4);
    let (flips, noticed) = sweep(&os, &rows, |path| path.ends_with("MANIFEST"));
    assert_eq!(flips, noticed);
}

#[test]
fn a_flipped_bit_in_a_run_gives_the_exact_answer_or_an_error() {
    for codec in [Codec::Lz4, Codec::None] {
        let (os, rows) = sample(codec);
        let (flips, noticed) = sweep(&os, &rows, |path| path.extension().is_some_and(|ext| ext == "run"));
        assert!(noticed > flips / 10, "{noticed} of {flips} were noticed");
    }
}

#[test]
fn a_flipped_bit_in_the_log_gives_the_exact_answer_or_an_error() {
    let (os, rows) = sample(Codec::Lz4);
    let (_, noticed) = sweep(&os, &rows, |path| path.extension().is_some_and(|ext| ext == "log"));
    assert!(noticed > 0);
}
