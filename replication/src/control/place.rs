use std::collections::BTreeMap;
use std::fmt;

/// The labels that say where a node is, from the widest to the narrowest. Others may be given, and decide nothing.
pub const LABELS: [&str; 3] = ["region", "datacenter", "rack"];

/// The labels of a node, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Labels(pub BTreeMap<String, String>);

impl Labels {
    /// The labels of these names and values.
    pub fn of<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// The value of a label, if it is given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// How far two nodes are from one another, as far as their labels tell.
    ///
    /// They share a place if the narrowest label that both have is equal, and all that are wider are equal or given for
    /// neither. Nodes that share no label are far apart: nothing says that they are near.
    pub fn distance(&self, other: &Self) -> Distance {
        let mut distance = Distance::Apart;
        for (name, shared) in LABELS.into_iter().zip([Distance::Region, Distance::Datacenter, Distance::Rack])
        {
            match (self.get(name), other.get(name)) {
                (None, None) => {}
                (own, others) if own == others => distance = shared,
                _ => break,
            }
        }
        distance
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, value)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{name}={value}")?;
        }
        Ok(())
    }
}

/// The narrowest place that two nodes share.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Distance {
    /// The same rack.
    Rack,
    /// The same datacenter.
    Datacenter,
    /// The same region.
    Region,
    /// None that is known.
    Apart,
}

impl fmt::Display for Distance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rack => "same rack",
            Self::Datacenter => "same datacenter",
            Self::Region => "same region",
            Self::Apart => "no place in common",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Distance, Labels};

    fn distance(one: &[(&'static str, &'static str)], other: &[(&'static str, &'static str)]) -> Distance {
        let labels = |of: &[(&'static str, &'static str)]| Labels::of(of.iter().copied());
        let there = labels(one).distance(&labels(other));
        assert_eq!(there, labels(other).distance(&labels(one)), "it is as far back");
        there
    }

    #[test]
    fn the_narrowest_place_that_two_nodes_share_tells_how_far_they_are() {
        let here = [("region", "eu"), ("datacenter", "a"), ("rack", "1")];
        assert_eq!(distance(&here, &here), Distance::Rack);
        assert_eq!(
            distance(&here, &[("region", "eu"), ("datacenter", "a"), ("rack", "2")]),
            Distance::Datacenter
        );
        assert_eq!(distance(&here, &[("region", "eu"), ("datacenter", "a")]), Distance::Datacenter);
        assert_eq!(
            distance(&here, &[("region", "eu"), ("datacenter", "b"), ("rack", "1")]),
            Distance::Region
        );
        assert_eq!(distance(&here, &[("region", "us"), ("datacenter", "a"), ("rack", "1")]), Distance::Apart);
    }

    #[test]
    fn a_label_that_neither_has_is_passed_over_and_one_that_is_missing_differs() {
        assert_eq!(distance(&[("datacenter", "a")], &[("datacenter", "a")]), Distance::Datacenter);
        assert_eq!(distance(&[("rack", "1")], &[("rack", "1")]), Distance::Rack);
        assert_eq!(distance(&[("region", "eu"), ("rack", "1")], &[("rack", "1")]), Distance::Apart);
        assert_eq!(distance(&[], &[]), Distance::Apart);
        assert_eq!(distance(&[("disk", "fast")], &[("disk", "fast")]), Distance::Apart);
    }

    #[test]
    fn labels_read_as_they_are_given() {
        let labels = Labels::of([("region", "eu"), ("datacenter", "a")]);
        assert_eq!(labels.to_string(), "datacenter=a,region=eu");
    }
}
