//! Everybody who takes part in a clone over the network is killed at every step of it, alone and in pairs; the target's disk fills
//! up. The clone is completed with the source's digest, or given up without a trace.

use std::process::Child;

use planaria_tests::cluster::{Answer, Direction, Link, Node, Site, Weather, wait_for};
use serde_json::Value as Json;

use crate::clone_life::{bytes, check_equal, incompressible, load, show, take, take_into, wait_until_done};
use crate::full_disk::SmallDisk;

/// Rows of the table: some twenty chunks of a mebibyte.
const ROWS: u64 = 24_000;
/// What may be sent twice.
const CHUNK: u64 = 1 << 20;
/// At this rate a clone comes to its steps one after the other.
const STEADY: &str = "8MiB";
/// At this rate one chunk comes in after the other.
const SLOW: &str = "2MiB";
/// At this rate it stays where it is: not one chunk comes in within a minute.
const STILL: &str = "16KiB";

/// How far a clone has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The source has not said yet which files there are.
    Listing,
    /// So many per cent are there.
    Fetching(u64),
    /// Nothing more is to come in; it is killed at whatever comes then.
    Ending,
}

/// Who is killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Dies {
    source: bool,
    target: bool,
    /// The command that waits for it.
    command: bool,
}

const STEPS: [Step; 5] =
    [Step::Listing, Step::Fetching(1), Step::Fetching(50), Step::Fetching(90), Step::Ending];

/// Each alone, each pair, and all.
fn deaths() -> Vec<Dies> {
    let parties = |bits: u32| Dies { source: bits & 1 > 0, target: bits & 2 > 0, command: bits & 4 > 0 };
    (1..8).map(parties).collect()
}

/// What a clone is taken with.
struct Scene<'a> {
    site: &'a Site,
    source: Node<'a>,
    target: Node<'a>,
    /// In front of the source.
    link: Link,
}

impl<'a> Scene<'a> {
    fn new(site: &'a Site) -> Self {
        let source = Node::primary(site, "source");
        load(&source, &incompressible(site, ROWS), &[]);
        let link = Link::to(source.address(), 1, Weather::default());
        Self { site, source, target: Node::primary(site, "target"), link }
    }

    /// Begins a clone, with a command that waits for it, and has it come as far as that.
    fn come_to(&self, step: Step) -> Child {
        let nothing_passes = Weather { lost_one_in: 1, ..Weather::default() };
        self.link.set(if step == Step::Listing { nothing_passes } else { Weather::default() });
        let passed = self.link.passed(Direction::Back);
        take(self.site, &self.target, &[&self.link.address()], &["--rate", STEADY]);
        let command = self.target.begin(&["clone", "wait", "copy"]);
        match step {
            Step::Listing => {
                let lists = || (show(&self.target)["stage"] == "listing").then_some(());
                wait_for("the list", lists, || show(&self.target).to_string());
                assert_eq!(self.link.passed(Direction::Back), passed);
            }
            Step::Fetching(percent) => {
                // Slower towards the end, so that it does not pass it.
                wait_until_done(&self.target, percent.min(60));
                self.target.run(&["clone", "rate", "copy", SLOW]).json();
                wait_until_done(&self.target, percent);
                self.target.run(&["clone", "rate", "copy", STILL]).json();
            }
            Step::Ending => {
                self.target.run(&["clone", "rate", "copy", "none"]).json();
                wait_until_done(&self.target, 100);
            }
        }
        command
    }

