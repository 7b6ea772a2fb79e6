//! Round trips that real nodes measure, and the choice that goes by them.

use std::time::Duration;

use planaria_tests::cluster::{Center, Link, Node, Site, Weather, wait_for};
use serde_json::Value as Json;

/// How long nothing is heard of a node until it is lost: short, and long enough for a machine that is busy.
const LOST_AFTER: &str = "4s";

/// A backup that others reach over a link.
fn backup_behind_a_link<'a>(
    site: &'a Site,
    center: &Center<'a>,
    name: &str,
    primary: &Node<'a>,
) -> (Node<'a>, Link) {
    let mut node = Node::secondary(site, name, primary);
    let link = Link::to(node.address(), 7, Weather::default());
    node.kill();
    let more = ["--role", "backup", "--advertise", &link.address()];
    node.start_with(&[&center.join(&["datacenter=b"])[..], &more].concat());
    (node, link)
}

fn slow() -> Weather {
    // Far beyond what two busy cores add to a round trip that is short.
    Weather { delay: Duration::from_millis(400), ..Weather::default() }
}

fn wait_for_rows(center: &Center<'_>, words: &[&str], what: &str, is_so: impl Fn(&[Json]) -> bool) {
    wait_for(
        what,
        || is_so(&center.rows(words)).then_some(()),
        || format!("{:?}\n{:?}", center.rows(words), center.rows(&["links"])),
    );
}

fn code<'a>(rows: &'a [Json], node: &str) -> Option<&'a str> {
    rows.iter().find(|row| row["node"] == node)?["code"].as_str()
}

#[test]
fn of_backups_that_are_as_near_by_their_labels_the_one_with_the_shorter_round_trip_is_the_source() {
    let site = Site::new();
    let center = Center::start_with(&site, "catalog", LOST_AFTER, &["--measure-every", "1s"]);
    let mut a = Node::primary_to_be(&site, "a");
    a.start_with(&center.join(&["datacenter=a"]));
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let (_north, to_north) = backup_behind_a_link(&site, &center, "north", &a);
    let (_south, to_south) = backup_behind_a_link(&site, &center, "south", &a);
    let mut target = Node::primary_to_be(&site, "target");
    target.start_with(&center.join(&["datacenter=b"]));

    let choose = ["choose-source", "--to", "target", "--database", "a", "--period", "24h"];
    wait_for_rows(&center, &["instances"], "all copies", |rows| {
        let is_online = |row: &&Json| row["state"] == "online" && row["role"] == "backup";
        rows.iter().filter(is_online).count() == 2 && rows.iter().any(|row| row["node"] == "target")
    });
    // Whichever is the slower one by chance: the weather decides, and what it does is found out by itself.
    to_north.set(slow());
    let is = |north: &'static str, south: &'static str| {
        move |rows: &[Json]| code(rows, "north") == Some(north) && code(rows, "south") == Some(south)
    };
    wait_for_rows(&center, &choose, "the south", is("slower_link", "nearest_backup"));
    to_south.set(slow());
    to_north.set(Weather::default());
    wait_for_rows(&center, &choose, "the north", is("nearest_backup", "slower_link"));

    // The reasons of a clone name what was measured; one that cannot be reached is said to be so.
    let asked = center.rows(&["clone", "create", "--to", "target", "--database", "a", "--period", "24h"]);
    assert_eq!(asked[0]["source"], "north", "{asked:?}");
    to_south.set(Weather { lost_one_in: 1, ..Weather::default() });
    let link =
        |rows: &[Json], to: &str| rows.iter().find(|row| row["from"] == "target" && row["to"] == to).cloned();
    wait_for_rows(&center, &["links"], "the south not to answer", |rows| {
        let south = link(rows, "south");
        south.is_some_and(|row| row["round_trip"].is_null() && row["note"].is_string())
    });
    let rows = center.rows(&["links"]);
    let north = link(&rows, "north").unwrap();
    assert!(north["round_trip"].as_f64().is_some_and(|seconds| seconds > 0.0), "{rows:?}");
    // The primary knows the way to nobody that it was not told of, and the secondaries that to the primary.
    assert!(rows.iter().any(|row| row["from"] == "south" && row["to"] == "a"), "{rows:?}");
}
