//! What datagrams do to sessions. Until a packet is authentic it changes nothing but a counter, with one exception: an
//! init makes a half-open session, of which there are only so many.

use std::{mem, net::SocketAddr};

use crate::{
    limits,
    session::{
        Endpoint, Event, Role, SessionId, census,
        endpoint::Counters,
        gate::Waiting,
        half_open::ask_id,
        handshake::{Parties, Responder},
        keys::Suite,
        rekey,
        sealed::Sealed,
        state::{Half, Phase, Repeats, Session},
    },
    time::Time,
    wire::{
        fragment::{self, Assembler},
        frame::Frame,
        packet::{self, COOKIE_BYTES, Packet},
        then::{self, Context},
    },
};

/// How often an initiator answers a cookie at once, between two of its repeats. The first may be forged; of many, most are.
const COOKIES_ANSWERED: u32 = 4;

/// An init, not yet authenticated.
pub(super) struct Init<'a> {
    pub(super) suite: Suite,
    pub(super) sender: u32,
    pub(super) cookie: [u8; COOKIE_BYTES],
    pub(super) noise: &'a [u8],
    /// How large the datagram was.
    pub(super) bytes: usize,
}

impl Endpoint {
    /// Somebody opens a handshake, or repeats that: then the same answer is repeated.
    pub(super) fn on_init(&mut self, from: SocketAddr, init: &Init<'_>, now: Time) {
        if self.key.is_none() {
            return self.counters.add("handshake_unwanted");
        }
        let Init { suite, sender, cookie, noise, bytes } = *init;
        if self.gate.is_loaded(self.half_open.len(), now)
            && !self.cookies.is_good(&cookie, from, sender, &mut self.rng, now)
        {
            return self.bake(from, sender, now);
        }
        let ask = ask_id(from, suite, sender, noise);
        if let Some(id) = self.half_open.get(&ask) {
            return self.owe(id);
        }
        if let Err(cause) = self.place(from, now) {
            return self.counters.add(cause);
        }
        let waiting = || Waiting { ask, suite, remote: sender, noise: noise.into(), bytes };
        if self.gate.is_waited_at() || !self.gate.take_handshake(now) {
            if let Err(cause) = self.gate.wait(ask, waiting) {
                self.counters.add(cause);
            }
        } else {
            self.answer_init(waiting(), now);
        }
    }

    /// Asks for the init again, with a cookie: all that a stranger gets under load.
    fn bake(&mut self, from: SocketAddr, sender: u32, now: Time) {
        if self.baked.len() >= limits::COOKIES_PER_TURN {
            return self.counters.add("cookies_rationed");
        }
        self.counters.add("cookie_wanted");
        let cookie = self.cookies.bake(from, sender, &mut self.rng, now);
        self.baked.push((from, Packet::Cookie { receiver: sender, cookie }.to_bytes()));
    }

    /// Answers handshakes that wait, as far as the ration goes.
    pub(super) fn answer_waiting(&mut self, now: Time) {
        while let Some(init) = self.gate.next(now) {
            self.answer_init(init, now);
        }
    }

    fn answer_init(&mut self, init: Waiting, now: Time) {
        let Some(local) = self.key.clone() else { return };
        let Waiting { ask, suite, remote, noise, bytes } = init;
        let oldest = match self.place(ask.0, now) {
            Ok(oldest) => oldest,
            Err(cause) => return self.counters.add(cause),
        };
        let Some((responder, key, payload)) = Responder::new(&local, suite, &noise, self.rng.fork()) else {
            return self.counters.add("handshake_bad");
        };
        if let Some(oldest) = oldest {
            self.counters.add("half_open_replaced");
            self.expire(oldest);
        }
        let id = self.new_id();
        self.half_open.insert(ask, id, now);
        let half =
            Half { ask, ask_bytes: bytes, remote, asked: now, payload: payload.clone(), responder, answer: None };
        let parties = Parties { suite, local, remote: key };
        self.insert(id, Session::new(Role::Responder, parties, ask.0, Phase::HalfOpen(Box::new(half)), now));
        self.events.push_back(Event::Asked { session: id, from: ask.0, key, payload });
    }

