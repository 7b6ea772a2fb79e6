//! A node that hosts nothing yet: it waits until the control center gives it a copy.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use planaria_engine::{Database, Error, Options};
use planaria_net::quic::session::ReplicaSession;
use planaria_net::quic::{AcceptLimits, CloseCode, Endpoint, Peer, TlsStore};
use planaria_net::wire::control::{ControlRequest, ControlResponse};
use planaria_net::wire::message::{Call, RemoteError, Request, Response, Status};
use planaria_net::wire::rpc::{BoxFuture, Exchange, Handler, ServeLimits, Server, serve};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

use super::cloning::{Berth, Cloning};
use super::reporter::{Reporter, Reporting, Subject};
use super::stores::{Home, Stores};
use super::{NodeOptions, STOP_PATIENCE, node_name};
use crate::cluster::ControlClient;
use crate::output::CliError;

/// How long a node waits before it asks again who leads.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A node that waits for its copy.
pub(crate) struct Spare {
    // In the order in which they end: nobody reports any more, then nobody listens.
    reporter: Option<Reporter>,
    server: Option<Server>,
    address: SocketAddr,
    seeded: Option<oneshot::Receiver<()>>,
    runtime: Arc<Runtime>,
}

impl Spare {
    /// Whether a node with these options has its copy already.
    pub(crate) fn has_copy(options: &NodeOptions) -> Result<bool, CliError> {
        let engine = Options { create: false, ..options.engine.clone() };
        match Database::open_with(&options.dir, engine) {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Listens, joins the cluster, and makes the copy that it is told to.
    pub(crate) fn start(runtime: &Arc<Runtime>, options: &NodeOptions) -> Result<Self, CliError> {
        let membership = options.membership.clone().ok_or_else(|| {
            CliError::usage("a spare node waits for what a control center says, and none is given")
                .hint("give --control ADDR and --join-token TOKEN")
        })?;
        let name = node_name(&options.dir);
        let store = TlsStore::choose(options.tls.as_deref(), Some(&options.dir))?;
        let credentials = if options.tls.is_some() { store.load()? } else { store.load_or_create()? };
        let _inside = runtime.enter();
        let limits = AcceptLimits::default();
        let endpoint = Endpoint::server(options.listen, &credentials, &options.transport, limits)?;
        let server = serve(endpoint, Arc::new(Nothing { node: name.clone() }), ServeLimits::default());
        let address = server.local_address();
        // A directory that was made for the copy and is empty is in its way.
        let _ = std::fs::remove_dir(&options.dir);
        let cloning = Cloning::new(Berth::Own {
            dir: options.dir.clone(),
            role: membership.role,
            credentials: credentials.clone(),
            transport: options.transport.clone(),
            engine: Box::new(options.engine.clone()),
            runtime: runtime.handle().clone(),
        });
        let home = Home::Spare { dir: options.dir.clone(), role: membership.role };
        let stores = Stores::start(&options.stores, home, &options.engine)?;
        let (tell, seeded) = oneshot::channel();
        let reporter = Reporter::start(Reporting {
            name: membership.name.clone().unwrap_or_else(|| name.clone()),
            membership,
            database: name,
            port: address.port(),
            dir: existing_parent(&options.dir),
            os: Arc::clone(&options.engine.os),
            subject: Subject::Spare { seeded: tell },
            cloning,
            stores,
            credentials,
            runtime: runtime.handle().clone(),
        })?;
        Ok(Self {
            reporter: Some(reporter),
            server: Some(server),
            address,
            seeded: Some(seeded),
            runtime: Arc::clone(runtime),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has its copy. False if it never will.
    pub(crate) async fn seeded(&mut self) -> bool {
        match self.seeded.take() {
            Some(seeded) => seeded.await.is_ok(),
            None => false,
        }
    }
}

impl Drop for Spare {
    fn drop(&mut self) {
        drop(self.reporter.take());
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown(STOP_PATIENCE));
        }
    }
}

/// Asks the control center who leads the database of the copy in a directory, until it knows.
pub(crate) fn leader_of_copy(
    runtime: &Runtime,
    options: &NodeOptions,
    mut is_stopped: impl FnMut(Duration) -> bool,
) -> Result<Option<SocketAddr>, CliError> {
    let Some(membership) = &options.membership else { return Ok(None) };
    let database = {
        let engine = Options { create: false, ..options.engine.clone() };
        Database::open_with(&options.dir, engine)?.id()
    };
    let store = TlsStore::choose(options.tls.as_deref(), Some(&options.dir))?;
    let credentials = if options.tls.is_some() { store.load()? } else { store.load_or_create()? };
    loop {
        let asked = ControlClient::connect(runtime.handle(), membership.control, &credentials)
            .and_then(|client| client.call(ControlRequest::Leads));
        match asked {
            Ok(ControlResponse::Leads(leads)) => {
                if let Some(lead) = leads.into_iter().find(|lead| lead.database == database) {
                    return Ok(Some(lead.address));
                }
                tracing::warn!("nobody is heard to lead the database of this copy: waits");
            }
            Ok(_) => return Err(crate::cluster::wrong_answer(membership.control)),
            Err(error) => tracing::warn!(%error, "the control center cannot say who leads: waits"),
        }
        if is_stopped(ASK_AGAIN_AFTER) {
            return Ok(None);
        }
    }
}

/// The nearest directory that is there: its disk is the one that a copy will take.
fn existing_parent(dir: &Path) -> std::path::PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
    absolute.ancestors().find(|dir| dir.exists()).unwrap_or(Path::new("/")).to_path_buf()
}

/// What a node answers that hosts nothing.
struct Nothing {
    node: String,
}

impl Handler for Nothing {
    fn call(&self, _: &Peer, call: Call, _: &mut Exchange) -> Result<Response, RemoteError> {
        match call.request {
            Request::Ping => Ok(Response::Done),
            Request::Status => Ok(Response::Status(Status {
                node: self.node.clone(),
                software: concat!("planaria ", env!("CARGO_PKG_VERSION")).into(),
                databases: Vec::new(),
            })),
            _ => {
                let mut error = RemoteError::new("spare", "this node hosts no database yet");
                error.hint = "ask another one; the control center gives this one a copy".into();
                Err(error)
            }
        }
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        Box::pin(async move { session.close(CloseCode::Refused, "this node hosts no database yet") })
    }
}
