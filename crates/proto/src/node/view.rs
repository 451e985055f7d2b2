//! A look inside a server, for whoever checks it: the invariants of a simulator, and tests.
//!
//! It is read-only and cheap: it is taken after every step of a simulated server, and lends what the server has rather
//! than copying it. Nothing of the protocol goes through it.

use std::borrow::Cow;

pub use crate::election::State as Role;
use crate::{
    ids::{ClusterId, Origin, RoomName, ServerId},
    log::{Entry, PostKey, VersionVector, entry::DisplayOrder},
    node::{Node, Stage, rooms::Upstream},
    wire::frame::{Epoch, Fence, Member},
};

/// What a server holds and believes, at one moment.
#[derive(Debug)]
pub struct View<'a> {
    /// Who it is, once it knows.
    pub me: Option<Origin>,
    /// In which cluster, once it has one.
    pub cluster: Option<ClusterId>,
    /// What it does in the election.
    pub role: Role,
    /// Whether it may lead.
    pub eligible: bool,
    /// The highest epoch that it has accepted.
    pub epoch: Epoch,
    /// Who leads, as far as it knows.
    pub leader: Option<ServerId>,
    /// The servers that it takes for alive, itself among them, in order.
    pub live: Vec<ServerId>,
    /// The servers that only others hear, in order.
    pub unheard: Vec<ServerId>,
    /// The servers that it takes for being on probation, itself perhaps among them, in order.
    pub probation: Vec<ServerId>,
    /// Whether it can write to its disk, where it has one.
    pub writable: bool,
    /// The rooms that it knows, in order of their names; not the cluster's own records.
    pub rooms: Vec<RoomView<'a>>,
}

/// What a server holds and believes of one room.
#[derive(Debug)]
pub struct RoomView<'a> {
    /// Its name.
    pub name: &'a RoomName,
    /// The highest fence that the server has accepted.
    pub fence: Fence,
    /// Whether this server sequences it now.
    pub open: bool,
    /// What it holds of its log without holes.
    pub held: Cow<'a, VersionVector>,
    /// What of that is on its disk; all, where it has none.
    pub durable: Cow<'a, VersionVector>,
    /// The sum of its numbers: another one where it has changed.
    pub total: u64,
}

impl Node {
    /// What it holds and believes now.
    pub fn view(&self) -> View<'_> {
        View {
            me: (self.stage == Stage::Serving).then_some(self.me),
            cluster: Some(self.cluster.id),
            role: self.election.state(),
            eligible: self.is_eligible(),
            epoch: self.epoch(),
            leader: self.election.leader(),
            live: self.live_ids().into_iter().collect(),
            unheard: self.heartbeat.unheard().map(|peer| peer.id).collect(),
            probation: self.live_ids().into_iter().filter(|id| self.is_on_probation(*id)).collect(),
            writable: self.kept.is_writable(),
            rooms: self.room_views().collect(),
        }
    }

    /// The highest epoch that it has accepted.
    pub fn highest_epoch(&self) -> Epoch {
        self.epoch()
    }

    /// Cluster time, as of its last step: milliseconds since 1970.
    pub fn millis(&self) -> u64 {
        self.cluster_millis()
    }

    /// What it does in the election.
    pub fn role(&self) -> Role {
        self.election.state()
    }

    /// Where this is what it was before, so are [`Self::room_views`].
    pub fn rooms_lent(&self) -> u64 {
        self.records.times() + self.rooms.times()
    }

    /// The rooms that it knows, as in [`View::rooms`]. Both tables are in order, so none is searched.
    pub fn room_views(&self) -> impl Iterator<Item = RoomView<'_>> {
        let mut rooms = self.rooms.iter().peekable();
        self.records.iter().filter_map(move |record| {
            while rooms.next_if(|(name, _)| **name < record.room).is_some() {}
            let (name, room) = rooms.next_if(|(name, _)| **name == record.room)?;
            let open = room.upstream == Upstream::Home;
            let (held, durable) = (Cow::Borrowed(room.held()), Cow::Borrowed(room.durable()));
            Some(RoomView { name, fence: record.fence, open, held, durable, total: room.held().count() })
        })
    }

    /// Who it is, whether it serves already or not.
    pub fn origin(&self) -> Origin {
        self.me
    }

    /// The members of its cluster, as far as it knows, by id: those that left included.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter()
    }

    /// How many sealed packets it has taken: authentic, and for the first time.
    pub fn packets_taken(&self) -> u64 {
        self.endpoint.packets_taken()
    }

    /// Where the entry stands that a post is shown as, if that is at hand.
    pub fn canonical(&self, room: &RoomName, key: PostKey) -> Option<DisplayOrder> {
        self.rooms.get(room)?.log.post(key)
    }

    /// The entries of a room that it holds without holes and `seen` does not cover: by origin, then by seq.
    pub fn entries<'a>(&'a self, room: &RoomName, seen: &'a VersionVector) -> impl Iterator<Item = &'a Entry> + 'a {
        let room = self.rooms.get(room);
        let ranges = room.into_iter().flat_map(|room| room.held().beyond(seen).map(move |range| (room, range)));
        ranges.flat_map(|(room, (origin, from, to))| {
            (from..=to).filter_map(move |seq| room.log.get(origin, seq)).map(|kept| &*kept.entry)
        })
    }
}
