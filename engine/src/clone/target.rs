use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use planaria_types::{DatabaseId, InstanceId, Position, Uid};

use super::file::TargetFile;
use super::hydration::{Chunks, Hydration};
use super::local::publish;
use super::{
    CLONE_CHUNK_BYTES, CloneAbout, CloneFile, CloneRole, FileKind, FileList, Origin, clone_manifest,
    file_path, partial_dir,
};
use crate::commit::EncodedCommit;
use crate::error::{Error, Result};
use crate::log::cut_before;
use crate::options::Options;
use crate::os::{OpenMode, Os, OsFile};
use crate::planted::planted;
use crate::sealed::{beside, parent};
use crate::store::{log_dir, record_kind};
use crate::sync::{Arc, RwLock};
use crate::version::{MANIFEST, Manifest, run_dir, write_file};

/// The end of a file's name while another one may have the name that it gets.
const ASIDE: &str = ".aside";
/// The file list within a clone that is not complete: what a resumed clone must be of.
pub(super) const LIST: &str = "CLONE";
/// The most files that a source may list.
const FILES_MAX: usize = 1 << 20;

/// The most zeros that a source may leave out at the end of a log segment, in bytes: all of an empty one. Of all segments together it
/// is that, and as much as it announces: room is reserved for them.
const EXTENT_BEYOND_MAX: u64 = 4 << 30;

/// A chunk that a target does not have yet.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
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
    files: BTreeMap<(FileKind, u64), TargetFile>,
    hydration: Arc<Hydration>,
    resumed_bytes: u64,
    linked_bytes: u64,
    about: Option<CloneAbout>,
    /// What the clone is called among copies, and the database that it is if it is one of its own.
    identity: (InstanceId, DatabaseId),
    /// Held to read while a chunk is written; set once no more are taken.
    is_retired: RwLock<bool>,
    origin: Origin,
}

/// What is done with chunks that an earlier attempt may have brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Earlier {
    /// They are looked at when the clone is opened.
    CheckNow,
    /// They are looked at when they are read, or before they would be fetched: the clone is read while it comes in.
    CheckLater,
}

impl CloneTarget {
    /// Prepares to receive the files of `list` into `target`. What an earlier attempt has received is kept as far as
    /// the files are the same ones, after a check of every chunk: the cut may be another, and so may the source, most
    /// runs are not.
    ///
    /// # Errors
    ///
    /// `Exists` if there is something at `target`, `NoRoom` if the files do not fit: then nothing is left behind.
    pub fn open(target: impl AsRef<Path>, list: FileList, options: Options) -> Result<Self> {
        Self::open_reusing(target, None, list, options)
    }

    /// As [`CloneTarget::open`]. Files that the closed database in `reuse` has in the same bytes get a second name
    /// instead of being received.
    ///
    /// # Errors
    ///
    /// As [`CloneTarget::open`].
    pub fn open_reusing(
        target: impl AsRef<Path>,
        reuse: Option<&Path>,
        list: FileList,
        options: Options,
    ) -> Result<Self> {
        Self::begin(target.as_ref(), reuse, list, options, Earlier::CheckNow)
    }

    /// As [`CloneTarget::open`], for a clone that is to be read while it comes in: nothing is read of what an earlier attempt
    /// has brought before somebody needs it.
    ///
    /// # Errors
    ///
    /// As [`CloneTarget::open`].
    pub fn open_lazily(target: impl AsRef<Path>, list: FileList, options: Options) -> Result<Self> {
        Self::begin(target.as_ref(), None, list, options, Earlier::CheckLater)
    }

    /// Goes on with what an earlier process was receiving into `target`, if it was, without any source.
    ///
    /// # Errors
    ///
    /// As [`CloneTarget::open`].
    pub fn resume_lazily(target: impl AsRef<Path>, options: Options) -> Result<Option<Self>> {
        let found = read_whole(&options.os, &partial_dir(target.as_ref()).join(LIST));
        match found.and_then(|found| postcard::from_bytes(&found).ok()) {
            Some(list) => Self::open_lazily(target, list, options).map(Some),
            None => Ok(None),
        }
    }

