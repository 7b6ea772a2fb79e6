//! `planaria bench resync`: a secondary is away while records change, and comes back.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use planaria_engine::{Batch, CloneRole, Database, Durability, Options, Table};
use planaria_net::quic::{TlsStore, Transport};
use planaria_net::replica::{FollowStatus, clone_from};
use planaria_replication::secondary::State;
use planaria_replication::{Reason, Way};
use tokio::runtime::Runtime;

use super::records;
use crate::cli::{Global, ResyncArgs};
use crate::commands::print;
use crate::commands::serve::runtime;
use crate::node::{Node, NodeOptions};
use crate::output::{Cell, CliError, Format, Report};
use crate::stopwatch::Stopwatch;

/// How long the secondary may take before the bench gives up.
const ONLINE_WITHIN: Duration = Duration::from_mins(10);
/// How often its state is looked at.
const LOOK_EVERY: Duration = Duration::from_micros(200);
/// The part of the records that is deleted if nobody says how large it is.
const DELETED: f64 = 0.001;
/// Keys that the live writer writes over and over.
const LIVE_KEYS: u64 = 1_000;
/// The rows that make the log go on while nothing else is to happen, in bytes.
const LOST_ROW_BYTES: u64 = 256 << 10;
/// A free port on loopback.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
const TABLE: &str = "records";
const LIVE_TABLE: &str = "live";
const KEY_BYTES: u64 = 8;
const UID_BYTES: u64 = 8;

/// Measures one return, and a full clone beside it.
pub(crate) fn run(global: &Global, arguments: &ResyncArgs) -> Result<(), CliError> {
    let work = Work::of(arguments)?;
    let dir = match &arguments.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let dir = dir.map_err(|error| CliError::new("io", format!("no temporary directory: {error}")))?;
    let bench =
        Bench { dir: dir.path(), runtime: Arc::new(runtime()?), work, quiet: global.output == Format::Json };
    TlsStore::named(bench.dir.join("tls")).create()?;
    let measured = bench.measure()?;
    print(global, &measured.report(&bench.work))?;
    if measured.equal {
        return Ok(());
    }
    Err(CliError::new("bench", "the copies are not equal")
        .hint("this is a bug: please report it with the output above"))
}

/// What is done while the secondary is away, in records.
struct Work {
    records: u64,
    value_bytes: usize,
    changed: u64,
    overwrite: u64,
    deleted: u64,
    live_rate: u64,
    away: Duration,
    compact: bool,
    forget_marks: bool,
    options: Options,
}

impl Work {
    fn of(arguments: &ResyncArgs) -> Result<Self, CliError> {
        let part = |name: &str, fraction: f64| {
            if (0.0..=1.0).contains(&fraction) {
                return Ok((arguments.records as f64 * fraction).round() as u64);
            }
            Err(CliError::usage(format!("--{name} {fraction} is not a fraction"))
                .hint("give a part of the records from 0 to 1, such as 0.01 for one in a hundred"))
        };
        let deleted = arguments.deleted.unwrap_or_else(|| DELETED.min((1.0 - arguments.changed).max(0.0)));
        let (changed, deleted) = (part("changed", arguments.changed)?, part("deleted", deleted)?);
        if changed + deleted > arguments.records {
            return Err(CliError::usage("more records are changed and deleted than there are")
                .hint("let --changed and --deleted be 1 together at most"));
        }
        let mut options = Options { log_tail_bytes: 0, log_segment_bytes: 4 << 20, ..Options::default() };
        if arguments.keep_log {
            options = Options::default();
        }
        Ok(Self {
            records: arguments.records,
            value_bytes: arguments.value_size,
            changed,
            overwrite: u64::from(arguments.overwrite.max(1)),
            deleted,
            live_rate: arguments.live_rate,
            away: Duration::from_secs(arguments.away),
            compact: arguments.compact,
            forget_marks: arguments.forget_marks,
            options,
        })
    }

