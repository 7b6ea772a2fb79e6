use bytes::Bytes;
use planaria_types::{DatabaseId, Epoch, GroupId, History, HistoryEntry, HistoryHash, InstanceId, Uid};

use crate::ack::Level;
use crate::primary::{CommitsRead, Group, Identity, Session, SessionAction, SessionId, Survey};
use crate::{
    Ack, ByeCode, CHAIN_MAX, Commit, Feed, Hello, Message, Millis, Options, PROTOCOL_VERSION, Refusal, Way,
    Welcome,
};

const NOW: Millis = Millis(1_000);
const PRIMARY: InstanceId = InstanceId(1);
const MIDDLE: InstanceId = InstanceId(2);
const COPY: InstanceId = InstanceId(3);

fn epoch(term: u64) -> Epoch {
    Epoch { term, incarnation: 1, nonce: term }
}

fn history(entries: &[(u64, u64)]) -> History {
    let entry = |&(term, inherited): &(u64, u64)| HistoryEntry {
        epoch: epoch(term),
        inherited: Uid::new(inherited),
        hash: HistoryHash::default(),
    };
    History::from_entries(entries.iter().map(entry).collect()).unwrap()
}

fn feed(cut: u64) -> Feed {
    Feed {
        epoch: epoch(1),
        history: history(&[(1, 0)]),
        cut: Uid::new(cut),
        stable: Uid::new(3),
        closed: Uid::new(cut),
        chain: vec![PRIMARY],
    }
}

fn group(feed: Option<Feed>) -> Group {
    let identity = Identity { database: DatabaseId(1), group: GroupId(1), instance: MIDDLE };
    let mut group = Group::feeding(identity, Options::default());
    group.handle_feed(feed);
    group
}

