use std::path::{Path, PathBuf};

use planaria_types::{DatabaseId, InstanceId};

use super::claim::Claim;
use super::local::link_as;
use super::target::LIST;
use super::{CloneAbout, ClonePurpose, CloneRole, Origin, clone_manifest, partial_dir};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::os::{DirLock, OpenMode, Os};
use crate::sealed::{beside, parent};
use crate::store::{LOCK, Store, check_complete};
use crate::sync::Arc;
use crate::version::{MANIFEST, Manifest, Role};

/// Within a directory that a clone has replaced: it is kept until somebody says that it may go.
const KEPT: &str = "KEPT";

/// The directory of a clone while nobody has it open, and what lies beside it under names made from its own.
///
/// | name | what |
/// |---|---|
/// | `NAME.next` | the complete clone that is about to take the place of `NAME` |
/// | `NAME.partial`, `NAME.next.partial` | what was received so far |
/// | `NAME.renewing` | a link of `NAME` that is being brought up to date |
/// | `NAME.replaced` | what `NAME` was before |
/// | `NAME.dropped` | what is being removed |
/// | `NAME.lock` | locked by whoever changes any of these |
#[derive(Clone, Debug)]
pub struct ClonePlace {
    dir: PathBuf,
    os: Arc<dyn Os>,
    /// Held for longer than a call, if somebody has claimed it.
    claim: Option<Arc<Claim>>,
}

impl ClonePlace {
    /// The place of the clone `dir`.
    pub fn new(dir: impl AsRef<Path>, os: Arc<dyn Os>) -> Self {
        Self { dir: dir.as_ref().to_path_buf(), os, claim: None }
    }

    /// Keeps everybody else, in this process and others, from changing what lies here, until this is dropped. Without it each call
    /// that changes something does so for its own time.
    ///
    /// # Errors
    ///
    /// `Busy` while somebody else does, `Io`.
    pub fn claim(self) -> Result<Self> {
        let above = parent(&self.dir);
        if !self.os.exists(&above) {
            self.os.create_dir_all(&above).map_err(|error| Error::io("create", &above, error))?;
        }
        let claim = Arc::new(Claim::of(&self.os, &self.dir)?);
        Ok(Self { claim: Some(claim), ..self })
    }

    /// The claim under which a call changes something.
    fn claimed(&self) -> Result<Option<Arc<Claim>>> {
        match &self.claim {
            Some(claim) => Ok(Some(Arc::clone(claim))),
            None => Ok(Claim::of_existing(&self.os, &self.dir)?.map(Arc::new)),
        }
    }

    /// The clone's own directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where its successor is put together.
    pub fn next(&self) -> PathBuf {
        beside(&self.dir, ".next")
    }

    /// Where what it has replaced is kept.
    pub fn replaced(&self) -> PathBuf {
        beside(&self.dir, ".replaced")
    }

    /// Where a link of it is brought up to date.
    pub fn renewing(&self) -> PathBuf {
        beside(&self.dir, ".renewing")
    }

    fn dropped(&self) -> PathBuf {
        beside(&self.dir, ".dropped")
    }

    /// Whether there is a database.
    pub fn is_there(&self) -> bool {
        self.os.exists(&self.dir.join(MANIFEST))
    }

    /// Whether there is one that it has replaced.
    pub fn has_replaced(&self) -> bool {
        self.os.exists(&self.replaced().join(MANIFEST)) || self.is_half_exchanged()
    }

    /// Whether an exchange was interrupted before its last name: what was replaced is called as what was to replace it.
    fn is_half_exchanged(&self) -> bool {
        self.is_there() && is_kept(&*self.os, &self.next())
    }

    /// The directories of a clone that was begun and is not complete.
    pub fn partials(&self) -> Vec<PathBuf> {
        let places = [partial_dir(&self.dir), partial_dir(&self.next())];
        let received = places.into_iter().filter(|dir| self.os.exists(&dir.join(LIST)));
        let next = (!self.is_half_exchanged()).then(|| self.next());
        let whole = next.into_iter().chain([self.renewing()]);
        received.chain(whole.filter(|dir| self.os.exists(&dir.join(MANIFEST)))).collect()
    }

