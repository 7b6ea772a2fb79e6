use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use planaria_engine::{CloneRecord, CloneRole as EngineRole, Database};
use planaria_net::quic::Peer;
use planaria_net::quic::session::ReplicaSession;
use planaria_net::replica::{FollowStatus, Follower, Primary, Slot};
use planaria_net::wire::message::{
    CloneInfo, CloneRole, CloneSpec, DatabaseStatus, Level, RemoteError, ReplicaInfo, Request, Response,
    WriteOptions,
};
use planaria_net::wire::rpc::{BoxFuture, Exchange};
use planaria_types::Uid;

use super::replicas::{replica_do, replica_info};
use crate::handler::{Companion, remote, unsupported};

/// How long a commit waits for other copies if the client does not say.
const ACK_PATIENCE: Duration = Duration::from_secs(10);

/// A secondary's pursuit of its primary.
pub(super) struct Following {
    pub(super) primary: SocketAddr,
    follower: Mutex<Option<Follower>>,
}

impl Following {
    pub(super) fn new(primary: SocketAddr, follower: Follower) -> Self {
        Self { primary, follower: Mutex::new(Some(follower)) }
    }

    /// What the secondary does; nothing once it was stopped.
    pub(super) fn status(&self) -> FollowStatus {
        self.follower().as_ref().map(Follower::status).unwrap_or_default()
    }

    /// Ends the session in good order.
    pub(super) fn stop(&self) {
        let follower = self.follower().take();
        drop(follower);
    }

    fn follower(&self) -> MutexGuard<'_, Option<Follower>> {
        self.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a node does beyond its own database: it is followed, follows, and is cloned.
pub(super) struct NodeCompanion {
    pub(super) slot: Slot,
    pub(super) primary: Option<Arc<Primary>>,
    pub(super) following: Option<Arc<Following>>,
}

impl NodeCompanion {
    fn replicas(&self) -> Vec<ReplicaInfo> {
        let primary = self.primary.as_ref();
        primary.map(|primary| primary.replicas().into_iter().map(replica_info).collect()).unwrap_or_default()
    }

    fn clone_here(&self, spec: &CloneSpec) -> Result<CloneInfo, RemoteError> {
        let asks_for_more = !spec.leave_out.is_empty()
            || !spec.preserve.is_empty()
            || !spec.filters.is_empty()
            || !spec.masks.is_empty()
            || spec.rate_bytes_per_s.is_some()
            || spec.ttl_s.is_some()
            || spec.hydrating
            || spec.role != CloneRole::Detached
            || spec.target.is_some();
        if asks_for_more {
            return Err(unsupported("this release makes whole, detached clones on the node's own disk"));
        }
        let path = std::path::Path::new(&spec.name);
        if !path.is_absolute() {
            let mut error = RemoteError::new("usage", format!("{:?} is not an absolute path", spec.name));
            error.hint = "name the new directory on the node's disk from its root on".into();
            return Err(error);
        }
        clone_locally(&self.slot.get(), path).map(|record| clone_info(&record)).map_err(remote)
    }
}

impl Companion for NodeCompanion {
    fn call(&self, _: &Peer, request: Request, _: &mut Exchange) -> Result<Response, RemoteError> {
        match request {
            Request::ReplicaList => Ok(Response::Replicas(self.replicas())),
            Request::ReplicaDo { name, action } => {
                let primary = self.primary.as_ref().ok_or_else(|| {
                    let mut error = RemoteError::new("read_only", "this node is a secondary");
                    error.hint = "ask its primary, which keeps the list of secondaries".into();
                    error
                })?;
                replica_do(primary, &name, action)?;
                Ok(Response::Replicas(self.replicas()))
            }
            Request::CloneCreate(spec) => Ok(Response::Clone(self.clone_here(&spec)?)),
            Request::CloneList => {
                let clones = self.slot.get().clones().map_err(remote)?;
                Ok(Response::Clones(clones.iter().map(clone_info).collect()))
            }
            _ => Err(unsupported("this release does not answer that request")),
        }
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        match &self.primary {
            Some(primary) => primary.take_over(session),
            None => Box::pin(async move {
                session.close(
                    planaria_net::quic::CloseCode::Refused,
                    "this node is a secondary: ask its primary",
                );
            }),
        }
    }

    fn accepts(&self, level: Level) -> Result<(), RemoteError> {
        match level {
            Level::Database | Level::Local | Level::One => Ok(()),
            Level::Quorum | Level::All => Err(unsupported(format!(
                "this release acknowledges at the levels local and one, not {level:?}"
            ))),
        }
    }

    fn wait(&self, uid: Uid, options: &WriteOptions) -> Result<(), RemoteError> {
        let (Level::One, Some(primary)) = (options.level, &self.primary) else { return Ok(()) };
        let patience = match options.timeout_ms {
            0 => ACK_PATIENCE,
            ms => Duration::from_millis(ms.into()),
        };
        let level = planaria_replication::ack::Level::One;
        primary.wait_acknowledged(uid, level, patience).map_err(|unknown| {
            let mut error = RemoteError::new("unknown", unknown.to_string());
            error.hint = "read the record once a secondary is online again, or write it again".into();
            error
        })
    }

    fn describe(&self, status: &mut DatabaseStatus) {
        if let Some(following) = &self.following {
            let replica = following.status().replica;
            status.state = match replica.last_end {
                Some(why) if replica.state == planaria_replication::secondary::State::Offline => {
                    format!("{} from {} ({why})", replica.state.name(), following.primary)
                }
                _ => replica.state.name().to_owned(),
            };
            status.stable = replica.stable;
            status.primary = following.primary.to_string();
        }
        let given_up = |replica: ReplicaInfo| {
            let why = replica.given_up;
            (!why.is_empty()).then(|| format!("preserves nothing for {}: {why}", replica.node))
        };
        status.notices.extend(self.replicas().into_iter().filter_map(given_up));
    }
}

/// Clones a database on its own disk and notes it, where the copy takes updates.
pub(crate) fn clone_locally(db: &Database, target: &std::path::Path) -> planaria_engine::Result<CloneRecord> {
    let cloned = db.clone_to(target)?;
    let record = CloneRecord {
        name: target.file_name().map_or_else(String::new, |name| name.display().to_string()),
        target: target.display().to_string(),
        role: Some(EngineRole::Detached),
        source: db.instance(),
        cut: cloned.position.uid,
        bytes: cloned.bytes,
        created_ms: db.now_millis(),
    };
    if db.role() == planaria_engine::Role::Primary {
        db.record_clone(&record)?;
    }
    Ok(record)
}

pub(crate) fn clone_info(record: &CloneRecord) -> CloneInfo {
    CloneInfo {
        name: record.name.clone(),
        state: "complete".into(),
        role: match record.role {
            Some(EngineRole::Secondary) => CloneRole::Standby,
            Some(EngineRole::Detached) | None => CloneRole::Detached,
        },
        source: Some(record.source),
        target: record.target.clone(),
        cut: Some(record.cut),
        done_bytes: record.bytes,
        total_bytes: Some(record.bytes),
        expires_ms: None,
        reasons: Vec::new(),
    }
}
