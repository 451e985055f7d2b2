//! What a server is told, and what it asks for: all that it has to do with the world around it.

use std::net::SocketAddr;

use crate::{
    discovery::interfaces::Choice,
    ids::{ClusterId, Origin, RoomName, ServerId},
    log::VersionVector,
    store::{Answer, Read, Write},
};

/// What happens to a server.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A datagram arrived.
    Datagram {
        /// From whom.
        from: SocketAddr,
        /// What.
        bytes: &'a [u8],
    },
    /// [`Node::deadline`](super::Node::deadline) has passed.
    Tick,
    /// Leave the cluster: hand everything over, then [`Event::Stopped`].
    Leave,
    /// The interfaces of this machine, or their addresses, are these from now on.
    Network {
        /// All addresses of the session socket, as in [`ServerConfig::addrs`](crate::config::ServerConfig::addrs).
        addrs: &'a [SocketAddr],
        /// All interfaces, for `status`.
        interfaces: &'a [Choice],
    },
    /// The store has made durable all writes up to this number: the first since the start is 1.
    Durable {
        /// The last of them.
        through: u64,
    },
    /// The store answers a [`Output::Read`], or has found by itself (`id` 0) that entries are rotten.
    Answer(&'a Answer),
    /// The shell wants to keep no longer what is up to these numbers, by origin. The node answers by a [`Write::Floors`],
    /// of as much of that as is stored.
    Retain {
        /// Of which room.
        room: &'a RoomName,
        /// Up to where.
        before: &'a VersionVector,
    },
    /// The store cannot write any more, and will not in this run: what has not been made durable never will be.
    Unwritable,
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
    /// Make this durable, after all earlier ones; it is number n where n - 1 came before.
    Persist(Write),
    /// Look this up, and answer later.
    Read(Read),
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
    /// Two valid entries have one name: a disk was copied, or a server's clock and disk were put back. The second is kept
    /// aside, and people have to look at it.
    Conflict {
        /// In which room.
        room: RoomName,
        /// The name: whose entry,
        origin: Origin,
        /// and its number.
        seq: u64,
    },
    /// An entry is rotten here, and no member can produce it any more: there is a marker in its place.
    Lost {
        /// In which room.
        room: RoomName,
        /// Whose entry,
        origin: Origin,
        /// and its number.
        seq: u64,
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
    /// Nobody else was there to hand anything over to: it stays a member, down.
    LeftAlone {
        /// Whether it held any messages.
        messages: bool,
    },
    /// Its id is in use, and it was asked for.
    IdTaken {
        /// By the server at this address.
        by: SocketAddr,
    },
    /// It was retired by an operator.
    Retired,
}
