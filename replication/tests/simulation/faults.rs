//! What the workload and the faults do to nodes and connections.

use crate::store::{KEYS, Op};
use planaria_replication::{Heard, Planted, Way, assess};
use planaria_types::{Epoch, EpochOrder, HistoryEntry, Uid};

use crate::world::{Checked, NODES, Node, Role, World, id, note_durable};

impl World {
    pub(crate) fn primaries(&self) -> Vec<usize> {
        let leads = |node: &usize| matches!(self.nodes[*node].role, Role::Primary { .. });
        (0..NODES).filter(|node| leads(node) && !self.is_paused(*node)).collect()
    }

    pub(crate) fn write(&mut self) {
        for node in self.primaries() {
            let ops: Vec<Op> = (0..=self.random.below(3))
                .map(|_| {
                    self.value += 1;
                    let key = self.random.below(KEYS) as u8;
                    (key, if self.random.one_in(3) { None } else { Some(self.value) })
                })
                .collect();
            self.commit(node, &ops);
        }
    }

    /// Commits on a primary that is not deposed, and gives the end of its log.
    pub(crate) fn commit(&mut self, node: usize, ops: &[Op]) -> Uid {
        let step = 1 + self.random.below(3);
        let Node { store, role: Role::Primary { group, .. }, .. } = &mut self.nodes[node] else {
            return Uid::ZERO;
        };
        if group.deposed().is_some() {
            return store.appended;
        }
        let epoch = group.epoch();
        if store.history.current() != epoch {
            let entry = HistoryEntry { epoch, inherited: store.appended, hash: store.end_hash() };
            store.history.push(entry).expect("a new epoch is newer");
            group.handle_history(store.history.clone());
        }
        let uid = Uid::new(store.appended.get() + step);
        store.write(uid, ops);
        group.handle_appended(uid);
        self.truth.insert((epoch, uid), store.content(uid));
        self.coverage.commits += 1;
        self.note(&format!("node {node} commits {uid} {ops:?}"));
        uid
    }

    /// A primary begins its next incarnation, because a copy has promised an epoch of the same number that never began.
    pub(crate) fn begin_above(&mut self, node: usize, other: Epoch) {
        let nonce = self.random.next();
        let Node { store, role: Role::Primary { group, sessions }, incarnations, led, .. } =
            &mut self.nodes[node]
        else {
            return;
        };
        let before = group.epoch();
        if before.order(&other) != EpochOrder::Conflict || group.deposed().is_some() {
            return;
        }
        *incarnations = before.incarnation.max(*incarnations) + 1;
        let epoch = Epoch { term: before.term, incarnation: *incarnations, nonce };
        (*led, store.promised) = (epoch, epoch);
        store.synced = store.appended;
        self.durable.insert(before, store.synced);
        let entry = HistoryEntry { epoch, inherited: store.appended, hash: store.end_hash() };
        store.history.push(entry).expect("the next incarnation is newer");
        group.handle_began(store.history.clone());
        // Whoever has not said hello yet will be welcomed under this epoch.
        let new = sessions.iter().filter(|(_, session)| session.instance().is_none());
        for (number, _) in new {
            if let Some(ends) = self.connections.get_mut(number) {
                ends.epoch = epoch;
            }
        }
        self.coverage.outnumbered += 1;
        self.note(&format!("node {node} leads as {epoch} from now on"));
        self.begin_in_full(node);
    }

    /// A primary makes the commit that real ones make when they begin, unless it has committed something.
    pub(crate) fn begin_in_full(&mut self, node: usize) {
        let Role::Primary { group, .. } = &self.nodes[node].role else { return };
        let (epoch, store) = (group.epoch(), &self.nodes[node].store);
        if group.deposed().is_none() && store.history.epoch_of(store.appended) != epoch {
            self.value += 1;
            self.commit(node, &[(0, Some(self.value))]);
        }
    }

    pub(crate) fn publish(&mut self) {
        for node in self.primaries() {
            let Node { store, role, .. } = &mut self.nodes[node];
            store.visible = store.appended;
            if let Role::Primary { group, .. } = role {
                group.handle_closed(store.appended);
            }
        }
    }

