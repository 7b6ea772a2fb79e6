//! Stores of backups: declared by operators, seen by the nodes that may speak to them, sources and targets of clones.

use std::collections::BTreeMap;

use planaria_net::wire::control::{InstanceInfo, LABELS_MAX};
use planaria_net::wire::message::{CloneRole, VERSION_MAX, VERSION_MIN};
use planaria_net::wire::stores::{StoreInfo, StoreReport, StoreSpec, StoredBackup, is_place};
use planaria_replication::control::{
    Destination, InstanceRole, Labels, QueuedSource, SourceCopy, StoreAccess,
};
use planaria_types::{DatabaseId, InstanceId, Uid};

use super::learn::{is_label, is_name, shortened};
use super::{Center, Now};
use crate::catalog::{Change, CloneRecord, CloneState, EventKind, StoreRecord};
use crate::{Error, Result};

/// Stores that are known, at most.
const STORES_KNOWN_MAX: usize = 4_096;
/// What is kept of what a node says is in the way, in bytes.
const WORDS_BYTES_MAX: usize = 1_024;

impl Center {
    /// Declares a store of a database, in place of what was declared of it. What was seen there stays known.
    ///
    /// # Errors
    ///
    /// `unknown_database`, `ambiguous`, `invalid`, `too_many`.
    pub fn set_store(&mut self, now: Now, database: Option<&str>, spec: &StoreSpec) -> Result<()> {
        let known = self.database_named(database)?;
        let (id, name) = (known.database, known.name.clone());
        let record = self.store_record(id, spec, 0)?;
        let what = format!("{name} has a store of backups: {}", words(spec));
        let event = self.event(now, EventKind::StoreSet, Some(id), "", what, Vec::new());
        self.note(vec![Change::Store(Box::new(record)), event])?;
        self.run_queue(now)
    }

    /// A store as it is kept, if it can be. So many are new in the same step before it.
    pub(super) fn store_record(
        &self,
        database: DatabaseId,
        spec: &StoreSpec,
        before: u64,
    ) -> Result<StoreRecord> {
        check_store(spec)?;
        let labels = Labels(spec.labels.iter().cloned().collect());
        let stores = &self.contents.stores;
        if let Some(known) = stores.get(&(database, spec.place.clone())) {
            return Ok(StoreRecord { labels, keep: spec.keep, ..known.clone() });
        }
        if stores.len() as u64 + before >= STORES_KNOWN_MAX as u64 {
            let what = format!("there are {STORES_KNOWN_MAX} stores");
            return Err(Error::refused("too_many", what, "remove some"));
        }
        Ok(StoreRecord {
            database,
            place: spec.place.clone(),
            number: self.contents.last_job + 1 + before,
            labels,
            keep: spec.keep,
            newest: None,
            told_by: String::new(),
            heard_ms: 0,
        })
    }

    /// Has a database have a store no more. What is there stays; what is on its way there is given up.
    ///
    /// # Errors
    ///
    /// `unknown_database`, `ambiguous`, `unknown_store`.
    pub fn remove_store(&mut self, now: Now, database: Option<&str>, place: &str) -> Result<()> {
        let known = self.database_named(database)?;
        let (id, name) = (known.database, known.name.clone());
        if !self.contents.stores.contains_key(&(id, place.to_owned())) {
            return Err(unknown_store(&name, place));
        }
        let what = format!("{name} has no store of backups at {place} any more");
        let event = self.event(now, EventKind::StoreRemoved, Some(id), "", what, Vec::new());
        self.note(vec![Change::StoreRemoved(id, place.to_owned()), event])?;
        self.run_queue(now)
    }

    /// The store that a backup is to go to: the one that is named, or the only one of the database.
    ///
    /// # Errors
    ///
    /// `unknown_store`, `ambiguous`.
    pub(super) fn store_meant(&self, database: DatabaseId, name: &str, place: &str) -> Result<String> {
        let mut meant = self.stores_of(database).filter(|store| place.is_empty() || store.place == place);
        match (meant.next(), meant.next()) {
            (Some(store), None) => Ok(store.place.clone()),
            (None, _) => Err(unknown_store(name, place)),
            (Some(_), Some(_)) => Err(Error::refused(
                "ambiguous",
                format!("{name} has several stores of backups"),
                "name one with --to; `planaria cluster store list` shows them",
            )),
        }
    }

    pub(super) fn stores_of(&self, database: DatabaseId) -> impl Iterator<Item = &StoreRecord> {
        self.contents.stores.values().filter(move |store| store.database == database)
    }

    /// The place of the store that is a source under this id.
    pub(super) fn place_of(&self, instance: InstanceId) -> Option<&str> {
        let store = self.contents.stores.values().find(|store| store.instance() == instance);
        store.map(|store| store.place.as_str())
    }

