//! How bytes move: certificates, settings, the socket, endpoints, connections and sessions.

mod authority;
pub mod ceiling;
mod connection;
mod endpoint;
mod framed;
mod reset;
mod role;
pub mod session;
mod socket;
mod store;
mod tls;
mod transport;

pub use authority::{CertAuthority, Issued};
pub use connection::{CloseCode, Connection, Peer, Traffic};
pub use endpoint::{AcceptLimits, Endpoint, Handshaking, NODE_NAME};
pub(crate) use framed::{FrameReader, FrameWriter};
pub use role::{Role, Roles, Service};
pub use store::{Origin, TlsStore};
pub use tls::Credentials;
pub use transport::{Congestion, Transport};

#[cfg(test)]
mod refusal_tests;
