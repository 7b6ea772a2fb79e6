use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;

/// A process that serves something until it is killed, which it is when it is dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it without waiting for anything. What it logs goes behind what is in `log`.
    pub(super) fn launch(mut command: Command, log: &Path) -> Self {
        let file = File::options().append(true).create(true).open(log).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        Self { child: command.spawn().expect("the program can be run"), log: log.to_path_buf() }
    }

    /// Waits until it says where it listens: its first line.
    pub(super) fn greeting(&mut self) -> Json {
        let out = self.child.stdout.take().expect("stdout is a pipe");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).expect("stdout can be read");
        serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("it does not start: {line}\n{}", std::fs::read_to_string(&self.log).unwrap_or_default());
        })
    }

    /// Sends a signal, by its name.
    pub(super) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the signal {name} could not be sent");
    }

    /// Whether it runs.
    pub(super) fn is_running(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|ended| ended.is_none())
    }
}

impl Drop for Process {
    /// Kills it, as the system does that runs out of memory: it has no chance to do anything more.
    fn drop(&mut self) {
        self.child.kill().expect("an own process can be killed");
        self.child.wait().expect("an own process can be waited for");
    }
}
