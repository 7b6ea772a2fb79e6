//! Clones over the network: the source sends the files of a pinned cut as they lie on disk, the target checks each
//! chunk on arrival and can go on after any interruption.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use planaria_engine::os::AlignedBuffer;
use planaria_engine::{
    CLONE_CHUNK_BYTES, CloneAbout, CloneRole, CloneTarget, FileKind, FileList, FilePin, Options,
};
use planaria_replication::Millis;
use planaria_types::{FileId, Uid};
use tokio::task::JoinSet;

use super::clock::now;
use super::executor::bulk::{self, Range, Terms};
use super::outgoing::OutgoingClone;
use super::secondary::open_session;
use super::{Opening, Pace, decode};
use crate::quic::session::{Opened, ReplicaSession};
use crate::quic::{CloseCode, Credentials, Transport};

use crate::wire::limits::FILE_CHUNK_BYTES_MAX;
use crate::wire::message::{RemoteError, Shape};
use crate::wire::replica::FileRequest;
use crate::{Error, Result};

/// Files that are fetched side by side.
pub(super) const STREAMS: usize = 4;
/// Below this rate a clone asks for one chunk at a time, on all its streams together.
const SLOW_BYTES_PER_S: u64 = 4 << 20;
/// Below this rate it asks for everything at once: between two chunks its source would take it for one that is gone.
const CRAWL_BYTES_PER_S: u64 = 64 << 10;
/// At a rate, each stream asks for what comes in a tenth of a second.
const MOMENTS_PER_S: u64 = 10;
/// The bit of a file's number on the wire that says that it is a log segment.
const LOG_BIT: u64 = 1 << 63;
/// The list of files is sent in parts of this size, in bytes.
const LIST_PART_BYTES: usize = 1 << 20;
/// The largest list of files, in bytes.
const LIST_BYTES_MAX: usize = 256 << 20;
/// How long a source may send nothing of a file, if nobody says: its disk may be busy.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// How long a target may take to hear why there is no list for it.
const HEARD_WITHIN: Duration = Duration::from_secs(10);
/// How long a target may take to ask for the next file before its pin is let go.
pub(super) const IDLE_MAX: Duration = Duration::from_mins(1);

/// What a clone is busy with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CloneStage {
    /// The source tells which files there are.
    #[default]
    Listing,
    /// What is here already is compared with what is to be, chunk by chunk.
    Verifying,
    /// Chunks come in, each checked on arrival.
    Fetching,
    /// The same, while the clone can be read.
    Hydrating,
    /// All is here: it is made durable, and gets its name.
    Installing,
}

impl CloneStage {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Listing => "listing",
            Self::Verifying => "verifying",
            Self::Fetching => "fetching",
            Self::Hydrating => "hydrating",
            Self::Installing => "installing",
        }
    }
}

/// A clone that is to be taken: where it goes, and how.
#[derive(Clone, Debug)]
pub struct Taking {
    /// The new directory.
    pub target: PathBuf,
    /// What the clone is to the store.
    pub role: CloneRole,
    /// What the source makes of its rows for it. Only a detached clone is not whole.
    pub shape: Shape,
    /// How its files are written.
    pub options: Options,
    /// A closed database on the same disk. Files that it has in the same bytes are linked and not fetched.
    pub reuse: Option<PathBuf>,
    /// What the clone says of itself, if anything. Its times are reckoned from the moment in which it is complete.
    pub about: Option<CloneAbout>,
    /// How long it lives from that moment on, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// How fast it comes in, and whether it is given up.
    pub pace: Arc<Pace>,
    /// How long a source may send nothing of what it was asked for, until it has failed.
    pub silence_max: Duration,
}

impl Taking {
    /// A clone as fast as the wire.
    pub fn new(target: impl Into<PathBuf>, role: CloneRole, options: &Options) -> Self {
        Self {
            target: target.into(),
            role,
            shape: Shape::default(),
            options: options.clone(),
            reuse: None,
            about: None,
            ttl_ms: None,
            pace: Arc::default(),
            silence_max: SILENCE_MAX,
        }
    }

    /// What the clone says of itself if it is complete now.
    pub(super) fn about_now(&self) -> Option<CloneAbout> {
        let made_ms = self.options.os.now_millis();
        let expires_ms = self.ttl_ms.map(|ttl_ms| made_ms.saturating_add(ttl_ms));
        self.about.clone().map(|about| CloneAbout { made_ms, expires_ms, ..about })
    }
}

