//! The driver that joins engine and replication: sessions of a primary, the loop of a secondary, clones.
//!
//! The state machines decide, the engine stores, the session carries; what stands here only passes things on. Each
//! session of a primary and each secondary runs on a thread of its own, because the engine is synchronous.

mod archive;
mod clock;
mod clone;
mod compare;
mod connections;
mod convert;
mod detour;
pub mod executor;
mod fetching;
mod giving;
mod join;
mod lazy;
mod meter;
mod outgoing;
mod pace;
mod pieces;
mod planning;
mod primary;
pub mod reads;
mod removal;
mod renew;
mod secondary;
mod shaped;
mod slot;
mod toll;
mod wards;

use bytes::Bytes;
use planaria_replication::{Message, sharing};
use planaria_types::InstanceId;
use serde::{Deserialize, Serialize};

use crate::wire::message::Shape;
use crate::{Error, Result};

pub use archive::RemotePin;
pub use clone::{CloneProgress, CloneStage, Taking, clone_from, take_clone};
pub use compare::tilings;
pub use executor::Leading;
pub use join::{Joined, database_at, join_primary, open_partial, open_secondary};
pub use lazy::LazyTaking;
pub use outgoing::GoingOut;
pub use pace::Pace;
pub use planning::RefreshPlan;
pub use primary::{AckError, Primary};
pub use renew::{Renewal, renew};
pub use secondary::{Follow, FollowStatus, Follower};
pub use shaped::{ShapedCopy, Shaper};
pub use slot::Slot;
pub use wards::{ReplicaState, WardError};

/// What a replica connection is for: its first message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum Opening {
    /// A secondary follows.
    Follow {
        /// The port on which its node listens, if it does. Its host is the one that it speaks from.
        port: Option<u16>,
    },
    /// A clone is taken.
    Clone,
    /// A clone is taken of what the source makes of its rows for it.
    Shaped {
        /// What that is.
        shape: Shape,
        /// What an interrupted attempt was receiving: it goes on if that is still there.
        resumes: Option<InstanceId>,
    },
    /// A backup is made: the files of a cut, and the log since an earlier one.
    Archive {
        /// The cut of the backup that it goes on from, if there is one.
        since: Option<planaria_types::Uid>,
    },
    /// A part of a clone that is being taken over another connection of the same peer.
    Join {
        /// The BLAKE3 hash of its list of files, as it was sent there.
        list: [u8; 32],
    },
}

/// Ends what an earlier process has begun to do to the directory as a whole. Call it before the directory is opened.
pub fn settle(dir: &std::path::Path, os: &dyn planaria_engine::os::Os) -> Result<()> {
    executor::bulk::Places::of(dir).settle(os)
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Bytes> {
    let bytes =
        postcard::to_stdvec(message).map_err(|error| Error::Protocol(format!("cannot encode: {error}")))?;
    Ok(bytes.into())
}

pub(crate) fn decode<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    postcard::from_bytes(bytes).map_err(|error| Error::Protocol(format!("a message cannot be read: {error}")))
}

/// A message of the replication protocol, checked. Its records share `bytes`.
pub(crate) fn decode_message(bytes: &Bytes) -> Result<Message> {
    let message: Message = sharing(bytes, decode)?;
    message.validate().map_err(|error| Error::Protocol(error.to_string()))?;
    Ok(message)
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "feeding_tests.rs"]
mod feeding_tests;

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod reconcile_tests;

#[cfg(test)]
#[path = "partial_tests.rs"]
mod partial_tests;

#[cfg(test)]
#[path = "toll_tests.rs"]
mod toll_tests;

#[cfg(test)]
#[path = "settings_tests.rs"]
mod settings_tests;

#[cfg(test)]
#[path = "connections_tests.rs"]
mod connections_tests;

#[cfg(test)]
#[path = "golden_tests.rs"]
mod golden_tests;
