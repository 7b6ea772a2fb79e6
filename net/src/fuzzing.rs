//! What fuzz targets do with arbitrary bytes from a wire: decoders answer with an error or something sound, never
//! panic, and take no more memory than the bytes justify. Not part of the interface.

use bytes::{Bytes, BytesMut};
use planaria_replication::Message;
use planaria_types::{DatabaseId, Epoch, GroupId, History, InstanceId, KeyRange, Portion};

use crate::replica;
use crate::wire::control::{ControlRequest, CopyReport, NodeReport};
use crate::wire::frame::{Frame, FrameError, FrameKind, HEADER_BYTES};
use crate::wire::message::{Call, Hello, RemoteError, Request, Response};
use crate::wire::rows;

/// A stretch of a stream: frame after frame, each with what its kind may carry.
pub fn frames(bytes: &[u8]) {
    // A changed frame fails its checksum; so that bodies are reached, the bytes are taken for one as well.
    body(&Frame::new(FrameKind::Control, bytes.to_vec()));
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(frame)) = Frame::decode(&mut buffer) {
        body(&frame);
        let kind = frame.kind;
        let content = frame.body.clone();
        let mut again = BytesMut::new();
        for part in frame.encode().expect("a frame that was read can be written") {
            again.extend_from_slice(&part);
        }
        let again = Frame::decode(&mut again).ok().flatten().expect("and read again");
        assert!(again.kind == kind && again.body == content, "a frame survives its encoding");
    }
    let missing = Frame::missing_bytes(&buffer);
    let bound =
        HEADER_BYTES + FrameKind::ALL.into_iter().map(FrameKind::body_bytes_max).max().unwrap_or(0) as usize;
    assert!(missing.is_err() || missing.is_ok_and(|bytes| bytes <= bound), "a reader waits for too much");
}

fn body(frame: &Frame) {
    let _: Result<Hello, FrameError> = frame.message();
    let _: Result<Call, FrameError> = frame.message();
    let _: Result<Response, FrameError> = frame.message();
    let _: Result<RemoteError, FrameError> = frame.message();
    replica_message(&frame.body);
    batch(&frame.body);
}

/// A batch of rows: refused, or as long as it says.
pub fn batch(bytes: &[u8]) {
    if let Ok(rows) = rows::decode(Bytes::copy_from_slice(bytes)) {
        let length: usize = rows.iter().map(|row| 16 + row.key.len() + row.value.len()).sum();
        assert_eq!(length + 4, bytes.len(), "a batch has nothing but its rows");
    }
}

/// A message of the replication protocol: refused, or the same after being encoded again.
pub fn replica_message(bytes: &[u8]) {
    let Ok(message) = replica::decode_message(&Bytes::copy_from_slice(bytes)) else { return };
    let again = replica::encode(&message).ok().and_then(|bytes| replica::decode::<Message>(&bytes).ok());
    assert!(again.is_some_and(|again| again == message), "a message survives its encoding");
}

/// Sound inputs, with the names of the targets that take them.
pub fn samples() -> Vec<(&'static str, Vec<u8>)> {
    let mut stream = Vec::new();
    let hello = Frame::of(FrameKind::Hello, &Hello::ours());
    let error = Frame::of(FrameKind::Error, &RemoteError::new("a_code", "what"));
    let report = NodeReport { copies: vec![CopyReport::default(); 2], ..NodeReport::default() };
    let request = Request::Control(Box::new(ControlRequest::Report(report)));
    let report = Frame::of(FrameKind::Request, &Call { database: None, request });
    for frame in [hello, error, report].into_iter().flatten() {
        for part in frame.encode().into_iter().flatten() {
            stream.extend_from_slice(&part);
        }
    }
    let mut batch = rows::RowsBuilder::new();
    for at in 0..3_u8 {
        let _ = batch.push(planaria_types::Uid::new(u64::from(at)), &[at], b"value");
    }
    let bye = planaria_replication::Bye {
        code: planaria_replication::ByeCode::Shutdown,
        reason: "shut down".to_owned(),
    };
    let bye = replica::encode(&Message::Bye(bye)).map(|bytes| bytes.to_vec()).unwrap_or_default();
    let hello = replica::encode(&Message::Hello(Box::new(partial_hello())));
    let hello = hello.map(|bytes| bytes.to_vec()).unwrap_or_default();
    let messages = [("replica_message", bye), ("replica_message", hello)];
    [("frames", stream), ("batch", batch.take().to_vec())].into_iter().chain(messages).collect()
}

/// The first message of a partial copy.
fn partial_hello() -> planaria_replication::Hello {
    let keys = KeyRange::new(*b"b", Some(b"m".to_vec()));
    let tables = [("flights".to_owned(), KeyRange::ALL), ("airports".to_owned(), keys)];
    planaria_replication::Hello {
        version_min: 1,
        version_max: 1,
        features: 1,
        database: DatabaseId(1),
        instance: InstanceId(2),
        name: "partial".to_owned(),
        group: GroupId(1),
        round: 1,
        promised: Epoch::NONE,
        history: History::default(),
        durable: planaria_types::Uid::ZERO,
        hash: None,
        without_live: true,
        bulk: None,
        asked: None,
        portion: Portion::new(tables).ok(),
        former: vec![InstanceId(3)],
        resume: None,
    }
}
