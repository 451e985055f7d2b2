//! Packets: how a datagram of a session is laid out.
//!
//! The first byte says what it is; a `{` there is discovery, which is not read here. Integers are big-endian.
//!
//! ```text
//! init      1 | suite 1 | sender 4 | cookie 16 | noise message 1: ephemeral 32, static 48, padded payload, tag 16
//! answer    2 | sender 4 | receiver 4 | noise message 2: ephemeral 32, payload, tag 16
//! sealed    3 | receiver 4 | counter 8: epoch 2, number 6 | ciphertext, tag 16
//! cookie    4 | receiver 4 | cookie 16
//! ```
//!
//! `sender` is the index that the sender chose for the session, and `receiver` the one that the receiver did. An init's
//! cookie is zeros until the responder has asked for one. The epoch counts the keys of a session from 0, as in DTLS (RFC
//! 6347, section 4.1): so the keys of a packet are known before it is opened. The layout follows `WireGuard` (Donenfeld,
//! NDSS 2017), the handshake is Noise IK (noiseprotocol.org, revision 34).

use crate::{limits, session::keys::Suite};

/// Bytes that authenticate a ciphertext.
pub const TAG_BYTES: usize = 16;
/// Bytes of a cookie.
pub const COOKIE_BYTES: usize = 16;
/// The cookie of an init whose sender has got none.
pub const NO_COOKIE: [u8; COOKIE_BYTES] = [0; COOKIE_BYTES];
/// Bytes before the ciphertext of a sealed packet.
pub const SEALED_HEAD_BYTES: usize = 13;
/// Bytes of an answer without its payload.
pub const ANSWER_BYTES_MIN: usize = ANSWER_HEAD_BYTES + 32 + TAG_BYTES;
/// Bytes of the shortest init that is read. Shorter ones are not padded, and an answer could be larger than they are.
pub const INIT_BYTES_MIN: usize = INIT_HEAD_BYTES + 32 + 48 + limits::HANDSHAKE_PADDED_BYTES_MIN + TAG_BYTES;

const INIT: u8 = 1;
const ANSWER: u8 = 2;
const SEALED: u8 = 3;
const COOKIE: u8 = 4;
const INIT_COOKIE_AT: usize = 6;
const INIT_HEAD_BYTES: usize = INIT_COOKIE_AT + COOKIE_BYTES;
const ANSWER_HEAD_BYTES: usize = 9;

/// A datagram of a session, not yet authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Opens a handshake.
    Init {
        /// How the session is to be sealed.
        suite: Suite,
        /// The initiator's index of the session.
        sender: u32,
        /// What the responder gave it to show, or [`NO_COOKIE`].
        cookie: [u8; COOKIE_BYTES],
        /// The first message of Noise IK.
        noise: &'a [u8],
    },
    /// Answers one.
    Answer {
        /// The responder's index of the session.
        sender: u32,
        /// The initiator's.
        receiver: u32,
        /// The second message of Noise IK.
        noise: &'a [u8],
    },
    /// Lines, sealed.
    Sealed {
        /// The receiver's index of the session.
        receiver: u32,
        /// The epoch of its keys, and the number of the packet under them in its direction: see [`counter`].
        counter: u64,
        /// Ciphertext and tag.
        ciphertext: &'a [u8],
    },
    /// Asks an initiator to repeat its init with this cookie.
    Cookie {
        /// The initiator's index of the session.
        receiver: u32,
        /// What to show.
        cookie: [u8; COOKIE_BYTES],
    },
}

/// Why a datagram is no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Longer than [`limits::DATAGRAM_BYTES_MAX`].
    Long,
    /// Shorter than a packet of its type.
    Short,
    /// Of no type that we know.
    Type,
    /// Of a suite that we do not know.
    Suite,
}

impl Malformed {
    /// The name of its counter.
    pub fn cause(self) -> &'static str {
        match self {
            Self::Long => "packet_long",
            Self::Short => "packet_short",
            Self::Type => "packet_type",
            Self::Suite => "packet_suite",
        }
    }
}

