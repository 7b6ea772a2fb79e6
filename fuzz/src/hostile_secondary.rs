//! A primary whose secondaries say anything that passes validation, in any order, over several sessions at a time.

use std::collections::BTreeMap;

use planaria_replication::ack::Level;
use planaria_replication::primary::{
    CommitsRead, DeltaRead, Group, GroupAction, Identity, PartsRead, RangesRead, Session, SessionAction,
    SessionId, StatesRead, Survey,
};
use planaria_replication::{
    Ack, Bye, ByeCode, Commit, Compare, DeltaRequest, Hello, Message, Millis, Options, PROTOCOL_VERSION,
    PartSum, RangesRequest, Reason, RewindItem, RewindRequest, Span, Tiling, Way,
};
use planaria_types::{
    DatabaseId, Epoch, GroupId, HistoryEntry, HistoryHash, InstanceId, KeyRange, TableId, Uid,
};

use crate::choices::Choices;

struct World<'a> {
    choices: Choices<'a>,
    group: Group,
    sessions: BTreeMap<u64, Session>,
    opened: u64,
    round: u64,
    now: Millis,
}

/// No panic; no message that a secondary would refuse; nothing counted as acknowledged beyond what the primary itself holds durably.
pub(crate) fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let identity = Identity { database: DatabaseId(1), group: GroupId(1), instance: InstanceId(1) };
    let options = Options { leave_after: Millis(100), live_window_bytes: 600, ..Options::default() };
    // A primary's history has its epoch before the first commit.
    let (mut history, end) = (choices.history(), choices.uid());
    let term = history.entries().last().map_or(1, |entry| entry.epoch.term + 1);
    let epoch = Epoch { term, incarnation: 0, nonce: term };
    let inherited = history.entries().last().map_or(Uid::ZERO, |entry| entry.inherited.max(end));
    let entry = HistoryEntry { epoch, inherited, hash: HistoryHash(1) };
    history.push(entry).expect("a newer term follows");
    let end = end.max(inherited);
    let group = Group::new(identity, options, epoch, history, end);
    let mut world = World { choices, group, sessions: BTreeMap::new(), opened: 0, round: 1, now: Millis(0) };
    while !world.choices.is_over() {
        world.step();
        world.drain();
        let acknowledged = world.group.acknowledged(Level::One);
        assert!(
            acknowledged.is_none_or(|uid| uid <= world.group.durable()),
            "{acknowledged:?} is acknowledged"
        );
    }
}

