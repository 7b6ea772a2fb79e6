//! Clones that are read before they are complete.

use std::path::Path;
use std::sync::Arc;
use std::thread;

use planaria_types::KeyRange;

use crate::os::{CrashStyle, MemOs, Os};
use crate::{
    Batch, CloneRole, CloneTarget, Codec, Database, Durability, Error, FileKind, FilePin, Hydration,
    MissingChunk, Options, Result,
};

const ROWS: u32 = 1_500;
const ROW_BYTES: usize = 3_000;

fn options(os: &MemOs) -> Options {
    Options {
        run_file_bytes: 2 << 20,
        log_segment_bytes: 1 << 20,
        bottom_codec: Codec::None,
        background: false,
        os: Arc::new(os.clone()),
        ..Options::default()
    }
}

/// What a row is told by: its first byte and its length.
fn row(number: u32) -> (u8, usize) {
    (number as u8, ROW_BYTES)
}

/// Writes rows `from..to`.
fn write(db: &Database, from: u32, to: u32) {
    let table = db.table("t").unwrap().id();
    let mut batch = Batch::new();
    for number in from..to {
        batch.put(table, number.to_be_bytes(), vec![number as u8; ROW_BYTES]);
    }
    db.write(batch, Durability::Synced).unwrap();
}

/// A source of several files of several chunks, and a pin of it.
fn source(os: &MemOs) -> (Database, FilePin) {
    let db = Database::open_with("/db", options(os)).unwrap();
    db.create_raw_table("t").unwrap();
    write(&db, 0, ROWS);
    db.compact().unwrap();
    let pin = db.pin_files().unwrap();
    (db, pin)
}

/// Begins a clone and brings its log, after which it can be opened.
fn begin(os: &MemOs, pin: &FilePin) -> CloneTarget {
    let target = CloneTarget::open_lazily("/copy", pin.list().clone(), options(os)).unwrap();
    let log = target.missing().into_iter().filter(|chunk| chunk.kind == FileKind::Log);
    log.for_each(|chunk| bring(&target, pin, chunk));
    target
}

fn bring(target: &CloneTarget, pin: &FilePin, chunk: MissingChunk) {
    target.write(chunk, &pin.read(chunk.kind, chunk.number, chunk.chunk).unwrap()).unwrap();
}

/// Does `read`, and brings what it waits for, and nothing else; tells how many chunks that were.
fn serve<T: Send>(target: &CloneTarget, pin: &FilePin, read: impl FnOnce() -> T + Send) -> (T, usize) {
    thread::scope(|scope| {
        let reading = scope.spawn(read);
        let mut brought = 0;
        while !reading.is_finished() {
            match target.hydration().next_wanted() {
                Some(chunk) => {
                    bring(target, pin, chunk);
                    brought += 1;
                }
                None => thread::yield_now(),
            }
        }
        (reading.join().unwrap(), brought)
    })
}

fn get(view: &Database, number: u32) -> Result<Option<(u8, usize)>> {
    let table = view.table("t")?.id();
    Ok(view.snapshot().get(table, &number.to_be_bytes())?.map(|row| (row[0], row.len())))
}

/// A row that is not here, while nothing comes.
fn absent(view: &Database) -> u32 {
    (0..ROWS).rev().find(|number| get(view, *number).is_err()).unwrap()
}

fn count(db: &Database) -> Result<usize> {
    let table = db.table("t")?.id();
    db.snapshot().scan(table, KeyRange::ALL).try_fold(0, |count, record| record.map(|_| count + 1))
}

/// Fetches all that the background would.
fn fetch_rest(target: &CloneTarget, pin: &FilePin) -> usize {
    let mut fetched = 0;
    while let Some(range) = target.hydration().claim(2) {
        for chunk in (range.first.chunk..).take(range.length.div_ceil(1 << 20) as usize) {
            bring(target, pin, MissingChunk { chunk, ..range.first });
            fetched += 1;
        }
    }
    fetched
}

