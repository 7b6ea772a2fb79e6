//! The stores of backups that this node was told it may speak to: what it sees there, what it brings there, what it takes from there.
//!
//! A control center chooses among these stores and no others, and knows no credentials: they are in the node's own environment.

mod begun;
mod look;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use planaria_backup::{Error, Place, Store};
use planaria_engine::Options;
use planaria_net::replica::Pace;
use planaria_net::wire::control::{Order, Outcome};
use planaria_net::wire::jobs::{CLONES_MAX, CloneReport};
use planaria_net::wire::stores::{PLACE_BYTES_MAX, STORES_MAX, StoreReport, is_place};
use planaria_replication::control::InstanceRole;
use tokio::runtime::Runtime;

use self::begun::Restores;
use self::look::{Rhythm, Sights};
use super::leadership::Leadership;
use crate::output::CliError;

/// When a node looks what its stores have.
const RHYTHM: Rhythm = Rhythm { every: Duration::from_secs(15), within: Duration::from_secs(30) };

/// What went wrong: a code, and what.
type Trouble = (String, String);

fn trouble(code: &str, what: impl Into<String>) -> Trouble {
    (code.to_owned(), what.into())
}

/// What a node has that speaks to stores.
pub(super) enum Home {
    /// A copy, which is backed up; clones are taken into directories beside it.
    Copy { leadership: Arc<Leadership>, beside: PathBuf },
    /// None: a clone becomes the copy that it hosts, of that role.
    Spare { dir: PathBuf, role: InstanceRole },
}

/// The stores of a node, and what it does with them until the control center knows how that ended.
pub(super) struct Stores {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Where stores are waited for: apart from what the node does, as nothing ends the wait for a disk that hangs. None where the
    /// node has no stores.
    runtime: Option<Runtime>,
}

/// What the threads of a node's stores share.
struct Shared {
    places: BTreeMap<String, Place>,
    home: Home,
    engine: Options,
    sights: Arc<Sights>,
    jobs: Mutex<BTreeMap<u64, Job>>,
    /// Clones that were begun, those included for which nobody works any more.
    restores: Restores,
    /// Jobs that a thread works for, or tidies up after, and whether they were given up meanwhile.
    hands: Mutex<BTreeMap<u64, bool>>,
}

/// A backup that is brought to a store, or a clone that is taken from one.
struct Job {
    report: CloneReport,
    outcome: Option<Outcome>,
    pace: Arc<Pace>,
    is_cancelled: Arc<AtomicBool>,
    /// It gives a node that hosts nothing its copy.
    is_seed: bool,
}

impl Stores {
    /// The stores at these places. A directory that is not there is made now, and not later: then it is one whose disk is away.
    pub(super) fn start(places: &[Place], home: Home, engine: &Options) -> Result<Self, CliError> {
        Self::start_with(places, home, engine, RHYTHM)
    }

    fn start_with(places: &[Place], home: Home, engine: &Options, rhythm: Rhythm) -> Result<Self, CliError> {
        if places.len() > STORES_MAX {
            let what = format!("a node speaks to at most {STORES_MAX} stores of backups");
            return Err(CliError::usage(what).hint("give --backup-to less often"));
        }
        // It could not be told of under its name, nor under another one.
        if let Some(place) = places.iter().find(|place| !is_place(&place.to_string())) {
            let what = format!("{:?} is no place of a store of backups", place.to_string());
            let hint = format!("give --backup-to at most {PLACE_BYTES_MAX} bytes, all of which can be shown");
            return Err(CliError::usage(what).hint(hint));
        }
        let places: BTreeMap<String, Place> =
            places.iter().map(|place| (place.to_string(), place.clone())).collect();
        let runtime = (!places.is_empty()).then(runtime).transpose()?;
        let sights = Sights::new();
        if let Some(runtime) = &runtime {
            sights.watch(places.values(), rhythm, runtime.handle());
        }
        let lists = match &home {
            Home::Copy { leadership, .. } => Some(leadership.slot.get().path().join(crate::clones::LISTS)),
            Home::Spare { .. } => None,
        };
        let restores = Restores::open(lists, &engine.os)?;
        let shared = Arc::new(Shared {
            places,
            home,
            // What is taken from a store is read once: with a cache of its own rather than maps.
            engine: Options { read_mode: planaria_engine::ReadMode::default(), ..engine.clone() },
            sights,
            jobs: Mutex::default(),
            restores,
            hands: Mutex::default(),
        });
        Ok(Self { shared, threads: Mutex::default(), runtime })
    }

