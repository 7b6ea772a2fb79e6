//! Secondaries that hold some tables, or ranges of them, alone.

use planaria_tests::cluster::{Node, Random, Site, Stopwatch, TableFile, wait_for};

/// Rows of each table.
const ROWS: u64 = 4_000;

/// A primary with three tables of sightings.
fn primary(site: &Site) -> Node<'_> {
    let primary = Node::primary(site, "primary");
    let file = TableFile::sightings(site, ROWS);
    for table in ["ducks", "geese", "swans"] {
        import(&primary, &file, table);
    }
    primary
}

fn import(primary: &Node<'_>, file: &TableFile, table: &str) {
    let words = file.into_table(table).import();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.extend(["--on-duplicate", "replace"]);
    primary.run(&words).json();
}

/// Waits until the copy holds of what it is to hold what its primary has.
fn wait_until_equal(partial: &Node<'_>, primary: &Node<'_>) {
    wait_for(
        "the partial copy to be equal",
        || {
            let compared = partial.run(&["verify", "--against", primary.address()]);
            let behind = partial.status()["visible"] != primary.status()["visible"];
            (compared.code == 0 && !behind).then_some(())
        },
        || format!("{}\n{}\n{}", partial.status(), primary.status(), partial.log()),
    );
}

#[test]
fn chosen_tables_arrive_and_follow_and_nothing_else_is_answered_for() {
    let site = Site::new();
    let primary = primary(&site);
    let mut partial = Node::secondary_to_be(&site, "partial", &primary);
    partial.start_with(&["--only", "ducks", "--only", "geese=100..2000", "--only", "later"]);
    wait_until_equal(&partial, &primary);
    assert_eq!(partial.run(&["digest", "ducks"]).digest(), primary.run(&["digest", "ducks"]).digest());

    // What is written is read there once it is asked for.
    let put = |table: &str, id: &str| {
        let id = format!("id={id}");
        let written = primary.run(&["put", table, &id, "place=pond", "birds=1", "remark=new"]).json();
        written[0]["position"].as_str().unwrap().to_owned()
    };
    let after = put("ducks", "-5");
    let row = partial.run(&["get", "ducks", "-5", "--after", &after]).json();
    assert_eq!(row[0]["remark"], "new");
    let after = put("geese", "150");
    assert_eq!(partial.run(&["get", "geese", "150", "--after", &after]).json()[0]["remark"], "new");
    primary.run(&["delete", "geese", "160"]).json();
    let after = put("swans", "7");
    partial.run(&["get", "geese", "160", "--after", &after]).failed(1, "no_row");

    // What it does not hold is refused, and where it is is told.
    for words in [
        &["get", "swans", "7"][..],
        &["get", "geese", "99"],
        &["get", "geese", "2000"],
        &["scan", "geese"],
        &["scan", "geese", "--from", "1500", "--to", "2001"],
        &["scan", "swans", "--limit", "1"],
        &["digest", "geese"],
        &["digest", "swans"],
        &["export", "swans", "-"],
    ] {
        let error = partial.run(words).failed(1, "not_held");
        assert!(error["what"].as_str().unwrap().contains("ducks, geese ["), "{error}");
    }
    assert_eq!(partial.run(&["scan", "geese", "--from", "1500", "--to", "2000"]).json().len(), 500);
    let digests = partial.run(&["digest"]).json();
    assert_eq!((digests.len(), &digests[0]["table"]), (1, &"ducks".into()));

    // A table that is made later under a chosen name is held.
    import(&primary, &TableFile::sightings_in(&site, "few.csv", 50), "later");
    wait_until_equal(&partial, &primary);
    assert_eq!(partial.rows("later"), 50);
    assert_eq!(partial.run(&["verify"]).json()[0]["sound"], true);
    let status = partial.status();
    assert_eq!((&status["state"], &status["refresh_way"]), (&"online".into(), &"pinned delta".into()));
    assert!(status["holds"].as_str().unwrap().starts_with("ducks, geese ["), "{status}");
    assert!(status["lag_ms"].is_u64(), "{status}");
}

