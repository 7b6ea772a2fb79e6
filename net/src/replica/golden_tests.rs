//! The messages of replication as bytes that lie in the repository: what is written now is the same, and they are read as what
//! they were.
//!
//! Whoever changes a message sees it here. `PLANARIA_GOLDEN=write` writes the file anew, which is right as long as no release
//! has spoken the old one.

use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;
use planaria_replication::{
    Ack, Again, Bye, ByeCode, Commit, Compare, DeltaChunk, DeltaRequest, Hello, Live, Message, PartSum,
    Parts, RangesReply, RangesRequest, Reason, Record, RecordKind, Refusal, Refused, Resume, RewindItem,
    RewindReply, RewindRequest, Span, Tiling, Way, Welcome,
};
use planaria_types::{
    DatabaseId, Epoch, GroupId, History, HistoryEntry, HistoryHash, InstanceId, KeyRange, Position, TableId,
    Uid,
};

use super::{Opening, decode, decode_message, encode};
use crate::wire::message::Shape;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/replication-1.txt");
const ROUND: u64 = 300;
const TABLE: TableId = TableId(7);

fn text(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

fn epoch(incarnation: u32) -> Epoch {
    Epoch { term: 2, incarnation: incarnation.into(), nonce: 0x1122_3344_5566_7788 }
}

fn entry(incarnation: u32) -> HistoryEntry {
    HistoryEntry { epoch: epoch(incarnation), inherited: Uid::new(0x0102_0304), hash: HistoryHash(0x09_0203) }
}

fn history() -> History {
    let mut history = History::default();
    let first = HistoryEntry { epoch: epoch(1), inherited: Uid::ZERO, hash: HistoryHash::default() };
    history.push(first).unwrap();
    history.push(entry(3)).unwrap();
    history
}

fn position() -> Position {
    Position { epoch: epoch(3), uid: Uid::new(0x0a0b_0c0d) }
}

fn record(key: &'static str, kind: RecordKind) -> Record {
    let row = if kind == RecordKind::Put { text("a row") } else { Bytes::new() };
    let is_absent = matches!(kind, RecordKind::Absent | RecordKind::RangeAbsent(_));
    let uid = if is_absent { Uid::ZERO } else { Uid::new(0x0a0b) };
    Record { table: TABLE, key: text(key), uid, kind, row }
}

fn span() -> Span {
    Span { table: TABLE, keys: KeyRange::new(b"from", Some(b"to".to_vec())) }
}

fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        features: 5,
        database: DatabaseId(0x1111),
        instance: InstanceId(0x2222),
        name: "pond".into(),
        group: GroupId(1),
        round: ROUND,
        promised: epoch(4),
        history: history(),
        durable: Uid::new(0x0a0b_0c00),
        hash: Some(HistoryHash(0x07_0203)),
        without_live: true,
        bulk: Some(Reason::MarksDropped),
        asked: Some(Way::Reconcile),
        portion: None,
        former: vec![InstanceId(0x3333)],
        resume: Some(Resume { upto: (TABLE, text("key")), base: position().uid, read_at: position() }),
    }
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        features: 1,
        round: ROUND,
        epoch: epoch(4),
        history: history(),
        fork: position(),
        fork_hash: Some(HistoryHash(0x07_0203)),
        way: Way::Delta,
        reason: Reason::LogReleased,
        bytes: 70_000,
        live_from: Uid::new(6),
        live_from_hash: None,
        tail: Uid::new(8),
        durable: Uid::new(7),
        fed: true,
        chain: vec![InstanceId(0x2222), InstanceId(0x4444)],
        resumes: true,
    }
}

fn live() -> Live {
    let commit = Commit {
        uid: Uid::new(9),
        predecessor: Uid::new(8),
        hash: HistoryHash(0x01_0203),
        bytes: text("ops"),
    };
    Live {
        round: ROUND,
        epoch: epoch(4),
        began: vec![entry(4)],
        commits: vec![commit],
        durable: Uid::new(8),
        stable: Uid::new(7),
        closed: Uid::new(9),
    }
}