    /// The stores, as this node saw them last. One that it has not seen yet is told of once it has.
    pub(super) fn seen(&self) -> Vec<StoreReport> {
        self.shared.sights.seen()
    }

    /// How far each job has come. Clones are told of that nobody works for and of which something may be here, so that the control
    /// center says whether they are still wanted.
    pub(super) fn reports(&self) -> Vec<CloneReport> {
        let jobs = self.shared.jobs.lock();
        let left = self.shared.restores.all().into_iter().filter(|left| !jobs.contains_key(&left.job));
        let left = left.map(|left| CloneReport { job: left.job, ..CloneReport::default() });
        jobs.values().map(|job| job.report).chain(left).collect()
    }

    /// What has come to an end and was not told yet.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        self.shared.jobs.lock().values().filter_map(|job| job.outcome.clone()).collect()
    }

    /// The control center knows of these. Whether one of them is the copy that this node hosts from now on.
    pub(super) fn told(&self, told: &[Outcome]) -> bool {
        let mut jobs = self.shared.jobs.lock();
        let ended = told.iter().filter_map(|outcome| Some((outcome, jobs.remove(&outcome.job)?)));
        let whole: Vec<(u64, bool)> = ended
            .filter(|(outcome, _)| outcome.code.is_empty())
            .map(|(outcome, job)| (outcome.job, job.is_seed))
            .collect();
        drop(jobs);
        // Of what failed it is heard whether it is tried again, or goes.
        for (job, _) in &whole {
            self.shared.restores.end(*job);
        }
        whole.iter().any(|(_, is_seed)| *is_seed)
    }

    /// Begins what is ordered and does not run, has what runs go on at the rate that is told, and gives up what is to be given up.
    pub(super) fn take(&self, orders: &[Order]) {
        for order in orders {
            match order {
                Order::Backup(backup) => self.order(order, backup.job, backup.bytes_per_s),
                Order::Restore(restore) => self.order(order, restore.job, restore.bytes_per_s),
                Order::CancelClone { job } => self.cancel(*job),
                // A node gives what lies there from now on, and goes on with what is here.
                Order::Clone(clone) => self.shared.takes_place(&clone.name),
                _ => {}
            }
        }
        self.forget_whole(orders);
    }

    /// Forgets clones that are whole and for which nobody works, where the control center says nothing of them: it knows that.
    fn forget_whole(&self, orders: &[Order]) {
        let is_named = |job: u64| {
            orders.iter().any(|order| match order {
                Order::Restore(restore) => restore.job == job,
                Order::CancelClone { job: cancelled } => *cancelled == job,
                _ => false,
            })
        };
        for left in self.shared.restores.all() {
            let is_worked_for = || {
                let job = left.job;
                self.shared.jobs.lock().contains_key(&job) || self.shared.hands.lock().contains_key(&job)
            };
            if !is_named(left.job) && !is_worked_for() && self.shared.is_whole(&left) {
                self.shared.restores.end(left.job);
            }
        }
    }

    fn order(&self, order: &Order, number: u64, bytes_per_s: u64) {
        let mut jobs = self.shared.jobs.lock();
        if let Some(job) = jobs.get(&number) {
            if job.pace.rate() != Some(bytes_per_s) {
                job.pace.set_rate(Some(bytes_per_s));
            }
            return;
        }
        if jobs.len() >= CLONES_MAX || self.shared.hands.lock().contains_key(&number) {
            return;
        }
        let (pace, is_cancelled) = (Arc::new(Pace::new(Some(bytes_per_s))), Arc::default());
        jobs.insert(
            number,
            Job {
                report: CloneReport { job: number, ..CloneReport::default() },
                outcome: None,
                pace: Arc::clone(&pace),
                is_cancelled: Arc::clone(&is_cancelled),
                is_seed: matches!((order, &self.shared.home), (Order::Restore(_), Home::Spare { .. })),
            },
        );
        drop(jobs);
        let Some(runtime) = self.runtime.as_ref().map(|runtime| runtime.handle().clone()) else {
            let what = "this node was started without --backup-to";
            self.shared.ends(number, Err(trouble("store_not_allowed", what)));
            return;
        };
        let task = work::Task { shared: Arc::clone(&self.shared), number, pace, is_cancelled };
        let order = order.clone();
        self.begin(number, move || task.carry_out(&order, &runtime));
    }

    /// Has a thread work for a job, unless one does.
    fn begin(&self, number: u64, work: impl FnOnce() + Send + 'static) {
        if self.shared.hands.lock().contains_key(&number) {
            return;
        }
        self.shared.hands.lock().insert(number, false);
        let hand = Hand { shared: Arc::clone(&self.shared), number };
        let work = move || {
            work();
            hand.tidies_up();
        };
        match std::thread::Builder::new().name("planaria-store".into()).spawn(work) {
            Ok(thread) => {
                let mut threads = self.threads.lock();
                threads.retain(|thread| !thread.is_finished());
                threads.push(thread);
            }
            Err(error) => {
                let failed = trouble("io", format!("cannot start a thread: {error}"));
                self.shared.ends(number, Err(failed));
            }
        }
    }

    /// Ends a job, and leaves nothing of it here. What it has brought to a store is no backup, and goes with a later prune.
    fn cancel(&self, number: u64) {
        let job = self.shared.jobs.lock().remove(&number);
        if let Some(job) = &job {
            tracing::info!(job = number, "what was to be brought to a store, or taken from it, is given up");
            job.is_cancelled.store(true, Ordering::SeqCst);
            job.pace.stop();
        }
        // Whoever works for it removes what is there.
        if let Some(is_given_up) = self.shared.hands.lock().get_mut(&number) {
            *is_given_up = true;
            return;
        }
        let Some(left) = self.shared.restores.get(number) else { return };
        let shared = Arc::clone(&self.shared);
        self.begin(number, move || shared.remove_rest(&left));
    }
}

