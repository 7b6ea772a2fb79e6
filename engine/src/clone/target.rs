use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use planaria_types::{DatabaseId, InstanceId, Position, Uid};

use super::local::publish;
use super::{
    CLONE_CHUNK_BYTES, CloneFile, CloneRole, FileKind, FileList, clone_manifest, file_path, partial_dir,
};
use crate::commit::EncodedCommit;
use crate::error::{Error, Result};
use crate::log::cut_before;
use crate::options::Options;
use crate::os::{OpenMode, Os, OsFile};
use crate::planted::planted;
use crate::store::{log_dir, record_kind};
use crate::sync::Arc;
use crate::version::{run_dir, write_file};

/// The file list within a clone that is not complete: what a resumed clone must be of.
const LIST: &str = "CLONE";
/// The most files that a source may list.
const FILES_MAX: usize = 1 << 20;

/// The most zeros that a source may leave out at the end of a file, in bytes: an empty log segment.
const EXTENT_BEYOND_MAX: u64 = 4 << 30;

/// A chunk that a target does not have yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MissingChunk {
    /// The file's kind.
    pub kind: FileKind,
    /// Its number.
    pub number: u64,
    /// The chunk's index.
    pub chunk: u64,
}

/// A clone that is being received into `NAME.partial`. It becomes `NAME` when it is complete and verified; whatever
/// interrupts it, the next attempt goes on where it stopped.
pub struct CloneTarget {
    options: Options,
    target: PathBuf,
    partial: PathBuf,
    list: FileList,
    files: BTreeMap<(FileKind, u64), Arc<dyn OsFile>>,
    missing: VecDeque<MissingChunk>,
    resumed_bytes: u64,
}

impl CloneTarget {
    /// Prepares to receive the files of `list` into `target`. What an earlier attempt has received is kept as far as
    /// the files are the same ones, after a check of every chunk: the cut may be another, most runs are not.
    ///
    /// # Errors
    ///
    /// `Exists` if there is something at `target`, `NoSpace` if the files will not fit.
    pub fn open(target: impl AsRef<Path>, list: FileList, options: Options) -> Result<Self> {
        let target = target.as_ref().to_path_buf();
        let os = &options.os;
        if os.exists(&target) {
            return Err(Error::Exists { path: target });
        }
        check_list(&list)?;
        let partial = partial_dir(&target);
        let encoded = postcard::to_stdvec(&list)
            .map_err(|error| Error::Invalid(format!("a file list cannot be encoded: {error}")))?;
        let earlier = read_whole(os, &partial.join(LIST)).and_then(|found| postcard::from_bytes(&found).ok());
        match earlier {
            Some(earlier) => keep_common(os, &partial, &earlier, &list)?,
            None if os.exists(&partial) => {
                os.remove_dir_all(&partial).map_err(|error| Error::io("remove", &partial, error))?;
            }
            None => {}
        }
        for dir in [partial.clone(), run_dir(&partial), log_dir(&partial)] {
            os.create_dir_all(&dir).map_err(|error| Error::io("create", &dir, error))?;
        }
        write_file(os, &partial.join(LIST), &encoded)?;
        os.sync_dir(&partial).map_err(|error| Error::io("sync", &partial, error))?;
        let mut clone = Self {
            target,
            partial,
            files: BTreeMap::new(),
            missing: VecDeque::new(),
            resumed_bytes: 0,
            list,
            options,
        };
        clone.open_files()?;
        Ok(clone)
    }

    fn open_files(&mut self) -> Result<()> {
        let os = Arc::clone(&self.options.os);
        let needed: u64 = self.list.bytes();
        let space =
            os.disk_space(&self.partial).map_err(|error| Error::io("measure", &self.partial, error))?;
        for entry in &self.list.files {
            let path = file_path(&self.partial, entry.kind, entry.number);
            let exists = os.exists(&path);
            if !exists && space.available_bytes < needed {
                return Err(Error::NoSpace { path, what: "reserving room for a clone" });
            }
            let mode = if exists { OpenMode::Write } else { OpenMode::CreateNew };
            let file = os.open(&path, mode).map_err(|error| Error::io("open", &path, error))?;
            if !exists {
                file.set_len(entry.extent).map_err(|error| Error::io("extend", &path, error))?;
            }
            for chunk in 0..entry.chunks.len() as u64 {
                let unchecked = planted!(self.options, ResumeUnchecked);
                if exists && (unchecked || has_chunk(&*file, entry, chunk)) {
                    self.resumed_bytes += chunk_len(entry, chunk);
                } else {
                    let missing = MissingChunk { kind: entry.kind, number: entry.number, chunk };
                    self.missing.push_back(missing);
                }
            }
            self.files.insert((entry.kind, entry.number), file);
        }
        Ok(())
    }

