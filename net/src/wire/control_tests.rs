use planaria_replication::control::InstanceRole;
use planaria_types::{DatabaseId, Epoch, History, HistoryEntry, HistoryHash, InstanceId, Uid};

use super::{
    BoundedSet, COPIES_MAX, ControlRequest, ControlResponse, CopyReport, Join, JoinToken, LABELS_MAX, Mode,
    NodeReport, Order, Outcome, SET_MAX,
};
use crate::wire::jobs::{CloneOrder, CloneWish, When, is_clone_name};
use crate::wire::links::{LinkPeer, LinkReport};
use crate::wire::message::{AsOf, Call, CloneRole, Request, Response, Shape};
use crate::wire::rules::{Rule, RuleAction, RuleEvent};
use crate::wire::stores::{
    BackupOrder, KeptBackup, RestoreOrder, STORES_MAX, StoreReport, StoreSpec, StoredBackup, is_place,
};
use crate::wire::{Frame, FrameError, FrameKind};

fn report(copies: usize, set: usize) -> ControlRequest {
    let epoch = Epoch { term: 2, incarnation: 1, nonce: 77 };
    let entry = HistoryEntry { epoch, inherited: Uid::new(4), hash: HistoryHash(5) };
    let copy = CopyReport {
        name: "birds".into(),
        level: "quorum".into(),
        primary: Some(([127, 0, 0, 1], 4747).into()),
        promotable: vec![InstanceId(1); set],
        next_promotable: Some(BoundedSet(vec![InstanceId(2)])),
        history: History::from_entries(vec![entry]).unwrap(),
        ..CopyReport::default()
    };
    let outcome = Outcome { job: 1, code: "may_lose".into(), what: "no".into() };
    ControlRequest::Report(NodeReport {
        session: 3,
        copies: vec![copy; copies],
        outcomes: vec![outcome],
        links: vec![LinkReport { to: "b".into(), round_trip_us: Some(1_500), what: String::new() }],
        stores: vec![StoreReport {
            place: "s3://bucket/birds".into(),
            backups: vec![StoredBackup {
                name: "20261122T154500Z".into(),
                count: 3,
                ..StoredBackup::default()
            }],
            kept: vec![KeptBackup {
                name: "20261122T154500Z".into(),
                reach: Uid::new(9),
                ..KeptBackup::default()
            }],
            ..StoreReport::default()
        }],
        ..NodeReport::default()
    })
}

fn join(labels: usize) -> ControlRequest {
    let labels = vec![("region".to_owned(), "eu".to_owned()); labels];
    ControlRequest::Join(Join {
        token: JoinToken(9),
        name: "a".into(),
        port: 1,
        labels,
        software: String::new(),
        advertised: Some(([10, 0, 0, 1], 4747).into()),
    })
}

fn wish() -> CloneWish {
    let database = Some("birds".to_owned());
    CloneWish {
        to: "b".into(),
        database,
        period_ms: 600_000,
        bytes_per_s: Some(7),
        shape: shape(),
        ..CloneWish::default()
    }
}

fn shape() -> Shape {
    Shape {
        as_of: AsOf::Time(7),
        leave_out: vec!["audit".into()],
        filters: vec![("birds".into(), "count > 3".into())],
        masks: vec![("people".into(), "mail".into(), "hash".into())],
    }
}

fn frame(request: ControlRequest) -> Frame {
    let call = Call { database: None, request: Request::Control(Box::new(request)) };
    Frame::of(FrameKind::Request, &call).unwrap()
}

