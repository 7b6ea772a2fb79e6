use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use planaria_engine::{Database, FilePin, Lead, Registration};
use planaria_replication::ack::Level;
use planaria_replication::primary::{Group, GroupAction, Identity, Session, SessionAction, SessionId};
use planaria_replication::{Feed, Lane, Message, Millis, Options};
use planaria_types::{Epoch, GroupId, InstanceId, Uid};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::clock::{now, until};
use super::executor::{self, Kept, Leading, Outcome, Registrar, SessionReads};
use super::giving::{Giving, Givings};
use super::outgoing::{GoingOut, Outgoing};
use super::wards::Wards;
use super::{Opening, Shaper, archive, clone, decode, decode_message, encode};
use crate::quic::CloseCode;
use crate::quic::session::{BulkSender, ReplicaSession};
use crate::wire::rpc::BoxFuture;
use crate::{Error, Result};

/// A session wakes at least this often.
const WAKE_AFTER: Duration = Duration::from_millis(500);
/// While a read waits for what was appended to be visible, the session looks again this often.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(1);

/// What a copy does for those who follow it.
enum Duty {
    /// It leads. What was written down of that last; held while it is written.
    Leads(Mutex<Lead>),
    /// It follows, and feeds others.
    Feeds(Feeding),
}

/// What those who are fed are told, and how they learn that there is more.
#[derive(Default)]
struct Feeding {
    told: Mutex<Option<Feed>>,
    sessions: Mutex<BTreeMap<u64, Arc<Notify>>>,
}

/// A database that leads its group: its sessions with secondaries and what they have acknowledged. Or one that follows, and
/// feeds others on what it has: then it leads nothing, and nobody counts.
pub struct Primary {
    pub(super) db: Database,
    pub(super) options: Options,
    pub(super) group: Mutex<Group>,
    /// Woken when more is acknowledged.
    acknowledged: Condvar,
    duty: Duty,
    /// What is closed, and when that was found.
    closed: Mutex<(Millis, Uid)>,
    next_session: AtomicU64,
    pub(super) registrar: Registrar,
    /// What is known of each secondary besides the protocol's view.
    pub(super) wards: Wards,
    /// The clones that are being taken of it.
    pub(super) outgoing: Outgoing,
    pub(super) givings: Givings,
}

/// How long a copy that feeds others may take until it shows all that it has logged, in milliseconds.
const PIN_WITHIN_MS: u64 = 10_000;
/// How often it is found out what is closed, in milliseconds.
const CLOSED_FOR_MS: u64 = 100;

/// Why a write is not known to be acknowledged at its level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// Too few copies answered in time: the write is durable here, and whether it survives a failover is unknown.
    #[error(
        "commit {uid} is durable here, but whether other copies have it as the level {level} asks is unknown after {waited_ms} ms"
    )]
    Unknown {
        /// The commit.
        uid: Uid,
        /// The level that was asked for.
        level: &'static str,
        /// How long it was waited for.
        waited_ms: u64,
    },
    /// The primary was deposed meanwhile.
    #[error(
        "commit {uid} is durable here, but a newer primary leads under epoch {epoch}: whether the commit survives at \
         level {level} is unknown"
    )]
    Deposed {
        /// The commit.
        uid: Uid,
        /// The level that was asked for.
        level: &'static str,
        /// The newer epoch.
        epoch: Epoch,
    },
}

impl Primary {
    /// Leads the database's group: begins an epoch, durably, unless it has begun, and remembers who was registered and
    /// who may be promoted.
    pub fn start(db: Database, leading: Leading) -> Result<Arc<Self>> {
        let options = Options::default();
        let (group, lead) = executor::lead(&db, options.clone(), leading, now())?;
        let registrar = Registrar::new(db.clone());
        let wards = Wards::default();
        for known in db.registrations()? {
            wards.restore(&known);
        }
        let primary = Self {
            db,
            options,
            group: Mutex::new(group),
            acknowledged: Condvar::new(),
            duty: Duty::Leads(Mutex::new(lead)),
            closed: Mutex::new((Millis(0), Uid::ZERO)),
            next_session: AtomicU64::new(1),
            registrar,
            wards,
            outgoing: Outgoing::default(),
            givings: Givings::default(),
        };
        primary.update_floors();
        Ok(Arc::new(primary))
    }