    fn begin(
        target: &Path,
        reuse: Option<&Path>,
        list: FileList,
        options: Options,
        before: Earlier,
    ) -> Result<Self> {
        let target = target.to_path_buf();
        let os = &options.os;
        if os.exists(&target) {
            return Err(Error::Exists { path: target });
        }
        check_list(&list)?;
        let partial = partial_dir(&target);
        let encoded = postcard::to_stdvec(&list)
            .map_err(|error| Error::Invalid(format!("a file list cannot be encoded: {error}")))?;
        let earlier = read_whole(os, &partial.join(LIST)).and_then(|found| postcard::from_bytes(&found).ok());
        let had_all = earlier.is_none() && os.exists(&partial.join(MANIFEST));
        if earlier.is_none() && !had_all && os.exists(&partial) {
            os.remove_dir_all(&partial).map_err(|error| Error::io("remove", &partial, error))?;
        }
        // One that was complete but for its name has the names of its source: what is in the list under them is looked at.
        let earlier = earlier.or_else(|| had_all.then(|| list.clone()));
        if let Some(earlier) = &earlier {
            begin_anew(os, &partial, had_all.then_some(&*encoded))?;
            keep_common(os, &partial, earlier, &list)?;
        }
        for dir in [partial.clone(), run_dir(&partial), log_dir(&partial)] {
            os.create_dir_all(&dir).map_err(|error| Error::io("create", &dir, error))?;
        }
        remove_strangers(os, &partial, &list)?;
        let linked_bytes = reuse.map_or(Ok(0), |own| link_equal(os, own, &partial, &list))?;
        if let Err(error) = check_room(os, &partial, &list) {
            // What earlier attempts brought may be gone on with once there is room; an empty directory helps nobody.
            if !os.exists(&partial.join(LIST)) {
                let _ = os.remove_dir_all(&partial);
            }
            return Err(error);
        }
        write_file(os, &partial.join(LIST), &encoded)?;
        os.sync_dir(&partial).map_err(|error| Error::io("sync", &partial, error))?;
        let found = open_files(&options, &partial, &list, before)?;
        let random = || u128::from(options.os.random_u64()) << 64 | u128::from(options.os.random_u64());
        Ok(Self {
            target,
            partial,
            files: found.files,
            hydration: Arc::new(found.hydration),
            resumed_bytes: found.bytes.saturating_sub(linked_bytes),
            linked_bytes,
            about: None,
            origin: Origin::This,
            identity: (InstanceId(random()), DatabaseId(random())),
            is_retired: RwLock::new(false),
            list,
            options,
        })
    }

    /// What an interrupted attempt at `target` was receiving, if there was one.
    pub fn begun(target: &Path, os: &Arc<dyn Os>) -> Option<InstanceId> {
        let found = read_whole(os, &partial_dir(target).join(LIST))?;
        postcard::from_bytes::<FileList>(&found).ok().map(|list| list.manifest.instance)
    }

    /// Bytes of files that another database on this disk had already.
    pub fn linked_bytes(&self) -> u64 {
        self.linked_bytes
    }

    /// The chunks that are to be fetched, in order.
    pub fn missing(&self) -> Vec<MissingChunk> {
        self.hydration.missing()
    }

    /// Bytes that an earlier attempt had received, as far as they were looked at.
    pub fn resumed_bytes(&self) -> u64 {
        self.resumed_bytes + self.hydration.resumed_bytes()
    }

