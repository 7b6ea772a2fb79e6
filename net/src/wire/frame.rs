//! Frames: what every stream is made of.
//!
//! ```text
//! 0        1      2      4        8        12
//! | 0xB1 u8 | kind | flags | length | crc32 | body …
//! ```
//!
//! All numbers are little-endian. The checksum covers bytes 0 to 7 and the body.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::limits;

/// The first byte of every frame: 0xB0 plus the version of the frame layout.
pub const FRAME_MAGIC: u8 = 0xB1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 12;

/// What a frame carries; it decides the limit on the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// The greeting that opens a connection.
    Hello = 1,
    /// A request of the client protocol.
    Request = 2,
    /// The whole answer, or the summary that ends a stream of rows.
    Response = 3,
    /// A batch of rows, in either direction.
    Rows = 4,
    /// What of an import has been taken.
    Ack = 5,
    /// The client has sent all rows of an import.
    End = 6,
    /// The request failed.
    Error = 7,
    /// A control or live message of a replica session.
    Control = 8,
    /// Opens a bulk stream.
    BulkOpen = 9,
    /// A message on a bulk stream.
    Bulk = 10,
    /// Opens a stream that asks for bytes of a file.
    FileOpen = 11,
    /// Announces bytes of a file, which follow the frame.
    FileChunk = 12,
    /// A bulk stream or a file is complete.
    BulkEnd = 13,
}

impl FrameKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        Self::Hello,
        Self::Request,
        Self::Response,
        Self::Rows,
        Self::Ack,
        Self::End,
        Self::Error,
        Self::Control,
        Self::BulkOpen,
        Self::Bulk,
        Self::FileOpen,
        Self::FileChunk,
        Self::BulkEnd,
    ];

    /// The kind that a byte stands for.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }

    /// The greatest body in bytes.
    pub fn body_bytes_max(self) -> u32 {
        match self {
            Self::Hello => limits::HELLO_BYTES_MAX,
            Self::Request => limits::REQUEST_BYTES_MAX,
            Self::Response => limits::RESPONSE_BYTES_MAX,
            Self::Rows => limits::ROWS_BYTES_MAX,
            Self::Ack => limits::ACK_BYTES_MAX,
            Self::End | Self::BulkEnd => 0,
            Self::Error => limits::ERROR_BYTES_MAX,
            Self::Control => limits::CONTROL_BYTES_MAX,
            Self::BulkOpen | Self::FileOpen => limits::BULK_OPEN_BYTES_MAX,
            Self::Bulk => limits::BULK_BYTES_MAX,
            Self::FileChunk => super::replica::FILE_CHUNK_BYTES as u32,
        }
    }
}

/// Why bytes are not the frame, or the message, that belongs there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The first byte is not a frame's of a version that is understood here.
    #[error("a frame begins with byte {0:#04x} instead of {FRAME_MAGIC:#04x}")]
    Magic(u8),
    /// No kind has this number.
    #[error("there is no frame of kind {0}")]
    Kind(u8),
    /// A flag that is not understood here.
    #[error("a frame has the unknown flags {0:#06x}")]
    Flags(u16),
    /// The body is longer than its kind allows.
    #[error("a frame {kind:?} announces {bytes} bytes; its limit is {limit} bytes")]
    TooLong {
        /// What it would be.
        kind: FrameKind,
        /// Announced length of the body in bytes.
        bytes: u32,
        /// The limit in bytes.
        limit: u32,
    },
    /// The bytes are not those that were sent.
    #[error("the checksum of a frame {0:?} does not fit its bytes")]
    Checksum(FrameKind),
    /// The stream ended within a frame.
    #[error("the stream ended within a frame")]
    Truncated,
    /// The stream ended where a frame must follow.
    #[error("the stream ended before {0}")]
    Missing(&'static str),
    /// A frame of a kind that does not belong there.
    #[error("a frame {got:?} came instead of {wanted}")]
    Unexpected {
        /// What came.
        got: FrameKind,
        /// What belongs there.
        wanted: &'static str,
    },
    /// The body is not a message of its kind.
    #[error("the body of a frame {kind:?} cannot be understood: {why}")]
    Body {
        /// The frame's kind.
        kind: FrameKind,
        /// What does not fit.
        why: String,
    },
}

/// One frame.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// What it carries.
    pub kind: FrameKind,
    /// What it carries, in bytes.
    pub body: Bytes,
}

