//! What the leader does: learns what everybody knows, places rooms, and mends placements; and what every server does for
//! rooms whose home has died.
//!
//! The leader is advisory: it says where rooms live, and never touches a log. A room whose home dies does not wait for
//! it: the first live successor takes the next fence and goes on. That two may do so at once is harmless, since the
//! higher fence wins and logs merge.

use std::collections::{BTreeMap, BTreeSet};

use super::{Event, Node, Stage, Timer, fences::By, rooms::Upstream};
use crate::{
    directory::{
        self,
        placement::{self, Placer},
    },
    election,
    heartbeat::Change,
    ids::{Origin, RoomName, ServerId},
    session::SessionId,
    time::{Duration, Time},
    wire::{
        Frame,
        frame::{Epoch, RoomRecord},
    },
};

/// Between two looks at all rooms.
const SWEEP: Duration = Duration::from_millis(250);
/// How long a new leader waits for what the others know, before it asks once more, and after.
const SYNC_FIRST: Duration = Duration::from_millis(100);
const SYNC_AGAIN: Duration = Duration::from_millis(200);
/// A room without a live home is left to its successors for so long, before the leader or a later one steps in.
const ORPHAN: Duration = Duration::from_secs(1);
/// Between two requests to place one room.
const PLACE_AGAIN: Duration = Duration::from_millis(100);

/// A new leader's questions.
#[derive(Debug)]
pub(super) struct Sync {
    epoch: Epoch,
    /// Servers that have not answered in full, with the parts that are there.
    missing: BTreeMap<ServerId, BTreeSet<u32>>,
    /// The number of parts of those whose last part is there.
    parts: BTreeMap<ServerId, u32>,
    asked_again: bool,
}

impl Node {
    // ---- the election

    pub(super) fn elect(&mut self, input: election::Input) {
        self.election.handle(input, self.now);
    }

    pub(super) fn on_election(&mut self, output: &election::Output) {
        match output {
            election::Output::Send { to, message } => self.tell(*to, &Frame::Election(*message)),
            election::Output::Broadcast(message) => self.tell_all(&Frame::Election(*message)),
            election::Output::PersistTerm(term) => self.persist_term(*term),
            election::Output::Won(epoch) => self.start_sync(*epoch),
            election::Output::Leader(epoch) => {
                let (leader, term) = (epoch.map(|epoch| epoch.leader), self.epoch().term);
                self.event(Event::Leader { leader, term });
                self.placing.clear();
                self.timers.hasten(Timer::Sweep, self.now);
            }
        }
    }

    // ---- a new leader learns what the others know

    fn start_sync(&mut self, epoch: Epoch) {
        let missing: BTreeMap<_, _> = self.heartbeat.live().map(|peer| (peer.id, BTreeSet::new())).collect();
        if missing.is_empty() {
            return self.elect(election::Input::Synced(epoch));
        }
        self.sync = Some(Sync { epoch, missing, parts: BTreeMap::new(), asked_again: false });
        self.tell_all(&Frame::SyncReq { epoch });
        self.timers.set(Timer::Sync, self.now + SYNC_FIRST);
    }

    pub(super) fn on_sync_req(&mut self, session: SessionId, id: ServerId, epoch: Epoch) {
        if epoch.leader != id || !self.election.accepts(epoch) {
            return self.count("command_of_old_epoch");
        }
        if !self.commands(id) {
            return;
        }
        let parts = directory::rooms::chunks(self.records.iter());
        let last = parts.len() - 1;
        for (part, rooms) in parts.into_iter().enumerate() {
            self.say(session, &Frame::SyncRep { epoch, part: part as u32, last: part == last, rooms });
        }
        self.share_clients(session);
    }

    pub(super) fn on_sync_rep(
        &mut self,
        session: SessionId,
        id: ServerId,
        epoch: Epoch,
        part: u32,
        last: bool,
        rooms: Vec<RoomRecord>,
    ) {
        self.on_rooms(session, rooms);
        let Some(sync) = self.sync.as_mut().filter(|sync| sync.epoch == epoch) else { return };
        let Some(there) = sync.missing.get_mut(&id) else { return };
        there.insert(part);
        if last {
            sync.parts.insert(id, part + 1);
        }
        if sync.parts.get(&id).is_some_and(|parts| there.len() as u32 >= *parts) {
            sync.missing.remove(&id);
        }
        if sync.missing.is_empty() {
            self.finish_sync();
        }
    }

    /// All have answered, or have had time enough: leads, after asking once more those that have not answered.
    pub(super) fn finish_sync(&mut self) {
        let Some(sync) = &mut self.sync else { return };
        let epoch = sync.epoch;
        if self.election.epoch() != epoch {
            self.sync = None;
            return;
        }
        if !sync.missing.is_empty() && !sync.asked_again {
            sync.asked_again = true;
            let silent: Vec<_> = sync.missing.keys().copied().collect();
            for id in silent {
                self.tell(id, &Frame::SyncReq { epoch });
            }
            return self.timers.set(Timer::Sync, self.now + SYNC_AGAIN);
        }
        if sync.missing.is_empty() {
            self.sync = None;
        }
        self.timers.clear(&Timer::Sync);
        self.elect(election::Input::Synced(epoch));
        self.timers.hasten(Timer::Sweep, self.now);
    }

