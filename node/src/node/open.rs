//! Opening the database that a node serves.

use std::net::SocketAddr;

use planaria_engine::{Database, Error, Options, TableDef};
use planaria_net::quic::Credentials;
use planaria_net::replica::{
    CloneProgress, Joined, database_at, join_primary, open_partial as partial_or_new,
    open_secondary as open_or_copy,
};
use planaria_net::wire::client::Client;
use planaria_net::wire::control::{ControlRequest, ControlResponse, LeadInfo};
use planaria_net::wire::message::{DatabaseStatus, Request, Response};
use planaria_types::{InstanceId, Portion};
use tokio::runtime::Runtime;

use super::NodeOptions;
use crate::cluster::ControlClient;
use crate::output::CliError;
use crate::portion_text::{Chosen, portion_of};

/// A database that was opened to be served.
pub(super) struct Opened {
    pub(super) db: Database,
    /// What the first copy took, and where it came from, if there was one.
    pub(super) first_copy: Option<(CloneProgress, SocketAddr)>,
    /// Whom it follows.
    pub(super) replica_of: Option<SocketAddr>,
    /// What it is to hold, if it is a partial secondary.
    pub(super) portion: Option<Portion>,
    /// What became of siblings that were to bring it.
    pub(super) note: Option<String>,
}

impl Opened {
    /// One that follows nobody, as far as is known.
    pub(super) fn alone(db: Database) -> Self {
        Self { db, first_copy: None, replica_of: None, portion: None, note: None }
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
    if !options.only.is_empty() {
        return open_partial(runtime, options, primary, credentials);
    }
    match Database::open_with(dir, Options { create: false, ..options.engine.clone() }) {
        Ok(db) => {
            // The lead may have moved since the command line was written; to this copy, even.
            let primary = match leader_by_control(runtime, options, &db, credentials) {
                Some(lead) if lead.instance == db.instance() => return Ok(Opened::alone(db)),
                Some(lead) => {
                    let there =
                        runtime.block_on(database_at(lead.address, credentials)).map_err(CliError::from);
                    address_to_follow(primary, &lead, there, db.instance())
                }
                None => primary,
            };
            runtime.block_on(join_primary(&db, dir, primary, credentials))?;
            Ok(Opened { db, first_copy: None, replica_of: Some(primary), portion: None, note: None })
        }
        Err(Error::NotFound { .. }) => {
            let siblings = &options.refresh_from;
            let network = (credentials, &options.transport);
            let copied = open_or_copy(dir, primary, siblings, network, &options.engine, progress);
            let Joined { db, first_copy, note } = runtime.block_on(copied)?;
            Ok(Opened { db, first_copy, replica_of: Some(primary), portion: None, note })
        }
        Err(error) => Err(error.into()),
    }
}

/// Opens the directory of a partial secondary, which is filled by its first round.
fn open_partial(
    runtime: &Runtime,
    options: &NodeOptions,
    primary: SocketAddr,
    credentials: &Credentials,
) -> Result<Opened, CliError> {
    let opened = partial_or_new(&options.dir, primary, credentials, &options.engine);
    let db = runtime.block_on(opened)?;
    let primary = match leader_by_control(runtime, options, &db, credentials) {
        Some(lead) => {
            let there = runtime.block_on(database_at(lead.address, credentials)).map_err(CliError::from);
            address_to_follow(primary, &lead, there, db.instance())
        }
        None => primary,
    };
    // What is known here suffices while the primary is away.
    let mut tables = db.tables()?;
    let is_unknown = |chosen: &Chosen| chosen.is_range() && !tables.iter().any(|table| chosen.is_of(table));
    if options.only.iter().any(is_unknown) {
        tables = runtime.block_on(tables_at(primary, credentials))?;
    }
    let portion = portion_of(&options.only, &tables)?;
    Ok(Opened { db, first_copy: None, replica_of: Some(primary), portion: Some(portion), note: None })
}

/// The tables of the database that a node hosts.
async fn tables_at(address: SocketAddr, credentials: &Credentials) -> Result<Vec<TableDef>, CliError> {
    let client = Client::connect(address, credentials).await?;
    let answer = client.call(Request::TableList).await;
    client.close().await;
    let Response::Tables(tables) = answer? else {
        return Err(CliError::new(
            "protocol",
            format!("the node at {address} gave an answer to another question"),
        ));
    };
    tables.iter().map(|table| Ok(TableDef::decode(&table.definition)?)).collect()
}

/// Where to follow the one that leads: where the control center has it, if it answers there, else where the command line says.
///
/// The control center knows a node by the address that it was reached from. One beside it may have come over loopback: from
/// here that is this machine, or this very node.
fn address_to_follow(
    by_command_line: SocketAddr,
    lead: &LeadInfo,
    there: Result<DatabaseStatus, CliError>,
    own: InstanceId,
) -> SocketAddr {
    let trouble = match there {
        Ok(there) if there.database != lead.database => format!("it has database {}", there.database),
        Ok(there) if there.instance == own => "it is this one".to_owned(),
        Ok(there) if there.state != "primary" => format!("it does not lead, and is {}", there.state),
        Ok(_) => return lead.address,
        Err(error) => error.to_string(),
    };
    tracing::warn!(
        address = %lead.address, trouble,
        "the node that leads, by the control center, is not at the address that it gives: the command line holds"
    );
    by_command_line
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

#[cfg(test)]
mod tests {
    use planaria_types::{DatabaseId, Epoch};

    use super::*;

    #[test]
    fn the_control_centers_address_is_taken_if_the_primary_answers_there() {
        let by_command_line = SocketAddr::from(([10, 0, 0, 1], 4747));
        let own = InstanceId(1);
        let lead = LeadInfo {
            database: DatabaseId(7),
            instance: InstanceId(2),
            epoch: Epoch::NONE,
            address: SocketAddr::from(([127, 0, 0, 1], 4747)),
        };
        let primary = DatabaseStatus {
            database: DatabaseId(7),
            instance: InstanceId(2),
            state: "primary".into(),
            ..DatabaseStatus::default()
        };
        let chosen = |there| address_to_follow(by_command_line, &lead, there, own);
        assert_eq!(chosen(Ok(primary.clone())), lead.address);
        // The lead may have moved on since the control center heard of it.
        assert_eq!(chosen(Ok(DatabaseStatus { instance: InstanceId(3), ..primary.clone() })), lead.address);
        let elsewhere = [
            Ok(DatabaseStatus { instance: own, ..primary.clone() }),
            Ok(DatabaseStatus { database: DatabaseId(8), ..primary.clone() }),
            Ok(DatabaseStatus { state: "online".into(), ..primary }),
            Err(CliError::new("unreachable", "nobody listens")),
        ];
        for there in elsewhere {
            assert_eq!(chosen(there), by_command_line);
        }
    }
}
