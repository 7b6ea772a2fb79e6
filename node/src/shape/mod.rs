//! What is made of a database for somebody who must not have all of it: tables are left out, rows filtered, columns masked, before
//! anything leaves the source. The result is a database of its own, whose files are given away like any other's.

mod filter;
mod mask;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use planaria_engine::os::Os;
use planaria_engine::{
    Database, Lineage, Options, Schema, Snapshot, Spans, Table, TableDef, TableKind, Value, table,
};
use planaria_net::replica::{ShapedCopy, Shaper};
use planaria_net::wire::message::{AsOf, RemoteError, Shape};
use planaria_types::{InstanceId, KeyRange, Uid};
use tokio::runtime::Handle;

use self::filter::Filter;
use self::mask::Mask;
use crate::handler::remote;

/// Memory to sort a table whose keys are hashed, in bytes.
const SORT_BYTES: usize = 64 << 20;
/// Memory for what is not written out yet, in bytes: rows go into run files at once.
const MEMTABLE_BYTES: usize = 1 << 20;
/// How long a copy stays for an attempt that was interrupted.
const KEPT_FOR: Duration = Duration::from_mins(10);
/// Copies that are made, or kept, at a time.
const COPIES_MAX: usize = 4;

/// What is done with one table.
struct TableShape {
    definition: TableDef,
    filters: Vec<Filter>,
    /// By the index of the column.
    masks: Vec<(usize, Mask)>,
    /// Whether keys come out in another order than they go in.
    changes_keys: bool,
}

fn wrong(what: String) -> RemoteError {
    let mut error = RemoteError::new("invalid_shape", what);
    error.hint = "`planaria table list` and `planaria table show` name tables and columns".into();
    error
}

/// What is done with each table that is given away, checked before anything is read.
fn plan(tables: Vec<TableDef>, shape: &Shape) -> Result<Vec<TableShape>, RemoteError> {
    let named = shape.leave_out.iter();
    let named = named.chain(shape.filters.iter().map(|(table, _)| table));
    for name in named.chain(shape.masks.iter().map(|(table, ..)| table)) {
        if tables.iter().all(|table| table.name != *name) {
            return Err(wrong(format!("there is no table {name:?}")));
        }
    }
    let kept = tables.into_iter().filter(|table| !shape.leave_out.contains(&table.name));
    kept.map(|definition| plan_table(definition, shape)).collect()
}

fn plan_table(definition: TableDef, shape: &Shape) -> Result<TableShape, RemoteError> {
    let name = definition.name.clone();
    let filters = shape.filters.iter().filter(|(table, _)| *table == name);
    let masks = shape.masks.iter().filter(|(table, ..)| *table == name);
    let mut planned = TableShape { definition, filters: Vec::new(), masks: Vec::new(), changes_keys: false };
    let schema = match &planned.definition.kind {
        TableKind::Raw if filters.clone().next().is_some() || masks.clone().next().is_some() => {
            return Err(wrong(format!("table {name:?} has no columns: it is left out, or given away whole")));
        }
        TableKind::Raw => return Ok(planned),
        TableKind::Typed { .. } => planned.definition.schema().map_err(remote)?.1.clone(),
    };
    for (_, expression) in filters {
        let filter = Filter::parse(&schema, expression)
            .map_err(|why| wrong(format!("the filter {expression:?} of table {name:?}: {why}")))?;
        planned.filters.push(filter);
    }
    for (_, column, mask) in masks {
        let (index, mask) = plan_mask(&schema, column, mask)
            .map_err(|why| wrong(format!("the mask of {name}.{column}: {why}")))?;
        if planned.masks.iter().any(|(masked, _)| *masked == index) {
            return Err(wrong(format!("column {column:?} of table {name:?} is masked twice")));
        }
        planned.changes_keys |= schema.key().contains(&index);
        planned.masks.push((index, mask));
    }
    Ok(planned)
}

fn plan_mask(schema: &Schema, column: &str, mask: &str) -> Result<(usize, Mask), String> {
    let index = schema.position(column).ok_or_else(|| "there is no such column".to_owned())?;
    let column = schema.columns().get(index).ok_or_else(|| "there is no such column".to_owned())?;
    Ok((index, Mask::parse(column, schema.key().contains(&index), mask)?))
}

