//! Copies that follow a copy, and copies that are refreshed from a sibling, over real sockets and real files.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use planaria_engine::{Database, Table};
use planaria_replication::Way;
use planaria_replication::secondary::State;

use super::tests::{Cluster, equal, fill, options};
use super::{Follow, FollowStatus, Follower, Slot};
use crate::quic::session::ReplicaSession;
use crate::quic::{AcceptLimits, Endpoint, Peer, Transport};
use crate::wire::message::{Call, DatabaseStatus, RemoteError, Response, Status};
use crate::wire::rpc::{BoxFuture, Exchange, Handler, ServeLimits, Server, serve};

/// A secondary that listens, and feeds others.
struct Middle {
    slot: Slot,
    follower: Arc<Follower>,
    address: SocketAddr,
    server: Option<Server>,
}

struct Node(Slot, Arc<Follower>);

impl Handler for Node {
    fn call(&self, _: &Peer, _: Call, _: &mut Exchange) -> Result<Response, RemoteError> {
        let db = self.0.get();
        let status = DatabaseStatus {
            database: db.id(),
            instance: db.instance(),
            epoch: db.epoch(),
            visible: db.visible(),
            ..DatabaseStatus::default()
        };
        Ok(Response::Status(Status { databases: vec![status], ..Status::default() }))
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        self.1.feeder().take_over(session, None)
    }
}

impl Middle {
    fn start(cluster: &Cluster, dir: &Path) -> Self {
        let slot = cluster.secondary(dir);
        let follower = Arc::new(cluster.follow(&slot));
        let node = Arc::new(Node(slot.clone(), Arc::clone(&follower)));
        let (address, credentials) = (SocketAddr::from(([127, 0, 0, 1], 0)), cluster.credentials.clone());
        let server = cluster.runtime.block_on(async {
            let (transport, limits) = (Transport::default(), AcceptLimits::default());
            let endpoint = Endpoint::server(address, &credentials, &transport, limits).unwrap();
            serve(endpoint, node, ServeLimits::default())
        });
        Self { slot, follower, address: server.local_address(), server: Some(server) }
    }

    fn stop(mut self, cluster: &Cluster) {
        let server = self.server.take().unwrap();
        cluster.runtime.block_on(server.shutdown(Duration::from_millis(100)));
    }
}

fn follow(cluster: &Cluster, slot: &Slot, source: SocketAddr, siblings: Vec<SocketAddr>) -> Follower {
    let follow = Follow {
        primary: source,
        name: "third".into(),
        port: None,
        credentials: cluster.credentials.clone(),
        transport: Transport::default(),
        options: options(),
        siblings,
        note: None,
        pace: None,
        portion: None,
    };
    Follower::start(slot.clone(), follow, cluster.runtime.handle().clone()).unwrap()
}

