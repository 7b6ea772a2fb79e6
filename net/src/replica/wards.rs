//! The secondaries as an operator meets them: what they are told, what they cost, and what is done with them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use parking_lot::Mutex;
use planaria_engine::{GivenUp, Lag, Preserved, Registration};
use planaria_replication::primary::{Member, WentBack};
use planaria_replication::{Commit, Message, Reason, Record, Way, Welcome};
use planaria_types::{InstanceId, Portion, Uid};

use super::Primary;
use crate::Result;

/// What a primary knows of its secondaries besides what the protocol tells.
#[derive(Default)]
pub(super) struct Wards {
    known: Mutex<BTreeMap<InstanceId, Ward>>,
    /// The doubts that were told last.
    told: Mutex<BTreeSet<String>>,
}

#[derive(Clone, Default)]
struct Ward {
    paused: bool,
    given_up: Option<GivenUp>,
    address: Option<SocketAddr>,
    portion: Option<Portion>,
    moved: Moved,
}

/// How a secondary was brought up to date last, and what was sent to it since.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moved {
    /// The way and why it was chosen.
    pub way: Option<(Way, Reason)>,
    /// Records of deltas, rewinds and reconciles.
    pub records: u64,
    /// Commits.
    pub commits: u64,
    /// The bytes of both, and of run files as they were estimated.
    pub bytes: u64,
}

/// One secondary, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaState {
    /// The copy.
    pub instance: InstanceId,
    /// Its name.
    pub name: String,
    /// Where it listens, if it told.
    pub address: Option<SocketAddr>,
    /// `online`, `refreshing`, `paused` or `offline`.
    pub state: &'static str,
    /// Whether it is in the promotable set.
    pub promotable: bool,
    /// Everything up to this UID is durable there.
    pub durable: Uid,
    /// Everything up to this UID is visible there.
    pub visible: Uid,
    /// How far its durable position is behind the last commit.
    pub lag: Lag,
    /// What is preserved for it; nothing while it has a session.
    pub preserved: Preserved,
    /// Why nothing is preserved for it any more, if so.
    pub given_up: Option<GivenUp>,
    /// What it holds, if it is partial.
    pub portion: Option<Portion>,
    /// How it was brought up to date last, since this primary started.
    pub moved: Moved,
    /// Whether it came back with less than it had acknowledged, since this primary started.
    pub went_back: Option<WentBack>,
}

/// Why an operator's wish is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WardError {
    /// Nobody of that name is registered.
    #[error("no secondary {0:?} is registered")]
    Unknown(String),
    /// Several are.
    #[error("several secondaries are called {0:?}")]
    Ambiguous(String),
    /// It has a session.
    #[error("the secondary {0:?} is connected and would come back at once")]
    Connected(String),
}

impl Wards {
    /// What was written down of a secondary.
    pub(super) fn restore(&self, known: &Registration) {
        let Registration { paused, given_up, address, .. } = *known;
        let portion = known.portion.clone();
        let ward = Ward { paused, given_up, address, portion, moved: Moved::default() };
        self.known.lock().insert(known.instance, ward);
    }

    /// The registration with what is known here.
    pub(super) fn describe(&self, known: Registration) -> Registration {
        let wards = self.known.lock();
        let Some(ward) = wards.get(&known.instance) else { return known };
        let Ward { paused, given_up, address, portion, .. } = ward.clone();
        Registration { paused, given_up, address, portion, ..known }
    }

    /// Nothing is kept of a secondary that was forgotten.
    pub(super) fn remove(&self, instance: InstanceId) {
        self.known.lock().remove(&instance);
    }

    pub(super) fn is_given_up(&self, instance: InstanceId) -> bool {
        self.known.lock().get(&instance).is_some_and(|ward| ward.given_up.is_some())
    }

    pub(super) fn is_paused(&self, instance: InstanceId) -> bool {
        self.known.lock().get(&instance).is_some_and(|ward| ward.paused)
    }

    /// Notes where a secondary listens, if it tells.
    pub(super) fn note_address(&self, instance: InstanceId, address: Option<SocketAddr>) {
        if address.is_some() {
            self.known.lock().entry(instance).or_default().address = address;
        }
    }

    /// Notes what a secondary is to hold, if it is partial.
    pub(super) fn note_portion(&self, instance: InstanceId, portion: Option<&Portion>) {
        let mut wards = self.known.lock();
        let ward = wards.entry(instance).or_default();
        if ward.portion.as_ref() != portion {
            ward.portion = portion.cloned();
        }
    }

