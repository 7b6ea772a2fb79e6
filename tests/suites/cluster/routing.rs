//! Clients that name a cluster instead of a node: where they are sent, and that they follow the lead.

use std::sync::atomic::{AtomicUsize, Ordering};

use planaria::Database;
use planaria::replica::{Forward, ReplicaOf, State};
use planaria_tests::cluster::{Answer, Center, PATIENCE, Site, wait_for};
use serde_json::Value as Json;

use crate::control::{LOST_AFTER, start_three, wait_until_promotable};

/// Runs a command as a client of the cluster.
fn ask(site: &Site, center: &Center<'_>, words: &[&str]) -> Answer {
    site.run(&[&["--cluster", center.address()], words].concat())
}

/// The nodes that serve, in the order in which they are tried.
fn served_by(center: &Center<'_>, words: &[&str]) -> Vec<String> {
    let serves = |target: &Json| target["serves"] == true;
    let name = |target: Json| target["node"].as_str().expect("nodes have names").to_owned();
    center.rows(words).into_iter().filter(serves).map(name).collect()
}

/// Puts a row, and again under the same token while nobody leads.
fn put_in_the_end(site: &Site, center: &Center<'_>, key: &str, token: &str) {
    let said = |answer: Answer| {
        if answer.code == 0 {
            return Some(());
        }
        let code = answer.error().map(|error| error["code"].clone()).unwrap_or_default();
        let of_the_change = ["no_primary", "unknown", "connection_lost", "timed_out", "cancelled"];
        assert!(of_the_change.iter().any(|known| code == *known), "{answer:?}");
        None
    };
    wait_for(
        "a row to be put",
        || said(ask(site, center, &["put", "blobs", key, "row", "--token", token])),
        || format!("{:?}\n{:?}", center.rows(&["show"]), center.rows(&["history"])),
    );
}

#[test]
fn clients_of_a_cluster_follow_the_lead_and_lose_nothing() {
    let site = Site::new();
    let center = Center::start(&site, "catalog", LOST_AFTER);
    let [mut a, b, c] = start_three(&site, &center);
    for node in ["b", "c"] {
        wait_until_promotable(&center, node);
    }
    center.rows(&["mode", "a", "automatic"]);
    assert_eq!(served_by(&center, &["route"]), ["a"]);

    let keys: Vec<String> = (0..16).map(|number| format!("key {number}")).collect();
    let put = AtomicUsize::new(0);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for (number, key) in keys.iter().enumerate() {
                put_in_the_end(&site, &center, key, &format!("{:x}", number + 1));
                put.fetch_add(1, Ordering::Relaxed);
            }
        });
        wait_for(
            "the first rows",
            || (put.load(Ordering::Relaxed) >= keys.len() / 3).then_some(()),
            || format!("{put:?}"),
        );
        a.kill();
    });
    let leader = served_by(&center, &["route"]);
    assert!(leader == ["b"] || leader == ["c"], "{leader:?}");
    let (leader, other) = if leader == ["b"] { (&b, &c) } else { (&c, &b) };
    for key in &keys {
        ask(&site, &center, &["get", "blobs", key]).json();
    }
    assert_eq!(leader.rows("blobs"), keys.len() as u64);
    other.wait_until_equal(leader);
    // What was made once is not made again, whoever led then.
    let again = ask(&site, &center, &["put", "blobs", "key 0", "row", "--token", "1"]).json().remove(0);
    assert_eq!(again["again"], true, "{again}");
}

#[test]
fn bounded_reads_go_to_standbys_and_on_without_a_primary() {
    let site = Site::new();
    let center = Center::start(&site, "catalog", LOST_AFTER);
    let [mut a, b, c] = start_three(&site, &center);
    for node in ["b", "c"] {
        wait_until_promotable(&center, node);
    }
    ask(&site, &center, &["put", "blobs", "key", "row"]).json();
    let bounded = &["route", "a", "--max-staleness", "1h"];
    let (first, second) = (served_by(&center, bounded), served_by(&center, bounded));
    assert_eq!((first.len(), second.len()), (3, 3));
    assert_eq!((first.last(), second.last()), (Some(&"a".to_owned()), Some(&"a".to_owned())));
    assert_ne!(first.first(), second.first(), "they take turns");
    for copy in [&b, &c] {
        copy.wait_until_equal(&a);
    }

    a.kill();
    ask(&site, &center, &["get", "blobs", "key", "--max-staleness", "1h"]).json();
    let rows = ask(&site, &center, &["scan", "blobs", "--max-staleness", "1h"]).json();
    assert_eq!(rows.len(), 1);
    ask(&site, &center, &["get", "blobs", "none", "--max-staleness", "1h"]).failed(1, "no_row");
    wait_for(
        "the primary to be lost",
        || served_by(&center, &["route"]).is_empty().then_some(()),
        || format!("{:?}", center.rows(&["route"])),
    );
    // In mode operator nobody else leads: what needs the primary says so, and why.
    let error = ask(&site, &center, &["put", "blobs", "key", "row"]).failed(1, "no_primary");
    assert!(error["what"].as_str().is_some_and(|what| what.contains("was heard to lead")), "{error}");
    let unknown = format!("{}/fish", center.address());
    site.run(&["--cluster", &unknown, "table", "list"]).failed(1, "unknown_database");
}

#[test]
fn an_embedded_replica_finds_the_next_primary_by_itself() {
    let site = Site::new();
    let center = Center::start(&site, "catalog", LOST_AFTER);
    let [a, mut b, c] = start_three(&site, &center);
    for node in ["b", "c"] {
        wait_until_promotable(&center, node);
    }
    let certificates = site.path("home").join("planaria").join("tls");
    let open = || {
        let replica = Database::replica_of(a.address()).certificates(&certificates);
        replica.cluster(center.address()).open(site.path("copy")).unwrap()
    };
    // What is dropped has let go of the directory.
    drop(open());
    let replica = open();
    let blobs = replica.table("blobs").unwrap();
    blobs.put("before", "row").unwrap();
    // The lead moves in good order: who led goes on as a secondary, is heard, and takes no writes.
    b.run(&["promote", "--yes"]).json();
    let how = Forward { timeout: PATIENCE, ..Forward::default() };
    let mut batch = planaria::Batch::new();
    batch.put(blobs.id().unwrap(), "moved", "row");
    replica.write_with(&batch, how).unwrap();
    assert_eq!(replica.status().primary.to_string(), b.address());
    for node in ["a", "c"] {
        wait_until_promotable(&center, node);
    }
    center.rows(&["mode", "a", "automatic"]);
    b.kill();
    // The write waits for whoever leads next.
    let mut batch = planaria::Batch::new();
    batch.put(blobs.id().unwrap(), "after", "row");
    let position = replica.write_with(&batch, how).unwrap();
    replica.wait_for(position, PATIENCE).unwrap();
    wait_for(
        "the replica to follow the one that leads now",
        || (replica.status().state == State::Online).then_some(()),
        || format!("{:?}", replica.status()),
    );
    let primary = replica.status().primary.to_string();
    assert!([a.address(), c.address()].contains(&&*primary), "{primary}");
    assert_eq!(replica.snapshot().get(blobs.id().unwrap(), b"before").unwrap().as_deref(), Some(&b"row"[..]));
}
