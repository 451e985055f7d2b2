//! Entries that nobody can produce any more: each becomes a marker, which is held, stored, served and shown in its place.
//!
//! ```text
//! rotten here -- Pull 4294967295 --> each peer in turn
//!             <- Pulled (lacks) ---- each, twice, 30 s apart -> read once more -> Lost
//! ```
//!
//! A member that is down may have it. So an entry is given up only while every member with a disk lives, and all that live
//! have said twice that they lack it; who never comes back has to be retired first. A single server waits for 30 s.
//!
//! A marker is an entry whose kind is `lost` ([`Entry::lost`](crate::log::Entry::lost)), so vectors cover it, and followers
//! go past it. It never takes the place of anything: a server takes it from another one only where it has a hole, and a store
//! finds it only where it finds nothing sound. Any other content with that name takes its place, and is passed on to all.
//! Peers are asked for what is lost again and again, in case it has turned up there. What a live member has not sequenced
//! cannot be lost, so markers for it are taken from nobody else, and no more are taken than are remembered. So who makes up
//! markers delays by minutes entries that exist, and that reach a server after their markers; and a home that does so can do
//! worse.

use std::{collections::BTreeMap, ops::Bound};

use super::{
    Node, Party, Stage, Timer,
    rooms::{Room, Upstream},
    rot::{RANGES_MAX, Step},
};
use crate::{
    ids::{Origin, RoomName, ServerId},
    limits::PULL_ROTTEN_ID,
    log::Entry,
    session::SessionId,
    store::{LOST_MAX, Write},
    time::{Duration, Time},
    wire::frame::{Pull, Pulled},
};

/// For how long nobody must have had an entry, until it counts as lost.
const SPAN: Duration = Duration::from_secs(30);
/// How often peers are asked for what is lost.
const ASK_EVERY: Duration = Duration::from_mins(1);

/// Who has said that they lack an entry: at first, and at last.
#[derive(Debug, Default)]
pub(super) struct Denials(BTreeMap<Origin, (Time, Time)>);

impl Denials {
    fn hear(&mut self, peer: Origin, live: impl Iterator<Item = Origin>, now: Time) {
        let live: Vec<_> = live.collect();
        self.0.retain(|known, _| live.contains(known));
        if live.contains(&peer) {
            self.0.entry(peer).or_insert((now, now)).1 = now;
        }
    }

    /// Whether a peer has said so twice, long enough apart.
    fn is_sure(&self, peer: Origin) -> bool {
        self.0.get(&peer).is_some_and(|(first, last)| last.since(*first) >= SPAN)
    }
}

/// How far a room's lost entries were asked for.
#[derive(Debug)]
pub(super) struct Asked {
    /// When that is next done.
    at: Time,
    /// The last one that was asked for.
    last: Option<(Origin, u64)>,
}

impl Room {
    /// Whether we cannot produce an entry, and will not be able to by ourselves.
    fn lacks(&self, origin: Origin, seq: u64) -> bool {
        let is_marker = |kept: &crate::log::room::Kept| kept.entry.is_lost();
        if !self.held().holds(origin, seq) {
            return !self.receiver.has_stranded(origin, seq);
        }
        self.log.floors().holds(origin, seq)
            || self.log.get(origin, seq).map_or_else(
                || {
                    let is_rotten = self.rotten.get(origin, seq).is_some_and(|case| case.step != Step::Written);
                    is_rotten || self.lost.contains(&(origin, seq))
                },
                is_marker,
            )
    }
}

impl Node {
    /// What of a pull for rotten entries we lack too.
    pub(super) fn lacks(&self, pull: &Pull) -> Vec<(Origin, u64, u64)> {
        if pull.id != PULL_ROTTEN_ID {
            return Vec::new();
        }
        let room = self.rooms.get(&pull.room);
        let lacks = |&&(origin, seq, last): &&(Origin, u64, u64)| {
            seq == last && room.is_none_or(|room| room.lacks(origin, seq))
        };
        pull.want.iter().filter(lacks).take(RANGES_MAX).copied().collect()
    }

    /// A peer says what it lacks of what is rotten here.
    pub(super) fn on_lacks(&mut self, session: SessionId, pulled: &Pulled) {
        let Some(peer) = self.server_at(session) else { return };
        for &(origin, seq, _) in pulled.lacks.iter().take(RANGES_MAX) {
            let Some(room) = self.rooms.get_mut(&pulled.room) else { return };
            let Some(case) = room.rotten.get_mut(origin, seq) else { continue };
            case.denials.hear(peer, self.heartbeat.live(), self.now);
            self.give_up(&pulled.room, (origin, seq));
        }
    }

    /// The server at the other end of a session, in its boot.
    pub(super) fn server_at(&self, session: SessionId) -> Option<Origin> {
        match self.sessions.get(&session) {
            Some(Party::Server(id)) => self.peers.get(id).map(|peer| peer.origin),
            _ => None,
        }
    }

