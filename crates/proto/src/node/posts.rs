//! Posts: from a client to the home of its room, and the acknowledgements back.
//!
//! ```text
//! client -- Post --> its server -- Post (with author) --> home: dot, HLC, push to all followers
//! client <-- Ack --- its server <------- Ack ------------ home: accepted, once it is on its disk; later stored
//! ```
//!
//! A post is repeated by its client until it is settled, so nothing here has to be: a server that is not the home keeps a
//! post until the home says that it is stored, and sends it again when the room gets another home. That one then knows
//! whom to tell, and nobody waits for the client's own repetition. A post that comes twice is known by its author, their
//! device and its number.

use super::{
    Node, Party, Timer,
    waiting::{Device, OVERHEAD},
};
use crate::{
    ids::{DeviceId, Origin, PersonId, RoomName},
    limits,
    log::{Entry, Hash, PostKey, VersionVector, entry::MESSAGE, room::Standing},
    node::{
        copies::Verdict,
        rooms::{Due, Upstream},
    },
    planted::{self, Bug},
    session::{Endpoint, SessionId},
    time::Duration,
    wire::{
        Frame,
        frame::{Ack, Author, FragmentOf, Post, Refusal, Refuse},
    },
};

/// Posts of one device that wait at a home for an earlier one.
const EARLY_MAX: u64 = 64;
/// How long a post is kept, for an earlier one or for its home, though its client does not repeat it: that has gone, or the
/// word that it is stored got lost after the client had heard it. A client repeats what is not settled four times as often.
const KEPT_SPAN: Duration = Duration::from_secs(20);

/// How long a new home has to pull what we hold, before it is asked about posts among that.
const RESEND: Duration = Duration::from_millis(250);
/// Bytes of posts that go there at once, and how long after that more do: a session takes so much, and no more.
const RESEND_BYTES: usize = 64 * 1024;
const RESEND_PACE: Duration = Duration::from_millis(50);

impl Node {
    /// A client, or a server on behalf of one, posts.
    pub(super) fn on_post(&mut self, session: SessionId, mut post: Post) {
        match self.sessions.get(&session) {
            Some(Party::Server(_)) if post.author.is_some() => {}
            Some(Party::Client(client)) if client.is_served() => {
                let vouched = self.rooms.get(&post.room).map(|room| room.log.newest()).unwrap_or_default();
                let (name, person, device) = (client.name.clone(), client.person, client.device);
                post.author = Some(Author { name, person, device, vouched });
            }
            _ => return self.count("frame_out_of_place"),
        }
        let refusal = if post.body.len() > limits::BODY_BYTES_MAX {
            Some(Refusal::TooLong)
        } else if post.kind != MESSAGE {
            Some(Refusal::UnknownKind)
        } else {
            None
        };
        if let Some(why) = refusal {
            return self.refuse(session, &post, why);
        }
        if self.room(&post.room).is_none() {
            return;
        }
        if self.records.get(&post.room).is_none() {
            self.ask_place(&post.room);
        }
        self.route(session, post);
    }

    /// Sequences a post where the room is ours, and sends it on its way where it is not.
    pub(super) fn route(&mut self, session: SessionId, post: Post) {
        let Some(room) = self.rooms.get(&post.room) else { return };
        let is_forwarded = matches!(self.sessions.get(&session), Some(Party::Server(_)));
        match (room.upstream == Upstream::Home, is_forwarded) {
            (true, _) => self.admit(session, post),
            (false, true) if room.upstream == Upstream::Opening => self.hold(session, post),
            (false, true) if post.detour > 0 && self.pass_on(session, &post) => {}
            (false, true) => self.point_home(session, &post.room),
            (false, false) => self.relay(post),
        }
    }

    /// Tells a server that takes us for a home what we know better.
    fn point_home(&mut self, session: SessionId, room: &RoomName) {
        if let Some(record) = self.records.get(room).cloned() {
            self.say(session, &Frame::Rooms { rooms: vec![record] });
        }
    }

    /// Keeps a post until its home has stored it, and sends it there.
    fn relay(&mut self, post: Post) {
        // The home may be about to get it from our log.
        if !(self.timers.is_set(&Timer::Resend(post.room.clone())) && self.is_held(&post)) {
            self.forward(&post);
        }
        if !self.relays.insert(post, self.now) {
            self.count("relays_full");
        }
    }

