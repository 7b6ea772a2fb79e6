use std::path::Path;
use std::sync::Arc;

use planaria_types::InstanceId;

use super::{Log, LogOptions, Replay};
use crate::error::{Error, Result};
use crate::os::{CrashStyle, MemOs, Os};

const STORE: InstanceId = InstanceId(5);

fn dir() -> &'static Path {
    Path::new("/db/log")
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 8192, spares_max: 1, max_record_bytes: 20_000, ..LogOptions::default() }
}

/// A generator of workloads: xorshift (Marsaglia 2003).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What the caller of the log knows. Records are numbered from 0 on.
#[derive(Clone, Debug, Default)]
struct Model {
    /// For each record that was handed over, its segment, as far as it is known.
    attempted: Vec<Option<u64>>,
    /// How many of them a sync has promised.
    synced: usize,
    /// The replay begins at this segment.
    from: u64,
}

fn payload(number: usize, len: u64) -> Vec<u8> {
    let mut bytes = (number as u64).to_le_bytes().to_vec();
    bytes.resize(8 + len as usize, number as u8 | 1);
    bytes
}

impl Model {
    fn append(&mut self, log: &Log, lens: &[u64]) -> Result<()> {
        let first = self.attempted.len();
        let payloads: Vec<_> =
            lens.iter().enumerate().map(|(index, len)| payload(first + index, *len)).collect();
        let records: Vec<_> = payloads.iter().map(|payload| (1, &payload[..])).collect();
        self.attempted.resize(first + lens.len(), None);
        let appended = log.append(&records)?;
        self.attempted[first..].fill(Some(appended.segment));
        Ok(())
    }

    fn sync(&mut self, log: &Log) -> Result<()> {
        log.sync()?;
        self.synced = self.attempted.len();
        Ok(())
    }

    /// Opens the log and checks what it replays: a prefix, with all that was promised.
    fn recover(&mut self, os: &MemOs) -> Result<Log> {
        let mut replayed = Vec::new();
        let log = Log::open(Arc::new(os.clone()), dir(), options(), STORE, self.from, &mut |entry| {
            let number = u64::from_le_bytes(entry.payload[..8].try_into().unwrap()) as usize;
            assert_eq!(entry.payload, payload(number, entry.payload.len() as u64 - 8));
            replayed.push((number, entry.segment));
            Ok(Replay::Continue)
        })?;
        let needed = |segment: &Option<u64>| segment.is_none_or(|segment| segment >= self.from);
        let start = self.attempted.iter().position(needed).unwrap_or(self.attempted.len());
        let end = start + replayed.len();
        let numbers: Vec<_> = replayed.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (start..end).collect::<Vec<_>>(), "a prefix, in order");
        assert!(end >= self.synced, "{end} of {} promised records came back", self.synced);
        assert!(end <= self.attempted.len());
        self.attempted.truncate(end);
        for (number, segment) in replayed {
            self.attempted[number] = Some(segment);
        }
        self.synced = end;
        Ok(log)
    }

    fn workload(&mut self, os: &MemOs, seed: u64, steps: usize) -> Result<()> {
        let mut dice = Dice(seed.wrapping_mul(2) | 1);
        let mut log = self.recover(os)?;
        for _ in 0..steps {
            match dice.below(16) {
                0..=6 => {
                    let lens: Vec<_> = (0..=dice.below(3)).map(|_| dice.below(900)).collect();
                    self.append(&log, &lens)?;
                }
                7 => self.append(&log, &[4000 + dice.below(8000)])?,
                8..=11 => self.sync(&log)?,
                12 => {
                    log.seal()?;
                    self.synced = self.attempted.len();
                }
                13 => {
                    let newest = log.appended().segment;
                    self.from = self.from.max(newest.saturating_sub(dice.below(3)));
                    // What lies below is made safe elsewhere.
                    self.sync(&log)?;
                    log.release(self.from)?;
                }
                14 => {
                    log.prepare_spare()?;
                }
                _ => log = self.recover(os)?,
            }
        }
        Ok(())
    }
}

fn fresh() -> MemOs {
    let os = MemOs::new(3);
    os.create_dir_all(Path::new("/db")).unwrap();
    os.sync_dir(Path::new("/")).unwrap();
    os
}

/// Runs a workload that dies at mutating call `n`; `None` if it ends before.
fn run_until(seed: u64, steps: usize, n: u64) -> Option<(MemOs, Model)> {
    let os = fresh();
    os.crash_at(os.mutations() + n);
    let mut model = Model::default();
    match model.workload(&os, seed, steps) {
        Ok(()) => None,
        Err(error) => {
            assert!(os.has_crashed(), "{error}");
            Some((os, model))
        }
    }
}

#[test]
fn every_crash_leaves_a_prefix_with_all_that_was_synced() {
    for workload in 0..6 {
        let mut n = 1;
        while let Some((os, model)) = run_until(workload, 50, n) {
            for style in CrashStyle::ALL {
                for seed in 0..4 {
                    let after = os.crash(style, seed * 1000 + n);
                    let mut model = model.clone();
                    let log = model.recover(&after).unwrap_or_else(|error| {
                        panic!("workload {workload}, call {n}, {style:?}, seed {seed}: {error}")
                    });
                    // What comes after the crash is as safe as what came before.
                    model.append(&log, &[100]).unwrap();
                    model.sync(&log).unwrap();
                    drop(log);
                    for _ in 0..2 {
                        model.recover(&after.crash(CrashStyle::PowerCutTorn, seed)).unwrap();
                    }
                }
            }
            n += 1;
        }
        assert!(n > 40, "workload {workload} has {n} calls");
    }
}

