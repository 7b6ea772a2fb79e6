//! What the tests of runs share: a system in memory, and records that come from a seed.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use planaria_types::{FileId, InstanceId, Uid};

use super::{BlockCache, ReadMode, Run, RunIdentity, RunMeta, RunOptions, RunWriter};
use crate::cursor::RecordKind;
use crate::error::Result;
use crate::os::{DirEntry, DirLock, DiskSpace, OpenMode, Os, OsFile};
use crate::sync::Mutex;

/// The identity of the runs in tests.
pub(crate) const IDENTITY: RunIdentity =
    RunIdentity { store: InstanceId(0x5107_e5ee_d000), file: FileId(42) };

/// Files in memory, with what a run needs and no more. Every call leaves what it changed durable.
#[derive(Debug, Default)]
pub(crate) struct Files(Mutex<BTreeMap<PathBuf, Arc<File>>>);

/// One file in memory.
#[derive(Debug, Default)]
pub(crate) struct File(Mutex<Vec<u8>>);

impl Files {
    /// An empty system.
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The bytes of a file.
    pub(crate) fn bytes(&self, path: &Path) -> Vec<u8> {
        self.0.lock()[path].0.lock().clone()
    }

    /// Gives a file other bytes.
    pub(crate) fn put(&self, path: &Path, bytes: Vec<u8>) {
        self.0.lock().insert(path.to_path_buf(), Arc::new(File(Mutex::new(bytes))));
    }
}

impl Os for Files {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn OsFile>> {
        let mut files = self.0.lock();
        match (files.get(path), mode) {
            (Some(_), OpenMode::CreateNew) => Err(io::ErrorKind::AlreadyExists.into()),
            (Some(file), _) => Ok(Arc::clone(file) as Arc<dyn OsFile>),
            (None, OpenMode::CreateNew) => {
                let file = Arc::new(File::default());
                files.insert(path.to_path_buf(), Arc::clone(&file));
                Ok(file)
            }
            (None, _) => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.lock().remove(path).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn exists(&self, path: &Path) -> bool {
        self.0.lock().contains_key(path)
    }

    fn rename(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn exchange(&self, _one: &Path, _other: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn hard_link(&self, _from: &Path, _to: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn remove_dir_all(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn create_dir_all(&self, _path: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_dir(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    fn list(&self, _path: &Path) -> io::Result<Vec<DirEntry>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn lock(&self, _path: &Path) -> io::Result<Box<dyn DirLock>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn disk_space(&self, _path: &Path) -> io::Result<DiskSpace> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn now_millis(&self) -> u64 {
        0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn random_u64(&self) -> u64 {
        0
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_path_buf())
    }
}

impl OsFile for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let bytes = self.0.lock();
        let rest = bytes.get(offset as usize..).unwrap_or_default();
        let count = rest.len().min(buf.len());
        buf[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let mut bytes = self.0.lock();
        let end = offset as usize + buf.len();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(buf);
        Ok(())
    }

    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().resize(len as usize, 0);
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn map(&self, len: u64) -> io::Result<Option<Bytes>> {
        let bytes = self.0.lock();
        Ok(Some(Bytes::from_owner(bytes[..len as usize].to_vec())))
    }
}

/// Numbers that follow from a seed (`SplitMix64`).
#[derive(Clone, Debug)]
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    /// The next 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// Versions in the order of a run: the UID is counted down from the maximum, so that the newest comes first. `None`
/// is a delete.
pub(crate) type Records = BTreeMap<(Vec<u8>, u64), Option<Vec<u8>>>;

/// The place of a version in [`Records`].
pub(crate) fn place(key: &[u8], uid: Uid) -> (Vec<u8>, u64) {
    (key.to_vec(), u64::MAX - uid.get())
}

/// About `count` versions of keys that share prefixes, some with very many versions.
pub(crate) fn random_records(numbers: &mut Numbers, count: usize) -> Records {
    let mut records = Records::new();
    let base = numbers.next() >> numbers.below(60);
    while records.len() < count {
        let mut key = b"key/".repeat(numbers.below(3) as usize);
        key.extend((0..numbers.below(5)).map(|_| b"abc\xff\x00"[numbers.below(5) as usize]));
        let versions = if numbers.below(20) == 0 { numbers.below(80) } else { 1 + numbers.below(3) };
        for _ in 0..versions {
            let uid = Uid::new((base >> 1).saturating_add(numbers.below(2_000)));
            let row_bytes = if numbers.below(40) == 0 { numbers.below(3_000) } else { numbers.below(40) };
            let row = (numbers.below(4) > 0).then(|| {
                let byte = numbers.next() as u8;
                (0..row_bytes).map(|n| byte.wrapping_add((n % 7) as u8)).collect()
            });
            records.insert(place(&key, uid), row);
        }
        if numbers.below(50) == 0 {
            // More keys than the alphabet above has.
            let extra = numbers.next().to_be_bytes();
            records.insert(place(&extra, Uid::new(base >> 1)), Some(vec![7; 20]));
        }
    }
    records
}

/// Writes `records` to `path`.
pub(crate) fn write(
    files: &Arc<Files>,
    path: &Path,
    records: &Records,
    options: RunOptions,
) -> Result<RunMeta> {
    let os: Arc<dyn Os> = files.clone();
    let mut writer = RunWriter::create(&os, path, IDENTITY, options)?;
    for ((key, down), row) in records {
        let kind = if row.is_some() { RecordKind::Put } else { RecordKind::Delete };
        writer.add(key, Uid::new(u64::MAX - down), kind, row.as_deref().unwrap_or_default())?;
    }
    writer.finish()
}

/// Opens the run at `path` with a cache of its own.
pub(crate) fn open(files: &Arc<Files>, path: &Path, meta: &RunMeta, mode: ReadMode) -> Result<Arc<Run>> {
    let os: Arc<dyn Os> = files.clone();
    Run::open(&os, path, IDENTITY, meta, &Arc::new(BlockCache::new(1 << 20)), mode)
}
