//! Which copy a clone is taken from.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;

use planaria_types::{InstanceId, Uid};

use super::{Distance, InstanceRole, Labels};

/// A copy that a clone might be taken from, with what the preparatory checks ask for.
#[derive(Clone, PartialEq, Eq, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a check of its own")]
pub struct SourceCopy {
    /// The copy.
    pub instance: InstanceId,
    /// What it is for.
    pub role: InstanceRole,
    /// Where its node is.
    pub labels: Labels,
    /// Its update time: up to here nothing is missing.
    pub update: Uid,
    /// Whether what it holds is part of the history that leads now.
    pub is_on_history: bool,
    /// Whether its node has been heard lately.
    pub is_reachable: bool,
    /// Whether its checksums are clean, as far as is known.
    pub is_sound: bool,
    /// Whether it holds the whole database.
    pub is_whole: bool,
    /// The oldest and the newest version of the protocol that its node understands.
    pub versions: (u16, u16),
    /// Clones that go the same way, and how many may at a time.
    pub clones: u32,
    /// See `clones`.
    pub clones_max: u32,
    /// Bytes a second that are left for clones on the way.
    pub free_bytes_per_s: u64,
    /// What a clone of it takes on the disk of the receiver.
    pub bytes: u64,
    /// The measured round trip to the designated instance, in microseconds.
    pub round_trip_us: Option<u64>,
    /// Whether the store can be spoken to, where a clone is taken from one or brought into one.
    pub store: StoreAccess,
}

/// Whether a clone can be taken from a store of backups, or be brought into it. Whichever node is at the other end speaks to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum StoreAccess {
    /// There is no store at either end.
    #[default]
    NotNeeded,
    /// The node may speak to it, and can.
    Open,
    /// The node was not told that it may.
    NotAllowed,
    /// The node may, and cannot.
    Away,
    /// It has no backup of the database that the node sees.
    Empty,
    /// The clone is not to have everything as it is, and a store makes nothing of what it has.
    AsItIs,
    /// It has backups, and none gives the state that is asked for.
    OutsideKept,
}

impl SourceCopy {
    /// Round trips within a factor of two are alike: below 1 ms, 2 ms, 4 ms and so on; one that was not measured is the
    /// longest.
    fn round_trip_bucket(&self) -> u32 {
        self.round_trip_us.map_or(u32::MAX, |us| u64::BITS - (us / 1_000).leading_zeros())
    }
}

/// The designated instance: where a clone is to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Destination {
    /// The copies that are there already: nothing is cloned from the place that it is cloned to.
    pub holds: BTreeSet<InstanceId>,
    /// Where its node is.
    pub labels: Labels,
    /// The versions of the protocol that its node understands.
    pub versions: (u16, u16),
    /// Room on its disk.
    pub free_bytes: u64,
}

/// What the choice goes by.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceRule {
    /// By how much a copy may be older than the freshest and be taken because it is nearer, in milliseconds.
    pub period_ms: u64,
    /// A clone needs this many bytes a second, at least.
    pub bytes_per_s_min: u64,
    /// Copies that were chosen for this clone before and failed.
    pub failed: BTreeSet<InstanceId>,
    /// The state that the clone is to have, if not the newest: no copy is fresher for what it has beyond that.
    pub as_of: Option<Uid>,
}

impl SourceRule {
    /// Up to where a copy has all that the clone is to have.
    fn update(&self, copy: &SourceCopy) -> Uid {
        self.as_of.map_or(copy.update, |uid| copy.update.min(uid))
    }
}

