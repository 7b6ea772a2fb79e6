//! What is found in a log's directory, and where the log ends.
//!
//! Nothing is changed before all of the log was read, except that what was read of the last segment is made durable.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use planaria_types::InstanceId;

use super::format::{FileName, PAGE_BYTES, SegmentHeader};
use super::scan::{SegmentScan, check_store, open_segment};
use super::{KIND_BASE, LogEntry, LogOptions, LogPosition, Replay};
use crate::error::{Error, Result};
use crate::os::{OpenMode, Os};

/// How much is written at once, in bytes, when a tail is written again.
const REWRITE_BYTES: u64 = 1 << 20;

/// A segment that belongs to the log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ChainLink {
    pub(super) number: u64,
    pub(super) store: InstanceId,
    pub(super) file_bytes: u64,
    /// Where the log before this segment ends.
    pub(super) previous: LogPosition,
    /// Where the log goes on in the next segment.
    pub(super) end: u64,
}

/// What recovery found.
#[derive(Debug)]
pub(super) struct Recovered {
    /// The segments of the log, oldest first.
    pub(super) chain: Vec<ChainLink>,
    /// Files that nobody needs, with their lengths.
    pub(super) garbage: Vec<(FileName, u64)>,
    /// Above every segment that there is, dropped ones included.
    pub(super) next_number: u64,
    /// Above every serial number of a spare that there is.
    pub(super) next_spare: u64,
    /// The base of the last segment.
    pub(super) base: Vec<u8>,
}

/// The directory's files by kind.
struct Listing {
    segments: BTreeMap<u64, u64>,
    others: Vec<(FileName, u64)>,
}

