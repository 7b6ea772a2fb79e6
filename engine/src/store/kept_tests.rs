use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use planaria_types::{Epoch, FileId, HistoryHash, InstanceId, KeyRange, Portion, Position, TableId, Uid};

use super::{Collected, FORMAT, Kept, KeptRanges, KeptRefresh, KeptRun, REFRESH};
use crate::os::{Call, CrashStyle, Fault, FaultOs, MemOs, OpenMode, Os};
use crate::run::{RunIdentity, RunMeta};
use crate::version::RunRecord;
use crate::{
    Batch, Database, Durability, Followed, LoggedCommit, Options, Refresh, RefreshEnd, RefreshMark, Result,
};

const DIR: &str = "/copy";

fn options(os: &MemOs) -> Options {
    Options { os: Arc::new(os.clone()), background: false, ..Options::default() }
}

/// A primary with two tables.
struct Primary {
    db: Database,
    tables: [TableId; 2],
}

impl Primary {
    fn new() -> Self {
        let db = Database::open_with("/primary", options(&MemOs::new(1))).unwrap();
        let tables = ["one", "two"].map(|name| db.create_raw_table(name).unwrap().id());
        Self { db, tables }
    }

    fn write(&self, numbers: std::ops::Range<u64>, row: &str) {
        for number in numbers {
            let mut batch = Batch::new();
            for table in self.tables {
                batch.put(table, format!("{number:04}"), format!("{row}{number}"));
            }
            self.db.write(batch, Durability::Synced).unwrap();
        }
    }

    fn commits_after(&self, uid: Uid) -> Vec<LoggedCommit> {
        match self.db.follow(uid).next(1 << 20).unwrap() {
            Followed::Commits(commits) => commits,
            Followed::NotRetained => panic!("the log goes back to the beginning"),
        }
    }

    /// The end of a refresh up to now.
    fn end(&self) -> RefreshEnd {
        let (base, base_hash) = self.db.log_end();
        RefreshEnd {
            base,
            base_hash,
            history: self.db.history(),
            live: Vec::new(),
            sparse_to: base,
            cut: base,
            portion: None,
        }
    }

    fn check_equal(&self, copy: &Database) {
        for name in ["one", "two"] {
            let digest =
                |db: &Database| db.snapshot().digest_of(db.table(name).unwrap().definition()).unwrap();
            assert_eq!(digest(copy), digest(&self.db), "{name}");
        }
        copy.verify().unwrap();
    }
}

/// A copy that has the first half of what the primary has.
fn copy(primary: &Primary, os: &MemOs) -> Database {
    let db = Database::open_with(DIR, options(os)).unwrap();
    db.become_secondary(primary.db.id()).unwrap();
    let all = primary.commits_after(Uid::ZERO);
    follow(&db, &all[..all.len() / 2]);
    db
}

fn follow(db: &Database, commits: &[LoggedCommit]) {
    db.append_replicated(commits).unwrap();
    db.sync().unwrap();
    db.show(db.log_end().0).unwrap();
}

/// Collects a part of what the copy lacks, and keeps it.
fn kept(primary: &Primary, db: &Database) -> (Refresh, RefreshMark) {
    let mut refresh = db.begin_refresh(None).unwrap();
    let chunk = primary.db.snapshot().changes(refresh.from(), (TableId::SYSTEM, &[]), 100).unwrap();
    for change in &chunk.changes {
        refresh.add(change).unwrap();
    }
    let last = chunk.changes.last().unwrap();
    let position = primary.db.position();
    let key = last.key.to_vec();
    let mark = RefreshMark { table: last.table, key, base: position.uid, read_at: position, bytes: 100 };
    assert!(refresh.keep(&mark).unwrap());
    (refresh, mark)
}

fn reopened(os: &MemOs) -> Database {
    Database::open_with(DIR, Options { create: false, ..options(os) }).unwrap()
}

fn run_files(os: &MemOs) -> BTreeSet<PathBuf> {
    let runs = Path::new(DIR).join("runs");
    os.list(&runs).unwrap().into_iter().map(|entry| runs.join(entry.name)).collect()
}

