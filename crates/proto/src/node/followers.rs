//! Being followed: who follows a room at this server, and how entries get to them.
//!
//! A follower joins with its cursor, is pushed what is new, pulls what it lacks, and acknowledges. Where it does not, the
//! heads are repeated until it does, or its session ends: the log is the retransmit buffer. Servers that follow their home
//! also say what they hold beyond it, and servers whose logs have differed for a while compare them.

use super::{
    Node, Party, Timer,
    rooms::{Room, Upstream},
};
use crate::{
    ids::{Origin, RoomName},
    limits,
    log::{Entry, VersionVector, room::Kept},
    session::SessionId,
    time::Duration,
    wire::{
        Frame,
        frame::{FragmentOf, Pull, Start, Vectors},
        vectors,
    },
};

/// Heads are repeated to a follower that does not acknowledge: after this, doubling up to [`HEADS_AGAIN_MAX`].
const HEADS_AGAIN: Duration = Duration::from_millis(300);
const HEADS_AGAIN_MAX: Duration = Duration::from_secs(10);
/// So many origins that we hold nothing of are remembered of what one member has of a room.
const UNKNOWN_MAX: usize = 4_096;
/// A room counts as quiet, and so in the digest of logs, after this.
const QUIET: Duration = Duration::from_secs(2);

/// Who follows a room here.
#[derive(Debug)]
pub(super) struct Follower {
    /// Not answered yet: from where it wants the room.
    awaiting: Option<Box<Start>>,
    /// What it has acknowledged: a long cursor comes in parts.
    acknowledged: VersionVector,
    /// Entries that it has not acknowledged.
    ahead: u64,
    /// Which server it is, if it is one, in which boot.
    pub(super) server: Option<Origin>,
}

impl Follower {
    /// One that wants the room `from` there and has not been answered yet.
    pub(super) fn new(from: Start, acknowledged: VersionVector, server: Option<Origin>) -> Self {
        Self { awaiting: Some(Box::new(from)), acknowledged, ahead: 0, server }
    }

    /// It is answered that its part of the room, wanted `from` there, begins there; unless it wants another by now.
    pub(super) fn begin_after(&mut self, from: &Start, cursor: VersionVector) {
        if self.awaiting.as_deref() == Some(from) {
            self.awaiting = Some(Box::new(Start::After(cursor)));
        }
    }
}

/// What of a cursor is worth keeping beside what was said before: of a client, what there is; of a member also so many
/// origins that are not here yet.
fn worth(cursor: &VersionVector, held: &VersionVector, said: &VersionVector, is_server: bool) -> VersionVector {
    let mut unknown =
        if is_server { UNKNOWN_MAX.saturating_sub(said.origins().saturating_sub(held.origins())) } else { 0 };
    let is_worth = |(origin, _): &(Origin, u64)| {
        held.get(*origin) > 0 || said.get(*origin) > 0 || unknown.checked_sub(1).map(|left| unknown = left).is_some()
    };
    cursor.iter().filter(is_worth).collect()
}

impl Room {
    /// Who follows it here and has not acknowledged all.
    pub(super) fn behind(&self) -> impl Iterator<Item = SessionId> {
        self.followers.iter().filter(|(_, follower)| follower.ahead > 0).map(|(session, _)| session)
    }
}

impl Node {
    /// Passes a new entry on to all who follow the room here.
    pub(super) fn push(&mut self, name: &RoomName, kept: &Kept, from: Option<SessionId>) {
        let Some(room) = self.rooms.get_mut(name).filter(|room| !room.followers.is_empty()) else { return };
        let before = kept.entry.seq.checked_sub(1).and_then(|seq| room.log.get(kept.entry.origin, seq));
        let line = self.endpoint.put_entry(kept, before.map(|before| &*before.entry));
        let mut deliveries = 0;
        for (session, follower) in room.followers.iter_mut() {
            if follower.awaiting.is_some() || (Some(session) == from && follower.server.is_some()) {
                continue;
            }
            follower.ahead += 1;
            if follower.ahead <= limits::PUSH_AHEAD_MAX {
                match line {
                    Some(line) => self.endpoint.send_put(session, line),
                    None => self.endpoint.send_large(session, || fragment_of(&kept.entry), &kept.line),
                }
                deliveries += u64::from(follower.server.is_none());
            }
            // Where it was behind before, its timer is set already.
            if follower.ahead == 1 && !self.timers.is_set(&Timer::Heads(session)) {
                self.timers.set(Timer::Heads(session), self.now + HEADS_AGAIN);
            }
        }
        self.load.delivered(deliveries);
    }