    pub(crate) fn sync(&mut self, node: usize) {
        let now = self.time(node);
        self.nodes[node].store.synced = self.nodes[node].store.appended;
        note_durable(&mut self.durable, &self.nodes[node]);
        let Node { store, role, .. } = &mut self.nodes[node];
        match role {
            Role::Primary { group, .. } => {
                self.durable.insert(group.epoch(), store.synced);
                group.handle_durable(store.synced);
            }
            Role::Secondary { replica, .. } => replica.handle_durable(store.synced, now),
            Role::Down => {}
        }
    }

    pub(crate) fn garbage(&mut self, node: usize) {
        let over_caps = self.random.one_in(4);
        let trim = self.random.one_in(2);
        let near = self.random.below(8);
        let Node { store, role, .. } = &mut self.nodes[node];
        let stable = match role {
            Role::Primary { group, .. } => group.stable(),
            Role::Secondary { replica, .. } => replica.status().stable,
            Role::Down => return,
        };
        let versions = stable.min(store.visible).min(store.synced);
        let positions = store.registered.values().copied().fold(versions, Uid::min);
        let marks = if over_caps { versions } else { positions };
        store.collect_garbage(versions, marks);
        if trim {
            store.trim_log(Uid::new(store.synced.get().saturating_sub(near)));
        }
        if let Role::Secondary { replica, .. } = role {
            replica.handle_floors(store.version_floor, store.mark_floor);
        }
        self.note(&format!("node {node} collects garbage: versions {versions}, marks {marks}, log {trim}"));
    }

    pub(crate) fn fault(&mut self, node: usize) -> Checked {
        match self.random.below(20) {
            0..5 => {
                let open: Vec<u64> = self.connections.keys().copied().collect();
                if !open.is_empty() {
                    let connection = open[self.random.below(open.len() as u64) as usize];
                    // One end may learn of it later: then two sessions of one secondary live side by side.
                    let (up, down) =
                        [(true, true), (true, false), (false, true)][self.random.below(3) as usize];
                    self.cut(connection, up, down);
                }
            }
            5..8 => self.crash(node),
            8..13 => {
                let down: Vec<usize> =
                    (0..NODES).filter(|node| matches!(self.nodes[*node].role, Role::Down)).collect();
                for node in down {
                    if node == self.leader {
                        self.restart_leader(node);
                    } else {
                        self.follow(node);
                    }
                }
            }
            13..16 if self.careful => self.promote_carefully(node)?,
            13..16 => self.promote(node),
            16 if self.random.one_in(4) => {
                let old: Vec<usize> =
                    self.primaries().into_iter().filter(|node| *node != self.leader).collect();
                for node in old {
                    self.follow(node);
                }
            }
            17 if matches!(self.nodes[node].role, Role::Secondary { .. }) => {
                // A driver that restarts its replica without a crash of the engine.
                self.follow(node);
            }
            18 => self.ask(node, Way::Reconcile),
            19 => self.ask(node, if self.value.is_multiple_of(3) { Way::Delta } else { Way::Reconcile }),
            _ => {}
        }
        Ok(())
    }

    /// An operator asks for a refresh.
    pub(crate) fn ask(&mut self, node: usize, way: Way) {
        let now = self.time(node);
        if let Role::Secondary { replica, .. } = &mut self.nodes[node].role {
            replica.handle_refresh_asked(way, now);
            self.note(&format!("node {node} is asked for a {way}"));
        }
    }

    pub(crate) fn crash(&mut self, node: usize) {
        self.coverage.crashes += 1;
        self.drop_connections_of(node);
        let state = &mut self.nodes[node];
        state.store.crash(&mut self.random);
        state.role = Role::Down;
        state.answers.clear();
        let end = self.nodes[node].store.appended;
        self.note(&format!("node {node} crashes and keeps its log up to {end}"));
    }

    pub(crate) fn promote(&mut self, node: usize) {
        let follows = matches!(self.nodes[node].role, Role::Secondary { .. });
        if node == self.leader || self.is_partial(node) || !follows {
            return;
        }
        // An empty copy begins a history that is related to none: no operator promotes it.
        if self.nodes[node].store.appended == Uid::ZERO {
            return;
        }
        self.coverage.promotions += 1;
        let term = self.nodes.iter().map(|node| node.store.promised.term).max().unwrap_or(0) + 1;
        self.lead(node, term);
        // Whoever forces a promotion answers for what is lost by it.
        let mut protected = std::mem::take(&mut self.protected);
        protected.retain(|epoch, uid| self.holds(node, *epoch, *uid));
        self.protected = protected;
    }

