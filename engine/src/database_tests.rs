//! A database against an ordered map: whatever is flushed, merged, reopened, the answers are the map's.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use planaria_types::KeyRange;

use super::{Batch, Database, Durability, Options, Snapshot, Table};
use crate::os::{MemOs, OpenMode, Os};

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn small_options(os: &Arc<MemOs>) -> Options {
    Options {
        memtable_bytes: 64 << 10,
        log_segment_bytes: 64 << 10,
        log_bytes_max: 256 << 10,
        log_tail_bytes: 128 << 10,
        run_file_bytes: 16 << 10,
        fragment_bytes_max: 1 << 20,
        block_bytes: 512,
        cache_bytes: 1 << 20,
        background: false,
        os: Arc::<MemOs>::clone(os),
        ..Options::default()
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn check(snapshot: &Snapshot, table: &Table, model: &Model) {
    let expected: Vec<_> = model.iter().map(|(key, row)| (key.clone(), row.clone())).collect();
    let owned = |record: crate::Result<(Bytes, Bytes)>| {
        let (key, row) = record.unwrap();
        (key.to_vec(), row.to_vec())
    };
    let forward: Vec<_> = snapshot.scan(table.id(), KeyRange::ALL).map(owned).collect();
    assert_eq!(forward, expected);
    let mut backward: Vec<_> = snapshot.scan(table.id(), KeyRange::ALL).rev().map(owned).collect();
    backward.reverse();
    assert_eq!(backward, expected);
    let mut visited = Vec::new();
    snapshot
        .scan(table.id(), KeyRange::ALL)
        .visit(|key, row| {
            visited.push((key.to_vec(), row.to_vec()));
            true
        })
        .unwrap();
    assert_eq!(visited, expected);
    let mut both = snapshot.scan(table.id(), KeyRange::ALL);
    let (mut front, mut back) = (Vec::new(), Vec::new());
    loop {
        let Some(record) = both.next() else { break };
        front.push(owned(record));
        let Some(record) = both.next_back() else { break };
        back.push(owned(record));
    }
    front.extend(back.into_iter().rev());
    assert_eq!(front, expected);
    for number in 0..400_u64 {
        let key = format!("{number:05}").into_bytes();
        let row = snapshot.get(table.id(), &key).unwrap();
        assert_eq!(row.as_deref(), model.get(&key).map(Vec::as_slice), "key {number}");
    }
}

#[test]
fn a_database_answers_like_an_ordered_map_through_flushes_merges_and_reopenings() {
    for seed in 0..8 {
        let os = Arc::new(MemOs::new(seed));
        let mut random = Random(seed);
        let mut db = Database::open_with("db", small_options(&os)).unwrap();
        let mut table = db.create_raw_table("t").unwrap();
        let mut model = Model::new();
        let mut kept: Vec<(Snapshot, Model)> = Vec::new();
        for step in 0..300 {
            let mut batch = Batch::new();
            for _ in 0..=random.below(20) {
                let key = format!("{:05}", random.below(400)).into_bytes();
                if random.below(4) == 0 {
                    batch.delete(table.id(), key.clone());
                    model.remove(&key);
                } else {
                    let row = vec![b'a' + (step % 26) as u8; random.below(200) as usize];
                    batch.put(table.id(), key.clone(), row.clone());
                    model.insert(key, row);
                }
            }
            let durability = if random.below(2) == 0 { Durability::Synced } else { Durability::Background };
            db.write(batch, durability).unwrap();
            match random.below(40) {
                0..=3 => db.flush().unwrap(),
                4 => db.compact().unwrap(),
                5 | 6 => db.store().compact_until_settled().unwrap(),
                7 => kept.push((db.snapshot(), model.clone())),
                8 => {
                    kept.clear();
                    drop((table, db));
                    db = Database::open_with("db", small_options(&os)).unwrap();
                    table = db.table("t").unwrap();
                }
                9 => {
                    let middle = format!("{:05}", random.below(400));
                    db.split(table.id(), middle.as_bytes()).unwrap();
                }
                _ => {}
            }
            if step % 25 == 0 {
                check(&db.snapshot(), &table, &model);
            }
        }
        for (snapshot, model) in &kept {
            check(snapshot, &table, model);
        }
        check(&db.snapshot(), &table, &model);
        assert_eq!(db.verify().unwrap().records, model.len() as u64);
    }
}

#[test]
fn files_of_the_real_system_survive_closing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let options = Options { memtable_bytes: 1 << 20, log_segment_bytes: 1 << 20, ..Options::default() };
    {
        let db = Database::open_with(&path, options.clone()).unwrap();
        let table = db.create_raw_table("t").unwrap();
        for number in 0..20_000_u64 {
            let mut batch = Batch::new();
            batch.put(table.id(), number.to_be_bytes(), vec![7; 100]);
            db.write(batch, Durability::Background).unwrap();
        }
        assert_eq!(Database::open_with(&path, options.clone()).unwrap_err().code(), "in_use");
    }
    let db = Database::open_with(&path, options).unwrap();
    assert_eq!(db.table("t").unwrap().scan(KeyRange::ALL).count(), 20_000);
    db.compact().unwrap();
    let verified = db.verify().unwrap();
    assert_eq!(verified.records, 20_000);
    assert!(verified.files > 0);
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let os = Arc::new(MemOs::new(1));
    let db = Database::open_with("db", small_options(&os)).unwrap();
    db.create_raw_table("t").unwrap();
    assert_eq!(db.create_raw_table("t").unwrap_err().code(), "table_exists");
    assert_eq!(db.table("x").unwrap_err().code(), "unknown_table");
    let mut batch = Batch::new();
    batch.put(planaria_types::TableId(77), "k", "v");
    assert_eq!(db.write(batch, Durability::Synced).unwrap_err().code(), "unknown_table");
    let options = Options { create: false, ..small_options(&os) };
    assert_eq!(Database::open_with("elsewhere", options).unwrap_err().code(), "not_found");
}

#[test]
fn a_local_clone_is_one_cut_and_neither_side_reaches_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { memtable_bytes: 1 << 20, log_segment_bytes: 1 << 20, ..Options::default() };
    let db = Database::open_with(dir.path().join("db"), options.clone()).unwrap();
    let table = db.create_raw_table("t").unwrap();
    for number in 0..30_000_u64 {
        let mut batch = Batch::new();
        batch.put(table.id(), number.to_be_bytes(), vec![1; 100]);
        db.write(batch, Durability::Background).unwrap();
    }
    let cloned = db.clone_to(dir.path().join("copy")).unwrap();
    assert!(cloned.linked > 0 && cloned.copied == 0, "{cloned:?}");
    let before = db.snapshot().digests().unwrap();
    table.put(7_u64.to_be_bytes(), "changed at the source").unwrap();
    let copy = Database::open_with(dir.path().join("copy"), options.clone()).unwrap();
    assert_eq!(copy.snapshot().digests().unwrap(), before);
    assert_ne!(copy.id(), db.id());
    let copied = copy.table("t").unwrap();
    copied.delete(9_u64.to_be_bytes()).unwrap();
    assert!(table.get(9_u64.to_be_bytes()).unwrap().is_some());
    db.compact().unwrap();
    copy.compact().unwrap();
    drop((copied, copy));
    let copy = Database::open_with(dir.path().join("copy"), options).unwrap();
    assert_eq!(copy.table("t").unwrap().scan(KeyRange::ALL).count(), 29_999);
    copy.verify().unwrap();
    assert_eq!(db.clone_to(dir.path().join("copy")).unwrap_err().code(), "exists");
}

