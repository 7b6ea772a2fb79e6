//! Leads change hands, and commits are made once.

use planaria_types::{Epoch, EpochOrder, Uid};

use crate::{Batch, Database, Durability, Followed, Options, Role, Table, Written};

fn options() -> Options {
    Options { background: false, ..Options::default() }
}

/// A primary and a secondary of it.
fn pair(dir: &std::path::Path) -> (Database, Table, Database) {
    let primary = Database::open_with(dir.join("primary"), options()).unwrap();
    let table = primary.create_raw_table("t").unwrap();
    let copy = Database::open_with(dir.join("copy"), options()).unwrap();
    copy.become_secondary(primary.id()).unwrap();
    replicate(&primary, &copy);
    (primary, table, copy)
}

/// Brings a secondary to the end of its primary's log; what is there is durable, and shown up to `cut`.
fn replicate(primary: &Database, copy: &Database) -> Uid {
    copy.adopt_history(&primary.history()).unwrap();
    let mut follower = primary.follow(copy.log_end().0);
    loop {
        let Followed::Commits(commits) = follower.next(usize::MAX).unwrap() else { panic!("retained") };
        let Some(last) = commits.last().map(|logged| logged.commit.uid()) else {
            return copy.show(Uid::MAX).unwrap();
        };
        copy.append_replicated(&commits).unwrap();
        copy.sync().unwrap();
        assert_eq!(copy.log_end().0, last);
    }
}

fn put(db: &Database, table: &Table, key: &'static str, token: u128) -> crate::Result<Written> {
    let mut batch = Batch::new();
    batch.put(table.id(), key, "row");
    db.write_once(batch, token, Durability::Synced)
}

#[test]
fn a_promoted_copy_inherits_all_of_its_log_and_leads_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (primary, table, copy) = pair(dir.path());
    let last = table.put("a", "row").unwrap();
    replicate(&primary, &copy);
    assert_eq!(copy.create_raw_table("u").unwrap_err().code(), "read_only");

    let epoch = copy.next_epoch(primary.epoch());
    assert_eq!(epoch.order(&primary.epoch()), EpochOrder::Newer);
    copy.promote(epoch).unwrap();
    assert_eq!((copy.role(), copy.epoch(), copy.promised()), (Role::Primary, epoch, epoch));
    assert_eq!(copy.history().entries().last().unwrap().inherited, last);
    let written = copy.table("t").unwrap().put("b", "row").unwrap();
    assert!(written > last);
    assert!(copy.promote(copy.next_epoch(Epoch::NONE)).is_err(), "it leads already");
    drop(copy);
    let copy = Database::open_with(dir.path().join("copy"), options()).unwrap();
    assert_eq!(copy.role(), Role::Primary);
    assert_eq!(copy.history().epoch_of(written), epoch);
    assert_eq!(copy.table("t").unwrap().get("a").unwrap().as_deref(), Some(&b"row"[..]));
    copy.table("t").unwrap().put("c", "row").unwrap();
    assert_eq!((copy.epoch().term, copy.epoch().incarnation), (epoch.term, 2));
}

#[test]
fn a_primary_begins_its_next_incarnation_while_it_leads_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (primary, table, copy) = pair(dir.path());
    let before = primary.epoch();
    let last = table.put("a", "row").unwrap();
    let other = Epoch { nonce: !before.nonce, ..before };
    primary.begin_epoch_above(other).unwrap();
    let next = primary.epoch();
    assert_eq!(next.order(&other), EpochOrder::Newer);
    assert_eq!((next.term, next.incarnation), (before.term, before.incarnation + 1));
    primary.begin_epoch_above(other).unwrap();
    assert_eq!(primary.epoch(), next, "it is above that already");
    let written = table.put("b", "row").unwrap();
    let history = primary.history();
    assert_eq!((history.epoch_of(last), history.epoch_of(written)), (before, next));
    assert_eq!(history.entries().last().unwrap().inherited, last);
    assert_eq!(replicate(&primary, &copy), written);
    assert_eq!(copy.history().epoch_of(written), next);

    let newer = Epoch { term: next.term + 1, ..other };
    assert_eq!(primary.begin_epoch_above(newer).unwrap_err().code(), "deposed", "it goes above no newer one");
    assert_eq!(copy.begin_epoch_above(other).unwrap_err().code(), "read_only");
    drop((primary, table));
    let primary = Database::open_with(dir.path().join("primary"), options()).unwrap();
    assert_eq!(primary.epoch(), next);
    assert_eq!(primary.table("t").unwrap().get("b").unwrap().as_deref(), Some(&b"row"[..]));
}