    /// Where a node or a store of a database is, as far as labels say.
    pub(super) fn labels_at(&self, database: DatabaseId, name: &str) -> Labels {
        let store = self.contents.stores.get(&(database, name.to_owned()));
        store.map_or_else(|| self.labels(name), |store| store.labels.clone())
    }

    /// Takes in what a node sees in its stores.
    pub(super) fn take_stores(&mut self, now: Now, name: &str, stores: &[StoreReport]) -> Result<()> {
        let sane = stores.iter().filter(|store| is_place(&store.place));
        let seen: BTreeMap<String, StoreReport> =
            sane.map(|store| (store.place.clone(), clipped(store))).collect();
        let mut changes = Vec::new();
        for known in self.contents.stores.values() {
            let Some(report) = seen.get(&known.place).filter(|report| report.code.is_empty()) else {
                continue;
            };
            let newest = newest_of(report, known.database);
            // It may be among those that there was no room for.
            if newest.is_none() && report.left_out > 0 {
                continue;
            }
            let is_newer = newest.map(age) > known.newest.as_ref().map(age);
            // What is gone is believed whoever told of it: others may not have looked since it came.
            let is_other = newest != known.newest.as_ref() && (is_newer || known.told_by == name);
            if !is_other {
                continue;
            }
            changes.push(Change::Store(Box::new(StoreRecord {
                newest: newest.cloned(),
                told_by: name.to_owned(),
                heard_ms: now.wall_ms,
                ..known.clone()
            })));
            if let Some(newest) = newest.filter(|_| is_newer) {
                let what = format!("{} has the backup {}, {} bytes", known.place, newest.name, newest.bytes);
                let kind = EventKind::BackupSeen;
                changes.push(self.event(now, kind, Some(known.database), name, what, Vec::new()));
            }
        }
        if let Some(node) = self.live.get_mut(name) {
            node.stores = seen;
        }
        if changes.is_empty() { Ok(()) } else { self.note(changes) }
    }

    /// A store as a node sees it that is to speak to it; or why it cannot.
    pub(super) fn seen_by(&self, node: &str, place: &str) -> Result<&StoreReport, StoreAccess> {
        match self.live.get(node).and_then(|live| live.stores.get(place)) {
            None => Err(StoreAccess::NotAllowed),
            Some(report) if report.code.is_empty() => Ok(report),
            Some(_) => Err(StoreAccess::Away),
        }
    }

    /// The copies of a database, for a backup in a store: each speaks to it itself.
    pub(super) fn sources_into(&self, now: Now, place: &str, database: DatabaseId) -> Vec<QueuedSource> {
        let copies = self.source_copies(now, "", database).into_iter();
        let source = |copy: SourceCopy| {
            let node = self.node_of(copy.instance);
            let store = match self.seen_by(&node, place) {
                Ok(_) => StoreAccess::Open,
                Err(access) => access,
            };
            QueuedSource { node, copy: SourceCopy { store, ..copy } }
        };
        copies.map(source).collect()
    }

    /// A store as the designated instance.
    pub(super) fn store_destination(&self, database: DatabaseId, place: &str) -> Destination {
        Destination {
            holds: std::collections::BTreeSet::new(),
            labels: self.labels_at(database, place),
            versions: (VERSION_MIN, VERSION_MAX),
            free_bytes: u64::MAX,
        }
    }

    /// Ends backups that are to go where their database has no store any more.
    pub(super) fn end_homeless(&mut self, now: Now) -> Result<()> {
        let is_homeless = |clone: &&CloneRecord| {
            let store = (clone.database, clone.node.clone());
            clone.role == CloneRole::Store && !self.contents.stores.contains_key(&store)
        };
        let homeless: Vec<CloneRecord> = self.contents.clones.values().filter(is_homeless).cloned().collect();
        for clone in homeless {
            let why = format!("the database has no store at {} any more", clone.node);
            self.end_clone(now, clone, CloneState::Cancelled, "unknown_store", why)?;
        }
        Ok(())
    }

    /// The stores, by database and place.
    pub fn stores(&self, now: Now) -> Vec<StoreInfo> {
        self.contents.stores.values().map(|known| self.store_info(now, known)).collect()
    }

    fn store_info(&self, now: Now, known: &StoreRecord) -> StoreInfo {
        let database = self.contents.databases.get(&known.database);
        let is_there = |(name, node): &(&String, &super::LiveNode)| {
            node.stores.contains_key(&known.place) && self.is_heard(now, name)
        };
        let nodes: Vec<String> = self.live.iter().filter(is_there).map(|(name, _)| name.clone()).collect();
        let (state, trouble) = self.state_of(known, &nodes);
        let into = |clone: &&CloneRecord| {
            clone.role == CloneRole::Store && clone.database == known.database && clone.node == known.place
        };
        let open = self.contents.clones.values().find(into);
        let under_way =
            open.map(|clone| format!("clone {} is {}: {}", clone.number, clone.state.name(), clone.reason));
        StoreInfo {
            database: database.map_or_else(|| known.database.to_string(), |database| database.name.clone()),
            spec: spec_of(known),
            instance: known.instance(),
            state: state.to_owned(),
            newest: known.newest.clone(),
            heard_ms: known.heard_ms,
            nodes,
            note: under_way.into_iter().chain(trouble).collect::<Vec<_>>().join("; "),
        }
    }

