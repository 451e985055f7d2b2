//! What invariants are told: facts as they happen, and a picture of everybody at a quiet moment.

use std::collections::{BTreeMap, BTreeSet};

use hobnob_proto::{
    ids::{ClusterId, DeviceId, Origin, PersonId, RoomName, ServerId},
    log::{Entry, PostKey, VersionVector},
    node::{census::Queue, view::Role},
    store::Write,
    wire::frame::{Epoch, Fence, Refusal, Start},
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

/// One run of whatever runs on one host: servers come first among the hosts, then clients, then strangers.
pub type At = (usize, u32);

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
    /// A server has left politely: what it held is gone, and it said that others have it.
    Left {
        /// Which.
        server: Process,
    },
    /// In a network that is quiet otherwise, a server begins to be killed again and again, or that ends.
    Flaps {
        /// Which, by its id.
        server: usize,
        /// Whether it begins.
        on: bool,
    },
    /// A server knows that another has left.
    KnowsOf {
        /// Which knows.
        server: Process,
        /// Which has left.
        departed: Process,
    },
    /// A server has sealed a packet for the machine of one that has left.
    SealedFor {
        /// Which has sealed it.
        server: Process,
        /// Which has left.
        departed: Process,
    },
    /// An outsider has sent something.
    Stray,
    /// Somebody has opened sealed packets.
    Opened {
        /// Who.
        at: At,
        /// The hash of the packet that arrived; `None` where none did.
        packet: Option<u64>,
        /// The number of the packet among all that were sealed, where it is exactly one of them. They are numbered from 0.
        sealed: Option<u32>,
        /// How many packets were opened.
        packets: u64,
    },
    /// A server takes another id or boot without having ended: to others it is a new one.
    Reborn {
        /// Which.
        server: Process,
    },
    /// A server stands still from now on.
    Paused {
        /// Which.
        server: Process,
    },
    /// A server that has stood still goes on.
    Resumed {
        /// Which.
        server: Process,
    },
    /// A server takes another one for dead.
    Blames {
        /// Which does.
        server: Process,
        /// Whom.
        peer: Origin,
    },
    /// A server or a client keeps so much.
    Keeps {
        /// Whether it is a server.
        server: bool,
        /// Which.
        process: Process,
        /// What, and how much of each.
        queues: &'a [Queue],
    },
    /// A client asks to follow a room from somewhere on that it does not know yet; [`Self::Followed`] comes once it does.
    Asked {
        /// Which.
        client: Process,
        /// The room.
        room: &'a RoomName,
        /// From where on.
        from: &'a Start,
    },
    /// Other servers than before are members of a server's cluster, as far as it knows.
    Members {
        /// The server.
        server: Process,
        /// Whether it is a stranger: it does not have the secret of the cluster that all others belong to.
        stranger: bool,
        /// Who it is.
        me: Origin,
        /// Those that it knows, up or down.
        members: &'a [Origin],
    },
    /// An operator asks a server to come over to another cluster.
    Joins {
        /// Which.
        server: Process,
        /// To which cluster.
        to: ClusterId,
    },
    /// It says that it does not.
    JoinsNot {
        /// Which.
        server: Process,
    },
    /// A server belongs to another cluster than before.
    Belongs {
        /// Which.
        server: Process,
        /// To which cluster.
        cluster: ClusterId,
    },
    /// A server that was just started holds this of a room: it is on its disk.
    Restored {
        /// Which.
        server: Process,
        /// The room.
        room: &'a RoomName,
        /// What it holds, or has given up.
        held: &'a VersionVector,
    },
    /// A write has been synced to a server's disk.
    Synced {
        /// Which.
        server: Process,
        /// What.
        write: &'a Write,
    },
    /// A server's disk has been replaced by an empty one.
    Wiped {
        /// Which, in the run that has just ended.
        server: Process,
    },
    /// An entry on a server's disk is not what was written any more.
    Rotten {
        /// Which.
        server: Process,
        /// The entry.
        dot: Dot,
    },
    /// A server says that it holds other entries of a room than before, or has others on its disk.
    Vectors {
        /// Which.
        server: Process,
        /// The room.
        room: &'a RoomName,
        /// What it says that it holds.
        held: &'a VersionVector,
        /// What it says that it has kept.
        durable: &'a VersionVector,
        /// What is on its disk, where it has one.
        on_disk: Option<&'a VersionVector>,
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
        /// Whether they are said to have it on their disks.
        durable: bool,
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
    /// Whether there may be two clusters.
    pub split: bool,
    /// Servers that run.
    pub servers: Vec<ServerPicture>,
    /// Clients that run.
    pub clients: Vec<ClientPicture>,
}

impl Picture {
    /// One picture for each cluster, where there may be two: its servers, and the clients that they serve. Clients that
    /// nobody serves are in the first.
    pub fn clusters(&self) -> Vec<Self> {
        if !self.split {
            return vec![self.clone()];
        }
        let clusters: BTreeSet<_> = self.servers.iter().map(|server| server.cluster).collect();
        let cluster_of = |client: &ClientPicture| {
            let server = self.servers.iter().find(|server| Some(server.id) == client.connected);
            server.map_or(clusters.first().copied().flatten(), |server| server.cluster)
        };
        let part = |cluster: &Option<ClusterId>| Self {
            split: true,
            servers: self.servers.iter().filter(|server| server.cluster == *cluster).cloned().collect(),
            clients: self.clients.iter().filter(|client| cluster_of(client) == *cluster).cloned().collect(),
        };
        clusters.iter().map(part).collect()
    }
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
    /// Whether anything on its disk is rotten.
    pub rotten: bool,
    /// Posts that it holds under several dots: the one that it takes for canonical, and the one that is shown first.
    pub doubled: Vec<(Dot, Dot)>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::history::{client, fence, server};

    #[test]
    fn two_clusters_are_two_pictures_only_where_there_may_be_two() {
        fn check(split: bool, expected: &[(usize, usize)]) {
            let other = ServerPicture { cluster: Some(ClusterId(2)), ..server(2, 2, fence(1, 2), true, &[]) };
            let servers = vec![server(1, 1, fence(1, 1), true, &[]), other];
            let of_other = ClientPicture { connected: Some(ServerId(2)), ..client(&[]) };
            let lost = ClientPicture { connected: None, ..client(&[]) };
            let picture = Picture { split, servers, clients: vec![client(&[]), of_other, lost] };
            let sizes: Vec<_> =
                picture.clusters().iter().map(|part| (part.servers.len(), part.clients.len())).collect();
            assert_eq!(sizes, expected);
        }
        check(false, &[(2, 3)]);
        check(true, &[(1, 2), (1, 1)]);
    }
}
