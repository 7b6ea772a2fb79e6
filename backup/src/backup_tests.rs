//! Backups of real databases in real directories.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use planaria_engine::os::{Os, Posix};
use planaria_engine::{Batch, CloneRole, Database, Durability, FileKind, FileList, LogSegment, Options};
use planaria_types::{KeyRange, Uid};
use tempfile::TempDir;

use crate::manifest::{BACKUPS, Backup};
use crate::object::OBJECTS;
use crate::{
    AsOf, Catalog, Created, Error, Kept, Pinned, Place, Progress, Restored, Result, Source, Store, Verified,
    Wish, create, delete, plan, prune, restore, verify,
};

/// A database, a store, and room for what is restored.
struct Bench {
    dir: TempDir,
    db: Database,
    store: Store,
    runtime: tokio::runtime::Runtime,
}

fn options() -> Options {
    Options {
        log_segment_bytes: 64 << 10,
        log_tail_bytes: 4 << 20,
        log_bytes_max: 8 << 20,
        run_file_bytes: 1 << 20,
        background: false,
        ..Options::default()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn never() -> AtomicBool {
    AtomicBool::new(false)
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = Database::open_with(dir.path().join("db"), options()).unwrap();
        db.create_raw_table("t").unwrap();
        let place: Place = dir.path().join("store").display().to_string().parse().unwrap();
        let store = place.open(&crate::Access::default(), true).unwrap();
        Self { dir, db, store, runtime: runtime() }
    }

    /// Writes rows `from..to`, one commit each; the last commit.
    fn write(&self, from: u32, to: u32) -> Uid {
        let table = self.db.table("t").unwrap().id();
        let mut last = Uid::ZERO;
        for number in from..to {
            let mut batch = Batch::new();
            // Bytes that no compression makes small.
            let mut state = u64::from(number);
            let mut next = || {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 56) as u8
            };
            let row: Vec<u8> = (0..2_000).map(|_| next()).collect();
            batch.put(table, number.to_be_bytes(), row);
            last = self.db.write(batch, Durability::Background).unwrap();
        }
        last
    }

    fn catalog(&self) -> Catalog {
        self.runtime.block_on(Catalog::load(&self.store)).unwrap()
    }

    fn pin(&self, catalog: &Catalog) -> Pinned {
        let since = catalog.newest_of(self.db.instance()).map(|backup| backup.position.uid);
        Pinned::new(self.db.pin_archive(since).unwrap())
    }

    fn wish(name: &str) -> Wish {
        Wish {
            name: Some(name.to_owned()),
            id: u128::from(Posix.random_u64()),
            taken_ms: Posix.now_millis(),
            software: "test".into(),
        }
    }

    fn back_up(&self, name: &str) -> Created {
        let catalog = self.catalog();
        let source = self.pin(&catalog);
        self.create(&catalog, &source, name).unwrap()
    }

    fn create(&self, catalog: &Catalog, source: &impl Source, name: &str) -> Result<Created> {
        let wish = Self::wish(name);
        self.runtime.block_on(create(&self.store, catalog, source, &wish, &never(), |_| {}))
    }

    fn restore(&self, name: Option<&str>, as_of: AsOf, to: &str) -> Result<Restored> {
        self.restore_watched(name, as_of, to, &never(), |_| {})
    }

    fn restore_watched(
        &self,
        name: Option<&str>,
        as_of: AsOf,
        to: &str,
        cancelled: &AtomicBool,
        progress: impl Fn(&Progress),
    ) -> Result<Restored> {
        let catalog = self.catalog();
        let backups = catalog.of_one_database(&self.store, name)?;
        let plan = plan(&backups, name, as_of)?;
        let (target, options) = (self.dir.path().join(to), options());
        let role = CloneRole::Detached;
        self.runtime.block_on(restore(&self.store, &plan, &target, role, &options, cancelled, progress))
    }

    /// The rows of a restored database, which must be sound and another one.
    fn rows(&self, dir: &str) -> usize {
        let db = Database::open_with(self.dir.path().join(dir), options()).unwrap();
        db.verify().unwrap();
        assert_ne!((db.instance(), db.id()), (self.db.instance(), self.db.id()));
        let rows = db.snapshot().scan(db.table("t").unwrap().id(), KeyRange::ALL);
        rows.collect::<planaria_engine::Result<Vec<_>>>().unwrap().len()
    }

    fn verify(&self) -> Verified {
        let catalog = self.catalog();
        let chosen: Vec<&Backup> = catalog.backups.iter().collect();
        self.runtime.block_on(verify(&self.store, &catalog, &chosen, &never(), |_| {})).unwrap()
    }

    fn prune(&self, last: Option<u64>, grace_ms: Option<u64>) -> crate::Pruned {
        let kept = Kept { last, within_ms: None, ..Kept::default() };
        self.runtime.block_on(prune(&self.store, &kept, grace_ms, false)).unwrap()
    }

    /// The files of the store below a folder, with their contents.
    fn objects(&self, folder: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        collect(&self.dir.path().join("store").join(folder), &mut found);
        found
    }
}

