//! What can be said about backups in object stores.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use planaria_backup::{Access, AsOf, Kept, Place as StorePlace};
use planaria_engine::{ColumnType, Value};
use planaria_types::Uid;

use super::choice::{parse_duration_ms, parse_uid};
use super::{CloneFor, PlaceArgs};
use crate::output::CliError;

/// `planaria backup`.
#[derive(Subcommand, Debug)]
pub(crate) enum BackupCommand {
    /// Make a backup; what the store has already is not sent again
    #[command(after_help = "\
The first backup of a copy sends everything, the next ones what has changed, and the log since the one before: with it every
commit in between can be restored. What was interrupted goes on when it is called again.

Examples:
  planaria backup create birds --to /mnt/backups
  planaria backup create --node 127.0.0.1:4747 --to s3://bucket/birds --name nightly")]
    Create(BackupCreateArgs),
    /// List the backups in a store, by their update times
    List(StoreArgs),
    /// Show all that is known of one backup
    Show(NamedArgs),
    /// Read everything that backups need, and name what is damaged or missing
    Verify(VerifyBackupsArgs),
    /// Make a database of a backup, or of any commit that is kept between two
    #[command(after_help = "\
The new database has an identity of its own. Every piece is checked while it is written; until the last step it lies in
TARGET.partial, with which an interrupted restore goes on.

Examples:
  planaria backup restore /mnt/backups birds-again
  planaria backup restore /mnt/backups nightly birds-again
  planaria backup restore s3://bucket/birds birds-again --as-of 2026-11-22T15:45:00Z")]
    Restore(RestoreArgs),
    /// Remove a backup; what no other one needs goes with a later prune
    Delete(NamedArgs),
    /// Remove old backups, and what no backup has needed for the grace period
    #[command(after_help = "\
A backup stays if any of the rules keeps it; without rules all stay. Backups may be made at the same time: what is not needed
any more is kept for the grace period, in which they end.

Example:
  planaria backup prune /mnt/backups --keep-last 7 --keep-within 30d")]
    Prune(PruneArgs),
}

/// A store of backups, and how it is reached.
#[derive(Args, Debug)]
pub(crate) struct AccessArgs {
    /// The address of the service that speaks S3 [default: that of the environment, or Amazon's]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// Its region [default: that of the environment]
    #[arg(long, value_name = "NAME")]
    region: Option<String>,
    /// The key id [default: that of the environment]
    #[arg(long, value_name = "ID", requires = "secret_file")]
    access_key: Option<String>,
    /// A file with the secret that belongs to it, in its first line [default: that of the environment]
    #[arg(long, value_name = "FILE", requires = "access_key")]
    secret_file: Option<PathBuf>,
}

impl AccessArgs {
    /// The same for the store.
    pub(crate) fn access(&self) -> Result<Access, CliError> {
        let secret_key = self.secret_file.as_ref().map(|path| {
            let text = std::fs::read_to_string(path);
            let text =
                text.map_err(|error| CliError::new("io", format!("read {}: {error}", path.display())))?;
            Ok::<_, CliError>(text.lines().next().unwrap_or_default().trim().to_owned())
        });
        Ok(Access {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            access_key: self.access_key.clone(),
            secret_key: secret_key.transpose()?,
        })
    }
}

