use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use planaria_types::InstanceId;

use super::format::PAGE_BYTES;
use super::{KIND_BASE, Log, LogOptions, LogPosition, Replay, Tail};
use crate::error::{Error, Result};
use crate::os::{Call, CrashStyle, Fault, FaultOs, MemOs, OpenMode, Os, Posix};

const STORE: InstanceId = InstanceId(77);

fn dir() -> &'static Path {
    Path::new("/db/log")
}

fn options() -> LogOptions {
    LogOptions { segment_bytes: 8192, spares_max: 2, max_record_bytes: 100_000, ..LogOptions::default() }
}

fn mem() -> MemOs {
    let os = MemOs::new(1);
    os.create_dir_all(Path::new("/db")).unwrap();
    os.sync_dir(Path::new("/")).unwrap();
    os
}

type Entries = Vec<(u8, Vec<u8>)>;

fn open_with(os: Arc<dyn Os>, from: u64, options: LogOptions, store: InstanceId) -> Result<(Log, Entries)> {
    let mut entries = Vec::new();
    let log = Log::open(os, dir(), options, store, from, &mut |entry| {
        entries.push((entry.kind, entry.payload.to_vec()));
        Ok(Replay::Continue)
    })?;
    Ok((log, entries))
}

fn open(os: &impl AsOs, from: u64) -> Result<(Log, Entries)> {
    open_with(os.shared(), from, options(), STORE)
}

trait AsOs {
    fn shared(&self) -> Arc<dyn Os>;
}

impl<T: Os + Clone + 'static> AsOs for T {
    fn shared(&self) -> Arc<dyn Os> {
        Arc::new(self.clone())
    }
}

fn names(os: &MemOs) -> Vec<String> {
    os.list(dir()).unwrap().into_iter().map(|entry| entry.name.trim_start_matches('0').to_owned()).collect()
}

/// Appends `count` records of 1000 bytes, numbered in their first byte.
fn fill(log: &Log, count: u8) {
    for number in 0..count {
        log.append(&[(1, &[number; 1000])]).unwrap();
    }
}

fn drain(reader: &mut super::LogReader) -> Vec<u8> {
    let mut firsts = Vec::new();
    while let Tail::Entry(entry) = reader.next().unwrap() {
        assert_eq!(reader.position().offset, entry.end_offset);
        firsts.push(entry.payload[0]);
    }
    firsts
}

#[test]
fn what_is_appended_is_replayed_in_order() {
    let os = mem();
    let (log, entries) = open(&os, 1).unwrap();
    assert!(entries.is_empty());
    assert_eq!(log.appended(), LogPosition::default());
    log.sync().unwrap();
    let first = log.append(&[(1, b"one"), (2, b""), (255, &[7; 3000])]).unwrap();
    assert_eq!((first.segment, first.start_offset), (1, 4096));
    let second = log.append(&[(3, &[4; 1500])]).unwrap();
    assert_eq!(second.segment, 2, "what does not fit goes to the next segment, whole");
    assert_eq!(log.append(&[]).unwrap().end_offset, second.end_offset);
    let expected: Entries = vec![(1, b"one".to_vec()), (2, vec![]), (255, vec![7; 3000]), (3, vec![4; 1500])];
    for _ in 0..3 {
        let (log, entries) = open(&os, 1).unwrap();
        assert_eq!(entries, expected);
        assert_eq!((log.appended(), log.durable()), (log.durable(), log.appended()));
    }
    let (_, entries) = open(&os, 2).unwrap();
    assert_eq!(entries, expected[3..]);
}

#[test]
fn limits_are_told_before_anything_is_written() {
    let (log, _) = open(&mem(), 1).unwrap();
    let large = vec![0; 100_001];
    assert!(matches!(log.append(&[(1, b"x"), (1, &large)]), Err(Error::TooLarge { .. })));
    assert!(matches!(log.append(&[(KIND_BASE, b"x")]), Err(Error::Invalid(_))));
    assert!(matches!(log.set_base(&[0; 1025]), Err(Error::TooLarge { .. })));
    assert!(matches!(log.mark_linked(1), Err(Error::Invalid(_))));
    assert_eq!(log.appended(), LogPosition::default());
    let too_large = LogOptions { max_record_bytes: 1 << 32, ..options() };
    let bad = [4096, 8193, 0, 1 << 32].map(|segment_bytes| LogOptions { segment_bytes, ..options() });
    for options in bad.into_iter().chain([too_large]) {
        assert!(open_with(mem().shared(), 1, options, STORE).is_err());
    }
    LogOptions::default().check().unwrap();
}

