//! Copies that follow copies, and copies that are brought up to date by their siblings.

use planaria_tests::cluster::{Node, Site, TableFile, wait_for};
use serde_json::Value as Json;

use super::failover::wait_until_promotable;

/// Rows of the table.
const ROWS: u64 = 20_000;

fn put(node: &Node<'_>, key: &str) {
    node.run(&["put", "blobs", key, "row"]).json();
}

fn replicas(node: &Node<'_>) -> Vec<(String, String, bool)> {
    let text = |copy: &Json, field: &str| copy[field].as_str().unwrap_or_default().to_owned();
    let listed = node.run(&["replica", "list"]).json();
    listed.iter().map(|copy| (text(copy, "name"), text(copy, "state"), copy["promotable"] == true)).collect()
}

fn wait_for_replicas(node: &Node<'_>, expected: &[(&str, &str, bool)]) {
    let expected: Vec<_> =
        expected.iter().map(|(name, state, p)| ((*name).into(), (*state).into(), *p)).collect();
    let look = || {
        let mut listed: Vec<(String, String, bool)> = replicas(node);
        listed.sort();
        (listed == expected).then_some(())
    };
    wait_for(&format!("{expected:?}"), look, || format!("{:?}\n{}", replicas(node), node.log()));
}

/// A primary whose commits are acknowledged by a quorum, one secondary of it, and one of that.
fn chain(site: &Site) -> [Node<'_>; 3] {
    let a = Node::primary_at(site, "a", "one");
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let b = Node::secondary(site, "b", &a);
    wait_until_promotable(&a, 1);
    let c = Node::secondary(site, "c", &b);
    c.wait_until_equal(&a);
    [a, b, c]
}

#[test]
fn a_copy_follows_a_copy_and_counts_for_nothing_at_the_primary() {
    let site = Site::new();
    let [a, b, c] = chain(&site);
    for number in 0..50 {
        put(&a, &format!("key {number}"));
    }
    c.wait_until_equal(&a);
    wait_for_replicas(&a, &[("b", "online", true)]);
    wait_for_replicas(&b, &[("c", "online", false)]);
    let status = c.status();
    assert_eq!((&status["primary"], &status["depth"]), (&b.address().into(), &2.into()), "{status}");
    assert!(status["lag_ms"].is_u64(), "{status}");
    assert_eq!(b.status()["depth"], 1);
    let error = c.run(&["put", "blobs", "wrong", "row"]).failed(1, "read_only");
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains(a.address())), "{error}");

    // What is asked of a primary is asked of the middle.
    assert_eq!(c.run(&["verify", "--against", b.address()]).json().len(), 0);
    let told = c.run(&["replica", "refresh", "--dry-run"]).json().remove(0);
    assert_eq!((&told["way"], &told["begun"]), (&"tail".into(), &false.into()), "{told}");
    c.run(&["replica", "refresh", "--way", "reconcile"]).json();
    let reconciled = || (c.status()["refresh_way"] == "reconcile").then_some(());
    wait_for("the reconcile", reconciled, || format!("{}\n{}", c.status(), c.log()));
    c.wait_until_equal(&a);

    // A copy can be taken from a secondary, and follow the primary.
    let clone = site.word("d");
    b.run(&["clone", "create", &clone, "--role", "secondary"]).json();
    put(&a, "after the clone");
    let mut d = Node::secondary_to_be(&site, "d", &a);
    d.start();
    d.wait_until_equal(&a);
    assert_eq!(d.status()["refresh_way"], "tail");
    wait_until_promotable(&a, 2);
}

#[test]
fn the_end_of_a_chain_outlives_kills_of_all_others_and_an_absence_of_its_own() {
    let site = Site::new();
    let [mut a, mut b, mut c] = chain(&site);
    let file = TableFile::sightings(&site, ROWS);
    let words = file.import();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.extend(["--level", "local"]);
    let import = a.begin(&words);
    let some = || (c.rows("sightings") > 0).then_some(());
    wait_for("the first rows", some, || c.log());
    b.restart();
    let imported: planaria_tests::cluster::Answer = import.wait_with_output().unwrap().into();
    assert_eq!(imported.json()[0]["rows"], ROWS);
    c.wait_until_equal(&a);
    a.restart();
    put_local(&a, "after the restart");
    c.wait_until_equal(&a);
    c.kill();
    for id in (0..ROWS).filter(|id| id % 500 == 13) {
        a.run(&["delete", "sightings", &id.to_string(), "--level", "local"]).json();
    }
    b.wait_until_equal(&a);
    b.restart();
    c.start();
    c.wait_until_equal(&a);
    c.run(&["get", "sightings", "13"]).failed(1, "no_row");
    assert_eq!(c.run(&["verify"]).json()[0]["sound"], true);
    assert!(c.run(&["quarantine", "list"]).json().is_empty(), "nothing was taken back");
}

