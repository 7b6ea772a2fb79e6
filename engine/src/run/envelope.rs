use std::path::Path;

use planaria_types::{FileId, InstanceId};

use super::decode::Decoder;
use super::frame::TRAILER_BYTES;
use super::meta::RunIdentity;
use crate::error::{Error, Result};

/// The version of the format that is written, and the newest that is read.
pub(crate) const FORMAT_VERSION: u32 = 1;
/// The length of the header.
pub(crate) const HEADER_BYTES: usize = 64;
/// The length of the footer.
pub(crate) const FOOTER_BYTES: usize = 128;

const HEADER_MAGIC: [u8; 8] = *b"PLNARUN\n";
const FOOTER_MAGIC: [u8; 8] = *b"\nNURANLP";
/// What the UIDs in a run file are: the kind of file in the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum RunKind {
    /// Those of the commits that wrote the versions.
    Versions = 1,
    /// Zeros. All records are of one commit, which had no UID yet when the file was written: the manifest has it.
    OneCommit = 2,
}

impl RunKind {
    fn from_number(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Versions),
            2 => Some(Self::OneCommit),
            _ => None,
        }
    }
}

const HEADER_ZEROS: usize = 20;
const FOOTER_ZEROS: usize = 32;

/// The first bytes of a run file.
pub(crate) fn encode_header(identity: RunIdentity, kind: RunKind) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES);
    out.extend_from_slice(&HEADER_MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&(kind as u32).to_le_bytes());
    out.extend_from_slice(&identity.store.0.to_le_bytes());
    out.extend_from_slice(&identity.file.0.to_le_bytes());
    out.extend_from_slice(&[0; HEADER_ZEROS]);
    let checksum = crc32fast::hash(&out);
    out.extend_from_slice(&checksum.to_le_bytes());
    out
}

/// Checks that `header` is that of a run with this identity in a format that is known, and says of which kind.
pub(crate) fn check_header(
    header: &[u8; HEADER_BYTES],
    identity: RunIdentity,
    path: &Path,
) -> Result<RunKind> {
    let foreign = |what: String| Error::Foreign { path: path.to_path_buf(), what };
    let damaged = || Error::damaged(path, 0, "the header of a run does not match its checksum");
    let (covered, stored) = header.split_last_chunk::<4>().ok_or_else(damaged)?;
    if crc32fast::hash(covered) != u32::from_le_bytes(*stored) {
        return Err(damaged());
    }
    let mut decoder = Decoder::new(covered);
    if decoder.array() != Some(HEADER_MAGIC) {
        return Err(foreign("it is not a run of records".to_owned()));
    }
    check_version(decoder.u32().ok_or_else(damaged)?, path)?;
    let kind = decoder
        .u32()
        .and_then(RunKind::from_number)
        .ok_or_else(|| foreign("it is a file of another kind than a run".to_owned()))?;
    let store = InstanceId(decoder.u128().ok_or_else(damaged)?);
    let file = FileId(decoder.u64().ok_or_else(damaged)?);
    if (RunIdentity { store, file }) != identity {
        return Err(foreign(format!(
            "it is file {file} of store {store}, where file {} of store {} belongs",
            identity.file, identity.store
        )));
    }
    decoder
        .zeros(HEADER_ZEROS)
        .map(|()| kind)
        .ok_or_else(|| foreign("its header has fields of a newer format".to_owned()))
}

fn check_version(version: u32, path: &Path) -> Result<()> {
    if version == FORMAT_VERSION {
        return Ok(());
    }
    let what = format!(
        "its format is {version}, and this version of Planaria knows {FORMAT_VERSION}. Use the version that wrote it"
    );
    Err(Error::Foreign { path: path.to_path_buf(), what })
}

/// The last bytes of a run file: where the parts lie. Each part begins where the one before it ends; the data blocks
/// begin behind the header, the chunk table ends before the footer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Footer {
    /// The end of the data blocks and the start of the block of range deletes.
    pub(crate) range_deletes: u64,
    /// The start of the filter block.
    pub(crate) filter: u64,
    /// The start of the index block.
    pub(crate) index: u64,
    /// The start of the properties block.
    pub(crate) properties: u64,
    /// The start of the chunk table, and the number of bytes that it covers.
    pub(crate) chunks: u64,
    /// The start of the footer itself.
    pub(crate) end: u64,
    /// The content hash.
    pub(crate) content_hash: [u8; 32],
}

impl Footer {
    /// The bytes of the footer.
    pub(crate) fn encode(&self, identity: RunIdentity) -> Vec<u8> {
        let mut out = Vec::with_capacity(FOOTER_BYTES);
        out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        for place in self.places() {
            out.extend_from_slice(&place.to_le_bytes());
        }
        out.extend_from_slice(&self.content_hash);
        out.extend_from_slice(&[0; FOOTER_ZEROS]);
        let checksum = footer_checksum(&out, identity, self.end);
        out.extend_from_slice(&checksum.to_le_bytes());
        out.extend_from_slice(&FOOTER_MAGIC);
        out
    }

    fn places(&self) -> [u64; 6] {
        [self.range_deletes, self.filter, self.index, self.properties, self.chunks, self.end]
    }

    /// Reads a footer that lies at `offset`.
    pub(crate) fn decode(
        bytes: &[u8; FOOTER_BYTES],
        identity: RunIdentity,
        offset: u64,
        path: &Path,
    ) -> Result<Self> {
        let damaged = |what: &str| Error::damaged(path, offset, what);
        let (covered, end) =
            bytes.split_last_chunk::<12>().ok_or_else(|| damaged("the footer is too short"))?;
        let mut decoder = Decoder::new(end);
        let stored = decoder.u32();
        if decoder.array() != Some(FOOTER_MAGIC) {
            return Err(damaged("the footer of a run is missing: the file is cut, or was never finished"));
        }
        if stored != Some(footer_checksum(covered, identity, offset)) {
            return Err(damaged("the footer of a run does not match its checksum"));
        }
        let mut decoder = Decoder::new(covered);
        check_version(decoder.u32().unwrap_or_default(), path)?;
        let footer = Self::decode_places(&mut decoder)
            .filter(|footer| footer.is_in_order() && footer.end == offset)
            .ok_or_else(|| damaged("the footer of a run makes no sense"))?;
        Ok(footer)
    }

    fn decode_places(decoder: &mut Decoder<'_>) -> Option<Self> {
        let footer = Self {
            range_deletes: decoder.u64()?,
            filter: decoder.u64()?,
            index: decoder.u64()?,
            properties: decoder.u64()?,
            chunks: decoder.u64()?,
            end: decoder.u64()?,
            content_hash: decoder.array()?,
        };
        decoder.zeros(FOOTER_ZEROS)?;
        decoder.end()?;
        Some(footer)
    }

    /// Each part has room for its trailer at least.
    fn is_in_order(&self) -> bool {
        self.range_deletes >= HEADER_BYTES as u64
            && self.places().windows(2).all(
                |pair| matches!(pair, [start, end] if *end >= start.saturating_add(TRAILER_BYTES as u64)),
            )
    }
}

fn footer_checksum(covered: &[u8], identity: RunIdentity, offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(covered);
    hasher.update(&identity.binding(offset));
    hasher.finalize()
}
