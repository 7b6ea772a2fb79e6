//! Clones that the control center has made, and what they may take.

use clap::{Args, Subcommand, ValueEnum};
use planaria_net::wire::jobs::{CloneWish, When};
use planaria_net::wire::message::CloneRole;
use planaria_replication::control::Priority;

use super::choice::{parse_bytes, parse_duration_ms};
use super::cluster::CenterArgs;
use super::shape::ShapeArgs;

/// `planaria cluster clone`.
#[derive(Subcommand, Debug)]
pub(crate) enum ClusterCloneCommand {
    /// Have a clone made on a node
    #[command(after_help = "\
The control center chooses the source as `cluster choose-source` tells, has the clone begin when its turn comes, and tries
the next source where one fails. A detached clone becomes a directory beside the one that the node serves. Standbys and
backups are made on nodes that were started with `serve --spare`, which follow the primary from then on.

Examples:
  planaria cluster clone create --to birds-4 --name birds-test --rate 16MiB
  planaria cluster clone create --to spare-1 --role standby --priority recovery
  planaria cluster clone create --to birds-4 --name birds-test --leave-out audit --mask people.mail=hash
  planaria cluster clone create --to birds-4 --explain")]
    Create(Box<ClusterCloneCreateArgs>),
    /// List the clones that wait, run or have ended, youngest first
    List {
        #[command(flatten)]
        center: CenterArgs,
        /// The youngest so many
        #[arg(long, value_name = "CLONES", default_value_t = 100)]
        limit: u32,
    },
    /// Show a clone, with what was found of each copy when its source was chosen
    Show {
        /// Its number
        job: u64,
        #[command(flatten)]
        center: CenterArgs,
    },
    /// Change what a clone may take at most while it waits or runs
    Rate {
        /// Its number
        job: u64,
        /// Bytes a second [default: what the limits leave]
        #[arg(value_parser = parse_bytes)]
        rate: Option<u64>,
        #[command(flatten)]
        center: CenterArgs,
    },
    /// Give a clone up that waits or runs
    Cancel {
        /// Its number
        job: u64,
        #[command(flatten)]
        center: CenterArgs,
    },
}

/// `planaria cluster clone create`.
#[derive(Args, Debug)]
pub(crate) struct ClusterCloneCreateArgs {
    #[command(flatten)]
    pub(crate) wish: WishArgs,
    /// What it is to be called [default: made of the database and a number]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Tell where it would be taken from, and why; do nothing
    #[arg(long)]
    pub(crate) explain: bool,
    #[command(flatten)]
    pub(crate) center: CenterArgs,
}

/// A clone that is wanted.
#[derive(Args, Debug)]
pub(crate) struct WishArgs {
    /// The node that is to get it; a store of the database for a backup there
    #[arg(long, value_name = "NODE|URL")]
    pub(crate) to: String,
    /// The database, by name or id [default: the only one]
    #[arg(long, value_name = "NAME|ID")]
    pub(crate) database: Option<String>,
    /// What it is for
    #[arg(long, value_enum, default_value_t)]
    role: RoleChoice,
    #[command(flatten)]
    pub(crate) manner: MannerArgs,
}

/// How a clone is made.
#[derive(Args, Debug)]
pub(crate) struct MannerArgs {
    /// By how much its source may be older than the freshest copy, if it is nearer
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration_ms)]
    pub(crate) period: u64,
    /// How urgent it is
    #[arg(long, value_enum, default_value_t)]
    priority: PriorityChoice,
    /// At most so many bytes a second
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    rate: Option<u64>,
    /// How long a detached clone lives once it is whole
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    ttl: Option<u64>,
    #[command(flatten)]
    shape: ShapeArgs,
}

impl WishArgs {
    /// The same for the control center.
    pub(crate) fn wish(&self, name: Option<&str>) -> CloneWish {
        CloneWish {
            to: self.to.clone(),
            database: self.database.clone(),
            name: name.map(str::to_owned),
            role: self.role.into(),
            ..self.manner.wish()
        }
    }
}

impl MannerArgs {
    /// A clone in that manner, of which nothing else is said.
    pub(crate) fn wish(&self) -> CloneWish {
        CloneWish {
            period_ms: self.period,
            priority: self.priority.into(),
            bytes_per_s: self.rate,
            ttl_s: self.ttl.map(|ms| ms.div_ceil(1_000)),
            shape: self.shape.shape(),
            ..CloneWish::default()
        }
    }
}

