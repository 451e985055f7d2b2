//! Clients that post, each in a session of its own, and ask: they follow no room, and hear what becomes of their posts.
//!
//! A poster has so many posts under way, and makes the next one as soon as one is stored. It repeats what is not: so what it
//! counts as stored is what its server said, once for each post. A real client follows its room too, which these do not, so
//! that nothing is measured but the way to the disks.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    time::{Duration, Instant},
};

use hobnob_client::Fail;
use hobnob_proto::{
    ids::{DeviceId, RoomName},
    rng::Rng,
    session::{Datagrams, Endpoint, Event, SessionId, keys::KeyPair},
    time::Time,
    wire::{
        Frame,
        frame::{Ack, Ask},
        greeting::Greeting,
    },
};
use mio::{Events, Interest, Poll, Token, net::UdpSocket};
use serde_json::Value;

use crate::bench::{
    crowd::Target,
    failed, follow, interrupted,
    says::{self, AGAIN},
    socket::{self, CALL_BYTES_MAX},
    tally::Histogram,
};

/// A post after this, and then at doubling intervals: later than from a person's client, since as many as may be are under
/// way at once.
const POST_AGAIN: Duration = Duration::from_secs(2);
/// Of the posts that are accepted and not stored, the oldest that are said again. A real client says so many again of all
/// that are open, accepted or not; here each that is not accepted is, since a window of them may be lost at once.
const OFTEN_MAX: usize = 8;
/// How long a turn waits at the most, and how often sessions are asked for what is due.
const TURN_MAX: Duration = Duration::from_millis(5);
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long all may take to come.
const ARRIVE_MAX: Duration = Duration::from_secs(20);
/// Sessions that are being opened at a time.
const CALLS_MAX: usize = 16;

/// Who it is, and where it posts.
#[derive(Clone, Debug)]
pub(super) struct Role {
    /// Its server: a place in the list of targets.
    pub(super) server: usize,
    /// Its room.
    pub(super) room: RoomName,
    /// Posts that it has under way.
    pub(super) window: u64,
    /// On how many disks a post is to be when it is said to be stored.
    pub(super) copies: u64,
}

/// What was counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    /// Posts that were made.
    pub(super) posted: u64,
    /// Posts that were said once more.
    pub(super) repeated: u64,
    /// Posts that are stored.
    pub(super) stored: u64,
    /// Of those, the ones that were on fewer disks than asked for, or on none.
    pub(super) wrong: u64,
    /// From the post until the word that it is accepted, and until the one that it is stored.
    pub(super) accepted: Histogram,
    pub(super) latency: Histogram,
}

/// A post that is under way.
#[derive(Debug)]
struct Open {
    body: String,
    posted: Time,
    again_at: Time,
    again: Duration,
    accepted: bool,
}

/// A client.
struct Poster {
    role: Role,
    socket: UdpSocket,
    endpoint: Endpoint,
    key: KeyPair,
    session: Option<SessionId>,
    device: DeviceId,
    /// The number of its next hi.
    number: u64,
    is_served: bool,
    hi_at: Option<Time>,
    open: BTreeMap<u64, Open>,
    next: u64,
    answers: VecDeque<(u64, u32, bool, Value)>,
}

/// All of them, on this thread.
pub(super) struct Posters {
    targets: Vec<Target>,
    start: Instant,
    poll: Poll,
    events: Events,
    all: Vec<Poster>,
    body: usize,
    buffer: Vec<u8>,
    datagrams: Datagrams,
    ticked: Time,
    asked: u64,
    /// How many new posts may still be made.
    pub(super) left: u64,
    /// What was counted.
    pub(super) counted: Counted,
}

impl Posters {
    /// Clients that have come to their servers; none posts yet.
    pub(super) fn arrive(targets: Vec<Target>, roles: Vec<Role>, body: usize, rng: &mut Rng) -> Result<Self, Fail> {
        let broken = |error: io::Error| failed(&format!("a socket cannot be opened: {error}"));
        let poll = Poll::new().map_err(broken)?;
        let mut posters = Vec::new();
        for (at, role) in roles.into_iter().enumerate() {
            let mut socket = socket::open(targets[role.server].addr).map_err(broken)?;
            poll.registry().register(&mut socket, Token(at), Interest::READABLE).map_err(broken)?;
            let (endpoint, key) = (Endpoint::new(None, rng.fork()), KeyPair::generate(rng));
            let device = DeviceId(rng.u64() >> 12);
            let (open, answers) = (BTreeMap::new(), VecDeque::new());
            let (session, number, is_served, hi_at, next) = (None, 1, false, None, 1);
            posters.push(Poster {
                role,
                socket,
                endpoint,
                key,
                session,
                device,
                number,
                is_served,
                hi_at,
                open,
                next,
                answers,
            });
        }
        let mut all = Self {
            targets,
            start: Instant::now(),
            poll,
            events: Events::with_capacity(256),
            all: posters,
            body,
            buffer: vec![0; CALL_BYTES_MAX],
            datagrams: Datagrams::default(),
            ticked: Time::ZERO,
            asked: 0,
            left: 0,
            counted: Counted::default(),
        };
        if !all.until(ARRIVE_MAX, |all| all.all.iter().all(|poster| poster.is_served))? {
            return Err(failed("not all clients came"));
        }
        Ok(all)
    }

