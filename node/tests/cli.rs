//! The program as its users meet it: real commands on databases in directories of their own.
#![expect(clippy::unwrap_used, reason = "the helpers of these tests are tests, too")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value as Json;
use tempfile::TempDir;

/// A directory of a test, with `db` in it for a database.
struct Site(TempDir);

/// What a command answered.
struct Answer {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("no signal"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Answer {
    /// What it wrote, if all went well.
    fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// The lines that it wrote, as JSON.
    fn json(self) -> Vec<Json> {
        self.ok().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// What it wrote as one JSON object, and its error.
    fn failed(self, code: i32, name: &str) -> Json {
        assert_eq!(self.code, code, "{}{}", self.stdout, self.stderr);
        let last = self.stderr.lines().last().unwrap_or_default();
        let error: Json = serde_json::from_str(last).unwrap_or_else(|_| panic!("{}", self.stderr));
        assert_eq!(error["error"]["code"], name, "{error}");
        assert!(error["error"]["what"].is_string());
        error["error"].clone()
    }
}

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        name.to_owned()
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_planaria"));
        command.args(words).current_dir(self.0.path()).env("XDG_DATA_HOME", self.path("home"));
        command
    }

    /// Runs a command as it stands.
    fn run(&self, words: &[&str]) -> Answer {
        self.command(words).output().unwrap().into()
    }

    /// Runs a command with JSON for its output.
    fn json(&self, words: &[&str]) -> Answer {
        self.run(&[&["-o", "json"], words].concat())
    }

    fn birds(&self) {
        self.run(&[
            "table",
            "create",
            "db",
            "birds",
            "--column",
            "id:int64",
            "--column",
            "bird:text:null",
            "--key",
            "id",
        ])
        .ok();
    }

    fn digest(&self, table: &str) -> (u64, String) {
        let digest = self.json(&["digest", "db", table]).json();
        (digest[0]["rows"].as_u64().unwrap(), digest[0]["digest"].as_str().unwrap().to_owned())
    }
}

fn data(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name).display().to_string()
}

fn text_of<'a>(error: &'a Json, part: &str) -> &'a str {
    error[part].as_str().unwrap_or_else(|| panic!("{error} has no {part}"))
}

const TABLES: [(&str, &str, u64); 4] = [
    ("weather", "origin,time_hour", 26_115),
    ("planes", "tailnum", 3_322),
    ("airports", "faa", 1_458),
    ("airlines", "carrier", 16),
];

#[test]
fn real_tables_survive_export_and_import() {
    let site = Site::new();
    for (name, key, rows) in TABLES {
        let file = data(&format!("{name}.csv.gz"));
        let report = site.json(&["import", "db", &file, "--key", key, "--null", "NA"]).json();
        assert_eq!(report[0]["rows"], rows);
        assert_eq!(report[0]["complete"], true);
        assert!(report[0]["seconds"].as_f64().unwrap() > 0.0);
        let before = site.digest(name);
        assert_eq!(before.0, rows);
        for (out, again) in [("out.csv", "csv"), ("out.csv.gz", "gz"), ("out.json", "json")] {
            let out = format!("{name}-{out}");
            let exported = site.json(&["export", "db", name, &out, "--null", "NA"]).json();
            assert_eq!(exported[0]["rows"], rows);
            let table = format!("{name}_{again}");
            site.run(&["import", "db", &out, "--table", &table, "--key", key, "--null", "NA"]).ok();
            assert_eq!(site.digest(&table), before, "{table}");
        }
    }
    let tables = site.json(&["table", "list", "db"]).json();
    assert_eq!(tables.len(), 16);
    let verified = site.json(&["verify", "db"]).json();
    assert_eq!(verified[0]["sound"], true);
    assert_eq!(verified[0]["rows"], 4 * TABLES.iter().map(|(_, _, rows)| rows).sum::<u64>());
}

#[test]
fn several_files_and_stdin_are_imported() {
    let site = Site::new();
    let (a, b) = (site.file("a.csv", "id,x\n1,2\n"), site.file("b.ndjson", "{\"id\":1}\n{\"id\":2}\n"));
    let reports = site.json(&["import", "db", &a, &b, "--key", "id"]).json();
    let tables: Vec<_> =
        reports.iter().map(|report| (report["table"].as_str().unwrap(), report["rows"].clone())).collect();
    assert_eq!(tables, [("a", 1.into()), ("b", 2.into())]);
    let mut piped = site.command(&["import", "db", "-", "--table", "c", "--key", "id", "-o", "json"]);
    let mut child = piped.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"id,x\n1,a\n").unwrap();
    let answer: Answer = child.wait_with_output().unwrap().into();
    assert_eq!(answer.json()[0]["rows"], 1);
    site.json(&["import", "db", "-", "--key", "id"]).failed(2, "usage");
}

