//! The handshake: Noise IK (noiseprotocol.org, revision 34), by `snow`.
//!
//! ```text
//! initiator                                                responder
//!    | -- message 1: its key, sealed; padded payload ------> |   may be replayed, so it has no effect yet
//!    | <------------------------------ message 2: payload -- |   the responder has proved its key
//!    | -- any sealed packet -------------------------------> |   the initiator has proved its own
//! ```
//!
//! The initiator knows the responder's key beforehand. The prologue names the protocol's version and the suite, so that
//! neither can be changed on the way. New keys for a session that stands come from Noise KK, whose two messages carry
//! nothing but an ephemeral key each, since both sides know each other's static key by then; its prologue names the session
//! too. All randomness comes from an [`Rng`] that is handed in.

use std::{cell::RefCell, sync::Arc};

use snow::{
    Builder, Error, HandshakeState,
    params::{CipherChoice, DHChoice, HashChoice},
    resolvers::{CryptoResolver, DefaultResolver, RingResolver},
    types::{Cipher, Dh, Hash, Random},
};
use zeroize::Zeroizing;

use crate::{
    limits,
    rng::Rng,
    session::{
        cipher::Keys,
        keys::{KeyPair, Suite},
    },
    wire::packet,
};

/// What a side knows once it has read the other's message: how packets are sealed, and what came with it.
pub(super) type Finished = (Keys, Vec<u8>);

/// An initiator that waits for message 2.
#[derive(Debug)]
pub(super) struct Initiator(Option<HandshakeState>, Suite);

impl Initiator {
    /// Opens a handshake; gives message 1 too. `payload` is within [`limits::HANDSHAKE_PAYLOAD_BYTES_MAX`].
    pub(super) fn new(local: &KeyPair, remote: &[u8; 32], suite: Suite, payload: &[u8], rng: Rng) -> (Self, Vec<u8>) {
        let prologue = prologue(suite);
        let mut state = builder(local, name(suite), &prologue, rng)
            .and_then(|builder| builder.remote_public_key(remote)?.build_initiator())
            .expect("the pattern, the keys and the resolver fit each other");
        let message = write(&mut state, &pad(payload));
        (Self(Some(state), suite), message)
    }

    /// Opens the handshake for new keys of a session; gives its message 1 too.
    pub(super) fn again(parties: &Parties, session: Binding, rng: Rng) -> (Self, Vec<u8>) {
        let prologue = session.prologue(parties.suite);
        let mut state = builder(&parties.local, again_name(parties.suite), &prologue, rng)
            .and_then(|builder| builder.remote_public_key(&parties.remote)?.build_initiator())
            .expect("the pattern, the keys and the resolver fit each other");
        let message = write(&mut state, &[]);
        (Self(Some(state), parties.suite), message)
    }

    /// Reads message 2. A wrong one changes nothing: the right one may still come.
    pub(super) fn finish(&mut self, message: &[u8]) -> Option<Finished> {
        let payload = read(self.0.as_mut()?, message)?;
        Some((keys(self.0.take()?, self.1), payload))
    }
}

/// A responder that has read message 1.
#[derive(Debug)]
pub(super) struct Responder(Option<HandshakeState>, Suite);

impl Responder {
    /// Reads message 1; gives the initiator's static key and its payload too. `None` for a message that is not for
    /// `local`, or was changed on the way.
    pub(super) fn new(local: &KeyPair, suite: Suite, message: &[u8], rng: Rng) -> Option<(Self, [u8; 32], Vec<u8>)> {
        let prologue = prologue(suite);
        let mut state = builder(local, name(suite), &prologue, rng).and_then(Builder::build_responder).ok()?;
        let payload = unpad(&read(&mut state, message)?)?.to_vec();
        let key = state.get_remote_static()?.try_into().ok()?;
        Some((Self(Some(state), suite), key, payload))
    }

    /// Writes message 2; `None` if that has been done.
    pub(super) fn answer(&mut self, payload: &[u8]) -> Option<(Keys, Vec<u8>)> {
        let mut state = self.0.take()?;
        let message = write(&mut state, payload);
        Some((keys(state, self.1), message))
    }
}

