//! Copies of an earlier cut that the log takes to any commit after it.

use std::path::Path;
use std::sync::Arc;

use planaria_types::{KeyRange, Uid};

use crate::os::MemOs;
use crate::{CloneRole, CloneTarget, Database, Durability, FileList, FilePin, LogSegment, Options, Role};

fn options(os: &MemOs) -> Options {
    Options {
        log_segment_bytes: 64 << 10,
        log_tail_bytes: 1 << 20,
        log_bytes_max: 4 << 20,
        background: false,
        os: Arc::new(os.clone()),
        ..Options::default()
    }
}

/// Writes rows `from..to`, one commit each, and tells the commits.
fn write(db: &Database, from: u32, to: u32) -> Vec<Uid> {
    let table = db.table("t").unwrap().id();
    let put = |number: u32| {
        let mut batch = crate::Batch::new();
        batch.put(table, number.to_be_bytes(), vec![number as u8; 3_000]);
        db.write(batch, Durability::Background).unwrap()
    };
    (from..to).map(put).collect()
}

/// Takes everything of a list from pins that have it, as of a commit.
fn restore(os: &MemOs, to: &str, list: &FileList, pins: &[&FilePin], role: CloneRole, upto: Uid) {
    let target = CloneTarget::open(to, list.clone(), options(os)).unwrap();
    for missing in target.missing().clone() {
        let chunk = pins.iter().find_map(|pin| pin.read(missing.kind, missing.number, missing.chunk).ok());
        target.write(missing, &chunk.unwrap()).unwrap();
    }
    assert_eq!(target.finish_as_of(role, upto).unwrap().uid, upto);
}

fn rows(db: &Database) -> usize {
    let table = db.table("t").unwrap().id();
    db.snapshot().scan(table, KeyRange::ALL).collect::<crate::Result<Vec<_>>>().unwrap().len()
}

fn after(pin: &FilePin, number: u64) -> Vec<LogSegment> {
    pin.log().iter().filter(|segment| segment.file.number > number).cloned().collect()
}

#[test]
fn a_cut_and_the_log_since_then_give_every_commit_in_between() {
    let os = MemOs::new(1);
    let db = Database::open_with("/db", options(&os)).unwrap();
    db.create_raw_table("t").unwrap();
    write(&db, 0, 10);
    let base = db.pin_files().unwrap();
    let mut commits = write(&db, 10, 70);
    db.flush().unwrap();
    drop(db);
    // Another start is another epoch, which the copy must know of.
    let db = Database::open_with("/db", options(&os)).unwrap();
    commits.extend(write(&db, 70, 90));
    let later = db.pin_archive(Some(base.list().position.uid)).unwrap();
    let segments = after(&later, base.list().last_segment());
    assert!(segments.len() > 3, "{} segments are too few to try", segments.len());
    let list = base.list().continued(&segments, later.list()).unwrap();
    assert_eq!(list.position, later.list().position);
    for (number, uid) in commits.iter().enumerate().step_by(7).chain([(79, &commits[79])]) {
        let to = format!("/copy-{number}");
        restore(&os, &to, &list, &[&base, &later], CloneRole::Detached, *uid);
        let copy = Database::open_with(&to, options(&os)).unwrap();
        assert_eq!((rows(&copy), copy.visible()), (11 + number, *uid));
        copy.verify().unwrap();
        assert_ne!((copy.id(), copy.instance()), (db.id(), db.instance()));
        assert_eq!(copy.lineage().unwrap().position.uid, *uid);
        write(&copy, 1_000, 1_001);
        assert_eq!(rows(&copy), 12 + number);
    }
    // A secondary's copy is of the same database, and shows no more than it was cut to.
    restore(&os, "/second", &list, &[&base, &later], CloneRole::Secondary, commits[65]);
    let second = Database::open_with("/second", options(&os)).unwrap();
    assert_eq!((second.role(), second.id(), rows(&second)), (Role::Secondary, db.id(), 76));
    assert_eq!(second.position().epoch, later.list().epoch());
}

