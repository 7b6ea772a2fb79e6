use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use planaria_engine::{Database, Table};
use planaria_net::replica::FollowStatus;
use planaria_replication::secondary::State;

use crate::node::Node;
use crate::output::CliError;
use crate::stopwatch::Stopwatch;

/// How long a secondary may take to come online before the demo gives up.
const ONLINE_WITHIN: Duration = Duration::from_mins(2);
/// How often the state of a secondary is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Waits until a secondary follows live and shows what its primary had when this was called.
pub(super) fn wait_until_online(node: &Node, primary: &Database) -> Result<FollowStatus, CliError> {
    let goal = primary.log_end().0;
    let stopwatch = Stopwatch::start();
    while stopwatch.elapsed() < ONLINE_WITHIN {
        let status = node.follow_status().unwrap_or_default();
        if let Some(failure) = status.failure {
            return Err(CliError::new("demo", format!("a secondary stopped: {failure}")));
        }
        if status.replica.state == State::Online && node.database().visible() >= goal {
            return Ok(status);
        }
        std::thread::park_timeout(LOOK_EVERY);
    }
    let state = node.follow_status().unwrap_or_default().replica;
    Err(CliError::new("demo", format!("a secondary is still {} after two minutes", state.state.name()))
        .because(state.last_end.unwrap_or_default()))
}

/// A reader of a secondary that checks that it sees one cut: of rows that were deleted together, all or none.
pub(super) struct Watch {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<(u64, bool)>,
}

impl Watch {
    pub(super) fn start(node: &Node, deleted: &[Bytes]) -> Result<Self, CliError> {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, keys, db) = (Arc::clone(&stop), deleted.to_vec(), node.database());
        let table = db.table("weather")?;
        let body = move || {
            let (mut looks, mut one_cut) = (0, true);
            while !stopped.load(Ordering::Acquire) {
                one_cut &= sees_all_or_none(&db, &table, &keys);
                looks += 1;
            }
            (looks, one_cut && sees_all_or_none(&db, &table, &keys))
        };
        let reader = std::thread::Builder::new()
            .name("demo-reader".into())
            .spawn(body)
            .map_err(|error| CliError::new("io", format!("cannot start a thread: {error}")))?;
        Ok(Self { stop, reader })
    }

    /// The number of looks, and whether each saw one cut.
    pub(super) fn end(self) -> (u64, bool) {
        self.stop.store(true, Ordering::Release);
        self.reader.join().unwrap_or((0, false))
    }
}

fn sees_all_or_none(db: &Database, table: &Table, keys: &[Bytes]) -> bool {
    let snapshot = db.snapshot();
    let mut there = 0;
    for key in keys {
        match snapshot.get(table.id(), key) {
            Ok(row) => there += usize::from(row.is_some()),
            Err(_) => return false,
        }
    }
    there == 0 || there == keys.len()
}
