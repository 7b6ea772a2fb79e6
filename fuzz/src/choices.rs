use bytes::Bytes;
use planaria_replication::{Bound, Commit, PartSum, Record, RecordKind, Span, Tiling};
use planaria_types::{Epoch, History, HistoryEntry, HistoryHash, KeyRange, Portion, TableId, Uid};

/// Decisions taken from the bytes of an input, one after the other; 0 where the input has ended.
///
/// Numbers are small, so that what is chosen meets what was chosen before.
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn below(&mut self, bound: u8) -> u8 {
        self.byte() % bound
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    pub(crate) fn uid(&mut self) -> Uid {
        Uid::new(u64::from(self.below(24)))
    }

    /// A number near another one: most often it, sometimes one beside it, rarely any.
    pub(crate) fn near(&mut self, number: u64) -> u64 {
        match self.below(8) {
            0 => number.wrapping_add(1),
            1 => number.wrapping_sub(1),
            2 => u64::from(self.byte()),
            3 => u64::MAX,
            _ => number,
        }
    }

    pub(crate) fn epoch(&mut self) -> Epoch {
        let term = u64::from(self.below(3)) + 1;
        Epoch { term, incarnation: u64::from(self.below(2)), nonce: term + u64::from(self.below(8) == 7) }
    }

    /// A history in order, as validation lets only such ones pass; empty now and then.
    pub(crate) fn history(&mut self) -> History {
        let mut entries: Vec<HistoryEntry> = Vec::new();
        for _ in 0..self.below(4) {
            let mut entry = self.entry();
            if entries.is_empty() {
                entry.inherited = Uid::ZERO;
            }
            let mut longer = entries.clone();
            longer.push(entry);
            if History::from_entries(longer.clone()).is_some() {
                entries = longer;
            }
        }
        History::from_entries(entries).unwrap_or_default()
    }

    pub(crate) fn entry(&mut self) -> HistoryEntry {
        HistoryEntry {
            epoch: self.epoch(),
            inherited: self.uid(),
            hash: HistoryHash(u128::from(self.below(2))),
        }
    }

    /// What a partial copy is to hold: always the same, and nothing is drawn for it.
    pub(crate) fn portion() -> Portion {
        let keys = KeyRange::new(*b"b", Some(b"m".to_vec()));
        Portion::new([("a".to_owned(), KeyRange::ALL), ("b".to_owned(), keys)]).unwrap_or_default()
    }

    pub(crate) fn hash(&mut self) -> Option<HistoryHash> {
        match self.below(3) {
            0 => None,
            other => Some(HistoryHash(u128::from(other))),
        }
    }

    pub(crate) fn key(&mut self) -> Bytes {
        Bytes::from(vec![self.below(8)])
    }

    pub(crate) fn commits(&mut self, after: Uid) -> Vec<Commit> {
        let mut predecessor = Uid::new(self.near(after.get()));
        let mut commits = Vec::new();
        for _ in 0..self.below(4) {
            let uid = Uid::new(predecessor.get().saturating_add(u64::from(self.below(3)) + 1));
            if uid <= predecessor {
                break;
            }
            let bytes = Bytes::from(vec![0; usize::from(self.byte())]);
            commits.push(Commit { uid, predecessor, hash: HistoryHash(u128::from(uid.get())), bytes });
            predecessor = Uid::new(self.near(uid.get()));
        }
        commits
    }

    pub(crate) fn table(&mut self) -> TableId {
        TableId(u32::from(self.below(2)))
    }

    pub(crate) fn spans(&mut self) -> Vec<Span> {
        let some = self.below(3);
        (0..some).map(|_| self.span()).collect()
    }

    fn span(&mut self) -> Span {
        let table = self.table();
        if self.flag() {
            return Span::all(table);
        }
        let end = self.flag().then(|| self.key().to_vec());
        Span { table, keys: KeyRange { start: self.key().to_vec(), end } }
    }

    /// Eight bytes of a fingerprint, few enough that two are equal now and then.
    pub(crate) fn short(&mut self) -> [u8; 8] {
        [self.below(2); 8]
    }

    /// Parts with bounds in any order, and as many sums as bounds ask for, or others.
    pub(crate) fn tilings(&mut self) -> Vec<Tiling> {
        let some = self.below(3);
        (0..some).map(|_| self.tiling()).collect()
    }

    fn tiling(&mut self) -> Tiling {
        let table = self.table();
        let bounds = usize::from(self.below(4));
        let sums = if self.below(6) == 0 { usize::from(self.below(5)) } else { bounds + 1 };
        Tiling {
            table,
            bounds: (0..bounds)
                .map(|_| Bound { shared: u16::from(self.below(8) / 6), rest: self.key() })
                .collect(),
            sums: (0..sums)
                .map(|_| PartSum { count: u64::from(self.below(3)), short: self.short() })
                .collect(),
        }
    }

    pub(crate) fn records(&mut self, kinds: u8) -> Vec<Record> {
        let some = self.below(5);
        (0..some).map(|_| self.record(kinds)).collect()
    }

    fn record(&mut self, kinds: u8) -> Record {
        let end = if self.flag() { None } else { Some(self.key()) };
        let (kind, row) = match self.below(kinds) {
            0 => (RecordKind::Put, Bytes::from(vec![1; usize::from(self.byte())])),
            1 => (RecordKind::Delete, Bytes::new()),
            2 => (RecordKind::RangeDelete(end), Bytes::new()),
            3 => (RecordKind::Absent, Bytes::new()),
            _ => (RecordKind::RangeAbsent(end), Bytes::new()),
        };
        Record { table: self.table(), key: self.key(), uid: self.uid(), kind, row }
    }
}
