//! What nodes tell the control center, and what operators ask of it: one of each kind with something in most fields, and some again
//! without what may be left out.

use std::net::SocketAddr;

use planaria_replication::control::{CopyState, InstanceRole, Priority};
use planaria_types::{DatabaseId, InstanceId, Uid};

use super::shape;
use crate::golden::{epoch, history, position};
use crate::wire::control::{
    BoundedSet, ControlRequest, CopyReport, Join, JoinToken, Mode, NodeReport, Outcome,
};
use crate::wire::jobs::{CloneReport, CloneWish, When};
use crate::wire::links::LinkReport;
use crate::wire::message::{AsOf, CloneRole};
use crate::wire::rules::{Rule, RuleAction, RuleEvent};
use crate::wire::stores::{KeptBackup, StoreReport, StoreSpec, StoredBackup};
use crate::wire::topology::{DatabaseSpec, DatacenterSpec, LimitSpec, NodeSpec, ScheduleSpec, Topology};

pub(super) fn all() -> Vec<ControlRequest> {
    [of_nodes(), of_looking(), of_clones(), of_settings(), of_rules_and_topology(), of_stores()].concat()
}

pub(super) fn address() -> SocketAddr {
    "10.0.0.1:4747".parse().unwrap()
}

pub(super) fn labels() -> Vec<(String, String)> {
    vec![("region".into(), "eu".into()), ("datacenter".into(), "a".into())]
}

pub(super) fn stored() -> StoredBackup {
    StoredBackup {
        database: DatabaseId(0x1111),
        name: "20261122T154500Z".into(),
        position: position(),
        taken_ms: 1_001,
        bytes: 1_002,
        count: 3,
    }
}

pub(super) fn store_spec() -> StoreSpec {
    StoreSpec { place: "s3://bucket/birds".into(), labels: labels(), keep: Some(7) }
}

pub(super) fn wish() -> CloneWish {
    CloneWish {
        to: "heron".into(),
        database: Some("pond".into()),
        name: Some("birds-2".into()),
        role: CloneRole::Standby,
        period_ms: 1_001,
        priority: Priority::StandbySeeding,
        bytes_per_s: Some(1_002),
        ttl_s: Some(1_003),
        shape: shape(),
    }
}

pub(super) fn roles() -> Vec<InstanceRole> {
    InstanceRole::ALL.to_vec()
}

pub(super) fn states() -> Vec<CopyState> {
    CopyState::ALL.to_vec()
}

pub(super) fn times() -> Vec<When> {
    vec![When::Every(60_000), When::Calendar("30 3 * * *".into())]
}

pub(super) fn events() -> Vec<RuleEvent> {
    vec![
        RuleEvent::Lag { over_ms: 30_000, for_ms: 5_000, role: Some(InstanceRole::Backup) },
        RuleEvent::Lag { over_ms: 30_000, for_ms: 5_000, role: None },
        RuleEvent::Failover,
    ]
}

pub(super) fn actions() -> Vec<RuleAction> {
    vec![RuleAction::Clone(wish()), RuleAction::Clone(CloneWish::default()), RuleAction::Reseed]
}

pub(super) fn rule() -> Rule {
    Rule {
        name: "behind".into(),
        database: Some("pond".into()),
        event: RuleEvent::Lag { over_ms: 30_000, for_ms: 5_000, role: Some(InstanceRole::Standby) },
        action: RuleAction::Clone(wish()),
        pause_ms: 600_000,
    }
}

pub(super) fn topology() -> Topology {
    let schedule = |when| ScheduleSpec { name: "nightly".into(), when, wish: wish() };
    Topology {
        datacenters: vec![DatacenterSpec { name: "a".into(), region: "eu".into() }],
        nodes: vec![
            NodeSpec { name: "heron".into(), labels: labels(), capacity_bytes: Some(70_000) },
            NodeSpec { name: "stork".into(), labels: vec![], capacity_bytes: None },
        ],
        databases: vec![DatabaseSpec {
            name: "pond".into(),
            mode: Mode::Automatic,
            standbys: 1,
            backups: 2,
            stores: vec![store_spec()],
        }],
        limits: vec![LimitSpec { gate: "node-out".into(), clones_max: 3, bytes_per_s_max: 1 << 20 }],
        schedules: times().into_iter().map(schedule).collect(),
        rules: vec![rule()],
    }
}

fn copy() -> CopyReport {
    CopyReport {
        database: DatabaseId(0x1111),
        name: "pond".into(),
        instance: InstanceId(0x2222),
        role: InstanceRole::Backup,
        state: CopyState::Online,
        is_diverged: true,
        damage: "a block of run 3".into(),
        epoch: epoch(3),
        promised: epoch(4),
        position: position(),
        update: Uid::new(0x0a01),
        lag_ms: 1_001,
        bytes: 1_002,
        level: "quorum".into(),
        primary: Some(address()),
        promotable: vec![InstanceId(0x2222), InstanceId(0x3333)],
        next_promotable: Some(BoundedSet(vec![InstanceId(0x4444)])),
        history: history(),
    }
}

