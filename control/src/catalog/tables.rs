//! How records stand in the tables of the catalog's database, where any planaria command shows them.

use planaria_engine::table::SchemaBuilder;
use planaria_engine::{Column, ColumnType, Schema, Value};
use planaria_net::wire::control::Mode;
use planaria_replication::control::{CopyState, InstanceRole};
use planaria_types::{Epoch, Uid};

use super::record::{
    DatabaseRecord, DatacenterRecord, Event, EventKind, InstanceRecord, JobKind, JobRecord, JobState,
    LeadRecord, LinkRecord, NodeRecord,
};
use super::row::{Row, address, bits, text, time};
use crate::{Error, Result};

/// A record that is a row of a table.
pub(super) trait Stored: Sized {
    /// The table.
    const TABLE: &'static str;
    /// Its columns: name and type. The first ones are the key.
    const COLUMNS: &'static [(&'static str, ColumnType)];
    /// How many of them are the key.
    const KEY: usize = 1;
    /// Those that a row may have no value in.
    const NULLABLE: &'static [&'static str] = &[];

    /// The values of the columns.
    fn values(&self) -> Vec<Value>;

    /// The record of a row.
    fn read(row: &mut Row) -> Result<Self>;

    /// The columns for the engine.
    fn schema() -> Result<Schema> {
        let column = |(name, ty): &(&str, ColumnType)| {
            let column = Column::new(*name, *ty);
            if Self::NULLABLE.contains(name) { column.nullable() } else { column }
        };
        let builder = Self::COLUMNS.iter().map(column).fold(Schema::builder(), SchemaBuilder::column);
        let key = Self::COLUMNS.iter().take(Self::KEY).map(|(name, _)| *name);
        builder.key(key).build().map_err(Error::from)
    }
}

const TEXT: ColumnType = ColumnType::Text;
const NUMBER: ColumnType = ColumnType::Int64;
const TIME: ColumnType = ColumnType::Timestamp;

/// What holds for the whole catalog, by name.
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) value: String,
}

impl Stored for Setting {
    const TABLE: &'static str = "settings";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[("name", TEXT), ("value", TEXT)];

    fn values(&self) -> Vec<Value> {
        vec![text(&self.name), text(&self.value)]
    }

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self { name: row.text()?, value: row.text()? })
    }
}

impl Stored for DatacenterRecord {
    const TABLE: &'static str = "datacenters";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[("region", TEXT), ("datacenter", TEXT)];
    const KEY: usize = 2;

    fn values(&self) -> Vec<Value> {
        vec![text(&self.region), text(&self.datacenter)]
    }

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self { region: row.text()?, datacenter: row.text()? })
    }
}

impl Stored for NodeRecord {
    const TABLE: &'static str = "nodes";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[
        ("name", TEXT),
        ("address", TEXT),
        ("labels", TEXT),
        ("software", TEXT),
        ("capacity_bytes", NUMBER),
        ("free_bytes", NUMBER),
        ("joined", TIME),
        ("heard", TIME),
    ];

    fn values(&self) -> Vec<Value> {
        vec![
            text(&self.name),
            address(self.address),
            text(&self.labels),
            text(&self.software),
            bits(self.capacity_bytes),
            bits(self.free_bytes),
            time(self.joined_ms),
            time(self.heard_ms),
        ]
    }

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            name: row.text()?,
            address: row.parsed()?,
            labels: row.labels()?,
            software: row.text()?,
            capacity_bytes: row.bits()?,
            free_bytes: row.bits()?,
            joined_ms: row.millis()?,
            heard_ms: row.millis()?,
        })
    }
}

impl Stored for LinkRecord {
    const TABLE: &'static str = "links";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[
        ("from_node", TEXT),
        ("to_node", TEXT),
        ("round_trip_us", NUMBER),
        ("what", TEXT),
        ("measured", TIME),
    ];
    const KEY: usize = 2;
    const NULLABLE: &'static [&'static str] = &["round_trip_us"];

    fn values(&self) -> Vec<Value> {
        vec![
            text(&self.from),
            text(&self.to),
            self.round_trip_us.map_or(Value::Null, bits),
            text(&self.what),
            time(self.measured_ms),
        ]
    }

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            from: row.text()?,
            to: row.text()?,
            round_trip_us: row.optional_bits()?,
            what: row.text()?,
            measured_ms: row.millis()?,
        })
    }
}

impl Stored for DatabaseRecord {
    const TABLE: &'static str = "databases";
    const COLUMNS: &'static [(&'static str, ColumnType)] =
        &[("database", TEXT), ("name", TEXT), ("mode", TEXT), ("level", TEXT)];

    fn values(&self) -> Vec<Value> {
        vec![text(self.database), text(&self.name), text(self.mode.name()), text(&self.level)]
    }

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            database: row.parsed()?,
            name: row.text()?,
            mode: row.named(&[Mode::Operator, Mode::Automatic], Mode::name)?,
            level: row.text()?,
        })
    }
}

