//! Extracts: what a copy showed and had to take back, kept to be looked at and written again.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use planaria_types::{Epoch, TableId, Uid};
use serde::{Deserialize, Serialize};

use crate::commit::{Batch, EncodedCommit};
use crate::cursor::RecordKind;
use crate::database::Database;
use crate::error::{Error, Result};
use crate::os::{OpenMode, OsFile};
use crate::read::Change;
use crate::sync::Arc;
use crate::table::TableDef;

const DIRECTORY: &str = "quarantine";
const SUFFIX: &str = ".extract";
const MAGIC: &[u8; 8] = b"PLNREXTR";
const FORMAT_VERSION: u32 = 1;
/// Magic, version, length and checksum of the head.
const PREFIX_BYTES: usize = 8 + 4 + 4 + 4;
/// Length and checksum in front of a commit.
const CHUNK_PREFIX_BYTES: usize = 8;
/// Keys and rows in one commit of an extract, in bytes, and how many of them.
const CHUNK_BYTES: usize = 4 << 20;
const CHUNK_RECORDS: usize = 8_192;
/// The largest head and the largest commit that are read.
const HEAD_BYTES_MAX: u32 = 16 << 20;
const COMMIT_BYTES_MAX: u32 = 64 << 20;
/// The largest extract, in bytes; what exceeds it is not kept.
const EXTRACT_BYTES_MAX: usize = 256 << 20;

/// What an extract says of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Extract {
    /// The fork: everything at or below it was kept.
    pub above: Uid,
    /// The last commit that was shown and taken back.
    pub through: Uid,
    /// The epoch under which that was written.
    pub epoch: Epoch,
    /// When it was taken back, in milliseconds since 1970.
    pub created_ms: u64,
    /// The newest state of so many records is in it.
    pub records: u64,
    /// Whether it holds all of them; an extract ends at 256 MiB.
    pub is_whole: bool,
    /// The definitions of the tables that it holds records of.
    pub tables: Vec<TableDef>,
}

impl Extract {
    /// The name by which it is asked for.
    pub fn name(&self) -> String {
        format!("{:016x}-{:016x}", self.above.get(), self.through.get())
    }

    /// When it is removed, in milliseconds since 1970.
    pub fn expires_ms(&self, age_max_ms: u64) -> u64 {
        self.created_ms.saturating_add(age_max_ms)
    }
}

/// An extract as it lies on the disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtractFile {
    /// What it says of itself.
    pub extract: Extract,
    /// Its length in bytes.
    pub bytes: u64,
}

/// Some records of an extract, in (table, key) order, and where to go on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExtractPart {
    /// The newest state of each record; a delete has no row.
    pub records: Vec<Change>,
    /// The place of the next part; `None` after the last.
    pub next: Option<u64>,
}

/// What became of old extracts.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tended {
    /// Extracts that were removed, and why.
    pub removed: Vec<String>,
    /// Extracts that will be removed before long.
    pub expiring: Vec<String>,
}

impl Database {
    /// Keeps what the copy shows above `above`, up to `through`, as an extract in `quarantine/` of its directory,
    /// durably: commits that are about to be taken back. Doing it twice changes nothing.
    pub fn quarantine(&self, above: Uid, through: Uid) -> Result<()> {
        let store = self.store();
        let (os, dir) = (&store.options.os, store.dir.join(DIRECTORY));
        os.create_dir_all(&dir).map_err(|error| Error::io("create", &dir, error))?;
        let (chunks, mut extract) = self.extract(above, through)?;
        extract.tables = self.snapshot().tables()?;
        let head = postcard::to_stdvec(&extract)
            .map_err(|error| Error::Invalid(format!("an extract cannot be described: {error}")))?;
        let mut bytes = Vec::with_capacity(PREFIX_BYTES + head.len() + chunks.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&framed(&head)?);
        bytes.extend_from_slice(&chunks);
        let path = dir.join(extract.name() + SUFFIX);
        crate::version::write_file(os, &path, &bytes)?;
        os.sync_dir(&dir).map_err(|error| Error::io("sync", &dir, error))?;
        os.sync_dir(&store.dir).map_err(|error| Error::io("sync", &store.dir, error))
    }

