//! A clone over the network, killed at every mutating call of either side, on a disk that fills up at every call, from sources
//! that are damaged or lie: it is completed with the source's digests, or given up without a trace.

use std::io::ErrorKind;
use std::path::Path;

use super::*;
use crate::os::{Call, CrashStyle, Fault, FaultOs, MemOs, OpenMode, Os};
use crate::sync::Arc;
use crate::{Batch, Database, Durability, Options, Result, TableDigest};

const STYLES: [CrashStyle; 3] =
    [CrashStyle::ProcessKill, CrashStyle::PowerCutClean, CrashStyle::PowerCutTorn];
const COPY: &str = "/site/copy";
/// Of two deaths in a row, the second is tried at every so-many-th call.
const STRIDE: usize = 3;

type Digests = Vec<TableDigest>;

fn options(os: &Arc<dyn Os>) -> Options {
    Options {
        memtable_bytes: 64 << 10,
        log_segment_bytes: 64 << 10,
        log_bytes_max: 256 << 10,
        log_tail_bytes: 64 << 10,
        background: false,
        os: Arc::clone(os),
        ..Options::default()
    }
}

fn shared(os: &MemOs) -> Arc<dyn Os> {
    Arc::new(os.clone())
}

fn digests(db: &Database) -> Digests {
    db.snapshot().digests().unwrap()
}

fn write(db: &Database, round: u64) -> Result<()> {
    let table = db.table("t")?;
    let mut batch = Batch::new();
    for number in 0..60_u64 {
        let key = [round, number].map(u64::to_be_bytes).concat();
        batch.put(table.id(), key, (round * number).to_le_bytes().repeat(8));
    }
    db.write(batch, Durability::Synced).map(drop)
}

/// A source with some run files and a log.
fn source(os: &MemOs) -> Database {
    let db = Database::open_with("/source", options(&shared(os))).unwrap();
    db.create_raw_table("t").unwrap();
    for round in 0..3 {
        write(&db, round).unwrap();
        db.flush().unwrap();
    }
    db
}

/// Takes whatever is missing of a clone and completes it.
fn take(pin: &FilePin, os: &Arc<dyn Os>) -> Result<()> {
    let target = CloneTarget::open(COPY, pin.list().clone(), options(os))?;
    for chunk in target.missing() {
        target.write(chunk, &pin.read(chunk.kind, chunk.number, chunk.chunk)?)?;
        target.sync_complete(chunk.kind, chunk.number)?;
    }
    target.finish(CloneRole::Detached)
}

/// What is at the clone's place, if that opens.
fn taken(os: &MemOs) -> Option<Digests> {
    let opened = Database::open_with(COPY, Options { create: false, ..options(&shared(os)) });
    let copy = opened.map_err(|error| assert_eq!(error.code(), "not_found", "{error}")).ok()?;
    copy.verify().unwrap();
    Some(digests(&copy))
}

/// After a death: the clone is whole under its name, or nothing opens; then it is gone on with, and whole.
fn check_and_go_on(os: &MemOs, pin: &FilePin, expected: &Digests, when: &str) {
    // One that lacks nothing but its name may open; a half may not.
    let partial = Options { create: false, ..options(&shared(os)) };
    let unnamed = os.crash(CrashStyle::ProcessKill, 0);
    let partial = Options { os: shared(&unnamed), ..partial };
    let is_whole = Database::open_with(partial_dir(Path::new(COPY)), partial).map(|unnamed| {
        assert_eq!(digests(&unnamed), *expected, "{when}: a half opens");
    });
    if let Some(found) = taken(os) {
        assert_eq!(found, *expected, "{when}");
    } else {
        if is_whole.is_ok() {
            let target = CloneTarget::open(COPY, pin.list().clone(), options(&shared(os))).unwrap();
            assert!(target.missing().is_empty(), "{when}: what was complete is fetched again");
        }
        take(pin, &shared(os)).unwrap_or_else(|error| panic!("{when}: {error}"));
        assert_eq!(taken(os).unwrap(), *expected, "{when}");
    }
    let left: Vec<_> = os.list(Path::new("/site")).unwrap().into_iter().map(|entry| entry.name).collect();
    assert_eq!(left, ["copy"], "{when}");
}

fn machine(seed: u64) -> MemOs {
    let os = MemOs::new(seed);
    os.create_dir_all(Path::new("/site")).unwrap();
    os.sync_dir(Path::new("/")).unwrap();
    os
}