    /// Whether nobody can produce an entry that is rotten here: see above.
    pub(super) fn is_given_up(&self, name: &RoomName, (origin, seq): (Origin, u64)) -> bool {
        let Some(case) = self.rooms.get(name).and_then(|room| room.rotten.get(origin, seq)) else { return false };
        let live: Vec<_> = self.heartbeat.live().collect();
        let is_here = |id: ServerId| id == self.me.id || live.iter().any(|peer| peer.id == id);
        self.stage == Stage::Serving
            && self.now.since(case.since) >= SPAN
            && self.members.present().all(|member| member.memory || is_here(member.id))
            && live.iter().all(|peer| case.denials.is_sure(*peer))
    }

    /// Looks whether a rotten entry is to be given up: then it is read once more before it is.
    pub(super) fn give_up(&mut self, name: &RoomName, (origin, seq): (Origin, u64)) {
        if !self.is_given_up(name, (origin, seq)) {
            return;
        }
        let case = self.rooms.get_mut(name).and_then(|room| room.rotten.get_mut(origin, seq));
        if let Some(case) = case.filter(|case| case.step == Step::Asked) {
            case.step = Step::Read;
            self.read_again(name, origin, seq);
        }
    }

    /// An entry is lost.
    pub(super) fn lose(&mut self, name: &RoomName, origin: Origin, seq: u64) {
        if let Some(case) = self.rooms.get_mut(name).and_then(|room| room.rotten.get_mut(origin, seq)) {
            // If that cannot be written, it takes two more answers of each until it is tried again.
            case.step = Step::Written;
            case.denials = Denials::default();
            self.mending.loses(name, (origin, seq));
            let marker = Write::Lost { room: name.clone(), origin, seq };
            if !self.persist_and_read(marker, name, (origin, seq)) {
                self.mend_later(name, (origin, seq));
            }
        }
    }

    /// Whether a marker is taken that a server sends, or a client imports. One that is held already changes nothing.
    ///
    /// What a live member has not said that it has sequenced cannot be lost: a marker for it would count as a copy once it
    /// is. Only it may send that, and the home that we follow, which asks the same. And no more are taken than are
    /// remembered, since an entry takes the place only of those.
    pub(super) fn takes_marker(&mut self, entry: &Entry, from: Option<SessionId>) -> bool {
        let (origin, seq) = (entry.origin, entry.seq);
        let Some(room) = self.rooms.get(&entry.room) else { return false };
        if room.held().holds(origin, seq) {
            return true;
        }
        if room.lost.len() >= LOST_MAX {
            self.count("lost_full");
            return false;
        }
        let is_from_home = from.is_some()
            && match room.upstream {
                Upstream::Server { session, .. } => from == Some(session),
                Upstream::Opening => from == room.source,
                Upstream::Home | Upstream::Nowhere => false,
            };
        let is_said = is_from_home
            || from.and_then(|session| self.server_at(session)) == Some(origin)
            || room.holders.get(&origin).is_some_and(|kept| kept.holds(origin, seq));
        let is_ahead = !is_said && (origin == self.me || self.heartbeat.live().any(|peer| peer == origin));
        if is_ahead {
            self.count("lost_ahead");
            if let Some(room) = self.rooms.get_mut(&entry.room)
                && let Upstream::Server { session, .. } = room.upstream
            {
                // It is asked next.
                room.source = Some(session);
            }
        }
        !is_ahead
    }

    /// There is a marker in its place. Nobody is told that its post is stored: it is not, and comes again.
    pub(super) fn remember_lost(&mut self, name: &RoomName, origin: Origin, seq: u64) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let waiters = (origin, seq, SessionId(0))..=(origin, seq, SessionId(u32::MAX));
        room.waiters.extract_if(waiters, |_, _| true).for_each(drop);
        if room.lost.len() < LOST_MAX {
            room.lost.insert((origin, seq));
            let at = self.now + ASK_EVERY;
            self.mending.lost.entry(name.clone()).or_insert(Asked { at, last: None });
            self.timers.hasten(Timer::Mend(name.clone()), at);
        }
    }

    /// When a peer is next asked for what is lost.
    pub(super) fn next_lost(&self, name: &RoomName) -> Option<Time> {
        let is_any = self.rooms.get(name).is_some_and(|room| !room.lost.is_empty());
        self.mending.lost.get(name).filter(|_| is_any).map(|asked| asked.at)
    }

    /// Asks all peers for some of what is lost, where it is time: it may have turned up there.
    pub(super) fn ask_for_lost(&mut self, name: &RoomName) {
        let now = self.now;
        let Some(room) = self.rooms.get(name) else { return };
        if room.lost.is_empty() {
            self.mending.lost.remove(name);
        }
        if let Some(asked) = self.mending.lost.get_mut(name).filter(|asked| asked.at <= now) {
            let from = asked.last.map_or(Bound::Unbounded, Bound::Excluded);
            let beyond = room.lost.range((from, Bound::Unbounded)).take(RANGES_MAX).copied();
            let mut dots: Vec<_> = beyond.collect();
            if dots.is_empty() {
                dots = room.lost.iter().take(RANGES_MAX).copied().collect();
            }
            *asked = Asked { at: now + ASK_EVERY, last: dots.last().copied() };
            let peers: Vec<_> = self.heartbeat.live().map(|peer| peer.id).collect();
            for peer in peers {
                self.pull_rotten(peer, name, &dots);
            }
        }
    }
}
