//! Following the lead of a cluster.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use planaria_net::wire::routed::RoutedClient;
use planaria_net::wire::routes::TargetInfo;
use planaria_replication::secondary::State;
use tokio::sync::Notify;

use super::{Inner, ReplicaError};

/// How often it is looked whether somebody is heard.
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);

/// The control center is asked no more often than this, however many writes wait.
const BETWEEN_LOOKS_LEAST: Duration = Duration::from_millis(200);

/// A thread that has a replica follow whoever the control center says leads, while it hears nobody itself. It ends with this.
pub(super) struct Watch {
    over: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// It looks when nobody is heard, and when `lookout` is told that whoever is known does not lead.
    pub(super) fn begin(
        inner: &Arc<Inner>,
        routed: RoutedClient,
        lookout: Arc<Notify>,
    ) -> Result<Self, ReplicaError> {
        let over = Arc::new(Notify::new());
        let (runtime, inner, stop) = (inner.carrier.handle()?.clone(), Arc::clone(inner), Arc::clone(&over));
        let thread = std::thread::Builder::new().name("planaria-lead".into()).spawn(move || {
            // The pause is made inside the runtime, whose clock it needs.
            let pause = || {
                let told = async {
                    tokio::time::sleep(BETWEEN_LOOKS_LEAST).await;
                    tokio::time::timeout(BETWEEN_LOOKS, lookout.notified()).await.is_ok()
                };
                runtime.block_on(until(&stop, told))
            };
            while let Some(is_told) = pause() {
                if is_told || inner.following().replica.state == State::Offline {
                    let Some(leader) = runtime.block_on(until(&stop, routed.leader())) else { return };
                    turn_to(&inner, leader);
                }
            }
        });
        let thread = thread.map_err(|error| ReplicaError::Threads(error.to_string()))?;
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.over.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that looks for whoever leads has panicked");
        }
    }
}

/// What comes of the work; none if it is over before.
async fn until<T>(over: &Notify, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        () = over.notified() => None,
        done = work => Some(done),
    }
}

fn turn_to(inner: &Inner, leader: planaria_net::Result<Option<TargetInfo>>) {
    match leader {
        Ok(Some(leader)) if inner.primary().is_ok_and(|primary| primary != leader.address) => {
            if let Err(error) = inner.follow(leader.address) {
                tracing::debug!(%error, leader = %leader.address, "whoever leads cannot be followed yet");
            }
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "the control center does not say who leads"),
    }
}