    fn changes_nothing(&self) -> bool {
        self.changed == 0 && self.deleted == 0 && !self.forget_marks
    }

    /// Bytes that any way must move at least: key, UID and row of what changed, key and UID of what is gone.
    fn bytes_changed(&self) -> u64 {
        let changed = self.changed * (KEY_BYTES + UID_BYTES + self.value_bytes as u64);
        changed + self.deleted * (KEY_BYTES + UID_BYTES)
    }
}

/// What was measured.
struct Measured {
    load: Duration,
    first_copy: Duration,
    status: FollowStatus,
    open: Duration,
    took: Duration,
    full_clone: Duration,
    full_clone_bytes: u64,
    live_commits: u64,
    /// What the primary kept on its disk for the secondary that was away; known if everything was compacted.
    preserved: Option<u64>,
    equal: bool,
}

impl Measured {
    fn report(&self, work: &Work) -> Report {
        let last = &self.status;
        let (way, traffic) = (last.last_refresh_way, last.traffic);
        // How many records run files hold is not told.
        let records = (way != Some(Way::Bulk)).then_some(last.last_refresh_records);
        Report::new()
            .with("records", Cell::Count(work.records))
            .with("value_bytes", Cell::Bytes(work.value_bytes as u64))
            .with("changed", Cell::Count(work.changed))
            .with("overwrite", Cell::Count(work.overwrite))
            .with("deleted", Cell::Count(work.deleted))
            .with("load_seconds", Cell::Duration(self.load))
            .with("first_copy_seconds", Cell::Duration(self.first_copy))
            .with("way", way.map_or(Cell::None, |way| way.to_string().into()))
            .with("reason", Cell::from(last.last_refresh_reason.map_or("", Reason::code)))
            .with("records_moved", records.map_or(Cell::None, Cell::Count))
            .with("bytes_frames", Cell::Bytes(traffic.frame_bytes_received))
            .with("bytes_udp", Cell::Bytes(traffic.udp_bytes_received))
            .with("bytes_changed", Cell::Bytes(work.bytes_changed()))
            .with("seconds", Cell::Duration(self.took))
            .with("open_seconds", Cell::Duration(self.open))
            .with("round_trip_seconds", Cell::Duration(traffic.round_trip))
            .with("live_commits", Cell::Count(self.live_commits))
            .with("preserved_bytes", self.preserved.map_or(Cell::None, Cell::Bytes))
            .with("full_clone_seconds", Cell::Duration(self.full_clone))
            .with("full_clone_bytes", Cell::Bytes(self.full_clone_bytes))
            .with("digests_equal", Cell::Bool(self.equal))
    }
}

struct Bench<'a> {
    dir: &'a Path,
    runtime: Arc<Runtime>,
    work: Work,
    quiet: bool,
}

