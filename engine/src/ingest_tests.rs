//! Bulk ingests: one commit in run files, all of it or nothing, whatever happens before, meanwhile and after.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use planaria_types::{KeyRange, Uid};

use crate::os::{CrashStyle, MemOs, Os};
use crate::{
    Batch, CloneRole, CloneTarget, Codec, Column, ColumnType, Database, Durability, Followed, Ingested,
    Options, ReadMode, RefreshEnd, Result, Schema, Table, Value,
};

#[path = "ingest_fault_tests.rs"]
mod faults;

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn options(os: Arc<dyn Os>) -> Options {
    Options {
        memtable_bytes: 64 << 10,
        log_segment_bytes: 64 << 10,
        log_bytes_max: 256 << 10,
        log_tail_bytes: 1 << 20,
        run_file_bytes: 16 << 10,
        fragment_bytes_max: 1 << 20,
        block_bytes: 512,
        cache_bytes: 1 << 20,
        background: false,
        os,
        ..Options::default()
    }
}

fn open(os: &MemOs) -> Database {
    Database::open_with("/db", options(Arc::new(os.clone()))).unwrap()
}

fn key(number: u64) -> Vec<u8> {
    format!("{number:04}").into_bytes()
}

/// Rows of about half a kilobyte under the given keys, which do not shrink.
fn rows_of(numbers: impl Iterator<Item = u64>, letter: u8) -> Rows {
    let row = |number: u64| {
        let mut dice = Dice((number << 8) | u64::from(letter));
        (0..300 + number * 37 % 400).map(|_| dice.below(256) as u8).collect()
    };
    numbers.map(|number| (key(number), row(number))).collect()
}

fn ingest(table: &Table, rows: &Rows) -> Result<Ingested> {
    let mut ingest = table.ingest()?;
    for (key, row) in rows {
        ingest.put(key, row)?;
    }
    ingest.finish()
}

fn contents(table: &Table) -> Rows {
    let owned = |record: Result<(bytes::Bytes, bytes::Bytes)>| {
        let (key, row) = record.unwrap();
        (key.to_vec(), row.to_vec())
    };
    table.scan(KeyRange::ALL).map(owned).collect()
}

/// How many files lie in the directory of runs.
fn files(os: &MemOs) -> usize {
    os.list(Path::new("/db/runs")).unwrap().len()
}

/// Numbers that follow from a seed: xorshift (Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// A database beside an ordered map of what it should hold: the commit and the row of each key.
struct Pair {
    os: MemOs,
    codec: Codec,
    /// There but while the database is opened again.
    open: Option<(Database, Table)>,
    model: BTreeMap<Vec<u8>, (Uid, Vec<u8>)>,
    cuts: Vec<Uid>,
}

impl Pair {
    fn new(seed: u64, codec: Codec) -> Self {
        let os = MemOs::new(seed);
        let options = Options { bottom_codec: codec, ..options(Arc::new(os.clone())) };
        let db = Database::open_with("/db", options).unwrap();
        let table = db.create_raw_table("t").unwrap();
        Self { os, codec, open: Some((db, table)), model: BTreeMap::new(), cuts: Vec::new() }
    }

    fn db(&self) -> &Database {
        &self.open.as_ref().unwrap().0
    }

    fn table(&self) -> &Table {
        &self.open.as_ref().unwrap().1
    }

    fn ingest(&mut self, numbers: Range<u64>, letter: u8, step: usize) {
        let rows = rows_of(numbers.step_by(step), letter);
        let before = self.db().log_end().0;
        let done = ingest(self.table(), &rows).unwrap();
        assert!(done.uid > before && self.db().visible() == done.uid && self.db().durable() == done.uid);
        assert_eq!(done.records, rows.len() as u64);
        self.model.extend(rows.into_iter().map(|(key, row)| (key, (done.uid, row))));
        self.cuts.push(done.uid);
    }

