//! The hashes of the formats. Each has one use, and its seed or prefix keeps it apart from the others.

use planaria_types::{HistoryHash, TableId, Uid};
use xxhash_rust::xxh3;

/// Records up to this length are hashed in one piece.
const SHORT_RECORD_BYTES: usize = 512;

/// The hash of a key for filters and in-block hash indexes: XXH3, 64 bits.
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    xxh3::xxh3_64(key)
}

/// The hash of a live record for a fingerprint: XXH3, 128 bits, over key length, key, UID, row.
pub(crate) fn record_hash(key: &[u8], uid: Uid, row: &[u8]) -> u128 {
    let length = (key.len() as u32).to_le_bytes();
    let uid = uid.get().to_le_bytes();
    // Preparing a hasher for pieces costs more than putting a short record together.
    let mut record = [0; SHORT_RECORD_BYTES];
    let total = length.len() + key.len() + uid.len() + row.len();
    if let Some(mut rest) = record.get_mut(..total) {
        for part in [&length[..], key, &uid, row] {
            let (place, behind) = rest.split_at_mut(part.len());
            place.copy_from_slice(part);
            rest = behind;
        }
        return xxh3::xxh3_128(record.get(..total).unwrap_or_default());
    }
    let mut hasher = xxh3::Xxh3::new();
    for part in [&length[..], key, &uid, row] {
        hasher.update(part);
    }
    hasher.digest128()
}

/// The hash of a row without its UID, for digests of contents.
pub(crate) fn content_hash(key: &[u8], row: &[u8]) -> u128 {
    record_hash(key, Uid::ZERO, row)
}

/// The checksum of an encoded commit: XXH3, 64 bits.
pub(crate) fn commit_hash(encoded: &[u8]) -> u64 {
    xxh3::xxh3_64(encoded)
}

/// The checksum of a bulk ingest, which has no encoded commit: XXH3, 64 bits, over the table and the content hashes of
/// the run files in the order of their keys.
pub(crate) fn ingest_hash<'a>(table: TableId, files: impl Iterator<Item = &'a [u8; 32]>) -> u64 {
    let mut hasher = xxh3::Xxh3::new();
    hasher.update(&table.0.to_le_bytes());
    for content_hash in files {
        hasher.update(content_hash);
    }
    hasher.digest()
}

/// The history hash after a commit: XXH3, 128 bits, over the hash before, the UID and the commit's checksum.
pub(crate) fn extend_history(before: HistoryHash, uid: Uid, commit: u64) -> HistoryHash {
    let mut bytes = [0; 32];
    let (left, right) = bytes.split_at_mut(16);
    left.copy_from_slice(&before.0.to_le_bytes());
    let (uid_part, commit_part) = right.split_at_mut(8);
    uid_part.copy_from_slice(&uid.get().to_le_bytes());
    commit_part.copy_from_slice(&commit.to_le_bytes());
    HistoryHash(xxh3::xxh3_128(&bytes))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use planaria_types::Uid;
    use xxhash_rust::xxh3;

    use super::record_hash;

    #[test]
    fn the_hash_of_a_record_does_not_depend_on_how_it_is_put_together() {
        for row in [0, 1, 200, 480, 493, 494, 2_000] {
            let (key, row) = (b"key", vec![7; row]);
            let bytes = [&3_u32.to_le_bytes()[..], key, &9_u64.to_le_bytes(), &row].concat();
            assert_eq!(record_hash(key, Uid::new(9), &row), xxh3::xxh3_128(&bytes), "{}", row.len());
        }
    }
}