#[test]
fn a_clone_that_follows_promises_the_epoch_of_its_source() {
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open_with(dir.path().join("db"), Options::default()).unwrap();
    db.create_raw_table("t").unwrap();
    let pin = db.pin_files().unwrap();
    assert_eq!(pin.list().epoch(), db.epoch());
    let path = dir.path().join("copy");
    let target = crate::CloneTarget::open(&path, pin.list().clone(), Options::default()).unwrap();
    for chunk in target.missing() {
        target.write(chunk, &pin.read(chunk.kind, chunk.number, chunk.chunk).unwrap()).unwrap();
    }
    target.finish(crate::CloneRole::Secondary).unwrap();
    let copy = Database::open_with(&path, Options::default()).unwrap();
    assert_eq!(copy.promised(), db.epoch());
}

#[test]
fn older_versions_are_kept_for_as_long_as_was_asked_for() {
    for (keep_history_ms, is_kept) in [(3_600_000, true), (0, false)] {
        let os = MemOs::new(1);
        let options = Options { keep_history_ms, ..small_options(&os_of(&os)) };
        let db = Database::open_with("db", options).unwrap();
        let table = db.create_raw_table("t").unwrap();
        let before = table.put("key", "old").unwrap();
        table.put("key", "new").unwrap();
        db.compact().unwrap();
        let then = db.snapshot_at(before).and_then(|then| then.get(table.id(), b"key"));
        assert_eq!(then.ok().flatten().as_deref() == Some(b"old"), is_kept);
        assert_eq!(table.get("key").unwrap().as_deref(), Some(&b"new"[..]));
    }
}