    /// Which chunks are here, and who waits for others.
    pub fn hydration(&self) -> &Arc<Hydration> {
        &self.hydration
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    pub(super) fn partial(&self) -> &Path {
        &self.partial
    }

    /// The manifest of the source.
    pub(super) fn source(&self) -> &Manifest {
        &self.list.manifest
    }

    /// What the clone is called among copies, and the database that it is.
    pub(super) fn identity(&self, role: CloneRole) -> (InstanceId, DatabaseId) {
        match role {
            CloneRole::Detached => self.identity,
            CloneRole::Secondary => (self.identity.0, self.list.manifest.database),
        }
    }

    /// Under which numbers another list has the files that are not complete here; nothing if it lacks one of them. What a file
    /// is, its hashes say.
    pub fn numbers_in(&self, other: &FileList) -> Option<BTreeMap<(FileKind, u64), u64>> {
        let theirs: HashMap<Bytes<'_>, u64> =
            other.files.iter().map(|file| (bytes_of(file), file.number)).collect();
        let missing: BTreeSet<_> =
            self.hydration.missing().into_iter().map(|chunk| (chunk.kind, chunk.number)).collect();
        let files = self.list.files.iter().filter(|file| missing.contains(&(file.kind, file.number)));
        files.map(|file| Some(((file.kind, file.number), *theirs.get(&bytes_of(file))?))).collect()
    }

    /// Takes no more chunks, and returns when nobody writes one any more. Whoever reads from it waits for nothing any more, and is
    /// told why.
    pub fn retire(&self, why: &str) {
        *self.is_retired.write() = true;
        self.hydration.set_away(why);
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

    /// Takes in a chunk. It may come from any holder and in any order, and from several threads at once.
    ///
    /// # Errors
    ///
    /// `Invalid` if the bytes are not those that the list promises, `Closed` once it is retired; nothing is written then.
    pub fn write(&self, chunk: MissingChunk, bytes: &[u8]) -> Result<()> {
        self.take_in(chunk, bytes).map(drop)
    }

    /// As [`CloneTarget::write`]; answers whether the chunk was missing.
    ///
    /// # Errors
    ///
    /// As [`CloneTarget::write`].
    pub fn take_in(&self, chunk: MissingChunk, bytes: &[u8]) -> Result<bool> {
        let wrong = |what: &str| {
            Error::Invalid(format!("chunk {} of {:?} {}: {what}", chunk.chunk, chunk.kind, chunk.number))
        };
        let known = self.files.get(&(chunk.kind, chunk.number));
        let known = known.and_then(|known| Some((known, self.list.files.get(known.entry)?)));
        let (known, entry) = known.ok_or_else(|| wrong("not part of the clone"))?;
        let hash = usize::try_from(chunk.chunk).ok().and_then(|index| entry.chunks.get(index));
        if hash.is_none_or(|hash| blake3::hash(bytes) != *hash) {
            return Err(wrong("the source sent other bytes than it promised"));
        }
        let is_retired = self.is_retired.read();
        if *is_retired {
            return Err(Error::Closed);
        }
        known.write(&*self.options.os, bytes, chunk.chunk * CLONE_CHUNK_BYTES)?;
        Ok(self.hydration.arrived(chunk))
    }

    /// Makes a file durable if all of it is there: what is done for one while others arrive need not be waited for in the end.
    pub fn sync_complete(&self, kind: FileKind, number: u64) -> Result<()> {
        let start = MissingChunk { kind, number, chunk: 0 };
        let end = MissingChunk { chunk: u64::MAX, ..start };
        if self.hydration.first_missing(start, Some(end)).is_some() {
            return Ok(());
        }
        self.files.get(&(kind, number)).map_or(Ok(()), |known| known.sync(&*self.options.os))
    }

    /// Has the clone say this of itself from the moment on in which it is complete; the times are those of that moment.
    pub fn set_about(&mut self, about: CloneAbout) {
        self.about = Some(about);
    }

    /// Has the clone name as its source what its source says that it was made of: that one was made to be given away.
    pub fn inherit_lineage(&mut self) {
        self.origin = Origin::ItsSource;
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
        let first = MissingChunk { kind: FileKind::Run, number: 0, chunk: 0 };
        if let Some(missing) = self.hydration.first_missing(first, None) {
            return Err(Error::Invalid(format!(
                "{:?} {} of the clone is not complete",
                missing.kind, missing.number
            )));
        }
        let os = &self.options.os;
        for (kind, number) in self.files.keys() {
            self.sync_complete(*kind, *number)?;
        }
        for dir in [run_dir(&self.partial), log_dir(&self.partial)] {
            os.sync_dir(&dir).map_err(|error| Error::io("sync", &dir, error))?;
        }
        Ok(())
    }

    /// Gives the clone its identity and its name.
    fn name(self, role: CloneRole) -> Result<()> {
        let os = &self.options.os;
        let (source, position) = (&self.list.manifest, self.list.position);
        let (instance, database) = self.identity(role);
        if let Some(about) = self.about {
            about.write(os, &self.partial)?;
        }
        let manifest = clone_manifest(source, position, role, instance, database, os.now_millis());
        self.origin.name_in(manifest, source).write(os, &self.partial)?;
        let list = self.partial.join(LIST);
        os.remove_file(&list).map_err(|error| Error::io("remove", &list, error))?;
        publish(os, &self.partial, &self.target)
    }
}

impl std::fmt::Debug for CloneTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CloneTarget")
            .field("target", &self.target)
            .field("hydration", &self.hydration)
            .finish_non_exhaustive()
    }
}

