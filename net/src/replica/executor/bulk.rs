//! Run files taken as they lie: which parts are missing, how they are read, and how a complete copy takes the place
//! of the one before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use planaria_engine::os::Os;
use planaria_engine::{
    CLONE_CHUNK_BYTES, CloneTarget, Database, FileKind, FileList, FilePin, MissingChunk, is_kept, unmark_kept,
};
use planaria_types::{DatabaseId, Epoch, EpochOrder, Uid};

use crate::{Error, Result};

/// Directories within a copy's that outlive the copy.
const KEPT: [&str; 3] = ["quarantine", "tls", "clones"];

/// Missing chunks of one file that follow one another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// The file's kind.
    pub kind: FileKind,
    /// Its number.
    pub number: u64,
    /// Where the first of them begins, in bytes.
    pub offset: u64,
    /// Their length, in bytes.
    pub length: u64,
}

impl Range {
    /// The chunk of this file that begins at `offset`.
    pub fn chunk_at(&self, offset: u64) -> MissingChunk {
        MissingChunk { kind: self.kind, number: self.number, chunk: offset / CLONE_CHUNK_BYTES }
    }
}

/// What a target still needs, in the order in which it is fetched.
pub fn ranges(target: &CloneTarget) -> Vec<Range> {
    let lengths: BTreeMap<_, _> =
        target.list().files.iter().map(|file| ((file.kind, file.number), file.len)).collect();
    let mut ranges: Vec<Range> = Vec::new();
    for missing in target.missing() {
        let MissingChunk { kind, number, chunk } = missing;
        let offset = chunk * CLONE_CHUNK_BYTES;
        let len = lengths.get(&(kind, number)).map_or(0, |len| (len - offset).min(CLONE_CHUNK_BYTES));
        match ranges.last_mut() {
            Some(last)
                if (last.kind, last.number) == (kind, number) && last.offset + last.length == offset =>
            {
                last.length += len;
            }
            _ => ranges.push(Range { kind, number, offset, length: len }),
        }
    }
    ranges
}

/// What files must be to take a copy's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    /// The copy's database.
    pub database: DatabaseId,
    /// The epoch that the copy has promised to follow: none that is older.
    pub promised: Epoch,
    /// The copy may have acknowledged everything up to this UID.
    pub at_least: Uid,
}

impl Terms {
    /// The terms of a copy that takes run files.
    pub fn of(copy: &Database, at_least: Uid) -> Self {
        Self { database: copy.id(), promised: copy.promised(), at_least }
    }

    /// Refuses files that do not meet them: whoever answers at the primary's address may be another one by now.
    pub fn check(&self, list: &FileList) -> Result<()> {
        let Self { database, promised, at_least } = self;
        let (of, epoch, end) = (list.database(), list.epoch(), list.position.uid);
        if of != *database {
            return Err(Error::Protocol(format!("the run files are of database {of}, not of {database}")));
        }
        if !matches!(epoch.order(promised), EpochOrder::Newer | EpochOrder::Same) {
            return Err(Error::Protocol(format!(
                "the run files are of epoch {epoch}, promised is {promised}"
            )));
        }
        if end < *at_least {
            return Err(Error::Protocol(format!(
                "the run files end at {end}, the copy may have acknowledged {at_least}"
            )));
        }
        Ok(())
    }
}

/// Bytes of a pinned file, of one chunk at a time.
pub fn read(pin: &FilePin, kind: FileKind, number: u64, offset: u64, len: usize) -> Result<Bytes> {
    let chunk = pin.read(kind, number, offset / CLONE_CHUNK_BYTES)?;
    let start = (offset % CLONE_CHUNK_BYTES) as usize;
    let within = start.checked_add(len).filter(|end| *end <= chunk.len());
    within
        .map(|end| chunk.slice(start..end))
        .ok_or_else(|| Error::Protocol("a request beyond the end of a chunk".into()))
}

/// Where a copy lies, where its successor is put together, and where it goes itself when the successor is complete.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Places {
    /// The copy.
    pub dir: PathBuf,
    /// Its successor.
    pub next: PathBuf,
    /// The copy that was replaced.
    pub old: PathBuf,
}

