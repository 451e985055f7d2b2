//! Rooms at a server: whom it follows, who follows it, and how entries pass through.
//!
//! A room has one home, which sequences it. Every other server that holds a copy follows the home exactly as a client
//! follows its server: it joins with its cursor, receives what is new, pulls what is missing, and acknowledges. What
//! arrives, from wherever, is pushed on to those that follow here.

use std::collections::BTreeMap;

use super::{Node, Party, Timer, peers::Peer};
use crate::{
    delivery::receiver::Receiver,
    ids::{DeviceId, Origin, PersonId, RoomName, ServerId},
    limits,
    log::{
        Entry, RoomLog, VersionVector,
        room::{Inserted, Kept},
    },
    session::SessionId,
    time::{Duration, Time},
    wire::{
        Frame,
        frame::{FragmentOf, Post, Pull, Pulled, Start, Vectors},
        vectors,
    },
};

/// Heads are repeated to a follower that does not acknowledge: after this, doubling up to [`HEADS_AGAIN_MAX`].
const HEADS_AGAIN: Duration = Duration::from_millis(300);
const HEADS_AGAIN_MAX: Duration = Duration::from_secs(10);
/// A join to the home is repeated after this, doubling up to [`JOIN_AGAIN_MAX`].
const JOIN_AGAIN: Duration = Duration::from_millis(50);
const JOIN_AGAIN_MAX: Duration = Duration::from_secs(1);
/// A room counts as quiet, and so in the digest of logs, after this.
const QUIET: Duration = Duration::from_secs(2);

/// A room at this server.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) log: RoomLog,
    pub(super) receiver: Receiver,
    pub(super) followers: BTreeMap<SessionId, Follower>,
    /// What the servers that follow it here hold.
    holders: BTreeMap<ServerId, VersionVector>,
    pub(super) upstream: Upstream,
    /// The session that pulls go to.
    source: Option<SessionId>,
    /// Entries whose posts are not stored yet: which session to tell.
    pub(super) waiters: BTreeMap<(Origin, u64), SessionId>,
    /// Posts that came before an earlier one of their device.
    pub(super) early: BTreeMap<(PersonId, DeviceId), BTreeMap<u64, Post>>,
    changed: Time,
    /// [`vectors::digest`] of what is held.
    digest: u64,
}

/// Who follows a room here.
#[derive(Debug)]
pub(super) struct Follower {
    /// Not answered yet: from where it wants the room.
    awaiting: Option<Start>,
    /// What it has acknowledged: a long cursor comes in parts.
    acknowledged: VersionVector,
    /// Entries that it has not acknowledged.
    ahead: u64,
    /// Which server it is, if it is one.
    pub(super) server: Option<ServerId>,
}

/// Whom a room's entries come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Upstream {
    /// Nobody: it has no home that can be heard.
    Nowhere,
    /// This server sequences it.
    Home,
    /// Another server does.
    Server { home: Origin, session: SessionId, joined: bool, again: Duration },
}

impl Room {
    fn new(name: RoomName, now: Time) -> Self {
        Self {
            log: RoomLog::default(),
            receiver: Receiver::new(name, VersionVector::default()),
            followers: BTreeMap::new(),
            holders: BTreeMap::new(),
            upstream: Upstream::Nowhere,
            source: None,
            waiters: BTreeMap::new(),
            early: BTreeMap::new(),
            changed: now,
            digest: 0,
        }
    }

    /// What it holds.
    pub(super) fn held(&self) -> &VersionVector {
        self.receiver.held()
    }

    /// On how many servers the entry is, this one included.
    pub(super) fn copies(&self, origin: Origin, seq: u64) -> u32 {
        1 + self.holders.values().filter(|held| held.holds(origin, seq)).count() as u32
    }

    /// A follower is gone, and with it what it held, unless it follows by another session too.
    fn drop_follower(&mut self, session: SessionId) {
        if let Some(id) = self.followers.remove(&session).and_then(|follower| follower.server)
            && !self.followers.values().any(|other| other.server == Some(id))
        {
            self.holders.remove(&id);
        }
    }

    /// Whether a follower's join can be answered.
    fn is_ready(&self) -> bool {
        matches!(self.upstream, Upstream::Home | Upstream::Server { joined: true, .. })
    }
}

/// How many entries `held` has beyond `cursor`.
fn ahead(held: &VersionVector, cursor: &VersionVector) -> u64 {
    held.beyond(cursor).map(|(_, from, to)| to - from + 1).sum()
}

