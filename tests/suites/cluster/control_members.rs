//! Who belongs to a cluster: nodes that leave and come back, copies that others have replaced.

use planaria_tests::cluster::{Center, Node, Site, wait_for};
use serde_json::Value as Json;

use crate::control::{LOST_AFTER, start_three, wait_until_promotable};

fn wait_for_row(center: &Center<'_>, words: &[&str], what: &str, is_so: impl Fn(&Json) -> bool) -> Json {
    wait_for(
        what,
        || center.rows(words).into_iter().find(|row| is_so(row)),
        || format!("{:?}\n{:?}", center.rows(words), center.rows(&["history"])),
    )
}

fn wait_until_lost(center: &Center<'_>, node: &str) {
    wait_for_row(center, &["nodes"], "a node to be lost", |row| row["name"] == node && row["heard"] == false);
}

fn names(rows: &[Json]) -> Vec<&str> {
    rows.iter().filter_map(|row| row["name"].as_str().or(row["node"].as_str())).collect()
}

#[test]
fn a_node_that_is_gone_is_removed_and_joins_again_when_it_comes_back() {
    let site = Site::new();
    let mut center = Center::start(&site, "catalog", LOST_AFTER);
    let [mut a, b, mut c] = start_three(&site, &center);
    for node in ["b", "c"] {
        wait_until_promotable(&center, node);
    }
    center.run(&["node", "remove", "z"]).failed(1, "unknown_node");
    for node in ["a", "c"] {
        let refused = center.run(&["node", "remove", node, "--force"]).failed(1, "node_heard");
        assert!(refused["what"].as_str().is_some_and(|what| what.contains("was heard")), "{refused}");
        assert!(refused["hint"].as_str().is_some_and(|hint| hint.contains("--lost-after")), "{refused}");
    }
    // It stands still and knows of nothing while it is removed.
    c.suspend();
    wait_until_lost(&center, "c");
    let left = center.rows(&["node", "remove", "c", "--reason", "sold"]);
    assert_eq!(names(&left), ["a", "b"]);
    assert_eq!(names(&center.rows(&["instances"])), ["a", "b"]);
    let event = center.rows(&["history"]).remove(0);
    assert_eq!((&event["kind"], &event["node"]), (&"node_removed".into(), &"c".into()), "{event}");
    assert!(event["what"].as_str().is_some_and(|what| what.contains("sold")), "{event}");
    center.restart();
    assert_eq!(names(&center.rows(&["nodes"])), ["a", "b"], "it is durable");
    wait_until_promotable(&center, "b");

    // Where the control center goes on, the session is told why it is none any more.
    c.go_on();
    wait_until_promotable(&center, "c");
    c.suspend();
    wait_until_lost(&center, "c");
    center.rows(&["node", "remove", "c"]);
    c.go_on();
    let joined = wait_for_row(&center, &["history"], "c to be back", |row| {
        row["kind"] == "node_joined"
            && row["node"] == "c"
            && row["reasons"].to_string().contains("had left at")
    });
    assert!(joined["reasons"].to_string().contains("joined again with the token"), "{joined}");
    assert!(c.log().contains("code=removed"), "{}", c.log());
    wait_until_promotable(&center, "c");
    c.wait_until_equal(&a);

    // Who led last leaves by force alone, and is replaced all the same.
    a.kill();
    wait_until_lost(&center, "a");
    center.run(&["node", "remove", "a"]).failed(1, "leads");
    assert_eq!(names(&center.rows(&["node", "remove", "a", "--force"])), ["b", "c"]);
    center.rows(&["mode", "a", "automatic"]);
    let leads = |row: &Json| row["led"] == true && row["primary"] != "a";
    let led = wait_for_row(&center, &["show"], "another copy to lead", leads);
    let leader = if led["primary"] == "b" { &b } else { &c };
    leader.run(&["put", "blobs", "key", "row"]).json();
    a.start();
    a.wait_until_equal(leader);
    wait_until_promotable(&center, "a");
    c.kill();
}

