//! Handing a room over while its home is alive: when a server leaves, when the leader evens out loads, when two halves of a
//! cluster meet.
//!
//! ```text
//!   last home                              new home
//!      | <------ assign: the room is yours ----> |   from the leader, to all
//!   closes, forwards                          opening: keeps posts, sequences none
//!      | ------- handoff: what I hold ---------> |   repeated for up to 2 s
//!      | <------ pull, if anything is missing -- |
//!      | <------ handed ------------------------ |   open: those that waited are admitted
//! ```
//!
//! A home that has closed sequences nothing more, so what it says that it holds is all that it ever sequenced. The new home
//! knows each of those posts by its author, device and number before it sequences anything itself, so a post that was sent
//! to both gets one dot. Nobody waits for long: after [`OPENING_MAX`] the new home goes on without the last one, and a post
//! under two dots is then shown once, as after a partition. Where the last home is dead, there is nothing to wait for.

use std::collections::{BTreeMap, VecDeque};

use super::{Node, Party, Timer, rooms::Upstream};
use crate::{
    hlc::Hlc,
    ids::{DeviceId, Origin, PersonId, RoomName, ServerId},
    limits,
    log::{Entry, VersionVector},
    session::SessionId,
    time::{Duration, Time},
    wire::{
        Frame,
        frame::{Author, Fence, Post, Vectors},
        vectors,
    },
};

/// How long a new home waits for what the last one sequenced.
const OPENING_MAX: Duration = Duration::from_millis(300);
/// How long the last home goes on telling what it holds.
const CLOSING_MAX: Duration = Duration::from_secs(2);
/// Between two repetitions, on both sides.
const AGAIN: Duration = Duration::from_millis(50);
/// Posts that wait for an opening in one room; more are repeated by whoever posted them.
const WAITING_MAX: usize = 1_024;
/// Bytes of their bodies.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// A room that moves, as one of the two homes sees it.
#[derive(Debug)]
pub(super) enum Handoff {
    /// We were its home and have closed.
    Closing {
        /// When.
        since: Time,
        /// Under which fence: what a home before the new one answers does not count.
        fence: Fence,
        /// What the home before us held: we may have closed before we had it all.
        heads: VersionVector,
    },
    /// We are about to be its home.
    Opening(Box<Opening>),
}

/// What a server says that closed a room.
#[derive(Clone, Debug)]
pub(super) struct Told {
    /// Under which fence the room is another's.
    pub(super) fence: Fence,
    /// What it holds of the room, or a part of that.
    pub(super) heads: VersionVector,
    /// How many origins all of it has.
    pub(super) origins: u32,
}

/// What a new home waits for.
#[derive(Debug)]
pub(super) struct Opening {
    last: Origin,
    /// Since which fence the room is ours: what was said of an earlier closing does not count.
    fence: Fence,
    until: Time,
    /// What the last home says that it holds, and how many origins that has; `None` until it has said anything.
    heads: VersionVector,
    origins: Option<usize>,
    /// Who is to hear that the room is open.
    told_by: Option<SessionId>,
    posts: VecDeque<(SessionId, Post)>,
    bytes: usize,
}

impl Handoff {
    /// The home that we wait for, if we do.
    pub(super) fn awaited(&self) -> Option<Origin> {
        match self {
            Self::Opening(opening) => Some(opening.last),
            Self::Closing { .. } => None,
        }
    }
}

impl Opening {
    fn new(last: Origin, fence: Fence, until: Time) -> Self {
        Self {
            last,
            fence,
            until,
            heads: VersionVector::default(),
            origins: None,
            told_by: None,
            posts: VecDeque::new(),
            bytes: 0,
        }
    }

    /// A server says what it held when it closed the room; whether that is what we wait for.
    fn hear(&mut self, from: Origin, session: SessionId, told: &Told) -> bool {
        if from != self.last || told.fence < self.fence {
            return false;
        }
        if self.heads.origins() < limits::ORIGINS_MAX {
            self.heads.merge(&told.heads);
        }
        self.origins = Some(self.origins.unwrap_or_default().max(told.origins as usize));
        self.told_by = Some(session);
        true
    }

    /// Whether all that the last home sequenced is held.
    fn is_complete(&self, held: &VersionVector) -> bool {
        self.origins.is_some_and(|origins| self.heads.origins() >= origins) && held.covers(&self.heads)
    }
}

impl Node {
    // ---- the last home

