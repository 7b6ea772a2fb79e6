//! Takes the figures of the README: each workload in a fresh directory, keys of 16 bytes, values half compressible.

mod workload;

use std::time::{Duration, Instant};

use clap::Parser;
use planaria_engine::Error;

use crate::workload::{Figure, Setting, WORKLOADS};

/// Times the engine's main workloads.
#[derive(Parser)]
struct Arguments {
    /// Records
    #[arg(long, default_value_t = 1_000_000)]
    records: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    /// Memory for cached blocks, in bytes
    #[arg(long, default_value_t = 1 << 30)]
    cache_bytes: usize,
    /// Only the workloads whose names contain this
    #[arg(long, default_value = "")]
    only: String,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

fn main() -> Result<(), Error> {
    let arguments = Arguments::parse();
    let setting = Setting {
        records: arguments.records,
        value_bytes: arguments.value_bytes,
        cache_bytes: arguments.cache_bytes,
    };
    let mut object = serde_json::Map::new();
    for (name, run) in WORKLOADS {
        if !name.contains(&arguments.only) {
            continue;
        }
        for figure in run(&setting)? {
            let key = format!("{name}{}", figure.label);
            if arguments.json {
                object.insert(key, figure.value.into());
            } else {
                println!("{key:<44} {:>14}", human(&figure));
            }
        }
    }
    if arguments.json {
        println!("{}", serde_json::Value::Object(object));
    }
    Ok(())
}

fn human(figure: &Figure) -> String {
    match figure.unit {
        "1/s" if figure.value >= 1e6 => format!("{:.2} M/s", figure.value / 1e6),
        "1/s" if figure.value >= 1e3 => format!("{:.1} k/s", figure.value / 1e3),
        "1/s" => format!("{:.0} /s", figure.value),
        "s" if figure.value < 1.0 => format!("{:.2} ms", figure.value * 1e3),
        "s" => format!("{:.2} s", figure.value),
        "B" => format!("{:.1} MB", figure.value / 1e6),
        unit => format!("{:.2} {unit}", figure.value),
    }
}

/// The time that `work` takes, and what it returns.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn timed<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<(Duration, T), Error> {
    let begun = Instant::now();
    let done = work()?;
    Ok((begun.elapsed(), done))
}
