//! Rooms at a server: whom it follows, and how entries come in.
//!
//! A room has one home, which sequences it. Every other server that holds a copy follows the home exactly as a client
//! follows its server: it joins with its cursor, receives what is new, pulls what is missing, and acknowledges. What
//! arrives, from wherever, is pushed on to those that follow here (`followers`).

use std::collections::{BTreeMap, BTreeSet};

use super::{Node, Party, Timer, audience::Audience, handoff::Handoff, peers::Peer, rot::Rotten};
use crate::{
    delivery::receiver::Receiver,
    hlc::Hlc,
    ids::{DeviceId, Origin, PersonId, RoomName},
    limits,
    log::{Entry, RoomLog, VersionVector, room::Inserted},
    planted::{self, Bug},
    session::SessionId,
    time::{Duration, Time},
    wire::{
        Frame,
        frame::{Pulled, Start, Vectors},
        vectors,
    },
};

/// A join to the home is repeated after this, doubling up to [`JOIN_AGAIN_MAX`].
const JOIN_AGAIN: Duration = Duration::from_millis(50);
const JOIN_AGAIN_MAX: Duration = Duration::from_secs(1);

/// While cursors speak only of what has risen, all of it is said so often, since one that is lost is not said again.
const ALL_AGAIN: Duration = Duration::from_secs(1);

/// A room at this server.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) log: RoomLog,
    pub(super) receiver: Receiver,
    pub(super) followers: Audience,
    /// What the servers that follow it here have kept, each in its boot: who has lost its disk begins with nothing.
    pub(super) holders: BTreeMap<Origin, VersionVector>,
    /// What of what is held is on our disk, where we have one.
    pub(super) durable: Option<VersionVector>,
    pub(super) upstream: Upstream,
    /// There while the room moves from us to another server, or to us.
    pub(super) handoff: Option<Handoff>,
    /// The session that pulls go to.
    pub(super) source: Option<SessionId>,
    /// Entries whose posts are not stored yet, and which sessions to tell: a client that has moved posts again where it is
    /// now, and its first post may come after that.
    pub(super) waiters: BTreeMap<(Origin, u64, SessionId), Due>,
    pub(super) changed: Time,
    /// [`vectors::digest`] of what is held, or was when it was last needed: see [`Self::is_digest_old`].
    pub(super) digest: u64,
    /// Whether entries have come since.
    pub(super) is_digest_old: bool,
    pub(super) said: Said,
    /// Entries that are on disk, and are not what was written there.
    pub(super) rotten: Rotten,
    /// Entries that nobody has any more: in their places there are markers.
    pub(super) lost: BTreeSet<(Origin, u64)>,
}

/// What our home has been told that we have kept.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Where all was told last, and when.
    all: Option<(SessionId, Time)>,
    /// The origins of which there is more since the last cursor.
    risen: BTreeSet<Origin>,
}

impl Said {
    /// There is more of an origin.
    pub(super) fn rises(&mut self, origin: Origin) {
        self.risen.insert(origin);
    }

    /// What has been told may have got lost, or counts no more: all is told next.
    fn is_in_doubt(&mut self) {
        self.all = None;
    }

    /// Of which origins a cursor is to speak now; `None`: of all.
    fn next(&mut self, session: SessionId, now: Time) -> Option<BTreeSet<Origin>> {
        let risen = std::mem::take(&mut self.risen);
        let is_enough = self.all.is_some_and(|(to, at)| to == session && now.since(at) < ALL_AGAIN);
        if is_enough && !risen.is_empty() {
            return Some(risen);
        }
        self.all = Some((session, now));
        None
    }
}

/// What somebody is told of a post.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) person: PersonId,
    pub(super) device: DeviceId,
    pub(super) client_seq: u64,
    pub(super) hlc: Hlc,
}

impl Due {
    pub(super) fn of(entry: &Entry) -> Self {
        Self { person: entry.person, device: entry.device, client_seq: entry.client_seq, hlc: entry.hlc }
    }
}

