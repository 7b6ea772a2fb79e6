use std::path::Path;

use super::*;
use crate::os::{Call, CrashStyle, Fault, FaultOs, MemOs};
use crate::{Batch, Durability};

const STYLES: [CrashStyle; 3] =
    [CrashStyle::ProcessKill, CrashStyle::PowerCutClean, CrashStyle::PowerCutTorn];

fn options(os: &MemOs) -> Options {
    Options {
        memtable_bytes: 64 << 10,
        log_segment_bytes: 64 << 10,
        log_bytes_max: 256 << 10,
        log_tail_bytes: 64 << 10,
        background: false,
        os: Arc::new(os.clone()),
        ..Options::default()
    }
}

fn place(os: &MemOs) -> ClonePlace {
    ClonePlace::new("/site/clone", Arc::new(os.clone()))
}

fn database(os: &MemOs, dir: &str, row: &str) -> Database {
    let db = Database::open_with(dir, options(os)).unwrap();
    let table = db.create_raw_table("t").unwrap();
    let mut batch = Batch::new();
    batch.put(table.id(), "key", row);
    db.write(batch, Durability::Synced).unwrap();
    db
}

/// What the database in a directory holds.
fn row(os: &MemOs, dir: &Path) -> String {
    let db = Database::open_with(dir, Options { create: false, ..options(os) }).unwrap();
    let row = db.table("t").unwrap().get("key").unwrap().unwrap();
    String::from_utf8(row.to_vec()).unwrap()
}

/// A clone with the row `old`, and one with the row `new` that is to take its place.
fn two() -> MemOs {
    let os = MemOs::new(7);
    let place = place(&os);
    database(&os, "/site/a", "old").clone_to(place.dir()).unwrap();
    database(&os, "/site/b", "new").clone_to(place.next()).unwrap();
    os
}

/// Does something that dies at its first mutating call, its second, and so on until it does not; `check` is given the disk
/// as each death leaves it.
fn die_at_every_call(
    prepare: impl Fn() -> MemOs,
    act: impl Fn(&MemOs) -> Result<()>,
    check: impl Fn(&MemOs, &str),
) {
    for style in STYLES {
        for n in 1.. {
            let os = prepare();
            os.crash_at(os.mutations() + n);
            let acted = act(&os);
            let is_over = !os.has_crashed();
            // What dies as it lets go of its claim has done everything before.
            assert!(acted.is_ok() || !is_over, "{acted:?}");
            for seed in 0..if style == CrashStyle::PowerCutTorn { 8 } else { 1 } {
                check(&os.crash(style, seed), &format!("{style:?} at call {n}, seed {seed}"));
            }
            if is_over {
                assert!(n > 3, "nothing was done");
                break;
            }
        }
    }
}

#[test]
fn an_exchange_that_dies_at_any_call_leaves_one_of_both_whole_and_can_be_made_again() {
    die_at_every_call(
        two,
        |os| place(os).install(),
        |os, when| {
            let place = place(os);
            // What readers find before anybody tidies up.
            let before = row(os, place.dir());
            assert!(before == "old" || before == "new", "{when}");
            place.settle().unwrap();
            assert_eq!(row(os, place.dir()), before, "{when}");
            if before == "old" {
                assert_eq!(row(os, &place.next()), "new", "{when}");
                place.install().unwrap();
            }
            assert_eq!(
                (row(os, place.dir()), row(os, &place.replaced())),
                ("new".into(), "old".into()),
                "{when}"
            );
            place.roll_back().unwrap();
            assert_eq!(
                (row(os, place.dir()), row(os, &place.replaced())),
                ("old".into(), "new".into()),
                "{when}"
            );
        },
    );
}

