//! What catching up and cloning are made of: collecting changes at the source, taking them in at the copy, comparing
//! ranges by their fingerprints, and making a local clone.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use planaria_engine::types::{KeyRange, TableId, Uid};
use planaria_engine::{Batch, Change, Database, Durability, Table};

const RECORDS: u64 = 500_000;
/// One record in so many changes.
const CHANGED_ONE_IN: u64 = 100;
/// Bytes of a chunk of a delta.
const CHUNK_BYTES: usize = 1 << 20;

fn key(number: u64) -> [u8; 8] {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
}

fn write(db: &Database, table: &Table, numbers: impl Iterator<Item = u64>, byte: u8) {
    let mut numbers = numbers.peekable();
    while numbers.peek().is_some() {
        let mut batch = Batch::new();
        for number in numbers.by_ref().take(1_000) {
            batch.put(table.id(), key(number), vec![byte; 100]);
        }
        db.write(batch, Durability::Background).expect("a batch is written");
    }
}

/// A primary of which one record in a hundred has changed since the UID.
fn changed(dir: &std::path::Path, compact: bool) -> (Database, Table, Uid) {
    let db = Database::open(dir.join("primary")).expect("a new database opens");
    let table = db.create_raw_table("t").expect("a new table is made");
    write(&db, &table, 0..RECORDS, b'v');
    db.compact().expect("everything is compacted");
    let since = db.visible();
    write(&db, &table, (0..RECORDS).step_by(CHANGED_ONE_IN as usize), b'w');
    if compact { db.compact() } else { db.flush() }.expect("the changes are written out");
    (db, table, since)
}

/// All changes since the UID, as a primary reads them for a delta.
fn collect(db: &Database, since: Uid) -> Vec<Change> {
    let snapshot = db.snapshot();
    let mut changes = Vec::new();
    let mut from = (TableId::SYSTEM, bytes::Bytes::new());
    loop {
        let chunk = snapshot.changes(since, (from.0, &from.1), CHUNK_BYTES).expect("changes can be read");
        changes.extend(chunk.changes);
        match chunk.next {
            Some(next) => from = next,
            None => return changes,
        }
    }
}

fn delta(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("delta");
    group.throughput(Throughput::Elements(RECORDS / CHANGED_ONE_IN)).sample_size(20);
    for (name, compact) in [("collect", false), ("collect from the bottom", true)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (db, _, since) = changed(dir.path(), compact);
        group.bench_function(name, |bencher| bencher.iter(|| collect(&db, since)));
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (db, _, since) = changed(dir.path(), false);
    let changes = collect(&db, since);
    let clone = dir.path().join("secondary");
    db.clone_to(&clone).expect("a clone is made");
    let copy = Database::open(&clone).expect("a clone opens");
    copy.become_secondary(copy.id()).expect("a copy of the database");
    group.bench_function("take in", |bencher| {
        bencher.iter(|| {
            let mut refresh = copy.begin_refresh(None).expect("a secondary is refreshed");
            for change in &changes {
                refresh.add(change).expect("changes come in the order of their keys");
            }
            refresh.records()
        });
    });
    group.finish();
}

fn reconcile(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (db, table, _) = changed(dir.path(), false);
    let mut group = criterion.benchmark_group("reconcile");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(20);
    group.bench_function("fingerprint of a table, 1 % above the bottom", |bencher| {
        let snapshot = db.snapshot();
        bencher.iter(|| snapshot.fingerprint(table.id(), KeyRange::ALL).expect("a fingerprint"));
    });
    group.bench_function("512 parts of a table", |bencher| {
        let snapshot = db.snapshot();
        bencher.iter(|| snapshot.parts(table.id(), &KeyRange::ALL, 512).expect("parts"));
    });
    db.compact().expect("everything is compacted");
    group.bench_function("fingerprint of a table, compacted", |bencher| {
        let snapshot = db.snapshot();
        bencher.iter(|| snapshot.fingerprint(table.id(), KeyRange::ALL).expect("a fingerprint"));
    });
    group.finish();
}

fn clone(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (db, table, _) = changed(dir.path(), false);
    let mut number = 0;
    let mut group = criterion.benchmark_group("clone");
    group.sample_size(20);
    group.bench_function("local, with updates in the log", |bencher| {
        let next = || {
            number += 1;
            write(&db, &table, number..number + 100, b'x');
            dir.path().join(format!("clone-{number}"))
        };
        bencher.iter_batched(next, |target| db.clone_to(target).expect("a clone"), BatchSize::PerIteration);
    });
    group.finish();
}

criterion_group!(benches, delta, reconcile, clone);
criterion_main!(benches);