/// The cut that a shape is of.
fn cut(db: &Database, as_of: AsOf) -> Result<Snapshot, RemoteError> {
    let newest = db.snapshot();
    let uid = match as_of {
        AsOf::Newest => return Ok(newest),
        AsOf::Time(ms) if ms > db.now_millis() => {
            return Err(RemoteError::new(
                "invalid_shape",
                "that time has not come yet: nobody knows what will be written",
            ));
        }
        // The last one of that millisecond.
        AsOf::Time(ms) => Uid::from_millis(ms.saturating_add(1)).prev().min(newest.uid()),
        AsOf::Position(uid) => uid,
    };
    let then = db.snapshot_at(uid).map_err(|error| {
        let is_gone = matches!(error, planaria_engine::Error::SnapshotTooOld(_));
        let mut error = remote(error);
        if is_gone {
            error.hint = "older versions are kept for as long as `serve --keep-history` says; a backup may reach further back".into();
        }
        error
    })?;
    if then.tables().map_err(remote)?.is_empty() && !newest.tables().map_err(remote)?.is_empty() {
        return Err(RemoteError::new("invalid_shape", "there was nothing yet at that time"));
    }
    Ok(then)
}

/// Clones what `shape` leaves of a database into a new directory of the same disk. Returns the cut and the bytes of the clone.
///
/// # Errors
///
/// As [`shape()`], and `exists` if there is something at `target`. Nothing is left behind by a clone that fails.
pub(crate) fn clone_shaped(db: &Database, target: &Path, wanted: &Shape) -> Result<(Uid, u64), RemoteError> {
    let options = Options::default();
    let os = Arc::clone(&options.os);
    if os.exists(target) {
        return Err(remote(planaria_engine::Error::Exists { path: target.to_path_buf() }));
    }
    let dir = shaping_dir(target);
    let io = |error| RemoteError::new("io", format!("cannot remove {}: {error}", dir.display()));
    if os.exists(&dir) {
        os.remove_dir_all(&dir).map_err(io)?;
    }
    // What takes the name of the target is complete: it is made elsewhere first.
    let made = shape(db, wanted, &new_key(&*os), &dir, &options).and_then(|(copy, cut)| {
        let cloned = copy.pass_on_to(target).map_err(remote)?;
        copy.close();
        Ok((cut, cloned.bytes))
    });
    let removed = if os.exists(&dir) { os.remove_dir_all(&dir).map_err(io) } else { Ok(()) };
    let made = made?;
    removed.map(|()| made)
}

/// Makes a new database at `dir` of what `shape` leaves of `db`. Values are masked under `key`. Returns it with the cut.
///
/// # Errors
///
/// `invalid_shape` if it names what is not there, or asks for what cannot be; `snapshot_too_old` if the cut is not kept any more;
/// `no_space` if it would not fit. What was begun at `dir` is the caller's to remove.
pub(crate) fn shape(
    db: &Database,
    shape: &Shape,
    key: &[u8; 32],
    dir: &Path,
    options: &Options,
) -> Result<(Database, Uid), RemoteError> {
    let snapshot = cut(db, shape.as_of)?;
    let planned = plan(snapshot.tables().map_err(remote)?, shape)?;
    check_room(&snapshot, &planned, dir, &*options.os)?;
    let options = Options { create: true, memtable_bytes: MEMTABLE_BYTES, ..options.clone() };
    let copy = Database::open_with(dir, options).map_err(remote)?;
    let position = db.history().position_of(snapshot.uid());
    let made_of = Lineage { database: db.id(), instance: db.instance(), position };
    copy.set_lineage(made_of).map_err(remote)?;
    for table in planned {
        copy_table(&snapshot, &table, &copy, key)?;
    }
    Ok((copy, snapshot.uid()))
}

