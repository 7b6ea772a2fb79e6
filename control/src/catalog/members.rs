//! Who is let in with what, and nodes that have left, as the catalog keeps them.

use planaria_engine::{ColumnType, Value};
use planaria_net::wire::control::JoinToken;

use super::row::{Row, text, time};
use super::tables::Stored;
use crate::Result;

/// A node that an operator had leave the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemovedRecord {
    /// Its name.
    pub node: String,
    /// When it left, in milliseconds since 1970.
    pub removed_ms: u64,
    /// Why, in the operator's words; may be empty.
    pub reason: String,
}

/// A node that joined with a token which is not that of the cluster any more, and is let in with it again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AdmissionRecord {
    /// Its name.
    pub node: String,
    /// The token.
    pub token: JoinToken,
}

impl Stored for AdmissionRecord {
    const TABLE: &'static str = "admissions";
    const COLUMNS: &'static [(&'static str, ColumnType)] =
        &[("node", ColumnType::Text), ("token", ColumnType::Text)];

    fn values(&self) -> Vec<Value> {
        vec![text(&self.node), text(self.token)]
    }

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self { node: row.text()?, token: row.parsed()? })
    }
}

impl Stored for RemovedRecord {
    const TABLE: &'static str = "removed";
    const COLUMNS: &'static [(&'static str, ColumnType)] =
        &[("node", ColumnType::Text), ("removed", ColumnType::Timestamp), ("reason", ColumnType::Text)];

    fn values(&self) -> Vec<Value> {
        vec![text(&self.node), time(self.removed_ms), text(&self.reason)]
    }

    fn read(row: &mut Row) -> Result<Self> {
        Ok(Self { node: row.text()?, removed_ms: row.millis()?, reason: row.text()? })
    }
}
