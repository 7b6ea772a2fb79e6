use std::path::Path;
use std::sync::Arc;

use planaria_types::{Fingerprint, InstanceId, Uid};

use super::{ReadMode, Run};
use crate::cursor::{Cursor, RecordKind, Version};
use crate::error::Error;
use crate::hash::{key_hash, record_hash};
use crate::os::Os;
use crate::run::testing::{Files, IDENTITY, Numbers, Records, open, place, random_records, write};
use crate::run::{BlockCache, Codec, RunIdentity, RunOptions, RunWriter};

fn path() -> &'static Path {
    Path::new("runs/42")
}

fn small_blocks() -> RunOptions {
    RunOptions { block_bytes: 512, fingerprints: true, ..RunOptions::default() }
}

fn variants() -> Vec<(RunOptions, ReadMode)> {
    let plain = small_blocks();
    let packed = RunOptions { codec: Codec::Lz4, block_bytes: 2_000, ..plain };
    let odd = RunOptions { restart_interval: 1, bits_per_key: 0, fingerprints: false, ..plain };
    let wide = RunOptions { restart_interval: 5, block_bytes: 100_000, ..plain };
    vec![
        (plain, ReadMode::Cached),
        (plain, ReadMode::Mapped),
        (packed, ReadMode::Cached),
        (packed, ReadMode::Mapped),
        (odd, ReadMode::Cached),
        (wide, ReadMode::Mapped),
    ]
}

/// A version as the model has it: the answer of a cursor in one value.
type Item = (Vec<u8>, Uid, Option<Vec<u8>>);

fn item(((key, down), row): (&(Vec<u8>, u64), &Option<Vec<u8>>)) -> Item {
    (key.clone(), Uid::new(u64::MAX - down), row.clone())
}

fn standing(cursor: &impl Cursor) -> Option<Item> {
    cursor.is_valid().then(|| {
        assert_eq!(cursor.row().as_ref(), cursor.row_ref());
        let row = (cursor.kind() == RecordKind::Put).then(|| cursor.row_ref().to_vec());
        (cursor.key().to_vec(), cursor.uid(), row)
    })
}

fn random_key(numbers: &mut Numbers, records: &Records) -> Vec<u8> {
    let at = numbers.below(records.len() as u64) as usize;
    let mut key = records.keys().nth(at).unwrap().0.clone();
    match numbers.below(4) {
        0 => key.push(numbers.next() as u8),
        1 => drop(key.pop()),
        _ => {}
    }
    key
}

fn random_uid(numbers: &mut Numbers, records: &Records) -> Uid {
    let at = numbers.below(records.len() as u64) as usize;
    let uid = Uid::new(u64::MAX - records.keys().nth(at).unwrap().1);
    match numbers.below(6) {
        0 => uid.next(),
        1 => uid.prev(),
        2 => Uid::MAX,
        _ => uid,
    }
}

fn expected_version(records: &Records, key: &[u8], at: Uid) -> Option<Version> {
    let (found, uid, row) = records.range(place(key, at)..).next().map(item)?;
    let kind = if row.is_some() { RecordKind::Put } else { RecordKind::Delete };
    (found == key).then(|| Version { uid, kind, row: row.unwrap_or_default().into() })
}

#[test]
fn point_reads_answer_as_an_ordered_map_does() {
    for (seed, (options, mode)) in variants().into_iter().enumerate() {
        let mut numbers = Numbers(seed as u64);
        let records = random_records(&mut numbers, 3_000);
        let files = Files::new();
        let meta = write(&files, path(), &records, options).unwrap();
        let run = open(&files, path(), &meta, mode).unwrap();
        for _ in 0..4_000 {
            let key = random_key(&mut numbers, &records);
            let at = random_uid(&mut numbers, &records);
            let expected = expected_version(&records, &key, at);
            assert_eq!(run.get(&key, key_hash(&key), at).unwrap(), expected, "{key:?} at {at}");
        }
        for key in records.keys().map(|(key, _)| key) {
            assert!(run.may_contain(key_hash(key)));
        }
        assert_eq!(run.verify().unwrap(), meta.len);
    }
}