    /// Feeds others on what `db` follows, as soon as [`Primary::feed`] says what that is.
    pub(super) fn feeding(db: Database) -> Arc<Self> {
        let options = Options::default();
        let fed = db.fed().unwrap_or_else(|error| {
            tracing::warn!(%error, "it is not known who was fed: nothing is preserved for them");
            Vec::new()
        });
        let identity = Identity { database: db.id(), group: GroupId(1), instance: db.instance() };
        let mut group = Group::feeding(identity, options.clone());
        let wards = Wards::default();
        for known in &fed {
            group.restore(known.instance, known.name.clone(), known.durable, false, now());
            wards.restore(known);
        }
        let primary = Self {
            registrar: Registrar::feeding(db.clone(), fed),
            db,
            options,
            group: Mutex::new(group),
            acknowledged: Condvar::new(),
            duty: Duty::Feeds(Feeding::default()),
            closed: Mutex::new((Millis(0), Uid::ZERO)),
            next_session: AtomicU64::new(1),
            wards,
            outgoing: Outgoing::default(),
            givings: Givings::default(),
        };
        primary.update_floors();
        Arc::new(primary)
    }

    /// Tells what others may be fed on now. With nothing their sessions end, and what was read for them is not sent any more
    /// once this has returned.
    pub(super) fn feed(&self, feed: Option<Feed>) {
        let Duty::Feeds(feeding) = &self.duty else { return };
        {
            let mut told = feeding.told.lock();
            if *told == feed {
                return;
            }
            told.clone_from(&feed);
            self.group.lock().handle_feed(feed);
        }
        for session in feeding.sessions.lock().values() {
            session.notify_one();
        }
    }

    /// Whether it leads nothing, and feeds others.
    pub fn is_feeding(&self) -> bool {
        matches!(self.duty, Duty::Feeds(_))
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.db
    }

    /// Waits until `uid` is acknowledged at `level`.
    ///
    /// # Errors
    ///
    /// [`AckError::Unknown`] after `patience`: the commit is durable here, and may or may not be elsewhere.
    pub fn wait_acknowledged(&self, uid: Uid, level: Level, patience: Duration) -> Result<(), AckError> {
        let begun = now();
        let mut group = self.group.lock();
        loop {
            group.handle_appended(self.db.log_end().0);
            group.handle_durable(self.db.durable());
            if let Some(epoch) = group.deposed() {
                return Err(AckError::Deposed { uid, level: level.name(), epoch });
            }
            if group.acknowledged(level).is_some_and(|acknowledged| acknowledged >= uid) {
                return Ok(());
            }
            let waited = Duration::from_millis(now().since(begun).0);
            let Some(left) = patience.checked_sub(waited).filter(|left| !left.is_zero()) else {
                let waited_ms = waited.as_millis() as u64;
                return Err(AckError::Unknown { uid, level: level.name(), waited_ms });
            };
            self.acknowledged.wait_for(&mut group, left);
        }
    }

    /// Serves one connection of another node until it ends: a secondary that follows, or a clone. Blocks; call it on
    /// a thread of its own, with the runtime that carries the session.
    pub fn serve(self: &Arc<Self>, session: &ReplicaSession, runtime: &Handle, shaper: Option<&dyn Shaper>) {
        let peer = session.peer().clone();
        let served = self.serve_opening(session, runtime, shaper);
        match served {
            Ok(()) => tracing::info!(peer = %peer.address, "session ended"),
            // The other side went away, in good order or not: it comes back when it can.
            Err(error @ (Error::Ended(_) | Error::Lost { .. } | Error::Closed | Error::Refused { .. })) => {
                tracing::info!(peer = %peer.address, %error, "session ended");
            }
            Err(error) => {
                tracing::warn!(peer = %peer.address, %error, "session ended");
                session.close(CloseCode::Refused, &error.to_string());
            }
        }
    }

