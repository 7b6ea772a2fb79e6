//! The log that is open: appending, syncing, rolling, releasing.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use planaria_types::InstanceId;

use super::active::Active;
use super::format::{
    FileName, KIND_BASE, PAGE_BYTES, Place, RECORD_HEADER_BYTES, SegmentHeader, record_bytes,
};
use super::pool::{self, NotBegun, Spare};
use super::recovery::{ChainLink, Recovered, not_full, recover};
use super::{Appended, LogEntry, LogOptions, LogPosition, Replay, SEGMENT_BYTES_MAX};
use crate::error::{Error, Result};
use crate::os::Os;
use crate::sync::{Condvar, Mutex, MutexGuard};

/// The write buffer keeps at most this much memory between two appends, in bytes.
const BUFFER_KEPT_BYTES: usize = 4 << 20;
/// The length of the first segment for which no spare waits, in bytes, if segments are not shorter: what is filled
/// within a part of a millisecond. A spare of the usual length is made in the background meanwhile.
const HASTY_BYTES: u64 = 256 << 10;
/// Each one that follows without a spare is this many times as long: whoever writes without a pause begins few of them.
const HASTY_GROWTH: u64 = 4;

/// The write-ahead log of a store. All calls may come from several threads at once.
///
/// Appends are done one after the other; a sync runs beside them. Whoever opens the log holds the lock of the store's
/// directory.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(super) shared: Arc<Shared>,
}

/// A segment that the log retains.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SegmentInfo {
    /// Its number.
    pub(crate) number: u64,
    /// The number of the one before it; 0 for none.
    pub(crate) previous: u64,
    /// Its file.
    pub(crate) path: PathBuf,
    /// Where its records end, in bytes.
    pub(crate) end_offset: u64,
    /// The length of its file in bytes.
    pub(crate) file_bytes: u64,
    /// Whether nothing will be appended to it any more.
    pub(crate) is_sealed: bool,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) os: Arc<dyn Os>,
    pub(super) dir: PathBuf,
    pub(super) store: InstanceId,
    options: LogOptions,
    state: Mutex<State>,
    /// Told when a sync ends.
    sync_ended: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    /// The sealed segments, oldest first; all that is in them is durable.
    sealed: VecDeque<Sealed>,
    /// The segment that takes appends; begun by the first one.
    active: Option<Active>,
    spares: Vec<Spare>,
    /// The length of the next segment for which no spare waits, in bytes.
    hasty_bytes: u64,
    next_number: u64,
    next_spare: u64,
    base: Vec<u8>,
    /// Whether a sync runs outside of the lock. Meanwhile the active segment stays the active one.
    syncing: bool,
    poisoned: Option<String>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Sealed {
    link: ChainLink,
    /// Another store has, or is about to have, a hard link to the file.
    is_linked: bool,
    /// Held by every reader of the segment: a file that is being read is not overwritten.
    pin: Arc<()>,
}