    fn step(&mut self, dice: &mut Dice) {
        let number = dice.below(200);
        match dice.below(14) {
            0..=3 => {
                let row = vec![b'p'; dice.below(500) as usize];
                let uid = self.table().put(key(number), row.clone()).unwrap();
                self.model.insert(key(number), (uid, row));
                self.cuts.push(uid);
            }
            4 => {
                self.cuts.push(self.table().delete(key(number)).unwrap());
                self.model.remove(&key(number));
            }
            5..=7 => {
                let letter = b'a' + dice.below(26) as u8;
                self.ingest(number..number + 1 + dice.below(60), letter, 1 + dice.below(3) as usize);
            }
            8 | 9 => self.db().flush().unwrap(),
            10 => self.db().compact().unwrap(),
            11 => self.db().store().compact_until_settled().unwrap(),
            12 => self.db().split(self.table().id(), &key(number)).unwrap(),
            _ => self.reopen(),
        }
    }

    /// Closes the database and opens it again.
    fn reopen(&mut self) {
        self.open = None;
        let options = Options { bottom_codec: self.codec, ..options(Arc::new(self.os.clone())) };
        let db = Database::open_with("/db", options).unwrap();
        let table = db.table("t").unwrap();
        self.open = Some((db, table));
    }

    fn check(&self, what: &str) {
        let snapshot = self.db().snapshot();
        let rows: Rows = self.model.iter().map(|(key, (_, row))| (key.clone(), row.clone())).collect();
        assert_eq!(contents(self.table()), rows, "{what}");
        for number in 0..260 {
            let found = snapshot.find(self.table().id(), &key(number)).unwrap();
            let found = found.map(|(uid, row)| (uid, row.to_vec()));
            assert_eq!(found.as_ref(), self.model.get(&key(number)), "{what}: key {number}");
        }
        for since in self.cuts.iter().rev().take(5).chain(self.cuts.first()) {
            let chunk = snapshot.changes(*since, (self.table().id(), &[]), usize::MAX).unwrap();
            let puts = chunk.changes.into_iter().filter(|change| change.kind == crate::RecordKind::Put);
            let found: Vec<_> =
                puts.map(|change| (change.key.to_vec(), (change.uid, change.row.to_vec()))).collect();
            let newer = self.model.iter().filter(|(_, (uid, _))| uid > since);
            let expected: Vec<_> = newer.map(|(key, version)| (key.clone(), version.clone())).collect();
            assert_eq!(found, expected, "{what}: since {since}");
        }
    }
}

#[test]
fn an_ingest_is_a_commit_like_any_other_whatever_is_done_to_its_files() {
    for seed in 1..=6 {
        let codec = if seed % 2 == 0 { Codec::Lz4 } else { Codec::None };
        let mut pair = Pair::new(seed, codec);
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        for step in 0..60 {
            pair.step(&mut dice);
            pair.check(&format!("seed {seed}, step {step}"));
        }
        let verified = pair.db().verify().unwrap();
        assert_eq!(verified.records, pair.model.len() as u64);
    }
}

#[test]
fn files_that_own_their_keys_go_to_the_bottom_and_others_on_top() {
    let mut pair = Pair::new(1, Codec::None);
    pair.ingest(0..100, b'a', 1);
    pair.ingest(200..300, b'b', 1);
    let shape = |pair: &Pair| {
        let version = pair.db().store().pin().0;
        let fragment = Arc::clone(version.find(pair.table().id(), &[]).unwrap());
        (fragment.upper.len(), fragment.bottom.len())
    };
    let (upper, bottom) = shape(&pair);
    assert!(upper == 0 && bottom > 4, "{upper} above {bottom}");
    let (uid, row) = (pair.table().put(key(150), "in memory").unwrap(), b"in memory".to_vec());
    pair.model.insert(key(150), (uid, row));
    pair.ingest(140..160, b'c', 1);
    assert!(shape(&pair).0 > 0, "the memtable owned one of the keys");
    pair.check("on top of what was in memory");
    pair.db().compact().unwrap();
    assert_eq!(shape(&pair).0, 0);
    pair.check("compacted");
}

