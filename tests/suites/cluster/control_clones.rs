//! Clones that a control center has real nodes make: where from, when, and what becomes of them.

use planaria_tests::cluster::{Center, Node, Site, TableFile, wait_for};
use serde_json::Value as Json;

use crate::clone_life::{incompressible, load};

/// How long nothing is heard of a node until it is lost: short, and long enough for a machine that is busy.
const LOST_AFTER: &str = "4s";
const ROWS: u64 = 5_000;

/// A primary under a control center, with a table of many rows.
fn primary_of<'a>(site: &'a Site, center: &Center<'a>) -> (Node<'a>, TableFile) {
    let mut primary = Node::primary_to_be(site, "a");
    primary.start_with(&center.join(&["region=eu", "datacenter=a"]));
    let file = TableFile::sightings(site, ROWS);
    let words = file.import();
    primary.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).json();
    wait_for_row(center, &["instances"], "the primary", |row| {
        row["role"] == "primary" && row["heard"] == true
    });
    (primary, file)
}

fn wait_for_row(center: &Center<'_>, words: &[&str], what: &str, is_so: impl Fn(&Json) -> bool) -> Json {
    wait_for(
        what,
        || center.rows(words).into_iter().find(|row| is_so(row)),
        || format!("{:?}\n{:?}", center.rows(words), center.rows(&["history"])),
    )
}

/// Asks for a clone. Its number.
fn ask(center: &Center<'_>, words: &[&str]) -> String {
    let asked = center.rows(&[&["clone", "create"], words].concat()).remove(0);
    asked["clone"].as_u64().expect("clones have numbers").to_string()
}

fn wait_for_state(center: &Center<'_>, clone: &str, state: &str) -> Json {
    wait_for_row(center, &["clone", "show", clone], state, |row| row["state"] == state)
}

#[test]
fn a_clone_is_made_from_the_backup_when_limits_allow_and_outlives_the_control_center() {
    let site = Site::new();
    let mut center = Center::start(&site, "catalog", LOST_AFTER);
    let (primary, file) = primary_of(&site, &center);
    let mut backup = Node::secondary_to_be(&site, "backup", &primary);
    backup.start_with(&[&center.join(&["region=eu", "datacenter=b"])[..], &["--role", "backup"]].concat());
    backup.wait_until_equal(&primary);
    let mut target = Node::primary_to_be(&site, "target");
    target.start_with(&center.join(&["region=eu", "datacenter=b"]));
    wait_for_row(&center, &["nodes"], "the target", |row| row["name"] == "target" && row["copies"] == 1);
    let is_online = |row: &Json| row["node"] == "backup" && row["state"] == "online";
    wait_for_row(&center, &["instances"], "the backup online", is_online);

    // Nothing may come in: it waits, says why, and outlives the control center.
    let to_target = ["--to", "target", "--database", "a"];
    let explained = center.rows(&[&["clone", "create", "--explain"], &to_target[..]].concat());
    assert_eq!(explained.len(), 2, "{explained:?}");
    assert!(center.rows(&["clone", "list"]).is_empty(), "nothing was asked for");
    center.rows(&["limits", "set", "node-in:target", "--clones", "0"]);
    let clone = ask(&center, &[&to_target[..], &["--name", "copy", "--rate", "64MiB"]].concat());
    assert_eq!(wait_for_state(&center, &clone, "queued")["code"], "slots");
    center.restart();
    for node in ["a", "backup", "target"] {
        wait_for_row(&center, &["nodes"], "all nodes", |row| row["name"] == node && row["heard"] == true);
    }
    assert_eq!(wait_for_state(&center, &clone, "queued")["name"], "copy");
    center.rows(&["limits", "set", "node-in:target", "--clones", "1"]);
    let made = wait_for_state(&center, &clone, "complete");
    assert_eq!((&made["source"], &made["to"]), (&"backup".into(), &"target".into()), "{made}");
    let reasons = made["reasons"].to_string();
    assert!(reasons.contains("the only backup") && reasons.contains("a: it is not needed"), "{reasons}");
    let digest = primary.run(&["digest", &file.table]).digest();
    assert_eq!(site.run(&["digest", "copy", &file.table]).digest(), digest);
    assert!(!site.path("copy.partial").exists());

    // Without the backup the primary gives it, which goes on serving. What is there is not written over.
    drop(backup);
    let is_lost = |row: &Json| row["name"] == "backup" && row["heard"] == false;
    wait_for_row(&center, &["nodes"], "the backup to be lost", is_lost);
    let second = ask(&center, &[&to_target[..], &["--name", "copy-2"]].concat());
    assert_eq!(wait_for_state(&center, &second, "complete")["source"], "a");
    assert_eq!(site.run(&["digest", "copy-2", &file.table]).digest(), digest);
    let again = ask(&center, &[&to_target[..], &["--name", "copy-2"]].concat());
    assert_eq!(wait_for_state(&center, &again, "failed")["code"], "exists");

    a_schedule_asks_by_itself(&center);

    // What waits can be given up, and what is wrong is refused.
    center.rows(&["limits", "set", "node-in", "--clones", "0"]);
    center.rows(&["limits", "set", "node-in:target", "--clones", "0"]);
    let third = ask(&center, &[&to_target[..], &["--name", "copy-3"]].concat());
    assert_eq!(center.rows(&["clone", "cancel", &third])[0]["state"], "cancelled");
    center.run(&["clone", "cancel", &third]).failed(1, "not_open");
    center.run(&["clone", "create", "--to", "nowhere", "--database", "a"]).failed(1, "unknown_node");
    center.run(&[&["clone", "create", "--role", "standby"], &to_target[..]].concat()).failed(1, "not_spare");
    center.run(&["limits", "set", "nodes", "--clones", "1"]).failed(1, "invalid");
    let kinds = center.kinds();
    for kind in
        ["limit_set", "clone_queued", "clone_begun", "clone_complete", "clone_failed", "clone_cancelled"]
    {
        assert!(kinds.contains(&kind.to_owned()), "{kind}: {kinds:?}");
    }
}

