//! What clients are told while primaries die and stop, as one history: it must be that of one register for each key.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use planaria_tests::cluster::{Asked, History, Node, Random, Site, wait_for};

use crate::failover::wait_until_promotable;

const CLIENTS: u32 = 3;
/// Keys that clients meet at, in each round.
const KEYS: u64 = 2;
/// How long a client rests between two operations.
const REST: Duration = Duration::from_millis(10);
/// Operations that are told between two disturbances, at least.
const TOLD_BETWEEN: usize = 25;

/// What happens to the primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Disturbance {
    /// It is killed.
    Killed,
    /// It stops, another one takes the lead, and it goes on without knowing.
    Suspended,
}

/// What all clients share.
struct Cluster<'a> {
    site: &'a Site,
    addresses: [String; 3],
    history: History,
    /// Counts the disturbances: keys are new after each.
    round: AtomicUsize,
    over: AtomicBool,
}

impl Cluster<'_> {
    fn told(&self) -> usize {
        let (all, unknown) = self.history.count();
        all - unknown
    }

    /// One operation after the other, on the node that answered last.
    fn work(&self, client: u32) {
        let mut random = Random::new(u64::from(client));
        let mut at = 0;
        let mut number = 0;
        while !self.over.load(Ordering::Acquire) {
            number += 1;
            let round = self.round.load(Ordering::Acquire);
            let key = format!("{round}-{}", random.below(KEYS));
            let node = self.addresses.get(at).map_or("", String::as_str);
            let answered = if random.once_in(2) {
                self.put(client, node, &key, format!("{client}.{number}"))
            } else {
                self.get(client, node, &key)
            };
            if !answered {
                at = (at + 1) % self.addresses.len();
            }
            std::thread::park_timeout(REST);
        }
    }

    fn put(&self, client: u32, node: &str, key: &str, row: String) -> bool {
        let asked_at = self.history.now();
        let answer = self.site.run(&["--node", node, "put", "blobs", key, &row, "--timeout", "1s"]);
        if answer.code == 0 {
            self.history.told(client, key, asked_at, Asked::Put(row));
            return true;
        }
        // Whoever does not lead says so before anything is written. After all else it is not known.
        let refused = ["read_only", "deposed", "handing_over", "too_few_copies"];
        if answer.error().is_none_or(|error| !refused.iter().any(|code| error["code"] == *code)) {
            self.history.unknown(client, key, asked_at, row);
        }
        false
    }

    fn get(&self, client: u32, node: &str, key: &str) -> bool {
        let asked_at = self.history.now();
        let answer = self.site.run(&["--node", node, "get", "blobs", key, "--fresh", "--wait", "1s"]);
        let row = match (answer.code, answer.error()) {
            (0, _) => answer.json().remove(0)["row"].as_str().map(str::to_owned),
            (_, Some(error)) if error["code"] == "no_row" => None,
            _ => return false,
        };
        self.history.told(client, key, asked_at, Asked::Got(row));
        true
    }
}

/// Makes one of the two the primary: the one that has all that was acknowledged.
fn promote_one_of<'a, 'b>(one: &'a Node<'b>, other: &'a Node<'b>) -> &'a Node<'b> {
    let promoted = |node: &Node<'_>| node.run(&["promote", "--yes"]).code == 0;
    wait_for(
        "a secondary to be promoted",
        || [one, other].into_iter().find(|node| promoted(node)),
        || format!("{:?}\n{:?}", one.run(&["promote", "--yes"]), other.run(&["promote", "--yes"])),
    )
}

#[test]
fn what_is_told_at_level_quorum_is_linearizable_while_primaries_die_and_stop() {
    let site = Site::new();
    let mut nodes = vec![Node::primary_at(&site, "a", "quorum")];
    nodes[0].run(&["table", "create", "blobs", "--raw"]).json();
    for name in ["b", "c"] {
        let secondary = Node::secondary_at(&site, name, &nodes[0], "quorum");
        nodes.push(secondary);
    }
    wait_until_promotable(&nodes[0], 2);
    let addresses = [0, 1, 2].map(|node: usize| nodes[node].address().to_owned());
    let cluster = Cluster {
        site: &site,
        addresses,
        history: History::new(),
        round: AtomicUsize::new(0),
        over: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let cluster = &cluster;
            scope.spawn(move || cluster.work(client));
        }
        let over = Over(&cluster.over);
        for disturbance in [Disturbance::Suspended, Disturbance::Killed] {
            disturb(&cluster, &mut nodes, disturbance);
            cluster.round.fetch_add(1, Ordering::AcqRel);
        }
        drop(over);
    });
    let (all, unknown) = cluster.history.count();
    eprintln!("{all} operations, {unknown} of them unknown");
    assert!(cluster.history.is_linearizable(), "{:#?}", cluster.history);
    for node in &nodes[1..] {
        node.wait_until_equal(&nodes[0]);
    }
}

/// Ends the work of the clients, also if the test panics.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Takes the lead from the first node, gives it to another one, which is the first afterwards, and has the old primary
/// come back as a secondary.
fn disturb(cluster: &Cluster<'_>, nodes: &mut Vec<Node<'_>>, disturbance: Disturbance) {
    let more = |from: usize| {
        wait_for(
            "clients to be served",
            || (cluster.told() >= from + TOLD_BETWEEN).then_some(()),
            || format!("{:?}", cluster.history.count()),
        );
    };
    more(cluster.told());
    match disturbance {
        Disturbance::Killed => nodes[0].kill(),
        Disturbance::Suspended => nodes[0].suspend(),
    }
    let leader = promote_one_of(&nodes[1], &nodes[2]).address().to_owned();
    more(cluster.told());
    if disturbance == Disturbance::Suspended {
        // It believes that it leads, until others tell it.
        nodes[0].go_on();
        more(cluster.told());
        nodes[0].kill();
    }
    let at = nodes.iter().position(|node| node.address() == leader).expect("one of the nodes");
    nodes.swap(0, at);
    let (leader, others) = nodes.split_first_mut().expect("three nodes");
    // The one that led is where the one that leads now was.
    let old = others.get_mut(at - 1).expect("another one");
    old.will_follow(leader);
    old.start();
    wait_until_promotable(leader, 2);
}
