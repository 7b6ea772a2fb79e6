//! A control center and its nodes: who leads next, what is refused, what outlives whom.

use planaria_tests::cluster::{Center, Node, Site, wait_for};
use serde_json::Value as Json;

/// How long nothing is heard of a node until it is lost: short, and long enough for a machine that is busy.
pub(crate) const LOST_AFTER: &str = "4s";

/// A primary at level quorum with two secondaries, each in a datacenter of its own, under a control center.
pub(crate) fn start_three<'a>(site: &'a Site, center: &Center<'a>) -> [Node<'a>; 3] {
    let mut a = Node::primary_to_be(site, "a");
    a.start_with(&[&center.join(&["region=eu", "datacenter=a"])[..], &["--level", "quorum"]].concat());
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let mut b = Node::secondary_to_be(site, "b", &a);
    b.start_with(&center.join(&["region=eu", "datacenter=b"]));
    let mut c = Node::secondary_to_be(site, "c", &a);
    c.start_with(&center.join(&["region=us", "datacenter=c"]));
    [a, b, c]
}

/// The copy of a node, as the control center knows it.
fn copy(center: &Center<'_>, node: &str) -> Option<Json> {
    center.rows(&["instances"]).into_iter().find(|copy| copy["node"] == node && copy["heard"] == true)
}

fn wait_for_copy(center: &Center<'_>, node: &str, what: &str, is_so: impl Fn(&Json) -> bool) {
    wait_for(
        &format!("{node} to be {what}"),
        || copy(center, node).filter(|copy| is_so(copy)).map(drop),
        || format!("{:?}\n{:?}", center.rows(&["instances"]), center.rows(&["history"])),
    );
}

/// Waits until the control center hears a copy that leads after a, and names its node.
fn wait_for_leader(center: &Center<'_>) -> String {
    let is_led = |copy: &Json| copy["role"] == "primary" && copy["heard"] == true && copy["node"] != "a";
    let led = wait_for(
        "a copy to lead",
        || center.rows(&["instances"]).into_iter().find(is_led),
        || format!("{:?}", center.rows(&["history"])),
    );
    led["node"].as_str().expect("nodes have names").to_owned()
}

pub(crate) fn wait_until_promotable(center: &Center<'_>, node: &str) {
    wait_for_copy(center, node, "promotable", |copy| copy["promotable"] == true && copy["state"] == "online");
}

fn put(node: &Node<'_>, key: &str) {
    node.run(&["put", "blobs", key, "row"]).json();
}

#[test]
fn a_lost_primary_is_replaced_without_an_operator_and_comes_back_as_a_secondary() {
    let site = Site::new();
    let mut center = Center::start(&site, "catalog", LOST_AFTER);
    let [mut a, b, c] = start_three(&site, &center);
    for node in ["b", "c"] {
        wait_until_promotable(&center, node);
    }
    center.rows(&["mode", "a", "automatic"]);
    let keys: Vec<String> = (0..50).map(|number| format!("key {number}")).collect();
    let (before, after) = keys.split_at(25);
    for key in before {
        put(&a, key);
    }
    // The catalog outlives its process; commits do not notice.
    center.kill();
    for key in after {
        put(&a, key);
    }
    center.restart();
    let shown = center.rows(&["show"]).remove(0);
    assert_eq!(
        (&shown["name"], &shown["mode"], &shown["level"]),
        (&"a".into(), &"automatic".into(), &"quorum".into())
    );
    for node in ["a", "b", "c"] {
        wait_for_copy(&center, node, "heard again", |_| true);
    }

    a.kill();
    let led = wait_for_leader(&center);
    // b is the nearer one; c leads if it had more.
    let (leader, other, name) = if led == "b" { (&b, &c, "c") } else { (&c, &b, "b") };
    other.wait_until_equal(leader);
    for key in &keys {
        leader.run(&["get", "blobs", key]).json();
    }
    wait_until_promotable(&center, name);
    put(leader, "without a");
    let shown = center.rows(&["show"]).remove(0);
    assert_eq!((&shown["primary"], &shown["led"]), (&led.as_str().into(), &true.into()), "{shown}");

    // With the command line of a primary it becomes a secondary all the same.
    a.start();
    a.wait_until_equal(leader);
    assert_eq!(a.status()["primary"], leader.address());
    wait_until_promotable(&center, "a");
    put(leader, "with a");
    a.wait_until_equal(leader);
    let kinds = center.kinds();
    let order = ["primary_lost", "promotion_asked", "leads", "promoted", "node_returned"];
    let mut rest = kinds.iter();
    for kind in order {
        assert!(rest.any(|seen| seen == kind), "{kind} is missing after what comes before it: {kinds:?}");
    }
    let events = center.rows(&["history"]);
    let asked = events.iter().find(|event| event["kind"] == "promotion_asked").unwrap();
    assert!(asked["reasons"].as_array().is_some_and(|reasons| reasons.len() == 3), "{asked}");
}

