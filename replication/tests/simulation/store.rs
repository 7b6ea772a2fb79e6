//! A store small enough to be obviously right: versions in an ordered map, a log, and what of it is durable.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use planaria_replication::primary::{CommitsRead, DeltaRead, StatesRead, Survey};
use planaria_replication::secondary::{Install, KeptDelta, Local};
use planaria_replication::{Commit, PromotableSets, Record, RecordKind, RewindItem};
use planaria_types::{Epoch, History, HistoryHash, InstanceId, Position, TableId, Uid};

use crate::random::Random;
use crate::reconcile::Replacing;

pub(crate) const KEYS: u64 = 12;
/// The key of the record that names the promotable sets; the others are below.
pub(crate) const SETS_KEY: u8 = 250;
pub(crate) type Op = (u8, Option<u64>);
pub(crate) type Content = BTreeMap<u8, (Uid, u64)>;
pub(crate) type Versions = BTreeMap<u8, BTreeMap<Uid, Option<u64>>>;
type Cursor = Option<(TableId, Bytes)>;

/// Everything here survives a crash, but for what is marked.
#[derive(Clone, Default)]
pub(crate) struct Store {
    pub(crate) promised: Epoch,
    pub(crate) history: History,
    pub(crate) records: Versions,
    pub(crate) log: Vec<Commit>,
    /// The UID that the first commit of the log follows.
    pub(crate) log_base: Uid,
    pub(crate) appended: Uid,
    /// The log above this UID may be lost in a crash.
    pub(crate) synced: Uid,
    pub(crate) hashes: BTreeMap<Uid, HistoryHash>,
    pub(crate) visible: Uid,
    pub(crate) version_floor: Uid,
    pub(crate) mark_floor: Uid,
    pub(crate) sparse: Vec<(Uid, Uid)>,
    pub(crate) quarantined: Vec<(Uid, Uid)>,
    pub(crate) registered: BTreeMap<InstanceId, Uid>,
    /// Lost in a crash.
    pub(crate) collecting: Option<Collecting>,
    /// Lost in a crash.
    pub(crate) replacing: Option<Replacing>,
    /// Lost in a crash: the snapshots pinned for sessions.
    pub(crate) pins: BTreeMap<u64, (Uid, Versions, Uid)>,
}

#[derive(Clone)]
pub(crate) struct Collecting {
    pub(crate) round: u64,
    delta: Vec<Record>,
    /// How many of them are of rounds that were interrupted.
    kept: usize,
    /// What a later process goes on from, and how many records it has.
    marked: Option<(KeptDelta, usize)>,
    rewound: Vec<Record>,
}

pub(crate) fn encode(ops: &[Op]) -> Bytes {
    let mut bytes = Vec::new();
    for (key, value) in ops {
        bytes.push(*key);
        bytes.push(u8::from(value.is_some()));
        bytes.extend_from_slice(&value.unwrap_or(0).to_le_bytes());
    }
    Bytes::from(bytes)
}

fn decode(bytes: &[u8]) -> Vec<Op> {
    let op = |entry: &[u8]| {
        let value = u64::from_le_bytes(entry[2..10].try_into().expect("eight bytes"));
        (entry[0], (entry[1] == 1).then_some(value))
    };
    bytes.chunks(10).map(op).collect()
}

impl Store {
    pub(crate) fn content(&self, cut: Uid) -> Content {
        self.live(cut).collect()
    }

    /// What a cut shows, in the order of keys.
    pub(crate) fn live(&self, cut: Uid) -> impl Iterator<Item = (u8, (Uid, u64))> {
        let newest = move |versions: &BTreeMap<Uid, Option<u64>>| {
            let last = versions.last_key_value().filter(|(uid, _)| **uid <= cut);
            let last = last.or_else(|| versions.range(..=cut).next_back());
            last.and_then(|(uid, value)| value.map(|value| (*uid, value)))
        };
        self.records.iter().filter_map(move |(key, versions)| Some((*key, newest(versions)?)))
    }

