use planaria_net::wire::control::{HISTORY_ENTRIES_MAX, Mode};
use planaria_replication::control::InstanceRole;

use super::super::{DATACENTERS_MAX, INSTANCES_MAX};
use super::*;
use crate::catalog::{Catalog, Change, DatabaseRecord, DatacenterRecord, InstanceRecord};

impl World {
    /// The catalog has these, too, and the control center starts anew.
    fn also_holds(&mut self, changes: impl Iterator<Item = Change>) {
        self.center = None;
        StoreCatalog::open(self.path()).unwrap().apply(&changes.collect::<Vec<_>>()).unwrap();
        self.restart();
    }
}

#[test]
fn databases_beyond_the_limit_are_not_known_at_all() {
    let mut world = World::new();
    let database = |number: usize| {
        let (name, level) = (format!("d{number}"), "one".to_owned());
        Change::Database(DatabaseRecord {
            database: DatabaseId(number as u128),
            name,
            mode: Mode::Operator,
            level,
        })
    };
    world.also_holds((1_000..1_000 + INSTANCES_MAX - 2).map(database));
    for stranger in 500_000..500_003 {
        let copy = world.copy(0);
        (copy.database, copy.instance) = (DatabaseId(stranger), InstanceId(stranger));
        world.report(0, vec![]);
    }
    let center = world.center();
    assert_eq!(center.contents.databases.len(), INSTANCES_MAX);
    assert_eq!(center.contents.leads.len(), 2, "one before, and one for which there was room");
    assert_eq!(center.watched.len(), 1);
}

#[test]
fn datacenters_beyond_the_limit_are_not_written_down() {
    let mut world = World::new();
    let datacenter = |number: usize| {
        let (region, datacenter) = ("eu".to_owned(), format!("d{number}"));
        Change::Datacenter(DatacenterRecord { region, datacenter })
    };
    world.also_holds((0..DATACENTERS_MAX - 3).map(datacenter));
    let now = world.now();
    let token = world.center().token();
    let labels = vec![("datacenter".to_owned(), "new".to_owned())];
    let join = Join { token, name: "d".into(), port: 9, labels, ..Join::default() };
    world.center().join(now, HOST, &join, 5).unwrap();
    let contents = &world.center().contents;
    assert_eq!((contents.datacenters.len(), contents.nodes.len()), (DATACENTERS_MAX, 4));
}

#[test]
fn copies_beyond_the_limit_are_neither_remembered_nor_told_to_follow() {
    let mut world = World::new();
    world.set_automatic();
    let instance = |number: usize| {
        Change::Instance(InstanceRecord {
            instance: InstanceId(number as u128),
            database: DatabaseId(7),
            node: "z".into(),
            role: InstanceRole::Standby,
            state: CopyState::Online,
            durable: Uid::ZERO,
            update: Uid::ZERO,
            bytes: 0,
            heard_ms: 0,
        })
    };
    world.also_holds((1_000..1_000 + INSTANCES_MAX - 3).map(instance));
    world.passes(1_000);
    let copy = world.copy(2);
    (copy.instance, copy.state, copy.primary) = (InstanceId(500_000), CopyState::Offline, None);
    assert_eq!(world.report(2, vec![]), []);
    let center = world.center();
    assert_eq!((center.contents.instances.len(), center.contents.jobs.len()), (INSTANCES_MAX, 0));
    // What is held in memory has its limit apart.
    let now = world.now();
    let token = world.center().token();
    let mut node = |number: u64, copies: usize| {
        let join = Join { token, name: format!("n{number}"), port: number as u16, ..Join::default() };
        world.center.as_mut().unwrap().join(now, HOST, &join, number).unwrap();
        let copy = world.copies[2].clone().unwrap();
        let copies =
            (0..copies).map(|at| CopyReport { instance: InstanceId(600_000 + at as u128), ..copy.clone() });
        let report = NodeReport { session: number, copies: copies.collect(), ..NodeReport::default() };
        world.center.as_mut().unwrap().report(now, &report).unwrap();
    };
    for number in 1..=17 {
        node(number, 1_024);
    }
    let live: usize = world.center().live.values().map(|node| node.copies.len()).sum();
    assert_eq!(live, INSTANCES_MAX);
}

#[test]
fn what_a_report_says_at_length_is_clipped_or_refused() {
    let mut world = World::new();
    world.copy(1).damage = "\u{e4}".repeat(1 << 20);
    world.copy(2).instance = InstanceId(9);
    let long = (1..=HISTORY_ENTRIES_MAX as u64 + 1).map(entry).collect();
    world.copy(2).history = History::from_entries(long).unwrap();
    world.passes(1_000);
    let live = &world.center().live;
    let damaged = &live["b"].copies[&InstanceId(2)].report.damage;
    assert!(!damaged.is_empty() && damaged.len() < 10_000, "{}", damaged.len());
    assert!(live["c"].copies.is_empty());
    // Epochs that fall, as no history of ours can be made.
    let falling = postcard::to_stdvec(&[entry(2), entry(1)].to_vec()).unwrap();
    world.copy(2).history = postcard::from_bytes(&falling).unwrap();
    world.passes(1_000);
    assert!(world.center().live["c"].copies.is_empty());
    world.copy(2).history = History::from_entries(vec![entry(1), entry(2)]).unwrap();
    world.passes(1_000);
    assert_eq!(world.center().live["c"].copies.len(), 1);
}
