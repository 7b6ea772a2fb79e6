//! A store of objects, as backups use it: small calls, whole objects, errors in our words.

use std::fmt;
use std::path::{Path as FilePath, PathBuf};
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use futures_util::future::{Either, select};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use crate::directory;
use crate::error::{Error, Result};

/// What is put and looked at to learn the store's time.
const CLOCK: &str = "clock";

/// A store of backups.
#[derive(Clone)]
pub struct Store {
    place: String,
    /// The directory, where the store is one.
    root: Option<PathBuf>,
    objects: Arc<dyn ObjectStore>,
    toll: Option<Arc<dyn Toll>>,
}

/// Whoever says how fast objects may come and go. It is asked before each one that is brought, and behind each one that was taken.
pub trait Toll: Send + Sync {
    /// Counts bytes, and waits as long as they take.
    ///
    /// # Errors
    ///
    /// [`Error::Cancelled`] has whatever goes on be given up.
    fn pay(&self, bytes: u64) -> Pin<Box<dyn Future<Output = Result<()>> + Send + '_>>;

    /// Comes to its end once whatever goes on is to be given up: a store that does not answer is not waited for then.
    fn given_up(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("place", &self.place).finish_non_exhaustive()
    }
}

/// An object, as a listing tells it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) len: u64,
    /// By the store's clock, in milliseconds since 1970.
    pub(crate) modified_ms: u64,
}

impl Store {
    /// The store in a directory.
    pub(crate) fn directory(place: String, path: &FilePath, create: bool) -> Result<Self> {
        let refused = |error: std::io::Error| {
            let why = error.to_string();
            match error.kind() {
                std::io::ErrorKind::NotFound => Error::NoStore { place: place.clone(), why },
                std::io::ErrorKind::PermissionDenied => {
                    Error::Denied { place: place.clone(), object: "the directory".into(), why }
                }
                _ => Error::Store { what: "open", place: place.clone(), object: "the directory".into(), why },
            }
        };
        if create {
            std::fs::create_dir_all(path).map_err(refused)?;
        }
        let root = std::fs::canonicalize(path).map_err(refused)?;
        if root.join("MANIFEST").exists() {
            let why = "a database lies there: a store is a directory of its own".to_owned();
            return Err(Error::NoStore { place, why });
        }
        let objects = LocalFileSystem::new_with_prefix(&root)
            .map_err(|error| told(&place, "open", "the directory", &error))?
            .with_automatic_cleanup(true);
        Ok(Self { place, root: Some(root), objects: Arc::new(objects), toll: None })
    }

    #[cfg(feature = "s3")]
    pub(crate) fn bucket(place: String, bucket: &str, prefix: &str, access: &crate::Access) -> Result<Self> {
        let objects = s3::open(&place, bucket, access)?;
        let objects: Arc<dyn ObjectStore> = if prefix.is_empty() {
            Arc::new(objects)
        } else {
            Arc::new(object_store::prefix::PrefixStore::new(objects, prefix))
        };
        Ok(Self { place, root: None, objects, toll: None })
    }

    /// The same store, with somebody who says how fast objects may come and go.
    #[must_use]
    pub fn with_toll(self, toll: Arc<dyn Toll>) -> Self {
        Self { toll: Some(toll), ..self }
    }

    async fn pay(&self, bytes: u64) -> Result<()> {
        match &self.toll {
            Some(toll) => toll.pay(bytes).await,
            None => Ok(()),
        }
    }

