use std::collections::BTreeSet;

use planaria_types::{InstanceId, Uid};

use super::super::testing::Random;
use super::{
    Destination, Distance, InstanceRole, Labels, Obstacle, SourceCopy, SourceReason, SourceRule, StoreAccess,
    choose_source,
};

fn backup(id: u128, update_ms: u64, rack: &str) -> SourceCopy {
    SourceCopy {
        instance: InstanceId(id),
        role: InstanceRole::Backup,
        labels: place("eu", "a", rack),
        update: Uid::from_millis(update_ms),
        is_on_history: true,
        is_reachable: true,
        is_sound: true,
        is_whole: true,
        versions: (1, 1),
        clones: 0,
        clones_max: 2,
        free_bytes_per_s: 1_000,
        bytes: 100,
        round_trip_us: None,
        store: StoreAccess::NotNeeded,
    }
}

fn place(region: &str, datacenter: &str, rack: &str) -> Labels {
    Labels::of([("region", region), ("datacenter", datacenter), ("rack", rack)])
}

fn destination() -> Destination {
    Destination { holds: BTreeSet::new(), labels: place("eu", "a", "1"), versions: (1, 2), free_bytes: 1_000 }
}

fn rule(period_ms: u64) -> SourceRule {
    SourceRule { period_ms, ..SourceRule::default() }
}

/// What was chosen, and the reason of each copy in order.
fn chosen(rule: &SourceRule, copies: &[SourceCopy]) -> (Option<u128>, Vec<SourceReason>) {
    let choice = choose_source(rule, &destination(), copies);
    (choice.source.map(|id| id.0), choice.verdicts.iter().map(|verdict| verdict.reason).collect())
}

#[test]
fn the_nearest_of_those_that_are_fresh_enough_is_taken() {
    let copies = [backup(1, 10_000, "2"), backup(2, 9_000, "1"), backup(3, 8_000, "1")];
    let (source, reasons) = chosen(&rule(1_000), &copies);
    assert_eq!(source, Some(2));
    let expected = [
        SourceReason::Farther(Distance::Datacenter),
        SourceReason::NearestBackup { of: 2 },
        SourceReason::TooOld { behind_ms: 2_000 },
    ];
    assert_eq!(reasons, expected);
    assert_eq!(chosen(&rule(999), &copies).0, Some(1), "the freshest where no other is fresh enough");
    assert_eq!(chosen(&rule(u64::MAX), &copies).0, Some(2), "as near as the third, and later");
}

#[test]
fn where_labels_agree_the_round_trip_decides_then_the_update_time_then_the_id() {
    let timed = |id, update, us| SourceCopy { round_trip_us: Some(us), ..backup(id, update, "1") };
    let copies =
        [timed(1, 10_000, 5_000), timed(2, 9_500, 900), timed(3, 9_400, 100), backup(4, 10_000, "1")];
    let (source, reasons) = chosen(&rule(1_000), &copies);
    assert_eq!(source, Some(2));
    assert_eq!(reasons[0], SourceReason::SlowerLink);
    assert_eq!(reasons[2], SourceReason::LessRecent, "round trips below a millisecond are alike");
    assert_eq!(reasons[3], SourceReason::SlowerLink, "one that was not measured is the longest");
    let alike = [backup(7, 10_000, "1"), backup(6, 10_000, "1")];
    assert_eq!(
        chosen(&rule(0), &alike),
        (Some(6), vec![SourceReason::HigherId, SourceReason::NearestBackup { of: 2 }])
    );
}

type Spoil = fn(&mut SourceCopy);

