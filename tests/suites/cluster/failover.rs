//! Primaries die, hand over and come back; what was acknowledged at a protected level is there.

use std::path::Path;

use planaria_tests::cluster::{Node, Site, wait_for};

use crate::clone_lies::flip_a_bit;
use crate::clone_life::{incompressible, load};

/// Waits until the primary counts all of its secondaries.
pub(crate) fn wait_until_promotable(primary: &Node<'_>, copies: usize) {
    let listed = || primary.run(&["replica", "list"]).json();
    wait_for(
        "the secondaries to be promotable",
        || {
            let counted = listed()
                .iter()
                .filter(|copy| copy["promotable"] == true && copy["state"] == "online")
                .count();
            (counted == copies).then_some(())
        },
        || format!("{:?}", listed()),
    );
}

fn put(node: &Node<'_>, key: &str) -> serde_json::Value {
    node.run(&["put", "blobs", key, "row"]).json().remove(0)
}

#[test]
fn what_a_quorum_acknowledged_survives_and_what_was_not_is_kept_aside() {
    let site = Site::new();
    let mut a = Node::primary_at(&site, "a", "quorum");
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let b = Node::secondary(&site, "b", &a);
    let c = Node::secondary(&site, "c", &a);
    wait_until_promotable(&a, 2);
    let keys: Vec<String> = (0..10).map(|number| format!("key {number}")).collect();
    for key in &keys {
        put(&a, key);
    }
    let pause = |name: &str, copy: &Node<'_>| {
        a.run(&["replica", "pause", name]).json();
        wait_for(
            "the session to end",
            || copy.status()["state"].as_str().is_some_and(|state| state.contains("wait")).then_some(()),
            || copy.log(),
        );
    };
    pause("c", &c);
    // Only b is left to acknowledge it, so b has all that c has, and more.
    put(&a, "of two");
    pause("b", &b);
    // What nobody else has is acknowledged at no protected level.
    let unknown = a.run(&["put", "blobs", "lonely", "row", "--timeout", "300ms"]);
    let error = unknown.failed(1, "unknown");
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("--token")), "{error}");
    a.run(&["put", "blobs", "local", "row", "--level", "local"]).json();
    a.kill();

    let look = b.run(&["promote", "--dry-run"]).json().remove(0);
    assert_eq!((&look["promoted"], &look["handed_over"]), (&false.into(), &false.into()));
    assert_eq!((&look["copies_heard"], &look["copies_needed"]), (&2.into(), &2.into()), "{look}");
    b.run(&["promote"]).failed(1, "may_lose");
    assert_eq!(b.run(&["promote", "--yes"]).json()[0]["promoted"], true);
    // An operator had it wait; that was written down.
    b.run(&["replica", "resume", "c"]);
    c.wait_until_equal(&b);
    put(&b, "after");
    for key in keys.iter().map(String::as_str).chain(["of two", "after"]) {
        b.run(&["get", "blobs", key]).json();
    }
    b.run(&["get", "blobs", "local"]).failed(1, "no_row");

    // Whoever led before learns that it does so no more, and names who does.
    a.start();
    wait_for(
        "the old primary to be deposed",
        || (a.status()["state"] == "deposed").then_some(()),
        || a.log(),
    );
    let error = a.run(&["put", "blobs", "late", "row", "--level", "local"]).failed(1, "deposed");
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains(b.address())), "{error}");
    a.kill();
    a.will_follow(&b);
    a.start();
    a.wait_until_equal(&b);
    let listed = a.run(&["quarantine", "list"]).json();
    assert_eq!((listed.len(), &listed[0]["records"]), (1, &2.into()), "{listed:?}");
    let name = listed[0]["name"].as_str().unwrap();
    let shown = a.run(&["quarantine", "diff", name]).json();
    assert!(shown.iter().all(|record| record["state"] == "absent"), "{shown:?}");
    assert_eq!(a.run(&["quarantine", "reapply", name]).json()[0]["written"], 2);
    assert_eq!(a.run(&["quarantine", "reapply", name]).json()[0]["written"], 0);
    for copy in [&a, &c] {
        copy.wait_until_equal(&b);
        copy.run(&["get", "blobs", "local"]).json();
    }
    assert_eq!(a.run(&["verify"]).json()[0]["sound"], true);
}

#[test]
fn the_lead_of_a_group_moves_without_loss_and_back() {
    let site = Site::new();
    let a = Node::primary_at(&site, "a", "one");
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let b = Node::secondary(&site, "b", &a);
    wait_until_promotable(&a, 1);
    put(&a, "first");
    a.run(&["promote"]).failed(1, "leads");
    assert_eq!(b.run(&["promote"]).json()[0]["handed_over"], true);
    a.wait_until_equal(&b);
    let error = a.run(&["put", "blobs", "wrong", "row"]).failed(1, "read_only");
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains(b.address())), "{error}");
    wait_until_promotable(&b, 1);
    put(&b, "second");
    assert_eq!(a.run(&["promote"]).json()[0]["handed_over"], true);
    b.wait_until_equal(&a);
    wait_until_promotable(&a, 1);
    put(&a, "third");
    b.wait_until_equal(&a);
    assert_eq!(a.rows("blobs"), 3);
    assert!(a.run(&["quarantine", "list"]).json().is_empty(), "nothing was taken back");
    assert!(b.run(&["quarantine", "list"]).json().is_empty(), "nothing was taken back");
}

