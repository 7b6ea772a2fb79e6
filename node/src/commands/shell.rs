use std::ffi::OsString;
use std::io::Write;

use clap::FromArgMatches;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;

use crate::cli::{self, Cli, Global, PlaceArgs, PlanariaCommand};
use crate::output::{CliError, Format};
use crate::session::{IfAbsent, Place};

/// `planaria shell`: commands, line by line, on one database.
pub(super) fn shell(global: &Global, arguments: &PlaceArgs) -> Result<(), CliError> {
    let place = arguments.place(global)?;
    // Whatever is wrong with the place is said before the first prompt.
    place.open(IfAbsent::Fail)?;
    let mut editor =
        DefaultEditor::new().map_err(|error| CliError::new("io", format!("no line editor: {error}")))?;
    let hint = "commands as after `planaria`, without the database; `help` lists them, Ctrl-D leaves";
    writeln!(std::io::stderr(), "{hint}")?;
    loop {
        match editor.readline("planaria> ") {
            Ok(line) => {
                // A line that the history does not take is still carried out.
                let _ = editor.add_history_entry(line.as_str());
                match line.trim() {
                    "" => {}
                    "exit" | "quit" => return Ok(()),
                    line => carry_out(global, &place, line),
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(CliError::new("io", format!("the line cannot be read: {error}"))),
        }
    }
}

/// Carries out one line; what goes wrong is said, and the shell goes on.
fn carry_out(global: &Global, place: &Place, line: &str) {
    let done = split(line).and_then(|words| parse(global, place, words)).and_then(|cli| match &cli {
        Some(Cli { command: PlanariaCommand::Shell(_) | PlanariaCommand::Serve(_), .. }) => {
            Err(CliError::usage("that is not for the shell").hint("start it in a terminal of its own"))
        }
        Some(cli) => super::run(cli),
        None => Ok(()),
    });
    if let Err(error) = done {
        // Nothing is left to do where stderr cannot be written to.
        let _ = match global.output {
            Format::Json => error.write_json(&mut std::io::stderr()),
            Format::Table | Format::Csv => error.write_text(&mut std::io::stderr()),
        };
    }
}

/// The command of a line, on the shell's database; `None` if it asked for help and got it.
fn parse(global: &Global, place: &Place, words: Vec<String>) -> Result<Option<Cli>, CliError> {
    let mut arguments: Vec<OsString> = vec!["planaria".into()];
    arguments.extend(words.into_iter().map(OsString::from));
    let mut command = cli::command(true);
    let parsed = command.try_get_matches_from_mut(&arguments);
    let parsed = parsed.and_then(|mut matches| Cli::from_arg_matches_mut(&mut matches));
    match parsed {
        Ok(mut cli) => {
            let asked = cli.global.output;
            let output = if asked == Format::default() { global.output } else { asked };
            let shell_dir = match place {
                Place::Directory(dir) => Some(dir.clone()),
                Place::Node { .. } | Place::Cluster { .. } => None,
            };
            cli.global = Global { output, shell_dir, ..global.clone() };
            Ok(Some(cli))
        }
        Err(error) if !error.use_stderr() => {
            error.print()?;
            Ok(None)
        }
        Err(error) => Err(crate::usage_error(&error)),
    }
}

/// The words of a line: apart by spaces, together in single or double quotes.
fn split(line: &str) -> Result<Vec<String>, CliError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in line.chars() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (Some(_), inside) => word.get_or_insert_default().push(inside),
            (None, open @ ('"' | '\'')) => {
                quote = Some(open);
                word.get_or_insert_default();
            }
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            (None, plain) => word.get_or_insert_default().push(plain),
        }
    }
    if quote.is_some() {
        return Err(CliError::usage("a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::split;

    #[test]
    fn words_are_apart_by_spaces_and_together_in_quotes() {
        assert_eq!(split("get  t 'a b' \"it's\" ''").unwrap(), ["get", "t", "a b", "it's", ""]);
        assert!(split("get 'a").is_err());
        assert!(split("   ").unwrap().is_empty());
    }
}
