use std::sync::OnceLock;
use std::time::{Duration, Instant};

use planaria_replication::Millis;

/// The time since the first call, by the monotonic clock: what the state machines are given.
#[expect(clippy::disallowed_methods, reason = "the driver is where time enters the protocol")]
pub(super) fn now() -> Millis {
    static START: OnceLock<Instant> = OnceLock::new();
    Millis(START.get_or_init(Instant::now).elapsed().as_millis() as u64)
}

/// How long to wait until `at`, at most `most`.
pub(super) fn until(at: Option<Millis>, most: Duration) -> Duration {
    let left = at.map_or(most, |at| Duration::from_millis(at.0.saturating_sub(now().0)));
    left.min(most)
}
