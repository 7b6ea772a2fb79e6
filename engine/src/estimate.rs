//! What bringing a copy up to date would take, told before it is done.

use std::sync::Arc;

use planaria_types::Uid;

use crate::database::{Database, Snapshot};
use crate::portion::Spans;
use crate::run::{IndexEntry, Run};
use crate::version::RunRef;

/// Blocks with changes and without that are looked into for an estimate, at most.
const MIXED_BLOCKS: usize = 128;
/// Blocks with changes alone that are looked into for an estimate, at most.
const NEWER_BLOCKS: usize = 16;

/// What bringing a copy up to date would take, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RefreshEstimate {
    /// Whether memory or the log holds every commit since the position.
    pub retained: bool,
    /// Commits since the position: about what the log holds of them.
    pub tail_bytes: u64,
    /// Records that changed since the position, of each key the newest, keys and rows as they are: an estimate from a sample of
    /// their blocks.
    pub delta_bytes: u64,
    /// All run files.
    pub total_bytes: u64,
    /// Records that are in memory alone, as they are: whoever takes run files has them written to some more.
    pub memory_bytes: u64,
}

impl Database {
    /// What bringing a copy at `since` up to date would take.
    pub fn estimate_refresh(&self, since: Uid) -> RefreshEstimate {
        let store = self.store();
        let version = store.pin().0;
        let (mut changed, mut total_bytes, mut memory_bytes) = (Changed::since(since), 0, 0);
        for fragment in version.fragments() {
            changed.add_bytes(fragment.memtable_changed_bytes(since));
            memory_bytes += fragment.memtable_changed_bytes(Uid::ZERO);
            for reference in fragment.references() {
                total_bytes += reference.bytes();
                changed.add(reference, 1.0);
            }
        }
        let retained = since >= store.appended()
            || store.feed.after(since, 1).is_some()
            || store.segment_before(since).is_some_and(|from| from.number >= store.log.retained_from());
        RefreshEstimate {
            retained,
            tail_bytes: self.tail_bytes(since),
            delta_bytes: changed.bytes(),
            total_bytes,
            memory_bytes,
        }
    }

    /// About the bytes of the marks of deletes above `position`: in each run their share of all records.
    pub(crate) fn mark_bytes(&self, position: Uid) -> u64 {
        let version = self.store().pin().0;
        let mut changed = Changed::since(position);
        for reference in version.fragments().iter().flat_map(|fragment| fragment.references()) {
            let meta = reference.run.meta();
            let marks = meta.records.saturating_sub(meta.puts);
            changed.add(reference, marks as f64 / meta.records.max(1) as f64);
        }
        changed.bytes()
    }

    /// About the bytes of the log above `since`: counted where the commits are in memory, else whole segments, and of the one
    /// that `since` lies in the part that its UIDs suggest.
    fn tail_bytes(&self, since: Uid) -> u64 {
        let store = self.store();
        let appended = store.appended();
        if since >= appended {
            return 0;
        }
        if let Some((_, bytes)) = store.feed.measure_after(since) {
            return bytes;
        }
        let Some(from) = store.segment_before(since) else { return 0 };
        let segments = store.log.segments();
        let behind =
            segments.iter().filter(|own| own.number > from.number).map(|own| own.end_offset).sum::<u64>();
        let begun = segments.iter().find(|own| own.number == from.number).map_or(0, |own| own.end_offset);
        let until = store.segment_after(from.number).map_or(appended, |next| next.uid);
        let all_ms = until.millis().saturating_sub(from.uid.millis()).max(1);
        let rest_ms = until.millis().saturating_sub(since.millis()).min(all_ms);
        behind + (u128::from(begun) * u128::from(rest_ms) / u128::from(all_ms)) as u64
    }
}

impl Snapshot {
    /// What bringing a copy at `since` up to date would take that holds these spans alone. The log is no way for it.
    pub fn estimate_within(&self, spans: &Spans, since: Uid) -> RefreshEstimate {
        let (mut changed, mut total_bytes, mut memory_bytes) = (Changed::since(since), 0, 0);
        for (table, span) in spans {
            for fragment in self.version().overlapping(*table, span) {
                changed.add_bytes(fragment.memtable_changed_bytes(since));
                memory_bytes += fragment.memtable_changed_bytes(Uid::ZERO);
                for reference in fragment.references().filter_map(|whole| whole.clip(span)) {
                    total_bytes += reference.bytes();
                    changed.add(&reference, 1.0);
                }
            }
        }
        RefreshEstimate {
            retained: false,
            tail_bytes: 0,
            delta_bytes: changed.bytes(),
            total_bytes,
            memory_bytes,
        }
    }
}

