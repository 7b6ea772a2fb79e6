//! What the workload and the faults do to nodes and connections.

use crate::store::{KEYS, Op};
use planaria_replication::{Millis, Way};
use planaria_types::{HistoryEntry, Uid};

use crate::world::{NODES, Node, Role, World};

impl World {
    pub(crate) fn primaries(&self) -> Vec<usize> {
        (0..NODES).filter(|node| matches!(self.nodes[*node].role, Role::Primary { .. })).collect()
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
            let step = 1 + self.random.below(3);
            let Node { store, role: Role::Primary { group, .. }, .. } = &mut self.nodes[node] else {
                continue;
            };
            if group.deposed().is_some() {
                continue;
            }
            let epoch = group.epoch();
            if store.history.current() != epoch {
                let entry = HistoryEntry { epoch, inherited: store.appended, hash: store.end_hash() };
                store.history.push(entry).expect("a new epoch is newer");
                group.handle_history(store.history.clone());
            }
            let uid = Uid::new(store.appended.get() + step);
            store.write(uid, &ops);
            group.handle_appended(uid);
            self.truth.insert((epoch, uid), store.content(uid));
            self.coverage.commits += 1;
            self.note(&format!("node {node} commits {uid} {ops:?}"));
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
        let now = Millis(self.now);
        let Node { store, role, .. } = &mut self.nodes[node];
        store.synced = store.appended;
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

    pub(crate) fn fault(&mut self, node: usize) {
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
                self.nodes[node].store.collecting = None;
                self.nodes[node].store.replacing = None;
                self.follow(node);
            }
            18 => self.ask(node, Way::Reconcile),
            19 => self.ask(node, if self.value.is_multiple_of(3) { Way::Delta } else { Way::Reconcile }),
            _ => {}
        }
    }

    /// An operator asks for a refresh.
    pub(crate) fn ask(&mut self, node: usize, way: Way) {
        let now = Millis(self.now);
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
        if node == self.leader || !matches!(self.nodes[node].role, Role::Secondary { .. }) {
            return;
        }
        // An empty copy begins a history that is related to none: no operator promotes it.
        if self.nodes[node].store.appended == Uid::ZERO {
            return;
        }
        self.coverage.promotions += 1;
        let term = self.nodes.iter().map(|node| node.store.promised.term).max().unwrap_or(0) + 1;
        self.lead(node, term);
    }
}
