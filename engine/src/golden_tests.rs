//! A database that lies in the repository, in the first format: it is read, and what is written now is the same bytes.
//!
//! Whoever changes a format sees it here. `PLANARIA_GOLDEN=write` writes the files anew, which is right as long as no
//! release has written the old ones.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use planaria_types::KeyRange;

use crate::os::{MemOs, OpenMode, Os};
use crate::{Batch, Column, ColumnType, Database, Durability, Options, Registration, Schema, Value};

const DIRS: [&str; 3] = ["", "log", "runs"];
/// The token of the last write.
const TOKEN: u128 = 0x00c0_ffee;
/// The digest of the typed table: so many rows, and what they sum up to.
const DIGEST: &str = "60:ae1dbc25c421944a438b859c05d051d9";

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join("format-1")
}

fn options(os: &MemOs) -> Options {
    Options {
        log_segment_bytes: 64 << 10,
        log_tail_bytes: 64 << 10,
        log_bytes_max: 256 << 10,
        block_bytes: 512,
        background: false,
        os: Arc::new(os.clone()),
        ..Options::default()
    }
}

/// Every type of column, a key of two columns, and rows with and without nulls.
fn schema() -> Schema {
    Schema::builder()
        .column(Column::new("place", ColumnType::Text))
        .column(Column::new("number", ColumnType::Int64))
        .column(Column::new("weight", ColumnType::Float64).nullable())
        .column(Column::new("ringed", ColumnType::Bool).nullable())
        .column(Column::new("raw", ColumnType::Bytes).nullable())
        .column(Column::new("at", ColumnType::Timestamp))
        .column(Column::new("day", ColumnType::Date))
        .key(["place", "number"])
        .build()
        .unwrap()
}

fn row(number: i64) -> [Value; 7] {
    let null_at = |every: i64, value: Value| if number % every == 0 { Value::Null } else { value };
    [
        Value::Text(format!("pond {}", number % 7)),
        Value::Int(number - 20),
        null_at(3, Value::Float(number as f64 / 8.0)),
        null_at(4, Value::Bool(number % 2 == 0)),
        null_at(5, Value::Bytes(vec![number as u8; number as usize % 9])),
        Value::Timestamp(number * 1_000_003),
        Value::Date(number as i32 - 30),
    ]
}

/// Everything that the format has a place for: both kinds of tables, a split, runs at the bottom and above, marks, an
/// ingest, a registered secondary, a token, and commits that only the log has.
fn write(os: &MemOs) {
    let db = Database::open_with("/db", Options { create: true, ..options(os) }).unwrap();
    let typed = db.create_table("birds", schema()).unwrap();
    let raw = db.create_raw_table("blobs").unwrap();
    for number in 0..60 {
        typed.insert(&row(number)).unwrap();
        raw.put(format!("{number:03}"), format!("blob {number} {}", "x".repeat(number as usize))).unwrap();
    }
    db.compact().unwrap();
    db.split(raw.id(), b"030").unwrap();
    for number in (0..60).step_by(4) {
        raw.delete(format!("{number:03}")).unwrap();
    }
    db.flush().unwrap();
    let mut ingest = raw.ingest().unwrap();
    for number in 60..80 {
        ingest.put(format!("{number:03}"), "ingested").unwrap();
    }
    ingest.finish().unwrap();
    let secondary = Registration::new(planaria_types::InstanceId(7), "second".to_owned(), db.visible());
    db.register(&secondary, Durability::Synced).unwrap();
    let mut batch = Batch::new();
    batch.put(raw.id(), "tail", "only the log has it").delete(raw.id(), "001");
    db.write_once(batch, TOKEN, Durability::Synced).unwrap();
}

fn files_of(os: &dyn Os, root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for dir in DIRS {
        // Spare segments and the lock hold nothing.
        let is_content =
            |name: &Path| name.extension().is_none_or(|kind| kind != "spare") && name != Path::new("LOCK");
        for entry in os.list(&root.join(dir)).unwrap() {
            if entry.is_dir || !is_content(entry.name.as_ref()) {
                continue;
            }
            let path = Path::new(dir).join(&entry.name);
            let file = os.open(&root.join(&path), OpenMode::Read).unwrap();
            let mut bytes = vec![0; file.len().unwrap() as usize];
            file.read_exact_at(&mut bytes, 0).unwrap();
            files.insert(path, bytes);
        }
    }
    files
}

fn put_files(os: &dyn Os, root: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) {
    for dir in DIRS {
        os.create_dir_all(&root.join(dir)).unwrap();
    }
    for (path, bytes) in files {
        let file = os.open(&root.join(path), OpenMode::CreateNew).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
    }
}

fn golden_files() -> BTreeMap<PathBuf, Vec<u8>> {
    files_of(&crate::os::Posix, &golden())
}

#[test]
fn what_is_written_is_byte_for_byte_what_lies_in_the_repository() {
    let os = MemOs::new(1);
    os.set_now_millis(1_700_000_000_000);
    os.set_clock_step(Duration::from_millis(1));
    write(&os);
    let written = files_of(&os, "/db".as_ref());
    if std::env::var("PLANARIA_GOLDEN").is_ok_and(|asked| asked == "write") {
        put_files(&crate::os::Posix, &golden(), &written);
    }
    let golden = golden_files();
    let names = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&written), names(&golden));
    for (path, bytes) in &written {
        let differs = bytes.iter().zip(&golden[path]).position(|(new, old)| new != old);
        assert_eq!((differs, bytes.len()), (None, golden[path].len()), "{} differs there", path.display());
    }
}

#[test]
fn a_database_of_the_first_format_is_read_verified_and_written_on() {
    let os = MemOs::new(2);
    put_files(&os, "/db".as_ref(), &golden_files());
    let db = Database::open_with("/db", options(&os)).unwrap();
    db.verify().unwrap();
    let typed = db.table("birds").unwrap();
    assert_eq!(typed.rows(&[]).unwrap().count(), 60);
    for number in 0..60 {
        let key = [Value::Text(format!("pond {}", number % 7)), Value::Int(number - 20)];
        assert_eq!(typed.find(&key).unwrap().unwrap(), row(number));
    }
    let raw = db.table("blobs").unwrap();
    let keys: Vec<String> = raw
        .scan(KeyRange::ALL)
        .map(|record| String::from_utf8(record.unwrap().0.to_vec()).unwrap())
        .collect();
    let numbers = (0..80).filter(|number| *number >= 60 || number % 4 != 0).filter(|number| *number != 1);
    let expected: Vec<_> = numbers.map(|number| format!("{number:03}")).chain(["tail".to_owned()]).collect();
    assert_eq!(keys, expected);
    assert_eq!(raw.get("059").unwrap().unwrap(), format!("blob 59 {}", "x".repeat(59)));
    assert_eq!(db.snapshot().digests().unwrap()[0].digest.to_string(), DIGEST);
    assert_eq!(db.registrations().unwrap()[0].name, "second");
    let mut again = Batch::new();
    again.put(raw.id(), "tail", "only the log has it").delete(raw.id(), "001");
    assert!(db.write_once(again, TOKEN, Durability::Synced).unwrap().again, "the token is known");
    raw.put("new", "row").unwrap();
    db.compact().unwrap();
    drop((raw, typed, db));
    let db = Database::open_with("/db", options(&os)).unwrap();
    db.verify().unwrap();
    assert_eq!(db.table("blobs").unwrap().get("new").unwrap().unwrap(), "row");
}
