use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use planaria_net::wire::control::{CopyReport, EventInfo, Join, JoinToken, Mode, NodeReport, Order, Outcome};
use planaria_net::wire::message::AsOf;
use planaria_replication::Millis;
use planaria_replication::control::{CopyState, InstanceRole};
use planaria_types::{DatabaseId, Epoch, History, HistoryEntry, HistoryHash, InstanceId, Position, Uid};
use tempfile::TempDir;

use super::{Center, Now, Settings};
use crate::StoreCatalog;

#[path = "bounds_tests.rs"]
mod bounds;
#[path = "clone_tests.rs"]
mod clones;
#[path = "link_tests.rs"]
mod links;
#[path = "member_tests.rs"]
mod members;
#[path = "rule_tests.rs"]
mod rules;
#[path = "store_tests.rs"]
mod stores;
#[path = "topology_tests.rs"]
mod topology;

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const NAMES: [&str; 3] = ["a", "b", "c"];

fn epoch(term: u64) -> Epoch {
    Epoch { term, incarnation: 1, nonce: term }
}

fn entry(term: u64) -> HistoryEntry {
    HistoryEntry { epoch: epoch(term), inherited: Uid::ZERO, hash: HistoryHash::default() }
}

fn address(node: usize) -> SocketAddr {
    SocketAddr::new(HOST, 4_000 + node as u16)
}

/// A cluster of three nodes that say what a test has them say, and a control center that may be started anew.
struct World {
    dir: TempDir,
    center: Option<Center>,
    now_ms: u64,
    /// What each node says of its copy; one that is gone says nothing.
    copies: [Option<CopyReport>; 3],
    sessions: [u64; 3],
}

impl World {
    fn new() -> Self {
        let copy = |node: usize| CopyReport {
            database: DatabaseId(7),
            name: NAMES[node].to_owned(),
            instance: InstanceId(1 + node as u128),
            state: if node == 0 { CopyState::Primary } else { CopyState::Online },
            epoch: epoch(3),
            promised: epoch(3),
            position: Position { epoch: epoch(3), uid: Uid::new(100) },
            level: "quorum".into(),
            primary: (node > 0).then_some(address(0)),
            promotable: (1..=3).map(InstanceId).collect(),
            history: History::from_entries(vec![entry(3)]).unwrap(),
            ..CopyReport::default()
        };
        let dir = tempfile::tempdir().unwrap();
        let copies = [0, 1, 2].map(|node| Some(copy(node)));
        let mut world = Self { dir, center: None, now_ms: 1_000_000, copies, sessions: [0; 3] };
        world.restart();
        world.passes(1_000);
        world
    }

    fn now(&self) -> Now {
        Now { at: Millis(self.now_ms), wall_ms: 1_700_000_000_000 + self.now_ms }
    }

    fn center(&mut self) -> &mut Center {
        self.center.as_mut().unwrap()
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("catalog")
    }

    /// Starts the control center anew, over what it has written down.
    fn restart(&mut self) {
        self.center = None;
        self.open(&self.path());
    }

    fn open(&mut self, path: &Path) {
        let catalog = StoreCatalog::open(path).unwrap();
        self.center = Some(Center::new(Box::new(catalog), Settings::default(), self.now()).unwrap());
        for node in 0..3 {
            self.join(node);
        }
    }

    fn join(&mut self, node: usize) {
        let (now, session) = (self.now(), self.now_ms << 8 | node as u64);
        let center = self.center();
        let join = Join {
            token: center.token(),
            name: NAMES[node].into(),
            port: address(node).port(),
            labels: vec![("datacenter".into(), NAMES[node].into())],
            ..Join::default()
        };
        center.join(now, HOST, &join, session).unwrap();
        self.sessions[node] = session;
    }

    fn copy(&mut self, node: usize) -> &mut CopyReport {
        self.copies[node].as_mut().unwrap()
    }