#[test]
fn taking_it_back_is_one_step_as_well() {
    let replaced = || {
        let os = two();
        place(&os).install().unwrap();
        os
    };
    die_at_every_call(
        replaced,
        |os| place(os).roll_back(),
        |os, when| {
            let place = place(os);
            place.settle().unwrap();
            let rows = (row(os, place.dir()), row(os, &place.replaced()));
            assert!(
                [("old", "new"), ("new", "old")].map(|(a, b)| (a.into(), b.into())).contains(&rows),
                "{when}"
            );
        },
    );
}

#[test]
fn what_is_removed_is_there_as_a_whole_or_not_at_all() {
    let other = || {
        let os = two();
        place(&os).install().unwrap();
        os
    };
    let remove = |os: &MemOs| place(os).remove().and_then(|_| place(os).drop_replaced()).map(drop);
    die_at_every_call(other, remove, |os, when| {
        let place = place(os);
        for (dir, is_there) in
            [(place.dir().to_path_buf(), place.is_there()), (place.replaced(), place.has_replaced())]
        {
            assert!(!is_there || row(os, &dir).len() == 3, "{when}");
            assert!(is_there || !os.exists(&dir), "{when}: a half of {} is left", dir.display());
        }
        remove(os).unwrap();
        assert_eq!(names(os), ["a", "b"], "{when}");
    });
}

fn names(os: &MemOs) -> Vec<String> {
    os.list(Path::new("/site")).unwrap().into_iter().map(|entry| entry.name).collect()
}

#[test]
fn what_was_abandoned_leaves_nothing_and_what_is_open_is_left_alone() {
    let os = two();
    let place = place(&os);
    let open = Database::open_with(place.dir(), options(&os)).unwrap();
    for refused in [place.install(), place.remove().map(drop), place.promote(&options(&os)).map(drop)] {
        assert_eq!(refused.unwrap_err().code(), "in_use");
    }
    open.close();
    drop(open);
    assert!(place.abandon().unwrap() && !place.abandon().unwrap());
    assert_eq!(names(&os), ["a", "b", "clone"]);
    assert_eq!(place.roll_back().unwrap_err().code(), "not_found");
    assert_eq!(row(&os, place.dir()), "old");
}

#[test]
fn a_clone_that_cannot_take_the_place_of_another_is_kept_beside_it_whole() {
    let os = two();
    place(&os).install().unwrap();
    database(&os, "/site/c", "newer").clone_to(place(&os).next()).unwrap();
    let refusing = FaultOs::new(Arc::new(os.clone()));
    let error = std::io::ErrorKind::Unsupported;
    refusing.inject(Fault { call: Call::Exchange, at: 1, error, forever: false });
    let own = ClonePlace::new("/site/clone", Arc::new(refusing.clone()));
    let refused = own.install().unwrap_err();
    assert_eq!((refused.code(), refusing.hits()), ("not_exchanged", 1));
    assert!(refused.to_string().contains("/site/clone.next"), "{refused}");
    // Nothing of the three has changed, and what was replaced is the same.
    let rows = || [own.dir().to_path_buf(), own.next(), own.replaced()].map(|dir| row(&os, &dir));
    assert_eq!(rows(), ["new", "newer", "old"]);
    assert!(!is_kept(&os, own.dir()) && is_kept(&os, &own.replaced()));
    own.settle().unwrap();
    assert_eq!(rows(), ["new", "newer", "old"]);
    own.install().unwrap();
    assert_eq!((row(&os, own.dir()), row(&os, &own.replaced())), ("newer".into(), "new".into()));
}

