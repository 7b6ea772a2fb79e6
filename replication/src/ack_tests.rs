use planaria_types::{InstanceId, Uid};
use proptest::prelude::{any, proptest};

use super::{Level, Tracker};

fn tracker(own: u64, others: &[u64]) -> Tracker {
    let mut tracker = Tracker::new(Uid::new(own));
    for (id, durable) in (0_u128..).zip(others) {
        tracker.set(InstanceId(id), Uid::new(*durable));
    }
    tracker
}

#[test]
fn a_level_counts_the_copies_that_it_names() {
    let five = tracker(10, &[9, 7, 5, 3]);
    assert_eq!(five.acknowledged(Level::Local), Some(Uid::new(10)));
    assert_eq!(five.acknowledged(Level::One), Some(Uid::new(9)));
    assert_eq!(five.acknowledged(Level::Quorum), Some(Uid::new(7)));
    assert_eq!(five.acknowledged(Level::All), Some(Uid::new(3)));
    assert_eq!(five.stable(), Uid::new(3));
}

#[test]
fn nothing_that_the_primary_could_lose_is_acknowledged() {
    let ahead = tracker(4, &[9, 9]);
    for level in [Level::Local, Level::One, Level::Quorum, Level::All] {
        assert_eq!(ahead.acknowledged(level), Some(Uid::new(4)));
    }
}

#[test]
fn a_primary_alone_reaches_no_level_that_needs_another_copy() {
    let alone = tracker(10, &[]);
    assert_eq!(alone.acknowledged(Level::One), None);
    assert_eq!(alone.acknowledged(Level::Quorum), Some(Uid::new(10)));
    assert_eq!(alone.acknowledged(Level::All), Some(Uid::new(10)));
    assert_eq!(alone.stable(), Uid::new(10));
}

#[test]
fn a_level_survives_its_name() {
    for level in [Level::Local, Level::One, Level::Quorum, Level::All] {
        assert_eq!(level.name().parse(), Ok(level));
    }
    assert!("two".parse::<Level>().is_err());
}

proptest! {
    #[test]
    fn an_acknowledged_uid_is_durable_on_as_many_copies_as_the_level_says(
        own in any::<u64>(), others in proptest::collection::vec(any::<u64>(), 0..6)
    ) {
        let tracker = tracker(own, &others);
        for level in [Level::Local, Level::One, Level::Quorum, Level::All] {
            let needed = level.copies_of(tracker.copies());
            let Some(uid) = tracker.acknowledged(level) else {
                assert!(needed > tracker.copies());
                continue;
            };
            let holders = others.iter().chain([&own]).filter(|durable| **durable >= uid.get()).count();
            assert!(own >= uid.get() && holders >= needed);
        }
    }
}