#[test]
fn a_copy_that_was_interrupted_after_its_log_was_cut_is_completed() {
    let os = MemOs::new(2);
    let db = Database::open_with("/db", options(&os)).unwrap();
    db.create_raw_table("t").unwrap();
    let base = db.pin_files().unwrap();
    let commits = write(&db, 0, 50);
    let later = db.pin_archive(Some(base.list().position.uid)).unwrap();
    let list = base.list().continued(&after(&later, base.list().last_segment()), later.list()).unwrap();
    let target = CloneTarget::open("/copy", list.clone(), options(&os)).unwrap();
    for missing in target.missing().clone() {
        let chunk =
            [&base, &later].iter().find_map(|pin| pin.read(missing.kind, missing.number, missing.chunk).ok());
        target.write(missing, &chunk.unwrap()).unwrap();
    }
    target.cut_log(commits[9]).unwrap();
    drop(target);
    restore(&os, "/copy", &list, &[&base, &later], CloneRole::Detached, commits[40]);
    assert_eq!(rows(&Database::open_with("/copy", options(&os)).unwrap()), 41);
}

#[test]
fn a_log_with_a_gap_is_not_replayed() {
    let os = MemOs::new(3);
    let small = Options { log_tail_bytes: 0, ..options(&os) };
    let db = Database::open_with("/db", small).unwrap();
    db.create_raw_table("t").unwrap();
    write(&db, 0, 10);
    let base = db.pin_files().unwrap();
    let since = base.list().position.uid;
    write(&db, 10, 70);
    let gapless = db.pin_archive(Some(since)).unwrap();
    let segments = after(&gapless, base.list().last_segment());
    for left_out in 0..segments.len() - 1 {
        let mut some = segments.clone();
        some.remove(left_out);
        assert_eq!(base.list().continued(&some, gapless.list()).unwrap_err().code(), "invalid", "{left_out}");
    }
    // What the log has given up is not told as if it went on from there.
    db.compact().unwrap();
    write(&db, 70, 80);
    let late = db.pin_archive(Some(since)).unwrap();
    let own = late.list().files.iter().filter(|file| file.kind == crate::FileKind::Log).count();
    assert_eq!(late.log().len(), own);
    assert!(base.list().continued(&after(&late, base.list().last_segment()), late.list()).is_err());
}

#[test]
fn a_log_behind_a_bulk_ingest_is_another_one() {
    let os = MemOs::new(4);
    let db = Database::open_with("/db", options(&os)).unwrap();
    let table = db.create_raw_table("t").unwrap();
    let base = db.pin_files().unwrap();
    let since = base.list().position.uid;
    let mut ingest = table.ingest().unwrap();
    ingest.put([9], b"ingested").unwrap();
    ingest.finish().unwrap();
    write(&db, 0, 3);
    let later = db.pin_archive(Some(since)).unwrap();
    assert!(base.list().continued(&after(&later, base.list().last_segment()), later.list()).is_err());
    // The later cut is whole by itself.
    restore(&os, "/copy", later.list(), &[&later], CloneRole::Detached, later.list().position.uid);
    assert_eq!(rows(&Database::open_with(Path::new("/copy"), options(&os)).unwrap()), 4);
}

#[test]
fn archives_that_are_pinned_beside_a_writer_follow_one_another() {
    let os = MemOs::new(5);
    let db = Database::open_with("/db", options(&os)).unwrap();
    db.create_raw_table("t").unwrap();
    let base = db.pin_files().unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let pins = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                write(&db, number, number + 1);
                number += 1;
            }
        });
        let mut pins: Vec<FilePin> = Vec::new();
        for _ in 0..30 {
            let since = pins.last().unwrap_or(&base).list().position.uid;
            pins.push(db.pin_archive(Some(since)).unwrap());
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        writer.join().unwrap();
        pins
    });
    let mut all: Vec<LogSegment> = Vec::new();
    for pin in &pins {
        let number = all.last().map_or(base.list().last_segment(), |last| last.file.number);
        all.extend(after(pin, number));
    }
    let last = pins.last().unwrap();
    let list = base.list().continued(&all, last.list()).unwrap();
    let sources: Vec<&FilePin> = std::iter::once(&base).chain(&pins).collect();
    restore(&os, "/copy", &list, &sources, CloneRole::Detached, last.list().position.uid);
    Database::open_with("/copy", options(&os)).unwrap().verify().unwrap();
}
