use planaria_net::wire::jobs::{CloneJobInfo, CloneReport, CloneWish, When};
use planaria_net::wire::message::{CloneRole, Shape};
use planaria_net::wire::stores::{
    BackupOrder, KeptBackup, RestoreOrder, StoreReport, StoreSpec, StoredBackup,
};

use super::super::stored::Asked;
use super::*;

const PLACE: &str = "/srv/backups";

fn spec() -> StoreSpec {
    let labels = vec![("datacenter".to_owned(), "b".to_owned())];
    StoreSpec { place: PLACE.into(), labels, keep: Some(3) }
}

/// A backup up to a commit of the third epoch.
fn stored(uid: u64, name: &str) -> StoredBackup {
    StoredBackup {
        database: DatabaseId(7),
        name: name.into(),
        position: Position { epoch: epoch(3), uid: Uid::new(uid) },
        taken_ms: 5,
        bytes: 300,
        count: 1,
    }
}

fn sees(backups: Vec<StoredBackup>) -> Vec<StoreReport> {
    vec![StoreReport { place: PLACE.into(), backups, ..StoreReport::default() }]
}

impl World {
    fn with_store() -> Self {
        let mut world = Self::new();
        let now = world.now();
        world.center().set_store(now, Some("a"), &spec()).unwrap();
        world
    }

    /// What a node is told that sees these stores.
    fn looks(&mut self, node: usize, stores: Vec<StoreReport>, outcomes: Vec<Outcome>) -> Vec<Order> {
        self.works(node, stores, outcomes, Vec::new())
    }

    /// What a node is told that sees these stores, and works on these jobs.
    fn works(
        &mut self,
        node: usize,
        stores: Vec<StoreReport>,
        outcomes: Vec<Outcome>,
        clones: Vec<CloneReport>,
    ) -> Vec<Order> {
        let report = NodeReport {
            session: self.sessions[node],
            capacity_bytes: 1_000,
            free_bytes: 900,
            copies: self.copies[node].iter().cloned().collect(),
            outcomes,
            stores,
            clones,
            ..NodeReport::default()
        };
        let now = self.now();
        self.center().report(now, &report).unwrap()
    }

    fn backs_up(&mut self) -> u64 {
        let wish = CloneWish { role: CloneRole::Store, ..CloneWish::default() };
        let now = self.now();
        self.center().submit_clone(now, &wish, "an operator").unwrap()
    }

    fn run(&mut self, number: u64) -> CloneJobInfo {
        self.center().clone_info(number).unwrap()
    }

    fn store_state(&mut self) -> String {
        let now = self.now();
        self.center().stores(now)[0].state.clone()
    }
}

fn backup_of(orders: &[Order]) -> BackupOrder {
    match orders {
        [Order::Backup(order)] => order.clone(),
        other => panic!("one backup was expected: {other:?}"),
    }
}

fn restore_of(orders: &[Order]) -> RestoreOrder {
    match orders {
        [Order::Restore(order)] => order.clone(),
        other => panic!("one restore was expected: {other:?}"),
    }
}

fn failed(job: u64, code: &str) -> Outcome {
    Outcome { job, code: code.into(), what: "it went wrong".into() }
}

#[test]
fn what_a_node_has_no_room_to_tell_of_is_neither_gone_nor_hidden() {
    let mut world = World::with_store();
    world.looks(1, sees(vec![stored(50, "first")]), vec![]);
    let other = StoredBackup { database: DatabaseId(8), ..stored(90, "other") };
    let crowded = StoreReport { left_out: 3, ..sees(vec![other]).remove(0) };
    world.looks(1, vec![crowded.clone()], vec![]);
    let now = world.now();
    let info = world.center().stores(now).remove(0);
    assert_eq!((info.state.as_str(), info.newest.unwrap().name.as_str()), ("stored", "first"));
    assert!(info.note.contains("3 more databases"), "{}", info.note);
    // A name that is none is not shown, and its database not taken for one without backups.
    let nameless = StoreReport { left_out: 0, ..sees(vec![stored(60, "a\nb")]).remove(0) };
    world.looks(1, vec![nameless], vec![]);
    let info = world.center().stores(now).remove(0);
    assert_eq!((info.state.as_str(), info.newest.unwrap().name.as_str()), ("stored", "first"));
    assert!(info.note.contains("1 more databases"), "{}", info.note);
    // Whoever is to take it from there takes what others have seen.
    world.looks(1, vec![crowded], vec![]);
    let place = world.center().stores(now)[0].instance;
    let asked = Asked { as_of: AsOf::Newest, is_as_it_is: true };
    let sources = world.center().stored_sources("b", DatabaseId(7), None, asked);
    let source = sources.iter().find(|source| source.copy.instance == place).unwrap();
    assert_eq!(
        (source.copy.store, source.copy.update),
        (planaria_replication::control::StoreAccess::Open, Uid::new(50))
    );
}

