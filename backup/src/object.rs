//! Parts of files, as objects that are called by their content.

use std::fmt;

use planaria_engine::{CLONE_CHUNK_BYTES, CloneFile};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Chunks in an object.
const PART_CHUNKS: usize = 16;
/// The length of an object but the last of a file, in bytes.
pub(crate) const PART_BYTES: u64 = PART_CHUNKS as u64 * CLONE_CHUNK_BYTES;

/// What an object is called by: BLAKE3 over the hashes of its chunks and its length. Who has the list of a file knows the
/// names of its objects without reading it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address([u8; 32]);

impl Address {
    fn of(chunks: &[[u8; 32]], len: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        for chunk in chunks {
            hasher.update(chunk);
        }
        hasher.update(&len.to_le_bytes());
        Self(*hasher.finalize().as_bytes())
    }

    /// Reads what [`Address`] shows as text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let hash = text.bytes().all(lower).then(|| blake3::Hash::from_hex(text).ok())??;
        Some(Self(*hash.as_bytes()))
    }

    /// Where the object lies in the store.
    pub(crate) fn path(&self) -> String {
        let text = self.to_string();
        format!("{OBJECTS}/{}/{text}", text.get(..2).unwrap_or_default())
    }
}

/// The folder of the objects.
pub(crate) const OBJECTS: &str = "objects";

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Address({self})")
    }
}

/// Bytes by their hashes: a length, and BLAKE3 of each chunk of 1 MiB, of which the last may be shorter.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Blob {
    pub(crate) len: u64,
    pub(crate) chunks: Vec<[u8; 32]>,
}

/// A part of a blob: an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Part {
    pub(crate) address: Address,
    /// Where it begins in the blob, in bytes.
    pub(crate) offset: u64,
    pub(crate) len: u64,
    /// The hashes of its chunks.
    pub(crate) chunks: Vec<[u8; 32]>,
}

impl Blob {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let chunks = bytes.chunks(CLONE_CHUNK_BYTES as usize).map(|chunk| *blake3::hash(chunk).as_bytes());
        Self { len: bytes.len() as u64, chunks: chunks.collect() }
    }

    /// Whether length and chunks agree.
    pub(crate) fn is_sound(&self) -> bool {
        self.len.div_ceil(CLONE_CHUNK_BYTES) == self.chunks.len() as u64
    }

    pub(crate) fn parts(&self) -> Vec<Part> {
        parts(self.len, &self.chunks)
    }
}

/// The objects of a file.
pub(crate) fn parts_of(file: &CloneFile) -> Vec<Part> {
    parts(file.len, &file.chunks)
}

fn parts(len: u64, chunks: &[[u8; 32]]) -> Vec<Part> {
    let cut = chunks.chunks(PART_CHUNKS).enumerate().map(|(index, chunks)| {
        let offset = index as u64 * PART_BYTES;
        let len = len.saturating_sub(offset).min(PART_BYTES);
        Part { address: Address::of(chunks, len), offset, len, chunks: chunks.to_vec() }
    });
    cut.collect()
}

impl Part {
    /// Fails unless the bytes are the part's.
    pub(crate) fn check(&self, bytes: &[u8]) -> Result<()> {
        let damaged = |what: String| Err(Error::Damaged { object: self.address.path(), what });
        if bytes.len() as u64 != self.len {
            return damaged(format!("it has {} bytes instead of {}", bytes.len(), self.len));
        }
        for (index, (chunk, hash)) in bytes.chunks(CLONE_CHUNK_BYTES as usize).zip(&self.chunks).enumerate() {
            if blake3::hash(chunk) != *hash {
                return damaged(format!("the hash of its chunk {index} does not match"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, Blob, PART_BYTES, Part};

    #[test]
    fn parts_cover_a_blob_and_are_called_by_their_content() {
        let bytes: Vec<u8> = (0..PART_BYTES as usize + (3 << 20) + 5).map(|at| (at / 7_919) as u8).collect();
        let blob = Blob::of(&bytes);
        assert!(blob.is_sound());
        let parts = blob.parts();
        assert_eq!(parts.iter().map(|part| part.len).collect::<Vec<_>>(), [PART_BYTES, (3 << 20) + 5]);
        let of = |part: &Part| bytes[part.offset as usize..][..part.len as usize].to_vec();
        for part in &parts {
            part.check(&of(part)).unwrap();
            assert_eq!(Address::parse(&part.address.to_string()), Some(part.address));
            // Alone, a part has the same name.
            assert_eq!(Blob::of(&of(part)).parts()[0].address, part.address);
            let mut flipped = of(part);
            flipped[part.len as usize - 1] ^= 1;
            assert_eq!(part.check(&flipped).unwrap_err().code(), "object_damaged");
            assert!(part.check(&flipped[1..]).is_err());
        }
        assert!(Blob::default().parts().is_empty() && Blob::default().is_sound());
        assert!(Address::parse("AB").is_none());
    }
}
