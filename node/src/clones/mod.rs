//! The clones that a node takes of other nodes' databases: in the background, remembered in its directory, gone on with after
//! a restart.

mod acts;
mod ledger;
mod leftovers;
mod live;
mod own;
mod preserve;
mod taking;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex, MutexGuard};
use planaria_engine::{ClonePlace, Database};
use planaria_net::replica::Pace;
use planaria_net::wire::message::{CloneInfo, RemoteError};

pub(crate) use self::ledger::{CloneJob, CloneState, DIRECTORY as LISTS, order_of};
use self::ledger::{Entry, Ledger};
pub(crate) use self::leftovers::leftovers;
use self::live::{Live, Reported, info_of};
pub(crate) use self::live::{Speed, left_ms, purpose_of};
pub(crate) use self::preserve::{check_preserved, preserve};
use self::taking::helps_elsewhere;
pub(crate) use self::taking::{Audience, Taker};
use crate::handler::remote;

/// Clones that come in at a time; more wait.
const RUNNING_MAX: usize = 4;
/// Clones that are remembered.
const CLONES_MAX: usize = 1_024;
/// Bytes of a name.
const NAME_BYTES_MAX: usize = 200;
/// Endings of the directories that are made beside that of a clone or a node.
const ENDINGS: [&str; 7] = [".partial", ".next", ".replaced", ".renewing", ".dropped", ".shaped", ".lock"];
/// How long a clone without a byte is tried if nobody says.
pub(crate) const PATIENCE_S: u32 = 600;
/// How often it is looked for clones whose time is over, at least.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// The clones that a node takes. It ends them in good order when it is dropped: they go on with the next start.
pub(crate) struct Clones {
    shared: Arc<Shared>,
}

struct Shared {
    ledger: Ledger,
    taker: Taker,
    /// The directory of the node's own database.
    node: PathBuf,
    /// Where clones lie that were given no directory.
    beside: PathBuf,
    state: Mutex<State>,
    /// Woken whenever a clone changes its state.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    clones: BTreeMap<String, Known>,
    workers: Vec<JoinHandle<()>>,
    is_closing: bool,
}

/// A clone, and what is in memory of it.
struct Known {
    entry: Entry,
    live: Option<Arc<Live>>,
    /// By what a complete clone is read that was read before it was.
    view: Option<Database>,
    /// What somebody does with its files, who does not hold the lock meanwhile.
    busy: Option<&'static str>,
    /// Why it failed, if it did since the node was started.
    failure: Option<Failure>,
}

/// Why a clone failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The stable code of the error.
    pub(crate) code: String,
    /// What came in of a clone that was ordered is kept: another source may give what is left.
    pub(crate) is_kept: bool,
}

impl Known {
    fn new(entry: Entry) -> Self {
        Self { entry, live: None, view: None, busy: None, failure: None }
    }

    /// Whether nobody takes it, and nobody works on its files.
    fn is_idle(&self) -> bool {
        self.entry.state.is_over() && self.live.is_none() && self.busy.is_none()
    }
}

/// What is known of a clone without asking the disk, and where that is to be asked.
struct Sketch {
    info: CloneInfo,
    dir: PathBuf,
}

impl Sketch {
    fn of(known: &Known) -> Self {
        Self { info: info_of(&known.entry, known.live.as_deref()), dir: known.entry.job.dir.clone() }
    }
}

impl Clones {
    /// The clones of the node whose database lies in `dir`. What was interrupted goes on.
    ///
    /// # Errors
    ///
    /// As those of the ledger: `damaged`, `foreign`, `io`.
    pub(crate) fn open(dir: &Path, taker: Taker) -> planaria_engine::Result<Self> {
        let ledger = Ledger::of(dir, Arc::clone(&taker.engine.os));
        let entries = ledger.read()?;
        let whole = std::path::absolute(dir).unwrap_or_else(|_| dir.to_path_buf());
        let beside = whole.parent().unwrap_or(Path::new("/")).to_path_buf();
        let shared = Arc::new(Shared {
            ledger,
            taker,
            node: whole,
            beside,
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        });
        {
            let mut state = shared.state.lock();
            for entry in entries {
                let name = entry.job.name.clone();
                let is_over = entry.state.is_over();
                state.clones.insert(name.clone(), Known::new(entry));
                if !is_over {
                    shared.spawn(&mut state, &name);
                }
            }
        }
        let own = Arc::clone(&shared);
        let sweeper = std::thread::Builder::new().name("planaria-clones".into()).spawn(move || own.sweep());
        match sweeper {
            Ok(sweeper) => shared.state.lock().workers.push(sweeper),
            Err(error) => tracing::error!(%error, "no clone expires by itself: a thread cannot be started"),
        }
        Ok(Self { shared })
    }

