//! Days and times of the proleptic Gregorian calendar, and their texts (RFC 3339, ISO 8601 expanded years).
//!
//! The conversions are Howard Hinnant's `days_from_civil` and `civil_from_days`.

use std::fmt;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;
const MICROS_PER_DAY: i64 = SECONDS_PER_DAY * MICROS_PER_SECOND;

/// Days since 1970-01-01 of a day that exists, for years of at most seven digits.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// (year, month, day) of a count of days since 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Writes `YYYY-MM-DD`, the year with a sign where it has not four digits.
pub(super) fn write_date(f: &mut fmt::Formatter<'_>, days: i64) -> fmt::Result {
    let (year, month, day) = civil_from_days(days);
    match year {
        0..=9_999 => write!(f, "{year:04}-{month:02}-{day:02}"),
        _ => write!(f, "{year:+05}-{month:02}-{day:02}"),
    }
}

/// Writes `YYYY-MM-DDTHH:MM:SS[.ffffff]Z`, the fraction without zeros at its end.
pub(super) fn write_timestamp(f: &mut fmt::Formatter<'_>, micros: i64) -> fmt::Result {
    write_date(f, micros.div_euclid(MICROS_PER_DAY))?;
    let in_day = micros.rem_euclid(MICROS_PER_DAY);
    let seconds = in_day / MICROS_PER_SECOND;
    write!(f, "T{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)?;
    let mut fraction = in_day % MICROS_PER_SECOND;
    if fraction != 0 {
        let mut digits = 6;
        while fraction % 10 == 0 {
            fraction /= 10;
            digits -= 1;
        }
        write!(f, ".{fraction:0digits$}")?;
    }
    f.write_str("Z")
}

/// The days since 1970-01-01 that `text` names as `YYYY-MM-DD`, or with a sign and four to seven digits of the year.
pub(super) fn parse_date(text: &str) -> Option<i32> {
    let mut scanner = Scanner(text.as_bytes());
    let days = scanner.date()?;
    scanner.end()?;
    i32::try_from(days).ok()
}

/// The microseconds since 1970-01-01T00:00:00Z that `text` names: a date; `T`, `t` or a space; `HH:MM[:SS[.f]]`; then
/// nothing or `Z` for UTC, or an offset `±HH:MM`. A date alone is its midnight. A fraction finer than microseconds is
/// refused unless the rest is zeros, and so is the 61st second: neither could be given back.
pub(super) fn parse_timestamp(text: &str) -> Option<i64> {
    let mut scanner = Scanner(text.as_bytes());
    let days = scanner.date()?;
    let mut seconds = days.checked_mul(SECONDS_PER_DAY)?;
    let mut micros = 0;
    if !scanner.0.is_empty() {
        scanner.one_of(b"Tt ")?;
        seconds += scanner.number(2, 23)? * 3_600;
        scanner.one_of(b":")?;
        seconds += scanner.number(2, 59)? * 60;
        if scanner.one_of(b":").is_some() {
            seconds += scanner.number(2, 59)?;
            if scanner.one_of(b".").is_some() {
                micros = scanner.fraction()?;
            }
        }
        seconds -= scanner.offset_seconds()?;
    }
    scanner.end()?;
    seconds.checked_mul(MICROS_PER_SECOND)?.checked_add(micros)
}

/// What is left of a text.
struct Scanner<'a>(&'a [u8]);

