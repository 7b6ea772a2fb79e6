//! Segment files before and after their use: created, filled with zeros, begun, recycled, removed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{FileName, PAGE_BYTES, SegmentHeader};
use super::recovery::not_full;
use crate::error::{Error, Result};
use crate::os::{OpenMode, Os, OsFile};

/// How much is written at once when a new file is filled, in bytes. Linux keeps a file in memory in pieces as large as
/// they were written, and each later write to a piece walks over all of its pages: small ones make small commits cheap.
const FILL_BYTES: u64 = 64 << 10;

/// A segment file that waits for use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spare {
    pub(super) serial: u64,
    pub(super) file_bytes: u64,
}

/// Why a segment could not be begun.
#[derive(Debug)]
pub(super) enum NotBegun {
    /// No segment is touched: it may be tried again.
    Clean(Error),
    /// A write or a sync failed: the disk is not to be trusted any more.
    Broken(Error),
}

impl NotBegun {
    /// A failed write or sync on a file that never was a segment: clean if only room is missing.
    fn of(what: &'static str, path: &Path, error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::StorageFull {
            Self::Clean(Error::io(what, path, error))
        } else {
            Self::Broken(Error::io(what, path, error))
        }
    }
}

/// Creates a spare. Its blocks are written and its length is durable, so that syncing it later touches no metadata.
pub(super) fn create_spare(os: &dyn Os, dir: &Path, serial: u64, file_bytes: u64) -> Result<Spare, NotBegun> {
    let unfinished = FileName::Unfinished(serial).path(dir);
    let file = os
        .open(&unfinished, OpenMode::CreateNew)
        .map_err(|error| NotBegun::Clean(Error::io("create", &unfinished, error)))?;
    let created = fill(&*file, &unfinished, file_bytes).and_then(|()| {
        file.sync_data().map_err(|error| NotBegun::of("sync", &unfinished, error))?;
        let spare = FileName::Spare(serial).path(dir);
        os.rename(&unfinished, &spare).map_err(|error| NotBegun::of("rename", &unfinished, error))
    });
    if let Err(error) = created {
        // Best effort, to give the room back: the next start removes it otherwise.
        let _ = os.remove_file(&unfinished);
        return Err(error);
    }
    Ok(Spare { serial, file_bytes })
}

fn fill(file: &dyn OsFile, path: &Path, file_bytes: u64) -> Result<(), NotBegun> {
    file.allocate(file_bytes).map_err(|error| NotBegun::of("allocate", path, error))?;
    let zeros = vec![0; FILL_BYTES.min(file_bytes) as usize];
    let mut at = 0;
    while at < file_bytes {
        let len = FILL_BYTES.min(file_bytes - at);
        let part = zeros.get(..len as usize).unwrap_or(&zeros);
        file.write_all_at(part, at).map_err(|error| NotBegun::of("fill", path, error))?;
        at += len;
    }
    Ok(())
}

/// Creates a segment for which no spare waits, of the length that its header says. One sync is for the zeros and the header.
pub(super) fn create_segment(
    os: &dyn Os,
    dir: &Path,
    serial: u64,
    header: &SegmentHeader,
) -> Result<(Arc<dyn OsFile>, PathBuf), NotBegun> {
    let unfinished = FileName::Unfinished(serial).path(dir);
    let file = os
        .open(&unfinished, OpenMode::CreateNew)
        .map_err(|error| NotBegun::Clean(Error::io("create", &unfinished, error)))?;
    let begun = fill(&*file, &unfinished, header.file_bytes)
        .and_then(|()| begin(os, dir, &*file, &unfinished, header));
    match begun {
        Ok(path) => Ok((file, path)),
        Err(error) => {
            // Best effort, as above. Under the segment's name it is looked at by the next start.
            let _ = os.remove_file(&unfinished);
            Err(error)
        }
    }
}

/// Turns a spare into a segment: the header is durable before the file has the name, and the name before any record.
pub(super) fn begin_segment(
    os: &dyn Os,
    dir: &Path,
    spare: Spare,
    header: &SegmentHeader,
) -> Result<(Arc<dyn OsFile>, PathBuf), NotBegun> {
    let from = FileName::Spare(spare.serial).path(dir);
    let opened =
        os.open(&from, OpenMode::Write).map_err(|error| NotBegun::Clean(Error::io("open", &from, error)));
    let begun = opened.and_then(|file| Ok((begin(os, dir, &*file, &from, header)?, file)));
    if begun.is_err() {
        // The file has no records: what became of its header does not matter once it is gone.
        let _ = os.remove_file(&from);
    }
    begun.map(|(path, file)| (file, path))
}

/// Gives a file a segment's header, and then a segment's name.
fn begin(
    os: &dyn Os,
    dir: &Path,
    file: &dyn OsFile,
    from: &Path,
    header: &SegmentHeader,
) -> Result<PathBuf, NotBegun> {
    let page = header.encode();
    debug_assert_eq!(page.len() as u64, PAGE_BYTES);
    file.write_all_at(&page, 0).map_err(|error| NotBegun::of("write", from, error))?;
    file.sync_data().map_err(|error| NotBegun::of("sync", from, error))?;
    let path = FileName::Segment(header.number).path(dir);
    os.rename(from, &path).map_err(|error| NotBegun::of("rename", from, error))?;
    // From here on the segment exists, or not: nobody knows before the next start.
    os.sync_dir(dir).map_err(|error| NotBegun::Broken(not_full("sync", dir, error)))?;
    Ok(path)
}

/// Makes a spare of a segment file that nobody needs, under the name `serial`; removes it if it is shared with
/// another store. The directory is not synced.
pub(super) fn recycle(os: &dyn Os, dir: &Path, name: FileName, serial: u64) -> Result<bool> {
    let path = name.path(dir);
    let file = os.open(&path, OpenMode::Read).map_err(|error| Error::io("open", &path, error))?;
    let links = file.links().map_err(|error| Error::io("read", &path, error))?;
    if links > 1 {
        remove(os, dir, name)?;
        return Ok(false);
    }
    let spare = FileName::Spare(serial).path(dir);
    os.rename(&path, &spare).map_err(|error| Error::io("rename", &path, error))?;
    Ok(true)
}

/// Removes a file. The directory is not synced.
pub(super) fn remove(os: &dyn Os, dir: &Path, name: FileName) -> Result<()> {
    let path = name.path(dir);
    os.remove_file(&path).map_err(|error| Error::io("remove", &path, error))
}
