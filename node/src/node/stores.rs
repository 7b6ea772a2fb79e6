//! The stores of backups that this node was told it may speak to: what it sees there, what it brings there, what it takes from there.
//!
//! A control center chooses among these stores and no others, and knows no credentials: they are in the node's own environment.

mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use planaria_backup::{Access, Catalog, Error, Place, Store};
use planaria_engine::Options;
use planaria_net::replica::Pace;
use planaria_net::wire::control::{Order, Outcome};
use planaria_net::wire::jobs::{CLONES_MAX, CloneReport};
use planaria_net::wire::stores::{STORED_MAX, STORES_MAX, StoreReport, StoredBackup};
use planaria_replication::control::InstanceRole;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::leadership::Leadership;
use crate::output::CliError;

/// How often a node looks what its stores have.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// A store that says nothing for so long is away.
const LOOK_WITHIN: Duration = Duration::from_secs(30);

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
    looking: Option<tokio::task::JoinHandle<()>>,
    runtime: Handle,
}

/// What the threads of a node's stores share.
struct Shared {
    places: BTreeMap<String, Place>,
    home: Home,
    engine: Options,
    seen: Mutex<BTreeMap<String, StoreReport>>,
    jobs: Mutex<BTreeMap<u64, Job>>,
    /// Something may have changed in a store.
    changed: Notify,
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
    pub(super) fn start(
        places: &[Place],
        home: Home,
        engine: &Options,
        runtime: &Handle,
    ) -> Result<Self, CliError> {
        if places.len() > STORES_MAX {
            let what = format!("a node speaks to at most {STORES_MAX} stores of backups");
            return Err(CliError::usage(what).hint("give --backup-to less often"));
        }
        for place in places {
            if let Err(error) = place.open(&Access::default(), true) {
                tracing::warn!(store = %place, code = error.code(), %error, "a store of backups cannot be opened");
            }
        }
        let shared = Arc::new(Shared {
            places: places.iter().map(|place| (place.to_string(), place.clone())).collect(),
            home,
            // What is taken from a store is read once: with a cache of its own rather than maps.
            engine: Options { read_mode: planaria_engine::ReadMode::default(), ..engine.clone() },
            seen: Mutex::default(),
            jobs: Mutex::default(),
            changed: Notify::new(),
        });
        let looking = (!shared.places.is_empty()).then(|| runtime.spawn(look_again(Arc::clone(&shared))));
        Ok(Self { shared, threads: Mutex::default(), looking, runtime: runtime.clone() })
    }

    /// The stores, as this node saw them last. One that it has not seen yet is told of once it has.
    pub(super) fn seen(&self) -> Vec<StoreReport> {
        self.shared.seen.lock().values().cloned().collect()
    }

    /// How far each job has come.
    pub(super) fn reports(&self) -> Vec<CloneReport> {
        self.shared.jobs.lock().values().map(|job| job.report).collect()
    }

