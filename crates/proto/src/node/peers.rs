//! Other servers: sessions with them, heartbeats, who is live, and the directory that all of them share.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{Event, Node, Party, Stage, Timer};
use crate::{
    directory,
    election::{self, PeerView},
    heartbeat::Change,
    ids::{Origin, RoomName, ServerId},
    limits,
    session::{SessionId, keys::Suite},
    time::{Duration, Time},
    wire::{
        Frame,
        frame::{Beat, Member, RoomRecord},
    },
};

/// The server with the higher (id, boot) leaves it to the other to open the session, for so long.
const YIELD: Duration = Duration::from_millis(300);
/// A server that was heard of is called at most so often.
const CALL_AGAIN: Duration = Duration::from_secs(1);
/// Servers that were heard of and are about to be called, or have just been.
const CALLS_MAX: usize = 2 * limits::SERVERS_MAX;
/// Servers with which there is, or was, a session.
const PEERS_MAX: usize = 2 * limits::SERVERS_MAX;
/// Between attempts to open a session with a server that we had one with: at first, for how long, and later.
const RECONNECT_OFTEN: Duration = Duration::from_secs(1);
const RECONNECT_OFTEN_FOR: Duration = Duration::from_mins(1);
const RECONNECT_SELDOM: Duration = Duration::from_secs(10);
/// Between two questions for one server's list of clients.
const CLIENTS_AGAIN: Duration = Duration::from_millis(300);
/// A difference of directories that lasts for so long is mended.
const DIRECTORY_DIFFERS: Duration = Duration::from_millis(300);
/// A difference of logs that lasts for so long is mended.
const LOGS_DIFFER: Duration = Duration::from_secs(1);
/// Sessions that are kept with one server: both sides may have opened one at the same time.
const SESSIONS_MAX: usize = 4;

/// Another server of the cluster.
#[derive(Debug)]
pub(super) struct Peer {
    /// Which, in which run.
    pub(super) origin: Origin,
    /// Sessions with it, in order; the last is used. Both sides may have opened some, and both must use the same: one that
    /// only one of them uses is silent at that side, and closes there.
    pub(super) sessions: Vec<Held>,
    /// Its newest heartbeat.
    pub(super) beat: Option<Beat>,
    addr: SocketAddr,
    /// When it died, or was met.
    lost_at: Time,
    /// When we last asked for its list of clients.
    asked_clients: Option<Time>,
    directory_differs: Option<Time>,
    logs_differ: Option<Time>,
}

/// A server that was heard of and that there is no session with.
#[derive(Debug)]
pub(super) struct Call {
    addr: SocketAddr,
    suite: Suite,
    /// Whether it has been called.
    done: bool,
}

/// A session with another server; the order is the same on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Held {
    /// Whether the lower of the two servers opened it.
    pub(super) by_lower: bool,
    /// Which one of those that it opened.
    pub(super) n: u64,
    /// Its name at this side.
    pub(super) session: SessionId,
}

impl Call {
    /// Whether it has been called.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }
}

impl Peer {
    /// The session to use.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.sessions.last().map(|held| held.session)
    }

    /// Whether it is one of the sessions with this server.
    fn holds(&self, session: SessionId) -> bool {
        self.sessions.iter().any(|held| held.session == session)
    }
}

impl Node {
    // ---- sessions

    /// A server of our cluster has been heard of at `addr`: a hint, and no more. One attempt to open a session follows from
    /// it, and nothing else is remembered of it.
    pub(super) fn meet(&mut self, origin: Origin, addr: SocketAddr, suite: Suite) {
        let known = self.peers.get(&origin.id).map(|peer| peer.origin);
        if self.is_live(origin) || self.calls.contains_key(&origin) {
            return;
        }
        if known.is_some_and(|known| origin.boot < known.boot) {
            return self.count("hello_of_old_boot");
        }
        if self.calls.len() >= CALLS_MAX {
            return self.count("calls_full");
        }
        // One of the two opens the session; the other steps in where that one does not.
        let at = if origin < self.me && known.is_none() { self.now + YIELD } else { self.now };
        self.calls.insert(origin, Call { addr, suite, done: false });
        self.timers.set(Timer::Call(origin), at);
    }

    /// Opens a session to a server that was heard of, and for a while does not again.
    pub(super) fn call(&mut self, origin: Origin) {
        let Some(call) = self.calls.get_mut(&origin) else { return };
        let (addr, suite) = (call.addr, call.suite);
        if std::mem::replace(&mut call.done, true) || self.is_live(origin) {
            self.calls.remove(&origin);
            return;
        }
        self.open_session(origin, addr, self.cluster, suite);
        self.timers.set(Timer::Call(origin), self.now + CALL_AGAIN);
    }

