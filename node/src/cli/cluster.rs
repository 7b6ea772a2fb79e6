//! The control center: how it is started, how nodes join it, what is asked of it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use planaria_net::wire::control::{JoinToken, Mode};
use planaria_replication::control::{InstanceRole, Labels};

use super::choice::parse_duration_ms;
use super::cluster_clones::{ClusterCloneCommand, LimitsCommand, ScheduleCommand};
use super::cluster_members::{NodeCommand, TokenCommand};
use super::cluster_rules::RuleCommand;
use super::cluster_stores::{ClusterBackupArgs, StoreCommand};
use crate::cluster::{Membership, default_address};
use crate::output::CliError;
use crate::session::resolve;

/// `planaria control`.
#[derive(Args, Debug)]
#[command(after_help = "\
It keeps a catalog of nodes, databases and copies in the directory, and shows the token with which nodes join. Commits do
not need it: while it is down, a primary that is lost is not replaced, and nothing else changes.

Examples:
  planaria control cluster
  planaria serve birds --control 127.0.0.1:4740 --join-token TOKEN --label region=eu --label datacenter=a")]
pub(crate) struct ControlArgs {
    /// The directory of the catalog; made if there is none
    #[arg(value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Where to listen; port 0 takes a free one [default: 127.0.0.1:4740]
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<SocketAddr>,
    /// A node that was not heard for so long is lost
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_lost_after)]
    pub(crate) lost_after: u64,
    /// A copy that `cluster want` asks for and that was not heard for so long is made anew on a spare node
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_lost_after)]
    pub(crate) seed_after: u64,
    /// The round trip between two nodes is measured this often
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_measure_every)]
    pub(crate) measure_every: u64,
}

/// How a node joins a cluster.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Cluster")]
pub(crate) struct MembershipArgs {
    /// Report to the control center at this address, and do what it says
    #[arg(long, value_name = "ADDR", env = "PLANARIA_CONTROL")]
    pub(crate) control: Option<String>,
    /// The token of the cluster, as `planaria control` and `planaria cluster token show` tell it
    #[arg(long, value_name = "TOKEN", env = "PLANARIA_JOIN_TOKEN", hide_env_values = true)]
    pub(crate) join_token: Option<JoinToken>,
    /// The node's name in the cluster [default: that of the directory]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Where the node is: region, datacenter, rack; others may be given
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// What its copy is for when it does not lead
    #[arg(long, value_enum, default_value_t)]
    pub(crate) role: CopyFor,
    /// Where other nodes and clients reach this one [default: the host that it speaks from, and its port]
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise: Option<String>,
}

impl MembershipArgs {
    /// The same for a node; none if it belongs to no cluster.
    pub(crate) fn membership(&self) -> Result<Option<Membership>, CliError> {
        let Some(control) = &self.control else { return Ok(None) };
        let token = self.join_token.ok_or_else(|| {
            CliError::usage("a node joins a cluster with its token, and none is given")
                .hint("`planaria control` shows it; give it with --join-token, or in PLANARIA_JOIN_TOKEN")
        })?;
        let labels = Labels::of(self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let role = match self.role {
            CopyFor::Standby => InstanceRole::Standby,
            CopyFor::Backup => InstanceRole::Backup,
        };
        let (control, name) = (resolve(control)?, self.name.clone());
        let advertised = self.advertise.as_deref().map(resolve).transpose()?;
        Ok(Some(Membership { control, token, name, labels, role, advertised }))
    }
}

/// What a copy is for when it does not lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum CopyFor {
    /// It may lead next
    #[default]
    Standby,
    /// Clones are taken from it
    Backup,
}

