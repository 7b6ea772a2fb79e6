//! Worlds in which the lead changes hands: who is promoted, who follows whom, and primaries that were replaced.

use std::net::SocketAddr;

use planaria_engine::{Database, Role};
use planaria_net::replica::executor;
use planaria_net::replica::executor::promotion::{
    self, Asked, Contender, Standing, Terms, asked_to_promise, newest_of,
};
use planaria_net::wire::message::{Promised, PromotionWish, RemoteError};
use planaria_replication::Options;
use planaria_replication::ack::Level;
use planaria_replication::secondary::State;
use planaria_types::{Epoch, EpochOrder, Uid};

use crate::node::{Following, Process};
use crate::world::{Checked, NODES, World};

/// Rounds after which somebody leads whatever it costs, once faults have ended: nobody may be able to without.
const FORCED_AFTER: u64 = 12_000;
/// Steps from the end of one storm to the end of the next, and how many of them are calm.
const CYCLE_STEPS: u64 = 1_000;
const CALM_STEPS: u64 = 600;
/// Steps within which a secondary has to reach the end of a primary that hands its lead over.
const HAND_OVER_STEPS: u64 = 300;
/// Steps of others while a successor is late, and of how many one is a write.
const LATE_STEPS: u32 = 200;
const LATE_WRITE_EVERY: u32 = 40;

/// Where a node listens.
pub(crate) fn address_of(node: usize) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 4_000 + node as u16))
}

fn node_of(address: SocketAddr) -> usize {
    usize::from(address.port()).saturating_sub(4_000).min(NODES - 1)
}

fn remote(error: &planaria_engine::Error) -> RemoteError {
    RemoteError::new(error.code(), error.to_string())
}

fn unreachable() -> RemoteError {
    RemoteError::new("timed_out", "no answer in time")
}

impl World {
    pub(crate) fn terms_of_lead(&self, node: usize) -> executor::Leading {
        if !self.moves {
            return executor::Leading::default();
        }
        executor::Leading {
            name: format!("node {node}"),
            address: Some(address_of(node)),
            level: Some(Level::Quorum),
        }
    }

    /// Whether a node that starts leads: it did before, and neither knows nor is told that it was replaced.
    pub(crate) fn leads_again(&mut self, node: usize, db: &Database) -> bool {
        if !self.moves {
            return node == self.leader;
        }
        if db.id() != self.database || db.role() != Role::Primary || db.deposed().is_some() {
            return false;
        }
        let stray = node != self.leader;
        let leads = !stray || !self.oracle.leads(node) || self.random.once_in(2);
        self.moved.stray_starts += u64::from(stray && leads);
        leads
    }

    /// A node that was started follows; what it had to keep as a primary must be there.
    pub(crate) fn began_to_follow(&mut self, node: usize, db: Database) -> Checked {
        self.oracle.restart(node, &db)?;
        self.led_before(node, &db);
        self.became_secondary(node, db, self.leader)
    }

    fn led_before(&mut self, node: usize, db: &Database) {
        if self.oracle.leads(node) {
            self.moved.rejoined += 1;
            // Commits of its last moments.
            let absorbed = self.absorb(node, db);
            self.blame(absorbed);
            self.oracle.note_durable(db.history().position_of(db.durable()));
            self.oracle.ended(node);
        }
    }

    /// What may be lost for good: a secondary's disk, once.
    pub(crate) fn may_be_wiped(&self, node: usize) -> bool {
        node != self.leader && !(self.moves && (self.is_primary(node) || self.coverage.wiped > 0))
    }

    /// Another copy is in the place of the one that acknowledged.
    pub(crate) fn copy_was_replaced(&mut self, node: usize) {
        if self.moves {
            (self.nodes[node].acknowledged, self.nodes[node].greeted) = (Uid::ZERO, Uid::ZERO);
        }
    }

    fn is_undeposed(&self, node: usize) -> bool {
        let leads = |process: &Process| matches!(process, Process::Primary(leading) if leading.db.deposed().is_none());
        self.nodes[node].process.as_ref().is_some_and(leads)
    }

    fn hear_each_other(&self, one: usize, other: usize) -> bool {
        let there =
            |node: usize| self.nodes[node].process.is_some() && !self.parted[node] && !self.is_paused(node);
        one != other && there(one) && there(other)
    }

