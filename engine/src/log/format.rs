//! The bytes of segments: the header page and the records. `docs/FORMAT.md` describes them.

use std::path::{Path, PathBuf};

use crc32fast::Hasher;
use planaria_types::InstanceId;

use super::LogPosition;

/// The unit of writing, and the length of a segment's header, in bytes.
pub(super) const PAGE_BYTES: u64 = 4096;
/// Records begin at multiples of this many bytes.
pub(super) const RECORD_ALIGN: u64 = 8;
/// The length of a record's header, in bytes.
pub(super) const RECORD_HEADER_BYTES: u64 = 24;
/// The most bytes that a caller may put into a segment's header.
pub(crate) const BASE_BYTES_MAX: usize = 1024;
/// The kind of the record that seals a segment, and of the entry that carries a segment's base to the replay.
pub(crate) const KIND_BASE: u8 = 0;

const MAGIC: &[u8; 8] = b"PlanaLog";
const VERSION: u32 = 1;
const BASE_AT: usize = 80;
const HEADER_CRC_AT: usize = PAGE_BYTES as usize - 4;

/// The header page of a segment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    pub(super) store: InstanceId,
    pub(super) number: u64,
    /// The length of the file in bytes; records lie below.
    pub(super) file_bytes: u64,
    /// Where the log before this segment ends; segment 0 if nothing was before.
    pub(super) previous: LogPosition,
    pub(super) base: Vec<u8>,
}

/// What is wrong with a header page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum BadHeader {
    /// The checksum or what it protects does not fit.
    Damaged(&'static str),
    /// It is whole, but not ours to read.
    Foreign(String),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut page = Vec::with_capacity(PAGE_BYTES as usize);
        page.extend_from_slice(MAGIC);
        page.extend_from_slice(&VERSION.to_le_bytes());
        page.extend_from_slice(&(self.base.len() as u32).to_le_bytes());
        page.extend_from_slice(&self.store.0.to_le_bytes());
        page.extend_from_slice(&self.number.to_le_bytes());
        page.extend_from_slice(&self.file_bytes.to_le_bytes());
        page.extend_from_slice(&self.previous.segment.to_le_bytes());
        page.extend_from_slice(&self.previous.offset.to_le_bytes());
        page.resize(BASE_AT, 0);
        page.extend_from_slice(&self.base);
        page.resize(HEADER_CRC_AT, 0);
        page.extend_from_slice(&crc32fast::hash(&page).to_le_bytes());
        page
    }

    pub(super) fn decode(page: &[u8]) -> Result<Self, BadHeader> {
        let short = BadHeader::Damaged("the header page is cut short");
        let (body, crc) = page.split_at_checked(HEADER_CRC_AT).ok_or(short)?;
        if u32_at(crc, 0) != Some(crc32fast::hash(body)) {
            return Err(BadHeader::Damaged("the checksum of the header page does not fit"));
        }
        if !body.starts_with(MAGIC) {
            return Err(BadHeader::Foreign("it is not a log segment".to_owned()));
        }
        let version = u32_at(body, 8).unwrap_or_default();
        if version != VERSION {
            return Err(BadHeader::Foreign(format!(
                "it has log format {version}, this program reads format {VERSION}"
            )));
        }
        Self::decode_fields(body).ok_or(BadHeader::Damaged("a field of the header page is out of range"))
    }

    fn decode_fields(body: &[u8]) -> Option<Self> {
        let base_len = u32_at(body, 12)? as usize;
        if base_len > BASE_BYTES_MAX {
            return None;
        }
        Some(Self {
            store: InstanceId(u128::from_le_bytes(body.get(16..32)?.try_into().ok()?)),
            number: u64_at(body, 32)?,
            file_bytes: u64_at(body, 40)?,
            previous: LogPosition { segment: u64_at(body, 48)?, offset: u64_at(body, 56)? },
            base: body.get(BASE_AT..BASE_AT + base_len)?.to_vec(),
        })
    }
}

/// What a record is bound to besides its bytes: a record found elsewhere does not check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) store: InstanceId,
    pub(super) segment: u64,
}

impl Place {
    fn hasher(&self, offset: u64) -> Hasher {
        let mut hasher = Hasher::new();
        hasher.update(&self.store.0.to_le_bytes());
        hasher.update(&self.segment.to_le_bytes());
        hasher.update(&offset.to_le_bytes());
        hasher
    }
}

