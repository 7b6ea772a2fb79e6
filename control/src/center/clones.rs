//! Clones that the control center has made: asked for, given up, and what nodes say of them.

use planaria_net::wire::control::{Order, Outcome};
use planaria_net::wire::jobs::{CloneOrder, CloneReport, CloneWish, is_clone_name};
use planaria_net::wire::message::CloneRole;
use planaria_net::wire::stores::{BackupOrder, RestoreOrder};
use planaria_replication::control::InstanceRole;
use planaria_types::DatabaseId;

use super::{Center, Now};
use crate::catalog::{Change, CloneRecord, CloneState, EventKind, StoreRecord, role_name};
use crate::{Error, Result};

/// Clones that wait or run, at most.
const OPEN_MAX: usize = 1_024;
/// What is kept of what a node says, in bytes.
const WORDS_BYTES_MAX: usize = 4_096;
/// Tables, filters and masks that one clone names.
const SHAPE_PARTS_MAX: usize = 256;
/// The least rate that may be asked for, in bytes a second: with less no chunk comes in time.
const RATE_MIN: u64 = 64 << 10;

/// Errors of a node that another source would not help with: what the node says of itself.
const OWN_ERRORS: [&str; 9] = [
    "exists",
    "not_empty",
    "no_space",
    "disk_full",
    "in_use",
    "too_many",
    "invalid",
    "unsupported",
    "not_spare",
];

impl Center {
    /// Puts a clone into the queue. Its number.
    ///
    /// # Errors
    ///
    /// `unknown_node`, `unknown_database`, `ambiguous`; `invalid` for a name or a rate that cannot be; `not_spare` if a
    /// standby or backup is to be made on a node that hosts a database; `exists` if its node gets one of that name
    /// already; `too_many`.
    pub fn submit_clone(&mut self, now: Now, wish: &CloneWish, origin: &str) -> Result<u64> {
        self.submit_clone_with(now, wish, origin, Vec::new())
    }

    /// The same, with changes that are made if the clone is asked for, and not if it is refused.
    pub(super) fn submit_clone_with(
        &mut self,
        now: Now,
        wish: &CloneWish,
        origin: &str,
        mut changes: Vec<Change>,
    ) -> Result<u64> {
        let database = self.database_named(wish.database.as_deref())?;
        let (id, database) = (database.database, database.name.clone());
        let wish = &self.settled(wish)?;
        self.check_wish(now, wish)?;
        let number = self.contents.last_job + 1;
        let name = wish.name.clone().unwrap_or_else(|| default_name(&database, number));
        if !is_clone_name(&name) {
            return Err(Error::refused(
                "invalid",
                format!("{name:?} is no name of a clone"),
                "give one of letters, digits, '-', '_' and '.' with --name; it is no path",
            ));
        }
        let mut open = self.contents.clones.values();
        if open.len() >= OPEN_MAX {
            let what = format!("{OPEN_MAX} clones wait or run");
            return Err(Error::refused("too_many", what, "cancel some, or wait until they have ended"));
        }
        let is_same =
            |clone: &CloneRecord| clone.node == wish.to && (clone.name == name || is_alone(clone, id));
        if let Some(same) = open.find(|clone| is_same(clone)) {
            let what = format!("clone {} of {:?} to {} is under way", same.number, same.name, same.node);
            return Err(Error::refused("exists", what, "wait for it, cancel it, or give another name"));
        }
        let what =
            format!("a clone of {database} to {} is asked for: {name}, {}", wish.to, role_name(wish.role));
        let record = CloneRecord {
            number,
            name,
            database: id,
            node: wish.to.clone(),
            role: wish.role,
            priority: wish.priority,
            period_ms: wish.period_ms,
            bytes_per_s_wanted: wish.bytes_per_s,
            ttl_s: wish.ttl_s,
            shape: wish.shape.clone(),
            origin: origin.to_owned(),
            state: CloneState::Queued,
            code: String::new(),
            reason: "its turn has not come".to_owned(),
            reasons: Vec::new(),
            source: None,
            source_node: String::new(),
            gates: Vec::new(),
            bytes_per_s: 0,
            bytes: 0,
            failed: std::collections::BTreeSet::new(),
            submitted_ms: now.wall_ms,
            ended_ms: None,
        };
        let reasons = vec![format!("asked for by {origin}, as {}", wish.priority)];
        let event = self.event(now, EventKind::CloneQueued, Some(id), &wish.to, what, reasons);
        changes.extend([Change::Clone(Box::new(record)), event]);
        self.note(changes)?;
        self.run_queue(now)?;
        Ok(number)
    }