impl World<'_> {
    fn step(&mut self) {
        let now = self.now;
        match self.choices.below(12) {
            0 => {
                self.now = Millis(now.0 + u64::from(self.choices.byte()) * 40);
                self.group.handle_tick(self.now);
                for session in self.sessions.values_mut() {
                    session.handle_tick(&mut self.group, self.now);
                }
            }
            1 if self.sessions.len() < 3 => {
                self.opened += 1;
                let session = Session::new(SessionId(self.opened), Options::default(), now);
                self.sessions.insert(self.opened, session);
            }
            2 => {
                let uid = self.choices.uid();
                self.group.handle_appended(uid);
                if self.choices.flag() {
                    self.group.handle_durable(self.group.appended());
                    self.group.handle_closed(self.group.appended());
                }
            }
            3 => {
                let number = self.pick();
                if let Some(mut session) = self.sessions.remove(&number) {
                    session.handle_disconnected(&mut self.group, now);
                }
            }
            _ => {
                let message = self.message();
                let number = self.pick();
                if let Some(session) = self.sessions.get_mut(&number)
                    && message.validate().is_ok()
                {
                    session.handle_message(&mut self.group, message, now);
                }
            }
        }
    }

    fn pick(&mut self) -> u64 {
        let at = usize::from(self.choices.below(3));
        self.sessions.keys().nth(at).copied().unwrap_or(0)
    }

    fn drain(&mut self) {
        while let Some(action) = self.group.poll_action() {
            match action {
                GroupAction::PersistPromotable(sets) => {
                    // Written down by a commit.
                    let uid = Uid::new(self.group.appended().get() + 1);
                    self.group.handle_appended(uid);
                    self.group.handle_durable(uid);
                    self.group.handle_promotable(&sets, uid);
                }
                GroupAction::LetGo(instance) => self.group.handle_let_go(instance),
                GroupAction::Deposed(_) | GroupAction::BeginAbove(_) => {}
            }
        }
        let numbers: Vec<u64> = self.sessions.keys().copied().collect();
        for number in numbers {
            // A reader that grants itself much is answered until it has nothing left to ask, but not without end.
            for _ in 0..32 {
                let Some(session) = self.sessions.get_mut(&number) else { break };
                let Some(action) = session.poll_action(&mut self.group) else { break };
                self.act(number, action);
            }
        }
    }

    fn act(&mut self, number: u64, action: SessionAction) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let (choices, group) = (&mut self.choices, &mut self.group);
        match action {
            SessionAction::Send(message) => {
                assert!(message.validate().is_ok(), "{message:?} does not pass its own checks");
            }
            SessionAction::Close => {
                self.sessions.remove(&number);
            }
            SessionAction::Survey { round, .. } => {
                let survey = survey(choices, group, round);
                session.handle_survey(group, &survey, now);
            }
            SessionAction::ReadCommits { round, after, .. } => {
                let read =
                    if choices.below(6) == 0 { CommitsRead::NotRetained } else { commits(group, after) };
                session.handle_commits(group, round, read, now);
            }
            SessionAction::ReadDelta { round, at_least, pinned, .. } => {
                let read = if pinned && choices.below(4) == 0 {
                    DeltaRead::PinExpired
                } else {
                    let key = choices.key();
                    DeltaRead::Chunk {
                        snapshot: group.durable().max(at_least),
                        snapshot_hash: choices.hash(),
                        mark_floor: choices.uid(),
                        records: Vec::new(),
                        next: choices.flag().then_some((TableId(1), key)),
                    }
                };
                session.handle_delta(group, round, read, now);
            }
            SessionAction::ReadStates { round, at_least, items, pinned, .. } => {
                let read = if pinned && choices.below(4) == 0 {
                    StatesRead::PinExpired
                } else {
                    let rest = if choices.flag() { items.into_iter().skip(1).collect() } else { Vec::new() };
                    StatesRead::States { snapshot: group.durable().max(at_least), records: Vec::new(), rest }
                };
                session.handle_states(group, round, read, now);
            }
            SessionAction::ReadParts { .. } | SessionAction::ReadRanges { .. } => {
                self.compare(number, action);
            }
            SessionAction::Register { durable, .. } => {
                assert!(
                    durable <= group.appended(),
                    "a secondary is registered at {durable}, which nobody wrote"
                );
            }
            SessionAction::ReleasePin => {}
        }
    }

    fn compare(&mut self, number: u64, action: SessionAction) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let (choices, group) = (&mut self.choices, &mut self.group);
        match action {
            SessionAction::ReadParts { round, spans, at_least, pinned, .. } => {
                let read = if pinned && choices.below(4) == 0 {
                    PartsRead::PinExpired
                } else {
                    let spans = if spans.is_empty() { vec![Span::all(TableId(1))] } else { spans };
                    PartsRead::Parts {
                        snapshot: group.durable().max(at_least),
                        tilings: spans.iter().map(|span| tiling(choices, span)).collect(),
                    }
                };
                session.handle_parts(group, round, read, now);
            }
            SessionAction::ReadRanges { round, spans, at_least, pinned, .. } => {
                let read = if pinned && choices.below(4) == 0 {
                    RangesRead::PinExpired
                } else {
                    // All of it, or the first span up to where it begins.
                    let done = if choices.flag() { spans.len() as u32 } else { 0 };
                    let first = spans.first().filter(|_| done == 0);
                    RangesRead::Ranges {
                        snapshot: group.durable().max(at_least),
                        done,
                        next: first.map(|span| span.keys.start.clone().into()),
                        records: Vec::new(),
                    }
                };
                session.handle_ranges(group, round, read, now);
            }
            _ => {}
        }
    }

    fn message(&mut self) -> Message {
        let round = self.choices.near(self.round);
        match self.choices.below(10) {
            0 | 1 => Message::Hello(Box::new(self.hello())),
            2 => Message::DeltaRequest(DeltaRequest { round, grant: u64::from(self.choices.below(8)) }),
            3 => {
                let key = self.choices.key();
                let items = match self.choices.below(3) {
                    0 => Vec::new(),
                    1 => vec![RewindItem::Range(TableId(1), KeyRange { start: key.to_vec(), end: None })],
                    _ => vec![RewindItem::Key(TableId(1), key)],
                };
                Message::RewindRequest(RewindRequest { round, items })
            }
            4 => Message::Heartbeat,
            6 => Message::Compare(Compare { round, spans: self.choices.spans() }),
            7 => Message::RangesRequest(RangesRequest { round, spans: self.choices.spans() }),
            5 if self.choices.below(4) == 0 => {
                Message::Bye(Bye { code: ByeCode::Shutdown, reason: String::new() })
            }
            _ => Message::Ack(Ack {
                round,
                epoch: if self.choices.below(4) == 0 { self.choices.epoch() } else { self.group.epoch() },
                durable: self.choices.uid(),
                visible: self.choices.uid(),
                received_bytes: u64::from(self.choices.byte()),
            }),
        }
    }

    fn hello(&mut self) -> Hello {
        self.round = u64::from(self.choices.below(4));
        let history = if self.choices.flag() { self.group.history().clone() } else { self.choices.history() };
        let hello = Hello {
            version_min: PROTOCOL_VERSION,
            version_max: PROTOCOL_VERSION,
            features: 0,
            database: DatabaseId(1),
            instance: InstanceId(u128::from(self.choices.below(4))),
            name: "copy".to_owned(),
            group: GroupId(1),
            round: self.round,
            promised: if self.choices.flag() { self.group.epoch() } else { self.choices.epoch() },
            history,
            durable: self.choices.uid(),
            hash: self.choices.hash(),
            without_live: self.choices.below(4) == 0,
            bulk: (self.choices.below(6) == 0).then_some(Reason::ForkBelowMarks),
            asked: match self.choices.below(8) {
                0 => Some(Way::Reconcile),
                1 => Some(Way::PinnedReconcile),
                2 => Some(Way::Bulk),
                _ => None,
            },
            portion: None,
            former: Vec::new(),
            resume: None,
        };
        match hello.promised.term % 3 {
            // Nothing is drawn for it, so that inputs keep their meaning.
            0 => Hello { features: 1, portion: Some(Choices::portion()), ..hello },
            1 => Hello { former: (0..4).map(InstanceId).collect(), ..hello },
            _ => hello,
        }
    }
}

fn survey(choices: &mut Choices<'_>, group: &Group, round: u64) -> Survey {
    Survey {
        round,
        retained: choices.flag(),
        hash: choices.hash(),
        mark_floor: choices.uid(),
        visible: group.durable(),
        visible_hash: choices.hash(),
        tail_bytes: u64::from(choices.byte()),
        delta_bytes: u64::from(choices.byte()),
        total_bytes: u64::from(choices.byte()) << 20,
    }
}

/// One part, as a store that holds nothing of the span would cut it.
fn tiling(choices: &mut Choices<'_>, span: &Span) -> Tiling {
    let sum = PartSum { count: u64::from(choices.below(2)), short: choices.short() };
    Tiling::new(span.table, &[], vec![sum])
}

/// The next commits of a log in which every UID is that of a commit.
fn commits(group: &Group, after: Uid) -> CommitsRead {
    let next = (after.get()..group.appended().get()).take(4).map(|predecessor| Commit {
        uid: Uid::new(predecessor + 1),
        predecessor: Uid::new(predecessor),
        hash: HistoryHash(u128::from(predecessor + 1)),
        bytes: vec![0; 100].into(),
    });
    CommitsRead::Commits(next.collect())
}
