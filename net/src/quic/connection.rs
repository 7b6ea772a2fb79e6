use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use quinn::{ConnectionError, VarInt};
use rustls::pki_types::CertificateDer;

use super::endpoint::Admission;
use super::framed::Received;
use super::{FrameReader, FrameWriter, Role, Roles, Service, tls};
use crate::wire::limits::HELLO_TIMEOUT;
use crate::wire::message::Hello;
use crate::wire::{Frame, FrameKind};
use crate::{Error, Result};

/// How long a farewell may take to leave this machine.
const FAREWELL_MAX: Duration = Duration::from_millis(100);
/// How often it is looked whether it has left.
const FAREWELL_LOOK: Duration = Duration::from_millis(1);

/// Why one side closes a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum CloseCode {
    /// All is done.
    Done = 0,
    /// The certificate lacks the role that the service takes.
    RoleRefused = 1,
    /// No version of the protocol is understood by both.
    Version = 2,
    /// A limit on connections is reached.
    Busy = 3,
    /// The node is shutting down.
    ShuttingDown = 4,
    /// The other side does not keep to the protocol.
    Protocol = 5,
    /// What is asked cannot be done here and now.
    Refused = 6,
    /// A copy follows another one from now on: what is kept for it here is kept no longer.
    Moved = 7,
}

impl CloseCode {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        Self::name_of(u64::from(self as u32))
    }

    fn name_of(code: u64) -> &'static str {
        match code {
            1 => "role_refused",
            2 => "version",
            3 => "busy",
            4 => "shutting_down",
            5 => "protocol",
            6 => "refused",
            7 => "moved",
            _ => "closed",
        }
    }

    pub(crate) fn code(self) -> VarInt {
        VarInt::from_u32(self as u32)
    }
}

/// The other side of a connection, as its certificate says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The name in its certificate.
    pub name: String,
    /// The roles in its certificate.
    pub roles: Roles,
    /// Its address.
    pub address: SocketAddr,
    /// The BLAKE3 hash of its certificate: its identity.
    pub certificate: [u8; 32],
}

impl Peer {
    /// Whether it holds `role`.
    pub fn has(&self, role: Role) -> bool {
        self.roles.has(role)
    }
}

/// What a connection has carried to this side since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Bytes of frames, headers included.
    pub frame_bytes_received: u64,
    /// Bytes of UDP payload: frames, TLS, acknowledgements, and what was sent twice.
    pub udp_bytes_received: u64,
    /// The round trip as QUIC estimates it now.
    pub round_trip: Duration,
}

impl Traffic {
    /// This and another connection's together; the round trip is that of the later one.
    #[must_use]
    pub fn with(self, later: Self) -> Self {
        Self {
            frame_bytes_received: self.frame_bytes_received + later.frame_bytes_received,
            udp_bytes_received: self.udp_bytes_received + later.udp_bytes_received,
            round_trip: later.round_trip,
        }
    }

    /// What came after this was `before`.
    #[must_use]
    pub fn without(self, before: Self) -> Self {
        Self {
            frame_bytes_received: self.frame_bytes_received.saturating_sub(before.frame_bytes_received),
            udp_bytes_received: self.udp_bytes_received.saturating_sub(before.udp_bytes_received),
            round_trip: self.round_trip,
        }
    }
}

/// A connection with a known peer: both certificates were verified, the role was admitted, versions were agreed upon.
///
/// Cheap to clone; the connection closes when the last clone is dropped.
#[derive(Clone)]
pub struct Connection(Arc<Parts>);