    /// Opens a session to a server that we had one with and that is not live, even if no broadcast of it reaches us.
    pub(super) fn reconnect(&mut self, id: ServerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        let (origin, addr, lost_at) = (peer.origin, peer.addr, peer.lost_at);
        if self.is_live(origin) {
            return;
        }
        self.open_session(origin, addr, self.cluster, self.config.suite);
        let again = if self.now.since(lost_at) < RECONNECT_OFTEN_FOR { RECONNECT_OFTEN } else { RECONNECT_SELDOM };
        self.timers.set(Timer::Reconnect(id), self.now + again);
    }

    /// Makes place for one more server: of those that are dead, the one that has been so for longest is forgotten.
    fn make_place(&mut self) {
        if self.peers.len() < PEERS_MAX {
            return;
        }
        let dead = self.peers.values().filter(|peer| !self.is_live(peer.origin));
        if let Some(id) = dead.min_by_key(|peer| peer.lost_at).map(|peer| peer.origin.id) {
            self.forget_boot(id);
        }
    }

    /// A session with another server stands.
    pub(super) fn peer_up(&mut self, origin: Origin, held: Held) {
        let session = held.session;
        let Some(addr) = self.endpoint.addr(session) else { return };
        self.sessions.insert(session, Party::Server(origin.id));
        if let Some(peer) = self.peers.get(&origin.id) {
            if origin.boot < peer.origin.boot {
                self.count("session_of_old_boot");
                self.endpoint.close(session);
                return self.on_closed(session);
            }
            if origin.boot > peer.origin.boot {
                if peer.addr != addr && !self.is_silent(peer) {
                    // Perhaps two servers with one id: they settle that between themselves, and come again.
                    self.count("id_in_use");
                    self.endpoint.close(session);
                    return self.on_closed(session);
                }
                self.forget_boot(origin.id);
            }
        }
        self.calls.remove(&origin);
        if !self.peers.contains_key(&origin.id) {
            self.make_place();
        }
        let lost_at = self.now;
        let peer = self.peers.entry(origin.id).or_insert_with(|| Peer {
            origin,
            sessions: Vec::new(),
            beat: None,
            addr,
            lost_at,
            asked_clients: None,
            directory_differs: None,
            logs_differ: None,
        });
        peer.addr = addr;
        peer.sessions.push(held);
        peer.sessions.sort_unstable();
        if peer.sessions.len() > SESSIONS_MAX {
            let oldest = peer.sessions.remove(0).session;
            self.endpoint.close(oldest);
            self.on_closed(oldest);
        }
        self.heartbeat.up(origin, self.now);
        self.discovery.set_connected(addr, true, self.now);
        self.members.merge(Member { id: origin.id, boot: origin.boot, left: false, addrs: vec![addr] });
        self.say_beat(session);
        self.share_directory(session);
        self.say(session, &Frame::ClientsReq);
    }

    /// The last boot of a server has ended: a newer one has shown itself.
    fn forget_boot(&mut self, id: ServerId) {
        let Some(peer) = self.peers.remove(&id) else { return };
        for Held { session, .. } in peer.sessions {
            self.endpoint.close(session);
            self.on_closed(session);
        }
        self.clients.drop_server(id);
        self.timers.clear(&Timer::Reconnect(id));
    }

    /// A session is gone, or never came to be.
    pub(super) fn on_closed(&mut self, session: SessionId) {
        self.connecting.remove(&session);
        match self.sessions.remove(&session) {
            Some(Party::Server(id)) => {
                self.unfollow_all(session);
                self.lose_source(session);
                if let Some(peer) = self.peers.get_mut(&id) {
                    peer.sessions.retain(|held| held.session != session);
                    if peer.sessions.is_empty() {
                        let addr = peer.addr;
                        self.discovery.set_connected(addr, false, self.now);
                    }
                }
                self.settle_all();
            }
            Some(Party::Client(served)) => {
                self.unfollow_all(session);
                self.client_gone(session, &served);
            }
            Some(Party::Rival(_)) | None => {}
        }
    }

    // ---- heartbeats

