use planaria_net::wire::jobs::{CloneJobInfo, CloneOrder, CloneReport, CloneWish, When};
use planaria_net::wire::message::{CloneRole, Shape};
use planaria_replication::control::{Ceiling, Priority};

use super::*;
use crate::catalog::{CloneRecord, CloneState};

/// A fourth node, which hosts nothing and waits to become a standby.
const SPARE: u64 = 77;

impl World {
    fn asks(&mut self, to: &str, name: &str) -> u64 {
        let wish = CloneWish { to: to.into(), name: Some(name.into()), ..CloneWish::default() };
        let now = self.now();
        self.center().submit_clone(now, &wish, "an operator").unwrap()
    }

    fn limit(&mut self, gate: &str, clones_max: u32, bytes_per_s_max: u64) {
        let now = self.now();
        self.center().set_limit(now, gate, Ceiling { clones_max, bytes_per_s_max }).unwrap();
    }

    fn shown(&mut self, clone: u64) -> CloneJobInfo {
        self.center().clone_info(clone).unwrap()
    }

    fn state(&mut self, clone: u64) -> (String, String) {
        let shown = self.shown(clone);
        (shown.state, shown.code)
    }

    /// What a node is told that makes these clones.
    fn makes(&mut self, node: usize, clones: &[u64]) -> Vec<Order> {
        let report = NodeReport {
            session: self.sessions[node],
            capacity_bytes: 1_000,
            free_bytes: 900,
            copies: self.copies[node].iter().cloned().collect(),
            clones: clones.iter().map(|job| making(*job)).collect(),
            ..NodeReport::default()
        };
        let now = self.now();
        self.center().report(now, &report).unwrap()
    }

    fn spare_joins(&mut self) {
        let now = self.now();
        let center = self.center();
        let labels = vec![("datacenter".to_owned(), "a".to_owned())];
        let join = Join { token: center.token(), name: "spare".into(), port: 9, labels, ..Join::default() };
        center.join(now, HOST, &join, SPARE).unwrap();
    }

    fn spare_reports(&mut self, outcomes: Vec<Outcome>) -> Vec<Order> {
        let report = NodeReport {
            session: SPARE,
            free_bytes: 900,
            spare: Some(InstanceRole::Standby),
            outcomes,
            ..NodeReport::default()
        };
        let now = self.now();
        self.center().report(now, &report).unwrap()
    }
}

fn making(job: u64) -> CloneReport {
    CloneReport { job, done_bytes: 100, total_bytes: Some(400) }
}

/// The one clone that a node is told to make.
fn ordered(orders: &[Order]) -> CloneOrder {
    match orders {
        [Order::Clone(order)] => order.clone(),
        other => panic!("one clone was expected: {other:?}"),
    }
}

fn failed(job: u64, code: &str) -> Outcome {
    Outcome { job, code: code.into(), what: "it went wrong".into() }
}

#[test]
fn a_clone_is_ordered_until_it_is_whole_and_outlives_the_control_center() {
    let mut world = World::new();
    let clone = world.asks("b", "copy");
    let order = ordered(&world.report(1, vec![]));
    assert_eq!((order.job, order.name.as_str(), order.source), (clone, "copy", InstanceId(3)));
    assert_eq!((order.from, order.role), (address(2), CloneRole::Detached));
    assert_eq!(world.state(clone).0, "running");
    assert!(world.shown(clone).reasons.iter().any(|line| line.starts_with("c: no backup can be a source")));
    world.makes(1, &[clone]);
    assert_eq!((world.shown(clone).done_bytes, world.shown(clone).total_bytes), (100, Some(400)));
    world.restart();
    assert_eq!(ordered(&world.makes(1, &[clone])), order, "it is ordered again");
    assert_eq!(world.report(2, vec![]), [], "and to nobody else");
    assert_eq!(world.report(1, vec![done(clone)]), []);
    assert_eq!(world.state(clone), ("complete".into(), String::new()));
    world.restart();
    assert_eq!(world.state(clone).0, "complete");
    let kinds = world.kinds();
    assert!(
        kinds.ends_with(&["clone_queued", "clone_begun", "clone_complete"].map(String::from)),
        "{kinds:?}"
    );
}

