use planaria_engine::{TableDef, TableStatus};
use planaria_net::wire::message::{RemoteError, Response, TableInfo};

use super::{DatabaseHandler, remote};

impl DatabaseHandler {
    pub(super) fn list_tables(&self) -> Result<Response, RemoteError> {
        let tables = self.database().status().map_err(remote)?.tables;
        Ok(Response::Tables(tables.iter().map(table_info).collect::<Result<_, _>>()?))
    }

    pub(super) fn show_table(&self, name: &str) -> Result<Response, RemoteError> {
        let tables = self.database().status().map_err(remote)?.tables;
        match tables.iter().find(|table| table.definition.name == name) {
            Some(table) => Ok(Response::Table(table_info(table)?)),
            None => Err(remote(planaria_engine::Error::UnknownTable { name: name.to_owned() })),
        }
    }

    /// Makes a table by its definition; the id in it is the client's guess and does not count.
    pub(super) fn create_table(&self, name: &str, definition: &[u8]) -> Result<Response, RemoteError> {
        let given =
            if definition.is_empty() { None } else { Some(TableDef::decode(definition).map_err(remote)?) };
        let created = match given {
            Some(given) if given.is_typed() => {
                self.database().create_table(name, given.schema().map_err(remote)?.1.clone())
            }
            _ => self.database().create_raw_table(name),
        };
        created.map_err(remote)?;
        self.show_table(name)
    }
}

fn table_info(table: &TableStatus) -> Result<TableInfo, RemoteError> {
    Ok(TableInfo {
        name: table.definition.name.clone(),
        definition: table.definition.encode().map_err(remote)?.into(),
        rows: None,
        disk_bytes: table.run_bytes,
        fragments: u32::try_from(table.fragments).unwrap_or(u32::MAX),
    })
}
