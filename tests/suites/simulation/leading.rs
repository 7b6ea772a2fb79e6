//! The primary's process: sessions with secondaries, sources of clones, and what the group wants.

use std::collections::BTreeMap;

use planaria_engine::{Database, FilePin, GivenUp, Lead, Registration};
use planaria_net::replica::executor::{self, Kept, Outcome, Registrar, SessionReads};
use planaria_replication::ack::Level;
use planaria_replication::primary::{Group, GroupAction, Session, SessionAction, SessionId};
use planaria_replication::{Lane, Message, Millis};
use planaria_types::{InstanceId, Uid};

use crate::leads::address_of;
use crate::node::Process;
use crate::world::{Checked, World};

pub(crate) struct Leading {
    pub(crate) db: Database,
    pub(crate) group: Group,
    /// What was written down of the lead last.
    lead: Lead,
    registrar: Registrar,
    pub(crate) sessions: BTreeMap<u64, Serving>,
    /// The files that are pinned for a clone, by its connection.
    pub(crate) pins: BTreeMap<u64, FilePin>,
    /// Commits whose writers wait for other copies.
    pub(crate) waiting: Vec<Waiting>,
    /// It takes no commits until its successor is promoted, or was not.
    pub(crate) handed_over: bool,
    /// Secondaries that nothing is preserved for any more.
    given_up: BTreeMap<InstanceId, GivenUp>,
}

/// A writer who waits for a level.
#[derive(Clone, Copy)]
pub(crate) struct Waiting {
    pub(crate) uid: Uid,
    pub(crate) level: Level,
    /// The number of the batch.
    pub(crate) number: u64,
}

/// A session with one secondary.
pub(crate) struct Serving {
    machine: Session,
    reads: SessionReads,
}

impl Leading {
    pub(crate) fn new(db: Database, (group, lead): (Group, Lead)) -> Result<Self, String> {
        let known = db.registrations().map_err(|error| error.to_string())?;
        let given_up =
            known.into_iter().filter_map(|known| Some((known.instance, known.given_up?))).collect();
        Ok(Self {
            given_up,
            lead,
            registrar: Registrar::new(db.clone()),
            db,
            group,
            sessions: BTreeMap::new(),
            pins: BTreeMap::new(),
            waiting: Vec::new(),
            handed_over: false,
        })
    }

    /// What a driver does after every input.
    pub(crate) fn after_input(&mut self, now: Millis) -> Result<(), String> {
        let mut outcome = Ok(());
        while let Some(action) = self.group.poll_action() {
            match action {
                GroupAction::PersistPromotable(sets) => {
                    match executor::persist_sets(&self.db, &mut self.lead, &sets) {
                        Ok(uid) => {
                            self.group.handle_appended(self.db.log_end().0);
                            self.group.handle_durable(self.db.durable());
                            self.group.handle_promotable(&sets, uid);
                        }
                        Err(error) => {
                            self.group.handle_promotable_failed();
                            outcome = Err(error.to_string());
                        }
                    }
                }
                GroupAction::Deposed(epoch) => {
                    if let Err(error) = self.db.promise(epoch) {
                        outcome = Err(error.to_string());
                    }
                }
                GroupAction::LetGo(instance) => match self.registrar.forget(instance) {
                    Ok(()) => self.group.handle_let_go(instance),
                    Err(error) => {
                        self.group.handle_let_go_failed(instance, now);
                        outcome = Err(error.to_string());
                    }
                },
                GroupAction::BeginAbove(other) => {
                    let begun = executor::begin_above(&self.db, &mut self.group, other);
                    let told = begun.and_then(|()| executor::tell_epoch(&self.db, &mut self.lead));
                    if let Err(error) = told {
                        outcome = Err(error.to_string());
                    }
                }
            }
        }
        if let Err(error) = self.keep_to_caps(now) {
            outcome = Err(error);
        }
        Kept::of(&self.group, |instance| self.given_up.contains_key(&instance)).tell(&self.db);
        outcome
    }

