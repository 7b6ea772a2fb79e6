use planaria_types::{DatabaseId, Epoch, InstanceId, Position, Uid};

use super::{AsOf, plan, reaches};
use crate::error::Error;
use crate::manifest::{Backup, Segment};
use crate::object::Blob;

fn at(millis: u64) -> Uid {
    Uid::from_millis(millis)
}

/// A backup of copy `instance` that ends at `millis`, was taken ten later, and keeps these segments: (number, from, to).
fn backup(name: &str, instance: u128, millis: u64, last_segment: u64, log: &[(u64, u64, u64)]) -> Backup {
    let segment = |(number, above, upto): &(u64, u64, u64)| Segment {
        number: *number,
        previous: number - 1,
        above: at(*above),
        upto: at(*upto),
    };
    Backup {
        name: name.to_owned(),
        id: 1,
        software: String::new(),
        taken_ms: millis + 10,
        database: DatabaseId(1),
        instance: InstanceId(instance),
        lineage: None,
        position: Position { epoch: Epoch::NONE, uid: at(millis) },
        version_floor: Uid::ZERO,
        files: 0,
        bytes: 0,
        sent_bytes: 0,
        last_segment,
        log: log.iter().map(segment).collect(),
        contents: Blob::default(),
    }
}

/// What a plan comes to.
#[derive(PartialEq, Eq, Debug)]
enum Outcome {
    /// The name of the base, and the numbers of the segments.
    Found(String, Vec<u64>),
    /// The nearest times.
    Outside(Option<u64>, Option<u64>),
}

fn planned(backups: &[Backup], as_of: AsOf) -> Outcome {
    let backups: Vec<&Backup> = backups.iter().collect();
    match plan(&backups, None, as_of) {
        Ok(plan) => {
            let segments = plan.log.iter().map(|(_, segment)| segment.number).collect();
            Outcome::Found(plan.base.name.clone(), segments)
        }
        Err(Error::OutsideKept { below, above, .. }) => {
            Outcome::Outside(below.map(Uid::millis), above.map(Uid::millis))
        }
        Err(error) => panic!("{error}"),
    }
}

fn found(name: &str, segments: &[u64]) -> Outcome {
    Outcome::Found(name.to_owned(), segments.to_vec())
}

fn outside(below: Option<u64>, above: Option<u64>) -> Outcome {
    Outcome::Outside(below, above)
}

#[test]
fn the_newest_backup_before_is_taken_and_as_much_log_as_is_needed() {
    let backups = [
        backup("a", 1, 100, 1, &[(1, 0, 100)]),
        backup("b", 1, 200, 4, &[(2, 100, 150), (3, 150, 190), (4, 190, 200)]),
        backup("c", 1, 300, 5, &[(5, 200, 300)]),
    ];
    for (millis, expected) in [
        (100, found("a", &[])),
        (140, found("a", &[2])),
        (149, found("a", &[2])),
        (150, found("a", &[2, 3])),
        (195, found("a", &[2, 3, 4])),
        (200, found("b", &[])),
        (299, found("b", &[5])),
        (300, found("c", &[])),
        // When the last one was taken nothing had been committed since.
        (310, found("c", &[])),
        (311, outside(Some(300), None)),
        (99, outside(None, Some(100))),
    ] {
        // The first commit of a millisecond ends a segment here; a time is all of its millisecond.
        let as_of =
            if [100, 200, 300].contains(&millis) { AsOf::Commit(at(millis)) } else { AsOf::Time(millis) };
        assert_eq!(planned(&backups, as_of), expected, "{millis}");
    }
    assert_eq!(planned(&backups, AsOf::Backup), found("c", &[]));
}

#[test]
fn a_base_that_was_pruned_is_replaced_by_one_before_as_long_as_the_log_is_whole() {
    let a = backup("a", 1, 100, 1, &[(1, 0, 100)]);
    let b = backup("b", 1, 200, 2, &[(2, 100, 200)]);
    let c = backup("c", 1, 300, 3, &[(3, 200, 300)]);
    assert_eq!(planned(&[a.clone(), b.clone(), c.clone()], AsOf::Time(250)), found("b", &[3]));
    // Without b its segment is gone, and with it everything up to c.
    assert_eq!(planned(&[a.clone(), c.clone()], AsOf::Time(250)), outside(Some(100), Some(300)));
    // A later one that keeps a longer log bridges it.
    let long = backup("long", 1, 300, 3, &[(2, 100, 200), (3, 200, 300)]);
    assert_eq!(planned(&[a, long], AsOf::Time(250)), found("a", &[2, 3]));
}

#[test]
fn the_log_of_one_copy_is_not_replayed_on_another() {
    let backups = [backup("a", 1, 100, 1, &[]), backup("b", 2, 200, 2, &[(2, 100, 200)])];
    assert_eq!(planned(&backups, AsOf::Time(150)), outside(Some(100), Some(200)));
    assert_eq!(planned(&backups, AsOf::Time(205)), found("b", &[]));
}

#[test]
fn a_log_that_goes_on_from_elsewhere_is_not_replayed() {
    // What was taken back, or ingested past the log: the next segment does not begin where the one before ended.
    let backups = [backup("a", 1, 100, 1, &[]), backup("b", 1, 200, 2, &[(2, 90, 200)])];
    assert_eq!(planned(&backups, AsOf::Time(150)), outside(Some(100), Some(200)));
    // Nonsense ends, too.
    let circle = [backup("a", 1, 100, 1, &[(2, 100, 100), (1, 100, 100)])];
    assert_eq!(planned(&circle, AsOf::Time(500)), outside(Some(100), None));
}

#[test]
fn how_far_the_log_leads_from_each_backup_is_what_a_plan_says() {
    let mut some = 0;
    for seed in 0..2_000_u64 {
        // Numbers of a generator that anybody can write down.
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |bound: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % bound
        };
        let mut backups = Vec::new();
        for instance in 1..=2 {
            let (mut millis, mut number) = (10 + below(20), 1);
            for at in 0..4 {
                let cut = millis + below(40);
                // Some have kept the log since the one before, in one segment or two, and some have not.
                let log = match below(3) {
                    0 => vec![],
                    1 => vec![(number + 1, millis, cut)],
                    _ => vec![
                        (number + 1, millis, millis.midpoint(cut)),
                        (number + 2, millis.midpoint(cut), cut),
                    ],
                };
                number += if log.is_empty() { 3 } else { log.len() as u64 };
                backups.push(backup(&format!("{instance}-{at}"), instance, cut, number, &log));
                millis = cut;
            }
        }
        let all: Vec<&Backup> = backups.iter().collect();
        let reaches = reaches(&all);
        for millis in 0..250 {
            let wanted = at(millis);
            let gives = all
                .iter()
                .zip(&reaches)
                .filter(|(base, reach)| (base.position.uid..=**reach).contains(&wanted));
            let newest = gives.max_by_key(|(base, _)| (base.position.uid, base.taken_ms));
            let planned = plan(&all, None, AsOf::Commit(wanted)).ok();
            some += u64::from(planned.as_ref().is_some_and(|plan| !plan.log.is_empty()));
            let key = |base: &Backup| (base.position.uid, base.taken_ms);
            assert_eq!(
                newest.map(|(base, _)| key(base)),
                planned.map(|plan| key(plan.base)),
                "seed {seed}, {millis}: {backups:?}"
            );
        }
    }
    assert!(some > 1_000, "the log led somewhere {some} times");
}
