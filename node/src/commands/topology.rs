//! `planaria topology`.

use std::io::{Read, Write};
use std::path::Path;

use planaria_net::wire::control::{ControlRequest, ControlResponse};
use planaria_net::wire::topology::TopologyChange;

use super::cluster::{ask, write};
use super::stdout;
use crate::cli::{CenterArgs, Global, TopologyCommand};
use crate::cluster::wrong_answer;
use crate::output::{CliError, Format};
use crate::topology_file::{self, FILE_BYTES_MAX, TopologyFile};

pub(super) fn run(global: &Global, command: &TopologyCommand) -> Result<(), CliError> {
    match command {
        TopologyCommand::Apply { file, dry_run, center } => apply(global, file, *dry_run, center),
        TopologyCommand::Show(center) => show(global, center),
    }
}

fn apply(global: &Global, path: &Path, dry_run: bool, center: &CenterArgs) -> Result<(), CliError> {
    let in_file = |mut error: CliError| {
        error.what = format!("{}: {}", path.display(), error.what);
        error
    };
    let file = TopologyFile::read(read(path)?).map_err(in_file)?;
    let request = ControlRequest::ApplyTopology { topology: Box::new(file.topology.clone()), dry_run };
    let answer = ask(global, center, request).map_err(|error| in_file(file.locate(error)))?;
    let ControlResponse::TopologyChanges(changes) = answer else {
        return Err(wrong_answer(center.address()?));
    };
    let row = |change: TopologyChange| vec![change.item.into(), change.what.into()];
    write(global, &["item", "change"], changes.into_iter().map(row))
}

fn read(path: &Path) -> Result<String, CliError> {
    let cannot = |error: std::io::Error| {
        CliError::new("io", format!("{} cannot be read: {error}", path.display()))
            .hint("name a file of TOML that can be read")
    };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(cannot)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(cannot)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        let what = format!("{} has more than {FILE_BYTES_MAX} bytes", path.display());
        return Err(CliError::new("too_large", what).hint("declare less in one cluster"));
    }
    Ok(text)
}

fn show(global: &Global, center: &CenterArgs) -> Result<(), CliError> {
    let ControlResponse::Topology(topology) = ask(global, center, ControlRequest::Topology)? else {
        return Err(wrong_answer(center.address()?));
    };
    let mut out = stdout();
    if global.output == Format::Json {
        writeln!(out, "{}", topology_file::write_json(*topology)?)?;
    } else {
        write!(out, "{}", topology_file::write(*topology)?)?;
    }
    out.flush()?;
    Ok(())
}