/// Has a schedule ask for clones until there are two.
fn a_schedule_asks_by_itself(center: &Center<'_>) {
    let every =
        ["schedule", "add", "often", "--every", "1s", "--to", "target", "--database", "a", "--ttl", "24h"];
    assert_eq!(center.rows(&every)[0]["name"], "often");
    let is_made = |row: &&Json| row["origin"] == "the schedule often" && row["state"] == "complete";
    wait_for(
        "two clones of a schedule",
        || (center.rows(&["clone", "list"]).iter().filter(is_made).count() > 1).then_some(()),
        || format!("{:?}", center.rows(&["clone", "list"])),
    );
    assert!(center.rows(&["schedule", "remove", "often"]).is_empty());
}

/// A node that hosts nothing until it is given a copy.
fn spare<'a>(site: &'a Site, center: &Center<'a>, name: &str) -> Node<'a> {
    let mut node = Node::primary_to_be(site, name);
    node.start_with(&[&center.join(&["region=eu", "datacenter=a"])[..], &["--spare"]].concat());
    wait_for_row(center, &["nodes"], "the spare", |row| row["name"] == name && row["spare"] == "standby");
    node
}

fn wait_until_standby(center: &Center<'_>, name: &str) {
    let follows = |row: &Json| row["node"] == name && row["state"] == "online" && row["heard"] == true;
    let row = wait_for_row(center, &["instances"], "the spare to follow", follows);
    assert_eq!(row["role"], "standby");
}

#[test]
fn a_spare_node_becomes_the_standby_that_is_wanted_and_another_one_when_that_is_lost() {
    let site = Site::new();
    let center = Center::start_with(&site, "catalog", LOST_AFTER, &["--seed-after", "6s"]);
    let (primary, _) = primary_of(&site, &center);
    let mut first = spare(&site, &center, "first");
    center.rows(&["want", "a", "--standbys", "1"]);
    wait_until_standby(&center, "first");
    first.wait_until_equal(&primary);
    primary.run(&["put", "sightings", "id=-1", "place=a", "birds=1", "remark=new"]).json();
    first.wait_until_equal(&primary);
    // It is what it has become after a restart, too.
    first.restart();
    first.wait_until_equal(&primary);
    wait_until_standby(&center, "first");

    let second = spare(&site, &center, "second");
    first.kill();
    wait_until_standby(&center, "second");
    second.wait_until_equal(&primary);
    let clones = center.rows(&["clone", "list"]);
    let of = |node: &str| clones.iter().find(|clone| clone["to"] == node).cloned().unwrap();
    assert_eq!(
        ["first", "second"].map(|node| of(node)["priority"].clone()),
        ["standby-seeding", "recovery"].map(Json::from),
        "{clones:?}"
    );
    assert!(of("second")["origin"].to_string().contains("as first is lost"), "{clones:?}");
    assert_eq!(clones.len(), 2, "{clones:?}");
    let want = center.rows(&["want"]).remove(0);
    assert_eq!((&want["standbys"], &want["standbys_there"]), (&1.into(), &1.into()), "{want}");
}

