use std::sync::Arc;
use std::thread::JoinHandle;

use planaria_engine::os::Os;

use super::executor::bulk::Places;

/// The removal of a copy that was replaced, on a thread of its own. It begins once the new copy is online: freeing its blocks keeps
/// the file system's journal busy, and with it every sync on the way there. Dropping this waits for the end.
pub(super) struct Removal {
    places: Places,
    os: Arc<dyn Os>,
    is_begun: bool,
    thread: Option<JoinHandle<()>>,
}

impl Removal {
    /// Is to remove what stayed behind of the copy that was replaced.
    pub(super) fn of(places: Places, os: Arc<dyn Os>) -> Self {
        Self { places, os, is_begun: false, thread: None }
    }

    /// Begins, unless it has begun.
    pub(super) fn begin(&mut self) {
        if std::mem::replace(&mut self.is_begun, true) {
            return;
        }
        let (places, os) = (self.places.clone(), Arc::clone(&self.os));
        let work = move || remove(&places, &*os);
        self.thread = std::thread::Builder::new().name("planaria-remove".into()).spawn(work).ok();
        if self.thread.is_none() {
            remove(&self.places, &*self.os);
        }
    }
}

/// What cannot be removed now is removed by the next start.
fn remove(places: &Places, os: &dyn Os) {
    if let Err(error) = places.discard(os) {
        tracing::warn!(%error, "the copy that was replaced cannot be removed: the next start tries again");
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        self.begin();
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}
