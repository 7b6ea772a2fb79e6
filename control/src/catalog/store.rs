use std::path::Path;

use planaria_engine::os::Os;
use planaria_engine::{Batch, Database, Durability, Options, Table, Value};
use planaria_net::wire::control::JoinToken;
use planaria_net::wire::jobs::When;
use planaria_net::wire::message::Shape;
use planaria_net::wire::rules::RuleAction;
use planaria_types::KeyRange;

use super::clones::{CloneRecord, LimitRecord, ScheduleRecord, WantRecord};
use super::declarations::DeclarationRecord;
use super::members::{AdmissionRecord, RemovedRecord};
use super::record::{Change, Event, JobRecord, JobState};
use super::row::{Row, bits};
use super::rules::{CalendarRecord, RuleRecord};
use super::shapes::{ShapeOwner, ShapeRecord};
use super::stores::StoreRecord;
use super::tables::{Setting, Stored};
use super::{Catalog, Contents};
use crate::{Error, Result};

/// Events that are kept.
const EVENTS_MAX: u64 = 10_000;
/// Jobs that are kept.
const JOBS_MAX: u64 = 10_000;
/// The setting that holds the token.
const TOKEN: &str = "join_token";

/// A catalog in a planaria database of its own: a row for each thing, in typed tables that any command can show.
#[derive(Debug)]
pub struct StoreCatalog {
    database: Database,
    settings: Table,
    datacenters: Table,
    nodes: Table,
    admissions: Table,
    removed: Table,
    declarations: Table,
    links: Table,
    databases: Table,
    instances: Table,
    leads: Table,
    jobs: Table,
    clones: Table,
    limits: Table,
    schedules: Table,
    calendars: Table,
    rules: Table,
    shapes: Table,
    wants: Table,
    stores: Table,
    history: Table,
}

