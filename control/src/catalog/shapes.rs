//! What sources make of their rows for clones, as the catalog keeps it.

use std::fmt;

use planaria_engine::{ColumnType, Value};
use planaria_net::wire::message::{AsOf, Shape};
use planaria_types::Uid;

use super::row::{Row, bits, text};
use super::tables::Stored;
use crate::Result;

/// What has a shape.
pub(super) enum ShapeOwner<'a> {
    Clone(u64),
    Schedule(&'a str),
    Rule(&'a str),
}

impl fmt::Display for ShapeOwner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clone(number) => write!(f, "clone {number}"),
            Self::Schedule(name) => write!(f, "schedule {name}"),
            Self::Rule(name) => write!(f, "rule {name}"),
        }
    }
}

/// The shape of one clone, or of those that a schedule or a rule asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ShapeRecord {
    pub(super) owner: String,
    pub(super) shape: Shape,
}

const TEXT: ColumnType = ColumnType::Text;

impl Stored for ShapeRecord {
    const TABLE: &'static str = "shapes";
    const COLUMNS: &'static [(&'static str, ColumnType)] = &[
        ("owner", TEXT),
        ("cut", TEXT),
        ("cut_at", ColumnType::Int64),
        ("leave_out", TEXT),
        ("filters", TEXT),
        ("masks", TEXT),
    ];

    fn values(&self) -> Vec<Value> {
        let Shape { as_of, leave_out, filters, masks } = &self.shape;
        let (cut, at) = match as_of {
            AsOf::Newest => ("newest", 0),
            AsOf::Time(millis) => ("time", *millis),
            AsOf::Position(uid) => ("position", uid.get()),
        };
        // No part has a control character: a tab stands between the parts of one, a line break after it.
        let filters = filters.iter().map(|(table, condition)| format!("{table}\t{condition}"));
        let masks = masks.iter().map(|(table, column, mask)| format!("{table}\t{column}\t{mask}"));
        vec![
            text(&self.owner),
            text(cut),
            bits(at),
            text(leave_out.join("\n")),
            text(filters.collect::<Vec<_>>().join("\n")),
            text(masks.collect::<Vec<_>>().join("\n")),
        ]
    }

    fn read(row: &mut Row) -> Result<Self> {
        let owner = row.text()?;
        let (cut, at) = (row.named(&["newest", "time", "position"], |cut| cut)?, row.bits()?);
        let as_of = match cut {
            "time" => AsOf::Time(at),
            "position" => AsOf::Position(Uid::new(at)),
            _ => AsOf::Newest,
        };
        let (leave_out, filters, masks) = (row.text()?, row.text()?, row.text()?);
        let wrong = || row.error("a filter or a mask lacks a part");
        let filter = |line: &str| {
            let (table, condition) = line.split_once('\t')?;
            Some((table.to_owned(), condition.to_owned()))
        };
        let mask = |line: &str| {
            let (table, rest) = line.split_once('\t')?;
            let (column, mask) = rest.split_once('\t')?;
            Some((table.to_owned(), column.to_owned(), mask.to_owned()))
        };
        let shape = Shape {
            as_of,
            leave_out: leave_out.lines().map(str::to_owned).collect(),
            filters: filters.lines().map(filter).collect::<Option<_>>().ok_or_else(wrong)?,
            masks: masks.lines().map(mask).collect::<Option<_>>().ok_or_else(wrong)?,
        };
        Ok(Self { owner, shape })
    }
}
