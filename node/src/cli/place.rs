//! What commands work on, and the options that all of them have.

use std::path::PathBuf;

use clap::Args;
use planaria_net::quic::Transport;

use super::transport::parse_transport;
use crate::output::{CliError, Format};
use crate::session::Place;

/// Options of every command.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// How results and errors are written
    #[arg(short = 'o', long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
    /// Work on the node at this address (HOST:PORT); the directory is left out then
    #[arg(long, global = true, value_name = "ADDR")]
    pub(crate) node: Option<String>,
    /// Work on a database of the cluster that the control center at this address (HOST:PORT) knows, on the only one if none is
    /// named: at whoever leads it, whoever that is by then; with --max-staleness at a standby
    #[arg(long, global = true, value_name = "ADDR[/DATABASE]", conflicts_with = "node")]
    pub(crate) cluster: Option<String>,
    /// The directory with the certificates for --node and --cluster [default: the user's own]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) tls: Option<PathBuf>,
    /// Read this clone of the node's, which comes in lazily, instead of the node's own database
    #[arg(long = "clone", global = true, value_name = "NAME", conflicts_with = "cluster")]
    pub(crate) of_clone: Option<String>,
    /// Settings of QUIC for nodes, clones and backups: mtu, window, stream-window, send-window, initial-window,
    /// socket-buffer, congestion, offload, keep-alive, idle, connections [default: for loopback and ordinary networks]
    #[arg(long, global = true, value_name = "NAME=VALUE,...", env = "PLANARIA_TRANSPORT", hide_env_values = true,
        default_value = "", hide_default_value = true, value_parser = parse_transport)]
    pub(crate) transport: Transport,
    /// The directory that a shell works on
    #[arg(skip)]
    pub(crate) shell_dir: Option<PathBuf>,
    /// Say more on stderr; twice for still more
    #[arg(short = 'v', long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

impl Global {
    /// The control center and the database of it that commands work on, if they do.
    pub(crate) fn cluster_named(&self) -> Option<(&str, Option<&str>)> {
        let named = self.cluster.as_deref()?;
        Some(named.split_once('/').map_or((named, None), |(center, database)| (center, Some(database))))
    }
}

/// Where a command works.
#[derive(Args, Debug)]
pub(crate) struct PlaceArgs {
    /// The directory of the database
    #[arg(required = true, value_name = "DIR")]
    dir: Option<PathBuf>,
}

impl PlaceArgs {
    /// The directory, or the node or cluster of the global options.
    pub(crate) fn place(&self, global: &Global) -> Result<Place, CliError> {
        let tls = global.tls.clone();
        if let Some((center, database)) = global.cluster_named() {
            return Ok(Place::Cluster {
                center: center.to_owned(),
                database: database.map(str::to_owned),
                tls,
            });
        }
        match (&global.node, self.dir.as_ref().or(global.shell_dir.as_ref())) {
            (Some(address), _) => {
                Ok(Place::Node { address: address.clone(), tls, database: global.of_clone.clone() })
            }
            (None, _) if global.of_clone.is_some() => {
                Err(CliError::usage("--clone is for a clone that a node takes")
                    .hint("name the node with --node"))
            }
            (None, Some(dir)) => Ok(Place::Directory(dir.clone())),
            (None, None) => Err(CliError::usage("no database is named")
                .hint("name its directory, or use --node ADDR or --cluster ADDR")),
        }
    }
}
