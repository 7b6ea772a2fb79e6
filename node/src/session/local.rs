use std::net::SocketAddr;
use std::path::Path;

use bytes::Bytes;
use planaria_engine::{Batch, Database, Durability, Options, Schema, TableStatus, Written};
use planaria_net::wire::message::{
    CloneInfo, DatabaseStatus, ExtractInfo, ExtractRecord, Level, Promotion, PromotionWish, RefreshInfo,
    ReplicaAction, ReplicaInfo, ScanSpec, Shape,
};
use planaria_replication::{Span, Tiling};
use planaria_types::{Fingerprint, KeyRange, Uid};

use super::{
    Appender, Commit, IfAbsent, PlaceStatus, RowChange, Session, StoredRow, TableSummary, Verification,
    Visitor, WriteChoice,
};
use crate::compare::{self, KeySum};
use crate::handler::reads::{Wanted, look};
use crate::handler::{database_status, quarantine};
use crate::node::{clone_info, clone_locally, registered_do, registered_info};
use crate::output::CliError;

/// A database in a directory, opened by this process alone.
pub(crate) struct LocalSession {
    database: Database,
    /// The token of the next write, if it has one.
    token: Option<u128>,
}

impl LocalSession {
    /// Opens the database in `path`.
    ///
    /// Fails with `not_found` if there is none and none is to be made, and with `in_use` while a process has it.
    pub(crate) fn open(path: &Path, if_absent: IfAbsent) -> Result<Self, CliError> {
        let options = Options { create: if_absent == IfAbsent::Create, ..Options::default() };
        Ok(Self { database: Database::open_with(path, options)?, token: None })
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
        let mut status: DatabaseStatus = database_status(&name, &self.database, &self.database.status()?);
        status.notices.extend(quarantine::notices(&self.database));
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

    fn find_many(&self, table: &TableSummary, keys: &[&[u8]]) -> Result<Vec<Option<(Uid, Bytes)>>, CliError> {
        let snapshot = self.database.snapshot();
        keys.iter().map(|key| Ok(snapshot.find(table.definition.id, key)?)).collect()
    }

    fn set_write_choice(&mut self, choice: WriteChoice) -> Result<(), CliError> {
        if !matches!(choice.level, Level::Database | Level::Local) {
            return Err(CliError::usage("nobody follows a directory: the levels beyond local take a node")
                .hint("serve it by `planaria serve`, and use --node"));
        }
        self.token = choice.token;
        Ok(())
    }

    fn wait_for(&self, wanted: &Wanted) -> Result<(), CliError> {
        // Nothing changes a directory while this process has it.
        match look(&self.database, Some(self.database.visible()), wanted) {
            Ok(None) => Ok(()),
            Ok(Some(error)) | Err(error) => Err(planaria_net::Error::from(error).into()),
        }
    }

    fn confirm(&self, _: u32) -> Result<(), CliError> {
        Err(CliError::usage("whether a copy is the newest is known by nodes, not in a directory")
            .hint("serve it by `planaria serve`, and use --node"))
    }

    fn promote(&self, _: PromotionWish) -> Result<Promotion, CliError> {
        Err(CliError::usage("a promotion asks other copies how they are, and takes a node")
            .hint("serve the secondary by `planaria serve`, and use --node"))
    }

    fn follow(&self, _: SocketAddr) -> Result<(), CliError> {
        Err(CliError::usage("a directory follows nobody").hint("`planaria serve DIR --replica-of ADDR` does"))
    }

    fn write(&self, table: &TableSummary, changes: Vec<RowChange>) -> Result<Commit, CliError> {
        let mut batch = Batch::new();
        for RowChange { key, row } in changes {
            match row {
                Some(row) => batch.put(table.definition.id, key, row),
                None => batch.delete(table.definition.id, key),
            };
        }
        let Written { uid, again } = match self.token {
            Some(token) => self.database.write_once(batch, token, Durability::Synced)?,
            None => Written { uid: self.database.write(batch, Durability::Synced)?, again: false },
        };
        Ok(Commit { position: self.database.history().position_of(uid), again })
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
        definitions.retain(|table| {
            let is_asked = tables.contains(&table.name);
            is_asked || (tables.is_empty() && snapshot.holds(table.id, &KeyRange::ALL))
        });
        definitions
            .into_iter()
            .map(|definition| Ok((definition.name.clone(), snapshot.digest_of(&definition)?)))
            .collect()
    }

    fn replicas(&self) -> Result<Vec<ReplicaInfo>, CliError> {
        let known = self.database.registrations()?;
        Ok(known.into_iter().map(|known| registered_info(&self.database, known)).collect())
    }

    fn replica_do(&self, named: &str, action: ReplicaAction) -> Result<Vec<ReplicaInfo>, CliError> {
        registered_do(&self.database, named, action).map_err(planaria_net::Error::from)?;
        self.replicas()
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

    fn extracts(&self) -> Result<Vec<ExtractInfo>, CliError> {
        Ok(quarantine::list(&self.database)?)
    }

    fn read_extract(
        &self,
        name: &str,
        at: Option<u64>,
    ) -> Result<(Vec<ExtractRecord>, Option<u64>), CliError> {
        Ok(quarantine::read(&self.database, name, at)?)
    }

    fn drop_extract(&self, name: &str) -> Result<(), CliError> {
        Ok(self.database.drop_extract(name)?)
    }

    fn clone_locally(&self, target: &Path, shape: Shape) -> Result<CloneInfo, CliError> {
        let record = clone_locally(&self.database, target, &shape).map_err(planaria_net::Error::Remote)?;
        Ok(clone_info(&record))
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

/// Commits each portion in the background, syncs at the end, and writes out what is in memory.
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
        // The rows are safe. What only the log has is read again at every start, so it is written out now: where there
        // is no room for that, the next start takes longer.
        if let Err(error) = self.database.flush() {
            tracing::warn!(%error, "what was imported stays in the log for now");
        }
        Ok(())
    }

    fn taken(&self) -> u64 {
        self.taken
    }
}