    /// The same wish with the store that it means, if it means one.
    pub(super) fn settled(&self, wish: &CloneWish) -> Result<CloneWish> {
        let mut wish = wish.clone();
        if wish.role == CloneRole::Store {
            let database = self.database_named(wish.database.as_deref())?;
            wish.to = self.store_meant(database.database, &database.name, &wish.to)?;
        }
        Ok(wish)
    }

    /// Whether such a clone can be asked for now.
    pub(super) fn check_wish(&self, now: Now, wish: &CloneWish) -> Result<()> {
        self.check_target(now, wish)?;
        if wish.ttl_s.is_some_and(|seconds| seconds == 0 || wish.role != CloneRole::Detached) {
            let what = "a time to live is that of a detached clone, and at least a second";
            return Err(Error::refused("invalid", what, "leave --ttl out, or give a longer one"));
        }
        if wish.bytes_per_s.is_some_and(|rate| rate < RATE_MIN) {
            let what = format!("a rate is at least {RATE_MIN} bytes a second");
            return Err(Error::refused("invalid", what, "give a greater one"));
        }
        check_shape(wish)
    }

    /// Whether a node can get such a clone.
    fn check_target(&self, now: Now, wish: &CloneWish) -> Result<()> {
        if wish.role == CloneRole::Store {
            return self.settled(wish).map(drop);
        }
        if !self.contents.nodes.contains_key(&wish.to) {
            return Err(super::source::unknown_node(&wish.to));
        }
        let spare = self.live.get(&wish.to).and_then(|node| node.spare);
        // What a node that is away would say is found out when it is back.
        if !is_seed(wish.role) || !self.is_heard(now, &wish.to) || spare == Some(instance_role(wish.role)) {
            return Ok(());
        }
        let what = match spare {
            None => format!("{} hosts a database, and no second one", wish.to),
            Some(role) => format!("{} waits to become a {role}", wish.to),
        };
        Err(Error::refused(
            "not_spare",
            what,
            "name a node that was started with `serve --spare` and that --role; `planaria cluster nodes` shows them",
        ))
    }

    /// An open clone.
    fn open_clone(&self, number: u64) -> Result<&CloneRecord> {
        self.contents.clones.get(&number).ok_or_else(|| {
            Error::refused(
                "not_open",
                format!("no clone {number} waits or runs"),
                "`planaria cluster clone list` shows them",
            )
        })
    }

    /// Gives a clone up.
    ///
    /// # Errors
    ///
    /// `not_open` if it has ended, or never was.
    pub fn cancel_clone(&mut self, now: Now, number: u64) -> Result<()> {
        let clone = self.open_clone(number)?.clone();
        let why = "an operator gave it up".to_owned();
        self.end_clone(now, clone, CloneState::Cancelled, "cancelled", why)?;
        self.run_queue(now)
    }

    /// Changes what a clone may take at most.
    ///
    /// # Errors
    ///
    /// `not_open`, `invalid`.
    pub fn set_clone_rate(&mut self, now: Now, number: u64, rate: Option<u64>) -> Result<()> {
        let clone = self.open_clone(number)?.clone();
        if rate.is_some_and(|rate| rate < RATE_MIN) {
            let what = format!("a rate is at least {RATE_MIN} bytes a second");
            return Err(Error::refused("invalid", what, "give a greater one"));
        }
        self.note(vec![Change::Clone(Box::new(CloneRecord { bytes_per_s_wanted: rate, ..clone }))])?;
        self.run_queue(now)
    }

