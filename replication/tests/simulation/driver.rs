//! The drivers: one action, or one answer of an engine, at a time.

use planaria_replication::primary::{self, GroupAction, SessionAction};
use planaria_replication::secondary::Action;
use planaria_replication::{Lane, Message, RewindItem};
use planaria_types::{Epoch, EpochOrder, Uid};

use crate::store::Store;
use crate::world::{Answer, Checked, Node, Role, World, note_durable};

impl World {
    pub(crate) fn act(&mut self, node: usize) -> Checked {
        match &mut self.nodes[node].role {
            Role::Down => Ok(()),
            Role::Secondary { replica, .. } => {
                if let Some(action) = replica.poll_action() {
                    return self.act_secondary(node, action);
                }
                self.act_serving(node);
                Ok(())
            }
            Role::Primary { group, .. } => {
                if let Some(action) = group.poll_action() {
                    self.act_group(node, action);
                    return Ok(());
                }
                self.act_serving(node);
                Ok(())
            }
        }
    }

    /// One action of one of the sessions that a node serves.
    fn act_serving(&mut self, node: usize) {
        let Some((group, sessions)) = self.nodes[node].role.serving() else { return };
        let ids: Vec<u64> = sessions.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let connection = ids[self.random.below(ids.len() as u64) as usize];
        let Some(session) = sessions.get_mut(&connection) else { return };
        if let Some(action) = session.poll_action(group) {
            self.act_session(node, connection, action);
        }
    }

    /// Tells those who are fed what they are fed on, where everything was carried out that the copy asked for.
    pub(crate) fn feed(&mut self, node: usize) {
        if let Role::Secondary { replica, group, .. } = &mut self.nodes[node].role
            && !replica.has_actions()
        {
            group.handle_feed(replica.feed());
        }
    }

    pub(crate) fn act_group(&mut self, node: usize, action: GroupAction) {
        self.note(&format!("node {node} does {action:?}"));
        match action {
            GroupAction::PersistPromotable(sets) => {
                let uid = self.commit(node, &[Store::sets_op(&sets)]);
                self.nodes[node].answers.push_back(Answer::Promotable(sets, uid));
            }
            GroupAction::Deposed(_) => self.follow(node),
            GroupAction::BeginAbove(other) => self.begin_above(node, other),
            // Copies of the model keep their names, whatever they take.
            GroupAction::LetGo(instance) => unreachable!("{instance} is in its place"),
        }
    }

    pub(crate) fn act_session(&mut self, node: usize, connection: u64, action: SessionAction) {
        let state = &mut self.nodes[node];
        match action {
            SessionAction::Send(message) => {
                if let Some(ends) = self.connections.get_mut(&connection) {
                    match message.lane() {
                        Lane::Control => ends.control.push_back(message),
                        Lane::Bulk => ends.bulk.push_back(message),
                    }
                }
            }
            SessionAction::Close => {
                if let Some((_, sessions)) = state.role.serving() {
                    sessions.remove(&connection);
                }
                state.store.pins.remove(&connection);
                if let Some(ends) = self.connections.get_mut(&connection) {
                    ends.down_open = false;
                }
            }
            SessionAction::Register { instance, durable, .. } => {
                state.store.registered.insert(instance, durable);
            }
            SessionAction::ReleasePin => {
                state.store.pins.remove(&connection);
            }
            read => state.answers.push_back(Answer::Read { session: connection, read }),
        }
    }

