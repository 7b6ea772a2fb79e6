use std::time::Duration;

use planaria_engine::Value;
use serde_json::Value as Json;

use super::human;

/// Something that a table, JSON and CSV show, each in its way.
pub(crate) trait Render {
    /// For people. May hold control characters: whoever writes to a terminal escapes them.
    fn human(&self) -> String;
    /// For programs that read text; `None` for no value.
    fn plain(&self) -> Option<String>;
    /// For programs that read JSON.
    fn json(&self) -> Json;
}

/// How null reads in a table.
const NULL_SHOWN: &str = "null";

impl Render for Value {
    fn human(&self) -> String {
        if self.is_null() { NULL_SHOWN.to_owned() } else { self.to_string() }
    }

    fn plain(&self) -> Option<String> {
        (!self.is_null()).then(|| self.to_string())
    }

    /// Numbers and booleans as such; a number that JSON does not know (NaN, infinite), bytes, timestamps and dates as
    /// the text that an import reads back.
    fn json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => Json::from(*value),
            Self::Float(value) => serde_json::Number::from_f64(*value)
                .map_or_else(|| Json::String(self.to_string()), Json::Number),
            Self::Text(text) => Json::String(text.clone()),
            _ => Json::String(self.to_string()),
        }
    }
}

/// One thing of a report or a listing: people read it with a unit, programs as a plain number.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Cell {
    /// Nothing to say.
    None,
    /// Text.
    Text(String),
    /// Yes or no.
    Bool(bool),
    /// A number of things.
    Count(u64),
    /// A number of bytes.
    Bytes(u64),
    /// A duration; in JSON and CSV in seconds.
    Duration(Duration),
    /// How many times one thing is another.
    Ratio(f64),
    /// Several texts.
    List(Vec<String>),
}

impl Render for Cell {
    fn human(&self) -> String {
        match self {
            Self::None => "-".to_owned(),
            Self::Bool(yes) => (if *yes { "yes" } else { "no" }).to_owned(),
            Self::Count(count) => human::count(*count),
            Self::Bytes(count) => human::bytes(*count),
            Self::Duration(duration) => human::duration(*duration),
            Self::Ratio(ratio) => format!("{ratio:.2}"),
            Self::List(texts) if texts.is_empty() => "-".to_owned(),
            Self::List(texts) => texts.join(", "),
            Self::Text(text) => text.clone(),
        }
    }

    fn plain(&self) -> Option<String> {
        Some(match self {
            Self::None => return None,
            Self::Text(text) => text.clone(),
            Self::Bool(yes) => yes.to_string(),
            Self::Count(count) | Self::Bytes(count) => count.to_string(),
            Self::Duration(duration) => duration.as_secs_f64().to_string(),
            Self::Ratio(ratio) => ratio.to_string(),
            Self::List(texts) => texts.join(" "),
        })
    }

    fn json(&self) -> Json {
        match self {
            Self::None => Json::Null,
            Self::Bool(yes) => Json::Bool(*yes),
            Self::Count(count) | Self::Bytes(count) => Json::from(*count),
            Self::Duration(duration) => Json::from(duration.as_secs_f64()),
            Self::Ratio(ratio) => Json::from(*ratio),
            Self::List(texts) => Json::from(texts.clone()),
            Self::Text(text) => Json::String(text.clone()),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

#[cfg(test)]
mod tests {
    use super::{Cell, Json, Render, Value};

    #[test]
    fn values_become_json_without_loss() {
        for (value, json) in [
            (Value::Null, "null"),
            (Value::Bool(true), "true"),
            (Value::Int(i64::MIN), "-9223372036854775808"),
            (Value::Float(10.357_019_999_999_999), "10.357019999999999"),
            (Value::Float(f64::NAN), "\"NaN\""),
            (Value::Float(f64::NEG_INFINITY), "\"-inf\""),
            (Value::Text("a\"b".into()), "\"a\\\"b\""),
            (Value::Bytes(vec![255]), "\"0xff\""),
            (Value::Timestamp(1_357_034_400_000_000), "\"2013-01-01T10:00:00Z\""),
            (Value::Date(0), "\"1970-01-01\""),
        ] {
            assert_eq!(value.json().to_string(), json);
        }
    }

    #[test]
    fn cells_have_units_for_people_and_none_for_programs() {
        let size = Cell::Bytes(1_536);
        assert_eq!(
            (size.human(), size.plain(), size.json()),
            ("1.50 KiB".into(), Some("1536".into()), 1_536.into())
        );
        let none = Cell::None;
        assert_eq!((none.human(), none.plain(), none.json()), ("-".into(), None, Json::Null));
        let list = Cell::List(vec!["a".into(), "b".into()]);
        assert_eq!((list.human(), list.json().to_string()), ("a, b".into(), "[\"a\",\"b\"]".into()));
    }
}
