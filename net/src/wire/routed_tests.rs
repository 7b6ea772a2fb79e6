use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use planaria_replication::control::InstanceRole;
use planaria_types::{DatabaseId, Epoch, InstanceId, Uid};

use super::*;
use crate::quic::session::ReplicaSession;
use crate::quic::{AcceptLimits, CertAuthority, Peer, Role, Roles};
use crate::wire::message::{Call, Status, WriteOp, WriteOptions};
use crate::wire::rpc::{BoxFuture, Exchange, Handler, ServeLimits, Server, serve};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// What a node of these tests does with a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Leads,
    Follows,
    /// It follows, and is too old for whoever asks.
    IsOld,
    /// It has carried a write out, and the answer does not arrive.
    Breaks,
    /// It leads, and does not take writes.
    Refuses,
}

/// A node that writes down the tokens of what it was asked to write.
struct Node {
    mood: Mutex<Mood>,
    tokens: Mutex<Vec<Option<u128>>>,
    name: &'static str,
}

impl Handler for Node {
    fn call(&self, _: &Peer, call: Call, _: &mut Exchange) -> Result<Response, RemoteError> {
        let mood = *self.mood.lock();
        match call.request {
            Request::Status => Ok(Response::Status(Status { node: self.name.into(), ..Status::default() })),
            Request::Await { .. } if mood == Mood::IsOld => Err(RemoteError::new("too_stale", "it is old")),
            Request::Await { .. } => Ok(Response::Done),
            Request::Write { .. } if matches!(mood, Mood::Follows | Mood::IsOld) => {
                Err(RemoteError::new("read_only", "it follows"))
            }
            Request::Write { .. } if mood == Mood::Refuses => {
                Err(RemoteError::new("too_few_copies", "nothing was written"))
            }
            Request::Write { options, .. } => {
                self.tokens.lock().push(options.token);
                if mood == Mood::Breaks {
                    return Err(RemoteError::new("cancelled", "the node ends"));
                }
                Ok(Response::Committed { uid: Uid::new(1), epoch: Epoch::NONE, durable: true, again: false })
            }
            _ => Err(RemoteError::new("unsupported", "not here")),
        }
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        Box::pin(async move { drop(session) })
    }
}

/// A control center that names whom it is told to, in turn; the last one for ever.
struct Center(Mutex<Vec<Vec<TargetInfo>>>);

impl Handler for Center {
    fn call(&self, _: &Peer, call: Call, _: &mut Exchange) -> Result<Response, RemoteError> {
        let Request::Control(request) = call.request else {
            return Err(RemoteError::new("unsupported", "no database"));
        };
        let ControlRequest::Route { database, .. } = *request else {
            return Err(RemoteError::new("unsupported", "no such question"));
        };
        if database.as_deref() != Some("birds") {
            return Err(RemoteError::new("unknown_database", "no database is called so"));
        }
        let mut named = self.0.lock();
        let targets =
            if named.len() > 1 { named.remove(0) } else { named.first().cloned().unwrap_or_default() };
        let route = RouteInfo { database: DatabaseId(1), name: "birds".into(), targets, note: String::new() };
        Ok(Response::Control(Box::new(ControlResponse::Route(route))))
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        Box::pin(async move { drop(session) })
    }
}

struct Site {
    credentials: Credentials,
    servers: Vec<Server>,
}

impl Site {
    fn new() -> Self {
        let authority = CertAuthority::create().unwrap();
        let issued = authority.issue("someone", Roles::of(&Role::ALL), Duration::from_hours(24)).unwrap();
        let (path, origin) = (std::path::Path::new("test"), crate::quic::Origin::Named);
        let pem = (authority.cert_pem(), &issued.cert_pem, &issued.key_pem);
        let credentials = Credentials::from_pem(path, pem.0, pem.1, pem.2, origin).unwrap();
        Self { credentials, servers: Vec::new() }
    }

    fn serve(&mut self, handler: Arc<impl Handler>) -> SocketAddr {
        let transport = Transport::default();
        let endpoint =
            Endpoint::server(LOOPBACK, &self.credentials, &transport, AcceptLimits::default()).unwrap();
        let address = endpoint.local_address();
        self.servers.push(serve(endpoint, handler, ServeLimits { calls_max: 8 }));
        address
    }

