//! A replica inside an application: a local copy of a node's database that follows it.
//!
//! Reads are those of the embedded engine, at its speed, from the copy on the own disk. The copy follows the primary in
//! the background, catches up after any absence, and can be read while the primary is away. Writes are sent to the
//! primary and answered with the position at which they are; [`Replica::wait_for`] that position, and reads show them.
//!
//! ```no_run
#![doc = include_str!("../../examples/replica.rs")]
//! ```
//!
//! It takes the feature `replica`, which draws in the network; without it the crate is the engine alone. A replica is a
//! secondary like any other: the primary lists it (`planaria replica list`), preserves for it what it needs to come
//! back, and waits for it where a level says so. Nobody can promote it while it is embedded, for it has no address.

mod carrier;
mod error;
mod forward;
mod lead;
mod options;
mod status;
mod table;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use planaria_engine::{Batch, Database, Schema, Snapshot, TableDef};
use planaria_net::replica::reads::{self, Wanted};
use planaria_net::replica::{Follow, FollowStatus, Follower, Slot, database_at};
use planaria_net::wire::limits::OPS_MAX;
use planaria_net::wire::message::WriteOp;
use planaria_types::{Position, TableId};

pub use planaria_net::replica::CloneProgress;
pub use planaria_net::wire::message::{Level, RemoteError};
pub use planaria_replication::secondary::State;
pub use planaria_replication::{Reason, Way};

use self::carrier::Carrier;
pub use self::error::ReplicaError;
pub use self::forward::Forward;
use self::forward::{Forwarder, PATIENCE};
use self::lead::Watch;
pub use self::options::ReplicaOptions;
use self::options::address_of;
pub use self::status::{LastRefresh, ReplicaStatus};
pub use self::table::ReplicaTable;

mod sealed {
    pub trait Sealed {}
    impl Sealed for planaria_engine::Database {}
}

/// Gives [`Database`] the call that opens replicas.
pub trait ReplicaOf: sealed::Sealed {
    /// A replica of the database that the node at `primary` (HOST:PORT) leads, yet to be opened.
    fn replica_of(primary: &str) -> ReplicaOptions;
}

impl ReplicaOf for Database {
    fn replica_of(primary: &str) -> ReplicaOptions {
        ReplicaOptions::new(primary.to_owned())
    }
}

/// A local copy that follows its primary. Cheap to clone; it follows until the last clone and the last
/// [`ReplicaTable`] of it are dropped.
#[derive(Clone)]
pub struct Replica(Arc<Held>);

struct Held {
    /// Ends before the rest does.
    _watch: Option<Watch>,
    inner: Arc<Inner>,
}

/// What a replica is made of.
struct Inner {
    // In the order in which they end: nobody follows any more, nobody writes, nothing is carried.
    pursuit: Mutex<Option<Pursuit>>,
    forwarder: Arc<Forwarder>,
    slot: Slot,
    follow: Follow,
    carrier: Carrier,
}

/// The pursuit of one primary.
struct Pursuit {
    primary: SocketAddr,
    follower: Follower,
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica").field("slot", &self.0.inner.slot).finish_non_exhaustive()
    }
}

impl Pursuit {
    fn begin(slot: &Slot, follow: &Follow, carrier: &Carrier) -> Result<Self, ReplicaError> {
        let follower = Follower::start(slot.clone(), follow.clone(), carrier.handle()?.clone())?;
        Ok(Self { primary: follow.primary, follower })
    }
}

impl Replica {
    /// A table, by its name.
    ///
    /// # Errors
    ///
    /// `unknown_table` if the copy has none of that name (yet).
    pub fn table(&self, name: &str) -> Result<ReplicaTable, ReplicaError> {
        ReplicaTable::new(self.clone(), name)
    }

    /// Has the primary make a table of typed columns with a primary key, and waits until this copy has it too.
    ///
    /// # Errors
    ///
    /// `table_exists` if there is one of that name; `no_primary` if nobody leads there, and nothing was made; `unknown` if the answer
    /// did not come; `not_reached` if it is made, and does not come here in 10 seconds; `unknown_table` if this copy is partial and
    /// is to hold others.
    pub fn create_table(&self, name: &str, schema: Schema) -> Result<ReplicaTable, ReplicaError> {
        self.create(TableDef::typed(TableId(0), name, schema)?)
    }

    /// As [`Replica::create_table`], of keys and rows that are bytes.
    ///
    /// # Errors
    ///
    /// As [`Replica::create_table`].
    pub fn create_raw_table(&self, name: &str) -> Result<ReplicaTable, ReplicaError> {
        self.create(TableDef::raw(TableId(0), name)?)
    }

    /// The primary gives the table its number.
    fn create(&self, definition: TableDef) -> Result<ReplicaTable, ReplicaError> {
        let (name, forwarder) = (definition.name.clone(), Arc::clone(&self.0.inner.forwarder));
        let made = self.0.inner.carrier.run(async move { forwarder.create(definition).await })??;
        self.wait_for(made, PATIENCE)?;
        self.table(&name)
    }