    /// The chunks that are to be fetched, in order.
    pub fn missing(&self) -> &VecDeque<MissingChunk> {
        &self.missing
    }

    /// Bytes that an earlier attempt had received.
    pub fn resumed_bytes(&self) -> u64 {
        self.resumed_bytes
    }

    /// What is received.
    pub fn list(&self) -> &FileList {
        &self.list
    }

    /// Gives the clone up and removes what was received.
    pub fn discard(self) -> Result<()> {
        let Self { options, partial, files, .. } = self;
        drop(files);
        options.os.remove_dir_all(&partial).map_err(|error| Error::io("remove", &partial, error))
    }

    /// Takes in a chunk. It may come from any holder and in any order.
    ///
    /// # Errors
    ///
    /// `Invalid` if the bytes are not those that the list promises; nothing is written then.
    pub fn write(&mut self, chunk: MissingChunk, bytes: &[u8]) -> Result<()> {
        let wrong = |what: &str| {
            Error::Invalid(format!("chunk {} of {:?} {}: {what}", chunk.chunk, chunk.kind, chunk.number))
        };
        let entry =
            self.list.files.iter().find(|file| file.kind == chunk.kind && file.number == chunk.number);
        let entry = entry.ok_or_else(|| wrong("not part of the clone"))?;
        let hash = usize::try_from(chunk.chunk).ok().and_then(|index| entry.chunks.get(index));
        if hash.is_none_or(|hash| blake3::hash(bytes) != *hash) {
            return Err(wrong("the source sent other bytes than it promised"));
        }
        let file = self.files.get(&(chunk.kind, chunk.number)).ok_or_else(|| wrong("not open"))?;
        let path = file_path(&self.partial, chunk.kind, chunk.number);
        file.write_all_at(bytes, chunk.chunk * CLONE_CHUNK_BYTES)
            .map_err(|error| Error::io("write", &path, error))?;
        match self.missing.front() {
            Some(first) if *first == chunk => drop(self.missing.pop_front()),
            _ => self.missing.retain(|other| *other != chunk),
        }
        Ok(())
    }

    /// Completes the clone: syncs the files, gives it its identity, then its name. Nothing but the name was missing
    /// when this returns an error about the name.
    pub fn finish(self, role: CloneRole) -> Result<()> {
        self.sync_files()?;
        self.name(role)
    }

    /// Completes the clone as of the last commit at or below `upto`, which its log must hold, or be its cut. Answers with that
    /// commit's position.
    ///
    /// # Errors
    ///
    /// `Damaged` if the log's commits do not follow one another, `SnapshotTooOld` if all of them are above.
    pub fn finish_as_of(mut self, role: CloneRole, upto: Uid) -> Result<Position> {
        self.sync_files()?;
        let uid = self.cut_log(upto)?;
        let group = &mut self.list.manifest.group;
        group.history = group.history.inherit(uid);
        group.visible = uid;
        let position = group.history.position_of(uid);
        self.list.position = position;
        self.name(role)?;
        Ok(position)
    }

    /// Ends the log behind the last commit at or below `upto`, and answers with that one.
    pub(super) fn cut_log(&self, upto: Uid) -> Result<Uid> {
        let (manifest, dir) = (&self.list.manifest, log_dir(&self.partial));
        let base = manifest.segments.iter().find(|segment| segment.number == manifest.log_start);
        let mut last = base.map_or(Uid::ZERO, |base| base.uid);
        if upto < last || upto < manifest.group.visible {
            return Err(Error::SnapshotTooOld(upto));
        }
        let mut numbers: Vec<u64> = self
            .list
            .files
            .iter()
            .filter(|file| file.kind == FileKind::Log)
            .map(|file| file.number)
            .collect();
        numbers.sort_unstable();
        let mut keep = |kind: u8, payload: &[u8]| {
            if kind != record_kind::COMMIT {
                return Ok(true);
            }
            let commit = EncodedCommit::parse(bytes::Bytes::copy_from_slice(payload))
                .map_err(|error| Error::damaged(&dir, 0, error.to_string()))?;
            if commit.uid() > upto {
                return Ok(false);
            }
            if commit.prev() != last || commit.uid() <= last {
                let what = format!("commit {} does not follow {last}", commit.uid());
                return Err(Error::damaged(&dir, 0, what));
            }
            last = commit.uid();
            Ok(true)
        };
        cut_before(&self.options.os, &dir, &numbers, &mut keep)?;
        Ok(last)
    }

