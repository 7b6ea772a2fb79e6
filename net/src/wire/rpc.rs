//! The server of the client protocol: one stream per request, handled by blocking code with back-pressure.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::limits::{REQUEST_TIMEOUT, STALL_TIMEOUT};
use super::message::{Ack, Call, RemoteError, Request, Response};
use super::rows::{self, Row};
use super::{Frame, FrameError, FrameKind};
use crate::quic::session::ReplicaSession;
use crate::quic::{
    CloseCode, Connection, Endpoint, FrameReader, FrameWriter, Handshaking, Peer, Role, Service,
};
use crate::{Error, Result};

/// Calls at once that others must not hold up: who leads is asked, and promised, while clients wait in all the rest.
const URGENT_CALLS_MAX: usize = 16;

/// Batches that wait between a call and its stream, each way. With a batch's size it bounds the memory of a call.
const BATCHES_QUEUED: usize = 4;

/// A future that is its own.
pub type BoxFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a node does with requests and with replicas.
pub trait Handler: Send + Sync + 'static {
    /// Answers one call. Runs on a thread where it may block.
    ///
    /// The peer holds the role client or control; that a request takes the role control is checked before.
    /// Rows go out and come in by `exchange`; whoever streams stops when that fails.
    fn call(&self, peer: &Peer, call: Call, exchange: &mut Exchange) -> Result<Response, RemoteError>;

    /// Takes over a connection of a replica. The connection ends when the future does.
    fn replica(&self, session: ReplicaSession) -> BoxFuture;
}

/// How many calls run at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServeLimits {
    /// Calls that run at a time, over all clients; more wait. Below the number of tokio's blocking threads.
    pub calls_max: usize,
}

impl Default for ServeLimits {
    fn default() -> Self {
        Self { calls_max: 64 }
    }
}

/// The rows that go out of a call and come into it.
pub struct Exchange {
    rows_out: mpsc::Sender<Frame>,
    rows_in: Option<mpsc::Receiver<Incoming>>,
    cancelled: Arc<AtomicBool>,
}

/// What an import brings.
enum Incoming {
    Rows(Vec<Row>),
    End,
    Failed(RemoteError),
}

impl Exchange {
    /// Sends a batch of rows, as [`rows::RowsBuilder`] builds it; waits while the client is slower.
    ///
    /// # Errors
    ///
    /// The code `cancelled` if the client is gone or stalls.
    pub fn send_rows(&mut self, batch: Bytes) -> Result<(), RemoteError> {
        self.send(Frame::new(FrameKind::Rows, batch))
    }

    /// Tells the client what of its import has been taken in all.
    ///
    /// # Errors
    ///
    /// The code `cancelled` if the client is gone or stalls.
    pub fn ack(&mut self, ack: Ack) -> Result<(), RemoteError> {
        let frame = Frame::of(FrameKind::Ack, &ack);
        self.send(frame.map_err(|error| RemoteError::new("internal", error.to_string()))?)
    }

    /// The next batch of an import; `None` once the client has said that it was the last.
    ///
    /// # Errors
    ///
    /// The code `cancelled` if the client gave up or is gone: nothing that was not acknowledged need be kept;
    /// `protocol` if it sends something else.
    pub fn next_rows(&mut self) -> Result<Option<Vec<Row>>, RemoteError> {
        let Some(rows_in) = &mut self.rows_in else {
            return Ok(None);
        };
        match rows_in.blocking_recv() {
            Some(Incoming::Rows(rows)) => Ok(Some(rows)),
            Some(Incoming::End) => {
                self.rows_in = None;
                Ok(None)
            }
            Some(Incoming::Failed(error)) => Err(error),
            None => Err(RemoteError::cancelled()),
        }
    }

    /// Whether nobody waits for the answer any more. Long calls ask now and then.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.rows_out.is_closed()
    }

    fn send(&mut self, frame: Frame) -> Result<(), RemoteError> {
        self.rows_out.blocking_send(frame).map_err(|_| RemoteError::cancelled())
    }
}

/// A node that answers, until it is shut down.
pub struct Server {
    stop: watch::Sender<Option<Duration>>,
    task: JoinHandle<()>,
    endpoint: Endpoint,
}

impl Server {
    /// Where it listens.
    pub fn local_address(&self) -> std::net::SocketAddr {
        self.endpoint.local_address()
    }

    /// Takes no new connections and calls, lets the running calls end for at most `patience`, then ends the replica
    /// sessions, which until then could still acknowledge what the calls wait for, and closes.
    pub async fn shutdown(self, patience: Duration) {
        self.stop.send_replace(Some(patience));
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the server ended badly");
        }
    }
}

