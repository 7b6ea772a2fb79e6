use planaria_engine::os::{Call, Fault, FaultOs, Posix};
use planaria_engine::{Database, Durability, Options};
use planaria_net::quic::TlsStore;

use super::*;
use crate::node::{Node, NodeOptions};

#[path = "slow_disk_tests.rs"]
mod slow_disk;

struct Site {
    dir: tempfile::TempDir,
    runtime: Arc<tokio::runtime::Runtime>,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        TlsStore::named(dir.path().join("tls")).load_or_create().unwrap();
        Self { dir, runtime: Arc::new(tokio::runtime::Runtime::new().unwrap()) }
    }

    fn node(&self, name: &str) -> Node {
        self.node_on(name, Arc::new(Posix))
    }

    fn node_on(&self, name: &str, os: Arc<dyn planaria_engine::os::Os>) -> Node {
        let engine = Options { os, ..Options::default() };
        let options = NodeOptions::beside_others(self.dir.path(), name, engine);
        Node::start(&self.runtime, &options, |_| {}).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Writes rows of a KiB that do not compress.
fn fill(node: &Node, rows: u64) {
    let db = node.database();
    let table = db.create_raw_table("t").unwrap();
    for row in 0..rows {
        let mut batch = planaria_engine::Batch::new();
        let mut value = Vec::new();
        let mut word = row + 1;
        while value.len() < 1_024 {
            word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (word >> 29);
            value.extend_from_slice(&word.to_le_bytes());
        }
        batch.put(table.id(), row.to_be_bytes(), value);
        db.write(batch, Durability::Background).unwrap();
    }
    db.sync().unwrap();
}

fn job(site: &Site, name: &str, sources: &[&Node]) -> CloneJob {
    CloneJob {
        name: name.into(),
        dir: site.path(name),
        sources: sources.iter().map(|node| node.address()).collect(),
        patience_s: PATIENCE_S,
        ..CloneJob::default()
    }
}

/// Waits until a clone is over, however long that takes.
fn over(clones: &Clones, name: &str) -> CloneInfo {
    loop {
        let info = clones.wait(name, Duration::from_mins(1)).unwrap();
        if !matches!(info.state.as_str(), "queued" | "running") {
            return info;
        }
    }
}

fn digests(db: &Database) -> Vec<planaria_engine::TableDigest> {
    db.snapshot().digests().unwrap()
}

#[test]
fn a_clone_is_taken_in_the_background_listed_and_deleted() {
    let site = Site::new();
    let (source, target) = (site.node("source"), site.node("target"));
    fill(&source, 4_000);
    let clones = target.clones();
    clones.start(job(&site, "copy", &[&source])).unwrap();
    let info = over(clones, "copy");
    assert_eq!((info.state.as_str(), info.reasons.as_slice()), ("complete", &[][..]));
    assert_eq!((Some(info.done_bytes), info.moved_bytes), (info.total_bytes, info.done_bytes));
    let copy = Database::open(site.path("copy")).unwrap();
    assert_eq!(digests(&copy), digests(&source.database()));
    assert_eq!(clones.delete("copy").unwrap_err().code, "in_use");
    copy.close();
    drop(copy);
    assert_eq!(clones.start(job(&site, "copy", &[&source])).unwrap_err().code, "exists");
    clones.delete("copy").unwrap();
    assert!(!site.path("copy").exists());
    assert_eq!(clones.list(), []);
    assert_eq!(clones.info("copy").unwrap_err().code, "unknown_clone");
}

#[test]
fn a_clone_goes_on_with_the_next_start_of_its_node_and_repeats_no_more_than_was_under_way() {
    let site = Site::new();
    let source = site.node("source");
    fill(&source, 24_000);
    {
        let target = site.node("target");
        // So slow that it cannot end by itself before the node does.
        let slow = CloneJob { rate_bytes_per_s: Some(2 << 20), ..job(&site, "copy", &[&source]) };
        target.clones().start(slow).unwrap();
        // More than what four streams may have under way.
        let some = || target.clones().info("copy").unwrap().done_bytes > 5 << 20;
        while !some() {
            std::thread::yield_now();
        }
    }
    assert!(!site.path("copy").exists() && site.path("copy.partial").exists());
    let target = site.node("target");
    let info = target.clones().set_rate("copy", None).unwrap();
    assert!(matches!(info.state.as_str(), "queued" | "running" | "complete"), "{info:?}");
    let info = over(target.clones(), "copy");
    assert_eq!(info.state, "complete", "{info:?}");
    assert!(info.resumed_bytes > 0, "{info:?}");
    // What four streams had under way came twice at most.
    let total = info.total_bytes.unwrap();
    assert!((total..=total + (4 << 20)).contains(&info.moved_bytes), "{info:?}");
    let copy = Database::open(site.path("copy")).unwrap();
    assert_eq!(digests(&copy), digests(&source.database()));
}

#[test]
fn the_next_source_is_tried_and_what_is_cancelled_or_does_not_fit_leaves_nothing() {
    let site = Site::new();
    let (source, target) = (site.node("source"), site.node("target"));
    fill(&source, 4_000);
    let clones = target.clones();
    // Nobody listens at the first one.
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut with_two = job(&site, "copy", &[&source]);
    with_two.sources.insert(0, nobody.local_addr().unwrap());
    with_two.ttl_s = Some(0);
    drop(nobody);
    clones.start(with_two).unwrap();
    // Its time is over as soon as it is complete.
    let mut state = clones.shared.state.lock();
    while state.clones["copy"].entry.state != CloneState::Expired {
        clones.shared.changed.notify_all();
        clones.shared.changed.wait_for(&mut state, Duration::from_secs(1));
    }
    drop(state);
    let info = clones.info("copy").unwrap();
    assert_eq!(info.reasons.len(), 2, "{info:?}");
    assert_eq!(info.from, source.address().to_string());
    assert!(!site.path("copy").exists());

    let slow = CloneJob { rate_bytes_per_s: Some(1), ..job(&site, "slow", &[&source]) };
    clones.start(slow).unwrap();
    while !site.path("slow.partial").exists() {
        std::thread::yield_now();
    }
    assert_eq!(clones.delete("slow").unwrap_err().code, "running");
    assert_eq!(clones.cancel("slow").unwrap().state, "cancelled");
    assert!(!site.path("slow.partial").exists() && !site.path("slow").exists());
    assert_eq!(clones.cancel("slow").unwrap_err().code, "over");
    clones.delete("slow").unwrap();
}

#[test]
fn a_standby_is_promoted_and_what_was_replaced_comes_back() {
    let site = Site::new();
    let (source, target) = (site.node("source"), site.node("target"));
    fill(&source, 100);
    let clones = target.clones();
    let standby =
        CloneJob { purpose: planaria_engine::ClonePurpose::Standby, ..job(&site, "copy", &[&source]) };
    clones.start(standby).unwrap();
    assert_eq!(over(clones, "copy").state, "complete");
    clones.promote("copy").unwrap();
    assert_eq!(clones.promote("copy").unwrap_err().code, "invalid");
    let own = |rows: u64| {
        let db = Database::open(site.path("copy")).unwrap();
        assert_eq!(db.snapshot().digests().unwrap()[0].digest.count, rows);
        assert_ne!(db.id(), source.database().id());
        db
    };
    let mut batch = planaria_engine::Batch::new();
    let db = own(100);
    batch.put(db.table("t").unwrap().id(), b"own", b"row");
    db.write(batch, Durability::Synced).unwrap();
    db.close();
    drop(db);

    let again = CloneJob { replace: true, ..job(&site, "copy", &[&source]) };
    clones.start(again).unwrap();
    let info = over(clones, "copy");
    assert_eq!((info.state.as_str(), info.keeps_old), ("complete", true), "{info:?}");
    drop(own(100));
    clones.roll_back("copy").unwrap();
    drop(own(101));
    clones.roll_back("copy").unwrap();
    drop(own(100));
    clones.delete_old("copy").unwrap();
    assert_eq!(clones.delete_old("copy").unwrap_err().code, "not_found");
    assert_eq!(clones.roll_back("copy").unwrap_err().code, "not_found");
}

#[test]
fn a_clone_that_nobody_wrote_to_is_replaced_by_moving_what_changed() {
    let site = Site::new();
    let (source, target) = (site.node("source"), site.node("target"));
    fill(&source, 20_000);
    let clones = target.clones();
    clones.start(job(&site, "copy", &[&source])).unwrap();
    let whole = over(clones, "copy");
    assert_eq!(whole.state, "complete", "{whole:?}");
    let db = source.database();
    let table = db.table("t").unwrap();
    for row in (0_u64..20_000).step_by(100) {
        let mut batch = planaria_engine::Batch::new();
        batch.put(table.id(), row.to_be_bytes(), "changed");
        db.write(batch, Durability::Background).unwrap();
    }
    let keep = |replace| CloneJob { replace, ..job(&site, "copy", &[&source]) };
    clones.start(keep(true)).unwrap();
    let info = over(clones, "copy");
    assert_eq!(info.state, "complete", "{info:?}");
    assert!(info.way.starts_with("incremental"), "{info:?}");
    assert!(info.done_bytes * 20 < whole.done_bytes, "{} of {}", info.done_bytes, whole.done_bytes);
    let same = || {
        let copy = Database::open(site.path("copy")).unwrap();
        assert_eq!(digests(&copy), digests(&db));
        assert_ne!(copy.id(), db.id());
    };
    same();
    // The source preserves nothing for it any more.
    assert_eq!(db.registrations().unwrap(), []);

    // Now it is written to: everything is compared, and the files that are the same are linked.
    let copy = Database::open(site.path("copy")).unwrap();
    let own = copy.create_raw_table("own").unwrap();
    let mut batch = planaria_engine::Batch::new();
    batch.put(own.id(), "key", "row").put(copy.table("t").unwrap().id(), "surplus", "row");
    copy.write(batch, Durability::Synced).unwrap();
    copy.close();
    drop((own, copy));
    clones.start(CloneJob { preserve: vec!["own".into()], ..keep(true) }).unwrap();
    let info = over(clones, "copy");
    assert!(info.state == "complete" && info.way.contains("written to"), "{info:?}");
    assert!(info.linked_bytes > 0, "{info:?}");
    let copy = Database::open(site.path("copy")).unwrap();
    assert_eq!(copy.table("own").unwrap().get("key").unwrap().as_deref(), Some(&b"row"[..]));
    assert_eq!(
        copy.snapshot().digest_of(copy.table("t").unwrap().definition()).unwrap(),
        db.snapshot().digest_of(table.definition()).unwrap()
    );
    let no_such = CloneJob { preserve: vec!["none".into()], ..keep(true) };
    drop(copy);
    clones.start(no_such).unwrap();
    let info = over(clones, "copy");
    assert_eq!(info.state, "failed", "{info:?}");
    assert!(!site.path("copy.next").exists() && site.path("copy").exists());
}

/// Has a clone come to the end of its life, and tells what was said of it.
fn expire(clones: &super::Clones, name: &str) -> Vec<String> {
    let info = clones.expire(name).unwrap();
    assert_eq!(info.state, "expired", "{info:?}");
    info.reasons
}

#[test]
fn a_clone_takes_nothing_with_it_that_is_not_its_own() {
    let site = Site::new();
    let (source, target) = (site.node("source"), site.node("target"));
    fill(&source, 100);
    let clones = target.clones();
    let rows = |dir: &str| {
        let db = Database::open_with(site.path(dir), Options { create: false, ..Options::default() }).ok()?;
        let rows = db.snapshot().digests().unwrap()[0].digest.count;
        db.close();
        Some(rows)
    };
    let write = || {
        let db = Database::open(site.path("copy")).unwrap();
        let mut batch = planaria_engine::Batch::new();
        batch.put(db.table("t").unwrap().id(), b"own", b"row");
        db.write(batch, Durability::Synced).unwrap();
        db.close();
    };
    // What was there before comes back, and outlives the clone that had replaced it.
    clones.start(job(&site, "copy", &[&source])).unwrap();
    assert_eq!(over(clones, "copy").state, "complete");
    write();
    let next = |name: &str| CloneJob {
        replace: true,
        name: name.into(),
        ttl_s: Some(3_600),
        ..job(&site, "copy", &[&source])
    };
    clones.start(next("copy")).unwrap();
    assert_eq!(over(clones, "copy").state, "complete");
    assert_eq!(rows("copy"), Some(100));
    clones.roll_back("copy").unwrap();
    let reasons = expire(clones, "copy");
    assert!(reasons.last().is_some_and(|why| why.contains("stays")), "{reasons:?}");
    assert_eq!(rows("copy"), Some(101));
    assert!(!site.path("copy.replaced").exists());

    // Another clone has come into its place, and stays.
    clones.start(next("first")).unwrap();
    assert_eq!(over(clones, "first").state, "complete");
    clones.start(next("second")).unwrap();
    assert_eq!(over(clones, "second").state, "complete");
    expire(clones, "first");
    assert_eq!(rows("copy"), Some(100));
    clones.delete("first").unwrap();
    assert_eq!(rows("copy"), Some(100));
    clones.delete("second").unwrap();
    assert_eq!(rows("copy"), None);
}

#[test]
fn a_clone_that_waits_for_its_turn_is_cancelled_at_once() {
    let site = Site::new();
    let (source, target) = (site.node("source"), site.node("target"));
    fill(&source, 100);
    let clones = target.clones();
    let slow = |name: &str| CloneJob { rate_bytes_per_s: Some(1), ..job(&site, name, &[&source]) };
    for running in ["a", "b", "c", "d"] {
        clones.start(slow(running)).unwrap();
        while clones.info(running).unwrap().state != "running" {
            std::thread::yield_now();
        }
    }
    clones.start(slow("waits")).unwrap();
    assert_eq!(clones.info("waits").unwrap().state, "queued");
    assert_eq!(clones.cancel("waits").unwrap().state, "cancelled");
}

#[test]
fn names_of_what_belongs_to_others_are_refused() {
    let site = Site::new();
    let (source, target) = (site.node("source"), site.node("target"));
    let clones = target.clones();
    for name in [
        "x.partial",
        "x.next",
        "x.replaced",
        "x.renewing",
        "x.dropped",
        "x.shaped",
        "x.lock",
        ".x",
        "a/b",
        "",
    ] {
        assert_eq!(clones.start(job(&site, name, &[&source])).unwrap_err().code, "usage", "{name:?}");
    }
    let own = CloneJob { dir: site.path("target"), replace: true, ..job(&site, "own", &[&source]) };
    assert_eq!(clones.start(own).unwrap_err().code, "usage");
}

#[test]
fn whoever_asks_for_other_clones_does_not_wait_for_the_disk() {
    let site = Site::new();
    let os = FaultOs::new(Arc::new(Posix));
    let (source, target) = (site.node("source"), site.node_on("target", Arc::new(os.clone())));
    fill(&source, 100);
    let clones = target.clones();
    let standby =
        CloneJob { purpose: planaria_engine::ClonePurpose::Standby, ..job(&site, "copy", &[&source]) };
    let again = CloneJob { replace: true, ..job(&site, "copy", &[&source]) };
    clones.start(standby).unwrap();
    assert_eq!(over(clones, "copy").state, "complete");
    // Its first lock is taken when work on the files begins, by the thread that works on them.
    let asks_meanwhile = |doing: &'static str| {
        let asking = Arc::clone(clones);
        let (asked, was_asked) = std::sync::mpsc::sync_channel(1);
        os.run_before(Call::Lock, 1, move || {
            let state = asking.shared.state.try_lock_for(Duration::from_mins(1));
            let state = state.expect("the lock of all clones is held while one is worked on");
            assert_eq!(state.clones["copy"].busy, Some(doing));
            drop(state);
            assert_eq!(asking.list().len(), 1);
            for refused in [asking.delete("copy"), asking.promote("copy"), asking.expire("copy")] {
                assert_eq!(refused.unwrap_err().code, "busy");
            }
            asked.send(()).unwrap();
        });
        was_asked
    };
    let asked = asks_meanwhile("promoted");
    clones.promote("copy").unwrap();
    asked.try_recv().unwrap();
    clones.start(again).unwrap();
    assert_eq!(over(clones, "copy").state, "complete");
    let asked = asks_meanwhile("rolled back");
    clones.roll_back("copy").unwrap();
    asked.try_recv().unwrap();
    let asked = asks_meanwhile("removed");
    clones.expire("copy").unwrap();
    asked.try_recv().unwrap();
    clones.delete("copy").unwrap();
    assert_eq!(clones.list(), []);
}

