//! Detours: the way to a home that we do not hear, or that does not hear us, while a live peer and it hear each other.
//!
//! ```text
//! client -- Post --> its server -- Post (detour) --> peer -- Post --> home
//! client <-- Ack --- its server <------- Ack ------- peer <-- Ack --- home
//!                    follows the room at the peer, which follows it at the home
//! ```
//!
//! There may be more peers than one on the way: each follows the room at the next, over which the fewest servers lie between
//! it and the home. None follows at one that follows at it, and a post counts down how many may pass it on: so nothing goes
//! round in circles. What a peer passes on, it remembers for a while, to know whom an acknowledgement is for; a post whose
//! acknowledgement gets lost is repeated by its client, as any other. Whoever hears the home again is followed here no
//! longer: its heartbeat says so.

use std::collections::{BTreeMap, BTreeSet};

use super::{Node, Party, posts, rooms::Upstream};
use crate::{
    ids::{DeviceId, Origin, PersonId, RoomName, ServerId},
    limits,
    session::SessionId,
    time::{Duration, Time},
    wire::frame::Post,
};

/// Posts that are passed on at a time; more are repeated by whoever posted them.
pub(super) const PASSED_MAX: usize = 16_384;
/// How long the acknowledgement of one is waited for.
const PASSED_SPAN: Duration = Duration::from_secs(30);

/// Whose acknowledgement it is, by room, author and number.
type Passed = BTreeMap<(RoomName, PersonId, DeviceId, u64), (SessionId, Time)>;

/// The detours that we take, and those that others take through us.
#[derive(Debug, Default)]
pub(super) struct Detours {
    /// Through which peer we reach a server that we do not hear.
    ways: BTreeMap<Origin, ServerId>,
    /// Who follows rooms here that are at home elsewhere.
    guests: BTreeSet<(ServerId, SessionId, RoomName)>,
    passed: Passed,
}

impl Detours {
    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.ways.is_empty()
    }

    /// How many acknowledgements of what was passed on are waited for.
    pub(super) fn passed(&self) -> usize {
        self.passed.len()
    }
}

impl Node {
    // ---- ours

    /// Looks how servers that we do not hear are reached; whether that has changed. A way that is as good as another is
    /// kept.
    pub(super) fn find_ways(&mut self) -> bool {
        if self.detours.is_empty() && self.heartbeat.unheard().next().is_none() {
            return false;
        }
        let way = |home: Origin| {
            let kept = self.detours.ways.get(&home).copied().filter(|by| self.heartbeat.is_detour(*by, home));
            Some((home, kept.or_else(|| self.detour(home))?))
        };
        let ways: BTreeMap<_, _> = self.heartbeat.unheard().filter_map(way).collect();
        let is_changed = ways != self.detours.ways;
        self.detours.ways = ways;
        is_changed
    }

    /// The server at which rooms of this home are followed: itself, where we hear each other.
    pub(super) fn way_to(&self, home: Origin) -> Option<ServerId> {
        if self.is_live(home) { Some(home.id) } else { self.detours.ways.get(&home).copied() }
    }

    /// The session that a room is followed at, and how many servers may pass on what goes there: none where it is one with
    /// its home.
    pub(super) fn session_towards_home(&self, name: &RoomName) -> Option<(SessionId, u8)> {
        let Upstream::Server { home, session, .. } = &self.rooms.get(name)?.upstream else { return None };
        let is_home = matches!(self.sessions.get(session), Some(Party::Server(id)) if *id == home.id);
        Some((*session, if is_home { 0 } else { limits::HOPS_MAX }))
    }

    /// Whether we follow a room at this server.
    fn is_followed_at(&self, name: &RoomName, id: ServerId) -> bool {
        let way = self.session_towards_home(name).and_then(|(session, _)| self.sessions.get(&session));
        matches!(way, Some(Party::Server(at)) if *at == id)
    }

    // ---- others'

    /// Another server wants to follow a room here that is at home elsewhere: whether it may.
    pub(super) fn welcome_guest(&mut self, session: SessionId, id: ServerId, name: &RoomName) -> bool {
        if self.room(name).is_some() {
            // In a large cluster we may not have followed it so far.
            self.settle_upstream(name);
        }
        let may = self.session_towards_home(name).is_some() && !self.is_followed_at(name, id);
        if may {
            self.detours.guests.insert((id, session, name.clone()));
        }
        may
    }

    /// A server has said whom it hears: where it hears a room's home itself, it follows the room there.
    pub(super) fn part_guests(&mut self, id: ServerId) {
        if self.detours.guests.is_empty() {
            return;
        }
        let Some(beat) = self.peers.get(&id).and_then(|peer| peer.beat.as_ref()) else { return };
        let from = (id, SessionId(0), RoomName::lobby());
        let guests = self.detours.guests.range(from..).take_while(|(guest, ..)| *guest == id);
        let is_over = |name: &RoomName| {
            let home = self.records.get(name).map(|record| record.fence.home);
            home.is_none_or(|home| beat.hears.iter().any(|heard| heard.both && heard.peer == home))
        };
        let over: Vec<_> = guests.filter(|(_, _, name)| is_over(name)).cloned().collect();
        for guest in over {
            let (_, session, name) = &guest;
            if self.records.get(name).is_none_or(|record| record.fence.home != self.me) {
                self.unfollow(*session, name);
            }
            self.detours.guests.remove(&guest);
        }
    }

    /// A session with a server is gone.
    pub(super) fn forget_guest(&mut self, session: SessionId) {
        self.detours.guests.retain(|(_, guest, _)| *guest != session);
    }

    /// Passes a post on to its home, for a server that does not reach it. Whether it could.
    pub(super) fn pass_on(&mut self, asker: SessionId, post: &Post) -> bool {
        let (Some((way, needed)), Some(author)) = (self.session_towards_home(&post.room), &post.author) else {
            return false;
        };
        let left = post.detour.min(limits::HOPS_MAX).saturating_sub(1).min(needed);
        if way == asker || (needed > 0 && left == 0) {
            self.count("detour_too_long");
            return false;
        }
        let key = (post.room.clone(), author.person, author.device, post.seq);
        if self.detours.passed.len() >= PASSED_MAX && !self.detours.passed.contains_key(&key) {
            self.count("detours_full");
            return true;
        }
        self.detours.passed.insert(key, (asker, self.now));
        let post = Post { detour: left, ..post.clone() };
        posts::send_forwarded(&mut self.endpoint, way, &post);
        true
    }

    /// The session that asked us to pass on a post which has now been answered from its home by this one. An answer that settles
    /// the post is the last one.
    pub(super) fn asker_of(
        &mut self,
        from: SessionId,
        key: &(RoomName, PersonId, DeviceId, u64),
        is_settled: bool,
    ) -> Option<SessionId> {
        if self.session_towards_home(&key.0).is_none_or(|(way, _)| way != from) {
            return None;
        }
        let passed = &mut self.detours.passed;
        let asker = if is_settled { passed.remove(key) } else { passed.get(key).copied() };
        asker.map(|(session, _)| session).filter(|session| *session != from)
    }

    /// Forgets what has waited for too long.
    pub(super) fn forget_passed(&mut self) {
        let now = self.now;
        self.detours.passed.retain(|_, (_, at)| now.since(*at) < PASSED_SPAN);
    }
}