#[test]
fn a_row_out_of_order_or_over_a_limit_is_refused_by_its_key_and_nothing_changes() {
    let os = MemOs::new(1);
    let db = open(&os);
    let table = db.create_raw_table("t").unwrap();
    table.put("kept", "row").unwrap();
    let (end, before, run_files) = (db.log_end(), contents(&table), files(&os));
    let bad = [
        (b"0100".to_vec(), vec![1], "invalid"),
        (b"0099".to_vec(), vec![1], "invalid"),
        (b"0101".to_vec(), vec![0; crate::MAX_ROW_BYTES + 1], "too_large"),
        (vec![b'k'; crate::MAX_KEY_BYTES + 1], vec![1], "too_large"),
    ];
    for (key, row, code) in bad {
        let mut ingest = table.ingest().unwrap();
        for (key, row) in rows_of(0..101, b'r') {
            ingest.put(key, row).unwrap();
        }
        let error = ingest.put(&key, &row).unwrap_err();
        assert_eq!(error.code(), code);
        if code == "invalid" {
            assert!(error.to_string().contains(&*String::from_utf8_lossy(&key)), "{error}");
            assert!(error.to_string().contains("0100"), "{error}");
        }
        assert_eq!(ingest.put("later", "row").unwrap_err().code(), "invalid");
        assert_eq!(ingest.finish().unwrap_err().code(), "invalid");
        assert_eq!((db.log_end(), contents(&table), files(&os)), (end, before.clone(), run_files));
    }
    let mut abandoned = table.ingest().unwrap();
    for (key, row) in rows_of(0..200, b'r') {
        abandoned.put(key, row).unwrap();
    }
    assert!(files(&os) > run_files + 3, "several files are there");
    drop(abandoned);
    assert_eq!((db.log_end(), files(&os)), (end, run_files));
    let nothing = table.ingest().unwrap().finish().unwrap();
    assert_eq!((nothing.uid, nothing.records, nothing.files), (end.0, 0, 0));
    let largest = Rows::from([(vec![b'k'; crate::MAX_KEY_BYTES], vec![7; crate::MAX_ROW_BYTES])]);
    ingest(&table, &largest).unwrap();
    assert_eq!(table.get(vec![b'k'; crate::MAX_KEY_BYTES]).unwrap().unwrap().len(), crate::MAX_ROW_BYTES);
    db.verify().unwrap();
}

#[test]
fn a_typed_table_takes_values_in_the_order_of_its_key_and_refuses_other_bytes() {
    let db = open(&MemOs::new(1));
    let schema = Schema::builder()
        .column(Column::new("id", ColumnType::Int64))
        .column(Column::new("name", ColumnType::Text))
        .key(["id"])
        .build()
        .unwrap();
    let table = db.create_table("t", schema).unwrap();
    let mut ingest = table.ingest().unwrap();
    for id in -50..50 {
        ingest.insert(&[Value::Int(id), Value::Text(format!("name {id}"))]).unwrap();
    }
    ingest.finish().unwrap();
    assert_eq!(table.rows(&[]).unwrap().count(), 100);
    let found = table.find(&[Value::Int(-7)]).unwrap().unwrap();
    assert_eq!(found, [Value::Int(-7), Value::Text("name -7".into())]);
    for put in [
        |ingest: &mut crate::Ingest| ingest.put("no key of the table", "row"),
        |ingest: &mut crate::Ingest| ingest.insert(&[Value::Int(1)]),
    ] {
        let mut ingest = table.ingest().unwrap();
        assert!(["invalid", "schema"].contains(&put(&mut ingest).unwrap_err().code()));
        assert!(ingest.finish().is_err());
    }
}

#[test]
fn a_secondary_refuses_an_ingest_even_one_that_was_begun_before() {
    let os = MemOs::new(1);
    let db = open(&os);
    let table = db.create_raw_table("t").unwrap();
    let mut begun = table.ingest().unwrap();
    begun.put("key", "row").unwrap();
    db.become_secondary(db.id()).unwrap();
    assert_eq!(table.ingest().unwrap_err().code(), "read_only");
    let run_files = files(&os);
    assert_eq!(begun.finish().unwrap_err().code(), "read_only");
    assert_eq!(contents(&table), Rows::new());
    assert!(files(&os) <= run_files, "what was begun is removed; memory may have been written out");
    assert_eq!(files(&os), db.status().unwrap().run_files);
}

