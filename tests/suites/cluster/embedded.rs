//! A replica inside a process, here that of the test, follows a real node.

use std::time::Duration;

use planaria::replica::{Forward, Level, Replica, ReplicaError, ReplicaOf, State, Way};
use planaria::{Batch, Column, ColumnType, Database, Schema, Uid, Value};
use planaria_tests::cluster::{Node, PATIENCE, Site, wait_for};

const COLUMNS: [&str; 9] =
    ["table", "create", "seen", "--column", "id:int64", "--column", "bird:text", "--key", "id"];

fn open(site: &Site, dir: &str, primary: &Node<'_>) -> Result<Replica, ReplicaError> {
    let certificates = site.path("home").join("planaria").join("tls");
    Database::replica_of(primary.address()).certificates(certificates).open(site.path(dir))
}

fn wait_until_online(replica: &Replica) {
    wait_for(
        "the replica to be online",
        || (replica.status().state == State::Online).then_some(()),
        || format!("{:?}", replica.status()),
    );
}

fn row(id: i64, bird: &str) -> Vec<Value> {
    vec![Value::Int(id), bird.into()]
}

fn code<T>(result: Result<T, ReplicaError>) -> String {
    result.err().map(|error| error.code().to_owned()).unwrap_or_default()
}

#[test]
fn a_replica_reads_what_it_wrote_through_the_primary() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    primary.run(&COLUMNS).json();
    primary.run(&["put", "seen", "id=1", "bird=heron"]).json();
    let replica = open(&site, "copy", &primary).unwrap();
    let seen = replica.table("seen").unwrap();
    assert_eq!(seen.find(&[1.into()]).unwrap(), Some(row(1, "heron")));

    let written = seen.insert(&row(2, "coot")).unwrap();
    replica.wait_for(written, PATIENCE).unwrap();
    assert_eq!(seen.find(&[2.into()]).unwrap(), Some(row(2, "coot")));
    assert!(replica.status().position.uid >= written.uid);
    let there = primary.run(&["get", "seen", "2"]).json().remove(0);
    assert_eq!(there["bird"], "coot");

    // A batch is one commit, and under one token it is made once.
    let mut batch = Batch::new();
    let (key, coded) = seen.local().unwrap().encode(&row(3, "grebe")).unwrap();
    let (gone, _) = seen.local().unwrap().encode(&row(1, "")).unwrap();
    batch.put(seen.id().unwrap(), key, coded).delete(seen.id().unwrap(), gone);
    let how = Forward { token: Some(7), level: Level::Local, ..Forward::default() };
    let first = replica.write_with(&batch, how).unwrap();
    assert_eq!(replica.write_with(&batch, how).unwrap(), first);
    replica.wait_for(first, PATIENCE).unwrap();
    let rows: Vec<_> = seen.rows(&[]).unwrap().map(Result::unwrap).collect();
    assert_eq!(rows, [row(2, "coot"), row(3, "grebe")]);
    let other = {
        let mut other = Batch::new();
        other.delete(seen.id().unwrap(), "x");
        other
    };
    assert_eq!(code(replica.write_with(&other, how)), "token_reused");

    let mut large = Batch::new();
    for key in 0..70_000_u32 {
        large.delete(seen.id().unwrap(), key.to_be_bytes());
    }
    assert_eq!(code(replica.write(&large)), "too_large");

    // The primary judges what is written; the copy takes no writes of its own.
    assert_eq!(code(seen.put("no key of that table", "row")), "invalid");
    assert_eq!(code(replica.table("unseen")), "unknown_table");
    let local = replica.database().table("seen").unwrap().insert(&row(4, "gull"));
    assert_eq!(local.unwrap_err().code(), "read_only");
    let later = planaria::Position { uid: Uid::new(written.uid.get() + (1 << 40)), ..written };
    assert_eq!(code(replica.wait_for(later, Duration::from_millis(5))), "not_reached");

    // It has no address, so that nobody could promote it: no level counts on it.
    wait_until_online(&replica);
    wait_for(
        "the primary to list it as online",
        || {
            let listed = primary.run(&["replica", "list"]).json();
            let copy = listed.iter().find(|copy| copy["name"] == "copy")?;
            (copy["state"] == "online" && copy["promotable"] == false).then_some(())
        },
        || format!("{:?}", primary.run(&["replica", "list"]).json()),
    );
    let how = Forward { level: Level::One, ..Forward::default() };
    assert_eq!(code(replica.write_with(&batch, how)), "too_few_copies");
}

