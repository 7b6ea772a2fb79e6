//! All that was declared of a cluster, in one piece: shown, compared with what is wanted, and changed in one step.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use planaria_net::wire::control::{LABELS_MAX, Mode};
use planaria_net::wire::stores::StoreSpec;
use planaria_net::wire::topology::{
    DatabaseSpec, DatacenterSpec, LimitSpec, NodeSpec, ScheduleSpec, Topology, TopologyChange,
};
use planaria_replication::control::{Ceiling, Labels};

use super::learn::is_label;
use super::{Center, Now};
use crate::catalog::{Change, DatabaseRecord, DeclarationRecord, Declared, EventKind, WantRecord};
use crate::{Error, Result};

/// Nodes and datacenters that something may be declared of.
const DECLARED_MAX: usize = 8_192;

/// What changes, and how that is said.
#[derive(Default)]
struct Steps {
    changes: Vec<Change>,
    lines: Vec<TopologyChange>,
    /// Items that were met: none may be declared twice.
    met: BTreeSet<String>,
}

impl Steps {
    fn meet(&mut self, item: &str) -> Result<()> {
        if self.met.insert(item.to_owned()) {
            return Ok(());
        }
        Err(Error::refused("invalid", format!("{item}: it is declared twice"), "name it once"))
    }

    fn add(&mut self, item: &str, what: impl Display, changes: impl IntoIterator<Item = Change>) {
        self.changes.extend(changes);
        self.lines.push(TopologyChange { item: item.to_owned(), what: what.to_string() });
    }
}

/// An error of one item says which.
fn at<T>(item: &str, outcome: Result<T>) -> Result<T> {
    outcome.map_err(|error| match error {
        Error::Refused { code, what, hint } => Error::Refused { code, what: format!("{item}: {what}"), hint },
        other => other,
    })
}

impl Center {
    /// What is declared now.
    pub fn topology(&self) -> Topology {
        let declared = |of| self.contents.declarations.values().filter(move |known| known.of == of);
        let datacenter = |known: &DeclarationRecord| DatacenterSpec {
            name: known.name.clone(),
            region: known.labels.get("region").unwrap_or_default().to_owned(),
        };
        let node = |known: &DeclarationRecord| NodeSpec {
            name: known.name.clone(),
            labels: known.labels.0.clone().into_iter().collect(),
            capacity_bytes: known.capacity_bytes,
        };
        let is_alone =
            |name: &str| self.contents.databases.values().filter(|other| other.name == name).count() == 1;
        let database = |known: &DatabaseRecord| {
            let (standbys, backups) = self.wanted(known);
            let name = if is_alone(&known.name) { known.name.clone() } else { known.database.to_string() };
            let stores = self.stores_of(known.database).map(super::stores::spec_of).collect();
            DatabaseSpec { name, mode: known.mode, standbys, backups, stores }
        };
        let mut databases: Vec<_> = self.contents.databases.values().map(database).collect();
        databases.sort_by(|one, other| one.name.cmp(&other.name));
        let limits = self.contents.limits.iter().map(|(gate, ceiling)| LimitSpec {
            gate: gate.to_string(),
            clones_max: ceiling.clones_max,
            bytes_per_s_max: ceiling.bytes_per_s_max,
        });
        let schedules = self.schedules().into_iter();
        let schedules =
            schedules.map(|known| ScheduleSpec { name: known.name, when: known.when, wish: known.wish });
        Topology {
            datacenters: declared(Declared::Datacenter).map(datacenter).collect(),
            nodes: declared(Declared::Node).map(node).collect(),
            databases,
            limits: limits.collect(),
            schedules: schedules.collect(),
            rules: self.rules().into_iter().map(|known| known.rule).collect(),
        }
    }

    /// Standbys and backups that are wanted.
    pub(super) fn wanted(&self, database: &DatabaseRecord) -> (u32, u32) {
        self.contents.wants.get(&database.database).map_or((0, 0), |want| (want.standbys, want.backups))
    }

