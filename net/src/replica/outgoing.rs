//! The clones that are being taken of a copy, as its own side sees them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use planaria_engine::FileList;
use planaria_replication::Millis;
use planaria_types::Uid;

use super::clock::now;

/// The clones that go out now.
#[derive(Debug, Default)]
pub(super) struct Outgoing(Arc<Mutex<Listed>>);

#[derive(Debug, Default)]
struct Listed {
    next: u64,
    clones: BTreeMap<u64, Arc<Sent>>,
}

#[derive(Debug)]
struct Sent {
    peer: SocketAddr,
    cut: Uid,
    total_bytes: u64,
    bytes: AtomicU64,
    begun: Millis,
}

/// A clone that goes out, for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GoingOut {
    /// Who takes it.
    pub peer: SocketAddr,
    /// The state that is cloned.
    pub cut: Uid,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Bytes that were sent to it in this session; it may have the others already.
    pub sent_bytes: u64,
    /// Milliseconds since it began.
    pub elapsed_ms: u64,
}

/// A clone is listed for as long as this is there.
#[derive(Debug)]
pub(super) struct OutgoingClone {
    number: u64,
    sent: Arc<Sent>,
    listed: Arc<Mutex<Listed>>,
}

impl Outgoing {
    /// Lists a clone of these files.
    pub(super) fn begin(&self, peer: SocketAddr, list: &FileList) -> OutgoingClone {
        let sent = Arc::new(Sent {
            peer,
            cut: list.position.uid,
            total_bytes: list.bytes(),
            bytes: AtomicU64::new(0),
            begun: now(),
        });
        let mut listed = self.0.lock();
        let number = listed.next;
        listed.next += 1;
        listed.clones.insert(number, Arc::clone(&sent));
        OutgoingClone { number, sent, listed: Arc::clone(&self.0) }
    }

    /// Those that are listed, oldest first.
    pub(super) fn list(&self) -> Vec<GoingOut> {
        let listed = self.0.lock();
        let told = listed.clones.values().map(|sent| GoingOut {
            peer: sent.peer,
            cut: sent.cut,
            total_bytes: sent.total_bytes,
            sent_bytes: sent.bytes.load(Ordering::Relaxed),
            elapsed_ms: now().since(sent.begun).0,
        });
        told.collect()
    }
}

impl OutgoingClone {
    /// So many bytes more are sent.
    pub(super) fn count(&self, bytes: u64) {
        self.sent.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl Drop for OutgoingClone {
    fn drop(&mut self) {
        self.listed.lock().clones.remove(&self.number);
        let sent_bytes = self.sent.bytes.load(Ordering::Relaxed);
        let (peer, total_bytes) = (self.sent.peer, self.sent.total_bytes);
        tracing::info!(%peer, sent_bytes, total_bytes, "a clone goes out no more");
    }
}
