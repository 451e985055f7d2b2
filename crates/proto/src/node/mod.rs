//! A server: composes discovery, heartbeats, the election, the directory, the logs and the sessions. (Interface only, so
//! far.)

use std::net::SocketAddr;

use crate::{
    config::ServerConfig,
    ids::{ClusterId, Origin, ServerId},
    time::Time,
};

pub mod view;

/// What happens to a server.
#[derive(Debug)]
pub enum Input<'a> {
    /// A datagram arrived.
    Datagram {
        /// From whom.
        from: SocketAddr,
        /// What.
        bytes: &'a [u8],
    },
    /// [`Node::deadline`] has passed.
    Tick,
    /// Leave the cluster: hand everything over, then [`Event::Stopped`].
    Leave,
}

/// What a server wants done.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram from the session socket.
    Send {
        /// To whom.
        to: SocketAddr,
        /// What.
        bytes: Vec<u8>,
    },
    /// Send a datagram to the discovery port on every interface.
    Broadcast {
        /// What.
        bytes: Vec<u8>,
    },
    /// Tell the operator, or the supervisor of the process.
    Event(Event),
}

/// What a server tells its operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has an id and a cluster, and serves.
    Ready {
        /// Who it is.
        me: Origin,
        /// In which cluster.
        cluster: ClusterId,
        /// Whether it made that cluster.
        founded: bool,
    },
    /// It left its own empty or young cluster for another.
    Adopted {
        /// That one.
        cluster: ClusterId,
    },
    /// Another server is heard.
    PeerUp {
        /// Which.
        peer: Origin,
        /// Where.
        addr: SocketAddr,
    },
    /// Another server is dead, as far as we hear.
    PeerDown {
        /// Which.
        peer: Origin,
        /// How long it had been silent, milliseconds.
        silent_ms: u64,
    },
    /// Who leads has changed.
    Leader {
        /// Who, if anybody.
        leader: Option<ServerId>,
        /// The term.
        term: u64,
    },
    /// It stops: the process should end.
    Stopped(Stop),
}

/// Why a server stops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It has handed everything over.
    Left,
    /// It could not hand everything over within 10 s: it stays a member, down.
    LeftUnfinished,
    /// Its id, which was asked for, is in use.
    IdTaken {
        /// By the server at this address.
        by: SocketAddr,
    },
    /// It was retired by an operator.
    Retired,
}

/// A server.
#[derive(Debug)]
pub struct Node;

#[allow(unused_variables, clippy::unused_self, clippy::needless_pass_by_value, clippy::needless_pass_by_ref_mut)]
impl Node {
    /// A server that starts to look for others with its first [`Input::Tick`].
    pub fn new(config: ServerConfig, seed: [u8; 32], now: Time) -> Self {
        Self
    }

    /// Takes an input.
    pub fn handle(&mut self, input: Input<'_>, now: Time) {}

    /// The next thing to do, until there is none.
    pub fn poll(&mut self) -> Option<Output> {
        None
    }

    /// When [`Input::Tick`] is wanted.
    pub fn deadline(&self) -> Time {
        Time::ZERO
    }
}
