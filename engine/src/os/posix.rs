//! The real operating system.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

use super::{DirEntry, DirLock, DiskSpace, OpenMode, Os, OsFile, map};

/// Directories are for their owner alone.
const DIRECTORY_MODE: u32 = 0o700;
/// Files are for their owner alone.
const FILE_MODE: u32 = 0o600;
/// How often a lock is tried whose file is removed or moved meanwhile, or which the file system names now so, now so.
const LOCK_TRIES: usize = 64;

/// The operating system of this machine, through the standard library and `rustix`.
///
/// Files are created 0600, directories 0700. An exhausted quota is told as a full disk (`StorageFull`).
#[derive(Clone, Copy, Default, Debug)]
pub struct Posix;

/// An open file of the machine.
#[derive(Debug)]
struct PosixFile(File);

/// A lock that goes with its file descriptor, also when the process dies.
#[derive(Debug)]
struct PosixLock(#[expect(dead_code, reason = "the lock lasts as long as the descriptor")] File);

impl DirLock for PosixLock {}

impl Os for Posix {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn OsFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read | OpenMode::WriteDirect => {}
            OpenMode::Write => {
                options.write(true);
            }
            OpenMode::CreateNew => {
                options.write(true).create_new(true).mode(FILE_MODE);
            }
        }
        let file = match mode {
            OpenMode::WriteDirect => open_direct(path)?,
            _ => options.open(path).map_err(room)?,
        };
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        Ok(Arc::new(PosixFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(room)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        let flags = rustix::fs::RenameFlags::EXCHANGE;
        let swapped = rustix::fs::renameat_with(rustix::fs::CWD, one, rustix::fs::CWD, other, flags);
        swapped.map_err(|error| match error {
            // File systems that cannot (some network ones) answer EINVAL.
            Errno::INVAL | Errno::OPNOTSUPP | Errno::NOSYS => io::ErrorKind::Unsupported.into(),
            error => room(error.into()),
        })
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to).map_err(|error| match Errno::from_io_error(&error) {
            // File systems without links (FAT, some network ones) answer EPERM.
            Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => io::ErrorKind::Unsupported.into(),
            _ => room(error),
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path).map_err(room)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all().map_err(room)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            // No name of the store is anything but ASCII: a stranger's file is none of our business.
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let metadata = match entry.metadata() {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let is_dir = metadata.is_dir();
            entries.push(DirEntry { name, is_dir, len: if is_dir { 0 } else { metadata.len() } });
        }
        entries.sort_unstable_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        for _ in 0..LOCK_TRIES {
            let file = options.open(path).map_err(room)?;
            // A lock of `flock` belongs to the open file, not to the process: a second open here is refused as well.
            rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
            // Whoever had the lock may have removed or moved its file since it was opened here: then it keeps nobody out.
            let own = file.metadata()?;
            match fs::metadata(path) {
                Ok(named) if (named.dev(), named.ino()) == (own.dev(), own.ino()) => {
                    return Ok(Box::new(PosixLock(file)));
                }
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn disk_space(&self, path: &Path) -> io::Result<DiskSpace> {
        let space = rustix::fs::statvfs(path)?;
        Ok(DiskSpace {
            available_bytes: space.f_bavail.saturating_mul(space.f_frsize),
            total_bytes: space.f_blocks.saturating_mul(space.f_frsize),
        })
    }

    #[expect(clippy::disallowed_methods, reason = "this is the seam that the clock comes through")]
    fn now_millis(&self) -> u64 {
        // A clock before 1970 counts as 1970: identifiers rise whatever it says.
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    #[expect(clippy::disallowed_methods, reason = "this is the seam that the clock comes through")]
    fn monotonic(&self) -> Duration {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        ORIGIN.get_or_init(Instant::now).elapsed()
    }

    fn random_u64(&self) -> u64 {
        let mut bytes = [0; 8];
        match File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)) {
            Ok(()) => u64::from_le_bytes(bytes),
            // Without descriptors or devices: the standard library's hash keys come from the system as well.
            Err(_) => RandomState::new().build_hasher().finish(),
        }
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }
}

impl OsFile for PosixFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(buf, offset).map_err(room)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len).map_err(room)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        if len > 0 {
            let reserve = || rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len);
            match rustix::io::retry_on_intr(reserve) {
                // Where the file system cannot reserve, the length is all that can be had.
                Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
                Err(error) => return Err(room(error.into())),
            }
        }
        if self.len()? == len { Ok(()) } else { self.set_len(len) }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data().map_err(room)
    }

    fn begin_write(&self, offset: u64, len: u64) {
        #[cfg(target_os = "linux")]
        super::behind::begin_write(&self.0, offset, len);
        #[cfg(not(target_os = "linux"))]
        let _ = (offset, len);
    }

    fn map(&self, len: u64) -> io::Result<Option<bytes::Bytes>> {
        map::map(&self.0, len).map(Some)
    }

    fn links(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.nlink())
    }
}

/// Opens a file to write past the cache; through it where there is no other way.
fn open_direct(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(target_os = "linux")]
    {
        let flags = rustix::fs::OFlags::DIRECT.bits();
        match options.clone().custom_flags(flags.cast_signed()).open(path) {
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            opened => return opened.map_err(room),
        }
    }
    options.open(path).map_err(room)
}

/// An exhausted quota is a full disk: both end when something is removed.
fn room(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::QuotaExceeded {
        return io::Error::new(io::ErrorKind::StorageFull, error);
    }
    error
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "posix_tests.rs"]
mod tests;
