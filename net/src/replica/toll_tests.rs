//! Copies that are brought up to date at a rate.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use planaria_engine::{Batch, Database, Durability, Options, Table};
use planaria_replication::Way;
use planaria_replication::secondary::State;

use super::clock::now;
use super::tests::{Cluster, caught_up, equal, options};
use super::{Pace, Slot};

const ROWS: u64 = 512;
const ROW_BYTES: usize = 8 << 10;
const BYTES: u64 = ROWS * ROW_BYTES as u64;
/// The largest part of them that comes in one message, and is counted when it is there already.
const MESSAGE_BYTES: u64 = 1 << 20;

fn change(db: &Database, table: &Table, turn: u8) {
    for key in 0..ROWS {
        let mut batch = Batch::new();
        batch.put(table.id(), key.to_be_bytes(), vec![turn; ROW_BYTES]);
        db.write(batch, Durability::Background).unwrap();
    }
    db.flush().unwrap();
}

/// A copy that was up to date before every row changed.
fn behind(cluster: &Cluster, dir: &Path) -> Slot {
    let db = cluster.primary.database().clone();
    let table = db.create_raw_table("t").unwrap();
    change(&db, &table, 1);
    let slot = cluster.secondary(&dir.join("secondary"));
    let follower = cluster.follow(&slot);
    caught_up(cluster, &slot, &follower);
    follower.stop();
    change(&db, &table, 2);
    slot
}

/// Options of a primary whose log has all that changed, or not.
fn ways() -> [(Options, Way); 2] {
    let kept = Options { log_tail_bytes: 64 << 20, log_bytes_max: 64 << 20, ..options() };
    [(kept, Way::Tail), (options(), Way::Delta)]
}

#[test]
fn what_changed_comes_in_no_faster_than_the_rate() {
    for (options, way) in ways() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start_with(dir.path(), options);
        let slot = behind(&cluster, dir.path());
        let (rate, begun) = (4 << 20, now());
        let follower = cluster.follow_at(&slot, &Arc::new(Pace::new(Some(rate))));
        let status = caught_up(&cluster, &slot, &follower);
        let took_ms = now().since(begun).0;
        assert_eq!(status.last_refresh_way, Some(way), "{status:?}");
        // A machine that is slow only takes longer.
        let least_ms = (BYTES - MESSAGE_BYTES) * 1_000 / rate;
        assert!(took_ms >= least_ms, "{took_ms} ms, and {least_ms} at the rate");
        equal(cluster.primary.database(), &slot.get());
        follower.stop();
    }
}

#[test]
fn another_rate_holds_at_once_for_what_waits() {
    for (options, way) in ways() {
        let dir = tempfile::tempdir().unwrap();
        let cluster = Cluster::start_with(dir.path(), options);
        let slot = behind(&cluster, dir.path());
        // At a byte a second the first message is paid for in days.
        let pace = Arc::new(Pace::new(Some(1)));
        let follower = cluster.follow_at(&slot, &pace);
        while !pace.is_owing() {
            std::thread::park_timeout(Duration::from_millis(2));
        }
        assert_ne!(follower.status().replica.state, State::Online);
        assert!(slot.get().visible() < cluster.primary.database().visible());
        // Nobody waits for days who stops it.
        follower.stop();
        let follower = cluster.follow_at(&slot, &pace);
        pace.set_rate(None);
        let status = caught_up(&cluster, &slot, &follower);
        assert_eq!(status.last_refresh_way, Some(way), "{status:?}");
        equal(cluster.primary.database(), &slot.get());
        follower.stop();
    }
}
