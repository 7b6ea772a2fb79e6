use super::{Call, Hello, RemoteError, Request, Response, ScanSpec, WriteOp, WriteOptions};
use crate::wire::limits::{OPS_MAX, bounded};
use crate::wire::{Frame, FrameKind};
use bytes::Bytes;
use planaria_types::{KeyRange, Uid};

fn round_trip(request: Request) {
    let call = Call { database: Some("shop".into()), request };
    let frame = Frame::of(FrameKind::Request, &call).unwrap();
    assert_eq!(frame.message::<Call>().unwrap(), call);
}

fn some_write(count: usize) -> Request {
    let op =
        WriteOp::Put { table: "t".into(), key: Bytes::from_static(b"k"), value: Bytes::from_static(b"v") };
    Request::Write { ops: vec![op; count], options: WriteOptions { token: Some(9), ..Default::default() } }
}

#[test]
fn requests_survive_the_wire() {
    round_trip(Request::Ping);
    round_trip(some_write(3));
    round_trip(Request::Scan(ScanSpec {
        table: "t".into(),
        range: KeyRange::prefix(b"ab"),
        limit: Some(7),
        at: Some(Uid::new(1)),
        ..Default::default()
    }));
    round_trip(Request::CloneCreate(super::CloneSpec::default()));
    round_trip(Request::ReplicaRefresh { dry_run: true, way: Some("reconcile".into()) });
    let span = planaria_replication::Span::all(planaria_types::TableId(3));
    round_trip(Request::Compare { at: Some(Uid::new(5)), spans: vec![span.clone()], parts: 8 });
    round_trip(Request::SpanKeys { at: Uid::new(5), span });
}

#[test]
fn the_place_of_each_message_does_not_move() {
    let first = |request: &Request| postcard::to_stdvec(request).unwrap()[0];
    assert_eq!(first(&Request::Ping), 0);
    assert_eq!(first(&some_write(1)), 7);
    assert_eq!(first(&Request::Verify), 11);
    assert_eq!(first(&Request::CloneList), 14);
    assert_eq!(first(&Request::ReplicaRefresh { dry_run: true, way: None }), 26);
    assert_eq!(first(&Request::Compare { at: None, spans: vec![], parts: 1 }), 28);
    assert_eq!(postcard::to_stdvec(&Response::Clones(vec![])).unwrap(), [11, 0]);
    let get = Request::Get { table: "t".into(), key: Bytes::from_static(b"k"), at: None };
    let call = Call { database: None, request: get };
    assert_eq!(postcard::to_stdvec(&call).unwrap(), [0, 6, 1, b't', 1, b'k', 0]);
}

#[test]
fn a_batch_over_its_limit_is_refused() {
    let call = Call { database: None, request: some_write(OPS_MAX + 1) };
    let error = Frame::of(FrameKind::Request, &call).unwrap().message::<Call>().unwrap_err();
    assert!(matches!(error, crate::wire::FrameError::Body { .. }));
}

#[test]
fn a_list_that_only_announces_much_takes_no_memory() {
    #[derive(serde::Deserialize, Debug)]
    struct Units(
        #[serde(deserialize_with = "bounded::<_, _, 8>")]
        #[expect(dead_code, reason = "only its decoding matters")]
        Vec<()>,
    );
    assert!(postcard::from_bytes::<Units>(&[8]).is_ok());
    assert!(postcard::from_bytes::<Units>(&[9]).is_err());
    assert!(postcard::from_bytes::<Units>(&[0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
}

#[test]
fn hostile_calls_end_in_an_error_or_a_call() {
    let bytes = postcard::to_stdvec(&Call { database: None, request: some_write(4) }).unwrap();
    let mut state = 0x0ddb_a115_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for _ in 0..50_000 {
        let mut hostile = bytes.clone();
        for _ in 0..=random() % 3 {
            let at = random() % hostile.len();
            hostile[at] = random() as u8;
        }
        hostile.truncate(random() % (hostile.len() + 1));
        let _ = Frame::new(FrameKind::Request, hostile).message::<Call>();
    }
}

#[test]
fn versions_agree_on_the_newest_common_one() {
    let hello =
        |version_min, version_max, features| Hello { version_min, version_max, features, ..Hello::ours() };
    assert_eq!(hello(1, 3, 0b110).agree(&hello(2, 5, 0b011)), Some((3, 0b010)));
    assert_eq!(hello(1, 1, 0).agree(&hello(2, 3, 0)), None);
}

#[test]
fn an_error_is_told_in_sentences_and_fits_its_frame() {
    let error = RemoteError {
        hint: "Name another".into(),
        why: "é".repeat(100_000),
        ..RemoteError::new("table_exists", "table \"t\" exists")
    };
    let frame = Frame::of(FrameKind::Error, &error.cut()).unwrap();
    assert!(frame.encode().is_ok());
    let short = RemoteError { hint: "Name another".into(), ..RemoteError::new("x", "table \"t\" exists") };
    assert_eq!(short.to_string(), "table \"t\" exists. Name another");
}