/// Serves what comes to `endpoint`. Must be called inside a tokio runtime; dropping the [`Server`] closes it at once.
pub fn serve(endpoint: Endpoint, handler: Arc<dyn Handler>, limits: ServeLimits) -> Server {
    let (stop, stopped) = watch::channel(None);
    let calls = |most| Arc::new(Semaphore::new(most));
    let shared =
        Arc::new(Shared { handler, calls: calls(limits.calls_max), urgent: calls(URGENT_CALLS_MAX) });
    let task = tokio::spawn(accept_all(endpoint.clone(), shared, stopped));
    Server { stop, task, endpoint }
}

struct Shared {
    handler: Arc<dyn Handler>,
    calls: Arc<Semaphore>,
    /// For calls that others must not hold up.
    urgent: Arc<Semaphore>,
}

/// Accepts connections until it is told to stop, then winds down.
async fn accept_all(endpoint: Endpoint, shared: Arc<Shared>, mut stopped: watch::Receiver<Option<Duration>>) {
    let (clients, mut clients_left) = mpsc::channel::<()>(1);
    let (end_replicas, replicas_ended) = watch::channel(false);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.changed() => break,
            handshaking = endpoint.accept() => {
                let Some(handshaking) = handshaking else { break };
                connections.spawn(serve_connection(
                    Arc::clone(&shared),
                    handshaking,
                    stopped.clone(),
                    replicas_ended.clone(),
                    clients.clone(),
                ));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(clients);
    endpoint.stop_accepting();
    let patience = stopped.borrow().unwrap_or_default();
    // Each client's connection holds a sender; when the last is gone, so are the calls.
    if timeout(patience, clients_left.recv()).await.is_err() {
        tracing::warn!("calls were still running when the time to shut down was over");
    }
    end_replicas.send_replace(true);
    let ends = async { while connections.join_next().await.is_some() {} };
    if timeout(Duration::from_secs(1), ends).await.is_err() {
        tracing::debug!("some connections did not end by themselves");
    }
    connections.abort_all();
    endpoint.close(CloseCode::ShuttingDown, "the node is shutting down", Duration::from_secs(1)).await;
}

async fn serve_connection(
    shared: Arc<Shared>,
    handshaking: Handshaking,
    stopped: watch::Receiver<Option<Duration>>,
    mut replicas_ended: watch::Receiver<bool>,
    clients: mpsc::Sender<()>,
) {
    let address = handshaking.address();
    let connection = match handshaking.establish().await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::info!(peer = %address, code = error.code(), %error, "refused a peer");
            return;
        }
    };
    match connection.service() {
        Service::Client => {
            serve_client(&shared, &connection, stopped).await;
            drop(clients);
        }
        Service::Replica => {
            drop(clients);
            let session = match ReplicaSession::over(connection.clone()) {
                Ok(session) => session,
                Err(error) => {
                    tracing::warn!(peer = %address, %error, "no session with a replica");
                    return;
                }
            };
            tokio::select! {
                () = shared.handler.replica(session) => connection.close(CloseCode::Done, "the session is over"),
                _ = replicas_ended.wait_for(|ended| *ended) => {
                    connection.close(CloseCode::ShuttingDown, "the node is shutting down");
                }
            }
        }
    }
}

/// Serves the streams of one client, until it goes or the node stops.
async fn serve_client(
    shared: &Arc<Shared>,
    connection: &Connection,
    mut stopped: watch::Receiver<Option<Duration>>,
) {
    let peer = Arc::new(connection.peer().clone());
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopped.wait_for(Option::is_some) => break,
            stream = connection.accept() => match stream {
                Ok((writer, reader)) => {
                    calls.spawn(serve_stream(Arc::clone(shared), Arc::clone(&peer), writer, reader));
                }
                Err(error) => {
                    tracing::debug!(peer = %peer.address, %error, "a client is gone");
                    break;
                }
            },
            Some(_) = calls.join_next() => {}
        }
    }
    while calls.join_next().await.is_some() {}
    connection.close(CloseCode::ShuttingDown, "the node is shutting down");
}

/// Reads one request and answers it.
async fn serve_stream(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    mut writer: FrameWriter,
    mut reader: FrameReader,
) {
    let answer = match read_call(&mut reader).await {
        Ok(call) => answer(&shared, &peer, call, &mut writer, reader).await,
        Err(error) => {
            tracing::info!(peer = %peer.address, %error, "a request could not be understood");
            Some(Err(RemoteError::new(error.code(), error.to_string())))
        }
    };
    let Some(answer) = answer else { return };
    let frame = match answer {
        Ok(response) => Frame::of(FrameKind::Response, &response),
        Err(error) => Frame::of(FrameKind::Error, &error.cut()),
    };
    let sent = match frame {
        Ok(frame) => timeout(STALL_TIMEOUT, writer.write(frame)).await,
        Err(error) => Ok(Err(error.into())),
    };
    match sent {
        Ok(Ok(())) => {
            writer.finish();
            // Closing the connection would throw away what the client has not received yet.
            if timeout(STALL_TIMEOUT, writer.stopped()).await.is_err() {
                tracing::debug!(peer = %peer.address, "a client did not take its answer in time");
            }
        }
        Ok(Err(error)) => tracing::debug!(peer = %peer.address, %error, "an answer could not be sent"),
        Err(_) => tracing::info!(peer = %peer.address, "a client did not take its answer in time"),
    }
}