    /// A client or a server wants to follow a room.
    pub(super) fn on_join(&mut self, session: SessionId, name: &RoomName, from: Start) {
        let server = match self.sessions.get(&session) {
            Some(Party::Server(id)) => match self.peers.get(id) {
                Some(peer) => Some(peer.origin),
                None => return self.count("frame_out_of_place"),
            },
            Some(Party::Client(client)) if client.is_served() => None,
            _ => return self.count("frame_out_of_place"),
        };
        if let Some(Origin { id, .. }) = server
            && self.records.get(name).is_none_or(|record| record.fence.home != self.me)
        {
            // The asker does not hear the home, or its directory or ours is behind: tell it what we know.
            if let Some(record) = self.records.get(name).cloned() {
                self.say(session, &Frame::Rooms { rooms: vec![record] });
            }
            if !self.welcome_guest(session, id, name) {
                return;
            }
        }
        // All who follow a room share its name.
        let known = self.rooms.get_key_value(name).map(|(known, _)| known);
        let followed = self.follows.entry(session).or_default();
        if !followed.contains(name) && server.is_none() && followed.len() >= limits::ROOMS_PER_CLIENT_MAX {
            return self.count("rooms_per_client_full");
        }
        followed.insert(known.unwrap_or(name).clone());
        let cursor = match &from {
            Start::After(cursor) => cursor.clone(),
            Start::Last(_) | Start::Since(_) => VersionVector::default(),
        };
        let Some(room) = self.room(name) else { return };
        let is_new = room.followers.insert(session, Follower::new(from, cursor.clone(), server));
        if server.is_some() {
            // What it holds, it need not have kept: that, its cursor says.
            self.learn_from(session, name, &cursor);
        } else if is_new {
            self.client_rooms_changed(session);
        }
        if self.records.get(name).is_none() {
            self.ask_place(name);
        }
        self.settle_upstream(name);
        // Whoever came before has been answered, or will be when the room is ready.
        let awaiting = self.rooms.get(name).and_then(|room| room.followers.get(session)?.awaiting.as_deref().cloned());
        self.answer_some(name, awaiting.map(|from| (session, from)).into_iter().collect());
    }

    /// Answers all joins of a room that can be answered now.
    pub(super) fn answer_joins(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get(name) else { return };
        let awaiting = room.followers.iter().filter_map(|(session, f)| Some((session, f.awaiting.as_deref()?.clone())));
        self.answer_some(name, awaiting.collect());
    }

    /// Answers these joins, if the room is ready.
    fn answer_some(&mut self, name: &RoomName, awaiting: Vec<(SessionId, Start)>) {
        if !self.rooms.get(name).is_some_and(Room::is_ready) {
            return;
        }
        let mut answers = Vec::new();
        for (session, from) in awaiting {
            let Some(start) = self.start_of(session, name, &from) else { continue };
            let Some(room) = self.rooms.get_mut(name) else { return };
            let held = room.receiver.held();
            let Some(follower) = room.followers.get_mut(session) else { continue };
            follower.awaiting = None;
            follower.ahead = held.count_beyond(&start);
            answers.push((session, vectors::joined(name, &start, held), follower.ahead > 0));
        }
        for (session, parts, behind) in answers {
            for part in parts {
                self.say(session, &part);
            }
            if behind && !self.timers.is_set(&Timer::Heads(session)) {
                self.timers.set(Timer::Heads(session), self.now + HEADS_AGAIN);
            }
        }
    }

