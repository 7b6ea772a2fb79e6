use planaria_types::{DatabaseId, Epoch, GroupId, History, HistoryEntry, HistoryHash, InstanceId, Uid};

use crate::ack::Level;
use crate::primary::{Group, GroupAction, Identity, SessionId};
use crate::{Millis, Options, PromotableSets};

const NOW: Millis = Millis(1_000);
const PRIMARY: InstanceId = InstanceId(1);
const BEFORE: InstanceId = InstanceId(2);
const AFTER: InstanceId = InstanceId(3);
const OTHER: InstanceId = InstanceId(4);

/// A primary with everything up to UID 10 durable, which leads these copies; all of them have everything and are away.
fn leading(copies: &[InstanceId]) -> Group {
    let identity = Identity { database: DatabaseId(1), group: GroupId(1), instance: PRIMARY };
    let epoch = Epoch { term: 1, incarnation: 1, nonce: 1 };
    let entry = HistoryEntry { epoch, inherited: Uid::ZERO, hash: HistoryHash::default() };
    let history = History::from_entries(vec![entry]).unwrap();
    let mut group = Group::new(identity, Options::default(), epoch, history, Uid::ZERO);
    group.handle_appended(Uid::new(10));
    group.handle_durable(Uid::new(10));
    for (number, copy) in copies.iter().enumerate() {
        group.restore(*copy, "copy".into(), Uid::new(10), true, NOW);
        let session = SessionId(number as u64);
        assert!(group.attach(*copy, "copy", Uid::new(10), session, NOW));
        group.detach(*copy, session, NOW);
    }
    group.restore_promotable(PromotableSets { now: copies.iter().copied().collect(), next: None });
    group
}

/// A copy that has everything up to `durable` says hello and whose place it has taken.
fn greets(group: &mut Group, copy: InstanceId, former: &[InstanceId], durable: u64) {
    assert!(group.attach(copy, "copy", Uid::new(durable), SessionId(90), NOW));
    group.succeed(copy, former);
}

fn acknowledges(group: &mut Group, copy: InstanceId, uid: u64) {
    group.acknowledge(copy, Uid::new(uid), Uid::new(uid), true);
}

fn sets(now: &[InstanceId], next: Option<&[InstanceId]>) -> PromotableSets {
    let set = |copies: &[InstanceId]| copies.iter().copied().chain([PRIMARY]).collect();
    PromotableSets { now: set(now), next: next.map(set) }
}

/// Carries out what is asked for: the sets are in the commit `at`.
fn written(group: &mut Group, expected: &PromotableSets, at: u64) {
    assert_eq!(group.poll_action(), Some(GroupAction::PersistPromotable(expected.clone())));
    group.handle_appended(Uid::new(at));
    group.handle_durable(Uid::new(at));
    group.handle_promotable(expected, Uid::new(at));
}

#[test]
fn in_a_set_of_two_the_copy_that_took_anothers_place_takes_its_vote_and_its_seat() {
    let group = &mut leading(&[BEFORE]);
    greets(group, AFTER, &[BEFORE], 10);
    assert_eq!(group.poll_action(), None, "nothing changes before it is online");
    acknowledges(group, AFTER, 10);
    written(group, &sets(&[BEFORE], Some(&[AFTER])), 11);
    assert_eq!(group.acknowledged(Level::Quorum), Some(Uid::new(10)), "it counts for the one before");
    assert_eq!(group.poll_action(), None, "the change waits for its acknowledgement");
    acknowledges(group, AFTER, 11);
    assert_eq!(group.acknowledged(Level::All), Some(Uid::new(11)));
    written(group, &sets(&[AFTER], None), 12);
    assert_eq!(group.poll_action(), Some(GroupAction::LetGo(BEFORE)));
    assert!(group.members().contains_key(&BEFORE), "until it is written down");
    group.handle_let_go(BEFORE);
    assert_eq!(group.members().keys().copied().collect::<Vec<_>>(), [AFTER]);
    assert_eq!(group.poll_action(), None);
}

#[test]
fn what_the_one_before_had_acknowledged_does_not_count_for_the_one_after() {
    let group = &mut leading(&[BEFORE]);
    greets(group, AFTER, &[BEFORE], 7);
    assert_eq!(group.acknowledged(Level::One), Some(Uid::new(7)));
    assert_eq!(group.stable(), Uid::new(7));
}

#[test]
fn a_copy_that_is_online_is_not_gone_whatever_another_one_says() {
    let group = &mut leading(&[BEFORE]);
    assert!(group.attach(BEFORE, "copy", Uid::new(10), SessionId(80), NOW));
    acknowledges(group, BEFORE, 10);
    greets(group, AFTER, &[BEFORE], 10);
    acknowledges(group, AFTER, 10);
    assert_eq!(
        group.poll_action(),
        Some(GroupAction::PersistPromotable(sets(&[BEFORE], Some(&[BEFORE, AFTER]))))
    );
    assert_eq!(group.poll_action(), None);
}

#[test]
fn one_that_comes_back_after_all_stands_for_itself() {
    let group = &mut leading(&[BEFORE, OTHER]);
    greets(group, AFTER, &[BEFORE], 10);
    assert!(group.attach(BEFORE, "copy", Uid::new(5), SessionId(91), NOW));
    acknowledges(group, BEFORE, 5);
    acknowledges(group, AFTER, 10);
    assert_eq!(group.acknowledged(Level::All), Some(Uid::new(5)));
    assert_eq!(
        group.poll_action(),
        Some(GroupAction::PersistPromotable(sets(&[BEFORE, OTHER], Some(&[BEFORE, OTHER, AFTER]))))
    );
}

