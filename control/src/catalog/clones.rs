//! Clones, limits and wanted copies, as the catalog keeps them.

use std::collections::BTreeSet;

use planaria_engine::{ColumnType, Value};
use planaria_net::wire::jobs::{CloneWish, When};
use planaria_net::wire::message::{CloneRole, Shape};
use planaria_replication::control::{Ceiling, Gate, Priority};
use planaria_types::{DatabaseId, InstanceId};

use super::row::{Row, bits, text, time};
use super::tables::Stored;
use crate::Result;

/// How a clone stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CloneState {
    /// Its turn has not come, or its source failed.
    Queued,
    /// Its node is told to make it.
    Running,
    /// It is whole.
    Complete,
    /// It cannot be made.
    Failed,
    /// An operator gave it up.
    Cancelled,
}

impl CloneState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Queued, Self::Running, Self::Complete, Self::Failed, Self::Cancelled];

    /// Its name in commands, the catalog and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether it has not come to an end.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Running)
    }
}

/// A clone that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CloneRecord {
    /// Its number, among those of all jobs.
    pub number: u64,
    /// What it is called.
    pub name: String,
    /// The database.
    pub database: DatabaseId,
    /// The node that gets it, by name; the place of the store where it goes into one.
    pub node: String,
    /// What it is for.
    pub role: CloneRole,
    /// How urgent it is.
    pub priority: Priority,
    /// By how much its source may be older than the freshest copy, in milliseconds.
    pub period_ms: u64,
    /// What was asked for at most, in bytes a second.
    pub bytes_per_s_wanted: Option<u64>,
    /// How long it lives once it is whole, in seconds.
    pub ttl_s: Option<u64>,
    /// What its source makes of its rows; kept in a table of its own.
    pub shape: Shape,
    /// Who asked for it.
    pub origin: String,
    /// How it stands.
    pub state: CloneState,
    /// Why it is as it is, as a stable name; may be empty.
    pub code: String,
    /// Why it is as it is.
    pub reason: String,
    /// What was found of each copy when its source was chosen last.
    pub reasons: Vec<String>,
    /// The copy that it is taken from, or was last.
    pub source: Option<InstanceId>,
    /// The node of that copy.
    pub source_node: String,
    /// What it goes through while it runs.
    pub gates: Vec<Gate>,
    /// The rate that its node was told when it began, in bytes a second.
    pub bytes_per_s: u64,
    /// What it takes on the disk of its node, as far as is known.
    pub bytes: u64,
    /// Copies that were its source and failed.
    pub failed: BTreeSet<InstanceId>,
    /// When it was asked for, in milliseconds since 1970.
    pub submitted_ms: u64,
    /// When it ended.
    pub ended_ms: Option<u64>,
}

impl CloneRecord {
    /// The node that makes it: the one that gets it, or that of the source where it goes into a store.
    pub fn maker(&self) -> &str {
        if self.role == CloneRole::Store { &self.source_node } else { &self.node }
    }
}

/// What clones may take of a place.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitRecord {
    /// The place.
    pub gate: Gate,
    /// What may go through it.
    pub ceiling: Ceiling,
}

/// How many copies of a database there are to be beside its primary.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WantRecord {
    /// The database.
    pub database: DatabaseId,
    /// Standbys.
    pub standbys: u32,
    /// Backups.
    pub backups: u32,
}

/// A clone that is asked for again and again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ScheduleRecord {
    /// What the schedule is called.
    pub name: String,
    /// When it asks.
    pub when: When,
    /// What is asked for.
    pub wish: CloneWish,
    /// When it is asked for next, in milliseconds since 1970.
    pub due_ms: u64,
}

const TEXT: ColumnType = ColumnType::Text;
const NUMBER: ColumnType = ColumnType::Int64;
const TIME: ColumnType = ColumnType::Timestamp;
pub(super) const CLONE_ROLES: [CloneRole; 4] =
    [CloneRole::Detached, CloneRole::Standby, CloneRole::Backup, CloneRole::Store];

/// The name of a role in the catalog.
pub(crate) fn role_name(role: CloneRole) -> &'static str {
    match role {
        CloneRole::Detached => "detached",
        CloneRole::Standby => "standby",
        CloneRole::Backup => "backup",
        CloneRole::Store => "store",
    }
}

