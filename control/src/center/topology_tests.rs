use planaria_net::wire::jobs::{CloneWish, When};
use planaria_net::wire::rules::{Rule, RuleAction, RuleEvent};
use planaria_net::wire::stores::StoreSpec;
use planaria_net::wire::topology::{
    DatabaseSpec, DatacenterSpec, LimitSpec, NodeSpec, ScheduleSpec, Topology,
};

use super::*;

impl World {
    fn apply(&mut self, topology: &Topology, dry_run: bool) -> Vec<String> {
        let now = self.now();
        let changes = self.center().apply_topology(now, topology, dry_run).unwrap();
        changes.into_iter().map(|change| change.item).collect()
    }

    fn refused(&mut self, topology: &Topology) -> (String, String) {
        let now = self.now();
        let error = self.center().apply_topology(now, topology, false).unwrap_err();
        (error.code().to_owned(), error.to_string())
    }

    fn labels_of(&mut self, node: &str) -> String {
        let now = self.now();
        let node = self.center().nodes(now).into_iter().find(|known| known.name == node);
        node.unwrap().labels
    }
}

fn everything() -> Topology {
    let wish = CloneWish { to: "b".into(), database: Some("a".into()), ..CloneWish::default() };
    Topology {
        datacenters: vec![DatacenterSpec { name: "b".into(), region: "eu".into() }],
        nodes: vec![NodeSpec {
            name: "c".into(),
            labels: vec![("datacenter".into(), "b".into()), ("rack".into(), "9".into())],
            capacity_bytes: Some(500),
        }],
        databases: vec![DatabaseSpec {
            name: "a".into(),
            mode: Mode::Automatic,
            standbys: 2,
            backups: 0,
            stores: vec![StoreSpec {
                place: "/srv/backups".into(),
                labels: vec![("datacenter".into(), "b".into())],
                keep: Some(7),
            }],
        }],
        limits: vec![LimitSpec { gate: "node-in:b".into(), clones_max: 7, bytes_per_s_max: 1 << 20 }],
        schedules: vec![ScheduleSpec {
            name: "nightly".into(),
            when: When::Calendar("30 3 * * *".into()),
            wish: wish.clone(),
        }],
        rules: vec![Rule {
            name: "behind".into(),
            database: Some("a".into()),
            event: RuleEvent::Lag { over_ms: 30_000, for_ms: 0, role: None },
            action: RuleAction::Clone(wish),
            pause_ms: 60_000,
        }],
    }
}

const ITEMS: [&str; 8] = [
    "datacenters.b",
    "nodes.c",
    "databases.a",
    "databases.a",
    "databases.a",
    "limits.node-in:b",
    "schedules.nightly",
    "rules.behind",
];

#[test]
fn what_is_declared_is_shown_in_the_same_form_and_applied_twice_changes_nothing() {
    let mut world = World::new();
    let before = world.center().topology();
    assert_eq!(world.apply(&before, false), [""; 0]);
    assert_eq!(world.apply(&everything(), true), ITEMS);
    assert_eq!(world.center().topology(), before, "a dry run changes nothing");
    assert_eq!(world.apply(&everything(), false), ITEMS);
    assert_eq!(world.center().topology(), everything());
    assert_eq!(world.apply(&everything(), false), [""; 0]);
    world.restart();
    assert_eq!(world.center().topology(), everything(), "the catalog has it");
    assert_eq!(world.apply(&everything(), false), [""; 0]);
    let event = world.events().into_iter().find(|event| event.kind == "topology_applied").unwrap();
    assert_eq!(event.reasons.len(), ITEMS.len(), "{event:?}");
    // Without a name of its own, the database is the only one.
    let mut same = everything();
    same.schedules[0].wish.database = None;
    same.rules[0].database = None;
    assert_eq!(world.apply(&same, false), [""; 0]);
    // What is not named is as if nothing had been said of it.
    assert_eq!(world.apply(&Topology::default(), false).len(), ITEMS.len());
    assert_eq!(world.center().topology(), before);
}

#[test]
fn what_is_declared_of_nodes_holds_in_place_of_what_they_say() {
    let mut world = World::new();
    assert_eq!(world.labels_of("c"), "datacenter=c");
    world.apply(&everything(), false);
    assert_eq!(world.labels_of("c"), "datacenter=b,rack=9,region=eu");
    assert_eq!(world.labels_of("b"), "datacenter=b,region=eu", "it is in that datacenter, too");
    // c may have 500 of 1,000 bytes, of which 100 are taken.
    for node in [0, 1] {
        world.copy(node).bytes = 401;
    }
    world.passes(2_000);
    let choose = |world: &mut World| {
        let now = world.now();
        let source = world.center().choose_source(now, "c", None, 600_000, AsOf::Newest).unwrap();
        source.candidates.into_iter().map(|one| one.code).collect::<Vec<_>>()
    };
    assert_eq!(choose(&mut world)[..2], ["no_room", "no_room"].map(String::from));
    world.copy(1).bytes = 400;
    world.passes(2_000);
    assert_eq!(choose(&mut world)[1], "standby");
    world.apply(&Topology::default(), false);
    assert_eq!(world.labels_of("c"), "datacenter=c");
}

#[test]
fn where_one_thing_is_wrong_nothing_changes_and_it_is_named() {
    type Spoil = fn(&mut Topology);
    let mut world = World::new();
    let before = world.center().topology();
    let spoils: [(Spoil, &str, &str); 11] = [
        (|all| all.databases[0].name = "z".into(), "unknown_database", "databases.z: "),
        (|all| all.databases[0].standbys = 5_000, "invalid", "databases.a: "),
        (|all| all.databases[0].stores[0].place = "backups".into(), "invalid", "databases.a: "),
        (|all| all.databases[0].stores[0].keep = Some(0), "invalid", "databases.a: "),
        (|all| all.limits[0].gate = "nodes".into(), "invalid", "limits.nodes: "),
        (|all| all.limits[0].bytes_per_s_max = 1, "invalid", "limits.node-in:b: "),
        (|all| all.schedules[0].when = When::Every(1), "invalid", "schedules.nightly: "),
        (|all| all.schedules[0].wish.to = "z".into(), "unknown_node", "schedules.nightly: "),
        (|all| all.rules[0].pause_ms = 0, "invalid", "rules.behind: "),
        (|all| all.nodes[0].labels[0].1 = "x,y".into(), "invalid", "nodes.c: "),
        (|all| all.nodes.push(all.nodes[0].clone()), "invalid", "nodes.c: "),
    ];
    for (spoil, code, item) in spoils {
        let mut all = everything();
        spoil(&mut all);
        let (got, what) = world.refused(&all);
        assert!(got == code && what.starts_with(item), "{got}: {what}");
    }
    assert_eq!(world.center().topology(), before);
    assert!(!world.kinds().contains(&"topology_applied".to_owned()));
}

#[test]
fn what_holds_is_not_refused_though_it_could_not_be_set_now() {
    let mut world = World::new();
    world.apply(&everything(), false);
    let mut all = everything();
    all.rules.clear();
    world.copies[1] = None;
    world.passes(20_000);
    assert_eq!(world.apply(&all, false), ["rules.behind"]);
}