    /// What goes wrong with the lead, and what people and the control center do about it.
    pub(crate) fn move_lead(&mut self, node: usize) -> Checked {
        match self.random.below(14) {
            0..6 => {
                let node = self.next_leader(node);
                let heard = self.is_undeposed(self.leader) && self.hear_each_other(node, self.leader);
                let terms = if heard { Terms::Wish(PromotionWish::default()) } else { Terms::WithoutLoss };
                self.promote(node, terms);
            }
            6..8 => {
                self.moved.pauses += 1;
                let steps = 50 << self.random.below(7);
                self.nodes[node].paused_until = self.coverage.steps + steps;
                self.note(format_args!("node {node} stands still for {steps} steps"));
            }
            8..11 => {
                // Links are mended before anybody looks after the nodes.
                self.parted = [false; NODES];
                self.rejoin(node);
            }
            11 => self.herald(),
            12 => self.reopen(node),
            _ => {
                self.parted[node] = true;
                self.coverage.partitions += 1;
                self.note(format_args!("node {node} parted"));
            }
        }
        std::mem::replace(&mut self.broken, Ok(()))
    }

    /// Once faults have ended: somebody leads, and all others follow it.
    pub(crate) fn settle_lead(&mut self, round: u64) -> Checked {
        for node in 0..NODES {
            self.reopen(node);
        }
        self.herald();
        self.see_who_leads()?;
        if !self.is_undeposed(self.leader) {
            let force = round >= FORCED_AFTER;
            for node in 0..NODES {
                let terms = if force {
                    Terms::Wish(PromotionWish { force, accepts_loss: true, looks_only: false })
                } else {
                    Terms::WithoutLoss
                };
                let holds = self.nodes[node].database().is_some_and(|db| self.holds_protected(db).is_ok());
                if !self.is_undeposed(self.leader) && (!force || holds) {
                    self.promote(node, terms);
                }
            }
        }
        for node in 0..NODES {
            self.rejoin(node);
        }
        self.end_conflict()?;
        std::mem::replace(&mut self.broken, Ok(()))
    }

    /// A promotion may be durable on a node that died before it could tell: once that leads again and the one before has heard
    /// of it, it is the one that leads. One that leads under an older epoch than another one did is started anew and has heard nothing yet.
    fn see_who_leads(&mut self) -> Checked {
        if self.is_undeposed(self.leader) {
            return Ok(());
        }
        let epoch = |node: &usize| self.nodes[*node].database().map(Database::epoch);
        let is_over = |node: &usize| {
            epoch(node).is_some_and(|epoch| epoch.order(&self.newest_led) == EpochOrder::Older)
        };
        let leads = (0..NODES).filter(|node| self.is_undeposed(*node) && !is_over(node));
        let newest = leads.max_by_key(|node| epoch(node).map(|epoch| (epoch.term, epoch.incarnation)));
        if let Some(node) = newest
            && let Some(db) = self.nodes[node].database().cloned()
        {
            self.holds_protected(&db).map_err(|what| format!("R7: node {node} is found to lead: {what}"))?;
            self.leader = node;
            self.note(format_args!("node {node} is found to lead"));
        }
        Ok(())
    }

    /// Where two have led under one number, an operator starts the primary anew, which has a newer one then. One that was
    /// promised and never began the primary goes above by itself.
    fn end_conflict(&mut self) -> Checked {
        let leader = self.leader;
        let Some(epoch) = self.nodes[leader].database().map(Database::epoch) else { return Ok(()) };
        let conflicts = |node: &crate::node::Node| {
            node.database().is_some_and(|db| {
                let newest = newest_of(db);
                newest.order(&epoch) == EpochOrder::Conflict && db.position().epoch == newest
            })
        };
        if !self.is_undeposed(leader) || !self.nodes.iter().any(conflicts) {
            return Ok(());
        }
        self.note(format_args!("an operator starts node {leader} anew"));
        self.stop(leader);
        self.start(leader)
    }

    /// Faults come in storms, so that copies are promotable when one begins. Whether something went wrong in this step.
    pub(crate) fn weather(&mut self, node: usize) -> Result<bool, String> {
        let of_cycle = self.coverage.steps % CYCLE_STEPS;
        if of_cycle == 0 {
            self.parted = [false; NODES];
            for node in 0..NODES {
                self.heal(node);
                self.nodes[node].paused_until = 0;
                // A process that begins anew does not wait before it connects.
                let waits = |following: &Following| following.machine.status().state == State::Offline;
                let away = matches!(&self.nodes[node].process,
                    Some(Process::Secondary(following)) if waits(following));
                if self.nodes[node].hurt || away {
                    self.stop(node);
                }
                self.start(node)?;
            }
            self.settle_lead(0)?;
            return Ok(true);
        }
        if of_cycle < CALM_STEPS || !self.random.once_in(30) {
            return Ok(false);
        }
        self.fault(node)?;
        Ok(true)
    }

