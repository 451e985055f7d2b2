//! Two endpoints and the wire between them, in fake time.

use std::{fmt, net::SocketAddr};

use crate::{
    rng::Rng,
    session::{
        Datagrams, Endpoint, Event, Role, SessionId,
        keys::{KeyPair, Suite},
    },
    time::{Duration, Time},
};

mod hostile;
mod load;
mod opening;
mod rekeying;
mod roaming;
mod talking;

/// How long a datagram is on its way.
const LATENCY: Duration = Duration::from_millis(10);
/// The side that opens sessions.
const CLIENT: usize = 0;
/// The side that answers.
const SERVER: usize = 1;

/// What the wire does with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Arrives,
    IsLost,
    /// Arrives so much later than others.
    Lags(Duration),
}

/// A datagram on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    at: Time,
    from: usize,
    bytes: Vec<u8>,
}

struct Side {
    endpoint: Endpoint,
    addr: SocketAddr,
    events: Vec<Event>,
}

/// Two endpoints, and every datagram that either ever sent.
struct Pair {
    now: Time,
    sides: [Side; 2],
    /// What the server says when it accepts; `None`: it does not.
    welcome: Option<Vec<u8>>,
    /// Decides over each datagram, by sender and by how many that one had sent before.
    fate: Box<dyn FnMut(usize, usize) -> Fate>,
    sent: Vec<Sent>,
    wire: Vec<(Time, SocketAddr, usize, Vec<u8>)>,
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn key(seed: u8) -> KeyPair {
    KeyPair::generate(&mut Rng::from_seed([seed; 32]))
}

impl Pair {
    fn new(seed: u8) -> Self {
        let mut rng = Rng::from_seed([seed; 32]);
        let side = |key, rng, port| Side { endpoint: Endpoint::new(key, rng), addr: addr(port), events: Vec::new() };
        Self {
            now: Time::from_micros(1_000_000),
            sides: [side(None, rng.fork(), 1), side(Some(key(2)), rng.fork(), 2)],
            welcome: Some(b"welcome".to_vec()),
            fate: Box::new(|_, _| Fate::Arrives),
            sent: Vec::new(),
            wire: Vec::new(),
        }
    }

    /// A pair with a session that is up at both sides: its name at the client and at the server.
    fn up(suite: Suite) -> (Self, SessionId, SessionId) {
        let mut pair = Self::new(1);
        let client = pair.connect(suite);
        pair.run_for(Duration::from_millis(200));
        let (ours, _, _) = pair.ups(SERVER)[0];
        pair.sides.iter_mut().for_each(|side| side.events.clear());
        pair.sent.clear();
        (pair, client, ours)
    }

    fn connect(&mut self, suite: Suite) -> SessionId {
        let to = self.sides[SERVER].addr;
        self.sides[CLIENT].endpoint.connect(to, &key(1), &key(2).public, suite, b"hello", self.now)
    }

    fn send(&mut self, side: usize, session: SessionId, line: &str) {
        self.sides[side].endpoint.send(session, line.as_bytes());
    }

    /// Hands a datagram over at once.
    fn deliver(&mut self, to: usize, from: SocketAddr, bytes: &[u8]) {
        self.sides[to].endpoint.handle(from, bytes, self.now);
    }

    /// Takes events and datagrams out of both endpoints.
    fn turn(&mut self) {
        for from in [CLIENT, SERVER] {
            let side = &mut self.sides[from];
            while let Some(event) = side.endpoint.poll_event() {
                if let (Event::Asked { session, .. }, Some(welcome)) = (&event, &self.welcome) {
                    side.endpoint.accept(*session, welcome, self.now);
                }
                side.events.push(event);
            }
            let mut out = Datagrams::default();
            side.endpoint.flush(self.now, &mut out);
            let source = side.addr;
            for (to, bytes) in out {
                let before = self.sent.iter().filter(|sent| sent.from == from).count();
                self.sent.push(Sent { at: self.now, from, bytes: bytes.clone() });
                let arrives = match (self.fate)(from, before) {
                    Fate::Arrives => self.now + LATENCY,
                    Fate::Lags(more) => self.now + LATENCY + more,
                    Fate::IsLost => continue,
                };
                if let Some(to) = self.sides.iter().position(|side| side.addr == to) {
                    self.wire.push((arrives, source, to, bytes));
                }
            }
        }
    }

    /// Jumps from one thing that happens to the next, for `span`.
    fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            self.turn();
            let arrives = self.wire.iter().map(|(at, ..)| *at).min();
            let ticks = self.sides.iter().filter_map(|side| side.endpoint.deadline()).min();
            let Some(next) = arrives.into_iter().chain(ticks).min().filter(|next| *next <= end) else { break };
            assert!(next >= self.now, "a deadline was left in the past");
            self.now = next;
            let (here, later) = std::mem::take(&mut self.wire).into_iter().partition(|(at, ..)| *at <= next);
            self.wire = later;
            let here: Vec<_> = here;
            for (_, from, to, bytes) in here {
                self.deliver(to, from, &bytes);
            }
            self.sides.iter_mut().for_each(|side| side.endpoint.tick(next));
        }
        self.now = end;
    }

    /// Sessions that came up at a side: which, what role, and what the other side said.
    fn ups(&self, side: usize) -> Vec<(SessionId, Role, Vec<u8>)> {
        let up = |event: &Event| match event {
            Event::Up { session, role, key: theirs, payload } => {
                assert_eq!(*theirs, key(if side == CLIENT { 2 } else { 1 }).public);
                Some((*session, *role, payload.clone()))
            }
            _ => None,
        };
        self.sides[side].events.iter().filter_map(up).collect()
    }

    fn lines(&self, side: usize) -> Vec<String> {
        let line = |event: &Event| match event {
            Event::Line { line, .. } => Some(String::from_utf8_lossy(line).into_owned()),
            _ => None,
        };
        self.sides[side].events.iter().filter_map(line).collect()
    }

    fn asked(&self) -> Vec<SessionId> {
        let asked = |event: &Event| match event {
            Event::Asked { session, .. } => Some(*session),
            _ => None,
        };
        self.sides[SERVER].events.iter().filter_map(asked).collect()
    }

    fn closed(&self, side: usize) -> Vec<SessionId> {
        let closed = |event: &Event| match event {
            Event::Closed { session } => Some(*session),
            _ => None,
        };
        self.sides[side].events.iter().filter_map(closed).collect()
    }

    fn count(&self, side: usize, cause: &str) -> u64 {
        self.sides[side].endpoint.counters().get(cause).copied().unwrap_or_default()
    }

    /// Both sides hear each other.
    #[track_caller]
    fn assert_talks(&mut self, client: SessionId, server: SessionId) {
        self.send(CLIENT, client, "over\n");
        self.send(SERVER, server, "back\n");
        self.run_for(Duration::from_millis(50));
        assert_eq!(self.lines(SERVER).last().map(String::as_str), Some("over"), "{self:?}");
        assert_eq!(self.lines(CLIENT).last().map(String::as_str), Some("back"), "{self:?}");
    }
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counters = self.sides.each_ref().map(|side| side.endpoint.counters());
        f.debug_struct("Pair").field("now", &self.now).field("counters", &counters).finish_non_exhaustive()
    }
}
