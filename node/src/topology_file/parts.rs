//! The things that a topology file declares, as they are written there.

use std::collections::BTreeMap;
use std::fmt;

use planaria_net::wire::control::Mode;
use planaria_net::wire::jobs::{CloneWish, When};
use planaria_net::wire::message::{CloneRole, Shape as WireShape};
use planaria_net::wire::rules::{Rule as RuleSpec, RuleAction, RuleEvent};
use planaria_net::wire::stores::StoreSpec;
use planaria_net::wire::topology::{DatabaseSpec, DatacenterSpec, LimitSpec, NodeSpec, ScheduleSpec};
use planaria_replication::control::{InstanceRole, Priority};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::cli::{cut_text, parse_bytes, parse_duration_ms, shape_of_words};

/// The time by which a source may be older than the freshest copy if nothing is said, in milliseconds.
const PERIOD_MS: u64 = 600_000;

/// A time with its unit, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Time(u64);

/// Bytes with their unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Size(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        match units.into_iter().find(|(ms, _)| self.0 > 0 && self.0.is_multiple_of(*ms)) {
            Some((ms, unit)) => write!(f, "{}{unit}", self.0 / ms),
            None => write!(f, "{}ms", self.0),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        match units.into_iter().find(|(shift, _)| self.0 > 0 && self.0.is_multiple_of(1 << shift)) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_duration_ms(&text).map(Self).map_err(|what| D::Error::custom(format!("{text:?}: {what}")))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_bytes(&text).map(Self).map_err(|what| D::Error::custom(format!("{text:?}: {what}")))
    }
}