    /// What has come to an end and was not told yet.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        self.shared.jobs.lock().values().filter_map(|job| job.outcome.clone()).collect()
    }

    /// The control center knows of these. Whether one of them is the copy that this node hosts from now on.
    pub(super) fn told(&self, told: &[Outcome]) -> bool {
        let mut jobs = self.shared.jobs.lock();
        let ended = told.iter().filter_map(|outcome| Some((outcome, jobs.remove(&outcome.job)?)));
        ended.filter(|(outcome, job)| outcome.code.is_empty() && job.is_seed).count() > 0
    }

    /// Begins what is ordered and does not run, has what runs go on at the rate that is told, and gives up what is to be given up.
    pub(super) fn take(&self, orders: &[Order]) {
        for order in orders {
            match order {
                Order::Backup(backup) => self.order(order, backup.job, backup.bytes_per_s),
                Order::Restore(restore) => self.order(order, restore.job, restore.bytes_per_s),
                Order::CancelClone { job } => self.cancel(*job),
                _ => {}
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
        if jobs.len() >= CLONES_MAX {
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
        let task = work::Task { shared: Arc::clone(&self.shared), number, pace, is_cancelled };
        let (order, runtime) = (order.clone(), self.runtime.clone());
        let begun = std::thread::Builder::new()
            .name("planaria-store".into())
            .spawn(move || task.carry_out(&order, &runtime));
        match begun {
            Ok(thread) => {
                let mut threads = self.threads.lock();
                threads.retain(|thread| !thread.is_finished());
                threads.push(thread);
            }
            Err(error) => {
                self.shared.ends(number, Err(("io".to_owned(), format!("cannot start a thread: {error}"))));
            }
        }
    }

    /// Ends a job, and leaves nothing of it here. What it has brought to a store is no backup, and goes with a later prune.
    fn cancel(&self, number: u64) {
        if let Some(job) = self.shared.jobs.lock().remove(&number) {
            tracing::info!(job = number, "what was to be brought to a store, or taken from it, is given up");
            job.is_cancelled.store(true, Ordering::SeqCst);
            job.pace.stop();
        }
    }
}

impl Drop for Stores {
    /// What has not come to its end is ordered again when the node is back.
    fn drop(&mut self) {
        if let Some(looking) = self.looking.take() {
            looking.abort();
        }
        for job in self.shared.jobs.lock().values() {
            job.pace.stop();
        }
        for thread in self.threads.lock().drain(..) {
            // A panic was reported by the thread itself.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// The store at a place, if this node may speak to it.
    fn store(&self, place: &str, create: bool) -> Result<Store, (String, String)> {
        let allowed = self.places.get(place).ok_or_else(|| {
            let what = format!("this node was not started with --backup-to {place}");
            ("store_not_allowed".to_owned(), what)
        })?;
        allowed.open(&Access::default(), create).map_err(|error| told(&error))
    }

    fn ends(&self, number: u64, ended: Result<String, (String, String)>) {
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
        if let Some(job) = self.jobs.lock().get_mut(&number) {
            job.outcome = Some(outcome);
        }
    }
}

fn told(error: &Error) -> (String, String) {
    let why = error.why().map(|why| format!(": {why}"));
    (error.code().to_owned(), format!("{error}{}", why.unwrap_or_default()))
}

/// Looks into all stores, again and again.
async fn look_again(shared: Arc<Shared>) {
    loop {
        for place in shared.places.keys() {
            let looked = tokio::time::timeout(LOOK_WITHIN, look(&shared, place)).await;
            let late = || ("timed_out".to_owned(), format!("{place} gave no answer in {LOOK_WITHIN:?}"));
            let report = match looked.unwrap_or_else(|_| Err(late())) {
                Ok(backups) => StoreReport { place: place.clone(), backups, ..StoreReport::default() },
                Err((code, what)) => {
                    tracing::debug!(store = place, code, what, "a store of backups is away");
                    StoreReport { place: place.clone(), code, what, ..StoreReport::default() }
                }
            };
            shared.seen.lock().insert(place.clone(), report);
        }
        // Woken early or not, the next look is due.
        let _ = tokio::time::timeout(LOOK_EVERY, shared.changed.notified()).await;
    }
}

/// The newest backup of each database in a store.
async fn look(shared: &Arc<Shared>, place: &str) -> Result<Vec<StoredBackup>, (String, String)> {
    let (opening, name) = (Arc::clone(shared), place.to_owned());
    let opened = tokio::task::spawn_blocking(move || opening.store(&name, false)).await;
    let store = opened.map_err(|error| ("internal".to_owned(), error.to_string()))??;
    let catalog = Catalog::load(&store).await.map_err(|error| told(&error))?;
    let mut newest: BTreeMap<_, StoredBackup> = BTreeMap::new();
    // In the order of their update times, the newest last.
    for backup in &catalog.backups {
        let count = newest.get(&backup.database).map_or(0, |older| older.count) + 1;
        let stored = StoredBackup {
            database: backup.database,
            name: backup.name.clone(),
            position: backup.position,
            taken_ms: backup.taken_ms,
            bytes: backup.bytes,
            count,
        };
        newest.insert(backup.database, stored);
    }
    Ok(newest.into_values().take(STORED_MAX).collect())
}