/// Nothing is kept, and no file is there that the copy does not consist of.
fn check_nothing_is_kept(db: &Database, os: &MemOs) {
    assert!(db.kept_refresh().is_none() && db.kept_reconcile().is_none());
    assert!(!os.exists(&Path::new(DIR).join(REFRESH)));
    assert_eq!(run_files(os).len(), db.store().manifest().runs.len());
}

#[test]
fn a_refresh_goes_on_in_a_later_process_with_what_was_kept() -> Result<()> {
    let (primary, os) = (Primary::new(), MemOs::new(2));
    primary.write(0..40, "old");
    let db = copy(&primary, &os);
    let (mut refresh, mark) = kept(&primary, &db);
    // What came after that is lost with the process.
    let from = (mark.table, &[&mark.key[..], &[0]].concat()[..]);
    let rest = primary.db.snapshot().changes(refresh.from(), from, usize::MAX)?.changes;
    refresh.add(&rest[0])?;
    drop((refresh, db));
    let db = reopened(&os);
    let (mut refresh, found) = db.kept_refresh().unwrap();
    assert_eq!(found, mark);
    // A new file takes none of the names of those that are kept.
    for change in &rest {
        refresh.add(change)?;
    }
    refresh.install(&primary.end())?;
    primary.check_equal(&db);
    check_nothing_is_kept(&db, &os);
    drop(db);
    check_nothing_is_kept(&reopened(&os), &os);
    Ok(())
}

#[test]
fn what_was_kept_goes_with_its_files_once_it_is_of_no_use() {
    let (primary, os) = (Primary::new(), MemOs::new(3));
    primary.write(0..40, "old");
    let db = copy(&primary, &os);
    let (refresh, _) = kept(&primary, &db);
    refresh.abandon().unwrap();
    check_nothing_is_kept(&db, &os);
    // The copy leads.
    let lead = MemOs::new(6);
    let leader = copy(&primary, &lead);
    let refresh = kept(&primary, &leader);
    leader.promote(leader.next_epoch(primary.db.epoch())).unwrap();
    assert!(leader.kept_refresh().is_none());
    drop((refresh, leader));
    check_nothing_is_kept(&reopened(&lead), &lead);
    // The copy has moved on.
    drop((kept(&primary, &db), db));
    let db = reopened(&os);
    follow(&db, &primary.commits_after(db.log_end().0)[..1]);
    assert!(db.kept_refresh().is_none());
    drop(db);
    let db = reopened(&os);
    check_nothing_is_kept(&db, &os);
    // It is damaged, or one of its files is not there, or shorter than it was.
    let path = Path::new(DIR).join(REFRESH);
    for damage in 0..3 {
        let before = run_files(&os);
        let (refresh, _) = kept(&primary, &db);
        let file = run_files(&os).difference(&before).last().unwrap().clone();
        drop(refresh);
        let damaged = os.crash(CrashStyle::PowerCutClean, 1);
        match damage {
            0 => damaged.flip(&path, 25, 1).unwrap(),
            1 => damaged.remove_file(&file).unwrap(),
            _ => damaged.open(&file, OpenMode::Write).unwrap().set_len(10).unwrap(),
        }
        check_nothing_is_kept(&reopened(&damaged), &damaged);
        db.kept_refresh().unwrap().0.abandon().unwrap();
    }
}

