use planaria_types::TableId;
use serde::{Deserialize, Serialize};

use super::schema::{Column, Schema, check_name};
use super::value_text::shorten;
use crate::error::{Error, Result};

/// The name of a table has at most so many bytes.
pub const TABLE_NAME_BYTES_MAX: usize = 128;
/// A table may have so many schemas over its life.
pub const SCHEMA_VERSIONS_MAX: usize = 256;

/// The version of the encoding, its first byte.
const FORMAT_VERSION: u8 = 1;
/// An encoded definition has at most so many bytes.
const ENCODED_BYTES_MAX: usize = 16 << 20;
/// The id of a table's first schema; every later one is greater by one.
const FIRST_SCHEMA_ID: u32 = 1;

/// What the system fragment says of a table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TableDef {
    /// Never used twice within a database.
    pub id: TableId,
    /// Unique in a database, of 1 to [`TABLE_NAME_BYTES_MAX`] bytes without control characters.
    pub name: String,
    /// What its records are.
    pub kind: TableKind,
    /// The table that this one is a secondary index of.
    pub index_of: Option<TableId>,
}

/// What the records of a table are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum TableKind {
    /// Bytes to bytes.
    Raw,
    /// Rows of typed columns.
    Typed {
        /// Every schema that rows may have been written under, with its id, rising; the last is the newest.
        schemas: Vec<(u32, Schema)>,
    },
}

impl TableDef {
    /// A table of bytes to bytes.
    ///
    /// Fails with [`Error::Schema`] if the name is bad.
    pub fn raw(id: TableId, name: impl Into<String>) -> Result<Self> {
        Self { id, name: name.into(), kind: TableKind::Raw, index_of: None }.checked()
    }

    /// A table of typed columns.
    ///
    /// Fails with [`Error::Schema`] if the name is bad.
    pub fn typed(id: TableId, name: impl Into<String>, schema: Schema) -> Result<Self> {
        let kind = TableKind::Typed { schemas: vec![(FIRST_SCHEMA_ID, schema)] };
        Self { id, name: name.into(), kind, index_of: None }.checked()
    }

    /// Whether rows have typed columns.
    pub fn is_typed(&self) -> bool {
        matches!(self.kind, TableKind::Typed { .. })
    }

    /// The newest schema, under which rows are written, and its id.
    ///
    /// Fails with [`Error::Schema`] if the table is not typed.
    pub fn schema(&self) -> Result<(u32, &Schema)> {
        match self.schemas().last() {
            Some((id, schema)) => Ok((*id, schema)),
            None => Err(Error::Schema(format!(
                "table {:?} has no columns: its keys and rows are bytes; read and write it as such",
                self.name
            ))),
        }
    }

    /// The schema of that id, if the table has or had it.
    pub fn schema_by_id(&self, id: u32) -> Option<&Schema> {
        let index = id.checked_sub(FIRST_SCHEMA_ID)?;
        let (found, schema) = self.schemas().get(usize::try_from(index).ok()?)?;
        (*found == id).then_some(schema)
    }

    /// Adds columns at the end of the newest schema ([`Schema::evolve`]) and returns the new schema's id. No row is
    /// rewritten. The definition is unchanged after an error.
    ///
    /// Fails with [`Error::Schema`] if the table is not typed, if a column has neither null nor a default for the rows
    /// that exist, or after [`SCHEMA_VERSIONS_MAX`] schemas.
    pub fn evolve(&mut self, added: impl IntoIterator<Item = Column>) -> Result<u32> {
        let (newest_id, newest) = self.schema()?;
        let evolved = newest.evolve(added)?;
        let id = newest_id.saturating_add(1);
        if let TableKind::Typed { schemas } = &mut self.kind {
            if schemas.len() >= SCHEMA_VERSIONS_MAX {
                return Err(Error::Schema(format!(
                    "table {:?} has had {SCHEMA_VERSIONS_MAX} schemas, which is the limit; copy it into a new table",
                    self.name
                )));
            }
            schemas.push((id, evolved));
        }
        Ok(id)
    }

