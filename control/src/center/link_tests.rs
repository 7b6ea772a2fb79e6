use planaria_net::wire::links::LinkReport;

use super::*;

impl World {
    fn told(&mut self, node: usize) -> Vec<String> {
        let (now, session) = (self.now(), self.sessions[node]);
        self.center().to_measure(now, session).into_iter().map(|peer| peer.node).collect()
    }

    fn measured(&mut self, node: usize, links: &[(&str, Option<u64>)]) {
        let link = |(to, round_trip_us): &(&str, Option<u64>)| LinkReport {
            to: (*to).to_owned(),
            round_trip_us: *round_trip_us,
            what: if round_trip_us.is_some() { String::new() } else { "it did not answer".into() },
        };
        let report = NodeReport {
            session: self.sessions[node],
            copies: self.copies[node].iter().cloned().collect(),
            links: links.iter().map(link).collect(),
            ..NodeReport::default()
        };
        let now = self.now();
        self.center().report(now, &report).unwrap();
    }
}

#[test]
fn a_node_measures_each_other_one_that_has_a_copy_once_in_a_while() {
    let mut world = World::new();
    assert_eq!(world.told(0), ["b", "c"]);
    assert!(world.told(0).is_empty(), "they were told");
    assert_eq!(world.told(1), ["a", "c"], "each node has its own");
    world.passes(59_000);
    assert!(world.told(0).is_empty());
    world.copies[2] = None;
    world.passes(11_000);
    assert_eq!(world.told(0), ["b"], "one that is lost is not measured");
    let (now, nobody) = (world.now(), 5);
    assert!(world.center().to_measure(now, nobody).is_empty());
}

#[test]
fn few_nodes_are_measured_at_a_time_and_the_nearest_first() {
    let mut world = World::new();
    let (now, token) = (world.now(), world.center().token());
    for number in 0..100_u64 {
        let (name, session) = (format!("n{number}"), 1_000 + number);
        let place = if number >= 90 { "a" } else { "elsewhere" };
        let labels = vec![("datacenter".to_owned(), place.to_owned())];
        let join = Join { token, name, port: number as u16, labels, ..Join::default() };
        world.center().join(now, HOST, &join, session).unwrap();
        let copy = CopyReport {
            database: DatabaseId(9),
            name: "other".into(),
            instance: InstanceId(1_000 + u128::from(number)),
            ..CopyReport::default()
        };
        let report = NodeReport { session, copies: vec![copy], ..NodeReport::default() };
        world.center().report(now, &report).unwrap();
    }
    let first: Vec<String> = (0..3).flat_map(|_| world.told(0)).collect();
    assert_eq!(first.len(), 12, "four with each answer");
    assert_eq!(
        first.iter().filter(|name| name.starts_with("n9") && name.len() == 3).count(),
        10,
        "{first:?}"
    );
    let rest: usize = (0..100).map(|_| world.told(0).len()).sum();
    assert_eq!(first.len() + rest, 64, "and no more than that in all");
}

#[test]
fn what_was_measured_decides_between_sources_that_are_as_near_and_outlives_the_control_center() {
    let mut world = World::new();
    for node in [1, 2] {
        world.copy(node).role = InstanceRole::Backup;
    }
    world.passes(1_000);
    let choose = |world: &mut World| {
        let now = world.now();
        let source = world.center().choose_source(now, "a", None, 600_000, AsOf::Newest).unwrap();
        source.candidates.into_iter().map(|one| (one.node, one.code, one.round_trip_us)).collect::<Vec<_>>()
    };
    let one = |node: &str, code: &str, us| (node.to_owned(), code.to_owned(), us);
    let a = || one("a", "at_destination", None);
    assert_eq!(
        choose(&mut world),
        [a(), one("b", "nearest_backup", None), one("c", "higher_id", None)],
        "nothing was measured"
    );
    world.measured(0, &[("c", Some(300))]);
    assert_eq!(choose(&mut world)[2].1, "higher_id", "it was not told to");
    world.told(0);
    world.measured(0, &[("b", Some(40_000)), ("c", Some(300))]);
    let expected = [a(), one("b", "slower_link", Some(40_000)), one("c", "nearest_backup", Some(300))];
    assert_eq!(choose(&mut world), expected);
    world.restart();
    world.passes(1_000);
    assert_eq!(choose(&mut world), expected, "the catalog has it");
    // Where the node itself has not measured the other one's word counts; who cannot be reached is the farthest.
    world.told(0);
    world.measured(0, &[("c", None)]);
    assert_eq!(
        choose(&mut world)[1..],
        [one("b", "nearest_backup", Some(40_000)), one("c", "slower_link", None)]
    );
    let links = world.center().links();
    assert_eq!(links[1].what, "it did not answer");
    assert_eq!((links[0].from.as_str(), links[0].to.as_str()), ("a", "b"));
}
