use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use planaria_types::{DatabaseId, InstanceId, Position};

use super::claim::Claim;
use super::{CloneRole, FileKind, Origin, clone_manifest, file_path, partial_dir};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::os::{OpenMode, Os};
use crate::sealed::parent;
use crate::store::{Store, log_dir};
use crate::sync::Arc;
use crate::version::{Lineage, run_dir};

/// How much is copied at once where a link is impossible, in bytes.
const COPY_BYTES: usize = 1 << 20;

/// What a local clone did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LocalClone {
    /// Where the clone lies.
    pub path: PathBuf,
    /// The state that was cloned.
    pub position: Position,
    /// The clone's database.
    pub database: DatabaseId,
    /// Files that got a second name.
    pub linked: u64,
    /// Files that had to be copied, because the file system cannot link them.
    pub copied: u64,
    /// Bytes of all files.
    pub bytes: u64,
}

impl Database {
    /// Clones the database into `target`, a new directory on the same machine: hard links where the file system can,
    /// copies where it cannot. Readers and writers stay connected. The clone is a database of its own; neither side's
    /// later writes reach the other.
    ///
    /// # Errors
    ///
    /// `Exists` if there is something at `target`, `Busy` while somebody else makes a clone there. Nothing is left behind by a clone
    /// that fails.
    pub fn clone_to(&self, target: impl AsRef<Path>) -> Result<LocalClone> {
        self.clone_with(target.as_ref(), Origin::This)
    }

    /// As [`Database::clone_to`], for a database that was made to be given away: the clone names as its source what this one
    /// was said to be made of ([`Database::set_lineage`]).
    ///
    /// # Errors
    ///
    /// As [`Database::clone_to`].
    pub fn pass_on_to(&self, target: impl AsRef<Path>) -> Result<LocalClone> {
        self.clone_with(target.as_ref(), Origin::ItsSource)
    }

    /// Says what this database was made of. Clones that are to name that as their source, rather than this database, are made by
    /// [`Database::pass_on_to`] and [`CloneTarget::inherit_lineage`](super::CloneTarget::inherit_lineage).
    ///
    /// # Errors
    ///
    /// Those of writing the manifest.
    pub fn set_lineage(&self, lineage: Lineage) -> Result<()> {
        self.store().set_lineage(lineage)
    }

    fn clone_with(&self, target: &Path, origin: Origin) -> Result<LocalClone> {
        let store = self.store();
        let os = &store.options.os;
        if os.exists(target) {
            return Err(Error::Exists { path: target.to_path_buf() });
        }
        if is_within(target, &store.dir) {
            let what = format!("a clone in {} would lie in its own source", target.display());
            return Err(Error::Invalid(what));
        }
        let _claim = Claim::of_existing(os, target)?;
        let partial = partial_dir(target);
        if os.exists(&partial) {
            os.remove_dir_all(&partial).map_err(|error| Error::io("remove", &partial, error))?;
        }
        let cloned = link_files(store, &partial, target, origin);
        if cloned.is_err() {
            // What stays behind says of itself that it is not complete.
            let _ = os.remove_dir_all(&partial);
        }
        cloned
    }
}

/// Whether a path leads into a directory, as far as the paths tell.
fn is_within(path: &Path, dir: &Path) -> bool {
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    whole(path).starts_with(whole(dir))
}

fn link_files(store: &Store, partial: &Path, target: &Path, origin: Origin) -> Result<LocalClone> {
    let os = &store.options.os;
    let random = || u128::from(os.random_u64()) << 64 | u128::from(os.random_u64());
    link_as(store, partial, target, CloneRole::Detached, DatabaseId(random()), origin)
}

/// Links the files of a cut into `partial`, as a copy of `database`, and gives it its name when it is whole.
pub(super) fn link_as(
    store: &Store,
    partial: &Path,
    target: &Path,
    role: CloneRole,
    database: DatabaseId,
    origin: Origin,
) -> Result<LocalClone> {
    let os = &store.options.os;
    for dir in [partial.to_path_buf(), run_dir(partial), log_dir(partial)] {
        os.create_dir_all(&dir).map_err(|error| Error::io("create", &dir, error))?;
    }
    let instance = InstanceId(u128::from(os.random_u64()) << 64 | u128::from(os.random_u64()));
    let mut done = LocalClone {
        path: target.to_path_buf(),
        position: Position::default(),
        database,
        linked: 0,
        copied: 0,
        bytes: 0,
    };
    let manifest = store.cut(|cut| {
        let runs = cut.manifest.runs.iter().map(|run| (FileKind::Run, run.file.0, run.meta.len));
        let segments = store.log.segments();
        let length =
            |number| segments.iter().find(|own| own.number == number).map_or(0, |own| own.end_offset);
        let logs = cut.segments.iter().map(|number| (FileKind::Log, *number, length(*number)));
        for (kind, number, len) in runs.chain(logs) {
            let (from, to) = (file_path(&store.dir, kind, number), file_path(partial, kind, number));
            if link_or_copy(os, &from, &to)? {
                done.linked += 1;
            } else {
                done.copied += 1;
            }
            done.bytes += len;
        }
        done.position = cut.position;
        let now_ms = os.now_millis();
        let manifest = clone_manifest(&cut.manifest, cut.position, role, instance, database, now_ms);
        Ok(origin.name_in(manifest, &cut.manifest))
    })?;
    for dir in [run_dir(partial), log_dir(partial)] {
        os.sync_dir(&dir).map_err(|error| Error::io("sync", &dir, error))?;
    }
    manifest.write(os, partial)?;
    publish(os, partial, target)?;
    Ok(done)
}

/// Gives a complete clone its name, durably.
pub(super) fn publish(os: &Arc<dyn Os>, partial: &Path, target: &Path) -> Result<()> {
    os.rename(partial, target).map_err(|error| Error::io("rename", partial, error))?;
    let parent = parent(target);
    os.sync_dir(&parent).map_err(|error| Error::io("sync", &parent, error))
}

/// Links a file, or copies it where that is impossible; tells whether it was linked.
fn link_or_copy(os: &Arc<dyn Os>, from: &Path, to: &Path) -> Result<bool> {
    match os.hard_link(from, to) {
        Ok(()) => return Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::CrossesDevices) => {}
        Err(error) => return Err(Error::io("link", from, error)),
    }
    let source = os.open(from, OpenMode::Read).map_err(|error| Error::io("open", from, error))?;
    let target = os.open(to, OpenMode::CreateNew).map_err(|error| Error::io("create", to, error))?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut offset = 0;
    loop {
        let count = source.read_at(&mut buffer, offset).map_err(|error| Error::io("read", from, error))?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
        target.write_all_at(bytes, offset).map_err(|error| Error::io("write", to, error))?;
        offset += count as u64;
    }
    target.sync_data().map_err(|error| Error::io("sync", to, error))?;
    Ok(false)
}