/// A thread that works for a job, however it ends.
struct Hand {
    shared: Arc<Shared>,
    number: u64,
}

impl Hand {
    /// Removes what is there of a clone that was given up before the thread had ended.
    fn tidies_up(self) {
        loop {
            let mut hands = self.shared.hands.lock();
            if !hands.get_mut(&self.number).is_some_and(std::mem::take) {
                hands.remove(&self.number);
                return;
            }
            drop(hands);
            if let Some(left) = self.shared.restores.get(self.number) {
                self.shared.remove_rest(&left);
            }
        }
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.shared.hands.lock().remove(&self.number);
    }
}

impl Drop for Stores {
    /// What has not come to its end is ordered again when the node is back.
    fn drop(&mut self) {
        for job in self.shared.jobs.lock().values() {
            job.pace.stop();
        }
        for thread in self.threads.lock().drain(..) {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
        if let Some(runtime) = self.runtime.take() {
            // A look at a disk that hangs ends with the process.
            runtime.shutdown_background();
        }
    }
}

impl Shared {
    /// Another clone takes the place of what was begun there before, which is not to be removed any more.
    fn takes_place(&self, name: &str) {
        for left in self.restores.all() {
            if matches!(self.home, Home::Spare { .. }) || left.name == name {
                self.restores.end(left.job);
            }
        }
    }

    /// The store at a place, if this node may speak to it.
    async fn store(&self, place: &str) -> Result<Store, Trouble> {
        let allowed = self.places.get(place).ok_or_else(|| {
            trouble("store_not_allowed", format!("this node was not started with --backup-to {place}"))
        })?;
        self.sights.answers(place)?;
        look::open(allowed, false).await
    }

    /// Takes in how a job ended. Whether it is wanted: it may have been given up.
    fn ends(&self, number: u64, ended: Result<String, Trouble>) -> bool {
        let outcome = match ended {
            Ok(what) => Outcome { job: number, code: String::new(), what },
            Err((code, what)) => {
                tracing::warn!(
                    job = number,
                    code,
                    what,
                    "a backup or a restore that was ordered is not made"
                );
                Outcome { job: number, code, what }
            }
        };
        let mut jobs = self.jobs.lock();
        let job = jobs.get_mut(&number);
        job.map(|job| job.outcome = Some(outcome)).is_some()
    }
}

/// Where stores are waited for.
fn runtime() -> Result<Runtime, CliError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("planaria-store")
        .enable_all()
        .build()
        .map_err(|error| CliError::new("io", format!("cannot start the threads of stores: {error}")))
}

fn told(error: &Error) -> Trouble {
    let why = error.why().map(|why| format!(": {why}"));
    (error.code().to_owned(), format!("{error}{}", why.unwrap_or_default()))
}

#[cfg(test)]
#[path = "stores_tests.rs"]
mod tests;
