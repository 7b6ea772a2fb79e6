use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value as Json;

use super::process::Process;
use super::{Answer, Host, Link, Site, wait_for};

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
    /// Where it tells its figures, if it does.
    metrics: Option<String>,
    process: Option<Process>,
    /// The host that it runs on, if not this one.
    host: Option<Host>,
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

    /// Starts a secondary that reaches its primary over a link.
    pub fn secondary_over(site: &'a Site, dir: &str, link: &Link) -> Self {
        Self::served(site, dir, Some(link.address()))
    }

    /// Starts a primary on a host of its own, at a level.
    pub fn primary_on(site: &'a Site, dir: &str, host: Host, level: &str) -> Self {
        let node = Self::stopped(site, dir, None);
        node.begun_on(host, level)
    }

    /// Starts a secondary on a host of its own; the level holds once it leads.
    pub fn secondary_on(site: &'a Site, dir: &str, host: Host, primary: &Node<'_>, level: &str) -> Self {
        let node = Self::stopped(site, dir, Some(primary.address.clone()));
        node.begun_on(host, level)
    }

    fn begun_on(mut self, host: Host, level: &str) -> Self {
        self.address = format!("{}:4747", host.ip);
        self.host = Some(host);
        self.level = Some(level.to_owned());
        self.start();
        self
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
        Self {
            site,
            dir: dir.to_owned(),
            replica_of,
            level: None,
            more: Vec::new(),
            address,
            metrics: None,
            process: None,
            host: None,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it tells its figures.
    pub fn metrics(&self) -> &str {
        self.metrics.as_deref().expect("it was started with --metrics")
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
        self.process = Some(Process::launch(self.command(&words), &self.log_path()));
    }

    /// Waits until a process that was launched listens.
    pub fn await_greeting(&mut self) {
        let said = self.process.as_mut().expect("it was launched").greeting();
        said["listening"].as_str().expect("an address").clone_into(&mut self.address);
        self.metrics = said["metrics"].as_str().map(str::to_owned);
    }

    /// Starts the process and waits until it listens.
    pub fn start(&mut self) {
        self.launch();
        self.await_greeting();
    }

    /// Kills the process, as the system does that runs out of memory: it has no chance to do anything more.
    pub fn kill(&mut self) {
        self.process = None;
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
        self.process.as_ref().expect("it runs").signal(name);
    }

    /// Whether the process runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Runs a command on the node.
    pub fn run(&self, words: &[&str]) -> Answer {
        let mut command = self.command(&[&["--node", &self.address], words].concat());
        command.stdin(Stdio::null()).output().expect("the program can be run").into()
    }

    fn command(&self, words: &[&str]) -> Command {
        match &self.host {
            None => self.site.command(words),
            Some(host) => self.site.prepare(host.program(), words),
        }
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
