//! What datagrams do to sessions. Until a packet is authentic it changes nothing but a counter, with one exception: an
//! init makes a half-open session, of which there are only so many.

use std::{mem, net::SocketAddr};

use crate::{
    limits,
    session::{
        Endpoint, Event, Role, SessionId,
        endpoint::Counters,
        half_open::ask_id,
        handshake::Responder,
        keys::Suite,
        sealed::{Sealed, Unopened},
        state::{Half, Phase, Repeats, Session},
    },
    time::Time,
    wire::{
        fragment::{self, Assembler},
        frame::Frame,
    },
};

impl Endpoint {
    /// Somebody opens a handshake, or repeats that: then the same answer is repeated.
    pub(super) fn on_init(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        (suite, remote, noise): (Suite, u32, &[u8]),
        now: Time,
    ) {
        let ask = ask_id(from, datagram);
        if let Some(id) = self.half_open.get(&ask) {
            return self.owe(id);
        }
        let Some(local) = &self.key else { return self.counters.add("handshake_unwanted") };
        if self.sessions.len() >= limits::SESSIONS_MAX {
            return self.counters.add("sessions_full");
        }
        let Some((responder, key, payload)) = Responder::new(local, suite, noise, self.rng.fork()) else {
            return self.counters.add("handshake_bad");
        };
        let id = self.new_id();
        if let Some(oldest) = self.half_open.insert(ask, id) {
            self.counters.add("half_open_full");
            self.expire(oldest);
        }
        let half = Half {
            ask,
            ask_bytes: datagram.len(),
            remote,
            asked: now,
            payload: payload.clone(),
            responder,
            answer: None,
        };
        self.insert(id, Session::new(Role::Responder, key, from, Phase::HalfOpen(Box::new(half)), now));
        self.events.push_back(Event::Asked { session: id, from, key, payload });
    }

    /// Our handshake is answered: the session is up here, and has to be confirmed at once.
    pub(super) fn on_answer(&mut self, id: SessionId, remote: u32, noise: &[u8], now: Time) {
        let Some(session) = self.sessions.get_mut(&id) else { return self.counters.add("session_unknown") };
        let Phase::Calling(calling) = &mut session.phase else { return self.counters.add("answer_unwanted") };
        let Some((transport, payload)) = calling.handshake.finish(noise) else {
            return self.counters.add("handshake_bad");
        };
        session.sealed = Some(Sealed::new(transport, remote));
        session.phase = Phase::Up(Some(Repeats::new(now)));
        session.heard = now;
        self.timers.update(id, session);
        self.events.push_back(Event::Up { session: id, role: session.role, key: session.key, payload });
        self.owe(id);
    }

    /// Lines, or a sign of life. The first such packet brings the session up at the responder.
    pub(super) fn on_sealed(&mut self, from: SocketAddr, id: SessionId, counter: u64, ciphertext: &[u8], now: Time) {
        let Some(session) = self.sessions.get_mut(&id) else { return self.counters.add("session_unknown") };
        let Some(sealed) = &mut session.sealed else { return self.counters.add("sealed_early") };
        let (len, newest) = match sealed.open(counter, ciphertext, &mut self.opened) {
            Ok(opened) => opened,
            Err(Unopened::Replayed) => return self.counters.add("replayed"),
            Err(Unopened::Forged) => return self.counters.add("seal_bad"),
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
                self.events.push_back(Event::Up { session: id, role: session.role, key: session.key, payload });
                session.phase = Phase::Up(None);
                owes = true;
            }
            (phase, Role::Initiator) => *phase = Phase::Up(None),
            // An initiator with nothing to say wants to know whether we heard it. It never answers such a packet itself.
            (_, Role::Responder) => owes = len == 0,
        }
        for line in self.opened[..len].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line = if line.starts_with(fragment::LINE_START) {
                assemble(session, line, now, &mut self.counters)
            } else {
                Some(line.to_vec())
            };
            self.events.extend(line.map(|line| Event::Line { session: id, line }));
        }
        if owes {
            self.owe(id);
        }
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
