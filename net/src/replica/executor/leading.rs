use std::net::SocketAddr;

use parking_lot::Mutex;
use planaria_engine::{
    Database, Durability, Followed, Follower, HeldBack, Lead, RefreshEstimate, Registration, Snapshot, Spans,
};
use planaria_replication::ack::Level;
use planaria_replication::primary::{
    CommitsRead, DeltaRead, Group, Identity, PartsRead, RangesRead, Session, SessionAction, StatesRead,
    Survey,
};
use planaria_replication::{Millis, Options, PromotableSets, RewindItem};
use planaria_types::{Epoch, GroupId, InstanceId, Portion, TableId, Uid};

use super::super::{compare, convert};
use crate::{Error, Result};

/// A registered position is written down again once it is this old, if commits other than registrations came.
const REGISTER_AFTER_MS: u64 = 5_000;

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

/// Leads the database's group: begins an epoch, durably, unless it has begun, and remembers who was registered and who
/// may be promoted. Gives what was written down of the lead too.
pub fn lead(db: &Database, options: Options, leading: Leading, now: Millis) -> Result<(Group, Lead)> {
    db.begin_epoch()?;
    forget_those_of_another(db)?;
    register_those_that_were_fed(db)?;
    forget_former(db)?;
    let before = db.lead()?;
    let own = db.instance();
    let stays = before.as_ref().is_some_and(|before| before.promotable.contains(&own));
    if stays {
        register_those_that_led(db, before.as_ref())?;
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
    let identity = Identity { database: db.id(), group: GroupId(1), instance: own };
    let history = db.history();
    let mut group = Group::new(identity, options, history.current(), history, inherited);
    for known in db.registrations()? {
        group.restore(known.instance, known.name, known.durable, true, now);
        if known.portion.is_some() {
            group.note_partial(known.instance);
        }
    }
    group.restore_promotable(sets);
    forget_those_not_registered(&mut group);
    Ok((group, lead))
}

/// A copy is registered before it becomes promotable, so one that is not was forgotten: the primary died between that and
/// the next set, which would wait for that copy for ever.
fn forget_those_not_registered(group: &mut Group) {
    let is_unknown = |instance: &InstanceId| !group.members().contains_key(instance);
    let forgotten: Vec<_> = group.promotable().iter().copied().filter(is_unknown).collect();
    for instance in forgotten {
        group.forget(instance);
    }
}

/// Writes the promotable sets down; gives the commit.
pub fn persist_sets(db: &Database, lead: &mut Lead, sets: &PromotableSets) -> Result<Uid> {
    let next = Lead { promotable: sets.now.clone(), next: sets.next.clone(), ..lead.clone() };
    let uid = db.set_lead(&next)?;
    *lead = next;
    Ok(uid)
}

/// Begins the next incarnation of a primary, unless its epoch is newer than `other` by now; [`tell_epoch`] comes next.
///
/// The group is held all the while: it must not hear of a commit of the new epoch before it knows that.
pub fn begin_above(db: &Database, group: &mut Group, other: Epoch) -> Result<()> {
    db.begin_epoch_above(other)?;
    group.handle_began(db.history());
    Ok(())
}

/// Makes the first commit of an epoch, as at each start: what other copies acknowledge together with it counts.
pub fn tell_epoch(db: &Database, lead: &mut Lead) -> Result<()> {
    lead.epoch = db.epoch();
    db.set_lead(lead)?;
    Ok(())
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

/// What a clone has of its source: those are not its secondaries, and must not hear of its epochs.
fn forget_those_of_another(db: &Database) -> Result<()> {
    if db.lead_is_of_another()? {
        for known in db.registrations()? {
            db.forget(known.instance)?;
        }
    }
    Ok(())
}

/// Those whose place this copy has taken in its directory never come back.
fn forget_former(db: &Database) -> Result<()> {
    let former = db.former_instances().unwrap_or_default();
    for known in db.registrations()?.iter().filter(|known| former.contains(&known.instance)) {
        db.forget(known.instance)?;
    }
    Ok(())
}

/// Whom the copy fed while it followed it leads from now on: what was preserved for them is preserved on.
fn register_those_that_were_fed(db: &Database) -> Result<()> {
    let fed = db.fed().unwrap_or_else(|error| {
        tracing::warn!(%error, "it is not known who was fed: nothing is preserved for them");
        Vec::new()
    });
    if fed.is_empty() {
        return Ok(());
    }
    let known = db.registrations()?;
    for copy in fed.iter().filter(|copy| known.iter().all(|known| known.instance != copy.instance)) {
        db.register(copy, Durability::Synced)?;
    }
    db.keep_fed(&[])?;
    db.set_fed_floor(None);
    Ok(())
}

/// Tells the group how far the database is. What is `closed` was read before.
pub fn tell_news(db: &Database, group: &mut Group, closed: Uid, now: Millis) {
    if group.epoch() != db.epoch() || group.history().entries().len() != db.history().entries().len() {
        group.handle_history(db.history());
    }
    // Read in this order: what is closed and durable is appended, also if commits come between the readings.
    let durable = db.durable();
    group.handle_appended(db.log_end().0);
    let durable = if planted!(db, TellUnsynced) { db.log_end().0 } else { durable };
    group.handle_durable(durable);
    group.handle_closed(closed);
    group.handle_tick(now);
}

/// What retention must keep for the others: old versions for promotable copies that are online, delete marks for all of them,
/// and for registered secondaries, except those that nothing is preserved for any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kept {
    versions: Option<Uid>,
    stable: Option<Uid>,
    preserved: Option<Uid>,
}

impl Kept {
    /// What the group's members need.
    pub fn of(group: &Group, is_given_up: impl Fn(InstanceId) -> bool) -> Self {
        let stable = (!group.promotable().is_empty()).then(|| group.stable());
        let kept = group.members().iter().filter(|(instance, _)| !is_given_up(**instance));
        Self {
            versions: group.stable_online(),
            stable,
            preserved: kept.map(|(_, member)| member.durable).min(),
        }
    }

    /// Tells the engine of a copy that feeds others: only their marks are held back for them.
    pub fn tell_fed(self, db: &Database) {
        db.set_fed_floor(self.preserved);
    }

    /// Tells the engine.
    pub fn tell(self, db: &Database) {
        db.set_floors_apart(self.versions, self.stable, self.preserved);
    }
}

/// Writes down who follows and how far they are.
#[derive(Debug)]
pub struct Registrar {
    db: Database,
    last: Mutex<Written>,
    /// Where the copy feeds others: all of them, as they are written beside its manifest.
    fed: Option<Mutex<Vec<Registration>>>,
}

/// When a registration was written last, and the last commit that was one.
#[derive(Clone, Copy, Default, Debug)]
struct Written {
    at: Millis,
    uid: Uid,
}

impl Registrar {
    /// A registrar that has written nothing yet.
    pub fn new(db: Database) -> Self {
        Self { db, last: Mutex::default(), fed: None }
    }

    /// A registrar of the copies that a secondary feeds, which have been written down as `fed`.
    pub fn feeding(db: Database, fed: Vec<Registration>) -> Self {
        Self { db, last: Mutex::default(), fed: Some(Mutex::new(fed)) }
    }

    /// Who is registered.
    fn known(&self) -> Result<Vec<Registration>> {
        Ok(match &self.fed {
            Some(fed) => fed.lock().clone(),
            None => self.db.registrations()?,
        })
    }

    /// Forgets one.
    pub fn forget(&self, instance: InstanceId) -> Result<()> {
        let Some(fed) = &self.fed else {
            self.db.forget(instance)?;
            return Ok(());
        };
        let mut fed = fed.lock();
        let left: Vec<_> = fed.iter().filter(|known| known.instance != instance).cloned().collect();
        self.db.keep_fed(&left)?;
        *fed = left;
        Ok(())
    }

    fn write_fed(&self, fed: &Mutex<Vec<Registration>>, registration: &Registration) -> Result<()> {
        let mut fed = fed.lock();
        let others = fed.iter().filter(|known| known.instance != registration.instance);
        let next: Vec<_> = others.cloned().chain([registration.clone()]).collect();
        self.db.keep_fed(&next)?;
        *fed = next;
        Ok(())
    }

    /// Makes registrations durable.
    pub fn persist(&self, members: &[Registration], now: Millis) -> Result<()> {
        for registration in members {
            self.write(registration, Durability::Synced, now)?;
        }
        Ok(())
    }

    /// Writes a secondary's position down now and then: one that is too low only keeps more delete marks.
    pub fn register(&self, registration: &Registration, now: Millis) -> Result<()> {
        let known = self.known()?.into_iter().find(|known| known.instance == registration.instance);
        let last = *self.last.lock();
        // A copy that just came is online once it has this commit, and the primary has it durable.
        let durability = if known.is_none() { Durability::Synced } else { Durability::Background };
        let due = known.is_none_or(|known| {
            // The commit that wrote the last registration down needs no registration of its own, and a copy that comes
            // back as it left need not wait for one.
            known.address != registration.address
                || known.portion != registration.portion
                // The first that is heard of a new copy: one that stays as it is would be taken for empty after a restart.
                || known.durable == Uid::ZERO && registration.durable != Uid::ZERO
                || known.durable != registration.durable
                    && registration.durable > last.uid
                    && now.since(last.at).0 >= REGISTER_AFTER_MS
        });
        if due {
            self.write(registration, durability, now)?;
        }
        Ok(())
    }

    fn write(&self, registration: &Registration, durability: Durability, now: Millis) -> Result<()> {
        let uid = match &self.fed {
            Some(fed) => {
                self.write_fed(fed, registration)?;
                Uid::ZERO
            }
            None => self.db.register(registration, durability)?,
        };
        *self.last.lock() = Written { at: now, uid };
        Ok(())
    }
}

/// What became of an action of a session.
#[derive(Debug)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It was a read, and this is to be told to the session.
    Answered(Answer),
    /// It is a read of what is not visible yet: [`SessionReads::retry`] takes it up again.
    Early,
    /// The driver's to do: to send, to close, to register.
    Driver(SessionAction),
}

