use std::time::Duration;

use planaria_net::wire::message::RefreshInfo;

use super::{print, stdout, target};
use crate::cli::{Global, PlaceArgs, RefreshArgs};
use crate::output::{Cell, CliError, Heading, Report, RowWriter};
use crate::session::IfAbsent;

/// `planaria replica list`.
pub(super) fn list(global: &Global, arguments: &PlaceArgs) -> Result<(), CliError> {
    let session = arguments.place(global)?.open(IfAbsent::Fail)?;
    let headings = ["name", "state", "promotable", "durable"].map(Heading::text);
    let headings = headings
        .into_iter()
        .chain([Heading::number("lag_ms"), Heading::text("refresh"), Heading::text("instance")])
        .collect();
    let mut rows = RowWriter::new(stdout(), target(global), headings, "")?;
    for replica in session.replicas()? {
        rows.write(&[
            replica.node.into(),
            replica.state.into(),
            Cell::Bool(replica.promotable),
            replica.durable.to_string().into(),
            Cell::Count(replica.lag_ms),
            if replica.refresh.is_empty() { Cell::None } else { replica.refresh.into() },
            replica.instance.to_string().into(),
        ])?;
    }
    rows.finish()?;
    Ok(())
}

/// `planaria replica refresh`.
pub(super) fn refresh(global: &Global, arguments: &RefreshArgs) -> Result<(), CliError> {
    let session = arguments.place.place(global)?.open(IfAbsent::Fail)?;
    let way = arguments.way.map(|way| way.name());
    let info = session.refresh(arguments.dry_run, way)?;
    print(global, &report(&info, !arguments.dry_run))
}

fn report(info: &RefreshInfo, begun: bool) -> Report {
    let seconds = info.ms.map(Duration::from_millis);
    Report::new()
        .with("way", info.way.clone())
        .with("reason", info.reason.clone())
        .with("why", info.why.clone())
        .with("records", info.records.map_or(Cell::None, Cell::Count))
        .with("bytes", Cell::Bytes(info.bytes))
        .with("seconds", seconds.map_or(Cell::None, Cell::Duration))
        .with("begun", Cell::Bool(begun))
}
