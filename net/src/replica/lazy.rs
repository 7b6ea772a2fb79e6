//! Clones that are read while they come in: what a reader waits for is fetched first, the rest in the background.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use planaria_engine::os::AlignedBuffer;
use planaria_engine::{
    CLONE_CHUNK_BYTES, ChunkRange, CloneTarget, Database, FileKind, FileList, Hydration, MissingChunk,
};
use planaria_replication::Millis;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::clock::now;
use super::clone::{CloneProgress, CloneStage, STREAMS, Taking, blocking, joined, receive_list, wire_number};
use super::secondary::open_session;
use super::{Opening, Pace};
use crate::quic::session::ReplicaSession;
use crate::quic::{CloseCode, Credentials, Transport};
use crate::wire::limits::FILE_CHUNK_BYTES_MAX;
use crate::wire::replica::{FOR_READERS, FileRequest};
use crate::{Error, Result};

/// How often something is asked for while the rate leaves nothing to ask for.
const KEEP_EVERY: Duration = Duration::from_secs(15);
/// Chunks that are fetched side by side because readers wait for them.
const FOR_READERS_MAX: usize = 8;
/// Chunks that the background asks for at once. All that its streams may have sent without being read is less than what a
/// connection takes in, so that a rate which is lowered never holds up what readers wait for.
const RANGE_CHUNKS: usize = 3;
/// The background asks for nothing more until nobody has waited for so long, since one read leads to the next…
const READER_MOMENT: Duration = Duration::from_millis(4);
/// … but no longer than this, and looks so often, so that it gets on however much is read.
const YIELD_MAX_MS: u64 = 24;
const YIELD: Duration = Duration::from_millis(1);

/// A clone that is opened before it is complete, over as many attempts and sources as it takes.
pub struct LazyTaking {
    taking: Taking,
    /// What is received, once it can be read.
    target: Mutex<Option<Arc<CloneTarget>>>,
    opened: Box<dyn Fn(Database) + Send + Sync>,
}

impl LazyTaking {
    /// Takes a whole clone into a new directory. `opened` is given the database to read it by as soon as there is one, and another
    /// one whenever the clone has to become one of a later cut.
    ///
    /// # Errors
    ///
    /// `Protocol` for a clone that is not of everything, or that makes use of files on this disk.
    pub fn new(taking: Taking, opened: impl Fn(Database) + Send + Sync + 'static) -> Result<Self> {
        if !taking.shape.is_whole() || taking.reuse.is_some() {
            return Err(Error::Protocol("a clone that is read while it comes in is whole and new".into()));
        }
        Ok(Self { taking, target: Mutex::default(), opened: Box::new(opened) })
    }

