//! A copy that follows, and feeds others on what it has: it leads nothing, and its sessions know no other difference.

use planaria_types::{Epoch, EpochOrder, History, InstanceId, Position, Uid};

use super::group::{Group, Identity};
use crate::options::planted;
use crate::{CHAIN_MAX, Feed, Hello, Options, Refusal, fork};

/// What a feeding group knows of the feed.
#[derive(Clone, Debug, Default)]
pub(super) struct Feeding {
    /// What it was last, while there is one.
    feed: Option<Feed>,
    /// Rises when what was fed goes on no more: sessions that began before it are over.
    generation: u64,
}

impl Feeding {
    pub(super) fn stable(&self) -> Uid {
        self.feed.as_ref().map_or(Uid::ZERO, |feed| feed.stable)
    }
}

impl Group {
    /// A group that leads nothing: it feeds others on what its copy follows, as soon as [`Group::handle_feed`] tells of it.
    ///
    /// Nobody who is fed is promotable or counts for a level, and no epoch deposes it. That they are members holds
    /// floors at this copy alone.
    pub fn feeding(identity: Identity, options: Options) -> Self {
        let mut group = Self::new(identity, options, Epoch::NONE, History::default(), Uid::ZERO);
        group.feeding = Some(Feeding::default());
        group
    }

    /// What the copy may feed others on now, as [`crate::secondary::Replica::feed`] says.
    ///
    /// With nothing, or with what does not go on from before, all sessions end: their copies say hello again, and the
    /// fork decides. Nothing must be told **before** the copy carries out what changes that which was fed: an answer to
    /// a read that saw the change then comes too late to be sent.
    pub fn handle_feed(&mut self, feed: Option<Feed>) {
        let ignores = planted!(self.options, FeedThroughFork);
        let Some(feeding) = &mut self.feeding else { return };
        let goes_on = match (&feeding.feed, &feed) {
            (Some(before), Some(now)) => now.continues(before),
            (None, None) => true,
            _ => ignores,
        };
        feeding.generation += u64::from(!goes_on);
        if let Some(feed) = &feed {
            self.epoch = feed.epoch;
            self.history.clone_from(&feed.history);
            self.appended = feed.cut;
            self.durable = feed.cut;
            self.closed = feed.closed;
        }
        if feed.is_some() || !ignores {
            feeding.feed = feed;
        }
    }

    /// Whether others are fed here, and nobody is led.
    pub fn is_feeding(&self) -> bool {
        self.feeding.is_some()
    }

    /// Whether there is something to feed others on.
    pub fn has_feed(&self) -> bool {
        self.feeding.as_ref().is_some_and(|feeding| feeding.feed.is_some())
    }

    /// Changes when all sessions are over that began before.
    pub fn generation(&self) -> u64 {
        self.feeding.as_ref().map_or(self.incarnations, |feeding| feeding.generation)
    }

    /// The copies that commits come through, from this one to the primary, as far as is known.
    pub fn chain(&self) -> Vec<InstanceId> {
        let feed = self.feeding.as_ref().and_then(|feeding| feeding.feed.as_ref());
        let before = feed.map(|feed| &feed.chain[..]).unwrap_or_default();
        std::iter::once(self.identity().instance).chain(before.iter().copied()).collect()
    }

    /// Why a copy cannot be fed now, if so.
    pub(super) fn why_not_fed(&self, hello: &Hello) -> Option<Refusal> {
        let feed = self.feeding.as_ref()?.feed.as_ref();
        let Some(feed) = feed else { return Some(Refusal::NotReady) };
        if feed.chain.contains(&hello.instance) {
            return Some(Refusal::Loop);
        }
        if feed.chain.len() >= CHAIN_MAX {
            return Some(Refusal::TooDeep);
        }
        (hello.promised.order(&feed.epoch) == EpochOrder::Newer).then_some(Refusal::Behind)
    }

    /// The last position that a copy shares with this one.
    ///
    /// One that is fed may have more than the copy that feeds it: the cut of that may be behind after a start, or
    /// behind the copy that fed it before. Nothing is taken back for that, so how far they agree is asked of the histories alone.
    /// Nor is anything taken back by a history that ends before an epoch that the other one knows: a copy that is being refreshed follows that
    /// epoch and does not have it yet.
    pub(super) fn shared_with(&self, hello: &Hello) -> Result<Position, Refusal> {
        let shared = fork(self.history(), self.appended(), &hello.history, hello.durable);
        if self.is_feeding() && !planted!(self.options, TakeBackToFeeder) {
            let agreed = fork(self.history(), Uid::MAX, &hello.history, hello.durable);
            let is_older = hello.history.current().order(&self.history().current()) == EpochOrder::Newer;
            let is_behind =
                |agreed: Position| agreed.uid > self.appended() || (is_older && agreed.uid < hello.durable);
            if agreed.is_some_and(is_behind) {
                return Err(Refusal::Behind);
            }
        }
        shared.ok_or(Refusal::UnrelatedHistory)
    }
}

#[cfg(test)]
#[path = "feeding_tests.rs"]
mod tests;