#[test]
fn a_store_is_declared_seen_and_removed_and_outlives_the_control_center() {
    let mut world = World::with_store();
    assert_eq!(world.store_state(), "not_allowed", "no node has it");
    world.looks(1, vec![StoreReport { code: "no_store".into(), ..sees(vec![]).remove(0) }], vec![]);
    assert_eq!(world.store_state(), "away");
    world.looks(1, sees(vec![]), vec![]);
    assert_eq!(world.store_state(), "empty");
    world.looks(1, sees(vec![stored(50, "first")]), vec![]);
    assert_eq!(world.store_state(), "stored");
    // Another node has not looked since, and has another database's backups before its eyes.
    world.looks(2, sees(vec![]), vec![]);
    let other = StoredBackup { database: DatabaseId(8), ..stored(90, "other") };
    world.looks(2, sees(vec![other]), vec![]);
    assert_eq!(world.store_state(), "stored");
    world.restart();
    let now = world.now();
    let info = world.center().stores(now).remove(0);
    assert_eq!((info.newest.unwrap().name.as_str(), &info.spec), ("first", &spec()));
    let copies = world.center().instances(now);
    let copy = copies.iter().find(|copy| copy.node == PLACE).unwrap();
    assert_eq!((copy.role, copy.update, copy.bytes), (InstanceRole::Backup, Uid::new(50), 300));
    assert_eq!(world.center().databases(now)[0].stores, 1);
    // What is gone is gone once the one says so that told of it.
    world.looks(1, sees(vec![]), vec![]);
    assert_eq!(world.store_state(), "empty");
    let refused = |spec: &StoreSpec, world: &mut World| {
        let now = world.now();
        world.center().set_store(now, Some("a"), spec).unwrap_err().code().to_owned()
    };
    for place in ["", "backups", "a\nb"] {
        assert_eq!(refused(&StoreSpec { place: place.into(), ..spec() }, &mut world), "invalid", "{place:?}");
    }
    assert_eq!(refused(&StoreSpec { keep: Some(0), ..spec() }, &mut world), "invalid");
    let now = world.now();
    world.center().remove_store(now, Some("a"), PLACE).unwrap();
    assert_eq!(world.center().remove_store(now, None, PLACE).unwrap_err().code(), "unknown_store");
    let kinds = world.kinds();
    for kind in ["store_set", "backup_seen", "store_removed"] {
        assert!(kinds.contains(&kind.to_owned()), "{kind}: {kinds:?}");
    }
}

#[test]
fn a_standby_makes_a_backup_and_the_primary_last_of_those_that_may_speak_to_the_store() {
    let mut world = World::with_store();
    world.looks(0, sees(vec![]), vec![]);
    let run = world.backs_up();
    let order = backup_of(&world.looks(0, sees(vec![]), vec![]));
    assert_eq!(
        (order.job, order.instance, order.place.as_str(), order.keep),
        (run, InstanceId(1), PLACE, Some(3))
    );
    let reasons = world.run(run).reasons.join("; ");
    assert!(reasons.contains("b: the node that would speak to the store was not started"), "{reasons}");
    // It is told again until it is over, by a control center that was started anew, too.
    world.restart();
    assert_eq!(backup_of(&world.looks(0, sees(vec![]), vec![])).job, run);
    assert_eq!(world.looks(0, sees(vec![stored(100, "x")]), vec![done(run)]), []);
    assert_eq!(world.run(run).state, "complete");

    // Both standbys may, and one is in the place of the store.
    for node in [0, 1, 2] {
        world.looks(node, sees(vec![]), vec![]);
    }
    let run = world.backs_up();
    assert_eq!(backup_of(&world.looks(1, sees(vec![]), vec![])).job, run);
    let now = world.now();
    let wish = CloneWish { role: CloneRole::Store, ..CloneWish::default() };
    let twice = world.center().submit_clone(now, &wish, "an operator").unwrap_err();
    assert_eq!(twice.code(), "exists", "one at a time goes to a store");
    // Where it fails the next one is asked, and in the end nobody.
    for node in [1, 2, 0] {
        assert_eq!(backup_of(&world.looks(node, sees(vec![]), vec![])).job, run, "{node}");
        world.looks(node, sees(vec![]), vec![failed(run, "no_space")]);
    }
    assert_eq!((world.run(run).state.as_str(), world.run(run).code.as_str()), ("failed", "no_source"));
}

