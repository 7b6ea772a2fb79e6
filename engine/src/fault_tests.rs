//! A database whose calls to the system fail: what was acknowledged stays, errors are clean, reads go on.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::Arc;

use planaria_types::KeyRange;

use crate::os::{Call, CrashStyle, Fault, FaultOs, MemOs, Os};
use crate::{Database, Options, Result, Table};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn options(os: Arc<dyn Os>) -> Options {
    Options {
        memtable_bytes: 64 << 10,
        log_segment_bytes: 64 << 10,
        log_bytes_max: 256 << 10,
        log_tail_bytes: 64 << 10,
        run_file_bytes: 16 << 10,
        fragment_bytes_max: 1 << 20,
        block_bytes: 512,
        cache_bytes: 1 << 20,
        background: false,
        os,
        ..Options::default()
    }
}

fn rows(table: &Table) -> Rows {
    let owned = |record: Result<(bytes::Bytes, bytes::Bytes)>| {
        let (key, row) = record.unwrap();
        (key.to_vec(), row.to_vec())
    };
    table.scan(KeyRange::ALL).map(owned).collect()
}

/// One step of the work: some rows in one table, now and then a flush or a merge.
fn step(db: &Database, table: &Table, number: u64, acknowledged: &mut Rows) -> Result<()> {
    let key = format!("{:03}", number * 7 % 50).into_bytes();
    let row = vec![b'a' + (number % 26) as u8; (number * 431 % 3000) as usize];
    table.put(key.clone(), row.clone())?;
    acknowledged.insert(key, row);
    match number % 12 {
        5 | 9 => db.flush(),
        11 => db.compact(),
        7 => db.split(table.id(), format!("{:03}", number % 50).as_bytes()),
        _ => Ok(()),
    }
}

const CLEAN: [&str; 3] = ["io", "no_space", "poisoned"];

/// Makes the `at`-th call of a kind fail while a database works; returns whether that call was reached.
fn fail(call: Call, at: u64, error: ErrorKind, forever: bool) -> bool {
    let what = format!("{call:?} {at}, {error:?}, forever: {forever}");
    let disk = MemOs::new(at);
    let os = FaultOs::new(Arc::new(disk.clone()));
    let db = Database::open_with("/db", options(Arc::new(os.clone()))).unwrap();
    let table = db.create_raw_table("t").unwrap();
    os.inject(Fault { call, at, error, forever });
    let mut acknowledged = Rows::new();
    let mut failed = false;
    let mut in_doubt = None;
    for number in 0..60 {
        let before = acknowledged.clone();
        if let Err(error) = step(&db, &table, number, &mut acknowledged) {
            assert!(CLEAN.contains(&error.code()), "{what}: {error}");
            failed = true;
            if acknowledged == before {
                let key = format!("{:03}", number * 7 % 50).into_bytes();
                in_doubt.get_or_insert(key);
            }
            assert_eq!(rows(&table), acknowledged, "{what}: reads go on, with what was acknowledged");
        }
    }
    if os.hits() == 0 {
        return false;
    }
    os.clear();
    assert_eq!(rows(&table), acknowledged, "{what}");
    if error == ErrorKind::StorageFull && !matches!(call, Call::SyncData | Call::Write | Call::SyncDir) {
        // There is room again: writes go on without another start.
        step(&db, &table, 61, &mut acknowledged).unwrap_or_else(|error| panic!("{what}: {error}"));
        db.flush().unwrap();
        db.compact().unwrap();
    }
    drop((table, db));
    for style in CrashStyle::ALL {
        let os = disk.crash(style, at);
        let db = Database::open_with("/db", options(Arc::new(os)))
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        db.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut found = rows(&db.table("t").unwrap());
        if let Some(key) = &in_doubt {
            // The first write that failed may have reached the disk all the same: its answer was an error, not a no.
            found.remove(key);
            let mut expected = acknowledged.clone();
            expected.remove(key);
            assert_eq!(found, expected, "{what}, {style:?}");
        } else {
            assert_eq!(found, acknowledged, "{what}, {style:?}, failed: {failed}");
        }
    }
    true
}

fn fail_each(call: Call, error: ErrorKind, stride: usize) {
    for forever in [false, true] {
        let mut reached = 0;
        for at in (1..).step_by(stride) {
            if !fail(call, at, error, forever) {
                break;
            }
            reached += 1;
        }
        assert!(reached > 0, "{call:?} is never called");
    }
}

#[test]
fn a_failed_sync_is_final_and_takes_nothing_back() {
    fail_each(Call::SyncData, ErrorKind::Other, 5);
    fail_each(Call::SyncDir, ErrorKind::Other, 2);
}

#[test]
fn a_failed_write_takes_nothing_back() {
    fail_each(Call::Write, ErrorKind::Other, 7);
    fail_each(Call::Write, ErrorKind::StorageFull, 11);
}

#[test]
fn a_failed_change_of_names_takes_nothing_back() {
    fail_each(Call::Rename, ErrorKind::Other, 1);
    fail_each(Call::Rename, ErrorKind::StorageFull, 1);
    fail_each(Call::Create, ErrorKind::StorageFull, 3);
    fail_each(Call::Create, ErrorKind::Other, 3);
    fail_each(Call::Remove, ErrorKind::Other, 3);
    fail_each(Call::Open, ErrorKind::Other, 3);
}

#[test]
fn a_run_file_that_cannot_be_completed_is_removed() {
    for (call, error) in [(Call::Write, ErrorKind::StorageFull), (Call::SyncData, ErrorKind::Other)] {
        let disk = MemOs::new(1);
        let os = FaultOs::new(Arc::new(disk.clone()));
        let db = Database::open_with("/db", options(Arc::new(os.clone()))).unwrap();
        db.create_raw_table("t").unwrap().put("key", "row").unwrap();
        let before = disk.list("/db/runs".as_ref()).unwrap().len();
        os.inject(Fault { call, at: 1, error, forever: false });
        assert!(db.flush().is_err());
        os.clear();
        assert_eq!((disk.list("/db/runs".as_ref()).unwrap().len(), os.hits()), (before, 1));
    }
}

