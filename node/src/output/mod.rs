//! What commands print: rows, reports, and errors, for people and for programs.

mod advice;
mod cell;
mod cli_error;
mod human;
mod report;
mod rows;

pub(crate) use cell::{Cell, Render};
pub(crate) use cli_error::CliError;
pub(crate) use human::{bytes, count, count_rate, escape_control};
pub(crate) use report::Report;
pub(crate) use rows::{Heading, RowWriter};

/// `-o`: how output is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// One JSON object a line.
    Json,
    /// Comma-separated values with a heading.
    Csv,
}

/// Where output goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target {
    /// How it is written.
    pub(crate) format: Format,
    /// The width in columns if it is a terminal.
    pub(crate) terminal_width: Option<u16>,
}
