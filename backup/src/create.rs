//! Making a backup.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use planaria_engine::{FileKind, Value};

use crate::Progress;
use crate::catalog::{AT_ONCE, Catalog};
use crate::contents::Contents;
use crate::error::{Error, Result};
use crate::manifest::{Backup, Segment, check_name};
use crate::object::{Address, Blob, OBJECTS, Part, parts_of};
use crate::prune::YOUNG_MS;
use crate::source::Source;
use crate::store::Store;

/// Names that are tried where none was given.
const NAMES_TRIED: u32 = 100;

/// What a backup is to be.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Wish {
    /// Its name; one made of the time if none is given.
    pub name: Option<String>,
    /// A number that no other backup has.
    pub id: u128,
    /// When the cut was made, in milliseconds since 1970.
    pub taken_ms: u64,
    /// What writes it.
    pub software: String,
}

/// A backup that was made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Created {
    /// What it is.
    pub backup: Backup,
    /// Objects that it names.
    pub objects: u64,
    /// Objects that were sent.
    pub sent_objects: u64,
}

/// Makes a backup of what `source` has. The manifest is written last: until then there is no backup, and what was sent is found
/// again by the next attempt.
///
/// # Errors
///
/// `NameTaken` if there is a backup of that name, `Vanished` if objects were removed meanwhile, `Cancelled`, and whatever store
/// and source say.
pub async fn create(
    store: &Store,
    catalog: &Catalog,
    source: &impl Source,
    wish: &Wish,
    cancelled: &AtomicBool,
    progress: impl Fn(&Progress),
) -> Result<Created> {
    if let Some(name) = &wish.name {
        check_name(name)?;
        if catalog.backups.iter().any(|backup| backup.name == *name) {
            return Err(Error::NameTaken { name: name.clone() });
        }
    }
    let contents = Contents { list: source.list().clone(), log: source.log().to_vec() };
    let pieces = pieces(&contents);
    let there = what_is_there(store, catalog, &contents).await?;
    let mut state =
        Progress { total_bytes: pieces.values().map(|piece| piece.part.len).sum(), done_bytes: 0 };
    let missing: Vec<&Piece> =
        pieces.values().filter(|piece| there.get(&piece.part.address) != Some(&piece.part.len)).collect();
    state.done_bytes = state.total_bytes - missing.iter().map(|piece| piece.part.len).sum::<u64>();
    progress(&state);
    let (mut sent_bytes, mut sent_objects) = (0, 0);
    let mut sending = futures_util::stream::iter(missing)
        .map(|piece| async move {
            let Piece { kind, number, part } = piece;
            let bytes = source.read(*kind, *number, part.offset, part.len).await?;
            // What a node sent may have been changed on its way, and what is stored under a name is to be what it says.
            part.check(&bytes)?;
            store.put(&part.address.path(), bytes).await?;
            Ok::<u64, Error>(part.len)
        })
        .buffer_unordered(AT_ONCE);
    while let Some(len) = sending.try_next().await? {
        (sent_bytes, sent_objects) = (sent_bytes + len, sent_objects + 1);
        state.done_bytes += len;
        progress(&state);
        if cancelled.load(Ordering::Relaxed) {
            return Err(Error::Cancelled);
        }
    }
    let listed = Bytes::from(contents.encode()?);
    let blob = Blob::of(&listed);
    for part in blob.parts() {
        let bytes = listed.slice(part.offset as usize..(part.offset + part.len) as usize);
        store.put(&part.address.path(), bytes).await?;
        (sent_bytes, sent_objects) = (sent_bytes + part.len, sent_objects + 1);
    }
    let mut named: HashSet<Address> = pieces.keys().copied().collect();
    named.extend(blob.parts().iter().map(|part| part.address));
    check_all_there(store, &named).await?;
    let backup = describe(&contents, wish, blob, sent_bytes);
    let backup = write_manifest(store, backup, wish).await?;
    Ok(Created { backup, objects: named.len() as u64, sent_objects })
}

/// An object to be, and where its bytes are.
struct Piece {
    kind: FileKind,
    number: u64,
    part: Part,
}

fn pieces(contents: &Contents) -> BTreeMap<Address, Piece> {
    let of_file = |file: &planaria_engine::CloneFile| {
        let (kind, number) = (file.kind, file.number);
        parts_of(file).into_iter().map(move |part| (part.address, Piece { kind, number, part }))
    };
    contents.files().flat_map(of_file).collect()
}

