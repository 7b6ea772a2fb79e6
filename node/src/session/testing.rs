//! A node in the process of a test, so that tests meet both kinds of sessions.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use planaria_engine::Database;
use planaria_net::quic::{AcceptLimits, Endpoint, TlsStore, Transport};
use planaria_net::wire::rpc::{ServeLimits, Server, serve};
use tokio::runtime::Runtime;

use super::{IfAbsent, LocalSession, RemoteSession, Session};
use crate::handler::{Alone, DatabaseHandler};

/// A node with an empty database of its own.
pub(crate) struct TestNode {
    runtime: Runtime,
    server: Option<Server>,
    dir: tempfile::TempDir,
}

impl TestNode {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = TlsStore::named(dir.path().join("tls"));
        store.create().unwrap();
        let database = Database::open(dir.path().join("db")).unwrap();
        let handler = DatabaseHandler::new(
            planaria_net::replica::Slot::new(database),
            "test",
            "birds",
            Box::new(Alone),
        );
        let runtime = Runtime::new().unwrap();
        let server = {
            let _entered = runtime.enter();
            let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            let credentials = store.load().unwrap();
            let endpoint =
                Endpoint::server(loopback, &credentials, &Transport::default(), AcceptLimits::default())
                    .unwrap();
            serve(endpoint, Arc::new(handler), ServeLimits::default())
        };
        Self { runtime, server: Some(server), dir }
    }

    pub(crate) fn address(&self) -> String {
        self.server.as_ref().unwrap().local_address().to_string()
    }

    pub(crate) fn tls(&self) -> std::path::PathBuf {
        self.dir.path().join("tls")
    }

    pub(crate) fn session(&self) -> RemoteSession {
        RemoteSession::connect(&self.address(), Some(&self.tls())).unwrap()
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.shutdown(Duration::from_secs(5)));
        }
    }
}

/// Runs a test on a database in a directory, then on a node.
pub(crate) fn on_both(test: impl Fn(&dyn Session)) {
    let dir = tempfile::tempdir().unwrap();
    test(&local(dir.path()));
    let node = TestNode::start();
    test(&node.session());
}

pub(crate) fn local(dir: &Path) -> LocalSession {
    LocalSession::open(&dir.join("db"), IfAbsent::Create).unwrap()
}