struct Parts {
    quic: quinn::Connection,
    peer: Peer,
    service: Service,
    /// Version and features, once the other side has greeted.
    agreed: OnceLock<(u16, u64)>,
    /// The stream of the greeting; a replica session goes on with it.
    control: Mutex<Option<(FrameWriter, FrameReader)>>,
    received: Received,
    /// What this connection counts against, until it ends.
    _admission: Option<Admission>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("peer", &self.0.peer)
            .field("service", &self.0.service)
            .field("agreed", &self.0.agreed)
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Greets as the side that connected.
    pub(crate) async fn greet(quic: quinn::Connection, service: Service) -> Result<Self> {
        let address = quic.remote_address();
        let peer = peer_of(&quic)?;
        let received = Received::default();
        let greeting = async {
            let mut control = say_hello(&quic, &received).await?;
            let hello: Hello = control.1.expect(FrameKind::Hello, "a greeting").await?.message()?;
            Ok::<_, Error>((control, hello))
        };
        let (control, hello) = tokio::time::timeout(HELLO_TIMEOUT, greeting)
            .await
            .map_err(|_| Error::TimedOut { peer: address, when: "to the greeting" })??;
        Self::established(quic, peer, service, &hello, (control, received), None)
    }

    /// Greets as the side that connected, for a session that goes on before the other side has greeted: its first
    /// frame is then that greeting, which [`Connection::take_greeting`] judges. This saves a round trip.
    pub(crate) async fn greet_early(quic: quinn::Connection) -> Result<Self> {
        let peer = peer_of(&quic)?;
        let received = Received::default();
        let control = Mutex::new(Some(say_hello(&quic, &received).await?));
        let (service, agreed) = (Service::Replica, OnceLock::new());
        Ok(Self(Arc::new(Parts { quic, peer, service, agreed, control, received, _admission: None })))
    }

    /// Whether the other side has greeted.
    pub(crate) fn is_greeted(&self) -> bool {
        self.0.agreed.get().is_some()
    }

    /// Takes the greeting of the other side, for which the session did not wait.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::connect`](super::Endpoint::connect) does for the greeting; the other side was told.
    pub(crate) fn take_greeting(&self, frame: Frame) -> Result<()> {
        let hello: Hello = frame.expect_kind(FrameKind::Hello, "a greeting")?.message()?;
        let agreed = agreed(&self.0.quic, &hello)?;
        self.0.agreed.get_or_init(|| agreed);
        Ok(())
    }

