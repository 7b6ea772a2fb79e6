use planaria_engine::Options;
use planaria_net::quic::TlsStore;
use planaria_net::wire::message::Shape;

use super::*;
use crate::node::{Node, NodeOptions};

#[test]
fn a_node_that_was_started_anew_tells_of_what_it_goes_on_with_and_gives_it_up_if_it_is_not_wanted() {
    let site = tempfile::tempdir().unwrap();
    TlsStore::named(site.path().join("tls")).load_or_create().unwrap();
    let runtime = Arc::new(tokio::runtime::Runtime::new().unwrap());
    let node = |name: &str| {
        let options = NodeOptions::beside_others(site.path(), name, Options::default());
        Node::start(&runtime, &options, |_| {}).unwrap()
    };
    let source = node("source");
    let berth = |node: &Node| Berth::Beside { clones: Arc::clone(node.clones()), dir: site.path().into() };
    let order = CloneOrder {
        job: 7,
        name: "copy".into(),
        from: source.address(),
        database: source.database().id(),
        role: WireRole::Detached,
        source: source.database().instance(),
        bytes_per_s: 1,
        ttl_s: None,
        shape: Shape::default(),
    };
    {
        let target = node("target");
        let cloning = Cloning::new(berth(&target));
        assert_eq!(cloning.reports(), []);
        cloning.take(&[Order::Clone(order)]);
        assert_eq!(target.clones().info("copy#7").unwrap().name, "copy#7");
    }
    // Nobody orders it any more: the control center took it back meanwhile, and says so once it hears of it.
    let target = node("target");
    let cloning = Cloning::new(berth(&target));
    let told: Vec<u64> = cloning.reports().iter().map(|report| report.job).collect();
    assert_eq!(told, [7]);
    cloning.take(&[Order::CancelClone { job: 7 }]);
    while !cloning.reports().is_empty() {
        std::thread::yield_now();
    }
    assert_eq!(target.clones().list(), []);
    assert!(!site.path().join("copy.partial").exists());
}

#[test]
fn a_clone_that_one_source_cannot_give_waits_for_another_one_or_for_its_end() {
    let site = tempfile::tempdir().unwrap();
    TlsStore::named(site.path().join("tls")).load_or_create().unwrap();
    let runtime = Arc::new(tokio::runtime::Runtime::new().unwrap());
    let node = |name: &str| {
        let options = NodeOptions::beside_others(site.path(), name, Options::default());
        Node::start(&runtime, &options, |_| {}).unwrap()
    };
    {
        let db = planaria_engine::Database::open(site.path().join("source")).unwrap();
        let table = db.create_raw_table("t").unwrap();
        for key in 0..1_000_u32 {
            let word = |n: u64| (u64::from(key) * 31 + n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            table.put(key.to_be_bytes(), (1..=32).flat_map(word).collect::<Vec<_>>()).unwrap();
        }
        db.flush().unwrap();
    }
    let runs = std::fs::read_dir(site.path().join("source/runs")).unwrap();
    let run = runs.map(|run| run.unwrap().path()).max_by_key(|run| run.metadata().unwrap().len()).unwrap();
    let mut content = std::fs::read(&run).unwrap();
    let middle = content.len() / 2;
    content[middle] ^= 1;
    std::fs::write(&run, content).unwrap();
    let (source, other, target) = (node("source"), node("other"), node("target"));
    let order = |from: &Node| CloneOrder {
        job: 7,
        name: "copy".into(),
        from: from.address(),
        database: source.database().id(),
        role: WireRole::Detached,
        source: source.database().instance(),
        bytes_per_s: 1 << 30,
        ttl_s: None,
        shape: Shape::default(),
    };
    let cloning =
        Cloning::new(Berth::Beside { clones: Arc::clone(target.clones()), dir: site.path().into() });
    let fails = || {
        cloning.take(&[Order::Clone(order(&source))]);
        loop {
            cloning.reports();
            match cloning.outcomes().as_slice() {
                [] => std::thread::yield_now(),
                [outcome] => return outcome.clone(),
                more => panic!("{more:?}"),
            }
        }
    };
    let outcome = fails();
    assert_eq!(outcome.code, "clone_failed", "{outcome:?}");
    assert!(!cloning.told(&[outcome]));
    // The control center hears of it until it says what is to become of it.
    assert_eq!((cloning.reports().len(), cloning.outcomes()), (1, vec![]));
    cloning.take(&[Order::Clone(order(&other))]);
    target.clones().wait("copy#7", std::time::Duration::from_mins(1)).unwrap();
    cloning.reports();
    let outcomes = cloning.outcomes();
    assert!(outcomes.iter().all(|outcome| outcome.code.is_empty()) && outcomes.len() == 1, "{outcomes:?}");
    cloning.told(&outcomes);
    target.clones().delete("copy#7").unwrap();

    let outcome = fails();
    cloning.told(&[outcome]);
    cloning.take(&[Order::CancelClone { job: 7 }]);
    assert_eq!(cloning.reports(), []);
    assert_eq!(target.clones().list(), []);
    assert!(!site.path().join("copy.partial").exists());
}
