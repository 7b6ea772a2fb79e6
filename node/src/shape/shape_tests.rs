use planaria_engine::{Batch, Column, ColumnType, Durability};

use super::*;

fn people(dir: &Path) -> Database {
    let db = Database::open_with(dir, Options::default()).unwrap();
    let schema = Schema::builder()
        .column(Column::new("mail", ColumnType::Text))
        .column(Column::new("name", ColumnType::Text).nullable())
        .column(Column::new("age", ColumnType::Int64))
        .key(["mail"])
        .build()
        .unwrap();
    let table = db.create_table("people", schema).unwrap();
    for number in 0..500_i64 {
        let name = Value::Text(format!("Name {number}"));
        table
            .insert(&[Value::Text(format!("p{number:03}@example.org")), name, Value::Int(number % 90)])
            .unwrap();
    }
    let blobs = db.create_raw_table("blobs").unwrap();
    blobs.put("key", "row").unwrap();
    db
}

fn rows(db: &Database, table: &str) -> Vec<Vec<Value>> {
    db.table(table).unwrap().rows(&[]).unwrap().collect::<Result<_, _>>().unwrap()
}

fn masks(masks: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    masks.iter().map(|(table, column, mask)| ((*table).into(), (*column).into(), (*mask).into())).collect()
}

#[test]
fn what_is_given_away_holds_no_more_than_the_shape_says() {
    let dir = tempfile::tempdir().unwrap();
    let db = people(&dir.path().join("db"));
    let shape = Shape {
        leave_out: vec!["blobs".into()],
        filters: vec![("people".into(), "age >= 18 and age < 30".into())],
        masks: masks(&[("people", "mail", "hash"), ("people", "name", "keep-format")]),
        ..Shape::default()
    };
    let target = dir.path().join("copy");
    let (cut, bytes) = clone_shaped(&db, &target, &shape).unwrap();
    assert!(cut == db.visible() && bytes > 0);
    assert!(!shaping_dir(&target).exists());
    let copy = Database::open_with(&target, Options { create: false, ..Options::default() }).unwrap();
    copy.verify().unwrap();
    assert!(copy.table("blobs").is_err());
    let (given, all) = (rows(&copy, "people"), rows(&db, "people"));
    assert_eq!(given.len(), all.iter().filter(|row| (18..30).contains(&age(row))).count());
    for row in &given {
        let [Value::Text(mail), Value::Text(name), Value::Int(_)] = &row[..] else { panic!("{row:?}") };
        assert!(mail.len() == 32 && mail.bytes().all(|letter| letter.is_ascii_hexdigit()), "{mail}");
        assert!(all.iter().all(|original| original[1] != row[1]) || name.len() < 8, "{name}");
    }
    // Nothing of what was masked is anywhere in its files.
    let plain = walk(&target)
        .iter()
        .any(|file| std::fs::read(file).unwrap().windows(12).any(|bytes| bytes == b"@example.org"));
    assert!(!plain, "an address was given away");
    assert_ne!(copy.id(), db.id());
}

fn age(row: &[Value]) -> i64 {
    match row[2] {
        Value::Int(age) => age,
        _ => panic!("{row:?}"),
    }
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[test]
fn an_older_state_is_given_away_while_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let db = people(&dir.path().join("db"));
    let before = db.visible();
    let (table, mut batch) = (db.table("people").unwrap(), Batch::new());
    for row in rows(&db, "people") {
        batch.delete(table.id(), table.encode(&row).unwrap().0);
    }
    db.write(batch, Durability::Synced).unwrap();
    let shape = Shape { as_of: AsOf::Position(before), ..Shape::default() };
    let target = dir.path().join("then");
    // Before there was anything, and before it was.
    for time in [1_000, u64::MAX >> 20] {
        let shape = Shape { as_of: AsOf::Time(time), ..Shape::default() };
        assert_eq!(clone_shaped(&db, &target, &shape).unwrap_err().code, "invalid_shape", "{time}");
    }
    assert_eq!(clone_shaped(&db, &target, &shape).unwrap().0, before);
    let copy = Database::open_with(&target, Options::default()).unwrap();
    // What it is from is the database that it shows a part of, not the one that was made on the way.
    let lineage = copy.lineage().unwrap();
    assert_eq!((lineage.database, lineage.instance), (db.id(), db.instance()));
    assert_eq!(lineage.position, db.history().position_of(before));
    assert_eq!((rows(&copy, "people").len(), rows(&db, "people").len()), (500, 0));
    drop(copy);
    std::fs::remove_dir_all(&target).unwrap();
    db.compact().unwrap();
    let error = clone_shaped(&db, &target, &shape).unwrap_err();
    assert_eq!(error.code, "snapshot_too_old");
    assert!(!target.exists() && !shaping_dir(&target).exists());
    let later = Shape { as_of: AsOf::Position(Uid::MAX), ..Shape::default() };
    assert_eq!(clone_shaped(&db, &target, &later).unwrap_err().code, "invalid");
}

