//! `planaria bench live`: what a secondary that follows costs a primary that is written to at full speed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use planaria_engine::{Batch, Database, Durability, Options, Table};
use planaria_net::quic::TlsStore;
use planaria_types::Uid;
use rustix::time::{ClockId, clock_gettime};

use crate::cli::{Global, LiveArgs};
use crate::commands::print;
use crate::commands::serve::runtime;
use crate::node::{Node, NodeOptions};
use crate::output::{Cell, CliError, Report};
use crate::program::{Program, Site};
use crate::session::{IfAbsent, Place, Session};
use crate::stopwatch::Stopwatch;

/// Keys that are written over and over.
const KEYS: u64 = 1_000_000;
/// Commits between two looks at the clock.
const COMMITS_BETWEEN_LOOKS: u64 = 64;
/// How long the secondary may take to catch up before the bench gives up.
const ONLINE_WITHIN: Duration = Duration::from_mins(5);
const LOOK_EVERY: Duration = Duration::from_millis(5);
const TABLE: &str = "records";

/// Measures a primary alone and with a secondary, in turns. The secondary is a process of its own, so that the
/// processor time of this one is the primary's.
pub(crate) fn run(global: &Global, arguments: &LiveArgs) -> Result<(), CliError> {
    let site = match &arguments.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let site = site.map_err(|error| CliError::new("io", format!("no temporary directory: {error}")))?;
    let runtime = Arc::new(runtime()?);
    TlsStore::named(site.path().join("tls")).create()?;
    let options = NodeOptions::beside_others(site.path(), "primary", Options::default());
    let primary = Node::start(&runtime, &options, |_| {})?;
    let db = primary.database();
    let table = db.create_raw_table(TABLE)?;
    let mut writer = Writer { db, table, arguments, written: 0 };
    // Memory, files and the background are as they stay before anything is measured.
    writer.write()?;
    let (mut alone, mut followed) = (Cost::default(), Cost::default());
    let mut equal = true;
    for _ in 0..arguments.rounds {
        alone.add(&writer.write()?);
        let secondary = Secondary::start(site.path(), primary.address())?;
        secondary.wait_until("online", |state, _| state == "online")?;
        followed.add(&writer.write()?);
        let end = writer.db.sync()?;
        secondary.wait_until("at the last commit", |_, visible| visible >= end)?;
        equal &= secondary.digest()? == Some(writer.db.snapshot().digest_of(writer.table.definition())?);
    }
    let report = Report::new()
        .with("batch", Cell::Count(arguments.batch))
        .with("value_bytes", Cell::Bytes(arguments.value_size))
        .with("alone_commits_per_second", Cell::Count(alone.commits_per_second()))
        .with("followed_commits_per_second", Cell::Count(followed.commits_per_second()))
        .with("alone_cpu_us_per_commit", Cell::Ratio(alone.cpu_us_per_commit()))
        .with("followed_cpu_us_per_commit", Cell::Ratio(followed.cpu_us_per_commit()))
        .with("cpu_ratio", Cell::Ratio(followed.cpu_us_per_commit() / alone.cpu_us_per_commit()))
        .with("alone_resident_bytes", alone.resident_bytes.map_or(Cell::None, Cell::Bytes))
        .with("followed_resident_bytes", followed.resident_bytes.map_or(Cell::None, Cell::Bytes))
        .with("digests_equal", Cell::Bool(equal));
    print(global, &report)
}

/// What some time of writing took.
#[derive(Default)]
struct Cost {
    commits: u64,
    wall: Duration,
    cpu: Duration,
    /// The memory that the process held at the end, the most of all times; none where the system does not tell.
    resident_bytes: Option<u64>,
}

impl Cost {
    fn add(&mut self, other: &Self) {
        self.commits += other.commits;
        self.wall += other.wall;
        self.cpu += other.cpu;
        self.resident_bytes = self.resident_bytes.max(other.resident_bytes);
    }

    fn commits_per_second(&self) -> u64 {
        (self.commits as f64 / self.wall.as_secs_f64()) as u64
    }

    fn cpu_us_per_commit(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.commits as f64
    }
}

struct Writer<'a> {
    db: Database,
    table: Table,
    arguments: &'a LiveArgs,
    written: u64,
}

impl Writer<'_> {
    /// Commits as fast as it can for as long as was asked for.
    fn write(&mut self) -> Result<Cost, CliError> {
        let LiveArgs { seconds, batch: records, value_size, .. } = *self.arguments;
        let row = vec![b'.'; value_size as usize];
        let (stopwatch, before) = (Stopwatch::start(), processor_time());
        let mut commits = 0;
        while stopwatch.elapsed() < Duration::from_secs(seconds) {
            for _ in 0..COMMITS_BETWEEN_LOOKS {
                let mut batch = Batch::new();
                for _ in 0..records {
                    self.written += 1;
                    let key = (self.written.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS).to_be_bytes();
                    batch.put(self.table.id(), key, row.clone());
                }
                self.db.write(batch, Durability::Background)?;
                commits += 1;
            }
        }
        Ok(Cost {
            commits,
            wall: stopwatch.elapsed(),
            cpu: processor_time().saturating_sub(before),
            resident_bytes: resident_bytes(),
        })
    }
}

/// The time that all threads of this process have spent on processors.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn resident_bytes() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

/// A secondary that is a process.
struct Secondary {
    _process: Program,
    session: Box<dyn Session>,
}

impl Secondary {
    fn start(site: &Path, primary: SocketAddr) -> Result<Self, CliError> {
        let primary = primary.to_string();
        let words = ["serve", "secondary", "--listen", "127.0.0.1:0", "--replica-of", &primary];
        let process = Site::new(site).start("secondary", &words)?;
        let address = process.said("listening").unwrap_or_default().to_owned();
        let session =
            Place::Node { address, tls: Some(site.join("tls")), database: None }.open(IfAbsent::Fail)?;
        Ok(Self { _process: process, session })
    }

    /// Waits until its state and its visible UID are as wanted.
    fn wait_until(&self, what: &str, wanted: impl Fn(&str, Uid) -> bool) -> Result<(), CliError> {
        let stopwatch = Stopwatch::start();
        while stopwatch.elapsed() < ONLINE_WITHIN {
            let status = self.session.status()?;
            if status.databases.iter().any(|database| wanted(&database.state, database.visible)) {
                return Ok(());
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        Err(CliError::new("bench", format!("the secondary is not {what} in time")))
    }

    fn digest(&self) -> Result<Option<planaria_types::Fingerprint>, CliError> {
        let digests = self.session.digests(&[TABLE.to_owned()])?;
        Ok(digests.into_iter().next().map(|(_, digest)| digest))
    }
}