    /// The bytes for the system fragment: a format version, then the fields (postcard).
    ///
    /// Fails with [`Error::TooLarge`] over 16 MiB.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let bytes = postcard::to_extend(self, vec![FORMAT_VERSION])
            .map_err(|error| Error::Invalid(format!("the definition of {:?}: {error}", self.name)))?;
        check_len(&bytes)?;
        Ok(bytes)
    }

    /// The definition that `bytes` encode.
    ///
    /// Fails with [`Error::Invalid`] if they are of another format version or encode no valid definition.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        check_len(bytes)?;
        let invalid = |what: &str| {
            Error::Invalid(format!("the definition of a table cannot be read: {what}; it is damaged"))
        };
        let (version, rest) = bytes.split_first().ok_or_else(|| invalid("it is empty"))?;
        if *version != FORMAT_VERSION {
            return Err(Error::Invalid(format!(
                "the definition of a table has format {version}, and this release reads format {FORMAT_VERSION}; use a newer release"
            )));
        }
        let (table, rest) =
            postcard::take_from_bytes::<Self>(rest).map_err(|error| invalid(&error.to_string()))?;
        if !rest.is_empty() {
            return Err(invalid("bytes follow it"));
        }
        table.checked().map_err(|error| invalid(&error.to_string()))
    }

    fn schemas(&self) -> &[(u32, Schema)] {
        match &self.kind {
            TableKind::Raw => &[],
            TableKind::Typed { schemas } => schemas,
        }
    }

    /// The same definition, if it is valid.
    pub(super) fn checked(self) -> Result<Self> {
        check_name("a table", &self.name, TABLE_NAME_BYTES_MAX)?;
        let schemas = self.schemas();
        let bad = |what: &str| Error::Schema(format!("table {}: {what}", shorten(&self.name)));
        if self.is_typed() && schemas.is_empty() {
            return Err(bad("a typed table needs a schema"));
        }
        if schemas.len() > SCHEMA_VERSIONS_MAX {
            return Err(bad("it has more schemas than the limit"));
        }
        let ids_rise = schemas.iter().zip(FIRST_SCHEMA_ID..).all(|((id, _), expected)| *id == expected);
        if !ids_rise {
            return Err(bad("its schemas are not numbered from 1"));
        }
        let evolves =
            schemas.iter().zip(schemas.iter().skip(1)).all(|((_, old), (_, new))| old.is_evolved_by(new));
        if !evolves {
            return Err(bad("a schema does not evolve from the one before"));
        }
        Ok(self)
    }
}

