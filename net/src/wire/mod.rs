//! What the bytes on a stream are.
//!
//! The layout is documented in `docs/PROTOCOL.md`. Decoders here are pure: bytes in, a value or an error out, and no
//! memory is taken before a limit was checked.

pub mod client;
mod clones;
pub mod control;
pub mod frame;
pub mod jobs;
pub mod limits;
pub mod links;
pub mod message;
mod operations;
pub mod replica;
pub mod routed;
pub mod routes;
pub mod rows;
pub mod rpc;
pub mod rules;
pub mod stores;
pub mod topology;

pub use frame::{Frame, FrameError, FrameKind};

#[cfg(test)]
mod golden_tests;