#[test]
fn a_replica_has_the_primary_make_tables_and_writes_into_them_at_once() {
    let schema = || {
        let columns = [Column::new("id", ColumnType::Int64), Column::new("bird", ColumnType::Text)];
        let [id, bird] = columns;
        Schema::builder().column(id).column(bird).key(["id"]).build().unwrap()
    };
    let site = Site::new();
    let mut primary = Node::primary(&site, "primary");
    let replica = open(&site, "copy", &primary).unwrap();
    let seen = replica.create_table("seen", schema()).unwrap();
    assert_eq!(seen.rows(&[]).unwrap().count(), 0);
    let written = seen.insert(&row(1, "heron")).unwrap();
    replica.wait_for(written, PATIENCE).unwrap();
    assert_eq!(seen.find(&[1.into()]).unwrap(), Some(row(1, "heron")));
    assert_eq!(primary.run(&["get", "seen", "1"]).json()[0]["bird"], "heron");
    let notes = replica.create_raw_table("notes").unwrap();
    let written = notes.put("page", "text").unwrap();
    replica.wait_for(written, PATIENCE).unwrap();
    assert_eq!(notes.get("page").unwrap().as_deref(), Some(&b"text"[..]));
    // Neither the same one nor another one of that name is made twice, and what can be no table is told here.
    assert_eq!(code(replica.create_table("seen", schema())), "table_exists");
    assert_eq!(code(replica.create_raw_table("seen")), "table_exists");
    assert_eq!(code(replica.create_raw_table("")), "schema");

    wait_until_online(&replica);
    primary.kill();
    let failed = code(replica.create_raw_table("later"));
    assert!(matches!(failed.as_str(), "unknown" | "no_primary"), "{failed}");
    let failed = replica.create_raw_table("later").unwrap_err();
    assert_eq!(failed.code(), "no_primary", "{failed}");
    primary.start();
    wait_until_online(&replica);
    replica.create_raw_table("later").unwrap().put("page", "text").unwrap();
    let listed = primary.run(&["table", "list"]).json();
    assert_eq!(listed.len(), 3, "{listed:?}");
}

#[test]
fn a_replica_is_read_while_its_primary_is_away_and_goes_on_when_it_is_back() {
    let site = Site::new();
    let mut primary = Node::primary(&site, "primary");
    primary.run(&COLUMNS).json();
    let replica = open(&site, "copy", &primary).unwrap();
    let seen = replica.table("seen").unwrap();
    let written = seen.insert(&row(1, "heron")).unwrap();
    replica.wait_for(written, PATIENCE).unwrap();

    primary.kill();
    assert_eq!(seen.find(&[1.into()]).unwrap(), Some(row(1, "heron")));
    // The first write may go into a connection that nobody has found dead.
    let failed = code(seen.insert(&row(2, "coot")));
    assert!(matches!(failed.as_str(), "unknown" | "no_primary"), "{failed}");
    let failed = seen.insert(&row(2, "coot")).unwrap_err();
    assert_eq!(failed.code(), "no_primary", "{failed}");
    assert!(failed.to_string().contains(primary.address()), "{failed}");
    wait_for(
        "the replica to be offline",
        || (replica.status().state == State::Offline).then_some(()),
        || format!("{:?}", replica.status()),
    );
    let lag = replica.status().lag;
    wait_for("the lag to grow", || (replica.status().lag > lag).then_some(()), || format!("{lag:?}"));

    // A process that begins without its primary has what the last one had.
    assert_eq!(code(open(&site, "copy", &primary)), "in_use");
    drop((seen, replica));
    let replica = open(&site, "copy", &primary).unwrap();
    let seen = replica.table("seen").unwrap();
    assert_eq!(seen.find(&[1.into()]).unwrap(), Some(row(1, "heron")));
    assert_eq!(code(seen.insert(&row(2, "coot"))), "no_primary");
    assert_eq!(code(open(&site, "another", &primary)), "timed_out");

    primary.start();
    primary.run(&["put", "seen", "id=5", "bird=rail"]).json();
    wait_until_online(&replica);
    let written = seen.insert(&row(6, "ibis")).unwrap();
    replica.wait_for(written, PATIENCE).unwrap();
    assert_eq!(seen.find(&[5.into()]).unwrap(), Some(row(5, "rail")));
    assert_eq!(seen.find(&[6.into()]).unwrap(), Some(row(6, "ibis")));
    assert_eq!(replica.status().last_refresh.map(|last| last.way), Some(Way::Tail));
    assert_eq!(replica.status().failure, None);
}

