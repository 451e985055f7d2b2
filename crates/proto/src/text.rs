//! Bytes as text: base64 without padding, in the alphabet that is safe in file names and URLs. And numbers, in decimal.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Characters of 48 bytes.
const DECODED_CHARS_MAX: usize = 64;

/// `bytes` as text.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Adds `bytes` as text.
pub fn push_encoded(text: &mut String, bytes: &[u8]) {
    URL_SAFE_NO_PAD.encode_string(bytes, text);
}

/// The `N` bytes that `text` stands for, or `None` where it stands for anything else.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    // More than any id takes: no memory is asked for where there are so many of them.
    let mut bytes = [0; 48];
    if text.len() > DECODED_CHARS_MAX {
        return URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok();
    }
    let len = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
    bytes[..len].try_into().ok()
}

/// Adds a number: what `Display` writes, without the machinery around it.
pub fn push_number(text: &mut String, number: u64) {
    let mut buffer = [0; 20];
    text.push_str(str::from_utf8(decimal(number, &mut buffer)).unwrap_or_default());
}

/// A number as text, at the end of the buffer.
pub fn decimal(mut number: u64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut first = buffer.len();
    while number >= 100 {
        let pair = (number % 100) as u8;
        number /= 100;
        first -= 2;
        buffer[first..first + 2].copy_from_slice(&[b'0' + pair / 10, b'0' + pair % 10]);
    }
    if number >= 10 {
        first -= 1;
        buffer[first] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    first -= 1;
    buffer[first] = b'0' + number as u8;
    &buffer[first..]
}

/// How many digits a number has.
pub fn digits(number: u64) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_decoded_if_they_stand_for_so_many_bytes() {
        fn check<const N: usize>() {
            let bytes: [u8; N] = std::array::from_fn(|at| at as u8 ^ 0x5a);
            let text = encode(&bytes);
            assert_eq!(decode::<N>(&text), Some(bytes));
            assert_eq!(decode::<N>(&encode(&bytes[1..])), None);
            assert_eq!(decode::<N>(&(text.clone() + "AA")), None);
            assert_eq!(decode::<N>(&text.replacen(char::is_alphanumeric, "=", 1)), None);
        }
        check::<8>();
        check::<16>();
        check::<32>();
        check::<47>();
        check::<48>();
        check::<49>();
        check::<100>();
    }

    #[test]
    fn numbers_are_written_as_usual() {
        for number in [0, 1, 9, 10, 11, 99, 100, 12_345_678_901, u64::MAX - 1, u64::MAX] {
            let mut text = String::new();
            push_number(&mut text, number);
            assert_eq!((&text, digits(number)), (&number.to_string(), text.len()));
        }
    }
}
