use planaria_types::{InstanceId, Uid};

use super::super::testing::Random;
use super::{StoredState, WhyNoState, choose_stored};

fn state(instance: u128, uid: u64, reach: u64) -> StoredState {
    StoredState {
        instance: InstanceId(instance),
        uid: Uid::new(uid),
        reach: Uid::new(reach),
        taken_ms: uid,
        is_on_history: true,
    }
}

fn off(state: StoredState) -> StoredState {
    StoredState { is_on_history: false, ..state }
}

#[test]
fn the_newest_on_the_history_is_taken_where_nothing_else_is_asked_for() {
    let states = [state(1, 10, 10), state(1, 30, 30), off(state(2, 40, 40)), state(1, 20, 20)];
    assert_eq!(choose_stored(None, &states), Ok(1));
    assert_eq!(choose_stored(None, &states[2..3]), Err(WhyNoState::OffHistory));
    assert_eq!(choose_stored(None, &[]), Err(WhyNoState::Empty));
    let later = StoredState { taken_ms: 99, ..state(2, 30, 30) };
    assert_eq!(choose_stored(None, &[later, state(1, 30, 30)]), Ok(0), "the one that was taken later");
}

#[test]
fn a_state_is_given_by_the_backup_before_it_from_which_the_log_leads_there() {
    // The log has a gap behind 25, and begins again at 30.
    let states = [state(1, 10, 25), state(1, 20, 25), state(1, 30, 45)];
    let chosen = |uid| choose_stored(Some(Uid::new(uid)), &states);
    assert_eq!(
        [9, 10, 19, 20, 25, 26, 30, 45, 46].map(chosen),
        [
            Err(WhyNoState::OutsideKept),
            Ok(0),
            Ok(0),
            Ok(1),
            Ok(1),
            Err(WhyNoState::OutsideKept),
            Ok(2),
            Ok(2),
            Err(WhyNoState::OutsideKept),
        ]
    );
}

#[test]
fn what_a_copy_wrote_after_it_had_left_the_history_is_not_given() {
    // The first copy went on by itself behind 10, and was backed up once more.
    let states = [state(1, 10, 30), off(state(1, 30, 30)), state(2, 5, 40)];
    assert_eq!(choose_stored(Some(Uid::new(20)), &states), Ok(2));
    assert_eq!(choose_stored(Some(Uid::new(20)), &states[..2]), Err(WhyNoState::OffHistory));
    assert_eq!(choose_stored(Some(Uid::new(10)), &states), Ok(0));
}

/// A copy of a made-up cluster.
struct Copy {
    /// The last commits of its backups, and to which of those the log since the one before was kept.
    backups: Vec<(u64, bool)>,
    /// The last commit that is part of the history that leads.
    on_history_upto: u64,
    /// For how long nothing was committed after the last of them.
    quiet: u64,
}

fn random_copy(random: &mut Random) -> Copy {
    let mut backups = Vec::new();
    for cut in 1..40 {
        if random.one_in(6) {
            backups.push((cut, !random.one_in(4)));
        }
    }
    let on_history_upto = if random.one_in(2) { u64::MAX } else { random.below(40) };
    Copy { backups, on_history_upto, quiet: random.below(4) }
}

/// The states that a store gives from a backup on, one after the other, and for each the backup that has what it consists of.
fn given_from(copy: &Copy, base: u64) -> Vec<(u64, u64)> {
    let mut given = vec![(base, base)];
    let mut last = base;
    for (cut, has_log) in copy.backups.iter().copied().filter(|(cut, _)| *cut > base) {
        if !has_log {
            return given;
        }
        given.extend((last + 1..=cut).map(|at| (at, cut)));
        last = cut;
    }
    given.extend((last + 1..=last + copy.quiet).map(|at| (at, last)));
    given
}

/// The rule as it is said: of all backups that lead to the state by what is on the history, the latest.
fn oracle(as_of: Option<u64>, copies: &[Copy]) -> Option<u64> {
    let mut best = None;
    for copy in copies {
        for (base, _) in &copy.backups {
            let wanted = as_of.unwrap_or(*base);
            let given = given_from(copy, *base);
            let by = given.iter().find(|(at, _)| *at == wanted).map(|(_, by)| *by);
            if by.is_some_and(|by| by <= copy.on_history_upto) {
                best = best.max(Some(*base));
            }
        }
    }
    best
}

#[test]
fn ten_thousand_random_stores_agree_with_the_rule_as_it_is_written() {
    let mut reached = std::collections::BTreeMap::<String, u32>::new();
    for seed in 0..10_000 {
        let random = &mut Random::new(seed);
        let copies: Vec<Copy> = (0..random.below(4)).map(|_| random_copy(random)).collect();
        let as_of = (!random.one_in(4)).then(|| 1 + random.below(42));
        let mut states = Vec::new();
        for (number, copy) in copies.iter().enumerate() {
            for (base, _) in &copy.backups {
                let reach = given_from(copy, *base).last().map_or(*base, |(at, _)| *at);
                let is_on_history = *base <= copy.on_history_upto;
                states.push(StoredState { is_on_history, ..state(number as u128, *base, reach) });
            }
        }
        for at in (1..states.len()).rev() {
            states.swap(at, random.below(at as u64 + 1) as usize);
        }
        let chosen = choose_stored(as_of.map(Uid::new), &states);
        let expected = oracle(as_of, &copies);
        assert_eq!(chosen.ok().map(|at| states[at].uid.get()), expected, "seed {seed}: {as_of:?} {states:?}");
        *reached.entry(format!("{:?}", chosen.map(|_| ()))).or_default() += 1;
    }
    assert!(reached.len() == 4 && reached.values().all(|count| *count > 100), "{reached:?}");
}