    /// The node after `node` that can lead and does not.
    fn next_leader(&self, node: usize) -> usize {
        let can = |node: &usize| {
            self.nodes[*node].process.is_some() && !self.is_undeposed(*node) && !self.is_paused(*node)
        };
        // One that takes itself for promotable, if there is one.
        let knows = |node: &usize| {
            let db = self.nodes[*node].database();
            let lead = db.and_then(|db| Some((db.instance(), db.lead().ok()??)));
            lead.is_some_and(|(own, lead)| lead.promotable.contains(&own))
        };
        let all = || (0..NODES).map(|place| (node + place) % NODES).filter(can);
        all().find(knows).or(all().next()).unwrap_or(node)
    }

    fn blame(&mut self, checked: Checked) {
        if self.broken.is_ok() {
            self.broken = checked;
        }
    }

    /// Asks a node to lead.
    fn promote(&mut self, node: usize, terms: Terms) {
        let Some(db) = self.nodes[node].database().cloned() else { return };
        if self.is_undeposed(node) || self.is_paused(node) {
            return;
        }
        if let Some(Process::Secondary(following)) = &self.nodes[node].process
            && following.transfer.is_some()
        {
            return;
        }
        self.note(format_args!("node {node} is to lead: {terms:?}"));
        if self.faults && self.random.once_in(3) {
            self.doom(node, 60);
        }
        match promotion::promote(&mut Candidate { world: self, node, db, handed_by: None }, terms) {
            Ok(done) => {
                self.moved.promotions += 1;
                self.moved.hand_overs += u64::from(done.handed_over);
                self.note(format_args!("node {node} was promoted, heard {:?}", done.heard));
            }
            Err(error) => {
                self.moved.promotions_refused += 1;
                self.note(format_args!("node {node} was not promoted: {} {}", error.what, error.why));
            }
        }
    }

    /// A node is asked to promise an epoch that `leader` leads under, or is to.
    fn promise(&mut self, node: usize, epoch: Epoch, leader: usize) -> Result<Promised, RemoteError> {
        let Some(db) = self.nodes[node].database().cloned() else { return Err(unreachable()) };
        let is_lost = match &self.nodes[node].process {
            Some(Process::Secondary(following)) => {
                following.machine.status().state == State::Offline && following.primary != leader
            }
            _ => true,
        };
        self.moved.promises += 1;
        let asked = asked_to_promise(&db, epoch, self.is_primary(node), is_lost);
        self.note(format_args!("node {node} is asked to promise {epoch}: {asked:?}"));
        match asked {
            Asked::Stays => {}
            Asked::IsDeposed => {
                let handed_over = self.depose(node, epoch);
                db.promise(epoch).and_then(|()| db.sync()).map_err(|error| remote(&error))?;
                if handed_over {
                    self.follow_from_now(node, leader);
                }
            }
            Asked::Follows => {
                self.let_go(node);
                self.nodes[node].process = None;
                db.promise(epoch).map_err(|error| remote(&error))?;
                let follows = self.became_secondary(node, db.clone(), leader);
                self.blame(follows);
            }
            Asked::Promises => db.promise(epoch).map_err(|error| remote(&error))?,
        }
        Ok(Promised {
            instance: db.instance(),
            position: db.position(),
            promised: newest_of(&db),
            leader: None,
        })
    }

    /// A primary learns of a newer epoch. Whether it had handed its lead over.
    fn depose(&mut self, node: usize, epoch: Epoch) -> bool {
        let now = self.millis();
        self.moved.deposed += 1;
        let Some(leading) = self.leading(node) else { return false };
        leading.group.handle_newer_epoch(epoch);
        // What cannot be written now is tried again with the next input.
        let _ = leading.after_input(now);
        std::mem::take(&mut leading.handed_over)
    }

    /// A node gives up what it was, and follows.
    fn follow_from_now(&mut self, node: usize, leader: usize) {
        let Some(db) = self.nodes[node].database().cloned() else { return };
        self.let_go(node);
        self.nodes[node].end();
        match db.become_secondary(db.id()) {
            Ok(()) => {
                self.led_before(node, &db);
                let follows = self.became_secondary(node, db, leader);
                self.blame(follows);
            }
            Err(error) => self.note(format_args!("node {node} cannot follow: {error}")),
        }
    }