/// A frame's header, checked but for the sum over a body that may not be there yet.
#[derive(Clone, Copy, Debug)]
struct Header {
    kind: FrameKind,
    body_bytes: usize,
    crc: u32,
    seed: u32,
}

impl Header {
    /// Reads and checks a header; `None` if fewer than [`HEADER_BYTES`] are there.
    ///
    /// The first bytes are judged as soon as they are there, so that garbage is refused without waiting for more.
    fn decode(bytes: &[u8]) -> Result<Option<Self>, FrameError> {
        match bytes.first() {
            Some(&magic) if magic != FRAME_MAGIC => return Err(FrameError::Magic(magic)),
            _ => {}
        }
        let Some(mut fields) = bytes.get(..HEADER_BYTES) else {
            return Ok(None);
        };
        let seed = crc32fast::hash(fields.get(..8).unwrap_or_default());
        fields.advance(1);
        let kind = fields.get_u8();
        let kind = FrameKind::from_byte(kind).ok_or(FrameError::Kind(kind))?;
        let flags = fields.get_u16_le();
        if flags != 0 {
            return Err(FrameError::Flags(flags));
        }
        let bytes = fields.get_u32_le();
        let limit = kind.body_bytes_max();
        if bytes > limit {
            return Err(FrameError::TooLong { kind, bytes, limit });
        }
        Ok(Some(Self { kind, body_bytes: bytes as usize, crc: fields.get_u32_le(), seed }))
    }

    /// Whether `body` is the one that the header was written for.
    fn check(&self, body: &[u8]) -> Result<(), FrameError> {
        let mut crc = crc32fast::Hasher::new_with_initial(self.seed);
        crc.update(body);
        if crc.finalize() == self.crc { Ok(()) } else { Err(FrameError::Checksum(self.kind)) }
    }
}

impl Frame {
    /// A frame.
    pub fn new(kind: FrameKind, body: impl Into<Bytes>) -> Self {
        Self { kind, body: body.into() }
    }

    /// The header and the body as separate chunks, so that a big body is not copied.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] if the body exceeds the limit of its kind.
    pub fn encode(self) -> Result<[Bytes; 2], FrameError> {
        let Self { kind, body } = self;
        let limit = kind.body_bytes_max();
        let bytes = u32::try_from(body.len()).unwrap_or(u32::MAX);
        if bytes > limit {
            return Err(FrameError::TooLong { kind, bytes, limit });
        }
        let mut header = BytesMut::with_capacity(HEADER_BYTES);
        header.put_u8(FRAME_MAGIC);
        header.put_u8(kind as u8);
        header.put_u16_le(0);
        header.put_u32_le(bytes);
        let mut crc = crc32fast::Hasher::new();
        crc.update(&header);
        crc.update(&body);
        header.put_u32_le(crc.finalize());
        Ok([header.freeze(), body])
    }

