use planaria_types::Uid;

use crate::sync::{Arc, AtomicU64, Ordering, RwLock};

/// What readers see: a version, and the cut at which they read it.
///
/// A version that leaves out what nobody needs above some cut is put in place only once that cut is shown. As
/// [`Published::pin`] loads the cut under the lock of the version, whoever sees the version sees such a cut.
pub(crate) struct Published<V> {
    version: RwLock<Arc<V>>,
    visible: AtomicU64,
}

impl<V> Published<V> {
    pub(crate) fn new(version: V, visible: Uid) -> Self {
        Self { version: RwLock::new(Arc::new(version)), visible: AtomicU64::new(visible.get()) }
    }

    /// The version, and a cut that it can be read at.
    pub(crate) fn pin(&self) -> (Arc<V>, Uid) {
        let version = self.version.read();
        (Arc::clone(&version), self.visible())
    }

    /// The version alone, for those who write.
    pub(crate) fn version(&self) -> Arc<V> {
        Arc::clone(&self.version.read())
    }

    /// The cut alone.
    pub(crate) fn visible(&self) -> Uid {
        Uid::new(self.visible.load(Ordering::Acquire))
    }

    /// Shows everything at or below `uid`; the cut never falls by this.
    pub(crate) fn show(&self, uid: Uid) {
        self.visible.fetch_max(uid.get(), Ordering::AcqRel);
    }

    /// Puts what `change` makes of the version in its place and returns the old one; `None` if it makes nothing.
    pub(crate) fn replace(&self, change: impl FnOnce(&V) -> Option<V>) -> Option<Arc<V>> {
        let mut version = self.version.write();
        let new = change(&version)?;
        Some(std::mem::replace(&mut *version, Arc::new(new)))
    }

    /// Puts another version and another cut, which may be lower, in place in one step. Returns the old version.
    pub(crate) fn rebase(&self, new: V, cut: Uid) -> Arc<V> {
        let mut version = self.version.write();
        self.visible.store(cut.get(), Ordering::Release);
        std::mem::replace(&mut *version, Arc::new(new))
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use planaria_types::Uid;

    use super::Published;
    use crate::sync::{Arc, AtomicU64, Ordering};

    /// Versions are numbers here: the cut that what they left out needs.
    #[test]
    fn whoever_sees_a_thinned_version_reads_at_a_cut_that_it_has() {
        loom::model(|| {
            let published = Arc::new(Published::new(0_u64, Uid::ZERO));
            let writer = {
                let published = Arc::clone(&published);
                loom::thread::spawn(move || published.show(Uid::new(1)))
            };
            let merger = {
                let published = Arc::clone(&published);
                loom::thread::spawn(move || {
                    let stable = published.visible().get();
                    published.replace(|_| Some(stable));
                })
            };
            let (version, cut) = published.pin();
            assert!(cut.get() >= *version, "the version lacks what a reader at {cut} needs");
            writer.join().unwrap();
            merger.join().unwrap();
        });
    }

    #[test]
    fn who_reads_at_a_cut_finds_what_was_inserted_below_it() {
        loom::model(|| {
            let inserted = Arc::new(AtomicU64::new(0));
            let published = Arc::new(Published::new((), Uid::ZERO));
            let writer = {
                let (published, inserted) = (Arc::clone(&published), Arc::clone(&inserted));
                loom::thread::spawn(move || {
                    inserted.store(7, Ordering::Relaxed);
                    published.show(Uid::new(7));
                })
            };
            let cut = published.pin().1;
            assert!(inserted.load(Ordering::Relaxed) >= cut.get());
            writer.join().unwrap();
        });
    }

    #[test]
    fn a_rebase_changes_version_and_cut_in_one_step() {
        loom::model(|| {
            let published = Arc::new(Published::new(9_u64, Uid::new(9)));
            let rebase = {
                let published = Arc::clone(&published);
                loom::thread::spawn(move || drop(published.rebase(5, Uid::new(5))))
            };
            let (version, cut) = published.pin();
            assert_eq!(*version, cut.get());
            rebase.join().unwrap();
        });
    }
}
