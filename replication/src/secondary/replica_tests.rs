use bytes::Bytes;
use planaria_types::{
    DatabaseId, Epoch, GroupId, History, HistoryEntry, HistoryHash, InstanceId, TableId, Uid,
};

use super::{Identity, Replica};
use crate::secondary::{Action, KeptDelta, Local, State};
use crate::{
    Ack, Again, ByeCode, Commit, DeltaChunk, Hello, Live, Message, Millis, Options, Reason, Record,
    RecordKind, RewindItem, RewindReply, Way, Welcome,
};

const NOW: Millis = Millis(1_000);

fn epoch(term: u64) -> Epoch {
    Epoch { term, incarnation: 1, nonce: term }
}

fn history(entries: &[(u64, u64)]) -> History {
    let entries = entries.iter().map(|&(term, inherited)| HistoryEntry {
        epoch: epoch(term),
        inherited: Uid::new(inherited),
        hash: HistoryHash::default(),
    });
    History::from_entries(entries.collect()).unwrap()
}

fn local(end: u64) -> Local {
    let uid = Uid::new(end);
    Local { history: history(&[(1, 0)]), appended: uid, durable: uid, visible: uid, ..Local::default() }
}

fn commit(predecessor: u64, uid: u64) -> Commit {
    let hash = HistoryHash(u128::from(uid));
    Commit { uid: Uid::new(uid), predecessor: Uid::new(predecessor), hash, bytes: Bytes::from_static(b"ops") }
}

fn live(round: u64, commits: Vec<Commit>, durable: u64) -> Message {
    let (durable, stable, closed) = (Uid::new(durable), Uid::ZERO, Uid::ZERO);
    Message::Live(Live { round, epoch: epoch(1), began: Vec::new(), commits, durable, stable, closed })
}

fn welcome(round: u64, fork: u64, way: Way, live_from: u64) -> Welcome {
    Welcome {
        version: crate::PROTOCOL_VERSION,
        features: 0,
        round,
        epoch: epoch(1),
        history: history(&[(1, 0)]),
        fork: history(&[(1, 0)]).position_of(Uid::new(fork)),
        fork_hash: None,
        way,
        reason: Reason::LogHoldsAll,
        bytes: 0,
        live_from: Uid::new(live_from),
        live_from_hash: None,
        tail: Uid::new(live_from),
        durable: Uid::new(fork),
        fed: false,
        chain: vec![InstanceId(1)],
        resumes: false,
    }
}

fn drain(replica: &mut Replica) -> Vec<Action> {
    std::iter::from_fn(|| replica.poll_action()).collect()
}

fn hello(actions: &[Action]) -> Hello {
    let found = actions.iter().find_map(|action| match action {
        Action::Send(Message::Hello(hello)) => Some((**hello).clone()),
        _ => None,
    });
    found.expect("a hello")
}

fn acks(actions: &[Action]) -> Vec<Ack> {
    let ack = |action: &Action| match action {
        Action::Send(Message::Ack(ack)) => Some(*ack),
        _ => None,
    };
    actions.iter().filter_map(ack).collect()
}

fn bye(actions: &[Action]) -> ByeCode {
    let found = actions.iter().find_map(|action| match action {
        Action::Send(Message::Bye(bye)) => Some(bye.code),
        _ => None,
    });
    found.expect("a bye")
}

/// A replica that has no connection yet.
fn apart(local: Local, options: Options) -> Replica {
    let identity = Identity {
        database: DatabaseId(1),
        group: GroupId(1),
        instance: InstanceId(2),
        name: "two".to_owned(),
    };
    Replica::new(identity, options, epoch(1), local, 7, NOW)
}

/// A replica that has said hello.
fn greeting(local: Local, options: Options) -> Replica {
    let mut replica = apart(local, options);
    replica.handle_tick(NOW);
    assert_eq!(drain(&mut replica), [Action::Connect]);
    replica.handle_connected(NOW);
    replica
}

fn tailing(end: u64) -> Replica {
    let mut replica = greeting(local(end), Options::default());
    drain(&mut replica);
    replica.handle_message(Message::Welcome(Box::new(welcome(1, end, Way::Tail, end))), NOW);
    drain(&mut replica);
    replica
}

