//! Hosts that cannot reach one another, in one direction or both, with nodes that have addresses of their own.
//!
//! These need the rights of root: `cargo test -p planaria-tests --test cluster -- --ignored partitions`.

use planaria_tests::cluster::{Hosts, Node, Site, wait_for};

use super::failover::wait_until_promotable;

fn put(node: &Node<'_>, key: &str) -> serde_json::Value {
    node.run(&["put", "blobs", key, "row"]).json().remove(0)
}

#[test]
#[ignore = "needs the rights of root and network namespaces"]
fn partitions_in_either_direction_heal_by_themselves() {
    let (site, hosts) = (Site::new(), Hosts::lay(2));
    let primary = Node::primary_on(&site, "primary", hosts.host(1, &site), "quorum");
    primary.run(&["table", "create", "blobs", "--raw"]).json();
    let secondary = Node::secondary_on(&site, "secondary", hosts.host(2, &site), &primary, "quorum");
    wait_until_promotable(&primary, 1);
    let cuts: [&[(u32, u32)]; 3] = [&[(1, 2)], &[(2, 1)], &[(1, 2), (2, 1)]];
    for (turn, cut) in cuts.into_iter().enumerate() {
        put(&primary, &format!("before {turn}"));
        for (from, to) in cut {
            hosts.cut(*from, *to);
        }
        // Half of two copies acknowledge nothing: it is there, and nobody promised it.
        let alone = format!("alone {turn}");
        primary.run(&["put", "blobs", &alone, "row", "--timeout", "300ms"]).failed(1, "unknown");
        primary.run(&["put", "blobs", &format!("local {turn}"), "row", "--level", "local"]).json();
        // Both sides notice, and reads go on at the old cut meanwhile.
        wait_for(
            "both sides to notice",
            || {
                let offline = primary.run(&["replica", "list"]).json()[0]["state"] == "offline";
                (offline && secondary.status()["state"] != "online").then_some(())
            },
            || format!("{:?}\n{}", primary.run(&["replica", "list"]), secondary.log()),
        );
        secondary.run(&["get", "blobs", &format!("before {turn}")]).json();
        // Nor does the other half lead: it cannot know what it lacks.
        secondary.run(&["promote"]).failed(1, "may_lose");
        for (from, to) in cut {
            hosts.heal(*from, *to);
        }
        secondary.wait_until_equal(&primary);
        secondary.run(&["get", "blobs", &alone]).json();
        put(&primary, &format!("after {turn}"));
    }
}

#[test]
#[ignore = "needs the rights of root and network namespaces"]
fn partitions_leave_one_primary_and_what_the_other_took_is_kept_aside() {
    let (site, hosts) = (Site::new(), Hosts::lay(3));
    let a = Node::primary_on(&site, "a", hosts.host(1, &site), "quorum");
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let b = Node::secondary_on(&site, "b", hosts.host(2, &site), &a, "quorum");
    let c = Node::secondary_on(&site, "c", hosts.host(3, &site), &a, "quorum");
    wait_until_promotable(&a, 2);
    put(&a, "before");
    for other in [2, 3] {
        hosts.cut(1, other);
        hosts.cut(other, 1);
    }
    // The primary is alone and does not know it: it acknowledges nothing at the level of the database.
    a.run(&["put", "blobs", "alone", "row", "--timeout", "300ms"]).failed(1, "unknown");
    a.run(&["put", "blobs", "local", "row", "--level", "local"]).json();
    a.run(&["get", "blobs", "before", "--fresh", "--wait", "300ms"]).failed(1, "unknown");
    // The others are a majority: what a quorum acknowledged they have, and what only the first has may be lost.
    b.run(&["promote"]).failed(1, "may_lose");
    assert_eq!(b.run(&["promote", "--yes"]).json()[0]["promoted"], true);
    wait_until_promotable(&b, 1);
    put(&b, "after");
    c.wait_until_equal(&b);
    // Once they meet again, the one that led before hears of it, and is led.
    for other in [2, 3] {
        hosts.heal(1, other);
        hosts.heal(other, 1);
    }
    wait_for(
        "the primary of before to be deposed",
        || (a.status()["state"] == "deposed").then_some(()),
        || a.log(),
    );
    a.run(&["put", "blobs", "late", "row", "--level", "local"]).failed(1, "deposed");
    a.run(&["replica", "follow", "--primary", b.address()]).json();
    a.wait_until_equal(&b);
    let kept = a.run(&["quarantine", "list"]).json();
    assert_eq!(kept.len(), 1, "{kept:?}");
    for key in ["before", "after"] {
        a.run(&["get", "blobs", key]).json();
    }
    a.run(&["get", "blobs", "local"]).failed(1, "no_row");
}
