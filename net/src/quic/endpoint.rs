use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use quinn::crypto::rustls::HandshakeData;
use quinn::{AsyncUdpSocket, ClientConfig, ServerConfig, TokioRuntime, TransportConfig};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::{lost, peer_of, refuse};
use super::reset::survive_restarts;
use super::session::ReplicaSession;
use super::socket::OffloadSocket;
use super::{CloseCode, Connection, Credentials, Origin, Peer, Service, Transport};
use crate::wire::limits::HELLO_TIMEOUT;
use crate::{Error, Result};

/// The name that the certificate of every node carries, whatever its own: who knows only an address asks for it.
pub const NODE_NAME: &str = "node.planaria";

/// How many peers an endpoint deals with at a time. What exceeds a limit is refused before memory is taken for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AcceptLimits {
    /// Handshakes in progress. From half of it on, peers must prove their address first.
    pub handshakes_max: usize,
    /// Connections.
    pub connections_max: usize,
    /// Connections under one certificate.
    pub connections_per_peer_max: usize,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self { handshakes_max: 64, connections_max: 256, connections_per_peer_max: 64 }
    }
}

/// One UDP socket that connects, and accepts if it was made by [`Endpoint::server`].
///
/// Cheap to clone. Must be made and used inside a tokio runtime.
#[derive(Clone)]
pub struct Endpoint {
    quic: quinn::Endpoint,
    credentials: Credentials,
    transport: Arc<TransportConfig>,
    address: SocketAddr,
    gate: Arc<Gate>,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Where a node listens if nobody says otherwise: on loopback.
    pub const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4_747);

    /// Listens on `address`, and connects from it as well. Port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// [`Error::Certificate`] if the credentials cannot be used, or were made without being asked for and the address
    /// can be reached from other machines; [`Error::Setting`]; [`Error::Socket`].
    pub fn server(
        address: SocketAddr,
        credentials: &Credentials,
        transport: &Transport,
        limits: AcceptLimits,
    ) -> Result<Self> {
        if !address.ip().is_loopback() && credentials.origin() == Origin::Automatic {
            return Err(Error::Certificate {
                path: credentials.path().to_path_buf(),
                why: format!(
                    "they were made without being asked for, which is for this machine alone, and {address} is reached by others"
                ),
                hint: "Name the certificates that open this address with --tls DIR or PLANARIA_TLS",
            });
        }
        let mut config = ServerConfig::with_crypto(Arc::new(credentials.server_config()?));
        config
            .transport_config(transport.config(address.ip().is_loopback())?)
            .migration(false)
            .max_incoming(limits.handshakes_max)
            .incoming_buffer_size(64 << 10)
            .incoming_buffer_size_total(4 << 20)
            .retry_token_lifetime(Duration::from_secs(15));
        Self::bind(address, credentials, transport, Some(config), limits)
    }

    /// A socket that only connects, to `peer` and to others of its family. To a peer on loopback it stays there.
    pub fn client(peer: SocketAddr, credentials: &Credentials, transport: &Transport) -> Result<Self> {
        let ip = match (peer, peer.ip().is_loopback()) {
            (SocketAddr::V4(_), true) => Ipv4Addr::LOCALHOST.into(),
            (SocketAddr::V4(_), false) => Ipv4Addr::UNSPECIFIED.into(),
            (SocketAddr::V6(_), true) => Ipv6Addr::LOCALHOST.into(),
            (SocketAddr::V6(_), false) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Self::bind(SocketAddr::new(ip, 0), credentials, transport, None, AcceptLimits::default())
    }

    fn bind(
        address: SocketAddr,
        credentials: &Credentials,
        transport: &Transport,
        config: Option<ServerConfig>,
        limits: AcceptLimits,
    ) -> Result<Self> {
        let refused = |error| Error::socket("open a socket on", address, error);
        let mut endpoint = transport.endpoint_config()?;
        let payload_max = endpoint.get_max_udp_payload_size() as usize;
        let socket =
            OffloadSocket::bind(address, transport.socket_buffer_bytes, payload_max).map_err(refused)?;
        if config.is_some() {
            survive_restarts(&mut endpoint, credentials, socket.local_addr().map_err(refused)?);
        }
        let quic =
            quinn::Endpoint::new_with_abstract_socket(endpoint, config, socket, Arc::new(TokioRuntime))
                .map_err(refused)?;
        Ok(Self {
            address: quic.local_addr().map_err(refused)?,
            quic,
            credentials: credentials.clone(),
            transport: transport.config(address.ip().is_loopback())?,
            gate: Arc::new(Gate::new(limits)),
        })
    }

    /// Where it is.
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// Connects to the node at `address`, whose certificate must carry `name` ([`NODE_NAME`] for any node of the
    /// authority), and greets it.
    ///
    /// # Errors
    ///
    /// [`Error::Handshake`] if a certificate is not accepted, [`Error::Refused`] if the role or the version does not
    /// fit, [`Error::TimedOut`] if nobody answers.
    pub async fn connect(&self, address: SocketAddr, name: &str, service: Service) -> Result<Connection> {
        self.connect_with(self.client_config(service)?, address, name, service).await
    }

    /// Connects to the node at `address` for a session whose first message goes out with the greeting: what
    /// [`Endpoint::connect`] says of roles and versions, the session hears when it receives.
    ///
    /// # Errors
    ///
    /// [`Error::Handshake`] if a certificate is not accepted, [`Error::TimedOut`] if nobody answers.
    pub async fn connect_early(&self, address: SocketAddr, name: &str) -> Result<ReplicaSession> {
        let quic = self.handshake(self.client_config(Service::Replica)?, address, name).await?;
        let greeting = tokio::time::timeout(HELLO_TIMEOUT, Connection::greet_early(quic)).await;
        ReplicaSession::over(
            greeting.map_err(|_| Error::TimedOut { peer: address, when: "to the greeting" })??,
        )
    }

    fn client_config(&self, service: Service) -> Result<ClientConfig> {
        let mut config = ClientConfig::new(Arc::new(self.credentials.client_config(service)?));
        config.transport_config(Arc::clone(&self.transport));
        Ok(config)
    }

    /// As [`Endpoint::connect`], with another configuration.
    pub(crate) async fn connect_with(
        &self,
        config: ClientConfig,
        address: SocketAddr,
        name: &str,
        service: Service,
    ) -> Result<Connection> {
        Connection::greet(self.handshake(config, address, name).await?, service).await
    }

    async fn handshake(
        &self,
        config: ClientConfig,
        address: SocketAddr,
        name: &str,
    ) -> Result<quinn::Connection> {
        let connecting = self.quic.connect_with(config, address, name).map_err(|error| match error {
            quinn::ConnectError::EndpointStopping => Error::Closed,
            other => Error::Setting {
                setting: "address",
                value: format!("{name} at {address}"),
                why: words(&other),
            },
        })?;
        tokio::time::timeout(HELLO_TIMEOUT, connecting)
            .await
            .map_err(|_| Error::TimedOut {
                peer: address,
                when: "to the handshake; is a node running there?",
            })?
            .map_err(|error| lost(address, &error))
    }

    /// The next peer that wants to connect; `None` once the endpoint is closed.
    ///
    /// The handshake goes on in [`Handshaking::establish`], which callers run aside.
    pub async fn accept(&self) -> Option<Handshaking> {
        loop {
            let incoming = self.quic.accept().await?;
            let address = incoming.remote_address();
            let Ok(permit) = Arc::clone(&self.gate.handshakes).try_acquire_owned() else {
                tracing::warn!(peer = %address, "too many handshakes at a time; refused");
                incoming.refuse();
                continue;
            };
            let half = self.gate.limits.handshakes_max / 2;
            if self.gate.handshakes.available_permits() < half && incoming.may_retry() {
                // An error says that the peer has proved its address, which was just ruled out.
                let _ = incoming.retry();
                continue;
            }
            match incoming.accept() {
                Ok(connecting) => {
                    let gate = Arc::clone(&self.gate);
                    return Some(Handshaking { connecting, address, gate, _permit: permit });
                }
                Err(error) => tracing::info!(peer = %address, %error, "refused a peer before its handshake"),
            }
        }
    }

    /// Takes no new connections; those that exist go on.
    pub fn stop_accepting(&self) {
        self.quic.set_server_config(None);
    }

    /// Closes every connection, and waits at most `patience` until the peers know.
    pub async fn close(&self, code: CloseCode, why: &str, patience: Duration) {
        self.quic.close(code.code(), why.as_bytes());
        if tokio::time::timeout(patience, self.quic.wait_idle()).await.is_err() {
            tracing::debug!(address = %self.address, "some peers did not confirm the end of their connections");
        }
    }
}