/// What was read for a session.
#[derive(Debug)]
pub enum Answer {
    /// What a handshake depends on.
    Survey(Survey),
    /// Commits for a round.
    Commits(u64, CommitsRead),
    /// A chunk of a delta for a round.
    Delta(u64, DeltaRead),
    /// States for a round.
    States(u64, StatesRead),
    /// Parts of spans for a round.
    Parts(u64, PartsRead),
    /// Records of ranges for a round.
    Ranges(u64, RangesRead),
}

impl Answer {
    /// Tells the session.
    pub fn tell(self, machine: &mut Session, group: &mut Group, now: Millis) {
        match self {
            Self::Survey(survey) => machine.handle_survey(group, &survey, now),
            Self::Commits(round, read) => machine.handle_commits(group, round, read, now),
            Self::Delta(round, read) => machine.handle_delta(group, round, read, now),
            Self::States(round, read) => machine.handle_states(group, round, read, now),
            Self::Parts(round, read) => machine.handle_parts(group, round, read, now),
            Self::Ranges(round, read) => machine.handle_ranges(group, round, read, now),
        }
    }
}

/// What is read for a round: a snapshot, and of it what a partial copy is to hold.
#[derive(Clone, Debug)]
struct View {
    snapshot: Snapshot,
    spans: Option<Spans>,
}

