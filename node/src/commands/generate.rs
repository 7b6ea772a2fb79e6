use std::io::{self, Write};
use std::path::Path;

use super::stdout;
use crate::cli;
use crate::output::CliError;

/// `planaria completions`.
pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), CliError> {
    // The generator panics where it cannot write; memory can always be written to.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut cli::command(false), "planaria", &mut script);
    let mut out = stdout();
    out.write_all(&script)?;
    Ok(out.flush()?)
}

/// `planaria man`.
pub(super) fn man(out: Option<&Path>) -> Result<(), CliError> {
    let command = cli::command(false);
    let Some(dir) = out else {
        let mut out = stdout();
        clap_mangen::Man::new(command).render(&mut out)?;
        return Ok(out.flush()?);
    };
    let failed = |error: io::Error| {
        CliError::new("output", format!("cannot write manual pages to {}: {error}", dir.display()))
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(command, dir).map_err(failed)
}
