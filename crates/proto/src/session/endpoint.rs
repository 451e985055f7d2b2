//! The endpoint: the table of sessions, and what its owner can ask of them. What arrives is dealt with in `incoming`.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    net::SocketAddr,
    sync::Arc,
};

use crate::{
    limits,
    log::{Entry, room::Kept},
    rng::Rng,
    session::{
        Datagrams, Event, Role, SessionId,
        census::{self, Talk},
        cipher::{Ready, Warm},
        cookie::Cookies,
        gate::Gate,
        half_open::HalfOpen,
        handshake::{Initiator, Parties},
        incoming::Init,
        keys::{KeyPair, Suite},
        outbox::{Chain, LineId, Outbox, Packets},
        rekey::Rekey,
        sealed::Sealed,
        state::{Calling, Due, Phase, Repeats, Session, Timers},
        table::Table,
    },
    time::Time,
    wire::{
        fragment,
        frame::FragmentOf,
        packet::{self, NO_COOKIE, Packet},
    },
};

/// A switch that dies ends thousands of sessions in one moment, and each has its owner clean up after it.
const EXPIRED_PER_TICK: usize = 128;

/// All sessions of one socket.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) key: Option<Arc<KeyPair>>,
    pub(super) rng: Rng,
    pub(super) sessions: Table,
    pub(super) warm: Warm,
    pub(super) half_open: HalfOpen,
    pub(super) gate: Gate,
    pub(super) cookies: Cookies,
    /// Cookie packets that wait for the next flush.
    pub(super) baked: Vec<(SocketAddr, Vec<u8>)>,
    /// The latest time that was told.
    pub(super) now: Time,
    pub(super) timers: Timers,
    /// Sessions that the next flush looks at, each once or twice.
    listed: Vec<SessionId>,
    /// How many of them it has looked at.
    flushed: usize,
    /// Whether it has begun and not ended.
    is_flushing: bool,
    /// What it sends.
    pub(super) outbox: Outbox,
    /// What is about to be sealed.
    packets: Packets,
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
            sessions: Table::default(),
            warm: Warm::default(),
            half_open: HalfOpen::default(),
            gate: Gate::default(),
            cookies: Cookies::default(),
            baked: Vec::new(),
            now: Time::ZERO,
            timers: Timers::default(),
            listed: Vec::new(),
            flushed: 0,
            is_flushing: false,
            outbox: Outbox::default(),
            packets: Packets::default(),
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
        let Some((keys, noise)) = half.responder.answer(payload) else { return };
        half.answer = Some(Packet::Answer { sender: session.0, receiver: half.remote, noise: &noise }.to_bytes());
        state.sealed = Some(Sealed::new(keys, half.remote, 0));
        self.owe(session);
    }

    /// Drops a session without a word, and without an event.
    pub fn close(&mut self, session: SessionId) {
        let Some(state) = self.sessions.remove(&session) else { return };
        self.timers.remove(session, &state);
        self.warm.forget(session);
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

    /// Answers handshakes that wait, repeats our own, changes keys, and drops what has expired: so many that the owner is
    /// not kept from other things, and the next ones where [`Self::deadline`] wants the next tick, at once.
    pub fn tick(&mut self, now: Time) {
        self.now = now;
        self.answer_waiting(now);
        let mut expired = 0;
        while expired < EXPIRED_PER_TICK
            && let Some(id) = self.timers.pop(now)
        {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            session.forget_stale_fragments(now);
            let due = session.wake(now);
            let changed = session.rekey.is_some();
            let owes = due == Due::Repeat || (due == Due::Rekey && session.advance_rekey(id, &mut self.rng, now));
            if changed && session.rekey.is_none() {
                // The last keys are gone for good, and what was made of them has to be.
                self.warm.forget(id);
            }
            self.timers.insert(id, session);
            if due == Due::Close {
                expired += 1;
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
        let Some(state) = self.sessions.get(&session) else { return };
        let bytes = line.len() + usize::from(!line.ends_with(b"\n"));
        let unsent_max = if state.is_up() { limits::UNSENT_UP_BYTES_MAX } else { limits::UNSENT_BYTES_MAX };
        if bytes > limits::FRAME_BYTES_MAX {
            self.counters.add("line_too_long");
        } else if self.unsent_bytes(session) + bytes > unsent_max || self.outbox.is_full() {
            self.counters.add("unsent_full");
        } else {
            let put = self.outbox.put(line);
            self.append(session, put);
            if let Some(talk) = &mut self.talk {
                census::note(&mut talk.said, line);
            }
        }
    }

    /// The line of an entry, for as many sessions as are to get it in this turn ([`Self::send_put`]); `None` where it does
    /// not fit a packet, or there is no room: then [`Self::send_large`]. `before` is the entry before it of the same origin
    /// in the same room, where that is at hand: directly behind that one it goes in short.
    pub(crate) fn put_entry(&mut self, kept: &Kept, before: Option<&Entry>) -> Option<LineId> {
        let fits = kept.line.len() <= limits::FRAME_BYTES_MAX && !self.outbox.is_full();
        fits.then(|| self.outbox.put_entry(kept, before))
    }

    /// Sends a line that was put in just before, to a session that is up. Where [`limits::UNSENT_LARGE_BYTES_MAX`] of this
    /// turn wait for that already, it is dropped and counted: entries come again. So at most one line more than that waits.
    pub(crate) fn send_put(&mut self, session: SessionId, line: LineId) {
        let chain = self.sessions.chain(&session);
        if self.outbox.bytes(chain) >= limits::UNSENT_LARGE_BYTES_MAX || self.outbox.is_full() {
            return self.counters.add("unsent_full");
        }
        self.append(session, line);
        if let Some(talk) = &mut self.talk {
            census::note(&mut talk.said, self.outbox.text(line));
        }
    }

    fn append(&mut self, session: SessionId, line: LineId) {
        let Some(chain) = self.sessions.chain_mut(&session) else { return };
        if chain.is_empty() {
            self.listed.push(session);
        }
        self.outbox.append(chain, line);
    }

    /// Bytes of lines that a session has not sent, none of them in short.
    pub(super) fn unsent_bytes(&self, session: SessionId) -> usize {
        let waiting = self.sessions.get(&session).map_or(0, Session::waiting_bytes);
        waiting + self.outbox.bytes(self.sessions.chain(&session))
    }

    /// Sends a line of any length up to [`limits::FRAGMENTED_LINE_BYTES_MAX`]: as it is if it fits, else as fragments
    /// `of` it. At the other side it comes out whole.
    ///
    /// Where [`limits::UNSENT_LARGE_BYTES_MAX`] wait already, it is dropped and counted: entries and posts come again.
    pub fn send_large(&mut self, session: SessionId, of: impl FnOnce() -> FragmentOf, line: &str) {
        if self.unsent_bytes(session) >= limits::UNSENT_LARGE_BYTES_MAX {
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

    /// Seals a line at once: a last word in a session that is closed before the next [`Self::flush`], and where that goes.
    /// What else the session has to say does not go with it. `None` where it is not up.
    pub fn seal(&mut self, session: SessionId, line: &[u8]) -> Option<(SocketAddr, Vec<u8>)> {
        let state =
            self.sessions.get_mut(&session).filter(|state| state.is_up() && line.len() <= limits::FRAME_BYTES_MAX)?;
        let mut out = Datagrams::default();
        state.sealed.as_mut()?.seal(line, state.addr, &mut out, self.warm.of(session));
        out.iter().next().map(|(to, sealed)| (to, sealed.to_vec()))
    }

    /// Seals what was sent, as many lines to a packet as fit, and hands over all datagrams. Ends the turn: what a turn may
    /// cost is rationed.
    pub fn flush(&mut self, now: Time, out: &mut Datagrams) {
        while self.flush_some(now, out, usize::MAX) {}
    }

    /// The same in pieces: ends when `out` has come to so many bytes, or a few more. Whether there is more to be handed over.
    pub fn flush_some(&mut self, _now: Time, out: &mut Datagrams, bytes_max: usize) -> bool {
        if !mem::replace(&mut self.is_flushing, true) {
            self.gate.next_turn();
            for (to, cookie) in self.baked.drain(..) {
                out.push(to, &cookie);
            }
        }
        while let Some(&id) = self.listed.get(self.flushed) {
            if out.bytes() >= bytes_max {
                return true;
            }
            self.flushed += 1;
            let Some(chain) = self.sessions.chain_mut(&id).map(mem::take) else { continue };
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            let owes = mem::take(&mut session.owes);
            match &session.phase {
                Phase::Up(_) => {
                    seal_lines(session, chain, owes, &self.outbox, &mut self.packets, self.warm.of(id), out);
                }
                Phase::Calling(calling) if owes => out.push(session.addr, &calling.init),
                Phase::HalfOpen(half) if owes => {
                    if let Some(answer) = &half.answer {
                        out.push(session.addr, answer);
                    }
                }
                Phase::Calling(_) | Phase::HalfOpen(_) => {}
            }
            if !session.is_up() {
                keep_waiting(session, chain, &self.outbox);
            }
        }
        self.listed.clear();
        self.flushed = 0;
        self.is_flushing = false;
        self.outbox.clear();
        self.packets.clear();
        false
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
        self.sessions.new_id(&mut self.rng).expect("nobody has more sessions than a server may have")
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
        if let Some(session) = self.sessions.get_mut(&id)
            && !mem::replace(&mut session.owes, true)
        {
            self.listed.push(id);
        }
    }
}

/// Seals the session's lines; if there are none and it `owes` a packet, an empty one.
fn seal_lines(
    session: &mut Session,
    chain: Chain,
    owes: bool,
    outbox: &Outbox,
    packets: &mut Packets,
    ready: &mut Ready,
    out: &mut Datagrams,
) {
    let waiting = session.waiting.take();
    let Some(sealed) = &mut session.sealed else { return };
    let to = session.addr;
    if let Some(message) = session.rekey.as_deref_mut().and_then(Rekey::take_owed) {
        sealed.seal(message, to, out, ready);
    } else if chain.is_empty() && waiting.is_none() && owes {
        sealed.seal(&[], to, out, ready);
    }
    if !chain.is_empty() || waiting.is_some() {
        packets.fill(waiting.as_deref().map(Vec::as_slice), chain, outbox);
        packets.iter().for_each(|packet| sealed.seal(packet, to, out, ready));
    }
}

/// Lines of a session that is not up wait beyond this turn.
fn keep_waiting(session: &mut Session, chain: Chain, outbox: &Outbox) {
    if !chain.is_empty() {
        let waiting = session.waiting.get_or_insert_default();
        outbox.lines(chain).for_each(|line| waiting.extend_from_slice(line));
    }
}
