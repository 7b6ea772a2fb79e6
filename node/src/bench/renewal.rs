//! A clone that is brought up to date after some of its source has changed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use planaria_engine::{ClonePurpose, Options};
use planaria_net::quic::Transport;
use planaria_net::replica::{CloneProgress, Pace};
use planaria_net::wire::message::Shape;
use tokio::runtime::Handle;

use crate::clones::{Audience, CloneJob, Taker};
use crate::node::Node;
use crate::output::CliError;
use crate::stopwatch::Stopwatch;

/// How a clone came.
pub(super) struct Taken {
    pub(super) took: Duration,
    /// Bytes that came in.
    pub(super) bytes: u64,
    /// By which way, and why.
    pub(super) way: String,
}

#[derive(Default)]
struct Told {
    way: Mutex<String>,
    progress: Mutex<CloneProgress>,
}

impl Audience for Told {
    fn begins(&self, _: SocketAddr) {}

    fn progress(&self, progress: &CloneProgress) {
        self.progress.lock().clone_from(progress);
    }

    fn way(&self, way: &str) {
        way.clone_into(&mut self.way.lock());
    }

    fn trouble(&self, _: SocketAddr, _: &str) {}
}

/// Takes a clone of `source` into `target`, or has one that is there replaced, as the command line does.
pub(super) fn take(source: &Node, runtime: &Handle, target: &Path) -> Result<Taken, CliError> {
    let job = CloneJob {
        name: "bench".to_owned(),
        dir: target.to_path_buf(),
        sources: vec![source.address()],
        purpose: ClonePurpose::Detached,
        rate_bytes_per_s: None,
        ttl_s: None,
        replace: true,
        preserve: Vec::new(),
        patience_s: 0,
        shape: Shape::default(),
        lazy: false,
    };
    let engine = Options::default();
    let created_ms = engine.os.now_millis();
    let (credentials, transport) = (source.credentials().clone(), Transport::default());
    let taker = Taker { credentials, transport, engine, runtime: runtime.clone() };
    let told = Arc::new(Told::default());
    let stopwatch = Stopwatch::start();
    taker.take(&job, created_ms, &Arc::new(Pace::default()), &told)?;
    let took = stopwatch.elapsed();
    let bytes = {
        let progress = told.progress.lock();
        progress.done_bytes.saturating_sub(progress.linked_bytes)
    };
    Ok(Taken { took, bytes, way: told.way.lock().clone() })
}
