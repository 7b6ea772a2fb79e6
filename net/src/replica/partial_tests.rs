//! Partial copies over real sockets and real files.

use std::path::Path;

use planaria_engine::{Database, Error as EngineError, Options};
use planaria_replication::secondary::State;
use planaria_replication::{Reason, Way};
use planaria_types::{KeyRange, Portion, Uid};

use super::tests::{Cluster, caught_up, fill, options};
use super::{FollowStatus, Follower, Slot};

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn range(start: u64, end: u64) -> KeyRange {
    KeyRange::new(key(start), Some(key(end).to_vec()))
}

fn portion(tables: &[(&str, KeyRange)]) -> Portion {
    Portion::new(tables.iter().map(|(name, keys)| ((*name).to_owned(), keys.clone()))).unwrap()
}

fn opened(dir: &Path) -> Slot {
    Slot::new(Database::open_with(dir.join("partial"), options()).unwrap())
}

/// A partial copy that holds nothing yet.
fn empty(cluster: &Cluster, dir: &Path) -> Slot {
    let slot = opened(dir);
    slot.get().become_partial(cluster.primary.database().id()).unwrap();
    slot
}

/// Waits until something is so of the follower.
fn until(what: &str, follower: &Follower, is_so: impl Fn(&FollowStatus) -> bool) {
    for _ in 0..20_000 {
        if is_so(&follower.status()) {
            return;
        }
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
    panic!("not {what}: {:?}", follower.status());
}

/// The copy holds of the portion what the primary has, and answers for nothing else.
fn equal_in(primary: &Database, copy: &Database, portion: &Portion) {
    let (ours, theirs) = (copy.snapshot(), primary.snapshot());
    for (name, keys) in portion.tables() {
        let id = primary.table(name).unwrap().id();
        let sum = |snapshot: &planaria_engine::Snapshot| snapshot.fingerprint(id, keys.clone()).unwrap();
        assert_eq!(sum(&ours), sum(&theirs), "{name} differs");
    }
    for table in primary.tables().unwrap() {
        if portion.tables().all(|(name, keys)| name != table.name || *keys != KeyRange::ALL) {
            let refused = ours.fingerprint(table.id, KeyRange::ALL);
            assert!(matches!(refused, Err(EngineError::NotHeld { .. })), "{}: {refused:?}", table.name);
        }
    }
    copy.verify().unwrap();
}

#[test]
fn a_partial_copy_follows_what_it_is_to_hold_in_rounds_and_counts_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    let [a, b, c] = ["a", "b", "c"].map(|name| db.create_raw_table(name).unwrap());
    for table in [&a, &b, &c] {
        fill(&db, table, 0..2_000, "first");
    }
    let held = portion(&[("a", KeyRange::ALL), ("b", range(100, 200)), ("later", KeyRange::ALL)]);
    let slot = empty(&cluster, dir.path());
    let follower = cluster.follow_holding(&slot, Some(held.clone()));
    let status = caught_up(&cluster, &slot, &follower);
    assert_eq!(status.replica.way, Some(Way::PinnedDelta), "{status:?}");
    let moved = status.replica.counters.records;
    assert!((2_100..2_200).contains(&moved), "{moved} records moved");
    assert_eq!(status.replica.counters.commits, 0, "no commit is sent");

    let later = db.create_raw_table("later").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| fill(&db, &a, 5_000..5_300, "live"));
        scope.spawn(|| fill(&db, &later, 0..300, "later"));
        scope.spawn(|| fill(&db, &c, 5_000..5_300, "elsewhere"));
    });
    for number in 120..140 {
        b.delete(key(number)).unwrap();
        b.delete(key(number + 200)).unwrap();
    }
    let status = caught_up(&cluster, &slot, &follower);
    equal_in(&db, &slot.get(), &held);
    assert_eq!(status.replica.reason, Some(Reason::Partial));
    let rounds = status.replica.counters.refreshes;
    assert!(rounds >= 2, "{status:?}");
    let listed = cluster.primary.replicas().remove(0);
    assert_eq!((listed.portion, listed.promotable), (Some(held), false));
    let registered = db.registrations().unwrap().remove(0);
    assert!(registered.portion.is_some());

    // Nothing is done while nothing changes, but for what a registration made some rounds ago.
    until("told what is closed", &follower, |status| status.replica.closed > slot.get().visible());
    follower.stop();
}

