//! What a copy that follows may feed others on.

use planaria_types::{Epoch, Uid};

use super::action::{Action, Local};
use super::replica::{Phase, Replica};
use super::session::End;
use crate::options::planted;
use crate::{ByeCode, CHAIN_MAX, Feed, Reason, Welcome};

impl Action {
    /// Whether carrying it out changes what was fed already, and not just adds to it: whoever is fed must have been told
    /// before that it ends ([`crate::primary::Group::handle_feed`] with nothing). So must they before run files that were fetched
    /// take the copy's place; while they are fetched they are fed as before.
    pub const fn disturbs_feed(&self) -> bool {
        matches!(self, Self::TakeBack(..) | Self::Install(_))
    }
}

/// The epoch that what a copy shows belongs to for certain, if it is the one promised.
pub(super) fn shown_under(local: &Local, promised: Epoch) -> Option<Epoch> {
    let shown = local.history.epoch_of(local.visible);
    (local.visible > Uid::ZERO && shown == promised).then_some(promised)
}

impl Replica {
    /// What others may be fed on, once everything has been carried out that [`Replica::poll_action`] gave; `None` while
    /// that is not known to be of the history that is followed, or is about to be replaced.
    pub fn feed(&self) -> Option<Feed> {
        if self.partial.is_some() {
            // What it lacks it could not pass on.
            return None;
        }
        let epoch = self.feeds_under.filter(|epoch| *epoch == self.promised && !self.unpromised)?;
        // What was asked for and not done yet may be a promise, a history, or a cut.
        let is_settled = self.actions.is_empty() && !matches!(self.phase, Phase::Installing(_));
        let cut = if planted!(self.options, FeedBeyondCut) {
            self.local.appended
        } else {
            self.local.visible.min(self.local.durable)
        };
        if !is_settled || cut == Uid::ZERO {
            return None;
        }
        Some(Feed {
            epoch,
            history: self.local.history.clone(),
            cut,
            stable: self.status().stable,
            closed: self.closed_in_full(),
            chain: self.status.chain.clone(),
        })
    }

    /// Whether actions wait to be polled: until they are carried out nothing new may be fed.
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// A copy that follows itself over others would wait for its own commits.
    pub(super) fn check_chain(&self, welcome: &Welcome) -> Result<(), End> {
        if welcome.chain.contains(&self.identity.instance) {
            let what = "the copy that is followed follows this one: have one of them follow the primary";
            return Err((ByeCode::Loop, what.to_owned()));
        }
        Ok(())
    }

    /// Whether the copy shows nothing but what the welcome's history has.
    pub(super) fn agrees(&self, welcome: &Welcome) -> bool {
        self.local.visible <= welcome.fork.uid && welcome.reason != Reason::HistoryHash
    }

    /// Notes whom the copy follows. Nobody is fed any more, unless that is what it was fed on before.
    pub(super) fn note_source(&mut self, welcome: &Welcome) {
        self.status.fed = welcome.fed;
        self.status.chain.clone_from(&welcome.chain);
        self.status.chain.truncate(CHAIN_MAX);
        if !self.agrees(welcome) {
            self.feeds_under = None;
        }
    }
}

#[cfg(test)]
#[path = "feed_tests.rs"]
mod tests;