    /// A consistent view of all tables as of now.
    pub fn snapshot(&self) -> Snapshot {
        self.database().snapshot()
    }

    /// The local copy, for reads of all kinds; it takes no writes. Run files that take its place leave this handle at
    /// what it was: ask anew rather than keep it.
    pub fn database(&self) -> Database {
        self.0.inner.slot.get()
    }

    /// Has the primary make all of a batch or nothing. The commit is durable there, at the level of the database, when
    /// this returns; what it gives is where it is.
    ///
    /// # Errors
    ///
    /// `no_primary` if nobody leads there, and nothing was written; `unknown` if the answer did not come, and the same
    /// write can be sent again under the token that the error names; `too_large` for more than 65,536 operations; else
    /// the primary's refusal.
    pub fn write(&self, batch: &Batch) -> Result<Position, ReplicaError> {
        self.write_with(batch, Forward::default())
    }

    /// As [`Replica::write`], with a level, a token or a time of one's choice.
    pub fn write_with(&self, batch: &Batch, how: Forward) -> Result<Position, ReplicaError> {
        let ops = self.named(batch)?;
        let forwarder = Arc::clone(&self.0.inner.forwarder);
        self.0.inner.carrier.run(async move { forwarder.write(ops, how).await })?
    }

    /// The operations of a batch with the names of its tables.
    fn named(&self, batch: &Batch) -> Result<Vec<WriteOp>, ReplicaError> {
        if batch.len() > OPS_MAX {
            return Err(ReplicaError::TooMany { operations: batch.len(), limit: OPS_MAX });
        }
        let tables = self.database().tables()?;
        let named = |op: planaria_engine::CommitOp<'_>| {
            let table = tables.iter().find(|table| table.id == op.table);
            let table = table.map(|table| table.name.clone());
            let table =
                table.ok_or_else(|| planaria_engine::Error::UnknownTable { name: op.table.to_string() })?;
            let key = op.key.to_vec().into();
            Ok(if op.kind == planaria_engine::RecordKind::Put {
                WriteOp::Put { table, key, value: op.row.to_vec().into() }
            } else {
                WriteOp::Delete { table, key }
            })
        };
        batch.ops().map(named).collect()
    }

    /// Waits until reads show a position: what a write gave, here or elsewhere.
    ///
    /// # Errors
    ///
    /// `not_reached` if they do not in time, `taken_back` if the commit was lost with a primary.
    pub fn wait_for(&self, position: Position, timeout: Duration) -> Result<(), ReplicaError> {
        let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX).max(1);
        let (after, epoch) = (Some(position.uid), Some(position.epoch));
        let wanted = Wanted { after, epoch, staleness_max_ms: None, timeout_ms };
        let inner = &self.0.inner;
        let closed = || Some(inner.following().replica.closed);
        reads::wait(&inner.slot, closed, &wanted).map_err(ReplicaError::NotShown)
    }

    /// How it is.
    pub fn status(&self) -> ReplicaStatus {
        let inner = &self.0.inner;
        let primary = inner.primary().unwrap_or(inner.follow.primary);
        ReplicaStatus::of(primary, &self.database(), inner.following())
    }

    /// Follows another node, and sends writes there, from now on: after a promotion, or a move.
    ///
    /// # Errors
    ///
    /// What the network says if the node does not answer, `foreign_database` if it leads another database; the replica
    /// follows whom it did then.
    pub fn follow(&self, primary: &str) -> Result<(), ReplicaError> {
        self.0.inner.follow(address_of(primary)?)
    }

    /// Has the copy refreshed by this way, if it leads to the primary's state; by another, which then says why, if not.
    pub fn refresh(&self, way: Way) {
        if let Some(pursuit) = self.0.inner.pursuit().as_ref() {
            pursuit.follower.refresh(way);
        }
    }

    fn slot(&self) -> &Slot {
        &self.0.inner.slot
    }
}

impl Inner {
    fn follow(&self, primary: SocketAddr) -> Result<(), ReplicaError> {
        let credentials = self.follow.credentials.clone();
        let there = self.carrier.run(async move { database_at(primary, &credentials).await })??;
        let database = self.slot.get();
        if there.database != database.id() {
            return Err(planaria_net::Error::ForeignDatabase {
                path: database.path().to_path_buf(),
                own: database.id(),
                primary,
                led: there.database,
            }
            .into());
        }
        let mut pursuit = self.pursuit();
        // One session ends in good order before the next begins.
        drop(pursuit.take());
        let follow = Follow { primary, ..self.follow.clone() };
        *pursuit = Some(Pursuit::begin(&self.slot, &follow, &self.carrier)?);
        self.forwarder.turn_to(primary);
        Ok(())
    }

    fn primary(&self) -> Result<SocketAddr, ReplicaError> {
        self.pursuit().as_ref().map(|pursuit| pursuit.primary).ok_or(ReplicaError::Closed)
    }

    fn following(&self) -> FollowStatus {
        self.pursuit().as_ref().map(|pursuit| pursuit.follower.status()).unwrap_or_default()
    }

    fn pursuit(&self) -> MutexGuard<'_, Option<Pursuit>> {
        self.pursuit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
