//! What clients ask, one of each kind with something in most fields, and some again without what may be left out.

use planaria_replication::Span;
use planaria_types::{HistoryHash, InstanceId, KeyRange, Portion, TableId, Uid};

use super::shape;
use crate::golden::{epoch, history, text};
use crate::wire::control::ControlRequest;
use crate::wire::message::{
    AsOf, CloneAction, CloneRole, CloneSpec, CloneTake, Level, PromotionWish, ReplicaAction, Request,
    ScanSpec, Shape, WriteOp, WriteOptions,
};

pub(super) fn all() -> Vec<Request> {
    [of_tables(), of_rows(), of_clones(), of_copies(), of_comparing(), of_the_lead()].concat()
}

pub(super) fn operations() -> Vec<WriteOp> {
    let table = || "birds".to_owned();
    vec![
        WriteOp::Put { table: table(), key: text("a key"), value: text("a row") },
        WriteOp::Delete { table: table(), key: text("another") },
        WriteOp::DeleteRange { table: table(), range: KeyRange::new(b"from", Some(b"to".to_vec())) },
        WriteOp::DeleteRange { table: table(), range: KeyRange::ALL },
    ]
}

pub(super) fn clone_actions() -> Vec<CloneAction> {
    vec![
        CloneAction::Wait,
        CloneAction::Cancel,
        CloneAction::Promote,
        CloneAction::Expire,
        CloneAction::Delete,
        CloneAction::Live(Some(3_600)),
        CloneAction::Live(None),
        CloneAction::Rate(Some(1 << 20)),
        CloneAction::Rate(None),
        CloneAction::Rollback,
        CloneAction::DeleteOld,
    ]
}

fn options() -> WriteOptions {
    WriteOptions { durable: true, level: Level::Quorum, timeout_ms: 5_000, token: Some(0xcafe) }
}

fn span() -> Span {
    Span { table: TableId(7), keys: KeyRange::new(b"from", Some(b"to".to_vec())) }
}

pub(super) fn portion() -> Portion {
    let keys = KeyRange::new(b"A", Some(b"F".to_vec()));
    Portion::new([("airports".to_owned(), keys), ("flights".to_owned(), KeyRange::ALL)]).unwrap()
}

fn of_tables() -> Vec<Request> {
    let name = || "birds".to_owned();
    vec![
        Request::Ping,
        Request::Status,
        Request::TableList,
        Request::TableShow { name: name() },
        Request::TableCreate { name: name(), definition: text("a definition") },
        Request::TableDrop { name: name() },
        Request::Verify,
        Request::Digest { tables: vec![name(), "ponds".into()], at: Some(Uid::new(0x0a0b)) },
        Request::Digest { tables: vec![], at: None },
    ]
}

fn of_rows() -> Vec<Request> {
    let table = || "birds".to_owned();
    let at = Some(Uid::new(0x0a0b));
    let range = KeyRange::new(b"from", Some(b"to".to_vec()));
    vec![
        Request::Get { table: table(), key: text("a key"), at },
        Request::Get { table: table(), key: text("a key"), at: None },
        Request::GetMany { table: table(), keys: vec![text("a key"), text("another")], at },
        Request::GetMany { table: table(), keys: vec![], at: None },
        Request::Write { ops: operations(), options: options() },
        Request::Write { ops: vec![], options: WriteOptions::default() },
        Request::Scan(ScanSpec { table: table(), range, reverse: true, limit: Some(700), at }),
        Request::Scan(ScanSpec { table: table(), ..ScanSpec::default() }),
        Request::Import { table: table(), options: options() },
        Request::Await { after: at, epoch: Some(epoch(3)), staleness_max_ms: Some(500), timeout_ms: 5_000 },
        Request::Await { after: None, epoch: None, staleness_max_ms: None, timeout_ms: 0 },
        Request::Confirm { timeout_ms: 5_000 },
        Request::Control(Box::new(ControlRequest::Leads)),
    ]
}

fn clone_spec() -> CloneSpec {
    let Shape { leave_out, filters, masks, .. } = shape();
    CloneSpec {
        name: "birds-2".into(),
        target: Some("10.0.0.1:4747".into()),
        source: Some(InstanceId(0x2222)),
        role: CloneRole::Standby,
        as_of: AsOf::Position(Uid::new(0x0a0b)),
        leave_out,
        preserve: vec!["settings".into()],
        filters,
        masks,
        rate_bytes_per_s: Some(1 << 20),
        ttl_s: Some(3_600),
        hydrating: true,
    }
}

fn of_clones() -> Vec<Request> {
    let name = || "birds-2".to_owned();
    let take = CloneTake {
        spec: clone_spec(),
        sources: vec!["10.0.0.1:4747".parse().unwrap(), "[::1]:4748".parse().unwrap()],
        dir: Some("/srv/birds-2".into()),
        replace: true,
        patience_s: Some(30),
    };
    vec![
        Request::CloneCreate(clone_spec()),
        Request::CloneCreate(CloneSpec { name: name(), ..CloneSpec::default() }),
        Request::CloneList,
        Request::CloneShow { name: name() },
        Request::CloneDo { name: name(), action: CloneAction::Live(Some(3_600)) },
        Request::CloneTake(Box::new(take)),
        Request::CloneTake(Box::default()),
    ]
}

fn of_copies() -> Vec<Request> {
    let name = || "an extract".to_owned();
    let plan = |way, portion| Request::RefreshPlan {
        history: history(),
        durable: Uid::new(0x0a0b),
        hash: HistoryHash(0x05_0203),
        way,
        portion,
    };
    vec![
        Request::ReplicaList,
        Request::ReplicaDo { name: "heron".into(), action: ReplicaAction::Forget },
        Request::ExtractList,
        Request::ExtractRead { name: name(), at: Some(70_000) },
        Request::ExtractRead { name: name(), at: None },
        Request::ExtractDrop { name: name() },
        Request::ReplicaRefresh { dry_run: true, way: Some("delta".into()) },
        Request::ReplicaRefresh { dry_run: false, way: None },
        plan(Some("reconcile".into()), Some(portion())),
        plan(None, None),
    ]
}

fn of_comparing() -> Vec<Request> {
    vec![
        Request::Compare { at: Some(Uid::new(0x0a0b)), spans: vec![span()], parts: 8 },
        Request::Compare { at: None, spans: vec![], parts: 1 },
        Request::SpanKeys { at: Uid::new(0x0a0b), span: span() },
        Request::SpanKeys { at: Uid::new(0x0a0b), span: Span::all(TableId(7)) },
    ]
}

fn of_the_lead() -> Vec<Request> {
    let wish = PromotionWish { looks_only: true, accepts_loss: false, force: false };
    vec![
        Request::Promote(wish),
        Request::Promote(PromotionWish { looks_only: false, accepts_loss: true, ..wish }),
        Request::Promote(PromotionWish { looks_only: false, force: true, ..wish }),
        Request::Promise { epoch: epoch(3), port: 7_400 },
        Request::HandOver { to: InstanceId(0x2222) },
        Request::HandBack { from: InstanceId(0x2222) },
        Request::Follow { primary: "10.0.0.1:4747".parse().unwrap() },
        Request::Follow { primary: "[::1]:4748".parse().unwrap() },
    ]
}