    /// Ends the work on all clones. What is not complete goes on with the next start.
    pub(crate) fn stop(&self) {
        let workers = {
            let mut state = self.shared.state.lock();
            state.is_closing = true;
            for known in state.clones.values() {
                if let Some(live) = &known.live {
                    live.pace.stop();
                }
            }
            self.shared.changed.notify_all();
            // Whoever has the node's directory next finds in the ledger what became of them.
            while state.clones.values().any(|known| known.busy.is_some()) {
                self.shared.changed.wait(&mut state);
            }
            std::mem::take(&mut state.workers)
        };
        for worker in workers {
            // One that broke off has said so.
            let _ = worker.join();
        }
    }

    /// Begins to take a clone.
    ///
    /// # Errors
    ///
    /// `usage` for a name or directory that cannot be, `exists` if there is something already that it does not replace.
    pub(crate) fn start(&self, mut job: CloneJob) -> Result<CloneInfo, RemoteError> {
        let shared = &self.shared;
        check_name(&job.name)?;
        if job.dir.as_os_str().is_empty() {
            job.dir = shared.beside.join(&job.name);
        }
        if !job.dir.is_absolute() {
            return Err(usage(format!("{} is not an absolute path", job.dir.display()))
                .with_hint("name the clone's directory on the node's disk from its root on"));
        }
        check_ending(&job.dir)?;
        if job.dir == shared.node {
            return Err(usage(format!("{} is the node's own database", job.dir.display()))
                .with_hint("name another directory"));
        }
        if job.sources.is_empty() {
            return Err(usage("a clone without a source").with_hint("name the address of a node with --from"));
        }
        if job.rate_bytes_per_s == Some(0) {
            return Err(usage("a clone at no rate at all").with_hint("cancel it instead"));
        }
        let found = shared.look(&job);
        let mut state = shared.state.lock();
        if state.is_closing {
            return Err(RemoteError::cancelled());
        }
        found.check_free(&state, &job)?;
        let forgotten = found.make_room(&mut state, &job.name)?;
        let name = job.name.clone();
        let now_ms = shared.taker.engine.os.now_millis();
        let entry = Entry { job, created_ms: now_ms, ..Entry::default() };
        let before = state.clones.insert(name.clone(), Known::new(entry));
        if let Err(error) = shared.save(&state) {
            state.clones.remove(&name);
            let as_before = before.into_iter().chain(forgotten);
            state.clones.extend(as_before.map(|known| (known.entry.job.name.clone(), known)));
            return Err(error);
        }
        shared.spawn(&mut state, &name);
        shared.info(state, &name)
    }

    /// All clones, by name.
    pub(crate) fn list(&self) -> Vec<CloneInfo> {
        let left = leftovers(&self.shared.beside, &self.shared.taker.engine.os);
        let sketches: Vec<Sketch> = self.shared.state.lock().clones.values().map(Sketch::of).collect();
        let mut clones: Vec<_> = sketches.into_iter().map(|sketch| self.shared.finish(sketch)).collect();
        let mine = |left: &CloneInfo| clones.iter().any(|clone| clone.target == left.target);
        let left: Vec<_> = left.into_iter().filter(|left| !mine(left)).collect();
        clones.extend(left);
        clones
    }

    /// One clone.
    ///
    /// # Errors
    ///
    /// `unknown_clone`.
    pub(crate) fn info(&self, name: &str) -> Result<CloneInfo, RemoteError> {
        self.shared.info(self.shared.state.lock(), name)
    }

