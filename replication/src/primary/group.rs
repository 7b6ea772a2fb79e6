use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use planaria_types::{DatabaseId, Epoch, EpochOrder, GroupId, History, InstanceId, Uid};

use super::action::GroupAction;
use super::doubts::Doubt;
use super::feeding::Feeding;
use super::former::Successor;
use crate::ack::{Level, Tracker};
use crate::options::planted;
use crate::{Millis, Options, PromotableSets, Refusal};

/// Who a primary is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The database.
    pub database: DatabaseId,
    /// The group that is led.
    pub group: GroupId,
    /// The primary's own copy.
    pub instance: InstanceId,
}

/// The number of a session, rising in the order in which connections were accepted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// What a primary knows of one secondary.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Its name, for people.
    pub name: String,
    /// Everything up to this UID is durable there.
    pub durable: Uid,
    /// Everything up to this UID was visible there when last heard of.
    pub visible: Uid,
    /// Whether it may be promoted at all, by configuration.
    pub eligible: bool,
    /// Whether it holds a portion of the database alone: it counts for nothing then.
    pub partial: bool,
    /// Whether it has a session and has reached the tail in it.
    pub online: bool,
    /// The session that it has, if any.
    pub session: Option<SessionId>,
    /// When it was last online, or when it was first heard of.
    pub away_since: Millis,
    /// It came back with less than it had acknowledged, if it ever did: an operator should know.
    pub went_back: Option<WentBack>,
}

/// A copy that lacks what it had acknowledged as durable: its directory was put back from an older state, or its disk lost what it said
/// that it had. It is brought up to date like any other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WentBack {
    /// What it had acknowledged.
    pub acknowledged: Uid,
    /// What it shared with the primary when it came back.
    pub came_with: Uid,
}

impl fmt::Display for WentBack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, came_with } = self;
        write!(
            f,
            "it came back with {came_with}, and had acknowledged {acknowledged}: its directory was put back from an older state, or its \
             disk lost what was durable"
        )
    }
}

/// A change of the promotable set that is under way.
#[derive(Clone, Debug)]
struct Change {
    next: BTreeSet<InstanceId>,
    /// The commit that says so, once it was made.
    at: Option<Uid>,
    /// An operator answers for it: it waits for no other copy.
    forced: bool,
    /// It could not be written down: that is tried again.
    unwritten: bool,
    /// A primary before this one began it, and may have ended it too: copies may count on the next set alone. So nothing takes
    /// its place until a majority of both sets has followed this primary.
    inherited: bool,
}

/// The commit that says that a change of the promotable set is over. Whoever reads the one before it goes on with the change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Ending {
    /// It is there, or no change has ended.
    Written,
    /// It was asked for.
    Asked,
    /// It could not be written: that is tried again.
    Unwritten,
}

/// What all sessions of a primary share: epoch, history, positions, and who follows.
///
/// Order of calls: [`Group::new`] with what the engine recovered, [`Group::restore`] for every registered secondary,
/// [`Group::restore_promotable`]; then any `handle_*` in any order, each followed by [`Group::poll_action`] until it
/// gives nothing, and by [`super::Session::poll_action`] of every session that has room to send.
#[derive(Clone, Debug)]
pub struct Group {
    identity: Identity,
    pub(super) options: Options,
    pub(super) epoch: Epoch,
    pub(super) history: History,
    pub(super) appended: Uid,
    pub(super) durable: Uid,
    pub(super) closed: Uid,
    /// What this epoch began from: above it lie its own commits.
    inherited: Uid,
    pub(super) members: BTreeMap<InstanceId, Member>,
    pub(super) promotable: BTreeSet<InstanceId>,
    pending: Option<Change>,
    /// Copies that have been away for so long that no floor waits for them.
    pub(super) absent: BTreeSet<InstanceId>,
    /// Copies that are gone for good, and who has their places.
    pub(super) successors: BTreeMap<InstanceId, Successor>,
    /// When the engine is asked again to forget some of those, which it could not.
    pub(super) ask_again_at: Option<Millis>,
    /// Whether the end of the last change of the promotable set is written down.
    pub(super) ending: Ending,
    deposed: Option<Epoch>,
    /// What copies have told that says that this one's directory was copied, or put back from an older state.
    pub(super) doubts: BTreeMap<InstanceId, Doubt>,
    /// Rises with each incarnation that begins while it leads: sessions that began before it are over.
    pub(super) incarnations: u64,
    pub(super) actions: VecDeque<GroupAction>,
    /// There if the copy leads nothing, and feeds others on what it follows.
    pub(super) feeding: Option<Feeding>,
}

