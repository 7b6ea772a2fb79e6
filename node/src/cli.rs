//! The command line: what can be said. What is done is in [`crate::commands`].

mod backup;
mod bench;
mod choice;
mod clone;
mod cluster;
mod cluster_clones;
mod cluster_members;
mod cluster_rules;
mod cluster_stores;
mod place;
mod quarantine;
mod replica;
mod shape;
mod topology;
mod transport;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Command, CommandFactory, Parser, Subcommand, ValueEnum};

use planaria_replication::ack::Level;

pub(crate) use self::backup::{
    BackupCommand, BackupCreateArgs, NamedArgs, PruneArgs, RestoreArgs, StoreArgs, VerifyBackupsArgs,
    time_of, time_text,
};
pub(crate) use self::bench::{BenchCommand, CloneArgs as CloneBenchArgs, CloneKind, LiveArgs, ResyncArgs};
use self::choice::{LevelArgs, ReadArgs, WriteArgs};
pub(crate) use self::choice::{parse_bytes, parse_duration_ms};
pub(crate) use self::clone::{
    CloneCommand, CloneCreateArgs, CloneDeleteArgs, CloneFor, CloneLifeArgs, CloneNameArgs,
};
use self::cluster::MembershipArgs;
pub(crate) use self::cluster::{CenterArgs, ClusterCommand, ControlArgs};
pub(crate) use self::cluster_clones::{
    ClusterCloneCommand, ClusterCloneCreateArgs, LimitsCommand, ScheduleCommand,
};
pub(crate) use self::cluster_members::{NodeCommand, TokenCommand};
pub(crate) use self::cluster_rules::RuleCommand;
pub(crate) use self::cluster_stores::{ClusterBackupArgs, StoreCommand};
pub(crate) use self::place::{Global, PlaceArgs};
pub(crate) use self::quarantine::{ExtractArgs, QuarantineCommand, ReapplyArgs};
pub(crate) use self::replica::{FollowArgs, RefreshArgs, RefreshWay, ReplicaArgs, ReplicaCommand};
pub(crate) use self::shape::{cut_text, shape_of_words, shape_words};
pub(crate) use self::topology::TopologyCommand;
use crate::import::{InputFormat, TypeChoice};
use crate::output::CliError;
use crate::portion_text::Chosen;

/// The id of the argument that names the directory, in every command that has one.
const DIR: &str = "dir";

/// A table store: tables in fragments, native replication over QUIC, clones.
#[derive(Parser, Debug)]
#[command(name = "planaria", version, propagate_version = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: PlanariaCommand,
}

const EXAMPLES: &str = "\
Commands work on a database in a directory, their first argument; or, without a directory, on a node with --node, or with
--cluster on whoever leads a database of a cluster.

Examples:
  planaria import birds weather.csv.gz --key origin,time_hour --null NA
  planaria get birds weather EWR 2013-01-01T06:00:00Z
  planaria scan birds weather --prefix EWR --limit 5 -o json
  planaria --node 127.0.0.1:4747 digest
  planaria --cluster 127.0.0.1:4740/birds scan weather --max-staleness 2s

Exit codes: 0 done, 1 failed, 2 wrong use.";

/// The commands.
#[derive(Subcommand, Debug)]
pub(crate) enum PlanariaCommand {
    /// See the whole story: load real tables, replicate, go away, come back, clone, compare
    Demo(DemoArgs),

