//! Bytes as text: base64 without padding, in the alphabet that is safe in file names and URLs.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// `bytes` as text.
pub fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The `N` bytes that `text` stands for, or `None` where it stands for anything else.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok()
}