    /// Why a clone failed; nothing if it did not, or before the node was started.
    pub(crate) fn failure(&self, name: &str) -> Option<Failure> {
        self.shared.state.lock().clones.get(name).and_then(|known| known.failure.clone())
    }

    /// By what a clone is read that comes in lazily, or came; nothing if there is no clone of that name.
    ///
    /// # Errors
    ///
    /// `not_readable` if it cannot be read here, or not yet.
    pub(crate) fn view(&self, name: &str) -> Result<Option<Database>, RemoteError> {
        let state = self.shared.state.lock();
        let Some(known) = state.clones.get(name) else { return Ok(None) };
        let live = known.live.as_ref().and_then(|live| live.view());
        if let Some(view) = live.or_else(|| known.view.clone()) {
            return Ok(Some(view));
        }
        let (is_lazy, dir) = (known.entry.job.lazy, known.entry.job.dir.display());
        let what = format!("the clone {name:?} is {}, and not read here", known.entry.state.name());
        let hint = match known.entry.state {
            CloneState::Complete => format!("it is a database in {dir}: `planaria serve {dir}` serves it"),
            CloneState::Queued | CloneState::Running if is_lazy => {
                "its source has not told of it yet: try again in a moment".into()
            }
            CloneState::Queued | CloneState::Running => {
                "`clone wait` tells when it is complete; one that is created with --lazy is read before"
                    .into()
            }
            CloneState::Failed | CloneState::Cancelled | CloneState::Expired => "create it again".into(),
        };
        Err(RemoteError::new("not_readable", what).with_hint(&hint))
    }

    /// Waits until nothing more becomes of a clone by itself, at most for so long, and tells how it is then.
    ///
    /// # Errors
    ///
    /// `unknown_clone`.
    pub(crate) fn wait(&self, name: &str, at_most: Duration) -> Result<CloneInfo, RemoteError> {
        let mut state = self.shared.state.lock();
        let os = &self.shared.taker.engine.os;
        let until = os.monotonic() + at_most;
        while !known(&state, name)?.entry.state.is_over() && !state.is_closing {
            let left = until.saturating_sub(os.monotonic());
            if left.is_zero() {
                break;
            }
            self.shared.changed.wait_for(&mut state, left);
        }
        self.shared.info(state, name)
    }

    /// Gives a clone up; what came of it goes. Waits until it is gone.
    ///
    /// # Errors
    ///
    /// `unknown_clone`; `over` if it is complete or has failed.
    pub(crate) fn cancel(&self, name: &str) -> Result<CloneInfo, RemoteError> {
        self.give_up(name)?;
        let mut state = self.shared.state.lock();
        // Whoever took it removes what came in.
        while known_mut(&mut state, name)?.live.is_some() && !state.is_closing {
            self.shared.changed.wait(&mut state);
        }
        self.shared.info(state, name)
    }

    /// As [`Clones::cancel`], without waiting.
    ///
    /// # Errors
    ///
    /// `unknown_clone`; `over` if it is complete or has failed.
    pub(crate) fn give_up(&self, name: &str) -> Result<(), RemoteError> {
        let mut state = self.shared.state.lock();
        let known = known_mut(&mut state, name)?;
        if known.entry.state.is_over() {
            let what = format!("the clone {name:?} is {}", known.entry.state.name());
            return Err(RemoteError::new("over", what).with_hint("`clone delete` removes it"));
        }
        known.entry.state = CloneState::Cancelled;
        known.entry.reasons.push("somebody cancelled it".into());
        self.shared.save(&state)?;
        if let Some(live) = &known_mut(&mut state, name)?.live {
            live.pace.stop();
        }
        // One that is queued hears of it, too.
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Has a clone come in at another rate.
    ///
    /// # Errors
    ///
    /// `unknown_clone`, `usage` for no rate at all.
    pub(crate) fn set_rate(&self, name: &str, rate: Option<u64>) -> Result<CloneInfo, RemoteError> {
        if rate == Some(0) {
            return Err(usage("a clone at no rate at all").with_hint("cancel it instead"));
        }
        let mut state = self.shared.state.lock();
        let known = known_mut(&mut state, name)?;
        known.entry.job.rate_bytes_per_s = rate;
        if let Some(live) = &known.live {
            live.pace.set_rate(rate);
        }
        self.shared.save(&state)?;
        self.shared.info(state, name)
    }
}

impl Drop for Clones {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn place(&self, dir: &Path) -> ClonePlace {
        ClonePlace::new(dir, Arc::clone(&self.taker.engine.os))
    }

