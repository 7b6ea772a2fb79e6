//! `planaria demo`: the whole story on real tables, with real nodes over real QUIC on loopback.
//!
//! Every number that is shown is measured. The demo succeeds only if all copies end up equal and no reader of a
//! secondary ever saw a half-done refresh.

mod data;
mod datacenters;
mod story;
mod watch;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use planaria_engine::{Batch, CloneRole, Database, Durability, Options};
use planaria_net::quic::{TlsStore, Transport};
use planaria_net::replica::clone_from;
use planaria_types::KeyRange;
use tokio::runtime::Runtime;

use self::story::Story;
use self::watch::{Watch, wait_until_online};
use crate::cli::{DemoArgs, Global, OtherDemo};
use crate::commands::serve::runtime;
use crate::node::{Node, NodeOptions};
use crate::output::{Cell, CliError};
use crate::session::RemoteSession;
use crate::stopwatch::Stopwatch;

/// Rows of the weather that are changed while a secondary is away, and how often each.
const CHANGED: usize = 5_000;
const OVERWRITTEN: usize = 3;
/// Rows of the weather that are deleted meanwhile.
const DELETED: usize = 1_000;

/// Tells the story.
pub(crate) fn run(global: &Global, arguments: &DemoArgs) -> Result<(), CliError> {
    let dir = tempfile::tempdir()
        .map_err(|error| CliError::new("io", format!("no temporary directory: {error}")))?;
    let mut story = Story::new(global)?;
    let told = match arguments.other {
        Some(OtherDemo::Datacenters) => datacenters::tell(&mut story, dir.path()),
        None => tell(&mut story, dir.path(), arguments),
    };
    // What goes wrong then is no fault of what is shown.
    told.map_err(|error| story::check(&story.interrupted()).err().unwrap_or(error))
}

/// Tells it of one database and its copies.
fn tell(story: &mut Story, dir: &Path, arguments: &DemoArgs) -> Result<(), CliError> {
    let stage = Stage::new(dir)?;
    let whole = Stopwatch::start();
    let equal = stage.tell(story, arguments)?;
    story.fact("seconds", Cell::Duration(whole.elapsed()));
    story.fact("digests_equal", Cell::Bool(equal));
    story.end(if equal { "every digest agrees" } else { "THE COPIES DIFFER" })?;
    if equal {
        return Ok(());
    }
    Err(CliError::new("demo", "the copies are not equal")
        .hint("this is a bug: please report it with the output above"))
}

/// Where the demo takes place.
struct Stage<'a> {
    dir: &'a Path,
    runtime: Arc<Runtime>,
}

impl<'a> Stage<'a> {
    fn new(dir: &'a Path) -> Result<Self, CliError> {
        TlsStore::named(dir.join("tls")).create()?;
        Ok(Self { dir, runtime: Arc::new(runtime()?) })
    }

    /// Nodes keep no more of the log than recovery needs, so that it cannot help a secondary that was away.
    fn options() -> Options {
        Options { log_tail_bytes: 0, log_segment_bytes: 256 << 10, ..Options::default() }
    }

    fn node(&self, name: &str, replica_of: Option<&Node>) -> Result<Node, CliError> {
        let options = NodeOptions {
            replica_of: replica_of.map(Node::address),
            ..NodeOptions::beside_others(self.dir, name, Self::options())
        };
        Node::start(&self.runtime, &options, |_| {})
    }

    /// The story itself; `true` if all copies are equal at its end.
    fn tell(&self, story: &mut Story, arguments: &DemoArgs) -> Result<bool, CliError> {
        let primary = self.node("primary", None)?;
        self.load(story, &primary, arguments)?;
        let first = self.replicate(story, &primary, "secondary-1")?;
        let second = self.replicate(story, &primary, "secondary-2")?;
        let before = second.database().snapshot().digests()?;
        story.step("secondary-2 goes away")?;
        drop(second);
        let deleted = change(story, &primary.database())?;
        let (second, one_cut) = self.come_back(story, &primary, &deleted)?;
        let changed = second.database().snapshot().digests()? != before;
        let clones = self.clone_both_ways(story, &primary)?;
        wait_until_online(&first, &primary.database())?;
        wait_until_online(&second, &primary.database())?;
        story.step("all copies are compared")?;
        let expected = primary.database().snapshot().digests()?;
        let copies = [("secondary-1", first.database()), ("secondary-2", second.database())];
        let mut equal = one_cut && changed;
        for (name, db) in copies.into_iter().chain(clones) {
            let same = db.snapshot().digests()? == expected;
            story.say(&format!("{name:<14} {}", if same { "equal" } else { "DIFFERENT" }));
            equal &= same;
        }
        let rows = expected.iter().map(|table| table.digest.count).sum();
        story.fact("rows", Cell::Count(rows));
        Ok(equal)
    }