impl StoreCatalog {
    /// Opens the catalog in a directory, which is made if there is none.
    ///
    /// # Errors
    ///
    /// Those of [`Database::open_with`]; `usage` if the directory holds a database that is no catalog.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(dir, Options::default())
    }

    /// The same with options of the engine. What they say of sizes is not taken: a catalog is small.
    pub fn open_with(dir: impl AsRef<Path>, options: Options) -> Result<Self> {
        let os = options.os.clone();
        let small = Options {
            memtable_bytes: 4 << 20,
            cache_bytes: 16 << 20,
            log_segment_bytes: 1 << 20,
            log_bytes_max: 16 << 20,
            log_tail_bytes: 0,
            ..options
        };
        let database = Database::open_with(dir.as_ref(), small)?;
        let is_known = |name: &str| {
            [
                Setting::TABLE,
                "datacenters",
                "nodes",
                "admissions",
                "removed",
                "declarations",
                "links",
                "databases",
                "instances",
                "leads",
                "jobs",
                "clones",
                "limits",
                "schedules",
                "calendars",
                "rules",
                "shapes",
                "wants",
                "stores",
                "history",
            ]
            .contains(&name)
        };
        if let Some(other) = database.tables()?.iter().find(|table| !is_known(&table.name)) {
            return Err(Error::refused(
                "usage",
                format!("{} is no catalog: it has a table {:?}", dir.as_ref().display(), other.name),
                "name a directory of its own for the control center",
            ));
        }
        let catalog = Self {
            settings: table::<Setting>(&database)?,
            datacenters: table::<super::DatacenterRecord>(&database)?,
            nodes: table::<super::NodeRecord>(&database)?,
            admissions: table::<AdmissionRecord>(&database)?,
            removed: table::<RemovedRecord>(&database)?,
            declarations: table::<DeclarationRecord>(&database)?,
            links: table::<super::LinkRecord>(&database)?,
            databases: table::<super::DatabaseRecord>(&database)?,
            instances: table::<super::InstanceRecord>(&database)?,
            leads: table::<super::LeadRecord>(&database)?,
            jobs: table::<JobRecord>(&database)?,
            clones: table::<CloneRecord>(&database)?,
            limits: table::<LimitRecord>(&database)?,
            schedules: table::<ScheduleRecord>(&database)?,
            calendars: table::<CalendarRecord>(&database)?,
            rules: table::<RuleRecord>(&database)?,
            shapes: table::<ShapeRecord>(&database)?,
            wants: table::<WantRecord>(&database)?,
            stores: table::<StoreRecord>(&database)?,
            history: table::<Event>(&database)?,
            database,
        };
        catalog.draw_token(&*os)?;
        Ok(catalog)
    }

    /// Draws the token of a new catalog.
    fn draw_token(&self, os: &dyn Os) -> Result<()> {
        if self.settings.find(&[TOKEN.into()])?.is_none() {
            let token = u128::from(os.random_u64()) << 64 | u128::from(os.random_u64());
            self.settings.insert(&Setting::token(JoinToken(token)).values())?;
        }
        Ok(())
    }

    fn token(&self) -> Result<JoinToken> {
        let settings: Vec<Setting> = rows(&self.settings)?;
        let token = settings.into_iter().find(|setting| setting.name == TOKEN);
        let token = token.and_then(|token| token.value.parse().ok());
        let what = "the token is missing".to_owned();
        token.ok_or(Error::Unreadable { table: Setting::TABLE, what })
    }

    /// The shape of what a clone, a schedule or a rule asks for.
    fn shape_of(&self, owner: &ShapeOwner<'_>) -> Result<Shape> {
        let values = self.shapes.find(&[Value::Text(owner.to_string())])?;
        let record = values.map(|values| ShapeRecord::read(&mut Row::new(ShapeRecord::TABLE, values)));
        Ok(record.transpose()?.map(|record| record.shape).unwrap_or_default())
    }

    fn shaped(&self, clone: CloneRecord) -> Result<CloneRecord> {
        let shape = self.shape_of(&ShapeOwner::Clone(clone.number))?;
        Ok(CloneRecord { shape, ..clone })
    }

    /// Keeps a shape; one of which nothing is said has no row.
    fn put_shape(&self, batch: &mut Batch, owner: &ShapeOwner<'_>, shape: &Shape) -> Result<()> {
        let owner = owner.to_string();
        if shape.is_whole() {
            return forget_named(batch, &self.shapes, &owner);
        }
        put(batch, &self.shapes, &ShapeRecord { owner, shape: shape.clone() })
    }

    /// Deletes what a new clone of this number pushes out: the oldest of those that have ended. What waits or runs is kept however
    /// old it is.
    fn forget_clones(&self, batch: &mut Batch, number: u64) -> Result<()> {
        let oldest = number.checked_sub(JOBS_MAX).filter(|oldest| *oldest > 0);
        let Some(oldest) = oldest else { return Ok(()) };
        if self.clones.find(&[bits(number)])?.is_some() {
            return Ok(());
        }
        for values in self.clones.rows(&[])? {
            let known = CloneRecord::read(&mut Row::new(CloneRecord::TABLE, values?))?;
            if known.number > oldest {
                break;
            }
            if !known.state.is_open() {
                forget(batch, &self.clones, Some(known.number))?;
                self.put_shape(batch, &ShapeOwner::Clone(known.number), &Shape::default())?;
            }
        }
        Ok(())
    }

    /// Keeps a schedule: its shape and the times of a calendar in tables of their own.
    fn put_schedule(&self, batch: &mut Batch, schedule: &ScheduleRecord) -> Result<()> {
        put(batch, &self.schedules, schedule)?;
        self.put_shape(batch, &ShapeOwner::Schedule(&schedule.name), &schedule.wish.shape)?;
        match &schedule.when {
            When::Every(_) => forget_named(batch, &self.calendars, &schedule.name),
            When::Calendar(pattern) => {
                let (schedule, pattern) = (schedule.name.clone(), pattern.clone());
                put(batch, &self.calendars, &CalendarRecord { schedule, pattern })
            }
        }
    }

    /// The number of the last row of a table that counts its rows.
    fn last<T: Stored>(table: &Table, number: impl Fn(&T) -> u64) -> Result<u64> {
        let last = table.rows(&[])?.next_back().transpose()?;
        Ok(last
            .map(|values| T::read(&mut Row::new(T::TABLE, values)))
            .transpose()?
            .map_or(0, |one| number(&one)))
    }
}

impl Setting {
    /// The one that holds the token.
    fn token(token: JoinToken) -> Self {
        Self { name: TOKEN.to_owned(), value: token.to_string() }
    }
}

/// The table of a kind of records, which is made if there is none.
fn table<T: Stored>(database: &Database) -> Result<Table> {
    match database.table(T::TABLE) {
        Err(planaria_engine::Error::UnknownTable { .. }) => {
            Ok(database.create_table(T::TABLE, T::schema()?)?)
        }
        other => Ok(other?),
    }
}

fn rows<T: Stored>(table: &Table) -> Result<Vec<T>> {
    table.rows(&[])?.map(|values| T::read(&mut Row::new(T::TABLE, values?))).collect()
}

