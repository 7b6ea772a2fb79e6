use std::collections::{HashSet, VecDeque};
use std::fmt;

use planaria_types::Uid;

use super::Model;
use super::copy::CopyId;
use super::invariants::Violation;
use super::op::{Op, Planted};

/// How far an exploration goes: how often each kind of step may be taken, and the highest UID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Keys.
    pub keys: u8,
    /// Copies.
    pub copies: u8,
    /// No UID above this is drawn.
    pub uids: u64,
    /// Commits that write two keys at once are on the menu.
    pub batches: bool,
    /// Crashes, of any copy.
    pub crashes: u8,
    /// Promotions.
    pub promotions: u8,
    /// Cut connections, and handshakes with another primary.
    pub cuts: u8,
    /// Merges.
    pub merges: u8,
    /// Flushes.
    pub flushes: u8,
    /// Snapshots.
    pub pins: u8,
    /// Copies that a primary lets go: out of the promotable set, or given up.
    pub departures: u8,
    /// Steps from the first state.
    pub depth: u16,
}

impl Bounds {
    /// Bounds without faults or maintenance, to be widened.
    pub const PLAIN: Self = Self {
        keys: 2,
        copies: 2,
        uids: 3,
        batches: false,
        crashes: 0,
        promotions: 0,
        cuts: 0,
        merges: 0,
        flushes: 0,
        pins: 0,
        departures: 0,
        depth: u16::MAX,
    };
}

/// What is left of the bounds on one path.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Budget {
    crashes: u8,
    promotions: u8,
    cuts: u8,
    merges: u8,
    flushes: u8,
    pins: u8,
    departures: u8,
}

impl Budget {
    fn of(bounds: &Bounds) -> Self {
        Self {
            crashes: bounds.crashes,
            promotions: bounds.promotions,
            cuts: bounds.cuts,
            merges: bounds.merges,
            flushes: bounds.flushes,
            pins: bounds.pins,
            departures: bounds.departures,
        }
    }

    /// The budget after a step, or `None` if the step is not affordable.
    fn spend(mut self, op: &Op) -> Option<Self> {
        let purse = match op {
            Op::Crash { .. } => &mut self.crashes,
            Op::Promote { .. } => &mut self.promotions,
            Op::Disconnect { .. } => &mut self.cuts,
            Op::Merge { .. } => &mut self.merges,
            Op::Flush { .. } => &mut self.flushes,
            Op::Pin { .. } => &mut self.pins,
            Op::Leave { .. } | Op::GiveUp { .. } => &mut self.departures,
            _ => return Some(self),
        };
        *purse = purse.checked_sub(1)?;
        Some(self)
    }
}

/// What an exploration saw.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Explored {
    /// Different states.
    pub states: usize,
    /// Steps between them.
    pub steps: usize,
    /// The longest of the shortest paths.
    pub depth: u16,
}

/// The shortest way to a violation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counterexample {
    /// What does not hold at the end.
    pub violation: Violation,
    /// The steps that lead there, with what each came to.
    pub steps: Vec<(Op, String)>,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.violation)?;
        for (number, (op, outcome)) in self.steps.iter().enumerate() {
            writeln!(f, "{:>4}. {op:?} -> {outcome}", number + 1)?;
        }
        Ok(())
    }
}

/// How a state was reached: from which one, by which step.
type Path = Vec<(usize, Option<Op>)>;

/// Visits every state that can be reached within the bounds, shortest paths first, and checks each and every step.
/// Starts with all copies connected to copy 0, empty; a planted fault, if given, is in the model from the start.
///
/// # Errors
///
/// The first, and so shortest, counterexample.
pub fn explore(bounds: &Bounds, planted: Option<Planted>) -> Result<Explored, Box<Counterexample>> {
    let first = connected(bounds, planted);
    let mut seen = HashSet::from([(first.fingerprint(), Budget::of(bounds))]);
    let mut path: Path = vec![(0, None)];
    let mut frontier = VecDeque::from([(first, Budget::of(bounds), 0usize, 0u16)]);
    let mut explored = Explored::default();
    while let Some((model, budget, at, depth)) = frontier.pop_front() {
        explored.depth = explored.depth.max(depth);
        explored.states += 1;
        if depth == bounds.depth {
            continue;
        }
        for op in model.candidates() {
            let Some(left) = budget.spend(&op).filter(|_| within(&model, bounds, &op)) else {
                continue;
            };
            let mut next = model.clone();
            if next.apply(&op).is_err() {
                continue;
            }
            explored.steps += 1;
            let known = !seen.insert((next.fingerprint(), left));
            let checked = Model::check_step(&model, &op, &next);
            let checked = if known { checked } else { checked.and_then(|()| next.check()) };
            if let Err(violation) = checked {
                path.push((at, Some(op)));
                return Err(Box::new(trace(bounds, planted, violation, &path)));
            }
            if !known {
                path.push((at, Some(op)));
                frontier.push_back((next, left, path.len() - 1, depth + 1));
            }
        }
    }
    Ok(explored)
}

/// A model of the given size with every copy connected to the first.
pub(crate) fn connected(bounds: &Bounds, planted: Option<Planted>) -> Model {
    let mut model = Model::new(bounds.copies, bounds.keys);
    for copy in model.ids().skip(1) {
        let _ = model.apply(&Op::Connect { copy, to: CopyId(0) });
    }
    planted.map_or(model.clone(), |fault| model.with(fault))
}

/// Whether the step stays below the highest UID, and on the menu.
fn within(model: &Model, bounds: &Bounds, op: &Op) -> bool {
    let Op::Commit { at, changes } = op else {
        return true;
    };
    let batch = !changes.puts.is_empty() && !changes.deletes.is_empty();
    let Ok(primary) = model.copy(*at) else {
        return false;
    };
    model.next_uid(primary) <= Uid::new(bounds.uids) && (bounds.batches || !batch)
}

fn trace(bounds: &Bounds, planted: Option<Planted>, violation: Violation, path: &Path) -> Counterexample {
    let mut ops = Vec::new();
    let mut at = path.len() - 1;
    while let Some((from, Some(op))) = path.get(at) {
        ops.push(*op);
        at = *from;
    }
    ops.reverse();
    Counterexample { violation, steps: narrate(connected(bounds, planted), &ops) }
}

/// The steps with what each comes to.
pub(crate) fn narrate(mut model: Model, ops: &[Op]) -> Vec<(Op, String)> {
    let mut steps = Vec::with_capacity(ops.len());
    for op in ops {
        let outcome =
            model.apply(op).map_or_else(|refused| format!("{refused:?}"), |outcome| format!("{outcome:?}"));
        steps.push((*op, outcome));
    }
    steps
}
