//! Bringing a backup to a store, and taking a clone from one, each on a thread of its own.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use planaria_backup::{
    AsOf, Backup, Catalog, Error, Kept, Pinned, Plan, Progress, Toll, Wish, create, plan, prune, restore,
};
use planaria_engine::{ClonePlace, CloneRole, Database, Lineage, Options, Role};
use planaria_net::replica::Pace;
use planaria_net::wire::control::Order;
use planaria_net::wire::jobs::is_clone_name;
use planaria_net::wire::message::{AsOf as Wanted, CloneRole as WireRole};
use planaria_net::wire::stores::{BackupOrder, RestoreOrder};
use planaria_replication::control::InstanceRole;
use tokio::runtime::Handle;

use super::super::leadership::Leadership;
use super::begun::Begun;
use super::{Home, Shared, Trouble, told, trouble};
use crate::clones::check_ending;

/// Longer than anything takes.
const FOREVER: Duration = Duration::from_secs(1 << 32);

/// One job.
pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) number: u64,
    pub(super) pace: Arc<Pace>,
    pub(super) is_cancelled: Arc<AtomicBool>,
}

/// A pace for what comes from stores and goes there.
struct Paced(Arc<Pace>);

impl Toll for Paced {
    fn pay(&self, bytes: u64) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        Box::pin(async move { self.0.admit(bytes).await.map_err(|_| Error::Cancelled) })
    }

    fn given_up(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move { drop(self.0.rest(FOREVER).await) })
    }
}

impl Task {
    /// Does what is ordered, and says how it ended.
    pub(super) fn carry_out(&self, order: &Order, runtime: &Handle) {
        match order {
            Order::Backup(order) => {
                let ended = runtime.block_on(self.heed(self.back_up(order)));
                self.shared.ends(self.number, ended);
            }
            Order::Restore(order) => {
                let brought = runtime.block_on(self.bring_back(order));
                if !self.shared.ends(self.number, brought) {
                    self.shared.remove_rest(&Begun::from(order));
                }
            }
            _ => {
                let unknown = trouble("unsupported", "this release does not know that order");
                self.shared.ends(self.number, Err(unknown));
            }
        }
        // What is in the store now is told with the outcome, or soon.
        self.shared.sights.look_again();
    }

    /// Does something unless it is given up, or the node stops.
    async fn heed<T>(&self, work: impl Future<Output = Result<T, Trouble>>) -> Result<T, Trouble> {
        tokio::select! {
            done = work => done,
            _ = self.pace.rest(FOREVER) => Err(trouble("cancelled", "it was given up")),
        }
    }

    fn shows(&self, progress: &Progress) {
        if let Some(job) = self.shared.jobs.lock().get_mut(&self.number) {
            let total = (progress.total_bytes > 0).then_some(progress.total_bytes);
            (job.report.done_bytes, job.report.total_bytes) = (progress.done_bytes, total);
        }
    }

    fn toll(&self) -> Arc<Paced> {
        Arc::new(Paced(Arc::clone(&self.pace)))
    }

