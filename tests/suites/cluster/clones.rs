//! Clones of a node that goes on working: on its own disk, and over the network with an interruption.

use std::path::PathBuf;

use planaria_engine::{Database, Options};
use planaria_tests::cluster::{Answer, Node, Site, TableFile, wait_for};

use crate::failover::wait_until_promotable;

/// Rows of the table.
const ROWS: u64 = 40_000;

#[test]
fn a_local_clone_in_the_middle_of_an_import_is_a_prefix_with_a_life_of_its_own() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    let file = TableFile::sightings(&site, ROWS);
    let words = file.import();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let import = primary.begin(&words);
    let there = || primary.run(&["digest", &file.table]).code == 0 && primary.rows(&file.table) >= 2_000;
    wait_for("the first rows", || there().then_some(()), || format!("{:?}", primary.run(&["status"])));

    let before = primary.rows(&file.table);
    let target = site.word("clone");
    let cloned = primary.run(&["clone", "create", &target, "--on-node"]).json();
    let after = primary.rows(&file.table);
    assert_eq!(cloned[0]["kind"], "local");
    let rows = site.run(&["digest", "clone", &file.table]).digest().0;
    assert!((before..=after).contains(&rows), "{rows} rows, {before} before and {after} after");
    assert_eq!(site.run(&["verify", "clone"]).json()[0]["sound"], true);
    let imported: Answer = import.wait_with_output().unwrap().into();
    assert_eq!(imported.json()[0]["rows"], ROWS);

    // The clone holds the first rows of the file and no others: one consistent cut of an import in order.
    let prefix = TableFile::sightings_in(&site, "prefix.csv", rows);
    let words = prefix.import();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.insert(1, "prefix");
    site.run(&words).json();
    let of_prefix = site.run(&["digest", "prefix", &file.table]).digest();
    assert_eq!(site.run(&["digest", "clone", &file.table]).digest(), of_prefix);

    // Later writes of either side stay there.
    let put = ["put", "clone", "sightings", "id=-1", "place=clone", "birds=1", "remark=own"];
    site.run(&put).json();
    primary.run(&["get", "sightings", "-1"]).failed(1, "no_row");
    primary.run(&["put", "sightings", "id=-2", "place=node", "birds=1", "remark=own"]).json();
    site.run(&["get", "clone", "sightings", "-2"]).failed(1, "no_row");
    assert_eq!(site.run(&["digest", "clone", &file.table]).digest().0, rows + 1);
    assert_eq!(primary.rows(&file.table), ROWS + 1);
    let listed = primary.run(&["clone", "list"]).json();
    assert_eq!((listed.len(), &listed[0]["target"]), (1, &target.into()), "{listed:?}");
}

#[test]
fn a_remote_clone_that_was_killed_half_way_is_completed() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    let file = TableFile::sightings(&site, ROWS);
    let words = file.import();
    primary.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).json();

    let mut clone = primary.begin(&["clone", "create", "here"]);
    let partial = site.path("here.partial");
    let some = || bytes_below(&partial) > 0 || clone_is_done(&site);
    wait_for("the first bytes of a clone", || some().then_some(()), || format!("{}", partial.display()));
    clone.kill().unwrap();
    clone.wait().unwrap();
    let whole = primary.run(&["digest", &file.table]).digest();
    if !clone_is_done(&site) {
        // What is not complete is no database; it may have been complete and not in its place yet.
        let partial = site.run(&["digest", "here.partial", &file.table]);
        assert!(partial.code != 0 || partial.digest() == whole, "{}", partial.stdout);
        primary.run(&["clone", "create", "here"]).json();
    }
    assert_eq!(site.run(&["verify", "here"]).json()[0]["sound"], true);
    let here = site.run(&["digest", "here", &file.table]).digest();
    assert_eq!(here, whole);
    assert!(!partial.exists(), "a complete clone leaves nothing behind");
    primary.run(&["clone", "create", "here"]).failed(1, "exists");
}

fn clone_is_done(site: &Site) -> bool {
    site.path("here").exists()
}

/// The bytes of all files in a directory that may come and go meanwhile.
fn bytes_below(dir: &PathBuf) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of_entry = |entry: std::fs::DirEntry| {
        if entry.path().is_dir() {
            bytes_below(&entry.path())
        } else {
            entry.metadata().map_or(0, |found| found.len())
        }
    };
    entries.flatten().map(of_entry).sum()
}