    /// Ends a clone, and writes down why.
    pub(super) fn end_clone(
        &mut self,
        now: Now,
        clone: CloneRecord,
        state: CloneState,
        code: &str,
        why: String,
    ) -> Result<()> {
        let kind = match state {
            CloneState::Complete => EventKind::CloneComplete,
            CloneState::Cancelled => EventKind::CloneCancelled,
            _ => EventKind::CloneFailed,
        };
        let what = format!("clone {} of {} to {}: {why}", clone.number, clone.name, clone.node);
        let event = self.event(now, kind, Some(clone.database), &clone.node, what, clone.reasons.clone());
        self.clones_live.remove(&clone.number);
        if state == CloneState::Complete && is_seed(clone.role) {
            self.seeding.is_seeded(now.at, &clone);
        }
        self.note(vec![
            Change::Clone(Box::new(CloneRecord {
                state,
                code: code.to_owned(),
                reason: why,
                ended_ms: Some(now.wall_ms),
                gates: Vec::new(),
                bytes_per_s: 0,
                ..clone
            })),
            event,
        ])
    }

    /// Puts a clone that ran back into the queue.
    pub(super) fn queue_again(
        &mut self,
        now: Now,
        clone: CloneRecord,
        code: &str,
        why: String,
    ) -> Result<()> {
        let what = format!("clone {} of {} to {} waits again: {why}", clone.number, clone.name, clone.node);
        let event =
            self.event(now, EventKind::CloneAgain, Some(clone.database), &clone.node, what, Vec::new());
        let record = CloneRecord {
            state: CloneState::Queued,
            code: code.to_owned(),
            reason: why,
            gates: Vec::new(),
            bytes_per_s: 0,
            ..clone
        };
        self.note(vec![Change::Clone(Box::new(record)), event])
    }

    /// Takes in how the clones are that a node makes. Those that it should not make any more are named in its orders.
    pub(super) fn take_clones(&mut self, now: Now, name: &str, clones: &[CloneReport]) -> Result<()> {
        self.note_settled(now, name)?;
        for report in clones {
            let known = self.contents.clones.get(&report.job).filter(|clone| clone.maker() == name).cloned();
            let Some(clone) = known else { continue };
            let live = self.clones_live.entry(report.job).or_default();
            (live.done_bytes, live.total_bytes) = (report.done_bytes, report.total_bytes);
            // Its node was taken for lost, and has gone on: what it takes is taken again.
            if clone.state == CloneState::Queued && clone.source.is_some() && !has_failed(&clone) {
                let gates = self.gates_of(&clone);
                let reason = format!("{name} went on with it");
                let record =
                    CloneRecord { state: CloneState::Running, code: String::new(), reason, gates, ..clone };
                self.note(vec![Change::Clone(Box::new(record))])?;
            }
        }
        let is_running = |report: &&CloneReport| {
            self.contents.clones.get(&report.job).is_some_and(|clone| clone.maker() == name)
        };
        let mut strays = Vec::new();
        for report in clones.iter().filter(|report| !is_running(report)) {
            // One that is complete is kept: its node was not told that this is known.
            let ended = self.catalog.clone_of(report.job)?;
            if !ended.is_some_and(|clone| clone.state == CloneState::Complete && clone.maker() == name) {
                strays.push(report.job);
            }
        }
        if let Some(node) = self.live.get_mut(name) {
            node.stray_clones = strays;
        }
        Ok(())
    }

    /// Ends what was to give a node the copy with which it is heard now: it was started anew before it could say so.
    fn note_settled(&mut self, now: Now, name: &str) -> Result<()> {
        let Some(node) = self.live.get(name) else { return Ok(()) };
        let is_settled = |clone: &&CloneRecord| {
            let mut copies = node.copies.values();
            clone.node == name
                && is_seed(clone.role)
                && copies.any(|copy| copy.report.database == clone.database)
        };
        let settled: Vec<CloneRecord> = self.contents.clones.values().filter(is_settled).cloned().collect();
        for clone in settled {
            self.end_clone(now, clone, CloneState::Complete, "", format!("{name} has its copy"))?;
        }
        Ok(())
    }

