//! What the control center learns from reports.

use std::collections::BTreeMap;

use planaria_net::wire::control::{CopyReport, HISTORY_ENTRIES_MAX, Join, NAME_BYTES_MAX, NodeReport};
use planaria_replication::Millis;
use planaria_replication::control::{CopyState, InstanceRole, Labels};
use planaria_types::{EpochOrder, History};

use super::live::LiveCopy;
use super::succession::JOB_PATIENCE;
use super::{Center, INSTANCES_MAX, Now};
use crate::catalog::{
    Change, DatabaseRecord, EventKind, InstanceRecord, JobKind, JobRecord, JobState, LeadRecord, NodeRecord,
};
use crate::{Error, Result};

/// Positions and disks are written down this often, where nothing else about a node has changed.
const WRITTEN_EVERY: Millis = Millis(60_000);
/// Bytes that are kept of what is wrong with a copy.
const DAMAGE_BYTES_MAX: usize = 16 * NAME_BYTES_MAX;

impl Center {
    /// Takes in a report of the node of that name.
    pub(super) fn take_report(&mut self, now: Now, name: &str, report: &NodeReport) -> Result<()> {
        self.note_returned(now, name)?;
        let room = self.room_beside(name);
        let copies = || report.copies.iter().filter(|copy| is_sane(copy)).take(room);
        if let Some(node) = self.live.get_mut(name) {
            node.heard = now.at;
            (node.capacity_bytes, node.free_bytes) = (report.capacity_bytes, report.free_bytes);
            node.spare = report.spare.filter(|role| *role != InstanceRole::Primary);
            let mut before = std::mem::take(&mut node.copies);
            for copy in copies() {
                let news = news_of(copy, before.remove(&copy.instance).as_ref(), now.at);
                node.copies.insert(copy.instance, LiveCopy { report: clipped(copy), news });
            }
        }
        for copy in copies() {
            self.learn_database(copy)?;
            self.learn_lead(now, name, copy)?;
            self.learn_level(copy)?;
        }
        if self.write_down(now, name)? {
            self.forget_replaced(now, name, report)?;
        }
        self.take_links(now, name, &report.links)?;
        self.take_stores(now, name, &report.stores)?;
        self.take_clones(now, name, &report.clones)?;
        for outcome in &report.outcomes {
            if !self.take_clone_outcome(now, name, outcome)? {
                self.take_outcome(now, name, outcome)?;
            }
        }
        Ok(())
    }

    /// How many copies a node may have, as the others have theirs.
    fn room_beside(&self, name: &str) -> usize {
        let others = self.live.iter().filter(|(other, _)| *other != name);
        INSTANCES_MAX.saturating_sub(others.map(|(_, node)| node.copies.len()).sum())
    }

    pub(super) fn note_returned(&mut self, now: Now, name: &str) -> Result<()> {
        if self.live.get(name).is_some_and(|node| node.is_lost) {
            let what = format!("{name} is heard again");
            let event = self.event(now, EventKind::NodeReturned, None, name, what, Vec::new());
            self.note(vec![event])?;
            if let Some(node) = self.live.get_mut(name) {
                node.is_lost = false;
            }
        }
        Ok(())
    }

    /// Writes down which nodes have not been heard for too long.
    pub(super) fn note_lost_nodes(&mut self, now: Now) -> Result<()> {
        let lost_after = Millis(self.settings.lost_after_ms);
        let is_lost = |node: &super::LiveNode| !node.is_lost && now.at.since(node.heard) >= lost_after;
        let lost: Vec<String> =
            self.live.iter().filter(|(_, node)| is_lost(node)).map(|(name, _)| name.clone()).collect();
        for name in lost {
            let what = format!("{name} has not been heard for {lost_after}");
            let event = self.event(now, EventKind::NodeLost, None, &name, what, Vec::new());
            self.note(vec![event])?;
            if let Some(node) = self.live.get_mut(&name) {
                node.is_lost = true;
            }
        }
        Ok(())
    }

    fn learn_database(&mut self, copy: &CopyReport) -> Result<()> {
        let databases = &self.contents.databases;
        if databases.contains_key(&copy.database) || databases.len() >= INSTANCES_MAX {
            return Ok(());
        }
        self.note(vec![Change::Database(DatabaseRecord {
            database: copy.database,
            name: copy.name.clone(),
            mode: planaria_net::wire::control::Mode::default(),
            level: copy.level.clone(),
        })])
    }

