//! Extracts of a database, in the words of the client protocol.

use planaria_engine::{Database, ExtractFile, RecordKind, Result};
use planaria_net::wire::message::{ExtractInfo, ExtractRecord};

/// What was taken back and is kept.
pub(crate) fn list(db: &Database) -> Result<Vec<ExtractInfo>> {
    db.extracts()?.into_iter().map(|file| info(db, file)).collect()
}

fn info(db: &Database, file: ExtractFile) -> Result<ExtractInfo> {
    let ExtractFile { extract, bytes } = file;
    let tables = extract.tables.iter().map(|table| table.encode().map(Into::into));
    Ok(ExtractInfo {
        name: extract.name(),
        above: extract.above,
        through: extract.through,
        epoch: extract.epoch,
        created_ms: extract.created_ms,
        age_ms: db.now_millis().saturating_sub(extract.created_ms),
        expires_ms: db.extract_expires_ms(&extract),
        records: extract.records,
        bytes,
        is_whole: extract.is_whole,
        tables: tables.collect::<Result<_>>()?,
    })
}

/// A part of an extract, and where the next one begins.
pub(crate) fn read(db: &Database, name: &str, at: Option<u64>) -> Result<(Vec<ExtractRecord>, Option<u64>)> {
    let part = db.read_extract(name, at)?;
    let record = |change: planaria_engine::Change| ExtractRecord {
        table: change.table,
        key: change.key,
        row: (change.kind == RecordKind::Put).then_some(change.row),
    };
    Ok((part.records.into_iter().map(record).collect(), part.next))
}

/// What an operator should know of them.
pub(crate) fn notices(db: &Database) -> Vec<String> {
    let extracts = match db.extracts() {
        Ok(extracts) => extracts,
        Err(error) => return vec![format!("the extracts cannot be read: {error}")],
    };
    let now_ms = db.now_millis();
    let notice = |file: &ExtractFile| {
        let hours = db.extract_expires_ms(&file.extract).saturating_sub(now_ms) / 3_600_000;
        let (name, records) = (file.extract.name(), file.extract.records);
        format!("{records} records were taken back and are in extract {name} for {hours} h more")
    };
    extracts.iter().map(notice).collect()
}
