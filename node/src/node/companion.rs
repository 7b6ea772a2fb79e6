use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use planaria_engine::{CloneRecord, CloneRole as EngineRole, Database, Role};
use planaria_net::quic::Peer;
use planaria_net::quic::session::ReplicaSession;
use planaria_net::replica::{GoingOut, Primary, ReplicaState, Shaper};
use planaria_net::wire::message::{
    CloneAction, CloneInfo, CloneRole, CloneSpec, CloneTake, DatabaseStatus, Level, RemoteError, ReplicaInfo,
    Request, Response, Shape, WriteOptions,
};
use planaria_net::wire::rpc::{BoxFuture, Exchange};
use planaria_replication::ack::Level as AckLevel;
use planaria_types::Uid;

use super::leadership::Leadership;
use super::replicas::{replica_do, replica_info};
use super::{promotion, refresh};
use crate::clones::{CloneJob, Clones, PATIENCE_S, left_ms, order_of, purpose_of};
use crate::handler::{Companion, remote, unsupported};
use crate::shape::{self, NodeShaper};

/// How long a commit waits for other copies if the client does not say.
const ACK_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may have it wait: each wait takes one of the node's calls.
const PATIENCE_MAX: Duration = Duration::from_mins(1);

/// What a node does beyond its own database: it is followed, follows, and is cloned.
pub(super) struct NodeCompanion {
    pub(super) leadership: Arc<Leadership>,
    /// Makes what is given away of the database to who must not have all of it; whoever only looks at the node needs none.
    pub(super) shaper: Option<Arc<NodeShaper>>,
    pub(super) clones: Arc<Clones>,
}

impl NodeCompanion {
    pub(super) fn replicas(&self) -> Vec<ReplicaInfo> {
        let primary = self.leadership.serving();
        primary.map(|primary| primary.replicas().into_iter().map(replica_info).collect()).unwrap_or_default()
    }

    fn clone_here(&self, spec: &CloneSpec) -> Result<CloneInfo, RemoteError> {
        let asks_for_more = !spec.preserve.is_empty()
            || spec.rate_bytes_per_s.is_some()
            || spec.ttl_s.is_some()
            || spec.hydrating
            || spec.role != CloneRole::Detached
            || spec.target.is_some();
        if asks_for_more {
            return Err(unsupported(
                "this release makes detached clones on the node's own disk, complete at once",
            ));
        }
        let path = std::path::Path::new(&spec.name);
        if !path.is_absolute() {
            let mut error = RemoteError::new("usage", format!("{:?} is not an absolute path", spec.name));
            error.hint = "name the new directory on the node's disk from its root on".into();
            return Err(error);
        }
        clone_locally(&self.leadership.slot.get(), path, &shape_of(spec)).map(|record| clone_info(&record))
    }
}

impl NodeCompanion {
    fn clone_do(&self, name: &str, action: CloneAction) -> Result<CloneInfo, RemoteError> {
        let clones = &self.clones;
        match action {
            CloneAction::Wait => clones.wait(name, PATIENCE_MAX),
            CloneAction::Cancel => clones.cancel(name),
            CloneAction::Promote => clones.promote(name),
            CloneAction::Expire => clones.expire(name),
            CloneAction::Delete => clones.delete(name),
            CloneAction::Live(for_s) => clones.live(name, for_s),
            CloneAction::Rate(rate) => clones.set_rate(name, rate),
            CloneAction::Rollback => clones.roll_back(name),
            CloneAction::DeleteOld => clones.delete_old(name),
        }
    }

    /// While the lead changes hands the database may take commits that nobody else would acknowledge.
    fn accepts_without_a_lead(&self, level: Level) -> Result<(), RemoteError> {
        let db = self.leadership.slot.get();
        match db.deposed() {
            _ if level == Level::Local => Ok(()),
            Some(epoch) if db.role() == Role::Primary => Err(remote(planaria_engine::Error::Deposed(epoch))),
            _ => Err(remote(planaria_engine::Error::ReadOnly)),
        }
    }

