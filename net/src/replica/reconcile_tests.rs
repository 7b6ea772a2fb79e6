//! Reconciles over real sockets and real files.

use std::path::Path;

use planaria_engine::{Database, Options};
use planaria_replication::{Reason, Way};
use planaria_types::Uid;

use super::Slot;
use super::tests::{Cluster, caught_up, equal, fill, options};

fn key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[test]
fn a_copy_that_was_away_longer_than_marks_are_kept_gets_the_ranges_that_differ() {
    let dir = tempfile::tempdir().unwrap();
    let capped = Options { preserved_bytes_max: 0, preserved_age_max_ms: 0, ..options() };
    let cluster = Cluster::start_with(dir.path(), capped);
    let db = cluster.primary.database().clone();
    let table = db.create_raw_table("t").unwrap();
    fill(&db, &table, 0..30_000, "first");
    let slot = cluster.secondary(&dir.path().join("secondary"));
    let follower = cluster.follow(&slot);
    caught_up(&cluster, &slot, &follower);
    follower.stop();
    let left_at = slot.get().durable();
    drop(slot);

    // More than the log holds; and what is deleted leaves no mark, as nothing is preserved for whoever is away.
    fill(&db, &table, 100..400, &"changed while away ".repeat(100));
    for number in (1_000..1_300).step_by(10) {
        table.delete(key(number)).unwrap();
    }
    let other = db.create_raw_table("new").unwrap();
    fill(&db, &other, 0..50, "of a table that the copy has never heard of");
    db.set_floors(None, None);
    db.compact().unwrap();
    assert!(db.mark_floor() > left_at, "no mark was dropped");

    let slot = Slot::new(Database::open_with(dir.path().join("secondary"), options()).unwrap());
    let writer = {
        let (db, table) = (db.clone(), table.clone());
        std::thread::spawn(move || fill(&db, &table, 40_000..40_500, "live"))
    };
    let follower = cluster.follow(&slot);
    caught_up(&cluster, &slot, &follower);
    writer.join().unwrap();
    let status = caught_up(&cluster, &slot, &follower);
    assert_eq!(
        (status.replica.way, status.replica.reason),
        (Some(Way::Reconcile), Some(Reason::MarksDropped))
    );
    let counters = status.replica.counters;
    let moved = counters.records;
    // The live rows may be among them, and what lies beside those that differ.
    assert!((300..3_000).contains(&moved), "{moved} records moved");
    assert_eq!(counters.reconciles, 1);
    equal(&db, &slot.get());
    let copied = slot.get().table("t").unwrap();
    assert!((1_000..1_300).step_by(10).all(|number| copied.get(key(number)).unwrap().is_none()));
    slot.get().verify().unwrap();
    assert!(slot.get().mark_floor() > left_at);

    // It follows on, and what is deleted now goes there too.
    table.delete(key(5)).unwrap();
    caught_up(&cluster, &slot, &follower);
    assert!(copied.get(key(5)).unwrap().is_none());
    equal(&db, &slot.get());
    follower.stop();
}