/// Refuses what would not fit beside the source's database, before any of it is written. How much of a table its filters leave nobody
/// knows before it is read: such a one is not counted.
fn check_room(
    snapshot: &Snapshot,
    planned: &[TableShape],
    dir: &Path,
    os: &dyn Os,
) -> Result<(), RemoteError> {
    let bytes = |table: &TableShape| {
        let whole = Spans::from([(table.definition.id, KeyRange::ALL)]);
        let estimate = snapshot.estimate_within(&whole, Uid::ZERO);
        // What is sorted lies in sorted pieces first.
        let times = if table.changes_keys { 2 } else { 1 };
        estimate.total_bytes.max(estimate.delta_bytes).saturating_mul(times)
    };
    let counted = planned.iter().filter(|table| table.filters.is_empty());
    let needed_bytes = counted.fold(0, |sum: u64, table| sum.saturating_add(bytes(table)));
    let mut ancestors = dir.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty());
    let above = ancestors.find(|above| os.exists(above)).unwrap_or(Path::new("."));
    let io =
        |error| RemoteError::new("io", format!("cannot measure the disk of {}: {error}", above.display()));
    let available_bytes = os.disk_space(above).map_err(io)?.available_bytes;
    if needed_bytes <= available_bytes {
        return Ok(());
    }
    let path = above.to_path_buf();
    Err(remote(planaria_engine::Error::NoRoom { path, needed_bytes, available_bytes }))
}

fn copy_table(
    snapshot: &Snapshot,
    planned: &TableShape,
    copy: &Database,
    key: &[u8; 32],
) -> Result<(), RemoteError> {
    let definition = &planned.definition;
    let target = match &definition.kind {
        TableKind::Raw => copy.create_raw_table(&definition.name),
        TableKind::Typed { .. } => {
            definition.schema().and_then(|(_, schema)| copy.create_table(&definition.name, schema.clone()))
        }
    };
    let target = target.map_err(remote)?;
    let rows = snapshot.scan(definition.id, KeyRange::ALL);
    let copied = if planned.changes_keys {
        copy_unsorted(rows, planned, &target, key)
    } else {
        copy_sorted(rows, planned, &target, key)
    };
    copied.map_err(remote)
}

type Rows = planaria_engine::Scan;

fn copy_sorted(
    rows: Rows,
    planned: &TableShape,
    target: &Table,
    key: &[u8; 32],
) -> planaria_engine::Result<()> {
    let mut ingest = target.ingest()?;
    for record in rows {
        let (row_key, row) = record?;
        if matches!(planned.definition.kind, TableKind::Raw) {
            ingest.put(&row_key, &row)?;
        } else if let Some(values) = planned.values(&row_key, &row, key)? {
            ingest.insert(&values)?;
        }
    }
    ingest.finish().map(drop)
}

fn copy_unsorted(
    rows: Rows,
    planned: &TableShape,
    target: &Table,
    key: &[u8; 32],
) -> planaria_engine::Result<()> {
    let mut ingest = target.ingest_unsorted(SORT_BYTES)?;
    for record in rows {
        let (row_key, row) = record?;
        if let Some(values) = planned.values(&row_key, &row, key)? {
            ingest.insert(&values)?;
        }
    }
    ingest.finish().map(drop)
}

impl TableShape {
    /// A row as it is given away, if it is.
    fn values(
        &self,
        key: &[u8],
        row: &[u8],
        masked: &[u8; 32],
    ) -> planaria_engine::Result<Option<Vec<Value>>> {
        let mut values = table::decode(&self.definition, key, row)?;
        if !self.filters.iter().all(|filter| filter.admits(&values)) {
            return Ok(None);
        }
        for (index, mask) in &self.masks {
            if let Some(value) = values.get_mut(*index) {
                *value = mask.apply(masked, value);
            }
        }
        Ok(Some(values))
    }
}

/// A key to mask values under, which nobody gets to know.
pub(crate) fn new_key(os: &dyn Os) -> [u8; 32] {
    let mut key = [0; 32];
    for part in key.chunks_exact_mut(8) {
        part.copy_from_slice(&os.random_u64().to_le_bytes());
    }
    key
}

/// Where copies that are to be given away are made: beside the database.
pub(crate) fn shaping_dir(dir: &Path) -> PathBuf {
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push(".shaped");
    dir.with_file_name(name)
}