/// What a round is pinned to.
#[derive(Debug)]
enum Pin {
    /// Nothing, or not yet.
    None,
    /// All that is read for the round is read there.
    At(View),
    /// It kept too much on the disk: nothing more is read for the round.
    Expired,
}

/// What a pin may keep on the disk, in bytes. After each round in a row that was given up it is more, and after four of them all that
/// there is: a round that takes what it takes has to end once, and what it keeps is never more than the database was.
fn allowed(held: &HeldBack, expiries: u32) -> u64 {
    let part = held.bytes_at_most >> 4_u32.saturating_sub(expiries);
    let more = held.cap.saturating_mul(1 << expiries.min(4));
    if expiries == 0 { held.cap } else { more.max(part) }
}

/// How often it is looked at what a pin keeps on the disk.
const LOOK_AT_PIN_AFTER: Millis = Millis(1_000);

/// The answer to a read at a pinned snapshot that was given up.
fn expired(action: &SessionAction) -> Option<Answer> {
    match action {
        SessionAction::ReadDelta { round, pinned: true, .. } => {
            Some(Answer::Delta(*round, DeltaRead::PinExpired))
        }
        SessionAction::ReadStates { round, pinned: true, .. } => {
            Some(Answer::States(*round, StatesRead::PinExpired))
        }
        SessionAction::ReadParts { round, pinned: true, .. } => {
            Some(Answer::Parts(*round, PartsRead::PinExpired))
        }
        SessionAction::ReadRanges { round, pinned: true, .. } => {
            Some(Answer::Ranges(*round, RangesRead::PinExpired))
        }
        _ => None,
    }
}

