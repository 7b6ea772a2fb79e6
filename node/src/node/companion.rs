use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use planaria_engine::{CloneRecord, CloneRole as EngineRole, Database};
use planaria_net::quic::session::ReplicaSession;
use planaria_net::quic::{Credentials, Peer};
use planaria_net::replica::{FollowStatus, Follower, Primary, ReplicaState, Slot};
use planaria_net::wire::client::Client;
use planaria_net::wire::message::{
    CloneInfo, CloneRole, CloneSpec, DatabaseStatus, Level, RefreshInfo, RemoteError, ReplicaInfo, Request,
    Response, WriteOptions,
};
use planaria_net::wire::rpc::{BoxFuture, Exchange};
use planaria_replication::{Reason, Way};
use planaria_types::{History, HistoryHash, Uid};

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

    /// Asks the secondary to be refreshed; nothing once it was stopped.
    fn refresh(&self, way: Way) {
        if let Some(follower) = self.follower().as_ref() {
            follower.refresh(way);
        }
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
    /// For questions to the primary of a secondary.
    pub(super) credentials: Credentials,
}

impl NodeCompanion {
    fn replicas(&self) -> Vec<ReplicaInfo> {
        let primary = self.primary.as_ref();
        primary.map(|primary| primary.replicas().into_iter().map(replica_info).collect()).unwrap_or_default()
    }

    /// Tells what a refresh would take and, unless only that was asked for, begins it.
    fn refresh(&self, dry_run: bool, way: Option<&str>) -> Result<RefreshInfo, RemoteError> {
        let Some(following) = &self.following else {
            let mut error = RemoteError::new("not_a_secondary", "this node follows nobody");
            error.hint = "ask a secondary: planaria replica refresh --node ADDR".into();
            return Err(error);
        };
        let asked = way.map(way_of).transpose()?;
        let db = self.slot.get();
        let (durable, hash) = db.log_end();
        let way = way.map(str::to_owned);
        let plan = Request::RefreshPlan { history: db.history(), durable, hash, way };
        let mut info = self.ask_primary(following.primary, plan)?;
        let last = following.status();
        // The rate is that of the last refresh which moved something.
        let rate = last.last_refresh_ms.filter(|ms| *ms > 0 && last.last_refresh_bytes > 0);
        info.ms = rate.map(|ms| {
            let estimate = u128::from(info.bytes) * u128::from(ms) / u128::from(last.last_refresh_bytes);
            u64::try_from(estimate).unwrap_or(u64::MAX)
        });
        if !dry_run {
            following.refresh(asked.unwrap_or(way_of(&info.way)?));
        }
        Ok(info)
    }

    fn ask_primary(&self, primary: SocketAddr, request: Request) -> Result<RefreshInfo, RemoteError> {
        let unreachable = |error: planaria_net::Error| {
            let mut failed = RemoteError::new("unreachable", format!("the primary at {primary}: {error}"));
            failed.hint = "see to it that the primary runs and can be reached".into();
            failed
        };
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|error| RemoteError::new("internal", error.to_string()))?;
        let client = runtime.block_on(Client::connect(primary, &self.credentials)).map_err(unreachable)?;
        let answer = runtime.block_on(client.call(request));
        runtime.block_on(client.close());
        match answer.map_err(unreachable)? {
            Response::Refresh(info) => Ok(info),
            _ => Err(RemoteError::new("protocol", "the primary gave an answer to another question")),
        }
    }

    /// What the refresh of a copy of this primary's would take.
    fn plan(
        &self,
        history: &History,
        durable: Uid,
        hash: HistoryHash,
        way: Option<&str>,
    ) -> Result<RefreshInfo, RemoteError> {
        let primary = self.primary.as_ref();
        let primary = primary.ok_or_else(|| RemoteError::new("not_a_primary", "this node leads nothing"))?;
        let asked = way.map(way_of).transpose()?;
        let plan = primary
            .plan(history, durable, Some(hash), asked)
            .map_err(|error| RemoteError::new("refresh", error.to_string()))?;
        Ok(RefreshInfo {
            records: plan.records,
            bytes: plan.choice.bytes,
            ..refresh_info(plan.choice.way, plan.choice.reason)
        })
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
            Request::ReplicaRefresh { dry_run, way } => {
                Ok(Response::Refresh(self.refresh(dry_run, way.as_deref())?))
            }
            Request::RefreshPlan { history, durable, hash, way } => {
                Ok(Response::Refresh(self.plan(&history, durable, hash, way.as_deref())?))
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
            let last = following.status();
            status.refresh =
                last.last_refresh_way.zip(last.last_refresh_reason).map(|(way, reason)| RefreshInfo {
                    records: Some(last.last_refresh_records),
                    bytes: last.last_refresh_bytes,
                    ms: last.last_refresh_ms,
                    ..refresh_info(way, reason)
                });
            let replica = last.replica;
            status.state = match replica.last_end {
                Some(why) if replica.state == planaria_replication::secondary::State::Offline => {
                    format!("{} from {} ({why})", replica.state.name(), following.primary)
                }
                _ => replica.state.name().to_owned(),
            };
            status.stable = replica.stable;
        }
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

fn replica_info(state: ReplicaState) -> ReplicaInfo {
    ReplicaInfo {
        instance: state.instance,
        node: state.name,
        state: state.state.to_owned(),
        promotable: state.promotable,
        durable: state.durable,
        lag_ms: state.lag_ms,
        refresh: state.refresh.map_or_else(String::new, |(way, reason)| format!("{way}: {reason}")),
    }
}

fn refresh_info(way: Way, reason: Reason) -> RefreshInfo {
    RefreshInfo {
        way: way.to_string(),
        reason: reason.code().to_owned(),
        why: reason.to_string(),
        ..RefreshInfo::default()
    }
}

/// The way of that name.
fn way_of(name: &str) -> Result<Way, RemoteError> {
    match name {
        "tail" => Ok(Way::Tail),
        "delta" | "pinned delta" => Ok(Way::Delta),
        "reconcile" | "pinned reconcile" => Ok(Way::Reconcile),
        "bulk" => Ok(Way::Bulk),
        _ => Err(RemoteError::new(
            "usage",
            format!("{name:?} is no way of a refresh: tail, delta, reconcile, bulk"),
        )),
    }
}