    /// Has all be as it is declared, in one step, and what is not named as if nothing had been said of it. What changes; with
    /// `dry_run` nothing does.
    ///
    /// # Errors
    ///
    /// Those of what would set each of it, with the item in front; then nothing has changed.
    pub fn apply_topology(
        &mut self,
        now: Now,
        topology: &Topology,
        dry_run: bool,
    ) -> Result<Vec<TopologyChange>> {
        let mut steps = Steps::default();
        self.compare_declarations(topology, &mut steps)?;
        self.compare_databases(now, topology, &mut steps)?;
        self.compare_limits(topology, &mut steps)?;
        self.compare_schedules(now, topology, &mut steps)?;
        self.compare_rules(now, topology, &mut steps)?;
        let Steps { mut changes, lines, .. } = steps;
        if dry_run || lines.is_empty() {
            return Ok(lines);
        }
        let reasons = lines.iter().map(|line| format!("{}: {}", line.item, line.what)).collect();
        let what = format!("a topology was applied, of which {} things are new or other", lines.len());
        changes.push(self.event(now, EventKind::TopologyApplied, None, "", what, reasons));
        self.note(changes)?;
        self.watch_wants(now)?;
        self.watch_schedules(now)?;
        self.run_queue(now)?;
        Ok(lines)
    }

    fn compare_declarations(&self, topology: &Topology, steps: &mut Steps) -> Result<()> {
        if topology.datacenters.len() + topology.nodes.len() > DECLARED_MAX {
            let what = format!("more than {DECLARED_MAX} nodes and datacenters are declared");
            return Err(Error::refused("too_many", what, "use another cluster"));
        }
        let datacenters = topology.datacenters.iter().map(|spec| DeclarationRecord {
            of: Declared::Datacenter,
            name: spec.name.clone(),
            labels: Labels::of(
                [("region", spec.region.as_str())].into_iter().filter(|(_, region)| !region.is_empty()),
            ),
            capacity_bytes: None,
        });
        let nodes = topology.nodes.iter().map(|spec| DeclarationRecord {
            of: Declared::Node,
            name: spec.name.clone(),
            labels: Labels(spec.labels.iter().cloned().collect()),
            capacity_bytes: spec.capacity_bytes,
        });
        let known = &self.contents.declarations;
        for record in datacenters.chain(nodes) {
            let item = item_of(&record);
            steps.meet(&item)?;
            at(&item, check_declaration(&record))?;
            if known.get(&(record.of, record.name.clone())) != Some(&record) {
                let capacity = record.capacity_bytes.map(|bytes| format!(", at most {bytes} bytes"));
                let what = format!("declared: {}{}", record.labels, capacity.unwrap_or_default());
                steps.add(&item, what, [Change::Declaration(record)]);
            }
        }
        for record in known.values() {
            let item = item_of(record);
            if !steps.met.contains(&item) {
                let removed = Change::DeclarationRemoved(record.of, record.name.clone());
                steps.add(&item, "declared no more: what the node says holds", [removed]);
            }
        }
        Ok(())
    }

    fn compare_databases(&self, now: Now, topology: &Topology, steps: &mut Steps) -> Result<()> {
        let mut specs: BTreeMap<_, (String, &DatabaseSpec)> = BTreeMap::new();
        for spec in &topology.databases {
            let item = format!("databases.{}", spec.name);
            steps.meet(&item)?;
            let known = at(&item, self.database_named(Some(&spec.name)))?;
            at(&item, super::seeding::check_wanted(spec.standbys, spec.backups))?;
            if specs.insert(known.database, (item.clone(), spec)).is_some() {
                return at(&item, Err(Error::refused("invalid", "it is declared twice", "name it once")));
            }
        }
        let unnamed = DatabaseSpec::default();
        for known in self.contents.databases.values() {
            let spec = specs.get(&known.database);
            let item = spec.map_or_else(|| format!("databases.{}", known.name), |(item, _)| item.clone());
            let spec = spec.map_or(&unnamed, |(_, spec)| *spec);
            if spec.mode != known.mode {
                let mut changes = vec![Change::Database(DatabaseRecord { mode: spec.mode, ..known.clone() })];
                if spec.mode == Mode::Operator {
                    changes.extend(self.called_off(now, known.database));
                }
                steps.add(&item, format!("mode {}, was {}", spec.mode.name(), known.mode.name()), changes);
            }
            let was = self.wanted(known);
            if was != (spec.standbys, spec.backups) {
                let (standbys, backups) = (spec.standbys, spec.backups);
                let what = format!(
                    "{standbys} standbys and {backups} backups are wanted, were {} and {}",
                    was.0, was.1
                );
                let want = WantRecord { database: known.database, standbys, backups };
                steps.add(&item, what, [Change::Want(want)]);
            }
            self.compare_stores(known.database, &item, &spec.stores, steps)?;
        }
        Ok(())
    }