/// The reads of one session with a secondary.
#[derive(Debug)]
pub struct SessionReads {
    db: Database,
    follower: Option<Follower>,
    /// What the copy is to hold, if it is partial.
    portion: Option<Portion>,
    pin: Pin,
    /// How many rounds in a row have lost their pin.
    expiries: u32,
    /// When it was looked at last what the pin keeps on the disk.
    looked_at: Millis,
    /// Reads of a snapshot that is not there yet.
    early: Vec<SessionAction>,
    /// A survey waits until the history hash at the visible cut is known: what is fed may begin there.
    needs_hash: bool,
}

impl SessionReads {
    /// The reads of a session that begins.
    pub fn new(db: Database) -> Self {
        Self {
            db,
            follower: None,
            portion: None,
            pin: Pin::None,
            expiries: 0,
            looked_at: Millis::default(),
            early: Vec::new(),
            needs_hash: false,
        }
    }

    /// The reads of a session of a copy that feeds others. After a refresh its log begins above its visible cut for a moment.
    pub fn feeding(db: Database) -> Self {
        Self { needs_hash: true, ..Self::new(db) }
    }

    /// Whether reads wait for more to be visible. It is a sync away, unless the disk fails.
    pub fn is_waiting(&self) -> bool {
        !self.early.is_empty()
    }

    /// Tries the reads again that had to wait.
    pub fn retry(&mut self) -> Result<Vec<Answer>> {
        let mut answers = Vec::new();
        for action in std::mem::take(&mut self.early) {
            if let Outcome::Answered(answer) = self.perform(action)? {
                answers.push(answer);
            }
        }
        Ok(answers)
    }

    /// Gives the pinned snapshot up if it keeps more on the disk than the caps allow. The next read of its round is answered
    /// with that.
    pub fn look_after_pin(&mut self, now: Millis) {
        let Pin::At(view) = &self.pin else { return };
        if now.since(self.looked_at) < LOOK_AT_PIN_AFTER {
            return;
        }
        self.looked_at = now;
        let held = self.db.held_back(&view.snapshot);
        if held.bytes > allowed(&held, self.expiries) {
            let HeldBack { bytes, cap, .. } = held;
            tracing::warn!(bytes, cap, "a round keeps too much on the disk: it begins again at a newer cut");
            self.pin = Pin::Expired;
            self.expiries += 1;
        }
    }

    fn unpin(&mut self) {
        if matches!(std::mem::replace(&mut self.pin, Pin::None), Pin::At(_)) {
            self.expiries = 0;
        }
    }

    /// Carries out one action.
    pub fn perform(&mut self, action: SessionAction) -> Result<Outcome> {
        if let SessionAction::ReadDelta { at_least, pinned, .. }
        | SessionAction::ReadStates { at_least, pinned, .. }
        | SessionAction::ReadParts { at_least, pinned, .. }
        | SessionAction::ReadRanges { at_least, pinned, .. } = &action
            && !self.has_reached(*at_least, *pinned)
        {
            self.early.push(action);
            return Ok(Outcome::Early);
        }
        if matches!(self.pin, Pin::Expired)
            && let Some(answer) = expired(&action)
        {
            return Ok(Outcome::Answered(answer));
        }
        let answer = match action {
            SessionAction::Survey { round, since, portion } => {
                self.portion.clone_from(&portion);
                let survey = self.survey(round, since)?;
                if self.needs_hash && survey.visible_hash.is_none() {
                    self.early.push(SessionAction::Survey { round, since, portion });
                    return Ok(Outcome::Early);
                }
                Answer::Survey(survey)
            }
            SessionAction::ReadCommits { round, after, bytes_max } => {
                Answer::Commits(round, self.read_commits(after, bytes_max)?)
            }
            SessionAction::ReadDelta { round, since, cursor, pinned, bytes_max, .. } => {
                let view = self.view(pinned)?;
                Answer::Delta(round, self.read_delta(&view, since, cursor, bytes_max)?)
            }
            SessionAction::ReadStates { round, items, pinned, bytes_max, .. } => {
                let view = self.view(pinned)?;
                Answer::States(round, read_states(&view.snapshot, items, bytes_max)?)
            }
            SessionAction::ReadParts { round, spans, parts, pinned, .. } => {
                let View { snapshot, spans: held } = self.view(pinned)?;
                Answer::Parts(round, compare::read_parts(&snapshot, &spans, held.as_ref(), parts)?)
            }
            SessionAction::ReadRanges { round, spans, pinned, bytes_max, .. } => {
                let View { snapshot, spans: held } = self.view(pinned)?;
                Answer::Ranges(round, compare::read_ranges(&snapshot, &spans, held.as_ref(), bytes_max)?)
            }
            SessionAction::ReleasePin => {
                self.unpin();
                // The round is over, and with it what was to be read for it.
                self.early.clear();
                return Ok(Outcome::Done);
            }
            SessionAction::Send(_) | SessionAction::Close | SessionAction::Register { .. } => {
                return Ok(Outcome::Driver(action));
            }
        };
        Ok(Outcome::Answered(answer))
    }