    async fn back_up(&self, order: &BackupOrder) -> Result<String, Trouble> {
        let Home::Copy { leadership, .. } = &self.shared.home else {
            return Err(trouble("spare", "this node hosts no database yet"));
        };
        let db = leadership.slot.get();
        if db.instance() != order.instance {
            let what = format!("copy {} is not here any more, but {}", order.instance, db.instance());
            return Err(trouble("unknown_instance", what));
        }
        if db.portion().is_some() {
            return Err(trouble("partial", "this copy holds a portion of the database alone"));
        }
        let store = self.shared.store(&order.place).await?.with_toll(self.toll());
        let catalog = Catalog::load(&store).await.map_err(|error| told(&error))?;
        let since = catalog.newest_of(order.instance).map(|backup| backup.position.uid);
        let os = Arc::clone(&self.shared.engine.os);
        let wish = Wish {
            name: None,
            id: u128::from(os.random_u64()) << 64 | u128::from(os.random_u64()),
            // Told before the cut: what the backup says of the time after its last commit must hold.
            taken_ms: os.now_millis(),
            software: concat!("planaria ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let source = pin(leadership, since).await?;
        let shown = |progress: &Progress| self.shows(progress);
        let created = create(&store, &catalog, &source, &wish, &self.is_cancelled, shown).await;
        let Backup { name, bytes, sent_bytes, database, .. } = created.map_err(|error| told(&error))?.backup;
        let mut what = format!("{} has the backup {name}: {bytes} bytes, {sent_bytes} sent", order.place);
        if let Some(keep) = order.keep {
            let kept = Kept { of: Some(database), last: Some(keep.max(1)), within_ms: None };
            let rest = match prune(&store, &kept, None, false).await {
                Ok(pruned) => format!("; {} older ones removed", pruned.backups.len()),
                // The backup is there. What should have gone is tried again with the next one.
                Err(error) => format!("; older ones stay: {error}"),
            };
            what.push_str(&rest);
        }
        Ok(what)
    }

    /// Takes a clone from a store. Once it writes it is given up between two objects alone, so that nothing is renamed after
    /// whoever gave it up has tidied.
    async fn bring_back(&self, order: &RestoreOrder) -> Result<String, Trouble> {
        let begun = Begun::from(order);
        let (target, role) = self.shared.target(&begun)?;
        if self.shared.is_tidied(&target, begun.job) {
            let what = format!("what was begun before in {} is being removed", target.display());
            return Err(trouble("busy", what));
        }
        let store = self.heed(self.shared.store(&order.place)).await?.with_toll(self.toll());
        let catalog = Catalog::load(&store).await.map_err(|error| told(&error))?;
        let plan = planned(&catalog, order).map_err(|error| told(&error))?;
        if self.shared.is_there(&target, role, &plan) {
            return Ok(format!("{} was whole already", target.display()));
        }
        // What is there already is somebody else's, and so is whatever lies beside it.
        if self.shared.engine.os.exists(&target) {
            return Err(trouble("exists", format!("there is something in {} already", target.display())));
        }
        self.shared.takes_place(&begun.name);
        let remembered = self.shared.restores.begin(begun);
        remembered.map_err(|error| trouble(error.code(), error.to_string()))?;
        let (options, shown) = (&self.shared.engine, |progress: &Progress| self.shows(progress));
        let restored = restore(&store, &plan, &target, role, options, &self.is_cancelled, shown).await;
        let restored = restored.map_err(|error| told(&error))?;
        let (name, bytes, uid) = (&plan.base.name, restored.bytes, restored.position.uid);
        let (target, place) = (target.display(), &order.place);
        Ok(format!("{target} has {bytes} bytes of the backup {name} in {place}, up to {uid}"))
    }
}

impl Shared {
    /// Where a clone goes, and as what.
    fn target(&self, order: &Begun) -> Result<(PathBuf, CloneRole), Trouble> {
        match (&self.home, order.role) {
            (Home::Copy { beside, leadership }, WireRole::Detached) if is_clone_name(&order.name) => {
                let target = beside.join(&order.name);
                check_ending(&target).map_err(|error| trouble(&error.code, error.what))?;
                if target == leadership.slot.get().path() {
                    return Err(trouble("exists", format!("{:?} is this node's own database", order.name)));
                }
                Ok((target, CloneRole::Detached))
            }
            (Home::Copy { .. }, WireRole::Detached) => {
                Err(trouble("invalid", format!("{:?} is no name of a clone", order.name)))
            }
            (Home::Spare { dir, role: InstanceRole::Standby }, WireRole::Standby)
            | (Home::Spare { dir, role: InstanceRole::Backup }, WireRole::Backup) => {
                Ok((dir.clone(), CloneRole::Secondary))
            }
            (Home::Copy { .. }, _) => {
                Err(trouble("not_spare", "this node hosts a database, and no second one"))
            }
            (Home::Spare { role, .. }, _) => {
                Err(trouble("not_spare", format!("this node waits to become a {role}")))
            }
        }
    }

    /// Whether somebody still works in a directory for another clone: it is whole and goes, or is no more than begun.
    fn is_tidied(&self, target: &Path, job: u64) -> bool {
        let is_there = |left: &Begun| self.target(left).is_ok_and(|(other, _)| other == target);
        let is_at_work = |left: &Begun| self.hands.lock().contains_key(&left.job);
        self.restores.all().iter().any(|left| left.job != job && is_there(left) && is_at_work(left))
    }

    /// Whether the clone is there already, as it was made: the node ended after it was whole, and before it could say so. One that was
    /// written to since, or has followed a primary, is somebody's own.
    fn is_there(&self, target: &Path, role: CloneRole, plan: &Plan<'_>) -> bool {
        let lineage = self.untouched(target, role);
        let is_that = |lineage: Lineage| {
            let position = lineage.position;
            let is_cut = plan.log.is_empty() && position == plan.base.position;
            lineage.instance == plan.base.instance && (is_cut || position.uid == plan.upto)
        };
        lineage.is_some_and(is_that)
    }

    /// What the clone in a directory was taken of, if it is one of that role and has nothing else.
    fn untouched(&self, target: &Path, role: CloneRole) -> Option<Lineage> {
        let options = Options { create: false, background: false, ..self.engine.clone() };
        let db = Database::open_with(target, options).ok()?;
        let lineage = db.lineage()?;
        let is_as_made = (db.position(), db.log_end().0) == (lineage.position, lineage.position.uid);
        let is_secondary = db.role() == Role::Secondary;
        (is_as_made && is_secondary == (role == CloneRole::Secondary)).then_some(lineage)
    }

    /// Removes what came in of a clone that was given up, and the clone if it was whole before it heard of that and nobody has used it.
    /// Nothing is touched of what this node did not begin.
    pub(super) fn remove_rest(&self, left: &Begun) {
        if self.restores.get(left.job).is_none() {
            return;
        }
        let Ok((target, role)) = self.target(left) else { return };
        let place = ClonePlace::new(&target, Arc::clone(&self.engine.os));
        // Held from the first look on: nobody begins another one there meanwhile.
        let removed = place.claim().and_then(|place| {
            let is_whole = self.untouched(&target, role).is_some();
            place.abandon()?;
            if is_whole { place.remove().map(drop) } else { Ok(()) }
        });
        match removed {
            Ok(()) => self.restores.end(left.job),
            // It is told of again, and given up again.
            Err(error) => {
                tracing::warn!(%error, "what came in of a clone that was given up cannot be removed");
            }
        }
    }

    /// Whether a clone that was begun is whole.
    pub(super) fn is_whole(&self, left: &Begun) -> bool {
        let target = self.target(left).map(|(target, _)| target);
        target.is_ok_and(|target| ClonePlace::new(target, Arc::clone(&self.engine.os)).is_there())
    }
}

/// From which backup an ordered state is taken, and which log is replayed on it: of the copy that the named one was taken of.
fn planned<'a>(catalog: &'a Catalog, order: &RestoreOrder) -> planaria_backup::Result<Plan<'a>> {
    let own = || catalog.backups.iter().filter(|backup| backup.database == order.database);
    let named = Some(order.backup.as_str()).filter(|name| !name.is_empty());
    let as_of = match order.as_of {
        Wanted::Newest => return plan(&own().collect::<Vec<_>>(), named, AsOf::Backup),
        Wanted::Time(millis) => AsOf::Time(millis),
        Wanted::Position(uid) => AsOf::Commit(uid),
    };
    let Some(name) = named else { return plan(&own().collect::<Vec<_>>(), None, as_of) };
    let base = plan(&own().collect::<Vec<_>>(), Some(name), AsOf::Backup)?.base;
    plan(&own().filter(|backup| backup.instance == base.instance).collect::<Vec<_>>(), None, as_of)
}

/// The files of a cut of the copy that this node hosts.
async fn pin(leadership: &Arc<Leadership>, since: Option<planaria_types::Uid>) -> Result<Pinned, Trouble> {
    let leadership = Arc::clone(leadership);
    let pinned = tokio::task::spawn_blocking(move || {
        let serving =
            leadership.serving().ok_or_else(|| trouble("not_ready", "the copy is being opened anew"))?;
        serving.pin_archive(since).map_err(|error| trouble(error.code(), error.to_string()))
    });
    let pin = pinned.await.map_err(|error| trouble("internal", error.to_string()))??;
    Ok(Pinned::new(pin))
}