#[test]
fn a_copy_that_fails_a_check_sets_no_standard_for_the_others() {
    let fails: [(Spoil, Obstacle); 13] = [
        (|copy| copy.is_on_history = false, Obstacle::OffHistory),
        (|copy| copy.is_reachable = false, Obstacle::Unreachable),
        (|copy| copy.is_sound = false, Obstacle::Damaged),
        (|copy| copy.is_whole = false, Obstacle::Partial),
        (|copy| copy.store = StoreAccess::NotAllowed, Obstacle::StoreNotAllowed),
        (|copy| copy.store = StoreAccess::Away, Obstacle::StoreAway),
        (|copy| copy.store = StoreAccess::Empty, Obstacle::StoreEmpty),
        (|copy| copy.store = StoreAccess::AsItIs, Obstacle::StoreAsItIs),
        (|copy| copy.store = StoreAccess::OutsideKept, Obstacle::StoreOutsideKept),
        (|copy| copy.versions = (3, 4), Obstacle::Incompatible),
        (|copy| copy.clones = 2, Obstacle::NoSlot { clones: 2 }),
        (|copy| copy.free_bytes_per_s = 4, Obstacle::NoBandwidth { free_bytes_per_s: 4 }),
        (|copy| copy.bytes = 1_001, Obstacle::NoRoom { bytes: 1_001, free_bytes: 1_000 }),
    ];
    for (fail, obstacle) in fails {
        let mut fresh = backup(1, 10_000_000, "1");
        fail(&mut fresh);
        let rule = SourceRule { bytes_per_s_min: 5, ..rule(0) };
        let (source, reasons) = chosen(&rule, &[fresh, backup(2, 5, "9")]);
        assert_eq!(source, Some(2), "{obstacle:?}");
        assert_eq!(reasons[0], SourceReason::Unfit(obstacle));
    }
}

#[test]
fn a_candidate_that_failed_is_removed_and_the_rule_starts_over() {
    let copies = [backup(1, 10_000, "1"), backup(2, 5_000, "1")];
    let mut rule = rule(0);
    assert_eq!(chosen(&rule, &copies).0, Some(1));
    rule.failed.insert(InstanceId(1));
    assert_eq!(chosen(&rule, &copies).0, Some(2), "the second is the freshest now");
    rule.failed.insert(InstanceId(2));
    assert_eq!(chosen(&rule, &copies).0, None);
}

#[test]
fn without_a_backup_the_standby_serves_and_without_one_the_primary() {
    let standby = SourceCopy { role: InstanceRole::Standby, ..backup(2, 9_000, "9") };
    let primary = SourceCopy { role: InstanceRole::Primary, ..backup(3, 10_000, "1") };
    let away = SourceCopy { is_reachable: false, ..backup(1, 9_000, "1") };
    let unfit = SourceReason::Unfit(Obstacle::Unreachable);
    assert_eq!(
        chosen(&rule(0), &[away.clone(), standby.clone(), primary.clone()]),
        (Some(2), vec![unfit, SourceReason::Standby, SourceReason::Spared])
    );
    let standby = SourceCopy { is_sound: false, ..standby };
    let damaged = SourceReason::Unfit(Obstacle::Damaged);
    assert_eq!(
        chosen(&rule(0), &[away, standby, primary]),
        (Some(3), vec![unfit, damaged, SourceReason::Primary])
    );
    let spared = [backup(1, 1, "9"), SourceCopy { role: InstanceRole::Standby, ..backup(2, 9_000, "1") }];
    assert_eq!(chosen(&rule(0), &spared).1, [SourceReason::NearestBackup { of: 1 }, SourceReason::Spared]);
}

#[test]
fn a_backup_in_a_store_is_one_among_the_backups() {
    let stored = SourceCopy { store: StoreAccess::Open, ..backup(1, 10_000, "1") };
    let copies = [stored.clone(), backup(2, 10_000, "9")];
    assert_eq!(chosen(&rule(1_000), &copies).0, Some(1), "it is nearer");
    let older = SourceCopy { update: Uid::from_millis(8_999), ..stored.clone() };
    let (source, reasons) = chosen(&rule(1_000), &[older, backup(2, 10_000, "9")]);
    assert_eq!((source, reasons[0]), (Some(2), SourceReason::TooOld { behind_ms: 1_001 }));
    let standby = SourceCopy { role: InstanceRole::Standby, ..backup(3, 10_000, "1") };
    assert_eq!(chosen(&rule(0), &[stored, standby]).0, Some(1), "it spares the standby");
}