    /// Takes one frame off the front of `buffer` without copying its body; `None` if it is not there in full.
    ///
    /// After an error the buffer is of no more use: nothing says where the next frame begins.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, FrameError> {
        let Some(header) = Header::decode(buffer)? else {
            return Ok(None);
        };
        if buffer.len() - HEADER_BYTES < header.body_bytes {
            return Ok(None);
        }
        buffer.advance(HEADER_BYTES);
        let body = buffer.split_to(header.body_bytes).freeze();
        header.check(&body)?;
        Ok(Some(Self { kind: header.kind, body }))
    }

    /// How many more bytes the frame at the front of `buffer` needs at least; 0 if it is there in full.
    pub fn missing_bytes(buffer: &[u8]) -> Result<usize, FrameError> {
        Ok(match Header::decode(buffer)? {
            None => HEADER_BYTES - buffer.len(),
            Some(header) => (HEADER_BYTES + header.body_bytes).saturating_sub(buffer.len()),
        })
    }

    /// The body as a message of this crate.
    pub fn message<T: serde::de::DeserializeOwned>(&self) -> Result<T, FrameError> {
        let wrong = |why: String| FrameError::Body { kind: self.kind, why };
        let (message, rest) =
            postcard::take_from_bytes(&self.body).map_err(|error| wrong(error.to_string()))?;
        if rest.is_empty() { Ok(message) } else { Err(wrong(format!("{} bytes are left over", rest.len()))) }
    }

    /// The frame of a message.
    pub fn of<T: serde::Serialize>(kind: FrameKind, message: &T) -> Result<Self, FrameError> {
        let body = postcard::to_stdvec(message)
            .map_err(|error| FrameError::Body { kind, why: error.to_string() })?;
        Ok(Self::new(kind, body))
    }

    /// The frame itself if it is of `kind`, else an error that names `wanted`.
    pub(crate) fn expect_kind(self, kind: FrameKind, wanted: &'static str) -> Result<Self, FrameError> {
        if self.kind == kind { Ok(self) } else { Err(FrameError::Unexpected { got: self.kind, wanted }) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, FrameError, FrameKind, HEADER_BYTES};
    use bytes::{BufMut, Bytes, BytesMut};

    fn bytes_of(frame: Frame) -> Vec<u8> {
        frame.encode().unwrap().concat()
    }

    #[test]
    fn a_frame_survives_any_cut_of_its_bytes() {
        let frame = Frame::new(FrameKind::Request, vec![7; 100]);
        let bytes = bytes_of(frame.clone());
        for cut in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            assert_eq!(Frame::decode(&mut buffer), Ok(None));
            let missing = Frame::missing_bytes(&buffer).unwrap();
            assert!(missing > 0 && missing <= bytes.len() - cut);
            buffer.extend_from_slice(&bytes[cut..]);
            assert_eq!(Frame::decode(&mut buffer), Ok(Some(frame.clone())));
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn a_body_is_not_copied() {
        let body = Bytes::from(vec![1; 4096]);
        let [_, sent] = Frame::new(FrameKind::Bulk, body.clone()).encode().unwrap();
        assert_eq!(sent.as_ptr(), body.as_ptr());
    }

    #[test]
    fn the_layout_does_not_move() {
        let bytes = bytes_of(Frame::new(FrameKind::Control, &b"ab"[..]));
        assert_eq!(bytes[..8], [0xB1, 8, 0, 0, 2, 0, 0, 0]);
        assert_eq!(bytes[12..], *b"ab");
        let mut sum = crc32fast::Hasher::new();
        sum.update(&bytes[..8]);
        sum.update(b"ab");
        assert_eq!(bytes[8..12], sum.finalize().to_le_bytes());
    }

    #[test]
    fn each_kind_has_its_limit_and_refuses_one_byte_more_by_the_header_alone() {
        for kind in FrameKind::ALL {
            assert_eq!(FrameKind::from_byte(kind as u8), Some(kind));
            let limit = kind.body_bytes_max();
            let mut header = BytesMut::new();
            header.put_slice(&[0xB1, kind as u8, 0, 0]);
            header.put_u32_le(limit + 1);
            header.put_u32_le(0);
            let error = FrameError::TooLong { kind, bytes: limit + 1, limit };
            assert_eq!(Frame::decode(&mut header), Err(error));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = bytes_of(Frame::new(FrameKind::Rows, &b"some rows"[..]));
        for bit in 0..bytes.len() * 8 {
            let mut buffer = BytesMut::from(&bytes[..]);
            buffer[bit / 8] ^= 1 << (bit % 8);
            // A longer announced length is a frame that is not there yet; anything else is an error.
            match Frame::decode(&mut buffer) {
                Err(_) => {}
                Ok(None) => assert!((4..8).contains(&(bit / 8))),
                Ok(Some(frame)) => panic!("bit {bit} passed as {frame:?}"),
            }
        }
    }

    #[test]
    fn hostile_bytes_end_in_an_error_or_a_wait() {
        let mut state = 0x5eed_u64;
        let mut random = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize
        };
        for _ in 0..20_000 {
            let kind = FrameKind::ALL[random() % 13];
            let length = random() % 40;
            let body: Vec<u8> =
                (0..length.min(kind.body_bytes_max() as usize)).map(|_| random() as u8).collect();
            let mut bytes = bytes_of(Frame::new(kind, body));
            for _ in 0..random() % 4 {
                let at = random() % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(random() % (bytes.len() + 1));
            let mut buffer = BytesMut::from(&bytes[..]);
            if let Ok(Some(frame)) = Frame::decode(&mut buffer) {
                assert!(frame.body.len() <= bytes.len() - HEADER_BYTES);
            }
        }
    }

    #[test]
    fn a_message_with_bytes_left_over_is_refused() {
        let mut frame = Frame::of(FrameKind::Ack, &7_u32).unwrap();
        assert_eq!(frame.message::<u32>(), Ok(7));
        frame.body = Bytes::from_static(&[7, 0]);
        assert!(matches!(frame.message::<u32>(), Err(FrameError::Body { .. })));
    }
}
