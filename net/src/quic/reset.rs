use std::net::SocketAddr;
use std::sync::Arc;

use quinn::EndpointConfig;
use quinn_proto::HashedConnectionIdGenerator;
use quinn_proto::crypto::{CryptoError, HmacKey};

use super::Credentials;

/// Lets peers of a process that was killed learn from the next one at its address, by a stateless reset (RFC 9000,
/// section 10.3), that their connections are gone, rather than from half a minute of silence.
///
/// For that, the key of the reset tokens must be the same in both processes: it is derived from the private key of the
/// node, and from the address, so that no other endpoint with the same certificate can be made to tell the tokens.
pub(super) fn survive_restarts(config: &mut EndpointConfig, credentials: &Credentials, address: SocketAddr) {
    let secret = |purpose| {
        let mut hasher = blake3::Hasher::new_derive_key(purpose);
        hasher.update(credentials.secret());
        hasher.update(address.to_string().as_bytes());
        hasher.finalize()
    };
    config.reset_key(Arc::new(ResetKey(secret("planaria 1 stateless reset tokens").into())));
    let ids = secret("planaria 1 connection identifiers");
    let key = ids.as_bytes().iter().take(8).fold(0, |key: u64, byte| key << 8 | u64::from(*byte));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)));
}

/// Makes reset tokens from connection identifiers.
struct ResetKey([u8; 32]);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(data).finalize_xof().fill(signature_out);
    }

    fn signature_len(&self) -> usize {
        blake3::OUT_LEN
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let signature = blake3::Hash::from_slice(signature).map_err(|_| CryptoError)?;
        // Hashes are compared in constant time.
        if blake3::keyed_hash(&self.0, data) == signature { Ok(()) } else { Err(CryptoError) }
    }
}
