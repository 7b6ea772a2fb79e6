//! What operators see.

use planaria_net::wire::control::{DatabaseInfo, EventInfo, InstanceInfo, LeadInfo, NodeInfo};
use planaria_replication::Millis;
use planaria_replication::control::{CopyState, InstanceRole};
use planaria_types::{DatabaseId, Position};

use super::{Center, Now};
use crate::Result;
use crate::catalog::{DatabaseRecord, Event, InstanceRecord, NodeRecord};

/// Events that one answer holds, at most.
const EVENTS_MAX: usize = 10_000;

impl Center {
    /// Who leads: those that were heard to lately.
    pub fn leads(&self, now: Now) -> Vec<LeadInfo> {
        let lead = |lead: &crate::LeadRecord| LeadInfo {
            database: lead.database,
            instance: lead.instance,
            epoch: lead.epoch,
            address: lead.address,
        };
        let heard = self.contents.leads.values().filter(|lead| self.is_led(now, lead.database));
        heard.map(lead).collect()
    }

    /// The databases by name.
    pub fn databases(&self, now: Now) -> Vec<DatabaseInfo> {
        let known = self.contents.databases.values();
        let mut databases: Vec<_> = known.map(|known| self.database_info(now, known)).collect();
        databases.sort_by(|one, other| one.name.cmp(&other.name));
        databases
    }

    fn database_info(&self, now: Now, known: &DatabaseRecord) -> DatabaseInfo {
        let lead = self.contents.leads.get(&known.database);
        let copies = self.contents.instances.values().filter(|copy| copy.database == known.database);
        let (count, heard) = copies.fold((0, 0), |(count, heard), copy| {
            (count + 1, heard + u32::from(self.is_heard(now, &copy.node)))
        });
        DatabaseInfo {
            name: known.name.clone(),
            database: known.database,
            mode: known.mode,
            level: known.level.clone(),
            primary: lead.map(|lead| lead.node.clone()).unwrap_or_default(),
            address: lead.map(|lead| lead.address.to_string()).unwrap_or_default(),
            epoch: lead.map(|lead| lead.epoch).unwrap_or_default(),
            is_led: self.is_led(now, known.database),
            copies: count,
            copies_heard: heard,
            note: self.note_of(known.database),
            stores: self.stores_of(known.database).count() as u32,
        }
    }

    /// Whether somebody was heard lately to lead a database.
    pub(super) fn is_led(&self, now: Now, database: DatabaseId) -> bool {
        let has_led = self.watched.get(&database).is_some_and(|watched| watched.led.is_some());
        has_led && self.unheard(now, database) < Millis(self.settings.lost_after_ms)
    }

    /// What goes on with a database: its open jobs, or why nobody is asked to lead.
    pub(super) fn note_of(&self, database: DatabaseId) -> String {
        let jobs = self.open_jobs().values().filter(|job| job.database == database);
        let mut notes: Vec<&str> = jobs.map(|job| job.reason.as_str()).collect();
        if let Some(watched) = self.watched.get(&database) {
            notes.extend(watched.note.first().map(String::as_str));
        }
        notes.join("; ")
    }

    /// The nodes by name.
    pub fn nodes(&self, now: Now) -> Vec<NodeInfo> {
        self.contents.nodes.values().map(|node| self.node_info(now, node)).collect()
    }

    fn node_info(&self, now: Now, node: &NodeRecord) -> NodeInfo {
        let live = self.live.get(&node.name).filter(|live| live.written.is_some());
        let copies = self.contents.instances.values().filter(|copy| copy.node == node.name).count();
        NodeInfo {
            name: node.name.clone(),
            address: node.address.to_string(),
            labels: self.labels(&node.name).to_string(),
            software: node.software.clone(),
            capacity_bytes: live.map_or(node.capacity_bytes, |live| live.capacity_bytes),
            free_bytes: live.map_or(node.free_bytes, |live| live.free_bytes),
            copies: copies as u32,
            is_heard: self.is_heard(now, &node.name),
            heard_ago_ms: self.heard_ago(now, &node.name),
            spare: self.live.get(&node.name).and_then(|live| live.spare),
            has_older_token: self.contents.admissions.contains_key(&node.name),
        }
    }

    /// The copies by database and node, the backups in stores among them.
    pub fn instances(&self, now: Now) -> Vec<InstanceInfo> {
        let known = self.contents.instances.values();
        let mut instances: Vec<_> = known.map(|known| self.instance_info(now, known)).collect();
        instances.extend(self.stored_instances(now));
        instances.sort_by(|one, other| (&one.database, &one.node).cmp(&(&other.database, &other.node)));
        instances
    }

    fn instance_info(&self, now: Now, known: &InstanceRecord) -> InstanceInfo {
        let live = self.live.get(&known.node).and_then(|node| node.copies.get(&known.instance));
        let report = live.map(|copy| &copy.report);
        let state = report.map_or(known.state, |report| report.state);
        let database = self.contents.databases.get(&known.database);
        InstanceInfo {
            instance: known.instance,
            database: database.map_or_else(|| known.database.to_string(), |database| database.name.clone()),
            node: known.node.clone(),
            role: if state == CopyState::Primary { InstanceRole::Primary } else { known.role },
            state,
            // A copy that its node does not report any more has given way to another one.
            is_heard: report.is_some() && self.is_heard(now, &known.node),
            is_promotable: report.is_some_and(|report| report.promotable.contains(&known.instance)),
            position: report
                .map_or(Position { uid: known.durable, ..Position::default() }, |report| report.position),
            update: report.map_or(known.update, |report| report.update),
            lag_ms: report.map_or(0, |report| report.lag_ms),
            bytes: report.map_or(known.bytes, |report| report.bytes),
            stored: String::new(),
        }
    }

    /// What happened, youngest first.
    pub fn history(&self, limit: u32) -> Result<Vec<EventInfo>> {
        let events = self.catalog.events(EVENTS_MAX.min(limit as usize))?;
        Ok(events.into_iter().map(|event| self.event_info(event)).collect())
    }

    fn event_info(&self, event: Event) -> EventInfo {
        let name = |id: DatabaseId| {
            self.contents.databases.get(&id).map_or_else(|| id.to_string(), |known| known.name.clone())
        };
        EventInfo {
            number: event.number,
            at_ms: event.at_ms,
            kind: event.kind.name().to_owned(),
            database: event.database.map(name).unwrap_or_default(),
            node: event.node,
            what: event.what,
            reasons: event.reasons,
        }
    }
}