    /// The commits of an extract, framed, and what there is to say of them.
    fn extract(&self, above: Uid, through: Uid) -> Result<(Vec<u8>, Extract)> {
        let mut extract = Extract {
            above,
            through,
            epoch: self.history().epoch_of(through),
            created_ms: self.now_millis(),
            records: 0,
            is_whole: true,
            tables: Vec::new(),
        };
        let snapshot = self.snapshot().at(through);
        // What the store says about itself belongs to the copy, and to nobody who writes rows.
        let mut from = (TableId(TableId::SYSTEM.0 + 1), Vec::new());
        let mut chunks = Vec::new();
        loop {
            let chunk = snapshot.changes(above, (from.0, &from.1), CHUNK_BYTES)?;
            for changes in chunk.changes.chunks(CHUNK_RECORDS) {
                let mut batch = Batch::new();
                for change in changes {
                    match change.kind {
                        RecordKind::Put => batch.put(change.table, change.key.clone(), change.row.clone()),
                        _ => batch.delete(change.table, change.key.clone()),
                    };
                }
                extract.records += changes.len() as u64;
                chunks.extend_from_slice(&framed(&batch.encode()?)?);
            }
            match chunk.next {
                None => break,
                Some(_) if chunks.len() >= EXTRACT_BYTES_MAX => {
                    extract.is_whole = false;
                    break;
                }
                Some((table, key)) => from = (table, key.to_vec()),
            }
        }
        Ok((chunks, extract))
    }

    /// The extracts, oldest first.
    pub fn extracts(&self) -> Result<Vec<ExtractFile>> {
        let mut found = Vec::new();
        for name in self.extract_names()? {
            let (file, _) = self.open_extract(&name)?;
            found.push(file);
        }
        found.sort_by_key(|file| (file.extract.created_ms, file.extract.above, file.extract.through));
        Ok(found)
    }

    /// A part of an extract: from its beginning, or from where the part before said.
    ///
    /// # Errors
    ///
    /// `UnknownExtract` if there is none of that name, `Damaged` if it cannot be trusted.
    pub fn read_extract(&self, name: &str, at: Option<u64>) -> Result<ExtractPart> {
        let (found, file) = self.open_extract(name)?;
        let path = self.extract_path(name);
        let at = match at {
            Some(at) => at,
            None => file.first,
        };
        if at >= found.bytes {
            return Ok(ExtractPart { records: Vec::new(), next: None });
        }
        let bytes = read_framed(&*file.file, &path, at, COMMIT_BYTES_MAX)?;
        let next = at + (CHUNK_PREFIX_BYTES + bytes.len()) as u64;
        let commit = EncodedCommit::parse(bytes.into())
            .map_err(|error| Error::damaged(&path, at, error.to_string()))?;
        let records = commit.ops().map(|op| Change {
            table: op.table,
            key: Bytes::copy_from_slice(op.key),
            uid: found.extract.through,
            kind: op.kind,
            row: Bytes::copy_from_slice(op.row),
        });
        Ok(ExtractPart { records: records.collect(), next: (next < found.bytes).then_some(next) })
    }

    /// Removes an extract.
    pub fn drop_extract(&self, name: &str) -> Result<()> {
        let path = self.checked_path(name)?;
        let os = &self.store().options.os;
        os.remove_file(&path).map_err(|error| Error::io("remove", &path, error))?;
        let dir = self.store().dir.join(DIRECTORY);
        os.sync_dir(&dir).map_err(|error| Error::io("sync", &dir, error))
    }

    /// Removes extracts that are too old, and the oldest while all of them take too much room; tells what will go soon.
    pub fn tend_quarantine(&self) -> Result<Tended> {
        let options = &self.store().options;
        let (bytes_max, age_max_ms) = (options.quarantine_bytes_max, options.quarantine_age_max_ms);
        let now_ms = self.now_millis();
        let mut tended = Tended::default();
        let files = self.extracts()?;
        let mut bytes: u64 = files.iter().map(|file| file.bytes).sum();
        for ExtractFile { extract, bytes: own } in files {
            let (name, expires_ms) = (extract.name(), extract.expires_ms(age_max_ms));
            if expires_ms <= now_ms || bytes > bytes_max {
                self.drop_extract(&name)?;
                bytes -= own;
                let why =
                    if expires_ms <= now_ms { "it was too old" } else { "the extracts took too much room" };
                tended
                    .removed
                    .push(format!("extract {name} with {} records is gone: {why}", extract.records));
            } else if now_ms.saturating_sub(extract.created_ms) > age_max_ms / 4 * 3 {
                let hours = (expires_ms - now_ms) / 3_600_000;
                tended.expiring.push(format!("extract {name} goes in {hours} h: reapply or drop it"));
            }
        }
        Ok(tended)
    }