    /// What a node is told after it has reported.
    fn report(&mut self, node: usize, outcomes: Vec<Outcome>) -> Vec<Order> {
        let report = NodeReport {
            session: self.sessions[node],
            capacity_bytes: 1_000,
            free_bytes: 900,
            copies: self.copies[node].iter().cloned().collect(),
            outcomes,
            ..NodeReport::default()
        };
        let now = self.now();
        self.center().report(now, &report).unwrap()
    }

    /// Time passes, and those that are there report every second. The last orders of each.
    fn passes(&mut self, ms: u64) -> [Vec<Order>; 3] {
        let mut orders = [const { Vec::new() }; 3];
        for _ in 0..ms / 1_000 {
            self.now_ms += 1_000;
            for (node, orders) in orders.iter_mut().enumerate() {
                if self.copies[node].is_some() {
                    *orders = self.report(node, Vec::new());
                }
            }
        }
        orders
    }

    fn set_mode(&mut self, mode: Mode) {
        let now = self.now();
        self.center().set_mode(now, "a", mode).unwrap();
    }

    fn set_automatic(&mut self) {
        self.set_mode(Mode::Automatic);
    }

    /// The primary is gone, and those that followed it notice.
    fn lose_primary(&mut self) {
        self.copies[0] = None;
        self.copy(1).state = CopyState::Offline;
        self.copy(2).state = CopyState::Offline;
    }

    fn events(&mut self) -> Vec<EventInfo> {
        self.center().history(1_000).unwrap()
    }

    fn kinds(&mut self) -> Vec<String> {
        self.events().into_iter().rev().map(|event| event.kind).collect()
    }
}

fn job(orders: &[Order]) -> u64 {
    match orders {
        [Order::Promote { job, .. } | Order::Follow { job, .. }] => *job,
        other => panic!("one order was expected: {other:?}"),
    }
}

fn refused(job: u64) -> Outcome {
    Outcome { job, code: "may_lose".into(), what: "too few copies".into() }
}

fn done(job: u64) -> Outcome {
    Outcome { job, code: String::new(), what: "done".into() }
}

#[test]
fn who_joins_must_know_the_token_and_have_a_name_of_its_own() {
    let mut world = World::new();
    let now = world.now();
    let token = world.center().token();
    let mut refuse = |join: Join| world.center().join(now, HOST, &join, 5).unwrap_err().code();
    let join = Join { token, name: "d".into(), port: 1, ..Join::default() };
    assert_eq!(refuse(Join { token: JoinToken(token.0 ^ 1), ..join.clone() }), "token");
    assert_eq!(refuse(Join { name: "a".into(), ..join.clone() }), "name_taken");
    assert_eq!(refuse(Join { name: "a\nb".into(), ..join.clone() }), "invalid");
    let label = ("region".to_owned(), "eu,us".to_owned());
    assert_eq!(refuse(Join { labels: vec![label], ..join }), "invalid");
    let stranger = NodeReport { session: 5, ..NodeReport::default() };
    assert_eq!(world.center().report(now, &stranger).unwrap_err().code(), "not_joined");
}

