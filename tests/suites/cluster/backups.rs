//! Backups of nodes and of directories in a store, through the program: killed in the middle, damaged, restored to a time.

use std::path::{Path, PathBuf};

use planaria_tests::cluster::{Node, Site, TableFile, wait_for};

/// Rows of the table.
const ROWS: u64 = 60_000;

fn import(node: &Node<'_>, file: &TableFile) {
    let words = file.import();
    node.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).json();
}

/// All files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() { found.extend(files(&entry.path())) } else { found.push(entry.path()) }
    }
    found
}

fn digest(site: &Site, dir: &str) -> (u64, String) {
    site.run(&["digest", dir, "sightings"]).digest()
}

#[test]
fn a_node_is_backed_up_again_and_again_and_restored_to_any_commit_in_between() {
    let site = Site::new();
    let node = Node::primary(&site, "node");
    let file = TableFile::sightings(&site, ROWS);
    import(&node, &file);
    let first = node.run(&["backup", "create", "--to", "store", "--name", "first"]).json().remove(0);
    assert!(first["sent_bytes"].as_u64() >= first["bytes"].as_u64(), "{first}");
    let put = |id: &str| {
        let put = node.run(&["put", "sightings", id, "place=here", "birds=1", "remark=own"]).json();
        put[0]["position"].as_str().unwrap().split('@').next().unwrap().to_owned()
    };
    put("id=-1");
    let middle = put("id=-2");
    let digest_in_the_middle = node.run(&["digest", "sightings"]).digest();
    put("id=-3");
    let second = node.run(&["backup", "create", "--to", "store", "--name", "second"]).json().remove(0);
    assert_eq!(second["log_since_last"], true, "{second}");
    assert!(second["sent_bytes"].as_u64().unwrap() * 10 < first["sent_bytes"].as_u64().unwrap(), "{second}");
    node.run(&["backup", "create", "--to", "store", "--name", "second"]).failed(1, "backup_exists");

    let listed = site.run(&["backup", "list", "store"]).json();
    assert_eq!(
        listed.iter().map(|backup| backup["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["first", "second"]
    );
    assert_eq!(site.run(&["backup", "show", "store", "second"]).json()[0]["uid"], second["uid"]);
    assert_eq!(site.run(&["backup", "verify", "store"]).json()[0]["sound"], true);

    site.run(&["backup", "restore", "store", "latest"]).json();
    assert_eq!(digest(&site, "latest"), node.run(&["digest", "sightings"]).digest());
    site.run(&["backup", "restore", "store", "first", "at-first"]).json();
    assert_eq!(digest(&site, "at-first").0, ROWS);
    let restored = site.run(&["backup", "restore", "store", "at-middle", "--as-of", &middle]).json();
    assert_eq!((&restored[0]["uid"], &restored[0]["backup"]), (&middle.clone().into(), &"first".into()));
    assert_eq!(digest(&site, "at-middle"), digest_in_the_middle);
    assert_eq!(site.run(&["verify", "at-middle"]).json()[0]["sound"], true);
    // Two copies of one backup are two databases.
    let identity = |dir: &str| site.run(&["status", dir]).json().remove(0)["instance"].clone();
    assert_ne!(identity("latest"), identity("at-first"));
    let outside = ["backup", "restore", "store", "outside", "--as-of", "2001-01-01T00:00:00Z"];
    let outside = site.run(&outside).failed(1, "outside_kept");
    assert!(outside["why"].as_str().unwrap().contains(first["uid"].as_str().unwrap()), "{outside}");
    assert!(!site.path("outside").exists() && !site.path("outside.partial").exists());

    // A secondary that is restored follows the node, and catches up.
    site.run(&["backup", "restore", "store", "first", "second", "--role", "secondary"]).json();
    let secondary = Node::secondary(&site, "second", &node);
    secondary.wait_until_equal(&node);
}

#[test]
fn a_backup_and_a_restore_that_were_killed_are_completed() {
    let site = Site::new();
    let node = Node::primary(&site, "node");
    import(&node, &TableFile::sightings(&site, ROWS));
    let store = site.path("store");
    let mut create = node.begin(&["backup", "create", "--to", "store"]);
    let begun = || !files(&store.join("objects")).is_empty();
    wait_for("the first object", || begun().then_some(()), || store.display().to_string());
    create.kill().unwrap();
    create.wait().unwrap();
    // Killed before its end it has left no backup, only objects.
    let listed = site.run(&["backup", "list", "store"]).json().len();
    assert!(listed <= 1);
    node.run(&["backup", "create", "--to", "store", "--name", "whole"]).json();
    assert_eq!(site.run(&["backup", "verify", "store"]).json()[0]["sound"], true);

    let target = site.path("again");
    let mut restore = site.start(&["backup", "restore", "store", "whole", "again"]);
    let some = || target.exists() || !files(&site.path("again.partial")).is_empty();
    wait_for("the first bytes of a restore", || some().then_some(()), || target.display().to_string());
    restore.kill().unwrap();
    restore.wait().unwrap();
    if !target.exists() {
        assert_ne!(site.run(&["digest", "again.partial"]).code, 0);
        site.run(&["backup", "restore", "store", "whole", "again"]).json();
    }
    assert_eq!(digest(&site, "again"), node.run(&["digest", "sightings"]).digest());
    assert_eq!(site.run(&["verify", "again"]).json()[0]["sound"], true);
    assert!(!site.path("again.partial").exists(), "a complete restore leaves nothing behind");
}

#[test]
fn a_damaged_object_is_named_and_a_directory_is_backed_up_as_a_node_is() {
    let site = Site::new();
    let file = TableFile::sightings(&site, 5_000);
    let mut words = file.import();
    words.insert(1, "db".to_owned());
    site.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).json();
    site.run(&["backup", "create", "db", "--to", "store", "--name", "first"]).json();
    let put = ["put", "db", "sightings", "id=-1", "place=here", "birds=1", "remark=own"];
    site.run(&put).json();
    let second = site.run(&["backup", "create", "db", "--to", "store"]).json().remove(0);
    assert_eq!(second["log_since_last"], true, "{second}");

    // The largest object is one that the first backup needs.
    let objects = files(&site.path("store").join("objects"));
    let object = objects.iter().max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let sound = std::fs::read(object).unwrap();
    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    std::fs::write(object, &flipped).unwrap();
    let name = object.file_name().unwrap().to_str().unwrap();
    let verified = site.run(&["backup", "verify", "store"]);
    let error = verified.failed(1, "object_damaged");
    assert!(error["what"].as_str().unwrap().contains(name), "{error}");
    assert!(verified.stdout.contains("first"), "{}", verified.stdout);
    let refused = site.run(&["backup", "restore", "store", "first", "copy"]).failed(1, "object_damaged");
    assert!(refused["what"].as_str().unwrap().contains(name), "{refused}");
    assert_ne!(site.run(&["digest", "copy"]).code, 0);
    std::fs::write(object, &sound).unwrap();
    site.run(&["backup", "restore", "store", "copy"]).json();
    assert_eq!(digest(&site, "copy"), digest(&site, "db"));

    site.run(&["backup", "restore", "nowhere", "x"]).failed(1, "no_store");
    site.run(&["backup", "show", "store", "third"]).failed(1, "unknown_backup");
    site.run(&["backup", "list", "gs://bucket"]).failed(2, "usage");
    let pruned = site.run(&["backup", "prune", "store", "--keep-last", "1", "--grace", "0s"]).json();
    assert_eq!((&pruned[0]["removed"][0], &pruned[0]["kept"]), (&"first".into(), &1.into()));
    assert_eq!(site.run(&["backup", "verify", "store"]).json()[0]["sound"], true);
    site.run(&["backup", "restore", "store", "pruned"]).json();
    assert_eq!(digest(&site, "pruned"), digest(&site, "db"));
}