/// A peer whose handshake goes on.
pub struct Handshaking {
    connecting: quinn::Connecting,
    address: SocketAddr,
    gate: Arc<Gate>,
    _permit: OwnedSemaphorePermit,
}

impl Handshaking {
    /// Who it claims to be, so far only by address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Goes through with the handshake, the role, the limits and the greeting.
    ///
    /// # Errors
    ///
    /// As [`Endpoint::connect`]; the peer was told.
    pub async fn establish(self) -> Result<Connection> {
        let quic = tokio::time::timeout(HELLO_TIMEOUT, self.connecting)
            .await
            .map_err(|_| Error::TimedOut { peer: self.address, when: "to the handshake" })?
            .map_err(|error| lost(self.address, &error))?;
        let service = quic
            .handshake_data()
            .and_then(|data| data.downcast::<HandshakeData>().ok())
            .and_then(|data| Service::from_alpn(data.protocol.as_deref()?));
        let Some(service) = service else {
            return Err(refuse(&quic, CloseCode::Protocol, "the handshake names no service".to_owned()));
        };
        let peer = peer_of(&quic)?;
        let Some(admission) = self.gate.admit(&peer) else {
            return Err(refuse(
                &quic,
                CloseCode::Busy,
                "too many connections; close some or try later".to_owned(),
            ));
        };
        Connection::welcome(quic, peer, service, admission).await
    }
}

