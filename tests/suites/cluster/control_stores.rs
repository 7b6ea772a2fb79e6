//! Stores of backups under a control center: nodes bring backups there, and take clones from there.

use planaria_tests::cluster::{Center, Node, Site, TableFile, wait_for};
use serde_json::Value as Json;

use crate::clone_life::{incompressible, load};

/// How long nothing is heard of a node until it is lost: short, and long enough for a machine that is busy.
const LOST_AFTER: &str = "4s";
const ROWS: u64 = 5_000;

fn wait_for_row(center: &Center<'_>, words: &[&str], what: &str, is_so: impl Fn(&Json) -> bool) -> Json {
    wait_for(
        what,
        || center.rows(words).into_iter().find(|row| is_so(row)),
        || format!("{:?}\n{:?}", center.rows(words), center.rows(&["history"])),
    )
}

fn wait_for_state(center: &Center<'_>, clone: &Json, state: &str) -> Json {
    let number = clone["clone"].as_u64().expect("clones have numbers").to_string();
    wait_for_row(center, &["clone", "show", &number], state, |row| row["state"] == state)
}

/// The node that a clone to another one would be taken from.
fn chosen(center: &Center<'_>, to: &str) -> Json {
    let answer = center.run(&["choose-source", "--to", to, "--database", "a"]);
    let rows = if answer.code == 0 { answer.json() } else { Vec::new() };
    rows.into_iter().find(|row| row["chosen"] == true).map(|row| row["node"].clone()).unwrap_or_default()
}

#[test]
fn a_backup_in_a_store_is_made_by_a_node_that_may_and_is_a_source_of_clones() {
    let site = Site::new();
    let mut center = Center::start(&site, "catalog", LOST_AFTER);
    let place = site.path("store").display().to_string();
    let may = ["--backup-to", &place];
    let mut primary = Node::primary_to_be(&site, "a");
    primary.start_with(&[&center.join(&["datacenter=a"])[..], &may].concat());
    let file = TableFile::sightings(&site, ROWS);
    let words = file.import();
    primary.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).json();
    let mut backup = Node::secondary_to_be(&site, "backup", &primary);
    backup.start_with(&[&center.join(&["datacenter=b"])[..], &may, &["--role", "backup"]].concat());
    backup.wait_until_equal(&primary);
    let mut target = Node::primary_to_be(&site, "target");
    target.start_with(&[&center.join(&["datacenter=b"])[..], &may].concat());
    let mut stranger = Node::primary_to_be(&site, "stranger");
    stranger.start_with(&center.join(&["datacenter=b"]));
    let is_online = |row: &Json| row["node"] == "backup" && row["state"] == "online";
    wait_for_row(&center, &["instances"], "the backup online", is_online);
    for node in ["target", "stranger"] {
        wait_for_row(&center, &["nodes"], node, |row| row["name"] == node && row["copies"] == 1);
    }

    center.rows(&["store", "add", "a", &place, "--label", "datacenter=b"]);
    let may_all = |row: &Json| row["state"] == "empty" && row["nodes"].as_array().map(Vec::len) == Some(3);
    wait_for_row(&center, &["store", "list"], "the nodes that may speak to it", may_all);
    let asked = center.rows(&["backup", "a"]).remove(0);
    let made = wait_for_state(&center, &asked, "complete");
    assert_eq!(
        (&made["source"], &made["to"], &made["role"]),
        (&"backup".into(), &Json::from(&*place), &"store".into())
    );
    let listed = site.run(&["backup", "list", "store"]).json();
    assert_eq!(listed.len(), 1);
    assert_eq!(site.run(&["backup", "verify", "store"]).json()[0]["sound"], true);
    let is_stored = |row: &Json| row["state"] == "stored" && row["uid"] == listed[0]["uid"];
    wait_for_row(&center, &["store", "list"], "the backup to be seen", is_stored);
    center.restart();
    let is_instance =
        |row: &Json| row["node"] == *place && row["state"] == "stored" && row["role"] == "backup";
    wait_for_row(&center, &["instances"], "the backup among the instances", is_instance);
    assert_eq!(center.rows(&["show"])[0]["stores"], 1);

    // Without the backup on a node, the one in the store spares the primary.
    drop(backup);
    let is_lost = |row: &Json| row["name"] == "backup" && row["heard"] == false;
    wait_for_row(&center, &["nodes"], "the backup to be lost", is_lost);
    let history = || format!("{:?}", center.rows(&["history"]));
    wait_for("the store to be chosen", || (chosen(&center, "target") == *place).then_some(()), history);
    wait_for("the primary for who may not", || (chosen(&center, "stranger") == "a").then_some(()), history);
    let clone = |to: &str, name: &str| {
        let asked =
            center.rows(&["clone", "create", "--to", to, "--database", "a", "--name", name]).remove(0);
        wait_for_state(&center, &asked, "complete")
    };
    let digest = primary.run(&["digest", &file.table]).digest();
    assert_eq!(clone("target", "copy")["source"], *place);
    assert_eq!(site.run(&["digest", "copy", &file.table]).digest(), digest);
    assert!(!site.path("copy.partial").exists());
    let refused = clone("stranger", "copy-2");
    assert_eq!(refused["source"], "a");
    assert!(refused["reasons"].to_string().contains("not started with --backup-to"), "{refused}");

    // The store is away, whether the node has noticed or not: the next source gives it.
    std::fs::rename(site.path("store"), site.path("elsewhere")).unwrap();
    let moved = clone("target", "copy-3");
    assert_eq!(moved["source"], "a", "{moved}");
    wait_for_row(&center, &["store", "list"], "the store to be away", |row| row["state"] == "away");
    assert!(center.rows(&["store", "remove", "a", &place]).is_empty());
}

