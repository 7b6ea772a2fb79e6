//! A control center that is killed in the middle of what it has nodes do.

use planaria_tests::cluster::{Center, Node, Random, Site, TableFile, wait_for};
use serde_json::Value as Json;

/// How long nothing is heard of a node until it is lost: short, and long enough for a machine that is busy.
const LOST_AFTER: &str = "4s";
const ROWS: u64 = 20_000;
const CLONES: usize = 3;

fn wait_for_row(center: &Center<'_>, words: &[&str], what: &str, is_so: impl Fn(&Json) -> bool) -> Json {
    wait_for(
        what,
        || center.rows(words).into_iter().find(|row| is_so(row)),
        || format!("{:?}\n{:?}", center.rows(words), center.rows(&["history"])),
    )
}

/// How far all clones have come together.
fn progress(center: &Center<'_>) -> (usize, u64) {
    let clones = center.rows(&["clone", "list"]);
    let complete = clones.iter().filter(|row| row["state"] == "complete").count();
    (complete, clones.iter().filter_map(|row| row["done"].as_u64()).sum())
}

#[test]
fn clones_are_made_to_their_end_and_once_however_often_the_control_center_is_killed() {
    let site = Site::new();
    let mut random = Random::announced("clones_are_made_to_their_end", 5);
    let mut center = Center::start(&site, "catalog", LOST_AFTER);
    let mut primary = Node::primary_to_be(&site, "a");
    primary.start_with(&center.join(&[]));
    let file = TableFile::sightings(&site, ROWS);
    let words = file.import();
    primary.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).json();
    let mut target = Node::primary_to_be(&site, "target");
    target.start_with(&center.join(&[]));
    wait_for_row(&center, &["nodes"], "the target", |row| row["name"] == "target" && row["copies"] == 1);
    wait_for_row(&center, &["instances"], "the primary", |row| row["node"] == "a" && row["heard"] == true);
    // One at a time, so that some wait; slow enough to be met on its way.
    center.rows(&["limits", "set", "node-in:target", "--clones", "1"]);
    for number in 0..CLONES {
        let name = format!("copy-{number}");
        let wish = ["clone", "create", "--to", "target", "--database", "a", "--name", &name];
        center.rows(&[&wish[..], &["--rate", "256KiB"]].concat());
    }
    let mut kills = 0;
    while progress(&center).0 < CLONES {
        let before = progress(&center);
        wait_for(
            "a clone to come on",
            || (progress(&center) != before).then_some(()),
            || format!("{:?}\n{:?}", center.rows(&["clone", "list"]), center.rows(&["history"])),
        );
        // Killed at another moment each time: right then, or after it has answered a little more.
        for _ in 0..random.below(4) {
            center.rows(&["nodes"]);
        }
        center.restart();
        kills += 1;
        // What runs need not go on at that rate when it was seen to be met.
        if kills == 2 * CLONES {
            for row in center.rows(&["clone", "list"]).iter().filter(|row| row["ended"].is_null()) {
                center.rows(&["clone", "rate", &row["clone"].as_u64().unwrap().to_string(), "64MiB"]);
            }
        }
    }
    assert!(kills >= CLONES, "only {kills}");
    let digest = primary.run(&["digest", &file.table]).digest();
    for number in 0..CLONES {
        assert_eq!(site.run(&["digest", &format!("copy-{number}"), &file.table]).digest(), digest);
        assert!(!site.path(&format!("copy-{number}.partial")).exists());
    }
    let kinds = center.kinds();
    let count = |kind: &str| kinds.iter().filter(|seen| *seen == kind).count();
    assert_eq!(
        ["clone_queued", "clone_complete", "clone_failed"].map(count),
        [CLONES, CLONES, 0],
        "{kinds:?}"
    );
}