impl Node {
    /// The room, made where it is not known yet and there is space for one more.
    pub(super) fn room(&mut self, name: &RoomName) -> Option<&mut Room> {
        if !self.rooms.contains_key(name) {
            if self.rooms.len() >= limits::ROOMS_MAX {
                self.count("rooms_full");
                return None;
            }
            self.rooms.insert(name.clone(), Room::new(name.clone(), self.now));
        }
        self.rooms.get_mut(name)
    }

    // ---- following others

    /// Decides anew whom a room is followed at, after its record or somebody's liveness has changed.
    pub(super) fn settle_upstream(&mut self, name: &RoomName) {
        let Some(record) = self.records.get(name) else { return };
        let home = record.fence.home;
        let wanted = if home == self.me { Upstream::Home } else { self.upstream_at(home) };
        let now = self.now;
        let Some(room) = self.room(name) else { return };
        let same = match (&room.upstream, &wanted) {
            (Upstream::Server { home, session, .. }, Upstream::Server { home: new, session: other, .. }) => {
                home == new && session == other
            }
            (now, wanted) => now == wanted,
        };
        if same {
            return;
        }
        let was_home = room.upstream == Upstream::Home;
        room.source = match &wanted {
            Upstream::Server { session, .. } => Some(*session),
            Upstream::Home | Upstream::Nowhere => None,
        };
        room.upstream = wanted;
        room.receiver.moved(now);
        if was_home {
            room.waiters.clear();
            room.early.clear();
            let servers: Vec<_> =
                room.followers.iter().filter(|(_, f)| f.server.is_some()).map(|(session, _)| *session).collect();
            for session in servers {
                self.unfollow(session, name);
            }
        }
        match self.rooms.get(name).map(|room| &room.upstream) {
            Some(Upstream::Home) => {
                self.answer_joins(name);
                self.resend_relays(name);
            }
            Some(Upstream::Server { .. }) => {
                self.timers.set(Timer::Join(name.clone()), now);
                self.resend_relays(name);
            }
            _ => {}
        }
        self.wake_room(name);
    }

    /// The home, though it may be the same, may have been another in between, and have dropped us as a follower.
    pub(super) fn rejoin(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        if let Upstream::Server { joined, again, .. } = &mut room.upstream {
            (*joined, *again) = (false, JOIN_AGAIN);
            self.timers.set(Timer::Join(name.clone()), self.now);
        }
    }

    fn upstream_at(&self, home: Origin) -> Upstream {
        match self.peers.get(&home.id).filter(|peer| peer.origin == home).and_then(Peer::session) {
            Some(session) if self.is_live(home) => Upstream::Server { home, session, joined: false, again: JOIN_AGAIN },
            _ => Upstream::Nowhere,
        }
    }

