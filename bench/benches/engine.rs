//! Point reads, scans and commits of the engine.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use planaria_engine::types::KeyRange;
use planaria_engine::{Batch, Database, Durability, Table};

const RECORDS: u64 = 200_000;

fn key(number: u64) -> Vec<u8> {
    (number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes().to_vec()
}

fn filled(dir: &std::path::Path) -> (Database, Table) {
    let db = Database::open(dir.join("db")).expect("a new database opens");
    let table = db.create_raw_table("t").expect("a new table is made");
    for batch_number in 0..RECORDS / 1_000 {
        let mut batch = Batch::new();
        for number in batch_number * 1_000..(batch_number + 1) * 1_000 {
            batch.put(table.id(), key(number), vec![b'v'; 100]);
        }
        db.write(batch, Durability::Background).expect("a batch is written");
    }
    db.compact().expect("everything is compacted");
    (db, table)
}

fn reads(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (_db, table) = filled(dir.path());
    let mut number = 0;
    criterion.bench_function("get, cached", |bencher| {
        bencher.iter(|| {
            number = (number + 7_919) % RECORDS;
            table.get(key(number)).expect("a read").expect("a record")
        });
    });
    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Elements(RECORDS)).sample_size(10);
    group.bench_function("visit all", |bencher| {
        bencher.iter(|| {
            let mut bytes = 0;
            let visited = table.scan(KeyRange::ALL).visit(|_, row| {
                bytes += row.len();
                true
            });
            visited.expect("a scan");
            bytes
        });
    });
    group.finish();
}

fn commits(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (db, table) = filled(dir.path());
    let mut number = 0;
    for (name, durability) in
        [("commit, background", Durability::Background), ("commit, synced", Durability::Synced)]
    {
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                number += 1;
                let mut batch = Batch::new();
                batch.put(table.id(), key(number), vec![b'w'; 100]);
                db.write(batch, durability).expect("a commit")
            });
        });
    }
}

criterion_group!(benches, reads, commits);
criterion_main!(benches);