#[test]
fn a_lost_primary_is_replaced_by_the_one_that_loses_nothing_and_the_others_follow() {
    let mut world = World::new();
    world.set_automatic();
    world.lose_primary();
    world.copy(2).position.uid = Uid::new(99);
    assert_eq!(world.passes(9_000), [vec![], vec![], vec![]], "it is not lost yet");
    let orders = world.passes(2_000);
    assert_eq!(orders[1..], [vec![Order::Promote { job: 1, instance: InstanceId(2) }], vec![]]);
    // The same is told until its outcome is there.
    assert_eq!(world.passes(2_000)[1], orders[1]);

    let copy = world.copy(1);
    (copy.state, copy.epoch, copy.promised, copy.primary) = (CopyState::Primary, epoch(4), epoch(4), None);
    assert_eq!(world.report(1, vec![done(1)]), []);
    let follow = |job, copy| Order::Follow { job, instance: copy, primary: address(1), epoch: epoch(4) };
    assert_eq!(world.report(2, vec![]), [follow(2, InstanceId(3))], "it still follows the old one");
    world.copy(2).primary = Some(address(1));
    world.copy(2).state = CopyState::Online;
    assert_eq!(world.report(2, vec![done(2)]), []);

    // The old one comes back and thinks that it leads.
    let mut old = world.copy(2).clone();
    old.instance = InstanceId(1);
    (old.state, old.epoch, old.primary) = (CopyState::Primary, Epoch { incarnation: 2, ..epoch(3) }, None);
    world.copies[0] = Some(old);
    assert_eq!(world.report(0, vec![]), [follow(3, InstanceId(1))]);
    world.copy(0).state = CopyState::Online;
    assert_eq!(world.report(0, vec![done(3)]), []);
    assert_eq!(world.passes(30_000), [vec![], vec![], vec![]]);
    let expected = [
        "node_joined",
        "node_joined",
        "node_joined",
        "leads",
        "mode_set",
        "node_lost",
        "primary_lost",
        "promotion_asked",
        "leads",
        "promoted",
        "follow_asked",
        "follows",
        "node_returned",
        "follow_asked",
        "follows",
    ];
    assert_eq!(world.kinds(), expected);
    let asked = world.events().into_iter().find(|event| event.kind == "promotion_asked").unwrap();
    assert!(
        asked.reasons.iter().any(|line| line.starts_with("c: copy ") && line.contains("has more")),
        "{asked:?}"
    );
}

#[test]
fn the_next_is_asked_when_one_refuses_or_does_not_answer_and_all_of_them_again() {
    let mut world = World::new();
    world.set_automatic();
    world.lose_primary();
    let orders = world.passes(11_000);
    assert_eq!(orders[1].len() + orders[2].len(), 1);
    let first = if orders[1].is_empty() { 2 } else { 1 };
    let second = 3 - first;
    world.report(first, vec![refused(job(&orders[first]))]);
    assert_eq!(job(&world.report(second, vec![])), 2);
    // It says nothing of that for half a minute.
    world.passes(31_000);
    let kinds = world.kinds();
    assert_eq!(kinds.iter().filter(|kind| *kind == "promotion_failed").count(), 2, "{kinds:?}");
    assert!(kinds.contains(&"nobody_promoted".to_owned()), "{kinds:?}");
    let orders = world.passes(12_000);
    assert_eq!(job(&orders[first]), 3, "they are asked again");
    // An answer to what was given up long ago changes nothing.
    world.report(second, vec![refused(2)]);
    assert_eq!(job(&world.report(first, vec![])), 3);
}

#[test]
fn nobody_is_asked_where_an_operator_decides_or_nothing_is_protected_or_the_primary_lives() {
    let mut world = World::new();
    world.lose_primary();
    assert_eq!(world.passes(30_000), [vec![], vec![], vec![]]);
    assert_eq!(world.kinds().last().unwrap(), "primary_lost");

    let mut world = World::new();
    world.copy(0).level = "local".into();
    world.set_automatic();
    world.passes(1_000);
    world.lose_primary();
    assert_eq!(world.passes(30_000), [vec![], vec![], vec![]]);
    let last = world.events().remove(0);
    assert!(last.what.contains("only an operator may give them up"), "{last:?}");

    // The control center alone cannot hear it: time goes on at a copy that follows.
    let mut world = World::new();
    world.set_automatic();
    world.copies[0] = None;
    for second in 0..40 {
        world.copy(2).update = Uid::from_millis(1 + second);
        assert_eq!(world.passes(1_000), [vec![], vec![], vec![]]);
    }
    assert!(!world.kinds().contains(&"promotion_asked".to_owned()));
}

#[test]
fn a_primary_that_is_heard_again_keeps_its_lead() {
    let mut world = World::new();
    world.set_automatic();
    let primary = world.copies[0].clone();
    world.lose_primary();
    let orders = world.passes(12_000);
    assert_eq!(orders[1].len() + orders[2].len(), 1);
    world.copies[0] = primary;
    assert_eq!(world.passes(30_000), [vec![], vec![], vec![]], "nobody is asked any more");
    let kinds = world.kinds();
    assert_eq!(kinds.iter().filter(|kind| *kind == "promotion_asked").count(), 1, "{kinds:?}");
    // A node that was started anew while it was lost returns, too.
    world.copies[1] = None;
    world.passes(11_000);
    world.join(1);
    assert_eq!(world.kinds().last().unwrap(), "node_returned");
}

