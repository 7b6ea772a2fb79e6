//! A primary and a copy over disks in memory, whose driver is a loop.

use std::path::Path;
use std::sync::Arc;

use planaria_engine::os::{CrashStyle, MemOs, OpenMode, Os};
use planaria_engine::{Batch, Database, Durability, Options as EngineOptions, Table};
use planaria_replication::primary::{Group, Session, SessionAction, SessionId};
use planaria_replication::secondary::{Action, Replica, State};
use planaria_replication::{Millis, Options, PromotableSets, Reason, Way};
use planaria_types::{DatabaseId, Epoch, KeyRange, Portion, Uid};

use super::bulk::{Places, Terms};
use super::{FollowingCopy, Kept, Leading, Outcome, SessionReads, lead, tell_news};

const NOW: Millis = Millis(1_000);

fn database(os: &MemOs) -> Database {
    let os = Arc::new(os.clone());
    let options = EngineOptions { background: false, log_tail_bytes: 0, os, ..EngineOptions::default() };
    Database::open_with("/db", options).unwrap()
}

fn put(table: &Table, db: &Database, key: &'static str, durability: Durability) -> Uid {
    let mut batch = Batch::new();
    batch.put(table.id(), key, "row");
    db.write(batch, durability).unwrap()
}

/// A primary, a copy, and the session between them.
struct Pair {
    db: Database,
    table: Table,
    group: Group,
    session: Session,
    reads: SessionReads,
    copy: FollowingCopy,
    machine: Replica,
    /// Flushes the copy right after it appended.
    flushes: bool,
}

impl Pair {
    fn new() -> Self {
        let db = database(&MemOs::new(1));
        let table = db.create_raw_table("t").unwrap();
        let (group, _) = lead(&db, Options::default(), Leading::default(), NOW).unwrap();
        let copy = database(&MemOs::new(2));
        copy.become_secondary(db.id()).unwrap();
        let copy = FollowingCopy::new(copy);
        let machine = copy.machine("two".into(), Options::default(), NOW);
        let session = Session::new(SessionId(1), Options::default(), NOW);
        let reads = SessionReads::new(db.clone());
        Self { db, table, group, session, reads, copy, machine, flushes: false }
    }

    /// Lets both sides act until neither has anything to do.
    fn run(&mut self) {
        self.machine.handle_tick(NOW);
        loop {
            let (led, followed) = (self.run_primary(), self.run_copy());
            if !led && !followed {
                break;
            }
        }
    }

    fn run_primary(&mut self) -> bool {
        tell_news(&self.db, &mut self.group, self.db.visible(), NOW);
        for answer in self.reads.retry().unwrap() {
            answer.tell(&mut self.session, &mut self.group, NOW);
        }
        let mut acted = false;
        while let Some(action) = self.session.poll_action(&mut self.group) {
            acted = true;
            match self.reads.perform(action).unwrap() {
                Outcome::Answered(answer) => answer.tell(&mut self.session, &mut self.group, NOW),
                Outcome::Driver(SessionAction::Send(message)) => self.machine.handle_message(message, NOW),
                Outcome::Done | Outcome::Early | Outcome::Driver(_) => {}
            }
        }
        acted
    }

    fn run_copy(&mut self) -> bool {
        let mut acted = false;
        while let Some(action) = self.machine.poll_action() {
            acted = true;
            let appends = matches!(action, Action::Append(_));
            match self.copy.perform(action, &mut self.machine, NOW).unwrap() {
                Some(Action::Connect) => self.machine.handle_connected(NOW),
                Some(Action::Send(message)) => {
                    self.session.handle_message(&mut self.group, message, NOW);
                }
                _ => {}
            }
            if appends && self.flushes {
                self.copy.database().flush().unwrap();
            }
        }
        self.copy.sync_appended(&mut self.machine, NOW).unwrap() || acted
    }
}