    /// The history hash after everything appended; the hash of the empty state if nothing is.
    pub(crate) fn end_hash(&self) -> HistoryHash {
        self.hashes.get(&self.appended).copied().unwrap_or_default()
    }

    /// The promotable sets, as far as this copy's log goes.
    pub(crate) fn sets(&self) -> PromotableSets {
        let newest = self.records.get(&SETS_KEY).and_then(|versions| versions.last_key_value());
        let bits = newest.and_then(|(_, value)| *value).unwrap_or(0);
        let set =
            |bits: u64| (0..8).filter(|bit| bits >> bit & 1 == 1).map(|bit| InstanceId(bit + 1)).collect();
        PromotableSets { now: set(bits), next: (bits >> 16 & 1 == 1).then(|| set(bits >> 8)) }
    }

    /// The operation that writes the promotable sets down.
    pub(crate) fn sets_op(sets: &PromotableSets) -> Op {
        let bits = |set: &BTreeSet<InstanceId>| set.iter().fold(0_u64, |bits, id| bits | 1 << (id.0 - 1));
        let next = sets.next.as_ref().map_or(0, |next| bits(next) << 8 | 1 << 16);
        (SETS_KEY, Some(bits(&sets.now) | next))
    }

    /// A hash is stored only at some positions.
    pub(crate) fn hash_at(&self, uid: Uid) -> Option<HistoryHash> {
        if uid.get() % 4 == 1 { None } else { self.hashes.get(&uid).copied() }
    }

    pub(crate) fn local(&self) -> Local {
        Local {
            history: self.history.clone(),
            appended: self.appended,
            durable: self.synced,
            hash: self.hash_at(self.appended),
            visible: self.visible,
            version_floor: self.version_floor,
            mark_floor: self.mark_floor,
            sparse: self.sparse.clone(),
        }
    }

    pub(crate) fn write(&mut self, uid: Uid, ops: &[Op]) -> Commit {
        let bytes = encode(ops);
        let mut hash = self.end_hash().0 ^ u128::from(uid.get());
        for byte in &bytes {
            hash = (hash ^ u128::from(*byte)).wrapping_mul(0x0100_0000_01b3_0000_0001_0000_01b3);
        }
        let commit = Commit { uid, predecessor: self.appended, hash: HistoryHash(hash), bytes };
        self.append(commit.clone()).expect("it follows the end of the log");
        commit
    }

    pub(crate) fn append(&mut self, commit: Commit) -> Result<(), String> {
        if commit.predecessor != self.appended {
            return Err(format!("R2: {commit:?} appended to a log that ends at {}", self.appended));
        }
        for (key, value) in decode(&commit.bytes) {
            self.records.entry(key).or_default().insert(commit.uid, value);
        }
        self.appended = commit.uid;
        self.hashes.insert(commit.uid, commit.hash);
        self.log.push(commit);
        Ok(())
    }

    pub(crate) fn cut_off(&mut self, to: Uid) {
        for versions in self.records.values_mut() {
            versions.split_off(&to.next());
        }
        self.log.retain(|commit| commit.uid <= to);
        self.log_base = self.log_base.min(to);
        self.hashes.split_off(&to.next());
        self.appended = self.appended.min(to);
        self.synced = self.synced.min(to);
        self.visible = self.visible.min(to);
    }

