//! A secondary whose primary says anything that passes validation, in any order, and whose engine is late or fails.

use std::collections::VecDeque;

use bytes::Bytes;
use planaria_replication::secondary::{Action, Identity, Local, Replica};
use planaria_replication::{
    Again, Bye, ByeCode, DeltaChunk, Live, Message, Millis, Options, PROTOCOL_VERSION, Parts, RangesReply,
    Reason, Record, Refusal, Refused, RewindItem, RewindReply, Way, Welcome,
};
use planaria_types::{
    DatabaseId, Epoch, EpochOrder, GroupId, History, HistoryEntry, InstanceId, TableId, Uid,
};

use crate::choices::Choices;

const REASONS: [Reason; 14] = [
    Reason::LogHoldsAll,
    Reason::LogReleased,
    Reason::Empty,
    Reason::MarksDropped,
    Reason::HistoryHash,
    Reason::MostDiffers,
    Reason::LiveOverflow,
    Reason::ForkBelowMarks,
    Reason::PinExpired,
    Reason::Asked,
    Reason::Unreadable,
    Reason::Partial,
    Reason::PortionChanged,
    Reason::LogIsLonger,
];
const WAYS: [Way; 6] =
    [Way::Tail, Way::Delta, Way::PinnedDelta, Way::Bulk, Way::Reconcile, Way::PinnedReconcile];
const REFUSALS: [Refusal; 4] =
    [Refusal::Deposed, Refusal::UnrelatedHistory, Refusal::EpochConflict, Refusal::Superseded];

struct World<'a> {
    choices: Choices<'a>,
    replica: Replica,
    is_partial: bool,
    local: Local,
    promised: Epoch,
    connected: bool,
    round: u64,
    now: Millis,
    /// What the engine was asked and has not answered yet, in order.
    asked: VecDeque<Action>,
}

/// No panic; no message that a primary would refuse; nothing shown or acknowledged that is not durable; no cut that falls
/// but by a taking back; no promise that falls; a partial copy takes rounds alone.
pub(crate) fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let end = choices.uid();
    let history = choices.history();
    let end = if history.entries().is_empty() { Uid::ZERO } else { end };
    let local = Local { history, appended: end, durable: end, visible: end, ..Local::default() };
    let identity = Identity {
        database: DatabaseId(1),
        group: GroupId(1),
        instance: InstanceId(2),
        name: "copy".to_owned(),
    };
    let options = Options { held_bytes_max: 2_000, rewind_request_bytes: 64, ..Options::default() };
    let promised = choices.epoch();
    let now = Millis(0);
    let replica = Replica::new(identity, options, promised, local.clone(), 1, now);
    // Nothing is drawn for it, so that inputs keep their meaning.
    let is_partial = promised.term.is_multiple_of(3);
    let holds_it = local.durable.get().is_multiple_of(2);
    let replica = if is_partial { replica.holding(Choices::portion(), holds_it) } else { replica };
    let mut world = World {
        choices,
        replica,
        is_partial,
        local,
        promised,
        connected: false,
        round: 0,
        now,
        asked: VecDeque::new(),
    };
    while !world.choices.is_over() {
        world.step();
        while let Some(action) = world.replica.poll_action() {
            world.act(action);
        }
    }
}