#[test]
fn a_backup_is_made_though_control_center_and_node_die_on_the_way_and_again_by_a_schedule() {
    let site = Site::new();
    let mut center = Center::start(&site, "catalog", LOST_AFTER);
    let place = site.path("store").display().to_string();
    let mut node = Node::primary_to_be(&site, "a");
    node.start_with(&[&center.join(&[])[..], &["--backup-to", &place]].concat());
    load(&node, &incompressible(&site, 20_000), &[]);
    wait_for_row(&center, &["nodes"], "the node", |row| row["name"] == "a" && row["copies"] == 1);
    center.run(&["backup", "a"]).failed(1, "unknown_store");
    center.rows(&["store", "add", "a", &place, "--keep", "2"]);
    wait_for_row(&center, &["store", "list"], "the store", |row| row["state"] == "empty");
    let asked = center.rows(&["backup", "a", "--rate", "64KiB"]).remove(0);
    let number = asked["clone"].as_u64().unwrap().to_string();
    let is_under_way = |row: &Json| row["state"] == "running" && row["total"].as_u64() > Some(0);
    wait_for_row(&center, &["clone", "show", &number], "the backup to begin", is_under_way);
    center.restart();
    wait_for_row(&center, &["clone", "show", &number], "it to go on", is_under_way);
    node.restart();
    wait_for_row(&center, &["nodes"], "the node", |row| row["name"] == "a" && row["heard"] == true);
    assert!(site.run(&["backup", "list", "store"]).json().is_empty(), "it is not whole");
    center.rows(&["clone", "rate", &number, "64MiB"]);
    let made = wait_for_state(&center, &asked, "complete");
    assert_eq!(made["source"], "a", "{made}");
    assert_eq!(site.run(&["backup", "verify", "store"]).json()[0]["sound"], true);

    center.rows(&["schedule", "add", "often", "--every", "1s", "--role", "store", "--to", &place]);
    let is_made = |row: &&Json| row["origin"] == "the schedule often" && row["state"] == "complete";
    wait_for(
        "three backups of a schedule",
        || (center.rows(&["clone", "list"]).iter().filter(is_made).count() > 2).then_some(()),
        || format!("{:?}", center.rows(&["clone", "list"])),
    );
    assert!(center.rows(&["schedule", "remove", "often"]).is_empty());
    let is_over = || center.rows(&["clone", "list"]).iter().all(|row| !row["ended"].is_null()).then_some(());
    wait_for("the last one to end", is_over, || format!("{:?}", center.rows(&["clone", "list"])));
    assert_eq!(site.run(&["backup", "list", "store"]).json().len(), 2, "older ones are removed");
    assert_eq!(site.run(&["backup", "verify", "store"]).json()[0]["sound"], true);
    site.run(&["backup", "restore", "store", "again"]).json();
    assert_eq!(
        site.run(&["digest", "again", "sightings"]).digest(),
        node.run(&["digest", "sightings"]).digest()
    );
}