    /// A secondary is told by which way it is brought up to date. One that has taken run files in the place of the copies before it was
    /// brought up to date by those: the tail is what it lacks still.
    fn note_welcome(&self, instance: InstanceId, welcome: &Welcome, former: &[InstanceId]) {
        let mut wards = self.known.lock();
        let took_run_files = former.iter().find_map(|before| {
            let moved = wards.get(before)?.moved;
            moved.way.filter(|(way, _)| *way == Way::Bulk).map(|_| moved)
        });
        let begins = Moved {
            way: Some((welcome.way, welcome.reason)),
            bytes: if welcome.way == Way::Bulk { welcome.bytes } else { 0 },
            ..Moved::default()
        };
        wards.entry(instance).or_default().moved = took_run_files.unwrap_or(begins);
    }

    /// Counts what goes to a secondary.
    fn note_sent(&self, instance: InstanceId, message: &Message) {
        let (records, commits, bytes) = match message {
            Message::DeltaChunk(chunk) => (chunk.records.len(), 0, weight(&chunk.records)),
            Message::RewindReply(reply) => (reply.records.len(), 0, weight(&reply.records)),
            Message::RangesReply(reply) => (reply.records.len(), 0, weight(&reply.records)),
            Message::Live(live) => (0, live.commits.len(), live.commits.iter().map(Commit::weight).sum()),
            _ => return,
        };
        let mut wards = self.known.lock();
        let moved = &mut wards.entry(instance).or_default().moved;
        moved.records += records as u64;
        moved.commits += commits as u64;
        moved.bytes += bytes;
    }

    fn set(&self, instance: InstanceId, change: impl FnOnce(&mut Ward)) {
        change(self.known.lock().entry(instance).or_default());
    }
}

fn weight(records: &[Record]) -> u64 {
    records.iter().map(Record::weight).sum()
}

impl Primary {
    /// Notes what goes to a secondary.
    pub(super) fn note_sent(&self, instance: InstanceId, message: &Message) {
        let Message::Welcome(welcome) = message else { return self.wards.note_sent(instance, message) };
        let former: Vec<InstanceId> = self.group.lock().former_of(instance).collect();
        self.wards.note_welcome(instance, welcome, &former);
    }

    /// The secondaries that are registered.
    pub fn replicas(&self) -> Vec<ReplicaState> {
        let group = self.group.lock().clone();
        let wards = self.wards.known.lock().clone();
        let state = |(instance, member): (&InstanceId, &Member)| {
            let ward = wards.get(instance);
            let away = member.session.is_none();
            ReplicaState {
                instance: *instance,
                name: member.name.clone(),
                address: ward.and_then(|ward| ward.address),
                state: match (member.online, away) {
                    _ if ward.is_some_and(|ward| ward.paused) => "paused",
                    (true, _) => "online",
                    (false, false) => "refreshing",
                    (false, true) => "offline",
                },
                promotable: group.promotable().contains(instance),
                durable: member.durable,
                visible: member.visible,
                lag: self.db.lag(member.durable),
                preserved: if away { self.db.preserved(member.durable) } else { Preserved::default() },
                given_up: ward.and_then(|ward| ward.given_up),
                portion: ward.and_then(|ward| ward.portion.clone()),
                moved: ward.map(|ward| ward.moved).unwrap_or_default(),
                went_back: member.went_back,
            }
        };
        group.members().iter().map(state).collect()
    }

    /// Says it where a copy that came with so much lacks what it had acknowledged.
    pub(super) fn warn_if_back(&self, instance: InstanceId, came_with: Uid) {
        let group = self.group.lock();
        let member = group.members().get(&instance);
        let Some((member, back)) = member.and_then(|member| Some((member, member.went_back?))) else {
            return;
        };
        if back.came_with == came_with {
            tracing::warn!(secondary = member.name, "{back}");
        }
    }

    /// The registered secondary of that name or instance.
    pub fn replica_named(&self, named: &str) -> Result<InstanceId, WardError> {
        let group = self.group.lock();
        let is_meant = |(instance, member): &(&InstanceId, &Member)| {
            member.name == named || instance.to_string() == named
        };
        let mut found = group.members().iter().filter(is_meant).map(|(instance, _)| *instance);
        match (found.next(), found.next()) {
            (Some(instance), None) => Ok(instance),
            (None, _) => Err(WardError::Unknown(named.to_owned())),
            (Some(_), Some(_)) => Err(WardError::Ambiguous(named.to_owned())),
        }
    }

