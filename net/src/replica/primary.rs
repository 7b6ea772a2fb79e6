use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use planaria_engine::{
    CloneRecord, Database, Durability, FilePin, Followed, Follower, Lead, Registration, Snapshot,
};
use planaria_replication::ack::Level;
use planaria_replication::primary::{
    CommitsRead, DeltaRead, Group, GroupAction, Identity, Session, SessionAction, SessionId, StatesRead,
    Survey,
};
use planaria_replication::{Lane, Millis, Options, PromotableSets, RewindItem};
use planaria_types::{Epoch, GroupId, InstanceId, TableId, Uid};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::clock::{now, until};
use super::wards::Wards;
use super::{Opening, clone, convert, decode, decode_message, encode};
use crate::quic::CloseCode;
use crate::quic::session::{BulkSender, ReplicaSession};
use crate::wire::rpc::BoxFuture;
use crate::{Error, Result};

/// A session wakes at least this often.
const WAKE_AFTER: Duration = Duration::from_millis(500);
/// A registered position is written down again once it is this old, if commits other than registrations came.
const REGISTER_AFTER_MS: u64 = 5_000;

/// A database that leads its group: its sessions with secondaries and what they have acknowledged.
pub struct Primary {
    pub(super) db: Database,
    options: Options,
    pub(super) group: Mutex<Group>,
    /// Woken when more is acknowledged.
    acknowledged: Condvar,
    /// What was written down of the lead last; held while it is written.
    lead: Mutex<Lead>,
    /// What is closed, and when that was found.
    closed: Mutex<(Millis, Uid)>,
    next_session: AtomicU64,
    registered: Mutex<Registered>,
    /// What is known of each secondary besides the protocol's view.
    pub(super) wards: Wards,
}

/// How often it is found out what is closed, in milliseconds.
const CLOSED_FOR_MS: u64 = 100;

/// What was written down of secondaries.
#[derive(Default)]
struct Registered {
    /// When a registration was written last, and the last commit that was one.
    at: Millis,
    uid: Uid,
}

/// Why a write is not known to be acknowledged at its level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AckError {
    /// Too few copies answered in time: the write is durable here, and whether it survives a failover is unknown.
    #[error(
        "commit {uid} is durable here, but whether it is on {level} copies is unknown after {waited_ms} ms"
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

/// What a primary says of itself.
#[derive(Clone, Debug, Default)]
pub struct Leading {
    /// Its name, for people.
    pub name: String,
    /// Where it listens, if it does.
    pub address: Option<SocketAddr>,
    /// The level that the database prescribes from now on; what was prescribed before if none is given.
    pub level: Option<Level>,
}