    pub(crate) fn act_secondary(&mut self, node: usize, action: Action) -> Checked {
        self.note(&format!("node {node} does {action:?}"));
        let epoch = self.epoch_of_session(node);
        let now = self.time(node);
        let state = &mut self.nodes[node];
        if let Role::Secondary { group, .. } = &mut state.role
            && action.disturbs_feed()
        {
            group.handle_feed(None);
        }
        let store = &mut state.store;
        match action {
            Action::Connect => self.connect(node),
            Action::Disconnect => {
                if let Role::Secondary { connection, .. } = &mut state.role
                    && let Some(number) = connection.take()
                    && let Some(ends) = self.connections.get_mut(&number)
                {
                    ends.up_open = false;
                }
            }
            Action::Send(message) => return self.send(node, message),
            Action::Sync => {
                store.synced = store.appended;
                let synced = store.synced;
                note_durable(&mut self.durable, state);
                if let Role::Secondary { replica, .. } = &mut state.role {
                    replica.handle_durable(synced, now);
                }
            }
            Action::PersistEpoch(epoch) => {
                // One that may not be durable is made again.
                if !matches!(epoch.order(&store.promised), EpochOrder::Newer | EpochOrder::Same) {
                    return Err(format!("R9: promise {} falls to {epoch}", store.promised));
                }
                store.promised = epoch;
            }
            Action::PersistHistory(history) => store.history = history,
            Action::ReadHash(uid) => state.answers.push_back(Answer::Hash(uid)),
            Action::Quarantine { above, through } => {
                self.coverage.quarantines += 1;
                store.quarantined.push((above, through));
            }
            Action::TakeBack(to, _) => {
                self.coverage.clips += 1;
                store.take_back(&to)?;
            }
            Action::Append(commits) => {
                if epoch.is_some_and(|epoch| epoch != store.promised) {
                    return Err(format!("R9: commits of {epoch:?} under the promise {}", store.promised));
                }
                for commit in commits {
                    state.answers.push_back(Answer::Appended(commit.uid));
                    store.append(commit)?;
                }
            }
            Action::Show(cut) => return self.show(node, cut),
            Action::BeginRefresh { round, rewind, .. } => {
                self.coverage.rewinds += u64::from(rewind);
                store.begin(round);
            }
            Action::ResumeRefresh { round } => {
                self.coverage.resumptions += 1;
                store.resume(round)?;
            }
            Action::SuspendRefresh(kept) => store.suspend(kept)?,
            Action::KeepRefresh(kept) => store.keep(kept)?,
            Action::StoreDelta { round, records } => {
                store.collect(round, records, false)?;
                state.answers.push_back(Answer::Stored(round));
            }
            Action::StoreRewind { round, records } => {
                store.collect(round, records, true)?;
                state.answers.push_back(Answer::Stored(round));
            }
            Action::ReadRewindItems { round, above, cursor, bytes_max } => {
                state.answers.push_back(Answer::Items { round, above, cursor, bytes_max });
            }
            Action::BeginReconcile { round, base } => {
                self.coverage.resumed += u64::from(store.replacing.is_some());
                store.begin_reconcile(base);
                state.answers.push_back(Answer::ReconcileBegun(round));
            }
            Action::SumSpans { round, spans } => state.answers.push_back(Answer::Sums { round, spans }),
            Action::StoreRanges { round, spans, records } => {
                store.store_ranges(&spans, &records)?;
                state.answers.push_back(Answer::Stored(round));
            }
            Action::AbandonRefresh => (store.collecting, store.replacing) = (None, None),
            Action::Install(install) => {
                store.install(&install)?;
                state.answers.push_back(Answer::Installed);
            }
            Action::FetchBulk { at_least, .. } => state.answers.push_back(Answer::Bulk { at_least }),
            Action::AbandonBulk => state.answers.retain(|answer| !matches!(answer, Answer::Bulk { .. })),
        }
        Ok(())
    }

    fn show(&mut self, node: usize, cut: Uid) -> Checked {
        let in_session = self.epoch_of_session(node).is_some();
        let store = &mut self.nodes[node].store;
        let durable = self.durable.get(&store.promised).copied().unwrap_or_default();
        let inherited = store.history.entries().last().map_or(Uid::ZERO, |entry| entry.inherited);
        let known = in_session && durable > Uid::ZERO;
        if cut > store.synced || (known && cut > durable && cut > inherited) {
            return Err(format!("R4: {cut} shown, but durable at the primary is only {durable}"));
        }
        if cut < store.visible {
            return Err(format!("R4: the cut falls from {} to {cut}", store.visible));
        }
        store.visible = cut;
        Ok(())
    }

    pub(crate) fn epoch_of_session(&self, node: usize) -> Option<Epoch> {
        let Role::Secondary { connection: Some(number), .. } = &self.nodes[node].role else {
            return None;
        };
        self.connections.get(number).map(|ends| ends.epoch)
    }

    pub(crate) fn send(&mut self, node: usize, message: Message) -> Checked {
        let Role::Secondary { connection: Some(number), .. } = &self.nodes[node].role else {
            return Ok(());
        };
        let Some(ends) = self.connections.get_mut(number) else {
            return Ok(());
        };
        let store = &self.nodes[node].store;
        if let Message::Ack(ack) = &message {
            if ack.durable > store.synced {
                return Err(format!("R6: acknowledged {} with {} durable", ack.durable, store.synced));
            }
            if ack.epoch != store.promised || ends.epoch != store.promised {
                return Err(format!(
                    "R9: acknowledged under {} with the promise {}",
                    ack.epoch, store.promised
                ));
            }
        }
        ends.up.push_back(message);
        Ok(())
    }