#[test]
fn cursors_move_as_in_an_ordered_map_in_both_directions() {
    for (seed, (options, mode)) in variants().into_iter().enumerate() {
        let mut numbers = Numbers(100 + seed as u64);
        let records = random_records(&mut numbers, 2_000);
        let files = Files::new();
        let meta = write(&files, path(), &records, options).unwrap();
        let run = open(&files, path(), &meta, mode).unwrap();
        let mut sinces = vec![None];
        sinces.extend((0..4).map(|_| Some(random_uid(&mut numbers, &records))));
        for since in sinces {
            let mut shown = records.clone();
            shown.retain(|(_, down), _| since.is_none_or(|since| u64::MAX - *down > since.get()));
            walk_everywhere(run.cursor(since), &shown);
            wander(run.cursor(since), &records, &shown, &mut numbers);
            wander(run.scan_cursor(since), &records, &shown, &mut numbers);
        }
    }
}

fn walk_everywhere(mut cursor: impl Cursor, shown: &Records) {
    assert!(!cursor.is_valid());
    cursor.seek_to_first().unwrap();
    for expected in shown.iter().map(item) {
        assert_eq!(standing(&cursor), Some(expected));
        cursor.next().unwrap();
    }
    assert!(!cursor.is_valid());
    cursor.seek_to_last().unwrap();
    for expected in shown.iter().rev().map(item) {
        assert_eq!(standing(&cursor), Some(expected));
        cursor.prev().unwrap();
    }
    assert!(!cursor.is_valid());
}

/// Seeks here and there, and goes a few steps back and forth from there.
fn wander(mut cursor: impl Cursor, records: &Records, shown: &Records, numbers: &mut Numbers) {
    for _ in 0..300 {
        let key = random_key(numbers, records);
        let uid = random_uid(numbers, records);
        let mut expected = if numbers.below(2) == 0 {
            cursor.seek(&key, uid).unwrap();
            shown.range(place(&key, uid)..).next()
        } else {
            cursor.seek_before(&key).unwrap();
            shown.range(..place(&key, Uid::MAX)).next_back()
        };
        assert_eq!(standing(&cursor), expected.map(item));
        for _ in 0..numbers.below(60) {
            let Some((at, _)) = expected else { break };
            if numbers.below(5) < 2 {
                cursor.next().unwrap();
                expected = shown.range((std::ops::Bound::Excluded(at), std::ops::Bound::Unbounded)).next();
            } else {
                cursor.prev().unwrap();
                expected = shown.range(..at).next_back();
            }
            assert_eq!(standing(&cursor), expected.map(item));
        }
    }
}

#[test]
fn the_meta_data_and_the_fingerprints_are_those_of_the_records() {
    let mut numbers = Numbers(7);
    let records = random_records(&mut numbers, 2_000);
    let files = Files::new();
    let meta = write(&files, path(), &records, small_blocks()).unwrap();
    let mut fingerprint = Fingerprint::EMPTY;
    let mut previous = None;
    for (key, uid, row) in records.iter().map(item) {
        if previous.as_ref() != Some(&key)
            && let Some(row) = &row
        {
            fingerprint.add_hash(record_hash(&key, uid, row));
        }
        previous = Some(key);
    }
    assert_eq!(meta.fingerprint, Some(fingerprint));
    assert_eq!(meta.records, records.len() as u64);
    assert_eq!(meta.puts, records.values().flatten().count() as u64);
    assert_eq!(meta.smallest_key, records.keys().next().unwrap().0);
    assert_eq!(meta.largest_key, records.keys().next_back().unwrap().0);
    assert_eq!(meta.smallest_uid.get(), records.keys().map(|(_, down)| u64::MAX - down).min().unwrap());
    assert_eq!(meta.largest_uid.get(), records.keys().map(|(_, down)| u64::MAX - down).max().unwrap());

    let run = open(&files, path(), &meta, ReadMode::Cached).unwrap();
    let mut sum = Fingerprint::EMPTY;
    for block in run.fingerprint_blocks() {
        assert!(block.after.is_none_or(|after| after < block.last || block.continues));
        sum += block.fingerprint;
    }
    assert!(run.fingerprint_blocks().any(|block| block.continues));
    assert_eq!(sum, fingerprint);
    let os: Arc<dyn Os> = files.clone();
    assert_eq!(Run::read_meta(&os, path(), IDENTITY).unwrap(), meta);
}

