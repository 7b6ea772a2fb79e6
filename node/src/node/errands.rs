use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use planaria_net::wire::control::{Order, Outcome};
use planaria_net::wire::message::RemoteError;

use super::leadership::Leadership;
use super::promotion;
use crate::output::CliError;

/// Orders that wait while one is carried out.
const WAITING_MAX: usize = 4;

/// A thread that does what the control center says, one thing after the other, while reports go on.
pub(super) struct Errands {
    /// Dropping it ends the thread.
    orders: Option<SyncSender<Order>>,
    outcomes: Arc<Mutex<Vec<Outcome>>>,
    /// Jobs that were taken: each is told until its outcome has arrived, and done once.
    taken: BTreeSet<u64>,
    thread: Option<JoinHandle<()>>,
}

impl Errands {
    pub(super) fn start(leadership: Arc<Leadership>) -> Result<Self, CliError> {
        let (orders, coming) = sync_channel(WAITING_MAX);
        let outcomes = Arc::default();
        let done = Arc::clone(&outcomes);
        let thread = std::thread::Builder::new()
            .name("planaria-errands".into())
            .spawn(move || carry_out_all(&leadership, &coming, &done))
            .map_err(|error| CliError::new("io", format!("cannot start a thread: {error}")))?;
        Ok(Self { orders: Some(orders), outcomes, taken: BTreeSet::new(), thread: Some(thread) })
    }

    /// Takes what has not been taken yet. What finds no room now is told again.
    pub(super) fn take(&mut self, orders: &[Order]) {
        for order in orders {
            let Some(job) = job_of(order) else { continue };
            let Some(waiting) = self.orders.as_ref().filter(|_| !self.taken.contains(&job)) else { continue };
            if waiting.try_send(*order).is_ok() {
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

impl Drop for Errands {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

fn carry_out_all(leadership: &Leadership, orders: &Receiver<Order>, outcomes: &Mutex<Vec<Outcome>>) {
    while let Ok(order) = orders.recv() {
        let Some(job) = job_of(&order) else { continue };
        let outcome = match carry_out(leadership, &order) {
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
        Order::Promote { instance, .. } | Order::Follow { instance, .. } if instance != own => Err(
            RemoteError::new("unknown_instance", format!("copy {instance} is not here any more, but {own}")),
        ),
        Order::Promote { .. } => {
            let done = promotion::promote_without_loss(leadership)?;
            let epoch = done.epoch.map(|epoch| epoch.to_string()).unwrap_or_default();
            Ok(format!("leads under {epoch}, which inherited {}", done.inherited))
        }
        Order::Follow { primary, epoch, .. } => {
            leadership.rejoin(primary, epoch)?;
            Ok(format!("follows {primary}"))
        }
        _ => Err(RemoteError::new("unsupported", "this release does not know that order")),
    }
}

fn job_of(order: &Order) -> Option<u64> {
    match order {
        Order::Promote { job, .. } | Order::Follow { job, .. } => Some(*job),
        _ => None,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
