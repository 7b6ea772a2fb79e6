//! A database that dies at any mutating call: what comes back is a prefix of the commits, with all that was promised.

use std::collections::BTreeMap;
use std::sync::Arc;

use planaria_types::{DatabaseId, KeyRange, TableId, Uid};

use crate::hash;
use crate::os::{CrashStyle, MemOs};
use crate::{
    Batch, Change, Database, Durability, Options, Refresh, RefreshEnd, RefreshMark, Registration, Result,
    Role, Table,
};

/// The contents of the tables, by name.
type Contents = BTreeMap<(String, Vec<u8>), Vec<u8>>;

const TABLES: [&str; 2] = ["one", "two"];
const STEPS: usize = 40;

fn options(os: &MemOs) -> Options {
    Options {
        memtable_bytes: 64 << 10,
        log_segment_bytes: 64 << 10,
        log_bytes_max: 256 << 10,
        log_tail_bytes: 64 << 10,
        run_file_bytes: 16 << 10,
        fragment_bytes_max: 1 << 20,
        block_bytes: 512,
        cache_bytes: 1 << 20,
        background: false,
        os: Arc::new(os.clone()),
        ..Options::default()
    }
}

/// xorshift (Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

/// Seeds to run: a few, or as many as `PLANARIA_SEEDS` says.
fn seeds(default: u64) -> u64 {
    std::env::var("PLANARIA_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What the application knows: every state that it has tried to bring about, and how far it was promised.
#[derive(Clone, Default)]
struct Model {
    /// The contents after each commit, in order; the first is what was there at the last opening.
    states: Vec<(Uid, Contents)>,
    /// The index of the last state that is durable.
    promised: usize,
    /// A commit that was handed over and not answered.
    in_flight: Option<Contents>,
}

impl Model {
    fn new() -> Self {
        Self { states: vec![(Uid::ZERO, Contents::new())], ..Self::default() }
    }

    fn last(&self) -> &Contents {
        &self.states.last().unwrap().1
    }

    fn write(&mut self, db: &Database, tables: &[Table], dice: &mut Dice) -> Result<()> {
        let mut next = self.last().clone();
        let mut batch = Batch::new();
        for _ in 0..=dice.below(4) {
            let table = &tables[dice.below(tables.len() as u64) as usize];
            let key = format!("{:03}", dice.below(60)).into_bytes();
            let name = (table.name().to_owned(), key.clone());
            if dice.below(4) == 0 {
                batch.delete(table.id(), key);
                next.remove(&name);
            } else {
                let row = vec![b'a' + dice.below(26) as u8; dice.below(700) as usize];
                batch.put(table.id(), key, row.clone());
                next.insert(name, row);
            }
        }
        let sync = dice.below(2) == 0;
        self.in_flight = Some(next);
        let uid = db.write(batch, if sync { Durability::Synced } else { Durability::Background })?;
        self.states.push((uid, self.in_flight.take().unwrap()));
        if sync {
            self.promised = self.states.len() - 1;
        }
        Ok(())
    }

    fn ingest(&mut self, tables: &[Table], dice: &mut Dice) -> Result<()> {
        let mut next = self.last().clone();
        let table = &tables[dice.below(tables.len() as u64) as usize];
        let (from, count) = (dice.below(60), 1 + dice.below(20));
        let row = vec![b'A' + dice.below(26) as u8; dice.below(700) as usize];
        let keys: Vec<_> = (from..from + count).map(|number| format!("{number:03}").into_bytes()).collect();
        next.extend(keys.iter().map(|key| ((table.name().to_owned(), key.clone()), row.clone())));
        self.in_flight = Some(next);
        let mut ingest = table.ingest()?;
        for key in keys {
            ingest.put(key, &row)?;
        }
        let uid = ingest.finish()?.uid;
        self.states.push((uid, self.in_flight.take().unwrap()));
        self.promised = self.states.len() - 1;
        Ok(())
    }

    /// Checks what a reopened database holds, and goes on from there.
    fn recovered(&mut self, db: &Database, what: &str) -> Result<()> {
        let found = try_contents(db)?;
        let mut candidates: Vec<_> = self.states.iter().map(|(_, state)| state).collect();
        candidates.extend(&self.in_flight);
        let at = candidates.iter().rposition(|state| **state == found);
        let at = at.unwrap_or_else(|| panic!("{what}: {} records are no prefix of the commits", found.len()));
        assert!(at >= self.promised, "{what}: state {at} came back, {} was promised", self.promised);
        *self = Self { states: vec![(db.visible(), found)], ..Self::default() };
        Ok(())
    }
}

/// Everything in the tables, read in both directions and by key.
fn try_contents(db: &Database) -> Result<Contents> {
    let mut contents = Contents::new();
    let snapshot = db.snapshot();
    for table in snapshot.tables()? {
        let forward = snapshot.scan(table.id, KeyRange::ALL).collect::<Result<Vec<_>>>()?;
        let mut backward = snapshot.scan(table.id, KeyRange::ALL).rev().collect::<Result<Vec<_>>>()?;
        backward.reverse();
        assert_eq!(forward, backward);
        for (key, row) in forward {
            assert_eq!(snapshot.get(table.id, &key)?.as_ref(), Some(&row));
            contents.insert((table.name.clone(), key.to_vec()), row.to_vec());
        }
    }
    Ok(contents)
}

fn contents(db: &Database) -> Contents {
    try_contents(db).unwrap()
}

fn tables(db: &Database) -> Result<Vec<Table>> {
    let open = |name: &&str| match db.table(name) {
        Err(crate::Error::UnknownTable { .. }) => db.create_raw_table(name),
        found => found,
    };
    TABLES.iter().map(open).collect()
}

/// Opens the database and works with it until it is done or dies.
fn workload(os: &MemOs, model: &mut Model, seed: u64, steps: usize) -> Result<()> {
    let mut dice = Dice::new(seed);
    let mut db = Database::open_with("/db", options(os))?;
    model.recovered(&db, "at the opening")?;
    let mut open = tables(&db)?;
    for _ in 0..steps {
        match dice.below(26) {
            0..=13 => model.write(&db, &open, &mut dice)?,
            14..=16 => db.flush()?,
            17 => db.compact()?,
            18 | 19 => db.store().compact_until_settled()?,
            20 => {
                let middle = format!("{:03}", dice.below(60));
                db.split(open[0].id(), middle.as_bytes())?;
            }
            21 => {
                db.sync()?;
                model.promised = model.states.len() - 1;
            }
            22 => db.begin_epoch()?,
            23 | 24 => model.ingest(&open, &mut dice)?,
            _ => {
                drop((open, db));
                db = Database::open_with("/db", options(os))?;
                // It did close, or it would not open.
                model.promised = model.states.len() - 1;
                model.recovered(&db, "after closing")?;
                open = tables(&db)?;
            }
        }
    }
    Ok(())
}

/// Opens after a crash, checks, writes, opens again, compares: recovery twice equals once.
fn check_recovery(os: &MemOs, model: &mut Model, what: &str) {
    let db = Database::open_with("/db", options(os)).unwrap_or_else(|error| panic!("{what}: {error}"));
    model.recovered(&db, what).unwrap();
    db.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
    let before = db.visible();
    let open = tables(&db).unwrap();
    let mut dice = Dice::new(what.len() as u64);
    model.write(&db, &open, &mut dice).unwrap();
    assert!(db.visible() > before, "{what}: the cut does not rise");
    model.promised = model.states.len() - 1;
    drop((open, db));
    let db = Database::open_with("/db", options(os)).unwrap();
    model.recovered(&db, what).unwrap();
}

#[test]
fn a_crash_at_any_call_leaves_a_prefix_with_all_that_was_promised() {
    for seed in 0..seeds(2) {
        let clean = MemOs::new(seed);
        workload(&clean, &mut Model::new(), seed, STEPS).unwrap();
        let calls = clean.mutations();
        let stride = (calls / 200).max(1);
        for n in (1 + seed % stride..=calls).step_by(stride as usize) {
            for style in CrashStyle::ALL {
                let os = MemOs::new(seed);
                os.crash_at(n);
                let mut model = Model::new();
                // The last calls are those of closing, whose failure is nobody's concern.
                let _ = workload(&os, &mut model, seed, STEPS);
                assert!(os.has_crashed(), "call {n} is made");
                check_recovery(&os.crash(style, n), &mut model, &format!("seed {seed}, call {n}, {style:?}"));
            }
        }
    }
}

#[test]
fn a_crash_within_a_recovery_from_a_crash_changes_nothing() {
    for seed in 0..seeds(2) {
        let clean = MemOs::new(seed);
        workload(&clean, &mut Model::new(), seed, STEPS).unwrap();
        let mut dice = Dice::new(seed + 77);
        for round in 0..12 {
            let mut os = MemOs::new(seed);
            os.crash_at(1 + dice.below(clean.mutations()));
            let mut model = Model::new();
            let _ = workload(&os, &mut model, seed, STEPS);
            // Three deep: each recovery dies as well, at a call of its own.
            for depth in 0..3 {
                let style = CrashStyle::ALL[dice.below(3) as usize];
                os = os.crash(style, dice.below(1 << 20));
                os.crash_at(1 + dice.below(12));
                if let Ok(db) = Database::open_with("/db", options(&os)) {
                    model.recovered(&db, &format!("seed {seed}, round {round}, depth {depth}")).unwrap_or(());
                }
            }
            let style = CrashStyle::ALL[dice.below(3) as usize];
            let what = format!("seed {seed}, round {round}");
            check_recovery(&os.crash(style, dice.below(1 << 20)), &mut model, &what);
        }
    }
}

#[test]
fn a_crash_of_the_creation_leaves_something_that_can_be_opened() {
    let clean = MemOs::new(1);
    drop(Database::open_with("/a/b/db", options(&clean)).unwrap());
    for n in 1..=clean.mutations() {
        // Names that a torn power cut keeps are drawn anew for each seed.
        let torn = (1..8).map(|seed| (CrashStyle::PowerCutTorn, n + 1_000 * seed));
        for (style, seed) in CrashStyle::ALL.map(|style| (style, n)).into_iter().chain(torn) {
            let os = MemOs::new(1);
            os.crash_at(n);
            assert!(Database::open_with("/a/b/db", options(&os)).is_err() || n == clean.mutations());
            // The second creation is complete and acknowledges a write; then the power goes.
            let os = os.crash(style, seed);
            let db = Database::open_with("/a/b/db", options(&os)).unwrap();
            db.create_raw_table("t").unwrap().put("k", "v").unwrap();
            drop(db);
            let os = os.crash(CrashStyle::PowerCutClean, n);
            let db = Database::open_with("/a/b/db", options(&os)).unwrap();
            assert_eq!(db.table("t").unwrap().get("k").unwrap().as_deref(), Some(&b"v"[..]));
        }
    }
}

/// A primary with some commits, which secondaries of the tests below follow.
struct Primary {
    db: Database,
    table: TableId,
}

impl Primary {
    fn new() -> Self {
        let db = Database::open_with("/db", options(&MemOs::new(99))).unwrap();
        let table = db.create_raw_table("one").unwrap().id();
        Self { db, table }
    }

    fn write(&self, from: u64, to: u64, row: &str) {
        for number in from..to {
            let mut batch = Batch::new();
            batch.put(self.table, format!("{number:04}"), format!("{row}{number}"));
            if number % 3 == 0 {
                batch.delete(self.table, format!("{:04}", number + 1));
            }
            self.db.write(batch, Durability::Synced).unwrap();
        }
    }

    fn commits_after(&self, uid: Uid) -> Vec<crate::LoggedCommit> {
        let mut follower = self.db.follow(uid);
        match follower.next(1 << 20).unwrap() {
            crate::Followed::Commits(commits) => commits,
            crate::Followed::NotRetained => panic!("the log goes back to the beginning"),
        }
    }
}

/// Whether a mark says that the record is there.
fn is_at_most(change: &Change, mark: &RefreshMark) -> bool {
    (change.table, &change.key[..]) <= (mark.table, &mark.key) && change.uid <= mark.base
}

/// Adds what a refresh lacks that has come as far as the mark, and installs it.
fn complete(
    primary: &Primary,
    mut refresh: Refresh,
    mark: &RefreshMark,
    base: &crate::LoggedCommit,
    live: &[crate::LoggedCommit],
) -> Result<()> {
    let snapshot = primary.db.snapshot();
    let chunk = snapshot.changes(refresh.from(), (TableId::SYSTEM, &[]), usize::MAX)?;
    for change in chunk.changes.iter().filter(|change| !is_at_most(change, mark)) {
        refresh.add(change)?;
    }
    refresh.install(&RefreshEnd {
        base: base.commit.uid(),
        base_hash: base.hash,
        history: primary.db.history(),
        live: live.to_vec(),
        sparse_to: snapshot.uid(),
        cut: snapshot.uid(),
        portion: None,
    })
}

/// Follows the first commits live, then is refreshed to the end, then follows on.
fn follow_and_refresh(os: &MemOs, primary: &Primary, cuts: &mut Vec<Contents>) -> Result<()> {
    let db = Database::open_with("/db", options(os))?;
    db.become_secondary(primary.db.id())?;
    let all = primary.commits_after(Uid::ZERO);
    let (first, rest) = all.split_at(all.len() / 3);
    let (collected, live) = rest.split_at(rest.len() / 2);
    db.append_replicated(first)?;
    db.sync()?;
    db.show(first.last().unwrap().commit.uid())?;
    cuts.push(try_contents(&db)?);
    let mut refresh = db.begin_refresh(None)?;
    let snapshot = primary.db.snapshot();
    let chunk = snapshot.changes(refresh.from(), (TableId::SYSTEM, &[]), usize::MAX)?;
    // It is interrupted twice: by a round of which nothing is kept, and, as the process ends, by one that got half the way at a
    // lower base.
    let before = collected[collected.len() * 2 / 3].commit.uid();
    let (first, half) = (&chunk.changes[0], &chunk.changes[chunk.changes.len() / 2]);
    refresh.add(first)?;
    refresh.suspend(None)?;
    let mark = RefreshMark {
        table: half.table,
        key: half.key.to_vec(),
        base: before,
        read_at: primary.db.position(),
        bytes: 1,
    };
    let is_kept = |change: &&Change| is_at_most(change, &mark);
    assert!(chunk.changes.iter().any(|change| is_kept(&change)));
    for change in chunk.changes.iter().filter(is_kept) {
        refresh.add(change)?;
        if change.key == first.key {
            let start = RefreshMark { table: first.table, key: first.key.to_vec(), ..mark.clone() };
            assert!(refresh.keep(&start)?);
        }
    }
    refresh.suspend(Some(&mark))?;
    let records = refresh.records();
    drop((refresh, db));
    let db = Database::open_with("/db", options(os))?;
    let (refresh, kept) = db.kept_refresh().unwrap();
    assert_eq!((&kept, refresh.records()), (&mark, records));
    complete(primary, refresh, &kept, collected.last().unwrap(), live)?;
    assert!(db.kept_refresh().is_none());
    cuts.push(try_contents(&db)?);
    drop(db);
    let db = Database::open_with("/db", options(os))?;
    assert_eq!(db.role(), Role::Secondary);
    assert_eq!(try_contents(&db)?, contents(&primary.db));
    assert_eq!(db.log_end(), primary.db.log_end());
    Ok(())
}

#[test]
fn a_refresh_is_installed_whole_or_not_at_all_whenever_the_copy_dies() {
    let primary = Primary::new();
    primary.write(0, 30, "old");
    primary.db.split(primary.table, b"0011").unwrap();
    primary.write(10, 50, "new");
    let clean = MemOs::new(5);
    let mut cuts = vec![Contents::new()];
    follow_and_refresh(&clean, &primary, &mut cuts).unwrap();
    assert_eq!(cuts.last(), Some(&contents(&primary.db)));
    let mut resumed = 0;
    for n in 1..=clean.mutations() {
        for style in CrashStyle::ALL {
            let os = MemOs::new(5);
            os.crash_at(n);
            let mut seen = Vec::new();
            // The last calls are those of closing, whose failure is nobody's concern.
            let _ = follow_and_refresh(&os, &primary, &mut seen);
            let os = os.crash(style, n);
            let what = format!("call {n}, {style:?}");
            let db =
                Database::open_with("/db", options(&os)).unwrap_or_else(|error| panic!("{what}: {error}"));
            let found = contents(&db);
            let at = cuts.iter().position(|cut| *cut == found);
            let at = at.unwrap_or_else(|| panic!("{what}: {} records are no cut", found.len()));
            assert!(at == 1 || at + 1 >= cuts.len() || seen.len() < 2, "{what}: a cut was lost");
            if seen.len() == 2 {
                assert_eq!(Some(&found), cuts.last(), "{what}: the refresh was installed");
            }
            db.verify().unwrap_or_else(|error| panic!("{what}: {error}"));
            // The copy goes on from where it stands, and so does its refresh.
            if let Some((refresh, mark)) = db.kept_refresh() {
                complete(&primary, refresh, &mark, primary.commits_after(Uid::ZERO).last().unwrap(), &[])
                    .unwrap_or_else(|error| panic!("{what}: {error}"));
                assert_eq!(contents(&db), contents(&primary.db), "{what}");
                resumed += 1;
            }
            if db.role() == Role::Secondary && db.id() == primary.db.id() {
                let rest = primary.commits_after(db.log_end().0);
                db.append_replicated(&rest).unwrap();
                db.sync().unwrap();
                db.show(primary.db.visible()).unwrap();
                assert_eq!(contents(&db), contents(&primary.db), "{what}");
            }
        }
    }
    assert!(resumed > 0);
}

#[test]
fn an_empty_copy_is_refreshed_and_reopened() {
    let primary = Primary::new();
    primary.write(0, 20, "row");
    let os = MemOs::new(6);
    let db = Database::open_with("/db", options(&os)).unwrap();
    db.become_secondary(primary.db.id()).unwrap();
    let snapshot = primary.db.snapshot();
    let mut refresh = db.begin_refresh(None).unwrap();
    for change in snapshot.changes(Uid::ZERO, (TableId::SYSTEM, &[]), usize::MAX).unwrap().changes {
        refresh.add(&change).unwrap();
    }
    let (base, base_hash) = primary.db.log_end();
    let end = RefreshEnd {
        base,
        base_hash,
        history: primary.db.history(),
        live: Vec::new(),
        sparse_to: snapshot.uid(),
        cut: snapshot.uid(),
        portion: None,
    };
    refresh.install(&end).unwrap();
    drop(db);
    let db = Database::open_with("/db", options(&os.crash(CrashStyle::PowerCutClean, 1))).unwrap();
    assert_eq!(contents(&db), contents(&primary.db));
    // Nobody knows which marks the primary had dropped: another copy must not be brought up to date by those that are here.
    assert_eq!(db.mark_floor(), snapshot.uid());
}

#[test]
fn what_is_taken_back_stays_away_and_what_is_below_the_fork_comes_back() {
    for flushed in [false, true] {
        let os = MemOs::new(7);
        let db = Database::open_with("/db", options(&os)).unwrap();
        let table = db.create_raw_table("t").unwrap();
        table.put("k", "kept").unwrap();
        let fork = db.log_end();
        let position = db.history().position_of(fork.0);
        let below = contents(&db);
        if flushed {
            db.flush().unwrap();
        }
        table.put("k", "taken back").unwrap();
        table.put("l", "taken back").unwrap();
        db.take_back(position, fork.1).unwrap();
        assert_eq!((contents(&db), db.log_end()), (below.clone(), fork));
        drop((table, db));
        let db = Database::open_with("/db", options(&os.crash(CrashStyle::PowerCutClean, 1))).unwrap();
        assert_eq!((contents(&db), db.log_end()), (below, fork));
    }
}

#[test]
fn a_fork_below_what_a_merge_has_thinned_is_refused() {
    let db = Database::open_with("/db", options(&MemOs::new(8))).unwrap();
    let table = db.create_raw_table("t").unwrap();
    table.put("k", "kept").unwrap();
    let fork = db.log_end();
    let position = db.history().position_of(fork.0);
    table.put("k", "newer").unwrap();
    db.compact().unwrap();
    assert_eq!(db.take_back(position, fork.1).unwrap_err().code(), "snapshot_too_old");
}

#[test]
fn no_floor_is_set_below_a_mark_that_is_gone() {
    let db = Database::open_with("/db", options(&MemOs::new(9))).unwrap();
    let table = db.create_raw_table("t").unwrap();
    table.put("k", "row").unwrap();
    let away = db.log_end().0;
    table.put("l", "row").unwrap();
    db.compact().unwrap();
    assert!(db.mark_floor() <= away, "nothing was deleted");
    let deleted = table.delete("k").unwrap();
    table.put("m", "row").unwrap();
    db.compact().unwrap();
    db.set_floors(None, Some(away));
    table.put("n", "row").unwrap();
    db.flush().unwrap();
    assert_eq!(db.mark_floor(), deleted, "the mark of k went before the floor was lowered");
}

#[test]
fn marks_for_a_registered_secondary_outlive_a_restart() {
    let os = MemOs::new(12);
    let db = Database::open_with("/db", options(&os)).unwrap();
    let table = db.create_raw_table("t").unwrap();
    let away = table.put("k", "row").unwrap();
    let instance = planaria_types::InstanceId(3);
    let registration = Registration::new(instance, "away", away);
    db.register(&registration, Durability::Synced).unwrap();
    table.delete("k").unwrap();
    drop((table, db));
    let db = Database::open_with("/db", options(&os)).unwrap();
    db.compact().unwrap();
    assert!(db.mark_floor() <= away, "the secondary is owed the mark of k");
    let changes = db.snapshot().changes(away, (TableId(1), &[]), usize::MAX).unwrap().changes;
    assert_eq!(changes.len(), 1);
    db.forget(instance).unwrap();
    db.set_floors(None, None);
    db.compact().unwrap();
    assert!(db.mark_floor() > away);
}

#[test]
fn runs_that_span_a_gap_with_something_newer_in_it_are_merged_all_the_same() {
    let db = Database::open_with("/db", options(&MemOs::new(10))).unwrap();
    let table = db.create_raw_table("t").unwrap();
    let mut expected = Contents::new();
    let mut put = |key: String| {
        table.put(key.clone(), key.clone()).unwrap();
        expected.insert(("t".to_owned(), key.clone().into_bytes()), key.into_bytes());
    };
    for key in ["a", "d", "x", "z"] {
        put(key.to_owned());
    }
    db.flush().unwrap();
    db.split(table.id(), b"q").unwrap();
    let mut big = Batch::new();
    for number in 0..400 {
        let key = format!("a{number:03}");
        big.put(table.id(), key.clone(), vec![b'r'; 200]);
    }
    db.write(big, Durability::Synced).unwrap();
    db.flush().unwrap();
    for round in 0..6 {
        put("b".to_owned());
        put("c".to_owned());
        db.flush().unwrap();
        put(format!("m{round}"));
        db.flush().unwrap();
        put("p".to_owned());
        put("o".to_owned());
        db.flush().unwrap();
        db.store().compact_until_settled().unwrap();
    }
    db.compact().unwrap();
    db.verify().unwrap();
    for ((_, key), row) in &expected {
        assert_eq!(table.get(key).unwrap().as_deref(), Some(&row[..]));
    }
}

#[test]
fn a_history_hash_is_the_same_whether_it_was_kept_or_worked_out_anew() {
    let os = MemOs::new(11);
    let db = Database::open_with("/db", options(&os)).unwrap();
    let table = db.create_raw_table("t").unwrap();
    for number in 0..20 {
        table.put(format!("{number}"), "row").unwrap();
    }
    let mut state = planaria_types::HistoryHash::default();
    for logged in match db.follow(Uid::ZERO).next(usize::MAX).unwrap() {
        crate::Followed::Commits(commits) => commits,
        crate::Followed::NotRetained => panic!("everything is retained"),
    } {
        let uid = logged.commit.uid();
        state = hash::extend_history(state, uid, hash::commit_hash(logged.commit.bytes()));
        assert_eq!(db.history_hash_at(uid).unwrap(), Some(state));
    }
    let end = db.log_end();
    drop((table, db));
    let db = Database::open_with("/db", options(&os)).unwrap();
    assert_eq!((db.log_end(), end.1), (end, state));
    assert_ne!(db.id(), DatabaseId(0));
}