fn put(key: u8, uid: u64) -> Record {
    Record {
        table: TableId(1),
        key: Bytes::copy_from_slice(&[key]),
        uid: Uid::new(uid),
        kind: RecordKind::Put,
        row: Bytes::from_static(b"row"),
    }
}

fn chunk(number: u64, snapshot: u64, records: Vec<Record>, last: bool) -> Message {
    let snapshot = Uid::new(snapshot);
    Message::DeltaChunk(DeltaChunk { round: 1, number, snapshot, snapshot_hash: None, records, last })
}

#[test]
fn an_idle_reconnection_takes_one_round_trip() {
    let mut replica = greeting(local(10), Options::default());
    assert_eq!(hello(&drain(&mut replica)).durable, Uid::new(10));
    replica.handle_message(Message::Welcome(Box::new(welcome(1, 10, Way::Tail, 10))), NOW);
    let actions = drain(&mut replica);
    assert_eq!(replica.status().state, State::Online);
    assert!(matches!(actions[..], [Action::Send(Message::Ack(_))]), "{actions:?}");
}

#[test]
fn a_log_that_is_not_durable_is_synced_before_the_hello() {
    let mut replica = greeting(Local { durable: Uid::new(8), ..local(10) }, Options::default());
    assert_eq!(drain(&mut replica), [Action::Sync]);
    replica.handle_durable(Uid::new(10), NOW);
    assert_eq!(hello(&drain(&mut replica)).durable, Uid::new(10));
}

#[test]
fn only_what_is_durable_on_both_sides_is_shown_and_acknowledged() {
    let mut replica = tailing(10);
    replica.handle_message(live(1, vec![commit(10, 11), commit(11, 12)], 11), NOW);
    assert!(matches!(drain(&mut replica)[..], [Action::Append(_)]));
    replica.handle_appended(Uid::new(12), NOW);
    let actions = drain(&mut replica);
    assert!(!actions.iter().any(|action| matches!(action, Action::Show(_))), "{actions:?}");
    assert_eq!(acks(&actions)[0].durable, Uid::new(10));
    replica.handle_durable(Uid::new(12), NOW);
    let actions = drain(&mut replica);
    assert_eq!(actions[0], Action::Show(Uid::new(11)));
    assert_eq!(acks(&actions)[0].durable, Uid::new(11));
    replica.handle_message(live(1, vec![], 12), NOW);
    assert_eq!(drain(&mut replica)[0], Action::Show(Uid::new(12)));
}

#[test]
fn a_gap_ends_the_session_and_nothing_of_it_is_appended() {
    let mut replica = tailing(10);
    replica.handle_message(live(1, vec![commit(10, 11), commit(12, 13)], 13), NOW);
    let actions = drain(&mut replica);
    assert_eq!(bye(&actions), ByeCode::Gap);
    assert!(!actions.iter().any(|action| matches!(action, Action::Append(_))));
    assert_eq!(replica.status().state, State::Offline);
    assert!(replica.poll_timeout() > Some(NOW));
}

#[test]
fn an_epoch_older_than_the_promise_is_not_followed() {
    let mut replica = greeting(local(10), Options::default());
    drain(&mut replica);
    let older = Epoch { term: 0, ..epoch(1) };
    let message = Welcome { epoch: older, ..welcome(1, 10, Way::Tail, 10) };
    replica.handle_message(Message::Welcome(Box::new(message)), NOW);
    assert_eq!(bye(&drain(&mut replica)), ByeCode::OldEpoch);
}

#[test]
fn the_same_epoch_number_with_another_nonce_is_not_followed() {
    let mut replica = greeting(local(10), Options::default());
    drain(&mut replica);
    let other = Epoch { nonce: 99, ..epoch(1) };
    let message = Welcome { epoch: other, ..welcome(1, 10, Way::Tail, 10) };
    replica.handle_message(Message::Welcome(Box::new(message)), NOW);
    assert_eq!(bye(&drain(&mut replica)), ByeCode::EpochConflict);
}

