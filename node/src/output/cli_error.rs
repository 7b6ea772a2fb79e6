use std::borrow::Cow;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;

use super::advice::advice;
use super::human::escape_control;

/// What a command answers when it fails: on stderr, as text or as one line of JSON.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}")]
pub(crate) struct CliError {
    /// Stable over releases, for programs. `usage` is wrong use; all others are failures.
    pub(crate) code: Cow<'static, str>,
    /// What happened, to what.
    pub(crate) what: String,
    /// Why, where that is not plain from what happened.
    pub(crate) why: Option<String>,
    /// What to do.
    pub(crate) hint: Option<String>,
}

/// The code of wrong use.
const USAGE: &str = "usage";

impl CliError {
    /// A failure.
    pub(crate) fn new(code: impl Into<Cow<'static, str>>, what: impl Into<String>) -> Self {
        Self { code: code.into(), what: what.into(), why: None, hint: None }
    }

    /// Wrong use: the command cannot be understood as it was given.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(USAGE, what)
    }

    /// The same error with its reason.
    #[must_use]
    pub(crate) fn because(self, why: impl Into<String>) -> Self {
        Self { why: Some(why.into()), ..self }
    }

    /// The same error with what to do about it.
    #[must_use]
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// What to do: what whoever met it says, or else what its code says.
    fn what_to_do(&self) -> Option<&str> {
        self.hint.as_deref().or_else(|| advice(&self.code))
    }

    /// Whether nobody reads the output any more.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.code == BROKEN_PIPE
    }

    /// What the process answers to its caller: 2 for wrong use, 1 for failure.
    pub(crate) fn exit_status(&self) -> u8 {
        if self.code == USAGE { 2 } else { 1 }
    }

    /// The same, for `main`.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.exit_status())
    }

    /// Writes the error for people. Control characters of data in it do not reach the terminal.
    pub(crate) fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "error[{}]: {}", self.code, escape_control(&self.what))?;
        for (label, text) in [("why", self.why.as_deref()), ("hint", self.what_to_do())] {
            if let Some(text) = text {
                writeln!(out, "  {label}: {}", escape_control(text))?;
            }
        }
        Ok(())
    }

    /// Writes the error for programs: one line, `{"error":{"code","what","why","hint"}}`, absent parts left out.
    pub(crate) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut parts = serde_json::Map::new();
        parts.insert("code".into(), self.code.as_ref().into());
        parts.insert("what".into(), self.what.as_str().into());
        for (name, part) in [("why", self.why.as_deref()), ("hint", self.what_to_do())] {
            if let Some(part) = part {
                parts.insert(name.into(), part.into());
            }
        }
        writeln!(out, "{}", serde_json::json!({ "error": parts }))
    }
}

impl From<planaria_engine::Error> for CliError {
    fn from(error: planaria_engine::Error) -> Self {
        let told = Self::new(error.code(), error.to_string());
        match error {
            planaria_engine::Error::NotFound { path } => match path.to_str() {
                Some(address) if address.parse::<SocketAddr>().is_ok() => told.hint(format!(
                    "to ask the node at that address, leave the directory out: --node {address}"
                )),
                _ => told.hint("`planaria table create`, `planaria import` or `planaria serve` makes one"),
            },
            _ => told,
        }
    }
}

impl From<planaria_net::Error> for CliError {
    fn from(error: planaria_net::Error) -> Self {
        match error {
            planaria_net::Error::Remote(remote) => {
                let part = |text: String| (!text.is_empty()).then_some(text);
                Self {
                    code: remote.code.into(),
                    what: remote.what,
                    why: part(remote.why),
                    hint: part(remote.hint),
                }
            }
            planaria_net::Error::ForeignDatabase { path, own, primary, led } => Self::new(
                "foreign_database",
                format!("{} holds database {own}, the primary at {primary} leads {led}", path.display()),
            )
            .hint("start the secondary in a new directory, or name the primary of this database"),
            planaria_net::Error::NotEmpty { path, source } => {
                Self::new("exists", format!("{} is not a database and not empty: {source}", path.display()))
                    .hint("name a new directory for the secondary")
            }
            error @ (planaria_net::Error::TimedOut { .. } | planaria_net::Error::Lost { .. }) => {
                Self::new(error.code().to_owned(), error.to_string()).hint(
                    "see to it that the node runs and can be reached; a write that was on its way may have been made: ask for it, or send \
                     it again with the same --token",
                )
            }
            error => Self::new(error.code().to_owned(), error.to_string()),
        }
    }
}

impl From<planaria_control::Error> for CliError {
    fn from(error: planaria_control::Error) -> Self {
        planaria_net::Error::from(planaria_net::wire::message::RemoteError::from(error)).into()
    }
}

/// The code of a reader of our output that went away, as `head` does: no failure worth a word.
const BROKEN_PIPE: &str = "broken_pipe";

/// Where output cannot be written.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        let code = if error.kind() == io::ErrorKind::BrokenPipe { BROKEN_PIPE } else { "output" };
        Self::new(code, format!("the output cannot be written: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::CliError;

    fn text(error: &CliError) -> String {
        let mut out = Vec::new();
        error.write_text(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_error_reads_as_text_and_as_json() {
        let error =
            CliError::new("csv", "line 3 is bad").because("it has 2 fields").hint("use --on-error skip");
        assert_eq!(
            text(&error),
            "error[csv]: line 3 is bad\n  why: it has 2 fields\n  hint: use --on-error skip\n"
        );
        let mut json = Vec::new();
        error.write_json(&mut json).unwrap();
        assert_eq!(
            String::from_utf8(json).unwrap(),
            "{\"error\":{\"code\":\"csv\",\"what\":\"line 3 is bad\",\"why\":\"it has 2 fields\",\"hint\":\"use --on-error skip\"}}\n"
        );
    }

    #[test]
    fn data_in_a_message_cannot_steer_the_terminal() {
        let shown = text(&CliError::new("csv", "value \u{1b}[2J\nerror[x]: fake"));
        assert_eq!(shown, "error[csv]: value \\u{1b}[2J\\nerror[x]: fake\n");
    }

    #[test]
    fn wrong_use_and_failure_have_their_own_status() {
        assert_eq!(CliError::usage("x").exit_status(), 2);
        let engine = CliError::from(planaria_engine::Error::Closed);
        assert_eq!((engine.exit_status(), engine.code.as_ref()), (1, "closed"));
    }
}