fn collect(dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            collect(&entry.path(), found);
        } else {
            found.insert(entry.path(), std::fs::read(entry.path()).unwrap());
        }
    }
}

#[test]
fn every_commit_between_backups_can_be_restored() {
    let bench = Bench::new();
    bench.write(0, 200);
    let first = bench.back_up("first");
    let middle = bench.write(200, 300);
    bench.write(300, 320);
    let second = bench.back_up("second");
    bench.db.compact().unwrap();
    let late = bench.write(320, 330);
    bench.write(330, 340);
    bench.back_up("third");
    let whole = first.backup.bytes;
    assert!(second.backup.sent_bytes < whole, "{} of {whole} were sent", second.backup.sent_bytes);

    for (name, rows) in [(Some("first"), 200), (Some("second"), 320), (None, 340)] {
        let to = format!("at-{rows}");
        bench.restore(name, AsOf::Backup, &to).unwrap();
        assert_eq!(bench.rows(&to), rows);
    }
    assert_eq!(bench.restore(None, AsOf::Commit(middle), "middle").unwrap().position.uid, middle);
    assert_eq!(bench.rows("middle"), 300);
    bench.restore(None, AsOf::Commit(late), "late").unwrap();
    assert_eq!(bench.rows("late"), 330);
    let outside = bench.restore(None, AsOf::Commit(Uid::from_millis(5)), "outside").unwrap_err();
    let first_uid = first.backup.position.uid;
    assert!(matches!(outside, Error::OutsideKept { below: None, above: Some(uid), .. } if uid == first_uid));
    assert!(!bench.dir.path().join("outside.partial").exists());
    assert!(bench.verify().findings.is_empty());
}

#[test]
fn what_is_there_is_not_sent_again() {
    let bench = Bench::new();
    bench.write(0, 500);
    let first = bench.back_up("first");
    assert!(first.backup.sent_bytes >= first.backup.bytes);
    let again = bench.back_up("again");
    // A list of files, and at most a segment that was begun meanwhile.
    assert!(again.sent_objects <= 2 && again.backup.sent_bytes < 100_000, "{again:?}");
    let taken = bench.create(&bench.catalog(), &bench.pin(&bench.catalog()), "again").unwrap_err();
    assert_eq!(taken.code(), "backup_exists");
    // Also where the other one came between.
    let before = Catalog::default();
    let source = Pinned::new(bench.db.pin_files().unwrap());
    assert_eq!(bench.create(&before, &source, "again").unwrap_err().code(), "backup_exists");
}

#[test]
fn a_backup_that_breaks_off_goes_on_where_it_was() {
    let bench = Bench::new();
    bench.write(0, 3_000);
    let source = Pinned::new(bench.db.pin_files().unwrap());
    let cancelled = AtomicBool::new(true);
    let wish = Bench::wish("first");
    let nothing = Catalog::default();
    let broken_off = create(&bench.store, &nothing, &source, &wish, &cancelled, |_| {});
    // On threads of its own: they end before what they brought is counted, and with them what was on its way.
    let ends = runtime();
    assert_eq!(ends.block_on(broken_off).unwrap_err().code(), "cancelled");
    drop(ends);
    let sent = bench.objects(OBJECTS).len() as u64;
    assert!(sent > 0 && bench.catalog().backups.is_empty());
    let created = bench.create(&Catalog::default(), &source, "first").unwrap();
    assert_eq!(created.sent_objects, created.objects - sent);
    bench.restore(None, AsOf::Backup, "copy").unwrap();
    assert_eq!(bench.rows("copy"), 3_000);
}

