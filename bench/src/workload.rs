use std::path::Path;
use std::time::Duration;

use planaria_engine::types::KeyRange;
use planaria_engine::{Batch, Database, Durability, Error, Options, Table};

use crate::timed;

/// Records in a batch of a load.
const BATCH: u64 = 1_000;
/// Point reads and short scans are timed over so many.
const READS: u64 = 500_000;
const SHORT_SCANS: u64 = 20_000;
/// Durable commits are timed over so many, of each writer.
const DURABLE_COMMITS: u64 = 5_000;

/// What is measured on.
pub(crate) struct Setting {
    pub(crate) records: u64,
    pub(crate) value_bytes: usize,
    pub(crate) cache_bytes: usize,
}

/// One result.
pub(crate) struct Figure {
    pub(crate) label: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
}

type Workload = fn(&Setting) -> Result<Vec<Figure>, Error>;

/// The workloads, by name.
pub(crate) const WORKLOADS: [(&str, Workload); 5] = [
    ("load in key order", load_in_order),
    ("bulk ingest", bulk_ingest),
    ("load in random order", load_at_random),
    ("durable commits", durable_commits),
    ("local clone", local_clone),
];

impl Setting {
    fn open(&self, dir: &Path) -> Result<(Database, Table), Error> {
        let options = Options { cache_bytes: self.cache_bytes, ..Options::default() };
        let db = Database::open_with(dir, options)?;
        let table = db.create_raw_table("t")?;
        Ok((db, table))
    }

    /// The value of a record: its first half repeats, its second half does not.
    fn value(&self, number: u64) -> Vec<u8> {
        let mut value = vec![b'v'; self.value_bytes];
        let mut seed = number | 1;
        for byte in value.iter_mut().skip(self.value_bytes / 2) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            *byte = seed as u8;
        }
        value
    }

    /// Loads all records, the `n`-th under the key `key(n)`, and writes everything out.
    fn load(&self, db: &Database, table: &Table, key: impl Fn(u64) -> Vec<u8>) -> Result<(), Error> {
        let mut number = 0;
        while number < self.records {
            let mut batch = Batch::new();
            for record in number..(number + BATCH).min(self.records) {
                batch.put(table.id(), key(record), self.value(record));
            }
            db.write(batch, Durability::Background)?;
            number += BATCH;
        }
        db.flush()
    }
}

fn in_order(number: u64) -> Vec<u8> {
    format!("{number:016}").into_bytes()
}

/// A permutation of all 64-bit numbers, so that no key comes twice.
fn scattered(number: u64) -> Vec<u8> {
    let mixed =
        (number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).rotate_left(31).wrapping_mul(0xd6e8_feb8_6659_fd93);
    format!("{mixed:016x}").into_bytes()
}

fn rate(count: u64, over: Duration) -> f64 {
    count as f64 / over.as_secs_f64()
}

fn temporary() -> Result<tempfile::TempDir, Error> {
    tempfile::tempdir().map_err(|error| Error::Invalid(format!("no temporary directory: {error}")))
}

fn load_in_order(setting: &Setting) -> Result<Vec<Figure>, Error> {
    let dir = temporary()?;
    let (db, table) = setting.open(&dir.path().join("db"))?;
    let (took, ()) = timed(|| setting.load(&db, &table, in_order))?;
    let (scan, count) = timed(|| {
        let mut count = 0_u64;
        table.scan(KeyRange::ALL).visit(|_, _| {
            count += 1;
            true
        })?;
        Ok(count)
    })?;
    Ok(vec![
        Figure { label: "", value: rate(setting.records, took), unit: "1/s" },
        Figure { label: ": full scan", value: rate(count, scan), unit: "1/s" },
    ])
}

/// The same rows as [`load_in_order`], as one commit that is durable in the end, and what a writer beside it waits for
/// one commit at most.
fn bulk_ingest(setting: &Setting) -> Result<Vec<Figure>, Error> {
    let dir = temporary()?;
    let (db, table) = setting.open(&dir.path().join("db"))?;
    let other = db.create_raw_table("other")?;
    let ended = std::sync::atomic::AtomicBool::new(false);
    let write = || {
        let (mut number, mut longest) = (0, Duration::ZERO);
        while !ended.load(std::sync::atomic::Ordering::Acquire) {
            longest = longest.max(timed(|| other.put(in_order(number), "beside"))?.0);
            number += 1;
        }
        Ok(longest)
    };
    let ingest = || {
        let mut ingest = table.ingest()?;
        for number in 0..setting.records {
            ingest.put(in_order(number), setting.value(number))?;
        }
        ingest.finish()
    };
    let (alone, _) = timed(ingest)?;
    let longest = std::thread::scope(|scope| {
        let writer = scope.spawn(write);
        let ingested = ingest();
        ended.store(true, std::sync::atomic::Ordering::Release);
        let longest = writer.join().unwrap_or(Err(Error::Closed))?;
        ingested.map(|_| longest)
    })?;
    let (scan, count) = timed(|| {
        let mut count = 0_u64;
        table.scan(KeyRange::ALL).visit(|_, _| {
            count += 1;
            true
        })?;
        Ok(count)
    })?;
    Ok(vec![
        Figure { label: "", value: rate(setting.records, alone), unit: "1/s" },
        Figure { label: ": longest commit beside it", value: longest.as_secs_f64(), unit: "s" },
        Figure { label: ": full scan", value: rate(count, scan), unit: "1/s" },
    ])
}