    fn node(&mut self, name: &'static str, mood: Mood) -> (Arc<Node>, TargetInfo) {
        let node = Arc::new(Node { mood: Mutex::new(mood), tokens: Mutex::default(), name });
        let address = self.serve(Arc::clone(&node));
        let role = if mood == Mood::Leads { InstanceRole::Primary } else { InstanceRole::Standby };
        let (code, reason) = (String::new(), String::new());
        let instance = InstanceId(address.port().into());
        let target =
            TargetInfo { instance, node: name.into(), address, role, age_ms: 0, serves: true, code, reason };
        (node, target)
    }

    fn client(&mut self, named: Vec<Vec<TargetInfo>>) -> RoutedClient {
        let center = self.serve(Arc::new(Center(Mutex::new(named))));
        RoutedClient::new(center, Some("birds"), self.credentials.clone())
    }
}

fn put(token: Option<u128>) -> Request {
    let op = WriteOp::Put { table: "t".into(), key: b"k"[..].into(), value: b"v"[..].into() };
    Request::Write { ops: vec![op], options: WriteOptions { token, ..WriteOptions::default() } }
}

fn awaited() -> Request {
    Request::Await { after: None, epoch: None, staleness_max_ms: Some(9), timeout_ms: 1 }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_goes_to_whoever_leads_in_the_end() {
    let mut site = Site::new();
    let (old, old_target) = site.node("old", Mood::Follows);
    let (new, new_target) = site.node("new", Mood::Leads);
    let client = site.client(vec![vec![old_target], vec![], vec![new_target]]);
    client.call(put(None)).await.unwrap();
    assert_eq!(client.target().unwrap().node, "new");
    assert_eq!((old.tokens.lock().len(), new.tokens.lock().len()), (0, 1));
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_without_an_answer_is_sent_again_under_its_token_alone() {
    let mut site = Site::new();
    let (old, old_target) = site.node("old", Mood::Breaks);
    let (new, new_target) = site.node("new", Mood::Leads);
    let client = site.client(vec![vec![old_target.clone()], vec![new_target]]);
    client.call(put(Some(7))).await.unwrap();
    assert_eq!((&*old.tokens.lock(), &*new.tokens.lock()), (&vec![Some(7)], &vec![Some(7)]));

    let client = site.client(vec![vec![old_target]]);
    let error = client.call(put(None)).await.unwrap_err();
    assert_eq!((error.code(), old.tokens.lock().len()), ("cancelled", 2), "nothing was sent again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_after_an_attempt_that_may_have_been_made_is_no_denial_of_it() {
    let mut site = Site::new();
    let (_, old) = site.node("old", Mood::Breaks);
    let (_, new) = site.node("new", Mood::Refuses);
    let client = site.client(vec![vec![old], vec![new.clone()]]);
    assert_eq!(client.call(put(Some(7))).await.unwrap_err().code(), "cancelled");
    let client = site.client(vec![vec![new]]);
    assert_eq!(client.call(put(Some(8))).await.unwrap_err().code(), "too_few_copies");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounded_read_turns_to_the_first_copy_that_is_fresh_enough() {
    let mut site = Site::new();
    let (_, old) = site.node("old", Mood::IsOld);
    let (_, deaf) = site.node("deaf", Mood::Follows);
    let deaf = TargetInfo { serves: false, ..deaf };
    let (_, fresh) = site.node("fresh", Mood::Follows);
    let client = site.client(vec![vec![old.clone(), deaf, fresh]]);
    client.turn_to_reader(9, &awaited()).await.unwrap();
    let Response::Status(status) = client.call(Request::Status).await.unwrap() else { panic!("a status") };
    assert_eq!(status.node, "fresh");

    let client = site.client(vec![vec![old]]);
    assert_eq!(client.turn_to_reader(9, &awaited()).await.unwrap_err().code(), "too_stale");
    let client = site.client(vec![vec![]]);
    assert_eq!(client.turn_to_reader(9, &awaited()).await.unwrap_err().code(), "no_primary");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_finds_nobody_says_so_and_what_is_wrong_is_said_at_once() {
    let mut site = Site::new();
    let client = site.client(vec![vec![]]).with_patience(Duration::from_millis(300));
    let error = client.call(put(Some(1))).await.unwrap_err();
    assert_eq!(error.code(), "no_primary");
    assert!(error.to_string().contains("\"birds\""), "{error}");

    let center = site.serve(Arc::new(Center(Mutex::default())));
    let client = RoutedClient::new(center, Some("fish"), site.credentials.clone());
    assert_eq!(client.call(put(Some(1))).await.unwrap_err().code(), "unknown_database");
    assert_eq!(client.client().await.unwrap_err().code(), "unknown_database");
}