    /// Serve a database to clients and secondaries, as a primary or as a secondary
    Serve(ServeArgs),
    /// Run a control center: it knows the nodes and copies of a cluster, and replaces a primary that is lost
    Control(ControlArgs),
    /// Ask the control center: who leads, how nodes and copies are, what happened and why
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Declare a cluster in a file: datacenters, nodes, modes, wanted copies, limits, schedules, rules
    #[command(subcommand)]
    Topology(TopologyCommand),
    /// Show, pause and forget the secondaries of a database
    #[command(subcommand)]
    Replica(ReplicaCommand),
    /// Make a secondary the primary
    Promote(PromoteArgs),
    /// What was taken back from a copy whose primary did not have it: look at it, write it again
    #[command(subcommand)]
    Quarantine(QuarantineCommand),
    /// Clone a whole database: at once on the same disk, at the speed of the wire from a node
    #[command(subcommand)]
    Clone(CloneCommand),
    /// Keep backups in a directory or an object store, and restore them to any commit that is kept
    #[command(subcommand)]
    Backup(BackupCommand),
    /// Measure what catching up costs on this machine
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Make and show tables
    #[command(subcommand)]
    Table(TableCommand),
    /// Read CSV or NDJSON files, gzipped or not, into tables
    Import(ImportArgs),
    /// Write a table out as CSV or NDJSON
    Export(ExportArgs),
    /// Show the row of a key
    Get(GetArgs),
    /// Write a row, over an existing one if there is one
    Put(PutArgs),
    /// Delete the row of a key
    Delete(DeleteArgs),
    /// Show the rows of a range of keys, in the order of the keys
    Scan(ScanArgs),
    /// Sum up the contents of tables: equal contents have equal digests, on every copy
    Digest(DigestArgs),
    /// Read and check everything, or compare with another node
    #[command(after_help = "\
Without --against every file is read: checksums, order, filters, fingerprints. With it, the fingerprints of ranges are
compared from the top down, both sides at one position; what differs is listed, and the exit code is 1.

Examples:
  planaria verify birds
  planaria verify --node 127.0.0.1:4748 --against 127.0.0.1:4747
  planaria verify --node 127.0.0.1:4748 --against 127.0.0.1:4747 --repair")]
    Verify(VerifyArgs),
    /// Show the state of the database
    Status(PlaceArgs),
    /// Take commands line by line, on one database
    Shell(PlaceArgs),
    /// Write a completion script for a shell
    #[command(
        after_help = "Example:\n  planaria completions bash > ~/.local/share/bash-completion/completions/planaria"
    )]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command
    #[command(after_help = "Example:\n  planaria man ~/.local/share/man/man1")]
    Man {
        /// The directory to write to; the page of planaria itself goes to stdout without one
        out: Option<PathBuf>,
    },
}

/// `planaria demo`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct DemoArgs {
    #[command(subcommand)]
    pub(crate) other: Option<OtherDemo>,
    /// Take the large table of flights too: a CSV file, gzipped or not
    #[arg(long, value_name = "FILE")]
    pub(crate) flights: Option<PathBuf>,
}

/// Other stories than the first.
#[derive(Subcommand, Clone, Copy, Debug)]
pub(crate) enum OtherDemo {
    /// Two datacenters under a control center: where clones come from, what they may take, and what happens when a primary is lost
    Datacenters,
}

/// `planaria serve`.
#[derive(Args, Debug)]
#[command(after_help = "\
Certificates for this machine are made by themselves. A secondary whose directory is empty takes a copy of its primary
first, and follows it from then on, however often either of them goes away.

Examples:
  planaria serve birds
  planaria serve birds-2 --listen 127.0.0.1:4748 --replica-of 127.0.0.1:4747
  planaria serve birds-3 --listen 127.0.0.1:4749 --replica-of 127.0.0.1:4748
  planaria serve birds-4 --replica-of 127.0.0.1:4747 --refresh-from 127.0.0.1:4748
  planaria serve birds-5 --replica-of 127.0.0.1:4747 --only sightings --only ponds=A..M
  planaria serve birds-6 --spare --control 127.0.0.1:4740 --join-token TOKEN")]
