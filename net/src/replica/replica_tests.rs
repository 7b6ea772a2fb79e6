//! A primary and a secondary in one process, over real sockets and real files.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use planaria_engine::{Batch, CloneRole, Database, Durability, Options, Table};
use planaria_replication::secondary::State;
use planaria_replication::{Reason, Way};
use planaria_types::{KeyRange, Portion};

use super::{Follow, FollowStatus, Follower, Leading, Pace, Primary, Slot, clone_from};
use crate::quic::session::ReplicaSession;
use crate::quic::{AcceptLimits, Credentials, Endpoint, Peer, TlsStore, Transport};
use crate::wire::message::{Call, RemoteError, Response};
use crate::wire::rpc::{BoxFuture, Exchange, Handler, ServeLimits, Server, serve};

struct Node(Arc<Primary>);

impl Handler for Node {
    fn call(&self, _: &Peer, _: Call, _: &mut Exchange) -> Result<Response, RemoteError> {
        Ok(Response::Done)
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        self.0.take_over(session, None)
    }
}

pub(super) fn options() -> Options {
    Options {
        memtable_bytes: 1 << 20,
        log_segment_bytes: 256 << 10,
        log_tail_bytes: 0,
        log_bytes_max: 1 << 20,
        ..Options::default()
    }
}

pub(super) struct Cluster {
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) credentials: Credentials,
    server: Option<Server>,
    pub(super) address: SocketAddr,
    pub(super) primary: Arc<Primary>,
}

impl Cluster {
    pub(super) fn start(dir: &Path) -> Self {
        Self::start_with(dir, options())
    }

    pub(super) fn start_with(dir: &Path, options: Options) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let credentials = TlsStore::named(dir.join("tls")).load_or_create().unwrap();
        let db = Database::open_with(dir.join("primary"), options).unwrap();
        let primary = Primary::start(db, Leading::default()).unwrap();
        let node = Arc::new(Node(Arc::clone(&primary)));
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = runtime.block_on(async {
            let endpoint =
                Endpoint::server(address, &credentials, &Transport::default(), AcceptLimits::default())
                    .unwrap();
            serve(endpoint, node, ServeLimits::default())
        });
        let address = server.local_address();
        Self { runtime, credentials, server: Some(server), address, primary }
    }

    pub(super) fn follow(&self, slot: &Slot) -> Follower {
        self.follow_holding(slot, None)
    }

    pub(super) fn follow_holding(&self, slot: &Slot, portion: Option<Portion>) -> Follower {
        self.start_following(slot, Follow { portion, ..self.terms() })
    }

    pub(super) fn follow_at(&self, slot: &Slot, pace: &Arc<Pace>) -> Follower {
        self.start_following(slot, Follow { pace: Some(Arc::clone(pace)), ..self.terms() })
    }

    fn start_following(&self, slot: &Slot, follow: Follow) -> Follower {
        Follower::start(slot.clone(), follow, self.runtime.handle().clone()).unwrap()
    }

    fn terms(&self) -> Follow {
        Follow {
            primary: self.address,
            name: "second".into(),
            port: None,
            portion: None,
            credentials: self.credentials.clone(),
            transport: Transport::default(),
            options: options(),
            siblings: Vec::new(),
            note: None,
            pace: None,
        }
    }

    pub(super) fn secondary(&self, dir: &Path) -> Slot {
        let db = Database::open_with(dir, options()).unwrap();
        db.become_secondary(self.primary.database().id()).unwrap();
        Slot::new(db)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown(Duration::from_millis(100)));
        }
    }
}

