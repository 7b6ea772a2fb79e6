use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use planaria_types::KeyRange;

use crate::os::{CrashStyle, MemOs, Os};
use crate::{Database, Options, Table};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

fn open(os: &MemOs) -> Database {
    let options = Options {
        run_file_bytes: 64 << 10,
        block_bytes: 512,
        background: false,
        os: Arc::new(os.clone()),
        ..Options::default()
    };
    Database::open_with("/db", options).unwrap()
}

fn contents(table: &Table) -> Rows {
    let records = table.scan(KeyRange::ALL).map(|record| record.unwrap());
    records.map(|(key, row)| (key.to_vec(), row.to_vec())).collect()
}

fn files(os: &MemOs) -> usize {
    os.list(Path::new("/db/runs")).unwrap().len()
}

/// Rows whose keys come in no order and, many of them, several times.
fn shuffled(count: u64) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    (0..count).map(move |number| {
        let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
        (format!("{:05}", key % (count / 2)).into_bytes(), format!("row {number}").repeat(9).into_bytes())
    })
}

#[test]
fn rows_in_no_order_become_one_commit_in_which_the_last_of_a_key_counts() {
    // In memory, in a few sorted runs, and in more than can be read ahead of.
    for (memory_bytes, count) in [(64 << 20, 2_000), (1 << 20, 12_000), (0, 4_000)] {
        let os = MemOs::new(1);
        let db = open(&os);
        let table = db.create_raw_table("t").unwrap();
        let before = db.log_end().0;
        let mut ingest = table.ingest_unsorted(memory_bytes).unwrap();
        let mut model = Rows::new();
        for (key, row) in shuffled(count) {
            ingest.put(key.clone(), row.clone()).unwrap();
            model.insert(key, row);
        }
        let done = ingest.finish().unwrap();
        assert_eq!(done.records, model.len() as u64);
        assert!(done.uid > before && db.log_end().0 == done.uid);
        assert_eq!(contents(&table), model);
        assert_eq!(files(&os), db.status().unwrap().run_files, "sorted runs are left");
        db.verify().unwrap();
    }
}

#[test]
fn sorted_runs_go_with_an_ingest_that_is_abandoned_refused_or_killed() {
    let os = MemOs::new(1);
    let db = open(&os);
    let table = db.create_raw_table("t").unwrap();
    let run_files = files(&os);
    for refused in [false, true] {
        let mut ingest = table.ingest_unsorted(0).unwrap();
        for (key, row) in shuffled(3_000) {
            ingest.put(key, row).unwrap();
        }
        assert!(files(&os) > run_files + 3);
        if refused {
            let error = ingest.put("key", vec![0; crate::MAX_ROW_BYTES + 1]).unwrap_err();
            assert_eq!(error.code(), "too_large");
            assert_eq!(ingest.finish().unwrap_err().code(), "invalid");
        } else {
            drop(ingest);
        }
        assert_eq!((files(&os), contents(&table)), (run_files, Rows::new()));
    }
    let mut killed = table.ingest_unsorted(0).unwrap();
    for (key, row) in shuffled(3_000) {
        killed.put(key, row).unwrap();
    }
    let os = os.crash(CrashStyle::ProcessKill, 1);
    assert!(files(&os) > run_files + 3);
    let db = open(&os);
    assert_eq!(files(&os), db.status().unwrap().run_files);
    assert_eq!(contents(&db.table("t").unwrap()), Rows::new());
}
