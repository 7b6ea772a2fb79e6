use std::path::Path;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::UnixTime;

use super::{NODE_NAME, Role, Roles};
use crate::{Error, Result};

/// How long an authority lives.
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(20 * 365 * 86_400);
/// Certificates are valid from a little before they are issued, for peers whose clocks are behind.
const CLOCK_SLACK: Duration = Duration::from_secs(86_400);

/// A private certificate authority: the root that a set of nodes and their clients trust, and nobody else.
pub struct CertAuthority {
    issuer: Issuer<'static, KeyPair>,
    cert_pem: String,
    key_pem: String,
}

/// A certificate with its key, as PEM text. The key is secret and must not be logged.
pub struct Issued {
    /// The certificate.
    pub cert_pem: String,
    /// Its private key, in PKCS #8.
    pub key_pem: String,
}

impl CertAuthority {
    /// Makes a new authority with a fresh key.
    ///
    /// # Errors
    ///
    /// [`Error::Certificate`] if the system gives no randomness.
    pub fn create() -> Result<Self> {
        let key = KeyPair::generate().map_err(|error| rejected("new authority", &error))?;
        let now = Duration::from_secs(UnixTime::now().as_secs());
        let mut params = authority_params(&key);
        set_validity(
            &mut params,
            now.saturating_sub(CLOCK_SLACK),
            now + AUTHORITY_LIFETIME,
        );
        let cert = params
            .self_signed(&key)
            .map_err(|error| rejected("new authority", &error))?;
        let (cert_pem, key_pem) = (cert.pem(), key.serialize_pem());
        Ok(Self {
            issuer: Issuer::new(params, key),
            cert_pem,
            key_pem,
        })
    }

    /// Takes up an authority that [`CertAuthority::create`] made.
    ///
    /// `path` is where the texts came from, for errors.
    pub fn from_pem(path: &Path, cert_pem: String, key_pem: String) -> Result<Self> {
        let key = KeyPair::from_pem(&key_pem).map_err(|error| Error::Certificate {
            path: path.to_path_buf(),
            why: format!("the authority's key cannot be read: {error}"),
            hint: "Restore the file, or begin with a new directory",
        })?;
        // The name of an authority derives from its key, so that the issuer needs nothing from the certificate.
        Ok(Self {
            issuer: Issuer::new(authority_params(&key), key),
            cert_pem,
            key_pem,
        })
    }

    /// The certificate that members trust, as PEM text.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key of the authority, as PEM text. Secret.
    pub(crate) fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Issues a certificate to `name` (a DNS name: letters, digits, hyphens, dots) for `roles`, valid for `lifetime`.
    ///
    /// A certificate with [`Role::Node`] may accept connections; it carries the name [`NODE_NAME`] besides its own.
    ///
    /// # Errors
    ///
    /// [`Error::Certificate`] if the name is not a DNS name.
    pub fn issue(&self, name: &str, roles: Roles, lifetime: Duration) -> Result<Issued> {
        let key = KeyPair::generate().map_err(|error| rejected(name, &error))?;
        self.issue_for(key, name, roles, lifetime)
    }

    /// Issues a certificate to a key that exists.
    ///
    /// A renewal keeps its key, so that one file changes and no reader finds a certificate without its key.
    pub(crate) fn renew(
        &self,
        key_pem: &str,
        name: &str,
        roles: Roles,
        lifetime: Duration,
    ) -> Result<Issued> {
        let key = KeyPair::from_pem(key_pem).map_err(|error| rejected(name, &error))?;
        self.issue_for(key, name, roles, lifetime)
    }

    fn issue_for(&self, key: KeyPair, name: &str, roles: Roles, lifetime: Duration) -> Result<Issued> {
        let now = Duration::from_secs(UnixTime::now().as_secs());
        self.issue_between(
            &key,
            name,
            roles,
            [now.saturating_sub(CLOCK_SLACK), now + lifetime],
        )
    }

    /// Issues a certificate that is valid between two times since 1970.
    pub(crate) fn issue_between(
        &self,
        key: &KeyPair,
        name: &str,
        roles: Roles,
        [from, to]: [Duration; 2],
    ) -> Result<Issued> {
        let wrong = |error: &rcgen::Error| rejected(name, error);
        let mut names = vec![name.to_owned()];
        if roles.has(Role::Node) && name != NODE_NAME {
            names.push(NODE_NAME.to_owned());
        }
        let mut params = CertificateParams::new(names).map_err(|error| wrong(&error))?;
        for role in roles.iter() {
            let uri = role.uri().try_into().map_err(|error| wrong(&error))?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if roles.has(Role::Node) {
            params
                .extended_key_usages
                .push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params, from, to);
        let cert = params
            .signed_by(key, &self.issuer)
            .map_err(|error| wrong(&error))?;
        Ok(Issued {
            cert_pem: cert.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

/// The parameters of an authority but for its dates. The name ends in digits of the key's hash: two authorities never
/// share a name, and a stranger's certificate is refused as of an unknown issuer rather than for a bad signature.
fn authority_params(key: &KeyPair) -> CertificateParams {
    let digest = blake3::hash(key.public_key_raw()).to_hex();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(
        DnType::CommonName,
        format!(
            "Planaria authority {}",
            digest.chars().take(16).collect::<String>()
        ),
    );
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// Sets the dates between which a certificate is valid, as times since 1970.
fn set_validity(params: &mut CertificateParams, from: Duration, to: Duration) {
    params.not_before = date_time_ymd(1970, 1, 1) + from;
    params.not_after = date_time_ymd(1970, 1, 1) + to;
}

/// An answer of the certificate library about a certificate for `name`.
fn rejected(name: &str, error: &rcgen::Error) -> Error {
    Error::Certificate {
        path: name.into(),
        why: error.to_string(),
        hint: "Names are DNS names: letters, digits, hyphens and dots",
    }
}
