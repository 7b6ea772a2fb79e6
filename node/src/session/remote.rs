use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;

use bytes::Bytes;
use planaria_engine::{Schema, TableDef};
use planaria_net::quic::{Credentials, TlsStore};
use planaria_net::wire::client::{Client, Import};
use planaria_net::wire::message::{
    CloneAction, CloneInfo, CloneSpec, CloneTake, ExtractInfo, ExtractRecord, Promotion, PromotionWish,
    RefreshInfo, ReplicaAction, ReplicaInfo, Request, Response, ScanSpec, Shape, TableInfo, WriteOp,
    WriteOptions,
};
use planaria_net::wire::routed::RoutedClient;
use planaria_net::wire::rows::RowsBuilder;
use planaria_replication::{Span, Tiling};
use planaria_types::{Fingerprint, Position, TableId, Uid};
use tokio::runtime::Runtime;

use super::{
    Appender, Commit, PlaceStatus, RowChange, Session, StoredRow, TableSummary, Verification, Visitor,
    WriteChoice,
};
use crate::compare::KeySum;
use crate::handler::reads::Wanted;
use crate::output::CliError;

/// Keys that one request asks for, and their bytes, at most; a longer key goes alone.
const KEYS_ASKED_MAX: usize = 4_096;
const KEY_BYTES_ASKED_MAX: usize = 1 << 20;

/// A database of a node or of a cluster, spoken to over the network.
pub(crate) struct RemoteSession {
    runtime: Runtime,
    link: Link,
    choice: WriteChoice,
}

/// Who is spoken to.
enum Link {
    /// One node.
    Node(Client),
    /// Whoever leads, or is fresh enough.
    Cluster(RoutedClient),
}

impl RemoteSession {
    /// Connects to the node at `address`, with the certificates in `tls` or the user's own.
    ///
    /// Fails with `usage` if the address is none.
    pub(crate) fn connect(address: &str, tls: Option<&Path>) -> Result<Self, CliError> {
        let (address, credentials, runtime) = Self::prepare(address, tls)?;
        let client = runtime.block_on(Client::connect(address, &credentials))?;
        Ok(Self { runtime, link: Link::Node(client), choice: WriteChoice::default() })
    }

    /// A session with the database of that name in the cluster of a control center, or with the only one. Whoever leads is connected to
    /// when something is asked.
    ///
    /// Fails with `usage` if the address is none.
    pub(crate) fn route(center: &str, database: Option<&str>, tls: Option<&Path>) -> Result<Self, CliError> {
        let (center, credentials, runtime) = Self::prepare(center, tls)?;
        let link = Link::Cluster(RoutedClient::new(center, database, credentials));
        Ok(Self { runtime, link, choice: WriteChoice::default() })
    }

    fn prepare(address: &str, tls: Option<&Path>) -> Result<(SocketAddr, Credentials, Runtime), CliError> {
        let address = resolve(address)?;
        let store = TlsStore::choose(tls, None)?;
        let credentials = if tls.is_some() { store.load()? } else { store.load_or_create()? };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().map_err(
                |error| CliError::new("io", format!("cannot start threads for the network: {error}")),
            )?;
        Ok((address, credentials, runtime))
    }

    /// The same session, about a database of the node's that is not its own.
    pub(crate) fn of_database(mut self, name: Option<&str>) -> Self {
        if let (Some(name), Link::Node(client)) = (name, &mut self.link) {
            *client = client.clone().with_database(name);
        }
        self
    }

    fn call(&self, request: Request) -> Result<Response, CliError> {
        Ok(match &self.link {
            Link::Node(client) => self.runtime.block_on(client.call(request))?,
            Link::Cluster(routed) => self.runtime.block_on(routed.call(request))?,
        })
    }

    /// The address of the node that is spoken to.
    pub(super) fn leader(&self) -> Result<SocketAddr, CliError> {
        Ok(self.client()?.peer().address)
    }

    /// The client of the node that answers, for what is not one question and one answer.
    fn client(&self) -> Result<Client, CliError> {
        Ok(match &self.link {
            Link::Node(client) => client.clone(),
            Link::Cluster(routed) => self.runtime.block_on(routed.client())?,
        })
    }

    /// Has the node take a clone of another node's database.
    pub(crate) fn clone_take(&self, take: CloneTake) -> Result<CloneInfo, CliError> {
        self.clone_call(Request::CloneTake(Box::new(take)))
    }