    /// A node is told who leads, and follows if it can be heard to.
    fn rejoin(&mut self, node: usize) {
        let leader = self.leader;
        let follows = matches!(&self.nodes[node].process,
            Some(Process::Secondary(following)) if following.primary == leader);
        if follows || !self.is_undeposed(leader) || !self.hear_each_other(node, leader) {
            return;
        }
        let Some(epoch) = self.nodes[leader].database().map(Database::epoch) else { return };
        if let Err(error) = self.promise(node, epoch, leader) {
            self.note(format_args!("node {node} does not rejoin: {}", error.what));
            return;
        }
        let follows = matches!(&self.nodes[node].process,
            Some(Process::Secondary(following)) if following.primary == leader);
        if !follows && !self.is_undeposed(node) {
            self.follow_from_now(node, leader);
        }
    }

    /// The primary tells copies that are away that it leads; one that knows better ends its reign.
    fn herald(&mut self) {
        let leader = self.leader;
        if !self.is_undeposed(leader) {
            return;
        }
        let Some(leading) = self.leading(leader) else { return };
        let epoch = leading.db.epoch();
        let registered = leading.db.registrations().unwrap_or_default();
        let members = leading.group.members();
        let away = registered
            .iter()
            .filter(|known| members.get(&known.instance).is_none_or(|member| !member.online));
        let away: Vec<usize> = away.filter_map(|known| known.address).map(node_of).collect();
        for node in away.into_iter().filter(|node| *node != leader) {
            if !self.hear_each_other(node, leader) {
                continue;
            }
            let Ok(promised) = self.promise(node, epoch, leader) else { continue };
            if promised.promised.order(&epoch) == EpochOrder::Newer {
                self.depose(leader, promised.promised);
                return;
            }
            self.meet(leader, promised.promised, promised.position.epoch);
        }
    }

    /// A primary meets a copy that may have promised an epoch of the same number, and begins a newer one then.
    fn meet(&mut self, leader: usize, promised: Epoch, held: Epoch) {
        let now = self.millis();
        if let Some(leading) = self.leading(leader) {
            leading.group.handle_conflict(promised, held);
            // What cannot be written now is tried again when the copy is met again.
            let _ = leading.after_input(now);
        }
    }

    /// A primary that handed its lead over, and whose successor never came, takes updates again.
    fn reopen(&mut self, node: usize) {
        if let Some(leading) = self.leading(node)
            && std::mem::take(&mut leading.handed_over)
        {
            leading.db.hand_over(false);
            self.note(format_args!("node {node} takes updates again"));
        }
    }
}

/// A node that is being promoted.
struct Candidate<'a> {
    world: &'a mut World,
    node: usize,
    db: Database,
    /// The primary that has handed its lead over to it.
    handed_by: Option<usize>,
}

impl Candidate<'_> {
    fn hears(&self, node: usize) -> bool {
        let down = self.world.nodes[node].process.is_none();
        let apart = self.world.parted[node] || self.world.parted[self.node];
        node != self.node && !down && !apart && !self.world.is_paused(node)
    }

    /// Whether a message is lost on its way.
    fn loses(&mut self) -> bool {
        self.world.faults && self.world.random.once_in(8)
    }

    /// The successor is so slow that a primary which handed its lead over takes updates again before it is asked to promise.
    fn be_late(&mut self) {
        let Some(node) = self.handed_by.take() else { return };
        if self.world.faults && self.world.random.once_in(4) {
            self.world.reopen(node);
            self.world.moved.late += 1;
            let known = std::mem::replace(&mut self.world.leader, node);
            // Others acknowledge what it takes.
            for step in 0..LATE_STEPS {
                self.world.deliver();
                self.world.act_primary(node);
                if let Some(db) = self.world.nodes[node].database().cloned() {
                    let absorbed = self.world.absorb(node, &db);
                    self.world.blame(absorbed);
                }
                let other = self.world.random.below(NODES as u64) as usize;
                let acted = match step % LATE_WRITE_EVERY {
                    0 => self.world.write(),
                    _ if other == self.node => self.world.acknowledge(node),
                    _ => self.world.act_secondary(other),
                };
                self.world.blame(acted);
            }
            self.world.leader = known;
        }
    }

    fn ask_standing(&mut self, address: SocketAddr) -> Option<Standing> {
        let node = node_of(address);
        if !self.hears(node) || self.loses() {
            return None;
        }
        let leads = self.world.is_undeposed(node);
        let db = self.world.nodes[node].database().filter(|db| db.id() == self.db.id())?;
        Some(Standing { instance: db.instance(), position: db.position(), promised: newest_of(db), leads })
    }

    /// Whether the primary knows that the candidate holds everything up to `end`.
    fn has(&mut self, primary: usize, end: Uid) -> bool {
        let instance = self.db.instance();
        let Some(leading) = self.world.leading(primary) else { return false };
        let member = leading.group.members().get(&instance);
        member.is_some_and(|member| member.online && member.durable >= end)
            && leading.group.promotable().contains(&instance)
    }
}