/// Why a copy cannot be a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Obstacle {
    /// It lies on the designated node itself.
    AtDestination,
    /// It was chosen for this clone before and failed.
    Failed,
    /// It holds something that is not part of the history that leads now.
    OffHistory,
    /// Its node has not been heard lately.
    Unreachable,
    /// Its node and the designated one have no version of the protocol in common.
    Incompatible,
    /// A checksum of it is wrong.
    Damaged,
    /// It holds a portion of the database alone.
    Partial,
    /// As many clones as may be are taken from its node, or go through something between both nodes.
    NoSlot {
        /// How many.
        clones: u32,
    },
    /// Its node, or something between both nodes, has too little bandwidth left.
    NoBandwidth {
        /// Bytes a second that are left.
        free_bytes_per_s: u64,
    },
    /// It does not fit on the designated node's disk.
    NoRoom {
        /// Bytes that it takes.
        bytes: u64,
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// The node that would have to speak to the store was not told that it may.
    StoreNotAllowed,
    /// The node that would have to speak to the store cannot reach it.
    StoreAway,
    /// The store has no backup of the database.
    StoreEmpty,
    /// A store gives what it has as it is.
    StoreAsItIs,
    /// No backup in the store, and no log there, gives the state that is asked for.
    StoreOutsideKept,
}

/// Why a copy was chosen, or not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SourceReason {
    /// It is the nearest of the backups that are fresh enough.
    NearestBackup {
        /// How many were.
        of: usize,
    },
    /// No backup can be a source, and it is the standby, which goes on serving.
    Standby,
    /// Neither a backup nor a standby can be a source, and it is the primary, which goes on serving.
    Primary,
    /// It cannot be a source.
    Unfit(Obstacle),
    /// It is older than the freshest by more than the period.
    TooOld {
        /// By how much, in milliseconds.
        behind_ms: u64,
    },
    /// It is farther from the designated instance than the one that was chosen.
    Farther(Distance),
    /// It is as near, and its round trip is longer.
    SlowerLink,
    /// It is as near and as quick to reach, and less recent.
    LessRecent,
    /// Nothing sets it apart from the one that was chosen, whose id is lower.
    HigherId,
    /// It goes on serving undisturbed: a copy of another role was chosen.
    Spared,
}

impl SourceReason {
    /// A stable name for logs and JSON.
    pub const fn code(self) -> &'static str {
        match self {
            Self::NearestBackup { .. } => "nearest_backup",
            Self::Standby => "standby",
            Self::Primary => "primary",
            Self::Unfit(obstacle) => obstacle.code(),
            Self::TooOld { .. } => "too_old",
            Self::Farther(_) => "farther",
            Self::SlowerLink => "slower_link",
            Self::LessRecent => "less_recent",
            Self::HigherId => "higher_id",
            Self::Spared => "spared",
        }
    }
}

impl Obstacle {
    /// A stable name for logs and JSON.
    pub const fn code(self) -> &'static str {
        match self {
            Self::AtDestination => "at_destination",
            Self::Failed => "failed",
            Self::OffHistory => "off_history",
            Self::Unreachable => "unreachable",
            Self::Incompatible => "incompatible",
            Self::Damaged => "damaged",
            Self::Partial => "partial",
            Self::NoSlot { .. } => "no_slot",
            Self::NoBandwidth { .. } => "no_bandwidth",
            Self::NoRoom { .. } => "no_room",
            Self::StoreNotAllowed => "store_not_allowed",
            Self::StoreAway => "store_away",
            Self::StoreEmpty => "store_empty",
            Self::StoreAsItIs => "store_as_it_is",
            Self::StoreOutsideKept => "store_outside_kept",
        }
    }
}

