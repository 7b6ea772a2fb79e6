//! What a run of many seeds amounts to, for people: how much was simulated, and what it took.

use std::time::Duration;

/// Seeds that were run, and what they took.
pub(crate) struct Report {
    first: u64,
    cpu_before: Option<Duration>,
}

impl Report {
    pub(crate) fn begin(first: u64) -> Self {
        Self { first, cpu_before: cpu_time() }
    }

    pub(crate) fn print(&self, seeds: u64, steps: u64, simulated_ms: u64) {
        let hours = simulated_ms as f64 / 3_600_000.0;
        let took = match (self.cpu_before, cpu_time()) {
            (Some(before), Some(now)) => {
                let cpu_hours = now.saturating_sub(before).as_secs_f64().max(0.001) / 3_600.0;
                format!(
                    "{:.1} s of CPU time, {:.0} simulated hours and {:.0} seeds per CPU-hour",
                    cpu_hours * 3_600.0,
                    hours / cpu_hours,
                    seeds as f64 / cpu_hours
                )
            }
            _ => "the system does not tell the CPU time".to_owned(),
        };
        println!("{seeds} seeds from {}: {steps} steps, {hours:.2} simulated hours; {took}", self.first);
    }
}

/// What this thread has had of a processor, where the system tells it.
fn cpu_time() -> Option<Duration> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(Duration::from_nanos(stat.split_whitespace().next()?.parse().ok()?))
}
