//! A million records: what a secondary that was away costs, while a writer goes on and readers look.
//!
//! In one process, over real sockets and real files, so that what moved can be counted exactly.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use planaria_engine::{Batch, Database, Durability, Options, Table};
use planaria_net::quic::session::ReplicaSession;
use planaria_net::quic::{AcceptLimits, Credentials, Endpoint, Peer, TlsStore, Transport};
use planaria_net::replica::{Follow, FollowStatus, Follower, Leading, Primary, Slot};
use planaria_net::wire::message::{Call, RemoteError, Response};
use planaria_net::wire::rpc::{BoxFuture, Exchange, Handler, ServeLimits, Server, serve};
use planaria_replication::Way;
use planaria_replication::secondary::State;
use planaria_tests::cluster::{Random, Stopwatch, wait_for};

/// Records of the table.
const RECORDS: u64 = 1_000_000;
/// Bytes of a row.
const ROW_BYTES: usize = 100;
/// Records that are changed and deleted while the secondary is away.
const CHANGED: usize = 10_000;
const DELETED: usize = 1_000;
/// Keys that the writer writes over and over.
const LIVE_KEYS: u64 = 500;
/// Records of the system fragment that may move too: definitions, registrations.
const SYSTEM_MAX: u64 = 16;

/// What replication charges for a record besides its key and its row, in bytes.
const RECORD_CHARGE: u64 = 32;

struct Service(Arc<Primary>);

impl Handler for Service {
    fn call(&self, _: &Peer, _: Call, _: &mut Exchange) -> Result<Response, RemoteError> {
        Ok(Response::Done)
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        self.0.take_over(session, None)
    }
}

/// A log that keeps nothing for others: it cannot help a secondary that was away.
fn options() -> Options {
    Options { log_tail_bytes: 0, log_segment_bytes: 1 << 20, ..Options::default() }
}

struct Pair {
    runtime: tokio::runtime::Runtime,
    credentials: Credentials,
    server: Option<Server>,
    primary: Arc<Primary>,
}

impl Pair {
    fn start(dir: &Path) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let credentials = TlsStore::named(dir.join("tls")).load_or_create().unwrap();
        let primary =
            Primary::start(Database::open_with(dir.join("primary"), options()).unwrap(), Leading::default())
                .unwrap();
        let service = Arc::new(Service(Arc::clone(&primary)));
        let server = runtime.block_on(async {
            let address = ([127, 0, 0, 1], 0).into();
            let limits = AcceptLimits::default();
            let endpoint = Endpoint::server(address, &credentials, &Transport::default(), limits).unwrap();
            serve(endpoint, service, ServeLimits::default())
        });
        Self { runtime, credentials, server: Some(server), primary }
    }

    fn follow(&self, slot: &Slot) -> Follower {
        let follow = Follow {
            primary: self.server.as_ref().unwrap().local_address(),
            name: "second".into(),
            port: None,
            portion: None,
            credentials: self.credentials.clone(),
            transport: Transport::default(),
            options: options(),
            siblings: Vec::new(),
            note: None,
            pace: None,
        };
        Follower::start(slot.clone(), follow, self.runtime.handle().clone()).unwrap()
    }

    fn caught_up(&self, slot: &Slot, follower: &Follower) -> FollowStatus {
        let goal = self.primary.database().log_end().0;
        let look = || {
            let status = follower.status();
            assert!(status.failure.is_none(), "{status:?}");
            let there = status.replica.state == State::Online && slot.get().visible() >= goal;
            there.then_some(status)
        };
        wait_for("the secondary to catch up", look, || format!("{:?}", follower.status()))
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown(Duration::from_millis(100)));
        }
    }
}

/// Keys in no order, each once.
fn key(id: u64) -> Vec<u8> {
    Random::new(id).number().to_be_bytes().to_vec()
}

fn row(what: &str, id: u64) -> Vec<u8> {
    let mut row = format!("{what} {id} ").into_bytes();
    let mut random = Random::new(id);
    row.resize_with(ROW_BYTES, || random.number() as u8);
    row
}

fn put(db: &Database, table: &Table, what: &str, ids: impl Iterator<Item = u64>) {
    let mut batch = Batch::new();
    let mut waiting = 0;
    for id in ids {
        batch.put(table.id(), key(id), row(what, id));
        waiting += 1;
        if waiting == 1_000 {
            db.write(std::mem::take(&mut batch), Durability::Background).unwrap();
            waiting = 0;
        }
    }
    db.write(batch, Durability::Synced).unwrap();
}

/// A thread that goes on until it is stopped; it returns how often it did its work.
struct Going {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Going {
    fn start(mut work: impl FnMut(u64) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut times = 0;
            while !stopped.load(Ordering::Acquire) {
                work(times);
                times += 1;
            }
            times
        });
        Self { stop, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap()
    }

    fn writer(db: &Database, table: &Table) -> Self {
        let (db, table) = (db.clone(), table.clone());
        Self::start(move |times| {
            let mut batch = Batch::new();
            batch.put(table.id(), (times % LIVE_KEYS).to_be_bytes(), times.to_string());
            db.write(batch, Durability::Synced).unwrap();
            std::thread::park_timeout(Duration::from_micros(500));
        })
    }

