//! What the control center answers, and what it orders: one of each kind with something in most fields, and some again without what
//! may be left out.

use planaria_replication::control::{CopyState, InstanceRole, Priority};
use planaria_types::{DatabaseId, InstanceId, Uid};

use super::control_requests::{address, rule, store_spec, stored, topology, wish};
use super::shape;
use crate::golden::{epoch, position};
use crate::wire::control::{
    CandidateInfo, ControlResponse, DatabaseInfo, EventInfo, InstanceInfo, JoinToken, LeadInfo, Mode,
    NodeInfo, Order, SourceInfo,
};
use crate::wire::jobs::{CloneJobInfo, CloneOrder, LimitInfo, ScheduleInfo, WantInfo, When};
use crate::wire::links::{LinkInfo, LinkPeer};
use crate::wire::message::{AsOf, CloneRole, Shape};
use crate::wire::routes::{RouteInfo, TargetInfo};
use crate::wire::rules::RuleInfo;
use crate::wire::stores::{BackupOrder, RestoreOrder, StoreInfo};
use crate::wire::topology::TopologyChange;

pub(super) fn all() -> Vec<ControlResponse> {
    [of_nodes(), of_the_catalog(), of_clones(), of_settings(), of_stores_and_routes()].concat()
}

pub(super) fn orders() -> Vec<Order> {
    let instance = InstanceId(0x2222);
    let clone = CloneOrder {
        job: 5,
        database: DatabaseId(0x1111),
        name: "birds-2".into(),
        role: CloneRole::Standby,
        source: instance,
        from: address(),
        bytes_per_s: 1 << 20,
        ttl_s: Some(3_600),
        shape: shape(),
    };
    let whole = CloneOrder { ttl_s: None, shape: Shape::default(), ..clone.clone() };
    let place = || "s3://bucket/birds".to_owned();
    let backup = BackupOrder { job: 8, instance, place: place(), bytes_per_s: 1 << 20, keep: Some(7) };
    let restore = RestoreOrder {
        job: 9,
        database: DatabaseId(0x1111),
        backup: "20261122T154500Z".into(),
        as_of: AsOf::Position(Uid::new(0x0a0b)),
        name: "birds-3".into(),
        role: CloneRole::Backup,
        place: place(),
        bytes_per_s: 1 << 20,
    };
    vec![
        Order::Promote { job: 3, instance },
        Order::Follow { job: 4, instance, primary: address(), epoch: epoch(4) },
        Order::Clone(clone),
        Order::Clone(whole),
        Order::CancelClone { job: 6 },
        Order::Reseed { job: 7, instance },
        Order::Backup(backup.clone()),
        Order::Backup(BackupOrder { keep: None, ..backup }),
        Order::Restore(restore),
    ]
}

fn of_nodes() -> Vec<ControlResponse> {
    let measure = vec![
        LinkPeer { node: "stork".into(), address: address() },
        LinkPeer { node: "crane".into(), address: "[::1]:4748".parse().unwrap() },
    ];
    let node = NodeInfo {
        name: "heron".into(),
        address: "10.0.0.1:4747".into(),
        labels: "region=eu,datacenter=a".into(),
        software: "planaria 0.0".into(),
        capacity_bytes: 1_001,
        free_bytes: 1_002,
        copies: 3,
        is_heard: true,
        heard_ago_ms: Some(1_003),
        spare: Some(InstanceRole::Backup),
        has_older_token: false,
    };
    let unheard = NodeInfo { has_older_token: true, ..NodeInfo::default() };
    vec![
        ControlResponse::Joined { session: 70_000 },
        ControlResponse::Orders { orders: orders(), report_every_ms: 1_000, measure },
        ControlResponse::Orders { orders: vec![], report_every_ms: 1_000, measure: vec![] },
        ControlResponse::Nodes(vec![node, unheard]),
        ControlResponse::Token { token: JoinToken(0xcafe), older_nodes: 2 },
    ]
}

fn instance() -> InstanceInfo {
    InstanceInfo {
        instance: InstanceId(0x2222),
        database: "pond".into(),
        node: "heron".into(),
        role: InstanceRole::Primary,
        state: CopyState::Stale,
        is_heard: true,
        is_promotable: false,
        position: position(),
        update: Uid::new(0x0a01),
        lag_ms: 1_001,
        bytes: 1_002,
        stored: "stored".into(),
    }
}

