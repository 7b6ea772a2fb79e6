use std::collections::BTreeSet;

use planaria_types::{Epoch, EpochOrder, InstanceId, Position, Uid};

use super::super::testing::Random;
use super::{
    Contender, ContenderReason, CopyState, Distance, InstanceRole, Labels, PromotableSets, Reign, Succession,
    SuccessionRule, WhyNobody, choose_successor,
};
use crate::Options;

const LOST: u128 = 1;

fn epoch(term: u64) -> Epoch {
    Epoch { term, incarnation: 1, nonce: term }
}

fn reign() -> Reign {
    Reign {
        leader: InstanceId(LOST),
        epoch: epoch(3),
        labels: place("a"),
        heard_ago_ms: 10_000,
        is_protected: true,
    }
}

fn place(datacenter: &str) -> Labels {
    Labels::of([("region", "eu"), ("datacenter", datacenter)])
}

fn set(ids: impl IntoIterator<Item = u128>) -> BTreeSet<InstanceId> {
    ids.into_iter().map(InstanceId).collect()
}

/// A standby of a set of three that lost its primary.
fn standby(id: u128, uid: u64) -> Contender {
    Contender {
        instance: InstanceId(id),
        role: InstanceRole::Standby,
        labels: place("a"),
        state: CopyState::Offline,
        is_diverged: false,
        position: Position { epoch: epoch(3), uid: Uid::new(uid) },
        promised: epoch(3),
        sets: PromotableSets { now: set([LOST, 2, 3]), next: None },
        heard_ago_ms: Some(500),
        news_ago_ms: Some(10_500),
    }
}

/// The primary that was lost, as it was last heard.
fn lost() -> Contender {
    Contender {
        state: CopyState::Primary,
        heard_ago_ms: Some(10_000),
        news_ago_ms: None,
        ..standby(LOST, 12)
    }
}

fn rule() -> SuccessionRule {
    SuccessionRule { lost_after_ms: 10_000, refused: BTreeSet::new() }
}

fn choose(contenders: &[Contender]) -> Succession {
    choose_successor(&Options::default(), &rule(), &reign(), contenders)
}

fn reasons(succession: &Succession) -> Vec<ContenderReason> {
    succession.verdicts.iter().map(|verdict| verdict.reason).collect()
}

#[test]
fn the_furthest_is_asked_then_the_nearest_to_the_lost_one_then_by_id() {
    let near = [lost(), standby(3, 9), standby(2, 9)];
    let succession = choose(&near);
    assert_eq!(succession.successor, Ok(InstanceId(2)));
    let expected = [ContenderReason::Lost, ContenderReason::HigherId, ContenderReason::Chosen];
    assert_eq!(reasons(&succession), expected);

    let far = [lost(), standby(3, 9), Contender { labels: place("b"), ..standby(2, 9) }];
    let succession = choose(&far);
    assert_eq!(succession.successor, Ok(InstanceId(3)));
    assert_eq!(reasons(&succession)[2], ContenderReason::Farther(Distance::Region));

    let further = [lost(), standby(3, 9), Contender { labels: place("b"), ..standby(2, 10) }];
    let succession = choose(&further);
    assert_eq!(succession.successor, Ok(InstanceId(2)));
    assert_eq!(reasons(&succession)[1], ContenderReason::Behind { further: InstanceId(2) });
}

#[test]
fn nobody_is_asked_while_anybody_hears_the_primary() {
    let both = [lost(), standby(2, 9), standby(3, 9)];
    let heard = Reign { heard_ago_ms: 9_999, ..reign() };
    let succession = choose_successor(&Options::default(), &rule(), &heard, &both);
    assert_eq!(succession.successor, Err(WhyNobody::PrimaryHeard { ago_ms: 9_999 }));
    assert_eq!(reasons(&succession)[1..], [ContenderReason::Fit; 2]);

    let mut cut_off = both.clone();
    cut_off[2] = Contender { news_ago_ms: Some(600), state: CopyState::Online, ..standby(3, 9) };
    assert_eq!(choose(&cut_off).successor, Err(WhyNobody::PrimaryFollowed { by: InstanceId(3) }));

    let mut led = both.clone();
    led[2] = Contender { state: CopyState::Primary, promised: epoch(4), ..standby(3, 9) };
    assert_eq!(choose(&led).successor, Err(WhyNobody::AnotherLeads { leader: InstanceId(3) }));
    // One that led before, and does not know better, leads nobody.
    led[2].promised = epoch(2);
    let succession = choose(&led);
    assert_eq!(succession.successor, Ok(InstanceId(2)));
    assert_eq!(reasons(&succession)[2], ContenderReason::LedBefore);
}

