use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::PlaceArgs;
use super::choice::parse_duration_ms;
use super::shape::ShapeArgs;
use super::transport::parse_connections;

/// `planaria clone`.
#[derive(Subcommand, Debug)]
pub(crate) enum CloneCommand {
    /// Make a clone in a new directory, or in the place of one that is there
    #[command(after_help = "\
From a directory, or with --on-node, the clone lies on the same disk: it costs a few links, and writers stay connected.
From a node without --on-node the files come over the network; what was interrupted goes on when it is called again.
With --from the node itself takes the clone of another node's database, in the background: see `clone list` and `clone wait`.

Examples:
  planaria clone create birds birds-test
  planaria clone create /srv/birds-test --node 127.0.0.1:4747 --on-node
  planaria clone create birds-here --node 127.0.0.1:4747 --rate 20MiB
  planaria clone create birds-here --node 127.0.0.1:4747 --replace --preserve settings
  planaria clone create birds-test --node 127.0.0.1:4747 --leave-out audit --where \"sightings: year >= 2013\" \\
    --mask people.name=keep-format --mask people.mail=hash
  planaria clone create birds birds-then --as-of 2026-11-01T08:00:00Z
  planaria clone create /srv/copy --node 127.0.0.1:4748 --from 127.0.0.1:4747 --role backup --ttl 7d
  planaria clone create /srv/copy --node 127.0.0.1:4748 --from 127.0.0.1:4747 --lazy
  planaria get --node 127.0.0.1:4748 --clone copy sightings 17")]
    Create(Box<CloneCreateArgs>),
    /// List the clones that were taken, that are being taken, and what is left of interrupted ones
    List(PlaceArgs),
    /// Show one clone
    Show(CloneNameArgs),
    /// Wait until a clone is complete, or cannot be
    Wait(CloneNameArgs),
    /// Give a clone up, and remove what came of it
    Cancel(CloneNameArgs),
    /// Make a standby or a backup a database of its own
    Promote(CloneNameArgs),
    /// Have a clone live until another time; without --in its life ends now
    Expire(CloneLifeArgs),
    /// Delete a clone, or with --old what it has replaced
    Delete(CloneDeleteArgs),
    /// Put back what a clone has replaced
    Rollback(CloneNameArgs),
    /// Change the greatest rate of a clone that a node takes
    Rate {
        #[command(flatten)]
        name: CloneNameArgs,
        /// The rate a second, such as 20MiB, or none
        #[arg(value_name = "RATE", value_parser = parse_rate)]
        rate: Rate,
    },
}

/// `planaria clone create`.
#[derive(Args, Debug)]
pub(crate) struct CloneCreateArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// The new directory
    pub(crate) target: PathBuf,
    /// Make the clone on the disk of the node; the target is an absolute path there
    #[arg(long)]
    pub(crate) on_node: bool,
    /// Have the node take the clone of this node's database (HOST:PORT); several are tried in turn
    #[arg(long, value_name = "ADDR")]
    pub(crate) from: Vec<String>,
    /// Have it read at once, by --clone NAME on the node, while its files come in
    #[arg(long, requires = "from", conflicts_with_all = ["replace", "on_node"])]
    pub(crate) lazy: bool,
    /// What the clone is for
    #[arg(long, value_enum, default_value_t)]
    pub(crate) role: CloneFor,
    /// What it is called [default: the last part of the target]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The greatest rate a second, such as 20MiB
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(crate) rate: Option<Rate>,
    /// Connections over which a large clone comes in to this machine, from 1 to 8; a node that takes one has its own setting,
    /// `serve --transport connections=N` [default: by the number of cores]
    #[arg(long, value_name = "N", value_parser = parse_connections, conflicts_with_all = ["from", "on_node"])]
    pub(crate) connections: Option<u8>,
    /// How long it lives once it is complete, such as 12h or 7d
    #[arg(long, value_name = "DURATION", value_parser = parse_life)]
    pub(crate) ttl: Option<Life>,
    /// Replace what is there once the clone is complete; it is kept as TARGET.replaced
    #[arg(long)]
    pub(crate) replace: bool,
    /// Take over the rows that what is replaced has in this table
    #[arg(long, value_name = "TABLE", requires = "replace")]
    pub(crate) preserve: Vec<String>,
    #[command(flatten)]
    pub(crate) shape: ShapeArgs,
}

/// What a clone is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum CloneFor {
    /// A database of its own
    #[default]
    Detached,
    /// The first copy of a secondary
    #[value(alias = "secondary")]
    Standby,
    /// A copy to take clones from
    Backup,
}

/// A clone by its name on a node, or by its directory.
#[derive(Args, Debug)]
pub(crate) struct CloneNameArgs {
    /// The directory of the clone; with --node, its name there
    #[arg(value_name = "CLONE")]
    pub(crate) clone: String,
}

/// `planaria clone expire`.
#[derive(Args, Debug)]
pub(crate) struct CloneLifeArgs {
    #[command(flatten)]
    pub(crate) name: CloneNameArgs,
    /// After how long, such as 2h; or never
    #[arg(long = "in", value_name = "DURATION", value_parser = parse_life)]
    pub(crate) after: Option<Life>,
}

/// `planaria clone delete`.
#[derive(Args, Debug)]
pub(crate) struct CloneDeleteArgs {
    #[command(flatten)]
    pub(crate) name: CloneNameArgs,
    /// Delete what it has replaced, and not the clone
    #[arg(long)]
    pub(crate) old: bool,
}

/// A greatest rate in bytes a second, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Rate(pub(crate) Option<u64>);

/// A time to live in seconds, or no end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Life(pub(crate) Option<u64>);

fn parse_rate(text: &str) -> Result<Rate, String> {
    if text == "none" {
        return Ok(Rate(None));
    }
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        _ => return Err("a rate is a number with KiB, MiB or GiB, as in 20MiB".into()),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes > 0 => Ok(Rate(Some(bytes))),
        _ => Err("a rate is a number above zero, as in 20MiB".into()),
    }
}

fn parse_life(text: &str) -> Result<Life, String> {
    if text == "never" {
        return Ok(Life(None));
    }
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u64>().ok());
    if let Some(seconds) = days.and_then(|days| days.checked_mul(86_400)) {
        return Ok(Life(Some(seconds)));
    }
    Ok(Life(Some(parse_duration_ms(text)?.div_ceil(1_000))))
}

#[cfg(test)]
mod tests {
    use super::{Life, Rate, parse_life, parse_rate};

    #[test]
    fn rates_and_lives_are_read() {
        assert_eq!(parse_rate("20MiB"), Ok(Rate(Some(20 << 20))));
        assert_eq!(parse_rate("700"), Ok(Rate(Some(700))));
        assert_eq!(parse_rate("none"), Ok(Rate(None)));
        for wrong in ["", "0", "MiB", "1TB", "-1", "99999999999999999999", "18014398509481984KiB"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse_life("2h"), Ok(Life(Some(7_200))));
        assert_eq!(parse_life("7d"), Ok(Life(Some(604_800))));
        assert_eq!(parse_life("never"), Ok(Life(None)));
        assert!(parse_life("soon").is_err());
    }
}