    /// Those that had not answered when we began to lead are asked until they do, or die: their rooms wait for it.
    fn ask_the_silent(&mut self) {
        let live = self.live_ids();
        let Some(sync) = &mut self.sync else { return };
        sync.missing.retain(|id, _| live.contains(id));
        let (epoch, missing): (_, Vec<_>) = (sync.epoch, sync.missing.keys().copied().collect());
        if missing.is_empty() {
            self.sync = None;
        }
        for id in missing {
            self.tell(id, &Frame::SyncReq { epoch });
        }
    }

    // ---- placing rooms

    pub(super) fn is_leader(&self) -> bool {
        self.election.state() == election::State::Leader
    }

    /// Wants a home for a room: decides, as the leader, or asks the leader.
    pub(super) fn ask_place(&mut self, name: &RoomName) {
        if self.is_leader() {
            return self.on_place(None, name, 0);
        }
        let now = self.now;
        if self.placing.get(name).is_some_and(|asked| now.since(*asked) < PLACE_AGAIN) {
            return;
        }
        if let Some((way, detour)) = self.way_to_leader() {
            self.placing.insert(name.clone(), now);
            self.tell(way, &Frame::Place { room: name.clone(), detour });
        }
    }

    /// A server, or this one itself, wants a home for a room.
    pub(super) fn on_place(&mut self, from: Option<ServerId>, name: &RoomName, detour: u8) {
        if !self.is_leader() {
            return match from.and_then(|from| self.way_on_to_leader(from, detour)) {
                Some((way, detour)) => self.tell(way, &Frame::Place { room: name.clone(), detour }),
                None => self.count("place_not_leader"),
            };
        }
        if let Some(record) = self.records.get(name).cloned() {
            // Whoever asks has missed the answer.
            let epoch = self.epoch();
            return self.tell_all(&Frame::Assign { epoch, rooms: vec![record] });
        }
        if self.kept.fences.contains_key(name) {
            return;
        }
        if let Some(record) = self.placer().place(name) {
            self.assign(vec![record]);
        }
    }