#[test]
fn where_a_source_fails_the_rule_starts_over_until_none_is_left() {
    let mut world = World::new();
    let clone = world.asks("a", "copy");
    let first = ordered(&world.report(0, vec![])).source;
    let second = ordered(&world.report(0, vec![failed(clone, "connection_lost")])).source;
    assert_eq!([first, second].map(|source| source.0), [2, 3]);
    assert_eq!(world.report(0, vec![failed(clone, "connection_lost")]), []);
    let shown = world.shown(clone);
    assert_eq!((shown.state.as_str(), shown.code.as_str()), ("failed", "no_source"));
    assert!(shown.reason.contains("its source c failed"), "{shown:?}");
    assert!(shown.reasons.iter().any(|line| line.contains("was tried for this clone")), "{shown:?}");
    // What is wrong with its own node another source would not mend.
    for code in ["exists", "too_many"] {
        let clone = world.asks("a", "copy");
        world.report(0, vec![]);
        assert_eq!(world.report(0, vec![failed(clone, code)]), []);
        assert_eq!(world.state(clone), ("failed".into(), code.into()));
    }
    // One that is still worked on in the same place is over before long.
    let clone = world.asks("a", "copy");
    let first = ordered(&world.report(0, vec![])).source;
    let again = ordered(&world.report(0, vec![failed(clone, "busy")])).source;
    assert_eq!(first, again);
}

#[test]
fn what_a_copy_refuses_of_the_rows_the_primary_is_asked_and_nobody_else() {
    let mut world = World::new();
    let clone = world.asks("b", "copy");
    assert_eq!(ordered(&world.report(1, vec![])).source, InstanceId(3));
    // It may be behind; the primary knows each table.
    assert_eq!(ordered(&world.report(1, vec![failed(clone, "invalid_shape")])).source, InstanceId(1));
    assert_eq!(world.report(1, vec![failed(clone, "invalid_shape")]), []);
    assert_eq!(world.state(clone), ("failed".into(), "invalid_shape".into()));
}

#[test]
fn a_copy_that_cannot_be_asked_for_keeps_no_schedule_from_its_time() {
    let mut world = World::new();
    world.passes(10_000);
    world.spare_joins();
    world.spare_reports(vec![]);
    let wish = CloneWish { to: "c".into(), ..CloneWish::default() };
    let now = world.now();
    world.center().set_schedule(now, "nightly", &When::Every(5_000), &wish).unwrap();
    let due = |world: &mut World| world.center().schedules()[0].due_ms;
    let before = due(&mut world);
    // As many clones are under way as there may be.
    let clone = world.asks("b", "copy");
    let record = CloneRecord {
        state: CloneState::Running,
        source: None,
        ..world.center().contents.clones[&clone].clone()
    };
    for number in 2_000..3_024 {
        world.center().contents.clones.insert(number, CloneRecord { number, ..record.clone() });
    }
    world.center().set_want(now, "a", Some(3), None).unwrap();
    let note = world.center().wants(now)[0].note.clone();
    assert!(note.contains("too_many"), "{note}");
    for _ in 0..6 {
        world.passes(1_000);
        world.spare_reports(vec![]);
    }
    assert!(due(&mut world) > before, "the schedule was not looked at");
}

