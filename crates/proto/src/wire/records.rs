//! What servers tell each other of themselves, of rooms and of clients, and pieces of long lines: records that frames carry.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{Boot, DeviceId, Origin, PersonId, PersonName, RoomName, ServerId},
    wire::number,
};

/// (term, leader, leader's boot): fences commands of a stale leader. Compared in that order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// Grows with every election.
    #[serde(deserialize_with = "number::safe")]
    pub term: u64,
    /// Who leads.
    pub leader: ServerId,
    /// In which run: keeps terms of servers without a disk apart.
    pub boot: Boot,
}

impl Epoch {
    /// Lower than any that a leader has.
    pub const NONE: Self = Self { term: 0, leader: ServerId(0), boot: Boot(0) };
}

/// Who may sequence a room. Compared in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fence {
    /// The newest epoch that whoever set it knew.
    pub epoch: Epoch,
    /// Grows with every change of the room's home or successors.
    #[serde(deserialize_with = "number::safe")]
    pub n: u64,
    /// The server, in its boot, that sequences the room.
    pub home: Origin,
}

/// Where a room lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRecord {
    /// The room.
    pub room: RoomName,
    /// Its home.
    pub fence: Fence,
    /// Who holds copies, next in line first.
    pub successors: Vec<ServerId>,
}

/// A server of the cluster, as gossiped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: ServerId,
    /// Its last known boot.
    pub boot: Boot,
    /// Whether it has left for good.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
    /// Whether it keeps everything in memory, and forgets it when it ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub memory: bool,
    /// Which list of its addresses this is, in its boot: raised by the member itself, with each change of its network.
    #[serde(default, skip_serializing_if = "number::is_zero")]
    pub n: u32,
    /// Session addresses at which it may answer.
    pub addrs: Vec<SocketAddr>,
}

/// A server that the sender of a heartbeat hears; on the wire `[id, boot, age, both]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(ServerId, Boot, u32, bool)", into = "(ServerId, Boot, u32, bool)")]
pub struct Heard {
    /// Which, in which run.
    pub peer: Origin,
    /// How long ago, milliseconds: since its newest heartbeat that said that it hears the sender, where `both`; otherwise
    /// since its newest one.
    pub age: u32,
    /// Whether the two hear each other.
    pub both: bool,
}

impl From<(ServerId, Boot, u32, bool)> for Heard {
    fn from((id, boot, age, both): (ServerId, Boot, u32, bool)) -> Self {
        Self { peer: Origin { id, boot }, age, both }
    }
}

impl From<Heard> for (ServerId, Boot, u32, bool) {
    fn from(heard: Heard) -> Self {
        (heard.peer.id, heard.peer.boot, heard.age, heard.both)
    }
}

/// A server that the sender of a heartbeat knows to live though it does not hear it both ways itself, or not lately; on
/// the wire `[id, boot, age, hops]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(ServerId, Boot, u32, u8)", into = "(ServerId, Boot, u32, u8)")]
pub struct Rumour {
    /// Which, in which run.
    pub peer: Origin,
    /// How long ago, milliseconds, it was heard both ways by the server at the other end of the rumour.
    pub age: u32,
    /// Through how many servers that came to the sender, from 1: the one that heard it is the first.
    pub hops: u8,
}

impl From<(ServerId, Boot, u32, u8)> for Rumour {
    fn from((id, boot, age, hops): (ServerId, Boot, u32, u8)) -> Self {
        Self { peer: Origin { id, boot }, age, hops }
    }
}

impl From<Rumour> for (ServerId, Boot, u32, u8) {
    fn from(rumour: Rumour) -> Self {
        (rumour.peer.id, rumour.peer.boot, rumour.age, rumour.hops)
    }
}

