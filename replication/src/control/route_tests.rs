use std::collections::BTreeSet;

use super::super::testing::Random;
use super::*;

fn copy(instance: u128, role: InstanceRole, state: CopyState, age_ms: u64) -> ReadCopy {
    let instance = InstanceId(instance);
    ReadCopy { instance, role, state, is_reachable: true, is_sound: true, age_ms }
}

fn order(copies: &[ReadCopy], staleness_max_ms: Option<u64>, turn: u64) -> Vec<u128> {
    let verdicts = choose_readers(copies, staleness_max_ms, turn);
    let serving = verdicts.into_iter().filter(|verdict| verdict.reason.serves());
    serving.map(|verdict| verdict.instance.0).collect()
}

fn cluster() -> Vec<ReadCopy> {
    vec![
        copy(1, InstanceRole::Standby, CopyState::Primary, 0),
        copy(2, InstanceRole::Backup, CopyState::Online, 100),
        copy(3, InstanceRole::Standby, CopyState::Online, 900),
        copy(4, InstanceRole::Standby, CopyState::Offline, 300),
    ]
}

#[test]
fn what_must_be_the_newest_is_read_where_it_is_written() {
    assert_eq!(order(&cluster(), None, 5), [1]);
}

#[test]
fn standbys_that_are_fresh_enough_take_turns_and_spare_the_others() {
    assert_eq!(order(&cluster(), Some(1_000), 0), [3, 4, 2, 1]);
    assert_eq!(order(&cluster(), Some(1_000), 1), [4, 3, 2, 1]);
    assert_eq!(order(&cluster(), Some(1_000), 2), [3, 4, 2, 1]);
    assert_eq!(order(&cluster(), Some(500), 1), [4, 2, 1]);
    assert_eq!(order(&cluster(), Some(0), 1), [1]);
}

#[test]
fn a_bounded_read_goes_on_while_nobody_leads() {
    let mut copies = cluster();
    copies[0].is_reachable = false;
    assert_eq!(order(&copies, Some(1_000), 0), [3, 4, 2]);
    assert!(order(&copies, None, 0).is_empty());
}

#[test]
fn what_is_wrong_serves_nobody() {
    let mut copies = cluster();
    copies[2].is_sound = false;
    copies[3].state = CopyState::Partial;
    copies.push(copy(5, InstanceRole::Standby, CopyState::Deposed, 0));
    assert_eq!(order(&copies, Some(1_000), 0), [2, 1]);
    let codes: BTreeSet<_> =
        choose_readers(&copies, Some(1_000), 0).iter().map(|verdict| verdict.reason.code()).collect();
    assert_eq!(codes, ["deposed", "fresh", "leads", "partial", "unsound"].into());
}

/// Any copies, bound and turn: every copy has one verdict, those that serve come first, no read is sent where it may not go, and
/// the order of the reports changes nothing.
#[test]
fn in_any_cluster_each_copy_is_judged_and_none_serves_what_it_may_not() {
    let mut random = Random::new(4);
    for _ in 0..10_000 {
        let states = CopyState::ALL;
        let roles = InstanceRole::ALL;
        let copies: Vec<_> = (0..random.below(8))
            .map(|instance| ReadCopy {
                is_reachable: !random.one_in(4),
                is_sound: !random.one_in(5),
                ..copy(
                    u128::from(instance),
                    roles[random.below(3) as usize],
                    states[random.below(7) as usize],
                    random.below(2_000),
                )
            })
            .collect();
        let bound = (!random.one_in(3)).then(|| random.below(2_000));
        let turn = random.below(100);
        let verdicts = choose_readers(&copies, bound, turn);
        assert_eq!(verdicts.len(), copies.len());
        assert!(verdicts.is_sorted_by_key(|verdict| !verdict.reason.serves()));
        for verdict in &verdicts {
            let copy = copies.iter().find(|copy| copy.instance == verdict.instance).expect("a known copy");
            let leads = copy.is_reachable && copy.state == CopyState::Primary;
            let follows = matches!(
                copy.state,
                CopyState::Online | CopyState::Stale | CopyState::Refreshing | CopyState::Offline
            );
            let is_fresh = bound.is_some_and(|bound| copy.age_ms <= bound);
            let may = leads || (copy.is_reachable && copy.is_sound && follows && is_fresh);
            assert_eq!(verdict.reason.serves(), may, "{copy:?} {verdict:?}");
        }
        let mut turned = copies.clone();
        turned.reverse();
        assert_eq!(choose_readers(&turned, bound, turn), verdicts);
    }
}