#[test]
fn a_restore_that_breaks_off_is_resumed_or_leaves_nothing() {
    let bench = Bench::new();
    bench.write(0, 12_000);
    bench.back_up("first");
    let cancelled = AtomicBool::new(true);
    let given_up = bench.restore_watched(None, AsOf::Backup, "copy", &cancelled, |_| {}).unwrap_err();
    assert_eq!(given_up.code(), "cancelled");
    assert!(!bench.dir.path().join("copy").exists() && !bench.dir.path().join("copy.partial").exists());
    // A damaged object ends a restore half way; what it brought stays for the next attempt.
    let damaged = bench.objects(OBJECTS).into_iter().max_by_key(|(_, bytes)| bytes.len()).unwrap();
    let mut flipped = damaged.1.clone();
    flipped[1_000] ^= 0x20;
    std::fs::write(&damaged.0, &flipped).unwrap();
    let refused = bench.restore(None, AsOf::Backup, "copy").unwrap_err();
    let name = damaged.0.file_name().unwrap().to_str().unwrap();
    assert!(matches!(&refused, Error::Damaged { object, .. } if object.ends_with(name)), "{refused}");
    assert!(
        Database::open_with(bench.dir.path().join("copy.partial"), Options { create: false, ..options() })
            .is_err()
    );
    std::fs::write(&damaged.0, &damaged.1).unwrap();
    let restored = bench.restore(None, AsOf::Backup, "copy").unwrap();
    assert_eq!(bench.rows("copy"), 12_000);
    assert!(!bench.dir.path().join("copy.partial").exists());
    assert!(restored.resumed_bytes <= restored.bytes);
    assert_eq!(bench.restore(None, AsOf::Backup, "copy").unwrap_err().code(), "exists");
}

#[test]
fn verification_names_every_object_that_is_damaged_or_missing() {
    let bench = Bench::new();
    bench.write(0, 300);
    bench.back_up("first");
    bench.write(300, 330);
    bench.back_up("second");
    assert!(bench.verify().findings.is_empty());
    for (number, (path, bytes)) in bench.objects(OBJECTS).into_iter().enumerate() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let mut flipped = bytes.clone();
        let at = flipped.len() * (number % 7) / 7;
        flipped[at] ^= 1 << (number % 8);
        std::fs::write(&path, &flipped).unwrap();
        let findings = bench.verify().findings;
        assert!(findings.iter().any(|found| found.object.ends_with(&name)), "{name} at {at}");
        assert_eq!(findings[0].problem.code(), "object_damaged");
        std::fs::remove_file(&path).unwrap();
        let findings = bench.verify().findings;
        let found = findings.iter().find(|found| found.object.ends_with(&name)).unwrap();
        assert_eq!(found.problem.code(), "object_missing");
        assert!(!found.backups.is_empty());
        std::fs::write(&path, &bytes).unwrap();
    }
    for (path, bytes) in bench.objects(BACKUPS) {
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 4;
            assert!(Backup::decode("it", &flipped).is_err(), "byte {at} of {}", path.display());
        }
    }
}

#[test]
fn pruning_removes_what_nobody_needs_and_nothing_else() {
    let bench = Bench::new();
    bench.write(0, 300);
    bench.back_up("first");
    bench.write(300, 330);
    bench.db.compact().unwrap();
    bench.back_up("second");
    bench.write(330, 350);
    bench.back_up("third");
    let before = bench.objects(OBJECTS).len();
    // Within the grace period nothing goes but the names.
    let pruned = bench.prune(Some(2), None);
    assert_eq!((pruned.backups, pruned.objects, pruned.kept), (vec!["first".to_owned()], 0, 2));
    assert_eq!(bench.objects(OBJECTS).len(), before);
    let pruned = bench.prune(None, Some(0));
    assert!(pruned.objects > 0 && pruned.backups.is_empty(), "{pruned:?}");
    assert_eq!(bench.objects(OBJECTS).len(), before - pruned.objects as usize);
    assert!(bench.verify().findings.is_empty());
    bench.restore(Some("second"), AsOf::Backup, "second").unwrap();
    assert_eq!(bench.rows("second"), 330);
    // The rest goes with the last backups.
    for name in ["second", "third"] {
        let catalog = bench.catalog();
        bench.runtime.block_on(delete(&bench.store, catalog.find(name).unwrap())).unwrap();
        assert_eq!(bench.catalog().find(name).unwrap_err().code(), "unknown_backup");
    }
    bench.prune(None, Some(0));
    assert!(bench.objects(OBJECTS).is_empty() && bench.objects("removed").is_empty());
}

