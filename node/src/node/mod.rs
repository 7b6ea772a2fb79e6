//! A node: a database that is served over the network, as a primary or as a secondary.

mod cloning;
mod companion;
mod copy_report;
mod errands;
mod leadership;
mod links;
mod observer;
mod open;
mod promotion;
mod refresh;
mod replicas;
mod reporter;
mod spare;
mod stores;
mod watch;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use planaria_backup::Place as StorePlace;
use planaria_engine::{Database, Options};
use planaria_net::quic::{AcceptLimits, Credentials, Endpoint, TlsStore, Transport};
use planaria_net::replica::{CloneProgress, FollowStatus, Slot, settle};
use planaria_net::wire::message::{RemoteError, ReplicaAction};
use planaria_net::wire::rpc::{ServeLimits, Server, serve};
use planaria_replication::ack::Level;
use tokio::runtime::Runtime;

use self::cloning::{Berth, Cloning};
use self::companion::NodeCompanion;
pub(crate) use self::companion::{clone_info, clone_locally};
use self::leadership::{Circumstances, Leadership};
pub(crate) use self::observer::{Observed, Observer};
use self::open::{Opened, open_secondary};
pub(crate) use self::replicas::{registered_do, registered_info};
use self::reporter::{Reporter, Reporting, Subject};
pub(crate) use self::spare::{Spare, leader_of_copy};
use self::stores::{Home, Stores};
use self::watch::Watch;
use crate::clones::{Clones, Taker};
use crate::cluster::Membership;
use crate::handler::{DatabaseHandler, remote};
use crate::output::CliError;
use crate::portion_text::Chosen;
use crate::shape::NodeShaper;

/// How long running calls may take to end when the node stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How a node is started.
pub(crate) struct NodeOptions {
    /// The directory of the database.
    pub(crate) dir: PathBuf,
    /// Where it listens.
    pub(crate) listen: SocketAddr,
    /// The primary that it follows, or another secondary, if it is a secondary.
    pub(crate) replica_of: Option<SocketAddr>,
    /// What it is to hold, if it is a partial secondary.
    pub(crate) only: Vec<Chosen>,
    /// Other secondaries, which refresh it when it is behind by more than the tail.
    pub(crate) refresh_from: Vec<SocketAddr>,
    /// The directory with the certificates.
    pub(crate) tls: Option<PathBuf>,
    /// The settings of its connections.
    pub(crate) transport: Transport,
    /// The level that the database prescribes from now on, if it changes.
    pub(crate) level: Option<Level>,
    /// How the database is opened.
    pub(crate) engine: Options,
    /// What it is in a cluster, if it belongs to one.
    pub(crate) membership: Option<Membership>,
    /// The stores of backups that it may speak to.
    pub(crate) stores: Vec<StorePlace>,
}

impl NodeOptions {
    /// A node on a free port of loopback whose directory lies in one with those of others, and with their certificates.
    pub(crate) fn beside_others(site: &Path, name: &str, engine: Options) -> Self {
        Self {
            dir: site.join(name),
            listen: ([127, 0, 0, 1], 0).into(),
            replica_of: None,
            only: Vec::new(),
            refresh_from: Vec::new(),
            tls: Some(site.join("tls")),
            transport: Transport::default(),
            level: None,
            engine,
            membership: None,
            stores: Vec::new(),
        }
    }
}

/// A node that runs.
pub(crate) struct Node {
    // In the order in which they end: nobody reports, nobody watches, nobody follows any more, then nobody listens.
    reporter: Option<Reporter>,
    watch: Option<Watch>,
    clones: Arc<Clones>,
    leadership: Arc<Leadership>,
    server: Option<Server>,
    slot: Slot,
    credentials: Credentials,
    name: String,
    address: SocketAddr,
    /// What the first copy took, if the directory was empty.
    first_copy: Option<(CloneProgress, SocketAddr)>,
    runtime: Arc<Runtime>,
}