    /// What a node does once a second: what exceeds the caps is preserved no longer, durably.
    fn keep_to_caps(&mut self, now: Millis) -> Result<(), String> {
        for (instance, member) in self.group.members() {
            let given_up = if member.online {
                None
            } else if let Some(given_up) = self.db.exceeds_cap(member.durable)
                && member.session.is_none()
            {
                Some(given_up)
            } else {
                continue;
            };
            if self.given_up.contains_key(instance) == given_up.is_some() {
                continue;
            }
            let registered = self.db.registrations().map_err(|error| error.to_string())?;
            let address = registered.iter().find(|known| known.instance == *instance);
            let address = address.and_then(|known| known.address);
            let known = Registration::new(*instance, member.name.clone(), member.durable);
            let known = Registration { given_up, address, ..known };
            self.registrar.persist(&[known], now).map_err(|error| error.to_string())?;
            match given_up {
                Some(given_up) => self.given_up.insert(*instance, given_up),
                None => self.given_up.remove(instance),
            };
        }
        Ok(())
    }
}

impl World {
    /// What an operator does in the end: copies that run files took the place of never come back, and are forgotten.
    pub(crate) fn forget_the_gone(&mut self) -> Checked {
        let there: Vec<_> = self.nodes.iter().filter_map(|node| Some(node.database()?.instance())).collect();
        if there.len() < self.nodes.len() {
            return Ok(());
        }
        let leader = self.leader;
        let Some(leading) = self.leading(leader) else { return Ok(()) };
        let is_gone = |instance: &&InstanceId| !there.contains(instance);
        if leading.db.is_gated() {
            return Ok(());
        }
        let gone: Vec<_> = leading.group.members().keys().filter(is_gone).copied().collect();
        for instance in gone {
            leading.db.forget(instance).map_err(|error| error.to_string())?;
            leading.group.forget(instance);
        }
        Ok(())
    }

    pub(crate) fn leading(&mut self, node: usize) -> Option<&mut Leading> {
        match self.nodes[node].process.as_mut()? {
            Process::Primary(leading) => Some(leading),
            Process::Secondary(_) => None,
        }
    }

    /// The primary's end of a connection.
    fn serving_end(&mut self, number: u64) -> Option<&mut Leading> {
        let node = self.connections.get(&number)?.primary;
        self.leading(node)
    }

    /// A secondary has connected.
    pub(crate) fn accept(&mut self, number: u64) {
        let (now, options) = (self.millis(), self.protocol.clone());
        if let Some(leading) = self.serving_end(number) {
            let machine = Session::new(SessionId(number), options, now);
            let reads = SessionReads::new(leading.db.clone());
            leading.sessions.insert(number, Serving { machine, reads });
        }
    }

    /// The primary's end of a connection learns that it is gone.
    pub(crate) fn session_lost(&mut self, number: u64) {
        let now = self.millis();
        if let Some(leading) = self.serving_end(number) {
            leading.pins.remove(&number);
            if let Some(mut serving) = leading.sessions.remove(&number) {
                serving.machine.handle_disconnected(&mut leading.group, now);
            }
            // A group that cannot write is asked again.
            let _ = leading.after_input(now);
        }
    }

    /// A message came to the primary.
    pub(crate) fn primary_hears(&mut self, number: u64, message: Message) {
        let now = self.millis();
        if let Some(leading) = self.serving_end(number)
            && let Some(serving) = leading.sessions.get_mut(&number)
        {
            let closed = leading.db.visible();
            executor::tell_news(&leading.db, &mut leading.group, closed, now);
            serving.machine.handle_message(&mut leading.group, message, now);
        }
    }

    pub(crate) fn tick_primary(&mut self, node: usize) {
        let now = self.millis();
        if let Some(leading) = self.leading(node) {
            let closed = leading.db.visible();
            executor::tell_news(&leading.db, &mut leading.group, closed, now);
            for serving in leading.sessions.values_mut() {
                serving.machine.handle_tick(&mut leading.group, now);
            }
        }
    }

    /// One action of one session.
    pub(crate) fn act_primary(&mut self, node: usize) {
        let now = self.millis();
        let choice = self.random.number();
        let Some(leading) = self.leading(node) else { return };
        let closed = leading.db.visible();
        executor::tell_news(&leading.db, &mut leading.group, closed, now);
        let numbers: Vec<u64> = leading.sessions.keys().copied().collect();
        if !numbers.is_empty() {
            let number = numbers[choice as usize % numbers.len()];
            self.act_session(node, number, now);
        }
        if let Some(leading) = self.leading(node)
            && let Err(error) = leading.after_input(now)
        {
            self.failed_action(node, &error);
        }
    }

