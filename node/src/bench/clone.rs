//! `planaria bench clone`: clones of a database beside what the transport and the disk give at most.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use planaria_engine::{CloneRole, Database, Options, Table};
use planaria_net::quic::{TlsStore, Transport, ceiling};
use planaria_net::replica::{Pace, Taking, take_clone};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::latency::{TimedWriter, p99_ms};
use super::{lazy, records, renewal};
use crate::cli::{CloneBenchArgs, CloneKind, Global};
use crate::commands::print;
use crate::commands::serve::runtime;
use crate::node::{Node, NodeOptions};
use crate::output::{Cell, CliError, Format, Report};
use crate::stopwatch::Stopwatch;

/// How long the writer is timed alone.
const ALONE_FOR: Duration = Duration::from_secs(3);
/// Streams of the ceilings: as many as a clone has.
const STREAMS: u64 = 4;
const TABLE: &str = "records";
const LIVE_TABLE: &str = "live";

/// Measures clones.
pub(crate) fn run(global: &Global, arguments: &CloneBenchArgs) -> Result<(), CliError> {
    let dir = temporary(arguments.dir.as_deref())?;
    let targets = arguments.target_dir.as_deref().map(|dir| temporary(Some(dir))).transpose()?;
    TlsStore::named(dir.path().join("tls")).create()?;
    let runtime = Arc::new(runtime()?);
    let options = NodeOptions::beside_others(dir.path(), "source", Options::default());
    let source = Node::start(&runtime, &options, |_| {})?;
    let db = source.database();
    let (table, live) = (db.create_raw_table(TABLE)?, db.create_raw_table(LIVE_TABLE)?);
    let bench = Bench {
        dir: dir.path(),
        target_dir: targets.as_ref().unwrap_or(&dir).path(),
        runtime,
        source,
        db,
        table,
        live,
        arguments,
        quiet: global.output == Format::Json,
    };
    let measured = bench.measure()?;
    print(global, &measured.report(arguments))?;
    if measured.equal {
        return Ok(());
    }
    Err(CliError::new("bench", "the clones are not equal")
        .hint("this is a bug: please report it with the output above"))
}

#[derive(Default)]
struct Measured {
    load: Duration,
    /// Bytes of all clones of one round.
    bytes: u64,
    seconds: Vec<f64>,
    raw_quic: Vec<f64>,
    raw_quic_durable: Vec<f64>,
    raw_tcp_tls: Vec<f64>,
    alone_us: Vec<u64>,
    during_us: Vec<u64>,
    /// Whole clones that incremental ones were made of.
    full_seconds: Vec<f64>,
    /// From the call to the first answer of a clone that is read while it comes in.
    first_read_ms: Vec<f64>,
    way: String,
    /// Bytes that this process, source and target, had the device read.
    device_read: Option<u64>,
    equal: bool,
}

impl Measured {
    fn report(&self, arguments: &CloneBenchArgs) -> Report {
        let rate = |seconds: &[f64]| {
            median(seconds)
                .filter(|seconds| *seconds > 0.0)
                .map_or(Cell::None, |seconds| Cell::Bytes((self.bytes as f64 / seconds) as u64))
        };
        let ms = |took: &[u64]| p99_ms(took.to_vec()).map_or(Cell::None, Cell::Ratio);
        let full =
            median(&self.full_seconds).map_or(Cell::None, |s| Cell::Duration(Duration::from_secs_f64(s)));
        let seconds = Duration::from_secs_f64(median(&self.seconds).unwrap_or_default());
        let connections = match arguments.kind {
            CloneKind::Remote => Cell::Count(transport(arguments).clone_connections.into()),
            _ => Cell::None,
        };
        Report::new()
            .with("records", Cell::Count(arguments.records))
            .with("value_bytes", Cell::Bytes(arguments.value_size as u64))
            .with("fan_out", Cell::Count(arguments.fan_out))
            .with("connections", connections)
            .with("load_seconds", Cell::Duration(self.load))
            .with("seconds", Cell::Duration(seconds))
            .with("first_read_ms", median(&self.first_read_ms).map_or(Cell::None, Cell::Ratio))
            .with("full_clone_seconds", full)
            .with("way", if self.way.is_empty() { Cell::None } else { self.way.clone().into() })
            .with("bytes", Cell::Bytes(self.bytes))
            .with("bytes_per_second", rate(&self.seconds))
            .with("raw_quic_bytes_per_second", rate(&self.raw_quic))
            .with("raw_quic_durable_bytes_per_second", rate(&self.raw_quic_durable))
            .with("raw_tcp_tls_bytes_per_second", rate(&self.raw_tcp_tls))
            .with("writer_p99_ms_without", ms(&self.alone_us))
            .with("writer_p99_ms_during", ms(&self.during_us))
            .with("device_read_bytes", self.device_read.map_or(Cell::None, Cell::Bytes))
            .with("digests_equal", Cell::Bool(self.equal))
    }
}