    /// Has a majority of the promotable copies acknowledge a commit that comes after all that was shown so far.
    fn confirm(&self, timeout_ms: u32) -> Result<(), RemoteError> {
        let barrier = || -> planaria_engine::Result<_> {
            let Some(primary) = self.leadership.primary() else {
                return Err(planaria_engine::Error::ReadOnly);
            };
            let uid = primary.database().barrier()?;
            Ok((primary, uid))
        };
        let (primary, uid) = barrier().map_err(remote)?;
        primary.wait_acknowledged(uid, AckLevel::Quorum, patience(timeout_ms)).map_err(|unknown| {
            let mut error = RemoteError::new("unknown", format!("it is not known who leads: {unknown}"));
            error.hint = "ask again later, or read without --fresh what may be old".into();
            error
        })
    }
}

impl Companion for NodeCompanion {
    fn call(&self, peer: &Peer, request: Request, _: &mut Exchange) -> Result<Response, RemoteError> {
        let leadership = &self.leadership;
        match request {
            Request::Promote(wish) => promotion::promote(leadership, wish).map(Response::Promotion),
            Request::Promise { epoch, port } => {
                let leader = SocketAddr::new(peer.address.ip(), port);
                leadership.promise(epoch, leader).map(Response::Promised)
            }
            Request::HandOver { to } => leadership.hand_over(to).map(|end| Response::HandedOver { end }),
            Request::HandBack { from } => {
                leadership.take_back_lead(from);
                Ok(Response::Done)
            }
            Request::Follow { primary } => leadership.follow(primary).map(|()| Response::Done),
            Request::Confirm { timeout_ms } => self.confirm(timeout_ms).map(|()| Response::Done),
            Request::ReplicaList => Ok(Response::Replicas(self.replicas())),
            Request::ReplicaDo { name, action } => {
                let primary = leadership.serving().ok_or_else(|| {
                    let mut error = RemoteError::new("read_only", "this node neither leads nor follows");
                    error.hint = "ask the primary, which keeps the list of its secondaries".into();
                    error
                })?;
                replica_do(&primary, &name, action)?;
                Ok(Response::Replicas(self.replicas()))
            }
            Request::ReplicaRefresh { dry_run, way } => {
                Ok(Response::Refresh(refresh::refresh(leadership, dry_run, way.as_deref())?))
            }
            Request::RefreshPlan { history, durable, hash, way, portion } => {
                let way = way.as_deref();
                let plan = refresh::plan(leadership, &history, (durable, hash), way, portion.as_ref())?;
                Ok(Response::Refresh(plan))
            }
            Request::CloneCreate(spec) => Ok(Response::Clone(self.clone_here(&spec)?)),
            Request::CloneTake(take) => self.clones.start(job_of(*take)?).map(Response::Clone),
            Request::CloneList => {
                let taken = self.leadership.slot.get().clones().map_err(remote)?;
                let mut clones = self.clones.list();
                let going_out = self.leadership.serving().map(|serving| serving.going_out());
                clones.extend(going_out.iter().flatten().map(sending_info));
                clones.extend(taken.iter().map(clone_info));
                Ok(Response::Clones(clones))
            }
            Request::CloneShow { name } => self.clones.info(&name).map(Response::Clone),
            Request::CloneDo { name, action } => self.clone_do(&name, action).map(Response::Clone),
            _ => Err(unsupported("this release does not answer that request")),
        }
    }

    fn view(&self, name: &str) -> Result<Option<Database>, RemoteError> {
        self.clones.view(name)
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        match self.leadership.serving() {
            Some(primary) => {
                let shaper = self.shaper.clone().map(|shaper| shaper as Arc<dyn Shaper>);
                primary.take_over(session, shaper)
            }
            None => Box::pin(async move {
                session.close(
                    planaria_net::quic::CloseCode::Refused,
                    "this node neither leads nor follows: ask the primary",
                );
            }),
        }
    }

