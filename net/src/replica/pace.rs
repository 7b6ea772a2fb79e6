//! How fast a clone comes in, and whether it comes in at all: what an operator changes while it runs.

use std::time::Duration;

use parking_lot::Mutex;
use planaria_engine::CLONE_CHUNK_BYTES;
use planaria_replication::Millis;
use tokio::sync::watch;

use super::clock::now;
use crate::{Error, Result};

/// How much may come in at once after a pause, as a time at the rate, in milliseconds.
const BURST_MS: u64 = 100;
/// Below this rate one chunk is asked for at a time, whatever the number of streams and connections.
const SLOW_BYTES_PER_S: u64 = 4 << 20;
/// At a rate no request is for more than what comes in a tenth of a second, unless that is less than a chunk.
const REQUESTS_PER_S: u64 = 10;
/// At a rate so many of such requests are under way at a time.
const REQUESTS_MAX: u64 = 4;

/// A bucket of bytes that fills at a rate. What was taken from an empty one is owed: the next has to wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bucket {
    bytes_per_s: Option<u64>,
    /// Thousandths of bytes; below zero while some are owed.
    level: i128,
    at: Millis,
}

impl Bucket {
    fn new(bytes_per_s: Option<u64>, now: Millis) -> Self {
        Self { bytes_per_s, level: 0, at: now }
    }

    fn fill(&mut self, now: Millis) {
        // A byte a second is a thousandth of one a millisecond.
        let rate = i128::from(self.bytes_per_s.unwrap_or(0));
        let filled = self.level + rate * i128::from(now.since(self.at).0);
        self.level = filled.min(rate * i128::from(BURST_MS));
        self.at = self.at.max(now);
    }

    /// From now on another rate; what is owed is paid at that.
    fn set_rate(&mut self, bytes_per_s: Option<u64>, now: Millis) {
        self.fill(now);
        self.bytes_per_s = bytes_per_s;
        if bytes_per_s.is_none() {
            self.level = 0;
        }
    }

    fn take(&mut self, bytes: u64, now: Millis) {
        self.fill(now);
        if self.bytes_per_s.is_some() {
            self.level -= i128::from(bytes) * 1_000;
        }
    }

    /// How long until nothing is owed any more, in milliseconds.
    fn wait_ms(&mut self, now: Millis) -> u64 {
        self.fill(now);
        match self.bytes_per_s {
            Some(rate) if self.level < 0 => {
                let wait_ms = self.level.unsigned_abs().div_ceil(u128::from(rate.max(1)));
                u64::try_from(wait_ms).unwrap_or(u64::MAX)
            }
            _ => 0,
        }
    }
}

/// The wheel of a clone that comes in: its greatest rate, and whether it is given up. Both may change while it runs.
#[derive(Debug)]
pub struct Pace {
    bucket: Mutex<Bucket>,
    /// Bytes that were asked for at a rate, and may not have come.
    asked: Mutex<u64>,
    /// Whether it is given up; touched at every change of the rate, and when more may be asked for.
    stopped: watch::Sender<bool>,
}

impl Default for Pace {
    fn default() -> Self {
        Self::new(None)
    }
}

impl Pace {
    /// A pace of so many bytes a second at most; of none, as fast as the wire.
    pub fn new(bytes_per_s: Option<u64>) -> Self {
        let bucket = Mutex::new(Bucket::new(bytes_per_s, now()));
        Self { bucket, asked: Mutex::default(), stopped: watch::Sender::new(false) }
    }

    /// The greatest rate, in bytes a second.
    pub fn rate(&self) -> Option<u64> {
        self.bucket.lock().bytes_per_s
    }

    /// Has it come in at another rate from now on.
    pub fn set_rate(&self, bytes_per_s: Option<u64>) {
        self.bucket.lock().set_rate(bytes_per_s, now());
        // Whoever waits reckons anew.
        self.stopped.send_modify(|_| {});
    }

    /// Gives it up: what runs fails with [`Error::GivenUp`], unless nothing but its name is missing.
    pub fn stop(&self) {
        self.stopped.send_replace(true);
    }

    /// Whether it was given up.
    pub fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    /// Waits for a while, unless it is given up.
    ///
    /// # Errors
    ///
    /// [`Error::GivenUp`].
    pub async fn rest(&self, time: Duration) -> Result<()> {
        self.heed(async {
            tokio::time::sleep(time).await;
            Ok(())
        })
        .await
    }