#[test]
fn rows_are_put_read_scanned_and_deleted() {
    let site = Site::new();
    site.birds();
    for id in 1..=5 {
        site.run(&["put", "db", "birds", &format!("id={id}"), "bird=heron"]).ok();
    }
    site.run(&["put", "db", "birds", "{\"id\": -6, \"bird\": null}"]).ok();
    assert_eq!(site.json(&["get", "db", "birds", "-6"]).ok(), "{\"id\":-6,\"bird\":null}\n");
    assert_eq!(site.run(&["-o", "csv", "get", "db", "birds", "3"]).ok(), "id,bird\n3,heron\n");
    let ids = |words: &[&str]| {
        let rows = site.json(&[&["scan", "db", "birds"], words].concat()).json();
        rows.iter().map(|row| row["id"].to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(ids(&[]), "-6 1 2 3 4 5");
    assert_eq!(ids(&["--reverse", "--limit", "2"]), "5 4");
    assert_eq!(ids(&["--from", "2", "--to", "4"]), "2 3");
    assert_eq!(ids(&["--prefix", "2"]), "2");
    assert_eq!(ids(&["--prefix", "2", "--from", "3"]), "");
    site.run(&["delete", "db", "birds", "3"]).ok();
    site.json(&["get", "db", "birds", "3"]).failed(1, "no_row");
    site.json(&["delete", "db", "birds", "3"]).failed(1, "no_row");
    site.run(&["table", "create", "db", "blobs", "--raw"]).ok();
    site.run(&["put", "db", "blobs", "a", "0xff00"]).ok();
    assert_eq!(site.json(&["scan", "db", "blobs"]).ok(), "{\"key\":\"a\",\"row\":\"0xff00\"}\n");
    let shown = site.json(&["table", "show", "db", "birds"]).json();
    assert_eq!((shown[0]["key"].clone(), shown[1]["nullable"].clone()), (1.into(), true.into()));
    let status = site.json(&["status", "db"]).json();
    assert_eq!(
        (status[0]["state"].clone(), status[0]["tables"][1].clone()),
        ("primary".into(), "blobs".into())
    );
}

#[test]
fn a_bad_line_stops_an_import_which_can_be_completed() {
    let site = Site::new();
    site.birds();
    let file = site.file("birds.csv", "id,bird\n1,heron\n2,\"owl\n3,jay\n");
    let error = site.json(&["import", "db", &file]).failed(1, "csv");
    assert!(text_of(&error, "what").contains("birds.csv: line 3"), "{error}");
    assert!(text_of(&error, "why").starts_with("1 rows before it are imported"), "{error}");
    assert!(text_of(&error, "hint").contains("run the same import again"), "{error}");
    let skipped = site.json(&["import", "db", &file, "--on-error", "skip"]);
    assert!(skipped.stderr.contains("line 3"), "{}", skipped.stderr);
    let report = &skipped.json()[0];
    assert_eq!([&report["rows"], &report["unchanged"], &report["skipped"]], [1, 1, 1]);
    site.file("birds.csv", "id,bird\n1,heron\n2,owl\n3,jay\n");
    let report = &site.json(&["import", "db", &file]).json()[0];
    assert_eq!([&report["rows"], &report["unchanged"]], [1, 2]);
    for (text, line) in
        [("id,bird\n7,a,b\n", "line 2"), ("id,bird\n8,a\nx,b\n", "line 3"), ("id,bird\n,b\n", "line 2")]
    {
        let file = site.file("bad.csv", text);
        let answer = site.json(&["import", "db", &file, "--table", "birds"]);
        assert_eq!(answer.code, 1);
        assert!(answer.stderr.contains(line), "{}", answer.stderr);
    }
}

#[test]
fn duplicates_are_told_by_their_lines() {
    let site = Site::new();
    let file = site.file("birds.csv", "id,bird\n1,heron\n2,owl\n1,wren\n4,jay\n");
    let error = site.json(&["import", "db", &file, "--key", "id"]).failed(1, "duplicate_key");
    assert_eq!(
        text_of(&error, "what"),
        "birds.csv: line 4: the key id=1 is that of line 2, with other contents"
    );
    assert!(text_of(&error, "hint").contains("--on-duplicate replace"), "{error}");
    assert_eq!(site.digest("birds").0, 2);
    let report = &site.json(&["import", "db", &file, "--on-duplicate", "skip"]).json()[0];
    assert_eq!([&report["rows"], &report["unchanged"], &report["duplicates"]], [1, 2, 1]);
    let report = &site.json(&["import", "db", &file, "--on-duplicate", "replace"]).json()[0];
    assert_eq!([&report["replaced"], &report["unchanged"]], [1, 3]);
    assert_eq!(site.json(&["get", "db", "birds", "1"]).ok(), "{\"id\":1,\"bird\":\"wren\"}\n");
}

#[test]
fn wrong_use_is_told_from_failure() {
    let site = Site::new();
    site.birds();
    let file = site.file("new.csv", "id,bird\n1,a\n");
    for words in [
        &["fly"][..],
        &["get", "db"],
        &["get", "db", "birds", "x"],
        &["get", "db", "birds", "1", "2"],
        &["scan", "db", "birds", "--limit", "x"],
        &["put", "db", "birds", "id=1", "wings=2"],
        &["import", "db", &file],
        &["import", "nowhere", &file],
        &["import", "db", &file, "--key", "wings"],
        &["import", "db", &file, "--key", "id", "--type", "bird=song"],
        &["import", "db", &file, "--table", "birds", "--key", "bird"],
        &["import", "db", &file, "--table", "birds", "--type", "id=text"],
        &["table", "create", "db", "t", "--column", "a:text"],
        &["table", "create", "db", "t", "--column", "a:text", "--key", "b"],
        &["--node", "no port", "table", "list"],
    ] {
        let error = site.json(words).failed(2, "usage");
        assert!(!text_of(&error, "what").is_empty(), "{words:?}");
    }
    assert!(!site.path("nowhere").exists(), "wrong use leaves nothing behind");
    for (words, code) in [
        (&["get", "db", "fish", "1"][..], "unknown_table"),
        (&["table", "create", "db", "birds", "--raw"], "table_exists"),
        (&["table", "list", "nowhere"], "not_found"),
        (&["import", "db", "none.csv", "--key", "id"], "input"),
        (&["export", "db", "birds", "no/such/dir.csv"], "output"),
        (&["export", "db", "birds", &file], "output"),
    ] {
        site.json(words).failed(1, code);
    }
    assert_eq!(fs::read_to_string(site.path(&file)).unwrap(), "id,bird\n1,a\n");
    let text = site.run(&["get", "db", "fish", "1"]);
    assert!(text.stderr.starts_with("error[unknown_table]: there is no table"), "{}", text.stderr);
    assert_eq!(site.run(&["--help"]).code, 0);
    assert!(site.run(&["import", "--help"]).ok().contains("Examples:"));
    assert!(site.run(&["--version"]).ok().starts_with("planaria "));
}

#[test]
fn a_directory_in_use_names_the_way_out() {
    let site = Site::new();
    site.birds();
    let holder = planaria_engine::Database::open(site.path("db")).unwrap();
    for words in [&["table", "list", "db"][..], &["put", "db", "birds", "id=1"], &["verify", "db"]] {
        let error = site.json(words).failed(1, "in_use");
        assert!(text_of(&error, "what").contains("--node"), "{error}");
    }
    drop(holder);
    site.run(&["table", "list", "db"]).ok();
}

#[test]
fn damage_is_found_and_named() {
    let site = Site::new();
    site.run(&["import", "db", &data("planes.csv.gz"), "--key", "tailnum", "--null", "NA"]).ok();
    let files = |dir: &Path| -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![dir.to_path_buf()];
        while let Some(dir) = dirs.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { dirs.push(path) } else { found.push(path) }
            }
        }
        found
    };
    for file in files(&site.path("db")) {
        let whole = fs::read(&file).unwrap();
        if whole.len() < 64 || whole.iter().all(|byte| *byte == 0) {
            continue;
        }
        for (what, contents) in [
            ("truncated", whole[..whole.len() / 64].to_vec()),
            ("foreign", b"not a file of this store".repeat(9)),
        ] {
            fs::write(&file, contents).unwrap();
            let answer = site.json(&["verify", "db"]);
            let name = file.file_name().unwrap().to_string_lossy().into_owned();
            assert_ne!(answer.code, 0, "{what} {name} went unnoticed: {}", answer.stdout);
            assert!(!answer.stderr.contains("panicked"), "{}", answer.stderr);
            fs::write(&file, &whole).unwrap();
        }
    }
    fs::create_dir(site.path("other")).unwrap();
    fs::write(site.path("other/notes.txt"), "mine").unwrap();
    let answer = site.json(&["table", "create", "other", "t", "--raw"]);
    assert_eq!(answer.code, 1, "{}", answer.stdout);
    assert_eq!(fs::read_to_string(site.path("other/notes.txt")).unwrap(), "mine");
}

#[test]
fn completions_and_manual_pages_are_written() {
    let site = Site::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(site.run(&["completions", shell]).ok().contains("planaria"));
    }
    site.run(&["man", "pages"]).ok();
    assert!(fs::read_to_string(site.path("pages/planaria-import.1")).unwrap().contains("on\\-duplicate"));
    assert!(site.run(&["man"]).ok().contains("planaria"));
}