    /// Remembers everything, durably.
    fn save(&self, state: &State) -> Result<(), RemoteError> {
        let entries: Vec<&Entry> = state.clones.values().map(|known| &known.entry).collect();
        self.ledger.write(&entries).map_err(remote)
    }

    /// As [`Shared::save`], where nobody waits for an answer: the next one that goes well makes up for it.
    fn save_or_warn(&self, state: &State) {
        if let Err(error) = self.save(state) {
            tracing::warn!(%error, "what became of a clone could not be written down");
        }
    }

    /// What there is to say of a clone, with what the disk says: it is asked without the lock, however long that takes.
    fn finish(&self, sketch: Sketch) -> CloneInfo {
        CloneInfo { keeps_old: self.place(&sketch.dir).has_replaced(), ..sketch.info }
    }

    /// The same of the clone of that name, and nobody holds the lock meanwhile.
    fn info(&self, state: MutexGuard<'_, State>, name: &str) -> Result<CloneInfo, RemoteError> {
        let sketch = Sketch::of(known(&state, name)?);
        drop(state);
        Ok(self.finish(sketch))
    }

    /// The entry of a clone that nobody works on.
    fn idle(state: &State, name: &str) -> Result<Entry, RemoteError> {
        let known = known(state, name)?;
        if let Some(doing) = known.busy {
            let what = format!("the clone {name:?} is being {doing}");
            return Err(RemoteError::new("busy", what).with_hint("try again when that is over"));
        }
        if !known.is_idle() {
            let what = format!("the clone {name:?} is {}", known.entry.state.name());
            return Err(RemoteError::new("running", what).with_hint("wait for it, or cancel it first"));
        }
        Ok(known.entry.clone())
    }

    /// The entry of a clone that is whole.
    fn complete(state: &State, name: &str) -> Result<Entry, RemoteError> {
        let entry = Self::idle(state, name)?;
        if entry.state != CloneState::Complete {
            let what = format!("the clone {name:?} is {}: there is nothing of it", entry.state.name());
            return Err(RemoteError::new("over", what).with_hint("create it again"));
        }
        Ok(entry)
    }

    /// What the disk says of what a new clone depends on, asked without the lock: others go on meanwhile, however long that takes.
    fn look(&self, job: &CloneJob) -> Found {
        let complete: Vec<PathBuf> = {
            let state = self.state.lock();
            let is_full = state.clones.len() >= CLONES_MAX;
            let matters = |known: &&Known| is_full || known.entry.job.name == job.name;
            let complete = |known: &&Known| known.entry.state == CloneState::Complete;
            let dirs = state.clones.values().filter(complete).filter(matters);
            dirs.map(|known| known.entry.job.dir.clone()).collect()
        };
        Found {
            is_taken: self.taker.engine.os.exists(&job.dir),
            gone: complete.into_iter().filter(|dir| !self.place(dir).is_there()).collect(),
        }
    }

    /// Starts the thread of a clone that is queued or was interrupted.
    fn spawn(self: &Arc<Self>, state: &mut State, name: &str) {
        let Some(known) = state.clones.get_mut(name) else { return };
        let live = Arc::new(Live::new(Pace::new(known.entry.job.rate_bytes_per_s), known.entry.moved_bytes));
        known.entry.state = CloneState::Queued;
        known.live = Some(Arc::clone(&live));
        let (own, own_name) = (Arc::clone(self), name.to_owned());
        let worker = std::thread::Builder::new()
            .name("planaria-clone".into())
            .spawn(move || own.work(&own_name, &live));
        state.workers.retain(|worker| !worker.is_finished());
        match worker {
            Ok(worker) => state.workers.push(worker),
            Err(error) => {
                known.live = None;
                known.entry.state = CloneState::Failed;
                known.entry.reasons.push(format!("no thread could be started for it: {error}"));
            }
        }
    }

