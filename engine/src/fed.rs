//! The copies that a secondary feeds: it draws no UIDs, so it cannot register them in the system fragment as a primary does.

use std::path::Path;

use planaria_types::Uid;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::os::{OpenMode, Os};
use crate::replicas::Registration;
use crate::sync::Arc;
use crate::version::write_file;

/// The file within a store's directory.
const FED: &str = "FED";
const FED_NEW: &str = "FED.new";
const MAGIC: &[u8; 8] = b"PLNRFEDS";
const FORMAT_VERSION: u32 = 1;
/// Magic, version, length and checksum.
const HEADER_BYTES: usize = 8 + 4 + 4 + 4;
/// The largest file that is written and read: some thousand copies.
const FILE_BYTES_MAX: usize = 1 << 20;

impl Database {
    /// The copies that this secondary feeds, as they were kept last.
    ///
    /// # Errors
    ///
    /// `Damaged` or `Foreign` if the file that says so is not what was written.
    pub fn fed(&self) -> Result<Vec<Registration>> {
        read(&self.store().options.os, self.path())
    }

    /// Keeps who is fed, durably and as a whole. What is lost with it is what was preserved for them: they are brought up to date
    /// at a higher price then.
    ///
    /// # Errors
    ///
    /// `Invalid` if they are too many.
    pub fn keep_fed(&self, fed: &[Registration]) -> Result<()> {
        let (os, dir) = (&self.store().options.os, self.path());
        let payload = postcard::to_stdvec(fed)
            .map_err(|error| Error::Invalid(format!("the copies that are fed cannot be written: {error}")))?;
        if payload.len() > FILE_BYTES_MAX {
            let what =
                "too many copies are fed: forget those that will not come back (`planaria replica forget`)";
            return Err(Error::Invalid(what.into()));
        }
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
        let (path, new) = (dir.join(FED), dir.join(FED_NEW));
        write_file(os, &new, &bytes)?;
        os.rename(&new, &path).map_err(|error| Error::io("rename", &new, error))?;
        os.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))
    }

    /// Keeps the delete marks above `position`, the lowest of the copies that are fed; with none there is nobody to keep them for.
    pub fn set_fed_floor(&self, position: Option<Uid>) {
        self.store().floors.lock().fed = position;
    }

    /// The lowest position of a copy that is fed, and for which something is preserved. What cannot be read may need everything.
    pub(crate) fn fed_floor(&self) -> Option<Uid> {
        match self.fed() {
            Ok(fed) => fed.iter().filter(|fed| fed.given_up.is_none()).map(|fed| fed.durable).min(),
            Err(_) => Some(Uid::ZERO),
        }
    }
}

fn read(os: &Arc<dyn Os>, dir: &Path) -> Result<Vec<Registration>> {
    let path = dir.join(FED);
    if !os.exists(&path) {
        return Ok(Vec::new());
    }
    let file = os.open(&path, OpenMode::Read).map_err(|error| Error::io("open", &path, error))?;
    let len = file.len().map_err(|error| Error::io("measure", &path, error))?;
    if len > (HEADER_BYTES + FILE_BYTES_MAX) as u64 {
        return Err(Error::damaged(&path, 0, format!("{len} bytes are no list of copies")));
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0).map_err(|error| Error::io("read", &path, error))?;
    decode(&path, &bytes)
}

fn decode(path: &Path, bytes: &[u8]) -> Result<Vec<Registration>> {
    let damaged = |offset: u64, what: &str| Error::damaged(path, offset, what);
    let Some((header, payload)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(damaged(0, "it is shorter than its header"));
    };
    if header.get(..8) != Some(MAGIC) {
        return Err(Error::Foreign { path: path.to_path_buf(), what: "it is no list of copies".into() });
    }
    let number = |at: usize| {
        header.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, u32::from_le_bytes)
    };
    let version = number(8);
    if version != FORMAT_VERSION {
        let what = format!("its format version is {version}, this release reads {FORMAT_VERSION}");
        return Err(Error::Foreign { path: path.to_path_buf(), what });
    }
    if number(12) as usize != payload.len() {
        return Err(damaged(12, "its length is not the one it states"));
    }
    if number(16) != crc32fast::hash(payload) {
        return Err(damaged(16, "the checksum does not match"));
    }
    postcard::from_bytes(payload).map_err(|_| damaged(HEADER_BYTES as u64, "it cannot be decoded"))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use planaria_types::{InstanceId, Uid};

    use super::{FED, HEADER_BYTES, decode};
    use crate::os::{CrashStyle, MemOs, OpenMode, Os};
    use crate::{Batch, Database, Durability, Error, Options, Registration};

    fn open(os: &MemOs) -> Database {
        let os: Arc<dyn Os> = Arc::new(os.clone());
        Database::open_with("/db", Options { os, background: false, ..Options::default() }).unwrap()
    }

    fn fed(durable: Uid) -> Vec<Registration> {
        vec![Registration::new(InstanceId(7), "third", durable)]
    }

    #[test]
    fn who_is_fed_outlives_a_power_cut_and_the_marks_that_it_needs_outlive_a_merge() {
        let os = MemOs::new(1);
        let db = open(&os);
        let table = db.create_raw_table("t").unwrap();
        table.put("a", "row").unwrap();
        table.put("b", "row").unwrap();
        db.compact().unwrap();
        let behind = db.visible();
        assert!(db.fed().unwrap().is_empty());
        db.keep_fed(&fed(behind)).unwrap();
        let mut batch = Batch::new();
        batch.delete(table.id(), "a");
        db.write(batch, Durability::Synced).unwrap();
        drop((table, db));
        let os = os.crash(CrashStyle::PowerCutClean, 1);
        let db = open(&os);
        assert_eq!(db.fed().unwrap(), fed(behind));
        db.compact().unwrap();
        assert!(db.mark_floor() <= behind, "the mark of `a` is kept");
        db.set_fed_floor(None);
        db.table("t").unwrap().put("c", "row").unwrap();
        db.compact().unwrap();
        assert!(db.mark_floor() > behind, "nobody needs it any more");
    }

    #[test]
    fn any_changed_byte_is_noticed() {
        let os = MemOs::new(1);
        let db = open(&os);
        db.keep_fed(&fed(Uid::new(9))).unwrap();
        let file = os.open(Path::new("/db/FED"), OpenMode::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(decode(Path::new(FED), &bytes).unwrap(), fed(Uid::new(9)));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let error = decode(Path::new(FED), &changed).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. } | Error::Foreign { .. }), "byte {at}: {error}");
        }
        for end in 0..bytes.len() {
            assert!(decode(Path::new(FED), &bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(bytes.len() > HEADER_BYTES);
    }
}