#[test]
fn nobody_counts_twice_in_one_set() {
    // Both are in it: the one after joined before it was known whose place it has.
    let group = &mut leading(&[BEFORE, AFTER]);
    group.handle_appended(Uid::new(20));
    group.handle_durable(Uid::new(20));
    greets(group, AFTER, &[BEFORE], 20);
    assert_eq!(group.acknowledged(Level::Quorum), Some(Uid::new(20)));
    assert_eq!(group.acknowledged(Level::All), Some(Uid::new(10)), "the one before has ended at 10");
    acknowledges(group, AFTER, 20);
    assert_eq!(
        group.poll_action(),
        Some(GroupAction::PersistPromotable(sets(&[BEFORE, AFTER], Some(&[AFTER]))))
    );
}

#[test]
fn the_last_of_a_chain_stands_for_all_before_it() {
    let group = &mut leading(&[BEFORE]);
    greets(group, AFTER, &[BEFORE], 10);
    group.detach(AFTER, SessionId(90), NOW);
    greets(group, OTHER, &[AFTER, BEFORE], 10);
    acknowledges(group, OTHER, 10);
    written(group, &sets(&[BEFORE], Some(&[OTHER])), 11);
    acknowledges(group, OTHER, 11);
    // The one between was registered, and never in a set.
    let mut gone = Vec::new();
    while let Some(action) = group.poll_action() {
        match action {
            GroupAction::LetGo(instance) => {
                group.handle_let_go(instance);
                gone.push(instance);
            }
            GroupAction::PersistPromotable(last) => group.handle_promotable(&last, Uid::new(12)),
            other => panic!("{other:?}"),
        }
    }
    gone.sort_unstable();
    assert_eq!(gone, [BEFORE, AFTER]);
    assert_eq!(group.members().keys().copied().collect::<Vec<_>>(), [OTHER]);
}

#[test]
fn what_could_not_be_written_down_is_asked_for_again() {
    let group = &mut leading(&[]);
    group.restore(BEFORE, "copy".into(), Uid::new(10), true, NOW);
    greets(group, AFTER, &[BEFORE], 10);
    group.set_eligible(AFTER, false);
    acknowledges(group, AFTER, 10);
    assert_eq!(group.poll_action(), Some(GroupAction::LetGo(BEFORE)));
    group.handle_tick(NOW);
    assert_eq!(group.poll_action(), None, "it is asked for");
    group.handle_let_go_failed(BEFORE, NOW);
    group.handle_tick(NOW);
    assert_eq!(group.poll_action(), None, "not at once");
    group.handle_tick(NOW.plus(Millis(1_000)));
    assert_eq!(group.poll_action(), Some(GroupAction::LetGo(BEFORE)));
}

#[test]
fn who_is_away_with_the_place_of_another_leaves_the_set_in_its_stead() {
    let group = &mut leading(&[BEFORE, OTHER]);
    greets(group, AFTER, &[BEFORE], 10);
    group.detach(AFTER, SessionId(90), NOW);
    assert!(group.attach(OTHER, "copy", Uid::new(10), SessionId(91), NOW));
    acknowledges(group, OTHER, 10);
    assert_eq!(group.poll_timeout(), Some(NOW.plus(Options::default().leave_after)));
    group.handle_tick(NOW.plus(Options::default().leave_after));
    assert_eq!(
        group.poll_action(),
        Some(GroupAction::PersistPromotable(sets(&[BEFORE, OTHER], Some(&[OTHER]))))
    );
}

#[test]
fn a_copy_that_feeds_others_lets_go_of_them_too() {
    let identity = Identity { database: DatabaseId(1), group: GroupId(1), instance: PRIMARY };
    let mut group = Group::feeding(identity, Options::default());
    group.restore(BEFORE, "copy".into(), Uid::new(10), false, NOW);
    greets(&mut group, AFTER, &[BEFORE], 10);
    assert_eq!(group.poll_action(), None);
    acknowledges(&mut group, AFTER, 10);
    assert_eq!(group.poll_action(), Some(GroupAction::LetGo(BEFORE)));
}

#[test]
fn nobody_counts_for_two_in_one_set() {
    let group = &mut leading(&[BEFORE, AFTER]);
    group.handle_appended(Uid::new(20));
    group.handle_durable(Uid::new(20));
    greets(group, OTHER, &[AFTER, BEFORE], 20);
    assert_eq!(group.acknowledged(Level::Quorum), Some(Uid::new(20)));
    assert_eq!(group.acknowledged(Level::All), Some(Uid::new(10)));
}

#[test]
fn one_that_may_not_count_counts_for_nobody_else_either() {
    let group = &mut leading(&[BEFORE]);
    greets(group, AFTER, &[BEFORE], 5);
    group.set_eligible(AFTER, false);
    assert_eq!(group.acknowledged(Level::One), Some(Uid::new(10)), "what the one before has said counts on");
    acknowledges(group, AFTER, 9);
    assert_eq!(group.poll_action(), None);
}

#[test]
fn nobody_is_let_go_before_the_set_without_it_is_written_down() {
    let group = &mut leading(&[BEFORE]);
    greets(group, AFTER, &[BEFORE], 10);
    acknowledges(group, AFTER, 10);
    written(group, &sets(&[BEFORE], Some(&[AFTER])), 11);
    acknowledges(group, AFTER, 11);
    let last = sets(&[AFTER], None);
    assert_eq!(group.poll_action(), Some(GroupAction::PersistPromotable(last.clone())));
    group.handle_promotable_failed();
    acknowledges(group, AFTER, 11);
    assert_eq!(group.poll_action(), None, "whoever starts anew reads that the change is under way");
    group.handle_tick(NOW);
    written(group, &last, 12);
    assert_eq!(group.poll_action(), Some(GroupAction::LetGo(BEFORE)));
}
