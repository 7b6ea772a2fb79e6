use super::*;
use crate::os::MemOs;
use crate::{Batch, Database, Durability, FilePin};

fn options(os: &MemOs) -> Options {
    Options {
        memtable_bytes: 64 << 10,
        log_segment_bytes: 64 << 10,
        log_bytes_max: 256 << 10,
        log_tail_bytes: 64 << 10,
        background: false,
        os: Arc::new(os.clone()),
        ..Options::default()
    }
}

/// A pinned cut of some run files.
fn pinned(os: &MemOs) -> (Database, FilePin) {
    let db = Database::open_with("/site/source", options(os)).unwrap();
    let table = db.create_raw_table("t").unwrap();
    for round in 0..4_u64 {
        let mut batch = Batch::new();
        for number in 0..200_u64 {
            batch.put(
                table.id(),
                [round, number].map(u64::to_be_bytes).concat(),
                (round * number).to_le_bytes(),
            );
        }
        db.write(batch, Durability::Synced).unwrap();
        db.flush().unwrap();
    }
    let pin = db.pin_files().unwrap();
    (db, pin)
}

fn receive(target: &mut CloneTarget, pin: &FilePin, chunks: usize) {
    for chunk in target.missing().iter().take(chunks).copied().collect::<Vec<_>>() {
        target.write(chunk, &pin.read(chunk.kind, chunk.number, chunk.chunk).unwrap()).unwrap();
    }
}

#[test]
fn a_cut_has_little_of_the_log_whatever_was_written_before() {
    let os = MemOs::new(4);
    let (db, first) = pinned(&os);
    let logged = |pin: &FilePin| -> u64 {
        let files = pin.list().files.iter().filter(|file| file.kind == FileKind::Log);
        files.map(|file| file.len).sum()
    };
    assert!(logged(&first) <= db.store().little_log(), "{} bytes", logged(&first));
    drop(first);
    // Little is fetched as it is, and nothing written for it.
    let table = db.table("t").unwrap();
    let put = |number: u64| {
        let mut batch = Batch::new();
        batch.put(table.id(), number.to_be_bytes(), vec![3; 1000]);
        db.write(batch, Durability::Synced).unwrap();
    };
    put(0);
    let runs = db.status().unwrap().run_files;
    let second = db.pin_files().unwrap();
    assert_eq!(db.status().unwrap().run_files, runs);
    assert!(logged(&second) <= db.store().little_log(), "{} bytes", logged(&second));
    drop(second);
    // Much goes into runs, and stays behind.
    (0..100).for_each(put);
    let third = db.pin_files().unwrap();
    assert!(logged(&third) <= db.store().little_log(), "{} bytes", logged(&third));
    let expected = db.snapshot().digests().unwrap();
    let mut target = CloneTarget::open("/site/copy", third.list().clone(), options(&os)).unwrap();
    receive(&mut target, &third, usize::MAX);
    target.finish(CloneRole::Detached).unwrap();
    let copy = Database::open_with("/site/copy", options(&os)).unwrap();
    assert_eq!(copy.snapshot().digests().unwrap(), expected);
    // As it goes on, so it is found again.
    put(101);
    let expected = db.snapshot().digests().unwrap();
    drop((third, table, db));
    let db = Database::open_with("/site/source", options(&os)).unwrap();
    assert_eq!(db.snapshot().digests().unwrap(), expected);
}

