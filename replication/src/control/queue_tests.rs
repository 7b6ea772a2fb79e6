use std::collections::{BTreeMap, BTreeSet};

use planaria_types::Uid;

use super::super::gates::{Ceiling, GateKind};
use super::super::testing::Random;
use super::super::{Labels, Obstacle, SourceReason, StoreAccess};
use super::*;

const MIB: u64 = 1 << 20;

fn source(id: u128, role: InstanceRole, datacenter: &str) -> QueuedSource {
    let copy = SourceCopy {
        instance: InstanceId(id),
        role,
        labels: Labels::of([("datacenter", datacenter)]),
        update: Uid::from_millis(1_000),
        is_on_history: true,
        is_reachable: true,
        is_sound: true,
        is_whole: true,
        versions: (1, 1),
        clones: 0,
        clones_max: 0,
        free_bytes_per_s: 0,
        bytes: 100 * MIB,
        round_trip_us: None,
        store: StoreAccess::NotNeeded,
    };
    QueuedSource { node: format!("s{id}"), copy }
}

fn waiting(number: u64, priority: Priority, node: &str, sources: &[QueuedSource]) -> WaitingClone {
    WaitingClone {
        number,
        priority,
        submitted_ms: 0,
        node: node.to_owned(),
        to: Destination {
            holds: BTreeSet::new(),
            labels: Labels::of([("datacenter", "x")]),
            versions: (1, 1),
            free_bytes: 1_000 * MIB,
        },
        is_reachable: true,
        rule: SourceRule::default(),
        bytes_per_s: None,
        sources: sources.to_vec(),
    }
}

fn running(clone: &WaitingClone, start: &Start) -> RunningClone {
    let bytes_left = clone.source(start.source).unwrap().copy.bytes;
    RunningClone {
        number: start.number,
        node: clone.node.clone(),
        gates: start.gates.clone(),
        bytes_per_s_wanted: clone.bytes_per_s,
        bytes_per_s: start.bytes_per_s,
        bytes_left,
    }
}

fn limited(gate: &str, clones_max: u32, mib_per_s: u64) -> (Gate, Ceiling) {
    (gate.parse().unwrap(), Ceiling { clones_max, bytes_per_s_max: mib_per_s * MIB })
}

fn limits<const N: usize>(set: [(Gate, Ceiling); N]) -> Limits {
    Limits { set: BTreeMap::from(set), ..Limits::default() }
}

