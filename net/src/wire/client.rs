//! The client of the client protocol.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::message::{Ack, Call, RemoteError, Request, Response};
use super::rows::{self, Row};
use super::{Frame, FrameError, FrameKind};
use crate::quic::{
    CloseCode, Connection, Credentials, Endpoint, FrameReader, FrameWriter, NODE_NAME, Peer, Service,
    Transport,
};
use crate::{Error, Result};

/// A client of one node. Cheap to clone; calls run side by side, each on a stream of its own.
#[derive(Clone, Debug)]
pub struct Client {
    connection: Connection,
    database: Option<Arc<str>>,
}

impl Client {
    /// Connects to the node at `address` with the default settings.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::connect`].
    pub async fn connect(address: SocketAddr, credentials: &Credentials) -> Result<Self> {
        let endpoint = Endpoint::client(address, credentials, &Transport::default())?;
        Self::connect_from(&endpoint, address, NODE_NAME).await
    }

    /// Connects from a socket that exists, to the node whose certificate carries `name`.
    pub async fn connect_from(endpoint: &Endpoint, address: SocketAddr, name: &str) -> Result<Self> {
        let connection = endpoint.connect(address, name, Service::Client).await?;
        Ok(Self { connection, database: None })
    }

    /// The same client, asking for a database by name or id.
    #[must_use]
    pub fn with_database(mut self, database: &str) -> Self {
        self.database = Some(database.into());
        self
    }

    /// The node.
    pub fn peer(&self) -> &Peer {
        self.connection.peer()
    }

    /// Whether the connection is known to have ended: a call would fail, and nothing of it would be sent.
    pub fn is_lost(&self) -> bool {
        self.connection.is_lost()
    }

    /// Sends a request and waits for its answer. Dropping the future cancels the call.
    ///
    /// # Errors
    ///
    /// [`Error::Remote`] if the node understood the request and failed. After [`Error::Lost`] and [`Error::TimedOut`]
    /// it is unknown whether a write took effect.
    pub async fn call(&self, request: Request) -> Result<Response> {
        let (mut writer, mut reader) = self.request(request).await?;
        writer.finish();
        reply(reader.next().await?)
    }

    /// Sends a request whose answer is many rows, such as [`Request::Scan`].
    pub async fn stream(&self, request: Request) -> Result<RowStream> {
        let (mut writer, reader) = self.request(request).await?;
        writer.finish();
        Ok(RowStream { reader, end: None })
    }

    /// Sends [`Request::Import`], and the rows afterwards. Dropped before its end, the import is given up.
    pub async fn import(&self, request: Request) -> Result<Import> {
        let (writer, reader) = self.request(request).await?;
        Ok(Import { writer, reader, sent: Ack::default(), acked: Ack::default() })
    }

    /// Ends the connection. Calls in progress fail.
    pub async fn close(self) {
        self.connection.farewell(CloseCode::Done, "the client is done").await;
    }

    async fn request(&self, request: Request) -> Result<(FrameWriter, FrameReader)> {
        let call = Call { database: self.database.as_deref().map(str::to_owned), request };
        let frame = Frame::of(FrameKind::Request, &call)?;
        let limit = u64::from(FrameKind::Request.body_bytes_max());
        if frame.body.len() as u64 > limit {
            return Err(Error::TooLarge { what: "a request", bytes: frame.body.len() as u64, limit });
        }
        let (mut writer, reader) = self.connection.open().await?;
        writer.write(frame).await?;
        Ok((writer, reader))
    }
}

/// A token for a write that may have to be sent again: 128 random bits. Each write takes one of its own.
pub fn new_token() -> u128 {
    use planaria_engine::os::{Os, Posix};
    u128::from(Posix.random_u64()) << 64 | u128::from(Posix.random_u64())
}

/// The answer in the last frame of a stream.
fn reply(frame: Option<Frame>) -> Result<Response> {
    let frame = frame.ok_or(FrameError::Missing("an answer"))?;
    match frame.kind {
        FrameKind::Response => Ok(frame.message()?),
        FrameKind::Error => Err(frame.message::<RemoteError>()?.into()),
        got => Err(FrameError::Unexpected { got, wanted: "an answer" }.into()),
    }
}

/// Rows that a node sends. Dropping it cancels the call.
pub struct RowStream {
    reader: FrameReader,
    end: Option<Response>,
}

impl RowStream {
    /// The next batch of rows; `None` at the end, when [`RowStream::summary`] is there.
    ///
    /// # Errors
    ///
    /// A stream that breaks off is an error, never an end.
    pub async fn next(&mut self) -> Result<Option<Vec<Row>>> {
        if self.end.is_some() {
            return Ok(None);
        }
        match self.reader.next().await? {
            Some(frame) if frame.kind == FrameKind::Rows => Ok(Some(rows::decode(frame.body)?)),
            frame => {
                self.end = Some(reply(frame)?);
                Ok(None)
            }
        }
    }

    /// What the node said at the end; `None` before.
    pub fn summary(&self) -> Option<&Response> {
        self.end.as_ref()
    }
}

/// An import in progress.
pub struct Import {
    writer: FrameWriter,
    reader: FrameReader,
    sent: Ack,
    acked: Ack,
}

impl Import {
    /// Batches that may be under way without an acknowledgement.
    const BATCHES_AHEAD: u64 = 64;

    /// Sends a batch, as [`rows::RowsBuilder`] builds it; waits while the node is slower.
    ///
    /// # Errors
    ///
    /// [`Error::Remote`] if the node has given up the import. What [`Import::acked`] says is taken.
    pub async fn send(&mut self, batch: Bytes) -> Result<()> {
        while self.sent.batches - self.acked.batches >= Self::BATCHES_AHEAD {
            self.take_ack().await?;
        }
        match self.writer.write(Frame::new(FrameKind::Rows, batch)).await {
            Ok(()) => self.sent.batches += 1,
            // The node ends its half with the reason.
            Err(Error::Ended(_)) => loop {
                self.take_ack().await?;
            },
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What the node is known to have taken.
    pub fn acked(&self) -> Ack {
        self.acked
    }

    /// Says that all rows were sent, and waits for the answer.
    pub async fn finish(mut self) -> Result<Response> {
        match self.writer.write(Frame::new(FrameKind::End, Bytes::new())).await {
            Ok(()) => self.writer.finish(),
            Err(Error::Ended(_)) => {}
            Err(error) => return Err(error),
        }
        loop {
            match self.reader.next().await? {
                Some(frame) if frame.kind == FrameKind::Ack => self.acked = frame.message()?,
                frame => return reply(frame),
            }
        }
    }

    /// Waits for an acknowledgement. The end of the import is none: an answer before all was sent is an error.
    async fn take_ack(&mut self) -> Result<()> {
        match self.reader.next().await? {
            Some(frame) if frame.kind == FrameKind::Ack => {
                let acked: Ack = frame.message()?;
                if acked.batches > self.sent.batches || acked.batches < self.acked.batches {
                    let why = "it acknowledges what was not sent".to_owned();
                    return Err(FrameError::Body { kind: FrameKind::Ack, why }.into());
                }
                self.acked = acked;
                Ok(())
            }
            frame => match reply(frame) {
                Ok(_) => Err(Error::Ended("it answered before the import's end")),
                Err(error) => Err(error),
            },
        }
    }
}
