//! Clones over several connections, some of which are lost on the way, over real sockets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use planaria_engine::{CLONE_CHUNK_BYTES, CloneRole, Database, FileList, FilePin};
use tokio::task::JoinHandle;

use super::clone::{receive_list, wire_number};
use super::executor::bulk;
use super::secondary::open_session;
use super::tests::{Cluster, equal, options};
use super::{CloneProgress, Opening, Pace, Primary, Taking, encode, take_clone};
use crate::Error;
use crate::quic::session::{Opened, ReplicaSession};
use crate::quic::{AcceptLimits, CloseCode, Credentials, Endpoint, Origin, Peer, Roles, TlsStore, Transport};
use crate::wire::limits::CLONE_CONNECTIONS_MAX;
use crate::wire::message::{Call, RemoteError, Response};
use crate::wire::replica::FileRequest;
use crate::wire::rpc::{BoxFuture, Exchange, Handler, ServeLimits, Server, serve};

/// A database that is worth four connections.
fn fill(db: &Database) {
    const ROWS: u64 = 2_000;
    let row = |key: u64| -> Vec<u8> {
        let word = (key + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (1..=2_048_u64).flat_map(|turn| (word ^ (turn * turn)).wrapping_mul(word).to_le_bytes()).collect()
    };
    let mut ingest = db.create_raw_table("t").unwrap().ingest().unwrap();
    for key in 0..ROWS {
        ingest.put(key.to_be_bytes(), row(key)).unwrap();
    }
    ingest.finish().unwrap();
}

/// A source that keeps the sessions that were opened with it, in their order.
struct Keeping {
    primary: Arc<Primary>,
    sessions: Arc<Mutex<Vec<ReplicaSession>>>,
}

impl Handler for Keeping {
    fn call(&self, _: &Peer, _: Call, _: &mut Exchange) -> Result<Response, RemoteError> {
        Ok(Response::Done)
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        self.sessions.lock().push(session.clone());
        self.primary.take_over(session, None)
    }
}

fn listen(cluster: &Cluster, handler: impl Handler) -> Server {
    cluster.runtime.block_on(async {
        let (any, limits) = (SocketAddr::from(([127, 0, 0, 1], 0)), AcceptLimits::default());
        let endpoint = Endpoint::server(any, &cluster.credentials, &Transport::default(), limits).unwrap();
        serve(endpoint, Arc::new(handler), ServeLimits::default())
    })
}

fn over(connections: u8) -> Transport {
    Transport { clone_connections: connections, ..Transport::default() }
}

/// Waits until something holds.
fn wait_until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..60_000 {
        if holds() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(2));
    }
    panic!("not so: {what}");
}

/// A clone of a cluster's primary that comes in so slowly that nothing but one chunk has come when all its connections are there.
struct Slow {
    cluster: Cluster,
    server: Option<Server>,
    sessions: Arc<Mutex<Vec<ReplicaSession>>>,
    pace: Arc<Pace>,
    progress: Arc<Mutex<CloneProgress>>,
    taking: JoinHandle<crate::Result<CloneProgress>>,
}

impl Slow {
    fn begin(dir: &Path, connections: u8) -> Self {
        let cluster = Cluster::start(dir);
        fill(cluster.primary.database());
        let sessions = Arc::default();
        let keeping = Keeping { primary: Arc::clone(&cluster.primary), sessions: Arc::clone(&sessions) };
        let server = listen(&cluster, keeping);
        let (pace, progress) = (Arc::new(Pace::new(Some(1))), Arc::<Mutex<CloneProgress>>::default());
        let taking = Taking {
            pace: Arc::clone(&pace),
            ..Taking::new(dir.join("copy"), CloneRole::Detached, &options())
        };
        let (address, credentials) = (server.local_address(), cluster.credentials.clone());
        let told = Arc::clone(&progress);
        let taking = cluster.runtime.spawn(async move {
            let progress = move |progress: &CloneProgress| told.lock().clone_from(progress);
            take_clone(address, &credentials, &over(connections), &taking, progress).await
        });
        let slow = Self { cluster, server: Some(server), sessions, pace, progress, taking };
        wait_until("all connections", || slow.sessions.lock().len() == usize::from(connections));
        wait_until("a first chunk", || slow.progress.lock().done_bytes > 0);
        slow
    }

    fn end(mut self, dir: &Path) -> CloneProgress {
        let taken = self.cluster.runtime.block_on(self.taking).unwrap().unwrap();
        assert_eq!(taken.done_bytes, taken.total_bytes, "no chunk is counted twice");
        let db = self.cluster.primary.database();
        let copy = Database::open_with(dir.join("copy"), options()).unwrap();
        copy.verify().unwrap();
        equal(&copy, db);
        let primary = &self.cluster.primary;
        wait_until("noted by its source", || {
            !db.clones().unwrap().is_empty() && primary.going_out().is_empty()
        });
        assert_eq!(db.clones().unwrap().len(), 1, "it is one clone");
        let server = self.server.take().unwrap();
        self.cluster.runtime.block_on(server.shutdown(Duration::from_millis(100)));
        taken
    }
}

