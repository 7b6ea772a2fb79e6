use std::collections::BTreeMap;
use std::time::Duration;

use planaria_engine::TableDef;
use planaria_net::wire::message::{ExtractInfo, ExtractRecord};
use planaria_types::{TableId, Uid};

use super::{print, stdout, target};
use crate::cli::{ExtractArgs, Global, PlaceArgs, QuarantineCommand, ReapplyArgs};
use crate::output::{Cell, CliError, Heading, Report, RowWriter};
use crate::row_view::RowView;
use crate::session::{IfAbsent, Place, RowChange, Session};

/// Records that are compared, and written, at a time.
const BATCH_RECORDS: usize = 1_000;
/// The most conflicts that are named.
const CONFLICTS_SHOWN: usize = 5;

/// `planaria quarantine`.
pub(super) fn run(global: &Global, command: &QuarantineCommand) -> Result<(), CliError> {
    match command {
        QuarantineCommand::List(arguments) => list(global, arguments),
        QuarantineCommand::Show(arguments) => show(global, arguments),
        QuarantineCommand::Diff(arguments) => diff(global, arguments),
        QuarantineCommand::Reapply(arguments) => reapply(global, arguments),
        QuarantineCommand::Drop { place, name } => {
            place.place(global)?.open(IfAbsent::Fail)?.drop_extract(name)?;
            print(global, &Report::new().with("dropped", name.clone()))
        }
    }
}

fn list(global: &Global, arguments: &PlaceArgs) -> Result<(), CliError> {
    let session = arguments.place(global)?.open(IfAbsent::Fail)?;
    let headings = ["name", "fork", "through", "epoch"].map(Heading::text).into_iter();
    let headings = headings.chain(["records", "bytes", "expires_ms"].map(Heading::number));
    let headings = headings.chain(["whole", "age"].map(Heading::text)).collect();
    let mut rows = RowWriter::new(stdout(), target(global), headings, "")?;
    for extract in session.extracts()? {
        rows.write(&[
            extract.name.into(),
            extract.above.to_string().into(),
            extract.through.to_string().into(),
            extract.epoch.to_string().into(),
            Cell::Count(extract.records),
            Cell::Bytes(extract.bytes),
            Cell::Count(extract.expires_ms),
            Cell::Bool(extract.is_whole),
            Cell::Duration(Duration::from_millis(extract.age_ms)),
        ])?;
    }
    rows.finish()?;
    Ok(())
}

/// An extract with the definitions of its tables.
struct Opened<'a> {
    session: &'a dyn Session,
    extract: ExtractInfo,
    tables: BTreeMap<TableId, TableDef>,
}

impl<'a> Opened<'a> {
    /// The extract of that name, with the tables that are asked for.
    fn find(session: &'a dyn Session, name: &str, chosen: &[String]) -> Result<Self, CliError> {
        let extract = session.extracts()?.into_iter().find(|extract| extract.name == name);
        let extract = extract
            .ok_or_else(|| planaria_engine::Error::UnknownExtract { name: name.to_owned() })
            .map_err(CliError::from)?;
        let tables: Result<Vec<_>, _> = extract.tables.iter().map(|bytes| TableDef::decode(bytes)).collect();
        let tables = tables?;
        if let Some(unknown) = chosen.iter().find(|name| tables.iter().all(|table| table.name != **name)) {
            return Err(planaria_engine::Error::UnknownTable { name: unknown.clone() }.into());
        }
        let tables = tables.into_iter().filter(|table| chosen.is_empty() || chosen.contains(&table.name));
        Ok(Self { session, extract, tables: tables.map(|table| (table.id, table)).collect() })
    }

    /// Visits the chosen records, some of one table at a time.
    fn visit(
        &self,
        mut visit: impl FnMut(&TableDef, &[ExtractRecord]) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let mut at = None;
        loop {
            let (records, next) = self.session.read_extract(&self.extract.name, at)?;
            for of_table in records.chunk_by(|a, b| a.table == b.table) {
                let table = of_table.first().and_then(|record| self.tables.get(&record.table));
                let Some(table) = table else { continue };
                for some in of_table.chunks(BATCH_RECORDS) {
                    visit(table, some)?;
                }
            }
            if next.is_none() {
                return Ok(());
            }
            at = next;
        }
    }
}

