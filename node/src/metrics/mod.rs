//! What a node tells those who watch over it, over plain HTTP: whether it lives, whether it is ready, its figures.

mod figures;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

use self::figures::render;
use crate::node::{Observed, Observer};
use crate::output::CliError;

/// Requests that are answered at a time; more are told to come back.
const REQUESTS_MAX: usize = 8;

/// A server of figures, until it is dropped.
pub(crate) struct Metrics {
    address: SocketAddr,
    /// Dropping it ends the server.
    _stop: oneshot::Sender<()>,
}

/// What the requests share.
struct Shared {
    observer: Observer,
    room: Arc<Semaphore>,
}

impl Metrics {
    /// Listens, and answers with what the observer sees.
    ///
    /// # Errors
    ///
    /// `io` if the address cannot be listened at.
    pub(crate) fn start(listen: SocketAddr, observer: Observer, runtime: &Handle) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| {
            CliError::new("io", format!("cannot listen at {listen} for metrics: {error}"))
                .hint("choose another address for --metrics, or port 0 for a free one")
        };
        let listener = runtime.block_on(TcpListener::bind(listen)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        if !address.ip().is_loopback() {
            tracing::warn!(%address, "figures can be read from other machines, by anybody, unencrypted");
        }
        let shared = Arc::new(Shared { observer, room: Arc::new(Semaphore::new(REQUESTS_MAX)) });
        let router = Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/status", get(status))
            .route("/metrics", get(metrics))
            .with_state(shared);
        let (stop, stopped) = oneshot::channel::<()>();
        runtime.spawn(async move {
            tokio::select! {
                served = axum::serve(listener, router) => {
                    if let Err(error) = served {
                        tracing::error!(%error, "figures are not served any more");
                    }
                }
                _ = stopped => {}
            }
        });
        Ok(Self { address, _stop: stop })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Looks at the node on a thread that may wait for disks.
async fn observe(shared: Arc<Shared>) -> Result<Observed, Response> {
    let Ok(permit) = Arc::clone(&shared.room).try_acquire_owned() else {
        return Err((StatusCode::SERVICE_UNAVAILABLE, "too many requests at a time\n").into_response());
    };
    let observed = tokio::task::spawn_blocking(move || {
        // Whoever asked may be gone; the thread is taken until this ends.
        let _permit = permit;
        shared.observer.observe()
    });
    let observed = observed.await;
    let refuse = |why: String| (StatusCode::INTERNAL_SERVER_ERROR, format!("{why}\n")).into_response();
    match observed {
        Ok(Ok(observed)) => Ok(observed),
        Ok(Err(error)) => Err(refuse(error.to_string())),
        Err(error) => Err(refuse(error.to_string())),
    }
}

/// Whether reads here show what the primary has: a primary that leads, a secondary that is online.
async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    match observe(shared).await {
        Ok(observed) if observed.is_ready() => "ok\n".into_response(),
        Ok(observed) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", observed.status.state)).into_response()
        }
        Err(response) => response,
    }
}

async fn status(State(shared): State<Arc<Shared>>) -> Response {
    match observe(shared).await {
        Ok(observed) => {
            let json = serde_json::json!({
                "name": observed.status.name,
                "database": observed.status.database.to_string(),
                "instance": observed.status.instance.to_string(),
                "state": observed.status.state,
                "epoch": observed.status.epoch.to_string(),
                "visible": observed.status.visible.to_string(),
                "durable": observed.status.durable.to_string(),
                "primary": observed.status.primary,
                "level": observed.status.level,
                "ready": observed.is_ready(),
                "notices": observed.status.notices,
            });
            ([(header::CONTENT_TYPE, "application/json")], format!("{json}\n")).into_response()
        }
        Err(response) => response,
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    match observe(shared).await {
        Ok(observed) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], render(&observed)).into_response()
        }
        Err(response) => response,
    }
}