/// Whom a room's entries come from.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Upstream {
    /// Nobody: it has no home that can be heard.
    Nowhere,
    /// This server is its home, but waits for what the last home sequenced: see `handoff`.
    Opening,
    /// This server sequences it.
    Home,
    /// Another server does.
    Server { home: Origin, session: SessionId, joined: bool, again: Duration },
}

impl Room {
    /// One of which nothing is known; `durable` is there where we have a disk.
    fn new(name: RoomName, durable: Option<VersionVector>, now: Time) -> Self {
        Self {
            log: RoomLog::default(),
            receiver: Receiver::new(name, VersionVector::default()),
            followers: Audience::default(),
            holders: BTreeMap::new(),
            durable,
            upstream: Upstream::Nowhere,
            handoff: None,
            source: None,
            waiters: BTreeMap::new(),
            changed: now,
            digest: 0,
            is_digest_old: false,
            said: Said::default(),
            rotten: Rotten::default(),
            lost: BTreeSet::new(),
        }
    }

    /// One that is on our disk.
    pub(super) fn restored(name: &RoomName, held: VersionVector, log: RoomLog, now: Time) -> Self {
        let digest = vectors::digest(name, &held);
        let receiver = Receiver::new(name.clone(), held.clone());
        Self { log, receiver, digest, ..Self::new(name.clone(), Some(held), now) }
    }

    /// What it holds.
    pub(super) fn held(&self) -> &VersionVector {
        self.receiver.held()
    }

    /// Makes [`Self::digest`] that of what it holds now. It is needed once a room is quiet, and costs as much as there are
    /// origins.
    pub(super) fn renew_digest(&mut self, name: &RoomName) {
        if std::mem::take(&mut self.is_digest_old) {
            self.digest = vectors::digest(name, self.receiver.held());
        }
    }

    /// What of that counts as kept: all, where we have no disk.
    pub(super) fn durable(&self) -> &VersionVector {
        self.durable.as_ref().unwrap_or(self.held())
    }

    /// A follower is gone, and with it what it held, unless it follows by another session too.
    pub(super) fn drop_follower(&mut self, session: SessionId) {
        if let Some(server) = self.followers.remove(session).and_then(|follower| follower.server)
            && !self.followers.iter().any(|(_, other)| other.server == Some(server))
        {
            self.holders.remove(&server);
        }
    }

    /// Whether a follower's join can be answered.
    pub(super) fn is_ready(&self) -> bool {
        matches!(self.upstream, Upstream::Home | Upstream::Server { joined: true, .. })
    }
}

impl Node {
    /// The room, made where it is not known yet and there is space for one more.
    pub(super) fn room(&mut self, name: &RoomName) -> Option<&mut Room> {
        if !self.rooms.contains_key(name) {
            if self.rooms.len() >= limits::ROOMS_MAX {
                self.count("rooms_full");
                return None;
            }
            let durable = self.kept.has_store().then(VersionVector::default);
            self.rooms.insert(name.clone(), Room::new(name.clone(), durable, self.now));
        }
        self.rooms.get_mut(name)
    }

    // ---- following others

