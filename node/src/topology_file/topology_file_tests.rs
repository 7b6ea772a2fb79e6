use planaria_net::wire::jobs::When;
use planaria_net::wire::rules::{RuleAction, RuleEvent};

use super::*;

const FILE: &str = r#"# A cluster of two places.
[datacenters.east]
region = "eu"

[nodes.birds-4]
capacity = "100GiB"
labels = { datacenter = "east", rack = "2" }

[databases.birds]
mode = "automatic"
standbys = 1

[databases.birds.stores."s3://bucket/birds"]
keep = 7
labels = { region = "eu" }

[limits."link:east/west"]
clones = 1
rate = "16MiB"

[schedules.nightly]
cron = "30 3 * * *"
to = "birds-4"
ttl = "168h"

[schedules.often]
every = "90s"
to = "birds-4"
rate = "1000000B"
role = "detached"
shape = { leave-out = ["audit"], where = ["birds: count > 3"], mask = ["people.mail=hash"], as-of = "2026-11-01T08:00:00Z" }

[rules.behind]
on = "lag"
over = "30s"
for = "1m"
of = "standby"
role = "standby"

[rules.anew]
on = "lag"
over = "10m"
reseed = true

[rules.afterwards]
on = "failover"
role = "detached"
to = "birds-4"
"#;

fn read(text: &str) -> Topology {
    TopologyFile::read(text.to_owned()).unwrap().topology
}

#[test]
fn a_file_is_read_and_written_in_the_same_form() {
    let topology = read(FILE);
    assert_eq!(topology.nodes[0].capacity_bytes, Some(100 << 30));
    assert_eq!(topology.databases[0].backups, 0);
    assert_eq!(topology.databases[0].stores[0].keep, Some(7));
    assert_eq!(topology.schedules[0].when, When::Calendar("30 3 * * *".into()));
    assert_eq!(
        (&topology.schedules[1].when, topology.schedules[1].wish.bytes_per_s),
        (&When::Every(90_000), Some(1_000_000))
    );
    assert_eq!(topology.schedules[1].wish.shape.filters, [("birds".to_owned(), "count > 3".to_owned())]);
    assert_eq!(topology.rules[0].event, RuleEvent::Failover.clone());
    assert_eq!(topology.rules[1].action, RuleAction::Reseed);
    let written = write(topology.clone()).unwrap();
    assert_eq!(read(&written), topology, "{written}");
    assert_eq!(write(read(&written)).unwrap(), written);
    assert_eq!(read(""), Topology::default());
    assert_eq!(write(Topology::default()).unwrap(), "");
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (from, to, line) in [
        ("[datacenters.east]", "[datacenter.east]", 2),
        ("capacity = \"100GiB\"", "capacity = \"100 birds\"", 6),
        ("mode = \"automatic\"", "mode = \"sometimes\"", 10),
        ("standbys = 1", "standbys = -1", 11),
        ("clones = 1", "clones = 1\nclones = 2", 19),
        ("cron = \"30 3 * * *\"", "", 21),
        ("over = \"30s\"", "under = \"30s\"", 35),
        ("reseed = true", "", 40),
        ("on = \"failover\"", "on = \"failover\"\nover = \"1s\"", 45),
        ("to = \"birds-4\"\nttl", "to = 7\nttl", 23),
    ] {
        let text = FILE.replacen(from, to, 1);
        assert_ne!(text, FILE, "{from}");
        let error = TopologyFile::read(text).err().unwrap();
        assert_eq!(error.code, "invalid");
        assert!(error.what.starts_with(&format!("line {line}: ")), "{to}: {}", error.what);
    }
}

#[test]
fn what_the_control_center_refuses_is_found_in_the_file() {
    let file = TopologyFile::read(FILE.to_owned()).unwrap();
    let located = |what: &str| file.locate(CliError::new("invalid", what)).what;
    assert_eq!(located("rules.behind: no"), "line 33: rules.behind: no");
    assert_eq!(located("limits.link:east/west: no"), "line 17: limits.link:east/west: no");
    assert_eq!(located("elsewhere: no"), "elsewhere: no");
}
