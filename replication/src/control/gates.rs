//! What clones may take: the places that they go through, how many may at a time, and how fast.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::Labels;

/// A kind of place that clones go through.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum GateKind {
    /// A node that clones are taken from.
    NodeOut,
    /// A node that clones are brought to.
    NodeIn,
    /// A datacenter that clones are taken from, those that stay within it included.
    DatacenterOut,
    /// A datacenter that clones are brought to, those that stay within it included.
    DatacenterIn,
    /// What leads from one datacenter to another one, in this direction.
    Link,
    /// A node whose copy leads: clones that are taken of that copy.
    Primary,
}

impl GateKind {
    /// Every kind.
    pub const ALL: [Self; 6] =
        [Self::NodeOut, Self::NodeIn, Self::DatacenterOut, Self::DatacenterIn, Self::Link, Self::Primary];

    /// Its name in commands, tables and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodeOut => "node-out",
            Self::NodeIn => "node-in",
            Self::DatacenterOut => "datacenter-out",
            Self::DatacenterIn => "datacenter-in",
            Self::Link => "link",
            Self::Primary => "primary",
        }
    }

    /// What holds where nothing was set. A primary serves its clients first: one clone at a time, at an eighth of what a
    /// node may give away.
    const fn usual(self) -> Ceiling {
        let (clones_max, mib_per_s) = match self {
            Self::NodeOut | Self::Link => (4, 256),
            Self::NodeIn => (2, 256),
            Self::DatacenterOut | Self::DatacenterIn => (16, 1_024),
            Self::Primary => (1, 32),
        };
        Ceiling { clones_max, bytes_per_s_max: mib_per_s << 20 }
    }
}

/// A place that clones go through.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Gate {
    /// What kind of place.
    pub kind: GateKind,
    /// The node, the datacenter, or both datacenters of a link as `FROM/TO`. Without a name it stands for all places of its
    /// kind that nothing was set for.
    pub name: String,
}

impl Gate {
    /// The place of that kind and name.
    pub fn new(kind: GateKind, name: impl Into<String>) -> Self {
        Self { kind, name: name.into() }
    }

    /// The places that a clone from one node to another goes through.
    pub fn between(from: Place<'_>, to: Place<'_>, from_primary: bool) -> Vec<Self> {
        let mut gates = vec![Self::new(GateKind::NodeIn, to.node), Self::new(GateKind::NodeOut, from.node)];
        let datacenters = (from.labels.get("datacenter"), to.labels.get("datacenter"));
        gates.extend(datacenters.1.map(|name| Self::new(GateKind::DatacenterIn, name)));
        gates.extend(datacenters.0.map(|name| Self::new(GateKind::DatacenterOut, name)));
        if let (Some(from), Some(to)) = datacenters
            && from != to
        {
            gates.push(Self::new(GateKind::Link, format!("{from}/{to}")));
        }
        if from_primary {
            gates.push(Self::new(GateKind::Primary, from.node));
        }
        gates
    }
}

/// A node, and where it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    /// The node's name.
    pub node: &'a str,
    /// Its labels.
    pub labels: &'a Labels,
}

impl fmt::Display for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if self.name.is_empty() { Ok(()) } else { write!(f, ":{}", self.name) }
    }
}

impl FromStr for Gate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, name) = text.split_once(':').unwrap_or((text, ""));
        let found = GateKind::ALL.into_iter().find(|known| known.name() == kind);
        let kind = found.ok_or_else(|| {
            let names = GateKind::ALL.map(GateKind::name).join(", ");
            format!("{kind:?} is no kind of place: {names}; with :NAME for one of them")
        })?;
        let is_pair = || name.split_once('/').is_some_and(|(from, to)| !from.is_empty() && !to.is_empty());
        if kind == GateKind::Link && !name.is_empty() && !is_pair() {
            return Err("a link is named by both datacenters, as in link:a/b".to_owned());
        }
        if text.ends_with(':') {
            return Err("a name follows the colon".to_owned());
        }
        Ok(Self::new(kind, name))
    }
}

/// What may go through a place at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ceiling {
    /// Clones; with none, no further one is begun.
    pub clones_max: u32,
    /// Bytes a second of all clones together.
    pub bytes_per_s_max: u64,
}

/// What clones may take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// What was set, for one place or for all of a kind.
    pub set: BTreeMap<Gate, Ceiling>,
    /// The rate of a clone that none was asked for, in bytes a second.
    pub bytes_per_s_default: u64,
    /// No clone is begun with less, in bytes a second.
    pub bytes_per_s_min: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { set: BTreeMap::new(), bytes_per_s_default: 64 << 20, bytes_per_s_min: 1 << 20 }
    }
}