    /// Asks the home for the room, again and again until it answers.
    pub(super) fn join_upstream(&mut self, name: &RoomName) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Upstream::Server { session, joined: false, again, .. } = &mut room.upstream else { return };
        let (session, wait) = (*session, *again);
        *again = (*again * 2).min(JOIN_AGAIN_MAX);
        let from = Start::After(vectors::fitting(room.receiver.held()));
        self.say(session, &Frame::Join { room: name.clone(), from });
        self.timers.set(Timer::Join(name.clone()), now + wait);
    }

    /// The home has answered, with one of several frames if the room has many origins. Each says something by itself, and
    /// heads say again what gets lost of them, so none waits for the others.
    pub(super) fn on_joined(&mut self, session: SessionId, name: &RoomName, heads: &VersionVector) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Upstream::Server { session: expected, joined, .. } = &mut room.upstream else { return };
        if *expected != session {
            return;
        }
        *joined = true;
        room.source = Some(session);
        room.receiver.heads(heads, now);
        self.timers.clear(&Timer::Join(name.clone()));
        self.answer_joins(name);
        self.wake_room(name);
    }

    /// Somebody holds, or says that there is, so much of a room.
    pub(super) fn on_heads(&mut self, session: SessionId, rooms: &Vectors) {
        let now = self.now;
        for (name, heads) in rooms {
            let Some(room) = self.rooms.get_mut(name) else { continue };
            let more = heads.beyond(room.receiver.held()).next().is_some();
            if more && (room.receiver.is_complete() || room.source.is_none()) {
                room.source = Some(session);
            }
            room.receiver.heads(heads, now);
            self.wake_room(name);
        }
    }

    /// An entry has come from a server.
    pub(super) fn on_entry(&mut self, session: SessionId, entry: Entry) {
        if !entry.is_intact() || !matches!(self.sessions.get(&session), Some(Party::Server(_))) {
            self.count("entry_bad");
            return;
        }
        let (name, now) = (entry.room.clone(), self.now);
        let me = self.me;
        let Some(room) = self.room(&name) else { return };
        if entry.origin == me && !room.held().holds(entry.origin, entry.seq) {
            // Nobody else may write our part.
            return self.count("entry_not_ours");
        }
        let ready = room.receiver.entry(entry, now);
        if let (false, &Upstream::Server { session: home, joined: true, .. }) = (ready.is_empty(), &room.upstream) {
            // Copies are counted by the home, and a person waits for them: they are told at once.
            self.acks.entry(home).or_default().insert(name.clone());
        }
        for entry in ready {
            self.keep(&name, entry, Some(session));
        }
        self.wake_room(&name);
    }

    /// Puts an entry that has no hole before it into the log, and passes it on.
    pub(super) fn keep(&mut self, name: &RoomName, entry: Entry, from: Option<SessionId>) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(name) else { return };
        let (origin, seq) = (entry.origin, entry.seq);
        match room.log.insert(entry) {
            Inserted::New => {}
            Inserted::Known => return,
            Inserted::Conflict { .. } => return self.count("entry_conflict"),
            Inserted::Hole => return self.count("entry_hole"),
        }
        room.changed = now;
        room.digest = vectors::digest(name, room.receiver.held());
        let Some(kept) = room.log.get(origin, seq).cloned() else { return };
        self.push(name, &kept, from);
    }

    /// Passes a new entry on to all who follow the room here.
    fn push(&mut self, name: &RoomName, kept: &Kept, from: Option<SessionId>) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let mut deliveries = 0;
        for (&session, follower) in &mut room.followers {
            if follower.awaiting.is_some() || (Some(session) == from && follower.server.is_some()) {
                continue;
            }
            follower.ahead += 1;
            if follower.ahead <= limits::PUSH_AHEAD_MAX {
                self.endpoint.send_large(session, || fragment_of(&kept.entry), &kept.line);
                deliveries += u64::from(follower.server.is_none());
            }
            if !self.timers.is_set(&Timer::Heads(session)) {
                self.timers.set(Timer::Heads(session), self.now + HEADS_AGAIN);
            }
        }
        self.load.delivered(deliveries);
    }

    /// Sends a pull that is due and sets the room's timer.
    pub(super) fn wake_room(&mut self, name: &RoomName) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(name) else { return };
        // A join carries the cursor, so what cannot be acknowledged now need not be later.
        if room.receiver.poll_ack(now)
            && let Upstream::Server { session, joined: true, .. } = room.upstream
        {
            self.acks.entry(session).or_default().insert(name.clone());
        }
        let Some(source) = room.source else { return self.timers.clear(&Timer::Room(name.clone())) };
        if let Some(pull) = room.receiver.poll_pull(now, &mut self.rng) {
            self.endpoint.send(source, Frame::Pull(pull).to_line().as_bytes());
        }
        match room.receiver.deadline() {
            Some(at) => self.timers.set(Timer::Room(name.clone()), at.max(now + Duration::from_millis(1))),
            None => self.timers.clear(&Timer::Room(name.clone())),
        }
    }

    /// Sends the acknowledgements that have gathered, all rooms of a session in as few frames as fit.
    pub(super) fn send_acks(&mut self) {
        for (session, names) in std::mem::take(&mut self.acks) {
            let cursors = names.iter().filter_map(|name| {
                let room = self.rooms.get(name)?;
                Some((name.clone(), room.held().clone()))
            });
            for line in vectors::lines(cursors, |rooms| Frame::Cursor { rooms }) {
                self.endpoint.send(session, line.as_bytes());
            }
        }
    }

    /// The answer to a pull has ended.
    pub(super) fn on_pulled(&mut self, pulled: &Pulled) {
        let now = self.now;
        if let Some(room) = self.rooms.get_mut(&pulled.room) {
            room.receiver.pulled(pulled, now);
            self.wake_room(&pulled.room);
        }
    }

    // ---- being followed

    /// A client or a server wants to follow a room.
    pub(super) fn on_join(&mut self, session: SessionId, name: &RoomName, from: Start) {
        let server = match self.sessions.get(&session) {
            Some(Party::Server(id)) => Some(*id),
            Some(Party::Client(client)) if client.is_served() => None,
            _ => return self.count("frame_out_of_place"),
        };
        if server.is_some() && self.records.get(name).is_none_or(|record| record.fence.home != self.me) {
            // The asker's directory or ours is behind: tell it what we know.
            if let Some(record) = self.records.get(name).cloned() {
                self.say(session, &Frame::Rooms { rooms: vec![record] });
            }
            return;
        }
        let followed = self.follows.entry(session).or_default();
        if !followed.contains(name) && server.is_none() && followed.len() >= limits::ROOMS_PER_CLIENT_MAX {
            return self.count("rooms_per_client_full");
        }
        followed.insert(name.clone());
        let cursor = match &from {
            Start::After(cursor) => cursor.clone(),
            Start::Last(_) | Start::Since(_) => VersionVector::default(),
        };
        let Some(room) = self.room(name) else { return };
        let follower = Follower { awaiting: Some(from), acknowledged: cursor.clone(), ahead: 0, server };
        let is_new = room.followers.insert(session, follower).is_none();
        if let Some(id) = server {
            room.holders.insert(id, cursor.clone());
            self.learn_from(session, name, &cursor);
            self.check_stored(name, &cursor);
        } else if is_new {
            self.client_rooms_changed(session);
        }
        if self.records.get(name).is_none() {
            self.ask_place(name);
        }
        self.settle_upstream(name);
        self.answer_joins(name);
    }

    /// Answers all joins of a room that can be answered now.
    pub(super) fn answer_joins(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get_mut(name).filter(|room| room.is_ready()) else { return };
        let held = room.receiver.held();
        let mut answers = Vec::new();
        for (&session, follower) in &mut room.followers {
            let Some(from) = follower.awaiting.take() else { continue };
            let start = match from {
                Start::After(cursor) => cursor,
                Start::Last(count) => room.log.start_of_last(count, held),
                Start::Since(millis) => room.log.start_since(millis, held),
            };
            follower.ahead = ahead(held, &start);
            answers.push((session, start, follower.ahead > 0));
        }
        let answers: Vec<_> = answers
            .into_iter()
            .map(|(session, start, behind)| (session, vectors::joined(name, &start, held), behind))
            .collect();
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
        for (name, cursor) in rooms {
            let Some(room) = self.rooms.get_mut(&name) else { continue };
            if is_server && room.upstream == Upstream::Home && !room.followers.contains_key(&session) {
                // It heard sooner than we did that the room is ours.
                self.on_join(session, &name, Start::After(cursor));
                continue;
            }
            let Some(follower) = room.followers.get_mut(&session) else { continue };
            follower.acknowledged.merge(&cursor);
            follower.ahead = ahead(room.receiver.held(), &follower.acknowledged);
            if let Some(id) = follower.server {
                room.holders.entry(id).or_default().merge(&cursor);
                self.learn_from(session, &name, &cursor);
                self.check_stored(&name, &cursor);
            }
        }
        self.heads_backoff.remove(&session);
        let behind = self.behind(session);
        let timer = Timer::Heads(session);
        if behind.is_empty() { self.timers.clear(&timer) } else { self.timers.set(timer, self.now + HEADS_AGAIN) }
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
            let follower = self.rooms.get(name).and_then(|room| room.followers.get(&session));
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
        let Some(room) = self.rooms.get(&pull.room) else { return };
        let max = pull.max.min(limits::PULL_ENTRIES_MAX) as usize;
        let found = room.log.ranges(&pull.want, max, limits::PULL_BYTES_MAX);
        let top = pull.want.iter().map(|&(origin, ..)| (origin, room.held().get(origin))).collect();
        for kept in &found {
            self.endpoint.send_large(session, || fragment_of(&kept.entry), &kept.line);
        }
        let sent = found.len() as u32;
        self.say(session, &Frame::Pulled(Pulled { room: pull.room.clone(), id: pull.id, sent, top }));
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
        for name in self.follows.remove(&session).unwrap_or_default() {
            if let Some(room) = self.rooms.get_mut(&name) {
                room.drop_follower(session);
            }
        }
        self.timers.clear(&Timer::Heads(session));
        self.heads_backoff.remove(&session);
    }

    /// A session with a server is gone: what was pulled there is pulled elsewhere.
    pub(super) fn lose_source(&mut self, session: SessionId) {
        let sourced: Vec<_> =
            self.rooms.iter().filter(|(_, room)| room.source == Some(session)).map(|(name, _)| name.clone()).collect();
        for name in sourced {
            let now = self.now;
            if let Some(room) = self.rooms.get_mut(&name) {
                room.source = match room.upstream {
                    Upstream::Server { session, .. } => Some(session),
                    _ => None,
                };
                room.receiver.moved(now);
            }
        }
    }

    // ---- anti-entropy

    /// Digest of what is held of rooms that have been quiet for a while: 53 bits.
    pub(super) fn logs_digest(&self) -> u64 {
        let quiet = self.rooms.iter().filter(|(_, room)| !room.log.is_empty() && self.now.since(room.changed) > QUIET);
        quiet.fold(0, |digest, (_, room)| digest ^ room.digest)
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
        self.on_heads(session, rooms);
    }
}

/// What the fragments of an entry's line are named after.
fn fragment_of(entry: &Entry) -> FragmentOf {
    FragmentOf::Entry(entry.room.clone(), entry.origin, entry.seq)
}