    /// The level of a database is what its primary says, and not one that was replaced and does not know.
    fn learn_level(&mut self, copy: &CopyReport) -> Result<()> {
        let lead = self.contents.leads.get(&copy.database);
        let leads = lead.is_some_and(|lead| (lead.instance, lead.epoch) == (copy.instance, copy.epoch));
        match self.contents.databases.get(&copy.database) {
            Some(known) if leads && copy.state == CopyState::Primary && known.level != copy.level => {
                let level = copy.level.clone();
                self.note(vec![Change::Database(DatabaseRecord { level, ..known.clone() })])
            }
            _ => Ok(()),
        }
    }

    /// Finds out who leads. The newest epoch holds, whatever the catalog knew before.
    fn learn_lead(&mut self, now: Now, name: &str, copy: &CopyReport) -> Result<()> {
        if copy.state != CopyState::Primary {
            return Ok(());
        }
        if !self.contents.databases.contains_key(&copy.database) {
            // There was no room for it.
            return Ok(());
        }
        let Some(address) = self.live.get(name).map(|node| node.address) else { return Ok(()) };
        let known = self.contents.leads.get(&copy.database).cloned();
        let order = known.as_ref().map_or(EpochOrder::Newer, |known| copy.epoch.order(&known.epoch));
        let is_known = known.as_ref().is_some_and(|known| known.instance == copy.instance);
        let lead = LeadRecord {
            database: copy.database,
            instance: copy.instance,
            node: name.to_owned(),
            address,
            epoch: copy.epoch,
            since_ms: now.wall_ms,
        };
        let mut changes = Vec::new();
        match order {
            EpochOrder::Older => return Ok(()),
            EpochOrder::Same if is_known => {
                let moved = known.is_some_and(|known| known.address != address || known.node != name);
                changes.extend(moved.then_some(Change::Lead(lead)));
            }
            EpochOrder::Same | EpochOrder::Conflict => {
                let what = format!("{name} leads under {}, and so does another copy", copy.epoch);
                return self.note_conflict(now, copy, what);
            }
            EpochOrder::Newer => {
                let what = format!("{name} leads under {}", copy.epoch);
                changes.push(self.event(now, EventKind::Leads, Some(copy.database), name, what, Vec::new()));
                changes.push(Change::Lead(lead));
                if known.is_none()
                    && let Some(database) = self.contents.databases.get(&copy.database)
                {
                    // Copies have names of their own; the primary's is what the database is called.
                    changes.push(Change::Database(DatabaseRecord {
                        name: copy.name.clone(),
                        ..database.clone()
                    }));
                }
            }
        }
        if !changes.is_empty() {
            self.note(changes)?;
        }
        let watched = self.watched.entry(copy.database).or_default();
        watched.led = Some(now.at);
        if order == EpochOrder::Newer || watched.is_lost {
            watched.is_lost = false;
            watched.refused.clear();
            watched.note.clear();
        }
        self.withdraw_promotions(now, copy, name)
    }

    /// Asks nobody to lead any more after a copy that does was heard. What that copy itself was asked, it has time to answer.
    fn withdraw_promotions(&mut self, now: Now, copy: &CopyReport, name: &str) -> Result<()> {
        let is_promotion = |job: &&JobRecord| job.kind == JobKind::Promote && job.database == copy.database;
        let open: Vec<JobRecord> = self.open_jobs().values().filter(is_promotion).cloned().collect();
        for job in open {
            let watched = self.watched.entry(copy.database).or_default();
            let asked = *watched.asked.get_or_insert(now.at);
            if job.instance == copy.instance && now.at.since(asked) < JOB_PATIENCE {
                continue;
            }
            watched.asked = None;
            let why = format!("{} is asked no more: {name} leads", job.node);
            self.end_job(now, job, JobState::Failed, EventKind::PromotionFailed, why)?;
        }
        Ok(())
    }

    /// Writes a conflict down once.
    fn note_conflict(&mut self, now: Now, copy: &CopyReport, what: String) -> Result<()> {
        let watched = self.watched.entry(copy.database).or_default();
        if watched.note.first() != Some(&what) {
            watched.note = vec![what.clone()];
            let event = self.event(now, EventKind::Conflict, Some(copy.database), "", what, Vec::new());
            self.note(vec![event])?;
        }
        Ok(())
    }

