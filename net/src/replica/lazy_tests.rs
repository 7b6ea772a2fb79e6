//! Clones that are read while they come in, over real sockets and real files.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};

use planaria_engine::{Batch, CloneRole, Codec, Database, Durability, Options};
use tokio::task::JoinHandle;

use super::super::tests::{Cluster, options};
use super::*;

const ROWS: u32 = 3_000;

fn start(dir: &Path) -> Cluster {
    let options = Options { bottom_codec: Codec::None, run_file_bytes: 4 << 20, ..options() };
    let cluster = Cluster::start_with(dir, options);
    let db = cluster.primary.database();
    db.create_raw_table("t").unwrap();
    write(db, 0..ROWS, 0);
    db.compact().unwrap();
    cluster
}

fn write(db: &Database, rows: std::ops::Range<u32>, version: u8) {
    let table = db.table("t").unwrap().id();
    let mut batch = Batch::new();
    for number in rows {
        let mut row = vec![number as u8; 4_000];
        row[0] = version;
        batch.put(table, number.to_be_bytes(), row);
    }
    db.write(batch, Durability::Synced).unwrap();
}

/// What a row is told by: its version, its second byte and its length.
fn row(number: u32, version: u8) -> (u8, u8, usize) {
    (version, number as u8, 4_000)
}

fn get(view: &Database, number: u32) -> planaria_engine::Result<Option<(u8, u8, usize)>> {
    let table = view.table("t")?.id();
    Ok(view.snapshot().get(table, &number.to_be_bytes())?.map(|row| (row[0], row[1], row.len())))
}

/// A clone that comes in, and the databases by which it is read.
struct Coming {
    lazy: Arc<LazyTaking>,
    pace: Arc<Pace>,
    views: Receiver<Database>,
}

fn coming(dir: &Path, rate: Option<u64>) -> Coming {
    let (opened, views) = sync_channel(8);
    let pace = Arc::new(Pace::new(rate));
    let mut taking = Taking::new(dir.join("copy"), CloneRole::Detached, &Options::default());
    taking.pace = Arc::clone(&pace);
    let lazy = LazyTaking::new(taking, move |view| opened.send(view).unwrap()).unwrap();
    Coming { lazy: Arc::new(lazy), pace, views }
}

impl Coming {
    fn take_from(&self, cluster: &Cluster) -> JoinHandle<Result<CloneProgress>> {
        let (lazy, address) = (Arc::clone(&self.lazy), cluster.address);
        let credentials = cluster.credentials.clone();
        cluster
            .runtime
            .spawn(async move { lazy.take_from(address, &credentials, &Transport::default(), |_| {}).await })
    }
}

#[test]
fn it_is_read_while_it_comes_in_and_is_a_database_of_its_own_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path());
    let source = cluster.primary.database().clone();
    let coming = coming(dir.path(), Some(20_000));
    let taking = coming.take_from(&cluster);
    let view = coming.views.recv().unwrap();
    for number in [0, ROWS - 1, 1_234, 17] {
        assert_eq!(get(&view, number).unwrap(), Some(row(number, 0)));
    }
    assert_eq!(get(&view, ROWS).unwrap(), None);
    // At this rate the whole takes ten minutes: what was read came out of turn.
    assert!(!taking.is_finished());
    write(&source, 0..10, 1);
    coming.pace.set_rate(None);
    let done = cluster.runtime.block_on(taking).unwrap().unwrap();
    assert_eq!((done.stage, done.done_bytes), (CloneStage::Installing, done.total_bytes));
    assert_eq!(get(&view, 5).unwrap(), Some(row(5, 0)));
    let copy = Database::open_with(dir.path().join("copy"), options()).unwrap();
    copy.verify().unwrap();
    assert_eq!(copy.snapshot().digests().unwrap(), view.snapshot().digests().unwrap());
    assert_eq!((copy.id(), copy.instance()), (view.id(), view.instance()));
    write(&copy, 0..10, 2);
}

#[test]
fn when_the_source_has_merged_its_files_away_it_moves_on_to_a_later_cut() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = start(dir.path());
    let source = cluster.primary.database().clone();
    let coming = coming(dir.path(), Some(20_000));
    let taking = coming.take_from(&cluster);
    let view = coming.views.recv().unwrap();
    assert_eq!(get(&view, 1).unwrap(), Some(row(1, 0)));
    taking.abort();
    assert!(cluster.runtime.block_on(taking).is_err());
    write(&source, 0..ROWS, 1);
    source.compact().unwrap();
    coming.pace.set_rate(None);
    cluster.runtime.block_on(coming.take_from(&cluster)).unwrap().unwrap();
    let later = coming.views.recv().unwrap();
    assert_eq!(get(&later, 1).unwrap(), Some(row(1, 1)));
    // What it was before stays what it was, as far as it came.
    assert_eq!(get(&view, 1).unwrap(), Some(row(1, 0)));
    let is_absent = |number| get(&view, number).is_err_and(|error| error.code() == "not_here");
    assert!((0..ROWS).any(is_absent));
    let copy = Database::open_with(dir.path().join("copy"), options()).unwrap();
    assert_eq!(copy.snapshot().digests().unwrap(), source.snapshot().digests().unwrap());
}
