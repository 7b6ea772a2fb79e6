use std::path::Path;

use crate::numbers::{fill_value, in_order};

/// Records in a batch of a load.
pub(crate) const BATCH_RECORDS: u64 = 1_000;

/// What any of the stores says when it fails.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// What all stores are given alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// Records that are loaded.
    pub(crate) records: u64,
    /// Bytes of a value.
    pub(crate) value_bytes: usize,
    /// Memory for cached blocks or pages, in bytes. LMDB has no cache of its own: it uses what the system has.
    pub(crate) cache_bytes: u64,
    /// How long each of the timed mixes runs, in seconds.
    pub(crate) seconds: f64,
}

/// What a store is opened for: some say at opening how durable their commits are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Purpose {
    /// Writes that are not synced one by one.
    Load {
        /// Whether keys come in order.
        ascending: bool,
    },
    /// Writes that are on the disk when they return.
    Durable,
}

/// A store that takes part.
pub(crate) trait Store: Sized + Send + Sync {
    /// A view to read from: a snapshot or read transaction where the store has such a thing.
    type Reader<'a>: Reader
    where
        Self: 'a;

    /// Opens the store in `dir`, which is created if it is not there.
    fn open(dir: &Path, setting: &Setting, purpose: Purpose) -> Result<Self>;

    /// Commits a batch, as durable as the purpose says.
    fn write(&self, batch: &Batch) -> Result<()>;

    /// Makes what was loaded durable, outside of memory.
    fn finish_load(&self) -> Result<()>;

    /// Loads records that come in the order of their keys into a store without any, and makes them durable, in the way
    /// that the store has for that.
    fn bulk_load(&self, records: &mut Records) -> Result<()>;

    /// The same by batches, for stores that have no other way.
    fn bulk_load_by_batches(&self, records: &mut Records) -> Result<()> {
        let mut batch = Batch::default();
        while let Some((key, value)) = records.next() {
            batch.push(key, |out| out.extend_from_slice(value));
            if batch.len() as u64 == BATCH_RECORDS {
                self.write(&batch)?;
                batch.clear();
            }
        }
        self.write(&batch)?;
        self.finish_load()
    }

    /// Brings the store into the shape that it would have after a while without writes.
    fn settle(&self) -> Result<()> {
        Ok(())
    }

    /// A view of what was written so far, for one thread.
    fn reader(&self) -> Result<Self::Reader<'_>>;

    /// Makes a copy that can be opened, in `dir`, which is not there.
    fn clone_to(&self, dir: &Path) -> Result<()>;
}

/// Reads of one thread.
pub(crate) trait Reader {
    /// The length of a record's value.
    fn get(&mut self, key: &[u8]) -> Result<Option<usize>>;

    /// How many of the records from `from` on there are, at most `limit`, and the bytes of their keys and values.
    fn scan(&mut self, from: &[u8], limit: u64) -> Result<(u64, u64)>;
}

/// All records in the order of their keys, one after the other.
#[derive(Debug)]
pub(crate) struct Records {
    numbers: std::ops::Range<u64>,
    value_bytes: usize,
    key: [u8; 16],
    value: Vec<u8>,
}

impl Records {
    pub(crate) fn new(setting: &Setting) -> Self {
        let Setting { records, value_bytes, .. } = *setting;
        Self { numbers: 0..records, value_bytes, key: [0; 16], value: Vec::new() }
    }

    /// The next key and value.
    pub(crate) fn next(&mut self) -> Option<(&[u8], &[u8])> {
        let number = self.numbers.next()?;
        self.key = in_order(number);
        self.value.clear();
        fill_value(&mut self.value, number, self.value_bytes);
        Some((&self.key, &self.value))
    }
}

/// Records to be written together, one behind the other in one piece of memory.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    ends: Vec<(usize, usize)>,
}

impl Batch {
    /// Forgets the records and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Adds a record whose value `fill` appends.
    pub(crate) fn push(&mut self, key: &[u8], fill: impl FnOnce(&mut Vec<u8>)) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        fill(&mut self.bytes);
        self.ends.push((key_end, self.bytes.len()));
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Keys and values, in the order in which they were added.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        starts
            .zip(&self.ends)
            .map(|(start, (key_end, end))| (&self.bytes[start..*key_end], &self.bytes[*key_end..*end]))
    }
}
