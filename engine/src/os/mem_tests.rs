use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::{CrashStyle, MemOs};
use crate::os::{OpenMode, Os, OsFile};

fn create(os: &MemOs, path: &str, bytes: &[u8]) -> Arc<dyn OsFile> {
    let file = os.open(Path::new(path), OpenMode::CreateNew).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn read(os: &MemOs, path: &str) -> Option<Vec<u8>> {
    let file = os.open(Path::new(path), OpenMode::Read).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    Some(bytes)
}

fn names(os: &MemOs, path: &str) -> Vec<String> {
    os.list(Path::new(path)).unwrap().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn what_survives_depends_on_both_syncs() {
    for (sync_data, sync_dir, clean) in [
        (false, false, None),
        (true, false, None),
        (false, true, Some(vec![])),
        (true, true, Some(b"worm".to_vec())),
    ] {
        let os = MemOs::new(1);
        let file = create(&os, "/f", b"worm");
        if sync_data {
            file.sync_data().unwrap();
        }
        if sync_dir {
            os.sync_dir(Path::new("/")).unwrap();
        }
        assert_eq!(read(&os.crash(CrashStyle::PowerCutClean, 0), "/f"), clean);
        assert_eq!(read(&os.crash(CrashStyle::ProcessKill, 0), "/f"), Some(b"worm".to_vec()));
        // What a killed process left unsynced is still lost by a later power cut.
        let killed = os.crash(CrashStyle::ProcessKill, 0);
        assert_eq!(read(&killed.crash(CrashStyle::PowerCutClean, 0), "/f"), clean);
    }
}

#[test]
fn a_torn_power_cut_keeps_any_part_of_what_was_not_synced() {
    let os = MemOs::new(1);
    create(&os, "/f", &[7; 1024]).sync_data().unwrap();
    os.sync_dir(Path::new("/")).unwrap();
    os.open(Path::new("/f"), OpenMode::Write).unwrap().write_all_at(&[8; 1024], 0).unwrap();
    let outcomes: BTreeSet<_> = (0..64)
        .map(|seed| read(&os.crash(CrashStyle::PowerCutTorn, seed), "/f").unwrap())
        .map(|bytes| (bytes[0], bytes[1023]))
        .collect();
    assert_eq!(outcomes, BTreeSet::from([(7, 7), (7, 8), (8, 7), (8, 8)]));
}

#[test]
fn unsynced_names_are_lost_as_suffixes_and_as_subsets() {
    let os = MemOs::new(1);
    for name in ["/a", "/b", "/c"] {
        create(&os, name, b"");
    }
    let outcomes: BTreeSet<_> =
        (0..300).map(|seed| names(&os.crash(CrashStyle::PowerCutTorn, seed), "/")).collect();
    assert_eq!(outcomes.len(), 8, "{outcomes:?}");
    assert!(names(&os.crash(CrashStyle::PowerCutClean, 0), "/").is_empty());
}

#[test]
fn a_rename_within_a_directory_is_whole_and_across_directories_loses_nothing() {
    let os = MemOs::new(1);
    os.create_dir_all(Path::new("/d")).unwrap();
    create(&os, "/f", b"1").sync_data().unwrap();
    os.sync_dir(Path::new("/")).unwrap();
    let moved = os.crash(CrashStyle::ProcessKill, 0);
    os.rename(Path::new("/f"), Path::new("/g")).unwrap();
    moved.rename(Path::new("/f"), Path::new("/d/f")).unwrap();
    for seed in 0..100 {
        let after = os.crash(CrashStyle::PowerCutTorn, seed);
        assert_eq!(names(&after, "/").len(), 2, "the file has one of its names");
        let after = moved.crash(CrashStyle::PowerCutTorn, seed);
        assert!(read(&after, "/f").or(read(&after, "/d/f")).is_some());
    }
}

#[test]
fn links_share_the_file_and_removed_files_live_while_open() {
    let os = MemOs::new(1);
    os.create_dir_all(Path::new("/d")).unwrap();
    let file = create(&os, "/f", b"one");
    os.hard_link(Path::new("/f"), Path::new("/d/g")).unwrap();
    assert_eq!(file.links().unwrap(), 2);
    file.write_all_at(b"two", 0).unwrap();
    assert_eq!(read(&os, "/d/g").unwrap(), b"two");
    os.remove_file(Path::new("/f")).unwrap();
    os.remove_dir_all(Path::new("/d")).unwrap();
    os.sync_dir(Path::new("/")).unwrap();
    assert_eq!((file.links().unwrap(), os.used_bytes()), (0, 3));
    let mut bytes = [0; 3];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"two");
    drop(file);
    assert_eq!(os.used_bytes(), 0);
}

#[test]
fn an_unsynced_removal_may_come_back() {
    let os = MemOs::new(1);
    create(&os, "/f", b"one").sync_data().unwrap();
    os.sync_dir(Path::new("/")).unwrap();
    os.remove_file(Path::new("/f")).unwrap();
    assert_eq!(read(&os.crash(CrashStyle::PowerCutClean, 0), "/f").unwrap(), b"one");
    os.sync_dir(Path::new("/")).unwrap();
    assert_eq!(read(&os.crash(CrashStyle::PowerCutClean, 0), "/f"), None);
}

#[test]
fn wrong_names_get_the_errors_of_the_real_system() {
    let os = MemOs::new(1);
    os.create_dir_all(Path::new("/d/e")).unwrap();
    create(&os, "/f", b"");
    let open = |path: &str, mode| os.open(Path::new(path), mode).map(|_| ()).map_err(|e| e.kind());
    assert_eq!(open("/x", OpenMode::Read), Err(ErrorKind::NotFound));
    assert_eq!(open("/d", OpenMode::Read), Err(ErrorKind::IsADirectory));
    assert_eq!(open("/f/x", OpenMode::CreateNew), Err(ErrorKind::NotADirectory));
    assert_eq!(open("/f", OpenMode::CreateNew), Err(ErrorKind::AlreadyExists));
    let rename = |from: &str, to: &str| os.rename(Path::new(from), Path::new(to)).map_err(|e| e.kind());
    assert_eq!(rename("/f", "/d"), Err(ErrorKind::IsADirectory));
    assert_eq!(rename("/x", "/y"), Err(ErrorKind::NotFound));
    os.create_dir_all(Path::new("/g")).unwrap();
    assert_eq!(rename("/g", "/d"), Err(ErrorKind::DirectoryNotEmpty));
    assert_eq!(rename("/d", "/g"), Ok(()));
    assert!(os.exists(Path::new("/g/e")));
    let link = os.hard_link(Path::new("/f"), Path::new("/g")).map_err(|e| e.kind());
    assert_eq!(link, Err(ErrorKind::AlreadyExists));
    let reader = os.open(Path::new("/f"), OpenMode::Read).unwrap();
    assert_eq!(reader.write_all_at(b"x", 0).unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[test]
fn the_process_dies_at_the_chosen_call_and_stays_dead() {
    let os = MemOs::new(1);
    let file = create(&os, "/f", b"one");
    assert_eq!(os.mutations(), 2);
    os.crash_at(4);
    file.sync_data().unwrap();
    assert!(!os.has_crashed());
    assert!(file.write_all_at(&[9; 2048], 0).is_err());
    assert!(os.has_crashed());
    assert!(file.len().is_err() && file.sync_data().is_err() && os.list(Path::new("/")).is_err());
    assert!(!os.exists(Path::new("/f")));
    let after = os.crash(CrashStyle::ProcessKill, 0);
    let bytes = read(&after, "/f").unwrap();
    assert!(bytes.len() < 2048, "a dying write is not whole");
}

#[test]
fn a_full_disk_refuses_and_recovers() {
    let os = MemOs::new(1);
    os.set_capacity(Some(1000));
    let file = create(&os, "/f", &[1; 900]);
    assert_eq!(file.write_all_at(&[2; 200], 850).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(file.allocate(1001).unwrap_err().kind(), ErrorKind::StorageFull);
    file.write_all_at(&[2; 200], 0).unwrap();
    assert_eq!(os.disk_space(Path::new("/")).unwrap().available_bytes, 100);
    file.set_len(10).unwrap();
    create(&os, "/g", &[1; 900]);
    os.set_capacity(None);
    file.allocate(5000).unwrap();
}

#[test]
fn a_lock_is_held_until_dropped_or_the_crash() {
    let os = MemOs::new(1);
    let held = os.lock(Path::new("/LOCK")).unwrap();
    assert_eq!(os.lock(Path::new("/LOCK")).unwrap_err().kind(), ErrorKind::WouldBlock);
    os.crash(CrashStyle::ProcessKill, 0).lock(Path::new("/LOCK")).unwrap();
    drop(held);
    os.lock(Path::new("/LOCK")).unwrap();
}

#[test]
fn clock_and_randomness_follow_from_seed_and_calls() {
    let (left, right) = (MemOs::new(5), MemOs::new(5));
    assert_eq!(left.random_u64(), right.random_u64());
    assert_ne!(MemOs::new(6).random_u64(), MemOs::new(5).random_u64());
    left.set_now_millis(100);
    left.set_clock_step(Duration::from_millis(5));
    assert_eq!((left.now_millis(), left.now_millis()), (105, 110));
    let before = left.monotonic();
    left.advance(Duration::from_secs(1));
    left.set_now_millis(0);
    assert_eq!(left.monotonic(), before + Duration::from_millis(1005));
}

#[test]
fn a_flipped_bit_stays_over_a_crash() {
    let os = MemOs::new(1);
    create(&os, "/f", b"one").sync_data().unwrap();
    os.sync_dir(Path::new("/")).unwrap();
    os.open(Path::new("/f"), OpenMode::Write).unwrap().write_all_at(b"o", 0).unwrap();
    os.flip(Path::new("/f"), 1, 1).unwrap();
    assert_eq!(read(&os.crash(CrashStyle::PowerCutClean, 0), "/f").unwrap(), b"ooe");
    assert_eq!(os.flip(Path::new("/f"), 3, 1).unwrap_err().kind(), ErrorKind::UnexpectedEof);
}

#[test]
fn a_map_is_the_file_as_it_was() {
    let os = MemOs::new(1);
    let file = create(&os, "/f", b"one");
    assert_eq!(&file.map(2).unwrap().unwrap()[..], b"on");
    assert_eq!(file.map(4).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(os.canonicalize(Path::new("/d/../f")).unwrap(), Path::new("/f"));
}
