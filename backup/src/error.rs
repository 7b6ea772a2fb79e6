use planaria_types::Uid;

/// The result of a call on a store of backups.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong with a backup: what happened, to what, and what to do.
///
/// [`Error::code`] is stable over releases, for programs.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The name of a store cannot be understood, or is of a kind that this program was built without.
    #[error("{place:?} names no store of backups: {why}")]
    Place {
        /// What was given.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody said who we are to the store.
    #[error("there are no credentials for {place}")]
    NoCredentials {
        /// The store.
        place: String,
    },
    /// There is no such directory or bucket.
    #[error("there is no store at {place}")]
    NoStore {
        /// The store.
        place: String,
        /// Its answer, where it gave one.
        why: String,
    },
    /// The store does not let us.
    #[error("{place} refuses access to {object}")]
    Denied {
        /// The store.
        place: String,
        /// What was asked for.
        object: String,
        /// Its answer.
        why: String,
    },
    /// The store does not answer, also after some attempts.
    #[error("{place} does not answer")]
    Unreachable {
        /// The store.
        place: String,
        /// What came instead of an answer.
        why: String,
    },
    /// The store refused an operation.
    #[error("{what} {object} in {place}: {why}")]
    Store {
        /// What was being done, as a verb.
        what: &'static str,
        /// The store.
        place: String,
        /// The object.
        object: String,
        /// Its answer.
        why: String,
    },
    /// There is no room in the store.
    #[error("{place} is full: {what} {object} needs more room than there is")]
    NoSpace {
        /// What was being done, as a verb.
        what: &'static str,
        /// The store.
        place: String,
        /// The object.
        object: String,
    },
    /// An object is not what was written.
    #[error("the object {object} is damaged: {what}")]
    Damaged {
        /// The object.
        object: String,
        /// What does not fit.
        what: String,
    },
    /// An object that a backup names is not there.
    #[error("the object {object} is missing")]
    Missing {
        /// The object.
        object: String,
    },
    /// An object is of a newer format.
    #[error("{object} has format {version} of backups, this program reads up to {known}")]
    Newer {
        /// The object.
        object: String,
        /// Its version.
        version: u32,
        /// The highest that is known.
        known: u32,
    },
    /// A backup of that name exists.
    #[error("there is a backup {name:?} already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// There is no backup of that name.
    #[error("there is no backup {name:?}")]
    UnknownBackup {
        /// The name.
        name: String,
    },
    /// There are no backups at all.
    #[error("there are no backups in {place}")]
    NoBackups {
        /// The store.
        place: String,
    },
    /// The store has backups of several databases, and none was named.
    #[error("the store has backups of {count} databases")]
    SeveralDatabases {
        /// How many.
        count: usize,
        /// One backup of each.
        names: Vec<String>,
    },
    /// What is asked for is not kept: neither by a backup nor by the log between two.
    #[error("the state as of {} is not kept", moment(*wanted))]
    OutsideKept {
        /// What was asked for.
        wanted: Uid,
        /// The newest state before it that can be had.
        below: Option<Uid>,
        /// The oldest state after it that can be had.
        above: Option<Uid>,
    },
    /// Objects that a backup was about to name have been removed meanwhile.
    #[error("{count} objects went away while the backup was made")]
    Vanished {
        /// How many.
        count: usize,
    },
    /// It was given up.
    #[error("given up before its end, as was asked")]
    Cancelled,
    /// The source of a backup failed.
    #[error("{what}")]
    Source {
        /// Its code.
        code: String,
        /// Its words.
        what: String,
    },
    /// The storage engine failed.
    #[error(transparent)]
    Engine(#[from] planaria_engine::Error),
    /// Input that makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl Error {
    /// A stable code for programs.
    pub fn code(&self) -> &str {
        match self {
            Self::Place { .. } => "usage",
            Self::NoCredentials { .. } => "no_credentials",
            Self::NoStore { .. } => "no_store",
            Self::Denied { .. } => "store_denied",
            Self::Unreachable { .. } => "store_unreachable",
            Self::Store { .. } => "store",
            Self::Damaged { .. } => "object_damaged",
            Self::Missing { .. } => "object_missing",
            Self::Newer { .. } => "foreign",
            Self::NameTaken { .. } => "backup_exists",
            Self::NoSpace { .. } => "no_space",
            Self::UnknownBackup { .. } | Self::NoBackups { .. } => "unknown_backup",
            Self::SeveralDatabases { .. } => "several_databases",
            Self::OutsideKept { .. } => "outside_kept",
            Self::Vanished { .. } => "objects_vanished",
            Self::Cancelled => "cancelled",
            Self::Source { code, .. } => code,
            Self::Engine(error) => error.code(),
            Self::Invalid(_) => "invalid",
        }
    }

    /// Why it happened, where that is not plain from what happened.
    pub fn why(&self) -> Option<String> {
        match self {
            Self::NoStore { why, .. } | Self::Denied { why, .. } | Self::Unreachable { why, .. } => {
                (!why.is_empty()).then(|| why.clone())
            }
            Self::NoCredentials { .. } => {
                Some("neither the environment (AWS_ACCESS_KEY_ID and the like) nor a flag tells them".into())
            }
            Self::OutsideKept { below, above, .. } => {
                let told = |uid: &Option<Uid>| uid.map_or("none".to_owned(), |uid| uid.to_string());
                Some(format!("the nearest state before it is {}, after it {}", told(below), told(above)))
            }
            Self::Vanished { .. } => {
                Some("a prune with --grace 0s ran at the same time, or the backup took very long".into())
            }
            Self::SeveralDatabases { names, .. } => Some(format!("one backup of each: {}", names.join(", "))),
            _ => None,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Place { .. } => "name a directory, file:///PATH or s3://BUCKET/PREFIX",
            Self::NoCredentials { .. } => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use --access-key and --secret-file"
            }
            Self::NoStore { .. } => {
                "check its name; a bucket is made with the tools of its provider, a directory by `planaria backup create`"
            }
            Self::Denied { .. } => "check the credentials and what they are allowed to do there",
            Self::Unreachable { .. } => {
                "check endpoint and network, and try again: what was sent is not sent again"
            }
            Self::Damaged { .. } | Self::Missing { .. } => {
                "take another backup: `planaria backup verify` tells which ones are whole"
            }
            Self::Newer { .. } => "use the release that wrote it",
            Self::NameTaken { .. } => "choose another --name, or leave it out",
            Self::UnknownBackup { .. } | Self::NoBackups { .. } => {
                "`planaria backup list` shows those that exist"
            }
            Self::SeveralDatabases { .. } => "name a backup of the database that is meant",
            Self::NoSpace { .. } => {
                "make room there, or prune backups; what has come is gone on with by the next attempt"
            }
            Self::OutsideKept { .. } => "ask for one of these, or for a backup by its name",
            Self::Vanished { .. } => "make the backup again: only what is missing is sent",
            _ => return None,
        })
    }
}

/// A state as it was asked for: whoever names a time means all of its millisecond.
fn moment(wanted: Uid) -> String {
    let is_time = wanted.next().millis() > wanted.millis();
    if is_time { format!("millisecond {}", wanted.millis()) } else { wanted.to_string() }
}
