//! Other servers: sessions with them.

use std::net::SocketAddr;

use super::{Node, Party, Timer, beats::DIRECTORY_DIFFERS};
use crate::{
    heartbeat::Status,
    ids::{Origin, ServerId},
    limits,
    session::{SessionId, keys::Suite},
    time::{Duration, Time},
    wire::{
        Frame,
        frame::{Beat, Member},
    },
};

/// The server with the higher (id, boot) leaves it to the other to open the session, for so long.
const YIELD: Duration = Duration::from_millis(300);
/// A server that was heard of is called at most so often.
const CALL_AGAIN: Duration = Duration::from_secs(1);
/// Servers that were heard of and are about to be called, or have just been.
const CALLS_MAX: usize = 2 * limits::SERVERS_MAX;
/// Addresses at which one of them is called.
const CALL_ADDRS_MAX: usize = 16;
/// Servers with which there is, or was, a session.
const PEERS_MAX: usize = 2 * limits::SERVERS_MAX;
/// Between attempts to open a session with a server that we had one with: at first, for how long, and later.
pub(super) const RECONNECT_OFTEN: Duration = Duration::from_secs(1);
const RECONNECT_OFTEN_FOR: Duration = Duration::from_mins(1);
const RECONNECT_SELDOM: Duration = Duration::from_secs(10);
/// A session on which something has come in this span is in use; five heartbeats.
const SPEAKS: Duration = Duration::from_millis(500);
/// One on which nothing has come for so long, while another is in use, is not.
const UNUSED: Duration = Duration::from_millis(1_500);
/// Sessions that are kept with one server: both sides may have opened one at the same time.
const SESSIONS_MAX: usize = 4;

/// Another server of the cluster.
#[derive(Debug)]
pub(super) struct Peer {
    /// Which, in which run.
    pub(super) origin: Origin,
    /// Whether it keeps what it has in memory alone, as it said with its newest session.
    pub(super) memory: bool,
    /// Sessions with it, in order; the last is used. Both sides may have opened some, and both must use the same: one that
    /// only one of them uses is silent at that side, and closes there.
    pub(super) sessions: Vec<Held>,
    /// Its newest heartbeat.
    pub(super) beat: Option<Beat>,
    pub(super) addr: SocketAddr,
    /// When it died, or was met.
    pub(super) lost_at: Time,
    /// How often we have tried to open a session since.
    pub(super) attempts: usize,
    /// When we last asked for its list of clients.
    pub(super) asked_clients: Option<Time>,
    pub(super) directory_differs: Option<Time>,
    /// For how long a difference has to last: longer while telling all changes nothing.
    pub(super) directory_span: Duration,
    /// The digests, ours and its, that differed when we last told all.
    pub(super) directories: Option<(u64, u64)>,
    pub(super) logs_differ: Option<Time>,
}

/// A server that was heard of and that there is no session with.
#[derive(Debug)]
pub(super) struct Call {
    /// Where it may be, at least one address; each is tried in turn.
    addrs: Vec<SocketAddr>,
    suite: Suite,
    /// How often it has been called.
    attempts: usize,
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
        self.attempts > 0
    }
}

impl Peer {
    /// One that has just been met, and that there is no session with yet.
    pub(super) fn met(origin: Origin, addr: SocketAddr, now: Time) -> Self {
        Self {
            origin,
            memory: true,
            sessions: Vec::new(),
            beat: None,
            addr,
            lost_at: now,
            attempts: 0,
            asked_clients: None,
            directory_differs: None,
            directory_span: DIRECTORY_DIFFERS,
            directories: None,
            logs_differ: None,
        }
    }

    /// The session to use.
    pub(super) fn session(&self) -> Option<SessionId> {
        self.sessions.last().map(|held| held.session)
    }

    /// Whether it is one of the sessions with this server.
    pub(super) fn holds(&self, session: SessionId) -> bool {
        self.sessions.iter().any(|held| held.session == session)
    }
}

impl Node {
    // ---- sessions

    /// A server of our cluster has been heard of at `addr`: a hint, and no more. One attempt to open a session follows from
    /// it, and nothing else is remembered of it.
    pub(super) fn meet(&mut self, origin: Origin, addr: SocketAddr, suite: Suite) {
        self.call_at(origin, vec![addr], suite);
    }

    /// A server of our cluster that we have no session with may be at the addresses that members tell of it. Where a live
    /// peer hears it, it is called until we do, at each of them in turn: so one `--peer` is enough to find all, on
    /// networks that no broadcast crosses.
    pub(super) fn seek(&mut self, origin: Origin) {
        let Some(member) = self.members.get(origin.id).filter(|member| member.boot == origin.boot && !member.left)
        else {
            return;
        };
        let ours = &self.config.addrs;
        let addrs: Vec<_> = member.addrs.iter().copied().filter(|addr| !ours.contains(addr)).collect();
        if self.peers.contains_key(&origin.id) || addrs.is_empty() {
            return;
        }
        self.call_at(origin, addrs, self.config.suite);
    }