/// Recovers, appends, dies at each call in turn, and recovers again, `depth` deep.
fn crash_within_recovery(os: &MemOs, model: &Model, depth: u32, seed: u64) {
    for n in 1.. {
        let style = CrashStyle::ALL[((seed + n) % 3) as usize];
        let after = os.crash(style, seed * 31 + n);
        after.crash_at(n);
        let mut model = model.clone();
        let outcome = model.recover(&after).and_then(|log| {
            model.append(&log, &[50])?;
            model.sync(&log)
        });
        if let Err(error) = &outcome {
            assert!(after.has_crashed(), "seed {seed}, call {n}: {error}");
        }
        if depth > 1 {
            crash_within_recovery(&after, &model, depth - 1, seed * 7 + n);
        }
        if outcome.is_ok() {
            return;
        }
    }
}

#[test]
fn a_crash_within_recovery_changes_nothing_three_deep() {
    for workload in 10..12 {
        let mut n = 1;
        while let Some((os, model)) = run_until(workload, 40, n) {
            crash_within_recovery(&os, &model, 3, n);
            n += 13;
        }
    }
}

#[test]
fn random_workloads_survive_chains_of_random_crashes() {
    for seed in 0..150_u64 {
        let mut dice = Dice(seed * 2 + 1);
        let mut os = fresh();
        let mut model = Model::default();
        for _ in 0..6 {
            os.crash_at(os.mutations() + 1 + dice.below(120));
            if let Err(error) = model.workload(&os, dice.below(1 << 40), 40) {
                assert!(os.has_crashed(), "seed {seed}: {error}");
            }
            os = os.crash(CrashStyle::ALL[dice.below(3) as usize], dice.below(1 << 40));
        }
        model.recover(&os).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

fn replay(os: &MemOs) -> Result<Vec<Vec<u8>>> {
    let mut payloads = Vec::new();
    Log::open(Arc::new(os.clone()), dir(), options(), STORE, 1, &mut |entry| {
        payloads.push(entry.payload.to_vec());
        Ok(Replay::Continue)
    })?;
    Ok(payloads)
}

/// Flips one bit of each byte of a log's segments, below `end` in the newest: an error or the same content.
fn flip_every_byte(os: &MemOs, log: &Log, end: u64) {
    let expected = replay(os).unwrap();
    let segments = log.segments();
    let mut damaged = 0;
    for (index, info) in segments.iter().enumerate() {
        let bytes = if index + 1 == segments.len() { end } else { info.file_bytes };
        for offset in 0..bytes {
            os.flip(&info.path, offset, 1 << (offset % 8)).unwrap();
            match replay(os) {
                Ok(found) => assert_eq!(found, expected, "segment {}, byte {offset}", info.number),
                Err(Error::Damaged { path, .. }) => {
                    assert_eq!(path, info.path);
                    damaged += 1;
                }
                Err(error) => panic!("segment {}, byte {offset}: {error}", info.number),
            }
            os.flip(&info.path, offset, 1 << (offset % 8)).unwrap();
        }
    }
    assert!(damaged > 8192, "{damaged} flips were noticed");
    assert_eq!(replay(os).unwrap(), expected);
}

fn small_log(os: &MemOs) -> (Log, Model) {
    let mut model = Model::default();
    let log = model.recover(os).unwrap();
    for len in [10, 1500, 3, 2500, 900, 0] {
        model.append(&log, &[len]).unwrap();
        model.sync(&log).unwrap();
    }
    (log, model)
}

#[test]
fn a_flipped_bit_below_the_last_mark_never_shortens_the_log() {
    let os = fresh();
    let (log, mut model) = small_log(&os);
    // The next record carries the mark.
    let mark = log.durable().offset;
    model.append(&log, &[1]).unwrap();
    model.sync(&log).unwrap();
    assert_eq!(log.appended().segment, 2);
    flip_every_byte(&os, &log, mark);
}

#[test]
fn a_flipped_bit_in_a_sealed_log_never_shortens_it() {
    let os = fresh();
    let (log, _) = small_log(&os);
    let end = log.seal().unwrap();
    assert_eq!(end.segment, 2);
    flip_every_byte(&os, &log, end.offset);
}

#[test]
fn a_zeroed_or_stale_sector_is_damage_too() {
    let os = fresh();
    let (log, _) = small_log(&os);
    let path = log.segments()[0].path.clone();
    log.seal().unwrap();
    for sector in 8..11 {
        let copy = os.crash(CrashStyle::ProcessKill, 0);
        let file = copy.open(&path, crate::os::OpenMode::Write).unwrap();
        file.write_all_at(&[0; 512], sector * 512).unwrap();
        assert!(matches!(replay(&copy), Err(Error::Damaged { .. })), "sector {sector}");
    }
}