#[test]
fn a_record_larger_than_a_segment_gets_one_of_its_size() {
    let os = mem();
    let (log, _) = open(&os, 1).unwrap();
    log.append(&[(1, b"small")]).unwrap();
    let large = vec![9; 100_000];
    assert_eq!(log.append(&[(1, &large)]).unwrap().segment, 2);
    assert_eq!(log.append(&[(1, b"after")]).unwrap().segment, 2, "the rest of its last page is used");
    log.append(&[(1, &[1; 4000])]).unwrap();
    let infos: Vec<_> = log.segments().iter().map(|info| (info.number, info.file_bytes)).collect();
    assert_eq!(infos, [(1, 8192), (2, 106_496), (3, 8192)]);
    assert_eq!(log.bytes_retained(), 8192 + 106_496 + 8192);
    let (_, entries) = open(&os, 1).unwrap();
    assert_eq!(entries.len(), 4);
    assert_eq!(entries[1].1, large);
    log.release(3).unwrap();
    assert_eq!(log.retained_from(), 3);
    assert_eq!(names(&os), ["3.log", "4.spare"], "the large file is removed, the usual one recycled");
}

#[test]
fn released_segments_are_used_again_without_filling() {
    let os = mem();
    let (log, _) = open(&os, 1).unwrap();
    fill(&log, 40);
    let newest = log.appended().segment;
    assert!(newest > 5);
    log.release(u64::MAX).unwrap();
    assert_eq!(log.retained_from(), newest, "the newest stays");
    assert_eq!(names(&os).len(), 3, "two spares are kept");
    let before = os.mutations();
    fill(&log, 3);
    // Three writes; and for the roll: a sync of the old segment, header, sync, rename, sync of the directory.
    assert_eq!(os.mutations() - before, 3 + 5);
    log.sync().unwrap();
    let (_, entries) = open(&os, newest).unwrap();
    let firsts: Vec<_> = entries.iter().map(|(_, payload)| payload[0]).collect();
    assert_eq!(firsts, [36, 37, 38, 39, 0, 1, 2][7 - firsts.len()..]);
}

#[test]
fn a_base_travels_in_the_headers_and_survives() {
    let os = mem();
    let (log, _) = open(&os, 1).unwrap();
    log.set_base(b"first").unwrap();
    log.append(&[(1, b"x")]).unwrap();
    log.set_base(b"second").unwrap();
    log.seal().unwrap();
    log.append(&[(1, b"y")]).unwrap();
    log.sync().unwrap();
    let expected: Entries = [(0, "first"), (1, "x"), (0, "second"), (1, "y")]
        .map(|(kind, payload)| (kind, payload.as_bytes().to_vec()))
        .into();
    let (log, entries) = open(&os, 1).unwrap();
    assert_eq!(entries, expected);
    log.append(&[(1, b"z")]).unwrap();
    let (_, entries) = open(&os, 3).unwrap();
    assert_eq!(entries, [(0, b"second".to_vec()), (1, b"z".to_vec())]);
}

#[test]
fn a_reader_follows_the_log_over_segments() {
    let (log, _) = open(&mem(), 1).unwrap();
    let mut reader = log.read_from(LogPosition::default()).unwrap().unwrap();
    assert_eq!(reader.next().unwrap(), Tail::CaughtUp);
    fill(&log, 10);
    assert_eq!(drain(&mut reader), (0..10).collect::<Vec<_>>());
    log.append(&[(1, &[10; 10])]).unwrap();
    assert_eq!(drain(&mut reader), [10]);
    log.seal().unwrap();
    assert_eq!(reader.next().unwrap(), Tail::CaughtUp);
    log.append(&[(1, &[11; 10])]).unwrap();
    assert_eq!(drain(&mut reader), [11]);
    let mut second = log.read_from(LogPosition { segment: 2, offset: 0 }).unwrap().unwrap();
    let rest = drain(&mut second);
    assert_eq!(rest[rest.len() - 2..], [10, 11]);
    let end = log.appended();
    let beyond = LogPosition { offset: end.offset + 8, ..end };
    assert!(matches!(log.read_from(beyond), Err(Error::Invalid(_))));
    let mut between = log.read_from(LogPosition { segment: 1, offset: 4104 }).unwrap().unwrap();
    assert!(matches!(between.next(), Err(Error::Damaged { .. })));
}