#[test]
fn a_newer_epoch_is_durable_before_anything_is_acknowledged_under_it() {
    let mut replica = greeting(local(10), Options::default());
    drain(&mut replica);
    let message = Welcome { epoch: epoch(2), ..welcome(1, 10, Way::Tail, 10) };
    replica.handle_message(Message::Welcome(Box::new(message)), NOW);
    let actions = drain(&mut replica);
    assert_eq!(actions[0], Action::PersistEpoch(epoch(2)));
    assert_eq!(acks(&actions)[0].epoch, epoch(2));
}

#[test]
fn a_promise_that_could_not_be_made_durable_is_made_again() {
    let mut replica = greeting(local(10), Options::default());
    drain(&mut replica);
    let message = |round| Welcome { epoch: epoch(2), ..welcome(round, 10, Way::Tail, 10) };
    replica.handle_message(Message::Welcome(Box::new(message(1))), NOW);
    assert_eq!(replica.poll_action(), Some(Action::PersistEpoch(epoch(2))));
    replica.handle_failure(local(10), "no room", NOW);
    drain(&mut replica);
    replica.handle_tick(NOW.plus(Millis(60_000)));
    replica.handle_connected(NOW);
    let round = hello(&drain(&mut replica)).round;
    replica.handle_message(Message::Welcome(Box::new(message(round))), NOW);
    let actions = drain(&mut replica);
    assert_eq!(actions[0], Action::PersistEpoch(epoch(2)));
    assert_eq!(acks(&actions)[0].epoch, epoch(2));
}

#[test]
fn nothing_is_begun_after_an_action_that_failed() {
    let mut replica = greeting(local(10), Options::default());
    drain(&mut replica);
    let message = Welcome { tail: Uid::new(7), ..welcome(1, 7, Way::Tail, 7) };
    replica.handle_message(Message::Welcome(Box::new(message)), NOW);
    assert!(matches!(replica.poll_action(), Some(Action::Quarantine { .. })));
    replica.handle_failure(local(10), "no room", NOW);
    let actions = drain(&mut replica);
    assert_eq!(bye(&actions), ByeCode::Engine);
    assert_eq!(actions.last(), Some(&Action::Disconnect));
    assert!(!actions.iter().any(|action| matches!(action, Action::TakeBack(..))), "{actions:?}");
}

#[test]
fn what_was_shown_beyond_the_fork_is_quarantined_before_it_is_taken_back() {
    let mut replica = greeting(local(10), Options::default());
    drain(&mut replica);
    let mut message = welcome(1, 7, Way::Tail, 7);
    message.tail = Uid::new(7);
    let fork_hash = message.fork_hash;
    replica.handle_message(Message::Welcome(Box::new(message)), NOW);
    let actions = drain(&mut replica);
    let (above, through) = (Uid::new(7), Uid::new(10));
    assert_eq!(
        actions[..2],
        [
            Action::Quarantine { above, through },
            Action::TakeBack(history(&[(1, 0)]).position_of(Uid::new(7)), fork_hash)
        ]
    );
    assert_eq!(replica.status().counters.forks, 1);
}

#[test]
fn a_fork_that_the_two_sides_compute_differently_ends_the_session() {
    let mut replica = greeting(local(10), Options::default());
    drain(&mut replica);
    let mut message = welcome(1, 7, Way::Tail, 7);
    message.tail = Uid::new(20);
    replica.handle_message(Message::Welcome(Box::new(message)), NOW);
    let actions = drain(&mut replica);
    assert_eq!(bye(&actions), ByeCode::Protocol);
    assert!(!actions.iter().any(|action| matches!(action, Action::TakeBack(..))));
}