    fn call_at(&mut self, origin: Origin, addrs: Vec<SocketAddr>, suite: Suite) {
        let known = self.peers.get(&origin.id).map(|peer| peer.origin);
        if self.is_live(origin) {
            return;
        }
        if let Some(call) = self.calls.get_mut(&origin) {
            let more = addrs.into_iter().filter(|addr| !call.addrs.contains(addr)).collect::<Vec<_>>();
            call.addrs.extend(more);
            return call.addrs.truncate(CALL_ADDRS_MAX);
        }
        let is_old = known.is_some_and(|known| origin.boot < known.boot)
            && self.peers.get(&origin.id).is_some_and(|peer| !self.has_ended(peer));
        if is_old || self.has_left(origin) {
            return self.count("hello_of_old_boot");
        }
        if self.calls.len() >= CALLS_MAX {
            return self.count("calls_full");
        }
        // One of the two opens the session; the other steps in where that one does not.
        let at = if origin < self.me && known.is_none() { self.now + YIELD } else { self.now };
        self.calls.insert(origin, Call { addrs, suite, attempts: 0 });
        self.timers.set(Timer::Call(origin), at);
    }

    /// Whether this run of a server has left the cluster: it says goodbye a few times, and is no peer meanwhile.
    pub(super) fn has_left(&self, origin: Origin) -> bool {
        self.members.get(origin.id).is_some_and(|member| member.left && member.boot == origin.boot)
    }

    /// Opens a session to a server that was heard of, and for a while does not again.
    pub(super) fn call(&mut self, origin: Origin) {
        let is_sought = self.heartbeat.status(origin) == Status::Unheard && !self.peers.contains_key(&origin.id);
        let is_live = self.is_live(origin);
        let Some(call) = self.calls.get_mut(&origin) else { return };
        if is_live || (call.attempts > 0 && !is_sought) {
            self.calls.remove(&origin);
            return;
        }
        let (addr, suite) = (call.addrs[call.attempts % call.addrs.len()], call.suite);
        call.attempts += 1;
        self.open_session(origin, addr, self.cluster, suite);
        self.timers.set(Timer::Call(origin), self.now + CALL_AGAIN);
    }

    /// Opens a session to a server that we had one with and that is not live, even if no broadcast of it reaches us.
    pub(super) fn reconnect(&mut self, id: ServerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let (origin, last, lost_at, attempts) = (peer.origin, peer.addr, peer.lost_at, peer.attempts);
        peer.attempts += 1;
        if self.is_live(origin) {
            return;
        }
        let others = self.members.get(id).into_iter().flat_map(|member| &member.addrs).filter(|addr| **addr != last);
        let addrs: Vec<_> = [last].into_iter().chain(others.copied()).collect();
        let addr = addrs[attempts % addrs.len()];
        self.open_session(origin, addr, self.cluster, self.config.suite);
        let again = if self.now.since(lost_at) < RECONNECT_OFTEN_FOR { RECONNECT_OFTEN } else { RECONNECT_SELDOM };
        self.timers.set(Timer::Reconnect(id), self.now + again);
    }

    /// Whether a boot of a server is dead and silent: an older one that answers in a session is the one that goes on.
    fn has_ended(&self, peer: &Peer) -> bool {
        self.is_dead(peer.origin) && self.is_silent(peer)
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
    pub(super) fn peer_up(&mut self, origin: Origin, held: Held, memory: bool) {
        let session = held.session;
        let Some(addr) = self.endpoint.addr(session) else { return };
        self.sessions.insert(session, Party::Server(origin.id));
        if let Some(peer) = self.peers.get(&origin.id) {
            if origin.boot < peer.origin.boot && !self.has_ended(peer) {
                self.count("session_of_old_boot");
                self.endpoint.close(session);
                return self.on_closed(session);
            }
            if origin.boot != peer.origin.boot {
                if origin.boot > peer.origin.boot && peer.addr != addr && !self.is_silent(peer) {
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
        let now = self.now;
        let peer = self.peers.or_insert_with(origin.id, || Peer::met(origin, addr, now));
        peer.addr = addr;
        peer.memory = memory;
        peer.sessions.push(held);
        peer.sessions.sort_unstable();
        if peer.sessions.len() > SESSIONS_MAX {
            let oldest = peer.sessions.remove(0).session;
            self.endpoint.close(oldest);
            self.on_closed(oldest);
        }
        self.heartbeat.up(origin, self.now);
        self.discovery.set_connected(addr, true, self.now);
        // It is one more address of the list that is known, whichever that is.
        let known = self.members.get(origin.id).filter(|member| member.boot == origin.boot);
        let n = known.map_or(0, |member| member.n);
        self.learn_member(Member { id: origin.id, boot: origin.boot, left: false, memory, n, addrs: vec![addr] });
        self.say_beat(session);
        self.share_directory(session);
        self.say(session, &Frame::ClientsReq);
    }

    /// Of several sessions with one server, those are closed on which nothing has come for a while, though it speaks on
    /// another: it does not have them any more, and what we said there would be lost.
    pub(super) fn close_unused(&mut self) {
        let now = self.now;
        let mut unused = Vec::new();
        for peer in self.peers.values().filter(|peer| peer.sessions.len() > 1) {
            let heard = |held: &Held| self.endpoint.heard(held.session).unwrap_or(Time::ZERO);
            let speaks = peer.sessions.iter().any(|held| now.since(heard(held)) < SPEAKS);
            let silent = peer.sessions.iter().filter(|held| now.since(heard(held)) >= UNUSED);
            unused.extend(silent.filter(|_| speaks).map(|held| held.session));
        }
        for session in unused {
            self.endpoint.close(session);
            self.on_closed(session);
        }
    }

    /// The last boot of a server has ended: a newer one has shown itself.
    pub(super) fn forget_boot(&mut self, id: ServerId) {
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
}