fn check_len(encoded: &[u8]) -> Result<()> {
    if encoded.len() > ENCODED_BYTES_MAX {
        return Err(Error::TooLarge {
            what: "the definition of a table",
            bytes: encoded.len() as u64,
            limit: ENCODED_BYTES_MAX as u64,
        });
    }
    Ok(())
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use planaria_types::TableId;
    use proptest::prelude::*;

    use super::{SCHEMA_VERSIONS_MAX, TableDef, TableKind};
    use crate::table::schema::tests::{any_table, weather};
    use crate::table::{Column, ColumnType, Schema};

    fn extra(name: &str) -> Column {
        Column::new(name, ColumnType::Float64).nullable()
    }

    #[test]
    fn the_bytes_of_a_definition_never_change() {
        let schema = Schema::builder()
            .column(Column::new("id", ColumnType::Int64))
            .column(Column::new("note", ColumnType::Text).nullable().with_default("x"))
            .key(["id"])
            .build()
            .unwrap();
        let table = TableDef::typed(TableId(7), "t", schema).unwrap();
        let expected = b"\x01\x07\x01t\x01\x01\x01\x02\x02id\x01\0\0\x04note\x03\x01\x01\x04\x01x\x01\0\0\0";
        assert_eq!(table.encode().unwrap().escape_ascii().to_string(), expected.escape_ascii().to_string());
        assert_eq!(TableDef::decode(expected).unwrap(), table);
        let raw = TableDef::raw(TableId(2), "r").unwrap();
        assert_eq!(raw.encode().unwrap(), b"\x01\x02\x01r\0\0");
    }

    #[test]
    fn definitions_that_are_not_whole_or_not_valid_are_refused() {
        let mut table = TableDef::typed(TableId(1), "weather", weather()).unwrap();
        table.evolve([extra("visib")]).unwrap();
        let bytes = table.encode().unwrap();
        assert_eq!(TableDef::decode(&bytes).unwrap(), table);
        for end in 0..bytes.len() {
            assert_eq!(TableDef::decode(&bytes[..end]).unwrap_err().code(), "invalid");
        }
        assert!(TableDef::decode(&[bytes.as_slice(), b"x"].concat()).is_err());
        let newer = [&[9], &bytes[1..]].concat();
        assert!(TableDef::decode(&newer).unwrap_err().to_string().contains("format 9"));
        let TableKind::Typed { schemas } = &table.kind else { panic!("typed") };
        for schemas in [vec![], vec![(2, weather())], vec![schemas[1].clone(), schemas[0].clone()], {
            vec![(1, schemas[1].1.clone()), (2, schemas[0].1.clone())]
        }] {
            let broken = TableDef { kind: TableKind::Typed { schemas }, ..table.clone() };
            assert!(TableDef::decode(&broken.encode().unwrap()).is_err());
        }
    }

    #[test]
    fn a_table_evolves_up_to_its_limit() {
        let mut table = TableDef::typed(TableId(1), "weather", weather()).unwrap();
        assert_eq!(table.schema().unwrap().0, 1);
        for count in 2..=SCHEMA_VERSIONS_MAX as u32 {
            assert_eq!(table.evolve([extra(&format!("x{count}"))]).unwrap(), count);
        }
        let before = table.clone();
        assert!(table.evolve([extra("one more")]).unwrap_err().to_string().contains("limit"));
        assert_eq!(table, before);
        assert_eq!(table.schema_by_id(1), Some(&weather()));
        assert_eq!(table.schema_by_id(0), None);
        assert_eq!(table.schema_by_id(u32::MAX), None);
        assert_eq!(TableDef::decode(&table.encode().unwrap()).unwrap(), table);
    }

    #[test]
    fn a_raw_table_has_no_schema() {
        let mut raw = TableDef::raw(TableId(2), "blobs").unwrap();
        assert!(raw.schema().unwrap_err().to_string().contains("bytes"));
        assert!(raw.evolve([extra("x")]).is_err());
        assert!(TableDef::raw(TableId(2), "").is_err());
        assert!(TableDef::raw(TableId(2), "a\tb").is_err());
    }

    proptest! {
        #[test]
        fn any_definition_survives((schema, rows) in any_table(1)) {
            let defaults = rows[0].iter().enumerate().filter(|(_, value)| !value.is_null()).map(|(n, value)| {
                Column::new(format!("d{n}"), value.column_type().unwrap()).with_default(value.clone())
            });
            let mut table = TableDef::typed(TableId(3), "t", schema.clone()).unwrap();
            table.evolve(defaults).unwrap();
            prop_assert_eq!(TableDef::decode(&table.encode().unwrap()).unwrap(), table);
        }

        #[test]
        fn any_bytes_are_a_definition_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            bytes[0] = 1;
            let _ = TableDef::decode(&bytes);
        }

        #[test]
        fn a_flipped_bit_is_a_definition_or_an_error(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut bytes = TableDef::typed(TableId(1), "weather", weather()).unwrap().encode().unwrap();
            let index = at.index(bytes.len());
            bytes[index] ^= 1 << bit;
            if let Ok(table) = TableDef::decode(&bytes) {
                prop_assert_eq!(TableDef::decode(&table.encode().unwrap()).unwrap(), table);
            }
        }
    }
}
