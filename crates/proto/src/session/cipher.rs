//! How packets are sealed and opened: AES-256-GCM or ChaCha20-Poly1305, with the two keys that a Noise handshake ends with
//! (revision 34, section 5.2, `Split`) and its nonces (section 12).
//!
//! A cipher that is ready to work is its key, expanded, with tables: 544 bytes, and a session has two. Its keys are 64, and
//! making a cipher of one takes about as long as sealing a short line. So a session keeps its keys, and an endpoint keeps
//! the ciphers of [`WARM_MAX`] sessions that used them last: those of whoever talks, where a hundred thousand are silent.

use std::fmt;

use ring::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

use crate::{
    session::{SessionId, keys::Suite},
    wire::packet::TAG_BYTES,
};

/// Sessions whose ciphers are kept ready: 1.1 KiB each.
const WARM_MAX: usize = 1_024;

/// Gone from memory with the last that holds it.
pub(super) type Key = Zeroizing<[u8; 32]>;

/// The keys of a session, one for each way.
pub(super) struct Keys {
    suite: Suite,
    seal: Key,
    open: Key,
}

/// Ciphers of one session; perhaps of another, which is seen by the key.
#[derive(Default)]
pub(super) struct Ready {
    seal: Option<(Key, LessSafeKey)>,
    open: Option<(Key, LessSafeKey)>,
}

/// The ciphers that were used last.
#[derive(Default)]
pub(super) struct Warm(Vec<Option<Box<Ready>>>);

impl Keys {
    /// Those of the side that seals with `seal`.
    pub(super) fn new(suite: Suite, seal: Key, open: Key) -> Self {
        Self { suite, seal, open }
    }

    /// Seals, in place, all of `bytes` but the last [`TAG_BYTES`], which become the tag. No counter may come twice.
    pub(super) fn seal(&self, counter: u64, bytes: &mut [u8], ready: &mut Ready) {
        let (plain, place) = bytes.split_at_mut(bytes.len() - TAG_BYTES);
        let cipher = warm(&mut ready.seal, &self.seal, self.suite);
        let tag = cipher
            .seal_in_place_separate_tag(nonce(self.suite, counter), Aad::empty(), plain)
            .expect("a packet is shorter than 64 GiB");
        place.copy_from_slice(tag.as_ref());
    }

    /// Opens `ciphertext` into `plain`, which is at least as long: how many bytes, or `None` where it was not sealed with
    /// this key and counter.
    pub(super) fn open(&self, counter: u64, ciphertext: &[u8], plain: &mut [u8], ready: &mut Ready) -> Option<usize> {
        let place = plain.get_mut(..ciphertext.len())?;
        place.copy_from_slice(ciphertext);
        let cipher = warm(&mut ready.open, &self.open, self.suite);
        Some(cipher.open_in_place(nonce(self.suite, counter), Aad::empty(), place).ok()?.len())
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("suite", &self.suite).finish_non_exhaustive()
    }
}

impl Warm {
    /// Where the ciphers of a session are, or are to be. Sessions have low places while there are few of them, so as many
    /// as fit do not disturb each other.
    pub(super) fn of(&mut self, id: SessionId) -> &mut Ready {
        let at = id.0 as usize % WARM_MAX;
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at].get_or_insert_default()
    }

    /// A session is gone, or its last keys are.
    pub(super) fn forget(&mut self, id: SessionId) {
        if let Some(ready) = self.0.get_mut(id.0 as usize % WARM_MAX) {
            *ready = None;
        }
    }
}

impl fmt::Debug for Warm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Warm({})", self.0.iter().flatten().count())
    }
}

/// The cipher with that key: the one that is ready, or a new one in its place.
fn warm<'a>(ready: &'a mut Option<(Key, LessSafeKey)>, key: &Key, suite: Suite) -> &'a LessSafeKey {
    let is_ready = ready.as_ref().is_some_and(|(of, _)| **of == **key);
    if !is_ready {
        *ready = None;
    }
    &ready.get_or_insert_with(|| (key.clone(), cipher(suite, key))).1
}