/// A key and a row as texts: values beside the names of their columns.
fn texts(definition: &TableDef, record: &ExtractRecord) -> Result<(String, Cell), CliError> {
    let view = RowView::new(definition);
    if !definition.is_typed() {
        let row = record.row.as_ref().map(|row| crate::key_text::format_raw(row));
        return Ok((crate::key_text::format_raw(&record.key), row.map_or(Cell::None, Cell::from)));
    }
    let Some(row) = &record.row else {
        return Ok((crate::key_text::format_key(definition, &record.key)?.join(" "), Cell::None));
    };
    let schema = definition.schema()?.1;
    let (mut keys, mut others) = (Vec::new(), Vec::new());
    for ((position, column), value) in schema.columns().iter().enumerate().zip(view.values(&record.key, row)?)
    {
        let text = value.to_string();
        if schema.key().contains(&position) {
            keys.push(text);
        } else {
            others.push(format!("{}={text}", column.name));
        }
    }
    Ok((keys.join(" "), others.join(" ").into()))
}

fn show(global: &Global, arguments: &ExtractArgs) -> Result<(), CliError> {
    let session = arguments.place.place(global)?.open(IfAbsent::Fail)?;
    let opened = Opened::find(&*session, &arguments.name, &arguments.tables)?;
    let headings = ["table", "change", "key", "row"].map(Heading::text).to_vec();
    let mut rows = RowWriter::new(stdout(), target(global), headings, "")?;
    opened.visit(|table, records| {
        for record in records {
            let (key, row) = texts(table, record)?;
            let change = if record.row.is_some() { "put" } else { "delete" };
            rows.write(&[table.name.clone().into(), change.into(), key.into(), row])?;
        }
        Ok(())
    })?;
    rows.finish()?;
    Ok(())
}

/// How a record that was taken back stands to what is there now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Standing {
    /// It is there, or was deleted and is not.
    Same,
    /// Something else is there, which was there at the fork already.
    Differs,
    /// Something else is there, which was written after the fork.
    Conflict,
    /// Nothing is there.
    Absent,
}

impl Standing {
    fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Differs | Self::Conflict => "differs",
            Self::Absent => "absent",
        }
    }
}

/// Compares records with what `session` has now, in their order.
fn compare(
    session: &dyn Session,
    fork: Uid,
    definition: &TableDef,
    records: &[ExtractRecord],
) -> Result<Vec<Standing>, CliError> {
    let known = session.tables()?.into_iter().find(|table| table.definition.name == definition.name);
    let Some(table) = known else {
        let standing = |record: &ExtractRecord| {
            if record.row.is_some() { Standing::Absent } else { Standing::Same }
        };
        return Ok(records.iter().map(standing).collect());
    };
    let keys: Vec<&[u8]> = records.iter().map(|record| &record.key[..]).collect();
    let found = session.find_many(&table, &keys)?;
    let standing = |(record, found): (&ExtractRecord, Option<(Uid, bytes::Bytes)>)| match (&record.row, found)
    {
        (None, None) => Standing::Same,
        (Some(_), None) => Standing::Absent,
        (Some(row), Some((_, now))) if *row == now => Standing::Same,
        (_, Some((uid, _))) if uid > fork => Standing::Conflict,
        (_, Some(_)) => Standing::Differs,
    };
    Ok(records.iter().zip(found).map(standing).collect())
}

fn diff(global: &Global, arguments: &ExtractArgs) -> Result<(), CliError> {
    let session = arguments.place.place(global)?.open(IfAbsent::Fail)?;
    let opened = Opened::find(&*session, &arguments.name, &arguments.tables)?;
    let headings = ["table", "key", "state", "conflict", "row"].map(Heading::text).to_vec();
    let mut rows = RowWriter::new(stdout(), target(global), headings, "")?;
    opened.visit(|table, records| {
        let standings = compare(&*session, opened.extract.above, table, records)?;
        for (record, standing) in records.iter().zip(standings) {
            let (key, row) = texts(table, record)?;
            let conflict = Cell::Bool(standing == Standing::Conflict);
            rows.write(&[table.name.clone().into(), key.into(), standing.name().into(), conflict, row])?;
        }
        Ok(())
    })?;
    rows.finish()?;
    Ok(())
}

