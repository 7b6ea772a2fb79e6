//! What clients of a cluster asked and were told, and whether one register for each key could have told the same.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use porcupine_rs::{CheckResult, Model, Operation};

use super::Stopwatch;

/// How long the search for an order may take.
const SEARCH_TIME_MAX: Duration = Duration::from_mins(2);

/// What was asked of a key, and what the answer was.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Asked {
    /// It gets this row.
    Put(String),
    /// It has this row, or none.
    Got(Option<String>),
}

/// A register: it holds what was put last.
#[derive(Clone, Debug)]
struct Register;

impl Model for Register {
    type State = Option<String>;
    type Op = (String, Asked);
    type Metadata = ();

    fn partition_operations(history: &[Operation<Self>]) -> Vec<Vec<Operation<Self>>> {
        let mut parts: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for operation in history {
            parts.entry(&operation.op.0).or_default().push(operation.clone());
        }
        parts.into_values().collect()
    }

    fn init() -> Self::State {
        None
    }

    fn step(state: &Self::State, (_, asked): &Self::Op) -> (bool, Self::State) {
        match asked {
            Asked::Put(row) => (true, Some(row.clone())),
            Asked::Got(row) => (row == state, state.clone()),
        }
    }
}

/// A history of operations on keys that have no row at its beginning, by several clients at once.
#[derive(Debug)]
pub struct History {
    clock: Stopwatch,
    operations: Mutex<Vec<Operation<Register>>>,
}

impl Default for History {
    fn default() -> Self {
        Self::new()
    }
}

impl History {
    /// An empty one that begins now.
    pub fn new() -> Self {
        Self { clock: Stopwatch::start(), operations: Mutex::default() }
    }

    /// The time, in nanoseconds since the beginning.
    pub fn now(&self) -> i64 {
        i64::try_from(self.clock.elapsed().as_nanos()).unwrap_or(i64::MAX)
    }

    /// Notes what `client` was told just now about what it had asked at `asked_at`.
    pub fn told(&self, client: u32, key: &str, asked_at: i64, asked: Asked) {
        self.note(client, key, asked_at, self.now(), asked);
    }

    /// Notes a write of which its client does not know whether it took effect: it may do so at any time, or never.
    pub fn unknown(&self, client: u32, key: &str, asked_at: i64, row: String) {
        self.note(client, key, asked_at, i64::MAX, Asked::Put(row));
    }

    fn note(&self, client: u32, key: &str, call_time: i64, return_time: i64, asked: Asked) {
        let op = (key.to_owned(), asked);
        let operation = Operation { client_id: Some(client), call_time, return_time, op, metadata: None };
        self.operations.lock().expect("nobody panicked").push(operation);
    }

    /// How many operations there are, and how many of them are writes that nobody knows about.
    pub fn count(&self) -> (usize, usize) {
        let operations = self.operations.lock().expect("nobody panicked");
        let unknown = operations.iter().filter(|operation| operation.return_time == i64::MAX);
        (operations.len(), unknown.count())
    }

    /// Whether some order of the operations explains every answer, in which each takes effect at one moment between
    /// its question and its answer (Herlihy and Wing, "Linearizability", 1990).
    ///
    /// # Panics
    ///
    /// If the search takes too long to tell.
    pub fn is_linearizable(&self) -> bool {
        let operations = self.operations.lock().expect("nobody panicked");
        let result = porcupine_rs::check_operations_timeout(&operations, SEARCH_TIME_MAX);
        assert_ne!(
            result,
            CheckResult::Unknown,
            "no order of {} operations was found in time",
            operations.len()
        );
        result == CheckResult::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::{Asked, History};

    fn put(row: &str) -> Asked {
        Asked::Put(row.into())
    }

    fn got(row: Option<&str>) -> Asked {
        Asked::Got(row.map(str::to_owned))
    }

    fn history(operations: &[(&str, i64, i64, Asked)]) -> History {
        let history = History::new();
        for (client, (key, from, to, asked)) in operations.iter().enumerate() {
            history.note(client as u32, key, *from, *to, asked.clone());
        }
        history
    }

    #[test]
    fn what_overlaps_has_no_order_and_keys_have_nothing_to_do_with_one_another() {
        let overlapping = [("a", 0, 10, put("1")), ("a", 5, 15, got(None)), ("a", 5, 15, got(Some("1")))];
        assert!(history(&overlapping).is_linearizable());
        let keys = [("a", 0, 10, put("1")), ("b", 20, 30, got(None)), ("a", 20, 30, got(Some("1")))];
        assert!(history(&keys).is_linearizable());
    }

    #[test]
    fn a_lost_write_a_stale_read_and_a_row_from_nowhere_are_found() {
        assert!(!history(&[("a", 0, 10, put("1")), ("a", 20, 30, got(None))]).is_linearizable());
        let stale = [("a", 0, 10, put("1")), ("a", 11, 20, put("2")), ("a", 30, 40, got(Some("1")))];
        assert!(!history(&stale).is_linearizable());
        assert!(!history(&[("a", 0, 10, got(Some("1")))]).is_linearizable());
    }

    #[test]
    fn an_unknown_write_may_take_effect_once_at_any_time_or_never() {
        let seen = |rows: &[Option<&str>]| {
            let history = history(&[("a", 0, 1, put("0"))]);
            history.unknown(9, "a", 2, "1".into());
            for (row, at) in rows.iter().zip(10_i64..) {
                history.note(1, "a", at * 10, at * 10 + 1, got(*row));
            }
            history.is_linearizable()
        };
        assert!(seen(&[Some("0"), Some("0")]) && seen(&[Some("0"), Some("1")]) && seen(&[Some("1")]));
        assert!(!seen(&[Some("1"), Some("0")]));
    }
}