    /// Has a secondary wait, durably, or no longer: it stays registered, and is not served.
    pub fn pause(&self, instance: InstanceId, paused: bool) -> Result<()> {
        self.wards.set(instance, |ward| ward.paused = paused);
        self.write_ward(instance)
    }

    /// Forgets a secondary that will not come back: nothing is preserved for it, and it counts for nothing.
    ///
    /// # Errors
    ///
    /// [`WardError::Connected`] while it has a session.
    pub fn forget(&self, instance: InstanceId) -> Result<Result<(), WardError>> {
        let connected = {
            let group = self.group.lock();
            let member = group.members().get(&instance).filter(|member| member.session.is_some());
            member.map(|member| member.name.clone())
        };
        if let Some(name) = connected {
            return Ok(Err(WardError::Connected(name)));
        }
        self.registrar.forget(instance)?;
        self.group.lock().forget(instance);
        self.wards.remove(instance);
        self.after_input();
        Ok(Ok(()))
    }

    /// Does what time asks for: copies that are away for too long leave the promotable set, and what exceeds the caps
    /// is preserved no longer. Call it about once a second.
    pub fn watch(&self) {
        self.group.lock().handle_tick(super::clock::now());
        self.tell_doubts();
        self.register_again();
        self.keep_to_caps();
        self.after_input();
    }

    /// What copies have told that says that this one's directory was copied or put back, since it was started.
    pub fn doubts(&self) -> Vec<String> {
        self.group.lock().doubts().map(ToString::to_string).collect()
    }

    /// Says each of them once.
    fn tell_doubts(&self) {
        let doubts: BTreeSet<String> = self.doubts().into_iter().collect();
        let mut told = self.wards.told.lock();
        for doubt in doubts.difference(&told) {
            tracing::error!("{doubt}");
        }
        *told = doubts;
    }

    /// Writes down how far those are of whom it was too early to do so when they said it, and who have said nothing since.
    fn register_again(&self) {
        let connected: Vec<_> = {
            let group = self.group.lock();
            let connected = group.members().iter().filter(|(_, member)| member.session.is_some());
            connected.map(|(id, member)| (*id, member.name.clone(), member.durable)).collect()
        };
        for (instance, name, durable) in connected {
            if let Err(error) = self.register(instance, name, durable) {
                tracing::warn!(%instance, %error, "its registration could not be written");
            }
        }
    }

    /// Gives up, durably, what is preserved for secondaries beyond the caps, those furthest behind first; and takes up
    /// again those that are up to date.
    fn keep_to_caps(&self) {
        let mut members: Vec<_> = {
            let group = self.group.lock();
            group.members().iter().map(|(instance, member)| (*instance, member.clone())).collect()
        };
        members.sort_by_key(|(_, member)| member.durable);
        for (instance, member) in members {
            let given_up = self.wards.is_given_up(instance);
            if given_up && member.online {
                self.wards.set(instance, |ward| ward.given_up = None);
            } else if let Some(given_up) = self.db.exceeds_cap(member.durable)
                && !self.wards.is_given_up(instance)
                && member.session.is_none()
            {
                tracing::warn!(
                    secondary = %member.name, %instance, bytes = given_up.bytes, age_ms = given_up.age_ms,
                    "preserves nothing for this secondary any more: {given_up}; it will be brought up to date by a reconcile"
                );
                self.wards.set(instance, |ward| ward.given_up = Some(given_up));
            } else {
                continue;
            }
            if let Err(error) = self.write_ward(instance) {
                tracing::warn!(secondary = %member.name, %error, "its registration could not be written");
            }
        }
    }

    /// Writes down what is known of a secondary.
    fn write_ward(&self, instance: InstanceId) -> Result<()> {
        let known = {
            let group = self.group.lock();
            let Some(member) = group.members().get(&instance) else { return Ok(()) };
            Registration::new(instance, member.name.clone(), member.durable)
        };
        self.registrar.persist(&[self.wards.describe(known)], super::clock::now())
    }
}

#[cfg(test)]
#[path = "wards_tests.rs"]
mod tests;