    /// Has what an earlier process received be read before any source answers, if there is something.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub fn resume(&self) -> Result<()> {
        let Taking { target, options, role, .. } = &self.taking;
        let Some(resumed) = CloneTarget::resume_lazily(target, options.clone())? else { return Ok(()) };
        match resumed.view(*role) {
            Ok(view) => {
                *self.target.lock() = Some(Arc::new(resumed));
                (self.opened)(view);
            }
            Err(error) => tracing::info!(%error, "a clone is not read before a source answers"),
        }
        Ok(())
    }

    /// Takes what is missing from the node at `address`, until the clone is complete, verified and durable.
    ///
    /// # Errors
    ///
    /// As [`super::take_clone`]. What came in can be read, and the next attempt goes on from there, with this source or another.
    pub async fn take_from(
        &self,
        address: SocketAddr,
        credentials: &Credentials,
        transport: &Transport,
        progress: impl Fn(&CloneProgress) + Send + Sync + 'static,
    ) -> Result<CloneProgress> {
        let begun = self.target.lock().clone();
        progress(
            &begun.as_deref().map_or_else(CloneProgress::default, |target| Before::of(target).state(target)),
        );
        drop(begun);
        let transport = transport.watchful();
        let opening = open_session(address, credentials, &transport, &Opening::Clone);
        let taken = match self.taking.pace.heed(opening).await {
            Ok((_endpoint, session)) => {
                let taken = self.fetch(&session, progress).await;
                // The source holds its pin until it hears of the end.
                session.connection().farewell(CloseCode::Done, "the clone is complete").await;
                taken
            }
            Err(error) => Err(error),
        };
        if let (Err(error), Some(target)) = (&taken, &*self.target.lock()) {
            target.hydration().set_away(&format!("{address}: {error}"));
        }
        taken
    }

    async fn fetch(
        &self,
        session: &ReplicaSession,
        progress: impl Fn(&CloneProgress) + Send + Sync + 'static,
    ) -> Result<CloneProgress> {
        let begun = now();
        let list: FileList = self.taking.pace.heed(receive_list(session)).await?;
        let (target, is_open) = self.target_for(&list).await?;
        let numbers = target.numbers_in(&list).ok_or_else(|| {
            Error::Protocol("the source has none of the files that it listed itself".into())
        })?;
        let (session, pace) = (session.clone(), Arc::clone(&self.taking.pace));
        let before = Before::of(&target);
        let hydrating = Arc::new(Hydrating { session, target, numbers, before, pace, progress, begun });
        if !is_open {
            hydrating.fetch_log().await?;
            let (target, role) = (Arc::clone(&hydrating.target), self.taking.role);
            let view = blocking(move || Ok(target.view(role)?)).await?;
            *self.target.lock() = Some(Arc::clone(&hydrating.target));
            (self.opened)(view);
        }
        hydrating.hydrate().await?;
        self.complete(hydrating).await
    }

    /// What this list of files is received into, and whether that can be read already.
    async fn target_for(&self, list: &FileList) -> Result<(Arc<CloneTarget>, bool)> {
        let begun = self.target.lock().clone();
        if let Some(begun) = begun {
            let (own, theirs) = (begun.list().database(), list.database());
            if own != theirs {
                return Err(Error::Protocol(format!("it has database {theirs}, and the clone is of {own}")));
            }
            if begun.numbers_in(list).is_some() {
                return Ok((begun, true));
            }
            // Merges have taken files of this cut away. What the two cuts have in common is kept.
            tracing::info!(from = %begun.list().position.uid, to = %list.position.uid, "a clone moves on to a later cut");
            self.target.lock().take();
            blocking(move || {
                begun.retire("the clone has moved on to a later cut of its source");
                Ok(())
            })
            .await?;
        }
        let (path, options, list) = (self.taking.target.clone(), self.taking.options.clone(), list.clone());
        let target = blocking(move || Ok(CloneTarget::open_lazily(path, list, options)?)).await?;
        Ok((Arc::new(target), false))
    }

    /// Gives the clone its identity and its name, once all is here.
    async fn complete<P>(&self, hydrating: Arc<Hydrating<P>>) -> Result<CloneProgress>
    where
        P: Fn(&CloneProgress) + Send + Sync + 'static,
    {
        self.target.lock().take();
        let mut state = hydrating.state(CloneStage::Installing);
        (hydrating.progress)(&state);
        let hydrating = Arc::into_inner(hydrating).ok_or(Error::Closed)?;
        let mut target = Arc::into_inner(hydrating.target).ok_or(Error::Closed)?;
        if let Some(about) = self.taking.about_now() {
            target.set_about(about);
        }
        let role = self.taking.role;
        blocking(move || Ok(target.finish(role)?)).await?;
        state.elapsed_ms = now().since(hydrating.begun).0;
        (hydrating.progress)(&state);
        Ok(state)
    }
}

/// How it was with a clone when an attempt began, in bytes.
#[derive(Clone, Copy)]
struct Before {
    total: u64,
    here: u64,
    /// What was found that an earlier process had brought.
    found: u64,
}

impl Before {
    fn of(target: &CloneTarget) -> Self {
        let total = target.list().bytes();
        let here = total.saturating_sub(target.hydration().missing_bytes());
        Self { total, here, found: target.resumed_bytes() }
    }

    /// How it is now. What was here before this attempt, and what it has found here, it has not brought.
    fn state(self, target: &CloneTarget) -> CloneProgress {
        let found = target.resumed_bytes().saturating_sub(self.found);
        CloneProgress {
            stage: CloneStage::Listing,
            cut: Some(target.list().position.uid),
            total_bytes: self.total,
            done_bytes: self.total.saturating_sub(target.hydration().missing_bytes()),
            resumed_bytes: self.here + found,
            linked_bytes: 0,
            files: target.list().files.len() as u64,
            elapsed_ms: 0,
        }
    }
}

/// One attempt with one source.
struct Hydrating<P> {
    session: ReplicaSession,
    target: Arc<CloneTarget>,
    /// The numbers that the source has given the files.
    numbers: BTreeMap<(FileKind, u64), u64>,
    before: Before,
    pace: Arc<Pace>,
    progress: P,
    begun: Millis,
}