/// `planaria cluster schedule`.
#[derive(Subcommand, Debug)]
pub(crate) enum ScheduleCommand {
    /// Have a clone asked for again and again, in place of a schedule of that name
    #[command(after_help = "\
With --every the first is asked for at once, with --cron when the calendar says, in UTC: minute, hour, day of the month, month,
day of the week, and in front the second if there are six. Its clones are called NAME-NUMBER. None is asked for while the one before is under way. Times that passed while the control
center was down are made up for once.

Examples:
  planaria cluster schedule add hourly --every 1h --to birds-4 --ttl 24h
  planaria cluster schedule add nightly --cron \"30 3 * * *\" --to birds-4 --ttl 168h
  planaria cluster schedule add kept --cron \"0 4 * * *\" --role store --to s3://bucket/birds")]
    Add(Box<ScheduleAddArgs>),
    /// List the schedules
    List(CenterArgs),
    /// Have a schedule end; clones that it has asked for go on
    Remove {
        /// The schedule
        name: String,
        #[command(flatten)]
        center: CenterArgs,
    },
}

impl ScheduleAddArgs {
    /// When it asks.
    pub(crate) fn when(&self) -> When {
        match (&self.cron, self.every) {
            (Some(pattern), _) => When::Calendar(pattern.clone()),
            (None, every) => When::Every(every.unwrap_or(0)),
        }
    }
}

/// `planaria cluster schedule add`.
#[derive(Args, Debug)]
pub(crate) struct ScheduleAddArgs {
    /// What the schedule is called
    pub(crate) name: String,
    /// The time between two clones
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms, required_unless_present = "cron")]
    pub(crate) every: Option<u64>,
    /// The times of the calendar, as cron writes them
    #[arg(long, value_name = "PATTERN", conflicts_with = "every")]
    pub(crate) cron: Option<String>,
    #[command(flatten)]
    pub(crate) wish: WishArgs,
    #[command(flatten)]
    pub(crate) center: CenterArgs,
}

/// What a clone is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum RoleChoice {
    /// A database of its own
    #[default]
    Detached,
    /// A copy that follows, and may lead next
    Standby,
    /// A copy that follows, and that clones are taken from
    Backup,
    /// A backup in the store that --to names
    Store,
}

impl From<RoleChoice> for CloneRole {
    fn from(choice: RoleChoice) -> Self {
        match choice {
            RoleChoice::Detached => Self::Detached,
            RoleChoice::Standby => Self::Standby,
            RoleChoice::Backup => Self::Backup,
            RoleChoice::Store => Self::Store,
        }
    }
}

/// How urgent a clone is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
enum PriorityChoice {
    /// A database has fewer copies than it needs
    Recovery,
    /// A standby is to be added
    StandbySeeding,
    /// A backup is to be made or added
    BackupRefresh,
    /// Somebody wants it
    #[default]
    AdHoc,
}

impl From<PriorityChoice> for Priority {
    fn from(choice: PriorityChoice) -> Self {
        match choice {
            PriorityChoice::Recovery => Self::Recovery,
            PriorityChoice::StandbySeeding => Self::StandbySeeding,
            PriorityChoice::BackupRefresh => Self::BackupRefresh,
            PriorityChoice::AdHoc => Self::AdHoc,
        }
    }
}

/// `planaria cluster limits`.
#[derive(Subcommand, Debug)]
pub(crate) enum LimitsCommand {
    /// Set what clones may take of a place, or of all places of a kind
    #[command(after_help = "\
Places are node-out, node-in, datacenter-out, datacenter-in, link and primary, with :NAME for one of them; a link is named
FROM/TO by its datacenters. It holds at once, for those that run, too: none of them is ended, but no other one begins.

Examples:
  planaria cluster limits set node-out --clones 2
  planaria cluster limits set link:a/b --clones 1 --rate 16MiB")]
    Set {
        /// The place
        gate: String,
        /// Clones at a time [default: as it is]
        #[arg(long, value_name = "CLONES", required_unless_present = "rate")]
        clones: Option<u32>,
        /// Bytes a second of all of them [default: as it is]
        #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
        rate: Option<u64>,
        #[command(flatten)]
        center: CenterArgs,
    },
}
