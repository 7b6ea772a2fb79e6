//! What is done with clones that nobody takes any more. Their files are worked on without the lock of all clones: whoever asks for
//! this one meanwhile hears that it is busy, and nobody else waits.

use parking_lot::MutexGuard;
use planaria_engine::{CloneAbout, ClonePlace, Error};
use planaria_net::wire::message::{CloneInfo, RemoteError};

use super::ledger::{CloneJob, CloneState, Entry, order_of};
use super::{Clones, Shared, Sketch, State, known_mut};
use crate::handler::remote;

impl Clones {
    /// Deletes a clone and what it has replaced, and forgets it.
    ///
    /// # Errors
    ///
    /// `unknown_clone`; `running` while it comes in, `in_use` while a process has it open, `busy` while somebody works on its files.
    pub(crate) fn delete(&self, name: &str) -> Result<CloneInfo, RemoteError> {
        let shared = &self.shared;
        let remove = |entry: &Entry, place: &ClonePlace| match entry.state {
            CloneState::Complete => shared.remove_files(entry).map(drop),
            // What came in of it was kept for another source.
            CloneState::Failed if order_of(name).is_some() => place.abandon().map(drop).map_err(remote),
            CloneState::Failed => shared.remove_waiting(entry),
            _ => Ok(()),
        };
        let (mut state, ()) = shared.in_hand(name, "deleted", Shared::idle, remove)?;
        let sketch = Sketch::of(known_mut(&mut state, name)?);
        state.clones.remove(name);
        shared.save(&state)?;
        drop(state);
        Ok(shared.finish(sketch))
    }

    /// Ends the life of a clone now: its directory goes, it stays listed.
    ///
    /// # Errors
    ///
    /// As [`Clones::delete`].
    pub(crate) fn expire(&self, name: &str) -> Result<CloneInfo, RemoteError> {
        self.shared.end(name, "somebody ended its life")
    }

    /// Has a clone live so many seconds from now on, or for ever.
    ///
    /// # Errors
    ///
    /// `unknown_clone`, `running`, `busy`.
    pub(crate) fn live(&self, name: &str, for_s: Option<u64>) -> Result<CloneInfo, RemoteError> {
        let shared = &self.shared;
        let now_ms = shared.taker.engine.os.now_millis();
        let expires_ms = for_s.map(|for_s| now_ms.saturating_add(for_s.saturating_mul(1_000)));
        let write_down = |entry: &Entry, place: &ClonePlace| {
            let about = place.about().map_err(remote)?.unwrap_or_else(|| CloneAbout {
                name: name.to_owned(),
                purpose: entry.job.purpose,
                made_ms: now_ms,
                ..CloneAbout::default()
            });
            place.set_about(&CloneAbout { expires_ms, ..about }).map_err(remote)
        };
        let doing = "given another end";
        let (mut state, ()) = shared.in_hand(name, doing, Shared::complete, write_down)?;
        known_mut(&mut state, name)?.entry.expires_ms = expires_ms;
        shared.save(&state)?;
        shared.changed.notify_all();
        shared.info(state, name)
    }

    /// Makes a clone that was a standby or a backup a database of its own.
    ///
    /// # Errors
    ///
    /// `unknown_clone`, `running`, `in_use`, `busy`, `invalid` if it is one already.
    pub(crate) fn promote(&self, name: &str) -> Result<CloneInfo, RemoteError> {
        let shared = &self.shared;
        let promote =
            |_: &Entry, place: &ClonePlace| place.promote(&shared.taker.engine).map(drop).map_err(remote);
        let (mut state, ()) = shared.in_hand(name, "promoted", Shared::complete, promote)?;
        let known = known_mut(&mut state, name)?;
        known.view = None;
        known.entry.job.purpose = planaria_engine::ClonePurpose::Detached;
        known.entry.expires_ms = None;
        shared.save(&state)?;
        shared.info(state, name)
    }

