//! Fuzz targets: what must hold of arbitrary bytes, one function for each decoder, one for the whole engine, and
//! one for each side of the replication protocol.
//!
//! Every target runs under `cargo test` over its corpus and over a few thousand changed inputs from a seed, and for as
//! long as one likes under libFuzzer:
//!
//! ```text
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir fuzz --features libfuzzer commit
//! ```

mod choices;
mod hostile_primary;
mod hostile_secondary;
mod mutate;

pub use mutate::Mutator;
use planaria_engine::fuzzing;

/// A function that takes any bytes and panics if something that must hold does not.
pub type Target = fn(&[u8]);

/// All targets by name; the name is that of the corpus directory and of the entry point.
pub const TARGETS: [(&str, Target); 14] = [
    ("commit", commit),
    ("block", block),
    ("run_file", run_file),
    ("log_segment", log_segment),
    ("manifest", manifest),
    ("row", row),
    ("kept", kept),
    ("operations", operations),
    ("frames", frames),
    ("batch", batch),
    ("replica_message", replica_message),
    ("backup", backup),
    ("hostile_primary", hostile_primary),
    ("hostile_secondary", hostile_secondary),
];

/// A commit as it is logged and sent: refused, or well-formed and in order.
pub fn commit(bytes: &[u8]) {
    fuzzing::commit(bytes);
}

/// A block, an index or a filter of a run: refused, or safe to ask anything.
pub fn block(bytes: &[u8]) {
    fuzzing::block(bytes);
}

/// A run file: refused, or every version that it shows is found by its key.
pub fn run_file(bytes: &[u8]) {
    fuzzing::run_file(bytes);
}

/// A log segment: refused, or replayed and written on.
pub fn log_segment(bytes: &[u8]) {
    fuzzing::log_segment(bytes);
}

/// A manifest: refused, or the same after being encoded again.
pub fn manifest(bytes: &[u8]) {
    fuzzing::manifest(bytes);
}

/// What a copy has kept of a refresh: of no use, or gone on from, and never in the way of opening it.
pub fn kept(bytes: &[u8]) {
    fuzzing::kept(bytes);
}

/// A table definition with a key and a row: refused, or the same after being encoded again.
pub fn row(bytes: &[u8]) {
    fuzzing::row(bytes);
}

/// Operations on a database: its answers are those of an ordered map.
pub fn operations(bytes: &[u8]) {
    fuzzing::operations(bytes);
}

/// A stretch of a stream: refused, or frames that survive their encoding.
pub fn frames(bytes: &[u8]) {
    planaria_net::fuzzing::frames(bytes);
}

/// A batch of rows: refused, or nothing but rows.
pub fn batch(bytes: &[u8]) {
    planaria_net::fuzzing::batch(bytes);
}

/// A message of the replication protocol: refused, or the same after being encoded again.
pub fn replica_message(bytes: &[u8]) {
    planaria_net::fuzzing::replica_message(bytes);
}

/// A manifest of a backup or its list of files: refused, or the same after being encoded again.
pub fn backup(bytes: &[u8]) {
    planaria_backup::fuzzing::backup(bytes);
}

/// A secondary, told anything that passes validation: it shows and acknowledges nothing that is not durable.
pub fn hostile_primary(bytes: &[u8]) {
    hostile_primary::run(bytes);
}

/// A primary, told anything that passes validation: it sends nothing that a secondary would refuse.
pub fn hostile_secondary(bytes: &[u8]) {
    hostile_secondary::run(bytes);
}

/// A sound input for each target, with the target's name.
///
/// # Errors
///
/// What the engine says if it cannot write its formats.
pub fn samples() -> Result<Vec<(&'static str, Vec<u8>)>, planaria_engine::Error> {
    let mut samples = fuzzing::samples()?;
    samples.extend(planaria_net::fuzzing::samples());
    // Bytes of all sizes: decisions, in no order.
    let decisions: Vec<u8> = (0..600_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    samples.extend(["hostile_primary", "hostile_secondary"].map(|name| (name, decisions.clone())));
    let backups = planaria_backup::fuzzing::samples();
    samples.extend(backups.map_err(|error| planaria_engine::Error::Invalid(error.to_string()))?);
    Ok(samples)
}

#[cfg(test)]
mod tests;
