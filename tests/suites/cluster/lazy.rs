//! Clones that are read while they come in, with real processes that are killed at either end.

use planaria_tests::cluster::{Node, Random, Site, TableFile, wait_for};
use serde_json::Value as Json;

/// Rows of the table: some twenty chunks of a mebibyte.
const ROWS: u64 = 60_000;
/// A rate at which a clone is not complete before a test is over.
const SLOW: &str = "20KiB";

/// Rows whose remarks do not compress.
fn remark(id: u64) -> String {
    let words = (0..24_u64).map(|n| (id * 31 + n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17));
    words.map(|word| format!("{word:016x}")).collect::<Vec<_>>().concat()
}

fn load(site: &Site, node: &Node<'_>) {
    let file = TableFile::write(site, "rows.csv", ROWS, |id| Some(remark(id)));
    let words = file.import();
    node.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).json();
}

/// Has `target` take a clone named `copy` lazily, and waits until it can be read.
fn take(site: &Site, target: &Node<'_>, sources: &[&str], more: &[&str]) {
    let dir = site.word("copy");
    let mut words = vec!["clone", "create", &dir, "--lazy"];
    for source in sources {
        words.extend(["--from", source]);
    }
    words.extend(more);
    target.run(&words).json();
    wait_until_readable(target);
}

fn wait_until_readable(target: &Node<'_>) {
    let readable = || (show(target)["state"] == "hydrating").then_some(());
    wait_for("a clone to be readable", readable, || format!("{}\n{}", show(target), target.log()));
}

fn show(target: &Node<'_>) -> Json {
    target.run(&["clone", "show", "copy"]).json().remove(0)
}

/// What reading a row of the clone answers: nothing if the row has not come and cannot be had.
fn get(target: &Node<'_>, id: u64) -> Option<Json> {
    let answer = target.run(&["get", "--clone", "copy", "sightings", &id.to_string()]);
    if answer.code != 0 {
        answer.failed(1, "not_here");
        return None;
    }
    Some(answer.json().remove(0))
}

/// Reads a row, as soon as a source sends what it lies in.
fn check(target: &Node<'_>, id: u64) {
    let found = wait_for(
        "a row that its source sends",
        || get(target, id),
        || format!("{}\n{}", show(target), target.log()),
    );
    assert_eq!(found["remark"], remark(id), "row {id}");
}

fn check_equal(site: &Site, source: &Node<'_>) {
    assert_eq!(site.run(&["verify", "copy"]).json()[0]["sound"], true);
    assert_eq!(
        site.run(&["digest", "copy", "sightings"]).digest(),
        source.run(&["digest", "sightings"]).digest()
    );
}

#[test]
fn any_row_is_read_before_the_clone_is_complete_though_either_side_is_killed() {
    let site = Site::new();
    let mut source = Node::primary(&site, "source");
    let mut target = Node::primary(&site, "target");
    load(&site, &source);
    take(&site, &target, &[source.address()], &["--rate", SLOW]);
    let mut random = Random::new(7);
    (0..4).for_each(|_| check(&target, random.below(ROWS)));
    check(&target, ROWS - 1);
    check(&target, ROWS - 3);
    let last = (ROWS - 3).to_string();
    let scan = ["scan", "--clone", "copy", "sightings", "--from", &last];
    assert_eq!(target.run(&scan).json().len(), 3);
    // It is only read.
    let put = ["put", "--clone", "copy", "sightings", "id=-1", "place=x", "birds=1", "remark=x"];
    target.run(&put).failed(1, "hydrating");
    assert_eq!(target.run(&["status", "--clone", "copy"]).code, 0);
    target.run(&["get", "--clone", "none", "sightings", "1"]).failed(1, "unknown_database");
    let info = show(&target);
    assert!(info["bytes"].as_u64() < info["total_bytes"].as_u64(), "{info}");

    target.restart();
    wait_until_readable(&target);
    (0..2).for_each(|_| check(&target, random.below(ROWS)));
    source.restart();
    (0..2).for_each(|_| check(&target, random.below(ROWS)));

    target.run(&["clone", "rate", "copy", "none"]).json();
    let info = target.run(&["clone", "wait", "copy"]).json().remove(0);
    assert_eq!((&info["state"], &info["bytes"]), (&"complete".into(), &info["total_bytes"]), "{info}");
    check(&target, random.below(ROWS));
    check_equal(&site, &source);
    assert!(!site.path("copy.partial").exists());
    // It has no more to do with its source.
    source.kill();
    site.run(&["put", "copy", "sightings", "id=-1", "place=x", "birds=1", "remark=x"]).json();
    target.run(&["clone", "delete", "copy"]).json();
    target.run(&["get", "--clone", "copy", "sightings", "1"]).failed(1, "unknown_database");
}

#[test]
fn while_its_source_is_gone_what_is_here_is_read_and_another_source_completes_it() {
    let site = Site::new();
    let mut primary = Node::primary(&site, "primary");
    let mut target = Node::primary(&site, "target");
    load(&site, &primary);
    primary.restart();
    let secondary = Node::secondary(&site, "secondary", &primary);
    secondary.wait_until_equal(&primary);
    let (first, second) = (primary.address().to_owned(), secondary.address().to_owned());
    take(&site, &target, &[&first, &second], &["--rate", SLOW]);
    check(&target, 5);
    primary.kill();
    // Nor does a secondary without a primary pass anything on. Whoever waits is told within a while.
    let mut rows = (0..ROWS).step_by(1_000);
    let absent = rows.find(|id| get(&target, *id).is_none());
    assert!(absent.is_some(), "all rows came from a source that is gone");
    check(&target, 5);
    target.restart();
    wait_until_readable(&target);
    check(&target, 5);

    secondary.run(&["promote", "--force"]).json();
    target.run(&["clone", "rate", "copy", "none"]).json();
    let info = target.run(&["clone", "wait", "copy"]).json().remove(0);
    assert_eq!((&info["state"], &info["from"]), (&"complete".into(), &second.into()), "{info}");
    check_equal(&site, &secondary);
}