#[test]
fn a_copy_that_is_not_refreshed_is_never_asked() {
    for state in [CopyState::Stale, CopyState::Refreshing] {
        let succession = choose(&[Contender { state, ..standby(2, 9) }, standby(3, 9)]);
        assert_eq!(succession.successor, Ok(InstanceId(3)));
        assert_eq!(reasons(&succession)[0], ContenderReason::NotRefreshed(state));
    }
    let diverged = Contender { is_diverged: true, ..standby(2, 9) };
    assert_eq!(reasons(&choose(&[diverged, standby(3, 9)]))[0], ContenderReason::Diverged);
    let outside = Contender {
        sets: PromotableSets { now: set([LOST, 2]), next: Some(set([LOST, 2, 3])) },
        ..standby(3, 9)
    };
    let succession = choose(&[standby(2, 9), outside]);
    assert_eq!(reasons(&succession), [ContenderReason::Chosen, ContenderReason::NotPromotable]);
}

#[test]
fn a_partial_copy_that_has_more_holds_no_successor_up() {
    // What the lost primary acknowledged at no protected level, the partial copy may have alone.
    let partial = Contender { state: CopyState::Partial, ..standby(9, 20) };
    let succession = choose(&[standby(2, 9), standby(3, 9), partial]);
    assert_eq!(succession.successor, Ok(InstanceId(2)));
    let chosen = [ContenderReason::Chosen, ContenderReason::NotPromotable];
    let reasons = reasons(&succession);
    assert_eq!([reasons[0], reasons[2]], chosen, "{reasons:?}");
}

#[test]
fn too_few_copies_give_nobody_the_lead() {
    let alone = [lost(), standby(2, 9), Contender { heard_ago_ms: Some(10_000), ..standby(3, 8) }];
    let succession = choose(&alone);
    assert_eq!(succession.successor, Err(WhyNobody::NobodyFit));
    let few = ContenderReason::TooFewHeard { heard: 1, needed: 2 };
    assert_eq!(reasons(&succession), [ContenderReason::Lost, few, ContenderReason::Unheard]);
    let of_two = PromotableSets { now: set([LOST, 2]), next: None };
    let of_two = Contender { sets: of_two, ..standby(2, 9) };
    assert_eq!(choose(&[lost(), of_two.clone()]).successor, Ok(InstanceId(2)));
    let unprotected = Reign { is_protected: false, ..reign() };
    let succession = choose_successor(&Options::default(), &rule(), &unprotected, &[lost(), of_two]);
    assert_eq!(succession.successor, Err(WhyNobody::Unprotected));
}

#[test]
fn who_was_asked_and_does_not_lead_is_passed_over() {
    let both = [standby(2, 9), standby(3, 9)];
    let mut rule = rule();
    let mut asked = Vec::new();
    while let Ok(next) = choose_successor(&Options::default(), &rule, &reign(), &both).successor {
        asked.push(next.0);
        rule.refused.insert(next);
    }
    assert_eq!(asked, [2, 3]);
}

#[test]
fn a_backup_leads_only_where_no_standby_has_as_much() {
    let backup = |id, uid| Contender { role: InstanceRole::Backup, ..standby(id, uid) };
    let succession = choose(&[backup(2, 9), Contender { labels: place("b"), ..standby(3, 9) }]);
    assert_eq!(reasons(&succession), [ContenderReason::Backup, ContenderReason::Chosen]);
    assert_eq!(choose(&[backup(2, 10), standby(3, 9)]).successor, Ok(InstanceId(2)));
}