    /// Sends a post on its way to its home: there, or to the peer at which we follow it.
    fn forward(&mut self, post: &Post) {
        let Some((session, detour)) = self.session_towards_home(&post.room) else { return };
        send_forwarded(&mut self.endpoint, session, &Post { detour, ..post.clone() });
    }

    /// Whether a post of ours is in the log already. Then its home is to get it from there before it is asked what has
    /// become of it: else it would sequence it once more.
    fn is_held(&self, post: &Post) -> bool {
        let Some(author) = &post.author else { return false };
        let key = PostKey { person: author.person, device: author.device, client_seq: post.seq };
        self.rooms.get(&post.room).is_some_and(|room| room.log.any_of_post(key).is_some())
    }

    /// The room has a new home: what the last one had not stored goes there.
    pub(super) fn resend_relays(&mut self, name: &RoomName) {
        self.resent.remove(name);
        if self.rooms.get(name).is_some_and(|room| room.upstream == Upstream::Home) {
            for post in self.relays.take_room(name) {
                let Some(author) = &post.author else { continue };
                if let Some(&session) = self.devices.get(&(author.person, author.device)) {
                    self.admit(session, post);
                }
            }
        } else {
            // The new home may not know yet that it is, and so drop what comes now: all of it is asked about once more.
            if self.relays.of_room(name).next().is_some() {
                self.timers.set(Timer::Resend(name.clone()), self.now + RESEND);
            }
            let (posts, _) = batch(self.relays.of_room(name).filter(|post| !self.is_held(post)));
            for post in posts {
                self.forward(&post);
            }
        }
    }

    /// The home has had time to pull from us what it lacks: asks it what has become of posts that are not stored.
    pub(super) fn resend_all_relays(&mut self, name: &RoomName) {
        let ((person, device), from) = self.resent.remove(name).unwrap_or(((PersonId([0; 16]), DeviceId(0)), 0));
        let (posts, next) = batch(self.relays.after(name, (person, device), from));
        if let Some(next) = next {
            self.resent.insert(name.clone(), next);
            self.timers.set(Timer::Resend(name.clone()), self.now + RESEND_PACE);
        }
        for post in posts {
            self.forward(&post);
        }
    }

    /// The home holds all this: what it holds of our posts it can say at once.
    pub(super) fn resend_relays_within(&mut self, name: &RoomName, heads: &VersionVector) {
        if !self.timers.is_set(&Timer::Resend(name.clone())) {
            return;
        }
        let Some(room) = self.rooms.get(name) else { return };
        let is_there = |post: &&Post| {
            let key = post.author.as_ref().map(|author| PostKey {
                person: author.person,
                device: author.device,
                client_seq: post.seq,
            });
            key.and_then(|key| room.log.any_of_post(key)).is_some_and(|(_, origin, seq)| heads.holds(origin, seq))
        };
        let (posts, _) = batch(self.relays.of_room(name).filter(is_there));
        for post in posts {
            self.forward(&post);
        }
    }

    /// At the home: sequences a post, or finds that it has been.
    pub(super) fn admit(&mut self, session: SessionId, post: Post) {
        let Some(author) = post.author.clone() else { return };
        let Some(room) = self.rooms.get_mut(&post.room) else { return };
        let key = PostKey { person: author.person, device: author.device, client_seq: post.seq };
        room.log.named(author.person, author.device, post.oldest);
        let next = match room.log.standing(key, post.oldest.max(1)) {
            Standing::Held(held) if held.says(&post.kind, &post.body) || planted::is(Bug::DuplicateOfAnotherBody) => {
                let (hlc, origin, seq) = held.order;
                let due = Due { person: author.person, device: author.device, client_seq: post.seq, hlc };
                return self.acknowledge(&post.room, origin, seq, session, due);
            }
            Standing::Held(_) => return self.refuse(session, &post, Refusal::Clash),
            Standing::Unknown { from } => return self.look_up(session, post, (author.person, author.device), from),
            Standing::Missing { next } => next,
        };
        if !self.kept.is_writable() {
            return self.refuse(session, &post, Refusal::CannotStore);
        }
        if !self.kept.is_me_durable() || self.kept.is_behind() {
            // It is repeated, and by then we may write under our name, and have written what came before.
            return self.count("post_too_soon");
        }
        if post.seq > next {
            if post.seq - next > EARLY_MAX || !self.early.insert(post, self.now) {
                self.count("early_full");
            }
            return;
        }
        if post.seq < next {
            // Below the oldest that is unsettled: an echo of something settled long ago.
            return self.count("post_stale");
        }
        let name = post.room.clone();
        self.sequence(session, post, &author);
        self.admit_early(session, &name, &author, next + 1);
    }

