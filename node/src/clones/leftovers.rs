use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use planaria_engine::ClonePlace;
use planaria_engine::os::Os;
use planaria_net::wire::message::CloneInfo;

/// Endings of directories that belong to a clone which is not complete or has not got its place yet.
const ENDINGS: [&str; 3] = [".partial", ".next", ".renewing"];

/// What commands that ended have left of clones in a directory.
pub(crate) fn leftovers(dir: &Path, os: &Arc<dyn Os>) -> Vec<CloneInfo> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let Ok(entries) = os.list(dir) else { return Vec::new() };
    let mut names = BTreeSet::new();
    for entry in entries.into_iter().filter(|entry| entry.is_dir) {
        let mut name = entry.name.as_str();
        while let Some(rest) = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)) {
            name = rest;
        }
        if name.len() < entry.name.len() && !name.is_empty() {
            names.insert(name.to_owned());
        }
    }
    let left = names.into_iter().filter_map(|name| {
        let place = ClonePlace::new(dir.join(&name), Arc::clone(os));
        (!place.partials().is_empty()).then(|| interrupted(&name, &place))
    });
    left.collect()
}

fn interrupted(name: &str, place: &ClonePlace) -> CloneInfo {
    let shown = place.dir().display().to_string();
    let parts = place.partials();
    let parts: Vec<_> = parts.iter().map(|part| part.display().to_string()).collect();
    CloneInfo {
        name: name.to_owned(),
        state: "interrupted".into(),
        reasons: vec![
            format!("what came of it lies in {}", parts.join(", ")),
            format!("`clone create` with the same target goes on with it, `clone cancel {shown}` removes it"),
        ],
        target: shown,
        ..CloneInfo::default()
    }
}
