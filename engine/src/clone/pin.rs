use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use planaria_types::{FileId, Position, Uid};

use super::archive::{LogSegment, tail_of};
use super::{CLONE_CHUNK_BYTES, CloneFile, FileKind, FileList, file_path};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::os::{OpenMode, OsFile};
use crate::run::{ReadMode, Run};
use crate::store::Store;
use crate::sync::{Arc, ArrayQueue};
use crate::version::{Manifest, Role, SegmentRecord, StoreVersion};

/// Buffers that are kept to be filled again: about as many as are on their way at a time.
const BUFFERS: usize = 48;

/// The files of one cut, kept for as long as the pin lives, while the database goes on.
pub struct FilePin {
    list: FileList,
    /// The segments of the list, and before them those of the log's tail that were asked for.
    log: Vec<LogSegment>,
    /// Open files: what is removed from the directory stays readable.
    files: HashMap<(FileKind, u64), Arc<dyn OsFile>>,
    /// Run files as they lie in memory, where the database reads them so: what is sent from there is not copied before.
    maps: HashMap<u64, Bytes>,
    /// Every file of the list and of the log by its name.
    entries: HashMap<(FileKind, u64), CloneFile>,
    buffers: Arc<ArrayQueue<Vec<u8>>>,
    /// Keeps the runs from being removed.
    version: Arc<StoreVersion>,
}

/// A cut: everything at or below it lies in the runs of the version and in the sealed segments that the manifest names.
pub(super) struct Cut {
    pub(super) manifest: Manifest,
    pub(super) version: Arc<StoreVersion>,
    pub(super) position: Position,
    /// The numbers of the log segments that belong to the cut.
    pub(super) segments: Vec<u64>,
    /// Where each segment that the log retains begins, the tail before the cut's own included.
    retained: Vec<SegmentRecord>,
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
        // What is given away counts as durable from now on here, too, before anybody else shows it.
        self.sync_log()?;
        let structure = self.lock_structure();
        let version = self.pin().0;
        let last = writer.last;
        // At a primary all that is sealed is shown in a moment if it is not shown yet.
        let uid = if self.role() == Role::Primary { last } else { self.visible() };
        drop(writer);
        if uid < last {
            return Err(Error::Invalid(format!(
                "the copy holds commits up to {last} of which readers see those up to {uid}; try again in a moment"
            )));
        }
        let mut manifest = self.describe(&structure, &version);
        let retained = manifest.segments.clone();
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
        keep(&Cut { manifest, version, position, segments, retained })
    }
}

impl Database {
    /// Pins the files of a cut made now, for a clone over the network.
    pub fn pin_files(&self) -> Result<FilePin> {
        // Much of what is in memory goes into runs first: they are smaller than the log, and hashed already. Little is fetched
        // in less time than it takes to write a run.
        if !self.store().has_little_to_replay() {
            self.store().write_out()?;
        }
        self.pin_cut(None)
    }

    /// Pins the files of a cut made now, for a backup that goes on from one that ends at `since`: with the log since then,
    /// as far as it is kept. Nothing is written out first, since the log is kept by the backup anyway.
    pub fn pin_archive(&self, since: Option<Uid>) -> Result<FilePin> {
        match since {
            Some(since) => self.pin_cut(Some(since)),
            None => self.pin_files(),
        }
    }

