use crate::Millis;

/// The limits and times of the protocol, the same for both roles.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Options {
    /// Bytes of commits that a primary has under way to one secondary, sent and not yet confirmed as received.
    pub live_window_bytes: u64,
    /// Bytes of commits in one live message; one commit that is larger goes alone.
    pub live_batch_bytes: u64,
    /// Bytes of records in one delta chunk or answer to a rewind; one record that is larger goes alone.
    pub chunk_bytes: u64,
    /// The size at which an answer to a rewind is sent, in bytes. One is under way at a time.
    pub rewind_reply_bytes: u64,
    /// Delta chunks under way or not yet stored at the receiver.
    pub chunks_in_flight: u32,
    /// Bytes of a delta after which what has come is kept over the end of the process.
    pub refresh_mark_bytes: u64,
    /// The time after which it is kept though it is less than that, but at least a quarter: each time a run file ends.
    pub refresh_mark_after: Millis,
    /// Bytes of commits that a secondary holds while it is refreshed, before it goes on without the live stream.
    pub held_bytes_max: u64,
    /// Bytes of keys in one request of a rewind.
    pub rewind_request_bytes: u64,
    /// Parts that all tables are cut into, each, for the first comparison of a reconcile.
    pub compare_first_parts: u32,
    /// Parts that a range which differs is cut into after that.
    pub compare_parts: u32,
    /// A part that differs is replaced rather than cut further if it holds no more records than this.
    pub compare_leaf_records: u64,
    /// Ranges that one question of a comparison asks for.
    pub compare_spans: u32,
    /// Rounds of a partial copy begin no faster than this.
    pub rounds_apart: Millis,
    /// Below this many bytes of run files a bulk refresh is never chosen for its cost.
    pub bulk_bytes_min: u64,
    /// Up to this many bytes of log a tail is never passed over for its cost.
    pub tail_bytes_free: u64,
    /// A side that has sent nothing for this long sends a heartbeat.
    pub heartbeat: Millis,
    /// A side that has heard nothing for this long ends the session.
    pub session_timeout: Millis,
    /// A promotable copy that has been away for this long leaves the promotable set.
    pub leave_after: Millis,
    /// A fault to plant, for the tests of the tests.
    #[cfg(feature = "planted")]
    pub planted: Option<Planted>,
}

impl Options {
    /// Whether a refresh that has taken in so many bytes since it was kept last is to be kept for a later process now.
    pub fn is_mark_due(&self, bytes: u64, after: Millis) -> bool {
        let is_late = after >= self.refresh_mark_after && bytes > 0 && bytes >= self.refresh_mark_bytes / 4;
        is_late || bytes >= self.refresh_mark_bytes
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            live_window_bytes: 8 << 20,
            live_batch_bytes: 256 << 10,
            chunk_bytes: 256 << 10,
            rewind_reply_bytes: 1 << 20,
            chunks_in_flight: 32,
            refresh_mark_bytes: 64 << 20,
            refresh_mark_after: Millis(10_000),
            held_bytes_max: 256 << 20,
            rewind_request_bytes: 256 << 10,
            compare_first_parts: 512,
            compare_parts: 8,
            compare_leaf_records: 32,
            compare_spans: 1_024,
            rounds_apart: Millis(200),
            bulk_bytes_min: 64 << 20,
            tail_bytes_free: 16 << 20,
            heartbeat: Millis(1_000),
            session_timeout: Millis(5_000),
            leave_after: Millis(30_000),
            #[cfg(feature = "planted")]
            planted: None,
        }
    }
}

/// A fault that the simulation must catch.
#[cfg(feature = "planted")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Planted {
    /// A secondary acknowledges what it appended, before it is durable.
    AckBeforeDurable,
    /// A secondary shows what its primary could still lose.
    ShowBeyondPrimaryDurable,
    /// A secondary appends commits whose predecessor it does not have.
    IgnoreGap,
    /// A secondary follows a primary of an epoch older than the one it promised.
    AcceptOlderEpoch,
    /// A secondary answers under a new epoch without having made it durable.
    ForgetEpoch,
    /// What a copy showed beyond the fork is dropped instead of quarantined.
    SkipQuarantine,
    /// A delta is installed below its highest chunk snapshot.
    InstallTooLow,
    /// A delta is installed before its last chunk came.
    InstallHalf,
    /// A delta is served from a position below the mark floor.
    DeltaBelowMarkFloor,
    /// The fork is taken from the UIDs alone, without the epoch history.
    ForkByWatermark,
    /// The cursor of a delta moves past records that were not sent.
    LoseCursor,
    /// A copy clips inside a sparse interval or below its version floor.
    ClipAnywhere,
    /// A rewind leaves keys alone that the primary does not have.
    RewindForgetsAbsent,
    /// The live stream of a delta starts at what was appended, above the first chunk snapshot.
    LiveFromAppended,
    /// A promotion hears the candidate alone.
    PromoteUnheard,
    /// A copy is promoted though another one that was heard has more.
    PromoteBehind,
    /// Copies that a promotion heard have promised nothing.
    PromoteUnpromised,
    /// The promotable set changes as soon as the primary has written it down.
    SetAlone,
    /// A comparison loses one of the ranges that differ.
    SkipDifferingRange,
    /// Records of the copy stay that the primary does not have in a range which is replaced.
    LeaveExtraRecord,
    /// A reconcile is installed before all ranges were replaced.
    ReconcileHalf,
    /// Ranges are replaced by what a higher snapshot shows than the one they are installed at.
    ReplaceAtWrongCut,
    /// A copy feeds others on what it has logged, shown or not.
    FeedBeyondCut,
    /// Those who are fed are not told that what they were fed on was taken back or replaced.
    FeedThroughFork,
    /// A copy takes back what the one that feeds it does not have yet.
    TakeBackToFeeder,
    /// A delta that goes on leaves out what has changed since before its cursor.
    ResumeAtCursor,
    /// A delta goes on at a lower position than it was read at before.
    ResumeBehind,
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