/// The files of a clone as they are found.
struct Found {
    files: BTreeMap<(FileKind, u64), TargetFile>,
    hydration: Hydration,
    /// Bytes that are here and were checked.
    bytes: u64,
}

/// Makes the files that are not there yet, and finds out which chunks are missing.
fn open_files(options: &Options, partial: &Path, list: &FileList, before: Earlier) -> Result<Found> {
    let os = &options.os;
    let (mut files, mut chunks) = (BTreeMap::new(), BTreeMap::new());
    let (mut missing, mut unchecked, mut bytes) = (BTreeSet::new(), BTreeSet::new(), 0);
    let is_read = before == Earlier::CheckLater;
    for (index, entry) in list.files.iter().enumerate() {
        let path = file_path(partial, entry.kind, entry.number);
        let exists = os.exists(&path);
        let mode = if exists { OpenMode::Write } else { OpenMode::CreateNew };
        let file = os.open(&path, mode).map_err(|error| Error::io("open", &path, error))?;
        // One that an earlier attempt made may not have had its length yet when that ended.
        if file.len().map_err(|error| Error::io("measure", &path, error))? != entry.extent {
            file.allocate(entry.extent).map_err(|error| Error::io("reserve room for", &path, error))?;
        }
        for chunk in 0..entry.chunks.len() as u64 {
            let unread = planted!(options, ResumeUnchecked);
            let name = MissingChunk { kind: entry.kind, number: entry.number, chunk };
            if exists && is_read && entry.kind == FileKind::Run {
                missing.insert(name);
                unchecked.insert(name);
            } else if exists && (unread || has_chunk(&*file, entry, chunk)) {
                bytes += chunk_len(entry, chunk);
            } else {
                missing.insert(name);
            }
        }
        let name = (entry.kind, entry.number);
        chunks.insert(name, Arc::new(Chunks::new(path.clone(), entry)));
        files.insert(name, TargetFile::new(path, index, is_read));
    }
    let hydration = Hydration::new(Arc::clone(os), chunks, missing, unchecked);
    Ok(Found { files, hydration, bytes })
}

/// What a file is, whatever its number: its kind, its extent, and the hashes of its chunks.
type Bytes<'a> = (FileKind, u64, &'a [[u8; 32]]);

fn bytes_of(file: &CloneFile) -> Bytes<'_> {
    (file.kind, file.extent, &file.chunks)
}

