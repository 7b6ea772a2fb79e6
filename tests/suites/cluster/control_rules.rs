//! What a control center has real nodes do by itself: when a copy is behind, when another one leads, by the calendar.

use planaria_tests::cluster::{Center, Node, Site, wait_for};
use serde_json::Value as Json;

/// How long nothing is heard of a node until it is lost: short, and long enough for a machine that is busy.
const LOST_AFTER: &str = "4s";

fn wait_for_row(center: &Center<'_>, words: &[&str], what: &str, is_so: impl Fn(&Json) -> bool) -> Json {
    wait_for(
        what,
        || center.rows(words).into_iter().find(|row| is_so(row)),
        || format!("{:?}\n{:?}", center.rows(words), center.rows(&["history"])),
    )
}

fn wait_for_event(center: &Center<'_>, kind: &str) -> Json {
    wait_for_row(center, &["history"], kind, |event| event["kind"] == kind)
}

fn wait_until_online(center: &Center<'_>, node: &str) -> Json {
    wait_for_row(center, &["instances"], "a copy to be online", |row| {
        row["node"] == node && row["state"] == "online" && row["heard"] == true
    })
}

fn spare<'a>(site: &'a Site, center: &Center<'a>, name: &str, role: &str) -> Node<'a> {
    let mut node = Node::primary_to_be(site, name);
    node.start_with(&[&center.join(&[])[..], &["--spare", "--role", role]].concat());
    wait_for_row(center, &["nodes"], "the spare", |row| row["name"] == name && row["spare"] == role);
    node
}

/// A primary and a standby under a control center.
fn start_two<'a>(site: &'a Site, center: &Center<'a>) -> [Node<'a>; 2] {
    let mut a = Node::primary_to_be(site, "a");
    a.start_with(&center.join(&[]));
    a.run(&["table", "create", "blobs", "--raw"]).json();
    a.run(&["put", "blobs", "key", "row"]).json();
    let mut b = Node::secondary_to_be(site, "b", &a);
    b.start_with(&center.join(&[]));
    wait_until_online(center, "b");
    [a, b]
}

#[test]
fn a_standby_that_is_behind_has_another_one_made_on_a_spare_node_once() {
    let site = Site::new();
    let mut center = Center::start(&site, "catalog", LOST_AFTER);
    let [a, _b] = start_two(&site, &center);
    let rule = ["rule", "add", "behind", "--on", "lag", "--over", "3s", "--for", "1s", "--of", "standby"];
    let set = center.rows(&[&rule[..], &["--role", "standby", "--pause", "1s"]].concat()).remove(0);
    assert_eq!((&set["on"], &set["role"], &set["database"]), (&"lag".into(), &"standby".into(), &"a".into()));
    assert!(set["acted"].is_null(), "{set}");
    // Nothing is sent to b any more, which is heard all the same.
    a.run(&["replica", "pause", "b"]).json();
    let waits = wait_for_event(&center, "rule_waits");
    assert!(waits["what"].as_str().is_some_and(|what| what.contains("no node waits")), "{waits}");
    // The rule and what it has seen outlive the control center.
    center.restart();
    let spare = spare(&site, &center, "spare", "standby");
    wait_until_online(&center, "spare");
    spare.wait_until_equal(&a);
    let acted = wait_for_event(&center, "rule_acted");
    assert!(acted["what"].as_str().is_some_and(|what| what.contains("b is") && what.contains("behind")));
    let clone = center.rows(&["clone", "list"]).remove(0);
    assert!(clone["origin"].as_str().is_some_and(|origin| origin.starts_with("the rule behind: b is")));
    // b stays behind, and nothing more is done about it.
    let another = self::spare(&site, &center, "another", "standby");
    assert!(!center.rows(&["rule", "list"])[0]["acted"].is_null());
    a.run(&["replica", "resume", "b"]).json();
    wait_until_online(&center, "b");
    assert_eq!(center.kinds().iter().filter(|kind| *kind == "rule_acted").count(), 1, "{:?}", center.kinds());
    drop(another);
    assert!(center.rows(&["rule", "remove", "behind"]).is_empty());
    center.run(&["rule", "remove", "behind"]).failed(1, "unknown_rule");
}

