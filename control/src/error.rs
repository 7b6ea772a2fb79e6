use planaria_net::wire::message::RemoteError;

/// The result of a call on the control center.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong in the control center.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database of the catalog refused something.
    #[error("the catalog: {0}")]
    Engine(#[from] planaria_engine::Error),
    /// The catalog holds what no release writes.
    #[error(
        "table {table:?} of the catalog cannot be read: {what}. Restore the directory, or begin with a new one: nodes join again"
    )]
    Unreadable {
        /// The table.
        table: &'static str,
        /// What does not fit.
        what: String,
    },
    /// What was asked cannot be done.
    #[error("{what}")]
    Refused {
        /// A stable code.
        code: &'static str,
        /// What, and why not.
        what: String,
        /// What to do.
        hint: &'static str,
    },
}

impl Error {
    pub(crate) fn refused(code: &'static str, what: impl Into<String>, hint: &'static str) -> Self {
        Self::Refused { code, what: what.into(), hint }
    }

    /// A stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Engine(error) => error.code(),
            Self::Unreadable { .. } => "damaged",
            Self::Refused { code, .. } => code,
        }
    }
}

impl From<Error> for RemoteError {
    fn from(error: Error) -> Self {
        let mut remote = Self::new(error.code(), error.to_string());
        if let Error::Refused { hint, .. } = error {
            hint.clone_into(&mut remote.hint);
        }
        remote
    }
}
