//! Read-only maps of published files. One of two places of the seam with `unsafe`.
#![expect(unsafe_code, reason = "mapping a file is unsafe whatever is done; the contract is at the one call")]

use std::fs::File;
use std::io;

use bytes::Bytes;
use memmap2::MmapOptions;

/// Maps the first `len` bytes of `file` to read; the map lives as long as the last clone of the answer.
///
/// The caller passes files only that are complete and that nobody changes or cuts any more. Fails with
/// `UnexpectedEof` if the file is shorter than `len`.
pub(super) fn map(file: &File, len: u64) -> io::Result<Bytes> {
    if file.metadata()?.len() < len {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if len == 0 {
        return Ok(Bytes::new());
    }
    let len = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    // SAFETY: the bytes behind the reference must not change while it lives. A file is mapped only after it was
    // published, and published files are never written to nor cut, only unlinked, which leaves the map intact. The
    // directory is 0700 and locked, so no other process of good faith changes them either. The length was checked
    // above, so no access lies beyond the end of the file; a file cut behind our back ends the process (SIGBUS), which
    // is why maps can be switched off in favour of reads.
    let map = unsafe { MmapOptions::new().len(len).map(file)? };
    Ok(Bytes::from_owner(map))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::io::Write;

    use super::map;

    #[test]
    fn a_map_shows_the_file_and_outlives_its_name() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"planaria").unwrap();
        let bytes = map(&file, 6).unwrap();
        drop(file);
        assert_eq!(&bytes[..], b"planar");
    }

    #[test]
    fn a_map_beyond_the_end_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(map(&file, 1).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        assert!(map(&file, 0).unwrap().is_empty());
    }
}