    /// Looks whether somebody has died or come to life, and sends our own beat where it is due.
    pub(super) fn beat(&mut self) {
        let (due, changes) = self.heartbeat.tick(self.now);
        if due {
            self.say_beats();
        }
        for change in &changes {
            match *change {
                Change::Alive(peer) => {
                    let addr = self.peers.get(&peer.id).map(|peer| peer.addr);
                    if let Some(addr) = addr {
                        self.event(Event::PeerUp { peer, addr });
                    }
                    self.timers.clear(&Timer::Reconnect(peer.id));
                }
                Change::Unheard(peer) => {
                    // The link may be good for another session.
                    self.lost(peer);
                }
                Change::Dead { peer, silent } => {
                    let silent_ms = u64::try_from(silent.as_millis()).unwrap_or(u64::MAX);
                    self.event(Event::PeerDown { peer, silent_ms });
                    self.clients.drop_server(peer.id);
                    if self.granted_now() == Some(peer.id) {
                        self.granted = None;
                    }
                    self.lost(peer);
                }
            }
        }
        if !changes.is_empty() {
            self.update_view();
            self.live_changed(&changes);
        }
    }

    /// Beats, to all.
    pub(super) fn say_beats(&mut self) {
        self.logs = self.logs_digest();
        let line = Frame::Beat(self.my_beat()).to_line();
        for session in self.peers.values().filter_map(Peer::session) {
            self.endpoint.send(session, line.as_bytes());
        }
    }

    /// A server is not live any more: it is called until it is.
    fn lost(&mut self, peer: Origin) {
        if let Some(known) = self.peers.get_mut(&peer.id).filter(|known| known.origin == peer) {
            known.lost_at = self.now;
            self.timers.set(Timer::Reconnect(peer.id), self.now + RECONNECT_OFTEN);
        }
    }

    /// A live peer that `origin` and it hear each other, the one that heard it last: the way to a server that we do not
    /// hear, or that does not hear us.
    pub(super) fn detour(&self, origin: Origin) -> Option<ServerId> {
        self.heartbeat.detour(origin)
    }

    fn say_beat(&mut self, session: SessionId) {
        let beat = Frame::Beat(self.my_beat());
        self.say(session, &beat);
    }

    fn my_beat(&self) -> Beat {
        Beat {
            epoch: self.epoch(),
            led: self.election.leader().is_some(),
            load: self.load.rate(),
            lag: u32::try_from(self.heartbeat.lag().as_millis()).unwrap_or(u32::MAX),
            sessions: self.devices.len() as u32,
            hears: self.heartbeat.hears(self.now),
            eligible: self.is_eligible(),
            time: self.cluster_millis(),
            directory: self.directory_digest(),
            clients: self.clients.own_version(),
            logs: self.logs,
        }
    }

    /// Whether we may lead.
    pub(super) fn is_eligible(&self) -> bool {
        self.stage == Stage::Serving && self.leaving.is_none()
    }

