//! A secondary that compares and replaces, against a primary of sorted numbers.

use std::collections::BTreeSet;

use bytes::Bytes;
use planaria_types::{
    DatabaseId, Epoch, GroupId, History, HistoryEntry, HistoryHash, InstanceId, KeyRange, TableId, Uid,
};

use super::super::refresh::Refresh;
use super::Replica;
use crate::primary::{Group, Identity, PartsRead, RangesRead, Session, SessionAction, SessionId, Survey};
use crate::secondary::{self, Action, Local, State};
use crate::{Message, Millis, Options, PartSum, Reason, Record, RecordKind, Span, Tiling, Way};

const TABLE: TableId = TableId(1);
const NOW: Millis = Millis(1_000);

/// So many records, whose keys are numbers; some of which differ.
struct Side {
    records: u64,
    /// What the hashes of records up to each one add up to.
    sums: Vec<u64>,
}

fn hash(number: u64, differs: bool) -> u64 {
    let z = (number ^ u64::from(differs) << 60).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (z ^ z >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1
}

fn key(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

impl Side {
    fn new(records: u64, differing: &BTreeSet<u64>) -> Self {
        let mut sums = Vec::with_capacity(records as usize + 1);
        let mut sum = 0_u64;
        sums.push(sum);
        for number in 0..records {
            let differs = !differing.is_empty() && differing.contains(&number);
            sum = sum.wrapping_add(hash(number, differs));
            sums.push(sum);
        }
        Self { records, sums }
    }

    /// The numbers of the first record at or behind a key.
    fn at(&self, key: Option<&[u8]>) -> u64 {
        let Some(key) = key else { return self.records };
        let mut word = [0; 8];
        let len = key.len().min(8);
        word[..len].copy_from_slice(&key[..len]);
        (u64::from_be_bytes(word) + u64::from(key.len() > 8)).min(self.records)
    }

    fn numbers(&self, keys: &KeyRange) -> (u64, u64) {
        (self.at(Some(&keys.start)), self.at(keys.end.as_deref()))
    }

    fn sum(&self, keys: &KeyRange) -> PartSum {
        let (from, to) = self.numbers(keys);
        let sum = self.sums[to as usize].wrapping_sub(self.sums[from as usize]);
        PartSum { count: to - from, short: sum.to_le_bytes() }
    }

    fn tiling(&self, keys: &KeyRange, parts: u32) -> Tiling {
        let (from, to) = self.numbers(keys);
        let share = (to - from).div_ceil(u64::from(parts)).max(1);
        let firsts: Vec<_> = (from..to).step_by(share as usize).skip(1).map(key).collect();
        let starts = std::iter::once(keys.start.clone()).chain(firsts.iter().cloned());
        let ends = firsts.iter().cloned().map(Some).chain([keys.end.clone()]);
        let sums = starts.zip(ends).map(|(start, end)| self.sum(&KeyRange::new(start, end))).collect();
        Tiling::new(TABLE, &firsts, sums)
    }

    fn records(&self, keys: &KeyRange) -> Vec<Record> {
        let (from, to) = self.numbers(keys);
        let record = |number| Record {
            table: TABLE,
            key: key(number).into(),
            uid: Uid::new(5),
            kind: RecordKind::Put,
            row: Bytes::from_static(b"row"),
        };
        (from..to).map(record).collect()
    }
}

fn epoch() -> Epoch {
    Epoch { term: 1, incarnation: 1, nonce: 1 }
}

fn history() -> History {
    let entry = HistoryEntry { epoch: epoch(), inherited: Uid::ZERO, hash: HistoryHash::default() };
    History::from_entries(vec![entry]).unwrap()
}

fn local(end: u64) -> Local {
    let uid = Uid::new(end);
    Local { history: history(), appended: uid, durable: uid, visible: uid, ..Local::default() }
}

/// The two machines, joined by hand.
struct Pair {
    group: Group,
    session: Session,
    replica: Replica,
    primary: Side,
    copy: Side,
    /// Bytes of questions and of parts, as postcard writes them.
    detection_bytes: usize,
    round_trips: u64,
    ranges: Vec<Span>,
    records: u64,
    installed: Option<secondary::Install>,
}

impl Pair {
    fn new(primary: Side, copy: Side, options: &Options) -> Self {
        let identity = Identity { database: DatabaseId(1), group: GroupId(1), instance: InstanceId(1) };
        let group = Group::new(identity, options.clone(), epoch(), history(), Uid::new(20));
        let identity = secondary::Identity {
            database: DatabaseId(1),
            group: GroupId(1),
            instance: InstanceId(2),
            name: "two".to_owned(),
        };
        let replica = Replica::new(identity, options.clone(), epoch(), local(10), 1, NOW);
        let session = Session::new(SessionId(1), options.clone(), NOW);
        Self {
            group,
            session,
            replica,
            primary,
            copy,
            detection_bytes: 0,
            round_trips: 0,
            ranges: Vec::new(),
            records: 0,
            installed: None,
        }
    }

    /// Runs until nobody has anything to do.
    fn run(&mut self) {
        self.replica.handle_tick(NOW);
        loop {
            let mut idle = true;
            while let Some(action) = self.replica.poll_action() {
                idle = false;
                self.perform(action);
            }
            while let Some(action) = self.session.poll_action(&mut self.group) {
                idle = false;
                self.serve(action);
            }
            if idle {
                return;
            }
        }
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Connect => self.replica.handle_connected(NOW),
            Action::Send(message) => {
                if let Message::Compare(_) | Message::RangesRequest(_) = &message {
                    self.detection_bytes += postcard::to_stdvec(&message).unwrap().len();
                    self.round_trips += 1;
                }
                assert_eq!(message.validate(), Ok(()));
                self.session.handle_message(&mut self.group, message, NOW);
            }
            Action::BeginReconcile { round, base } => {
                assert_eq!(base, Uid::new(20));
                self.replica.handle_reconcile_begun(round, &[TABLE], NOW);
            }
            Action::SumSpans { round, spans } => {
                let sums: Vec<_> = spans.iter().map(|span| self.copy.sum(&span.keys).short).collect();
                self.replica.handle_sums(round, &sums, NOW);
            }
            Action::StoreRanges { round, spans, records } => {
                self.records += records.len() as u64;
                self.ranges.extend(spans);
                self.replica.handle_stored(round, NOW);
            }
            Action::Install(install) => {
                self.installed = Some(install);
                self.replica.handle_installed(local(20), NOW);
            }
            _ => {}
        }
    }

    fn serve(&mut self, action: SessionAction) {
        let snapshot = Uid::new(20);
        match action {
            SessionAction::Send(message) => {
                if let Message::Parts(_) = &message {
                    self.detection_bytes += postcard::to_stdvec(&message).unwrap().len();
                }
                self.replica.handle_message(message, NOW);
            }
            SessionAction::Survey { round, .. } => {
                let survey = Survey {
                    round,
                    retained: false,
                    hash: None,
                    mark_floor: Uid::new(15),
                    visible: snapshot,
                    visible_hash: Some(HistoryHash(1)),
                    tail_bytes: 0,
                    delta_bytes: 10_000,
                    total_bytes: 500_000_000,
                };
                self.session.handle_survey(&mut self.group, &survey, NOW);
            }
            SessionAction::ReadParts { round, spans, parts, .. } => {
                let tilings = if spans.is_empty() {
                    vec![self.primary.tiling(&KeyRange::ALL, parts)]
                } else {
                    spans.iter().map(|span| self.primary.tiling(&span.keys, parts)).collect()
                };
                let read = PartsRead::Parts { snapshot, tilings };
                self.session.handle_parts(&mut self.group, round, read, NOW);
            }
            SessionAction::ReadRanges { round, spans, .. } => {
                let records = spans.iter().flat_map(|span| self.primary.records(&span.keys)).collect();
                let read = RangesRead::Ranges { snapshot, done: spans.len() as u32, next: None, records };
                self.session.handle_ranges(&mut self.group, round, read, NOW);
            }
            _ => {}
        }
    }
}

#[test]
fn a_hundred_of_five_million_records_are_found_in_less_than_64_kib_and_few_round_trips() {
    let records = 5_000_000;
    let differing: BTreeSet<u64> = (0..100).map(|at| at * 49_999 + at * at % 777).collect();
    let (primary, copy) = (Side::new(records, &BTreeSet::new()), Side::new(records, &differing));
    let mut pair = Pair::new(primary, copy, &Options::default());
    pair.run();
    let install = pair.installed.as_ref().expect("it was installed");
    assert!(install.reconciled && install.cut == Uid::new(20));
    for number in &differing {
        let found = pair.ranges.iter().filter(|span| span.keys.contains(&key(*number))).count();
        assert_eq!(found, 1, "record {number}");
    }
    println!(
        "{} bytes, {} round trips, {} records moved",
        pair.detection_bytes, pair.round_trips, pair.records
    );
    assert!(pair.detection_bytes < 64 << 10, "{} bytes to find them", pair.detection_bytes);
    assert!(pair.round_trips <= 6, "{} round trips", pair.round_trips);
    assert!(pair.records <= 100 * 32, "{} records moved", pair.records);
    assert_eq!(pair.replica.status().state, State::Online);
    assert_eq!(pair.replica.status().reason, Some(Reason::MarksDropped));
}

#[test]
fn equal_copies_move_nothing() {
    let side = || Side::new(10_000, &BTreeSet::new());
    let mut pair = Pair::new(side(), side(), &Options::default());
    pair.run();
    assert_eq!((pair.records, pair.ranges.len(), pair.round_trips), (0, 0, 1));
    assert!(pair.installed.is_some());
}

#[test]
fn what_only_one_side_has_is_moved_or_goes() {
    let options = Options { chunk_bytes: 2_000, ..Options::default() };
    let mut grown =
        Pair::new(Side::new(3_000, &BTreeSet::new()), Side::new(1_000, &BTreeSet::new()), &options);
    grown.run();
    assert!(
        grown.installed.is_some() && grown.records >= 2_000 && grown.records < 2_100,
        "{}",
        grown.records
    );
    let mut shrunk =
        Pair::new(Side::new(1_000, &BTreeSet::new()), Side::new(3_000, &BTreeSet::new()), &options);
    shrunk.run();
    assert!(shrunk.installed.is_some() && shrunk.records < 100, "{}", shrunk.records);
    assert!(shrunk.ranges.iter().any(|span| span.keys.contains(&key(2_999))));
}

/// A replica that has sent its first question.
fn comparing() -> Replica {
    let side = || Side::new(100, &BTreeSet::new());
    let mut replica = Pair::new(side(), side(), &Options::default()).replica;
    replica.handle_tick(NOW);
    replica.handle_connected(NOW);
    replica.handle_message(Message::Welcome(Box::new(welcome(1))), NOW);
    replica
}

fn drain(replica: &mut Replica) -> Vec<Action> {
    std::iter::from_fn(|| replica.poll_action()).collect()
}

fn parts(tilings: Vec<Tiling>) -> Message {
    Message::Parts(crate::Parts { round: 1, snapshot: Uid::new(20), tilings })
}

#[test]
fn answers_that_nobody_asked_for_end_the_session() {
    let reply = |done| {
        let records = Vec::new();
        let reply = crate::RangesReply { round: 1, snapshot: Uid::new(20), done, next: None, records };
        Message::RangesReply(reply)
    };
    let mut early = comparing();
    early.handle_message(reply(1), NOW);
    assert_eq!(early.status().state, State::Offline);
    let whole = || Tiling::new(TABLE, &[], vec![PartSum { count: 1, short: [1; 8] }]);
    let mut twice = comparing();
    twice.handle_message(parts(vec![whole(), whole()]), NOW);
    assert_eq!(twice.status().state, State::Offline, "a table twice");
    let mut again = comparing();
    again.handle_message(parts(vec![whole()]), NOW);
    again.handle_message(parts(vec![whole()]), NOW);
    assert_eq!(again.status().state, State::Offline, "parts twice");
    let mut old = comparing();
    let below = crate::Parts { round: 1, snapshot: Uid::new(19), tilings: vec![whole()] };
    old.handle_message(Message::Parts(below), NOW);
    assert_eq!(old.status().state, State::Offline, "parts below the start of the live stream");
}

#[test]
fn a_break_keeps_what_was_replaced_and_another_way_drops_it() {
    let mut replica = comparing();
    let whole = Tiling::new(TABLE, &[], vec![PartSum { count: 1, short: [1; 8] }]);
    replica.handle_message(parts(vec![whole]), NOW);
    assert!(drain(&mut replica).iter().any(|action| matches!(action, Action::BeginReconcile { .. })));
    replica.handle_disconnected("cut", NOW);
    assert!(!drain(&mut replica).contains(&Action::AbandonRefresh));
    assert!(replica.kept);
    replica.drop_kept();
    assert!(drain(&mut replica).contains(&Action::AbandonRefresh));
}

#[test]
fn a_copy_that_cannot_be_repaired_in_place_is_taken_anew() {
    let mut replica = comparing();
    replica.handle_failure(local(10), "a block is damaged", NOW);
    assert_eq!(replica.bulk, None);
    let again = Refresh::new(2, welcome(2), false);
    replica.begin_comparison(again, NOW);
    replica.handle_failure(local(10), "a block is damaged", NOW);
    assert_eq!(replica.bulk, Some(Reason::Unreadable));
}

fn welcome(round: u64) -> crate::Welcome {
    crate::Welcome {
        version: crate::PROTOCOL_VERSION,
        features: 0,
        round,
        epoch: epoch(),
        history: history(),
        fork: history().position_of(Uid::new(10)),
        fork_hash: None,
        way: Way::Reconcile,
        reason: Reason::MarksDropped,
        bytes: 0,
        live_from: Uid::new(20),
        live_from_hash: None,
        tail: Uid::new(20),
        durable: Uid::new(20),
        fed: false,
        chain: vec![InstanceId(1)],
        resumes: false,
    }
}