#[test]
fn the_log_has_nothing_to_follow_over_an_ingest_and_goes_on_behind_it() {
    let os = MemOs::new(1);
    let table = open(&os).create_raw_table("t").unwrap();
    let first = table.put("a", "1").unwrap();
    for number in 0..200 {
        table.put(key(number), vec![b'r'; 500]).unwrap();
    }
    drop(table);
    // A new start has no commits in memory, so that followers read the log.
    let db = open(&os);
    let table = db.table("t").unwrap();
    let last = db.log_end().0;
    let commits = |followed| match followed {
        Followed::Commits(commits) => commits,
        Followed::NotRetained => panic!("it is retained"),
    };
    let mut reading = db.follow(first);
    assert_eq!(commits(reading.next(1).unwrap()).len(), 1);
    let mut at_the_end = db.follow(first);
    while at_the_end.at() < last {
        assert!(!commits(at_the_end.next(1 << 20).unwrap()).is_empty());
    }
    assert!(db.estimate_refresh(last).retained);
    let done = ingest(&table, &rows_of(50..100, b'i')).unwrap();
    assert!(matches!(at_the_end.next(1 << 20).unwrap(), Followed::NotRetained));
    let after = table.put("b", "2").unwrap();
    assert!(matches!(at_the_end.next(1 << 20).unwrap(), Followed::NotRetained));
    let mut followed = reading.next(1 << 20).unwrap();
    while matches!(&followed, Followed::Commits(_)) {
        assert!(reading.at() <= last);
        followed = reading.next(1 << 20).unwrap();
    }
    for since in [first, last] {
        assert!(!db.estimate_refresh(since).retained);
        assert!(matches!(db.follow(since).next(1 << 20).unwrap(), Followed::NotRetained));
    }
    assert!(db.estimate_refresh(done.uid).retained);
    let behind = commits(db.follow(done.uid).next(1 << 20).unwrap());
    assert_eq!((behind.len(), behind[0].commit.prev(), behind[0].commit.uid()), (1, done.uid, after));
    let (hash, end) = (db.history_hash_at(done.uid).unwrap(), db.log_end());
    assert!(hash.is_some() && hash != Some(end.1));
    drop((table, db, at_the_end, reading));
    let db = open(&os);
    assert_eq!((db.history_hash_at(done.uid).unwrap(), db.log_end()), (hash, end));
    let behind = commits(db.follow(done.uid).next(1 << 20).unwrap());
    assert_eq!((behind.len(), behind[0].commit.uid()), (1, after));
}

#[test]
fn an_ingest_that_another_primary_never_saw_is_kept_aside_and_taken_back() {
    for compacted in [false, true] {
        let os = MemOs::new(1);
        let db = open(&os);
        let table = db.create_raw_table("t").unwrap();
        ingest(&table, &rows_of(0..100, b'a')).unwrap();
        table.put(key(7), "kept").unwrap();
        if compacted {
            db.compact().unwrap();
        }
        let (fork, before) = (db.log_end(), contents(&table));
        ingest(&table, &rows_of(5..150, b'b')).unwrap();
        table.put(key(8), "lost").unwrap();
        let through = db.log_end().0;
        db.quarantine(fork.0, through).unwrap();
        let extract = format!("/db/quarantine/{:016x}-{:016x}.extract", fork.0.get(), through.get());
        let file = os.open(Path::new(&extract), crate::os::OpenMode::Read).unwrap();
        assert!(file.len().unwrap() > 145 * 300, "the extract has the rows of the ingest");
        db.take_back(db.history().position_of(fork.0), fork.1).unwrap();
        assert_eq!((contents(&table), db.log_end()), (before.clone(), fork));
        db.verify().unwrap();
        drop((table, db));
        let db = open(&os.crash(CrashStyle::PowerCutClean, 1));
        let table = db.table("t").unwrap();
        assert_eq!((contents(&table), db.log_end()), (before, fork));
        db.compact().unwrap();
        db.verify().unwrap();
    }
}