impl Contender for Candidate<'_> {
    fn database(&self) -> Database {
        self.db.clone()
    }

    fn options(&self) -> Options {
        self.world.protocol.clone()
    }

    fn address(&self) -> SocketAddr {
        address_of(self.node)
    }

    fn leader(&self) -> Option<SocketAddr> {
        match &self.world.nodes[self.node].process {
            Some(Process::Secondary(following)) => Some(address_of(following.primary)),
            _ => None,
        }
    }

    fn primary_durable(&self) -> Uid {
        match &self.world.nodes[self.node].process {
            Some(Process::Secondary(following)) => following.machine.status().primary_durable,
            _ => Uid::ZERO,
        }
    }

    fn ask_standings(&mut self, addresses: &[SocketAddr]) -> Vec<Option<Standing>> {
        addresses.iter().map(|address| self.ask_standing(*address)).collect()
    }

    fn ask_promise(&mut self, address: SocketAddr, epoch: Epoch) -> Result<Promised, RemoteError> {
        let node = node_of(address);
        if !self.hears(node) || self.loses() {
            self.world.moved.lost_questions += 1;
            return Err(unreachable());
        }
        self.be_late();
        let promised = self.world.promise(node, epoch, self.node)?;
        if self.loses() {
            self.world.moved.lost_answers += 1;
            return Err(unreachable());
        }
        Ok(promised)
    }

    fn ask_hand_over(&mut self, address: SocketAddr) -> Result<Uid, RemoteError> {
        let (primary, node) = (node_of(address), self.node);
        if !self.hears(primary) || !self.has(primary, Uid::ZERO) {
            return Err(unreachable());
        }
        let Some(db) = self.world.nodes[primary].database().cloned() else { return Err(unreachable()) };
        db.hand_over(true);
        let end = db.sync().map(|synced| synced.max(db.log_end().0));
        for _ in 0..HAND_OVER_STEPS {
            if let Ok(end) = end
                && self.has(primary, end)
            {
                if let Some(leading) = self.world.leading(primary) {
                    leading.handed_over = true;
                    self.handed_by = Some(primary);
                }
                return Ok(end);
            }
            self.world.deliver();
            self.world.act_primary(primary);
            let acted = self.world.act_secondary(node);
            self.world.blame(acted);
        }
        db.hand_over(false);
        Err(end.map_or_else(|error| remote(&error), |_| unreachable()))
    }

    fn hand_back(&mut self, address: SocketAddr) {
        let primary = node_of(address);
        if self.hears(primary) && !self.loses() {
            self.world.reopen(primary);
        }
    }

    fn step_down(&mut self) -> Result<(), RemoteError> {
        self.world.let_go(self.node);
        self.world.nodes[self.node].end();
        self.db.become_secondary(self.db.id()).map_err(|error| remote(&error))?;
        self.world.led_before(self.node, &self.db);
        Ok(())
    }

    fn stop(&mut self) -> Option<SocketAddr> {
        let followed = self.leader()?;
        self.world.let_go(self.node);
        self.world.nodes[self.node].process = None;
        Some(followed)
    }

    fn follow_again(&mut self, primary: SocketAddr) {
        let follows = self.world.became_secondary(self.node, self.db.clone(), node_of(primary));
        self.world.blame(follows);
    }

    fn take_the_lead(&mut self, epoch: Epoch) -> Result<Uid, RemoteError> {
        self.stop();
        self.db.promote(epoch).map_err(|error| remote(&error))?;
        let inherited = self.db.history().entries().last().map_or(Uid::ZERO, |entry| entry.inherited);
        let leads = self.world.was_promoted(self.node, &self.db);
        self.world.blame(leads);
        let leads = self.world.begin_to_lead(self.node, self.db.clone(), 0);
        self.world.blame(leads);
        Ok(inherited)
    }
}
