use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{CertAuthority, Credentials, Issued, NODE_NAME, Roles};
use crate::{Error, Result};

const AUTHORITY_CERT: &str = "ca.pem";
const AUTHORITY_KEY: &str = "ca.key";
const NODE_CERT: &str = "node.pem";
const NODE_KEY: &str = "node.key";

/// The longest PEM file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// How long the certificate of a node is valid.
const NODE_LIFETIME: Duration = Duration::from_secs(825 * 86_400);
/// A certificate with less than this to live is issued anew where the authority's key is at hand.
const RENEW_AHEAD: Duration = Duration::from_secs(90 * 86_400);

/// Whether a store was named by somebody or made without being asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A directory that was named (`--tls DIR`, `PLANARIA_TLS`, or the `tls` directory of a database).
    Named,
    /// The user's own store. Enough for loopback; it does not open a port to other machines.
    Automatic,
}

/// A directory with the certificates of one node: `ca.pem`, `node.pem`, `node.key`, and, where certificates are
/// issued, `ca.key`. The directory is 0700 and the files are 0600.
///
/// Without any configuration all nodes and clients of one user share the user's store: whoever can read it is that
/// user, who could read the databases as well, so that nothing is given away, and two nodes on one machine trust
/// one another without set-up. A store in each data directory would not let a client find the right one by an
/// address, nor two nodes speak to each other.
#[derive(Clone, Debug)]
pub struct TlsStore {
    dir: PathBuf,
    origin: Origin,
}

