//! Round trips between nodes: who measures whom, what came of it, and what the choice of a source is told.
//!
//! Sources are copies, so that nodes are measured which host one; by whom, follows from the rule: labels come first, so that each
//! node measures those that are nearest by them.

use planaria_net::wire::control::NAME_BYTES_MAX;
use planaria_net::wire::links::{LinkInfo, LinkPeer, LinkReport};
use planaria_replication::Millis;

use super::{Center, Now};
use crate::Result;
use crate::catalog::{Change, LinkRecord};

/// Nodes that one node measures, one after the other.
const MEASURED_MAX: usize = 64;
/// Nodes that one node is told to measure with one answer.
const AT_ONCE_MAX: usize = 4;
/// What a node that was told to measure may take to say what it found.
const ANSWERS_WITHIN: Millis = Millis(60_000);
/// Round trips that one answer holds, at most.
const LISTED_MAX: usize = 10_000;
/// The longest round trip that is believed, in microseconds.
const ROUND_TRIP_US_MAX: u64 = 60_000_000;

impl Center {
    /// The nodes that the one of that session is to measure now: few at a time, each again and again.
    pub fn to_measure(&mut self, now: Now, session: u64) -> Vec<LinkPeer> {
        let Some(name) = self.live.iter().find(|(_, node)| node.session == session).map(|(name, _)| name)
        else {
            return Vec::new();
        };
        let (name, labels) = (name.clone(), self.labels(name));
        let others = self
            .live
            .iter()
            .filter(|(other, node)| **other != name && !node.copies.is_empty() && self.is_heard(now, other));
        let mut nearest: Vec<_> =
            others.map(|(other, node)| (labels.distance(&self.labels(other)), other, node.address)).collect();
        nearest.sort_unstable();
        nearest.truncate(MEASURED_MAX);
        let told = self.live.get(&name).map(|node| &node.told_to_measure);
        let last = |other: &str| told.and_then(|told| told.get(other)).copied();
        let every = self.settings.measure_every_ms;
        let is_due = |other: &str| last(other).is_none_or(|last| now.at.since(last).0 >= every);
        let mut due: Vec<_> = nearest.iter().filter(|(_, other, _)| is_due(other)).collect();
        // The nearest first, but none that was not measured yet waits for one that was.
        due.sort_by_key(|(_, other, _)| last(other).map_or(0, |Millis(at)| at + 1));
        due.truncate(AT_ONCE_MAX);
        let peer =
            |(_, node, address): &&(_, &String, _)| LinkPeer { node: (*node).clone(), address: *address };
        let peers: Vec<LinkPeer> = due.iter().map(peer).collect();
        let kept: Vec<String> = nearest.into_iter().map(|(_, other, _)| other.clone()).collect();
        if let Some(node) = self.live.get_mut(&name) {
            // One that was lost meanwhile may be answered for yet.
            node.told_to_measure
                .retain(|other, told| kept.contains(other) || now.at.since(*told) < ANSWERS_WITHIN);
            node.told_to_measure.extend(peers.iter().map(|peer| (peer.node.clone(), now.at)));
        }
        peers
    }

    /// Takes in what a node has measured, of nodes that it was told to measure.
    pub(super) fn take_links(&mut self, now: Now, name: &str, links: &[LinkReport]) -> Result<()> {
        let Some(node) = self.live.get(name) else { return Ok(()) };
        let was_told = |link: &&LinkReport| node.told_to_measure.contains_key(&link.to);
        let record = |link: &LinkReport| {
            let what = link.what.get(..link.what.floor_char_boundary(NAME_BYTES_MAX)).unwrap_or_default();
            Change::Link(LinkRecord {
                from: name.to_owned(),
                to: link.to.clone(),
                round_trip_us: link.round_trip_us.map(|us| us.min(ROUND_TRIP_US_MAX)),
                what: what.to_owned(),
                measured_ms: now.wall_ms,
            })
        };
        let changes: Vec<Change> = links.iter().filter(was_told).map(record).collect();
        if changes.is_empty() { Ok(()) } else { self.note(changes) }
    }

    /// The round trip between two nodes: what the first has measured, or else the other one.
    pub(super) fn round_trip_us(&self, one: &str, other: &str) -> Option<u64> {
        let of = |from: &str, to: &str| self.contents.links.get(&(from.to_owned(), to.to_owned()));
        of(one, other).or_else(|| of(other, one)).and_then(|link| link.round_trip_us)
    }

    /// What was measured, by both nodes.
    pub fn links(&self) -> Vec<LinkInfo> {
        let info = |link: &LinkRecord| LinkInfo {
            from: link.from.clone(),
            to: link.to.clone(),
            distance: self.labels(&link.from).distance(&self.labels(&link.to)).to_string(),
            round_trip_us: link.round_trip_us,
            measured_ms: link.measured_ms,
            what: link.what.clone(),
        };
        self.contents.links.values().take(LISTED_MAX).map(info).collect()
    }
}
