use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use planaria_engine::{
    CloneRecord, Database, Durability, FilePin, Followed, Follower, Registration, Snapshot,
};
use planaria_replication::ack::Level;
use planaria_replication::primary::{
    CommitsRead, DeltaRead, Group, GroupAction, Identity, Session, SessionAction, SessionId, StatesRead,
    Survey,
};
use planaria_replication::{Choice, Lane, Message, Millis, Options, Reason, RewindItem, Situation, Way};
use planaria_types::{GroupId, History, HistoryHash, InstanceId, TableId, Uid};
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::clock::{now, until};
use super::{Opening, clone, compare, convert, decode, decode_message, encode};
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
    db: Database,
    options: Options,
    group: Mutex<Group>,
    /// Woken when more is acknowledged.
    acknowledged: Condvar,
    next_session: AtomicU64,
    registered: Mutex<Registered>,
    /// How each secondary was last brought up to date.
    welcomed: Mutex<HashMap<InstanceId, (Way, Reason)>>,
}

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
}

/// One secondary, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// The copy.
    pub instance: InstanceId,
    /// Its name.
    pub name: String,
    /// `online`, `refreshing` or `offline`.
    pub state: &'static str,
    /// Whether it is in the promotable set.
    pub promotable: bool,
    /// Everything up to this UID is durable there.
    pub durable: Uid,
    /// Everything up to this UID is visible there.
    pub visible: Uid,
    /// How far its durable position is behind the last commit, in milliseconds.
    pub lag_ms: u64,
    /// The way that it was last brought up to date by, and why, since this start.
    pub refresh: Option<(Way, Reason)>,
}

/// What a refresh would take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshPlan {
    /// The way, why, and the estimated bytes.
    pub choice: Choice,
    /// The estimated number of records; none for a tail, which moves commits.
    pub records: Option<u64>,
}

impl Primary {
    /// Leads the database's group: begins an epoch, durably, and remembers who was registered.
    pub fn start(db: Database) -> Result<Arc<Self>> {
        db.begin_epoch()?;
        let options = Options::default();
        let identity = Identity { database: db.id(), group: GroupId(1), instance: db.instance() };
        let history = db.history();
        let mut group = Group::new(identity, options.clone(), history.current(), history, db.position().uid);
        let mut promotable = BTreeSet::new();
        for known in db.registrations()? {
            if known.promotable {
                promotable.insert(known.instance);
            }
            group.restore(known.instance, known.name, known.durable, true, now());
        }
        group.restore_promotable(promotable);
        let primary = Self {
            db,
            options,
            group: Mutex::new(group),
            acknowledged: Condvar::new(),
            next_session: AtomicU64::new(1),
            registered: Mutex::new(Registered::default()),
            welcomed: Mutex::new(HashMap::new()),
        };
        primary.update_floors();
        Ok(Arc::new(primary))
    }

    /// The database.
    pub fn database(&self) -> &Database {
        &self.db
    }

    /// The secondaries that are registered.
    pub fn replicas(&self) -> Vec<ReplicaState> {
        let last = self.db.log_end().0;
        let welcomed = self.welcomed.lock().clone();
        let group = self.group.lock();
        let state =
            |(instance, member): (&InstanceId, &planaria_replication::primary::Member)| ReplicaState {
                instance: *instance,
                name: member.name.clone(),
                state: match (member.online, member.session) {
                    (true, _) => "online",
                    (false, Some(_)) => "refreshing",
                    (false, None) => "offline",
                },
                promotable: group.promotable().contains(instance),
                durable: member.durable,
                visible: member.visible,
                lag_ms: if member.durable >= last {
                    0
                } else {
                    last.millis().saturating_sub(member.durable.millis())
                },
                refresh: welcomed.get(instance).copied(),
            };
        group.members().iter().map(state).collect()
    }

