//! Watches a server: turns what has changed in its view since the last step into facts.

use hobnob_proto::{
    ids::{Boot, ClusterId, Origin, RoomName, ServerId},
    log::VersionVector,
    node::{Node, view::Role},
    store::{Restored, model::Model},
    time::Time,
    wire::frame::{Epoch, Fence},
};

use crate::{
    coverage::Coverage,
    facts::{Fact, Process, dot},
    invariants::{Checker, Violation},
    trace::Trace,
};

/// What was seen of a room.
#[derive(Debug)]
struct Seen {
    name: RoomName,
    fence: Fence,
    total: u64,
    held: VersionVector,
    durable: VersionVector,
}

impl Seen {
    fn new(name: RoomName) -> Self {
        let (held, durable) = (VersionVector::default(), VersionVector::default());
        Self { name, fence: NO_FENCE, total: 0, held, durable }
    }
}

/// What was seen of a server in its last step.
#[derive(Debug)]
pub struct Watch {
    server: Process,
    cluster: Option<ClusterId>,
    epoch: Epoch,
    role: Role,
    born: Option<Origin>,
    /// In order of their names.
    rooms: Vec<Seen>,
    /// [`Node::rooms_lent`] when the rooms were looked at, if they were, and how often they were not looked at.
    rooms_lent: Option<u64>,
    skipped: u64,
    me: Option<Origin>,
    members: Vec<Origin>,
}

impl Watch {
    /// Watches a server that was started just now.
    pub fn new(server: Process) -> Self {
        let (epoch, rooms) = (Epoch::NONE, Vec::new());
        let (cluster, role, members) = (None, Role::Joining, Vec::new());
        Self { server, cluster, epoch, role, born: None, rooms, rooms_lent: None, skipped: 0, me: None, members }
    }

    /// The server begins with this.
    pub fn restored(&mut self, store: Option<&Restored>) {
        for head in store.into_iter().flat_map(|store| &store.logs) {
            self.rooms.push(Seen { held: head.held.clone(), ..Seen::new(head.room.clone()) });
        }
        self.rooms.sort_by(|one, other| one.name.cmp(&other.name));
    }

    /// Tells the invariants what is new in a server that has this on its disk. Costs next to nothing where nothing is.
    pub fn look(
        &mut self,
        (node, disk): (&Node, Option<&Model>),
        checker: &mut Checker,
        (trace, coverage): (&mut Trace, &mut Coverage),
        now: Time,
    ) -> Result<(), Violation> {
        let (server, cluster) = (self.server, Some(node.cluster_id()));
        let (epoch, role) = (node.highest_epoch(), node.role());
        if self.born.replace(node.origin()).is_some_and(|born| born != node.origin()) {
            trace.story(now, format_args!("server {} begins anew as {}", server.of, node.origin()));
            checker.observe(&Fact::Reborn { server }, now)?;
            self.epoch = Epoch::NONE;
        }
        if cluster != self.cluster {
            self.cluster = cluster;
            self.epoch = Epoch::NONE;
            if let Some(cluster) = cluster {
                trace.story(now, format_args!("server {} belongs to {cluster}", server.of));
                checker.observe(&Fact::Belongs { server, cluster }, now)?;
            }
        }
        if epoch != self.epoch {
            self.epoch = epoch;
            let Epoch { term, leader, .. } = epoch;
            trace.story(now, format_args!("server {} accepts term {term} of {leader}", server.of));
            checker.observe(&Fact::Accepted { server, cluster, epoch }, now)?;
        }
        coverage.elects(std::mem::replace(&mut self.role, role), role);
        let lent = node.rooms_lent();
        if self.rooms_lent.replace(lent) != Some(lent) {
            return self.look_at_rooms((node, disk), checker, trace, now).map(|_| ());
        }
        self.skipped += 1;
        if self.skipped.is_multiple_of(LOOK_ALL_THE_SAME) {
            let is_news = self.look_at_rooms((node, disk), checker, trace, now)?;
            assert!(!is_news, "what was not lent out has changed");
        }
        Ok(())
    }

    /// Tells the invariants what is new in a server's rooms; whether anything is.
    fn look_at_rooms(
        &mut self,
        (node, disk): (&Node, Option<&Model>),
        checker: &mut Checker,
        trace: &mut Trace,
        now: Time,
    ) -> Result<bool, Violation> {
        let (server, cluster) = (self.server, self.cluster);
        let mut any = false;
        for (n, room) in node.room_views().enumerate() {
            if self.rooms.get(n).is_none_or(|seen| seen.name != *room.name) {
                let known = self.rooms.iter().position(|seen| seen.name == *room.name);
                let seen = known.map_or_else(|| Seen::new(room.name.clone()), |known| self.rooms.remove(known));
                self.rooms.insert(n.min(self.rooms.len()), seen);
            }
            let Some(seen) = self.rooms.get_mut(n) else { continue };
            if room.fence != seen.fence {
                any = true;
                seen.fence = room.fence;
                let (Fence { n, home, .. }, name) = (room.fence, room.name);
                trace.story(now, format_args!("server {} knows {name} at {home}, fence {n}", server.of));
                checker.observe(&Fact::Fenced { server, cluster, room: room.name, fence: room.fence }, now)?;
            }
            // Either only grows.
            let is_new = room.total != seen.total || (disk.is_some() && room.durable.count() != seen.durable.count());
            if room.total != seen.total {
                let me = Some(node.origin());
                // A server's own entries first: they exceed what it held before, not what came with them.
                for own in [true, false] {
                    let is_own = |of| Some(of) == me;
                    for entry in node.entries(room.name, &seen.held).filter(|entry| is_own(entry.origin) == own) {
                        let (room, origin, seq) = dot(entry);
                        trace.detail(now, format_args!("server {} holds {room} {origin}:{seq}", server.of));
                        checker.observe(&Fact::Held { server, own, entry }, now)?;
                    }
                }
                seen.total = room.total;
                seen.held = room.held.into_owned();
            }
            any |= is_new;
            if is_new {
                seen.durable = room.durable.into_owned();
                let on_disk = disk.map(|disk| disk.held(room.name));
                let (room, held, durable) = (room.name, &seen.held, &seen.durable);
                let on_disk = on_disk.as_ref();
                checker.observe(&Fact::Vectors { server, room, held, durable, on_disk }, now)?;
            }
        }
        Ok(any)
    }

    /// Tells the invariants who else is a member, where that is new.
    pub fn look_at_members(
        &mut self,
        node: &Node,
        stranger: bool,
        checker: &mut Checker,
        now: Time,
    ) -> Result<(), Violation> {
        let (server, me) = (self.server, node.origin());
        let members = || node.members().map(|member| Origin { id: member.id, boot: member.boot });
        if self.me == Some(me) && members().eq(self.members.iter().copied()) {
            return Ok(());
        }
        self.me = Some(me);
        self.members = members().collect();
        checker.observe(&Fact::Members { server, stranger, me, members: &self.members }, now)
    }
}

/// Of so many times that nothing can have changed, it is looked once all the same.
const LOOK_ALL_THE_SAME: u64 = 64;
/// Lower than any fence.
const NO_FENCE: Fence = Fence { epoch: Epoch::NONE, n: 0, home: Origin { id: ServerId(0), boot: Boot(0) } };
