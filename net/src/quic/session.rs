//! Replica sessions: one ordered stream of control and live messages that goes before everything else, and streams of
//! bulk messages and file bytes beside it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use planaria_engine::os::AlignedBuffer;
use planaria_types::FileId;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;

use super::{CloseCode, Connection, FrameReader, FrameWriter, Peer};
use crate::wire::limits::{CONTROL_BYTES_MAX, FILE_CHUNK_BYTES_MAX, REQUEST_TIMEOUT};
use crate::wire::message::RemoteError;
use crate::wire::replica::{FOR_READERS, FileChunk, FileRequest};
use crate::wire::{Frame, FrameError, FrameKind};
use crate::{Error, Result};

/// Control and live messages are sent before anything else.
const CONTROL_PRIORITY: i32 = 10;
/// Bytes of files that a reader waits for.
const READERS_PRIORITY: i32 = -5;
/// Bulk messages and files are sent with what the control stream leaves.
const BULK_PRIORITY: i32 = -10;

/// Messages that wait to be sent on the control stream.
const QUEUE_MESSAGES_MAX: usize = 4_096;
/// Bytes of messages that wait to be sent on the control stream; a single larger message waits alone.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Streams that were opened by the other side and not yet taken.
const OPENED_MAX: usize = 16;
/// How long the other side may take nothing of what is sent on a stream: meanwhile files are kept for it, and a thread waits.
const PATIENCE: Duration = Duration::from_mins(2);
/// Chunks that are read ahead of what is sent.
const CHUNKS_AHEAD: usize = 2;

/// A session with another node over which a database is replicated or cloned.
///
/// What the messages mean is up to the caller; the session keeps their order on the control stream, bounds what
/// waits, and moves bulk bytes without a copy. Cheap to clone; every method may be used side by side.
#[derive(Clone)]
pub struct ReplicaSession(Arc<Parts>);

struct Parts {
    connection: Connection,
    outgoing: mpsc::Sender<(Bytes, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
    incoming: AsyncMutex<FrameReader>,
    opened: AsyncMutex<mpsc::Receiver<Opened>>,
    /// Why the control stream no longer takes messages.
    failure: Arc<Mutex<Option<Error>>>,
    tasks: [AbortHandle; 2],
}

impl Drop for Parts {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// A stream that the other side opened.
pub enum Opened {
    /// Bulk messages come, under a message that says what they are.
    Bulk(Bytes, BulkReceiver),
    /// Bytes of a file are asked for.
    File(FileRequest, FileSender),
}

impl ReplicaSession {
    /// A session over a connection for the service replica. Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the connection is for another service or has a session already.
    pub fn over(connection: Connection) -> Result<Self> {
        let (writer, reader) = connection.take_control().ok_or(Error::Closed)?;
        writer.set_priority(CONTROL_PRIORITY)?;
        let writer = writer.with_patience(PATIENCE);
        let failure = Arc::new(Mutex::new(None));
        let (outgoing, queue) = mpsc::channel(QUEUE_MESSAGES_MAX);
        let sending = tokio::spawn(send_all(writer, queue, Arc::clone(&failure)));
        let (opened_sender, opened) = mpsc::channel(OPENED_MAX);
        let accepting = tokio::spawn(accept_all(connection.clone(), opened_sender));
        Ok(Self(Arc::new(Parts {
            connection,
            outgoing,
            room: Arc::new(Semaphore::new(QUEUE_BYTES_MAX)),
            incoming: AsyncMutex::new(reader),
            opened: AsyncMutex::new(opened),
            failure,
            tasks: [sending.abort_handle(), accepting.abort_handle()],
        })))
    }

    /// The other node.
    pub fn peer(&self) -> &Peer {
        self.0.connection.peer()
    }

    /// The connection below.
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Queues a control or live message; waits while the queue is full.
    ///
    /// # Errors
    ///
    /// [`Error::TooLarge`], or why the session is over.
    pub async fn send(&self, message: Bytes) -> Result<()> {
        let bytes = room_for(&message)?;
        let permit = Arc::clone(&self.0.room).acquire_many_owned(bytes).await.map_err(|_| Error::Closed)?;
        self.0.outgoing.send((message, permit)).await.map_err(|_| self.failure())
    }

