//! The connections over which one clone comes in.

use std::net::SocketAddr;

use parking_lot::Mutex;

use super::Opening;
use super::secondary::open_session;
use crate::Result;
use crate::quic::session::ReplicaSession;
use crate::quic::{CloseCode, Credentials, Endpoint, Traffic, Transport};

/// For each so many bytes that are missing one connection more is worth its handshake.
const MORE_FOR_EACH_BYTES: u64 = 8 << 20;

/// The connection on which a clone was asked for, and those that were opened for parts of it.
pub(super) struct Connections {
    address: SocketAddr,
    credentials: Credentials,
    transport: Transport,
    first: (Endpoint, ReplicaSession),
    more: Mutex<Vec<(Endpoint, ReplicaSession)>>,
}

impl Connections {
    /// Connects to a source, and says what for.
    pub(super) async fn open(
        address: SocketAddr,
        credentials: &Credentials,
        transport: &Transport,
        opening: &Opening,
    ) -> Result<Self> {
        let (credentials, transport) = (credentials.clone(), transport.watchful());
        let first = open_session(address, &credentials, &transport, opening).await?;
        Ok(Self { address, credentials, transport, first, more: Mutex::default() })
    }

    /// The one on which the clone was asked for.
    pub(super) fn first(&self) -> &ReplicaSession {
        &self.first.1
    }

    /// How many a clone is to have of which so many bytes are missing.
    pub(super) fn wanted(&self, missing_bytes: u64) -> u64 {
        u64::from(self.transport.clone_connections).min(1 + missing_bytes / MORE_FOR_EACH_BYTES)
    }

    /// Opens one more, for the clone whose list of files has this BLAKE3 hash.
    pub(super) async fn join(&self, list: [u8; 32]) -> Result<ReplicaSession> {
        let opening = Opening::Join { list };
        let opened = open_session(self.address, &self.credentials, &self.transport, &opening).await?;
        let session = opened.1.clone();
        self.more.lock().push(opened);
        Ok(session)
    }

    /// What all of them have carried to this side.
    pub(super) fn traffic(&self) -> Traffic {
        let more = self.more.lock();
        let sessions = more.iter().map(|(_, session)| session).chain([self.first()]);
        sessions.fold(Traffic::default(), |sum, session| sum.with(session.connection().traffic()))
    }

    /// Ends them. The source holds its pin until it hears of the end.
    pub(super) async fn farewell(&self, code: CloseCode, why: &str) {
        let more = std::mem::take(&mut *self.more.lock());
        for (_, session) in more.iter().chain([&self.first]) {
            if !session.connection().is_lost() {
                session.connection().farewell(code, why).await;
            }
        }
    }
}
