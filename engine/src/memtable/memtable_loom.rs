use planaria_types::Uid;

use super::Memtable;
use crate::cursor::{Cursor, RecordKind};
use crate::sync::Arc;

#[test]
fn a_reader_sees_a_prefix_of_the_insertions_with_whole_rows() {
    loom::model(|| {
        let table = Arc::new(Memtable::new());
        let writer = {
            let table = Arc::clone(&table);
            loom::thread::spawn(move || {
                table.insert(b"b", Uid::new(1), RecordKind::Put, b"one", 1);
                table.insert(b"a", Uid::new(2), RecordKind::Put, b"two", 1);
            })
        };
        let second = table.get(b"a", Uid::MAX);
        let first = table.get(b"b", Uid::MAX);
        if let Some(version) = &second {
            assert_eq!(&version.row[..], b"two");
            assert!(first.is_some(), "the first insertion was published before the second");
        }
        if let Some(version) = &first {
            assert_eq!(&version.row[..], b"one");
        }
        writer.join().unwrap();
        let mut cursor = table.cursor(None);
        cursor.seek_to_first().unwrap();
        assert_eq!(cursor.key(), b"a");
        cursor.next().unwrap();
        assert_eq!(cursor.key(), b"b");
    });
}
