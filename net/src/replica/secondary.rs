use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use planaria_engine::{CloneRole, Database, Options as EngineOptions, Reconcile, Refresh, RefreshEnd};
use planaria_replication::secondary::{Action, Identity, Install, Local, Replica, State, Status};
use planaria_replication::{Lane, Message, Options, Reason, Record, Span, Way};
use planaria_types::{GroupId, HistoryHash, InstanceId, Uid};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::clock::{now, until};
use super::clone::{CloneProgress, fetch_clone};
use super::{Opening, Slot, convert, decode_message, encode};
use crate::quic::session::{BulkReceiver, Opened, ReplicaSession};
use crate::quic::{CloseCode, Credentials, Endpoint, NODE_NAME, Service, Transport};
use crate::{Error, Result};

/// A secondary wakes at least this often.
const WAKE_AFTER: Duration = Duration::from_millis(500);
/// How long a connection attempt may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(4);

/// Whom a secondary follows, and as who.
#[derive(Clone)]
pub struct Follow {
    /// The primary's address.
    pub primary: SocketAddr,
    /// The copy's name, for people.
    pub name: String,
    /// Its certificate.
    pub credentials: Credentials,
    /// Settings of the transport.
    pub transport: Transport,
    /// How a database that replaces the copy is opened.
    pub options: EngineOptions,
}

/// A secondary at work: it follows its primary, and comes back to it, until it is stopped.
pub struct Follower {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    status: Mutex<FollowStatus>,
    /// The way of a refresh that an operator asked for.
    asked: Mutex<Option<Way>>,
    stop: Notify,
    stopped: std::sync::atomic::AtomicBool,
}

/// What a secondary does and has done.
#[derive(Clone, Debug, Default)]
pub struct FollowStatus {
    /// The protocol's view: state, way and reason of the last refresh, totals.
    pub replica: Status,
    /// How far a transfer of run files has come, while there is one.
    pub bulk: Option<CloneProgress>,
    /// The way of the last refresh.
    pub last_refresh_way: Option<Way>,
    /// Why that way.
    pub last_refresh_reason: Option<Reason>,
    /// The wall time of the last refresh, in milliseconds.
    pub last_refresh_ms: Option<u64>,
    /// Records of the last refresh.
    pub last_refresh_records: u64,
    /// Bytes of records of the last refresh.
    pub last_refresh_bytes: u64,
    /// Why it stopped for good, if it did.
    pub failure: Option<String>,
}

