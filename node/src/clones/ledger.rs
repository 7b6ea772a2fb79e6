use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use planaria_engine::os::Os;
use planaria_engine::{ClonePurpose, Result, SealedFile};
use planaria_net::wire::message::Shape;
use planaria_types::Uid;
use serde::{Deserialize, Serialize};

/// Where the ledger lies within a node's directory. Directories of that name go with the node when run files replace it.
pub(crate) const DIRECTORY: &str = "clones";
const LEDGER: &str = "LEDGER";
const FORMAT: SealedFile = SealedFile { magic: *b"PLNRCLNS", version: 1, bytes_max: 64 << 20 };

/// A clone that a node is to take.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CloneJob {
    /// What it is called.
    pub(crate) name: String,
    /// Its directory.
    pub(crate) dir: PathBuf,
    /// Where it may be taken from, the best first.
    pub(crate) sources: Vec<SocketAddr>,
    /// What it is for.
    pub(crate) purpose: ClonePurpose,
    /// The greatest rate, in bytes a second.
    pub(crate) rate_bytes_per_s: Option<u64>,
    /// How long it lives once it is complete, in seconds.
    pub(crate) ttl_s: Option<u64>,
    /// Whether it takes the place of a clone that is there.
    pub(crate) replace: bool,
    /// Tables of that clone whose rows it takes over.
    pub(crate) preserve: Vec<String>,
    /// After how many seconds without a byte it has failed.
    pub(crate) patience_s: u32,
    /// What the source makes of its rows for it.
    pub(crate) shape: Shape,
    /// Whether it is read while it comes in.
    pub(crate) lazy: bool,
}

/// The number of the control center's job by which a clone was ordered, as its name says: names that somebody chooses are none of
/// these.
pub(crate) fn order_of(name: &str) -> Option<u64> {
    name.rsplit_once('#').and_then(|(_, number)| number.parse().ok())
}

/// How it is with a clone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) enum CloneState {
    /// It waits until others are done.
    #[default]
    Queued,
    /// It comes in.
    Running,
    /// It is whole.
    Complete,
    /// It cannot be had.
    Failed,
    /// Somebody gave it up.
    Cancelled,
    /// Its time is over.
    Expired,
}

impl CloneState {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Complete => "complete",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Expired => "expired",
        }
    }

    /// Whether nothing more becomes of it by itself.
    pub(crate) fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// What is remembered of a clone.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// What is to be.
    pub(crate) job: CloneJob,
    /// How it is.
    pub(crate) state: CloneState,
    /// When it was asked for, in milliseconds since 1970.
    pub(crate) created_ms: u64,
    /// Where its bytes come from, or came from.
    pub(crate) source: Option<SocketAddr>,
    /// The state that was cloned.
    pub(crate) cut: Option<Uid>,
    /// Bytes in all.
    pub(crate) total_bytes: Option<u64>,
    /// Bytes that came over the network, over all attempts.
    pub(crate) moved_bytes: u64,
    /// Bytes that an earlier attempt had brought, at the last one.
    pub(crate) resumed_bytes: u64,
    /// Bytes that were here before.
    pub(crate) linked_bytes: u64,
    /// When its life ends, in milliseconds since 1970.
    pub(crate) expires_ms: Option<u64>,
    /// The way that it came, and why that.
    pub(crate) way: String,
    /// What happened, oldest first.
    pub(crate) reasons: Vec<String>,
}

/// The clones of a node in its directory: one small file, replaced as a whole.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    dir: PathBuf,
    os: Arc<dyn Os>,
}

impl Ledger {
    /// The ledger of the node whose database lies in `node_dir`.
    pub(crate) fn of(node_dir: &Path, os: Arc<dyn Os>) -> Self {
        Self { dir: node_dir.join(DIRECTORY), os }
    }

    /// What was written last; nothing if nothing was.
    pub(crate) fn read(&self) -> Result<Vec<Entry>> {
        Ok(FORMAT.read(&self.os, &self.dir.join(LEDGER))?.unwrap_or_default())
    }

    /// Remembers this from now on, durably.
    pub(crate) fn write(&self, entries: &[&Entry]) -> Result<()> {
        if !self.os.exists(&self.dir) {
            let failed = |what| {
                move |error| planaria_engine::Error::Io {
                    what,
                    path: self.dir.clone(),
                    source: Arc::new(error),
                }
            };
            self.os.create_dir_all(&self.dir).map_err(failed("create"))?;
            if let Some(parent) = self.dir.parent() {
                self.os.sync_dir(parent).map_err(failed("sync the directory of"))?;
            }
        }
        FORMAT.write(&self.os, &self.dir.join(LEDGER), &entries)
    }
}

#[cfg(test)]
mod tests {
    use planaria_engine::os::Posix;

    use super::*;

    #[test]
    fn a_job_is_known_by_the_name_of_its_clone() {
        assert_eq!(
            ["copy#7", "a#b#12", "copy", "copy#", "copy#x"].map(order_of),
            [Some(7), Some(12), None, None, None]
        );
    }

    #[test]
    fn it_is_read_as_it_was_written_and_has_the_bytes_of_version_1() {
        let job = CloneJob {
            name: "birds".into(),
            dir: "/srv/birds".into(),
            sources: vec![([10, 0, 0, 1], 4747).into()],
            purpose: ClonePurpose::Standby,
            rate_bytes_per_s: Some(1 << 20),
            ttl_s: Some(3_600),
            replace: true,
            preserve: vec!["settings".into()],
            patience_s: 600,
            shape: Shape {
                leave_out: vec!["audit".into()],
                masks: vec![("people".into(), "mail".into(), "hash".into())],
                ..Shape::default()
            },
            lazy: true,
        };
        let entry = Entry {
            state: CloneState::Complete,
            created_ms: 1_000,
            source: job.sources.first().copied(),
            cut: Some(Uid::new(7)),
            total_bytes: Some(5_000),
            moved_bytes: 4_000,
            resumed_bytes: 600,
            linked_bytes: 400,
            expires_ms: Some(9_000),
            way: "whole: there was nothing before".into(),
            reasons: vec!["10.0.0.1:4747: no answer".into()],
            job,
        };
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::of(dir.path(), Arc::new(Posix));
        assert_eq!(ledger.read().unwrap(), []);
        ledger.write(&[&entry]).unwrap();
        assert_eq!(ledger.read().unwrap(), [entry]);
        let written = std::fs::read(dir.path().join(DIRECTORY).join(LEDGER)).unwrap();
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join("clones-1");
        if std::env::var_os("PLANARIA_GOLDEN").is_some_and(|word| word == "write") {
            std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
            std::fs::write(&golden, &written).unwrap();
        }
        assert_eq!(written, std::fs::read(golden).unwrap());

        std::fs::write(dir.path().join(DIRECTORY).join(LEDGER), &written[..written.len() - 1]).unwrap();
        assert_eq!(ledger.read().unwrap_err().code(), "damaged");
    }
}