impl TlsStore {
    /// The store in `dir`.
    pub fn named(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            origin: Origin::Named,
        }
    }

    /// The user's store: `PLANARIA_TLS` if it is set, else `$XDG_DATA_HOME/planaria/tls`, else
    /// `~/.local/share/planaria/tls`.
    ///
    /// # Errors
    ///
    /// [`Error::Certificate`] if none of the variables is set.
    pub fn of_user() -> Result<Self> {
        Self::from_environment(|name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        })
    }

    fn from_environment(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<Self> {
        if let Some(dir) = variable("PLANARIA_TLS") {
            return Ok(Self::named(dir));
        }
        let data =
            variable("XDG_DATA_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/share")));
        let Some(data) = data else {
            return Err(Error::Certificate {
                path: "planaria/tls".into(),
                why: "neither PLANARIA_TLS nor XDG_DATA_HOME nor HOME is set".to_owned(),
                hint: "Name a directory with --tls DIR",
            });
        };
        Ok(Self {
            dir: data.join("planaria").join("tls"),
            origin: Origin::Automatic,
        })
    }

    /// The store to use: the one in `dir` if a directory is named, else the one in `data_dir/tls` if it exists, else
    /// the user's.
    pub fn choose(dir: Option<&Path>, data_dir: Option<&Path>) -> Result<Self> {
        if let Some(dir) = dir {
            return Ok(Self::named(dir));
        }
        match data_dir.map(|data_dir| data_dir.join("tls")) {
            Some(dir) if dir.join(NODE_CERT).exists() => Ok(Self::named(dir)),
            _ => Self::of_user(),
        }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Reads the credentials; the store must exist.
    ///
    /// # Errors
    ///
    /// [`Error::File`] if a file cannot be read, [`Error::Certificate`] if the parts do not fit together, the
    /// certificate has expired, or a key can be read by other users.
    pub fn load(&self) -> Result<Credentials> {
        let credentials = self.read()?;
        credentials
            .check(Duration::ZERO)
            .map_err(|error| self.unusable(&error))?;
        Ok(credentials)
    }

    /// Reads the credentials, after making the store if it does not exist, and renewing a node's certificate that
    /// ends soon if the authority's key is there.
    ///
    /// Several processes may do so at once; they end up with the same store.
    pub fn load_or_create(&self) -> Result<Credentials> {
        if !self.dir.join(NODE_CERT).exists() {
            self.create()?;
        }
        let credentials = self.read()?;
        match credentials.check(RENEW_AHEAD) {
            Ok(()) => Ok(credentials),
            Err(webpki::Error::CertExpired { .. }) if self.dir.join(AUTHORITY_KEY).exists() => {
                self.renew(&credentials)?;
                self.load()
            }
            Err(_) => self.load(),
        }
    }

    /// Makes the store: a new authority and a certificate for all roles. A store that exists stays as it is.
    ///
    /// The files are made in a directory beside it that is renamed at the end: a store is there in full or not at all.
    pub fn create(&self) -> Result<()> {
        let authority = CertAuthority::create()?;
        let issued = authority.issue(NODE_NAME, Roles::ALL, NODE_LIFETIME)?;
        self.create_with(&authority, &issued, true)
    }

    /// Makes the store of a member of `authority`: its certificate and key, and no key of the authority.
    pub fn create_member(&self, authority: &CertAuthority, issued: &Issued) -> Result<()> {
        self.create_with(authority, issued, false)
    }

    /// The authority of this store, to issue certificates to others. Its key must be there.
    pub fn authority(&self) -> Result<CertAuthority> {
        CertAuthority::from_pem(
            &self.dir,
            self.read_file(AUTHORITY_CERT)?,
            self.read_secret(AUTHORITY_KEY)?,
        )
    }

    fn create_with(&self, authority: &CertAuthority, issued: &Issued, with_key: bool) -> Result<()> {
        let parent = match self.dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        private_dir(parent)?;
        let partial = parent.join(format!(".tls-{}.partial", unique(issued)));
        private_dir(&partial)?;
        write_private(&partial.join(AUTHORITY_CERT), authority.cert_pem())?;
        if with_key {
            write_private(&partial.join(AUTHORITY_KEY), authority.key_pem())?;
        }
        write_private(&partial.join(NODE_KEY), &issued.key_pem)?;
        write_private(&partial.join(NODE_CERT), &issued.cert_pem)?;
        sync_dir(&partial)?;
        let outcome = fs::rename(&partial, &self.dir);
        if let Err(error) = outcome {
            fs::remove_dir_all(&partial).map_err(|error| Error::file("remove", &partial, error))?;
            // Another process was first; its store is as good as ours.
            if self.dir.join(NODE_CERT).exists() {
                return Ok(());
            }
            return Err(Error::file("create", &self.dir, error));
        }
        sync_dir(parent)
    }

    /// Issues the node's certificate anew, with the key, the name and the roles that it had.
    fn renew(&self, old: &Credentials) -> Result<()> {
        let key = self.read_secret(NODE_KEY)?;
        let issued = self
            .authority()?
            .renew(&key, old.name(), old.roles(), NODE_LIFETIME)?;
        let partial = self.dir.join(format!(".{}.partial", unique(&issued)));
        write_private(&partial, &issued.cert_pem)?;
        let cert = self.dir.join(NODE_CERT);
        fs::rename(&partial, &cert).map_err(|error| Error::file("replace", &cert, error))?;
        sync_dir(&self.dir)
    }

    fn read(&self) -> Result<Credentials> {
        Credentials::from_pem(
            &self.dir,
            &self.read_file(AUTHORITY_CERT)?,
            &self.read_file(NODE_CERT)?,
            &self.read_secret(NODE_KEY)?,
            self.origin,
        )
    }

    /// Reads a file that nobody but its owner may be able to read.
    fn read_secret(&self, name: &str) -> Result<String> {
        let path = self.dir.join(name);
        let mode = fs::metadata(&path)
            .map_err(|error| Error::file("read", &path, error))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(Error::Certificate {
                path,
                why: format!("other users may use the key: its mode is {:03o}", mode & 0o777),
                hint: "Set it with chmod 600, or make new certificates if somebody may have read it",
            });
        }
        self.read_file(name)
    }

    fn read_file(&self, name: &str) -> Result<String> {
        let path = self.dir.join(name);
        let file = File::open(&path).map_err(|error| Error::file("read", &path, error))?;
        let mut text = String::new();
        file.take(FILE_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|error| Error::file("read", &path, error))?;
        Ok(text)
    }

    fn unusable(&self, error: &webpki::Error) -> Error {
        let (why, hint) = match error {
            webpki::Error::CertExpired { .. } => (
                "the certificate has expired".to_owned(),
                "Have its authority issue a new one",
            ),
            webpki::Error::CertNotValidYet { .. } => (
                "the certificate is not valid yet".to_owned(),
                "Check the clock of this machine",
            ),
            webpki::Error::UnknownIssuer => (
                "node.pem was not issued by ca.pem".to_owned(),
                "Put the files of one authority into the directory",
            ),
            other => (other.to_string(), "Have the authority issue a new certificate"),
        };
        Error::Certificate {
            path: self.dir.clone(),
            why,
            hint,
        }
    }
}

/// Digits that no other certificate has, for the name of a file that is not complete yet.
fn unique(issued: &Issued) -> String {
    blake3::hash(issued.cert_pem.as_bytes())
        .to_hex()
        .chars()
        .take(16)
        .collect()
}

/// Makes a directory, and those above it, that only its owner may enter.
fn private_dir(dir: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|error| Error::file("create", dir, error))
}

/// Writes and syncs a new file that only its owner may read.
fn write_private(path: &Path, text: &str) -> Result<()> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| Error::file("write", path, error))
}

fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(|error| Error::file("sync", dir, error))
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