    fn compare_stores(
        &self,
        database: planaria_types::DatabaseId,
        item: &str,
        specs: &[StoreSpec],
        steps: &mut Steps,
    ) -> Result<()> {
        let mut places = BTreeSet::new();
        for spec in specs {
            let is_new = |change: &&Change| matches!(change, Change::Store(_));
            let before = steps.changes.iter().filter(is_new).count() as u64;
            let record = at(item, self.store_record(database, spec, before))?;
            if !places.insert(spec.place.clone()) {
                let what = format!("the store {} is declared twice", spec.place);
                return at(item, Err(Error::refused("invalid", what, "name it once")));
            }
            if self.contents.stores.get(&(database, spec.place.clone())) != Some(&record) {
                let what = format!("a store of backups: {}", super::stores::words(spec));
                steps.add(item, what, [Change::Store(Box::new(record))]);
            }
        }
        for known in self.stores_of(database).filter(|known| !places.contains(&known.place)) {
            let what = format!("no store of backups at {} any more", known.place);
            steps.add(item, what, [Change::StoreRemoved(database, known.place.clone())]);
        }
        Ok(())
    }

    fn compare_limits(&self, topology: &Topology, steps: &mut Steps) -> Result<()> {
        let mut wanted = BTreeSet::new();
        for spec in &topology.limits {
            let item = format!("limits.{}", spec.gate);
            let LimitSpec { clones_max, bytes_per_s_max, .. } = *spec;
            let limit =
                at(&item, super::queue::limit_record(&spec.gate, Ceiling { clones_max, bytes_per_s_max }))?;
            steps.meet(&item)?;
            wanted.insert(limit.gate.clone());
            if self.contents.limits.get(&limit.gate) != Some(&limit.ceiling) {
                let what = format!("{clones_max} clones and {bytes_per_s_max} bytes a second");
                steps.add(&item, what, [Change::Limit(limit)]);
            }
        }
        at("limits", super::queue::check_limits(wanted.len()))?;
        for gate in self.contents.limits.keys().filter(|gate| !wanted.contains(gate)) {
            let what = "as it is where nothing was set";
            steps.add(&format!("limits.{gate}"), what, [Change::LimitRemoved(gate.clone())]);
        }
        Ok(())
    }

    fn compare_schedules(&self, now: Now, topology: &Topology, steps: &mut Steps) -> Result<()> {
        let known = &self.contents.schedules;
        for spec in &topology.schedules {
            let item = format!("schedules.{}", spec.name);
            steps.meet(&item)?;
            let is_same = |old: &crate::ScheduleRecord| {
                let database = self.database_named(spec.wish.database.as_deref());
                let database = database.ok().map(|known| known.database.to_string());
                old.when == spec.when
                    && old.wish == planaria_net::wire::jobs::CloneWish { database, ..spec.wish.clone() }
            };
            // What holds is not looked at again: a node that is away meanwhile is no reason to refuse it.
            if known.get(&spec.name).is_some_and(is_same) {
                continue;
            }
            let record = at(&item, self.schedule_record(now, &spec.name, &spec.when, &spec.wish))?;
            let verb = if known.contains_key(&spec.name) { "changed" } else { "new" };
            let what = format!("{verb}: a clone to {}", record.wish.to);
            steps.add(&item, what, [Change::Schedule(Box::new(record))]);
        }
        for name in known.keys() {
            let item = format!("schedules.{name}");
            if !steps.met.contains(&item) {
                steps.add(&item, "ended", [Change::ScheduleRemoved(name.clone())]);
            }
        }
        Ok(())
    }