/// Takes a clone on a machine that dies at the `n`-th call from now on; whether it was over before.
fn take_until(os: &MemOs, pin: &FilePin, n: u64) -> bool {
    os.crash_at(os.mutations() + n);
    let done = take(pin, &shared(os));
    assert_eq!(done.is_ok(), !os.has_crashed(), "{done:?}");
    done.is_ok()
}

#[test]
fn a_target_that_dies_at_any_call_once_or_twice_goes_on_to_the_same_digests() {
    let db = source(&MemOs::new(1));
    let (pin, expected) = (db.pin_files().unwrap(), digests(&db));
    for style in STYLES {
        for n in 1.. {
            let os = machine(n);
            let is_over = take_until(&os, &pin, n);
            let crashed = os.crash(style, n);
            check_and_go_on(&crashed, &pin, &expected, &format!("{style:?} at call {n}"));
            if is_over {
                assert!(n > 20, "a clone of {n} calls");
                break;
            }
            for second in (1..).step_by(STRIDE) {
                let again = os.crash(style, n + second);
                if taken(&again).is_some() {
                    break;
                }
                let is_over = take_until(&again, &pin, second);
                let crashed = again.crash(style, second);
                check_and_go_on(&crashed, &pin, &expected, &format!("{style:?} at {n}, then at {second}"));
                if is_over {
                    break;
                }
            }
        }
    }
}

#[test]
fn a_source_that_dies_at_any_call_of_a_pin_loses_nothing_and_gives_the_rest_afterwards() {
    for style in STYLES {
        for n in 1.. {
            let os = MemOs::new(n);
            let db = source(&os);
            write(&db, 7).unwrap();
            let expected = digests(&db);
            // A target that has the first half of an earlier cut.
            let target_os = machine(n);
            let earlier = db.pin_files().unwrap();
            let target =
                CloneTarget::open(COPY, earlier.list().clone(), options(&shared(&target_os))).unwrap();
            let half = target.missing().len() / 2;
            for chunk in target.missing().into_iter().take(half) {
                let bytes = earlier.read(chunk.kind, chunk.number, chunk.chunk).unwrap();
                target.write(chunk, &bytes).unwrap();
            }
            drop((target, earlier));
            // Enough that a pin writes it out.
            (8..18).try_for_each(|round| write(&db, round)).unwrap();
            let later = digests(&db);
            os.crash_at(os.mutations() + n);
            let is_over = db.pin_files().map(drop).is_ok() && !os.has_crashed();
            drop(db);
            // Both die: the target with what it had.
            let (os, target_os) = (os.crash(style, n), target_os.crash(style, n));
            let db = Database::open_with("/source", options(&shared(&os))).unwrap();
            let when = format!("{style:?} at call {n}");
            assert_ne!(expected, later);
            assert_eq!(digests(&db), later, "{when}");
            let pin = db.pin_files().unwrap();
            check_and_go_on(&target_os, &pin, &later, &when);
            // Nothing but what is named stays with the source once nobody holds a pin.
            drop(pin);
            drop(db);
            let db = Database::open_with("/source", options(&shared(&os))).unwrap();
            let files = os.list(&run_path(Path::new("/source"), FileId(0)).with_file_name("")).unwrap().len();
            assert_eq!(files, db.store().manifest().runs.len(), "{when}");
            if is_over {
                assert!(n > 12, "a pin of {n} calls");
                break;
            }
        }
    }
}

#[test]
fn a_disk_that_is_full_at_any_call_is_an_error_after_which_it_goes_on_or_leaves_nothing() {
    let db = source(&MemOs::new(1));
    let (pin, expected) = (db.pin_files().unwrap(), digests(&db));
    for call in [Call::Create, Call::CreateDir, Call::Allocate, Call::Write, Call::SyncData, Call::Rename] {
        for forever in [true, false] {
            for at in 1.. {
                let disk = machine(at);
                let used = disk.used_bytes();
                let faulty = FaultOs::new(shared(&disk));
                faulty.inject(Fault { call, at, error: ErrorKind::StorageFull, forever });
                let os: Arc<dyn Os> = Arc::new(faulty.clone());
                let done = take(&pin, &os);
                if faulty.hits() == 0 {
                    assert!(done.is_ok() && at > 1, "{call:?}: {done:?}");
                    break;
                }
                let when = format!("{call:?} {at}, for good: {forever}");
                let error = done.err().unwrap_or_else(|| panic!("{when}: nobody noticed"));
                assert_eq!(error.code(), "no_space", "{when}: {error}");
                assert!(taken(&disk).is_none(), "{when}");
                // Whoever gives it up has all of the disk again; whoever goes on has the clone.
                faulty.clear();
                if at % 2 == 0 {
                    let place = ClonePlace::new(COPY, Arc::clone(&os));
                    place.abandon().unwrap();
                    assert_eq!(disk.used_bytes(), used, "{when}");
                    assert!(os.list(Path::new("/site")).unwrap().is_empty(), "{when}");
                }
                check_and_go_on(&disk, &pin, &expected, &when);
            }
        }
    }
}