impl fmt::Display for SourceReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NearestBackup { of: 1 } => f.write_str("it is the only backup that is fresh enough"),
            Self::NearestBackup { of } => {
                write!(f, "it is the nearest of {of} backups that are fresh enough")
            }
            Self::Standby => f.write_str("no backup can be a source; the standby goes on serving"),
            Self::Primary => {
                f.write_str("neither a backup nor a standby can be a source; the primary goes on serving")
            }
            Self::Unfit(obstacle) => obstacle.fmt(f),
            Self::TooOld { behind_ms } => {
                write!(f, "it is {behind_ms} ms older than the freshest, more than the period")
            }
            Self::Farther(distance) => write!(f, "it is farther away ({distance})"),
            Self::SlowerLink => f.write_str("it is as near, and its round trip is longer"),
            Self::LessRecent => f.write_str("it is as near, and less recent"),
            Self::HigherId => f.write_str("it is as good, and its id is higher"),
            Self::Spared => f.write_str("it is not needed, and goes on serving undisturbed"),
        }
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtDestination => f.write_str("it lies on the designated node itself"),
            Self::Failed => f.write_str("it was tried for this clone and failed"),
            Self::OffHistory => f.write_str("it is not on the history that leads now"),
            Self::Unreachable => f.write_str("its node has not been heard lately"),
            Self::Incompatible => f.write_str("its node and the designated one speak no common version"),
            Self::Damaged => f.write_str("a checksum of it is wrong"),
            Self::Partial => f.write_str("it holds a portion of the database alone"),
            Self::NoSlot { clones } => {
                write!(f, "{clones} clones go the same way, as many as may be")
            }
            Self::NoBandwidth { free_bytes_per_s } => {
                write!(f, "other clones leave {free_bytes_per_s} bytes a second on the way, too few")
            }
            Self::NoRoom { bytes, free_bytes } => {
                write!(f, "it takes {bytes} bytes, and the designated node has {free_bytes}")
            }
            Self::StoreNotAllowed => {
                f.write_str("the node that would speak to the store was not started with --backup-to for it")
            }
            Self::StoreAway => f.write_str("the node that would speak to the store cannot reach it"),
            Self::StoreEmpty => f.write_str("it has no backup of the database yet"),
            Self::StoreAsItIs => {
                f.write_str("a store gives its backups as they are: without time to live, filter or mask")
            }
            Self::StoreOutsideKept => {
                f.write_str("none of its backups, and no log there, gives the state that is asked for")
            }
        }
    }
}

/// What was found of one copy.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourceVerdict {
    /// The copy.
    pub instance: InstanceId,
    /// What it is for.
    pub role: InstanceRole,
    /// Its update time.
    pub update: Uid,
    /// How far it is from the designated instance.
    pub distance: Distance,
    /// The measured round trip to it, in microseconds.
    pub round_trip_us: Option<u64>,
    /// Why it was chosen, or not.
    pub reason: SourceReason,
}

/// Where a clone is taken from, with what was found of every copy, in the order in which they were given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceChoice {
    /// The source; none if no copy can be one.
    pub source: Option<InstanceId>,
    /// The latest update time among the copies of the role that it was chosen from.
    pub freshest: Option<Uid>,
    /// What was found of each.
    pub verdicts: Vec<SourceVerdict>,
}

/// Chooses where a clone is taken from.
///
/// Candidates are the backups on the current history that pass the checks, those in stores among them. With f the latest update time among them, of
/// those with update time ≥ f − the period the nearest is taken: label distance, then round trip, then later, then id. If
/// there is none, the same is asked of the standbys, then of the primary. Where a state is asked for, update times beyond it count as
/// that state: whoever has it has all that is asked for.
///
/// Who finds that the chosen copy fails adds it to the rule's `failed`, and asks again.
pub fn choose_source(rule: &SourceRule, to: &Destination, copies: &[SourceCopy]) -> SourceChoice {
    let fit_as =
        |role| copies.iter().filter(move |copy| copy.role == role && obstacle(rule, to, copy).is_none());
    let roles = [InstanceRole::Backup, InstanceRole::Standby, InstanceRole::Primary];
    let role = roles.into_iter().find(|role| fit_as(*role).next().is_some());
    let freshest = role.and_then(|role| fit_as(role).map(|copy| rule.update(copy)).max());
    let since = freshest.map_or(0, |uid| uid.millis().saturating_sub(rule.period_ms));
    let fresh = |copy: &&SourceCopy| rule.update(copy).millis() >= since;
    let chosen = role.and_then(|role| fit_as(role).filter(fresh).min_by_key(|copy| order(rule, to, copy)));
    let of = role.map_or(0, |role| fit_as(role).filter(fresh).count());
    let verdict = |copy: &SourceCopy| {
        let reason = match (obstacle(rule, to, copy), chosen) {
            (Some(obstacle), _) => SourceReason::Unfit(obstacle),
            (None, Some(chosen)) if chosen.instance == copy.instance => match copy.role {
                InstanceRole::Backup => SourceReason::NearestBackup { of },
                InstanceRole::Standby => SourceReason::Standby,
                InstanceRole::Primary => SourceReason::Primary,
            },
            (None, Some(chosen)) if chosen.role == copy.role => {
                let behind_ms =
                    freshest.map_or(0, |uid| uid.millis().saturating_sub(rule.update(copy).millis()));
                if fresh(&copy) { behind(rule, to, copy, chosen) } else { SourceReason::TooOld { behind_ms } }
            }
            // Only a copy of a role that comes later is fit where another one was chosen.
            (None, _) => SourceReason::Spared,
        };
        SourceVerdict {
            instance: copy.instance,
            role: copy.role,
            update: copy.update,
            distance: to.labels.distance(&copy.labels),
            round_trip_us: copy.round_trip_us,
            reason,
        }
    };
    let source = chosen.map(|copy| copy.instance);
    SourceChoice { source, freshest, verdicts: copies.iter().map(verdict).collect() }
}

