use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{Answer, planaria};

/// A directory of a test with all that belongs to it: databases, files, and certificates that its nodes share.
#[derive(Debug)]
pub struct Site(TempDir);

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

impl Site {
    /// A new one, which goes when it is dropped.
    pub fn new() -> Self {
        Self(tempfile::Builder::new().prefix("planaria-cluster-").tempdir().expect("a temporary directory"))
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A path in it, for a command line.
    pub fn word(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A command of the program, with JSON for its output, that finds the site's certificates.
    pub fn command(&self, words: &[&str]) -> Command {
        self.prepare(Command::new(planaria()), words)
    }

    /// The same for the program where it is run in another way.
    pub(super) fn prepare(&self, mut command: Command, words: &[&str]) -> Command {
        command.args(["-o", "json"]).args(words).current_dir(self.dir());
        command.env("XDG_DATA_HOME", self.path("home"));
        for variable in
            ["PLANARIA_TLS", "PLANARIA_LOG", "PLANARIA_CONTROL", "PLANARIA_JOIN_TOKEN", "PLANARIA_TRANSPORT"]
        {
            command.env_remove(variable);
        }
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, words: &[&str]) -> Answer {
        self.command(words).stdin(Stdio::null()).output().expect("the program can be run").into()
    }

    /// Starts a command; its answer is collected with `wait_with_output`.
    pub fn start(&self, words: &[&str]) -> Child {
        let mut command = self.command(words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("the program can be run")
    }
}
