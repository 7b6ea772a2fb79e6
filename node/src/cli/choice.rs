//! What reads must show, and how writes are made.

use clap::Args;
use planaria_net::wire::message::Level as WireLevel;
use planaria_replication::ack::Level;
use planaria_types::{Epoch, Uid};

use crate::handler::reads::Wanted;
use crate::output::CliError;
use crate::session::{Session, WriteChoice};

/// What a read must show.
#[derive(Args, Debug, Default)]
pub(crate) struct ReadArgs {
    /// Wait until the copy shows this commit: the position that a write answered
    #[arg(long, value_name = "UID[@EPOCH]")]
    pub(crate) after: Option<String>,
    /// Wait until what is shown is not older than this, as in 500ms, 2s or 1m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub(crate) max_staleness: Option<u64>,
    /// Have the primary confirm, through a majority of the promotable copies, that what it showed is the newest and
    /// cannot be lost; fail if it cannot
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Give up waiting after this [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub(crate) wait: Option<u64>,
}

impl ReadArgs {
    /// The same for a session.
    pub(crate) fn wanted(&self) -> Result<Wanted, CliError> {
        let position = self.after.as_deref().map(parse_position).transpose()?;
        Ok(Wanted {
            after: position.map(|(uid, _)| uid),
            epoch: position.and_then(|(_, epoch)| epoch),
            staleness_max_ms: self.max_staleness,
            timeout_ms: self.timeout_ms(),
        })
    }

    /// Has the session confirm what was read of it, if that was asked for.
    pub(crate) fn confirm(&self, session: &dyn Session) -> Result<(), CliError> {
        if self.fresh { session.confirm(self.timeout_ms()) } else { Ok(()) }
    }

    fn timeout_ms(&self) -> u32 {
        self.wait.map_or(0, |ms| u32::try_from(ms.max(1)).unwrap_or(u32::MAX))
    }
}

/// How a write is made.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct WriteArgs {
    #[command(flatten)]
    pub(crate) level: LevelArgs,
    /// Makes a repeated command safe: what was written under the same token before is not written again
    #[arg(long, value_name = "HEX", value_parser = parse_token)]
    pub(crate) token: Option<u128>,
}

impl WriteArgs {
    /// The same for a session.
    pub(crate) fn choice(&self) -> WriteChoice {
        WriteChoice { token: self.token, ..self.level.choice() }
    }
}

/// How many copies a write waits for.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LevelArgs {
    /// On how many copies it is durable before it is acknowledged: local, one, quorum or all
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Option<Level>,
    /// Give up waiting for other copies after this; whether they have it is unknown then [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration_ms)]
    pub(crate) timeout: Option<u64>,
}

impl LevelArgs {
    /// The same for a session.
    pub(crate) fn choice(&self) -> WriteChoice {
        let level = match self.level {
            None => WireLevel::Database,
            Some(Level::Local) => WireLevel::Local,
            Some(Level::One) => WireLevel::One,
            Some(Level::Quorum) => WireLevel::Quorum,
            Some(Level::All) => WireLevel::All,
        };
        let timeout_ms = self.timeout.map_or(0, |ms| u32::try_from(ms.max(1)).unwrap_or(u32::MAX));
        WriteChoice { level, timeout_ms, token: None }
    }
}

fn parse_token(text: &str) -> Result<u128, String> {
    u128::from_str_radix(text, 16).map_err(|_| "it is at most 32 hexadecimal digits".to_owned())
}

/// A number with its unit, in milliseconds.
pub(crate) fn parse_duration_ms(text: &str) -> Result<u64, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("write it with its unit, as in 500ms, 2s, 1m or 1h".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "it begins with a number".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "it is too long".to_owned())
}

/// A number of bytes with its unit, as in 512KiB, 64MiB or 1GiB.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit {
        "B" => 1,
        // Nothing is nothing in any unit.
        "" if number.parse() == Ok(0_u64) => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return Err("write it with its unit, as in 512KiB, 64MiB or 1GiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "it begins with a number".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "it is too much".to_owned())
}

/// A UID as commands write it: MILLIS.COUNTER.
pub(super) fn parse_uid(text: &str) -> Option<Uid> {
    let (millis, counter) = text.split_once('.')?;
    let (millis, counter): (u64, u16) = (millis.parse().ok()?, counter.parse().ok()?);
    (millis < 1 << 48).then(|| Uid::new(Uid::from_millis(millis).get() | u64::from(counter)))
}

/// A position as commands write it: MILLIS.COUNTER, and @TERM.INCARNATION#NONCE where the epoch matters.
fn parse_position(text: &str) -> Result<(Uid, Option<Epoch>), CliError> {
    let wrong = || {
        CliError::usage(format!("{text:?} is no position"))
            .hint("give what a write answered as `position`, or its `uid` alone")
    };
    let (uid, epoch) = text.split_once('@').map_or((text, None), |(uid, epoch)| (uid, Some(epoch)));
    let parse_epoch = |epoch: &str| {
        let (number, nonce) = epoch.split_once('#')?;
        let (term, incarnation) = number.split_once('.')?;
        let nonce = u64::from_str_radix(nonce, 16).ok()?;
        Some(Epoch { term: term.parse().ok()?, incarnation: incarnation.parse().ok()?, nonce })
    };
    let uid = parse_uid(uid).ok_or_else(wrong)?;
    let epoch = epoch.map(|epoch| parse_epoch(epoch).ok_or_else(wrong)).transpose()?;
    Ok((uid, epoch))
}