impl Log {
    /// Opens the log in `dir`, creating it if there is none, and replays what the segments from `from_segment` on
    /// hold. The next append begins a fresh segment.
    ///
    /// `replay` gets every record in order, and before those of a segment its base, if it has one. The records are
    /// durable when `open` returns. Segments below `from_segment` are retained if they are whole. A log that fails to
    /// open is not changed; opening again, or after a crash within, gives the same.
    ///
    /// After [`Replay::StopHere`] the cut is durable with the first append; until then another opening sees the
    /// refused records again.
    ///
    /// # Errors
    /// `Damaged` if something that was durable is not there, `Foreign` if a segment is another store's or newer,
    /// `Invalid` for impossible options, `Io`, and whatever `replay` answers.
    pub(crate) fn open(
        os: Arc<dyn Os>,
        dir: &Path,
        options: LogOptions,
        store: InstanceId,
        from_segment: u64,
        replay: &mut dyn FnMut(LogEntry<'_>) -> Result<Replay>,
    ) -> Result<Self> {
        options.check()?;
        if !os.exists(dir) && !options.must_exist {
            os.create_dir_all(dir).map_err(|error| Error::io("create", dir, error))?;
        }
        let recovered = recover(&*os, dir, &options, store, from_segment, replay)?;
        if let (true, Some(parent)) = (recovered.chain.is_empty(), dir.parent()) {
            // Also where the directory is found: whoever created it may have died before this.
            os.sync_dir(parent).map_err(|error| Error::io("sync", parent, error))?;
        }
        let mut next_spare = recovered.next_spare;
        let spares = tidy(&*os, dir, &options, &recovered, &mut next_spare)?;
        let sealed = |link| Sealed { link, is_linked: false, pin: Arc::new(()) };
        let state = State {
            sealed: recovered.chain.into_iter().map(sealed).collect(),
            active: None,
            spares,
            hasty_bytes: HASTY_BYTES.min(options.segment_bytes),
            next_number: recovered.next_number,
            next_spare,
            base: recovered.base,
            syncing: false,
            poisoned: None,
            buffer: Vec::new(),
        };
        let shared = Shared {
            os,
            dir: dir.to_path_buf(),
            store,
            options,
            state: Mutex::new(state),
            sync_ended: Condvar::new(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Appends records, each a kind and a payload, in one write, contiguous and in order. They are durable after a
    /// later [`Log::sync`]. Without records, tells where the log ends.
    ///
    /// # Errors
    /// `TooLarge` over the limits, `Invalid` for kind 0. `NoSpace` if there is no room for another segment: nothing
    /// is appended, and a later call tries again. Any other failed write poisons the log: its error, then `Poisoned`.
    pub(crate) fn append(&self, records: &[(u8, &[u8])]) -> Result<Appended> {
        let bytes = self.shared.check_records(records)?;
        let mut state = self.shared.state.lock();
        if records.is_empty() {
            let LogPosition { segment, offset } = state.appended();
            return Ok(Appended { segment, start_offset: offset, end_offset: offset });
        }
        loop {
            state.check()?;
            if state.active.as_ref().is_some_and(|active| active.has_room(bytes)) {
                return self.shared.write(&mut state, records);
            }
            if state.syncing {
                self.shared.sync_ended.wait(&mut state);
            } else {
                self.shared.roll(&mut state, bytes)?;
            }
        }
    }

    /// As [`Log::append`], at the beginning of a segment of its own, in which the log goes on.
    ///
    /// # Errors
    /// Those of `append`; after `NoSpace` the log goes on where it was.
    pub(crate) fn append_apart(&self, records: &[(u8, &[u8])]) -> Result<Appended> {
        let bytes = self.shared.check_records(records)?;
        let mut state = self.shared.state.lock();
        loop {
            state.check()?;
            if !state.syncing {
                self.shared.roll(&mut state, bytes)?;
                return self.shared.write(&mut state, records);
            }
            self.shared.sync_ended.wait(&mut state);
        }
    }

    /// Makes durable all that was appended before the call. Appends go on meanwhile; calls that come together share
    /// their syncs.
    ///
    /// # Errors
    /// A failed sync is final: its error, then `Poisoned`, whatever the disk says later.
    pub(crate) fn sync(&self) -> Result<()> {
        let shared = &*self.shared;
        let mut state = shared.state.lock();
        let target = state.appended();
        let (file, path, end) = loop {
            state.check()?;
            if state.durable() >= target {
                return Ok(());
            }
            match &state.active {
                Some(active) if !state.syncing => {
                    break (Arc::clone(&active.file), active.path.clone(), active.link.end);
                }
                _ => shared.sync_ended.wait(&mut state),
            }
        };
        state.syncing = true;
        drop(state);
        let outcome = file.sync_data();
        let mut state = shared.state.lock();
        state.syncing = false;
        let result = match outcome {
            Ok(()) => {
                if let Some(active) = &mut state.active {
                    active.synced = active.synced.max(end);
                }
                Ok(())
            }
            Err(error) => Err(state.poison(not_full("sync", &path, error))),
        };
        shared.sync_ended.notify_all();
        result
    }

    /// Makes all durable and ends the current segment, which never changes again: it can be linked into a clone.
    /// Answers where the log ends.
    pub(crate) fn seal(&self) -> Result<LogPosition> {
        let mut state = self.shared.state.lock();
        loop {
            state.check()?;
            if !state.syncing {
                break;
            }
            self.shared.sync_ended.wait(&mut state);
        }
        self.shared.sync_active(&mut state)?;
        self.shared.write_seal(&mut state)?;
        state.seal_active();
        Ok(state.appended())
    }

    /// Keeps a sealed segment from being recycled, because another store links to its file.
    ///
    /// # Errors
    /// `Invalid` if the segment is not sealed or not retained.
    pub(crate) fn mark_linked(&self, segment: u64) -> Result<()> {
        let mut state = self.shared.state.lock();
        match state.sealed.iter_mut().find(|sealed| sealed.link.number == segment) {
            Some(sealed) => {
                sealed.is_linked = true;
                Ok(())
            }
            None => {
                Err(Error::Invalid(format!("log segment {segment} is not sealed, or not retained any more")))
            }
        }
    }

    /// Sets what the headers of later segments carry, at most [`BASE_BYTES_MAX`](super::format::BASE_BYTES_MAX) bytes. After opening it is what the
    /// last segment carries.
    #[cfg(test)]
    pub(crate) fn set_base(&self, base: &[u8]) -> Result<()> {
        use super::format::BASE_BYTES_MAX;

        if base.len() > BASE_BYTES_MAX {
            return Err(Error::TooLarge {
                what: "the base of a log segment",
                bytes: base.len() as u64,
                limit: BASE_BYTES_MAX as u64,
            });
        }
        let mut state = self.shared.state.lock();
        state.base.clear();
        state.base.extend_from_slice(base);
        Ok(())
    }

    /// Sees to it that a segment file waits for use, so that the next roll neither stalls nor lacks room. For a
    /// background thread, every now and then. Answers whether it created one.
    ///
    /// # Errors
    /// `NoSpace` if there is no room; the log goes on. Any other failed write or sync poisons it.
    pub(crate) fn prepare_spare(&self) -> Result<bool> {
        let shared = &*self.shared;
        let serial = {
            let mut state = shared.state.lock();
            state.check()?;
            if !state.spares.is_empty() {
                return Ok(false);
            }
            state.draw_spare_serial()
        };
        let created = pool::create_spare(&*shared.os, &shared.dir, serial, shared.options.segment_bytes);
        let mut state = shared.state.lock();
        match created {
            Ok(spare) => {
                state.spares.push(spare);
                Ok(true)
            }
            Err(not_begun) => Err(state.not_begun(not_begun)),
        }
    }

    /// Gives up the segments below `below_segment`: recycles or removes them. The newest segment always stays. What a
    /// reader has open it can read to the end of that segment.
    pub(crate) fn release(&self, below_segment: u64) -> Result<()> {
        let shared = &*self.shared;
        let released = {
            let mut state = shared.state.lock();
            state.check()?;
            state.release(below_segment, &shared.options)
        };
        if released.is_empty() {
            return Ok(());
        }
        let mut spares = Vec::new();
        for (number, spare) in released {
            let name = FileName::Segment(number);
            match spare {
                None => pool::remove(&*shared.os, &shared.dir, name)?,
                Some(spare) => {
                    if pool::recycle(&*shared.os, &shared.dir, name, spare.serial)? {
                        spares.push(spare);
                    }
                }
            }
        }
        // A file is used again only once its old name is gone for good.
        shared.os.sync_dir(&shared.dir).map_err(|error| Error::io("sync", &shared.dir, error))?;
        shared.state.lock().spares.extend(spares);
        Ok(())
    }

    /// The oldest segment that is retained; the one that comes next if there is none.
    pub(crate) fn retained_from(&self) -> u64 {
        let state = self.shared.state.lock();
        state.links().next().map_or(state.next_number, |link| link.number)
    }

    /// Where the log ends. {0, 0} before the first append of all.
    #[cfg(test)]
    pub(crate) fn appended(&self) -> LogPosition {
        self.shared.state.lock().appended()
    }

    /// Up to where the log is durable.
    #[cfg(test)]
    pub(crate) fn durable(&self) -> LogPosition {
        self.shared.state.lock().durable()
    }

    /// How much of the segment that takes appends is written, in bytes; 0 if none does.
    pub(crate) fn active_bytes(&self) -> u64 {
        self.shared.state.lock().active.as_ref().map_or(0, |active| active.link.end)
    }

    /// Whether the next segment is due before long, and no spare waits for it.
    pub(crate) fn lacks_spare(&self) -> bool {
        let state = self.shared.state.lock();
        let is_half_full =
            |Active { link, .. }: &Active| (link.end - PAGE_BYTES) >= (link.file_bytes - PAGE_BYTES) / 2;
        state.spares.is_empty() && state.active.as_ref().is_some_and(is_half_full)
    }

    /// The disk space that the retained segments take, in bytes; spares are not counted.
    pub(crate) fn bytes_retained(&self) -> u64 {
        self.shared.state.lock().links().map(|link| link.file_bytes).sum()
    }

    /// The retained segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<SegmentInfo> {
        let state = self.shared.state.lock();
        let active = state.active.as_ref().map(|active| active.link.number);
        let infos = state.links().map(|link| SegmentInfo {
            number: link.number,
            previous: link.previous.segment,
            path: FileName::Segment(link.number).path(&self.shared.dir),
            end_offset: link.end,
            file_bytes: link.file_bytes,
            is_sealed: active != Some(link.number),
        });
        infos.collect()
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The bytes on disk of `records`, if all of them are within the limits.
    fn check_records(&self, records: &[(u8, &[u8])]) -> Result<u64> {
        let mut bytes = 0;
        for (kind, payload) in records {
            if *kind == KIND_BASE {
                return Err(Error::Invalid("log records of kind 0 are the log's own".to_owned()));
            }
            let (len, limit) = (payload.len() as u64, self.options.max_record_bytes);
            if len > limit {
                return Err(Error::TooLarge { what: "a log record", bytes: len, limit });
            }
            bytes += record_bytes(len);
        }
        let limit = SEGMENT_BYTES_MAX - PAGE_BYTES - RECORD_HEADER_BYTES;
        if bytes > limit {
            return Err(Error::TooLarge { what: "a group of log records", bytes, limit });
        }
        Ok(bytes)
    }

    /// Begins another segment, with room for `bytes` of records. No sync runs. Where room on disk is missing, the old
    /// segment stays the active one.
    fn roll(&self, state: &mut State, bytes: u64) -> Result<()> {
        let needed = (PAGE_BYTES + bytes + RECORD_HEADER_BYTES).next_multiple_of(PAGE_BYTES);
        self.sync_active(state)?;
        let spare = state.spares.iter().position(|spare| spare.file_bytes >= needed);
        let spare = spare.map(|index| state.spares.swap_remove(index));
        // An append waits for a new one to be filled, so the first of them is small, and each later one larger.
        let file_bytes = spare.map_or(needed.max(state.hasty_bytes), |spare| spare.file_bytes);
        let previous = state.appended();
        let header = SegmentHeader {
            store: self.store,
            number: state.next_number,
            file_bytes,
            previous,
            base: state.base.clone(),
        };
        let begun = match spare {
            Some(spare) => pool::begin_segment(&*self.os, &self.dir, spare, &header),
            None => pool::create_segment(&*self.os, &self.dir, state.draw_spare_serial(), &header),
        };
        let (file, path) = begun.map_err(|not_begun| state.not_begun(not_begun))?;
        if spare.is_none() {
            state.hasty_bytes = (HASTY_GROWTH * state.hasty_bytes).min(self.options.segment_bytes);
        }
        state.seal_active();
        state.next_number += 1;
        let link =
            ChainLink { number: header.number, store: self.store, file_bytes, previous, end: PAGE_BYTES };
        state.active = Some(Active::new(link, file, path));
        Ok(())
    }

    /// Makes the active segment durable, under the lock. No sync runs outside of it.
    fn sync_active(&self, state: &mut State) -> Result<()> {
        debug_assert!(!state.syncing);
        let Some(active) = &mut state.active else {
            return Ok(());
        };
        if active.synced < active.link.end {
            if let Err(error) = active.file.sync_data() {
                let error = not_full("sync", &active.path, error);
                self.sync_ended.notify_all();
                return Err(state.poison(error));
            }
            active.synced = active.link.end;
        }
        Ok(())
    }

    fn write(&self, state: &mut State, records: &[(u8, &[u8])]) -> Result<Appended> {
        let buffer = std::mem::take(&mut state.buffer);
        let Some(active) = &mut state.active else {
            return Err(Error::Invalid("the log has no active segment".to_owned()));
        };
        let start_offset = active.link.end;
        let place = Place { store: self.store, segment: active.link.number };
        match active.write(buffer, place, records) {
            Ok(mut buffer) => {
                if buffer.capacity() > BUFFER_KEPT_BYTES {
                    buffer = Vec::new();
                }
                let end_offset = active.link.end;
                state.buffer = buffer;
                Ok(Appended { segment: place.segment, start_offset, end_offset })
            }
            Err(error) => {
                self.sync_ended.notify_all();
                Err(state.poison(error))
            }
        }
    }

    /// Ends the active segment with a record that says that all before it is durable: it proves damage in a segment
    /// that no later one vouches for.
    fn write_seal(&self, state: &mut State) -> Result<()> {
        let Some(active) = &mut state.active else {
            return Ok(());
        };
        let end = active.link.end;
        let place = Place { store: self.store, segment: active.link.number };
        let written = active
            .write(Vec::new(), place, &[(KIND_BASE, &[])])
            .and_then(|_| active.file.sync_data().map_err(|error| not_full("sync", &active.path, error)));
        active.link.end = end;
        written.map_err(|error| state.poison(error))
    }
}

impl State {
    /// Fails if the log is poisoned.
    fn check(&self) -> Result<()> {
        match &self.poisoned {
            Some(reason) => Err(Error::Poisoned { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    fn poison(&mut self, error: Error) -> Error {
        self.poisoned.get_or_insert_with(|| error.to_string());
        error
    }

    fn not_begun(&mut self, not_begun: NotBegun) -> Error {
        match not_begun {
            NotBegun::Clean(error) => error,
            NotBegun::Broken(error) => self.poison(error),
        }
    }

    /// The retained segments, oldest first.
    pub(super) fn links(&self) -> impl Iterator<Item = &ChainLink> {
        self.sealed.iter().map(|sealed| &sealed.link).chain(self.active.as_ref().map(|active| &active.link))
    }

    /// Keeps the file of a retained segment from being used again, as long as the answer lives.
    pub(super) fn pin(&self, number: u64) -> Option<Arc<()>> {
        let sealed = self.sealed.iter().map(|sealed| (sealed.link.number, &sealed.pin));
        let active = self.active.iter().map(|active| (active.link.number, &active.pin));
        sealed.chain(active).find(|(found, _)| *found == number).map(|(_, pin)| Arc::clone(pin))
    }

    pub(super) fn appended(&self) -> LogPosition {
        let last = self.links().last();
        last.map_or_else(LogPosition::default, |link| LogPosition { segment: link.number, offset: link.end })
    }

    fn durable(&self) -> LogPosition {
        match &self.active {
            Some(active) => LogPosition { segment: active.link.number, offset: active.synced },
            None => self.appended(),
        }
    }

    fn seal_active(&mut self) {
        if let Some(Active { link, pin, .. }) = self.active.take() {
            self.sealed.push_back(Sealed { link, is_linked: false, pin });
        }
    }

    fn draw_spare_serial(&mut self) -> u64 {
        self.next_spare += 1;
        self.next_spare - 1
    }

    /// Takes the segments below `below_segment` off the log: their numbers, and what to make of those to recycle.
    fn release(&mut self, below_segment: u64, options: &LogOptions) -> Vec<(u64, Option<Spare>)> {
        let mut released = Vec::new();
        let mut spares = self.spares.len();
        while let Some(front) = self.sealed.front() {
            let is_newest = self.sealed.len() == 1 && self.active.is_none();
            if front.link.number >= below_segment || is_newest {
                break;
            }
            let Some(sealed) = self.sealed.pop_front() else {
                break;
            };
            let unshared = !sealed.is_linked && Arc::strong_count(&sealed.pin) == 1;
            let file_bytes = sealed.link.file_bytes;
            let fits = file_bytes == options.segment_bytes && spares < options.spares_max;
            let spare = (unshared && fits).then(|| Spare { serial: self.draw_spare_serial(), file_bytes });
            spares += usize::from(spare.is_some());
            released.push((sealed.link.number, spare));
        }
        released
    }
}

/// Makes spares of files that nobody needs, as many as are wanted, and removes the others.
fn tidy(
    os: &dyn Os,
    dir: &Path,
    options: &LogOptions,
    recovered: &Recovered,
    next_spare: &mut u64,
) -> Result<Vec<Spare>> {
    let mut spares = Vec::new();
    for &(name, file_bytes) in &recovered.garbage {
        let fits = file_bytes == options.segment_bytes && spares.len() < options.spares_max;
        match name {
            FileName::Spare(serial) if fits => spares.push(Spare { serial, file_bytes }),
            FileName::Segment(_) if fits => {
                let serial = *next_spare;
                *next_spare += 1;
                if pool::recycle(os, dir, name, serial)? {
                    spares.push(Spare { serial, file_bytes });
                }
            }
            _ => pool::remove(os, dir, name)?,
        }
    }
    // Also where nothing changed: a killed process may have named the newest segment without syncing the name, and from
    // now on the caller may count on that segment.
    os.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
    Ok(spares)
}
