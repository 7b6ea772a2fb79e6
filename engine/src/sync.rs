//! The one place that names atomics, locks and channels, so that loom can take their place.

pub(crate) use std::sync::{Arc, OnceLock};

pub(crate) use crossbeam::queue::ArrayQueue;
pub(crate) use crossbeam::utils::CachePadded;

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

pub(crate) use lock::{Condvar, Mutex, MutexGuard, RwLock};

#[cfg(not(loom))]
mod lock {
    pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
}

/// loom's locks under the call signatures of `parking_lot`.
#[cfg(loom)]
mod lock {
    use loom::sync as inner;
    pub(crate) type MutexGuard<'a, T> = inner::MutexGuard<'a, T>;

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(inner::Mutex<T>);
    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(inner::Mutex::new(value))
        }
        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    #[derive(Debug)]
    pub(crate) struct RwLock<T>(inner::RwLock<T>);
    impl<T> RwLock<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(inner::RwLock::new(value))
        }
        pub(crate) fn read(&self) -> inner::RwLockReadGuard<'_, T> {
            self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
        pub(crate) fn write(&self) -> inner::RwLockWriteGuard<'_, T> {
            self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(inner::Condvar);
    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(inner::Condvar::new())
        }
        pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            // SAFETY: the guard is moved out and its successor, of the same lock, is written back before anybody can
            // look at the place; `loom::Condvar::wait` does not unwind while the place is empty.
            #[allow(unsafe_code)]
            unsafe {
                let taken = std::ptr::read(guard);
                let back = self.0.wait(taken).unwrap_or_else(std::sync::PoisonError::into_inner);
                std::ptr::write(guard, back);
            }
        }
        pub(crate) fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _timeout: std::time::Duration) {
            self.wait(guard);
        }
        pub(crate) fn notify_one(&self) {
            self.0.notify_one();
        }
        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }
}

/// Whether what is fetched early is there sooner: a model of the interleavings has no cache.
pub(crate) const HAS_CACHE: bool = cfg!(not(loom));
