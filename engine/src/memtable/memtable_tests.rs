use std::cmp::Reverse;
use std::collections::BTreeMap;

use planaria_types::Uid;

use super::Memtable;
use crate::cursor::{Cursor, RecordKind};
use crate::sync::Arc;

type Model = BTreeMap<(Vec<u8>, Reverse<Uid>), Vec<u8>>;

fn filled(count: u64) -> (Arc<Memtable>, Model) {
    let table = Arc::new(Memtable::new());
    let mut model = Model::new();
    let mut seed = 42_u64;
    for uid in 1..=count {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let key = format!("{:04}", (seed >> 33) % 300).into_bytes();
        let row = uid.to_string().into_bytes();
        table.insert(&key, Uid::new(uid), RecordKind::Put, &row, 1);
        model.insert((key, Reverse(Uid::new(uid))), row);
    }
    (table, model)
}

#[test]
fn a_memtable_agrees_with_an_ordered_map_in_both_directions() {
    let (table, model) = filled(2_000);
    let mut cursor = table.cursor(None);
    cursor.seek_to_first().unwrap();
    for ((key, Reverse(uid)), row) in &model {
        assert_eq!((cursor.key(), cursor.uid(), cursor.row_ref()), (&key[..], *uid, &row[..]));
        cursor.next().unwrap();
    }
    assert!(!cursor.is_valid());
    cursor.seek_to_last().unwrap();
    for ((key, Reverse(uid)), _) in model.iter().rev() {
        assert_eq!((cursor.key(), cursor.uid()), (&key[..], *uid));
        cursor.prev().unwrap();
    }
    assert!(!cursor.is_valid());
}

#[test]
fn a_read_at_a_uid_sees_the_newest_version_at_or_below_it() {
    let (table, model) = filled(2_000);
    for at in [1, 500, 1_999, 2_000] {
        for number in 0..300 {
            let key = format!("{number:04}").into_bytes();
            let expected = model
                .range((key.clone(), Reverse(Uid::new(at)))..)
                .next()
                .filter(|((found, _), _)| *found == key)
                .map(|((_, Reverse(uid)), _)| *uid);
            assert_eq!(table.get(&key, Uid::new(at)).map(|version| version.uid), expected);
        }
    }
}

#[test]
fn a_cursor_since_a_uid_shows_only_what_is_above_it() {
    let (table, model) = filled(1_000);
    let since = Uid::new(700);
    let mut cursor = table.cursor(Some(since));
    cursor.seek_to_first().unwrap();
    for ((key, Reverse(uid)), _) in model.iter().filter(|((_, Reverse(uid)), _)| *uid > since) {
        assert_eq!((cursor.key(), cursor.uid()), (&key[..], *uid));
        cursor.next().unwrap();
    }
    assert!(!cursor.is_valid());
}

#[test]
fn keys_in_order_take_the_short_way_and_stay_in_order() {
    let table = Arc::new(Memtable::new());
    for number in 0..10_000_u64 {
        table.insert(&number.to_be_bytes(), Uid::new(number + 1), RecordKind::Put, b"x", 1);
    }
    let mut cursor = table.cursor(None);
    cursor.seek_to_first().unwrap();
    for number in 0..10_000_u64 {
        assert_eq!(cursor.key(), number.to_be_bytes());
        cursor.next().unwrap();
    }
    cursor.seek_before(&5_000_u64.to_be_bytes()).unwrap();
    assert_eq!(cursor.key(), 4_999_u64.to_be_bytes());
}

#[test]
fn readers_see_whole_versions_while_a_writer_inserts() {
    let table = Arc::new(Memtable::new());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut most = 0;
            while most < 20_000 {
                let mut cursor = table.cursor(None);
                cursor.seek_to_first().unwrap();
                let mut seen = 0;
                let mut last = Vec::new();
                while cursor.is_valid() {
                    assert!(cursor.key() > &last[..]);
                    assert_eq!(cursor.row_ref(), cursor.key());
                    last = cursor.key().to_vec();
                    seen += 1;
                    cursor.next().unwrap();
                }
                assert!(seen >= most);
                most = seen;
            }
        });
        for number in 0..20_000_u64 {
            let key = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            table.insert(&key, Uid::new(number + 1), RecordKind::Put, &key, 1);
        }
        reader.join().unwrap();
    });
}
