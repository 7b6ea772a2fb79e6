//! Where a copy that is behind is refreshed from: from one of its siblings first, and from the primary for the tail.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use planaria_engine::Database;
use planaria_replication::{Reason, Way, Welcome};
use planaria_types::{DatabaseId, Epoch, EpochOrder, InstanceId, Uid};

use super::join::database_at;
use crate::quic::Credentials;
use crate::wire::message::DatabaseStatus;

/// How long a sibling has to say what it has. The primary's session waits meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// What a copy needs of a sibling.
#[derive(Clone, Copy, Debug)]
pub(super) struct Need {
    pub(super) database: DatabaseId,
    /// The copy that asks; none if it is yet to be made.
    pub(super) instance: Option<InstanceId>,
    /// The epoch that the primary leads under.
    pub(super) epoch: Epoch,
    /// More than this.
    pub(super) above: Uid,
}

impl Need {
    /// Why a sibling is of no use, if it is not.
    pub(super) fn refuses(&self, there: &DatabaseStatus) -> Option<String> {
        if there.database != self.database {
            return Some(format!("it has database {}", there.database));
        }
        if Some(there.instance) == self.instance {
            return Some("it is this copy".to_owned());
        }
        if there.epoch.order(&self.epoch) != EpochOrder::Same {
            return Some(format!("it follows epoch {}, the primary leads under {}", there.epoch, self.epoch));
        }
        if there.visible <= self.above {
            return Some(format!("it shows {}, and this copy has {}", there.visible, self.above));
        }
        None
    }

    /// Asks a sibling, and gives the reason if it is of no use.
    pub(super) async fn ask(&self, sibling: SocketAddr, credentials: &Credentials) -> Result<(), String> {
        match tokio::time::timeout(ANSWER_WITHIN, database_at(sibling, credentials)).await {
            Ok(Ok(there)) => self.refuses(&there).map_or(Ok(()), Err),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it does not answer in time".to_owned()),
        }
    }
}

/// The way of a copy over its siblings. Each of them is asked once in an absence, which ends when the copy is online at
/// its primary.
#[derive(Debug, Default)]
pub(super) struct Detour {
    siblings: Vec<SocketAddr>,
    /// Those that were not asked in this absence.
    left: VecDeque<SocketAddr>,
    /// The one that is followed now.
    at: Option<SocketAddr>,
    /// What became of it last, for people.
    note: Option<String>,
}

impl Detour {
    pub(super) fn new(siblings: Vec<SocketAddr>, note: Option<String>) -> Self {
        let left = siblings.iter().copied().collect();
        Self { siblings, left, at: None, note }
    }

    /// The sibling that is followed now instead of the primary.
    pub(super) fn at(&self) -> Option<SocketAddr> {
        self.at
    }

    pub(super) fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// Whether siblings are to be asked before the primary refreshes the copy in this way.
    pub(super) fn is_due(&self, welcome: &Welcome) -> bool {
        let is_refresh = welcome.way != Way::Tail && welcome.reason != Reason::Asked;
        self.at.is_none() && is_refresh && !self.left.is_empty()
    }

    /// Chooses the next sibling that has what `copy` lacks, and tells whether there is one.
    pub(super) async fn choose(&mut self, copy: &Database, epoch: Epoch, credentials: &Credentials) -> bool {
        let need =
            Need { database: copy.id(), instance: Some(copy.instance()), epoch, above: copy.durable() };
        let mut troubles = Vec::new();
        while let Some(sibling) = self.left.pop_front() {
            match need.ask(sibling, credentials).await {
                Ok(()) => {
                    tracing::info!(%sibling, "is refreshed from a sibling first");
                    self.note = Some(format!("is refreshed from {sibling}"));
                    self.at = Some(sibling);
                    return true;
                }
                Err(why) => troubles.push(format!("{sibling} is of no use ({why})")),
            }
        }
        self.fall_back(&troubles.join("; "));
        false
    }

    /// The session with a sibling is over before the copy had what that has.
    pub(super) fn broke_off(&mut self, why: &str) {
        if let Some(sibling) = self.at.take() {
            self.fall_back(&format!("{sibling} did not bring it up to date ({why})"));
        }
    }

    /// The copy has what the sibling had: it goes back to its primary.
    pub(super) fn reached(&mut self, way: Option<Way>) {
        if let Some(sibling) = self.at.take() {
            let way = way.map(|way| format!(" by {way}")).unwrap_or_default();
            tracing::info!(%sibling, way, "was refreshed from a sibling");
            self.note = Some(format!("was refreshed from {sibling}{way}"));
        }
    }

    /// The copy is online at its primary: the next absence is another one.
    pub(super) fn end_absence(&mut self) {
        if self.at.is_none() && self.left.len() < self.siblings.len() {
            self.left = self.siblings.iter().copied().collect();
        }
    }

    fn fall_back(&mut self, why: &str) {
        tracing::warn!(why, "no sibling refreshes the copy: the primary does");
        self.note = Some(format!("is refreshed from the primary: {why}"));
    }
}

#[cfg(test)]
mod tests {
    use planaria_types::{DatabaseId, Epoch, InstanceId, Uid};

    use super::{DatabaseStatus, Need};

    #[test]
    fn a_sibling_is_of_use_if_it_has_more_of_the_same_history() {
        let epoch = |term| Epoch { term, incarnation: 1, nonce: term };
        let need = Need {
            database: DatabaseId(7),
            instance: Some(InstanceId(1)),
            epoch: epoch(3),
            above: Uid::new(10),
        };
        let there = DatabaseStatus {
            database: DatabaseId(7),
            instance: InstanceId(2),
            epoch: epoch(3),
            visible: Uid::new(11),
            ..DatabaseStatus::default()
        };
        assert_eq!(need.refuses(&there), None);
        let refused = |there: DatabaseStatus, word: &str| {
            let why = need.refuses(&there).expect("it is of no use");
            assert!(why.contains(word), "{why}");
        };
        refused(DatabaseStatus { database: DatabaseId(8), ..there.clone() }, "database");
        refused(DatabaseStatus { instance: InstanceId(1), ..there.clone() }, "this copy");
        refused(DatabaseStatus { epoch: epoch(2), ..there.clone() }, "epoch");
        refused(DatabaseStatus { visible: Uid::new(10), ..there }, "shows");
    }
}
