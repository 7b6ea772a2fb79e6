//! Files of the workspace, and what of them is code.

use std::fs;
use std::path::{Path, PathBuf};

/// Directories that hold nothing of ours.
const SKIPPED_DIRECTORIES: [&str; 4] = ["target", ".git", "artifacts", "node_modules"];
/// Endings of names of text files that are read.
const TEXT_ENDINGS: [&str; 6] = [".rs", ".md", ".toml", ".svg", ".yml", ".sh"];

/// A text file of the workspace.
pub(crate) struct Source {
    /// Its path from the root of the workspace, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A function and how long it is.
pub(crate) struct Function {
    pub(crate) name: String,
    /// The line where it begins, from 1 on.
    pub(crate) line: usize,
    /// Its lines, signature and closing brace included.
    pub(crate) lines: usize,
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the workspace").to_path_buf()
}

/// All text files of the workspace, by path.
pub(crate) fn all() -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root(), "", &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 100, "only {} files were found below {}", found.len(), root().display());
    found
}

fn collect(dir: &Path, prefix: &str, found: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).expect("a directory of the workspace can be listed") {
        let entry = entry.expect("a directory of the workspace can be listed");
        let name = entry.file_name().into_string().expect("names are UTF-8");
        let path = format!("{prefix}{name}");
        if entry.file_type().expect("an entry has a type").is_dir() {
            if !SKIPPED_DIRECTORIES.contains(&name.as_str()) {
                collect(&entry.path(), &format!("{path}/"), found);
            }
        } else if TEXT_ENDINGS.iter().any(|ending| name.ends_with(ending)) || path == ".ci/run" {
            let text = fs::read_to_string(entry.path())
                .unwrap_or_else(|error| panic!("{path} is not text in UTF-8: {error}"));
            found.push(Source { path, text });
        }
    }
}

impl Source {
    pub(crate) fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "rs")
    }

    pub(crate) fn is_document(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|extension| extension == "md")
    }

    /// Whether the whole file is there for tests alone.
    pub(crate) fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name.ends_with("_tests.rs")
            || name.ends_with("_loom.rs")
            || name == "testing.rs"
            || self.path.contains("/tests/")
            || self.path.starts_with("tests/")
    }

    /// The code without comments, texts and modules of tests. Lines keep their numbers.
    pub(crate) fn production_code(&self) -> String {
        let code = code(&self.text);
        let mut out = String::with_capacity(code.len());
        let mut lines = code.lines().peekable();
        while let Some(line) = lines.next() {
            if !(line.starts_with("#[cfg(test)]") || line.starts_with("#[cfg(all(test")) {
                out.push_str(line);
                out.push('\n');
                continue;
            }
            out.push('\n');
            let mut opened = false;
            for line in lines.by_ref() {
                out.push('\n');
                opened |= line.ends_with('{');
                if (opened && line == "}") || (!opened && line.ends_with([';', '}'])) {
                    break;
                }
            }
        }
        out
    }

    /// The functions of the file, as rustfmt lays them out.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let code = code(&self.text);
        let lines: Vec<&str> = code.lines().collect();
        let mut functions = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let Some(name) = function_name(line) else { continue };
            let indent: String = line.chars().take_while(|c| *c == ' ').collect();
            let (end, declaration) = (format!("{indent}}}"), format!("{indent})"));
            let is_end = |line: &str| line == end || (line.starts_with(&declaration) && line.ends_with(';'));
            let is_one_line = line.ends_with(['}', ';']);
            let more =
                if is_one_line { Some(0) } else { lines.iter().skip(at + 1).position(|line| is_end(line)) };
            let lines = more.map_or(1, |more| if is_one_line { 1 } else { more + 2 });
            functions.push(Function { name, line: at + 1, lines });
        }
        functions
    }
}

/// The name of the function that a line begins to define.
fn function_name(line: &str) -> Option<String> {
    let mut rest = line.trim_start();
    for qualifier in ["pub(crate) ", "pub(super) ", "pub ", "const ", "async ", "unsafe ", "extern "] {
        rest = rest.strip_prefix(qualifier).unwrap_or(rest);
    }
    let name: String = rest.strip_prefix("fn ")?.chars().take_while(|c| is_of_word(*c)).collect();
    Some(name)
}

pub(crate) fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `code` names `path`, as a whole.
pub(crate) fn names(code: &str, path: &str) -> Option<usize> {
    code.match_indices(path).map(|(at, _)| at).find(|at| {
        let before = code.get(..*at).and_then(|part| part.chars().next_back());
        let after = code.get(at + path.len()..).and_then(|part| part.chars().next());
        !before.is_some_and(is_of_word) && !after.is_some_and(is_of_word)
    })
}

