//! Texts of others on our screen.

use std::borrow::Cow;

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

/// The UTC time of day of `millis` since 1970: `10:07:06`.
pub(crate) fn time_of_day(millis: u64) -> String {
    let secs = millis / 1000 % 86_400;
    format!("{:02}:{:02}:{:02}", secs / 3600, secs / 60 % 60, secs % 60)
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
        assert_eq!(time_of_day(1_795_341_600_000 + 7 * 60_000 + 6_999), "10:07:06");
    }
}