#[test]
fn a_fork_inside_a_sparse_interval_is_rewound_key_by_key() {
    let sparse = vec![(Uid::new(5), Uid::new(9))];
    let mut replica = greeting(Local { sparse, ..local(10) }, Options::default());
    drain(&mut replica);
    replica.handle_message(Message::Welcome(Box::new(welcome(1, 7, Way::Tail, 7))), NOW);
    let actions = drain(&mut replica);
    assert!(matches!(actions[0], Action::Quarantine { .. }));
    assert!(matches!(actions[1], Action::BeginRefresh { rewind: true, .. }));
    assert!(matches!(actions[2], Action::ReadRewindItems { .. }));
    let key = |key: u8| RewindItem::Key(TableId(1), Bytes::copy_from_slice(&[key]));
    replica.handle_rewind_items(1, vec![key(1), key(2)], None, NOW);
    drain(&mut replica);
    // Key 2 is newer than the base, so that the live stream brings it: until then it is absent.
    let records = vec![put(1, 6), put(2, 8)];
    let reply = RewindReply { round: 1, snapshot: Uid::new(8), records, complete: true };
    replica.handle_message(Message::RewindReply(reply), NOW);
    let actions = drain(&mut replica);
    let Some(Action::StoreRewind { records, .. }) = actions.first() else { panic!("{actions:?}") };
    assert_eq!(records[0], put(1, 6));
    assert_eq!(records[1].kind, RecordKind::Absent);
    replica.handle_stored(1, NOW);
    assert!(!drain(&mut replica).iter().any(|action| matches!(action, Action::Install(_))));
    replica.handle_message(live(1, vec![commit(7, 8)], 8), NOW);
    let actions = drain(&mut replica);
    let Some(Action::Install(install)) = actions.first() else { panic!("{actions:?}") };
    assert_eq!((install.base, install.cut, install.rewound), (Uid::new(7), Uid::new(8), true));
}

#[test]
fn a_fork_below_the_own_mark_floor_needs_run_files() {
    let floors = Local { version_floor: Uid::new(9), mark_floor: Uid::new(9), ..local(10) };
    let mut replica = greeting(floors, Options::default());
    drain(&mut replica);
    replica.handle_message(Message::Welcome(Box::new(welcome(1, 7, Way::Tail, 7))), NOW);
    assert_eq!(hello(&drain(&mut replica)).bulk, Some(Reason::ForkBelowMarks));
}