    pub(crate) fn answer(&mut self, node: usize) -> Checked {
        let Some(answer) = self.nodes[node].answers.pop_front() else {
            return Ok(());
        };
        let now = self.time(node);
        match answer {
            Answer::Read { session, read } => self.answer_read(node, session, read),
            Answer::Promotable(sets, uid) => {
                if let Role::Primary { group, .. } = &mut self.nodes[node].role {
                    group.handle_promotable(&sets, uid);
                }
            }
            Answer::Bulk { at_least } => return self.answer_bulk(node, at_least),
            other => {
                let Node { store, role: Role::Secondary { replica, .. }, .. } = &mut self.nodes[node] else {
                    return Ok(());
                };
                match other {
                    Answer::Appended(uid) => replica.handle_appended(uid, now),
                    Answer::Hash(uid) => replica.handle_hash(uid, store.hash_at(uid), now),
                    Answer::ReconcileBegun(round) => {
                        replica.handle_reconcile_begun(round, &store.own_tables(), now);
                    }
                    Answer::Sums { round, spans } => {
                        // Ranges of a round that was given up may be gone.
                        if store.replacing.is_some() {
                            replica.handle_sums(round, &store.own_sums(&spans)?, now);
                        }
                    }
                    Answer::Stored(round) => replica.handle_stored(round, now),
                    Answer::Items { round, above, cursor, bytes_max } => {
                        let (items, next) = store.rewind_items(above, &cursor, bytes_max);
                        replica.handle_rewind_items(round, items, next, now);
                    }
                    _ => replica.handle_installed(store.local(), now),
                }
            }
        }
        Ok(())
    }

    pub(crate) fn answer_bulk(&mut self, node: usize, at_least: Uid) -> Checked {
        let now = self.time(node);
        let source = match &self.nodes[node].role {
            Role::Secondary { connection: Some(number), .. } => {
                self.connections.get(number).map(|ends| ends.primary)
            }
            _ => None,
        };
        let promised = self.nodes[node].store.promised;
        let source = source.filter(|source| match &self.nodes[*source].role {
            Role::Primary { group, .. } => group.epoch() == promised,
            Role::Secondary { group, .. } => group.has_feed() && group.epoch() == promised,
            Role::Down => false,
        });
        let copy = source.map(|source| self.nodes[source].store.clone());
        let Node { store, role: Role::Secondary { replica, group, .. }, answers, .. } = &mut self.nodes[node]
        else {
            return Ok(());
        };
        match copy {
            Some(copy) if copy.visible.min(copy.synced) < at_least => {
                answers.push_back(Answer::Bulk { at_least });
            }
            Some(copy) => {
                group.handle_feed(None);
                store.install_bulk(&copy)?;
                replica.handle_bulk_installed(store.local(), now);
            }
            None => replica.handle_failure(store.local(), "the source is gone", now),
        }
        Ok(())
    }

    pub(crate) fn answer_read(&mut self, node: usize, number: u64, read: SessionAction) {
        let now = self.time(node);
        let expire = self.faults && self.random.one_in(60);
        let Node { store, role, answers, .. } = &mut self.nodes[node];
        let Some((group, sessions)) = role.serving() else { return };
        let Some(session) = sessions.get_mut(&number) else {
            return;
        };
        match read {
            SessionAction::Survey { round, since, .. } => {
                let survey = store.survey(round, since);
                session.handle_survey(group, &survey, now);
            }
            SessionAction::ReadCommits { round, after, bytes_max } => {
                session.handle_commits(group, round, store.commits(after, bytes_max), now);
            }
            SessionAction::ReadDelta { at_least, .. }
            | SessionAction::ReadStates { at_least, .. }
            | SessionAction::ReadParts { at_least, .. }
            | SessionAction::ReadRanges { at_least, .. }
                if store.visible < at_least =>
            {
                answers.push_back(Answer::Read { session: number, read });
            }
            SessionAction::ReadDelta { round, since, cursor, pinned, bytes_max, .. } => {
                let read = if pinned && expire {
                    primary::DeltaRead::PinExpired
                } else {
                    store.delta(number, since, &cursor, pinned, bytes_max)
                };
                session.handle_delta(group, round, read, now);
            }
            SessionAction::ReadStates { round, items, pinned, bytes_max, .. } => {
                let read = if pinned && expire {
                    primary::StatesRead::PinExpired
                } else {
                    store.states(number, &items as &[RewindItem], pinned, bytes_max)
                };
                session.handle_states(group, round, read, now);
            }
            SessionAction::ReadParts { round, spans, parts, pinned, .. } => {
                let read = if pinned && expire {
                    primary::PartsRead::PinExpired
                } else {
                    store.parts(number, &spans, parts, pinned)
                };
                session.handle_parts(group, round, read, now);
            }
            SessionAction::ReadRanges { round, spans, pinned, bytes_max, .. } => {
                let read = if pinned && expire {
                    primary::RangesRead::PinExpired
                } else {
                    store.ranges(number, &spans, pinned, bytes_max)
                };
                session.handle_ranges(group, round, read, now);
            }
            _ => {}
        }
    }
}