#[test]
fn a_read_brings_what_it_needs_and_no_more_and_the_rest_completes_the_clone() {
    let os = MemOs::new(1);
    let (db, pin) = source(&os);
    let target = begin(&os, &pin);
    let chunks = target.missing().len();
    assert!(chunks > 5, "{chunks} chunks are too few to try");
    let view = target.view(CloneRole::Detached).unwrap();
    assert_eq!(target.missing().len(), chunks, "opening it needs nothing of its run files");

    let (found, brought) = serve(&target, &pin, || get(&view, 700).unwrap());
    assert_eq!(found, Some(row(700)));
    assert!((1..=5).contains(&brought), "{brought} of {chunks} chunks for one row");
    let (absent, _) = serve(&target, &pin, || get(&view, ROWS + 1).unwrap());
    assert_eq!(absent, None);
    assert_eq!(view.write(Batch::new(), Durability::Synced).unwrap(), view.visible());
    assert_eq!(view.create_raw_table("u").unwrap_err().code(), "read_only");

    // What is written at the source meanwhile is no part of it.
    write(&db, ROWS, ROWS + 10);
    let brought = chunks - target.missing().len();
    assert_eq!(fetch_rest(&target, &pin), chunks - brought, "what readers had brought is not fetched again");
    assert_eq!((target.missing().len(), target.hydration().missing_bytes()), (0, 0));
    let identity = (view.instance(), view.id());
    target.finish(CloneRole::Detached).unwrap();
    assert_eq!(count(&view).unwrap(), ROWS as usize, "it is read on from the files that are open");

    let copy = Database::open_with("/copy", options(&os)).unwrap();
    assert_eq!((copy.instance(), copy.id()), identity);
    assert_eq!(count(&copy).unwrap(), ROWS as usize);
    copy.verify().unwrap();
    assert_ne!(copy.id(), db.id());
    write(&copy, 0, 1);
}

#[test]
fn while_the_source_is_away_what_is_here_is_read_and_the_rest_says_why_it_cannot_be() {
    let os = MemOs::new(2);
    let (_db, pin) = source(&os);
    let target = begin(&os, &pin);
    let view = target.view(CloneRole::Detached).unwrap();
    serve(&target, &pin, || get(&view, 3).unwrap());
    target.hydration().set_away("127.0.0.1:1 does not answer");
    assert_eq!(get(&view, 3).unwrap(), Some(row(3)));
    let absent = absent(&view);
    let error = get(&view, absent).unwrap_err();
    assert_eq!(error.code(), "not_here");
    assert!(error.to_string().contains("127.0.0.1:1 does not answer"), "{error}");
    assert!(matches!(count(&view).unwrap_err(), Error::NotHere { .. }));
    // Those who wait already are told, too.
    target.hydration().set_back();
    thread::scope(|scope| {
        let reading = scope.spawn(|| get(&view, absent));
        while target.hydration().next_wanted().is_none() {
            thread::yield_now();
        }
        target.hydration().set_away("it went away");
        assert_eq!(reading.join().unwrap().unwrap_err().code(), "not_here");
    });
    target.hydration().set_back();
    assert_eq!(serve(&target, &pin, || get(&view, absent).unwrap()).0, Some(row(absent)));
}

#[test]
fn what_an_earlier_process_brought_is_read_without_any_source_and_not_fetched_again() {
    let os = MemOs::new(3);
    let (_db, pin) = source(&os);
    let target = begin(&os, &pin);
    let chunks = target.missing().len();
    let view = target.view(CloneRole::Detached).unwrap();
    let (_, brought) = serve(&target, &pin, || get(&view, 700).unwrap());
    drop((view, target));

    assert!(CloneTarget::resume_lazily("/other", options(&os)).unwrap().is_none());
    let target = CloneTarget::resume_lazily("/copy", options(&os)).unwrap().unwrap();
    let view = target.view(CloneRole::Detached).unwrap();
    target.hydration().set_away("no source was asked yet");
    assert_eq!(get(&view, 700).unwrap(), Some(row(700)));
    assert_eq!(get(&view, absent(&view)).unwrap_err().code(), "not_here");
    target.hydration().set_back();
    assert_eq!(fetch_rest(&target, &pin), chunks - brought);
    assert!(target.resumed_bytes() > 0);
    assert_eq!(count(&view).unwrap(), ROWS as usize);
    target.finish(CloneRole::Secondary).unwrap();
    Database::open_with("/copy", options(&os)).unwrap().verify().unwrap();
}

#[test]
fn another_cut_of_the_source_serves_the_clone_for_as_long_as_it_has_its_files() {
    let os = MemOs::new(4);
    let (db, pin) = source(&os);
    let target = begin(&os, &pin);
    drop(pin);
    write(&db, ROWS, ROWS + 10);
    let later = db.pin_files().unwrap();
    let numbers = target.numbers_in(later.list()).unwrap();
    assert!(numbers.iter().all(|((_, number), theirs)| number == theirs), "{numbers:?}");

    // Once they are merged, the clone is begun anew as of the later cut, with what the two have in common.
    write(&db, 0, ROWS);
    db.compact().unwrap();
    let merged = db.pin_files().unwrap();
    assert_eq!(target.numbers_in(merged.list()), None);
    let view = target.view(CloneRole::Detached).unwrap();
    target.retire("the clone is as of a later cut now");
    assert_eq!(get(&view, 5).unwrap_err().code(), "not_here");
    let chunk = target.missing()[0];
    assert_eq!(
        target.write(chunk, &later.read(chunk.kind, chunk.number, chunk.chunk).unwrap()).unwrap_err().code(),
        "closed"
    );
    let next = begin(&os, &merged);
    let view = next.view(CloneRole::Detached).unwrap();
    assert_eq!(serve(&next, &merged, || get(&view, ROWS + 9).unwrap()).0, Some(row(ROWS + 9)));
}

