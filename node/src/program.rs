//! Other processes of this program: nodes, control centers and commands, as a user would start them.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use serde_json::Value;

use crate::output::CliError;

/// Names to a process that is a part of another one the process that it ends with.
const PARENT: &str = "PLANARIA_PART_OF";

/// A process that serves. It is killed when this is dropped.
pub(crate) struct Program {
    process: Child,
    greeting: Value,
}

/// Where processes are started, with the certificates that they share.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    dir: PathBuf,
}

impl Site {
    /// A directory whose `tls` has certificates.
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    fn command(&self, words: &[&str]) -> Result<Command, CliError> {
        let program =
            std::env::current_exe().map_err(|error| failed("the program is not found", error.to_string()))?;
        let mut command = Command::new(program);
        // What the user's own environment says of a cluster is not meant for these.
        for name in ["PLANARIA_CONTROL", "PLANARIA_JOIN_TOKEN", "PLANARIA_TLS", "PLANARIA_TRANSPORT"] {
            command.env_remove(name);
        }
        command.args(["-o", "json", "--tls"]).arg(self.dir.join("tls")).args(words);
        command.current_dir(&self.dir).stdin(Stdio::null());
        // Whoever interrupts this one in a terminal leaves it to this one what becomes of them.
        command.process_group(0).env(PARENT, std::process::id().to_string());
        Ok(command)
    }

    /// Starts a process that says where it listens when it is ready. What it says otherwise goes to a file of that name.
    pub(crate) fn start(&self, name: &str, words: &[&str]) -> Result<Program, CliError> {
        let log = File::options().create(true).append(true).open(self.dir.join(format!("{name}.log")));
        let log = log.map_err(|error| failed(name, error.to_string()))?;
        let mut command = self.command(words)?;
        command.stdout(Stdio::piped()).stderr(log);
        let mut process = command.spawn().map_err(|error| failed(name, error.to_string()))?;
        let mut line = String::new();
        let read = process.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        let greeting: Value = serde_json::from_str(&line).unwrap_or_default();
        // From here on it is killed when it is not wanted.
        let program = Program { process, greeting };
        match read {
            Some(Ok(_)) if program.said("listening").is_some() => Ok(program),
            _ => {
                let log = std::fs::read_to_string(self.dir.join(format!("{name}.log"))).unwrap_or_default();
                let last = log.lines().last().unwrap_or_default();
                Err(failed(&format!("{name} does not start"), format!("{line}{last}")))
            }
        }
    }

    /// Runs a command to its end; the objects that it printed.
    pub(crate) fn run(&self, words: &[&str]) -> Result<Vec<Value>, CliError> {
        let said = self.command(words)?.output();
        let said = said.map_err(|error| failed(&words.join(" "), error.to_string()))?;
        if !said.status.success() {
            let text = String::from_utf8_lossy(&said.stderr);
            let error: Value =
                serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_default();
            let why = error["error"]["what"].as_str().unwrap_or_else(|| text.trim()).to_owned();
            return Err(failed(&format!("planaria {}", words.join(" ")), why));
        }
        let lines = said.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let parsed: Result<Vec<Value>, _> = lines.map(serde_json::from_slice).collect();
        parsed.map_err(|error| failed(&words.join(" "), error.to_string()))
    }
}

impl Program {
    /// A text that it said when it was ready.
    pub(crate) fn said(&self, name: &str) -> Option<&str> {
        self.greeting[name].as_str()
    }
}

/// Has this process end with the one that started it as a part of itself, however that ends; does nothing in any other.
pub(crate) fn end_with_parent() {
    let Some(parent) = std::env::var_os(PARENT) else { return };
    let asked = set_parent_process_death_signal(Some(Signal::KILL));
    let is_there = getppid().is_some_and(|pid| parent.to_str() == Some(&pid.as_raw_nonzero().to_string()));
    if asked.is_err() || !is_there {
        // It would go on for ever and nobody would know.
        std::process::exit(1);
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn failed(what: &str, why: String) -> CliError {
    CliError::new("process", what.to_owned()).because(why)
}