#[test]
fn a_clone_is_left_alone_where_somebody_else_is_at_work() {
    let site = Site::new();
    let (source, target) = (site.node("source"), site.node("target"));
    fill(&source, 100);
    let clones = target.clones();
    let other = ClonePlace::new(site.path("copy"), Arc::new(Posix)).claim().unwrap();
    let partial = site.path("copy.partial");
    std::fs::create_dir(&partial).unwrap();
    clones.start(job(&site, "copy", &[&source])).unwrap();
    let info = over(clones, "copy");
    assert_eq!(info.state, "failed", "{info:?}");
    assert!(info.reasons[0].contains("at work"), "{info:?}");
    assert!(partial.exists(), "what the other one has received is gone");
    drop(other);
    clones.start(job(&site, "copy", &[&source])).unwrap();
    assert_eq!(over(clones, "copy").state, "complete");
    assert!(!site.path("copy.lock").exists());
}

#[test]
fn a_clone_that_cannot_take_the_place_of_another_is_kept_and_named() {
    let site = Site::new();
    let os = FaultOs::new(Arc::new(Posix));
    let (source, target) = (site.node("source"), site.node_on("target", Arc::new(os.clone())));
    fill(&source, 100);
    let clones = target.clones();
    clones.start(job(&site, "copy", &[&source])).unwrap();
    assert_eq!(over(clones, "copy").state, "complete");
    let written = Database::open(site.path("copy")).unwrap();
    let mut batch = planaria_engine::Batch::new();
    batch.put(written.table("t").unwrap().id(), b"own", b"row");
    written.write(batch, Durability::Synced).unwrap();
    written.close();
    drop(written);
    let error = std::io::ErrorKind::Unsupported;
    os.inject(Fault { call: Call::Exchange, at: 1, error, forever: false });
    let next = site.path("copy.next");
    let again = CloneJob { replace: true, ..job(&site, "copy", &[&source]) };
    clones.start(again).unwrap();
    let info = over(clones, "copy");
    assert_eq!(info.state, "failed", "{info:?}");
    let why = info.reasons.last().unwrap();
    assert!(why.contains(next.to_str().unwrap()), "{why}");
    let whole = Database::open(&next).unwrap();
    assert_eq!(digests(&whole), digests(&source.database()));
    whole.close();
    drop(whole);
    clones.delete("copy").unwrap();
    assert!(!next.exists() && site.path("copy").exists());
}

