//! Connections: delivery in any order of lanes, loss, cuts that only one end notices.

use planaria_replication::primary::{Session, SessionId};
use planaria_replication::{ByeCode, Message, Reason, Refusal, Way};
use std::collections::VecDeque;

use crate::swarm::Swarm;
use crate::world::{Connection, NODES, Role, World};

impl World {
    pub(crate) fn cut(&mut self, connection: u64, up: bool, down: bool) {
        let Some(ends) = self.connections.get_mut(&connection) else {
            return;
        };
        let (tell_secondary, tell_primary) = (up && ends.up_open, down && ends.down_open);
        let (secondary, primary) = (ends.secondary, ends.primary);
        if up {
            ends.up_open = false;
        }
        if down {
            ends.down_open = false;
        }
        let (now, primary_now) = (self.time(secondary), self.time(primary));
        if tell_secondary
            && let Role::Secondary { replica, connection: current, .. } = &mut self.nodes[secondary].role
            && *current == Some(connection)
        {
            *current = None;
            replica.handle_disconnected("cut", now);
        }
        if tell_primary && let Some((group, sessions)) = self.nodes[primary].role.serving() {
            if let Some(mut session) = sessions.remove(&connection) {
                session.handle_disconnected(group, primary_now);
            }
            self.nodes[primary].store.pins.remove(&connection);
        }
        self.note(&format!("connection {connection} is cut (secondary {up}, primary {down})"));
    }

    /// Ends that no longer exist are noticed by the others, at some time.
    pub(crate) fn drop_dead(&mut self) {
        let dead: Vec<u64> = self
            .connections
            .iter()
            .filter(|(_, ends)| {
                let silent = ends.up.is_empty() && ends.control.is_empty() && ends.bulk.is_empty();
                let hears =
                    self.hears(ends.primary, ends.secondary) && self.hears(ends.secondary, ends.primary);
                !(ends.up_open && ends.down_open) && hears && (silent || !ends.up_open && !ends.down_open)
            })
            .map(|(id, _)| *id)
            .collect();
        if dead.is_empty() {
            return;
        }
        let connection = dead[self.random.below(dead.len() as u64) as usize];
        self.cut(connection, true, true);
        self.connections.remove(&connection);
    }

    pub(crate) fn deliver(&mut self) {
        let ids: Vec<u64> = self.connections.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let connection = ids[self.random.below(ids.len() as u64) as usize];
        let lane = self.random.below(3);
        let lose = self.faults && self.random.one_in(25);
        let Some(ends) = self.connections.get(&connection) else {
            return;
        };
        let (from, to) =
            if lane == 0 { (ends.secondary, ends.primary) } else { (ends.primary, ends.secondary) };
        if !self.hears(to, from) || self.is_paused(to) {
            return;
        }
        let now = self.time(to);
        let Some(ends) = self.connections.get_mut(&connection) else {
            return;
        };
        let queue = [&mut ends.up, &mut ends.control, &mut ends.bulk].into_iter().nth(lane as usize);
        let Some(message) = queue.and_then(VecDeque::pop_front) else {
            return;
        };
        let carries = match &message {
            Message::Live(live) => !live.commits.is_empty(),
            other => matches!(other, Message::DeltaChunk(_) | Message::Parts(_) | Message::RangesReply(_)),
        };
        if lose && carries {
            ends.doomed = true;
            self.coverage.lost += 1;
            self.note(&format!("connection {connection} loses {message:?}"));
            return;
        }
        let (secondary, primary) = (ends.secondary, ends.primary);
        let (up_open, down_open) = (ends.up_open, ends.down_open);
        if let Message::Welcome(welcome) = &message {
            // Whoever feeds others may have come to follow another epoch since the connection was made.
            ends.epoch = welcome.epoch;
        }
        self.note(&format!("connection {connection} delivers {message:?}"));
        self.count(&message);
        if lane == 0 {
            if let Some((group, sessions)) = self.nodes[primary].role.serving()
                && let Some(session) = sessions.get_mut(&connection)
                && down_open
            {
                session.handle_message(group, message, now);
            }
        } else if let Role::Secondary { replica, connection: current, .. } = &mut self.nodes[secondary].role
            && *current == Some(connection)
            && up_open
        {
            replica.handle_message(message, now);
        }
    }