pub(crate) struct ServeArgs {
    /// The directory of the database; made if there is none
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:4747]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    /// Follow the primary at this address, or another secondary
    #[arg(long, value_name = "ADDR")]
    pub(crate) replica_of: Option<std::net::SocketAddr>,
    /// Hold this table alone, or of it the keys from FROM on and below TO, either of which may be missing; may be repeated
    #[arg(long, value_name = "TABLE[=FROM..TO]", requires = "replica_of")]
    pub(crate) only: Vec<Chosen>,
    /// Take what the copy lacks from this secondary first, and only the tail from whom it follows; may be repeated
    #[arg(long, value_name = "ADDR", requires = "replica_of")]
    pub(crate) refresh_from: Vec<std::net::SocketAddr>,
    /// Host nothing until the control center gives this node a copy, of the kind that --role says
    #[arg(long, requires = "control", conflicts_with = "replica_of")]
    pub(crate) spare: bool,
    /// Let the control center have backups brought to this store and clones taken from it: a directory, or a bucket and a prefix with the
    /// keys of the environment, as for `planaria backup`; may be repeated
    #[arg(long, value_name = "URL", requires = "control")]
    pub(crate) backup_to: Vec<planaria_backup::Place>,
    /// On how many copies a commit is durable before it is acknowledged, unless it says otherwise: local, one, quorum or
    /// all. It is stored; without this option what was said last holds
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<Level>,
    /// Keep older versions of records for so long (30m, 2h): clones and reads as of a time reach as far back
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration_ms)]
    pub(crate) keep_history: u64,
    /// Preserve at most so many bytes of delete marks for secondaries that are away
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_bytes)]
    pub(crate) preserve_bytes: u64,
    /// Preserve delete marks for at most so long for secondaries that are away (720h)
    #[arg(long, value_name = "DURATION", default_value = "720h", value_parser = parse_duration_ms)]
    pub(crate) preserve_age: u64,
    /// Keep so much of the log for secondaries that are a little behind
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = parse_bytes)]
    pub(crate) log_tail: u64,
    /// Memory for blocks that were read
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_bytes)]
    pub(crate) cache: u64,
    /// Tell figures, and whether the node is ready, over plain HTTP here: /metrics, /readyz, /livez, /status
    #[cfg(feature = "metrics")]
    #[arg(long, value_name = "ADDR")]
    pub(crate) metrics: Option<std::net::SocketAddr>,
    #[command(flatten)]
    pub(crate) membership: MembershipArgs,
}

impl ServeArgs {
    /// The stores that the node may speak to, directories by their whole paths.
    pub(crate) fn stores(&self) -> Result<Vec<planaria_backup::Place>, CliError> {
        let whole = |place: &planaria_backup::Place| match place {
            planaria_backup::Place::Directory(path) => {
                let whole = std::path::absolute(path);
                whole.map(planaria_backup::Place::Directory).map_err(|error| {
                    CliError::new("io", format!("the whole path of {} is not known: {error}", path.display()))
                })
            }
            bucket @ planaria_backup::Place::Bucket { .. } => Ok(bucket.clone()),
        };
        self.backup_to.iter().map(whole).collect()
    }
}

/// `planaria promote`.
#[derive(Args, Debug)]
#[command(after_help = "\
While the primary can be heard, its lead is moved without loss: it stops taking updates, the secondary reaches its end and
begins a new epoch, and the old primary follows it. If it cannot be heard, what may be lost is named, and done only with
--yes. Other secondaries that can be heard follow at once.

Examples:
  planaria promote --node 127.0.0.1:4748 --dry-run
  planaria promote --node 127.0.0.1:4748 --yes")]
pub(crate) struct PromoteArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Say what it would cost, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Accept the losses that are named
    #[arg(long)]
    pub(crate) yes: bool,
    /// Go on even if another copy has more, or this one never was promotable
    #[arg(long)]
    pub(crate) force: bool,
}

/// `planaria table`.
#[derive(Subcommand, Debug)]
pub(crate) enum TableCommand {
    /// Make a table, and the database if there is none
    #[command(after_help = "\
A column is written NAME:TYPE, or NAME:TYPE:null where rows may have no value. The types are bool, int64, float64, text,
bytes, timestamp and date.

Examples:
  planaria table create birds sightings --column id:int64 --column bird:text --column note:text:null --key id
  planaria table create birds blobs --raw")]
    Create(TableCreateArgs),
    /// List the tables
    List(PlaceArgs),
    /// Show the columns of a table
    Show {
        #[command(flatten)]
        place: PlaceArgs,
        /// The table
        table: String,
    },
}

