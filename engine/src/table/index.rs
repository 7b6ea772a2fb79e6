//! Secondary indexes: tables of their own, whose key is the indexed columns, then the primary key of the table.

use planaria_types::TableId;

use super::definition::TableDef;
use super::schema::Schema;
use super::value::Value;
use crate::error::{Error, Result};

impl TableDef {
    /// The definition of a secondary index of this table on `columns`. Its key is those columns, then the columns of
    /// the primary key that are not among them, under their own names; its rows hold nothing more. A null in an indexed
    /// column comes before all values.
    ///
    /// Fails with [`Error::Schema`] if this table is not typed or is an index itself, or if a column does not exist or
    /// is named twice.
    pub fn index(&self, id: TableId, name: impl Into<String>, columns: &[&str]) -> Result<Self> {
        if self.index_of.is_some() {
            return Err(Error::Schema(format!(
                "table {:?} is an index itself; name the table that it is of",
                self.name
            )));
        }
        if columns.is_empty() {
            return Err(Error::Schema("an index needs columns; name one or more of the table's".into()));
        }
        let (_, schema) = self.schema()?;
        let mut positions = Vec::with_capacity(columns.len() + schema.key().len());
        for name in columns {
            positions.push(schema.position(name).ok_or_else(|| {
                Error::Schema(format!("table {:?} has no column {name:?} to make an index on", self.name))
            })?);
        }
        for position in schema.key() {
            if !positions.contains(position) {
                positions.push(*position);
            }
        }
        let indexed: Vec<_> = positions.iter().filter_map(|at| schema.columns().get(*at)).cloned().collect();
        let key = (0..indexed.len()).collect();
        let index = Self::typed(id, name, Schema::checked(indexed, key, true)?)?;
        Ok(Self { index_of: Some(self.id), ..index })
    }

    /// The values of an index's only record for a row of the table that it is of; `table_schema` is that table's newest.
    ///
    /// Fails with [`Error::Schema`] if this is not an index of a table with such a schema.
    pub fn index_values(&self, table_schema: &Schema, row: &[Value]) -> Result<Vec<Value>> {
        let (_, schema) = self.schema()?;
        let values = schema.columns().iter().map(|column| {
            let value = table_schema.position(&column.name).and_then(|position| row.get(position));
            value.cloned().ok_or_else(|| {
                Error::Schema(format!("index {:?}: its table has no column {:?}", self.name, column.name))
            })
        });
        values.collect()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use planaria_types::TableId;

    use crate::table::schema::tests::weather;
    use crate::table::{TableDef, Value, decode, encode, encode_key, encode_key_prefix};

    fn row(origin: &str, wind: Option<i64>, hour: i64) -> Vec<Value> {
        vec![origin.into(), Value::Null, wind.into(), Value::Timestamp(hour)]
    }

    #[test]
    fn an_index_orders_by_its_columns_then_by_the_primary_key_with_nulls_first() {
        let table = TableDef::typed(TableId(1), "weather", weather()).unwrap();
        let index = table.index(TableId(2), "weather_by_wind", &["wind_dir"]).unwrap();
        assert_eq!(index.index_of, Some(TableId(1)));
        assert_eq!(TableDef::decode(&index.encode().unwrap()).unwrap(), index);
        let (id, schema) = index.schema().unwrap();
        let table_schema = table.schema().unwrap().1;
        let mut keys = Vec::new();
        for row in
            [row("LGA", None, 9), row("EWR", Some(-5), 3), row("EWR", Some(10), 1), row("EWR", Some(10), 2)]
        {
            let values = index.index_values(table_schema, &row).unwrap();
            let (key, bytes) = encode(schema, id, &values).unwrap();
            assert_eq!(bytes, [1]);
            assert_eq!(decode(&index, &key, &bytes).unwrap(), values);
            keys.push(key);
        }
        assert!(keys.is_sorted());
        let prefix = encode_key_prefix(schema, &[Value::Int(10)]).unwrap();
        assert_eq!(keys.iter().filter(|key| key.starts_with(&prefix)).count(), 2);
        assert!(keys[0].starts_with(&encode_key_prefix(schema, &[Value::Null]).unwrap()));
    }

    #[test]
    fn an_index_on_a_key_column_does_not_repeat_it() {
        let table = TableDef::typed(TableId(1), "weather", weather()).unwrap();
        let index = table.index(TableId(2), "by_hour", &["time_hour"]).unwrap();
        let (_, schema) = index.schema().unwrap();
        let names: Vec<_> = schema.key_columns().map(|column| column.name.as_str()).collect();
        assert_eq!(names, ["time_hour", "origin"]);
        assert!(encode_key(schema, &[Value::Null, "EWR".into()]).is_err());
    }

    #[test]
    fn impossible_indexes_are_refused() {
        let table = TableDef::typed(TableId(1), "weather", weather()).unwrap();
        assert!(table.index(TableId(2), "i", &["nope"]).is_err());
        assert!(table.index(TableId(2), "i", &[]).is_err());
        assert!(table.index(TableId(2), "i", &["temp", "temp"]).is_err());
        let index = table.index(TableId(2), "i", &["temp"]).unwrap();
        assert!(index.index(TableId(3), "j", &["temp"]).is_err());
        assert!(TableDef::raw(TableId(1), "raw").unwrap().index(TableId(2), "i", &["x"]).is_err());
    }
}
