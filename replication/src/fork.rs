use planaria_types::{Fork, History, Position, Uid};

/// The last position that a copy shares with its primary; `None` if they share nothing.
///
/// `ours` is the primary's history, which ends at `our_end`; `theirs` is the copy's, which holds everything up to
/// `their_end`. A copy may have learned of epochs that begin beyond what it holds, so the fork of the histories is
/// cut at its end. An empty copy shares the empty state with everyone.
pub fn fork(ours: &History, our_end: Uid, theirs: &History, their_end: Uid) -> Option<Position> {
    if their_end == Uid::ZERO {
        return Some(Position::default());
    }
    if ours.entries().is_empty() || theirs.entries().is_empty() {
        return None;
    }
    match ours.fork(our_end, theirs, their_end) {
        Fork::At(position) => Some(ours.position_of(position.uid.min(their_end).min(our_end))),
        Fork::Unrelated => None,
    }
}

/// Whether two histories say the same of every epoch that both know, history hashes included.
pub fn agree(ours: &History, theirs: &History) -> bool {
    theirs.entries().iter().all(|entry| {
        let known = ours.entries().iter().find(|own| own.epoch == entry.epoch);
        known.is_none_or(|own| own == entry)
    })
}

#[cfg(test)]
mod tests {
    use planaria_types::{Epoch, History, HistoryEntry, HistoryHash, Uid};

    use super::{agree, fork};

    fn history(entries: &[(u64, u64)]) -> History {
        let entries = entries.iter().map(|&(term, inherited)| HistoryEntry {
            epoch: Epoch { term, incarnation: 0, nonce: term },
            inherited: Uid::new(inherited),
            hash: HistoryHash(u128::from(inherited)),
        });
        History::from_entries(entries.collect()).unwrap()
    }

    fn at(ours: &History, end: u64, theirs: &History, their_end: u64) -> Option<u64> {
        fork(ours, Uid::new(end), theirs, Uid::new(their_end)).map(|position| position.uid.get())
    }

    #[test]
    fn a_copy_never_shares_more_than_it_holds() {
        // It learned at 8 that epoch 2 would begin at 10, and then epoch 3 began at 9.
        let theirs = history(&[(1, 0), (2, 10)]);
        assert_eq!(at(&history(&[(1, 0), (3, 9)]), 20, &theirs, 8), Some(8));
        assert_eq!(at(&history(&[(1, 0), (3, 9)]), 20, &theirs, 15), Some(9));
    }

    #[test]
    fn an_empty_copy_shares_the_empty_state_with_everyone() {
        assert_eq!(at(&history(&[(1, 0)]), 20, &history(&[]), 0), Some(0));
        assert_eq!(at(&history(&[]), 0, &history(&[(4, 0)]), 0), Some(0));
    }

    #[test]
    fn a_copy_with_data_shares_nothing_with_a_primary_without_history() {
        assert_eq!(at(&history(&[]), 0, &history(&[(1, 0)]), 5), None);
        assert_eq!(at(&history(&[(2, 0)]), 9, &history(&[(1, 0)]), 5), None);
    }

    #[test]
    fn a_primary_that_lost_all_commits_of_an_epoch_still_knows_it() {
        let ours = history(&[(1, 0), (2, 10)]).inherit(Uid::ZERO);
        assert_eq!(ours, history(&[(1, 0)]));
        assert_eq!(at(&ours, 0, &history(&[(1, 0)]), 6), Some(0));
    }

    #[test]
    fn histories_that_tell_one_epoch_differently_do_not_agree() {
        assert!(agree(&history(&[(1, 0), (2, 5)]), &history(&[(1, 0), (3, 9)])));
        assert!(!agree(&history(&[(1, 0), (2, 5)]), &history(&[(1, 0), (2, 6)])));
    }
}
