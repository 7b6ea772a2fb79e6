//! What must hold of the sources themselves: who may know whom, what may be named where, how long things are.
//!
//! Each complaint says what to do instead. An exception is a line in a table here, with its reason.

mod links;
mod manifests;
mod source;

use std::collections::BTreeSet;

use source::{Source, line_of, names};

/// Lines of a file without its tests.
const FILE_LINES_MAX: usize = 700;
/// Lines of a function, its signature included.
const FUNCTION_LINES_MAX: usize = 70;

/// Files that are longer, and why.
const LONG_FILES: [(&str, &str); 0] = [];

/// Functions that are longer, and why.
const LONG_FUNCTIONS: [(&str, &str, &str); 1] = [(
    "replication/tests/simulation/driver.rs",
    "act_secondary",
    "one arm for each action, none of them long",
)];

/// Characters beyond ASCII that texts may hold: those that say something which ASCII does not.
const SYMBOLS: &str = "µ×±·–−…→←↓↑≤≥⌈⌉⌊⌋‖⏎²é";

/// Which crates of the workspace a crate may know. Whoever is missing here may know all of them.
const MAY_KNOW: [(&str, &[&str]); 8] = [
    ("planaria-types", &[]),
    ("planaria-engine", &["planaria-types"]),
    ("planaria-replication", &["planaria-types"]),
    ("planaria-net", &["planaria-engine", "planaria-replication", "planaria-types"]),
    ("planaria", &["planaria-engine", "planaria-types"]),
    ("planaria-backup", &["planaria-engine", "planaria-types"]),
    ("planaria-control", &["planaria-engine", "planaria-net", "planaria-replication", "planaria-types"]),
    (
        "planaria-node",
        &[
            "planaria-backup",
            "planaria-control",
            "planaria-engine",
            "planaria-net",
            "planaria-replication",
            "planaria-types",
        ],
    ),
];

/// Which ones it may know besides, if somebody asks for a feature.
const MAY_KNOW_IF_ASKED: [(&str, &[&str]); 1] = [("planaria", &["planaria-net", "planaria-replication"])];

/// Crates that nobody may know.
const KNOWN_TO_NOBODY: [&str; 4] = ["planaria-node", "planaria-bench", "planaria-fuzz", "planaria-tests"];

/// What may be named only in some places.
struct Place {
    /// Paths or words; a name in code that is these as a whole.
    names: &'static [&'static str],
    /// Where the rule holds: beginnings of paths.
    within: &'static [&'static str],
    /// Its homes: beginnings of paths.
    except: &'static [&'static str],
    /// What to do.
    instead: &'static str,
}

const PLACES: [Place; 10] = [
    Place {
        names: &["object_store"],
        within: &["backup/", "node/", "control/", "net/"],
        except: &["backup/src/store.rs"],
        instead: "use `Store`, which has the few calls that backups need and errors in our words",
    },
    Place {
        names: &["std::fs", "memmap2", "rustix", "File", "OpenOptions"],
        within: &["engine/", "replication/", "control/"],
        except: &["engine/src/os/"],
        instead: "go through `Os` and `OsFile` (engine/src/os), which tests can crash and fail",
    },
    Place {
        names: &["Instant", "SystemTime"],
        within: &["engine/", "replication/", "control/"],
        except: &["engine/src/os/"],
        instead: "take the time from `Os`, or as an argument",
    },
    Place {
        names: &[
            "std::sync::atomic",
            "parking_lot",
            "crossbeam",
            "std::sync::Mutex",
            "std::sync::RwLock",
            "loom",
        ],
        within: &["engine/src/"],
        except: &["engine/src/sync.rs", "engine/src/os/"],
        instead: "name it in engine/src/sync.rs, so that loom can take its place, and use `crate::sync`",
    },
    Place {
        names: &["std::thread", "std::net", "std::io", "std::env", "std::sync", "std::process"],
        within: &["replication/src/", "engine/types/src/"],
        except: &[],
        instead: "inputs come in by `handle_*`, outputs go out by `poll_*`; a driver does the rest",
    },
    Place {
        names: &["quinn", "quinn_proto", "rustls", "rcgen", "webpki", "socket2"],
        within: &["engine/", "replication/", "control/", "node/", "net/src/"],
        except: &["net/src/quic/", "net/src/error.rs"],
        instead: "use the types of net/src/quic, which wrap it",
    },
    Place {
        names: &["tokio", "tracing"],
        within: &["engine/", "replication/"],
        except: &[],
        instead: "stay synchronous; who drives you runs you on a thread and tells what happened",
    },
    Place {
        names: &["tokio", "std::thread"],
        within: &["control/"],
        except: &[],
        instead: "answer a request on the thread that brings it; time is an argument",
    },
    Place {
        names: &["unsafe"],
        within: &[
            "engine/",
            "replication/",
            "net/",
            "backup/",
            "control/",
            "node/",
            "tests/",
            "fuzz/",
            "bench/",
        ],
        except: &[
            "engine/src/os/map.rs",
            "engine/src/os/behind.rs",
            "engine/src/memtable/",
            "engine/src/sync.rs",
            // Other people's stores, in a program that is no part of the workspace.
            "bench/compare/src/stores/lmdb.rs",
            "bench/compare/src/stores/rocksdb.rs",
        ],
        instead: "find a safe way, or put it into one of the few files that have it, with a SAFETY contract",
    },
    Place {
        names: &["println!", "eprintln!", "print!", "eprint!"],
        within: &["engine/", "replication/src/", "net/src/", "backup/src/", "control/src/", "node/src/"],
        except: &[],
        instead: "return it; the program writes to a writer that it was given",
    },
];