    /// As [`Primary::serve`], on a blocking thread of the runtime that this is called in.
    pub fn take_over(
        self: &Arc<Self>,
        session: ReplicaSession,
        shaper: Option<Arc<dyn Shaper>>,
    ) -> BoxFuture {
        let primary = Arc::clone(self);
        Box::pin(async move {
            let runtime = Handle::current();
            let served =
                tokio::task::spawn_blocking(move || primary.serve(&session, &runtime, shaper.as_deref()))
                    .await;
            if let Err(error) = served {
                tracing::error!(%error, "a session broke off");
            }
        })
    }

    fn serve_opening(
        self: &Arc<Self>,
        session: &ReplicaSession,
        runtime: &Handle,
        shaper: Option<&dyn Shaper>,
    ) -> Result<()> {
        let first = runtime.block_on(session.receive())?.ok_or(Error::Closed)?;
        match decode::<Opening>(&first)? {
            Opening::Follow { port } => {
                let address = port.map(|port| SocketAddr::new(session.peer().address.ip(), port));
                self.serve_secondary(session, runtime, address)
            }
            Opening::Archive { since } => self.serve_archive(session, runtime, since),
            Opening::Join { list } => self.serve_more(session, runtime, list),
            Opening::Clone => self.give(session, runtime, self.pin(Database::pin_files), "remote"),
            Opening::Shaped { shape, resumes } => {
                let shaper = shaper.ok_or_else(|| {
                    Error::Protocol("this copy gives itself away whole, or not at all".into())
                })?;
                match shaper.shape(&self.db, &shape, resumes) {
                    Ok(shaped) => {
                        let pin = shaped.database().pin_files().map_err(Error::from);
                        self.give(session, runtime, pin, "shaped")
                    }
                    Err(error) => runtime.block_on(clone::refuse(session, error)),
                }
            }
        }
    }

    /// The clones that are being taken of it, oldest first.
    pub fn going_out(&self) -> Vec<GoingOut> {
        self.outgoing.list()
    }

    /// Pins the files of a backup, and of the log from a commit on.
    ///
    /// # Errors
    ///
    /// Those of [`Database::pin_archive`]; `NotReady` for a copy that follows and shows not all that it has logged.
    pub fn pin_archive(&self, since: Option<Uid>) -> Result<FilePin> {
        self.pin(|db| db.pin_archive(since))
    }

    /// Serves the files of a backup. Nothing is noted of it here: it has a catalog of its own.
    fn serve_archive(&self, session: &ReplicaSession, runtime: &Handle, since: Option<Uid>) -> Result<()> {
        let pin = self.pin_archive(since)?;
        let list = encode(&(pin.list(), pin.log()))?;
        let outgoing = self.outgoing.begin(session.peer().address, pin.list());
        let giving = Arc::new(Giving::new(pin, outgoing, session.peer(), &list, "archive"));
        runtime.block_on(clone::send_list(session, list))?;
        runtime.block_on(clone::serve_files(session, &giving, archive::IDLE_MAX)).map(drop)
    }

    /// Pins the files of a cut. A copy that feeds others makes one when it shows all that it has logged, which lasts for a moment.
    fn pin(&self, take: impl Fn(&Database) -> planaria_engine::Result<FilePin>) -> Result<FilePin> {
        self.db.check_whole("cannot be a source of others")?;
        if !self.is_feeding() {
            return Ok(take(&self.db)?);
        }
        let begun = now();
        loop {
            let generation = {
                let group = self.group.lock();
                group.has_feed().then(|| group.generation()).ok_or(Error::NotReady)?
            };
            let shows_all = self.db.visible() >= self.db.log_end().0;
            let is_late = now().since(begun).0 >= PIN_WITHIN_MS;
            if shows_all || is_late {
                match take(&self.db) {
                    Ok(pin) if self.group.lock().generation() == generation => return Ok(pin),
                    Ok(_) => return Err(Error::NotReady),
                    Err(planaria_engine::Error::Invalid(_)) if !is_late => {}
                    Err(error) => return Err(error.into()),
                }
            }
            std::thread::park_timeout(LOOK_AGAIN_AFTER);
        }
    }