    /// Writes down what a node said of its copies, if that is new or was not for a while. Whether it did.
    fn write_down(&mut self, now: Now, name: &str) -> Result<bool> {
        let Some(node) = self.live.get(name) else { return Ok(false) };
        let is_due = node.written.is_none_or(|written| now.at.since(written) >= WRITTEN_EVERY);
        let is_new = |copy: &CopyReport| {
            let known = self.contents.instances.get(&copy.instance);
            known.is_none_or(|known| {
                known.node != name || known.state != copy.state || known.role != copy.role
            })
        };
        let mut room = INSTANCES_MAX.saturating_sub(self.contents.instances.len());
        let mut fits = |copy: &CopyReport| {
            let takes = usize::from(!self.contents.instances.contains_key(&copy.instance));
            let fits = room >= takes;
            room = room.saturating_sub(takes);
            fits
        };
        let reports = node.copies.values().map(|copy| &copy.report);
        let mut changes: Vec<Change> = reports
            .filter(|copy| (is_due || is_new(copy)) && fits(copy))
            .map(|copy| Change::Instance(record_of(now, name, copy)))
            .collect();
        if is_due && let Some(known) = self.contents.nodes.get(name) {
            changes.push(Change::Node(NodeRecord {
                capacity_bytes: node.capacity_bytes,
                free_bytes: node.free_bytes,
                heard_ms: now.wall_ms,
                ..known.clone()
            }));
        }
        if changes.is_empty() {
            return Ok(false);
        }
        self.note(changes)?;
        if is_due && let Some(node) = self.live.get_mut(name) {
            node.written = Some(now.at);
        }
        Ok(true)
    }

    /// The open jobs by number, of a kind.
    pub(super) fn open_jobs(&self) -> &BTreeMap<u64, JobRecord> {
        &self.contents.jobs
    }
}

/// When a copy had news of its primary: its update time rises.
fn news_of(copy: &CopyReport, before: Option<&LiveCopy>, now: Millis) -> Option<Millis> {
    let before = before?;
    if copy.update > before.report.update { Some(now) } else { before.news }
}

fn record_of(now: Now, node: &str, copy: &CopyReport) -> InstanceRecord {
    InstanceRecord {
        instance: copy.instance,
        database: copy.database,
        node: node.to_owned(),
        role: copy.role,
        state: copy.state,
        durable: copy.position.uid,
        update: copy.update,
        bytes: copy.bytes,
        heard_ms: now.wall_ms,
    }
}

/// Whether a report of a copy is one that a node of ours makes.
fn is_sane(copy: &CopyReport) -> bool {
    is_name(&copy.name)
        && copy.level.len() <= NAME_BYTES_MAX
        && copy.role != InstanceRole::Primary
        && copy.history.entries().len() <= HISTORY_ENTRIES_MAX
        // Decoding alone does not check the order of the entries.
        && History::from_entries(copy.history.entries().to_vec()).is_some()
}

/// A report with as much of its text as is kept: a copy with much to say of its damage is heard all the same.
fn clipped(copy: &CopyReport) -> CopyReport {
    CopyReport {
        name: copy.name.clone(),
        damage: shortened(&copy.damage, DAMAGE_BYTES_MAX),
        level: copy.level.clone(),
        promotable: copy.promotable.clone(),
        next_promotable: copy.next_promotable.clone(),
        history: copy.history.clone(),
        ..*copy
    }
}

/// A text of at most so many bytes, which says so if it was longer.
pub(super) fn shortened(text: &str, bytes_max: usize) -> String {
    const MORE: &str = "…";
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let kept = text.floor_char_boundary(bytes_max.saturating_sub(MORE.len()));
    format!("{}{MORE}", text.get(..kept).unwrap_or_default())
}

pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control)
}

/// Whether a text may be the name or the value of a label.
pub(super) fn is_label(text: &str) -> bool {
    is_name(text) && !text.contains([',', '='])
}

/// The labels of a node that joins, if they and its name are what they may be.
pub(super) fn labels_of(join: &Join) -> Result<Labels> {
    let invalid = |what: String| {
        Error::refused(
            "invalid",
            what,
            "names have 1 to 255 bytes, and labels neither a comma nor an equals sign",
        )
    };
    if !is_name(&join.name) || join.software.len() > NAME_BYTES_MAX {
        return Err(invalid(format!("{:?} is no name of a node", join.name)));
    }
    let wrong = join.labels.iter().find(|(name, value)| !is_label(name) || !is_label(value));
    if let Some((name, value)) = wrong {
        return Err(invalid(format!("{name}={value} is no label")));
    }
    Ok(Labels::of(join.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))))
}