/// One of each kind, with something in most fields.
fn messages() -> Vec<Message> {
    let snapshot = Uid::new(0x0c0d);
    let present = vec![
        record("a key", RecordKind::Put),
        record("another", RecordKind::Delete),
        record("from", RecordKind::RangeDelete(Some(text("to")))),
    ];
    let absent = vec![record("a key", RecordKind::Absent), record("from", RecordKind::RangeAbsent(None))];
    let sums = vec![PartSum { count: 1_000, short: [8; 8] }, PartSum { count: 2, short: [6; 8] }];
    vec![
        Message::Hello(Box::new(hello())),
        Message::Welcome(Box::new(welcome())),
        Message::Refused(Refused { round: ROUND, code: Refusal::TooDeep, epoch: epoch(4) }),
        Message::Live(live()),
        Message::Ack(Ack {
            round: ROUND,
            epoch: epoch(4),
            durable: Uid::new(8),
            visible: Uid::new(7),
            received_bytes: 99_999,
        }),
        Message::DeltaRequest(DeltaRequest { round: ROUND, grant: 16 }),
        Message::DeltaChunk(DeltaChunk {
            round: ROUND,
            number: 2,
            snapshot,
            snapshot_hash: Some(HistoryHash(0x05_0203)),
            records: present,
            last: true,
        }),
        Message::RewindRequest(RewindRequest {
            round: ROUND,
            items: vec![RewindItem::Key(TABLE, text("key")), RewindItem::Range(TABLE, span().keys)],
        }),
        Message::RewindReply(RewindReply { round: ROUND, snapshot, records: absent, complete: true }),
        Message::Again(Again { round: ROUND, reason: Reason::MarksDropped }),
        Message::Heartbeat,
        Message::Bye(Bye { code: ByeCode::Loop, reason: "it follows this one".into() }),
        Message::Compare(Compare { round: ROUND, spans: vec![span()] }),
        Message::Parts(Parts {
            round: ROUND,
            snapshot,
            tilings: vec![Tiling::new(TABLE, &[b"middle".to_vec()], sums)],
        }),
        Message::RangesRequest(RangesRequest { round: ROUND, spans: vec![span()] }),
        Message::RangesReply(RangesReply {
            round: ROUND,
            snapshot,
            done: 1,
            next: Some(text("n")),
            records: vec![record("middle", RecordKind::Put)],
        }),
    ]
}

/// A message that has no name here has no bytes in the file.
fn name(message: &Message) -> &'static str {
    match message {
        Message::Hello(_) => "Hello",
        Message::Welcome(_) => "Welcome",
        Message::Refused(_) => "Refused",
        Message::Live(_) => "Live",
        Message::Ack(_) => "Ack",
        Message::DeltaRequest(_) => "DeltaRequest",
        Message::DeltaChunk(_) => "DeltaChunk",
        Message::RewindRequest(_) => "RewindRequest",
        Message::RewindReply(_) => "RewindReply",
        Message::Again(_) => "Again",
        Message::Heartbeat => "Heartbeat",
        Message::Bye(_) => "Bye",
        Message::Compare(_) => "Compare",
        Message::Parts(_) => "Parts",
        Message::RangesRequest(_) => "RangesRequest",
        Message::RangesReply(_) => "RangesReply",
    }
}

fn openings() -> Vec<(&'static str, Opening)> {
    let shape = Shape::default();
    vec![
        ("Follow", Opening::Follow { port: Some(7_400) }),
        ("Clone", Opening::Clone),
        ("Shaped", Opening::Shaped { shape, resumes: Some(InstanceId(0x2222)) }),
        ("Archive", Opening::Archive { since: Some(Uid::new(0x0a0b)) }),
        ("Join", Opening::Join { list: [4; 32] }),
    ]
}

#[test]
fn messages_are_the_bytes_that_they_were() {
    let (messages, openings) = (messages(), openings());
    let mut written = String::new();
    let mut line = |name: &str, bytes: &Bytes| {
        write!(written, "{name} ").unwrap();
        bytes.iter().for_each(|byte| write!(written, "{byte:02x}").unwrap());
        writeln!(written).unwrap();
    };
    for (name, opening) in &openings {
        line(name, &encode(opening).unwrap());
    }
    for message in &messages {
        message.validate().unwrap();
        line(name(message), &encode(message).unwrap());
    }
    if std::env::var_os("PLANARIA_GOLDEN").is_some_and(|wish| wish == "write") {
        std::fs::create_dir_all(Path::new(FILE).parent().unwrap()).unwrap();
        std::fs::write(FILE, &written).unwrap();
    }
    let golden = std::fs::read_to_string(FILE).unwrap();
    for (now, then) in written.lines().zip(golden.lines()) {
        assert_eq!(now, then, "{FILE}");
    }
    assert_eq!(written.lines().count(), golden.lines().count());

    let bytes = |line: &str| -> Bytes {
        let hex = line.split_once(' ').unwrap().1.as_bytes();
        let digits = hex.chunks(2).map(|digits| std::str::from_utf8(digits).unwrap());
        digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect()
    };
    let (first, rest): (Vec<_>, Vec<_>) =
        golden.lines().map(bytes).enumerate().partition(|(at, _)| *at < openings.len());
    for ((_, bytes), (_, opening)) in first.iter().zip(&openings) {
        assert_eq!(decode::<Opening>(bytes).unwrap(), *opening);
    }
    for ((_, bytes), message) in rest.iter().zip(&messages) {
        assert_eq!(decode_message(bytes).unwrap(), *message);
    }
}