/// A store.
#[derive(Args, Debug)]
pub(crate) struct StoreArgs {
    /// Where the backups are: a directory, or a bucket (see the examples of create)
    #[arg(value_name = "URL")]
    pub(crate) place: StorePlace,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// `planaria backup create`.
#[derive(Args, Debug)]
pub(crate) struct BackupCreateArgs {
    #[command(flatten)]
    pub(crate) place: PlaceArgs,
    /// Where it goes: a directory, or a bucket (see the examples of create)
    #[arg(long, value_name = "URL")]
    pub(crate) to: StorePlace,
    /// What it is called [default: the time]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

/// A backup of a store.
#[derive(Args, Debug)]
pub(crate) struct NamedArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The backup
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

/// `planaria backup verify`.
#[derive(Args, Debug)]
pub(crate) struct VerifyBackupsArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The backup [default: all of them]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// `planaria backup restore`.
#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// The backup, by its name or `latest`, which is the default; then the new directory
    #[arg(value_name = "[NAME] TARGET", num_args = 1..=2, required = true)]
    words: Vec<String>,
    /// What the copy is for
    #[arg(long, value_enum, default_value_t)]
    pub(crate) role: CloneFor,
    /// The state behind this commit, or at this time: UID, or a time as in 2026-11-22T15:45:00Z
    #[arg(long, value_name = "TIME|UID", value_parser = parse_as_of)]
    pub(crate) as_of: Option<AsOf>,
}

impl RestoreArgs {
    /// The name, if one was given, and the target.
    pub(crate) fn name_and_target(&self) -> (Option<&str>, PathBuf) {
        let name = (self.words.len() > 1).then(|| self.words.first().map(String::as_str)).flatten();
        (name.filter(|name| *name != "latest"), self.words.last().map(PathBuf::from).unwrap_or_default())
    }
}

/// `planaria backup prune`.
#[derive(Args, Debug)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) store: StoreArgs,
    /// Keep the newest so many of each database
    #[arg(long, value_name = "N")]
    keep_last: Option<u64>,
    /// Keep those that are younger, as in 12h, 30d or 8w
    #[arg(long, value_name = "DURATION", value_parser = parse_long_ms)]
    keep_within: Option<u64>,
    /// How long what is not needed any more is kept: half a day or longer, or 0s where no backup is made meanwhile
    #[arg(long, value_name = "DURATION", value_parser = parse_long_ms)]
    pub(crate) grace: Option<u64>,
    /// Tell what would go, and remove nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl PruneArgs {
    /// Which backups stay.
    pub(crate) fn kept(&self) -> Kept {
        Kept { of: None, last: self.keep_last, within_ms: self.keep_within }
    }
}

/// A duration in days and weeks, too.
fn parse_long_ms(text: &str) -> Result<u64, String> {
    let days = match text.strip_suffix('d').map(|number| (number, 1)) {
        None => text.strip_suffix('w').map(|number| (number, 7)),
        days => days,
    };
    let Some((number, days)) = days else {
        return parse_duration_ms(text)
            .map_err(|_| "write it with its unit, as in 12h, 30d or 8w".to_owned());
    };
    let number: u64 = number.parse().map_err(|_| "it begins with a number".to_owned())?;
    number.checked_mul(days * 86_400_000).ok_or_else(|| "it is too long".to_owned())
}

fn parse_as_of(text: &str) -> Result<AsOf, String> {
    if let Some(uid) = parse_uid(text) {
        return Ok(AsOf::Commit(uid));
    }
    match Value::parse(ColumnType::Timestamp, text) {
        Ok(Value::Timestamp(micros)) if micros >= 0 => {
            let millis = micros as u64 / 1_000;
            // A time that no UID can hold is none.
            if millis < 1 << 48 { Ok(AsOf::Time(millis)) } else { Err("it is too far ahead".to_owned()) }
        }
        _ => Err("give a UID as a write answers it, or a time as in 2026-11-22T15:45:00Z".to_owned()),
    }
}

/// The time in a UID, as people write it.
pub(crate) fn time_of(uid: Uid) -> String {
    time_text(uid.millis())
}

/// Milliseconds since 1970, as people write them.
pub(crate) fn time_text(millis: u64) -> String {
    Value::Timestamp(i64::try_from(millis.saturating_mul(1_000)).unwrap_or(i64::MAX)).to_string()
}

#[cfg(test)]
mod tests {
    use planaria_backup::AsOf;
    use planaria_types::Uid;

    use super::{parse_as_of, parse_long_ms, time_of};

    #[test]
    fn times_uids_and_durations_are_told_apart() {
        assert_eq!(parse_as_of("7.3"), Ok(AsOf::Commit(Uid::new((7 << 16) | 3))));
        assert_eq!(parse_as_of("2013-01-01T10:00:00Z"), Ok(AsOf::Time(1_357_034_400_000)));
        for text in ["", "yesterday", "7", "1969-12-31T00:00:00Z"] {
            assert!(parse_as_of(text).is_err(), "{text}");
        }
        assert_eq!(parse_long_ms("30d"), Ok(30 * 86_400_000));
        assert_eq!(parse_long_ms("2w"), Ok(14 * 86_400_000));
        assert_eq!(parse_long_ms("5m"), Ok(300_000));
        for text in ["d", "30", "999999999999999999w", "1y"] {
            assert!(parse_long_ms(text).is_err(), "{text}");
        }
        assert_eq!(time_of(Uid::from_millis(1_357_034_400_000)), "2013-01-01T10:00:00Z");
    }
}