    /// Whether there is a place for a half-open session: which has to go for it, or the cause for which there is none.
    fn place(&self, from: SocketAddr, now: Time) -> Result<Option<SessionId>, &'static str> {
        if self.sessions.len() >= limits::SESSIONS_MAX { Err("sessions_full") } else { self.half_open.place(from, now) }
    }

    /// Our init is to be repeated with a cookie. Who says so is not asked: a false cookie is worth as much as none, and the
    /// right one comes when it is shown.
    pub(super) fn on_cookie(&mut self, id: SessionId, cookie: [u8; COOKIE_BYTES]) {
        let Some(session) = self.sessions.get_mut(&id) else { return self.counters.add("session_unknown") };
        let Phase::Calling(calling) = &mut session.phase else { return self.counters.add("cookie_unwanted") };
        packet::set_cookie(&mut calling.init, cookie);
        calling.cookies += 1;
        if calling.cookies > COOKIES_ANSWERED {
            return self.counters.add("cookies_many");
        }
        self.owe(id);
    }

    /// Our handshake is answered: the session is up here, and has to be confirmed at once.
    pub(super) fn on_answer(&mut self, id: SessionId, remote: u32, noise: &[u8], now: Time) {
        let Some(session) = self.sessions.get_mut(&id) else { return self.counters.add("session_unknown") };
        let Phase::Calling(calling) = &mut session.phase else { return self.counters.add("answer_unwanted") };
        let Some((keys, payload)) = calling.handshake.finish(noise) else {
            return self.counters.add("handshake_bad");
        };
        session.sealed = Some(Sealed::new(keys, remote, 0));
        session.phase = Phase::Up(Some(Repeats::new(now)));
        session.heard = now;
        session.rekey_at = rekey::next_time(&mut self.rng, now);
        self.timers.update(id, session);
        self.events.push_back(Event::Up { session: id, role: session.role, key: session.parties.remote, payload });
        self.owe(id);
    }

    /// Lines, or a sign of life. The first such packet brings the session up at the responder.
    pub(super) fn on_sealed(&mut self, from: SocketAddr, id: SessionId, counter: u64, ciphertext: &[u8], now: Time) {
        let Some(session) = self.sessions.get_mut(&id) else { return self.counters.add("session_unknown") };
        let (len, newest) = match session.open(counter, ciphertext, &mut self.opened, self.warm.of(id), now) {
            Ok(opened) => opened,
            Err(unopened) => return self.counters.add(unopened.cause()),
        };
        self.packets_taken += 1;
        session.heard = now;
        if newest {
            session.addr = from;
        }
        let mut owes = false;
        match (&mut session.phase, session.role) {
            (Phase::HalfOpen(half), _) => {
                self.half_open.remove(&half.ask);
                let payload = mem::take(&mut half.payload);
                self.events.push_back(Event::Up {
                    session: id,
                    role: session.role,
                    key: session.parties.remote,
                    payload,
                });
                session.phase = Phase::Up(None);
                owes = true;
            }
            (phase, Role::Initiator) => *phase = Phase::Up(None),
            // An initiator with nothing to say wants to know whether we heard it. It never answers such a packet itself.
            (_, Role::Responder) => owes = len == 0,
        }
        let plain = &self.opened[..len];
        match session.take_rekey(id, plain, &mut self.gate, &mut self.rng, now) {
            Some(Ok(answers)) => owes |= answers,
            Some(Err(cause)) => self.counters.add(cause),
            None => {
                let mut before = Before::Nothing;
                for line in lines(plain).filter(|line| !line.is_empty()) {
                    if let Some(talk) = &mut self.talk {
                        census::note(&mut talk.heard, line);
                    }
                    let line = if line.starts_with(then::LINE_START) {
                        before.expand(line, &mut self.counters)
                    } else if line.starts_with(fragment::LINE_START) {
                        before = Before::Nothing;
                        assemble(session, line, now, &mut self.counters)
                    } else {
                        before = Before::Line(line);
                        Some(line.to_vec())
                    };
                    self.events.extend(line.map(|line| Event::Line { session: id, line }));
                }
            }
        }
        self.timers.update(id, session);
        if owes {
            self.owe(id);
        }
    }
}

/// What stands between the newlines of a packet.
fn lines(plain: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = memchr::memchr_iter(b'\n', plain).chain([plain.len()]);
    ends.scan(0, |start, end| Some(&plain[mem::replace(start, end + 1)..end]))
}

/// What stood before a line in its packet.
enum Before<'a> {
    /// Nothing that says more than itself.
    Nothing,
    /// A line, which may be that of an entry.
    Line(&'a [u8]),
    /// An entry.
    Entry(Context<'a>),
}

impl<'a> Before<'a> {
    /// The full line that one in short stands for: not longer than one that is said in full.
    fn expand(&mut self, line: &'a [u8], counters: &mut Counters) -> Option<Vec<u8>> {
        let context = match *self {
            Self::Nothing => None,
            Self::Line(before) => Context::of_line(before),
            Self::Entry(context) => Some(context),
        };
        let expanded = context.and_then(|context| context.expand(line));
        let Some((context, full)) = expanded.filter(|(_, full)| full.len() < limits::FRAME_BYTES_MAX) else {
            *self = Self::Nothing;
            counters.add("then_bad");
            return None;
        };
        *self = Self::Entry(context);
        Some(full)
    }
}

/// Takes a fragment; returns the line that it completes.
fn assemble(session: &mut Session, line: &[u8], now: Time, counters: &mut Counters) -> Option<Vec<u8>> {
    let Some(Frame::Fragment(fragment)) = Frame::from_line(line) else {
        counters.add("fragment_bad");
        return None;
    };
    let slot = session.assembler.get_or_insert_with(|| Box::new((Assembler::default(), now)));
    let (assembler, last) = &mut **slot;
    *last = now;
    let whole = assembler.take(fragment, now);
    if assembler.is_empty() {
        session.assembler = None;
    }
    whole
        .unwrap_or_else(|_| {
            counters.add("fragment_bad");
            None
        })
        .map(String::into_bytes)
}
