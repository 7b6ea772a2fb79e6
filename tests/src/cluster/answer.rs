use std::process::Output;

use serde_json::Value as Json;

/// What a command answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its exit code; 128 and the number of the signal where one ended it.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

impl From<Output> for Answer {
    fn from(output: Output) -> Self {
        use std::os::unix::process::ExitStatusExt;
        let signalled = output.status.signal().map(|signal| 128 + signal);
        Self {
            code: output.status.code().or(signalled).unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Answer {
    /// The lines that it wrote, as JSON. It must have gone well.
    pub fn json(&self) -> Vec<Json> {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("lines of JSON")).collect()
    }

    /// The number of rows and the digest of the first table that `digest` told.
    pub fn digest(&self) -> (u64, String) {
        let table = self.json().into_iter().next().expect("a table");
        let rows = table["rows"].as_u64().expect("a count of rows");
        (rows, table["digest"].as_str().expect("a digest").to_owned())
    }

    /// The error that it wrote as its last line, if there is one.
    pub fn error(&self) -> Option<Json> {
        let last: Json = serde_json::from_str(self.stderr.lines().last()?).ok()?;
        last.get("error").cloned()
    }

    /// The error, which must be there, complete, with this exit code and this code of its own.
    pub fn failed(&self, exit: i32, code: &str) -> Json {
        assert_eq!(self.code, exit, "{self:?}");
        let error = self.error().unwrap_or_else(|| panic!("no error in {self:?}"));
        assert_eq!(error["code"], code, "{error}");
        assert!(error["what"].as_str().is_some_and(|what| !what.is_empty()), "{error}");
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        error
    }
}