fn hello(durable: u64) -> Hello {
    Hello {
        version_min: PROTOCOL_VERSION,
        version_max: PROTOCOL_VERSION,
        features: 0,
        database: DatabaseId(1),
        instance: COPY,
        name: "three".to_owned(),
        group: GroupId(1),
        round: 1,
        promised: epoch(1),
        history: history(&[(1, 0)]),
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

fn say(group: &mut Group, hello: Hello) -> (Session, Vec<Message>) {
    let mut session = Session::new(SessionId(1), Options::default(), NOW);
    session.handle_message(group, Message::Hello(Box::new(hello)), NOW);
    let survey = Survey {
        round: 1,
        retained: true,
        hash: None,
        mark_floor: Uid::ZERO,
        visible: group.appended(),
        visible_hash: None,
        tail_bytes: 0,
        delta_bytes: 0,
        total_bytes: 1,
    };
    session.handle_survey(group, &survey, NOW);
    let said = sent(&mut session, group);
    (session, said)
}

fn sent(session: &mut Session, group: &mut Group) -> Vec<Message> {
    let actions = std::iter::from_fn(|| session.poll_action(group));
    let message = |action| match action {
        SessionAction::Send(message) => Some(message),
        _ => None,
    };
    actions.filter_map(message).collect()
}

fn welcome(messages: &[Message]) -> &Welcome {
    let welcome = messages.iter().find_map(|message| match message {
        Message::Welcome(welcome) => Some(&**welcome),
        _ => None,
    });
    welcome.unwrap_or_else(|| panic!("{messages:?}"))
}

fn refusal(group: &mut Group, hello: Hello) -> Refusal {
    let (session, said) = say(group, hello);
    let [Message::Refused(refused)] = &said[..] else { panic!("{said:?}") };
    assert!(session.is_closed());
    refused.code
}

fn commit(predecessor: u64, uid: u64) -> Commit {
    let hash = HistoryHash(u128::from(uid));
    Commit { uid: Uid::new(uid), predecessor: Uid::new(predecessor), hash, bytes: Bytes::from_static(b"ops") }
}

#[test]
fn a_copy_is_fed_on_what_is_visible_and_on_nothing_beyond() {
    let group = &mut group(Some(feed(10)));
    let (mut session, said) = say(group, hello(10));
    let welcome = welcome(&said);
    assert_eq!((welcome.way, welcome.fed), (Way::Tail, true));
    assert_eq!((welcome.tail, welcome.durable), (Uid::new(10), Uid::new(10)));
    assert_eq!(welcome.chain, [MIDDLE, PRIMARY]);
    group.handle_feed(Some(feed(12)));
    sent(&mut session, group);
    // The log of the middle is further than what it shows.
    let read = CommitsRead::Commits(vec![commit(10, 11), commit(11, 12), commit(12, 13)]);
    session.handle_commits(group, 1, read, NOW);
    let said = sent(&mut session, group);
    let [Message::Live(live)] = &said[..] else { panic!("{said:?}") };
    assert_eq!(live.commits.last().map(|commit| commit.uid), Some(Uid::new(12)));
    assert_eq!((live.durable, live.stable, live.closed), (Uid::new(12), Uid::new(3), Uid::new(12)));
}

/// A former primary that is being refreshed follows the epoch of the next one and has nothing of it yet: a copy that has must not lose it to
/// that, for it may be acknowledged.
#[test]
fn a_copy_that_has_of_an_epoch_what_its_feeder_still_lacks_loses_nothing() {
    let refreshing = Feed { epoch: epoch(2), ..feed(10) };
    let group = &mut group(Some(refreshing.clone()));
    let has_more = Hello { promised: epoch(2), history: history(&[(1, 0), (2, 10)]), ..hello(12) };
    assert_eq!(refusal(group, has_more.clone()), Refusal::Behind);
    // One that has only heard of the epoch is fed, and so is one that has it once the feeder does.
    let (_, said) = say(group, Hello { durable: Uid::new(9), ..has_more.clone() });
    assert_eq!(welcome(&said).fork.uid, Uid::new(9));
    group.handle_feed(Some(Feed { history: history(&[(1, 0), (2, 10)]), cut: Uid::new(14), ..refreshing }));
    let (_, said) = say(group, has_more);
    assert_eq!(welcome(&said).fork.uid, Uid::new(12));
}

#[test]
fn who_is_fed_counts_for_nothing_and_deposes_nobody() {
    let group = &mut group(Some(feed(10)));
    let (mut session, _) = say(group, hello(10));
    let uid = Uid::new(10);
    let ack = Ack { round: 1, epoch: epoch(1), durable: uid, visible: uid, received_bytes: 0 };
    session.handle_message(group, Message::Ack(ack), NOW);
    group.handle_tick(Millis(2_000));
    assert!(group.members()[&COPY].online);
    assert!(group.promotable().is_empty());
    assert_eq!(group.poll_action(), None);
    assert_eq!(group.acknowledged(Level::One), None);
    assert_eq!(group.stable(), Uid::new(3));
    assert_eq!(refusal(group, Hello { promised: epoch(2), ..hello(10) }), Refusal::Behind);
    assert_eq!((group.deposed(), group.poll_action()), (None, None));
}

#[test]
fn what_the_copy_has_more_than_the_one_that_feeds_it_is_waited_for_and_not_taken_back() {
    let group = &mut group(Some(feed(10)));
    assert_eq!(refusal(group, hello(11)), Refusal::Behind);
    // It knows of an epoch that begins beyond the cut, and where it parted from that is beyond, too.
    let other = Hello { history: history(&[(1, 0), (2, 12)]), durable: Uid::new(15), ..hello(0) };
    assert_eq!(refusal(group, other), Refusal::Behind);
    group.handle_feed(Some(feed(11)));
    assert_eq!(welcome(&say(group, hello(11)).1).fork.uid, Uid::new(11));
    // Where histories part below the cut something is taken back, as everywhere.
    let history = history(&[(1, 0), (2, 7)]);
    let forked = Feed { epoch: epoch(2), history, ..feed(20) };
    group.handle_feed(Some(forked));
    assert_eq!(welcome(&say(group, hello(11)).1).fork.uid, Uid::new(7));
}

#[test]
fn what_is_read_after_the_feed_has_ended_is_not_sent() {
    let group = &mut group(Some(feed(10)));
    let (mut session, _) = say(group, hello(10));
    group.handle_feed(Some(feed(11)));
    sent(&mut session, group);
    // The middle takes back 11, and another 11 is in its log when the read ends.
    group.handle_feed(None);
    session.handle_commits(group, 1, CommitsRead::Commits(vec![commit(10, 11)]), NOW);
    let said = sent(&mut session, group);
    assert!(matches!(&said[..], [Message::Bye(bye)] if bye.code == ByeCode::Moved), "{said:?}");
    assert_eq!(refusal(group, hello(10)), Refusal::NotReady);
    assert!(group.members()[&COPY].session.is_none());
}

#[test]
fn sessions_end_when_the_feed_does_not_go_on_from_before() {
    let more = Feed { history: history(&[(1, 0), (2, 10)]), ..feed(10) };
    let changes = [
        (feed(12), true),
        (more, true),
        (feed(9), false),
        (Feed { epoch: epoch(2), ..feed(10) }, false),
        (Feed { chain: vec![InstanceId(9), PRIMARY], ..feed(10) }, false),
        (Feed { history: history(&[(2, 0)]), ..feed(10) }, false),
    ];
    for (next, goes_on) in changes {
        let group = &mut group(Some(feed(10)));
        let (mut session, _) = say(group, hello(8));
        group.handle_feed(Some(next.clone()));
        sent(&mut session, group);
        assert_eq!(!session.is_closed(), goes_on, "{next:?}");
    }
}

#[test]
fn a_loop_and_a_chain_without_end_are_refused() {
    let through = |chain: Vec<InstanceId>| group(Some(Feed { chain, ..feed(10) }));
    assert_eq!(refusal(&mut through(vec![COPY, PRIMARY]), hello(10)), Refusal::Loop);
    assert_eq!(refusal(&mut through(vec![PRIMARY, COPY]), hello(10)), Refusal::Loop);
    let long: Vec<_> = (10..10 + CHAIN_MAX as u128).map(InstanceId).collect();
    assert_eq!(refusal(&mut through(long.clone()), hello(10)), Refusal::TooDeep);
    let (_, said) = say(&mut through(long[1..].to_vec()), hello(10));
    assert_eq!(welcome(&said).chain.len(), CHAIN_MAX);
    assert!(said[0].validate().is_ok());
}
