//! What a refresh or a reconcile has collected so far, kept over the end of the process. See FORMAT.md, "The kept refresh".

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use planaria_types::{FileId, HistoryHash, InstanceId, KeyRange, Portion, TableId, Uid};
use serde::{Deserialize, Serialize};

use super::rebase::Changed;
use super::{NewRun, Store};
use crate::error::{Error, Result};
use crate::os::{OpenMode, Os};
use crate::refresh::RefreshMark;
use crate::sealed::{SealedFile, beside};
use crate::sync::Arc;
use crate::version::{Manifest, Role, RunRecord, run_path};

/// The file within a store's directory.
const REFRESH: &str = "REFRESH";
const FORMAT: SealedFile = SealedFile { magic: *b"PLNRRFSH", version: 2, bytes_max: 16 << 20 };

/// What goes on in a later process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Kept {
    /// Whose it is.
    instance: InstanceId,
    /// What was to be held of it, if the copy is partial: of another portion other records are missing.
    portion: Option<Portion>,
    collected: Collected,
}

#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
enum Collected {
    Delta(KeptRefresh),
    Ranges(KeptRanges),
}

/// What a refresh has collected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct KeptRefresh {
    /// The state that it is on top of.
    pub(crate) from: Uid,
    pub(crate) hash: HistoryHash,
    /// How far it has come.
    pub(crate) mark: RefreshMark,
    pub(crate) records: u64,
    pub(crate) boundaries: KeptBoundaries,
    /// Run files, oldest first.
    pub(crate) runs: Vec<KeptRun>,
}

/// What a reconcile has replaced. On top of whatever state it is put, fingerprints tell what still differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct KeptRanges {
    pub(crate) base: Uid,
    pub(crate) records: u64,
    pub(crate) boundaries: KeptBoundaries,
    pub(crate) runs: Vec<RunRecord>,
    /// The ranges, and which of the runs has the records of each, if there are any.
    pub(crate) pieces: Vec<(TableId, KeyRange, Option<u32>)>,
}

/// System records among what was collected, as (key, row).
type KeptBoundaries = Vec<(Vec<u8>, Vec<u8>)>;

pub(crate) fn kept_boundaries(boundaries: &[(Bytes, Bytes)]) -> KeptBoundaries {
    boundaries.iter().map(|(key, row)| (key.to_vec(), row.to_vec())).collect()
}

pub(crate) fn boundaries_of(kept: KeptBoundaries) -> Vec<(Bytes, Bytes)> {
    kept.into_iter().map(|(key, row)| (key.into(), row.into())).collect()
}

/// A run file of a refresh.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct KeptRun {
    table: TableId,
    run: RunRecord,
    above: Uid,
    upto: Uid,
}

impl KeptRun {
    /// What was collected in a round whose base is `base`, or in one before it.
    pub(crate) fn of(changed: &Changed, base: Uid) -> Self {
        let NewRun { file, meta } = changed.run.clone();
        let run = RunRecord { file, meta };
        Self { table: changed.table, run, above: changed.above, upto: changed.upto.unwrap_or(base) }
    }

    pub(crate) fn changed(self) -> Changed {
        let RunRecord { file, meta } = self.run;
        Changed { table: self.table, run: NewRun { file, meta }, above: self.above, upto: Some(self.upto) }
    }
}

impl KeptRefresh {
    pub(crate) fn files(&self) -> impl Iterator<Item = FileId> {
        self.runs.iter().map(|kept| kept.run.file)
    }
}

impl Kept {
    fn runs(&self) -> Vec<&RunRecord> {
        match &self.collected {
            Collected::Delta(delta) => delta.runs.iter().map(|kept| &kept.run).collect(),
            Collected::Ranges(ranges) => ranges.runs.iter().collect(),
        }
    }

    /// The run files that it consists of.
    pub(super) fn files(&self) -> impl Iterator<Item = FileId> {
        self.runs().into_iter().map(|run| run.file)
    }

