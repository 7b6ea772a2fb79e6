//! Clones that a copy gives away: the files of a cut, over the connection on which it was asked for and over more that whoever
//! takes it opens for a part of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;
use planaria_engine::{CloneRecord, FilePin};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::outgoing::OutgoingClone;
use super::{Primary, clone, encode};
use crate::quic::Peer;
use crate::quic::session::ReplicaSession;
use crate::wire::limits::CLONE_CONNECTIONS_MAX;
use crate::wire::message::RemoteError;
use crate::{Error, Result};

/// The clones that are being given away now.
#[derive(Default)]
pub(super) struct Givings(Mutex<Vec<Weak<Giving>>>);

/// One of them.
pub(super) struct Giving {
    pub(super) pin: FilePin,
    pub(super) outgoing: OutgoingClone,
    /// As what it is noted.
    name: &'static str,
    /// The BLAKE3 hash of its list of files, by which further connections name it.
    list: [u8; 32],
    /// Who takes it.
    certificate: [u8; 32],
    connections: Arc<Semaphore>,
    is_noted: AtomicBool,
}

/// What one connection gives of a clone.
pub(super) struct Part {
    giving: Arc<Giving>,
    _place: OwnedSemaphorePermit,
}

impl Giving {
    pub(super) fn new(
        pin: FilePin,
        outgoing: OutgoingClone,
        peer: &Peer,
        list: &[u8],
        name: &'static str,
    ) -> Self {
        Self {
            pin,
            outgoing,
            name,
            list: *blake3::hash(list).as_bytes(),
            certificate: peer.certificate,
            connections: Arc::new(Semaphore::new(CLONE_CONNECTIONS_MAX.into())),
            is_noted: AtomicBool::new(false),
        }
    }

    /// A place for one connection more; none if it has as many as it gets.
    fn part(self: Arc<Self>) -> Option<Part> {
        let place = Arc::clone(&self.connections).try_acquire_owned().ok()?;
        Some(Part { giving: self, _place: place })
    }
}

impl Givings {
    /// Lists a clone, so that it may be joined.
    fn begin(&self, giving: Giving) -> Option<Part> {
        let giving = Arc::new(giving);
        let mut listed = self.0.lock();
        listed.retain(|known| known.strong_count() > 0);
        listed.push(Arc::downgrade(&giving));
        giving.part()
    }

    /// A part of the clone with this list that is being given to `peer`. Of several, which have the same files, that with the
    /// fewest connections.
    fn join(&self, list: [u8; 32], peer: &Peer) -> Result<Part> {
        let known: Vec<Arc<Giving>> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        let of_peer = known
            .into_iter()
            .filter(|giving| (giving.list, giving.certificate) == (list, peer.certificate))
            .max_by_key(|giving| giving.connections.available_permits());
        let giving = of_peer.ok_or_else(|| {
            Error::Protocol("no clone with this list of files is being given to this peer".into())
        })?;
        giving.part().ok_or_else(|| {
            Error::Protocol(format!("a clone gets at most {CLONE_CONNECTIONS_MAX} connections"))
        })
    }
}

impl Primary {
    /// Gives a cut away, or tells with its code why the store cannot give it: whoever asks knows then whether asking again helps.
    pub(super) fn give(
        &self,
        session: &ReplicaSession,
        runtime: &Handle,
        pin: Result<FilePin>,
        name: &'static str,
    ) -> Result<()> {
        match pin {
            Ok(pin) => self.serve_clone(session, runtime, pin, name),
            Err(Error::Engine(error)) => {
                let refusal = RemoteError::new(error.code(), error.to_string());
                runtime.block_on(clone::refuse(session, refusal))
            }
            Err(error) => Err(error),
        }
    }

    /// Gives pinned files away, and notes it where that can be written down once the target has them.
    fn serve_clone(
        &self,
        session: &ReplicaSession,
        runtime: &Handle,
        pin: FilePin,
        name: &'static str,
    ) -> Result<()> {
        let list: Bytes = encode(pin.list())?;
        let outgoing = self.outgoing.begin(session.peer().address, pin.list());
        let giving = Giving::new(pin, outgoing, session.peer(), &list, name);
        let part = self.givings.begin(giving).ok_or(Error::Closed)?;
        runtime.block_on(clone::send_list(session, list))?;
        self.serve_part(session, runtime, &part)
    }

    /// Gives what a further connection asks for of a clone that is being given away.
    pub(super) fn serve_more(
        &self,
        session: &ReplicaSession,
        runtime: &Handle,
        list: [u8; 32],
    ) -> Result<()> {
        let part = self.givings.join(list, session.peer())?;
        self.serve_part(session, runtime, &part)
    }

    fn serve_part(&self, session: &ReplicaSession, runtime: &Handle, part: &Part) -> Result<()> {
        let giving = &part.giving;
        let is_taken = runtime.block_on(clone::serve_files(session, giving, clone::IDLE_MAX))?;
        // Each of its connections hears that the clone is complete.
        if !is_taken || self.is_feeding() || giving.is_noted.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        self.db.record_clone(&CloneRecord {
            name: giving.name.to_owned(),
            target: session.peer().address.to_string(),
            role: None,
            source: self.db.instance(),
            cut: giving.pin.list().position.uid,
            bytes: giving.pin.list().bytes(),
            created_ms: self.db.now_millis(),
        })?;
        Ok(())
    }
}
