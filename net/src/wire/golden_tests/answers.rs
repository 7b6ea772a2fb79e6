//! What nodes answer clients, one of each kind with something in most fields, and some again without what may be left out.

use planaria_replication::{PartSum, Tiling};
use planaria_types::{DatabaseId, Fingerprint, GroupId, InstanceId, TableId, Uid};

use super::requests::portion;
use crate::golden::{epoch, position, text};
use crate::wire::control::ControlResponse;
use crate::wire::message::{
    CloneInfo, CloneRole, DatabaseStatus, ExtractInfo, ExtractRecord, Promised, Promotion, RefreshInfo,
    ReplicaInfo, Response, Status, TableInfo,
};

pub(super) fn all() -> Vec<Response> {
    [of_rows(), of_nodes_and_tables(), of_clones(), of_copies(), of_comparing(), of_the_lead()].concat()
}

fn of_rows() -> Vec<Response> {
    let uid = Uid::new(0x0a0b);
    vec![
        Response::Done,
        Response::Row(Some((uid, text("a row")))),
        Response::Row(None),
        Response::Found(vec![Some((uid, text("a row"))), None]),
        Response::Committed { uid, epoch: epoch(3), again: true, durable: false },
        Response::Committed { uid, epoch: epoch(3), again: false, durable: true },
        Response::Scanned { at: uid, rows: 700, next_key: Some(text("n")) },
        Response::Scanned { at: uid, rows: 0, next_key: None },
        Response::Imported { uid, epoch: epoch(3), rows: 700 },
        Response::Control(Box::new(ControlResponse::Joined { session: 70_000 })),
    ]
}

fn database() -> DatabaseStatus {
    DatabaseStatus {
        name: "pond".into(),
        database: DatabaseId(0x1111),
        instance: InstanceId(0x2222),
        group: GroupId(1),
        state: "online".into(),
        epoch: epoch(3),
        visible: Uid::new(0x0a01),
        durable: Uid::new(0x0a02),
        stable: Uid::new(0x0a03),
        disk_bytes: 70_000,
        promised: epoch(4),
        position_epoch: epoch(2),
        level: "quorum".into(),
        primary: "10.0.0.1:4747".into(),
        notices: vec!["a mark was dropped".into()],
        refresh: Some(refresh()),
        portion: Some(portion()),
        lag_ms: Some(500),
        depth: 2,
        refreshed: "from a sibling".into(),
    }
}

fn refresh() -> RefreshInfo {
    RefreshInfo {
        way: "delta".into(),
        reason: "log_released".into(),
        why: "the log does not reach back".into(),
        records: Some(300),
        bytes: 70_000,
        ms: Some(500),
    }
}

fn of_nodes_and_tables() -> Vec<Response> {
    let status = Status {
        node: "heron".into(),
        software: "planaria 0.0".into(),
        databases: vec![database(), DatabaseStatus::default()],
    };
    let table = TableInfo {
        name: "birds".into(),
        definition: text("a definition"),
        rows: Some(700),
        disk_bytes: 70_000,
        fragments: 3,
    };
    let fingerprint = Fingerprint { count: 700, sum: 0x07_0203 };
    vec![
        Response::Status(status),
        Response::Status(Status::default()),
        Response::Tables(vec![table.clone(), TableInfo::default()]),
        Response::Table(table),
        Response::Digests { at: Uid::new(0x0a0b), tables: vec![("birds".into(), fingerprint)] },
        Response::Verified { bytes: 70_000, damage: vec!["a block of run 3".into()] },
    ]
}

fn clone() -> CloneInfo {
    CloneInfo {
        name: "birds-2".into(),
        state: "running".into(),
        role: CloneRole::Backup,
        source: Some(InstanceId(0x2222)),
        target: "heron".into(),
        cut: Some(Uid::new(0x0a0b)),
        done_bytes: 1_001,
        total_bytes: Some(1_002),
        expires_ms: Some(1_003),
        reasons: vec!["nearest".into()],
        stage: "fetching".into(),
        from: "10.0.0.1:4747".into(),
        resumed_bytes: 1_004,
        linked_bytes: 1_005,
        moved_bytes: 1_006,
        bytes_per_s: Some(1_007),
        rate_bytes_per_s: Some(1_008),
        left_ms: Some(1_009),
        way: "incremental".into(),
        keeps_old: true,
    }
}

fn of_clones() -> Vec<Response> {
    vec![
        Response::Clones(vec![clone(), CloneInfo::default()]),
        Response::Clone(clone()),
        Response::Clone(CloneInfo::default()),
    ]
}

fn replica() -> ReplicaInfo {
    ReplicaInfo {
        instance: InstanceId(0x2222),
        node: "heron".into(),
        address: "10.0.0.1:4747".into(),
        state: "online".into(),
        promotable: true,
        durable: Uid::new(0x0a01),
        visible: Uid::new(0x0a02),
        lag_ms: 1_001,
        lag_commits: Some(1_002),
        lag_bytes: 1_003,
        preserved_bytes: 1_004,
        preserved_age_ms: 1_005,
        given_up: "too old".into(),
        way: "delta".into(),
        reason: "log_released".into(),
        moved_records: 1_006,
        moved_commits: 1_007,
        moved_bytes: 1_008,
        holds: "airports".into(),
    }
}

fn of_copies() -> Vec<Response> {
    let extract = ExtractInfo {
        name: "an extract".into(),
        above: Uid::new(0x0a01),
        through: Uid::new(0x0a02),
        epoch: epoch(3),
        created_ms: 1_001,
        age_ms: 1_002,
        expires_ms: 1_003,
        records: 1_004,
        bytes: 1_005,
        is_whole: true,
        tables: vec![text("a definition")],
    };
    let record = |row| ExtractRecord { table: TableId(7), key: text("a key"), row };
    vec![
        Response::Replicas(vec![replica(), ReplicaInfo::default()]),
        Response::Extracts(vec![extract, ExtractInfo::default()]),
        Response::ExtractPart { records: vec![record(Some(text("a row"))), record(None)], next: Some(2) },
        Response::ExtractPart { records: vec![], next: None },
        Response::Refresh(refresh()),
        Response::Refresh(RefreshInfo::default()),
    ]
}

fn of_comparing() -> Vec<Response> {
    let at = Uid::new(0x0a0b);
    let sums = vec![PartSum { count: 1_000, short: [8; 8] }, PartSum { count: 2, short: [6; 8] }];
    vec![
        Response::Parts { at, tilings: vec![Tiling::new(TableId(7), &[b"middle".to_vec()], sums)] },
        Response::Keys { keys: vec![(text("a key"), at, [1, 2, 3, 4, 5, 6, 7, 8])], more: true },
    ]
}

fn of_the_lead() -> Vec<Response> {
    let promotion = Promotion {
        instance: InstanceId(0x2222),
        epoch: Some(epoch(4)),
        inherited: Uid::new(0x0a0b),
        handed_over: true,
        heard: vec!["heron".into()],
        unheard: vec!["stork".into()],
        copies_heard: 2,
        copies_needed: 3,
        losses: vec!["commits after 7".into()],
        obstacles: vec!["another has more".into()],
    };
    let promised = Promised {
        instance: InstanceId(0x2222),
        position: position(),
        promised: epoch(4),
        leader: Some("10.0.0.1:4747".parse().unwrap()),
    };
    vec![
        Response::Promotion(promotion),
        Response::Promotion(Promotion::default()),
        Response::Promised(promised),
        Response::Promised(Promised { leader: None, ..promised }),
        Response::HandedOver { end: Uid::new(0x0a0b) },
    ]
}
