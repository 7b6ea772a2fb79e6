use std::io::ErrorKind;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::os::{DIRECT_ALIGN, OpenMode, Os, OsFile};
use crate::sync::{Arc, Mutex};

/// A file that is being received. It is open from its first chunk until it is durable, so that no more files are open than are
/// being written to.
pub(super) struct TargetFile {
    path: PathBuf,
    /// Its place in the list.
    pub(super) entry: usize,
    /// Whether it is read while it comes in: then the system's cache is the right place for it.
    through_cache: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Arc<Handles>>,
    is_durable: bool,
}

struct Handles {
    file: Arc<dyn OsFile>,
    /// Past the system's cache, where that is possible: what a clone brings is not read soon, and would drive out what is. It costs
    /// a copy less, too, and leaves little to wait for in the end.
    direct: Option<Arc<dyn OsFile>>,
}

impl TargetFile {
    /// A file that exists.
    pub(super) fn new(path: PathBuf, entry: usize, through_cache: bool) -> Self {
        Self { path, entry, through_cache, state: Mutex::default() }
    }

    fn open(&self, os: &dyn Os) -> Result<Arc<Handles>> {
        let mut state = self.state.lock();
        if let Some(open) = &state.open {
            return Ok(Arc::clone(open));
        }
        let open = |mode| os.open(&self.path, mode);
        let file = open(OpenMode::Write).map_err(|error| Error::io("open", &self.path, error))?;
        // An error of this one is an error of the other one as well, or is of no importance.
        let direct = if self.through_cache { None } else { open(OpenMode::WriteDirect).ok() };
        let handles = Arc::new(Handles { file, direct });
        *state = State { open: Some(Arc::clone(&handles)), is_durable: false };
        Ok(handles)
    }

    /// Writes bytes that have been checked.
    pub(super) fn write(&self, os: &dyn Os, bytes: &[u8], offset: u64) -> Result<()> {
        let handles = self.open(os)?;
        let is_aligned = offset.is_multiple_of(DIRECT_ALIGN as u64)
            && bytes.len().is_multiple_of(DIRECT_ALIGN)
            && bytes.as_ptr().align_offset(DIRECT_ALIGN) == 0;
        if let Some(direct) = handles.direct.as_ref().filter(|_| is_aligned) {
            match direct.write_all_at(bytes, offset) {
                // This disk wants it otherwise: the cache takes everything.
                Err(error) if error.kind() == ErrorKind::InvalidInput => {}
                written => return written.map_err(|error| Error::io("write", &self.path, error)),
            }
        }
        handles.file.write_all_at(bytes, offset).map_err(|error| Error::io("write", &self.path, error))
    }

    /// Makes what was written durable, by whomever and whenever, and closes the file.
    pub(super) fn sync(&self, os: &dyn Os) -> Result<()> {
        if self.state.lock().is_durable {
            return Ok(());
        }
        let handles = self.open(os)?;
        handles.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))?;
        *self.state.lock() = State { open: None, is_durable: true };
        Ok(())
    }
}
