//! Rules, as the catalog keeps them.

use std::collections::BTreeSet;

use planaria_engine::{ColumnType, Value};
use planaria_net::wire::jobs::CloneWish;
use planaria_net::wire::rules::{RuleAction, RuleEvent};
use planaria_replication::control::{InstanceRole, Priority};
use planaria_types::{DatabaseId, InstanceId};

use super::clones::{CLONE_ROLES, role_name};
use super::row::{Row, bits, text, time};
use super::tables::Stored;
use crate::Result;

/// What is to be done when something happens to a database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleRecord {
    /// What the rule is called.
    pub name: String,
    /// The database.
    pub database: DatabaseId,
    /// What it waits for.
    pub event: RuleEvent,
    /// What it does then.
    pub action: RuleAction,
    /// It does not act again before so many milliseconds.
    pub pause_ms: u64,
    /// The copy that led when it was last looked at.
    pub leader: Option<InstanceId>,
    /// Copies that are behind and for which it has acted.
    pub handled: BTreeSet<InstanceId>,
    /// When it acted last, in milliseconds since 1970.
    pub acted_ms: Option<u64>,
}

impl RuleRecord {
    /// Whether a node gets clones by it.
    pub(crate) fn names(&self, node: &str) -> bool {
        matches!(&self.action, RuleAction::Clone(wish) if wish.to == node)
    }
}

const TEXT: ColumnType = ColumnType::Text;
const NUMBER: ColumnType = ColumnType::Int64;
const TIME: ColumnType = ColumnType::Timestamp;
const FOLLOWERS: [InstanceRole; 2] = [InstanceRole::Standby, InstanceRole::Backup];

impl Stored for RuleRecord {
    const TABLE: &'static str = "rules";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[
        ("name", TEXT),
        ("database", TEXT),
        ("event", TEXT),
        ("over_ms", NUMBER),
        ("for_ms", NUMBER),
        ("of_role", TEXT),
        ("action", TEXT),
        ("node", TEXT),
        ("role", TEXT),
        ("priority", TEXT),
        ("period_ms", NUMBER),
        ("rate_wanted", NUMBER),
        ("ttl_s", NUMBER),
        ("pause_ms", NUMBER),
        ("leader", TEXT),
        ("handled", TEXT),
        ("acted", TIME),
    ];
    const NULLABLE: &'static [&'static str] = &["acted"];

    fn values(&self) -> Vec<Value> {
        let (over_ms, for_ms, of_role) = match self.event {
            RuleEvent::Lag { over_ms, for_ms, role } => {
                (over_ms, for_ms, role.map_or("", InstanceRole::name))
            }
            RuleEvent::Failover => (0, 0, ""),
        };
        let none = CloneWish::default();
        let wish = match &self.action {
            RuleAction::Clone(wish) => wish,
            RuleAction::Reseed => &none,
        };
        let ids = |ids: &mut dyn Iterator<Item = &InstanceId>| {
            text(ids.map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        };
        vec![
            text(&self.name),
            text(self.database),
            text(self.event.name()),
            bits(over_ms),
            bits(for_ms),
            text(of_role),
            text(self.action.name()),
            text(&wish.to),
            text(role_name(wish.role)),
            text(wish.priority),
            bits(wish.period_ms),
            bits(wish.bytes_per_s.unwrap_or(0)),
            bits(wish.ttl_s.unwrap_or(0)),
            bits(self.pause_ms),
            ids(&mut self.leader.iter()),
            ids(&mut self.handled.iter()),
            self.acted_ms.map_or(Value::Null, time),
        ]
    }

    fn read(row: &mut Row) -> Result<Self> {
        let (name, database): (_, DatabaseId) = (row.text()?, row.parsed()?);
        let is_lag = row.named(&[true, false], |is_lag| if is_lag { "lag" } else { "failover" })?;
        let (over_ms, for_ms, of_role) = (row.bits()?, row.bits()?, row.text()?);
        let role = FOLLOWERS.into_iter().find(|role| role.name() == of_role);
        let event = if is_lag { RuleEvent::Lag { over_ms, for_ms, role } } else { RuleEvent::Failover };
        let is_clone = row.named(&[true, false], |is_clone| if is_clone { "clone" } else { "reseed" })?;
        let wish = CloneWish {
            to: row.text()?,
            database: Some(database.to_string()),
            role: row.named(&CLONE_ROLES, role_name)?,
            priority: row.named(&Priority::ALL, Priority::name)?,
            period_ms: row.bits()?,
            bytes_per_s: Some(row.bits()?).filter(|rate| *rate > 0),
            ttl_s: Some(row.bits()?).filter(|seconds| *seconds > 0),
            ..CloneWish::default()
        };
        Ok(Self {
            name,
            database,
            event,
            action: if is_clone { RuleAction::Clone(wish) } else { RuleAction::Reseed },
            pause_ms: row.bits()?,
            leader: row.parsed_lines()?.into_iter().next(),
            handled: row.parsed_lines()?.into_iter().collect(),
            acted_ms: row.optional_millis()?,
        })
    }
}

/// The times of the calendar at which a schedule asks, in a table of its own beside that of the schedules.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct CalendarRecord {
    pub(super) schedule: String,
    pub(super) pattern: String,
}

impl Stored for CalendarRecord {
    const TABLE: &'static str = "calendars";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[("schedule", TEXT), ("pattern", TEXT)];

    fn values(&self) -> Vec<Value> {
        vec![text(&self.schedule), text(&self.pattern)]
    }

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self { schedule: row.text()?, pattern: row.text()? })
    }
}
