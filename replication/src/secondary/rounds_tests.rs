use bytes::Bytes;
use planaria_types::{
    DatabaseId, Epoch, GroupId, History, HistoryEntry, HistoryHash, InstanceId, KeyRange, Portion, Uid,
};

use crate::message::FEATURE_PORTIONS;
use crate::secondary::{Action, Identity, Local, Replica, State};
use crate::{Ack, ByeCode, Commit, DeltaChunk, Hello, Live, Message, Millis, Options, Reason, Way, Welcome};

const NOW: Millis = Millis(1_000);

fn epoch() -> Epoch {
    Epoch { term: 1, incarnation: 1, nonce: 1 }
}

fn history() -> History {
    let entry = HistoryEntry { epoch: epoch(), inherited: Uid::ZERO, hash: HistoryHash::default() };
    History::from_entries(vec![entry]).unwrap()
}

fn local(end: u64) -> Local {
    let uid = Uid::new(end);
    let history = if end == 0 { History::default() } else { history() };
    Local { history, appended: uid, durable: uid, visible: uid, ..Local::default() }
}

fn portion() -> Portion {
    Portion::new([("a".to_owned(), KeyRange::ALL)]).unwrap()
}

fn drain(replica: &mut Replica) -> Vec<Action> {
    std::iter::from_fn(|| replica.poll_action()).collect()
}

fn sent(actions: &[Action]) -> Vec<Message> {
    let message = |action: &Action| match action {
        Action::Send(message) => Some(message.clone()),
        _ => None,
    };
    actions.iter().filter_map(message).collect()
}

fn hello(messages: &[Message]) -> Option<Hello> {
    messages.iter().find_map(|message| match message {
        Message::Hello(hello) => Some((**hello).clone()),
        _ => None,
    })
}

fn ack(messages: &[Message]) -> Option<Ack> {
    messages.iter().find_map(|message| match message {
        Message::Ack(ack) => Some(*ack),
        _ => None,
    })
}

fn welcome(round: u64, fork: u64, way: Way, live_from: u64) -> Welcome {
    Welcome {
        version: crate::PROTOCOL_VERSION,
        features: FEATURE_PORTIONS,
        round,
        epoch: epoch(),
        history: history(),
        fork: history().position_of(Uid::new(fork)),
        fork_hash: None,
        way,
        reason: Reason::Partial,
        bytes: 0,
        live_from: Uid::new(live_from),
        live_from_hash: None,
        tail: Uid::new(live_from),
        durable: Uid::new(live_from),
        fed: false,
        chain: Vec::new(),
        resumes: false,
    }
}

fn chunk(round: u64, snapshot: u64) -> Message {
    let (snapshot, snapshot_hash) = (Uid::new(snapshot), Some(HistoryHash(1)));
    Message::DeltaChunk(DeltaChunk {
        round,
        number: 0,
        snapshot,
        snapshot_hash,
        records: Vec::new(),
        last: true,
    })
}

fn news(round: u64, durable: u64, closed: u64) -> Message {
    let (durable, closed) = (Uid::new(durable), Uid::new(closed));
    let (began, commits) = (Vec::new(), Vec::new());
    Message::Live(Live { round, epoch: epoch(), began, commits, durable, stable: Uid::new(5), closed })
}

/// A partial copy that has said hello.
fn greeting(end: u64, holds_it: bool) -> (Replica, Hello) {
    let identity = Identity {
        database: DatabaseId(1),
        group: GroupId(1),
        instance: InstanceId(2),
        name: "two".to_owned(),
    };
    let replica = Replica::new(identity, Options::default(), epoch(), local(end), 7, NOW);
    let mut replica = replica.holding(portion(), holds_it);
    replica.handle_tick(NOW);
    drain(&mut replica);
    replica.handle_connected(NOW);
    let hello = hello(&sent(&drain(&mut replica))).expect("a hello");
    (replica, hello)
}

/// Takes the copy through a round that leads from one position to another.
fn take_round(replica: &mut Replica, round: u64, from: u64, to: u64, now: Millis) -> Vec<Message> {
    let message = welcome(round, from, Way::PinnedDelta, to);
    replica.handle_message(Message::Welcome(Box::new(message)), now);
    drain(replica);
    replica.handle_message(chunk(round, to), now);
    drain(replica);
    replica.handle_stored(round, now);
    let actions = drain(replica);
    let install = actions.iter().find_map(|action| match action {
        Action::Install(install) => Some(install.clone()),
        _ => None,
    });
    let install = install.unwrap_or_else(|| panic!("nothing is installed: {actions:?}"));
    assert_eq!((install.base, install.cut), (Uid::new(to), Uid::new(to)));
    replica.handle_installed(local(to), now);
    sent(&drain(replica))
}

#[test]
fn a_partial_copy_says_what_it_is_to_hold_and_takes_a_round() {
    let (mut replica, hello) = greeting(0, false);
    assert_eq!(hello.portion, Some(portion()));
    assert_eq!((hello.without_live, hello.features, hello.bulk), (true, FEATURE_PORTIONS, None));
    assert!(Message::Hello(Box::new(hello.clone())).validate().is_ok());
    let without_feature = Hello { features: 0, ..hello };
    assert!(Message::Hello(Box::new(without_feature)).validate().is_err());
    let messages = take_round(&mut replica, 1, 0, 20, NOW);
    let ack = ack(&messages).expect("the round is told to be over");
    assert_eq!((ack.durable, ack.visible), (Uid::new(20), Uid::new(20)));
    assert_eq!(replica.status().state, State::Online);
    assert!(!messages.iter().any(|message| matches!(message, Message::Hello(_))));
}