    fn load(&self, story: &mut Story, primary: &Node, arguments: &DemoArgs) -> Result<(), CliError> {
        story.step("a primary loads real tables")?;
        let address = primary.address().to_string();
        let session = RemoteSession::connect(&address, Some(&self.dir.join("tls")))?;
        let stopwatch = Stopwatch::start();
        let mut rows = 0;
        for table in data::tables(self.dir, arguments.flights.as_deref())? {
            let loaded = data::load(&session, &table)?;
            story.say(&format!("{:<10} {:>9} rows", table.name, crate::output::count(loaded)));
            rows += loaded;
        }
        let took = stopwatch.elapsed();
        story.say(&format!("in {}", story::rate(rows, took)));
        story.fact("loaded_rows", Cell::Count(rows));
        story.fact("load_seconds", Cell::Duration(took));
        Ok(())
    }

    fn replicate(&self, story: &mut Story, primary: &Node, name: &'static str) -> Result<Node, CliError> {
        story.step(&format!("{name} starts from nothing: run files, then the live stream"))?;
        let stopwatch = Stopwatch::start();
        let node = self.node(name, Some(primary))?;
        wait_until_online(&node, &primary.database())?;
        if let Some((copy, _)) = node.first_copy() {
            let bytes = crate::output::bytes(copy.total_bytes);
            story.say(&format!(
                "{bytes} in {} files, online after {}",
                copy.files,
                story::time(stopwatch.elapsed())
            ));
        }
        Ok(node)
    }

    /// The second secondary returns while a writer goes on; `true` if its readers saw the old cut or the new one, and
    /// nothing in between.
    fn come_back(
        &self,
        story: &mut Story,
        primary: &Node,
        deleted: &[Bytes],
    ) -> Result<(Node, bool), CliError> {
        story.step("secondary-2 comes back, while a writer goes on")?;
        let db = primary.database();
        let stop = Arc::new(AtomicBool::new(false));
        let writer = spawn_writer(db.clone(), Arc::clone(&stop))?;
        let stopwatch = Stopwatch::start();
        let node = self.node("secondary-2", Some(primary))?;
        let watch = Watch::start(&node, deleted)?;
        let status = wait_until_online(&node, &db)?;
        let took = stopwatch.elapsed();
        stop.store(true, Ordering::Release);
        let written = writer.join().unwrap_or_else(|_| Err(CliError::new("demo", "the writer broke off")))?;
        wait_until_online(&node, &db)?;
        let (reads, one_cut) = watch.end();
        let replica = &status.replica;
        let (way, reason) = (
            replica.way.map(|way| way.to_string()).unwrap_or_default(),
            replica.reason.map(|reason| reason.to_string()).unwrap_or_default(),
        );
        story.say(&format!("way        {way}: {reason}"));
        story.say(&format!(
            "moved      {} records, {}",
            crate::output::count(status.last_refresh_records),
            crate::output::bytes(status.last_refresh_bytes)
        ));
        story.say(&format!("took       {}, {written} live commits meanwhile", story::time(took)));
        story.say(&format!(
            "readers    {reads} looks, {}",
            if one_cut { "each at the old cut or the new one" } else { "SOME AT A MIXTURE" }
        ));
        story.fact("refresh_way", way.into());
        story.fact("refresh_reason", replica.reason.map_or("", planaria_replication::Reason::code).into());
        story.fact("refresh_records", Cell::Count(status.last_refresh_records));
        story.fact("refresh_bytes", Cell::Bytes(status.last_refresh_bytes));
        story.fact("refresh_seconds", Cell::Duration(took));
        story.fact("live_commits", Cell::Count(written));
        story.fact("readers_saw_one_cut", Cell::Bool(one_cut));
        Ok((node, one_cut))
    }

