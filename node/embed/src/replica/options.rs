use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use planaria_engine::{Options, Role};
use planaria_net::quic::{Credentials, TlsStore, Transport};
use planaria_net::replica::{Follow, Joined, Slot, open_partial, open_secondary, settle};
use planaria_net::wire::routed::RoutedClient;
use planaria_types::{KeyRange, Portion};
use tokio::sync::Notify;

use super::carrier::Carrier;
use super::forward::Forwarder;
use super::lead::Watch;
use super::{Held, Inner, Pursuit, Replica, ReplicaError};

/// How a replica is opened; [`super::ReplicaOf::replica_of`] begins it.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    primary: String,
    certificates: Option<PathBuf>,
    name: Option<String>,
    /// The tables that are held alone, and the keys of each; everything if there are none.
    only: Vec<(String, KeyRange)>,
    siblings: Vec<String>,
    cluster: Option<String>,
    options: Options,
}

impl ReplicaOptions {
    pub(super) fn new(primary: String) -> Self {
        let (only, siblings, options) = (Vec::new(), Vec::new(), Options::default());
        Self { primary, certificates: None, name: None, only, siblings, cluster: None, options }
    }

    /// The directory with this application's certificate, its key, and the authority that it and the primary have in
    /// common. Without one it is `tls` in the copy's directory if there is such a one, else the user's own, which
    /// suffices on one machine.
    #[must_use]
    pub fn certificates(mut self, dir: impl Into<PathBuf>) -> Self {
        self.certificates = Some(dir.into());
        self
    }

    /// The name under which the primary lists the replica; the name of its directory by default.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Has the replica hold this table alone, with others that are named likewise: a partial copy. It is told nothing of the
    /// rest, follows in rounds, a fraction of a second apart, and refuses reads of what it does not hold (`not_held`). A new
    /// one holds nothing until its first round.
    #[must_use]
    pub fn only(self, table: impl Into<String>) -> Self {
        self.only_keys(table, KeyRange::ALL)
    }

    /// As [`ReplicaOptions::only`], the keys of one range alone; a table's keys are those that [`planaria_engine::Table`]
    /// takes.
    #[must_use]
    pub fn only_keys(mut self, table: impl Into<String>, keys: KeyRange) -> Self {
        self.only.push((table.into(), keys));
        self
    }

    /// Another secondary of the same database (HOST:PORT), which brings the copy what it lacks, so that the primary sends only the
    /// tail; may be repeated. Where none can, the primary does, and [`super::ReplicaStatus::refreshed`] says why.
    #[must_use]
    pub fn refresh_from(mut self, sibling: impl Into<String>) -> Self {
        self.siblings.push(sibling.into());
        self
    }

    /// Has the replica ask the control center at this address (HOST:PORT) who leads when it hears nobody: it follows that one
    /// then, and writes that wait go there. Without it, [`Replica::follow`] tells it.
    #[must_use]
    pub fn cluster(mut self, center: impl Into<String>) -> Self {
        self.cluster = Some(center.into());
        self
    }

    /// How the local copy is opened: memory, cache, how files are read.
    #[must_use]
    pub fn options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Opens the copy in `dir`, and follows the primary in the background from then on. The first time this takes all
    /// of the primary's data, and the primary must be there; later it need not.
    ///
    /// # Errors
    ///
    /// `not_a_database` and `foreign_database` if the directory holds something else, `in_use` if another process has
    /// the copy open, `partial_copy` and `whole_copy` if it is to hold everything and holds a portion, or the other way
    /// round, and what the network says if the primary is needed and does not answer.
    pub fn open(self, dir: impl AsRef<Path>) -> Result<Replica, ReplicaError> {
        let (dir, primary) = (dir.as_ref().to_path_buf(), address_of(&self.primary)?);
        let siblings =
            self.siblings.iter().map(|sibling| address_of(sibling)).collect::<Result<Vec<_>, _>>()?;
        let center = self.cluster.as_deref().map(address_of).transpose()?;
        settle(&dir, &*self.options.os)?;
        let credentials = self.credentials(&dir)?;
        let carrier = Carrier::start()?;
        let portion = if self.only.is_empty() { None } else { Some(Portion::new(self.only)?) };
        let opened = {
            let (dir, credentials, options) = (dir.clone(), credentials.clone(), self.options.clone());
            let (is_partial, siblings) = (portion.is_some(), siblings.clone());
            let open = async move {
                if is_partial {
                    let db = open_partial(&dir, primary, &credentials, &options).await?;
                    return Ok(Joined { db, first_copy: None, note: None });
                }
                let network = (&credentials, &Transport::default());
                open_secondary(&dir, primary, &siblings, network, &options, |_| {}).await
            };
            carrier.run(open)??
        };
        let database = opened.db;
        debug_assert_eq!(database.role(), Role::Secondary, "it was opened as one");
        let follow = Follow {
            primary,
            name: self.name.unwrap_or_else(|| name_of(&dir)),
            port: None,
            portion,
            credentials: credentials.clone(),
            transport: Transport::default(),
            options: self.options,
            siblings,
            note: opened.note,
            pace: None,
        };
        let id = database.id();
        let lookout = center.map(|_| Arc::new(Notify::new()));
        let forwarder = Arc::new(Forwarder::new(primary, credentials.clone(), id, lookout.clone()));
        let slot = Slot::new(database);
        let pursuit = Mutex::new(Some(Pursuit::begin(&slot, &follow, &carrier)?));
        let inner = Arc::new(Inner { pursuit, forwarder, slot, follow, carrier });
        let watch = center.zip(lookout).map(|(center, lookout)| {
            let routed = RoutedClient::new(center, Some(&id.to_string()), credentials);
            Watch::begin(&inner, routed, lookout)
        });
        Ok(Replica(Arc::new(Held { _watch: watch.transpose()?, inner })))
    }

    fn credentials(&self, dir: &Path) -> Result<Credentials, ReplicaError> {
        let store = TlsStore::choose(self.certificates.as_deref(), Some(dir))?;
        Ok(if self.certificates.is_some() { store.load()? } else { store.load_or_create()? })
    }
}

fn name_of(dir: &Path) -> String {
    dir.file_name().map_or_else(|| dir.display().to_string(), |name| name.display().to_string())
}

/// The first address that a name stands for.
pub(super) fn address_of(address: &str) -> Result<SocketAddr, ReplicaError> {
    let wrong = |why: String| ReplicaError::Address { address: address.to_owned(), why };
    let mut found = address.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("the name stands for nothing".into()))
}