#[test]
fn for_an_earlier_state_nobody_is_fresher_for_what_came_after_it() {
    let copies = [backup(1, 90_000, "9"), backup(2, 10_000, "1"), backup(3, 9_000, "1")];
    assert_eq!(chosen(&rule(1_000), &copies).0, Some(1));
    let rule = SourceRule { as_of: Some(Uid::from_millis(10_000)), ..rule(500) };
    let expected = [
        SourceReason::Farther(Distance::Datacenter),
        SourceReason::NearestBackup { of: 2 },
        SourceReason::TooOld { behind_ms: 1_000 },
    ];
    assert_eq!(chosen(&rule, &copies), (Some(2), expected.to_vec()));
}

#[test]
fn nothing_is_cloned_from_the_place_that_it_is_cloned_to() {
    let to = Destination { holds: BTreeSet::from([InstanceId(1)]), ..destination() };
    let choice = choose_source(&rule(0), &to, &[backup(1, 10_000, "1"), backup(2, 1_000, "9")]);
    assert_eq!(choice.source, Some(InstanceId(2)));
    assert_eq!(choice.verdicts[0].reason, SourceReason::Unfit(Obstacle::AtDestination));
    assert_eq!(choose_source(&rule(0), &to, &[]).source, None);
}

/// The rule, read from top to bottom and written down as it is said, without looking at how it is done elsewhere.
fn oracle(rule: &SourceRule, to: &Destination, copies: &[SourceCopy]) -> Option<InstanceId> {
    for role in ["backup", "standby", "primary"] {
        // "Candidates are the instances on the current history that pass the preparatory checks."
        let mut candidates = Vec::new();
        for copy in copies {
            let versions_meet = (copy.versions.0..=copy.versions.1)
                .any(|version| version >= to.versions.0 && version <= to.versions.1);
            // "A backup in a store is one that the receiver itself may take, sees there, and takes as it is."
            let store_is_open = matches!(copy.store, StoreAccess::NotNeeded | StoreAccess::Open);
            if copy.role.name() == role
                && store_is_open
                && copy.is_on_history
                && copy.is_reachable
                && versions_meet
                && copy.is_sound
                && copy.is_whole
                && copy.clones < copy.clones_max
                && copy.free_bytes_per_s >= rule.bytes_per_s_min
                && copy.bytes <= to.free_bytes
                && !to.holds.contains(&copy.instance)
                && !rule.failed.contains(&copy.instance)
            {
                candidates.push(copy);
            }
        }
        // "Where a state is asked for, update times beyond it count as that state."
        let time = |copy: &SourceCopy| match rule.as_of {
            Some(state) if copy.update > state => state,
            _ => copy.update,
        };
        // "Let f be the latest update time among them."
        let Some(latest) = candidates.iter().map(|copy| time(copy).millis()).max() else { continue };
        // "Those with update time >= f - the prescribed period."
        candidates.retain(|copy| time(copy).millis().saturating_add(rule.period_ms) >= latest);
        // "The nearest: label distance, then round-trip bucket, then later, then id": the least important first, as
        // sorting keeps the order of what is equal.
        candidates.sort_by_key(|copy| copy.instance);
        candidates.sort_by_key(|copy| std::cmp::Reverse(time(copy)));
        candidates.sort_by_key(|copy| bucket(copy.round_trip_us));
        candidates.sort_by_key(|copy| label_distance(&to.labels, &copy.labels));
        return candidates.first().map(|copy| copy.instance);
    }
    None
}

fn bucket(round_trip_us: Option<u64>) -> u32 {
    let Some(us) = round_trip_us else { return 1_000 };
    (0..=64).find(|bucket| us < 1_000 * (1_u64 << bucket)).unwrap()
}

fn label_distance(one: &Labels, other: &Labels) -> u32 {
    let value = |labels: &Labels, name: &str| labels.get(name).map(str::to_owned);
    let pairs = ["region", "datacenter", "rack"].map(|name| (value(one, name), value(other, name)));
    let differs = pairs.iter().position(|(own, others)| own != others).unwrap_or(3);
    let shared = pairs[..differs].iter().rposition(|(own, _)| own.is_some());
    shared.map_or(3, |at| 2 - at as u32)
}

fn random_labels(random: &mut Random) -> Labels {
    let mut labels = Labels::default();
    for name in ["region", "datacenter", "rack"] {
        if !random.one_in(5) {
            labels.0.insert(name.to_owned(), random.below(3).to_string());
        }
    }
    labels
}

