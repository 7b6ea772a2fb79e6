//! Clones that the control center has this node make.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use planaria_engine::{ClonePlace, ClonePurpose, CloneRole, Options};
use planaria_net::quic::{Credentials, Transport};
use planaria_net::replica::{CloneProgress, Pace, Taking, take_clone};
use planaria_net::wire::control::{Order, Outcome};
use planaria_net::wire::jobs::{CLONES_MAX, CloneOrder, CloneReport};
use planaria_net::wire::message::{CloneRole as WireRole, RemoteError};
use planaria_replication::control::InstanceRole;
use tokio::runtime::Handle;

use crate::clones::{CloneJob, Clones, order_of};
use crate::handler::remote;

/// A source that gives nothing for so long has failed: the control center names another one, and what has come is gone on with.
const PATIENCE_S: u32 = 10;

/// Where the clones of a node go.
pub(super) enum Berth {
    /// Into directories of their own beside the database that it hosts.
    Beside { clones: Arc<Clones>, dir: PathBuf },
    /// It hosts none, and the clone becomes the copy that it hosts, of that role.
    Own {
        dir: PathBuf,
        role: InstanceRole,
        credentials: Credentials,
        transport: Transport,
        engine: Box<Options>,
        runtime: Handle,
    },
}

/// The clones that a node was told to make, until the control center knows how they ended.
pub(super) struct Cloning {
    berth: Berth,
    jobs: Arc<Mutex<BTreeMap<u64, Job>>>,
}

/// One clone.
struct Job {
    /// What it is called among the clones of the node.
    name: String,
    report: CloneReport,
    /// How it ended, until the control center knows.
    outcome: Option<Outcome>,
    /// Of a copy that this node is to host: how fast it comes in.
    pace: Arc<Pace>,
    /// It was given up, and is forgotten once nothing of it is left.
    is_given_up: bool,
    /// It has failed, and waits for an order that names another source, or that gives it up.
    rests: bool,
}

impl Cloning {
    /// Those that a node goes on with since it was started are told of, so that the control center says whether they are still wanted.
    pub(super) fn new(berth: Berth) -> Self {
        let mut jobs = BTreeMap::new();
        if let Berth::Beside { clones, .. } = &berth {
            for info in clones.list() {
                let rests = info.state == "failed";
                if let Some(number) = order_of(&info.name).filter(|_| rests || is_under_way(&info.state)) {
                    let job = Job::new(&info.name, number, info.rate_bytes_per_s);
                    jobs.insert(number, Job { rests, ..job });
                }
            }
        }
        Self { berth, jobs: Arc::new(Mutex::new(jobs)) }
    }

    /// How far each has come, those included that have ended since the last report that was answered.
    pub(super) fn reports(&self) -> Vec<CloneReport> {
        let mut jobs = self.jobs.lock();
        if let Berth::Beside { clones, .. } = &self.berth {
            jobs.retain(|_, job| !(job.is_given_up && is_forgotten(clones, &job.name)));
            for (number, job) in jobs.iter_mut().filter(|(_, job)| job.is_looked_after()) {
                job.look(*number, clones);
            }
        }
        jobs.values().map(|job| job.report).take(CLONES_MAX).collect()
    }