    /// Decides anew whom a room is followed at, after its record or somebody's liveness has changed.
    pub(super) fn settle_upstream(&mut self, name: &RoomName) {
        let Some(record) = self.records.get(name) else { return };
        let home = record.fence.home;
        let wanted = if home == self.me { self.home_or_opening(name) } else { self.upstream_at(home) };
        let last = self.last_home(name);
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
        let was_home = matches!(room.upstream, Upstream::Home | Upstream::Opening);
        room.source = match &wanted {
            Upstream::Server { session, .. } => Some(*session),
            Upstream::Opening => last.map(|(_, session)| session),
            Upstream::Home | Upstream::Nowhere => None,
        };
        room.upstream = wanted;
        room.receiver.moved(now);
        match (room.upstream == Upstream::Home, last) {
            // The last home has died before it could tell us.
            (true, _) if was_home => return self.open_home(name),
            (true, _) => room.handoff = None,
            (false, Some((last, _))) if room.upstream == Upstream::Opening => self.await_handoff(name, last),
            (false, _) if was_home => self.close_home(name),
            (false, _) => {}
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

    /// The server that we followed the room at, or wait for, if it lives: it may hold what we do not.
    fn last_home(&self, name: &RoomName) -> Option<(Origin, SessionId)> {
        let room = self.rooms.get(name)?;
        let last = match (&room.upstream, &room.handoff) {
            (Upstream::Server { home, .. }, _) => *home,
            (Upstream::Opening, Some(handoff)) => handoff.awaited()?,
            _ => return None,
        };
        let session = self.peers.get(&last.id).filter(|peer| peer.origin == last).and_then(Peer::session)?;
        self.is_live(last).then_some((last, session))
    }

    /// How we are to be the home of a room: not before a live last home has told us what it sequenced.
    fn home_or_opening(&self, name: &RoomName) -> Upstream {
        let is_open = self.rooms.get(name).is_some_and(|room| room.upstream == Upstream::Home);
        if !is_open && self.last_home(name).is_some() { Upstream::Opening } else { Upstream::Home }
    }

    /// How the rooms of a home are followed: there, or at a peer that hears it where we do not.
    fn upstream_at(&self, home: Origin) -> Upstream {
        match self.way_to(home).and_then(|way| self.peers.get(&way)).and_then(Peer::session) {
            Some(session) => Upstream::Server { home, session, joined: false, again: JOIN_AGAIN },
            None => Upstream::Nowhere,
        }
    }

    /// Asks the home for the room, again and again until it answers.
    pub(super) fn join_upstream(&mut self, name: &RoomName) {
        let now = self.now;
        if self.is_no_copy() && self.is_stopping() {
            // Its clients are called away.
            return;
        }
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
        if let (Some(durable), true) = (&mut room.durable, planted::is(Bug::WipedDiskCounts) && !self.has_reopened) {
            durable.merge(heads);
        }
        // What we asked with counts for nothing there: that it is kept, an acknowledgement says.
        room.said.is_in_doubt();
        self.acks.entry(session).or_default().insert(name.clone());
        self.timers.clear(&Timer::Join(name.clone()));
        self.answer_joins(name);
        self.resend_relays_within(name, heads);
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
            if matches!(room.upstream, Upstream::Server { session: home, .. } if home == session) {
                // It says so where it has not heard all that we have kept.
                room.said.is_in_doubt();
            }
            self.wake_room(name);
        }
    }

    /// An entry has come from a server.
    pub(super) fn on_entry(&mut self, session: SessionId, entry: Entry) {
        if !entry.is_intact() || !matches!(self.sessions.get(&session), Some(Party::Server(_))) {
            self.count("entry_bad");
            return;
        }
        if !entry.is_bounded(self.cluster_millis()) {
            return self.count("entry_unbounded");
        }
        if self.kept.is_behind() {
            // It is pulled once the disk has caught up.
            return self.count("entry_too_soon");
        }
        let (name, now) = (entry.room.clone(), self.now);
        let me = self.me;
        let Some(room) = self.room(&name) else { return };
        if entry.origin == me && !room.held().holds(entry.origin, entry.seq) {
            // Nobody else may write our part.
            return self.count("entry_not_ours");
        }
        if self.mends(&entry, Some(session)) {
            return;
        }
        if entry.is_lost() && !self.takes_marker(&entry, Some(session)) {
            return;
        }
        let Some(room) = self.rooms.get_mut(&name) else { return };
        let ready = room.receiver.entry(entry, now);
        if let (false, None, &Upstream::Server { session: home, joined: true, .. }) =
            (ready.is_empty(), &room.durable, &room.upstream)
        {
            // Copies are counted by the home, and a person waits for them: they are told at once, where they count at once.
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
            // Another content with this name was told apart when it came: see `rot`.
            Inserted::Known | Inserted::Conflict { .. } => return,
            Inserted::Hole => return self.count("entry_hole"),
        }
        room.changed = now;
        room.is_digest_old = true;
        if room.durable.is_none() {
            room.said.rises(origin);
        }
        let Some(kept) = room.log.get(origin, seq).cloned() else { return };
        self.push(name, &kept, from);
        if kept.entry.is_lost() {
            self.remember_lost(name, origin, seq);
        }
        self.persist_entry(kept);
    }

    /// Sends a pull that is due and sets the room's timer.
    pub(super) fn wake_room(&mut self, name: &RoomName) {
        self.check_opening(name);
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

    /// Sends the acknowledgements that have gathered, all rooms of a session in as few frames as fit: of each room what has
    /// risen, or all where the home may not know that.
    pub(super) fn send_acks(&mut self) {
        if self.acks.is_empty() {
            return;
        }
        for (session, names) in std::mem::take(&mut self.acks) {
            if self.is_no_copy() {
                continue;
            }
            let now = self.now;
            let cursors: Vec<_> = names
                .into_iter()
                .filter_map(|name| {
                    let room = self.rooms.get_mut(&name)?;
                    let cursor = match room.said.next(session, now) {
                        Some(risen) => risen.into_iter().map(|origin| (origin, room.told_durable_of(origin))).collect(),
                        None => room.told_durable(),
                    };
                    Some((name, cursor))
                })
                .collect();
            for line in vectors::lines(cursors, |rooms| Frame::Cursor { rooms }) {
                self.endpoint.send(session, line.as_bytes());
            }
        }
    }

    /// The answer to a pull has ended.
    pub(super) fn on_pulled(&mut self, session: SessionId, pulled: &Pulled) {
        let now = self.now;
        if pulled.id == limits::PULL_ROTTEN_ID {
            return self.on_lacks(session, pulled);
        }
        self.hear_floors(session, pulled);
        if let Some(room) = self.rooms.get_mut(&pulled.room) {
            room.receiver.pulled(pulled, now);
            self.wake_room(&pulled.room);
        }
    }

    /// Lets go what waits in vain above holes.
    pub(super) fn let_go(&mut self) {
        if self.rooms.values().any(|room| room.receiver.stranded() > 0) {
            let now = self.now;
            self.rooms.values_mut().for_each(|room| room.receiver.let_go(now));
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Boot, ServerId};

    #[test]
    fn a_cursor_speaks_of_what_has_risen_and_now_and_then_of_all() {
        /// What happens at which millisecond: an origin rises, or heads come, or a cursor goes to a session. How many origins
        /// the last cursor speaks of; `None`: of all.
        enum Step {
            Rises(u64),
            Heads,
            Tells(u32),
        }
        use Step::{Heads, Rises, Tells};
        fn check(steps: &[(u64, Step)], expected: Option<usize>) {
            let (mut said, mut last) = (Said::default(), None);
            for (millis, step) in steps {
                match step {
                    Rises(boot) => said.rises(Origin { id: ServerId(1), boot: Boot(*boot) }),
                    Heads => said.is_in_doubt(),
                    Tells(session) => last = said.next(SessionId(*session), Time::from_micros(millis * 1_000)),
                }
            }
            assert_eq!(last.map(|risen| risen.len()), expected);
        }
        check(&[(1, Rises(1)), (1, Tells(1))], None);
        check(&[(1, Tells(1)), (2, Rises(1)), (2, Rises(2)), (2, Rises(1)), (3, Tells(1))], Some(2));
        check(&[(1, Tells(1)), (2, Rises(1)), (3, Tells(1)), (4, Rises(2)), (5, Tells(1))], Some(1));
        check(&[(1, Tells(1)), (2, Tells(1))], None);
        check(&[(1, Tells(1)), (2, Rises(1)), (3, Tells(2))], None);
        check(&[(1, Tells(1)), (2, Rises(1)), (2, Heads), (3, Tells(1))], None);
        check(&[(1, Tells(1)), (2_000, Rises(1)), (2_001, Tells(1))], None);
    }
}