#[test]
fn a_damaged_file_of_a_source_is_never_given_away_and_another_source_has_it() {
    let (os, elsewhere) = (MemOs::new(1), machine(3));
    let db = source(&os);
    let pin = db.pin_files().unwrap();
    take(&pin, &shared(&elsewhere)).unwrap();
    for file in &pin.list().files {
        let path = file_path(Path::new("/source"), file.kind, file.number);
        for offset in [0, file.len / 2, file.len - 1] {
            os.flip(&path, offset, 4).unwrap();
            let error = pin.read(file.kind, file.number, offset / CLONE_CHUNK_BYTES).unwrap_err();
            assert_eq!(error.code(), "damaged", "{} at {offset}", path.display());
            assert!(error.to_string().contains(&format!("{:?} {}", file.kind, file.number)), "{error}");
            os.flip(&path, offset, 4).unwrap();
        }
    }
    // One that is damaged before the cut is made is noticed by its hash, not made part of the list.
    let run = pin.list().files.iter().find(|file| file.kind == FileKind::Run).unwrap().clone();
    drop(pin);
    let path = file_path(Path::new("/source"), run.kind, run.number);
    os.flip(&path, 100, 4).unwrap();
    let target_os = machine(2);
    let refused = db.pin_files().and_then(|pin| take(&pin, &shared(&target_os))).unwrap_err();
    assert_eq!(refused.code(), "damaged");
    assert!(taken(&target_os).is_none());
    let other = Database::open_with(COPY, options(&shared(&elsewhere))).unwrap();
    let pin = other.pin_files().unwrap();
    check_and_go_on(&target_os, &pin, &digests(&other), "from another source");
}

#[test]
fn a_list_that_makes_no_sense_is_refused_and_nothing_is_begun() {
    let db = source(&MemOs::new(1));
    let pin = db.pin_files().unwrap();
    let os = machine(2);
    let run = pin.list().files.iter().position(|file| file.kind == FileKind::Run).unwrap();
    let log = pin.list().files.iter().position(|file| file.kind == FileKind::Log).unwrap();
    let lies: [fn(&mut FileList, usize, usize); 12] = [
        |list, run, _| list.files[run].len = u64::MAX,
        |list, run, _| list.files[run].len += 1,
        |list, run, _| list.files[run].extent -= 1,
        |list, run, _| list.files[run].extent += 1,
        |list, run, _| list.files[run].extent = u64::MAX,
        |list, _, log| list.files[log].extent = u64::MAX,
        // Two log segments that have nothing but zeros: room for both is not reserved for nothing.
        |list, _, log| {
            list.files[log].extent = list.files[log].len + (4 << 30);
            let empty = CloneFile {
                number: 1_000_000,
                len: 0,
                extent: 4 << 30,
                chunks: Vec::new(),
                ..list.files[log]
            };
            list.files.push(empty);
        },
        |list, run, _| list.files[run].chunks.push([0; 32]),
        |list, run, _| list.files[run].chunks.clear(),
        |list, run, _| list.files[run].number += 1_000_000,
        |list, run, _| drop(list.files.remove(run)),
        |list, run, _| list.files.push(list.files[run].clone()),
    ];
    for (number, lie) in lies.iter().enumerate() {
        let mut list = pin.list().clone();
        lie(&mut list, run, log);
        // Whoever tells people about it does not fail.
        let _ = list.bytes();
        let error = CloneTarget::open(COPY, list, options(&shared(&os))).unwrap_err();
        assert_eq!(error.code(), "invalid", "lie {number}: {error}");
        assert!(os.list(Path::new("/site")).unwrap().is_empty(), "lie {number}");
    }
    // More than the disk has is told as that.
    os.set_capacity(Some(1 << 20));
    let mut list = pin.list().clone();
    list.files[log].extent = list.files[log].len + (1 << 30);
    let error = CloneTarget::open(COPY, list, options(&shared(&os))).unwrap_err();
    assert_eq!(error.code(), "no_space");
    assert!(os.list(Path::new("/site")).unwrap().is_empty());
}

