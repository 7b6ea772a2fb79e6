//! Who is refused, and what both sides get to hear.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::quic::{
    AcceptLimits, CertAuthority, Connection, Credentials, Endpoint, NODE_NAME, Origin, Role, Roles, Service,
    Transport,
};

const DAY: Duration = Duration::from_hours(24);
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

fn authority() -> CertAuthority {
    CertAuthority::create().unwrap()
}

fn credentials(
    authority: &CertAuthority,
    name: &str,
    roles: &[Role],
    between: Option<[Duration; 2]>,
) -> Credentials {
    let issued = match between {
        None => authority.issue(name, Roles::of(roles), DAY).unwrap(),
        Some(between) => {
            let key = rcgen::KeyPair::generate().unwrap();
            authority.issue_between(&key, name, Roles::of(roles), between).unwrap()
        }
    };
    Credentials::from_pem(
        Path::new("test"),
        authority.cert_pem(),
        &issued.cert_pem,
        &issued.key_pem,
        Origin::Named,
    )
    .unwrap()
}

fn node(credentials: &Credentials, limits: AcceptLimits) -> Endpoint {
    Endpoint::server(LOOPBACK, credentials, &Transport::default(), limits).unwrap()
}

fn guest(credentials: &Credentials) -> Endpoint {
    Endpoint::client(LOOPBACK, credentials, &Transport::default()).unwrap()
}

/// Connects, and returns what either side has to say: the guest first.
async fn meet(
    node: &Endpoint,
    guest: &Endpoint,
    name: &str,
    service: Service,
) -> (Result<Connection, Error>, Result<Connection, Error>) {
    let accept = async { node.accept().await.unwrap().establish().await };
    tokio::join!(guest.connect(node.local_address(), name, service), accept)
}

fn fails(outcome: Result<Connection, Error>) -> (String, String) {
    let error = outcome.unwrap_err();
    (error.code().to_owned(), error.to_string())
}

#[tokio::test]
async fn who_has_the_role_is_known_by_name_on_both_sides() {
    let authority = authority();
    let node = node(&credentials(&authority, "db1", &[Role::Node], None), AcceptLimits::default());
    let guest = guest(&credentials(&authority, "db2", &[Role::Replica], None));
    let (ours, theirs) = meet(&node, &guest, NODE_NAME, Service::Replica).await;
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    assert_eq!((ours.peer().name.as_str(), theirs.peer().name.as_str()), ("db1", "db2"));
    assert_eq!((ours.agreed(), theirs.service()), (Some((1, 0)), Service::Replica));
    assert!(theirs.peer().has(Role::Replica) && !theirs.peer().has(Role::Client));
}