impl Limits {
    /// What may go through a place.
    pub fn of(&self, gate: &Gate) -> Ceiling {
        let of_all = || self.set.get(&Gate::new(gate.kind, ""));
        self.set.get(gate).or_else(of_all).copied().unwrap_or(gate.kind.usual())
    }

    /// The least that a clone is begun with that is to take at most `wanted`.
    pub(super) fn least(&self, wanted: u64) -> u64 {
        self.bytes_per_s_min.min(wanted)
    }
}

/// What goes through one place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Taken {
    clones: u32,
    bytes_per_s: u64,
    /// What is kept free for clones that wait, and for which one first.
    kept_clones: u32,
    kept_bytes_per_s: u64,
    kept_for: Option<u64>,
}

/// Why a clone cannot go through a place now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Closed {
    Slots { clones: u32 },
    Bandwidth { free_bytes_per_s: u64 },
    Kept { for_job: u64 },
}

/// What goes through every place.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Usage(BTreeMap<Gate, Taken>);

impl Usage {
    pub(super) fn take(&mut self, gates: &[Gate], bytes_per_s: u64) {
        for gate in gates {
            let taken = self.0.entry(gate.clone()).or_default();
            taken.clones = taken.clones.saturating_add(1);
            taken.bytes_per_s = taken.bytes_per_s.saturating_add(bytes_per_s);
        }
    }

    /// Keeps room for a clone that waits.
    pub(super) fn keep(&mut self, gates: &[Gate], bytes_per_s: u64, job: u64) {
        for gate in gates {
            let taken = self.0.entry(gate.clone()).or_default();
            taken.kept_clones = taken.kept_clones.saturating_add(1);
            taken.kept_bytes_per_s = taken.kept_bytes_per_s.saturating_add(bytes_per_s);
            taken.kept_for.get_or_insert(job);
        }
    }

    /// What is left of a place beside clones that take something now, whatever is kept for those that wait.
    pub(super) fn not_taken(&self, limits: &Limits, gate: &Gate) -> u64 {
        let taken = self.0.get(gate).map_or(0, |taken| taken.bytes_per_s);
        limits.of(gate).bytes_per_s_max.saturating_sub(taken)
    }

    /// Another rate of a clone that goes through these.
    pub(super) fn change(&mut self, gates: &[Gate], from: u64, to: u64) {
        for gate in gates {
            let taken = self.0.entry(gate.clone()).or_default();
            taken.bytes_per_s = taken.bytes_per_s.saturating_sub(from).saturating_add(to);
        }
    }

    /// What is left of a place, in bytes a second.
    pub(super) fn left(&self, limits: &Limits, gate: &Gate) -> u64 {
        let taken = self.0.get(gate).copied().unwrap_or_default();
        let used = taken.bytes_per_s.saturating_add(taken.kept_bytes_per_s);
        limits.of(gate).bytes_per_s_max.saturating_sub(used)
    }

    /// What is left of all these.
    pub(super) fn left_of_all(&self, limits: &Limits, gates: &[Gate]) -> u64 {
        gates.iter().map(|gate| self.left(limits, gate)).min().unwrap_or(u64::MAX)
    }

    /// How many clones go through a place, those included that room is kept for.
    pub(super) fn clones(&self, gate: &Gate) -> u32 {
        self.0.get(gate).map_or(0, |taken| taken.clones.saturating_add(taken.kept_clones))
    }

    /// Why a clone that needs so many bytes a second cannot go through a place, if it cannot.
    pub(super) fn closed(&self, limits: &Limits, gate: &Gate, bytes_per_s: u64) -> Option<Closed> {
        let taken = self.0.get(gate).copied().unwrap_or_default();
        let ceiling = limits.of(gate);
        if taken.clones >= ceiling.clones_max {
            return Some(Closed::Slots { clones: taken.clones });
        }
        let free_bytes_per_s = ceiling.bytes_per_s_max.saturating_sub(taken.bytes_per_s);
        if free_bytes_per_s < bytes_per_s {
            return Some(Closed::Bandwidth { free_bytes_per_s });
        }
        let is_kept = self.clones(gate) >= ceiling.clones_max || self.left(limits, gate) < bytes_per_s;
        taken.kept_for.filter(|_| is_kept).map(|for_job| Closed::Kept { for_job })
    }
}

