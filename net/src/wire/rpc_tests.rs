use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use planaria_types::{Epoch, KeyRange, Uid};
use tokio::sync::{Notify, mpsc};

use super::{BoxFuture, Exchange, Handler, ServeLimits, Server, serve};
use crate::quic::session::ReplicaSession;
use crate::quic::{
    AcceptLimits, CertAuthority, Credentials, Endpoint, NODE_NAME, Origin, Peer, Role, Roles, Service,
    Transport,
};
use crate::wire::client::Client;
use crate::wire::message::{
    Ack, Call, CloneSpec, RemoteError, Request, Response, ScanSpec, Status, WriteOp, WriteOptions,
};
use crate::wire::rows::RowsBuilder;
use crate::wire::{Frame, FrameKind};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A table in memory behind the protocol, with a few requests that misbehave on purpose.
#[derive(Default)]
struct Store {
    rows: Mutex<BTreeMap<Bytes, Bytes>>,
    events: Option<mpsc::Sender<&'static str>>,
    go_on: Arc<Notify>,
}

impl Store {
    fn tell(&self, event: &'static str) {
        if let Some(events) = &self.events {
            events.blocking_send(event).unwrap();
        }
    }

    fn scan(&self, spec: &ScanSpec, exchange: &mut Exchange) -> Result<Response, RemoteError> {
        let mut batch = RowsBuilder::new();
        let mut sent = 0;
        for (key, value) in self.rows.lock().iter().filter(|(key, _)| spec.range.contains(key)) {
            batch.push(Uid::new(1), key, value).unwrap();
            sent += 1;
            if batch.is_full() {
                exchange.send_rows(batch.take())?;
            }
        }
        exchange.send_rows(batch.take())?;
        Ok(Response::Scanned { at: Uid::new(1), rows: sent, next_key: None })
    }

    fn scan_for_ever(&self, exchange: &mut Exchange) -> Result<Response, RemoteError> {
        self.tell("scan runs");
        loop {
            if let Err(error) = exchange.send_rows(Bytes::from(vec![0; 1 << 20])) {
                self.tell("scan cancelled");
                return Err(error);
            }
        }
    }

    fn import(&self, exchange: &mut Exchange) -> Result<Response, RemoteError> {
        self.tell("import runs");
        let mut ack = Ack::default();
        while let Some(rows) = exchange.next_rows()? {
            for row in rows {
                if row.key.is_empty() {
                    return Err(RemoteError::new("schema", "a key is empty"));
                }
                self.rows.lock().insert(row.key, row.value);
                ack.rows += 1;
            }
            ack.batches += 1;
            exchange.ack(ack)?;
        }
        Ok(Response::Imported { uid: Uid::new(2), epoch: Epoch::NONE, rows: ack.rows })
    }
}

impl Handler for Store {
    fn call(&self, _: &Peer, call: Call, exchange: &mut Exchange) -> Result<Response, RemoteError> {
        match call.request {
            Request::Ping => Ok(Response::Done),
            Request::Status => {
                Ok(Response::Status(Status { node: call.database.unwrap_or_default(), ..Status::default() }))
            }
            Request::Get { key, .. } => {
                Ok(Response::Row(self.rows.lock().get(&key).map(|value| (Uid::new(1), value.clone()))))
            }
            Request::Write { ops, .. } => {
                for op in ops {
                    match op {
                        WriteOp::Put { key, value, .. } => self.rows.lock().insert(key, value),
                        WriteOp::Delete { key, .. } => self.rows.lock().remove(&key),
                        WriteOp::DeleteRange { .. } => None,
                    };
                }
                Ok(Response::Committed { uid: Uid::new(1), epoch: Epoch::NONE, durable: true, again: false })
            }
            Request::Scan(spec) if spec.table == "endless" => self.scan_for_ever(exchange),
            Request::Scan(spec) => self.scan(&spec, exchange),
            Request::Import { .. } => self.import(exchange).inspect_err(|error| {
                if error.code == "cancelled" {
                    self.tell("import cancelled");
                }
            }),
            Request::Verify => {
                self.tell("verify runs");
                tokio::runtime::Handle::current().block_on(self.go_on.notified());
                Ok(Response::Done)
            }
            Request::TableDrop { .. } => panic!("a handler that panics"),
            _ => Err(RemoteError::new("unknown_table", "there is no such table")),
        }
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        Box::pin(async move {
            while let Ok(Some(message)) = session.receive().await {
                session.send(message).await.unwrap();
            }
        })
    }
}

struct Site {
    server: Server,
    authority: CertAuthority,
    address: SocketAddr,
}

impl Site {
    fn new(store: Store) -> Self {
        let authority = CertAuthority::create().unwrap();
        let credentials = credentials(&authority, &Role::ALL);
        let endpoint =
            Endpoint::server(LOOPBACK, &credentials, &Transport::default(), AcceptLimits::default()).unwrap();
        let address = endpoint.local_address();
        Self { server: serve(endpoint, Arc::new(store), ServeLimits { calls_max: 8 }), authority, address }
    }