impl Stored for CloneRecord {
    const TABLE: &'static str = "clones";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[
        ("number", NUMBER),
        ("name", TEXT),
        ("database", TEXT),
        ("node", TEXT),
        ("role", TEXT),
        ("priority", TEXT),
        ("period_ms", NUMBER),
        ("rate_wanted", NUMBER),
        ("ttl_s", NUMBER),
        ("origin", TEXT),
        ("state", TEXT),
        ("code", TEXT),
        ("reason", TEXT),
        ("reasons", TEXT),
        ("source", TEXT),
        ("source_node", TEXT),
        ("gates", TEXT),
        ("rate", NUMBER),
        ("bytes", NUMBER),
        ("failed", TEXT),
        ("submitted", TIME),
        ("ended", TIME),
    ];
    const NULLABLE: &'static [&'static str] = &["ended"];

    fn values(&self) -> Vec<Value> {
        let lines = |lines: &mut dyn Iterator<Item = String>| text(lines.collect::<Vec<_>>().join("\n"));
        vec![
            bits(self.number),
            text(&self.name),
            text(self.database),
            text(&self.node),
            text(role_name(self.role)),
            text(self.priority),
            bits(self.period_ms),
            // No clone is asked for at no rate at all.
            bits(self.bytes_per_s_wanted.unwrap_or(0)),
            // Nor for no time.
            bits(self.ttl_s.unwrap_or(0)),
            text(&self.origin),
            text(self.state.name()),
            text(&self.code),
            text(&self.reason),
            text(self.reasons.join("\n")),
            text(self.source.map(|source| source.to_string()).unwrap_or_default()),
            text(&self.source_node),
            lines(&mut self.gates.iter().map(ToString::to_string)),
            bits(self.bytes_per_s),
            bits(self.bytes),
            lines(&mut self.failed.iter().map(ToString::to_string)),
            time(self.submitted_ms),
            self.ended_ms.map_or(Value::Null, time),
        ]
    }

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            number: row.bits()?,
            name: row.text()?,
            database: row.parsed()?,
            node: row.text()?,
            role: row.named(&CLONE_ROLES, role_name)?,
            priority: row.named(&Priority::ALL, Priority::name)?,
            period_ms: row.bits()?,
            bytes_per_s_wanted: Some(row.bits()?).filter(|rate| *rate > 0),
            ttl_s: Some(row.bits()?).filter(|seconds| *seconds > 0),
            shape: Shape::default(),
            origin: row.text()?,
            state: row.named(&CloneState::ALL, CloneState::name)?,
            code: row.text()?,
            reason: row.text()?,
            reasons: row.text()?.lines().map(str::to_owned).collect(),
            source: row.parsed_lines()?.into_iter().next(),
            source_node: row.text()?,
            gates: row.parsed_lines()?,
            bytes_per_s: row.bits()?,
            bytes: row.bits()?,
            failed: row.parsed_lines()?.into_iter().collect(),
            submitted_ms: row.millis()?,
            ended_ms: row.optional_millis()?,
        })
    }
}

impl Stored for LimitRecord {
    const TABLE: &'static str = "limits";
    const COLUMNS: &'static [(&'static str, ColumnType)] =
        &[("gate", TEXT), ("clones_max", NUMBER), ("bytes_per_s_max", NUMBER)];

    fn values(&self) -> Vec<Value> {
        let Ceiling { clones_max, bytes_per_s_max } = self.ceiling;
        vec![text(&self.gate), bits(clones_max.into()), bits(bytes_per_s_max)]
    }

    fn read(row: &mut Row) -> Result<Self> {
        let (gate, clones_max) = (row.parsed()?, row.count()?);
        Ok(Self { gate, ceiling: Ceiling { clones_max, bytes_per_s_max: row.bits()? } })
    }
}

impl Stored for WantRecord {
    const TABLE: &'static str = "wants";
    const COLUMNS: &'static [(&'static str, ColumnType)] =
        &[("database", TEXT), ("standbys", NUMBER), ("backups", NUMBER)];

    fn values(&self) -> Vec<Value> {
        vec![text(self.database), bits(self.standbys.into()), bits(self.backups.into())]
    }

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self { database: row.parsed()?, standbys: row.count()?, backups: row.count()? })
    }
}

impl Stored for ScheduleRecord {
    const TABLE: &'static str = "schedules";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[
        ("name", TEXT),
        ("every_ms", NUMBER),
        ("due", TIME),
        ("node", TEXT),
        ("database", TEXT),
        ("role", TEXT),
        ("priority", TEXT),
        ("period_ms", NUMBER),
        ("rate_wanted", NUMBER),
        ("ttl_s", NUMBER),
    ];

    fn values(&self) -> Vec<Value> {
        let Self { name, when, wish, due_ms } = self;
        // The times of a calendar have a table of their own.
        let every_ms = if let When::Every(ms) = when { *ms } else { 0 };
        vec![
            text(name),
            bits(every_ms),
            time(*due_ms),
            text(&wish.to),
            text(wish.database.as_deref().unwrap_or_default()),
            text(role_name(wish.role)),
            text(wish.priority),
            bits(wish.period_ms),
            bits(wish.bytes_per_s.unwrap_or(0)),
            bits(wish.ttl_s.unwrap_or(0)),
        ]
    }

    fn read(row: &mut Row) -> Result<Self> {
        let (name, when, due_ms) = (row.text()?, When::Every(row.bits()?.max(1)), row.millis()?);
        let wish = CloneWish {
            to: row.text()?,
            database: Some(row.text()?).filter(|database| !database.is_empty()),
            name: None,
            role: row.named(&CLONE_ROLES, role_name)?,
            priority: row.named(&Priority::ALL, Priority::name)?,
            period_ms: row.bits()?,
            bytes_per_s: Some(row.bits()?).filter(|rate| *rate > 0),
            ttl_s: Some(row.bits()?).filter(|seconds| *seconds > 0),
            // Shapes have a table of their own.
            shape: Shape::default(),
        };
        Ok(Self { name, when, wish, due_ms })
    }
}
