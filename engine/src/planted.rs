//! Faults that can be planted in the store, to prove that the tests would notice them.

/// A fault that the simulation of whole nodes must catch. Each is one line left out, or a wrong one in its place.
#[cfg(feature = "planted")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// The log is called durable without a sync.
    SkipLogSync,
    /// The names of new run files are not synced before the manifest names them.
    SkipRunDirSync,
    /// The manifest is written over the one before, instead of beside it.
    ManifestInPlace,
    /// Log segments are released that hold what is in memory only.
    ReleaseLogEarly,
    /// A merge drops delete marks that registered secondaries need, and does not raise the mark floor.
    DropMarksEarly,
    /// A start draws UIDs that the one before may have used.
    ReuseUid,
    /// A secondary shows all of its log when it starts.
    ShowAllAtStart,
    /// A refresh is installed without what came live.
    InstallHalf,
    /// The promise to follow no older epoch is kept in memory only.
    LosePromise,
    /// A resumed clone takes what lies where a chunk belongs for the chunk.
    ResumeUnchecked,
    /// A delta goes on behind a record that was not sent.
    LoseCursor,
    /// A secondary tells as durable what it only appended.
    AckUnsynced,
    /// A primary tells as durable what it only appended.
    TellUnsynced,
    /// What interrupted the exchange of a copy for its successor is not mended at the next start.
    SkipSettle,
    /// A batch that comes again is committed again.
    ForgetTokens,
}

/// Whether a fault is planted; never without the feature.
macro_rules! planted {
    ($options:expr, $fault:ident) => {{
        #[cfg(feature = "planted")]
        let planted = $options.planted == Some($crate::Planted::$fault);
        #[cfg(not(feature = "planted"))]
        let planted = {
            let _ = &$options;
            false
        };
        planted
    }};
}
pub(crate) use planted;