    /// What a refresh of a copy with this history, durable position and hash there would take, if it began now; nothing
    /// is begun.
    ///
    /// # Errors
    ///
    /// `Protocol` if the copy has no epoch in common with this primary.
    pub fn plan(
        &self,
        history: &History,
        durable: Uid,
        hash: Option<HistoryHash>,
        asked: Option<Way>,
    ) -> Result<RefreshPlan> {
        let (own, appended) = {
            let group = self.group.lock();
            (group.history().clone(), group.appended())
        };
        let fork = planaria_replication::fork(&own, appended, history, durable)
            .ok_or_else(|| Error::Protocol("the histories have no epoch in common: clone anew".into()))?;
        let estimate = self.db.estimate_refresh(fork.uid);
        let known = if fork.uid == durable { self.db.history_hash_at(durable)? } else { None };
        let same_hash = hash.zip(known).is_none_or(|(theirs, ours)| theirs == ours);
        let choice = planaria_replication::choose(&Situation {
            since: fork.uid,
            retained: estimate.retained,
            mark_floor: self.db.mark_floor(),
            tail_bytes: estimate.tail_bytes,
            delta_bytes: estimate.delta_bytes,
            total_bytes: estimate.total_bytes,
            without_live: false,
            trusted: same_hash && planaria_replication::agree(&own, history),
            bulk: None,
            asked,
            bulk_bytes_min: self.options.bulk_bytes_min,
        });
        let versions: u64 = self.db.status()?.tables.iter().map(|table| table.versions).sum();
        let records = (choice.way != Way::Tail).then(|| {
            let share = u128::from(versions) * u128::from(choice.bytes);
            (share / u128::from(estimate.total_bytes.max(choice.bytes).max(1))) as u64
        });
        Ok(RefreshPlan { choice, records })
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
            Opening::Follow => self.serve_secondary(session, runtime),
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

    fn serve_secondary(self: &Arc<Self>, session: &ReplicaSession, runtime: &Handle) -> Result<()> {
        let number = self.next_session.fetch_add(1, Ordering::Relaxed);
        let news = Arc::new(Notify::new());
        let woken = Arc::clone(&news);
        self.db.listen(number, Arc::new(move || woken.notify_one()));
        let mut serving = Serving {
            primary: self,
            machine: Session::new(SessionId(number), self.options.clone(), now()),
            session,
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
    fn after_input(&self) {
        loop {
            let action = self.group.lock().poll_action();
            match action {
                Some(GroupAction::PersistPromotable(set)) => match self.persist_promotable(&set) {
                    Ok(()) => self.group.lock().handle_promotable(),
                    Err(error) => tracing::warn!(%error, "the promotable set could not be written"),
                },
                Some(GroupAction::Deposed(epoch)) => {
                    tracing::error!(%epoch, "a newer primary leads this group");
                }
                None => break,
            }
        }
        self.update_floors();
        self.acknowledged.notify_all();
    }

    fn persist_promotable(&self, set: &BTreeSet<InstanceId>) -> Result<()> {
        let members: Vec<_> = {
            let group = self.group.lock();
            let of =
                |(instance, member): (&InstanceId, &planaria_replication::primary::Member)| Registration {
                    instance: *instance,
                    name: member.name.clone(),
                    durable: member.durable,
                    promotable: set.contains(instance),
                };
            group.members().iter().map(of).collect()
        };
        for registration in members {
            self.write_registration(&registration, Durability::Synced)?;
        }
        Ok(())
    }

    fn write_registration(&self, registration: &Registration, durability: Durability) -> Result<()> {
        let uid = self.db.register(registration, durability)?;
        let mut registered = self.registered.lock();
        *registered = Registered { at: now(), uid };
        Ok(())
    }

    /// Writes a secondary's position down now and then: one that is too low only keeps more delete marks.
    fn register(&self, instance: InstanceId, name: &str, durable: Uid, leaves: bool) -> Result<()> {
        let known = self.db.registrations()?.into_iter().find(|known| known.instance == instance);
        let promotable = self.group.lock().promotable().contains(&instance);
        let due = {
            let registered = self.registered.lock();
            // The commit that wrote the last registration down needs no registration of its own.
            durable > registered.uid && (leaves || now().since(registered.at).0 >= REGISTER_AFTER_MS)
        };
        if known.is_none() || due {
            let name = name.to_string();
            self.write_registration(
                &Registration { instance, name, durable, promotable },
                Durability::Background,
            )?;
        }
        Ok(())
    }

    /// Tells retention what must be kept: nothing passes the stable UID, and delete marks stay for registered
    /// secondaries, unless what is preserved for one exceeds the caps.
    fn update_floors(&self) {
        let (bytes_max, age_max_ms) = self.db.preserved_max();
        let newest = self.db.log_end().0;
        let (stable, mut positions) = {
            let group = self.group.lock();
            let stable = (!group.promotable().is_empty()).then(|| group.stable());
            (stable, group.members().values().map(|member| member.durable).collect::<Vec<_>>())
        };
        positions.sort_unstable();
        let preserved = positions.into_iter().find(|position| {
            newest.millis().saturating_sub(position.millis()) <= age_max_ms
                || self.db.estimate_refresh(*position).delta_bytes <= bytes_max
        });
        self.db.set_floors(stable, preserved);
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
        let mut group = self.primary.group.lock();
        if group.epoch() != db.epoch() || group.history().entries().len() != db.history().entries().len() {
            group.handle_history(db.history());
        }
        group.handle_appended(db.log_end().0);
        group.handle_durable(db.durable());
        group.handle_closed(db.visible());
        group.handle_tick(now());
    }

    /// Carries out one action; `false` ends the session.
    fn perform(&mut self, action: SessionAction) -> Result<bool> {
        let primary = self.primary;
        match action {
            SessionAction::Send(message) => self.send(&message)?,
            SessionAction::Close => return Ok(false),
            SessionAction::Register { instance, name, durable } => {
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
            SessionAction::ReadParts { round, spans, parts, at_least, pinned } => {
                let read = compare::read_parts(&self.snapshot(at_least, pinned), &spans, parts)?;
                self.machine.handle_parts(&mut primary.group.lock(), round, read, now());
            }
            SessionAction::ReadRanges { round, spans, at_least, pinned, bytes_max } => {
                let read = compare::read_ranges(&self.snapshot(at_least, pinned), &spans, bytes_max)?;
                self.machine.handle_ranges(&mut primary.group.lock(), round, read, now());
            }
            SessionAction::ReleasePin => self.pin = None,
        }
        Ok(true)
    }

    fn send(&mut self, message: &Message) -> Result<()> {
        if let (Message::Welcome(welcome), Some(instance)) = (message, self.machine.instance()) {
            self.primary.welcomed.lock().insert(instance, (welcome.way, welcome.reason));
        }
        let bytes = encode(message)?;
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