/// How far a clone has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloneProgress {
    /// What it is busy with.
    pub stage: CloneStage,
    /// The state that is cloned, once the source told.
    pub cut: Option<Uid>,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Bytes that are there, those of an earlier attempt included.
    pub done_bytes: u64,
    /// Bytes that an earlier attempt had brought.
    pub resumed_bytes: u64,
    /// Bytes of files that another database on this disk had already.
    pub linked_bytes: u64,
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

/// Tells the target why there is no list for it, and waits for a moment until it has heard.
pub(super) async fn refuse(session: &ReplicaSession, error: RemoteError) -> Result<()> {
    session.open_bulk(bytes::Bytes::new()).await?.fail(error.clone()).await?;
    let _ = tokio::time::timeout(HEARD_WITHIN, session.closed()).await;
    Err(error.into())
}

/// Whether a session ended because the target had what it wanted.
fn is_done(end: &Error) -> bool {
    matches!(end, Error::Refused { code, .. } if *code == CloseCode::Done.name())
}

/// Sends the list of a pinned cut, then whatever is asked for of its files, until the target is done, or asks for nothing for
/// so long. Tells whether the target said that it has all.
pub(super) async fn serve_pin(
    session: &ReplicaSession,
    pin: FilePin,
    list: bytes::Bytes,
    idle_max: Duration,
    outgoing: OutgoingClone,
) -> Result<bool> {
    let (pin, outgoing) = (Arc::new(pin), Arc::new(outgoing));
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
                let (pin, outgoing) = (Arc::clone(&pin), Arc::clone(&outgoing));
                sending.spawn(sender.serve(move |offset, len| {
                    outgoing.count(len as u64);
                    bulk::read(&pin, kind, number, offset, len)
                        .map_err(|error| RemoteError::new("clone", error.to_string()))
                }));
            }
            Ok(Opened::Bulk(..)) => {
                return Err(Error::Protocol("the target of a clone sends nothing".into()));
            }
            // The target has all, or is gone; it comes back if it needs more.
            Err(end) => return Ok(is_done(&end)),
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
    take_clone(address, credentials, transport, &Taking::new(target, role, options), progress).await
}

/// As [`clone_from`], with all that a clone may be given on its way.
///
/// # Errors
///
/// As [`clone_from`]; [`Error::GivenUp`] if its pace says so.
pub async fn take_clone(
    address: SocketAddr,
    credentials: &Credentials,
    transport: &Transport,
    taking: &Taking,
    progress: impl Fn(&CloneProgress) + Send + Sync + 'static,
) -> Result<CloneProgress> {
    let opening = match &taking.shape {
        whole if whole.is_whole() => Opening::Clone,
        shape => {
            let resumes = CloneTarget::begun(&taking.target, &taking.options.os);
            Opening::Shaped { shape: shape.clone(), resumes }
        }
    };
    let opening = open_session(address, credentials, transport, &opening);
    let (_endpoint, session) = taking.pace.heed(opening).await?;
    let done = fetch_clone(&session, taking, None, progress).await;
    // The source holds its pin until it hears of the end.
    let (code, why) = match &done {
        Ok(_) => (CloseCode::Done, "the clone is complete".to_owned()),
        Err(error) => (CloseCode::Refused, error.to_string()),
    };
    session.connection().farewell(code, &why).await;
    done
}

/// Fetches a clone over a session that was opened for it, if it meets the terms.
pub(super) async fn fetch_clone(
    session: &ReplicaSession,
    taking: &Taking,
    terms: Option<&Terms>,
    progress: impl Fn(&CloneProgress) + Send + Sync + 'static,
) -> Result<CloneProgress> {
    let (begun, pace) = (now(), &taking.pace);
    progress(&CloneProgress::default());
    let list: FileList = pace.heed(receive_list(session)).await?;
    if let Some(terms) = terms {
        terms.check(&list)?;
    }
    let mut state = CloneProgress {
        stage: CloneStage::Verifying,
        cut: Some(list.position.uid),
        total_bytes: list.bytes(),
        files: list.files.len() as u64,
        ..CloneProgress::default()
    };
    progress(&state);
    let (path, reuse, options) = (taking.target.clone(), taking.reuse.clone(), taking.options.clone());
    let open = move || Ok(CloneTarget::open_reusing(path, reuse.as_deref(), list, options)?);
    let target = blocking(open).await?;
    state.stage = CloneStage::Fetching;
    state.resumed_bytes = target.resumed_bytes();
    state.linked_bytes = target.linked_bytes();
    state.done_bytes = state.resumed_bytes + state.linked_bytes;
    progress(&state);
    let ranges = bulk::ranges(&target);
    let pace = Arc::clone(pace);
    let turn = tokio::sync::Mutex::default();
    let (state, silence_max) = (Mutex::new(state), taking.silence_max);
    let shared = Arc::new(Shared { target, state, progress, begun, pace, turn, silence_max });
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
    let Shared { mut target, state, progress, .. } = Arc::into_inner(shared).ok_or(Error::Closed)?;
    let mut state = state.into_inner();
    state.stage = CloneStage::Installing;
    progress(&state);
    if let Some(about) = taking.about_now() {
        target.set_about(about);
    }
    if !taking.shape.is_whole() {
        target.inherit_lineage();
    }
    let role = taking.role;
    blocking(move || Ok(target.finish(role)?)).await?;
    state.elapsed_ms = now().since(begun).0;
    progress(&state);
    Ok(state)
}

