//! Texts of others on our screen.

use std::borrow::Cow;

use hobnob_proto::ids::RoomName;

/// `text` without anything that a terminal would obey: control characters and escape sequences are shown as visible
/// replacements, and so are the marks that turn the direction of writing, with which a text could pose as another. Tabs
/// become spaces.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(|c| replacement(c).is_some()) {
        let mut shown = String::with_capacity(text.len());
        for c in text.chars() {
            match replacement(c) {
                Some('\t') => shown.push_str("    "),
                other => shown.push(other.unwrap_or(c)),
            }
        }
        Cow::Owned(shown)
    } else {
        Cow::Borrowed(text)
    }
}

/// What is shown instead of `c`; a tab stands for itself, and `None`: `c` is harmless.
fn replacement(c: char) -> Option<char> {
    match c {
        '\t' => Some('\t'),
        // The control pictures of Unicode are in the order of what they picture.
        '\0'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)),
        '\u{7f}' => Some('\u{2421}'),
        '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            Some('\u{fffd}')
        }
        _ => None,
    }
}

/// What an input line shows for `c`, in one column where `c` has none.
pub(crate) fn visible(c: char) -> char {
    match c {
        '\n' => '⏎',
        '\t' => '␉',
        c => replacement(c).unwrap_or(c),
    }
}

/// The UTC time of day of `millis` since 1970: `10:07`.
pub(crate) fn time_of_day(millis: u64) -> String {
    let minutes = millis / 60_000 % (24 * 60);
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

/// The UTC day of `millis` since 1970: `2026-11-22` (Howard Hinnant, "chrono-compatible low-level date algorithms").
pub(crate) fn day(millis: u64) -> String {
    let days = millis / 86_400_000 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Years begin in March here, so that the day that leap years add is the last.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = if month < 10 { (year_of_era, month + 3) } else { (year_of_era + 1, month - 9) };
    format!("{:04}-{month:02}-{day:02}", year + era * 400)
}

/// What people are told where a room had more than is kept.
pub(crate) fn history_gone(room: &RoomName, before: Option<u64>) -> String {
    match before {
        Some(millis) => {
            format!("history of #{room} before {} {} is no longer kept", day(millis), time_of_day(millis))
        }
        None => format!("history of #{room} is no longer kept"),
    }
}

/// `1 server`, `2 servers`.
pub(crate) fn count(n: u64, thing: &str) -> String {
    if n == 1 { format!("1 {thing}") } else { format!("{n} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_that_others_write() {
        fn check(text: &str, expected: &str) {
            assert_eq!(printable(text), expected);
        }
        check("hello, Zoë 👋", "hello, Zoë 👋");
        check("\x1b[2J", "␛[2J");
        check("a\rb\nc\x07", "a␍b␊c␇");
        check("a\tb", "a    b");
        check("\x7f\u{9b}31m", "␡\u{fffd}31m");
        check("\u{202e}abc", "\u{fffd}abc");
    }

    #[test]
    fn a_time_of_day_is_in_utc() {
        assert_eq!(time_of_day(1_795_341_600_000 + 7 * 60_000 + 6_999), "10:07");
    }

    #[test]
    fn a_day_is_in_utc() {
        fn check(millis: u64, expected: &str) {
            assert_eq!(day(millis), expected);
        }
        check(0, "1970-01-01");
        check(1_795_341_600_000, "2026-11-22");
        check(1_709_251_199_999, "2024-02-29");
        check(1_709_251_200_000, "2024-03-01");
        check(1_704_067_199_999, "2023-12-31");
    }
}
