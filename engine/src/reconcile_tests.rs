//! A reconcile at the engine: a copy that went its own way becomes equal to the primary, in one step, whatever either did.

use std::collections::BTreeMap;

use planaria_types::{KeyRange, TableId, Uid};

use crate::os::{CrashStyle, MemOs};
use crate::{
    Batch, Database, Durability, Followed, LoggedCommit, Options, Reconcile, RefreshEnd, Result, Role,
};

type Contents = BTreeMap<(TableId, Vec<u8>), (Uid, Vec<u8>)>;

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

fn open(os: &MemOs) -> Result<Database> {
    let options = Options {
        memtable_bytes: 1 << 20,
        log_segment_bytes: 64 << 10,
        log_bytes_max: 4 << 20,
        log_tail_bytes: 2 << 20,
        run_file_bytes: 16 << 10,
        block_bytes: 512,
        background: false,
        os: std::sync::Arc::new(os.clone()),
        ..Options::default()
    };
    Database::open_with("/db", options)
}

fn contents(db: &Database) -> Contents {
    let snapshot = db.snapshot();
    let mut contents = Contents::new();
    for table in snapshot.table_ids() {
        let chunk = snapshot.range_records(table, &KeyRange::ALL, usize::MAX).unwrap();
        assert!(chunk.next.is_none());
        for record in chunk.records {
            contents.insert((table, record.key.to_vec()), (record.uid, record.row.to_vec()));
        }
    }
    contents
}

fn key(number: u64) -> Vec<u8> {
    format!("{number:04}").into_bytes()
}

fn write(db: &Database, random: &mut Random, tables: u64) {
    let tables: Vec<_> = (0..tables).filter_map(|number| db.table(&format!("t{number}")).ok()).collect();
    let table = tables[random.below(tables.len() as u64) as usize].id();
    let mut batch = Batch::new();
    for _ in 0..=random.below(12) {
        let key = key(random.below(700));
        if random.below(3) == 0 {
            batch.delete(table, key);
        } else {
            batch.put(table, key, vec![b'r'; random.below(60) as usize]);
        }
    }
    db.write(batch, Durability::Background).unwrap();
}

/// Anything that a database does on its own.
fn live_on(db: &Database, random: &mut Random, steps: u64, new_tables: std::ops::Range<u64>) {
    let mut tables = 1;
    for number in new_tables {
        if random.below(2) == 0 && db.create_raw_table(&format!("t{number}")).is_ok() {
            tables = number + 1;
        }
    }
    for _ in 0..steps {
        write(db, random, tables);
        match random.below(20) {
            0 | 1 => db.flush().unwrap(),
            2 => db.compact().unwrap(),
            3 => db.store().compact_until_settled().unwrap(),
            4 => db.split(db.table("t0").unwrap().id(), &key(random.below(700))).unwrap(),
            _ => {}
        }
    }
}

fn commits_after(db: &Database, uid: Uid) -> Vec<LoggedCommit> {
    match db.follow(uid).next(64 << 20).unwrap() {
        Followed::Commits(commits) => commits,
        Followed::NotRetained => panic!("the log goes back to the position"),
    }
}

/// Walks down from all tables to what differs, and replaces it. The primary may be written to on the way.
fn compare(
    primary: &Database,
    reconcile: &mut Reconcile,
    base: Uid,
    copy: &Database,
    between: &mut dyn FnMut(),
) -> Uid {
    let mut read_at = base;
    let mut tables = primary.snapshot().table_ids();
    tables.extend(copy.table_ids());
    tables.sort();
    tables.dedup();
    let mut open: Vec<_> = tables.into_iter().map(|table| (table, KeyRange::ALL)).collect();
    let mut leaves = Vec::new();
    while let Some((table, range)) = open.pop() {
        let snapshot = primary.snapshot();
        read_at = read_at.max(snapshot.uid());
        let parts = snapshot.parts(table, &range, 6).unwrap();
        let whole = parts.len() == 1;
        let mut start = range.start;
        for part in parts {
            let keys = KeyRange::new(start, part.end.clone());
            start = part.end.unwrap_or_default();
            if reconcile.fingerprint(table, &keys).unwrap() == part.fingerprint {
                continue;
            }
            if whole || part.fingerprint.count <= 5 {
                leaves.push((table, keys));
            } else {
                open.push((table, keys));
            }
        }
        between();
    }
    for (table, keys) in leaves {
        let snapshot = primary.snapshot();
        read_at = read_at.max(snapshot.uid());
        let mut records = snapshot.range_records(table, &keys, usize::MAX).unwrap().records;
        records.retain(|record| record.uid <= base);
        reconcile.replace(&[(table, keys)], &records).unwrap();
        between();
    }
    read_at
}