#[test]
fn rows_of_another_past_that_cannot_be_taken_back_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (left, right) = (dir.path().join("left"), dir.path().join("right"));
    std::fs::create_dir_all(&left).unwrap();
    let fork = {
        let db = Database::open_with(left.join("primary"), options()).unwrap();
        let table = db.create_raw_table("t").unwrap();
        fill(&db, &table, 0..5_000, "row");
        db.sync().unwrap()
    };
    copy_dir(&left.join("primary"), &right.join("primary"));
    let slot = {
        let cluster = Cluster::start(&right);
        let slot = cluster.secondary(&dir.path().join("secondary"));
        let follower = cluster.follow(&slot);
        let db = cluster.primary.database();
        let table = db.table("t").unwrap();
        fill(db, &table, 100..140, "damaged");
        for number in 2_000..2_020 {
            table.delete(key(number)).unwrap();
        }
        caught_up(&cluster, &slot, &follower);
        follower.stop();
        slot
    };
    // Nothing of the fork can be read there any more, and the marks of what it deleted are gone.
    let copy = slot.get();
    copy.set_floors(None, None);
    copy.compact().unwrap();
    assert!(copy.mark_floor() > fork && copy.version_floor() > fork);
    drop(copy);

    // The true primary has had one start more than the one that the copy followed.
    Database::open_with(left.join("primary"), options()).unwrap().begin_epoch().unwrap();
    let cluster = Cluster::start(&left);
    let db = cluster.primary.database().clone();
    fill(&db, &db.table("t").unwrap(), 300..310, "true");
    let follower = cluster.follow(&slot);
    let status = caught_up(&cluster, &slot, &follower);
    assert_eq!(
        (status.replica.way, status.replica.reason),
        (Some(Way::Reconcile), Some(Reason::ForkBelowMarks))
    );
    assert!(status.replica.counters.records < 1_500, "{:?}", status.replica.counters);
    equal(&db, &slot.get());
    let copied = slot.get().table("t").unwrap();
    assert!((2_000..2_020).all(|number| copied.get(key(number)).unwrap().is_some()));
    assert!(!status.replica.diverged && slot.get().mark_floor() > Uid::ZERO);
    let extracts = std::fs::read_dir(dir.path().join("secondary/quarantine")).unwrap().count();
    assert_eq!(extracts, 1, "what was shown and goes is kept");
    slot.get().verify().unwrap();
    follower.stop();
}

#[test]
fn damaged_messages_of_a_comparison_are_errors_and_never_more() {
    use planaria_replication::{
        Compare, Message, PartSum, Parts, RangesReply, RangesRequest, Record, RecordKind, Span, Tiling,
    };
    use planaria_types::{KeyRange, TableId};

    let table = TableId(1);
    let span = |from: &[u8], to: &[u8]| Span { table, keys: KeyRange::new(from, Some(to.to_vec())) };
    let sums = vec![PartSum { count: 7, short: [3; 8] }; 4];
    let firsts = [b"abc".to_vec(), b"abd".to_vec(), b"b".to_vec()];
    let record = Record {
        table,
        key: bytes::Bytes::from_static(b"key"),
        uid: Uid::new(7),
        kind: RecordKind::Put,
        row: bytes::Bytes::from_static(b"row"),
    };
    let messages = [
        Message::Compare(Compare { round: 3, spans: vec![span(b"a", b"b"), span(b"c", b"d")] }),
        Message::Parts(Parts {
            round: 3,
            snapshot: Uid::new(9),
            tilings: vec![Tiling::new(table, &firsts, sums)],
        }),
        Message::RangesRequest(RangesRequest { round: 3, spans: vec![span(b"a", b"b")] }),
        Message::RangesReply(RangesReply {
            round: 3,
            snapshot: Uid::new(9),
            done: 1,
            next: Some(bytes::Bytes::from_static(b"c")),
            records: vec![record; 3],
        }),
    ];
    let (mut refused, mut taken) = (0, 0);
    for message in &messages {
        let bytes = super::encode(message).unwrap();
        assert_eq!(super::decode_message(&bytes).unwrap(), *message);
        for at in 0..bytes.len() {
            for change in [0x01_u8, 0x40, 0x80, 0xff] {
                let mut damaged = bytes.to_vec();
                damaged[at] ^= change;
                match super::decode_message(&damaged.into()) {
                    Ok(other) => {
                        taken += 1;
                        assert_eq!(other.validate(), Ok(()));
                    }
                    Err(_) => refused += 1,
                }
            }
            assert!(super::decode_message(&bytes.slice(..at)).is_err(), "a part of a message is none");
        }
    }
    assert!(refused > 50 && taken > 50, "{refused} refused, {taken} taken");
}
