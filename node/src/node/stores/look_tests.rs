use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use planaria_backup::Brief;
use planaria_engine::Options;
use planaria_replication::control::InstanceRole;
use planaria_types::Uid;

use super::super::{Home, Stores};
use super::*;

/// Often, and with little patience.
const QUICK: Rhythm = Rhythm { every: Duration::from_millis(1), within: Duration::from_millis(1) };

/// The stores of a node: one that works, and one on a disk that hangs until somebody lets go of it.
struct Bench {
    dir: tempfile::TempDir,
    stores: Stores,
    let_go: SyncSender<()>,
    /// Looks at the one that hangs which have begun.
    begun: Arc<AtomicUsize>,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::Spare { dir: dir.path().join("db"), role: InstanceRole::Standby };
        let place = Place::Directory(dir.path().join("works"));
        let stores = Stores::start_with(&[place], home, &Options::default(), QUICK).unwrap();
        let (let_go, wait) = sync_channel::<()>(0);
        let wait: Arc<Mutex<Receiver<()>>> = Arc::new(Mutex::new(wait));
        let begun = Arc::new(AtomicUsize::new(0));
        let (sights, count) = (Arc::clone(&stores.shared.sights), Arc::clone(&begun));
        let look = move || {
            let wait = Arc::clone(&wait);
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                let hung = tokio::task::spawn_blocking(move || wait.lock().recv().is_ok()).await;
                hung.map(|_| StoreReport::default()).map_err(|error| trouble("internal", error.to_string()))
            }
        };
        let watching = async move { sights.look_on("hangs", QUICK, look).await };
        stores.runtime.as_ref().unwrap().spawn(watching);
        Self { dir, stores, let_go, begun }
    }

    /// Waits until a store is seen as having this in the way.
    fn wait_for(&self, place: &str, code: &str) {
        let is_so = |report: &StoreReport| report.place == place && report.code == code;
        while !self.stores.seen().iter().any(is_so) {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_store_that_hangs_is_told_of_holds_up_no_other_and_does_not_keep_the_node_from_stopping() {
    let bench = Bench::new();
    bench.wait_for("hangs", TIMED_OUT);
    assert_eq!(bench.stores.shared.sights.answers("hangs").unwrap_err().0, TIMED_OUT);
    bench.wait_for(&bench.dir.path().join("works").display().to_string(), "");
    let (ended, end) = sync_channel(1);
    let Bench { stores, let_go, dir: _dir, begun } = bench;
    std::thread::spawn(move || {
        drop(stores);
        ended.send(()).unwrap();
    });
    end.recv_timeout(Duration::from_mins(1)).expect("the node stops");
    assert_eq!(begun.load(Ordering::SeqCst), 1, "it is looked at once at a time");
    drop(let_go);
}

#[test]
fn a_look_that_was_late_is_the_one_that_tells_in_the_end() {
    let bench = Bench::new();
    bench.wait_for("hangs", TIMED_OUT);
    assert_eq!(bench.begun.load(Ordering::SeqCst), 1);
    bench.let_go.send(()).unwrap();
    bench.stores.shared.sights.look_again();
    while bench.begun.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
}

#[test]
fn of_more_databases_than_there_is_room_for_those_backed_up_last_are_told_of_and_the_others_counted() {
    let brief = |database: u128, taken_ms: u64, uid: u64| Brief {
        name: format!("{database}-{taken_ms}"),
        database: DatabaseId(database),
        position: planaria_types::Position { uid: Uid::new(uid), ..planaria_types::Position::default() },
        taken_ms,
        bytes: 1,
        instance: planaria_types::InstanceId(1),
        reach: Uid::new(uid + 1),
    };
    let backups = [brief(1, 10, 1), brief(2, 20, 2), brief(3, 30, 3), brief(1, 40, 4)];
    let told = |databases_max| {
        let told = told_of(&backups, databases_max, 100);
        (
            told.backups.into_iter().map(|backup| (backup.name, backup.count)).collect::<Vec<_>>(),
            told.left_out,
        )
    };
    let all = [("1-40".to_owned(), 2), ("3-30".to_owned(), 1), ("2-20".to_owned(), 1)];
    assert_eq!(told(3), (all.to_vec(), 0));
    assert_eq!(told(2), (all[..2].to_vec(), 1));
    // Of those that are told of the newest backups, of each in turns.
    let kept = |databases_max, kept_max| {
        let kept = told_of(&backups, databases_max, kept_max).kept;
        kept.into_iter().map(|backup| (backup.name, backup.reach.get())).collect::<Vec<_>>()
    };
    let named = |name: &str, reach: u64| (name.to_owned(), reach);
    let all = [named("1-40", 5), named("3-30", 4), named("2-20", 3), named("1-10", 2)];
    assert_eq!(kept(3, 100), all);
    assert_eq!(kept(3, 2), all[..2]);
    assert_eq!(kept(1, 100), [named("1-40", 5), named("1-10", 2)]);
    let many: Vec<Brief> = (1..200).map(|uid| brief(1, uid, uid)).collect();
    assert_eq!(told_of(&many, 1, 1_000).kept.len(), KEPT_MAX);
}