/// Two databases with a common past: the second is the first as its disk was at some time.
fn forked(seed: u64, random: &mut Random) -> (MemOs, Database, MemOs, Database) {
    let left = MemOs::new(seed);
    let primary = open(&left).unwrap();
    primary.create_raw_table("t0").unwrap();
    live_on(&primary, random, 60, 1..2);
    primary.sync().unwrap();
    let right = left.crash(CrashStyle::PowerCutClean, seed);
    let copy = open(&right).unwrap();
    (left, primary, right, copy)
}

fn end(primary: &Database, base: (Uid, planaria_types::HistoryHash), read_at: Uid) -> RefreshEnd {
    let live = commits_after(primary, base.0);
    let cut = live.last().map_or(base.0, |last| last.commit.uid());
    let (base, base_hash, history, portion) = (base.0, base.1, primary.history(), None);
    RefreshEnd { base, base_hash, history, live, sparse_to: read_at, cut, portion }
}

#[test]
fn a_copy_that_went_its_own_way_becomes_equal_and_follows_on() {
    for seed in 0..24 {
        let mut random = Random(seed);
        let (_left, primary, right, copy) = forked(seed, &mut random);
        live_on(&primary, &mut random, 80, 2..4);
        live_on(&copy, &mut Random(seed + 1_000), 40, 2..4);
        copy.become_secondary(primary.id()).unwrap();
        let shown = contents(&copy);
        let base = primary.log_end();
        let mut reconcile = copy.begin_reconcile(base.0).unwrap();
        let mut writes = Random(seed + 2_000);
        let mut between = || {
            if writes.below(6) == 0 {
                write(&primary, &mut writes, 1);
            }
        };
        let read_at = compare(&primary, &mut reconcile, base.0, &copy, &mut between);
        assert_eq!(contents(&copy), shown, "readers stay at the old cut");
        reconcile.install(&end(&primary, base, read_at)).unwrap();
        let expected = contents(&primary);
        assert_eq!(contents(&copy), expected, "seed {seed}");
        assert_eq!((copy.log_end(), copy.visible()), (primary.log_end(), primary.visible()));
        assert!(copy.mark_floor() >= read_at && copy.version_floor() >= read_at && copy.sparse().is_empty());
        copy.verify().unwrap();
        drop(copy);
        let copy = open(&right.crash(CrashStyle::PowerCutClean, seed)).unwrap();
        assert_eq!((contents(&copy), copy.role()), (expected, Role::Secondary));
        live_on(&primary, &mut random, 20, 4..5);
        copy.append_replicated(&commits_after(&primary, copy.log_end().0)).unwrap();
        copy.sync().unwrap();
        copy.show(primary.visible()).unwrap();
        copy.compact().unwrap();
        assert_eq!(contents(&copy), contents(&primary));
        copy.verify().unwrap();
    }
}

#[test]
fn what_was_replaced_before_a_break_is_found_equal_after_it() {
    let mut random = Random(5);
    let (_left, primary, _right, copy) = forked(5, &mut random);
    live_on(&primary, &mut random, 150, 2..3);
    copy.become_secondary(primary.id()).unwrap();
    let base = primary.log_end();
    let mut reconcile = copy.begin_reconcile(base.0).unwrap();
    compare(&primary, &mut reconcile, base.0, &copy, &mut || {});
    let before = reconcile.records();
    assert!(before > 50, "{before} records were replaced");
    // The session broke. Until the next one, the primary goes on.
    write(&primary, &mut random, 1);
    let base = primary.log_end();
    reconcile.rebase(base.0).unwrap();
    let read_at = compare(&primary, &mut reconcile, base.0, &copy, &mut || {});
    let again = reconcile.records() - before;
    assert!(again > 0 && again < 100 && again < before, "{again} of {before} records came again");
    reconcile.install(&end(&primary, base, read_at)).unwrap();
    assert_eq!(contents(&copy), contents(&primary));
    copy.verify().unwrap();
}

