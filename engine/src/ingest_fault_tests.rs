//! Bulk ingests in a database that dies, whose calls fail, or that merges at the same time.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Rows, contents, files, ingest, key, open, options, rows_of};
use crate::os::{Call, CrashStyle, Fault, FaultOs, MemOs};
use crate::{Database, Result, Table};

#[test]
fn an_ingest_between_the_inputs_of_a_merge_that_runs_goes_to_the_bottom_and_one_over_them_on_top() {
    for (numbers, on_top) in [(300..350, false), (5..350, true)] {
        for at in 1.. {
            let os = FaultOs::new(Arc::new(MemOs::new(1)));
            let db = Database::open_with("/db", options(Arc::new(os.clone()))).unwrap();
            let table = db.create_raw_table("t").unwrap();
            let mut model = Rows::new();
            for (numbers, letter) in [(0..10, b'a'), (500..510, b'b'), (0..9, b'c'), (500..509, b'd')] {
                let rows = rows_of(numbers, letter);
                ingest(&table, &rows).unwrap();
                model.extend(rows);
            }
            let rows = rows_of(numbers.clone(), b'i');
            let reached = Arc::new(AtomicBool::new(false));
            let hook = {
                let (table, rows, reached) = (table.clone(), rows.clone(), Arc::clone(&reached));
                move || {
                    assert_eq!(ingest(&table, &rows).unwrap().records, rows.len() as u64);
                    reached.store(true, Ordering::Release);
                }
            };
            os.run_before(Call::Read, at, hook);
            db.compact().unwrap_or_else(|error| panic!("read {at}: {error}"));
            os.clear();
            if !reached.load(Ordering::Acquire) {
                assert!(at > 4, "a merge reads its inputs");
                break;
            }
            model.extend(rows);
            db.verify().unwrap();
            assert!(contents(&table) == model, "read {at}, over: {on_top}");
            db.compact().unwrap();
            assert!(contents(&table) == model, "read {at}, over: {on_top}, compacted again");
        }
    }
}

/// What an application has tried to bring about, and how far it was promised.
struct Story {
    states: Vec<Rows>,
    promised: usize,
}

impl Story {
    fn attempt<T>(&mut self, change: &Rows, act: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut next = self.states.last().unwrap().clone();
        next.extend(change.clone());
        self.states.push(next);
        let done = act()?;
        self.promised = self.states.len() - 1;
        Ok(done)
    }

    fn put(&mut self, table: &Table, number: u64) -> Result<()> {
        let change = rows_of(number..=number, b'p');
        self.attempt(&change, || table.put(key(number), change[&key(number)].clone())).map(|_| ())
    }

    fn ingest(&mut self, table: &Table, rows: &Rows) -> Result<()> {
        self.attempt(rows, || ingest(table, rows)).map(|_| ())
    }

    /// Ingests over what lies in memory, in runs above and at the bottom, and where nothing is.
    fn tell(&mut self, os: &MemOs) -> Result<()> {
        let reopen = || Database::open_with("/db", options(Arc::new(os.clone())));
        let db = reopen()?;
        let table = db.create_raw_table("t")?;
        for number in [10, 20, 30] {
            self.put(&table, number)?;
        }
        db.compact()?;
        self.put(&table, 20)?;
        self.ingest(&table, &rows_of((0..80).step_by(2), b'a'))?;
        self.put(&table, 40)?;
        self.ingest(&table, &rows_of(500..520, b'b'))?;
        self.put(&table, 50)?;
        db.split(table.id(), &key(30))?;
        self.ingest(&table, &rows_of(25..35, b'c'))?;
        drop((table, db));
        let db = reopen()?;
        let table = db.table("t")?;
        self.ingest(&table, &rows_of(10..12, b'd'))?;
        db.compact()?;
        self.put(&table, 60)
    }
}

