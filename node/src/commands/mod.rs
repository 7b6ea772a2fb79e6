//! What the commands do, each on a [`crate::session::Session`].

mod backup;
mod clone;
mod cluster;
mod cluster_clones;
mod cluster_rules;
mod cluster_stores;
mod compare;
mod control;
mod export;
mod generate;
mod import;
mod inspect;
mod progress;
mod quarantine;
mod record;
mod replica;
pub(crate) mod serve;
mod shell;
mod table;
mod topology;

use std::io::{self, BufWriter, IsTerminal, StdoutLock};

use crate::cli::{Cli, Global, PlanariaCommand};
use crate::output::{CliError, Report, Target};

/// Does what the command line says.
pub(crate) fn run(cli: &Cli) -> Result<(), CliError> {
    let global = &cli.global;
    match &cli.command {
        PlanariaCommand::Demo(arguments) => crate::demo::run(global, arguments),
        PlanariaCommand::Bench(command) => crate::bench::run(global, command),
        PlanariaCommand::Serve(arguments) => serve::serve(global, arguments),
        PlanariaCommand::Control(arguments) => control::run(global, arguments),
        PlanariaCommand::Cluster(command) => cluster::run(global, command),
        PlanariaCommand::Topology(command) => topology::run(global, command),
        PlanariaCommand::Replica(command) => replica::run(global, command),
        PlanariaCommand::Promote(arguments) => replica::promote(global, arguments),
        PlanariaCommand::Quarantine(command) => quarantine::run(global, command),
        PlanariaCommand::Clone(command) => clone::run(global, command),
        PlanariaCommand::Backup(command) => backup::run(global, command),
        PlanariaCommand::Table(command) => table::run(global, command),
        PlanariaCommand::Import(arguments) => import::run(global, arguments),
        PlanariaCommand::Export(arguments) => export::run(global, arguments),
        PlanariaCommand::Get(arguments) => record::get(global, arguments),
        PlanariaCommand::Put(arguments) => record::put(global, arguments),
        PlanariaCommand::Delete(arguments) => record::delete(global, arguments),
        PlanariaCommand::Scan(arguments) => record::scan(global, arguments),
        PlanariaCommand::Digest(arguments) => inspect::digest(global, arguments),
        PlanariaCommand::Verify(arguments) => inspect::verify(global, arguments),
        PlanariaCommand::Status(arguments) => inspect::status(global, arguments),
        PlanariaCommand::Shell(arguments) => shell::shell(global, arguments),
        PlanariaCommand::Completions { shell } => generate::completions(*shell),
        PlanariaCommand::Man { out } => generate::man(out.as_deref()),
    }
}

/// How results go to stdout.
fn target(global: &Global) -> Target {
    let stdout = io::stdout();
    let terminal_width = if stdout.is_terminal() {
        rustix::termios::tcgetwinsize(&stdout).ok().map(|size| size.ws_col).filter(|width| *width > 0)
    } else {
        None
    };
    Target { format: global.output, terminal_width }
}

fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

pub(crate) fn print(global: &Global, report: &Report) -> Result<(), CliError> {
    Ok(report.write(stdout(), target(global))?)
}