#[test]
fn a_reader_keeps_its_segment_over_a_release_and_is_told_of_a_gap() {
    let os = mem();
    let (log, _) = open(&os, 1).unwrap();
    fill(&log, 40);
    // Neither has read anything yet: what they find later is what the file holds then.
    let first = LogPosition { segment: 1, offset: 0 };
    let mut readers = [first, first].map(|at| log.read_from(at).unwrap().unwrap());
    log.release(u64::MAX).unwrap();
    fill(&log, 40);
    for reader in &mut readers {
        let mut seen = Vec::new();
        let last = loop {
            match reader.next().unwrap() {
                Tail::Entry(entry) => seen.push(entry.payload[0]),
                other => break other,
            }
        };
        assert_eq!(last, Tail::NotRetained);
        assert_eq!(seen, [0, 1, 2]);
    }
    assert!(log.read_from(first).unwrap().is_none());
    assert!(log.read_from(LogPosition::default()).unwrap().is_none());
}

#[test]
fn a_reader_at_the_end_of_a_released_segment_goes_on() {
    let (log, _) = open(&mem(), 1).unwrap();
    fill(&log, 2);
    let end = log.seal().unwrap();
    fill(&log, 1);
    log.release(2).unwrap();
    let mut reader = log.read_from(end).unwrap().unwrap();
    assert_eq!(drain(&mut reader), [0]);
}

