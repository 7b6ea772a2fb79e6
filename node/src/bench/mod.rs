//! `planaria bench`: what catching up, following and cloning cost on this machine, measured on real nodes over QUIC on loopback.

mod clone;
mod latency;
mod lazy;
mod live;
mod records;
mod renewal;
mod resync;

use crate::cli::{BenchCommand, Global};
use crate::output::CliError;

/// Carries a bench out.
pub(crate) fn run(global: &Global, command: &BenchCommand) -> Result<(), CliError> {
    match command {
        BenchCommand::Resync(arguments) => resync::run(global, arguments),
        BenchCommand::Live(arguments) => live::run(global, arguments),
        BenchCommand::Clone(arguments) => clone::run(global, arguments),
    }
}
