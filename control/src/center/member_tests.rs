use planaria_net::wire::jobs::{CloneWish, When};
use planaria_net::wire::topology::{NodeSpec, Topology};

use super::*;
use crate::catalog::Catalog;

impl World {
    fn removes(&mut self, name: &str, force: bool) -> Result<(), &'static str> {
        let now = self.now();
        let removed = self.center().remove_node(now, name, "its disk is gone", force);
        removed.map_err(|error| error.code())
    }

    /// A node is not heard any more, for long.
    fn loses(&mut self, node: usize) {
        self.copies[node] = None;
        self.passes(11_000);
    }

    fn node_names(&mut self) -> Vec<String> {
        let now = self.now();
        self.center().nodes(now).into_iter().map(|node| node.name).collect()
    }

    fn copy_ids(&mut self) -> Vec<u128> {
        let now = self.now();
        self.center().instances(now).into_iter().map(|copy| copy.instance.0).collect()
    }
}

#[test]
fn a_node_that_is_gone_leaves_with_its_copies_for_good() {
    let mut world = World::new();
    let declared =
        NodeSpec { name: "c".into(), labels: vec![("rack".into(), "1".into())], ..NodeSpec::default() };
    let now = world.now();
    let topology = Topology { nodes: vec![declared], ..world.center().topology() };
    world.center().apply_topology(now, &topology, false).unwrap();
    assert_eq!(world.removes("z", true), Err("unknown_node"));
    for force in [false, true] {
        assert_eq!(world.removes("c", force), Err("node_heard"));
    }
    world.loses(2);
    let session = world.sessions[2];
    assert_eq!(world.removes("c", false), Ok(()));
    assert_eq!((world.node_names(), world.copy_ids()), (vec!["a".into(), "b".into()], vec![1, 2]));
    assert!(world.center().topology().nodes.is_empty());
    let event = world.events().remove(0);
    assert_eq!((event.kind.as_str(), event.node.as_str()), ("node_removed", "c"));
    assert!(
        event.what.contains("its disk is gone") && event.reasons[1].contains("goes with it"),
        "{event:?}"
    );
    assert_eq!(world.removes("c", false), Err("unknown_node"));

    // What it says under its old session is not taken; with the token it joins again, and is another one then.
    let now = world.now();
    let report = NodeReport { session, ..NodeReport::default() };
    assert_eq!(world.center().report(now, &report).unwrap_err().code(), "removed");
    drop(world.center.take());
    let removed = StoreCatalog::open(world.path()).unwrap().load().unwrap().removed;
    assert_eq!(removed["c"].reason, "its disk is gone");
    world.restart();
    let event = world.events().into_iter().find(|event| event.kind == "node_joined").unwrap();
    assert_eq!(event.node, "c");
    assert!(event.reasons[0].contains("had left at 2023-"), "{event:?}");
    assert!(world.center().contents.removed.is_empty());
}

#[test]
fn nobody_is_removed_before_there_was_time_to_be_heard() {
    let mut world = World::new();
    world.loses(2);
    world.center = None;
    let catalog = StoreCatalog::open(world.path()).unwrap();
    let center = Center::new(Box::new(catalog), Settings::default(), world.now()).unwrap();
    world.center = Some(center);
    assert_eq!(world.removes("c", true), Err("too_early"));
    world.now_ms += 11_000;
    assert_eq!(world.removes("c", true), Ok(()));
}

#[test]
fn who_led_last_leaves_by_force_alone_and_its_epoch_stays_known() {
    let mut world = World::new();
    world.lose_primary();
    world.passes(11_000);
    assert_eq!(world.removes("a", false), Err("leads"));
    assert_eq!(world.removes("a", true), Ok(()));
    assert_eq!(world.copy_ids(), [2, 3]);
    let led = world.center().contents.leads[&DatabaseId(7)].clone();
    assert_eq!((led.node.as_str(), led.epoch), ("a", epoch(3)));
    // It is replaced all the same where that is the control center's to decide, and is no matter then.
    world.set_automatic();
    let asked = world.passes(2_000);
    let successor = asked.iter().position(|orders| !orders.is_empty()).expect("one is asked to lead");
    world.copy(successor).state = CopyState::Primary;
    world.copy(successor).epoch = epoch(4);
    world.report(successor, vec![done(job(&asked[successor]))]);
    world.passes(1_000);
    let now = world.now();
    assert_eq!(world.center().databases(now)[0].primary, NAMES[successor]);
}