    /// Notes what was reached.
    fn count(&mut self, message: &Message) {
        match message {
            Message::Refused(refused) => {
                self.coverage.refused += 1;
                self.coverage.behind += u64::from(refused.code == Refusal::Behind);
                self.coverage.loops += u64::from(refused.code == Refusal::Loop);
            }
            Message::Bye(bye) => {
                self.coverage.moved += u64::from(bye.code == ByeCode::Moved);
                self.coverage.loops += u64::from(bye.code == ByeCode::Loop);
            }
            Message::Again(_) => self.coverage.again += 1,
            Message::Welcome(welcome) => {
                self.coverage.fed += u64::from(welcome.fed);
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

    pub(crate) fn tick(&mut self, node: usize) {
        let most = self.swarm.as_ref().map_or(40, Swarm::tick_ms_max);
        self.now += self.random.below(most);
        let now = self.time(node);
        match &mut self.nodes[node].role {
            Role::Primary { group, sessions } => {
                group.handle_tick(now);
                for session in sessions.values_mut() {
                    session.handle_tick(group, now);
                }
            }
            Role::Secondary { replica, group, sessions, .. } => {
                replica.handle_tick(now);
                for session in sessions.values_mut() {
                    session.handle_tick(group, now);
                }
            }
            Role::Down => {}
        }
    }

    /// The secondary that a copy follows now, in a world where they do. Once faults have ended the one with the higher number
    /// follows the other, unless that follows it.
    fn middle_for(&mut self, node: usize) -> Option<usize> {
        let faults = self.faults;
        let cascades = self.cascading.as_mut()?.one_in(2);
        let is_other = |other: &usize| *other != node && *other != self.leader;
        let other = (0..NODES).find(is_other).filter(|_| node != self.leader)?;
        let Role::Secondary { connection, .. } = &self.nodes[other].role else { return None };
        let source = connection.and_then(|number| self.connections.get(&number)).map(|ends| ends.primary);
        let settles = other < node && source != Some(node);
        (if faults { cascades } else { settles }).then_some(other)
    }

    pub(crate) fn connect(&mut self, node: usize) {
        let stray = self.faults && self.random.one_in(4);
        let target = if stray { self.random.below(NODES as u64) as usize } else { self.leader };
        let target = self.middle_for(node).unwrap_or(target);
        let (now, target_now) = (self.time(node), self.time(target));
        let answers = self.hears(target, node) && self.hears(node, target) && !self.is_paused(target);
        let (number, options) = (self.next_connection, self.options.clone());
        let leads = matches!(self.nodes[target].role, Role::Primary { .. });
        let serves = answers && (leads || (self.cascading.is_some() && target != node));
        let Some((group, sessions)) = self.nodes[target].role.serving().filter(|_| serves) else {
            if let Role::Secondary { replica, .. } = &mut self.nodes[node].role {
                replica.handle_disconnected("nobody leads there", now);
            }
            return;
        };
        self.next_connection += 1;
        let epoch = group.epoch();
        sessions.insert(number, Session::new(SessionId(number), options, target_now));
        let ends = Connection {
            secondary: node,
            primary: target,
            epoch,
            up_open: true,
            down_open: true,
            ..Connection::default()
        };
        self.connections.insert(number, ends);
        if let Role::Secondary { replica, connection, .. } = &mut self.nodes[node].role {
            *connection = Some(number);
            replica.handle_connected(now);
        }
        self.note(&format!("node {node} connects to {target} as {number}"));
    }
}
