use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use super::{NODE_CERT, NODE_KEY, Origin, TlsStore};
use crate::quic::{CertAuthority, Issued, NODE_NAME, Role, Roles};

const DAY: Duration = Duration::from_secs(86_400);

#[test]
fn a_store_is_made_once_and_only_its_owner_may_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = TlsStore::named(dir.path().join("a/tls"));
    let first = store.load_or_create().unwrap();
    let cert = std::fs::read(store.dir().join(NODE_CERT)).unwrap();
    let second = store.load_or_create().unwrap();
    assert_eq!(cert, std::fs::read(store.dir().join(NODE_CERT)).unwrap());
    assert_eq!((first.name(), first.roles()), (NODE_NAME, Roles::ALL));
    assert_eq!(second.roles(), Roles::ALL);
    assert_eq!(
        std::fs::metadata(store.dir()).unwrap().permissions().mode() & 0o777,
        0o700
    );
    for file in std::fs::read_dir(store.dir()).unwrap() {
        assert_eq!(
            file.unwrap().metadata().unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    assert_eq!(
        std::fs::read_dir(dir.path().join("a")).unwrap().count(),
        1,
        "nothing partial is left"
    );
}

#[test]
fn who_comes_second_takes_the_store_of_who_came_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = TlsStore::named(dir.path().join("tls"));
    store.create().unwrap();
    let cert = std::fs::read(store.dir().join(NODE_CERT)).unwrap();
    store.create().unwrap();
    assert_eq!(cert, std::fs::read(store.dir().join(NODE_CERT)).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = TlsStore::named(dir.path().join("tls"));
    store.create().unwrap();
    let key = store.dir().join(NODE_KEY);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    let error = store.load().unwrap_err();
    assert_eq!(error.code(), "certificate");
    assert!(error.to_string().contains("640"), "{error}");
}

fn member(authority: &CertAuthority, from: Duration, to: Duration) -> Issued {
    let key = rcgen::KeyPair::generate().unwrap();
    authority
        .issue_between(&key, "db1", Roles::of(&[Role::Node, Role::Replica]), [from, to])
        .unwrap()
}

#[test]
fn an_expired_certificate_without_its_authority_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let store = TlsStore::named(dir.path().join("tls"));
    let authority = CertAuthority::create().unwrap();
    store
        .create_member(&authority, &member(&authority, DAY, 2 * DAY))
        .unwrap();
    let error = store.load_or_create().unwrap_err();
    assert!(error.to_string().contains("has expired"), "{error}");
    assert!(store.authority().is_err(), "a member has no key to issue with");
}

#[test]
fn a_certificate_that_ends_soon_is_renewed_with_its_name_and_roles() {
    let dir = tempfile::tempdir().unwrap();
    let store = TlsStore::named(dir.path().join("tls"));
    let authority = CertAuthority::create().unwrap();
    let issued = member(&authority, DAY, 2 * DAY);
    store.create_with(&authority, &issued, true).unwrap();
    let renewed = store.load_or_create().unwrap();
    assert_eq!(
        (renewed.name(), renewed.roles()),
        ("db1", Roles::of(&[Role::Node, Role::Replica]))
    );
    store.load().unwrap();
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = TlsStore::named(dir.path().join("tls"));
    let other = CertAuthority::create()
        .unwrap()
        .issue("db1", Roles::ALL, DAY)
        .unwrap();
    store
        .create_member(&CertAuthority::create().unwrap(), &other)
        .unwrap();
    let error = store.load().unwrap_err();
    assert!(error.to_string().contains("not issued by"), "{error}");
}

#[test]
fn the_store_of_the_user_is_found_by_the_environment() {
    let of = |set: &'static [(&'static str, &'static str)]| {
        TlsStore::from_environment(move |name| {
            set.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| PathBuf::from(value))
        })
    };
    let store = of(&[("HOME", "/home/me")]).unwrap();
    assert_eq!(store.dir(), "/home/me/.local/share/planaria/tls");
    assert_eq!(store.origin, Origin::Automatic);
    let store = of(&[("HOME", "/home/me"), ("XDG_DATA_HOME", "/data")]).unwrap();
    assert_eq!(store.dir(), "/data/planaria/tls");
    let store = of(&[("HOME", "/home/me"), ("PLANARIA_TLS", "/etc/planaria")]).unwrap();
    assert_eq!(
        (store.dir(), store.origin),
        ("/etc/planaria".as_ref(), Origin::Named)
    );
    assert_eq!(of(&[]).unwrap_err().code(), "certificate");
}