/// `planaria table create`.
#[derive(Args, Debug)]
pub(crate) struct TableCreateArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The name of the table
    pub(crate) name: String,
    /// A column; repeat it for each, in their order
    #[arg(long = "column", value_name = "NAME:TYPE[:null]", required_unless_present = "raw")]
    pub(crate) columns: Vec<String>,
    /// The columns of the primary key, in key order
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',', required_unless_present = "raw")]
    pub(crate) key: Vec<String>,
    /// Keys and rows are bytes, without columns
    #[arg(long, conflicts_with_all = ["columns", "key"])]
    pub(crate) raw: bool,
}

/// What happens at a record that cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum OnError {
    /// Stop there; what was imported stays
    #[default]
    Stop,
    /// Leave the record out and say so
    Skip,
}

/// What happens at a record whose key is there already, with other contents.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum OnDuplicate {
    /// Stop there; what was imported stays
    #[default]
    Stop,
    /// The record replaces what is there
    Replace,
    /// What is there stays
    Skip,
}

/// `planaria import`.
#[derive(Args, Debug)]
#[command(after_help = "\
A table that is not there is made, with types guessed from the first records; --key names its primary key. Importing
again what was interrupted completes it: rows that are there with the same contents are passed over as unchanged.
A raw table takes records with the columns key and row.

Examples:
  planaria import birds weather.csv.gz --key origin,time_hour --null NA
  planaria import birds planes.csv --key tailnum --type year=int64 --on-error skip
  zcat flights.ndjson.gz | planaria import birds - --table flights --key year,month,day,carrier,flight,origin")]
pub(crate) struct ImportArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The files, or - for stdin
    #[arg(required = true, value_name = "FILE")]
    pub(crate) files: Vec<String>,
    /// The table [default: the name of the file up to its first dot]
    #[arg(long, value_name = "NAME")]
    pub(crate) table: Option<String>,
    /// The columns of the primary key of a new table, in key order
    #[arg(long, value_name = "COLUMN,...", value_delimiter = ',')]
    pub(crate) key: Vec<String>,
    /// The type of a column of a new table, instead of the guess
    #[arg(long = "type", value_name = "COLUMN=TYPE")]
    pub(crate) types: Vec<TypeChoice>,
    /// The text that stands for no value in CSV, unless it is quoted
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) null: String,
    /// What separates the fields of CSV
    #[arg(long, value_name = "CHAR", default_value = ",", value_parser = parse_delimiter)]
    pub(crate) delimiter: u8,
    /// The format [default: told by the first character]
    #[arg(long, value_enum)]
    pub(crate) format: Option<InputFormat>,
    /// At a record that cannot be read
    #[arg(long, value_enum, default_value_t)]
    pub(crate) on_error: OnError,
    /// At a record whose key is there already, with other contents
    #[arg(long, value_enum, default_value_t)]
    pub(crate) on_duplicate: OnDuplicate,
    /// Rows that are committed together
    #[arg(long, value_name = "ROWS", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) batch: u32,
    /// Records that are looked at to guess types
    #[arg(long, value_name = "RECORDS", default_value_t = crate::import::SAMPLE_RECORDS_DEFAULT)]
    pub(crate) sample: usize,
    #[command(flatten)]
    pub(crate) level: LevelArgs,
}

fn parse_delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        _ if text == "\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() => Ok(*byte),
        _ => Err("it must be one ASCII character, or \\t for a tabulator".to_owned()),
    }
}

/// The format of an export.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Comma-separated values with a heading
    Csv,
    /// One JSON object a line
    #[value(alias = "ndjson")]
    Json,
}

/// `planaria export`.
#[derive(Args, Debug)]
#[command(after_help = "\
The file appears under its name when it is complete. A name that ends in .gz is compressed.

Examples:
  planaria export birds weather weather.csv.gz
  planaria export birds weather --format json | head")]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The table
    pub(crate) table: String,
    /// The file, or - for stdout
    #[arg(default_value = "-")]
    pub(crate) file: PathBuf,
    /// The format [default: json for names with .json or .ndjson, else csv]
    #[arg(long, value_enum)]
    pub(crate) format: Option<ExportFormat>,
    /// The text that stands for no value in CSV; a text that reads the same is quoted
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) null: String,
    /// Replace a file that exists
    #[arg(long)]
    pub(crate) force: bool,
}