impl Places {
    /// The places that belong to the copy at `dir`.
    pub fn of(dir: &Path) -> Self {
        let beside = |ending: &str| {
            let mut name = dir.file_name().unwrap_or_default().to_os_string();
            name.push(ending);
            dir.with_file_name(name)
        };
        Self { dir: dir.to_path_buf(), next: beside(".next"), old: beside(".replaced") }
    }

    /// Makes room for a successor. What an earlier attempt brought of one stays for this attempt to go on with.
    pub fn prepare(&self, os: &dyn Os) -> Result<()> {
        remove(os, &self.next)
    }

    /// Tells the complete successor whose place it will take. That comes before [`Places::swap`].
    pub fn name_successor(&self, copy: &Database) -> Result<()> {
        Ok(copy.hand_place_to(&self.next)?)
    }

    /// Puts the complete successor in the copy's place, durably. The copy must be closed. Where this ends in between,
    /// [`Places::settle`] goes on.
    pub fn swap(&self, os: &dyn Os) -> Result<()> {
        remove(os, &self.old)?;
        unmark_kept(os, &self.dir)?;
        rename(os, &self.dir, &self.old)?;
        // Names need not become durable in their order: the second without the first would drop the copy as a whole.
        self.sync(os)?;
        rename(os, &self.next, &self.dir)?;
        self.sync(os)
    }

    /// Before the copy is opened: ends an exchange that was interrupted. Between its two renames there is nothing under
    /// the copy's name, and whoever finds nothing there would begin an empty copy.
    pub fn settle(&self, os: &dyn Os) -> Result<()> {
        if !os.exists(&self.dir) {
            let complete = [&self.next, &self.old].into_iter().find(|place| os.exists(place));
            let Some(complete) = complete else { return Ok(()) };
            rename(os, complete, &self.dir)?;
        }
        // What a clone has replaced stays until somebody says that it may go.
        if is_kept(os, &self.old) {
            return Ok(());
        }
        // The exchange may not be durable yet: a power cut must not bring back a copy that was removed in part.
        if os.exists(&self.old) { self.sync(os).and_then(|()| self.clean(os)) } else { Ok(()) }
    }

    fn sync(&self, os: &dyn Os) -> Result<()> {
        let parent = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        os.sync_dir(parent).map_err(|error| Error::file("sync", parent, error))
    }

    /// Removes the copy that was replaced, once a verified one is in its place.
    pub fn clean(&self, os: &dyn Os) -> Result<()> {
        self.keep(os)?;
        self.discard(os)
    }

    /// Moves over what is not the store's of the copy that was replaced, and what it took back for people to look at. What
    /// stays behind is garbage.
    pub fn keep(&self, os: &dyn Os) -> Result<()> {
        for name in KEPT {
            let (from, to) = (self.old.join(name), self.dir.join(name));
            if os.exists(&from) {
                move_files(os, &from, &to)?;
            }
        }
        // Also what an earlier attempt moved over.
        os.sync_dir(&self.dir).map_err(|error| Error::file("sync", &self.dir, error))
    }

    /// Removes what stayed behind of the copy that was replaced. That may take long, and may end at any point: the next start
    /// goes on.
    pub fn discard(&self, os: &dyn Os) -> Result<()> {
        remove(os, &self.old)
    }
}

/// Gives the files of a directory a place in another one. Links rather than renames, where there are any: after a power cut a
/// renamed directory might have both names, and removing one would empty the other.
fn move_files(os: &dyn Os, from: &Path, to: &Path) -> Result<()> {
    os.create_dir_all(to).map_err(|error| Error::file("create", to, error))?;
    for entry in os.list(from).map_err(|error| Error::file("list", from, error))? {
        let (file, place) = (from.join(&entry.name), to.join(&entry.name));
        if !entry.is_dir && !os.exists(&place) && os.hard_link(&file, &place).is_err() {
            rename(os, &file, &place)?;
        }
    }
    os.sync_dir(to).map_err(|error| Error::file("sync", to, error))
}

fn rename(os: &dyn Os, from: &Path, to: &Path) -> Result<()> {
    os.rename(from, to).map_err(|error| Error::file("rename", from, error))
}

fn remove(os: &dyn Os, path: &Path) -> Result<()> {
    if !os.exists(path) {
        return Ok(());
    }
    os.remove_dir_all(path).map_err(|error| Error::file("remove", path, error))
}
