//! `planaria cluster store`.

use planaria_net::wire::control::{ControlRequest, ControlResponse};
use planaria_net::wire::stores::StoreInfo;
use planaria_replication::control::Labels;

use super::cluster::{ask, text, time, write};
use crate::cli::{Global, StoreCommand};
use crate::cluster::wrong_answer;
use crate::output::{Cell, CliError};

pub(super) fn stores(global: &Global, command: &StoreCommand) -> Result<(), CliError> {
    let (center, request) = match command {
        StoreCommand::Add(arguments) => {
            let (database, spec) = (Some(arguments.database.clone()), arguments.spec());
            (&arguments.center, ControlRequest::SetStore { database, spec })
        }
        StoreCommand::List(center) => (center, ControlRequest::Stores),
        StoreCommand::Remove { database, place, center } => {
            let (database, place) = (Some(database.clone()), place.clone());
            (center, ControlRequest::RemoveStore { database, place })
        }
    };
    let ControlResponse::Stores(stores) = ask(global, center, request)? else {
        return Err(wrong_answer(center.address()?));
    };
    let headings = [
        "store",
        "database",
        "state",
        "backup",
        "update_time",
        "uid",
        "taken",
        "#bytes",
        "#backups",
        "#keep",
        "labels",
        "nodes",
        "note",
    ];
    let row = |store: StoreInfo| {
        let labels = Labels(store.spec.labels.into_iter().collect());
        let newest = store.newest.as_ref();
        vec![
            store.spec.place.into(),
            store.database.into(),
            store.state.into(),
            newest.map_or(Cell::None, |backup| backup.name.clone().into()),
            newest.map_or(Cell::None, |backup| time(backup.position.uid.millis())),
            newest.map_or(Cell::None, |backup| backup.position.uid.to_string().into()),
            newest.map_or(Cell::None, |backup| time(backup.taken_ms)),
            newest.map_or(Cell::None, |backup| Cell::Bytes(backup.bytes)),
            Cell::Count(newest.map_or(0, |backup| backup.count)),
            store.spec.keep.map_or(Cell::None, Cell::Count),
            text(labels.to_string()),
            Cell::List(store.nodes),
            text(store.note),
        ]
    };
    write(global, &headings, stores.into_iter().map(row))
}