/// Words that must not be in any text of the workspace, and what to do. Written in parts, so that this is none.
const WORDS: [(&str, &str); 9] = [
    (concat!("TO", "DO"), "do it, or write it down in docs/PLAN.md"),
    (concat!("FIX", "ME"), "fix it, or write it down in docs/PLAN.md"),
    (concat!("todo", "!("), "write it"),
    (concat!("unimplemented", "!("), "write it, or return an error that says so"),
    (concat!("dbg", "!("), "take it out"),
    (concat!("#[ig", "nore]"), "say why: #[ignore = \"...\"]"),
    (concat!("/wo", "rk/"), "leave paths of one machine out"),
    (concat!("/tm", "p/"), "use a directory of `tempfile`, or a relative path"),
    (concat!("/ro", "ot/"), "leave paths of one machine out"),
];

fn complain(what: &[String]) {
    assert!(what.is_empty(), "{} complaints:\n{}", what.len(), what.join("\n"));
}

fn begins_with_any(path: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| path.starts_with(prefix))
}

#[test]
fn crates_know_only_whom_they_may_know() {
    let crates = manifests::crates();
    let ours: BTreeSet<&str> = crates.iter().map(|of| of.name.as_str()).collect();
    let mut complaints = Vec::new();
    for of in &crates {
        let known = of.dependencies.union(&of.dev_dependencies).map(String::as_str);
        let known = known.filter(|name| ours.contains(name) && *name != of.name);
        for name in known {
            let allowed = MAY_KNOW.iter().find(|(own, _)| *own == of.name);
            if KNOWN_TO_NOBODY.contains(&name) || allowed.is_some_and(|(_, allowed)| !allowed.contains(&name))
            {
                complaints.push(format!(
                    "{}/Cargo.toml: {} may not know {name}; move what both need to where both may look",
                    of.dir, of.name
                ));
            }
        }
        let allowed = MAY_KNOW_IF_ASKED.iter().find(|(own, _)| *own == of.name);
        let optional = of.optional.iter().map(String::as_str).filter(|name| ours.contains(name));
        for name in optional.filter(|name| !allowed.is_some_and(|(_, allowed)| allowed.contains(name))) {
            complaints.push(format!("{}/Cargo.toml: {} may not know {name}, asked or not", of.dir, of.name));
        }
        if !of.has_workspace_lints {
            complaints.push(format!("{}/Cargo.toml: add [lints] with workspace = true", of.dir));
        }
    }
    complain(&complaints);
}

#[test]
fn who_embeds_the_engine_compiles_no_runtime_and_no_network() {
    let embedded = manifests::crates().into_iter().find(|of| of.name == "planaria");
    let features = embedded.expect("there is a crate planaria").default_features;
    assert!(features.is_empty(), "the crate planaria has the features {features} without being asked");
    let drawn_in = manifests::closure("planaria");
    for name in ["tokio", "quinn", "rustls", "planaria-net", "planaria-node", "clap"] {
        assert!(!drawn_in.contains(name), "the crate planaria draws in {name}: keep it out of the engine");
    }
    let replication = manifests::crates().into_iter().find(|of| of.name == "planaria-replication");
    let dependencies = replication.expect("there is a crate planaria-replication").dependencies;
    let allowed = ["planaria-types", "bytes", "serde", "thiserror"].map(str::to_owned);
    let more: Vec<_> = dependencies.iter().filter(|name| !allowed.contains(name)).collect();
    assert!(more.is_empty(), "the protocol needs no {more:?}: hand in what they give as an argument");
}

/// It is built by whoever compares, and by nobody else.
#[test]
fn the_comparison_s_lock_file_has_what_the_engine_needs() {
    let locked = manifests::locked("bench/compare/Cargo.lock");
    for of in manifests::crates() {
        let Some(known) = locked.get(&of.name) else { continue };
        let missing: Vec<_> = of.dependencies.difference(known).collect();
        assert!(
            missing.is_empty(),
            "bench/compare/Cargo.lock lacks {missing:?} of {}: build it once",
            of.name
        );
    }
    assert!(locked.contains_key("planaria-engine"));
}