    /// A clone of the node's, by its name.
    pub(crate) fn clone_show(&self, name: &str) -> Result<CloneInfo, CliError> {
        self.clone_call(Request::CloneShow { name: name.to_owned() })
    }

    /// Does something with a clone of the node's.
    pub(crate) fn clone_do(&self, name: &str, action: CloneAction) -> Result<CloneInfo, CliError> {
        self.clone_call(Request::CloneDo { name: name.to_owned(), action })
    }

    fn clone_call(&self, request: Request) -> Result<CloneInfo, CliError> {
        match self.call(request)? {
            Response::Clone(clone) => Ok(clone),
            other => Err(unexpected(&other)),
        }
    }

    fn options(&self) -> WriteOptions {
        let WriteChoice { level, timeout_ms, .. } = self.choice;
        WriteOptions { level, timeout_ms, ..WriteOptions::default() }
    }
}

impl Drop for RemoteSession {
    fn drop(&mut self) {
        match &self.link {
            Link::Node(client) => self.runtime.block_on(client.clone().close()),
            Link::Cluster(routed) => self.runtime.block_on(routed.close()),
        }
    }
}

/// The first address that the text names.
pub(crate) fn resolve(text: &str) -> Result<SocketAddr, CliError> {
    let wrong = |why: String| {
        CliError::usage(format!("{text:?} is no address of a node: {why}"))
            .hint("write it as HOST:PORT, as in 127.0.0.1:4747 or [::1]:4747")
    };
    let mut addresses = text.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    addresses.next().ok_or_else(|| wrong("the name has no address".into()))
}

fn unexpected(response: &Response) -> CliError {
    let shown: String = format!("{response:?}").chars().take(80).collect();
    CliError::new("protocol", format!("the node gave an answer to another question: {shown}"))
        .hint("check that node and command line are of the same release")
}

fn summary(info: &TableInfo) -> Result<TableSummary, CliError> {
    Ok(TableSummary {
        definition: TableDef::decode(&info.definition)?,
        disk_bytes: info.disk_bytes,
        fragments: info.fragments.into(),
    })
}

impl Session for RemoteSession {
    fn status(&self) -> Result<PlaceStatus, CliError> {
        match self.call(Request::Status)? {
            Response::Status(status) => {
                Ok(PlaceStatus { place: status.node, software: status.software, databases: status.databases })
            }
            other => Err(unexpected(&other)),
        }
    }

    fn tables(&self) -> Result<Vec<TableSummary>, CliError> {
        match self.call(Request::TableList)? {
            Response::Tables(tables) => tables.iter().map(summary).collect(),
            other => Err(unexpected(&other)),
        }
    }

    fn table(&self, name: &str) -> Result<TableSummary, CliError> {
        match self.call(Request::TableShow { name: name.to_owned() })? {
            Response::Table(table) => summary(&table),
            other => Err(unexpected(&other)),
        }
    }

    fn create_table(&self, name: &str, schema: Option<Schema>) -> Result<TableSummary, CliError> {
        let definition = match schema {
            // The node gives the table its id.
            Some(schema) => TableDef::typed(TableId(0), name, schema)?.encode()?.into(),
            None => Bytes::new(),
        };
        match self.call(Request::TableCreate { name: name.to_owned(), definition })? {
            Response::Table(table) => summary(&table),
            other => Err(unexpected(&other)),
        }
    }

    fn get(&self, table: &TableSummary, key: &[u8]) -> Result<Option<Bytes>, CliError> {
        Ok(found_in(self.call(get(table, key))?)?.map(|(_, row)| row))
    }

    fn find_many(&self, table: &TableSummary, keys: &[&[u8]]) -> Result<Vec<Option<(Uid, Bytes)>>, CliError> {
        let mut rows = Vec::with_capacity(keys.len());
        while let Some(left) = keys.get(rows.len()..).filter(|left| !left.is_empty()) {
            let request =
                Request::GetMany { table: table.definition.name.clone(), keys: first_of(left), at: None };
            match self.call(request)? {
                Response::Found(found) if !found.is_empty() && found.len() <= left.len() => {
                    rows.extend(found);
                }
                other => return Err(unexpected(&other)),
            }
        }
        Ok(rows)
    }

    fn set_write_choice(&mut self, choice: WriteChoice) -> Result<(), CliError> {
        self.choice = choice;
        Ok(())
    }