    /// Puts clones back whose nodes are lost: their slots are others' meanwhile.
    pub(super) fn note_lost_receivers(&mut self, now: Now) -> Result<()> {
        // Nobody is taken for lost before there was time to be heard.
        if now.at.since(self.started).0 < self.settings.lost_after_ms {
            return Ok(());
        }
        let is_lost =
            |clone: &&CloneRecord| clone.state == CloneState::Running && !self.is_heard(now, clone.maker());
        let lost: Vec<CloneRecord> = self.contents.clones.values().filter(is_lost).cloned().collect();
        for clone in lost {
            let why = format!("{} has not been heard lately", clone.maker());
            let code = if clone.role == CloneRole::Store { "source_away" } else { "destination_away" };
            self.queue_again(now, clone, code, why)?;
        }
        Ok(())
    }

    /// Takes in how a clone has ended, from the node that was to make it. Whether the outcome was one of a clone.
    pub(super) fn take_clone_outcome(&mut self, now: Now, name: &str, outcome: &Outcome) -> Result<bool> {
        let known = self.contents.clones.get(&outcome.job).filter(|clone| clone.maker() == name);
        let Some(mut clone) = known.cloned() else { return Ok(false) };
        let mut what = outcome.what.clone();
        what.truncate(what.floor_char_boundary(WORDS_BYTES_MAX));
        if outcome.code.is_empty() {
            if let Some(total) = self.clones_live.get(&clone.number).and_then(|live| live.total_bytes) {
                clone.bytes = total;
            }
            self.end_clone(now, clone, CloneState::Complete, "", what)?;
        } else if clone.role != CloneRole::Store && OWN_ERRORS.contains(&&*outcome.code) {
            self.end_clone(now, clone, CloneState::Failed, &outcome.code, format!("{name}: {what}"))?;
        } else if outcome.code == "invalid_shape" && self.is_at_primary(&clone) {
            self.end_clone(now, clone, CloneState::Failed, &outcome.code, what)?;
        } else if clone.state == CloneState::Running && outcome.code == "invalid_shape" {
            // A copy that is behind may not know of a table yet. The primary does: nobody else is asked.
            let lead = self.contents.leads.get(&clone.database).map(|lead| lead.instance);
            let copies = self.copies_of(clone.database).map(|(_, copy)| copy.report.instance);
            clone.failed.extend(copies.chain(clone.source).filter(|copy| Some(*copy) != lead));
            let why = format!("{} refused what is asked of the rows: {what}", clone.source_node);
            self.queue_again(now, clone, &outcome.code, why)?;
        } else if clone.state == CloneState::Running && outcome.code == "busy" {
            // Another one is worked on in the same place, and may be about to be given up.
            self.queue_again(now, clone, "busy", format!("{name}: {what}"))?;
        } else if clone.state == CloneState::Running {
            // The rule starts over without that source.
            clone.failed.extend(clone.source);
            let why = format!("its source {} failed: {what}", clone.source_node);
            self.queue_again(now, clone, &outcome.code, why)?;
        }
        self.run_queue(now)?;
        Ok(true)
    }

    /// Whether a clone is taken from whoever leads, who has everything.
    fn is_at_primary(&self, clone: &CloneRecord) -> bool {
        let lead = self.contents.leads.get(&clone.database);
        lead.is_some_and(|lead| clone.source == Some(lead.instance))
    }

    /// The orders of clones for a node.
    pub(super) fn clone_orders(&self, name: &str) -> Vec<Order> {
        let own = self.contents.clones.values();
        let own = own.filter(|clone| clone.state == CloneState::Running && clone.maker() == name);
        let orders = own.filter_map(|clone| self.clone_order(clone));
        let strays = self.live.get(name).map(|node| node.stray_clones.clone()).unwrap_or_default();
        // What is given up goes first: another one may be to take its place.
        strays.into_iter().map(|job| Order::CancelClone { job }).chain(orders).collect()
    }