impl<'a> Packet<'a> {
    /// Reads a datagram.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, Malformed> {
        if datagram.len() > limits::DATAGRAM_BYTES_MAX {
            return Err(Malformed::Long);
        }
        let (&kind, rest) = datagram.split_first().ok_or(Malformed::Short)?;
        match kind {
            INIT => parse_init(rest, datagram.len()),
            ANSWER => parse_answer(rest, datagram.len()),
            SEALED => parse_sealed(rest).ok_or(Malformed::Short),
            COOKIE => parse_cookie(rest).ok_or(Malformed::Short),
            _ => Err(Malformed::Type),
        }
    }

    /// Writes a packet.
    pub fn to_bytes(self) -> Vec<u8> {
        match self {
            Self::Init { suite, sender, cookie, noise } => {
                [&[INIT, suite_byte(suite)], &sender.to_be_bytes()[..], &cookie, noise].concat()
            }
            Self::Answer { sender, receiver, noise } => {
                [&[ANSWER], &sender.to_be_bytes()[..], &receiver.to_be_bytes(), noise].concat()
            }
            Self::Sealed { receiver, counter, ciphertext } => {
                [&sealed_head(receiver, counter)[..], ciphertext].concat()
            }
            Self::Cookie { receiver, cookie } => [&[COOKIE], &receiver.to_be_bytes()[..], &cookie].concat(),
        }
    }
}

fn parse_init(rest: &[u8], len: usize) -> Result<Packet<'_>, Malformed> {
    if len < INIT_BYTES_MIN {
        return Err(Malformed::Short);
    }
    let (&suite, rest) = rest.split_first().ok_or(Malformed::Short)?;
    let suite = suite_of(suite).ok_or(Malformed::Suite)?;
    let (sender, rest) = rest.split_first_chunk().ok_or(Malformed::Short)?;
    let (cookie, noise) = rest.split_first_chunk().ok_or(Malformed::Short)?;
    Ok(Packet::Init { suite, sender: u32::from_be_bytes(*sender), cookie: *cookie, noise })
}

fn parse_answer(rest: &[u8], len: usize) -> Result<Packet<'_>, Malformed> {
    if len < ANSWER_BYTES_MIN {
        return Err(Malformed::Short);
    }
    let (sender, rest) = rest.split_first_chunk().ok_or(Malformed::Short)?;
    let (receiver, noise) = rest.split_first_chunk().ok_or(Malformed::Short)?;
    Ok(Packet::Answer { sender: u32::from_be_bytes(*sender), receiver: u32::from_be_bytes(*receiver), noise })
}

fn parse_sealed(rest: &[u8]) -> Option<Packet<'_>> {
    let (receiver, rest) = rest.split_first_chunk()?;
    let (counter, ciphertext) = rest.split_first_chunk()?;
    (ciphertext.len() >= TAG_BYTES).then_some(Packet::Sealed {
        receiver: u32::from_be_bytes(*receiver),
        counter: u64::from_be_bytes(*counter),
        ciphertext,
    })
}

fn parse_cookie(rest: &[u8]) -> Option<Packet<'_>> {
    let (receiver, rest) = rest.split_first_chunk()?;
    let cookie = rest.first_chunk()?;
    Some(Packet::Cookie { receiver: u32::from_be_bytes(*receiver), cookie: *cookie })
}

/// Puts a cookie into an init that was written before.
///
/// # Panics
/// If `init` is shorter than an init's head.
pub fn set_cookie(init: &mut [u8], cookie: [u8; COOKIE_BYTES]) {
    init[INIT_COOKIE_AT..INIT_HEAD_BYTES].copy_from_slice(&cookie);
}

/// Counter of the first packet under the keys of that epoch.
pub fn counter(epoch: u16) -> u64 {
    u64::from(epoch) << 48
}

/// The epoch of the keys under which a packet with this counter is sealed.
pub fn epoch(counter: u64) -> u16 {
    (counter >> 48) as u16
}

/// What stands before the ciphertext of a sealed packet.
pub fn sealed_head(receiver: u32, counter: u64) -> [u8; SEALED_HEAD_BYTES] {
    let mut head = [SEALED; SEALED_HEAD_BYTES];
    head[1..5].copy_from_slice(&receiver.to_be_bytes());
    head[5..].copy_from_slice(&counter.to_be_bytes());
    head
}