    fn pin_cut(&self, since: Option<Uid>) -> Result<FilePin> {
        let store = self.store();
        let mut files: HashMap<_, Arc<dyn OsFile>> = HashMap::new();
        let (mut list, mut log, version) = store.cut(|cut| {
            let mut list =
                FileList { manifest: cut.manifest.clone(), position: cut.position, files: Vec::new() };
            let log = tail_of(&store.log.segments(), &cut.retained, &cut.segments, since, cut.position.uid);
            for segment in &log {
                store.log.mark_linked(segment.file.number)?;
            }
            let runs = cut.manifest.runs.iter().map(|run| run_entry(run.file, run.meta.len));
            list.files.extend(runs);
            for entry in list.files.iter().chain(log.iter().map(|segment| &segment.file)) {
                let path = file_path(&store.dir, entry.kind, entry.number);
                let file = store.options.os.open(&path, OpenMode::Read);
                let file = file.map_err(|error| Error::io("open", &path, error))?;
                files.insert((entry.kind, entry.number), file);
            }
            Ok((list, log, Arc::clone(&cut.version)))
        })?;
        let mut buffer = Vec::new();
        for entry in list.files.iter_mut().chain(log.iter_mut().map(|segment| &mut segment.file)) {
            let Some(file) = files.get(&(entry.kind, entry.number)) else { continue };
            hash_chunks(&version, &**file, entry, &mut buffer)?;
        }
        let needed = log.iter().filter(|segment| segment.file.number >= list.manifest.log_start);
        list.files.extend(needed.map(|segment| segment.file.clone()));
        let mut maps = HashMap::new();
        if store.options.read_mode == ReadMode::Mapped {
            for entry in list.files.iter().filter(|entry| entry.kind == FileKind::Run) {
                let Some(file) = files.get(&(entry.kind, entry.number)) else { continue };
                let mapped = file.map(entry.len);
                let mapped = mapped.map_err(|error| Error::io("map", &name_of(entry), error))?;
                maps.extend(mapped.map(|map| (entry.number, map)));
            }
        }
        let entries = list.files.iter().chain(log.iter().map(|segment| &segment.file));
        let entries = entries.map(|entry| ((entry.kind, entry.number), entry.clone())).collect();
        let buffers = Arc::new(ArrayQueue::new(BUFFERS));
        Ok(FilePin { list, log, files, maps, entries, buffers, version })
    }
}

fn run_entry(file: FileId, len: u64) -> CloneFile {
    CloneFile { kind: FileKind::Run, number: file.0, len, extent: len, chunks: Vec::new() }
}

/// Fills in the hashes of a file's chunks.
fn hash_chunks(
    version: &StoreVersion,
    file: &dyn OsFile,
    entry: &mut CloneFile,
    buffer: &mut Vec<u8>,
) -> Result<()> {
    if let Some(run) = run_of(version, entry) {
        entry.chunks = run.hashes_as_it_lies()?.to_vec();
        return Ok(());
    }
    while (entry.chunks.len() as u64) * CLONE_CHUNK_BYTES < entry.len {
        read_chunk(file, entry, entry.chunks.len() as u64, buffer)?;
        entry.chunks.push(*blake3::hash(buffer).as_bytes());
    }
    Ok(())
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

    /// The log segments that are pinned: those of the list, and before them the tail that was asked for, as far as it is
    /// kept without a gap.
    pub fn log(&self) -> &[LogSegment] {
        &self.log
    }

    /// The bytes of one chunk of a file.
    ///
    /// # Errors
    ///
    /// `Invalid` if the list has no such chunk, `Damaged` if the bytes are not those of the list any more.
    pub fn read(&self, kind: FileKind, number: u64, chunk: u64) -> Result<Bytes> {
        let unknown = || Error::Invalid(format!("the clone has no chunk {chunk} of {kind:?} {number}"));
        let entry = self.entries.get(&(kind, number));
        let entry = entry.ok_or_else(unknown)?;
        let hash =
            usize::try_from(chunk).ok().and_then(|chunk| entry.chunks.get(chunk)).ok_or_else(unknown)?;
        let start = chunk * CLONE_CHUNK_BYTES;
        let map = self.maps.get(&number).filter(|_| kind == FileKind::Run);
        let bytes = if let Some(map) = map {
            let end = entry.len.min(start + CLONE_CHUNK_BYTES);
            map.slice(start as usize..end as usize)
        } else {
            let file = self.files.get(&(kind, number)).ok_or_else(unknown)?;
            let bytes = self.buffers.pop().unwrap_or_default();
            let mut lent = Lent { bytes, home: Arc::clone(&self.buffers) };
            read_chunk(&**file, entry, chunk, &mut lent.bytes)?;
            Bytes::from_owner(lent)
        };
        if blake3::hash(&bytes) != *hash {
            let damaged = |path: &Path| Error::damaged(path, start, "the chunk's hash does not match");
            // Where the file lies is nothing to whoever takes the clone.
            run_of(&self.version, entry).inspect(|run| run.health().note(&damaged(run.path())));
            return Err(damaged(&name_of(entry)));
        }
        Ok(bytes)
    }
}

impl std::fmt::Debug for FilePin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FilePin").field("files", &self.list.files.len()).finish_non_exhaustive()
    }
}