#[test]
fn a_standby_that_is_behind_takes_everything_anew() {
    let site = Site::new();
    let center = Center::start(&site, "catalog", LOST_AFTER);
    let [a, b] = start_two(&site, &center);
    let before = wait_until_online(&center, "b")["instance"].clone();
    center.rows(&["rule", "add", "anew", "--on", "lag", "--over", "3s", "--reseed"]);
    a.run(&["replica", "pause", "b"]).json();
    let asked = wait_for_event(&center, "reseed_asked");
    assert!(
        asked["what"]
            .as_str()
            .is_some_and(|what| what.contains("b is told to take everything anew, as b is"))
    );
    wait_for_event(&center, "reseeds");
    a.run(&["put", "blobs", "later", "row"]).json();
    a.run(&["replica", "resume", "b"]).json();
    wait_for_row(&center, &["instances"], "b to come back as another copy", |row| {
        row["node"] == "b" && row["state"] == "online" && row["heard"] == true && row["instance"] != before
    });
    b.wait_until_equal(&a);
}

#[test]
fn after_a_failover_a_fresh_backup_is_made() {
    let site = Site::new();
    let center = Center::start(&site, "catalog", LOST_AFTER);
    let mut a = Node::primary_to_be(&site, "a");
    a.start_with(&[&center.join(&[])[..], &["--level", "quorum"]].concat());
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let follower = |name: &str| {
        let mut node = Node::secondary_to_be(&site, name, &a);
        node.start_with(&center.join(&[]));
        node
    };
    let (b, c) = (follower("b"), follower("c"));
    for node in ["b", "c"] {
        wait_for_row(&center, &["instances"], "a copy to be promotable", |row| {
            row["node"] == node && row["promotable"] == true && row["state"] == "online"
        });
    }
    center.rows(&["mode", "a", "automatic"]);
    center.rows(&["rule", "add", "afterwards", "--on", "failover", "--role", "backup"]);
    let backup = spare(&site, &center, "backup", "backup");
    a.run(&["put", "blobs", "key", "row"]).json();
    assert!(center.rows(&["clone", "list"]).is_empty());
    a.kill();
    wait_for_event(&center, "rule_acted");
    let row = wait_until_online(&center, "backup");
    assert_eq!(row["role"], "backup");
    let led = center.rows(&["show"])[0]["primary"].clone();
    let leader = if led == "b" { &b } else { &c };
    backup.wait_until_equal(leader);
    let clones = center.rows(&["clone", "list"]);
    let origin = format!("the rule afterwards: {} leads in place of a", led.as_str().unwrap());
    assert_eq!((clones.len(), &clones[0]["origin"]), (1, &origin.into()), "{clones:?}");
}

#[test]
fn a_schedule_asks_by_the_calendar() {
    let site = Site::new();
    let mut center = Center::start(&site, "catalog", LOST_AFTER);
    let [_a, _b] = start_two(&site, &center);
    let to_b = ["--to", "b", "--ttl", "24h"];
    let add = |name, cron| [&["schedule", "add", name, "--cron", cron][..], &to_b[..]].concat();
    center.run(&add("never", "0 0 30 2 *")).failed(1, "invalid");
    center.run(&add("never", "every day")).failed(1, "invalid");
    let yearly = center.rows(&add("yearly", "0 0 1 1 *")).remove(0);
    assert_eq!((&yearly["cron"], &yearly["every"]), (&"0 0 1 1 *".into(), &Json::Null));
    assert!(yearly["next"].as_str().is_some_and(|next| next.contains("-01-01")), "{yearly}");
    center.rows(&add("often", "* * * * * *"));
    let made =
        |origin: &'static str| move |row: &&Json| row["origin"] == origin && row["state"] == "complete";
    let count =
        |center: &Center<'_>, origin| center.rows(&["clone", "list"]).iter().filter(made(origin)).count();
    let wait_for_clones = |center: &Center<'_>, least: usize| {
        wait_for(
            "the clones of a schedule",
            || (count(center, "the schedule often") >= least).then_some(()),
            || format!("{:?}", center.rows(&["clone", "list"])),
        );
    };
    wait_for_clones(&center, 2);
    center.restart();
    let before = count(&center, "the schedule often");
    wait_for_clones(&center, before + 1);
    assert_eq!(count(&center, "the schedule yearly"), 0, "it is not asked for before its time");
}