/// About the bytes of the records of many runs above a UID, of each key the newest, keys and rows as they are.
///
/// The indexes tell the blocks that hold any. Whole blocks would mislead where changes are scattered, a hundred records
/// to a block, or where a key has many versions: the share that counts is taken from a sample of the blocks, of the same
/// size however many runs there are.
struct Changed {
    since: Uid,
    /// What needs no sample.
    bytes: u64,
    /// Blocks with newer records and others.
    mixed: Sampled,
    /// Blocks with newer records alone: what counts less are older versions of a key.
    newer: Sampled,
}

impl Changed {
    /// Nothing yet, to be counted above `since`.
    fn since(since: Uid) -> Self {
        Self { since, bytes: 0, mixed: Sampled::of(MIXED_BLOCKS), newer: Sampled::of(NEWER_BLOCKS) }
    }

    fn add_bytes(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// Adds what a reference shows, times `weight`.
    fn add(&mut self, reference: &RunRef, weight: f64) {
        if reference.is_as_old_as(self.since) || weight == 0.0 {
            return;
        }
        let run = &reference.run;
        let meta = run.meta();
        // Where the file is not here yet, all of it may have changed.
        let Some((index, blocks)) = reference.blocks() else {
            self.bytes += (meta.raw_bytes as f64 * weight) as u64;
            return;
        };
        // Records move as they are, and lie compressed.
        let scale = meta.raw_bytes as f64 / meta.len.max(1) as f64 * weight;
        for at in blocks {
            let Some(entry) = index.entry(at).filter(|entry| entry.highest_uid > self.since) else {
                continue;
            };
            let sampled = if entry.smallest_uid > self.since { &mut self.newer } else { &mut self.mixed };
            sampled.add(run, at, entry, scale);
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes + (self.mixed.bytes(self.since) + self.newer.bytes(self.since)).ceil() as u64
    }
}

/// Blocks of which some are looked into.
struct Sampled {
    /// Keys and rows of all blocks.
    bytes: f64,
    blocks: EveryNth<SampledBlock>,
}

struct SampledBlock {
    run: Arc<Run>,
    at: usize,
    bytes: f64,
}

impl Sampled {
    fn of(most: usize) -> Self {
        Self { bytes: 0.0, blocks: EveryNth::new(most) }
    }

    fn add(&mut self, run: &Arc<Run>, at: usize, entry: &IndexEntry, scale: f64) {
        let bytes = f64::from(entry.len) * scale;
        self.bytes += bytes;
        self.blocks.see(|| SampledBlock { run: Arc::clone(run), at, bytes });
    }

    /// The bytes of what is above `since`.
    fn bytes(&self, since: Uid) -> f64 {
        let (mut seen, mut changed) = (0.0, 0.0);
        for sample in &self.blocks.picked {
            // A block that cannot be read is somebody else's error; here it only makes the estimate coarser.
            let Ok(block) = sample.run.block(sample.at) else { continue };
            let Ok(keys) = block.keys_above(since) else { continue };
            seen += sample.bytes;
            changed += sample.bytes * keys as f64 / block.count().max(1) as f64;
        }
        if seen == 0.0 { self.bytes } else { self.bytes * changed / seen }
    }
}

/// Every n-th of a sequence whose length is not known before: n doubles whenever there are too many.
struct EveryNth<T> {
    n: u64,
    seen: u64,
    /// Even, so that the next one is due when every second has gone.
    most: usize,
    picked: Vec<T>,
}

impl<T> EveryNth<T> {
    fn new(most: usize) -> Self {
        Self { n: 1, seen: 0, most: most.next_multiple_of(2), picked: Vec::new() }
    }

    fn see(&mut self, one: impl FnOnce() -> T) {
        let is_due = self.seen.is_multiple_of(self.n);
        self.seen += 1;
        if !is_due {
            return;
        }
        if self.picked.len() == self.most {
            let mut keep = false;
            self.picked.retain(|_| {
                keep = !keep;
                keep
            });
            self.n *= 2;
        }
        self.picked.push(one());
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::Arc;

    use planaria_types::Uid;

    use super::EveryNth;
    use crate::os::{MemOs, Os};
    use crate::{Batch, Database, Durability, Options, Table};

    /// A database in memory that does nothing by itself, and a table in it.
    fn database() -> (Database, Table) {
        let os: Arc<dyn Os> = Arc::new(MemOs::new(1));
        let options = Options { background: false, os, ..Options::default() };
        let db = Database::open_with("/db", options).unwrap();
        let table = db.create_raw_table("t").unwrap();
        (db, table)
    }

    /// Rows of a hundred bytes under these keys, as one commit.
    fn write(db: &Database, table: &Table, keys: &mut dyn Iterator<Item = u64>, byte: u8) -> Uid {
        let mut batch = Batch::new();
        for key in keys {
            batch.put(table.id(), key.to_be_bytes(), vec![byte; 100]);
        }
        db.write(batch, Durability::Background).unwrap()
    }

    #[test]
    fn every_nth_is_picked_evenly_from_a_sequence_of_any_length() {
        for len in [0, 1, 7, 8, 9, 100, 1_000, 12_345] {
            let mut every = EveryNth::new(8);
            (0..len).for_each(|at| every.see(|| at));
            let expected: Vec<u64> = (0..len).step_by(every.n as usize).collect();
            assert_eq!(every.picked, expected);
            assert!(every.picked.len() <= 8 && (every.n == 1 || every.picked.len() > 4));
        }
    }

    #[test]
    fn a_record_that_changed_again_and_again_moves_once() {
        let (db, table) = database();
        let put = |keys: &mut dyn Iterator<Item = u64>, turn: u8| write(&db, &table, keys, turn);
        let since = put(&mut (0..20_000), 0);
        db.compact().unwrap();
        put(&mut (0..20_000).step_by(100), 1);
        db.compact().unwrap();
        let moves_once = db.estimate_refresh(since).delta_bytes;
        // The copy that is away may lead, so every version is kept that it might have to go back to.
        db.set_floors(Some(since), Some(since));
        for turn in 2..52 {
            put(&mut (0..20_000).step_by(100), turn);
        }
        db.compact().unwrap();
        let versions: u64 = db.status().unwrap().tables.iter().map(|table| table.versions).sum();
        assert!(versions > 29_000, "old versions are there: {versions}");
        let estimate = db.estimate_refresh(since);
        assert!(estimate.delta_bytes < 4 * moves_once, "{estimate:?}, after {moves_once} bytes");
        // In memory as well, where they are not compressed.
        for turn in 52..102 {
            put(&mut (0..20_000).step_by(100), turn);
        }
        let estimate = db.estimate_refresh(since);
        assert!(
            estimate.delta_bytes < 4 * moves_once + 2 * 200 * 108,
            "{estimate:?}, after {moves_once} bytes"
        );
        let last = put(&mut (0..100), 1);
        assert_eq!(db.estimate_refresh(last).delta_bytes, 0);
    }

    #[test]
    fn the_length_of_the_log_since_a_position_is_told_by_its_time() {
        let disk = MemOs::new(1);
        let os: Arc<dyn Os> = Arc::new(disk.clone());
        let options = Options { background: false, log_segment_bytes: 256 << 10, os, ..Options::default() };
        let db = Database::open_with("/db", options.clone()).unwrap();
        let table = db.create_raw_table("t").unwrap();
        let put = |key: u64| {
            disk.set_now_millis(disk.now_millis() + 10);
            table.put(key.to_be_bytes(), vec![7; 2_000]).unwrap()
        };
        let commits: Vec<_> = (0..1_700).map(put).collect();
        let tail = |db: &Database, since| db.estimate_refresh(since).tail_bytes;
        assert_eq!(tail(&db, *commits.last().unwrap()), 0);
        drop((table, db));
        // The commits are no longer in memory.
        let db = Database::open_with("/db", options).unwrap();
        // The first UIDs were ahead of the clock.
        for (at, since) in commits.iter().enumerate().skip(700).step_by(11) {
            let rest = 2_000 * (1_699 - at) as u64;
            let told = tail(&db, *since);
            assert!(told >= rest && told <= rest + rest / 5 + 8_000, "{told} of {rest}");
        }
    }

    #[test]
    fn changes_scattered_over_all_blocks_are_not_taken_for_all_records() {
        let (db, table) = database();
        let since = write(&db, &table, &mut (0..20_000), 7);
        write(&db, &table, &mut (0..20_000).step_by(100), 7);
        db.compact().unwrap();
        let changed = db.estimate_refresh(since).delta_bytes;
        let whole = db.estimate_refresh(Uid::ZERO).delta_bytes;
        // As they move, keys and rows, though they are compressed to a tenth of it.
        for (told, records) in [(changed, 200), (whole, 20_000)] {
            let moves = records * 108;
            assert!(told > moves * 3 / 4 && told < moves * 5 / 4, "{told} bytes of {moves}");
        }
    }

    #[test]
    fn a_run_that_two_fragments_show_counts_once() {
        let (db, table) = database();
        write(&db, &table, &mut (0..20_000), 7);
        db.compact().unwrap();
        for key in [5_000_u64, 10_000, 15_000] {
            db.split(table.id(), &key.to_be_bytes()).unwrap();
        }
        let moves = 20_000 * 108;
        let told = db.estimate_refresh(Uid::ZERO).delta_bytes;
        assert!(told > moves * 3 / 4 && told < moves * 5 / 4, "{told} bytes of {moves}");
    }
}