    /// What the instance of the manifest has kept in `dir`, if all of it is there and none of it has been installed: a power cut
    /// brings back what was removed then. Anything else is worth nothing: a refresh begins anew.
    ///
    /// # Errors
    ///
    /// `Io`: what cannot be read now may be worth something later.
    pub(super) fn read(os: &Arc<dyn Os>, dir: &Path, manifest: &Manifest) -> Result<Option<Self>> {
        let kept: Self = match FORMAT.read(os, &dir.join(REFRESH)) {
            Ok(Some(kept)) => kept,
            Ok(None) | Err(Error::Damaged { .. } | Error::Foreign { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let installed: HashSet<FileId> = manifest.runs.iter().map(|run| run.file).collect();
        let mut is_whole = kept.instance == manifest.instance;
        for run in kept.runs() {
            let path = run_path(dir, run.file);
            let len = match os.open(&path, OpenMode::Read).and_then(|file| file.len()) {
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                len => Some(len.map_err(|error| Error::io("measure", &path, error))?),
            };
            is_whole &= !installed.contains(&run.file) && len == Some(run.meta.len);
        }
        Ok(is_whole.then_some(kept))
    }
}

impl Store {
    fn kept_path(&self) -> PathBuf {
        self.dir.join(REFRESH)
    }

    /// What is kept and of use to what the store holds now.
    fn kept(&self) -> Result<Option<Kept>> {
        let kept = Kept::read(&self.options.os, &self.dir, &self.manifest())?;
        let is_of_use = |kept: &Kept| match &kept.collected {
            Collected::Delta(delta) => (delta.from, delta.hash) == self.log_end(),
            Collected::Ranges(_) => true,
        };
        Ok(kept.filter(|kept| self.role() == Role::Secondary && is_of_use(kept)))
    }

    /// What is kept of a refresh, if it is on top of what the store holds now, and the portion that it is of.
    pub(crate) fn kept_refresh(&self) -> Option<(KeptRefresh, Option<Portion>)> {
        match self.kept() {
            Ok(Some(Kept { portion, collected: Collected::Delta(delta), .. })) => Some((delta, portion)),
            _ => None,
        }
    }

    /// What is kept of a reconcile, and the portion that it is of.
    pub(crate) fn kept_ranges(&self) -> Option<(KeptRanges, Option<Portion>)> {
        match self.kept() {
            Ok(Some(Kept { portion, collected: Collected::Ranges(ranges), .. })) => Some((ranges, portion)),
            _ => None,
        }
    }

    /// Keeps a refresh, whose run files are synced, in place of what was kept; see [`Store::keep_ranges`].
    pub(crate) fn keep_refresh(&self, kept: KeptRefresh, portion: Option<Portion>) -> Result<bool> {
        self.keep(Collected::Delta(kept), portion)
    }

    /// Keeps a reconcile, whose run files are synced, in place of what was kept, durably. Whether it is: what has grown beyond
    /// what one file tells is not, and what was kept before is.
    pub(crate) fn keep_ranges(&self, kept: KeptRanges, portion: Option<Portion>) -> Result<bool> {
        self.keep(Collected::Ranges(kept), portion)
    }

    fn keep(&self, collected: Collected, portion: Option<Portion>) -> Result<bool> {
        let kept = Kept { instance: self.instance(), portion, collected };
        let Ok(bytes) = FORMAT.encode(&kept) else { return Ok(false) };
        if self.role() == Role::Primary {
            return Ok(false);
        }
        self.sync_run_dir()?;
        SealedFile::put(&self.options.os, &self.kept_path(), &bytes)?;
        Ok(true)
    }

    /// Keeps nothing any more. Run files that the store does not consist of stay for whoever has them.
    pub(crate) fn keep_nothing(&self) -> Result<()> {
        let (os, path) = (&self.options.os, self.kept_path());
        let new = beside(&path, ".new");
        if !os.exists(&path) && !os.exists(&new) {
            return Ok(());
        }
        for path in [path, new].iter().filter(|path| os.exists(path)) {
            os.remove_file(path).map_err(Self::io("remove", path))?;
        }
        os.sync_dir(&self.dir).map_err(Self::io("sync", &self.dir))
    }

    /// Drops what is kept, with its run files.
    pub(crate) fn drop_kept(&self) -> Result<()> {
        // While it is not known what the manifest on the disk names, nothing goes.
        self.check_sound()?;
        let kept = Kept::read(&self.options.os, &self.dir, &self.manifest())?;
        self.keep_nothing()?;
        for file in kept.iter().flat_map(Kept::files) {
            let path = run_path(&self.dir, file);
            self.options.os.remove_file(&path).map_err(Self::io("remove", &path))?;
        }
        Ok(())
    }

    /// Drops what is kept, unless it is of use to what the store holds.
    pub(super) fn settle_kept(&self) -> Result<()> {
        if self.kept()?.is_some() { Ok(()) } else { self.drop_kept() }
    }
}

/// What the fuzz target needs.
#[cfg(any(test, feature = "testing"))]
pub(crate) mod fuzzing {
    use crate::sealed::HEADER_BYTES;

    pub(crate) const NAME: &str = super::REFRESH;

    /// The same file with a checksum that holds.
    pub(crate) fn resealed(file: &[u8]) -> Vec<u8> {
        super::FORMAT.wrap(file.get(HEADER_BYTES..).unwrap_or_default())
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "kept_tests.rs"]
mod tests;
