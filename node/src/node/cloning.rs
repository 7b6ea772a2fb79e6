//! Clones that the control center has this node make.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use planaria_engine::{CloneRole, Options};
use planaria_net::quic::{Credentials, Transport};
use planaria_net::replica::{CloneProgress, clone_from};
use planaria_net::wire::control::{Order, Outcome};
use planaria_net::wire::jobs::{CLONES_MAX, CloneOrder, CloneReport};
use planaria_net::wire::message::CloneRole as WireRole;
use planaria_replication::control::InstanceRole;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Where the clones of a node go.
#[derive(Clone, Debug)]
pub(super) enum Berth {
    /// Beside the database that it hosts, as databases of their own.
    Beside(PathBuf),
    /// It hosts none, and the clone becomes the copy that it hosts, of that role.
    Own(PathBuf, InstanceRole),
}

impl Berth {
    /// The directory of a clone, if it can be made here.
    fn directory(&self, order: &CloneOrder) -> Result<PathBuf, Outcome> {
        let refused = |code: &str, what: String| Outcome { job: order.job, code: code.to_owned(), what };
        let role = match order.role {
            WireRole::Detached => None,
            WireRole::Standby => Some(InstanceRole::Standby),
            WireRole::Backup => Some(InstanceRole::Backup),
        };
        match self {
            Self::Beside(dir) if role.is_none() && order.has_safe_name() => Ok(dir.join(&order.name)),
            Self::Own(dir, own) if role == Some(*own) => Ok(dir.clone()),
            Self::Beside(_) if role.is_none() => {
                Err(refused("invalid", format!("{:?} is no name of a clone", order.name)))
            }
            Self::Beside(_) => {
                Err(refused("not_spare", "this node hosts a database, and no second one".into()))
            }
            Self::Own(_, own) => Err(refused("not_spare", format!("this node waits to become a {own}"))),
        }
    }
}

/// The clones that a node makes, until it is dropped: those that are not whole then go on when they are ordered again.
pub(super) struct Cloning {
    berth: Berth,
    credentials: Credentials,
    engine: Options,
    runtime: Handle,
    jobs: Arc<Mutex<BTreeMap<u64, Job>>>,
}

/// One clone.
struct Job {
    dir: PathBuf,
    done_bytes: u64,
    total_bytes: Option<u64>,
    /// How it ended, until the control center knows.
    outcome: Option<Outcome>,
    task: Option<JoinHandle<()>>,
}

impl Cloning {
    pub(super) fn new(berth: Berth, credentials: Credentials, engine: Options, runtime: Handle) -> Self {
        Self { berth, credentials, engine, runtime, jobs: Arc::default() }
    }

    /// How far each has come.
    pub(super) fn reports(&self) -> Vec<CloneReport> {
        let jobs = lock(&self.jobs);
        let running = jobs.iter().filter(|(_, job)| job.outcome.is_none()).take(CLONES_MAX);
        let report = |(number, job): (&u64, &Job)| CloneReport {
            job: *number,
            done_bytes: job.done_bytes,
            total_bytes: job.total_bytes,
        };
        running.map(report).collect()
    }

