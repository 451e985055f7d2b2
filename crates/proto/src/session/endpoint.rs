//! The endpoint: the table of sessions, and what its owner can ask of them. What arrives is dealt with in `incoming`.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    net::SocketAddr,
    sync::Arc,
};

use crate::{
    limits,
    rng::Rng,
    session::{
        Event, Role, SessionId,
        census::{self, Talk},
        cookie::Cookies,
        gate::Gate,
        half_open::HalfOpen,
        handshake::{Initiator, Parties},
        incoming::Init,
        keys::{KeyPair, Suite},
        rekey::Rekey,
        sealed::Sealed,
        state::{Calling, Due, Phase, Repeats, Session, Timers},
    },
    time::Time,
    wire::{
        fragment,
        frame::FragmentOf,
        packet::{self, NO_COOKIE, Packet},
    },
};

/// All sessions of one socket.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) key: Option<Arc<KeyPair>>,
    pub(super) rng: Rng,
    pub(super) sessions: BTreeMap<SessionId, Box<Session>>,
    pub(super) half_open: HalfOpen,
    pub(super) gate: Gate,
    pub(super) cookies: Cookies,
    /// Cookie packets that wait for the next flush.
    pub(super) baked: Vec<(SocketAddr, Vec<u8>)>,
    /// The latest time that was told.
    pub(super) now: Time,
    pub(super) timers: Timers,
    /// Sessions that the next flush looks at, each once.
    pub(super) listed: Vec<SessionId>,
    pub(super) events: VecDeque<Event>,
    pub(super) counters: Counters,
    /// Where packets are opened.
    pub(super) opened: Vec<u8>,
    /// How many were.
    pub(super) packets_taken: u64,
    /// There once somebody listens in.
    pub(super) talk: Option<Box<Talk>>,
}

