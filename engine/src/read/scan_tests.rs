//! Both ways to read a scan, at cuts where old versions show, over all that a fragment can be made of.

use std::collections::BTreeMap;
use std::sync::Arc;

use planaria_types::{KeyRange, Uid};

use crate::os::MemOs;
use crate::{Batch, Database, Durability, Options, Table};

type Records = BTreeMap<Vec<u8>, Vec<u8>>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }

    fn key(&mut self) -> Vec<u8> {
        format!("{:03}", self.below(300)).into_bytes()
    }
}

fn open(seed: u64) -> (Database, Table) {
    let options = Options {
        memtable_bytes: 64 << 10,
        run_file_bytes: 16 << 10,
        block_bytes: 256,
        background: false,
        os: Arc::new(MemOs::new(seed)),
        ..Options::default()
    };
    let db = Database::open_with("/db", options).unwrap();
    let table = db.create_raw_table("t").unwrap();
    // No version is dropped, so that every cut can be read.
    db.set_floors(Some(Uid::ZERO), None);
    (db, table)
}

/// Changes a few records, and what the map says of them.
fn change(db: &Database, table: &Table, random: &mut Random, records: &mut Records) -> Uid {
    let mut batch = Batch::new();
    for _ in 0..=random.below(20) {
        let key = random.key();
        if random.below(4) == 0 {
            batch.delete(table.id(), &key);
            records.remove(&key);
        } else {
            let row = vec![b'r'; random.below(40) as usize];
            batch.put(table.id(), &key, &row);
            records.insert(key, row);
        }
    }
    db.write(batch, Durability::Background).unwrap()
}

/// Reads a range at a cut in both ways, and by visits that have enough after some records.
fn check(db: &Database, table: &Table, at: Uid, expected: &Records, random: &mut Random) {
    let (a, b) = (random.key(), random.key());
    let range = KeyRange::new(a.clone().min(b.clone()), (random.below(4) > 0).then(|| a.max(b)));
    let expected: Vec<_> = expected
        .iter()
        .filter(|(key, _)| range.contains(key))
        .map(|(key, row)| (key.clone(), row.clone()))
        .collect();
    let snapshot = db.snapshot().at(at);
    let iterated: Vec<_> = snapshot
        .scan(table.id(), range.clone())
        .map(|record| record.map(|(key, row)| (key.to_vec(), row.to_vec())).unwrap())
        .collect();
    assert_eq!(iterated, expected, "{range} at {at}, by the iterator");
    for enough in [usize::MAX, expected.len().max(1), 1 + random.below(20) as usize] {
        let mut visited = Vec::new();
        let scan = snapshot.scan(table.id(), range.clone());
        scan.visit(|key, row| {
            visited.push((key.to_vec(), row.to_vec()));
            visited.len() < enough
        })
        .unwrap();
        let wanted = &expected[..expected.len().min(enough)];
        assert_eq!(visited, wanted, "{range} at {at}, by a visitor who wants {enough}");
    }
}

#[test]
fn visiting_and_iterating_answer_alike_at_every_cut() {
    for seed in 0..6 {
        let mut random = Random(seed);
        let (db, table) = open(seed);
        let mut records = Records::new();
        let mut cuts = Vec::new();
        for round in 0..120 {
            let uid = change(&db, &table, &mut random, &mut records);
            cuts.push((uid, records.clone()));
            match random.below(30) {
                0..=3 => db.flush().unwrap(),
                4 => db.compact().unwrap(),
                5 if round > 40 => db.split(table.id(), &random.key()).unwrap(),
                _ => {}
            }
            for _ in 0..3 {
                let (at, expected) = &cuts[random.below(cuts.len() as u64) as usize];
                check(&db, &table, *at, expected, &mut random);
            }
        }
        db.compact().unwrap();
        for (at, expected) in &cuts {
            check(&db, &table, *at, expected, &mut random);
        }
    }
}

#[test]
fn a_visit_ends_where_an_iteration_from_behind_has_come_to() {
    let (db, table) = open(1);
    for number in 0..200 {
        table.put(format!("{number:03}"), "row").unwrap();
    }
    db.compact().unwrap();
    let mut scan = db.snapshot().scan(table.id(), KeyRange::ALL);
    let front: Vec<_> = scan.by_ref().take(50).map(|record| record.unwrap().0).collect();
    let back: Vec<_> = scan.by_ref().rev().take(70).map(|record| record.unwrap().0).collect();
    let mut visited = Vec::new();
    scan.visit(|key, _| {
        visited.push(key.to_vec());
        true
    })
    .unwrap();
    assert_eq!(front.last().unwrap(), "049");
    assert_eq!(back.last().unwrap(), "130");
    let expected: Vec<_> = (50..130).map(|number| format!("{number:03}").into_bytes()).collect();
    assert_eq!(visited, expected);
}

#[test]
fn whoever_asks_for_changes_reads_nothing_of_runs_that_are_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { background: false, ..Options::default() };
    let db = Database::open_with(dir.path().join("db"), options.clone()).unwrap();
    let put = |db: &Database, table: &Table, key: u32| {
        let mut batch = Batch::new();
        batch.put(table.id(), key.to_be_bytes(), b"row");
        db.write(batch, Durability::Synced).unwrap()
    };
    let table = db.create_raw_table("t").unwrap();
    let since = (0..500).map(|key| put(&db, &table, key)).max().unwrap();
    db.compact().unwrap();
    drop((db, table));

    // Neither indexes nor blocks are in memory.
    let db = Database::open_checked(dir.path().join("db"), options).unwrap();
    let table = db.table("t").unwrap();
    let later = [put(&db, &table, 7), put(&db, &table, 900)];
    // The files of the old state are there as before; what is in them is gone.
    for entry in std::fs::read_dir(dir.path().join("db/runs")).unwrap() {
        std::fs::File::options().write(true).open(entry.unwrap().path()).unwrap().set_len(0).unwrap();
    }
    let snapshot = db.snapshot();
    let chunk = snapshot.changes(since, (table.id(), &[]), usize::MAX).unwrap();
    assert_eq!(chunk.changes.iter().map(|change| change.uid).collect::<Vec<_>>(), later);
    assert!(snapshot.get(table.id(), &8_u32.to_be_bytes()).is_err(), "an old row lies in the files");
}