#[test]
fn a_copy_that_its_node_has_replaced_goes_by_itself() {
    let site = Site::new();
    let center = Center::start(&site, "catalog", LOST_AFTER);
    let mut a = Node::primary_to_be(&site, "a");
    a.start_with(&center.join(&[]));
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let mut b = Node::secondary_to_be(&site, "b", &a);
    b.start_with(&center.join(&[]));
    let online = |row: &Json| row["node"] == "b" && row["state"] == "online" && row["heard"] == true;
    let before = wait_for_row(&center, &["instances"], "b online", online)["instance"].clone();
    b.run(&["replica", "refresh", "--way", "bulk"]).json();
    let is_other = |row: &Json| online(row) && row["instance"] != before;
    let after = wait_for_row(&center, &["instances"], "b as another copy", is_other)["instance"].clone();
    let goes = |event: &Json| event["kind"] == "copy_replaced" && event["node"] == "b";
    let event = wait_for_row(&center, &["history"], "the former one to leave", goes);
    let what = event["what"].as_str().unwrap();
    assert!([&before, &after].iter().all(|copy| what.contains(copy.as_str().unwrap())), "{event}");
    let copies = center.rows(&["instances"]);
    assert_eq!(names(&copies), ["a", "b"], "{copies:?}");
    assert_eq!(center.rows(&["show"])[0]["copies"], 2);
}

#[test]
fn a_token_that_was_renewed_is_of_no_use_to_who_is_new_and_those_that_joined_go_on() {
    let site = Site::new();
    let mut center = Center::start(&site, "catalog", LOST_AFTER);
    let mut a = Node::primary_to_be(&site, "a");
    a.start_with(&center.join(&[]));
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let mut b = Node::secondary_to_be(&site, "b", &a);
    b.start_with(&center.join(&[]));
    let heard = |name: &str, token: &str| {
        let is_so = |row: &Json| row["name"] == name && row["heard"] == true && row["token"] == token;
        wait_for_row(&center, &["nodes"], &format!("{name} with a token that is {token}"), is_so);
    };
    heard("a", "current");
    heard("b", "current");
    let old = center.token().to_owned();
    assert_eq!(center.rows(&["token", "show"])[0]["join_token"], *old);
    let renewed = center.rows(&["token", "renew"]).remove(0);
    let new = renewed["join_token"].as_str().unwrap().to_owned();
    assert_eq!((new == old, &renewed["nodes_with_an_older_one"]), (false, &2.into()));
    assert_eq!(center.rows(&["token", "show"]), [renewed]);
    let with = |token: &str| {
        ["--control".to_owned(), center.address().to_owned(), "--join-token".to_owned(), token.to_owned()]
    };
    let starts = |node: &mut Node<'_>, token: &str| {
        node.kill();
        node.start_with(&with(token).iter().map(String::as_str).collect::<Vec<_>>());
    };
    let refused = |node: &Node<'_>, code: &str| {
        let word = format!("code={code}");
        wait_for("a node to be refused", || node.log().contains(&word).then_some(()), || node.log());
    };
    let mut c = Node::secondary_to_be(&site, "c", &a);
    starts(&mut c, &old);
    refused(&c, "token");
    assert_eq!(names(&center.rows(&["nodes"])), ["a", "b"]);
    starts(&mut c, &new);
    heard("c", "current");
    // The others go on, with the token that they have, when either side is started anew.
    heard("a", "older");
    b.restart();
    heard("b", "older");
    starts(&mut b, &new);
    heard("b", "current");
    center.restart();
    assert_eq!(center.token(), new, "it is durable");
    for (node, token) in [("a", "older"), ("b", "current"), ("c", "current")] {
        wait_for_row(&center, &["nodes"], "all to be back", |row| {
            row["name"] == node && row["heard"] == true && row["token"] == token
        });
    }
    // Who was removed comes back with the new one alone.
    c.kill();
    wait_until_lost(&center, "c");
    center.rows(&["node", "remove", "c"]);
    let words = ["--control", center.address(), "--join-token"];
    c.start_with(&[&words[..], &[&old]].concat());
    refused(&c, "removed");
    c.kill();
    c.start_with(&[&words[..], &[&new]].concat());
    wait_for_row(&center, &["nodes"], "c", |row| row["name"] == "c" && row["heard"] == true);
    c.wait_until_equal(&a);
    let logs =
        [a.log(), b.log(), c.log(), std::fs::read_to_string(site.path("catalog.log")).unwrap()].concat();
    assert!(!logs.contains(&old) && !logs.contains(&new), "a token is in a log");
    assert!(center.kinds().contains(&"token_renewed".to_owned()));
}
