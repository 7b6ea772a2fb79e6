//! Every limit of the wire by its name. A peer that exceeds one is cut off; nothing is allocated for it before.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};

/// Bytes of the greeting that opens a connection.
pub const HELLO_BYTES_MAX: u32 = 4 << 10;
/// Bytes of a request, a write batch included.
pub const REQUEST_BYTES_MAX: u32 = 64 << 20;
/// Bytes of an answer that is not a stream of rows.
pub const RESPONSE_BYTES_MAX: u32 = 64 << 20;
/// Bytes of one batch of rows: enough for one row of the greatest size.
pub const ROWS_BYTES_MAX: u32 = 64 << 20;
/// Bytes of an acknowledgement within an import.
pub const ACK_BYTES_MAX: u32 = 64;
/// Bytes of an error.
pub const ERROR_BYTES_MAX: u32 = 64 << 10;
/// Bytes of a control or live message of a replica session: enough for one commit of the greatest size.
pub const CONTROL_BYTES_MAX: u32 = 80 << 20;
/// Bytes of the message that opens a bulk stream.
pub const BULK_OPEN_BYTES_MAX: u32 = 64 << 10;
/// Bytes of one message on a bulk stream.
pub const BULK_BYTES_MAX: u32 = 32 << 20;
/// Bytes of file data in one chunk.
pub const FILE_CHUNK_BYTES_MAX: u32 = 1 << 20;

/// Connections over which one clone comes in, and that its source grants it.
pub const CLONE_CONNECTIONS_MAX: u8 = 8;

/// Rows per batch.
pub const ROWS_MAX: usize = 1 << 16;
/// Operations in one write batch.
pub const OPS_MAX: usize = 1 << 16;
/// Tables, replicas, clones, labels or columns in one list.
pub const LIST_MAX: usize = 1 << 14;
/// Bytes at which a batch of rows is sent without waiting for more.
pub const ROWS_BYTES_TARGET: usize = 256 << 10;

/// Bytes that a reader reserves ahead of what has arrived: what a header promises is believed only this far.
pub const READ_AHEAD_BYTES: usize = (1 << 20) + 64;

/// The time in which a peer that passed the TLS handshake must have greeted.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// The time in which a stream that was opened must have delivered its request.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The time without any progress after which a slow reader of an answer loses its call.
pub const STALL_TIMEOUT: Duration = Duration::from_mins(1);

/// Deserializes a sequence of at most `MAX` elements, and stops at the first one beyond.
///
/// A frame's length bounds its bytes; this bounds the memory that many small elements would take.
pub(crate) fn bounded<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Vec<T>, A::Error> {
            if access.size_hint().is_some_and(|count| count > MAX) {
                return Err(A::Error::custom("a list exceeds its limit"));
            }
            let mut list = Vec::with_capacity(access.size_hint().unwrap_or(0).min(64));
            while let Some(element) = access.next_element()? {
                if list.len() == MAX {
                    return Err(A::Error::custom("a list exceeds its limit"));
                }
                list.push(element);
            }
            Ok(list)
        }
    }

    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}
