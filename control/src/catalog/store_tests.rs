use std::collections::BTreeSet;

use planaria_net::wire::control::{JoinToken, Mode};
use planaria_net::wire::jobs::{CloneWish, When};
use planaria_net::wire::message::{AsOf, CloneRole, Shape};
use planaria_net::wire::rules::{RuleAction, RuleEvent};
use planaria_net::wire::stores::StoredBackup;
use planaria_replication::control::{Ceiling, CopyState, InstanceRole, Labels, Priority};
use planaria_types::{DatabaseId, Epoch, InstanceId, Position, Uid};

use super::StoreCatalog;
use crate::{
    AdmissionRecord, Catalog, Change, CloneRecord, CloneState, Contents, DatabaseRecord, DatacenterRecord,
    DeclarationRecord, Declared, Event, EventKind, InstanceRecord, JobKind, JobRecord, JobState, LeadRecord,
    LimitRecord, LinkRecord, NodeRecord, RemovedRecord, RuleRecord, ScheduleRecord, StoreRecord, WantRecord,
};

fn changes() -> Vec<Change> {
    let (database, instance) = (DatabaseId(7), InstanceId(u128::MAX));
    let node = NodeRecord {
        name: "a".into(),
        address: "[::1]:4747".parse().unwrap(),
        labels: Labels::of([("region", "eu"), ("rack", "1")]),
        software: "planaria".into(),
        capacity_bytes: u64::MAX,
        free_bytes: 1 << 40,
        joined_ms: 1_000,
        heard_ms: 2_000,
    };
    let mut changes = vec![
        Change::Datacenter(DatacenterRecord { region: "eu".into(), datacenter: "a".into() }),
        Change::Node(node),
        Change::Admission(AdmissionRecord { node: "a".into(), token: JoinToken(7) }),
        Change::Removed(removed("c")),
        Change::Declaration(DeclarationRecord {
            of: Declared::Node,
            name: "b".into(),
            labels: Labels::of([("rack", "2"), ("region", "us")]),
            capacity_bytes: Some(1 << 40),
        }),
        Change::Declaration(DeclarationRecord {
            of: Declared::Datacenter,
            name: "b".into(),
            labels: Labels::default(),
            capacity_bytes: None,
        }),
        Change::Link(link("b", Some(1_500))),
        Change::Link(link("c", None)),
        Change::Database(DatabaseRecord {
            database,
            name: "birds".into(),
            mode: Mode::Automatic,
            level: "quorum".into(),
        }),
        Change::Instance(InstanceRecord {
            instance,
            database,
            node: "a".into(),
            role: InstanceRole::Backup,
            state: CopyState::Refreshing,
            durable: Uid::MAX,
            update: Uid::new(3),
            bytes: 9,
            heard_ms: 2_000,
        }),
        Change::Lead(LeadRecord {
            database,
            instance,
            node: "a".into(),
            address: "10.0.0.1:1".parse().unwrap(),
            epoch: Epoch { term: 3, incarnation: 2, nonce: u64::MAX },
            since_ms: 5,
        }),
        Change::Job(job(1, JobState::Open)),
        Change::Clone(Box::new(clone(2, CloneState::Running))),
        Change::Limit(LimitRecord {
            gate: "link:a/b".parse().unwrap(),
            ceiling: Ceiling { clones_max: 2, bytes_per_s_max: u64::MAX },
        }),
        Change::Want(WantRecord { database, standbys: 1, backups: 2 }),
        Change::Store(Box::new(store("s3://bucket/birds", Some(stored())))),
        Change::Store(Box::new(store("/srv/backups", None))),
        Change::Event(event(1, vec!["b: it is behind".into(), "c: chosen".into()])),
    ];
    changes.extend(triggers());
    changes
}

