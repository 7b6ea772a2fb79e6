//! Clones over the network: the source sends the files of a pinned cut as they lie on disk, the target checks each
//! chunk on arrival and can go on after any interruption.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use planaria_engine::{CloneRole, CloneTarget, FileKind, FileList, FilePin, Options};
use planaria_types::FileId;
use tokio::task::JoinSet;

use super::clock::now;
use super::executor::bulk::{self, Range, Terms};
use super::secondary::open_session;
use super::{Opening, decode};
use crate::quic::session::{Opened, ReplicaSession};
use crate::quic::{Credentials, Transport};

use crate::wire::message::RemoteError;
use crate::wire::replica::FileRequest;
use crate::{Error, Result};

/// Files that are fetched side by side.
const STREAMS: usize = 4;
/// The bit of a file's number on the wire that says that it is a log segment.
const LOG_BIT: u64 = 1 << 63;
/// The list of files is sent in parts of this size, in bytes.
const LIST_PART_BYTES: usize = 1 << 20;
/// The largest list of files, in bytes.
const LIST_BYTES_MAX: usize = 256 << 20;
/// How long a target may take to ask for the next file before its pin is let go.
pub(super) const IDLE_MAX: Duration = Duration::from_mins(1);

/// How far a clone has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloneProgress {
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Bytes that are there, those of an earlier attempt included.
    pub done_bytes: u64,
    /// Bytes that an earlier attempt had brought.
    pub resumed_bytes: u64,
    /// Files in all.
    pub files: u64,
    /// Milliseconds since it began.
    pub elapsed_ms: u64,
}

pub(super) fn wire_number(kind: FileKind, number: u64) -> FileId {
    FileId(if kind == FileKind::Log { number | LOG_BIT } else { number })
}

fn file_of(id: FileId) -> (FileKind, u64) {
    if id.0 & LOG_BIT == 0 { (FileKind::Run, id.0) } else { (FileKind::Log, id.0 & !LOG_BIT) }
}

/// Sends the list of a pinned cut, then whatever is asked for of its files, until the target is done, or asks for nothing for
/// so long.
pub(super) async fn serve_pin(
    session: &ReplicaSession,
    pin: FilePin,
    list: bytes::Bytes,
    idle_max: Duration,
) -> Result<()> {
    let pin = Arc::new(pin);
    let mut sender = session.open_bulk(bytes::Bytes::new()).await?;
    for part in list.chunks(LIST_PART_BYTES) {
        sender.send(list.slice_ref(part)).await?;
    }
    sender.finish().await?;
    let mut sending = JoinSet::new();
    loop {
        let opened = tokio::select! {
            opened = session.accept() => opened,
            Some(_) = sending.join_next(), if !sending.is_empty() => continue,
            () = tokio::time::sleep(idle_max), if sending.is_empty() => {
                return Err(Error::Protocol("the target of a clone asked for nothing more".into()));
            }
        };
        match opened {
            Ok(Opened::File(request, sender)) => {
                let (kind, number) = file_of(request.file);
                let pin = Arc::clone(&pin);
                sending.spawn(sender.serve(move |offset, len| {
                    bulk::read(&pin, kind, number, offset, len)
                        .map_err(|error| RemoteError::new("clone", error.to_string()))
                }));
            }
            Ok(Opened::Bulk(..)) => {
                return Err(Error::Protocol("the target of a clone sends nothing".into()));
            }
            // The target has all, or is gone; it comes back if it needs more.
            Err(_) => return Ok(()),
        }
    }
}

/// Clones the database of the node at `address` into the new directory `target`.
///
/// # Errors
///
/// Whatever came in stays in `target.partial`; calling again goes on from there if the source still has the cut.
pub async fn clone_from(
    address: SocketAddr,
    credentials: &Credentials,
    transport: &Transport,
    target: &Path,
    role: CloneRole,
    options: &Options,
    progress: impl Fn(&CloneProgress) + Send + Sync + 'static,
) -> Result<CloneProgress> {
    let (_endpoint, session) = open_session(address, credentials, transport, &Opening::Clone).await?;
    let done = fetch_clone(&session, target, role, options, None, progress).await;
    // The source holds its pin until it hears of the end.
    session.connection().farewell(crate::quic::CloseCode::Done, "the clone is complete").await;
    done
}