impl World<'_> {
    fn step(&mut self) {
        let now = self.now;
        match self.choices.below(16) {
            0 => {
                self.now = Millis(now.0 + u64::from(self.choices.byte()) * 40);
                self.replica.handle_tick(self.now);
            }
            1 if self.connected => {
                self.connected = false;
                self.replica.handle_disconnected("cut", now);
            }
            2 if self.choices.below(4) == 0 => {
                let way = self.way();
                self.replica.handle_refresh_asked(way, now);
            }
            2 if self.choices.below(4) == 0 => {
                self.replica.handle_failure(self.local.clone(), "a failing disk", now);
            }
            3 => self.make_durable(),
            4..=8 => self.answer(),
            _ if self.connected => {
                let message = self.message();
                if message.validate().is_ok() {
                    self.replica.handle_message(message, now);
                }
            }
            _ => self.answer(),
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Connect => self.connected = true,
            Action::Disconnect => self.connected = false,
            Action::Send(message) => self.check(&message),
            Action::PersistEpoch(epoch) => {
                let order = epoch.order(&self.promised);
                // One that may not be durable is made again.
                let rises = matches!(order, EpochOrder::Newer | EpochOrder::Same);
                assert!(rises, "the promise {} falls to {epoch}", self.promised);
                self.promised = epoch;
            }
            Action::PersistHistory(history) => self.local.history = history,
            Action::TakeBack(to, _) => {
                self.local.history.truncate(&to);
                self.local.appended = to.uid;
                self.local.durable = self.local.durable.min(to.uid);
                self.local.visible = self.local.visible.min(to.uid);
            }
            Action::Show(cut) => {
                assert!(cut <= self.local.durable, "{cut} is shown and not durable");
                assert!(cut >= self.local.visible, "the cut falls to {cut}");
                self.local.visible = cut;
            }
            Action::AbandonBulk => self.asked.retain(|action| !matches!(action, Action::FetchBulk { .. })),
            Action::Quarantine { above, through } => assert!(above < through, "an empty extract"),
            Action::BeginRefresh { .. }
            | Action::ResumeRefresh { .. }
            | Action::SuspendRefresh(_)
            | Action::KeepRefresh(_)
            | Action::AbandonRefresh => {}
            Action::Append(_) | Action::FetchBulk { .. } if self.is_partial => {
                panic!("a partial copy takes what is no round")
            }
            other => self.asked.push_back(other),
        }
        if self.connected {
            self.replica.handle_connected(self.now);
        }
    }

    fn check(&mut self, message: &Message) {
        assert!(message.validate().is_ok(), "{message:?} does not pass its own checks");
        match message {
            Message::Hello(hello) => {
                self.round = hello.round;
                assert_eq!(hello.promised, self.promised, "a hello under a promise that is not durable");
                assert!(hello.durable <= self.local.durable, "a hello beyond what is durable");
            }
            Message::Ack(ack) => {
                assert!(ack.durable <= self.local.durable, "{} is acknowledged and not durable", ack.durable);
                assert_eq!(ack.epoch, self.promised, "an acknowledgement under another epoch than promised");
            }
            _ => {}
        }
    }

    fn make_durable(&mut self) {
        self.local.durable = self.local.appended;
        self.replica.handle_durable(self.local.durable, self.now);
    }

    fn answer(&mut self) {
        let Some(asked) = self.asked.pop_front() else { return };
        let now = self.now;
        match asked {
            Action::Sync => self.make_durable(),
            Action::ReadHash(uid) => {
                let hash = self.choices.hash();
                self.replica.handle_hash(uid, hash, now);
            }
            Action::Append(commits) => {
                for commit in commits {
                    // An engine refuses a commit that does not follow the end of its log.
                    if commit.predecessor != self.local.appended {
                        self.replica.handle_failure(self.local.clone(), "a commit does not follow", now);
                        return;
                    }
                    self.local.appended = commit.uid;
                    self.replica.handle_appended(commit.uid, now);
                }
            }
            Action::StoreDelta { round, .. }
            | Action::StoreRewind { round, .. }
            | Action::StoreRanges { round, .. } => self.replica.handle_stored(round, now),
            Action::BeginReconcile { round, .. } => {
                let tables: Vec<_> =
                    (0..self.choices.below(3)).map(|table| TableId(u32::from(table))).collect();
                self.replica.handle_reconcile_begun(round, &tables, now);
            }
            Action::SumSpans { round, spans } => {
                let sums: Vec<_> = spans.iter().map(|_| self.choices.short()).collect();
                self.replica.handle_sums(round, &sums, now);
            }
            Action::ReadRewindItems { round, .. } => {
                let key = self.choices.key();
                let items =
                    (0..self.choices.below(3)).map(|_| RewindItem::Key(TableId(1), key.clone())).collect();
                let next = self.choices.flag().then(|| (TableId(1), Bytes::clone(&key)));
                self.replica.handle_rewind_items(round, items, next, now);
            }
            Action::Install(install) => {
                let last = install.commits.last().map_or(install.base, |commit| commit.uid);
                assert!(install.cut <= last.max(install.base), "a cut beyond what is installed");
                self.local.history = install.history;
                self.local.appended = last;
                self.local.durable = last;
                self.local.visible = install.cut;
                self.local.hash = install.base_hash;
                self.replica.handle_installed(self.local.clone(), now);
            }
            Action::FetchBulk { at_least, .. } => {
                if self.choices.flag() {
                    let end = at_least.max(self.choices.uid());
                    // Run files are verified, so whoever has data has a history.
                    let entry = HistoryEntry { inherited: Uid::ZERO, ..self.choices.entry() };
                    self.local = Local {
                        history: History::from_entries(vec![entry]).unwrap_or_default(),
                        appended: end,
                        durable: end,
                        visible: end,
                        ..Local::default()
                    };
                    self.replica.handle_bulk_installed(self.local.clone(), now);
                } else {
                    self.replica.handle_failure(self.local.clone(), "the source is gone", now);
                }
            }
            _ => {}
        }
    }

    fn message(&mut self) -> Message {
        let round = self.choices.near(self.round);
        let epoch = if self.choices.below(4) == 0 { self.choices.epoch() } else { self.promised };
        match self.choices.below(10) {
            0 => Message::Welcome(Box::new(self.welcome(round, epoch))),
            1 => {
                let code = REFUSALS[usize::from(self.choices.below(4))];
                Message::Refused(Refused { round, code, epoch })
            }
            2 => Message::DeltaChunk(DeltaChunk {
                round,
                number: u64::from(self.choices.below(3)),
                snapshot: self.choices.uid(),
                snapshot_hash: self.choices.hash(),
                records: self.choices.records(3),
                last: self.choices.flag(),
            }),
            3 => Message::RewindReply(RewindReply {
                round,
                snapshot: self.choices.uid(),
                records: self.choices.records(5),
                complete: self.choices.flag(),
            }),
            4 => {
                let reason = self.reason();
                Message::Again(Again { round, reason })
            }
            5 if self.choices.flag() => {
                Message::Bye(Bye { code: ByeCode::Shutdown, reason: "enough".to_owned() })
            }
            5 => Message::Heartbeat,
            6 => {
                Message::Parts(Parts { round, snapshot: self.choices.uid(), tilings: self.choices.tilings() })
            }
            7 => Message::RangesReply(RangesReply {
                round,
                snapshot: self.choices.uid(),
                done: u32::from(self.choices.below(4)),
                next: self.choices.flag().then(|| self.choices.key()),
                records: self.puts(),
            }),
            _ => Message::Live(Live {
                round,
                epoch,
                began: if self.choices.below(4) == 0 { vec![self.choices.entry()] } else { Vec::new() },
                commits: self.choices.commits(self.local.appended),
                durable: self.choices.uid(),
                stable: self.choices.uid(),
                closed: self.choices.uid(),
            }),
        }
    }

    /// Records as ranges are told by; others now and then.
    fn puts(&mut self) -> Vec<Record> {
        let kinds = if self.choices.below(4) == 0 { 3 } else { 1 };
        self.choices.records(kinds)
    }

    fn way(&mut self) -> Way {
        WAYS[usize::from(self.choices.below(6))]
    }

    fn reason(&mut self) -> Reason {
        REASONS[usize::from(self.choices.below(14))]
    }

    fn welcome(&mut self, round: u64, epoch: Epoch) -> Welcome {
        let history = if self.choices.flag() { self.choices.history() } else { self.local.history.clone() };
        let end = self.local.durable;
        let fork = if self.choices.flag() { self.choices.uid().min(end) } else { end };
        let mut position = history.position_of(fork);
        if self.choices.below(8) == 0 {
            position.epoch = self.choices.epoch();
        }
        let welcome = Welcome {
            version: PROTOCOL_VERSION,
            features: u64::from(self.is_partial),
            round,
            epoch,
            history,
            fork: position,
            fork_hash: self.choices.hash(),
            way: self.way(),
            reason: self.reason(),
            bytes: 0,
            live_from: if self.choices.flag() { fork } else { self.choices.uid() },
            live_from_hash: self.choices.hash(),
            tail: self.choices.uid(),
            durable: self.choices.uid(),
            fed: self.choices.flag(),
            chain: (0..u128::from(self.choices.below(10))).map(InstanceId).collect(),
            resumes: false,
        };
        // Nothing is drawn for it, so that inputs keep their meaning.
        let resumes =
            welcome.tail.get().is_multiple_of(2) && matches!(welcome.way, Way::Delta | Way::PinnedDelta);
        Welcome { resumes, ..welcome }
    }
}
