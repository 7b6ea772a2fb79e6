use std::path::Path;
use std::sync::Arc;

use planaria_engine::{CloneRole, Options};
use planaria_net::quic::{TlsStore, Transport};
use planaria_net::replica::clone_from;

use super::progress::ByteBar;
use super::serve::runtime;
use super::{print, stdout, target};
use crate::cli::{CloneCreateArgs, CloneFor, Global, PlaceArgs};
use crate::output::{Cell, CliError, Heading, Report, RowWriter};
use crate::session::{IfAbsent, Place, resolve};
use crate::stopwatch::Stopwatch;

/// `planaria clone create`.
pub(super) fn create(global: &Global, arguments: &CloneCreateArgs) -> Result<(), CliError> {
    let stopwatch = Stopwatch::start();
    match arguments.place.place(global)? {
        Place::Node { address, tls } if !arguments.on_node => {
            fetch(global, &address, tls.as_deref(), arguments, &stopwatch)
        }
        place => {
            if arguments.role != CloneFor::Detached {
                return Err(CliError::usage("a clone on the same disk is a database of its own")
                    .hint("for a secondary use `planaria serve NEW --replica-of ADDR`"));
            }
            let session = place.open(IfAbsent::Fail)?;
            let clone = session.clone_locally(&arguments.target)?;
            let report = Report::new()
                .with("clone", clone.target)
                .with("kind", "local")
                .with("cut", clone.cut.map(|cut| cut.to_string()).unwrap_or_default())
                .with("bytes", Cell::Bytes(clone.done_bytes))
                .with("seconds", Cell::Duration(stopwatch.elapsed()));
            print(global, &report)
        }
    }
}

/// Takes a clone of a node's database into a directory of this machine.
fn fetch(
    global: &Global,
    address: &str,
    tls: Option<&Path>,
    arguments: &CloneCreateArgs,
    stopwatch: &Stopwatch,
) -> Result<(), CliError> {
    let address = resolve(address)?;
    let store = TlsStore::choose(tls, None)?;
    let credentials = if tls.is_some() { store.load()? } else { store.load_or_create()? };
    let runtime = Arc::new(runtime()?);
    let bar = ByteBar::new("cloning");
    let shown = bar.clone();
    let role = match arguments.role {
        CloneFor::Detached => CloneRole::Detached,
        CloneFor::Secondary => CloneRole::Secondary,
    };
    let cloned = runtime.block_on(clone_from(
        address,
        &credentials,
        &Transport::default(),
        &arguments.target,
        role,
        &Options::default(),
        move |progress| shown.show(progress.done_bytes, progress.total_bytes),
    ));
    bar.finish();
    let cloned = cloned?;
    let report = Report::new()
        .with("clone", arguments.target.display().to_string())
        .with("kind", "remote")
        .with("files", Cell::Count(cloned.files))
        .with("bytes", Cell::Bytes(cloned.total_bytes))
        .with("resumed_bytes", Cell::Bytes(cloned.resumed_bytes))
        .with("seconds", Cell::Duration(stopwatch.elapsed()));
    print(global, &report)
}

/// `planaria clone list`.
pub(super) fn list(global: &Global, arguments: &PlaceArgs) -> Result<(), CliError> {
    let session = arguments.place(global)?.open(IfAbsent::Fail)?;
    let headings = ["name", "state", "target", "cut"].map(Heading::text);
    let headings = headings.into_iter().chain([Heading::number("bytes")]).collect();
    let mut rows = RowWriter::new(stdout(), target(global), headings, "")?;
    for clone in session.clones()? {
        rows.write(&[
            clone.name.into(),
            clone.state.into(),
            clone.target.into(),
            clone.cut.map(|cut| cut.to_string()).unwrap_or_default().into(),
            Cell::Bytes(clone.done_bytes),
        ])?;
    }
    rows.finish()?;
    Ok(())
}