impl Bench<'_> {
    fn measure(&self) -> Result<Measured, CliError> {
        let primary = self.node("primary", ANY_PORT, None)?;
        let db = primary.database();
        let (table, live) = (db.create_raw_table(TABLE)?, db.create_raw_table(LIVE_TABLE)?);
        self.say(&format!("loading {} records", crate::output::count(self.work.records)));
        let stopwatch = Stopwatch::start();
        records::write(&db, &table, 0..self.work.records, 0, self.work.value_bytes)?;
        db.compact()?;
        let load = stopwatch.elapsed();
        self.say("a secondary takes its first copy");
        let stopwatch = Stopwatch::start();
        let second = self.node("secondary", ANY_PORT, Some(&primary))?;
        wait_until_online(&second, &db)?;
        let first_copy = stopwatch.elapsed();
        // It is counted on from now on, and has the commits that say so, before it goes.
        wait_until_promotable(&second, &db)?;
        // The record of a clone is a commit, too: where nothing is to change, it is taken while the secondary can still have it.
        let early = self.work.changes_nothing().then(|| self.clone_whole(&primary)).transpose()?;
        wait_until_online(&second, &db)?;
        // It listens where it did, as a node does: the primary need not write down another address.
        let address = second.address();
        drop(second);
        self.say("it is away while records change");
        self.change(&primary, &table, &live)?;
        let kept = db.status()?.run_bytes;
        // Of the same files, that is: what a merge makes of them later costs another time.
        let (full_clone, full_clone_bytes) = match early {
            Some(taken) => taken,
            None => self.clone_whole(&primary)?,
        };
        self.say("it comes back");
        let writer = self.start_writer(&db, &live)?;
        let stopwatch = Stopwatch::start();
        let second = self.node("secondary", address, Some(&primary))?;
        let open = stopwatch.elapsed();
        // Opening a database is no part of coming back: the clock runs from the moment when the copy can be read.
        let stopwatch = Stopwatch::start();
        let status = wait_until_online(&second, &db)?;
        let took = stopwatch.elapsed();
        let live_commits = writer.map_or(Ok(0), Writer::end)?;
        wait_until_online(&second, &db)?;
        let equal = second.database().snapshot().digests()? == db.snapshot().digests()?;
        drop(second);
        let preserved = if self.work.compact {
            // What a merge drops now was kept for it.
            forget_secondary(&primary)?;
            db.compact()?;
            Some(kept.saturating_sub(db.status()?.run_bytes))
        } else {
            None
        };
        Ok(Measured {
            load,
            first_copy,
            status,
            open,
            took,
            full_clone,
            full_clone_bytes,
            live_commits,
            preserved,
            equal,
        })
    }

    fn node(&self, name: &str, listen: SocketAddr, replica_of: Option<&Node>) -> Result<Node, CliError> {
        let options = NodeOptions {
            listen,
            replica_of: replica_of.map(Node::address),
            ..NodeOptions::beside_others(self.dir, name, self.work.options.clone())
        };
        Node::start(&self.runtime, &options, |_| {})
    }

    fn say(&self, what: &str) {
        if !self.quiet {
            // Whoever does not listen still gets the figures.
            let _ = writeln!(std::io::stderr(), "{what}");
        }
    }

    /// The records with the lowest numbers change and the next ones go: their keys are spread over all others.
    fn change(&self, primary: &Node, table: &Table, live: &Table) -> Result<(), CliError> {
        let (work, db) = (&self.work, &primary.database());
        for round in 1..=work.overwrite {
            records::write(db, table, 0..work.changed, round, work.value_bytes)?;
        }
        let mut batch = Batch::new();
        for number in work.changed..work.changed + work.deleted {
            batch.delete(table.id(), records::key(number));
        }
        if work.deleted > 0 {
            db.write(batch, Durability::Synced)?;
        }
        let stopwatch = Stopwatch::start();
        while let Some(rest) = work.away.checked_sub(stopwatch.elapsed()) {
            std::thread::park_timeout(rest);
        }
        if work.forget_marks {
            forget_secondary(primary)?;
            self.lose_history(db, live)?;
        }
        // A merge that goes on beside one of the two transfers and not beside the other would be taken for a part of it.
        if work.compact { Ok(db.compact()?) } else { Ok(db.settle()?) }
    }

    /// The log goes on until it no longer holds what the secondary lacks, and the marks of deletes, which are kept for
    /// nobody, are dropped.
    fn lose_history(&self, db: &Database, live: &Table) -> Result<(), CliError> {
        let rows = self.work.options.log_segment_bytes / LOST_ROW_BYTES + 1;
        for number in 0..rows {
            let mut batch = Batch::new();
            batch.put(live.id(), number.to_be_bytes(), vec![0; LOST_ROW_BYTES as usize]);
            db.write(batch, Durability::Background)?;
        }
        let mut batch = Batch::new();
        for number in 0..rows {
            batch.delete(live.id(), number.to_be_bytes());
        }
        db.write(batch, Durability::Synced)?;
        Ok(db.compact()?)
    }

    fn start_writer(&self, db: &Database, table: &Table) -> Result<Option<Writer>, CliError> {
        if self.work.live_rate == 0 {
            return Ok(None);
        }
        Writer::start(db.clone(), table.clone(), self.work.live_rate).map(Some)
    }

    fn clone_whole(&self, primary: &Node) -> Result<(Duration, u64), CliError> {
        self.say("a full clone for comparison");
        let target: PathBuf = self.dir.join("clone");
        let stopwatch = Stopwatch::start();
        let cloned = self.runtime.block_on(clone_from(
            primary.address(),
            primary.credentials(),
            &Transport::default(),
            &target,
            CloneRole::Detached,
            &self.work.options,
            |_| {},
        ))?;
        Ok((stopwatch.elapsed(), cloned.total_bytes))
    }
}