    /// How a store stands, and what the nodes say that cannot reach it.
    fn state_of(&self, known: &StoreRecord, nodes: &[String]) -> (&'static str, Option<String>) {
        let reports = nodes.iter().filter_map(|node| {
            let report = self.live.get(node)?.stores.get(&known.place)?;
            Some((node, report))
        });
        let is_away = |report: &StoreReport| !report.code.is_empty();
        let words = |(node, report): (&String, &StoreReport)| match report.left_out {
            _ if is_away(report) => Some(format!("{node}: {}", report.what)),
            0 => None,
            more => Some(format!("{node} does not tell of {more} more databases that have backups there")),
        };
        let trouble: Vec<String> = reports.clone().filter_map(words).collect();
        let state = match reports.clone().count() {
            0 => "not_allowed",
            _ if reports.clone().all(|(_, report)| is_away(report)) => "away",
            _ if known.newest.is_none() => "empty",
            _ => "stored",
        };
        (state, (!trouble.is_empty()).then(|| trouble.join("; ")))
    }

    /// The stores in the list of copies.
    pub(super) fn stored_instances(&self, now: Now) -> Vec<InstanceInfo> {
        let info = |store: StoreInfo| {
            let newest = store.newest.unwrap_or_default();
            InstanceInfo {
                instance: store.instance,
                database: store.database,
                node: store.spec.place,
                role: InstanceRole::Backup,
                is_heard: !matches!(store.state.as_str(), "away" | "not_allowed"),
                position: newest.position,
                update: newest.position.uid,
                bytes: newest.bytes,
                stored: store.state,
                ..InstanceInfo::default()
            }
        };
        self.stores(now).into_iter().map(info).collect()
    }
}

/// What was declared of a store.
pub(super) fn spec_of(known: &StoreRecord) -> StoreSpec {
    let labels = known.labels.0.clone().into_iter().collect();
    StoreSpec { place: known.place.clone(), labels, keep: known.keep }
}

/// A store in words.
pub(super) fn words(spec: &StoreSpec) -> String {
    let labels = Labels(spec.labels.iter().cloned().collect());
    let keep = spec.keep.map(|keep| format!(", of which {keep} backups stay"));
    let labels = if labels.0.is_empty() { String::new() } else { format!(" ({labels})") };
    format!("{}{labels}{}", spec.place, keep.unwrap_or_default())
}

fn unknown_store(database: &str, place: &str) -> Error {
    let what = if place.is_empty() {
        format!("{database} has no store of backups")
    } else {
        format!("{database} has no store of backups at {place:?}")
    };
    Error::refused(
        "unknown_store",
        what,
        "declare it with `planaria cluster store add`; `store list` shows those there are",
    )
}

fn check_store(spec: &StoreSpec) -> Result<()> {
    let invalid = |what: String| Error::refused("invalid", what, "see `planaria cluster store add --help`");
    let is_whole = spec.place.starts_with('/') || spec.place.contains("://");
    if !is_place(&spec.place) || !is_whole {
        return Err(invalid(format!(
            "{:?} is neither a directory by its whole path nor a bucket",
            spec.place
        )));
    }
    let wrong = spec.labels.iter().find(|(name, value)| !is_label(name) || !is_label(value));
    if let Some((name, value)) = wrong {
        return Err(invalid(format!("{name}={value} is no label")));
    }
    if spec.labels.len() > LABELS_MAX {
        return Err(invalid(format!("a store has at most {LABELS_MAX} labels")));
    }
    match spec.keep {
        Some(0) => Err(invalid("at least one backup stays".to_owned())),
        _ => Ok(()),
    }
}

pub(super) fn newest_of(report: &StoreReport, database: DatabaseId) -> Option<&StoredBackup> {
    report.backups.iter().find(|backup| backup.database == database)
}

/// What makes one backup newer than another one: its last commit, then when it was taken.
fn age(backup: &StoredBackup) -> (Uid, u64) {
    (backup.position.uid, backup.taken_ms)
}

/// A report with as much of its text as is kept. A backup whose name is none counts as one that is not told of.
fn clipped(report: &StoreReport) -> StoreReport {
    let named: Vec<_> = report.backups.iter().filter(|backup| is_name(&backup.name)).cloned().collect();
    let left_out = report.left_out.saturating_add((report.backups.len() - named.len()) as u64);
    let kept = report.kept.iter().filter(|backup| is_name(&backup.name)).cloned().collect();
    let what = shortened(&report.what, WORDS_BYTES_MAX);
    StoreReport { what, backups: named, kept, left_out, ..report.clone() }
}
