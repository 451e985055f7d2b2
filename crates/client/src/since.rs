//! `--since`: a time on the command line.
//!
//! `all`, seconds since 1970, a span back from now (`90s`, `10m`, `2h`, `1d`), or UTC as in RFC 3339
//! (`2026-11-22T10:00:00Z`, also without seconds, or a day alone). The clock of this machine says what "now" is; cluster
//! time is close to it where the machine's clock is right.

use std::{
    str::FromStr,
    time::{Duration, SystemTime},
};

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// Everything that is kept.
    All,
    /// Milliseconds since 1970.
    Millis(u64),
}

/// A text that is no time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this is not a time: use `all`, a span like 10m, 2h or 1d, UTC like 2026-11-22T10:00:00Z, or seconds since 1970"
)]
pub struct InvalidTime;

impl FromStr for Since {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        parse(text, u64::try_from(now.as_millis()).unwrap_or(u64::MAX)).ok_or(InvalidTime)
    }
}

/// The time that `text` says, at `now_millis` since 1970.
fn parse(text: &str, now_millis: u64) -> Option<Since> {
    let text = text.trim();
    if text == "all" {
        return Some(Since::All);
    }
    if let Some(millis) = span_millis(text) {
        return Some(Since::Millis(now_millis.saturating_sub(millis)));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Since::Millis(text.parse::<u64>().ok()?.checked_mul(1000)?));
    }
    utc_millis(text).map(Since::Millis)
}

/// The milliseconds of a span like `10m`.
fn span_millis(text: &str) -> Option<u64> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let secs = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse::<u64>().ok()?.checked_mul(secs)?.checked_mul(1000)).flatten()
}

/// The milliseconds since 1970 of a UTC time like `2026-11-22T10:00:00Z`.
fn utc_millis(text: &str) -> Option<u64> {
    let text = text.strip_suffix(['Z', 'z']).unwrap_or(text);
    let (day, time) = text.split_once(['T', 't', ' ']).unwrap_or((text, "00:00:00"));
    let [year, month, day] = numbers(day, '-')?[..] else { return None };
    let (hour, minute, second) = match numbers(time.split_once('.').map_or(time, |(whole, _)| whole), ':')?[..] {
        [hour, minute] => (hour, minute, 0),
        [hour, minute, second] => (hour, minute, second),
        _ => return None,
    };
    let is_time = hour < 24 && minute < 60 && second <= 60;
    let secs = days_since_1970(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    is_time.then_some(secs * 1000)
}

/// The numbers of at most 4 digits between `separator`s.
fn numbers(text: &str, separator: char) -> Option<Vec<u64>> {
    let number = |part: &str| {
        let is_number = (1..=4).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| part.parse().ok()).flatten()
    };
    text.split(separator).map(number).collect()
}

/// The days from 1970-01-01 to a day of the Gregorian calendar (Howard Hinnant, "chrono-compatible low-level date
/// algorithms").
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days_in_month = match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year < 1970 || !(1..=days_in_month).contains(&day) {
        return None;
    }
    // Years begin in March here, so that the day that leap years add is the last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    days.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_said_in_many_ways() {
        fn check(text: &str, expected: Option<u64>) {
            assert_eq!(parse(text, 1_000_000_000), expected.map(Since::Millis), "{text:?}");
        }
        check("10m", Some(1_000_000_000 - 600_000));
        check("2h", Some(1_000_000_000 - 7_200_000));
        check("90s", Some(1_000_000_000 - 90_000));
        check("9999d", Some(0));
        check("1700000000", Some(1_700_000_000_000));
        check("1970-01-01T00:00:00Z", Some(0));
        check("2026-11-22T10:00:00Z", Some(1_795_341_600_000));
        check("2026-11-22T10:00", Some(1_795_341_600_000));
        check("2026-11-22", Some(1_795_305_600_000));
        check("2024-02-29T23:59:59.5Z", Some(1_709_251_199_000));
        check("2026-02-29", None);
        check("2026-13-01", None);
        check("2026-11-22T24:00", None);
        check("", None);
        check("m", None);
        check("-1", None);
        check("99999999999999999999", None);
        check("99999999999999999999d", None);
        check("é", None);
        check("yesterday", None);
    }

    #[test]
    fn all_is_all() {
        assert_eq!("all".parse(), Ok(Since::All));
    }
}