    /// Ends what was interrupted: an exchange whose last name is missing, a removal that was begun.
    ///
    /// # Errors
    ///
    /// `Busy`, `Io`. It may be called again.
    pub fn settle(&self) -> Result<()> {
        let _claim = self.claimed()?;
        self.settle_claimed()
    }

    fn settle_claimed(&self) -> Result<()> {
        let (next, replaced) = (self.next(), self.replaced());
        if self.is_half_exchanged() {
            self.remove_dir(&replaced)?;
            self.rename(&next, &replaced)?;
        }
        self.remove_dir(&self.dropped())
    }

    /// Puts the complete clone in [`ClonePlace::next`] in the place of this one, durably and in one step; what was there
    /// is kept in [`ClonePlace::replaced`], what was kept there goes.
    ///
    /// # Errors
    ///
    /// `InUse` while a process has this one open, `NotExchanged` where the file system cannot exchange two names: then everything is
    /// as it was.
    pub fn install(&self) -> Result<()> {
        let _claim = self.claimed()?;
        let next = self.next();
        if !self.is_there() {
            self.rename(&next, &self.dir)?;
            return Ok(());
        }
        let _lock = self.lock(&self.dir)?;
        self.mark_kept(&self.dir)?;
        if let Err(error) = self.os.exchange(&self.dir, &next) {
            unmark_kept(&*self.os, &self.dir)?;
            let source = std::sync::Arc::new(error);
            return Err(Error::NotExchanged { path: self.dir.clone(), whole: next, source });
        }
        self.sync()?;
        self.settle_claimed()?;
        // What was given up for another way.
        let renewing = self.renewing();
        self.remove_dir(&partial_dir(&renewing))?;
        self.remove_dir(&renewing)
    }

    /// Puts what was replaced back in its place, in one step; the clone that had replaced it is kept instead.
    ///
    /// # Errors
    ///
    /// `NotFound` if nothing is kept, `InUse` while a process has the clone open.
    pub fn roll_back(&self) -> Result<()> {
        let _claim = self.claimed()?;
        self.settle_claimed()?;
        let replaced = self.replaced();
        if !self.has_replaced() {
            return Err(Error::NotFound { path: replaced });
        }
        if !self.is_there() {
            self.rename(&replaced, &self.dir)?;
            return unmark_kept(&*self.os, &self.dir);
        }
        let _lock = self.lock(&self.dir)?;
        self.mark_kept(&self.dir)?;
        self.exchange(&self.dir, &replaced)?;
        unmark_kept(&*self.os, &self.dir)
    }

    /// Removes what was replaced. Whether there was anything.
    ///
    /// # Errors
    ///
    /// `InUse` while a process has it open.
    pub fn drop_replaced(&self) -> Result<bool> {
        let _claim = self.claimed()?;
        self.settle_claimed()?;
        let replaced = self.replaced();
        if !self.os.exists(&replaced) {
            return Ok(false);
        }
        self.discard(&replaced)?;
        Ok(true)
    }

    /// Removes what was received of a clone that is not complete, and one that is but took nobody's place yet. Whether
    /// there was anything.
    ///
    /// # Errors
    ///
    /// `Busy` while somebody works on it, `Io`. It may be called again.
    pub fn abandon(&self) -> Result<bool> {
        let _claim = self.claimed()?;
        self.settle_claimed()?;
        let mut found = false;
        let renewing = self.renewing();
        for dir in
            [partial_dir(&self.dir), partial_dir(&self.next()), partial_dir(&renewing), renewing, self.next()]
        {
            found |= self.os.exists(&dir);
            self.remove_dir(&dir)?;
        }
        Ok(found)
    }

    /// Removes the clone; what it had replaced stays. Whether there was one.
    ///
    /// # Errors
    ///
    /// `InUse` while a process has it open.
    pub fn remove(&self) -> Result<bool> {
        let _claim = self.claimed()?;
        self.settle_claimed()?;
        if !self.os.exists(&self.dir) {
            return Ok(false);
        }
        self.discard(&self.dir)?;
        Ok(true)
    }