#[test]
fn a_shape_that_cannot_be_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let db = people(&dir.path().join("db"));
    let filter =
        |table: &str, text: &str| Shape { filters: vec![(table.into(), text.into())], ..Shape::default() };
    let mask = |given: &[(&str, &str, &str)]| Shape { masks: masks(given), ..Shape::default() };
    for shape in [
        Shape { leave_out: vec!["nobody".into()], ..Shape::default() },
        filter("nobody", "true"),
        filter("blobs", "true"),
        filter("people", "height > 2"),
        mask(&[("people", "height", "null")]),
        mask(&[("people", "age", "null")]),
        mask(&[("people", "mail", "constant:x")]),
        mask(&[("people", "name", "null"), ("people", "name", "hash")]),
        mask(&[("blobs", "row", "hash")]),
    ] {
        let target = dir.path().join("copy");
        let error = clone_shaped(&db, &target, &shape).unwrap_err();
        assert_eq!(error.code, "invalid_shape", "{shape:?}");
        assert!(!target.exists() && !shaping_dir(&target).exists(), "{shape:?}");
    }
}

#[test]
fn a_copy_is_kept_for_who_was_interrupted_and_made_anew_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = people(&path);
    std::fs::create_dir_all(shaping_dir(&path).join("left")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let shaper = NodeShaper::new(&path, &Options::default(), runtime.handle().clone());
    assert!(!shaping_dir(&path).exists(), "what an earlier process left is removed");
    let shape = Shape { leave_out: vec!["blobs".into()], ..Shape::default() };
    let first = shaper.shape(&db, &shape, None).unwrap();
    let instance = first.database().instance();
    let again = shaper.shape(&db, &shape, Some(instance)).unwrap();
    assert_eq!(again.database().instance(), instance);
    let other = shaper.shape(&db, &shape, None).unwrap();
    assert_ne!(other.database().instance(), instance);
    drop((again, other));
    let held: Vec<_> = std::iter::from_fn(|| shaper.shape(&db, &shape, None).ok()).take(10).collect();
    assert!(held.len() < COPIES_MAX, "{} beside the first", held.len());
    assert_eq!(shaper.shape(&db, &shape, None).unwrap_err().code, "busy");
    drop((first, held));
    assert!(shaper.shape(&db, &shape, None).is_ok());
    drop(shaper);
    drop(runtime);
    let left = std::fs::read_dir(shaping_dir(&path)).map_or(0, Iterator::count);
    assert_eq!(left, 0, "copies go with the shaper");
}

#[test]
fn what_would_not_fit_beside_the_database_is_refused_before_anything_is_written() {
    let os = planaria_engine::os::MemOs::new(1);
    let options = Options { background: false, os: Arc::new(os.clone()), ..Options::default() };
    let db = Database::open_with("/site/db", options.clone()).unwrap();
    for name in ["kept", "left"] {
        let table = db.create_raw_table(name).unwrap();
        let mut ingest = table.ingest().unwrap();
        for number in 0..2_000_u64 {
            let mut word = number + 1;
            let row: Vec<u8> = (0..64_u64)
                .flat_map(|_| {
                    word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (word >> 29);
                    word.to_le_bytes()
                })
                .collect();
            ingest.put(number.to_be_bytes(), &row).unwrap();
        }
        ingest.finish().unwrap();
    }
    let (half, key) = (Shape { leave_out: vec!["left".into()], ..Shape::default() }, [0; 32]);
    let used = os.used_bytes();
    // Not even the one that is kept fits.
    os.set_capacity(Some(used + 500_000));
    let made = |dir: &str| shape(&db, &half, &key, Path::new(dir), &options).map(drop);
    let refused = made("/site/db.shaped/1").unwrap_err();
    assert_eq!((refused.code.as_str(), os.used_bytes()), ("no_space", used), "{refused:?}");
    assert!(!os.exists(Path::new("/site/db.shaped")));
    os.set_capacity(None);
    made("/site/db.shaped/2").unwrap();
}