#[test]
fn a_spare_node_becomes_a_standby_from_a_store_and_follows_the_primary() {
    let site = Site::new();
    let center = Center::start(&site, "catalog", LOST_AFTER);
    let place = site.path("store").display().to_string();
    let may = ["--backup-to", &place];
    let mut primary = Node::primary_to_be(&site, "a");
    primary.start_with(&[&center.join(&["datacenter=a"])[..], &may].concat());
    let file = TableFile::sightings(&site, ROWS);
    let words = file.import();
    primary.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).json();
    let is_heard = |row: &Json| row["role"] == "primary" && row["heard"] == true;
    wait_for_row(&center, &["instances"], "the primary", is_heard);
    center.rows(&["store", "add", "a", &place, "--label", "datacenter=a"]);
    wait_for_row(&center, &["store", "list"], "the store", |row| row["state"] == "empty");
    let asked = center.rows(&["backup", "a"]).remove(0);
    wait_for_state(&center, &asked, "complete");
    // What the store does not have comes from the primary, as after any absence.
    primary.run(&["put", "sightings", "id=-1", "place=a", "birds=1", "remark=new"]).json();
    let mut spare = Node::primary_to_be(&site, "spare");
    spare.start_with(&[&center.join(&["datacenter=a"])[..], &may, &["--spare"]].concat());
    let history = || format!("{:?}", center.rows(&["history"]));
    wait_for("the store to be chosen", || (chosen(&center, "spare") == *place).then_some(()), history);
    let asked = center.rows(&["clone", "create", "--to", "spare", "--role", "standby"]).remove(0);
    assert_eq!(wait_for_state(&center, &asked, "complete")["source"], *place);
    let follows = |row: &Json| row["node"] == "spare" && row["state"] == "online" && row["heard"] == true;
    wait_for_row(&center, &["instances"], "the spare to follow", follows);
    spare.wait_until_equal(&primary);
}

#[test]
fn an_earlier_state_comes_from_a_store_whose_backups_and_log_lead_there() {
    let site = Site::new();
    let center = Center::start(&site, "catalog", LOST_AFTER);
    let place = site.path("store").display().to_string();
    let may = ["--backup-to", &place];
    let mut primary = Node::primary_to_be(&site, "a");
    primary.start_with(&[&center.join(&[])[..], &may].concat());
    primary.run(&["table", "create", "blobs", "--raw"]).json();
    let put = |key: &str| {
        let put = primary.run(&["put", "blobs", key, "row"]).json().remove(0);
        put["uid"].as_str().expect("a write has a UID").to_owned()
    };
    let before = put("before");
    let mut target = Node::primary_to_be(&site, "target");
    target.start_with(&[&center.join(&[])[..], &may].concat());
    wait_for_row(&center, &["nodes"], "the target", |row| row["name"] == "target" && row["copies"] == 1);
    center.rows(&["store", "add", "a", &place]);
    let may_both = |row: &Json| row["nodes"].as_array().map(Vec::len) == Some(2);
    wait_for_row(&center, &["store", "list"], "both nodes", may_both);
    let back_up = || {
        let asked = center.rows(&["backup", "a"]).remove(0);
        wait_for_state(&center, &asked, "complete");
        let names = |row: &Json| row["name"].as_str().map(str::to_owned);
        site.run(&["backup", "list", "store"]).json().iter().filter_map(names).collect::<Vec<_>>()
    };
    put("first");
    back_up();
    let middle = put("middle");
    put("late");
    back_up();
    put("last");
    assert_eq!(back_up().len(), 3);
    let explain = |as_of: &str| {
        let words = ["clone", "create", "--to", "target", "--database", "a", "--as-of", as_of, "--explain"];
        let rows = center.rows(&words);
        rows.into_iter().find(|row| row["node"] == *place).map(|row| row["code"].clone()).unwrap_or_default()
    };
    // The node that is to take it sees all backups, and the log between them.
    let sees = |as_of: &str, code: &str| {
        let history = || format!("{} {:?}", explain(as_of), center.rows(&["history"]));
        wait_for(code, || (explain(as_of) == *code).then_some(()), history);
    };
    sees(&middle, "nearest_backup");
    sees(&before, "store_outside_kept");
    let words =
        ["clone", "create", "--to", "target", "--database", "a", "--name", "copy", "--as-of", &middle];
    let asked = center.rows(&words).remove(0);
    let made = wait_for_state(&center, &asked, "complete");
    assert_eq!(made["source"], *place, "{made}");
    let holds = |key: &str| site.run(&["get", "copy", "blobs", key]).code == 0;
    assert_eq!(["before", "first", "middle", "late", "last"].map(holds), [true, true, true, false, false]);
    assert_eq!(site.run(&["verify", "copy"]).json()[0]["sound"], true);
    // What no backup and no log gives comes from a copy, while that has it.
    let words = ["clone", "create", "--to", "target", "--database", "a", "--name", "old", "--as-of", &before];
    let asked = center.rows(&words).remove(0);
    let made = wait_for_state(&center, &asked, "complete");
    assert_eq!(made["source"], "a", "{made}");
    assert!(made["reasons"].to_string().contains("gives the state that is asked for"), "{made}");
    assert_eq!(site.run(&["digest", "old", "blobs"]).digest().0, 1);
}