/// Waits until a copy is online and shows what the primary has, by way of whoever `met` tells that it should follow.
fn caught_up(
    cluster: &Cluster,
    slot: &Slot,
    follower: &Follower,
    met: impl Fn(&FollowStatus) -> bool,
) -> FollowStatus {
    for _ in 0..30_000 {
        let status = follower.status();
        let last = cluster.primary.database().log_end().0;
        if status.replica.state == State::Online && slot.get().visible() >= last && met(&status) {
            return status;
        }
        assert!(status.failure.is_none(), "{status:?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
    panic!("the copy does not catch up: {:?}", follower.status());
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..30_000 {
        if is_so() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    panic!("waited in vain for {what}");
}

fn is_fed(status: &FollowStatus) -> bool {
    status.replica.fed && status.replica.chain.len() == 2
}

fn delete(table: &Table, keys: std::ops::Range<u64>) {
    for key in keys {
        table.delete(key.to_be_bytes()).unwrap();
    }
}

#[test]
fn a_copy_follows_a_copy_goes_away_and_comes_back_by_what_changed_or_by_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    let table = db.create_raw_table("t").unwrap();
    fill(&db, &table, 0..5_000, "first");
    let middle = Middle::start(&cluster, &dir.path().join("middle"));
    let slot = cluster.secondary(&dir.path().join("third"));
    let third = follow(&cluster, &slot, middle.address, Vec::new());
    let writer = {
        let (db, table) = (db.clone(), table.clone());
        std::thread::spawn(move || fill(&db, &table, 10_000..10_500, "live"))
    };
    writer.join().unwrap();
    caught_up(&cluster, &slot, &third, is_fed);
    equal(&db, &slot.get());
    // It is the middle that keeps it, and the primary that does not know of it.
    let fed = middle.follower.feeder().replicas();
    assert_eq!((fed.len(), &fed[0].name[..], fed[0].promotable), (1, "third", false));
    assert_eq!(cluster.primary.replicas().len(), 1);
    third.stop();

    // What is deleted meanwhile is merged away everywhere but for the mark that the middle keeps.
    let away = |keys: std::ops::Range<u64>| {
        delete(&table, keys.clone());
        fill(&db, &table, keys.start + 100..keys.start + 400, &"changed while away ".repeat(100));
        db.compact().unwrap();
        caught_up(&cluster, &middle.slot, &middle.follower, |status| !status.replica.fed);
        middle.slot.get().compact().unwrap();
    };
    away(1_000..1_030);
    let third = follow(&cluster, &slot, middle.address, Vec::new());
    let status = caught_up(&cluster, &slot, &third, is_fed);
    assert_eq!(status.replica.way, Some(Way::Delta), "{status:?}");
    equal(&db, &slot.get());
    third.stop();

    // Nobody keeps marks for one that was forgotten.
    until("its session to end", || {
        matches!(middle.follower.feeder().forget(slot.get().instance()).unwrap(), Ok(()))
    });
    assert!(middle.slot.get().fed().unwrap().is_empty());
    away(2_000..2_030);
    let third = follow(&cluster, &slot, middle.address, Vec::new());
    let status = caught_up(&cluster, &slot, &third, is_fed);
    assert_eq!(status.replica.way, Some(Way::Reconcile), "{status:?}");
    equal(&db, &slot.get());
    assert_eq!(slot.get().table("t").unwrap().get(2_010_u64.to_be_bytes()).unwrap(), None);
    third.stop();
    middle.stop(&cluster);
}

#[test]
fn run_files_that_take_the_middles_place_end_what_it_fed_and_it_feeds_on() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    let table = db.create_raw_table("t").unwrap();
    fill(&db, &table, 0..3_000, "first");
    let middle = Middle::start(&cluster, &dir.path().join("middle"));
    let slot = cluster.secondary(&dir.path().join("third"));
    let third = follow(&cluster, &slot, middle.address, Vec::new());
    caught_up(&cluster, &slot, &third, is_fed);
    let before = (middle.slot.get().instance(), slot.get().instance());
    middle.follower.refresh(Way::Bulk);
    let replaced = |_: &FollowStatus| middle.slot.get().instance() != before.0;
    caught_up(&cluster, &middle.slot, &middle.follower, replaced);
    fill(&db, &table, 3_000..3_100, "after");
    let own = |status: &FollowStatus| {
        is_fed(status) && status.replica.chain.first() == Some(&middle.slot.get().instance())
    };
    caught_up(&cluster, &slot, &third, own);
    // Run files come from the middle as well.
    third.refresh(Way::Bulk);
    let taken = |status: &FollowStatus| own(status) && slot.get().instance() != before.1;
    caught_up(&cluster, &slot, &third, taken);
    equal(&db, &slot.get());
    third.stop();
    middle.stop(&cluster);
}

#[test]
fn a_copy_that_is_behind_takes_what_it_lacks_from_a_sibling_and_the_tail_from_its_primary() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    let table = db.create_raw_table("t").unwrap();
    fill(&db, &table, 0..3_000, "first");
    let sibling = Middle::start(&cluster, &dir.path().join("sibling"));
    let slot = cluster.secondary(&dir.path().join("third"));
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    let third = follow(&cluster, &slot, cluster.address, Vec::new());
    let direct = |status: &FollowStatus| !status.replica.fed;
    caught_up(&cluster, &slot, &third, direct);
    third.stop();
    fill(&db, &table, 100..400, &"changed while away ".repeat(100));
    db.compact().unwrap();
    caught_up(&cluster, &sibling.slot, &sibling.follower, direct);

    let third = follow(&cluster, &slot, cluster.address, vec![nobody, sibling.address]);
    let status = caught_up(&cluster, &slot, &third, direct);
    let detour = status.detour.clone().unwrap_or_default();
    assert!(detour.contains(&format!("was refreshed from {}", sibling.address)), "{detour}");
    assert_eq!(status.replica.way, Some(Way::Tail), "{status:?}");
    equal(&db, &slot.get());
    let told = cluster.primary.replicas().into_iter().find(|copy| copy.name == "third").unwrap();
    assert_eq!((told.moved.way.map(|(way, _)| way), told.moved.records), (Some(Way::Tail), 0));
    assert!(told.moved.bytes < 64 << 10, "{told:?}");
    third.stop();

    // Without one that can, the primary brings it all, and the reason is told.
    fill(&db, &table, 500..800, &"changed once more ".repeat(100));
    db.compact().unwrap();
    let third = follow(&cluster, &slot, cluster.address, vec![nobody]);
    let status = caught_up(&cluster, &slot, &third, direct);
    assert_eq!(status.replica.way, Some(Way::Delta), "{status:?}");
    let detour = status.detour.unwrap_or_default();
    assert!(detour.contains("from the primary") && detour.contains(&nobody.to_string()), "{detour}");
    equal(&db, &slot.get());
    third.stop();
    sibling.stop(&cluster);
}

#[test]
fn the_list_of_those_who_are_fed_outlives_the_middle_and_becomes_that_of_a_primary() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    db.create_raw_table("t").unwrap();
    let middle = Middle::start(&cluster, &dir.path().join("middle"));
    let slot = cluster.secondary(&dir.path().join("third"));
    let third = follow(&cluster, &slot, middle.address, Vec::new());
    caught_up(&cluster, &slot, &third, is_fed);
    third.stop();
    let copy = middle.slot.get();
    let fed = copy.fed().unwrap();
    assert_eq!((fed.len(), fed[0].instance), (1, slot.get().instance()));
    drop(copy);
    let path = dir.path().join("middle");
    middle.stop(&cluster);
    drop(cluster);
    let copy = Database::open_with(&path, options()).unwrap();
    copy.promote(copy.next_epoch(copy.epoch())).unwrap();
    let primary = super::Primary::start(copy.clone(), super::Leading::default()).unwrap();
    assert!(primary.replicas().iter().any(|known| known.instance == slot.get().instance()));
    assert!(copy.fed().unwrap().is_empty());
}
