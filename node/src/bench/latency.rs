//! A writer whose commits are timed one by one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use planaria_engine::{Batch, Database, Durability, Table};

use crate::output::CliError;
use crate::stopwatch::Stopwatch;

/// Keys that are written over and over.
const KEYS: u64 = 1_000;

/// A thread that commits single records durably, one after the other, until it is stopped.
pub(super) struct TimedWriter {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<u64>, CliError>>,
}

impl TimedWriter {
    pub(super) fn start(db: Database, table: Table) -> Result<Self, CliError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let body = move || {
            let mut took_us = Vec::new();
            while !stopped.load(Ordering::Acquire) {
                let number = took_us.len() as u64;
                let mut batch = Batch::new();
                batch.put(table.id(), (number % KEYS).to_be_bytes(), number.to_string());
                let stopwatch = Stopwatch::start();
                db.write(batch, Durability::Synced)?;
                took_us.push(stopwatch.elapsed().as_micros() as u64);
            }
            Ok(took_us)
        };
        let thread = std::thread::Builder::new()
            .name("bench-writer".into())
            .spawn(body)
            .map_err(|error| CliError::new("io", format!("cannot start a thread: {error}")))?;
        Ok(Self { stop, thread })
    }

    /// Ends it; what its commits took, in microseconds.
    pub(super) fn end(self) -> Result<Vec<u64>, CliError> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().unwrap_or_else(|_| Err(CliError::new("bench", "the writer broke off")))
    }
}

/// The 99th percentile in milliseconds.
pub(super) fn p99_ms(mut took_us: Vec<u64>) -> Option<f64> {
    took_us.sort_unstable();
    let index = (took_us.len() * 99).div_ceil(100).checked_sub(1)?;
    took_us.get(index).map(|us| *us as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::p99_ms;

    #[test]
    fn the_percentile_is_a_value_that_was_measured() {
        assert_eq!(p99_ms(Vec::new()), None);
        assert_eq!(p99_ms(vec![7_000]), Some(7.0));
        assert_eq!(p99_ms((1..=1_000).map(|ms| ms * 1_000).rev().collect()), Some(990.0));
    }
}