/// A key of a table.
#[derive(Args, Debug)]
#[command(after_help = "\
A key is one argument for each column of the primary key; in a raw table it is text, or 0x and hexadecimal digits.

Example:
  planaria get birds weather EWR 2013-01-01T06:00:00Z")]
pub(crate) struct KeyArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The table
    pub(crate) table: String,
    /// The key
    #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
    pub(crate) key: Vec<String>,
}

/// `planaria get`.
#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `planaria delete`.
#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `planaria put`.
#[derive(Args, Debug)]
#[command(after_help = "\
Columns that are not named have their default, or no value. A raw table takes KEY and ROW: text, or 0x and hexadecimal
digits.

Examples:
  planaria put birds sightings id=7 bird=heron
  planaria put birds sightings '{\"id\": 7, \"bird\": \"heron\"}'
  planaria put birds blobs name 0xcafe")]
pub(crate) struct PutArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The table
    pub(crate) table: String,
    /// COLUMN=VALUE for each column, or one JSON object, or KEY ROW in a raw table
    #[arg(required = true, value_name = "VALUE", allow_negative_numbers = true)]
    pub(crate) values: Vec<String>,
    #[command(flatten)]
    pub(crate) write: WriteArgs,
}

/// `planaria scan`.
#[derive(Args, Debug)]
#[command(after_help = "\
Keys may be given in part: the first columns of the primary key.

Examples:
  planaria scan birds weather --prefix EWR --limit 10
  planaria scan birds weather --from EWR 2013-07-01T00:00:00Z --to EWR 2013-08-01T00:00:00Z --reverse")]
pub(crate) struct ScanArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The table
    pub(crate) table: String,
    /// Keys that begin with these values; bytes of a raw table
    #[arg(long, value_name = "KEY", num_args = 1.., allow_negative_numbers = true)]
    pub(crate) prefix: Vec<String>,
    /// Keys from this one on
    #[arg(long, value_name = "KEY", num_args = 1.., allow_negative_numbers = true)]
    pub(crate) from: Vec<String>,
    /// Keys below this one
    #[arg(long, value_name = "KEY", num_args = 1.., allow_negative_numbers = true)]
    pub(crate) to: Vec<String>,
    /// The greatest number of rows
    #[arg(long, value_name = "ROWS")]
    pub(crate) limit: Option<u64>,
    /// From the greatest key down
    #[arg(long)]
    pub(crate) reverse: bool,
    #[command(flatten)]
    pub(crate) read: ReadArgs,
}

/// `planaria verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Compare with the node at this address (HOST:PORT) instead of reading every file
    #[arg(long, value_name = "ADDR")]
    pub(crate) against: Option<String>,
    /// Where they differ, have the secondary replace what differs by what its primary has
    #[arg(long, requires = "against")]
    pub(crate) repair: bool,
}

/// `planaria digest`.
#[derive(Args, Debug)]
pub(crate) struct DigestArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The tables; all if none is named
    #[arg(value_name = "TABLE")]
    pub(crate) tables: Vec<String>,
}

/// The command line as it is understood; with a node, no command takes a directory.
pub(crate) fn command(has_node: bool) -> Command {
    let command = Cli::command();
    if has_node { without_directories(command) } else { command }
}

/// Takes the directory from its place among the arguments of every command.
fn without_directories(command: Command) -> Command {
    let command = if command.get_arguments().any(|argument| argument.get_id() == DIR) {
        // An argument with a name has no place; hidden, it is as good as gone.
        command.mut_arg(DIR, |argument| argument.long("directory-of-the-database").required(false).hide(true))
    } else {
        command
    };
    command.mut_subcommands(without_directories)
}

/// Whether the arguments name a node or a cluster.
pub(crate) fn names_node(arguments: &[OsString]) -> bool {
    options_of(arguments).any(|text| {
        ["--node", "--cluster"].iter().any(|option| {
            text.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
        })
    })
}