#[test]
fn a_primary_that_was_deposed_for_nobody_may_lead_again() {
    let deposed =
        Contender { state: CopyState::Deposed, heard_ago_ms: Some(0), promised: epoch(4), ..lost() };
    let succession = choose(&[deposed, standby(2, 9), standby(3, 9)]);
    assert_eq!(succession.successor, Ok(InstanceId(LOST)), "it has more than the others");
}

#[test]
fn copies_of_two_primaries_under_one_number_are_left_to_an_operator() {
    let other = Epoch { nonce: 77, ..epoch(3) };
    let conflict = Contender { position: Position { epoch: other, uid: Uid::new(9) }, ..standby(3, 9) };
    assert_eq!(choose(&[standby(2, 9), conflict]).successor, Err(WhyNobody::NobodyFit));
}

fn random_contender(random: &mut Random, id: u128, sets: &PromotableSets) -> Contender {
    let states = [
        CopyState::Offline,
        CopyState::Offline,
        CopyState::Online,
        CopyState::Stale,
        CopyState::Refreshing,
        CopyState::Deposed,
    ];
    let term = 2 + random.below(2);
    Contender {
        instance: InstanceId(id),
        role: if random.one_in(4) { InstanceRole::Backup } else { InstanceRole::Standby },
        labels: place(["a", "b"][random.below(2) as usize]),
        state: states[random.below(6) as usize],
        is_diverged: random.one_in(12),
        position: Position { epoch: epoch(term), uid: Uid::new(random.below(3)) },
        promised: epoch(3),
        sets: sets.clone(),
        heard_ago_ms: (!random.one_in(8)).then(|| random.below(12_000)),
        news_ago_ms: random.one_in(30).then_some(100),
    }
}

#[test]
fn in_ten_thousand_random_groups_only_a_copy_that_loses_nothing_is_asked() {
    let (mut asked, mut nobody) = (0, 0);
    for seed in 0..10_000 {
        let random = &mut Random::new(seed);
        let count = 2 + random.below(4) as u128;
        let sets = PromotableSets {
            now: set((1..=count).filter(|_| !random.one_in(6))),
            next: random.one_in(4).then(|| set((1..=count).filter(|_| !random.one_in(6)))),
        };
        let mut copies = vec![lost()];
        copies.extend((2..=count).map(|id| random_contender(random, id, &sets)));
        let succession = choose(&copies);
        // Read once more, straight: who has been heard, can lead, and has as much as anybody that was heard.
        let heard: Vec<&Contender> =
            copies.iter().filter(|copy| copy.heard_ago_ms.is_some_and(|ago| ago < 10_000)).collect();
        let as_far =
            |copy: &Contender, than: &Contender| match copy.position.epoch.order(&than.position.epoch) {
                EpochOrder::Newer => true,
                EpochOrder::Same => copy.position.uid >= than.position.uid,
                EpochOrder::Older | EpochOrder::Conflict => false,
            };
        let enough = |of: &BTreeSet<InstanceId>| {
            // Every two copies of the set have one that was heard.
            of.iter().filter(|id| heard.iter().all(|copy| copy.instance != **id)).count() < 2
        };
        let may_lead = |copy: &&&Contender| {
            let refreshed =
                !matches!(copy.state, CopyState::Stale | CopyState::Refreshing | CopyState::Primary);
            let counts = sets.now.contains(&copy.instance)
                && sets.next.as_ref().is_none_or(|next| next.contains(&copy.instance));
            refreshed
                && !copy.is_diverged
                && counts
                && heard.iter().all(|other| as_far(copy, other))
                && enough(&sets.now)
                && sets.next.as_ref().is_none_or(enough)
        };
        let has_news = heard.iter().any(|copy| copy.news_ago_ms == Some(100));
        let fit: Vec<InstanceId> = heard.iter().filter(may_lead).map(|copy| copy.instance).collect();
        if let Ok(successor) = succession.successor {
            assert!(!has_news && fit.contains(&successor), "seed {seed}: {succession:?}");
            asked += 1;
        } else {
            assert!(has_news || fit.is_empty(), "seed {seed}: {fit:?} {succession:?}");
            nobody += 1;
        }
    }
    assert!(asked > 500 && nobody > 500, "{asked} were asked, {nobody} times nobody");
}
