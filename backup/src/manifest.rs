//! The manifest of a backup: what it is of, and what it consists of. It is written last.

use planaria_engine::Lineage;
use planaria_types::{DatabaseId, InstanceId, Position, Uid};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::object::Blob;

const MAGIC: &[u8; 8] = b"PLNRBKUP";
const FORMAT_VERSION: u32 = 1;
const HEADER_BYTES: usize = 8 + 4 + 4 + 4;
/// The largest manifest, in bytes.
pub(crate) const MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// The longest name of a backup, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// The word that stands for the newest backup.
pub(crate) const LATEST: &str = "latest";
/// The folder of the manifests.
pub(crate) const BACKUPS: &str = "backups";

/// A backup: one cut of a database, and of its log what the store kept since the backup before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Backup {
    /// What it is called, in this store once.
    pub name: String,
    /// A number that no other backup has.
    pub id: u128,
    /// What wrote it.
    pub software: String,
    /// When the cut was made by the source's clock, in milliseconds since 1970.
    pub taken_ms: u64,
    /// The database.
    pub database: DatabaseId,
    /// The copy that it was taken of.
    pub instance: InstanceId,
    /// What that copy was cloned from, if it was.
    pub lineage: Option<Lineage>,
    /// The cut: its update time, and the epoch that wrote it.
    pub position: Position,
    /// What the files show of times before the cut reaches back to here.
    pub version_floor: Uid,
    /// Files of the copy.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that were sent to the store for it; the others were there.
    pub sent_bytes: u64,
    /// The last log segment of the copy, which a later one goes on from.
    pub last_segment: u64,
    /// The log segments that it keeps, those of the copy included, in order.
    pub log: Vec<Segment>,
    /// The list of files, as an object or some.
    pub(crate) contents: Blob,
}

/// A log segment that a backup keeps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Segment {
    /// Its number in the log of its copy.
    pub number: u64,
    /// The number of the one before it.
    pub previous: u64,
    /// The last commit before it.
    pub above: Uid,
    /// Its last commit.
    pub upto: Uid,
}

impl Backup {
    /// Where the manifest of that name lies.
    pub(crate) fn path(name: &str) -> String {
        format!("{BACKUPS}/{name}")
    }

    /// Its bytes.
    pub(crate) fn encode(&self) -> Result<Vec<u8>> {
        let payload = postcard::to_stdvec(self)
            .map_err(|error| Error::Invalid(format!("a manifest cannot be encoded: {error}")))?;
        let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&checksum(FORMAT_VERSION, &payload).to_le_bytes());
        bytes.extend_from_slice(&payload);
        if bytes.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(Error::Invalid(format!(
                "the manifest of {} would have {} bytes, of at most {MANIFEST_BYTES_MAX}",
                self.name,
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    /// Reads what lies at `object`.
    pub(crate) fn decode(object: &str, bytes: &[u8]) -> Result<Self> {
        let damaged = |what: &str| Error::Damaged { object: object.to_owned(), what: what.to_owned() };
        let (header, payload) =
            bytes.split_at_checked(HEADER_BYTES).ok_or_else(|| damaged("it is shorter than its header"))?;
        if header.get(..8) != Some(MAGIC) {
            return Err(damaged("it is no manifest of a backup"));
        }
        let number = |at: usize| {
            header.get(at..at + 4).and_then(|part| part.try_into().ok()).map_or(0, u32::from_le_bytes)
        };
        let version = number(8);
        if version != FORMAT_VERSION {
            return Err(Error::Newer { object: object.to_owned(), version, known: FORMAT_VERSION });
        }
        if number(12) as usize != payload.len() {
            return Err(damaged("its length is not the one it states"));
        }
        if number(16) != checksum(version, payload) {
            return Err(damaged("the checksum does not match"));
        }
        let backup: Self = postcard::from_bytes(payload).map_err(|_| damaged("it cannot be decoded"))?;
        check_name(&backup.name).map_err(|_| damaged("its name is none"))?;
        if !backup.contents.is_sound() {
            return Err(damaged("the list of its files has another length than its hashes"));
        }
        Ok(backup)
    }
}

/// Refuses what is no name of a backup.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let sound = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(fits)
        && !name.starts_with('.')
        && name != LATEST;
    if sound {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "{name:?} is no name for a backup: take up to {NAME_BYTES_MAX} letters, digits, dashes, underscores and dots, no \
         dot first, and not the word {LATEST}"
    )))
}

fn checksum(version: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&version.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// A manifest with something in every field, for tests.
#[cfg(any(test, feature = "testing"))]
pub(crate) fn sample() -> Backup {
    use planaria_types::Epoch;

    let position = Position { epoch: Epoch { term: 3, incarnation: 1, nonce: 77 }, uid: Uid::new(9_999_999) };
    let segment = |number: u64, above: u64, upto: u64| Segment {
        number,
        previous: number - 1,
        above: Uid::new(above),
        upto: Uid::new(upto),
    };
    Backup {
        name: "nightly-7".into(),
        id: 0x0123_4567_89ab_cdef,
        software: "planaria 0.1.0".into(),
        taken_ms: 1_700_000_000_000,
        database: DatabaseId(1 << 100),
        instance: InstanceId(2),
        lineage: Some(Lineage { database: DatabaseId(4), instance: InstanceId(5), position }),
        position,
        version_floor: Uid::new(8_000_000),
        files: 12,
        bytes: 34_567,
        sent_bytes: 4_567,
        last_segment: 9,
        log: vec![segment(8, 7_000_000, 8_500_000), segment(9, 8_500_000, 9_999_999)],
        contents: Blob::of(b"a list of files"),
    }
}