    /// Has a session woken when there is news for it.
    fn listen(&self, number: u64, news: &Arc<Notify>) {
        let news = Arc::clone(news);
        match &self.duty {
            Duty::Leads(_) => self.db.listen(number, Arc::new(move || news.notify_one())),
            Duty::Feeds(feeding) => drop(feeding.sessions.lock().insert(number, news)),
        }
    }

    fn unlisten(&self, number: u64) {
        match &self.duty {
            Duty::Leads(_) => self.db.unlisten(number),
            Duty::Feeds(feeding) => drop(feeding.sessions.lock().remove(&number)),
        }
    }

    fn serve_secondary(
        self: &Arc<Self>,
        session: &ReplicaSession,
        runtime: &Handle,
        address: Option<SocketAddr>,
    ) -> Result<()> {
        let number = self.next_session.fetch_add(1, Ordering::Relaxed);
        let news = Arc::new(Notify::new());
        self.listen(number, &news);
        let mut serving = Serving {
            primary: self,
            machine: Session::new(SessionId(number), self.options.clone(), now()),
            session,
            address,
            runtime,
            reads: if self.is_feeding() {
                SessionReads::feeding(self.db.clone())
            } else {
                SessionReads::new(self.db.clone())
            },
            bulk: None,
        };
        let ended = serving.run(&news);
        self.unlisten(number);
        serving.machine.handle_disconnected(&mut self.group.lock(), now());
        let moves = matches!(&ended, Err(Error::Refused { code: "moved", .. }));
        if let Some(instance) = serving.machine.instance().filter(|_| moves && self.is_feeding()) {
            // One that is connected anew meanwhile stays.
            let _ = self.forget(instance)?;
        }
        self.after_input();
        ended
    }

    /// Carries out what the group wants, and lets retention know.
    pub(super) fn after_input(&self) {
        self.carry_out();
        self.update_floors();
        self.acknowledged.notify_all();
    }

    fn carry_out(&self) {
        // One at a time, so that sets are written down in the order in which they were asked for.
        let mut lead = match &self.duty {
            Duty::Leads(lead) => Some(lead.lock()),
            Duty::Feeds(_) => None,
        };
        loop {
            let action = self.group.lock().poll_action();
            match (action, &mut lead) {
                (Some(GroupAction::LetGo(instance)), _) => self.let_go(instance),
                (Some(GroupAction::PersistPromotable(sets)), Some(lead)) => {
                    match executor::persist_sets(&self.db, lead, &sets) {
                        Ok(uid) => {
                            let mut group = self.group.lock();
                            group.handle_appended(self.db.log_end().0);
                            group.handle_durable(self.db.durable());
                            group.handle_promotable(&sets, uid);
                        }
                        Err(error) => {
                            tracing::warn!(%error, "the promotable set could not be written");
                            self.group.lock().handle_promotable_failed();
                        }
                    }
                }
                (Some(GroupAction::Deposed(epoch)), _) => {
                    tracing::error!(%epoch, "a newer primary leads this group: this one takes no more updates");
                    if let Err(error) = self.db.promise(epoch) {
                        tracing::error!(%error, "the newer epoch could not be promised");
                    }
                }
                (Some(GroupAction::BeginAbove(epoch)), Some(lead)) => {
                    tracing::warn!(%epoch, "a copy has promised an epoch of this number that never began: begins a newer one");
                    let begun = executor::begin_above(&self.db, &mut self.group.lock(), epoch);
                    if let Err(error) = begun.and_then(|()| executor::tell_epoch(&self.db, lead)) {
                        tracing::warn!(%error, "no newer epoch could begin: it is tried again when the copy is met again");
                    }
                }
                // A copy that feeds others has no set and begins no epoch.
                (Some(_), None) => {}
                (None, _) => break,
            }
        }
    }

