//! Fingerprints from stored blocks against their definition, under random mixes of everything that moves records.

use std::sync::Arc;

use planaria_types::{Fingerprint, HistoryHash, KeyRange, Position, TableId};

use crate::os::MemOs;
use crate::{Batch, Database, Durability, Options, Snapshot};

const KEYS: u64 = 3_000;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn open(seed: u64) -> Database {
    let options = Options {
        memtable_bytes: 1 << 20,
        log_segment_bytes: 128 << 10,
        run_file_bytes: 16 << 10,
        block_bytes: 512,
        background: false,
        os: Arc::new(MemOs::new(seed)),
        ..Options::default()
    };
    Database::open_with("db", options).unwrap()
}

fn key(number: u64) -> Vec<u8> {
    format!("{number:05}").into_bytes()
}

fn write(db: &Database, table: TableId, random: &mut Random) {
    let mut batch = Batch::new();
    let from = random.below(KEYS);
    for step in 0..=random.below(60) {
        let near = key((from + step * random.below(3)) % KEYS);
        if random.below(4) == 0 {
            batch.delete(table, near);
        } else {
            batch.put(table, near, vec![b'r'; random.below(40) as usize]);
        }
    }
    db.write(batch, Durability::Background).unwrap();
}

fn by_definition(snapshot: &Snapshot, table: TableId, range: &KeyRange) -> Fingerprint {
    let mut sum = Fingerprint::EMPTY;
    for fragment in snapshot.version().overlapping(table, range) {
        sum += crate::read::merged(fragment, range, snapshot.uid()).unwrap();
    }
    sum
}

fn random_range(random: &mut Random) -> KeyRange {
    if random.below(8) == 0 {
        return KeyRange::ALL;
    }
    let (a, b) = (random.below(KEYS), random.below(KEYS));
    KeyRange::new(key(a.min(b)), Some(key(a.max(b) + 1)))
}

/// The parts of a range are a tiling of it, and each has the fingerprint that its range has by definition.
fn check_parts(snapshot: &Snapshot, table: TableId, range: &KeyRange, count: usize) {
    let parts = snapshot.parts(table, range, count).unwrap();
    assert!(parts.len() <= count.max(1) && parts.last().unwrap().end == range.end);
    let mut start = range.start.clone();
    for part in parts {
        let keys = KeyRange::new(start, part.end.clone());
        assert!(!keys.is_empty());
        assert_eq!(part.fingerprint, by_definition(snapshot, table, &keys), "{keys}");
        start = part.end.unwrap_or_default();
    }
}

fn check(snapshot: &Snapshot, table: TableId, random: &mut Random) {
    for _ in 0..6 {
        let range = random_range(random);
        let fast = snapshot.fingerprint(table, range.clone()).unwrap();
        assert_eq!(fast, by_definition(snapshot, table, &range), "{range} at {}", snapshot.uid());
    }
    let range = random_range(random);
    check_parts(snapshot, table, &range, 1 + random.below(20) as usize);
}

#[test]
fn stored_fingerprints_add_up_to_what_a_scan_sums() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let db = open(seed);
        let table = db.create_raw_table("t").unwrap().id();
        let mut kept: Vec<Snapshot> = Vec::new();
        let mut fork: Option<(Position, HistoryHash)> = None;
        for _ in 0..150 {
            write(&db, table, &mut random);
            match random.below(30) {
                0..=4 => db.flush().unwrap(),
                5 => db.compact().unwrap(),
                6..=8 => db.store().compact_until_settled().unwrap(),
                9 => db.split(table, &key(random.below(KEYS))).unwrap(),
                10 => kept.push(db.snapshot()),
                11 => {
                    db.sync().unwrap();
                    let position = db.position();
                    db.set_floors(Some(position.uid), None);
                    fork = Some((position, db.history_hash_at(position.uid).unwrap().unwrap()));
                }
                12 if fork.is_some() => {
                    let (position, hash) = fork.take().unwrap();
                    db.take_back(position, hash).unwrap();
                    db.set_floors(None, None);
                    kept.clear();
                }
                _ => {}
            }
            if random.below(6) == 0 {
                check(&db.snapshot(), table, &mut random);
                for snapshot in &kept {
                    check(snapshot, table, &mut random);
                }
            }
        }
        assert!(db.verify().is_ok());
    }
}

#[test]
fn most_blocks_are_not_read_when_nothing_newer_touches_them() {
    let db = open(1);
    let table = db.create_raw_table("t").unwrap().id();
    for chunk in 0..20 {
        let mut batch = Batch::new();
        for number in 0..1_000 {
            batch.put(table, key(chunk * 1_000 + number), vec![b'r'; 30]);
        }
        db.write(batch, Durability::Background).unwrap();
    }
    db.compact().unwrap();
    db.close();
    let options = Options { cache_bytes: 64 << 20, background: false, ..db.store().options.clone() };
    drop(db);
    let db = Database::open_with("db", options).unwrap();
    let mut batch = Batch::new();
    for number in [5, 4_321, 17_000] {
        batch.put(table, key(number), "changed");
    }
    db.write(batch, Durability::Background).unwrap();
    let snapshot = db.snapshot();
    let (all, before) = (KeyRange::ALL, db.status().unwrap().cache_bytes);
    let fast = snapshot.fingerprint(table, all.clone()).unwrap();
    let read = db.status().unwrap().cache_bytes - before;
    assert_eq!(fast, by_definition(&snapshot, table, &all));
    let whole = db.status().unwrap().cache_bytes - before;
    assert!(read > 0 && read < whole / 20, "{read} bytes of {whole} were read for a fingerprint");
}

#[test]
fn walking_down_the_parts_ends_at_the_record_that_differs() {
    let db = open(1);
    db.create_raw_table("t").unwrap();
    let table = db.table("t").unwrap().id();
    let mut batch = Batch::new();
    for number in 0..20_000 {
        batch.put(table, key(number), number.to_le_bytes());
    }
    db.write(batch, Durability::Background).unwrap();
    db.compact().unwrap();
    let mut batch = Batch::new();
    batch.delete(table, key(12_345));
    let before = db.snapshot();
    db.write(batch, Durability::Background).unwrap();
    let after = db.snapshot();
    let mut range = KeyRange::ALL;
    let mut levels = 0;
    loop {
        levels += 1;
        let parts = after.parts(table, &range, 16).unwrap();
        if parts.len() == 1 {
            break;
        }
        let mut start = range.start.clone();
        let mut differing = Vec::new();
        for part in parts {
            let keys = KeyRange::new(start, part.end.clone());
            if before.fingerprint(table, keys.clone()).unwrap() != part.fingerprint {
                differing.push(keys);
            }
            start = part.end.unwrap_or_default();
        }
        assert_eq!(differing.len(), 1);
        range = differing.remove(0);
    }
    assert!(range.contains(&key(12_345)) && levels <= 6, "{range} after {levels} levels");
    assert!(after.fingerprint(table, range).unwrap().count <= 1);
}
