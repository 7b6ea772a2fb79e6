//! Sizes, counts, durations and rates as people read them.

use std::borrow::Cow;
use std::time::Duration;

const BYTE_UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A number of bytes: `512 B`, `1.5 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    let mut scaled = count as f64;
    let mut unit = "B";
    for larger in BYTE_UNITS {
        // What would be written as 1024 of a unit is written as 1 of the next.
        if scaled < 1_023.95 {
            break;
        }
        scaled /= 1_024.0;
        unit = larger;
    }
    if unit == "B" { format!("{scaled:.0} B") } else { format!("{} {unit}", three_digits(scaled)) }
}

/// About three digits: `1.23`, `12.3`, `123`.
fn three_digits(number: f64) -> String {
    if number < 9.995 {
        format!("{number:.2}")
    } else if number < 99.95 {
        format!("{number:.1}")
    } else {
        format!("{number:.0}")
    }
}

/// A count with its thousands set apart: `336,776`.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration: `350 µs`, `12.3 ms`, `1.24 s`, `2 m 05 s`, `3 h 04 m`, `5 d 02 h`.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 0.000_999_5 {
        return format!("{:.0} µs", seconds * 1e6);
    }
    if seconds < 0.999_5 {
        return format!("{} ms", three_digits(seconds * 1e3));
    }
    if seconds < 59.95 {
        return format!("{} s", three_digits(seconds));
    }
    let whole = duration.as_secs() + u64::from(duration.subsec_millis() >= 500);
    let (days, hours, minutes) = (whole / 86_400, whole / 3_600 % 24, whole / 60 % 60);
    if days > 0 {
        format!("{days} d {hours:02} h")
    } else if hours > 0 {
        format!("{hours} h {minutes:02} m")
    } else {
        format!("{minutes} m {:02} s", whole % 60)
    }
}

/// A number of things over a duration: `1.20 M/s`. Over no time at all there is no rate: `-`.
pub(crate) fn count_rate(count: u64, over: Duration) -> String {
    if over.is_zero() {
        return "-".into();
    }
    let mut scaled = count as f64 / over.as_secs_f64();
    let mut unit = "";
    for larger in [" k", " M", " G"] {
        if scaled < 999.5 {
            break;
        }
        scaled /= 1_000.0;
        unit = larger;
    }
    format!("{}{unit}/s", three_digits(scaled))
}

/// `text` with control characters escaped, so that data cannot steer a terminal or break a line.
pub(crate) fn escape_control(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\t' | '\n' | '\r' => out.extend(character.escape_default()),
            _ if is_unsafe(character) => out.extend(character.escape_unicode()),
            _ => out.push(character),
        }
    }
    Cow::Owned(out)
}

/// Control characters, and those that turn the direction of writing.
fn is_unsafe(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{bytes, count, count_rate, duration, escape_control};

    #[test]
    fn sizes_and_counts_read_well() {
        for (number, text) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.00 KiB"),
            (1_572_864, "1.50 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
        assert_eq!(bytes((1 << 20) - 1), "1.00 MiB");
        for (number, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (336_776, "336,776"), (1_000_000, "1,000,000")]
        {
            assert_eq!(count(number), text);
        }
    }

    #[test]
    fn durations_read_well() {
        for (micros, text) in [
            (0, "0 µs"),
            (350, "350 µs"),
            (999_600, "1.00 s"),
            (12_340, "12.3 ms"),
            (1_240_000, "1.24 s"),
            (59_999_000, "1 m 00 s"),
            (125_000_000, "2 m 05 s"),
            (11_040_000_000, "3 h 04 m"),
            (439_200_000_000, "5 d 02 h"),
        ] {
            assert_eq!(duration(Duration::from_micros(micros)), text, "{micros}");
        }
    }

    #[test]
    fn rates_read_well() {
        assert_eq!(count_rate(2_400_000, Duration::from_secs(2)), "1.20 M/s");
        assert_eq!(count_rate(5, Duration::from_secs(10)), "0.50/s");
        assert_eq!(count_rate(5, Duration::ZERO), "-");
    }

    #[test]
    fn control_characters_are_shown_not_sent() {
        assert_eq!(escape_control("plain é"), "plain é");
        assert_eq!(escape_control("a\n\u{1b}[0m\u{202e}"), "a\\n\\u{1b}[0m\\u{202e}");
    }
}
