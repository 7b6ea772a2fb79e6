//! Connections: lanes that are delivered in any order, cuts that one end notices later, links that are down.

use std::collections::VecDeque;

use planaria_replication::{Message, Reason, Way};

use crate::node::Process;
use crate::world::World;

/// A connection of a secondary to a primary.
#[derive(Default)]
pub(crate) struct Connection {
    pub(crate) secondary: usize,
    pub(crate) primary: usize,
    pub(crate) up: VecDeque<Message>,
    pub(crate) control: VecDeque<Message>,
    pub(crate) bulk: VecDeque<Message>,
    /// The ends that still believe in it.
    pub(crate) secondary_open: bool,
    pub(crate) primary_open: bool,
    /// Nothing comes through any more, whatever the ends believe.
    pub(crate) dead: bool,
}

impl World {
    /// Whether a secondary and a primary hear each other.
    pub(crate) fn reaches(&self, secondary: usize, primary: usize) -> bool {
        !(self.parted[secondary] || self.moves && self.parted[primary])
    }

    /// Whom a node follows, or would.
    pub(crate) fn primary_of(&self, node: usize) -> usize {
        match &self.nodes[node].process {
            Some(Process::Secondary(following)) => following.primary,
            _ => self.leader,
        }
    }

    /// A secondary tries to connect.
    pub(crate) fn connect(&mut self, node: usize) {
        let now = self.millis();
        let primary = self.primary_of(node);
        let leads = matches!(self.nodes[primary].process, Some(Process::Primary(_)));
        let reachable = leads && self.reaches(node, primary) && !self.is_paused(primary);
        let number = self.next_connection;
        if reachable {
            self.next_connection += 1;
            let link = Connection {
                secondary: node,
                primary,
                secondary_open: true,
                primary_open: true,
                ..Connection::default()
            };
            self.connections.insert(number, link);
            self.accept(number);
        }
        let Some(Process::Secondary(following)) = &mut self.nodes[node].process else { return };
        if reachable {
            following.connection = Some(number);
            following.machine.handle_connected(now);
            self.note(format_args!("node {node} connects as {number}"));
        } else {
            following.machine.handle_disconnected("nobody answers", now);
        }
    }

    /// Breaks a connection; its ends notice now or later.
    pub(crate) fn cut(&mut self, number: u64, tell_secondary: bool, tell_primary: bool) {
        let now = self.millis();
        let Some(link) = self.connections.get_mut(&number) else { return };
        link.dead = true;
        let secondary = link.secondary;
        let (tells_secondary, tells_primary) =
            (tell_secondary && link.secondary_open, tell_primary && link.primary_open);
        link.secondary_open &= !tell_secondary;
        link.primary_open &= !tell_primary;
        if tells_secondary
            && let Some(Process::Secondary(following)) = &mut self.nodes[secondary].process
            && following.connection == Some(number)
        {
            following.connection = None;
            following.machine.handle_disconnected("the connection is gone", now);
        }
        if tells_primary {
            self.session_lost(number);
        }
        self.note(format_args!("connection {number} is cut, told to {tell_secondary} {tell_primary}"));
    }

    /// All connections of a node that died.
    pub(crate) fn cut_all_of(&mut self, node: usize) {
        for link in self.connections.values_mut() {
            if link.primary == node || link.secondary == node {
                link.dead = true;
                link.primary_open &= link.primary != node;
                link.secondary_open &= link.secondary != node;
            }
        }
    }

    /// An end whose other end is gone notices, at some time.
    pub(crate) fn notice_dead(&mut self) {
        let one_sided = |link: &Connection| link.dead || !link.secondary_open || !link.primary_open;
        let silent = |link: &Connection| {
            link.dead || link.up.is_empty() && link.control.is_empty() && link.bulk.is_empty()
        };
        let dead: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, link)| one_sided(link) && silent(link))
            .map(|(number, _)| *number)
            .collect();
        if !dead.is_empty() {
            let number = dead[self.random.below(dead.len() as u64) as usize];
            self.cut(number, true, true);
            self.connections.remove(&number);
        }
    }

    /// One message of one lane of one connection arrives. Which node it came to.
    pub(crate) fn deliver(&mut self) -> Option<usize> {
        let numbers: Vec<u64> = self.connections.keys().copied().collect();
        if numbers.is_empty() {
            return None;
        }
        let number = numbers[self.random.below(numbers.len() as u64) as usize];
        let lane = self.random.below(3);
        let now = self.millis();
        let link = self.connections.get_mut(&number)?;
        let (node, primary) = (link.secondary, link.primary);
        let hears = if lane == 0 { primary } else { node };
        if link.dead || self.is_paused(hears) || !self.reaches(node, primary) {
            return None;
        }
        let blocked = lane > 0 && self.is_transferring(node);
        if blocked {
            return None;
        }
        let link = self.connections.get_mut(&number)?;
        let queue = match lane {
            0 => &mut link.up,
            1 => &mut link.control,
            _ => &mut link.bulk,
        };
        let message = queue.pop_front()?;
        let (secondary_open, primary_open) = (link.secondary_open, link.primary_open);
        self.note_message("hears", number, &message);
        if lane == 0 {
            if primary_open {
                self.primary_hears(number, message);
            }
            return Some(primary);
        }
        self.count(&message);
        if secondary_open
            && let Some(Process::Secondary(following)) = &mut self.nodes[node].process
            && following.connection == Some(number)
        {
            following.machine.handle_message(message, now);
        }
        Some(node)
    }

    fn is_transferring(&self, node: usize) -> bool {
        matches!(&self.nodes[node].process, Some(Process::Secondary(following)) if following.transfer.is_some())
    }

    fn count(&mut self, message: &Message) {
        match message {
            Message::Again(_) => self.coverage.again += 1,
            Message::Welcome(welcome) => {
                self.coverage.long_logs += u64::from(welcome.reason == Reason::LogIsLonger);
                match welcome.way {
                    Way::Tail => self.coverage.tails += 1,
                    Way::Delta => self.coverage.deltas += 1,
                    Way::PinnedDelta => self.coverage.hops += 1,
                    Way::Bulk => self.coverage.bulks += 1,
                    Way::Reconcile => self.coverage.reconciles += 1,
                    Way::PinnedReconcile => self.coverage.pinned_reconciles += 1,
                }
            }
            _ => {}
        }
    }

    /// Messages, shorter than they print themselves.
    pub(crate) fn note_message(&mut self, does: &str, number: u64, message: &Message) {
        match message {
            Message::Live(live) => self.note(format_args!(
                "connection {number} {does} live {:?} durable {} stable {}",
                live.commits, live.durable, live.stable
            )),
            Message::DeltaChunk(chunk) => self.note(format_args!(
                "connection {number} {does} chunk {} at {} of {} records, last {}",
                chunk.number,
                chunk.snapshot,
                chunk.records.len(),
                chunk.last
            )),
            Message::RangesReply(reply) => self.note(format_args!(
                "connection {number} {does} {} ranges at {} and up to {:?} with {} records",
                reply.done,
                reply.snapshot,
                reply.next,
                reply.records.len()
            )),
            other => self.note(format_args!("connection {number} {does} {other:?}")),
        }
    }
}
