//! Opening the directory of a secondary.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use planaria_engine::{CloneRole, Database, Options, Role};
use planaria_types::Uid;

use super::clone::{CloneProgress, blocking, clone_from};
use super::detour::Need;
use crate::quic::{Credentials, Transport};
use crate::wire::client::Client;
use crate::wire::message::{DatabaseStatus, Request, Response};
use crate::{Error, Result};

/// How long a node has to say what it hosts.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// A secondary's directory, opened.
#[derive(Debug)]
pub struct Joined {
    /// The copy.
    pub db: Database,
    /// What the first copy took, if the directory was empty, and where it came from.
    pub first_copy: Option<(CloneProgress, SocketAddr)>,
    /// What became of siblings that were to bring it, for people.
    pub note: Option<String>,
}

/// Opens a secondary's directory; an empty one is filled with the primary's run files first, which `progress` is told
/// of. A copy that was a secondary before is opened whether its primary can be reached or not. The first copy is taken from the
/// first of `siblings`, other secondaries, that has one of the primary's epoch, and from the primary if none has.
///
/// # Errors
///
/// `ForeignDatabase` if the directory holds another database than the primary leads, `NotEmpty` if it holds none and
/// something else.
pub async fn open_secondary(
    dir: &Path,
    primary: SocketAddr,
    siblings: &[SocketAddr],
    (credentials, transport): (&Credentials, &Transport),
    options: &Options,
    progress: impl Fn(&CloneProgress) + Send + Sync + 'static,
) -> Result<Joined> {
    match open(dir, Options { create: false, ..options.clone() }).await {
        Ok(db) => {
            join_primary(&db, dir, primary, credentials).await?;
            Ok(Joined { db, first_copy: None, note: None })
        }
        Err(Error::Engine(planaria_engine::Error::NotFound { .. })) => {
            remove_if_empty(dir)?;
            let (source, note) = first_source(primary, siblings, credentials).await?;
            let progress = Arc::new(progress);
            let copy = |source| {
                let progress = Arc::clone(&progress);
                let told = move |state: &CloneProgress| progress(state);
                clone_from(source, credentials, transport, dir, CloneRole::Secondary, options, told)
            };
            let (copied, source, note) = match copy(source).await {
                Err(error) if source != primary => {
                    tracing::warn!(%source, %error, "the first copy is taken from the primary instead of a sibling");
                    let note = format!("was copied from the primary: {source} did not give all ({error})");
                    (copy(primary).await?, primary, Some(note))
                }
                copied => (copied?, source, note),
            };
            let db = open(dir, options.clone()).await?;
            Ok(Joined { db, first_copy: Some((copied, source)), note })
        }
        Err(error) => Err(error),
    }
}

/// Opens the directory of a partial secondary; an empty one is filled by its first round. A copy that was one before is
/// opened whether its primary can be reached or not.
///
/// # Errors
///
/// `WholeCopy` if the directory holds a copy of everything, `ForeignDatabase` if it holds one of another database.
pub async fn open_partial(
    dir: &Path,
    primary: SocketAddr,
    credentials: &Credentials,
    options: &Options,
) -> Result<Database> {
    let db = match open(dir, Options { create: false, ..options.clone() }).await {
        Ok(db) => db,
        Err(Error::Engine(planaria_engine::Error::NotFound { .. })) => {
            // Nothing is made while nobody says of what it would be a copy.
            database_at(primary, credentials).await?;
            open(dir, options.clone()).await?
        }
        Err(error) => return Err(error),
    };
    if db.portion().is_some() {
        join(&db, dir, primary, credentials).await?;
    } else if db.log_end().0 == Uid::ZERO {
        let there = database_at(primary, credentials).await?.database;
        let own = db.clone();
        blocking(move || Ok(own.become_partial(there)?)).await?;
    } else {
        return Err(Error::WholeCopy { path: dir.to_path_buf() });
    }
    Ok(db)
}

/// Where the first copy is taken from, and what is said of it.
async fn first_source(
    primary: SocketAddr,
    siblings: &[SocketAddr],
    credentials: &Credentials,
) -> Result<(SocketAddr, Option<String>)> {
    if siblings.is_empty() {
        return Ok((primary, None));
    }
    let led = database_at(primary, credentials).await?;
    let need = Need { database: led.database, instance: None, epoch: led.epoch, above: Uid::ZERO };
    let mut troubles = Vec::new();
    for sibling in siblings {
        match need.ask(*sibling, credentials).await {
            Ok(()) => return Ok((*sibling, Some(format!("was copied from {sibling}")))),
            Err(why) => troubles.push(format!("{sibling} is of no use ({why})")),
        }
    }
    let why = troubles.join("; ");
    tracing::warn!(why, "no sibling gives the first copy: the primary does");
    Ok((primary, Some(format!("was copied from the primary: {why}"))))
}

/// Makes a database a secondary of the primary at that address, if that leads the same database. One that was a
/// secondary before stays it, whether its primary can be reached or not.
///
/// # Errors
///
/// `ForeignDatabase` if the primary leads another database, `PartialCopy` if the copy holds a portion of it alone.
pub async fn join_primary(
    db: &Database,
    dir: &Path,
    primary: SocketAddr,
    credentials: &Credentials,
) -> Result<()> {
    if let Some(portion) = db.portion() {
        return Err(Error::PartialCopy { path: dir.to_path_buf(), holds: portion.to_string() });
    }
    join(db, dir, primary, credentials).await
}

async fn join(db: &Database, dir: &Path, primary: SocketAddr, credentials: &Credentials) -> Result<()> {
    let was_secondary = db.role() == Role::Secondary;
    match database_at(primary, credentials).await {
        Ok(there) if there.database != db.id() => Err(Error::ForeignDatabase {
            path: dir.to_path_buf(),
            own: db.id(),
            primary,
            led: there.database,
        }),
        Ok(_) => {
            let own = db.clone();
            blocking(move || Ok(own.become_secondary(own.id())?)).await
        }
        // A secondary waits for its primary; what was none before must not become one unseen.
        Err(_) if was_secondary => Ok(()),
        Err(error) => Err(error),
    }
}

async fn open(dir: &Path, options: Options) -> Result<Database> {
    let dir = dir.to_path_buf();
    blocking(move || Ok(Database::open_with(dir, options)?)).await
}

/// An empty directory makes room for the copy that takes its name.
fn remove_if_empty(dir: &Path) -> Result<()> {
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::NotEmpty { path: dir.to_path_buf(), source: Arc::new(error) })
        }
        _ => Ok(()),
    }
}

/// The database that a node hosts.
pub async fn database_at(address: SocketAddr, credentials: &Credentials) -> Result<DatabaseStatus> {
    let asked = async {
        let client = Client::connect(address, credentials).await?;
        let answer = client.call(Request::Status).await;
        client.close().await;
        answer
    };
    let answer = tokio::time::timeout(ANSWER_WITHIN, asked)
        .await
        .unwrap_or(Err(Error::TimedOut { peer: address, when: "to what it hosts" }))?;
    let Response::Status(status) = answer else {
        return Err(Error::Protocol(format!("the node at {address} gave an answer to another question")));
    };
    let database = status.databases.into_iter().next();
    database.ok_or_else(|| Error::Protocol(format!("the node at {address} hosts no database")))
}