#[test]
fn names_are_in_their_places() {
    let mut complaints = Vec::new();
    let production = |file: &Source| file.is_rust() && !file.is_test() && !file.path.contains("/examples/");
    for file in source::all().into_iter().filter(production) {
        let code = file.production_code();
        for place in PLACES.iter().filter(|place| begins_with_any(&file.path, place.within)) {
            if begins_with_any(&file.path, place.except) {
                continue;
            }
            for name in place.names {
                if let Some(at) = names(&code, name) {
                    let line = line_of(&code, at);
                    complaints
                        .push(format!("{}:{line}: `{name}` has no place here: {}", file.path, place.instead));
                }
            }
        }
    }
    complain(&complaints);
}

#[test]
fn files_are_of_a_size_to_be_read() {
    let mut complaints = Vec::new();
    for file in source::all().into_iter().filter(Source::is_rust) {
        let lines = if file.is_test() {
            file.text.lines().count()
        } else {
            let code = file.production_code();
            let tests = code.lines().rev().take_while(|line| line.is_empty()).count();
            code.lines().count() - tests
        };
        let known = LONG_FILES.iter().any(|(path, _)| *path == file.path);
        if lines > FILE_LINES_MAX && !known {
            complaints.push(format!(
                "{}: {lines} lines without tests, {FILE_LINES_MAX} is a lot: give each noun a file of its own",
                file.path
            ));
        }
    }
    complain(&complaints);
}

#[test]
fn functions_fit_a_screen() {
    let mut complaints = Vec::new();
    for file in source::all().into_iter().filter(Source::is_rust) {
        for function in file.functions() {
            let known =
                LONG_FUNCTIONS.iter().any(|(path, name, _)| *path == file.path && *name == function.name);
            if function.lines > FUNCTION_LINES_MAX && !known {
                complaints.push(format!(
                    "{}:{}: `{}` has {} lines, {FUNCTION_LINES_MAX} fit: let it decide, and others do",
                    file.path, function.line, function.name, function.lines
                ));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn the_lists_of_exceptions_are_not_longer_than_needed() {
    let files = source::all();
    for (path, name, _) in LONG_FUNCTIONS {
        let file = files.iter().find(|file| file.path == path);
        let function = file.and_then(|file| file.functions().into_iter().find(|own| own.name == name));
        let is_long = function.is_some_and(|own| own.lines > FUNCTION_LINES_MAX);
        assert!(is_long, "`{name}` in {path} needs no exception any more: take it out of LONG_FUNCTIONS");
    }
    for (path, _) in LONG_FILES {
        let lines = files.iter().find(|file| file.path == path).map_or(0, |file| file.text.lines().count());
        assert!(lines > FILE_LINES_MAX, "{path} needs no exception any more: take it out of LONG_FILES");
    }
}

#[test]
fn nothing_is_left_undone_and_nothing_names_a_machine() {
    let mut complaints = Vec::new();
    for file in source::all() {
        for (word, instead) in WORDS {
            if let Some(at) = file.text.find(word) {
                complaints.push(format!("{}:{}: {word}: {instead}", file.path, line_of(&file.text, at)));
            }
        }
    }
    complain(&complaints);
}

#[test]
fn texts_are_clean() {
    let mut complaints = Vec::new();
    for file in source::all() {
        let mut complaint =
            |line: usize, what: String| complaints.push(format!("{}:{line}: {what}", file.path));
        for (at, line) in file.text.lines().enumerate() {
            if line.ends_with(' ') {
                complaint(at + 1, "blanks at the end of the line: take them off".into());
            }
            if let Some(c) = line.chars().find(|c| !matches!(c, ' '..='~') && !SYMBOLS.contains(*c)) {
                complaint(
                    at + 1,
                    format!("the character {c:?}: write ASCII, or add it to SYMBOLS with a reason"),
                );
            }
        }
        if !file.text.ends_with('\n') || file.text.ends_with("\n\n") {
            complaint(file.text.lines().count(), "end the file with one line break".into());
        }
    }
    complain(&complaints);
}

#[test]
fn every_link_leads_somewhere() {
    let documents: Vec<Source> = source::all().into_iter().filter(Source::is_document).collect();
    let mut complaints = Vec::new();
    for document in &documents {
        for (path, heading) in links::targets(document) {
            let target = links::resolve(document, &path);
            if !links::exists(&target) {
                complaints.push(format!("{}: there is no {target}", document.path));
            } else if !heading.is_empty() {
                let led_to = documents.iter().find(|other| other.path == target);
                if !led_to.is_some_and(|other| links::headings(other).contains(&heading)) {
                    complaints.push(format!("{}: {target} has no heading #{heading}", document.path));
                }
            }
        }
    }
    complain(&complaints);
}

#[test]
fn every_decision_has_a_number_of_its_own() {
    let files = source::all();
    let names = files.iter().filter_map(|file| file.path.strip_prefix("docs/decisions/"));
    let mut seen = BTreeSet::new();
    for name in names {
        let number = name.split('-').next().unwrap_or_default();
        assert!(
            number.len() == 4 && number.parse::<u16>().is_ok(),
            "{name}: begin with four digits and a dash"
        );
        assert!(seen.insert(number), "two decisions have the number {number}: take the next free one");
    }
}
