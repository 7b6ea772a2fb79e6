use std::collections::VecDeque;

use planaria_types::{EpochOrder, InstanceId, Portion, Position, Uid};

use super::action::{CommitsRead, DeltaRead, PartsRead, RangesRead, SessionAction, StatesRead, Survey};
use super::compare::CompareServing;
use super::group::{Group, SessionId};
use super::serve::{DeltaServing, LiveServing, RewindServing};
use crate::message::FEATURES;
use crate::options::planted;
use crate::{
    Ack, Again, Bye, ByeCode, Hello, Message, Millis, Options, PROTOCOL_VERSION, Reason, Refusal, Refused,
    Resume, Situation, Way, Welcome, agree, choose,
};

/// A primary's session with one secondary.
///
/// Order of calls: [`Session::new`] when a connection was accepted; then any `handle_*`, each followed by
/// [`Session::poll_action`] until it gives nothing or the transport has no more room. News for the secondary are
/// gathered until they are polled, so that a slow transport costs no memory. [`Session::handle_disconnected`] once,
/// at the end. Answers to reads may come late: those of an older round are dropped.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    options: Options,
    instance: Option<InstanceId>,
    name: String,
    /// What the copy is to hold, if it is partial.
    portion: Option<Portion>,
    round: Round,
    actions: VecDeque<SessionAction>,
    heard: Millis,
    sent: Millis,
    registered: Uid,
    /// The generation of the group, at the last hello.
    generation: u64,
    closed: bool,
}

/// What a session serves since the last hello.
#[derive(Debug)]
enum Round {
    /// No hello yet, or the last one was refused.
    None,
    /// The engine was asked what the handshake depends on.
    Surveying { hello: Box<Hello>, fork: Position },
    /// The secondary was welcomed.
    Serving(Box<Serving>),
}

#[derive(Debug)]
struct Serving {
    number: u64,
    way: Way,
    /// A copy that has this is online.
    target: Uid,
    live: LiveServing,
    delta: Option<DeltaServing>,
    rewind: RewindServing,
    compare: Option<CompareServing>,
}

impl Session {
    /// A session on a connection that was accepted as number `id`.
    pub fn new(id: SessionId, options: Options, now: Millis) -> Self {
        Self {
            id,
            options,
            instance: None,
            name: String::new(),
            portion: None,
            round: Round::None,
            actions: VecDeque::new(),
            heard: now,
            sent: now,
            registered: Uid::ZERO,
            generation: 0,
            closed: false,
        }
    }

    /// The copy at the other end, once it said hello.
    pub fn instance(&self) -> Option<InstanceId> {
        self.instance
    }

    /// What the copy at the other end is to hold, if it is partial.
    pub fn portion(&self) -> Option<&Portion> {
        self.portion.as_ref()
    }

