//! Objects in a directory: complete and durable before they have their names.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Files in the making that may lie beside an object, of attempts that were killed.
const STAGED_MAX: u32 = 10_000;

/// Puts a file at `path` below `root`; tells whether it did, which it does not where there is one and `replace` is not asked
/// for. Whoever sees the file sees all of it, after a power cut too.
pub(crate) fn put(root: &Path, path: &str, bytes: &[u8], replace: bool) -> io::Result<bool> {
    let target = root.join(path);
    let dir = target.parent().unwrap_or(root);
    fs::create_dir_all(dir)?;
    let (mut file, staged) = stage(&target)?;
    let named = file
        .write_all(bytes)
        .and_then(|()| file.sync_all())
        .and_then(|()| if replace { fs::rename(&staged, &target) } else { fs::hard_link(&staged, &target) });
    if !replace || named.is_err() {
        // It has its other name, or none is needed.
        fs::remove_file(&staged)?;
    }
    match named {
        Ok(()) => sync_above(root, &target).map(|()| true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

/// A file beside the object, under a name that listings pass over.
fn stage(target: &Path) -> io::Result<(File, PathBuf)> {
    let mut last = io::Error::from(ErrorKind::AlreadyExists);
    for number in 1..=STAGED_MAX {
        let mut staged = target.as_os_str().to_owned();
        staged.push(format!("#{number}"));
        match File::options().write(true).create_new(true).open(&staged) {
            Ok(file) => return Ok((file, staged.into())),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Makes the names of a file durable, and of the directories that it lies in.
pub(crate) fn sync_above(root: &Path, file: &Path) -> io::Result<()> {
    file.ancestors()
        .skip(1)
        .take_while(|dir| dir.starts_with(root))
        .try_for_each(|dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_put_once_or_over_another_and_leaves_nothing_beside_it() {
        let root = tempfile::tempdir().unwrap();
        assert!(put(root.path(), "a/b/one", b"first", false).unwrap());
        assert!(!put(root.path(), "a/b/one", b"second", false).unwrap());
        let file = root.path().join("a/b/one");
        assert_eq!(fs::read(&file).unwrap(), b"first");
        // Of an attempt that was killed.
        fs::write(root.path().join("a/b/one#1"), b"half").unwrap();
        assert!(put(root.path(), "a/b/one", b"second", true).unwrap());
        assert_eq!(fs::read(&file).unwrap(), b"second");
        assert_eq!(fs::read_dir(root.path().join("a/b")).unwrap().count(), 2);
        fs::write(root.path().join("file"), b"in the way").unwrap();
        assert!(put(root.path(), "file/one", b"third", true).is_err());
    }
}
