//! Run files taken as they lie: which parts are missing, how they are read, and how a complete copy takes the place
//! of the one before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use planaria_engine::os::Os;
use planaria_engine::{CLONE_CHUNK_BYTES, CloneTarget, FileKind, FilePin, MissingChunk};

use crate::{Error, Result};

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
        let MissingChunk { kind, number, chunk } = *missing;
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
        Self { dir: dir.to_path_buf(), next: dir.with_extension("next"), old: dir.with_extension("old") }
    }

    /// Makes room for a successor. What an earlier attempt brought of one stays for this attempt to go on with.
    pub fn prepare(&self, os: &dyn Os) -> Result<()> {
        remove(os, &self.next)?;
        remove(os, &self.old)
    }

    /// Puts the complete successor in the copy's place. The copy must be closed.
    pub fn swap(&self, os: &dyn Os) -> Result<()> {
        rename(os, &self.dir, &self.old)?;
        rename(os, &self.next, &self.dir)
    }

    /// Removes the copy that was replaced: a verified one is in its place.
    pub fn clean(&self, os: &dyn Os) -> Result<()> {
        remove(os, &self.old)
    }
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
