use serde_json::Value as Json;

use super::process::Process;
use super::{Answer, Site};

/// A control center: a process with a catalog in a directory of a site. It is killed when it is dropped.
#[derive(Debug)]
pub struct Center<'a> {
    site: &'a Site,
    dir: String,
    /// Where it listens; the same after every restart.
    address: String,
    token: String,
    lost_after: String,
    /// What else its command line has.
    more: Vec<String>,
    process: Option<Process>,
}

impl<'a> Center<'a> {
    /// Starts a control center that takes for lost what was not heard for so long.
    pub fn start(site: &'a Site, dir: &str, lost_after: &str) -> Self {
        Self::start_with(site, dir, lost_after, &[])
    }

    /// The same with more words on its command line, after every restart too.
    pub fn start_with(site: &'a Site, dir: &str, lost_after: &str, more: &[&str]) -> Self {
        let more = more.iter().map(|word| (*word).to_owned()).collect();
        let (address, token) = ("127.0.0.1:0".to_owned(), String::new());
        let (dir, lost_after) = (dir.to_owned(), lost_after.to_owned());
        let mut center = Self { site, dir, address, token, lost_after, more, process: None };
        center.launch();
        center
    }

    fn launch(&mut self) {
        let mut words =
            vec!["-v", "control", &self.dir, "--listen", &self.address, "--lost-after", &self.lost_after];
        words.extend(self.more.iter().map(String::as_str));
        let log = self.site.path(&format!("{}.log", self.dir));
        let said = self.process.insert(Process::launch(self.site.command(&words), &log)).greeting();
        said["listening"].as_str().expect("an address").clone_into(&mut self.address);
        said["join_token"].as_str().expect("a token").clone_into(&mut self.token);
    }

    /// Kills the process.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Kills the process and starts it again over its catalog.
    pub fn restart(&mut self) {
        self.kill();
        self.launch();
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What nodes join with.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The words with which a node joins, under labels of its own.
    pub fn join<'b>(&'b self, labels: &[&'b str]) -> Vec<&'b str> {
        let labels = labels.iter().flat_map(|label| ["--label", label]);
        ["--control", &self.address, "--join-token", &self.token].into_iter().chain(labels).collect()
    }

    /// Runs a command of `planaria cluster`.
    pub fn run(&self, words: &[&str]) -> Answer {
        self.site.run(&[&["cluster"], words, &["--control", &self.address]].concat())
    }

    /// The rows that a command of `planaria cluster` shows.
    pub fn rows(&self, words: &[&str]) -> Vec<Json> {
        self.run(words).json()
    }

    /// What happened, as kinds of events, oldest first.
    pub fn kinds(&self) -> Vec<String> {
        let kind = |event: &Json| event["kind"].as_str().expect("events have kinds").to_owned();
        self.rows(&["history", "--limit", "1000"]).iter().rev().map(kind).collect()
    }
}
