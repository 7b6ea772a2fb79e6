use planaria_types::{DatabaseId, Epoch, GroupId, History, HistoryEntry, HistoryHash, InstanceId, Uid};

use super::super::replica::{Identity, Replica};
use crate::secondary::{Action, Local};
use crate::{ByeCode, Live, Message, Millis, Options, PROTOCOL_VERSION, Reason, Way, Welcome};

const NOW: Millis = Millis(1_000);
const OWN: InstanceId = InstanceId(2);

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

fn replica(shown: u64, promised: u64) -> Replica {
    let identity =
        Identity { database: DatabaseId(1), group: GroupId(1), instance: OWN, name: "two".to_owned() };
    let uid = Uid::new(shown);
    let history = history(&[(1, 0)]);
    let local = Local { history, appended: uid, durable: uid, visible: uid, ..Local::default() };
    Replica::new(identity, Options::default(), epoch(promised), local, 1, NOW)
}

fn welcome(term: u64, fork: u64) -> Welcome {
    let history = if term == 1 { history(&[(1, 0)]) } else { history(&[(1, 0), (term, fork)]) };
    Welcome {
        version: PROTOCOL_VERSION,
        features: 0,
        round: 1,
        epoch: epoch(term),
        fork: history.position_of(Uid::new(fork)),
        history,
        fork_hash: None,
        way: Way::Tail,
        reason: Reason::LogHoldsAll,
        bytes: 0,
        live_from: Uid::new(fork),
        live_from_hash: None,
        tail: Uid::new(fork),
        durable: Uid::new(fork),
        fed: false,
        chain: vec![InstanceId(1)],
        resumes: false,
    }
}

fn drain(replica: &mut Replica) -> Vec<Action> {
    std::iter::from_fn(|| replica.poll_action()).collect()
}

fn connect(replica: &mut Replica) {
    replica.handle_tick(NOW);
    replica.handle_connected(NOW);
    drain(replica);
}

#[test]
fn a_copy_feeds_on_what_it_shows_of_the_epoch_that_it_promised_also_while_it_hears_nobody() {
    let feed = replica(10, 1).feed().expect("what it shows is of the epoch that it follows");
    assert_eq!((feed.epoch, feed.cut, feed.chain), (epoch(1), Uid::new(10), Vec::new()));
    assert_eq!(replica(0, 1).feed(), None, "it has nothing");
    assert_eq!(replica(10, 2).feed(), None, "what it shows may not be of the new epoch");
    let mut copy = replica(10, 1);
    connect(&mut copy);
    copy.handle_message(Message::Welcome(Box::new(welcome(1, 10))), NOW);
    drain(&mut copy);
    assert_eq!(copy.feed().map(|feed| feed.chain), Some(vec![InstanceId(1)]));
    copy.handle_disconnected("cut", NOW);
    drain(&mut copy);
    assert!(copy.feed().is_some(), "it holds what it holds");
}

#[test]
fn a_new_epoch_is_fed_on_once_it_is_promised_and_shares_all_that_is_shown() {
    let mut copy = replica(10, 1);
    connect(&mut copy);
    copy.handle_message(Message::Welcome(Box::new(welcome(2, 10))), NOW);
    assert_eq!(copy.feed(), None, "the promise is not durable yet");
    assert!(drain(&mut copy).contains(&Action::PersistEpoch(epoch(2))));
    assert_eq!(copy.feed().map(|feed| feed.epoch), Some(epoch(2)));
}

#[test]
fn what_is_beyond_the_fork_is_not_fed_on() {
    let mut copy = replica(10, 1);
    connect(&mut copy);
    copy.handle_message(Message::Welcome(Box::new(welcome(2, 7))), NOW);
    let actions = drain(&mut copy);
    let disturbs: Vec<_> = actions.iter().filter(|action| action.disturbs_feed()).collect();
    assert!(matches!(disturbs[..], [Action::TakeBack(fork, _)] if fork.uid == Uid::new(7)), "{actions:?}");
    assert_eq!(copy.feed().map(|feed| feed.cut), Some(Uid::new(7)));
    // Where it can only be repaired, nobody is fed until it is.
    let mut copy = replica(10, 1);
    copy.handle_floors(Uid::new(9), Uid::new(5));
    connect(&mut copy);
    copy.handle_message(Message::Welcome(Box::new(welcome(2, 7))), NOW);
    drain(&mut copy);
    assert_eq!(copy.feed(), None);
}

#[test]
fn what_is_logged_and_not_shown_is_not_fed_on() {
    let mut copy = replica(10, 1);
    connect(&mut copy);
    copy.handle_message(Message::Welcome(Box::new(welcome(1, 10))), NOW);
    drain(&mut copy);
    let commit = crate::Commit {
        uid: Uid::new(11),
        predecessor: Uid::new(10),
        hash: HistoryHash(1),
        bytes: bytes::Bytes::from_static(b"ops"),
    };
    let live = |commits: Vec<crate::Commit>, durable: u64| {
        let (durable, stable, closed) = (Uid::new(durable), Uid::new(4), Uid::new(durable));
        Message::Live(Live { round: 1, epoch: epoch(1), began: Vec::new(), commits, durable, stable, closed })
    };
    copy.handle_message(live(vec![commit], 10), NOW);
    drain(&mut copy);
    copy.handle_appended(Uid::new(11), NOW);
    copy.handle_durable(Uid::new(11), NOW);
    drain(&mut copy);
    let feed = copy.feed().unwrap();
    assert_eq!((feed.cut, feed.stable), (Uid::new(10), Uid::new(4)));
    copy.handle_message(live(Vec::new(), 11), NOW);
    drain(&mut copy);
    assert_eq!(copy.feed().map(|feed| feed.cut), Some(Uid::new(11)));
}

#[test]
fn a_copy_that_would_follow_itself_leaves_before_it_promises_anything() {
    let mut copy = replica(10, 1);
    connect(&mut copy);
    let chain = vec![InstanceId(7), OWN, InstanceId(1)];
    let message = Welcome { fed: true, chain, ..welcome(2, 10) };
    copy.handle_message(Message::Welcome(Box::new(message)), NOW);
    let actions = drain(&mut copy);
    let bye = actions.iter().find_map(|action| match action {
        Action::Send(Message::Bye(bye)) => Some(bye.code),
        _ => None,
    });
    assert_eq!(bye, Some(ByeCode::Loop));
    assert!(!actions.iter().any(|action| matches!(action, Action::PersistEpoch(_))));
    assert!(copy.status().last_end.is_some_and(|why| why.contains("follows this one")));
}