    fn act_session(&mut self, node: usize, number: u64, now: Millis) {
        let secondary = self.connections.get(&number).map(|link| link.secondary);
        let address = secondary.filter(|_| self.moves).map(address_of);
        let Some(leading) = self.leading(node) else { return };
        let Some(serving) = leading.sessions.get_mut(&number) else { return };
        let group = &mut leading.group;
        let outcome = serving.reads.retry().and_then(|answers| {
            for answer in answers {
                answer.tell(&mut serving.machine, group, now);
            }
            let action = serving.machine.poll_action(group);
            action.map(|action| serving.reads.perform(action)).transpose()
        });
        match outcome {
            Ok(None | Some(Outcome::Done | Outcome::Early)) => {}
            Ok(Some(Outcome::Answered(answer))) => answer.tell(&mut serving.machine, group, now),
            Ok(Some(Outcome::Driver(SessionAction::Register { instance, name, durable }))) => {
                let given_up = leading.given_up.get(&instance).copied();
                let known = Registration::new(instance, name, durable);
                let registration = Registration { given_up, address, ..known };
                if let Err(error) = leading.registrar.register(&registration, now) {
                    self.session_failed(node, number, &error.to_string());
                }
            }
            Ok(Some(Outcome::Driver(SessionAction::Send(message)))) => {
                self.note_message("says", number, &message);
                if let Some(link) = self.connections.get_mut(&number) {
                    match message.lane() {
                        Lane::Control => link.control.push_back(message),
                        Lane::Bulk => link.bulk.push_back(message),
                    }
                }
            }
            Ok(Some(Outcome::Driver(_))) => {
                leading.sessions.remove(&number);
                if let Some(link) = self.connections.get_mut(&number) {
                    link.primary_open = false;
                }
            }
            Err(error) => self.session_failed(node, number, &error.to_string()),
        }
    }

    /// The engine could not carry out what a session asked: its connection ends.
    fn session_failed(&mut self, node: usize, number: u64, error: &str) {
        self.failed_action(node, error);
        self.session_lost(number);
        if let Some(link) = self.connections.get_mut(&number) {
            link.primary_open = false;
        }
    }

    /// What the writers who wait at a primary would be told now.
    pub(crate) fn acknowledge(&mut self, node: usize) -> Checked {
        let now = self.millis();
        let Some(leading) = self.leading(node) else { return Ok(()) };
        if leading.waiting.is_empty() {
            return Ok(());
        }
        let closed = leading.db.visible();
        executor::tell_news(&leading.db, &mut leading.group, closed, now);
        if leading.group.deposed().is_some() {
            // They are told that it is not known, and may come again.
            leading.waiting.clear();
            return Ok(());
        }
        let group = &leading.group;
        let has = |waiting: &Waiting| {
            group.acknowledged(waiting.level).is_some_and(|acknowledged| acknowledged >= waiting.uid)
        };
        let (done, waiting) = leading.waiting.iter().partition(|waiting| has(waiting));
        leading.waiting = waiting;
        let done: Vec<Waiting> = done;
        let Some(last) = done.iter().map(|waiting| waiting.uid).max() else { return Ok(()) };
        let promotable = leading.group.promotable().clone();
        let history = leading.db.history();
        self.coverage.acknowledged += done.len() as u64;
        self.oracle.acknowledged(node, last);
        // A majority of one copy protects nothing.
        let is_protected = |waiting: &Waiting| waiting.level.copies_of(promotable.len() + 1) > 1;
        let done: Vec<Waiting> = done.into_iter().filter(is_protected).collect();
        let Some(last) = done.iter().map(|waiting| waiting.uid).max() else { return Ok(()) };
        let position = history.position_of(last);
        let moves = self.moves;
        // One that has taken a copy's place counts for it until the set names it.
        let counts = |db: &Database| {
            let former = db.former_instances().unwrap_or_default();
            std::iter::once(db.instance()).chain(former).any(|instance| promotable.contains(&instance))
        };
        let holds = |other: &usize| {
            let node = &self.nodes[*other];
            let (buried, of) = &node.buried;
            *buried >= last && of.position_of(last) == position
                || node.database().map_or(node.acknowledged.max(node.greeted) >= last, |db| {
                    (moves || counts(db))
                        && db.durable() >= last
                        && db.history().position_of(last) == position
                })
        };
        if !(0..self.nodes.len()).filter(|other| *other != node).any(|other| holds(&other)) {
            return Err(format!(
                "R7: {last} is acknowledged at a protected level, and no other node holds it"
            ));
        }
        if moves { self.note_protected(node, &done) } else { Ok(()) }
    }
}