    /// Places rooms on the servers that are live now.
    fn placer(&self) -> Placer<'_> {
        let members = self.members.keepers().map(|member| member.id);
        let mut placer = Placer::new(&self.records, self.candidates(), members, self.epoch());
        for record in self.kept.fences.values() {
            placer.expect(record);
        }
        placer
    }

    /// Live servers, with their loads. Where none would take rooms, those do that have not the leader's leave to go yet: of
    /// them those that can write, if there are any.
    pub(super) fn candidates(&self) -> Vec<placement::Server> {
        let leaver = self.granted_now();
        let me = placement::Server {
            id: self.me.id,
            boot: self.me.boot,
            load: self.load.rate(),
            clients: self.devices.len() as u32,
            takes_rooms: self.takes_rooms(),
            logs: self.logs,
        };
        let peers = self.heartbeat.live().filter_map(|origin| {
            let beat = self.peers.get(&origin.id)?.beat.as_ref()?;
            let takes_rooms = beat.takes_rooms && Some(origin.id) != leaver && !self.is_on_probation(origin.id);
            let (load, clients, logs) = (beat.load, beat.sessions, beat.logs);
            Some(placement::Server { id: origin.id, boot: origin.boot, load, clients, takes_rooms, logs })
        });
        let mut servers: Vec<_> = peers.chain([me]).collect();
        for must_write in [true, false] {
            if servers.iter().any(|server| server.takes_rooms) {
                break;
            }
            for server in &mut servers {
                server.takes_rooms = Some(server.id) != leaver && !(must_write && self.is_unwritable(server.id));
            }
        }
        servers
    }

    /// Whether a server says that it cannot write.
    pub(super) fn is_unwritable(&self, id: ServerId) -> bool {
        if id == self.me.id {
            return !self.kept.is_writable();
        }
        self.peers.get(&id).and_then(|peer| peer.beat.as_ref()).is_some_and(|beat| beat.unwritable)
    }

    /// The leader's word goes to all, once it is durable.
    fn assign(&mut self, records: Vec<RoomRecord>) {
        let epoch = self.epoch();
        self.fence(records, By::Leader(epoch));
    }

    pub(super) fn on_assign(&mut self, session: SessionId, id: ServerId, epoch: Epoch, rooms: Vec<RoomRecord>) {
        if epoch.leader != id || !self.election.accepts(epoch) {
            return self.count("command_of_old_epoch");
        }
        if !self.commands(id) {
            return;
        }
        self.relay_rooms(id, &rooms);
        self.on_rooms(session, rooms);
    }

    // ---- looking after rooms

    /// Who is live has changed: rooms of the dead go on at their successors, and clients hear of it.
    pub(super) fn live_changed(&mut self, changes: &[Change]) {
        self.settle_all();
        if self.stage == Stage::Serving {
            for change in changes {
                if let Change::Dead { peer, .. } = change {
                    self.claim(|record, _| record.fence.home == *peer);
                    self.call_over_clients_of(*peer);
                }
            }
        }
        self.tell_servers();
        self.timers.hasten(Timer::Sweep, self.now);
    }

    /// The homes of rooms that are dead: mostly none, and then no room need be looked at.
    fn dead_homes(&self) -> BTreeSet<Origin> {
        self.records.homes().filter(|home| self.is_dead(*home)).collect()
    }

    /// Goes on with rooms whose home is dead, where we are the first live successor.
    fn claim(&mut self, may: impl Fn(&RoomRecord, &BTreeMap<RoomName, Time>) -> bool) {
        let dead = self.dead_homes();
        if dead.is_empty() {
            return;
        }
        // Who cannot keep it does not go on with it.
        let may_go_on = |id: &ServerId| self.members.keeps(*id) && !self.is_unwritable(*id);
        let live: BTreeSet<_> = self.live_ids().into_iter().filter(may_go_on).collect();
        let epoch = self.epoch();
        let ours: Vec<RoomRecord> = self
            .records
            .iter()
            .filter(|record| dead.contains(&record.fence.home) && may(record, &self.orphans))
            .filter(|record| !self.kept.fences.contains_key(&record.room))
            .filter(|record| placement::first_live_successor(record, &live) == Some(self.me.id))
            .map(|record| placement::go_on(record, self.me, epoch, &live))
            .collect();
        if !ours.is_empty() {
            self.fence(ours, By::Successor);
        }
    }

    /// Looks at all rooms, a few times a second.
    pub(super) fn sweep(&mut self) {
        self.timers.set(Timer::Sweep, self.now + SWEEP);
        if self.stage != Stage::Serving {
            return;
        }
        let now = self.now;
        let dead = self.dead_homes();
        let orphans: BTreeSet<RoomName> = if dead.is_empty() {
            BTreeSet::new()
        } else {
            let orphans = self.records.iter().filter(|record| dead.contains(&record.fence.home));
            orphans.map(|record| record.room.clone()).collect()
        };
        self.orphans.retain(|name, _| orphans.contains(name));
        for name in orphans {
            self.orphans.entry(name).or_insert(now);
        }
        self.claim(|record, orphans| orphans.get(&record.room).is_some_and(|since| now.since(*since) >= ORPHAN));
        if self.is_leader() {
            self.ask_the_silent();
            self.mend_placements();
        }
        self.even_out();
        let unplaced: Vec<_> = self
            .rooms
            .iter()
            .filter(|(name, room)| {
                self.records.get(name).is_none() && (!room.log.is_empty() || !room.followers.is_empty())
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in &unplaced {
            self.ask_place(name);
        }
    }

    /// The leader gives homes to rooms that have lost theirs, copies to servers that have come, and the lobby to all.
    pub(super) fn mend_placements(&mut self) {
        let lobby = RoomName::lobby();
        if self.records.get(&lobby).is_none() {
            self.on_place(None, &lobby, 0);
        }
        let now = self.now;
        // Rooms of servers that have not told us yet what they know stay where they are. And so do those of servers that only
        // others hear, or that are on probation: they get no more, and keep what they have. Not those of an earlier boot.
        let leaver = self.granted_now();
        let unasked: BTreeSet<_> = self.sync.iter().flat_map(|sync| sync.missing.keys().copied()).collect();
        let unheard: BTreeSet<_> = self.heartbeat.unheard().collect();
        let is_kept = |home: Origin| self.is_live(home) && self.is_on_probation(home.id);
        let stays = |home: Origin| {
            unasked.contains(&home.id) || (Some(home.id) != leaver && (unheard.contains(&home) || is_kept(home)))
        };
        let settled = |name: &RoomName| match self.orphans.get(name) {
            Some(since) => now.since(*since) >= ORPHAN,
            None => true,
        };
        let mut mended = self.placer().repair(stays);
        mended.retain(|record| settled(&record.room) && !self.kept.fences.contains_key(&record.room));
        if !mended.is_empty() {
            self.assign(mended);
        }
    }

    /// The leader moves a room from the busiest server to the idlest, once in a while, where nothing else moves.
    fn even_out(&mut self) {
        let is_calm = self.is_leader()
            && self.sync.is_none()
            && self.leaving.is_none()
            && self.granted_now().is_none()
            && self.kept.fences.is_empty()
            && self.orphans.is_empty();
        let mut balance = std::mem::take(&mut self.balance);
        let record = if is_calm {
            balance.poll(&mut self.placer(), self.now)
        } else {
            balance.rest();
            None
        };
        self.balance = balance;
        if let Some(record) = record {
            self.assign(vec![record]);
        }
    }

    /// Nobody is the room's home any more, as far as we know.
    pub(super) fn close_room(&mut self, name: &RoomName) {
        let now = self.now;
        if let Some(room) = self.rooms.get_mut(name) {
            room.upstream = Upstream::Nowhere;
            room.handoff = None;
            room.waiters.clear();
            room.receiver.moved(now);
        }
        self.early.take_room(name);
        self.timers.clear(&Timer::Join(name.clone()));
    }
}
