//! The files of a cut of a node, for a backup: read as they are needed, and kept nowhere here.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use planaria_engine::os::AlignedBuffer;
use planaria_engine::{FileKind, FileList, LogSegment};
use planaria_types::Uid;

use super::Opening;
use super::clone::{receive_list, wire_number};
use super::secondary::open_session;
use crate::Result;
use crate::quic::session::ReplicaSession;
use crate::quic::{Credentials, Endpoint, Transport};
use crate::wire::limits::FILE_CHUNK_BYTES_MAX;
use crate::wire::replica::FileRequest;

/// How long a backup may take to ask for the next file before its pin is let go: the store that it goes to may be slow.
pub(super) const IDLE_MAX: Duration = Duration::from_mins(10);

/// A cut that a node keeps for as long as this lives, or until it is asked for nothing for ten minutes.
pub struct RemotePin {
    _endpoint: Endpoint,
    session: ReplicaSession,
    list: FileList,
    log: Vec<LogSegment>,
}

impl RemotePin {
    /// Has the node at `address` make a cut, and keep its log from `since` on, as far as it has it.
    pub async fn open(
        address: SocketAddr,
        credentials: &Credentials,
        transport: &Transport,
        since: Option<Uid>,
    ) -> Result<Self> {
        let opening = Opening::Archive { since };
        let (endpoint, session) = open_session(address, credentials, &transport.watchful(), &opening).await?;
        let (list, log) = receive_list(&session).await?;
        Ok(Self { _endpoint: endpoint, session, list, log })
    }

    /// The files of the cut.
    pub fn list(&self) -> &FileList {
        &self.list
    }

    /// The log segments: those of the cut, and before them those that were asked for.
    pub fn log(&self) -> &[LogSegment] {
        &self.log
    }

    /// Bytes of a file, from a multiple of the length of a chunk on. Several reads may go side by side. What comes is as it was
    /// sent: the caller checks its hashes.
    pub async fn read(&self, kind: FileKind, number: u64, offset: u64, len: u64) -> Result<Bytes> {
        let request = FileRequest { lease: 0, file: wire_number(kind, number), offset, length: len };
        let mut receiver = self.session.fetch(request).await?;
        let (mut bytes, mut data) = (BytesMut::new(), AlignedBuffer::new(FILE_CHUNK_BYTES_MAX as usize));
        // No more comes than was asked for.
        while receiver.next(&mut data).await?.is_some() {
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    }

    /// Lets the cut go.
    pub async fn close(self) {
        self.session.connection().farewell(crate::quic::CloseCode::Done, "the backup is complete").await;
    }
}

impl std::fmt::Debug for RemotePin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemotePin").field("files", &self.list.files.len()).finish_non_exhaustive()
    }
}