#[test]
fn a_partial_copy_that_was_away_is_told_what_changed_of_its_portion_or_compares_it() {
    let dir = tempfile::tempdir().unwrap();
    let capped = Options { preserved_bytes_max: 0, preserved_age_max_ms: 0, ..options() };
    let cluster = Cluster::start_with(dir.path(), capped);
    let db = cluster.primary.database().clone();
    let [a, b] = ["a", "b"].map(|name| db.create_raw_table(name).unwrap());
    fill(&db, &a, 0..5_000, "first");
    fill(&db, &b, 0..5_000, "first");
    let held = portion(&[("a", range(1_000, 4_000))]);
    let slot = empty(&cluster, dir.path());
    let follower = cluster.follow_holding(&slot, Some(held.clone()));
    caught_up(&cluster, &slot, &follower);
    follower.stop();
    drop(slot);

    fill(&db, &b, 0..3_000, "changed beside it");
    fill(&db, &a, 3_950..4_050, "changed on its border");
    a.delete(key(2_000)).unwrap();
    let slot = opened(dir.path());
    let follower = cluster.follow_holding(&slot, Some(held.clone()));
    let status = caught_up(&cluster, &slot, &follower);
    assert_eq!(status.replica.way, Some(Way::PinnedDelta), "{status:?}");
    let moved = status.replica.counters.records;
    assert!((51..80).contains(&moved), "{moved} records moved");
    equal_in(&db, &slot.get(), &held);
    follower.stop();
    let left_at = slot.get().durable();
    drop(slot);

    // What is deleted leaves no mark, as nothing is preserved for whoever is away.
    for number in 2_100..2_200 {
        a.delete(key(number)).unwrap();
    }
    fill(&db, &b, 3_000..4_000, "changed beside it");
    db.set_floors(None, None);
    db.compact().unwrap();
    assert!(db.mark_floor() > left_at, "no mark was dropped");
    let slot = opened(dir.path());
    let follower = cluster.follow_holding(&slot, Some(held.clone()));
    let status = caught_up(&cluster, &slot, &follower);
    assert_eq!(status.replica.counters.reconciles, 1, "{status:?}");
    assert!(status.replica.counters.records < 1_000, "{status:?}");
    equal_in(&db, &slot.get(), &held);
    follower.stop();
}

#[test]
fn a_partial_copy_that_is_to_hold_something_else_compares_and_gives_up_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    let [a, b, c] = ["a", "b", "c"].map(|name| db.create_raw_table(name).unwrap());
    for table in [&a, &b, &c] {
        fill(&db, table, 0..1_000, "first");
    }
    let slot = empty(&cluster, dir.path());
    let before = portion(&[("a", KeyRange::ALL), ("b", range(0, 500))]);
    let follower = cluster.follow_holding(&slot, Some(before));
    caught_up(&cluster, &slot, &follower);
    follower.stop();
    let after = portion(&[("b", range(400, 800)), ("c", KeyRange::ALL)]);
    // The primary is written to all the while: the ranges are compared at a pin, whatever comes after it.
    let busy = std::sync::atomic::AtomicBool::new(true);
    let follower = std::thread::scope(|scope| {
        scope.spawn(|| {
            while busy.load(std::sync::atomic::Ordering::Relaxed) {
                fill(&db, &a, 0..1, "all the while");
            }
        });
        let follower = cluster.follow_holding(&slot, Some(after.clone()));
        until("compared, and going on in rounds", &follower, |status| {
            status.replica.counters.reconciles == 1 && status.replica.counters.refreshes > 1
        });
        busy.store(false, std::sync::atomic::Ordering::Relaxed);
        follower
    });
    let status = caught_up(&cluster, &slot, &follower);
    assert_eq!(status.replica.counters.reconciles, 1, "{status:?}");
    let moved = status.replica.counters.records;
    assert!((1_300..1_600).contains(&moved), "what it had was not moved again: {moved} records");
    equal_in(&db, &slot.get(), &after);
    assert_eq!(slot.get().portion(), Some(after.clone()));
    follower.stop();
    slot.get().compact().unwrap();
    let left: u64 = slot.get().status().unwrap().tables.iter().map(|table| table.versions).sum();
    assert!((1_400..1_410).contains(&left), "{left} versions are left of what is held");
    // What it holds is known to the copy itself.
    let follower = cluster.follow_holding(&slot, None);
    fill(&db, &c, 2_000..2_010, "more");
    caught_up(&cluster, &slot, &follower);
    equal_in(&db, &slot.get(), &after);
    follower.stop();
}

#[test]
fn a_whole_copy_cannot_say_to_be_partial_nor_a_partial_one_to_be_whole() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    let a = db.create_raw_table("a").unwrap();
    fill(&db, &a, 0..100, "first");
    let whole = cluster.secondary(&dir.path().join("whole"));
    // What is asked of a whole copy changes nothing: it holds everything.
    let follower = cluster.follow_holding(&whole, Some(portion(&[("a", range(0, 10))])));
    let status = caught_up(&cluster, &whole, &follower);
    assert_eq!(status.replica.state, State::Online);
    super::tests::equal(&db, &whole.get());
    follower.stop();
    let slot = empty(&cluster, dir.path());
    let follower = cluster.follow_holding(&slot, Some(portion(&[("a", KeyRange::ALL)])));
    caught_up(&cluster, &slot, &follower);
    assert!(slot.get().durable() > Uid::ZERO);
    // Nothing can be cloned from it, and nobody fed.
    assert_eq!(slot.get().pin_files().unwrap_err().code(), "partial");
    follower.stop();
}
