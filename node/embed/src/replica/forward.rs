//! Writes that the primary makes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use planaria_engine::TableDef;
use planaria_net::Error as NetError;
use planaria_net::quic::{Credentials, Endpoint, NODE_NAME, Transport};
use planaria_net::wire::client::{Client, new_token};
use planaria_net::wire::message::{Level, Request, Response, WriteOp, WriteOptions};
use planaria_types::{DatabaseId, Position};
use tokio::sync::Notify;

use super::ReplicaError;

/// How long a write may take if the application does not say.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// What is said of an answer that is none.
const ANOTHER_QUESTION: &str = "the primary gave an answer to another question";
/// Between two attempts to have a write answered.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);
/// Silence after which the primary is taken for lost.
const SILENCE: Duration = Duration::from_secs(5);
/// A sign of life is sent this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// How a write is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// How many durable copies it waits for; by default what the database prescribes.
    pub level: Level,
    /// The write's name: however often it is sent, it is made once. Without one, each call draws its own.
    pub token: Option<u128>,
    /// How long it may take; 10 seconds by default.
    pub timeout: Duration,
}

impl Default for Forward {
    fn default() -> Self {
        Self { level: Level::Database, token: None, timeout: PATIENCE }
    }
}

/// Sends writes to the primary, over a connection that is kept.
#[derive(Debug)]
pub(super) struct Forwarder {
    credentials: Credentials,
    database: String,
    /// Who looks for another primary when the one that is known does not lead, while a write waits for it.
    lookout: Option<Arc<Notify>>,
    target: Mutex<Target>,
}

/// Whom writes are sent to.
#[derive(Debug)]
struct Target {
    primary: SocketAddr,
    client: Option<Client>,
}

/// How far a write has come.
#[derive(Default)]
struct Progress {
    /// Whether the primary may have got it.
    sent: bool,
    why: String,
}

impl Forwarder {
    pub(super) fn new(
        primary: SocketAddr,
        credentials: Credentials,
        database: DatabaseId,
        lookout: Option<Arc<Notify>>,
    ) -> Self {
        let target = Mutex::new(Target { primary, client: None });
        Self { credentials, database: database.to_string(), lookout, target }
    }

    /// Writes go there from now on, those that wait among them.
    pub(super) fn turn_to(&self, primary: SocketAddr) {
        *self.target() = Target { primary, client: None };
    }

    /// The next attempt makes a new connection.
    fn forget(&self) {
        drop(self.target().client.take());
    }

    /// Has the primary make a write, all or nothing, and gives the position where it is.
    pub(super) async fn write(&self, ops: Vec<WriteOp>, how: Forward) -> Result<Position, ReplicaError> {
        let token = how.token.unwrap_or_else(new_token);
        let timeout_ms = u32::try_from(how.timeout.as_millis()).unwrap_or(u32::MAX).max(1);
        let options = WriteOptions { durable: true, level: how.level, timeout_ms, token: Some(token) };
        let request = Request::Write { ops, options };
        let mut progress = Progress { sent: false, why: "no answer in time".into() };
        let answered = self.until_answered(request, &mut progress);
        let answer = tokio::time::timeout(how.timeout, answered).await.unwrap_or(Err(None));
        let primary = self.target().primary;
        let unknown = |why| ReplicaError::Unknown { primary, token, why };
        match answer {
            Ok(Response::Committed { uid, epoch, .. }) => Ok(Position { epoch, uid }),
            Ok(_) => Err(unknown(ANOTHER_QUESTION.to_owned())),
            Err(failed) => Err(without_answer(primary, failed, progress, unknown)),
        }
    }

    /// Has the primary make a table, and gives a position at which it is there, at the level of the database.
    pub(super) async fn create(&self, definition: TableDef) -> Result<Position, ReplicaError> {
        let encoded = if definition.is_typed() { definition.encode()?.into() } else { Bytes::new() };
        let request = Request::TableCreate { name: definition.name.clone(), definition: encoded };
        let mut progress = Progress { sent: false, why: "no answer in time".into() };
        let answered = self.until_answered(request, &mut progress);
        let answer = tokio::time::timeout(PATIENCE, answered).await.unwrap_or(Err(None));
        let (primary, name) = (self.target().primary, definition.name.clone());
        let unknown = |why| ReplicaError::TableUnknown { primary, name, why };
        match answer {
            Ok(Response::Table(_)) => {}
            Ok(_) => return Err(unknown(ANOTHER_QUESTION.to_owned())),
            // An earlier attempt whose answer was lost has made it, or somebody else the same one.
            Err(Some(NetError::Remote(error)))
                if progress.sent && error.code == "table_exists" && self.has(&definition).await => {}
            Err(failed) => return Err(without_answer(primary, failed, progress, unknown)),
        }
        // What is committed after it is where it is.
        self.write(Vec::new(), Forward::default()).await.map_err(|error| unknown(error.to_string()))
    }