#[tokio::test]
async fn a_stranger_without_a_certificate_is_told_that_one_is_needed() {
    let authority = authority();
    let whole = credentials(&authority, "db1", &[Role::Node, Role::Client], None);
    let (node, guest) = (node(&whole, AcceptLimits::default()), guest(&whole));
    let config = whole.client_config_without_certificate(Service::Client).unwrap();
    let config = quinn::ClientConfig::new(Arc::new(config));
    let (ours, theirs) =
        tokio::join!(guest.connect_with(config, node.local_address(), NODE_NAME, Service::Client), async {
            node.accept().await.unwrap().establish().await
        });
    let (code, text) = fails(ours);
    assert_eq!(code, "handshake");
    assert!(text.contains("wants a certificate and got none"), "{text}");
    assert_eq!(fails(theirs).0, "handshake");
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_either_side() {
    let (one, other) = (authority(), authority());
    let node = node(&credentials(&one, "db1", &[Role::Node], None), AcceptLimits::default());
    // The guest trusts another authority, so that it refuses the node first.
    let (ours, theirs) =
        meet(&node, &guest(&credentials(&other, "me", &[Role::Client], None)), NODE_NAME, Service::Client)
            .await;
    let (code, text) = fails(ours);
    assert_eq!(code, "handshake");
    assert!(text.contains("UnknownIssuer") && text.contains("one authority"), "{text}");
    let (code, text) = fails(theirs);
    assert_eq!(code, "handshake");
    assert!(text.contains("does not know the authority"), "{text}");
    // The guest trusts the node's authority, and shows a certificate of another.
    let issued = other.issue("me", Roles::ALL, DAY).unwrap();
    let mixed = Credentials::from_pem(
        Path::new("x"),
        one.cert_pem(),
        &issued.cert_pem,
        &issued.key_pem,
        Origin::Named,
    );
    let (ours, theirs) = meet(&node, &guest(&mixed.unwrap()), NODE_NAME, Service::Client).await;
    let (code, text) = fails(ours);
    assert_eq!(code, "handshake");
    assert!(text.contains("does not know the authority of our certificate"), "{text}");
    assert_eq!(fails(theirs).0, "handshake");
}

#[tokio::test]
async fn an_expired_certificate_is_refused_and_called_so() {
    let authority = authority();
    let node = node(&credentials(&authority, "db1", &[Role::Node], None), AcceptLimits::default());
    let old = credentials(&authority, "me", &[Role::Client], Some([DAY, 2 * DAY]));
    let (ours, theirs) = meet(&node, &guest(&old), NODE_NAME, Service::Client).await;
    let (code, text) = fails(ours);
    assert_eq!(code, "handshake");
    assert!(text.contains("finds our certificate expired"), "{text}");
    assert_eq!(fails(theirs).0, "handshake");
}

#[tokio::test]
async fn a_role_that_the_service_does_not_admit_is_refused_by_name() {
    let authority = authority();
    let node = node(&credentials(&authority, "db1", &[Role::Node], None), AcceptLimits::default());
    let client = credentials(&authority, "me", &[Role::Client], None);
    for outcome in <[_; 2]>::from(meet(&node, &guest(&client), NODE_NAME, Service::Replica).await) {
        let (code, text) = fails(outcome);
        assert_eq!(code, "role_refused");
        assert!(text.contains("\"me\" has client") && text.contains("takes the role replica"), "{text}");
    }
}

#[tokio::test]
async fn a_client_cannot_pass_for_a_node() {
    let authority = authority();
    let node = node(&credentials(&authority, NODE_NAME, &[Role::Client], None), AcceptLimits::default());
    let guest = guest(&credentials(&authority, "me", &[Role::Client], None));
    let (ours, _) = meet(&node, &guest, NODE_NAME, Service::Client).await;
    assert_eq!(fails(ours).0, "handshake");
}

#[tokio::test]
async fn a_node_answers_to_its_own_name_and_to_no_other() {
    let authority = authority();
    let node = node(&credentials(&authority, "db1", &[Role::Node], None), AcceptLimits::default());
    let guest = guest(&credentials(&authority, "me", &[Role::Client], None));
    meet(&node, &guest, "db1", Service::Client).await.0.unwrap();
    assert_eq!(fails(meet(&node, &guest, "db2", Service::Client).await.0).0, "handshake");
}

#[tokio::test]
async fn connections_of_one_peer_have_a_limit_and_give_their_place_back() {
    let authority = authority();
    let limits = AcceptLimits { connections_per_peer_max: 1, ..AcceptLimits::default() };
    let node = node(&credentials(&authority, "db1", &[Role::Node], None), limits);
    let guest = guest(&credentials(&authority, "me", &[Role::Client], None));
    let first = meet(&node, &guest, NODE_NAME, Service::Client).await;
    let (ours, theirs) = meet(&node, &guest, NODE_NAME, Service::Client).await;
    assert_eq!((fails(ours).0, fails(theirs).0), ("busy".to_owned(), "busy".to_owned()));
    drop(first);
    meet(&node, &guest, NODE_NAME, Service::Client).await.0.unwrap();
}

#[tokio::test]
async fn certificates_nobody_asked_for_do_not_open_a_port_to_other_machines() {
    let authority = authority();
    let issued = authority.issue("db1", Roles::ALL, DAY).unwrap();
    let automatic = Credentials::from_pem(
        Path::new("test"),
        authority.cert_pem(),
        &issued.cert_pem,
        &issued.key_pem,
        Origin::Automatic,
    )
    .unwrap();
    let open = "0.0.0.0:0".parse().unwrap();
    let error =
        Endpoint::server(open, &automatic, &Transport::default(), AcceptLimits::default()).unwrap_err();
    assert_eq!(error.code(), "certificate");
    assert!(error.to_string().contains("--tls"), "{error}");
    node(&automatic, AcceptLimits::default());
}

#[tokio::test]
async fn large_packets_are_discovered_on_loopback() {
    let authority = authority();
    let all = credentials(&authority, "db1", &Role::ALL, None);
    let (node, guest) = (node(&all, AcceptLimits::default()), guest(&all));
    let (ours, theirs) = meet(&node, &guest, NODE_NAME, Service::Client).await;
    let (ours, theirs) = (ours.unwrap(), theirs.unwrap());
    let talk = async {
        while ours.mtu() < 8_900 {
            let (mut writer, _reader) = ours.open().await.unwrap();
            let body = vec![0; 1 << 20];
            writer.write(crate::wire::Frame::new(crate::wire::FrameKind::Bulk, body)).await.unwrap();
            writer.finish();
            writer.stopped().await;
        }
    };
    let listen = async {
        while let Ok((_, mut reader)) = theirs.accept().await {
            while let Ok(Some(_)) = reader.next().await {}
        }
    };
    tokio::select! { () = talk => {}, () = listen => {} }
    assert!(ours.mtu() <= Transport::default().mtu_max);
}
