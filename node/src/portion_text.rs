//! What a partial copy is to hold, on the command line: `TABLE`, or `TABLE=FROM..TO` with keys as elsewhere, the values of a
//! key of several columns separated by commas.

use std::str::FromStr;

use planaria_engine::TableDef;
use planaria_types::{KeyRange, Portion};

use crate::key_text::parse_key_prefix;
use crate::output::CliError;

/// A table that is chosen, and from which key on and below which.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Chosen {
    table: String,
    from: String,
    to: String,
}

impl FromStr for Chosen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (table, range) = text.split_once('=').unwrap_or((text, ".."));
        let (from, to) = range.split_once("..").ok_or_else(|| {
            format!("{range:?} is no range: write it FROM..TO, either of which may be missing")
        })?;
        if table.is_empty() {
            return Err("a table is named before the range: TABLE=FROM..TO".into());
        }
        Ok(Self { table: table.to_owned(), from: from.to_owned(), to: to.to_owned() })
    }
}

impl Chosen {
    /// Whether a part of the table is chosen alone: then its columns must be known.
    pub(crate) fn is_range(&self) -> bool {
        !self.from.is_empty() || !self.to.is_empty()
    }

    /// Whether it is this table that is chosen.
    pub(crate) fn is_of(&self, table: &TableDef) -> bool {
        self.table == table.name
    }

    fn keys(&self, tables: &[TableDef]) -> Result<KeyRange, CliError> {
        if !self.is_range() {
            return Ok(KeyRange::ALL);
        }
        let definition = tables.iter().find(|table| self.is_of(table)).ok_or_else(|| {
            let what = format!("there is no table {:?} yet, so that keys of it cannot be read", self.table);
            CliError::new("unknown_table", what).hint("make it at the primary first, or choose all of it")
        })?;
        let bytes = |text: &str| {
            let values: Vec<String> = if definition.is_typed() && definition.schema()?.1.key().len() > 1 {
                text.split(',').map(str::to_owned).collect()
            } else {
                vec![text.to_owned()]
            };
            parse_key_prefix(definition, &values)
        };
        let start = if self.from.is_empty() { Vec::new() } else { bytes(&self.from)? };
        let end = if self.to.is_empty() { None } else { Some(bytes(&self.to)?) };
        Ok(KeyRange::new(start, end))
    }
}

/// The portion that is chosen, in a database with these tables.
///
/// Fails with the code `usage` if a key cannot be read, or the choice as a whole is none.
pub(crate) fn portion_of(chosen: &[Chosen], tables: &[TableDef]) -> Result<Portion, CliError> {
    let table = |chosen: &Chosen| Ok((chosen.table.clone(), chosen.keys(tables)?));
    let tables: Vec<_> = chosen.iter().map(table).collect::<Result<_, CliError>>()?;
    Portion::new(tables).map_err(|error| CliError::usage(error.to_string()))
}

#[cfg(test)]
mod tests {
    use planaria_engine::{Column, ColumnType, Schema, TableDef};
    use planaria_types::{KeyRange, TableId};

    use super::{Chosen, portion_of};
    use crate::key_text::parse_key_prefix;

    fn tables() -> Vec<TableDef> {
        let schema = Schema::builder()
            .column(Column::new("origin", ColumnType::Text))
            .column(Column::new("flight", ColumnType::Int64))
            .key(["origin", "flight"])
            .build()
            .unwrap();
        let flights = TableDef::typed(TableId(1), "flights", schema).unwrap();
        vec![flights, TableDef::raw(TableId(2), "airports").unwrap()]
    }

    fn chosen(texts: &[&str]) -> Vec<Chosen> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn tables_and_ranges_of_them_are_chosen_by_the_text_of_their_keys() {
        let text = chosen(&["flights=EWR,-7..LGA", "airports=B..", "later"]);
        let portion = portion_of(&text, &tables()).unwrap();
        let found: Vec<_> = portion.tables().collect();
        let key = |values: &[&str]| {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            parse_key_prefix(&tables()[0], &values).unwrap()
        };
        let flights = KeyRange::new(key(&["EWR", "-7"]), Some(key(&["LGA"])));
        let airports = KeyRange::new(*b"B", None);
        assert_eq!(found, [("airports", &airports), ("flights", &flights), ("later", &KeyRange::ALL)]);
        let below = portion_of(&chosen(&["airports=..B"]), &tables()).unwrap();
        assert_eq!(below.tables().next().unwrap().1, &KeyRange::new([], Some(b"B".to_vec())));
    }

    #[test]
    fn what_cannot_be_chosen_says_why() {
        assert!("airports=B".parse::<Chosen>().unwrap_err().contains("FROM..TO"));
        assert!("=A..B".parse::<Chosen>().is_err());
        let failed = |texts: &[&str]| portion_of(&chosen(texts), &tables()).unwrap_err();
        assert_eq!(failed(&["later=A..B"]).code, "unknown_table");
        assert_eq!(failed(&["flights=EWR,noon.."]).code, "usage");
        assert_eq!(failed(&["airports=C..B"]).code, "usage");
        assert_eq!(failed(&["airports", "airports=A..B"]).code, "usage");
    }
}
