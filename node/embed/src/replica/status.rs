use std::net::SocketAddr;
use std::time::Duration;

use planaria_engine::Database;
use planaria_net::replica::{CloneProgress, FollowStatus};
use planaria_replication::secondary::State;
use planaria_replication::{Reason, Way};
use planaria_types::{Position, Uid};

/// How a replica is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReplicaStatus {
    /// The primary that it follows.
    pub primary: SocketAddr,
    /// Whether it follows live, is being refreshed, or has no session.
    pub state: State,
    /// What reads show.
    pub position: Position,
    /// How old what reads show may be, at most: it grows while the primary is away. None for a copy that has nothing
    /// yet.
    pub lag: Option<Duration>,
    /// The last refresh since the copy was opened.
    pub last_refresh: Option<LastRefresh>,
    /// How far run files have come, while they are fetched.
    pub fetching: Option<CloneProgress>,
    /// What became of the secondaries that were to bring it what it lacked ([`super::ReplicaOptions::refresh_from`]), last.
    pub refreshed: Option<String>,
    /// Why the last session ended, if one did.
    pub last_end: Option<String>,
    /// Why it follows no more, if it has stopped for good.
    pub failure: Option<String>,
}

/// What a refresh was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastRefresh {
    /// By which way.
    pub way: Way,
    /// Why by that one.
    pub reason: Reason,
    /// Records that it moved; what run files hold is not counted.
    pub records: u64,
    /// Bytes of records, commits and run files.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
}

impl ReplicaStatus {
    pub(super) fn of(primary: SocketAddr, database: &Database, following: FollowStatus) -> Self {
        let closed = following.replica.closed;
        let lag_ms = database.now_millis().saturating_sub(closed.millis());
        let way = following.last_refresh_way.zip(following.last_refresh_reason);
        Self {
            primary,
            state: following.replica.state,
            position: database.position(),
            lag: (closed > Uid::ZERO).then_some(Duration::from_millis(lag_ms)),
            last_refresh: way.map(|(way, reason)| LastRefresh {
                way,
                reason,
                records: following.last_refresh_records,
                bytes: following.last_refresh_bytes,
                took: Duration::from_millis(following.last_refresh_ms.unwrap_or_default()),
            }),
            fetching: following.bulk,
            refreshed: following.detour,
            last_end: following.replica.last_end,
            failure: following.failure,
        }
    }
}
