//! Clones from sources that lie or are damaged, with real processes: what they give wrong is refused, and another source has it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use planaria_engine::{Database, FileKind, FilePin, Options};
use planaria_net::quic::session::{Opened, ReplicaSession};
use planaria_net::quic::{AcceptLimits, Endpoint, Peer, TlsStore, Transport};
use planaria_net::wire::message::{Call, RemoteError, Response};
use planaria_net::wire::rpc::{BoxFuture, Exchange, Handler, ServeLimits, Server, serve};
use planaria_tests::cluster::{Node, Site};
use tokio::runtime::Runtime;

use crate::clone_life::{bytes, check_equal, incompressible, load, show, take};

const ROWS: u64 = 20_000;

/// A source that gives the right list, and from the third chunk on others than it has listed.
struct Liar {
    pin: Arc<FilePin>,
    given: Arc<AtomicU64>,
}

impl Handler for Liar {
    fn call(&self, _: &Peer, _: Call, _: &mut Exchange) -> Result<Response, RemoteError> {
        Ok(Response::Done)
    }

    fn replica(&self, session: ReplicaSession) -> BoxFuture {
        let (pin, given) = (Arc::clone(&self.pin), Arc::clone(&self.given));
        Box::pin(async move {
            let list = postcard::to_stdvec(pin.list()).unwrap();
            let Ok(Some(_)) = session.receive().await else { return };
            let mut bulk = session.open_bulk(bytes::Bytes::new()).await.unwrap();
            bulk.send(list.into()).await.unwrap();
            bulk.finish().await.unwrap();
            while let Ok(Opened::File(request, sender)) = session.accept().await {
                let (pin, given) = (Arc::clone(&pin), Arc::clone(&given));
                tokio::spawn(sender.serve(move |offset, length| {
                    let (kind, number) = match request.file.0 {
                        log if log >> 63 > 0 => (FileKind::Log, log & !(1 << 63)),
                        run => (FileKind::Run, run),
                    };
                    let chunk = pin.read(kind, number, offset / planaria_engine::CLONE_CHUNK_BYTES);
                    let mut chunk =
                        chunk.map_err(|error| RemoteError::new("liar", error.to_string()))?.to_vec();
                    assert_eq!(chunk.len(), length);
                    if given.fetch_add(1, Ordering::Relaxed) >= 2 {
                        chunk[length / 3] ^= 0x20;
                    }
                    Ok(chunk.into())
                }));
            }
        })
    }
}

/// Listens with a lie about the database in a directory, under the certificates of the site.
fn lie(site: &Site, runtime: &Runtime, dir: &Path) -> Server {
    let credentials = TlsStore::named(site.path("home/planaria/tls")).load_or_create().unwrap();
    let db = Database::open_with(dir, Options { create: false, ..Options::default() }).unwrap();
    let liar = Liar { pin: Arc::new(db.pin_files().unwrap()), given: Arc::default() };
    runtime.block_on(async {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let (transport, limits) = (Transport::default(), AcceptLimits::default());
        let endpoint = Endpoint::server(address, &credentials, &transport, limits).unwrap();
        serve(endpoint, Arc::new(liar), ServeLimits::default())
    })
}

/// Waits until the clone has failed for a reason, and sees that nothing of it is there. Asking again would not help, so nobody waits for
/// the patience of ten minutes.
fn wait_for_failure(site: &Site, target: &Node<'_>, words: &str) {
    let error = target.run(&["clone", "wait", "copy"]).failed(1, "not_complete");
    assert!(error.to_string().contains(words), "{error}\n{}", target.log());
    assert_eq!(show(target)["state"], "failed");
    assert!(!site.path("copy").exists() && !site.path("copy.partial").exists());
}

#[test]
fn what_a_source_lies_about_is_refused_and_another_source_has_it() {
    let site = Site::new();
    let source = Node::primary(&site, "source");
    let target = Node::primary(&site, "target");
    load(&source, &incompressible(&site, ROWS), &[]);
    source.run(&["clone", "create", "twin"]).json();
    let runtime = Runtime::new().unwrap();
    let liar = lie(&site, &runtime, &site.path("twin"));
    let address = liar.local_address().to_string();
    // Alone it brings nothing to an end, and the clone says why.
    take(&site, &target, &[&address], &[]);
    wait_for_failure(&site, &target, "other bytes than it promised");

    take(&site, &target, &[&address, source.address()], &[]);
    let info = target.run(&["clone", "wait", "copy"]).json().remove(0);
    assert_eq!((&info["state"], &info["from"]), (&"complete".into(), &source.address().into()), "{info}");
    assert!(info["reasons"].to_string().contains("other bytes than it promised"), "{info}");
    check_equal(&site, &source);
    assert!(!site.path("copy.partial").exists());
    runtime.block_on(liar.shutdown(Duration::from_millis(100)));
}

/// The largest file of a folder.
fn largest(dir: &Path) -> PathBuf {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.max_by_key(|entry| entry.metadata().unwrap().len()).unwrap().path()
}

/// Flips a bit in the middle of the largest run of a database that nobody has open.
pub(crate) fn flip_a_bit(database: &Path) {
    let run = largest(&database.join("runs"));
    let mut content = std::fs::read(&run).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    // Another file under its name: a clone may have a link of the same one.
    std::fs::remove_file(&run).unwrap();
    std::fs::write(&run, content).unwrap();
}

#[test]
fn a_damaged_source_gives_nothing_that_is_damaged_and_another_source_has_it() {
    let site = Site::new();
    let mut source = Node::primary(&site, "source");
    let target = Node::primary(&site, "target");
    load(&source, &incompressible(&site, ROWS), &[]);
    source.run(&["clone", "create", "twin"]).json();
    let twin = Node::primary(&site, "twin");
    source.kill();
    flip_a_bit(&site.path("source"));
    source.start();

    take(&site, &target, &[source.address()], &[]);
    wait_for_failure(&site, &target, "hash");
    take(&site, &target, &[source.address(), twin.address()], &[]);
    let info = target.run(&["clone", "wait", "copy"]).json().remove(0);
    assert_eq!((&info["state"], &info["from"]), (&"complete".into(), &twin.address().into()), "{info}");
    assert!(info["reasons"].to_string().contains("hash"), "{info}");
    // What the damaged source had whole is not fetched twice.
    assert!(bytes(&info, "moved_bytes") < bytes(&info, "total_bytes") + (16 << 20), "{info}");
    check_equal(&site, &twin);
}