#[test]
fn a_primary_that_promised_a_newer_epoch_takes_no_commits_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (primary, table, copy) = pair(dir.path());
    let older = primary.epoch();
    let newer = copy.next_epoch(older);
    primary.promise(newer).unwrap();
    assert_eq!(table.put("a", "row").unwrap_err().code(), "deposed");
    assert_eq!(primary.promise(older).unwrap_err().code(), "deposed", "a promise never falls");
    drop((primary, table));
    let primary = Database::open_with(dir.path().join("primary"), options()).unwrap();
    assert_eq!(primary.deposed(), Some(newer));
    assert_eq!(primary.begin_epoch().unwrap_err().code(), "deposed");
    assert_eq!(primary.table("t").unwrap().put("a", "row").unwrap_err().code(), "deposed");
    primary.become_secondary(primary.id()).unwrap();
    assert_eq!(primary.deposed(), None);
    // Nobody else took the lead: it may, under an epoch that is newer still.
    primary.promote(primary.next_epoch(Epoch::NONE)).unwrap();
    primary.table("t").unwrap().put("a", "row").unwrap();
}

#[test]
fn a_lead_that_is_handed_over_can_be_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let (primary, table, _) = pair(dir.path());
    let mut begun = table.ingest().unwrap();
    begun.put("b", "row").unwrap();
    primary.hand_over(true);
    let end = primary.log_end();
    assert_eq!(table.put("a", "row").unwrap_err().code(), "handing_over");
    assert_eq!(begun.finish().unwrap_err().code(), "handing_over");
    assert_eq!(table.ingest().unwrap_err().code(), "handing_over");
    assert_eq!(primary.log_end(), end, "what takes the lead over may rely on it");
    primary.hand_over(false);
    table.put("a", "row").unwrap();
    let mut ingest = table.ingest().unwrap();
    ingest.put("b", "row").unwrap();
    ingest.finish().unwrap();
}

#[test]
fn a_token_names_one_commit_here_after_a_restart_and_on_a_promoted_copy() {
    let dir = tempfile::tempdir().unwrap();
    let (primary, table, copy) = pair(dir.path());
    let first = put(&primary, &table, "a", 7).unwrap();
    assert!(!first.again);
    let again = Written { again: true, ..first };
    table.delete("a").unwrap();
    assert_eq!(put(&primary, &table, "a", 7).unwrap(), again);
    assert_eq!(table.get("a").unwrap(), None, "it is not made twice");
    assert_eq!(put(&primary, &table, "b", 7).unwrap_err().code(), "token_reused");
    assert!(!put(&primary, &table, "b", 8).unwrap().again);
    replicate(&primary, &copy);
    drop((primary, table));

    let primary = Database::open_with(dir.path().join("primary"), options()).unwrap();
    assert_eq!(put(&primary, &primary.table("t").unwrap(), "a", 7).unwrap(), again);
    primary.compact().unwrap();
    assert_eq!(put(&primary, &primary.table("t").unwrap(), "a", 7).unwrap(), again);
    copy.promote(copy.next_epoch(primary.epoch())).unwrap();
    assert_eq!(put(&copy, &copy.table("t").unwrap(), "a", 7).unwrap(), again);
}

#[test]
fn writers_that_send_one_token_at_once_make_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (primary, table, _) = pair(dir.path());
    let made: Vec<Written> = std::thread::scope(|scope| {
        let writers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| put(&primary, &table, "a", 1).unwrap())).collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(made.iter().filter(|written| !written.again).count(), 1);
    assert!(made.iter().all(|written| written.uid == made[0].uid));
}

#[test]
fn what_is_closed_is_below_every_later_commit() {
    let dir = tempfile::tempdir().unwrap();
    let (primary, table, copy) = pair(dir.path());
    for _ in 0..100 {
        let closed = primary.close_past().unwrap();
        assert!(table.put("a", "row").unwrap() > closed);
    }
    assert_eq!(copy.close_past().unwrap(), copy.log_end().0);
}

#[test]
fn a_primary_that_stands_back_takes_updates_again_once_it_is_promoted() {
    let dir = tempfile::tempdir().unwrap();
    let (primary, table, _) = pair(dir.path());
    let other = Epoch { nonce: !primary.epoch().nonce, ..primary.epoch() };
    primary.stand_back(other);
    assert_eq!(primary.deposed(), Some(other));
    assert_eq!(table.put("a", "row").unwrap_err().code(), "deposed");
    primary.become_secondary(primary.id()).unwrap();
    primary.stand_back(other);
    primary.promote(primary.next_epoch(other)).unwrap();
    table.put("a", "row").unwrap();
}
