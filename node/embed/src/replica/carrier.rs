use std::future::Future;
use std::sync::mpsc::sync_channel;

use tokio::runtime::{Builder, Handle, Runtime};

use super::ReplicaError;

/// Threads that carry the connections of a replica; the application needs no runtime of its own, and may have one.
#[derive(Debug)]
pub(super) struct Carrier(Option<Runtime>);

impl Carrier {
    /// QUIC and its cryptography; the engine has threads of its own.
    const THREADS: usize = 2;

    pub(super) fn start() -> Result<Self, ReplicaError> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(Self::THREADS).thread_name("planaria-net").enable_all();
        let runtime = builder.build().map_err(|error| ReplicaError::Threads(error.to_string()))?;
        Ok(Self(Some(runtime)))
    }

    pub(super) fn handle(&self) -> Result<&Handle, ReplicaError> {
        self.0.as_ref().map(Runtime::handle).ok_or(ReplicaError::Closed)
    }

    /// Has the threads do something, and waits for it. The caller may be inside a runtime, which `block_on` would not
    /// allow.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, ReplicaError> {
        let (done, result) = sync_channel(1);
        self.handle()?.spawn(async move {
            // Whoever waits is still there: it is this call.
            let _ = done.send(work.await);
        });
        result.recv().map_err(|_| ReplicaError::Closed)
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        // A runtime that is dropped inside another one panics; this one only stops.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