#[test]
fn what_cannot_be_gone_on_from_does_not_stay() {
    let (primary, os) = (Primary::new(), MemOs::new(7));
    primary.write(0..40, "old");
    let db = copy(&primary, &os);
    let [one, _] = primary.tables;
    let before = run_files(&os);
    let mut reconcile = db.begin_reconcile(primary.db.log_end().0).unwrap();
    let records = primary.db.snapshot().range_records(one, &KeyRange::ALL, usize::MAX).unwrap().records;
    reconcile.replace(&[(one, KeyRange::ALL)], &records).unwrap();
    assert!(reconcile.keep().unwrap());
    let file = run_files(&os).difference(&before).last().unwrap().clone();
    drop((reconcile, db));
    // The end of the file says what is in it.
    let len = os.open(&file, OpenMode::Read).unwrap().len().unwrap();
    os.flip(&file, len - 9, 1).unwrap();
    let db = reopened(&os);
    assert!(db.kept_reconcile().is_none());
    check_nothing_is_kept(&db, &os);
    // A disk that cannot be read for a moment is no reason to drop anything.
    let (refresh, mark) = kept(&primary, &db);
    drop((refresh, db));
    let faulty = FaultOs::new(Arc::new(os.clone()));
    faulty.inject_on(REFRESH, Fault { call: Call::Open, at: 1, error: ErrorKind::Other, forever: false });
    assert!(Database::open_with(DIR, Options { os: Arc::new(faulty), ..options(&os) }).is_err());
    assert_eq!(reopened(&os).kept_refresh().unwrap().1, mark);
}

#[test]
fn tables_that_another_primary_had_are_compared_with_the_others() -> Result<()> {
    let (primary, os) = (Primary::new(), MemOs::new(8));
    primary.write(0..10, "old");
    let db = copy(&primary, &os);
    let late = primary.db.create_raw_table("late")?.id();
    let mut reconcile = db.begin_reconcile(primary.db.log_end().0)?;
    assert!(!reconcile.table_ids()?.contains(&late));
    let system = primary.db.snapshot().range_records(TableId::SYSTEM, &KeyRange::ALL, usize::MAX)?.records;
    reconcile.replace(&[(TableId::SYSTEM, KeyRange::ALL)], &system)?;
    assert!(reconcile.table_ids()?.contains(&late) && !db.table_ids().contains(&late));
    Ok(())
}

#[test]
fn a_reconcile_goes_on_in_a_later_process_with_what_it_has_replaced() -> Result<()> {
    let (primary, os) = (Primary::new(), MemOs::new(4));
    primary.write(0..40, "old");
    let db = copy(&primary, &os);
    let base = primary.db.log_end().0;
    let [one, two] = primary.tables;
    let of = |table, keys: &KeyRange| {
        let chunk = primary.db.snapshot().range_records(table, keys, usize::MAX)?;
        Ok::<_, crate::Error>(chunk.records)
    };
    let mut reconcile = db.begin_reconcile(base)?;
    let half = KeyRange::new(b"0010".to_vec(), None);
    reconcile.replace(&[(TableId::SYSTEM, KeyRange::ALL)], &of(TableId::SYSTEM, &KeyRange::ALL)?)?;
    reconcile.replace(&[(one, half.clone())], &of(one, &half)?)?;
    assert!(reconcile.keep()?);
    reconcile.replace(&[(two, KeyRange::ALL)], &of(two, &KeyRange::ALL)?)?;
    drop((reconcile, db));
    let db = reopened(&os);
    let mut reconcile = db.kept_reconcile().unwrap();
    reconcile.rebase(base)?;
    let there = primary.db.snapshot();
    assert_eq!(reconcile.fingerprint(one, &KeyRange::ALL)?, there.fingerprint(one, KeyRange::ALL)?);
    assert_ne!(reconcile.fingerprint(two, &KeyRange::ALL)?, there.fingerprint(two, KeyRange::ALL)?);
    reconcile.replace(&[(two, KeyRange::ALL)], &of(two, &KeyRange::ALL)?)?;
    reconcile.install(&primary.end())?;
    primary.check_equal(&db);
    check_nothing_is_kept(&db, &os);
    // One that is given up leaves nothing.
    let mut reconcile = db.begin_reconcile(base)?;
    reconcile.replace(&[(one, half.clone())], &of(one, &half)?)?;
    assert!(reconcile.keep()?);
    reconcile.abandon()?;
    check_nothing_is_kept(&db, &os);
    Ok(())
}

