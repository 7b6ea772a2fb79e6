//! Planaria, embedded: a table store inside an application.
//!
//! This crate is the engine under the name that applications add: no network, no async runtime, no thread but those
//! that sync, write out and merge in the background.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let dir = tempfile::tempdir()?;
//! # let path = dir.path().join("birds");
//! use planaria::{Column, ColumnType, Database, Schema, Value};
//!
//! let db = Database::open(&path)?;
//! let id = Column::new("id", ColumnType::Int64);
//! let bird = Column::new("bird", ColumnType::Text);
//! let schema = Schema::builder().column(id).column(bird).key(["id"]).build()?;
//! let seen = db.create_table("seen", schema)?;
//! seen.insert(&[7.into(), "heron".into()])?; // on the disk when it returns
//! assert_eq!(seen.find(&[7.into()])?, Some(vec![Value::Int(7), Value::Text("heron".into())]));
//! assert!(seen.find(&[7.into(), "heron".into()]).is_err(), "the key has one column");
//! let copy = db.clone_to(path.with_extension("copy"))?; // a few hard links
//! assert_eq!(copy.position, db.position());
//! # Ok(())
//! # }
//! ```
//!
//! Where to go on: [`Database`] for batches, snapshots and clones; [`Table`] for keys, rows and scans; [`Options`] for
//! memory, log and compression; [`Error`] for what can go wrong and what to do then.

//! With the feature `replica` an application also keeps a copy of a node's database that follows it: module `replica`.

#![forbid(unsafe_code)]

#[cfg(feature = "replica")]
pub mod replica;

pub use planaria_engine::{
    Batch, Codec, Column, ColumnType, Database, Durability, Error, Ingest, Ingested, Lineage, LocalClone,
    MAX_BATCH_BYTES, MAX_KEY_BYTES, MAX_ROW_BYTES, Options, ReadMode, Result, Role, Scan, Schema, Snapshot,
    Status, Table, TableDef, TableDigest, TableKind, TableStatus, UnsortedIngest, Value, Verified, table,
};
pub use planaria_types::{
    DatabaseId, Epoch, Fingerprint, FragmentId, InstanceId, KeyRange, Position, TableId, Uid,
};

#[cfg(test)]
mod tests {
    const README: &str = include_str!("../../../README.md");
    const EXAMPLE: &str = include_str!("../examples/quick_start.rs");

    const REPLICA: &str = include_str!("../examples/replica.rs");

    #[test]
    fn the_readme_shows_the_examples_as_they_are_compiled() {
        let shown = README.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next());
        let mut shown = shown.map(|block| block.lines().collect::<Vec<_>>());
        for (name, example) in [("quick_start", EXAMPLE), ("replica", REPLICA)] {
            let code = example.lines().skip_while(|line| line.starts_with("//!") || line.is_empty());
            let code: Vec<&str> = code.collect();
            let shown = shown.next().expect("the README has a block of Rust for each example");
            assert_eq!(shown, code, "copy examples/{name}.rs into the README, or the other way round");
        }
    }
}
