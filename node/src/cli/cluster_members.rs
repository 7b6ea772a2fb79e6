//! Who belongs to a cluster: the token with which nodes join, nodes that leave.

use clap::{Args, Subcommand};
use planaria_net::wire::control::ControlRequest;

use super::cluster::CenterArgs;

/// `planaria cluster node`.
#[derive(Subcommand, Debug)]
pub(crate) enum NodeCommand {
    /// Have a node leave the cluster that is gone for good, and its copies with it
    #[command(after_help = "\
A node that is heard is not gone: stop it first, and wait for --lost-after of `planaria control`. Nor is one removed that led a
database last while no other copy leads it, that has clones or jobs under way, or that schedules and rules bring clones to; with
--force it is: what is on its way to it is given up, and the epoch under which it led stays known.

A copy that its node has replaced by another one goes by itself. A removed node that comes back has to join again with the
token; its secondaries and primary know it as before (`planaria replica forget`).

Examples:
  planaria cluster node remove birds-3 --reason \"its disk is gone\"
  planaria cluster nodes")]
    Remove(NodeRemoveArgs),
}

/// `planaria cluster token`.
#[derive(Subcommand, Debug)]
pub(crate) enum TokenCommand {
    /// Show the token with which nodes join
    Show(CenterArgs),
    /// Have another token be drawn: nobody joins with the one before any more
    #[command(after_help = "\
It holds at once and for good. Nodes that have joined go on, and are let in again after a restart with the token that they have, under
their name and address; `cluster nodes` shows who has an older one. Give them the new one at their next restart. Who has left, or is
at another address, needs the new one.

Examples:
  planaria cluster token renew
  planaria cluster token show")]
    Renew(CenterArgs),
}

/// `planaria cluster node remove`.
#[derive(Args, Debug)]
pub(crate) struct NodeRemoveArgs {
    /// The node, as `cluster nodes` shows it
    #[arg(value_name = "NAME")]
    name: String,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    reason: String,
    /// Though it led last, has work under way, or is named by schedules and rules
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub(crate) center: CenterArgs,
}

impl NodeRemoveArgs {
    /// The same for the control center.
    pub(crate) fn request(&self) -> ControlRequest {
        let (name, reason) = (self.name.clone(), self.reason.clone());
        ControlRequest::RemoveNode { name, reason, force: self.force }
    }
}