    /// Waits for the store, unless it is given up meanwhile. What it does then it does without us.
    async fn heed<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        let Some(toll) = &self.toll else { return Ok(work.await) };
        match select(pin!(work), toll.given_up()).await {
            Either::Left((done, _)) => Ok(done),
            Either::Right(_) => Err(Error::Cancelled),
        }
    }

    /// What it is called.
    pub fn place(&self) -> &str {
        &self.place
    }

    fn told(&self, what: &'static str, object: &str, error: &object_store::Error) -> Error {
        told(&self.place, what, object, error)
    }

    /// Puts an object, over an existing one if there is one. It is durable when this returns.
    pub(crate) async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.pay(bytes.len() as u64).await?;
        if self.root.is_some() {
            return self.put_file(path, bytes, true).await.map(drop);
        }
        let put = self.heed(self.objects.put(&Path::from(path), bytes.into())).await?;
        put.map(drop).map_err(|error| self.told("write", path, &error))
    }

    /// Puts an object unless there is one; tells whether there was none.
    pub(crate) async fn put_new(&self, path: &str, bytes: Bytes) -> Result<bool> {
        if self.root.is_some() {
            return self.put_file(path, bytes, false).await;
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.heed(self.objects.put_opts(&Path::from(path), bytes.into(), options)).await? {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                Ok(false)
            }
            Err(error) => Err(self.told("write", path, &error)),
        }
    }

    /// The same in a directory: what keeps objects there names files before they are on the disk.
    async fn put_file(&self, path: &str, bytes: Bytes, replace: bool) -> Result<bool> {
        let own = path.to_owned();
        self.on_disk("write", path, move |root| directory::put(root, &own, &bytes, replace)).await
    }

    /// Makes the name of an object durable that an attempt before this one has put, which may have ended before it did.
    pub(crate) async fn keep(&self, path: &str) -> Result<()> {
        let own = path.to_owned();
        self.on_disk("sync", path, move |root| directory::sync_above(root, &root.join(own))).await
    }

    /// Does something in the directory, if the store is one.
    async fn on_disk<T: Default + Send + 'static>(
        &self,
        what: &'static str,
        path: &str,
        work: impl FnOnce(&FilePath) -> std::io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(root) = self.root.clone() else { return Ok(T::default()) };
        let done = self.heed(tokio::task::spawn_blocking(move || work(&root))).await?;
        let done = done.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        done.map_err(|error| {
            let (place, object, why) = (self.place.clone(), path.to_owned(), error.to_string());
            match error.kind() {
                std::io::ErrorKind::PermissionDenied => Error::Denied { place, object, why },
                _ => Error::Store { what, place, object, why },
            }
        })
    }

    /// An object of at most so many bytes.
    pub(crate) async fn get(&self, path: &str, len_max: u64) -> Result<Bytes> {
        let failed = |error| match error {
            object_store::Error::NotFound { .. } if !is_about_bucket(&error) => {
                Error::Missing { object: path.to_owned() }
            }
            error => self.told("read", path, &error),
        };
        let found = self.heed(self.objects.get(&Path::from(path))).await?.map_err(failed)?;
        if found.meta.size > len_max {
            let what = format!("it has {} bytes, of at most {len_max}", found.meta.size);
            return Err(Error::Damaged { object: path.to_owned(), what });
        }
        let bytes = self.heed(found.bytes()).await?.map_err(failed)?;
        self.pay(bytes.len() as u64).await?;
        Ok(bytes)
    }

    /// Removes an object, if there is one.
    pub(crate) async fn delete(&self, path: &str) -> Result<()> {
        match self.heed(self.objects.delete(&Path::from(path))).await? {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.told("remove", path, &error)),
        }
    }

    /// The objects below a folder, in the order of their names.
    pub(crate) async fn list(&self, folder: &str) -> Result<Vec<Entry>> {
        let listing = self.objects.list(Some(&Path::from(folder)));
        let entry = |meta: object_store::ObjectMeta| Entry {
            path: meta.location.to_string(),
            len: meta.size,
            modified_ms: u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0),
        };
        let found = self.heed(listing.map_ok(entry).try_collect::<Vec<_>>()).await?;
        let mut found = found.map_err(|error| self.told("list", folder, &error))?;
        found.sort_unstable_by(|left, right| left.path.cmp(&right.path));
        Ok(found)
    }

    /// The store's own time, in milliseconds since 1970: what its objects are dated by.
    pub(crate) async fn now_ms(&self) -> Result<u64> {
        self.put(CLOCK, Bytes::from_static(b"what time is it")).await?;
        let found = self.heed(self.objects.head(&Path::from(CLOCK))).await?;
        let found = found.map_err(|error| self.told("read", CLOCK, &error))?;
        Ok(u64::try_from(found.last_modified.timestamp_millis()).unwrap_or(0))
    }
}