    /// What the thread of a clone does.
    fn work(self: &Arc<Self>, name: &str, live: &Arc<Live>) {
        let Some((job, created_ms)) = self.begin(name, live) else {
            self.put_down(name, live, &Err(planaria_net::Error::GivenUp));
            return;
        };
        let audience = Arc::new(Reported::new(Arc::clone(live)));
        let taken = self.taker.take(&job, created_ms, &live.pace, &audience);
        self.put_down(name, live, &taken);
    }

    /// Waits for a place among those that run; nothing if it is given up before.
    fn begin(&self, name: &str, live: &Live) -> Option<(CloneJob, u64)> {
        let mut state = self.state.lock();
        loop {
            if state.is_closing || live.pace.is_stopped() {
                return None;
            }
            let running = state.clones.values().filter(|known| known.entry.state == CloneState::Running);
            if running.count() < RUNNING_MAX {
                let entry = &mut state.clones.get_mut(name)?.entry;
                entry.state = CloneState::Running;
                let begun = (entry.job.clone(), entry.created_ms);
                self.save_or_warn(&state);
                self.changed.notify_all();
                return Some(begun);
            }
            self.changed.wait(&mut state);
        }
    }

    /// Writes down what became of a clone, and removes what nobody will go on with.
    fn put_down(&self, name: &str, live: &Live, taken: &planaria_net::Result<()>) {
        let mut state = self.state.lock();
        let Some(known) = state.clones.get(name) else { return };
        let is_cancelled = known.entry.state == CloneState::Cancelled;
        let is_surplus = match taken {
            Ok(()) => is_cancelled,
            // It goes on with the next start.
            Err(planaria_net::Error::GivenUp) => is_cancelled || !state.is_closing,
            Err(_) => true,
        };
        let is_ordered = !is_cancelled && order_of(&known.entry.job.name).is_some();
        let is_kept = matches!(taken, Err(error) if is_ordered && helps_elsewhere(error));
        let job = (is_surplus && !is_kept).then(|| known.entry.job.clone());
        let removed = job.map(|job| MutexGuard::unlocked(&mut state, || self.remove_surplus(&job, taken)));
        let Some(known) = state.clones.get_mut(name) else { return };
        let entry = &mut known.entry;
        live.tell(entry);
        if let (Ok(()), None) = (taken, &removed) {
            entry.state = CloneState::Complete;
            known.view = live.view();
            let about = self.place(&entry.job.dir).about();
            entry.expires_ms = about.ok().flatten().and_then(|about| about.expires_ms);
        }
        if let (Err(error), true, true) = (taken, is_surplus, entry.state != CloneState::Cancelled) {
            entry.state = CloneState::Failed;
            entry.reasons.push(error.to_string());
            known.failure = Some(Failure { code: error.code().to_owned(), is_kept });
        }
        if let Some(Err(error)) = removed {
            tracing::warn!(%error, clone = name, "what came of a clone could not be removed");
            entry.reasons.push(format!("what came of it could not be removed: {error}"));
        }
        tracing::info!(clone = name, state = entry.state.name(), "a clone is done with");
        known.live = None;
        self.save_or_warn(&state);
        self.changed.notify_all();
    }

    /// Ends the lives of clones whose time is over, until the node stops.
    fn sweep(&self) {
        let mut state = self.state.lock();
        while !state.is_closing {
            let now_ms = self.taker.engine.os.now_millis();
            let mut wait_ms = SWEEP_EVERY.as_millis() as u64;
            let mut over = Vec::new();
            for (name, known) in &state.clones {
                let is_idle = known.entry.state == CloneState::Complete && known.is_idle();
                match known.entry.expires_ms.filter(|_| is_idle) {
                    Some(at) if at <= now_ms => over.push(name.clone()),
                    Some(at) => wait_ms = wait_ms.min(at - now_ms),
                    None => {}
                }
            }
            for name in over {
                let ended = MutexGuard::unlocked(&mut state, || self.end(&name, "its time is over"));
                if let Err(error) = ended {
                    tracing::warn!(clone = name, what = error.what, "an expired clone cannot be removed yet");
                }
            }
            self.wait(&mut state, Duration::from_millis(wait_ms));
        }
    }