    /// The way that the secondary is brought up to date by, once chosen.
    pub fn way(&self) -> Option<Way> {
        match &self.round {
            Round::Serving(serving) => Some(serving.way),
            Round::None | Round::Surveying { .. } => None,
        }
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// A message came.
    pub fn handle_message(&mut self, group: &mut Group, message: Message, now: Millis) {
        self.heard = now;
        if self.closed {
            return;
        }
        if let Err(error) = message.validate() {
            return self.close(group, ByeCode::Protocol, error.to_string(), now);
        }
        if self.ended_elsewhere(group, now) {
            return;
        }
        match message {
            Message::Hello(hello) => self.on_hello(group, hello, now),
            Message::Ack(ack) => self.on_ack(group, &ack, now),
            Message::DeltaRequest(request) => {
                if let Some(delta) = self.serving(request.round).and_then(|serving| serving.delta.as_mut()) {
                    delta.grant(request.grant);
                }
            }
            Message::RewindRequest(request) => {
                let valid =
                    self.serving(request.round).is_none_or(|serving| serving.rewind.ask(request.items));
                if !valid {
                    self.close(group, ByeCode::Protocol, "a rewind asked twice at once", now);
                }
            }
            Message::Compare(compare) => {
                let serving = self.serving(compare.round).and_then(|serving| serving.compare.as_mut());
                if serving.is_some_and(|serving| !serving.ask_parts(compare.spans)) {
                    self.close(group, ByeCode::Protocol, "a comparison asked twice at once", now);
                }
            }
            Message::RangesRequest(request) => {
                let serving = self.serving(request.round).and_then(|serving| serving.compare.as_mut());
                if serving.is_some_and(|serving| !serving.ask_ranges(request.spans)) {
                    self.close(group, ByeCode::Protocol, "too many questions for ranges at once", now);
                }
            }
            Message::Heartbeat => {}
            Message::Bye(_) => self.finish(group, now),
            Message::Welcome(_)
            | Message::Refused(_)
            | Message::Live(_)
            | Message::DeltaChunk(_)
            | Message::RewindReply(_)
            | Message::Parts(_)
            | Message::RangesReply(_)
            | Message::Again(_) => {
                self.close(group, ByeCode::Protocol, "a secondary sent a message of a primary", now);
            }
        }
    }

    /// The engine answered a survey.
    pub fn handle_survey(&mut self, group: &mut Group, survey: &Survey, now: Millis) {
        let round = std::mem::replace(&mut self.round, Round::None);
        match round {
            Round::Surveying { hello, fork } if hello.round == survey.round => {
                if !self.ended_elsewhere(group, now) {
                    self.welcome(group, &hello, fork, survey);
                }
            }
            other => self.round = other,
        }
    }

    /// The engine read commits.
    pub fn handle_commits(&mut self, group: &mut Group, round: u64, read: CommitsRead, now: Millis) {
        if self.ended_elsewhere(group, now) {
            return;
        }
        let Some(serving) = self.serving(round) else {
            return;
        };
        match read {
            CommitsRead::NotRetained => {
                serving.live.stop();
                self.again(round, Reason::LogReleased);
            }
            CommitsRead::Commits(commits) => match serving.live.take(group, round, commits) {
                Ok(Some(live)) => self.send(Message::Live(live)),
                Ok(None) => {}
                Err(why) => self.close(group, ByeCode::Engine, why, now),
            },
        }
    }

    /// The engine read a chunk of a delta.
    pub fn handle_delta(&mut self, group: &mut Group, round: u64, read: DeltaRead, now: Millis) {
        if self.ended_elsewhere(group, now) {
            return;
        }
        let options = self.options.clone();
        let Some(delta) = self.serving(round).and_then(|serving| serving.delta.as_mut()) else {
            return;
        };
        match delta.take(&options, round, read) {
            Ok(chunk) => self.send(Message::DeltaChunk(chunk)),
            Err(Ok(reason)) => self.again(round, reason),
            Err(Err(why)) => self.close(group, ByeCode::Engine, why, now),
        }
    }

    /// The engine read states for a rewind.
    pub fn handle_states(&mut self, group: &mut Group, round: u64, read: StatesRead, now: Millis) {
        if self.ended_elsewhere(group, now) {
            return;
        }
        let Some(serving) = self.serving(round) else {
            return;
        };
        match serving.rewind.take(round, read) {
            Ok(reply) => self.send(Message::RewindReply(reply)),
            Err(Ok(reason)) => self.again(round, reason),
            Err(Err(why)) => self.close(group, ByeCode::Engine, why, now),
        }
    }

    /// The engine read parts for a comparison.
    pub fn handle_parts(&mut self, group: &mut Group, round: u64, read: PartsRead, now: Millis) {
        if self.ended_elsewhere(group, now) {
            return;
        }
        let Some(compare) = self.serving(round).and_then(|serving| serving.compare.as_mut()) else {
            return;
        };
        match compare.take_parts(round, read) {
            Ok(parts) => self.send(Message::Parts(parts)),
            Err(Ok(reason)) => self.again(round, reason),
            Err(Err(why)) => self.close(group, ByeCode::Engine, why, now),
        }
    }

    /// The engine read the records of ranges.
    pub fn handle_ranges(&mut self, group: &mut Group, round: u64, read: RangesRead, now: Millis) {
        if self.ended_elsewhere(group, now) {
            return;
        }
        let Some(compare) = self.serving(round).and_then(|serving| serving.compare.as_mut()) else {
            return;
        };
        match compare.take_ranges(round, read) {
            Ok(reply) => self.send(Message::RangesReply(reply)),
            Err(Ok(reason)) => self.again(round, reason),
            Err(Err(why)) => self.close(group, ByeCode::Engine, why, now),
        }
    }

    /// The engine could not carry out an action.
    pub fn handle_failure(&mut self, group: &mut Group, what: &str, now: Millis) {
        self.close(group, ByeCode::Engine, what, now);
    }

    /// The connection is gone.
    pub fn handle_disconnected(&mut self, group: &mut Group, now: Millis) {
        if !self.closed {
            self.actions.clear();
            self.finish(group, now);
        }
    }

    /// Time passed.
    pub fn handle_tick(&mut self, group: &mut Group, now: Millis) {
        if self.closed || self.ended_elsewhere(group, now) {
            return;
        }
        if now.since(self.heard) >= self.options.session_timeout {
            self.close(group, ByeCode::Timeout, "the secondary was silent", now);
        } else if now.since(self.sent) >= self.options.heartbeat {
            self.sent = now;
            self.send(Message::Heartbeat);
        }
    }

    /// When [`Session::handle_tick`] should be called next.
    pub fn poll_timeout(&self) -> Option<Millis> {
        let silent = self.heard.plus(self.options.session_timeout);
        (!self.closed).then(|| silent.min(self.sent.plus(self.options.heartbeat)))
    }

    /// The next thing to do. Call it while the transport has room.
    pub fn poll_action(&mut self, group: &mut Group) -> Option<SessionAction> {
        if let Some(action) = self.actions.pop_front() {
            return Some(action);
        }
        if self.has_moved(group) {
            // Before anything is read or told of what is fed now, in a round of what was fed before.
            self.ended_elsewhere(group, self.heard);
            return self.actions.pop_front();
        }
        if self.closed {
            return None;
        }
        let Round::Serving(serving) = &mut self.round else {
            return None;
        };
        let number = serving.number;
        if let Some(member) = self.instance.and_then(|id| group.members().get(&id))
            && member.durable > self.registered
            && let Some(instance) = self.instance
        {
            self.registered = member.durable;
            let name = self.name.clone();
            return Some(SessionAction::Register { instance, name, durable: member.durable });
        }
        serving
            .live
            .poll(group, &self.options, number)
            .or_else(|| serving.delta.as_mut()?.poll(&self.options, number))
            .or_else(|| serving.rewind.poll(&self.options, number))
            .or_else(|| serving.compare.as_mut()?.poll(&self.options, number))
    }

    fn serving(&mut self, round: u64) -> Option<&mut Serving> {
        match &mut self.round {
            Round::Serving(serving) if serving.number == round && !self.closed => Some(serving),
            _ => None,
        }
    }

    fn on_hello(&mut self, group: &mut Group, hello: Box<Hello>, now: Millis) {
        if matches!(self.round, Round::Serving(_)) {
            self.actions.push_back(SessionAction::ReleasePin);
        }
        self.round = Round::None;
        let shared = match self.admit(group, &hello) {
            Ok(shared) => shared,
            Err(code) => return self.refuse(group, &hello, code, now),
        };
        if !group.attach(hello.instance, &hello.name, shared.uid, self.id, now) {
            return self.refuse(group, &hello, Refusal::Superseded, now);
        }
        group.doubt_what_is_lacking(&hello, shared.uid);
        self.instance = Some(hello.instance);
        self.generation = group.generation();
        self.name.clone_from(&hello.name);
        self.portion.clone_from(&hello.portion);
        if self.portion.is_some() {
            group.note_partial(hello.instance);
        } else {
            group.succeed(hello.instance, &hello.former);
        }
        self.registered = shared.uid;
        let (instance, name) = (hello.instance, hello.name.clone());
        self.actions.push_back(SessionAction::Register { instance, name, durable: shared.uid });
        self.actions.push_back(SessionAction::Survey {
            round: hello.round,
            since: shared.uid,
            portion: hello.portion.clone(),
        });
        self.round = Round::Surveying { hello, fork: shared };
    }

    /// Whether a copy may follow, and the last position that it shares.
    fn admit(&self, group: &mut Group, hello: &Hello) -> Result<Position, Refusal> {
        let identity = group.identity();
        if hello.database != identity.database {
            return Err(Refusal::ForeignDatabase);
        }
        if hello.group != identity.group {
            return Err(Refusal::UnknownGroup);
        }
        if !(hello.version_min..=hello.version_max).contains(&PROTOCOL_VERSION) {
            return Err(Refusal::Version);
        }
        if hello.instance == identity.instance || self.instance.is_some_and(|known| known != hello.instance) {
            return Err(Refusal::SameInstance);
        }
        if let Some(refusal) = group.contradicts(hello.instance, hello.portion.is_some()) {
            return Err(refusal);
        }
        if let Some(why) = group.why_not_fed(hello) {
            return Err(why);
        }
        match hello.promised.order(&group.epoch()) {
            EpochOrder::Newer => {
                group.handle_newer_epoch(hello.promised);
                return Err(Refusal::Deposed);
            }
            EpochOrder::Conflict => {
                group.handle_conflict(hello.promised, hello.history.epoch_of(hello.durable));
                group.doubt_number(hello);
                return Err(Refusal::EpochConflict);
            }
            EpochOrder::Older | EpochOrder::Same => {}
        }
        if planted!(self.options, ForkByWatermark) {
            let uid = hello.durable.min(group.appended());
            return Ok(group.history().position_of(uid));
        }
        group.shared_with(hello)
    }

    fn refuse(&mut self, group: &mut Group, hello: &Hello, code: Refusal, now: Millis) {
        self.send(Message::Refused(Refused { round: hello.round, code, epoch: group.epoch() }));
        self.finish(group, now);
    }

    fn welcome(&mut self, group: &Group, hello: &Hello, fork: Position, survey: &Survey) {
        let same_hash = match (hello.hash, survey.hash) {
            (Some(theirs), Some(ours)) if fork.uid == hello.durable => theirs == ours,
            _ => true,
        };
        let unmarked = planted!(self.options, DeltaBelowMarkFloor);
        // A copy that shares nothing with its primary and holds something all the same has to be compared.
        let shares_nothing = fork.uid == Uid::ZERO && hello.durable > Uid::ZERO && hello.portion.is_some();
        let choice = choose(&Situation {
            since: fork.uid,
            retained: survey.retained,
            mark_floor: if unmarked { Uid::ZERO } else { survey.mark_floor },
            tail_bytes: survey.tail_bytes,
            delta_bytes: survey.delta_bytes,
            total_bytes: survey.total_bytes,
            without_live: hello.without_live,
            trusted: same_hash && agree(group.history(), &hello.history),
            bulk: hello.bulk.or(shares_nothing.then_some(Reason::ForkBelowMarks)),
            asked: hello.asked,
            bulk_bytes_min: self.options.bulk_bytes_min,
            tail_bytes_free: self.options.tail_bytes_free,
            is_partial: hello.portion.is_some(),
            is_begun: Self::resumed(group, hello, fork, survey, Way::Delta).is_some(),
        });
        let (live_from, live_from_hash) = Self::live_from(&self.options, group, choice.way, fork.uid, survey);
        let resumed = Self::resumed(group, hello, fork, survey, choice.way)
            .filter(|kept| kept.read_at.uid <= live_from || planted!(self.options, ResumeBehind))
            .cloned();
        let welcome = Welcome {
            version: PROTOCOL_VERSION,
            features: hello.features & FEATURES,
            round: hello.round,
            epoch: group.epoch(),
            history: group.history().clone(),
            fork,
            fork_hash: survey.hash,
            way: choice.way,
            reason: choice.reason,
            bytes: choice.bytes,
            live_from,
            live_from_hash,
            tail: group.appended(),
            durable: group.durable(),
            fed: group.is_feeding(),
            chain: group.chain(),
            resumes: resumed.is_some(),
        };
        let with_live = matches!(choice.way, Way::Tail | Way::Delta | Way::Reconcile);
        let pinned = choice.way.is_pinned();
        let delta = matches!(choice.way, Way::Delta | Way::PinnedDelta)
            .then(|| DeltaServing::new(fork.uid, live_from, pinned, resumed));
        self.round = Round::Serving(Box::new(Serving {
            number: hello.round,
            way: choice.way,
            // A partial copy is as far as its last round was.
            target: if hello.portion.is_some() { live_from } else { welcome.tail },
            live: LiveServing::new(&welcome, with_live),
            delta,
            rewind: RewindServing::new(live_from, pinned),
            compare: choice.way.reconciles().then(|| CompareServing::new(live_from, pinned)),
        }));
        self.send(Message::Welcome(Box::new(welcome)));
    }

    /// What a delta goes on from: it is on top of what the copy holds, all that was read is of this history, and no mark above its
    /// base has been dropped. An empty copy, which needs no marks, has something then that does.
    fn resumed<'a>(
        group: &Group,
        hello: &'a Hello,
        fork: Position,
        survey: &Survey,
        way: Way,
    ) -> Option<&'a Resume> {
        let is_delta = matches!(way, Way::Delta | Way::PinnedDelta);
        let fits = |kept: &&Resume| {
            let is_of_this_history = group.history().position_of(kept.read_at.uid) == kept.read_at;
            fork.uid == hello.durable && is_of_this_history && survey.mark_floor <= kept.base
        };
        hello.resume.as_ref().filter(|kept| is_delta && fits(kept))
    }

    /// S0. Not what is appended but what is visible: a chunk is read at a snapshot, and what it does not see must
    /// come in the live stream.
    fn live_from(
        options: &Options,
        group: &Group,
        way: Way,
        fork: Uid,
        survey: &Survey,
    ) -> (Uid, Option<planaria_types::HistoryHash>) {
        if planted!(options, LiveFromAppended) && way == Way::Delta {
            return (group.appended(), None);
        }
        if !matches!(way, Way::Tail | Way::Bulk) && survey.visible > fork {
            (survey.visible, survey.visible_hash)
        } else {
            (fork, survey.hash)
        }
    }

    fn on_ack(&mut self, group: &mut Group, ack: &Ack, now: Millis) {
        let (epoch, durable) = (group.epoch(), group.durable());
        let Some(instance) = self.instance else { return };
        let is_partial = self.portion.is_some();
        let Some(serving) = self.serving(ack.round) else {
            return;
        };
        let fault = if ack.epoch != epoch {
            Some("an acknowledgement of another epoch")
        } else if ack.durable > durable {
            Some("an acknowledgement of what is not durable here")
        } else if !serving.live.credit(ack.received_bytes) {
            Some("an acknowledgement of what was not sent")
        } else {
            None
        };
        if let Some(fault) = fault {
            return self.close(group, ByeCode::Protocol, fault, now);
        }
        let reached = ack.durable >= serving.target && ack.visible >= serving.target;
        let online = reached && serving.way != Way::Bulk;
        if is_partial {
            // Its round is over: what was pinned for it goes, and what is closed is so up to what it shows.
            serving.live.installed(ack.visible);
            self.actions.push_back(SessionAction::ReleasePin);
        }
        group.acknowledge(instance, ack.durable, ack.visible, online);
    }

    /// Whether what the session began to feed on goes on no more, or the epoch that it began under.
    fn has_moved(&self, group: &Group) -> bool {
        !self.closed && self.instance.is_some() && self.generation != group.generation()
    }

    /// Ends the session if the primary was deposed or began a new epoch, what is fed on has changed, or the copy has a newer session.
    fn ended_elsewhere(&mut self, group: &mut Group, now: Millis) -> bool {
        if self.has_moved(group) {
            self.close(group, ByeCode::Moved, "say hello again", now);
        } else if group.deposed().is_some() {
            self.close(group, ByeCode::Deposed, "a newer epoch exists", now);
        } else if self.instance.is_some_and(|instance| !group.is_current(instance, self.id)) {
            self.close(group, ByeCode::Superseded, "that one goes on", now);
        }
        self.closed
    }

    fn again(&mut self, round: u64, reason: Reason) {
        self.actions.push_back(SessionAction::ReleasePin);
        self.send(Message::Again(Again { round, reason }));
        self.round = Round::None;
    }

    fn send(&mut self, message: Message) {
        self.actions.push_back(SessionAction::Send(message));
    }

    fn close(&mut self, group: &mut Group, code: ByeCode, reason: impl Into<String>, now: Millis) {
        if !self.closed {
            self.send(Message::Bye(Bye { code, reason: reason.into() }));
            self.finish(group, now);
        }
    }

    fn finish(&mut self, group: &mut Group, now: Millis) {
        self.closed = true;
        self.round = Round::None;
        self.actions.push_back(SessionAction::Close);
        if let Some(instance) = self.instance {
            group.detach(instance, self.id, now);
        }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