    /// Whether what lies here was cloned from something, and is no database that somebody began.
    ///
    /// # Errors
    ///
    /// `Damaged` or `Foreign` where its files are not what was written.
    pub fn is_clone(&self) -> Result<bool> {
        let manifest = Manifest::read(&self.os, &self.dir)?;
        Ok(manifest.is_some_and(|manifest| manifest.lineage.is_some()) || self.about()?.is_some())
    }

    /// What the clone says of itself.
    ///
    /// # Errors
    ///
    /// As [`CloneAbout::read`].
    pub fn about(&self) -> Result<Option<CloneAbout>> {
        CloneAbout::read(&self.os, &self.dir)
    }

    /// Has the clone say something else of itself.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none, `Io`, `NoSpace`.
    pub fn set_about(&self, about: &CloneAbout) -> Result<()> {
        if !self.is_there() {
            return Err(Error::NotFound { path: self.dir.clone() });
        }
        about.write(&self.os, &self.dir)
    }

    /// Makes a database of its own of a clone that was a secondary: a new identity, before it takes anything.
    ///
    /// # Errors
    ///
    /// `InUse` while a process has it open, `NotFound`, `Invalid` if it is one already, `Partial` if it holds a portion.
    pub fn promote(&self, options: &Options) -> Result<DatabaseId> {
        let _claim = self.claimed()?;
        self.settle_claimed()?;
        // What it has logged is replayed, and lies in runs from then on; the state is known as readers see it.
        let db = Database::open_with(&self.dir, Options { create: false, ..options.clone() })?;
        let database = self.detach(&self.dir, db)?;
        if let Some(about) = self.about()? {
            // What is a database of its own does not go because of what was planned for a copy.
            self.set_about(&CloneAbout { purpose: ClonePurpose::Detached, expires_ms: None, ..about })?;
        }
        Ok(database)
    }

    /// Links the clone into [`ClonePlace::renewing`] as a secondary of the database that it was taken of, where it was left:
    /// what follows that database brings it up to date. What an earlier attempt has made of it is gone on with.
    ///
    /// # Errors
    ///
    /// `Invalid`, with the reason, if it cannot be: it was written to since, or knows nothing of where it is from. `InUse`
    /// while a process has it open.
    pub fn begin_renewal(&self, options: &Options) -> Result<DatabaseId> {
        let _claim = self.claimed()?;
        let _lock = self.lock(&self.dir)?;
        let manifest =
            Manifest::read(&self.os, &self.dir)?.ok_or_else(|| Error::NotFound { path: self.dir.clone() })?;
        check_complete(&self.dir, &manifest)?;
        // Its run files are linked, not read; and nothing works in its background, which might commit a split of its own.
        let db = Database::of_view(Store::open_view(&self.dir, manifest, options.clone())?);
        db.store().check_whole("is not brought up to date by what changed")?;
        let of = match (db.role(), db.lineage()) {
            (Role::Secondary, _) => db.id(),
            (Role::Primary, None) => return Err(Error::Invalid("it was cloned from nothing".into())),
            (Role::Primary, Some(lineage))
                if (db.position(), db.log_end().0) == (lineage.position, lineage.position.uid) =>
            {
                lineage.database
            }
            (Role::Primary, Some(_)) => {
                return Err(Error::Invalid(
                    "it was written to since it was taken, or was not given everything".into(),
                ));
            }
        };
        let renewing = self.renewing();
        let earlier = Manifest::read(&self.os, &renewing)?;
        if earlier.is_some_and(|own| own.group.role == Role::Secondary && own.database == of) {
            return Ok(of);
        }
        self.remove_dir(&renewing)?;
        self.remove_dir(&partial_dir(&renewing))?;
        let partial = partial_dir(&renewing);
        link_as(db.store(), &partial, &renewing, CloneRole::Secondary, of, Origin::This)?;
        Ok(of)
    }