    /// Whether the primary has this table, under whatever number.
    async fn has(&self, definition: &TableDef) -> bool {
        let request = Request::TableShow { name: definition.name.clone() };
        let mut progress = Progress::default();
        let asked = self.until_answered(request, &mut progress);
        let Ok(Ok(Response::Table(there))) = tokio::time::timeout(PATIENCE, asked).await else {
            return false;
        };
        let there = TableDef::decode(&there.definition);
        there.is_ok_and(|there| there == TableDef { id: there.id, ..definition.clone() })
    }

    /// Sends the request until there is an answer, or an error that another attempt would not mend; none if the
    /// primary cannot be reached and has got nothing.
    async fn until_answered(
        &self,
        request: Request,
        progress: &mut Progress,
    ) -> Result<Response, Option<NetError>> {
        loop {
            match self.attempt(&request, progress).await {
                Ok(answer) => return Ok(answer),
                Err(Trouble::Refusal(error)) if error.is_of_another_lead() && self.looks_out() => {
                    progress.why = error.to_string();
                }
                Err(Trouble::Refusal(error)) => return Err(Some(error)),
                Err(Trouble::Moving(why)) => progress.why = why,
                Err(Trouble::Away(why)) => {
                    progress.why = why;
                    self.forget();
                    if !progress.sent && !self.looks_out() {
                        return Err(None);
                    }
                }
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
    }

    async fn attempt(&self, request: &Request, progress: &mut Progress) -> Result<Response, Trouble> {
        let client = self.connected().await.map_err(Trouble::of)?;
        let sent_before = std::mem::replace(&mut progress.sent, true);
        client.call(request.clone()).await.map_err(|error| {
            // A refusal has left nothing behind, and what is too large was not sent.
            if matches!(error, NetError::Remote(_) | NetError::TooLarge { .. }) && !error.is_away() {
                progress.sent = sent_before;
            }
            Trouble::of(error)
        })
    }

    /// Has another primary looked for, if that is done at all.
    fn looks_out(&self) -> bool {
        self.lookout.as_ref().inspect(|lookout| lookout.notify_one()).is_some()
    }

    /// The connection that is kept, or a new one.
    async fn connected(&self) -> Result<Client, NetError> {
        let (primary, kept) = {
            let target = self.target();
            (target.primary, target.client.clone())
        };
        if let Some(client) = kept.filter(|client| !client.is_lost()) {
            return Ok(client);
        }
        let transport = Transport { idle_timeout: SILENCE, keep_alive: SIGN_OF_LIFE, ..Transport::default() };
        let endpoint = Endpoint::client(primary, &self.credentials, &transport)?;
        let client = Client::connect_from(&endpoint, primary, NODE_NAME).await?.with_database(&self.database);
        let mut target = self.target();
        if target.primary == primary {
            target.client = Some(client.clone());
        }
        Ok(client)
    }

    fn target(&self) -> MutexGuard<'_, Target> {
        self.target.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a call comes to that has no answer, or a refusal; `unknown` if it may have been carried out.
fn without_answer(
    primary: SocketAddr,
    failed: Option<NetError>,
    progress: Progress,
    unknown: impl FnOnce(String) -> ReplicaError,
) -> ReplicaError {
    match failed {
        Some(NetError::Remote(error)) if error.code == "unknown" => unknown(error.to_string()),
        // Whatever is said now, an earlier attempt may have been made.
        failed if progress.sent => unknown(failed.map_or(progress.why, |error| error.to_string())),
        Some(NetError::Remote(error)) => match error.code.as_str() {
            "read_only" | "deposed" => ReplicaError::NoPrimary { primary, why: error.to_string() },
            _ => ReplicaError::Refused(error),
        },
        Some(error) => error.into(),
        None => ReplicaError::NoPrimary { primary, why: progress.why },
    }
}

/// Why an attempt has no answer.
enum Trouble {
    /// The primary is away.
    Away(String),
    /// The lead is on its way: soon this node says that it has none, or takes updates again.
    Moving(String),
    /// Another attempt would not mend it.
    Refusal(NetError),
}

impl Trouble {
    fn of(error: NetError) -> Self {
        match &error {
            away if away.is_away() => Self::Away(error.to_string()),
            NetError::Remote(refusal) if refusal.code == "handing_over" => Self::Moving(error.to_string()),
            _ => Self::Refusal(error),
        }
    }
}