/// The last rows of a table that counts its rows, the last first.
fn youngest<T: Stored>(table: &Table, limit: usize) -> Result<Vec<T>> {
    let scan = table.scan(KeyRange::default()).rev().take(limit);
    scan.map(|record| {
        let (key, row) = record?;
        let values: Vec<Value> = table.decode(&key, &row)?;
        T::read(&mut Row::new(T::TABLE, values))
    })
    .collect()
}

fn put<T: Stored>(batch: &mut Batch, table: &Table, record: &T) -> Result<()> {
    let (key, row) = table.encode(&record.values())?;
    batch.put(table.id(), key, row);
    Ok(())
}

/// Deletes the row of a number, if there may be one.
fn forget(batch: &mut Batch, table: &Table, number: Option<u64>) -> Result<()> {
    if let Some(number) = number.filter(|number| *number > 0) {
        let (_, schema) = table.definition().schema()?;
        batch.delete(table.id(), planaria_engine::table::encode_key_prefix(schema, &[bits(number)])?);
    }
    Ok(())
}

/// Deletes the row of a name, if there is one.
fn forget_named(batch: &mut Batch, table: &Table, name: &str) -> Result<()> {
    forget_at(batch, table, &[name])
}

/// The same for a row that has several names.
fn forget_at(batch: &mut Batch, table: &Table, names: &[&str]) -> Result<()> {
    let (_, schema) = table.definition().schema()?;
    let key: Vec<Value> = names.iter().map(|name| Value::Text((*name).to_owned())).collect();
    batch.delete(table.id(), planaria_engine::table::encode_key_prefix(schema, &key)?);
    Ok(())
}

impl Catalog for StoreCatalog {
    fn load(&self) -> Result<Contents> {
        let mut contents = Contents { token: self.token()?, ..Contents::default() };
        let mut changes: Vec<Change> = Vec::new();
        changes.extend(rows(&self.datacenters)?.into_iter().map(Change::Datacenter));
        changes.extend(rows(&self.nodes)?.into_iter().map(Change::Node));
        changes.extend(rows(&self.admissions)?.into_iter().map(Change::Admission));
        changes.extend(rows(&self.removed)?.into_iter().map(Change::Removed));
        changes.extend(rows(&self.declarations)?.into_iter().map(Change::Declaration));
        changes.extend(rows(&self.links)?.into_iter().map(Change::Link));
        changes.extend(rows(&self.databases)?.into_iter().map(Change::Database));
        changes.extend(rows(&self.instances)?.into_iter().map(Change::Instance));
        changes.extend(rows(&self.leads)?.into_iter().map(Change::Lead));
        let jobs: Vec<JobRecord> = rows(&self.jobs)?;
        let open = jobs.into_iter().filter(|job| job.state == JobState::Open);
        changes.extend(open.map(Change::Job));
        for clone in rows::<CloneRecord>(&self.clones)? {
            if clone.state.is_open() {
                changes.push(Change::Clone(Box::new(self.shaped(clone)?)));
            }
        }
        changes.extend(rows(&self.limits)?.into_iter().map(Change::Limit));
        let mut schedules: Vec<ScheduleRecord> = rows(&self.schedules)?;
        for CalendarRecord { schedule, pattern } in rows(&self.calendars)? {
            if let Some(schedule) = schedules.iter_mut().find(|known| known.name == schedule) {
                schedule.when = When::Calendar(pattern);
            }
        }
        for mut schedule in schedules {
            schedule.wish.shape = self.shape_of(&ShapeOwner::Schedule(&schedule.name))?;
            changes.push(Change::Schedule(Box::new(schedule)));
        }
        for mut rule in rows::<RuleRecord>(&self.rules)? {
            if let RuleAction::Clone(wish) = &mut rule.action {
                wish.shape = self.shape_of(&ShapeOwner::Rule(&rule.name))?;
            }
            changes.push(Change::Rule(Box::new(rule)));
        }
        changes.extend(rows(&self.wants)?.into_iter().map(Change::Want));
        changes.extend(rows(&self.stores)?.into_iter().map(|store| Change::Store(Box::new(store))));
        for change in changes {
            contents.take(change);
        }
        let last_clone = Self::last(&self.clones, |clone: &CloneRecord| clone.number)?;
        contents.last_job = Self::last(&self.jobs, |job: &JobRecord| job.number)?.max(last_clone);
        contents.last_event = Self::last(&self.history, |event: &Event| event.number)?;
        Ok(contents)
    }

