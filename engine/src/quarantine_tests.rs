//! Extracts are whole, checked, listed, and gone in time.

use planaria_types::Uid;

use crate::{Batch, Database, Durability, Options, RecordKind, Table};

fn open(dir: &std::path::Path, options: Options) -> (Database, Table) {
    let db = Database::open_with(dir.join("db"), Options { background: false, ..options }).unwrap();
    let table = db.create_raw_table("birds").unwrap();
    (db, table)
}

/// Writes rows that will be taken back: more than one part of an extract holds.
fn forked(db: &Database, table: &Table) -> (Uid, Uid) {
    table.put("gone", "row").unwrap();
    let above = table.put("kept", "row").unwrap();
    let mut batch = Batch::new();
    for key in 0..9_000_u32 {
        batch.put(table.id(), key.to_be_bytes(), "new");
    }
    db.write(batch, Durability::Synced).unwrap();
    (above, table.delete("gone").unwrap())
}

#[test]
fn an_extract_gives_back_what_was_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let (db, table) = open(dir.path(), Options::default());
    let (above, through) = forked(&db, &table);
    db.quarantine(above, through).unwrap();
    db.quarantine(above, through).unwrap();
    let found = db.extracts().unwrap();
    assert_eq!(found.len(), 1);
    let extract = &found[0].extract;
    assert_eq!((extract.above, extract.through, extract.records), (above, through, 9_001));
    assert!(extract.is_whole && extract.epoch == db.epoch());
    assert_eq!(extract.tables[0].name, "birds");

    let (mut at, mut records) = (None, Vec::new());
    loop {
        let part = db.read_extract(&extract.name(), at).unwrap();
        records.extend(part.records);
        at = part.next;
        if at.is_none() {
            break;
        }
    }
    assert_eq!(records.len(), 9_001);
    let last = records.last().unwrap();
    assert_eq!((&last.key[..], last.kind), (&b"gone"[..], RecordKind::Delete));
    assert_eq!(&records[7].row[..], b"new");

    db.drop_extract(&extract.name()).unwrap();
    assert!(db.extracts().unwrap().is_empty());
    assert_eq!(db.drop_extract(&extract.name()).unwrap_err().code(), "unknown_extract");
    assert_eq!(db.read_extract("../../etc/passwd", None).unwrap_err().code(), "unknown_extract");
}

#[test]
fn a_bit_that_flips_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let (db, table) = open(dir.path(), Options::default());
    let above = table.put("a", "row").unwrap();
    let through = table.put("b", "row").unwrap();
    db.quarantine(above, through).unwrap();
    let name = db.extracts().unwrap().remove(0).extract.name();
    let path = db.path().join("quarantine").join(format!("{name}.extract"));
    let sound = std::fs::read(&path).unwrap();
    for at in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[at] ^= 1;
        std::fs::write(&path, flipped).unwrap();
        assert!(db.read_extract(&name, None).is_err(), "byte {at}");
    }
    std::fs::write(&path, &sound[..sound.len() - 1]).unwrap();
    assert_eq!(db.read_extract(&name, None).unwrap_err().code(), "damaged");
}

#[test]
fn extracts_go_in_time_and_say_so_before() {
    for (age_max_ms, bytes_max) in [(0, u64::MAX), (u64::MAX, 0)] {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            quarantine_age_max_ms: age_max_ms,
            quarantine_bytes_max: bytes_max,
            ..Options::default()
        };
        let (db, table) = open(dir.path(), options);
        let above = table.put("a", "row").unwrap();
        let through = table.put("b", "row").unwrap();
        db.quarantine(above, through).unwrap();
        assert_eq!(db.tend_quarantine().unwrap().removed.len(), 1);
        assert!(db.extracts().unwrap().is_empty());
    }
    let dir = tempfile::tempdir().unwrap();
    let (db, table) = open(dir.path(), Options { quarantine_age_max_ms: 100_000_000, ..Options::default() });
    let above = table.put("a", "row").unwrap();
    let through = table.put("b", "row").unwrap();
    db.quarantine(above, through).unwrap();
    assert_eq!(db.tend_quarantine().unwrap(), super::Tended::default());
}
