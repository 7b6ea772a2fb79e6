//! The one seam to the operating system: files, maps, locks, clock, randomness.
//!
//! Everything else in the engine sees [`Os`] and [`OsFile`] only. [`Posix`] is the real one; under the feature
//! `testing` there are an in-memory system that can crash ([`MemOs`]) and one that injects faults ([`FaultOs`]).

mod behind;
mod buffer;
#[cfg(any(test, feature = "testing"))]
mod fault;
mod map;
#[cfg(any(test, feature = "testing"))]
mod mem;
mod posix;

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub use buffer::{AlignedBuffer, DIRECT_ALIGN};
#[cfg(any(test, feature = "testing"))]
pub use fault::{Call, Fault, FaultOs};
#[cfg(any(test, feature = "testing"))]
pub use mem::{CrashStyle, MemOs};
pub use posix::Posix;

/// How a file is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// An existing file, to read.
    Read,
    /// An existing file, to read and write.
    Write,
    /// A new file, to read and write; fails if it exists.
    CreateNew,
    /// An existing file, to write whole blocks ([`DIRECT_ALIGN`]) past the system's cache where the file system can; a write fails with
    /// `InvalidInput` where the disk has other blocks. They are durable after `sync_data`, as ever.
    WriteDirect,
}

/// An entry of a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DirEntry {
    /// The name within the directory.
    pub name: String,
    /// Whether it is a directory itself.
    pub is_dir: bool,
    /// Its length in bytes; 0 for a directory.
    pub len: u64,
}

/// Room on the file system of a directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskSpace {
    /// Bytes that this process may still take.
    pub available_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
}

/// Keeps other processes out of a directory until it is dropped.
pub trait DirLock: Send + Sync + Debug {}

/// The operating system, as the engine sees it.
///
/// What survives a power cut: the bytes of a file after its `sync_data`; a name, created, renamed, linked or removed,
/// after `sync_dir` of its directory.
pub trait Os: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn OsFile>>;
    /// Gives a file another name, over an existing one if there is one.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Has two names of one directory change places, in one step. Fails with `Unsupported` where that is impossible.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;
    /// Gives a file a second name. Fails with `Unsupported` or `CrossesDevices` where that is impossible.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file's name.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory and all below it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Creates a directory, readable by its owner alone, and its parents.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a directory durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// The entries of a directory, in the order of their names.
    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Whether there is something at `path`.
    fn exists(&self, path: &Path) -> bool;
    /// Takes the lock file at `path`, creating it. Fails with `WouldBlock` while another process has it.
    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>>;
    /// Room on the file system that holds `path`.
    fn disk_space(&self, path: &Path) -> io::Result<DiskSpace>;
    /// The wall clock: milliseconds since 1970.
    fn now_millis(&self) -> u64;
    /// The monotonic clock, from an arbitrary origin.
    fn monotonic(&self) -> Duration;
    /// 64 random bits.
    fn random_u64(&self) -> u64;
    /// The path without symbolic links and relative parts, for messages and identity.
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf>;
}

/// An open file. All calls may come from several threads at once.
pub trait OsFile: Send + Sync + Debug {
    /// Reads up to `buf.len()` bytes from `offset`; 0 at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `buf` at `offset`, extending the file if needed.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or extends (with zeros) to `len` bytes.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Reserves room on disk up to `len` bytes and sets the length; fails with `StorageFull` where there is none.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Makes the bytes durable, and of the metadata what is needed to read them back.
    fn sync_data(&self) -> io::Result<()>;
    /// Has the system begin to write `len` bytes from `offset` to the disk, where it can be told to: a later `sync_data` waits for
    /// less. It promises nothing, and waits for nothing but room in the queue
    /// of the disk.
    fn begin_write(&self, _offset: u64, _len: u64) {}
    /// Maps the first `len` bytes to read, or `None` where maps are not supported. The file is never changed afterwards.
    fn map(&self, len: u64) -> io::Result<Option<bytes::Bytes>>;

    /// How many names the file has. A file with more than one is shared with a clone and must not change.
    fn links(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Fills `buf` from `offset`; `UnexpectedEof` if the file ends before.
    fn read_exact_at(&self, mut buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        while !buf.is_empty() {
            match self.read_at(buf, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    buf = buf.get_mut(count..).unwrap_or_default();
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
