//! Watches a server: turns what has changed in its view since the last step into facts.

use std::collections::BTreeMap;

use hobnob_proto::{
    ids::{Boot, ClusterId, Origin, RoomName, ServerId},
    log::VersionVector,
    node::Node,
    store::{Restored, model::Model},
    time::Time,
    wire::frame::{Epoch, Fence},
};

use crate::{
    facts::{Fact, Process, dot},
    invariants::{Checker, Violation},
    trace::Trace,
};

/// What was seen of a room.
#[derive(Debug)]
struct Seen {
    fence: Fence,
    held: VersionVector,
    durable: VersionVector,
}

/// What was seen of a server in its last step.
#[derive(Debug)]
pub struct Watch {
    server: Process,
    cluster: Option<ClusterId>,
    epoch: Epoch,
    rooms: BTreeMap<RoomName, Seen>,
    me: Option<Origin>,
    members: Vec<Origin>,
}

impl Watch {
    /// Watches a server that was started just now.
    pub fn new(server: Process) -> Self {
        let (epoch, rooms) = (Epoch::NONE, BTreeMap::new());
        Self { server, cluster: None, epoch, rooms, me: None, members: Vec::new() }
    }

    /// The server begins with this.
    pub fn restored(&mut self, store: Option<&Restored>) {
        for head in store.into_iter().flat_map(|store| &store.logs) {
            let seen = Seen { fence: NO_FENCE, held: head.held.clone(), durable: VersionVector::default() };
            self.rooms.insert(head.room.clone(), seen);
        }
    }

    /// Tells the invariants what is new in a server that has this on its disk. Costs next to nothing where nothing is.
    pub fn look(
        &mut self,
        (node, disk): (&Node, Option<&Model>),
        checker: &mut Checker,
        trace: &mut Trace,
        now: Time,
    ) -> Result<(), Violation> {
        let view = node.view();
        let (server, cluster) = (self.server, view.cluster);
        if cluster != self.cluster {
            self.cluster = cluster;
            self.epoch = Epoch::NONE;
            if let Some(cluster) = cluster {
                trace.story(now, format_args!("server {} belongs to {cluster}", server.of));
                checker.observe(&Fact::Belongs { server, cluster }, now)?;
            }
        }
        if view.epoch != self.epoch {
            self.epoch = view.epoch;
            let Epoch { term, leader, .. } = view.epoch;
            trace.story(now, format_args!("server {} accepts term {term} of {leader}", server.of));
            checker.observe(&Fact::Accepted { server, cluster, epoch: view.epoch }, now)?;
        }
        for room in &view.rooms {
            let seen = match self.rooms.get_mut(room.name) {
                Some(seen) => seen,
                None => self.rooms.entry(room.name.clone()).or_insert_with(Seen::nothing),
            };
            if room.fence != seen.fence {
                seen.fence = room.fence;
                let (Fence { n, home, .. }, name) = (room.fence, room.name);
                trace.story(now, format_args!("server {} knows {name} at {home}, fence {n}", server.of));
                checker.observe(&Fact::Fenced { server, cluster, room: room.name, fence: room.fence }, now)?;
            }
            let is_new = *room.held != seen.held || *room.durable != seen.durable;
            if *room.held != seen.held {
                let me = view.me;
                // A server's own entries first: they exceed what it held before, not what came with them.
                for own in [true, false] {
                    let is_own = |of| Some(of) == me;
                    for entry in node.entries(room.name, &seen.held).filter(|entry| is_own(entry.origin) == own) {
                        let (room, origin, seq) = dot(entry);
                        trace.detail(now, format_args!("server {} holds {room} {origin}:{seq}", server.of));
                        checker.observe(&Fact::Held { server, own, entry }, now)?;
                    }
                }
                seen.held = room.held.as_ref().clone();
            }
            if is_new {
                seen.durable = room.durable.as_ref().clone();
                let on_disk = disk.map(|disk| disk.held(room.name));
                let (room, held, durable) = (room.name, &seen.held, &seen.durable);
                let on_disk = on_disk.as_ref();
                checker.observe(&Fact::Vectors { server, room, held, durable, on_disk }, now)?;
            }
        }
        Ok(())
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

impl Seen {
    fn nothing() -> Self {
        Self { fence: NO_FENCE, held: VersionVector::default(), durable: VersionVector::default() }
    }
}

/// Lower than any fence.
const NO_FENCE: Fence = Fence { epoch: Epoch::NONE, n: 0, home: Origin { id: ServerId(0), boot: Boot(0) } };