    /// Promotes a copy as an operator does who loses nothing: those that can be heard promise the new epoch and say what
    /// they have, and the copy leads if that is enough. Whoever is down or cut off is not heard.
    pub(crate) fn promote_carefully(&mut self, node: usize) -> Checked {
        let is_secondary = matches!(self.nodes[node].role, Role::Secondary { .. });
        let led = node == self.leader && self.swarm.is_none();
        if led || !is_secondary || !self.nodes[node].store.sets().contains(id(node)) {
            return Ok(());
        }
        let up = |other: &usize| {
            let is_up = !matches!(self.nodes[*other].role, Role::Down) && !self.is_paused(*other);
            *other != node && is_up && self.hears(node, *other) && self.hears(*other, node)
        };
        let up: Vec<usize> = (0..NODES).filter(up).collect();
        // The old primary is down or cut off more often than not: that is why somebody else is to lead.
        let leader = self.leader;
        let heard: Vec<usize> = up
            .into_iter()
            .filter(|node| self.random.below(4) < if *node == leader { 1 } else { 3 })
            .collect();
        let known = heard.iter().chain([&node]).map(|node| self.nodes[*node].store.promised.term);
        let term = known.max().unwrap_or(0) + 1;
        self.nodes[node].incarnations += 1;
        let incarnation = self.nodes[node].incarnations;
        let epoch = Epoch { term, incarnation, nonce: self.random.next() };
        self.note(&format!("node {node} asks {heard:?} to promise {epoch}"));
        for other in &heard {
            if self.options.planted != Some(Planted::PromoteUnpromised) {
                self.promise(*other, epoch);
            }
        }
        self.nodes[node].store.synced = self.nodes[node].store.appended;
        let position = |node: usize| {
            let store = &self.nodes[node].store;
            Heard { instance: id(node), position: store.history.position_of(store.synced) }
        };
        let own = position(node);
        let mut answers: Vec<Heard> = heard.iter().map(|node| position(*node)).collect();
        self.lose_answers(&mut answers);
        let assessed = assess(&self.options, &own, &answers, &self.nodes[node].store.sets());
        if !assessed.is_safe() {
            self.coverage.unsafe_refused += 1;
            if heard.contains(&leader) && self.swarm.is_none() {
                // It was made to stop, and nobody may take its place: an operator has it lead on. That is a promotion, too: who
                // can be reached promises its epoch first, or might promise an older one to somebody else later.
                let nonce = self.random.next();
                self.nodes[leader].incarnations += 1;
                let epoch = Epoch { term: term + 1, incarnation: self.nodes[leader].incarnations, nonce };
                for other in heard.iter().filter(|other| **other != leader).chain([&node]) {
                    self.promise(*other, epoch);
                }
                self.lead_as(leader, epoch);
            }
            return Ok(());
        }
        self.coverage.safe_promotions += 1;
        self.lead_as(node, epoch);
        let lost = self.protected.iter().find(|(epoch, uid)| !self.holds(node, **epoch, **uid));
        lost.map_or(Ok(()), |(epoch, uid)| {
            Err(format!("R7: {uid} of {epoch:?} was acknowledged at a protected level, and node {node} leads without it"))
        })
    }

    /// A node promises, durably, to follow no older epoch; a primary stops to be one.
    fn promise(&mut self, node: usize, epoch: Epoch) {
        self.nodes[node].store.promised = epoch;
        match &mut self.nodes[node].role {
            Role::Primary { group, .. } => group.handle_newer_epoch(epoch),
            Role::Secondary { .. } => self.follow(node),
            Role::Down => {}
        }
    }

    /// Whether a node durably holds what an epoch acknowledged.
    pub(crate) fn holds(&self, node: usize, epoch: (u64, u64, u64), uid: Uid) -> bool {
        let store = &self.nodes[node].store;
        let own = store.history.position_of(uid).epoch;
        store.synced >= uid && (own.term, own.incarnation, own.nonce) == epoch
    }
}