#[test]
fn a_clone_over_several_connections_is_one_clone_and_at_a_rate_all_of_them_ask_for_one_chunk() {
    let dir = tempfile::tempdir().unwrap();
    let slow = Slow::begin(dir.path(), 4);
    let going_out = slow.cluster.primary.going_out();
    assert_eq!(going_out.len(), 1, "{going_out:?}");
    assert_eq!(going_out[0].sent_bytes, slow.progress.lock().done_bytes, "nothing was asked for ahead");
    assert!(going_out[0].sent_bytes <= CLONE_CHUNK_BYTES);
    slow.pace.set_rate(None);
    let sessions = Arc::clone(&slow.sessions);
    let taken = slow.end(dir.path());
    assert_eq!(taken.resumed_bytes, 0);
    assert_eq!(sessions.lock().len(), 4);
}

#[test]
fn connections_that_are_lost_before_the_last_one_cost_nothing_that_has_come() {
    let dir = tempfile::tempdir().unwrap();
    let slow = Slow::begin(dir.path(), 4);
    // Among them the one on which the clone was asked for.
    for session in &slow.sessions.lock()[..3] {
        session.close(CloseCode::Refused, "it is cut off");
    }
    slow.pace.set_rate(None);
    let taken = slow.end(dir.path());
    assert_eq!(taken.resumed_bytes, 0, "it was not begun again");
}

#[test]
fn a_connection_that_breaks_off_in_the_middle_leaves_its_pieces_to_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let slow = Slow::begin(dir.path(), 2);
    slow.pace.set_rate(Some(256 << 20));
    wait_until("some of it", || {
        let progress = slow.progress.lock();
        progress.done_bytes > progress.total_bytes / 4
    });
    slow.sessions.lock()[0].close(CloseCode::Refused, "it is cut off");
    slow.pace.set_rate(None);
    slow.end(dir.path());
}

#[test]
fn a_clone_whose_connections_are_all_lost_fails_and_is_gone_on_with_when_it_is_asked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let Slow { cluster, server, sessions, pace, progress, taking } = Slow::begin(dir.path(), 2);
    for session in &*sessions.lock() {
        session.close(CloseCode::Refused, "it is cut off");
    }
    let error = cluster.runtime.block_on(taking).unwrap().unwrap_err();
    assert!(error.to_string().contains("cut off"), "{error}");
    pace.set_rate(None);
    let here = progress.lock().done_bytes;
    let taking = Taking::new(dir.path().join("copy"), CloneRole::Detached, &options());
    let transport = over(2);
    let again = take_clone(cluster.address, &cluster.credentials, &transport, &taking, |_| {});
    assert_eq!(cluster.runtime.block_on(again).unwrap().resumed_bytes, here);
    cluster.runtime.block_on(server.unwrap().shutdown(Duration::from_millis(100)));
}

/// A session on which a clone was asked for, what keeps it, and the hash of the list that came.
async fn asked(cluster: &Cluster) -> (Endpoint, ReplicaSession, FileList, [u8; 32]) {
    let (address, transport) = (cluster.address, Transport::default());
    let opened = open_session(address, &cluster.credentials, &transport, &Opening::Clone).await.unwrap();
    let list: FileList = receive_list(&opened.1).await.unwrap();
    let hash = *blake3::hash(&encode(&list).unwrap()).as_bytes();
    (opened.0, opened.1, list, hash)
}

/// Asks for the first chunk of a clone over a session, and tells the words of who refuses it.
async fn first_chunk(session: &ReplicaSession, list: &FileList) -> Result<(), String> {
    let file = &list.files[0];
    let (file, length) = (wire_number(file.kind, file.number), file.len.min(CLONE_CHUNK_BYTES));
    let request = FileRequest { lease: 0, file, offset: 0, length };
    let mut data = planaria_engine::os::AlignedBuffer::new(CLONE_CHUNK_BYTES as usize);
    let asked = async {
        let mut receiver = session.fetch(request).await?;
        receiver.next(&mut data).await
    };
    match asked.await {
        Ok(Some(0)) => Ok(()),
        Ok(other) => panic!("{other:?}"),
        // The words come with the end of the connection.
        Err(_) => Err(session.closed().await.to_string()),
    }
}