#[test]
fn what_was_kept_of_something_installed_takes_nothing_away_though_a_power_cut_brings_it_back() -> Result<()> {
    let (primary, os) = (Primary::new(), MemOs::new(5));
    primary.write(0..40, "old");
    let path = Path::new(DIR).join(REFRESH);
    let put_back = |bytes: &[u8]| os.open(&path, OpenMode::CreateNew)?.write_all_at(bytes, 0);
    let kept_bytes = || {
        let file = os.open(&path, OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    };
    let db = copy(&primary, &os);
    let (mut refresh, mark) = kept(&primary, &db);
    let bytes = kept_bytes();
    let from = (mark.table, &[&mark.key[..], &[0]].concat()[..]);
    for change in primary.db.snapshot().changes(refresh.from(), from, usize::MAX)?.changes {
        refresh.add(&change)?;
    }
    refresh.install(&primary.end())?;
    drop(db);
    put_back(&bytes).unwrap();
    let db = reopened(&os);
    check_nothing_is_kept(&db, &os);
    primary.check_equal(&db);
    // Ranges, too, at whose installation the copy stays where it is.
    let [one, _] = primary.tables;
    let mut reconcile = db.begin_reconcile(primary.db.log_end().0)?;
    let records = primary.db.snapshot().range_records(one, &KeyRange::ALL, usize::MAX)?.records;
    reconcile.replace(&[(one, KeyRange::ALL)], &records)?;
    assert!(reconcile.keep()?);
    let bytes = kept_bytes();
    reconcile.install(&primary.end())?;
    drop(db);
    put_back(&bytes).unwrap();
    let db = reopened(&os);
    check_nothing_is_kept(&db, &os);
    drop(db);
    primary.check_equal(&reopened(&os));
    Ok(())
}

#[test]
fn what_is_kept_is_written_byte_for_byte_as_the_format_says() {
    let run = || RunRecord {
        file: FileId(7),
        meta: RunMeta {
            identity: RunIdentity { store: InstanceId(3), file: FileId(7) },
            len: 900,
            content_len: 800,
            content_hash: [9; 32],
            records: 2,
            puts: 1,
            smallest_key: b"a".to_vec(),
            largest_key: b"k".to_vec(),
            smallest_uid: Uid::new(11),
            largest_uid: Uid::new(12),
            fingerprint: None,
            raw_bytes: 20,
        },
    };
    let read_at = Position { epoch: Epoch { term: 1, incarnation: 2, nonce: 3 }, uid: Uid::new(13) };
    let mark = RefreshMark { table: TableId(1), key: b"k".to_vec(), base: Uid::new(12), read_at, bytes: 20 };
    let boundaries = || vec![(b"b".to_vec(), b"c".to_vec())];
    let delta = KeptRefresh {
        from: Uid::new(10),
        hash: HistoryHash(8),
        mark,
        records: 2,
        boundaries: boundaries(),
        runs: vec![KeptRun { table: TableId(1), run: run(), above: Uid::new(10), upto: Uid::new(12) }],
    };
    let half = KeyRange::new(b"a".to_vec(), Some(b"l".to_vec()));
    let ranges = KeptRanges {
        base: Uid::new(12),
        records: 2,
        boundaries: boundaries(),
        runs: vec![run()],
        pieces: vec![(TableId(1), half, Some(0)), (TableId(2), KeyRange::ALL, None)],
    };
    let portion = Portion::new([("t".to_owned(), KeyRange::ALL)]).unwrap();
    let written = [(Collected::Delta(delta), None), (Collected::Ranges(ranges), Some(portion))];
    let written = written.map(|(collected, portion)| {
        let bytes = FORMAT.encode(&Kept { instance: InstanceId(3), portion, collected }).unwrap();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    });
    assert_eq!(
        written,
        [[
            "504c4e52524653480200000049000000b2b774310300000a0801016b0c0102030d1402010162016301010703078407a0",
            "06090909090909090909090909090909090909090909090909090909090909090902010161016b0b0c00140a0c",
        ]
        .concat(), [
            "504c4e5252465348020000004e000000aa48f39903010101740000010c020101620163010703078407a0060909090909",
            "09090909090909090909090909090909090909090909090909090902010161016b0b0c00140201016101016c01000200",
            "0000",
        ]
        .concat()]
    );
}