    /// What has come to an end and was not told yet.
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        lock(&self.jobs).values().filter_map(|job| job.outcome.clone()).collect()
    }

    /// The control center knows of these. Whether one of them is the copy that this node hosts from now on.
    pub(super) fn told(&self, told: &[Outcome]) -> bool {
        let mut jobs = lock(&self.jobs);
        let mut is_seeded = false;
        for outcome in told {
            if let Some(job) = jobs.remove(&outcome.job) {
                forget_marker(&job.dir);
                is_seeded |= matches!(self.berth, Berth::Own(..)) && outcome.code.is_empty();
            }
        }
        is_seeded
    }

    /// Begins what is ordered and does not run, and gives up what is to be given up.
    pub(super) fn take(&self, orders: &[Order]) {
        for order in orders {
            match order {
                Order::Clone(order) => self.begin(order),
                Order::CancelClone { job } => self.cancel(*job),
                _ => {}
            }
        }
    }

    fn begin(&self, order: &CloneOrder) {
        let mut jobs = lock(&self.jobs);
        if jobs.contains_key(&order.job) || jobs.len() >= CLONES_MAX {
            return;
        }
        let mut job =
            Job { dir: PathBuf::new(), done_bytes: 0, total_bytes: None, outcome: None, task: None };
        match self.berth.directory(order) {
            Ok(dir) => {
                job.dir = dir;
                job.task = Some(self.runtime.spawn(self.run(order, &job.dir)));
            }
            Err(outcome) => job.outcome = Some(outcome),
        }
        jobs.insert(order.job, job);
    }

    fn run(&self, order: &CloneOrder, dir: &Path) -> impl Future<Output = ()> + Send + use<> {
        let role = match order.role {
            WireRole::Detached => CloneRole::Detached,
            WireRole::Standby | WireRole::Backup => CloneRole::Secondary,
        };
        let (number, from, dir) = (order.job, order.from, dir.to_path_buf());
        let (credentials, engine) = (self.credentials.clone(), self.engine.clone());
        let (jobs, shown) = (Arc::clone(&self.jobs), Arc::clone(&self.jobs));
        async move {
            let progress = move |progress: &CloneProgress| {
                if let Some(job) = lock(&shown).get_mut(&number) {
                    (job.done_bytes, job.total_bytes) = (progress.done_bytes, Some(progress.total_bytes));
                }
            };
            let cloned = match mark(&dir, number) {
                // It was whole before this process began, and the control center did not hear of it.
                Ok(Mark::WasWhole) => Ok(format!("{} was whole already", dir.display())),
                Ok(Mark::Begins) => {
                    let transport = Transport::default();
                    let cloned = clone_from(from, &credentials, &transport, &dir, role, &engine, progress);
                    cloned.await.map_err(|error| (error.code().to_owned(), error.to_string())).map(|cloned| {
                        let (bytes, again) = (cloned.total_bytes, cloned.resumed_bytes);
                        format!(
                            "{} has {bytes} bytes from {from}, {again} of them from before",
                            dir.display()
                        )
                    })
                }
                Err(error) => Err(("io".to_owned(), error)),
            };
            let outcome = match cloned {
                Ok(what) => Outcome { job: number, code: String::new(), what },
                Err((code, what)) => {
                    tracing::warn!(job = number, code, what, "a clone that was ordered was not made");
                    Outcome { job: number, code, what }
                }
            };
            if let Some(job) = lock(&jobs).get_mut(&number) {
                job.outcome = Some(outcome);
            }
        }
    }

    /// Ends a clone, and leaves nothing of it behind unless it is whole: then it is a database that somebody may use.
    fn cancel(&self, number: u64) {
        let Some(job) = lock(&self.jobs).remove(&number) else { return };
        let Some(task) = job.task else { return };
        task.abort();
        let runtime = self.runtime.clone();
        self.runtime.spawn(async move {
            // What was begun on a thread goes on until it ends; nothing is written any more when the task has.
            let _ = task.await;
            runtime.spawn_blocking(move || {
                remove_partial(&job.dir);
                forget_marker(&job.dir);
            });
        });
    }
}

/// Removes what was received of a clone that is not whole.
fn remove_partial(dir: &Path) {
    let partial = partial_of(dir);
    match std::fs::remove_dir_all(&partial) {
        Ok(()) => tracing::info!(dir = %partial.display(), "a clone was given up"),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!(dir = %partial.display(), %error, "what was received of a clone cannot be removed");
        }
    }
}

impl Drop for Cloning {
    fn drop(&mut self) {
        for job in lock(&self.jobs).values() {
            if let Some(task) = &job.task {
                task.abort();
            }
        }
    }
}

/// Whether a clone is to be made, or was before the process was started anew.
enum Mark {
    Begins,
    WasWhole,
}

/// Leaves beside the clone's directory for which job it is made: a directory that is whole is that job's only then.
fn mark(dir: &Path, job: u64) -> Result<Mark, String> {
    let marker = marker_of(dir);
    let is_marked = std::fs::read_to_string(&marker).is_ok_and(|text| text.trim() == job.to_string());
    if dir.exists() {
        return if is_marked { Ok(Mark::WasWhole) } else { Ok(Mark::Begins) };
    }
    if !is_marked {
        let written = std::fs::write(&marker, job.to_string());
        written.map_err(|error| format!("cannot write {}: {error}", marker.display()))?;
    }
    Ok(Mark::Begins)
}

/// A marker that stays says nothing once its job has ended: numbers of jobs are not used again.
fn forget_marker(dir: &Path) {
    let marker = marker_of(dir);
    if let Err(error) = std::fs::remove_file(&marker)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::debug!(path = %marker.display(), %error, "a marker cannot be removed");
    }
}

fn marker_of(dir: &Path) -> PathBuf {
    beside(dir, ".job")
}

fn partial_of(dir: &Path) -> PathBuf {
    beside(dir, ".partial")
}

fn beside(dir: &Path, ending: &str) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push(ending);
    dir.with_file_name(name)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