#[test]
fn a_delta_over_an_ingest_brings_its_rows_under_its_uid() {
    let (os, other) = (MemOs::new(1), MemOs::new(2));
    let (db, copy) = (open(&os), open(&other));
    copy.become_secondary(db.id()).unwrap();
    let table = db.create_raw_table("t").unwrap();
    for number in 0..20 {
        table.put(key(number), "old").unwrap();
    }
    let Followed::Commits(commits) = db.follow(Uid::ZERO).next(usize::MAX).unwrap() else { panic!() };
    copy.append_replicated(&commits).unwrap();
    copy.sync().unwrap();
    copy.show(db.visible()).unwrap();
    let done = ingest(&table, &rows_of(10..90, b'i')).unwrap();
    table.put(key(15), "newer").unwrap();
    let snapshot = db.snapshot();
    let mut refresh = copy.begin_refresh(None).unwrap();
    let chunk = snapshot.changes(refresh.from(), (planaria_types::TableId::SYSTEM, &[]), usize::MAX).unwrap();
    assert_eq!(chunk.changes.iter().filter(|change| change.uid == done.uid).count(), 79);
    for change in &chunk.changes {
        refresh.add(change).unwrap();
    }
    let (base, base_hash) = db.log_end();
    let (history, cut) = (db.history(), snapshot.uid());
    refresh
        .install(&RefreshEnd {
            base,
            base_hash,
            history,
            live: Vec::new(),
            sparse_to: cut,
            cut,
            portion: None,
        })
        .unwrap();
    let sums = |db: &Database| db.snapshot().fingerprint(table.id(), KeyRange::ALL).unwrap();
    assert_eq!(sums(&copy), sums(&db));
    assert_eq!(copy.log_end(), db.log_end());
    copy.compact().unwrap();
    copy.verify().unwrap();
    assert_eq!(sums(&copy), sums(&db));
}

#[test]
fn clones_of_ingested_files_equal_their_source_and_resume_over_another_ingest() {
    let os = MemOs::new(1);
    let db = open(&os);
    let table = db.create_raw_table("t").unwrap();
    ingest(&table, &rows_of(0..2_000, b'a')).unwrap();
    let sums = |db: &Database| db.snapshot().fingerprint(table.id(), KeyRange::ALL).unwrap();
    db.clone_to("/local").unwrap();
    let receive = |most: usize| {
        let pin = db.pin_files().unwrap();
        let target = options(Arc::new(os.clone()));
        let clone = CloneTarget::open("/remote", pin.list().clone(), target).unwrap();
        let missing: Vec<_> = clone.missing().into_iter().take(most).collect();
        for chunk in missing {
            let bytes = pin.read(chunk.kind, chunk.number, chunk.chunk).unwrap();
            clone.write(chunk, &bytes).unwrap();
        }
        clone
    };
    drop(receive(20));
    ingest(&table, &rows_of(500..600, b'b')).unwrap();
    let clone = receive(usize::MAX);
    assert!(clone.resumed_bytes() > 0);
    clone.finish(CloneRole::Detached).unwrap();
    let local = Database::open_with("/local", options(Arc::new(os.clone()))).unwrap();
    local.verify().unwrap();
    ingest(&local.table("t").unwrap(), &rows_of(500..600, b'b')).unwrap();
    assert_eq!(local.snapshot().digests().unwrap(), db.snapshot().digests().unwrap());
    let remote = Database::open_with("/remote", options(Arc::new(os.clone()))).unwrap();
    remote.verify().unwrap();
    assert_eq!(sums(&remote), sums(&db));
    remote.compact().unwrap();
    assert_eq!(sums(&remote), sums(&db));
}

