use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use planaria_engine::{CloneRole, Database, Options as EngineOptions};
use planaria_replication::secondary::{Action, Outlook, Replica, State, Status};
use planaria_replication::{Lane, Message, Options, Reason, Way};
use planaria_types::{Portion, Uid};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::clock::{now, until};
use super::clone::{CloneProgress, Taking, fetch_clone};
use super::connections::Connections;
use super::detour::Detour;
use super::executor::FollowingCopy;
use super::executor::bulk::{Places, Terms};
use super::meter::Meter;
use super::removal::Removal;
use super::toll::Toll;
use super::{Opening, Pace, Primary, Slot, decode_message, encode};
use crate::quic::session::{BulkReceiver, Opened, ReplicaSession};
use crate::quic::{CloseCode, Credentials, Endpoint, NODE_NAME, Traffic, Transport};
use crate::{Error, Result};

/// A secondary wakes at least this often.
const WAKE_AFTER: Duration = Duration::from_millis(500);
/// Chunks that a copy asks for ahead which is brought up to date at a rate.
const PACED_CHUNKS_IN_FLIGHT: u32 = 8;
/// How long a connection attempt may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(4);

/// Whom a secondary follows, and as who.
#[derive(Clone)]
pub struct Follow {
    /// The primary's address.
    pub primary: SocketAddr,
    /// The copy's name, for people.
    pub name: String,
    /// The port on which its node listens, if it does.
    pub port: Option<u16>,
    /// Its certificate.
    pub credentials: Credentials,
    /// What the copy is to hold, if it is partial; what it holds already if none is given.
    pub portion: Option<Portion>,
    /// Settings of the transport.
    pub transport: Transport,
    /// How a database that replaces the copy is opened.
    pub options: EngineOptions,
    /// Other secondaries, which refresh a copy that is behind by more than the tail before it goes to the primary for that.
    pub siblings: Vec<SocketAddr>,
    /// What became of siblings before, for people.
    pub note: Option<String>,
    /// How fast comes in what it lacks; as fast as the wire if none is given.
    pub pace: Option<Arc<Pace>>,
}

impl Follow {
    /// The protocol's options. At a rate less is asked for at once: the primary must not wait with what it has begun to send
    /// while that comes in slowly, or its session would count as silent.
    fn protocol(&self) -> Options {
        let options = Options::default();
        match self.pace {
            Some(_) => Options { chunks_in_flight: PACED_CHUNKS_IN_FLIGHT, ..options },
            None => options,
        }
    }
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
    /// What feeds those who follow this copy.
    feeder: Mutex<Arc<Primary>>,
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
    /// Records of the last refresh, those of a tail's commits included; what run files hold is not counted.
    pub last_refresh_records: u64,
    /// Bytes of records, commits and run files of the last refresh.
    pub last_refresh_bytes: u64,
    /// Refreshes so far, by way and reason.
    pub refreshes: Vec<(Way, Reason, u64)>,
    /// What the sessions of the last refresh had carried to this side when the copy came online.
    pub traffic: Traffic,
    /// The round trip to whom it follows, as QUIC estimates it now, while there is a session.
    pub round_trip: Option<Duration>,
    /// What is to be expected, while it hops forward because the live stream is too fast.
    pub outlook: Option<Outlook>,
    /// Whether whom it follows followed somebody as well when it was first met: then that is how it was meant.
    pub met_fed: Option<bool>,
    /// What became of the siblings that it was to be refreshed from, last.
    pub detour: Option<String>,
    /// Why it stopped for good, if it did.
    pub failure: Option<String>,
}

impl Follower {
    /// Starts to follow. The runtime carries the connections.
    pub fn start(slot: Slot, follow: Follow, runtime: Handle) -> Result<Self> {
        Self::start_by(None, slot, follow, runtime)
    }