    fn compare_rules(&mut self, now: Now, topology: &Topology, steps: &mut Steps) -> Result<()> {
        let known: BTreeMap<String, _> = self
            .contents
            .rules
            .iter()
            .map(|(name, record)| (name.clone(), self.rule_info(record).rule))
            .collect();
        for rule in &topology.rules {
            let item = format!("rules.{}", rule.name);
            steps.meet(&item)?;
            let database = self.database_named(rule.database.as_deref()).ok().map(|known| known.name.clone());
            let mut named = planaria_net::wire::rules::Rule { database: database.clone(), ..rule.clone() };
            if let planaria_net::wire::rules::RuleAction::Clone(wish) = &mut named.action {
                wish.database = database;
            }
            if known.get(&rule.name) == Some(&named) {
                continue;
            }
            let record = at(&item, self.rule_record(now, rule))?;
            let verb = if known.contains_key(&rule.name) { "changed" } else { "new" };
            let what = format!("{verb}: {}", super::rules::words(&record));
            steps.add(&item, what, [Change::Rule(Box::new(record))]);
        }
        for name in known.keys() {
            let item = format!("rules.{name}");
            if !steps.met.contains(&item) {
                steps.add(&item, "ended", [Change::RuleRemoved(name.clone())]);
            }
        }
        Ok(())
    }

    /// The labels of a node: what is declared of it, then of its datacenter, then what it says itself.
    pub(super) fn labels(&self, node: &str) -> Labels {
        let mut labels = self.contents.nodes.get(node).map(|node| node.labels.clone()).unwrap_or_default();
        let of_node = self.contents.declarations.get(&(Declared::Node, node.to_owned()));
        labels.0.extend(of_node.map(|declared| declared.labels.0.clone()).unwrap_or_default());
        let datacenter = labels.get("datacenter").map(str::to_owned);
        let of_datacenter = datacenter
            .and_then(|datacenter| self.contents.declarations.get(&(Declared::Datacenter, datacenter)));
        for (name, value) in of_datacenter.map(|declared| declared.labels.0.clone()).unwrap_or_default() {
            if of_node.is_none_or(|declared| declared.labels.get(&name).is_none()) {
                labels.0.insert(name, value);
            }
        }
        labels
    }

    /// What clones may take of a disk, given its bytes and those that are free.
    pub(super) fn room(&self, node: &str, capacity_bytes: u64, free_bytes: u64) -> u64 {
        let declared = self.contents.declarations.get(&(Declared::Node, node.to_owned()));
        let used = capacity_bytes.saturating_sub(free_bytes);
        match declared.and_then(|declared| declared.capacity_bytes) {
            Some(capacity) => free_bytes.min(capacity.saturating_sub(used)),
            None => free_bytes,
        }
    }
}

fn item_of(record: &DeclarationRecord) -> String {
    match record.of {
        Declared::Datacenter => format!("datacenters.{}", record.name),
        Declared::Node => format!("nodes.{}", record.name),
    }
}

fn check_declaration(record: &DeclarationRecord) -> Result<()> {
    let invalid = |what: String| {
        Error::refused(
            "invalid",
            what,
            "names have 1 to 255 bytes, and labels neither a comma nor an equals sign",
        )
    };
    let is_name = match record.of {
        Declared::Datacenter => is_label(&record.name),
        Declared::Node => super::learn::is_name(&record.name),
    };
    if !is_name {
        return Err(invalid("that is no name".to_owned()));
    }
    let wrong = record.labels.0.iter().find(|(name, value)| !is_label(name) || !is_label(value));
    if let Some((name, value)) = wrong {
        return Err(invalid(format!("{name}={value} is no label")));
    }
    if record.labels.0.len() > LABELS_MAX {
        return Err(invalid(format!("a node has at most {LABELS_MAX} labels")));
    }
    Ok(())
}