/// Waits until the secondary shows what the primary has, and returns what it then says of itself.
pub(super) fn caught_up(cluster: &Cluster, slot: &Slot, follower: &Follower) -> FollowStatus {
    for _ in 0..10_000 {
        let status = follower.status();
        let last = cluster.primary.database().log_end().0;
        // What it says of itself may be of a moment before.
        let shown = slot.get().visible().min(status.replica.visible);
        if status.replica.state == State::Online && shown >= last {
            return status;
        }
        assert!(status.failure.is_none(), "{status:?}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
    panic!("the secondary does not catch up: {:?}", follower.status());
}

pub(super) fn fill(db: &Database, table: &Table, keys: std::ops::Range<u64>, row: &str) {
    for key in keys {
        let mut batch = Batch::new();
        batch.put(table.id(), key.to_be_bytes(), format!("{row} {key}"));
        db.write(batch, Durability::Background).unwrap();
    }
}

pub(super) fn equal(one: &Database, other: &Database) {
    assert_eq!(one.snapshot().digests().unwrap(), other.snapshot().digests().unwrap());
}

#[test]
fn a_secondary_follows_goes_away_and_is_refreshed_by_what_changed_while_a_writer_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    let table = db.create_raw_table("t").unwrap();
    fill(&db, &table, 0..30_000, "first");
    let slot = cluster.secondary(&dir.path().join("secondary"));
    let follower = cluster.follow(&slot);
    caught_up(&cluster, &slot, &follower);
    equal(&db, &slot.get());
    follower.stop();
    drop(slot);

    // More than the newest log segment and the memory of the newest commits hold.
    fill(&db, &table, 100..400, &"changed while away ".repeat(100));
    for key in 1_000..1_030_u64 {
        table.delete(key.to_be_bytes()).unwrap();
    }
    db.compact().unwrap();
    fill(&db, &table, 20_000..20_010, "and again");
    db.flush().unwrap();

    let slot = Slot::new(Database::open_with(dir.path().join("secondary"), options()).unwrap());
    let old = slot.get().snapshot().digests().unwrap();
    let writer = {
        let (db, table) = (db.clone(), table.clone());
        std::thread::spawn(move || fill(&db, &table, 40_000..41_000, "live"))
    };
    let follower = cluster.follow(&slot);
    assert!(!old.is_empty());
    let status = caught_up(&cluster, &slot, &follower);
    writer.join().unwrap();
    let status =
        if slot.get().visible() < db.visible() { caught_up(&cluster, &slot, &follower) } else { status };
    assert_eq!(status.replica.way, Some(Way::Delta), "{status:?}");
    let moved = status.replica.counters.records;
    assert!((340..1_500).contains(&moved), "{moved} records moved");
    equal(&db, &slot.get());
    slot.get().verify().unwrap();
    follower.stop();
}

#[test]
fn what_a_tail_moved_is_told_in_records() {
    let dir = tempfile::tempdir().unwrap();
    let kept = Options { log_tail_bytes: 64 << 20, log_bytes_max: 64 << 20, ..options() };
    let cluster = Cluster::start_with(dir.path(), kept);
    let db = cluster.primary.database().clone();
    let table = db.create_raw_table("t").unwrap();
    let slot = cluster.secondary(&dir.path().join("secondary"));
    let follower = cluster.follow(&slot);
    caught_up(&cluster, &slot, &follower);
    follower.stop();
    fill(&db, &table, 0..300, "away");
    let follower = cluster.follow(&slot);
    let status = caught_up(&cluster, &slot, &follower);
    assert_eq!(status.last_refresh_way, Some(Way::Tail), "{status:?}");
    // Besides them at most a registration or two, which are records as well.
    assert!((300..330).contains(&status.last_refresh_records), "{status:?}");
    assert!(status.last_refresh_bytes > 300 * 8, "{status:?}");
    follower.stop();
}

#[test]
fn a_return_that_is_interrupted_goes_on_from_what_it_has_brought() {
    const KEYS: u64 = 30_000;
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    let table = db.create_raw_table("t").unwrap();
    let row = "x".repeat(1_000);
    fill(&db, &table, 0..KEYS, &row);
    let slot = cluster.secondary(&dir.path().join("secondary"));
    let follower = cluster.follow(&slot);
    caught_up(&cluster, &slot, &follower);
    follower.stop();
    // Where the machine is so quick that all of it has come before anybody can interrupt it, it is tried again.
    for attempt in 0..20 {
        fill(&db, &table, 0..KEYS / 4, &format!("{attempt} {row}"));
        let follower = cluster.follow(&slot);
        let instance = slot.get().instance();
        let status = until(&follower, |status| {
            status.replica.progress.bytes > 2 << 20 || status.replica.state == State::Online
        });
        cluster.primary.pause(instance, true).unwrap();
        if status.replica.state != State::Online {
            until(&follower, |status| matches!(status.replica.state, State::Offline | State::Online));
        }
        // What changes meanwhile comes as well, before and behind the place where it was interrupted.
        fill(&db, &table, 0..100, "before");
        fill(&db, &table, KEYS / 4 - 100..KEYS / 4, "behind");
        cluster.primary.pause(instance, false).unwrap();
        let counters = caught_up(&cluster, &slot, &follower).replica.counters;
        equal(&db, &slot.get());
        follower.stop();
        if counters.resumptions > 0 {
            let changed = KEYS / 4 * row.len() as u64;
            assert!(counters.refresh_bytes < changed * 5 / 4, "{counters:?} for {changed} bytes");
            slot.get().verify().unwrap();
            return;
        }
    }
    panic!("no delta was ever interrupted");
}

/// Waits until a follower says what is asked of it.
fn until(follower: &Follower, is_so: impl Fn(&FollowStatus) -> bool) -> FollowStatus {
    for _ in 0..100_000 {
        let status = follower.status();
        if is_so(&status) {
            return status;
        }
        std::thread::park_timeout(Duration::from_micros(200));
    }
    panic!("waited in vain: {:?}", follower.status());
}

/// Ingests `keys`, all with the same row, as one commit.
fn ingest(table: &Table, keys: std::ops::Range<u64>, row: &[u8]) {
    let mut ingest = table.ingest().unwrap();
    for key in keys {
        ingest.put(key.to_be_bytes(), row).unwrap();
    }
    ingest.finish().unwrap();
}

/// Looks at the keys on the secondary until `ended` hangs up: they are all there with one row, or none is.
fn watch(slot: &Slot, table: &Table, keys: std::ops::Range<u64>, ended: &Receiver<()>) {
    let range = || KeyRange::new(keys.start.to_be_bytes(), Some(keys.end.to_be_bytes().to_vec()));
    while ended.try_recv() == Err(TryRecvError::Empty) {
        let rows: Vec<_> =
            slot.get().snapshot().scan(table.id(), range()).map(|record| record.unwrap().1).collect();
        assert!(rows.is_empty() || rows.len() as u64 == keys.end - keys.start, "{} rows", rows.len());
        assert!(rows.windows(2).all(|pair| pair[0] == pair[1]), "rows of two ingests");
    }
}

#[test]
fn a_live_secondary_shows_all_of_a_bulk_ingest_or_nothing_and_goes_on_behind_it() {
    const KEYS: std::ops::Range<u64> = 50_000..52_000;
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    let table = db.create_raw_table("t").unwrap();
    fill(&db, &table, 0..10_000, "first");
    let slot = cluster.secondary(&dir.path().join("secondary"));
    let follower = cluster.follow(&slot);
    let before = caught_up(&cluster, &slot, &follower).replica.counters.refreshes;
    std::thread::scope(|scope| {
        let (running, ended) = std::sync::mpsc::sync_channel(0);
        let (slot, table, db) = (&slot, &table, &db);
        let watcher = scope.spawn(move || watch(slot, table, KEYS, &ended));
        let writer = scope.spawn(|| fill(db, table, 40_000..42_000, "live"));
        for round in 0..3 {
            ingest(table, KEYS, format!("ingest {round}").as_bytes());
            if round == 0 {
                caught_up(&cluster, slot, &follower);
            }
        }
        writer.join().unwrap();
        let status = caught_up(&cluster, slot, &follower);
        assert!(status.replica.counters.refreshes > before, "{status:?}");
        assert_eq!(
            (status.replica.way, status.replica.reason),
            (Some(Way::Delta), Some(Reason::LogReleased))
        );
        drop(running);
        watcher.join().unwrap();
    });
    equal(&db, &slot.get());
    fill(&db, &table, 60_000..60_100, "behind the ingests");
    caught_up(&cluster, &slot, &follower);
    equal(&db, &slot.get());
    slot.get().verify().unwrap();
    follower.stop();
}

#[test]
fn a_live_secondary_takes_run_files_where_most_of_the_data_was_ingested() {
    // More than the run files that are never taken as they are, and nothing that shrinks.
    const KEYS: std::ops::Range<u64> = 1_000_000..1_004_500;
    let row: Vec<u8> =
        (1..=2_048_u64).flat_map(|word| word.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    let table = db.create_raw_table("t").unwrap();
    // The log has nothing of an ingest, so the first refresh is a delta.
    ingest(&table, 0..1_000, b"first");
    let slot = cluster.secondary(&dir.path().join("secondary"));
    let follower = cluster.follow(&slot);
    let first = caught_up(&cluster, &slot, &follower);
    assert_eq!(first.last_refresh_way, Some(Way::Delta), "{first:?}");
    assert!(first.last_refresh_records >= 1_000, "{first:?}");
    std::thread::scope(|scope| {
        let (running, ended) = std::sync::mpsc::sync_channel(0);
        let (slot, table) = (&slot, &table);
        let watcher = scope.spawn(move || watch(slot, table, KEYS, &ended));
        ingest(table, KEYS, &row);
        let status = caught_up(&cluster, slot, &follower);
        assert_eq!(status.last_refresh_way, Some(Way::Bulk), "{status:?}");
        let rows = (KEYS.end - KEYS.start) * row.len() as u64;
        assert!(status.last_refresh_bytes > rows, "{status:?}");
        assert!(status.traffic.frame_bytes_received > rows, "the run files are counted: {status:?}");
        drop(running);
        watcher.join().unwrap();
    });
    assert!(slot.get().lineage().is_some(), "the copy was taken anew");
    equal(&db, &slot.get());
    slot.get().verify().unwrap();
    follower.stop();
}

#[test]
fn an_empty_secondary_of_a_large_primary_takes_run_files_and_a_detached_clone_goes_its_own_way() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    let table = db.create_raw_table("t").unwrap();
    fill(&db, &table, 0..20_000, "row");
    let target = dir.path().join("clone");
    let cloned = cluster
        .runtime
        .block_on(clone_from(
            cluster.address,
            &cluster.credentials,
            &Transport::default(),
            &target,
            CloneRole::Detached,
            &options(),
            |_| {},
        ))
        .unwrap();
    assert!(cloned.total_bytes > 0 && cloned.done_bytes == cloned.total_bytes);
    let copy = Database::open_with(&target, options()).unwrap();
    equal(&db, &copy);
    assert_ne!(copy.id(), db.id());
    copy.table("t").unwrap().put("own", "row").unwrap();

    let second = dir.path().join("second");
    cluster
        .runtime
        .block_on(clone_from(
            cluster.address,
            &cluster.credentials,
            &Transport::default(),
            &second,
            CloneRole::Secondary,
            &options(),
            |_| {},
        ))
        .unwrap();
    fill(&db, &table, 20_000..20_100, "after the clone");
    let slot = Slot::new(Database::open_with(&second, options()).unwrap());
    let follower = cluster.follow(&slot);
    let mut status = follower.status();
    while slot.get().visible() < db.log_end().0 {
        assert!(status.failure.is_none(), "{status:?}");
        std::thread::park_timeout(Duration::from_millis(2));
        status = follower.status();
    }
    equal(&db, &slot.get());
    assert!(matches!(status.replica.reason, Some(Reason::LogHoldsAll | Reason::LogReleased)), "{status:?}");
    follower.stop();
}

#[test]
fn a_secondary_that_is_to_wait_gets_nothing_however_often_it_asks() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path());
    let db = cluster.primary.database().clone();
    let table = db.create_raw_table("t").unwrap();
    let slot = cluster.secondary(&dir.path().join("secondary"));
    let follower = cluster.follow(&slot);
    caught_up(&cluster, &slot, &follower);
    let instance = slot.get().instance();
    cluster.primary.pause(instance, true).unwrap();
    let until = |what: &str, is_so: &dyn Fn(&FollowStatus) -> bool| {
        for _ in 0..20_000 {
            if is_so(&follower.status()) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
        panic!("not {what}: {:?}", follower.status());
    };
    until("offline", &|status| status.replica.state == State::Offline);
    let before = slot.get().log_end().0;
    fill(&db, &table, 0..10, "while it waits");
    let asked = follower.status().replica.counters.sessions;
    until("asking again", &|status| status.replica.counters.sessions >= asked + 3);
    assert_eq!(slot.get().log_end().0, before);
    cluster.primary.pause(instance, false).unwrap();
    caught_up(&cluster, &slot, &follower);
    equal(&db, &slot.get());
}