impl Scanner<'_> {
    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }

    fn one_of(&mut self, accepted: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        accepted.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    fn digit(&mut self) -> Option<i64> {
        self.one_of(b"0123456789").map(|digit| i64::from(digit - b'0'))
    }

    /// Exactly `digits` digits that make at most `max`.
    fn number(&mut self, digits: usize, max: i64) -> Option<i64> {
        let mut number = 0;
        for _ in 0..digits {
            number = number * 10 + self.digit()?;
        }
        (number <= max).then_some(number)
    }

    fn year(&mut self) -> Option<i64> {
        let Some(sign) = self.one_of(b"+-") else {
            return self.number(4, 9_999);
        };
        let digits = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(4..=7).contains(&digits) {
            return None;
        }
        let year = self.number(digits, 9_999_999)?;
        Some(if sign == b'-' { -year } else { year })
    }

    fn date(&mut self) -> Option<i64> {
        let year = self.year()?;
        self.one_of(b"-")?;
        let month = self.number(2, 12)?;
        self.one_of(b"-")?;
        let day = self.number(2, 31)?;
        let exists = month >= 1 && day >= 1 && day <= days_in_month(year, month);
        exists.then(|| days_from_civil(year, month, day))
    }

    /// One or more digits behind the decimal point, as microseconds.
    fn fraction(&mut self) -> Option<i64> {
        let mut micros = self.digit()? * 100_000;
        let mut unit = 10_000;
        while let Some(digit) = self.digit() {
            if unit == 0 && digit != 0 {
                return None;
            }
            micros += digit * unit;
            unit /= 10;
        }
        Some(micros)
    }

    fn offset_seconds(&mut self) -> Option<i64> {
        if self.0.is_empty() || self.one_of(b"Zz").is_some() {
            return Some(0);
        }
        let sign = self.one_of(b"+-")?;
        let hours = self.number(2, 23)?;
        self.one_of(b":")?;
        let seconds = hours * 3_600 + self.number(2, 59)? * 60;
        Some(if sign == b'-' { -seconds } else { seconds })
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::{civil_from_days, days_from_civil, parse_date, parse_timestamp};

    #[test]
    fn every_day_of_eight_centuries_follows_the_one_before() {
        let mut expected = days_from_civil(1_600, 1, 1);
        for year in 1_600..2_400 {
            for month in 1..=12 {
                for day in 1..=super::days_in_month(year, month) {
                    assert_eq!(days_from_civil(year, month, day), expected);
                    assert_eq!(civil_from_days(expected), (year, month, day));
                    expected += 1;
                }
            }
        }
        assert_eq!(days_from_civil(1970, 1, 1), 0);
        assert_eq!(days_from_civil(2000, 3, 1), 11_017);
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        assert_eq!(parse_date("2013-01-01"), Some(15_706));
        assert_eq!(parse_date("2012-02-29"), Some(15_399));
        for text in
            ["2013-02-29", "1900-02-29", "2013-13-01", "2013-00-01", "2013-01-00", "2013-1-1", "13-01-01"]
        {
            assert_eq!(parse_date(text), None, "{text}");
        }
        for text in
            ["2013-01-01 ", " 2013-01-01", "2013-01-01T00:00", "", "+99999999-01-01", "+9999999-01-01"]
        {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    #[test]
    fn times_are_read_with_and_without_zone() {
        let ten = 1_357_034_400_000_000;
        for text in [
            "2013-01-01T10:00:00Z",
            "2013-01-01 10:00",
            "2013-01-01 10:00:00",
            "2013-01-01t10:00:00.000z",
            "2013-01-01T11:30:00+01:30",
            "2012-12-31T23:00:00-11:00",
            "2013-01-01T10:00Z",
        ] {
            assert_eq!(parse_timestamp(text), Some(ten), "{text}");
        }
        assert_eq!(parse_timestamp("2013-01-01T10:00:00.25Z"), Some(ten + 250_000));
        assert_eq!(parse_timestamp("2013-01-01T10:00:00.000001000Z"), Some(ten + 1));
        assert_eq!(parse_timestamp("1969-12-31T23:59:59.999999Z"), Some(-1));
        assert_eq!(parse_timestamp("2013-01-01"), Some(1_356_998_400_000_000));
    }

    #[test]
    fn times_that_could_not_be_given_back_are_refused() {
        for text in [
            "2013-01-01T10:00:00.0000001Z",
            "2013-01-01T10:00:60Z",
            "2013-01-01T24:00:00Z",
            "2013-01-01T10",
            "2013-01-01T10:00:00.",
            "2013-01-01T10:00:00 Z",
            "2013-01-01T10:00:00+0100",
            "2013-01-01T10:00:00Zx",
            "+9999999-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }
}