/// Nearest first, then the quickest to reach, then the latest, then by id.
fn order(
    rule: &SourceRule,
    to: &Destination,
    copy: &SourceCopy,
) -> (Distance, u32, Reverse<Uid>, InstanceId) {
    let distance = to.labels.distance(&copy.labels);
    (distance, copy.round_trip_bucket(), Reverse(rule.update(copy)), copy.instance)
}

/// The first thing in which a copy comes behind the one that was chosen.
fn behind(rule: &SourceRule, to: &Destination, copy: &SourceCopy, chosen: &SourceCopy) -> SourceReason {
    let distance = to.labels.distance(&copy.labels);
    if distance > to.labels.distance(&chosen.labels) {
        SourceReason::Farther(distance)
    } else if copy.round_trip_bucket() > chosen.round_trip_bucket() {
        SourceReason::SlowerLink
    } else if rule.update(copy) < rule.update(chosen) {
        SourceReason::LessRecent
    } else {
        SourceReason::HigherId
    }
}

/// The first preparatory check that a copy fails.
fn obstacle(rule: &SourceRule, to: &Destination, copy: &SourceCopy) -> Option<Obstacle> {
    let has_common_version = copy.versions.0.max(to.versions.0) <= copy.versions.1.min(to.versions.1);
    let free_bytes_per_s = copy.free_bytes_per_s;
    let checks = [
        (to.holds.contains(&copy.instance), Obstacle::AtDestination),
        (rule.failed.contains(&copy.instance), Obstacle::Failed),
        (!copy.is_on_history, Obstacle::OffHistory),
        (!copy.is_reachable, Obstacle::Unreachable),
        (!has_common_version, Obstacle::Incompatible),
        (!copy.is_sound, Obstacle::Damaged),
        (!copy.is_whole, Obstacle::Partial),
        (copy.store == StoreAccess::NotAllowed, Obstacle::StoreNotAllowed),
        (copy.store == StoreAccess::Away, Obstacle::StoreAway),
        (copy.store == StoreAccess::Empty, Obstacle::StoreEmpty),
        (copy.store == StoreAccess::AsItIs, Obstacle::StoreAsItIs),
        (copy.store == StoreAccess::OutsideKept, Obstacle::StoreOutsideKept),
        (copy.clones >= copy.clones_max, Obstacle::NoSlot { clones: copy.clones }),
        (free_bytes_per_s < rule.bytes_per_s_min, Obstacle::NoBandwidth { free_bytes_per_s }),
        (copy.bytes > to.free_bytes, Obstacle::NoRoom { bytes: copy.bytes, free_bytes: to.free_bytes }),
    ];
    checks.into_iter().find_map(|(fails, obstacle)| fails.then_some(obstacle))
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
