use std::path::PathBuf;

use planaria_backup::{Access, Catalog, Pinned, Wish, create};
use planaria_engine::{ClonePlace, Database};
use planaria_net::wire::message::CloneRole as WireRole;
use planaria_types::DatabaseId;

use super::*;

/// A node that hosts nothing, and a store with a backup.
struct Bench {
    dir: tempfile::TempDir,
    database: DatabaseId,
    options: Options,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { background: false, ..Options::default() };
        let db = Database::open_with(dir.path().join("source"), options.clone()).unwrap();
        db.create_raw_table("t").unwrap().put("key", "row").unwrap();
        let store = Place::Directory(dir.path().join("store")).open(&Access::default(), true).unwrap();
        let wish = Wish { name: Some("it".into()), id: 7, taken_ms: 1, software: String::new() };
        let (source, never) = (Pinned::new(db.pin_archive(None).unwrap()), AtomicBool::new(false));
        let catalog = Catalog::default();
        let made = create(&store, &catalog, &source, &wish, &never, |_| {});
        tokio::runtime::Runtime::new().unwrap().block_on(made).unwrap();
        Self { database: db.id(), dir, options }
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("copy")
    }

    fn place(&self) -> Place {
        Place::Directory(self.dir.path().join("store"))
    }

    fn start(&self) -> Stores {
        let home = Home::Spare { dir: self.target(), role: InstanceRole::Standby };
        Stores::start(&[self.place()], home, &self.options).unwrap()
    }

    /// Has a clone be taken from the store; how that ended.
    fn restore(&self, stores: &Stores) -> Outcome {
        stores.take(&[Order::Restore(RestoreOrder {
            job: 7,
            database: self.database,
            backup: String::new(),
            as_of: planaria_net::wire::message::AsOf::Newest,
            name: "copy".into(),
            role: WireRole::Standby,
            place: self.place().to_string(),
            bytes_per_s: 1 << 30,
        })]);
        loop {
            if let Some(outcome) = stores.outcomes().pop() {
                return outcome;
            }
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_clone_that_is_given_up_after_it_was_whole_and_before_it_was_told_of_goes() {
    let bench = Bench::new();
    let stores = bench.start();
    assert_eq!(bench.restore(&stores).code, "");
    assert!(bench.target().exists());
    stores.take(&[Order::CancelClone { job: 7 }]);
    while bench.target().exists() {
        std::thread::yield_now();
    }
    assert!(stores.reports().is_empty());
}

#[test]
fn a_clone_that_was_told_of_stays() {
    let bench = Bench::new();
    let stores = bench.start();
    let outcome = bench.restore(&stores);
    assert!(stores.told(&[outcome]), "it is the copy that the node hosts");
    stores.take(&[Order::CancelClone { job: 7 }]);
    drop(stores);
    assert!(bench.target().exists());
}

#[test]
fn a_copy_that_was_written_to_is_not_taken_for_the_clone_that_is_asked_for() {
    let bench = Bench::new();
    assert_eq!(bench.restore(&bench.start()).code, "");
    let again = bench.restore(&bench.start());
    assert!(again.code.is_empty() && again.what.contains("already"), "as it was made: {again:?}");
    let place = ClonePlace::new(bench.target(), Arc::clone(&bench.options.os));
    place.promote(&bench.options).unwrap();
    let db = Database::open_with(bench.target(), bench.options.clone()).unwrap();
    db.table("t").unwrap().put("key", "another row").unwrap();
    drop(db);
    let stores = bench.start();
    assert_eq!(bench.restore(&stores).code, "exists");
    stores.take(&[Order::CancelClone { job: 7 }]);
    drop(stores);
    let db = Database::open_with(bench.target(), bench.options.clone()).unwrap();
    assert_eq!(db.table("t").unwrap().get("key").unwrap().as_deref(), Some(&b"another row"[..]));
}
