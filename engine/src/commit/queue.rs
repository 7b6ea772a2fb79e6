use crate::sync::{self, Arc, AtomicBool, Condvar, Mutex, Ordering};

/// How often a writer who is in no need of the disk looks for its result before it sleeps: some microseconds, less than
/// a thread takes to sleep and wake.
const LOOKS_BEFORE_SLEEP: usize = 500;

/// Group commit: writers queue, the first of them leads, the others wait.
///
/// A leader takes everything that waits and handles it in one go, while the next group fills. A writer that comes
/// alone leads at once and pays for no thread switch. When a leader is done and others have come, it hands the lead
/// to the first of them.
pub(crate) struct CommitQueue<T, R> {
    state: Mutex<State<T, R>>,
}

struct State<T, R> {
    waiting: Vec<Arc<Ticket<T, R>>>,
    /// Whether somebody leads. While nobody does, nobody waits.
    led: bool,
}

struct Ticket<T, R> {
    slot: Mutex<Slot<T, R>>,
    changed: Condvar,
    /// Whether the slot has got what its writer waits for.
    is_settled: AtomicBool,
}

enum Slot<T, R> {
    /// Not taken by a leader yet.
    Waiting(T),
    /// A leader has it in hand.
    Taken,
    /// To be taken by its own writer, who leads from now on.
    Lead(T),
    /// Done.
    Done(R),
}

impl<T, R> Ticket<T, R> {
    fn settle(&self, slot: Slot<T, R>) {
        *self.slot.lock() = slot;
        self.is_settled.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    /// Looks for what it waits for, for a moment. (A model of the interleavings need not look again and again.)
    fn look(&self) {
        for _ in 0..if sync::HAS_CACHE { LOOKS_BEFORE_SLEEP } else { 0 } {
            if self.is_settled.load(Ordering::Acquire) {
                return;
            }
            std::hint::spin_loop();
        }
    }
}

impl<T, R> CommitQueue<T, R> {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { waiting: Vec::new(), led: false }) }
    }

    /// Hands in `item` and returns its result. `handle` gets a group of items, in order, and returns one result for
    /// each; it is never called by two threads at once. `is_quick` says that a group like this item takes no longer
    /// than a thread switch.
    pub(crate) fn submit(&self, item: T, is_quick: bool, handle: impl Fn(Vec<T>) -> Vec<R>) -> R {
        let mut state = self.state.lock();
        if !state.led {
            state.led = true;
            drop(state);
            return self.lead(item, &handle);
        }
        let ticket = Arc::new(Ticket {
            slot: Mutex::new(Slot::Waiting(item)),
            changed: Condvar::new(),
            is_settled: AtomicBool::new(false),
        });
        state.waiting.push(Arc::clone(&ticket));
        drop(state);
        if is_quick {
            ticket.look();
        }
        let mut slot = ticket.slot.lock();
        loop {
            match std::mem::replace(&mut *slot, Slot::Taken) {
                Slot::Done(result) => return result,
                Slot::Lead(item) => {
                    drop(slot);
                    return self.lead(item, &handle);
                }
                waiting @ (Slot::Waiting(_) | Slot::Taken) => {
                    *slot = waiting;
                    ticket.changed.wait(&mut slot);
                }
            }
        }
    }

    /// Handles `own` and all that waits, then gives the lead away.
    fn lead(&self, own: T, handle: &impl Fn(Vec<T>) -> Vec<R>) -> R {
        let others = std::mem::take(&mut self.state.lock().waiting);
        let mut items = Vec::with_capacity(1 + others.len());
        items.push(own);
        for ticket in &others {
            if let Slot::Waiting(item) = std::mem::replace(&mut *ticket.slot.lock(), Slot::Taken) {
                items.push(item);
            }
        }
        let mut results = handle(items).into_iter();
        let own_result = results.next();
        for (ticket, result) in others.iter().zip(results) {
            ticket.settle(Slot::Done(result));
        }
        self.pass_the_lead();
        match own_result {
            Some(result) => result,
            None => unreachable!("a handler returns one result for each item"),
        }
    }

    fn pass_the_lead(&self) {
        let mut state = self.state.lock();
        if state.waiting.is_empty() {
            state.led = false;
            return;
        }
        let next = state.waiting.remove(0);
        drop(state);
        let waiting = std::mem::replace(&mut *next.slot.lock(), Slot::Taken);
        if let Slot::Waiting(item) = waiting {
            next.settle(Slot::Lead(item));
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::CommitQueue;

    #[test]
    fn every_item_is_handled_once_and_gets_its_own_result() {
        let queue = CommitQueue::new();
        let groups = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (queue, groups) = (&queue, &groups);
                scope.spawn(move || {
                    for number in 0..1_000 {
                        let item = thread * 10_000 + number;
                        let result = queue.submit(item, number % 2 == 0, |items: Vec<u64>| {
                            groups.fetch_add(1, Ordering::Relaxed);
                            items.into_iter().map(|item| item + 1).collect()
                        });
                        assert_eq!(result, item + 1);
                    }
                });
            }
        });
        assert!(groups.into_inner() <= 8_000);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::CommitQueue;
    use crate::sync::{Arc, AtomicUsize, Mutex, Ordering};

    #[test]
    fn no_item_is_lost_no_two_lead_and_nobody_waits_for_ever() {
        loom::model(|| {
            let queue = Arc::new(CommitQueue::new());
            let leaders = Arc::new(AtomicUsize::new(0));
            let order = Arc::new(Mutex::new(Vec::new()));
            let submit = |item: u32| {
                let (queue, leaders, order) = (Arc::clone(&queue), Arc::clone(&leaders), Arc::clone(&order));
                move || {
                    let result = queue.submit(item, false, |items| {
                        assert_eq!(leaders.fetch_add(1, Ordering::AcqRel), 0, "one leader at a time");
                        order.lock().extend_from_slice(&items);
                        leaders.fetch_sub(1, Ordering::AcqRel);
                        items.into_iter().map(|item| item * 10).collect()
                    });
                    assert_eq!(result, item * 10);
                }
            };
            let threads = [loom::thread::spawn(submit(1)), loom::thread::spawn(submit(2))];
            submit(3)();
            for thread in threads {
                thread.join().unwrap();
            }
            let mut seen = std::mem::take(&mut *order.lock());
            seen.sort_unstable();
            assert_eq!(seen, [1, 2, 3]);
        });
    }
}
