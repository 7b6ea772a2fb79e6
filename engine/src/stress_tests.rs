//! Writers, readers and background work at once, with tiny memtables.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use planaria_types::KeyRange;

use crate::os::MemOs;
use crate::{Batch, Database, Durability, Options, Snapshot, Table};

const WRITERS: u64 = 3;
const PAIRS: u64 = 40;
const COMMITS: u64 = 400;

fn options() -> Options {
    Options {
        memtable_bytes: 64 << 10,
        log_segment_bytes: 64 << 10,
        log_bytes_max: 128 << 10,
        log_tail_bytes: 64 << 10,
        run_file_bytes: 16 << 10,
        fragment_bytes_max: 64 << 10,
        block_bytes: 512,
        cache_bytes: 64 << 10,
        sync_interval_ms: 1,
        os: Arc::new(MemOs::new(1)),
        ..Options::default()
    }
}

fn key(writer: u64, pair: u64) -> String {
    format!("{writer}-{pair:03}")
}

/// A row that says who wrote it and when, long enough that memtables fill.
fn row(commit: u64) -> Vec<u8> {
    let mut row = commit.to_le_bytes().to_vec();
    row.resize(300, commit as u8);
    row
}

fn write(db: &Database, tables: &[Table; 2], writer: u64) {
    for commit in 1..=COMMITS {
        let mut batch = Batch::new();
        let key = key(writer, commit * 7 % PAIRS);
        for table in tables {
            if commit % 9 == 0 {
                batch.delete(table.id(), key.clone());
            } else {
                batch.put(table.id(), key.clone(), row(commit));
            }
        }
        let durability = if commit % 10 == 0 { Durability::Synced } else { Durability::Background };
        let uid = db.write(batch, durability).unwrap();
        let seen = db.snapshot();
        assert!(seen.uid() >= uid, "a writer reads its own commit");
        let own = seen.get(tables[0].id(), key.as_bytes()).unwrap();
        let expected = (commit % 9 != 0).then(|| row(commit));
        assert_eq!(own.as_deref(), expected.as_deref());
    }
}

fn scan(snapshot: &Snapshot, table: &Table) -> Vec<(bytes::Bytes, bytes::Bytes)> {
    snapshot.scan(table.id(), KeyRange::ALL).collect::<Result<_, _>>().unwrap()
}

/// Reads until the writers are done. Both tables always hold the same, and a snapshot never changes.
fn read(db: &Database, tables: &[Table; 2], done: &AtomicBool, rounds: &AtomicU64) {
    let mut last = db.visible();
    while !done.load(Ordering::Acquire) {
        let snapshot = db.snapshot();
        assert!(snapshot.uid() >= last, "the cut does not fall");
        last = snapshot.uid();
        let first = scan(&snapshot, &tables[0]);
        assert_eq!(first, scan(&snapshot, &tables[1]), "a batch is seen whole or not at all");
        for (key, row) in first.iter().step_by(5) {
            assert_eq!(snapshot.get(tables[1].id(), key).unwrap().as_ref(), Some(row));
        }
        let mut backward: Vec<_> =
            snapshot.scan(tables[0].id(), KeyRange::ALL).rev().collect::<Result<_, _>>().unwrap();
        backward.reverse();
        assert_eq!(first, backward, "a snapshot reads the same twice");
        rounds.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn writers_readers_and_background_work_do_not_disturb_one_another() {
    let db = Database::open_with("/db", options()).unwrap();
    let tables = [db.create_raw_table("one").unwrap(), db.create_raw_table("two").unwrap()];
    let done = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| read(&db, &tables, &done, &rounds));
        }
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (db, tables) = (&db, &tables);
                scope.spawn(move || write(db, tables, writer))
            })
            .collect();
        let structure = scope.spawn(|| {
            for round in 0..30 {
                db.split(tables[round % 2].id(), key(round as u64 % WRITERS, round as u64).as_bytes())
                    .unwrap();
                if round % 10 == 9 {
                    db.compact().unwrap();
                }
                db.split_large_fragments().unwrap();
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        structure.join().unwrap();
        done.store(true, Ordering::Release);
    });
    assert!(rounds.into_inner() > 0);
    let last = scan(&db.snapshot(), &tables[0]);
    db.verify().unwrap();
    let os = Arc::clone(&db.store().options.os);
    drop((tables, db));
    let db = Database::open_with("/db", Options { os, ..options() }).unwrap();
    assert_eq!(scan(&db.snapshot(), &db.table("one").unwrap()), last);
    assert_eq!(scan(&db.snapshot(), &db.table("two").unwrap()), last);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test gives up by the clock")]
fn the_next_log_segment_is_prepared_beside_commits_that_all_wait_for_the_disk() {
    let db = Database::open_with("/db", options()).unwrap();
    let table = db.create_raw_table("t").unwrap();
    let write = |commit| {
        let mut batch = Batch::new();
        batch.put(table.id(), key(0, 0), row(commit));
        db.write(batch, Durability::Synced).unwrap();
    };
    for commit in 0.. {
        write(commit);
        if db.store().log.lacks_spare() {
            break;
        }
        assert!(commit < 10_000, "a segment of 64 KiB is never half full");
    }
    // Nothing more is written: it comes by itself.
    let begun = std::time::Instant::now();
    while db.store().log.lacks_spare() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "nobody prepares the next segment");
        std::thread::yield_now();
    }
}
