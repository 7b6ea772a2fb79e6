use std::path::Path;

use bytes::Bytes;
use planaria_engine::{Batch, Database, Durability, Options, Schema, TableStatus};
use planaria_net::wire::message::{CloneInfo, DatabaseStatus, RefreshInfo, ReplicaInfo, ScanSpec};
use planaria_replication::{Span, Tiling};
use planaria_types::{Fingerprint, Uid};

use super::{Appender, IfAbsent, PlaceStatus, Session, StoredRow, TableSummary, Verification, Visitor};
use crate::compare::{self, KeySum};
use crate::handler::database_status;
use crate::node::{clone_info, clone_locally};
use crate::output::CliError;

/// A database in a directory, opened by this process alone.
pub(crate) struct LocalSession {
    database: Database,
}

impl LocalSession {
    /// Opens the database in `path`.
    ///
    /// Fails with `not_found` if there is none and none is to be made, and with `in_use` while a process has it.
    pub(crate) fn open(path: &Path, if_absent: IfAbsent) -> Result<Self, CliError> {
        let options = Options { create: if_absent == IfAbsent::Create, ..Options::default() };
        Ok(Self { database: Database::open_with(path, options)? })
    }

    fn summary(status: TableStatus) -> TableSummary {
        TableSummary {
            definition: status.definition,
            disk_bytes: status.run_bytes,
            fragments: status.fragments as u64,
        }
    }
}

impl Session for LocalSession {
    fn status(&self) -> Result<PlaceStatus, CliError> {
        let path = self.database.path();
        let name =
            path.file_name().map_or_else(|| path.display().to_string(), |name| name.display().to_string());
        let status: DatabaseStatus = database_status(&name, &self.database.status()?);
        Ok(PlaceStatus {
            place: path.display().to_string(),
            software: concat!("planaria ", env!("CARGO_PKG_VERSION")).to_owned(),
            databases: vec![status],
        })
    }

    fn tables(&self) -> Result<Vec<TableSummary>, CliError> {
        Ok(self.database.status()?.tables.into_iter().map(Self::summary).collect())
    }

    fn table(&self, name: &str) -> Result<TableSummary, CliError> {
        let found = self.database.status()?.tables.into_iter().find(|table| table.definition.name == name);
        match found {
            Some(status) => Ok(Self::summary(status)),
            None => Err(planaria_engine::Error::UnknownTable { name: name.to_owned() }.into()),
        }
    }

    fn create_table(&self, name: &str, schema: Option<Schema>) -> Result<TableSummary, CliError> {
        match schema {
            Some(schema) => self.database.create_table(name, schema)?,
            None => self.database.create_raw_table(name)?,
        };
        self.table(name)
    }

    fn get(&self, table: &TableSummary, key: &[u8]) -> Result<Option<Bytes>, CliError> {
        Ok(self.database.snapshot().get(table.definition.id, key)?)
    }

    fn get_many(&self, table: &TableSummary, keys: &[&[u8]]) -> Result<Vec<Option<Bytes>>, CliError> {
        let snapshot = self.database.snapshot();
        keys.iter().map(|key| Ok(snapshot.get(table.definition.id, key)?)).collect()
    }

    fn put(&self, table: &TableSummary, row: StoredRow) -> Result<Uid, CliError> {
        let mut batch = Batch::new();
        batch.put(table.definition.id, row.key, row.row);
        Ok(self.database.write(batch, Durability::Synced)?)
    }

    fn delete(&self, table: &TableSummary, key: &[u8]) -> Result<Uid, CliError> {
        let mut batch = Batch::new();
        batch.delete(table.definition.id, key.to_vec());
        Ok(self.database.write(batch, Durability::Synced)?)
    }

