use std::iter::Peekable;
use std::path::Path;

use planaria_engine::{Batch, Database, Durability, Error, Options, Result, Scan, Table, TableDef};
use planaria_types::KeyRange;

/// Bytes of one commit.
const BATCH_BYTES: usize = 1 << 20;

/// Gives the tables of that name in `new` the rows that they have in `old`: those rows and no others. Both must be closed.
/// Doing it again changes nothing.
///
/// # Errors
///
/// `unknown_table` if `old` has no such table, `schema` if the tables are not alike.
pub(crate) fn preserve(old: &Path, new: &Path, tables: &[String], options: &Options) -> Result<()> {
    if tables.is_empty() {
        return Ok(());
    }
    let options = Options { create: false, ..options.clone() };
    let (old, new) = (Database::open_with(old, options.clone())?, Database::open_with(new, options)?);
    for name in tables {
        let from = old.table(name)?;
        let to = match new.table(name) {
            Ok(table) => table,
            Err(Error::UnknownTable { .. }) => make_like(&new, from.definition())?,
            Err(error) => return Err(error),
        };
        if to.definition().kind != from.definition().kind {
            return Err(Error::Schema(format!(
                "table {name:?} has other columns in the clone than in what it replaces: its rows cannot be preserved"
            )));
        }
        copy_rows(&from, &new, &to)?;
    }
    new.sync()?;
    new.flush()?;
    new.close();
    old.close();
    Ok(())
}

/// Whether `old` has the tables that are to be preserved of it: whoever misnames one hears it before anything is fetched.
///
/// # Errors
///
/// `unknown_table` if it lacks one.
pub(crate) fn check_preserved(old: &Path, tables: &[String], options: &Options) -> Result<()> {
    if tables.is_empty() {
        return Ok(());
    }
    let old = Database::open_with(old, Options { create: false, ..options.clone() })?;
    let missing = tables.iter().find_map(|name| old.table(name).err());
    old.close();
    missing.map_or(Ok(()), Err)
}

fn make_like(db: &Database, definition: &TableDef) -> Result<Table> {
    if definition.is_typed() {
        db.create_table(&definition.name, definition.schema()?.1.clone())
    } else {
        db.create_raw_table(&definition.name)
    }
}

/// Walks both tables in the order of their keys, and writes where they differ.
fn copy_rows(from: &Table, db: &Database, to: &Table) -> Result<()> {
    let (mut old, mut new) = (from.scan(KeyRange::ALL).peekable(), to.scan(KeyRange::ALL).peekable());
    let mut batch = Batch::new();
    loop {
        check(&mut old)?;
        check(&mut new)?;
        match (old.peek(), new.peek()) {
            (Some(Ok((key, row))), other) if !matches!(other, Some(Ok((before, _))) if before <= key) => {
                batch.put(to.id(), key, row);
                old.next();
            }
            (Some(Ok((key, row))), Some(Ok((same, own)))) if key == same => {
                if row != own {
                    batch.put(to.id(), key, row);
                }
                old.next();
                new.next();
            }
            (_, Some(Ok((surplus, _)))) => {
                batch.delete(to.id(), surplus);
                new.next();
            }
            // Both have ended: what cannot be read was told above.
            _ => break,
        }
        if batch.bytes() >= BATCH_BYTES {
            db.write(std::mem::take(&mut batch), Durability::Background)?;
        }
    }
    if !batch.is_empty() {
        db.write(batch, Durability::Synced)?;
    }
    Ok(())
}

/// Fails if the next row cannot be read.
fn check(rows: &mut Peekable<Scan>) -> Result<()> {
    if matches!(rows.peek(), Some(Err(_)))
        && let Some(Err(error)) = rows.next()
    {
        return Err(error);
    }
    Ok(())
}
