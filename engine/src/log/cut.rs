//! Ending a log that nobody has open at a record of one's choice.

use std::path::Path;
use std::sync::Arc;

use super::KIND_BASE;
use super::format::{FileName, PAGE_BYTES};
use super::scan::open_segment;
use crate::error::{Error, Result};
use crate::os::{OpenMode, Os};

/// Ends the log in `dir` before the first record that `keep` refuses, in the segments of these numbers, which follow one
/// another. What comes after is zeros and no files, as if it had never been written. Doing it again changes nothing more.
///
/// # Errors
///
/// `Damaged` if a record before that does not check, and whatever `keep` answers.
pub(crate) fn cut_before(
    os: &Arc<dyn Os>,
    dir: &Path,
    segments: &[u64],
    keep: &mut dyn FnMut(u8, &[u8]) -> Result<bool>,
) -> Result<()> {
    for (index, number) in segments.iter().enumerate() {
        let (header, mut scan) = open_segment(&**os, dir, *number)?;
        let mut offset = PAGE_BYTES;
        let refused = loop {
            let Some(found) = scan.record(offset)? else {
                // A segment that was sealed says so; what ends otherwise has been cut already.
                break None;
            };
            if found.kind == KIND_BASE {
                break None;
            }
            if !keep(found.kind, found.payload)? {
                break Some(offset);
            }
            offset = found.end;
        };
        let Some(end) = refused else { continue };
        let path = FileName::Segment(*number).path(dir);
        let file = os.open(&path, OpenMode::Write).map_err(|error| Error::io("open", &path, error))?;
        for len in [end, header.file_bytes] {
            file.set_len(len).map_err(|error| Error::io("cut", &path, error))?;
        }
        file.sync_data().map_err(|error| Error::io("sync", &path, error))?;
        for later in segments.get(index + 1..).unwrap_or_default() {
            let path = FileName::Segment(*later).path(dir);
            os.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
        return os.sync_dir(dir).map_err(|error| Error::io("sync", dir, error));
    }
    Ok(())
}