/// What has the control center do something by itself.
fn triggers() -> Vec<Change> {
    vec![
        Change::Schedule(Box::new(schedule())),
        Change::Schedule(Box::new(ScheduleRecord {
            name: "weekly".into(),
            when: When::Calendar("0 3 * * MON".into()),
            ..schedule()
        })),
        Change::Rule(Box::new(rule("behind", RuleAction::Clone(schedule().wish)))),
        Change::Rule(Box::new(rule("anew", RuleAction::Reseed))),
        Change::Rule(Box::new(RuleRecord {
            event: RuleEvent::Failover,
            leader: None,
            handled: BTreeSet::new(),
            acted_ms: None,
            ..rule("after", RuleAction::Clone(schedule().wish))
        })),
    ]
}

fn link(to: &str, round_trip_us: Option<u64>) -> LinkRecord {
    let what = if round_trip_us.is_some() { "" } else { "it did not answer" };
    LinkRecord { from: "a".into(), to: to.into(), round_trip_us, what: what.into(), measured_ms: 3_000 }
}

fn store(place: &str, newest: Option<StoredBackup>) -> StoreRecord {
    StoreRecord {
        database: DatabaseId(7),
        place: place.into(),
        number: 1,
        labels: Labels::of([("region", "eu")]),
        keep: newest.as_ref().map(|_| 7),
        newest,
        told_by: "a".into(),
        heard_ms: 4_000,
    }
}

fn stored() -> StoredBackup {
    let epoch = Epoch { term: 3, incarnation: 2, nonce: u64::MAX };
    StoredBackup {
        database: DatabaseId(7),
        name: "20261122T154500Z".into(),
        position: Position { epoch, uid: Uid::MAX },
        taken_ms: 9_000,
        bytes: u64::MAX,
        count: 3,
    }
}

fn job(number: u64, state: JobState) -> JobRecord {
    JobRecord {
        number,
        kind: JobKind::Promote,
        database: DatabaseId(7),
        instance: InstanceId(2),
        node: "b".into(),
        state,
        reason: "a is lost".into(),
        began_ms: 6,
        ended_ms: (state != JobState::Open).then_some(7),
    }
}

fn clone(number: u64, state: CloneState) -> CloneRecord {
    CloneRecord {
        number,
        name: "birds-2".into(),
        database: DatabaseId(7),
        node: "b".into(),
        role: CloneRole::Backup,
        priority: Priority::BackupRefresh,
        period_ms: 600_000,
        bytes_per_s_wanted: None,
        ttl_s: Some(60),
        shape: shape(),
        origin: "an operator".into(),
        state,
        code: "slots".into(),
        reason: "why".into(),
        reasons: vec!["a: one".into(), "c: two".into()],
        source: Some(InstanceId(9)),
        source_node: "a".into(),
        gates: vec!["node-in:b".parse().unwrap(), "node-out:a".parse().unwrap()],
        bytes_per_s: 1 << 20,
        bytes: u64::MAX,
        failed: [InstanceId(1), InstanceId(2)].into(),
        submitted_ms: 10,
        ended_ms: (!state.is_open()).then_some(11),
    }
}

fn shape() -> Shape {
    Shape {
        as_of: AsOf::Time(7),
        leave_out: vec!["audit".into(), "log".into()],
        filters: vec![("birds".into(), "count > 3 AND name = 'a b'".into())],
        masks: vec![("people".into(), "mail".into(), "constant:x y".into())],
    }
}

fn schedule() -> ScheduleRecord {
    let wish = CloneWish {
        to: "b".into(),
        database: Some(DatabaseId(7).to_string()),
        period_ms: 5,
        ttl_s: Some(60),
        shape: Shape { as_of: AsOf::Position(Uid::MAX), ..shape() },
        ..CloneWish::default()
    };
    ScheduleRecord { name: "nightly".into(), when: When::Every(3_600_000), wish, due_ms: 12 }
}

fn rule(name: &str, action: RuleAction) -> RuleRecord {
    RuleRecord {
        name: name.into(),
        database: DatabaseId(7),
        event: RuleEvent::Lag { over_ms: 30_000, for_ms: 5_000, role: Some(InstanceRole::Backup) },
        action,
        pause_ms: 600_000,
        leader: Some(InstanceId(4)),
        handled: [InstanceId(5), InstanceId(6)].into(),
        acted_ms: Some(13),
    }
}

