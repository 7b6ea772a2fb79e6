//! What a node does with the requests of its clients: a [`Handler`] over one database.

pub(crate) mod quarantine;
mod rows;
mod tables;
mod view;

use bytes::Bytes;
use planaria_engine::{Batch, Database, Durability, Role, Table, Written, table};
use planaria_net::quic::Peer;
use planaria_net::quic::session::ReplicaSession;
use planaria_net::replica::Slot;
pub(crate) use planaria_net::replica::reads;
use planaria_net::wire::limits::ROWS_BYTES_TARGET;
use planaria_net::wire::message::{
    Call, DatabaseStatus, Level, RemoteError, Request, Response, Status, WriteOp, WriteOptions,
};
use planaria_net::wire::rpc::{BoxFuture, Exchange, Handler};
use planaria_types::{GroupId, KeyRange, Uid};

use crate::compare;

/// What a node does beyond its own database: replicas, clones, and commits that other copies acknowledge.
pub(crate) trait Companion: Send + Sync + 'static {
    /// Answers a request that is not about the database's own rows: the lists of replicas and clones, and clones.
    fn call(&self, peer: &Peer, request: Request, exchange: &mut Exchange) -> Result<Response, RemoteError>;

    /// By what a database that is not the node's own is read, if there is one of that name: a clone that comes in.
    fn view(&self, _name: &str) -> Result<Option<Database>, RemoteError> {
        Ok(None)
    }

    /// Takes over a connection of a replica. The connection ends when the future does.
    fn replica(&self, session: ReplicaSession) -> BoxFuture;

    /// Whether commits can wait for `level`; asked before a commit is made.
    fn accepts(&self, level: Level) -> Result<(), RemoteError>;

    /// Waits until the commit `uid`, which is durable here, is so at the level that `options` name. Errors say what is
    /// known: the commit itself has been made.
    fn wait(&self, uid: Uid, options: &WriteOptions) -> Result<(), RemoteError>;

    /// Adds to an error what the node knows more: where the primary is.
    fn explain(&self, error: RemoteError) -> RemoteError {
        error
    }

    /// On a secondary, up to where nothing is missing: its update time.
    fn closed(&self) -> Option<Uid> {
        None
    }

    /// Where the state of the database differs from what the engine knows: states of a secondary, the stable UID.
    fn describe(&self, status: &mut DatabaseStatus);
}

/// The companion of a node that stands alone: nobody follows it and it clones nothing.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Alone;

#[cfg(test)]
impl Companion for Alone {
    fn call(&self, _: &Peer, request: Request, _: &mut Exchange) -> Result<Response, RemoteError> {
        Err(unsupported(format!("this node does not answer {}", request_name(&request))))
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        // Dropping the session ends the connection.
        Box::pin(async move { drop(session) })
    }

    fn accepts(&self, level: Level) -> Result<(), RemoteError> {
        match level {
            Level::Database | Level::Local => Ok(()),
            Level::One | Level::Quorum | Level::All => Err(unsupported(format!(
                "no other copy follows this node that could acknowledge the level {level:?}"
            ))),
        }
    }

    fn wait(&self, _: Uid, _: &WriteOptions) -> Result<(), RemoteError> {
        Ok(())
    }

    fn describe(&self, _: &mut DatabaseStatus) {}
}

/// Answers the requests of clients from one database.
///
/// Memory is bounded: a scan holds one batch of rows, an import one batch and what its exchange holds.
pub(crate) struct DatabaseHandler {
    slot: Slot,
    /// The node's name in [`Status`].
    node: String,
    /// The database's name; a call may also name it by its id.
    name: String,
    companion: Box<dyn Companion>,
}

impl DatabaseHandler {
    /// A handler over `database`, which clients call `name`, on the node `node`.
    pub(crate) fn new(slot: Slot, node: &str, name: &str, companion: Box<dyn Companion>) -> Self {
        Self { slot, node: node.to_owned(), name: name.to_owned(), companion }
    }

    fn database(&self) -> Database {
        self.slot.get()
    }

    fn status(&self) -> Result<Response, RemoteError> {
        let mut database =
            database_status(&self.name, &self.database(), &self.database().status().map_err(remote)?);
        database.notices.extend(quarantine::notices(&self.database()));
        self.companion.describe(&mut database);
        Ok(Response::Status(Status {
            node: self.node.clone(),
            software: concat!("planaria ", env!("CARGO_PKG_VERSION")).to_owned(),
            databases: vec![database],
        }))
    }

    fn get(&self, table: &str, key: &[u8], at: Option<Uid>) -> Result<Response, RemoteError> {
        let snapshot = self.database().snapshot();
        check_cut(at, snapshot.uid())?;
        let table = self.database().table(table).map_err(remote)?;
        Ok(Response::Row(snapshot.find(table.id(), key).map_err(remote)?))
    }