/// Answers the handshake for new keys of a session; gives its message 2 too. `None` for a message that is not the other
/// side's, not for this session, or was changed on the way.
pub(super) fn answer_again(parties: &Parties, session: Binding, message: &[u8], rng: Rng) -> Option<(Keys, Vec<u8>)> {
    let prologue = session.prologue(parties.suite);
    let mut state = builder(&parties.local, again_name(parties.suite), &prologue, rng)
        .and_then(|builder| builder.remote_public_key(&parties.remote)?.build_responder())
        .ok()?;
    read(&mut state, message)?;
    let answer = write(&mut state, &[]);
    Some((keys(state, parties.suite), answer))
}

/// Between whom a session is, as one of them sees it.
#[derive(Clone, Debug)]
pub(super) struct Parties {
    pub(super) suite: Suite,
    /// Our static key; shared by all sessions that have it.
    pub(super) local: Arc<KeyPair>,
    /// The other side's.
    pub(super) remote: [u8; 32],
}

/// Which keys of which session a handshake makes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding {
    pub(super) epoch: u16,
    /// The index that the session's initiator chose.
    pub(super) initiator: u32,
    /// The one that its responder did.
    pub(super) responder: u32,
}

impl Binding {
    fn prologue(self, suite: Suite) -> Vec<u8> {
        let (initiator, responder) = (self.initiator.to_be_bytes(), self.responder.to_be_bytes());
        [b"hobnob 1 rekey", &[packet::suite_byte(suite)][..], &self.epoch.to_be_bytes(), &initiator, &responder]
            .concat()
    }
}

fn name(suite: Suite) -> &'static str {
    match suite {
        Suite::AesGcm => "Noise_IK_25519_AESGCM_SHA256",
        Suite::ChaChaPoly => "Noise_IK_25519_ChaChaPoly_BLAKE2s",
    }
}

fn again_name(suite: Suite) -> &'static str {
    match suite {
        Suite::AesGcm => "Noise_KK_25519_AESGCM_SHA256",
        Suite::ChaChaPoly => "Noise_KK_25519_ChaChaPoly_BLAKE2s",
    }
}

fn builder<'a>(local: &'a KeyPair, name: &str, prologue: &'a [u8], rng: Rng) -> Result<Builder<'a>, Error> {
    Builder::with_resolver(name.parse()?, Box::new(Resolver(RefCell::new(rng))))
        .prologue(prologue)?
        .local_private_key(local.private.as_ref())
}

fn prologue(suite: Suite) -> Vec<u8> {
    [b"hobnob 1", &[packet::suite_byte(suite)][..]].concat()
}

fn write(state: &mut HandshakeState, payload: &[u8]) -> Vec<u8> {
    let mut message = vec![0; payload.len() + 256];
    let len = state.write_message(payload, &mut message).expect("it is our turn, and the message fits");
    message.truncate(len);
    message
}

/// The keys that a handshake ends with, once both messages have been written or read.
fn keys(mut state: HandshakeState, suite: Suite) -> Keys {
    debug_assert!(state.is_handshake_finished(), "both patterns have two messages");
    let split = Zeroizing::new(state.dangerously_get_raw_split());
    let (initiators, responders) = (Zeroizing::new(split.0), Zeroizing::new(split.1));
    if state.is_initiator() {
        Keys::new(suite, initiators, responders)
    } else {
        Keys::new(suite, responders, initiators)
    }
}

fn read(state: &mut HandshakeState, message: &[u8]) -> Option<Vec<u8>> {
    let mut payload = vec![0; message.len()];
    let len = state.read_message(message, &mut payload).ok()?;
    payload.truncate(len);
    Some(payload)
}

/// Two bytes of length, the payload, and zeros.
fn pad(payload: &[u8]) -> Vec<u8> {
    let len = u16::try_from(payload.len()).expect("a handshake's payload is at most 1 KiB");
    let mut padded = [&len.to_be_bytes()[..], payload].concat();
    padded.resize(padded.len().max(limits::HANDSHAKE_PADDED_BYTES_MIN), 0);
    padded
}

fn unpad(padded: &[u8]) -> Option<&[u8]> {
    let (len, rest) = padded.split_first_chunk()?;
    rest.get(..usize::from(u16::from_be_bytes(*len)))
}

/// Ring's ciphers and SHA-256 at hardware speed, `snow`'s own primitives for the rest, and our randomness.
struct Resolver(RefCell<Rng>);

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Seeded(self.0.borrow_mut().fork())))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        RingResolver.resolve_hash(choice).or_else(|| DefaultResolver.resolve_hash(choice))
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        RingResolver.resolve_cipher(choice)
    }
}

