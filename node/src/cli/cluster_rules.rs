//! What the control center does when something happens.

use clap::{Args, Subcommand, ValueEnum};
use planaria_net::wire::jobs::CloneWish;
use planaria_net::wire::rules::{Rule, RuleAction, RuleEvent};
use planaria_replication::control::InstanceRole;

use super::choice::parse_duration_ms;
use super::cluster::{CenterArgs, CopyFor};
use super::cluster_clones::{MannerArgs, RoleChoice};

/// `planaria cluster rule`.
#[derive(Subcommand, Debug)]
pub(crate) enum RuleCommand {
    /// Have something done when something happens, in place of a rule of that name
    #[command(after_help = "\
On lag a rule acts once for a copy that is behind its primary, and again when that copy has caught up and fallen behind anew; on
failover, once for each copy that leads in place of another one. Without --to a standby or backup is made on the best node
that was started with `serve --spare` and that --role. What it cannot do it does when it can. `cluster history` has its reasons.

A copy that is lost is made up for by `planaria cluster want`.

Examples:
  planaria cluster rule add behind --on lag --over 30s --for 1m --role standby
  planaria cluster rule add anew --on lag --over 10m --for 5m --reseed
  planaria cluster rule add afterwards --on failover --role backup
  planaria cluster rule add picture --on failover --to birds-4 --role detached --ttl 168h")]
    Add(Box<RuleAddArgs>),
    /// List the rules
    List(CenterArgs),
    /// End a rule; clones that it has asked for go on
    Remove {
        /// The rule
        name: String,
        #[command(flatten)]
        center: CenterArgs,
    },
}

/// `planaria cluster rule add`.
#[derive(Args, Debug)]
pub(crate) struct RuleAddArgs {
    /// What the rule is called
    name: String,
    /// What it waits for
    #[arg(long, value_enum)]
    on: EventChoice,
    /// The database, by name or id [default: the only one]
    #[arg(long, value_name = "NAME|ID")]
    database: Option<String>,
    /// By how much a copy is behind
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms, required_if_eq("on", "lag"))]
    over: Option<u64>,
    /// For how long
    #[arg(long = "for", value_name = "DURATION", default_value = "0s", value_parser = parse_duration_ms)]
    lasts: u64,
    /// Copies of which role are looked at [default: all that follow]
    #[arg(long, value_enum, value_name = "ROLE")]
    of: Option<CopyFor>,
    /// Have the copy that is behind take everything anew from its primary
    #[arg(long, conflicts_with_all = ["role", "to"])]
    reseed: bool,
    /// What the clone is for that is asked for
    #[arg(long, value_enum, required_unless_present = "reseed")]
    role: Option<RoleChoice>,
    /// The node that is to get it [default: the best one that waits for a copy]
    #[arg(long, value_name = "NODE")]
    to: Option<String>,
    #[command(flatten)]
    manner: MannerArgs,
    /// It does not act again before
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_duration_ms)]
    pause: u64,
    #[command(flatten)]
    pub(crate) center: CenterArgs,
}

impl RuleAddArgs {
    /// The same for the control center.
    pub(crate) fn rule(&self) -> Rule {
        let event = match self.on {
            EventChoice::Lag => RuleEvent::Lag {
                over_ms: self.over.unwrap_or(0),
                for_ms: self.lasts,
                role: self.of.map(|of| match of {
                    CopyFor::Standby => InstanceRole::Standby,
                    CopyFor::Backup => InstanceRole::Backup,
                }),
            },
            EventChoice::Failover => RuleEvent::Failover,
        };
        let action = if self.reseed {
            RuleAction::Reseed
        } else {
            RuleAction::Clone(CloneWish {
                to: self.to.clone().unwrap_or_default(),
                database: self.database.clone(),
                role: self.role.unwrap_or_default().into(),
                ..self.manner.wish()
            })
        };
        let (name, database) = (self.name.clone(), self.database.clone());
        Rule { name, database, event, action, pause_ms: self.pause }
    }
}

/// What a rule waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum EventChoice {
    /// A copy that follows is behind its primary
    Lag,
    /// Another copy leads than before
    Failover,
}
