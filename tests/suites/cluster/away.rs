//! A secondary is away while rows change and go; back again it is brought up to date by what differs.

use std::path::Path;

use planaria_engine::{Batch, Database, Durability, Options};
use planaria_tests::cluster::{Direction, Link, Node, Site, TableFile, Weather, wait_for};

use crate::clone_life::{incompressible, load};

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

#[test]
fn a_delta_goes_on_from_what_it_has_brought_though_the_secondary_was_killed() {
    let site = Site::new();
    let mut primary = Node::primary(&site, "primary");
    load(&primary, &incompressible(&site, 100), &[]);
    let link = Link::to(primary.address(), 1, Weather::default());
    let mut secondary = Node::secondary_over(&site, "secondary", &link);
    secondary.wait_until_equal(&primary);
    secondary.kill();
    primary.kill();
    write_beyond_the_log(&site.path("primary"));
    primary.start();

    link.set(Weather { bytes_per_second: 2_000_000, ..Weather::default() });
    secondary.start();
    let kept = site.path("secondary/REFRESH");
    wait_for("a part of the delta to be kept", || kept.exists().then_some(()), || secondary.log());
    secondary.kill();
    let before = link.passed(Direction::Back);
    // Whoever looks at it meanwhile finds the old cut, and leaves what is kept.
    let at_rest = site.run(&["digest", "secondary"]);
    assert_eq!(at_rest.code, 0, "{at_rest:?}");
    assert_ne!(Some(at_rest.stdout), primary.digests());
    link.set(Weather::default());
    secondary.start();
    secondary.wait_until_equal(&primary);
    let log = secondary.log();
    assert!(log.contains("the delta goes on from what an interrupted one has brought"), "{log}");
    let (first, second) = (before, link.passed(Direction::Back) - before);
    assert!(second < 20_000_000, "{second} bytes came after {first}");
    assert!(!kept.exists());
}

/// Writes 30 MB to a primary that is down, so that its log does not go back to what was there before.
fn write_beyond_the_log(dir: &Path) {
    let options = Options { log_tail_bytes: 0, ..Options::default() };
    let db = Database::open_with(dir, options).unwrap();
    let table = db.create_raw_table("blobs").unwrap();
    for thousand in 0..25_u64 {
        let mut batch = Batch::new();
        for number in thousand * 1_000..(thousand + 1) * 1_000 {
            let words =
                (0..150).map(|n| (number * 150 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            batch.put(table.id(), number.to_be_bytes(), words.collect::<Vec<_>>().concat());
        }
        db.write(batch, Durability::Synced).unwrap();
    }
    db.compact().unwrap();
}
