//! The messages of clients, and of nodes with the control center, as bytes that lie in the repository: what is written now is the
//! same, and they are read as what they were.
//!
//! Each variant of what they are made of has a line of its own, too, so that none changes its place. Fields of one message differ
//! from one another, so that none takes the place of another.

mod answers;
mod control_answers;
mod control_requests;
mod requests;

use std::fmt::Debug;

use bytes::{Bytes, BytesMut};
use planaria_replication::Message;
use planaria_replication::control::{CopyState, InstanceRole, Priority};
use planaria_types::{FileId, Uid};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::control::{ControlRequest, ControlResponse, Mode, Order};
use super::jobs::When;
use super::message::{
    Ack, AsOf, Call, CloneAction, CloneRole, Hello, Level, RemoteError, ReplicaAction, Request, Response,
    Shape, WriteOp,
};
use super::replica::{FileChunk, FileRequest};
use super::rows::{self, Row, RowsBuilder};
use super::rules::{RuleAction, RuleEvent};
use super::{Frame, FrameKind};
use crate::golden::{Line, Variants, each, hold, text, variants};

variants! {
    FrameKind {
        Hello, Request, Response, Rows, Ack, End, Error, Control, BulkOpen, Bulk, FileOpen, FileChunk, BulkEnd,
    }
    Request {
        Ping, Status, TableList, TableShow, TableCreate, TableDrop, Get, Write, Scan, Import, Digest, Verify,
        ReplicaList, CloneCreate, CloneList, CloneShow, CloneDo, ReplicaDo, ExtractList, ExtractRead,
        ExtractDrop, Await, Promote, Promise, HandOver, Follow, ReplicaRefresh, RefreshPlan, Compare, SpanKeys,
        Confirm, GetMany, Control, CloneTake, HandBack,
    }
    Response {
        Done, Status, Tables, Table, Row, Committed, Scanned, Imported, Digests, Verified, Replicas, Clones,
        Clone, Extracts, ExtractPart, Promotion, Promised, HandedOver, Refresh, Parts, Keys, Found, Control,
    }
    Level { Database, Local, One, Quorum, All }
    WriteOp { Put, Delete, DeleteRange }
    CloneRole { Detached, Standby, Backup, Store }
    AsOf { Newest, Time, Position }
    CloneAction { Wait, Cancel, Promote, Expire, Delete, Live, Rate, Rollback, DeleteOld }
    ReplicaAction { Pause, Resume, Forget }
    ControlRequest {
        Join, Report, Leads, Databases, Nodes, Instances, History, ChooseSource, SetMode, CloneCreate, Clones,
        CloneShow, CloneCancel, CloneRate, Limits, SetLimit, Wants, SetWant, Schedules, SetSchedule,
        RemoveSchedule, Links, Rules, SetRule, RemoveRule, Topology, ApplyTopology, Route, Stores, SetStore,
        RemoveStore, RemoveNode, Token, RenewToken,
    }
    ControlResponse {
        Joined, Orders, Leads, Databases, Nodes, Instances, History, Source, Clones, Limits, Schedules, Wants,
        Links, Rules, Topology, TopologyChanges, Route, Stores, Token,
    }
    Order { Promote, Follow, Clone, CancelClone, Reseed, Backup, Restore }
    Mode { Operator, Automatic }
    When { Every, Calendar }
    RuleEvent { Lag, Failover }
    RuleAction { Clone, Reseed }
    InstanceRole { Primary, Standby, Backup }
    CopyState { Primary, Deposed, Online, Stale, Refreshing, Offline, Partial }
    Priority { Recovery, StandbySeeding, BackupRefresh, AdHoc }
}

impl Variants for Frame {
    const NAMES: &'static [&'static str] = <FrameKind as Variants>::NAMES;

    fn variant(&self) -> &'static str {
        self.kind.variant()
    }
}

/// The body of a frame. Its kind stands in errors alone.
fn encode<T: Serialize>(message: &T) -> Bytes {
    Frame::of(FrameKind::Request, message).unwrap().body
}

fn decode<T: DeserializeOwned>(body: &Bytes) -> T {
    Frame::new(FrameKind::Request, body.clone()).message().unwrap()
}

fn one<T>(name: &str, message: T) -> Line
where
    T: Serialize + DeserializeOwned + PartialEq + Debug + 'static,
{
    Line::new(name, message, encode, decode)
}

fn every<T>(prefix: &str, messages: Vec<T>) -> Vec<Line>
where
    T: Variants + Serialize + DeserializeOwned + PartialEq + Debug + 'static,
{
    each(prefix, messages, encode, decode)
}

fn hello() -> Hello {
    Hello { version_min: 1, version_max: 2, features: 0x0301, software: "planaria 0.0".into() }
}

fn error() -> RemoteError {
    RemoteError {
        code: "table_exists".into(),
        what: "table \"birds\" exists".into(),
        why: "it was made before".into(),
        hint: "name another".into(),
    }
}

fn rows() -> Vec<Row> {
    vec![
        Row { uid: Uid::new(0x0a0b), key: text("a key"), value: text("a row") },
        Row { uid: Uid::ZERO, key: text("another"), value: Bytes::new() },
    ]
}