    /// Posts that had to wait for the one that has just been admitted.
    fn admit_early(&mut self, session: SessionId, name: &RoomName, author: &Author, next: u64) {
        let device = (author.person, author.device);
        self.early.remove_below(name, device, next);
        if let Some(post) = self.early.remove(name, device, next) {
            self.admit(session, post);
        }
    }

    /// Forgets posts that nobody has repeated for long.
    pub(super) fn forget_unrepeated(&mut self) {
        self.early.expire(self.now, KEPT_SPAN);
        self.relays.expire(self.now, KEPT_SPAN);
    }

    /// A session is gone, or not where its client is any more: nothing is to be said there of what gets stored.
    pub(super) fn forget_waiters(&mut self, session: SessionId) {
        for name in self.waited.remove(&session).unwrap_or_default() {
            if let Some(room) = self.rooms.get_mut(&name) {
                room.waiters.retain(|(.., other), _| *other != session);
            }
        }
    }

    /// Makes an entry of a post.
    fn sequence(&mut self, session: SessionId, post: Post, author: &Author) {
        let now_millis = self.cluster_millis();
        let Some(room) = self.rooms.get_mut(&post.room) else { return };
        let mut claim = post.shown;
        claim.millis = claim.millis.min(now_millis + limits::CLAIM_AHEAD_MAX.as_millis() as u64);
        let seen = room.log.newest().max(author.vouched).max(claim);
        let mut entry = Entry {
            room: post.room.clone(),
            origin: self.me,
            seq: room.held().get(self.me) + 1,
            hlc: seen.next(now_millis),
            from: author.name.clone(),
            person: author.person,
            device: author.device,
            client_seq: post.seq,
            kind: post.kind.into(),
            body: post.body.into(),
            hash: Hash::default(),
        };
        entry.hash = entry.digest();
        room.receiver.note(&entry);
        let (seq, due) = (entry.seq, Due::of(&entry));
        self.keep(&post.room, entry, None);
        if self.kept.has_store() {
            // Nobody can have kept it yet.
            self.await_copies(&post.room, self.me, seq, session, due);
        } else {
            self.acknowledge(&post.room, self.me, seq, session, due);
        }
    }

    /// Tells how it stands with a post, and remembers whom to tell more: *accepted* once it is on our own disk, *stored*
    /// once it has enough copies, wherever they are.
    fn acknowledge(&mut self, name: &RoomName, origin: Origin, seq: u64, session: SessionId, due: Due) {
        let Some(room) = self.rooms.get(name) else { return };
        let is_ours = room.durable().holds(origin, seq);
        let counted = self.counted(room);
        let verdict = counted.of(origin, seq);
        if !verdict.stored {
            self.await_copies(name, origin, seq, session, due);
        }
        if verdict.stored || is_ours {
            self.send_ack(name, (origin, seq, session), due, verdict);
        }
    }