fn removed(node: &str) -> RemovedRecord {
    RemovedRecord { node: node.into(), removed_ms: 14, reason: "its disk is gone".into() }
}

fn event(number: u64, reasons: Vec<String>) -> Event {
    let (database, node) = (Some(DatabaseId(7)), "b".to_owned());
    let what = format!("event {number}");
    Event { number, at_ms: 8, kind: EventKind::PromotionAsked, database, node, what, reasons }
}

#[test]
fn what_was_written_down_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog");
    let catalog = StoreCatalog::open(&path).unwrap();
    let token = catalog.load().unwrap().token;
    assert_ne!(token, JoinToken(0));
    let mut expected = Contents { token, ..Contents::default() };
    assert_eq!(catalog.load().unwrap(), expected);
    for change in changes() {
        expected.take(change);
    }
    catalog.apply(&changes()).unwrap();
    assert_eq!(catalog.load().unwrap(), expected);
    drop(catalog);

    let catalog = StoreCatalog::open(&path).unwrap();
    assert_eq!(catalog.load().unwrap(), expected, "the token is drawn once");
    // Jobs that have ended are no part of what is loaded, but their numbers are taken.
    catalog.apply(&[Change::Job(job(1, JobState::Failed)), Change::Job(job(2, JobState::Done))]).unwrap();
    let contents = catalog.load().unwrap();
    assert_eq!((contents.jobs.len(), contents.last_job, contents.last_event), (0, 2, 1));
    let ended = clone(3, CloneState::Cancelled);
    catalog.apply(&[Change::Clone(Box::new(ended.clone()))]).unwrap();
    let contents = catalog.load().unwrap();
    assert_eq!((contents.clones.len(), contents.last_job), (1, 3), "numbers are those of all jobs");
    let listed = [ended.clone(), clone(2, CloneState::Running)];
    let brief = listed.map(|clone| CloneRecord { shape: Shape::default(), ..clone });
    assert_eq!(catalog.clones(9).unwrap(), brief, "shapes are told of one clone at a time");
    assert_eq!(catalog.clone_of(3).unwrap(), Some(ended));
    assert_eq!(catalog.clone_of(1).unwrap(), None, "that is another kind of job");
    catalog.apply(&[Change::ScheduleRemoved("nightly".into())]).unwrap();
    catalog.apply(&[Change::DeclarationRemoved(Declared::Datacenter, "b".into())]).unwrap();
    catalog.apply(&[Change::LimitRemoved("link:a/b".parse().unwrap())]).unwrap();
    let contents = catalog.load().unwrap();
    assert_eq!((contents.declarations.len(), contents.limits.len()), (1, 0));
    catalog.apply(&[Change::StoreRemoved(DatabaseId(7), "/srv/backups".into())]).unwrap();
    assert_eq!(catalog.load().unwrap().stores.len(), 1);
    catalog.apply(&[Change::ScheduleRemoved("weekly".into()), Change::RuleRemoved("behind".into())]).unwrap();
    let contents = catalog.load().unwrap();
    assert!(contents.schedules.is_empty());
    assert_eq!(contents.rules.len(), 2);
}

#[test]
fn events_come_back_youngest_first_and_the_oldest_go() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = StoreCatalog::open(dir.path().join("catalog")).unwrap();
    let events: Vec<_> = (1..=5).map(|number| event(number, vec![format!("line {number}")])).collect();
    catalog.apply(&events.iter().cloned().map(Change::Event).collect::<Vec<_>>()).unwrap();
    let youngest: Vec<_> = events.iter().rev().take(2).cloned().collect();
    assert_eq!(catalog.events(2).unwrap(), youngest);
    catalog.apply(&[Change::Event(event(super::EVENTS_MAX + 2, Vec::new()))]).unwrap();
    let numbers: Vec<u64> = catalog.events(100).unwrap().iter().map(|event| event.number).collect();
    assert_eq!(numbers, [super::EVENTS_MAX + 2, 5, 4, 3, 1]);
}