impl Primary {
    /// Leads the database's group: begins an epoch, durably, unless it has begun, and remembers who was registered and
    /// who may be promoted.
    pub fn start(db: Database, leading: Leading) -> Result<Arc<Self>> {
        db.begin_epoch()?;
        let before = db.lead()?;
        let own = db.instance();
        let stays = before.as_ref().is_some_and(|before| before.promotable.contains(&own));
        if stays {
            register_those_that_led(&db, before.as_ref())?;
        }
        let sets = match before.as_ref().filter(|_| stays) {
            Some(before) => PromotableSets { now: before.promotable.clone(), next: before.next.clone() },
            // A new database, a clone, or a copy that an operator promoted all the same: it is alone.
            None => PromotableSets { now: [own].into(), next: None },
        };
        let level = leading.level.map(|level| level.name().to_owned());
        let lead = Lead {
            instance: own,
            name: leading.name,
            address: leading.address,
            epoch: db.epoch(),
            level: level.or_else(|| before.map(|before| before.level)).unwrap_or_default(),
            promotable: sets.now.clone(),
            next: sets.next.clone(),
        };
        let inherited = db.position().uid;
        // The first commit of the epoch: what other copies acknowledge together with it counts.
        db.set_lead(&lead)?;
        let options = Options::default();
        let identity = Identity { database: db.id(), group: GroupId(1), instance: db.instance() };
        let history = db.history();
        let mut group = Group::new(identity, options.clone(), history.current(), history, inherited);
        let wards = Wards::default();
        for known in db.registrations()? {
            wards.restore(&known);
            group.restore(known.instance, known.name, known.durable, true, now());
        }
        group.restore_promotable(sets);
        let primary = Self {
            db,
            options,
            group: Mutex::new(group),
            acknowledged: Condvar::new(),
            lead: Mutex::new(lead),
            closed: Mutex::new((Millis(0), Uid::ZERO)),
            next_session: AtomicU64::new(1),
            registered: Mutex::new(Registered::default()),
            wards,
        };
        primary.update_floors();
        Ok(Arc::new(primary))
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
    pub fn serve(self: &Arc<Self>, session: &ReplicaSession, runtime: &Handle) {
        let peer = session.peer().clone();
        let served = self.serve_opening(session, runtime);
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
    pub fn take_over(self: &Arc<Self>, session: ReplicaSession) -> BoxFuture {
        let primary = Arc::clone(self);
        Box::pin(async move {
            let runtime = Handle::current();
            let served = tokio::task::spawn_blocking(move || primary.serve(&session, &runtime)).await;
            if let Err(error) = served {
                tracing::error!(%error, "a session broke off");
            }
        })
    }

    fn serve_opening(self: &Arc<Self>, session: &ReplicaSession, runtime: &Handle) -> Result<()> {
        let first = runtime.block_on(session.receive())?.ok_or(Error::Closed)?;
        match decode::<Opening>(&first)? {
            Opening::Follow { port } => {
                let address = port.map(|port| SocketAddr::new(session.peer().address.ip(), port));
                self.serve_secondary(session, runtime, address)
            }
            Opening::Clone => {
                let pin: FilePin = self.db.pin_files()?;
                let (cut, bytes) = (pin.list().position.uid, pin.list().bytes());
                runtime.block_on(clone::serve_pin(session, pin))?;
                let peer = session.peer();
                self.db.record_clone(&CloneRecord {
                    name: "remote".to_owned(),
                    target: peer.address.to_string(),
                    role: None,
                    source: self.db.instance(),
                    cut,
                    bytes,
                    created_ms: self.db.now_millis(),
                })?;
                Ok(())
            }
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
        let woken = Arc::clone(&news);
        self.db.listen(number, Arc::new(move || woken.notify_one()));
        let mut serving = Serving {
            primary: self,
            machine: Session::new(SessionId(number), self.options.clone(), now()),
            session,
            address,
            runtime,
            follower: None,
            pin: None,
            bulk: None,
        };
        let ended = serving.run(&news);
        self.db.unlisten(number);
        serving.machine.handle_disconnected(&mut self.group.lock(), now());
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
        let mut lead = self.lead.lock();
        loop {
            let action = self.group.lock().poll_action();
            match action {
                Some(GroupAction::PersistPromotable(sets)) => {
                    let next = Lead { promotable: sets.now.clone(), next: sets.next.clone(), ..lead.clone() };
                    match self.db.set_lead(&next) {
                        Ok(uid) => {
                            *lead = next;
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
                Some(GroupAction::Deposed(epoch)) => {
                    tracing::error!(%epoch, "a newer primary leads this group: this one takes no more updates");
                    if let Err(error) = self.db.promise(epoch) {
                        tracing::error!(%error, "the newer epoch could not be promised");
                    }
                }
                None => break,
            }
        }
    }

    /// Another node showed a newer epoch: this one stops to lead.
    pub fn depose(&self, epoch: Epoch) {
        self.group.lock().handle_newer_epoch(epoch);
        self.after_input();
    }

    /// The level that the database prescribes.
    pub fn level(&self) -> Level {
        self.lead.lock().level.parse().unwrap_or_default()
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

    pub(super) fn write_registration(
        &self,
        registration: &Registration,
        durability: Durability,
    ) -> Result<()> {
        let uid = self.db.register(registration, durability)?;
        let mut registered = self.registered.lock();
        *registered = Registered { at: now(), uid };
        Ok(())
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

    /// Writes a secondary's position down now and then: one that is too low only keeps more delete marks.
    fn register(&self, instance: InstanceId, name: &str, durable: Uid, leaves: bool) -> Result<()> {
        if self.db.is_gated() {
            return Ok(());
        }
        let known = self.db.registrations()?.into_iter().find(|known| known.instance == instance);
        let due = {
            let registered = self.registered.lock();
            // The commit that wrote the last registration down needs no registration of its own.
            durable > registered.uid && (leaves || now().since(registered.at).0 >= REGISTER_AFTER_MS)
        };
        let next = self.wards.describe(Registration::new(instance, name, durable));
        if known.is_none_or(|known| known.address != next.address) || due {
            self.write_registration(&next, Durability::Background)?;
        }
        Ok(())
    }

    /// Tells retention what must be kept: nothing passes the stable UID, and delete marks stay for registered
    /// secondaries, except those that nothing is preserved for any more.
    pub(super) fn update_floors(&self) {
        let group = self.group.lock();
        let stable = (!group.promotable().is_empty()).then(|| group.stable());
        let kept = group.members().iter().filter(|(instance, _)| !self.wards.is_given_up(**instance));
        let preserved = kept.map(|(_, member)| member.durable).min();
        self.db.set_floors(stable, preserved);
    }
}

/// The copy that led before follows from now on, and the one that leads does so no more.
fn register_those_that_led(db: &Database, before: Option<&Lead>) -> Result<()> {
    let own = db.instance();
    let known = db.registrations()?;
    if known.iter().any(|known| known.instance == own) {
        db.forget(own)?;
    }
    if let Some(before) = before.filter(|before| before.instance != own)
        && known.iter().all(|known| known.instance != before.instance)
    {
        let inherited = db.history().entries().last().map_or(Uid::ZERO, |entry| entry.inherited);
        let led = Registration::new(before.instance, before.name.clone(), inherited);
        db.register(&Registration { address: before.address, ..led }, Durability::Synced)?;
    }
    Ok(())
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
    follower: Option<Follower>,
    pin: Option<Snapshot>,
    bulk: Option<BulkSender>,
}

impl Serving<'_> {
    fn run(&mut self, news: &Notify) -> Result<()> {
        loop {
            self.tell_news();
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
            if self.machine.instance().is_some_and(|instance| self.primary.wards.is_paused(instance)) {
                self.session.close(CloseCode::Refused, "an operator has this secondary wait");
                return Ok(());
            }
            let wait = until(self.machine.poll_timeout(), WAKE_AFTER);
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
        let db = &self.primary.db;
        // First what is closed, then the end of the log: what is at or below the one is at or below the other.
        let closed = self.primary.closed();
        let mut group = self.primary.group.lock();
        if group.epoch() != db.epoch() || group.history().entries().len() != db.history().entries().len() {
            group.handle_history(db.history());
        }
        group.handle_appended(db.log_end().0);
        group.handle_durable(db.durable());
        group.handle_closed(closed);
        group.handle_tick(now());
    }

    /// Carries out one action; `false` ends the session.
    fn perform(&mut self, action: SessionAction) -> Result<bool> {
        let primary = self.primary;
        match action {
            SessionAction::Send(message) => self.send(&message)?,
            SessionAction::Close => return Ok(false),
            SessionAction::Register { instance, name, durable } => {
                primary.wards.note_address(instance, self.address);
                primary.register(instance, &name, durable, false)?;
            }
            SessionAction::Survey { round, since } => {
                let survey = self.survey(round, since)?;
                self.machine.handle_survey(&mut primary.group.lock(), &survey, now());
            }
            SessionAction::ReadCommits { round, after, bytes_max } => {
                let read = self.read_commits(after, bytes_max)?;
                self.machine.handle_commits(&mut primary.group.lock(), round, read, now());
            }
            SessionAction::ReadDelta { round, since, cursor, at_least, pinned, bytes_max } => {
                let snapshot = self.snapshot(at_least, pinned);
                let read = self.read_delta(&snapshot, since, cursor, bytes_max)?;
                self.machine.handle_delta(&mut primary.group.lock(), round, read, now());
            }
            SessionAction::ReadStates { round, items, at_least, pinned, bytes_max } => {
                let snapshot = self.snapshot(at_least, pinned);
                let read = read_states(&snapshot, items, bytes_max)?;
                self.machine.handle_states(&mut primary.group.lock(), round, read, now());
            }
            SessionAction::ReleasePin => self.pin = None,
        }
        Ok(true)
    }

    fn send(&mut self, message: &planaria_replication::Message) -> Result<()> {
        let bytes = encode(message)?;
        if let Some(instance) = self.machine.instance() {
            self.primary.wards.note_sent(instance, message);
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

    fn survey(&self, round: u64, since: Uid) -> Result<Survey> {
        let db = &self.primary.db;
        let estimate = db.estimate_refresh(since);
        let visible = db.visible();
        Ok(Survey {
            round,
            retained: estimate.retained,
            hash: db.history_hash_at(since)?,
            mark_floor: db.mark_floor(),
            visible,
            visible_hash: db.history_hash_at(visible)?,
            tail_bytes: estimate.tail_bytes,
            delta_bytes: estimate.delta_bytes,
            total_bytes: estimate.total_bytes,
        })
    }

    fn read_commits(&mut self, after: Uid, bytes_max: u64) -> Result<CommitsRead> {
        let mut follower = match self.follower.take().filter(|follower| follower.at() == after) {
            Some(follower) => follower,
            None => self.primary.db.follow(after),
        };
        let followed = follower.next(usize::try_from(bytes_max).unwrap_or(usize::MAX))?;
        self.follower = Some(follower);
        Ok(match followed {
            Followed::Commits(commits) => {
                CommitsRead::Commits(commits.iter().map(convert::commit_out).collect())
            }
            Followed::NotRetained => CommitsRead::NotRetained,
        })
    }

    /// A snapshot that has reached `at_least`, or the one that the round is pinned to.
    fn snapshot(&mut self, at_least: Uid, pinned: bool) -> Snapshot {
        if let Some(pin) = self.pin.as_ref().filter(|_| pinned) {
            return pin.clone();
        }
        let mut snapshot = self.primary.db.snapshot();
        while snapshot.uid() < at_least {
            // What was appended is shown as soon as its commit group is done: no more than a sync away.
            std::thread::yield_now();
            snapshot = self.primary.db.snapshot();
        }
        if pinned {
            self.pin = Some(snapshot.clone());
        }
        snapshot
    }

    fn read_delta(
        &self,
        snapshot: &Snapshot,
        since: Uid,
        cursor: Option<(TableId, bytes::Bytes)>,
        bytes_max: u64,
    ) -> Result<DeltaRead> {
        let db = &self.primary.db;
        // The cursor is the last key that was read: what follows begins right behind it.
        let from = cursor.map(|(table, key)| (table, [&key[..], &[0]].concat()));
        let (table, key) =
            from.as_ref().map_or((TableId::SYSTEM, &[][..]), |(table, key)| (*table, &key[..]));
        let chunk =
            snapshot.changes(since, (table, key), usize::try_from(bytes_max).unwrap_or(usize::MAX))?;
        let last = chunk.changes.last().map(|change| (change.table, change.key.clone()));
        Ok(DeltaRead::Chunk {
            snapshot: chunk.at,
            snapshot_hash: db.history_hash_at(chunk.at)?,
            mark_floor: db.mark_floor(),
            next: chunk.next.and(last),
            records: chunk.changes.into_iter().map(convert::record_out).collect(),
        })
    }
}

fn read_states(snapshot: &Snapshot, items: Vec<RewindItem>, bytes_max: u64) -> Result<StatesRead> {
    let mut records = Vec::new();
    let mut bytes = 0;
    let mut items = items.into_iter();
    while bytes < bytes_max {
        match items.next() {
            Some(RewindItem::Key(table, key)) => {
                let record = convert::record_out(snapshot.state_of(table, &key)?);
                bytes += record.weight();
                records.push(record);
            }
            Some(RewindItem::Range(..)) => {
                return Err(Error::Protocol("range deletes are not part of this protocol version".into()));
            }
            None => break,
        }
    }
    Ok(StatesRead::States { snapshot: snapshot.uid(), records, rest: items.collect() })
}