    /// Ends what [`ClonePlace::begin_renewal`] began: the copy that is up to date, `db`, which nobody else has open, becomes what
    /// it is to be, and waits in [`ClonePlace::next`].
    ///
    /// # Errors
    ///
    /// As [`ClonePlace::promote`].
    pub fn end_renewal(&self, db: Database, about: &CloneAbout) -> Result<()> {
        let _claim = self.claimed()?;
        let renewing = self.renewing();
        if about.purpose == ClonePurpose::Detached {
            self.detach(&renewing, db)?;
        } else {
            db.close();
            drop(db);
        }
        about.write(&self.os, &renewing)?;
        self.remove_dir(&self.next())?;
        self.rename(&renewing, &self.next())
    }

    /// Gives a secondary in `dir`, which nobody else has open, an identity of its own.
    fn detach(&self, dir: &Path, db: Database) -> Result<DatabaseId> {
        if db.role() != Role::Secondary {
            return Err(Error::Invalid(format!(
                "{} is a database of its own already, which takes updates",
                dir.display()
            )));
        }
        db.store().check_whole("is made no database of its own")?;
        db.flush()?;
        let position = db.position();
        db.close();
        drop(db);
        let _lock = self.lock(dir)?;
        let source =
            Manifest::read(&self.os, dir)?.ok_or_else(|| Error::NotFound { path: dir.to_path_buf() })?;
        let random = || u128::from(self.os.random_u64()) << 64 | u128::from(self.os.random_u64());
        let (instance, database) = (InstanceId(random()), DatabaseId(random()));
        let now_ms = self.os.now_millis();
        let mut own = clone_manifest(&source, position, CloneRole::Detached, instance, database, now_ms);
        own.generation = source.generation + 1;
        // What was promised to the primary of another database binds nobody here.
        own.group.promised = own.group.history.current();
        own.write(&self.os, dir)?;
        Ok(database)
    }

    fn lock(&self, dir: &Path) -> Result<Box<dyn DirLock>> {
        let path = dir.join(LOCK);
        self.os.lock(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => Error::InUse { path: dir.to_path_buf() },
            _ => Error::io("lock", &path, error),
        })
    }

    fn mark_kept(&self, dir: &Path) -> Result<()> {
        let path = dir.join(KEPT);
        if !self.os.exists(&path) {
            self.os.open(&path, OpenMode::CreateNew).map_err(|error| Error::io("create", &path, error))?;
        }
        self.os.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))
    }

    fn exchange(&self, one: &Path, other: &Path) -> Result<()> {
        self.os.exchange(one, other).map_err(|error| Error::io("exchange", one, error))?;
        self.sync()
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.os.rename(from, to).map_err(|error| Error::io("rename", from, error))?;
        self.sync()
    }

    fn sync(&self) -> Result<()> {
        let parent = parent(&self.dir);
        self.os.sync_dir(&parent).map_err(|error| Error::io("sync", &parent, error))
    }

    /// Removes a database that nobody has open. It loses its name first: nobody finds a half of it.
    fn discard(&self, dir: &Path) -> Result<()> {
        let _lock = self.lock(dir)?;
        let dropped = self.dropped();
        self.remove_dir(&dropped)?;
        self.rename(dir, &dropped)?;
        self.remove_dir(&dropped)
    }

    fn remove_dir(&self, dir: &Path) -> Result<()> {
        if !self.os.exists(dir) {
            return Ok(());
        }
        self.os.remove_dir_all(dir).map_err(|error| Error::io("remove", dir, error))?;
        self.sync()
    }
}

/// Whether a directory was replaced by a clone, and is to be kept for as long as nobody says otherwise.
pub fn is_kept(os: &dyn Os, dir: &Path) -> bool {
    os.exists(&dir.join(KEPT))
}

/// Has a directory be kept no longer than others.
///
/// # Errors
///
/// `Io`.
pub fn unmark_kept(os: &dyn Os, dir: &Path) -> Result<()> {
    let path = dir.join(KEPT);
    if os.exists(&path) {
        os.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
        os.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
    }
    Ok(())
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "place_tests.rs"]
mod tests;