#[test]
fn what_was_received_is_kept_by_what_it_is_whoever_the_source_is() {
    let os = MemOs::new(3);
    let (db, pin) = pinned(&os);
    let mut target = CloneTarget::open("/site/copy", pin.list().clone(), options(&os)).unwrap();
    let runs = pin.list().files.iter().filter(|file| file.kind == FileKind::Run).count();
    assert!(runs > 2, "{runs}");
    receive(&mut target, &pin, usize::MAX);
    drop(target);

    // A copy of the source is another instance with the same files.
    db.clone_to("/site/other").unwrap();
    let other = Database::open_with("/site/other", options(&os)).unwrap();
    let elsewhere = other.pin_files().unwrap();
    let bytes_of_runs = |list: &FileList| {
        list.files.iter().filter(|file| file.kind == FileKind::Run).map(|file| file.len).sum::<u64>()
    };
    let target = CloneTarget::open("/site/copy", elsewhere.list().clone(), options(&os)).unwrap();
    assert!(target.resumed_bytes() >= bytes_of_runs(pin.list()));
    drop(target);

    // The same bytes under other numbers, some of which other files have had.
    let mut renumbered = elsewhere.list().clone();
    let numbers: Vec<u64> = renumbered.files.iter().map(|file| file.number).collect();
    let mut runs = renumbered.files.iter_mut().filter(|file| file.kind == FileKind::Run);
    let (first, second) = (runs.next().unwrap(), runs.next().unwrap());
    std::mem::swap(&mut first.number, &mut second.number);
    let third = runs.next().unwrap();
    let moved = [(first.number, second.number), (second.number, first.number)];
    let moved = [moved[0], moved[1], (third.number, numbers.iter().max().unwrap() + 7)];
    third.number = moved[2].1;
    for run in &mut renumbered.manifest.runs {
        let to = moved.iter().find(|(from, _)| *from == run.file.0);
        run.file.0 = to.map_or(run.file.0, |(_, to)| *to);
    }
    let target = CloneTarget::open("/site/copy", renumbered, options(&os)).unwrap();
    assert_eq!(target.resumed_bytes(), target.list().bytes());
    assert!(target.missing().is_empty());
}

#[test]
fn files_that_are_here_already_are_linked_and_never_written_to() {
    let os = MemOs::new(4);
    let (db, pin) = pinned(&os);
    db.clone_to("/site/old").unwrap();
    let list = pin.list().clone();
    let mut target =
        CloneTarget::open_reusing("/site/copy", Some(Path::new("/site/old")), list, options(&os)).unwrap();
    assert!(target.linked_bytes() > 0 && target.resumed_bytes() == 0);
    assert!(target.missing().iter().all(|chunk| chunk.kind == FileKind::Log));
    receive(&mut target, &pin, usize::MAX);
    target.finish(CloneRole::Detached).unwrap();
    let copy = Database::open_with("/site/copy", options(&os)).unwrap();
    assert_eq!(copy.snapshot().digests().unwrap(), db.snapshot().digests().unwrap());
    copy.verify().unwrap();
    // One byte is another one: that file comes over the network, and the one that is there stays as it is.
    let run = pin.list().files.iter().find(|file| file.kind == FileKind::Run).unwrap();
    let path = file_path(Path::new("/site/old"), run.kind, run.number);
    copy.close();
    drop(copy);
    os.remove_dir_all(Path::new("/site/copy")).unwrap();
    os.flip(&path, 100, 1).unwrap();
    let list = pin.list().clone();
    let target =
        CloneTarget::open_reusing("/site/copy", Some(Path::new("/site/old")), list, options(&os)).unwrap();
    assert!(target.missing().iter().any(|chunk| (chunk.kind, chunk.number) == (run.kind, run.number)));
    let received = file_path(Path::new("/site/copy.partial"), run.kind, run.number);
    assert_eq!(os.open(&received, OpenMode::Read).unwrap().links().unwrap(), 1);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_there() {
    let os = MemOs::new(5);
    let (_db, pin) = pinned(&os);
    os.set_capacity(Some(os.used_bytes() + pin.list().bytes() / 2));
    let refused = CloneTarget::open("/site/copy", pin.list().clone(), options(&os)).unwrap_err();
    assert_eq!(refused.code(), "no_space");
    let needed: u64 = pin.list().files.iter().map(|file| file.extent).sum();
    assert!(refused.to_string().contains(&needed.to_string()), "{refused}");
    assert!(!os.exists(Path::new("/site/copy.partial")));
    // What an earlier attempt has is not needed a second time.
    os.set_capacity(None);
    let mut target = CloneTarget::open("/site/copy", pin.list().clone(), options(&os)).unwrap();
    receive(&mut target, &pin, usize::MAX);
    drop(target);
    os.set_capacity(Some(os.used_bytes() + (64 << 10)));
    let target = CloneTarget::open("/site/copy", pin.list().clone(), options(&os)).unwrap();
    assert!(target.missing().is_empty());
    target.finish(CloneRole::Detached).unwrap();
}