#[test]
fn segments_below_the_replay_stay_readable_after_reopening() {
    let os = mem();
    let (log, _) = open(&os, 1).unwrap();
    fill(&log, 20);
    log.sync().unwrap();
    let newest = log.appended().segment;
    drop(log);
    let (log, entries) = open(&os, newest).unwrap();
    assert!(entries.len() < 5);
    assert_eq!(log.retained_from(), 1);
    let mut reader = log.read_from(LogPosition::default()).unwrap().unwrap();
    assert_eq!(drain(&mut reader), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_sealed_segment_is_linked_whole_and_never_overwritten() {
    let os = mem();
    let (log, _) = open(&os, 1).unwrap();
    fill(&log, 2);
    let end = log.seal().unwrap();
    assert_eq!(log.seal().unwrap(), end);
    assert!(log.segments()[0].is_sealed);
    log.mark_linked(1).unwrap();
    os.create_dir_all(Path::new("/clone/log")).unwrap();
    let link = Path::new("/clone/log/0000000000000001.log");
    os.hard_link(&log.segments()[0].path, link).unwrap();
    fill(&log, 4);
    log.release(u64::MAX).unwrap();
    assert_eq!(names(&os).iter().filter(|name| name.ends_with("spare")).count(), 1);
    let clone = |origins: Vec<InstanceId>| {
        let mut count = 0;
        let options = LogOptions { origins, ..options() };
        let dir = Path::new("/clone/log");
        let log = Log::open(os.shared(), dir, options, InstanceId(78), 1, &mut |_| {
            count += 1;
            Ok(Replay::Continue)
        })?;
        log.append(&[(1, b"own")])?;
        Ok::<_, Error>((count, log.appended().segment))
    };
    assert!(matches!(clone(vec![]), Err(Error::Foreign { .. })));
    assert_eq!(clone(vec![STORE]).unwrap(), (2, 2));
    assert_eq!(clone(vec![STORE]).unwrap(), (3, 3));
}

#[test]
fn a_link_made_by_others_is_noticed() {
    let os = mem();
    let (log, _) = open(&os, 1).unwrap();
    fill(&log, 3);
    os.hard_link(&log.segments()[0].path, Path::new("/db/copy")).unwrap();
    fill(&log, 5);
    log.release(2).unwrap();
    assert!(names(&os).iter().all(|name| !name.ends_with("spare")));
}

/// Opens the log and refuses the record whose first byte is `refused`, and so all after it.
fn open_refusing(os: &MemOs, refused: u8, options: LogOptions) -> Log {
    Log::open(os.shared(), dir(), options, STORE, 1, &mut |entry| {
        Ok(if entry.payload[0] == refused { Replay::StopHere } else { Replay::Continue })
    })
    .unwrap()
}

#[test]
fn the_caller_may_refuse_the_rest_of_the_log() {
    let options = LogOptions { segment_bytes: 16_384, ..options() };
    for refused in 0..24 {
        let os = mem();
        let (log, _) = open_with(os.shared(), 1, options.clone(), STORE).unwrap();
        fill(&log, 36);
        log.sync().unwrap();
        drop(log);
        // Refusing again without an append between gives the same; so does opening after the append.
        for _ in 0..2 {
            drop(open_refusing(&os, refused, options.clone()));
        }
        let log = open_refusing(&os, refused, options.clone());
        let mut reader = log.read_from(LogPosition::default()).unwrap().unwrap();
        assert_eq!(drain(&mut reader), (0..refused).collect::<Vec<_>>());
        // A page of records, as long as the refused ones: what is left of those must not pass for what follows.
        for _ in 0..4 {
            log.append(&[(1, &[99; 1000])]).unwrap();
        }
        log.sync().unwrap();
        drop((log, reader));
        for _ in 0..2 {
            let (_, entries) = open_with(os.shared(), 1, options.clone(), STORE).unwrap();
            let firsts: Vec<_> = entries.iter().map(|(_, payload)| payload[0]).collect();
            assert_eq!(firsts, (0..refused).chain([99; 4]).collect::<Vec<_>>());
        }
    }
}

#[test]
fn missing_cut_and_foreign_segments_are_told() {
    let segment = |number: u64| dir().join(format!("{number:016x}.log"));
    let made = || {
        let os = mem();
        let (log, _) = open(&os, 1).unwrap();
        fill(&log, 12);
        log.sync().unwrap();
        (os, log.appended().segment)
    };
    let damaged = |os: &MemOs, from| matches!(open(os, from), Err(Error::Damaged { .. }));
    let (os, newest) = made();
    assert!(damaged(&os, newest + 1), "the caller knows of a newer one");
    os.remove_file(&segment(2)).unwrap();
    assert!(damaged(&os, 1) && !damaged(&os, 3));
    let (os, newest) = made();
    os.open(&segment(newest), OpenMode::Write).unwrap().set_len(8000).unwrap();
    assert!(damaged(&os, 1));
    let (os, _) = made();
    os.rename(&segment(2), &segment(1)).unwrap();
    assert!(damaged(&os, 1));
    let (os, _) = made();
    let foreign = open_with(os.shared(), 1, options(), InstanceId(1));
    assert!(matches!(foreign, Err(Error::Foreign { .. })));
    let must_exist = LogOptions { must_exist: true, ..options() };
    assert!(open_with(mem().shared(), 1, must_exist, STORE).is_err());
    assert!(damaged(&mem(), 2));
}

#[test]
fn a_spare_is_asked_for_before_it_is_needed() {
    let os = mem();
    let (log, _) = open(&os, 1).unwrap();
    assert!(!log.lacks_spare());
    fill(&log, 1);
    assert!(!log.lacks_spare());
    while !log.lacks_spare() {
        fill(&log, 1);
    }
    let (segments, bytes) = (log.segments().len(), log.active_bytes());
    assert_eq!(segments, 1, "before the first segment is full");
    assert!(bytes >= PAGE_BYTES + (options().segment_bytes - PAGE_BYTES) / 2, "{bytes}");
    assert!(log.prepare_spare().unwrap() && !log.lacks_spare());
}

#[test]
fn a_failed_write_or_sync_poisons_for_good() {
    for (call, on) in [
        (Call::Write, "1.log"),
        (Call::SyncData, "1.log"),
        (Call::SyncData, "tmp"),
        (Call::Write, "spare"),
        (Call::SyncDir, "log"),
        (Call::Rename, "2.log"),
    ] {
        let os = FaultOs::new(mem().shared());
        let (log, _) = open(&os, 1).unwrap();
        fill(&log, 1);
        log.sync().unwrap();
        // Opened before it had its name, the first segment keeps its path in the fault's eyes.
        let on = if on == "1.log" { "1.tmp" } else { on };
        if on == "spare" {
            assert!(log.prepare_spare().unwrap());
        }
        os.inject_on(on, Fault { call, at: 1, error: ErrorKind::Other, forever: false });
        let failed = (0..10).find_map(|_| log.append(&[(1, &[0; 1000])]).and_then(|_| log.sync()).err());
        assert!(matches!(failed, Some(Error::Io { .. })), "{call:?} {on}: {failed:?}");
        let results = [
            log.append(&[(1, b"x")]).map(|_| ()),
            log.sync(),
            log.seal().map(|_| ()),
            log.prepare_spare().map(|_| ()),
            log.release(2),
        ];
        for result in results {
            let Err(Error::Poisoned { reason }) = result else { panic!("{call:?} {on}: {result:?}") };
            assert!(reason.contains("injected"), "{reason}");
        }
        let (_, entries) = open(&os, 1).unwrap();
        assert!(!entries.is_empty());
    }
}

#[test]
fn a_full_disk_is_told_and_the_log_goes_on_when_there_is_room() {
    for cycle in 0..20 {
        let os = mem();
        os.set_capacity(Some(8192 * 3 + cycle * 400));
        let (log, _) = open(&os, 1).unwrap();
        let mut appended = 0_u8;
        let error = loop {
            match log.append(&[(1, &[appended; 1000])]) {
                Ok(_) => appended += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert!(appended >= 9);
        assert!(matches!(log.prepare_spare(), Err(Error::NoSpace { .. })));
        log.sync().unwrap();
        let in_rest = log.append(&[(1, &[appended; 8])]).is_ok();
        appended += u8::from(in_rest);
        assert!(open(&os, 1).is_ok(), "a full disk does not keep the log from being opened");
        os.set_capacity(None);
        assert!(log.prepare_spare().unwrap() && !log.prepare_spare().unwrap());
        log.append(&[(1, &[appended; 1000])]).unwrap();
        log.sync().unwrap();
        let (_, entries) = open(&os, 1).unwrap();
        let firsts: Vec<_> = entries.iter().map(|(_, payload)| payload[0]).collect();
        assert_eq!(firsts, (0..=appended).collect::<Vec<_>>());
    }
}

#[test]
fn a_full_disk_within_a_segment_poisons() {
    let os = FaultOs::new(mem().shared());
    let (log, _) = open(&os, 1).unwrap();
    fill(&log, 1);
    os.inject(Fault { call: Call::SyncData, at: 1, error: ErrorKind::StorageFull, forever: false });
    assert!(matches!(log.sync(), Err(Error::Io { .. })));
    assert!(matches!(log.sync(), Err(Error::Poisoned { .. })));
}

#[test]
fn appends_and_syncs_of_many_threads_are_all_there() {
    let os = mem();
    let (log, _) = open(&os, 1).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let log = &log;
            scope.spawn(move || {
                for number in 0..50_u8 {
                    let at = log.append(&[(1, &[thread, number]), (2, &[thread; 300])]).unwrap();
                    log.sync().unwrap();
                    let end = LogPosition { segment: at.segment, offset: at.end_offset };
                    assert!(log.durable() >= end);
                }
            });
        }
        scope.spawn(|| {
            let mut reader = log.read_from(LogPosition::default()).unwrap().unwrap();
            let mut seen = 0;
            while seen < 400 {
                match reader.next().unwrap() {
                    Tail::Entry(_) => seen += 1,
                    Tail::CaughtUp => std::thread::yield_now(),
                    Tail::NotRetained => panic!("nothing was released"),
                }
            }
        });
    });
    let (_, entries) = open(&os.crash(CrashStyle::PowerCutClean, 0), 1).unwrap();
    for thread in 0..4 {
        let mine = entries.iter().filter(|(kind, payload)| *kind == 1 && payload[0] == thread);
        let numbers: Vec<_> = mine.map(|(_, payload)| payload[1]).collect();
        assert_eq!(numbers, (0..50).collect::<Vec<_>>());
    }
}

#[test]
fn a_sync_does_not_vouch_for_what_was_appended_while_it_ran() {
    let mem = mem();
    let os = FaultOs::new(mem.shared());
    let (log, _) = open(&os, 1).unwrap();
    fill(&log, 1);
    let target = log.appended();
    let beside = log.clone();
    os.run_before(Call::SyncData, 1, move || {
        beside.append(&[(1, b"beside")]).unwrap();
    });
    log.sync().unwrap();
    assert!(log.appended() > target);
    assert_eq!(log.durable(), target);
    log.sync().unwrap();
    assert_eq!(log.durable(), log.appended());
    assert_eq!(open(&mem.crash(CrashStyle::PowerCutClean, 0), 1).unwrap().1.len(), 2);
}

#[test]
fn the_real_system_keeps_a_log_too() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("log");
    for round in 0..4_u8 {
        let mut count = 0;
        let log = Log::open(Arc::new(Posix), &dir, options(), STORE, 1, &mut |_| {
            count += 1;
            Ok(Replay::Continue)
        });
        let log = log.unwrap();
        assert_eq!(count, usize::from(round) * 11);
        fill(&log, 10);
        log.sync().unwrap();
        log.seal().unwrap();
        log.append(&[(1, b"last")]).unwrap();
    }
}
