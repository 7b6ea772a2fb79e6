//! What strangers, wrong addresses and wrong directories get: a clear error with its code, and nothing breaks.

use std::net::UdpSocket;

use planaria_tests::cluster::{Node, Random, Site};

#[test]
fn garbage_on_the_port_leaves_the_node_alive() {
    let site = Site::new();
    let mut primary = Node::primary(&site, "primary");
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut random = Random::announced("garbage", 3);
    for _ in 0..5_000 {
        let len = random.below(1_500) as usize;
        let mut datagram: Vec<u8> = (0..len).map(|_| random.number() as u8).collect();
        if random.once_in(2)
            && let Some(first) = datagram.first_mut()
        {
            // The form of a long header, as a first packet has it.
            *first |= 0xc0;
            for (at, byte) in [0, 0, 0, 1].into_iter().enumerate() {
                if let Some(place) = datagram.get_mut(1 + at) {
                    *place = byte;
                }
            }
        }
        // The system may drop what comes too fast; that is as good.
        let _ = socket.send_to(&datagram, primary.address());
    }
    assert!(primary.is_running());
    assert_eq!(primary.status()["state"], "primary");
    primary.run(&["table", "create", "blobs", "--raw"]).json();
    primary.run(&["put", "blobs", "key", "row"]).json();
    assert_eq!(primary.rows("blobs"), 1);
    assert!(!primary.log().contains("panicked"), "{}", primary.log());
}

#[test]
fn a_client_of_another_authority_is_refused() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    let stranger = Site::new();
    // Whoever serves has certificates of an own authority afterwards.
    drop(Node::primary(&stranger, "other"));
    let answer = stranger.run(&["--node", primary.address(), "status"]);
    answer.failed(1, "handshake");
    stranger.run(&["--node", primary.address(), "clone", "create", "stolen"]).failed(1, "handshake");
    assert!(!stranger.path("stolen").exists());
    assert_eq!(primary.status()["state"], "primary");
}

#[test]
fn nobody_at_the_address_is_said_in_time() {
    let site = Site::new();
    // A port that was free a moment ago.
    let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    for words in [&["status"][..], &["digest"], &["clone", "create", "here"]] {
        let words = [&["--node", &free], words].concat();
        let error = site.run(&words);
        assert_eq!(error.code, 1, "{error:?}");
        let code = error.error().unwrap_or_else(|| panic!("{error:?}"))["code"].clone();
        assert!(["timed_out", "connection_lost", "refused"].contains(&code.as_str().unwrap()), "{code}");
    }
    let serve = site.run(&["serve", "copy", "--listen", "127.0.0.1:0", "--replica-of", &free]);
    assert_eq!(serve.code, 1, "{serve:?}");
    assert!(serve.error().is_some(), "{serve:?}");
    assert!(!site.path("copy").exists());
    assert!(!site.path("here").exists());
}

#[test]
fn a_secondary_of_a_foreign_database_is_refused_and_both_stay_as_they_are() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    site.run(&["table", "create", "own", "blobs", "--raw"]).json();
    site.run(&["put", "own", "blobs", "key", "row"]).json();
    let serve = ["serve", "own", "--listen", "127.0.0.1:0", "--replica-of", primary.address()];
    let error = site.run(&serve).failed(1, "foreign_database");
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("new directory")), "{error}");
    assert_eq!(site.run(&["status", "own"]).json()[0]["state"], "primary");
    site.run(&["put", "own", "blobs", "other", "row"]).json();
    assert_eq!(primary.run(&["table", "list"]).json().len(), 0);
}

#[test]
fn directories_in_use_and_of_others_are_left_alone() {
    let site = Site::new();
    let primary = Node::primary(&site, "primary");
    let serve = |dir: &str| site.run(&["serve", dir, "--listen", "127.0.0.1:0"]);
    serve("primary").failed(1, "in_use");
    site.run(&["table", "list", "primary"]).failed(1, "in_use");

    std::fs::create_dir(site.path("letters")).unwrap();
    std::fs::write(site.path("letters/mother.txt"), "dear").unwrap();
    serve("letters").failed(1, "exists");
    let follow = ["serve", "letters", "--listen", "127.0.0.1:0", "--replica-of", primary.address()];
    site.run(&follow).failed(1, "exists");
    primary.run(&["clone", "create", &site.word("letters"), "--on-node"]).failed(1, "exists");
    assert_eq!(std::fs::read_to_string(site.path("letters/mother.txt")).unwrap(), "dear");
    assert_eq!(std::fs::read_dir(site.path("letters")).unwrap().count(), 1);

    std::fs::write(site.path("file"), "a file").unwrap();
    let answer = serve("file");
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.error().is_some(), "{answer:?}");
    site.run(&["serve", "busy", "--listen", primary.address()]).failed(1, "io");
}
