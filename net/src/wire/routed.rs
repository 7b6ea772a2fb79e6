//! A client of a database, wherever that is led.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::client::Client;
use super::control::{ControlRequest, ControlResponse};
use super::message::{RemoteError, Request, Response};
use super::routes::{RouteInfo, TargetInfo};
use crate::quic::{Credentials, Endpoint, NODE_NAME, Transport};
use crate::{Error, Result};

/// How long a call goes on looking for somebody who answers it: a control center that replaces a lost primary needs some ten
/// seconds by default.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(100);
/// Silence after which a node is taken for lost.
const SILENCE: Duration = Duration::from_secs(4);
/// A sign of life is sent this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// A client of one database of a cluster. Cheap to clone; calls run side by side.
///
/// It asks the control center who leads, speaks to that node, and follows when the lead moves. While it is connected it needs no
/// control center. A call whose answer does not come is made again at whoever leads then, where that cannot do its work twice:
/// reads, and writes that carry a token.
#[derive(Clone, Debug)]
pub struct RoutedClient(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    center: SocketAddr,
    database: Option<String>,
    credentials: Credentials,
    patience: Duration,
    /// Who answers at present.
    held: Mutex<Option<Held>>,
}

#[derive(Clone, Debug)]
struct Held {
    client: Client,
    target: TargetInfo,
}

/// Why a call has come to nothing so far.
#[derive(Default)]
struct Trouble {
    /// The last attempt's error.
    last: Option<Error>,
    /// The error of the last attempt that a node may have got.
    sent: Option<Error>,
}

impl RoutedClient {
    /// A client of the database of that name or id, or of the only one, in the cluster of the control center at `center`. Nothing
    /// is connected yet.
    pub fn new(center: SocketAddr, database: Option<&str>, credentials: Credentials) -> Self {
        let database = database.map(str::to_owned);
        Self(Arc::new(Inner { center, database, credentials, patience: PATIENCE, held: Mutex::default() }))
    }

    /// The same, not connected yet, whose calls go on for so long; 30 seconds are the default.
    #[must_use]
    pub fn with_patience(&self, patience: Duration) -> Self {
        let Inner { center, database, credentials, .. } = &*self.0;
        let (database, credentials) = (database.clone(), credentials.clone());
        Self(Arc::new(Inner { center: *center, database, credentials, patience, held: Mutex::default() }))
    }

    /// Who answers at present, if anybody does.
    pub fn target(&self) -> Option<TargetInfo> {
        self.0.held.lock().as_ref().map(|held| held.target.clone())
    }

    /// Sends a request to whoever leads, and follows the lead until there is an answer.
    ///
    /// # Errors
    ///
    /// What the node refuses; `no_primary` if nobody was found for 30 seconds. After another error of the network it is unknown
    /// whether a write took effect, and with the same token it may be sent again.
    pub async fn call(&self, request: Request) -> Result<Response> {
        let mut trouble = Trouble::default();
        let answered = self.until_answered(&request, &mut trouble);
        let answer = tokio::time::timeout(self.0.patience, answered).await;
        answer.unwrap_or_else(|_| Err(self.given_up(trouble)))
    }

    /// The client of the node that answers at present, for requests with many answers. They are not made again.
    ///
    /// # Errors
    ///
    /// `no_primary` if nobody was found for 30 seconds.
    pub async fn client(&self) -> Result<Client> {
        let mut trouble = Trouble::default();
        let connected = async {
            loop {
                match self.connected().await {
                    Ok(held) => return Ok(held.client),
                    Err(error) if is_wrong_use(&error) => return Err(error),
                    Err(error) => trouble.last = Some(error),
                }
                tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            }
        };
        let connected = tokio::time::timeout(self.0.patience, connected).await;
        connected.unwrap_or_else(|_| Err(self.given_up(trouble)))
    }

    /// Turns to a copy that shows what `wanted`, a [`Request::Await`], asks for, a standby rather than the primary. Later calls go
    /// there as long as it answers.
    ///
    /// # Errors
    ///
    /// The last copy's, if none does; `no_primary` if there is none at all.
    pub async fn turn_to_reader(&self, staleness_max_ms: u64, wanted: &Request) -> Result<()> {
        let mut trouble = Trouble::default();
        for target in self.route(Some(staleness_max_ms)).await?.targets {
            if !target.serves {
                continue;
            }
            let asked = async {
                let held = self.connect(target).await?;
                held.client.call(wanted.clone()).await.map(|_| held)
            };
            match asked.await {
                Ok(held) => {
                    *self.0.held.lock() = Some(held);
                    return Ok(());
                }
                // Another copy may be fresher, or there.
                Err(error) => trouble.last = Some(error),
            }
        }
        match trouble.last {
            Some(error @ Error::Remote(_)) => Err(error),
            _ => Err(self.given_up(trouble)),
        }
    }

    /// Who leads, by what the control center heard last; none if nobody was heard lately.
    ///
    /// # Errors
    ///
    /// What the network says of the control center, or what that one refuses.
    pub async fn leader(&self) -> Result<Option<TargetInfo>> {
        Ok(self.route(None).await?.targets.into_iter().find(|target| target.serves))
    }

