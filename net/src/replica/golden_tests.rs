//! The messages of replication as bytes that lie in the repository: what is written now is the same, and they are read as what
//! they were.

use bytes::Bytes;
use planaria_replication::{
    Ack, Again, Bye, ByeCode, Commit, Compare, DeltaChunk, DeltaRequest, Hello, Live, Message, PartSum,
    Parts, RangesReply, RangesRequest, Reason, Record, RecordKind, Refusal, Refused, Resume, RewindItem,
    RewindReply, RewindRequest, Span, Tiling, Way, Welcome,
};
use planaria_types::{DatabaseId, GroupId, HistoryHash, InstanceId, KeyRange, TableId, Uid};

use super::{Opening, decode, decode_message, encode};
use crate::golden::{each, entry, epoch, history, hold, position, text, variants};
use crate::wire::message::Shape;

const ROUND: u64 = 300;
const TABLE: TableId = TableId(7);

variants! {
    Opening { Follow, Clone, Shaped, Archive, Join }
    Message {
        Hello,
        Welcome,
        Refused,
        Live,
        Ack,
        DeltaRequest,
        DeltaChunk,
        RewindRequest,
        RewindReply,
        Again,
        Heartbeat,
        Bye,
        Compare,
        Parts,
        RangesRequest,
        RangesReply,
    }
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

fn openings() -> Vec<Opening> {
    let shape = Shape::default();
    vec![
        Opening::Follow { port: Some(7_400) },
        Opening::Clone,
        Opening::Shaped { shape, resumes: Some(InstanceId(0x2222)) },
        Opening::Archive { since: Some(Uid::new(0x0a0b)) },
        Opening::Join { list: [4; 32] },
    ]
}

fn encode_message(message: &Message) -> Bytes {
    message.validate().unwrap();
    encode(message).unwrap()
}

#[test]
fn messages_are_the_bytes_that_they_were() {
    let mut lines = each("", openings(), |opening| encode(opening).unwrap(), |bytes| decode(bytes).unwrap());
    lines.extend(each("", messages(), encode_message, |bytes| decode_message(bytes).unwrap()));
    hold("replication-1.txt", &lines);
}