#[test]
fn who_has_work_or_is_named_leaves_by_force_alone() {
    let mut world = World::new();
    let now = world.now();
    let wish = CloneWish { to: "c".into(), name: Some("copy".into()), ..CloneWish::default() };
    let clone = world.center().submit_clone(now, &wish, "an operator").unwrap();
    world.loses(2);
    assert_eq!(world.removes("c", false), Err("busy"));
    let now = world.now();
    world.center().cancel_clone(now, clone).unwrap();
    let wish = CloneWish { to: "c".into(), ..CloneWish::default() };
    world.center().set_schedule(now, "daily", &When::Calendar("0 3 * * *".into()), &wish).unwrap();
    assert_eq!(world.removes("c", false), Err("named"));
    let wish = CloneWish { name: Some("copy".into()), ..wish };
    let clone = world.center().submit_clone(now, &wish, "an operator").unwrap();
    assert_eq!(world.removes("c", true), Ok(()));
    let ended = world.center().clone_info(clone).unwrap();
    assert_eq!((ended.state.as_str(), ended.code.as_str()), ("cancelled", "node_removed"));
    assert_eq!(world.center().schedules().len(), 1);
}

#[test]
fn a_copy_that_another_one_has_replaced_goes_by_itself() {
    let mut world = World::new();
    world.copy(2).instance = InstanceId(9);
    world.passes(1_000);
    assert_eq!(world.copy_ids(), [1, 2, 9]);
    let event = world.events().remove(0);
    assert_eq!((event.kind.as_str(), event.node.as_str()), ("copy_replaced", "c"));
    // One that led last stays until another one does.
    world.copy(0).instance = InstanceId(10);
    world.copy(0).state = CopyState::Offline;
    world.passes(61_000);
    assert_eq!(world.copy_ids(), [1, 10, 2, 9]);
    world.copy(1).state = CopyState::Primary;
    world.copy(1).epoch = epoch(4);
    world.passes(61_000);
    assert_eq!(world.copy_ids(), [10, 2, 9]);
    // A node that has none at present may bring it back.
    let report = NodeReport { session: world.sessions[2], ..NodeReport::default() };
    let now = world.now();
    world.center().report(now, &report).unwrap();
    world.restart();
    assert_eq!(world.copy_ids(), [10, 2, 9]);
}

#[test]
fn a_token_that_was_renewed_lets_those_in_that_are_known_and_nobody_else() {
    let mut world = World::new();
    let (now, old) = (world.now(), world.center().token());
    let new = JoinToken(old.0 ^ 1);
    world.center().renew_token(now, new).unwrap();
    assert_eq!(world.center().token(), new);
    assert!(world.events()[0].what.contains("renewed"));
    // Who reports goes on.
    world.passes(1_000);
    let tries = |world: &mut World, name: &str, node: usize, token: JoinToken| {
        let now = world.now();
        let join = Join { token, name: name.into(), port: address(node).port(), ..Join::default() };
        world.center().join(now, HOST, &join, 99).map_err(|error| error.code())
    };
    let older = |world: &mut World| {
        let now = world.now();
        let nodes = world.center().nodes(now).into_iter().filter(|node| node.has_older_token);
        nodes.map(|node| node.name).collect::<Vec<_>>()
    };
    assert_eq!(older(&mut world), ["a", "b", "c"]);
    assert_eq!(tries(&mut world, "d", 3, old), Err("token"));
    // It is durable, and those that are known come back with what they have, where they were.
    world.center = None;
    let open = |world: &World| {
        let catalog = StoreCatalog::open(world.path()).unwrap();
        Center::new(Box::new(catalog), Settings::default(), world.now()).unwrap()
    };
    world.center = Some(open(&world));
    assert_eq!(world.center().token(), new);
    assert_eq!(tries(&mut world, "a", 0, old), Ok(()));
    assert_eq!(tries(&mut world, "b", 7, old), Err("token"), "it speaks from elsewhere");
    assert_eq!(tries(&mut world, "b", 1, new), Ok(()));
    assert_eq!(older(&mut world), ["a", "c"]);
    assert_eq!(tries(&mut world, "b", 1, old), Err("token"), "it has the new one");
    // One before that is none any more for who has the next.
    let newest = JoinToken(old.0 ^ 2);
    let now = world.now();
    world.center().renew_token(now, newest).unwrap();
    for (node, token, let_in) in [(0, old, true), (0, new, false), (1, new, true), (1, old, false)] {
        let joined = tries(&mut world, NAMES[node], node, token);
        assert_eq!(joined.is_ok(), let_in, "{} with {token}", NAMES[node]);
    }
    world.now_ms += 11_000;
    assert_eq!(world.removes("c", true), Ok(()));
    assert_eq!(tries(&mut world, "c", 2, old), Err("removed"));
    assert_eq!(tries(&mut world, "c", 2, newest), Ok(()));
    assert_eq!(older(&mut world), ["a", "b"]);
}