/// The heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// The highest epoch that the sender has accepted.
    pub epoch: Epoch,
    /// Whether the sender hears that leader.
    pub led: bool,
    /// Deliveries a second that it makes, over the last 30 s.
    pub load: u32,
    /// How late its loop runs, milliseconds.
    pub lag: u32,
    /// How many clients it serves.
    pub sessions: u32,
    /// The servers that it hears, at most [`limits::SERVERS_MAX`](crate::limits::SERVERS_MAX).
    pub hears: Vec<Heard>,
    /// What others told it of servers that it does not hear itself; together with `hears` at most
    /// [`limits::SERVERS_MAX`](crate::limits::SERVERS_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hearsay: Vec<Rumour>,
    /// Whether it may lead.
    pub eligible: bool,
    /// Which others may, as far as it knows; at most [`limits::SERVERS_MAX`](crate::limits::SERVERS_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub may_lead: Vec<ServerId>,
    /// Whether it may be given rooms.
    #[serde(default)]
    pub takes_rooms: bool,
    /// Whether it has a disk and cannot write to it: it sequences nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unwritable: bool,
    /// The servers that it has put on probation, and for how many milliseconds more; at most
    /// [`limits::SERVERS_MAX`](crate::limits::SERVERS_MAX).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probation: Vec<(ServerId, u32)>,
    /// Cluster time as the sender has it, milliseconds since 1970.
    #[serde(deserialize_with = "number::safe")]
    pub time: u64,
    /// Digest of rooms and members, 53 bits: equal where the directories are.
    #[serde(deserialize_with = "number::safe")]
    pub directory: u64,
    /// Version of the sender's own list of clients.
    #[serde(deserialize_with = "number::safe")]
    pub clients: u64,
    /// Digest of the vectors of rooms that have been quiet for 2 s, 53 bits.
    #[serde(deserialize_with = "number::safe")]
    pub logs: u64,
}

/// Clients that the sender serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clients {
    /// The version of the sender's list that this change leads to.
    #[serde(deserialize_with = "number::safe")]
    pub version: u64,
    /// What the change does.
    #[serde(flatten)]
    pub change: ClientsChange,
}

/// A change of a server's list of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum ClientsChange {
    /// A part of the whole list.
    All {
        /// The number of the part, from 0.
        #[serde(deserialize_with = "number::part")]
        part: u32,
        /// Whether it is the last part.
        last: bool,
        /// The clients.
        clients: Vec<ClientRecord>,
    },
    /// One client is new, or has changed.
    Put {
        /// The client.
        client: ClientRecord,
    },
    /// One client has gone.
    Gone {
        /// Whose.
        person: PersonId,
        /// Which.
        device: DeviceId,
    },
}

/// A client in the directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientRecord {
    /// The name it is shown under.
    pub name: PersonName,
    /// Whose it is.
    pub person: PersonId,
    /// Which process.
    pub device: DeviceId,
    /// [`Hi::session`]: of two servers that list it, the higher is right.
    #[serde(deserialize_with = "number::safe")]
    pub session: u64,
    /// How it talks.
    pub via: String,
    /// The rooms it is in; at most as many as fit a frame.
    pub rooms: Vec<RoomName>,
    /// Since when, milliseconds since 1970, cluster time.
    #[serde(deserialize_with = "number::safe")]
    pub since: u64,
}

/// A piece of a line that is larger than a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fragment {
    /// Which line: the same in every repetition.
    pub of: FragmentOf,
    /// Where the piece starts, in bytes of the line.
    pub at: u32,
    /// How long the line is, in bytes.
    pub len: u32,
    /// The first 32 bits of the line's SHA-256: a post that is repeated with another `oldest` is another line.
    pub sum: u32,
    /// The piece.
    pub piece: String,
}

/// What a fragment is a piece of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FragmentOf {
    /// An entry, by room, origin and seq.
    Entry(RoomName, Origin, #[serde(deserialize_with = "number::safe")] u64),
    /// A post of the session's own device, by room and number.
    Post(RoomName, #[serde(deserialize_with = "number::safe")] u64),
    /// A line of an import, by its number.
    Import(#[serde(deserialize_with = "number::safe")] u64),
    /// A post that a server forwards, by room, author and number.
    Forwarded(RoomName, PersonId, DeviceId, #[serde(deserialize_with = "number::safe")] u64),
}
