//! Figures and readiness over plain HTTP, of nodes as they come and go.

use std::io::{Read, Write};
use std::net::TcpStream;

use planaria_tests::cluster::{Node, Site, wait_for};

/// The status and the body of an answer.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The value of a figure, by the beginning of its line.
fn figure(text: &str, begins: &str) -> Option<f64> {
    let line = text.lines().find(|line| line.starts_with(begins))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[test]
fn figures_tell_who_leads_who_follows_and_which_way_a_refresh_took() {
    let site = Site::new();
    let mut primary = Node::primary_to_be(&site, "primary");
    primary.start_with(&["--metrics", "127.0.0.1:0"]);
    primary.run(&["table", "create", "blobs", "--raw"]).json();
    primary.run(&["put", "blobs", "a", "row"]).json();
    let leading = primary.metrics().to_owned();
    assert_eq!(get(&leading, "/livez"), (200, "ok\n".into()));
    assert_eq!(get(&leading, "/readyz"), (200, "ok\n".into()));
    assert_eq!(get(&leading, "/nothing").0, 404);
    let (_, text) = get(&leading, "/metrics");
    assert_eq!((figure(&text, "planaria_leads "), figure(&text, "planaria_ready ")), (Some(1.0), Some(1.0)));
    assert!(text.contains("# HELP planaria_log_bytes") && text.contains("# TYPE planaria_log_bytes gauge"));

    let mut secondary = Node::secondary_to_be(&site, "secondary", &primary);
    secondary.start_with(&["--metrics", "127.0.0.1:0"]);
    secondary.wait_until_equal(&primary);
    let following = secondary.metrics().to_owned();
    assert_eq!(get(&following, "/readyz").0, 200);
    let (_, text) = get(&following, "/metrics");
    assert_eq!(figure(&text, "planaria_leads "), Some(0.0));
    assert_eq!(
        figure(&text, "planaria_refreshes_total{way=\"tail\",reason=\"log_holds_all\"}"),
        Some(1.0),
        "{text}"
    );
    let online = "planaria_replica_state{replica=\"secondary\"";
    let state = |state: &str| {
        let (_, text) = get(&leading, "/metrics");
        let is_it = |line: &&str| line.starts_with(online) && line.contains(&format!("state=\"{state}\""));
        text.lines().find(is_it).is_some_and(|line| line.ends_with(" 1"))
    };
    assert!(state("online"));
    let (code, status) = get(&following, "/status");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    assert_eq!((code, &status["state"], &status["ready"]), (200, &"online".into(), &true.into()));

    // Whoever has lost its primary answers, and is not ready.
    primary.kill();
    wait_for(
        "the secondary to be not ready",
        || (get(&following, "/readyz").0 == 503).then_some(()),
        || secondary.log(),
    );
    assert_eq!(get(&following, "/livez").0, 200);
    primary.start();
    wait_for(
        "the secondary to be ready",
        || (get(&following, "/readyz").0 == 200).then_some(()),
        || secondary.log(),
    );
    secondary.kill();
    let leading = primary.metrics().to_owned();
    wait_for(
        "the primary to tell that it is away",
        || {
            let (_, text) = get(&leading, "/metrics");
            text.lines()
                .any(|line| line.starts_with(online) && line.contains("\"offline\"") && line.ends_with(" 1"))
                .then_some(())
        },
        || get(&leading, "/metrics").1,
    );
}