    /// A peer's heartbeat.
    pub(super) fn on_beat(&mut self, session: SessionId, id: ServerId, beat: Beat) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let origin = peer.origin;
        if !peer.holds(session) {
            return;
        }
        let hears_me = beat.hears.iter().any(|heard| heard.peer == self.me);
        let hears: Vec<_> = beat.hears.iter().copied().take(limits::SERVERS_MAX).collect();
        let epoch = beat.epoch;
        let leads = epoch.leader == id && beat.led && beat.time < limits::CLUSTER_MILLIS_BOUND;
        let time = beat.time;
        let clients = beat.clients;
        let is_overtaken = peer.beat.as_ref().is_some_and(|newest| beat.time < newest.time);
        if !is_overtaken {
            peer.beat = Some(beat);
        }
        self.heartbeat.heard(origin, hears_me, self.now);
        if !is_overtaken {
            for heard in hears.iter().filter(|heard| heard.both && heard.peer.id != self.me.id) {
                self.heartbeat.vouched(id, heard.peer, Duration::from_millis(heard.age.into()), self.now);
            }
        }
        self.beat();
        if is_overtaken {
            return;
        }
        if leads && self.is_live(origin) && self.election.leader() == Some(id) {
            // Cluster time is the leader's; it goes forward and never back.
            self.clock_offset = self.clock_offset.max(time.saturating_sub(self.now.as_millis()));
        }
        if clients != self.clients.version(origin) {
            self.ask_clients(session, id);
        }
        self.update_view();
        if self.stage == Stage::Serving && self.is_live(origin) {
            self.elect(election::Input::HeardEpoch { from: origin, epoch });
        }
        self.mend_differences(session, id);
    }

    /// Asks a server for its list of clients, but not again and again while the answer is on its way.
    pub(super) fn ask_clients(&mut self, session: SessionId, id: ServerId) {
        let now = self.now;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.asked_clients.is_none_or(|asked| now.since(asked) >= CLIENTS_AGAIN) {
            peer.asked_clients = Some(now);
            self.say(session, &Frame::ClientsReq);
        }
    }

    /// Tells the election who is live.
    pub(super) fn update_view(&mut self) {
        let view = |origin: Origin| {
            let beat = self.peers.get(&origin.id).filter(|peer| peer.origin == origin)?.beat.as_ref()?;
            let view = PeerView { boot: origin.boot, eligible: beat.eligible, led: beat.led, epoch: beat.epoch };
            Some((origin.id, view))
        };
        let live: BTreeMap<_, _> = self.heartbeat.live().filter_map(view).collect();
        let eligible = self.is_eligible();
        self.elect(election::Input::View { live, eligible });
    }

    /// What a peer holds differs from what we hold: after a while something is done about it.
    fn mend_differences(&mut self, session: SessionId, id: ServerId) {
        let (directory, logs, now) = (self.directory_digest(), self.logs, self.now);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(beat) = &peer.beat else { return };
        let lasts = |since: &mut Option<Time>, differs: bool, span: Duration| {
            let start = *since.get_or_insert(now);
            let lasts = differs && now.since(start) >= span;
            if lasts || !differs {
                *since = None;
            }
            lasts
        };
        let directory = lasts(&mut peer.directory_differs, beat.directory != directory, DIRECTORY_DIFFERS);
        let logs = lasts(&mut peer.logs_differ, beat.logs != logs, LOGS_DIFFER);
        if directory {
            self.share_directory(session);
        }
        if logs {
            self.compare_with(session);
        }
    }

    // ---- the directory that all share

    fn directory_digest(&self) -> u64 {
        self.records.digest() ^ self.members.digest()
    }

    /// Tells a server all that we know of members and rooms.
    pub(super) fn share_directory(&mut self, session: SessionId) {
        for members in directory::members::chunks(self.members.iter()) {
            self.say(session, &Frame::Members { members });
        }
        for rooms in directory::rooms::chunks(self.records.iter()) {
            self.say(session, &Frame::Rooms { rooms });
        }
    }

    /// A server tells what it knows of members.
    pub(super) fn on_members(&mut self, members: Vec<Member>) {
        for member in members {
            let (id, boot, left) = (member.id, member.boot, member.left);
            if id == self.me.id {
                if boot == self.me.boot && left && self.leaving.is_none() {
                    self.leave(super::leave::Why::Retired);
                }
                continue;
            }
            if !self.members.merge(member) || !left {
                continue;
            }
            let origin = Origin { id, boot };
            if self.peers.get(&id).is_some_and(|peer| peer.origin == origin) {
                self.member_left(origin);
            }
        }
    }

    /// A member has left for good: no alarm, no reconnecting.
    fn member_left(&mut self, origin: Origin) {
        self.heartbeat.gone(origin.id);
        if self.granted_now() == Some(origin.id) {
            self.granted = None;
        }
        self.forget_boot(origin.id);
        self.update_view();
        self.live_changed(&[Change::Dead { peer: origin, silent: Duration::ZERO }]);
    }

    /// A server tells where rooms live.
    pub(super) fn on_rooms(&mut self, session: SessionId, rooms: Vec<RoomRecord>) {
        let mut behind = Vec::new();
        for record in rooms {
            let name = record.room.clone();
            let fence = record.fence;
            if self.records.merge(record) {
                self.record_changed(&name);
            } else if let Some(known) = self.records.get(&name).filter(|known| known.fence > fence) {
                behind.push(known.clone());
            }
        }
        if !behind.is_empty() {
            for rooms in directory::rooms::chunks(&behind) {
                self.say(session, &Frame::Rooms { rooms });
            }
        }
    }

    /// A room's record has changed: everything that hangs on it follows.
    pub(super) fn record_changed(&mut self, name: &RoomName) {
        self.placing.remove(name);
        if self.room(name).is_some() {
            self.rejoin(name);
            self.settle_upstream(name);
            self.answer_joins(name);
        }
    }

    /// Decides anew whom each room is followed at.
    pub(super) fn settle_all(&mut self) {
        let names: Vec<_> = self.rooms.keys().cloned().collect();
        for name in &names {
            self.settle_upstream(name);
        }
    }
}