impl Group {
    /// A primary that leads under `epoch`, which is durable, with everything up to `recovered` durable.
    ///
    /// `history` is the copy's own, without what it took back; it need not have an entry for `epoch` until the first
    /// commit is written under it. That should come soon: who is fed by a copy that follows, and has more than the epoch
    /// inherits, waits for it.
    pub fn new(identity: Identity, options: Options, epoch: Epoch, history: History, recovered: Uid) -> Self {
        Self {
            identity,
            options,
            epoch,
            history,
            appended: recovered,
            durable: recovered,
            closed: recovered,
            inherited: recovered,
            members: BTreeMap::new(),
            doubts: BTreeMap::new(),
            promotable: BTreeSet::new(),
            pending: None,
            absent: BTreeSet::new(),
            successors: BTreeMap::new(),
            ask_again_at: None,
            ending: Ending::Written,
            deposed: None,
            incarnations: 0,
            actions: VecDeque::new(),
            feeding: None,
        }
    }

    /// Tells of a secondary that was registered before this primary began.
    ///
    /// A position beyond what this primary inherited may be of another history, so it counts only up to there.
    pub fn restore(&mut self, instance: InstanceId, name: String, durable: Uid, eligible: bool, now: Millis) {
        // Those who are fed hold marks alone, which may be kept for nothing.
        let durable = if self.feeding.is_some() { durable } else { durable.min(self.appended) };
        let member = Member {
            name,
            durable,
            visible: Uid::ZERO,
            eligible,
            partial: false,
            online: false,
            session: None,
            away_since: now,
            went_back: None,
        };
        self.members.insert(instance, member);
    }

    /// Tells the promotable sets that the system fragment names. A change that was under way goes on.
    pub fn restore_promotable(&mut self, sets: PromotableSets) {
        self.promotable = sets.now;
        self.promotable.remove(&self.identity.instance);
        if let Some(mut next) = sets.next {
            next.remove(&self.identity.instance);
            self.begin_change(next, false);
            self.pending.iter_mut().for_each(|change| change.inherited = true);
        }
    }

    /// Commits up to `uid` are in the log, in order, and may be read.
    pub fn handle_appended(&mut self, uid: Uid) {
        self.appended = self.appended.max(uid);
    }

    /// Everything up to `uid` is durable in the log.
    pub fn handle_durable(&mut self, uid: Uid) {
        self.durable = self.durable.max(uid.min(self.appended));
        self.settle_change();
    }

    /// No commit at or below `uid` will be drawn any more.
    pub fn handle_closed(&mut self, uid: Uid) {
        self.closed = self.closed.max(uid);
    }

    /// The history has a new entry, which is durable. Must come before the first UID above it is appended.
    pub fn handle_history(&mut self, history: History) {
        self.history = history;
    }

    /// These sets, which were asked for, are in the commit `at`.
    pub fn handle_promotable(&mut self, sets: &PromotableSets, at: Uid) {
        let written = sets.next.as_ref().unwrap_or(&sets.now);
        let expected = self.pending.as_ref().map(|change| self.with_own(&change.next));
        if let Some(change) = &mut self.pending
            && expected.as_ref() == Some(written)
        {
            change.at = Some(at);
        }
        if sets.now == self.with_own(&self.promotable) {
            self.ending = Ending::Written;
        }
        self.settle_change();
        self.let_go_of_former();
    }