/// Makes copies for others on their way through a node, and keeps each for a while in case the way is interrupted.
pub(crate) struct NodeShaper {
    dir: PathBuf,
    options: Options,
    runtime: Handle,
    copies: Arc<Mutex<Copies>>,
}

#[derive(Default)]
struct Copies {
    next: u64,
    /// Copies that exist, given away or kept.
    made: Vec<Weak<ShapedCopy>>,
    kept: Vec<Kept>,
    /// Copies that are being made.
    making: usize,
}

struct Kept {
    number: u64,
    shape: Shape,
    copy: Arc<ShapedCopy>,
}

impl NodeShaper {
    /// A shaper for the database at `dir`. What an earlier process left there is removed.
    pub(crate) fn new(dir: &Path, options: &Options, runtime: Handle) -> Self {
        let dir = shaping_dir(dir);
        if options.os.exists(&dir)
            && let Err(error) = options.os.remove_dir_all(&dir)
        {
            tracing::warn!(path = %dir.display(), %error, "what was made for a clone stays behind");
        }
        Self { dir, options: options.clone(), runtime, copies: Arc::default() }
    }

    /// A number for a new copy, if there may be one more.
    fn begin(&self) -> Result<u64, RemoteError> {
        let mut copies = self.copies.lock();
        copies.made.retain(|copy| copy.strong_count() > 0);
        // What is only kept makes room for what is wanted now.
        while copies.made.len() + copies.making >= COPIES_MAX && !copies.kept.is_empty() {
            copies.kept.remove(0);
            copies.made.retain(|copy| copy.strong_count() > 0);
        }
        if copies.made.len() + copies.making >= COPIES_MAX {
            let what = format!("{COPIES_MAX} shaped clones are taken from this node, as many as may be");
            let mut error = RemoteError::new("busy", what);
            error.hint = "try again when one of them is complete".into();
            return Err(error);
        }
        copies.making += 1;
        copies.next += 1;
        Ok(copies.next)
    }

    fn make(&self, number: u64, db: &Database, wanted: &Shape) -> Result<Arc<ShapedCopy>, RemoteError> {
        let dir = self.dir.join(number.to_string());
        let key = new_key(&*self.options.os);
        let made = shape(db, wanted, &key, &dir, &self.options);
        let made =
            made.map(|(copy, _)| Arc::new(ShapedCopy::new(copy, dir.clone(), Arc::clone(&self.options.os))));
        if made.is_err() && self.options.os.exists(&dir) {
            // What stays behind is removed at the next start.
            let _ = self.options.os.remove_dir_all(&dir);
        }
        made
    }
}

impl Shaper for NodeShaper {
    fn shape(
        &self,
        db: &Database,
        shape: &Shape,
        resumes: Option<InstanceId>,
    ) -> Result<Arc<ShapedCopy>, RemoteError> {
        let is_wanted = |kept: &&Kept| {
            kept.shape == *shape && resumes.is_some_and(|wanted| kept.copy.database().instance() == wanted)
        };
        if let Some(kept) = self.copies.lock().kept.iter().find(is_wanted) {
            return Ok(Arc::clone(&kept.copy));
        }
        let number = self.begin()?;
        let made = self.make(number, db, shape);
        let mut copies = self.copies.lock();
        copies.making -= 1;
        let copy = made?;
        copies.made.push(Arc::downgrade(&copy));
        copies.kept.push(Kept { number, shape: shape.clone(), copy: Arc::clone(&copy) });
        drop(copies);
        let copies = Arc::downgrade(&self.copies);
        self.runtime.spawn(async move {
            tokio::time::sleep(KEPT_FOR).await;
            if let Some(copies) = copies.upgrade() {
                let gone = {
                    let mut copies = copies.lock();
                    let at = copies.kept.iter().position(|kept| kept.number == number);
                    at.map(|at| copies.kept.remove(at))
                };
                // Its files are removed without the lock, and where nobody waits for a worker of the runtime.
                tokio::task::spawn_blocking(move || drop(gone));
            }
        });
        Ok(copy)
    }
}

#[cfg(test)]
#[path = "shape_tests.rs"]
mod tests;