    /// Forgets a copy whose place another one has taken.
    fn let_go(&self, instance: InstanceId) {
        let forgotten = self.registrar.forget(instance);
        let mut group = self.group.lock();
        match forgotten {
            Ok(()) => {
                let name = group.members().get(&instance).map(|member| member.name.clone());
                tracing::info!(secondary = name, %instance, "another copy has this one's place in its directory: it is forgotten");
                group.handle_let_go(instance);
                self.wards.remove(instance);
            }
            Err(error) => {
                tracing::warn!(%instance, %error, "a copy whose place another one has taken could not be forgotten yet");
                group.handle_let_go_failed(instance, now());
            }
        }
    }

    /// Another node showed a newer epoch: this one stops to lead.
    pub fn depose(&self, epoch: Epoch) {
        self.group.lock().handle_newer_epoch(epoch);
        self.after_input();
    }

    /// Another node was met that has promised an epoch, and what it holds ends in another one: if the number is that of the
    /// epoch led under, a newer one begins.
    pub fn meet(&self, promised: Epoch, held: Epoch) {
        self.group.lock().handle_conflict(promised, held);
        self.after_input();
    }

    /// The level that the database prescribes.
    pub fn level(&self) -> Level {
        match &self.duty {
            Duty::Leads(lead) => lead.lock().level.parse().unwrap_or_default(),
            Duty::Feeds(_) => Level::default(),
        }
    }

    /// Whether there are enough promotable copies for a level, present or not.
    pub fn has_copies_for(&self, level: Level) -> bool {
        level == Level::Local || self.group.lock().acknowledged(level).is_some()
    }

    /// Stops taking commits and waits until a secondary that is online has all of them; gives the end. The lead can be
    /// taken back by [`Database::hand_over`].
    pub fn hand_over(&self, to: InstanceId, patience: Duration) -> Result<Option<Uid>> {
        let is_online = |group: &Group| {
            let member = group.members().get(&to);
            member.is_some_and(|member| member.online) && group.promotable().contains(&to)
        };
        if !is_online(&self.group.lock()) {
            return Ok(None);
        }
        self.db.hand_over(true);
        let end = self.db.sync()?.max(self.db.log_end().0);
        let begun = now();
        let mut group = self.group.lock();
        loop {
            let has = group.members().get(&to).map_or(Uid::ZERO, |member| member.durable);
            if has >= end {
                return Ok(Some(end));
            }
            let left = patience.checked_sub(Duration::from_millis(now().since(begun).0));
            let Some(left) = left.filter(|left| !left.is_zero() && is_online(&group)) else {
                drop(group);
                self.db.hand_over(false);
                return Ok(None);
            };
            self.acknowledged.wait_for(&mut group, left);
        }
    }

    /// What is closed, not more than a moment ago.
    fn closed(&self) -> Uid {
        let mut closed = self.closed.lock();
        if now().since(closed.0).0 >= CLOSED_FOR_MS {
            // Where the past cannot be closed nothing new is known of it.
            closed.1 = self.db.close_past().unwrap_or(closed.1).max(closed.1);
            closed.0 = now();
        }
        closed.1
    }

    pub(super) fn register(&self, instance: InstanceId, name: String, durable: Uid) -> Result<()> {
        if self.db.is_gated() {
            return Ok(());
        }
        let known = Registration::new(instance, name, durable);
        self.registrar.register(&self.wards.describe(known), now())
    }

    pub(super) fn update_floors(&self) {
        let kept = Kept::of(&self.group.lock(), |instance| self.wards.is_given_up(instance));
        if self.is_feeding() { kept.tell_fed(&self.db) } else { kept.tell(&self.db) }
    }
}

