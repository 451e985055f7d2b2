//! Handshakes that were asked for and whose initiator has not yet proved itself: a bounded table of them.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
};

use sha2::{Digest as _, Sha256};

use crate::{limits, session::SessionId};

/// What tells one ask from another: who sent it, and the SHA-256 of the datagram. A repeated one is the same.
pub(super) type AskId = (SocketAddr, [u8; 32]);

/// The ask that this datagram is.
pub(super) fn ask_id(from: SocketAddr, datagram: &[u8]) -> AskId {
    (from, Sha256::digest(datagram).into())
}

/// Half-open sessions, at most [`limits::HALF_OPEN_MAX`].
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    by_ask: BTreeMap<AskId, SessionId>,
    /// Oldest first.
    order: VecDeque<AskId>,
}

impl HalfOpen {
    /// The session of an ask.
    pub(super) fn get(&self, ask: &AskId) -> Option<SessionId> {
        self.by_ask.get(ask).copied()
    }

    /// Adds one that is not there yet; returns the oldest where it has to go for that. That one is still to be removed.
    #[must_use]
    pub(super) fn insert(&mut self, ask: AskId, session: SessionId) -> Option<SessionId> {
        let oldest = (self.order.len() >= limits::HALF_OPEN_MAX).then(|| self.order.front()).flatten();
        let oldest = oldest.and_then(|oldest| self.get(oldest));
        self.by_ask.insert(ask, session);
        self.order.push_back(ask);
        oldest
    }

    /// Removes one.
    pub(super) fn remove(&mut self, ask: &AskId) {
        self.by_ask.remove(ask);
        if let Some(at) = self.order.iter().position(|other| other == ask) {
            self.order.remove(at);
        }
    }
}