    /// The sets asked for last could not be written down; the next tick asks again.
    pub fn handle_promotable_failed(&mut self) {
        match &mut self.pending {
            Some(change) => change.unwritten = true,
            None => self.ending = Ending::Unwritten,
        }
    }

    /// Another node showed a newer epoch.
    pub fn handle_newer_epoch(&mut self, epoch: Epoch) {
        if self.deposed.is_none()
            && self.feeding.is_none()
            && matches!(epoch.order(&self.epoch), EpochOrder::Newer)
        {
            self.deposed = Some(epoch);
            self.actions.push_back(GroupAction::Deposed(epoch));
        }
    }

    /// A copy was met that has promised `promised`; what it holds ends in the epoch `held`.
    ///
    /// A promotion that found too little after it was promised leaves copies behind that have promised its epoch, and
    /// another one may have drawn the same number meanwhile. A copy that holds nothing of what it promised has acknowledged nothing
    /// under it, so it may go on to a newer one; and a newer one is what a primary begins at each start, without asking.
    /// One that does hold something of it has a primary of its own, and an operator decides.
    pub fn handle_conflict(&mut self, promised: Epoch, held: Epoch) {
        let begins = GroupAction::BeginAbove(promised);
        let is_conflict = promised.order(&self.epoch) == EpochOrder::Conflict && held != promised;
        let leads = self.deposed.is_none() && self.feeding.is_none();
        if is_conflict && leads && !self.actions.contains(&begins) {
            self.actions.push_back(begins);
        }
    }

    /// The next incarnation has begun, and is the last entry of this history; what it inherits is durable.
    ///
    /// All sessions end: their copies promise the new epoch with their next hello. Until then nobody acknowledges under it.
    pub fn handle_began(&mut self, history: History) {
        let Some(entry) = history.entries().last().copied() else { return };
        if entry.epoch.order(&self.epoch) != EpochOrder::Newer {
            return;
        }
        self.epoch = entry.epoch;
        self.history = history;
        self.inherited = entry.inherited;
        self.handle_appended(entry.inherited);
        self.handle_durable(entry.inherited);
        self.incarnations += 1;
    }

    /// An operator decided whether a copy may be promoted at all. A copy that may not leaves the promotable set.
    pub fn set_eligible(&mut self, instance: InstanceId, eligible: bool) {
        if let Some(member) = self.members.get_mut(&instance) {
            member.eligible = eligible && !member.partial;
        }
        self.propose();
    }

    /// A copy holds a portion of the database alone, by what it says or by what was written down of it: it keeps delete
    /// marks, and is never promotable.
    pub fn note_partial(&mut self, instance: InstanceId) {
        if let Some(member) = self.members.get_mut(&instance) {
            member.partial = true;
            member.eligible = false;
        }
    }

    /// Why a copy cannot be partial now, or whole, if it was the other before.
    pub(super) fn contradicts(&self, instance: InstanceId, is_partial: bool) -> Option<Refusal> {
        if is_partial && (self.promotable.contains(&instance) || self.joins(instance)) {
            return Some(Refusal::CountsAsWhole);
        }
        let was_partial = self.members.get(&instance).is_some_and(|member| member.partial);
        (was_partial && !is_partial).then_some(Refusal::WasPartial)
    }

    /// An operator declared a copy gone for good. It leaves the promotable set; the engine forgets its position.
    pub fn forget(&mut self, instance: InstanceId) {
        self.members.remove(&instance);
        self.absent.remove(&instance);
        self.successors.remove(&instance);
        if self.deposed.is_some() {
            return;
        }
        let next = self.pending.as_ref().map_or(&self.promotable, |change| &change.next);
        let stay = |id: &&InstanceId| **id != instance && next.contains(*id);
        if self.promotable.contains(&instance) {
            // A copy that is about to join needs a majority, which this does not wait for: the next tick proposes it again.
            let left = self.promotable.iter().filter(stay).copied().collect();
            self.begin_change(left, true);
        } else if next.contains(&instance) {
            let left = next.iter().filter(stay).copied().collect();
            self.begin_change(left, false);
        }
    }

