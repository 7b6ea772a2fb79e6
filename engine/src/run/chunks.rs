use std::ops::Range;

use super::meta::RunMeta;

/// The size of the chunks that are hashed on their own, in bytes; the last may be shorter.
pub(crate) const CHUNK_BYTES: usize = 1 << 20;
/// The size of a chunk's hash.
pub(crate) const HASH_BYTES: usize = 32;

/// The BLAKE3 hashes of a run file's chunks. Whoever knows the content hash of the run can check the list, and with the
/// list every chunk on its own, in any order and from any source.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct ChunkHashes {
    content_len: u64,
    hashes: Vec<[u8; HASH_BYTES]>,
}

impl ChunkHashes {
    /// The list for `content_len` bytes.
    pub(crate) fn new(content_len: u64, hashes: Vec<[u8; HASH_BYTES]>) -> Self {
        Self { content_len, hashes }
    }

    /// The list out of the bytes of a chunk table; `None` if it is not that of the run.
    pub(crate) fn decode(table: &[u8], meta: &RunMeta) -> Option<Self> {
        let (hashes, []) = table.as_chunks::<HASH_BYTES>() else {
            return None;
        };
        let list = Self::new(meta.content_len, hashes.to_vec());
        list.is_of(meta).then_some(list)
    }

    /// The bytes of the chunk table.
    pub(crate) fn encode(&self) -> Vec<u8> {
        self.hashes.concat()
    }

    /// The content hash: BLAKE3 over the list and the number of bytes that it stands for.
    pub(crate) fn content_hash(&self) -> [u8; HASH_BYTES] {
        let mut hasher = blake3::Hasher::new();
        for hash in &self.hashes {
            hasher.update(hash);
        }
        hasher.update(&self.content_len.to_le_bytes());
        *hasher.finalize().as_bytes()
    }

    /// Whether the list is that of the run.
    pub(crate) fn is_of(&self, meta: &RunMeta) -> bool {
        self.content_len == meta.content_len
            && self.hashes.len() as u64 == chunk_count(self.content_len)
            && self.content_hash() == meta.content_hash
    }

    /// How many chunks there are.
    pub(crate) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The hashes, in the order of the chunks.
    pub(crate) fn hashes(&self) -> &[[u8; HASH_BYTES]] {
        &self.hashes
    }

    /// Where chunk `index` lies in the file; `None` if there is no such chunk.
    pub(crate) fn range(&self, index: usize) -> Option<Range<u64>> {
        let start = (index as u64).checked_mul(CHUNK_BYTES as u64)?;
        (start < self.content_len).then(|| start..self.content_len.min(start + CHUNK_BYTES as u64))
    }

    /// Whether `bytes` are those of chunk `index`.
    pub(crate) fn matches(&self, index: usize, bytes: &[u8]) -> bool {
        let right_length =
            self.range(index).is_some_and(|range| range.end - range.start == bytes.len() as u64);
        right_length && self.hashes.get(index).is_some_and(|hash| blake3::hash(bytes) == *hash)
    }
}

/// How many chunks `content_len` bytes have.
pub(crate) fn chunk_count(content_len: u64) -> u64 {
    content_len.div_ceil(CHUNK_BYTES as u64)
}
