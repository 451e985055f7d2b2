//! Where rooms go: pure functions that a leader, a successor and a server that greets a client decide by.
//!
//! The load of a server is the deliveries a second that it reports, and 1 for each room that it homes. Rooms are counted
//! from the directory, not from reports: so what was placed a moment ago counts already, and a burst of new rooms does
//! not all go to the server that was idle when it began. The lobby does not count, so that thirty rooms on three servers
//! lie ten, ten and ten, whoever has the lobby.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::rooms::{Rooms, next_fence};
use crate::{
    ids::{Boot, Origin, RoomName, ServerId},
    limits,
    wire::frame::{Epoch, RoomRecord},
};

/// A live server, as whoever places sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its id.
    pub id: ServerId,
    /// Its boot.
    pub boot: Boot,
    /// Deliveries a second, as it reports them.
    pub load: u32,
    /// How many clients it serves, as it reports them, and those that it was promised since.
    pub clients: u32,
    /// Whether it may be given rooms. One that leaves, or cannot write, keeps none; its rooms move on.
    pub takes_rooms: bool,
    /// Digest of its logs, as it reports it.
    pub logs: u64,
}

impl Server {
    /// Its id and boot.
    pub fn origin(&self) -> Origin {
        Origin { id: self.id, boot: self.boot }
    }
}

/// Places rooms on live servers; what it has placed counts for what it places next.
#[derive(Debug)]
pub struct Placer<'a> {
    rooms: &'a Rooms,
    servers: BTreeMap<ServerId, Server>,
    epoch: Epoch,
    /// All members, up or down: who has left is nobody's successor.
    members: BTreeSet<ServerId>,
    /// Rooms given and taken by this placer, which are not in the directory yet.
    moved: BTreeMap<ServerId, i64>,
    has_lobby: Option<ServerId>,
    /// [`Self::by_load`], until something moves.
    order: Vec<ServerId>,
}

impl<'a> Placer<'a> {
    /// For a leader with this epoch. `servers` are all that are live, the leader included; `members` all that have not
    /// left.
    pub fn new(
        rooms: &'a Rooms,
        servers: impl IntoIterator<Item = Server>,
        members: impl IntoIterator<Item = ServerId>,
        epoch: Epoch,
    ) -> Self {
        let servers: BTreeMap<_, _> = servers.into_iter().map(|server| (server.id, server)).collect();
        let lobby = rooms.get(&RoomName::lobby()).map(|record| record.fence.home);
        let has_lobby = lobby.filter(|home| is_live(&servers, *home)).map(|home| home.id);
        let members = members.into_iter().collect();
        Self { rooms, servers, epoch, members, moved: BTreeMap::new(), has_lobby, order: Vec::new() }
    }

    /// A record that has been made and is not in the directory yet: its room counts for its new home.
    pub fn expect(&mut self, record: &RoomRecord) {
        if record.room == RoomName::lobby() {
            self.has_lobby = Some(record.fence.home.id);
            return self.order.clear();
        }
        if let Some(known) = self.rooms.get(&record.room).filter(|known| is_live(&self.servers, known.fence.home)) {
            self.count(known.fence.home.id, -1);
        }
        self.count(record.fence.home.id, 1);
    }

    /// A record for a room that needs a home: the least loaded server, then the fewest rooms, then the lowest id. The
    /// record as it is where its home lives; `None` where no server can take it. While a new leader has not heard from
    /// all servers, it should wait with rooms that it does not know: they may have a home.
    pub fn place(&mut self, room: &RoomName) -> Option<RoomRecord> {
        match self.rooms.get(room) {
            Some(known) if self.is_well_homed(known) => Some(known.clone()),
            Some(known) => self.rehome(known),
            None => {
                let home = *self.by_load().first()?;
                Some(self.record(room, None, home, &[]))
            }
        }
    }

    /// Records that put right what has changed: rooms whose home is dead or leaves go to the first live successor, or
    /// to the least loaded server; rooms that lack successors (a server has joined) get them, and keep their home. A
    /// room whose home `stays` (it has not yet told what it knows, say) is left alone.
    pub fn repair(&mut self, stays: impl Fn(Origin) -> bool) -> Vec<RoomRecord> {
        let known = self.rooms.iter().filter(|record| !stays(record.fence.home));
        known
            .filter_map(|known| if self.is_well_homed(known) { self.complete(known) } else { self.rehome(known) })
            .collect()
    }

    /// Whether the home lives and need not give the room away. Where no server can take rooms, each keeps its own.
    fn is_well_homed(&self, record: &RoomRecord) -> bool {
        let home = record.fence.home;
        let nobody_takes = !self.servers.values().any(|server| server.takes_rooms);
        is_live(&self.servers, home) && (nobody_takes || self.servers[&home.id].takes_rooms)
    }

    /// The room at another home.
    fn rehome(&mut self, known: &RoomRecord) -> Option<RoomRecord> {
        let takes = |id: &ServerId| self.servers.get(id).is_some_and(|server| server.takes_rooms);
        let next = known.successors.iter().copied().find(takes);
        let home = next.or_else(|| self.by_load().first().copied())?;
        if is_live(&self.servers, known.fence.home) && known.room != RoomName::lobby() {
            self.count(known.fence.home.id, -1);
        }
        let heirs: Vec<_> = known.successors.iter().copied().filter(|id| self.servers.contains_key(id)).collect();
        Some(self.record(&known.room, Some(known), home, &heirs))
    }