#[test]
fn what_is_asked_and_answered_survives_the_wire() {
    let as_of = AsOf::Time(7);
    let source = ControlRequest::ChooseSource { to: "a".into(), database: None, period_ms: 600_000, as_of };
    let mode = ControlRequest::SetMode { database: "birds".into(), mode: Mode::Automatic };
    let clone = ControlRequest::CloneCreate(wish());
    let limit = ControlRequest::SetLimit { gate: "node-out".into(), clones_max: 3, bytes_per_s_max: 1 << 20 };
    let want = ControlRequest::SetWant { database: "birds".into(), standbys: Some(1), backups: None };
    let history = ControlRequest::History { limit: 5 };
    let route = ControlRequest::Route { database: None, staleness_max_ms: Some(500) };
    let schedule = ControlRequest::SetSchedule {
        name: "nightly".into(),
        when: When::Calendar("30 3 * * *".into()),
        wish: wish(),
    };
    let rule = ControlRequest::SetRule(Rule {
        name: "behind".into(),
        database: None,
        event: RuleEvent::Lag { over_ms: 30_000, for_ms: 5_000, role: Some(InstanceRole::Standby) },
        action: RuleAction::Clone(wish()),
        pause_ms: 600_000,
    });
    let spec = StoreSpec {
        place: "s3://bucket/birds".into(),
        labels: vec![("region".into(), "eu".into())],
        keep: Some(7),
    };
    let store = ControlRequest::SetStore { database: None, spec };
    let leave = ControlRequest::RemoveNode { name: "b".into(), reason: "sold".into(), force: true };
    // Whoever knows the token may join: it is told to those alone that may change things.
    assert!(leave.needs_control() && ControlRequest::Token.needs_control());
    let renew = ControlRequest::RenewToken;
    let all = [
        join(3),
        report(2, 3),
        source,
        mode,
        history,
        clone,
        limit,
        want,
        schedule,
        rule,
        route,
        store,
        leave,
        renew,
    ];
    for request in all {
        let call: Call = frame(request.clone()).message().unwrap();
        assert_eq!(call.request, Request::Control(Box::new(request)));
    }
}

#[test]
fn what_nodes_are_told_survives_the_wire() {
    let follow = Order::Follow {
        job: 4,
        instance: InstanceId(7),
        primary: "[::1]:4747".parse().unwrap(),
        epoch: Epoch::NONE,
    };
    let clone = Order::Clone(CloneOrder {
        job: 5,
        database: DatabaseId(7),
        name: "birds-2".into(),
        role: CloneRole::Standby,
        source: InstanceId(8),
        from: "10.0.0.1:4747".parse().unwrap(),
        bytes_per_s: 1 << 20,
        ttl_s: Some(3_600),
        shape: shape(),
    });
    let cancel = Order::CancelClone { job: 6 };
    let reseed = Order::Reseed { job: 7, instance: InstanceId(7) };
    let place = || "/srv/backups".to_owned();
    let backup = Order::Backup(BackupOrder {
        job: 8,
        instance: InstanceId(7),
        place: place(),
        bytes_per_s: 1 << 20,
        keep: Some(7),
    });
    let restore = Order::Restore(RestoreOrder {
        job: 9,
        database: DatabaseId(7),
        backup: "20261122T154500Z".into(),
        as_of: AsOf::Time(7),
        name: "birds-3".into(),
        role: CloneRole::Detached,
        place: place(),
        bytes_per_s: 1 << 20,
    });
    let promote = Order::Promote { job: 3, instance: InstanceId(7) };
    let orders = vec![promote, follow, clone, cancel, reseed, backup, restore];
    let measure = vec![LinkPeer { node: "c".into(), address: "[::1]:4748".parse().unwrap() }];
    let orders = ControlResponse::Orders { orders, report_every_ms: 1_000, measure };
    let answer = Response::Control(Box::new(orders));
    assert_eq!(Frame::of(FrameKind::Response, &answer).unwrap().message::<Response>().unwrap(), answer);
}

