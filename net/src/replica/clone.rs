//! Clones over the network: the source sends the files of a pinned cut as they lie on disk, the target checks each
//! chunk on arrival and can go on after any interruption.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use planaria_engine::{CloneAbout, CloneRole, CloneTarget, FileKind, FileList, Options};
use planaria_types::{FileId, Uid};
use tokio::task::JoinSet;

use super::clock::now;
use super::connections::Connections;
use super::executor::bulk::{self, Terms};
use super::fetching::Fetching;
use super::giving::Giving;
use super::{Opening, Pace, decode};
use crate::quic::session::{Opened, ReplicaSession};
use crate::quic::{CloseCode, Credentials, Transport};

use crate::wire::message::{RemoteError, Shape};
use crate::{Error, Result};

/// Files that are fetched side by side over one connection.
pub(super) const STREAMS: usize = 4;
/// The bit of a file's number on the wire that says that it is a log segment.
const LOG_BIT: u64 = 1 << 63;
/// The list of files is sent in parts of this size, in bytes.
const LIST_PART_BYTES: usize = 1 << 20;
/// The largest list of files, in bytes.
const LIST_BYTES_MAX: usize = 256 << 20;
/// How long a source may send nothing of a file, if nobody says: its disk may be busy.
const SILENCE_MAX: Duration = Duration::from_mins(1);
/// How often a source is asked for something, if nobody says.
const KEEP_EVERY: Duration = Duration::from_secs(15);
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
    /// How often a source is asked for something while nothing more may come yet: it lets go of a cut of which nothing is asked.
    pub keep_every: Duration,
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
            keep_every: KEEP_EVERY,
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

impl CloneProgress {
    /// Bytes that came over the network in this attempt.
    pub fn moved_bytes(&self) -> u64 {
        self.done_bytes.saturating_sub(self.resumed_bytes + self.linked_bytes)
    }
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

/// Sends the list of a pinned cut.
pub(super) async fn send_list(session: &ReplicaSession, list: bytes::Bytes) -> Result<()> {
    let mut sender = session.open_bulk(bytes::Bytes::new()).await?;
    for part in list.chunks(LIST_PART_BYTES) {
        sender.send(list.slice_ref(part)).await?;
    }
    sender.finish().await
}

/// Sends whatever is asked for of the files of a cut, until the target is done, or asks for nothing for so long. Tells whether
/// the target said that it has all.
pub(super) async fn serve_files(
    session: &ReplicaSession,
    giving: &Arc<Giving>,
    idle_max: Duration,
) -> Result<bool> {
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
                let giving = Arc::clone(giving);
                sending.spawn(sender.serve(move |offset, len| {
                    giving.outgoing.count(len as u64);
                    bulk::read(&giving.pin, kind, number, offset, len)
                        .map_err(|error| RemoteError::new(error.code(), error.to_string()))
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
    let opening = Connections::open(address, credentials, transport, &opening);
    let connections = Arc::new(taking.pace.heed(opening).await?);
    let done = fetch_clone(&connections, taking, None, progress).await;
    let (code, why) = match &done {
        Ok(_) => (CloseCode::Done, "the clone is complete".to_owned()),
        Err(error) => (CloseCode::Refused, error.to_string()),
    };
    connections.farewell(code, &why).await;
    done
}

/// Fetches a clone over a connection that was opened for it, and over as many more as it is to have, if it meets the terms.
pub(super) async fn fetch_clone(
    connections: &Arc<Connections>,
    taking: &Taking,
    terms: Option<&Terms>,
    progress: impl Fn(&CloneProgress) + Send + Sync + 'static,
) -> Result<CloneProgress> {
    let (begun, pace) = (now(), &taking.pace);
    progress(&CloneProgress::default());
    let encoded = pace.heed(receive_encoded(connections.first(), LIST_BYTES_MAX)).await?;
    let (list, hash): (FileList, _) = (decode(&encoded)?, *blake3::hash(&encoded).as_bytes());
    drop(encoded);
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
    let fetching = Fetching::new(target, state, progress, begun, taking);
    let (mut target, mut state, progress) = fetching.fetch_all(connections, hash).await?;
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
    decode(&receive_encoded(session, LIST_BYTES_MAX).await?)
}

/// Receives a list of files as it was sent.
async fn receive_encoded(session: &ReplicaSession, bytes_max: usize) -> Result<Vec<u8>> {
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
    Ok(bytes)
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
