//! `planaria demo datacenters`: two datacenters under a control center, every part a process of its own on loopback. Each promise is
//! looked at from outside; the first that is not kept ends the story.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use planaria_net::quic::TlsStore;
use serde_json::Value;

use super::data;
use super::story::{self, Story};
use crate::output::{Cell, CliError};
use crate::program::{Program, Site};
use crate::stopwatch::Stopwatch;

/// How long a promise may take to come true.
const WITHIN: Duration = Duration::from_mins(2);
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A node that was not heard for so long is lost, and a copy is made anew.
const LOST_AFTER: &str = "4s";
const SEED_AFTER: &str = "6s";
/// The database, and with it the primary's directory.
const DATABASE: &str = "birds";
const TABLE: &str = "weather";
/// The nodes: name, datacenter, and what they are started as.
const NORTH: &str = "datacenter=north";
const SOUTH: &str = "datacenter=south";
const COPIES: [(&str, &str, &str); 4] = [
    ("standby-south", SOUTH, "standby"),
    ("backup-north", NORTH, "backup"),
    ("backup-south-1", SOUTH, "backup"),
    ("backup-south-2", SOUTH, "backup"),
];
const SOUTHERN_BACKUPS: [&str; 2] = ["backup-south-1", "backup-south-2"];
const BACKUPS: [&str; 3] = ["backup-north", "backup-south-1", "backup-south-2"];
const SPARES: [&str; 2] = ["spare-standby", "spare-backup"];
/// Clones that are asked for at once, and how fast each may be.
const CLONES: usize = 3;
const CLONE_RATE: &str = "1MiB";

/// Tells the story.
pub(super) fn tell(story: &mut Story, dir: &Path) -> Result<(), CliError> {
    TlsStore::named(dir.join("tls")).create()?;
    let whole = Stopwatch::start();
    let mut cluster = Cluster::start(story, dir)?;
    cluster.load(story, dir)?;
    cluster.proximity(story)?;
    cluster.freshness(story)?;
    cluster.fall_back(story)?;
    cluster.queue(story)?;
    cluster.failover(story)?;
    cluster.compare(story)?;
    story.fact("seconds", Cell::Duration(whole.elapsed()));
    story.fact("all_as_promised", Cell::Bool(true));
    story.end("all is as promised")
}

struct Cluster {
    site: Site,
    nodes: BTreeMap<String, Program>,
    /// Where nodes listen, those too that do not run: each comes back where it was.
    addresses: BTreeMap<String, String>,
    _center: Program,
    control: String,
    token: String,
    /// Rows that were acknowledged.
    rows: u64,
    /// The node that leads.
    primary: String,
    interrupted: Arc<AtomicBool>,
}

impl Cluster {
    fn start(story: &mut Story, dir: &Path) -> Result<Self, CliError> {
        story.step("a control center, a primary in the north, a standby in the south, three backups")?;
        let site = Site::new(dir);
        let times = ["--lost-after", LOST_AFTER, "--seed-after", SEED_AFTER];
        let center = [&["control", "center", "--listen", "127.0.0.1:0"], &times[..]].concat();
        let center = site.start("center", &center)?;
        let control = center.said("listening").unwrap_or_default().to_owned();
        let token = center.said("join_token").unwrap_or_default().to_owned();
        let mut cluster = Self {
            site,
            nodes: BTreeMap::new(),
            addresses: BTreeMap::new(),
            _center: center,
            control,
            token,
            rows: 0,
            primary: DATABASE.to_owned(),
            interrupted: story.interrupted(),
        };
        cluster.serve(DATABASE, NORTH, &["--level", "quorum"])?;
        for (name, datacenter, role) in COPIES {
            cluster.follow(name, datacenter, role)?;
        }
        // Where clones are to be: it hosts something else.
        cluster.serve("lab", SOUTH, &[])?;
        cluster.until("all copies are online", |cluster| {
            let there = cluster.cluster(&["instances"])?;
            let online = |row: &&Value| row["state"] == "online" && row["heard"] == true;
            Ok(there.iter().filter(online).count() >= COPIES.len())
        })?;
        for row in cluster.cluster(&["nodes"])? {
            story.say(&format!("{:<15} {}", word(&row, "name"), word(&row, "labels")));
        }
        Ok(cluster)
    }