#[test]
fn bytes_that_are_not_those_of_the_list_never_reach_a_reader() {
    let os = MemOs::new(5);
    let (_db, pin) = source(&os);
    let target = begin(&os, &pin);
    let view = target.view(CloneRole::Detached).unwrap();
    let chunk = target.missing()[0];
    let mut bytes = pin.read(chunk.kind, chunk.number, chunk.chunk).unwrap().to_vec();
    bytes[100] ^= 1;
    assert_eq!(target.write(chunk, &bytes).unwrap_err().code(), "invalid");
    assert!(target.missing().contains(&chunk));
    // Nor those that lie in the file's place after a crash.
    serve(&target, &pin, || count(&view).unwrap());
    let run = target.missing().first().copied().unwrap_or(chunk);
    drop((view, target));
    os.flip(Path::new(&format!("/copy.partial/runs/{:016x}.run", run.number)), 100, 1).unwrap();
    let target = CloneTarget::resume_lazily("/copy", options(&os)).unwrap().unwrap();
    let view = target.view(CloneRole::Detached).unwrap();
    let (counted, brought) = serve(&target, &pin, || count(&view).unwrap());
    assert_eq!((counted, brought), (ROWS as usize, 1));
}

#[test]
fn no_more_readers_wait_than_may() {
    let os = MemOs::new(6);
    let (_db, pin) = source(&os);
    let target = begin(&os, &pin);
    let view = target.view(CloneRole::Detached).unwrap();
    let hydration: &Arc<Hydration> = target.hydration();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..256)
            .map(|number| {
                scope.spawn({
                    let view = &view;
                    move || get(view, number)
                })
            })
            .collect();
        while hydration.waiting() < 256 {
            thread::yield_now();
        }
        let error = get(&view, 0).unwrap_err();
        assert!(error.code() == "not_here" && error.to_string().contains("256 readers"), "{error}");
        hydration.set_away("over");
        assert!(waiting.into_iter().all(|reader| reader.join().unwrap().is_err()));
    });
    assert_eq!(hydration.waiting(), 0);
}

/// Takes a whole clone, reading from it meanwhile, until a call fails.
fn take(os: &MemOs, pin: &FilePin) -> Result<()> {
    let target = match CloneTarget::resume_lazily("/copy", options(os))? {
        Some(target) => target,
        None => CloneTarget::open_lazily("/copy", pin.list().clone(), options(os))?,
    };
    let bring = |chunk: MissingChunk| target.write(chunk, &pin.read(chunk.kind, chunk.number, chunk.chunk)?);
    target.missing().into_iter().filter(|chunk| chunk.kind == FileKind::Log).try_for_each(bring)?;
    let view = target.view(CloneRole::Detached)?;
    while let Some(range) = target.hydration().claim(1) {
        if range.length > 0 {
            bring(range.first)?;
        }
    }
    assert_eq!(count(&view)?, ROWS as usize);
    target.finish(CloneRole::Detached)
}

#[test]
fn it_dies_at_any_call_and_the_next_attempt_completes_it() {
    let from = MemOs::new(7);
    let (db, pin) = source(&from);
    let digests = db.snapshot().digests().unwrap();
    let (mut call, mut tried) = (0, 0);
    loop {
        let os = MemOs::new(call);
        os.crash_at(call);
        let taken = take(&os, &pin);
        let died = os.has_crashed();
        assert_eq!(taken.is_err(), died, "{taken:?}");
        if !died {
            break;
        }
        for (seed, style) in (0..).zip(CrashStyle::ALL) {
            let os = os.crash(style, seed);
            if !os.exists(Path::new("/copy")) {
                take(&os, &pin).unwrap();
            }
            let copy = Database::open_with("/copy", Options { create: false, ..options(&os) }).unwrap();
            assert_eq!(copy.snapshot().digests().unwrap(), digests, "call {call}");
            copy.verify().unwrap();
        }
        tried += 1;
        call += 1;
    }
    assert!(tried > 15, "{tried} calls are too few to try");
}
