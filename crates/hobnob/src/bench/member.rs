//! One client of the bench: comes, follows a room, and posts if it is to.

use std::{collections::BTreeMap, time::Duration};

use hobnob_proto::{
    ids::{DeviceId, RoomName},
    rng::Rng,
    session::{Endpoint, SessionId, keys::KeyPair},
    time::Time,
    wire::Frame,
};

use crate::bench::{
    follow::{self, Follow, Taken},
    says::{self, AGAIN},
    tally::Tally,
};

/// How often an idle session is kept alive, +-20 %: as the real client does.
const KEEPALIVE: Duration = Duration::from_secs(25);
/// Posts that go out in one turn at most.
const POSTS_PER_TURN: usize = 256;

/// How a member posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Talk {
    /// Not at all.
    Silent,
    /// A line each so often.
    Every(Duration),
    /// As many at a time as may be under way: a post is until its author has got it back.
    Window(u64),
}

/// What a member is to do.
#[derive(Clone, Debug)]
pub(super) struct Role {
    /// Its number among all.
    pub(super) number: usize,
    /// The room that it follows.
    pub(super) room: RoomName,
    /// How many follow that room.
    pub(super) company: u64,
    /// How it posts there.
    pub(super) talk: Talk,
    /// At most so many.
    pub(super) posts_max: u64,
}

/// How far the whole bench is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// Members come, and join.
    Arriving,
    /// All are there, and quiet.
    Quiet,
    /// They post.
    Talking,
    /// They post nothing new.
    Settling,
    /// All is over.
    Ended,
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Opens a session.
    Calling,
    /// Has said hi.
    Greeting,
    /// Has asked for its room.
    Joining,
    /// Follows it.
    There,
}

/// A client.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) role: Role,
    pub(super) key: KeyPair,
    pub(super) port: usize,
    pub(super) session: SessionId,
    /// When its timer is set for.
    pub(super) armed: Time,
    device: DeviceId,
    /// The number of its next hi.
    number: u64,
    place: Place,
    again_at: Time,
    ping_at: Time,
    follow: Follow,
    /// Posts that are not stored yet, with when they were last sent.
    open: BTreeMap<u64, (String, Time)>,
    posted: u64,
    /// How many of its own posts it has got back.
    back: u64,
    talk_at: Time,
}

/// What a turn of all members shares.
pub(super) struct Turn<'a> {
    pub(super) now: Time,
    pub(super) stage: Stage,
    pub(super) body: usize,
    pub(super) endpoint: &'a mut Endpoint,
    pub(super) rng: &'a mut Rng,
    pub(super) tally: &'a mut Tally,
}

impl Member {
    /// A client that has a session under way.
    pub(super) fn new(role: Role, key: KeyPair, port: usize, session: SessionId, number: u64, rng: &mut Rng) -> Self {
        let follow = Follow::new(role.room.clone());
        let later = Time::from_micros(u64::MAX);
        Self {
            role,
            key,
            port,
            session,
            armed: later,
            device: DeviceId(rng.u64() >> 12),
            number,
            place: Place::Calling,
            again_at: later,
            ping_at: later,
            follow,
            open: BTreeMap::new(),
            posted: 0,
            back: 0,
            talk_at: later,
        }
    }

    /// Whether it follows its room.
    pub(super) fn is_there(&self) -> bool {
        self.place == Place::There
    }

    /// Whether it still waits for its handshake.
    pub(super) fn is_calling(&self) -> bool {
        self.place == Place::Calling
    }

    /// Its session is gone, and this is the next one.
    pub(super) fn calls_again(&mut self, session: SessionId) {
        (self.session, self.place, self.again_at) = (session, Place::Calling, Time::from_micros(u64::MAX));
        self.number += 1;
    }

    /// Its session stands.
    pub(super) fn up(&mut self, turn: &mut Turn<'_>) {
        self.place = Place::Greeting;
        self.say_hi(turn);
    }

    /// A line has come. An error is a reason to give up.
    pub(super) fn line(&mut self, line: &[u8], turn: &mut Turn<'_>) -> Result<(), String> {
        if self.follow.is_entry(line) {
            self.entry(line, turn);
            return Ok(());
        }
        match Frame::from_line(line) {
            Some(Frame::Entry(entry)) if entry.room == self.role.room && self.follow.meet(entry.origin) => {
                self.entry(line, turn);
            }
            Some(Frame::Welcome(_)) if self.place == Place::Greeting => {
                self.place = Place::Joining;
                self.ping_at = turn.now + turn.rng.jitter(KEEPALIVE, 20);
                self.say_join(turn);
            }
            Some(Frame::Joined { room, start, .. }) if room == self.role.room && self.place == Place::Joining => {
                self.follow.joined(&start);
                (self.place, self.again_at) = (Place::There, Time::from_micros(u64::MAX));
            }
            Some(Frame::Heads { rooms }) => {
                if let Some(heads) = rooms.get(&self.role.room) {
                    self.follow.heads(heads, turn.now);
                }
            }
            Some(Frame::Pulled(_)) => self.follow.pulled(turn.now),
            Some(Frame::Ack(ack)) if ack.stored => {
                self.open.remove(&ack.seq);
            }
            Some(Frame::Refuse(refuse)) => return Err(format!("a post was refused: {:?}", refuse.why)),
            Some(Frame::NotWelcome { why, .. }) => return Err(format!("the server does not take us: {why}")),
            Some(Frame::HiFirst { session }) => {
                self.number = self.number.max(session) + 1;
                self.up(turn);
            }
            _ => {}
        }
        Ok(())
    }

