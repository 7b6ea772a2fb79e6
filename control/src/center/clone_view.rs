//! What operators see of clones.

use planaria_net::wire::jobs::CloneJobInfo;

use super::Center;
use crate::catalog::{CloneRecord, CloneState};
use crate::{Error, Result};

/// Clones that one answer holds, at most.
const CLONES_MAX: usize = 10_000;

impl Center {
    /// The clones, youngest first.
    pub fn clone_infos(&self, limit: u32) -> Result<Vec<CloneJobInfo>> {
        let clones = self.catalog.clones(CLONES_MAX.min(limit as usize))?;
        // What each copy was found to be is told of one clone at a time.
        let brief = |clone| CloneJobInfo { reasons: Vec::new(), ..self.clone_job_info(clone) };
        Ok(clones.into_iter().map(brief).collect())
    }

    /// One clone.
    ///
    /// # Errors
    ///
    /// `unknown_clone`.
    pub fn clone_info(&self, number: u64) -> Result<CloneJobInfo> {
        let clone = self.catalog.clone_of(number)?;
        clone.map(|clone| self.clone_job_info(clone)).ok_or_else(|| {
            Error::refused(
                "unknown_clone",
                format!("no clone has the number {number}"),
                "`planaria cluster clone list` shows them",
            )
        })
    }

    fn clone_job_info(&self, clone: CloneRecord) -> CloneJobInfo {
        let live = self.clones_live.get(&clone.number);
        let waits = live.and_then(|live| live.waits.as_ref()).filter(|_| clone.state == CloneState::Queued);
        let (code, reason, reasons) = match waits {
            Some((why, reasons)) => (why.code().to_owned(), why.to_string(), reasons.clone()),
            None => (clone.code, clone.reason, clone.reasons),
        };
        let database = self.contents.databases.get(&clone.database);
        let is_complete = clone.state == CloneState::Complete;
        CloneJobInfo {
            job: clone.number,
            name: clone.name,
            database: database.map_or_else(|| clone.database.to_string(), |known| known.name.clone()),
            to: clone.node,
            role: clone.role,
            priority: clone.priority,
            state: clone.state.name().to_owned(),
            source: clone.source_node,
            done_bytes: live.map_or(if is_complete { clone.bytes } else { 0 }, |live| live.done_bytes),
            total_bytes: live.map_or(is_complete.then_some(clone.bytes), |live| live.total_bytes),
            bytes_per_s: live.and_then(|live| live.bytes_per_s).unwrap_or(clone.bytes_per_s),
            origin: clone.origin,
            submitted_ms: clone.submitted_ms,
            ended_ms: clone.ended_ms,
            shape: clone.shape,
            code,
            reason,
            reasons,
        }
    }
}
