//! The hashes of the formats. Each has one use, and its seed or prefix keeps it apart from the others.

use planaria_types::{HistoryHash, TableId, Uid};
use xxhash_rust::xxh3;

/// The hash of a key for filters and in-block hash indexes: XXH3, 64 bits.
pub(crate) fn key_hash(key: &[u8]) -> u64 {
    xxh3::xxh3_64(key)
}

/// The hash of a live record for a fingerprint: XXH3, 128 bits, over key length, key, UID, row.
pub(crate) fn record_hash(key: &[u8], uid: Uid, row: &[u8]) -> u128 {
    let mut hasher = xxh3::Xxh3::new();
    hasher.update(&(key.len() as u32).to_le_bytes());
    hasher.update(key);
    hasher.update(&uid.get().to_le_bytes());
    hasher.update(row);
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
