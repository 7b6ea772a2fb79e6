//! A cluster as a file declares it.

use std::path::PathBuf;

use clap::Subcommand;

use super::cluster::CenterArgs;

/// `planaria topology`.
#[derive(Subcommand, Debug)]
pub(crate) enum TopologyCommand {
    /// Have the cluster be as a file declares it, in one step, and show what changes
    #[command(after_help = "\
The file is TOML and holds the whole: what it does not name is as if nothing had been said of it. `topology show` prints what
holds now in the same form, so that what it prints changes nothing. Where something is wrong nothing changes, and the line is
named.

  [datacenters.east]
  region = \"eu\"
  [nodes.birds-4]
  labels = { datacenter = \"east\", rack = \"2\" }
  capacity = \"100GiB\"
  [databases.birds]
  mode = \"automatic\"
  standbys = 1
  backups = 2
  [limits.\"link:east/west\"]
  clones = 1
  rate = \"16MiB\"
  [schedules.nightly]
  cron = \"30 3 * * *\"
  to = \"birds-4\"
  ttl = \"168h\"
  [rules.afterwards]
  on = \"failover\"
  role = \"backup\"

Examples:
  planaria topology apply cluster.toml --dry-run
  planaria topology apply cluster.toml")]
    Apply {
        /// The file
        file: PathBuf,
        /// Show what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        center: CenterArgs,
    },
    /// Print what is declared now, in the form of such a file
    Show(CenterArgs),
}