pub(super) async fn receive_list<T: serde::de::DeserializeOwned>(session: &ReplicaSession) -> Result<T> {
    receive_list_within(session, LIST_BYTES_MAX).await
}

async fn receive_list_within<T: serde::de::DeserializeOwned>(
    session: &ReplicaSession,
    bytes_max: usize,
) -> Result<T> {
    let Opened::Bulk(_, mut receiver) = session.accept().await? else {
        return Err(Error::Protocol("the source of a clone asked for a file".into()));
    };
    let mut bytes = Vec::new();
    while let Some(part) = receiver.next().await? {
        if bytes.len() + part.len() > bytes_max {
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
    pace: Arc<Pace>,
    /// Held by the stream that asks, where they are to ask one after the other.
    turn: tokio::sync::Mutex<()>,
    silence_max: Duration,
}

impl<P: Fn(&CloneProgress)> Shared<P> {
    /// What comes next, unless nothing comes: a source that lives and sends nothing would hold the clone up for ever.
    async fn in_time<T>(&self, next: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.silence_max, next).await.unwrap_or_else(|_| {
            let silence_ms = self.silence_max.as_millis();
            Err(Error::Protocol(format!("the source sent nothing of a file for {silence_ms} ms")))
        })
    }

    fn write(&self, range: Range, offset: u64, data: &[u8]) -> Result<()> {
        self.target.write(range.chunk_at(offset), data)?;
        let mut state = self.state.lock();
        state.done_bytes += data.len() as u64;
        state.elapsed_ms = now().since(self.begun).0;
        (self.progress)(&state);
        Ok(())
    }
}

/// How much of a file is asked for at a time, in bytes: whole chunks, at a rate no more than what comes in a moment.
fn ahead_bytes(rate: Option<u64>) -> u64 {
    let rate = rate.filter(|rate| *rate >= CRAWL_BYTES_PER_S);
    let per_moment = rate.map_or(u64::MAX, |rate| rate / MOMENTS_PER_S);
    (per_moment / CLONE_CHUNK_BYTES).max(1).saturating_mul(CLONE_CHUNK_BYTES)
}

/// Fetches chunks of a file; one is checked and written while the next one comes.
async fn fetch_range<P>(session: ReplicaSession, range: Range, shared: Arc<Shared<P>>) -> Result<Range>
where
    P: Fn(&CloneProgress) + Send + Sync + 'static,
{
    let buffer = || AlignedBuffer::new(FILE_CHUNK_BYTES_MAX as usize);
    let (mut data, mut writing) = (buffer(), JoinSet::new());
    let (mut asked, end) = (range.offset, range.offset + range.length);
    while asked < end {
        // Nothing is asked for that may not come yet: it would wait in the windows, and come again if either side dies.
        let _turn = match shared.pace.rate() {
            Some(rate) if (CRAWL_BYTES_PER_S..SLOW_BYTES_PER_S).contains(&rate) => {
                Some(shared.turn.lock().await)
            }
            _ => None,
        };
        shared.pace.admit(0).await?;
        let length = (end - asked).min(ahead_bytes(shared.pace.rate()));
        let file = wire_number(range.kind, range.number);
        let request = FileRequest { lease: 0, file, offset: asked, length };
        asked += length;
        let mut receiver = shared.pace.heed(session.fetch(request)).await?;
        while let Some(offset) = shared.pace.heed(shared.in_time(receiver.next(&mut data))).await? {
            shared.pace.admit(data.len() as u64).await?;
            let free = writing.join_next().await.map_or_else(|| Ok(buffer()), joined)?;
            let full = std::mem::replace(&mut data, free);
            let shared = Arc::clone(&shared);
            writing.spawn_blocking(move || shared.write(range, offset, &full).map(|()| full));
        }
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

pub(super) fn joined<T>(outcome: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
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

#[cfg(test)]
#[path = "lying_tests.rs"]
mod tests;