    fn serve(&mut self, name: &str, datacenter: &str, words: &[&str]) -> Result<(), CliError> {
        let listen = self.addresses.get(name).map_or("127.0.0.1:0", String::as_str);
        let common = ["serve", name, "--listen", listen, "--label", "region=eu", "--label", datacenter];
        let joins = ["--control", &self.control, "--join-token", &self.token];
        let program = self.site.start(name, &[&common[..], &joins, words].concat())?;
        self.addresses.insert(name.to_owned(), program.said("listening").unwrap_or_default().to_owned());
        self.nodes.insert(name.to_owned(), program);
        Ok(())
    }

    fn follow(&mut self, name: &str, datacenter: &str, role: &str) -> Result<(), CliError> {
        let primary = self.address(&self.primary.clone())?;
        self.serve(name, datacenter, &["--role", role, "--replica-of", &primary])
    }

    fn address(&self, node: &str) -> Result<String, CliError> {
        let address = self.nodes.get(node).and_then(|node| node.said("listening"));
        address.map(str::to_owned).ok_or_else(|| broken(&format!("{node} runs"), ""))
    }

    /// A command of a client that knows the control center alone.
    fn as_client(&self, words: &[&str]) -> Result<Vec<Value>, CliError> {
        let cluster = format!("{}/{DATABASE}", self.control);
        self.site.run(&[&["--cluster", &cluster], words].concat())
    }

    /// A command of `planaria cluster`.
    fn cluster(&self, words: &[&str]) -> Result<Vec<Value>, CliError> {
        self.site.run(&[&["cluster"], words, &["--control", &self.control]].concat())
    }

    /// A command on a node.
    fn on(&self, node: &str, words: &[&str]) -> Result<Vec<Value>, CliError> {
        let address = self.address(node)?;
        self.site.run(&[words, &["--node", &address]].concat())
    }

