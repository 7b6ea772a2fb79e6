use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::Value as Json;

use super::{Answer, Site, wait_for};

/// A node: a process that serves a database of a site. It is killed when it is dropped.
#[derive(Debug)]
pub struct Node<'a> {
    site: &'a Site,
    dir: String,
    replica_of: Option<String>,
    level: Option<String>,
    /// What else its command line has.
    more: Vec<String>,
    /// Where it listens; the same after every restart.
    address: String,
    process: Option<Child>,
}

impl<'a> Node<'a> {
    /// Starts a primary in the directory of that name.
    pub fn primary(site: &'a Site, dir: &str) -> Self {
        Self::served(site, dir, None)
    }

    /// Starts a primary whose commits are acknowledged at a level unless they say otherwise.
    pub fn primary_at(site: &'a Site, dir: &str, level: &str) -> Self {
        let mut node = Self::stopped(site, dir, None);
        node.level = Some(level.to_owned());
        node.start();
        node
    }

    /// A primary that is not running yet.
    pub fn primary_to_be(site: &'a Site, dir: &str) -> Self {
        Self::stopped(site, dir, None)
    }

    /// Starts a node that is not running with more words on its command line, after every restart too.
    pub fn start_with(&mut self, words: &[&str]) {
        self.more = words.iter().map(|word| (*word).to_owned()).collect();
        self.start();
    }

    /// Has a node that is not running follow another one when it starts.
    pub fn will_follow(&mut self, primary: &Node<'_>) {
        self.replica_of = Some(primary.address.clone());
    }

    /// Starts a secondary in the directory of that name.
    pub fn secondary(site: &'a Site, dir: &str, primary: &Node<'_>) -> Self {
        Self::served(site, dir, Some(primary.address.clone()))
    }

    fn served(site: &'a Site, dir: &str, replica_of: Option<String>) -> Self {
        let mut node = Self::stopped(site, dir, replica_of);
        node.start();
        node
    }

    /// Starts a secondary whose commits are acknowledged at a level, once it leads, unless they say otherwise.
    pub fn secondary_at(site: &'a Site, dir: &str, primary: &Node<'_>, level: &str) -> Self {
        let mut node = Self::stopped(site, dir, Some(primary.address.clone()));
        node.level = Some(level.to_owned());
        node.start();
        node
    }

    /// A secondary that is not running yet.
    pub fn secondary_to_be(site: &'a Site, dir: &str, primary: &Node<'_>) -> Self {
        Self::stopped(site, dir, Some(primary.address.clone()))
    }

    fn stopped(site: &'a Site, dir: &str, replica_of: Option<String>) -> Self {
        let address = "127.0.0.1:0".to_owned();
        Self { site, dir: dir.to_owned(), replica_of, level: None, more: Vec::new(), address, process: None }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it has logged since it was made, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.site.path(&format!("{}.log", self.dir.replace('/', "-")))
    }

    /// Starts the process without waiting for anything.
    pub fn launch(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.dir);
        let mut words = vec!["-v", "serve", &self.dir, "--listen", &self.address];
        if let Some(primary) = &self.replica_of {
            words.extend(["--replica-of", primary]);
        }
        if let Some(level) = &self.level {
            words.extend(["--level", level]);
        }
        words.extend(self.more.iter().map(String::as_str));
        let mut command = self.site.command(&words);
        let log = File::options().append(true).create(true).open(self.log_path()).expect("a log");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        self.process = Some(command.spawn().expect("the program can be run"));
    }

    /// Starts the process and waits until it listens.
    pub fn start(&mut self) {
        self.launch();
        let process = self.process.as_mut().expect("it was launched");
        let out = process.stdout.take().expect("stdout is a pipe");
        let mut line = String::new();
        BufReader::new(out).read_line(&mut line).expect("stdout can be read");
        let said: Json = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("{} does not start: {line}\n{}", self.dir, self.log());
        });
        said["listening"].as_str().expect("an address").clone_into(&mut self.address);
    }

    /// Kills the process, as the system does that runs out of memory: it has no chance to do anything more.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("an own process can be killed");
            process.wait().expect("an own process can be waited for");
        }
    }

    /// Kills the process and starts it again.
    pub fn restart(&mut self) {
        self.kill();
        self.start();
    }

    /// Stops the process where it is, as a machine does that is suspended: it does not know of it.
    pub fn suspend(&self) {
        self.signal("STOP");
    }

    /// Has a process that was stopped go on.
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let process = self.process.as_ref().expect("it runs");
        let sent = std::process::Command::new("kill").args(["-s", name, &process.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "the signal {name} could not be sent");
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        let running = |process: &mut Child| process.try_wait().is_ok_and(|ended| ended.is_none());
        self.process.as_mut().is_some_and(running)
    }

    /// Runs a command on the node.
    pub fn run(&self, words: &[&str]) -> Answer {
        self.site.run(&[&["--node", &self.address], words].concat())
    }

    /// Starts a command on the node.
    pub fn begin(&self, words: &[&str]) -> Child {
        self.site.start(&[&["--node", &self.address], words].concat())
    }

    /// The digests of all tables, as one text that is equal for equal contents.
    pub fn digests(&self) -> Option<String> {
        let answer = self.run(&["digest"]);
        (answer.code == 0).then_some(answer.stdout)
    }

    /// The rows of a table; none if there is no such table.
    pub fn rows(&self, table: &str) -> u64 {
        let answer = self.run(&["digest", table]);
        if answer.error().is_some_and(|error| error["code"] == "unknown_table") {
            return 0;
        }
        answer.digest().0
    }

    /// What `status` says of the node.
    pub fn status(&self) -> Json {
        self.run(&["status"]).json().remove(0)
    }

    /// Waits until this secondary is online with the contents that its primary has now, and checks both.
    pub fn wait_until_equal(&self, primary: &Node<'_>) {
        wait_for(
            &format!("{} to be equal to {}", self.dir, primary.dir),
            || {
                let online = self.run(&["status"]).stdout.contains("\"state\":\"online\"");
                let (own, other) = (self.digests()?, primary.digests()?);
                (online && own == other).then_some(())
            },
            || format!("{:?}\n{:?}\n{}", self.run(&["status"]), primary.digests(), self.log()),
        );
    }
}

impl Drop for Node<'_> {
    fn drop(&mut self) {
        self.kill();
    }
}
