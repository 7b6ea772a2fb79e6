//! Installing a bulk ingest: one commit whose records lie in run files and never in the log.

use planaria_types::{KeyRange, TableId, Uid};

use super::flush::{NewRun, RunRefParts};
use super::rebase::{Layer, layered_version};
use super::{Store, Writer};
use crate::error::{Error, Result};
use crate::hash;
use crate::run::Run;
use crate::sync::Arc;

impl Store {
    /// Fails where an ingest into `table` would not be installed.
    pub(crate) fn check_ingest(&self, table: TableId) -> Result<()> {
        self.work().check_open()?;
        self.check_sound()?;
        self.check_gate()?;
        if table == TableId::SYSTEM {
            return Err(Error::Invalid("the system fragment is not written to directly".into()));
        }
        match self.pin().0.find(table, &[]) {
            Some(_) => Ok(()),
            None => Err(Error::UnknownTable { name: format!("#{table}") }),
        }
    }

    /// Makes complete run files of one commit, in the order of their keys, part of `table`, durably and in one step.
    /// Returns the UID of the commit.
    ///
    /// If anything fails before the manifest is in place, the files are removed and nothing has changed.
    pub(crate) fn install_ingest(&self, table: TableId, files: &[NewRun]) -> Result<Uid> {
        let installed = self.install_files(table, files);
        if installed.is_err() {
            self.discard(files);
        }
        installed
    }

    fn install_files(&self, table: TableId, files: &[NewRun]) -> Result<Uid> {
        self.check_ingest(table)?;
        // All that takes longer the more there is comes first: writers go on meanwhile.
        let opened =
            files.iter().map(|file| self.open_run(file.file, &file.meta)).collect::<Result<Vec<_>>>()?;
        self.sync_run_dir()?;
        self.flush_all()?;
        let mut writer = self.lock_writer();
        // The copy may have become a secondary, or its manifest unknown.
        self.check_ingest(table)?;
        self.begin_epoch_if_due(&writer)?;
        // The log begins anew behind the ingest, so that nothing before it may be in memory only.
        self.flush_at(&writer)?;
        self.check_flushed()?;
        let uid = self.draw_uid(&writer);
        self.reserve(&mut writer, uid)?;
        let content = hash::ingest_hash(table, files.iter().map(|file| &file.meta.content_hash));
        let state = Writer { last: uid, hash: hash::extend_history(writer.hash, uid, content), ..*writer };
        let above = writer.last;
        let layer = |(file, run): (&NewRun, Arc<Run>)| {
            let keys = KeyRange::inclusive(&file.meta.smallest_key, &file.meta.largest_key);
            let parts = RunRefParts { file: file.file, run: run.name_commit(uid)?, keys };
            Ok(Layer { table, parts, above, upto: uid })
        };
        let layers = files.iter().zip(opened).map(layer).collect::<Result<Vec<_>>>()?;
        self.rebase(&mut writer, state, |version| layered_version(version, &layers, uid), uid, |_| {})?;
        Ok(uid)
    }
}