/// What a reapplication has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Reapplied {
    written: u64,
    same: u64,
    last: Uid,
}

fn reapply(global: &Global, arguments: &ReapplyArgs) -> Result<(), CliError> {
    let extract = &arguments.extract;
    let session = extract.place.place(global)?.open(IfAbsent::Fail)?;
    let opened = Opened::find(&*session, &extract.name, &extract.tables)?;
    let elsewhere = match &arguments.to {
        Some(address) => Some(address.clone()),
        None => whom_to_write_to(&*session)?,
    };
    let elsewhere = elsewhere.map(|address| Place::Node { address, tls: global.tls.clone(), database: None });
    let elsewhere = elsewhere.map(|place| place.open(IfAbsent::Fail)).transpose()?;
    let to = elsewhere.as_deref().unwrap_or(&*session);
    let done = reapply_to(&opened, to, arguments.overwrite)?;
    let report = Report::new()
        .with("extract", extract.name.clone())
        .with("written", Cell::Count(done.written))
        .with("same", Cell::Count(done.same))
        .with("uid", if done.written > 0 { done.last.to_string().into() } else { Cell::None });
    print(global, &report)
}

/// The primary that a secondary follows; none where the place takes updates itself.
fn whom_to_write_to(session: &dyn Session) -> Result<Option<String>, CliError> {
    let status = session.status()?.databases.into_iter().next();
    match status {
        Some(status) if status.state == "primary" => Ok(None),
        Some(status) if !status.primary.is_empty() => Ok(Some(status.primary)),
        _ => Err(CliError::new("read_only", "this copy takes no updates, and follows nobody that is known")
            .hint("name the primary by --to ADDR")),
    }
}

/// Writes the chosen records again where they are not there; nothing if there is a conflict that may not be overwritten.
fn reapply_to(opened: &Opened<'_>, to: &dyn Session, overwrite: bool) -> Result<Reapplied, CliError> {
    let fork = opened.extract.above;
    if !overwrite {
        refuse_conflicts(opened, to)?;
    }
    let mut done = Reapplied::default();
    opened.visit(|definition, records| {
        let standings = compare(to, fork, definition, records)?;
        let wanted = records.iter().zip(&standings).filter(|(_, standing)| **standing != Standing::Same);
        let changes: Vec<_> = wanted
            .map(|(record, _)| RowChange { key: record.key.clone(), row: record.row.clone() })
            .collect();
        done.same += (records.len() - changes.len()) as u64;
        if changes.is_empty() {
            return Ok(());
        }
        done.written += changes.len() as u64;
        let known = to.tables()?.into_iter().find(|table| table.definition.name == definition.name);
        let table = if let Some(table) = known {
            table
        } else {
            let schema = definition.schema().ok().map(|(_, schema)| schema.clone());
            to.create_table(&definition.name, schema)?
        };
        done.last = done.last.max(to.write(&table, changes)?.position.uid);
        Ok(())
    })?;
    Ok(done)
}

fn refuse_conflicts(opened: &Opened<'_>, to: &dyn Session) -> Result<(), CliError> {
    let (mut count, mut named) = (0_u64, Vec::new());
    opened.visit(|definition, records| {
        let standings = compare(to, opened.extract.above, definition, records)?;
        for (record, _) in
            records.iter().zip(standings).filter(|(_, standing)| *standing == Standing::Conflict)
        {
            count += 1;
            if named.len() < CONFLICTS_SHOWN {
                named.push(format!("{} {}", definition.name, texts(definition, record)?.0));
            }
        }
        Ok(())
    })?;
    if count == 0 {
        return Ok(());
    }
    Err(CliError::new(
        "conflict",
        format!("{count} records were changed since the fork: {}", named.join(", ")),
    )
    .because("the primary has newer versions of them, and nothing was written")
    .hint("`planaria quarantine diff` shows them; --overwrite writes over them, --table leaves tables out"))
}

#[cfg(test)]
#[path = "quarantine_tests.rs"]
mod tests;