    /// Waits until a promise is kept. What cannot be asked yet is asked again.
    fn until(
        &self,
        promise: &str,
        is_kept: impl Fn(&Self) -> Result<bool, CliError>,
    ) -> Result<Duration, CliError> {
        let stopwatch = Stopwatch::start();
        let mut last = String::new();
        while stopwatch.elapsed() < WITHIN {
            story::check(&self.interrupted)?;
            match is_kept(self) {
                Ok(true) => return Ok(stopwatch.elapsed()),
                Ok(false) => last = "it is not so".into(),
                Err(error) => last = error.to_string(),
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        Err(broken(promise, &last))
    }

    fn load(&mut self, story: &mut Story, dir: &Path) -> Result<(), CliError> {
        story.step("real tables are loaded, each commit on a majority of the copies")?;
        let stopwatch = Stopwatch::start();
        let session =
            crate::session::RemoteSession::connect(&self.address(DATABASE)?, Some(&dir.join("tls")))?;
        for table in data::tables(dir, None)? {
            let rows = data::load(&session, &table)?;
            if table.name == TABLE {
                self.rows = rows;
            }
        }
        story.say(&format!("weather    {}", story::rate(self.rows, stopwatch.elapsed())));
        self.until("every backup has all rows", |cluster| {
            let counts = BACKUPS.iter().map(|name| cluster.count(name));
            Ok(counts.collect::<Result<Vec<_>, _>>()?.iter().all(|rows| *rows == self.rows))
        })?;
        story.fact("rows", Cell::Count(self.rows));
        Ok(())
    }

    fn count(&self, node: &str) -> Result<u64, CliError> {
        let digest = self.on(node, &["digest", TABLE])?;
        digest.first().and_then(|row| row["rows"].as_u64()).ok_or_else(|| broken("rows are counted", ""))
    }

    /// Where a clone to the lab would come from, and what was found of each copy.
    fn choose(&self, period: &str) -> Result<(String, Vec<Value>), CliError> {
        let found =
            self.cluster(&["choose-source", "--to", "lab", "--database", DATABASE, "--period", period])?;
        let chosen = found.iter().find(|row| row["chosen"] == true).map(|row| word(row, "node"));
        Ok((chosen.unwrap_or_default(), found))
    }

    fn show(story: &Story, found: &[Value]) {
        for row in found {
            let mark = if row["chosen"] == true { "→" } else { " " };
            story.say(&format!("{mark} {:<15} {}", word(row, "node"), word(row, "reason")));
        }
    }

    fn proximity(&self, story: &mut Story) -> Result<(), CliError> {
        story.step(
            "the proximity rule: a clone to the south comes from the south, if what is there is fresh enough",
        )?;
        self.until("a backup of the south is chosen", |cluster| {
            Ok(SOUTHERN_BACKUPS.contains(&cluster.choose("1h")?.0.as_str()))
        })?;
        let (chosen, found) = self.choose("1h")?;
        Self::show(story, &found);
        if !SOUTHERN_BACKUPS.contains(&chosen.as_str()) {
            return Err(broken("a backup of the south is chosen", &chosen));
        }
        story.fact("nearest", chosen.into());
        Ok(())
    }

    fn freshness(&mut self, story: &mut Story) -> Result<(), CliError> {
        story.step("the freshness rule: when the backups of the south fall behind, the north gives it")?;
        for name in SOUTHERN_BACKUPS {
            self.on(DATABASE, &["replica", "pause", name])?;
        }
        self.until("the backup of the north is chosen, as the others are too old", |cluster| {
            let (chosen, found) = cluster.choose("2s")?;
            let too_old = found.iter().filter(|row| row["code"] == "too_old").count();
            Ok(chosen == "backup-north" && too_old == SOUTHERN_BACKUPS.len())
        })?;
        Self::show(story, &self.choose("2s")?.1);
        for name in SOUTHERN_BACKUPS {
            self.on(DATABASE, &["replica", "resume", name])?;
        }
        let took = self.until("the backups of the south are fresh again", |cluster| {
            Ok(SOUTHERN_BACKUPS.contains(&cluster.choose("2s")?.0.as_str()))
        })?;
        story.say(&format!("resumed, they are fresh again after {}", story::time(took)));
        story.fact("freshest", "backup-north".into());
        Ok(())
    }

    fn fall_back(&mut self, story: &mut Story) -> Result<(), CliError> {
        story.step("the check that fails: all three backups are killed, the standby gives the clone and goes on serving")?;
        for name in BACKUPS {
            self.nodes.remove(name);
        }
        self.until("the standby is chosen", |cluster| Ok(cluster.choose("1h")?.0 == "standby-south"))?;
        Self::show(story, &self.choose("1h")?.1);
        let clone = self.ask_for_clone("from-the-standby", "1GiB")?;
        let made = self.until_clone(clone, "complete")?;
        if word(&made, "source") != "standby-south" {
            return Err(broken("the standby gave the clone", &made.to_string()));
        }
        self.expect_rows("from-the-standby")?;
        let kept = self.count("standby-south")?;
        if kept != self.rows {
            return Err(broken("the standby went on serving", &format!("{kept} rows")));
        }
        story.say("the clone is complete, and equal");
        for (name, datacenter, role) in COPIES.into_iter().filter(|(name, ..)| BACKUPS.contains(name)) {
            self.follow(name, datacenter, role)?;
        }
        self.until(
            "the backups are back",
            |cluster| Ok(BACKUPS.contains(&cluster.choose("1h")?.0.as_str())),
        )?;
        story.say("the backups are back, and are the sources again");
        Ok(())
    }

    /// Asks for a clone to the lab; its number.
    fn ask_for_clone(&self, name: &str, rate: &str) -> Result<u64, CliError> {
        let words = ["clone", "create", "--to", "lab", "--database", DATABASE, "--period", "1h"];
        let asked = self.cluster(&[&words[..], &["--name", name, "--rate", rate]].concat())?;
        let number = asked.first().and_then(|row| row["clone"].as_u64());
        number.ok_or_else(|| broken("a clone is queued", ""))
    }

    fn clone_of(&self, number: u64) -> Result<Value, CliError> {
        let shown = self.cluster(&["clone", "show", &number.to_string()])?;
        shown.into_iter().next().ok_or_else(|| broken("a clone is shown", ""))
    }

    fn until_clone(&self, number: u64, state: &str) -> Result<Value, CliError> {
        self.until(&format!("clone {number} is {state}"), |cluster| {
            Ok(word(&cluster.clone_of(number)?, "state") == state)
        })?;
        self.clone_of(number)
    }

    /// Whether a clone that lies on this disk has every row.
    fn expect_rows(&self, clone: &str) -> Result<(), CliError> {
        let digest = self.site.run(&["digest", clone, TABLE])?;
        let rows = digest.first().and_then(|row| row["rows"].as_u64());
        if rows == Some(self.rows) {
            return Ok(());
        }
        Err(broken(&format!("{clone} has every row"), &format!("{rows:?} of {}", self.rows)))
    }

    fn queue(&self, story: &mut Story) -> Result<(), CliError> {
        story.step("the limit and its queue: three clones are asked for, and the lab takes one at a time")?;
        self.cluster(&["limits", "set", "node-in:lab", "--clones", "1"])?;
        let mut numbers = Vec::new();
        for clone in 0..CLONES {
            numbers.push(self.ask_for_clone(&format!("queued-{clone}"), CLONE_RATE)?);
        }
        let states = |cluster: &Self| -> Result<Vec<Value>, CliError> {
            numbers.iter().map(|number| cluster.clone_of(*number)).collect()
        };
        let with = |rows: &[Value], state: &str| rows.iter().filter(|row| row["state"] == state).count();
        self.until("one of them runs, and the others wait", |cluster| {
            let rows = states(cluster)?;
            Ok(with(&rows, "running") == 1 && with(&rows, "queued") + with(&rows, "complete") == CLONES - 1)
        })?;
        for row in states(self)? {
            let (name, state, why) = (word(&row, "name"), word(&row, "state"), word(&row, "reason"));
            story.say(&format!("{name:<15} {state:<9} {why}"));
        }
        let mut most = 0;
        self.until("all of them are complete", |cluster| {
            let rows = states(cluster)?;
            if with(&rows, "running") > 1 {
                return Err(broken("one at a time", ""));
            }
            Ok(with(&rows, "complete") == CLONES)
        })?;
        for clone in 0..CLONES {
            self.expect_rows(&format!("queued-{clone}"))?;
            most += 1;
        }
        story.say(&format!("{most} clones, one after the other, all equal"));
        Ok(())
    }

    /// What clients that know the control center alone see of a primary that is gone.
    fn follow_the_lead(&self, story: &mut Story, gone: &Stopwatch) -> Result<(), CliError> {
        let bounded = self.as_client(&["scan", TABLE, "--limit", "3", "--max-staleness", "1m"])?;
        if bounded.len() != 3 {
            let why = format!("{bounded:?}");
            return Err(broken("reads that allow a minute of age go on without a primary", &why));
        }
        let took = story::time(gone.elapsed());
        story.say(&format!("a client reads at a standby, {took} after the primary has gone"));
        self.as_client(&["put", "after-failover", "key", "row"])?;
        let took = story::time(gone.elapsed());
        story.say(&format!("a client's update waits for whoever leads next, and is made after {took}"));
        Ok(())
    }

    fn failover(&mut self, story: &mut Story) -> Result<(), CliError> {
        story
            .step("failover: the primary is killed; another copy leads, and a spare node takes the role that is missing")?;
        self.cluster(&["mode", DATABASE, "automatic"])?;
        self.cluster(&["want", DATABASE, "--standbys", "1", "--backups", "3"])?;
        self.serve("spare-standby", NORTH, &["--spare"])?;
        self.serve("spare-backup", NORTH, &["--spare", "--role", "backup"])?;
        self.until("the spares are known", |cluster| {
            let known = cluster.cluster(&["nodes"])?;
            Ok(SPARES.iter().all(|name| known.iter().any(|row| row["name"] == *name)))
        })?;
        self.as_client(&["table", "create", "after-failover", "--raw"])?;
        self.as_client(&["put", "after-failover", "before", "row"])?;
        let stopwatch = Stopwatch::start();
        self.nodes.remove(DATABASE);
        self.follow_the_lead(story, &stopwatch)?;
        self.until("another copy leads", |cluster| {
            let shown = cluster.cluster(&["show"])?;
            Ok(shown
                .iter()
                .any(|row| row["name"] == DATABASE && row["led"] == true && word(row, "primary") != DATABASE))
        })?;
        let shown = self.cluster(&["show"])?;
        let row = shown.iter().find(|row| row["name"] == DATABASE).cloned().unwrap_or_default();
        self.primary = word(&row, "primary");
        let took = stopwatch.elapsed();
        story.say(&format!(
            "{} leads under {} after {}",
            self.primary,
            word(&row, "epoch"),
            story::time(took)
        ));
        for event in self.cluster(&["history", "--limit", "100"])?.iter().rev() {
            if word(event, "kind").starts_with("promotion") {
                story.say(&word(event, "what"));
            }
        }
        story.fact("failover_seconds", Cell::Duration(took));
        let kept = self.count(&self.primary)?;
        if kept != self.rows {
            return Err(broken("no acknowledged row is lost", &format!("{kept} of {}", self.rows)));
        }
        let primary = self.primary.clone();
        for key in ["before", "key"] {
            self.on(&primary, &["get", "after-failover", key])?;
        }
        story.say("no acknowledged row is lost, and updates go on");
        let spare = if BACKUPS.contains(&primary.as_str()) { "spare-backup" } else { "spare-standby" };
        let took = self.until("a spare node takes the role that is missing", |cluster| {
            let there = cluster.cluster(&["instances"])?;
            Ok(there.iter().any(|row| row["node"] == spare && row["state"] == "online"))
        })?;
        story.say(&format!("{spare} has taken the role of {primary} after {} more", story::time(took)));
        self.serve(DATABASE, NORTH, &[])?;
        self.until("the old primary follows", |cluster| {
            let there = cluster.cluster(&["instances"])?;
            Ok(there.iter().any(|row| row["node"] == DATABASE && row["state"] == "online"))
        })?;
        story.say("the old primary is back, and follows by itself");
        Ok(())
    }

    fn compare(&self, story: &mut Story) -> Result<(), CliError> {
        story.step("all copies are compared")?;
        let expected = self.on(&self.primary, &["digest"])?;
        let there = self.cluster(&["instances"])?;
        let is_copy = |name: &&String| {
            *name != "lab" && **name != self.primary && there.iter().any(|row| row["node"] == **name)
        };
        for name in self.nodes.keys().filter(is_copy) {
            self.until(
                &format!("{name} is equal"),
                |cluster| Ok(cluster.on(name, &["digest"])? == expected),
            )?;
            story.say(&format!("{name:<15} equal"));
        }
        story.fact("digests_equal", Cell::Bool(true));
        Ok(())
    }
}

fn word(row: &Value, name: &str) -> String {
    row[name].as_str().unwrap_or_default().to_owned()
}

fn broken(promise: &str, why: &str) -> CliError {
    CliError::new("demo", format!("it was promised that {promise}, and it is not so"))
        .because(why.to_owned())
        .hint("this is a bug: please report it with the output above")
}