    /// The rows of the first of these keys, as many as one answer takes.
    fn get_many(&self, table: &str, keys: &[Bytes], at: Option<Uid>) -> Result<Response, RemoteError> {
        let snapshot = self.database().snapshot();
        check_cut(at, snapshot.uid())?;
        let table = self.database().table(table).map_err(remote)?;
        let mut found = Vec::with_capacity(keys.len());
        let mut bytes = 0;
        for key in keys {
            let row = snapshot.find(table.id(), key).map_err(remote)?;
            bytes += row.as_ref().map_or(0, |(_, row)| row.len());
            found.push(row);
            if bytes >= ROWS_BYTES_TARGET {
                break;
            }
        }
        Ok(Response::Found(found))
    }

    fn write(&self, ops: Vec<WriteOp>, options: &WriteOptions) -> Result<Response, RemoteError> {
        self.check_options(options)?;
        let mut batch = Batch::new();
        let mut table: Option<Table> = None;
        for op in ops {
            let (WriteOp::Put { table: name, .. }
            | WriteOp::Delete { table: name, .. }
            | WriteOp::DeleteRange { table: name, .. }) = &op;
            let current = match table.take() {
                Some(table) if table.name() == name => table,
                _ => self.database().table(name).map_err(remote)?,
            };
            add_op(&mut batch, &current, op)?;
            table = Some(current);
        }
        let durable = options.durable;
        let durability = if durable { Durability::Synced } else { Durability::Background };
        let db = self.database();
        let Written { uid, again } = match options.token {
            Some(token) => db.write_once(batch, token, durability).map_err(remote)?,
            None => Written { uid: db.write(batch, durability).map_err(remote)?, again: false },
        };
        if durable {
            self.companion.wait(uid, options)?;
        }
        Ok(Response::Committed { uid, epoch: db.history().epoch_of(uid), again, durable })
    }

    fn check_options(&self, options: &WriteOptions) -> Result<(), RemoteError> {
        self.companion.accepts(options.level)
    }

    /// Waits until reads show what is asked for.
    fn wait_for(&self, wanted: &reads::Wanted) -> Result<Response, RemoteError> {
        reads::wait(&self.slot, || self.companion.closed(), wanted).map(|()| Response::Done)
    }

    fn digest(&self, names: &[String], at: Option<Uid>) -> Result<Response, RemoteError> {
        let snapshot = self.database().snapshot();
        check_cut(at, snapshot.uid())?;
        let mut definitions = snapshot.tables().map_err(remote)?;
        if let Some(unknown) = names.iter().find(|name| definitions.iter().all(|table| table.name != **name))
        {
            return Err(remote(planaria_engine::Error::UnknownTable { name: unknown.clone() }));
        }
        // Unless it is asked for others, a partial copy tells of what it holds wholly.
        definitions.retain(|table| {
            let is_asked = names.contains(&table.name);
            is_asked || (names.is_empty() && snapshot.holds(table.id, &KeyRange::ALL))
        });
        let tables = definitions.into_iter().map(|definition| {
            Ok((definition.name.clone(), snapshot.digest_of(&definition).map_err(remote)?))
        });
        Ok(Response::Digests { at: snapshot.uid(), tables: tables.collect::<Result<_, RemoteError>>()? })
    }

    fn verify(&self) -> Result<Response, RemoteError> {
        match self.database().verify() {
            Ok(verified) => Ok(Response::Verified { bytes: verified.bytes, damage: Vec::new() }),
            Err(error @ planaria_engine::Error::Damaged { .. }) => {
                Ok(Response::Verified { bytes: 0, damage: vec![error.to_string()] })
            }
            Err(error) => Err(remote(error)),
        }
    }

    fn is_meant(&self, database: &str) -> bool {
        database == self.name || database == self.database().id().to_string()
    }
}

impl Handler for DatabaseHandler {
    fn call(&self, peer: &Peer, call: Call, exchange: &mut Exchange) -> Result<Response, RemoteError> {
        let names_this =
            call.database.as_ref().is_some_and(|named| *named == self.database().id().to_string());
        if let Some(database) = call.database.filter(|database| !self.is_meant(database)) {
            if let Some(view) = self.companion.view(&database)? {
                return view::answer((&self.node, &database), view, peer, call.request, exchange);
            }
            let mut error =
                RemoteError::new("unknown_database", format!("this node hosts no database {database:?}"));
            error.hint =
                format!("it hosts {:?}, and lets clones be read that were created with --lazy", self.name);
            return Err(error);
        }
        if call.request.takes_the_lead() && !names_this {
            // A copy of another database, a clone of this one perhaps, may not depose whoever leads here.
            return Err(RemoteError::new("unknown_database", "who asks for the lead says of which database")
                .with_hint("name the database by its id"));
        }
        self.answer(peer, call.request, exchange).map_err(|error| self.companion.explain(error))
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        self.companion.replica(session)
    }
}

