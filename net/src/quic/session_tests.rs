use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use planaria_engine::os::AlignedBuffer;
use planaria_types::FileId;

use super::{BulkSender, Opened, PATIENCE, QUEUE_BYTES_MAX, ReplicaSession};
use crate::quic::{
    AcceptLimits, CertAuthority, CloseCode, Credentials, Endpoint, NODE_NAME, Origin, Roles, Service,
    Transport,
};
use crate::wire::message::RemoteError;
use crate::wire::replica::FileRequest;
use crate::{Error, Result};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// Two ends of a session; the endpoints must be kept.
async fn pair() -> (ReplicaSession, ReplicaSession, [Endpoint; 2]) {
    let authority = CertAuthority::create().unwrap();
    let issued = authority.issue("db1", Roles::ALL, Duration::from_hours(24)).unwrap();
    let all = Credentials::from_pem(
        Path::new("test"),
        authority.cert_pem(),
        &issued.cert_pem,
        &issued.key_pem,
        Origin::Named,
    )
    .unwrap();
    let node = Endpoint::server(LOOPBACK, &all, &Transport::default(), AcceptLimits::default()).unwrap();
    let guest = Endpoint::client(LOOPBACK, &all, &Transport::default()).unwrap();
    let (ours, theirs) =
        tokio::join!(guest.connect(node.local_address(), NODE_NAME, Service::Replica), async {
            node.accept().await.unwrap().establish().await
        });
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    (ReplicaSession::over(ours).unwrap(), ReplicaSession::over(theirs).unwrap(), [node, guest])
}