    /// What has come to an end and was not told yet.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        self.jobs.lock().values().filter_map(|job| job.outcome.clone()).collect()
    }

    /// The control center knows of these. Whether one of them is the copy that this node hosts from now on.
    pub(super) fn told(&self, told: &[Outcome]) -> bool {
        let mut is_seeded = false;
        for outcome in told {
            let Some(job) = self.jobs.lock().remove(&outcome.job) else { continue };
            let is_whole = outcome.code.is_empty();
            match &self.berth {
                // What came in is there for the next source.
                Berth::Beside { clones, .. } if is_kept(clones, &job.name) => {
                    self.jobs.lock().insert(outcome.job, Job { outcome: None, rests: true, ..job });
                }
                Berth::Beside { clones, .. } if !is_whole => forget(clones, &job.name),
                Berth::Beside { .. } => {}
                Berth::Own { .. } => is_seeded |= is_whole,
            }
        }
        is_seeded
    }

    /// Begins what is ordered and does not run, has what runs go on at the rate that is told, and gives up what is to be
    /// given up.
    pub(super) fn take(&self, orders: &[Order]) {
        for order in orders {
            match order {
                Order::Clone(order) => self.order(order),
                Order::CancelClone { job } => self.cancel(*job),
                _ => {}
            }
        }
    }

    fn order(&self, order: &CloneOrder) {
        let mut jobs = self.jobs.lock();
        match jobs.get(&order.job) {
            Some(job) if !job.rests => return self.set_rate(job, order.bytes_per_s),
            None if jobs.len() >= CLONES_MAX => return,
            _ => {}
        }
        // Numbers of jobs are not used again: what is called so is this one, begun before a restart.
        let name = format!("{}#{}", order.name, order.job);
        let mut job = Job::new(&name, order.job, Some(order.bytes_per_s));
        if let Err(error) = self.begin(order, &job) {
            tracing::warn!(job = order.job, code = error.code, what = %error, "a clone that was ordered is not made");
            let (code, what) = (error.code.clone(), error.to_string());
            job.outcome = Some(Outcome { job: order.job, code, what });
        }
        jobs.insert(order.job, job);
    }

    fn begin(&self, order: &CloneOrder, job: &Job) -> Result<(), RemoteError> {
        let role = match order.role {
            WireRole::Detached => None,
            WireRole::Standby => Some(InstanceRole::Standby),
            WireRole::Backup => Some(InstanceRole::Backup),
            WireRole::Store => {
                return Err(RemoteError::new("unsupported", "a backup in a store is ordered as such"));
            }
        };
        match &self.berth {
            Berth::Beside { clones, dir } if role.is_none() && order.has_safe_name() => {
                let known = clones.info(&job.name);
                // One that has failed with another source goes on with this one.
                if known.is_ok_and(|info| info.state != "failed" || info.from == order.from.to_string()) {
                    // The node was started anew, and goes on at the rate that held before.
                    return clones.set_rate(&job.name, Some(order.bytes_per_s)).map(drop);
                }
                let begun = clones.start(CloneJob {
                    name: job.name.clone(),
                    dir: dir.join(&order.name),
                    sources: vec![order.from],
                    purpose: ClonePurpose::Detached,
                    rate_bytes_per_s: Some(order.bytes_per_s),
                    ttl_s: order.ttl_s,
                    patience_s: PATIENCE_S,
                    shape: order.shape.clone(),
                    ..CloneJob::default()
                });
                begun.map(drop)
            }
            Berth::Beside { .. } if role.is_none() => {
                Err(RemoteError::new("invalid", format!("{:?} is no name of a clone", order.name)))
            }
            Berth::Beside { .. } => {
                Err(RemoteError::new("not_spare", "this node hosts a database, and no second one"))
            }
            Berth::Own { role: own, .. } if role != Some(*own) => {
                Err(RemoteError::new("not_spare", format!("this node waits to become a {own}")))
            }
            Berth::Own { runtime, dir, engine, .. } => {
                let place = ClonePlace::new(dir, Arc::clone(&engine.os)).claim().map_err(remote)?;
                runtime.spawn(self.seed(order, &job.pace, place));
                Ok(())
            }
        }
    }

    /// Takes the copy that this node is to host into its place, which nobody else changes meanwhile.
    fn seed(
        &self,
        order: &CloneOrder,
        pace: &Arc<Pace>,
        place: ClonePlace,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (number, from) = (order.job, order.from);
        let (jobs, shown) = (Arc::clone(&self.jobs), Arc::clone(&self.jobs));
        let taking = self.taking(pace);
        async move {
            let Some((taking, credentials, transport)) = taking else { return };
            let progress = move |progress: &CloneProgress| {
                if let Some(job) = shown.lock().get_mut(&number) {
                    let total = (progress.total_bytes > 0).then_some(progress.total_bytes);
                    (job.report.done_bytes, job.report.total_bytes) = (progress.done_bytes, total);
                }
            };
            let taken = take_clone(from, &credentials, &transport, &taking, progress).await;
            let outcome = match taken {
                Ok(copy) => Outcome {
                    job: number,
                    code: String::new(),
                    what: format!("it has {} bytes from {from}", copy.total_bytes),
                },
                Err(error) => {
                    tracing::warn!(job = number, %error, "the copy that this node is to host did not come in");
                    Outcome { job: number, code: error.code().to_owned(), what: error.to_string() }
                }
            };
            // One that was given up is not there any more: nothing of it stays.
            let is_wanted = jobs.lock().get_mut(&number).map(|job| job.outcome = Some(outcome)).is_some();
            if !is_wanted {
                let removed = tokio::task::spawn_blocking(move || remove_all(&place));
                // It fails with the runtime, and the next start finds what is left.
                let _ = removed.await;
            }
        }
    }

    fn taking(&self, pace: &Arc<Pace>) -> Option<(Taking, Credentials, Transport)> {
        let Berth::Own { dir, credentials, transport, engine, .. } = &self.berth else { return None };
        let taking = Taking { pace: Arc::clone(pace), ..Taking::new(dir, CloneRole::Secondary, engine) };
        Some((taking, credentials.clone(), transport.clone()))
    }

    fn set_rate(&self, job: &Job, bytes_per_s: u64) {
        if job.pace.rate() == Some(bytes_per_s) {
            return;
        }
        job.pace.set_rate(Some(bytes_per_s));
        if let Berth::Beside { clones, .. } = &self.berth
            && let Err(error) = clones.set_rate(&job.name, Some(bytes_per_s))
        {
            tracing::warn!(clone = job.name, what = %error, "a clone goes on at the rate that it had");
        }
    }

    /// Ends a clone, and leaves nothing of it behind unless it is whole: then it is a database that somebody may use.
    fn cancel(&self, number: u64) {
        let mut jobs = self.jobs.lock();
        let Some(job) = jobs.get_mut(&number).filter(|job| !job.is_given_up) else { return };
        tracing::info!(job = number, "a clone is given up, as the control center says");
        job.pace.stop();
        job.is_given_up = match &self.berth {
            Berth::Beside { .. } if job.rests => true,
            // Its end is not waited for here: the control center is waiting for the next report.
            Berth::Beside { clones, .. } => clones
                .give_up(&job.name)
                // It is over already, one way or the other.
                .inspect_err(|error| tracing::debug!(clone = job.name, what = %error, "nothing is to be given up"))
                .is_ok(),
            Berth::Own { .. } => false,
        };
        if !job.is_given_up {
            jobs.remove(&number);
        }
    }
}