#[test]
fn a_clone_is_received_chunk_by_chunk_resumed_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { memtable_bytes: 1 << 20, log_segment_bytes: 1 << 20, ..Options::default() };
    let db = Database::open_with(dir.path().join("db"), options.clone()).unwrap();
    let table = db.create_raw_table("t").unwrap();
    for number in 0..30_000_u64 {
        let mut batch = Batch::new();
        batch.put(table.id(), number.to_be_bytes(), number.to_le_bytes().repeat(20));
        db.write(batch, Durability::Background).unwrap();
    }
    let pin = db.pin_files().unwrap();
    let expected = db.snapshot().digests().unwrap();
    table.put("later", "than the pin").unwrap();
    db.compact().unwrap();
    let path = dir.path().join("copy");
    let target = crate::CloneTarget::open(&path, pin.list().clone(), options.clone()).unwrap();
    let half = target.missing().len() / 2;
    let fetch = |chunk: &crate::MissingChunk| pin.read(chunk.kind, chunk.number, chunk.chunk).unwrap();
    for chunk in target.missing().into_iter().take(half) {
        assert_eq!(target.write(chunk, b"lies").unwrap_err().code(), "invalid");
        target.write(chunk, &fetch(&chunk)).unwrap();
    }
    drop(target);
    assert_eq!(
        Database::open_with(&path, Options { create: false, ..options.clone() }).unwrap_err().code(),
        "not_found"
    );
    let target = crate::CloneTarget::open(&path, pin.list().clone(), options.clone()).unwrap();
    assert!(target.resumed_bytes() > 0);
    for chunk in target.missing() {
        target.write(chunk, &fetch(&chunk)).unwrap();
    }
    target.finish(crate::CloneRole::Detached).unwrap();
    let copy = Database::open_with(&path, options).unwrap();
    assert_eq!(copy.snapshot().digests().unwrap(), expected);
    copy.verify().unwrap();
}

#[test]
fn a_clone_is_whole_though_an_attempt_before_died_before_its_files_had_their_length() {
    let os = MemOs::new(5);
    let db = Database::open_with("/db", small_options(&os_of(&os))).unwrap();
    db.create_raw_table("t").unwrap().put("a", "row").unwrap();
    let pin = db.pin_files().unwrap();
    let begin = || crate::CloneTarget::open("/copy", pin.list().clone(), small_options(&os_of(&os))).unwrap();
    drop(begin());
    let log = std::path::Path::new("/copy.partial/log");
    let names: Vec<_> = os.list(log).unwrap().into_iter().map(|entry| entry.name).collect();
    assert!(!names.is_empty());
    for name in names {
        os.open(&log.join(name), OpenMode::Write).unwrap().set_len(0).unwrap();
    }
    // And what one before that had begun with, if a power cut took back that the last one removed it.
    os.open(&log.join("00000000000000ff.log"), OpenMode::CreateNew).unwrap();
    let target = begin();
    for chunk in target.missing().clone() {
        target.write(chunk, &pin.read(chunk.kind, chunk.number, chunk.chunk).unwrap()).unwrap();
    }
    target.finish(crate::CloneRole::Detached).unwrap();
    let copy = Database::open_with("/copy", small_options(&os_of(&os))).unwrap();
    assert_eq!(copy.table("t").unwrap().get("a").unwrap().as_deref(), Some(&b"row"[..]));
}