#[test]
fn ingested_files_read_the_same_mapped_and_cached_compressed_and_not() {
    for (bottom_codec, read_mode) in [
        (Codec::None, ReadMode::Mapped),
        (Codec::Lz4, ReadMode::Mapped),
        (Codec::None, ReadMode::Cached),
        (Codec::Lz4, ReadMode::Cached),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let real = Options { background: false, run_file_bytes: 64 << 10, ..Options::default() };
        let options = Options { bottom_codec, read_mode, ..real };
        let db = Database::open_with(dir.path().join("db"), options.clone()).unwrap();
        let table = db.create_raw_table("t").unwrap();
        let rows = rows_of(0..2_000, b'r');
        let done = ingest(&table, &rows).unwrap();
        assert!(done.files > 1);
        drop((table, db));
        let db = Database::open_with(dir.path().join("db"), options).unwrap();
        let (table, snapshot) = (db.table("t").unwrap(), db.snapshot());
        assert_eq!(contents(&table), rows);
        for (key, row) in &rows {
            let found = snapshot.find(table.id(), key).unwrap();
            assert_eq!(found.map(|(uid, row)| (uid, row.to_vec())), Some((done.uid, row.clone())));
        }
        let none = snapshot.changes(done.uid, (table.id(), &[]), usize::MAX).unwrap();
        assert!(none.changes.is_empty());
        db.verify().unwrap();
    }
}

#[test]
fn writers_go_on_during_ingests_and_readers_see_all_of_one_or_nothing() {
    const ROWS: u64 = 400;
    let os = MemOs::new(1);
    let background = Options { background: true, ..options(Arc::new(os.clone())) };
    let db = Database::open_with("/db", background).unwrap();
    let table = db.create_raw_table("t").unwrap();
    let (acknowledged, ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let shared_key = |number: u64| format!("shared {:02}", number % 40).into_bytes();
    let write = |writer: u64| {
        let mut written = Vec::new();
        for number in 0..400 {
            let mut batch = Batch::new();
            let row = format!("writer {writer}, {number}").into_bytes();
            batch.put(table.id(), shared_key(number * 7), row.clone());
            let durability = if number % 3 == 0 { Durability::Synced } else { Durability::Background };
            let uid = db.write(batch, durability).unwrap();
            acknowledged.fetch_max(uid.get(), Ordering::AcqRel);
            written.push((uid, shared_key(number * 7), row));
        }
        written
    };
    let ingests = || {
        let mut written = Vec::new();
        for round in 0..6 {
            let mut ingest = table.ingest().unwrap();
            let row = format!("round {round}").into_bytes();
            for number in 0..ROWS {
                ingest.put(format!("own {number:04}"), &row).unwrap();
            }
            for number in 0..40 {
                ingest.put(shared_key(number), &row).unwrap();
            }
            let before = acknowledged.load(Ordering::Acquire);
            let uid = ingest.finish().unwrap().uid;
            assert!(uid.get() > before, "an ingest comes after what was acknowledged before it");
            assert!(table.put("after", "row").unwrap() > uid, "and before what comes after");
            written.extend((0..40).map(|number| (uid, shared_key(number), row.clone())));
        }
        ended.store(true, Ordering::Release);
        written
    };
    let read = || {
        while !ended.load(Ordering::Acquire) {
            let snapshot = db.snapshot();
            let own = snapshot.scan(table.id(), KeyRange::prefix(b"own "));
            let rows: Vec<_> = own.map(|record| record.unwrap().1).collect();
            assert!(rows.is_empty() || rows.len() as u64 == ROWS, "{} rows", rows.len());
            assert!(rows.windows(2).all(|pair| pair[0] == pair[1]), "two ingests at once");
        }
    };
    let mut written = std::thread::scope(|scope| {
        let reader = scope.spawn(read);
        let writers = [scope.spawn(|| write(1)), scope.spawn(|| write(2))];
        let mut written = ingests();
        written.extend(writers.into_iter().flat_map(|writer| writer.join().unwrap()));
        reader.join().unwrap();
        written
    });
    written.sort();
    assert!(written.windows(2).all(|pair| pair[0].0 < pair[1].0 || pair[0].1 != pair[1].1));
    let newest: BTreeMap<_, _> = written.into_iter().map(|(uid, key, row)| (key, (uid, row))).collect();
    drop((table, db));
    let db = open(&os);
    let table = db.table("t").unwrap();
    for (key, (uid, row)) in newest {
        let found = db.snapshot().find(table.id(), &key).unwrap();
        assert_eq!(found, Some((uid, row.into())), "{}", key.escape_ascii());
    }
    db.verify().unwrap();
}