fn batch(rows: &[Row]) -> Bytes {
    let mut builder = RowsBuilder::new();
    for row in rows {
        builder.push(row.uid, &row.key, &row.value).unwrap();
    }
    builder.take()
}

fn shape() -> Shape {
    Shape {
        as_of: AsOf::Time(1_700_000_000_000),
        leave_out: vec!["audit".into()],
        filters: vec![("birds".into(), "count > 3".into())],
        masks: vec![("people".into(), "mail".into(), "hash".into())],
    }
}

fn file_request() -> FileRequest {
    FileRequest { lease: 1, file: FileId(0x0405), offset: 0x0607, length: 0x0809 }
}

fn file_chunk() -> FileChunk {
    FileChunk { file: FileId(0x0405), offset: 0x0607, length: 0x0809 }
}

fn decode_chunk(body: &Bytes) -> FileChunk {
    FileChunk::decode(Frame::new(FrameKind::FileChunk, body.clone())).unwrap()
}

fn decode_rows(body: &Bytes) -> Vec<Row> {
    rows::decode(body.clone()).unwrap()
}

/// One of each kind, with what it carries.
fn frames() -> Vec<Frame> {
    let call = Call { database: None, request: Request::Ping };
    let of_session = crate::replica::encode(&Message::Heartbeat).unwrap();
    vec![
        Frame::of(FrameKind::Hello, &hello()).unwrap(),
        Frame::of(FrameKind::Request, &call).unwrap(),
        Frame::of(FrameKind::Response, &Response::Done).unwrap(),
        Frame::new(FrameKind::Rows, batch(&rows())),
        Frame::of(FrameKind::Ack, &Ack { batches: 3, rows: 700 }).unwrap(),
        Frame::new(FrameKind::End, Bytes::new()),
        Frame::of(FrameKind::Error, &error()).unwrap(),
        Frame::new(FrameKind::Control, of_session),
        Frame::new(FrameKind::BulkOpen, text("opening")),
        Frame::new(FrameKind::Bulk, text("bulk")),
        Frame::of(FrameKind::FileOpen, &file_request()).unwrap(),
        file_chunk().frame(),
        Frame::new(FrameKind::BulkEnd, Bytes::new()),
    ]
}

fn encode_frame(frame: &Frame) -> Bytes {
    frame.clone().encode().unwrap().concat().into()
}

fn decode_frame(bytes: &Bytes) -> Frame {
    Frame::decode(&mut BytesMut::from(&bytes[..])).unwrap().unwrap()
}

#[test]
fn messages_of_clients_are_the_bytes_that_they_were() {
    let mut lines = each("Frame.", frames(), encode_frame, decode_frame);
    lines.extend([
        one("Hello", hello()),
        one("Call", Call { database: Some("pond".into()), request: Request::Ping }),
        one("Call", Call { database: None, request: Request::Verify }),
        Line::new("Rows", rows(), |rows| batch(rows), decode_rows),
        Line::new("Rows", vec![], |rows| batch(rows), decode_rows),
        one("Ack", Ack { batches: 3, rows: 700 }),
        one("FileRequest", file_request()),
        Line::new("FileChunk", file_chunk(), |chunk| chunk.frame().body, decode_chunk),
        one("RemoteError", error()),
        one("RemoteError", RemoteError::new("cancelled", "the call was cancelled")),
        one("Shape", shape()),
        one("Shape", Shape::default()),
    ]);
    lines.extend(every("Request.", requests::all()));
    lines.extend(every("Response.", answers::all()));
    lines.extend(every("WriteOp.", requests::operations()));
    lines.extend(every("Level.", vec![Level::Database, Level::Local, Level::One, Level::Quorum, Level::All]));
    lines.extend(every("CloneAction.", requests::clone_actions()));
    lines.extend(every(
        "CloneRole.",
        vec![CloneRole::Detached, CloneRole::Standby, CloneRole::Backup, CloneRole::Store],
    ));
    lines.extend(every("AsOf.", vec![AsOf::Newest, AsOf::Time(70_000), AsOf::Position(Uid::new(0x0a0b))]));
    lines.extend(every(
        "ReplicaAction.",
        vec![ReplicaAction::Pause, ReplicaAction::Resume, ReplicaAction::Forget],
    ));
    hold("client-1.txt", &lines);
}

#[test]
fn messages_of_the_control_center_are_the_bytes_that_they_were() {
    let mut lines = every("ControlRequest.", control_requests::all());
    lines.extend(every("ControlResponse.", control_answers::all()));
    lines.extend(every("Order.", control_answers::orders()));
    lines.extend(every("Mode.", vec![Mode::Operator, Mode::Automatic]));
    lines.extend(every("When.", control_requests::times()));
    lines.extend(every("RuleEvent.", control_requests::events()));
    lines.extend(every("RuleAction.", control_requests::actions()));
    lines.extend(every("InstanceRole.", control_requests::roles()));
    lines.extend(every("CopyState.", control_requests::states()));
    lines.extend(every("Priority.", Priority::ALL.to_vec()));
    hold("control-1.txt", &lines);
}