#[test]
fn a_grace_period_in_which_backups_rely_on_what_would_go_is_refused() {
    let bench = Bench::new();
    bench.write(0, 10);
    bench.back_up("first");
    let before = bench.objects("").len();
    let kept = Kept { of: None, last: Some(0), within_ms: None };
    let prune = |grace_ms| bench.runtime.block_on(prune(&bench.store, &kept, Some(grace_ms), false));
    for short in [1, 3_600_000, crate::prune::YOUNG_MS - 1] {
        let refused = prune(short).unwrap_err();
        assert_eq!(refused.code(), "invalid");
        assert!(refused.to_string().contains("12 hours"), "{refused}");
    }
    assert_eq!(bench.objects("").len(), before);
    assert_eq!(prune(crate::prune::YOUNG_MS).unwrap().backups, ["first"]);
}

#[test]
fn a_manifest_that_cannot_be_read_ends_a_prune_before_anything_goes() {
    let bench = Bench::new();
    bench.write(0, 10);
    bench.back_up("first");
    bench.write(10, 20);
    bench.back_up("second");
    let before = bench.objects("");
    let path = bench.dir.path().join("store").join(Backup::path("first"));
    std::fs::write(&path, b"nonsense, and more of it than a header has").unwrap();
    let kept = Kept { last: Some(1), within_ms: None, ..Kept::default() };
    let refused = bench.runtime.block_on(prune(&bench.store, &kept, Some(0), false)).unwrap_err();
    assert_eq!(refused.code(), "object_damaged");
    let names = |of: &BTreeMap<PathBuf, Vec<u8>>| {
        of.keys().filter(|path| !path.ends_with("clock")).cloned().collect::<Vec<_>>()
    };
    assert_eq!(names(&bench.objects("")), names(&before));
    // The others are listed, and the damaged one is named.
    assert_eq!(bench.catalog().unreadable.len(), 1);
    assert_eq!(bench.catalog().find("first").unwrap_err().code(), "object_damaged");
}

/// A source during whose last read something else happens to the store.
struct Meanwhile<'a, F: Fn() + Sync> {
    inner: Pinned,
    then: &'a F,
}

impl<F: Fn() + Sync> Source for Meanwhile<'_, F> {
    fn list(&self) -> &FileList {
        self.inner.list()
    }

    fn log(&self) -> &[LogSegment] {
        self.inner.log()
    }

    async fn read(&self, kind: FileKind, number: u64, offset: u64, len: u64) -> Result<bytes::Bytes> {
        (self.then)();
        self.inner.read(kind, number, offset, len).await
    }
}

