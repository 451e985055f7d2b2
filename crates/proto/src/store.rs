//! What a server has kept, and what it asks of its store: the seam between the protocol and the disk.
//!
//! ```text
//! node -- Persist(write 1), Persist(write 2), ... --> store: one transaction for many, fsynced, in this order
//! node <------------ Durable { through: 2 } --------- store
//! node -- Read { id: 7, ... } ----------------------> store, off the protocol's thread
//! node <------------ Answer { id: 7, ... } ---------- store
//! ```
//!
//! The nth write that a node asks for since its start is number n. What it keeps in memory meanwhile is the tail of each
//! active room, and everything that is not durable yet; so an answer may leave that out, and be of an older state than
//! the memory is. A store that is opened raises the boot and makes that durable before the node begins: no dot is used
//! twice.
//!
//! A server that keeps nothing (`--in-memory`) has no store, and issues neither writes nor reads.

pub mod model;

use std::net::SocketAddr;

use crate::{
    ids::{Boot, ClusterId, DeviceId, Origin, PersonId, RoomName, ServerId},
    limits,
    log::{VersionVector, entry::DisplayOrder, room::Kept},
    wire::frame::{Member, RoomRecord},
};

/// Something to be kept.
#[derive(Clone, Debug)]
pub enum Write {
    /// The next entry of its origin in its room: the number after the last one kept. It may be a marker that another server
    /// had in its place.
    Entry(Kept),
    /// An entry that is held already, and was found rotten or lost: takes the place of what is there. What is sound stays.
    Repair(Kept),
    /// An entry that was found rotten, and that no member can produce any more. In its place a marker is found from now on,
    /// [`Entry::lost`](crate::log::Entry::lost), at the time of the next sound entry of its origin, or of the last one; until
    /// it is repaired, or is sound after all.
    Lost {
        /// In which room.
        room: RoomName,
        /// Whose.
        origin: Origin,
        /// Which.
        seq: u64,
    },
    /// A valid entry with a dot that is held with another content: kept aside, for people to look at.
    Quarantine(Kept),
    /// The newest fence of a room, with its successors: in place of the last one.
    Room(RoomRecord),
    /// The highest term known.
    Term(u64),
    /// What is known of a member, in place of what was.
    Member(Member),
    /// Who this server is from now on: another id, or a later boot. Nothing of the new origin is written before.
    Me(Origin),
    /// The server has gone over to this cluster: term, rooms' records and members are those of the old one, and
    /// forgotten. Logs stay.
    Cluster(ClusterId),
    /// Of a room, everything up to and including these numbers is no longer kept.
    Floors {
        /// The room.
        room: RoomName,
        /// By origin, the last number that is given up.
        floors: VersionVector,
    },
}

/// What a store holds when a server starts.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The id that it had, if it had one.
    pub id: Option<ServerId>,
    /// The boot of this run: later than any before, and durable.
    pub boot: Option<Boot>,
    /// The cluster that it was in, if it was in one.
    pub cluster: Option<ClusterId>,
    /// The highest term.
    pub term: u64,
    /// The members, itself among them.
    pub members: Vec<Member>,
    /// Where rooms lived.
    pub rooms: Vec<RoomRecord>,
    /// What there is of each room's log.
    pub logs: Vec<Head>,
}

impl Restored {
    /// Cluster time is not before this: that of the newest entry, milliseconds since 1970.
    pub fn newest_millis(&self) -> u64 {
        self.logs.iter().map(|head| head.newest.0.millis).max().unwrap_or_default()
    }

    /// Where a server that starts as `me` asks for others although no broadcast reaches them: at these addresses, and where
    /// members were.
    pub fn asked(&self, peers: &[SocketAddr], me: Option<ServerId>) -> Vec<SocketAddr> {
        let others = self.members.iter().filter(|member| !member.left && Some(member.id) != me);
        let known = others.filter_map(|member| member.addrs.first()).filter(|addr| !peers.contains(addr));
        peers.iter().chain(known.take(limits::SERVERS_MAX)).copied().collect()
    }
}

/// What there is of a room's log on disk.
#[derive(Clone, Debug)]
pub struct Head {
    /// The room.
    pub room: RoomName,
    /// What is held, without holes, above the floors.
    pub held: VersionVector,
    /// Up to where it is no longer kept.
    pub floors: VersionVector,
    /// The last entry in display order.
    pub newest: DisplayOrder,
    /// How many entries are kept, markers included.
    pub entries: u64,
    /// The markers of what is lost: the first [`LOST_MAX`].
    pub lost: Vec<(Origin, u64)>,
}

/// Markers of one room that are remembered, so that what turns up takes their places. More can be held.
pub const LOST_MAX: usize = 4_096;
/// How far a store looks for a sound entry whose time a marker gets, up and then down.
pub const LOST_TIME_WITHIN: u64 = 100;

/// A question to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// Chosen by the node; the answer carries it.
    pub id: u64,
    /// About this room.
    pub room: RoomName,
    /// What it wants to know.
    pub what: What,
}

/// What a [`Read`] asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The entries of these ranges (origin, first, last), the first `max` of them in display order; fewer where their
    /// lines would have more than `bytes_max` bytes, but one.
    Ranges {
        /// Which.
        want: Vec<(Origin, u64, u64)>,
        /// How many.
        max: usize,
        /// How much.
        bytes_max: usize,
    },
    /// The cursor beyond which the last `count` posts lie: see [`RoomLog::start_of_last`].
    ///
    /// [`RoomLog::start_of_last`]: crate::log::RoomLog::start_of_last
    Last {
        /// How many.
        count: u32,
    },
    /// The cursor beyond which entries from `millis` (cluster time) on lie.
    Since {
        /// From when.
        millis: u64,
    },
    /// The canonical entries of a device's posts with numbers from `from` on, in the order of those, at most
    /// [`DEVICE_POSTS_MAX`].
    Device {
        /// The author.
        person: PersonId,
        /// The author's process.
        device: DeviceId,
        /// The first number.
        from: u64,
    },
}

/// How many posts of a device one answer carries at most.
pub const DEVICE_POSTS_MAX: usize = 256;

/// What the store says to a [`Read`].
#[derive(Clone, Debug)]
pub struct Answer {
    /// The question's.
    pub id: u64,
    /// The question's.
    pub room: RoomName,
    /// What was found.
    pub found: Found,
    /// Entries that should have been found and are not what was written: by origin and number. They are to be fetched
    /// from a peer.
    pub rotten: Vec<(Origin, u64)>,
}

/// What was found.
#[derive(Clone, Debug)]
pub enum Found {
    /// To [`What::Ranges`] and [`What::Device`].
    Entries(Vec<Kept>),
    /// To [`What::Last`] and [`What::Since`].
    Start(VersionVector),
    /// The disk could not be read.
    Nothing,
}