/// A pair whose copy holds a portion, and is told of it in many small chunks. The primary keeps next to nothing for anybody.
fn partial_pair(disk: &MemOs, portion: &Portion) -> Pair {
    let os = Arc::new(MemOs::new(1));
    let options = EngineOptions {
        background: false,
        log_tail_bytes: 0,
        preserved_bytes_max: 0,
        os,
        ..EngineOptions::default()
    };
    let db = Database::open_with("/db", options).unwrap();
    let table = db.create_raw_table("t").unwrap();
    db.create_raw_table("u").unwrap();
    let copy = database(disk);
    copy.become_partial(db.id()).unwrap();
    let copy = FollowingCopy::holding(copy, Some(portion.clone()));
    followed_by(db, table, copy)
}

/// A session of a copy with a primary, both of which go on from what they hold.
fn followed_by(db: Database, table: Table, copy: FollowingCopy) -> Pair {
    let options = Options {
        chunk_bytes: 500,
        chunks_in_flight: 2,
        refresh_mark_bytes: 1,
        rounds_apart: Millis(0),
        ..Options::default()
    };
    let (group, _) = lead(&db, options.clone(), Leading::default(), NOW).unwrap();
    let machine = copy.machine("two".into(), options.clone(), NOW);
    let session = Session::new(SessionId(1), options, NOW);
    let reads = SessionReads::new(db.clone());
    Pair { db, table, group, session, reads, copy, machine, flushes: false }
}

/// Writes a thousand records to both tables.
fn fill(db: &Database, row: &str) {
    for name in ["t", "u"] {
        let table = db.table(name).unwrap();
        let mut batch = Batch::new();
        for key in 0..1_000_u32 {
            batch.put(table.id(), key.to_be_bytes(), row);
        }
        db.write(batch, Durability::Synced).unwrap();
    }
}

/// Lets both sides act until a quarter of what the portion has came, and the round goes on.
fn begin_round(pair: &mut Pair) {
    pair.machine.handle_tick(NOW);
    while pair.machine.status().counters.records < 250 {
        assert!(pair.run_primary() | pair.run_copy(), "nothing moves: {:?}", pair.machine.status());
    }
    assert!(pair.machine.status().counters.records < 1_000);
}

fn portion_of(name: &str) -> Portion {
    Portion::new([(name.to_owned(), KeyRange::ALL)]).unwrap()
}

fn equal_in(pair: &Pair, table: &str) {
    let id = pair.db.table(table).unwrap().id();
    let sum = |db: &Database| db.snapshot().fingerprint(id, KeyRange::ALL).unwrap();
    assert_eq!(sum(&pair.db), sum(pair.copy.database()));
    pair.copy.database().verify().unwrap();
}

#[test]
fn a_round_whose_pin_outgrows_the_caps_begins_again_where_it_was() {
    let mut pair = partial_pair(&MemOs::new(2), &portion_of("t"));
    fill(&pair.db, "first");
    pair.db.compact().unwrap();
    begin_round(&mut pair);
    pair.reads.look_after_pin(Millis(NOW.0 + 1_000));
    assert!(pair.run_primary() | pair.run_copy(), "nothing is held back yet");
    assert_eq!(pair.machine.status().reason, Some(Reason::Empty));
    // The files that the round reads are merged away, and stay for it alone.
    fill(&pair.db, "second");
    pair.db.compact().unwrap();
    pair.reads.look_after_pin(Millis(NOW.0 + 1_500));
    pair.reads.look_after_pin(Millis(NOW.0 + 2_000));
    while pair.machine.status().reason == Some(Reason::Empty)
        && pair.machine.status().counters.resumptions == 0
    {
        assert!(pair.run_primary() | pair.run_copy(), "the round goes on: {:?}", pair.machine.status());
    }
    pair.run();
    let status = pair.machine.status();
    assert_eq!((status.state, status.counters.resumptions), (State::Online, 1), "{status:?}");
    equal_in(&pair, "t");
}

/// Lets both sides act while all files are merged anew each second, until a round is installed; how many pins that took.
fn run_under_merges(pair: &mut Pair) -> usize {
    pair.machine.handle_tick(NOW);
    let (mut clock, mut expired) = (NOW.0, 0);
    for turn in 0..500 {
        fill(&pair.db, &format!("turn {turn}"));
        pair.db.compact().unwrap();
        clock += 1_000;
        pair.reads.look_after_pin(Millis(clock));
        let before = pair.machine.status().reason;
        pair.run_primary();
        let after = pair.machine.status().reason;
        expired += usize::from(after == Some(Reason::PinExpired) && before != after);
        pair.run_copy();
        let status = pair.machine.status();
        if status.counters.refreshes > 0 {
            return expired;
        }
    }
    panic!("no round ends: {:?}", pair.machine.status());
}

