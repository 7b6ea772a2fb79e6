use std::time::{Duration, Instant};

/// How long anything that is waited for may take. Two busy cores are slow; a hang is for ever.
pub const PATIENCE: Duration = Duration::from_mins(2);
/// How long is waited between two looks.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// The time since it was started.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts.
    #[expect(clippy::disallowed_methods, reason = "a test gives up by the clock, and reports times")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// Looks until there is something to be seen.
///
/// # Panics
///
/// After [`PATIENCE`]; it then says what was waited for and what `describe` tells.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>, describe: impl FnOnce() -> String) -> T {
    let stopwatch = Stopwatch::start();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(stopwatch.elapsed() < PATIENCE, "waited in vain for {what}: {}", describe());
        std::thread::park_timeout(BETWEEN_LOOKS);
    }
}
