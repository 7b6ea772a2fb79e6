//! Demos that somebody ends before they are over.

use std::path::Path;
use std::process::{Command, Stdio};

use planaria_tests::cluster::{Site, wait_for};

/// How many processes work in a directory that lies below another one.
fn processes_below(dir: &Path) -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cwd"));
    entries.filter_map(|cwd| std::fs::read_link(cwd).ok()).filter(|cwd| cwd.starts_with(dir)).count()
}

#[test]
fn a_demo_that_is_ended_by_a_signal_leaves_no_process_and_no_file_and_one_that_is_killed_no_process() {
    for signal in ["INT", "TERM", "KILL"] {
        let site = Site::new();
        let temporary = site.path("temporary");
        std::fs::create_dir(&temporary).unwrap();
        let mut command = site.command(&["demo", "datacenters"]);
        command.env("TMPDIR", &temporary).stdout(Stdio::null()).stderr(Stdio::null());
        let mut demo = command.spawn().unwrap();
        let grown = || (processes_below(&temporary) > 3).then_some(());
        wait_for("some nodes of the demo", grown, || format!("{:?}", demo.id()));
        let killed = Command::new("kill").args([&format!("-{signal}"), &demo.id().to_string()]).status();
        assert!(killed.unwrap().success());
        assert!(!demo.wait().unwrap().success(), "{signal}");
        wait_for("their end", || (processes_below(&temporary) == 0).then_some(()), || signal.to_owned());
        let left = std::fs::read_dir(&temporary).unwrap().count();
        assert!(signal == "KILL" || left == 0, "{signal}: {left}");
    }
}