#[test]
fn rounds_end_though_all_that_they_read_is_merged_away_all_the_while() {
    let disk = MemOs::new(2);
    let mut pair = partial_pair(&disk, &portion_of("t"));
    fill(&pair.db, "first");
    pair.db.compact().unwrap();
    let expired = run_under_merges(&mut pair);
    assert!((1..=4).contains(&expired), "{expired} pins of a delta were given up");
    pair.run();
    equal_in(&pair, "t");
    // Of another portion all ranges are compared, and what was compared counts for nothing when a pin is given up.
    let Pair { db, table, copy, machine, .. } = pair;
    drop((copy, machine));
    let copy = FollowingCopy::holding(database(&disk), Some(portion_of("u")));
    let mut pair = followed_by(db, table, copy);
    let expired = run_under_merges(&mut pair);
    assert!((1..=4).contains(&expired), "{expired} pins of a comparison were given up");
    assert_eq!(pair.machine.status().counters.reconciles, 1);
    pair.run();
    equal_in(&pair, "u");
}

#[test]
fn a_partial_copy_goes_on_in_another_process_with_what_it_is_to_hold_and_with_nothing_else() {
    for (portion, resumptions) in [("t", 1), ("u", 0)] {
        let disk = MemOs::new(2);
        let mut pair = partial_pair(&disk, &portion_of("t"));
        fill(&pair.db, "first");
        begin_round(&mut pair);
        pair.session.handle_disconnected(&mut pair.group, NOW);
        let Pair { db, table, copy, machine, .. } = pair;
        // The process ends, and another one begins.
        drop((copy, machine));
        let copy = FollowingCopy::holding(database(&disk), Some(portion_of(portion)));
        let mut pair = followed_by(db, table, copy);
        pair.run();
        let status = pair.machine.status();
        assert_eq!((status.state, status.counters.resumptions), (State::Online, resumptions), "{status:?}");
        let rest = 1_000 - if resumptions == 1 { 200 } else { 0 };
        assert!(status.counters.records <= rest + 50, "{status:?}");
        equal_in(&pair, portion);
    }
}

#[test]
fn what_a_flush_has_synced_is_shown_and_acknowledged() {
    let mut pair = Pair::new();
    pair.run();
    assert_eq!(pair.machine.status().state, State::Online);
    pair.flushes = true;
    let uid = put(&pair.table, &pair.db, "a", Durability::Synced);
    pair.run();
    assert_eq!(pair.copy.database().visible(), uid);
    assert_eq!(pair.group.members().values().next().unwrap().durable, uid);
}

#[test]
fn a_copy_whose_log_was_released_takes_back_to_the_hash_that_its_primary_knows() {
    let mut pair = Pair::new();
    let kept = put(&pair.table, &pair.db, "a", Durability::Synced);
    put(&pair.table, &pair.db, "b", Durability::Synced);
    pair.run();
    let hash = pair.db.history_hash_at(kept).unwrap();
    let copy = pair.copy.database().clone();
    drop(copy.pin_files().unwrap());
    // So large that memory keeps no commit before it.
    let mut large = Batch::new();
    large.put(pair.table.id(), "c", vec![0; 1 << 20]);
    pair.db.write(large, Durability::Synced).unwrap();
    pair.run();
    copy.flush().unwrap();
    assert!(hash.is_some() && copy.history_hash_at(kept).unwrap().is_none());
    let fork = copy.history().position_of(kept);
    let take_back = |hash| Action::TakeBack(fork, hash);
    let refused = pair.copy.perform(take_back(None), &mut pair.machine, NOW);
    assert!(refused.is_err(), "a hash that nobody knows would part the copy from its primary for good");
    pair.copy.perform(take_back(hash), &mut pair.machine, NOW).unwrap();
    assert_eq!(copy.history_hash_at(kept).unwrap(), hash);
}

