//! Links between real nodes that lose, repeat, damage and delay packets, or are slow.

use std::time::Duration;

use planaria_tests::cluster::{Direction, Link, Node, Random, Site, TableFile, Weather, wait_for};

/// Rows of the table.
const ROWS: u64 = 20_000;

fn load(primary: &Node<'_>, file: &TableFile, options: &[&str]) {
    let words = file.import();
    let words: Vec<&str> = words.iter().map(String::as_str).chain(options.iter().copied()).collect();
    primary.run(&words).json();
}

#[test]
fn a_link_in_bad_weather_costs_time_and_nothing_else() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    load(&primary, &TableFile::sightings(&site, ROWS), &[]);
    let weather = Weather {
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(10),
        lost_one_in: 20,
        twice_one_in: 20,
        damaged_one_in: 50,
        bytes_per_second: 0,
    };
    let seed = Random::announced("a_link_in_bad_weather_costs_time_and_nothing_else", 14).number();
    let link = Link::to(primary.address(), seed, weather);
    // The first copy, then live commits, then a return, all over this link.
    let mut secondary = Node::secondary_over(&site, "secondary", &link);
    let update = |name: &str, rows: u64| {
        let file = TableFile::write(&site, name, rows, |id| Some(format!("{name} {id}")));
        load(&primary, &file, &["--on-duplicate", "replace"]);
    };
    update("live.csv", ROWS / 10);
    secondary.wait_until_equal(&primary);
    secondary.kill();
    update("away.csv", ROWS / 5);
    secondary.start();
    update("back.csv", ROWS / 10);
    secondary.wait_until_equal(&primary);
    assert!(link.passed(Direction::Back) > link.passed(Direction::Forth), "the rows went over the link");
}

#[test]
fn a_copy_that_is_killed_again_and_again_on_its_return_over_a_slow_link_comes_to_an_end() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    load(&primary, &TableFile::sightings(&site, ROWS), &[]);
    let slow = Weather { bytes_per_second: 1_000_000, delay: Duration::from_millis(2), ..Weather::default() };
    let link = Link::to(primary.address(), 2, Weather::default());
    let mut secondary = Node::secondary_over(&site, "secondary", &link);
    secondary.wait_until_equal(&primary);
    secondary.kill();
    let changed = TableFile::write(&site, "changed.csv", ROWS, |id| Some(format!("changed {id} {id:0>60}")));
    load(&primary, &changed, &["--on-duplicate", "replace"]);
    link.set(slow);
    secondary.launch();
    // Three times it is killed when a part of what is under way has come through.
    for _ in 0..3 {
        let before = link.passed(Direction::Back);
        wait_for(
            "bytes to come through, or an end",
            || {
                let online = secondary.log().matches("state=\"online\"").count() > 1;
                (online || link.passed(Direction::Back) > before + 300_000).then_some(())
            },
            || secondary.log(),
        );
        secondary.kill();
        secondary.launch();
    }
    secondary.await_greeting();
    secondary.wait_until_equal(&primary);
}
