use planaria_types::Uid;

use super::ledger::{Commit, Key, KeySet, Kind, Row};

/// One version of one key in a run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Record {
    /// The key.
    pub key: Key,
    /// The commit that wrote it, which also stands for the row's bytes.
    pub row: Row,
    /// Row or delete mark.
    pub kind: Kind,
}

impl Record {
    /// The UID of the version.
    pub fn uid(&self) -> Uid {
        self.row.uid
    }

    /// What the record says of its key.
    pub fn content(&self) -> Option<Row> {
        (self.kind == Kind::Put).then_some(self.row)
    }
}

/// The records of a commit.
pub(super) fn records_of(commit: &Commit) -> impl Iterator<Item = Record> {
    let (changes, row) = (commit.changes, Row::at(commit.position));
    (0..Key::LIMIT).map(Key).filter_map(move |key| changes.kind_of(key).map(|kind| Record { key, row, kind }))
}

/// A UID interval of which only the newest versions are there: no cut strictly inside is readable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Gap {
    /// The position from which a delta was taken: readable.
    pub from: Uid,
    /// The highest chunk snapshot of the delta: readable.
    pub to: Uid,
}

impl Gap {
    /// Whether a cut lies where nothing can be read.
    pub fn hides(&self, cut: Uid) -> bool {
        self.from < cut && cut < self.to
    }
}

/// A reference to a run: it owns the keys `keys.0 .. keys.1` in the UIDs above `low`, up to and including `high`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Rectangle {
    /// UIDs at or below belong to what is stacked underneath; zero at the bottom.
    pub low: Uid,
    /// The highest UID owned.
    pub high: Uid,
    /// First key and the key after the last.
    pub keys: (u8, u8),
    /// The records, by key and UID.
    pub records: Vec<Record>,
    /// Sparse intervals, which survive every merge.
    pub gaps: Vec<Gap>,
}

impl Rectangle {
    /// A rectangle of the given records, of which only those inside it are taken.
    pub fn new(low: Uid, high: Uid, keys: (u8, u8), records: impl IntoIterator<Item = Record>) -> Self {
        let inside = |record: &Record| {
            keys.0 <= record.key.0 && record.key.0 < keys.1 && low < record.uid() && record.uid() <= high
        };
        let mut records: Vec<Record> = records.into_iter().filter(inside).collect();
        records.sort_unstable();
        Self { low, high, keys, records, gaps: Vec::new() }
    }

    /// Whether the rectangle owns the key at some UID.
    pub fn spans(&self, key: Key) -> bool {
        self.keys.0 <= key.0 && key.0 < self.keys.1
    }

    /// The same run with fewer keys.
    fn narrowed(&self, keys: (u8, u8)) -> Option<Self> {
        let mut part = Self::new(self.low, self.high, keys, self.records.iter().copied());
        part.gaps.clone_from(&self.gaps);
        (keys.0 < keys.1).then_some(part)
    }

    /// What is left beside `keys`.
    fn beside(&self, keys: (u8, u8)) -> impl Iterator<Item = Self> {
        let before = self.narrowed((self.keys.0, keys.0.min(self.keys.1)));
        let after = self.narrowed((keys.1.max(self.keys.0), self.keys.1));
        before.into_iter().chain(after)
    }
}

/// What a merge may drop.
#[derive(Clone, Debug)]
pub struct Retention {
    /// Shadowed versions go only if their successor is at or below.
    pub stable: Uid,
    /// Delete marks go only at or below, and only at the bottom.
    pub marks: Uid,
    /// Cuts that stay readable whatever goes.
    pub snapshots: Vec<Uid>,
    /// A planted fault: the merged rectangle forgets that it is sparse.
    pub forget_gaps: bool,
}

/// What a merge did drop.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Dropped {
    /// The highest successor of a dropped version.
    pub version_successor: Uid,
    /// The highest dropped delete mark that nothing shadowed.
    pub mark: Uid,
}

/// The rectangles of a copy. Over each key they are stacked by UID without overlap or hole.
#[derive(Clone, PartialEq, Eq, Hash, Default, Debug)]
pub struct Stack {
    rectangles: Vec<Rectangle>,
}

impl Stack {
    /// The rectangles, lower first.
    pub fn rectangles(&self) -> &[Rectangle] {
        &self.rectangles
    }

    /// The newest version of `key` at or below `cut`: the first hit from above is the answer.
    pub fn newest(&self, key: Key, cut: Uid) -> Option<Record> {
        let versions = self.rectangles.iter().filter(|rectangle| rectangle.spans(key));
        let records = versions.flat_map(|rectangle| &rectangle.records);
        records
            .filter(|record| record.key == key && record.uid() <= cut)
            .max_by_key(|record| record.uid())
            .copied()
    }

