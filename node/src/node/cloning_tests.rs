use planaria_engine::Options;
use planaria_net::quic::TlsStore;

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
        shape: planaria_net::wire::message::Shape::default(),
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
fn a_job_is_known_by_the_name_of_its_clone() {
    assert_eq!(
        ["copy#7", "a#b#12", "copy", "copy#", "copy#x"].map(job_of),
        [Some(7), Some(12), None, None, None]
    );
}