fn is_about_bucket(error: &object_store::Error) -> bool {
    let text = error.to_string();
    text.contains("NoSuchBucket") || text.contains("bucket does not exist")
}

/// Whether the disk of a directory is full.
fn is_about_room(error: &object_store::Error) -> bool {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let mut answers = causes.filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    answers.any(|answer| answer.kind() == std::io::ErrorKind::StorageFull)
}

/// A store's error in our words.
fn told(place: &str, what: &'static str, object: &str, error: &object_store::Error) -> Error {
    let (place, object, why) = (place.to_owned(), object.to_owned(), error.to_string());
    match error {
        _ if is_about_bucket(error) => Error::NoStore { place, why },
        _ if is_about_room(error) => Error::NoSpace { what, place, object },
        object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. } => {
            Error::Denied { place, object, why }
        }
        // What was tried again and again, and whatever has no answer of the store in it.
        object_store::Error::Generic { .. }
            if why.contains("error sending request")
                || why.contains("retries")
                || why.contains("connect") =>
        {
            Error::Unreachable { place, why }
        }
        _ => Error::Store { what, place, object, why },
    }
}

#[cfg(feature = "s3")]
mod s3 {
    use std::time::Duration;

    use object_store::aws::{AmazonS3, AmazonS3Builder};
    use object_store::{ClientOptions, RetryConfig};

    use crate::error::{Error, Result};
    use crate::place::Access;

    /// Variables any of which tells who we are. Without them a request would wait for a service of Amazon's machines.
    const CREDENTIALS: [&str; 5] = [
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_METADATA_ENDPOINT",
    ];

    pub(super) fn open(place: &str, bucket: &str, access: &Access) -> Result<AmazonS3> {
        let known =
            CREDENTIALS.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
        if access.access_key.is_none() && !known {
            return Err(Error::NoCredentials { place: place.to_owned() });
        }
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
        let endpoint = access.endpoint.clone().or_else(|| std::env::var("AWS_ENDPOINT_URL").ok());
        if let Some(endpoint) = endpoint {
            builder = builder.with_allow_http(endpoint.starts_with("http://")).with_endpoint(endpoint);
        }
        if let Some(region) = &access.region {
            builder = builder.with_region(region);
        }
        if let (Some(key), Some(secret)) = (&access.access_key, &access.secret_key) {
            builder = builder.with_access_key_id(key).with_secret_access_key(secret);
        }
        // An object of 16 MiB may take a while on a slow line; a dead one is found by the connection.
        let client = ClientOptions::new()
            .with_connect_timeout(Duration::from_secs(5))
            .with_timeout(Duration::from_mins(5));
        let retry =
            RetryConfig { max_retries: 6, retry_timeout: Duration::from_secs(30), ..RetryConfig::default() };
        // Settings of ours replace the client's as a whole, so what the builder was told of HTTP is told again.
        let builder = builder.with_client_options(client.with_allow_http(plain_http(access)));
        builder
            .with_retry(retry)
            .build()
            .map_err(|error| Error::Place { place: place.to_owned(), why: error.to_string() })
    }

    fn plain_http(access: &Access) -> bool {
        let named = access.endpoint.clone().or_else(|| {
            ["AWS_ENDPOINT_URL", "AWS_ENDPOINT"].iter().find_map(|name| std::env::var(name).ok())
        });
        named.is_some_and(|endpoint| endpoint.starts_with("http://"))
    }
}
