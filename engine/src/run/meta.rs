use planaria_types::{FileId, Fingerprint, InstanceId, Uid};
use serde::{Deserialize, Serialize};

use super::decode::{Decoder, put_varint};
use super::options::MAX_KEY_BYTES;

/// What every checksum of a run file is bound to: the store that wrote it and its number there. A file that is linked
/// or sent into another store keeps the identity that it was written with.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct RunIdentity {
    /// The store that wrote the file.
    pub(crate) store: InstanceId,
    /// The file's number in that store.
    pub(crate) file: FileId,
}

impl RunIdentity {
    /// The bytes that a checksum at `offset` covers besides what is stored there.
    pub(crate) fn binding(self, offset: u64) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (store, rest) = bytes.split_at_mut(16);
        store.copy_from_slice(&self.store.0.to_le_bytes());
        let (file, place) = rest.split_at_mut(8);
        file.copy_from_slice(&self.file.0.to_le_bytes());
        place.copy_from_slice(&offset.to_le_bytes());
        bytes
    }
}

/// What is known of a run without opening it; a manifest holds it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct RunMeta {
    /// The identity that the file was written with.
    pub(crate) identity: RunIdentity,
    /// The length of the file in bytes.
    pub(crate) len: u64,
    /// How many bytes at the front of the file the content hash covers: all but chunk table and footer, which follow
    /// from them.
    pub(crate) content_len: u64,
    /// The content hash: BLAKE3 over the BLAKE3 hashes of the chunks of 1 MiB and `content_len`.
    pub(crate) content_hash: [u8; 32],
    /// How many versions the run holds; at least 1.
    pub(crate) records: u64,
    /// How many of them are puts.
    pub(crate) puts: u64,
    /// The smallest key.
    pub(crate) smallest_key: Vec<u8>,
    /// The largest key.
    pub(crate) largest_key: Vec<u8>,
    /// The smallest UID.
    pub(crate) smallest_uid: Uid,
    /// The largest UID.
    pub(crate) largest_uid: Uid,
    /// The fingerprint over the newest version of each key as far as it is a put; `None` if the writer was not asked
    /// for fingerprints.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// The bytes of all keys and rows, before any compression.
    pub(crate) raw_bytes: u64,
}

impl RunMeta {
    /// Enters the UID of the commit that all records are of, for a run of one commit.
    pub(crate) fn name_commit(&mut self, uid: Uid) {
        self.smallest_uid = uid;
        self.largest_uid = uid;
    }

    /// The bytes of the properties block: the fields that describe the records.
    pub(crate) fn encode_properties(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [self.records, self.puts, self.raw_bytes] {
            put_varint(&mut out, number);
        }
        out.extend_from_slice(&self.smallest_uid.get().to_le_bytes());
        out.extend_from_slice(&self.largest_uid.get().to_le_bytes());
        out.push(u8::from(self.fingerprint.is_some()));
        if let Some(fingerprint) = self.fingerprint {
            out.extend_from_slice(&fingerprint.count.to_le_bytes());
            out.extend_from_slice(&fingerprint.sum.to_le_bytes());
        }
        for key in [&self.smallest_key, &self.largest_key] {
            put_varint(&mut out, key.len() as u64);
            out.extend_from_slice(key);
        }
        out
    }

    /// Reads the bytes of a properties block; the other fields come from the footer.
    pub(crate) fn decode_properties(
        bytes: &[u8],
        identity: RunIdentity,
        len: u64,
        content_len: u64,
        content_hash: [u8; 32],
    ) -> Option<Self> {
        let mut decoder = Decoder::new(bytes);
        let records = decoder.varint()?;
        let puts = decoder.varint()?;
        let raw_bytes = decoder.varint()?;
        let smallest_uid = Uid::new(decoder.u64()?);
        let largest_uid = Uid::new(decoder.u64()?);
        let fingerprint = match decoder.u8()? {
            0 => None,
            1 => Some(Fingerprint { count: decoder.u64()?, sum: decoder.u128()? }),
            _ => return None,
        };
        let smallest_key = key(&mut decoder)?;
        let largest_key = key(&mut decoder)?;
        decoder.end()?;
        Some(Self {
            identity,
            len,
            content_len,
            content_hash,
            records,
            puts,
            smallest_key,
            largest_key,
            smallest_uid,
            largest_uid,
            fingerprint,
            raw_bytes,
        })
    }
}

fn key(decoder: &mut Decoder<'_>) -> Option<Vec<u8>> {
    let bytes = usize::try_from(decoder.varint()?).ok()?;
    if bytes > MAX_KEY_BYTES {
        return None;
    }
    decoder.bytes(bytes).map(<[u8]>::to_vec)
}