fn cipher(suite: Suite, key: &[u8; 32]) -> LessSafeKey {
    let algorithm = match suite {
        Suite::AesGcm => &aead::AES_256_GCM,
        Suite::ChaChaPoly => &aead::CHACHA20_POLY1305,
    };
    LessSafeKey::new(UnboundKey::new(algorithm, key).expect("both take keys of 32 bytes"))
}

fn nonce(suite: Suite, counter: u64) -> Nonce {
    let mut bytes = [0; aead::NONCE_LEN];
    bytes[4..].copy_from_slice(&match suite {
        Suite::AesGcm => counter.to_be_bytes(),
        Suite::ChaChaPoly => counter.to_le_bytes(),
    });
    Nonce::assume_unique_for_key(bytes)
}

#[cfg(test)]
mod tests {
    use snow::{
        params::CipherChoice,
        resolvers::{CryptoResolver as _, RingResolver},
    };

    use super::*;

    fn keys(suite: Suite, seed: u8) -> [Keys; 2] {
        let (one, other) = (Key::new([seed; 32]), Key::new([seed + 1; 32]));
        [Keys::new(suite, one.clone(), other.clone()), Keys::new(suite, other, one)]
    }

    fn sealed(keys: &Keys, counter: u64, text: &[u8], ready: &mut Ready) -> Vec<u8> {
        let mut bytes = [text, &[0; TAG_BYTES]].concat();
        keys.seal(counter, &mut bytes, ready);
        bytes
    }

    #[test]
    fn packets_are_sealed_as_noise_says() {
        for (suite, choice) in [(Suite::AesGcm, CipherChoice::AESGCM), (Suite::ChaChaPoly, CipherChoice::ChaChaPoly)] {
            let mut noise = RingResolver.resolve_cipher(&choice).unwrap();
            noise.set(&[7; 32]);
            for (counter, text) in [(0, &b""[..]), (1, b"hello"), (3 << 48 | 9, b"later")] {
                let mut expected = vec![0; text.len() + TAG_BYTES];
                noise.encrypt(counter, &[], text, &mut expected);
                let [ours, _] = keys(suite, 7);
                assert_eq!(sealed(&ours, counter, text, &mut Ready::default()), expected, "{counter}");
            }
        }
    }

    #[test]
    fn what_one_side_seals_the_other_opens_and_nothing_else() {
        for suite in [Suite::AesGcm, Suite::ChaChaPoly] {
            let [ours, theirs] = keys(suite, 7);
            let packet = sealed(&ours, 5, b"hello", &mut Ready::default());
            let check = |keys: &Keys, counter, packet: &[u8], expected: Option<usize>| {
                let mut plain = [0; 64];
                assert_eq!(keys.open(counter, packet, &mut plain, &mut Ready::default()), expected);
            };
            check(&theirs, 5, &packet, Some(5));
            check(&theirs, 6, &packet, None);
            check(&ours, 5, &packet, None);
            check(&theirs, 5, &packet[1..], None);
            check(&theirs, 5, b"", None);
            check(&theirs, 5, &[0; 65], None);
        }
    }

    #[test]
    fn ciphers_of_another_session_are_not_taken_for_ones_own() {
        let mut warm = Warm::default();
        let ids = [3, 3 + WARM_MAX as u32, 3].map(SessionId);
        for (n, id) in ids.into_iter().enumerate() {
            let [ours, theirs] = keys(Suite::AesGcm, 10 * n as u8);
            let packet = sealed(&ours, 1, b"hello", warm.of(id));
            assert_eq!(theirs.open(1, &packet, &mut [0; 64], warm.of(id)), Some(5), "{n}");
        }
        warm.forget(ids[0]);
        warm.forget(SessionId(WARM_MAX as u32 - 1));
        assert_eq!(format!("{warm:?}"), "Warm(0)");
    }
}