fn put_local(node: &Node<'_>, key: &str) {
    node.run(&["put", "blobs", key, "row", "--level", "local"]).json();
}

#[test]
fn those_who_are_fed_by_a_copy_that_is_made_the_primary_become_its_secondaries() {
    let site = Site::new();
    let [mut a, b, c] = chain(&site);
    put(&a, "before");
    b.wait_until_equal(&a);
    a.kill();
    // Its end is not promotable, and says so.
    let error = c.run(&["promote", "--yes"]).failed(1, "not_promotable");
    assert!(error["why"].as_str().is_some_and(|why| why.contains("promotable set")), "{error}");
    b.run(&["promote", "--yes"]).json();
    c.wait_until_equal(&b);
    // The set of two does not change without the one that is gone.
    b.run(&["replica", "forget", "a"]).json();
    let counts = || replicas(&b).contains(&("c".into(), "online".into(), true)).then_some(());
    wait_for("c to count", counts, || format!("{:?}", replicas(&b)));
    put(&b, "after");
    c.wait_until_equal(&b);
    assert_eq!(c.status()["depth"], 1);
    // The old primary may come back at the end of the chain.
    a.will_follow(&c);
    a.start();
    a.wait_until_equal(&b);
    assert_eq!(a.status()["depth"], 2);
    assert_eq!(a.rows("blobs"), 2);
}

#[test]
fn copies_that_are_told_to_follow_each_other_say_so_and_are_told_otherwise() {
    let site = Site::new();
    let [a, b, c] = chain(&site);
    b.run(&["replica", "follow", "--primary", c.address()]).json();
    let text = |node: &Node<'_>| node.status()["state"].as_str().unwrap_or_default().to_owned();
    let found = || text(&b).contains("follows this one").then_some(());
    wait_for("the loop to be found", found, || format!("{}\n{}", b.status(), b.log()));
    put_local(&a, "meanwhile");
    assert_eq!(c.rows("blobs"), 0);
    b.run(&["replica", "follow", "--primary", a.address()]).json();
    c.wait_until_equal(&a);
    // An operator moves the end of the chain to the primary, and back.
    c.run(&["replica", "follow", "--primary", a.address()]).json();
    wait_until_promotable(&a, 2);
    assert_eq!(c.status()["depth"], 1);
    c.run(&["replica", "follow", "--primary", b.address()]).json();
    put_local(&a, "later");
    c.wait_until_equal(&a);
    assert_eq!(c.status()["depth"], 2);
}

#[test]
fn a_new_copy_is_taken_from_a_sibling_and_the_primary_sends_the_tail_alone() {
    let site = Site::new();
    let a = Node::primary(&site, "a");
    let file = TableFile::sightings(&site, ROWS);
    let words = file.import();
    a.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).json();
    let b = Node::secondary(&site, "b", &a);
    b.wait_until_equal(&a);
    let clones = || a.run(&["clone", "list"]).json().len();
    wait_for("the clone to be noted", || (clones() == 1).then_some(()), || a.log());
    let mut c = Node::secondary_to_be(&site, "c", &a);
    c.start_with(&["--refresh-from", "127.0.0.1:9", "--refresh-from", b.address()]);
    c.wait_until_equal(&a);
    let shown = a.run(&["replica", "show", "c"]).json().remove(0);
    assert_eq!((&shown["way"], &shown["moved_records"]), (&"tail".into(), &0.into()), "{shown}");
    // All of its rows weigh more than a megabyte.
    assert!(shown["moved_bytes"].as_u64().is_some_and(|bytes| bytes < 64 << 10), "{shown}");
    assert_eq!(clones(), 1, "no run files were taken from the primary");
    let status = c.status();
    let copied = format!("was copied from {}", b.address());
    assert_eq!((&status["refreshed"], &status["depth"]), (&copied.into(), &1.into()), "{status}");

    // Where no sibling can, the primary gives it, and the reason is told.
    let stranger = Node::primary(&site, "stranger");
    let mut d = Node::secondary_to_be(&site, "d", &a);
    d.start_with(&["--refresh-from", stranger.address()]);
    d.wait_until_equal(&a);
    let told = d.status()["refreshed"].as_str().unwrap_or_default().to_owned();
    assert!(told.contains("from the primary") && told.contains("it has database"), "{told}");
    wait_for("the clone to be noted", || (clones() == 2).then_some(()), || a.log());
}
