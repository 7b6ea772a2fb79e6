//! The executable model of one group: exhaustive exploration, random walks, and the proof that both would fail.
//!
//! `cargo test -p planaria-tests --test model -- --nocapture` prints the states explored and the trace of every planted
//! fault; `-- --ignored` goes further (minutes, and some gigabytes; `PLANARIA_MODEL_UIDS` and `PLANARIA_MODEL_WALKS`
//! widen it). A walk that fails names its seed: add it to [`REPLAYED`].

use planaria_tests::model::{
    Bounds, Changes, CopyId, Counterexample, Key, Model, Op, Outcome, Planted, Refused, explore, walk,
};
use planaria_types::Uid;

/// Two copies of two keys, without faults.
const PAIR: Bounds = Bounds { uids: 2, ..Bounds::PLAIN };
/// What walks take: 2 keys, 6 UIDs, 3 copies, every kind of step.
const FULL: Bounds = Bounds { copies: 3, uids: 6, batches: true, ..Bounds::PLAIN };
/// Steps of one walk.
const WALK_STEPS: usize = 120;
/// Walks of a plain test run.
const WALKS: u64 = 1_000;
/// Seeds that once found something: a sparse interval that outlived the rewind out of it.
const REPLAYED: [u64; 1] = [456];

fn exhaust(name: &str, bounds: &Bounds) {
    match explore(bounds, None) {
        Ok(explored) => println!("{name}: {explored:?} within {bounds:?}"),
        Err(counterexample) => panic!("{name}: {counterexample}"),
    }
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn every_state_with_a_crash_a_promotion_and_a_cut_is_sound() {
    exhaust("crash and promotion", &Bounds { crashes: 1, promotions: 1, cuts: 1, ..PAIR });
}

#[test]
fn every_state_of_three_copies_with_a_promotion_and_a_cut_is_sound() {
    exhaust("three copies", &Bounds { copies: 3, uids: 1, promotions: 1, cuts: 1, ..PAIR });
}

#[test]
fn every_state_with_flushes_merges_and_refreshes_is_sound() {
    exhaust("refresh and merge", &Bounds { cuts: 1, flushes: 2, merges: 1, ..PAIR });
    exhaust("refresh and promotion", &Bounds { promotions: 1, cuts: 1, flushes: 1, ..PAIR });
}

#[test]
#[ignore = "minutes, and some gigabytes"]
fn every_state_of_wider_bounds_is_sound() {
    let uids = from_environment("PLANARIA_MODEL_UIDS", 2);
    let wide = Bounds { uids, ..PAIR };
    exhaust(
        "snapshots and departures",
        &Bounds { cuts: 1, flushes: 2, merges: 1, pins: 1, departures: 1, ..wide },
    );
    exhaust("more UIDs", &Bounds { uids: uids + 1, cuts: 1, flushes: 2, merges: 1, ..wide });
    exhaust("everything once", &Bounds { crashes: 1, promotions: 1, cuts: 1, flushes: 1, merges: 1, ..wide });
}

#[test]
fn random_walks_of_the_full_size_are_sound() {
    let steps: usize = REPLAYED.into_iter().chain(0..WALKS).map(sound_walk).sum();
    println!("{WALKS} walks: {steps} steps within {FULL:?}");
}

#[test]
#[ignore = "minutes"]
fn more_random_walks_are_sound() {
    let walks = from_environment("PLANARIA_MODEL_WALKS", 50_000);
    let steps: usize = (0..walks).map(|seed| sound_walk(seed + (1 << 32))).sum();
    println!("{walks} walks: {steps} steps within {FULL:?}");
}

fn sound_walk(seed: u64) -> usize {
    walk(&FULL, seed, WALK_STEPS, None)
        .unwrap_or_else(|counterexample| panic!("seed {seed}: {counterexample}"))
}

/// How a planted fault is looked for.
enum Search {
    /// By exploration within these bounds; the trace is the shortest there is.
    Every(Bounds),
    /// By walks from this seed on, where the shortest trace is too deep to be reached breadth first in a second or two.
    Walks(u64),
}

/// More walks than any fault needs from its seed.
const PLANTED_WALKS: u64 = 400;

fn search_for(planted: Planted) -> Search {
    let cut = Bounds { cuts: 1, flushes: 1, ..PAIR };
    match planted {
        Planted::DropMarksEarly => Search::Every(Bounds { flushes: 2, merges: 1, ..PAIR }),
        Planted::DropVersionsEarly => Search::Every(Bounds { flushes: 2, merges: 1, pins: 1, ..PAIR }),
        Planted::DeltaWithoutGap | Planted::InstallBelowSnapshot | Planted::InstallHalf => Search::Every(cut),
        Planted::SkipClip | Planted::ReuseUid => Search::Every(Bounds { crashes: 1, ..PAIR }),
        Planted::KeepTornCommit => Search::Every(Bounds { crashes: 1, batches: true, ..PAIR }),
        Planted::SkipQuarantine => Search::Every(Bounds { promotions: 1, ..PAIR }),
        Planted::ShowBeyondDurable | Planted::IgnorePredecessor => Search::Every(PAIR),
        Planted::FlushOverlapping => Search::Every(Bounds { flushes: 2, ..PAIR }),
        Planted::MergeAcrossGap
        | Planted::DeltaBelowMarkFloor
        | Planted::RewindBelowMarkFloor
        | Planted::ClipBelowVersionFloor
        | Planted::ClipInsideGap
        | Planted::SecondaryDrawsUid
        | Planted::ForkByWatermark
        | Planted::ShortenHistoryByUid
        | Planted::AcceptOldEpoch => Search::Walks(0),
        Planted::RewindWithoutAbsence => Search::Walks(2_500),
    }
}

fn caught(planted: Planted) -> Option<Box<Counterexample>> {
    match search_for(planted) {
        Search::Every(bounds) => explore(&bounds, Some(planted)).err(),
        Search::Walks(from) => {
            (from..from + PLANTED_WALKS).find_map(|seed| walk(&FULL, seed, WALK_STEPS, Some(planted)).err())
        }
    }
}

#[test]
fn every_planted_fault_is_caught() {
    let mut missed = Vec::new();
    for planted in Planted::ALL {
        match caught(planted) {
            Some(counterexample) => println!("{planted:?}: {counterexample}"),
            None => missed.push(planted),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn a_fault_violates_the_invariant_that_forbids_it() {
    let violated = |planted| caught(planted).map(|counterexample| counterexample.violation.invariant);
    assert_eq!(violated(Planted::ReuseUid), Some("R1"));
    assert_eq!(violated(Planted::SkipQuarantine), Some("R10"));
    assert_eq!(violated(Planted::SecondaryDrawsUid), Some("R11"));
    assert_eq!(violated(Planted::DropMarksEarly), Some("R13"));
    assert_eq!(violated(Planted::ShowBeyondDurable), Some("R5"));
    assert_eq!(violated(Planted::KeepTornCommit), Some("E3"));
    assert_eq!(violated(Planted::DeltaWithoutGap), Some("E6"));
    assert_eq!(violated(Planted::FlushOverlapping), Some("R0"));
    assert_eq!(violated(Planted::AcceptOldEpoch), Some("R9"));
}

#[test]
fn a_refused_step_changes_nothing() {
    for seed in 0..50 {
        let mut model = Model::new(3, 2);
        for at in 0..40 {
            let ops = model.enabled_ops();
            assert_eq!(model.apply(&Op::Flush { at: CopyId(9) }), Err(Refused::UnknownCopy));
            let before = model.clone();
            for op in
                [Op::Promote { copy: CopyId(0) }, Op::Install { copy: CopyId(1) }, Op::Sync { at: CopyId(2) }]
            {
                if !ops.contains(&op) {
                    assert!(model.apply(&op).is_err());
                    assert_eq!(model, before, "{op:?}");
                }
            }
            let Some(op) = ops.get((seed * 31 + at * 17) % ops.len()) else {
                break;
            };
            assert!(model.apply(op).is_ok());
        }
    }
}

#[test]
fn states_that_differ_only_in_the_numbers_of_copies_are_one() {
    let connected = |copy: u8| {
        let mut model = Model::new(3, 2);
        let outcome = model.apply(&Op::Connect { copy: CopyId(copy), to: CopyId(0) });
        assert!(matches!(outcome, Ok(Outcome::Connected { quarantined: 0, refresh: None, .. })));
        model.fingerprint()
    };
    assert_eq!(connected(1), connected(2));
    assert_ne!(connected(1), Model::new(3, 2).fingerprint());
}

#[test]
fn a_secondary_reads_what_the_primary_made_durable() {
    let (primary, secondary, key) = (CopyId(0), CopyId(1), Key(0));
    let mut model = Model::new(2, 2);
    let mut step = |op: Op| model.apply(&op).unwrap();
    step(Op::Connect { copy: secondary, to: primary });
    step(Op::Commit { at: primary, changes: Changes::put(key) });
    step(Op::Deliver { copy: secondary });
    assert_eq!(model.copy(secondary).unwrap().visible, Uid::ZERO);
    let mut step = |op: Op| model.apply(&op).unwrap();
    step(Op::Sync { at: primary });
    step(Op::Deliver { copy: secondary });
    let cut = Uid::new(1);
    assert_eq!(model.read(secondary, key, cut), model.read(primary, key, cut));
    assert!(model.read(secondary, key, cut).unwrap().is_some());
}