    /// Kills, starts again whoever died, and sees the clone come to its end.
    fn survives(&mut self, step: Step, dies: Dies) {
        let what = format!("{dies:?} at {step:?}");
        let mut command = self.come_to(step);
        let before = show(&self.target);
        if dies.command {
            command.kill().unwrap();
        }
        if dies.source {
            self.source.kill();
        }
        if dies.target {
            self.target.kill();
            // What is not complete is no database.
            assert_ne!(self.site.run(&["digest", "copy.partial"]).code, 0, "{what}");
        }
        let is_whole = self.site.path("copy").exists();
        self.link.set(Weather::default());
        if dies.source {
            self.source.start();
        }
        if dies.target {
            self.target.start();
        }
        // One that was complete before is at no rate any more.
        self.target.run(&["clone", "rate", "copy", "none"]).json();
        let info = self.target.run(&["clone", "wait", "copy"]).json().remove(0);
        assert_eq!(info["state"], "complete", "{what}: {info}\n{}", self.target.log());
        assert!(bytes(&info, "resumed_bytes") <= bytes(&info, "total_bytes"), "{what}: {info}");
        if dies.target && !dies.source && !is_whole {
            let there = bytes(&before, "bytes");
            // The source gives what is there by now: of its log it may be another piece than before.
            assert!(bytes(&info, "resumed_bytes") + CHUNK > there, "{what}: {info} after {before}");
        }
        check_waiter(&command.wait_with_output().unwrap().into(), dies, &what);
        check_equal(self.site, &self.source);
        self.nothing_is_left(&what);
        self.target.run(&["clone", "delete", "copy"]).json();
        assert!(!self.site.path("copy").exists(), "{what}");
    }

