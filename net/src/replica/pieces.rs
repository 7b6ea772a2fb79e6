//! What is still to be fetched of a clone, and who fetches which piece of it: what somebody could not fetch goes to another one.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use planaria_engine::CLONE_CHUNK_BYTES;
use tokio::sync::Notify;

use super::executor::bulk::Range;

/// How a clone is handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Portions {
    /// Whole ranges: one connection has no other that could help with the last one.
    Whole,
    /// Pieces for so many streams: large ones at first, small ones in the end, so that all of them end at about the same time.
    Shared(u64),
}

/// The pieces of a clone.
pub(super) struct Pieces {
    portions: Portions,
    state: Mutex<State>,
    /// Something was given back, or all is there.
    changed: Notify,
}

struct State {
    waiting: VecDeque<Range>,
    waiting_bytes: u64,
    /// Pieces that somebody fetches.
    claimed: usize,
}

/// A piece that somebody fetches. What has not come of it when it is dropped waits for another one.
pub(super) struct Claim {
    home: Arc<Pieces>,
    rest: Range,
}

impl Pieces {
    pub(super) fn new(ranges: Vec<Range>, portions: Portions) -> Arc<Self> {
        let waiting_bytes = ranges.iter().map(|range| range.length).sum();
        let state = State { waiting: ranges.into(), waiting_bytes, claimed: 0 };
        Arc::new(Self { portions, state: Mutex::new(state), changed: Notify::new() })
    }

    /// The next piece; none once all are there. Waits while somebody fetches what he may yet give back. May be dropped at any time.
    pub(super) async fn claim(self: &Arc<Self>) -> Option<Claim> {
        loop {
            let changed = self.changed.notified();
            {
                let mut state = self.state.lock();
                if let Some(rest) = state.next(self.portions) {
                    state.claimed += 1;
                    return Some(Claim { home: Arc::clone(self), rest });
                }
                if state.claimed == 0 {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Whether nothing waits, and nobody fetches anything.
    pub(super) fn are_there(&self) -> bool {
        let state = self.state.lock();
        state.waiting.is_empty() && state.claimed == 0
    }

    /// Waits until all are there. May be dropped at any time.
    pub(super) async fn there(&self) {
        loop {
            let changed = self.changed.notified();
            if self.are_there() {
                return;
            }
            changed.await;
        }
    }
}

impl State {
    fn next(&mut self, portions: Portions) -> Option<Range> {
        let share = match portions {
            Portions::Whole => u64::MAX,
            Portions::Shared(streams) => {
                let chunks = self.waiting_bytes / CLONE_CHUNK_BYTES / (2 * streams.max(1));
                chunks.max(1) * CLONE_CHUNK_BYTES
            }
        };
        let mut range = self.waiting.pop_front()?;
        if range.length > share {
            self.waiting.push_front(behind(range, share));
            range.length = share;
        }
        self.waiting_bytes -= range.length;
        Some(range)
    }
}

/// What lies behind the first bytes of a range.
fn behind(range: Range, bytes: u64) -> Range {
    Range { offset: range.offset + bytes, length: range.length - bytes, ..range }
}

impl Claim {
    /// What has not come of it.
    pub(super) fn rest(&self) -> Range {
        self.rest
    }

    /// So many bytes more of it are there.
    pub(super) fn arrived(&mut self, bytes: u64) {
        self.rest = behind(self.rest, bytes.min(self.rest.length));
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        {
            let mut state = self.home.state.lock();
            state.claimed -= 1;
            if self.rest.length > 0 {
                state.waiting_bytes += self.rest.length;
                state.waiting.push_front(self.rest);
            }
        }
        self.home.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use planaria_engine::FileKind;

    use super::*;

    const MIB: u64 = CLONE_CHUNK_BYTES;

    fn range(number: u64, length: u64) -> Range {
        Range { kind: FileKind::Run, number, offset: 3 * MIB, length }
    }

    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(future).as_mut().poll(&mut context) {
            std::task::Poll::Ready(done) => Some(done),
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn one_connection_takes_whole_ranges_and_several_ever_smaller_pieces_that_are_all_of_it() {
        let ranges = || vec![range(1, 64 * MIB), range(2, 40 * MIB + 17), range(3, 9)];
        let whole = Pieces::new(ranges(), Portions::Whole);
        for expected in ranges() {
            let mut claim = now(whole.claim()).unwrap().unwrap();
            assert_eq!(claim.rest(), expected);
            claim.arrived(expected.length);
        }
        assert!(whole.are_there());
        let shared = Pieces::new(ranges(), Portions::Shared(8));
        let mut taken: Vec<Range> = Vec::new();
        while let Some(mut claim) = now(shared.claim()).unwrap() {
            let piece = claim.rest();
            claim.arrived(piece.length);
            assert!(piece.length <= 6 * MIB && piece.length > 0, "{piece:?}");
            assert!(piece.offset % MIB == 0, "{piece:?}");
            match taken.last_mut().filter(|last| last.number == piece.number) {
                Some(last) => {
                    assert_eq!(last.offset + last.length, piece.offset);
                    last.length += piece.length;
                }
                None => taken.push(piece),
            }
        }
        assert_eq!(taken, ranges());
    }

    #[test]
    fn what_did_not_come_is_given_back_and_nobody_goes_before_all_is_there() {
        let pieces = Pieces::new(vec![range(1, 2 * MIB)], Portions::Whole);
        let mut first = now(pieces.claim()).unwrap().unwrap();
        assert!(now(pieces.claim()).is_none(), "it may be given back");
        assert!(!pieces.are_there() && now(pieces.there()).is_none());
        first.arrived(MIB);
        drop(first);
        let mut second = now(pieces.claim()).unwrap().unwrap();
        assert_eq!(second.rest(), Range { offset: 4 * MIB, length: MIB, ..range(1, 0) });
        second.arrived(MIB);
        drop(second);
        assert!(now(pieces.claim()).unwrap().is_none());
        assert!(pieces.are_there() && now(pieces.there()).is_some());
    }
}
