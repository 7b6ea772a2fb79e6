use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use planaria_engine::Database;

use super::leadership::Leadership;
use crate::output::CliError;

/// How often a node looks at what time asks for.
const EVERY: Duration = Duration::from_secs(1);
/// How many looks lie between two at the quarantine.
const LOOKS_AT_QUARANTINE: u32 = 600;

/// A thread that has a node do what time asks for, until it is dropped.
pub(super) struct Watch {
    /// Dropping it ends the thread.
    stop: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn start(leadership: Arc<Leadership>) -> Result<Self, CliError> {
        let (stop, stopped) = sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("planaria-watch".into())
            .spawn(move || watch(&leadership, &stopped))
            .map_err(|error| CliError::new("io", format!("cannot start a thread: {error}")))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

fn watch(leadership: &Leadership, stopped: &Receiver<()>) {
    let (mut looks, mut damage) = (0, None);
    loop {
        tell_damage(&leadership.slot.get(), &mut damage);
        if looks % LOOKS_AT_QUARANTINE == 0 {
            tend_quarantine(&leadership.slot.get());
        }
        looks = looks.wrapping_add(1);
        if stopped.recv_timeout(EVERY) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        leadership.watch();
    }
}

/// Says that damage was met, once.
fn tell_damage(db: &Database, told: &mut Option<String>) {
    let met = db.damage();
    if let Some(what) = met.as_ref().filter(|_| met != *told) {
        tracing::error!("damage was met, replace this copy by a clone of another one: {what}");
    }
    *told = met;
}

/// Removes extracts in time, and warns of it before.
fn tend_quarantine(db: &Database) {
    match db.tend_quarantine() {
        Ok(tended) => {
            for what in tended.removed.into_iter().chain(tended.expiring) {
                tracing::warn!("quarantine: {what}");
            }
        }
        Err(error) => tracing::warn!(%error, "the quarantine could not be looked at"),
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}