#[test]
fn what_changes_the_cluster_takes_the_role_control_and_what_looks_does_not() {
    let needs = |request: ControlRequest| Request::Control(Box::new(request)).needs_control();
    assert!(needs(join(0)) && needs(report(0, 0)));
    assert!(needs(ControlRequest::SetMode { database: String::new(), mode: Mode::Operator }));
    assert!(needs(ControlRequest::SetStore { database: None, spec: StoreSpec::default() }));
    assert!(!needs(ControlRequest::Stores));
    assert!(needs(ControlRequest::CloneCreate(wish())) && needs(ControlRequest::CloneCancel { job: 1 }));
    assert!(!needs(ControlRequest::Nodes) && !needs(ControlRequest::Leads));
    assert!(!needs(ControlRequest::Clones { limit: 1 }) && !needs(ControlRequest::Limits));
}

#[test]
fn the_name_of_a_clone_is_no_path() {
    for name in ["birds", "birds-2", "V\u{f6}gel_2.bak"] {
        assert!(is_clone_name(name), "{name}");
    }
    for name in ["", ".", "..", "a/b", "/a", ".hidden", "-x", "a b", "a\0", &"x".repeat(201)] {
        assert!(!is_clone_name(name), "{name}");
    }
}

#[test]
fn the_place_of_a_store_can_be_shown() {
    assert!(["/srv/backups", "s3://bucket/a b"].into_iter().all(is_place));
    assert!(!["", "a\nb", &"x".repeat(511)].into_iter().any(is_place));
}

#[test]
fn the_place_of_each_message_does_not_move() {
    let place = |request: ControlRequest| postcard::to_stdvec(&request).unwrap()[0];
    assert_eq!(place(join(0)), 0);
    assert_eq!(place(report(0, 0)), 1);
    assert_eq!(place(ControlRequest::History { limit: 1 }), 6);
    assert_eq!(place(ControlRequest::SetMode { database: String::new(), mode: Mode::Operator }), 8);
    assert_eq!(place(ControlRequest::CloneCreate(wish())), 9);
    assert_eq!(place(ControlRequest::Limits), 14);
    assert_eq!(place(ControlRequest::Links), 21);
    assert_eq!(place(ControlRequest::Route { database: None, staleness_max_ms: None }), 27);
    assert_eq!(place(ControlRequest::Stores), 28);
    assert_eq!(place(ControlRequest::RemoveStore { database: None, place: String::new() }), 30);
}

#[test]
fn a_token_is_read_as_it_is_shown_and_is_not_shown_by_accident() {
    let token = JoinToken(0xcafe);
    assert_eq!(token.to_string().parse(), Ok(token));
    assert!("cafe".parse::<JoinToken>().is_err() && "z".repeat(32).parse::<JoinToken>().is_err());
    assert!(!format!("{token:?}").contains("cafe"));
}

#[test]
fn lists_beyond_their_limits_are_refused() {
    let refused = |request: ControlRequest| {
        let outcome = frame(request).message::<Call>();
        matches!(outcome, Err(FrameError::Body { .. }))
    };
    assert!(!refused(join(LABELS_MAX)) && refused(join(LABELS_MAX + 1)));
    assert!(!refused(report(COPIES_MAX, 1)) && refused(report(COPIES_MAX + 1, 1)));
    let stores = |count| {
        let stores = vec![StoreReport::default(); count];
        ControlRequest::Report(NodeReport { stores, ..NodeReport::default() })
    };
    assert!(!refused(stores(STORES_MAX)) && refused(stores(STORES_MAX + 1)));
    assert!(!refused(report(1, SET_MAX)) && refused(report(1, SET_MAX + 1)));
}

#[test]
fn hostile_reports_end_in_an_error_or_a_report() {
    let bytes = frame(report(3, 3)).body;
    let mut state = 0x0ddb_a115_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    let mut understood = 0;
    for _ in 0..50_000 {
        let mut hostile = bytes.to_vec();
        for _ in 0..=random() % 3 {
            let at = random() % hostile.len();
            hostile[at] = random() as u8;
        }
        hostile.truncate(bytes.len() - random() % 2 * (random() % bytes.len()));
        understood += u32::from(Frame::new(FrameKind::Request, hostile).message::<Call>().is_ok());
    }
    assert!(understood > 100, "only {understood} of the changed reports were reports");
}
