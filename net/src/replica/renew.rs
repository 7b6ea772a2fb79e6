//! Bringing a copy up to date once, by what has changed: it follows until it has what its source had when it came.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use planaria_engine::{Database, Options};
use planaria_replication::secondary::State;
use planaria_replication::{Reason, Way};
use planaria_types::{EpochOrder, InstanceId, Uid};
use tokio::runtime::Handle;

use super::clock::now;
use super::executor::promotion::newest_of;
use super::join::database_at;
use super::{Follow, Follower, Pace, Slot};
use crate::quic::{Credentials, Transport};
use crate::wire::client::Client;
use crate::wire::message::{ReplicaAction, Request};
use crate::{Error, Result};

/// How often it is looked how far it has come.
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);
/// How long a source may take to answer at all before it counts as gone.
const SILENCE_MAX_MS: u64 = 15_000;
/// How often the source is asked to forget the copy, which it does once it has noticed that the session is over.
const FORGET_TRIES: usize = 25;
/// The pause before it is asked again, at first and at most.
const FORGET_PAUSE_MIN: Duration = Duration::from_millis(1);
const FORGET_PAUSE_MAX: Duration = Duration::from_millis(50);

/// What brought a copy up to date.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renewal {
    /// The state that it has now.
    pub cut: Uid,
    /// Records that came.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// By which way of a refresh, and why.
    pub way: String,
}

/// Brings the secondary in `dir`, which nobody has open, up to what the node at `source` has now, and has `end` make of it what
/// it is to be. The node forgets it meanwhile, whatever became of it.
///
/// # Errors
///
/// `ForeignDatabase` if the node has another database, `Protocol` if the copy has promised an epoch that the node does not lead under, [`Error::GivenUp`] if its pace says so. What came stays.
pub fn renew(
    (source, credentials, transport): (SocketAddr, &Credentials, &Transport),
    dir: &Path,
    options: &Options,
    pace: &Arc<Pace>,
    runtime: &Handle,
    progress: impl Fn(u64),
    end: impl FnOnce(&Renewal, Database) -> Result<()>,
) -> Result<Renewal> {
    let db = Database::open_with(dir, Options { create: false, ..options.clone() })?;
    let there = runtime.block_on(pace.heed(database_at(source, credentials)))?;
    if there.database != db.id() {
        return Err(Error::ForeignDatabase {
            path: dir.to_path_buf(),
            own: db.id(),
            primary: source,
            led: there.database,
        });
    }
    let own = newest_of(&db);
    if matches!(own.order(&there.epoch), EpochOrder::Newer | EpochOrder::Conflict) {
        // Following under it would end the reign of its source.
        let what = format!(
            "the clone has a history of its own: epoch {own}, its source leads under {}",
            there.epoch
        );
        return Err(Error::Protocol(what));
    }
    let instance = db.instance();
    let slot = Slot::new(db);
    let follow = Follow {
        primary: source,
        name: "clone".to_owned(),
        // Without a port it is never promotable: nothing waits for it.
        port: None,
        credentials: credentials.clone(),
        portion: None,
        transport: transport.watchful(),
        options: options.clone(),
        siblings: Vec::new(),
        note: None,
        pace: Some(Arc::clone(pace)),
    };
    // Records as they are now, straight into run files: a tail would log each of them here, and sync the log, for a moment.
    let asked = (slot.get().visible() < there.visible).then_some(Way::Delta);
    let follower = Follower::start_by(asked, slot.clone(), follow, runtime.clone())?;
    let reached = follow_until(&follower, &slot, (source, there.visible), pace, runtime, progress);
    follower.stop();
    let db = slot.get();
    drop(slot);
    let copies = BTreeSet::from([instance, db.instance()]);
    let forgetting = runtime.spawn(forget_all(source, credentials.clone(), copies));
    let ended = reached.and_then(|renewal| {
        end(&renewal, db)?;
        Ok(renewal)
    });
    // It says itself what it could not do.
    let _ = runtime.block_on(forgetting);
    ended
}

async fn forget_all(source: SocketAddr, credentials: Credentials, copies: BTreeSet<InstanceId>) {
    for copy in copies {
        if let Err(error) = forget(source, &credentials, copy).await {
            tracing::warn!(%source, %copy, %error, "the source goes on preserving what a clone might need: forget it there");
        }
    }
}

/// Waits until the copy shows what its source had.
fn follow_until(
    follower: &Follower,
    slot: &Slot,
    (source, cut): (SocketAddr, Uid),
    pace: &Pace,
    runtime: &Handle,
    progress: impl Fn(u64),
) -> Result<Renewal> {
    let (mut heard, mut moved) = (now(), 0);
    loop {
        let status = follower.status();
        if let Some(failure) = status.failure {
            return Err(Error::Protocol(failure));
        }
        let db = slot.get();
        if status.replica.state == State::Online && db.visible() >= cut {
            let way = match (status.last_refresh_way, status.last_refresh_reason) {
                (Some(way), Some(Reason::Asked)) => format!("{way}: what has changed, as it is now"),
                (Some(way), Some(reason)) => format!("{way}: {reason}"),
                _ => "nothing had changed".to_owned(),
            };
            return Ok(Renewal {
                cut: db.visible(),
                records: status.last_refresh_records,
                bytes: status.last_refresh_bytes,
                way,
            });
        }
        let bytes = status.traffic.frame_bytes_received.max(status.last_refresh_bytes);
        progress(bytes);
        if bytes != moved || status.replica.state != State::Offline {
            (heard, moved) = (now(), bytes);
        }
        if now().since(heard).0 > SILENCE_MAX_MS {
            return Err(Error::TimedOut { peer: source, when: "to a copy that follows it" });
        }
        runtime.block_on(pace.rest(BETWEEN_LOOKS))?;
    }
}

/// Has a node preserve nothing more for a copy.
async fn forget(source: SocketAddr, credentials: &Credentials, copy: InstanceId) -> Result<()> {
    let client = Client::connect(source, credentials).await?;
    let (mut last, mut pause) = (Ok(()), FORGET_PAUSE_MIN);
    for _ in 0..FORGET_TRIES {
        let asked = Request::ReplicaDo { name: copy.to_string(), action: ReplicaAction::Forget };
        last = match client.call(asked).await {
            Err(Error::Remote(error)) if error.code == "connected" => Err(Error::Remote(error)),
            Err(Error::Remote(error)) if error.code == "unknown_replica" => Ok(()),
            other => {
                client.close().await;
                return other.map(drop);
            }
        };
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(FORGET_PAUSE_MAX);
    }
    client.close().await;
    last
}