/// What is said by one of a few words.
macro_rules! words {
    ($name:ident for $of:ty { $($variant:ident => $value:expr, $word:literal;)+ }) => {
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
        pub(super) enum $name {
            $(#[serde(rename = $word)] $variant,)+
        }

        impl From<$name> for $of {
            fn from(word: $name) -> Self {
                match word {
                    $($name::$variant => $value,)+
                }
            }
        }

        impl $name {
            /// The word for it; none if there is none.
            fn of(value: $of) -> Option<Self> {
                [$($name::$variant),+].into_iter().find(|word| <$of>::from(*word) == value)
            }
        }
    };
}

words!(ModeWord for Mode {
    Operator => Mode::Operator, "operator";
    Automatic => Mode::Automatic, "automatic";
});
words!(RoleWord for CloneRole {
    Detached => CloneRole::Detached, "detached";
    Standby => CloneRole::Standby, "standby";
    Backup => CloneRole::Backup, "backup";
    Store => CloneRole::Store, "store";
});
words!(FollowerWord for InstanceRole {
    Standby => InstanceRole::Standby, "standby";
    Backup => InstanceRole::Backup, "backup";
});
words!(PriorityWord for Priority {
    Recovery => Priority::Recovery, "recovery";
    StandbySeeding => Priority::StandbySeeding, "standby-seeding";
    BackupRefresh => Priority::BackupRefresh, "backup-refresh";
    AdHoc => Priority::AdHoc, "ad-hoc";
});

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Datacenter {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    region: String,
}

impl Datacenter {
    pub(super) fn spec(self, name: String) -> DatacenterSpec {
        DatacenterSpec { name, region: self.region }
    }

    pub(super) fn of(spec: DatacenterSpec) -> (String, Self) {
        (spec.name, Self { region: spec.region })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Node {
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<Size>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

impl Node {
    pub(super) fn spec(self, name: String) -> NodeSpec {
        let labels = self.labels.into_iter().collect();
        NodeSpec { name, labels, capacity_bytes: self.capacity.map(|size| size.0) }
    }

    pub(super) fn of(spec: NodeSpec) -> (String, Self) {
        let labels = spec.labels.into_iter().collect();
        (spec.name, Self { capacity: spec.capacity_bytes.map(Size), labels })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Database {
    #[serde(default = "operator")]
    mode: ModeWord,
    #[serde(default)]
    standbys: u32,
    #[serde(default)]
    backups: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    stores: BTreeMap<String, Store>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Store {
    #[serde(skip_serializing_if = "Option::is_none")]
    keep: Option<u64>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
}

impl Store {
    fn spec(self, place: String) -> StoreSpec {
        StoreSpec { place, labels: self.labels.into_iter().collect(), keep: self.keep }
    }

    fn of(spec: StoreSpec) -> (String, Self) {
        (spec.place, Self { keep: spec.keep, labels: spec.labels.into_iter().collect() })
    }
}

fn operator() -> ModeWord {
    ModeWord::Operator
}

impl Database {
    pub(super) fn spec(self, name: String) -> DatabaseSpec {
        let stores = self.stores.into_iter().map(|(place, store)| store.spec(place)).collect();
        DatabaseSpec { name, mode: self.mode.into(), standbys: self.standbys, backups: self.backups, stores }
    }

    pub(super) fn of(spec: DatabaseSpec) -> (String, Self) {
        let mode = ModeWord::of(spec.mode).unwrap_or(ModeWord::Operator);
        let stores = spec.stores.into_iter().map(Store::of).collect();
        (spec.name, Self { mode, standbys: spec.standbys, backups: spec.backups, stores })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    clones: u32,
    rate: Size,
}

impl Limit {
    pub(super) fn spec(self, gate: String) -> LimitSpec {
        LimitSpec { gate, clones_max: self.clones, bytes_per_s_max: self.rate.0 }
    }

    pub(super) fn of(spec: LimitSpec) -> (String, Self) {
        (spec.gate, Self { clones: spec.clones_max, rate: Size(spec.bytes_per_s_max) })
    }
}

/// What a source makes of its rows, in the words of the options of `cluster clone create`.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Shape {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    leave_out: Vec<String>,
    #[serde(rename = "where", skip_serializing_if = "Vec::is_empty")]
    filters: Vec<String>,
    #[serde(rename = "mask", skip_serializing_if = "Vec::is_empty")]
    masks: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    as_of: Option<String>,
}

impl Shape {
    fn is_whole(&self) -> bool {
        self.leave_out.is_empty() && self.filters.is_empty() && self.masks.is_empty() && self.as_of.is_none()
    }

    fn spec(self) -> Result<WireShape, String> {
        shape_of_words(self.leave_out, &self.filters, &self.masks, self.as_of.as_deref())
    }

    fn of(shape: WireShape) -> Self {
        let filter = |(table, condition): (String, String)| format!("{table}: {condition}");
        let mask = |(table, column, mask): (String, String, String)| format!("{table}.{column}={mask}");
        Self {
            as_of: cut_text(&shape.as_of),
            leave_out: shape.leave_out,
            filters: shape.filters.into_iter().map(filter).collect(),
            masks: shape.masks.into_iter().map(mask).collect(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Schedule {
    #[serde(skip_serializing_if = "Option::is_none")]
    every: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cron: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    to: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<RoleWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<PriorityWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<Time>,
    #[serde(default, skip_serializing_if = "Shape::is_whole")]
    shape: Shape,
}

impl Schedule {
    pub(super) fn spec(self, name: String) -> Result<ScheduleSpec, String> {
        let when = match (self.every, self.cron) {
            (Some(every), None) => When::Every(every.0),
            (None, Some(pattern)) => When::Calendar(pattern),
            _ => return Err("it has either every or cron".to_owned()),
        };
        let wish = CloneWish {
            to: self.to,
            database: self.database,
            name: None,
            role: self.role.map(CloneRole::from).unwrap_or_default(),
            period_ms: self.period.map_or(PERIOD_MS, |time| time.0),
            priority: self.priority.map_or(Priority::AdHoc, Priority::from),
            bytes_per_s: self.rate.map(|size| size.0),
            ttl_s: self.ttl.map(|time| time.0.div_ceil(1_000)),
            shape: self.shape.spec()?,
        };
        Ok(ScheduleSpec { name, when, wish })
    }

    pub(super) fn of(spec: ScheduleSpec) -> (String, Self) {
        let (every, cron) = match spec.when {
            When::Every(ms) => (Some(Time(ms)), None),
            When::Calendar(pattern) => (None, Some(pattern)),
        };
        let wish = spec.wish;
        let schedule = Self {
            every,
            cron,
            database: wish.database,
            to: wish.to,
            role: RoleWord::of(wish.role),
            priority: PriorityWord::of(wish.priority),
            period: Some(Time(wish.period_ms)),
            rate: wish.bytes_per_s.map(Size),
            ttl: wish.ttl_s.map(|seconds| Time(seconds.saturating_mul(1_000))),
            shape: Shape::of(wish.shape),
        };
        (spec.name, schedule)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum EventWord {
    Lag,
    Failover,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    on: EventWord,
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    over: Option<Time>,
    #[serde(rename = "for", skip_serializing_if = "Option::is_none")]
    lasts: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    of: Option<FollowerWord>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    reseed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<RoleWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<PriorityWord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    period: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<Size>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause: Option<Time>,
    #[serde(default, skip_serializing_if = "Shape::is_whole")]
    shape: Shape,
}

impl Rule {
    pub(super) fn spec(self, name: String) -> Result<RuleSpec, String> {
        let event = match (self.on, self.over) {
            (EventWord::Lag, Some(over)) => RuleEvent::Lag {
                over_ms: over.0,
                for_ms: self.lasts.map_or(0, |time| time.0),
                role: self.of.map(InstanceRole::from),
            },
            (EventWord::Lag, None) => return Err("on lag it says by how much: over".to_owned()),
            (EventWord::Failover, None) if self.lasts.is_none() && self.of.is_none() => RuleEvent::Failover,
            (EventWord::Failover, _) => return Err("over, for and of are those of a lag".to_owned()),
        };
        let action = match (self.reseed, self.role) {
            (true, None) if self.to.is_none() => RuleAction::Reseed,
            (false, Some(role)) => RuleAction::Clone(CloneWish {
                to: self.to.unwrap_or_default(),
                database: self.database.clone(),
                name: None,
                role: role.into(),
                period_ms: self.period.map_or(PERIOD_MS, |time| time.0),
                priority: self.priority.map_or(Priority::AdHoc, Priority::from),
                bytes_per_s: self.rate.map(|size| size.0),
                ttl_s: self.ttl.map(|time| time.0.div_ceil(1_000)),
                shape: self.shape.spec()?,
            }),
            _ => return Err("it has either reseed or the role of a clone".to_owned()),
        };
        let pause_ms = self.pause.map_or(PERIOD_MS, |time| time.0);
        Ok(RuleSpec { name, database: self.database, event, action, pause_ms })
    }

    pub(super) fn of(spec: RuleSpec) -> (String, Self) {
        let (on, over, lasts, of) = match spec.event {
            RuleEvent::Lag { over_ms, for_ms, role } => {
                let of = role.and_then(FollowerWord::of);
                (EventWord::Lag, Some(Time(over_ms)), Some(Time(for_ms)), of)
            }
            RuleEvent::Failover => (EventWord::Failover, None, None, None),
        };
        let wish = match spec.action {
            RuleAction::Clone(wish) => Some(wish),
            RuleAction::Reseed => None,
        };
        let of_wish = wish.as_ref();
        let rule = Self {
            on,
            database: spec.database,
            over,
            lasts,
            of,
            reseed: wish.is_none(),
            role: of_wish.and_then(|wish| RoleWord::of(wish.role)),
            to: of_wish.map(|wish| wish.to.clone()).filter(|to| !to.is_empty()),
            priority: of_wish.and_then(|wish| PriorityWord::of(wish.priority)),
            period: of_wish.map(|wish| Time(wish.period_ms)),
            rate: of_wish.and_then(|wish| wish.bytes_per_s).map(Size),
            ttl: of_wish.and_then(|wish| wish.ttl_s).map(|seconds| Time(seconds.saturating_mul(1_000))),
            pause: Some(Time(spec.pause_ms)),
            shape: wish.map(|wish| Shape::of(wish.shape)).unwrap_or_default(),
        };
        (spec.name, rule)
    }
}
