use planaria_engine::{Column, Schema, Value};

use super::{print, stdout, target};
use crate::cli::{Global, TableCommand, TableCreateArgs};
use crate::output::{Cell, CliError, Heading, Report, RowWriter};
use crate::session::{IfAbsent, TableSummary};

/// `planaria table`.
pub(super) fn run(global: &Global, command: &TableCommand) -> Result<(), CliError> {
    match command {
        TableCommand::Create(arguments) => create(global, arguments),
        TableCommand::List(place) => {
            let session = place.place(global)?.open(IfAbsent::Fail)?;
            list(global, &session.tables()?)
        }
        TableCommand::Show { place, table } => {
            let session = place.place(global)?.open(IfAbsent::Fail)?;
            show(global, &session.table(table)?)
        }
    }
}

fn create(global: &Global, arguments: &TableCreateArgs) -> Result<(), CliError> {
    let schema = if arguments.raw { None } else { Some(schema(arguments)?) };
    let session = arguments.place.place(global)?.open(IfAbsent::Create)?;
    let table = session.create_table(&arguments.name, schema)?;
    print(global, &report(&table)?)
}

fn schema(arguments: &TableCreateArgs) -> Result<Schema, CliError> {
    let mut builder = Schema::builder();
    for text in &arguments.columns {
        builder = builder.column(parse_column(text)?);
    }
    // A schema that cannot be is wrong use here: it stands on the command line.
    builder.key(&arguments.key).build().map_err(|error| CliError::usage(error.to_string()))
}

/// `NAME:TYPE` or `NAME:TYPE:null`; the name may hold colons.
fn parse_column(text: &str) -> Result<Column, CliError> {
    let (rest, is_nullable) = match text.strip_suffix(":null") {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let wrong = |what: String| CliError::usage(what).hint("write a column as NAME:TYPE or NAME:TYPE:null");
    let (name, ty) = rest.rsplit_once(':').ok_or_else(|| wrong(format!("column {text:?} has no type")))?;
    let ty =
        ty.parse().map_err(|error: planaria_engine::Error| wrong(format!("column {text:?}: {error}")))?;
    let column = Column::new(name, ty);
    Ok(if is_nullable { column.nullable() } else { column })
}

fn report(table: &TableSummary) -> Result<Report, CliError> {
    let definition = &table.definition;
    let (columns, key) = if definition.is_typed() {
        let schema = definition.schema()?.1;
        let key = schema.key_columns().map(|column| column.name.clone()).collect();
        (Cell::Count(schema.columns().len() as u64), Cell::List(key))
    } else {
        (Cell::None, Cell::None)
    };
    Ok(Report::new()
        .with("table", definition.name.clone())
        .with("kind", if definition.is_typed() { "typed" } else { "raw" })
        .with("columns", columns)
        .with("key", key)
        .with("fragments", Cell::Count(table.fragments))
        .with("disk_bytes", Cell::Bytes(table.disk_bytes)))
}

fn list(global: &Global, tables: &[TableSummary]) -> Result<(), CliError> {
    let headings = vec![
        Heading::text("table"),
        Heading::text("kind"),
        Heading::number("columns"),
        Heading::text("key"),
        Heading::number("fragments"),
        Heading::number("disk_bytes"),
    ];
    let mut rows = RowWriter::new(stdout(), target(global), headings, "")?;
    for table in tables {
        rows.write(&report(table)?.into_cells())?;
    }
    rows.finish()?;
    Ok(())
}

/// One row for each column; those of a raw table are its keys and rows.
fn show(global: &Global, table: &TableSummary) -> Result<(), CliError> {
    let headings = vec![
        Heading::text("column"),
        Heading::text("type"),
        Heading::text("nullable"),
        Heading::number("key"),
        Heading::text("default"),
    ];
    let mut rows = RowWriter::new(stdout(), target(global), headings, "")?;
    if !table.definition.is_typed() {
        rows.write(&["key".into(), "bytes".into(), Cell::Bool(false), Cell::Count(1), Cell::None])?;
        rows.write(&["row".into(), "bytes".into(), Cell::Bool(false), Cell::None, Cell::None])?;
        rows.finish()?;
        return Ok(());
    }
    let schema = table.definition.schema()?.1;
    for (index, column) in schema.columns().iter().enumerate() {
        let in_key = schema.key().iter().position(|position| *position == index);
        rows.write(&[
            column.name.clone().into(),
            column.ty.name().into(),
            Cell::Bool(column.nullable),
            in_key.map_or(Cell::None, |place| Cell::Count(place as u64 + 1)),
            column.default.as_ref().map_or(Cell::None, |value: &Value| value.to_string().into()),
        ])?;
    }
    rows.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse_column;

    #[test]
    fn a_column_is_a_name_and_a_type() {
        let column = parse_column("a:b:text:null").unwrap();
        assert_eq!((column.name.as_str(), column.ty.name(), column.nullable), ("a:b", "text", true));
        assert!(!parse_column("id:int64").unwrap().nullable);
        for wrong in ["id", "id:number", "null", "id:null"] {
            assert_eq!(parse_column(wrong).unwrap_err().exit_status(), 2, "{wrong}");
        }
    }
}
