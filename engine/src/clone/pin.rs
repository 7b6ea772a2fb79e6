use std::collections::HashMap;
use std::path::PathBuf;

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use planaria_types::{FileId, Position};

use super::{CLONE_CHUNK_BYTES, CloneFile, FileKind, FileList, file_path};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::os::{OpenMode, OsFile};
use crate::run::{ReadMode, Run};
use crate::store::Store;
use crate::sync::Arc;
use crate::version::{Manifest, Role, StoreVersion};

/// Buffers that are kept to be filled again: about as many as are on their way at a time.
const BUFFERS: usize = 48;
/// Room for the seal behind the last record of a log segment, in bytes.
const SEAL_BYTES: u64 = 4 << 10;

/// The files of one cut, kept for as long as the pin lives, while the database goes on.
pub struct FilePin {
    list: FileList,
    /// Open files: what is removed from the directory stays readable.
    files: HashMap<(FileKind, u64), Arc<dyn OsFile>>,
    /// Run files as they lie in memory, where the database reads them so: what is sent from there is not copied before.
    maps: HashMap<u64, Bytes>,
    /// Where each file stands in the list.
    entries: HashMap<(FileKind, u64), usize>,
    buffers: Arc<ArrayQueue<Vec<u8>>>,
    /// Keeps the runs from being removed.
    _version: Arc<StoreVersion>,
}

/// A cut: everything at or below it lies in the runs of the version and in the sealed segments that the manifest names.
pub(super) struct Cut {
    pub(super) manifest: Manifest,
    pub(super) version: Arc<StoreVersion>,
    pub(super) position: Position,
    /// The numbers of the log segments that belong to the cut.
    pub(super) segments: Vec<u64>,
}

impl Store {
    /// Makes a cut at the end of the log and calls `keep` with it before anything of it may be let go.
    pub(super) fn cut<T>(&self, keep: impl FnOnce(&Cut) -> Result<T>) -> Result<T> {
        self.check_whole("is no source of clones")?;
        if self.role() == Role::Secondary {
            // What a secondary has logged beyond its visible cut may still be taken back: it is not cloned.
            self.sync_log()?;
        }
        let writer = self.lock_writer();
        let sealed = self.log.seal()?;
        let structure = self.lock_structure();
        let version = self.pin().0;
        let last = writer.last;
        // At a primary all that is sealed is durable by now, and shown in a moment if it is not shown yet.
        let uid = if self.role() == Role::Primary { last } else { self.visible() };
        drop(writer);
        if uid < last {
            return Err(Error::Invalid(format!(
                "the copy holds commits up to {last} of which readers see those up to {uid}; try again in a moment"
            )));
        }
        let mut manifest = self.describe(&structure, &version);
        manifest.segments.retain(|segment| segment.number >= manifest.log_start);
        manifest.group.visible = uid;
        let segments: Vec<u64> = self
            .log
            .segments()
            .iter()
            .map(|segment| segment.number)
            .filter(|number| (manifest.log_start..=sealed.segment).contains(number))
            .collect();
        for segment in &segments {
            self.log.mark_linked(*segment)?;
        }
        let position = manifest.group.history.position_of(uid);
        keep(&Cut { manifest, version, position, segments })
    }
}