#[test]
fn chunks_can_be_checked_one_by_one() {
    let files = Files::new();
    let mut numbers = Numbers(3);
    let records: Records = (0..40_u64)
        .map(|n| {
            let row = (0..100_000).map(|_| numbers.next() as u8).collect();
            (place(&n.to_be_bytes(), Uid::new(5)), Some(row))
        })
        .collect();
    let meta = write(&files, path(), &records, RunOptions::default()).unwrap();
    let run = open(&files, path(), &meta, ReadMode::Cached).unwrap();
    let list = run.chunk_hashes().unwrap();
    assert_eq!(list.len(), 4);
    assert!(list.is_of(&meta));
    let bytes = files.bytes(path());
    for index in 0..list.len() {
        let range = list.range(index).unwrap();
        let chunk = &bytes[range.start as usize..range.end as usize];
        assert!(list.matches(index, chunk));
        assert!(!list.matches(index + 1, chunk));
        assert!(!list.matches(index, &chunk[1..]));
    }
    assert_eq!(list.range(4), None);
    assert_eq!(run.verify().unwrap(), bytes.len() as u64);
}

#[test]
fn a_writer_refuses_what_does_not_sort_behind_or_is_too_large() {
    let files = Files::new();
    let os: Arc<dyn Os> = files.clone();
    let mut writer = RunWriter::create(&os, path(), IDENTITY, RunOptions::default()).unwrap();
    writer.add(b"", Uid::new(9), RecordKind::Put, b"").unwrap();
    writer.add(b"b", Uid::new(9), RecordKind::Put, b"row").unwrap();
    for (key, uid) in [(&b"b"[..], 9), (b"b", 10), (b"a", 1)] {
        let answer = writer.add(key, Uid::new(uid), RecordKind::Put, b"");
        assert!(matches!(answer, Err(Error::Invalid(_))));
    }
    assert!(writer.add(b"c", Uid::new(1), RecordKind::RangeDelete, b"").is_err());
    assert!(writer.add(b"c", Uid::new(1), RecordKind::Delete, b"row").is_err());
    let long = vec![0x63; 65_536];
    let answer = writer.add(&long, Uid::new(1), RecordKind::Delete, b"");
    assert!(matches!(answer, Err(Error::TooLarge { limit: 65_535, .. })));
    writer.add(&long[1..], Uid::new(1), RecordKind::Delete, b"").unwrap();
    assert_eq!(writer.records(), 3);
    let meta = writer.finish().unwrap();
    let run = open(&files, path(), &meta, ReadMode::Mapped).unwrap();
    assert_eq!(run.verify().unwrap(), meta.len);
    assert!(run.get(&long[1..], key_hash(&long[1..]), Uid::MAX).unwrap().is_some());
    assert!(run.get(b"", key_hash(b""), Uid::MAX).unwrap().is_some());
    assert!(matches!(
        RunWriter::create(&os, path(), IDENTITY, RunOptions::default()),
        Err(Error::Io { what: "create", .. })
    ));
    let empty = RunWriter::create(&os, Path::new("runs/43"), IDENTITY, RunOptions::default()).unwrap();
    assert!(matches!(empty.finish(), Err(Error::Invalid(_))));
}

#[test]
fn the_format_does_not_change_unnoticed() {
    let files = Files::new();
    let records = random_records(&mut Numbers(2_024), 500);
    let plain = write(&files, path(), &records, small_blocks()).unwrap();
    assert_eq!(
        blake3::hash(&files.bytes(path())).to_string(),
        "5ff5c375512c3b0eca3b86a0053182f86449912d3db39ec516e99cdb751182c1"
    );
    assert_eq!(plain.len, files.bytes(path()).len() as u64);
}

/// Every answer of a run to every question of a small set; any error ends it.
fn answers(
    files: &Arc<Files>,
    meta: &crate::run::RunMeta,
    mode: ReadMode,
) -> crate::error::Result<Vec<Item>> {
    let run = open(files, path(), meta, mode)?;
    let mut seen = Vec::new();
    let mut cursor = run.cursor(None);
    cursor.seek_to_first()?;
    while cursor.is_valid() {
        seen.extend(standing(&cursor));
        cursor.next()?;
    }
    for (key, uid, row) in &seen {
        let found = run.get(key, key_hash(key), *uid)?;
        assert_eq!(found.map(|version| version.row), Some(row.clone().unwrap_or_default().into()));
    }
    Ok(seen)
}

