//! An extract is compared and written again, once.

use bytes::Bytes;
use planaria_engine::{Database, Options};

use super::{Opened, Standing, compare, reapply_to};
use crate::session::{IfAbsent, LocalSession, Session, StoredRow};

fn put(session: &dyn Session, key: &'static str, row: &'static str) -> planaria_types::Uid {
    let table = session.table("birds").unwrap();
    session.put(&table, StoredRow { key: Bytes::from(key), row: Bytes::from(row) }).unwrap().position.uid
}

fn row(session: &dyn Session, key: &str) -> Option<Bytes> {
    session.get(&session.table("birds").unwrap(), key.as_bytes()).unwrap()
}

/// A database with an extract of what another copy of it had, and the name of that.
fn quarantined(dir: &std::path::Path) -> (LocalSession, String) {
    let path = dir.join("db");
    let session = LocalSession::open(&path, IfAbsent::Create).unwrap();
    session.create_table("birds", None).unwrap();
    for key in ["kept", "changed", "deleted", "both"] {
        put(&session, key, "old");
    }
    let fork = put(&session, "last", "old");
    put(&session, "changed", "new");
    put(&session, "both", "new");
    put(&session, "added", "new");
    let table = session.table("birds").unwrap();
    let through = session.delete(&table, b"deleted").unwrap().position.uid;
    drop(session);
    let db = Database::open_with(&path, Options { background: false, ..Options::default() }).unwrap();
    db.quarantine(fork, through).unwrap();
    let hash = db.history_hash_at(fork).unwrap().unwrap();
    db.take_back(db.history().position_of(fork), hash).unwrap();
    drop(db);
    let session = LocalSession::open(&path, IfAbsent::Fail).unwrap();
    let name = session.extracts().unwrap().remove(0).name;
    (session, name)
}

#[test]
fn an_extract_is_written_again_once_and_never_over_what_is_newer() {
    let dir = tempfile::tempdir().unwrap();
    let (session, name) = quarantined(dir.path());
    let opened = Opened::find(&session, &name, &[]).unwrap();
    let standings = || {
        let mut all = Vec::new();
        opened
            .visit(|table, records| {
                all.extend(compare(&session, opened.extract.above, table, records)?);
                Ok(())
            })
            .unwrap();
        all
    };
    // In the order of the keys: added, both, changed, deleted.
    let (absent, differs, same) = (Standing::Absent, Standing::Differs, Standing::Same);
    assert_eq!(standings(), [absent, differs, differs, differs]);
    put(&session, "both", "newest");
    let refused = reapply_to(&opened, &session, false).unwrap_err();
    assert_eq!(refused.code, "conflict");
    assert_eq!(
        row(&session, "changed").as_deref(),
        Some(&b"old"[..]),
        "nothing is written beside a conflict"
    );

    assert_eq!(reapply_to(&opened, &session, true).unwrap().written, 4);
    assert_eq!(row(&session, "both").as_deref(), Some(&b"new"[..]));
    assert_eq!((row(&session, "deleted"), row(&session, "kept").is_some()), (None, true));
    assert_eq!(standings(), [same; 4]);
    let again = reapply_to(&opened, &session, false).unwrap();
    assert_eq!((again.written, again.same), (0, 4));
}

#[test]
fn tables_that_are_not_there_are_made_and_others_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (session, name) = quarantined(dir.path());
    let other = LocalSession::open(&dir.path().join("other"), IfAbsent::Create).unwrap();
    let opened = Opened::find(&session, &name, &["birds".to_owned()]).unwrap();
    assert_eq!(reapply_to(&opened, &other, false).unwrap().written, 3, "a delete is there already");
    assert_eq!(row(&other, "added").as_deref(), Some(&b"new"[..]));
    assert_eq!(Opened::find(&session, &name, &["none".to_owned()]).err().unwrap().code, "unknown_table");
    assert_eq!(Opened::find(&session, "none", &[]).err().unwrap().code, "unknown_extract");
}