impl Follower {
    /// Starts to follow. The runtime carries the connections.
    pub fn start(slot: Slot, follow: Follow, runtime: Handle) -> Result<Self> {
        let shared = Arc::new(Shared {
            status: Mutex::new(FollowStatus::default()),
            asked: Mutex::new(None),
            stop: Notify::new(),
            stopped: std::sync::atomic::AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("planaria-follow".into())
            .spawn(move || {
                if let Err(error) = Loop::new(slot, follow, runtime, Arc::clone(&own)).run() {
                    tracing::error!(%error, "the secondary stops following");
                    own.status.lock().failure = Some(error.to_string());
                }
            })
            .map_err(|error| Error::file("start a thread for", &PathBuf::from("the secondary"), error))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What it does now.
    pub fn status(&self) -> FollowStatus {
        self.shared.status.lock().clone()
    }

    /// Has the copy refreshed by this way, if it leads to the primary's state; by another, which then says why, if not.
    pub fn refresh(&self, way: Way) {
        *self.shared.asked.lock() = Some(way);
        self.shared.stop.notify_one();
    }

    /// Ends the session in good order and waits for the thread.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.shared.stopped.store(true, std::sync::atomic::Ordering::Release);
        self.shared.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.end();
    }
}

/// The loop of a secondary.
struct Loop {
    slot: Slot,
    db: Database,
    follow: Follow,
    runtime: Handle,
    shared: Arc<Shared>,
    machine: Replica,
    link: Option<Link>,
    refresh: Option<Refresh>,
    /// Ranges that are replaced; kept over a break of the session.
    reconcile: Option<Reconcile>,
    /// When the refresh that runs began, and the totals at that time.
    refresh_begun: Option<(planaria_replication::Millis, u64, u64)>,
}

/// A connection to the primary.
struct Link {
    /// Keeps the socket open.
    _endpoint: Endpoint,
    session: ReplicaSession,
    bulk: Option<BulkReceiver>,
}

/// What woke the loop.
enum Input {
    Message(Result<Option<bytes::Bytes>>),
    Opened(Result<Opened>),
    Bulk(Result<Option<bytes::Bytes>>),
    Time,
    Asked,
    Stop,
}

impl Loop {
    fn new(slot: Slot, follow: Follow, runtime: Handle, shared: Arc<Shared>) -> Self {
        let db = slot.get();
        let machine = machine(&db, &follow);
        Self {
            slot,
            db,
            follow,
            runtime,
            shared,
            machine,
            link: None,
            refresh: None,
            reconcile: None,
            refresh_begun: None,
        }
    }

    fn run(mut self) -> Result<()> {
        loop {
            self.machine.handle_tick(now());
            let asked = self.shared.asked.lock().take();
            if let Some(way) = asked {
                self.machine.handle_refresh_asked(way, now());
            }
            while let Some(action) = self.machine.poll_action() {
                if let Err(error) = self.perform(action) {
                    self.failed(&error);
                }
            }
            self.sync_appended();
            self.publish();
            match self.wait() {
                Input::Message(Ok(Some(bytes))) | Input::Bulk(Ok(Some(bytes))) => {
                    match decode_message(&bytes) {
                        Ok(message) => self.machine.handle_message(message, now()),
                        Err(error) => self.disconnect(&error.to_string()),
                    }
                }
                Input::Message(Ok(None)) => self.disconnect("the primary ended the session"),
                Input::Message(Err(error)) | Input::Opened(Err(error)) | Input::Bulk(Err(error)) => {
                    self.disconnect(&error.to_string());
                }
                Input::Opened(Ok(Opened::Bulk(_, receiver))) => {
                    if let Some(link) = &mut self.link {
                        link.bulk = Some(receiver);
                    }
                }
                Input::Opened(Ok(Opened::File(..))) => {
                    self.disconnect("the primary asked a secondary for a file");
                }
                Input::Bulk(Ok(None)) => {
                    if let Some(link) = &mut self.link {
                        link.bulk = None;
                    }
                }
                Input::Time | Input::Asked => {}
                Input::Stop => {
                    self.machine.handle_shutdown(now());
                    while let Some(action) = self.machine.poll_action() {
                        if matches!(action, Action::Send(_)) {
                            // It is a farewell; whether it arrives matters to nobody.
                            let _ = self.perform(action);
                        }
                    }
                    return Ok(());
                }
            }
        }
    }

    fn wait(&mut self) -> Input {
        if self.shared.stopped.load(std::sync::atomic::Ordering::Acquire) {
            return Input::Stop;
        }
        let wait = until(self.machine.poll_timeout(), WAKE_AFTER);
        let (shared, link) = (Arc::clone(&self.shared), &mut self.link);
        let stopped = || shared.stopped.load(std::sync::atomic::Ordering::Acquire);
        let woken = || if stopped() { Input::Stop } else { Input::Asked };
        self.runtime.block_on(async {
            match link {
                Some(Link { session, bulk: Some(bulk), .. }) => tokio::select! {
                    message = session.receive() => Input::Message(message),
                    message = bulk.next() => Input::Bulk(message),
                    () = tokio::time::sleep(wait) => Input::Time,
                    () = shared.stop.notified() => woken(),
                },
                Some(Link { session, bulk: None, .. }) => tokio::select! {
                    message = session.receive() => Input::Message(message),
                    opened = session.accept() => Input::Opened(opened),
                    () = tokio::time::sleep(wait) => Input::Time,
                    () = shared.stop.notified() => woken(),
                },
                None => tokio::select! {
                    () = tokio::time::sleep(wait) => Input::Time,
                    () = shared.stop.notified() => woken(),
                },
            }
        })
    }

    /// Makes what was appended durable, once for all that came together.
    fn sync_appended(&mut self) {
        if self.db.log_end().0 > self.db.durable() && self.refresh.is_none() {
            match self.db.sync() {
                Ok(durable) => self.machine.handle_durable(durable, now()),
                Err(error) => self.failed(&error.into()),
            }
            // What became durable may be shown and acknowledged at once.
            while let Some(action) = self.machine.poll_action() {
                if let Err(error) = self.perform(action) {
                    self.failed(&error);
                }
            }
        }
    }

    fn publish(&mut self) {
        let status = self.machine.status();
        self.db.set_floors(Some(status.stable), None);
        let mut shared = self.shared.status.lock();
        let counters = status.counters;
        if shared.replica.state != status.state {
            let reason = status.reason.map_or("", planaria_replication::Reason::code);
            let way = status.way.map(|way| way.to_string()).unwrap_or_default();
            let end = status.last_end.as_deref().unwrap_or("");
            tracing::info!(state = status.state.name(), way, reason, end, "secondary");
        }
        match (status.state, self.refresh_begun) {
            (State::Stale | State::Refreshing, None) => {
                self.refresh_begun = Some((now(), counters.records, counters.refresh_bytes));
            }
            (State::Online, Some((begun, records, bytes))) => {
                shared.last_refresh_way = status.way;
                shared.last_refresh_reason = status.reason;
                shared.last_refresh_ms = Some(now().since(begun).0);
                shared.last_refresh_records = counters.records - records;
                shared.last_refresh_bytes = counters.refresh_bytes - bytes;
                self.refresh_begun = None;
            }
            _ => {}
        }
        shared.replica = status;
    }

    fn disconnect(&mut self, why: &str) {
        self.link = None;
        self.machine.handle_disconnected(why, now());
    }

    /// The engine could not do something: the session ends, and the next begins from what the copy holds.
    fn failed(&mut self, error: &Error) {
        tracing::warn!(%error, "an action of the secondary failed");
        self.refresh = None;
        self.reconcile = None;
        self.machine.handle_failure(local(&self.db), &error.to_string(), now());
    }

    fn perform(&mut self, action: Action) -> Result<()> {
        match action {
            Action::Connect => self.connect(),
            Action::Disconnect => self.disconnect("this side ended the session"),
            Action::Send(message) => self.send(&message),
            Action::Sync => {
                let durable = self.db.sync()?;
                self.machine.handle_durable(durable, now());
            }
            Action::PersistEpoch(epoch) => self.db.promise(epoch)?,
            Action::PersistHistory(history) => self.db.adopt_history(&history)?,
            Action::ReadHash(uid) => {
                let hash = self.db.history_hash_at(uid)?;
                self.machine.handle_hash(uid, hash, now());
            }
            Action::Quarantine { above, through } => self.db.quarantine(above, through)?,
            Action::TakeBack(fork) => {
                let hash = self.db.history_hash_at(fork.uid)?.unwrap_or(HistoryHash(0));
                self.db.take_back(fork, hash)?;
            }
            Action::Append(commits) => {
                let last = commits.last().map_or(Uid::ZERO, |commit| commit.uid);
                self.db.append_replicated(&convert::commits_in(&commits)?)?;
                self.machine.handle_appended(last, now());
            }
            Action::Show(cut) => {
                self.db.show(cut)?;
            }
            Action::BeginRefresh { since, rewind, .. } => {
                self.refresh = None;
                self.refresh = Some(self.db.begin_refresh(rewind.then_some(since))?);
            }
            Action::StoreDelta { round, records } => {
                let refresh = self.refresh.as_mut().ok_or(Error::Closed)?;
                for record in records {
                    refresh.add(&convert::record_in(record)?)?;
                }
                self.machine.handle_stored(round, now());
            }
            Action::ReadRewindItems { round, above, cursor, bytes_max } => {
                self.read_rewind_items(round, above, cursor, bytes_max)?;
            }
            Action::StoreRewind { round, records } => {
                let refresh = self.refresh.as_mut().ok_or(Error::Closed)?;
                for record in records {
                    refresh.add_state(convert::record_in(record)?)?;
                }
                self.machine.handle_stored(round, now());
            }
            Action::BeginReconcile { round, base } => self.begin_reconcile(round, base)?,
            Action::SumSpans { round, spans } => self.sum_spans(round, &spans)?,
            Action::StoreRanges { round, spans, records } => self.store_ranges(round, spans, records)?,
            Action::AbandonRefresh => {
                self.refresh = None;
                self.reconcile = None;
            }
            Action::Install(install) => self.install(install)?,
            Action::FetchBulk { reason, bytes, .. } => {
                tracing::info!(%reason, bytes, "the copy is taken anew");
                self.fetch_bulk()?;
            }
            Action::AbandonBulk => {}
        }
        Ok(())
    }

    fn connect(&mut self) {
        let (primary, credentials, transport) =
            (self.follow.primary, self.follow.credentials.clone(), self.follow.transport.clone());
        let connected = self.runtime.block_on(async {
            let attempt = open_session(primary, &credentials, &transport, &Opening::Follow);
            tokio::time::timeout(CONNECT_WITHIN, attempt)
                .await
                .unwrap_or(Err(Error::TimedOut { peer: primary, when: "while connecting" }))
        });
        match connected {
            Ok((endpoint, session)) => {
                self.link = Some(Link { _endpoint: endpoint, session, bulk: None });
                self.machine.handle_connected(now());
            }
            Err(error) => self.machine.handle_disconnected(&error.to_string(), now()),
        }
    }

    fn send(&mut self, message: &Message) {
        debug_assert_eq!(message.lane(), Lane::Control, "a secondary sends nothing in bulk");
        let Some(link) = &self.link else { return };
        let sent = encode(message).and_then(|bytes| self.runtime.block_on(link.session.send(bytes)));
        if let Err(error) = sent {
            self.disconnect(&error.to_string());
        }
    }

    fn read_rewind_items(
        &mut self,
        round: u64,
        above: Uid,
        cursor: Option<(planaria_types::TableId, bytes::Bytes)>,
        bytes_max: u64,
    ) -> Result<()> {
        let from = cursor.map(|(table, key)| (table, [&key[..], &[0]].concat()));
        let from = from
            .as_ref()
            .map_or((planaria_types::TableId::SYSTEM, &[][..]), |(table, key)| (*table, &key[..]));
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let chunk = self.db.snapshot_of_all().changes(above, from, bytes_max)?;
        let last = chunk.changes.last().map(|change| (change.table, change.key.clone()));
        let item =
            |change: planaria_engine::Change| planaria_replication::RewindItem::Key(change.table, change.key);
        let items = chunk.changes.into_iter().map(item).collect();
        self.machine.handle_rewind_items(round, items, chunk.next.and(last), now());
        Ok(())
    }

    /// Goes on with what an earlier round replaced, if there is something.
    fn begin_reconcile(&mut self, round: u64, base: Uid) -> Result<()> {
        self.refresh = None;
        match &mut self.reconcile {
            Some(kept) => kept.rebase(base)?,
            None => self.reconcile = Some(self.db.begin_reconcile(base)?),
        }
        self.machine.handle_reconcile_begun(round, &self.db.table_ids(), now());
        Ok(())
    }

    fn sum_spans(&mut self, round: u64, spans: &[Span]) -> Result<()> {
        let reconcile = self.reconcile.as_mut().ok_or(Error::Closed)?;
        let mut sums = Vec::with_capacity(spans.len());
        for span in spans {
            sums.push(reconcile.fingerprint(span.table, &span.keys)?.short());
        }
        self.machine.handle_sums(round, &sums, now());
        Ok(())
    }

    fn store_ranges(&mut self, round: u64, spans: Vec<Span>, records: Vec<Record>) -> Result<()> {
        let reconcile = self.reconcile.as_mut().ok_or(Error::Closed)?;
        let ranges: Vec<_> = spans.into_iter().map(|span| (span.table, span.keys)).collect();
        let records: Vec<_> = records.into_iter().map(convert::record_in).collect::<Result<_>>()?;
        reconcile.replace(&ranges, &records)?;
        self.machine.handle_stored(round, now());
        Ok(())
    }

    fn install(&mut self, install: Install) -> Result<()> {
        let base_hash = install.base_hash.ok_or_else(|| {
            Error::Protocol("the primary does not know the history hash where its live stream begins".into())
        })?;
        let end = RefreshEnd {
            base: install.base,
            base_hash,
            history: install.history,
            live: convert::commits_in(&install.commits)?,
            sparse_to: install.sparse_to,
            cut: install.cut,
        };
        if install.reconciled {
            self.reconcile.take().ok_or(Error::Closed)?.install(&end)?;
        } else {
            self.refresh.take().ok_or(Error::Closed)?.install(&end)?;
        }
        self.machine.handle_installed(local(&self.db), now());
        Ok(())
    }

    /// Takes the run files of the primary beside the copy, and puts them in its place once they are complete.
    fn fetch_bulk(&mut self) -> Result<()> {
        let dir = self.db.path().to_path_buf();
        let next = dir.with_extension("next");
        let (primary, credentials, transport) =
            (self.follow.primary, self.follow.credentials.clone(), self.follow.transport.clone());
        let (options, shared) = (self.follow.options.clone(), Arc::clone(&self.shared));
        let os = Arc::clone(&options.os);
        let remove = |path: &PathBuf| {
            if os.exists(path) { os.remove_dir_all(path) } else { Ok(()) }
        };
        remove(&next).map_err(|error| Error::file("remove", &next, error))?;
        let progress = move |progress: &CloneProgress| shared.status.lock().bulk = Some(progress.clone());
        self.runtime.block_on(async {
            let (_endpoint, session) =
                open_session(primary, &credentials, &transport, &Opening::Clone).await?;
            let fetched = fetch_clone(&session, &next, CloneRole::Secondary, &options, progress).await;
            session.close(CloseCode::Done, "the clone is complete");
            fetched
        })?;
        let old = dir.with_extension("old");
        self.reconcile = None;
        remove(&old).map_err(|error| Error::file("remove", &old, error))?;
        let options = self.follow.options.clone();
        self.db = self.slot.replace(|| {
            let rename = |from: &PathBuf, to: &PathBuf| {
                os.rename(from, to).map_err(|error| Error::file("rename", from, error))
            };
            rename(&dir, &old)?;
            rename(&next, &dir)?;
            Database::open_with(&dir, options).map_err(Error::from)
        })?;
        self.shared.status.lock().bulk = None;
        // The new copy has an identity of its own, so the protocol begins anew with it.
        self.machine = machine(&self.db, &self.follow);
        self.link = None;
        // The old copy was replaced by a verified one; what stays behind is garbage.
        let _ = remove(&old);
        Ok(())
    }
}

/// Connects to a node for replication and says what for.
pub(super) async fn open_session(
    address: SocketAddr,
    credentials: &Credentials,
    transport: &Transport,
    opening: &Opening,
) -> Result<(Endpoint, ReplicaSession)> {
    let endpoint = Endpoint::client(address, credentials, transport)?;
    let connection = endpoint.connect(address, NODE_NAME, Service::Replica).await?;
    let session = ReplicaSession::over(connection)?;
    session.send(encode(opening)?).await?;
    Ok((endpoint, session))
}

fn machine(db: &Database, follow: &Follow) -> Replica {
    let InstanceId(seed) = db.instance();
    let identity =
        Identity { database: db.id(), group: GroupId(1), instance: db.instance(), name: follow.name.clone() };
    Replica::new(identity, Options::default(), db.promised(), local(db), seed as u64, now())
}

/// What the copy holds.
fn local(db: &Database) -> Local {
    let (appended, hash) = db.log_end();
    Local {
        history: db.history(),
        appended,
        durable: db.durable(),
        hash: Some(hash),
        visible: db.visible(),
        version_floor: db.version_floor(),
        mark_floor: db.mark_floor(),
        sparse: db.sparse(),
    }
}
