use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use planaria_engine::os::Os;
use planaria_net::quic::session::ReplicaSession;
use planaria_net::quic::{CloseCode, Peer};
use planaria_net::wire::control::{ControlRequest, ControlResponse, JoinToken};
use planaria_net::wire::message::{Call, RemoteError, Request, Response, Status};
use planaria_net::wire::rpc::{BoxFuture, Exchange, Handler};
use planaria_replication::Millis;
use planaria_replication::control::Ceiling;

use crate::center::{Center, Now, Settings};
use crate::{Catalog, Result};

/// A control center behind the client protocol. One request at a time: each is short.
pub struct ControlHandler {
    center: Mutex<Center>,
    settings: Settings,
    os: Arc<dyn Os>,
}

impl ControlHandler {
    /// A control center over a catalog, with the clocks and the randomness of `os`.
    pub fn new(catalog: Box<dyn Catalog>, settings: Settings, os: Arc<dyn Os>) -> Result<Self> {
        let center = Center::new(catalog, settings, now(&*os))?;
        Ok(Self { center: Mutex::new(center), settings, os })
    }

    /// What a node must say to join.
    pub fn token(&self) -> JoinToken {
        self.center.lock().token()
    }

    fn answer(&self, host: IpAddr, request: ControlRequest) -> Result<ControlResponse> {
        let now = now(&*self.os);
        let mut center = self.center.lock();
        if !matches!(request, ControlRequest::Join(_) | ControlRequest::Report(_)) {
            // What time has done shows though nobody reports any more.
            // A disk that is full must not hide who leads.
            if let Err(error) = center.tick(now) {
                tracing::warn!(code = error.code(), %error, "what has changed with time cannot be written down");
            }
        }
        Ok(match request {
            ControlRequest::Join(join) => {
                let session = self.os.random_u64();
                center.join(now, host, &join, session)?;
                ControlResponse::Joined { session }
            }
            ControlRequest::Report(report) => {
                let orders = center.report(now, &report)?;
                let measure = center.to_measure(now, report.session);
                let report_every_ms = self.settings.report_every_ms;
                ControlResponse::Orders { orders, report_every_ms, measure }
            }
            ControlRequest::Leads => ControlResponse::Leads(center.leads(now)),
            ControlRequest::Databases => ControlResponse::Databases(center.databases(now)),
            ControlRequest::Nodes => ControlResponse::Nodes(center.nodes(now)),
            ControlRequest::Links => ControlResponse::Links(center.links()),
            ControlRequest::Instances => ControlResponse::Instances(center.instances(now)),
            ControlRequest::History { limit } => ControlResponse::History(center.history(limit)?),
            ControlRequest::ChooseSource { to, database, period_ms, as_of } => {
                let database = database.as_deref();
                ControlResponse::Source(center.choose_source(now, &to, database, period_ms, as_of)?)
            }
            ControlRequest::Route { database, staleness_max_ms } => {
                ControlResponse::Route(center.route(now, database.as_deref(), staleness_max_ms)?)
            }
            ControlRequest::SetMode { database, mode } => {
                center.set_mode(now, &database, mode)?;
                ControlResponse::Databases(center.databases(now))
            }
            ControlRequest::RemoveNode { name, reason, force } => {
                center.remove_node(now, &name, &reason, force)?;
                ControlResponse::Nodes(center.nodes(now))
            }
            ControlRequest::Token => token_of(&center),
            ControlRequest::RenewToken => {
                let drawn = u128::from(self.os.random_u64()) << 64 | u128::from(self.os.random_u64());
                center.renew_token(now, JoinToken(drawn))?;
                token_of(&center)
            }
            request => return answer_of_clones(&mut center, now, request),
        })
    }
}

fn token_of(center: &Center) -> ControlResponse {
    let older_nodes = center.contents().admissions.len() as u32;
    ControlResponse::Token { token: center.token(), older_nodes }
}

