//! Fuzz targets: what must hold of arbitrary bytes, one function for each decoder and one for the whole engine.
//!
//! Every target runs under `cargo test` over its corpus and over a few thousand changed inputs from a seed, and for as
//! long as one likes under libFuzzer:
//!
//! ```text
//! RUSTC_BOOTSTRAP=1 cargo fuzz run --fuzz-dir fuzz --features libfuzzer commit
//! ```

mod mutate;

pub use mutate::Mutator;
use planaria_engine::fuzzing;

/// A function that takes any bytes and panics if something that must hold does not.
pub type Target = fn(&[u8]);

/// All targets by name; the name is that of the corpus directory and of the entry point.
pub const TARGETS: [(&str, Target); 7] = [
    ("commit", commit),
    ("block", block),
    ("run_file", run_file),
    ("log_segment", log_segment),
    ("manifest", manifest),
    ("row", row),
    ("operations", operations),
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

/// A table definition with a key and a row: refused, or the same after being encoded again.
pub fn row(bytes: &[u8]) {
    fuzzing::row(bytes);
}

/// Operations on a database: its answers are those of an ordered map.
pub fn operations(bytes: &[u8]) {
    fuzzing::operations(bytes);
}

#[cfg(test)]
mod tests;