#[test]
fn of_many_clones_those_are_forgotten_that_ended_first() {
    let site = Site::new();
    let (source, target) = (site.node("source"), site.node("target"));
    let clones = target.clones();
    let slow = |name: &str| CloneJob { rate_bytes_per_s: Some(1), ..job(&site, name, &[&source]) };
    fill(&source, 100);
    clones.start(slow("runs")).unwrap();
    {
        let mut state = clones.shared.state.lock();
        for number in 1..CLONES_MAX as u64 {
            let name = format!("old-{number}");
            let entry = Entry {
                job: job(&site, &name, &[&source]),
                state: if number == 1 { CloneState::Complete } else { CloneState::Expired },
                created_ms: number,
                ..Entry::default()
            };
            state.clones.insert(name, Known::new(entry));
        }
    }
    // Of the oldest there is something, though nobody knows by whom it was made.
    std::fs::create_dir(site.path("old-1")).unwrap();
    std::fs::write(site.path("old-1").join("MANIFEST"), "").unwrap();
    clones.start(slow("new")).unwrap();
    assert_eq!(clones.info("old-2").unwrap_err().code, "unknown_clone");
    for kept in ["old-1", "old-3", "runs", "new"] {
        clones.info(kept).unwrap();
    }
    assert_eq!(clones.shared.state.lock().clones.len(), CLONES_MAX);
    // Where all of them come in or are needed, none is forgotten.
    for known in clones.shared.state.lock().clones.values_mut() {
        known.busy = Some("looked at");
    }
    assert_eq!(clones.start(slow("more")).unwrap_err().code, "too_many");
    for known in clones.shared.state.lock().clones.values_mut() {
        known.busy = None;
    }
}
