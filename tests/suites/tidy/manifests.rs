//! What the crates depend on, from their manifests and from the lock file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::source::root;

/// A crate of the workspace.
pub(crate) struct Crate {
    pub(crate) name: String,
    /// The directory of its manifest, from the root of the workspace.
    pub(crate) dir: String,
    /// What it is built from.
    pub(crate) dependencies: BTreeSet<String>,
    /// What it is built from only if somebody asks for a feature.
    pub(crate) optional: BTreeSet<String>,
    /// The features that it has without being asked.
    pub(crate) default_features: String,
    /// What its tests need besides.
    pub(crate) dev_dependencies: BTreeSet<String>,
    pub(crate) has_workspace_lints: bool,
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path} cannot be read: {error}"))
}

/// The members of the workspace.
pub(crate) fn crates() -> Vec<Crate> {
    let manifest = read("Cargo.toml");
    let members = manifest.split("members = [").nth(1).and_then(|rest| rest.split(']').next());
    let members = members.expect("the manifest lists its members").lines();
    members.filter_map(|line| line.split('"').nth(1)).map(parse).collect()
}

fn parse(dir: &str) -> Crate {
    let mut found = Crate {
        name: String::new(),
        dir: dir.to_owned(),
        dependencies: BTreeSet::new(),
        optional: BTreeSet::new(),
        default_features: String::new(),
        dev_dependencies: BTreeSet::new(),
        has_workspace_lints: false,
    };
    let mut section = String::new();
    for line in read(&format!("{dir}/Cargo.toml")).lines() {
        if let Some(header) = line.strip_prefix('[') {
            header.trim_end_matches(']').clone_into(&mut section);
            continue;
        }
        let Some((key, value)) = line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) else {
            continue;
        };
        let dependency = key.split('.').next().unwrap_or_default().to_owned();
        match section.as_str() {
            "package" if key == "name" => value.trim_matches('"').clone_into(&mut found.name),
            "lints" if key == "workspace" => found.has_workspace_lints = value == "true",
            "features" if key == "default" => value.clone_into(&mut found.default_features),
            "dev-dependencies" => drop(found.dev_dependencies.insert(dependency)),
            section if section.ends_with("dependencies") && value.contains("optional = true") => {
                found.optional.insert(dependency);
            }
            section if section.ends_with("dependencies") => drop(found.dependencies.insert(dependency)),
            _ => {}
        }
    }
    assert!(!found.name.is_empty(), "{dir}/Cargo.toml names no package");
    found
}

/// What each package of a lock file depends on: its tests' needs if it is of the workspace, and those of every target.
pub(crate) fn locked(path: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut packages: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in read(path).split("[[package]]").skip(1) {
        let field = |key: &str| {
            let line = package.lines().find_map(|line| line.strip_prefix(key))?;
            Some(line.trim_matches('"').to_owned())
        };
        let list = package.split("dependencies = [").nth(1).and_then(|rest| rest.split(']').next());
        let names = list.unwrap_or_default().lines().filter_map(|line| line.split('"').nth(1));
        let names = names.filter_map(|name| name.split(' ').next()).map(str::to_owned);
        let name = field("name = ").expect("a package of the lock file has a name");
        packages.entry(name).or_default().extend(names);
    }
    packages
}

/// All that a crate draws in, by the lock file: its tests' needs and those of every target included, its own optional
/// dependencies left out.
pub(crate) fn closure(name: &str) -> BTreeSet<String> {
    let mut packages = locked("Cargo.lock");
    if let (Some(own), Some(needs)) = (crates().iter().find(|of| of.name == name), packages.get_mut(name)) {
        needs.retain(|name| !own.optional.contains(name));
    }
    let mut reached = BTreeSet::new();
    let mut open = vec![name.to_owned()];
    while let Some(name) = open.pop() {
        if reached.insert(name.clone()) {
            open.extend(packages.get(&name).cloned().unwrap_or_default());
        }
    }
    assert!(reached.len() > 3, "{name} is not in the lock file");
    reached
}
