use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use planaria_engine::os::AlignedBuffer;
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::time::timeout;

use super::connection::lost;
use crate::wire::frame::HEADER_BYTES;
use crate::wire::limits::READ_AHEAD_BYTES;
use crate::wire::{Frame, FrameError, FrameKind};
use crate::{Error, Result};

/// The code with which an exchange is given up before its end.
const ABANDONED: VarInt = VarInt::from_u32(1);

/// The bytes that are taken off the connection at a time.
const READ_BYTES: usize = 64 << 10;

/// Bytes of frames, headers included, that a connection has received on all its streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Received(Arc<AtomicU64>);

impl Received {
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn count(&self, frame: &Frame) {
        self.0.fetch_add((HEADER_BYTES + frame.body.len()) as u64, Ordering::Relaxed);
    }
}

/// The receiving half of a stream, as frames.
pub(crate) struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
    peer: SocketAddr,
    received: Received,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream, peer: SocketAddr, received: &Received) -> Self {
        Self { stream, buffer: BytesMut::new(), peer, received: received.clone() }
    }

    /// The next frame; `None` if the other side has finished the stream between two frames.
    ///
    /// May be dropped at any time without loss: what has arrived stays here.
    pub(crate) async fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer)? {
                self.received.count(&frame);
                return Ok(Some(frame));
            }
            let missing = Frame::missing_bytes(&self.buffer)?;
            self.buffer.reserve(missing.min(READ_AHEAD_BYTES));
            // A long frame is read to its end and no further, so that what follows need not be moved.
            let take = if missing > READ_BYTES { missing } else { READ_BYTES };
            match self.read_some(take).await? {
                Some(bytes) => self.buffer.extend_from_slice(&bytes),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(FrameError::Truncated.into()),
            }
        }
    }

    /// Puts the next `length` bytes, which are outside of frames, into `data`, over what it holds: one copy, into memory that is
    /// used again.
    pub(crate) async fn read_raw(&mut self, length: usize, data: &mut AlignedBuffer) -> Result<()> {
        data.clear();
        let ahead = self.buffer.len().min(length);
        data.fill(&self.buffer.split_to(ahead));
        while data.len() < length {
            let bytes = self.read_some(length - data.len()).await?.ok_or(FrameError::Truncated)?;
            if data.fill(&bytes) < bytes.len() {
                let (bytes, limit) = (length as u64, data.len() as u64);
                return Err(Error::TooLarge { what: "a chunk", bytes, limit });
            }
        }
        self.received.0.fetch_add(length as u64, Ordering::Relaxed);
        Ok(())
    }

    /// The next bytes of the stream, at most `most`; `None` if the other side has finished it.
    async fn read_some(&mut self, most: usize) -> Result<Option<Bytes>> {
        match self.stream.read_chunk(most, true).await {
            Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
            Err(ReadError::Reset(_)) => Err(Error::Ended("it gave up sending")),
            Err(ReadError::ConnectionLost(error)) => Err(lost(self.peer, &error)),
            Err(_) => Err(Error::Closed),
        }
    }

    /// The next frame, which must be of `kind`.
    pub(crate) async fn expect(&mut self, kind: FrameKind, wanted: &'static str) -> Result<Frame> {
        let frame = self.next().await?.ok_or(FrameError::Missing(wanted))?;
        Ok(frame.expect_kind(kind, wanted)?)
    }
}

/// The sending half of a stream, as frames.
///
/// Dropped before [`FrameWriter::finish`], it resets the stream: an exchange that was given up midway never looks
/// complete to the other side.
pub(crate) struct FrameWriter {
    stream: SendStream,
    peer: SocketAddr,
    finished: bool,
    /// How long the other side may take nothing at all.
    patience: Option<Duration>,
}

impl FrameWriter {
    pub(crate) fn new(stream: SendStream, peer: SocketAddr) -> Self {
        Self { stream, peer, finished: false, patience: None }
    }

    /// Waits no longer than this while the other side takes nothing: something is kept for it meanwhile.
    pub(crate) fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = Some(patience);
        self
    }

    /// Streams of a higher priority are sent first; 0 is that of requests.
    pub(crate) fn set_priority(&self, priority: i32) -> Result<()> {
        self.stream.set_priority(priority).map_err(|_| Error::Closed)
    }

    /// Sends one frame; waits while the windows are full.
    pub(crate) async fn write(&mut self, frame: Frame) -> Result<()> {
        self.write_chunks(&mut frame.encode()?).await
    }

    /// Sends one frame and bytes that follow it outside of frames, without copying them.
    pub(crate) async fn write_with(&mut self, frame: Frame, bytes: Bytes) -> Result<()> {
        let [header, body] = frame.encode()?;
        self.write_chunks(&mut [header, body, bytes]).await
    }

    /// Sends bytes that are frames already.
    pub(crate) async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<()> {
        let peer = self.peer;
        let mut rest = chunks;
        while !rest.is_empty() {
            let writing = self.stream.write_chunks(rest);
            let written = match self.patience {
                Some(patience) => timeout(patience, writing).await.map_err(|_| Error::Lost {
                    peer,
                    why: format!("it took nothing for {} s", patience.as_secs()),
                })?,
                None => writing.await,
            };
            let written = written.map_err(|error| match error {
                WriteError::Stopped(_) => Error::Ended("it no longer reads"),
                WriteError::ConnectionLost(error) => lost(peer, &error),
                WriteError::ClosedStream | WriteError::ZeroRttRejected => Error::Closed,
            })?;
            rest = &mut rest[written.chunks..];
        }
        Ok(())
    }

    /// Says that nothing more follows.
    pub(crate) fn finish(&mut self) {
        self.finished = true;
        // An error says that the other side has stopped the stream; then there is nobody to tell.
        let _ = self.stream.finish();
    }

    /// Completes when the other side no longer reads, the connection is lost, or all was received after `finish`.
    pub(crate) fn stopped(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.stream.stopped();
        async move {
            let _ = stopped.await;
        }
    }
}

impl Drop for FrameWriter {
    fn drop(&mut self) {
        if !self.finished {
            // An error says that the stream is closed already.
            let _ = self.stream.reset(ABANDONED);
        }
    }
}
