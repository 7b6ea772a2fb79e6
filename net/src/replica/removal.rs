use std::sync::Arc;
use std::thread::JoinHandle;

use planaria_engine::os::Os;

use super::executor::bulk::Places;

/// The removal of a copy that was replaced, on a thread of its own: nobody waits for it to come online again. Dropping this
/// waits for the end.
pub(super) struct Removal(Option<JoinHandle<()>>);

impl Removal {
    /// Removes what stayed behind of the copy that was replaced.
    pub(super) fn begin(places: &Places, os: &Arc<dyn Os>) -> Self {
        let (own, own_os) = (places.clone(), Arc::clone(os));
        // What cannot be removed now is removed by the next start.
        let remove = move || drop(own.discard(&*own_os));
        let thread = std::thread::Builder::new().name("planaria-remove".into()).spawn(remove);
        if thread.is_err() {
            let _ = places.discard(&**os);
        }
        Self(thread.ok())
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}
