//! Sessions: sealed conversations over datagrams.
//!
//! A session begins with a handshake of one round trip (Noise IK), and then is two streams of numbered packets, each
//! sealed on its own. Nothing is retransmitted and nothing is put in order: whoever needs a line again asks for it. What
//! is promised: a line that comes out was sealed by the other side for this session, and comes out at most once for each
//! time it was sent. Roaming is that of `WireGuard` (Donenfeld, NDSS 2017): the newest authentic packet says where the
//! other side is.
//!
//! Whoever opens a session costs little until it has shown that it is where it says (`cookie`), and no turn of the loop
//! costs much whoever calls (`gate`). A session gets new keys each hour (`rekey`).
//!
//! What this assumes: the initiator knows the responder's key, time does not go back, and [`Endpoint::flush`] is called
//! at the end of each turn in which anything else was. Each cause for which a datagram is dropped has a counter.

use std::net::SocketAddr;

mod census;
mod cipher;
mod cookie;
mod datagrams;
mod endpoint;
mod gate;
mod half_open;
mod handshake;
mod incoming;
pub mod keys;
mod outbox;
mod rekey;
mod sealed;
mod state;
mod table;
#[cfg(test)]
mod tests;

pub use census::{Census, Talk};
pub use datagrams::{Datagrams, Run};
pub use endpoint::Endpoint;

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
    /// A handshake of ours was not answered, one that was [`Event::Asked`] for was not completed, or a session has been
    /// silent for too long. It is gone.
    Closed {
        /// Which.
        session: SessionId,
    },
}