/// `planaria cluster`.
#[derive(Subcommand, Debug)]
pub(crate) enum ClusterCommand {
    /// Show the databases: who leads them, and what goes on
    Show(CenterArgs),
    /// List the nodes
    Nodes(CenterArgs),
    /// Have a node leave that is gone for good
    #[command(subcommand)]
    Node(NodeCommand),
    /// Show or renew the token with which nodes join
    #[command(subcommand)]
    Token(TokenCommand),
    /// List the copies of all databases
    Instances(CenterArgs),
    /// List the round trips between nodes, as they have measured them
    Links(CenterArgs),
    /// List what happened, and why
    History {
        #[command(flatten)]
        center: CenterArgs,
        /// The youngest so many
        #[arg(long, value_name = "EVENTS", default_value_t = 100)]
        limit: u32,
    },
    /// Say who decides on a promotion when the primary of a database is lost
    #[command(after_help = "\
In mode automatic the control center has another copy lead when the primary is lost, if nothing that was acknowledged at the
level one or above is lost by it; the others follow, and the old primary comes back as a secondary. What was acknowledged at
level local alone, and was on the old primary alone, goes into its quarantine. A database whose own level is local is never
promoted automatically.

Example:
  planaria cluster mode birds automatic")]
    Mode {
        /// The database, by name or id
        database: String,
        /// Who decides
        #[arg(value_enum)]
        mode: ModeChoice,
        #[command(flatten)]
        center: CenterArgs,
    },
    /// Have clones made where they are wanted, one after the other as limits allow
    #[command(subcommand)]
    Clone(ClusterCloneCommand),
    /// Say where a database has stores of backups, or list them
    #[command(subcommand)]
    Store(StoreCommand),
    /// Have a node bring a backup of a database to one of its stores
    Backup(ClusterBackupArgs),
    /// Have clones or backups asked for again and again
    #[command(subcommand)]
    Schedule(ScheduleCommand),
    /// Say what is done when something happens: a copy that is behind, another one that leads
    #[command(subcommand)]
    Rule(RuleCommand),
    /// Show or set what clones may take of nodes, datacenters and links
    #[command(args_conflicts_with_subcommands = true)]
    Limits {
        #[command(flatten)]
        center: CenterArgs,
        #[command(subcommand)]
        set: Option<LimitsCommand>,
    },
    /// Show how many copies of each database are wanted, or say so
    #[command(after_help = "\
Where fewer copies are heard than are wanted, a node that was started with `serve --spare` and that --role gets one: at once
if there never were as many, after --seed-after of `planaria control` if one was lost. It is cloned from the best source, and
follows the primary from then on. What is there and not wanted stays.

Example:
  planaria cluster want birds --standbys 1 --backups 2")]
    Want {
        /// The database, by name or id; without one, what is wanted is shown
        database: Option<String>,
        /// Standbys beside the primary [default: as many as before]
        #[arg(long, value_name = "COPIES", requires = "database")]
        standbys: Option<u32>,
        /// Backups [default: as many as before]
        #[arg(long, value_name = "COPIES", requires = "database")]
        backups: Option<u32>,
        #[command(flatten)]
        center: CenterArgs,
    },
    /// Tell where a clone to a node would be taken from, and why; nothing is done
    #[command(after_help = "\
Of the backups that are at most the period older than the freshest, the nearest to the node is taken: by its labels, then by
round trip, then the latest. Without one the standby serves, and without one the primary.

Example:
  planaria cluster choose-source --to birds-4 --period 10m")]
    ChooseSource {
        #[command(flatten)]
        center: CenterArgs,
        /// The node that would get the clone
        #[arg(long, value_name = "NODE")]
        to: String,
        /// The database, by name or id [default: the only one]
        #[arg(long, value_name = "NAME|ID")]
        database: Option<String>,
        /// By how much a copy may be older than the freshest and be taken because it is nearer
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration_ms)]
        period: u64,
    },
    /// Tell where clients are sent, and why
    #[command(after_help = "\
Updates, and reads that must show the newest, go to the primary. Where something older will do, standbys that are fresh enough
take turns, then come backups, and the primary last. Commands with --cluster go by the same.

Examples:
  planaria cluster route birds --max-staleness 2s
  planaria get --cluster 127.0.0.1:4740/birds weather EWR 2013-01-01T06:00:00Z --max-staleness 2s")]
    Route {
        /// The database, by name or id [default: the only one]
        database: Option<String>,
        /// How old what is read may be [default: the newest alone]
        #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
        max_staleness: Option<u64>,
        #[command(flatten)]
        center: CenterArgs,
    },
}

/// Which control center is asked.
#[derive(Args, Debug)]
pub(crate) struct CenterArgs {
    /// The address of the control center [default: 127.0.0.1:4740]
    #[arg(long, value_name = "ADDR", env = "PLANARIA_CONTROL")]
    pub(crate) control: Option<String>,
}

impl CenterArgs {
    pub(crate) fn address(&self) -> Result<SocketAddr, CliError> {
        self.control.as_deref().map_or_else(|| Ok(default_address()), resolve)
    }
}

/// Who decides on a promotion.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum ModeChoice {
    /// An operator
    Operator,
    /// The control center
    Automatic,
}

impl From<ModeChoice> for Mode {
    fn from(choice: ModeChoice) -> Self {
        match choice {
            ModeChoice::Operator => Self::Operator,
            ModeChoice::Automatic => Self::Automatic,
        }
    }
}

pub(super) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() && !text.contains(',') => {
            Ok((name.to_owned(), value.to_owned()))
        }
        _ => Err("write it NAME=VALUE, as in region=eu, without a comma".to_owned()),
    }
}

/// More often than nodes report nothing is measured.
fn parse_measure_every(text: &str) -> Result<u64, String> {
    match parse_duration_ms(text)? {
        ms @ 1_000.. => Ok(ms),
        _ => Err("it is at least 1s: nodes report every second".to_owned()),
    }
}

/// Nodes report every second; less than three of those would take a busy one for lost.
fn parse_lost_after(text: &str) -> Result<u64, String> {
    match parse_duration_ms(text)? {
        ms @ 3_000.. => Ok(ms),
        _ => Err("it is at least 3s: nodes report every second".to_owned()),
    }
}