    /// A local and a remote clone; both are opened as databases of their own.
    fn clone_both_ways(
        &self,
        story: &mut Story,
        primary: &Node,
    ) -> Result<[(&'static str, Database); 2], CliError> {
        story.step("the database is cloned on the same disk, writers connected")?;
        let stopwatch = Stopwatch::start();
        let local = primary.database().clone_to(self.dir.join("local-clone"))?;
        let took = stopwatch.elapsed();
        let bytes = crate::output::bytes(local.bytes);
        story.say(&format!("{bytes} by {} links in {}", local.linked, story::time(took)));
        story.fact("local_clone_seconds", Cell::Duration(took));
        story.step("the database is cloned over the network")?;
        let stopwatch = Stopwatch::start();
        let target = self.dir.join("remote-clone");
        let cloned = self.runtime.block_on(clone_from(
            primary.address(),
            primary.credentials(),
            &Transport::default(),
            &target,
            CloneRole::Detached,
            &Self::options(),
            |_| {},
        ))?;
        let took = stopwatch.elapsed();
        let bytes = crate::output::bytes(cloned.total_bytes);
        story.say(&format!(
            "{bytes} in {} files, verified and durable in {}",
            cloned.files,
            story::time(took)
        ));
        story.fact("full_copy_bytes", Cell::Bytes(cloned.total_bytes));
        story.fact("remote_clone_seconds", Cell::Duration(took));
        let open = |path: &Path| Database::open_with(path, Self::options());
        Ok([("local clone", open(&local.path)?), ("remote clone", open(&target)?)])
    }
}

/// Changes and deletes rows of the weather while a secondary is away, and compacts, as a night would. Returns the
/// keys of the deleted rows.
fn change(story: &mut Story, db: &Database) -> Result<Vec<Bytes>, CliError> {
    story.step(&format!(
        "meanwhile {CHANGED} rows change, {OVERWRITTEN} times each, and {DELETED} are deleted; everything is compacted"
    ))?;
    let weather = db.table("weather")?;
    let mut rows = Vec::new();
    for record in weather.scan(KeyRange::ALL) {
        rows.push(record?);
    }
    let every = rows.len() / (CHANGED + DELETED);
    let chosen: Vec<_> = rows.into_iter().step_by(every.max(1)).take(CHANGED + DELETED).collect();
    let (deleted, changed) = chosen.split_at(DELETED.min(chosen.len()));
    for round in 1..=OVERWRITTEN {
        for some in changed.chunks(100) {
            let mut batch = Batch::new();
            for (key, row) in some {
                let mut values = weather.decode(key, row)?;
                warm_up(&mut values, round);
                let (key, row) = weather.encode(&values)?;
                batch.put(weather.id(), key, row);
            }
            db.write(batch, Durability::Background)?;
        }
    }
    let mut batch = Batch::new();
    for (key, _) in deleted {
        batch.delete(weather.id(), key);
    }
    db.write(batch, Durability::Synced)?;
    db.compact()?;
    story.fact("changed_rows", Cell::Count(changed.len() as u64));
    story.fact("deleted_rows", Cell::Count(deleted.len() as u64));
    Ok(deleted.iter().map(|(key, _)| key.clone()).collect())
}

/// Adds degrees to the first number that is no part of the key.
fn warm_up(values: &mut [planaria_engine::Value], degrees: usize) {
    use planaria_engine::Value;
    let temperature = values.iter_mut().find_map(|value| match value {
        Value::Float(number) => Some(number),
        _ => None,
    });
    if let Some(temperature) = temperature {
        *temperature += degrees as f64;
    }
}

/// A writer that goes on until it is stopped; it returns the number of its commits.
fn spawn_writer(
    db: Database,
    stop: Arc<AtomicBool>,
) -> Result<std::thread::JoinHandle<Result<u64, CliError>>, CliError> {
    let table = db.create_raw_table("live")?;
    let body = move || {
        let mut number = 0_u64;
        while !stop.load(Ordering::Acquire) {
            let mut batch = Batch::new();
            batch.put(table.id(), (number % 500).to_be_bytes(), number.to_string());
            db.write(batch, Durability::Synced)?;
            number += 1;
            // A pace that leaves the machine to the refresh.
            std::thread::park_timeout(Duration::from_micros(500));
        }
        Ok(number)
    };
    std::thread::Builder::new()
        .name("demo-writer".into())
        .spawn(body)
        .map_err(|error| CliError::new("io", format!("cannot start a thread: {error}")))
}
