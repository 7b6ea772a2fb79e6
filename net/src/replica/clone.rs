//! Clones over the network: the source sends the files of a pinned cut as they lie on disk, the target checks each
//! chunk on arrival and can go on after any interruption.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use planaria_engine::os::AlignedBuffer;
use planaria_engine::{CloneRole, CloneTarget, FileKind, FileList, FilePin, Options};
use planaria_replication::Millis;
use planaria_types::FileId;
use tokio::task::JoinSet;

use super::clock::now;
use super::executor::bulk::{self, Range, Terms};
use super::secondary::open_session;
use super::{Opening, decode, encode};
use crate::quic::session::{Opened, ReplicaSession};
use crate::quic::{Credentials, Transport};

use crate::wire::message::Shape;
use crate::wire::limits::FILE_CHUNK_BYTES_MAX;
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
const IDLE_MAX: Duration = Duration::from_mins(1);

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

fn wire_number(kind: FileKind, number: u64) -> FileId {
    FileId(if kind == FileKind::Log { number | LOG_BIT } else { number })
}

fn file_of(id: FileId) -> (FileKind, u64) {
    if id.0 & LOG_BIT == 0 { (FileKind::Run, id.0) } else { (FileKind::Log, id.0 & !LOG_BIT) }
}

/// Sends the list of a pinned cut, then whatever is asked for of its files, until the target is done.
pub(super) async fn serve_pin(session: &ReplicaSession, pin: FilePin) -> Result<()> {
    let pin = Arc::new(pin);
    let list = encode(pin.list())?;
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
            () = tokio::time::sleep(IDLE_MAX), if sending.is_empty() => {
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

/// As [`clone_from`], of what the source makes of its rows: a database of its own that holds no more than `shape` says.
///
/// # Errors
///
/// As [`clone_from`]; [`Error::Refused`] says what is wrong with the shape.
pub async fn clone_shaped(
    address: SocketAddr,
    credentials: &Credentials,
    transport: &Transport,
    shape: Shape,
    target: &Path,
    options: &Options,
    progress: impl Fn(&CloneProgress) + Send + Sync + 'static,
) -> Result<CloneProgress> {
    let resumes = CloneTarget::begun(target, &options.os);
    let opening = Opening::Shaped { shape, resumes };
    let (_endpoint, session) = open_session(address, credentials, transport, &opening).await?;
    let done = fetch_clone(&session, target, CloneRole::Detached, options, None, progress).await;
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
    let list = receive_list(session).await?;
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
    let shared = Arc::new(Shared { target, state: Mutex::new(state), progress, begun });
    let (mut fetching, mut syncing) = (JoinSet::new(), JoinSet::new());
    for range in ranges {
        while fetching.len() >= STREAMS {
            let Some(done) = fetching.join_next().await else { break };
            syncing.spawn(sync(joined(done)?, Arc::clone(&shared)));
        }
        fetching.spawn(fetch_range(session.clone(), range, Arc::clone(&shared)));
    }
    while let Some(done) = fetching.join_next().await {
        syncing.spawn(sync(joined(done)?, Arc::clone(&shared)));
    }
    while let Some(done) = syncing.join_next().await {
        joined(done)?;
    }
    let Shared { target, state, progress, .. } = Arc::into_inner(shared).ok_or(Error::Closed)?;
    let mut state = state.into_inner();
    blocking(move || Ok(target.finish(role)?)).await?;
    state.elapsed_ms = now().since(begun).0;
    progress(&state);
    Ok(state)
}

async fn receive_list(session: &ReplicaSession) -> Result<FileList> {
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

/// What the streams of a clone have in common.
struct Shared<P> {
    target: CloneTarget,
    state: Mutex<CloneProgress>,
    progress: P,
    begun: Millis,
}

impl<P: Fn(&CloneProgress)> Shared<P> {
    fn write(&self, range: Range, offset: u64, data: &[u8]) -> Result<()> {
        self.target.write(range.chunk_at(offset), data)?;
        let mut state = self.state.lock();
        state.done_bytes += data.len() as u64;
        state.elapsed_ms = now().since(self.begun).0;
        (self.progress)(&state);
        Ok(())
    }
}

/// Fetches chunks of a file; one is checked and written while the next one comes.
async fn fetch_range<P>(session: ReplicaSession, range: Range, shared: Arc<Shared<P>>) -> Result<Range>
where
    P: Fn(&CloneProgress) + Send + Sync + 'static,
{
    let file = wire_number(range.kind, range.number);
    let request = FileRequest { lease: 0, file, offset: range.offset, length: range.length };
    let mut receiver = session.fetch(request).await?;
    let buffer = || AlignedBuffer::new(FILE_CHUNK_BYTES_MAX as usize);
    let (mut data, mut writing) = (buffer(), JoinSet::new());
    while let Some(offset) = receiver.next(&mut data).await? {
        let free = writing.join_next().await.map_or_else(|| Ok(buffer()), joined)?;
        let full = std::mem::replace(&mut data, free);
        let shared = Arc::clone(&shared);
        writing.spawn_blocking(move || shared.write(range, offset, &full).map(|()| full));
    }
    if let Some(last) = writing.join_next().await {
        joined(last)?;
    }
    Ok(range)
}

/// Makes a file that is there durable while others come.
async fn sync<P: Send + Sync + 'static>(range: Range, shared: Arc<Shared<P>>) -> Result<()> {
    blocking(move || Ok(shared.target.sync_complete(range.kind, range.number)?)).await
}

fn joined<T>(outcome: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    outcome.unwrap_or_else(|error| Err(Error::Protocol(format!("a transfer broke off: {error}"))))
}

/// Runs what may block on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::Protocol(format!("a blocking call broke off: {error}")))?
}
