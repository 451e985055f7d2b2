//! What invariants are told: facts as they happen, and a picture of everybody at a quiet moment.

use std::collections::BTreeMap;

use hobnob_proto::{
    ids::{ClusterId, DeviceId, Origin, PersonId, RoomName, ServerId},
    log::{Entry, PostKey, VersionVector},
    node::view::Role,
    wire::frame::{Epoch, Fence, Refusal},
};

/// A dot with its room: names one entry for ever.
pub type Dot = (RoomName, Origin, u64);

/// The dot of an entry.
pub fn dot(entry: &Entry) -> Dot {
    (entry.room.clone(), entry.origin, entry.seq)
}

/// One run of one server or client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Which: a server by its id, a client by its number.
    pub of: usize,
    /// Its first run is 1.
    pub run: u32,
}

/// Something that happened. Those of one step come in this order: a server's own new entries before the others.
#[derive(Clone, Debug)]
pub enum Fact<'a> {
    /// A server was started.
    Started {
        /// Which.
        server: Process,
    },
    /// A server's process has ended, and what it held is gone.
    Crashed {
        /// Which.
        server: Process,
    },
    /// Whether all servers run and all paths are whole from now on.
    Weather {
        /// They are.
        calm: bool,
    },
    /// A server holds an entry that it did not hold before.
    Held {
        /// Which.
        server: Process,
        /// Whether it made it itself.
        own: bool,
        /// The entry.
        entry: &'a Entry,
    },
    /// A server has accepted another epoch.
    Accepted {
        /// Which.
        server: Process,
        /// The cluster that it belongs to.
        cluster: Option<ClusterId>,
        /// The epoch.
        epoch: Epoch,
    },
    /// A server has accepted another fence of a room.
    Fenced {
        /// Which.
        server: Process,
        /// The cluster that it belongs to.
        cluster: Option<ClusterId>,
        /// The room.
        room: &'a RoomName,
        /// The fence.
        fence: Fence,
    },
    /// A client has asked to follow a room.
    Followed {
        /// Which.
        client: Process,
        /// The room.
        room: &'a RoomName,
        /// What it says it has shown already.
        base: &'a VersionVector,
    },
    /// A client was given a post; again after a restart where it was not settled.
    Posted {
        /// Which.
        client: Process,
        /// The room.
        room: &'a RoomName,
        /// Whose, and its number.
        key: PostKey,
        /// The text.
        body: &'a str,
    },
    /// A client has shown a message.
    Shown {
        /// Which.
        client: Process,
        /// The message.
        entry: &'a Entry,
        /// Whether it said that the message belongs above one that was shown already.
        late: bool,
    },
    /// A client has told what became of a post.
    Acked {
        /// Which.
        client: Process,
        /// Whose, and its number.
        key: PostKey,
        /// The entry that it became.
        dot: Dot,
        /// On how many servers it is said to be.
        copies: u32,
        /// Whether that is said to be enough.
        stored: bool,
    },
    /// A client has told that a post will not be stored.
    Refused {
        /// Which.
        client: Process,
        /// Whose, and its number.
        key: PostKey,
        /// Why.
        why: Refusal,
    },
    /// A client's cursor of a room has changed.
    Cursor {
        /// Which.
        client: Process,
        /// The room.
        room: &'a RoomName,
        /// The cursor.
        cursor: &'a VersionVector,
    },
}

/// Everybody who runs, at a quiet moment.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Servers that run.
    pub servers: Vec<ServerPicture>,
    /// Clients that run.
    pub clients: Vec<ClientPicture>,
}

/// A server at a quiet moment.
#[derive(Clone, Debug)]
pub struct ServerPicture {
    /// Which run of which server.
    pub process: Process,
    /// The id that it was given.
    pub id: ServerId,
    /// Who it takes itself for.
    pub me: Option<Origin>,
    /// In which cluster.
    pub cluster: Option<ClusterId>,
    /// What it does in the election.
    pub role: Role,
    /// Whether it may lead.
    pub eligible: bool,
    /// The highest epoch that it has accepted.
    pub epoch: Epoch,
    /// Who leads, as far as it knows.
    pub leader: Option<ServerId>,
    /// Who is alive, as far as it knows.
    pub live: Vec<ServerId>,
    /// Its rooms.
    pub rooms: BTreeMap<RoomName, RoomPicture>,
}

/// A room of a server at a quiet moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomPicture {
    /// The highest fence that the server has accepted.
    pub fence: Fence,
    /// Whether it sequences the room.
    pub open: bool,
    /// What it holds.
    pub held: VersionVector,
}

/// A client at a quiet moment.
#[derive(Clone, Debug)]
pub struct ClientPicture {
    /// Which run of which client.
    pub process: Process,
    /// Whose it is.
    pub person: PersonId,
    /// Its device.
    pub device: DeviceId,
    /// The server that it was told serves it.
    pub connected: Option<ServerId>,
    /// The rooms that it follows, with its cursors.
    pub rooms: BTreeMap<RoomName, VersionVector>,
    /// Posts that are neither stored nor refused.
    pub unsettled: Vec<(RoomName, u64)>,
}