    /// Looks at rows that change in one refresh: all are as before, or all are as after it.
    fn reader(slot: &Slot, table: &Table, changed: &[u64], deleted: &[u64]) -> Self {
        let some = |ids: &[u64]| -> Vec<u64> { ids.iter().step_by(ids.len() / 100).copied().collect() };
        let (slot, table, changed, deleted) = (slot.clone(), table.id(), some(changed), some(deleted));
        Self::start(move |_| {
            let snapshot = slot.get().snapshot();
            let found = |id: u64| snapshot.get(table, &key(id)).unwrap();
            let new = changed.iter().filter(|id| found(**id).unwrap().starts_with(b"changed")).count();
            let gone = deleted.iter().filter(|id| found(**id).is_none()).count();
            let before = new == 0 && gone == 0;
            let after = new == changed.len() && gone == deleted.len();
            assert!(before || after, "a mixture: {new} of {} and {gone} of {}", changed.len(), deleted.len());
        })
    }
}

/// Different ids, in no order.
fn draw(random: &mut Random, many: usize) -> Vec<u64> {
    let mut drawn = std::collections::HashSet::new();
    let mut ids = Vec::with_capacity(many);
    while ids.len() < many {
        let id = random.below(RECORDS);
        if drawn.insert(id) {
            ids.push(id);
        }
    }
    ids
}

fn equal(one: &Database, other: &Database) {
    assert_eq!(one.snapshot().digests().unwrap(), other.snapshot().digests().unwrap());
}

#[test]
#[ignore = "takes minutes; run with --ignored in release"]
fn of_a_million_records_those_move_that_differ() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random::announced("million", 1);
    let pair = Pair::start(dir.path());
    let db = pair.primary.database().clone();
    let (table, live) = (db.create_raw_table("t").unwrap(), db.create_raw_table("live").unwrap());
    let stopwatch = Stopwatch::start();
    put(&db, &table, "first", 0..RECORDS);
    eprintln!("{RECORDS} records written in {:?}", stopwatch.elapsed());

    let place = dir.path().join("secondary");
    let empty = Database::open_with(&place, options()).unwrap();
    empty.become_secondary(db.id()).unwrap();
    let slot = Slot::new(empty);
    let stopwatch = Stopwatch::start();
    let follower = pair.follow(&slot);
    let status = pair.caught_up(&slot, &follower);
    eprintln!("first copy by {:?} in {:?}", status.replica.way, stopwatch.elapsed());
    equal(&db, &slot.get());
    follower.stop();
    drop(slot);

    let ids = draw(&mut random, CHANGED + DELETED);
    let (changed, deleted) = ids.split_at(CHANGED);
    put(&db, &table, "changed", changed.iter().copied());
    let mut batch = Batch::new();
    for id in deleted {
        batch.delete(table.id(), key(*id));
    }
    db.write(batch, Durability::Synced).unwrap();
    db.compact().unwrap();

    let slot = Slot::new(Database::open_with(&place, options()).unwrap());
    let reader = Going::reader(&slot, &table, changed, deleted);
    let writer = Going::writer(&db, &live);
    let stopwatch = Stopwatch::start();
    let follower = pair.follow(&slot);
    let status = pair.caught_up(&slot, &follower);
    let took = stopwatch.elapsed();
    let local = clone_meanwhile(&db, dir.path());
    let written = writer.end();
    pair.caught_up(&slot, &follower);
    let looks = reader.end();
    let (records, bytes) = (status.last_refresh_records, status.last_refresh_bytes);
    eprintln!(
        "{} ({:?}): {records} records, {bytes} bytes in {took:?}; {written} live commits, {looks} looks",
        status.replica.way.unwrap(),
        status.replica.reason
    );
    assert_eq!(status.replica.way, Some(Way::Delta), "{status:?}");
    let differ = (CHANGED + DELETED) as u64;
    let others = written.min(LIVE_KEYS) + SYSTEM_MAX;
    assert!((differ..=differ + others).contains(&records), "{records} records moved");
    // Key, UID and row of what changed; key and UID of what is gone; and what the writer may add.
    let weight = (CHANGED * (8 + 8 + ROW_BYTES) + DELETED * (8 + 8)) as u64;
    // What is reported charges each record flatly for its head; the UID is a part of that.
    let payload = bytes - records * (RECORD_CHARGE - 8);
    let allowed = (weight + (records - differ) * 128) * 11 / 10;
    assert!(payload <= allowed, "{payload} bytes moved, {weight} differ");
    equal(&db, &slot.get());
    slot.get().verify().unwrap();
    follower.stop();
    check_independence(&db, &local);
}

/// A clone on the same disk while the writer goes on.
fn clone_meanwhile(db: &Database, dir: &Path) -> Database {
    let stopwatch = Stopwatch::start();
    let before = db.visible();
    let cloned = db.clone_to(dir.join("clone")).unwrap();
    eprintln!("local clone: {} bytes by {} links in {:?}", cloned.bytes, cloned.linked, stopwatch.elapsed());
    assert!((before..=db.visible()).contains(&cloned.position.uid));
    let clone = Database::open_with(dir.join("clone"), options()).unwrap();
    clone.verify().unwrap();
    clone
}

/// Neither side's later writes reach the other.
fn check_independence(db: &Database, clone: &Database) {
    let (here, there) = (db.table("t").unwrap(), clone.table("t").unwrap());
    let before = clone.snapshot().digests().unwrap();
    here.put("of the source", "row").unwrap();
    here.delete(key(0)).unwrap();
    db.compact().unwrap();
    assert_eq!(clone.snapshot().digests().unwrap(), before);
    assert_eq!(there.get(b"of the source").unwrap(), None);
    let before = db.snapshot().digests().unwrap();
    there.put("of the clone", "row").unwrap();
    there.delete(key(1)).unwrap();
    clone.compact().unwrap();
    assert_eq!(db.snapshot().digests().unwrap(), before);
    assert_eq!(here.get(b"of the clone").unwrap(), None);
    clone.verify().unwrap();
}