/// The numbers of those that begin, with their sources and rates in MiB a second; then those that wait, with the codes.
type Told = (Vec<(u64, u128, u64)>, Vec<(u64, &'static str)>);

fn told(plan: &Plan) -> Told {
    let starts =
        plan.starts.iter().map(|start| (start.number, start.source.0, start.bytes_per_s / MIB)).collect();
    (starts, plan.waits.iter().map(|wait| (wait.number, wait.reason.code())).collect())
}

#[test]
fn what_comes_first_begins_first_and_the_others_are_told_why_they_wait() {
    let backup = [source(1, InstanceRole::Backup, "x")];
    let clones = [
        waiting(1, Priority::AdHoc, "a", &backup),
        waiting(2, Priority::BackupRefresh, "b", &backup),
        waiting(3, Priority::Recovery, "c", &backup),
        WaitingClone { is_reachable: false, ..waiting(4, Priority::Recovery, "d", &backup) },
        waiting(5, Priority::Recovery, "e", &[]),
    ];
    let plan = plan(&limits([limited("node-out", 2, 100)]), 1, &[], &clones);
    let starts = vec![(3, 1, 64), (2, 1, 36)];
    assert_eq!(told(&plan), (starts, vec![(4, "destination_away"), (5, "no_source"), (1, "slots")]));
    let slots = WaitReason::Slots { gate: Gate::new(GateKind::NodeOut, "s1"), clones: 2 };
    assert_eq!(plan.waits[2].reason, slots);
    assert_eq!(slots.to_string(), "2 clones go through node-out:s1, as many as may be");
}

#[test]
fn too_little_bandwidth_keeps_a_clone_waiting_and_a_lower_rate_is_as_good_as_it_was_asked_for() {
    let backup = [source(1, InstanceRole::Backup, "x")];
    let slow = WaitingClone { bytes_per_s: Some(MIB / 2), ..waiting(2, Priority::AdHoc, "b", &backup) };
    let fast = WaitingClone { bytes_per_s: Some(99 * MIB), ..waiting(1, Priority::AdHoc, "a", &backup) };
    let clones = [fast, slow, waiting(3, Priority::AdHoc, "c", &backup)];
    let mut limits = limits([limited("node-out", 9, 100)]);
    limits
        .set
        .insert("node-out".parse().unwrap(), Ceiling { clones_max: 9, bytes_per_s_max: 99 * MIB + MIB / 2 });
    let plan = plan(&limits, 1, &[], &clones);
    assert_eq!(told(&plan), (vec![(1, 1, 99), (2, 1, 0)], vec![(3, "bandwidth")]));
    assert_eq!(plan.starts[1].bytes_per_s, MIB / 2);
}

#[test]
fn a_busy_backup_gives_way_to_the_next_copy_and_a_primary_gives_one_clone_at_a_time() {
    let sources = [source(1, InstanceRole::Backup, "x"), source(2, InstanceRole::Primary, "x")];
    let clones: Vec<_> =
        (1..=3).map(|number| waiting(number, Priority::AdHoc, &format!("n{number}"), &sources)).collect();
    let plan = plan(&limits([limited("node-out:s1", 1, 100)]), 1, &[], &clones);
    assert_eq!(told(&plan), (vec![(1, 1, 64), (2, 2, 32)], vec![(3, "slots")]));
    let reasons: Vec<_> = plan.waits[0].choice.verdicts.iter().map(|verdict| verdict.reason).collect();
    assert_eq!(reasons, [SourceReason::Unfit(Obstacle::NoSlot { clones: 1 }); 2]);
}

#[test]
fn each_place_on_the_way_counts() {
    let far = [source(1, InstanceRole::Backup, "y"), source(2, InstanceRole::Backup, "y")];
    let clones = [waiting(1, Priority::AdHoc, "a", &far), waiting(2, Priority::AdHoc, "b", &far)];
    for gate in ["node-out", "link", "link:y/x", "datacenter-in", "datacenter-out:y", "datacenter-in:x"] {
        let waits = told(&plan(&limits([limited(gate, 1, 100)]), 1, &[], &clones)).1;
        // The other backup lies on another node, so that a limit of each node does not matter.
        assert_eq!(waits.len(), usize::from(gate != "node-out"), "{gate}");
        assert!(waits.iter().all(|wait| *wait == (2, "slots")), "{gate}: {waits:?}");
    }
    assert_eq!(told(&plan(&limits([limited("link:x/y", 0, 100)]), 1, &[], &clones)).1, []);
    let same: Vec<_> = (1..=2).map(|number| waiting(number, Priority::AdHoc, "a", &far)).collect();
    assert_eq!(told(&plan(&limits([limited("node-in:a", 1, 100)]), 1, &[], &same)).1, [(2, "slots")]);
    // Where nothing may go through, all wait until somebody raises the limit.
    let shut = plan(&limits([limited("link:y/x", 0, 100)]), 1, &[], &same);
    assert_eq!(told(&shut).1[0], (1, "slots"));
    assert_eq!(shut.waits[0].reason.to_string(), "no clone may go through link:y/x");
}

#[test]
fn room_that_other_clones_are_to_take_is_not_free() {
    let backup = [source(1, InstanceRole::Backup, "x")];
    let small = |number| {
        let mut clone = waiting(number, Priority::AdHoc, "a", &backup);
        clone.to.free_bytes = 199 * MIB;
        clone
    };
    let limits = Limits::default();
    let first = plan(&limits, 1, &[], &[small(1), small(2)]);
    assert_eq!(told(&first).1, [(2, "room")]);
    let runs = RunningClone { bytes_left: 99 * MIB, ..running(&small(1), &first.starts[0]) };
    assert_eq!(told(&plan(&limits, 1, &[runs], &[small(2)])).0.len(), 1, "as much is there as it takes");
    let mut large = small(3);
    large.to.free_bytes = 99 * MIB;
    assert_eq!(told(&plan(&limits, 1, &[], &[large])).1, [(3, "no_source")], "it would not fit alone");
}

#[test]
fn a_source_that_failed_is_not_taken_again() {
    let sources = [source(1, InstanceRole::Backup, "x"), source(2, InstanceRole::Backup, "x")];
    let mut clone = waiting(1, Priority::AdHoc, "a", &sources);
    let first = |clone: &WaitingClone| told(&plan(&Limits::default(), 1, &[], std::slice::from_ref(clone)));
    assert_eq!(first(&clone).0[0].1, 1);
    clone.rule.failed.insert(InstanceId(1));
    assert_eq!(first(&clone).0[0].1, 2);
    clone.rule.failed.insert(InstanceId(2));
    assert_eq!(first(&clone).1, [(1, "no_source")]);
}

#[test]
fn rates_follow_the_limits_and_what_is_raised_was_given_up_before() {
    let backup = [source(1, InstanceRole::Backup, "x")];
    let clones: Vec<_> =
        (1..=2).map(|number| waiting(number, Priority::AdHoc, &format!("n{number}"), &backup)).collect();
    let wide = limits([limited("node-out", 4, 100)]);
    let first = plan(&wide, 1, &[], &clones);
    let mut runs: Vec<_> =
        first.starts.iter().zip(&clones).map(|(start, clone)| running(clone, start)).collect();
    assert_eq!(runs.iter().map(|run| run.bytes_per_s / MIB).collect::<Vec<_>>(), [64, 36]);
    // The first gives up before the second gets it.
    let apply = |runs: &mut Vec<RunningClone>, limits: &Limits| {
        let rates = plan(limits, 1, runs, &[]).rates;
        for (number, rate) in &rates {
            runs.iter_mut().find(|run| run.number == *number).unwrap().bytes_per_s = *rate;
        }
        rates.iter().map(|(number, rate)| (*number, rate / MIB)).collect::<Vec<_>>()
    };
    assert_eq!(apply(&mut runs, &wide), [(1, 50)]);
    assert_eq!(apply(&mut runs, &wide), [(2, 50)]);
    assert_eq!(apply(&mut runs, &wide), []);
    assert_eq!(apply(&mut runs, &limits([limited("node-out", 4, 10)])), [(1, 5), (2, 5)]);
    runs.pop();
    assert_eq!(apply(&mut runs, &wide), [(1, 64)], "no more than the default");
}

#[test]
fn room_is_kept_for_one_that_needs_two_places_at_once_and_has_waited_for_long() {
    // It needs s1 and a; others take one of the two whenever it comes free.
    let sources = [source(1, InstanceRole::Backup, "x")];
    let other = [source(2, InstanceRole::Backup, "x")];
    let limits = limits([limited("node-out:s1", 1, 100), limited("node-in:a", 1, 100)]);
    let both = WaitingClone { submitted_ms: 1, ..waiting(1, Priority::AdHoc, "a", &sources) };
    let to_a = WaitingClone { submitted_ms: 1, ..waiting(2, Priority::Recovery, "a", &other) };
    let from_s1 = WaitingClone { submitted_ms: 1, ..waiting(3, Priority::Recovery, "b", &sources) };
    let runs: Vec<_> = [&to_a]
        .iter()
        .map(|clone| running(clone, &plan(&limits, 1, &[], &[(*clone).clone()]).starts[0]))
        .collect();
    let later = WaitingClone { submitted_ms: 2, priority: Priority::AdHoc, ..from_s1.clone() };
    let queue = [both.clone(), later.clone()];
    assert_eq!(told(&plan(&limits, 2, &runs, &queue)).0, [(3, 1, 64)], "it has not waited for long");
    let now = KEEPS_AFTER_MS + 1;
    assert_eq!(told(&plan(&limits, now, &runs, &queue)), (vec![], vec![(1, "slots"), (3, "turn")]));
    // What is more urgent goes first until it has waited for very long.
    let urgent = WaitingClone { submitted_ms: now, ..from_s1 };
    assert_eq!(told(&plan(&limits, now, &runs, &[both.clone(), urgent.clone()])).0, [(3, 1, 64)]);
    let now = 3 * RISES_AFTER_MS + 1;
    let urgent = WaitingClone { submitted_ms: now, ..urgent };
    assert_eq!(told(&plan(&limits, now, &runs, &[both, urgent])).0, []);
}

/// What goes through each place, counted without the code that decides.
fn through(running: &[RunningClone]) -> BTreeMap<Gate, (u32, u64)> {
    let mut through: BTreeMap<Gate, (u32, u64)> = BTreeMap::new();
    for clone in running {
        for gate in &clone.gates {
            let (clones, bytes) = through.entry(gate.clone()).or_default();
            (*clones, *bytes) = (*clones + 1, *bytes + clone.bytes_per_s);
        }
    }
    through
}

/// A made-up cluster in which clones come, run and end, second by second.
struct World {
    random: Random,
    limits: Limits,
    now_ms: u64,
    step_ms: u64,
    sources: Vec<QueuedSource>,
    running: Vec<RunningClone>,
    waiting: Vec<WaitingClone>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut limits = Limits::default();
        let gates =
            ["node-out", "node-in", "datacenter-out", "datacenter-in", "link", "primary", "node-out:s1"];
        for gate in gates {
            if random.one_in(2) {
                let (gate, ceiling) = limited(gate, 1 + random.below(3) as u32, 2 + random.below(80));
                limits.set.insert(gate, ceiling);
            }
        }
        let roles =
            [InstanceRole::Backup, InstanceRole::Backup, InstanceRole::Standby, InstanceRole::Primary];
        let source = |(id, role): (usize, InstanceRole)| {
            let mut source = source(id as u128 + 1, role, ["x", "y"][random.below(2) as usize]);
            source.copy.bytes = (20 + random.below(200)) * MIB;
            source
        };
        let sources = roles.into_iter().enumerate().map(source).collect();
        let (running, waiting) = (Vec::new(), Vec::new());
        Self { random, limits, now_ms: 0, step_ms: 1_000, sources, running, waiting }
    }

    fn arrives(&mut self, number: u64) {
        let random = &mut self.random;
        let priority = Priority::ALL[random.below(4) as usize];
        let mut clone = waiting(number, priority, &format!("n{}", random.below(4)), &self.sources);
        clone.to.labels = Labels::of([("datacenter", ["x", "y"][random.below(2) as usize])]);
        clone.submitted_ms = self.now_ms;
        clone.bytes_per_s = random.one_in(3).then(|| (1 + random.below(100)) * MIB / 2);
        self.waiting.push(clone);
    }

    /// A while passes. What is decided is held against limits and promises.
    fn passes(&mut self) {
        self.now_ms += self.step_ms;
        for clone in &mut self.running {
            clone.bytes_left = clone.bytes_left.saturating_sub(clone.bytes_per_s * self.step_ms / 1_000);
        }
        self.running.retain(|clone| clone.bytes_left > 0);
        let decided = plan(&self.limits, self.now_ms, &self.running, &self.waiting);
        assert_eq!(
            decided,
            plan(&self.limits, self.now_ms, &self.running, &self.waiting),
            "it is deterministic"
        );
        assert_eq!(decided.starts.len() + decided.waits.len(), self.waiting.len(), "each is told of");
        let before = through(&self.running);
        for (number, rate) in &decided.rates {
            self.running.iter_mut().find(|clone| clone.number == *number).unwrap().bytes_per_s = *rate;
        }
        for start in &decided.starts {
            let at = self.waiting.iter().position(|clone| clone.number == start.number).unwrap();
            let clone = self.waiting.remove(at);
            assert!(
                start.bytes_per_s >= self.limits.bytes_per_s_min.min(clone.bytes_per_s.unwrap_or(u64::MAX))
            );
            self.running.push(running(&clone, start));
        }
        for (gate, (clones, bytes)) in through(&self.running) {
            let ceiling = self.limits.of(&gate);
            // What was lowered under clones that run holds for those that follow.
            let (clones_before, bytes_before) = before.get(&gate).copied().unwrap_or_default();
            assert!(clones <= ceiling.clones_max.max(clones_before), "{gate}: {clones} clones");
            assert!(bytes <= ceiling.bytes_per_s_max.max(bytes_before), "{gate}: {bytes} bytes a second");
        }
    }

    fn lower_or_raise(&mut self) {
        let gates = ["node-out", "node-in", "datacenter-out", "link", "primary"];
        let gate = gates[self.random.below(gates.len() as u64) as usize];
        let (gate, ceiling) = limited(gate, 1 + self.random.below(4) as u32, 2 + self.random.below(80));
        self.limits.set.insert(gate, ceiling);
    }
}

#[test]
fn limits_are_never_exceeded_and_everything_begins_in_the_end() {
    for seed in 0..12 {
        let mut world = World::new(seed);
        for second in 0..150 {
            if world.random.one_in(3) {
                world.arrives(second);
            }
            if world.random.one_in(20) {
                world.lower_or_raise();
            }
            world.passes();
        }
        // What is left of the limits after a second is within them: rates are lowered at once.
        world.passes();
        for (gate, (_, bytes)) in through(&world.running) {
            assert!(bytes <= world.limits.of(&gate).bytes_per_s_max, "seed {seed}, {gate}: {bytes}");
        }
        let mut seconds = 0;
        while !world.waiting.is_empty() {
            world.passes();
            seconds += 1;
            assert!(seconds < 50_000, "seed {seed}: {} wait", world.waiting.len());
        }
    }
}

#[test]
fn nothing_starves_while_more_urgent_clones_keep_coming() {
    for seed in 0..2 {
        let mut world = World::new(seed);
        world.limits = limits([limited("node-out", 1, 64), limited("node-in", 1, 64)]);
        world.sources.truncate(1);
        world.sources[0].copy.bytes = 640 * MIB;
        world.waiting.push(waiting(0, Priority::AdHoc, "n0", &world.sources));
        // Ten seconds each, of which one can run, and more come than can run: the source is never idle.
        world.step_ms = 10_000;
        for number in 1..=250 {
            world.arrives(number);
            if number % 5 == 0 {
                world.arrives(1_000 + number);
            }
            for clone in world.waiting.iter_mut().filter(|clone| clone.number > 0) {
                (clone.priority, clone.bytes_per_s) = (Priority::Recovery, None);
            }
            world.passes();
            let is_early = world.now_ms < RISES_AFTER_MS;
            assert!(!is_early || world.waiting.iter().any(|clone| clone.number == 0), "urgent ones go first");
        }
        assert!(world.waiting.iter().all(|clone| clone.number != 0), "seed {seed}: it still waits");
    }
}
