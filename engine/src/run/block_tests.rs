use bytes::Bytes;
use planaria_types::Uid;

use super::Block;
use crate::cursor::RecordKind;
use crate::hash::key_hash;
use crate::run::block_builder::{BlockBuilder, NewVersion};
use crate::run::block_cursor::BlockCursor;
use crate::run::decode::common_prefix;
use crate::run::testing::{Numbers, Records, place, random_records};

fn build(records: &Records, interval: u8) -> Bytes {
    let mut builder = BlockBuilder::new(interval);
    let mut last: Vec<u8> = Vec::new();
    for ((key, down), row) in records {
        builder.add(&NewVersion {
            key,
            hash: key_hash(key),
            shared: common_prefix(&last, key),
            same_key: builder.len() > 0 && last == *key,
            uid: Uid::new(u64::MAX - down),
            kind: if row.is_some() { RecordKind::Put } else { RecordKind::Delete },
            row: row.as_deref().unwrap_or_default(),
        });
        last.clone_from(key);
    }
    Bytes::copy_from_slice(builder.finish())
}

/// Asks a block everything that can be asked, and answers how many versions it showed.
fn exercise(bytes: Bytes, numbers: &mut Numbers) -> usize {
    let Ok(block) = Block::parse(bytes) else { return 0 };
    let mut shown = 0;
    for since in [None, Some(Uid::new(numbers.next()))] {
        let mut cursor = BlockCursor::new(since);
        cursor.reset(block.clone());
        let mut moved = cursor.first();
        let mut keys = Vec::new();
        while moved == Ok(true) {
            shown += 1;
            assert!(shown <= 2 * block.count());
            keys.push((cursor.key().to_vec(), cursor.uid()));
            let _ = (cursor.row(), cursor.row_ref().len());
            moved = cursor.next();
        }
        let mut moved = cursor.last();
        let mut steps = 0;
        while moved == Ok(true) {
            steps += 1;
            assert!(steps <= block.count());
            moved = cursor.prev();
        }
        for (key, uid) in keys.iter().take(50) {
            let _ = block.get(key, key_hash(key), *uid);
            let _ = cursor.seek(key, *uid).and_then(|_| cursor.prev()).and_then(|_| cursor.next());
        }
    }
    let _ = block.get(b"key", numbers.next(), Uid::MAX);
    shown
}

#[test]
fn hostile_bytes_make_errors_and_never_panics() {
    let mut numbers = Numbers(1);
    for _ in 0..40 {
        let count = 1 + numbers.below(120) as usize;
        let sound = build(&random_records(&mut numbers, count), 1 + numbers.below(20) as u8);
        assert!(exercise(sound.clone(), &mut numbers) >= count);
        for _ in 0..300 {
            let mut bytes = sound.to_vec();
            for _ in 0..=numbers.below(4) {
                let tail = numbers.below(3) == 0;
                let range = if tail { bytes.len().min(40) } else { bytes.len() } as u64;
                let at = bytes.len() - 1 - numbers.below(range) as usize;
                bytes[at] = numbers.next() as u8;
            }
            if numbers.below(10) == 0 {
                bytes.truncate(numbers.below(bytes.len() as u64) as usize);
            }
            exercise(bytes.into(), &mut numbers);
        }
    }
}

#[test]
fn the_hash_index_is_left_out_where_one_byte_cannot_name_every_restart() {
    let records: Records =
        (0..400_u64).map(|n| ((n.to_be_bytes().to_vec(), n), Some(n.to_le_bytes().to_vec()))).collect();
    for (interval, hashed) in [(1, false), (2, true)] {
        let block = Block::parse(build(&records, interval)).unwrap();
        assert_eq!(block.buckets > 0, hashed);
        for ((key, down), row) in &records {
            let found = block.get(key, key_hash(key), Uid::MAX).unwrap().unwrap();
            assert_eq!(found.uid, Uid::new(u64::MAX - down));
            assert_eq!(block.part(found.row), row.as_deref().unwrap());
            let absent = [key.as_slice(), b"x"].concat();
            assert!(block.get(&absent, key_hash(&absent), Uid::MAX).unwrap().is_none());
        }
    }
}

#[test]
fn columns_take_as_many_bytes_as_the_uids_need() {
    for (width, spread) in [(0, 0), (1, 255), (2, 256), (3, 1 << 20), (8, u64::MAX >> 1)] {
        let records: Records = [(b"a", 0), (b"b", spread)]
            .into_iter()
            .map(|(key, up)| ((key.to_vec(), u64::MAX - 77 - up), None))
            .collect();
        let block = Block::parse(build(&records, 16)).unwrap();
        assert_eq!(block.width, width);
        assert_eq!(block.uid(0), Uid::new(77));
        assert_eq!(block.uid(1), Uid::new(77 + spread));
        assert_eq!(block.highest_uid(0), Uid::new(77 + spread));
    }
}

/// The worked example of the format document.
#[test]
fn three_versions_make_the_bytes_that_the_document_shows() {
    let records: Records = [(b"ant", 7, Some("red")), (b"ant", 5, None), (b"bee", 6, Some(""))]
        .into_iter()
        .map(|(key, uid, row)| (place(key, Uid::new(uid)), row.map(|row| row.as_bytes().to_vec())))
        .collect();
    let expected = [
        &b"\x00\x03\x04antred\x03\x00\x00\x00\x03\x01bee"[..],
        b"\x02\x00\x01",
        b"\xff\x00\x00",
        b"\x02",
        b"\x00\x00\x00\x00",
        b"\x03\x00\x00\x00\x12\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x03\x00\x01\x10",
    ];
    assert_eq!(build(&records, 16), expected.concat());
}