#[test]
fn a_fragment_made_beyond_a_fork_is_not_taken_for_one_that_the_primary_made() {
    let os = MemOs::new(4);
    let primary = Database::open_with("db", small_options(&os_of(&os))).unwrap();
    let table = primary.create_raw_table("t").unwrap();
    for number in 0..100_u64 {
        table.put(format!("{number:05}"), "row").unwrap();
    }
    primary.flush().unwrap();
    let fork = primary.log_end();
    let copy_os = os.crash(crate::os::CrashStyle::PowerCutClean, 1);
    let copy = Database::open_with("db", small_options(&os_of(&copy_os))).unwrap();
    // Both split, elsewhere, and the fragments have the same number.
    copy.split(table.id(), b"00070").unwrap();
    copy.flush().unwrap();
    copy.take_back(copy.history().position_of(fork.0), fork.1).unwrap();
    copy.become_secondary(primary.id()).unwrap();
    primary.split(table.id(), b"00030").unwrap();
    for number in [10_u64, 50, 90] {
        table.put(format!("{number:05}"), "new").unwrap();
    }
    let crate::Followed::Commits(commits) = primary.follow(fork.0).next(1 << 20).unwrap() else {
        panic!("the log goes back to the fork");
    };
    copy.append_replicated(&commits).unwrap();
    copy.sync().unwrap();
    copy.show(primary.visible()).unwrap();
    copy.flush().unwrap();
    copy.compact().unwrap();
    assert_eq!(copy.snapshot().digests().unwrap(), primary.snapshot().digests().unwrap());
    copy.verify().unwrap();
}

fn os_of(os: &MemOs) -> Arc<MemOs> {
    Arc::new(os.clone())
}

#[test]
fn what_was_kept_for_an_absent_copy_takes_no_room_once_it_is_back() {
    let db = Database::open_with("db", small_options(&Arc::new(MemOs::new(3)))).unwrap();
    let table = db.create_raw_table("t").unwrap();
    let put = |keys: &mut dyn Iterator<Item = u32>, turn: u8| {
        let mut batch = Batch::new();
        for key in keys {
            batch.put(table.id(), key.to_be_bytes(), vec![turn; 40]);
        }
        db.write(batch, Durability::Background).unwrap();
    };
    put(&mut (0..2_000), 0);
    db.compact().unwrap();
    let run_bytes = || db.status().unwrap().run_bytes;
    let (away, before) = (db.visible(), run_bytes());
    // A copy goes away that might lead: what it shows must be kept, whatever comes later.
    db.set_floors(Some(away), Some(away));
    for turn in 1..10 {
        put(&mut (0..500), turn);
    }
    let mut batch = Batch::new();
    for key in 1_500..2_000_u32 {
        batch.delete(table.id(), key.to_be_bytes());
    }
    db.write(batch, Durability::Background).unwrap();
    db.compact().unwrap();
    let kept = run_bytes();
    assert!(kept > before, "{kept} bytes after {before}");
    // It would be rewound to: the marks of deletes remain, and what they weigh.
    db.set_floors_apart(None, Some(away), Some(away));
    db.compact().unwrap();
    let marks = run_bytes();
    assert!(marks < kept, "{marks} bytes after {kept}");
    assert_eq!(db.mark_floor(), planaria_types::Uid::ZERO);
    // It has been away for too long to lead: that changes nothing.
    db.set_floors(None, Some(away));
    db.compact().unwrap();
    assert_eq!(run_bytes(), marks);
    assert_eq!(db.mark_floor(), planaria_types::Uid::ZERO);
    // It is back, or forgotten: 500 rows are gone, and nothing tells of them.
    db.set_floors(None, None);
    db.compact().unwrap();
    assert!(run_bytes() < marks.min(before), "{} bytes after {marks}", run_bytes());
    assert!(db.mark_floor() > away);
    // There is nothing more to go: another one writes nothing.
    let files = || -> Vec<_> {
        let version = db.store().pin().0;
        version.fragments().iter().flat_map(|fragment| fragment.references()).map(|one| one.file).collect()
    };
    let settled = files();
    db.compact().unwrap();
    assert_eq!(files(), settled);
    // What was written since comes into one more file, which no merge is due for yet.
    put(&mut (0..1), 10);
    db.settle().unwrap();
    let flushed = files();
    assert_ne!(flushed, settled);
    db.settle().unwrap();
    assert_eq!(files(), flushed);
    assert_eq!(db.snapshot().scan(table.id(), KeyRange::ALL).count(), 1_500);
}