#[test]
fn a_backup_goes_on_elsewhere_when_its_node_is_lost_and_ends_with_its_store() {
    let mut world = World::with_store();
    for node in [1, 2] {
        world.looks(node, sees(vec![]), vec![]);
    }
    let run = world.backs_up();
    backup_of(&world.looks(1, sees(vec![]), vec![]));
    let making = CloneReport { job: run, done_bytes: 7, total_bytes: Some(9) };
    world.works(1, sees(vec![]), vec![], vec![making]);
    assert_eq!((world.run(run).done_bytes, world.run(run).total_bytes), (7, Some(9)));
    // The node is heard no more; the others are.
    for _ in 0..12 {
        world.now_ms += 1_000;
        world.report(0, vec![]);
        world.looks(2, sees(vec![]), vec![]);
    }
    assert_eq!(backup_of(&world.looks(2, sees(vec![]), vec![])).instance, InstanceId(3));
    let kinds = world.kinds();
    assert!(kinds.contains(&"clone_again".to_owned()), "{kinds:?}");
    // The first one is back with what is not its any more.
    assert_eq!(world.works(1, sees(vec![]), vec![], vec![making]), [Order::CancelClone { job: run }]);
    let now = world.now();
    world.center().remove_store(now, Some("a"), PLACE).unwrap();
    assert_eq!((world.run(run).state.as_str(), world.run(run).code.as_str()), ("cancelled", "unknown_store"));
    assert_eq!(world.works(2, sees(vec![]), vec![], vec![making]), [Order::CancelClone { job: run }]);
}

#[test]
fn what_is_complete_is_not_given_up_where_its_node_says_so_twice() {
    let mut world = World::with_store();
    world.looks(1, sees(vec![]), vec![]);
    let run = world.backs_up();
    backup_of(&world.looks(1, sees(vec![]), vec![]));
    let making = CloneReport { job: run, done_bytes: 9, total_bytes: Some(9) };
    let done = Outcome { job: run, code: String::new(), what: "done".into() };
    // The answer to the first one is lost on its way.
    for _ in 0..2 {
        assert_eq!(world.works(1, sees(vec![]), vec![done.clone()], vec![making]), []);
    }
    assert_eq!(world.run(run).state, "complete");
}

#[test]
fn a_schedule_asks_for_backups_and_a_rule_does() {
    let mut world = World::with_store();
    world.looks(1, sees(vec![]), vec![]);
    let now = world.now();
    let wish = CloneWish { role: CloneRole::Store, ..CloneWish::default() };
    world.center().set_schedule(now, "often", &When::Every(60_000), &wish).unwrap();
    let first = backup_of(&world.looks(1, sees(vec![]), vec![]));
    assert_eq!(world.run(first.job).origin, "the schedule often");
    assert_eq!(world.center().schedules()[0].wish.to, PLACE);
    world.looks(1, sees(vec![stored(90, "first")]), vec![done(first.job)]);
    world.restart();
    assert_eq!(world.center().schedules()[0].wish.role, CloneRole::Store);
    for _ in 0..61 {
        world.now_ms += 1_000;
        world.looks(1, sees(vec![]), vec![]);
    }
    let second = backup_of(&world.looks(1, sees(vec![]), vec![]));
    assert!(second.job > first.job);
    let now = world.now();
    let timed = CloneWish { ttl_s: Some(60), ..wish.clone() };
    let shaped =
        CloneWish { shape: Shape { leave_out: vec!["x".into()], ..Shape::default() }, ..wish.clone() };
    let elsewhere = CloneWish { to: "/srv/other".into(), ..wish };
    for (wish, code) in [(timed, "invalid"), (shaped, "invalid"), (elsewhere, "unknown_store")] {
        assert_eq!(world.center().submit_clone(now, &wish, "an operator").unwrap_err().code(), code);
    }
}