#[test]
fn a_write_that_is_sent_again_is_made_once_also_by_the_next_primary() {
    let site = Site::new();
    let mut a = Node::primary_at(&site, "a", "one");
    let write = ["put", "blobs", "key", "row", "--token", "c0ffee"];
    a.run(&["table", "create", "blobs", "--raw"]).json();
    a.run(&write).failed(1, "too_few_copies");
    let mut b = Node::secondary(&site, "b", &a);
    wait_until_promotable(&a, 1);
    let first = a.run(&write).json().remove(0);
    let second = a.run(&write).json().remove(0);
    assert_eq!((&first["again"], &second["again"]), (&false.into(), &true.into()));
    assert_eq!(first["uid"], second["uid"]);
    a.run(&["put", "blobs", "other", "row", "--token", "c0ffee"]).failed(1, "token_reused");
    b.restart();
    a.kill();
    b.run(&["promote"]).failed(1, "may_lose");
    b.run(&["promote", "--yes"]).json();
    b.run(&["delete", "blobs", "key", "--level", "local"]).json();
    let third = b.run(&[&write[..], &["--level", "local"]].concat()).json().remove(0);
    assert_eq!((&third["uid"], &third["again"]), (&first["uid"], &true.into()));
    assert_eq!(b.rows("blobs"), 0, "it is not made a second time");
}

#[test]
fn a_secondary_shows_what_its_reader_wrote_or_says_that_it_does_not() {
    let site = Site::new();
    let mut a = Node::primary(&site, "a");
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let b = Node::secondary(&site, "b", &a);
    wait_until_promotable(&a, 1);
    for number in 0..20 {
        let key = format!("key {number}");
        let position = put(&a, &key)["position"].as_str().unwrap().to_owned();
        b.run(&["get", "blobs", &key, "--after", &position, "--wait", "1m"]).json();
    }
    // A commit to come, one of a history that was left, and one of an epoch that the copy has not heard of.
    let (far, other, later) = ("281474976710655.0", "1.0@1.1#0000000000000007", "1.0@7.7#0000000000000007");
    b.run(&["get", "blobs", "key 1", "--after", later, "--wait", "50ms"]).failed(1, "not_reached");
    b.run(&["get", "blobs", "key 1", "--after", far, "--wait", "50ms"]).failed(1, "not_reached");
    b.run(&["get", "blobs", "key 1", "--after", other]).failed(1, "taken_back");
    b.run(&["get", "blobs", "key 1", "--after", "never"]).failed(2, "usage");
    b.run(&["scan", "blobs", "--max-staleness", "1m", "--wait", "1m"]).json();
    a.kill();
    wait_for(
        "the secondary to be stale",
        || {
            let answer = b.run(&["scan", "blobs", "--max-staleness", "500ms", "--wait", "1ms"]);
            (answer.code == 1).then(|| answer.failed(1, "too_stale"))
        },
        || format!("{:?}", b.status()),
    );
}

#[test]
fn a_copy_that_has_met_damage_says_so_and_does_not_lead() {
    let site = Site::new();
    let mut primary = Node::primary_at(&site, "primary", "one");
    let mut secondary = Node::secondary(&site, "secondary", &primary);
    load(&primary, &incompressible(&site, 20_000), &[]);
    wait_until_promotable(&primary, 1);
    secondary.wait_until_equal(&primary);
    // What is cloned is written out before.
    secondary.run(&["clone", "create", "twin"]).json();
    secondary.kill();
    flip_a_bit(&site.path("secondary"));
    secondary.start();
    wait_until_promotable(&primary, 1);

    assert!(!secondary.status()["notices"].to_string().contains("damage"), "nobody has met it yet");
    secondary.run(&["digest"]).failed(1, "damaged");
    assert!(secondary.status()["notices"].to_string().contains("damage was met"), "{}", secondary.status());
    wait_for(
        "the log to tell of it",
        || secondary.log().contains("damage was met").then_some(()),
        || secondary.log(),
    );
    let refused = secondary.run(&["promote"]).failed(1, "not_promotable");
    assert!(refused["why"].to_string().contains(".run"), "{refused}");
    primary.kill();
    let refused = secondary.run(&["promote", "--yes"]).failed(1, "not_promotable");
    assert!(refused["why"].to_string().contains(".run"), "{refused}");
    // Unless there is no other.
    secondary.run(&["promote", "--force"]).json();
    assert_eq!(secondary.status()["state"], "primary");
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            std::fs::copy(&path, target).unwrap();
        }
    }
}