fn random_access(random: &mut Random) -> StoreAccess {
    match random.below(16) {
        0 => StoreAccess::NotAllowed,
        1 => StoreAccess::Away,
        2 => StoreAccess::Empty,
        3 => StoreAccess::AsItIs,
        4 => StoreAccess::OutsideKept,
        5..9 => StoreAccess::Open,
        _ => StoreAccess::NotNeeded,
    }
}

fn random_copy(random: &mut Random, id: u128) -> SourceCopy {
    let roles = [InstanceRole::Backup, InstanceRole::Backup, InstanceRole::Standby, InstanceRole::Primary];
    let oldest = random.below(3) as u16;
    SourceCopy {
        instance: InstanceId(id),
        role: roles[random.below(4) as usize],
        labels: random_labels(random),
        update: Uid::new(random.below(8) << 16 | random.below(2)),
        is_on_history: !random.one_in(8),
        is_reachable: !random.one_in(8),
        is_sound: !random.one_in(8),
        is_whole: !random.one_in(8),
        versions: (oldest, oldest + random.below(3) as u16),
        clones: random.below(3) as u32,
        clones_max: 1 + random.below(3) as u32,
        free_bytes_per_s: random.below(10),
        bytes: random.below(10),
        round_trip_us: (!random.one_in(3)).then(|| random.below(6_000)),
        store: random_access(random),
    }
}

fn random_rule(random: &mut Random, failed: BTreeSet<InstanceId>) -> SourceRule {
    SourceRule {
        period_ms: random.below(8),
        bytes_per_s_min: random.below(3),
        failed,
        as_of: random.one_in(3).then(|| Uid::new(random.below(8) << 16 | random.below(2))),
    }
}

#[test]
fn ten_thousand_random_topologies_agree_with_the_rule_as_it_is_written() {
    let mut reached = std::collections::BTreeMap::<&str, u32>::new();
    for seed in 0..10_000 {
        let random = &mut Random::new(seed);
        let count = random.below(12) as u128;
        let mut copies: Vec<SourceCopy> = (0..count).map(|id| random_copy(random, id)).collect();
        for at in (1..copies.len()).rev() {
            copies.swap(at, random.below(at as u64 + 1) as usize);
        }
        let some = |random: &mut Random| (0..count).filter(|_| random.one_in(8)).map(InstanceId).collect();
        let to = Destination {
            holds: some(random),
            labels: random_labels(random),
            versions: (1, 1 + random.below(2) as u16),
            free_bytes: 4 + random.below(6),
        };
        let failed = some(random);
        let rule = random_rule(random, failed);
        let choice = choose_source(&rule, &to, &copies);
        assert_eq!(choice.source, oracle(&rule, &to, &copies), "seed {seed}: {copies:?}\n{to:?}\n{rule:?}");
        // Each copy has its reason, and one of them that it was chosen.
        assert!(
            choice
                .verdicts
                .iter()
                .map(|verdict| verdict.instance)
                .eq(copies.iter().map(|copy| copy.instance))
        );
        let was_chosen = |reason: &SourceReason| {
            matches!(
                reason,
                SourceReason::NearestBackup { .. } | SourceReason::Standby | SourceReason::Primary
            )
        };
        let winners = choice.verdicts.iter().filter(|verdict| was_chosen(&verdict.reason));
        assert!(winners.map(|verdict| verdict.instance).eq(choice.source), "seed {seed}: {choice:?}");
        for verdict in &choice.verdicts {
            assert!(!verdict.reason.to_string().is_empty());
            *reached.entry(verdict.reason.code()).or_default() += 1;
        }
    }
    let codes = [
        "nearest_backup",
        "standby",
        "primary",
        "too_old",
        "farther",
        "slower_link",
        "less_recent",
        "higher_id",
        "spared",
        "at_destination",
        "failed",
        "off_history",
        "unreachable",
        "incompatible",
        "damaged",
        "no_slot",
        "no_bandwidth",
        "no_room",
        "store_not_allowed",
        "store_away",
        "store_empty",
        "store_as_it_is",
        "store_outside_kept",
    ];
    assert!(codes.iter().all(|code| reached.contains_key(code)), "a reason was never reached: {reached:?}");
}
