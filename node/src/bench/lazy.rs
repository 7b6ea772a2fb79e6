//! A clone that is read while it comes in, for `bench clone --kind lazy`.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use planaria_engine::{CloneRole, Options};
use planaria_net::quic::Transport;
use planaria_net::replica::{LazyTaking, Pace, Taking};
use tokio::runtime::Runtime;

use crate::node::Node;
use crate::output::CliError;
use crate::stopwatch::Stopwatch;

/// What taking a clone lazily came to.
pub(super) struct Taken {
    /// From the call to the answer of the first read.
    pub(super) first_read: Duration,
    pub(super) bytes: u64,
}

/// Takes a clone of `source`, and reads a key of a table as soon as that can be done.
pub(super) fn take(
    source: &Node,
    runtime: &Runtime,
    target: &Path,
    (table, key): (&str, &[u8]),
    rate: Option<u64>,
) -> Result<Taken, CliError> {
    // One of them is read; the bench has no reason to see another.
    let (opened, views) = sync_channel(1);
    let mut taking = Taking::new(target, CloneRole::Detached, &Options::default());
    taking.pace = Arc::new(Pace::new(rate));
    let (address, credentials) = (source.address(), source.credentials().clone());
    let stopwatch = Stopwatch::start();
    let lazy = LazyTaking::new(taking, move |view| drop(opened.try_send(view)))?;
    let coming = runtime
        .spawn(async move { lazy.take_from(address, &credentials, &Transport::default(), |_| {}).await });
    let first_read = match views.recv() {
        Ok(view) => {
            let found = view.snapshot().get(view.table(table)?.id(), key)?;
            found.ok_or_else(|| CliError::new("bench", "the clone lacks a record of its source"))?;
            Some(stopwatch.elapsed())
        }
        // Why, the clone itself says.
        Err(_) => None,
    };
    let done = runtime.block_on(coming).map_err(|_| CliError::new("bench", "the clone broke off"))??;
    let first_read = first_read.ok_or_else(|| CliError::new("bench", "the clone could not be read"))?;
    Ok(Taken { first_read, bytes: done.total_bytes })
}
