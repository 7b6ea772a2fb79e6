//! Clones by the control center that are not to have everything.

use planaria_tests::cluster::{Center, Node, Site, TableFile, wait_for};

/// How long nothing is heard of a node until it is lost: short, and long enough for a machine that is busy.
const LOST_AFTER: &str = "4s";

#[test]
fn a_clone_by_the_control_center_leaves_out_filters_and_masks_also_after_the_control_center_was_killed() {
    let site = Site::new();
    let mut center = Center::start(&site, "catalog", LOST_AFTER);
    let mut primary = Node::primary_to_be(&site, "a");
    primary.start_with(&center.join(&[]));
    let file = TableFile::sightings(&site, 1_000);
    let words = file.import();
    primary.run(&words.iter().map(String::as_str).collect::<Vec<_>>()).json();
    primary.run(&["table", "create", "secrets", "--raw"]).json();
    let mut target = Node::primary_to_be(&site, "target");
    target.start_with(&center.join(&[]));
    let heard = |center: &Center<'_>| {
        wait_for(
            "both nodes",
            || {
                (center.rows(&["instances"]).iter().filter(|row| row["heard"] == true).count() == 2)
                    .then_some(())
            },
            || format!("{:?}", center.rows(&["history"])),
        );
    };
    heard(&center);
    let wish = ["clone", "create", "--to", "target", "--database", "a"];
    let shape =
        ["--leave-out", "secrets", "--where", "sightings: id < 100", "--mask", "sightings.remark=null"];
    center.rows(&["limits", "set", "node-in:target", "--clones", "0"]);
    let asked = center.rows(&[&wish[..], &["--name", "less"], &shape[..]].concat()).remove(0);
    let clone = asked["clone"].as_u64().unwrap().to_string();
    center.restart();
    heard(&center);
    center.rows(&["limits", "set", "node-in:target", "--clones", "2"]);
    let wait_for_end = |center: &Center<'_>, clone: &str| {
        wait_for(
            "the clone to end",
            || center.rows(&["clone", "show", clone]).into_iter().find(|row| !row["ended"].is_null()),
            || format!("{:?}", center.rows(&["history"])),
        )
    };
    let made = wait_for_end(&center, &clone);
    assert_eq!(
        (&made["state"], made["shape"].as_array().map(Vec::len)),
        (&"complete".into(), Some(3)),
        "{made}"
    );
    assert_eq!(site.run(&["digest", "less", &file.table]).digest().0, 100);
    let row = site.run(&["get", "less", "sightings", "7"]).json().remove(0);
    assert!(row["id"] == 7 && row["remark"].is_null() && !row["place"].is_null(), "{row}");
    let tables = site.run(&["table", "list", "less"]).json();
    assert!(tables.len() == 1 && tables[0]["table"] == "sightings", "{tables:?}");
    // What no source can make of its rows ends, and says why. A copy that follows has everything.
    let wrong = ["--name", "wrong", "--where", "sightings: wings < 100"];
    let asked = center.rows(&[&wish[..], &wrong[..]].concat()).remove(0);
    let ended = wait_for_end(&center, &asked["clone"].as_u64().unwrap().to_string());
    assert_eq!((&ended["state"], &ended["code"]), (&"failed".into(), &"invalid_shape".into()), "{ended}");
    assert!(ended["reason"].as_str().is_some_and(|reason| reason.contains("wings")), "{ended}");
    assert!(!site.path("wrong").exists());
}