#[test]
fn a_clone_is_taken_from_a_store_as_its_receiver_sees_it_and_from_a_copy_if_that_fails() {
    let mut world = World::with_store();
    world.looks(2, sees(vec![stored(100, "first")]), vec![]);
    let asks = |world: &mut World, to: &str, name: &str, ttl_s| {
        let wish = CloneWish { to: to.into(), name: Some(name.into()), ttl_s, ..CloneWish::default() };
        let now = world.now();
        world.center().submit_clone(now, &wish, "an operator").unwrap()
    };
    let now = world.now();
    let source = world.center().choose_source(now, "c", None, 600_000, AsOf::Newest).unwrap();
    let chosen = source.candidates.iter().find(|candidate| candidate.is_chosen).unwrap();
    assert_eq!((chosen.node.as_str(), chosen.code.as_str()), (PLACE, "nearest_backup"));
    let clone = asks(&mut world, "c", "copy", None);
    let order = restore_of(&world.looks(2, sees(vec![stored(100, "first")]), vec![]));
    assert_eq!((order.job, order.place.as_str(), order.name.as_str()), (clone, PLACE, "copy"));
    assert_eq!(world.run(clone).source, PLACE);
    // It cannot be reached from there after all: the standby gives it.
    let orders = world.looks(2, sees(vec![stored(100, "first")]), vec![failed(clone, "store_unreachable")]);
    assert!(matches!(&orders[..], [Order::Clone(order)] if order.source == InstanceId(2)), "{orders:?}");
    let reasons = world.run(clone).reasons.join("; ");
    assert!(reasons.contains(&format!("{PLACE}: it was tried for this clone and failed")), "{reasons}");
    // A node that may not speak to it is given a copy's clone, and so is one that is to go after a time.
    let at_a = asks(&mut world, "a", "copy", None);
    assert_eq!(world.run(at_a).source, "b");
    assert!(world.run(at_a).reasons.iter().any(|line| line.contains("not started with --backup-to")));
    let timed = asks(&mut world, "c", "timed", Some(60));
    assert!(
        world.run(timed).reasons.iter().any(|line| line.contains("as they are")),
        "{:?}",
        world.run(timed)
    );
}

#[test]
fn a_backup_of_another_history_is_no_source() {
    let mut world = World::with_store();
    let now = world.now();
    let code = |world: &mut World, backup: StoredBackup| {
        world.looks(2, sees(vec![backup]), vec![]);
        let source = world.center().choose_source(now, "c", None, 600_000, AsOf::Newest).unwrap();
        source.candidates.into_iter().find(|candidate| candidate.node == PLACE).unwrap().code
    };
    assert_eq!(code(&mut world, stored(100, "own")), "nearest_backup");
    let other = Position { epoch: epoch(2), uid: Uid::new(100) };
    assert_eq!(code(&mut world, StoredBackup { position: other, ..stored(0, "other") }), "off_history");
    // The primary leads under a newer epoch, which began at 90: what the one before had beyond that is not of this history.
    let next = HistoryEntry { inherited: Uid::new(90), ..entry(4) };
    world.copy(0).history = History::from_entries(vec![entry(3), next]).unwrap();
    world.copy(0).epoch = epoch(4);
    world.report(0, vec![]);
    assert_eq!(code(&mut world, stored(90, "before")), "nearest_backup");
    assert_eq!(code(&mut world, stored(91, "beyond")), "off_history");
}

/// A backup of the second copy up to a commit of the third epoch, from which the log leads on to another one.
fn kept(uid: u64, reach: u64) -> KeptBackup {
    KeptBackup {
        database: DatabaseId(7),
        name: format!("up to {uid}"),
        instance: InstanceId(2),
        position: Position { epoch: epoch(3), uid: Uid::new(uid) },
        reach: Uid::new(reach),
        taken_ms: 5,
        bytes: uid,
    }
}

