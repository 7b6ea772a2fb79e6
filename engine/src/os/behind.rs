//! Has the system begin to write what lies in its cache. The second and last place of the seam with `unsafe`.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "the call has no safe wrapper in a crate that is in the tree")]

use std::fs::File;
use std::os::fd::AsRawFd;

/// Has the system begin to write `len` bytes of `file` from `offset` to the disk, without waiting until it is there. That it cannot is no
/// failure: nothing is promised, and a later sync does all of it.
pub(super) fn begin_write(file: &File, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // SAFETY: the descriptor belongs to `file`, which is borrowed and so stays open during the call; the call takes numbers
    // alone and touches no memory of this process.
    let _ = unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}