    /// A follower acknowledges.
    pub(super) fn on_cursor(&mut self, session: SessionId, rooms: Vectors) {
        let is_server = matches!(self.sessions.get(&session), Some(Party::Server(_)));
        let mut is_news = false;
        for (name, cursor) in rooms {
            let cursor = self.clipped(&name, cursor);
            let Some(room) = self.rooms.get_mut(&name) else { continue };
            if is_server && room.upstream == Upstream::Home && room.followers.get(session).is_none() {
                // It heard sooner than we did that the room is ours.
                self.on_join(session, &name, Start::After(cursor.clone()));
            }
            let Some(room) = self.rooms.get_mut(&name) else { continue };
            let Some(follower) = room.followers.get_mut(session) else { continue };
            let held = room.receiver.held();
            let is_member = follower.server.is_some();
            let news = worth(&cursor, held, &follower.acknowledged, is_member);
            is_news |= !follower.acknowledged.covers(&news);
            follower.acknowledged.merge(&news);
            follower.ahead = held.count_beyond(&follower.acknowledged);
            if let Some(server) = follower.server {
                let kept = room.holders.entry(server).or_default();
                let news = worth(&cursor, held, kept, true);
                kept.merge(&news);
                self.learn_from(session, &name, &cursor);
                self.tell_waiters(&name, cursor.iter().map(|(origin, top)| (origin, 0, top)), false);
            }
        }
        let timer = Timer::Heads(session);
        if self.behind(session).is_empty() {
            self.heads_backoff.remove(&session);
            self.timers.clear(&timer);
        } else if is_news || !self.timers.is_set(&timer) {
            // Who has nothing new to say has heard us, and waits for its disk: it is reminded less and less.
            self.heads_backoff.remove(&session);
            self.timers.set(timer, self.now + HEADS_AGAIN);
        }
    }

    /// What somebody says that they hold, without what they cannot have: entries of ours that we have not sequenced. It would
    /// count as a copy of those once we have.
    fn clipped(&self, name: &RoomName, cursor: VersionVector) -> VersionVector {
        let ours = self.rooms.get(name).map_or(0, |room| room.held().get(self.me));
        if cursor.get(self.me) <= ours {
            return cursor;
        }
        cursor.iter().map(|(origin, top)| (origin, if origin == self.me { ours } else { top })).collect()
    }

    /// Where a following server holds more than we do, pull it: after a partition both sides have something.
    fn learn_from(&mut self, session: SessionId, name: &RoomName, cursor: &VersionVector) {
        let Some(room) = self.rooms.get(name) else { return };
        if cursor.beyond(room.held()).next().is_some() {
            self.on_heads(session, &Vectors::from([(name.clone(), cursor.clone())]));
        }
    }

    /// The rooms that a session has not acknowledged in full.
    fn behind(&self, session: SessionId) -> Vec<RoomName> {
        let Some(names) = self.follows.get(&session) else { return Vec::new() };
        let is_behind = |name: &&RoomName| {
            let follower = self.rooms.get(name).and_then(|room| room.followers.get(session));
            follower.is_some_and(|follower| follower.ahead > 0)
        };
        names.iter().filter(is_behind).cloned().collect()
    }

    /// No acknowledgement for a while: says what there is, so that a lost tail is noticed.
    pub(super) fn repeat_heads(&mut self, session: SessionId) {
        let behind = self.behind(session);
        if behind.is_empty() || self.endpoint.addr(session).is_none() {
            self.heads_backoff.remove(&session);
            return;
        }
        let heads = behind.into_iter().filter_map(|name| self.rooms.get(&name).map(|room| (name, room.held().clone())));
        for line in vectors::lines(heads, |rooms| Frame::Heads { rooms }) {
            self.endpoint.send(session, line.as_bytes());
        }
        let backoff = self.heads_backoff.entry(session).or_insert(HEADS_AGAIN);
        *backoff = (*backoff * 2).min(HEADS_AGAIN_MAX);
        self.timers.set(Timer::Heads(session), self.now + *backoff);
    }

    /// Somebody wants ranges of a log.
    pub(super) fn on_pull(&mut self, session: SessionId, pull: &Pull) {
        let may = match self.sessions.get(&session) {
            Some(Party::Server(_)) => true,
            Some(Party::Client(_)) => self.follows.get(&session).is_some_and(|rooms| rooms.contains(&pull.room)),
            Some(Party::Rival(_)) | None => false,
        };
        if !may {
            return self.count("frame_out_of_place");
        }
        self.serve_pull(session, pull);
    }