    fn entry(&mut self, line: &[u8], turn: &mut Turn<'_>) {
        match self.follow.take(line, turn.body, turn.now) {
            Taken::New(posted) => {
                turn.tally.got += 1;
                if let Some(posted) = posted {
                    turn.tally.latency.add(turn.now.as_micros().saturating_sub(posted));
                }
                // Nobody else posts in a room in which somebody posts.
                self.back += u64::from(self.role.talk != Talk::Silent);
            }
            Taken::Doubled => turn.tally.doubled += 1,
            Taken::Strange => turn.tally.strange += 1,
        }
    }

    /// Says what is due.
    pub(super) fn wake(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        if self.again_at <= now {
            match self.place {
                Place::Greeting => self.say_hi(turn),
                Place::Joining => self.say_join(turn),
                Place::Calling | Place::There => self.again_at = Time::from_micros(u64::MAX),
            }
        }
        if self.ping_at <= now {
            self.ping_at = now + turn.rng.jitter(KEEPALIVE, 20);
            self.say(&Frame::Ping { n: 1 }, turn);
        }
        if let Some(pull) = self.follow.poll_pull(now) {
            self.say(&pull, turn);
        }
        if let Some(cursor) = self.follow.poll_ack(now) {
            self.say(&cursor, turn);
        }
        self.post_again(turn);
    }

    /// Posts what it is time for.
    pub(super) fn talk(&mut self, turn: &mut Turn<'_>) {
        if turn.stage != Stage::Talking || self.role.talk == Talk::Silent || !self.is_there() {
            return;
        }
        let now = turn.now;
        for _ in 0..POSTS_PER_TURN {
            let is_due = match self.role.talk {
                Talk::Silent => false,
                Talk::Window(size) => self.posted - self.back.min(self.posted) < size,
                Talk::Every(_) if self.talk_at == Time::from_micros(u64::MAX) => {
                    self.talk_at = now;
                    true
                }
                Talk::Every(_) => self.talk_at <= now,
            };
            if !is_due || self.posted >= self.role.posts_max {
                return;
            }
            if let Talk::Every(gap) = self.role.talk {
                self.talk_at = self.talk_at + gap;
            }
            self.posted += 1;
            turn.tally.sent += 1;
            turn.tally.expected += self.role.company;
            self.open.insert(self.posted, (follow::body(now.as_micros(), turn.body), now));
            self.say_post(self.posted, turn);
        }
    }

    /// Whether all that it was to post has been posted.
    pub(super) fn has_said_all(&self) -> bool {
        self.role.talk == Talk::Silent || self.posted >= self.role.posts_max
    }

    /// When it wants to be woken.
    pub(super) fn deadline(&self) -> Time {
        let talk = if self.has_said_all() { Time::from_micros(u64::MAX) } else { self.talk_at };
        let open = self.open.first_key_value().map(|(_, (_, at))| *at + AGAIN);
        let others = self.follow.deadline().into_iter().chain(open);
        others.chain([self.again_at, self.ping_at, talk]).min().unwrap_or(self.again_at)
    }

    /// Posts again what has not been stored for a while.
    fn post_again(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now;
        let late: Vec<u64> = self
            .open
            .iter()
            .take(POSTS_PER_TURN)
            .filter(|(_, (_, at))| *at + AGAIN <= now)
            .map(|(seq, _)| *seq)
            .collect();
        for seq in late {
            if let Some((_, at)) = self.open.get_mut(&seq) {
                *at = now;
            }
            self.say_post(seq, turn);
        }
    }

    fn say_post(&self, seq: u64, turn: &mut Turn<'_>) {
        let Some((body, _)) = self.open.get(&seq) else { return };
        let oldest = self.open.first_key_value().map_or(seq, |(oldest, _)| *oldest);
        self.say(&says::post(&self.role.room, (seq, oldest), body), turn);
    }

    fn say_hi(&mut self, turn: &mut Turn<'_>) {
        self.again_at = turn.now + AGAIN;
        self.say(&says::hi(&self.role.number.to_string(), self.device, self.number), turn);
    }

    fn say_join(&mut self, turn: &mut Turn<'_>) {
        self.again_at = turn.now + AGAIN;
        self.say(&self.follow.join(), turn);
    }

    fn say(&self, frame: &Frame, turn: &mut Turn<'_>) {
        turn.endpoint.send(self.session, frame.to_line().as_bytes());
    }
}
