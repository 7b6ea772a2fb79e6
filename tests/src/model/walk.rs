use planaria_types::Uid;

use super::Model;
use super::explore::{Bounds, Counterexample, connected, narrate};
use super::invariants::Violation;
use super::op::{Op, Planted};

/// Takes up to `steps` random steps from the first state and checks each: a seed names one walk, so a walk that fails
/// is a regression test. Of the bounds only the size of the group and the highest UID count; nothing else is rationed.
///
/// # Errors
///
/// A walk to the violation, without the steps that it can do without.
pub fn walk(
    bounds: &Bounds,
    seed: u64,
    steps: usize,
    planted: Option<Planted>,
) -> Result<usize, Box<Counterexample>> {
    let mut model = connected(bounds, planted);
    let mut dice = Dice(seed);
    let mut taken = Vec::new();
    for _ in 0..steps {
        let Some((op, next)) = step(&model, bounds, &mut dice) else {
            break;
        };
        taken.push(op);
        let checked = Model::check_step(&model, &op, &next).and_then(|()| next.check());
        if let Err(violation) = checked {
            return Err(Box::new(shrink(&connected(bounds, planted), taken, violation)));
        }
        model = next;
    }
    Ok(taken.len())
}

/// Leaves out one step after the other for as long as the same invariant is still violated.
fn shrink(first: &Model, mut ops: Vec<Op>, mut violation: Violation) -> Counterexample {
    let mut at = 0;
    while at < ops.len() {
        let mut fewer = ops.clone();
        fewer.remove(at);
        match replay(first.clone(), &fewer).filter(|(_, found)| found.invariant == violation.invariant) {
            Some((taken, found)) => {
                (ops, violation) = (taken, found);
                at = 0;
            }
            None => at += 1,
        }
    }
    Counterexample { violation, steps: narrate(first.clone(), &ops) }
}

/// Takes the steps that are possible, up to the first violation.
fn replay(mut model: Model, ops: &[Op]) -> Option<(Vec<Op>, Violation)> {
    let mut taken = Vec::new();
    for op in ops {
        let mut next = model.clone();
        if next.apply(op).is_err() {
            continue;
        }
        taken.push(*op);
        if let Err(violation) = Model::check_step(&model, op, &next).and_then(|()| next.check()) {
            return Some((taken, violation));
        }
        model = next;
    }
    None
}

/// One random step that is possible. Disruptions are drawn less often than work, or nothing would ever get far.
fn step(model: &Model, bounds: &Bounds, dice: &mut Dice) -> Option<(Op, Model)> {
    let mut ops = model.candidates();
    while !ops.is_empty() {
        let op = ops.swap_remove(dice.below(ops.len()));
        if dice.below(16) >= weight(&op) {
            ops.push(op);
            continue;
        }
        let mut next = model.clone();
        let fits = match op {
            Op::Commit { at, .. } => {
                model.copy(at).is_ok_and(|primary| model.next_uid(primary) <= Uid::new(bounds.uids))
            }
            _ => true,
        };
        if fits && next.apply(&op).is_ok() {
            return Some((op, next));
        }
    }
    None
}

/// How readily a step is taken, of 16.
fn weight(op: &Op) -> usize {
    match op {
        Op::Crash { .. }
        | Op::Promote { .. }
        | Op::Disconnect { .. }
        | Op::GiveUp { .. }
        | Op::Pin { .. } => 1,
        Op::Commit { .. } | Op::Leave { .. } => 3,
        Op::Connect { .. } => 5,
        _ => 16,
    }
}

/// The `SplitMix64` generator (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((word ^ (word >> 31)) % limit.max(1) as u64) as usize
    }
}
