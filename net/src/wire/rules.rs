//! What the control center does by itself when something happens to a database.

use planaria_replication::control::InstanceRole;
use serde::{Deserialize, Serialize};

use super::jobs::CloneWish;

/// The least that a copy may be behind before a rule holds, in milliseconds: nodes report every second.
pub const RULE_LAG_MIN_MS: u64 = 3_000;
/// The least time between two times that a rule acts, in milliseconds.
pub const RULE_PAUSE_MIN_MS: u64 = 1_000;

/// What a rule waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum RuleEvent {
    /// A copy that follows is behind its primary by more than so much, for so long.
    Lag {
        /// By how much, in milliseconds.
        over_ms: u64,
        /// For how long, in milliseconds.
        for_ms: u64,
        /// Copies of which role; none means all that follow.
        role: Option<InstanceRole>,
    },
    /// Another copy leads than before.
    Failover,
}

impl RuleEvent {
    /// Its name in commands and JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Lag { .. } => "lag",
            Self::Failover => "failover",
        }
    }
}

/// What a rule does.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "rules are few, and most of them ask for clones")]
pub enum RuleAction {
    /// Asks for a clone. A standby or backup without a node becomes the copy of the best node that waits for one.
    Clone(CloneWish),
    /// Has the copy that is behind take everything anew from its primary, in place of what it has.
    Reseed,
}

impl RuleAction {
    /// Its name in commands and JSON.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Clone(_) => "clone",
            Self::Reseed => "reseed",
        }
    }
}

/// What is to be done when something happens.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Rule {
    /// What it is called.
    pub name: String,
    /// The database by name or id; none where there is one.
    pub database: Option<String>,
    /// What it waits for.
    pub event: RuleEvent,
    /// What it does then.
    pub action: RuleAction,
    /// It does not act again before so many milliseconds.
    pub pause_ms: u64,
}

/// A rule that holds.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct RuleInfo {
    /// What was set. Databases have their names.
    pub rule: Rule,
    /// When it acted last, in milliseconds since 1970.
    pub acted_ms: Option<u64>,
    /// Why it cannot act though it should; empty if nothing is in its way.
    pub note: String,
}
