//! What the model store knows of a reconcile: parts of its records, and ranges that take the place of others.

use planaria_replication::primary::{PartsRead, RangesRead};
use planaria_replication::secondary::Install;
use planaria_replication::{PartSum, Record, Span, Tiling};
use planaria_types::{Fingerprint, KeyRange, TableId, Uid};

use crate::store::{Content, Store, insert, record};

const TABLE: TableId = TableId(1);

/// Ranges that were replaced, not yet installed. The later one counts where two overlap.
#[derive(Clone, Default)]
pub(crate) struct Replacing {
    base: Uid,
    pieces: Vec<(KeyRange, Vec<Record>)>,
}

fn holds(keys: &KeyRange, key: u8) -> bool {
    keys.contains(&[key])
}

fn sum(content: &Content, keys: &KeyRange) -> PartSum {
    let mut sum = Fingerprint::EMPTY;
    for (key, (uid, value)) in content.iter().filter(|(key, _)| holds(keys, **key)) {
        let mut hash = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d_u128;
        for word in [u64::from(*key), uid.get(), *value] {
            hash = (hash ^ u128::from(word)).wrapping_mul(0x0100_0000_01b3_0000_0001_0000_01b3);
            hash ^= hash >> 61;
        }
        sum.add_hash(hash);
    }
    PartSum { count: sum.count, short: sum.short() }
}

fn tiling(content: &Content, keys: &KeyRange, parts: u32) -> Tiling {
    let inside: Vec<u8> = content.keys().copied().filter(|key| holds(keys, *key)).collect();
    let share = inside.len().div_ceil(parts.max(1) as usize).max(1);
    let firsts: Vec<Vec<u8>> = inside.iter().step_by(share).skip(1).map(|key| vec![*key]).collect();
    let starts = std::iter::once(keys.start.clone()).chain(firsts.iter().cloned());
    let ends = firsts.iter().cloned().map(Some).chain([keys.end.clone()]);
    let sums = starts.zip(ends).map(|(start, end)| sum(content, &KeyRange::new(start, end))).collect();
    Tiling::new(TABLE, &firsts, sums)
}

impl Store {
    pub(crate) fn parts(&mut self, session: u64, spans: &[Span], parts: u32, pinned: bool) -> PartsRead {
        let (snapshot, content) = self.seen(session, pinned);
        let tilings = if spans.is_empty() {
            let exists = !content.is_empty();
            exists.then(|| tiling(&content, &KeyRange::ALL, parts)).into_iter().collect()
        } else {
            spans.iter().map(|span| tiling(&content, &span.keys, parts)).collect()
        };
        PartsRead::Parts { snapshot, tilings }
    }

    pub(crate) fn ranges(&mut self, session: u64, spans: &[Span], pinned: bool, max: u64) -> RangesRead {
        let (snapshot, content) = self.seen(session, pinned);
        let mut records: Vec<Record> = Vec::new();
        let mut done = 0;
        for span in spans {
            for (key, (uid, value)) in content.iter().filter(|(key, _)| holds(&span.keys, **key)) {
                if records.len() as u64 * 41 >= max {
                    let next = (*key > span.keys.start.first().copied().unwrap_or(0)).then(|| vec![*key]);
                    return RangesRead::Ranges { snapshot, done, next: next.map(Into::into), records };
                }
                records.push(record(*key, *uid, Some(*value)));
            }
            done += 1;
        }
        RangesRead::Ranges { snapshot, done, next: None, records }
    }

    pub(crate) fn begin_reconcile(&mut self, base: Uid) {
        self.collecting = None;
        self.replacing.get_or_insert_default().base = base;
    }

    pub(crate) fn own_tables(&self) -> Vec<TableId> {
        if self.records.is_empty() { Vec::new() } else { vec![TABLE] }
    }

    /// The copy's own sums, as they will be once what was replaced is installed.
    pub(crate) fn own_sums(&self, spans: &[Span]) -> Result<Vec<[u8; 8]>, String> {
        let replacing = self.replacing.as_ref().ok_or("sums without a reconcile")?;
        let mut staged = self.clone();
        staged.replace(replacing);
        let content = staged.content(Uid::MAX);
        Ok(spans.iter().map(|span| sum(&content, &span.keys).short).collect())
    }

    pub(crate) fn store_ranges(&mut self, spans: &[Span], records: &[Record]) -> Result<(), String> {
        let replacing = self.replacing.as_mut().ok_or("ranges without a reconcile")?;
        if records.iter().any(|record| !spans.iter().any(|span| span.holds(record))) {
            return Err("a record outside of the ranges that it came with".to_owned());
        }
        for span in spans {
            let inside = records.iter().filter(|record| span.holds(record)).cloned().collect();
            replacing.pieces.push((span.keys.clone(), inside));
        }
        Ok(())
    }

    fn replace(&mut self, replacing: &Replacing) {
        for versions in self.records.values_mut() {
            versions.split_off(&replacing.base.next());
        }
        for (keys, records) in &replacing.pieces {
            self.records.retain(|key, _| !holds(keys, *key));
            for record in records.iter().filter(|record| record.uid <= replacing.base) {
                insert(self.records.entry(record.key[0]).or_default(), record);
            }
        }
        self.records.retain(|_, versions| !versions.is_empty());
    }

    /// Puts the ranges in place; the rest is as with any other refresh.
    pub(crate) fn install_ranges(&mut self, install: &Install) -> Result<(), String> {
        let replacing = self.replacing.take().ok_or("an installation without a reconcile")?;
        if replacing.base != install.base {
            return Err(format!("ranges at {} installed at {}", replacing.base, install.base));
        }
        self.replace(&replacing);
        self.sparse.clear();
        self.version_floor = self.version_floor.max(install.cut);
        self.mark_floor = self.mark_floor.max(install.cut);
        Ok(())
    }

    /// The content of the pin, or of the current snapshot.
    fn seen(&mut self, session: u64, pinned: bool) -> (Uid, Content) {
        let (snapshot, versions, _) = self.view(session, pinned);
        let seen = Self { records: versions, ..Self::default() };
        (snapshot, seen.content(snapshot))
    }
}