#[test]
fn a_partial_copy_counts_for_no_level_is_promoted_by_nobody_and_feeds_nobody() {
    let site = Site::new();
    let primary = primary(&site);
    let mut partial = Node::secondary_to_be(&site, "partial", &primary);
    partial.start_with(&["--only", "ducks"]);
    wait_until_equal(&partial, &primary);
    let listed = primary.run(&["replica", "list"]).json();
    assert_eq!(
        (&listed[0]["holds"], &listed[0]["promotable"]),
        (&"ducks".into(), &false.into()),
        "{listed:?}"
    );
    assert_eq!((&listed[0]["state"], &listed[0]["way"]), (&"online".into(), &"pinned delta".into()));
    let at_one = ["put", "ducks", "id=-1", "place=x", "birds=1", "remark=x", "--level", "one"];
    primary.run(&at_one).failed(1, "too_few_copies");
    partial.run(&["promote", "--yes", "--force"]).failed(1, "partial");
    partial.run(&["clone", "create", "clone"]).failed(1, "partial");
    let on_node = site.word("clone");
    partial.run(&["clone", "create", &on_node, "--on-node"]).failed(1, "partial");
    assert!(!site.path("clone").exists());
    partial.kill();
    site.run(&["clone", "create", "partial", "clone"]).failed(1, "partial");
    site.run(&["get", "partial", "swans", "1"]).failed(1, "not_held");
    assert_eq!(site.run(&["get", "partial", "ducks", "1"]).json().len(), 1);
    // What the copy is to hold is said each time: it never becomes one that holds everything.
    let primary_at = primary.address();
    site.run(&["serve", "partial", "--listen", "127.0.0.1:0", "--replica-of", primary_at])
        .failed(1, "partial_copy");
    site.run(&["serve", "primary-2", "--only", "ducks"]).failed(2, "usage");
    let mut whole = Node::secondary(&site, "whole", &primary);
    whole.wait_until_equal(&primary);
    whole.kill();
    let only = ["serve", "whole", "--listen", "127.0.0.1:0", "--replica-of", primary_at, "--only", "ducks"];
    site.run(&only).failed(1, "whole_copy");
}

#[test]
fn a_partial_copy_that_is_killed_in_its_rounds_and_away_comes_back_to_equal() {
    let mut random = Random::announced("partial kills", 5);
    let site = Site::new();
    let primary = primary(&site);
    let mut partial = Node::secondary_to_be(&site, "partial", &primary);
    partial.start_with(&["--only", "ducks=500..3500"]);
    for round in 0..5_u64 {
        let name = format!("changed-{round}.csv");
        let of_round = |id| (id % 5 == round).then(|| format!("changed {round} {id}"));
        let file = TableFile::write(&site, &name, ROWS, of_round);
        let (to_ducks, to_swans) = (file.into_table("ducks").import(), file.into_table("swans").import());
        let begin = |words: &[String]| {
            let words = words.iter().map(String::as_str).chain(["--on-duplicate", "replace"]);
            primary.begin(&words.collect::<Vec<_>>())
        };
        let (ducks, swans) = (begin(&to_ducks), begin(&to_swans));
        let (stopwatch, moment) = (Stopwatch::start(), random.below(400));
        while stopwatch.elapsed().as_millis() < u128::from(moment) {
            std::thread::park_timeout(std::time::Duration::from_millis(1));
        }
        partial.kill();
        // What it shows is one cut, whatever became of the round.
        assert_eq!(site.run(&["verify", "partial"]).json()[0]["sound"], true);
        if round % 2 == 0 {
            partial.start();
        }
        for import in [ducks, swans] {
            let answer: planaria_tests::cluster::Answer = import.wait_with_output().unwrap().into();
            assert_eq!(answer.code, 0, "{answer:?}");
        }
        if round % 2 == 1 {
            partial.start();
        }
    }
    primary.run(&["delete", "ducks", "1000"]).json();
    wait_until_equal(&partial, &primary);
    partial.run(&["get", "ducks", "1000"]).failed(1, "no_row");
    assert_eq!(partial.run(&["get", "ducks", "3499"]).json()[0]["remark"], "changed 4 3499");

    // Away and back: it is told what changed of its range.
    partial.kill();
    let some = |id| (id % 100 == 1).then(|| format!("while away {id}"));
    let file = TableFile::write(&site, "away.csv", ROWS, some);
    import(&primary, &file, "ducks");
    import(&primary, &file, "geese");
    partial.start();
    wait_until_equal(&partial, &primary);
    partial.run(&["get", "geese", "101"]).failed(1, "not_held");
    assert_eq!(partial.run(&["get", "ducks", "501"]).json()[0]["remark"], "while away 501");
    let shown = primary.run(&["replica", "show", "partial"]).json().remove(0);
    assert_eq!((&shown["way"], &shown["reason"]), (&"pinned delta".into(), &"partial".into()), "{shown}");

    // Another portion is compared, and what is held no more goes.
    partial.kill();
    partial.start_with(&["--only", "swans", "--only", "ducks=..600"]);
    wait_until_equal(&partial, &primary);
    partial.run(&["get", "ducks", "700"]).failed(1, "not_held");
    assert_eq!(partial.run(&["digest", "swans"]).digest(), primary.run(&["digest", "swans"]).digest());
    let log = partial.log();
    assert!(log.contains("portion_changed"), "{log}");
}
