//! What can be measured.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::choice::parse_bytes;
use super::transport::parse_connections;

/// `planaria bench`.
#[derive(Subcommand, Debug)]
pub(crate) enum BenchCommand {
    /// A secondary is away while records change, comes back, and is compared with a full clone
    #[command(
        after_help = "Example:\n  planaria bench resync --records 1000000 --changed 0.01 --deleted 0.001 -o json"
    )]
    Resync(ResyncArgs),
    /// A primary that is written to at full speed, without a secondary and with one: commits and processor time
    #[command(after_help = "Example:\n  planaria bench live --seconds 5 --rounds 3 -o json")]
    Live(LiveArgs),
    /// Clones of a database, beside what the transport and the disk give at most
    #[command(after_help = "\
The ceilings are plain bytes over QUIC with the same settings, the same written and made durable, and TLS over TCP.

Examples:
  planaria bench clone --records 2000000 --value-size 1000 -o json
  planaria bench clone --kind local --writer
  planaria bench clone --kind lazy --records 4000000 --value-size 1000
  planaria bench clone --kind incremental --changed 0.01
  planaria bench clone --fan-out 8")]
    Clone(CloneArgs),
}

/// How a database is cloned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum CloneKind {
    /// On the same disk
    Local,
    /// From a node
    #[default]
    Remote,
    /// From a node, read while it comes in; the first read is of a record in the middle
    Lazy,
    /// From a node, in the place of a clone that nobody wrote to, after a part of the records has changed
    Incremental,
}

/// `planaria bench clone`.
#[derive(Args, Debug)]
pub(crate) struct CloneArgs {
    /// How many records there are
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) records: u64,
    /// The bytes of a row, half of them compressible
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub(crate) value_size: usize,
    /// Where the clone lies
    #[arg(long, value_enum, default_value_t)]
    pub(crate) kind: CloneKind,
    /// The part of the records that changes before an incremental clone
    #[arg(long, value_name = "FRACTION", default_value_t = 0.01)]
    pub(crate) changed: f64,
    /// Clones that are taken at once
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub(crate) fan_out: u64,
    /// At most so many bytes a second for each clone, such as the 32MiB that the control center leaves a primary [default: as fast as the wire]
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    pub(crate) rate: Option<u64>,
    /// Connections of each clone from a node, from 1 to 8 [default: by the number of cores]
    #[arg(long, value_name = "N", value_parser = parse_connections)]
    pub(crate) connections: Option<u8>,
    /// Have a writer commit durably meanwhile, one record after the other, and tell its 99th percentile
    #[arg(long)]
    pub(crate) writer: bool,
    /// How often all is measured, in turns; medians are told
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) rounds: u64,
    /// Work in a new directory in here instead of the system's place for temporary files
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// Have remote clones go to a new directory in here: on another disk, as that of another machine is
    #[arg(long, value_name = "DIR")]
    pub(crate) target_dir: Option<PathBuf>,
}

/// `planaria bench live`.
#[derive(Args, Debug)]
pub(crate) struct LiveArgs {
    /// How long each measurement takes
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) seconds: u64,
    /// How often both are measured, in turns
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) rounds: u64,
    /// Records of a commit
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub(crate) batch: u64,
    /// The bytes of a row
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=65_536))]
    pub(crate) value_size: u64,
    /// Work in a new directory in here instead of the system's place for temporary files
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// `planaria bench resync`.
#[derive(Args, Debug)]
pub(crate) struct ResyncArgs {
    /// How many records there are
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) records: u64,
    /// The bytes of a row, half of them compressible
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    pub(crate) value_size: usize,
    /// The part of the records that changes meanwhile
    #[arg(long, value_name = "FRACTION", default_value_t = 0.01)]
    pub(crate) changed: f64,
    /// How often each of them changes
    #[arg(long, value_name = "TIMES", default_value_t = 1)]
    pub(crate) overwrite: u32,
    /// The part of the records that is deleted meanwhile [default: 0.001, as far as that many do not change]
    #[arg(long, value_name = "FRACTION")]
    pub(crate) deleted: Option<f64>,
    /// Commits a second that go on while the secondary catches up
    #[arg(long, value_name = "RATE", default_value_t = 0)]
    pub(crate) live_rate: u64,
    /// Compact everything to the bottom before it comes back
    #[arg(long)]
    pub(crate) compact: bool,
    /// How long it is away at least: after half a minute no old versions are kept for it any more
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=3600))]
    pub(crate) away: u64,
    /// Keep the log, so that it may be brought up to date from there
    #[arg(long)]
    pub(crate) keep_log: bool,
    /// Forget it while it is away: neither log nor delete marks are kept for it, as after a long absence
    #[arg(long)]
    pub(crate) forget_marks: bool,
    /// Work in a new directory in here instead of the system's place for temporary files
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}
