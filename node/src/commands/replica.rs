use super::{stdout, target};
use crate::cli::{Global, PlaceArgs};
use crate::output::{Cell, CliError, Heading, RowWriter};
use crate::session::IfAbsent;

/// `planaria replica list`.
pub(super) fn list(global: &Global, arguments: &PlaceArgs) -> Result<(), CliError> {
    let session = arguments.place(global)?.open(IfAbsent::Fail)?;
    let headings = ["name", "state", "promotable", "durable"].map(Heading::text);
    let headings =
        headings.into_iter().chain([Heading::number("lag_ms"), Heading::text("instance")]).collect();
    let mut rows = RowWriter::new(stdout(), target(global), headings, "")?;
    for replica in session.replicas()? {
        rows.write(&[
            replica.node.into(),
            replica.state.into(),
            Cell::Bool(replica.promotable),
            replica.durable.to_string().into(),
            Cell::Count(replica.lag_ms),
            replica.instance.to_string().into(),
        ])?;
    }
    rows.finish()?;
    Ok(())
}