    /// Does `work` unless it is given up.
    pub(super) async fn heed<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut stopped = self.stopped.subscribe();
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => Err(Error::GivenUp),
            done = work => done,
        }
    }

    /// Leave to ask for up to so many bytes, as soon as not too many are under way: over all streams of all connections no more
    /// than what soon comes at the rate, in whole chunks. May be dropped at any time.
    ///
    /// # Errors
    ///
    /// [`Error::GivenUp`].
    pub(super) async fn ask(&self, bytes: u64) -> Result<Leave<'_>> {
        let mut changed = self.stopped.subscribe();
        loop {
            if *changed.borrow_and_update() {
                return Err(Error::GivenUp);
            }
            if let Some(leave) = self.leave(bytes) {
                return Ok(leave);
            }
            // Whom it waits for is in here.
            let _ = changed.changed().await;
        }
    }

    fn leave(&self, bytes: u64) -> Option<Leave<'_>> {
        let Some(rate) = self.rate() else {
            return Some(Leave { pace: self, bytes, counted: 0 });
        };
        let mut asked = self.asked.lock();
        let may = may_ask(rate, *asked);
        if may == 0 {
            return None;
        }
        let bytes = bytes.min(may);
        *asked += bytes;
        Some(Leave { pace: self, bytes, counted: bytes })
    }

    /// Counts bytes that came in and could not wait: those that come next pay for them.
    pub(super) fn charge(&self, bytes: u64) {
        self.bucket.lock().take(bytes, now());
    }

    /// Counts bytes that came in, and waits as long as they take at the rate.
    ///
    /// # Errors
    ///
    /// [`Error::GivenUp`].
    pub async fn admit(&self, bytes: u64) -> Result<()> {
        self.count(bytes);
        self.paid().await
    }

    /// Counts bytes that came in.
    pub(super) fn count(&self, bytes: u64) {
        self.bucket.lock().take(bytes, now());
    }

    /// Whether more has come in than the rate allows so far.
    pub(super) fn is_owing(&self) -> bool {
        self.bucket.lock().wait_ms(now()) > 0
    }

    /// Waits until what came in is paid for. May be dropped at any time.
    ///
    /// # Errors
    ///
    /// [`Error::GivenUp`].
    pub(super) async fn paid(&self) -> Result<()> {
        let mut changed = self.stopped.subscribe();
        loop {
            if *changed.borrow_and_update() {
                return Err(Error::GivenUp);
            }
            let wait_ms = self.bucket.lock().wait_ms(now());
            if wait_ms == 0 {
                return Ok(());
            }
            tokio::select! {
                _ = changed.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(wait_ms)) => {}
            }
        }
    }
}

/// How much may be asked for at a rate, in bytes, while so many are under way.
fn may_ask(rate: u64, under_way: u64) -> u64 {
    let request = (rate / REQUESTS_PER_S / CLONE_CHUNK_BYTES).max(1) * CLONE_CHUNK_BYTES;
    let all = if rate < SLOW_BYTES_PER_S { request } else { request.saturating_mul(REQUESTS_MAX) };
    let free = all.saturating_sub(under_way) / CLONE_CHUNK_BYTES * CLONE_CHUNK_BYTES;
    free.min(request)
}

/// Leave to ask for some bytes. Others may ask for as many when it is dropped.
pub(super) struct Leave<'a> {
    pace: &'a Pace,
    bytes: u64,
    counted: u64,
}