    /// Queues a control or live message if there is room; false if there is none, and nothing was queued.
    ///
    /// This is the way of a primary's live stream: a slow secondary fills its own queue and waits for nobody.
    pub fn try_send(&self, message: Bytes) -> Result<bool> {
        let bytes = room_for(&message)?;
        let Ok(permit) = Arc::clone(&self.0.room).try_acquire_many_owned(bytes) else {
            return if self.0.outgoing.is_closed() { Err(self.failure()) } else { Ok(false) };
        };
        match self.0.outgoing.try_send((message, permit)) {
            Ok(()) => Ok(true),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(false),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(self.failure()),
        }
    }

    /// The next control or live message; `None` if the other side has ended the session.
    ///
    /// May be dropped at any time without loss.
    pub async fn receive(&self) -> Result<Option<Bytes>> {
        let mut incoming = self.0.incoming.lock().await;
        while let Some(frame) = incoming.next().await? {
            if self.0.connection.is_greeted() {
                return Ok(Some(frame.expect_kind(FrameKind::Control, "a control message")?.body));
            }
            self.0.connection.take_greeting(frame)?;
        }
        Ok(None)
    }

    /// Opens a stream of bulk messages, under a message that says what they are.
    pub async fn open_bulk(&self, head: Bytes) -> Result<BulkSender> {
        let mut writer = self.0.connection.open().await?.0.with_patience(PATIENCE);
        writer.set_priority(BULK_PRIORITY)?;
        writer.write(Frame::new(FrameKind::BulkOpen, head)).await?;
        Ok(BulkSender(writer))
    }

    /// Asks for bytes of a file.
    pub async fn fetch(&self, request: FileRequest) -> Result<FileReceiver> {
        let end = request.end()?;
        let (mut writer, reader) = self.0.connection.open().await?;
        writer.write(Frame::of(FrameKind::FileOpen, &request)?).await?;
        writer.finish();
        Ok(FileReceiver { reader, file: request.file, offset: request.offset, end, done: false })
    }

    /// The next stream that the other side opens. May be dropped at any time without loss.
    ///
    /// # Errors
    ///
    /// Why the session is over.
    pub async fn accept(&self) -> Result<Opened> {
        match self.0.opened.lock().await.recv().await {
            Some(opened) => Ok(opened),
            None => Err(self.0.connection.closed().await),
        }
    }

    /// Ends the session; the other side gets to see why.
    pub fn close(&self, code: CloseCode, why: &str) {
        self.0.connection.close(code, why);
    }

    /// Completes when the session is over, with the reason.
    pub async fn closed(&self) -> Error {
        self.0.connection.closed().await
    }

    fn failure(&self) -> Error {
        self.0.failure.lock().clone().unwrap_or(Error::Closed)
    }
}

/// The room that a message takes in the queue, in bytes.
fn room_for(message: &Bytes) -> Result<u32> {
    let bytes = message.len() as u64;
    if bytes > u64::from(CONTROL_BYTES_MAX) {
        return Err(Error::TooLarge {
            what: "a control message",
            bytes,
            limit: u64::from(CONTROL_BYTES_MAX),
        });
    }
    Ok(message.len().min(QUEUE_BYTES_MAX) as u32)
}

/// Sends what is queued, in order.
async fn send_all(
    mut writer: FrameWriter,
    mut queue: mpsc::Receiver<(Bytes, OwnedSemaphorePermit)>,
    failure: Arc<Mutex<Option<Error>>>,
) {
    while let Some((message, permit)) = queue.recv().await {
        if let Err(error) = writer.write(Frame::new(FrameKind::Control, message)).await {
            *failure.lock() = Some(error);
            return;
        }
        drop(permit);
    }
    writer.finish();
}

/// Reads the opening of each stream aside, so that a slow one holds up no other.
async fn accept_all(connection: Connection, opened: mpsc::Sender<Opened>) {
    let mut openings = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept() => {
                let Ok((writer, reader)) = stream else { return };
                let (opened, peer) = (opened.clone(), connection.peer().address);
                openings.spawn(async move {
                    match timeout(REQUEST_TIMEOUT, opening(writer, reader)).await {
                        // An error says that the session is over.
                        Ok(Ok(stream)) => drop(opened.send(stream).await),
                        Ok(Err(error)) => tracing::info!(%peer, %error, "a stream could not be understood"),
                        Err(_) => tracing::info!(%peer, "a stream was opened and not used"),
                    }
                });
            }
            Some(_) = openings.join_next() => {}
        }
    }
}