#[test]
fn what_was_told_is_called_off_when_an_operator_decides() {
    let mut world = World::new();
    world.set_automatic();
    world.lose_primary();
    let orders = world.passes(12_000);
    let asked = if orders[1].is_empty() { 2 } else { 1 };
    // It is away when the operator takes over, and returns days later.
    let away = world.copies[asked].take();
    world.set_mode(Mode::Operator);
    let ended = world.events().remove(0);
    assert_eq!(ended.kind, "promotion_failed");
    assert!(ended.what.contains("an operator decides"), "{ended:?}");
    world.passes(60_000);
    world.copies[asked] = away;
    assert_eq!(world.report(asked, vec![]), []);
    world.restart();
    assert_eq!(world.passes(60_000), [vec![], vec![], vec![]]);
    // What it was asked before is not asked again; the next time begins from what is there then.
    world.set_automatic();
    let orders = world.passes(2_000);
    assert_eq!(orders.iter().flatten().count(), 1, "{orders:?}");
    assert_eq!(job(&orders.concat()), 2);
}

#[test]
fn a_copy_that_an_operator_made_the_primary_is_not_told_to_follow_itself() {
    let mut world = World::new();
    world.set_automatic();
    let copy = world.copy(2);
    (copy.state, copy.primary) = (CopyState::Stale, None);
    assert!(matches!(world.passes(1_000)[2][..], [Order::Follow { .. }]));
    let copy = world.copy(2);
    (copy.state, copy.epoch, copy.promised) = (CopyState::Primary, epoch(4), epoch(4));
    world.copy(0).state = CopyState::Deposed;
    world.copy(1).primary = Some(address(2));
    assert_eq!(world.passes(1_000)[2], []);
}

#[test]
fn a_promotion_is_withdrawn_when_a_primary_is_heard_after_the_control_center_started_anew() {
    let mut world = World::new();
    world.set_automatic();
    let primary = world.copies[0].clone();
    world.lose_primary();
    let orders = world.passes(12_000);
    let asked = if orders[1].is_empty() { 2 } else { 1 };
    let away = world.copies[asked].take();
    world.restart();
    world.copies[0] = primary;
    world.passes(1_000);
    assert_eq!(world.kinds().last().unwrap(), "promotion_failed");
    world.copies[asked] = away;
    assert_eq!(world.report(asked, vec![]), []);
}

#[test]
fn a_copy_that_leads_and_never_says_that_it_does_what_it_was_told_is_asked_no_more() {
    let mut world = World::new();
    world.set_automatic();
    world.lose_primary();
    let orders = world.passes(12_000);
    let asked = if orders[1].is_empty() { 2 } else { 1 };
    let copy = world.copy(asked);
    (copy.state, copy.epoch, copy.promised, copy.primary) = (CopyState::Primary, epoch(4), epoch(4), None);
    let orders = world.passes(1_000);
    assert_eq!(orders[asked], [], "it leads");
    assert!(!world.kinds().contains(&"promotion_failed".to_owned()), "it has time to answer");
    world.copies[3 - asked] = None;
    world.passes(31_000);
    assert!(world.kinds().contains(&"promotion_failed".to_owned()));
}

#[test]
fn the_level_is_what_the_newest_primary_says() {
    let mut world = World::new();
    let level = |world: &mut World| {
        let now = world.now();
        world.center().databases(now).remove(0).level
    };
    let copy = world.copy(1);
    (copy.state, copy.epoch, copy.promised) = (CopyState::Primary, epoch(4), epoch(4));
    copy.level = "all".into();
    world.report(1, vec![]);
    assert_eq!(level(&mut world), "all");
    // The old primary does not know that it was replaced.
    world.copy(0).level = "local".into();
    world.report(0, vec![]);
    assert_eq!(level(&mut world), "all");
    world.copy(1).level = "one".into();
    world.report(1, vec![]);
    assert_eq!(level(&mut world), "one");
}

