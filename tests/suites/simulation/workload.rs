//! What clients do: batches over two tables, some of which are waited for.

use bytes::Bytes;
use planaria_engine::{Batch, Durability, Table};
use planaria_tests::cluster::Random;
use planaria_types::TableId;

use crate::oracle::Ops;

/// The tables, in the order of their numbers.
pub(crate) const TABLES: [&str; 2] = ["birds", "trees"];
/// Keys of each table.
const KEYS: u64 = 16;
/// The longest row, in bytes.
const ROW_BYTES_MAX: u64 = 3_000;

/// A batch, and how it is asked for.
#[derive(Clone)]
pub(crate) struct Write {
    pub(crate) number: u64,
    pub(crate) ops: Ops,
    pub(crate) durability: Durability,
}

impl Write {
    /// The batch with this number.
    pub(crate) fn draw(random: &mut Random, number: u64, synced_one_in: u64) -> Self {
        let mut ops = Ops::new();
        for place in 0..=random.below(4) {
            let table = TableId(1 + random.below(TABLES.len() as u64) as u32);
            let key = Bytes::from(vec![b'a' + random.below(KEYS) as u8, b'k']);
            // Every batch puts something, so that it can be told from all others.
            let row = (place == 0 || !random.once_in(3)).then(|| row(random, number));
            ops.retain(|(of, other, _)| (*of, other) != (table, &key));
            ops.push((table, key, row));
        }
        if ops.iter().all(|(_, _, row)| row.is_none())
            && let Some((_, _, first)) = ops.first_mut()
        {
            *first = Some(row(random, number));
        }
        ops.sort();
        let durability =
            if random.once_in(synced_one_in) { Durability::Synced } else { Durability::Background };
        Self { number, ops, durability }
    }

    pub(crate) fn batch(&self) -> Batch {
        let mut batch = Batch::new();
        for (table, key, row) in &self.ops {
            match row {
                Some(row) => batch.put(*table, key.clone(), row.clone()),
                None => batch.delete(*table, key.clone()),
            };
        }
        batch
    }
}

/// A row that says which batch it is of.
fn row(random: &mut Random, number: u64) -> Bytes {
    let len = if random.once_in(2) { random.below(60) } else { random.below(ROW_BYTES_MAX) };
    let mut row = number.to_le_bytes().to_vec();
    // Bytes that do not shrink by compression, so that fragments grow and split.
    let mut noise = Random::new(number);
    while (row.len() as u64) < len {
        row.extend(noise.number().to_le_bytes());
    }
    row.into()
}

/// Creates the tables of an empty database.
pub(crate) fn create_tables(db: &planaria_engine::Database) -> planaria_engine::Result<Vec<Table>> {
    TABLES.iter().map(|name| db.create_raw_table(name)).collect()
}