/// A pair whose copy is away, with what both have: a, b and c. The primary has changed a and deleted b since.
fn parted() -> (Pair, Uid) {
    let mut pair = Pair::new();
    for key in ["a", "b", "c"] {
        put(&pair.table, &pair.db, key, Durability::Synced);
    }
    pair.run();
    let fork = pair.copy.database().visible();
    pair.session.handle_disconnected(&mut pair.group, NOW);
    for _ in 0..10 {
        put(&pair.table, &pair.db, "a", Durability::Synced);
    }
    pair.table.delete("b").unwrap();
    put(&pair.table, &pair.db, "d", Durability::Synced);
    tell_news(&pair.db, &mut pair.group, pair.db.visible(), NOW);
    (pair, fork)
}

/// The copy leads, and has made a commit that its primary lacks, when that one comes back as a secondary.
fn come_back(pair: &Pair) -> Pair {
    let (db, copy) = (pair.copy.database().clone(), FollowingCopy::new(pair.db.clone()));
    db.promote(Epoch { term: db.epoch().term + 1, incarnation: 1, nonce: 7 }).unwrap();
    let table = db.table("t").unwrap();
    put(&table, &db, "c", Durability::Synced);
    let (group, _) = lead(&db, Options::default(), Leading::default(), NOW).unwrap();
    pair.db.become_secondary(db.id()).unwrap();
    let machine = copy.machine("one".into(), Options::default(), NOW);
    let (session, reads) =
        (Session::new(SessionId(2), Options::default(), NOW), SessionReads::new(db.clone()));
    let mut back = Pair { db, table, group, session, reads, copy, machine, flushes: false };
    back.run();
    back
}

#[test]
fn a_copy_is_rewound_where_the_log_holds_all_that_follows_the_fork() {
    let (pair, fork) = parted();
    // Versions that the fork shows go, and the marks stay.
    pair.db.set_floors(None, Some(fork));
    pair.db.compact().unwrap();
    assert!(pair.db.version_floor() > fork && pair.db.mark_floor() <= fork);
    let back = come_back(&pair);
    let status = back.machine.status();
    assert_eq!((status.state, status.way), (State::Online, Some(Way::Tail)), "{status:?}");
    let (leads, follows) = (back.db.snapshot(), back.copy.database().snapshot());
    assert_eq!(leads.digests().unwrap(), follows.digests().unwrap());
    for (key, is_there) in [("a", true), ("b", true), ("c", true), ("d", false)] {
        assert_eq!(follows.get(back.table.id(), key.as_bytes()).unwrap().is_some(), is_there, "{key}");
    }
    back.copy.database().compact().unwrap();
    back.copy.database().verify().unwrap();
    assert_eq!(leads.digests().unwrap(), back.copy.database().snapshot().digests().unwrap());
}

#[test]
fn old_versions_are_kept_for_promotable_copies_that_are_online_and_marks_for_all() {
    let (mut pair, fork) = parted();
    let now = [pair.db.instance(), pair.copy.database().instance()].into();
    pair.group.restore_promotable(PromotableSets { now, next: None });
    let instance = pair.copy.database().instance();
    assert!(pair.group.members().get(&instance).is_some_and(|member| !member.online));
    Kept::of(&pair.group, |_| false).tell(&pair.db);
    pair.db.compact().unwrap();
    let versions = |db: &Database| db.status().unwrap().tables.iter().map(|table| table.versions).max();
    // One of each key, the mark of b among them.
    assert_eq!((versions(&pair.db), pair.db.mark_floor()), (Some(4), Uid::ZERO));
    assert!(pair.db.version_floor() > fork && pair.group.stable() <= fork);
    // What comes later as well, though nobody is there whose input would tell the floors anew.
    for _ in 0..10 {
        put(&pair.table, &pair.db, "a", Durability::Synced);
    }
    pair.db.compact().unwrap();
    assert_eq!(versions(&pair.db), Some(4));

    let mut pair = Pair::new();
    put(&pair.table, &pair.db, "a", Durability::Synced);
    pair.run();
    let now = [pair.db.instance(), pair.copy.database().instance()].into();
    pair.group.restore_promotable(PromotableSets { now, next: None });
    for _ in 0..10 {
        put(&pair.table, &pair.db, "a", Durability::Synced);
    }
    tell_news(&pair.db, &mut pair.group, pair.db.visible(), NOW);
    Kept::of(&pair.group, |_| false).tell(&pair.db);
    pair.db.compact().unwrap();
    assert_eq!((versions(&pair.db), pair.db.version_floor()), (Some(11), Uid::ZERO));
}