#[test]
fn a_round_begins_when_there_is_something_new_and_not_too_fast() {
    let (mut replica, _) = greeting(10, true);
    assert!(hello(&take_round(&mut replica, 1, 10, 20, NOW)).is_none());
    for closed in [30, 40] {
        replica.handle_message(news(1, 20, closed), NOW.plus(Millis(5_000)));
        assert_eq!(sent(&drain(&mut replica)), [], "nothing is new");
        assert_eq!(replica.status().closed, Uid::new(closed));
    }
    let later = NOW.plus(Millis(5_000));
    replica.handle_message(news(1, 21, 40), later);
    let hello_2 = hello(&sent(&drain(&mut replica))).expect("what is new is fetched at once");
    assert_eq!((hello_2.round, hello_2.durable), (2, Uid::new(20)));
    assert_eq!(replica.status().state, State::Online, "it keeps up");
    assert!(hello(&take_round(&mut replica, 2, 20, 21, later)).is_none());
    assert_eq!(replica.status().closed, Uid::new(40), "what was closed stays closed");
    replica.handle_message(news(2, 22, 40), later);
    assert_eq!(sent(&drain(&mut replica)), [], "the last round has only begun");
    let apart = Options::default().rounds_apart;
    assert_eq!(replica.next_round(), Some(later.plus(apart)));
    assert!(replica.poll_timeout() <= Some(later.plus(apart)));
    replica.handle_tick(later.plus(Millis(apart.0 - 1)));
    assert!(hello(&sent(&drain(&mut replica))).is_none());
    replica.handle_tick(later.plus(apart));
    assert_eq!(hello(&sent(&drain(&mut replica))).expect("a round").round, 3);
}

#[test]
fn a_copy_that_comes_back_to_where_it_was_installs_nothing() {
    let (mut replica, hello) = greeting(10, true);
    assert_eq!(hello.bulk, None);
    let message = welcome(1, 10, Way::PinnedDelta, 10);
    replica.handle_message(Message::Welcome(Box::new(message)), NOW);
    let actions = drain(&mut replica);
    assert!(matches!(&sent(&actions)[..], [Message::Ack(ack)] if ack.visible == Uid::new(10)), "{actions:?}");
    assert!(!actions.iter().any(|action| matches!(action, Action::BeginRefresh { .. })));
    assert_eq!(replica.status().state, State::Online);
}

#[test]
fn a_copy_that_holds_another_portion_takes_nothing_but_a_comparison() {
    let (mut replica, hello) = greeting(10, false);
    assert_eq!(hello.bulk, Some(Reason::PortionChanged));
    let message = welcome(1, 10, Way::PinnedDelta, 20);
    replica.handle_message(Message::Welcome(Box::new(message)), NOW);
    let messages = sent(&drain(&mut replica));
    assert!(matches!(&messages[..], [Message::Bye(bye)] if bye.code == ByeCode::Protocol), "{messages:?}");
    let (mut replica, _) = greeting(10, false);
    let message = welcome(1, 10, Way::PinnedReconcile, 20);
    replica.handle_message(Message::Welcome(Box::new(message)), NOW);
    let messages = sent(&drain(&mut replica));
    assert!(messages.iter().any(|message| matches!(message, Message::Compare(_))), "{messages:?}");
    assert_eq!(replica.status().state, State::Refreshing);
}

#[test]
fn a_partial_copy_is_served_by_rounds_or_not_at_all() {
    let refuses = |message: Welcome| {
        let (mut replica, _) = greeting(10, true);
        replica.handle_message(Message::Welcome(Box::new(message)), NOW);
        let messages = sent(&drain(&mut replica));
        assert!(
            matches!(&messages[..], [Message::Bye(bye)] if bye.code == ByeCode::Protocol),
            "{messages:?}"
        );
    };
    for way in [Way::Tail, Way::Delta, Way::Bulk, Way::Reconcile] {
        refuses(welcome(1, 10, way, 10));
    }
    refuses(Welcome { features: 0, ..welcome(1, 10, Way::PinnedDelta, 20) });
}

#[test]
fn commits_end_the_session_of_a_copy_that_rests() {
    let (mut replica, _) = greeting(10, true);
    take_round(&mut replica, 1, 10, 20, NOW);
    let commit = Commit {
        uid: Uid::new(21),
        predecessor: Uid::new(20),
        hash: HistoryHash(2),
        bytes: Bytes::from_static(b"ops"),
    };
    let Message::Live(live) = news(1, 20, 0) else { unreachable!("news are live messages") };
    replica.handle_message(Message::Live(Live { commits: vec![commit], ..live }), NOW);
    let messages = sent(&drain(&mut replica));
    assert!(matches!(&messages[..], [Message::Bye(bye)] if bye.code == ByeCode::Protocol), "{messages:?}");
}

#[test]
fn a_break_between_rounds_and_within_one_is_followed_by_a_round() {
    let (mut replica, _) = greeting(10, true);
    take_round(&mut replica, 1, 10, 20, NOW);
    replica.handle_disconnected("it broke", NOW);
    drain(&mut replica);
    assert_eq!(replica.status().state, State::Offline);
    assert_eq!(replica.next_round(), None);
    let later = NOW.plus(Millis(60_000));
    replica.handle_tick(later);
    drain(&mut replica);
    replica.handle_connected(later);
    let hello_2 = hello(&sent(&drain(&mut replica))).expect("a hello");
    assert_eq!((hello_2.round, hello_2.durable), (2, Uid::new(20)));
    replica.handle_message(Message::Welcome(Box::new(welcome(2, 20, Way::PinnedDelta, 30))), later);
    drain(&mut replica);
    replica.handle_disconnected("it broke again", later);
    let actions = drain(&mut replica);
    assert!(actions.contains(&Action::AbandonRefresh), "{actions:?}");
    assert_eq!(replica.status().visible, Uid::new(20));
}