/// The line of a byte offset, from 1 on.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.get(..at).unwrap_or_default().matches('\n').count() + 1
}

/// `text` with the contents of comments and texts replaced by nothing, line by line.
fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let next = chars.get(at + 1).copied();
        let end = match (c, next) {
            ('/', Some('/')) => line_end(&chars, at),
            ('/', Some('*')) => block_comment_end(&chars, at),
            ('"', _) => text_end(&chars, at + 1),
            ('r', Some('"' | '#')) if !out.chars().next_back().is_some_and(is_of_word) => raw_end(&chars, at),
            ('\'', _) => char_end(&chars, at),
            _ => at,
        };
        if end == at {
            out.push(c);
            at += 1;
        } else {
            out.extend(chars.iter().skip(at).take(end - at).filter(|c| **c == '\n'));
            at = end;
        }
    }
    out.lines().map(str::trim_end).fold(String::new(), |all, line| all + line + "\n")
}

fn line_end(chars: &[char], from: usize) -> usize {
    chars.iter().skip(from).position(|c| *c == '\n').map_or(chars.len(), |length| from + length)
}

fn block_comment_end(chars: &[char], from: usize) -> usize {
    let mut depth = 0;
    let mut at = from;
    while at < chars.len() {
        match (chars.get(at), chars.get(at + 1)) {
            (Some('/'), Some('*')) => (depth, at) = (depth + 1, at + 2),
            (Some('*'), Some('/')) => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Behind the quote that ends a text whose first character is at `from`.
fn text_end(chars: &[char], from: usize) -> usize {
    let mut at = from;
    while let Some(c) = chars.get(at) {
        at += match c {
            '\\' => 2,
            '"' => return at + 1,
            _ => 1,
        };
    }
    chars.len()
}

/// Behind a raw text that begins at `from`; `from` if none does (`r#name`).
fn raw_end(chars: &[char], from: usize) -> usize {
    let hashes = chars.iter().skip(from + 1).take_while(|c| **c == '#').count();
    if chars.get(from + 1 + hashes) != Some(&'"') {
        return from;
    }
    let mut at = from + 2 + hashes;
    while at < chars.len() {
        let closes = chars.get(at) == Some(&'"');
        if closes && chars.iter().skip(at + 1).take_while(|c| **c == '#').count() >= hashes {
            return at + 1 + hashes;
        }
        at += 1;
    }
    chars.len()
}

/// Behind a character that begins at `from`; `from` if it is a lifetime.
fn char_end(chars: &[char], from: usize) -> usize {
    match (chars.get(from + 1), chars.get(from + 2)) {
        (Some('\\'), _) => chars
            .iter()
            .skip(from + 3)
            .position(|c| *c == '\'')
            .map_or(chars.len(), |length| from + 4 + length),
        (Some(_), Some('\'')) => from + 3,
        _ => from,
    }
}

#[cfg(test)]
mod tests {
    use super::{Source, code, names};

    fn source(text: &str) -> Source {
        Source { path: "engine/src/x.rs".into(), text: text.into() }
    }

    #[test]
    fn comments_and_texts_are_no_code() {
        let text = "a(\"std::fs // \\\"\"); // std::fs\n/* std::fs /* */ */ b('\"', 'c', r#\"std\"#);\nfn f<'a>() {}\n";
        assert_eq!(code(text), "a();\n b(, , );\nfn f<'a>() {}\n");
        assert_eq!(names("use std::fs::File;", "std::fs"), Some(4));
        assert_eq!(names("use std::fsx; my_std::fs", "std::fs"), None);
    }

    #[test]
    fn modules_of_tests_are_no_production_code() {
        let text = "fn a() {}\n#[cfg(test)]\n#[path = \"a_tests.rs\"]\nmod tests;\nfn b() {}\n#[cfg(all(test, loom))]\nmod l {\n    x();\n}\nfn c() {}\n";
        assert_eq!(source(text).production_code(), "fn a() {}\n\n\n\nfn b() {}\n\n\n\n\nfn c() {}\n");
    }

    #[test]
    fn functions_are_measured_from_signature_to_brace() {
        let text = "    fn one();\n    pub fn two() {}\n    fn three(\n        a: A,\n    ) -> B;\n    async fn four() {\n        if x {\n        }\n    }\n";
        let functions = source(text).functions();
        let measured: Vec<_> = functions.iter().map(|f| (f.name.as_str(), f.line, f.lines)).collect();
        assert_eq!(measured, [("one", 1, 1), ("two", 2, 1), ("three", 3, 3), ("four", 6, 4)]);
    }
}