/// Whether the arguments ask for JSON; asked where they cannot be understood as a whole.
pub(crate) fn asks_for_json(arguments: &[OsString]) -> bool {
    let texts: Vec<_> = options_of(arguments).collect();
    let apart = texts.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]));
    apart || texts.iter().any(|text| matches!(*text, "-ojson" | "-o=json" | "--output=json"))
}

fn options_of(arguments: &[OsString]) -> impl Iterator<Item = &str> {
    arguments.iter().skip(1).filter_map(|argument| argument.to_str()).take_while(|text| *text != "--")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::FromArgMatches;

    use super::{Cli, PlanariaCommand, asks_for_json, command, names_node};
    use crate::session::Place;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        let words = words(line);
        Cli::from_arg_matches(&command(names_node(&words)).try_get_matches_from(words)?)
    }

    #[test]
    fn the_definition_is_sound() {
        command(false).debug_assert();
        command(true).debug_assert();
    }

    #[test]
    fn a_node_stands_for_the_directory() {
        let local = parse("planaria get db weather EWR 7").unwrap();
        let PlanariaCommand::Get(get) = &local.command else { panic!("get") };
        let get = &get.key;
        assert_eq!(get.place.place(&local.global).unwrap(), Place::Directory("db".into()));
        assert_eq!((get.table.as_str(), get.key.len()), ("weather", 2));
        for line in [
            "planaria --node h:1 get weather EWR -7",
            "planaria get --node=h:1 weather EWR -7",
            "planaria get weather EWR -7 --node h:1",
        ] {
            let remote = parse(line).unwrap();
            let PlanariaCommand::Get(get) = &remote.command else { panic!("get") };
            let get = &get.key;
            let node = Place::Node { address: "h:1".into(), tls: None, database: None };
            assert_eq!(get.place.place(&remote.global).unwrap(), node);
            assert_eq!((get.table.as_str(), get.key.join(" ")), ("weather", "EWR -7".to_owned()));
        }
        let routed = parse("planaria --cluster h:1/birds get weather EWR -7").unwrap();
        let PlanariaCommand::Get(get) = &routed.command else { panic!("get") };
        let database = Some("birds".to_owned());
        let cluster = Place::Cluster { center: "h:1".into(), database, tls: None };
        assert_eq!(get.key.place.place(&routed.global).unwrap(), cluster);
        assert!(parse("planaria --cluster h:1 --node h:2 table list").is_err());
        assert!(parse("planaria --node h:1 table list").is_ok());
        assert!(parse("planaria --node h:1 table list db").is_err());
        assert!(parse("planaria table list").is_err());
    }

    #[test]
    fn a_lazy_clone_has_a_source_replaces_nothing_and_is_read_by_its_name() {
        let create = "planaria --node h:1 clone create /copy";
        assert!(parse(&format!("{create} --from h:2 --lazy")).is_ok());
        for wrong in ["--lazy", "--from h:2 --lazy --replace", "--lazy --on-node"] {
            assert!(parse(&format!("{create} {wrong}")).is_err(), "{wrong}");
        }
        let read = parse("planaria --node h:1 --clone copy get weather EWR").unwrap();
        let PlanariaCommand::Get(get) = &read.command else { panic!("get") };
        let place = get.key.place.place(&read.global).unwrap();
        assert!(matches!(place, Place::Node { database: Some(name), .. } if name == "copy"));
        let nowhere = parse("planaria --clone copy get db weather EWR").unwrap();
        let PlanariaCommand::Get(get) = &nowhere.command else { panic!("get") };
        assert_eq!(get.key.place.place(&nowhere.global).unwrap_err().code, "usage");
    }

    #[test]
    fn json_is_asked_for_in_every_spelling() {
        for line in ["p -o json x", "p x -ojson", "p --output=json", "p --output json"] {
            assert!(asks_for_json(&words(line)), "{line}");
        }
        assert!(!asks_for_json(&words("p get db t -- -o json")));
        assert!(!asks_for_json(&words("p -o csv")));
    }
}