#[test]
fn limits_make_clones_wait_and_what_is_given_up_makes_room() {
    let mut world = World::new();
    world.limit("node-in", 1, 1 << 30);
    let (first, second) = (world.asks("b", "one"), world.asks("b", "two"));
    assert_eq!(ordered(&world.report(1, vec![])).job, first);
    assert_eq!(world.state(second), ("queued".into(), "slots".into()));
    let now = world.now();
    world.center().cancel_clone(now, first).unwrap();
    let orders = world.makes(1, &[first]);
    assert!(orders.contains(&Order::CancelClone { job: first }), "{orders:?}");
    assert_eq!(ordered(&world.report(1, vec![])).job, second);
    assert_eq!(world.state(first).0, "cancelled");
    // A lower limit holds for the one that runs.
    world.limit("node-in:b", 1, 1 << 20);
    world.limit("node-out", 9, 1 << 30);
    assert_eq!(ordered(&world.report(1, vec![])).bytes_per_s, 1 << 20);
    let now = world.now();
    world.center().set_clone_rate(now, second, Some(1 << 19)).unwrap();
    assert_eq!(ordered(&world.report(1, vec![])).bytes_per_s, 1 << 19);
    // An order of the past is no clone of now.
    world.report(1, vec![done(first)]);
    assert_eq!(world.state(first).0, "cancelled");
    let infos = world.center().limit_infos();
    let info = infos.iter().find(|limit| limit.gate == "node-in:b").unwrap();
    assert_eq!((info.clones, info.bytes_per_s, info.is_set), (1, 1 << 19, true));
}

#[test]
fn a_clone_whose_node_is_lost_waits_and_goes_on_when_it_is_heard_again() {
    let mut world = World::new();
    let clone = world.asks("c", "copy");
    world.makes(2, &[clone]);
    let away = world.copies[2].take();
    world.passes(11_000);
    assert_eq!(world.state(clone), ("queued".into(), "destination_away".into()));
    world.copies[2] = away;
    // It did not notice, and has made it meanwhile.
    ordered(&world.makes(2, &[clone]));
    assert_eq!(world.state(clone).0, "running");
    world.report(2, vec![done(clone)]);
    assert_eq!(world.state(clone).0, "complete");
}

#[test]
fn room_on_the_disk_is_promised_once() {
    let mut world = World::new();
    for node in 0..3 {
        world.copy(node).bytes = 500;
    }
    world.passes(1_000);
    let (first, second) = (world.asks("b", "one"), world.asks("b", "two"));
    assert_eq!([world.state(first).0, world.state(second).1], ["running", "room"].map(String::from));
    world.report(1, vec![done(first)]);
    assert_eq!(world.state(second).0, "running");
}

#[test]
fn what_cannot_be_made_is_refused() {
    let mut world = World::new();
    let now = world.now();
    let mut refuse = |wish: CloneWish| world.center().submit_clone(now, &wish, "x").unwrap_err().code();
    let wish = CloneWish { to: "b".into(), ..CloneWish::default() };
    assert_eq!(refuse(CloneWish { to: "z".into(), ..wish.clone() }), "unknown_node");
    assert_eq!(refuse(CloneWish { database: Some("z".into()), ..wish.clone() }), "unknown_database");
    assert_eq!(refuse(CloneWish { name: Some("../z".into()), ..wish.clone() }), "invalid");
    assert_eq!(refuse(CloneWish { bytes_per_s: Some(1), ..wish.clone() }), "invalid");
    let less = Shape { leave_out: vec!["audit".into()], ..Shape::default() };
    assert_eq!(refuse(CloneWish { role: CloneRole::Standby, shape: less, ..wish.clone() }), "not_spare");
    let lines = Shape { filters: vec![("birds".into(), "a\n= 1".into())], ..Shape::default() };
    assert_eq!(refuse(CloneWish { shape: lines, ..wish.clone() }), "invalid");
    assert_eq!(refuse(CloneWish { role: CloneRole::Standby, ..wish }), "not_spare");
    assert_eq!(world.center().cancel_clone(now, 9).unwrap_err().code(), "not_open");
    assert_eq!(world.center().clone_info(9).unwrap_err().code(), "unknown_clone");
    let mut limit = |gate: &str, bytes_per_s_max| {
        let ceiling = Ceiling { clones_max: 1, bytes_per_s_max };
        world.center().set_limit(now, gate, ceiling).unwrap_err().code()
    };
    assert_eq!([limit("nodes", 1 << 30), limit("node-in", 5)], ["invalid"; 2]);
    world.asks("b", "copy");
    let wish = CloneWish { to: "b".into(), name: Some("copy".into()), ..CloneWish::default() };
    assert_eq!(world.center().submit_clone(now, &wish, "x").unwrap_err().code(), "exists");
}

