//! When a schedule asks next.

use croner::parser::{CronParser, Seconds, Year};
use planaria_net::wire::jobs::{SCHEDULE_EVERY_MIN_MS, When};

use crate::{Error, Result};

/// Bytes of a pattern of the calendar.
const PATTERN_BYTES_MAX: usize = 100;

/// The next time after a moment, both in milliseconds since 1970.
///
/// A pattern of the calendar is that of cron, in UTC: minute, hour, day of the month, month, day of the week; a sixth field in
/// front is the second.
///
/// # Errors
///
/// `invalid` if there is none, or the pattern is none.
pub(super) fn next_after(when: &When, after_ms: u64) -> Result<u64> {
    match when {
        When::Every(ms) if *ms < SCHEDULE_EVERY_MIN_MS => {
            Err(invalid(format!("a schedule has at least {SCHEDULE_EVERY_MIN_MS} ms between two clones")))
        }
        When::Every(ms) => Ok(after_ms.saturating_add(*ms)),
        When::Calendar(pattern) => next_by_calendar(pattern, after_ms),
    }
}

fn next_by_calendar(pattern: &str, after_ms: u64) -> Result<u64> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(invalid(format!("a pattern of the calendar has at most {PATTERN_BYTES_MAX} bytes")));
    }
    let wrong = |error: croner::errors::CronError| invalid(format!("{pattern:?} names no time: {error}"));
    let cron = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
    let cron = cron.parse(pattern).map_err(wrong)?;
    let after = i64::try_from(after_ms).ok().and_then(chrono::DateTime::from_timestamp_millis);
    let after = after.ok_or_else(|| invalid("the clock is beyond all calendars".to_owned()))?;
    let next = cron.find_next_occurrence(&after, false).map_err(wrong)?;
    Ok(u64::try_from(next.timestamp_millis()).unwrap_or(0).max(after_ms + 1))
}

fn invalid(what: String) -> Error {
    Error::refused(
        "invalid",
        what,
        "write it as cron does, as in \"30 3 * * *\"; see `planaria cluster schedule --help`",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-22 19:00:00 UTC, a Sunday.
    const SUNDAY: u64 = 1_795_374_000_000;
    const HOUR: u64 = 3_600_000;

    fn next(pattern: &str) -> u64 {
        next_after(&When::Calendar(pattern.to_owned()), SUNDAY).unwrap() - SUNDAY
    }

    #[test]
    fn the_calendar_is_that_of_cron_in_utc() {
        assert_eq!(next("30 19 * * *"), HOUR / 2);
        assert_eq!(next("0 19 * * *"), 24 * HOUR, "after a moment, and not at it");
        assert_eq!(next("0 3 * * MON"), 8 * HOUR);
        assert_eq!(next("0 0 1 12 *"), (5 + 8 * 24) * HOUR);
        assert_eq!(next("*/5 * * * * *"), 5_000, "with seconds in front");
        assert_eq!(next_after(&When::Every(1_000), 7).unwrap(), 1_007);
    }

    #[test]
    fn what_names_no_time_is_refused() {
        for pattern in ["", "x", "61 * * * *", "0 0 30 2 *", "* * * *", &"0,".repeat(80)] {
            let refused = next_after(&When::Calendar(pattern.to_owned()), SUNDAY).unwrap_err();
            assert_eq!(refused.code(), "invalid", "{pattern:?}");
        }
        assert_eq!(next_after(&When::Every(999), 7).unwrap_err().code(), "invalid");
    }
}