    /// We are the home no longer: sequences nothing more, and tells the new home what there is. Posts that are not settled
    /// are posts of our clients that another server sequences.
    pub(super) fn close_home(&mut self, name: &RoomName) {
        let now = self.now;
        let Some(fence) = self.records.get(name).map(|record| record.fence) else { return };
        let Some(room) = self.rooms.get_mut(name) else { return };
        let heads = match room.handoff.take() {
            Some(Handoff::Opening(opening)) => opening.heads,
            Some(Handoff::Closing { .. }) | None => VersionVector::default(),
        };
        room.handoff = Some(Handoff::Closing { since: now, fence, heads });
        let (waiters, early) = (std::mem::take(&mut room.waiters), self.early.take_room(name));
        let accepted =
            waiters.into_keys().filter_map(|(origin, seq, _)| Some(repost(&room.log.get(origin, seq)?.entry)));
        let mut posts: BTreeMap<(PersonId, DeviceId), BTreeMap<u64, Post>> = BTreeMap::new();
        for post in accepted.chain(early) {
            let Some(author) = &post.author else { continue };
            posts.entry((author.person, author.device)).or_default().insert(post.seq, post);
        }
        let servers: Vec<_> =
            room.followers.iter().filter(|(_, f)| f.server.is_some()).map(|(session, _)| session).collect();
        for session in servers {
            self.unfollow(session, name);
        }
        for ((person, device), posts) in posts {
            // What came through other servers, these send to the new home themselves.
            if self.devices.contains_key(&(person, device)) {
                let oldest = posts.keys().next().copied().unwrap_or_default();
                for mut post in posts.into_values() {
                    post.oldest = post.oldest.min(oldest);
                    if !self.relays.insert(post, now) {
                        self.count("relays_full");
                    }
                }
            }
        }
        // With the next turn: what made us close, if it was our own word, then goes out before.
        self.timers.set(Timer::Handoff(name.clone()), now);
    }

    /// The new home has heard that it is the home, perhaps later than what we told it then: tells it at once.
    pub(super) fn repeat_handoff(&mut self, name: &RoomName) {
        if self.rooms.get(name).is_some_and(|room| matches!(room.handoff, Some(Handoff::Closing { .. }))) {
            self.timers.set(Timer::Handoff(name.clone()), self.now);
        }
    }

    /// Tells the new home what we hold, until it says that it heard.
    fn tell_heads(&mut self, name: &RoomName) {
        let Some(record) = self.records.get(name) else { return };
        let Some(room) = self.rooms.get(name) else { return };
        let Some(Handoff::Closing { heads, .. }) = &room.handoff else { return };
        let mut all = room.held().clone();
        all.merge(heads);
        let (home, frames) = (record.fence.home, vectors::handoff(name, record.fence, &all));
        if self.is_live(home) {
            for frame in frames {
                self.tell(home.id, &frame);
            }
        }
    }

    /// The new home is open.
    pub(super) fn on_handed(&mut self, id: ServerId, name: &RoomName, fence: Fence) {
        let is_home = self.records.get(name).is_some_and(|record| record.fence.home == fence.home);
        if !is_home || self.peers.get(&id).is_none_or(|peer| peer.origin != fence.home) {
            return self.count("handed_by_another");
        }
        let Some(room) = self.rooms.get_mut(name) else { return };
        if let Some(Handoff::Closing { fence: closed, .. }) = room.handoff
            && fence >= closed
        {
            room.handoff = None;
            self.timers.clear(&Timer::Handoff(name.clone()));
            self.hasten_leave();
        }
    }

    /// Whether the new home of a room that was ours may still need us.
    pub(super) fn is_handing_over(&self) -> bool {
        self.rooms.values().any(|room| matches!(room.handoff, Some(Handoff::Closing { .. })))
    }

    // ---- the new home

    /// We are to be the home after `last`, which lives.
    pub(super) fn await_handoff(&mut self, name: &RoomName, last: Origin) {
        let until = self.now + OPENING_MAX;
        let Some(fence) = self.records.get(name).map(|record| record.fence) else { return };
        let Some(room) = self.rooms.get_mut(name) else { return };
        room.handoff = Some(Handoff::Opening(Box::new(Opening::new(last, fence, until))));
        self.timers.clear(&Timer::Join(name.clone()));
        self.step_handoff(name);
    }

    /// A server says what it held when it closed a room of ours.
    pub(super) fn on_handoff(&mut self, session: SessionId, id: ServerId, name: &RoomName, told: &Told) {
        let Some(from) = self.peers.get(&id).map(|peer| peer.origin) else { return };
        let Some(record) = self.records.get(name).cloned() else { return };
        if record.fence.home != self.me {
            // Its directory or ours is behind.
            return self.say(session, &Frame::Rooms { rooms: vec![record] });
        }
        let Some(room) = self.rooms.get_mut(name) else { return };
        let is_awaited = match &mut room.handoff {
            Some(Handoff::Opening(opening)) if room.upstream == Upstream::Opening => opening.hear(from, session, told),
            _ => false,
        };
        if is_awaited {
            room.source = Some(session);
            room.receiver.heads(&told.heads, self.now);
            return self.wake_room(name);
        }
        if room.upstream == Upstream::Home {
            self.say(session, &Frame::Handed { room: name.clone(), fence: record.fence });
        }
        self.on_heads(session, &Vectors::from([(name.clone(), told.heads.clone())]));
    }

