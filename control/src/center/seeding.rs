//! Copies that are wanted: where one is missing, a node that waits for one gets it.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use planaria_net::wire::jobs::{CloneWish, WantInfo};
use planaria_net::wire::message::CloneRole;
use planaria_replication::Millis;
use planaria_replication::control::{CopyState, Labels, Priority};
use planaria_types::DatabaseId;

use super::clones::instance_role;
use super::{Center, Now};
use crate::catalog::{Change, CloneRecord, EventKind, InstanceRecord, WantRecord};
use crate::{Error, Result};

/// Copies of one kind that may be wanted of a database.
const WANTED_MAX: u32 = 1_000;
/// A node that was given a copy has so long to say that it follows.
const SETTLES_WITHIN: Millis = Millis(60_000);
/// After a copy was asked for in vain it is not asked for again before.
const PAUSE: Millis = Millis(10_000);
/// By how much the source of a copy may be older than the freshest: it follows the primary from then on.
const PERIOD_MS: u64 = 600_000;
const ROLES: [CloneRole; 2] = [CloneRole::Standby, CloneRole::Backup];

/// What is remembered of copies that are made because they are wanted.
#[derive(Default)]
pub(super) struct Seeding {
    /// Nodes that have their copy and were not heard to follow with it, and since when.
    seeded: BTreeMap<String, (DatabaseId, CloneRole, Millis)>,
    /// When a copy was last asked for.
    asked: BTreeMap<(DatabaseId, &'static str), Millis>,
    /// Why copies are missing, as it was last written down.
    notes: BTreeMap<(DatabaseId, &'static str), String>,
}

impl Seeding {
    pub(super) fn is_seeded(&mut self, now: Millis, clone: &CloneRecord) {
        self.seeded.insert(clone.node.clone(), (clone.database, clone.role, now));
    }

    /// A node has left.
    pub(super) fn forget(&mut self, node: &str) {
        self.seeded.remove(node);
    }
}

impl Center {
    /// Sets how many copies of a database are wanted beside its primary; of a kind of which nothing is said, as many as before. What is
    /// there and not wanted stays.
    ///
    /// # Errors
    ///
    /// `unknown_database`, `ambiguous`, `invalid`.
    pub fn set_want(
        &mut self,
        now: Now,
        database: &str,
        standbys: Option<u32>,
        backups: Option<u32>,
    ) -> Result<()> {
        let database = self.database_named(Some(database))?.clone();
        let before = self.wanted(&database);
        let (standbys, backups) = (standbys.unwrap_or(before.0), backups.unwrap_or(before.1));
        check_wanted(standbys, backups)?;
        let what = format!("{standbys} standbys and {backups} backups of {} are wanted", database.name);
        let event = self.event(now, EventKind::WantSet, Some(database.database), "", what, Vec::new());
        let want = WantRecord { database: database.database, standbys, backups };
        self.note(vec![Change::Want(want), event])?;
        self.watch_wants(now)
    }

    /// How many copies are wanted and there.
    pub fn wants(&self, now: Now) -> Vec<WantInfo> {
        let info = |want: &WantRecord| {
            let name = self.contents.databases.get(&want.database).map(|known| known.name.clone());
            let notes = ROLES.iter().filter_map(|role| self.seeding.notes.get(&(want.database, key(*role))));
            WantInfo {
                database: name.unwrap_or_else(|| want.database.to_string()),
                standbys: want.standbys,
                backups: want.backups,
                standbys_there: self.copies_there(now, want.database, CloneRole::Standby),
                backups_there: self.copies_there(now, want.database, CloneRole::Backup),
                note: notes.cloned().collect::<Vec<_>>().join("; "),
            }
        };
        self.contents.wants.values().map(info).collect()
    }

    /// Has copies made that are wanted and missing.
    pub(super) fn watch_wants(&mut self, now: Now) -> Result<()> {
        self.seeding.seeded.retain(|_, (_, _, since)| now.at.since(*since) < SETTLES_WITHIN);
        let wants: Vec<WantRecord> = self.contents.wants.values().copied().collect();
        for want in wants {
            // Nodes have had time to be heard.
            let is_early = now.at.since(self.started).0 < self.settings.lost_after_ms;
            if is_early || !self.is_led(now, want.database) {
                continue;
            }
            for (role, wanted) in [(CloneRole::Standby, want.standbys), (CloneRole::Backup, want.backups)] {
                if self.copies_there(now, want.database, role) < wanted {
                    self.seed(now, want.database, role)?;
                } else {
                    self.seeding.notes.remove(&(want.database, key(role)));
                }
            }
        }
        Ok(())
    }

    /// Copies of a kind beside the primary that are there, on their way, or have not been away for too long.
    fn copies_there(&self, now: Now, database: DatabaseId, role: CloneRole) -> u32 {
        let known = self.contents.instances.values();
        let known = known.filter(|copy| self.is_meant(copy, database, role));
        let there = known.filter(|copy| self.is_there(now, copy)).count();
        let open = self.contents.clones.values();
        let open = open.filter(|clone| clone.database == database && clone.role == role).count();
        let settles = |(node, (of, as_role, _)): (&String, &(DatabaseId, CloneRole, Millis))| {
            let reports = || {
                let live = self.live.get(node);
                live.is_some_and(|live| live.copies.values().any(|copy| copy.report.database == database))
            };
            *of == database && *as_role == role && !reports()
        };
        let settling = self.seeding.seeded.iter().filter(|one| settles(*one)).count();
        u32::try_from(there + open + settling).unwrap_or(u32::MAX)
    }

    /// Whether a copy is one of that kind, and does not lead.
    fn is_meant(&self, copy: &InstanceRecord, database: DatabaseId, role: CloneRole) -> bool {
        let leads = self.contents.leads.get(&database).is_some_and(|lead| lead.instance == copy.instance);
        let is_whole = copy.state != CopyState::Partial;
        copy.database == database && copy.role == instance_role(role) && !leads && is_whole
    }

    fn is_there(&self, now: Now, copy: &InstanceRecord) -> bool {
        let heard = match self.live.get(&copy.node) {
            Some(node) if node.written.is_some() && !node.copies.contains_key(&copy.instance) => {
                return false;
            }
            Some(node) => node.heard,
            None => self.started,
        };
        now.at.since(heard).0 < self.settings.seed_after_ms
    }

    /// Asks for a copy, on the node that is the best of those that wait for one.
    fn seed(&mut self, now: Now, database: DatabaseId, role: CloneRole) -> Result<()> {
        let asked = self.seeding.asked.get(&(database, key(role)));
        if asked.is_some_and(|asked| now.at.since(*asked) < PAUSE) {
            return Ok(());
        }
        let name = self.contents.databases.get(&database).map(|known| known.name.clone()).unwrap_or_default();
        let lost = self.lost_copy(now, database, role);
        let because = lost.as_ref().map_or_else(
            || format!("a {} of {name} is wanted", key(role)),
            |lost| format!("a {} of {name} is wanted, as {} is lost", key(role), lost.node),
        );
        let Some(spare) = self.best_spare(now, database, role, lost.as_ref()) else {
            return self.note_wanted(now, database, role, format!("{because}; no node waits to become one"));
        };
        self.seeding.asked.insert((database, key(role)), now.at);
        let priority = match (role, &lost) {
            (CloneRole::Standby, Some(_)) => Priority::Recovery,
            (CloneRole::Standby, None) => Priority::StandbySeeding,
            _ => Priority::BackupRefresh,
        };
        let wish = CloneWish {
            to: spare,
            database: Some(database.to_string()),
            name: None,
            role,
            period_ms: PERIOD_MS,
            priority,
            bytes_per_s: None,
            ttl_s: None,
            shape: planaria_net::wire::message::Shape::default(),
        };
        match self.submit_clone(now, &wish, &format!("the control center: {because}")) {
            // It is asked for again, and whatever else there is to do is not kept waiting.
            Err(Error::Refused { code, what, .. }) => {
                let why = format!("{because}; it cannot be asked for ({code}): {what}");
                self.note_wanted(now, database, role, why)
            }
            submitted => {
                self.seeding.notes.remove(&(database, key(role)));
                submitted.map(drop)
            }
        }
    }

    /// The copy of a kind that was lost last.
    fn lost_copy(&self, now: Now, database: DatabaseId, role: CloneRole) -> Option<InstanceRecord> {
        let known = self.contents.instances.values();
        let lost = known.filter(|copy| self.is_meant(copy, database, role) && !self.is_there(now, copy));
        lost.max_by_key(|copy| copy.heard_ms).cloned()
    }

    /// Of the nodes that wait to become such a copy the nearest to the one that was lost, or to the primary; then the one
    /// with the most room.
    pub(super) fn best_spare(
        &self,
        now: Now,
        database: DatabaseId,
        role: CloneRole,
        lost: Option<&InstanceRecord>,
    ) -> Option<String> {
        let near: Labels = match (lost, self.contents.leads.get(&database)) {
            (Some(lost), _) => self.labels(&lost.node),
            (None, Some(lead)) => self.labels(&lead.node),
            (None, None) => Labels::default(),
        };
        let is_taken = |name: &str| {
            let mut open = self.contents.clones.values();
            self.seeding.seeded.contains_key(name) || open.any(|clone| clone.node == name)
        };
        let spares = self.live.iter().filter(|(name, node)| {
            node.spare == Some(instance_role(role)) && self.is_heard(now, name) && !is_taken(name)
        });
        let best = spares.min_by_key(|(name, node)| {
            (near.distance(&self.labels(name)), Reverse(node.free_bytes), (*name).clone())
        });
        best.map(|(name, _)| name.clone())
    }

    /// Writes down once that a copy is missing and cannot be made.
    fn note_wanted(&mut self, now: Now, database: DatabaseId, role: CloneRole, what: String) -> Result<()> {
        if self.seeding.notes.get(&(database, key(role))) == Some(&what) {
            return Ok(());
        }
        let event = self.event(now, EventKind::CopyWanted, Some(database), "", what.clone(), Vec::new());
        self.note(vec![event])?;
        self.seeding.notes.insert((database, key(role)), what);
        Ok(())
    }
}

/// Whether so many copies may be wanted.
pub(super) fn check_wanted(standbys: u32, backups: u32) -> Result<()> {
    if standbys.max(backups) <= WANTED_MAX {
        return Ok(());
    }
    let what = format!("at most {WANTED_MAX} copies of a kind may be wanted");
    Err(Error::refused("invalid", what, "give a smaller number"))
}

fn key(role: CloneRole) -> &'static str {
    crate::catalog::role_name(role)
}
