use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use planaria_engine::{CLONE_CHUNK_BYTES, FileKind, FileList, FilePin, LogSegment};

use crate::error::{Error, Result};

/// The files of a cut, wherever they lie. Whoever reads them checks what comes.
pub trait Source: Sync {
    /// The files of the copy.
    fn list(&self) -> &FileList;

    /// The log segments that are kept with it, those of the copy included.
    fn log(&self) -> &[LogSegment];

    /// Bytes of a file: whole chunks, from a multiple of their length on.
    fn read(
        &self,
        kind: FileKind,
        number: u64,
        offset: u64,
        len: u64,
    ) -> impl Future<Output = Result<Bytes>> + Send;
}

/// A cut of a database that is open here.
#[derive(Debug, Clone)]
pub struct Pinned(Arc<FilePin>);

impl Pinned {
    /// The files of this pin.
    pub fn new(pin: FilePin) -> Self {
        Self(Arc::new(pin))
    }
}

impl Source for Pinned {
    fn list(&self) -> &FileList {
        self.0.list()
    }

    fn log(&self) -> &[LogSegment] {
        self.0.log()
    }

    async fn read(&self, kind: FileKind, number: u64, offset: u64, len: u64) -> Result<Bytes> {
        let pin = Arc::clone(&self.0);
        let read = move || {
            let mut bytes = Vec::with_capacity(len as usize);
            for chunk in offset / CLONE_CHUNK_BYTES..(offset + len).div_ceil(CLONE_CHUNK_BYTES) {
                bytes.extend_from_slice(&pin.read(kind, number, chunk)?);
            }
            Ok(bytes.into())
        };
        blocking(read).await
    }
}

/// Runs what may block on a thread for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::Invalid(format!("a blocking call broke off: {error}"))))
}