#[test]
fn a_crash_at_any_call_leaves_all_of_an_ingest_or_nothing_and_no_files() {
    let fresh = || Story { states: vec![Rows::new()], promised: 0 };
    let clean = MemOs::new(3);
    fresh().tell(&clean).unwrap();
    for n in 1..=clean.mutations() {
        for style in CrashStyle::ALL {
            let what = format!("call {n}, {style:?}");
            let os = MemOs::new(3);
            os.crash_at(n);
            let mut story = fresh();
            // The last calls are those of closing, whose failure is nobody's concern.
            let _ = story.tell(&os);
            let os = os.crash(style, n);
            let db = Database::open_with("/db", options(Arc::new(os.clone())))
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            let Ok(table) = db.table("t") else {
                assert_eq!(story.promised, 0, "{what}");
                continue;
            };
            let found = contents(&table);
            let at = story.states.iter().rposition(|state| *state == found);
            let at = at.unwrap_or_else(|| panic!("{what}: {} rows are no state", found.len()));
            assert!(at >= story.promised, "{what}: state {at}, {} was promised", story.promised);
            db.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(files(&os), db.status().unwrap().run_files, "{what}: files are left");
            let more = rows_of(0..20, b'z');
            let before = db.visible();
            assert!(ingest(&table, &more).unwrap().uid > before, "{what}");
            let mut expected = found;
            expected.extend(more);
            drop((table, db));
            let db = open(&os);
            assert_eq!(contents(&db.table("t").unwrap()), expected, "{what}");
        }
    }
}

/// Makes the `at`-th call of a kind fail during an ingest; returns whether that call was reached.
fn fail(call: Call, at: u64, error: ErrorKind) -> bool {
    let what = format!("{call:?} {at}, {error:?}");
    let disk = MemOs::new(at);
    let os = FaultOs::new(Arc::new(disk.clone()));
    let db = Database::open_with("/db", options(Arc::new(os.clone()))).unwrap();
    let table = db.create_raw_table("t").unwrap();
    for number in 0..10 {
        table.put(key(number), "old").unwrap();
    }
    db.flush().unwrap();
    table.put(key(3), "in memory").unwrap();
    let before = contents(&table);
    let rows = rows_of(5..120, b'i');
    let mut after = before.clone();
    after.extend(rows.clone());
    os.inject(Fault { call, at, error, forever: false });
    let done = ingest(&table, &rows);
    let reached = os.hits() > 0;
    os.clear();
    let poisoned = table.put("probe", "").is_err();
    let mut shown = contents(&table);
    let probed = shown.remove(&b"probe"[..]).is_some();
    assert_eq!(probed, !poisoned, "{what}");
    match &done {
        Ok(_) => assert_eq!(shown, after, "{what}"),
        Err(error) => {
            assert!(["io", "no_space", "poisoned"].contains(&error.code()), "{what}: {error}");
            assert_eq!(shown, before, "{what}: {error}");
            if !poisoned {
                assert_eq!(files(&disk), db.status().unwrap().run_files, "{what}: files are left");
                ingest(&table, &rows).unwrap_or_else(|error| panic!("{what}: a second time: {error}"));
            }
        }
    }
    let certain = done.is_ok() || !poisoned;
    drop((table, db));
    for style in CrashStyle::ALL {
        let db = open(&disk.crash(style, at));
        let mut found = contents(&db.table("t").unwrap());
        found.remove(&b"probe"[..]);
        assert!(found == after || (!certain && found == before), "{what}, {style:?}");
        db.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    reached
}

#[test]
fn a_call_that_fails_leaves_all_of_an_ingest_or_nothing() {
    for call in [Call::Create, Call::Open, Call::Write, Call::SyncData, Call::SyncDir, Call::Rename] {
        for error in [ErrorKind::StorageFull, ErrorKind::Other] {
            let mut reached = 0;
            while fail(call, reached + 1, error) {
                reached += 1;
            }
            assert!(reached > 0, "{call:?} is never called");
        }
    }
}