    fn sync_files(&self) -> Result<()> {
        if let Some(missing) = self.missing.front() {
            return Err(Error::Invalid(format!(
                "{:?} {} of the clone is not complete",
                missing.kind, missing.number
            )));
        }
        let os = &self.options.os;
        for ((kind, number), file) in &self.files {
            let path = file_path(&self.partial, *kind, *number);
            file.sync_data().map_err(|error| Error::io("sync", &path, error))?;
        }
        for dir in [run_dir(&self.partial), log_dir(&self.partial)] {
            os.sync_dir(&dir).map_err(|error| Error::io("sync", &dir, error))?;
        }
        Ok(())
    }

    /// Gives the clone its identity and its name.
    fn name(self, role: CloneRole) -> Result<()> {
        let os = &self.options.os;
        let random = || u128::from(os.random_u64()) << 64 | u128::from(os.random_u64());
        let (instance, database) = (InstanceId(random()), DatabaseId(random()));
        let (source, position) = (&self.list.manifest, self.list.position);
        clone_manifest(source, position, role, instance, database, os.now_millis())
            .write(os, &self.partial)?;
        let list = self.partial.join(LIST);
        os.remove_file(&list).map_err(|error| Error::io("remove", &list, error))?;
        publish(os, &self.partial, &self.target)
    }
}

impl std::fmt::Debug for CloneTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloneTarget")
            .field("target", &self.target)
            .field("missing", &self.missing.len())
            .finish_non_exhaustive()
    }
}

/// Removes what an earlier attempt received of files that are not part of this one.
fn keep_common(os: &Arc<dyn Os>, partial: &Path, earlier: &FileList, list: &FileList) -> Result<()> {
    let same_source = earlier.manifest.instance == list.manifest.instance;
    let wanted: std::collections::HashSet<_> = list
        .files
        .iter()
        .filter(|_| same_source)
        .map(|file| (file.kind, file.number, &file.chunks))
        .collect();
    for file in &earlier.files {
        let path = file_path(partial, file.kind, file.number);
        if !wanted.contains(&(file.kind, file.number, &file.chunks)) && os.exists(&path) {
            os.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
    }
    Ok(())
}

/// Refuses a list that no source makes: lengths and chunks must agree, names must be used once.
fn check_list(list: &FileList) -> Result<()> {
    let mut names = std::collections::HashSet::new();
    let sound = |file: &CloneFile| {
        file.len.div_ceil(CLONE_CHUNK_BYTES) == file.chunks.len() as u64
            && (file.len..=file.len.saturating_add(EXTENT_BEYOND_MAX)).contains(&file.extent)
    };
    if list.files.len() > FILES_MAX
        || !list.files.iter().all(|file| sound(file) && names.insert((file.kind, file.number)))
    {
        return Err(Error::Invalid("the source's file list makes no sense".into()));
    }
    Ok(())
}

fn chunk_len(entry: &CloneFile, chunk: u64) -> u64 {
    (entry.len - chunk * CLONE_CHUNK_BYTES).min(CLONE_CHUNK_BYTES)
}

fn has_chunk(file: &dyn OsFile, entry: &CloneFile, chunk: u64) -> bool {
    let mut bytes = vec![0; chunk_len(entry, chunk) as usize];
    let read = file.read_exact_at(&mut bytes, chunk * CLONE_CHUNK_BYTES);
    let expected = usize::try_from(chunk).ok().and_then(|chunk| entry.chunks.get(chunk));
    read.is_ok() && expected.is_some_and(|hash| blake3::hash(&bytes) == *hash)
}

fn read_whole(os: &Arc<dyn Os>, path: &Path) -> Option<Vec<u8>> {
    let file = os.open(path, OpenMode::Read).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
    file.read_exact_at(&mut bytes, 0).ok()?;
    Some(bytes)
}