    /// Whether a sparse interval hides the cut.
    pub fn hides(&self, cut: Uid) -> bool {
        self.rectangles.iter().any(|rectangle| rectangle.gaps.iter().any(|gap| gap.hides(cut)))
    }

    /// The keys with a record above `uid`.
    pub fn keys_above(&self, uid: Uid) -> KeySet {
        let records = self.rectangles.iter().flat_map(|rectangle| &rectangle.records);
        records.filter(|record| record.uid() > uid).map(|record| record.key).collect()
    }

    /// Adds a rectangle on top.
    pub fn add(&mut self, rectangle: Rectangle) {
        if rectangle.low < rectangle.high && rectangle.keys.0 < rectangle.keys.1 {
            self.rectangles.push(rectangle);
            self.rectangles.sort_unstable();
        }
    }

    /// Takes everything above `uid` out of every rectangle.
    pub fn clip(&mut self, uid: Uid) {
        self.rectangles.retain(|rectangle| rectangle.low < uid);
        for rectangle in &mut self.rectangles {
            rectangle.high = rectangle.high.min(uid);
            rectangle.records.retain(|record| record.uid() <= uid);
            rectangle.gaps.retain(|gap| gap.from < uid);
        }
    }

    /// Ends every sparse interval.
    pub fn fill_gaps(&mut self) {
        for rectangle in &mut self.rectangles {
            rectangle.gaps.clear();
        }
    }

    /// Takes a key range out of every rectangle, at every UID.
    pub fn carve(&mut self, keys: (u8, u8)) {
        let carved = self.rectangles.iter().flat_map(|rectangle| rectangle.beside(keys)).collect();
        self.rectangles = carved;
        self.rectangles.sort_unstable();
    }

    /// The pairs that may be merged: one stacked right on the other over some key.
    pub fn neighbours(&self) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        for (lower, below) in self.rectangles.iter().enumerate() {
            for (upper, above) in self.rectangles.iter().enumerate() {
                if below.high == above.low && below.keys.0.max(above.keys.0) < below.keys.1.min(above.keys.1)
                {
                    pairs.push((lower, upper));
                }
            }
        }
        pairs
    }

    /// Merges two neighbours over the keys that both span; what they own beside those stays as it is.
    /// Returns `None` if they are not neighbours.
    pub fn merge(&mut self, lower: usize, upper: usize, retention: &Retention) -> Option<Dropped> {
        if !self.neighbours().contains(&(lower, upper)) {
            return None;
        }
        let (below, above) = (self.rectangles.get(lower)?.clone(), self.rectangles.get(upper)?.clone());
        let keys = (below.keys.0.max(above.keys.0), below.keys.1.min(above.keys.1));
        let mut merged = below.narrowed(keys)?;
        let over = above.narrowed(keys)?;
        merged.high = over.high;
        merged.records.extend(over.records);
        merged.records.sort_unstable();
        merged.gaps.extend(over.gaps);
        merged.gaps.sort_unstable();
        merged.gaps.dedup();
        if retention.forget_gaps {
            merged.gaps.clear();
        }
        let dropped = retain(&mut merged, retention);
        let kept = self.rectangles.iter().enumerate().filter(|(at, _)| *at != lower && *at != upper);
        let mut rectangles: Vec<Rectangle> = kept.map(|(_, rectangle)| rectangle.clone()).collect();
        rectangles.extend(below.beside(keys).chain(above.beside(keys)));
        self.rectangles = rectangles;
        self.add(merged);
        Some(dropped)
    }
}

/// Drops from a merged rectangle what the two floors allow.
fn retain(merged: &mut Rectangle, retention: &Retention) -> Dropped {
    let mut dropped = Dropped::default();
    let mut kept: Vec<Record> = Vec::with_capacity(merged.records.len());
    let mut versions = merged.records.iter().copied().peekable();
    while let Some(version) = versions.next() {
        let successor = versions.peek().filter(|next| next.key == version.key).map(Record::uid);
        let pinned =
            |w: Uid| retention.snapshots.iter().any(|snapshot| version.uid() <= *snapshot && *snapshot < w);
        if let Some(w) = successor.filter(|w| *w <= retention.stable && !pinned(*w)) {
            dropped.version_successor = dropped.version_successor.max(w);
            continue;
        }
        let lowest = kept.last().is_none_or(|last| last.key != version.key);
        let bottom = merged.low == Uid::ZERO;
        if bottom && lowest && version.kind == Kind::Delete && version.uid() <= retention.marks {
            dropped.mark = dropped.mark.max(version.uid());
            continue;
        }
        kept.push(version);
    }
    merged.records = kept;
    dropped
}
