//! Stores of backups that the control center knows, and backups that it has made.

use clap::{Args, Subcommand};
use planaria_backup::Place;
use planaria_net::wire::jobs::CloneWish;
use planaria_net::wire::message::CloneRole;
use planaria_net::wire::stores::StoreSpec;
use planaria_replication::control::Priority;

use super::choice::{parse_bytes, parse_duration_ms};
use super::cluster::{CenterArgs, parse_label};

/// `planaria cluster store`.
#[derive(Subcommand, Debug)]
pub(crate) enum StoreCommand {
    /// Say that a database has a store of backups, in place of what was said of it
    #[command(after_help = "\
Nodes bring backups there and take clones from there if they were started with `serve --backup-to` and the same URL: what they may
speak to is theirs to say, and the keys of a bucket are in their environment alone. With labels a store is as near to nodes as
another node would be. Its newest backup is a source of clones like a backup on a node.

Examples:
  planaria cluster store add birds s3://bucket/birds --label region=eu --keep 7
  planaria cluster store add birds /mnt/backups --label datacenter=a
  planaria cluster backup birds --to /mnt/backups
  planaria cluster schedule add nightly --cron \"30 3 * * *\" --database birds --role store --to s3://bucket/birds")]
    Add(StoreAddArgs),
    /// List the stores, with the newest backup in each
    List(CenterArgs),
    /// Say that a database has a store no more; what is there stays
    Remove {
        /// The database, by name or id
        database: String,
        /// The store, as `store list` shows it
        #[arg(value_name = "URL")]
        place: String,
        #[command(flatten)]
        center: CenterArgs,
    },
}

/// `planaria cluster store add`.
#[derive(Args, Debug)]
pub(crate) struct StoreAddArgs {
    /// The database, by name or id
    pub(crate) database: String,
    /// Where the store is: a directory by its whole path, or a bucket and a prefix as in the examples
    #[arg(value_name = "URL")]
    place: Place,
    /// Where that is: region, datacenter, rack
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// Keep the newest so many backups of the database: whoever makes one removes those before them [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    keep: Option<u64>,
    #[command(flatten)]
    pub(crate) center: CenterArgs,
}

impl StoreAddArgs {
    /// The same for the control center.
    pub(crate) fn spec(&self) -> StoreSpec {
        StoreSpec { place: self.place.to_string(), labels: self.labels.clone(), keep: self.keep }
    }
}

/// `planaria cluster backup`.
#[derive(Args, Debug)]
#[command(after_help = "\
A backup on a node makes it, or else a standby, and the primary last: of those that may speak to the store and are at most the period
older than the freshest, the nearest to it. It waits for its turn as clones do; `cluster clone show`, `rate` and `cancel` take its
number.

Examples:
  planaria cluster backup birds
  planaria cluster backup birds --to s3://bucket/birds --rate 16MiB")]
pub(crate) struct ClusterBackupArgs {
    /// The database, by name or id [default: the only one]
    database: Option<String>,
    /// The store, as `cluster store list` shows it [default: the only one of the database]
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    to: String,
    /// By how much the copy may be older than the freshest, if it is nearer
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration_ms)]
    period: u64,
    /// At most so many bytes a second
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes)]
    rate: Option<u64>,
    #[command(flatten)]
    pub(crate) center: CenterArgs,
}

impl ClusterBackupArgs {
    /// The same for the control center.
    pub(crate) fn wish(&self) -> CloneWish {
        CloneWish {
            to: self.to.clone(),
            database: self.database.clone(),
            role: CloneRole::Store,
            period_ms: self.period,
            priority: Priority::BackupRefresh,
            bytes_per_s: self.rate,
            ..CloneWish::default()
        }
    }
}