    /// Loses a random part of what was not durable.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        let mut ends: Vec<Uid> =
            self.log.iter().map(|commit| commit.uid).filter(|uid| *uid > self.synced).collect();
        ends.push(self.synced);
        let end = ends[random.below(ends.len() as u64) as usize];
        self.cut_off(end);
        self.synced = self.appended;
        self.forget_collected();
        self.pins.clear();
    }

    /// What was shown beyond `shared` must have been quarantined before it goes.
    pub(crate) fn check_quarantine(&self, shared: Uid) -> Result<(), String> {
        let covered = |&(above, through): &(Uid, Uid)| above <= shared && through >= self.visible;
        if self.visible > shared && !self.quarantined.iter().any(covered) {
            return Err(format!("R10: ({shared}, {}] was shown and goes without quarantine", self.visible));
        }
        Ok(())
    }

    pub(crate) fn take_back(&mut self, fork: &Position) -> Result<(), String> {
        let to = fork.uid;
        self.check_quarantine(to)?;
        self.cut_off(to);
        self.history.truncate(fork);
        self.sparse.retain(|&(start, _)| start < to);
        Ok(())
    }

    pub(crate) fn begin(&mut self, round: u64) {
        self.replacing = None;
        self.collecting =
            Some(Collecting { round, delta: Vec::new(), kept: 0, marked: None, rewound: Vec::new() });
    }

    pub(crate) fn suspend(&mut self, kept: Option<KeptDelta>) -> Result<(), String> {
        let collecting = self.collecting.as_mut().ok_or("nothing is suspended")?;
        if let Some(kept) = kept {
            collecting.kept = collecting.delta.len();
            collecting.marked = Some((kept, collecting.kept));
        }
        collecting.delta.truncate(collecting.kept);
        if collecting.marked.as_ref().is_some_and(|(_, marked)| *marked > collecting.kept) {
            return Err("what a later process goes on from is dropped".to_owned());
        }
        Ok(())
    }

    /// Keeps what was collected for a later process.
    pub(crate) fn keep(&mut self, kept: KeptDelta) -> Result<(), String> {
        let collecting = self.collecting.as_mut().ok_or("nothing is kept")?;
        collecting.marked = Some((kept, collecting.delta.len()));
        Ok(())
    }

    /// The driver ends: of what was collected that is left which was kept.
    pub(crate) fn forget_collected(&mut self) {
        self.replacing = None;
        let Some(mut collecting) = self.collecting.take() else { return };
        let Some((_, marked)) = collecting.marked.as_ref() else { return };
        collecting.kept = *marked;
        collecting.delta.truncate(*marked);
        collecting.rewound.clear();
        self.collecting = Some(collecting);
    }

    /// What the next driver goes on from.
    pub(crate) fn kept_delta(&mut self) -> Option<KeptDelta> {
        self.forget_collected();
        let appended = self.appended;
        let fits = |collecting: &Collecting| {
            collecting.marked.as_ref().map(|(kept, _)| kept.clone()).filter(|kept| kept.since == appended)
        };
        let kept = self.collecting.as_ref().and_then(fits);
        if kept.is_none() {
            self.collecting = None;
        }
        kept
    }

    pub(crate) fn resume(&mut self, round: u64) -> Result<(), String> {
        let collecting = self.collecting.as_mut().ok_or("nothing was suspended")?;
        collecting.round = round;
        Ok(())
    }

    pub(crate) fn collect(&mut self, round: u64, records: Vec<Record>, rewound: bool) -> Result<(), String> {
        let collecting = self.collecting.as_mut().ok_or("records without a refresh")?;
        if collecting.round != round {
            return Err("records of another round".to_owned());
        }
        if rewound {
            collecting.rewound.extend(records);
        } else {
            collecting.delta.extend(records);
        }
        Ok(())
    }

    pub(crate) fn install(&mut self, install: &Install) -> Result<(), String> {
        self.check_quarantine(install.sparse_from)?;
        if install.reconciled {
            self.install_ranges(install)?;
        } else {
            self.install_records(install.sparse_from)?;
        }
        self.log.clear();
        self.log_base = install.base;
        self.appended = install.base;
        let known = self.hashes.clone();
        self.hashes.retain(|uid, _| *uid <= install.sparse_from);
        if let Some(hash) = install.base_hash {
            self.hashes.insert(install.base, hash);
        } else if install.base == install.sparse_from {
            self.hashes.extend(known.get(&install.base).map(|hash| (install.base, *hash)));
        }
        for commit in &install.commits {
            self.append(commit.clone())?;
        }
        self.history = install.history.clone();
        self.synced = self.appended;
        self.visible = install.cut;
        if !install.reconciled {
            self.sparse.push((install.sparse_from, install.sparse_to));
            if install.sparse_from == Uid::ZERO {
                // Of what was deleted an empty copy was brought only the marks that were kept.
                self.mark_floor = self.mark_floor.max(install.sparse_to);
            }
        }
        if install.rewound {
            self.version_floor = install.sparse_to;
        }
        Ok(())
    }

    fn install_records(&mut self, fork: Uid) -> Result<(), String> {
        let collected = self.collecting.take().ok_or("an installation without a refresh")?;
        for record in collected.rewound {
            let versions = self.records.entry(record.key[0]).or_default();
            versions.clear();
            if record.kind == RecordKind::Absent {
                // The mark that said so goes with the older versions, and those who are behind need one.
                versions.insert(fork.next(), None);
            }
            insert(versions, &record);
        }
        for record in &collected.delta {
            insert(self.records.entry(record.key[0]).or_default(), record);
        }
        Ok(())
    }

    /// Takes over the run files of another store, as they are at a cut that is durable there.
    pub(crate) fn install_bulk(&mut self, source: &Self) -> Result<(), String> {
        let mut copy = source.clone();
        let cut = source.visible.min(source.synced);
        let shared =
            planaria_replication::fork(&source.history, source.appended, &self.history, self.appended);
        let shared = shared.map_or(Uid::ZERO, |position| position.uid);
        self.check_quarantine(shared)?;
        copy.cut_off(cut);
        copy.history.truncate(&source.history.position_of(cut));
        self.records = copy.records;
        self.history = copy.history;
        self.hashes = copy.hashes;
        self.log.clear();
        self.log_base = cut;
        (self.appended, self.synced, self.visible, self.version_floor) = (cut, cut, cut, cut);
        self.mark_floor = source.mark_floor;
        self.sparse.clear();
        Ok(())
    }

    pub(crate) fn rewind_items(
        &self,
        above: Uid,
        cursor: &Cursor,
        bytes_max: u64,
    ) -> (Vec<RewindItem>, Cursor) {
        let mut items = Vec::new();
        let mut weight = 0;
        for (key, versions) in &self.records {
            let before = cursor.as_ref().is_some_and(|(_, last)| *key <= last[0]);
            if before || versions.range(above.next()..).next().is_none() {
                continue;
            }
            let bytes = Bytes::copy_from_slice(&[*key]);
            items.push(RewindItem::Key(TableId(1), bytes.clone()));
            weight += 17;
            if weight >= bytes_max {
                return (items, Some((TableId(1), bytes)));
            }
        }
        (items, None)
    }

    pub(crate) fn survey(&self, round: u64, since: Uid) -> Survey {
        let above = |uid: &Uid| *uid > since;
        let changed =
            self.records.values().filter(|versions| versions.keys().next_back().is_some_and(above)).count();
        Survey {
            round,
            retained: self.log_base <= since,
            hash: self.hash_at(since),
            mark_floor: self.mark_floor,
            visible: self.visible,
            visible_hash: self.hash_at(self.visible),
            tail_bytes: 70 * self.log.iter().filter(|commit| commit.uid > since).count() as u64,
            delta_bytes: 41 * changed as u64,
            total_bytes: 41 * self.records.len() as u64,
        }
    }

    pub(crate) fn commits(&self, after: Uid, bytes_max: u64) -> CommitsRead {
        if after < self.log_base {
            return CommitsRead::NotRetained;
        }
        let mut weight = 0;
        let wanted = self.log.iter().filter(|commit| commit.uid > after);
        let fits = |commit: &&Commit| {
            weight += commit.weight();
            weight == commit.weight() || weight <= bytes_max
        };
        CommitsRead::Commits(wanted.take_while(fits).cloned().collect())
    }

    /// The versions that a read sees: those of the pin, or the current ones.
    pub(crate) fn view(&mut self, session: u64, pinned: bool) -> (Uid, Versions, Uid) {
        let now = (self.visible, self.records.clone(), self.mark_floor);
        if pinned { self.pins.entry(session).or_insert(now).clone() } else { now }
    }

    pub(crate) fn delta(
        &mut self,
        session: u64,
        since: Uid,
        cursor: &Cursor,
        pinned: bool,
        max: u64,
    ) -> DeltaRead {
        let (snapshot, versions, mark_floor) = self.view(session, pinned);
        let mut records = Vec::new();
        let mut next = None;
        for (key, versions) in &versions {
            let before = cursor.as_ref().is_some_and(|(_, last)| *key <= last[0]);
            let Some((uid, value)) = versions.range(..=snapshot).next_back() else {
                continue;
            };
            if before || *uid <= since {
                continue;
            }
            if records.len() as u64 * 41 >= max {
                next = records.last().map(|record: &Record| (record.table, record.key.clone()));
                break;
            }
            records.push(record(*key, *uid, *value));
        }
        let snapshot_hash = self.hash_at(snapshot);
        DeltaRead::Chunk { snapshot, snapshot_hash, mark_floor, records, next }
    }

    pub(crate) fn states(
        &mut self,
        session: u64,
        items: &[RewindItem],
        pinned: bool,
        max: u64,
    ) -> StatesRead {
        let (snapshot, versions, _) = self.view(session, pinned);
        let take = items.len().min((max / 41).max(1) as usize);
        let state = |item: &RewindItem| {
            let RewindItem::Key(table, key) = item else { panic!("no ranges in this model") };
            let newest = versions.get(&key[0]).and_then(|versions| versions.range(..=snapshot).next_back());
            newest.map_or_else(
                || Record {
                    table: *table,
                    key: key.clone(),
                    uid: Uid::ZERO,
                    kind: RecordKind::Absent,
                    row: Bytes::new(),
                },
                |(uid, value)| record(key[0], *uid, *value),
            )
        };
        let records = items[..take].iter().map(state).collect();
        StatesRead::States { snapshot, records, rest: items[take..].to_vec() }
    }

    /// Drops shadowed versions up to one floor and delete marks up to another.
    pub(crate) fn collect_garbage(&mut self, versions_to: Uid, marks_to: Uid) {
        self.version_floor = self.version_floor.max(versions_to);
        self.mark_floor = self.mark_floor.max(marks_to);
        for versions in self.records.values_mut() {
            let newest = versions.range(..=versions_to).next_back().map(|(uid, _)| *uid);
            versions.retain(|uid, _| newest.is_none_or(|newest| *uid >= newest));
            let oldest = versions.first_key_value().map(|(uid, value)| (*uid, value.is_none()));
            if let Some((uid, true)) = oldest
                && uid <= marks_to.min(versions_to)
            {
                versions.remove(&uid);
            }
        }
        self.records.retain(|_, versions| !versions.is_empty());
    }

    pub(crate) fn trim_log(&mut self, to: Uid) {
        let to =
            self.log.iter().map(|commit| commit.uid).filter(|uid| *uid <= to).max().unwrap_or(self.log_base);
        self.log.retain(|commit| commit.uid > to);
        self.log_base = self.log_base.max(to);
    }
}

pub(crate) fn insert(versions: &mut BTreeMap<Uid, Option<u64>>, record: &Record) {
    match record.kind {
        RecordKind::Put => {
            let value = u64::from_le_bytes(record.row[..].try_into().expect("eight bytes"));
            versions.insert(record.uid, Some(value));
        }
        RecordKind::Delete => {
            versions.insert(record.uid, None);
        }
        _ => {}
    }
}

pub(crate) fn record(key: u8, uid: Uid, value: Option<u64>) -> Record {
    Record {
        table: TableId(1),
        key: Bytes::copy_from_slice(&[key]),
        uid,
        kind: if value.is_some() { RecordKind::Put } else { RecordKind::Delete },
        row: value.map_or_else(Bytes::new, |value| Bytes::copy_from_slice(&value.to_le_bytes())),
    }
}