    fn survey(&mut self, round: u64, since: Uid) -> Result<Survey> {
        // Whoever lacks something of its own cannot tell others what they lack.
        self.db.check_whole("cannot feed other copies")?;
        let estimate = estimate(&self.db, self.portion.as_ref(), since)?;
        // A partial copy takes what one pin shows. It begins here, where the hash that belongs to it can still be told:
        // messages about ranges have no room for another one.
        self.unpin();
        let visible =
            if self.portion.is_some() { self.view(true)?.snapshot.uid() } else { self.db.visible() };
        Ok(Survey {
            round,
            retained: estimate.retained,
            hash: self.db.history_hash_at(since)?,
            mark_floor: self.db.mark_floor(),
            visible,
            visible_hash: self.db.history_hash_at(visible)?,
            tail_bytes: estimate.tail_bytes,
            delta_bytes: estimate.delta_bytes,
            total_bytes: estimate.total_bytes,
        })
    }

    fn read_commits(&mut self, after: Uid, bytes_max: u64) -> Result<CommitsRead> {
        let mut follower = match self.follower.take().filter(|follower| follower.at() == after) {
            Some(follower) => follower,
            None => self.db.follow(after),
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

    /// Whether a read finds what it needs: the round is pinned, or enough is visible.
    fn has_reached(&self, at_least: Uid, pinned: bool) -> bool {
        (pinned && !matches!(self.pin, Pin::None)) || self.db.visible() >= at_least
    }

    /// The newest snapshot, or the one that the round is pinned to, and what of it a partial copy is to hold.
    fn view(&mut self, pinned: bool) -> Result<View> {
        if let Pin::At(view) = &self.pin
            && pinned
        {
            return Ok(view.clone());
        }
        let snapshot = self.db.snapshot();
        let spans = self.portion.as_ref().map(|portion| snapshot.spans_of(portion)).transpose()?;
        let view = View { snapshot, spans };
        if pinned {
            self.pin = Pin::At(view.clone());
        }
        Ok(view)
    }

    fn read_delta(
        &self,
        view: &View,
        since: Uid,
        cursor: Option<(TableId, bytes::Bytes)>,
        bytes_max: u64,
    ) -> Result<DeltaRead> {
        // The cursor is the last key that was read: what follows begins right behind it.
        let from = cursor.map(|(table, key)| (table, [&key[..], &[0]].concat()));
        let (table, key) =
            from.as_ref().map_or((TableId::SYSTEM, &[][..]), |(table, key)| (*table, &key[..]));
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        let chunk = match &view.spans {
            Some(spans) => view.snapshot.changes_within(spans, since, (table, key), bytes_max)?,
            None => view.snapshot.changes(since, (table, key), bytes_max)?,
        };
        let last = match &chunk.next {
            Some(next) if planted!(self.db, LoseCursor) => Some(next.clone()),
            _ => chunk.changes.last().map(|change| (change.table, change.key.clone())),
        };
        Ok(DeltaRead::Chunk {
            snapshot: chunk.at,
            snapshot_hash: self.db.history_hash_at(chunk.at)?,
            mark_floor: self.db.mark_floor(),
            next: chunk.next.and(last),
            records: chunk.changes.into_iter().map(convert::record_out).collect(),
        })
    }
}

/// What bringing a copy up to date would take that holds everything, or a portion alone.
pub(crate) fn estimate(db: &Database, portion: Option<&Portion>, since: Uid) -> Result<RefreshEstimate> {
    let Some(portion) = portion else { return Ok(db.estimate_refresh(since)) };
    let snapshot = db.snapshot();
    Ok(snapshot.estimate_within(&snapshot.spans_of(portion)?, since))
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
