//! Links of the documents: where they lead, and whether there is something.

use std::collections::BTreeSet;

use crate::source::{Source, root};

/// The targets of the links in a document that lead into the workspace: path (may be empty) and heading (may be empty).
pub(crate) fn targets(document: &Source) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for part in without_code(&document.text).split("](").skip(1) {
        let target = part.split(')').next().unwrap_or_default();
        if !target.contains("://") {
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            found.push((path.to_owned(), heading.to_owned()));
        }
    }
    found
}

/// The path from the root that `path` in `document` names.
pub(crate) fn resolve(document: &Source, path: &str) -> String {
    if path.is_empty() {
        return document.path.clone();
    }
    let mut parts: Vec<&str> = document.path.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Whether there is something at a path from the root.
pub(crate) fn exists(path: &str) -> bool {
    root().join(path).exists()
}

/// The names under which a document's headings are linked to.
pub(crate) fn headings(document: &Source) -> BTreeSet<String> {
    let text = without_code(&document.text);
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings.map(|line| slug(line.trim_start_matches('#').trim())).collect()
}

fn slug(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

fn without_code(text: &str) -> String {
    let mut in_code = false;
    let mut out = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
