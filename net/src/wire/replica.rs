//! What travels beside the control stream of a replica session: files and bulk messages.

use bytes::{Buf, BufMut, Bytes};
use planaria_types::FileId;
use serde::{Deserialize, Serialize};

use super::limits::FILE_CHUNK_BYTES_MAX;
use super::{Frame, FrameError, FrameKind};
use crate::{Error, Result};

/// Bytes before the data of a chunk: file and offset.
pub(crate) const FILE_CHUNK_PREFIX_BYTES: usize = 16;

/// Asks for bytes of one file. A file is named by its number, never by a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileRequest {
    /// The lease or pin under which the file is kept; its meaning is agreed upon on the control stream.
    pub lease: u64,
    /// The file.
    pub file: FileId,
    /// The first byte.
    pub offset: u64,
    /// The number of bytes.
    pub length: u64,
}

impl FileRequest {
    /// The byte behind the last.
    ///
    /// # Errors
    ///
    /// [`FrameError::Body`] if the range passes the end of numbers.
    pub fn end(&self) -> Result<u64, FrameError> {
        self.offset
            .checked_add(self.length)
            .ok_or_else(|| FrameError::Body {
                kind: FrameKind::FileOpen,
                why: "the range of bytes passes the end of numbers".to_owned(),
            })
    }
}

/// Some bytes of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileChunk {
    /// The file.
    pub file: FileId,
    /// Where they lie.
    pub offset: u64,
    /// The bytes, at most 1 MiB.
    pub data: Bytes,
}

impl FileChunk {
    /// The frame of the chunk, as two parts: `data` is not copied.
    pub(crate) fn encode(self) -> Result<[Bytes; 2]> {
        let bytes = self.data.len() as u64;
        if bytes > u64::from(FILE_CHUNK_BYTES_MAX) {
            return Err(Error::TooLarge {
                what: "a chunk",
                bytes,
                limit: u64::from(FILE_CHUNK_BYTES_MAX),
            });
        }
        let mut prefix = [0; FILE_CHUNK_PREFIX_BYTES];
        let mut fields = &mut prefix[..];
        fields.put_u64_le(self.file.0);
        fields.put_u64_le(self.offset);
        Ok(super::frame::encode_parts(
            FrameKind::FileChunk,
            &prefix,
            self.data,
        )?)
    }

    /// The chunk in a frame.
    pub(crate) fn decode(frame: Frame) -> Result<Self, FrameError> {
        let mut data = frame.expect_kind(FrameKind::FileChunk, "bytes of a file")?.body;
        if data.len() < FILE_CHUNK_PREFIX_BYTES {
            let why = "it ends before its data".to_owned();
            return Err(FrameError::Body {
                kind: FrameKind::FileChunk,
                why,
            });
        }
        Ok(Self {
            file: FileId(data.get_u64_le()),
            offset: data.get_u64_le(),
            data,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{FileChunk, FileRequest};
    use crate::wire::limits::FILE_CHUNK_BYTES_MAX;
    use crate::wire::{Frame, FrameKind};
    use bytes::{Bytes, BytesMut};
    use planaria_types::FileId;

    #[test]
    fn a_chunk_survives_and_its_data_is_not_copied() {
        let data = Bytes::from(vec![3; FILE_CHUNK_BYTES_MAX as usize]);
        let chunk = FileChunk {
            file: FileId(9),
            offset: 1 << 40,
            data: data.clone(),
        };
        let parts = chunk.clone().encode().unwrap();
        assert_eq!(parts[1].as_ptr(), data.as_ptr());
        let mut bytes = BytesMut::from(&parts.concat()[..]);
        let frame = Frame::decode(&mut bytes).unwrap().unwrap();
        assert_eq!(FileChunk::decode(frame), Ok(chunk));
    }

    #[test]
    fn what_is_too_long_or_too_short_is_refused() {
        let data = Bytes::from(vec![3; FILE_CHUNK_BYTES_MAX as usize + 1]);
        assert!(
            FileChunk {
                file: FileId(9),
                offset: 0,
                data
            }
            .encode()
            .is_err()
        );
        assert!(FileChunk::decode(Frame::new(FrameKind::FileChunk, vec![0; 15])).is_err());
        let request = FileRequest {
            lease: 0,
            file: FileId(1),
            offset: u64::MAX,
            length: 1,
        };
        assert!(request.end().is_err());
    }
}