    /// Greets as the side that accepted, after judging the peer's role.
    pub(crate) async fn welcome(
        quic: quinn::Connection,
        peer: Peer,
        service: Service,
        admission: Admission,
    ) -> Result<Self> {
        let address = peer.address;
        let received = Received::default();
        if !service.admits(peer.roles) {
            let why = format!(
                "the certificate of {:?} has {}, and this service takes the role {}",
                peer.name,
                peer.roles,
                service.role_wanted()
            );
            return Err(refuse(&quic, CloseCode::RoleRefused, why));
        }
        let greeting = async {
            let (send, receive) = quic.accept_bi().await.map_err(|error| lost(address, &error))?;
            let mut control =
                (FrameWriter::new(send, address), FrameReader::new(receive, address, &received));
            let hello: Hello = control.1.expect(FrameKind::Hello, "a greeting").await?.message()?;
            Ok::<_, Error>((control, hello))
        };
        let (mut control, hello) = match tokio::time::timeout(HELLO_TIMEOUT, greeting).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(Error::Frame(error))) => {
                return Err(refuse(&quic, CloseCode::Protocol, error.to_string()));
            }
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                return Err(refuse(&quic, CloseCode::Protocol, "no greeting came in time".to_owned()));
            }
        };
        if Hello::ours().agree(&hello).is_some() {
            control.0.write(Frame::of(FrameKind::Hello, &Hello::ours())?).await?;
        }
        Self::established(quic, peer, service, &hello, (control, received), Some(admission))
    }

    fn established(
        quic: quinn::Connection,
        peer: Peer,
        service: Service,
        hello: &Hello,
        (mut control, received): ((FrameWriter, FrameReader), Received),
        admission: Option<Admission>,
    ) -> Result<Self> {
        let agreed = OnceLock::from(agreed(&quic, hello)?);
        if service == Service::Client {
            control.0.finish();
        }
        let control = Mutex::new((service == Service::Replica).then_some(control));
        let parts = Parts { quic, peer, service, agreed, control, received, _admission: admission };
        Ok(Self(Arc::new(parts)))
    }

    /// The other side.
    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    /// What the connection is for.
    pub fn service(&self) -> Service {
        self.0.service
    }

    /// The version of the protocol that both sides speak, and the optional features that both have, as bits; none
    /// before the other side has greeted.
    pub fn agreed(&self) -> Option<(u16, u64)> {
        self.0.agreed.get().copied()
    }

    /// The last round trip.
    pub fn round_trip(&self) -> Duration {
        self.0.quic.rtt()
    }

    /// What it has carried to this side.
    pub fn traffic(&self) -> Traffic {
        let stats = self.0.quic.stats();
        Traffic {
            frame_bytes_received: self.0.received.bytes(),
            udp_bytes_received: stats.udp_rx.bytes,
            round_trip: stats.path.rtt,
        }
    }

    /// The packet size that the path is known to carry, in bytes of UDP payload.
    pub fn mtu(&self) -> u16 {
        self.0.quic.stats().path.current_mtu
    }

    /// Closes the connection, with a code and words that the other side gets to see.
    pub fn close(&self, code: CloseCode, why: &str) {
        self.0.quic.close(code.code(), why.as_bytes());
    }

    /// Closes the connection, and waits until the other side was told: not until it has confirmed, which takes as long
    /// as three probes of the path.
    pub async fn farewell(&self, code: CloseCode, why: &str) {
        self.close(code, why);
        // Nothing but the farewell is sent from here on.
        let sent = || self.0.quic.stats().udp_tx.datagrams;
        let before = sent();
        let told = async {
            while sent() == before {
                tokio::time::sleep(FAREWELL_LOOK).await;
            }
        };
        // If it was sent before the count was taken, there is nothing more to wait for.
        let _ = tokio::time::timeout(FAREWELL_MAX, told).await;
    }

    /// Whether the connection is known to have ended.
    pub fn is_lost(&self) -> bool {
        self.0.quic.close_reason().is_some()
    }

    /// Completes when the connection has ended, with the reason.
    pub async fn closed(&self) -> Error {
        lost(self.0.peer.address, &self.0.quic.closed().await)
    }

    /// The stream of the greeting; a replica session takes it once.
    pub(crate) fn take_control(&self) -> Option<(FrameWriter, FrameReader)> {
        self.0.control.lock().take()
    }

    /// Opens a stream; waits while as many as the peer allows are open.
    pub(crate) async fn open(&self) -> Result<(FrameWriter, FrameReader)> {
        let address = self.0.peer.address;
        let (send, receive) = self.0.quic.open_bi().await.map_err(|error| lost(address, &error))?;
        Ok((FrameWriter::new(send, address), FrameReader::new(receive, address, &self.0.received)))
    }

    /// The connection without our frames.
    pub(super) fn bare(&self) -> &quinn::Connection {
        &self.0.quic
    }

    /// The next stream that the peer opens.
    pub(crate) async fn accept(&self) -> Result<(FrameWriter, FrameReader)> {
        let address = self.0.peer.address;
        let (send, receive) = self.0.quic.accept_bi().await.map_err(|error| lost(address, &error))?;
        Ok((FrameWriter::new(send, address), FrameReader::new(receive, address, &self.0.received)))
    }
}

/// Opens the stream of the greeting, and greets.
async fn say_hello(quic: &quinn::Connection, received: &Received) -> Result<(FrameWriter, FrameReader)> {
    let address = quic.remote_address();
    let (send, receive) = quic.open_bi().await.map_err(|error| lost(address, &error))?;
    let mut control = (FrameWriter::new(send, address), FrameReader::new(receive, address, received));
    control.0.write(Frame::of(FrameKind::Hello, &Hello::ours())?).await?;
    Ok(control)
}

