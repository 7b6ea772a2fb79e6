//! Decoding without copies: keys and rows as shares of the message that they came in.

use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use serde::de::{Deserializer, Error, Visitor};

thread_local! {
    /// The message that this thread decodes.
    static WHOLE: RefCell<Option<Bytes>> = const { RefCell::new(None) };
}

/// Decodes `message` with `decode`, which is given its bytes and borrows from them: the keys and rows of its records share them
/// then. A record that is kept keeps all of the message.
pub fn sharing<T>(message: &Bytes, decode: impl FnOnce(&[u8]) -> T) -> T {
    /// Lets go of the message also where `decode` panics.
    struct Decoding;
    impl Drop for Decoding {
        fn drop(&mut self) {
            WHOLE.set(None);
        }
    }
    WHOLE.set(Some(message.clone()));
    let _decoding = Decoding;
    decode(message)
}

/// Bytes of a message: a share of it if it is decoded under [`sharing`], else a copy.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    deserializer.deserialize_bytes(Sharing(PhantomData))
}

struct Sharing<'de>(PhantomData<&'de ()>);

impl<'de> Visitor<'de> for Sharing<'de> {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_borrowed_bytes<E: Error>(self, part: &'de [u8]) -> Result<Bytes, E> {
        let share = |whole: &Option<Bytes>| {
            let whole = whole.as_ref()?;
            let (all, own) = (whole.as_ptr_range(), part.as_ptr_range());
            // Whoever decodes something else meanwhile gets copies.
            let is_part = !part.is_empty() && all.start <= own.start && own.end <= all.end;
            is_part.then(|| whole.slice_ref(part))
        };
        Ok(WHOLE.with_borrow(share).unwrap_or_else(|| Bytes::copy_from_slice(part)))
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(Bytes::copy_from_slice(bytes))
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Bytes, E> {
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use planaria_types::{TableId, Uid};

    use super::sharing;
    use crate::{Record, RecordKind};

    fn record(key: &'static str, row: &'static str) -> Record {
        let (key, row) = (Bytes::from_static(key.as_bytes()), Bytes::from_static(row.as_bytes()));
        Record { table: TableId(7), key, uid: Uid::new(9), kind: RecordKind::Put, row }
    }

    fn lies_within(part: &Bytes, whole: &Bytes) -> bool {
        whole.as_ptr_range().contains(&part.as_ptr())
    }

    #[test]
    fn records_share_the_message_that_is_decoded_and_no_other() {
        let records = vec![record("key", "a row"), record("other", "")];
        let message = Bytes::from(postcard::to_stdvec(&records).unwrap());
        let decode = |bytes: &[u8]| postcard::from_bytes::<Vec<Record>>(bytes).unwrap();
        let shared = sharing(&message, decode);
        assert_eq!(shared, records);
        assert!(lies_within(&shared[0].key, &message) && lies_within(&shared[0].row, &message));
        assert!(!lies_within(&shared[1].row, &message), "nothing keeps the message for nothing");

        let elsewhere = message.to_vec();
        for copied in [sharing(&message, |_| decode(&elsewhere)), decode(&message)] {
            assert_eq!(copied, records);
            assert!(!lies_within(&copied[0].row, &message));
        }
        let panicked = std::panic::catch_unwind(|| sharing(&message, |_| panic!("as it may be")));
        assert!(panicked.is_err() && !lies_within(&decode(&message)[0].row, &message));
    }
}