impl<P: Fn(&CloneProgress) + Send + Sync + 'static> Hydrating<P> {
    fn hydration(&self) -> &Arc<Hydration> {
        self.target.hydration()
    }

    fn state(&self, stage: CloneStage) -> CloneProgress {
        CloneProgress { stage, elapsed_ms: now().since(self.begun).0, ..self.before.state(&self.target) }
    }

    /// Fetches the log, without which nothing can be read.
    async fn fetch_log(self: &Arc<Self>) -> Result<()> {
        for chunk in self.target.missing().into_iter().filter(|chunk| chunk.kind == FileKind::Log) {
            Arc::clone(self).fetch_chunk(chunk).await?;
        }
        Ok(())
    }

    /// Fetches all that is missing.
    async fn hydrate(self: &Arc<Self>) -> Result<()> {
        let wanted = Arc::new(Notify::new());
        let waker = Arc::clone(&wanted);
        self.hydration().on_wanted(move || waker.notify_one());
        self.hydration().set_back();
        let (mut background, mut for_readers) = (JoinSet::new(), JoinSet::new());
        for _ in 0..STREAMS {
            background.spawn(Arc::clone(self).fetch_in_order());
        }
        while !background.is_empty() {
            while for_readers.len() < FOR_READERS_MAX
                && let Some(chunk) = self.hydration().next_wanted()
            {
                for_readers.spawn(Arc::clone(self).fetch_chunk(chunk));
            }
            tokio::select! {
                Some(done) = background.join_next() => joined(done)?,
                Some(done) = for_readers.join_next(), if !for_readers.is_empty() => joined(done)?,
                () = wanted.notified() => {}
                () = tokio::time::sleep(KEEP_EVERY) => self.keep_pin().await?,
            }
        }
        // What was asked for twice.
        while let Some(done) = for_readers.join_next().await {
            joined(done)?;
        }
        Ok(())
    }

    /// Asks for no bytes at all: a source lets go of a pin of which nothing is asked for long.
    async fn keep_pin(&self) -> Result<()> {
        let Some((&(kind, _), &number)) = self.numbers.first_key_value() else { return Ok(()) };
        let request = FileRequest { lease: 0, file: wire_number(kind, number), offset: 0, length: 0 };
        let mut receiver = self.pace.heed(self.session.fetch(request)).await?;
        self.pace.heed(receiver.next(&mut AlignedBuffer::new(0))).await.map(drop)
    }

    /// Leaves the wire and the processor to those who wait for something, for a while.
    async fn yield_to_readers(&self) {
        let begun = now();
        while self.hydration().is_being_read(READER_MOMENT) && now().since(begun).0 < YIELD_MAX_MS {
            tokio::time::sleep(YIELD).await;
        }
    }

    /// Fetches, as one of several, what nobody waits for, until nothing is left.
    async fn fetch_in_order(self: Arc<Self>) -> Result<()> {
        loop {
            self.yield_to_readers().await;
            // Where it is slow, little is under way that a reader would ask for a second time.
            let chunks_max = if self.pace.rate().is_some() { 1 } else { RANGE_CHUNKS };
            let hydration = Arc::clone(self.hydration());
            let claimed = blocking(move || Ok(hydration.claim(chunks_max))).await?;
            (self.progress)(&self.state(CloneStage::Hydrating));
            match claimed {
                None => return Ok(()),
                // It was looked at, and is here or not.
                Some(range) if range.length == 0 && self.pace.is_stopped() => return Err(Error::GivenUp),
                Some(range) if range.length == 0 => {}
                Some(range) => self.fetch_range(range, false).await?,
            }
        }
    }

    async fn fetch_chunk(self: Arc<Self>, chunk: MissingChunk) -> Result<()> {
        let length = self.hydration().bytes_of(chunk);
        self.fetch_range(ChunkRange { first: chunk, length }, true).await
    }

    /// Fetches chunks that follow one another. What readers wait for is not held back by the rate, but counted.
    async fn fetch_range(self: &Arc<Self>, range: ChunkRange, for_readers: bool) -> Result<()> {
        let MissingChunk { kind, number, chunk } = range.first;
        let theirs = self.numbers.get(&(kind, number)).copied().unwrap_or(number);
        let request = FileRequest {
            lease: if for_readers { FOR_READERS } else { 0 },
            file: wire_number(kind, theirs),
            offset: chunk * CLONE_CHUNK_BYTES,
            length: range.length,
        };
        let mut receiver = self.pace.heed(self.session.fetch(request)).await?;
        let mut data = AlignedBuffer::new(FILE_CHUNK_BYTES_MAX as usize);
        while let Some(offset) = self.pace.heed(receiver.next(&mut data)).await? {
            let (own, bytes) = (Arc::clone(self), data.len() as u64);
            let chunk = MissingChunk { chunk: offset / CLONE_CHUNK_BYTES, ..range.first };
            data = blocking(move || {
                own.target.take_in(chunk, &data)?;
                Ok(data)
            })
            .await?;
            (self.progress)(&self.state(CloneStage::Hydrating));
            if for_readers {
                // Who reads waits for no sync. Whoever completes the clone makes this durable, too.
                self.pace.charge(bytes);
            } else {
                self.pace.admit(bytes).await?;
            }
        }
        if for_readers {
            return Ok(());
        }
        let own = Arc::clone(self);
        blocking(move || Ok(own.target.sync_complete(kind, number)?)).await
    }
}

#[cfg(test)]
#[path = "lazy_tests.rs"]
mod tests;