fn store_report() -> StoreReport {
    let kept = KeptBackup {
        database: DatabaseId(0x1111),
        name: "20261122T154500Z".into(),
        instance: InstanceId(0x2222),
        position: position(),
        reach: Uid::new(0x0a0b_0c0e),
        taken_ms: 1_001,
        bytes: 1_002,
    };
    StoreReport {
        place: "s3://bucket/birds".into(),
        code: "store_away".into(),
        what: "it does not answer".into(),
        backups: vec![stored()],
        kept: vec![kept],
        left_out: 3,
    }
}

fn report() -> NodeReport {
    NodeReport {
        session: 1_001,
        capacity_bytes: 1_002,
        free_bytes: 1_003,
        copies: vec![copy(), CopyReport::default()],
        outcomes: vec![Outcome { job: 4, code: "may_lose".into(), what: "it has less".into() }],
        spare: Some(InstanceRole::Standby),
        clones: vec![
            CloneReport { job: 5, done_bytes: 1_004, total_bytes: Some(1_005) },
            CloneReport { job: 6, done_bytes: 0, total_bytes: None },
        ],
        links: vec![
            LinkReport { to: "stork".into(), round_trip_us: Some(1_500), what: String::new() },
            LinkReport { to: "crane".into(), round_trip_us: None, what: "no answer".into() },
        ],
        stores: vec![store_report()],
    }
}

fn of_nodes() -> Vec<ControlRequest> {
    let join = Join {
        token: JoinToken(0xcafe),
        name: "heron".into(),
        port: 7_400,
        labels: labels(),
        software: "planaria 0.0".into(),
        advertised: Some("[::1]:4748".parse().unwrap()),
    };
    vec![
        ControlRequest::Join(join),
        ControlRequest::Join(Join::default()),
        ControlRequest::Report(report()),
        ControlRequest::Report(NodeReport::default()),
        ControlRequest::RemoveNode { name: "heron".into(), reason: "sold".into(), force: true },
        ControlRequest::Token,
        ControlRequest::RenewToken,
    ]
}

fn of_looking() -> Vec<ControlRequest> {
    let database = || Some("pond".to_owned());
    vec![
        ControlRequest::Leads,
        ControlRequest::Databases,
        ControlRequest::Nodes,
        ControlRequest::Instances,
        ControlRequest::History { limit: 300 },
        ControlRequest::Limits,
        ControlRequest::Wants,
        ControlRequest::Schedules,
        ControlRequest::Links,
        ControlRequest::Rules,
        ControlRequest::Topology,
        ControlRequest::Stores,
        ControlRequest::Route { database: database(), staleness_max_ms: Some(500) },
        ControlRequest::Route { database: None, staleness_max_ms: None },
    ]
}

fn of_clones() -> Vec<ControlRequest> {
    let choose = |database, as_of| ControlRequest::ChooseSource {
        to: "heron".into(),
        database,
        period_ms: 600_000,
        as_of,
    };
    vec![
        choose(Some("pond".into()), AsOf::Position(Uid::new(0x0a0b))),
        choose(None, AsOf::Newest),
        ControlRequest::CloneCreate(wish()),
        ControlRequest::CloneCreate(CloneWish::default()),
        ControlRequest::Clones { limit: 300 },
        ControlRequest::CloneShow { job: 5 },
        ControlRequest::CloneCancel { job: 5 },
        ControlRequest::CloneRate { job: 5, bytes_per_s: Some(1 << 20) },
        ControlRequest::CloneRate { job: 5, bytes_per_s: None },
    ]
}

fn of_settings() -> Vec<ControlRequest> {
    let database = || "pond".to_owned();
    let schedule = |when| ControlRequest::SetSchedule { name: "nightly".into(), when, wish: wish() };
    let [every, calendar] = times().try_into().unwrap();
    vec![
        ControlRequest::SetMode { database: database(), mode: Mode::Automatic },
        ControlRequest::SetLimit { gate: "node-out".into(), clones_max: 3, bytes_per_s_max: 1 << 20 },
        ControlRequest::SetWant { database: database(), standbys: Some(1), backups: None },
        schedule(every),
        schedule(calendar),
        ControlRequest::RemoveSchedule { name: "nightly".into() },
    ]
}

fn of_rules_and_topology() -> Vec<ControlRequest> {
    let failover = Rule { database: None, event: RuleEvent::Failover, action: RuleAction::Reseed, ..rule() };
    vec![
        ControlRequest::SetRule(rule()),
        ControlRequest::SetRule(failover),
        ControlRequest::RemoveRule { name: "behind".into() },
        ControlRequest::ApplyTopology { topology: Box::new(topology()), dry_run: true },
        ControlRequest::ApplyTopology { topology: Box::default(), dry_run: false },
    ]
}

fn of_stores() -> Vec<ControlRequest> {
    let place = || "s3://bucket/birds".to_owned();
    vec![
        ControlRequest::SetStore { database: Some("pond".into()), spec: store_spec() },
        ControlRequest::SetStore { database: None, spec: StoreSpec { keep: None, ..store_spec() } },
        ControlRequest::RemoveStore { database: Some("pond".into()), place: place() },
        ControlRequest::RemoveStore { database: None, place: place() },
    ]
}