async fn read_call(reader: &mut FrameReader) -> Result<Call> {
    let frame = timeout(REQUEST_TIMEOUT, reader.expect(FrameKind::Request, "a request"))
        .await
        .map_err(|_| Error::Ended("no request came in time"))??;
    Ok(frame.message()?)
}

/// Runs a call on a thread of its own, while its rows move. `None` if nobody waits for the answer any more.
async fn answer(
    shared: &Arc<Shared>,
    peer: &Arc<Peer>,
    call: Call,
    writer: &mut FrameWriter,
    reader: FrameReader,
) -> Option<Result<Response, RemoteError>> {
    if call.request.needs_control() && !peer.has(Role::Control) {
        let what =
            format!("the certificate of {:?} lacks the role control that this request takes", peer.name);
        return Some(Err(RemoteError::new("role_refused", what)));
    }
    let mut gone = pin!(writer.stopped());
    let calls = if call.request.is_urgent() { &shared.urgent } else { &shared.calls };
    let permit = tokio::select! {
        permit = Arc::clone(calls).acquire_owned() => permit.ok()?,
        () = &mut gone => return None,
    };
    let (rows_out, mut frames) = mpsc::channel(BATCHES_QUEUED);
    let (feed, rows_in) = mpsc::channel(BATCHES_QUEUED);
    let cancelled = Arc::new(AtomicBool::new(false));
    let imports = matches!(call.request, Request::Import { .. });
    let mut exchange =
        Exchange { rows_out, rows_in: imports.then_some(rows_in), cancelled: Arc::clone(&cancelled) };
    let (handler, caller) = (Arc::clone(&shared.handler), Arc::clone(peer));
    let running = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        handler.call(&caller, call, &mut exchange)
    });
    let feeding = feed_rows(reader, feed, imports);
    let alive = move_rows(writer, &mut frames, gone, feeding).await;
    if !alive {
        cancelled.store(true, Ordering::Relaxed);
    }
    drop(frames);
    let outcome = running.await;
    alive.then(|| {
        outcome.unwrap_or_else(|error| {
            tracing::error!(peer = %peer.address, %error, "a call ended badly");
            Err(RemoteError::new("internal", "the call ended badly; the node's log says how"))
        })
    })
}

/// Moves rows until the call has ended; false if nobody waits for the answer any more.
///
/// It takes `feeding` with it when it returns: a call that still waits for rows then learns that none will come.
async fn move_rows(
    writer: &mut FrameWriter,
    frames: &mut mpsc::Receiver<Frame>,
    mut gone: Pin<&mut impl Future<Output = ()>>,
    feeding: impl Future<Output = ()>,
) -> bool {
    let mut feeding = pin!(feeding);
    let mut fed = false;
    loop {
        tokio::select! {
            biased;
            () = &mut gone => return false,
            () = &mut feeding, if !fed => fed = true,
            frame = frames.recv() => {
                let Some(frame) = frame else { return true };
                if !matches!(timeout(STALL_TIMEOUT, writer.write(frame)).await, Ok(Ok(()))) {
                    return false;
                }
            }
        }
    }
}

/// Brings the rows of an import to its call.
async fn feed_rows(mut reader: FrameReader, feed: mpsc::Sender<Incoming>, imports: bool) {
    if !imports {
        return;
    }
    loop {
        let incoming = match reader.next().await {
            Ok(Some(frame)) => understand(frame),
            Ok(None) => Err(FrameError::Missing("the end of an import").into()),
            Err(error) => Err(error),
        };
        let incoming = incoming.unwrap_or_else(|error| match error {
            Error::Frame(error) => Incoming::Failed(RemoteError::new("protocol", error.to_string())),
            _ => Incoming::Failed(RemoteError::cancelled()),
        });
        let last = !matches!(incoming, Incoming::Rows(_));
        if feed.send(incoming).await.is_err() || last {
            return;
        }
    }
}

fn understand(frame: Frame) -> Result<Incoming> {
    match frame.kind {
        FrameKind::Rows => Ok(Incoming::Rows(rows::decode(frame.body)?)),
        FrameKind::End => Ok(Incoming::End),
        got => Err(FrameError::Unexpected { got, wanted: "rows" }.into()),
    }
}

#[cfg(test)]
#[path = "rpc_tests.rs"]
mod tests;