    /// Somebody is to hear more of an entry.
    fn await_copies(&mut self, name: &RoomName, origin: Origin, seq: u64, session: SessionId, due: Due) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        room.waiters.insert((origin, seq, session), due);
        self.waited.entry(session).or_default().insert(name.clone());
    }

    /// Entries of these ranges (origin, first, last) are on one more disk: tells those who wait for one of them that it has
    /// enough copies now; and, where the disk is `ours`, that it is accepted.
    pub(super) fn tell_waiters(
        &mut self,
        name: &RoomName,
        ranges: impl Iterator<Item = (Origin, u64, u64)>,
        ours: bool,
    ) {
        let Some(room) = self.rooms.get(name).filter(|room| !room.waiters.is_empty()) else { return };
        let counted = self.counted(room);
        let waiters = ranges.filter(|(_, from, to)| from <= to).flat_map(|(origin, from, to)| {
            room.waiters.range((origin, from, SessionId(0))..=(origin, to, SessionId(u32::MAX)))
        });
        let told = waiters.map(|(waiter, due)| (*waiter, *due, counted.of(waiter.0, waiter.1)));
        let told: Vec<_> = told.filter(|(.., verdict)| verdict.stored || ours).collect();
        for (waiter, due, verdict) in told {
            if verdict.stored
                && let Some(room) = self.rooms.get_mut(name)
            {
                room.waiters.remove(&waiter);
            }
            self.send_ack(name, waiter, due, verdict);
        }
    }

    fn send_ack(&mut self, name: &RoomName, waiter: (Origin, u64, SessionId), due: Due, verdict: Verdict) {
        let (origin, entry, session) = waiter;
        let to = matches!(self.sessions.get(&session), Some(Party::Server(_))).then_some((due.person, due.device));
        let Verdict { copies, stored, durable } = verdict;
        let (room, seq, hlc) = (name.clone(), due.client_seq, due.hlc);
        self.say(session, &Frame::Ack(Ack { room, seq, origin, entry, hlc, copies, stored, durable, to }));
    }

    pub(super) fn refuse(&mut self, session: SessionId, post: &Post, why: Refusal) {
        let is_server = matches!(self.sessions.get(&session), Some(Party::Server(_)));
        let to = post.author.as_ref().filter(|_| is_server).map(|author| (author.person, author.device));
        self.say(session, &Frame::Refuse(Refuse { room: post.room.clone(), seq: post.seq, why, to }));
    }

    /// A home has answered for a client of ours, or for one of a server that does not hear it.
    pub(super) fn on_ack(&mut self, from: SessionId, mut ack: Ack) {
        let Some((person, device)) = ack.to else { return self.count("frame_out_of_place") };
        if let Some(asker) = self.asker_of(from, &(ack.room.clone(), person, device, ack.seq), ack.stored) {
            self.say(asker, &Frame::Ack(ack.clone()));
        }
        ack.to = None;
        if ack.stored {
            self.relays.remove(&ack.room, (person, device), ack.seq);
        }
        if let Some(&session) = self.devices.get(&(person, device)) {
            self.say(session, &Frame::Ack(ack));
        }
    }

    /// A home has refused such a post. Where it only cannot write, the post is kept for the next home.
    pub(super) fn on_refuse(&mut self, from: SessionId, mut refuse: Refuse) {
        let Some((person, device)) = refuse.to else { return self.count("frame_out_of_place") };
        let is_settled = refuse.why != Refusal::CannotStore;
        if let Some(asker) = self.asker_of(from, &(refuse.room.clone(), person, device, refuse.seq), is_settled) {
            self.say(asker, &Frame::Refuse(refuse.clone()));
        }
        refuse.to = None;
        if is_settled {
            self.relays.remove(&refuse.room, (person, device), refuse.seq);
        }
        if let Some(&session) = self.devices.get(&(person, device)) {
            self.say(session, &Frame::Refuse(refuse));
        }
    }
}

/// As many of these posts as are sent at once, and at which one the rest begins.
fn batch<'a>(posts: impl Iterator<Item = &'a Post>) -> (Vec<Post>, Option<(Device, u64)>) {
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for post in posts {
        let Some(author) = &post.author else { continue };
        if bytes >= RESEND_BYTES {
            return (batch, Some(((author.person, author.device), post.seq)));
        }
        bytes += post.body.len() + OVERHEAD;
        batch.push(post.clone());
    }
    (batch, None)
}

/// Sends a post to another server.
pub(super) fn send_forwarded(endpoint: &mut Endpoint, to: SessionId, post: &Post) {
    let Some(author) = &post.author else { return };
    let of = || FragmentOf::Forwarded(post.room.clone(), author.person, author.device, post.seq);
    endpoint.send_large(to, of, &Frame::Post(post.clone()).to_line());
}