impl DatabaseHandler {
    fn answer(
        &self,
        peer: &Peer,
        request: Request,
        exchange: &mut Exchange,
    ) -> Result<Response, RemoteError> {
        match request {
            Request::Ping => Ok(Response::Done),
            Request::Status => self.status(),
            Request::TableList => self.list_tables(),
            Request::TableShow { name } => self.show_table(&name),
            Request::TableCreate { name, definition } => self.create_table(&name, &definition),
            Request::TableDrop { name } => {
                Err(unsupported(format!("this release cannot drop a table; table {name:?} stays")))
            }
            Request::Get { table, key, at } => self.get(&table, &key, at),
            Request::Write { ops, options } => self.write(ops, &options),
            Request::Scan(scan) => self.scan(scan, exchange),
            Request::GetMany { table, keys, at } => self.get_many(&table, &keys, at),
            Request::Import { table, options } => self.import(&table, &options, exchange),
            Request::Digest { tables, at } => self.digest(&tables, at),
            Request::Verify => self.verify(),
            Request::ExtractList => {
                quarantine::list(&self.database()).map(Response::Extracts).map_err(remote)
            }
            Request::ExtractRead { name, at } => {
                let (records, next) = quarantine::read(&self.database(), &name, at).map_err(remote)?;
                Ok(Response::ExtractPart { records, next })
            }
            Request::ExtractDrop { name } => {
                self.database().drop_extract(&name).map(|()| Response::Done).map_err(remote)
            }
            Request::Await { after, epoch, staleness_max_ms, timeout_ms } => {
                self.wait_for(&reads::Wanted { after, epoch, staleness_max_ms, timeout_ms })
            }
            Request::Compare { at, spans, parts } => {
                let (at, tilings) = compare::parts(&self.database(), at, &spans, parts)?;
                Ok(Response::Parts { at, tilings })
            }
            Request::SpanKeys { at, span } => {
                let (keys, more) = compare::keys(&self.database(), at, &span)?;
                Ok(Response::Keys { keys, more })
            }
            request => self.companion.call(peer, request, exchange),
        }
    }
}

/// Adds one operation to a batch, if it fits its table.
fn add_op(batch: &mut Batch, table: &Table, op: WriteOp) -> Result<(), RemoteError> {
    match op {
        WriteOp::Put { key, value, .. } => add_row(batch, table, key, value),
        WriteOp::Delete { key, .. } => {
            batch.delete(table.id(), key);
            Ok(())
        }
        WriteOp::DeleteRange { .. } => Err(unsupported("this release cannot delete a range of keys at once")),
    }
}

/// Adds a row to a batch, if it is one of the table's: what a client sends is not believed.
fn add_row(batch: &mut Batch, table: &Table, key: Bytes, row: Bytes) -> Result<(), RemoteError> {
    if table.definition().is_typed() {
        table::decode(table.definition(), &key, &row).map_err(remote)?;
    }
    batch.put(table.id(), key, row);
    Ok(())
}

/// Reads as of a cut work at the newest alone.
fn check_cut(asked: Option<Uid>, newest: Uid) -> Result<(), RemoteError> {
    match asked {
        Some(asked) if asked != newest => {
            Err(unsupported(format!("this release reads the newest cut, {newest}, and not {asked}")))
        }
        _ => Ok(()),
    }
}

/// What a database says of itself, in the words of the protocol.
pub(crate) fn database_status(name: &str, db: &Database, status: &planaria_engine::Status) -> DatabaseStatus {
    let (lead, mut notices) = match db.lead() {
        Ok(lead) => (lead, Vec::new()),
        Err(error) => (None, vec![error.to_string()]),
    };
    notices.extend(status.damage.as_ref().map(|what| format!("damage was met, replace this copy: {what}")));
    DatabaseStatus {
        name: name.to_owned(),
        database: status.database,
        instance: status.instance,
        group: GroupId::default(),
        state: match (status.role, db.deposed()) {
            (Role::Primary, None) => "primary",
            (Role::Primary, Some(_)) => "deposed",
            (Role::Secondary, _) => "stale",
        }
        .to_owned(),
        epoch: status.epoch,
        visible: status.visible,
        durable: status.durable,
        // Alone, a primary is all of the promotable set.
        stable: status.durable,
        disk_bytes: status.run_bytes + status.log_bytes,
        promised: db.promised(),
        position_epoch: db.position().epoch,
        level: lead.map(|lead| lead.level).unwrap_or_default(),
        primary: String::new(),
        notices,
        refresh: None,
        portion: db.portion(),
        lag_ms: None,
        depth: 0,
        refreshed: String::new(),
    }
}

/// An error of the engine, on its way to a client.
#[expect(clippy::needless_pass_by_value, reason = "it stands in map_err")]
pub(crate) fn remote(error: planaria_engine::Error) -> RemoteError {
    RemoteError::new(error.code(), error.to_string())
}

/// What this release or this node does not do.
pub(crate) fn unsupported(what: impl Into<String>) -> RemoteError {
    RemoteError::new("unsupported", what)
}

#[cfg(test)]
fn request_name(request: &Request) -> &'static str {
    match request {
        Request::ReplicaList => "which replicas follow",
        Request::ReplicaDo { .. } => "requests about a replica",
        Request::CloneCreate(_) => "requests to make a clone",
        Request::CloneList => "which clones there are",
        Request::CloneShow { .. } => "how a clone is",
        Request::CloneDo { .. } => "requests about a clone",
        _ => "this request",
    }
}

#[cfg(test)]
#[path = "handler_tests.rs"]
mod tests;