/// Has what is there be no database any more before any of its files is another one: it may have been complete but for its
/// name. Then it has no list any more either, and gets this one first, so that whatever ends this it is not lost.
fn begin_anew(os: &Arc<dyn Os>, partial: &Path, list: Option<&[u8]>) -> Result<()> {
    let sync = || os.sync_dir(partial).map_err(|error| Error::io("sync", partial, error));
    if let Some(list) = list {
        write_file(os, &partial.join(LIST), list)?;
        sync()?;
    }
    let manifest = partial.join(MANIFEST);
    if os.exists(&manifest) {
        os.remove_file(&manifest).map_err(|error| Error::io("remove", &manifest, error))?;
        sync()?;
    }
    Ok(())
}

/// Keeps what an earlier attempt received of files that are part of this one, under the names that they have now, and
/// removes the rest. What a file is, its hashes say: another source may have it under another number.
fn keep_common(os: &Arc<dyn Os>, partial: &Path, earlier: &FileList, list: &FileList) -> Result<()> {
    // Those of an attempt that ended among the renames below, and what nobody knows.
    let known: HashSet<PathBuf> =
        earlier.files.iter().map(|file| file_path(partial, file.kind, file.number)).collect();
    for dir in [run_dir(partial), log_dir(partial)] {
        let entries = os.list(&dir).unwrap_or_default();
        for path in entries.iter().map(|entry| dir.join(&entry.name)).filter(|path| !known.contains(path)) {
            os.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
        }
    }
    let mut wanted: HashMap<Bytes<'_>, Vec<u64>> = HashMap::new();
    for file in &list.files {
        wanted.entry(bytes_of(file)).or_default().push(file.number);
    }
    let mut moves = Vec::new();
    for file in &earlier.files {
        let path = file_path(partial, file.kind, file.number);
        if !os.exists(&path) {
            continue;
        }
        // One with another name may belong to a database: it is linked anew, or fetched, and never written to.
        if has_other_name(os, &path)? {
            os.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
            continue;
        }
        // A name that stays is preferred, so that a second attempt finds what the first one has moved.
        let numbers = wanted.get_mut(&bytes_of(file));
        let number = numbers.and_then(|numbers| {
            let same = numbers.iter().position(|number| *number == file.number);
            same.map(|at| numbers.swap_remove(at)).or_else(|| numbers.pop())
        });
        match number {
            Some(number) if number == file.number => {}
            Some(number) => moves.push((path, file_path(partial, file.kind, number))),
            None => os.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?,
        }
    }
    // Over a name that is free, or that of another file which moves as well: each goes to a name of its own first.
    for (from, _) in &moves {
        let aside = beside(from, ASIDE);
        os.rename(from, &aside).map_err(|error| Error::io("rename", from, error))?;
    }
    for (from, to) in &moves {
        let aside = beside(from, ASIDE);
        os.rename(&aside, to).map_err(|error| Error::io("rename", &aside, error))?;
    }
    Ok(())
}

fn has_other_name(os: &Arc<dyn Os>, path: &Path) -> Result<bool> {
    let file = os.open(path, OpenMode::Read).map_err(|error| Error::io("open", path, error))?;
    Ok(file.links().map_err(|error| Error::io("measure", path, error))? > 1)
}

/// Removes files that the list does not name: an attempt before the last one left them, if a power cut has taken back that they
/// were removed. In the log they would pass for its newest segments.
fn remove_strangers(os: &Arc<dyn Os>, partial: &Path, list: &FileList) -> Result<()> {
    let named: std::collections::HashSet<PathBuf> =
        list.files.iter().map(|file| file_path(partial, file.kind, file.number)).collect();
    for dir in [run_dir(partial), log_dir(partial)] {
        for entry in os.list(&dir).map_err(|error| Error::io("list", &dir, error))? {
            let path = dir.join(&entry.name);
            if !entry.is_dir && !named.contains(&path) {
                os.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
            }
        }
    }
    Ok(())
}

