use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use planaria_engine::os::Posix;
use planaria_net::wire::control::{
    ControlRequest, ControlResponse, CopyReport, Join, JoinToken, Mode, NodeReport,
};
use planaria_replication::control::CopyState;
use planaria_types::{DatabaseId, InstanceId};

use super::ControlHandler;
use crate::{Catalog, Change, CloneRecord, Contents, Error, Event, Result, Settings, StoreCatalog};

const HOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A catalog on a disk that may be full.
struct OnDisk {
    catalog: StoreCatalog,
    is_full: Arc<AtomicBool>,
}

impl Catalog for OnDisk {
    fn load(&self) -> Result<Contents> {
        self.catalog.load()
    }

    fn apply(&self, changes: &[Change]) -> Result<()> {
        if self.is_full.load(Ordering::SeqCst) {
            return Err(Error::refused("disk_full", "no space is left", "make room"));
        }
        self.catalog.apply(changes)
    }

    fn events(&self, limit: usize) -> Result<Vec<Event>> {
        self.catalog.events(limit)
    }

    fn clones(&self, limit: usize) -> Result<Vec<CloneRecord>> {
        self.catalog.clones(limit)
    }

    fn clone_of(&self, number: u64) -> Result<Option<CloneRecord>> {
        self.catalog.clone_of(number)
    }
}

fn joins(handler: &ControlHandler, token: JoinToken, name: &str, port: u16) -> u64 {
    let join = Join { token, name: name.into(), port, ..Join::default() };
    match handler.answer(HOST, ControlRequest::Join(join)).unwrap() {
        ControlResponse::Joined { session } => session,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_disk_leaves_what_is_known_to_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let is_full = Arc::new(AtomicBool::new(false));
    let catalog = OnDisk {
        catalog: StoreCatalog::open(dir.path().join("catalog")).unwrap(),
        is_full: Arc::clone(&is_full),
    };
    // A node is lost as soon as it does not speak: the next request has that to write down.
    let settings = Settings { lost_after_ms: 0, ..Settings::default() };
    let handler = ControlHandler::new(Box::new(catalog), settings, Arc::new(Posix)).unwrap();
    let token = handler.token();
    let session = joins(&handler, token, "a", 4_001);
    let copy = CopyReport {
        database: DatabaseId(7),
        name: "birds".into(),
        instance: InstanceId(1),
        state: CopyState::Primary,
        ..CopyReport::default()
    };
    let report = NodeReport { session, copies: vec![copy], ..NodeReport::default() };
    handler.answer(HOST, ControlRequest::Report(report)).unwrap();
    joins(&handler, token, "b", 4_002);

    is_full.store(true, Ordering::SeqCst);
    let names = |answer: ControlResponse| -> Vec<String> {
        match answer {
            ControlResponse::Nodes(nodes) => nodes.into_iter().map(|node| node.name).collect(),
            ControlResponse::Databases(databases) => databases.into_iter().map(|known| known.name).collect(),
            other => panic!("{other:?}"),
        }
    };
    let read = |request| handler.answer(HOST, request).unwrap();
    assert_eq!(names(read(ControlRequest::Nodes)), ["a", "b"]);
    assert_eq!(names(read(ControlRequest::Databases)), ["birds"]);
    assert_eq!(read(ControlRequest::Leads), ControlResponse::Leads(vec![]), "it was not heard lately");
    let ControlResponse::History(before) = read(ControlRequest::History { limit: 100 }) else { panic!() };
    let mode = ControlRequest::SetMode { database: "birds".into(), mode: Mode::Automatic };
    assert_eq!(handler.answer(HOST, mode.clone()).unwrap_err().code(), "disk_full", "what is to last is not");

    // What time has done is written down when there is room.
    is_full.store(false, Ordering::SeqCst);
    assert_eq!(names(handler.answer(HOST, mode).unwrap()), ["birds"]);
    let ControlResponse::History(after) = read(ControlRequest::History { limit: 100 }) else { panic!() };
    assert!(before.iter().all(|event| !(event.kind == "node_lost" && event.node == "b")));
    assert!(after.iter().any(|event| event.kind == "node_lost" && event.node == "b"));
}
