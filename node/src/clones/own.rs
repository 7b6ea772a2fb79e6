//! What of the directories of a clone is its own.

use std::path::Path;

use planaria_engine::CloneAbout;
use planaria_net::wire::message::RemoteError;

use super::Shared;
use super::ledger::Entry;
use crate::handler::remote;

impl Shared {
    /// Removes a clone and what it has replaced. Where something else has come into its place, another clone or what it had replaced
    /// itself, that stays, and the clone goes where it is kept. Whether its place is free.
    pub(super) fn remove_files(&self, entry: &Entry) -> Result<bool, RemoteError> {
        let dir = &entry.job.dir;
        let place = self.place(dir);
        let is_own = self.is_own(entry, dir)?;
        if is_own {
            place.remove().map_err(remote)?;
        }
        if is_own || self.is_own(entry, &place.replaced())? {
            place.drop_replaced().map_err(remote)?;
        }
        Ok(is_own || !self.taker.engine.os.exists(dir))
    }

    /// Removes a clone that is whole and could not take the place that it was made for.
    pub(super) fn remove_waiting(&self, entry: &Entry) -> Result<(), RemoteError> {
        let place = self.place(&entry.job.dir);
        if self.is_own(entry, &place.next())? {
            place.abandon().map_err(remote)?;
        }
        Ok(())
    }

    /// Whether what lies in `dir` says of itself that it is this clone: by its name, and made since this one was asked for.
    fn is_own(&self, entry: &Entry, dir: &Path) -> Result<bool, RemoteError> {
        let about = CloneAbout::read(&self.taker.engine.os, dir).map_err(remote)?;
        Ok(about.is_some_and(|about| about.name == entry.job.name && about.made_ms >= entry.created_ms))
    }
}
