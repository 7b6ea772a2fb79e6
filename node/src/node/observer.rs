use std::sync::Arc;

use planaria_net::replica::FollowStatus;
use planaria_net::wire::message::{DatabaseStatus, ReplicaInfo};

use super::companion::NodeCompanion;
use super::leadership::Leadership;
use crate::clones::Clones;
use crate::handler::{Companion, database_status};

/// Whoever looks at a node from inside its process.
#[derive(Clone)]
pub(crate) struct Observer {
    pub(super) name: String,
    pub(super) leadership: Arc<Leadership>,
    pub(super) clones: Arc<Clones>,
}

/// What was seen.
pub(crate) struct Observed {
    /// The database, as `planaria status` tells it.
    pub(crate) status: DatabaseStatus,
    /// What lies below.
    pub(crate) engine: planaria_engine::Status,
    /// The secondaries of a primary.
    pub(crate) replicas: Vec<ReplicaInfo>,
    /// What a secondary does.
    pub(crate) following: Option<FollowStatus>,
}

impl Observer {
    /// Looks.
    ///
    /// # Errors
    ///
    /// If the database cannot tell its state.
    pub(crate) fn observe(&self) -> planaria_engine::Result<Observed> {
        let db = self.leadership.slot.get();
        let engine = db.status()?;
        let mut status = database_status(&self.name, &db, &engine);
        let clones = Arc::clone(&self.clones);
        let companion = NodeCompanion { leadership: Arc::clone(&self.leadership), shaper: None, clones };
        companion.describe(&mut status);
        let following = self.leadership.following().map(|(_, following)| following);
        Ok(Observed { status, engine, replicas: companion.replicas(), following })
    }
}

impl Observed {
    /// Whether reads here show what the primary has: a primary that leads, a secondary that is online.
    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.status.state.as_str(), "primary" | "online")
    }
}