impl Database {
    /// Pins the files of a cut made now, for a clone over the network.
    pub fn pin_files(&self) -> Result<FilePin> {
        let store = self.store();
        // What is in memory goes into runs first: they are smaller than the log, and hashed already.
        store.flush_all()?;
        let (mut list, files, version) = store.cut(|cut| {
            let mut list =
                FileList { manifest: cut.manifest.clone(), position: cut.position, files: Vec::new() };
            let mut files: HashMap<_, Arc<dyn OsFile>> = HashMap::new();
            let runs =
                cut.manifest.runs.iter().map(|run| (FileKind::Run, run.file.0, run.meta.len, run.meta.len));
            let segments = store.log.segments().into_iter().filter(|own| cut.segments.contains(&own.number));
            let segments = segments.map(|own| {
                // Behind the last record stands the seal; behind that nothing but zeros.
                let sent = own.end_offset.next_multiple_of(SEAL_BYTES) + SEAL_BYTES;
                (FileKind::Log, own.number, sent.min(own.file_bytes), own.file_bytes)
            });
            for (kind, number, len, extent) in runs.chain(segments) {
                let path = file_path(&store.dir, kind, number);
                let file = store.options.os.open(&path, OpenMode::Read);
                let file = file.map_err(|error| Error::io("open", &path, error))?;
                files.insert((kind, number), file);
                list.files.push(CloneFile { kind, number, len, extent, chunks: Vec::new() });
            }
            Ok((list, files, Arc::clone(&cut.version)))
        })?;
        let mut buffer = Vec::new();
        for entry in &mut list.files {
            let run = run_of(&version, entry);
            let stored = run.map(|run| run.chunk_hashes()).transpose()?;
            let Some(file) = files.get(&(entry.kind, entry.number)) else { continue };
            let stored = stored.as_ref().map(crate::run::ChunkHashes::hashes).unwrap_or_default();
            let whole = run.map_or(0, |run| run.meta().content_len / CLONE_CHUNK_BYTES);
            entry.chunks = stored.get(..whole as usize).unwrap_or_default().to_vec();
            // A run's own list ends with its contents; the last chunk of the file holds the list itself, too.
            while (entry.chunks.len() as u64) * CLONE_CHUNK_BYTES < entry.len {
                read_chunk(&**file, entry, entry.chunks.len() as u64, &mut buffer)?;
                entry.chunks.push(*blake3::hash(&buffer).as_bytes());
            }
        }
        let mut maps = HashMap::new();
        if store.options.read_mode == ReadMode::Mapped {
            for entry in list.files.iter().filter(|entry| entry.kind == FileKind::Run) {
                let Some(file) = files.get(&(entry.kind, entry.number)) else { continue };
                let mapped = file.map(entry.len);
                let mapped = mapped.map_err(|error| Error::io("map", &name_of(entry), error))?;
                maps.extend(mapped.map(|map| (entry.number, map)));
            }
        }
        let entries = list.files.iter().enumerate();
        let entries = entries.map(|(index, entry)| ((entry.kind, entry.number), index)).collect();
        let buffers = Arc::new(ArrayQueue::new(BUFFERS));
        Ok(FilePin { list, files, maps, entries, buffers, _version: version })
    }
}

fn run_of<'a>(version: &'a StoreVersion, entry: &CloneFile) -> Option<&'a Arc<Run>> {
    let file = (entry.kind == FileKind::Run).then_some(FileId(entry.number))?;
    let mut references = version.fragments().iter().flat_map(|fragment| fragment.references());
    references.find(|reference| reference.file == file).map(|reference| &reference.run)
}

/// Fills `bytes` with one chunk.
fn read_chunk(file: &dyn OsFile, entry: &CloneFile, index: u64, bytes: &mut Vec<u8>) -> Result<()> {
    let start = index * CLONE_CHUNK_BYTES;
    bytes.resize((entry.len - start).min(CLONE_CHUNK_BYTES) as usize, 0);
    file.read_exact_at(bytes, start).map_err(|error| Error::io("read", &name_of(entry), error))
}

/// A file of the list, for people.
fn name_of(entry: &CloneFile) -> PathBuf {
    PathBuf::from(format!("{:?} {}", entry.kind, entry.number))
}

/// A buffer that goes back to where it came from when it was sent: a new one costs the system page after page.
struct Lent {
    bytes: Vec<u8>,
    home: Arc<ArrayQueue<Vec<u8>>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Where there are enough already, it goes.
        let _ = self.home.push(std::mem::take(&mut self.bytes));
    }
}

impl FilePin {
    /// What a target has to know.
    pub fn list(&self) -> &FileList {
        &self.list
    }

    /// The bytes of one chunk of a file.
    ///
    /// # Errors
    ///
    /// `Invalid` if the list has no such chunk, `Damaged` if the bytes are not those of the list any more.
    pub fn read(&self, kind: FileKind, number: u64, chunk: u64) -> Result<Bytes> {
        let unknown = || Error::Invalid(format!("the clone has no chunk {chunk} of {kind:?} {number}"));
        let entry = self.entries.get(&(kind, number)).and_then(|index| self.list.files.get(*index));
        let entry = entry.ok_or_else(unknown)?;
        let hash =
            usize::try_from(chunk).ok().and_then(|chunk| entry.chunks.get(chunk)).ok_or_else(unknown)?;
        let start = chunk * CLONE_CHUNK_BYTES;
        let bytes = match self.maps.get(&number).filter(|_| kind == FileKind::Run) {
            Some(map) => {
                let end = entry.len.min(start + CLONE_CHUNK_BYTES);
                map.slice(start as usize..end as usize)
            }
            None => {
                let file = self.files.get(&(kind, number)).ok_or_else(unknown)?;
                let bytes = self.buffers.pop().unwrap_or_default();
                let mut lent = Lent { bytes, home: Arc::clone(&self.buffers) };
                read_chunk(&**file, entry, chunk, &mut lent.bytes)?;
                Bytes::from_owner(lent)
            }
        };
        if blake3::hash(&bytes) != *hash {
            return Err(Error::damaged(&name_of(entry), start, "the chunk's hash does not match"));
        }
        Ok(bytes)
    }
}

impl std::fmt::Debug for FilePin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilePin").field("files", &self.list.files.len()).finish_non_exhaustive()
    }
}