/// The bytes of a file of any size: each differs from its neighbours, and from those a chunk away.
fn content(offset: u64, length: usize) -> Bytes {
    let mut bytes = Vec::with_capacity(length + 8);
    let mut block = offset / 8;
    while bytes.len() < length {
        bytes.extend_from_slice(&block.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
        block += 1;
    }
    bytes.truncate(length);
    Bytes::from(bytes)
}

async fn fetch_all(session: &ReplicaSession, request: FileRequest) -> Result<u64> {
    let mut file = session.fetch(request).await?;
    let (mut bytes, mut data) = (0, AlignedBuffer::new(1 << 20));
    while let Some(offset) = file.next(&mut data).await? {
        assert_eq!(offset, request.offset + bytes);
        assert!(data[..] == content(offset, data.len())[..], "at {offset}");
        bytes += data.len() as u64;
    }
    Ok(bytes)
}

#[tokio::test]
async fn control_messages_keep_their_order_and_end_when_the_session_does() {
    let (ours, theirs, _endpoints) = pair().await;
    let send = async {
        for number in 0..10_000_u32 {
            ours.send(Bytes::copy_from_slice(&number.to_le_bytes())).await.unwrap();
        }
    };
    let receive = async {
        for number in 0..10_000_u32 {
            assert_eq!(theirs.receive().await.unwrap().unwrap(), number.to_le_bytes()[..]);
        }
    };
    tokio::join!(send, receive);
    assert!(ReplicaSession::over(ours.connection().clone()).is_err(), "a connection has one session");
    ours.close(CloseCode::Done, "enough");
    let error = theirs.receive().await.unwrap_err();
    assert!(matches!(&error, Error::Refused { code: "closed", why, .. } if why == "enough"), "{error}");
    theirs.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quarter_of_a_gibibyte_arrives_as_it_was_while_control_goes_on() {
    const LENGTH: u64 = 256 << 20;
    let (ours, theirs, _endpoints) = pair().await;
    let source = theirs.clone();
    let serving = tokio::spawn(async move {
        while let Ok(opened) = source.accept().await {
            let Opened::File(_, sender) = opened else { panic!("a file was asked for") };
            tokio::spawn(sender.serve(|offset, length| Ok(content(offset, length))));
        }
    });
    let echo = tokio::spawn(async move {
        while let Ok(Some(message)) = theirs.receive().await {
            theirs.send(message).await.unwrap();
        }
    });
    let part =
        |part: u64| FileRequest { lease: 1, file: FileId(7), offset: part * LENGTH / 2, length: LENGTH / 2 };
    let chat = async {
        for number in 0..100_u32 {
            ours.send(Bytes::copy_from_slice(&number.to_le_bytes())).await.unwrap();
            assert_eq!(ours.receive().await.unwrap().unwrap(), number.to_le_bytes()[..]);
        }
    };
    let (first, second, ()) = tokio::join!(fetch_all(&ours, part(0)), fetch_all(&ours, part(1)), chat);
    assert_eq!(first.unwrap() + second.unwrap(), LENGTH);
    ours.close(CloseCode::Done, "");
    serving.await.unwrap();
    echo.await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_short_or_cannot_be_read_is_never_complete() {
    let (ours, theirs, _endpoints) = pair().await;
    let request = FileRequest { lease: 0, file: FileId(1), offset: 5, length: 3 << 20 };
    let serve = async {
        let Ok(Opened::File(got, mut sender)) = theirs.accept().await else { panic!() };
        assert_eq!(got, request);
        assert!(sender.send(Bytes::from(vec![0; 4 << 20])).await.is_err(), "more than a chunk");
        sender.send(content(5, 1 << 20)).await.unwrap();
        assert!(sender.finish().await.is_err(), "bytes remain");
        let Ok(Opened::File(_, sender)) = theirs.accept().await else { panic!() };
        let damaged = |_, _| Err(RemoteError::new("damaged", "file 1 is damaged"));
        assert_eq!(sender.serve(damaged).await.unwrap_err().code(), "damaged");
    };
    let fetch = async {
        assert!(matches!(fetch_all(&ours, request).await, Err(Error::Ended(_))));
        assert_eq!(fetch_all(&ours, request).await.unwrap_err().code(), "damaged");
    };
    tokio::join!(serve, fetch);
}

#[tokio::test]
async fn who_stops_fetching_stops_the_reading() {
    let (ours, theirs, _endpoints) = pair().await;
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    let mut file =
        ours.fetch(FileRequest { lease: 0, file: FileId(1), offset: 0, length: 1 << 40 }).await.unwrap();
    let Ok(Opened::File(_, sender)) = theirs.accept().await else { panic!() };
    let serving = tokio::spawn(sender.serve(move |offset, length| {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(content(offset, length))
    }));
    file.next(&mut AlignedBuffer::new(1 << 20)).await.unwrap().unwrap();
    drop(file);
    assert_eq!(serving.await.unwrap().unwrap_err().code(), "ended");
    assert!(reads.load(Ordering::Relaxed) < 1_000);
}

#[tokio::test]
async fn a_bulk_stream_that_breaks_off_is_not_complete() {
    let (ours, theirs, _endpoints) = pair().await;
    for complete in [true, false] {
        let mut bulk = ours.open_bulk(Bytes::from_static(b"delta")).await.unwrap();
        bulk.send(Bytes::from_static(b"one")).await.unwrap();
        let Ok(Opened::Bulk(head, mut receiver)) = theirs.accept().await else { panic!() };
        assert_eq!(head, &b"delta"[..]);
        assert_eq!(receiver.next().await.unwrap().unwrap(), &b"one"[..]);
        if complete {
            bulk.finish().await.unwrap();
            assert_eq!(receiver.next().await.unwrap(), None);
            assert_eq!(receiver.next().await.unwrap(), None);
        } else {
            drop(bulk);
            assert_eq!(receiver.next().await.unwrap_err().code(), "ended");
        }
    }
}

#[tokio::test]
async fn who_takes_nothing_of_a_stream_for_too_long_is_given_up() {
    let (ours, theirs, _endpoints) = pair().await;
    let message = Bytes::from(vec![0; 1 << 20]);
    let bulk = ours.open_bulk(Bytes::from_static(b"delta")).await.unwrap();
    let mut bulk = BulkSender(bulk.0.with_patience(PATIENCE / 1_000));
    let Ok(Opened::Bulk(_, mut receiver)) = theirs.accept().await else { panic!() };
    // As much as the windows hold goes out.
    let given_up = loop {
        if let Err(error) = bulk.send(message.clone()).await {
            break error;
        }
    };
    assert!(given_up.is_away() && given_up.to_string().contains("took nothing"), "{given_up}");
    drop(bulk);
    let ended = loop {
        match receiver.next().await {
            Ok(message) => assert!(message.is_some(), "it was complete"),
            Err(error) => break error,
        }
    };
    assert_eq!(ended.code(), "ended");
}

#[tokio::test]
async fn a_peer_that_does_not_read_fills_a_bounded_queue_and_blocks_nobody() {
    let (ours, theirs, _endpoints) = pair().await;
    let message = Bytes::from(vec![0; 1 << 20]);
    let mut queued = 0;
    loop {
        while ours.try_send(message.clone()).unwrap() {
            queued += message.len();
        }
        // Whatever the windows take moves on; what remains is full for good.
        if tokio::time::timeout(Duration::from_millis(300), ours.send(message.clone())).await.is_err() {
            break;
        }
        queued += message.len();
    }
    let windows = Transport::default();
    let most =
        QUEUE_BYTES_MAX + (windows.stream_window_bytes + windows.send_window_bytes) as usize + (2 << 20);
    assert!(queued <= most, "{queued} bytes are held");
    theirs.close(CloseCode::Done, "too slow");
    ours.closed().await;
    assert!(ours.send(message).await.is_err());
}