    /// Posts, where there is something left to be posted, and listens, until `enough`; whether it came to that in time.
    pub(super) fn until(&mut self, max: Duration, enough: impl Fn(&Self) -> bool) -> Result<bool, Fail> {
        let end = Instant::now() + max;
        while !enough(self) {
            if Instant::now() >= end {
                return Ok(false);
            }
            self.turn()?;
        }
        Ok(true)
    }

    /// Posts that are not stored.
    pub(super) fn open(&self) -> usize {
        self.all.iter().map(|poster| poster.open.len()).sum()
    }

    /// Asks the server of the client with that place: the parts of its answer.
    pub(super) fn ask(&mut self, at: usize, ask: &Ask) -> Result<Vec<Value>, Fail> {
        let end = Instant::now() + ANSWER_MAX;
        while Instant::now() < end {
            self.asked += 1;
            let (id, mut parts) = (self.asked, BTreeMap::new());
            self.all[at].say(&Frame::Ask { id, ask: ask.clone() });
            let (asked, mut count) = (Instant::now(), None);
            while asked.elapsed() < AGAIN {
                self.turn()?;
                while let Some((of, part, last, data)) = self.all[at].answers.pop_front() {
                    if of == id {
                        count = count.or(last.then_some(part + 1));
                        parts.insert(part, data);
                    }
                }
                if count.is_some_and(|count| count as usize == parts.len()) {
                    return Ok(parts.into_values().collect());
                }
            }
        }
        Err(failed("a server does not answer"))
    }

    fn now(&self) -> Time {
        Time::from_micros(self.start.elapsed().as_micros() as u64)
    }

    /// Takes what has come, and says what is due.
    fn turn(&mut self) -> Result<(), Fail> {
        interrupted()?;
        self.call();
        for poster in &mut self.all {
            poster.talk(self.body, &mut self.left, &mut self.counted, self.start);
        }
        self.flush();
        match self.poll.poll(&mut self.events, Some(TURN_MAX)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(failed(&format!("the sockets cannot be waited for: {error}")));
            }
            _ => {}
        }
        let now = self.now();
        for at in self.events.iter().map(|event| event.token().0).collect::<Vec<_>>() {
            self.receive(at, now)?;
        }
        if now.since(self.ticked) >= TURN_MAX {
            self.ticked = now;
            for at in 0..self.all.len() {
                let poster = &mut self.all[at];
                if poster.endpoint.deadline().is_some_and(|due| due <= now) {
                    poster.endpoint.tick(now);
                }
                self.hear(at, now)?;
                self.all[at].repeat(now, &mut self.counted);
            }
        }
        Ok(())
    }

    /// Opens sessions, some at a time.
    fn call(&mut self) {
        let now = self.now();
        let calling = self.all.iter().filter(|poster| poster.session.is_some() && !poster.is_served).count();
        let idle = self.all.iter_mut().filter(|poster| poster.session.is_none());
        for poster in idle.take(CALLS_MAX.saturating_sub(calling)) {
            let Target { addr, key, suite, secret } = &self.targets[poster.role.server];
            let greeting = Greeting::client(secret.as_ref(), &poster.key.public).to_payload();
            poster.session = Some(poster.endpoint.connect(*addr, &poster.key, key, *suite, &greeting, now));
        }
    }

    fn flush(&mut self) {
        let now = self.now();
        for poster in &mut self.all {
            poster.endpoint.flush(now, &mut self.datagrams);
            for (_, bytes) in self.datagrams.iter() {
                // What is lost is said again.
                let _lost = poster.socket.send(bytes);
            }
            self.datagrams.clear();
        }
    }

    fn receive(&mut self, at: usize, now: Time) -> Result<(), Fail> {
        let poster = &mut self.all[at];
        loop {
            match socket::receive(&poster.socket, &mut self.buffer) {
                Ok((len, each)) => {
                    for datagram in self.buffer[..len].chunks(each) {
                        poster.endpoint.handle(self.targets[poster.role.server].addr, datagram, now);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    return Err(failed("a server is gone"));
                }
                Err(_) => break,
            }
        }
        self.hear(at, now)
    }

    fn hear(&mut self, at: usize, now: Time) -> Result<(), Fail> {
        let poster = &mut self.all[at];
        while let Some(event) = poster.endpoint.poll_event() {
            match event {
                Event::Up { .. } => poster.say_hi(now),
                Event::Closed { .. } => {
                    (poster.session, poster.is_served, poster.hi_at) = (None, false, None);
                    poster.number += 1;
                }
                Event::Line { line, .. } => poster.line(&line, now, &mut self.counted)?,
                Event::Asked { .. } => {}
            }
        }
        if poster.hi_at.is_some_and(|since| now.since(since) > AGAIN) {
            poster.say_hi(now);
        }
        Ok(())
    }
}