#[test]
fn a_merge_that_cannot_be_installed_has_dropped_nothing() {
    let os = FaultOs::new(Arc::new(MemOs::new(1)));
    let db = Database::open_with("/db", options(Arc::new(os.clone()))).unwrap();
    let table = db.create_raw_table("t").unwrap();
    table.put("key", "row").unwrap();
    db.flush().unwrap();
    table.delete("key").unwrap();
    table.put("other", "row").unwrap();
    db.flush().unwrap();
    let floors = || (db.mark_floor(), db.version_floor());
    let before = floors();
    os.inject(Fault { call: Call::Rename, at: 1, error: ErrorKind::StorageFull, forever: true });
    assert_eq!(db.compact().unwrap_err().code(), "no_space");
    assert!(os.hits() > 0, "the manifest was not written");
    os.clear();
    table.put("another", "row").unwrap();
    db.flush().unwrap();
    assert_eq!(floors(), before, "a manifest was written, of the same runs");
    db.compact().unwrap();
    let after = floors();
    assert!(before.0 < after.0 && before.1 < after.1, "{before:?}, {after:?}");
}

#[test]
fn what_is_written_out_between_the_inputs_of_a_merge_that_runs_is_left_alone() {
    let mut at = 1;
    loop {
        let os = FaultOs::new(Arc::new(MemOs::new(1)));
        let db = Database::open_with("/db", options(Arc::new(os.clone()))).unwrap();
        let table = db.create_raw_table("t").unwrap();
        for keys in [["a0", "a9"], ["x0", "x9"], ["a1", "a2"], ["x1", "x2"]] {
            for key in keys {
                table.put(key, key).unwrap();
            }
            db.flush().unwrap();
        }
        let between = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let hook = {
            let (db, table, between) = (db.clone(), table.clone(), Arc::clone(&between));
            move || {
                table.put("m", "between").unwrap();
                db.flush().unwrap();
                between.store(true, std::sync::atomic::Ordering::Release);
            }
        };
        os.run_before(Call::Read, at, hook);
        db.compact().unwrap_or_else(|error| panic!("read {at}: {error}"));
        db.verify().unwrap();
        let reached = between.load(std::sync::atomic::Ordering::Acquire);
        os.clear();
        assert_eq!(rows(&table).len(), 8 + usize::from(reached), "read {at}");
        db.compact().unwrap();
        assert_eq!(rows(&table).len(), 8 + usize::from(reached), "read {at}, compacted again");
        if !reached {
            assert!(at > 4, "a merge reads its inputs");
            break;
        }
        at += 1;
    }
}

#[test]
fn a_failed_allocation_takes_nothing_back() {
    fail_each(Call::Allocate, ErrorKind::StorageFull, 1);
}

#[test]
fn a_failed_read_is_an_error_and_never_an_answer() {
    fail_each_read(ErrorKind::Other);
}

/// Reads may fail while the application reads, too; all that counts is that no answer is wrong.
fn fail_each_read(error: ErrorKind) {
    let disk = MemOs::new(3);
    let os = FaultOs::new(Arc::new(disk));
    let small = Options { cache_bytes: 1 << 10, ..options(Arc::new(os.clone())) };
    let db = Database::open_with("/db", small).unwrap();
    let table = db.create_raw_table("t").unwrap();
    let mut expected = Rows::new();
    for number in 0..60 {
        step(&db, &table, number, &mut expected).unwrap();
    }
    db.compact().unwrap();
    for at in 1..60 {
        os.inject(Fault { call: Call::Read, at, error, forever: false });
        for (key, row) in &expected {
            match table.get(key) {
                Ok(found) => assert_eq!(found.as_deref(), Some(&row[..])),
                Err(error) => assert_eq!(error.code(), "io"),
            }
        }
        os.clear();
    }
    assert!(os.hits() > 0);
    assert_eq!(rows(&table), expected);
}

/// A row that cannot be compressed: background merges must not make room on a disk that is to fill up.
fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed + 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..500).map(|_| next()).collect()
}

#[test]
fn a_full_disk_is_told_and_writes_resume_when_there_is_room_again() {
    for (seed, background) in [(1, false), (2, true)] {
        let disk = MemOs::new(seed);
        let db =
            Database::open_with("/db", Options { background, ..options(Arc::new(disk.clone())) }).unwrap();
        let table = db.create_raw_table("t").unwrap();
        let mut acknowledged = Rows::new();
        for round in 0..4_u64 {
            disk.set_capacity(Some(disk.used_bytes() + (100 << 10)));
            let mut full = false;
            for number in 0..2_000 {
                let key = format!("{round}-{number:05}").into_bytes();
                let row = noise(number);
                match table.put(&key, &row) {
                    Ok(_) => drop(acknowledged.insert(key, row)),
                    Err(error) => {
                        assert_eq!(error.code(), "no_space");
                        full = true;
                        break;
                    }
                }
            }
            assert!(full, "the disk fills up");
            assert_eq!(rows(&table), acknowledged);
            disk.set_capacity(None);
            table.put("after", "room").unwrap();
            acknowledged.insert(b"after".to_vec(), b"room".to_vec());
            db.flush().unwrap();
        }
        drop((table, db));
        let db =
            Database::open_with("/db", options(Arc::new(disk.crash(CrashStyle::PowerCutClean, 1)))).unwrap();
        assert_eq!(rows(&db.table("t").unwrap()), acknowledged);
    }
}