    /// When an extract goes, in milliseconds since 1970.
    pub fn extract_expires_ms(&self, extract: &Extract) -> u64 {
        extract.expires_ms(self.store().options.quarantine_age_max_ms)
    }

    fn extract_names(&self) -> Result<Vec<String>> {
        let store = self.store();
        let dir = store.dir.join(DIRECTORY);
        if !store.options.os.exists(&dir) {
            return Ok(Vec::new());
        }
        let entries = store.options.os.list(&dir).map_err(|error| Error::io("list", &dir, error))?;
        let names = entries.iter().filter_map(|entry| entry.name.strip_suffix(SUFFIX).map(str::to_owned));
        Ok(names.filter(|name| is_name(name)).collect())
    }

    fn extract_path(&self, name: &str) -> PathBuf {
        self.store().dir.join(DIRECTORY).join(format!("{name}{SUFFIX}"))
    }

    /// The path of an extract that exists; a name that is none never becomes a path.
    fn checked_path(&self, name: &str) -> Result<PathBuf> {
        let path = self.extract_path(name);
        if !is_name(name) || !self.store().options.os.exists(&path) {
            return Err(Error::UnknownExtract { name: name.into() });
        }
        Ok(path)
    }

    fn open_extract(&self, name: &str) -> Result<(ExtractFile, OpenExtract)> {
        let path = self.checked_path(name)?;
        let os = &self.store().options.os;
        let file = os.open(&path, OpenMode::Read).map_err(|error| Error::io("open", &path, error))?;
        let bytes = file.len().map_err(|error| Error::io("measure", &path, error))?;
        let mut prefix = [0; 12];
        file.read_exact_at(&mut prefix, 0).map_err(|error| Error::io("read", &path, error))?;
        let (magic, version) = prefix.split_at(8);
        if magic != MAGIC || version != FORMAT_VERSION.to_le_bytes() {
            let what = "it is no extract that this release reads".to_owned();
            return Err(Error::Foreign { path, what });
        }
        let head = read_framed(&*file, &path, 12, HEAD_BYTES_MAX)?;
        let extract = postcard::from_bytes(&head)
            .map_err(|_| Error::damaged(&path, PREFIX_BYTES as u64, "its head cannot be decoded"))?;
        let first = (PREFIX_BYTES + head.len()) as u64;
        Ok((ExtractFile { extract, bytes }, OpenExtract { file, first }))
    }
}

/// An extract that is being read.
struct OpenExtract {
    file: Arc<dyn OsFile>,
    /// Where the first commit begins.
    first: u64,
}

/// Two UIDs in hexadecimal digits.
fn is_name(name: &str) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    let is_uid = |text: &str| text.len() == 16 && text.as_bytes().iter().all(is_digit);
    name.split_once('-').is_some_and(|(above, through)| is_uid(above) && is_uid(through))
}

/// Bytes behind their length and checksum.
fn framed(bytes: &[u8]) -> Result<Vec<u8>> {
    let length = u32::try_from(bytes.len()).map_err(|_| Error::TooLarge {
        what: "a part of an extract",
        bytes: bytes.len() as u64,
        limit: u64::from(u32::MAX),
    })?;
    let mut framed = Vec::with_capacity(CHUNK_PREFIX_BYTES + bytes.len());
    framed.extend_from_slice(&length.to_le_bytes());
    framed.extend_from_slice(&crc32fast::hash(bytes).to_le_bytes());
    framed.extend_from_slice(bytes);
    Ok(framed)
}

fn read_framed(file: &dyn OsFile, path: &Path, at: u64, limit: u32) -> Result<Vec<u8>> {
    let unread = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::damaged(path, at, "it ends too early"),
        _ => Error::io("read", path, error),
    };
    let mut prefix = [0; CHUNK_PREFIX_BYTES];
    file.read_exact_at(&mut prefix, at).map_err(unread)?;
    let prefix = u64::from_le_bytes(prefix);
    let (length, checksum) = (prefix as u32, (prefix >> 32) as u32);
    if length > limit {
        return Err(Error::damaged(
            path,
            at,
            format!("a part of {length} bytes exceeds the limit of {limit}"),
        ));
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, at + CHUNK_PREFIX_BYTES as u64).map_err(unread)?;
    if crc32fast::hash(&bytes) != checksum {
        return Err(Error::damaged(path, at, "the checksum does not match"));
    }
    Ok(bytes)
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "quarantine_tests.rs"]
mod tests;
