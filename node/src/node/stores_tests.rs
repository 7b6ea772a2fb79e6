use std::path::PathBuf;

use planaria_backup::{Access, Catalog, Pinned, Wish, create};
use planaria_engine::{ClonePlace, Database};
use planaria_net::wire::message::CloneRole as WireRole;
use planaria_net::wire::stores::RestoreOrder;
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
        let table = db.create_raw_table("t").unwrap();
        table.put("key", "row").unwrap();
        // It does not compress.
        let long: Vec<u8> =
            (1..=12_500_u64).flat_map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
        table.put("long", long).unwrap();
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
    while !stores.reports().is_empty() {
        std::thread::yield_now();
    }
    assert!(!bench.target().exists());
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

#[test]
fn what_came_in_of_a_clone_that_failed_goes_when_it_is_not_tried_again() {
    let bench = Bench::new();
    // The first byte of each object that holds rows is another one.
    let objects = bench.dir.path().join("store").join("objects");
    let mut folders = vec![objects];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::metadata(&path).unwrap().len() > 50_000 {
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[0] ^= 1;
                std::fs::write(&path, bytes).unwrap();
            }
        }
    }
    let stores = bench.start();
    let failed = bench.restore(&stores);
    assert_eq!(failed.code, "object_damaged", "{failed:?}");
    let partial = bench.dir.path().join("copy.partial");
    assert!(partial.exists());
    // It may be tried from elsewhere, which the control center says.
    assert!(!stores.told(&[failed]));
    stores.take(&[]);
    assert!(partial.exists());
    assert_eq!(stores.reports().iter().map(|left| left.job).collect::<Vec<_>>(), [7]);
    stores.take(&[Order::CancelClone { job: 7 }]);
    while !stores.reports().is_empty() {
        std::thread::yield_now();
    }
    assert!(!partial.exists());
}