impl Job {
    fn new(name: &str, number: u64, bytes_per_s: Option<u64>) -> Self {
        Self {
            name: name.to_owned(),
            report: CloneReport { job: number, ..CloneReport::default() },
            outcome: None,
            pace: Arc::new(Pace::new(bytes_per_s)),
            is_given_up: false,
            rests: false,
        }
    }

    /// Whether it is to be heard of how it goes.
    fn is_looked_after(&self) -> bool {
        self.outcome.is_none() && !self.is_given_up && !self.rests
    }

    /// Takes in how the clone is.
    fn look(&mut self, number: u64, clones: &Clones) {
        let outcome = |code: &str, what: String| Some(Outcome { job: number, code: code.to_owned(), what });
        match clones.info(&self.name) {
            Ok(info) => {
                (self.report.done_bytes, self.report.total_bytes) = (info.done_bytes, info.total_bytes);
                let why = || info.reasons.last().cloned().unwrap_or_else(|| "nothing is known".to_owned());
                self.outcome = match info.state.as_str() {
                    "complete" => outcome("", format!("{} has {} bytes", info.target, info.done_bytes)),
                    "failed" => {
                        // What another source may help with has one code, whatever the source says.
                        let own = clones.failure(&self.name).filter(|failure| !failure.is_kept);
                        outcome(own.as_ref().map_or("clone_failed", |failure| &failure.code), why())
                    }
                    "cancelled" | "expired" => outcome("invalid", why()),
                    _ => None,
                };
            }
            Err(error) => self.outcome = outcome("unknown_clone", error.to_string()),
        }
    }
}

impl Drop for Cloning {
    /// What is not whole goes on when it is ordered again.
    fn drop(&mut self) {
        for job in self.jobs.lock().values() {
            job.pace.stop();
        }
    }
}

fn is_under_way(state: &str) -> bool {
    matches!(state, "queued" | "running" | "hydrating")
}

/// Removes what came in of a copy that was given up, and the copy if it was whole before it heard of that.
fn remove_all(place: &ClonePlace) {
    if let Err(error) = place.abandon().and_then(|_| place.remove()) {
        tracing::warn!(%error, "what came in of a copy that was given up cannot be removed");
    }
}

/// Forgets a clone that was given up, if nothing works on it any more.
fn is_forgotten(clones: &Clones, name: &str) -> bool {
    match clones.delete(name) {
        Ok(_) => true,
        Err(error) => error.code == "unknown_clone",
    }
}

/// Whether what came of a clone that has failed is kept, to be gone on with from elsewhere.
fn is_kept(clones: &Clones, name: &str) -> bool {
    clones.failure(name).is_some_and(|failure| failure.is_kept)
}

/// Has the node remember a clone no more that is not whole.
fn forget(clones: &Clones, name: &str) {
    if let Err(error) = clones.delete(name) {
        tracing::debug!(clone = name, what = %error, "a clone that failed is still listed");
    }
}

#[cfg(test)]
#[path = "cloning_tests.rs"]
mod tests;
