use bytes::Bytes;
use planaria_types::{
    DatabaseId, Epoch, GroupId, History, HistoryEntry, HistoryHash, InstanceId, KeyRange, Portion, TableId,
    Uid,
};

use super::Session;
use crate::ack::Level;
use crate::primary::{
    CommitsRead, DeltaRead, Group, GroupAction, Identity, SessionAction, SessionId, Survey,
};
use crate::{
    Ack, ByeCode, Commit, DeltaRequest, Hello, Message, Millis, Options, PROTOCOL_VERSION, PromotableSets,
    Reason, Record, RecordKind, Refusal, Way,
};

const NOW: Millis = Millis(1_000);
const COPY: InstanceId = InstanceId(2);

fn epoch(term: u64) -> Epoch {
    Epoch { term, incarnation: 1, nonce: term }
}

fn history(term: u64) -> History {
    let entry = HistoryEntry { epoch: epoch(term), inherited: Uid::ZERO, hash: HistoryHash::default() };
    History::from_entries(vec![entry]).unwrap()
}

fn group(end: u64) -> Group {
    let identity = Identity { database: DatabaseId(1), group: GroupId(1), instance: InstanceId(1) };
    Group::new(identity, Options::default(), epoch(1), history(1), Uid::new(end))
}

fn hello(durable: u64) -> Hello {
    Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        features: 0,
        database: DatabaseId(1),
        instance: COPY,
        name: "two".to_owned(),
        group: GroupId(1),
        round: 1,
        promised: epoch(1),
        history: if durable == 0 { History::default() } else { history(1) },
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

fn survey(visible: u64) -> Survey {
    Survey {
        round: 1,
        retained: true,
        hash: None,
        mark_floor: Uid::ZERO,
        visible: Uid::new(visible),
        visible_hash: None,
        tail_bytes: 0,
        delta_bytes: 0,
        total_bytes: 1,
    }
}

fn commit(predecessor: u64, uid: u64) -> Commit {
    let hash = HistoryHash(u128::from(uid));
    Commit { uid: Uid::new(uid), predecessor: Uid::new(predecessor), hash, bytes: Bytes::from_static(b"ops") }
}

fn ack(durable: u64, received_bytes: u64) -> Message {
    let uid = Uid::new(durable);
    Message::Ack(Ack { round: 1, epoch: epoch(1), durable: uid, visible: uid, received_bytes })
}

fn drain(session: &mut Session, group: &mut Group) -> Vec<SessionAction> {
    std::iter::from_fn(|| session.poll_action(group)).collect()
}

fn sent(actions: &[SessionAction]) -> Vec<Message> {
    let message = |action: &SessionAction| match action {
        SessionAction::Send(message) => Some(message.clone()),
        _ => None,
    };
    actions.iter().filter_map(message).collect()
}

fn refusal(group: &mut Group, hello: Hello) -> Refusal {
    let mut session = Session::new(SessionId(1), Options::default(), NOW);
    session.handle_message(group, Message::Hello(Box::new(hello)), NOW);
    let messages = sent(&drain(&mut session, group));
    let [Message::Refused(refused)] = &messages[..] else { panic!("{messages:?}") };
    assert!(session.is_closed());
    refused.code
}

fn welcomed(group: &mut Group, hello: Hello, survey: &Survey, options: Options) -> Session {
    let mut session = Session::new(SessionId(1), options, NOW);
    session.handle_message(group, Message::Hello(Box::new(hello)), NOW);
    session.handle_survey(group, survey, NOW);
    session
}

#[test]
fn who_does_not_belong_is_refused_with_the_reason() {
    let group = &mut group(10);
    assert_eq!(refusal(group, Hello { database: DatabaseId(9), ..hello(5) }), Refusal::ForeignDatabase);
    assert_eq!(refusal(group, Hello { group: GroupId(9), ..hello(5) }), Refusal::UnknownGroup);
    assert_eq!(refusal(group, Hello { instance: InstanceId(1), ..hello(5) }), Refusal::SameInstance);
    assert_eq!(refusal(group, Hello { history: history(9), ..hello(5) }), Refusal::UnrelatedHistory);
    assert_eq!(refusal(group, Hello { version_min: 7, version_max: 9, ..hello(5) }), Refusal::Version);
    let conflict = Epoch { nonce: 77, ..epoch(1) };
    assert_eq!(refusal(group, Hello { promised: conflict, ..hello(5) }), Refusal::EpochConflict);
}

/// An epoch of the same number as the one led under, which another copy drew.
fn conflicting() -> Epoch {
    Epoch { nonce: 77, ..epoch(1) }
}

#[test]
fn a_primary_goes_above_an_epoch_of_its_number_that_was_promised_and_holds_nothing() {
    let group = &mut group(10);
    let mut other =
        welcomed(group, Hello { instance: InstanceId(3), ..hello(10) }, &survey(10), Options::default());
    drain(&mut other, group);
    let stuck = Hello { promised: conflicting(), ..hello(5) };
    assert_eq!(refusal(group, stuck.clone()), Refusal::EpochConflict);
    assert_eq!(refusal(group, stuck.clone()), Refusal::EpochConflict);
    assert_eq!(group.poll_action(), Some(GroupAction::BeginAbove(conflicting())));
    assert_eq!(group.poll_action(), None, "once is enough");

    let next = Epoch { incarnation: 2, nonce: 5, ..epoch(1) };
    let mut history = history(1);
    let inherited = Uid::new(10);
    history.push(HistoryEntry { epoch: next, inherited, hash: HistoryHash::default() }).unwrap();
    group.handle_began(history.clone());
    assert_eq!((group.epoch(), group.history()), (next, &history));
    // What was read for a session of the epoch before is not told.
    let late = CommitsRead::Commits(vec![commit(10, 11)]);
    other.handle_commits(group, 1, late, NOW);
    let messages = sent(&drain(&mut other, group));
    assert!(matches!(&messages[..], [Message::Bye(bye)] if bye.code == ByeCode::Moved), "{messages:?}");
    assert!(group.members().values().all(|member| !member.online && member.session.is_none()));

    let mut session = welcomed(group, stuck, &survey(10), Options::default());
    let messages = sent(&drain(&mut session, group));
    let [Message::Welcome(welcome), ..] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((welcome.epoch, welcome.fork.uid), (next, Uid::new(5)));
}

#[test]
fn after_going_above_another_epoch_what_is_inherited_counts_only_with_a_commit_of_the_new_one() {
    let group = &mut group(10);
    group.restore(COPY, "two".to_owned(), Uid::new(10), true, NOW);
    group.restore_promotable(PromotableSets { now: [InstanceId(1), COPY].into(), next: None });
    group.handle_conflict(conflicting(), epoch(1));
    let next = Epoch { incarnation: 2, nonce: 5, ..epoch(1) };
    let mut history = history(1);
    let inherited = Uid::new(10);
    history.push(HistoryEntry { epoch: next, inherited, hash: HistoryHash::default() }).unwrap();
    group.handle_began(history);
    assert_eq!(group.acknowledged(Level::One), Some(Uid::ZERO));
    group.handle_appended(Uid::new(11));
    group.handle_durable(Uid::new(11));
    group.acknowledge(COPY, Uid::new(11), Uid::new(11), true);
    assert_eq!(group.acknowledged(Level::One), Some(Uid::new(11)));
}

#[test]
fn a_primary_leaves_it_to_people_where_another_one_led_under_its_number() {
    let group = &mut group(10);
    let entry = HistoryEntry { epoch: conflicting(), inherited: Uid::ZERO, hash: HistoryHash::default() };
    let elsewhere = History::from_entries(vec![entry]).unwrap();
    let led = Hello { promised: conflicting(), history: elsewhere, ..hello(5) };
    assert_eq!(refusal(group, led), Refusal::EpochConflict);
    assert_eq!(group.poll_action(), None);
    group.handle_newer_epoch(epoch(2));
    group.poll_action();
    group.handle_conflict(conflicting(), Epoch::NONE);
    assert_eq!(group.poll_action(), None, "one that was deposed begins nothing");
}

#[test]
fn a_newer_promise_deposes_the_primary() {
    let group = &mut group(10);
    let mut other =
        welcomed(group, Hello { instance: InstanceId(3), ..hello(10) }, &survey(10), Options::default());
    assert_eq!(refusal(group, Hello { promised: epoch(2), ..hello(10) }), Refusal::Deposed);
    assert_eq!(group.poll_action(), Some(GroupAction::Deposed(epoch(2))));
    drain(&mut other, group);
    other.handle_tick(group, NOW);
    let messages = sent(&drain(&mut other, group));
    assert!(matches!(&messages[..], [Message::Bye(bye)] if bye.code == ByeCode::Deposed));
}

#[test]
fn what_was_appended_while_the_log_was_read_is_sent_later() {
    let group = &mut group(10);
    let mut session = welcomed(group, hello(10), &survey(10), Options::default());
    drain(&mut session, group);
    group.handle_appended(Uid::new(11));
    drain(&mut session, group);
    let read = vec![commit(10, 11), commit(11, 12)];
    session.handle_commits(group, 1, CommitsRead::Commits(read), NOW);
    let uids = |messages: &[Message]| -> Vec<u64> {
        let commits = messages.iter().filter_map(|message| match message {
            Message::Live(live) => Some(live.commits.clone()),
            _ => None,
        });
        commits.flatten().map(|commit| commit.uid.get()).collect()
    };
    assert_eq!(uids(&sent(&drain(&mut session, group))), [11]);
    assert!(!session.is_closed());
    group.handle_appended(Uid::new(12));
    drain(&mut session, group);
    session.handle_commits(group, 1, CommitsRead::Commits(vec![commit(11, 12)]), NOW);
    assert_eq!(uids(&sent(&drain(&mut session, group))), [12]);
}

#[test]
fn commits_are_read_only_while_there_is_credit() {
    let group = &mut group(10);
    let weight = commit(10, 11).weight();
    let options = Options { live_window_bytes: weight + 1, ..Options::default() };
    let mut session = welcomed(group, hello(10), &survey(10), options);
    drain(&mut session, group);
    group.handle_appended(Uid::new(14));
    let read = |actions: &[SessionAction]| {
        actions.iter().filter(|action| matches!(action, SessionAction::ReadCommits { .. })).count()
    };
    assert_eq!(read(&drain(&mut session, group)), 1);
    session.handle_commits(group, 1, CommitsRead::Commits(vec![commit(10, 11), commit(11, 12)]), NOW);
    assert_eq!(read(&drain(&mut session, group)), 0, "two commits fill the window");
    session.handle_message(group, ack(10, 2 * weight), NOW);
    assert_eq!(read(&drain(&mut session, group)), 1);
}

#[test]
fn a_log_that_released_what_a_slow_session_needs_begins_the_round_again() {
    let group = &mut group(10);
    let mut session = welcomed(group, hello(10), &survey(10), Options::default());
    group.handle_appended(Uid::new(12));
    drain(&mut session, group);
    session.handle_commits(group, 1, CommitsRead::NotRetained, NOW);
    let messages = sent(&drain(&mut session, group));
    assert!(matches!(&messages[..], [Message::Again(again)] if again.reason == Reason::LogReleased));
}

#[test]
fn a_delta_starts_its_live_stream_at_what_is_visible() {
    let group = &mut group(20);
    let released = Survey { retained: false, ..survey(18) };
    let mut session = welcomed(group, hello(5), &released, Options::default());
    let messages = sent(&drain(&mut session, group));
    let Message::Welcome(welcome) = &messages[0] else { panic!("{messages:?}") };
    assert_eq!((welcome.way, welcome.live_from, welcome.tail), (Way::Delta, Uid::new(18), Uid::new(20)));
}

#[test]
fn marks_that_were_dropped_under_a_delta_end_it() {
    let group = &mut group(20);
    let released = Survey { retained: false, ..survey(20) };
    let mut session = welcomed(group, hello(5), &released, Options::default());
    session.handle_message(group, Message::DeltaRequest(DeltaRequest { round: 1, grant: 1 }), NOW);
    assert!(
        drain(&mut session, group).iter().any(|action| matches!(action, SessionAction::ReadDelta { .. }))
    );
    let record = Record {
        table: TableId(1),
        key: Bytes::from_static(b"k"),
        uid: Uid::new(9),
        kind: RecordKind::Delete,
        row: Bytes::new(),
    };
    let read = DeltaRead::Chunk {
        snapshot: Uid::new(20),
        snapshot_hash: None,
        mark_floor: Uid::new(6),
        records: vec![record],
        next: None,
    };
    session.handle_delta(group, 1, read, NOW);
    let messages = sent(&drain(&mut session, group));
    assert!(matches!(&messages[..], [Message::Again(again)] if again.reason == Reason::MarksDropped));
}

#[test]
fn no_more_chunks_are_read_than_were_granted() {
    let group = &mut group(20);
    let released = Survey { retained: false, ..survey(20) };
    let mut session = welcomed(group, hello(5), &released, Options::default());
    session.handle_message(group, Message::DeltaRequest(DeltaRequest { round: 1, grant: 1 }), NOW);
    drain(&mut session, group);
    let read = DeltaRead::Chunk {
        snapshot: Uid::new(20),
        snapshot_hash: None,
        mark_floor: Uid::ZERO,
        records: Vec::new(),
        next: Some((TableId(1), Bytes::from_static(b"k"))),
    };
    session.handle_delta(group, 1, read, NOW);
    assert!(
        !drain(&mut session, group).iter().any(|action| matches!(action, SessionAction::ReadDelta { .. }))
    );
}

#[test]
fn a_newer_session_of_a_copy_supersedes_the_older() {
    let group = &mut group(10);
    let mut older = welcomed(group, hello(10), &survey(10), Options::default());
    drain(&mut older, group);
    let mut newer = Session::new(SessionId(2), Options::default(), NOW);
    newer.handle_message(group, Message::Hello(Box::new(hello(10))), NOW);
    older.handle_message(group, ack(10, 0), NOW);
    let messages = sent(&drain(&mut older, group));
    assert!(matches!(&messages[..], [Message::Bye(bye)] if bye.code == ByeCode::Superseded));
    assert!(!newer.is_closed());
}

#[test]
fn an_acknowledgement_of_what_was_never_sent_or_durable_ends_the_session() {
    for message in [ack(11, 0), ack(10, 1)] {
        let group = &mut group(10);
        let mut session = welcomed(group, hello(10), &survey(10), Options::default());
        drain(&mut session, group);
        session.handle_message(group, message, NOW);
        let messages = sent(&drain(&mut session, group));
        assert!(matches!(&messages[..], [Message::Bye(bye)] if bye.code == ByeCode::Protocol));
    }
}

/// The sets of these copies, with the primary's own among them.
fn sets(now: &[InstanceId], next: Option<&[InstanceId]>) -> PromotableSets {
    let set = |copies: &[InstanceId]| copies.iter().copied().chain([InstanceId(1)]).collect();
    PromotableSets { now: set(now), next: next.map(set) }
}

/// Appends a commit and makes it durable.
fn commit_at(group: &mut Group, uid: u64) -> Uid {
    let uid = Uid::new(uid);
    group.handle_appended(uid);
    group.handle_durable(uid);
    uid
}

#[test]
fn a_copy_counts_once_both_sets_know_of_it() {
    let group = &mut group(10);
    let mut session = welcomed(group, hello(10), &survey(10), Options::default());
    drain(&mut session, group);
    session.handle_message(group, ack(10, 0), NOW);
    let joins = group.poll_action();
    assert_eq!(joins, Some(GroupAction::PersistPromotable(sets(&[], Some(&[COPY])))));
    let at = commit_at(group, 11);
    group.handle_promotable(&sets(&[], Some(&[COPY])), at);
    assert_eq!(group.acknowledged(Level::One), None, "the copy does not know yet that it counts");
    assert_eq!(group.acknowledged(Level::Quorum), Some(Uid::ZERO));
    session.handle_message(group, ack(11, 0), NOW);
    assert_eq!(group.poll_action(), Some(GroupAction::PersistPromotable(sets(&[COPY], None))));
    assert_eq!(group.acknowledged(Level::One), Some(at));
    assert_eq!(group.stable(), at);
}

#[test]
fn a_copy_that_is_lost_while_it_joins_is_not_waited_for() {
    let group = &mut group(10);
    let mut session = welcomed(group, hello(10), &survey(10), Options::default());
    drain(&mut session, group);
    session.handle_message(group, ack(10, 0), NOW);
    assert_eq!(group.poll_action(), Some(GroupAction::PersistPromotable(sets(&[], Some(&[COPY])))));
    let at = commit_at(group, 11);
    group.handle_promotable(&sets(&[], Some(&[COPY])), at);
    session.handle_disconnected(group, NOW);
    group.handle_tick(NOW);
    assert_eq!(group.poll_action(), None, "it may come back soon");
    group.handle_tick(Millis(NOW.0 + Options::default().leave_after.0));
    assert_eq!(group.poll_action(), Some(GroupAction::PersistPromotable(sets(&[], Some(&[])))));
    let at = commit_at(group, 12);
    group.handle_promotable(&sets(&[], Some(&[])), at);
    assert_eq!(group.acknowledged(Level::Quorum), Some(at));
    assert_eq!(group.poll_action(), Some(GroupAction::PersistPromotable(sets(&[], None))));
}

#[test]
fn a_copy_that_is_away_holds_no_floor_and_leaves_only_if_a_majority_says_so() {
    let group = &mut group(10);
    let mut session = welcomed(group, hello(10), &survey(10), Options::default());
    group.restore_promotable(sets(&[COPY], None));
    session.handle_message(group, ack(10, 0), NOW);
    session.handle_disconnected(group, NOW);
    group.handle_tick(NOW);
    assert_eq!(group.poll_action(), None, "it may come back soon");
    group.handle_tick(group.poll_timeout().unwrap());
    assert_eq!(group.poll_action(), Some(GroupAction::PersistPromotable(sets(&[COPY], Some(&[])))));
    let at = commit_at(group, 12);
    group.handle_promotable(&sets(&[COPY], Some(&[])), at);
    assert_eq!(group.acknowledged(Level::Quorum), Some(Uid::ZERO), "one of two copies is no majority");
    assert_eq!(group.acknowledged(Level::Local), Some(at));
    assert_eq!(group.stable(), at, "old versions are not kept for it");
    group.forget(COPY);
    assert_eq!(group.poll_action(), Some(GroupAction::PersistPromotable(sets(&[], None))));
    let at = commit_at(group, 13);
    group.handle_promotable(&sets(&[], None), at);
    assert_eq!(group.acknowledged(Level::Quorum), Some(at), "an operator answers for it");
}

#[test]
fn a_change_that_another_primary_began_is_ended_before_a_copy_that_was_to_leave_may_stay() {
    const SECOND: InstanceId = InstanceId(77);
    let group = &mut group(10);
    for (copy, name) in [(COPY, "one"), (SECOND, "two")] {
        group.restore(copy, name.to_owned(), Uid::new(10), true, NOW);
    }
    // The primary before may have ended it, and the second copy may count on itself alone.
    let leaves = sets(&[COPY, SECOND], Some(&[SECOND]));
    group.restore_promotable(leaves.clone());
    assert_eq!(group.poll_action(), Some(GroupAction::PersistPromotable(leaves.clone())));
    let at = commit_at(group, 11);
    group.handle_promotable(&leaves, at);
    let mut session = welcomed(group, hello(10), &survey(10), Options::default());
    drain(&mut session, group);
    session.handle_message(group, ack(10, 0), NOW);
    session.handle_message(group, ack(11, 0), NOW);
    group.handle_tick(Millis(NOW.0 + Options::default().leave_after.0));
    assert_eq!(group.poll_action(), None, "the second copy has yet to follow this primary");
    assert_eq!(group.acknowledged(Level::One), Some(Uid::ZERO));
}

#[test]
fn an_operator_forgets_one_copy_after_the_other() {
    const SECOND: InstanceId = InstanceId(77);
    let group = &mut group(10);
    for (copy, name) in [(COPY, "one"), (SECOND, "two")] {
        group.restore(copy, name.to_owned(), Uid::new(10), true, NOW);
    }
    // The second one is about to join.
    group.restore_promotable(sets(&[COPY], Some(&[COPY, SECOND])));
    assert_eq!(
        group.poll_action(),
        Some(GroupAction::PersistPromotable(sets(&[COPY], Some(&[COPY, SECOND]))))
    );
    group.forget(COPY);
    // Nobody but the primary has acknowledged that the second one joins.
    assert_eq!(group.poll_action(), Some(GroupAction::PersistPromotable(sets(&[], None))));
    group.forget(SECOND);
    let at = commit_at(group, 12);
    group.handle_promotable(&sets(&[], None), at);
    assert_eq!(group.acknowledged(Level::Quorum), Some(at), "neither is waited for");
    group.handle_tick(NOW);
    assert_eq!(group.poll_action(), None);
}

#[test]
fn a_position_from_before_a_promotion_counts_for_nothing() {
    let group = &mut group(10);
    group.restore(COPY, "two".to_owned(), Uid::new(15), true, NOW);
    group.restore_promotable(sets(&[COPY], None));
    commit_at(group, 15);
    assert_eq!(group.acknowledged(Level::One), Some(Uid::ZERO));
    assert_eq!(group.stable(), Uid::new(10));
}

#[test]
fn a_silent_secondary_loses_its_session() {
    let group = &mut group(10);
    let mut session = welcomed(group, hello(10), &survey(10), Options::default());
    drain(&mut session, group);
    session.handle_tick(group, NOW.plus(Options::default().heartbeat));
    assert_eq!(sent(&drain(&mut session, group)), [Message::Heartbeat]);
    session.handle_tick(group, NOW.plus(Options::default().session_timeout));
    assert!(session.is_closed());
    assert!(matches!(
        drain(&mut session, group)[..],
        [SessionAction::Send(Message::Bye(_)), SessionAction::Close]
    ));
}

fn partial_hello(durable: u64) -> Hello {
    let portion = Portion::new([("a".to_owned(), KeyRange::ALL)]).unwrap();
    Hello {
        portion: Some(portion),
        features: crate::message::FEATURE_PORTIONS,
        without_live: true,
        ..hello(durable)
    }
}

#[test]
fn a_partial_copy_is_told_positions_and_no_commit_and_its_pin_goes_with_its_round() {
    let group = &mut group(10);
    let mut session = welcomed(group, partial_hello(5), &survey(10), Options::default());
    let actions = drain(&mut session, group);
    let portion = partial_hello(5).portion;
    assert!(
        actions.contains(&SessionAction::Survey { round: 1, since: Uid::new(5), portion }),
        "{actions:?}"
    );
    let messages = sent(&actions);
    let Some(Message::Welcome(welcome)) = messages.first() else { panic!("{messages:?}") };
    assert_eq!((welcome.way, welcome.reason, welcome.features), (Way::PinnedDelta, Reason::Partial, 1));
    group.handle_appended(Uid::new(14));
    group.handle_durable(Uid::new(14));
    group.handle_closed(Uid::new(20));
    let actions = drain(&mut session, group);
    let messages = sent(&actions);
    let Some(Message::Live(live)) = messages.last() else { panic!("{messages:?}") };
    assert_eq!((live.durable, live.commits.len()), (Uid::new(14), 0));
    assert_eq!(live.closed, Uid::new(10), "what lies between is not with the copy yet");
    assert!(!actions.iter().any(|action| matches!(action, SessionAction::ReadCommits { .. })));
    session.handle_message(group, ack(14, 0), NOW);
    let actions = drain(&mut session, group);
    assert!(actions.contains(&SessionAction::ReleasePin), "{actions:?}");
    let messages = sent(&actions);
    assert!(
        matches!(messages.last(), Some(Message::Live(live)) if live.closed == Uid::new(20)),
        "{messages:?}"
    );
}

#[test]
fn a_partial_copy_counts_for_nothing_and_is_never_promotable() {
    let group = &mut group(10);
    let mut session = welcomed(group, partial_hello(5), &survey(10), Options::default());
    drain(&mut session, group);
    session.handle_message(group, ack(10, 0), NOW);
    drain(&mut session, group);
    let member = group.members().get(&COPY).unwrap().clone();
    assert!(member.online && member.partial && member.durable == Uid::new(10), "{member:?}");
    group.set_eligible(COPY, true);
    group.handle_tick(NOW);
    assert_eq!(group.poll_action(), None, "no promotable set is proposed");
    assert_eq!(group.acknowledged(Level::One), None);
    assert_eq!(group.acknowledged(Level::Quorum), Some(Uid::new(10)), "the primary alone is all of them");
    assert_eq!(group.stable(), Uid::new(10));
    // The next round keeps it online, and another copy under its name that holds everything is not taken for it.
    session.handle_message(group, Message::Hello(Box::new(Hello { round: 2, ..partial_hello(10) })), NOW);
    assert!(group.members().get(&COPY).unwrap().online);
    assert_eq!(refusal(group, hello(10)), Refusal::WasPartial);
}

#[test]
fn a_copy_that_counts_as_a_whole_one_is_no_partial_one() {
    let group = &mut group(10);
    group.restore(COPY, "two".into(), Uid::new(10), true, NOW);
    let sets = PromotableSets { now: [InstanceId(1), COPY].into(), next: None };
    group.restore_promotable(sets);
    assert_eq!(refusal(group, partial_hello(10)), Refusal::CountsAsWhole);
    group.forget(COPY);
    let Some(GroupAction::PersistPromotable(sets)) = group.poll_action() else { panic!("it leaves") };
    assert_eq!(refusal(group, partial_hello(10)), Refusal::CountsAsWhole, "not before that is written down");
    group.handle_promotable(&sets, Uid::new(10));
    let session = welcomed(group, partial_hello(10), &survey(10), Options::default());
    assert_eq!(session.way(), Some(Way::PinnedDelta));
}

#[test]
fn a_delta_goes_on_with_what_is_new_before_its_cursor_and_with_everything_behind_it() {
    let upto = (TableId(1), Bytes::from_static(b"c"));
    let read_at = history(1).position_of(Uid::new(8));
    let kept = crate::Resume { upto: upto.clone(), base: Uid::new(7), read_at };
    let group = &mut group(10);
    let away = Survey { retained: false, delta_bytes: 1, total_bytes: 1_000, ..survey(10) };
    let hello = Hello { resume: Some(kept), ..hello(5) };
    // Whoever has less than was read, or has dropped marks since, begins anew.
    for unfit in [survey(7), Survey { mark_floor: Uid::new(8), ..away.clone() }] {
        let unfit = Survey { retained: false, ..unfit };
        let mut session = welcomed(group, hello.clone(), &unfit, Options::default());
        let messages = sent(&drain(&mut session, group));
        assert!(matches!(&messages[..], [Message::Welcome(welcome), ..] if !welcome.resumes), "{messages:?}");
        session.handle_disconnected(group, NOW);
    }
    let mut session = welcomed(group, hello, &away, Options::default());
    let messages = sent(&drain(&mut session, group));
    assert!(matches!(&messages[..], [Message::Welcome(welcome), ..] if welcome.resumes), "{messages:?}");
    let record = |key: &'static [u8], uid| Record {
        table: TableId(1),
        key: Bytes::from_static(key),
        uid: Uid::new(uid),
        kind: RecordKind::Put,
        row: Bytes::new(),
    };
    let mut read = |session: &mut Session, grant, records: Vec<Record>, next| {
        session.handle_message(group, Message::DeltaRequest(DeltaRequest { round: 1, grant }), NOW);
        let actions = drain(session, group);
        let asked = actions.iter().find_map(|action| match action {
            SessionAction::ReadDelta { since, cursor, .. } => Some((*since, cursor.clone())),
            _ => None,
        });
        let (snapshot, snapshot_hash, mark_floor) = (Uid::new(10), None, Uid::ZERO);
        let chunk = DeltaRead::Chunk { snapshot, snapshot_hash, mark_floor, records, next };
        session.handle_delta(group, 1, chunk, NOW);
        let chunk = sent(&drain(session, group)).into_iter().find_map(|message| match message {
            Message::DeltaChunk(chunk) => Some(chunk),
            _ => None,
        });
        (asked.expect("a read"), chunk.expect("a chunk"))
    };
    let first = vec![record(b"a", 9), record(b"d", 10)];
    let (asked, chunk) = read(&mut session, 1, first, Some((TableId(1), Bytes::from_static(b"d"))));
    assert_eq!(asked, (Uid::new(7), None));
    assert_eq!((chunk.records, chunk.last), (vec![record(b"a", 9)], false), "what lies behind comes later");
    let (asked, chunk) = read(&mut session, 2, vec![record(b"d", 10)], None);
    assert_eq!(asked, (Uid::new(5), Some(upto)));
    assert!(chunk.last);
}