/// Fetches a clone over a session that was opened for it, if it meets the terms.
pub async fn fetch_clone(
    session: &ReplicaSession,
    target: &Path,
    role: CloneRole,
    options: &Options,
    terms: Option<&Terms>,
    progress: impl Fn(&CloneProgress) + Send + Sync + 'static,
) -> Result<CloneProgress> {
    let begun = now();
    let list: FileList = receive_list(session).await?;
    if let Some(terms) = terms {
        terms.check(&list)?;
    }
    let (path, options) = (target.to_path_buf(), options.clone());
    let target = blocking(move || Ok(CloneTarget::open(path, list, options)?)).await?;
    let state = CloneProgress {
        total_bytes: target.list().bytes(),
        done_bytes: target.resumed_bytes(),
        resumed_bytes: target.resumed_bytes(),
        files: target.list().files.len() as u64,
        elapsed_ms: 0,
    };
    progress(&state);
    let ranges = bulk::ranges(&target);
    let shared = Arc::new((Mutex::new(target), Mutex::new(state), progress));
    let mut fetching = JoinSet::new();
    for range in ranges {
        while fetching.len() >= STREAMS {
            joined(fetching.join_next().await)?;
        }
        fetching.spawn(fetch_range(session.clone(), range, Arc::clone(&shared), begun));
    }
    while !fetching.is_empty() {
        joined(fetching.join_next().await)?;
    }
    let parts = Arc::into_inner(shared).ok_or(Error::Closed)?;
    let (target, mut state) = (parts.0.into_inner(), parts.1.into_inner());
    blocking(move || Ok(target.finish(role)?)).await?;
    state.elapsed_ms = now().since(begun).0;
    (parts.2)(&state);
    Ok(state)
}

pub(super) async fn receive_list<T: serde::de::DeserializeOwned>(session: &ReplicaSession) -> Result<T> {
    let Opened::Bulk(_, mut receiver) = session.accept().await? else {
        return Err(Error::Protocol("the source of a clone asked for a file".into()));
    };
    let mut bytes = Vec::new();
    while let Some(part) = receiver.next().await? {
        if bytes.len() + part.len() > LIST_BYTES_MAX {
            return Err(Error::Protocol("the list of files is too long".into()));
        }
        bytes.extend_from_slice(&part);
    }
    decode(&bytes)
}

type Shared<P> = Arc<(Mutex<CloneTarget>, Mutex<CloneProgress>, P)>;

async fn fetch_range<P>(
    session: ReplicaSession,
    range: Range,
    shared: Shared<P>,
    begun: planaria_replication::Millis,
) -> Result<()>
where
    P: Fn(&CloneProgress) + Send + Sync + 'static,
{
    let file = wire_number(range.kind, range.number);
    let request = FileRequest { lease: 0, file, offset: range.offset, length: range.length };
    let mut receiver = session.fetch(request).await?;
    while let Some(chunk) = receiver.next().await? {
        let missing = range.chunk_at(chunk.offset);
        let shared = Arc::clone(&shared);
        blocking(move || {
            shared.0.lock().write(missing, &chunk.data)?;
            let mut state = shared.1.lock();
            state.done_bytes += chunk.data.len() as u64;
            state.elapsed_ms = now().since(begun).0;
            (shared.2)(&state);
            Ok(())
        })
        .await?;
    }
    Ok(())
}

fn joined(outcome: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    match outcome {
        Some(Ok(done)) => done,
        Some(Err(error)) => Err(Error::Protocol(format!("a transfer broke off: {error}"))),
        None => Ok(()),
    }
}

/// Runs what may block on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Protocol(format!("a blocking call broke off: {error}")))?
}
