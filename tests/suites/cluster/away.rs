//! A secondary is away while rows change and go; back again it is brought up to date by what differs.

use planaria_tests::cluster::{Node, Site, TableFile};

/// Rows of the table.
const ROWS: u64 = 50_000;

#[test]
fn a_secondary_that_was_away_gets_what_changed_and_what_was_deleted() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    let file = TableFile::sightings(&site, ROWS);
    import(&primary, &file, &[]);
    let mut secondary = Node::secondary(&site, "secondary", &primary);
    secondary.wait_until_equal(&primary);
    let before = secondary.digests();
    secondary.kill();

    // One row of a hundred changes, one of a thousand goes.
    let changed =
        TableFile::write(&site, "changed.csv", ROWS, |id| (id % 100 == 7).then(|| format!("changed {id}")));
    let report = import(&primary, &changed, &["--on-duplicate", "replace"]);
    assert_eq!(report["replaced"], ROWS / 100);
    for id in (0..ROWS).filter(|id| id % 1_000 == 13) {
        primary.run(&["delete", "sightings", &id.to_string()]).json();
    }
    primary.run(&["put", "sightings", "id=-1", "place=nowhere", "birds=1", "remark=new"]).json();
    assert_eq!(primary.rows("sightings"), ROWS - ROWS / 1_000 + 1);

    secondary.start();
    secondary.wait_until_equal(&primary);
    assert_ne!(secondary.digests(), before);
    secondary.run(&["get", "sightings", "13"]).failed(1, "no_row");
    let row = secondary.run(&["get", "sightings", "107"]).json();
    assert_eq!(row[0]["remark"], "changed 107");
    // The log says which way it took, and why.
    let log = secondary.log();
    assert!(log.contains("state=\"online\" way=\"tail\" reason=\"log_holds_all\""), "{log}");
    secondary.run(&["put", "sightings", "id=-2", "place=x", "birds=1", "remark=x"]).failed(1, "read_only");
}

#[test]
fn a_primary_that_was_away_finds_its_secondary_again() {
    let site = Site::new();
    let mut primary = Node::primary(&site, "primary");
    let secondary = Node::secondary(&site, "secondary", &primary);
    for round in 0..3_u32 {
        let name = format!("round-{round}.csv");
        let file = TableFile::write(&site, &name, 500, |id| Some(format!("{round} {id}")));
        import(&primary, &file, &["--on-duplicate", "replace"]);
        primary.restart();
        secondary.wait_until_equal(&primary);
        let replicas = primary.run(&["replica", "list"]).json();
        assert_eq!((replicas.len(), &replicas[0]["name"]), (1, &"secondary".into()), "{replicas:?}");
    }
}

fn import(primary: &Node<'_>, file: &TableFile, options: &[&str]) -> serde_json::Value {
    let words = file.import();
    let words: Vec<&str> = words.iter().map(String::as_str).chain(options.iter().copied()).collect();
    primary.run(&words).json().remove(0)
}