    fn wait(&self, state: &mut MutexGuard<'_, State>, at_most: Duration) {
        if !state.is_closing {
            self.changed.wait_for(state, at_most);
        }
    }
}

/// What was found on the disk before a clone is begun.
struct Found {
    /// There is something where it is to be.
    is_taken: bool,
    /// Directories of complete clones in which there is nothing any more.
    gone: BTreeSet<PathBuf>,
}

impl Found {
    fn is_whole(&self, known: &Known) -> bool {
        known.entry.state == CloneState::Complete && !self.gone.contains(&known.entry.job.dir)
    }

    fn check_free(&self, state: &State, job: &CloneJob) -> Result<(), RemoteError> {
        let name = &job.name;
        let exists = |what: String| {
            RemoteError::new("exists", what).with_hint("give it another name, or take it with --replace")
        };
        if let Some(known) = state.clones.get(name) {
            let is_whole = self.is_whole(known);
            if !known.is_idle() || (is_whole && !job.replace) {
                return Err(exists(format!(
                    "there is a clone {name:?} already: it is {}",
                    known.busy.map_or(known.entry.state.name().to_owned(), |doing| format!("being {doing}"))
                )));
            }
        }
        let others = state.clones.values().filter(|known| !known.entry.state.is_over());
        if let Some(other) = others.into_iter().find(|known| known.entry.job.dir == job.dir) {
            return Err(exists(format!(
                "the clone {:?} is made in {}",
                other.entry.job.name,
                job.dir.display()
            )));
        }
        if !job.replace && self.is_taken {
            return Err(exists(format!("there is something in {} already", job.dir.display())));
        }
        Ok(())
    }

    /// Has there be room for one more clone, of that name, and returns what is forgotten for it: the oldest of which nothing is left, then
    /// the oldest that is whole and needs nobody to end its life.
    fn make_room(&self, state: &mut State, name: &str) -> Result<Option<Known>, RemoteError> {
        if state.clones.len() < CLONES_MAX || state.clones.contains_key(name) {
            return Ok(None);
        }
        let rank = |known: &Known| {
            let is_whole = self.is_whole(known);
            let is_needed = !known.is_idle() || (is_whole && known.entry.expires_ms.is_some());
            (!is_needed).then_some((is_whole, known.entry.created_ms))
        };
        let ranked = state.clones.iter().filter_map(|(name, known)| Some((rank(known)?, name)));
        let Some(oldest) = ranked.min().map(|(_, name)| name.clone()) else {
            let what = format!("the node takes or keeps {CLONES_MAX} clones, and remembers no more");
            return Err(RemoteError::new("too_many", what).with_hint("cancel some, or end their lives"));
        };
        tracing::info!(clone = oldest, "a clone that is over is forgotten, as there are many younger ones");
        Ok(state.clones.remove(&oldest))
    }
}

fn known<'a>(state: &'a State, name: &str) -> Result<&'a Known, RemoteError> {
    state.clones.get(name).ok_or_else(|| unknown(name))
}

fn known_mut<'a>(state: &'a mut State, name: &str) -> Result<&'a mut Known, RemoteError> {
    state.clones.get_mut(name).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> RemoteError {
    RemoteError::new("unknown_clone", format!("this node takes no clone {name:?}"))
        .with_hint("`clone list` shows those that there are")
}

fn usage(what: impl Into<String>) -> RemoteError {
    RemoteError::new("usage", what)
}

/// Whether a clone can be called so.
///
/// # Errors
///
/// `usage` if it cannot.
pub(crate) fn check_name(name: &str) -> Result<(), RemoteError> {
    let is_sound = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && !name.contains(|c: char| c == '/' || c.is_control());
    if !is_sound {
        return Err(usage(format!("{name:?} is no name of a clone")));
    }
    check_ending(Path::new(name))
}

/// What lies beside a directory under its name and such an ending is made and removed with it.
pub(crate) fn check_ending(dir: &Path) -> Result<(), RemoteError> {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match ENDINGS.iter().find(|ending| name.ends_with(**ending)) {
        Some(ending) => {
            Err(usage(format!("{name:?} ends in {ending}, as what belongs to another clone does"))
                .with_hint("give it another name"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
#[path = "clones_tests.rs"]
mod tests;
