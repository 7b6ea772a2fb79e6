//! Clones of a database whose writers stay connected: by links on the same disk, over loopback with both ends in this process, and
//! by what has changed since an earlier clone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use planaria_engine::os::Posix;
use planaria_engine::{
    Batch, CloneAbout, ClonePlace, ClonePurpose, CloneRole, Database, Durability, Options, Table,
};
use planaria_net::quic::session::ReplicaSession;
use planaria_net::quic::{AcceptLimits, Credentials, Endpoint, Peer, TlsStore, Transport};
use planaria_net::replica::{Leading, Pace, Primary, Taking, renew, take_clone};
use planaria_net::wire::message::{Call, DatabaseStatus, RemoteError, Request, Response, Status};
use planaria_net::wire::rpc::{BoxFuture, Exchange, Handler, ServeLimits, Server, serve};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const RECORDS: u64 = 200_000;
const ROW_BYTES: usize = 500;
/// One record in so many changes between two clones.
const CHANGED_ONE_IN: u64 = 100;

/// As much of a node as clones ask for.
struct Node(Arc<Primary>);

impl Handler for Node {
    fn call(&self, _: &Peer, call: Call, _: &mut Exchange) -> Result<Response, RemoteError> {
        if let Request::ReplicaDo { name, .. } = call.request {
            let named =
                self.0.replica_named(&name).map_err(|_| RemoteError::new("unknown_replica", &name))?;
            let forgotten =
                self.0.forget(named).map_err(|error| RemoteError::new("io", error.to_string()))?;
            return forgotten
                .map(|()| Response::Done)
                .map_err(|error| RemoteError::new("connected", error.to_string()));
        }
        let db = self.0.database();
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
        self.0.take_over(session, None)
    }
}

/// A database that is served to others over loopback.
struct Source {
    dir: TempDir,
    runtime: Runtime,
    credentials: Credentials,
    address: SocketAddr,
    db: Database,
    table: Table,
    server: Option<Server>,
    turn: u64,
}

impl Source {
    fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let runtime = Runtime::new().expect("a runtime");
        let credentials =
            TlsStore::named(dir.path().join("tls")).load_or_create().expect("certificates are made");
        let db = Database::open(dir.path().join("source")).expect("a new database opens");
        let table = db.create_raw_table("t").expect("a new table is made");
        write(&db, &table, 0..RECORDS, 0);
        db.compact().expect("everything is compacted");
        let primary = Primary::start(db.clone(), Leading::default()).expect("a primary leads");
        let server = runtime.block_on(async {
            let (any, transport) = (SocketAddr::from(([127, 0, 0, 1], 0)), Transport::default());
            let endpoint = Endpoint::server(any, &credentials, &transport, AcceptLimits::default());
            serve(endpoint.expect("a port of loopback"), Arc::new(Node(primary)), ServeLimits::default())
        });
        let address = server.local_address();
        Self { dir, runtime, credentials, address, db, table, server: Some(server), turn: 0 }
    }

    /// A directory that is not there yet.
    fn target(&mut self) -> PathBuf {
        self.turn += 1;
        self.dir.path().join(format!("clone-{}", self.turn))
    }

    fn take(&self, taking: &Taking) -> u64 {
        let transport = Transport::default();
        let taken = take_clone(self.address, &self.credentials, &transport, taking, |_| {});
        self.runtime.block_on(taken).expect("a clone is taken").total_bytes
    }

    /// Changes a part of the records.
    fn change(&mut self) {
        self.turn += 1;
        write(&self.db, &self.table, (0..RECORDS).step_by(CHANGED_ONE_IN as usize), self.turn);
        self.db.flush().expect("the changes are written out");
    }

    /// Brings a clone up to date by what has changed, and puts it in its own place.
    fn renew(&self, place: &ClonePlace) {
        let options = Options::default();
        place.begin_renewal(&options).expect("nobody wrote to the clone");
        let (dir, handle) = (place.renewing(), self.runtime.handle());
        let about = CloneAbout { purpose: ClonePurpose::Detached, ..CloneAbout::default() };
        let transport = Transport::default();
        let (from, pace) = ((self.address, &self.credentials, &transport), Arc::new(Pace::default()));
        let end = |_: &_, db| Ok(place.end_renewal(db, &about)?);
        renew(from, &dir, &options, &pace, handle, |_| {}, end).expect("the clone is brought up to date");
        place.install().expect("it takes its place");
        place.drop_replaced().expect("what it replaced is removed");
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown(Duration::from_millis(100)));
        }
    }
}

/// Rows of which half the bytes compress.
fn write(db: &Database, table: &Table, numbers: impl Iterator<Item = u64>, turn: u64) {
    let mut numbers = numbers.peekable();
    while numbers.peek().is_some() {
        let mut batch = Batch::new();
        for number in numbers.by_ref().take(1_000) {
            let mut word = (number ^ turn).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut row = vec![b'.'; ROW_BYTES];
            for part in row.chunks_exact_mut(8).take(ROW_BYTES / 16) {
                word = (word ^ (word >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                part.copy_from_slice(&word.to_le_bytes());
            }
            batch.put(table.id(), number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(), row);
        }
        db.write(batch, Durability::Background).expect("a batch is written");
    }
}

fn remove(dir: &Path) {
    if dir.exists() {
        std::fs::remove_dir_all(dir).expect("a clone is removed");
    }
}

/// Times what `take` does with a new directory each time; `prepare` comes before, and what was made goes after, untimed.
fn timed(
    bencher: &mut criterion::Bencher<'_>,
    source: &mut Source,
    prepare: impl Fn(&mut Source),
    take: impl Fn(&Source, &Path),
) {
    bencher.iter_custom(|turns| {
        let mut took = Duration::ZERO;
        for _ in 0..turns {
            prepare(source);
            let target = source.target();
            #[expect(clippy::disallowed_methods, reason = "a benchmark measures time")]
            let begun = std::time::Instant::now();
            take(source, &target);
            took += begun.elapsed();
            remove(&target);
        }
        took
    });
}

fn clones(criterion: &mut Criterion) {
    let mut source = Source::start();
    let options = Options::default();
    let base = source.target();
    let bytes = source.take(&Taking::new(&base, CloneRole::Detached, &options));
    let mut group = criterion.benchmark_group("clone");
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    group.bench_function("local, by links", |bencher| {
        timed(
            bencher,
            &mut source,
            |_| {},
            |source, target| {
                source.db.clone_to(target).expect("a clone is made");
            },
        );
    });
    group.bench_function("remote, over loopback", |bencher| {
        timed(
            bencher,
            &mut source,
            |_| {},
            |source, target| {
                source.take(&Taking::new(target, CloneRole::Detached, &options));
            },
        );
    });
    group.bench_function("remote, the files that another clone lacks", |bencher| {
        timed(bencher, &mut source, Source::change, |source, target| {
            let reuse = Some(base.clone());
            source.take(&Taking { reuse, ..Taking::new(target, CloneRole::Detached, &options) });
        });
    });
    let place = ClonePlace::new(&base, Arc::new(Posix));
    group.bench_function("incremental, one record in a hundred changed", |bencher| {
        timed(bencher, &mut source, Source::change, |source, _| source.renew(&place));
    });
    group.finish();
}

criterion_group!(benches, clones);
criterion_main!(benches);