    fn scan(&self, scan: ScanSpec, visit: &mut Visitor<'_>) -> Result<(), CliError> {
        let table = self.database.table(&scan.table)?;
        let mut left = scan.limit.unwrap_or(u64::MAX);
        if left == 0 {
            return Ok(());
        }
        if scan.reverse {
            for record in table.scan(scan.range).rev() {
                let (key, row) = record?;
                left -= 1;
                if !visit(&key, &row)? || left == 0 {
                    return Ok(());
                }
            }
            return Ok(());
        }
        let mut failed = None;
        table.scan(scan.range).visit(|key, row| {
            left -= 1;
            match visit(key, row) {
                Ok(go_on) => go_on && left > 0,
                Err(error) => {
                    failed = Some(error);
                    false
                }
            }
        })?;
        failed.map_or(Ok(()), Err)
    }

    fn append(&self, table: &TableSummary) -> Result<Box<dyn Appender + '_>, CliError> {
        Ok(Box::new(LocalAppender { database: &self.database, table: table.definition.id, taken: 0 }))
    }

    fn digests(&self, tables: &[String]) -> Result<Vec<(String, Fingerprint)>, CliError> {
        let snapshot = self.database.snapshot();
        let mut definitions = snapshot.tables()?;
        if let Some(unknown) = tables.iter().find(|name| definitions.iter().all(|table| table.name != **name))
        {
            return Err(planaria_engine::Error::UnknownTable { name: unknown.clone() }.into());
        }
        definitions.retain(|table| tables.is_empty() || tables.contains(&table.name));
        definitions
            .into_iter()
            .map(|definition| Ok((definition.name.clone(), snapshot.digest_of(&definition)?)))
            .collect()
    }

    fn replicas(&self) -> Result<Vec<ReplicaInfo>, CliError> {
        let last = self.database.log_end().0;
        let known = self.database.registrations()?.into_iter().map(|known| ReplicaInfo {
            instance: known.instance,
            node: known.name,
            state: "offline".into(),
            promotable: known.promotable,
            durable: known.durable,
            lag_ms: last.millis().saturating_sub(known.durable.millis()),
            refresh: String::new(),
        });
        Ok(known.collect())
    }

    fn refresh(&self, _: bool, _: Option<&str>) -> Result<RefreshInfo, CliError> {
        Err(CliError::new("not_a_secondary", "a directory that no node serves follows nobody")
            .hint("serve it with --replica-of, and ask that node: planaria replica refresh --node ADDR"))
    }

    fn parts(&self, at: Option<Uid>, spans: &[Span], parts: u32) -> Result<(Uid, Vec<Tiling>), CliError> {
        Ok(compare::parts(&self.database, at, spans, parts).map_err(planaria_net::Error::Remote)?)
    }

    fn keys(&self, at: Uid, span: &Span) -> Result<(Vec<KeySum>, bool), CliError> {
        Ok(compare::keys(&self.database, at, span).map_err(planaria_net::Error::Remote)?)
    }

    fn clones(&self) -> Result<Vec<CloneInfo>, CliError> {
        Ok(self.database.clones()?.iter().map(clone_info).collect())
    }

    fn clone_locally(&self, target: &Path) -> Result<CloneInfo, CliError> {
        Ok(clone_info(&clone_locally(&self.database, target)?))
    }

    fn verify(&self) -> Result<Verification, CliError> {
        match self.database.verify() {
            Ok(verified) => Ok(Verification {
                bytes: verified.bytes,
                files: Some(verified.files),
                records: Some(verified.records),
                damage: Vec::new(),
            }),
            Err(error @ planaria_engine::Error::Damaged { .. }) => {
                Ok(Verification { damage: vec![error.to_string()], ..Verification::default() })
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Commits each portion in the background, and syncs at the end.
struct LocalAppender<'a> {
    database: &'a Database,
    table: planaria_types::TableId,
    taken: u64,
}

impl Appender for LocalAppender<'_> {
    fn push(&mut self, rows: Vec<StoredRow>) -> Result<(), CliError> {
        let count = rows.len() as u64;
        let mut batch = Batch::new();
        for StoredRow { key, row } in rows {
            batch.put(self.table, key, row);
        }
        self.database.write(batch, Durability::Background)?;
        self.taken += count;
        Ok(())
    }

    fn settle(&mut self) -> Result<(), CliError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), CliError> {
        self.database.sync()?;
        Ok(())
    }

    fn taken(&self) -> u64 {
        self.taken
    }
}
