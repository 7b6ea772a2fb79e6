use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use planaria_types::DatabaseId;

use crate::wire::FrameError;
use crate::wire::message::RemoteError;

/// The result of a call over the network.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong on the way to another node, or there: what happened, why, and what to do.
///
/// [`Error::code`] is stable over releases, for programs.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file.
    #[error("{what} {}: {source}", path.display())]
    File {
        /// What was being done, as a verb.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// The operating system refused a socket.
    #[error("{what} {address}: {source}")]
    Socket {
        /// What was being done, as a verb.
        what: &'static str,
        /// The address.
        address: SocketAddr,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// A certificate, a key or a directory of them cannot be used.
    #[error("the certificates in {} cannot be used: {why}. {hint}", path.display())]
    Certificate {
        /// The directory or file.
        path: PathBuf,
        /// What does not fit.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// A setting is out of its range.
    #[error("the setting {setting} cannot be {value}: {why}")]
    Setting {
        /// Its name.
        setting: &'static str,
        /// Its value.
        value: String,
        /// The range, or the conflict.
        why: &'static str,
    },
    /// The handshake failed: one side did not accept the other's certificate or protocol.
    #[error("no connection with {peer}: {why}. {hint}")]
    Handshake {
        /// The other side.
        peer: SocketAddr,
        /// Who refused what.
        why: String,
        /// What to do.
        hint: &'static str,
    },
    /// The other side knew who we are and refused.
    #[error("{peer} refused the connection: {why}")]
    Refused {
        /// The other side.
        peer: SocketAddr,
        /// A stable code: `role_refused`, `version`, `busy`, `shutting_down`, `protocol`, `refused`, `moved` or
        /// `closed`.
        code: &'static str,
        /// Its words.
        why: String,
    },
    /// There was no answer in time.
    #[error("no answer from {peer} {when}")]
    TimedOut {
        /// The other side.
        peer: SocketAddr,
        /// During what.
        when: &'static str,
    },
    /// The connection ended.
    #[error("the connection with {peer} is lost: {why}")]
    Lost {
        /// The other side.
        peer: SocketAddr,
        /// How it ended.
        why: String,
    },
    /// The other side gave up the stream of one request.
    #[error("the other side ended the exchange: {0}")]
    Ended(&'static str),
    /// Bytes that are no frame, or a frame that does not belong there.
    #[error("the other side does not keep to the protocol: {0}")]
    Frame(#[from] FrameError),
    /// The request was understood and failed.
    #[error("{0}")]
    Remote(#[from] RemoteError),
    /// Something of ours is larger than the protocol carries.
    #[error("{what} of {bytes} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// A directory holds another database than the one that is to be followed.
    #[error(
        "{} holds database {own}, the primary at {primary} leads {led}. Start the secondary in a new directory, or name \
         the primary of this database",
        path.display()
    )]
    ForeignDatabase {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        own: DatabaseId,
        /// Who was to be followed.
        primary: SocketAddr,
        /// What that one leads.
        led: DatabaseId,
    },
    /// A directory holds a partial copy, and nothing was said of what it is to hold.
    #[error(
        "{} holds a partial copy, of {holds}: name with --only what it is to hold, or begin a copy that holds everything in \
         an empty directory",
        path.display()
    )]
    PartialCopy {
        /// The directory.
        path: PathBuf,
        /// What it holds.
        holds: String,
    },
    /// A directory that is to hold a partial copy holds one that is whole.
    #[error(
        "{} holds a whole copy, which becomes no partial one: name an empty directory, and forget the whole copy at its \
         primary by `planaria replica forget` if it is not to be used any more",
        path.display()
    )]
    WholeCopy {
        /// The directory.
        path: PathBuf,
    },
    /// A directory that is to hold a copy holds something else.
    #[error("{} is not a database and not empty: {source}. Name a new directory for the secondary", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: Arc<io::Error>,
    },
    /// The storage engine failed.
    #[error(transparent)]
    Engine(#[from] planaria_engine::Error),
    /// The other side broke a rule of the replication or clone protocol.
    #[error("the replication protocol was broken: {0}")]
    Protocol(String),
    /// A copy that is followed follows as well, and cannot pass on what it has.
    #[error(
        "the copy is no primary, and cannot pass on what it has now: it hears of no primary that shares it, or is being \
         brought up to date itself. Try again later, or ask its primary"
    )]
    NotReady,
    /// Somebody gave it up.
    #[error("the clone was given up")]
    GivenUp,
    /// Nobody who leads a database was found through the control center in time; nothing was written.
    #[error(
        "nobody takes what is asked: the control center at {center} was asked again and again. The last answer: \
         {why} Try again later; `planaria cluster show` tells what goes on"
    )]
    NoPrimary {
        /// The control center.
        center: SocketAddr,
        /// What was seen last.
        why: String,
    },
    /// This side is closed or closing.
    #[error("the endpoint is closed")]
    Closed,
}

impl Error {
    /// A stable code for programs.
    pub fn code(&self) -> &str {
        match self {
            Self::File { .. } | Self::Socket { .. } => "io",
            Self::Certificate { .. } => "certificate",
            Self::Setting { .. } => "setting",
            Self::Handshake { .. } => "handshake",
            Self::Refused { code, .. } => code,
            Self::TimedOut { .. } => "timed_out",
            Self::Lost { .. } => "connection_lost",
            Self::Ended(_) => "ended",
            Self::Frame(_) | Self::Protocol(_) => "protocol",
            Self::Remote(remote) => &remote.code,
            Self::TooLarge { .. } => "too_large",
            Self::ForeignDatabase { .. } => "foreign_database",
            Self::PartialCopy { .. } => "partial_copy",
            Self::WholeCopy { .. } => "whole_copy",
            Self::NotEmpty { .. } => "exists",
            Self::Engine(error) => error.code(),
            Self::NotReady => "not_ready",
            Self::GivenUp => "cancelled",
            Self::NoPrimary { .. } => "no_primary",
            Self::Closed => "closed",
        }
    }

    /// Whether the other side is away, rather than of another opinion. Whether it got what was sent is not known.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Lost { .. } | Self::TimedOut { .. } | Self::Ended(_) | Self::Closed => true,
            Self::Refused { code, .. } => matches!(*code, "busy" | "shutting_down" | "closed"),
            Self::Remote(error) => error.code == "cancelled",
            _ => false,
        }
    }

    /// Whether the other side does not lead, or not now: nothing was done, and somebody else may.
    pub fn is_of_another_lead(&self) -> bool {
        let Self::Remote(error) = self else { return false };
        matches!(error.code.as_str(), "read_only" | "deposed" | "handing_over")
    }

    /// Wraps an answer of the file system.
    pub(crate) fn file(what: &'static str, path: &Path, source: io::Error) -> Self {
        Self::File { what, path: path.to_path_buf(), source: Arc::new(source) }
    }

    /// Wraps an answer of the socket layer.
    pub(crate) fn socket(what: &'static str, address: SocketAddr, source: io::Error) -> Self {
        Self::Socket { what, address, source: Arc::new(source) }
    }
}
