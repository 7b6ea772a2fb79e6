//! Planaria's replication protocol as state machines without I/O.
//!
//! One group is led by a primary and followed by secondaries. [`primary::Group`] and [`primary::Session`] are the
//! primary's side, [`secondary::Replica`] is the other. Neither has a clock, a thread, a socket, a file or randomness:
//! inputs go in by `handle_*`, outputs come out by `poll_*`, and time is an argument. A driver carries messages over
//! the network and actions to the engine; the simulator is another driver.
//!
//! `docs/PROTOCOL.md` says which messages there are and which rules hold.

#![forbid(unsafe_code)]

pub mod ack;
mod backoff;
mod commit;
mod compare;
pub mod control;
mod feed;
mod fork;
mod message;
mod options;
mod plan;
pub mod primary;
mod promotion;
pub mod secondary;
mod shared;
mod time;

pub use backoff::backoff;
pub use commit::{Commit, Record, RecordKind, RewindItem};
pub use compare::{Bound, Compare, PartSum, Parts, RangesReply, RangesRequest, Span, Tiling};
pub use feed::{CHAIN_MAX, Feed};
pub use fork::{agree, fork};
pub use message::{
    Ack, Again, Bye, ByeCode, DeltaChunk, DeltaRequest, Hello, InvalidMessage, Lane, Live, Message,
    PROTOCOL_VERSION, Refusal, Refused, Resume, RewindReply, RewindRequest, Welcome, validate_history,
};
pub use options::Options;
#[cfg(feature = "planted")]
pub use options::Planted;
pub use plan::{Choice, Reason, Situation, Way, choose};
pub use promotion::{Assessment, Heard, PromotableSets, assess};
pub use shared::sharing;
pub use time::Millis;
