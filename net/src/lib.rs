//! Planaria on the wire: QUIC with certificates on both sides, frames, the client protocol and replica sessions.
//!
//! Two modules, from the outside in:
//!
//! - [`wire`] says what the bytes are: frames, limits, messages, rows; pure, without sockets, plus the client and the
//!   server of the client protocol that speak them.
//! - [`quic`] moves them: certificates and roles, transport settings, the socket, endpoints, connections, sessions.
//!
//! Everything asynchronous here runs inside a tokio runtime that the caller provides. No type of quinn, rustls or
//! tokio appears in a public signature.

mod error;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(test)]
mod golden;
pub mod quic;
pub mod replica;
pub mod wire;

pub use error::{Error, Result};