    fn wait_for(&self, wanted: &Wanted) -> Result<(), CliError> {
        let Wanted { after, epoch, staleness_max_ms, timeout_ms } = *wanted;
        let request = Request::Await { after, epoch, staleness_max_ms, timeout_ms };
        if let (Link::Cluster(routed), Some(staleness_max_ms)) = (&self.link, staleness_max_ms) {
            return Ok(self.runtime.block_on(routed.turn_to_reader(staleness_max_ms, &request))?);
        }
        match self.call(request)? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn confirm(&self, timeout_ms: u32) -> Result<(), CliError> {
        match self.call(Request::Confirm { timeout_ms })? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn promote(&self, wish: PromotionWish) -> Result<Promotion, CliError> {
        match self.call(Request::Promote(wish))? {
            Response::Promotion(promotion) => Ok(promotion),
            other => Err(unexpected(&other)),
        }
    }

    fn follow(&self, primary: SocketAddr) -> Result<(), CliError> {
        match self.call(Request::Follow { primary })? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn write(&self, table: &TableSummary, changes: Vec<RowChange>) -> Result<Commit, CliError> {
        let op = |RowChange { key, row }: RowChange| {
            let table = table.definition.name.clone();
            match row {
                Some(value) => WriteOp::Put { table, key, value },
                None => WriteOp::Delete { table, key },
            }
        };
        let token = self.choice.token.unwrap_or_else(planaria_net::wire::client::new_token);
        let options = WriteOptions { durable: true, token: Some(token), ..self.options() };
        match self.call(Request::Write { ops: changes.into_iter().map(op).collect(), options }) {
            Ok(Response::Committed { uid, epoch, again, .. }) => {
                Ok(Commit { position: Position { epoch, uid }, again })
            }
            Ok(other) => Err(unexpected(&other)),
            // Whether it was made is not known, and need not be.
            Err(error)
                if matches!(
                    &*error.code,
                    "unknown" | "connection_lost" | "timed_out" | "ended" | "cancelled"
                ) =>
            {
                Err(error.hint(format!(
                    "the same command with --token {token:032x} makes it once, whoever leads then"
                )))
            }
            Err(error) => Err(error),
        }
    }

    fn scan(&self, scan: ScanSpec, visit: &mut Visitor<'_>) -> Result<(), CliError> {
        let mut stream = self.runtime.block_on(self.client()?.stream(Request::Scan(scan)))?;
        while let Some(rows) = self.runtime.block_on(stream.next())? {
            for row in rows {
                if !visit(&row.key, &row.value)? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn append(&self, table: &TableSummary) -> Result<Box<dyn Appender + '_>, CliError> {
        let table = table.definition.name.clone();
        Ok(Box::new(RemoteAppender {
            session: self,
            table,
            import: None,
            settled: 0,
            batch: RowsBuilder::new(),
        }))
    }

    fn digests(&self, tables: &[String]) -> Result<Vec<(String, Fingerprint)>, CliError> {
        match self.call(Request::Digest { tables: tables.to_vec(), at: None })? {
            Response::Digests { tables, .. } => Ok(tables),
            other => Err(unexpected(&other)),
        }
    }

    fn verify(&self) -> Result<Verification, CliError> {
        match self.call(Request::Verify)? {
            Response::Verified { bytes, damage } => {
                Ok(Verification { bytes, damage, ..Verification::default() })
            }
            other => Err(unexpected(&other)),
        }
    }

    fn replicas(&self) -> Result<Vec<ReplicaInfo>, CliError> {
        match self.call(Request::ReplicaList)? {
            Response::Replicas(replicas) => Ok(replicas),
            other => Err(unexpected(&other)),
        }
    }

    fn replica_do(&self, named: &str, action: ReplicaAction) -> Result<Vec<ReplicaInfo>, CliError> {
        match self.call(Request::ReplicaDo { name: named.to_owned(), action })? {
            Response::Replicas(replicas) => Ok(replicas),
            other => Err(unexpected(&other)),
        }
    }

    fn refresh(&self, dry_run: bool, way: Option<&str>) -> Result<RefreshInfo, CliError> {
        match self.call(Request::ReplicaRefresh { dry_run, way: way.map(str::to_owned) })? {
            Response::Refresh(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    fn parts(&self, at: Option<Uid>, spans: &[Span], parts: u32) -> Result<(Uid, Vec<Tiling>), CliError> {
        match self.call(Request::Compare { at, spans: spans.to_vec(), parts })? {
            Response::Parts { at, tilings } => Ok((at, tilings)),
            other => Err(unexpected(&other)),
        }
    }

    fn keys(&self, at: Uid, span: &Span) -> Result<(Vec<KeySum>, bool), CliError> {
        match self.call(Request::SpanKeys { at, span: span.clone() })? {
            Response::Keys { keys, more } => Ok((keys, more)),
            other => Err(unexpected(&other)),
        }
    }

    fn clones(&self) -> Result<Vec<CloneInfo>, CliError> {
        match self.call(Request::CloneList)? {
            Response::Clones(clones) => Ok(clones),
            other => Err(unexpected(&other)),
        }
    }

    fn extracts(&self) -> Result<Vec<ExtractInfo>, CliError> {
        match self.call(Request::ExtractList)? {
            Response::Extracts(extracts) => Ok(extracts),
            other => Err(unexpected(&other)),
        }
    }

    fn read_extract(
        &self,
        name: &str,
        at: Option<u64>,
    ) -> Result<(Vec<ExtractRecord>, Option<u64>), CliError> {
        match self.call(Request::ExtractRead { name: name.to_owned(), at })? {
            Response::ExtractPart { records, next } => Ok((records, next)),
            other => Err(unexpected(&other)),
        }
    }

    fn drop_extract(&self, name: &str) -> Result<(), CliError> {
        match self.call(Request::ExtractDrop { name: name.to_owned() })? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    fn clone_locally(&self, target: &Path, shape: Shape) -> Result<CloneInfo, CliError> {
        let Shape { as_of, leave_out, filters, masks } = shape;
        let name = target.display().to_string();
        let spec = CloneSpec { name, as_of, leave_out, filters, masks, ..CloneSpec::default() };
        match self.call(Request::CloneCreate(spec))? {
            Response::Clone(clone) => Ok(clone),
            other => Err(unexpected(&other)),
        }
    }
}

/// As many of these keys as one request takes.
fn first_of(keys: &[&[u8]]) -> Vec<Bytes> {
    let mut bytes = 0;
    let fits = |key: &&&[u8]| {
        let is_first = bytes == 0;
        bytes += key.len().max(1);
        is_first || bytes <= KEY_BYTES_ASKED_MAX
    };
    keys.iter().take(KEYS_ASKED_MAX).take_while(fits).map(|key| Bytes::copy_from_slice(key)).collect()
}

fn get(table: &TableSummary, key: &[u8]) -> Request {
    Request::Get { table: table.definition.name.clone(), key: Bytes::copy_from_slice(key), at: None }
}

fn found_in(response: Response) -> Result<Option<(Uid, Bytes)>, CliError> {
    match response {
        Response::Row(row) => Ok(row),
        other => Err(unexpected(&other)),
    }
}

/// Streams rows to the node, which commits each batch in the background and syncs at the end of the stream.
struct RemoteAppender<'a> {
    session: &'a RemoteSession,
    table: String,
    /// The stream that is open, if one is.
    import: Option<Import>,
    /// Rows of streams that have ended.
    settled: u64,
    batch: RowsBuilder,
}

impl RemoteAppender<'_> {
    fn send_batch(&mut self) -> Result<(), CliError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let runtime = &self.session.runtime;
        let import = match &mut self.import {
            Some(import) => import,
            none => {
                let options = self.session.options();
                let request = Request::Import { table: self.table.clone(), options };
                none.insert(runtime.block_on(self.session.client()?.import(request))?)
            }
        };
        Ok(runtime.block_on(import.send(self.batch.take()))?)
    }
}

impl Appender for RemoteAppender<'_> {
    fn push(&mut self, rows: Vec<StoredRow>) -> Result<(), CliError> {
        for StoredRow { key, row } in rows {
            if self.batch.push(Uid::ZERO, &key, &row).is_err() {
                self.send_batch()?;
                self.batch.push(Uid::ZERO, &key, &row)?;
            }
            if self.batch.is_full() {
                self.send_batch()?;
            }
        }
        self.send_batch()
    }

    /// Ends the stream: its answer comes when all its rows are committed. The next portion begins another.
    fn settle(&mut self) -> Result<(), CliError> {
        let Some(import) = self.import.take() else { return Ok(()) };
        self.settled += import.acked().rows;
        let acked = import.acked().rows;
        match self.session.runtime.block_on(import.finish())? {
            Response::Imported { rows, .. } => {
                self.settled += rows.saturating_sub(acked);
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    fn finish(&mut self) -> Result<(), CliError> {
        self.settle()
    }

    fn taken(&self) -> u64 {
        self.settled + self.import.as_ref().map_or(0, |import| import.acked().rows)
    }
}