    /// Keeps a post that another server has forwarded until the room is open.
    pub(super) fn hold(&mut self, session: SessionId, post: Post) {
        let Some(room) = self.rooms.get_mut(&post.room) else { return };
        let Some(Handoff::Opening(opening)) = &mut room.handoff else { return };
        if opening.posts.len() < WAITING_MAX && opening.bytes + post.body.len() <= WAITING_BYTES_MAX {
            opening.bytes += post.body.len();
            opening.posts.push_back((session, post));
        } else {
            self.count("opening_full");
        }
    }

    /// Opens the room, if all is there that its last home sequenced.
    pub(super) fn check_opening(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get(name).filter(|room| room.upstream == Upstream::Opening) else { return };
        if let Some(Handoff::Opening(opening)) = &room.handoff
            && opening.is_complete(room.held())
        {
            self.open_home(name);
        }
    }

    /// Sequences from now on; those that waited go first.
    pub(super) fn open_home(&mut self, name: &RoomName) {
        let Some(record) = self.records.get(name) else { return };
        let fence = record.fence;
        let Some(room) = self.rooms.get_mut(name) else { return };
        room.upstream = Upstream::Home;
        room.source = None;
        let handoff = room.handoff.take();
        self.timers.clear(&Timer::Handoff(name.clone()));
        self.answer_joins(name);
        self.resend_relays(name);
        if let Some(Handoff::Opening(opening)) = handoff {
            if let Some(session) = opening.told_by {
                self.say(session, &Frame::Handed { room: name.clone(), fence });
            }
            for (session, post) in opening.posts {
                if matches!(self.sessions.get(&session), Some(Party::Server(_))) {
                    self.on_post(session, post);
                }
            }
        }
        self.wake_room(name);
    }

    // ---- both

    /// The next repetition, or the end of patience.
    pub(super) fn step_handoff(&mut self, name: &RoomName) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(name) else { return };
        match &room.handoff {
            None => {}
            Some(Handoff::Closing { since, .. }) if now.since(*since) >= CLOSING_MAX => {
                room.handoff = None;
                self.hasten_leave();
            }
            Some(Handoff::Closing { .. }) => {
                self.tell_heads(name);
                self.timers.set(Timer::Handoff(name.clone()), now + AGAIN);
            }
            Some(Handoff::Opening(opening)) if opening.until <= now => {
                self.count("opened_without_the_last_home");
                self.open_home(name);
            }
            Some(Handoff::Opening(opening)) => {
                // The leader's word may not have reached it.
                let (last, until) = (opening.last, opening.until);
                if let Some(record) = self.records.get(name).cloned() {
                    self.tell(last.id, &Frame::Rooms { rooms: vec![record] });
                }
                self.timers.set(Timer::Handoff(name.clone()), until.min(now + AGAIN));
            }
        }
    }
}

/// A post that says the same as an entry that was made of it.
fn repost(entry: &Entry) -> Post {
    Post {
        room: entry.room.clone(),
        seq: entry.client_seq,
        oldest: entry.client_seq,
        shown: Hlc::default(),
        kind: entry.kind.to_string(),
        body: entry.body.to_string(),
        detour: 0,
        author: Some(Author {
            name: entry.from.clone(),
            person: entry.person,
            device: entry.device,
            vouched: Hlc::default(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ids::Boot, wire::frame::Epoch};

    const LAST: Origin = Origin { id: ServerId(1), boot: Boot(11) };
    const OTHER: Origin = Origin { id: ServerId(2), boot: Boot(12) };
    const ME: Origin = Origin { id: ServerId(3), boot: Boot(13) };

    fn fence(n: u64) -> Fence {
        Fence { epoch: Epoch { term: 1, leader: OTHER.id, boot: OTHER.boot }, n, home: ME }
    }

    fn held(seq: u64) -> VersionVector {
        [(LAST, seq)].into_iter().collect()
    }

    #[test]
    fn only_the_last_home_opens_a_room_and_not_by_what_it_said_of_an_earlier_closing() {
        /// Whether who holds so much opens a room after so many were told.
        fn check(told: &[(Origin, u64, u64)], holds: u64, opens: bool) {
            let mut opening = Opening::new(LAST, fence(5), Time::ZERO);
            for &(from, n, seq) in told {
                opening.hear(from, SessionId(1), &Told { fence: fence(n), heads: held(seq), origins: 1 });
            }
            assert_eq!(opening.is_complete(&held(holds)), opens, "{told:?}, {holds} are held");
        }
        check(&[], 9, false);
        check(&[(LAST, 5, 7)], 7, true);
        check(&[(LAST, 6, 7)], 7, true);
        check(&[(LAST, 5, 7)], 6, false);
        check(&[(LAST, 3, 7)], 7, false);
        check(&[(LAST, 3, 7), (LAST, 5, 9)], 7, false);
        check(&[(OTHER, 5, 7)], 7, false);
        check(&[(LAST, 5, 7), (OTHER, 5, 1_000)], 7, true);
    }
}