impl Node {
    /// Opens the database and listens. A secondary whose directory is empty takes a copy of its primary first, which
    /// `progress` is told of.
    pub(crate) fn start(
        runtime: &Arc<Runtime>,
        options: &NodeOptions,
        progress: impl Fn(&CloneProgress) + Send + Sync + 'static,
    ) -> Result<Self, CliError> {
        settle(&options.dir, &*options.engine.os)?;
        let store = TlsStore::choose(options.tls.as_deref(), Some(&options.dir))?;
        let credentials = if options.tls.is_some() { store.load()? } else { store.load_or_create()? };
        let listen = || listen(runtime, options, &credentials);
        // A node that cannot listen leaves no directory behind. Of one that is there it is said first whether somebody has it open.
        let is_new = !options.engine.os.exists(&options.dir);
        let listening = is_new.then(listen).transpose()?;
        let Opened { db, first_copy, replica_of, portion, note } = match options.replica_of {
            None => Opened::alone(Database::open_with(&options.dir, options.engine.clone())?),
            Some(primary) => open_secondary(runtime, options, primary, &credentials, progress)?,
        };
        let name = node_name(&options.dir);
        let slot = Slot::new(db);
        let endpoint = listening.map_or_else(listen, Ok)?;
        let circumstances = Circumstances {
            name: name.clone(),
            address: endpoint.local_address(),
            credentials: credentials.clone(),
            transport: options.transport.clone(),
            engine: options.engine.clone(),
            level: options.level,
            portion,
            runtime: runtime.handle().clone(),
            siblings: options.refresh_from.clone(),
        };
        let leadership = Arc::new(Leadership::start(slot.clone(), circumstances, replica_of, note)?);
        let watch = Watch::start(Arc::clone(&leadership))?;
        let shaper = Arc::new(NodeShaper::new(&options.dir, &options.engine, runtime.handle().clone()));
        let clones = Arc::new(Clones::open(&options.dir, taker(runtime, options, &credentials))?);
        let (leads, takes) = (Arc::clone(&leadership), Arc::clone(&clones));
        let companion = NodeCompanion { leadership: leads, shaper: Some(shaper), clones: takes };
        let handler = Arc::new(DatabaseHandler::new(slot.clone(), &name, &name, Box::new(companion)));
        let _inside = runtime.enter();
        let server = serve(endpoint, handler, ServeLimits::default());
        let address = server.local_address();
        let reporter = options.membership.as_ref().map(|membership| -> Result<Reporter, CliError> {
            Reporter::start(Reporting {
                membership: membership.clone(),
                name: membership.name.clone().unwrap_or_else(|| name.clone()),
                database: name.clone(),
                port: address.port(),
                dir: options.dir.clone(),
                os: Arc::clone(&options.engine.os),
                subject: Subject::Copy(Arc::clone(&leadership)),
                cloning: Cloning::new(berth_beside(&options.dir, &clones)),
                stores: stores_of(options, &leadership)?,
                credentials: credentials.clone(),
                runtime: runtime.handle().clone(),
            })
        });
        Ok(Self {
            reporter: reporter.transpose()?,
            watch: Some(watch),
            clones,
            leadership,
            server: Some(server),
            slot,
            credentials,
            name,
            address,
            first_copy,
            runtime: Arc::clone(runtime),
        })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The database that it hosts now.
    pub(crate) fn database(&self) -> Database {
        self.slot.get()
    }

    /// Somebody who looks at it.
    pub(crate) fn observer(&self) -> Observer {
        Observer {
            name: self.name.clone(),
            leadership: Arc::clone(&self.leadership),
            clones: Arc::clone(&self.clones),
        }
    }

    /// The clones that it takes of other nodes' databases.
    #[cfg_attr(not(test), expect(dead_code, reason = "whoever is beside a node takes clones through it"))]
    pub(crate) fn clones(&self) -> &Arc<Clones> {
        &self.clones
    }

    /// Its certificate.
    pub(crate) fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// What it does as a secondary, if it is one.
    pub(crate) fn follow_status(&self) -> Option<FollowStatus> {
        self.leadership.following().map(|(_, status)| status)
    }

    /// Forgets a secondary of this primary, by its name.
    ///
    /// # Errors
    ///
    /// `connected` while it has a session, `read_only` if this node does not lead.
    pub(crate) fn forget(&self, replica: &str) -> Result<(), RemoteError> {
        let primary = self.leadership.primary().ok_or_else(|| remote(planaria_engine::Error::ReadOnly))?;
        replicas::replica_do(&primary, replica, ReplicaAction::Forget)
    }

    /// What the first copy took, and where it came from, if there was one.
    pub(crate) fn first_copy(&self) -> Option<&(CloneProgress, SocketAddr)> {
        self.first_copy.as_ref()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.reporter.take());
        drop(self.watch.take());
        self.clones.stop();
        self.leadership.stop();
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown(STOP_PATIENCE));
        }
    }
}

fn listen(
    runtime: &Runtime,
    options: &NodeOptions,
    credentials: &Credentials,
) -> planaria_net::Result<Endpoint> {
    let _inside = runtime.enter();
    Endpoint::server(options.listen, credentials, &options.transport, AcceptLimits::default())
}

/// What takes clones for a node: with a cache of its own rather than maps, for it reads each file once.
fn taker(runtime: &Arc<Runtime>, options: &NodeOptions, credentials: &Credentials) -> Taker {
    Taker {
        credentials: credentials.clone(),
        transport: options.transport.clone(),
        engine: Options { read_mode: planaria_engine::ReadMode::default(), ..options.engine.clone() },
        runtime: runtime.handle().clone(),
    }
}

/// The stores of backups that a node may speak to.
fn stores_of(options: &NodeOptions, leadership: &Arc<Leadership>) -> Result<Stores, CliError> {
    let home = Home::Copy { leadership: Arc::clone(leadership), beside: parent_of(&options.dir) };
    Stores::start(&options.stores, home, &options.engine)
}

/// Where the clones go that a node is told to make: beside its directory.
fn berth_beside(dir: &Path, clones: &Arc<Clones>) -> Berth {
    Berth::Beside { clones: Arc::clone(clones), dir: parent_of(dir) }
}

/// The directory that a node's own lies in.
fn parent_of(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).ok();
    absolute.as_deref().and_then(Path::parent).unwrap_or(Path::new("/")).to_path_buf()
}

/// The name of a node for people: that of its directory.
fn node_name(dir: &Path) -> String {
    dir.file_name().map_or_else(|| dir.display().to_string(), |name| name.display().to_string())
}
