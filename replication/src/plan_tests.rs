use planaria_types::Uid;

use super::{Reason, Situation, Way, choose};

fn situation() -> Situation {
    Situation {
        since: Uid::new(50),
        retained: false,
        mark_floor: Uid::new(40),
        tail_bytes: 1 << 20,
        delta_bytes: 1 << 20,
        total_bytes: 1 << 30,
        without_live: false,
        trusted: true,
        bulk: None,
        asked: None,
        bulk_bytes_min: 1 << 24,
        tail_bytes_free: 16 << 20,
        is_partial: false,
        is_begun: false,
    }
}

fn chosen(situation: &Situation) -> (Way, Reason) {
    let choice = choose(situation);
    (choice.way, choice.reason)
}

#[test]
fn a_log_that_holds_all_gives_a_tail() {
    let held = Situation { retained: true, ..situation() };
    assert_eq!(chosen(&held), (Way::Tail, Reason::LogHoldsAll));
    assert_eq!(chosen(&Situation { mark_floor: Uid::MAX, ..held }), (Way::Tail, Reason::LogHoldsAll));
}

#[test]
fn a_log_that_is_much_longer_than_what_changed_gives_a_delta() {
    // Beside 64 MiB for the reading of a gibibyte.
    let long = Situation { retained: true, tail_bytes: 400 << 20, delta_bytes: 36 << 20, ..situation() };
    assert_eq!(chosen(&long), (Way::Delta, Reason::LogIsLonger));
    assert_eq!(choose(&long).bytes, long.delta_bytes);
    let tail = (Way::Tail, Reason::LogHoldsAll);
    let more = Situation { delta_bytes: long.delta_bytes + 1, ..long };
    assert_eq!(chosen(&more), tail);
    assert_eq!(chosen(&Situation { is_begun: true, ..more }), (Way::Delta, Reason::LogIsLonger));
    assert_eq!(chosen(&Situation { mark_floor: Uid::new(51), ..long }), tail, "a delta would be incomplete");
    let short = Situation { tail_bytes: 16 << 20, delta_bytes: 0, ..long };
    assert_eq!(chosen(&short), tail);
    assert_eq!(chosen(&Situation { asked: Some(Way::Tail), ..long }), tail);
    let overflowed = Situation { without_live: true, ..long };
    assert_eq!(chosen(&overflowed), (Way::PinnedDelta, Reason::LiveOverflow));
}

#[test]
fn a_log_that_was_released_gives_a_delta() {
    assert_eq!(chosen(&situation()), (Way::Delta, Reason::LogReleased));
    let floor_at_position = Situation { mark_floor: Uid::new(50), ..situation() };
    assert_eq!(chosen(&floor_at_position), (Way::Delta, Reason::LogReleased));
    let overflowed = Situation { without_live: true, ..situation() };
    assert_eq!(chosen(&overflowed), (Way::PinnedDelta, Reason::LiveOverflow));
}

#[test]
fn a_receiver_that_overflowed_hops_even_if_the_log_holds_all() {
    let overflowed = Situation { without_live: true, retained: true, ..situation() };
    assert_eq!(chosen(&overflowed), (Way::PinnedDelta, Reason::LiveOverflow));
}

#[test]
fn dropped_marks_above_the_position_have_ranges_compared() {
    let dropped = Situation { mark_floor: Uid::new(51), ..situation() };
    assert_eq!(chosen(&dropped), (Way::Reconcile, Reason::MarksDropped));
    let overflowed = Situation { without_live: true, ..dropped };
    assert_eq!(chosen(&overflowed), (Way::PinnedReconcile, Reason::MarksDropped));
    let most = Situation { delta_bytes: 1 << 29, ..dropped };
    assert_eq!(chosen(&most), (Way::Bulk, Reason::MarksDropped));
    let choice = choose(&dropped);
    assert!(choice.bytes > dropped.delta_bytes && choice.bytes < 3 * dropped.delta_bytes, "{choice:?}");
}

#[test]
fn an_empty_copy_needs_no_marks() {
    let little = Situation { since: Uid::ZERO, total_bytes: 1 << 20, ..situation() };
    assert_eq!(chosen(&little), (Way::Delta, Reason::Empty));
}

#[test]
fn an_empty_copy_of_much_data_gets_run_files() {
    let much = Situation { since: Uid::ZERO, delta_bytes: 1 << 30, tail_bytes: 1 << 30, ..situation() };
    assert_eq!(chosen(&much), (Way::Bulk, Reason::Empty));
    assert_eq!(chosen(&Situation { retained: true, ..much }), (Way::Bulk, Reason::Empty));
}