/// Gives files of a database that have the bytes of listed ones a second name among those that are received, and tells
/// how many bytes they have. Every chunk is checked before: nothing of a file with two names may ever be written.
fn link_equal(os: &Arc<dyn Os>, own: &Path, partial: &Path, list: &FileList) -> Result<u64> {
    let mut bytes = 0;
    for entry in list.files.iter().filter(|file| file.kind == FileKind::Run && !file.chunks.is_empty()) {
        let from = file_path(own, entry.kind, entry.number);
        let to = file_path(partial, entry.kind, entry.number);
        if os.exists(&to) || !os.exists(&from) {
            continue;
        }
        let file = os.open(&from, OpenMode::Read).map_err(|error| Error::io("open", &from, error))?;
        let has_len = file.len().is_ok_and(|len| len == entry.extent);
        if has_len && (0..entry.chunks.len() as u64).all(|chunk| has_chunk(&*file, entry, chunk)) {
            match os.hard_link(&from, &to) {
                Ok(()) => bytes += entry.len,
                Err(error) if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::CrossesDevices) => {
                    return Ok(bytes);
                }
                Err(error) => return Err(Error::io("link", &from, error)),
            }
        }
    }
    Ok(bytes)
}

/// Refuses files that do not fit, before anybody sends one.
fn check_room(os: &Arc<dyn Os>, partial: &Path, list: &FileList) -> Result<()> {
    let dir = parent(partial);
    let space = os.disk_space(&dir).map_err(|error| Error::io("measure", &dir, error))?;
    let missing = list.files.iter().filter(|file| !os.exists(&file_path(partial, file.kind, file.number)));
    let needed_bytes = missing.fold(0, |sum: u64, file| sum.saturating_add(file.extent));
    if needed_bytes > space.available_bytes {
        let available_bytes = space.available_bytes;
        return Err(Error::NoRoom { path: dir, needed_bytes, available_bytes });
    }
    Ok(())
}

/// Refuses a list that no source makes: lengths and chunks must agree, names must be used once, and the runs must be those
/// of the manifest, or what is complete would not open.
fn check_list(list: &FileList) -> Result<()> {
    let mut names = HashSet::new();
    let mut runs: HashMap<u64, u64> =
        list.manifest.runs.iter().map(|run| (run.file.0, run.meta.len)).collect();
    let mut is_of_manifest =
        |file: &CloneFile| file.kind != FileKind::Run || runs.remove(&file.number) == Some(file.len);
    let sound = |file: &CloneFile| {
        let beyond_max = if file.kind == FileKind::Log { EXTENT_BEYOND_MAX } else { 0 };
        file.len.div_ceil(CLONE_CHUNK_BYTES) == file.chunks.len() as u64
            && (file.len..=file.len.saturating_add(beyond_max)).contains(&file.extent)
    };
    let beyond = |sum: u64, file: &CloneFile| sum.saturating_add(file.extent.saturating_sub(file.len));
    if list.files.len() > FILES_MAX
        || list.files.iter().fold(0, beyond) > EXTENT_BEYOND_MAX.saturating_add(list.bytes())
        || !list.files.iter().all(|file| sound(file) && names.insert((file.kind, file.number)))
        || !list.files.iter().all(&mut is_of_manifest)
        || !runs.is_empty()
    {
        return Err(Error::Invalid("the source's file list makes no sense".into()));
    }
    Ok(())
}

pub(super) fn chunk_len(entry: &CloneFile, chunk: u64) -> u64 {
    (entry.len - chunk * CLONE_CHUNK_BYTES).min(CLONE_CHUNK_BYTES)
}

pub(super) fn has_chunk(file: &dyn OsFile, entry: &CloneFile, chunk: u64) -> bool {
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

#[cfg(test)]
#[cfg(not(loom))]
#[path = "target_tests.rs"]
mod tests;
