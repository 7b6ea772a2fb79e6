//! Small files that are written as a whole: a header with a checksum, then one value. See FORMAT.md.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::os::{OpenMode, Os};
use crate::sync::Arc;
use crate::version::write_file;

/// Magic, version, length and checksum.
pub(crate) const HEADER_BYTES: usize = 8 + 4 + 4 + 4;

/// A kind of small file. It is replaced as a whole or not at all, and says by its checksum whether it is what was written.
#[derive(Clone, Copy, Debug)]
pub struct SealedFile {
    /// Its first eight bytes.
    pub magic: [u8; 8],
    /// The version of what is in it; others are refused.
    pub version: u32,
    /// The greatest length that is read, in bytes.
    pub bytes_max: u64,
}

impl SealedFile {
    /// The bytes of a file with `value` in it.
    ///
    /// # Errors
    ///
    /// `Invalid` if it cannot be encoded, or is longer than what is read.
    pub fn encode<T: Serialize>(&self, value: &T) -> Result<Vec<u8>> {
        let payload = postcard::to_stdvec(value)
            .map_err(|error| Error::Invalid(format!("a small file cannot be encoded: {error}")))?;
        if (HEADER_BYTES + payload.len()) as u64 > self.bytes_max {
            return Err(Error::Invalid(format!("{} bytes are too many for a small file", payload.len())));
        }
        Ok(self.wrap(&payload))
    }

    /// A file with that payload.
    pub(crate) fn wrap(&self, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.extend_from_slice(&self.magic);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&self.checksum(payload).to_le_bytes());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// What is in the bytes of a file; `path` is for errors.
    ///
    /// # Errors
    ///
    /// `Foreign` if it is no such file, or of another version; `Damaged` if it is not what was written.
    pub fn decode<T: DeserializeOwned>(&self, path: &Path, bytes: &[u8]) -> Result<T> {
        let damaged = |offset: u64, what: &str| Error::damaged(path, offset, what);
        let Some((header, payload)) = bytes.split_at_checked(HEADER_BYTES) else {
            return Err(damaged(0, "it is shorter than its header"));
        };
        let foreign = |what: String| Error::Foreign { path: path.to_path_buf(), what };
        if header.get(..8) != Some(&self.magic) {
            return Err(foreign("it begins with other bytes than such a file".into()));
        }
        let number = |at: usize| {
            header.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, u32::from_le_bytes)
        };
        if number(8) != self.version {
            let (own, read) = (number(8), self.version);
            return Err(foreign(format!("its format version is {own}, this release reads {read}")));
        }
        if number(12) as usize != payload.len() {
            return Err(damaged(12, "its length is not the one it states"));
        }
        if number(16) != self.checksum(payload) {
            return Err(damaged(16, "the checksum does not match"));
        }
        postcard::from_bytes(payload).map_err(|_| damaged(HEADER_BYTES as u64, "it cannot be decoded"))
    }

    /// Reads a file, or gives `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`SealedFile::decode`], and `Io`.
    pub fn read<T: DeserializeOwned>(&self, os: &Arc<dyn Os>, path: &Path) -> Result<Option<T>> {
        if !os.exists(path) {
            return Ok(None);
        }
        let file = os.open(path, OpenMode::Read).map_err(|error| Error::io("open", path, error))?;
        let len = file.len().map_err(|error| Error::io("measure", path, error))?;
        if len > self.bytes_max {
            return Err(Error::damaged(path, 0, format!("{len} bytes are too many")));
        }
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).map_err(|error| Error::io("read", path, error))?;
        self.decode(path, &bytes).map(Some)
    }

    /// Puts a file with `value` in place of what is there, durably, in one step.
    ///
    /// # Errors
    ///
    /// As [`SealedFile::encode`], `Io` and `NoSpace`. What was there is there then, or what was to be.
    pub fn write<T: Serialize>(&self, os: &Arc<dyn Os>, path: &Path, value: &T) -> Result<()> {
        Self::put(os, path, &self.encode(value)?)
    }

    /// The same with what was encoded.
    pub(crate) fn put(os: &Arc<dyn Os>, path: &Path, bytes: &[u8]) -> Result<()> {
        let new = beside(path, ".new");
        write_file(os, &new, bytes)?;
        os.rename(&new, path).map_err(|error| Error::io("rename", &new, error))?;
        let dir = parent(path);
        os.sync_dir(&dir).map_err(|error| Error::io("sync", &dir, error))
    }

    fn checksum(&self, payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&self.version.to_le_bytes());
        hasher.update(payload);
        hasher.finalize()
    }
}

/// `path` with more behind its name.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(ending);
    path.with_file_name(name)
}

/// The directory that something lies in.
pub(crate) fn parent(path: &Path) -> PathBuf {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_path_buf()
}