fn of_the_catalog() -> Vec<ControlResponse> {
    let lead = LeadInfo {
        database: DatabaseId(0x1111),
        instance: InstanceId(0x2222),
        epoch: epoch(3),
        address: address(),
    };
    let database = DatabaseInfo {
        name: "pond".into(),
        database: DatabaseId(0x1111),
        mode: Mode::Automatic,
        level: "quorum".into(),
        primary: "heron".into(),
        address: "10.0.0.1:4747".into(),
        epoch: epoch(3),
        is_led: true,
        copies: 3,
        copies_heard: 2,
        note: "stork is away".into(),
        stores: 1,
    };
    let event = EventInfo {
        number: 1_001,
        at_ms: 1_002,
        kind: "promotion".into(),
        database: "pond".into(),
        node: "heron".into(),
        what: "heron leads".into(),
        reasons: vec!["it has the most".into()],
    };
    vec![
        ControlResponse::Leads(vec![lead]),
        ControlResponse::Databases(vec![database, DatabaseInfo::default()]),
        ControlResponse::Instances(vec![
            instance(),
            InstanceInfo { is_heard: false, is_promotable: true, ..instance() },
        ]),
        ControlResponse::History(vec![event, EventInfo::default()]),
    ]
}

fn job() -> CloneJobInfo {
    CloneJobInfo {
        job: 5,
        name: "birds-2".into(),
        database: "pond".into(),
        to: "heron".into(),
        role: CloneRole::Standby,
        priority: Priority::Recovery,
        state: "running".into(),
        source: "stork".into(),
        done_bytes: 1_001,
        total_bytes: Some(1_002),
        bytes_per_s: 1_003,
        origin: "operator".into(),
        submitted_ms: 1_004,
        ended_ms: Some(1_005),
        code: "bandwidth".into(),
        reason: "others go first".into(),
        shape: shape(),
        reasons: vec!["stork: nearest".into()],
    }
}

fn of_clones() -> Vec<ControlResponse> {
    let candidate = CandidateInfo {
        instance: InstanceId(0x2222),
        node: "stork".into(),
        role: InstanceRole::Backup,
        update: Uid::new(0x0a0b),
        distance: "the same region".into(),
        round_trip_us: Some(1_500),
        is_chosen: true,
        code: "nearest".into(),
        reason: "it is the nearest".into(),
    };
    let source = SourceInfo {
        source: Some(InstanceId(0x2222)),
        candidates: vec![candidate, CandidateInfo::default()],
        note: "it waits for room".into(),
    };
    vec![
        ControlResponse::Source(source),
        ControlResponse::Source(SourceInfo::default()),
        ControlResponse::Clones(vec![job(), CloneJobInfo::default()]),
    ]
}

fn of_settings() -> Vec<ControlResponse> {
    let limit = LimitInfo {
        gate: "link:a/b".into(),
        clones_max: 3,
        bytes_per_s_max: 1_001,
        clones: 2,
        bytes_per_s: 1_002,
        is_set: true,
    };
    let schedule = |when| ScheduleInfo { name: "nightly".into(), when, wish: wish(), due_ms: 1_001 };
    let want = WantInfo {
        database: "pond".into(),
        standbys: 4,
        backups: 3,
        standbys_there: 2,
        backups_there: 1,
        note: "no node is left".into(),
    };
    let change = TopologyChange { item: "limits.node-out".into(), what: "3 clones, not 2".into() };
    let rules = vec![
        RuleInfo { rule: rule(), acted_ms: Some(1_001), note: "no node waits".into() },
        RuleInfo { rule: rule(), acted_ms: None, note: String::new() },
    ];
    vec![
        ControlResponse::Limits(vec![limit]),
        ControlResponse::Schedules(vec![
            schedule(When::Every(60_000)),
            schedule(When::Calendar("30 3 * * *".into())),
        ]),
        ControlResponse::Wants(vec![want]),
        ControlResponse::Rules(rules),
        ControlResponse::Topology(Box::new(topology())),
        ControlResponse::Topology(Box::default()),
        ControlResponse::TopologyChanges(vec![change]),
    ]
}

fn of_stores_and_routes() -> Vec<ControlResponse> {
    let link = LinkInfo {
        from: "heron".into(),
        to: "stork".into(),
        distance: "the same region".into(),
        round_trip_us: Some(1_500),
        measured_ms: 1_001,
        what: String::new(),
    };
    let unreached = LinkInfo { round_trip_us: None, what: "no answer".into(), ..link.clone() };
    let store = StoreInfo {
        database: "pond".into(),
        spec: store_spec(),
        instance: InstanceId(0x2222),
        state: "stored".into(),
        newest: Some(stored()),
        heard_ms: 1_001,
        nodes: vec!["heron".into()],
        note: "a backup is being made".into(),
    };
    let target = TargetInfo {
        instance: InstanceId(0x2222),
        node: "heron".into(),
        address: address(),
        role: InstanceRole::Primary,
        age_ms: 1_001,
        serves: true,
        code: "leads".into(),
        reason: "it leads".into(),
    };
    let route = RouteInfo {
        database: DatabaseId(0x1111),
        name: "pond".into(),
        targets: vec![target],
        note: "stork is away".into(),
    };
    vec![
        ControlResponse::Links(vec![link, unreached]),
        ControlResponse::Stores(vec![store, StoreInfo::default()]),
        ControlResponse::Route(route),
        ControlResponse::Route(RouteInfo::default()),
    ]
}