/// What counts peers against the limits.
struct Gate {
    limits: AcceptLimits,
    handshakes: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    by_peer: Mutex<HashMap<[u8; 32], usize>>,
}

impl Gate {
    fn new(limits: AcceptLimits) -> Self {
        Self {
            limits,
            handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            by_peer: Mutex::new(HashMap::new()),
        }
    }

    /// Room for one more connection of `peer`; `None` if a limit is reached.
    fn admit(self: &Arc<Self>, peer: &Peer) -> Option<Admission> {
        let permit = Arc::clone(&self.connections).try_acquire_owned().ok()?;
        let mut by_peer = self.by_peer.lock();
        let count = by_peer.entry(peer.certificate).or_default();
        if *count >= self.limits.connections_per_peer_max {
            return None;
        }
        *count += 1;
        Some(Admission { gate: Arc::clone(self), certificate: peer.certificate, _permit: permit })
    }
}

/// The place that a connection takes; dropping it gives the place back.
pub(crate) struct Admission {
    gate: Arc<Gate>,
    certificate: [u8; 32],
    _permit: OwnedSemaphorePermit,
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut by_peer = self.gate.by_peer.lock();
        if let Some(count) = by_peer.get_mut(&self.certificate) {
            *count -= 1;
            if *count == 0 {
                by_peer.remove(&self.certificate);
            }
        }
    }
}

/// Why an address cannot be connected to, in words that stay.
fn words(error: &quinn::ConnectError) -> &'static str {
    match error {
        quinn::ConnectError::InvalidServerName(_) => "the name is no DNS name",
        quinn::ConnectError::InvalidRemoteAddress(_) => "the address cannot be reached from this socket",
        _ => "no connection can be made with it",
    }
}
