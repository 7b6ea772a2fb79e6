use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::store::Store;

/// Where backups are kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A directory.
    Directory(PathBuf),
    /// A bucket of a store that speaks S3.
    Bucket {
        /// The bucket.
        bucket: String,
        /// What the names of its objects begin with; may be empty.
        prefix: String,
    },
}

/// How a bucket is reached. What is not given here comes from the environment: `AWS_ENDPOINT`, `AWS_REGION`,
/// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN` and what else is usual.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Access {
    /// The address of the service, where it is not the one of Amazon.
    pub endpoint: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// Who asks.
    pub access_key: Option<String>,
    /// What proves it.
    pub secret_key: Option<String>,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The secret is for nobody's log.
        f.debug_struct("Access")
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| Err(Error::Place { place: text.to_owned(), why: why.to_owned() });
        match text.split_once("://") {
            None if text.is_empty() => wrong("it is empty"),
            None => Ok(Self::Directory(text.into())),
            Some(("file", path)) if path.starts_with('/') => Ok(Self::Directory(path.into())),
            Some(("file", _)) => wrong("a path behind file:// begins with a slash"),
            Some(("s3", rest)) => {
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return wrong("it names no bucket");
                }
                Ok(Self::Bucket { bucket: bucket.to_owned(), prefix: prefix.trim_matches('/').to_owned() })
            }
            Some((scheme, _)) => wrong(&format!("{scheme}:// is not known")),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Bucket { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl Place {
    /// Opens the store. A directory is made if `create` says so; a bucket never is.
    ///
    /// # Errors
    ///
    /// `NoStore` if there is no such directory, `NoCredentials` if there are none for a bucket, `Place` for a bucket where
    /// the program was built without S3. Whether a bucket is there is seen with the first request.
    pub fn open(&self, access: &Access, create: bool) -> Result<Store> {
        match self {
            Self::Directory(path) => Store::directory(self.to_string(), path, create),
            #[cfg(feature = "s3")]
            Self::Bucket { bucket, prefix } => Store::bucket(self.to_string(), bucket, prefix, access),
            #[cfg(not(feature = "s3"))]
            Self::Bucket { .. } => {
                let _ = access;
                let why = "this program was built without S3; build it with --features s3".to_owned();
                Err(Error::Place { place: self.to_string(), why })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn places_are_read_and_written() {
        for (text, shown) in [
            ("backups", "backups"),
            ("file:///srv/backups", "/srv/backups"),
            ("s3://bucket", "s3://bucket"),
            ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), shown);
        }
        for text in ["", "file://relative", "s3://", "s3:///x", "gs://bucket"] {
            assert_eq!(text.parse::<Place>().unwrap_err().code(), "usage", "{text}");
        }
    }
}