#[test]
fn of_many_clones_the_oldest_that_have_ended_go_and_what_is_open_stays() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = StoreCatalog::open(dir.path().join("catalog")).unwrap();
    let note = |number: u64, state: CloneState| {
        catalog.apply(&[Change::Clone(Box::new(clone(number, state)))]).unwrap();
    };
    let numbers = || -> Vec<u64> { catalog.clones(100).unwrap().iter().map(|clone| clone.number).collect() };
    note(1, CloneState::Running);
    note(2, CloneState::Cancelled);
    note(3, CloneState::Complete);
    let newest = super::JOBS_MAX + 2;
    note(newest, CloneState::Queued);
    assert_eq!(numbers(), [newest, 3, 1]);
    assert!(catalog.load().unwrap().clones.contains_key(&1), "it runs, and would be forgotten");
    // It may be looked at once it has ended, until another one takes its room.
    note(1, CloneState::Failed);
    note(newest, CloneState::Running);
    assert_eq!(numbers(), [newest, 3, 1]);
    note(newest + 1, CloneState::Queued);
    assert_eq!(numbers(), [newest + 1, newest]);
}

#[test]
fn what_has_left_is_gone_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog");
    let catalog = StoreCatalog::open(&path).unwrap();
    catalog.apply(&changes()).unwrap();
    let leave = [
        Change::NodeRemoved("a".into()),
        Change::AdmissionRemoved("a".into()),
        Change::Token(JoinToken(9)),
        Change::InstanceRemoved(InstanceId(u128::MAX)),
        Change::LinkRemoved("a".into(), "c".into()),
        Change::Removed(removed("a")),
        Change::RemovedForgotten("c".into()),
    ];
    let mut expected = catalog.load().unwrap();
    for change in leave.clone() {
        expected.take(change);
    }
    assert!(expected.nodes.is_empty() && expected.instances.is_empty(), "{expected:?}");
    assert_eq!((expected.token, expected.admissions.len()), (JoinToken(9), 0));
    assert_eq!((expected.links.len(), expected.removed.contains_key("a")), (1, true));
    catalog.apply(&leave).unwrap();
    drop(catalog);
    assert_eq!(StoreCatalog::open(&path).unwrap().load().unwrap(), expected);
}

#[test]
fn a_database_that_is_no_catalog_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let database = planaria_engine::Database::open(dir.path().join("birds")).unwrap();
    database.create_raw_table("blobs").unwrap();
    drop(database);
    assert_eq!(StoreCatalog::open(dir.path().join("birds")).unwrap_err().code(), "usage");
    let database = planaria_engine::Database::open(dir.path().join("birds")).unwrap();
    assert_eq!(database.tables().unwrap().len(), 1);
}

/// Tables, their columns and rows in words.
fn dump(path: &std::path::Path) -> String {
    use std::fmt::Write;

    let database = planaria_engine::Database::open(path).unwrap();
    let mut names: Vec<String> = database.tables().unwrap().into_iter().map(|table| table.name).collect();
    names.sort();
    let mut text = String::new();
    for name in names {
        let table = database.table(&name).unwrap();
        let (_, schema) = table.definition().schema().unwrap();
        let columns: Vec<String> =
            schema.columns().iter().map(|column| format!("{} {}", column.name, column.ty)).collect();
        writeln!(text, "{name}: {}", columns.join(", ")).unwrap();
        // The token is drawn.
        for row in table.rows(&[]).unwrap().filter(|_| name != "settings") {
            let values: Vec<String> =
                row.unwrap().iter().map(|value| format!("{:?}", value.to_string())).collect();
            writeln!(text, "  {}", values.join(" ")).unwrap();
        }
    }
    text
}

#[test]
fn what_the_catalog_holds_stays_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("catalog");
    let catalog = StoreCatalog::open(&path).unwrap();
    catalog.apply(&changes()).unwrap();
    drop(catalog);
    let written = dump(&path);
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join("catalog-1");
    if std::env::var_os("PLANARIA_GOLDEN").is_some_and(|word| word == "write") {
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::write(&golden, &written).unwrap();
    }
    assert_eq!(written, std::fs::read_to_string(golden).unwrap());
}