/// A thread that commits at a given rate until it is stopped.
struct Writer {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64, CliError>>,
}

impl Writer {
    fn start(db: Database, table: Table, rate: u64) -> Result<Self, CliError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let body = move || {
            let begun = Stopwatch::start();
            let mut written = 0_u64;
            while !stopped.load(Ordering::Acquire) {
                let due = (begun.elapsed().as_secs_f64() * rate as f64) as u64;
                if written >= due {
                    std::thread::park_timeout(Duration::from_micros(500));
                    continue;
                }
                let mut batch = Batch::new();
                batch.put(table.id(), (written % LIVE_KEYS).to_be_bytes(), written.to_string());
                db.write(batch, Durability::Background)?;
                written += 1;
            }
            Ok(written)
        };
        let thread = std::thread::Builder::new()
            .name("bench-writer".into())
            .spawn(body)
            .map_err(|error| CliError::new("io", format!("cannot start a thread: {error}")))?;
        Ok(Self { stop, thread })
    }

    fn end(self) -> Result<u64, CliError> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap_or_else(|_| Err(CliError::new("bench", "the writer broke off")))
    }
}

/// Waits until the secondary is in the promotable set, and shows the commits that put it there.
fn wait_until_promotable(node: &Node, primary: &Database) -> Result<(), CliError> {
    let (stopwatch, instance) = (Stopwatch::start(), node.database().instance());
    while stopwatch.elapsed() < ONLINE_WITHIN {
        let lead = primary.lead()?;
        if lead.is_some_and(|lead| lead.promotable.contains(&instance) && lead.next.is_none()) {
            return wait_until_online(node, primary).map(drop);
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    Err(CliError::new("bench", "the secondary is not counted on in time"))
}

/// Has the primary keep nothing for the secondary that is away, as an operator does who does not expect it back.
fn forget_secondary(primary: &Node) -> Result<(), CliError> {
    let stopwatch = Stopwatch::start();
    loop {
        match primary.forget("secondary") {
            // It does not know yet that the session is over.
            Err(error) if error.code == "connected" && stopwatch.elapsed() < ONLINE_WITHIN => {
                std::thread::park_timeout(LOOK_EVERY);
            }
            done => return done.map_err(|error| planaria_net::Error::Remote(error).into()),
        }
    }
}

/// Waits until the secondary follows live and shows what the primary had when this was called.
fn wait_until_online(node: &Node, primary: &Database) -> Result<FollowStatus, CliError> {
    let goal = primary.log_end().0;
    let stopwatch = Stopwatch::start();
    while stopwatch.elapsed() < ONLINE_WITHIN {
        let status = node.follow_status().unwrap_or_default();
        if let Some(failure) = status.failure {
            return Err(CliError::new("bench", format!("the secondary stopped: {failure}")));
        }
        if status.replica.state == State::Online && node.database().visible() >= goal {
            return Ok(status);
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    let replica = node.follow_status().unwrap_or_default().replica;
    Err(CliError::new("bench", format!("the secondary is still {}", replica.state.name()))
        .because(replica.last_end.unwrap_or_default()))
}