async fn opening(writer: FrameWriter, mut reader: FrameReader) -> Result<Opened> {
    let frame = reader.next().await?.ok_or(FrameError::Missing("the opening of a stream"))?;
    match frame.kind {
        FrameKind::BulkOpen => Ok(Opened::Bulk(frame.body, BulkReceiver { reader, done: false })),
        FrameKind::FileOpen => {
            let request: FileRequest = frame.message()?;
            let end = request.end()?;
            let for_readers = request.lease == FOR_READERS;
            writer.set_priority(if for_readers { READERS_PRIORITY } else { BULK_PRIORITY })?;
            let writer = writer.with_patience(PATIENCE);
            Ok(Opened::File(request, FileSender { writer, file: request.file, offset: request.offset, end }))
        }
        got => Err(FrameError::Unexpected { got, wanted: "the opening of a stream" }.into()),
    }
}

/// Sends bulk messages. Dropped before [`BulkSender::finish`], it tells the other side that they are not complete.
pub struct BulkSender(FrameWriter);

impl BulkSender {
    /// Sends one message of at most [`crate::wire::limits::BULK_BYTES_MAX`], without a copy; waits while the other
    /// side is slower.
    pub async fn send(&mut self, message: Bytes) -> Result<()> {
        self.0.write(Frame::new(FrameKind::Bulk, message)).await
    }

    /// Says that what was asked for cannot be had, and why. What was sent before is not complete.
    pub async fn fail(mut self, error: RemoteError) -> Result<()> {
        self.0.write(Frame::of(FrameKind::Error, &error.cut())?).await?;
        self.0.finish();
        Ok(())
    }

    /// Says that the messages are complete.
    pub async fn finish(mut self) -> Result<()> {
        self.0.write(Frame::new(FrameKind::BulkEnd, Bytes::new())).await?;
        self.0.finish();
        Ok(())
    }
}

/// Receives bulk messages. Dropping it stops the sender.
pub struct BulkReceiver {
    reader: FrameReader,
    done: bool,
}

impl BulkReceiver {
    /// The next message; `None` once the sender has said that they are complete.
    ///
    /// # Errors
    ///
    /// [`Error::Remote`] if the sender says that there will be no more, and why.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.done {
            return Ok(None);
        }
        let frame = self.reader.next().await?.ok_or(FrameError::Missing("the end of a bulk stream"))?;
        if frame.kind == FrameKind::BulkEnd {
            self.done = true;
            return Ok(None);
        }
        if frame.kind == FrameKind::Error {
            return Err(frame.message::<RemoteError>()?.into());
        }
        Ok(Some(frame.expect_kind(FrameKind::Bulk, "a bulk message")?.body))
    }
}

/// Sends the bytes of a file that were asked for, in order.
pub struct FileSender {
    writer: FrameWriter,
    file: FileId,
    offset: u64,
    end: u64,
}

impl FileSender {
    /// Bytes that are still to be sent.
    pub fn remaining(&self) -> u64 {
        self.end - self.offset
    }

    /// Sends the next bytes, at most 1 MiB and no more than remain, without a copy.
    pub async fn send(&mut self, data: Bytes) -> Result<()> {
        let bytes = data.len() as u64;
        if bytes > self.remaining() {
            return Err(Error::TooLarge { what: "a chunk", bytes, limit: self.remaining() });
        }
        let length = u32::try_from(bytes).ok().filter(|length| *length <= FILE_CHUNK_BYTES_MAX);
        let limit = u64::from(FILE_CHUNK_BYTES_MAX);
        let length = length.ok_or(Error::TooLarge { what: "a chunk", bytes, limit })?;
        let head = FileChunk { file: self.file, offset: self.offset, length };
        self.writer.write_with(head.frame(), data).await?;
        self.offset += bytes;
        Ok(())
    }