/// What both sides speak; closes the connection if that is nothing.
fn agreed(quic: &quinn::Connection, hello: &Hello) -> Result<(u16, u64)> {
    let ours = Hello::ours();
    ours.agree(hello).ok_or_else(|| {
        let why = format!(
            "one side speaks the versions {} to {} of the protocol, the other {} to {}; update the older",
            hello.version_min, hello.version_max, ours.version_min, ours.version_max
        );
        refuse(quic, CloseCode::Version, why)
    })
}

/// Reads the peer's identity out of the certificate that the handshake has verified.
pub(crate) fn peer_of(quic: &quinn::Connection) -> Result<Peer> {
    let address = quic.remote_address();
    let handshake = |why: String| Error::Handshake { peer: address, why, hint: "Check its certificate" };
    let identity = quic
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or_else(|| handshake("it shows no certificate".to_owned()))?;
    let cert = identity.first().ok_or_else(|| handshake("it shows no certificate".to_owned()))?;
    let (name, roles) = tls::identity(cert).map_err(|error| handshake(error.to_string()))?;
    Ok(Peer { name, roles, address, certificate: *blake3::hash(cert).as_bytes() })
}

/// Closes a connection that is not wanted, and is the error that says so.
pub(crate) fn refuse(quic: &quinn::Connection, code: CloseCode, why: String) -> Error {
    quic.close(code.code(), why.as_bytes());
    Error::Refused { peer: quic.remote_address(), code: CloseCode::name_of(u64::from(code as u32)), why }
}

/// Puts the end of a connection into words, with what to do about it.
pub(crate) fn lost(peer: SocketAddr, error: &ConnectionError) -> Error {
    match error {
        ConnectionError::ApplicationClosed(close) => Error::Refused {
            peer,
            code: CloseCode::name_of(close.error_code.into_inner()),
            why: words(&close.reason),
        },
        ConnectionError::ConnectionClosed(close) => match alert(u64::from(close.error_code)) {
            Some((why, hint)) => Error::Handshake { peer, why: format!("the other side {why}"), hint },
            None => Error::Lost { peer, why: close.to_string() },
        },
        ConnectionError::TransportError(error) => match alert(u64::from(error.code)) {
            Some((_, hint)) => Error::Handshake { peer, why: error.reason.clone(), hint },
            None => Error::Lost { peer, why: error.to_string() },
        },
        ConnectionError::TimedOut => Error::TimedOut { peer, when: "within the idle time" },
        ConnectionError::LocallyClosed => Error::Closed,
        other => Error::Lost { peer, why: other.to_string() },
    }
}

/// A peer's words, cut short and without control characters.
fn words(reason: &[u8]) -> String {
    let text = String::from_utf8_lossy(reason);
    let text: String = text.chars().filter(|c| !c.is_control()).take(512).collect();
    if text.is_empty() { "it gave no reason".to_owned() } else { text }
}

/// What a TLS alert (RFC 8446, section 6) means here; `None` if the code is none.
fn alert(code: u64) -> Option<(&'static str, &'static str)> {
    const SAME: &str = "Both sides need certificates of one authority: give both the same --tls DIR, or issue one \
                        from the other's authority";
    Some(match code.checked_sub(0x100)? {
        116 => ("wants a certificate and got none", SAME),
        48 => ("does not know the authority of our certificate", SAME),
        45 => ("finds our certificate expired", "Have its authority issue a new one, or check both clocks"),
        42 | 43 | 46 => ("does not accept our certificate", SAME),
        120 => ("does not offer this service", "Check that the address is a node's, of a version that fits"),
        80 => ("has an internal error", "See its log"),
        0..=255 => ("broke off the handshake", "See its log"),
        _ => return None,
    })
}
