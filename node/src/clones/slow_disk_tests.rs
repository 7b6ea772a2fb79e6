use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};

use planaria_engine::os::{DirEntry, DirLock, DiskSpace, OpenMode, Os, OsFile};

use super::*;

/// A disk that does not say whether something was replaced by the clone `hangs` until somebody lets go of it.
#[derive(Debug)]
struct SlowDisk {
    let_go: Mutex<bool>,
    changed: Condvar,
    asked: SyncSender<()>,
}

impl SlowDisk {
    fn let_go(&self) {
        *self.let_go.lock() = true;
        self.changed.notify_all();
    }
}

/// Lets go when the test ends, however that is.
struct AtTheEnd<'a>(&'a SlowDisk);

impl Drop for AtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

impl Os for SlowDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn OsFile>> {
        Posix.open(path, mode)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Posix.rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        Posix.exchange(one, other)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        Posix.hard_link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        Posix.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        Posix.remove_dir_all(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        Posix.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        Posix.sync_dir(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        Posix.list(path)
    }

    fn exists(&self, path: &Path) -> bool {
        if path.to_string_lossy().contains("hangs.replaced") {
            let _ = self.asked.try_send(());
            let mut let_go = self.let_go.lock();
            while !*let_go {
                self.changed.wait(&mut let_go);
            }
        }
        Posix.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DirLock>> {
        Posix.lock(path)
    }

    fn disk_space(&self, path: &Path) -> io::Result<DiskSpace> {
        Posix.disk_space(path)
    }

    fn now_millis(&self) -> u64 {
        Posix.now_millis()
    }

    fn monotonic(&self) -> Duration {
        Posix.monotonic()
    }

    fn random_u64(&self) -> u64 {
        Posix.random_u64()
    }

    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        Posix.canonicalize(path)
    }
}

#[test]
fn whoever_asks_of_a_clone_on_a_disk_that_hangs_keeps_nobody_else_waiting() {
    let site = Site::new();
    let (asked, asks) = sync_channel(1);
    let disk = Arc::new(SlowDisk { let_go: Mutex::new(false), changed: Condvar::new(), asked });
    let (source, target) = (site.node("source"), site.node_on("target", Arc::clone(&disk) as Arc<dyn Os>));
    let clones = Arc::clone(target.clones());
    std::thread::scope(|scope| {
        let end = AtTheEnd(&disk);
        // Each says what it has begun, and what another one is.
        let begun = scope.spawn(|| clones.start(job(&site, "hangs", &[&source])).unwrap());
        asks.recv().unwrap();
        let told = scope.spawn(|| clones.info("hangs").unwrap());
        let listed = scope.spawn(|| clones.list());
        asks.recv().unwrap();
        clones.start(job(&site, "copy", &[&source])).unwrap();
        assert_eq!(over(&clones, "copy").state, "complete");
        assert_eq!(clones.info("copy").unwrap().state, "complete");
        clones.live("copy", Some(3_600)).unwrap();
        clones.delete("copy").unwrap();
        drop(end);
        assert_eq!(begun.join().unwrap().name, "hangs");
        assert_eq!(told.join().unwrap().name, "hangs");
        assert!(listed.join().unwrap().iter().any(|clone| clone.name == "hangs"));
    });
    assert_eq!(over(&clones, "hangs").state, "complete");
}