#[test]
fn a_mark_above_the_base_does_not_bring_back_what_it_hid() {
    let os = MemOs::new(9);
    let primary = open(&os).unwrap();
    let table = primary.create_raw_table("t0").unwrap();
    table.put("k", "old").unwrap();
    let copy = open(&os.crash(CrashStyle::PowerCutClean, 1)).unwrap();
    table.delete("k").unwrap();
    primary.compact().unwrap();
    let base = primary.log_end();
    // Deleted here as well, but later: with the copy's own past goes its mark.
    while copy.log_end().0 <= base.0 {
        copy.table("t0").unwrap().delete("k").unwrap();
    }
    copy.become_secondary(primary.id()).unwrap();
    let mut reconcile = copy.begin_reconcile(base.0).unwrap();
    let read_at = compare(&primary, &mut reconcile, base.0, &copy, &mut || {});
    reconcile.install(&end(&primary, base, read_at)).unwrap();
    assert_eq!(contents(&copy), contents(&primary));
    assert_eq!(copy.table("t0").unwrap().get("k").unwrap(), None);
}

#[test]
fn a_reconcile_is_installed_whole_or_not_at_all_whenever_the_copy_dies() {
    let mut random = Random(7);
    let (_left, primary, right, copy) = forked(7, &mut random);
    live_on(&primary, &mut random, 15, 2..3);
    live_on(&copy, &mut Random(77), 5, 2..3);
    copy.sync().unwrap();
    copy.become_secondary(primary.id()).unwrap();
    drop(copy);
    let old = contents(&open(&right).unwrap());
    let new = contents(&primary);
    let base = primary.log_end();
    let repair = |os: &MemOs| -> Result<()> {
        let copy = open(os)?;
        let mut reconcile = copy.begin_reconcile(base.0)?;
        let snapshot = primary.snapshot();
        for table in snapshot.table_ids() {
            let records = snapshot.range_records(table, &KeyRange::ALL, usize::MAX)?.records;
            reconcile.replace(&[(table, KeyRange::ALL)], &records)?;
        }
        reconcile.install(&end(&primary, base, base.0))
    };
    let clean = right.crash(CrashStyle::PowerCutClean, 1);
    let before = clean.mutations();
    repair(&clean).unwrap();
    let calls = clean.mutations() - before;
    for n in 1..=calls {
        let os = right.crash(CrashStyle::PowerCutClean, 1);
        os.crash_at(os.mutations() + n);
        let done = repair(&os).is_ok();
        let copy = open(&os.crash(CrashStyle::ALL[n as usize % CrashStyle::ALL.len()], n)).unwrap();
        let found = contents(&copy);
        assert!(found == new || (found == old && !done), "call {n}: neither the old state nor the new one");
        copy.verify().unwrap();
    }
}

#[test]
fn what_does_not_belong_into_a_range_is_refused() {
    let (_left, primary, _right, copy) = forked(3, &mut Random(3));
    assert_eq!(primary.begin_reconcile(Uid::MAX).unwrap_err().code(), "invalid");
    copy.become_secondary(primary.id()).unwrap();
    let table = primary.table("t0").unwrap();
    table.put("zz", "row").unwrap();
    let base = primary.log_end();
    let record = primary.snapshot().range_records(table.id(), &KeyRange::prefix(b"zz"), 1).unwrap().records;
    let mut reconcile = copy.begin_reconcile(base.0).unwrap();
    let elsewhere = [(table.id(), KeyRange::prefix(b"a"))];
    assert_eq!(reconcile.replace(&elsewhere, &record).unwrap_err().code(), "invalid");
    let mut early = copy.begin_reconcile(Uid::new(1)).unwrap();
    let there = [(table.id(), KeyRange::prefix(b"zz"))];
    assert_eq!(early.replace(&there, &record).unwrap_err().code(), "invalid");
    let wrong = RefreshEnd { cut: Uid::new(1), ..end(&primary, base, base.0) };
    assert_eq!(reconcile.install(&wrong).unwrap_err().code(), "invalid");
}