    /// What a node is told: to make a clone of a copy or of a backup, or a backup of its own copy.
    fn clone_order(&self, clone: &CloneRecord) -> Option<Order> {
        let live = self.clones_live.get(&clone.number).and_then(|live| live.bytes_per_s);
        let bytes_per_s = live.unwrap_or(clone.bytes_per_s);
        if clone.role == CloneRole::Store {
            let store = self.contents.stores.get(&(clone.database, clone.node.clone()))?;
            return Some(Order::Backup(BackupOrder {
                job: clone.number,
                instance: clone.source?,
                place: clone.node.clone(),
                bytes_per_s,
                keep: store.keep,
            }));
        }
        if StoreRecord::is_instance(clone.source?) {
            let begun_with = self.clones_live.get(&clone.number).and_then(|live| live.backup.clone());
            let now_best = || self.backup_for(clone, clone.source?).map(|(name, _)| name);
            return Some(Order::Restore(RestoreOrder {
                job: clone.number,
                database: clone.database,
                backup: begun_with.or_else(now_best).unwrap_or_default(),
                as_of: clone.shape.as_of,
                name: clone.name.clone(),
                role: clone.role,
                place: clone.source_node.clone(),
                bytes_per_s,
            }));
        }
        Some(Order::Clone(CloneOrder {
            job: clone.number,
            database: clone.database,
            name: clone.name.clone(),
            role: clone.role,
            source: clone.source?,
            from: self.contents.nodes.get(&clone.source_node)?.address,
            bytes_per_s,
            ttl_s: clone.ttl_s,
            shape: clone.shape.clone(),
        }))
    }
}

/// Whether the source that a clone had last gave not all.
fn has_failed(clone: &CloneRecord) -> bool {
    clone.source.is_some_and(|source| clone.failed.contains(&source))
}

/// Whether a clone becomes the copy of a node that hosts none.
pub(super) fn is_seed(role: CloneRole) -> bool {
    matches!(role, CloneRole::Standby | CloneRole::Backup)
}

/// Whether no other clone goes to the same place beside this one: the copy of a node, or the backup of a database.
fn is_alone(clone: &CloneRecord, database: DatabaseId) -> bool {
    is_seed(clone.role) || clone.role == CloneRole::Store && clone.database == database
}

/// What a copy of such a clone is for.
pub(super) fn instance_role(role: CloneRole) -> InstanceRole {
    match role {
        CloneRole::Backup => InstanceRole::Backup,
        CloneRole::Detached | CloneRole::Standby | CloneRole::Store => InstanceRole::Standby,
    }
}

/// Whether what is asked of the rows can be kept, and be done with such a clone. Whether tables and columns are there its source
/// says.
pub(super) fn check_shape(wish: &CloneWish) -> Result<()> {
    let shape = &wish.shape;
    let invalid =
        |what: String| Error::refused("invalid", what, "see `planaria cluster clone create --help`");
    if !shape.is_whole() && wish.role != CloneRole::Detached {
        return Err(invalid(
            "a copy that follows and a backup have everything; only a detached clone has less".to_owned(),
        ));
    }
    if shape.leave_out.len() + shape.filters.len() + shape.masks.len() > SHAPE_PARTS_MAX {
        return Err(invalid(format!("at most {SHAPE_PARTS_MAX} things may be said of the rows")));
    }
    let filters = shape.filters.iter().flat_map(|(table, condition)| [table, condition]);
    let masks = shape.masks.iter().flat_map(|(table, column, mask)| [table, column, mask]);
    let mut words = shape.leave_out.iter().chain(filters).chain(masks);
    let is_wrong = |word: &&String| word.len() > WORDS_BYTES_MAX || word.contains(char::is_control);
    match words.find(is_wrong) {
        Some(word) => {
            let word = word.get(..word.floor_char_boundary(40)).unwrap_or_default();
            Err(invalid(format!(
                "{word:?} is longer than {WORDS_BYTES_MAX} bytes, or has a control character in it"
            )))
        }
        None => Ok(()),
    }
}

/// A name for a clone that was given none. Databases may be called what no directory is.
fn default_name(database: &str, number: u64) -> String {
    let name = format!("{database}-clone-{number}");
    if is_clone_name(&name) { name } else { format!("clone-{number}") }
}