    /// As [`Follower::start`]; its first refresh goes by `asked`, if that way leads to the primary's state.
    pub(super) fn start_by(asked: Option<Way>, slot: Slot, follow: Follow, runtime: Handle) -> Result<Self> {
        let shared = Arc::new(Shared {
            status: Mutex::new(FollowStatus::default()),
            asked: Mutex::new(asked),
            feeder: Mutex::new(Primary::feeding(slot.get())),
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
                // Whatever becomes of the copy now, nobody is fed meanwhile.
                own.feeder.lock().feed(None);
            })
            .map_err(|error| Error::file("start a thread for", &PathBuf::from("the secondary"), error))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// What it does now.
    pub fn status(&self) -> FollowStatus {
        self.shared.status.lock().clone()
    }

    /// What feeds those who follow this copy, until another database takes its place.
    pub fn feeder(&self) -> Arc<Primary> {
        Arc::clone(&self.shared.feeder.lock())
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
    copy: FollowingCopy,
    follow: Follow,
    runtime: Handle,
    shared: Arc<Shared>,
    machine: Replica,
    link: Option<Link>,
    meter: Meter,
    feeder: Arc<Primary>,
    detour: Detour,
    removal: Option<Removal>,
    toll: Toll,
}

/// A connection to the primary.
struct Link {
    /// Keeps the socket open.
    _endpoint: Endpoint,
    session: ReplicaSession,
    bulk: Option<BulkReceiver>,
    /// The primary has said how the copy is brought up to date, and was taken at its word.
    welcomed: bool,
}

impl Link {
    fn traffic(&self) -> Traffic {
        self.session.connection().traffic()
    }
}

/// What woke the loop.
enum Input {
    Message(Result<Option<bytes::Bytes>>),
    Opened(Result<Opened>),
    Bulk(Result<Option<bytes::Bytes>>),
    Due,
    Time,
    Asked,
    Stop,
}

impl Loop {
    fn new(slot: Slot, follow: Follow, runtime: Handle, shared: Arc<Shared>) -> Self {
        let copy = FollowingCopy::holding(slot.get(), follow.portion.clone());
        let machine = copy.machine(follow.name.clone(), follow.protocol(), now());
        let feeder = Arc::clone(&shared.feeder.lock());
        let detour = Detour::new(follow.siblings.clone(), follow.note.clone());
        let meter = Meter::default();
        let toll = Toll::new(follow.pace.clone());
        let (link, removal) = (None, None);
        Self { slot, copy, follow, runtime, shared, machine, link, meter, feeder, detour, removal, toll }
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
                Input::Message(Ok(Some(bytes))) => match decode_message(&bytes) {
                    Ok(message) => self.hear(message, bytes.len() as u64),
                    Err(error) => self.disconnect(&error.to_string()),
                },
                Input::Bulk(Ok(Some(bytes))) => match decode_message(&bytes) {
                    Ok(message) => self.take(message),
                    Err(error) => self.disconnect(&error.to_string()),
                },
                Input::Due => {
                    if let Some(message) = self.toll.next_held() {
                        self.take(message);
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
                        if matches!(action, Action::Send(_) | Action::SuspendRefresh(_)) {
                            // A farewell, and what the next process may go on from. Both can be done without.
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
        let (shared, link, toll) = (Arc::clone(&self.shared), &mut self.link, &self.toll);
        let stopped = || shared.stopped.load(std::sync::atomic::Ordering::Acquire);
        let woken = || if stopped() { Input::Stop } else { Input::Asked };
        self.runtime.block_on(async {
            match link {
                Some(Link { session, bulk: Some(bulk), .. }) => tokio::select! {
                    message = session.receive() => Input::Message(message),
                    message = toll.receive(bulk) => Input::Bulk(message),
                    () = toll.due() => Input::Due,
                    () = tokio::time::sleep(wait) => Input::Time,
                    () = shared.stop.notified() => woken(),
                },
                Some(Link { session, bulk: None, .. }) => tokio::select! {
                    message = session.receive() => Input::Message(message),
                    opened = session.accept() => Input::Opened(opened),
                    () = toll.due() => Input::Due,
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

    /// Takes a message of the control lane, now or when what came before it is paid for.
    fn hear(&mut self, message: Message, bytes: u64) {
        match self.toll.admit(message, bytes) {
            Some(message) => self.take(message),
            // Its sender is there, whenever it is looked at.
            None => self.machine.handle_message(Message::Heartbeat, now()),
        }
    }

    /// Passes a message on, unless siblings are to bring first what its sender would.
    fn take(&mut self, message: Message) {
        if let Message::Welcome(welcome) = &message {
            let is_first =
                self.link.as_mut().is_some_and(|link| !std::mem::replace(&mut link.welcomed, true));
            if is_first && self.detour.is_due(welcome) {
                let (copy, credentials) = (self.copy.database().clone(), self.follow.credentials.clone());
                let choice = self.detour.choose(&copy, welcome.epoch, &credentials);
                if self.runtime.block_on(choice) {
                    self.end_link();
                    self.machine.handle_disconnected("siblings bring first what the primary need not", now());
                    return;
                }
            }
        }
        self.machine.handle_message(message, now());
    }

    /// Comes back to the primary once a sibling has brought what it had.
    fn come_back(&mut self, state: State) {
        if state != State::Online {
            return;
        }
        if self.detour.at().is_none() {
            if let Some(removal) = &mut self.removal {
                removal.begin();
            }
            return self.detour.end_absence();
        }
        self.detour.reached(self.machine.status().way);
        if let Some(link) = &self.link {
            link.session.close(CloseCode::Moved, "the primary has the rest");
        }
        self.disconnect("the primary has the rest");
    }

    /// Whom the copy follows now.
    fn source(&self) -> SocketAddr {
        self.detour.at().unwrap_or(self.follow.primary)
    }

    /// Makes what was appended durable, once for all that came together.
    fn sync_appended(&mut self) {
        match self.copy.sync_appended(&mut self.machine, now()) {
            Ok(false) => return,
            Ok(true) => {}
            Err(error) => self.failed(&error),
        }
        // What became durable may be shown and acknowledged at once.
        while let Some(action) = self.machine.poll_action() {
            if let Err(error) = self.perform(action) {
                self.failed(&error);
            }
        }
    }

    fn publish(&mut self) {
        let status = self.machine.status();
        self.copy.update_floors(&self.machine);
        self.feeder.feed(self.machine.feed());
        let state = status.state;
        let mut shared = self.shared.status.lock();
        if shared.replica.state != status.state {
            let reason = status.reason.map_or("", planaria_replication::Reason::code);
            let way = status.way.map(|way| way.to_string()).unwrap_or_default();
            let end = status.last_end.as_deref().unwrap_or("");
            tracing::info!(state = status.state.name(), way, reason, end, "secondary");
        }
        if shared.replica.displaced < status.displaced {
            tracing::warn!(
                times = status.displaced,
                "another process follows as this copy: if its directory was copied, one of the two is to be begun anew"
            );
        }
        if shared.replica.counters.hops != status.counters.hops {
            shared.outlook = status.outlook(Options::default().held_bytes_max);
            if let Some(outlook) = shared.outlook {
                tracing::warn!(bytes = status.progress.hop_bytes, "secondary: {outlook}");
            }
        } else if status.progress.hop_bytes.is_none() {
            shared.outlook = None;
        }
        let traffic = self.link.as_ref().map(Link::traffic);
        shared.round_trip = traffic.map(|traffic| traffic.round_trip);
        let traffic = traffic.unwrap_or_default();
        self.meter.look(&status, self.copy.logged_records(), traffic, now(), &mut shared);
        if shared.met_fed.is_none() && self.detour.at().is_none() && !status.chain.is_empty() {
            shared.met_fed = Some(status.fed);
        }
        shared.detour = self.detour.note().map(str::to_owned);
        shared.replica = status;
        drop(shared);
        self.come_back(state);
    }

    fn end_link(&mut self) {
        self.toll.forget();
        if let Some(link) = self.link.take() {
            self.meter.session_ended(link.traffic());
        }
    }

    fn disconnect(&mut self, why: &str) {
        self.detour.broke_off(why);
        self.end_link();
        self.machine.handle_disconnected(why, now());
    }

    fn failed(&mut self, error: &Error) {
        tracing::warn!(%error, "an action of the secondary failed");
        if let Some(removal) = &mut self.removal {
            // Perhaps what it takes is what was lacking.
            removal.begin();
        }
        self.copy.failed(&error.to_string(), &mut self.machine, now());
    }

    fn perform(&mut self, action: Action) -> Result<()> {
        if action.disturbs_feed() {
            self.feeder.feed(None);
        }
        match self.copy.perform(action, &mut self.machine, now())? {
            Some(Action::Connect) => self.connect(),
            // Where the connection is gone already, the machine knows of it.
            Some(Action::Disconnect) if self.link.is_some() => {
                let why = self.machine.status().last_end.unwrap_or_default();
                self.disconnect(&why);
            }
            Some(Action::Send(message)) => self.send(&message),
            Some(Action::FetchBulk { reason, bytes, at_least }) => {
                tracing::info!(way = "bulk", %reason, bytes, "the copy is taken anew");
                self.fetch_bulk(reason, at_least)?;
            }
            // A transfer of run files ends before the next action is looked at.
            Some(_) | None => {}
        }
        Ok(())
    }

    fn connect(&mut self) {
        let (primary, credentials, transport) =
            (self.source(), self.follow.credentials.clone(), self.follow.transport.clone());
        let opening = Opening::Follow { port: self.follow.port };
        let shared = Arc::clone(&self.shared);
        let connected = self.runtime.block_on(async {
            let attempt = open_session(primary, &credentials, &transport, &opening);
            tokio::select! {
                attempt = tokio::time::timeout(CONNECT_WITHIN, attempt) => {
                    attempt.unwrap_or(Err(Error::TimedOut { peer: primary, when: "while connecting" }))
                }
                // Whoever stops it, to promise another one its vote perhaps, does not wait for one that is gone.
                () = shared.stop.notified() => {
                    shared.stop.notify_one();
                    Err(Error::Closed)
                }
            }
        });
        match connected {
            Ok((endpoint, session)) => {
                self.link = Some(Link { _endpoint: endpoint, session, bulk: None, welcomed: false });
                self.machine.handle_connected(now());
            }
            Err(error) => self.disconnect(&error.to_string()),
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

    /// Takes the run files of the primary beside the copy, and puts them in its place once they are complete.
    fn fetch_bulk(&mut self, reason: Reason, at_least: Uid) -> Result<()> {
        // Its place is needed.
        self.removal = None;
        let terms = Terms::of(self.copy.database(), at_least);
        let places = Places::of(self.copy.database().path());
        let (primary, credentials, transport) =
            (self.source(), self.follow.credentials.clone(), self.follow.transport.clone());
        let (options, shared) = (self.follow.options.clone(), Arc::clone(&self.shared));
        let pace = self.follow.pace.clone();
        let os = Arc::clone(&options.os);
        places.prepare(&*os)?;
        let progress = move |progress: &CloneProgress| shared.status.lock().bulk = Some(progress.clone());
        let (fetched, traffic) = self.runtime.block_on(async {
            let opening = Connections::open(primary, &credentials, &transport, &Opening::Clone);
            let connections = Arc::new(opening.await?);
            let taking = Taking {
                pace: pace.unwrap_or_default(),
                ..Taking::new(&places.next, CloneRole::Secondary, &options)
            };
            let fetched = fetch_clone(&connections, &taking, Some(&terms), progress).await;
            let traffic = connections.traffic();
            match &fetched {
                Ok(_) => connections.farewell(CloseCode::Done, "the clone is complete").await,
                Err(error) => connections.farewell(CloseCode::Refused, &error.to_string()).await,
            }
            Ok::<_, Error>((fetched, traffic))
        })?;
        self.meter.session_ended(traffic);
        let fetched = fetched?;
        if let Err(error) = places.name_successor(self.copy.database()) {
            tracing::warn!(%error, "it is not written down whose place the copy takes: its primary keeps the one before until it is forgotten");
        }
        let options = self.follow.options.clone();
        // From here on nobody is fed by the copy that goes.
        self.feeder.feed(None);
        let db = self.slot.replace(|| {
            places.swap(&*os)?;
            Database::open_checked(&places.dir, options).map_err(Error::from)
        })?;
        self.shared.status.lock().bulk = None;
        // The new copy has an identity of its own, so the protocol begins anew with it.
        self.feeder = Primary::feeding(db.clone());
        *self.shared.feeder.lock() = Arc::clone(&self.feeder);
        self.copy = FollowingCopy::new(db);
        self.detour.reached(Some(Way::Bulk));
        self.machine = self.copy.machine(self.follow.name.clone(), self.follow.protocol(), now());
        self.end_link();
        self.meter.took_run_files(reason, fetched.total_bytes.saturating_sub(fetched.resumed_bytes));
        if places.keep(&*os).is_ok() {
            self.removal = Some(Removal::of(places, os));
        }
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
    let session = endpoint.connect_early(address, NODE_NAME).await?;
    session.send(encode(opening)?).await?;
    Ok((endpoint, session))
}