/// Datagrams and lines dropped, by cause.
#[derive(Debug, Default)]
pub(super) struct Counters(BTreeMap<&'static str, u64>);

impl Counters {
    pub(super) fn add(&mut self, cause: &'static str) {
        *self.0.entry(cause).or_default() += 1;
    }
}

impl Endpoint {
    /// No sessions yet. `key` answers handshakes; a client, which answers none, has none.
    pub fn new(key: Option<KeyPair>, rng: Rng) -> Self {
        Self {
            key: key.map(Arc::new),
            rng,
            sessions: BTreeMap::new(),
            half_open: HalfOpen::default(),
            gate: Gate::default(),
            cookies: Cookies::default(),
            baked: Vec::new(),
            now: Time::ZERO,
            timers: Timers::default(),
            listed: Vec::new(),
            events: VecDeque::new(),
            counters: Counters::default(),
            opened: vec![0; limits::DATAGRAM_BYTES_MAX],
            packets_taken: 0,
            talk: None,
        }
    }

    /// Answers handshakes with another key from now on. Sessions stay.
    pub fn set_key(&mut self, key: KeyPair) {
        self.key = Some(Arc::new(key));
    }

    /// Opens a session to whoever holds `remote` at `addr`, as `local`. The handshake is repeated until it is answered,
    /// for 3 s; then [`Event::Closed`].
    ///
    /// # Panics
    /// If `payload` is longer than [`limits::HANDSHAKE_PAYLOAD_BYTES_MAX`].
    pub fn connect(
        &mut self,
        addr: SocketAddr,
        local: &KeyPair,
        remote: &[u8; 32],
        suite: Suite,
        payload: &[u8],
        now: Time,
    ) -> SessionId {
        assert!(payload.len() <= limits::HANDSHAKE_PAYLOAD_BYTES_MAX, "this would not fit a datagram");
        let id = self.new_id();
        let (handshake, noise) = Initiator::new(local, remote, suite, payload, self.rng.fork());
        let init = Packet::Init { suite, sender: id.0, cookie: NO_COOKIE, noise: &noise }.to_bytes();
        let phase = Phase::Calling(Box::new(Calling { handshake, init, repeats: Repeats::new(now), cookies: 0 }));
        let parties = Parties { suite, local: Arc::new(local.clone()), remote: *remote };
        self.insert(id, Session::new(Role::Initiator, parties, addr, phase, now));
        self.owe(id);
        id
    }

    /// Answers a handshake that was [`Event::Asked`] for; once is enough. The answer may not be larger than what asked
    /// for it, so `payload` is at most 317 bytes where the other side said next to nothing; with a longer one the session
    /// is dropped and counted.
    pub fn accept(&mut self, session: SessionId, payload: &[u8], _now: Time) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let Phase::HalfOpen(half) = &mut state.phase else { return };
        if packet::ANSWER_BYTES_MIN + payload.len() > half.ask_bytes {
            self.counters.add("answer_too_large");
            self.expire(session);
            return;
        }
        let Some((transport, noise)) = half.responder.answer(payload) else { return };
        half.answer = Some(Packet::Answer { sender: session.0, receiver: half.remote, noise: &noise }.to_bytes());
        state.sealed = Some(Sealed::new(transport, half.remote, 0));
        self.owe(session);
    }

    /// Drops a session without a word, and without an event.
    pub fn close(&mut self, session: SessionId) {
        let Some(state) = self.sessions.remove(&session) else { return };
        self.timers.remove(session, &state);
        if let Phase::HalfOpen(half) = &state.phase {
            self.half_open.remove(&half.ask);
        }
    }

    /// Takes a datagram that is not discovery.
    pub fn handle(&mut self, from: SocketAddr, datagram: &[u8], now: Time) {
        self.now = now;
        match Packet::parse(datagram) {
            Ok(Packet::Init { suite, sender, cookie, noise }) => {
                self.on_init(from, &Init { suite, sender, cookie, noise, bytes: datagram.len() }, now);
            }
            Ok(Packet::Cookie { receiver, cookie }) => self.on_cookie(SessionId(receiver), cookie),
            Ok(Packet::Answer { sender, receiver, noise }) => self.on_answer(SessionId(receiver), sender, noise, now),
            Ok(Packet::Sealed { receiver, counter, ciphertext }) => {
                self.on_sealed(from, SessionId(receiver), counter, ciphertext, now);
            }
            Err(malformed) => self.counters.add(malformed.cause()),
        }
    }

    /// Answers handshakes that wait, repeats our own, changes keys, and drops what has expired.
    pub fn tick(&mut self, now: Time) {
        self.now = now;
        self.answer_waiting(now);
        while let Some(id) = self.timers.pop(now) {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            session.forget_stale_fragments(now);
            let due = session.wake(now);
            let owes = due == Due::Repeat || (due == Due::Rekey && session.advance_rekey(id, &mut self.rng, now));
            self.timers.insert(id, session);
            if due == Due::Close {
                self.expire(id);
            } else if owes {
                self.owe(id);
            }
        }
    }

    /// The next event, until there is none.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Appends a line (newline included, within [`limits::FRAME_BYTES_MAX`]) to what goes out with the next
    /// [`Self::flush`]; a longer one is dropped and counted. Larger entries and posts: [`Self::send_large`].
    ///
    /// Until the session is up, lines wait, up to [`limits::UNSENT_BYTES_MAX`]; then up to [`limits::UNSENT_UP_BYTES_MAX`]
    /// between two flushes. Past that they are dropped and counted.
    pub fn send(&mut self, session: SessionId, line: &[u8]) {
        let Some(state) = self.sessions.get_mut(&session) else { return };
        let newline = !line.ends_with(b"\n");
        let bytes = line.len() + usize::from(newline);
        let unsent_max = if state.is_up() { limits::UNSENT_UP_BYTES_MAX } else { limits::UNSENT_BYTES_MAX };
        if bytes > limits::FRAME_BYTES_MAX {
            self.counters.add("line_too_long");
        } else if state.pending.len() + bytes > unsent_max {
            self.counters.add("unsent_full");
        } else {
            state.pending.extend_from_slice(line);
            if newline {
                state.pending.push(b'\n');
            }
            list(&mut self.listed, session, state);
            if let Some(talk) = &mut self.talk {
                census::note(&mut talk.said, line);
            }
        }
    }

    /// Sends a line of any length up to [`limits::FRAGMENTED_LINE_BYTES_MAX`]: as it is if it fits, else as fragments
    /// `of` it. At the other side it comes out whole.
    ///
    /// Where [`limits::UNSENT_LARGE_BYTES_MAX`] wait already, it is dropped and counted: entries and posts come again.
    pub fn send_large(&mut self, session: SessionId, of: impl FnOnce() -> FragmentOf, line: &str) {
        let Some(state) = self.sessions.get(&session) else { return };
        if state.pending.len() >= limits::UNSENT_LARGE_BYTES_MAX {
            self.counters.add("unsent_full");
        } else if line.trim_end_matches('\n').len() < limits::FRAME_BYTES_MAX {
            self.send(session, line.as_bytes());
        } else if line.len() > limits::FRAGMENTED_LINE_BYTES_MAX {
            self.counters.add("line_too_long");
        } else {
            for piece in fragment::split(of(), line) {
                self.send(session, piece.as_bytes());
            }
        }
    }

    /// Seals what was sent, as many lines to a packet as fit, and hands over all datagrams: (to, bytes). Ends the turn: what
    /// a turn may cost is rationed.
    pub fn flush(&mut self, _now: Time, out: &mut Vec<(SocketAddr, Vec<u8>)>) {
        self.gate.next_turn();
        out.append(&mut self.baked);
        let mut listed = mem::take(&mut self.listed);
        for id in listed.drain(..) {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            session.listed = false;
            let owes = mem::take(&mut session.owes);
            match &session.phase {
                Phase::Calling(calling) if owes => out.push((session.addr, calling.init.clone())),
                Phase::HalfOpen(half) if owes => out.extend(half.answer.clone().map(|answer| (session.addr, answer))),
                Phase::Calling(_) | Phase::HalfOpen(_) => {}
                Phase::Up(_) => seal_pending(session, owes, out),
            }
        }
        self.listed = listed;
    }

    /// When [`Self::tick`] is wanted; `None`: not at all. May be earlier than there is something to do.
    pub fn deadline(&self) -> Option<Time> {
        if self.gate.is_waited_at() { Some(self.now) } else { self.timers.first() }
    }

    /// Where the other side was last heard, or is hoped to be.
    pub fn addr(&self, session: SessionId) -> Option<SocketAddr> {
        self.sessions.get(&session).map(|session| session.addr)
    }

    /// When the other side was last heard; `None` as long as the session is not up.
    pub fn heard(&self, session: SessionId) -> Option<Time> {
        self.sessions.get(&session).filter(|session| session.is_up()).map(|session| session.heard)
    }

    /// Datagrams dropped, by cause.
    pub fn counters(&self) -> &BTreeMap<&'static str, u64> {
        &self.counters.0
    }

    /// How many sealed packets were taken: opened, authentic, and for the first time.
    pub fn packets_taken(&self) -> u64 {
        self.packets_taken
    }

    /// An index that no session has.
    pub(super) fn new_id(&mut self) -> SessionId {
        loop {
            let id = SessionId(self.rng.u32());
            if id.0 != 0 && !self.sessions.contains_key(&id) {
                return id;
            }
        }
    }

    pub(super) fn insert(&mut self, id: SessionId, session: Session) {
        let mut session = Box::new(session);
        self.timers.insert(id, &mut session);
        self.sessions.insert(id, session);
    }

    /// Drops a session and says so.
    pub(super) fn expire(&mut self, id: SessionId) {
        self.close(id);
        self.events.push_back(Event::Closed { session: id });
    }

    /// Lets a packet of the session go out with the next flush, whether or not it has lines to carry.
    pub(super) fn owe(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.owes = true;
            list(&mut self.listed, id, session);
        }
    }
}