#[test]
fn a_prune_beside_a_backup_takes_nothing_from_it() {
    let bench = Bench::new();
    bench.write(0, 300);
    let first = bench.back_up("first");
    bench.write(300, 310);
    let catalog = bench.catalog();
    // The backup that the new one relies on is removed while that one is made.
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (runtime, store) = (std::sync::Mutex::new(other), bench.store.clone());
    let then = || {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = runtime.lock().unwrap();
                let kept = Kept { last: Some(0), within_ms: None, ..Kept::default() };
                runtime.block_on(prune(&store, &kept, None, false)).unwrap();
            });
        });
    };
    let source = Meanwhile { inner: bench.pin(&catalog), then: &then };
    bench.create(&catalog, &source, "second").unwrap();
    let left = bench.catalog();
    assert_eq!(left.backups.iter().map(|backup| backup.name.as_str()).collect::<Vec<_>>(), ["second"]);
    assert!(bench.verify().findings.is_empty());
    bench.restore(None, AsOf::Backup, "copy").unwrap();
    assert_eq!(bench.rows("copy"), 310);

    // Without a grace period it is noticed before there is a backup that lacks something.
    bench.write(310, 320);
    let catalog = bench.catalog();
    let then = || {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let runtime = runtime.lock().unwrap();
                let kept = Kept { last: Some(0), within_ms: None, ..Kept::default() };
                runtime.block_on(prune(&store, &kept, Some(0), false)).unwrap();
            });
        });
    };
    let source = Meanwhile { inner: bench.pin(&catalog), then: &then };
    assert_eq!(bench.create(&catalog, &source, "third").unwrap_err().code(), "objects_vanished");
    assert!(first.objects > 0 && bench.catalog().backups.is_empty());
}

#[test]
fn a_store_that_is_not_there_and_one_that_holds_several_databases_are_told() {
    let bench = Bench::new();
    bench.write(0, 3);
    let nowhere: Place = bench.dir.path().join("nowhere").display().to_string().parse().unwrap();
    assert_eq!(nowhere.open(&crate::Access::default(), false).unwrap_err().code(), "no_store");
    let database = bench.dir.path().join("a database");
    drop(Database::open(&database).unwrap());
    let within: Place = database.display().to_string().parse().unwrap();
    for create in [false, true] {
        let refused = within.open(&crate::Access::default(), create).unwrap_err();
        assert_eq!(refused.code(), "no_store", "{refused}");
    }
    let empty = bench.restore(None, AsOf::Backup, "x").unwrap_err();
    assert_eq!((empty.code(), empty.hint().is_some()), ("unknown_backup", true));
    bench.back_up("first");
    let other = Database::open_with(bench.dir.path().join("other"), options()).unwrap();
    other.create_raw_table("t").unwrap();
    let source = Pinned::new(other.pin_files().unwrap());
    bench.create(&bench.catalog(), &source, "of-another").unwrap();
    assert_eq!(bench.restore(None, AsOf::Backup, "x").unwrap_err().code(), "several_databases");
    bench.restore(Some("first"), AsOf::Backup, "x").unwrap();
    assert_eq!(bench.rows("x"), 3);
}

/// The manifest that lies in the repository: it is read, and what is written now is the same bytes. `PLANARIA_GOLDEN=write`
/// writes it anew, which is right as long as no release has written the old one.
#[test]
fn a_manifest_of_the_first_format_is_what_is_written_now() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join("manifest-1");
    let written = crate::manifest::sample();
    let bytes = written.encode().unwrap();
    if std::env::var("PLANARIA_GOLDEN").is_ok_and(|asked| asked == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &bytes).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert_eq!(Backup::decode("golden", &golden).unwrap(), written);
    assert_eq!(bytes, golden);
    let mut newer = bytes.clone();
    newer[8] = 2;
    assert_eq!(Backup::decode("newer", &newer).unwrap_err().code(), "foreign");
}

/// A toll that counts, and refuses from some byte on.
#[derive(Default)]
struct Counted {
    bytes: std::sync::atomic::AtomicU64,
    upto: u64,
}

impl crate::Toll for Counted {
    fn pay(&self, bytes: u64) -> std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> {
        let paid = self.bytes.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed) + bytes;
        Box::pin(async move { if paid > self.upto { Err(Error::Cancelled) } else { Ok(()) } })
    }

    fn given_up(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }
}

#[test]
fn whoever_has_a_toll_paid_counts_what_comes_and_goes_and_may_end_it() {
    let bench = Bench::new();
    bench.write(0, 3_000);
    let catalog = bench.catalog();
    let send = |upto: u64, name: &str| {
        let toll = Arc::new(Counted { upto, ..Counted::default() });
        let store = bench.store.clone().with_toll(Arc::clone(&toll) as Arc<dyn crate::Toll>);
        let wish = Wish { name: Some(name.into()), id: 7, taken_ms: 1, software: String::new() };
        let (source, never) = (bench.pin(&catalog), never());
        let created = create(&store, &catalog, &source, &wish, &never, |_| {});
        (bench.runtime.block_on(created), toll.bytes.load(std::sync::atomic::Ordering::Relaxed))
    };
    let (refused, _) = send(1_000, "early");
    assert_eq!(refused.unwrap_err().code(), "cancelled");
    assert!(bench.catalog().backups.is_empty());
    let (created, paid) = send(u64::MAX, "whole");
    assert!(paid >= created.unwrap().backup.sent_bytes);
}