#[test]
fn a_table_of_a_replica_stays_current_when_run_files_take_the_copys_place() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    primary.run(&COLUMNS).json();
    let replica = open(&site, "copy", &primary).unwrap();
    let seen = replica.table("seen").unwrap();
    wait_until_online(&replica);
    let before = seen.local().unwrap();
    replica.refresh(Way::Bulk);
    wait_for(
        "the run files",
        || (replica.status().last_refresh?.way == Way::Bulk).then_some(()),
        || format!("{:?}", replica.status()),
    );
    let written = seen.insert(&row(1, "heron")).unwrap();
    replica.wait_for(written, PATIENCE).unwrap();
    assert_eq!(seen.find(&[1.into()]).unwrap(), Some(row(1, "heron")));
    assert_eq!(before.find(&[1.into()]).unwrap(), None);
    replica.database().verify().unwrap();
}

#[test]
fn a_replica_follows_the_next_primary_and_no_other_database() {
    let site = Site::new();
    let a = Node::primary(&site, "a");
    a.run(&COLUMNS).json();
    let b = Node::secondary(&site, "b", &a);
    b.wait_until_equal(&a);
    let replica = open(&site, "copy", &a).unwrap();
    let seen = replica.table("seen").unwrap();
    replica.wait_for(seen.insert(&row(1, "heron")).unwrap(), PATIENCE).unwrap();
    b.run(&["promote", "--yes"]).json();
    let failed = seen.insert(&row(2, "coot")).unwrap_err();
    assert_eq!(failed.code(), "no_primary", "{failed}");

    replica.follow(b.address()).unwrap();
    let written = seen.insert(&row(2, "coot")).unwrap();
    replica.wait_for(written, PATIENCE).unwrap();
    assert_eq!(seen.rows(&[]).unwrap().count(), 2);
    assert_eq!(replica.status().primary.to_string(), b.address());

    let foreign = Node::primary(&site, "foreign");
    foreign.run(&COLUMNS).json();
    assert_eq!(code(replica.follow(foreign.address())), "foreign_database");
    assert_eq!(code(replica.follow("nowhere")), "address");
    replica.wait_for(seen.insert(&row(3, "grebe")).unwrap(), PATIENCE).unwrap();
    drop((seen, replica));
    assert_eq!(code(open(&site, "copy", &foreign)), "foreign_database");
}

#[test]
fn a_replica_that_holds_one_table_reads_it_and_writes_all() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    primary.run(&COLUMNS).json();
    primary.run(&["table", "create", "blobs", "--raw"]).json();
    primary.run(&["put", "blobs", "a", "row"]).json();
    let certificates = site.path("home").join("planaria").join("tls");
    let options = || Database::replica_of(primary.address()).certificates(&certificates);
    let replica = options().only("seen").open(site.path("copy")).unwrap();
    wait_until_online(&replica);
    let (seen, blobs) = (replica.table("seen").unwrap(), replica.table("blobs").unwrap());
    let written = seen.insert(&row(1, "heron")).unwrap();
    replica.wait_for(written, PATIENCE).unwrap();
    assert_eq!(seen.find(&[1.into()]).unwrap(), Some(row(1, "heron")));
    let written = blobs.put("b", "row").unwrap();
    replica.wait_for(written, PATIENCE).unwrap();
    assert_eq!(code(blobs.get("b")), "not_held");
    assert_eq!(primary.rows("blobs"), 2);
    drop((seen, blobs, replica));
    assert_eq!(code(options().open(site.path("copy"))), "partial_copy");
    assert_eq!(code(options().only("").open(site.path("copy"))), "portion");
    let whole = options().open(site.path("whole")).unwrap();
    drop(whole);
    assert_eq!(code(options().only("seen").open(site.path("whole"))), "whole_copy");
}