#[test]
fn what_would_lose_commits_is_left_to_an_operator() {
    let site = Site::new();
    let center = Center::start(&site, "catalog", LOST_AFTER);
    let [mut a, b, mut c] = start_three(&site, &center);
    for node in ["b", "c"] {
        wait_until_promotable(&center, node);
    }
    center.rows(&["mode", "a", "automatic"]);
    put(&a, "first");
    // One of three is left: a commit might be on the other two alone.
    c.kill();
    a.kill();
    let is_told = |event: &Json| {
        event["kind"] == "nobody_promoted"
            && event["what"].as_str().is_some_and(|what| what.contains("no copy is fit"))
            && event["reasons"].to_string().contains("1 of the 2")
    };
    wait_for(
        "the control center to say why nobody leads",
        || center.rows(&["history"]).iter().any(is_told).then_some(()),
        || format!("{:?}", center.rows(&["history"])),
    );
    b.run(&["put", "blobs", "late", "row"]).failed(1, "read_only");
    assert!(!center.kinds().contains(&"promoted".to_owned()));
    // With a second one there are enough.
    c.start();
    let led = wait_for_leader(&center);
    let (leader, other) = if led == "b" { (&b, &c) } else { (&c, &b) };
    other.wait_until_equal(leader);
    leader.run(&["get", "blobs", "first"]).json();
}

#[test]
fn the_source_of_a_clone_is_told_with_the_reason_of_every_copy() {
    let site = Site::new();
    let center = Center::start(&site, "catalog", LOST_AFTER);
    let mut a = Node::primary_to_be(&site, "a");
    a.start_with(&center.join(&["region=eu", "datacenter=a"]));
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let backup = |name: &str, labels: &[&'static str]| {
        let mut node = Node::secondary_to_be(&site, name, &a);
        node.start_with(&[&center.join(labels)[..], &["--role", "backup"]].concat());
        node
    };
    let near = backup("near", &["region=us", "datacenter=x", "rack=1"]);
    let far = backup("far", &["region=us", "datacenter=y"]);
    let mut target = Node::primary_to_be(&site, "target");
    target.start_with(&center.join(&["region=us", "datacenter=x", "rack=2"]));
    for node in [&near, &far] {
        node.wait_until_equal(&a);
    }
    for node in ["near", "far"] {
        wait_for_copy(&center, node, "online", |copy| copy["state"] == "online" && copy["role"] == "backup");
    }
    wait_for_copy(&center, "target", "known", |_| true);
    let choose = |words: &[&str]| {
        center.run(&[&["choose-source", "--to", "target", "--database", "a"], words].concat()).json()
    };
    let reason = |rows: &[Json], node: &str| {
        rows.iter().find(|row| row["node"] == node).map(|row| row["code"].clone()).unwrap()
    };
    let rows = choose(&["--period", "1h"]);
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert_eq!(
        ["near", "far", "a"].map(|node| reason(&rows, node)),
        ["nearest_backup", "farther", "spared"].map(Json::from)
    );
    // Two databases are known, so one is to be named; and nodes are to exist.
    center.run(&["choose-source", "--to", "target"]).failed(1, "ambiguous");
    center.run(&["choose-source", "--to", "nowhere", "--database", "a"]).failed(1, "unknown_node");
    drop(near);
    wait_for(
        "the near one to be lost",
        || (reason(&choose(&["--period", "1h"]), "near") == "unreachable").then_some(()),
        || format!("{:?}", choose(&["--period", "1h"])),
    );
    assert_eq!(reason(&choose(&["--period", "1h"]), "far"), "nearest_backup");
    drop(far);
    wait_for(
        "the far one to be lost",
        || (reason(&choose(&["--period", "1h"]), "a") == "primary").then_some(()),
        || format!("{:?}", choose(&["--period", "1h"])),
    );
}

#[test]
fn strangers_are_refused_and_do_not_disturb() {
    let site = Site::new();
    let center = Center::start(&site, "catalog", LOST_AFTER);
    let mut a = Node::primary_to_be(&site, "a");
    a.start_with(&["--control", center.address(), "--join-token", &"0".repeat(32)]);
    // It serves all the same, and says why it is not in the cluster.
    a.run(&["table", "create", "blobs", "--raw"]).json();
    wait_for(
        "the node to say that its token is wrong",
        || a.log().contains("code=token").then_some(()),
        || a.log(),
    );
    assert!(center.rows(&["nodes"]).is_empty());
    site.run(&["serve", "b", "--control", center.address()]).failed(2, "usage");
    site.run(&["serve", "b", "--control", center.address(), "--join-token", "7"]).failed(2, "usage");
    center.run(&["mode", "birds", "automatic"]).failed(1, "unknown_database");
    // A control center hosts no database, and a node is no control center.
    site.run(&["--node", center.address(), "table", "list"]).failed(1, "unsupported");
    site.run(&["cluster", "nodes", "--control", a.address()]).failed(1, "unsupported");
    // Nor does the one open what the other has.
    a.kill();
    site.run(&["control", "a", "--listen", "127.0.0.1:0"]).failed(2, "usage");
    assert_eq!(
        site.run(&["control", "catalog", "--listen", "127.0.0.1:0"]).failed(1, "in_use")["code"],
        "in_use"
    );
}
