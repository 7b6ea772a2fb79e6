//! Making a database of a backup.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::{StreamExt, TryStreamExt};
use planaria_engine::{
    CLONE_CHUNK_BYTES, ClonePlace, CloneRole, CloneTarget, FileKind, FileList, LogSegment, MissingChunk,
    Options,
};
use planaria_types::Position;

use crate::Progress;
use crate::catalog::AT_ONCE;
use crate::contents::Contents;
use crate::error::{Error, Result};
use crate::manifest::Backup;
use crate::object::{Part, parts_of};
use crate::plan::Plan;
use crate::source::blocking;
use crate::store::Store;

/// A database that was restored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    /// The directory.
    pub path: PathBuf,
    /// Its state.
    pub position: Position,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that an earlier attempt had brought.
    pub resumed_bytes: u64,
}

/// Restores a state into the new directory `target`. Every chunk is checked before it is written; until the last step the files lie
/// in `target.partial`, which is no database, and with which another attempt goes on.
///
/// # Errors
///
/// `Damaged` and `Missing` name the object. `Cancelled` leaves nothing behind.
pub async fn restore(
    store: &Store,
    plan: &Plan<'_>,
    target: &Path,
    role: CloneRole,
    options: &Options,
    cancelled: &AtomicBool,
    progress: impl Fn(&Progress),
) -> Result<Restored> {
    let list = list_of(store, plan).await?;
    let (path, options) = (target.to_path_buf(), options.clone());
    let open = move || {
        let place = ClonePlace::new(&path, Arc::clone(&options.os)).claim()?;
        Ok((place, CloneTarget::open(path, list, options)?))
    };
    // Nobody else restores or clones into the same directory until this has ended.
    let (_place, mut clone) = blocking(open).await?;
    let (files, bytes) = (clone.list().files.len() as u64, clone.list().bytes());
    let resumed_bytes = clone.resumed_bytes();
    let mut state = Progress { total_bytes: bytes, done_bytes: resumed_bytes };
    progress(&state);
    let wanted = wanted(&clone);
    let mut coming = futures_util::stream::iter(wanted)
        .map(|piece| async move {
            let path = piece.part.address.path();
            let bytes = store.get(&path, piece.part.len).await?;
            // The length is checked here, so that every chunk is where it is looked for; the hashes where it is written.
            if bytes.len() as u64 != piece.part.len {
                let what = format!("it has {} bytes instead of {}", bytes.len(), piece.part.len);
                return Err(Error::Damaged { object: path, what });
            }
            Ok((piece, bytes))
        })
        .buffer_unordered(AT_ONCE);
    while let Some((piece, bytes)) = coming.try_next().await? {
        let mut written = 0;
        clone = blocking(move || write(clone, &piece, &bytes, &mut written).map(|clone| (clone, written)))
            .await
            .map(|(clone, bytes)| {
                state.done_bytes += bytes;
                clone
            })?;
        progress(&state);
        if cancelled.load(Ordering::Relaxed) {
            drop(coming);
            blocking(move || Ok(clone.discard()?)).await?;
            return Err(Error::Cancelled);
        }
    }
    drop(coming);
    let replays = !plan.log.is_empty();
    let (upto, base) = (plan.upto, plan.base.position);
    let finish = move || {
        if replays {
            return Ok(clone.finish_as_of(role, upto)?);
        }
        clone.finish(role)?;
        Ok(base)
    };
    let position = blocking(finish).await?;
    Ok(Restored { path: target.to_path_buf(), position, files, bytes, resumed_bytes })
}

/// The files of the plan's base and of the log that is replayed.
async fn list_of(store: &Store, plan: &Plan<'_>) -> Result<FileList> {
    let base = Contents::load(store, plan.base).await?.list;
    let mut contents: BTreeMap<&str, Contents> = BTreeMap::new();
    let mut segments: Vec<LogSegment> = Vec::new();
    for (backup, segment) in &plan.log {
        if !contents.contains_key(backup.name.as_str()) {
            contents.insert(&backup.name, Contents::load(store, backup).await?);
        }
        let log = contents.get(backup.name.as_str()).map(|contents| contents.log.as_slice());
        let found = log.unwrap_or_default().iter().find(|own| own.file.number == segment.number);
        let found = found.ok_or_else(|| Error::Damaged {
            object: Backup::path(&backup.name),
            what: format!("it names log segment {}, which its list of files lacks", segment.number),
        })?;
        segments.push(found.clone());
    }
    let later = plan.log.last().and_then(|(backup, _)| contents.get(backup.name.as_str()));
    match later {
        Some(later) => Ok(base.continued(&segments, &later.list)?),
        None => Ok(base),
    }
}

/// An object that is needed, and for what.
struct Piece {
    kind: FileKind,
    number: u64,
    part: Part,
    /// The chunks of the file that are missing.
    missing: Vec<u64>,
}

/// The objects that hold something which the target lacks.
fn wanted(clone: &CloneTarget) -> Vec<Piece> {
    let mut missing: BTreeMap<(FileKind, u64), Vec<u64>> = BTreeMap::new();
    for chunk in clone.missing() {
        missing.entry((chunk.kind, chunk.number)).or_default().push(chunk.chunk);
    }
    let mut wanted = Vec::new();
    for file in &clone.list().files {
        let Some(lacks) = missing.get(&(file.kind, file.number)) else { continue };
        for part in parts_of(file) {
            let first = part.offset / CLONE_CHUNK_BYTES;
            let within = first..first + part.chunks.len() as u64;
            let missing: Vec<u64> = lacks.iter().filter(|chunk| within.contains(chunk)).copied().collect();
            if !missing.is_empty() {
                wanted.push(Piece { kind: file.kind, number: file.number, part, missing });
            }
        }
    }
    wanted
}

/// Writes the missing chunks of an object.
fn write(clone: CloneTarget, piece: &Piece, bytes: &[u8], written: &mut u64) -> Result<CloneTarget> {
    for chunk in &piece.missing {
        let start = (chunk * CLONE_CHUNK_BYTES - piece.part.offset) as usize;
        let end = bytes.len().min(start + CLONE_CHUNK_BYTES as usize);
        let data = bytes.get(start..end).unwrap_or_default();
        let missing = MissingChunk { kind: piece.kind, number: piece.number, chunk: *chunk };
        clone.write(missing, data).map_err(|error| match error {
            planaria_engine::Error::Invalid(_) => Error::Damaged {
                object: piece.part.address.path(),
                what: format!(
                    "the hash of its chunk {} does not match",
                    chunk - piece.part.offset / CLONE_CHUNK_BYTES
                ),
            },
            error => error.into(),
        })?;
        *written += data.len() as u64;
    }
    Ok(clone)
}
