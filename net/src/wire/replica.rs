//! What travels beside the control stream of a replica session: files and bulk messages.

use bytes::{Buf, BufMut};
use planaria_types::FileId;
use serde::{Deserialize, Serialize};

use super::limits::FILE_CHUNK_BYTES_MAX;
use super::{Frame, FrameError, FrameKind};

/// Bytes of what announces a chunk: file, offset and length.
pub(crate) const FILE_CHUNK_BYTES: usize = 20;

/// The lease of a request for bytes that somebody waits for: they are sent before all other bytes of files.
pub const FOR_READERS: u64 = 1;

/// Asks for bytes of one file. A file is named by its number, never by a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileRequest {
    /// 0, or [`FOR_READERS`]. Others are served as 0.
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
        self.offset.checked_add(self.length).ok_or_else(|| FrameError::Body {
            kind: FrameKind::FileOpen,
            why: "the range of bytes passes the end of numbers".to_owned(),
        })
    }
}

/// Announces bytes of a file, which follow the frame as they are: neither copied into one nor summed up, since whoever takes
/// files holds each chunk against its hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileChunk {
    /// The file.
    pub file: FileId,
    /// Where they lie.
    pub offset: u64,
    /// How many they are: at least 1, and at most 1 MiB.
    pub length: u32,
}

impl FileChunk {
    pub(crate) fn frame(self) -> Frame {
        let mut body = Vec::with_capacity(FILE_CHUNK_BYTES);
        body.put_u64_le(self.file.0);
        body.put_u64_le(self.offset);
        body.put_u32_le(self.length);
        Frame::new(FrameKind::FileChunk, body)
    }

    /// The announcement in a frame.
    pub(crate) fn decode(frame: Frame) -> Result<Self, FrameError> {
        let wrong = |why: &str| FrameError::Body { kind: FrameKind::FileChunk, why: why.to_owned() };
        let mut body = frame.expect_kind(FrameKind::FileChunk, "bytes of a file")?.body;
        if body.len() != FILE_CHUNK_BYTES {
            return Err(wrong("it is not 20 bytes long"));
        }
        let chunk =
            Self { file: FileId(body.get_u64_le()), offset: body.get_u64_le(), length: body.get_u32_le() };
        match chunk.length {
            1..=FILE_CHUNK_BYTES_MAX => Ok(chunk),
            _ => Err(wrong("it announces no bytes, or more than 1 MiB")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{FileChunk, FileRequest};
    use crate::wire::limits::FILE_CHUNK_BYTES_MAX;
    use crate::wire::{Frame, FrameKind};
    use planaria_types::FileId;

    #[test]
    fn an_announcement_survives_and_nonsense_is_refused() {
        let chunk = FileChunk { file: FileId(9), offset: 1 << 40, length: FILE_CHUNK_BYTES_MAX };
        assert_eq!(FileChunk::decode(chunk.frame()), Ok(chunk));
        for length in [0, FILE_CHUNK_BYTES_MAX + 1] {
            assert!(FileChunk::decode(FileChunk { length, ..chunk }.frame()).is_err());
        }
        for bytes in [0, 19, 21] {
            assert!(FileChunk::decode(Frame::new(FrameKind::FileChunk, vec![1; bytes])).is_err());
        }
        let request = FileRequest { lease: 0, file: FileId(1), offset: u64::MAX, length: 1 };
        assert!(request.end().is_err());
    }
}