/// The objects that need not be sent, with their lengths: those that a backup names, and young ones, which an attempt that
/// broke off has brought. Others may be removed at any moment, and are sent again.
async fn what_is_there(
    store: &Store,
    catalog: &Catalog,
    contents: &Contents,
) -> Result<HashMap<Address, u64>> {
    let mut named: HashSet<Address> = HashSet::new();
    let own = catalog.newest_of(contents.list.instance());
    let related = catalog.backups.iter().rev().find(|backup| backup.database == contents.list.database());
    for backup in own.into_iter().chain(related.filter(|related| Some(*related) != own)) {
        // A backup whose list cannot be read is none to rely on.
        if let Ok(before) = Contents::load(store, backup).await {
            named.extend(before.parts().map(|part| part.address));
        }
    }
    let now_ms = store.now_ms().await?;
    let mut there = HashMap::new();
    for entry in store.list(OBJECTS).await? {
        let address = entry.path.rsplit('/').next().and_then(Address::parse);
        let Some(address) = address else { continue };
        let is_young = entry.modified_ms.saturating_add(YOUNG_MS) > now_ms;
        if is_young && !named.contains(&address) {
            store.keep(&entry.path).await?;
        }
        if is_young || named.contains(&address) {
            there.insert(address, entry.len);
        }
    }
    Ok(there)
}

/// Fails unless everything that is about to be named is there.
async fn check_all_there(store: &Store, named: &HashSet<Address>) -> Result<()> {
    let listed = store.list(OBJECTS).await?;
    let there: HashSet<Address> =
        listed.iter().filter_map(|entry| entry.path.rsplit('/').next().and_then(Address::parse)).collect();
    match named.iter().filter(|address| !there.contains(*address)).count() {
        0 => Ok(()),
        count => Err(Error::Vanished { count }),
    }
}

fn describe(contents: &Contents, wish: &Wish, blob: Blob, sent_bytes: u64) -> Backup {
    let list = &contents.list;
    let log = contents.log.iter().map(|segment| Segment {
        number: segment.file.number,
        previous: segment.previous,
        above: segment.above,
        upto: segment.upto,
    });
    Backup {
        name: String::new(),
        id: wish.id,
        software: wish.software.clone(),
        taken_ms: wish.taken_ms,
        database: list.database(),
        instance: list.instance(),
        lineage: list.lineage().cloned(),
        position: list.position,
        version_floor: list.version_floor(),
        files: list.files.len() as u64,
        bytes: list.bytes(),
        sent_bytes,
        last_segment: list.last_segment(),
        log: log.collect(),
        contents: blob,
    }
}

/// Writes the manifest under its name, which nobody else may have taken meanwhile.
async fn write_manifest(store: &Store, mut backup: Backup, wish: &Wish) -> Result<Backup> {
    for attempt in 1..=NAMES_TRIED {
        backup.name = match &wish.name {
            Some(name) => name.clone(),
            None => name_of(wish.taken_ms, attempt),
        };
        if store.put_new(&Backup::path(&backup.name), backup.encode()?.into()).await? {
            return Ok(backup);
        }
        if wish.name.is_some() {
            break;
        }
    }
    Err(Error::NameTaken { name: backup.name })
}

/// A name made of a time: `20261122T154500.123Z`.
fn name_of(taken_ms: u64, attempt: u32) -> String {
    let micros = i64::try_from(taken_ms.saturating_mul(1_000)).unwrap_or(i64::MAX);
    let text = Value::Timestamp(micros).to_string().replace(['-', ':'], "");
    if attempt == 1 { text } else { format!("{text}-{attempt}") }
}

#[cfg(test)]
mod tests {
    use super::name_of;
    use crate::manifest::check_name;

    #[test]
    fn a_time_makes_a_name() {
        assert_eq!(name_of(1_357_034_400_123, 1), "20130101T100000.123Z");
        assert_eq!(name_of(1_357_034_400_000, 2), "20130101T100000Z-2");
        for name in ["20130101T100000.123Z", "nightly_7"] {
            check_name(name).unwrap();
        }
        for name in ["", "latest", ".x", "a/b", "a b", &"x".repeat(129)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
