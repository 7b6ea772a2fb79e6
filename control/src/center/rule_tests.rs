use planaria_net::wire::jobs::CloneWish;
use planaria_net::wire::message::CloneRole;
use planaria_net::wire::rules::{Rule, RuleAction, RuleEvent};

use super::*;

const LEADS_AT: u64 = 10_000_000;

impl World {
    fn rules(&mut self, rule: &Rule) -> Result<(), String> {
        let now = self.now();
        self.center().set_rule(now, rule).map_err(|error| error.code().to_owned())
    }

    /// The leader goes on, and c is behind it by so much.
    fn c_is_behind(&mut self, lag_ms: u64) {
        let now = LEADS_AT + self.now_ms;
        self.copy(0).update = Uid::from_millis(now);
        self.copy(1).update = Uid::from_millis(now);
        self.copy(2).update = Uid::from_millis(now - lag_ms);
    }

    fn clones(&mut self) -> Vec<(String, String, String)> {
        let clones = self.center().clone_infos(100).unwrap();
        clones.into_iter().rev().map(|clone| (clone.to, clone.name, clone.origin)).collect()
    }

    fn count(&mut self, kind: &str) -> usize {
        self.kinds().iter().filter(|seen| *seen == kind).count()
    }
}

fn lag(action: RuleAction) -> Rule {
    Rule {
        name: "behind".into(),
        database: None,
        event: RuleEvent::Lag { over_ms: 30_000, for_ms: 5_000, role: None },
        action,
        pause_ms: 60_000,
    }
}

fn detached(to: &str) -> RuleAction {
    RuleAction::Clone(CloneWish { to: to.into(), ..CloneWish::default() })
}

fn standby() -> RuleAction {
    RuleAction::Clone(CloneWish { role: CloneRole::Standby, ..CloneWish::default() })
}

#[test]
fn a_copy_that_is_behind_for_long_enough_has_a_rule_act_once() {
    let mut world = World::new();
    world.passes(10_000);
    world.rules(&lag(detached("b"))).unwrap();
    world.c_is_behind(30_000);
    world.passes(20_000);
    assert!(world.clones().is_empty(), "it is not behind by more than that");
    world.c_is_behind(40_000);
    world.passes(3_000);
    world.c_is_behind(0);
    world.passes(1_000);
    world.c_is_behind(40_000);
    world.passes(4_000);
    assert!(world.clones().is_empty(), "it was not behind for that long at a stretch");
    world.passes(3_000);
    let clones = world.clones();
    assert_eq!(
        (clones.len(), clones[0].0.as_str(), clones[0].1.as_str()),
        (1, "b", "behind-1"),
        "{clones:?}"
    );
    assert!(clones[0].2.contains("the rule behind: c is 40000 ms behind"), "{clones:?}");
    // It acts once, also over a restart, however long it stays behind.
    world.passes(200_000);
    world.restart();
    world.passes(200_000);
    assert_eq!((world.clones().len(), world.count("rule_acted")), (1, 1));
    // And again when it has caught up and fallen behind anew.
    world.c_is_behind(0);
    world.passes(1_000);
    world.c_is_behind(50_000);
    world.passes(10_000);
    assert_eq!(world.count("rule_acted"), 2);
    let acted = world.events().into_iter().find(|event| event.kind == "rule_acted").unwrap();
    assert_eq!(acted.node, "c");
    assert!(acted.reasons[0].contains("by more than 30000 ms for 5000 ms"), "{acted:?}");
}

#[test]
fn rules_look_at_the_copies_that_they_are_set_for_and_rest_after_they_have_acted() {
    let mut world = World::new();
    world.c_is_behind(0);
    world.passes(10_000);
    world.copy(2).role = InstanceRole::Backup;
    let of = |role| Rule { event: RuleEvent::Lag { over_ms: 30_000, for_ms: 0, role }, ..lag(detached("b")) };
    world.rules(&of(Some(InstanceRole::Standby))).unwrap();
    world.c_is_behind(40_000);
    world.passes(10_000);
    assert!(world.clones().is_empty(), "a backup is behind, and no standby");
    world.rules(&of(Some(InstanceRole::Backup))).unwrap();
    world.passes(2_000);
    assert_eq!(world.clones().len(), 1);
    // Both catch up and fall behind within its rest: it acts when that is over.
    world.c_is_behind(0);
    world.passes(1_000);
    world.c_is_behind(40_000);
    world.passes(50_000);
    assert_eq!(world.count("rule_acted"), 1);
    world.passes(20_000);
    assert_eq!(world.count("rule_acted"), 2);
}