/// Puts a session on the list for the next flush, once.
fn list(listed: &mut Vec<SessionId>, id: SessionId, session: &mut Session) {
    if !mem::replace(&mut session.listed, true) {
        listed.push(id);
    }
}

/// Seals the session's lines; if there are none and it `owes` a packet, an empty one.
fn seal_pending(session: &mut Session, owes: bool, out: &mut Vec<(SocketAddr, Vec<u8>)>) {
    let Some(sealed) = &mut session.sealed else { return };
    let pending = mem::take(&mut session.pending);
    if let Some(message) = session.rekey.as_deref_mut().and_then(Rekey::take_owed) {
        out.push((session.addr, sealed.seal(message)));
    } else if pending.is_empty() && owes {
        out.push((session.addr, sealed.seal(&[])));
    }
    let mut rest = &pending[..];
    while !rest.is_empty() {
        let (lines, after) = rest.split_at(whole_lines(rest));
        out.push((session.addr, sealed.seal(lines)));
        rest = after;
    }
}

/// How many bytes of `pending` go into one packet: whole lines, each of which fits one by itself.
fn whole_lines(pending: &[u8]) -> usize {
    if pending.len() <= limits::PAYLOAD_BYTES_MAX {
        return pending.len();
    }
    let newline = pending[..limits::PAYLOAD_BYTES_MAX].iter().rposition(|byte| *byte == b'\n');
    newline.expect("no line is longer than a packet") + 1
}