#[test]
fn a_clone_for_others_leaves_its_source_filtered_and_masked() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    let file = TableFile::sightings(&site, 2_000);
    let words = file.import();
    primary.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).json();
    primary.run(&["table", "create", "secrets", "--raw"]).json();
    let before = primary.run(&["put", "secrets", "key", "row"]).json()[0]["uid"].as_str().unwrap().to_owned();
    primary.run(&["put", "sightings", "id=1", "place=later", "birds=1", "remark=after the cut"]).json();

    let refused = ["clone", "create", "test", "--where", "sightings: wings > 2"];
    let error = primary.run(&refused).failed(1, "invalid_shape");
    assert!(error["what"].to_string().contains("wings"), "{error}");
    assert!(error["hint"].to_string().contains("table show"), "{error}");
    assert!(!site.path("test").exists() && !site.path("test.partial").exists());
    // A node that takes it in the background does not ask for ever what nobody can give.
    let taker = Node::primary(&site, "taker");
    let dir = site.word("never");
    let words = ["clone", "create", &dir, "--from", primary.address(), "--where", "sightings: wings > 2"];
    taker.run(&words).json();
    let error = taker.run(&["clone", "wait", "never"]).failed(1, "not_complete");
    assert!(error.to_string().contains("wings"), "{error}");
    drop(taker);

    let shape = ["--leave-out", "secrets", "--where", "sightings: id < 500 and id not between 10 and 19"];
    let masks = ["--mask", "sightings.place=keep-format", "--mask", "sightings.remark=constant:masked"];
    let words = [&["clone", "create", "test", "--as-of", &before], &shape[..], &masks].concat();
    let cloned = primary.run(&words).json();
    assert_eq!(cloned[0]["kind"], "remote");
    assert_eq!(site.run(&["verify", "test"]).json()[0]["sound"], true);
    let rows = site.run(&["scan", "test", "sightings"]).json();
    assert_eq!(rows.len(), 490);
    assert!(rows.iter().all(|row| row["remark"] == "masked" && row["place"] != "later"), "{:?}", rows[0]);
    site.run(&["digest", "test", "secrets"]).failed(1, "unknown_table");
    // On the same disk, from a directory, the same is given.
    drop(primary);
    let open = |dir: &str| Database::open_with(site.path(dir), Options::default()).unwrap();
    let lineage = open("test").lineage().unwrap();
    let source = open("primary");
    assert_eq!((lineage.database, lineage.instance), (source.id(), source.instance()));
    source.close();
    drop(source);
    let words = [&["clone", "create", "primary", "here", "--as-of", &before], &shape[..], &masks].concat();
    site.run(&words).json();
    assert_eq!(site.run(&["scan", "here", "sightings"]).json().len(), 490);
    assert!(!site.path("here.shaped").exists() && !site.path("here.partial").exists());
}

#[test]
fn a_clone_that_is_served_is_nothing_to_its_source_and_its_source_s_secondaries() {
    let site = Site::new();
    let primary = Node::primary_at(&site, "primary", "quorum");
    primary.run(&["table", "create", "blobs", "--raw"]).json();
    let mut secondary = Node::secondary(&site, "secondary", &primary);
    wait_until_promotable(&primary, 1);
    primary.run(&["put", "blobs", "before", "row"]).json();
    let put = |node: &Node<'_>, key: &str| {
        assert_eq!(node.run(&["put", "blobs", key, "row", "--level", "local"]).json()[0]["again"], false);
    };
    let mut clones = Vec::new();
    for (name, more) in [("linked", vec!["--on-node"]), ("fetched", vec![])] {
        let target = site.word(name);
        let words = [vec!["clone", "create", target.as_str()], more].concat();
        primary.run(&words).json();
        // Its secondaries are away, as far as the clone knows: it might look for them.
        clones.push(Node::primary(&site, name));
    }
    // One of them is asked by name, as by a copy of its own database that is not here.
    for clone in &clones {
        wait_for(
            "the clone to have looked for its secondaries",
            || clone.run(&["replica", "list"]).json().is_empty().then_some(()),
            || format!("{:?}", clone.run(&["replica", "list"])),
        );
        put(clone, "of the clone");
        assert_eq!((clone.status()["state"].clone(), clone.rows("blobs")), ("primary".into(), 2));
    }
    assert_eq!(primary.status()["state"], "primary");
    primary.run(&["put", "blobs", "after", "row"]).json();
    secondary.wait_until_equal(&primary);
    secondary.restart();
    primary.run(&["put", "blobs", "later", "row"]).json();
    secondary.wait_until_equal(&primary);
    assert_eq!((primary.rows("blobs"), primary.status()["state"].clone()), (3, "primary".into()));
}
