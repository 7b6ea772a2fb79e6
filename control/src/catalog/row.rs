use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;

use planaria_engine::Value;
use planaria_replication::control::Labels;

use crate::{Error, Result};

/// The values of one row, taken one after the other.
pub(super) struct Row {
    table: &'static str,
    values: std::vec::IntoIter<Value>,
}

impl Row {
    pub(super) fn new(table: &'static str, values: Vec<Value>) -> Self {
        Self { table, values: values.into_iter() }
    }

    pub(super) fn error(&self, what: impl Display) -> Error {
        Error::Unreadable { table: self.table, what: what.to_string() }
    }

    fn next(&mut self) -> Result<Value> {
        self.values.next().ok_or_else(|| self.error("a row has too few columns"))
    }

    pub(super) fn text(&mut self) -> Result<String> {
        match self.next()? {
            Value::Text(text) => Ok(text),
            other => Err(self.error(format!("{other} is no text"))),
        }
    }

    /// A text that says something else.
    pub(super) fn parsed<T: FromStr>(&mut self) -> Result<T> {
        let text = self.text()?;
        text.parse().map_err(|_| self.error(format!("{text:?} cannot be understood")))
    }

    /// A text that is a name of one of `all`.
    pub(super) fn named<T: Copy>(&mut self, all: &[T], name: impl Fn(T) -> &'static str) -> Result<T> {
        let text = self.text()?;
        let found = all.iter().copied().find(|one| name(*one) == text);
        found.ok_or_else(|| self.error(format!("{text:?} is no name that is known")))
    }

    /// The 64 bits of a number.
    pub(super) fn bits(&mut self) -> Result<u64> {
        self.optional_bits()?.ok_or_else(|| self.error("a number is missing"))
    }

    pub(super) fn optional_bits(&mut self) -> Result<Option<u64>> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::Int(number) => Ok(Some(number as u64)),
            other => Err(self.error(format!("{other} is no number"))),
        }
    }

    /// A number that counts few things.
    pub(super) fn count(&mut self) -> Result<u32> {
        let bits = self.bits()?;
        u32::try_from(bits).map_err(|_| self.error(format!("{bits} is too great a number")))
    }

    /// A text of which each line says something else.
    pub(super) fn parsed_lines<T: FromStr>(&mut self) -> Result<Vec<T>> {
        let text = self.text()?;
        let parsed: Result<Vec<T>, _> = text.lines().map(str::parse).collect();
        parsed.map_err(|_| self.error(format!("{text:?} cannot be understood")))
    }

    /// Labels, as they are shown.
    pub(super) fn labels(&mut self) -> Result<Labels> {
        let labels = self.text()?;
        let pairs = labels.split(',').filter(|pair| !pair.is_empty());
        let labels: Option<Vec<_>> = pairs.map(|pair| pair.split_once('=')).collect();
        Ok(Labels::of(labels.ok_or_else(|| self.error("labels are written NAME=VALUE"))?))
    }

    /// A point in time, in milliseconds since 1970.
    pub(super) fn millis(&mut self) -> Result<u64> {
        self.optional_millis()?.ok_or_else(|| self.error("a time is missing"))
    }

    pub(super) fn optional_millis(&mut self) -> Result<Option<u64>> {
        match self.next()? {
            Value::Null => Ok(None),
            Value::Timestamp(micros) => Ok(Some(u64::try_from(micros / 1_000).unwrap_or(0))),
            other => Err(self.error(format!("{other} is no time"))),
        }
    }
}

/// 64 bits as a number of a column; greater ones than such a number holds wrap around, and back when they are read.
pub(super) fn bits(bits: u64) -> Value {
    Value::Int(bits as i64)
}

pub(super) fn text(text: impl Display) -> Value {
    Value::Text(text.to_string())
}

pub(super) fn time(millis: u64) -> Value {
    Value::Timestamp(i64::try_from(millis.saturating_mul(1_000)).unwrap_or(i64::MAX))
}

pub(super) fn address(address: SocketAddr) -> Value {
    text(address)
}