/// A toll that ends what goes on as soon as it waits for the store.
struct Impatient;

impl crate::Toll for Impatient {
    fn pay(&self, _: u64) -> std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send + '_>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn given_up(&self) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }
}

#[test]
fn a_store_that_does_not_answer_is_waited_for_until_it_is_given_up() {
    let bench = Bench::new();
    // Whoever opens it to read waits for somebody who opens it to write.
    let manifest = bench.dir.path().join("store").join(BACKUPS).join("silent");
    std::fs::create_dir_all(manifest.parent().unwrap()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&manifest).status().unwrap();
    assert!(made.success());
    let store = bench.store.clone().with_toll(Arc::new(Impatient));
    let refused = bench.runtime.block_on(store.get("backups/silent", 100)).unwrap_err();
    assert_eq!(refused.code(), "cancelled");
    // The thread that waits there is let go.
    std::fs::File::options().read(true).write(true).open(&manifest).unwrap();
    bench.runtime.shutdown_background();
}

#[test]
fn whoever_looks_again_and_again_reads_what_is_new_and_forgets_what_is_gone() {
    let bench = Bench::new();
    let toll = Arc::new(Counted { upto: u64::MAX, ..Counted::default() });
    let store = bench.store.clone().with_toll(Arc::clone(&toll) as Arc<dyn crate::Toll>);
    let folder = bench.dir.path().join("store").join(BACKUPS);
    let mut index = crate::Index::default();
    // The names that it sees, and the bytes that it reads for it.
    let mut look = || {
        let before = toll.bytes.load(std::sync::atomic::Ordering::Relaxed);
        bench.runtime.block_on(index.refresh(&store)).unwrap();
        let names: Vec<String> = index.backups().iter().map(|backup| backup.name.clone()).collect();
        (names, toll.bytes.load(std::sync::atomic::Ordering::Relaxed) - before)
    };
    let bytes_of = |name: &str| std::fs::metadata(folder.join(name)).unwrap().len();
    let back_up = |name: &str| {
        bench.write(0, 10);
        bench.back_up(name);
        bytes_of(name)
    };
    let remove = |name: &str| {
        let catalog = bench.catalog();
        bench.runtime.block_on(delete(&bench.store, catalog.find(name).unwrap())).unwrap();
    };
    assert_eq!(look(), (vec![], 0));
    let both = back_up("first") + back_up("second");
    assert_eq!(look(), (vec!["first".into(), "second".into()], both));
    assert_eq!(look().1, 0, "nothing is new");
    std::fs::write(folder.join("damaged"), b"no manifest").unwrap();
    let third = back_up("third");
    assert_eq!(look(), (vec!["first".into(), "second".into(), "third".into()], third + 11));
    assert_eq!(look().1, 0, "what cannot be read is not read again");
    remove("first");
    assert_eq!(look(), (vec!["second".into(), "third".into()], 0));
    // A backup of the same name is another one.
    remove("second");
    let again = back_up("second");
    assert_eq!(look(), (vec!["third".into(), "second".into()], again));
}

#[test]
fn a_rule_about_one_database_leaves_those_of_others_alone() {
    let bench = Bench::new();
    for name in ["first", "second", "third"] {
        bench.write(0, 10);
        bench.back_up(name);
    }
    let own = bench.catalog().backups[0].database;
    let prune_of = |of| {
        let kept = Kept { of: Some(of), last: Some(1), within_ms: None };
        bench.runtime.block_on(prune(&bench.store, &kept, None, false)).unwrap().backups
    };
    assert!(prune_of(planaria_types::DatabaseId(own.0 ^ 1)).is_empty());
    assert_eq!(prune_of(own), ["second", "first"], "the newest first");
}