    /// Time passed: copies that have been away for too long leave the promotable set.
    pub fn handle_tick(&mut self, now: Millis) {
        if let Some(change) = self.pending.take_if(|change| change.unwritten) {
            self.begin_change(change.next, change.forced);
            self.pending.iter_mut().for_each(|again| again.inherited = change.inherited);
        }
        if self.ending == Ending::Unwritten && self.pending.is_none() {
            self.write_ending();
        }
        let limit = self.options.leave_after;
        let away = |id: InstanceId| {
            let member = self.members.get(&self.stands_for(id));
            member.is_none_or(|member| !member.online && now.since(member.away_since) >= limit)
        };
        let gone: BTreeSet<InstanceId> = self.promotable.iter().copied().filter(|id| away(*id)).collect();
        let joiners = self.pending.iter().flat_map(|change| change.next.difference(&self.promotable));
        let lost: BTreeSet<InstanceId> = joiners.copied().filter(|id| away(*id)).collect();
        self.absent.clone_from(&gone);
        self.join_without(&lost);
        self.propose_without(|id| gone.contains(&id));
        self.propose();
        self.ask_again(now);
        self.let_go_of_former();
    }

    /// When [`Group::handle_tick`] should be called next, if at all.
    pub fn poll_timeout(&self) -> Option<Millis> {
        let away = self
            .promotable
            .difference(&self.absent)
            .filter_map(|id| self.members.get(&self.stands_for(*id)))
            .filter(|member| !member.online);
        away.map(|member| member.away_since.plus(self.options.leave_after)).min()
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<GroupAction> {
        self.actions.pop_front()
    }

    /// The last UID that is acknowledged at `level`; `None` if there are too few promotable copies.
    ///
    /// While the promotable set changes, both the old and the new one must have it, so that whoever is asked at a
    /// promotion knows of it. Other copies acknowledge what was inherited only together with a commit of this epoch: else
    /// a copy with a newer epoch, but without it, could be taken for the furthest (Raft, section 5.4.2).
    pub fn acknowledged(&self, level: Level) -> Option<Uid> {
        let sets = std::iter::once(&self.promotable).chain(self.pending.as_ref().map(|change| &change.next));
        let mut acknowledged = self.durable;
        for set in sets {
            let uid = self.tracker(set).acknowledged(level)?;
            let counts = level.copies_of(set.len() + 1) < 2 || uid > self.inherited;
            acknowledged = acknowledged.min(if counts { uid } else { Uid::ZERO });
        }
        Some(acknowledged)
    }

    /// The stable UID: the lowest durable position in the promotable set, without those that are away for too long. They
    /// may have to be rewound instead of clipped.
    pub fn stable(&self) -> Uid {
        if let Some(feeding) = &self.feeding {
            return feeding.stable();
        }
        self.lowest_durable(|id| !self.absent.contains(&id))
    }

    /// The lowest durable position of those in the promotable set that are online, the primary included, if any other is:
    /// old versions are kept for them alone. Whoever comes to lead while it is away from this primary may have it rewound
    /// instead of clipped. While nobody is here nobody moves the position on, so that nothing may be held back by it.
    pub fn stable_online(&self) -> Option<Uid> {
        if let Some(feeding) = &self.feeding {
            return Some(feeding.stable());
        }
        let is_online = |id| self.members.get(&self.stands_for(id)).is_some_and(|member| member.online);
        let next = self.pending.iter().flat_map(|change| &change.next);
        let mut others = self.promotable.iter().chain(next);
        others.any(|id| is_online(*id)).then(|| self.lowest_durable(is_online))
    }

    /// The lowest durable position of the primary and of those in the promotable set, and in the next one, that count.
    fn lowest_durable(&self, counts: impl Fn(InstanceId) -> bool) -> Uid {
        let sets = std::iter::once(&self.promotable).chain(self.pending.as_ref().map(|change| &change.next));
        let counted = |set: &BTreeSet<InstanceId>| {
            self.tracker(&set.iter().copied().filter(|id| counts(*id)).collect()).stable()
        };
        sets.map(counted).fold(self.durable, Uid::min)
    }

    /// The epoch that this primary leads under.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The newer epoch that ended this primary's reign, if any.
    pub fn deposed(&self) -> Option<Epoch> {
        self.deposed
    }

    /// The group's history.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The last UID in the log.
    pub fn appended(&self) -> Uid {
        self.appended
    }

    /// The last durable UID.
    pub fn durable(&self) -> Uid {
        self.durable
    }

    /// The secondaries, by instance.
    pub fn members(&self) -> &BTreeMap<InstanceId, Member> {
        &self.members
    }

    /// The promotable set as it is durable, without the primary.
    pub fn promotable(&self) -> &BTreeSet<InstanceId> {
        &self.promotable
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    pub(super) fn closed(&self) -> Uid {
        self.closed
    }

    /// Whether `session` is the one that speaks for `instance`.
    pub(super) fn is_current(&self, instance: InstanceId, session: SessionId) -> bool {
        self.members.get(&instance).is_some_and(|member| member.session == Some(session))
    }

    /// Gives `instance` to `session`, unless a newer session has it.
    pub(super) fn attach(
        &mut self,
        instance: InstanceId,
        name: &str,
        durable: Uid,
        session: SessionId,
        now: Millis,
    ) -> bool {
        let member = self.members.entry(instance).or_insert_with(|| Member {
            name: name.to_owned(),
            durable,
            visible: Uid::ZERO,
            eligible: true,
            partial: false,
            online: false,
            session: None,
            away_since: now,
            went_back: None,
        });
        if member.session.is_some_and(|current| current > session) {
            return false;
        }
        if member.online {
            member.away_since = now;
        }
        name.clone_into(&mut member.name);
        // A copy may come back with less than it had: a disk was replaced, or a fork taken back.
        if durable < member.durable && !member.partial {
            member.went_back = Some(WentBack { acknowledged: member.durable, came_with: durable });
        }
        member.durable = durable;
        // The rounds of a partial copy follow one another.
        member.online &= member.partial && member.session == Some(session);
        member.session = Some(session);
        true
    }

    /// `session` is over.
    pub(super) fn detach(&mut self, instance: InstanceId, session: SessionId, now: Millis) {
        if let Some(member) = self.members.get_mut(&instance)
            && member.session == Some(session)
        {
            if member.online {
                member.away_since = now;
            }
            member.session = None;
            member.online = false;
        }
    }

    /// A secondary acknowledged.
    pub(super) fn acknowledge(&mut self, instance: InstanceId, durable: Uid, visible: Uid, online: bool) {
        let Some(member) = self.members.get_mut(&instance) else {
            return;
        };
        member.durable = member.durable.max(durable);
        member.visible = visible;
        let joined = online && !member.online;
        member.online |= online;
        if joined {
            let successors = &self.successors;
            let here = |id: &InstanceId| successors.get(id).map_or(*id, Successor::instance) == instance;
            self.absent.retain(|id| !here(id));
            // Whatever was said of it: it is not gone.
            self.successors.remove(&instance);
            self.rejoin(instance);
            self.propose();
        }
        self.settle_change();
        self.let_go_of_former();
    }

    /// Whether a copy is about to be in the promotable set.
    pub(super) fn joins(&self, instance: InstanceId) -> bool {
        self.pending.as_ref().is_some_and(|change| change.next.contains(&instance))
    }

    fn tracker(&self, set: &BTreeSet<InstanceId>) -> Tracker {
        let mut tracker = Tracker::new(self.durable);
        // Nobody counts twice: neither for itself and another one, nor for two.
        let mut counted = set.clone();
        for id in set {
            let successor = Some(self.stands_for(*id)).filter(|other| counted.insert(*other));
            let member = self.members.get(&successor.unwrap_or(*id));
            tracker.set(*id, member.map_or(Uid::ZERO, |member| member.durable));
        }
        tracker
    }

    /// Asks for a promotable set that holds all that are online and eligible, and drops who is not eligible.
    fn propose(&mut self) {
        let mut next = self.promotable.clone();
        for (id, member) in &self.members {
            if member.online && member.eligible {
                next.insert(*id);
            } else if !member.eligible {
                next.remove(id);
            }
        }
        next.retain(|id| !self.is_succeeded(*id));
        self.propose_set(next);
    }

    fn propose_without(&mut self, leaves: impl Fn(InstanceId) -> bool) {
        let next = self.promotable.iter().copied().filter(|id| !leaves(*id)).collect();
        self.propose_set(next);
    }

    /// One change at a time: a further one is found again by the next tick.
    fn propose_set(&mut self, next: BTreeSet<InstanceId>) {
        let may_change = self.deposed.is_none() && self.feeding.is_none();
        if self.pending.is_none() && next != self.promotable && may_change {
            self.begin_change(next, false);
        }
    }

    /// A copy that was about to leave is back: it stays, unless the change is inherited.
    fn rejoin(&mut self, instance: InstanceId) {
        let Some(change) = &self.pending else { return };
        let leaves = self.promotable.contains(&instance) && !change.next.contains(&instance);
        if leaves
            && !change.forced
            && !change.inherited
            && self.members.get(&instance).is_some_and(|member| member.eligible)
        {
            let mut next = change.next.clone();
            next.insert(instance);
            self.begin_change(next, false);
        }
    }

    /// Copies that were about to join are gone: a change that waits for them would never end. Every set written down so
    /// far has the one that is changed beside it, so another may take the place of the next one.
    fn join_without(&mut self, lost: &BTreeSet<InstanceId>) {
        if let Some(change) =
            self.pending.take_if(|change| !change.forced && !change.inherited && !lost.is_empty())
        {
            let next = change.next.difference(lost).copied().collect();
            self.begin_change(next, false);
        }
    }

    fn begin_change(&mut self, next: BTreeSet<InstanceId>, forced: bool) {
        let now = if forced { &next } else { &self.promotable };
        let sets = PromotableSets { now: self.with_own(now), next: (!forced).then(|| self.with_own(&next)) };
        self.pending = Some(Change { next, at: None, forced, unwritten: false, inherited: false });
        self.actions.push_back(GroupAction::PersistPromotable(sets));
    }

    /// Ends a change once a majority of the set that it changes has it: whoever may be promoted with the old set in mind
    /// meets one of them. What an operator wants is done at once.
    fn settle_change(&mut self) {
        let Some(Change { at: Some(at), forced, .. }) = &self.pending else { return };
        let forced = *forced || planted!(self.options, SetAlone);
        let level = if forced { Level::Local } else { Level::Quorum };
        let known = if forced { Some(self.durable) } else { self.acknowledged(level) };
        if known.is_none_or(|known| known < *at) || self.deposed.is_some() {
            return;
        }
        if let Some(change) = self.pending.take() {
            self.promotable = change.next;
            if !change.forced {
                self.write_ending();
            }
        }
    }

    fn write_ending(&mut self) {
        self.ending = Ending::Asked;
        let sets = PromotableSets { now: self.with_own(&self.promotable), next: None };
        self.actions.push_back(GroupAction::PersistPromotable(sets));
    }

    fn with_own(&self, set: &BTreeSet<InstanceId>) -> BTreeSet<InstanceId> {
        set.iter().copied().chain([self.identity.instance]).collect()
    }
}