fn load_at_random(setting: &Setting) -> Result<Vec<Figure>, Error> {
    let dir = temporary()?;
    let path = dir.path().join("db");
    let (db, table) = setting.open(&path)?;
    let (took, ()) = timed(|| setting.load(&db, &table, scattered))?;
    let (settle, ()) = timed(|| db.compact())?;
    let reads = |thread: u64| {
        let mut seed = 88_172_645_463_325_252_u64.wrapping_add(thread);
        for _ in 0..READS {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let found = table.get(scattered(seed % setting.records))?;
            if found.is_none() {
                return Err(Error::Invalid("a record that was loaded is not there".into()));
            }
        }
        Ok(())
    };
    // The first pass fills the cache.
    reads(0)?;
    let (one, ()) = timed(|| reads(1))?;
    let (two, ()) = timed(|| {
        std::thread::scope(|scope| {
            let other = scope.spawn(|| reads(2));
            reads(3)?;
            other.join().unwrap_or(Err(Error::Closed))
        })
    })?;
    let (full, count) = timed(|| {
        let mut count = 0_u64;
        table.scan(KeyRange::ALL).visit(|_, _| {
            count += 1;
            true
        })?;
        Ok(count)
    })?;
    let (short, ()) = timed(|| {
        for number in 0..SHORT_SCANS {
            let from = scattered(number % setting.records);
            let mut left = 50;
            table.scan(KeyRange::new(from, None)).visit(|_, _| {
                left -= 1;
                left > 0
            })?;
        }
        Ok(())
    })?;
    let bytes = db.status()?.run_bytes;
    drop((table, db));
    let (open, ()) = timed(|| {
        let db = Database::open(&path)?;
        db.table("t")?.get(scattered(7)).map(|_| ())
    })?;
    Ok(vec![
        Figure { label: "", value: rate(setting.records, took), unit: "1/s" },
        Figure { label: ": compaction of everything", value: settle.as_secs_f64(), unit: "s" },
        Figure { label: ": point reads, 1 thread", value: rate(READS, one), unit: "1/s" },
        Figure { label: ": point reads, 2 threads", value: rate(2 * READS, two), unit: "1/s" },
        Figure { label: ": full scan", value: rate(count, full), unit: "1/s" },
        Figure { label: ": scans of 50", value: rate(SHORT_SCANS, short), unit: "1/s" },
        Figure { label: ": size on disk", value: bytes as f64, unit: "B" },
        Figure { label: ": open and first read", value: open.as_secs_f64(), unit: "s" },
    ])
}

fn durable_commits(setting: &Setting) -> Result<Vec<Figure>, Error> {
    let mut figures = Vec::new();
    for (label, writers) in [(", 1 writer", 1_u64), (", 16 writers", 16)] {
        let dir = temporary()?;
        let (db, table) = setting.open(&dir.path().join("db"))?;
        let each = (DURABLE_COMMITS / writers).max(500);
        let write = |writer: u64| {
            for number in 0..each {
                let mut batch = Batch::new();
                batch.put(table.id(), scattered(writer * each + number), setting.value(number));
                db.write(batch, Durability::Synced)?;
            }
            Ok(())
        };
        let (took, ()) = timed(|| {
            std::thread::scope(|scope| {
                let threads: Vec<_> = (0..writers).map(|writer| scope.spawn(move || write(writer))).collect();
                threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err(Error::Closed)))
            })
        })?;
        figures.push(Figure { label, value: rate(each * writers, took), unit: "1/s" });
    }
    Ok(figures)
}

fn local_clone(setting: &Setting) -> Result<Vec<Figure>, Error> {
    let dir = temporary()?;
    let (db, table) = setting.open(&dir.path().join("db"))?;
    setting.load(&db, &table, scattered)?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let took = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut number = 0;
            while !stop.load(std::sync::atomic::Ordering::Acquire) {
                let mut batch = Batch::new();
                batch.put(table.id(), scattered(number % setting.records), "changed meanwhile");
                db.write(batch, Durability::Synced)?;
                number += 1;
            }
            Ok(())
        });
        let cloned = timed(|| db.clone_to(dir.path().join("clone")));
        stop.store(true, std::sync::atomic::Ordering::Release);
        writer.join().unwrap_or(Err(Error::Closed))?;
        cloned.map(|(took, _)| took)
    })?;
    Ok(vec![Figure { label: ", writer connected", value: took.as_secs_f64(), unit: "s" }])
}