    async fn client(&self, roles: &[Role]) -> Client {
        Client::connect(self.address, &credentials(&self.authority, roles)).await.unwrap()
    }
}

fn credentials(authority: &CertAuthority, roles: &[Role]) -> Credentials {
    let issued = authority.issue("someone", Roles::of(roles), Duration::from_hours(24)).unwrap();
    Credentials::from_pem(
        Path::new("test"),
        authority.cert_pem(),
        &issued.cert_pem,
        &issued.key_pem,
        Origin::Named,
    )
    .unwrap()
}

fn put(key: &'static [u8], value: impl Into<Bytes>) -> Request {
    let op = WriteOp::Put { table: "t".into(), key: Bytes::from_static(key), value: value.into() };
    Request::Write { ops: vec![op], options: WriteOptions::default() }
}

fn get(key: &'static [u8]) -> Request {
    Request::Get { table: "t".into(), key: Bytes::from_static(key), at: None }
}

fn scan(table: &str) -> Request {
    Request::Scan(ScanSpec { table: table.into(), range: KeyRange::ALL, ..ScanSpec::default() })
}

fn import() -> Request {
    Request::Import { table: "t".into(), options: WriteOptions::default() }
}

fn batch(from: u64, rows: u64) -> Bytes {
    let mut batch = RowsBuilder::new();
    for row in from..from + rows {
        batch.push(Uid::ZERO, &row.to_be_bytes(), &[7; 100]).unwrap();
    }
    batch.take()
}

