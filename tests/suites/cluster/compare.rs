//! Nodes are compared by fingerprints, and refreshed when somebody asks for it.

use planaria_tests::cluster::{Node, Site, TableFile, wait_for};

use crate::clone_lies::flip_a_bit;
use crate::clone_life::{incompressible, load};

fn site_with_table(site: &Site) -> Node<'_> {
    let primary = Node::primary(site, "primary");
    let words = TableFile::sightings(site, 5_000).import();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    primary.run(&words).json();
    primary
}

#[test]
fn a_refresh_is_told_before_it_moves_anything_and_takes_the_way_that_is_asked_for() {
    let site = Site::new();
    let primary = site_with_table(&site);
    let secondary = Node::secondary(&site, "secondary", &primary);
    secondary.wait_until_equal(&primary);
    let told = secondary.run(&["replica", "refresh", "--dry-run"]).json().remove(0);
    assert_eq!(
        (&told["way"], &told["reason"], &told["begun"]),
        (&"tail".into(), &"log_holds_all".into(), &false.into())
    );
    let told = secondary.run(&["replica", "refresh", "--dry-run", "--way", "reconcile"]).json().remove(0);
    assert_eq!((&told["way"], &told["reason"]), (&"reconcile".into(), &"asked".into()));
    assert_ne!(secondary.status()["refresh_way"], "reconcile");
    primary.run(&["replica", "refresh", "--dry-run"]).failed(1, "not_a_secondary");
    site.run(&["replica", "refresh", "primary"]).failed(1, "in_use");

    let begun = secondary.run(&["replica", "refresh", "--way", "reconcile"]).json().remove(0);
    assert_eq!(begun["begun"], true);
    wait_for(
        "the reconcile",
        || (secondary.status()["refresh_way"] == "reconcile").then_some(()),
        || secondary.log(),
    );
    secondary.wait_until_equal(&primary);
    let status = secondary.status();
    assert_eq!(status["refresh_reason"], "asked");
    assert!(status["refresh_records"].as_u64().unwrap() < 200, "equal ranges are not moved: {status}");
    let listed = primary.run(&["replica", "list"]).json().remove(0);
    assert_eq!(listed["way"], "reconcile", "{listed}");
}

#[test]
fn what_differs_between_two_nodes_is_named_and_the_exit_code_tells_it() {
    let site = Site::new();
    let primary = site_with_table(&site);
    let mut secondary = Node::secondary(&site, "secondary", &primary);
    secondary.wait_until_equal(&primary);
    let equal = secondary.run(&["verify", "--against", primary.address(), "--repair"]);
    assert_eq!(equal.json().len(), 0);
    // A copy that is behind is equal at its own position.
    secondary.kill();
    site.run(&["clone", "create", "secondary", "copy"]).json();
    primary.run(&["delete", "sightings", "5"]).json();
    assert_eq!(site.run(&["verify", "secondary", "--against", primary.address()]).json().len(), 0);

    // The copy goes its own way; the primary goes on, so that the lower position is the copy's.
    site.run(&["put", "copy", "sightings", "id=7", "place=x", "birds=1", "remark=elsewhere"]).json();
    site.run(&["delete", "copy", "sightings", "2000"]).json();
    let position = |status: &serde_json::Value| -> (u64, u64) {
        let text = status["visible"].as_str().unwrap();
        let (ms, counter) = text.split_once('.').unwrap();
        (ms.parse().unwrap(), counter.parse().unwrap())
    };
    let gone_to = position(&site.run(&["status", "copy"]).json()[0]);
    wait_for(
        "the primary to be ahead of the copy",
        || {
            primary.run(&["put", "sightings", "id=-1", "place=x", "birds=1", "remark=later"]).json();
            (position(&primary.status()) > gone_to).then_some(())
        },
        || primary.log(),
    );
    let compared = site.run(&["verify", "copy", "--against", primary.address()]);
    compared.failed(1, "differs");
    let rows: Vec<serde_json::Value> =
        compared.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |key: &str| {
        let found = rows.iter().find(|row| row["table"] == "sightings" && row["key"] == key);
        found.map(|row| row["difference"].clone())
    };
    assert_eq!(of("7"), Some("differs".into()), "{rows:?}");
    assert_eq!(of("2000"), Some("only there".into()), "{rows:?}");
    assert_eq!(of("5"), Some("only here".into()), "{rows:?}");
    let named = rows.iter().filter(|row| row["table"] == "sightings" && row["key"] != "-1").count();
    assert_eq!(named, 3, "{rows:?}");
}

#[test]
fn a_secondary_that_cannot_read_its_files_takes_them_anew_by_a_repair() {
    let site = Site::new();
    let primary = site_with_table(&site);
    // So large that it is not read when it is opened.
    load(&primary, &incompressible(&site, 20_000).into_table("large"), &[]);
    primary.run(&["clone", "create", "secondary", "--role", "standby"]).json();
    flip_a_bit(&site.path("secondary"));
    let secondary = Node::secondary(&site, "secondary", &primary);
    let against = ["verify", "--against", primary.address()];
    // What is compared are fingerprints; what is read is whole.
    assert_eq!(secondary.run(&against).json().len(), 0);
    let told = secondary.run(&["verify"]).failed(1, "damaged");
    assert!(told["hint"].to_string().contains("--repair"), "{told}");
    let begun = secondary.run(&[&against[..], &["--repair"]].concat()).failed(1, "damaged");
    assert!(begun["why"].to_string().contains("taken anew"), "{begun}");
    wait_for(
        "the run files",
        || (secondary.status()["refresh_way"] == "bulk").then_some(()),
        || format!("{}\n{}", secondary.status(), secondary.log()),
    );
    secondary.wait_until_equal(&primary);
    assert_eq!(secondary.run(&["verify"]).json()[0]["sound"], true);
}
