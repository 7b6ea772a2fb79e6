//! The secondary's process: one action at a time, carried out by what carries them out in a node.

use planaria_net::replica::executor::bulk::Terms;
use planaria_replication::secondary::Action;
use planaria_replication::{Message, Way};

use crate::bulk::Transfer;
use crate::node::{Following, Process};
use crate::world::{Checked, World};

impl World {
    fn following(&mut self, node: usize) -> Option<&mut Following> {
        match self.nodes[node].process.as_mut()? {
            Process::Secondary(following) => Some(following),
            Process::Primary(_) => None,
        }
    }

    pub(crate) fn tick_secondary(&mut self, node: usize) {
        let now = self.millis();
        if let Some(following) = self.following(node)
            && following.transfer.is_none()
        {
            following.machine.handle_tick(now);
        }
    }

    /// One action; where there is none, what was appended is synced, as a driver does before it waits.
    pub(crate) fn act_secondary(&mut self, node: usize) -> Checked {
        let now = self.millis();
        let syncs = self.random.once_in(2);
        let Some(following) = self.following(node) else { return Ok(()) };
        if following.transfer.is_some() {
            return Ok(());
        }
        following.copy.update_floors(&following.machine);
        let Some(action) = following.machine.poll_action() else {
            let Following { copy, machine, .. } = following;
            if syncs && let Err(error) = copy.sync_appended(machine, now) {
                copy.failed(&error.to_string(), machine, now);
                self.failed_action(node, &error.to_string());
            }
            return Ok(());
        };
        self.perform(node, action)
    }

    fn perform(&mut self, node: usize, action: Action) -> Checked {
        let now = self.millis();
        if !matches!(action, Action::Send(_)) {
            self.note(format_args!("node {node} does {action:?}"));
        }
        match &action {
            Action::ResumeRefresh { .. } => self.coverage.deltas_resumed += 1,
            Action::StoreRanges { spans, .. } => self.coverage.ranges_replaced += spans.len() as u64,
            Action::Install(install) => self.coverage.reconciled += u64::from(install.reconciled),
            _ => {}
        }
        self.coverage.take_backs += u64::from(matches!(action, Action::TakeBack(..)));
        let kept = self.kept_by(node, &action)?;
        let Some(Following { copy, machine, .. }) = self.following(node) else { return Ok(()) };
        match copy.perform(action, machine, now) {
            Ok(Some(Action::Connect)) => self.connect(node),
            Ok(Some(Action::Disconnect)) => self.disconnect(node),
            Ok(Some(Action::Send(message))) => return self.send(node, message),
            Ok(Some(Action::FetchBulk { reason, at_least, .. })) => {
                let terms = Terms::of(copy.database(), at_least);
                self.note(format_args!("node {node} takes run files: {reason}"));
                if let Some(following) = self.following(node) {
                    following.transfer = Some(Transfer::new(terms, following.primary));
                }
            }
            Ok(_) => self.was_taken_back(node, kept),
            Err(error) => {
                copy.failed(&error.to_string(), machine, now);
                self.failed_action(node, &error.to_string());
            }
        }
        Ok(())
    }

    /// An operator asks for a refresh.
    pub(crate) fn ask(&mut self, node: usize) {
        let now = self.millis();
        let way = [Way::Reconcile, Way::Reconcile, Way::Delta, Way::Bulk][self.random.below(4) as usize];
        if let Some(following) = self.following(node)
            && following.transfer.is_none()
        {
            following.machine.handle_refresh_asked(way, now);
            self.coverage.reconciles_asked += u64::from(way == Way::Reconcile);
            self.note(format_args!("node {node} is to be refreshed by {way}"));
        }
    }

    fn disconnect(&mut self, node: usize) {
        let number = self.following(node).and_then(|following| following.connection.take());
        if let Some(link) = number.and_then(|number| self.connections.get_mut(&number)) {
            link.secondary_open = false;
        }
    }

    fn send(&mut self, node: usize, message: Message) -> Checked {
        let Some(following) = self.following(node) else { return Ok(()) };
        let Some(number) = following.connection else { return Ok(()) };
        let db = following.copy.database();
        let (promised, history) = (db.promised(), db.history());
        if let Message::Ack(ack) = &message {
            if ack.epoch != promised {
                return Err(format!(
                    "R9: node {node} acknowledges under {}, promised is {promised}",
                    ack.epoch
                ));
            }
            let acknowledged = &mut self.nodes[node].acknowledged;
            *acknowledged = ack.durable.max(*acknowledged);
            self.nodes[node].history = history;
        }
        if let Message::Hello(hello) = &message {
            self.nodes[node].greeted = hello.durable;
            self.nodes[node].history.clone_from(&hello.history);
        }
        self.note_message("is told", number, &message);
        if let Some(link) = self.connections.get_mut(&number) {
            link.up.push_back(message);
        }
        Ok(())
    }
}
