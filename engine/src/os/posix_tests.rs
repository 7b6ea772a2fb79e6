use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use super::{OpenMode, Os, Posix};

#[test]
fn files_and_directories_are_for_their_owner_alone() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("a/b");
    Posix.create_dir_all(&dir).unwrap();
    Posix.create_dir_all(&dir).unwrap();
    Posix.open(&dir.join("f"), OpenMode::CreateNew).unwrap();
    let mode = |path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(dir.clone()), 0o700);
    assert_eq!(mode(dir.join("f")), 0o600);
}

#[test]
fn a_file_is_written_read_cut_and_mapped() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("f");
    assert_eq!(Posix.open(&path, OpenMode::Write).unwrap_err().kind(), ErrorKind::NotFound);
    let file = Posix.open(&path, OpenMode::CreateNew).unwrap();
    assert_eq!(Posix.open(&path, OpenMode::CreateNew).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(Posix.open(root.path(), OpenMode::Read).unwrap_err().kind(), ErrorKind::IsADirectory);
    file.write_all_at(b"worm", 4).unwrap();
    file.sync_data().unwrap();
    let mut buf = [9; 8];
    file.read_exact_at(&mut buf, 0).unwrap();
    assert_eq!(&buf, b"\0\0\0\0worm");
    assert_eq!(file.read_exact_at(&mut buf, 1).unwrap_err().kind(), ErrorKind::UnexpectedEof);
    assert_eq!(&file.map(8).unwrap().unwrap()[..], b"\0\0\0\0worm");
    file.set_len(3).unwrap();
    assert_eq!(file.len().unwrap(), 3);
    assert!(file.map(8).is_err());
    assert!(!file.is_empty().unwrap());
    let reader = Posix.open(&path, OpenMode::Read).unwrap();
    assert!(reader.write_all_at(b"x", 0).is_err());
}

#[test]
fn allocation_sets_the_length_both_ways() {
    let root = tempfile::tempdir().unwrap();
    let file = Posix.open(&root.path().join("f"), OpenMode::CreateNew).unwrap();
    for len in [8192, 4096, 0] {
        file.allocate(len).unwrap();
        assert_eq!(file.len().unwrap(), len);
    }
}

#[test]
fn names_are_renamed_linked_listed_and_removed() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let file = Posix.open(&at("b"), OpenMode::CreateNew).unwrap();
    file.write_all_at(b"123", 0).unwrap();
    assert_eq!(file.links().unwrap(), 1);
    Posix.hard_link(&at("b"), &at("c")).unwrap();
    assert_eq!(file.links().unwrap(), 2);
    Posix.rename(&at("b"), &at("a")).unwrap();
    Posix.create_dir_all(&at("d")).unwrap();
    Posix.sync_dir(root.path()).unwrap();
    let entries = Posix.list(root.path()).unwrap();
    let entries: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.is_dir, e.len)).collect();
    assert_eq!(entries, [("a", false, 3), ("c", false, 3), ("d", true, 0)]);
    Posix.remove_file(&at("a")).unwrap();
    Posix.remove_dir_all(&at("d")).unwrap();
    assert!(!Posix.exists(&at("a")) && !Posix.exists(&at("d")) && Posix.exists(&at("c")));
    assert_eq!(Posix.canonicalize(&at("./c")).unwrap(), at("c").canonicalize().unwrap());
}

#[test]
fn a_lock_is_held_once_even_within_the_process() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("LOCK");
    let held = Posix.lock(&path).unwrap();
    assert_eq!(Posix.lock(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
    drop(held);
    Posix.lock(&path).unwrap();
}

#[test]
fn clocks_randomness_and_space_answer() {
    assert!(Posix.now_millis() > 1_600_000_000_000);
    let first = Posix.monotonic();
    assert!(Posix.monotonic() >= first);
    assert_ne!(Posix.random_u64(), Posix.random_u64());
    let space = Posix.disk_space(&std::env::temp_dir()).unwrap();
    assert!(space.total_bytes >= space.available_bytes);
}