    /// Neither side keeps anything for a clone that is over.
    fn nothing_is_left(&self, what: &str) {
        let pinned = || self.source.run(&["clone", "list"]).json();
        let free = || pinned().iter().all(|clone| clone["state"] != "sending").then_some(());
        wait_for("the source to let go", free, || format!("{what}: {:?}", pinned()));
        let entries = std::fs::read_dir(self.site.dir()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<_> =
            names.filter(|name| name.starts_with("copy.") || name.ends_with(".shaped")).collect();
        assert!(left.is_empty(), "{what}: {left:?}");
    }
}

/// A command whose node lives hears of the end; one whose node dies ends with an error of its own.
fn check_waiter(answer: &Answer, dies: Dies, what: &str) {
    assert!(!answer.stderr.contains("panicked"), "{what}: {}", answer.stderr);
    if dies.command {
        return;
    }
    if dies.target {
        assert!(answer.code == 0 || answer.error().is_some(), "{what}: {answer:?}");
    } else {
        assert_eq!(answer.json()[0]["state"], "complete", "{what}");
    }
}

#[test]
fn whoever_dies_during_a_clone_it_is_completed() {
    let site = Site::new();
    let mut scene = Scene::new(&site);
    let all = Dies { source: true, target: true, command: true };
    scene.survives(Step::Listing, Dies { command: false, ..all });
    scene.survives(Step::Fetching(50), Dies { source: false, ..all });
    scene.survives(Step::Fetching(50), Dies { target: false, ..all });
    scene.survives(Step::Fetching(90), all);
    scene.survives(Step::Ending, Dies { command: false, ..all });
}

#[test]
#[ignore = "minutes: every step, everybody alone, in pairs and all together"]
fn matrix_whoever_dies_at_whatever_step_the_clone_is_completed() {
    let site = Site::new();
    let mut scene = Scene::new(&site);
    for step in STEPS {
        for dies in deaths() {
            scene.survives(step, dies);
        }
    }
}

#[test]
fn a_command_and_its_source_die_at_a_step_and_the_next_command_goes_on() {
    let site = Site::new();
    let mut scene = Scene::new(&site);
    for (source, percent) in [(false, 50), (true, 30)] {
        let name = format!("here-{source}");
        let address = scene.source.address().to_owned();
        let words = ["clone", "create", &name, "--node", &address, "--rate", STEADY];
        let mut command = site.start(&words);
        // Half of what its source has sent is there for sure.
        let sent = || {
            let listed = scene.source.run(&["clone", "list"]).json();
            let clone = listed.into_iter().find(|clone| clone["state"] == "sending")?;
            (bytes(&clone, "bytes") * 100 >= bytes(&clone, "total_bytes") * percent).then_some(())
        };
        wait_for("a part of the clone", sent, || scene.source.log());
        if source {
            scene.source.kill();
        }
        command.kill().unwrap();
        command.wait().unwrap();
        assert!(!site.path(&name).exists() && site.path(&format!("{name}.partial")).exists());
        assert_ne!(site.run(&["digest", &format!("{name}.partial")]).code, 0);
        if source {
            scene.source.start();
        }
        let report = scene.source.run(&["clone", "create", &name]).json().remove(0);
        assert!(bytes(&report, "resumed_bytes") > 0, "{report}");
        let digest = |place: &str| site.run(&["digest", place, "sightings"]).digest();
        assert_eq!(digest(&name), scene.source.run(&["digest", "sightings"]).digest());
        scene.nothing_is_left("a command");
    }
}

#[test]
fn a_clone_that_is_given_up_after_its_parties_died_leaves_nothing_on_either_side() {
    let site = Site::new();
    let mut scene = Scene::new(&site);
    // One that is made for the target alone, and goes with it.
    let address = scene.link.address();
    let shape = ["--rate", STEADY, "--mask", "sightings.place=constant:x"];
    take(&site, &scene.target, &[&address], &shape);
    wait_until_done(&scene.target, 20);
    scene.target.run(&["clone", "rate", "copy", STILL]).json();
    assert!(site.path("source.shaped").exists());
    scene.source.kill();
    scene.target.restart();
    // Its source stays away: it says so, and goes on asking until somebody gives it up.
    let asks = || {
        let info = show(&scene.target);
        let told = info["reasons"].to_string().contains(&address);
        assert_eq!(info["state"], "running", "{info}");
        told.then_some(())
    };
    wait_for("the clone to say that its source is away", asks, || show(&scene.target).to_string());
    assert_eq!(scene.target.run(&["clone", "cancel", "copy"]).json()[0]["state"], "cancelled");
    scene.source.start();
    scene.nothing_is_left("given up");
    assert!(!site.path("copy").exists());
}

#[test]
fn a_disk_that_is_full_in_the_middle_of_a_clone_ends_it_and_has_its_room_again() {
    let site = Site::new();
    let Some(disk) = SmallDisk::mount(site.path("disk"), 32) else {
        eprintln!("left out: this process may not mount a file system");
        return;
    };
    let scene = Scene::new(&site);
    let address = scene.source.address().to_owned();
    let names = || std::fs::read_dir(site.path("disk")).unwrap().count();
    let fails = |room: &str| {
        scene.target.run(&["clone", "rate", "copy", "none"]).json();
        let error = scene.target.run(&["clone", "wait", "copy"]).failed(1, "not_complete");
        let why = error.to_string();
        assert!(why.contains("space") || why.contains("do not fit"), "{room}: {error}");
        assert!(!site.path("disk/copy").exists() && !site.path("disk/copy.partial").exists(), "{room}");
        assert_eq!(names(), 1, "{room}: only what fills the disk is left");
    };
    for step in [Step::Listing, Step::Fetching(1), Step::Fetching(60)] {
        let mut filler = None;
        if step == Step::Listing {
            filler = Some(disk.fill(64));
        }
        take_into(&site, &scene.target, "disk/copy", &[&address], &["--rate", STEADY]);
        if let Step::Fetching(percent) = step {
            wait_until_done(&scene.target, percent);
            scene.target.run(&["clone", "rate", "copy", STILL]).json();
            filler = Some(disk.fill(0));
        }
        fails(&format!("full at {step:?}"));
        std::fs::remove_file(filler.unwrap()).unwrap();
    }
    // There is room again: it is made anew, on the same node.
    take_into(&site, &scene.target, "disk/copy", &[&address], &[]);
    let info: Json = scene.target.run(&["clone", "wait", "copy"]).json().remove(0);
    assert_eq!(info["state"], "complete", "{info}");
    let there = site.run(&["digest", "disk/copy", "sightings"]).digest();
    assert_eq!(there, scene.source.run(&["digest", "sightings"]).digest());
    scene.nothing_is_left("after a full disk");
}