    /// The stream itself, for tests that send what no source sends.
    #[cfg(test)]
    pub(crate) fn raw(&mut self) -> &mut FrameWriter {
        &mut self.writer
    }

    /// Says that all was sent.
    ///
    /// # Errors
    ///
    /// [`Error::Ended`] if bytes remain; the other side is told that the file is not complete.
    pub async fn finish(mut self) -> Result<()> {
        if self.remaining() > 0 {
            return Err(Error::Ended("the file has fewer bytes than were asked for"));
        }
        self.writer.write(Frame::new(FrameKind::BulkEnd, Bytes::new())).await?;
        self.writer.finish();
        Ok(())
    }

    /// Says that the bytes cannot be had, and why.
    pub async fn fail(mut self, error: RemoteError) -> Result<()> {
        self.writer.write(Frame::of(FrameKind::Error, &error.cut())?).await?;
        self.writer.finish();
        Ok(())
    }

    /// Sends everything that was asked for, read by `read` (offset, length in bytes: at most 1 MiB) on a thread where
    /// it may block, a little ahead of the wire. It returns as many bytes as it was asked for.
    ///
    /// # Errors
    ///
    /// An error of `read` is told to the other side and returned.
    pub async fn serve<R>(mut self, mut read: R) -> Result<()>
    where
        R: FnMut(u64, usize) -> Result<Bytes, RemoteError> + Send + 'static,
    {
        let (ahead, mut chunks) = mpsc::channel(CHUNKS_AHEAD);
        let (mut offset, end) = (self.offset, self.end);
        let reading = tokio::task::spawn_blocking(move || {
            while offset < end {
                let length = (end - offset).min(u64::from(FILE_CHUNK_BYTES_MAX));
                let chunk = read(offset, length as usize);
                let failed = chunk.is_err();
                offset += length;
                if ahead.blocking_send(chunk).is_err() || failed {
                    return;
                }
            }
        });
        let outcome = loop {
            match chunks.recv().await {
                Some(Ok(chunk)) => {
                    if let Err(error) = self.send(chunk).await {
                        break Err(error);
                    }
                }
                Some(Err(error)) => {
                    self.fail(error.clone()).await?;
                    break Err(error.into());
                }
                None => break self.finish().await,
            }
        };
        drop(chunks);
        if reading.await.is_err() {
            return Err(Error::Ended("reading the file ended badly"));
        }
        outcome
    }
}

/// Receives the bytes of a file, in order. Dropping it stops the sender.
pub struct FileReceiver {
    reader: FrameReader,
    file: FileId,
    offset: u64,
    end: u64,
    done: bool,
}

impl FileReceiver {
    /// Where the next bytes lie: after a break, the offset to go on from.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Puts the next bytes, at most 1 MiB, into `data`, over what it holds, and tells their offset; `None` once all are there.
    ///
    /// Each chunk is of the file that was asked for and follows the last one. Content is verified by the caller,
    /// against the hashes of the manifest. Not to be dropped midway unless no more is wanted.
    pub async fn next(&mut self, data: &mut AlignedBuffer) -> Result<Option<u64>> {
        if self.done {
            return Ok(None);
        }
        let frame = self.reader.next().await?.ok_or(FrameError::Missing("the end of a file"))?;
        match frame.kind {
            FrameKind::Error => return Err(frame.message::<RemoteError>()?.into()),
            FrameKind::BulkEnd if self.offset == self.end => {
                self.done = true;
                return Ok(None);
            }
            FrameKind::BulkEnd => return Err(FrameError::Missing("the end of a file").into()),
            _ => {}
        }
        let chunk = FileChunk::decode(frame)?;
        let fits = chunk.file == self.file
            && chunk.offset == self.offset
            && u64::from(chunk.length) <= self.end - self.offset;
        if !fits {
            let FileChunk { file, offset, length } = chunk;
            let why = format!("{length} bytes of file {file} at {offset} were not asked for");
            return Err(FrameError::Body { kind: FrameKind::FileChunk, why }.into());
        }
        self.reader.read_raw(chunk.length as usize, data).await?;
        self.offset += u64::from(chunk.length);
        Ok(Some(chunk.offset))
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
