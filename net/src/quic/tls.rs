use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, KeyLog, NoKeyLog, RootCertStore, ServerConfig};

use super::{Origin, Roles, Service};
use crate::{Error, Result};

/// Who we are on the wire and whom we trust: a certificate, its key, and the authority of both sides.
///
/// Cheap to clone. The key is not shown by `Debug`.
#[derive(Clone)]
pub struct Credentials(Arc<Parts>);

struct Parts {
    authority: CertificateDer<'static>,
    cert: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    name: String,
    roles: Roles,
    origin: Origin,
    path: PathBuf,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("name", &self.0.name)
            .field("roles", &self.0.roles)
            .field("origin", &self.0.origin)
            .field("path", &self.0.path)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Credentials from PEM texts; `path` is where they came from, for errors.
    ///
    /// That the authority issued the certificate and that the key belongs to it is checked when they are used by an
    /// endpoint; dates are checked by the other side.
    pub fn from_pem(
        path: &Path,
        authority_pem: &str,
        cert_pem: &str,
        key_pem: &str,
        origin: Origin,
    ) -> Result<Self> {
        let wrong = |what: &str, error: &dyn std::fmt::Display| unusable(path, format!("{what}: {error}"));
        let authority = CertificateDer::from_pem_slice(authority_pem.as_bytes())
            .map_err(|error| wrong("the authority's certificate cannot be read", &error))?;
        let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes())
            .map_err(|error| wrong("the certificate cannot be read", &error))?;
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes())
            .map_err(|error| wrong("the key cannot be read", &error))?;
        let (name, roles) =
            identity(&cert).map_err(|error| wrong("the certificate cannot be read", &error))?;
        Ok(Self(Arc::new(Parts { authority, cert, key, name, roles, origin, path: path.to_path_buf() })))
    }

    /// The name in the certificate.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The roles in the certificate.
    pub fn roles(&self) -> Roles {
        self.0.roles
    }

    /// Whether they were made without being asked for.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// Where they came from.
    pub(super) fn path(&self) -> &Path {
        &self.0.path
    }

    /// The bytes of the private key, to derive other secrets from.
    pub(super) fn secret(&self) -> &[u8] {
        self.0.key.secret_der()
    }

    /// Whether the certificate is the authority's and stays valid for `ahead` from now on.
    pub(crate) fn check(&self, ahead: Duration) -> Result<(), webpki::Error> {
        let anchor = webpki::anchor_from_trusted_cert(&self.0.authority)?;
        let cert = webpki::EndEntityCert::try_from(&self.0.cert)?;
        let now = Duration::from_secs(UnixTime::now().as_secs());
        let algorithms = provider().signature_verification_algorithms.all;
        cert.verify_for_usage(
            algorithms,
            &[anchor],
            &[],
            UnixTime::since_unix_epoch(now + ahead),
            webpki::KeyUsage::client_auth(),
            None,
            None,
        )
        .map(drop)
    }

    /// The configuration of a side that accepts.
    pub(crate) fn server_config(&self) -> Result<QuicServerConfig> {
        QuicServerConfig::try_from(self.tls_server_config()?).map_err(|error| self.unusable(&error))
    }

    /// The same without what QUIC adds.
    pub(super) fn tls_server_config(&self) -> Result<ServerConfig> {
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), provider())
            .build()
            .map_err(|error| self.unusable(&error))?;
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| self.unusable(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![self.0.cert.clone()], self.0.key.clone_key())
            .map_err(|error| self.unusable(&error))?;
        config.alpn_protocols = Service::ALL.iter().map(|service| service.alpn().to_vec()).collect();
        config.ignore_client_order = false;
        // Nothing of one connection is of use to another: no early data, no tickets, no stored sessions.
        config.max_early_data_size = 0;
        config.send_half_rtt_data = false;
        config.send_tls13_tickets = 0;
        config.max_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.key_log = no_key_log();
        config.enable_secret_extraction = false;
        config.max_fragment_size = None;
        Ok(config)
    }

    /// The configuration of a side that connects for `service`.
    pub(crate) fn client_config(&self, service: Service) -> Result<QuicClientConfig> {
        let config = self.tls_client_config(service, true)?;
        QuicClientConfig::try_from(config).map_err(|error| self.unusable(&error))
    }

    /// The same without what QUIC adds; without `present` it shows no certificate, as a stranger would.
    pub(super) fn tls_client_config(&self, service: Service, present: bool) -> Result<ClientConfig> {
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(self.roots()?), provider())
            .build()
            .map_err(|error| self.unusable(&error))?;
        let config = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| self.unusable(&error))?
            .with_webpki_verifier(verifier);
        let mut config = if present {
            config
                .with_client_auth_cert(vec![self.0.cert.clone()], self.0.key.clone_key())
                .map_err(|error| self.unusable(&error))?
        } else {
            config.with_no_client_auth()
        };
        config.alpn_protocols = vec![service.alpn().to_vec()];
        config.check_selected_alpn = true;
        config.enable_early_data = false;
        config.resumption = Resumption::disabled();
        config.enable_sni = true;
        config.key_log = no_key_log();
        config.enable_secret_extraction = false;
        config.max_fragment_size = None;
        Ok(config)
    }

    /// The configuration of a stranger that shows no certificate.
    #[cfg(test)]
    pub(crate) fn client_config_without_certificate(&self, service: Service) -> Result<QuicClientConfig> {
        let config = self.tls_client_config(service, false)?;
        QuicClientConfig::try_from(config).map_err(|error| self.unusable(&error))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.authority.clone()).map_err(|error| self.unusable(&error))?;
        Ok(roots)
    }

    fn unusable(&self, error: &dyn std::fmt::Display) -> Error {
        unusable(&self.0.path, error.to_string())
    }
}

/// Reads name and roles out of a certificate. It says nothing about whether the certificate is to be trusted.
pub(crate) fn identity(cert: &CertificateDer<'_>) -> Result<(String, Roles), webpki::Error> {
    let cert = webpki::EndEntityCert::try_from(cert)?;
    let name = cert.valid_dns_names().next().unwrap_or("(no name)").to_owned();
    Ok((name, Roles::from_uris(cert.valid_uri_names())))
}

/// The one provider of cryptography: ring. It is named here rather than installed for the process, which an embedding
/// application may have done otherwise.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn no_key_log() -> Arc<dyn KeyLog> {
    Arc::new(NoKeyLog {})
}

fn unusable(path: &Path, why: String) -> Error {
    Error::Certificate {
        path: path.to_path_buf(),
        why,
        hint: "Restore the files of one authority, or name another directory with --tls DIR",
    }
}