/// The header of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RecordHeader {
    crc: u32,
    pub(super) len: u32,
    pub(super) kind: u8,
    /// Everything below this offset of the segment was durable when the record was written.
    pub(super) synced_up_to: u32,
}

impl RecordHeader {
    /// Reads the header of a record of the segment at `place`, or `None` if there is none of this generation.
    pub(super) fn decode(bytes: &[u8], place: Place, offset: u64) -> Option<Self> {
        let header = bytes.get(..RECORD_HEADER_BYTES as usize)?;
        if u32_at(header, 12)? != place.segment as u32 {
            return None;
        }
        let mut hasher = place.hasher(offset);
        hasher.update(header.get(4..20)?);
        if hasher.finalize() != u32_at(header, 20)? {
            return None;
        }
        Some(Self {
            crc: u32_at(header, 0)?,
            len: u32_at(header, 4)?,
            kind: *header.get(8)?,
            synced_up_to: u32_at(header, 16)?,
        })
    }

    /// The length of the whole record on disk: header, payload, padding.
    pub(super) fn record_bytes(&self) -> u64 {
        record_bytes(u64::from(self.len))
    }

    /// Whether `record`, of [`RecordHeader::record_bytes`] bytes, is what was written.
    pub(super) fn checks(&self, record: &[u8], place: Place, offset: u64) -> bool {
        let mut hasher = place.hasher(offset);
        hasher.update(record.get(4..).unwrap_or_default());
        hasher.finalize() == self.crc
    }
}

/// The bytes on disk of a record with a payload of `payload_len` bytes.
pub(super) fn record_bytes(payload_len: u64) -> u64 {
    RECORD_HEADER_BYTES.saturating_add(payload_len).next_multiple_of(RECORD_ALIGN)
}

/// Appends a record that will lie at `offset` of the segment at `place`. The payload is below 4 GiB.
pub(super) fn encode_record(
    out: &mut Vec<u8>,
    place: Place,
    offset: u64,
    synced_up_to: u32,
    kind: u8,
    payload: &[u8],
) {
    let mut header = [0; RECORD_HEADER_BYTES as usize];
    let fields = [
        (4, (payload.len() as u32).to_le_bytes()),
        (8, [kind, 0, 0, 0]),
        (12, (place.segment as u32).to_le_bytes()),
        (16, synced_up_to.to_le_bytes()),
    ];
    for (at, bytes) in fields {
        header[at..at + 4].copy_from_slice(&bytes);
    }
    let mut header_hasher = place.hasher(offset);
    header_hasher.update(&header[4..20]);
    header[20..].copy_from_slice(&header_hasher.finalize().to_le_bytes());

    let padding = record_bytes(payload.len() as u64) - RECORD_HEADER_BYTES - payload.len() as u64;
    let padding = &[0; RECORD_ALIGN as usize][..padding as usize];
    let mut hasher = place.hasher(offset);
    hasher.update(&header[4..]);
    hasher.update(payload);
    hasher.update(padding);
    header[..4].copy_from_slice(&hasher.finalize().to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    out.extend_from_slice(padding);
}

/// A file of the log's directory, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum FileName {
    /// A segment, by its number.
    Segment(u64),
    /// A segment file that waits for use, by a serial number without meaning.
    Spare(u64),
    /// A spare that was not finished.
    Unfinished(u64),
}