#[test]
fn one_changes_what_lies_at_a_place_at_a_time() {
    let os = two();
    let other = place(&os);
    let claimed = place(&os).claim().unwrap();
    for refused in [
        other.settle(),
        other.install(),
        other.roll_back(),
        other.abandon().map(drop),
        other.remove().map(drop),
        other.drop_replaced().map(drop),
        other.promote(&options(&os)).map(drop),
        other.begin_renewal(&options(&os)).map(drop),
        place(&os).claim().map(drop),
    ] {
        assert_eq!(refused.unwrap_err().code(), "busy");
    }
    claimed.install().unwrap();
    claimed.roll_back().unwrap();
    drop(claimed);
    assert!(other.drop_replaced().unwrap());
    assert_eq!(row(&os, other.dir()), "old");
    assert_eq!(names(&os), ["a", "b", "clone"]);

    let beside = |name: &str| ClonePlace::new(Path::new("/site").join(name), Arc::new(os.clone()));
    let source = Database::open_with("/site/a", options(&os)).unwrap();
    let taken = beside("taken").claim().unwrap();
    assert_eq!(source.clone_to(taken.dir()).unwrap_err().code(), "busy");
    drop(taken);
    source.clone_to(beside("taken").dir()).unwrap();
    // What was never made is no reason to make the directory that it would lie in.
    assert!(!beside("none/clone").remove().unwrap() && !os.exists(Path::new("/site/none")));
}

#[test]
fn looking_at_an_exchange_that_was_interrupted_changes_nothing_of_it() {
    let os = two();
    let own = place(&os);
    // It died between its two names.
    own.mark_kept(own.dir()).unwrap();
    os.exchange(own.dir(), &own.next()).unwrap();
    assert!(own.has_replaced() && own.partials().is_empty());
    assert_eq!(names(&os), ["a", "b", "clone", "clone.next"]);
    own.settle().unwrap();
    assert!(own.has_replaced() && own.partials().is_empty());
    assert_eq!(names(&os), ["a", "b", "clone", "clone.replaced"]);
}

#[test]
fn a_promotion_that_dies_at_any_call_leaves_a_secondary_or_a_database_of_its_own() {
    let standby = || {
        let os = two();
        let of = place(&os).begin_renewal(&options(&os)).unwrap();
        assert_ne!(of, Database::open_with(place(&os).dir(), options(&os)).unwrap().id());
        let next = place(&os).next();
        os.remove_dir_all(&next).unwrap();
        os.rename(&place(&os).renewing(), &next).unwrap();
        os.sync_dir(Path::new("/site")).unwrap();
        place(&os).install().unwrap();
        os
    };
    let id = |os: &MemOs| {
        let db = Database::open_with(place(os).dir(), Options { create: false, ..options(os) }).unwrap();
        (db.id(), db.role(), db.lineage())
    };
    die_at_every_call(
        standby,
        |os| place(os).promote(&options(os)).map(drop),
        |os, when| {
            assert_eq!(row(os, place(os).dir()), "old", "{when}");
            if id(os).1 == Role::Secondary {
                place(os).promote(&options(os)).unwrap();
            }
            let (own, role, lineage) = id(os);
            let source = Database::open_with("/site/a", options(os)).unwrap().id();
            assert_eq!(
                (role, lineage.map(|lineage| lineage.database)),
                (Role::Primary, Some(source)),
                "{when}"
            );
            assert_ne!(own, source, "{when}");
            assert_eq!(place(os).promote(&options(os)).unwrap_err().code(), "invalid", "{when}");
        },
    );
}

#[test]
fn only_a_clone_that_nobody_wrote_to_is_brought_up_to_date_by_what_changed() {
    let os = two();
    let place = place(&os);
    let source = Database::open_with("/site/a", options(&os)).unwrap().id();
    assert_eq!(place.begin_renewal(&options(&os)).unwrap(), source);
    let db = Database::open_with(place.dir(), options(&os)).unwrap();
    let mut batch = Batch::new();
    batch.put(db.table("t").unwrap().id(), "more", "rows");
    db.write(batch, Durability::Synced).unwrap();
    drop(db);
    let refused = place.begin_renewal(&options(&os)).unwrap_err();
    assert!(refused.to_string().contains("written to"), "{refused}");
    let origin = ClonePlace::new("/site/a", Arc::new(os.clone()));
    assert!(origin.begin_renewal(&options(&os)).unwrap_err().to_string().contains("nothing"));
}
