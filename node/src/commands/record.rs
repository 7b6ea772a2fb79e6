use std::collections::BTreeMap;
use std::io::Cursor;

use planaria_engine::{Column, Schema, Value, table};
use planaria_net::wire::message::ScanSpec;
use planaria_types::KeyRange;

use super::{print, stdout, target};
use crate::cli::{DeleteArgs, GetArgs, Global, KeyArgs, PutArgs, ScanArgs};
use crate::import::{InputFormat, ReaderOptions, Record, RecordReader, RowParser, Source};
use crate::key_text::{parse_key, parse_key_prefix, parse_raw};
use crate::output::{CliError, Report, RowWriter};
use crate::row_view::RowView;
use crate::session::{Commit, IfAbsent, StoredRow, TableSummary};

/// `planaria get`.
pub(super) fn get(global: &Global, arguments: &GetArgs) -> Result<(), CliError> {
    let session = arguments.key.place.place(global)?.open(IfAbsent::Fail)?;
    session.wait_for(&arguments.read.wanted()?)?;
    let (read, arguments) = (&arguments.read, &arguments.key);
    let table = session.table(&arguments.table)?;
    let key = parse_key(&table.definition, &arguments.key)?;
    let row = session.get(&table, &key)?;
    // That there is no row is an answer, too.
    read.confirm(&*session)?;
    let row = row.ok_or_else(|| no_row(arguments))?;
    let view = RowView::new(&table.definition);
    let mut rows = RowWriter::new(stdout(), target(global), view.headings()?, "")?;
    rows.write(&view.values(&key, &row)?)?;
    rows.finish()?;
    Ok(())
}

fn no_row(arguments: &KeyArgs) -> CliError {
    let key = arguments.key.join(" ");
    CliError::new("no_row", format!("table {:?} has no row with the key {key}", arguments.table))
}

/// `planaria delete`.
pub(super) fn delete(global: &Global, arguments: &DeleteArgs) -> Result<(), CliError> {
    let (choice, arguments) = (&arguments.write, &arguments.key);
    let mut session = arguments.place.place(global)?.open(IfAbsent::Fail)?;
    session.set_write_choice(choice.choice())?;
    let table = session.table(&arguments.table)?;
    let key = parse_key(&table.definition, &arguments.key)?;
    // What is sent again may have been done the first time.
    if choice.token.is_none() && session.get(&table, &key)?.is_none() {
        return Err(no_row(arguments));
    }
    let commit = session.delete(&table, &key)?;
    print(global, &with_commit(Report::new().with("deleted", arguments.key.join(" ")), commit))
}

/// A report with the commit that was made: its position is what later reads may ask for.
fn with_commit(report: Report, commit: Commit) -> Report {
    report
        .with("uid", commit.position.uid.to_string())
        .with("position", commit.position.to_string())
        .with("again", crate::output::Cell::Bool(commit.again))
}

/// `planaria put`.
pub(super) fn put(global: &Global, arguments: &PutArgs) -> Result<(), CliError> {
    let mut session = arguments.place.place(global)?.open(IfAbsent::Fail)?;
    session.set_write_choice(arguments.write.choice())?;
    let table = session.table(&arguments.table)?;
    let row = parse_row(&table, &arguments.values)?;
    let replaced = session.get(&table, &row.key)?.is_some();
    let commit = session.put(&table, row)?;
    let report = Report::new()
        .with("table", arguments.table.clone())
        .with("replaced", crate::output::Cell::Bool(replaced));
    print(global, &with_commit(report, commit))
}

fn parse_row(summary: &TableSummary, texts: &[String]) -> Result<StoredRow, CliError> {
    let definition = &summary.definition;
    if !definition.is_typed() {
        let [key, row] = texts else {
            return Err(CliError::usage(format!("table {:?} has rows of bytes", definition.name))
                .hint(format!("write it as: {} KEY ROW", definition.name)));
        };
        return Ok(StoredRow { key: parse_raw(key)?.into(), row: parse_raw(row)?.into() });
    }
    let (id, schema) = definition.schema()?;
    let values = match texts {
        [object] if object.trim_start().starts_with('{') => parse_object(schema, object)?,
        texts => parse_assignments(schema, texts)?,
    };
    // What does not fit stands on the command line.
    let (key, row) =
        table::encode(schema, id, &values).map_err(|error| CliError::usage(error.to_string()))?;
    Ok(StoredRow { key: key.into(), row: row.into() })
}