    /// Ends the connection.
    pub async fn close(&self) {
        let held = self.0.held.lock().take();
        if let Some(held) = held {
            held.client.close().await;
        }
    }

    async fn until_answered(&self, request: &Request, trouble: &mut Trouble) -> Result<Response> {
        loop {
            match self.connected().await {
                Ok(held) => match held.client.call(request.clone()).await {
                    Err(error) if error.is_of_another_lead() => {
                        self.forget(&held);
                        trouble.last = Some(error);
                    }
                    Err(error) if error.is_away() && is_repeatable(request) => {
                        self.forget(&held);
                        trouble.sent = Some(error);
                    }
                    // Whatever is said now, an earlier attempt may have been made.
                    Err(_) if trouble.sent.is_some() && matches!(request, Request::Write { .. }) => {
                        return Err(self.given_up(std::mem::take(trouble)));
                    }
                    answer => return answer,
                },
                // The cluster is there, and what is asked of it is wrong.
                Err(error) if is_wrong_use(&error) => return Err(error),
                Err(error) => trouble.last = Some(error),
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
    }

    /// The error of a call that nobody has answered: that of an attempt that a node may have got, if there was one.
    fn given_up(&self, trouble: Trouble) -> Error {
        if let Some(error) = trouble.sent {
            return error;
        }
        let why = trouble.last.map_or_else(|| "it did not answer".into(), |error| error.to_string());
        Error::NoPrimary { center: self.0.center, why }
    }

    /// Who answered before, or whoever leads now.
    async fn connected(&self) -> Result<Held> {
        let held = self.0.held.lock().clone();
        if let Some(held) = held.filter(|held| !held.client.is_lost()) {
            return Ok(held);
        }
        let route = self.route(None).await?;
        let Some(target) = route.targets.into_iter().find(|target| target.serves) else {
            let what = format!("nobody was heard to lead {:?} lately. {}", route.name, route.note);
            return Err(RemoteError::new("no_primary", what.trim_end()).into());
        };
        let held = self.connect(target).await?;
        *self.0.held.lock() = Some(held.clone());
        Ok(held)
    }

    async fn connect(&self, target: TargetInfo) -> Result<Held> {
        let client = self.dial(target.address).await?;
        Ok(Held { client, target })
    }

    async fn dial(&self, address: SocketAddr) -> Result<Client> {
        let transport = Transport { idle_timeout: SILENCE, keep_alive: SIGN_OF_LIFE, ..Transport::default() };
        let endpoint = Endpoint::client(address, &self.0.credentials, &transport)?;
        Client::connect_from(&endpoint, address, NODE_NAME).await
    }

    /// Asks the control center. The connection is not kept: most clients ask once.
    async fn route(&self, staleness_max_ms: Option<u64>) -> Result<RouteInfo> {
        let center = self.dial(self.0.center).await?;
        let request = ControlRequest::Route { database: self.0.database.clone(), staleness_max_ms };
        let answer = center.call(Request::Control(Box::new(request))).await;
        center.close().await;
        match answer? {
            Response::Control(response) => match *response {
                ControlResponse::Route(route) => Ok(route),
                _ => Err(another_answer(self.0.center)),
            },
            _ => Err(another_answer(self.0.center)),
        }
    }

    fn forget(&self, held: &Held) {
        let mut kept = self.0.held.lock();
        if kept.as_ref().is_some_and(|kept| kept.target == held.target) {
            *kept = None;
        }
    }
}

fn another_answer(center: SocketAddr) -> Error {
    Error::Protocol(format!("what listens at {center} is no control center of this release"))
}

/// What the control center refuses however often it is asked.
fn is_wrong_use(error: &Error) -> bool {
    match error {
        Error::Remote(error) => {
            matches!(error.code.as_str(), "unknown_database" | "ambiguous" | "unsupported" | "role_refused")
        }
        Error::Refused { code, .. } => matches!(*code, "role_refused" | "version" | "protocol"),
        Error::Protocol(_) | Error::Frame(_) | Error::Handshake { .. } | Error::Certificate { .. } => true,
        _ => false,
    }
}

/// Whether a request may be made again though it may have been carried out.
fn is_repeatable(request: &Request) -> bool {
    match request {
        Request::Write { options, .. } => options.token.is_some(),
        Request::Ping
        | Request::Status
        | Request::TableList
        | Request::TableShow { .. }
        | Request::Get { .. }
        | Request::GetMany { .. }
        | Request::Await { .. }
        | Request::Digest { .. }
        | Request::Verify
        | Request::ReplicaList
        | Request::CloneList
        | Request::CloneShow { .. }
        | Request::ExtractList
        | Request::ExtractRead { .. } => true,
        // `Confirm` among them: what it is to confirm may have been read elsewhere.
        _ => false,
    }
}

#[cfg(test)]
#[path = "routed_tests.rs"]
mod tests;
