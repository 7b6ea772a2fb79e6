use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::chunks::{CHUNK_BYTES, ChunkHashes};
use crate::error::{Error, Result};
use crate::os::{OpenMode, Os, OsFile};

/// A new file that is written from front to back, a chunk at a time, and hashed meanwhile.
#[derive(Debug)]
pub(crate) struct Output {
    os: Arc<dyn Os>,
    path: PathBuf,
    file: Arc<dyn OsFile>,
    buffer: Vec<u8>,
    /// What lies before the buffer.
    written: u64,
    hashes: Vec<[u8; 32]>,
    /// Whether what is written still belongs to the content.
    hashing: bool,
}

impl Output {
    /// Creates the file; fails if it exists.
    pub(crate) fn create(os: &Arc<dyn Os>, path: &Path) -> Result<Self> {
        let file = os.open(path, OpenMode::CreateNew).map_err(|error| Error::io("create", path, error))?;
        Ok(Self {
            os: Arc::clone(os),
            path: path.to_path_buf(),
            file,
            buffer: Vec::with_capacity(CHUNK_BYTES),
            written: 0,
            hashes: Vec::new(),
            hashing: true,
        })
    }

    /// Where the file is.
    pub(crate) fn os(&self) -> &Arc<dyn Os> {
        &self.os
    }

    /// The file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the next byte goes.
    pub(crate) fn position(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// Appends `bytes`.
    pub(crate) fn write(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - self.buffer.len();
            let (head, rest) = bytes.split_at(room.min(bytes.len()));
            self.buffer.extend_from_slice(head);
            bytes = rest;
            if self.buffer.len() == CHUNK_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.hashing {
            self.hashes.push(*blake3::hash(&self.buffer).as_bytes());
        }
        self.file
            .write_all_at(&self.buffer, self.written)
            .map_err(|error| Error::io("write", &self.path, error))?;
        self.file.begin_write(self.written, self.buffer.len() as u64);
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Ends the content: what is written from here on is not hashed.
    pub(crate) fn end_content(&mut self) -> Result<ChunkHashes> {
        if self.hashing && !self.buffer.is_empty() {
            self.flush()?;
        }
        self.hashing = false;
        Ok(ChunkHashes::new(self.position(), std::mem::take(&mut self.hashes)))
    }

    /// Writes what is left. The bytes are durable once what it answers is synced; the name is up to the owner of the directory.
    pub(crate) fn end(&mut self) -> Result<Unsynced> {
        if !self.buffer.is_empty() {
            self.flush()?;
        }
        Ok(Unsynced { path: self.path.clone(), file: Arc::clone(&self.file) })
    }

    /// Removes the file.
    pub(crate) fn discard(self) -> Result<()> {
        self.os.remove_file(&self.path).map_err(|error| Error::io("remove", &self.path, error))
    }
}

/// A file that is complete and not durable yet. The system has begun to write it.
#[derive(Debug)]
pub(crate) struct Unsynced {
    path: PathBuf,
    file: Arc<dyn OsFile>,
}

impl Unsynced {
    /// Makes the bytes durable.
    pub(crate) fn sync(self) -> Result<()> {
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))
    }
}
