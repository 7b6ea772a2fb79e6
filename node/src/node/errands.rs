use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use planaria_net::wire::control::{Order, Outcome};
use planaria_net::wire::message::RemoteError;

use super::leadership::Leadership;
use super::{promotion, refresh};
use crate::output::CliError;

/// Orders that wait while one is carried out.
const WAITING_MAX: usize = 4;

/// A thread that does what the control center says, one thing after the other, while reports go on.
pub(super) struct Errands {
    /// Dropping it wakes the thread to its end.
    orders: Option<SyncSender<Order>>,
    /// Nothing that waits is begun any more.
    is_stopped: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    /// Jobs that were taken: each is told until its outcome has arrived, and done once.
    taken: BTreeSet<u64>,
    thread: Option<JoinHandle<()>>,
}

impl Errands {
    pub(super) fn start(leadership: Arc<Leadership>) -> Result<Self, CliError> {
        Self::start_with(move |order| carry_out(&leadership, order))
    }

    fn start_with(
        carry_out: impl Fn(&Order) -> Result<String, RemoteError> + Send + 'static,
    ) -> Result<Self, CliError> {
        let (orders, coming) = sync_channel(WAITING_MAX);
        let (outcomes, is_stopped) = (Arc::default(), Arc::default());
        let (done, stopped) = (Arc::clone(&outcomes), Arc::clone(&is_stopped));
        let thread = std::thread::Builder::new()
            .name("planaria-errands".into())
            .spawn(move || carry_out_all(carry_out, &coming, &stopped, &done))
            .map_err(|error| CliError::new("io", format!("cannot start a thread: {error}")))?;
        Ok(Self { orders: Some(orders), is_stopped, outcomes, taken: BTreeSet::new(), thread: Some(thread) })
    }

    /// Takes what has not been taken yet. What finds no room now is told again.
    pub(super) fn take(&mut self, orders: &[Order]) {
        for order in orders {
            let Some(job) = job_of(order) else { continue };
            let Some(waiting) = self.orders.as_ref().filter(|_| !self.taken.contains(&job)) else { continue };
            if waiting.try_send(order.clone()).is_ok() {
                self.taken.insert(job);
            }
        }
        // What is told no more has ended for good.
        let told: BTreeSet<u64> = orders.iter().filter_map(job_of).collect();
        let ended: BTreeSet<u64> = lock(&self.outcomes).iter().map(|outcome| outcome.job).collect();
        self.taken.retain(|job| told.contains(job) || ended.contains(job));
    }

    /// What has come to an end and was not told yet.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        lock(&self.outcomes).clone()
    }

    /// The control center knows of these.
    pub(super) fn told(&self, told: &[Outcome]) {
        lock(&self.outcomes).retain(|outcome| told.iter().all(|known| known.job != outcome.job));
    }
}

impl Errands {
    /// Has nothing begun any more: what waits is told again when the node is back, if it still holds then.
    fn stop(&mut self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        drop(self.orders.take());
    }
}

impl Drop for Errands {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

fn carry_out_all(
    carry_out: impl Fn(&Order) -> Result<String, RemoteError>,
    orders: &Receiver<Order>,
    is_stopped: &AtomicBool,
    outcomes: &Mutex<Vec<Outcome>>,
) {
    while let Ok(order) = orders.recv() {
        // A channel whose sender is gone still gives what it holds.
        if is_stopped.load(Ordering::SeqCst) {
            return;
        }
        let Some(job) = job_of(&order) else { continue };
        let outcome = match carry_out(&order) {
            Ok(what) => Outcome { job, code: String::new(), what },
            Err(error) => {
                tracing::warn!(job, code = error.code, what = %error, "an order of the control center was not carried out");
                Outcome { job, code: error.code.clone(), what: error.to_string() }
            }
        };
        lock(outcomes).push(outcome);
    }
}

/// Does what is ordered, if this copy is the one that is meant.
fn carry_out(leadership: &Leadership, order: &Order) -> Result<String, RemoteError> {
    let own = leadership.slot.get().instance();
    match *order {
        Order::Promote { instance, .. } | Order::Follow { instance, .. } | Order::Reseed { instance, .. }
            if instance != own =>
        {
            Err(RemoteError::new(
                "unknown_instance",
                format!("copy {instance} is not here any more, but {own}"),
            ))
        }
        Order::Promote { .. } => {
            let done = promotion::promote_without_loss(leadership)?;
            let epoch = done.epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
            Ok(format!("leads under {epoch}, which inherited {}", done.inherited))
        }
        Order::Follow { primary, epoch, .. } => {
            leadership.rejoin(primary, epoch)?;
            Ok(format!("follows {primary}"))
        }
        Order::Reseed { .. } => {
            let plan = refresh::refresh(leadership, false, Some("bulk"))?;
            Ok(format!("takes everything anew, about {} bytes", plan.bytes))
        }
        _ => Err(RemoteError::new("unsupported", "this release does not know that order")),
    }
}

fn job_of(order: &Order) -> Option<u64> {
    match order {
        Order::Promote { job, .. } | Order::Follow { job, .. } | Order::Reseed { job, .. } => Some(*job),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use planaria_types::InstanceId;

    use super::*;

    #[test]
    fn what_waits_when_a_node_stops_is_not_begun() {
        let (begun, begins) = sync_channel(2);
        let (go_on, may_go_on) = sync_channel::<()>(2);
        let mut errands = Errands::start_with(move |order| {
            begun.send(order.clone()).unwrap();
            may_go_on.recv().unwrap();
            Ok("done".into())
        })
        .unwrap();
        let order = |job| Order::Promote { job, instance: InstanceId(7) };
        errands.take(&[order(1), order(2)]);
        assert_eq!(begins.recv(), Ok(order(1)));
        errands.stop();
        go_on.send(()).unwrap();
        drop(go_on);
        let outcomes = Arc::clone(&errands.outcomes);
        drop(errands);
        assert!(begins.recv().is_err(), "the second was begun");
        let jobs: Vec<u64> = lock(&outcomes).iter().map(|outcome| outcome.job).collect();
        assert_eq!(jobs, [1]);
    }
}