/// `COLUMN=VALUE` for each column that has one.
fn parse_assignments(schema: &Schema, texts: &[String]) -> Result<Vec<Value>, CliError> {
    let form = || {
        let columns: Vec<_> =
            schema.columns().iter().map(|column| format!("{}={}", column.name, column.ty)).collect();
        format!("write it as: {}", columns.join(" "))
    };
    let mut given: BTreeMap<usize, Value> = BTreeMap::new();
    for text in texts {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| CliError::usage(format!("{text:?} names no column")).hint(form()))?;
        let position = schema.position(name);
        let column = position.and_then(|position| schema.columns().get(position));
        let (Some(position), Some(column)) = (position, column) else {
            return Err(CliError::usage(format!("the table has no column {name:?}")).hint(form()));
        };
        let value = column.parse(value).map_err(|error| CliError::usage(error.to_string()))?;
        if given.insert(position, value).is_some() {
            return Err(CliError::usage(format!("column {name:?} is given twice")));
        }
    }
    let value = |(position, column): (usize, &Column)| {
        given.remove(&position).unwrap_or_else(|| column.missing_value())
    };
    Ok(schema.columns().iter().enumerate().map(value).collect())
}

/// One object, read as the line of an import is.
fn parse_object(schema: &Schema, text: &str) -> Result<Vec<Value>, CliError> {
    let options = ReaderOptions { format: Some(InputFormat::Ndjson), ..ReaderOptions::default() };
    let source = Source::new(Cursor::new(text.replace(['\n', '\r'], " ")), None)?;
    let mut reader = RecordReader::new(source, &options)?;
    reader.expect_columns(schema.columns().iter().map(|column| column.name.as_str()));
    let wrong = |error: CliError| {
        CliError::usage(error.what.trim_start_matches("line 1: ").to_owned())
            .hint("give one JSON object, its members the columns")
    };
    let mut record = Record::default();
    if !reader.read(&mut record).map_err(|error| wrong(error.into()))? {
        return Err(CliError::usage("there is no object"));
    }
    let mut values = Vec::new();
    RowParser::new(schema, reader.columns())?
        .parse(&record, &mut values)
        .map_err(|error| wrong(error.into()))?;
    Ok(values)
}

/// `planaria scan`.
pub(super) fn scan(global: &Global, arguments: &ScanArgs) -> Result<(), CliError> {
    let session = arguments.place.place(global)?.open(IfAbsent::Fail)?;
    session.wait_for(&arguments.read.wanted()?)?;
    let table = session.table(&arguments.table)?;
    let view = RowView::new(&table.definition);
    let mut rows = RowWriter::new(stdout(), target(global), view.headings()?, "")?;
    if let Some(range) = scan_range(&table, arguments)? {
        let spec = ScanSpec {
            table: arguments.table.clone(),
            range,
            reverse: arguments.reverse,
            limit: arguments.limit,
            at: None,
        };
        session.scan(spec, &mut |key, row| {
            rows.write(&view.values(key, row)?)?;
            Ok(true)
        })?;
    }
    // The rows are told as they come: whether they stand is said by how the command ends.
    arguments.read.confirm(&*session)?;
    rows.finish()?;
    Ok(())
}

/// The keys that all of the options leave; `None` if there are none.
fn scan_range(table: &TableSummary, arguments: &ScanArgs) -> Result<Option<KeyRange>, CliError> {
    let bytes = |values: &[String]| parse_key_prefix(&table.definition, values);
    let end = if arguments.to.is_empty() { None } else { Some(bytes(&arguments.to)?) };
    let between = KeyRange::new(bytes(&arguments.from)?, end);
    Ok(KeyRange::prefix(&bytes(&arguments.prefix)?).intersect(&between))
}

#[cfg(test)]
mod tests {
    use planaria_engine::{Column, ColumnType, Schema, TableDef};
    use planaria_types::TableId;

    use super::{StoredRow, TableSummary, parse_row};

    fn summary() -> TableSummary {
        let schema = Schema::builder()
            .column(Column::new("id", ColumnType::Int64))
            .column(Column::new("note", ColumnType::Text).nullable())
            .key(["id"])
            .build()
            .unwrap();
        let definition = TableDef::typed(TableId(1), "t", schema).unwrap();
        TableSummary { definition, disk_bytes: 0, fragments: 1 }
    }

    fn row(texts: &[&str]) -> Result<StoredRow, crate::output::CliError> {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        parse_row(&summary(), &texts)
    }

    #[test]
    fn a_row_is_written_in_two_ways() {
        assert_eq!(row(&["id=7", "note=a=b"]).unwrap(), row(&["{\"id\": 7,\n \"note\": \"a=b\"}"]).unwrap());
        assert_eq!(row(&["id=7"]).unwrap(), row(&["{\"id\": 7}"]).unwrap());
    }

    #[test]
    fn a_wrong_row_is_wrong_use() {
        for wrong in [
            &["7"][..],
            &["id=x"],
            &["note=x"],
            &["id=1", "id=2"],
            &["id=1", "birds=2"],
            &["{\"id\": 1, \"birds\": 2}"],
            &["{\"id\": "],
            &["{\"note\": \"x\"}"],
        ] {
            assert_eq!(row(wrong).unwrap_err().exit_status(), 2, "{wrong:?}");
        }
    }
}
