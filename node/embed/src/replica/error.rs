use std::net::SocketAddr;

use planaria_net::wire::message::RemoteError;

/// What went wrong with a replica: what happened, why, and what to do.
///
/// [`ReplicaError::code`] is stable over releases, for programs.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// The local copy failed.
    #[error(transparent)]
    Engine(#[from] planaria_engine::Error),
    /// The network failed in another way than by an absent primary: certificates, sockets, limits.
    #[error(transparent)]
    Net(#[from] planaria_net::Error),
    /// Nobody who leads can be reached at the address; nothing was written.
    #[error(
        "there is no primary at {primary}: {why}. Nothing was written, and reads go on; try again when it is back, or \
         follow another one"
    )]
    NoPrimary {
        /// The address.
        primary: SocketAddr,
        /// What was seen of it.
        why: String,
    },
    /// The primary may have made a write, or not.
    #[error(
        "whether {primary} has made the write is unknown: {why}. Send it again with the token {token:#034x}: it is made \
         once, whoever leads then"
    )]
    Unknown {
        /// The primary.
        primary: SocketAddr,
        /// The write's token.
        token: u128,
        /// What was seen.
        why: String,
    },
    /// The primary may have made a table, or not.
    #[error(
        "whether {primary} has made the table {name:?} is unknown: {why}. Look for it when the primary is back, or make \
         it again: where it is there already, that is refused"
    )]
    TableUnknown {
        /// The primary.
        primary: SocketAddr,
        /// The table.
        name: String,
        /// What was seen.
        why: String,
    },
    /// The primary refused a write; nothing was written.
    #[error("{0}")]
    Refused(RemoteError),
    /// The local copy does not show the position: not yet (`not_reached`), or not any more (`taken_back`).
    #[error("{0}")]
    NotShown(RemoteError),
    /// A batch has more operations than a request carries; nothing was written.
    #[error("a batch of {operations} operations exceeds the limit of {limit}; write it in parts")]
    TooMany {
        /// What it has.
        operations: usize,
        /// What a request carries.
        limit: usize,
    },
    /// What the replica is to hold is no portion of a database.
    #[error("{0}")]
    Portion(#[from] planaria_types::PortionError),
    /// The address of the primary cannot be made out.
    #[error("{address:?} is no address of a node: {why}. Name it as HOST:PORT")]
    Address {
        /// The address as it was given.
        address: String,
        /// What is wrong.
        why: String,
    },
    /// The system refused a thread.
    #[error("the threads of the replica cannot be started: {0}")]
    Threads(String),
    /// The replica is closing.
    #[error("the replica is closed")]
    Closed,
}

impl ReplicaError {
    /// A stable code for programs.
    pub fn code(&self) -> &str {
        match self {
            Self::Engine(error) => error.code(),
            Self::Net(error) => error.code(),
            Self::NoPrimary { .. } => "no_primary",
            Self::Unknown { .. } | Self::TableUnknown { .. } => "unknown",
            Self::Refused(error) | Self::NotShown(error) => &error.code,
            Self::TooMany { .. } => "too_large",
            Self::Portion(_) => "portion",
            Self::Address { .. } => "address",
            Self::Threads(_) => "threads",
            Self::Closed => "closed",
        }
    }
}