impl Poster {
    fn line(&mut self, line: &[u8], now: Time, counted: &mut Counted) -> Result<(), Fail> {
        match Frame::from_line(line) {
            Some(Frame::Ack(ack)) => self.settle(&ack, now, counted),
            Some(Frame::Welcome(_)) => (self.is_served, self.hi_at) = (true, None),
            Some(Frame::HiFirst { session }) => {
                self.number = self.number.max(session) + 1;
                self.say_hi(now);
            }
            Some(Frame::Answer { id, part, last, data }) => self.answers.push_back((id, part, last, data)),
            Some(Frame::Refuse(refuse)) => return Err(failed(&format!("a post was refused: {:?}", refuse.why))),
            Some(Frame::NotWelcome { why, .. }) => return Err(failed(&format!("the server does not take us: {why}"))),
            _ => {}
        }
        Ok(())
    }

    fn settle(&mut self, ack: &Ack, now: Time, counted: &mut Counted) {
        let Some(open) = self.open.get_mut(&ack.seq) else { return };
        let span = now.since(open.posted).as_micros() as u64;
        if !std::mem::replace(&mut open.accepted, true) {
            counted.accepted.add(span);
        }
        if ack.stored {
            self.open.remove(&ack.seq);
            counted.stored += 1;
            counted.wrong += u64::from(!is_kept(ack, self.role.copies));
            counted.latency.add(span);
        }
    }

    /// Posts as much as may be under way.
    fn talk(&mut self, bytes: usize, left: &mut u64, counted: &mut Counted, start: Instant) {
        // What lies further ahead of the oldest than that waits at the home: a real client goes no further either.
        let first = self.open.first_key_value().map_or(self.next, |(first, _)| *first);
        while self.is_served && *left > 0 && self.next - first < self.role.window {
            let now = Time::from_micros(start.elapsed().as_micros() as u64);
            let body = follow::body(now.as_micros(), bytes);
            self.open.insert(
                self.next,
                Open { body, posted: now, again_at: now + POST_AGAIN, again: POST_AGAIN, accepted: false },
            );
            self.say_post(self.next);
            self.next += 1;
            *left -= 1;
            counted.posted += 1;
        }
    }

    fn repeat(&mut self, now: Time, counted: &mut Counted) {
        let is_late =
            |(n, (_, open)): &(usize, (&u64, &Open))| open.again_at <= now && (!open.accepted || *n < OFTEN_MAX);
        let late = self.open.iter().enumerate().filter(is_late).map(|(_, (seq, _))| *seq);
        for seq in late.collect::<Vec<_>>() {
            if let Some(open) = self.open.get_mut(&seq) {
                open.again *= 2;
                open.again_at = now + open.again;
            }
            counted.repeated += 1;
            self.say_post(seq);
        }
    }

    fn say_post(&mut self, seq: u64) {
        let Some(open) = self.open.get(&seq) else { return };
        let oldest = self.open.first_key_value().map_or(seq, |(oldest, _)| *oldest);
        self.say(&says::post(&self.role.room, (seq, oldest), &open.body));
    }

    fn say_hi(&mut self, now: Time) {
        self.hi_at = Some(now);
        self.say(&says::hi(&format!("{:x}", self.device.0), self.device, self.number));
    }

    fn say(&mut self, frame: &Frame) {
        if let Some(session) = self.session {
            self.endpoint.send(session, frame.to_line().as_bytes());
        }
    }
}

/// Whether a post that is said to be stored is on so many disks.
fn is_kept(ack: &Ack, copies: u64) -> bool {
    ack.durable && u64::from(ack.copies) >= copies
}

#[cfg(test)]
mod tests {
    use super::*;
    use hobnob_proto::{
        hlc::Hlc,
        ids::{Boot, Origin, ServerId},
    };

    #[test]
    fn stored_is_what_is_on_as_many_disks_as_asked_for() {
        fn check(copies: u32, durable: bool, expected: bool) {
            let origin = Origin { id: ServerId(1), boot: Boot(1) };
            let (room, hlc) = (RoomName::lobby(), Hlc::default());
            let ack = Ack { room, seq: 1, origin, entry: 1, hlc, copies, stored: true, durable, to: None };
            assert_eq!(is_kept(&ack, 2), expected, "{ack:?}");
        }
        check(2, true, true);
        check(3, true, true);
        check(1, true, false);
        check(2, false, false);
    }
}