    fn accepts(&self, level: Level) -> Result<(), RemoteError> {
        let Some(primary) = self.leadership.primary() else { return self.accepts_without_a_lead(level) };
        let level = level_of(level, &primary);
        if primary.has_copies_for(level) {
            return Ok(());
        }
        let what =
            format!("the level {level} takes more promotable copies than there are; nothing was written");
        let mut error = RemoteError::new("too_few_copies", what);
        error.hint =
            "start a secondary and wait until `replica list` shows it as promotable, or write at level local"
                .into();
        Err(error)
    }

    fn wait(&self, uid: Uid, options: &WriteOptions) -> Result<(), RemoteError> {
        if options.level == Level::Local {
            return Ok(());
        }
        let Some(primary) = self.leadership.primary() else {
            let what = format!(
                "commit {uid} is durable here, but this node leads no more: whether it survives is unknown"
            );
            return Err(RemoteError::new("unknown", what));
        };
        let level = level_of(options.level, &primary);
        if level == AckLevel::Local {
            return Ok(());
        }
        primary.wait_acknowledged(uid, level, patience(options.timeout_ms)).map_err(|unknown| {
            let mut error = RemoteError::new("unknown", unknown.to_string());
            error.hint =
                "send it again with the same token: it is made once, here or on the node that leads then"
                    .into();
            error
        })
    }

    fn explain(&self, mut error: RemoteError) -> RemoteError {
        if matches!(error.code.as_str(), "deposed" | "read_only" | "handing_over" | "not_held")
            && error.hint.is_empty()
            && let Some(leader) = self.leadership.led_at()
        {
            error.hint = format!("the primary is at {leader}");
        }
        error
    }

    fn closed(&self) -> Option<Uid> {
        self.leadership.following().map(|(_, status)| status.replica.closed)
    }

    fn describe(&self, status: &mut DatabaseStatus) {
        if let Some((primary, following)) = self.leadership.following() {
            status.refresh = refresh::last(&following);
            status.notices.extend(following.outlook.map(|outlook| outlook.to_string()));
            let replica = following.replica;
            let displaced = (replica.displaced > 0).then(|| {
                format!(
                    "another process follows as this copy and has displaced it {} times: if its directory was copied, begin one of the two anew",
                    replica.displaced
                )
            });
            status.notices.extend(displaced);
            status.depth = u32::try_from(replica.chain.len()).unwrap_or(u32::MAX);
            let is_known = replica.primary_durable > Uid::ZERO;
            let visible = replica.visible.millis();
            let lag_ms = if replica.state == planaria_replication::secondary::State::Offline {
                // Of a primary that is not heard nothing newer is known than what it closed last.
                let known = visible.max(replica.closed.millis());
                self.leadership.slot.get().now_millis().saturating_sub(known)
            } else {
                replica.primary_durable.millis().saturating_sub(visible)
            };
            status.lag_ms = is_known.then_some(lag_ms);
            status.refreshed = following.detour.unwrap_or_default();
            status.state = match replica.last_end {
                Some(why) if replica.state == planaria_replication::secondary::State::Offline => {
                    format!("{} from {primary} ({why})", replica.state.name())
                }
                _ => replica.state.name().to_owned(),
            };
            status.stable = replica.stable;
            status.primary = primary.to_string();
        } else if let Some(leader) = self.leadership.leader() {
            status.primary = leader.to_string();
        }
        let given_up = |replica: ReplicaInfo| {
            let why = replica.given_up;
            (!why.is_empty()).then(|| format!("preserves nothing for {}: {why}", replica.node))
        };
        status.notices.extend(self.replicas().into_iter().filter_map(given_up));
        status.notices.extend(self.leadership.stands_back());
        let Some(serving) = self.leadership.serving() else { return };
        let back = |replica: ReplicaState| Some(format!("{}: {}", replica.name, replica.went_back?));
        status.notices.extend(serving.replicas().into_iter().filter_map(back));
        status.notices.extend(serving.doubts());
    }
}

