//! A cluster as a file declares it.

use std::process::Command;

use planaria_tests::cluster::{Answer, Center, Node, Site, wait_for};

/// How long nothing is heard of a node until it is lost: short, and long enough for a machine that is busy.
const LOST_AFTER: &str = "4s";

const FILE: &str = r#"
[datacenters.east]
region = "eu"

[nodes.b]
labels = { datacenter = "east" }

[databases.a]
mode = "automatic"
standbys = 1

[limits."node-in:b"]
clones = 3
rate = "16MiB"

[schedules.nightly]
cron = "30 3 * * *"
to = "b"

[rules.afterwards]
on = "failover"
role = "backup"
"#;

#[test]
fn a_file_declares_the_cluster_and_what_is_shown_declares_the_same() {
    let site = Site::new();
    let mut center = Center::start(&site, "catalog", LOST_AFTER);
    let mut a = Node::primary_to_be(&site, "a");
    a.start_with(&center.join(&["datacenter=west"]));
    a.run(&["table", "create", "blobs", "--raw"]).json();
    let mut b = Node::secondary_to_be(&site, "b", &a);
    b.start_with(&center.join(&["datacenter=west"]));
    let heard = |center: &Center<'_>| {
        wait_for(
            "both copies",
            || {
                let rows = center.rows(&["instances"]);
                (rows.iter().filter(|row| row["heard"] == true).count() == 2
                    && rows.iter().any(|row| row["role"] == "primary"))
                .then_some(())
            },
            || format!("{:?}", center.rows(&["history"])),
        );
    };
    heard(&center);
    let apply = |center: &Center<'_>, text: &str, more: &[&str]| -> Answer {
        std::fs::write(site.path("cluster.toml"), text).unwrap();
        site.run(&[&["topology", "apply", "cluster.toml", "--control", center.address()], more].concat())
    };
    // As a person has it, and not as a program.
    let show = |center: &Center<'_>| -> String {
        let mut command = Command::new(site.command(&[]).get_program());
        command.args(["topology", "show", "--control", center.address()]);
        let shown = command.current_dir(site.dir()).env("XDG_DATA_HOME", site.path("home")).output().unwrap();
        String::from_utf8(shown.stdout).unwrap()
    };
    let planned = apply(&center, FILE, &["--dry-run"]).json();
    assert_eq!(planned.len(), 7, "{planned:?}");
    assert!(center.rows(&["rule", "list"]).is_empty(), "nothing has changed");
    // One thing that is wrong, far down: the line is named, and nothing has changed.
    let wrong = FILE.replace("to = \"b\"", "to = \"nobody\"");
    let refused = apply(&center, &wrong, &[]).failed(1, "unknown_node");
    let what = refused["what"].as_str().unwrap();
    assert!(what.contains("line 16: schedules.nightly: no node is called \"nobody\""), "{what}");
    let refused = apply(&center, &FILE.replace("16MiB", "16 birds"), &[]).failed(1, "invalid");
    assert!(refused["what"].as_str().unwrap().contains("cluster.toml: line 14: "), "{refused}");
    assert!(center.rows(&["schedule", "list"]).is_empty());

    assert_eq!(apply(&center, FILE, &[]).json(), planned);
    assert!(apply(&center, FILE, &[]).json().is_empty(), "a second time nothing changes");
    let node = center.rows(&["nodes"]).into_iter().find(|node| node["name"] == "b").unwrap();
    assert_eq!(node["labels"], "datacenter=east,region=eu");
    assert_eq!(center.rows(&["show"])[0]["mode"], "automatic");
    assert_eq!(center.rows(&["want"])[0]["standbys"], 1);
    assert_eq!(center.rows(&["rule", "list"])[0]["name"], "afterwards");
    assert_eq!(center.rows(&["schedule", "list"])[0]["cron"], "30 3 * * *");
    center.restart();
    heard(&center);
    assert!(apply(&center, FILE, &[]).json().is_empty(), "it outlives the control center");
    // What a command sets is declared as well.
    center.rows(&["limits", "set", "link:east/west", "--clones", "1"]);
    center.rows(&["rule", "add", "behind", "--on", "lag", "--over", "30s", "--reseed"]);
    let shown = show(&center);
    assert!(shown.contains("[limits.\"link:east/west\"]") && shown.contains("reseed = true"), "{shown}");
    assert!(apply(&center, &shown, &[]).json().is_empty(), "{shown}");
    // And is gone where a file does not name it.
    assert_eq!(apply(&center, FILE, &[]).json().len(), 2);
    assert_eq!(center.rows(&["rule", "list"]).len(), 1);
    assert!(center.kinds().contains(&"topology_applied".to_owned()));
}