/// A store with such backups, the newest first.
fn keeps(kept: Vec<KeptBackup>) -> Vec<StoreReport> {
    let newest = kept.first().map(|newest| StoredBackup {
        database: newest.database,
        name: newest.name.clone(),
        position: newest.position,
        taken_ms: newest.taken_ms,
        bytes: newest.bytes,
        count: kept.len() as u64,
    });
    vec![StoreReport { kept, ..sees(newest.into_iter().collect()).remove(0) }]
}

#[test]
fn an_earlier_state_is_taken_from_the_backup_from_which_the_log_leads_there() {
    let mut world = World::with_store();
    // The log has a gap behind 40.
    let all = || keeps(vec![kept(90, 95), kept(50, 60), kept(30, 40), kept(10, 40)]);
    world.looks(2, all(), vec![]);
    let now = world.now();
    let code = |world: &mut World, as_of| {
        let source = world.center().choose_source(now, "c", None, 0, as_of).unwrap();
        source.candidates.into_iter().find(|candidate| candidate.node == PLACE).unwrap().code
    };
    let uid = |uid| AsOf::Position(Uid::new(uid));
    for (as_of, expected) in [
        (AsOf::Newest, "nearest_backup"),
        (uid(35), "nearest_backup"),
        (uid(10), "nearest_backup"),
        (uid(9), "store_outside_kept"),
        (uid(45), "store_outside_kept"),
        (uid(96), "store_outside_kept"),
        (AsOf::Time(7), "store_outside_kept"),
    ] {
        assert_eq!(code(&mut world, as_of), expected, "{as_of:?}");
    }
    let asks = |world: &mut World, name: &str, shape| {
        let wish = CloneWish { to: "c".into(), name: Some(name.into()), shape, ..CloneWish::default() };
        world.center().submit_clone(now, &wish, "an operator").unwrap()
    };
    let earlier = Shape { as_of: uid(35), ..Shape::default() };
    let clone = asks(&mut world, "earlier", earlier.clone());
    let order = restore_of(&world.looks(2, all(), vec![]));
    assert_eq!((order.job, order.backup.as_str(), order.as_of), (clone, "up to 30", uid(35)));
    assert!(world.run(clone).reason.contains("its backup up to 30"), "{:?}", world.run(clone));
    // A newer one changes nothing for a clone that has begun.
    let newer = || keeps(vec![kept(90, 95), kept(33, 40), kept(30, 40)]);
    assert_eq!(restore_of(&world.looks(2, newer(), vec![])).backup, "up to 30");
    world.restart();
    assert_eq!(restore_of(&world.looks(2, newer(), vec![])).backup, "up to 33", "as things are by then");
    world.looks(2, all(), vec![done(clone)]);
    // What a store gives is whole.
    let shape = Shape { leave_out: vec!["audit".into()], ..earlier };
    let part = asks(&mut world, "part", shape);
    assert!(world.run(part).reasons.iter().any(|line| line.contains("as they are")), "{:?}", world.run(part));
}

#[test]
fn where_the_newest_backup_is_of_another_history_the_one_before_is_taken() {
    let mut world = World::with_store();
    let other = Position { epoch: epoch(2), uid: Uid::new(99) };
    let stray = KeptBackup { position: other, instance: InstanceId(9), name: "stray".into(), ..kept(99, 99) };
    let all = || keeps(vec![stray.clone(), kept(80, 80), kept(70, 80)]);
    world.looks(2, all(), vec![]);
    let now = world.now();
    let wish = CloneWish { to: "c".into(), name: Some("copy".into()), ..CloneWish::default() };
    let clone = world.center().submit_clone(now, &wish, "an operator").unwrap();
    let order = restore_of(&world.looks(2, all(), vec![]));
    assert_eq!((order.job, order.backup.as_str(), order.as_of), (clone, "up to 80", AsOf::Newest));
    assert_eq!(world.run(clone).source, PLACE);
    world.looks(2, all(), vec![done(clone)]);
    world.looks(2, keeps(vec![stray.clone()]), vec![]);
    let source = world.center().choose_source(now, "c", None, 0, AsOf::Newest).unwrap();
    let stored = source.candidates.iter().find(|candidate| candidate.node == PLACE).unwrap();
    assert_eq!(stored.code, "off_history");
}
