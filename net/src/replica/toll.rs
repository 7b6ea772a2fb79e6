use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use planaria_replication::Message;

use super::Pace;
use crate::Result;
use crate::quic::session::BulkReceiver;

/// What a copy takes in at a rate: what came in too early waits, and the bulk lane is not read meanwhile.
///
/// The control lane is always read, so that whether the primary is there is known at any time. What waits of it is bounded by
/// the window of the live stream, since nothing is acknowledged that was not looked at.
#[derive(Default)]
pub(super) struct Toll {
    pace: Option<Arc<Pace>>,
    held: VecDeque<Message>,
}

impl Toll {
    /// A toll at this pace; without one everything passes at once.
    pub(super) fn new(pace: Option<Arc<Pace>>) -> Self {
        Self { pace, held: VecDeque::new() }
    }

    /// Counts a message of the control lane. Gives it back if it may be looked at now; else it waits for its turn.
    pub(super) fn admit(&mut self, message: Message, bytes: u64) -> Option<Message> {
        let Some(pace) = &self.pace else { return Some(message) };
        let is_owing = pace.is_owing();
        pace.count(bytes);
        if matches!(message, Message::Heartbeat) || (self.held.is_empty() && !is_owing) {
            return Some(message);
        }
        self.held.push_back(message);
        None
    }

    /// Completes when a message that waits may be looked at; never if none does. May be dropped at any time.
    pub(super) async fn due(&self) {
        match &self.pace {
            // One that is given up is ended by whoever gave it up; until then nothing more is looked at.
            Some(pace) if !self.held.is_empty() && pace.paid().await.is_ok() => {}
            _ => std::future::pending().await,
        }
    }

    /// The message that has waited longest.
    pub(super) fn next_held(&mut self) -> Option<Message> {
        self.held.pop_front()
    }

    /// The next message of the bulk lane, once what came before is paid for. May be dropped at any time without loss.
    pub(super) async fn receive(&self, bulk: &mut BulkReceiver) -> Result<Option<Bytes>> {
        let Some(pace) = &self.pace else { return bulk.next().await };
        pace.paid().await?;
        let message = bulk.next().await?;
        pace.count(message.as_ref().map_or(0, |message| message.len() as u64));
        Ok(message)
    }

    /// The session is over: what came of it and was not looked at is dropped.
    pub(super) fn forget(&mut self) {
        self.held.clear();
    }
}