#[test]
fn a_source_grants_a_clone_so_many_connections_and_none_to_others() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    fill(cluster.primary.database());
    let authority = TlsStore::named(dir.path().join("tls")).authority().unwrap();
    let issued = authority.issue("other", Roles::ALL, Duration::from_hours(24)).unwrap();
    let other = Credentials::from_pem(
        Path::new("test"),
        authority.cert_pem(),
        &issued.cert_pem,
        &issued.key_pem,
        Origin::Named,
    );
    let other = other.unwrap();
    cluster.runtime.block_on(async {
        let (_endpoint, first, list, hash) = asked(&cluster).await;
        let join = async |credentials: &Credentials, list: [u8; 32]| {
            let opening = Opening::Join { list };
            open_session(cluster.address, credentials, &Transport::default(), &opening).await.unwrap()
        };
        let mut joined = Vec::new();
        for _ in 1..CLONE_CONNECTIONS_MAX {
            joined.push(join(&cluster.credentials, hash).await);
            first_chunk(&joined.last().unwrap().1, &list).await.unwrap();
        }
        for (credentials, hash, words) in [
            (&cluster.credentials, hash, "at most 8"),
            (&cluster.credentials, [7; 32], "no clone with this list"),
            (&other, hash, "no clone with this list"),
        ] {
            let (_endpoint, refused) = join(credentials, hash).await;
            let why = first_chunk(&refused, &list).await.unwrap_err();
            assert!(why.contains(words), "{why}");
        }
        // The place of one that has gone is free again.
        let gone = joined.pop().unwrap();
        gone.1.connection().farewell(CloseCode::Refused, "it is not needed").await;
        let mut again = join(&cluster.credentials, hash).await;
        while first_chunk(&again.1, &list).await.is_err() {
            again = join(&cluster.credentials, hash).await;
        }
        // Nor does the cut go with the connection on which it was asked for.
        first.connection().farewell(CloseCode::Refused, "it is not needed").await;
        first_chunk(&joined[0].1, &list).await.unwrap();
    });
}

/// A source that notes what it is asked for.
struct Noting {
    pin: Arc<FilePin>,
    asked: Arc<Mutex<Vec<FileRequest>>>,
}

impl Handler for Noting {
    fn call(&self, _: &Peer, _: Call, _: &mut Exchange) -> Result<Response, RemoteError> {
        Ok(Response::Done)
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        let (pin, asked) = (Arc::clone(&self.pin), Arc::clone(&self.asked));
        Box::pin(async move {
            let mut list = session.open_bulk(bytes::Bytes::new()).await.unwrap();
            list.send(encode(pin.list()).unwrap()).await.unwrap();
            list.finish().await.unwrap();
            let kinds: Vec<_> = pin.list().files.iter().map(|file| (file.kind, file.number)).collect();
            while let Ok(Opened::File(request, sender)) = session.accept().await {
                asked.lock().push(request);
                let named = |(kind, number): &&_| wire_number(*kind, *number) == request.file;
                let (kind, number) = *kinds.iter().find(named).unwrap();
                let pin = Arc::clone(&pin);
                let read = move |offset, len| {
                    bulk::read(&pin, kind, number, offset, len)
                        .map_err(|error| RemoteError::new("clone", error.to_string()))
                };
                sender.serve(read).await.unwrap();
            }
        })
    }
}

#[test]
fn a_clone_that_hardly_moves_asks_for_a_chunk_at_a_time_and_keeps_its_cut_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    fill(cluster.primary.database());
    let asked = Arc::<Mutex<Vec<FileRequest>>>::default();
    let pin = Arc::new(cluster.primary.database().pin_files().unwrap());
    let server = listen(&cluster, Noting { pin: Arc::clone(&pin), asked: Arc::clone(&asked) });
    let pace = Arc::new(Pace::new(Some(1)));
    let taking = Taking {
        pace: Arc::clone(&pace),
        keep_every: Duration::from_millis(5),
        ..Taking::new(dir.path().join("copy"), CloneRole::Detached, &options())
    };
    let (address, credentials) = (server.local_address(), cluster.credentials.clone());
    let is_over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&is_over);
    let taking = cluster.runtime.spawn(async move {
        let taken = take_clone(address, &credentials, &over(1), &taking, |_| {}).await;
        ended.store(true, Ordering::Release);
        taken
    });
    let of_nothing = || asked.lock().iter().filter(|request| request.length == 0).count();
    wait_until("asked for nothing again and again", || of_nothing() > 20 || is_over.load(Ordering::Acquire));
    let lengths: Vec<u64> =
        asked.lock().iter().map(|request| request.length).filter(|length| *length > 0).collect();
    assert!(lengths.len() == 1 && lengths[0] <= CLONE_CHUNK_BYTES, "{lengths:?}");
    // What is under way is known whatever becomes of the rate.
    pace.set_rate(None);
    let taken = cluster.runtime.block_on(taking).unwrap().unwrap();
    assert_eq!(taken.done_bytes, taken.total_bytes);
    let offsets: BTreeSet<_> =
        asked.lock().iter().filter(|request| request.length > 0).map(|r| (r.file, r.offset)).collect();
    let count = asked.lock().iter().filter(|request| request.length > 0).count();
    assert_eq!(offsets.len(), count, "nothing is asked for twice");
    cluster.runtime.block_on(server.shutdown(Duration::from_millis(100)));
}

#[test]
fn a_clone_that_is_given_up_ends_over_all_its_connections() {
    let dir = tempfile::tempdir().unwrap();
    let Slow { cluster, server, pace, taking, .. } = Slow::begin(dir.path(), 3);
    pace.stop();
    let error = cluster.runtime.block_on(taking).unwrap().unwrap_err();
    assert!(matches!(error, Error::GivenUp), "{error}");
    wait_until("let go of by its source", || cluster.primary.going_out().is_empty());
    assert!(cluster.primary.database().clones().unwrap().is_empty(), "it is not noted");
    cluster.runtime.block_on(server.unwrap().shutdown(Duration::from_millis(100)));
}