#[test]
fn a_flipped_bit_makes_an_error_or_no_difference() {
    for options in [small_blocks(), RunOptions { codec: Codec::Lz4, ..small_blocks() }] {
        let files = Files::new();
        let records = random_records(&mut Numbers(11), 60);
        let meta = write(&files, path(), &records, options).unwrap();
        let expected: Vec<Item> = records.iter().map(item).collect();
        let sound = files.bytes(path());
        assert_eq!(answers(&files, &meta, ReadMode::Cached).unwrap(), expected);
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << (at % 8);
            files.put(path(), bytes);
            for mode in [ReadMode::Cached, ReadMode::Mapped] {
                if let Ok(seen) = answers(&files, &meta, mode) {
                    assert_eq!(seen, expected, "byte {at}");
                    assert!(
                        at as u64 >= meta.content_len,
                        "byte {at} is covered by no checksum at open or read"
                    );
                }
            }
            let verified = open(&files, path(), &meta, ReadMode::Cached).and_then(|run| run.verify());
            assert!(verified.is_err(), "byte {at} is covered by nothing");
        }
    }
}

#[test]
fn a_cut_a_foreign_and_an_unexpected_file_are_refused() {
    let files = Files::new();
    let records = random_records(&mut Numbers(12), 100);
    let meta = write(&files, path(), &records, small_blocks()).unwrap();
    let sound = files.bytes(path());
    for len in (0..sound.len()).step_by(7) {
        files.put(path(), sound[..len].to_vec());
        assert!(matches!(open(&files, path(), &meta, ReadMode::Mapped), Err(Error::Damaged { .. })));
    }
    files.put(path(), sound);
    let os: Arc<dyn Os> = files.clone();
    let blocks = Arc::new(BlockCache::new(0));
    let other = RunIdentity { store: InstanceId(1), ..IDENTITY };
    let answer = Run::open(&os, path(), other, &meta, &blocks, ReadMode::Cached);
    assert!(matches!(answer, Err(Error::Foreign { .. })));
    let mut wrong = meta.clone();
    wrong.records += 1;
    assert!(matches!(open(&files, path(), &wrong, ReadMode::Cached), Err(Error::Damaged { .. })));
}

#[test]
fn an_obsolete_run_is_removed_when_the_last_user_lets_go() {
    let files = Files::new();
    let records = random_records(&mut Numbers(13), 100);
    let meta = write(&files, path(), &records, small_blocks()).unwrap();
    drop(open(&files, path(), &meta, ReadMode::Cached).unwrap());
    assert!(files.exists(path()));
    let run = open(&files, path(), &meta, ReadMode::Cached).unwrap();
    let mut cursor = run.cursor(None);
    run.mark_obsolete();
    drop(run);
    cursor.seek_to_first().unwrap();
    assert!(cursor.is_valid() && files.exists(path()));
    drop(cursor);
    assert!(!files.exists(path()));
}

#[test]
fn a_row_larger_than_a_block_gets_a_block_of_its_own() {
    let files = Files::new();
    let row = |n: usize| Some(vec![n as u8; n]);
    let records: Records = [(b"a", 10), (b"b", 3_000_000), (b"c", 10)]
        .into_iter()
        .map(|(key, bytes)| (place(key, Uid::new(1)), row(bytes)))
        .collect();
    for codec in [Codec::None, Codec::Lz4] {
        let meta = write(&files, path(), &records, RunOptions { codec, ..RunOptions::default() }).unwrap();
        let run = open(&files, path(), &meta, ReadMode::Cached).unwrap();
        assert_eq!(run.index().unwrap().len(), 3);
        let found = run.get(b"b", key_hash(b"b"), Uid::MAX).unwrap().unwrap();
        assert_eq!(found.row, row(3_000_000).unwrap());
        assert_eq!(run.verify().unwrap(), meta.len);
        run.mark_obsolete();
    }
}

#[test]
fn the_cache_keeps_to_its_limit_and_forgets_closed_runs() {
    let files = Files::new();
    let os: Arc<dyn Os> = files.clone();
    let records = random_records(&mut Numbers(14), 4_000);
    let meta = write(&files, path(), &records, small_blocks()).unwrap();
    let blocks = Arc::new(BlockCache::new(64 << 10));
    let run = Run::open(&os, path(), IDENTITY, &meta, &blocks, ReadMode::Cached).unwrap();
    for (key, _) in records.keys() {
        assert!(run.get(key, key_hash(key), Uid::MAX).unwrap().is_some());
        assert!(blocks.used_bytes() <= blocks.capacity_bytes());
    }
    assert!(blocks.used_bytes() > 0);
    drop(run);
    assert_eq!(blocks.used_bytes(), 0);
}