impl std::fmt::Debug for Primary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Primary").field("db", &self.db).finish_non_exhaustive()
    }
}

/// One session with a secondary.
struct Serving<'a> {
    primary: &'a Primary,
    machine: Session,
    session: &'a ReplicaSession,
    /// Where the secondary's node listens, if it told.
    address: Option<SocketAddr>,
    runtime: &'a Handle,
    reads: SessionReads,
    bulk: Option<BulkSender>,
}

impl Serving<'_> {
    fn run(&mut self, news: &Notify) -> Result<()> {
        loop {
            // Before anything is sent, so that not even its next hello brings a secondary further.
            if self.machine.instance().is_some_and(|instance| self.primary.wards.is_paused(instance)) {
                self.session.close(CloseCode::Refused, "an operator has this secondary wait");
                return Ok(());
            }
            self.tell_news();
            self.reads.look_after_pin(now());
            for answer in self.reads.retry()? {
                answer.tell(&mut self.machine, &mut self.primary.group.lock(), now());
            }
            loop {
                let action = self.machine.poll_action(&mut self.primary.group.lock());
                let Some(action) = action else { break };
                if !self.perform(action)? {
                    return Ok(());
                }
                self.tell_news();
            }
            self.primary.after_input();
            if self.machine.is_closed() {
                return Ok(());
            }
            let most = if self.reads.is_waiting() { LOOK_AGAIN_AFTER } else { WAKE_AFTER };
            let wait = until(self.machine.poll_timeout(), most);
            let message = self.runtime.block_on(async {
                tokio::select! {
                    message = self.session.receive() => Some(message),
                    () = news.notified() => None,
                    () = tokio::time::sleep(wait) => None,
                }
            });
            let mut group = self.primary.group.lock();
            match message {
                Some(message) => {
                    let Some(message) = message? else { return Ok(()) };
                    self.machine.handle_message(&mut group, decode_message(&message)?, now());
                }
                None => self.machine.handle_tick(&mut group, now()),
            }
        }
    }

    fn tell_news(&self) {
        if self.primary.is_feeding() {
            return self.primary.group.lock().handle_tick(now());
        }
        // First what is closed, then the end of the log: what is at or below the one is at or below the other.
        let closed = self.primary.closed();
        executor::tell_news(&self.primary.db, &mut self.primary.group.lock(), closed, now());
    }

    /// Carries out one action; `false` ends the session.
    fn perform(&mut self, action: SessionAction) -> Result<bool> {
        match self.reads.perform(action)? {
            Outcome::Done | Outcome::Early => {}
            Outcome::Answered(answer) => {
                answer.tell(&mut self.machine, &mut self.primary.group.lock(), now());
            }
            Outcome::Driver(SessionAction::Send(message)) => self.send(&message)?,
            Outcome::Driver(SessionAction::Register { instance, name, durable }) => {
                self.primary.wards.note_address(instance, self.address);
                self.primary.wards.note_portion(instance, self.machine.portion());
                // Whoever cannot be asked what it has, and cannot be made the primary, is counted on by no level.
                let counts = self.address.is_some() && !self.primary.is_feeding();
                self.primary.group.lock().set_eligible(instance, counts);
                self.primary.warn_if_back(instance, durable);
                self.primary.register(instance, name, durable)?;
            }
            Outcome::Driver(_) => return Ok(false),
        }
        Ok(true)
    }

    fn send(&mut self, message: &Message) -> Result<()> {
        let bytes = encode(message)?;
        if let Some(instance) = self.machine.instance() {
            self.primary.note_sent(instance, message);
        }
        match message.lane() {
            Lane::Control => self.runtime.block_on(self.session.send(bytes)),
            Lane::Bulk => {
                let bulk = match &mut self.bulk {
                    Some(bulk) => bulk,
                    None => {
                        self.bulk.insert(self.runtime.block_on(self.session.open_bulk(bytes::Bytes::new()))?)
                    }
                };
                self.runtime.block_on(bulk.send(bytes))
            }
        }
    }
}
