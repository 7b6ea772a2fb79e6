//! The settings of the network that a copy is given hold for all that comes to it: no source sends it larger packets than it takes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use planaria_engine::{CloneAbout, ClonePlace, CloneRole, Database};

use super::tests::{Cluster, equal, fill, options};
use super::{Pace, Primary, Taking, open_secondary, renew, take_clone};
use crate::quic::session::ReplicaSession;
use crate::quic::{AcceptLimits, Endpoint, Peer, Transport};
use crate::wire::message::{Call, DatabaseStatus, RemoteError, Request, Response, Status};
use crate::wire::rpc::{BoxFuture, Exchange, Handler, ServeLimits, Server, serve};

/// The least that a path may be asked to carry: nothing that is sent to whoever says so is found to pass in larger packets.
const MTU: u16 = 1_200;
/// What a peer may send at least, whatever was said, in bytes of UDP payload.
const PAYLOAD_MIN: u16 = 1_472;

/// A source that notes how large the packets of each session were in the end.
struct Watching {
    primary: Arc<Primary>,
    packets: Arc<Mutex<Vec<u16>>>,
}

impl Handler for Watching {
    fn call(&self, _: &Peer, call: Call, _: &mut Exchange) -> Result<Response, RemoteError> {
        let db = self.primary.database();
        match call.request {
            Request::Status => Ok(Response::Status(Status {
                databases: vec![DatabaseStatus {
                    database: db.id(),
                    instance: db.instance(),
                    visible: db.visible(),
                    epoch: db.epoch(),
                    ..DatabaseStatus::default()
                }],
                ..Status::default()
            })),
            _ => Err(RemoteError::new("unknown_replica", "nobody is known here")),
        }
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        let served = self.primary.take_over(session.clone(), None);
        let packets = Arc::clone(&self.packets);
        Box::pin(async move {
            served.await;
            packets.lock().push(session.connection().mtu());
        })
    }
}

/// A source of a cluster's database that notes the sizes of packets.
fn watch(cluster: &Cluster) -> (Server, Arc<Mutex<Vec<u16>>>) {
    let packets = Arc::default();
    let watching = Watching { primary: Arc::clone(&cluster.primary), packets: Arc::clone(&packets) };
    let server = cluster.runtime.block_on(async {
        let (any, limits) = (SocketAddr::from(([127, 0, 0, 1], 0)), AcceptLimits::default());
        let endpoint = Endpoint::server(any, &cluster.credentials, &Transport::default(), limits).unwrap();
        serve(endpoint, Arc::new(watching), ServeLimits::default())
    });
    (server, packets)
}

/// Waits until so many sessions have ended, and tells the packets of each.
fn of_sessions(packets: &Mutex<Vec<u16>>, count: usize) -> Vec<u16> {
    for _ in 0..30_000 {
        let noted = packets.lock().clone();
        if noted.len() >= count {
            return noted;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    panic!("{count} sessions do not end: {:?}", packets.lock());
}

fn changed(cluster: &Cluster, row: &str) -> Database {
    let db = cluster.primary.database().clone();
    let table = db.table("t").or_else(|_| db.create_raw_table("t")).unwrap();
    fill(&db, &table, 0..20_000, row);
    db
}

#[test]
fn the_first_copy_of_a_secondary_comes_in_packets_as_small_as_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = changed(&cluster, "row");
    let (server, packets) = watch(&cluster);
    let transport = Transport { mtu_max: MTU, ..Transport::default() };
    let (target, source) = (dir.path().join("copy"), server.local_address());
    let (network, options) = ((&cluster.credentials, &transport), options());
    let opening = open_secondary(&target, source, &[], network, &options, |_| {});
    let joined = cluster.runtime.block_on(opening).unwrap();
    assert!(joined.first_copy.is_some());
    equal(&db, &joined.db);
    let noted = of_sessions(&packets, 1);
    assert!(noted.iter().all(|packet| *packet <= PAYLOAD_MIN), "{noted:?}");
    cluster.runtime.block_on(server.shutdown(Duration::from_millis(100)));
}

#[test]
fn what_brings_a_clone_up_to_date_comes_in_packets_as_small_as_it_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    changed(&cluster, "before");
    let target = dir.path().join("copy");
    take_whole(&cluster, &target);
    let db = changed(&cluster, "after");
    let (server, packets) = watch(&cluster);
    let transport = Transport { mtu_max: MTU, ..Transport::default() };
    let place = ClonePlace::new(&target, Arc::clone(&options().os));
    place.begin_renewal(&options()).unwrap();
    let renewed = renew(
        (server.local_address(), &cluster.credentials, &transport),
        &place.renewing(),
        &options(),
        &Arc::new(Pace::default()),
        cluster.runtime.handle(),
        |_| {},
        |_, db| Ok(place.end_renewal(db, &CloneAbout::default())?),
    );
    assert!(renewed.unwrap().records >= 20_000);
    place.install().unwrap();
    equal(&db, &Database::open_with(&target, options()).unwrap());
    let noted = of_sessions(&packets, 1);
    assert!(noted.iter().all(|packet| *packet <= PAYLOAD_MIN), "{noted:?}");
    cluster.runtime.block_on(server.shutdown(Duration::from_millis(100)));
}

#[test]
fn a_clone_with_a_history_of_its_own_does_not_end_the_reign_of_its_source() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = changed(&cluster, "before");
    let target = dir.path().join("copy");
    take_whole(&cluster, &target);
    let (server, _) = watch(&cluster);
    let place = ClonePlace::new(&target, Arc::clone(&options().os));
    place.begin_renewal(&options()).unwrap();
    let copy = Database::open_with(place.renewing(), options()).unwrap();
    copy.promise(copy.next_epoch(db.epoch())).unwrap();
    drop(copy);
    let renewed = renew(
        (server.local_address(), &cluster.credentials, &Transport::default()),
        &place.renewing(),
        &options(),
        &Arc::new(Pace::default()),
        cluster.runtime.handle(),
        |_| {},
        |_, _| Ok(()),
    );
    let error = renewed.unwrap_err();
    assert!(error.to_string().contains("a history of its own"), "{error}");
    assert_eq!(db.deposed(), None);
    changed(&cluster, "after");
    cluster.runtime.block_on(server.shutdown(Duration::from_millis(100)));
}

fn take_whole(cluster: &Cluster, target: &Path) {
    let (transport, taking) = (Transport::default(), Taking::new(target, CloneRole::Detached, &options()));
    let taken = take_clone(cluster.address, &cluster.credentials, &transport, &taking, |_| {});
    cluster.runtime.block_on(taken).unwrap();
}
