//! What secondaries that are away cost a primary, and what ends that.

use std::path::Path;
use std::time::Duration;

use planaria_engine::{Batch, Cap, Database, Durability, Lead, Options, Registration, Table};
use planaria_replication::ack::Level;
use planaria_types::{InstanceId, Uid};

use super::super::{Leading, Primary};
use super::WardError;

const AWAY: InstanceId = InstanceId(7);

fn options(preserved_bytes_max: u64, preserved_age_max_ms: u64) -> Options {
    Options { preserved_bytes_max, preserved_age_max_ms, background: false, ..Options::default() }
}

/// A database with a thousand rows, a registered secondary that has them, and then no rows.
fn emptied(dir: &Path, options: Options) -> (Database, Table, Uid) {
    let db = Database::open_with(dir.join("db"), options).unwrap();
    let table = db.create_raw_table("t").unwrap();
    let change = |put: bool| {
        let mut batch = Batch::new();
        for key in 0..1_000_u32 {
            let key = key.to_be_bytes().to_vec();
            if put {
                batch.put(table.id(), key, "row")
            } else {
                batch.delete(table.id(), key)
            };
        }
        db.write(batch, Durability::Synced).unwrap()
    };
    let away = change(true);
    db.compact().unwrap();
    db.register(&Registration::new(AWAY, "away", away), Durability::Synced).unwrap();
    change(false);
    db.flush().unwrap();
    (db, table, away)
}

#[test]
fn a_secondary_that_is_away_stops_no_commit_and_keeps_its_marks_until_it_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (db, table, away) = emptied(dir.path(), options(1 << 30, u64::MAX));
    let primary = Primary::start(db.clone(), Leading::default()).unwrap();
    primary.watch();
    table.put("k", "row").unwrap();
    db.compact().unwrap();
    assert!(db.mark_floor() <= away, "the secondary is owed the marks");
    let listed = primary.replicas().remove(0);
    assert_eq!((listed.instance, listed.state, listed.given_up), (AWAY, "offline", None));
    assert!(
        listed.preserved.bytes > 0 && listed.lag.commits.is_some_and(|commits| commits > 0),
        "{listed:?}"
    );

    let known = primary.replica_named("away").unwrap();
    assert_eq!(primary.replica_named("nobody"), Err(WardError::Unknown("nobody".into())));
    primary.forget(known).unwrap().unwrap();
    db.compact().unwrap();
    assert!(db.mark_floor() > away, "nobody is owed the marks any more");
    assert!(primary.replicas().is_empty() && db.registrations().unwrap().is_empty());
}

#[test]
fn what_exceeds_a_cap_is_given_up_durably_and_with_its_reason() {
    for (options, cap) in [(options(100, u64::MAX), Cap::Bytes), (options(1 << 30, 0), Cap::Age)] {
        let dir = tempfile::tempdir().unwrap();
        let (db, table, away) = emptied(dir.path(), options);
        let primary = Primary::start(db.clone(), Leading::default()).unwrap();
        // Some milliseconds of age must pass.
        while db.now_millis() <= away.millis() + 1 {
            std::thread::yield_now();
        }
        primary.watch();
        table.put("k", "row").unwrap();
        db.compact().unwrap();
        assert!(db.mark_floor() > away, "merges drop what the cap does not allow");
        let given_up = primary.replicas().remove(0).given_up.expect("it is reported");
        assert_eq!(given_up.cap, cap);
        assert_eq!(db.registrations().unwrap().remove(0).given_up, Some(given_up));
    }
}

#[test]
fn a_pause_outlives_the_primary() {
    let dir = tempfile::tempdir().unwrap();
    let (db, _, _) = emptied(dir.path(), options(1 << 30, u64::MAX));
    Primary::start(db.clone(), Leading::default()).unwrap().pause(AWAY, true).unwrap();
    let primary = Primary::start(db, Leading::default()).unwrap();
    assert_eq!(primary.replicas().remove(0).state, "paused");
    primary.pause(AWAY, false).unwrap();
    assert_eq!(primary.replicas().remove(0).state, "offline");
}

#[test]
fn a_copy_that_was_forgotten_is_not_waited_for_after_the_primary_died_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let (db, table, _) = emptied(dir.path(), options(1 << 30, u64::MAX));
    drop(Primary::start(db.clone(), Leading::default()).unwrap());
    let lead = db.lead().unwrap().unwrap();
    db.set_lead(&Lead { promotable: [db.instance(), AWAY].into(), ..lead }).unwrap();
    // As far as an operator's word got: the registration is gone, the set is as it was.
    db.forget(AWAY).unwrap();
    let primary = Primary::start(db.clone(), Leading::default()).unwrap();
    primary.watch();
    assert_eq!(db.lead().unwrap().unwrap().promotable, [db.instance()].into());
    let uid = table.put("key", "row").unwrap();
    primary.wait_acknowledged(uid, Level::Quorum, Duration::ZERO).unwrap();
}
