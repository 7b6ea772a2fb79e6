use bytes::Bytes;
use planaria_types::{KeyRange, TableId, Uid};
use proptest::collection::vec;
use proptest::prelude::*;

use super::{Bound, Compare, PartSum, Parts, RangesReply, RangesRequest, Span, Tiling};
use crate::{Lane, Message, Record, RecordKind};

const TABLE: TableId = TableId(3);

fn sum(count: u64) -> PartSum {
    PartSum { count, short: [count as u8; 8] }
}

fn bound(shared: u16, rest: &'static [u8]) -> Bound {
    Bound { shared, rest: Bytes::from_static(rest) }
}

fn record(key: &'static [u8], uid: u64, kind: RecordKind) -> Record {
    Record { table: TABLE, key: Bytes::from_static(key), uid: Uid::new(uid), kind, row: Bytes::new() }
}

fn why(message: &Message) -> &'static str {
    message.validate().expect_err("no correct peer sends it").0
}

fn parts(tilings: Vec<Tiling>) -> Message {
    Message::Parts(Parts { round: 1, snapshot: Uid::new(9), tilings })
}

fn reply(done: u32, next: Option<&'static [u8]>, records: Vec<Record>) -> Message {
    let next = next.map(Bytes::from_static);
    Message::RangesReply(RangesReply { round: 1, snapshot: Uid::new(9), done, next, records })
}

proptest! {
    #[test]
    fn a_tiling_gives_back_the_parts_that_it_was_made_of(mut firsts in vec(vec(0_u8..3, 1..6), 0..20)) {
        firsts.sort();
        firsts.dedup();
        let sums: Vec<_> = (0..=firsts.len() as u64).map(sum).collect();
        let tiling = Tiling::new(TABLE, &firsts, sums.clone());
        prop_assert_eq!(parts(vec![tiling.clone()]).validate(), Ok(()));
        let parts = tiling.of(&KeyRange::ALL).unwrap();
        let starts: Vec<_> = parts.iter().skip(1).map(|(span, _)| span.keys.start.clone()).collect();
        prop_assert_eq!(&starts, &firsts);
        let ends: Vec<_> = parts.iter().map(|(span, _)| span.keys.end.clone()).collect();
        let expected: Vec<_> = firsts.iter().cloned().map(Some).chain([None]).collect();
        prop_assert_eq!(ends, expected);
        prop_assert!(parts.iter().map(|(_, sum)| *sum).eq(sums));
    }

    #[test]
    fn no_tiling_whatever_its_bounds_has_parts_outside_of_its_range(
        bounds in vec((0_u16..4, vec(0_u8..4, 0..4)), 0..8),
        more in 0_usize..3,
    ) {
        let keys = KeyRange::new(vec![1], Some(vec![3]));
        let sums = (0..bounds.len() + more).map(|at| sum(at as u64)).collect();
        let bounds = bounds.into_iter().map(|(shared, rest)| Bound { shared, rest: rest.into() }).collect();
        let tiling = Tiling { table: TABLE, bounds, sums };
        let _ = parts(vec![tiling.clone()]).validate();
        if let Some(parts) = tiling.of(&keys) {
            let mut start = keys.start.clone();
            for (span, _) in &parts {
                prop_assert!(!span.keys.is_empty() && keys.covers(&span.keys));
                prop_assert_eq!(&span.keys.start, &start);
                start = span.keys.end.clone().unwrap();
            }
            prop_assert_eq!(Some(start), keys.end);
        }
    }
}

#[test]
fn parts_that_are_none_are_refused() {
    let unordered =
        Tiling { table: TABLE, bounds: vec![bound(0, b"b"), bound(0, b"a")], sums: vec![sum(1); 3] };
    assert_eq!(why(&parts(vec![unordered])), "the bounds of a span do not ascend");
    let beyond = Tiling { table: TABLE, bounds: vec![bound(5, b"b")], sums: vec![sum(1); 2] };
    assert_eq!(why(&parts(vec![beyond])), "the bounds of a span do not ascend");
    let missing = Tiling { table: TABLE, bounds: vec![bound(0, b"b")], sums: vec![sum(1)] };
    assert_eq!(why(&parts(vec![missing])), "the parts of a span do not fit its bounds");
    let whole = Tiling { table: TABLE, bounds: Vec::new(), sums: vec![sum(1)] };
    assert_eq!(why(&parts(vec![whole; super::PARTS_MAX + 1])), "too many parts in a message");
    // A few bytes on the wire must not become gigabytes in memory.
    let long = Bytes::from(vec![b'k'; 60_000]);
    let bounds: Vec<_> = std::iter::once(Bound { shared: 0, rest: long })
        .chain((0..2_000).map(|_| bound(60_000, b"k")))
        .collect();
    let sums = vec![sum(1); bounds.len() + 1];
    assert_eq!(
        why(&parts(vec![Tiling { table: TABLE, bounds, sums }])),
        "the bounds of a message are too long"
    );
}

#[test]
fn questions_beyond_the_limits_are_refused() {
    let empty = Span { table: TABLE, keys: KeyRange::new(*b"b", Some(b"a".to_vec())) };
    let compare = |spans| Message::Compare(Compare { round: 1, spans });
    assert_eq!(why(&compare(vec![empty])), "a span without keys");
    assert_eq!(why(&compare(vec![Span::all(TABLE); super::SPANS_MAX + 1])), "too many spans in a message");
    let long = Span { table: TABLE, keys: KeyRange::new(vec![1; 70_000], None) };
    assert_eq!(why(&compare(vec![long])), "a span with too long a key");
    assert_eq!(compare(Vec::new()).validate(), Ok(()));
    let nothing = Message::RangesRequest(RangesRequest { round: 1, spans: Vec::new() });
    assert_eq!(why(&nothing), "a request for the records of nothing");
}

#[test]
fn records_of_a_range_are_live_and_of_their_snapshot() {
    assert_eq!(reply(1, None, vec![record(b"a", 9, RecordKind::Put)]).validate(), Ok(()));
    assert_eq!(
        why(&reply(1, None, vec![record(b"a", 10, RecordKind::Put)])),
        "a record is newer than its snapshot"
    );
    let mark = vec![record(b"a", 9, RecordKind::Delete)];
    assert_eq!(why(&reply(1, None, mark)), "a range is told by its live records alone");
    assert_eq!(why(&reply(0, None, Vec::new())), "an answer that answers nothing");
    assert_eq!(reply(0, Some(b"c"), Vec::new()).lane(), Lane::Bulk);
}
