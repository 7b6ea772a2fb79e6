use std::path::Path;

use planaria_engine::os::Os;
use planaria_engine::{Batch, Database, Durability, Options, Table, Value};
use planaria_net::wire::control::JoinToken;
use planaria_types::KeyRange;

use super::clones::{CloneRecord, LimitRecord, ScheduleRecord, WantRecord};
use super::record::{Change, Event, JobRecord, JobState};
use super::row::{Row, bits};
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
    databases: Table,
    instances: Table,
    leads: Table,
    jobs: Table,
    clones: Table,
    limits: Table,
    schedules: Table,
    wants: Table,
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
                "databases",
                "instances",
                "leads",
                "jobs",
                "clones",
                "limits",
                "schedules",
                "wants",
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
            databases: table::<super::DatabaseRecord>(&database)?,
            instances: table::<super::InstanceRecord>(&database)?,
            leads: table::<super::LeadRecord>(&database)?,
            jobs: table::<JobRecord>(&database)?,
            clones: table::<CloneRecord>(&database)?,
            limits: table::<LimitRecord>(&database)?,
            schedules: table::<ScheduleRecord>(&database)?,
            wants: table::<WantRecord>(&database)?,
            history: table::<Event>(&database)?,
            database,
        };
        catalog.draw_token(&*os)?;
        Ok(catalog)
    }

    /// Draws the token of a new catalog, once.
    fn draw_token(&self, os: &dyn Os) -> Result<()> {
        if self.settings.find(&[TOKEN.into()])?.is_none() {
            let token = u128::from(os.random_u64()) << 64 | u128::from(os.random_u64());
            let setting = Setting { name: TOKEN.to_owned(), value: JoinToken(token).to_string() };
            self.settings.insert(&setting.values())?;
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

    /// The number of the last row of a table that counts its rows.
    fn last<T: Stored>(table: &Table, number: impl Fn(&T) -> u64) -> Result<u64> {
        let last = table.rows(&[])?.next_back().transpose()?;
        Ok(last
            .map(|values| T::read(&mut Row::new(T::TABLE, values)))
            .transpose()?
            .map_or(0, |one| number(&one)))
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

impl Catalog for StoreCatalog {
    fn load(&self) -> Result<Contents> {
        let mut contents = Contents { token: self.token()?, ..Contents::default() };
        let mut changes: Vec<Change> = Vec::new();
        changes.extend(rows(&self.datacenters)?.into_iter().map(Change::Datacenter));
        changes.extend(rows(&self.nodes)?.into_iter().map(Change::Node));
        changes.extend(rows(&self.databases)?.into_iter().map(Change::Database));
        changes.extend(rows(&self.instances)?.into_iter().map(Change::Instance));
        changes.extend(rows(&self.leads)?.into_iter().map(Change::Lead));
        let jobs: Vec<JobRecord> = rows(&self.jobs)?;
        let open = jobs.into_iter().filter(|job| job.state == JobState::Open);
        changes.extend(open.map(Change::Job));
        let clones: Vec<CloneRecord> = rows(&self.clones)?;
        let open = clones.into_iter().filter(|clone| clone.state.is_open());
        changes.extend(open.map(|clone| Change::Clone(Box::new(clone))));
        changes.extend(rows(&self.limits)?.into_iter().map(Change::Limit));
        let schedules: Vec<ScheduleRecord> = rows(&self.schedules)?;
        changes.extend(schedules.into_iter().map(|schedule| Change::Schedule(Box::new(schedule))));
        changes.extend(rows(&self.wants)?.into_iter().map(Change::Want));
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
                Change::Database(database) => put(&mut batch, &self.databases, database)?,
                Change::Instance(instance) => put(&mut batch, &self.instances, instance)?,
                Change::Lead(lead) => put(&mut batch, &self.leads, lead)?,
                Change::Job(job) => {
                    put(&mut batch, &self.jobs, job)?;
                    forget(&mut batch, &self.jobs, job.number.checked_sub(JOBS_MAX))?;
                }
                Change::Clone(clone) => {
                    put(&mut batch, &self.clones, &**clone)?;
                    forget(&mut batch, &self.clones, clone.number.checked_sub(JOBS_MAX))?;
                }
                Change::Limit(limit) => put(&mut batch, &self.limits, limit)?,
                Change::Schedule(schedule) => put(&mut batch, &self.schedules, &**schedule)?,
                Change::ScheduleRemoved(name) => {
                    let (_, schema) = self.schedules.definition().schema()?;
                    let key = [Value::Text(name.clone())];
                    let key = planaria_engine::table::encode_key_prefix(schema, &key)?;
                    batch.delete(self.schedules.id(), key);
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
        values.map(|values| CloneRecord::read(&mut Row::new(CloneRecord::TABLE, values))).transpose()
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
