//! A clone that is read before it is complete: a store whose run files wait for what has not come yet, and that changes nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use planaria_types::FileId;

use super::hydration::{Chunks, Hydration};
use super::{CloneRole, CloneTarget, FileKind, clone_manifest};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::os::{DirEntry, DirLock, DiskSpace, OpenMode, Os, OsFile};
use crate::run::ReadMode;
use crate::store::Store;
use crate::version::{Role, run_path};

/// Memory for the blocks of a view at most, in bytes: it lives no longer than until the clone is opened for good.
const CACHE_BYTES_MAX: usize = 64 << 20;

impl CloneTarget {
    /// Opens the clone to be read while its run files come in. What is not here yet is waited for. It takes no updates, and
    /// goes on to be read from the files that it has open when the clone has got its name.
    ///
    /// # Errors
    ///
    /// `Invalid` while log segments are missing, which are read at once.
    pub fn view(&self, role: CloneRole) -> Result<Database> {
        let first_log = super::MissingChunk { kind: FileKind::Log, number: 0, chunk: 0 };
        if self.hydration().first_missing(first_log, None).is_some() {
            return Err(Error::Invalid("the log of the clone has not come yet".into()));
        }
        let (instance, database) = self.identity(role);
        let (source, position) = (self.source(), self.list().position);
        let now_ms = self.options().os.now_millis();
        let mut manifest = clone_manifest(source, position, role, instance, database, now_ms);
        manifest.group.role = Role::Secondary;
        let os = ViewOs {
            inner: Arc::clone(&self.options().os),
            hydration: Arc::clone(self.hydration()),
            dir: self.partial().to_path_buf(),
        };
        let options = Options {
            create: false,
            background: false,
            read_mode: ReadMode::Cached,
            cache_bytes: self.options().cache_bytes.min(CACHE_BYTES_MAX),
            os: Arc::new(os),
            ..self.options().clone()
        };
        Ok(Database::of_view(Store::open_view(self.partial(), manifest, options)?))
    }
}

/// The operating system as a view sees it: its run files wait for their bytes, and nothing is changed.
#[derive(Debug)]
struct ViewOs {
    inner: Arc<dyn Os>,
    hydration: Arc<Hydration>,
    dir: PathBuf,
}

fn unchanging<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "a clone that is not complete is only read"))
}

impl ViewOs {
    /// The number of the run file at `path`.
    fn run_at(&self, path: &Path) -> Option<u64> {
        let number = u64::from_str_radix(path.file_stem()?.to_str()?, 16).ok()?;
        (run_path(&self.dir, FileId(number)) == path).then_some(number)
    }
}

impl Os for ViewOs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn OsFile>> {
        if mode != OpenMode::Read {
            return unchanging();
        }
        let file = self.inner.open(path, mode)?;
        let chunks = self.run_at(path).and_then(|number| self.hydration.chunks_of(FileKind::Run, number));
        let waits = chunks.map(|chunks| (Arc::clone(&self.hydration), Arc::clone(chunks)));
        Ok(Arc::new(ViewFile { file, waits }))
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        unchanging()
    }

    fn exchange(&self, _: &Path, _: &Path) -> io::Result<()> {
        unchanging()
    }

    fn hard_link(&self, _: &Path, _: &Path) -> io::Result<()> {
        unchanging()
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        unchanging()
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        unchanging()
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        unchanging()
    }

    /// What is read here is made durable by whoever completes the clone.
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        self.inner.exists(path)
    }

    fn lock(&self, _: &Path) -> io::Result<Box<dyn DirLock>> {
        unchanging()
    }

    fn disk_space(&self, path: &Path) -> io::Result<DiskSpace> {
        self.inner.disk_space(path)
    }

    fn now_millis(&self) -> u64 {
        self.inner.now_millis()
    }

    fn monotonic(&self) -> Duration {
        self.inner.monotonic()
    }

    fn random_u64(&self) -> u64 {
        self.inner.random_u64()
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.canonicalize(path)
    }
}

/// A file of a view.
struct ViewFile {
    file: Arc<dyn OsFile>,
    /// Of a run file, parts may be missing: a read waits for them.
    waits: Option<(Arc<Hydration>, Arc<Chunks>)>,
}

impl std::fmt::Debug for ViewFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ViewFile").field("file", &self.file).finish_non_exhaustive()
    }
}

impl OsFile for ViewFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some((hydration, chunks)) = &self.waits {
            hydration.wait_for(chunks, offset, buf.len() as u64)?;
        }
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        unchanging()
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        unchanging()
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        unchanging()
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    /// A map would show what is not here as zeros.
    fn map(&self, _: u64) -> io::Result<Option<bytes::Bytes>> {
        Ok(None)
    }

    fn links(&self) -> io::Result<u64> {
        self.file.links()
    }
}
