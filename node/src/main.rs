//! The planaria program: a node, its command line and the demo.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod clones;
mod cluster;
mod commands;
mod compare;
mod demo;
mod handler;
mod import;
mod interrupt;
mod key_text;
mod load;
#[cfg(feature = "metrics")]
mod metrics;
mod node;
mod output;
mod portion_text;
mod program;
mod row_view;
mod session;
mod shape;
mod stopwatch;
mod topology_file;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::FromArgMatches;
use mimalloc::MiMalloc;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use crate::cli::Cli;
use crate::output::{CliError, Format};

/// Rows are many small allocations on several threads; mimalloc is the faster at those.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Lets the process have as many files open as it may: each run file of a database is. The limit that most shells begin with, 1,024,
/// is for programs that wait with `select`, as this one does not.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })
    {
        tracing::info!(%error, "the limit of open files stays as it is");
    }
}

/// What wrong use answers to the caller.
const WRONG_USE: u8 = 2;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let cli = match parse(&arguments) {
        Ok(cli) => cli,
        Err(error) => return refuse(&error, cli::asks_for_json(&arguments)),
    };
    log_to_stderr(cli.global.verbose);
    raise_file_limit();
    program::end_with_parent();
    match commands::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to do where stderr cannot be written to.
            let _ = match cli.global.output {
                Format::Json => error.write_json(&mut io::stderr()),
                Format::Table | Format::Csv => error.write_text(&mut io::stderr()),
            };
            error.exit_code()
        }
    }
}

fn parse(arguments: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = cli::command(cli::names_node(arguments));
    let mut matches = command.try_get_matches_from_mut(arguments)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut command))
}

/// Shows help where it was asked for, and what is wrong with the arguments otherwise.
fn refuse(error: &clap::Error, as_json: bool) -> ExitCode {
    if !error.use_stderr() {
        return if error.print().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let _ = if as_json { usage_error(error).write_json(&mut io::stderr()) } else { error.print() };
    ExitCode::from(WRONG_USE)
}

/// The words of clap in the parts of ours.
pub(crate) fn usage_error(error: &clap::Error) -> CliError {
    let text = error.render().to_string();
    let (what, rest) = text.split_once("\n\n").unwrap_or((&text, ""));
    let what = what.trim().trim_start_matches("error: ");
    let usage = CliError::usage(what.split_whitespace().collect::<Vec<_>>().join(" "));
    match rest.split_whitespace().collect::<Vec<_>>().join(" ") {
        hint if hint.is_empty() => usage,
        hint => usage.hint(hint),
    }
}

fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_env("PLANARIA_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    // Colours are for terminals; a log in a file is to be searched.
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    log.with_ansi(io::stderr().is_terminal()).with_target(false).init();
}