#[test]
fn a_control_center_that_starts_anew_goes_on_where_it_was() {
    let mut world = World::new();
    world.set_automatic();
    world.lose_primary();
    let orders = world.passes(12_000);
    let asked = if orders[1].is_empty() { 2 } else { 1 };
    world.restart();
    assert_eq!(world.passes(1_000)[asked], orders[asked], "what was asked is still asked");
    world.report(asked, vec![refused(1)]);
    // Nobody is taken for lost before there was time to be heard.
    assert_eq!(world.passes(8_000), [vec![], vec![], vec![]]);
    let next = world.passes(3_000);
    assert_eq!(next.iter().flatten().count(), 1, "{next:?}");
    let now = world.now();
    let shown = world.center().databases(now).remove(0);
    assert_eq!((shown.name.as_str(), shown.mode, shown.is_led), ("a", Mode::Automatic, false));
    assert_eq!((shown.copies, shown.copies_heard, shown.primary.as_str()), (3, 2, "a"));
}

#[test]
fn a_catalog_from_the_past_deposes_nobody() {
    let mut world = World::new();
    world.set_automatic();
    world.center = None;
    let old = world.dir.path().join("old");
    planaria_engine::Database::open(world.path()).unwrap().clone_to(&old).unwrap();
    // Meanwhile the lead has moved to b, and a follows it.
    for node in 0..3 {
        let copy = world.copy(node);
        copy.state = if node == 1 { CopyState::Primary } else { CopyState::Online };
        (copy.epoch, copy.promised) = (epoch(4), epoch(4));
        copy.primary = (node != 1).then(|| address(1));
    }
    world.now_ms += 60_000;
    world.open(&old);
    world.copy(0).state = CopyState::Offline;
    assert_eq!(
        world.report(0, vec![]),
        [],
        "whom the catalog names is followed only once it was heard to lead"
    );
    assert_eq!(world.report(2, vec![]), []);
    assert_eq!(world.report(1, vec![]), []);
    world.copy(0).state = CopyState::Online;
    assert_eq!(world.passes(30_000), [vec![], vec![], vec![]]);
    let now = world.now();
    assert_eq!(world.center().databases(now)[0].primary, "b");
}

#[test]
fn the_source_of_a_clone_is_chosen_among_what_is_heard() {
    let mut world = World::new();
    for (node, update) in [(1, 50_000), (2, 40_000)] {
        let copy = world.copy(node);
        (copy.role, copy.update, copy.bytes) = (InstanceRole::Backup, Uid::from_millis(update), 500);
    }
    world.passes(1_000);
    let now = world.now();
    let choose = |world: &mut World, to: &str, period| {
        let chosen = world.center().choose_source(now, to, None, period, AsOf::Newest).unwrap();
        let codes: Vec<_> = chosen.candidates.into_iter().map(|copy| (copy.node, copy.code)).collect();
        (chosen.source, codes.into_iter().collect::<std::collections::BTreeMap<_, _>>())
    };
    let (source, codes) = choose(&mut world, "a", 5_000);
    assert_eq!(source, Some(InstanceId(2)));
    assert_eq!(
        (codes["a"].as_str(), codes["b"].as_str(), codes["c"].as_str()),
        ("at_destination", "nearest_backup", "too_old")
    );
    assert_eq!(choose(&mut world, "b", 5_000).0, Some(InstanceId(3)), "not from itself");
    world.copy(1).is_diverged = true;
    world.copy(2).bytes = 1_000;
    world.passes(1_000);
    let (source, codes) = choose(&mut world, "a", 5_000);
    assert_eq!((source, codes["b"].as_str(), codes["c"].as_str()), (None, "off_history", "no_room"));
    assert_eq!(
        world.center().choose_source(now, "z", None, 0, AsOf::Newest).unwrap_err().code(),
        "unknown_node"
    );
    assert_eq!(
        world.center().choose_source(now, "a", Some("z"), 0, AsOf::Newest).unwrap_err().code(),
        "unknown_database"
    );
}