#[test]
fn a_standby_that_is_lost_for_long_is_made_anew_on_a_node_that_waits_for_one() {
    let mut world = World::new();
    world.passes(10_000);
    let now = world.now();
    world.center().set_want(now, "a", Some(2), None).unwrap();
    world.spare_joins();
    assert_eq!(world.spare_reports(vec![]), [], "both are there");
    world.copies[2] = None;
    let passes = |world: &mut World, seconds: u64| {
        let mut orders = Vec::new();
        for _ in 0..seconds {
            world.passes(1_000);
            orders = world.spare_reports(vec![]);
        }
        orders
    };
    assert_eq!(passes(&mut world, 590), [], "it may come back");
    let order = ordered(&passes(&mut world, 20));
    assert_eq!((order.role, order.source), (CloneRole::Standby, InstanceId(2)));
    let shown = world.shown(order.job);
    assert_eq!((shown.priority, shown.to.as_str()), (Priority::Recovery, "spare"));
    assert!(shown.origin.contains("as c is lost"), "{shown:?}");
    assert_eq!(world.spare_reports(vec![done(order.job)]), []);
    // It has its copy, and is about to say so.
    assert_eq!(passes(&mut world, 20), []);
    let now = world.now();
    let want = world.center().wants(now).remove(0);
    assert_eq!((want.standbys, want.standbys_there), (2, 2));
    // One more than there are nodes for.
    world.center().set_want(now, "a", Some(3), None).unwrap();
    let note = world.center().wants(now).remove(0).note;
    assert!(note.contains("no node waits"), "{note}");
    assert_eq!(world.kinds().last().unwrap(), "copy_wanted");
}

#[test]
fn a_schedule_asks_again_and_again_and_not_while_the_one_before_is_under_way() {
    let mut world = World::new();
    let wish = CloneWish { to: "b".into(), ..CloneWish::default() };
    let now = world.now();
    world.center().set_schedule(now, "hourly", &When::Every(3_600_000), &wish).unwrap();
    let first = ordered(&world.report(1, vec![]));
    assert_eq!((first.job, first.name.as_str()), (1, "hourly-1"), "at once");
    assert_eq!(world.shown(1).origin, "the schedule hourly");
    let waits = |world: &mut World, hours: u64| {
        world.now_ms += hours * 3_600_000;
        (0..3).for_each(|node| drop(world.report(node, vec![])));
        world.center().clone_infos(100).unwrap().len()
    };
    assert_eq!(waits(&mut world, 2), 1, "the first is under way");
    world.report(1, vec![done(1)]);
    assert_eq!(waits(&mut world, 1), 2);
    world.report(1, vec![done(2)]);
    // What was missed is made up for once.
    world.now_ms += 10 * 3_600_000;
    world.restart();
    assert_eq!(waits(&mut world, 0), 3);
    world.report(1, vec![done(3)]);
    assert_eq!(waits(&mut world, 0), 3);
    let now = world.now();
    let next = world.center().schedules().remove(0);
    assert!(next.due_ms > now.wall_ms && next.due_ms <= now.wall_ms + 3_600_000, "{next:?}");
    world.center().remove_schedule(now, "hourly").unwrap();
    assert_eq!(world.center().remove_schedule(now, "hourly").unwrap_err().code(), "unknown_schedule");
    assert_eq!(waits(&mut world, 5), 3);
    let mut refuse = |name: &str, every, to: &str| {
        let wish = CloneWish { to: to.into(), ..CloneWish::default() };
        world.center().set_schedule(now, name, &When::Every(every), &wish).unwrap_err().code()
    };
    assert_eq!(refuse("a/b", 3_600_000, "b"), "invalid");
    assert_eq!(refuse("often", 10, "b"), "invalid");
    assert_eq!(refuse("lost", 3_600_000, "z"), "unknown_node");
}
