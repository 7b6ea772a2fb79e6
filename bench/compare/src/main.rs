//! Runs the same workloads on Planaria and on other embedded stores, each in a process and a directory of its own, in
//! rounds in which all of them take turns, and compares the medians. Only ratios of one run mean much.

mod numbers;
mod report;
mod store;
mod stores;
mod workload;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::{Parser, ValueEnum};

use crate::report::Report;
use crate::store::{Result, Setting};
use crate::workload::{Figure, Group};

/// Compares embedded stores, side by side.
#[derive(Parser, Debug)]
struct Arguments {
    /// Records
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Memory for caches, the same for all who have one, in bytes
    #[arg(long, default_value_t = 1 << 30)]
    cache_bytes: u64,
    /// Seconds that each of the timed mixes runs
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only these stores, separated by commas
    #[arg(long, value_delimiter = ',')]
    stores: Vec<Contender>,
    /// Only these groups of workloads, separated by commas
    #[arg(long, value_delimiter = ',')]
    groups: Vec<Group>,
    /// The directory for the stores' directories; the system's for temporary files if none is given
    #[arg(long)]
    dir: Option<PathBuf>,
    /// How the result is written
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    /// Runs one group on one store in this directory and prints its figures; how this program calls itself
    #[arg(long, hide = true)]
    within: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Contender {
    Planaria,
    #[cfg(feature = "rocksdb")]
    Rocksdb,
    Fjall,
    Redb,
    Lmdb,
    Sqlite,
}

impl Contender {
    fn name(self) -> &'static str {
        match self {
            Self::Planaria => "planaria",
            #[cfg(feature = "rocksdb")]
            Self::Rocksdb => "rocksdb",
            Self::Fjall => "fjall",
            Self::Redb => "redb",
            Self::Lmdb => "lmdb",
            Self::Sqlite => "sqlite",
        }
    }

    fn run(self, group: Group, dir: &Path, setting: &Setting) -> Result<Vec<Figure>> {
        match self {
            Self::Planaria => workload::run::<stores::planaria::Planaria>(group, dir, setting),
            #[cfg(feature = "rocksdb")]
            Self::Rocksdb => workload::run::<stores::rocksdb::RocksDb>(group, dir, setting),
            Self::Fjall => workload::run::<stores::fjall::Fjall>(group, dir, setting),
            Self::Redb => workload::run::<stores::redb::Redb>(group, dir, setting),
            Self::Lmdb => workload::run::<stores::lmdb::Lmdb>(group, dir, setting),
            Self::Sqlite => workload::run::<stores::sqlite::Sqlite>(group, dir, setting),
        }
    }
}

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.stores.is_empty() {
        arguments.stores = Contender::value_variants().to_vec();
    }
    if arguments.groups.is_empty() {
        arguments.groups = Group::ALL.to_vec();
    }
    if arguments.records == 0 || arguments.rounds == 0 {
        return Err("at least one record and one round are needed".into());
    }
    match &arguments.within {
        Some(dir) => run_one(&arguments, dir),
        None => compare(&arguments),
    }
}

/// Runs the one group on the one store that the arguments name.
fn run_one(arguments: &Arguments, dir: &Path) -> Result<()> {
    let setting = Setting {
        records: arguments.records,
        value_bytes: arguments.value_bytes,
        cache_bytes: arguments.cache_bytes,
        seconds: arguments.seconds,
    };
    let (Some(store), Some(group)) = (arguments.stores.first(), arguments.groups.first()) else {
        return Err("one store and one group are needed".into());
    };
    println!("{}", serde_json::to_string(&store.run(*group, dir, &setting)?)?);
    Ok(())
}

fn compare(arguments: &Arguments) -> Result<()> {
    let mut report = Report::default();
    for round in 0..arguments.rounds {
        for group in &arguments.groups {
            // Each round begins with another store, so that none always follows the same one.
            for turn in 0..arguments.stores.len() {
                let store = arguments.stores[(round + turn) % arguments.stores.len()];
                eprintln!("round {}: {}, {}", round + 1, group.name(), store.name());
                report.add(store.name(), in_process(arguments, store, *group)?);
            }
        }
    }
    let names: Vec<_> = arguments.stores.iter().map(|store| store.name()).collect();
    match arguments.output {
        Output::Table => println!("{}", report.table(&names)),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report.json())?),
    }
    Ok(())
}

/// Runs a group on a store in a process and a directory of its own.
fn in_process(arguments: &Arguments, store: Contender, group: Group) -> Result<Vec<Figure>> {
    let dir = match &arguments.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let child = Command::new(std::env::current_exe()?)
        .args(["--stores", store.name(), "--groups", group.name()])
        .args(["--records", &arguments.records.to_string()])
        .args(["--value-bytes", &arguments.value_bytes.to_string()])
        .args(["--cache-bytes", &arguments.cache_bytes.to_string()])
        .args(["--seconds", &arguments.seconds.to_string()])
        .arg("--within")
        .arg(dir.path())
        .stderr(Stdio::inherit())
        .output()?;
    if !child.status.success() {
        return Err(format!("{} failed at the group {:?}", store.name(), group.name()).into());
    }
    Ok(serde_json::from_slice(&child.stdout)?)
}