    /// Sends wanted entries.
    pub(super) fn send_entries(&mut self, session: SessionId, entries: &[Kept]) {
        let mut before: Option<&Entry> = None;
        for kept in entries {
            match self.endpoint.put_entry(kept, before) {
                Some(line) => self.endpoint.send_put(session, line),
                None => self.endpoint.send_large(session, || fragment_of(&kept.entry), &kept.line),
            }
            before = Some(&kept.entry);
        }
    }

    /// A session follows a room no longer.
    pub(super) fn unfollow(&mut self, session: SessionId, name: &RoomName) {
        if let Some(room) = self.rooms.get_mut(name) {
            room.drop_follower(session);
        }
        if let Some(names) = self.follows.get_mut(&session) {
            names.remove(name);
        }
    }

    /// A session is gone.
    pub(super) fn unfollow_all(&mut self, session: SessionId) {
        for name in self.follows.remove(&session).unwrap_or_default().iter() {
            if let Some(room) = self.rooms.get_mut(name) {
                room.drop_follower(session);
            }
        }
        self.forget_guest(session);
        self.imports.remove(&session);
        self.forget_waiters(session);
        self.reads.forget(session);
        self.timers.clear(&Timer::Heads(session));
        self.heads_backoff.remove(&session);
    }

    /// Digest of what is held of rooms that have been quiet for a while: 53 bits.
    pub(super) fn logs_digest(&mut self) -> u64 {
        let now = self.now;
        let is_quiet = |room: &Room| !room.log.is_empty() && now.since(room.changed) > QUIET;
        // Nearly always nothing has changed since the last time.
        if self.rooms.values().any(|room| is_quiet(room) && room.is_digest_old) {
            self.rooms.iter_mut().filter(|(_, room)| is_quiet(room)).for_each(|(name, room)| room.renew_digest(name));
        }
        self.rooms.values().filter(|room| is_quiet(room)).fold(0, |digest, room| digest ^ room.digest)
    }

    /// Our logs have differed from a peer's for a while: says what we hold.
    pub(super) fn compare_with(&mut self, session: SessionId) {
        let held = self.rooms.iter().filter(|(_, room)| !room.log.is_empty());
        let held: Vec<_> = held.map(|(name, room)| (name.clone(), room.held().clone())).collect();
        for line in vectors::lines(held, |rooms| Frame::Compare { rooms }) {
            self.endpoint.send(session, line.as_bytes());
        }
    }

    /// A peer says what it holds of some rooms: answers what we hold of them, and pulls what we lack.
    pub(super) fn on_compare(&mut self, session: SessionId, rooms: &Vectors) {
        for name in rooms.keys() {
            self.room(name);
        }
        let mine: Vec<_> =
            rooms.keys().filter_map(|name| Some((name.clone(), self.rooms.get(name)?.held().clone()))).collect();
        for line in vectors::lines(mine, |rooms| Frame::Heads { rooms }) {
            self.endpoint.send(session, line.as_bytes());
        }
        let kept = rooms.keys().filter_map(|name| Some((name.clone(), self.rooms.get(name)?.told_durable())));
        for line in vectors::lines(kept, |rooms| Frame::Keeps { rooms }) {
            self.endpoint.send(session, line.as_bytes());
        }
        self.on_heads(session, rooms);
    }
}

/// What the fragments of an entry's line are named after.
fn fragment_of(entry: &Entry) -> FragmentOf {
    FragmentOf::Entry(entry.room.clone(), entry.origin, entry.seq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Boot, ServerId};

    #[test]
    fn a_cursor_fills_no_memory() {
        fn check(is_server: bool, expected: usize) {
            let vector = |range: std::ops::Range<u64>| -> VersionVector {
                range.map(|boot| (Origin { id: ServerId(1), boot: Boot(boot) }, 9)).collect()
            };
            let (held, mut said) = (vector(0..10), VersionVector::default());
            for from in 0..900 {
                said.merge(&worth(&vector(from * 9..from * 9 + 9), &held, &said, is_server));
            }
            assert_eq!(said.origins(), expected, "{is_server}");
            assert!(said.covers(&held));
        }
        check(false, 10);
        check(true, 10 + UNKNOWN_MAX);
    }
}