impl Stored for InstanceRecord {
    const TABLE: &'static str = "instances";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[
        ("instance", TEXT),
        ("database", TEXT),
        ("node", TEXT),
        ("role", TEXT),
        ("state", TEXT),
        ("durable", NUMBER),
        ("update_time", NUMBER),
        ("bytes", NUMBER),
        ("heard", TIME),
    ];

    fn values(&self) -> Vec<Value> {
        vec![
            text(self.instance),
            text(self.database),
            text(&self.node),
            text(self.role),
            text(self.state),
            bits(self.durable.get()),
            bits(self.update.get()),
            bits(self.bytes),
            time(self.heard_ms),
        ]
    }

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            instance: row.parsed()?,
            database: row.parsed()?,
            node: row.text()?,
            role: row.named(&InstanceRole::ALL, InstanceRole::name)?,
            state: row.named(&CopyState::ALL, CopyState::name)?,
            durable: Uid::new(row.bits()?),
            update: Uid::new(row.bits()?),
            bytes: row.bits()?,
            heard_ms: row.millis()?,
        })
    }
}

impl Stored for LeadRecord {
    const TABLE: &'static str = "leads";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[
        ("database", TEXT),
        ("instance", TEXT),
        ("node", TEXT),
        ("address", TEXT),
        ("term", NUMBER),
        ("incarnation", NUMBER),
        ("nonce", NUMBER),
        ("since", TIME),
    ];

    fn values(&self) -> Vec<Value> {
        let Epoch { term, incarnation, nonce } = self.epoch;
        let mut values =
            vec![text(self.database), text(self.instance), text(&self.node), address(self.address)];
        values.extend([term, incarnation, nonce].map(bits));
        values.push(time(self.since_ms));
        values
    }

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            database: row.parsed()?,
            instance: row.parsed()?,
            node: row.text()?,
            address: row.parsed()?,
            epoch: Epoch { term: row.bits()?, incarnation: row.bits()?, nonce: row.bits()? },
            since_ms: row.millis()?,
        })
    }
}

impl Stored for JobRecord {
    const TABLE: &'static str = "jobs";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[
        ("number", NUMBER),
        ("kind", TEXT),
        ("database", TEXT),
        ("instance", TEXT),
        ("node", TEXT),
        ("state", TEXT),
        ("reason", TEXT),
        ("began", TIME),
        ("ended", TIME),
    ];
    const NULLABLE: &'static [&'static str] = &["ended"];

    fn values(&self) -> Vec<Value> {
        vec![
            bits(self.number),
            text(self.kind.name()),
            text(self.database),
            text(self.instance),
            text(&self.node),
            text(self.state.name()),
            text(&self.reason),
            time(self.began_ms),
            self.ended_ms.map_or(Value::Null, time),
        ]
    }

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            number: row.bits()?,
            kind: row.named(&[JobKind::Promote, JobKind::Follow, JobKind::Reseed], JobKind::name)?,
            database: row.parsed()?,
            instance: row.parsed()?,
            node: row.text()?,
            state: row.named(&[JobState::Open, JobState::Done, JobState::Failed], JobState::name)?,
            reason: row.text()?,
            began_ms: row.millis()?,
            ended_ms: row.optional_millis()?,
        })
    }
}

impl Stored for Event {
    const TABLE: &'static str = "history";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[
        ("number", NUMBER),
        ("at", TIME),
        ("kind", TEXT),
        ("database", TEXT),
        ("node", TEXT),
        ("what", TEXT),
        ("reasons", TEXT),
    ];

    fn values(&self) -> Vec<Value> {
        vec![
            bits(self.number),
            time(self.at_ms),
            text(self.kind.name()),
            text(self.database.map(|id| id.to_string()).unwrap_or_default()),
            text(&self.node),
            text(&self.what),
            text(self.reasons.join("\n")),
        ]
    }

    fn read(row: &mut Row) -> Result<Self> {
        let (number, at_ms) = (row.bits()?, row.millis()?);
        let kind = row.named(&EventKind::ALL, EventKind::name)?;
        let database = row.text()?;
        let database = (!database.is_empty()).then(|| database.parse()).transpose();
        let database = database.map_err(|_| row.error("a database has no id"))?;
        let (node, what, reasons) = (row.text()?, row.text()?, row.text()?);
        let reasons = reasons.lines().map(str::to_owned).collect();
        Ok(Self { number, at_ms, kind, database, node, what, reasons })
    }
}