#[tokio::test]
async fn requests_are_answered_and_errors_keep_their_words() {
    let site = Site::new(Store::default());
    let client = site.client(&[Role::Client]).await;
    assert_eq!(client.call(Request::Ping).await.unwrap(), Response::Done);
    let large = Bytes::from(vec![9; 5 << 20]);
    client.call(put(b"k", large.clone())).await.unwrap();
    assert_eq!(client.call(get(b"k")).await.unwrap(), Response::Row(Some((Uid::new(1), large))));
    assert_eq!(client.call(get(b"x")).await.unwrap(), Response::Row(None));
    let error = client.call(Request::TableList).await.unwrap_err();
    assert_eq!((error.code(), error.to_string().as_str()), ("unknown_table", "there is no such table"));
    let status = client.clone().with_database("shop").call(Request::Status).await.unwrap();
    assert!(matches!(status, Response::Status(status) if status.node == "shop"));
    client.close().await;
    site.server.shutdown(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn what_takes_the_role_control_is_refused_to_a_client() {
    let site = Site::new(Store::default());
    let request = Request::CloneCreate(CloneSpec::default());
    let error = site.client(&[Role::Client]).await.call(request.clone()).await.unwrap_err();
    assert_eq!(error.code(), "role_refused");
    let error = site.client(&[Role::Control]).await.call(request).await.unwrap_err();
    assert_eq!(error.code(), "unknown_table", "it came as far as the handler");
}

#[tokio::test]
async fn a_call_that_panics_is_an_error_of_that_call_alone() {
    let site = Site::new(Store::default());
    let client = site.client(&[Role::Client]).await;
    let error = client.call(Request::TableDrop { name: "t".into() }).await.unwrap_err();
    assert_eq!(error.code(), "internal");
    client.call(Request::Ping).await.unwrap();
}

#[tokio::test]
async fn rows_go_in_and_come_out_in_batches() {
    let site = Site::new(Store::default());
    let client = site.client(&[Role::Client]).await;
    let mut rows = client.import(import()).await.unwrap();
    for part in 0..100 {
        rows.send(batch(part * 1_000, 1_000)).await.unwrap();
    }
    assert!(rows.acked().batches > 0);
    let imported = rows.finish().await.unwrap();
    assert_eq!(imported, Response::Imported { uid: Uid::new(2), epoch: Epoch::NONE, rows: 100_000 });
    let mut stream = client.stream(scan("t")).await.unwrap();
    let mut next = 0_u64;
    while let Some(rows) = stream.next().await.unwrap() {
        for row in rows {
            assert_eq!(row.key, next.to_be_bytes()[..]);
            next += 1;
        }
    }
    let scanned = Response::Scanned { at: Uid::new(1), rows: 100_000, next_key: None };
    assert_eq!((next, stream.summary()), (100_000, Some(&scanned)));
}

#[tokio::test]
async fn an_import_that_the_node_gives_up_ends_with_the_reason() {
    let site = Site::new(Store::default());
    let client = site.client(&[Role::Client]).await;
    let mut rows = client.import(import()).await.unwrap();
    let mut bad = RowsBuilder::new();
    bad.push(Uid::ZERO, b"", b"").unwrap();
    rows.send(bad.take()).await.unwrap();
    let error = loop {
        if let Err(error) = rows.send(batch(0, 1_000)).await {
            break error;
        }
    };
    assert_eq!(error.code(), "schema");
}

#[tokio::test]
async fn who_goes_away_cancels_its_call() {
    let (events, mut told) = mpsc::channel(8);
    let site = Site::new(Store { events: Some(events), ..Store::default() });
    let client = site.client(&[Role::Client]).await;
    let stream = client.stream(scan("endless")).await.unwrap();
    // A call that is given up before it runs is not run at all.
    assert_eq!(told.recv().await, Some("scan runs"));
    drop(stream);
    assert_eq!(told.recv().await, Some("scan cancelled"));
    let mut rows = client.import(import()).await.unwrap();
    rows.send(batch(0, 10)).await.unwrap();
    assert_eq!(told.recv().await, Some("import runs"));
    drop(rows);
    assert_eq!(told.recv().await, Some("import cancelled"));
    let stream = site.client(&[Role::Client]).await.stream(scan("endless")).await.unwrap();
    assert_eq!(told.recv().await, Some("scan runs"));
    drop(stream);
    assert_eq!(told.recv().await, Some("scan cancelled"));
}

#[tokio::test]
async fn a_shutdown_lets_calls_end_and_refuses_new_ones() {
    let (events, mut told) = mpsc::channel(8);
    let store = Store { events: Some(events), ..Store::default() };
    let go_on = Arc::clone(&store.go_on);
    let site = Site::new(store);
    let client = site.client(&[Role::Client]).await;
    let replica = Endpoint::client(
        site.address,
        &credentials(&site.authority, &[Role::Replica]),
        &Transport::default(),
    );
    let replica = replica.unwrap();
    let session = replica.connect(site.address, NODE_NAME, Service::Replica).await.unwrap();
    let session = ReplicaSession::over(session).unwrap();
    let running = tokio::spawn({
        let client = client.clone();
        async move { client.call(Request::Verify).await }
    });
    assert_eq!(told.recv().await, Some("verify runs"));
    let shutdown = tokio::spawn(site.server.shutdown(Duration::from_secs(30)));
    // While the call runs the replica still answers.
    session.send(Bytes::from_static(b"ack")).await.unwrap();
    assert_eq!(session.receive().await.unwrap().unwrap(), &b"ack"[..]);
    go_on.notify_one();
    assert_eq!(running.await.unwrap().unwrap(), Response::Done);
    shutdown.await.unwrap();
    assert_eq!(client.call(Request::Ping).await.unwrap_err().code(), "shutting_down");
    assert_eq!(session.closed().await.code(), "shutting_down");
}

#[tokio::test]
async fn an_oversized_or_damaged_frame_costs_its_stream_alone() {
    let site = Site::new(Store::default());
    let guest =
        Endpoint::client(site.address, &credentials(&site.authority, &[Role::Client]), &Transport::default());
    let guest = guest.unwrap();
    let connection = guest.connect(site.address, NODE_NAME, Service::Client).await.unwrap();
    let mut oversized = BytesMut::new();
    oversized.put_slice(&[0xB1, FrameKind::Request as u8, 0, 0]);
    oversized.put_u32_le(u32::MAX);
    oversized.put_u32_le(0);
    let [header, body] = Frame::new(FrameKind::Request, vec![1; 100]).encode().unwrap();
    let damaged = [&header[..], &body[1..], &[0]].concat();
    for (bytes, words) in [
        (oversized.freeze(), "4294967295 bytes"),
        (Bytes::from(damaged), "checksum"),
        (Bytes::from_static(b"GET / HTTP/1.1\r\n\r\n"), "0x47"),
    ] {
        let (mut writer, mut reader) = connection.open().await.unwrap();
        writer.write_chunks(&mut [bytes]).await.unwrap();
        let frame = reader.expect(FrameKind::Error, "an error").await.unwrap();
        let error: RemoteError = frame.message().unwrap();
        assert_eq!(error.code, "protocol");
        assert!(error.what.contains(words), "{error}");
    }
    let (mut writer, mut reader) = connection.open().await.unwrap();
    let call = Call { database: None, request: Request::Ping };
    writer.write(Frame::of(FrameKind::Request, &call).unwrap()).await.unwrap();
    reader.expect(FrameKind::Response, "an answer").await.unwrap();
}

#[tokio::test]
async fn garbage_on_the_port_is_dropped() {
    let site = Site::new(Store::default());
    let socket = UdpSocket::bind(LOOPBACK).unwrap();
    let mut state = 0x0bad_cafe_u64;
    for length in 0..1_500 {
        let mut bytes = vec![0; length];
        for byte in &mut bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
        if let (true, Some(first)) = (length % 2 == 0, bytes.first_mut()) {
            // What looks like the first packet of a connection goes further.
            *first |= 0xc0;
        }
        socket.send_to(&bytes, site.address).unwrap();
    }
    let client = site.client(&[Role::Client]).await;
    client.call(Request::Ping).await.unwrap();
}