    fn apply(&self, changes: &[Change]) -> Result<()> {
        let mut batch = Batch::new();
        for change in changes {
            match change {
                Change::Datacenter(datacenter) => put(&mut batch, &self.datacenters, datacenter)?,
                Change::Node(node) => put(&mut batch, &self.nodes, node)?,
                Change::NodeRemoved(name) => forget_named(&mut batch, &self.nodes, name)?,
                Change::Token(token) => put(&mut batch, &self.settings, &Setting::token(*token))?,
                Change::Admission(admission) => put(&mut batch, &self.admissions, admission)?,
                Change::AdmissionRemoved(name) => forget_named(&mut batch, &self.admissions, name)?,
                Change::Removed(removed) => put(&mut batch, &self.removed, removed)?,
                Change::RemovedForgotten(name) => forget_named(&mut batch, &self.removed, name)?,
                Change::Declaration(declared) => put(&mut batch, &self.declarations, declared)?,
                Change::DeclarationRemoved(of, name) => {
                    forget_at(&mut batch, &self.declarations, &[of.name(), name])?;
                }
                Change::Link(link) => put(&mut batch, &self.links, link)?,
                Change::LinkRemoved(from, to) => forget_at(&mut batch, &self.links, &[from, to])?,
                Change::Database(database) => put(&mut batch, &self.databases, database)?,
                Change::Instance(instance) => put(&mut batch, &self.instances, instance)?,
                Change::InstanceRemoved(instance) => {
                    forget_named(&mut batch, &self.instances, &instance.to_string())?;
                }
                Change::Lead(lead) => put(&mut batch, &self.leads, lead)?,
                Change::Job(job) => {
                    put(&mut batch, &self.jobs, job)?;
                    forget(&mut batch, &self.jobs, job.number.checked_sub(JOBS_MAX))?;
                }
                Change::Clone(clone) => {
                    self.forget_clones(&mut batch, clone.number)?;
                    put(&mut batch, &self.clones, &**clone)?;
                    self.put_shape(&mut batch, &ShapeOwner::Clone(clone.number), &clone.shape)?;
                }
                Change::Limit(limit) => put(&mut batch, &self.limits, limit)?,
                Change::LimitRemoved(gate) => forget_named(&mut batch, &self.limits, &gate.to_string())?,
                Change::Schedule(schedule) => self.put_schedule(&mut batch, schedule)?,
                Change::ScheduleRemoved(name) => {
                    forget_named(&mut batch, &self.schedules, name)?;
                    forget_named(&mut batch, &self.calendars, name)?;
                    self.put_shape(&mut batch, &ShapeOwner::Schedule(name), &Shape::default())?;
                }
                Change::Rule(rule) => {
                    put(&mut batch, &self.rules, &**rule)?;
                    let none = Shape::default();
                    let shape = match &rule.action {
                        RuleAction::Clone(wish) => &wish.shape,
                        RuleAction::Reseed => &none,
                    };
                    self.put_shape(&mut batch, &ShapeOwner::Rule(&rule.name), shape)?;
                }
                Change::RuleRemoved(name) => {
                    forget_named(&mut batch, &self.rules, name)?;
                    self.put_shape(&mut batch, &ShapeOwner::Rule(name), &Shape::default())?;
                }
                Change::Store(store) => put(&mut batch, &self.stores, &**store)?,
                Change::StoreRemoved(database, place) => {
                    forget_at(&mut batch, &self.stores, &[&database.to_string(), place])?;
                }
                Change::Want(want) => put(&mut batch, &self.wants, want)?,
                Change::Event(event) => {
                    put(&mut batch, &self.history, event)?;
                    forget(&mut batch, &self.history, event.number.checked_sub(EVENTS_MAX))?;
                }
            }
        }
        if !batch.is_empty() {
            self.database.write(batch, Durability::Synced)?;
        }
        Ok(())
    }

    fn events(&self, limit: usize) -> Result<Vec<Event>> {
        youngest(&self.history, limit)
    }

    fn clones(&self, limit: usize) -> Result<Vec<CloneRecord>> {
        youngest(&self.clones, limit)
    }

    fn clone_of(&self, number: u64) -> Result<Option<CloneRecord>> {
        let values = self.clones.find(&[bits(number)])?;
        let clone = values.map(|values| CloneRecord::read(&mut Row::new(CloneRecord::TABLE, values)));
        clone.transpose()?.map(|clone| self.shaped(clone)).transpose()
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
