//! What can be said about secondaries.

use clap::{Args, Subcommand, ValueEnum};

use super::PlaceArgs;

/// `planaria replica follow`.
#[derive(Args, Debug)]
pub(crate) struct FollowArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The address of the primary
    #[arg(long, value_name = "ADDR")]
    pub(crate) primary: String,
}

/// `planaria replica`.
#[derive(Subcommand, Debug)]
pub(crate) enum ReplicaCommand {
    /// List the secondaries that the primary knows
    List(PlaceArgs),
    /// Show all that is known of one secondary
    Show(ReplicaArgs),
    /// Have a secondary wait: it stays registered, and is not served
    Pause(ReplicaArgs),
    /// Serve a secondary again
    Resume(ReplicaArgs),
    /// Have a secondary, or a primary that was deposed, follow another primary
    Follow(FollowArgs),
    /// Forget a secondary that will not come back: nothing is preserved for it, and it counts for nothing
    Forget(ReplicaArgs),
    /// Bring a secondary up to date, or tell what that would take
    #[command(after_help = "\
The node is a secondary. Without --way the cheapest one is taken: commits from the log, records that changed, ranges that
differ, or all run files. A way that does not lead to the primary's state gives way to another, and the reason is told.

Examples:
  planaria replica refresh --node 127.0.0.1:4748 --dry-run
  planaria replica refresh --node 127.0.0.1:4748 --way reconcile")]
    Refresh(RefreshArgs),
}

/// `planaria replica refresh`.
#[derive(Args, Debug)]
pub(crate) struct RefreshArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Tell the way, the reason and the estimated cost, and move nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How
    #[arg(long, value_enum)]
    pub(crate) way: Option<RefreshWay>,
}

/// How a secondary is brought up to date.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum RefreshWay {
    /// The commits since its position, from the log
    Tail,
    /// The records that changed since its position
    Delta,
    /// The ranges whose fingerprints differ
    Reconcile,
    /// The run files as they lie on disk
    Bulk,
}

impl RefreshWay {
    /// Its name in the protocol.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tail => "tail",
            Self::Delta => "delta",
            Self::Reconcile => "reconcile",
            Self::Bulk => "bulk",
        }
    }
}

/// A secondary.
#[derive(Args, Debug)]
pub(crate) struct ReplicaArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Its name, or its instance where several have that name
    #[arg(value_name = "NAME|ID")]
    pub(crate) name: String,
}
