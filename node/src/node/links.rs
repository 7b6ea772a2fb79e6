//! Round trips to other nodes, measured for the control center: it says to whom, few at a time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use planaria_net::quic::Credentials;
use planaria_net::wire::client::Client;
use planaria_net::wire::links::{LinkPeer, LinkReport, PEERS_MAX};
use planaria_net::wire::message::Request;
use tokio::runtime::Handle;

use crate::output::CliError;
use crate::stopwatch::Stopwatch;

/// Questions of one probe: the quickest answer counts, as what a busy machine adds says nothing of the way.
const QUESTIONS: u32 = 4;
/// A node that answers nothing for so long cannot be reached.
const PATIENCE: Duration = Duration::from_secs(5);
/// Measurements that the control center has not heard of yet, at most.
const UNTOLD_MAX: usize = PEERS_MAX;

/// The round trips that a node measures.
pub(super) struct Links {
    credentials: Credentials,
    runtime: Handle,
    measured: Arc<Mutex<Measured>>,
}

#[derive(Default)]
struct Measured {
    /// Nodes that are being asked.
    asked: BTreeSet<String>,
    /// What the control center has not heard of yet.
    untold: Vec<LinkReport>,
}

impl Links {
    pub(super) fn new(credentials: Credentials, runtime: Handle) -> Self {
        Self { credentials, runtime, measured: Arc::default() }
    }

    /// Measures the round trip to each of these nodes, in the background. `known` is what a connection that is there tells
    /// of the way to an address.
    pub(super) fn measure(&self, peers: Vec<LinkPeer>, known: impl Fn(SocketAddr) -> Option<Duration>) {
        for peer in peers {
            let mut measured = self.measured.lock();
            if measured.asked.len() + measured.untold.len() >= UNTOLD_MAX {
                return;
            }
            if let Some(round_trip) = known(peer.address) {
                measured.tell(&peer.node, Ok(round_trip));
            } else if measured.asked.insert(peer.node.clone()) {
                drop(measured);
                self.runtime.spawn(probe(peer, self.credentials.clone(), Arc::clone(&self.measured)));
            }
        }
    }

    /// What was measured and not told yet.
    pub(super) fn reports(&self) -> Vec<LinkReport> {
        self.measured.lock().untold.clone()
    }

    /// The control center knows of the first so many.
    pub(super) fn told(&self, count: usize) {
        let untold = &mut self.measured.lock().untold;
        untold.drain(..count.min(untold.len()));
    }
}

impl Measured {
    fn tell(&mut self, to: &str, round_trip: Result<Duration, CliError>) {
        let (round_trip_us, what) = match round_trip {
            Ok(round_trip) => (u64::try_from(round_trip.as_micros()).ok(), String::new()),
            Err(error) => (None, error.to_string()),
        };
        self.untold.push(LinkReport { to: to.to_owned(), round_trip_us, what });
    }
}

async fn probe(peer: LinkPeer, credentials: Credentials, measured: Arc<Mutex<Measured>>) {
    let asked = tokio::time::timeout(PATIENCE, round_trip(peer.address, &credentials)).await;
    let round_trip = asked.unwrap_or_else(|_| {
        let what = format!("{} at {} did not answer in {PATIENCE:?}", peer.node, peer.address);
        Err(CliError::new("timed_out", what))
    });
    if let Err(error) = &round_trip {
        tracing::debug!(node = peer.node, %error, "the round trip to a node cannot be measured");
    }
    let mut measured = measured.lock();
    measured.asked.remove(&peer.node);
    measured.tell(&peer.node, round_trip);
}

/// The round trip over a connection that is made for it.
async fn round_trip(address: SocketAddr, credentials: &Credentials) -> Result<Duration, CliError> {
    let client = Client::connect(address, credentials).await?;
    let mut least = Duration::MAX;
    for _ in 0..QUESTIONS {
        let stopwatch = Stopwatch::start();
        client.call(Request::Ping).await?;
        least = least.min(stopwatch.elapsed());
    }
    client.close().await;
    Ok(least)
}