/// A directory that goes with its handle.
fn temporary(within: Option<&Path>) -> Result<TempDir, CliError> {
    within
        .map_or_else(tempfile::tempdir, tempfile::tempdir_in)
        .map_err(|error| CliError::new("io", format!("no temporary directory: {error}")))
}

struct Bench<'a> {
    dir: &'a Path,
    /// Where remote clones go.
    target_dir: &'a Path,
    runtime: Arc<Runtime>,
    source: Node,
    db: Database,
    table: Table,
    live: Table,
    arguments: &'a CloneBenchArgs,
    quiet: bool,
}

impl Bench<'_> {
    fn measure(&self) -> Result<Measured, CliError> {
        let arguments = self.arguments;
        let is_single = matches!(arguments.kind, CloneKind::Incremental | CloneKind::Lazy);
        if !(0.0..=1.0).contains(&arguments.changed) || (is_single && arguments.fan_out > 1) {
            return Err(CliError::usage(
                "--changed is a part from 0 to 1, and one incremental or lazy clone is made at a time",
            ));
        }
        if arguments.connections.is_some() && arguments.kind != CloneKind::Remote {
            return Err(CliError::usage("--connections is for whole clones from a node: --kind remote"));
        }
        if arguments.target_dir.is_some() && arguments.kind != CloneKind::Remote {
            return Err(CliError::usage("--target-dir is for whole clones from a node: --kind remote"));
        }
        self.say(&format!("loading {} records", crate::output::count(arguments.records)));
        let stopwatch = Stopwatch::start();
        records::write(&self.db, &self.table, 0..arguments.records, 0, arguments.value_size)?;
        self.db.compact()?;
        let mut measured = Measured { load: stopwatch.elapsed(), equal: true, ..Measured::default() };
        for round in 1..=arguments.rounds {
            self.round(round, &mut measured)?;
        }
        Ok(measured)
    }

    /// A clone is taken, a part of the records changes, and the clone is brought up to date.
    fn renew(&self, round: u64, measured: &mut Measured) -> Result<(), CliError> {
        let target = self.dir.join("clone");
        self.say("cloning");
        let whole = renewal::take(&self.source, self.runtime.handle(), &target)?;
        measured.full_seconds.push(whole.took.as_secs_f64());
        let changed = (self.arguments.records as f64 * self.arguments.changed).round() as u64;
        records::write(&self.db, &self.table, 0..changed, round, self.arguments.value_size)?;
        self.db.flush()?;
        self.say("cloning again");
        let again = renewal::take(&self.source, self.runtime.handle(), &target)?;
        measured.seconds.push(again.took.as_secs_f64());
        (measured.bytes, measured.way) = (again.bytes, again.way);
        self.compare(vec![target.clone()], measured)?;
        let replaced = self.dir.join("clone.replaced");
        if replaced.exists() { remove(&replaced) } else { Ok(()) }
    }

    fn round(&self, round: u64, measured: &mut Measured) -> Result<(), CliError> {
        if self.arguments.kind == CloneKind::Incremental {
            return self.renew(round, measured);
        }
        if self.arguments.writer {
            let writer = TimedWriter::start(self.db.clone(), self.live.clone())?;
            let stopwatch = Stopwatch::start();
            while let Some(left) = ALONE_FOR.checked_sub(stopwatch.elapsed()) {
                std::thread::park_timeout(left);
            }
            measured.alone_us.extend(writer.end()?);
        }
        self.say("cloning");
        let writer = self
            .arguments
            .writer
            .then(|| TimedWriter::start(self.db.clone(), self.live.clone()))
            .transpose()?;
        let before = device_read();
        let stopwatch = Stopwatch::start();
        let (targets, bytes) = match self.arguments.kind {
            CloneKind::Local => self.clone_locally()?,
            CloneKind::Lazy => self.clone_lazily(measured)?,
            CloneKind::Remote | CloneKind::Incremental => self.clone_remotely()?,
        };
        measured.seconds.push(stopwatch.elapsed().as_secs_f64());
        measured.device_read = device_read().zip(before).map(|(after, before)| after - before);
        measured.bytes = bytes;
        if let Some(writer) = writer {
            measured.during_us.extend(writer.end()?);
        }
        self.compare(targets, measured)?;
        if self.arguments.kind == CloneKind::Remote {
            self.ceilings(measured, bytes)?;
        }
        Ok(())
    }

    /// Compares clones with their source, and removes them.
    fn compare(&self, targets: Vec<PathBuf>, measured: &mut Measured) -> Result<(), CliError> {
        let digest = self.db.snapshot().digest_of(self.table.definition())?;
        for target in targets {
            let clone = Database::open_with(&target, Options { create: false, ..Options::default() })?;
            measured.equal &= clone.snapshot().digest_of(self.table.definition())? == digest;
            drop(clone);
            remove(&target)?;
        }
        Ok(())
    }

    fn targets(&self) -> impl Iterator<Item = PathBuf> {
        let dir = if self.arguments.kind == CloneKind::Remote { self.target_dir } else { self.dir };
        (0..self.arguments.fan_out).map(move |number| dir.join(format!("clone-{number}")))
    }

    fn clone_locally(&self) -> Result<(Vec<PathBuf>, u64), CliError> {
        let targets: Vec<PathBuf> = self.targets().collect();
        let mut bytes = 0;
        for target in &targets {
            bytes += self.db.clone_to(target)?.bytes;
        }
        Ok((targets, bytes))
    }

    fn clone_lazily(&self, measured: &mut Measured) -> Result<(Vec<PathBuf>, u64), CliError> {
        let target = self.dir.join("clone-0");
        let key = records::key(self.arguments.records / 2);
        let taken = lazy::take(&self.source, &self.runtime, &target, (TABLE, &key), self.arguments.rate)?;
        measured.first_read_ms.push(taken.first_read.as_secs_f64() * 1_000.0);
        Ok((vec![target], taken.bytes))
    }

    fn clone_remotely(&self) -> Result<(Vec<PathBuf>, u64), CliError> {
        let (targets, rate): (Vec<PathBuf>, _) = (self.targets().collect(), self.arguments.rate);
        let transport = transport(self.arguments);
        let cloned: Result<u64, CliError> = self.runtime.block_on(async {
            let mut cloning = JoinSet::new();
            for target in targets.clone() {
                let (address, credentials) = (self.source.address(), self.source.credentials().clone());
                let transport = transport.clone();
                cloning.spawn(async move {
                    let mut taking = Taking::new(target, CloneRole::Detached, &Options::default());
                    taking.pace = Arc::new(Pace::new(rate));
                    take_clone(address, &credentials, &transport, &taking, |_| {}).await
                });
            }
            let mut bytes = 0;
            while let Some(done) = cloning.join_next().await {
                let done = done.map_err(|_| CliError::new("bench", "a clone broke off"))?;
                bytes += done?.total_bytes;
            }
            Ok(bytes)
        });
        Ok((targets, cloned?))
    }

    fn ceilings(&self, measured: &mut Measured, bytes: u64) -> Result<(), CliError> {
        let (credentials, transport) = (self.source.credentials(), Transport::default());
        self.say("plain bytes over QUIC, written");
        let dir = self.target_dir.join("raw");
        std::fs::create_dir(&dir)
            .map_err(|error| CliError::new("io", format!("cannot create {}: {error}", dir.display())))?;
        let stopwatch = Stopwatch::start();
        self.runtime.block_on(ceiling::quic(credentials, &transport, bytes, STREAMS, Some(&dir)))?;
        measured.raw_quic_durable.push(stopwatch.elapsed().as_secs_f64());
        remove(&dir)?;
        self.say("plain bytes over QUIC");
        let stopwatch = Stopwatch::start();
        self.runtime.block_on(ceiling::quic(credentials, &transport, bytes, STREAMS, None))?;
        measured.raw_quic.push(stopwatch.elapsed().as_secs_f64());
        self.say("plain bytes over TCP with TLS");
        let stopwatch = Stopwatch::start();
        ceiling::tcp_tls(credentials, bytes)?;
        measured.raw_tcp_tls.push(stopwatch.elapsed().as_secs_f64());
        Ok(())
    }

    fn say(&self, what: &str) {
        if !self.quiet {
            // Whoever does not listen still gets the figures.
            let _ = writeln!(std::io::stderr(), "{what}");
        }
    }
}

/// The settings of the network for clones.
fn transport(arguments: &CloneBenchArgs) -> Transport {
    let default = Transport::default();
    let clone_connections = arguments.connections.unwrap_or(default.clone_connections);
    Transport { clone_connections, ..default }
}

fn remove(dir: &Path) -> Result<(), CliError> {
    std::fs::remove_dir_all(dir)
        .map_err(|error| CliError::new("io", format!("cannot remove {}: {error}", dir.display())))
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Bytes that this process had a device read so far; none where the system does not tell.
fn device_read() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/io").ok()?;
    text.lines().find_map(|line| line.strip_prefix("read_bytes: ")?.parse().ok())
}