#[test]
fn other_bytes_than_promised_are_refused_and_never_written() {
    let db = source(&MemOs::new(1));
    let (pin, expected) = (db.pin_files().unwrap(), digests(&db));
    let os = machine(2);
    let target = CloneTarget::open(COPY, pin.list().clone(), options(&shared(&os))).unwrap();
    for chunk in target.missing() {
        let right = pin.read(chunk.kind, chunk.number, chunk.chunk).unwrap();
        let mut wrong = right.to_vec();
        wrong[0] ^= 1;
        let mut longer = right.to_vec();
        longer.push(0);
        for lie in [&wrong[..], &longer, &right[1..], &[]] {
            assert_eq!(target.write(chunk, lie).unwrap_err().code(), "invalid");
        }
        for elsewhere in [
            MissingChunk { chunk: chunk.chunk + 1_000, ..chunk },
            MissingChunk { number: u64::MAX, ..chunk },
            MissingChunk { chunk: u64::MAX, ..chunk },
        ] {
            assert_eq!(target.write(elsewhere, &right).unwrap_err().code(), "invalid");
        }
    }
    let missing = target.missing().len();
    let refused = target.finish(CloneRole::Detached).unwrap_err();
    assert!(refused.to_string().contains("not complete"), "{refused}");
    let target = CloneTarget::open(COPY, pin.list().clone(), options(&shared(&os))).unwrap();
    assert_eq!((target.missing().len(), target.resumed_bytes()), (missing, 0));
    drop(target);
    check_and_go_on(&os, &pin, &expected, "after lies");
    assert!(os.open(Path::new(COPY), OpenMode::Read).is_err());
}

#[test]
fn what_was_made_to_be_given_away_is_no_source_in_the_eyes_of_its_clones() {
    let os = MemOs::new(1);
    let db = source(&os);
    let made_of = Lineage { database: db.id(), instance: db.instance(), position: db.position() };
    let made = Database::open_with("/made", options(&shared(&os))).unwrap();
    made.create_raw_table("t").unwrap();
    made.set_lineage(made_of.clone()).unwrap();
    write(&made, 1).unwrap();
    made.clone_to("/site/plain").unwrap();
    made.pass_on_to("/site/local").unwrap();
    let pin = made.pin_files().unwrap();
    let mut target = CloneTarget::open("/site/remote", pin.list().clone(), options(&shared(&os))).unwrap();
    for chunk in target.missing() {
        target.write(chunk, &pin.read(chunk.kind, chunk.number, chunk.chunk).unwrap()).unwrap();
    }
    target.inherit_lineage();
    target.finish(CloneRole::Detached).unwrap();
    let lineage = |dir: &str| {
        let opened = Database::open_with(dir, Options { create: false, ..options(&shared(&os)) });
        opened.unwrap().lineage().unwrap()
    };
    assert_eq!((lineage("/site/local"), lineage("/site/remote")), (made_of.clone(), made_of));
    assert_eq!(lineage("/site/plain").instance, made.instance());
}

#[test]
fn what_a_local_clone_left_is_never_written_to_by_one_over_the_network() {
    let os = MemOs::new(1);
    let db = source(&os);
    db.clone_to(partial_dir(Path::new(COPY))).unwrap();
    // Another database, whose files have the same numbers and other bytes.
    let other = Database::open_with("/other", options(&shared(&os))).unwrap();
    other.create_raw_table("t").unwrap();
    for round in 5..8 {
        write(&other, round).unwrap();
        other.flush().unwrap();
    }
    let expected = digests(&db);
    take(&other.pin_files().unwrap(), &shared(&os)).unwrap();
    assert_eq!(taken(&os).unwrap(), digests(&other));
    drop(db);
    let db = Database::open_with("/source", options(&shared(&os))).unwrap();
    db.verify().unwrap();
    assert_eq!(digests(&db), expected);
}