#[test]
fn a_restore_that_was_given_up_while_its_node_was_down_leaves_nothing() {
    let site = Site::new();
    let center = Center::start(&site, "catalog", LOST_AFTER);
    let place = site.path("store").display().to_string();
    let may = ["--backup-to", &place];
    let mut primary = Node::primary_to_be(&site, "a");
    primary.start_with(&[&center.join(&[])[..], &may].concat());
    load(&primary, &incompressible(&site, 20_000), &[]);
    let mut target = Node::primary_to_be(&site, "target");
    target.start_with(&[&center.join(&[])[..], &may].concat());
    wait_for_row(&center, &["nodes"], "the target", |row| row["name"] == "target" && row["copies"] == 1);
    center.rows(&["store", "add", "a", &place]);
    let may_both = |row: &Json| row["nodes"].as_array().map(Vec::len) == Some(2);
    wait_for_row(&center, &["store", "list"], "both nodes", may_both);
    let asked = center.rows(&["backup", "a"]).remove(0);
    wait_for_state(&center, &asked, "complete");
    let history = || format!("{:?}", center.rows(&["history"]));
    wait_for("the store to be chosen", || (chosen(&center, "target") == *place).then_some(()), history);
    let words = ["clone", "create", "--to", "target", "--database", "a", "--name", "copy", "--rate", "64KiB"];
    let number = center.rows(&words)[0]["clone"].as_u64().unwrap().to_string();
    let is_under_way = |row: &Json| row["state"] == "running" && row["total"].as_u64() > Some(0);
    let row = wait_for_row(&center, &["clone", "show", &number], "the restore to begin", is_under_way);
    assert_eq!(row["source"], *place, "{row}");
    let partial = site.path("copy.partial");
    let is_there = || partial.exists().then_some(());
    wait_for("a part of it", is_there, || target.log());

    // It goes on after a restart of its node, as long as it is wanted.
    target.restart();
    wait_for_row(&center, &["nodes"], "the target", |row| row["name"] == "target" && row["heard"] == true);
    wait_for_row(&center, &["clone", "show", &number], "the restore to go on", is_under_way);
    assert!(partial.exists());
    target.kill();
    center.rows(&["clone", "cancel", &number]);
    assert!(partial.exists());
    target.start();
    wait_for("nothing to be left", || (!partial.exists()).then_some(()), || target.log());
    assert!(!site.path("copy").exists());
    // Nor is it remembered.
    let listed = site.path("target").join("clones").join("RESTORES");
    let is_short = || std::fs::read(&listed).is_ok_and(|bytes| bytes.len() == 21).then_some(());
    wait_for("it to be forgotten", is_short, || target.log());
    let words = ["clone", "create", "--to", "target", "--database", "a", "--name", "copy"];
    let asked = center.rows(&words).remove(0);
    wait_for_state(&center, &asked, "complete");
    assert_eq!(
        site.run(&["digest", "copy", "sightings"]).digest(),
        primary.run(&["digest", "sightings"]).digest()
    );
}
