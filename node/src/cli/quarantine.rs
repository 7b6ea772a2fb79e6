//! What can be done with what was taken back.

use clap::{Args, Subcommand};

use super::PlaceArgs;

/// `planaria quarantine`.
#[derive(Subcommand, Debug)]
pub(crate) enum QuarantineCommand {
    /// List the extracts that are kept here
    List(PlaceArgs),
    /// Show the records of an extract: the newest state of each, as it was taken back
    Show(ExtractArgs),
    /// Compare an extract with what is there now: same, differs, absent
    Diff(ExtractArgs),
    /// Write records of an extract again, as new commits of the primary
    #[command(after_help = "\
What is there already is passed over, so that it may be run again. A record that was changed since the fork is a conflict,
and nothing is written then, unless --overwrite says that the extract is right.

Examples:
  planaria quarantine reapply --node 127.0.0.1:4748 0000018f00000000-0000018f00000003
  planaria quarantine reapply birds 0000018f00000000-0000018f00000003 --table weather --to 127.0.0.1:4747")]
    Reapply(ReapplyArgs),
    /// Remove an extract
    Drop {
        #[command(flatten)]
        place: PlaceArgs,
        /// Its name
        name: String,
    },
}

/// An extract, or the part of it that is of some tables.
#[derive(Args, Debug)]
pub(crate) struct ExtractArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Its name
    pub(crate) name: String,
    /// Records of this table alone; may be repeated
    #[arg(long = "table", value_name = "TABLE")]
    pub(crate) tables: Vec<String>,
}

/// `planaria quarantine reapply`.
#[derive(Args, Debug)]
pub(crate) struct ReapplyArgs {
    #[command(flatten)]
    pub(crate) extract: ExtractArgs,
    /// Write over what was changed since the fork
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// The node that takes updates [default: the place itself, or the primary that it follows]
    #[arg(long, value_name = "ADDR")]
    pub(crate) to: Option<String>,
}
