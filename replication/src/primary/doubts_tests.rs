use planaria_types::{DatabaseId, Epoch, GroupId, History, HistoryEntry, HistoryHash, InstanceId, Uid};

use super::DoubtKind;
use crate::message::Hello;
use crate::primary::{Group, Identity};
use crate::{Options, PROTOCOL_VERSION};

const PRIMARY: InstanceId = InstanceId(1);

fn epoch(term: u64, incarnation: u64, nonce: u64) -> Epoch {
    Epoch { term, incarnation, nonce }
}

fn history(epochs: &[(Epoch, u64)]) -> History {
    let entry = |(epoch, inherited): &(Epoch, u64)| HistoryEntry {
        epoch: *epoch,
        inherited: Uid::new(*inherited),
        hash: HistoryHash::default(),
    };
    History::from_entries(epochs.iter().map(entry).collect()).unwrap()
}

/// A primary that was started anew, as incarnation 2 of term 3, with everything up to UID 10.
fn leading() -> Group {
    let identity = Identity { database: DatabaseId(1), group: GroupId(1), instance: PRIMARY };
    let own = history(&[(epoch(3, 1, 7), 0), (epoch(3, 2, 8), 10)]);
    Group::new(identity, Options::default(), epoch(3, 2, 8), own, Uid::new(10))
}

/// A copy that holds everything up to `durable` of a history.
fn hello(copy: u128, durable: u64, history: History) -> Hello {
    Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        features: 0,
        database: DatabaseId(1),
        instance: InstanceId(copy),
        name: format!("copy-{copy}"),
        group: GroupId(1),
        round: 1,
        promised: history.current(),
        history,
        durable: Uid::new(durable),
        hash: None,
        without_live: false,
        bulk: None,
        asked: None,
        portion: None,
        former: Vec::new(),
        resume: None,
    }
}

fn kinds(group: &Group) -> Vec<DoubtKind> {
    group.doubts().map(|doubt| doubt.kind).collect()
}

#[test]
fn a_copy_with_more_of_the_primary_s_own_term_is_told_of_and_one_with_another_term_is_not() {
    let mut group = leading();
    let own = history(&[(epoch(3, 1, 7), 0)]);
    group.doubt_what_is_lacking(&hello(2, 10, own.clone()), Uid::new(10));
    group.doubt_what_is_lacking(&hello(2, 9, own.clone()), Uid::new(9));
    // What a deposed primary had more is no fault of this one.
    let deposed = history(&[(epoch(2, 5, 1), 0)]);
    group.doubt_what_is_lacking(&hello(3, 12, deposed), Uid::new(4));
    assert_eq!(kinds(&group), []);
    group.doubt_what_is_lacking(&hello(2, 12, own), Uid::new(10));
    let lacks = DoubtKind::Lacks { had: Uid::new(12), shared: Uid::new(10) };
    assert_eq!(kinds(&group), [lacks]);
    let told = group.doubts().next().unwrap().to_string();
    assert!(told.starts_with("copy-2 came with commits up to"), "{told}");
}

#[test]
fn a_copy_that_holds_something_of_the_same_number_is_a_sign_of_another_primary() {
    let mut group = leading();
    // It has promised the number, and holds nothing of it: that is how a promotion ends that came to nothing.
    group.doubt_number(&hello(2, 10, history(&[(epoch(3, 1, 7), 0)])));
    assert_eq!(kinds(&group), []);
    group.doubt_number(&hello(2, 12, history(&[(epoch(3, 1, 7), 0), (epoch(3, 2, 9), 10)])));
    assert_eq!(kinds(&group), [DoubtKind::Rival { epoch: epoch(3, 2, 8) }]);
}

#[test]
fn doubts_are_bounded() {
    let mut group = leading();
    for copy in 2..100 {
        group.doubt_what_is_lacking(&hello(copy, 12, history(&[(epoch(3, 1, 7), 0)])), Uid::new(10));
    }
    assert_eq!(kinds(&group).len(), super::DOUBTS_MAX);
}