/// Answers what is asked of clones, and of what has them made.
fn answer_of_clones(center: &mut Center, now: Now, request: ControlRequest) -> Result<ControlResponse> {
    Ok(match request {
        ControlRequest::CloneCreate(wish) => {
            let job = center.submit_clone(now, &wish, "an operator")?;
            ControlResponse::Clones(vec![center.clone_info(job)?])
        }
        ControlRequest::Clones { limit } => ControlResponse::Clones(center.clone_infos(limit)?),
        ControlRequest::CloneShow { job } => ControlResponse::Clones(vec![center.clone_info(job)?]),
        ControlRequest::CloneCancel { job } => {
            center.cancel_clone(now, job)?;
            ControlResponse::Clones(vec![center.clone_info(job)?])
        }
        ControlRequest::CloneRate { job, bytes_per_s } => {
            center.set_clone_rate(now, job, bytes_per_s)?;
            ControlResponse::Clones(vec![center.clone_info(job)?])
        }
        ControlRequest::Limits => ControlResponse::Limits(center.limit_infos()),
        ControlRequest::SetLimit { gate, clones_max, bytes_per_s_max } => {
            center.set_limit(now, &gate, Ceiling { clones_max, bytes_per_s_max })?;
            ControlResponse::Limits(center.limit_infos())
        }
        ControlRequest::Schedules => ControlResponse::Schedules(center.schedules()),
        ControlRequest::SetSchedule { name, when, wish } => {
            center.set_schedule(now, &name, &when, &wish)?;
            ControlResponse::Schedules(center.schedules())
        }
        ControlRequest::RemoveSchedule { name } => {
            center.remove_schedule(now, &name)?;
            ControlResponse::Schedules(center.schedules())
        }
        ControlRequest::Rules => ControlResponse::Rules(center.rules()),
        ControlRequest::SetRule(rule) => {
            center.set_rule(now, &rule)?;
            ControlResponse::Rules(center.rules())
        }
        ControlRequest::RemoveRule { name } => {
            center.remove_rule(now, &name)?;
            ControlResponse::Rules(center.rules())
        }
        ControlRequest::Topology => ControlResponse::Topology(Box::new(center.topology())),
        ControlRequest::ApplyTopology { topology, dry_run } => {
            ControlResponse::TopologyChanges(center.apply_topology(now, &topology, dry_run)?)
        }
        ControlRequest::Stores => ControlResponse::Stores(center.stores(now)),
        ControlRequest::SetStore { database, spec } => {
            center.set_store(now, database.as_deref(), &spec)?;
            ControlResponse::Stores(center.stores(now))
        }
        ControlRequest::RemoveStore { database, place } => {
            center.remove_store(now, database.as_deref(), &place)?;
            ControlResponse::Stores(center.stores(now))
        }
        ControlRequest::Wants => ControlResponse::Wants(center.wants(now)),
        ControlRequest::SetWant { database, standbys, backups } => {
            center.set_want(now, &database, standbys, backups)?;
            ControlResponse::Wants(center.wants(now))
        }
        _ => {
            return Err(crate::Error::refused("unsupported", "this release does not know that request", ""));
        }
    })
}

fn now(os: &dyn Os) -> Now {
    Now { at: Millis(os.monotonic().as_millis() as u64), wall_ms: os.now_millis() }
}

impl Handler for ControlHandler {
    fn call(&self, peer: &Peer, call: Call, _: &mut Exchange) -> Result<Response, RemoteError> {
        match call.request {
            Request::Ping => Ok(Response::Done),
            Request::Status => Ok(Response::Status(Status {
                node: "control".into(),
                software: concat!("planaria ", env!("CARGO_PKG_VERSION")).into(),
                databases: Vec::new(),
            })),
            Request::Control(request) => {
                Ok(Response::Control(Box::new(self.answer(peer.address.ip(), *request)?)))
            }
            _ => {
                let mut error =
                    RemoteError::new("unsupported", "this is a control center, and hosts no database");
                error.hint = "ask a node; `planaria cluster nodes` has their addresses".into();
                Err(error)
            }
        }
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        Box::pin(async move {
            session.close(CloseCode::Refused, "this is a control center, and hosts no database");
        })
    }
}

#[cfg(test)]
#[path = "handler_tests.rs"]
mod tests;
