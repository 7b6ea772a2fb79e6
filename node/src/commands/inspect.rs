use std::time::Duration;

use planaria_net::wire::message::{DatabaseStatus, RefreshInfo};

use super::{print, stdout, target};
use crate::cli::{DigestArgs, Global, PlaceArgs, VerifyArgs};
use crate::output::{Cell, CliError, Heading, Report, RowWriter};
use crate::session::IfAbsent;
use crate::stopwatch::Stopwatch;

/// `planaria digest`.
pub(super) fn digest(global: &Global, arguments: &DigestArgs) -> Result<(), CliError> {
    let session = arguments.place.place(global)?.open(IfAbsent::Fail)?;
    let digests = session.digests(&arguments.tables)?;
    let headings = vec![Heading::text("table"), Heading::number("rows"), Heading::text("digest")];
    let mut rows = RowWriter::new(stdout(), target(global), headings, "")?;
    for (table, digest) in digests {
        rows.write(&[table.into(), Cell::Count(digest.count), format!("{:032x}", digest.sum).into()])?;
    }
    rows.finish()?;
    Ok(())
}

/// `planaria verify`.
pub(super) fn verify(global: &Global, arguments: &VerifyArgs) -> Result<(), CliError> {
    let place = arguments.place.place(global)?;
    if let Some(against) = &arguments.against {
        return super::compare::compare(global, &place, against, arguments.repair);
    }
    let session = place.open(IfAbsent::Fail)?;
    let stopwatch = Stopwatch::start();
    let verified = session.verify()?;
    if let Some(first) = verified.damage.first() {
        let more = match verified.damage.len() {
            1 => String::new(),
            all => format!(", and {} more", all - 1),
        };
        return Err(CliError::new("damaged", format!("{first}{more}")).hint(
            "a secondary takes its files anew by `planaria verify --against PRIMARY --repair`; of any other database copy the directory \
             before anything else is done to it, then restore from a clone or a replica",
        ));
    }
    let known = |count: Option<u64>| count.map_or(Cell::None, Cell::Count);
    let report = Report::new()
        .with("place", place.argument())
        .with("sound", Cell::Bool(true))
        .with("files", known(verified.files))
        .with("bytes", Cell::Bytes(verified.bytes))
        .with("rows", known(verified.records))
        .with("seconds", Cell::Duration(stopwatch.elapsed()));
    print(global, &report)
}

/// `planaria status`.
pub(super) fn status(global: &Global, arguments: &PlaceArgs) -> Result<(), CliError> {
    let session = arguments.place(global)?.open(IfAbsent::Fail)?;
    let status = session.status()?;
    let tables = session.tables()?;
    let report = |database: &DatabaseStatus| {
        let last = database.refresh.as_ref();
        let text = |text: fn(&RefreshInfo) -> &str| last.map_or(Cell::None, |last| text(last).into());
        let seconds = last.and_then(|last| last.ms).map(Duration::from_millis);
        Report::new()
            .with("place", status.place.clone())
            .with("software", status.software.clone())
            .with("name", database.name.clone())
            .with("database", database.database.to_string())
            .with("instance", database.instance.to_string())
            .with("state", database.state.clone())
            .with("epoch", database.epoch.to_string())
            .with("visible", database.visible.to_string())
            .with("durable", database.durable.to_string())
            .with("stable", database.stable.to_string())
            .with("level", if database.level.is_empty() { "local" } else { &database.level }.to_owned())
            .with("primary", database.primary.clone())
            .with("holds", database.portion.as_ref().map_or(Cell::None, |portion| portion.to_string().into()))
            .with("depth", Cell::Count(database.depth.into()))
            .with("lag_ms", database.lag_ms.map_or(Cell::None, Cell::Count))
            .with("refreshed", database.refreshed.clone())
            .with("disk_bytes", Cell::Bytes(database.disk_bytes))
            .with("refresh_way", text(|last| &last.way))
            .with("refresh_reason", text(|last| &last.reason))
            .with("refresh_records", last.and_then(|last| last.records).map_or(Cell::None, Cell::Count))
            .with("refresh_bytes", last.map_or(Cell::None, |last| Cell::Bytes(last.bytes)))
            .with("refresh_seconds", seconds.map_or(Cell::None, Cell::Duration))
            .with("tables", Cell::List(tables.iter().map(|table| table.definition.name.clone()).collect()))
            .with("notices", Cell::List(database.notices.clone()))
    };
    let reports: Vec<_> = status.databases.iter().map(report).collect();
    Ok(Report::write_all(&reports, stdout(), target(global))?)
}
