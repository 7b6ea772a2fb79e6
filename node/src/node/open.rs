//! Opening the database that a node serves.

use std::net::SocketAddr;

use planaria_engine::{Database, Error, Options};
use planaria_net::quic::Credentials;
use planaria_net::replica::{CloneProgress, join_primary, open_secondary as open_or_copy};
use planaria_net::wire::control::{ControlRequest, ControlResponse, LeadInfo};
use tokio::runtime::Runtime;

use super::NodeOptions;
use crate::cluster::ControlClient;
use crate::output::CliError;

/// A database that was opened to be served.
pub(super) struct Opened {
    pub(super) db: Database,
    /// What the first copy took, if there was one.
    pub(super) first_copy: Option<CloneProgress>,
    /// Whom it follows.
    pub(super) replica_of: Option<SocketAddr>,
}

impl Opened {
    /// One that follows nobody, as far as is known.
    pub(super) fn alone(db: Database) -> Self {
        Self { db, first_copy: None, replica_of: None }
    }
}

/// Opens a secondary's directory; an empty one is filled with the primary's run files first.
pub(super) fn open_secondary(
    runtime: &Runtime,
    options: &NodeOptions,
    primary: SocketAddr,
    credentials: &Credentials,
    progress: impl Fn(&CloneProgress) + Send + Sync + 'static,
) -> Result<Opened, CliError> {
    let dir = &options.dir;
    match Database::open_with(dir, Options { create: false, ..options.engine.clone() }) {
        Ok(db) => {
            // The lead may have moved since the command line was written; to this copy, even.
            let primary = match leader_by_control(runtime, options, &db, credentials) {
                Some(lead) if lead.instance == db.instance() => return Ok(Opened::alone(db)),
                Some(lead) => lead.address,
                None => primary,
            };
            runtime.block_on(join_primary(&db, dir, primary, credentials))?;
            Ok(Opened { db, first_copy: None, replica_of: Some(primary) })
        }
        Err(Error::NotFound { .. }) => {
            let copied = open_or_copy(dir, primary, credentials, &options.engine, progress);
            let (db, first_copy) = runtime.block_on(copied)?;
            Ok(Opened { db, first_copy, replica_of: Some(primary) })
        }
        Err(error) => Err(error.into()),
    }
}

/// Who leads a database, as the control center knows; none if it cannot be asked, or does not know either.
fn leader_by_control(
    runtime: &Runtime,
    options: &NodeOptions,
    db: &Database,
    credentials: &Credentials,
) -> Option<LeadInfo> {
    let membership = options.membership.as_ref()?;
    let asked = ControlClient::connect(runtime.handle(), membership.control, credentials)
        .and_then(|client| client.call(ControlRequest::Leads));
    match asked {
        Ok(ControlResponse::Leads(leads)) => leads.into_iter().find(|lead| lead.database == db.id()),
        Ok(_) => None,
        Err(error) => {
            tracing::warn!(%error, "the control center cannot say who leads: the command line holds");
            None
        }
    }
}
