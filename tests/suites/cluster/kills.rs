//! Processes are killed while a table is imported; what was acknowledged is there afterwards, on every copy.

use std::process::Child;
use std::time::Duration;

use planaria_tests::cluster::{Answer, Node, Random, Site, Stopwatch, TableFile};

/// Rows of the table.
const ROWS: u64 = 60_000;
/// Kills of a run, unless `PLANARIA_KILLS` says otherwise.
const KILLS: u64 = 5;
/// The longest time that an import is left alone, in milliseconds.
const ALONE_MS_MAX: u64 = 1_000;

/// Whom a kill hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Victim {
    Primary,
    Secondary,
    Both,
}

impl Victim {
    fn draw(random: &mut Random) -> Self {
        match random.below(5) {
            0 | 1 => Self::Primary,
            2 | 3 => Self::Secondary,
            _ => Self::Both,
        }
    }
}

#[test]
fn kills_in_the_middle_of_an_import_lose_nothing_acknowledged() {
    let mut random = Random::announced("kills", 7);
    let kills = std::env::var("PLANARIA_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let site = Site::new();
    let file = TableFile::large(&site, ROWS);
    let expected = imported_undisturbed(&site, &file);
    let mut primary = Node::primary(&site, "primary");
    let mut secondary = Node::secondary(&site, "secondary", &primary);

    let mut complete: Vec<String> = Vec::new();
    let mut left = kills;
    while left > 0 || complete.is_empty() {
        // Once an import is complete, the next one fills another table.
        let table = format!("{}_{}", file.table, complete.len());
        let import = begin_import(&primary, &file, &table);
        let moment = Duration::from_millis(random.below(ALONE_MS_MAX));
        let (answer, victim) = if left > 0 {
            kill_at(import, moment, &mut random, &mut primary, &mut secondary)
        } else {
            (import.wait_with_output().unwrap().into(), None)
        };
        left -= u64::from(victim.is_some());
        if answer.code == 0 {
            complete.push(table.clone());
        }
        eprintln!("{left} kills left: {victim:?} after {moment:?}, import answered {}", answer.code);
        // Only the death of the primary is a reason to fail.
        assert!(answer.code == 0 || matches!(victim, Some(Victim::Primary | Victim::Both)), "{answer:?}");
        check_acknowledged(&answer, primary.rows(&table));
        for table in &complete {
            assert_eq!(primary.run(&["digest", table]).digest(), expected, "{table} after {victim:?}");
        }
    }
    secondary.wait_until_equal(&primary);
    for node in [&primary, &secondary] {
        for table in &complete {
            assert_eq!(node.run(&["digest", table]).digest(), expected);
        }
        assert_eq!(node.run(&["verify"]).json()[0]["sound"], true);
    }
}

/// The digest of the table, made from the same file where nothing disturbs.
fn imported_undisturbed(site: &Site, file: &TableFile) -> (u64, String) {
    let words = file.import();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.insert(1, "undisturbed");
    site.run(&words).json();
    let digest = site.run(&["digest", "undisturbed", &file.table]).digest();
    assert_eq!(digest.0, file.rows);
    digest
}

fn begin_import(primary: &Node<'_>, file: &TableFile, table: &str) -> Child {
    let words = file.into_table(table).import();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    primary.begin(&words)
}

/// Leaves the import alone for a time, then kills and restarts somebody. Nobody is killed if the import is done before.
fn kill_at(
    mut import: Child,
    moment: Duration,
    random: &mut Random,
    primary: &mut Node<'_>,
    secondary: &mut Node<'_>,
) -> (Answer, Option<Victim>) {
    let victim = Victim::draw(random);
    let stopwatch = Stopwatch::start();
    while stopwatch.elapsed() < moment {
        if import.try_wait().unwrap().is_some() {
            return (import.wait_with_output().unwrap().into(), None);
        }
        std::thread::park_timeout(Duration::from_millis(1));
    }
    match victim {
        Victim::Primary => primary.kill(),
        Victim::Secondary => secondary.restart(),
        Victim::Both => {
            primary.kill();
            secondary.kill();
        }
    }
    if victim != Victim::Secondary {
        primary.start();
    }
    if victim == Victim::Both {
        secondary.start();
    }
    (import.wait_with_output().unwrap().into(), Some(victim))
}

/// Whatever an import says to be in the table is there after the primary was killed and came back.
fn check_acknowledged(answer: &Answer, there: u64) {
    let Some(line) = answer.stdout.lines().next() else { return };
    let report: serde_json::Value = serde_json::from_str(line).unwrap();
    let number = |name: &str| report[name].as_u64().unwrap();
    let told = number("rows") + number("replaced") + number("unchanged");
    assert!(there >= told, "{told} rows were said to be there, {there} are: {answer:?}");
    assert_eq!(report["complete"], answer.code == 0);
}

#[test]
fn a_secondary_killed_in_its_first_copy_and_in_a_refresh_comes_back_to_equal() {
    let mut random = Random::announced("first copy", 11);
    let site = Site::new();
    let file = TableFile::sightings(&site, ROWS);
    let primary = Node::primary(&site, "primary");
    let import = |file: &TableFile, replace: bool| {
        let mut words = file.import();
        if replace {
            words.extend(["--on-duplicate".to_owned(), "replace".to_owned()]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        primary.run(&words).json()
    };
    import(&file, false);
    let mut secondary = Node::secondary_to_be(&site, "secondary", &primary);
    for _ in 0..4 {
        secondary.launch();
        leave_alone(random.below(300));
        secondary.kill();
    }
    secondary.start();
    secondary.wait_until_equal(&primary);

    secondary.kill();
    let changed = TableFile::write(&site, "changed.csv", ROWS / 2, |id| Some(format!("changed {id}")));
    import(&changed, true);
    for _ in 0..4 {
        secondary.launch();
        leave_alone(random.below(300));
        secondary.kill();
    }
    secondary.start();
    secondary.wait_until_equal(&primary);
    assert_eq!(secondary.run(&["verify"]).json()[0]["sound"], true);
    assert_eq!(primary.rows(&file.table), ROWS);
}

/// A time in which processes do what they do; how far they come is left to chance.
fn leave_alone(ms: u64) {
    let (stopwatch, time) = (Stopwatch::start(), Duration::from_millis(ms));
    while stopwatch.elapsed() < time {
        std::thread::park_timeout(time.saturating_sub(stopwatch.elapsed()));
    }
}