    /// Puts back what a clone has replaced; the clone is kept in its stead.
    ///
    /// # Errors
    ///
    /// `unknown_clone`, `running`, `in_use`, `busy`, `not_found` if nothing is kept.
    pub(crate) fn roll_back(&self, name: &str) -> Result<CloneInfo, RemoteError> {
        let shared = &self.shared;
        let roll_back = |_: &Entry, place: &ClonePlace| match place.roll_back() {
            Err(Error::NotFound { .. }) => Err(nothing_kept(name)),
            done => done.map_err(remote),
        };
        let (mut state, ()) = shared.in_hand(name, "rolled back", Shared::complete, roll_back)?;
        let known = known_mut(&mut state, name)?;
        known.view = None;
        let entry = &mut known.entry;
        entry.reasons.push("what it had replaced was put back, and is replaced by it no more".into());
        shared.save(&state)?;
        shared.info(state, name)
    }

    /// Deletes what a clone has replaced.
    ///
    /// # Errors
    ///
    /// `unknown_clone`, `running`, `in_use`, `busy`, `not_found` if nothing is kept.
    pub(crate) fn delete_old(&self, name: &str) -> Result<CloneInfo, RemoteError> {
        let drop_replaced = |_: &Entry, place: &ClonePlace| {
            if place.drop_replaced().map_err(remote)? {
                return Ok(());
            }
            Err(nothing_kept(name))
        };
        let doing = "relieved of what it has replaced";
        let (state, ()) = self.shared.in_hand(name, doing, Shared::complete, drop_replaced)?;
        self.shared.info(state, name)
    }
}

impl Shared {
    /// Ends a clone's life.
    pub(super) fn end(&self, name: &str, why: &str) -> Result<CloneInfo, RemoteError> {
        let remove = |entry: &Entry, _: &ClonePlace| self.remove_files(entry);
        let (mut state, is_free) = self.in_hand(name, "removed", Self::complete, remove)?;
        let known = known_mut(&mut state, name)?;
        known.view = None;
        let entry = &mut known.entry;
        entry.state = CloneState::Expired;
        entry.reasons.push(why.to_owned());
        if !is_free {
            entry.reasons.push("what has come into its place stays".into());
        }
        self.save(&state)?;
        self.info(state, name)
    }

    /// Works on the files of a clone that is as `check` says, without the lock. With what came of it the lock is returned: what is
    /// written down under it is what others see next.
    fn in_hand<T>(
        &self,
        name: &str,
        doing: &'static str,
        check: impl FnOnce(&State, &str) -> Result<Entry, RemoteError>,
        work: impl FnOnce(&Entry, &ClonePlace) -> Result<T, RemoteError>,
    ) -> Result<(MutexGuard<'_, State>, T), RemoteError> {
        let hand;
        let mut state = self.state.lock();
        if state.is_closing {
            return Err(RemoteError::cancelled());
        }
        let entry = check(&state, name)?;
        known_mut(&mut state, name)?.busy = Some(doing);
        hand = Hand { shared: self, name };
        let done = MutexGuard::unlocked(&mut state, || work(&entry, &self.place(&entry.job.dir)));
        hand.open(&mut state);
        Ok((state, done?))
    }

    /// Removes what came of a clone that is to be none. What is whole and only lacks its place stays, and so does what somebody
    /// else is at work on.
    pub(super) fn remove_surplus(
        &self,
        job: &CloneJob,
        taken: &planaria_net::Result<()>,
    ) -> planaria_engine::Result<()> {
        let place = self.place(&job.dir);
        match taken {
            // It was complete before it heard of it.
            Ok(()) if job.replace && place.has_replaced() => {
                place.roll_back().and_then(|()| place.drop_replaced()).map(drop)
            }
            Ok(()) => place.remove().map(drop),
            Err(planaria_net::Error::Engine(Error::Busy { .. } | Error::NotExchanged { .. })) => Ok(()),
            Err(_) => place.abandon().map(drop),
        }
    }
}

fn nothing_kept(name: &str) -> RemoteError {
    RemoteError::new("not_found", format!("nothing that the clone {name:?} has replaced is kept"))
        .with_hint("a clone that is created with --replace keeps what was in its place")
}

/// Has a clone be busy no more when work on its files has ended, be it by a panic.
struct Hand<'a> {
    shared: &'a Shared,
    name: &'a str,
}

impl Hand<'_> {
    fn open(self, state: &mut State) {
        self.let_go(state);
        // It would ask for the lock, which is held.
        std::mem::forget(self);
    }

    fn let_go(&self, state: &mut State) {
        if let Some(known) = state.clones.get_mut(self.name) {
            known.busy = None;
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for Hand<'_> {
    fn drop(&mut self) {
        self.let_go(&mut self.shared.state.lock());
    }
}
