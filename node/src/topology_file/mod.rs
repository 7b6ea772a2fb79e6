//! A topology as a file: read with the line of what is wrong, and written in the same form.

mod parts;

use std::collections::BTreeMap;
use std::ops::Range;

use planaria_net::wire::topology::Topology;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use self::parts::{Database, Datacenter, Limit, Node, Rule, Schedule};
use crate::output::CliError;

/// Bytes of a file, at most.
pub(crate) const FILE_BYTES_MAX: u64 = 4 << 20;

/// What a file holds: things of a kind, each by its name.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Contents {
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    datacenters: Named<Datacenter>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    nodes: Named<Node>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    databases: Named<Database>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    limits: Named<Limit>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    schedules: Named<Schedule>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    rules: Named<Rule>,
}

type Named<T> = BTreeMap<String, Spanned<T>>;

/// A topology that was read, with the places of its items.
pub(crate) struct TopologyFile {
    pub(crate) topology: Topology,
    text: String,
    /// Where each item stands, by its kind and name.
    places: BTreeMap<String, Range<usize>>,
}

impl TopologyFile {
    /// Reads the text of a file.
    ///
    /// # Errors
    ///
    /// `invalid` with the line of what is no topology.
    pub(crate) fn read(text: String) -> Result<Self, CliError> {
        let contents: Contents = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| line_of(&text, span.start));
            wrong(line, error.message())
        })?;
        let mut places = BTreeMap::new();
        let topology = contents.topology(&mut places).map_err(|(place, what)| {
            let line = line_of(&text, place.start);
            wrong(line, &what)
        })?;
        Ok(Self { topology, text, places })
    }

    /// What the control center refused, with the line of the item that it names in front.
    pub(crate) fn locate(&self, mut error: CliError) -> CliError {
        let names = |item: &&String| {
            error.what.strip_prefix(item.as_str()).is_some_and(|rest| rest.starts_with(": "))
        };
        // Names may begin alike.
        let item = self.places.keys().filter(names).max_by_key(|item| item.len());
        if let Some(place) = item.and_then(|item| self.places.get(item)) {
            error.what = format!("line {}: {}", line_of(&self.text, place.start), error.what);
        }
        error
    }
}

/// The text of a file that declares what holds.
pub(crate) fn write(topology: Topology) -> Result<String, CliError> {
    toml::to_string(&Contents::of(topology))
        .map_err(|error| CliError::new("internal", format!("the topology cannot be written: {error}")))
}

/// The same for programs.
pub(crate) fn write_json(topology: Topology) -> Result<String, CliError> {
    serde_json::to_string(&Contents::of(topology))
        .map_err(|error| CliError::new("internal", format!("the topology cannot be written: {error}")))
}

impl Contents {
    fn topology(
        self,
        places: &mut BTreeMap<String, Range<usize>>,
    ) -> Result<Topology, (Range<usize>, String)> {
        Ok(Topology {
            datacenters: specs("datacenters", self.datacenters, places, |name, spec| Ok(spec.spec(name)))?,
            nodes: specs("nodes", self.nodes, places, |name, spec| Ok(spec.spec(name)))?,
            databases: specs("databases", self.databases, places, |name, spec| Ok(spec.spec(name)))?,
            limits: specs("limits", self.limits, places, |gate, spec| Ok(spec.spec(gate)))?,
            schedules: specs("schedules", self.schedules, places, |name, spec| spec.spec(name))?,
            rules: specs("rules", self.rules, places, |name, spec| spec.spec(name))?,
        })
    }

    fn of(topology: Topology) -> Self {
        fn named<S, T>(specs: Vec<S>, part: impl Fn(S) -> (String, T)) -> Named<T> {
            specs.into_iter().map(part).map(|(name, part)| (name, Spanned::new(0..0, part))).collect()
        }
        Self {
            datacenters: named(topology.datacenters, Datacenter::of),
            nodes: named(topology.nodes, Node::of),
            databases: named(topology.databases, Database::of),
            limits: named(topology.limits, Limit::of),
            schedules: named(topology.schedules, Schedule::of),
            rules: named(topology.rules, Rule::of),
        }
    }
}

/// The things of a kind for the control center. Where each stands is noted under its kind and name.
fn specs<T, S>(
    kind: &str,
    named: Named<T>,
    places: &mut BTreeMap<String, Range<usize>>,
    spec: impl Fn(String, T) -> Result<S, String>,
) -> Result<Vec<S>, (Range<usize>, String)> {
    let one = |(name, part): (String, Spanned<T>)| {
        let (place, item) = (part.span(), format!("{kind}.{name}"));
        places.insert(item.clone(), place.clone());
        spec(name, part.into_inner()).map_err(|what| (place, format!("{item}: {what}")))
    };
    named.into_iter().map(one).collect()
}

/// The line of a place, counted from one.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn wrong(line: usize, what: &str) -> CliError {
    CliError::new("invalid", format!("line {line}: {what}"))
        .hint("`planaria topology apply --help` has an example; `topology show` prints what holds now")
}

#[cfg(test)]
#[path = "topology_file_tests.rs"]
mod tests;