#[test]
fn a_copy_that_is_behind_is_told_to_take_everything_anew() {
    let mut world = World::new();
    world.passes(10_000);
    world.rules(&lag(RuleAction::Reseed)).unwrap();
    world.c_is_behind(60_000);
    let told = world.passes(10_000);
    let [Order::Reseed { job, instance }] = told[2][..] else { panic!("{told:?}") };
    assert_eq!((instance, told[1].len()), (InstanceId(3), 0));
    // The control center is killed before it hears what became of it.
    world.restart();
    assert_eq!(
        world.report(2, vec![]),
        [Order::Reseed { job, instance }],
        "it is told until it has answered"
    );
    assert_eq!(world.report(2, vec![done(job)]), []);
    assert_eq!((world.count("reseed_asked"), world.count("reseeds")), (1, 1));
    // One that does not answer is not told for ever.
    world.c_is_behind(0);
    world.passes(60_000);
    world.c_is_behind(60_000);
    assert_eq!(world.passes(10_000)[2].len(), 1);
    assert_eq!(world.passes(40_000)[2], []);
    assert_eq!(world.count("reseed_failed"), 1);
}

#[test]
fn another_leader_has_a_rule_act_also_if_nobody_looked_when_it_began_to_lead() {
    let mut world = World::new();
    world.passes(10_000);
    let rule = Rule { event: RuleEvent::Failover, ..lag(standby()) };
    world.rules(&rule).unwrap();
    world.passes(100_000);
    assert_eq!(world.count("rule_acted"), 0, "nothing has happened");
    // b takes over while the control center is down.
    world.center = None;
    world.copies[0] = None;
    for node in [1, 2] {
        let copy = world.copy(node);
        (copy.epoch, copy.promised) = (epoch(4), epoch(4));
        copy.position.epoch = epoch(4);
        copy.history = History::from_entries(vec![entry(3), entry(4)]).unwrap();
        copy.primary = (node == 2).then_some(address(1));
    }
    world.copy(1).state = CopyState::Primary;
    world.restart();
    world.passes(20_000);
    // No node waits for a copy: that is said once, and acted upon when one does.
    assert_eq!((world.count("rule_waits"), world.count("rule_acted")), (1, 0));
    assert!(world.center().rules()[0].note.contains("no node waits"));
    let (now, token) = (world.now(), world.center().token());
    let join = Join { token, name: "spare".into(), port: 9, ..Join::default() };
    world.center().join(now, HOST, &join, 77).unwrap();
    let report = NodeReport {
        session: 77,
        free_bytes: 900,
        spare: Some(InstanceRole::Standby),
        ..NodeReport::default()
    };
    world.center().report(now, &report).unwrap();
    world.passes(2_000);
    let clones = world.clones();
    assert_eq!((clones.len(), clones[0].0.as_str()), (1, "spare"), "{clones:?}");
    assert!(clones[0].2.contains("b leads in place of a"), "{clones:?}");
    world.restart();
    world.passes(100_000);
    assert_eq!((world.clones().len(), world.count("rule_acted")), (1, 1), "once for each that leads");
}

#[test]
fn rules_that_cannot_be_are_refused() {
    let mut world = World::new();
    let mut refused = |rule: Rule| world.rules(&rule).unwrap_err();
    let base = || lag(detached("b"));
    assert_eq!(refused(Rule { name: "a/b".into(), ..base() }), "invalid");
    assert_eq!(refused(Rule { pause_ms: 0, ..base() }), "invalid");
    assert_eq!(refused(Rule { database: Some("nothing".into()), ..base() }), "unknown_database");
    assert_eq!(refused(lag(detached("nobody"))), "unknown_node");
    assert_eq!(refused(lag(detached(""))), "invalid", "a detached clone needs a node");
    assert_eq!(refused(Rule { event: RuleEvent::Failover, ..lag(RuleAction::Reseed) }), "invalid");
    let soon = RuleEvent::Lag { over_ms: 1_000, for_ms: 0, role: None };
    assert_eq!(refused(Rule { event: soon, ..base() }), "invalid");
    let now = world.now();
    assert_eq!(world.center().remove_rule(now, "behind").unwrap_err().code(), "unknown_rule");
    world.rules(&base()).unwrap();
    world.center().remove_rule(now, "behind").unwrap();
    assert!(world.center().rules().is_empty());
}