#[test]
fn a_read_of_what_is_not_visible_yet_waits_until_it_is() {
    let mut pair = Pair::new();
    let first = put(&pair.table, &pair.db, "a", Durability::Synced);
    let read = |at_least| SessionAction::ReadDelta {
        round: 1,
        since: Uid::ZERO,
        cursor: None,
        at_least,
        pinned: false,
        bytes_max: 1 << 20,
    };
    assert!(matches!(pair.reads.perform(read(first)).unwrap(), Outcome::Answered(_)));
    assert!(matches!(pair.reads.perform(read(first.next())).unwrap(), Outcome::Early));
    assert!(pair.reads.retry().unwrap().is_empty() && pair.reads.is_waiting());
    put(&pair.table, &pair.db, "b", Durability::Synced);
    assert_eq!(pair.reads.retry().unwrap().len(), 1);
    assert!(!pair.reads.is_waiting());

    assert!(matches!(pair.reads.perform(read(Uid::MAX)).unwrap(), Outcome::Early));
    pair.reads.perform(SessionAction::ReleasePin).unwrap();
    assert!(!pair.reads.is_waiting(), "the round is over");
}

#[test]
fn run_files_take_a_copys_place_only_if_they_keep_what_it_promised() {
    let db = database(&MemOs::new(1));
    db.create_raw_table("t").unwrap();
    let pin = db.pin_files().unwrap();
    let end = pin.list().position.uid;
    let terms = Terms { database: db.id(), promised: db.epoch(), at_least: end };
    terms.check(pin.list()).unwrap();
    let newer = Epoch { term: db.epoch().term + 1, ..db.epoch() };
    assert!(Terms { promised: newer, ..terms }.check(pin.list()).is_err());
    assert!(Terms { at_least: end.next(), ..terms }.check(pin.list()).is_err());
    assert!(Terms { database: DatabaseId(7), ..terms }.check(pin.list()).is_err());
}

/// Makes a directory with one file that says what it is, durably.
fn make(os: &MemOs, dir: &Path, what: &str) {
    os.create_dir_all(dir).unwrap();
    let file = os.open(&dir.join("what"), OpenMode::CreateNew).unwrap();
    file.write_all_at(what.as_bytes(), 0).unwrap();
    file.sync_data().unwrap();
    os.sync_dir(dir).unwrap();
    os.sync_dir(dir.parent().unwrap()).unwrap();
}

fn what(os: &MemOs, dir: &Path) -> String {
    let mut bytes = [0; 3];
    let Ok(file) = os.open(&dir.join("what"), OpenMode::Read) else { return "none".into() };
    file.read_exact_at(&mut bytes, 0).unwrap();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_copy_is_whole_whenever_its_exchange_for_a_successor_is_interrupted() {
    let places = Places::of(Path::new("/data/db"));
    for (at, style, seed) in (1..14)
        .flat_map(|at| CrashStyle::ALL.map(|style| (at, style)))
        .flat_map(|(at, style)| (0..8).map(move |seed| (at, style, seed)))
    {
        let os = MemOs::new(seed);
        os.create_dir_all(Path::new("/data")).unwrap();
        os.sync_dir(Path::new("/")).unwrap();
        make(&os, &places.dir, "old");
        make(&os, &places.next, "new");
        make(&os, &places.dir.join("quarantine"), "kep");
        os.crash_at(os.mutations() + at);
        let done = places.swap(&os).is_ok() && places.clean(&os).is_ok();
        let after = os.crash(style, seed);
        // Another interruption, in the middle of mending the first.
        after.crash_at(after.mutations() + seed);
        let _ = places.settle(&after);
        let after = after.crash(style, seed + 1);
        places.settle(&after).unwrap();
        let found = what(&after, &places.dir);
        assert!(found == "new" || (found == "old" && !done), "call {at}, {style:?}, seed {seed}: {found}");
        assert_eq!(what(&after, &places.dir.join("quarantine")), "kep", "call {at}, {style:?}, seed {seed}");
        assert!(!after.exists(&places.old));
    }
}
