//! A look at what a server keeps in memory beside its logs, for whoever checks it: each queue with its bound, and the
//! states that its parts are in. Nothing of the protocol goes through it.

use std::collections::BTreeMap;

use super::{Node, Stage, Timer, detours, leave, rooms::Upstream, waiting};
use crate::{
    limits,
    session::{Census, Talk},
};

/// Something that is kept for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// What.
    pub name: &'static str,
    /// How much of it there is now: pieces, or bytes.
    pub len: usize,
    /// How much there may be, whatever others do.
    pub max: usize,
    /// Whether there is none of it once everybody has been served and nobody says anything new.
    pub drains: bool,
}

impl Queue {
    /// One that empties when all is quiet.
    pub(crate) const fn draining(name: &'static str, len: usize, max: usize) -> Self {
        Self { name, len, max, drains: true }
    }

    /// One of things that stay.
    pub(crate) const fn lasting(name: &'static str, len: usize, max: usize) -> Self {
        Self { name, len, max, drains: false }
    }
}

/// The queues of an endpoint.
pub(crate) fn of_sessions(census: &Census) -> [Queue; 6] {
    [
        Queue::lasting("sessions", census.calling + census.half_open + census.up, limits::SESSIONS_MAX),
        Queue::lasting("half-open sessions", census.half_open, limits::HALF_OPEN_MAX),
        Queue::lasting("handshakes that wait", census.waiting, limits::HANDSHAKES_WAITING_MAX),
        Queue::lasting("bytes in a session that is not up", census.unsent_early_max, limits::UNSENT_BYTES_MAX),
        Queue::draining("bytes in a session", census.unsent_up_max, limits::UNSENT_UP_BYTES_MAX),
        Queue::lasting("bytes of fragments in a session", census.fragments_max, limits::FRAGMENTS_BYTES_MAX),
    ]
}

impl Node {
    /// Everything that it keeps beside its logs and what is known of the cluster. Looks at each session and room.
    pub fn queues(&self) -> Vec<Queue> {
        let census = self.endpoint.census();
        let sessions = census.calling + census.half_open + census.up;
        let (rooms, peers) = (self.rooms.len(), self.peers.len());
        let followed: usize = self.follows.values().map(crate::sorted::Sorted::len).sum();
        let timed = [sessions * 3, rooms * 4, limits::SERVERS_MAX * 4, 16].iter().sum();
        let stranded = self.rooms.values().map(|room| room.receiver.stranded()).max().unwrap_or_default();
        let waiters: usize = self.rooms.values().map(|room| room.waiters.len()).sum();
        let holders = self.rooms.values().map(|room| room.holders.len()).max().unwrap_or_default();
        let followers: usize = self.rooms.values().map(|room| room.followers.len()).sum();
        let (relays, early) = (self.relays.size(), self.early.size());
        let mut queues = vec![
            Queue::draining("posts under way to their homes", relays.0, waiting::POSTS_MAX),
            Queue::draining("bytes under way to their homes", relays.1, waiting::BYTES_MAX),
            Queue::draining("posts before their turn", early.0, waiting::POSTS_MAX),
            Queue::draining("bytes before their turn", early.1, waiting::BYTES_MAX),
            Queue::lasting("posts passed on", self.detours.passed(), detours::PASSED_MAX),
            Queue::draining("entries above a hole in a room", stranded, limits::STRANDED_MAX),
            Queue::lasting("rooms", rooms, limits::ROOMS_MAX),
            Queue::lasting("followers", followers, followed),
            Queue::lasting("holders of a room", holders, limits::SERVERS_MAX),
            Queue::lasting("who waits for an ack", waiters, (relays.0 + waiting::POSTS_MAX) * (1 + peers)),
            Queue::lasting("parties", self.sessions.len(), sessions),
            Queue::lasting("servers that are called", self.connecting.len(), sessions),
            Queue::lasting("devices", self.devices.len(), sessions),
            Queue::lasting("sessions with heads to repeat", self.heads_backoff.len(), sessions),
            Queue::lasting("sessions that are waited with", self.waited.len(), sessions),
            Queue::lasting("rooms to be placed", self.placing.len(), rooms + self.records.iter().count()),
            Queue::lasting("rooms without a home", self.orphans.len(), rooms + self.records.iter().count()),
            Queue::draining("goodbyes", self.goodbyes.len(), limits::SERVERS_MAX * leave::GOODBYES as usize),
            Queue::lasting("timers", self.timers.len(), timed),
            Queue::lasting("session timers", self.timers.count(is_of_session), sessions * 3),
        ];
        queues.extend(of_sessions(&census));
        queues
    }

    /// The states of its parts and of each session and room, by name. Some come more than once.
    pub fn states(&self) -> Vec<&'static str> {
        let mut states = vec![match self.stage {
            Stage::Choosing => "server choosing",
            Stage::Joining => "server joining",
            Stage::Serving => "server serving",
            Stage::Stopped => "server stopped",
        }];
        states.extend(self.leaving.is_some().then_some("server leaving"));
        states.extend(self.granted.is_some().then_some("leader has let one leave"));
        states.extend((!self.detours.is_empty()).then_some("detour"));
        let census = self.endpoint.census();
        let sessions = [
            ("session calling", census.calling),
            ("session half-open", census.half_open),
            ("session up", census.up),
            ("session rekeying", census.rekeying),
        ];
        states.extend(sessions.into_iter().filter(|(_, count)| *count > 0).map(|(state, _)| state));
        for room in self.rooms.values() {
            states.push(match room.upstream {
                Upstream::Nowhere => "room nowhere",
                Upstream::Opening => "room opening",
                Upstream::Home => "room home",
                Upstream::Server { joined: false, .. } => "room joining",
                Upstream::Server { joined: true, .. } => "room followed",
            });
            states.extend(room.handoff.is_some().then_some("room handed over"));
        }
        states
    }

    /// What was dropped, or is otherwise worth counting, by cause.
    pub fn counters(&self) -> BTreeMap<&'static str, u64> {
        let mut counters = self.counters.clone();
        for (cause, count) in self.endpoint.counters().iter().chain(self.discovery.counters()) {
            *counters.entry(cause).or_default() += count;
        }
        counters
    }

    /// Says a line to everybody whom it has a session with: for who wants to see what others make of it.
    pub fn blurt(&mut self, line: &[u8]) {
        for session in self.sessions.keys() {
            self.endpoint.send(*session, line);
        }
    }

    /// Counts the frames that are said and heard from now on.
    pub fn listen_in(&mut self) {
        self.endpoint.listen_in();
    }

    /// What was counted since then.
    pub fn talk(&self) -> Option<&Talk> {
        self.endpoint.talk()
    }
}

fn is_of_session(timer: &Timer) -> bool {
    matches!(timer, Timer::Heads(_) | Timer::Come(_) | Timer::Hi(_))
}