    /// The room with the successors that it lacks; `None` where it lacks none.
    fn complete(&mut self, known: &RoomRecord) -> Option<RoomRecord> {
        let successors = self.successors(known.fence.home.id, &known.successors);
        if successors == known.successors {
            return None;
        }
        let fence = next_fence(Some(known), self.epoch, known.fence.home);
        Some(RoomRecord { room: known.room.clone(), fence, successors })
    }

    fn record(
        &mut self,
        room: &RoomName,
        known: Option<&RoomRecord>,
        home: ServerId,
        heirs: &[ServerId],
    ) -> RoomRecord {
        let origin = self.servers[&home].origin();
        let successors = self.successors(home, heirs);
        let fence = next_fence(known, self.epoch, origin);
        if *room == RoomName::lobby() {
            self.has_lobby = Some(home);
            self.order.clear();
        } else {
            self.count(home, 1);
        }
        RoomRecord { room: room.clone(), fence, successors }
    }

    /// `have`, in its order, and the least loaded of those that are missing: all servers up to
    /// [`limits::FULL_COPY_SERVERS_MAX`], and so many that there are [`limits::COPIES`] copies in a larger cluster.
    fn successors(&mut self, home: ServerId, have: &[ServerId]) -> Vec<ServerId> {
        let stays = |id: &ServerId| *id != home && self.members.contains(id);
        let mut successors: Vec<_> = have.iter().copied().filter(stays).collect();
        let wanted = if self.servers.len() <= limits::FULL_COPY_SERVERS_MAX {
            self.servers.len() - usize::from(self.servers.contains_key(&home))
        } else {
            limits::COPIES - 1
        };
        let live = successors.iter().filter(|id| self.servers.contains_key(id)).count();
        if live < wanted {
            let missing = self.by_load().iter().filter(|id| **id != home && !successors.contains(id));
            let added: Vec<_> = missing.copied().take(wanted - live).collect();
            successors.extend(added);
        }
        if successors.len() > limits::SERVERS_MAX {
            successors.retain(|id| self.servers.contains_key(id));
            successors.truncate(limits::SERVERS_MAX);
        }
        successors
    }

    /// The servers that may be given rooms, least loaded first.
    fn by_load(&mut self) -> &[ServerId] {
        if self.order.is_empty() {
            let takers = self.servers.values().filter(|server| server.takes_rooms);
            let mut order: Vec<_> = takers.map(|server| (self.load(server), server.id)).collect();
            order.sort_unstable();
            self.order = order.into_iter().map(|(_, id)| id).collect();
        }
        &self.order
    }

    /// A server has so many rooms more from now on.
    fn count(&mut self, server: ServerId, by: i64) {
        *self.moved.entry(server).or_default() += by;
        self.order.clear();
    }

    /// Load, then rooms with the lobby.
    fn load(&self, server: &Server) -> (i64, i64) {
        let moved = self.moved.get(&server.id).copied().unwrap_or_default();
        let known_lobby = self.rooms.get(&RoomName::lobby()).is_some_and(|lobby| lobby.fence.home == server.origin());
        let rooms =
            i64::try_from(self.rooms.homed_by(server.origin())).unwrap_or(i64::MAX) - i64::from(known_lobby) + moved;
        (i64::from(server.load) + rooms, rooms + i64::from(self.has_lobby == Some(server.id)))
    }
}

fn is_live(servers: &BTreeMap<ServerId, Server>, home: Origin) -> bool {
    servers.get(&home.id).is_some_and(|server| server.boot == home.boot)
}

/// Who goes on with a room when its home dies: the first successor that lives.
pub fn first_live_successor(record: &RoomRecord, live: &BTreeSet<ServerId>) -> Option<ServerId> {
    record.successors.iter().copied().find(|id| *id != record.fence.home.id && live.contains(id))
}

/// The record under which `me`, the first live successor, goes on with a room whose home has died, without waiting for a
/// leader. `epoch` is the newest that is known. The other live successors stay in line.
pub fn go_on(known: &RoomRecord, me: Origin, epoch: Epoch, live: &BTreeSet<ServerId>) -> RoomRecord {
    let successors = known.successors.iter().copied().filter(|id| *id != me.id && live.contains(id)).collect();
    RoomRecord { room: known.room.clone(), fence: next_fence(Some(known), epoch, me), successors }
}

/// The server that a client of `me` should move to, if that is worth a move: the one with the least load, where the
/// load is deliveries a second + clients, and `me` has more than 2 + 25 % above it. Whoever sends a client there adds it
/// to [`Server::clients`] until the next report, so that a crowd that arrives together does not move together.
pub fn least_loaded(servers: &[Server], me: ServerId) -> Option<ServerId> {
    let load = |server: &Server| u64::from(server.load) + u64::from(server.clients);
    let mine = load(servers.iter().find(|server| server.id == me)?);
    // Who leaves, or has just come back, is nowhere to go. Of equals the highest id: the lowest is where most knock first.
    let best =
        servers.iter().filter(|server| server.takes_rooms).min_by_key(|server| (load(server), Reverse(server.id)))?;
    let margin = 2 + load(best) / 4;
    (best.id != me && mine > load(best) + margin).then_some(best.id)
}

pub mod balance;
#[cfg(test)]
mod tests;