/// The clone that is asked for, if this release can take such a one.
fn job_of(take: CloneTake) -> Result<CloneJob, RemoteError> {
    let CloneTake { spec, sources, dir, replace, patience_s } = take;
    let shape = shape_of(&spec);
    if order_of(&spec.name).is_some() {
        let what = format!("{:?} is called as a clone that a control center orders", spec.name);
        return Err(RemoteError::new("usage", what).with_hint("give it a name without '#' and a number"));
    }
    if spec.hydrating && (replace || !shape.is_whole()) {
        return Err(unsupported("a clone that is read while it comes in is whole, and replaces nothing"));
    }
    if spec.role == CloneRole::Store {
        return Err(unsupported("a backup is made with `planaria backup create`, and no clone of a node"));
    }
    if spec.role != CloneRole::Detached && !shape.is_whole() {
        return Err(unsupported(
            "a secondary holds what its primary holds: only a detached clone is not whole",
        ));
    }
    Ok(CloneJob {
        name: spec.name,
        dir: dir.map(Into::into).unwrap_or_default(),
        sources,
        purpose: purpose_of(spec.role),
        rate_bytes_per_s: spec.rate_bytes_per_s,
        ttl_s: spec.ttl_s,
        replace,
        preserve: spec.preserve,
        // What is read already is not taken away because its source has been silent for a while.
        patience_s: patience_s.unwrap_or(if spec.hydrating { u32::MAX } else { PATIENCE_S }),
        shape,
        lazy: spec.hydrating,
    })
}

/// What the source makes of its rows for a clone.
fn shape_of(spec: &CloneSpec) -> Shape {
    Shape {
        as_of: spec.as_of,
        leave_out: spec.leave_out.clone(),
        filters: spec.filters.clone(),
        masks: spec.masks.clone(),
    }
}

/// How long other copies are waited for.
fn patience(timeout_ms: u32) -> Duration {
    match timeout_ms {
        0 => ACK_PATIENCE,
        ms => Duration::from_millis(ms.into()).min(PATIENCE_MAX),
    }
}

/// The level that a commit waits for.
fn level_of(asked: Level, primary: &Primary) -> AckLevel {
    match asked {
        Level::Database => primary.level(),
        Level::Local => AckLevel::Local,
        Level::One => AckLevel::One,
        Level::Quorum => AckLevel::Quorum,
        Level::All => AckLevel::All,
    }
}

/// Clones a database on its own disk, or what `shape` leaves of it, and notes it, where the copy takes updates.
pub(crate) fn clone_locally(
    db: &Database,
    target: &std::path::Path,
    shape: &Shape,
) -> Result<CloneRecord, RemoteError> {
    let (cut, bytes) = if shape.is_whole() {
        let cloned = db.clone_to(target).map_err(remote)?;
        (cloned.position.uid, cloned.bytes)
    } else {
        shape::clone_shaped(db, target, shape)?
    };
    let record = CloneRecord {
        name: target.file_name().map_or_else(String::new, |name| name.display().to_string()),
        target: target.display().to_string(),
        role: Some(EngineRole::Detached),
        source: db.instance(),
        cut,
        bytes,
        created_ms: db.now_millis(),
    };
    if db.role() == planaria_engine::Role::Primary {
        db.record_clone(&record).map_err(remote)?;
    }
    Ok(record)
}

/// A clone that somebody takes of this node.
fn sending_info(clone: &GoingOut) -> CloneInfo {
    let per_second = u128::from(clone.sent_bytes) * 1_000 / u128::from(clone.elapsed_ms.max(1));
    let bytes_per_s = u64::try_from(per_second).ok();
    CloneInfo {
        name: "remote".into(),
        state: "sending".into(),
        target: clone.peer.to_string(),
        cut: Some(clone.cut),
        done_bytes: clone.sent_bytes,
        moved_bytes: clone.sent_bytes,
        total_bytes: Some(clone.total_bytes),
        bytes_per_s,
        left_ms: left_ms(clone.total_bytes.saturating_sub(clone.sent_bytes), bytes_per_s),
        ..CloneInfo::default()
    }
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
        ..CloneInfo::default()
    }
}