/// Finds the chain of segments, replays those from `from_segment` on, and makes their end durable.
pub(super) fn recover(
    os: &dyn Os,
    dir: &Path,
    options: &LogOptions,
    store: InstanceId,
    from_segment: u64,
    replay: &mut dyn FnMut(LogEntry<'_>) -> Result<Replay>,
) -> Result<Recovered> {
    let listing = list(os, dir)?;
    let mut chain = walk_back(os, dir, options, store, from_segment, &listing)?;
    let next_number = listing.segments.keys().last().copied().unwrap_or(0).max(from_segment.max(1) - 1) + 1;
    let mut base = Vec::new();
    let mut cut = None;
    for index in 0..chain.len() {
        let is_last = index + 1 == chain.len();
        let Some(link) = chain.get_mut(index) else { break };
        if link.number < from_segment {
            continue;
        }
        let (header, mut scan) = open_segment(os, dir, link.number)?;
        let known_end = (!is_last).then_some(link.end);
        let replayed = replay_segment(&header, &mut scan, known_end, replay)?;
        base = header.base;
        link.end = replayed.end;
        if is_last || replayed.stopped {
            make_durable(os, &scan, link, store, &replayed)?;
        }
        if replayed.stopped {
            cut = Some(index + 1);
            break;
        }
    }
    chain.truncate(cut.unwrap_or(chain.len()));
    // Segments that the replay refused stay until a newer one exists: a number is never given twice, because old
    // records of the same generation would pass for new ones.
    let newest = chain.last().map_or(0, |link| link.number);
    let kept: Vec<u64> = chain.iter().map(|link| link.number).collect();
    let dropped = listing.segments.iter().filter(|(number, _)| **number < newest && !kept.contains(number));
    let mut garbage: Vec<_> = dropped.map(|(number, len)| (FileName::Segment(*number), *len)).collect();
    let serials = listing.others.iter().map(|(name, _)| match name {
        FileName::Spare(serial) | FileName::Unfinished(serial) | FileName::Segment(serial) => *serial,
    });
    let next_spare = serials.max().unwrap_or(0).saturating_add(1);
    garbage.extend(listing.others);
    Ok(Recovered { chain, garbage, next_number, next_spare, base })
}

fn list(os: &dyn Os, dir: &Path) -> Result<Listing> {
    let entries = os.list(dir).map_err(|error| Error::io("list", dir, error))?;
    let mut listing = Listing { segments: BTreeMap::new(), others: Vec::new() };
    for entry in entries.iter().filter(|entry| !entry.is_dir) {
        match FileName::parse(&entry.name) {
            Some(FileName::Segment(number)) if number > 0 => {
                listing.segments.insert(number, entry.len);
            }
            Some(name @ (FileName::Spare(_) | FileName::Unfinished(_))) => {
                listing.others.push((name, entry.len));
            }
            _ => {}
        }
    }
    Ok(listing)
}

/// Follows the headers from the newest segment back. From `from_segment` on the chain must be whole; below, it is kept
/// as far as it goes.
fn walk_back(
    os: &dyn Os,
    dir: &Path,
    options: &LogOptions,
    store: InstanceId,
    from_segment: u64,
    listing: &Listing,
) -> Result<Vec<ChainLink>> {
    let newest = listing.segments.keys().last().copied().unwrap_or(0);
    if newest < from_segment && (newest > 0 || from_segment > 1 || options.must_exist) {
        let path = FileName::Segment(from_segment.max(1)).path(dir);
        return Err(Error::damaged(&path, 0, "the log segment is missing"));
    }
    if newest == 0 && options.must_exist {
        return Err(Error::damaged(dir, 0, "the log has no segments"));
    }
    let mut chain = Vec::new();
    let mut at = LogPosition { segment: newest, offset: u64::MAX };
    while at.segment > 0 {
        let needed = at.segment >= from_segment;
        if !needed && !listing.segments.contains_key(&at.segment) {
            break;
        }
        let link = open_link(os, dir, options, store, at);
        let (link, previous) = match link {
            Ok(found) => found,
            Err(Error::Damaged { .. }) if !needed => break,
            Err(error) => return Err(error),
        };
        chain.push(link);
        at = previous;
    }
    chain.reverse();
    Ok(chain)
}

/// One segment of the chain that ends at `end`, and where the one before it ends.
fn open_link(
    os: &dyn Os,
    dir: &Path,
    options: &LogOptions,
    store: InstanceId,
    end: LogPosition,
) -> Result<(ChainLink, LogPosition)> {
    let (header, scan) = open_segment(os, dir, end.segment)?;
    check_store(&header, scan.path(), store, &options.origins)?;
    let is_newest = end.offset == u64::MAX;
    let needed_bytes = if is_newest { header.file_bytes } else { end.offset };
    if scan.limit() < needed_bytes || needed_bytes < PAGE_BYTES {
        return Err(Error::damaged(scan.path(), scan.limit(), "the segment is cut short"));
    }
    let link = ChainLink {
        number: header.number,
        store: header.store,
        file_bytes: header.file_bytes,
        previous: header.previous,
        end: end.offset,
    };
    Ok((link, header.previous))
}

/// How the replay of a segment ended.
struct Replayed {
    end: u64,
    /// What is known to be durable, from the records' own marks.
    mark: u64,
    stopped: bool,
}

fn replay_segment(
    header: &SegmentHeader,
    scan: &mut SegmentScan,
    known_end: Option<u64>,
    replay: &mut dyn FnMut(LogEntry<'_>) -> Result<Replay>,
) -> Result<Replayed> {
    let segment = header.number;
    let mut replayed = Replayed { end: PAGE_BYTES, mark: PAGE_BYTES, stopped: false };
    if !header.base.is_empty() {
        let entry = LogEntry { kind: KIND_BASE, payload: &header.base, segment, offset: 0 };
        replayed.stopped = replay(entry)? == Replay::StopHere;
    }
    if let Some(end) = known_end {
        scan.set_limit(end);
    }
    while !replayed.stopped && known_end != Some(replayed.end) {
        let offset = replayed.end;
        let Some(found) = scan.record(offset)? else {
            check_torn(scan, offset, known_end)?;
            break;
        };
        replayed.mark = replayed.mark.max(found.synced_up_to);
        if found.kind == KIND_BASE {
            // The segment was sealed here. A later segment that says otherwise is wrong.
            check_sealed(scan, offset, known_end)?;
            break;
        }
        let entry = LogEntry { kind: found.kind, payload: found.payload, segment, offset };
        let end = found.end;
        if replay(entry)? == Replay::StopHere {
            replayed.stopped = true;
        } else {
            replayed.end = end;
        }
    }
    Ok(replayed)
}

/// Fails if the record at `offset`, which does not check, was durable once.
fn check_torn(scan: &mut SegmentScan, offset: u64, known_end: Option<u64>) -> Result<()> {
    if let Some(end) = known_end {
        return Err(scan.damaged(offset, &format!("the next segment says that this one ends at byte {end}")));
    }
    let mark = scan.highest_mark_after(offset)?;
    if mark > offset {
        let proof = format!("a later record says that everything up to byte {mark} was synced");
        return Err(scan.damaged(offset, &proof));
    }
    Ok(())
}

fn check_sealed(scan: &SegmentScan, offset: u64, known_end: Option<u64>) -> Result<()> {
    match known_end {
        Some(end) if end != offset => Err(scan.damaged(offset, "the segment was sealed before its end")),
        _ => Ok(()),
    }
}

/// Makes the end of the log durable before anything is built on it: after a killed process it may be in the page
/// cache only. What no mark covers is written again first, because after a failed sync the system may hold pages for
/// clean that never reached the disk. A segment that is shared with another store is sealed and was synced by it.
fn make_durable(
    os: &dyn Os,
    scan: &SegmentScan,
    link: &ChainLink,
    store: InstanceId,
    replayed: &Replayed,
) -> Result<()> {
    let path = scan.path();
    let file = scan.file();
    let links = file.links().map_err(|error| Error::io("read", path, error))?;
    if replayed.mark >= replayed.end || link.store != store || links > 1 {
        return file.sync_data().map_err(|error| Error::io("sync", path, error));
    }
    let writable = os.open(path, OpenMode::Write).map_err(|error| Error::io("open", path, error))?;
    let mut at = replayed.mark - replayed.mark % PAGE_BYTES;
    while at < replayed.end {
        let mut bytes = vec![0; REWRITE_BYTES.min(replayed.end - at) as usize];
        writable.read_exact_at(&mut bytes, at).map_err(|error| Error::io("read", path, error))?;
        writable.write_all_at(&bytes, at).map_err(|error| not_full("write", path, error))?;
        at += bytes.len() as u64;
    }
    writable.sync_data().map_err(|error| not_full("sync", path, error))
}

/// An answer about a segment whose room was taken long ago: a full disk there is a failure like any other.
pub(super) fn not_full(what: &'static str, path: &Path, error: std::io::Error) -> Error {
    Error::Io { what, path: path.to_path_buf(), source: Arc::new(error) }
}