#[test]
fn a_copy_that_differs_in_most_gets_run_files() {
    let most = Situation { delta_bytes: 1 << 29, ..situation() };
    assert_eq!(chosen(&most), (Way::Bulk, Reason::MostDiffers));
}

#[test]
fn a_copy_that_is_not_trusted_is_compared_whatever_the_log_holds() {
    let untrusted = Situation { trusted: false, retained: true, ..situation() };
    assert_eq!(chosen(&untrusted), (Way::Reconcile, Reason::HistoryHash));
    let below = Situation { bulk: Some(Reason::ForkBelowMarks), retained: true, ..situation() };
    assert_eq!(chosen(&below), (Way::Reconcile, Reason::ForkBelowMarks));
    let unreadable = Situation { bulk: Some(Reason::Unreadable), ..situation() };
    assert_eq!(chosen(&unreadable), (Way::Bulk, Reason::Unreadable));
    let nothing_shared = Situation { since: Uid::ZERO, ..untrusted };
    assert_eq!(chosen(&nothing_shared), (Way::Bulk, Reason::HistoryHash));
}

#[test]
fn a_way_that_is_asked_for_is_taken_where_it_leads_to_the_state_of_the_primary() {
    let ask = |way, situation| chosen(&Situation { asked: Some(way), ..situation });
    let held = Situation { retained: true, ..situation() };
    assert_eq!(ask(Way::Bulk, held), (Way::Bulk, Reason::Asked));
    assert_eq!(ask(Way::Reconcile, held), (Way::Reconcile, Reason::Asked));
    assert_eq!(ask(Way::Delta, held), (Way::Delta, Reason::Asked));
    assert_eq!(ask(Way::Tail, held), (Way::Tail, Reason::LogHoldsAll));
    assert_eq!(ask(Way::Tail, situation()), (Way::Delta, Reason::LogReleased));
    let dropped = Situation { mark_floor: Uid::new(51), ..situation() };
    assert_eq!(ask(Way::Delta, dropped), (Way::Reconcile, Reason::MarksDropped));
    let untrusted = Situation { trusted: false, ..held };
    assert_eq!(ask(Way::Tail, untrusted), (Way::Reconcile, Reason::HistoryHash));
    assert_eq!(ask(Way::Reconcile, Situation { since: Uid::ZERO, ..situation() }).0, Way::Delta);
}

#[test]
fn a_partial_copy_is_told_what_changed_or_compares_and_takes_neither_run_files_nor_a_tail() {
    let partial = Situation { is_partial: true, without_live: true, retained: true, ..situation() };
    assert_eq!(chosen(&partial), (Way::PinnedDelta, Reason::Partial));
    let most = Situation { delta_bytes: 1 << 30, tail_bytes: 1 << 30, ..partial };
    assert_eq!(chosen(&most), (Way::PinnedDelta, Reason::Partial));
    let empty = Situation { since: Uid::ZERO, mark_floor: Uid::MAX, ..most };
    assert_eq!(chosen(&empty), (Way::PinnedDelta, Reason::Empty));
    let dropped = Situation { mark_floor: Uid::new(51), ..most };
    assert_eq!(chosen(&dropped), (Way::PinnedReconcile, Reason::MarksDropped));
    for reason in [Reason::PortionChanged, Reason::Unreadable, Reason::ForkBelowMarks] {
        let told = Situation { bulk: Some(reason), ..most };
        assert_eq!(chosen(&told), (Way::PinnedReconcile, reason));
    }
    assert_eq!(
        chosen(&Situation { trusted: false, ..empty }),
        (Way::PinnedReconcile, Reason::HistoryHash),
        "a copy that shares nothing and holds something"
    );
    let asked = |way| chosen(&Situation { asked: Some(way), ..partial });
    assert_eq!(asked(Way::Reconcile), (Way::PinnedReconcile, Reason::Asked));
    assert_eq!(asked(Way::Bulk), (Way::PinnedDelta, Reason::Partial));
    assert_eq!(asked(Way::Tail), (Way::PinnedDelta, Reason::Partial));
    let whole_store_is_small = Situation { total_bytes: 0, bulk_bytes_min: 0, ..dropped };
    assert_eq!(chosen(&whole_store_is_small), (Way::PinnedReconcile, Reason::MarksDropped));
}