#[test]
fn a_clone_that_was_ordered_is_made_though_everybody_dies_on_the_way() {
    let site = Site::new();
    let mut center = Center::start(&site, "catalog", LOST_AFTER);
    let mut source = Node::primary_to_be(&site, "source");
    source.start_with(&center.join(&["datacenter=a"]));
    load(&source, &incompressible(&site, 20_000), &[]);
    let mut target = Node::primary_to_be(&site, "target");
    target.start_with(&center.join(&["datacenter=a"]));
    let is_heard = |row: &Json| row["heard"] == true && row["copies"] == 1;
    for node in ["source", "target"] {
        wait_for_row(&center, &["nodes"], node, |row| row["name"] == node && is_heard(row));
    }
    for (number, [center_dies, source_dies, target_dies]) in
        [[true, false, true], [true, true, false], [false, true, true]].into_iter().enumerate()
    {
        let name = format!("copy-{number}");
        let wish = ["--to", "target", "--database", "source", "--name", &name, "--rate", "1MiB"];
        let clone = ask(&center, &wish);
        let is_under_way = |row: &Json| row["state"] == "running" && row["done"].as_u64() > Some(2 << 20);
        wait_for_row(&center, &["clone", "show", &clone], "a part of the clone", is_under_way);
        if center_dies {
            center.kill();
        }
        if source_dies {
            source.kill();
        }
        if target_dies {
            target.kill();
        }
        assert!(!site.path(&name).exists(), "{name}");
        if center_dies {
            center.restart();
        }
        if source_dies {
            source.start();
        }
        if target_dies {
            target.start();
        }
        for node in ["source", "target"] {
            wait_for_row(&center, &["nodes"], node, |row| row["name"] == node && is_heard(row));
        }
        center.rows(&["clone", "rate", &clone, "64MiB"]);
        let made = wait_for_state(&center, &clone, "complete");
        assert_eq!(made["source"], "source", "{made}");
        assert_eq!(
            site.run(&["digest", &name, "sightings"]).digest(),
            source.run(&["digest", "sightings"]).digest()
        );
        assert!(!site.path(&format!("{name}.partial")).exists(), "{name}");
        let listed = || source.run(&["clone", "list"]).json();
        let free = || listed().iter().all(|clone| clone["state"] != "sending").then_some(());
        wait_for("the source to let go", free, || format!("{:?}", listed()));
    }
}

#[test]
fn a_clone_whose_source_dies_goes_on_from_another_one_with_what_it_has() {
    let site = Site::new();
    let center = Center::start(&site, "catalog", LOST_AFTER);
    let mut primary = Node::primary_to_be(&site, "primary");
    primary.start_with(&center.join(&["datacenter=a"]));
    load(&primary, &incompressible(&site, 20_000), &[]);
    // It has the run files of the primary, chunk by chunk.
    primary.run(&["clone", "create", "backup", "--role", "backup"]).json();
    let mut backup = Node::secondary_to_be(&site, "backup", &primary);
    backup.start_with(&[&center.join(&["datacenter=a"])[..], &["--role", "backup"]].concat());
    backup.wait_until_equal(&primary);
    let mut target = Node::primary_to_be(&site, "target");
    target.start_with(&center.join(&["datacenter=a"]));
    let is_online = |row: &Json| row["node"] == "backup" && row["state"] == "online";
    wait_for_row(&center, &["instances"], "the backup online", is_online);
    wait_for_row(&center, &["nodes"], "the target", |row| row["name"] == "target" && row["copies"] == 1);

    let clone =
        ask(&center, &["--to", "target", "--database", "primary", "--name", "copy", "--rate", "1MiB"]);
    let is_under_way = |row: &Json| row["state"] == "running" && row["done"].as_u64() > Some(3 << 20);
    let begun = wait_for_row(&center, &["clone", "show", &clone], "a part of the clone", is_under_way);
    assert_eq!(begun["source"], "backup", "{begun}");
    backup.kill();
    let from_primary = |row: &Json| row["source"] == "primary" && row["state"] != "queued";
    wait_for_row(&center, &["clone", "show", &clone], "another source", from_primary);
    center.rows(&["clone", "rate", &clone, "64MiB"]);
    let made = wait_for_state(&center, &clone, "complete");
    let name = format!("copy#{clone}");
    let taken = target.run(&["clone", "show", &name]).json().remove(0);
    assert!(taken["resumed_bytes"].as_u64() >= Some(2 << 20), "{taken}\n{made}");
    assert!(!site.path("copy.partial").exists());
    let of = |answer: planaria_tests::cluster::Answer| answer.digest();
    assert_eq!(of(site.run(&["digest", "copy", "sightings"])), of(primary.run(&["digest", "sightings"])));
}
