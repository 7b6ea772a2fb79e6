//! Who leads a group, which copies may, and how the lead changes hands.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use planaria_types::{DatabaseId, Epoch, InstanceId, TableId, Uid};
use serde::{Deserialize, Serialize};

use crate::commit::Batch;
use crate::database::{Database, Durability};
use crate::error::{Error, Result};
use crate::store::{Gate, LEAD_KEY};
use crate::version::Role;

/// Who leads, and which copies may: a record of the system fragment, so that every copy knows it as far as its log goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Lead {
    /// The copy that leads.
    pub instance: InstanceId,
    /// Its name, for people.
    pub name: String,
    /// Where it listens, if it does.
    pub address: Option<SocketAddr>,
    /// The epoch under which it wrote this.
    pub epoch: Epoch,
    /// The level that the database prescribes, by name; the engine gives it no meaning.
    pub level: String,
    /// The promotable set, the copy that leads among it.
    pub promotable: BTreeSet<InstanceId>,
    /// The next promotable set, while it changes.
    pub next: Option<BTreeSet<InstanceId>>,
}

impl Database {
    /// Who leads, as far as the log of this copy goes, shown or not.
    pub fn lead(&self) -> Result<Option<Lead>> {
        Ok(self.read_lead()?.map(|(lead, _)| lead))
    }

    /// Whether who leads was written down in another database, which this one was cloned from: who follows there, and who may
    /// lead, is nobody of this one.
    pub fn lead_is_of_another(&self) -> Result<bool> {
        let database = self.read_lead()?.and_then(|(_, database)| database);
        Ok(database.is_some_and(|database| database != self.id()))
    }

    /// The record, and the database that it was written in; early ones do not tell that.
    fn read_lead(&self) -> Result<Option<(Lead, Option<DatabaseId>)>> {
        let row = self.snapshot_of_all().get(TableId::SYSTEM, LEAD_KEY)?;
        let decode = |row: bytes::Bytes| {
            let (lead, rest) = postcard::take_from_bytes(&row)?;
            let database = if rest.is_empty() { None } else { Some(postcard::from_bytes(rest)?) };
            Ok((lead, database))
        };
        let unreadable =
            |error: postcard::Error| Error::Invalid(format!("who leads cannot be read: {error}"));
        row.map(decode).transpose().map_err(unreadable)
    }

    /// Writes down who leads, durably. Returns the commit.
    pub fn set_lead(&self, lead: &Lead) -> Result<Uid> {
        let row = postcard::to_stdvec(lead)
            .and_then(|row| postcard::to_extend(&self.id(), row))
            .map_err(|error| Error::Invalid(format!("who leads cannot be written: {error}")))?;
        let mut batch = Batch::new();
        batch.put(TableId::SYSTEM, LEAD_KEY, row);
        self.commit(batch, Durability::Synced)
    }

    /// Makes a secondary the primary, at once: `epoch` begins, durably, at the end of its log, which it inherits whole.
    /// Nobody may be following for it any more.
    ///
    /// # Errors
    ///
    /// `Deposed` if it has promised a newer epoch, `Invalid` if it leads already or the epoch is not newer than its last.
    pub fn promote(&self, epoch: Epoch) -> Result<()> {
        self.store().promote(epoch)
    }

    /// The epoch that a promotion of this copy begins, if the others have promised no newer one than `known`.
    pub fn next_epoch(&self, known: Epoch) -> Epoch {
        let own = self.promised().term.max(self.epoch().term);
        Epoch { term: own.max(known.term) + 1, incarnation: 1, nonce: self.store().options.os.random_u64() }
    }

    /// The newer epoch that ended this primary's reign, if one did.
    pub fn deposed(&self) -> Option<Epoch> {
        match *self.store().gate.lock() {
            Gate::Deposed(epoch) if self.role() == Role::Primary => Some(epoch),
            _ => None,
        }
    }

    /// Has a primary take no commits while its lead is handed over, or take them again. Commits that are being made when
    /// this is called are done when it returns.
    pub fn hand_over(&self, begins: bool) {
        let store = self.store();
        let _writer = store.lock_writer();
        let mut gate = store.gate.lock();
        *gate = match (*gate, begins) {
            (Gate::Open | Gate::HandingOver, true) => Gate::HandingOver,
            (Gate::HandingOver, false) => Gate::Open,
            (other, _) => other,
        };
    }

    /// Has a primary take no commits for as long as it is open: another copy holds something of `other`, which has the number of its own
    /// epoch. Nothing is written down; being promoted, or becoming a secondary, ends that.
    pub fn stand_back(&self, other: Epoch) {
        let store = self.store();
        let _writer = store.lock_writer();
        let mut gate = store.gate.lock();
        if self.role() == Role::Primary && *gate == Gate::Open {
            *gate = Gate::Deposed(other);
        }
    }

    /// Whether commits are refused for now or for good.
    pub fn is_gated(&self) -> bool {
        *self.store().gate.lock() != Gate::Open
    }

    /// Closes the past: no commit at or below the result will be drawn any more.
    pub fn close_past(&self) -> Result<Uid> {
        self.store().close_past()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "leadership_tests.rs"]
mod tests;
