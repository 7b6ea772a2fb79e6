//! How the chunks of a clone come in: over one connection or several, each with some streams, checked and written on arrival.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use planaria_engine::os::AlignedBuffer;
use planaria_engine::{CloneTarget, FileKind};
use planaria_replication::Millis;
use tokio::task::JoinSet;

use super::Pace;
use super::clock::now;
use super::clone::{CloneProgress, STREAMS, Taking, blocking, joined, wire_number};
use super::connections::Connections;
use super::executor::bulk::{self, Range};
use super::pieces::{Claim, Pieces, Portions};
use crate::quic::session::ReplicaSession;
use crate::wire::FrameError;
use crate::wire::limits::FILE_CHUNK_BYTES_MAX;
use crate::wire::replica::FileRequest;
use crate::{Error, Result};

/// Streams of each of several connections.
const STREAMS_OF_EACH: usize = 2;

/// A clone that comes in, as its streams share it.
pub(super) struct Fetching<P> {
    target: CloneTarget,
    state: Mutex<CloneProgress>,
    progress: P,
    begun: Millis,
    pace: Arc<Pace>,
    silence_max: Duration,
    keep_every: Duration,
}

impl<P: Fn(&CloneProgress) + Send + Sync + 'static> Fetching<P> {
    pub(super) fn new(
        target: CloneTarget,
        state: CloneProgress,
        progress: P,
        begun: Millis,
        taking: &Taking,
    ) -> Self {
        let (state, pace) = (Mutex::new(state), Arc::clone(&taking.pace));
        let (silence_max, keep_every) = (taking.silence_max, taking.keep_every);
        Self { target, state, progress, begun, pace, silence_max, keep_every }
    }

    /// Fetches all that is missing of the clone whose list of files has this hash.
    ///
    /// # Errors
    ///
    /// Why it cannot be had. A connection that ends is no reason as long as there is another one.
    pub(super) async fn fetch_all(
        self,
        connections: &Arc<Connections>,
        list: [u8; 32],
    ) -> Result<(CloneTarget, CloneProgress, P)> {
        let wanted = connections.wanted(self.target.hydration().missing_bytes());
        let (streams, portions) = match wanted {
            ..=1 => (STREAMS, Portions::Whole),
            _ => (STREAMS_OF_EACH, Portions::Shared(wanted * STREAMS_OF_EACH as u64)),
        };
        let pieces = Pieces::new(bulk::ranges(&self.target), portions);
        let shared = Arc::new(self);
        let mut lines = JoinSet::new();
        lines.spawn(Line::new(&shared, &pieces, connections.first()).run(streams));
        for _ in 1..wanted {
            lines.spawn(Line::join(
                Arc::clone(&shared),
                Arc::clone(&pieces),
                Arc::clone(connections),
                list,
                streams,
            ));
        }
        let mut lost = None;
        while let Some(ended) = lines.join_next().await {
            // What was fetched before by way of another one counts as much.
            if let Some(error) = joined(ended)? {
                tracing::info!(%error, others = lines.len(), "a connection of a clone is lost");
                lost = Some(error);
            }
        }
        if !pieces.are_there() {
            return Err(lost.unwrap_or(Error::Closed));
        }
        let Self { target, state, progress, .. } = Arc::into_inner(shared).ok_or(Error::Closed)?;
        Ok((target, state.into_inner(), progress))
    }

    /// What comes next, unless nothing comes: a source that lives and sends nothing would hold the clone up for ever.
    async fn in_time<T>(&self, next: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(self.silence_max, next).await.unwrap_or_else(|_| {
            let silence_ms = self.silence_max.as_millis();
            Err(Error::Protocol(format!("the source sent nothing of a file for {silence_ms} ms")))
        })
    }

    fn write(&self, range: Range, offset: u64, data: &[u8]) -> Result<()> {
        let is_new = self.target.take_in(range.chunk_at(offset), data)?;
        let mut state = self.state.lock();
        if is_new {
            state.done_bytes += data.len() as u64;
        }
        state.elapsed_ms = now().since(self.begun).0;
        (self.progress)(&state);
        Ok(())
    }
}