/// Starts of one commit each, whose segments are short; `each` sees the database of each before it ends.
fn start_often(starts: u32, options: &Options, mut each: impl FnMut(u32, &Database)) {
    for start in 0..starts {
        let db = Database::open_with("/db", options.clone()).unwrap();
        let table = if start == 0 { db.create_raw_table("t") } else { db.table("t") }.unwrap();
        let mut batch = Batch::new();
        batch.put(table.id(), start.to_be_bytes(), "row");
        db.write(batch, Durability::Synced).unwrap();
        each(start, &db);
    }
}

#[test]
fn the_tail_of_the_log_is_as_long_as_its_files_and_not_as_their_number() {
    let os = Arc::new(MemOs::new(7));
    let options = Options {
        log_segment_bytes: 1 << 20,
        log_bytes_max: 4 << 20,
        log_tail_bytes: 2 << 20,
        ..small_options(&os)
    };
    let mut longest = 0;
    start_often(40, &options, |start, db| {
        db.flush().unwrap();
        longest = db.status().unwrap().log_bytes.max(longest);
        assert!(longest <= 3 << 20, "{longest} bytes after {start} starts");
    });
    // Short ones take the room of two whole ones before the first of them goes, and not the place of two.
    assert!(longest >= 3 << 19, "{longest} bytes");
}

#[test]
fn memory_is_written_out_for_the_log_by_the_length_of_its_files() {
    let os = Arc::new(MemOs::new(8));
    let options = Options { log_segment_bytes: 1 << 20, log_bytes_max: 2 << 20, ..small_options(&os) };
    let mut first = None;
    start_often(12, &options, |start, db| {
        let before = db.status().unwrap().log_bytes;
        db.work_once(crate::Task::Sync).unwrap();
        db.work_once(crate::Task::Flush).unwrap();
        let status = db.status().unwrap();
        assert!(status.log_bytes <= 3 << 20, "{} bytes of log", status.log_bytes);
        if status.run_bytes > 0 {
            first.get_or_insert((start, before));
        }
    });
    let (start, before) = first.expect("idle memory is written out in the end");
    assert!(before >= 2 << 20, "written out after {start} starts, at {before} bytes of log");
}

#[test]
fn run_files_that_were_checked_are_read_when_somebody_needs_them() {
    let dir = tempfile::tempdir().unwrap();
    let (path, runs) = (dir.path().join("db"), dir.path().join("db/runs"));
    let quiet = || Options { background: false, ..Options::default() };
    let db = Database::open_with(&path, quiet()).unwrap();
    let table = db.create_raw_table("t").unwrap();
    let row = vec![b'r'; 10_000];
    table.put(b"key", &row).unwrap();
    db.compact().unwrap();
    drop((db, table));
    let read = |db: &Database| db.table("t")?.get(b"key");

    let db = Database::open_checked(&path, quiet()).unwrap();
    assert_eq!(read(&db).unwrap().as_deref(), Some(&row[..]));
    drop(db);
    let files = std::fs::read_dir(runs).unwrap().map(|entry| entry.unwrap());
    let files = files.map(|entry| (entry.metadata().unwrap().len(), entry.path()));
    let (len, of_table) = files.max().unwrap();
    std::fs::File::options().write(true).open(of_table).unwrap().set_len(len / 2).unwrap();
    assert_eq!(Database::open_with(&path, quiet()).unwrap_err().code(), "damaged");
    let db = Database::open_checked(&path, quiet()).unwrap();
    assert_eq!(read(&db).unwrap_err().code(), "damaged");
}
