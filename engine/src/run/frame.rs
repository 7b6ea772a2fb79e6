use std::path::Path;

use bytes::Bytes;

use super::block::Malformed;
use super::meta::RunIdentity;
use super::options::{Codec, MAX_BLOCK_BYTES};
use crate::error::{Error, Result};

/// What follows the bytes of every block in a file: one byte of codec, four of checksum.
pub(crate) const TRAILER_BYTES: usize = 5;
/// LZ4 cannot shrink more than this: a length above is a lie.
const MAX_LZ4_RATIO: usize = 255;
const LENGTH_BYTES: usize = 4;

/// The trailer of a block at `offset`. The checksum covers what is stored, the codec, and where it belongs, so that
/// a block of another file, or from another place in the same file, is noticed.
pub(crate) fn trailer(
    stored: &[u8],
    codec: Codec,
    identity: RunIdentity,
    offset: u64,
) -> [u8; TRAILER_BYTES] {
    let [a, b, c, d] = checksum(stored, codec as u8, identity, offset).to_le_bytes();
    [codec as u8, a, b, c, d]
}

fn checksum(stored: &[u8], codec: u8, identity: RunIdentity, offset: u64) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(stored);
    hasher.update(&[codec]);
    hasher.update(&identity.binding(offset));
    hasher.finalize()
}

/// A block as it lies in a file, its checksum compared.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    stored: Bytes,
    codec: u8,
}

impl Frame {
    /// Takes the trailer off `frame`, which lies at `offset`, and compares the checksum.
    pub(crate) fn open(frame: Bytes, identity: RunIdentity, offset: u64) -> Result<Self, Malformed> {
        let opened = Self::open_verified(frame)?;
        let stored_checksum = opened.1;
        let frame = opened.0;
        if checksum(&frame.stored, frame.codec, identity, offset) != stored_checksum {
            return Err(Malformed("the checksum of a block does not match"));
        }
        Ok(frame)
    }

    /// Takes the trailer off a frame whose checksum was compared before, and hands the checksum back.
    pub(crate) fn open_verified(mut frame: Bytes) -> Result<(Self, u32), Malformed> {
        let length =
            frame.len().checked_sub(TRAILER_BYTES).ok_or(Malformed("a block is shorter than its trailer"))?;
        let (codec, stored_checksum) = match frame.get(length..) {
            Some(&[codec, a, b, c, d]) => (codec, u32::from_le_bytes([a, b, c, d])),
            _ => return Err(Malformed("a block is shorter than its trailer")),
        };
        frame.truncate(length);
        Ok((Self { stored: frame, codec }, stored_checksum))
    }

    /// Whether the bytes are stored as they are.
    pub(crate) fn is_plain(&self) -> bool {
        self.codec == Codec::None as u8
    }

    /// The bytes, decompressed. `path` and `offset` are for the error.
    pub(crate) fn into_bytes(self, path: &Path, offset: u64) -> Result<Bytes> {
        match Codec::from_byte(self.codec) {
            Some(Codec::None) => Ok(self.stored),
            Some(Codec::Lz4) => {
                decompress(&self.stored).map_err(|malformed| Error::damaged(path, offset, malformed.0))
            }
            None => Err(Error::Foreign {
                path: path.to_path_buf(),
                what: format!(
                    "the block at byte {offset} uses compression {}, which this version does not know. It was \
                     written by a newer version; use that one",
                    self.codec
                ),
            }),
        }
    }
}

/// Compresses `plain` into `out`; `false` if it does not shrink by an eighth and should stay as it is.
pub(crate) fn compress(plain: &[u8], out: &mut Vec<u8>) -> bool {
    let Ok(length) = u32::try_from(plain.len()) else {
        return false;
    };
    out.clear();
    out.resize(LENGTH_BYTES + lz4_flex::block::get_maximum_output_size(plain.len()), 0);
    let Some((head, body)) = out.split_first_chunk_mut::<LENGTH_BYTES>() else {
        return false;
    };
    *head = length.to_le_bytes();
    let Ok(written) = lz4_flex::block::compress_into(plain, body) else {
        return false;
    };
    out.truncate(LENGTH_BYTES + written);
    out.len() <= plain.len() - plain.len() / 8
}

fn decompress(stored: &[u8]) -> Result<Bytes, Malformed> {
    let (head, body) =
        stored.split_first_chunk::<LENGTH_BYTES>().ok_or(Malformed("a compressed block has no length"))?;
    let length = u32::from_le_bytes(*head) as usize;
    if length > MAX_BLOCK_BYTES || length > body.len().saturating_mul(MAX_LZ4_RATIO) {
        return Err(Malformed("a compressed block claims an impossible length"));
    }
    let mut plain = vec![0; length];
    match lz4_flex::block::decompress_into(body, &mut plain) {
        Ok(written) if written == length => Ok(Bytes::from_owner(plain)),
        _ => Err(Malformed("a compressed block cannot be decompressed")),
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use bytes::Bytes;
    use planaria_types::{FileId, InstanceId};

    use super::{Frame, compress, decompress, trailer};
    use crate::run::block::Malformed;
    use crate::run::testing::Numbers;
    use crate::run::{Codec, RunIdentity};

    const IDENTITY: RunIdentity = RunIdentity { store: InstanceId(7), file: FileId(3) };

    fn frame(offset: u64) -> Bytes {
        let mut bytes = b"some bytes".to_vec();
        bytes.extend_from_slice(&trailer(b"some bytes", Codec::None, IDENTITY, offset));
        bytes.into()
    }

    #[test]
    fn a_block_is_accepted_only_where_it_belongs() {
        assert!(Frame::open(frame(64), IDENTITY, 64).is_ok());
        let other_file = RunIdentity { file: FileId(4), ..IDENTITY };
        let other_store = RunIdentity { store: InstanceId(8), ..IDENTITY };
        assert!(Frame::open(frame(64), IDENTITY, 65).is_err());
        assert!(Frame::open(frame(64), other_file, 64).is_err());
        assert!(Frame::open(frame(64), other_store, 64).is_err());
        assert!(Frame::open(Bytes::from_static(b"abc"), IDENTITY, 64).is_err());
    }

    #[test]
    fn compressed_bytes_come_back_and_lies_about_their_length_are_refused() {
        let plain = b"the same words again, ".repeat(100);
        let mut packed = Vec::new();
        assert!(compress(&plain, &mut packed));
        assert_eq!(decompress(&packed).unwrap(), plain);
        for length in [0_u32, 1, plain.len() as u32 - 1, plain.len() as u32 + 1, u32::MAX] {
            packed[..4].copy_from_slice(&length.to_le_bytes());
            assert!(decompress(&packed).is_err(), "{length}");
        }
        assert_eq!(decompress(&[0; 3]), Err(Malformed("a compressed block has no length")));
    }

    #[test]
    fn bytes_that_hardly_shrink_stay_as_they_are() {
        let mut numbers = Numbers(1);
        let noise: Vec<u8> = (0..4_096).map(|_| numbers.next() as u8).collect();
        assert!(!compress(&noise, &mut Vec::new()));
        assert!(!compress(&[], &mut Vec::new()));
    }
}
