//! Sessions: sealed conversations over datagrams. (Interface only, so far.)

use std::{collections::BTreeMap, net::SocketAddr};

use crate::{
    rng::Rng,
    session::keys::{KeyPair, Suite},
    time::Time,
};

pub mod keys;

/// A session of this endpoint: the receiver index that the other side puts on its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionId(pub u32);

/// Which side opened the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We did.
    Initiator,
    /// The other side did.
    Responder,
}

/// What happened to sessions.
#[derive(Debug)]
pub enum Event {
    /// Somebody opened a handshake: [`Endpoint::accept`] it, or leave it. Nothing may be changed outside the session
    /// because of it: it may be forged or replayed.
    Asked {
        /// Which.
        session: SessionId,
        /// From where.
        from: SocketAddr,
        /// The initiator's static key, which it claims to have.
        key: [u8; 32],
        /// What it said with it.
        payload: Vec<u8>,
    },
    /// A session stands, and both sides have proved their keys: at the initiator with the answer, at the responder with
    /// the initiator's first sealed packet.
    Up {
        /// Which.
        session: SessionId,
        /// Which side we are.
        role: Role,
        /// The other side's static key.
        key: [u8; 32],
        /// What the other side said in its handshake message.
        payload: Vec<u8>,
    },
    /// A line arrived, without its newline; fragments have been put together.
    Line {
        /// In which session.
        session: SessionId,
        /// The frame's JSON.
        line: Vec<u8>,
    },
    /// A handshake of ours was not answered, or a session has been silent for too long. It is gone.
    Closed {
        /// Which.
        session: SessionId,
    },
}

/// All sessions of one socket.
#[derive(Debug)]
pub struct Endpoint;

#[allow(unused_variables, clippy::unused_self, clippy::needless_pass_by_value, clippy::needless_pass_by_ref_mut)]
impl Endpoint {
    /// No sessions yet. `key` answers handshakes; a client, which answers none, has none.
    pub fn new(key: Option<KeyPair>, rng: Rng) -> Self {
        Self
    }

    /// Answers handshakes with another key from now on. Sessions stay.
    pub fn set_key(&mut self, key: KeyPair) {}

    /// Opens a session to whoever holds `remote` at `addr`, as `local`. The handshake is repeated until it is answered,
    /// for 3 s; then [`Event::Closed`].
    pub fn connect(
        &mut self,
        addr: SocketAddr,
        local: &KeyPair,
        remote: &[u8; 32],
        suite: Suite,
        payload: &[u8],
        now: Time,
    ) -> SessionId {
        SessionId(0)
    }

    /// Answers a handshake.
    pub fn accept(&mut self, session: SessionId, payload: &[u8], now: Time) {}

    /// Drops a session without a word.
    pub fn close(&mut self, session: SessionId) {}

    /// Takes a datagram that is not discovery.
    pub fn handle(&mut self, from: SocketAddr, datagram: &[u8], now: Time) {}

    /// Repeats handshakes and drops what has expired.
    pub fn tick(&mut self, now: Time) {}

    /// The next event, until there is none.
    pub fn poll_event(&mut self) -> Option<Event> {
        None
    }

    /// Appends a line (newline included, within [`limits::FRAME_BYTES_MAX`](crate::limits::FRAME_BYTES_MAX)) to what
    /// goes out with the next [`Self::flush`]. Larger entries and posts: see [`crate::wire::fragment`].
    pub fn send(&mut self, session: SessionId, line: &[u8]) {}

    /// Seals what was sent, as many lines to a packet as fit, and hands over all datagrams: (to, bytes).
    pub fn flush(&mut self, now: Time, out: &mut Vec<(SocketAddr, Vec<u8>)>) {}

    /// When [`Self::tick`] is wanted; `None`: not at all.
    pub fn deadline(&self) -> Option<Time> {
        None
    }

    /// Where the other side was last heard.
    pub fn addr(&self, session: SessionId) -> Option<SocketAddr> {
        None
    }

    /// When the other side was last heard.
    pub fn heard(&self, session: SessionId) -> Option<Time> {
        None
    }

    /// Datagrams dropped, by cause.
    pub fn counters(&self) -> &BTreeMap<&'static str, u64> {
        const { &BTreeMap::new() }
    }
}
