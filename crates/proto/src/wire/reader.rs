//! Goes through a line that hobnob itself wrote, from one field to the next. What is written in any other way, even where it
//! means the same, is not read here: it is left to what knows JSON, and so whatever is read here is the same there.

use std::str;

use super::number::BOOT_BOUND;
use crate::ids::{Boot, Origin, ServerId};

/// Digits of the greatest number that JSON may carry; with so many, none overflows.
pub(super) const DIGITS_MAX: usize = 16;

/// What is left of a line.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// Goes beyond this text, if it stands here.
    pub(super) fn has<const N: usize>(&mut self, text: &[u8; N]) -> bool {
        self.skip(text).is_some()
    }

    /// Goes beyond this text, which has to stand here. Its length is known beforehand: so it is compared a few words at a
    /// time.
    pub(super) fn skip<const N: usize>(&mut self, text: &[u8; N]) -> Option<()> {
        let (_, rest) = self.0.split_first_chunk().filter(|(here, _)| *here == text)?;
        self.0 = rest;
        Some(())
    }

    /// A text in quotation marks without escapes.
    pub(super) fn text(&mut self) -> Option<&'a str> {
        let inside = self.0.strip_prefix(b"\"")?;
        let end = inside.iter().position(|byte| *byte < b' ' || *byte == b'"' || *byte == b'\\')?;
        let (text, rest) = inside.split_at(end);
        self.0 = rest.strip_prefix(b"\"")?;
        str::from_utf8(text).ok()
    }

    /// A number below `bound`, which is at most [`number::BOUND`](super::number::BOUND), without leading zeros.
    pub(super) fn number(&mut self, bound: u64) -> Option<u64> {
        let (mut number, mut rest) = (0_u64, self.0);
        while let [digit @ b'0'..=b'9', after @ ..] = rest {
            // Whatever has too many digits for this is refused below.
            number = number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            rest = after;
        }
        let count = self.0.len() - rest.len();
        if count == 0 || count > DIGITS_MAX || (count > 1 && self.0[0] == b'0') {
            return None;
        }
        self.0 = rest;
        (number < bound).then_some(number)
    }

    /// A number of 32 bits.
    pub(super) fn small(&mut self) -> Option<u32> {
        self.number(1 << 32)?.try_into().ok()
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        let is_true = self.has(b"true");
        (is_true || self.has(b"false")).then_some(is_true)
    }

    pub(super) fn id(&mut self) -> Option<ServerId> {
        self.small().map(ServerId)
    }

    pub(super) fn boot(&mut self) -> Option<Boot> {
        self.number(BOOT_BOUND).map(Boot)
    }

    /// `id,boot`: an origin as it stands between brackets.
    pub(super) fn origin(&mut self) -> Option<Origin> {
        let id = self.id()?;
        self.skip(b",")?;
        Some(Origin { id, boot: self.boot()? })
    }

    pub(super) fn list<T>(&mut self, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.skip(b"[")?;
        let mut items = Vec::new();
        if self.has(b"]") {
            return Some(items);
        }
        loop {
            items.push(item(self)?);
            if self.has(b"]") {
                return Some(items);
            }
            self.skip(b",")?;
        }
    }

    /// A list after this text, or an empty one where that does not stand here.
    pub(super) fn list_if<T, const N: usize>(
        &mut self,
        text: &[u8; N],
        item: impl Fn(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        if self.has(text) { self.list(item) } else { Some(Vec::new()) }
    }

    /// Nothing follows but the end of the line.
    pub(super) fn end(&mut self) -> Option<()> {
        self.skip(b"}")?;
        matches!(self.0, b"" | b"\n").then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::{super::number::BOUND, *};

    #[test]
    fn numbers_end_where_they_end_everywhere() {
        fn check(number: &str, expected: Option<u64>) {
            assert_eq!(Reader(number.as_bytes()).number(BOUND), expected, "{number}");
        }
        check("0", Some(0));
        check("9007199254740991", Some(BOUND - 1));
        check("9007199254740992", None);
        check("99999999999999999999", None);
        check("1234567890123456", Some(1_234_567_890_123_456));
        check("12345678,", Some(12_345_678));
        check("0000000000000001", None);
        check("01", None);
        check("-1", None);
        check("", None);
    }
}