impl FileName {
    pub(super) fn path(self, dir: &Path) -> PathBuf {
        dir.join(match self {
            Self::Segment(number) => format!("{number:016x}.log"),
            Self::Spare(serial) => format!("{serial:016x}.spare"),
            Self::Unfinished(serial) => format!("{serial:016x}.tmp"),
        })
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let (stem, extension) = name.split_once('.')?;
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if stem.len() != 16 || !stem.bytes().all(lower_hex) {
            return None;
        }
        let number = u64::from_str_radix(stem, 16).ok()?;
        match extension {
            "log" => Some(Self::Segment(number)),
            "spare" => Some(Self::Spare(number)),
            "tmp" => Some(Self::Unfinished(number)),
            _ => None,
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    const PLACE: Place = Place { store: InstanceId(7), segment: 3 };

    fn header() -> SegmentHeader {
        let previous = LogPosition { segment: 2, offset: 5000 };
        SegmentHeader { store: InstanceId(7), number: 3, file_bytes: 8192, previous, base: b"base".to_vec() }
    }

    #[test]
    fn a_header_page_survives_and_no_flipped_bit_does() {
        let page = header().encode();
        assert_eq!(page.len() as u64, PAGE_BYTES);
        assert_eq!(SegmentHeader::decode(&page), Ok(header()));
        for at in 0..page.len() {
            let mut bad = page.clone();
            bad[at] ^= 0x10;
            assert!(matches!(SegmentHeader::decode(&bad), Err(BadHeader::Damaged(_))), "byte {at}");
        }
        assert!(SegmentHeader::decode(&page[..4095]).is_err());
        assert!(SegmentHeader::decode(&[]).is_err());
    }

    #[test]
    fn a_newer_format_is_foreign_not_damaged() {
        for (at, expected) in [(8, "format 3"), (0, "not a log segment")] {
            let mut page = header().encode();
            page[at] ^= 2;
            let crc = crc32fast::hash(&page[..HEADER_CRC_AT]);
            page[HEADER_CRC_AT..].copy_from_slice(&crc.to_le_bytes());
            let Err(BadHeader::Foreign(what)) = SegmentHeader::decode(&page) else { panic!("byte {at}") };
            assert!(what.contains(expected), "{what}");
        }
    }

    #[test]
    fn a_record_is_bound_to_its_bytes_and_its_place() {
        for payload in [&b""[..], b"x", b"12345678", b"123456789"] {
            let mut bytes = Vec::new();
            encode_record(&mut bytes, PLACE, 4096, 99, 5, payload);
            assert_eq!(bytes.len() as u64, record_bytes(payload.len() as u64));
            let found = RecordHeader::decode(&bytes, PLACE, 4096).unwrap();
            assert_eq!((found.len as usize, found.kind, found.synced_up_to), (payload.len(), 5, 99));
            assert!(found.checks(&bytes, PLACE, 4096));
            for elsewhere in [
                (Place { segment: 4, ..PLACE }, 4096),
                (Place { store: InstanceId(8), ..PLACE }, 4096),
                (Place { segment: 3 + (1 << 32), ..PLACE }, 4096),
                (PLACE, 4104),
            ] {
                assert_eq!(RecordHeader::decode(&bytes, elsewhere.0, elsewhere.1), None);
                assert!(!found.checks(&bytes, elsewhere.0, elsewhere.1));
            }
            for at in 0..bytes.len() {
                let mut bad = bytes.clone();
                bad[at] ^= 1;
                let header = RecordHeader::decode(&bad, PLACE, 4096);
                assert!(!header.is_some_and(|header| header.checks(&bad, PLACE, 4096)), "byte {at}");
            }
        }
        assert_eq!(RecordHeader::decode(&[0; 24], PLACE, 4096), None);
    }

    #[test]
    fn the_worked_example_of_the_document_is_what_is_written() {
        let place = Place { store: InstanceId(0x2a), segment: 1 };
        let mut bytes = Vec::new();
        encode_record(&mut bytes, place, 4096, 4096, 1, b"worm");
        let text: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(
            text.join(" "),
            "dc 7d f6 87 04 00 00 00 01 00 00 00 01 00 00 00 00 10 00 00 e8 a8 5c 0b 77 6f 72 6d 00 00 00 00"
        );
        let header = SegmentHeader {
            store: place.store,
            number: 1,
            file_bytes: 8192,
            previous: LogPosition::default(),
            base: b"hi".to_vec(),
        };
        let page = header.encode();
        let text: Vec<_> = page[HEADER_CRC_AT..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text.join(" "), "79 28 48 aa");
    }

    #[test]
    fn names_are_told_apart() {
        let dir = Path::new("/log");
        for name in [FileName::Segment(1), FileName::Spare(0xab), FileName::Unfinished(u64::MAX)] {
            let path = name.path(dir);
            assert_eq!(FileName::parse(path.file_name().unwrap().to_str().unwrap()), Some(name));
        }
        for stranger in ["1.log", "000000000000000A.log", "0000000000000001.txt", "+000000000000001.log", ""]
        {
            assert_eq!(FileName::parse(stranger), None, "{stranger}");
        }
    }
}