struct Seeded(Rng);

impl Random for Seeded {
    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(seed: u8) -> KeyPair {
        KeyPair::generate(&mut rng(seed))
    }

    fn rng(seed: u8) -> Rng {
        Rng::from_seed([seed; 32])
    }

    fn open(suite: Suite, payload: &[u8]) -> (Initiator, Vec<u8>) {
        Initiator::new(&key(1), &key(2).public, suite, payload, rng(3))
    }

    #[test]
    fn both_sides_learn_the_payloads_and_the_responder_the_key() {
        fn check(suite: Suite, payload: &[u8]) {
            let (mut initiator, first) = open(suite, payload);
            let (mut responder, claimed, got) = Responder::new(&key(2), suite, &first, rng(4)).unwrap();
            assert_eq!((claimed, got.as_slice()), (key(1).public, payload));
            let (_, second) = responder.answer(b"pong").unwrap();
            let (_, got) = initiator.finish(&second).unwrap();
            assert_eq!(got, b"pong");
            assert!(responder.answer(b"pong").is_none() && initiator.finish(&second).is_none());
        }
        for suite in [Suite::AesGcm, Suite::ChaChaPoly] {
            check(suite, b"");
            check(suite, b"ping");
            check(suite, &[7; limits::HANDSHAKE_PAYLOAD_BYTES_MAX]);
        }
    }

    #[test]
    fn a_message_for_another_key_or_suite_is_refused() {
        let (_, first) = open(Suite::AesGcm, b"ping");
        assert!(Responder::new(&key(3), Suite::AesGcm, &first, rng(4)).is_none());
        assert!(Responder::new(&key(2), Suite::ChaChaPoly, &first, rng(4)).is_none());
    }

    #[test]
    fn a_forged_answer_does_not_spoil_the_right_one() {
        for suite in [Suite::AesGcm, Suite::ChaChaPoly] {
            let (mut initiator, first) = open(suite, b"ping");
            let (mut responder, ..) = Responder::new(&key(2), suite, &first, rng(4)).unwrap();
            let (_, second) = responder.answer(b"pong").unwrap();
            for at in 0..second.len() {
                let mut forged = second.clone();
                forged[at] ^= 0x40;
                assert!(initiator.finish(&forged).is_none(), "byte {at}");
                assert!(initiator.finish(&second[..at]).is_none(), "{at} bytes");
            }
            assert!(initiator.finish(&second).is_some());
        }
    }

    #[test]
    fn new_keys_are_only_for_the_same_two_parties_and_the_same_session() {
        fn check(theirs: u8, epoch: u16, initiator: u32, suite: Suite, expected: bool) {
            let parties = |local: u8, remote: u8, suite| Parties {
                suite,
                local: Arc::new(key(local)),
                remote: key(remote).public,
            };
            let session = Binding { epoch: 1, initiator: 5, responder: 6 };
            let (mut opener, ask) = Initiator::again(&parties(1, 2, Suite::AesGcm), session, rng(3));
            assert_eq!(ask.len(), 48);
            let session = Binding { epoch, initiator, responder: 6 };
            let answer = answer_again(&parties(2, theirs, suite), session, &ask, rng(4));
            assert_eq!(answer.is_some(), expected);
            if let Some((_, answer)) = answer {
                let mut forged = answer.clone();
                forged[40] ^= 1;
                assert!(opener.finish(&forged).is_none() && opener.finish(&answer).is_some());
            }
        }
        check(1, 1, 5, Suite::AesGcm, true);
        check(3, 1, 5, Suite::AesGcm, false);
        check(1, 2, 5, Suite::AesGcm, false);
        check(1, 1, 6, Suite::AesGcm, false);
        check(1, 1, 5, Suite::ChaChaPoly, false);
    }

    #[test]
    fn a_length_beyond_the_payload_is_refused() {
        fn check(padded: &[u8], expected: Option<&[u8]>) {
            assert_eq!(unpad(padded), expected);
        }
        check(&[], None);
        check(&[0], None);
        check(&[0, 0], Some(b""));
        check(&[0, 2, 7], None);
        check(&[0, 1, 7, 0], Some(&[7]));
    }
}