/// One connection of a clone.
struct Line<P> {
    shared: Arc<Fetching<P>>,
    pieces: Arc<Pieces>,
    session: ReplicaSession,
}

impl<P> Clone for Line<P> {
    fn clone(&self) -> Self {
        let (shared, pieces) = (Arc::clone(&self.shared), Arc::clone(&self.pieces));
        Self { shared, pieces, session: self.session.clone() }
    }
}

impl<P: Fn(&CloneProgress) + Send + Sync + 'static> Line<P> {
    fn new(shared: &Arc<Fetching<P>>, pieces: &Arc<Pieces>, session: &ReplicaSession) -> Self {
        let (shared, pieces) = (Arc::clone(shared), Arc::clone(pieces));
        Self { shared, pieces, session: session.clone() }
    }

    /// Opens one connection more, and fetches over it what the others leave. Whatever keeps it from being opened is told as the end
    /// of a connection.
    async fn join(
        shared: Arc<Fetching<P>>,
        pieces: Arc<Pieces>,
        connections: Arc<Connections>,
        list: [u8; 32],
        streams: usize,
    ) -> Result<Option<Error>> {
        let joining = tokio::select! {
            joining = shared.pace.heed(connections.join(list)) => joining,
            () = pieces.there() => return Ok(None),
        };
        match joining {
            Ok(session) => Self { shared, pieces, session }.run(streams).await,
            Err(Error::GivenUp) => Err(Error::GivenUp),
            Err(error) => Ok(Some(error)),
        }
    }

    /// Fetches pieces over this connection until all are there, or the connection is not any more: then it tells why.
    ///
    /// # Errors
    ///
    /// What no other connection would help with: the source lies, or the disk fails.
    async fn run(self, streams: usize) -> Result<Option<Error>> {
        let mut running = JoinSet::new();
        for _ in 0..streams {
            running.spawn(self.clone().take_pieces());
        }
        let mut lost = None;
        while let Some(ended) = running.join_next().await {
            match joined(ended) {
                Ok(()) => {}
                Err(error) if is_lost_by(&error, self.session.connection().is_lost()) => {
                    lost = lost.or(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(lost)
    }

    /// One of its streams. What it could not fetch is there for others before it ends.
    async fn take_pieces(self) -> Result<()> {
        let mut syncing = JoinSet::new();
        let taken = self.take_each(&mut syncing).await;
        while let Some(done) = syncing.join_next().await {
            joined(done)?;
        }
        taken
    }

    async fn take_each(&self, syncing: &mut JoinSet<Result<()>>) -> Result<()> {
        loop {
            let next = async { Ok(self.pieces.claim().await) };
            let Some(mut claim) = self.keeping(next).await? else { return Ok(()) };
            let Range { kind, number, .. } = claim.rest();
            self.fetch(&mut claim).await?;
            drop(claim);
            syncing.spawn(sync(Arc::clone(&self.shared), kind, number));
        }
    }

    /// Fetches a piece; one chunk is checked and written while the next one comes.
    async fn fetch(&self, claim: &mut Claim) -> Result<()> {
        let mut writing = JoinSet::new();
        let received = self.receive(claim, &mut writing).await;
        // Whatever became of the connection: what has come is here.
        match writing.join_next().await.map(joined) {
            Some(Ok(last)) => claim.arrived(last.len() as u64),
            // What is wrong with the connection comes first: whoever fetches the chunk again meets this again.
            Some(Err(error)) if received.is_ok() => return Err(error),
            Some(Err(_)) | None => {}
        }
        received
    }

    async fn receive(&self, claim: &mut Claim, writing: &mut JoinSet<Result<AlignedBuffer>>) -> Result<()> {
        let (shared, pace, range) = (&self.shared, &self.shared.pace, claim.rest());
        let buffer = || AlignedBuffer::new(FILE_CHUNK_BYTES_MAX as usize);
        let (mut data, mut asked, end) = (buffer(), range.offset, range.offset + range.length);
        while asked < end {
            // Nothing is asked for that may not come yet: it would wait in the windows, and come again if either side dies.
            let leave = self.keeping(pace.ask(end - asked)).await?;
            self.keeping(pace.paid()).await?;
            let file = wire_number(range.kind, range.number);
            let request = FileRequest { lease: 0, file, offset: asked, length: leave.bytes() };
            asked += leave.bytes();
            let mut receiver = pace.heed(self.session.fetch(request)).await?;
            while let Some(offset) = pace.heed(shared.in_time(receiver.next(&mut data))).await? {
                pace.count(data.len() as u64);
                let free = match writing.join_next().await {
                    Some(written) => joined(written)?,
                    None => buffer(),
                };
                claim.arrived(free.len() as u64);
                let full = std::mem::replace(&mut data, free);
                let shared = Arc::clone(shared);
                writing.spawn_blocking(move || shared.write(range, offset, &full).map(|()| full));
                // What has come is here before it is paid for.
                self.keeping(pace.paid()).await?;
            }
        }
        Ok(())
    }

    /// Waits for something, and has the source keep its cut meanwhile. Ends with the connection.
    async fn keeping<T>(&self, waiting: impl Future<Output = Result<T>>) -> Result<T> {
        let mut waiting = pin!(waiting);
        loop {
            tokio::select! {
                biased;
                done = &mut waiting => return done,
                end = self.session.closed() => return Err(end),
                () = tokio::time::sleep(self.shared.keep_every) => self.ask_for_nothing().await?,
            }
        }
    }

    async fn ask_for_nothing(&self) -> Result<()> {
        let shared = &self.shared;
        let Some(file) = shared.target.list().files.first() else { return Ok(()) };
        let file = wire_number(file.kind, file.number);
        let request = FileRequest { lease: 0, file, offset: 0, length: 0 };
        let mut receiver = shared.pace.heed(self.session.fetch(request)).await?;
        shared.pace.heed(shared.in_time(receiver.next(&mut AlignedBuffer::new(0)))).await.map(drop)
    }
}

/// Makes a file that is there durable while others come.
async fn sync<P: Send + Sync + 'static>(shared: Arc<Fetching<P>>, kind: FileKind, number: u64) -> Result<()> {
    blocking(move || Ok(shared.target.sync_complete(kind, number)?)).await
}

/// Whether an error of a stream says no more than that its connection ends. A source that goes gives its streams up before it closes
/// the connection, and what has come of one is read before that is known: such an error says it by itself. And whoever lies may close
/// the connection right after, so that an error which is about what came says it never.
fn is_lost_by(error: &Error, is_connection_lost: bool) -> bool {
    match error {
        Error::Ended(_) | Error::Closed | Error::Frame(FrameError::Truncated | FrameError::Missing(_)) => {
            true
        }
        Error::GivenUp | Error::Engine(_) | Error::File { .. } | Error::Remote(_) | Error::Frame(_) => false,
        _ => is_connection_lost,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::FrameKind;

    #[test]
    fn what_a_stream_says_of_its_end_does_not_hang_on_when_that_of_the_connection_is_known() {
        for is_known in [false, true] {
            for gone in [Error::Ended("it gave up sending"), FrameError::Truncated.into(), Error::Closed] {
                assert!(is_lost_by(&gone, is_known), "{gone}");
            }
            for about_what_came in [FrameError::Checksum(FrameKind::FileChunk).into(), Error::GivenUp] {
                assert!(!is_lost_by(&about_what_came, is_known), "{about_what_came}");
            }
        }
        let silent = Error::Protocol("nothing came".into());
        assert_eq!([false, true].map(|is_known| is_lost_by(&silent, is_known)), [false, true]);
    }
}
