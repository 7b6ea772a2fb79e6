//! What an operator sees of secondaries and does with them.

use planaria_tests::cluster::{Node, Site, wait_for};

use crate::failover::wait_until_promotable;

#[test]
fn a_secondary_is_shown_paused_resumed_and_forgotten() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    primary.run(&["table", "create", "blobs", "--raw"]).json();
    primary.run(&["put", "blobs", "a", "row"]).json();
    let mut secondary = Node::secondary(&site, "second", &primary);
    secondary.wait_until_equal(&primary);
    let shown = || primary.run(&["replica", "show", "second"]).json().remove(0);
    let wait_for_state = |state: &str| {
        wait_for(state, || (shown()["state"] == state).then_some(()), || format!("{}", shown()));
    };
    assert_eq!(shown()["state"], "online");
    assert_eq!(shown()["way"], "tail");

    primary.run(&["replica", "pause", "second"]).json();
    wait_for_state("paused");
    wait_for(
        "the session to end",
        || secondary.status()["state"].as_str().is_some_and(|state| state.contains("wait")).then_some(()),
        || secondary.log(),
    );
    primary.run(&["put", "blobs", "b", "row"]).json();
    assert_eq!(secondary.rows("blobs"), 1);
    primary.run(&["replica", "forget", "nobody"]).failed(1, "unknown_replica");
    primary.run(&["replica", "resume", "second"]).json();
    secondary.wait_until_equal(&primary);
    primary.run(&["replica", "forget", "second"]).failed(1, "connected");

    secondary.kill();
    wait_for_state("offline");
    primary.run(&["delete", "blobs", "a"]).json();
    let id = shown()["instance"].as_str().unwrap().to_owned();
    primary.run(&["replica", "forget", &id]).json();
    assert!(primary.run(&["replica", "list"]).json().is_empty());
    // One that was forgotten is none the worse for it when it does come back.
    secondary.start();
    secondary.wait_until_equal(&primary);
    assert_eq!(shown()["state"], "online");
}

#[test]
fn a_directory_knows_its_secondaries_too() {
    let site = Site::new();
    let mut primary = Node::primary(&site, "primary");
    primary.run(&["table", "create", "blobs", "--raw"]).json();
    let secondary = Node::secondary(&site, "second", &primary);
    secondary.wait_until_equal(&primary);
    primary.kill();
    let listed = site.run(&["replica", "list", "primary"]).json();
    assert_eq!((listed.len(), &listed[0]["state"]), (1, &"offline".into()));
    site.run(&["replica", "pause", "primary", "second"]).json();
    assert_eq!(site.run(&["replica", "show", "primary", "second"]).json()[0]["state"], "paused");
    site.run(&["replica", "forget", "primary", "second"]).json();
    assert!(site.run(&["replica", "list", "primary"]).json().is_empty());
}

#[test]
fn a_copy_that_takes_run_files_keeps_its_place_in_a_set_of_two() {
    let site = Site::new();
    let mut a = Node::primary_at(&site, "a", "quorum");
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let b = Node::secondary(&site, "b", &a);
    wait_until_promotable(&a, 1);
    a.run(&["put", "blobs", "before", "row"]).json();
    let listed = |primary: &Node<'_>| primary.run(&["replica", "list"]).json();
    let before = listed(&a)[0]["instance"].clone();
    // Twice, so that one goes whose place was taken from another.
    for round in ["first", "second"] {
        let instance = listed(&a)[0]["instance"].clone();
        b.run(&["replica", "refresh", "--way", "bulk"]).json();
        wait_for(
            "the new copy to be the only one, and to count",
            || {
                let [copy] = &listed(&a)[..] else { return None };
                let counts = copy["promotable"] == true && copy["state"] == "online";
                (counts && copy["instance"] != instance).then_some(())
            },
            || format!("{:?}", listed(&a)),
        );
        let told = a.run(&["replica", "show", "b"]).json().remove(0);
        assert_eq!((&told["way"], &told["reason"]), (&"bulk".into(), &"asked".into()), "{told}");
        // Of two copies both must have it.
        a.run(&["put", "blobs", round, "row"]).json();
    }
    assert_ne!(listed(&a)[0]["instance"], before);
    // Nobody had to be forgotten, also by a primary that starts anew.
    a.restart();
    wait_until_promotable(&a, 1);
    assert_eq!(listed(&a).len(), 1);
    a.run(&["put", "blobs", "last", "row"]).json();
    a.kill();
    let look = b.run(&["promote", "--dry-run"]).json().remove(0);
    assert_eq!((&look["copies_heard"], &look["copies_needed"]), (&1.into(), &1.into()), "{look}");
    assert_eq!(b.run(&["promote", "--yes"]).json()[0]["promoted"], true);
    for key in ["before", "first", "second", "last"] {
        b.run(&["get", "blobs", key]).json();
    }
}
