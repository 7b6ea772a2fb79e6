//! `planaria bench`: what cloning and catching up cost on this machine, measured on real nodes over QUIC on loopback.

mod resync;

use crate::cli::{BenchCommand, Global};
use crate::output::CliError;

/// Carries a bench out.
pub(crate) fn run(global: &Global, command: &BenchCommand) -> Result<(), CliError> {
    match command {
        BenchCommand::Resync(arguments) => resync::run(global, arguments),
    }
}