/// A share of the bandwidth for each of these clones, given as the places that it goes through and what it wants at most:
/// all rise together until they have what they want, or something that they go through has no more to give.
pub(super) fn shares(room: impl Fn(&Gate) -> u64, clones: &[(&[Gate], u64)]) -> Vec<u64> {
    let mut shares = vec![0_u64; clones.len()];
    let mut rising: Vec<usize> = (0..clones.len()).collect();
    let mut left: BTreeMap<&Gate, u64> = BTreeMap::new();
    for gate in clones.iter().flat_map(|(gates, _)| *gates) {
        left.entry(gate).or_insert_with(|| room(gate));
    }
    while !rising.is_empty() {
        let mut through: BTreeMap<&Gate, u64> = BTreeMap::new();
        for gate in rising.iter().flat_map(|at| clones[*at].0) {
            *through.entry(gate).or_default() += 1;
        }
        let of_gates = through.iter().map(|(gate, count)| left[gate] / count).min().unwrap_or(u64::MAX);
        let of_wants = rising.iter().map(|at| clones[*at].1 - shares[*at]).min().unwrap_or(0);
        let rise = of_gates.min(of_wants);
        for at in &rising {
            shares[*at] += rise;
        }
        for (gate, count) in &through {
            if let Some(left) = left.get_mut(gate) {
                *left = left.saturating_sub(rise.saturating_mul(*count));
            }
        }
        let is_full = |gate: &Gate| left[gate] < through[gate];
        rising.retain(|at| shares[*at] < clones[*at].1 && !clones[*at].0.iter().any(is_full));
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_places_that_a_clone_goes_through_follow_from_the_labels_of_both_nodes() {
        let (a, b) = (Labels::of([("datacenter", "x")]), Labels::of([("datacenter", "y")]));
        let place = |node, labels| Place { node, labels };
        let names = |from, to, primary| {
            Gate::between(from, to, primary).iter().map(Gate::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            names(place("p", &a), place("q", &b), true),
            ["node-in:q", "node-out:p", "datacenter-in:y", "datacenter-out:x", "link:x/y", "primary:p"]
        );
        assert_eq!(
            names(place("p", &a), place("q", &a), false),
            ["node-in:q", "node-out:p", "datacenter-in:x", "datacenter-out:x"]
        );
        let nowhere = Labels::default();
        assert_eq!(
            names(place("p", &nowhere), place("q", &b), false),
            ["node-in:q", "node-out:p", "datacenter-in:y"]
        );
    }

    #[test]
    fn places_are_read_as_they_are_written() {
        for text in ["node-out", "node-in:a", "link:x/y", "datacenter-in:x", "primary"] {
            assert_eq!(text.parse::<Gate>().unwrap().to_string(), text);
        }
        for text in ["", "node", "link:x", "link:/y", "node-in:"] {
            assert!(text.parse::<Gate>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_set_for_one_place_comes_before_what_is_set_for_all() {
        let ceiling = |clones_max| Ceiling { clones_max, bytes_per_s_max: 1 << 20 };
        let mut limits = Limits::default();
        let gate = Gate::new(GateKind::NodeOut, "a");
        assert_eq!(limits.of(&gate), GateKind::NodeOut.usual());
        limits.set.insert(Gate::new(GateKind::NodeOut, ""), ceiling(3));
        assert_eq!(limits.of(&gate), ceiling(3));
        limits.set.insert(gate.clone(), ceiling(9));
        assert_eq!(limits.of(&gate), ceiling(9));
        assert_eq!(limits.of(&Gate::new(GateKind::NodeOut, "b")), ceiling(3));
    }

    #[test]
    fn all_rise_together_until_they_have_what_they_want_or_nothing_is_left() {
        let gate = |name: &str| Gate::new(GateKind::NodeOut, name);
        let (both, wide, narrow) = ([gate("wide"), gate("narrow")], [gate("wide")], [gate("narrow")]);
        let room = |gate: &Gate| if gate.name == "wide" { 100 } else { 20 };
        let clones: [(&[Gate], u64); 4] = [(&both, 50), (&wide, 30), (&wide, u64::MAX), (&narrow, u64::MAX)];
        assert_eq!(shares(room, &clones), [10, 30, 60, 10]);
        assert_eq!(shares(|_| 2, &clones), [0, 0, 0, 2], "fewer bytes than clones");
        assert!(shares(room, &[]).is_empty());
    }
}