/// The suite's byte on the wire.
pub fn suite_byte(suite: Suite) -> u8 {
    match suite {
        Suite::AesGcm => 1,
        Suite::ChaChaPoly => 2,
    }
}

fn suite_of(byte: u8) -> Option<Suite> {
    match byte {
        1 => Some(Suite::AesGcm),
        2 => Some(Suite::ChaChaPoly),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Frame;

    #[test]
    fn a_keepalive_is_told_by_its_length() {
        let bytes = |n| SEALED_HEAD_BYTES + Frame::Ping { n }.to_line().len() + TAG_BYTES;
        assert_eq!(bytes(1)..=bytes(99_999), limits::KEEPALIVE_BYTES);
    }

    #[test]
    fn packets_survive_their_bytes() {
        fn check(packet: Packet<'_>, head: &[u8]) {
            let bytes = packet.to_bytes();
            assert_eq!(Packet::parse(&bytes), Ok(packet));
            assert_eq!(&bytes[..head.len()], head);
        }
        let noise = [7; 500];
        let init = |suite, sender, cookie| Packet::Init { suite, sender, cookie, noise: &noise };
        check(init(Suite::AesGcm, 0x0102_0304, [8; 16]), &[1, 1, 1, 2, 3, 4, 8]);
        check(init(Suite::ChaChaPoly, 5, NO_COOKIE), &[1, 2, 0, 0, 0, 5, 0]);
        check(Packet::Cookie { receiver: 258, cookie: [9; 16] }, &[4, 0, 0, 1, 2, 9]);
        check(Packet::Answer { sender: 1, receiver: 2, noise: &noise }, &[2, 0, 0, 0, 1, 0, 0, 0, 2, 7]);
        check(
            Packet::Sealed { receiver: 9, counter: 258, ciphertext: &noise[..16] },
            &[3, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 1, 2, 7],
        );
    }

    #[test]
    fn a_cookie_is_put_into_an_init() {
        let packet = Packet::Init { suite: Suite::AesGcm, sender: 5, cookie: NO_COOKIE, noise: &[7; 500] };
        let mut bytes = packet.to_bytes();
        set_cookie(&mut bytes, [9; 16]);
        let expected = Packet::Init { suite: Suite::AesGcm, sender: 5, cookie: [9; 16], noise: &[7; 500] };
        assert_eq!(Packet::parse(&bytes), Ok(expected));
    }

    #[test]
    fn a_counter_begins_with_its_epoch() {
        fn check(epoch: u16, number: u64, head: [u8; 8]) {
            let counter = counter(epoch) + number;
            assert_eq!(sealed_head(0, counter)[5..], head);
            assert_eq!(super::epoch(counter), epoch);
        }
        check(0, 258, [0, 0, 0, 0, 0, 0, 1, 2]);
        check(3, 0, [0, 3, 0, 0, 0, 0, 0, 0]);
        check(u16::MAX, (1 << 48) - 1, [255; 8]);
    }

    #[test]
    fn what_is_no_packet_has_a_cause() {
        fn check(head: &[u8], len: usize, expected: Malformed) {
            let mut datagram = head.to_vec();
            datagram.resize(len, 0);
            assert_eq!(Packet::parse(&datagram), Err(expected), "{head:?}, {len} bytes");
        }
        check(&[], 0, Malformed::Short);
        check(&[0], 1, Malformed::Type);
        check(&[5], 100, Malformed::Type);
        check(&[4], 20, Malformed::Short);
        check(b"{", 100, Malformed::Type);
        check(&[1, 1], INIT_BYTES_MIN - 1, Malformed::Short);
        check(&[1, 3], INIT_BYTES_MIN, Malformed::Suite);
        check(&[2], ANSWER_BYTES_MIN - 1, Malformed::Short);
        check(&[3], SEALED_HEAD_BYTES + TAG_BYTES - 1, Malformed::Short);
        check(&[3], limits::DATAGRAM_BYTES_MAX + 1, Malformed::Long);
    }
}
