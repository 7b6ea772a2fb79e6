//! What an operator has declared of nodes and datacenters, as the catalog keeps it.

use planaria_engine::{ColumnType, Value};
use planaria_replication::control::Labels;

use super::row::{Row, bits, text};
use super::tables::Stored;
use crate::Result;

/// What something is declared of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Declared {
    /// A datacenter: its label is that of its nodes.
    Datacenter,
    /// A node.
    Node,
}

impl Declared {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Datacenter, Self::Node];

    /// Its name in the catalog.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Datacenter => "datacenter",
            Self::Node => "node",
        }
    }
}

/// What an operator has declared of a node or a datacenter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeclarationRecord {
    /// Of what.
    pub of: Declared,
    /// Its name.
    pub name: String,
    /// Labels that hold, whatever the nodes say.
    pub labels: Labels,
    /// How much of a node's disk may be full for a clone to be brought there, in bytes.
    pub capacity_bytes: Option<u64>,
}

impl Stored for DeclarationRecord {
    const TABLE: &'static str = "declarations";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[
        ("declared", ColumnType::Text),
        ("name", ColumnType::Text),
        ("labels", ColumnType::Text),
        ("capacity_bytes", ColumnType::Int64),
    ];
    const KEY: usize = 2;
    const NULLABLE: &'static [&'static str] = &["capacity_bytes"];

    fn values(&self) -> Vec<Value> {
        vec![
            text(self.of.name()),
            text(&self.name),
            text(&self.labels),
            self.capacity_bytes.map_or(Value::Null, bits),
        ]
    }

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self {
            of: row.named(&Declared::ALL, Declared::name)?,
            name: row.text()?,
            labels: row.labels()?,
            capacity_bytes: row.optional_bits()?,
        })
    }
}
