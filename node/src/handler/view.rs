//! A clone that comes in, as clients read it.

use planaria_engine::Database;
use planaria_net::quic::Peer;
use planaria_net::quic::session::ReplicaSession;
use planaria_net::replica::Slot;
use planaria_net::wire::message::{DatabaseStatus, Level, RemoteError, Request, Response, WriteOptions};
use planaria_net::wire::rpc::{BoxFuture, Exchange};
use planaria_types::Uid;

use super::{Companion, DatabaseHandler};

/// Answers a request about the clone `name` of the node `node`, if it only reads.
pub(super) fn answer(
    (node, name): (&str, &str),
    view: Database,
    peer: &Peer,
    request: Request,
    exchange: &mut Exchange,
) -> Result<Response, RemoteError> {
    match request {
        Request::Ping
        | Request::Status
        | Request::TableList
        | Request::TableShow { .. }
        | Request::Get { .. }
        | Request::GetMany { .. }
        | Request::Scan(_)
        | Request::Await { .. }
        | Request::Digest { .. }
        | Request::Compare { .. }
        | Request::SpanKeys { .. } => {
            let handler = DatabaseHandler::new(Slot::new(view), node, name, Box::new(Reading));
            handler.answer(peer, request, exchange)
        }
        _ => Err(only_read()),
    }
}

fn only_read() -> RemoteError {
    let what = "a clone that came in lazily is only read by its name, whether it is complete or not";
    RemoteError::new("hydrating", what)
        .with_hint("wait with `clone wait` until it is complete, then `planaria serve` its directory")
}

/// A clone has neither copies nor clones of its own here.
struct Reading;

impl Companion for Reading {
    fn call(&self, _: &Peer, _: Request, _: &mut Exchange) -> Result<Response, RemoteError> {
        Err(only_read())
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        // Dropping the session ends the connection.
        Box::pin(async move { drop(session) })
    }

    fn accepts(&self, _: Level) -> Result<(), RemoteError> {
        Err(only_read())
    }

    fn wait(&self, _: Uid, _: &WriteOptions) -> Result<(), RemoteError> {
        Err(only_read())
    }

    fn describe(&self, status: &mut DatabaseStatus) {
        "hydrating".clone_into(&mut status.state);
    }
}