impl Leave<'_> {
    /// How many.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if self.counted > 0 {
            *self.pace.asked.lock() -= self.counted;
            self.pace.stopped.send_modify(|_| {});
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes chunks as soon as nothing is owed, and counts the bytes up to a time.
    fn granted(bucket: &mut Bucket, from: u64, until: u64, chunk: u64) -> u64 {
        let (mut at, mut bytes) = (from, 0);
        while at < until {
            bucket.take(chunk, Millis(at));
            bytes += chunk;
            at += bucket.wait_ms(Millis(at)).max(1);
        }
        bytes
    }

    #[test]
    fn what_is_granted_is_the_rate_times_the_time_and_one_chunk_more() {
        for (rate, chunk) in [(1_000_000, 1 << 20), (50 << 20, 1 << 20), (3_000, 700), (7, 1)] {
            let mut bucket = Bucket::new(Some(rate), Millis(5));
            let bytes = granted(&mut bucket, 5, 60_005, chunk);
            let due = rate * 60;
            let burst = rate * BURST_MS / 1_000;
            assert!((due..=due + chunk + burst).contains(&bytes), "{bytes} of {due} at {rate}");
        }
    }

    #[test]
    fn another_rate_holds_from_its_moment_on_for_what_is_owed_as_well() {
        let mut bucket = Bucket::new(Some(1_000), Millis(0));
        bucket.take(1_000_000, Millis(0));
        assert_eq!(bucket.wait_ms(Millis(0)), 1_000_000);
        bucket.set_rate(Some(1_000_000), Millis(500_000));
        assert_eq!(bucket.wait_ms(Millis(500_000)), 500);
        bucket.set_rate(None, Millis(500_100));
        assert_eq!(bucket.wait_ms(Millis(500_100)), 0);
        bucket.take(u64::MAX, Millis(500_100));
        assert_eq!(bucket.wait_ms(Millis(500_100)), 0);
        bucket.set_rate(Some(1_000), Millis(500_100));
        let bytes = granted(&mut bucket, 500_100, 510_100, 100);
        assert!((10_000..=10_200).contains(&bytes), "{bytes}");
    }

    #[test]
    fn what_is_under_way_over_all_streams_comes_soon_at_the_rate_and_is_one_chunk_where_it_is_slow() {
        for rate in
            [1, 64 << 10, SLOW_BYTES_PER_S - 1, SLOW_BYTES_PER_S, 10 << 20, 64 << 20, 1 << 30, u64::MAX / 2]
        {
            let mut under_way = 0;
            for _ in 0..64 {
                let may = may_ask(rate, under_way);
                assert_eq!(may % CLONE_CHUNK_BYTES, 0, "{rate}");
                assert!(under_way > 0 || may > 0, "somebody may always ask: {rate}");
                under_way += may;
            }
            let soon = if rate < SLOW_BYTES_PER_S {
                CLONE_CHUNK_BYTES
            } else {
                (rate / REQUESTS_PER_S).max(CLONE_CHUNK_BYTES) * REQUESTS_MAX
            };
            assert!((CLONE_CHUNK_BYTES..=soon).contains(&under_way), "{under_way} at {rate}");
        }
        // The last chunk of a file is short, and a rate may be lowered while much is under way.
        assert_eq!(may_ask(1, 17), 0);
        assert_eq!(may_ask(SLOW_BYTES_PER_S, 1 << 40), 0);
    }

    #[test]
    fn leave_is_waited_for_while_others_have_it_and_without_a_rate_nobody_waits() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let pace = Pace::new(Some(1));
        let first = runtime.block_on(pace.ask(u64::MAX)).unwrap();
        assert_eq!(first.bytes(), CLONE_CHUNK_BYTES);
        assert!(pace.leave(9).is_none());
        runtime.block_on(async {
            let (second, ()) = tokio::join!(pace.ask(9), async { drop(first) });
            assert_eq!(second.unwrap().bytes(), 9);
        });
        let held = pace.leave(9).unwrap();
        runtime.block_on(async {
            let (all, ()) = tokio::join!(pace.ask(1 << 40), async { pace.set_rate(None) });
            assert_eq!(all.unwrap().bytes(), 1 << 40);
        });
        pace.set_rate(Some(1));
        runtime.block_on(async {
            let (none, ()) = tokio::join!(pace.ask(9), async { pace.stop() });
            assert!(matches!(none, Err(Error::GivenUp)));
        });
        drop(held);
    }

    #[test]
    fn a_pause_is_worth_a_burst_and_no_more() {
        let mut bucket = Bucket::new(Some(10_000), Millis(0));
        bucket.take(1_000, Millis(3_600_000));
        assert_eq!(bucket.wait_ms(Millis(3_600_000)), 0);
        bucket.take(1, Millis(3_600_000));
        assert_eq!(bucket.wait_ms(Millis(3_600_000)), 1);
        // A clock that stands still or goes back pays nothing.
        assert_eq!(bucket.wait_ms(Millis(0)), 1);
    }
}