#[test]
fn two_processes_on_copies_of_one_directory_say_so() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    primary.run(&["table", "create", "blobs", "--raw"]).json();
    let mut secondary = Node::secondary(&site, "secondary", &primary);
    put(&primary, "row");
    secondary.wait_until_equal(&primary);
    secondary.kill();
    copy_dir(&site.path("secondary"), &site.path("twin"));
    secondary.start();
    let twin = Node::secondary(&site, "twin", &primary);
    for node in [&secondary, &twin] {
        wait_for(
            "the copy to say that another one takes its place",
            || node.status()["notices"].to_string().contains("another process follows").then_some(()),
            || format!("{}\n{}", node.status(), node.log()),
        );
    }
}

#[test]
fn a_copy_that_is_put_back_from_an_older_state_is_noticed_and_brought_up_to_date() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    primary.run(&["table", "create", "blobs", "--raw"]).json();
    let mut secondary = Node::secondary(&site, "secondary", &primary);
    put(&primary, "before");
    secondary.wait_until_equal(&primary);
    secondary.kill();
    copy_dir(&site.path("secondary"), &site.path("kept"));
    secondary.start();
    put(&primary, "after");
    secondary.wait_until_equal(&primary);
    let durable = || primary.run(&["replica", "list"]).json()[0]["lag_commits"] == 0;
    wait_for("the acknowledgement", || durable().then_some(()), || primary.log());
    assert!(!primary.status()["notices"].to_string().contains("older state"));
    secondary.kill();
    std::fs::remove_dir_all(site.path("secondary")).unwrap();
    std::fs::rename(site.path("kept"), site.path("secondary")).unwrap();
    secondary.start();
    secondary.wait_until_equal(&primary);
    let notices = primary.status()["notices"].to_string();
    assert!(notices.contains("secondary: it came back with") && notices.contains("older state"), "{notices}");
    assert!(primary.log().contains("older state"), "{}", primary.log());
}

#[test]
fn a_primary_that_is_put_back_from_an_older_state_says_so_and_another_copy_takes_the_lead_without_loss() {
    let site = Site::new();
    let mut a = Node::primary_at(&site, "a", "all");
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let mut b = Node::secondary_at(&site, "b", &a, "all");
    wait_until_promotable(&a, 1);
    put(&a, "before");
    a.kill();
    copy_dir(&site.path("a"), &site.path("kept"));
    a.start();
    wait_until_promotable(&a, 1);
    put(&a, "after");
    a.kill();
    std::fs::remove_dir_all(site.path("a")).unwrap();
    std::fs::rename(site.path("kept"), site.path("a")).unwrap();
    // Alone it cannot know, and begins an incarnation that the copy knows as another one.
    b.kill();
    a.start();
    b.start();
    let doubts = || a.status()["notices"].to_string().contains("put back from").then_some(());
    wait_for("the primary to doubt its directory", doubts, || format!("{}\n{}", a.status(), a.log()));
    wait_for("its log to say so", || a.log().contains("put back from").then_some(()), || a.log());
    // What it had acknowledged is on the other copy, which the primary cannot hand its lead to.
    let look = b.run(&["promote", "--dry-run"]).json().remove(0);
    assert!(look["obstacles"].to_string().contains("only one that is online"), "{look}");
    b.run(&["promote", "--force"]).json();
    for key in ["before", "after"] {
        b.run(&["get", "blobs", key]).json();
    }
    a.run(&["replica", "follow", "--primary", b.address()]).json();
    a.wait_until_equal(&b);
    assert_eq!(b.status()["state"], "primary");
}

#[test]
fn a_primary_that_is_put_back_hears_its_copies_before_it_leads() {
    let site = Site::new();
    let mut a = Node::primary_at(&site, "a", "all");
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let mut b = Node::secondary_at(&site, "b", &a, "all");
    wait_until_promotable(&a, 1);
    put(&a, "before");
    a.kill();
    copy_dir(&site.path("a"), &site.path("kept"));
    a.start();
    wait_until_promotable(&a, 1);
    put(&a, "after");
    a.kill();
    std::fs::remove_dir_all(site.path("a")).unwrap();
    std::fs::rename(site.path("kept"), site.path("a")).unwrap();
    // However often it is started: the first time it lacks an epoch, and once it has begun one of that number alone, it has another one.
    let stands_back = |a: &Node| {
        let status = a.status();
        assert_eq!(status["state"], "deposed", "{status}");
        assert!(status["notices"].to_string().contains("put back from"), "{status}");
        a.run(&["put", "blobs", "new", "row"]).failed(1, "deposed");
    };
    copy_dir(&site.path("a"), &site.path("kept"));
    a.start();
    stands_back(&a);
    a.kill();
    std::fs::remove_dir_all(site.path("a")).unwrap();
    std::fs::rename(site.path("kept"), site.path("a")).unwrap();
    b.kill();
    a.start();
    assert_eq!(a.status()["state"], "primary");
    b.start();
    a.kill();
    a.start();
    stands_back(&a);
    b.run(&["promote", "--force"]).json();
    for key in ["before", "after"] {
        b.run(&["get", "blobs", key]).json();
    }
    a.run(&["replica", "follow", "--primary", b.address()]).json();
    a.wait_until_equal(&b);
    assert_eq!(a.status()["notices"].to_string().matches("put back").count(), 0);
}