#[test]
fn a_delta_is_installed_at_a_cut_that_all_chunks_and_the_live_stream_have_reached() {
    let mut replica = greeting(local(10), Options::default());
    drain(&mut replica);
    replica.handle_message(Message::Welcome(Box::new(welcome(1, 10, Way::Delta, 20))), NOW);
    drain(&mut replica);
    replica.handle_message(chunk(0, 20, vec![put(1, 15)], false), NOW);
    replica.handle_message(chunk(1, 23, vec![put(5, 16), put(6, 22)], true), NOW);
    let actions = drain(&mut replica);
    let stored: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::StoreDelta { records, .. } => Some(records.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(stored, [vec![put(1, 15)], vec![put(5, 16)]], "what is above the base comes live");
    replica.handle_stored(1, NOW);
    replica.handle_stored(1, NOW);
    replica.handle_message(live(1, vec![commit(20, 22)], 24), NOW);
    assert!(!drain(&mut replica).iter().any(|action| matches!(action, Action::Install(_))));
    replica.handle_message(live(1, vec![commit(22, 24), commit(24, 26)], 25), NOW);
    let actions = drain(&mut replica);
    let Some(Action::Install(install)) = actions.first() else { panic!("{actions:?}") };
    assert_eq!((install.base, install.cut), (Uid::new(20), Uid::new(25)));
    assert_eq!((install.sparse_from, install.sparse_to), (Uid::new(10), Uid::new(23)));
    assert_eq!(install.commits.len(), 3);
    assert_eq!(replica.status().state, State::Refreshing);
    replica.handle_message(live(1, vec![commit(26, 27)], 25), NOW);
    let installed =
        Local { appended: Uid::new(26), durable: Uid::new(26), visible: Uid::new(25), ..local(26) };
    replica.handle_installed(installed, NOW);
    let actions = drain(&mut replica);
    assert!(matches!(&actions[0], Action::Append(commits) if commits[0].uid == Uid::new(27)));
    assert_eq!(replica.status().state, State::Online);
}

#[test]
fn a_refresh_acknowledges_nothing_above_the_fork() {
    let mut replica = greeting(local(10), Options::default());
    drain(&mut replica);
    replica.handle_message(Message::Welcome(Box::new(welcome(1, 10, Way::Delta, 20))), NOW);
    replica.handle_message(live(1, vec![commit(20, 22)], 22), NOW);
    let actions = drain(&mut replica);
    assert!(acks(&actions).iter().all(|ack| ack.durable == Uid::new(10) && ack.visible == Uid::new(10)));
    assert_eq!(acks(&actions).last().unwrap().received_bytes, commit(20, 22).weight());
}

#[test]
fn held_commits_that_outgrow_their_buffer_lead_to_a_hop() {
    let mut replica = greeting(local(10), Options { held_bytes_max: 60, ..Options::default() });
    drain(&mut replica);
    replica.handle_message(Message::Welcome(Box::new(welcome(1, 10, Way::Delta, 20))), NOW);
    drain(&mut replica);
    replica.handle_message(live(1, vec![commit(20, 22), commit(22, 23)], 23), NOW);
    let actions = drain(&mut replica);
    assert_eq!(actions[0], Action::AbandonRefresh);
    assert!(hello(&actions).without_live);
    let message = Welcome { durable: Uid::new(30), ..welcome(2, 10, Way::PinnedDelta, 25) };
    replica.handle_message(Message::Welcome(Box::new(message)), NOW);
    drain(&mut replica);
    let Message::DeltaChunk(pinned) = chunk(0, 28, vec![put(1, 27)], true) else { unreachable!() };
    replica.handle_message(Message::DeltaChunk(DeltaChunk { round: 2, ..pinned }), NOW);
    replica.handle_stored(2, NOW);
    let actions = drain(&mut replica);
    let install = actions.iter().find_map(|action| match action {
        Action::Install(install) => Some(install.clone()),
        _ => None,
    });
    let install = install.expect("an installation");
    assert_eq!((install.base, install.cut, install.commits.len()), (Uid::new(28), Uid::new(28), 0));
    replica.handle_installed(local(28), NOW);
    let next = hello(&drain(&mut replica));
    assert_eq!((next.durable, next.without_live), (Uid::new(28), false));
    assert_eq!(replica.status().counters.hops, 1);
}

#[test]
fn a_break_during_a_refresh_keeps_the_old_cut() {
    let mut replica = greeting(local(10), Options::default());
    drain(&mut replica);
    replica.handle_message(Message::Welcome(Box::new(welcome(1, 10, Way::Delta, 20))), NOW);
    drain(&mut replica);
    replica.handle_disconnected("cut", NOW);
    assert!(drain(&mut replica).contains(&Action::AbandonRefresh));
    assert_eq!(replica.status().visible, Uid::new(10));
}

/// A replica whose delta was cut off after two chunks, read at 22 and 23 from a base of 20.
fn interrupted() -> (Replica, crate::Resume) {
    let mut replica = greeting(local(10), Options::default());
    drain(&mut replica);
    replica.handle_message(Message::Welcome(Box::new(welcome(1, 10, Way::Delta, 20))), NOW);
    drain(&mut replica);
    replica.handle_message(chunk(0, 22, vec![put(1, 15)], false), NOW);
    // The last one is newer than the base, so that it would have come live.
    replica.handle_message(chunk(1, 23, vec![put(2, 18), put(3, 21)], false), NOW);
    drain(&mut replica);
    replica.handle_disconnected("cut", NOW);
    let kept = crate::Resume {
        upto: (TableId(1), Bytes::from_static(&[3])),
        base: Uid::new(20),
        read_at: history(&[(1, 0)]).position_of(Uid::new(23)),
    };
    let actions = drain(&mut replica);
    let suspended = actions.iter().find_map(|action| match action {
        Action::SuspendRefresh(suspended) => suspended.clone(),
        _ => None,
    });
    let suspended = suspended.expect("something is kept");
    assert_eq!((suspended.since, &suspended.resume), (Uid::new(10), &kept));
    (replica, kept)
}

fn greet_again(replica: &mut Replica) -> Hello {
    let due = replica.poll_timeout().expect("another attempt");
    replica.handle_tick(due);
    replica.handle_connected(due);
    hello(&drain(replica))
}

#[test]
fn a_delta_that_was_cut_off_goes_on_from_what_has_come() {
    let (mut replica, kept) = interrupted();
    let again = greet_again(&mut replica);
    assert_eq!((again.durable, again.resume), (Uid::new(10), Some(kept.clone())));
    let goes_on = Welcome { resumes: true, ..welcome(2, 10, Way::Delta, 25) };
    replica.handle_message(Message::Welcome(Box::new(goes_on)), NOW);
    assert!(drain(&mut replica).contains(&Action::ResumeRefresh { round: 2 }));
    // Cut off again before it has got so far: what was kept before stays, and nothing else.
    let Message::DeltaChunk(early) = chunk(0, 26, vec![put(1, 24)], false) else { unreachable!() };
    replica.handle_message(Message::DeltaChunk(DeltaChunk { round: 2, ..early }), NOW);
    drain(&mut replica);
    replica.handle_disconnected("cut", NOW);
    assert!(drain(&mut replica).contains(&Action::SuspendRefresh(None)));
    assert_eq!(greet_again(&mut replica).resume, Some(kept));
    assert_eq!(replica.status().counters.resumptions, 1);
}

fn kept_of(actions: &[Action]) -> Vec<KeptDelta> {
    let kept = |action: &Action| match action {
        Action::KeepRefresh(kept) => Some(kept.clone()),
        _ => None,
    };
    actions.iter().filter_map(kept).collect()
}

#[test]
fn a_delta_is_kept_for_a_later_process_once_in_a_while_and_goes_on_there() {
    let weight = put(1, 15).weight();
    let options =
        Options { refresh_mark_bytes: 2 * weight, refresh_mark_after: Millis(1_000), ..Options::default() };
    let mut replica = greeting(local(10), options.clone());
    drain(&mut replica);
    replica.handle_message(Message::Welcome(Box::new(welcome(1, 10, Way::Delta, 20))), NOW);
    drain(&mut replica);
    let mut comes = |number: u64, at: Millis| {
        replica.handle_message(chunk(number, 22, vec![put(number as u8 + 1, 15)], number == 5), at);
        kept_of(&drain(&mut replica))
    };
    assert_eq!(comes(0, NOW), []);
    let kept = comes(1, NOW).remove(0);
    assert_eq!((kept.since, kept.bytes, kept.resume.base), (Uid::new(10), 2 * weight, Uid::new(20)));
    assert_eq!(kept.resume.upto, (TableId(1), Bytes::from_static(&[2])));
    // Or after a time, however little has come. The last chunk ends it.
    assert_eq!(comes(2, NOW), []);
    let later = comes(3, Millis(NOW.0 + 1_000)).remove(0);
    assert_eq!(later.resume.upto.1, Bytes::from_static(&[4]));
    assert_eq!(comes(4, Millis(NOW.0 + 1_000)), []);
    assert_eq!(comes(5, Millis(NOW.0 + 3_000)), []);

    let mut next = apart(local(10), options.clone()).going_on_from(Some(later.clone()));
    assert_eq!(greet_again(&mut next).resume, Some(later.resume.clone()));
    let goes_on = Welcome { resumes: true, ..welcome(1, 10, Way::Delta, 25) };
    next.handle_message(Message::Welcome(Box::new(goes_on)), NOW);
    assert!(drain(&mut next).contains(&Action::ResumeRefresh { round: 1 }));
    // What has not got further than what is kept already is not kept instead.
    let Message::DeltaChunk(early) = chunk(0, 26, vec![put(1, 24), put(2, 24)], false) else {
        unreachable!()
    };
    next.handle_message(Message::DeltaChunk(early), NOW);
    assert_eq!(kept_of(&drain(&mut next)), []);
    // A copy that holds something else has nothing to go on from.
    let mut other = apart(local(12), options).going_on_from(Some(later));
    assert_eq!(greet_again(&mut other).resume, None);
}

#[test]
fn what_is_kept_of_a_delta_goes_when_another_way_is_taken() {
    for other in
        [welcome(2, 10, Way::Tail, 10), welcome(2, 10, Way::Delta, 25), welcome(2, 10, Way::Bulk, 25)]
    {
        let (mut replica, _) = interrupted();
        greet_again(&mut replica);
        replica.handle_message(Message::Welcome(Box::new(other)), NOW);
        let actions = drain(&mut replica);
        assert!(actions.contains(&Action::AbandonRefresh), "{actions:?}");
    }
}

#[test]
fn a_delta_goes_on_only_where_everything_that_was_read_is() {
    let (mut replica, _) = interrupted();
    greet_again(&mut replica);
    let behind = Welcome { resumes: true, ..welcome(2, 10, Way::Delta, 22) };
    replica.handle_message(Message::Welcome(Box::new(behind)), NOW);
    assert_eq!(bye(&drain(&mut replica)), ByeCode::Protocol);
}

#[test]
fn what_a_failure_may_have_taken_is_not_gone_on_from() {
    let (mut replica, _) = interrupted();
    let due = replica.poll_timeout().expect("another attempt");
    replica.handle_tick(due);
    replica.handle_connected(due);
    replica.handle_failure(local(10), "the disk is full", due);
    drain(&mut replica);
    assert_eq!(greet_again(&mut replica).resume, None);
}

#[test]
fn an_installation_outlives_its_session() {
    let mut replica = greeting(local(10), Options::default());
    drain(&mut replica);
    let message = Welcome { durable: Uid::new(20), ..welcome(1, 10, Way::Delta, 20) };
    replica.handle_message(Message::Welcome(Box::new(message)), NOW);
    drain(&mut replica);
    replica.handle_message(chunk(0, 20, vec![put(1, 15)], true), NOW);
    replica.handle_stored(1, NOW);
    assert!(drain(&mut replica).iter().any(|action| matches!(action, Action::Install(_))));
    replica.handle_disconnected("cut", NOW);
    assert_eq!(replica.poll_timeout(), None, "it waits for the engine only");
    replica.handle_installed(local(20), NOW);
    assert_eq!(replica.local().durable, Uid::new(20));
    assert!(replica.poll_timeout().is_some());
}

#[test]
fn a_round_that_cannot_go_on_begins_again_from_the_durable_position() {
    let mut replica = tailing(10);
    let again = Again { round: 1, reason: Reason::LogReleased };
    replica.handle_message(Message::Again(again), NOW);
    let next = hello(&drain(&mut replica));
    assert_eq!((next.round, next.durable), (2, Uid::new(10)));
    // What belongs to the round before is dropped.
    replica.handle_message(live(1, vec![commit(10, 11)], 11), NOW);
    assert_eq!(drain(&mut replica), []);
}

#[test]
fn a_hash_that_differs_at_the_fork_leads_to_run_files() {
    let mut replica = greeting(local(10), Options::default());
    drain(&mut replica);
    let message = Welcome { fork_hash: Some(HistoryHash(1)), ..welcome(1, 7, Way::Tail, 7) };
    replica.handle_message(Message::Welcome(Box::new(message)), NOW);
    assert_eq!(drain(&mut replica), [Action::ReadHash(Uid::new(7))]);
    replica.handle_hash(Uid::new(7), Some(HistoryHash(2)), NOW);
    assert_eq!(hello(&drain(&mut replica)).bulk, Some(Reason::HistoryHash));
}

#[test]
fn a_silent_primary_is_left_and_tried_again() {
    let mut replica = tailing(10);
    let timeout = NOW.plus(Options::default().session_timeout);
    replica.handle_tick(timeout);
    assert_eq!(bye(&drain(&mut replica)), ByeCode::Timeout);
    let next = replica.poll_timeout().unwrap();
    replica.handle_tick(next);
    assert_eq!(drain(&mut replica), [Action::Connect]);
}

#[test]
fn commits_of_no_epoch_are_refused() {
    let mut replica = greeting(Local::default(), Options::default());
    drain(&mut replica);
    let mut empty = welcome(1, 0, Way::Tail, 0);
    empty.history = History::default();
    empty.fork = History::default().position_of(Uid::ZERO);
    replica.handle_message(Message::Welcome(Box::new(empty)), NOW);
    drain(&mut replica);
    replica.handle_message(live(1, vec![commit(0, 1)], 1), NOW);
    let actions = drain(&mut replica);
    assert_eq!(bye(&actions), ByeCode::Protocol);
    assert!(!actions.iter().any(|action| matches!(action, Action::Append(_))));
}
