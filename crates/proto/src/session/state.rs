//! One session: how far it is, what it has to say, and when it next wants to be woken.
//!
//! ```text
//! connect -> Calling ----------- answer ------------> Up
//! init ----> HalfOpen, asked -- accept --> HalfOpen, answered -- first sealed packet --> Up
//! ```
//!
//! A session that is up may have new keys under way besides: see `rekey`.

use std::{collections::BTreeSet, net::SocketAddr};

use crate::{
    limits,
    session::{
        Role, SessionId,
        half_open::AskId,
        handshake::{Initiator, Parties, Responder},
        rekey::{NEVER, Rekey},
        sealed::Sealed,
    },
    time::{Duration, Time},
    wire::fragment::Assembler,
};

/// When a packet that was not answered is repeated for the first time.
const FIRST_REPEAT: Duration = Duration::from_millis(100);
/// How often the initiator's confirmation is repeated before it gives up.
const CONFIRMS_MAX: u32 = 6;
/// After so many doublings nothing is repeated any more.
const REPEATS_MAX: u32 = 16;
/// How long the pieces of a line wait for the rest, at least.
const FRAGMENTS_KEPT: Duration = Duration::from_secs(10);

/// To what the timers of silent sessions are rounded up: so that a hundred thousand of them wake the loop once a second, and
/// not each for itself.
pub(super) const SILENT_GRAIN: Duration = Duration::from_secs(1);

/// A session. Kept small: a server has a hundred thousand, most of them idle.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) role: Role,
    pub(super) parties: Parties,
    /// Where the newest authentic packet came from.
    pub(super) addr: SocketAddr,
    /// When the last authentic packet came, or the session began.
    pub(super) heard: Time,
    pub(super) phase: Phase,
    /// There once the handshake's messages have both been written or read.
    pub(super) sealed: Option<Sealed>,
    /// There while the keys change, and shortly after.
    pub(super) rekey: Option<Box<Rekey>>,
    /// When the initiator next wants new keys.
    pub(super) rekey_at: Time,
    /// Lines that wait until the session is up.
    #[expect(clippy::box_collection, reason = "next to no session has any")]
    pub(super) waiting: Option<Box<Vec<u8>>>,
    /// Lines of which pieces have come, and when the last did.
    pub(super) assembler: Option<Box<(Assembler, Time)>>,
    /// Whether a packet has to go out even though no line waits: the handshake's message, or an empty one.
    pub(super) owes: bool,
    /// When its timer is set for: at the latest when it is due, of a silent one up to [`SILENT_GRAIN`] after that.
    armed: Time,
}

/// How far a session is.
#[derive(Debug)]
pub(super) enum Phase {
    /// We opened it, and wait for the answer.
    Calling(Box<Calling>),
    /// The other side opened it, and has not yet proved itself.
    HalfOpen(Box<Half>),
    /// Both sides have proved themselves. The initiator repeats its confirmation until it hears a sealed packet.
    Up(Option<Repeats>),
}

/// An initiator that waits for the answer.
#[derive(Debug)]
pub(super) struct Calling {
    pub(super) handshake: Initiator,
    pub(super) init: Vec<u8>,
    pub(super) repeats: Repeats,
    /// Cookies that were answered at once since the last repeat.
    pub(super) cookies: u32,
}

/// A responder that waits for the initiator to prove itself.
#[derive(Debug)]
pub(super) struct Half {
    pub(super) ask: AskId,
    /// How large the init was: the answer must not be larger.
    pub(super) ask_bytes: usize,
    /// The initiator's index of the session.
    pub(super) remote: u32,
    pub(super) asked: Time,
    pub(super) payload: Vec<u8>,
    pub(super) responder: Responder,
    /// The answer, once there is one: repeated as it is.
    pub(super) answer: Option<Vec<u8>>,
}

/// A packet that is sent again 100, 200, 400, ... ms after it was first sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repeats {
    since: Time,
    count: u32,
}

impl Repeats {
    pub(super) fn new(since: Time) -> Self {
        Self { since, count: 0 }
    }

    pub(super) fn due(self) -> Time {
        self.since + FIRST_REPEAT * (1 << self.count.min(REPEATS_MAX))
    }

    fn advance(&mut self, now: Time) {
        while self.due() <= now && self.count < REPEATS_MAX {
            self.count += 1;
        }
    }

    /// The same for what is repeated without end, and at least each `span`.
    pub(super) fn advance_by(&mut self, span: Duration, now: Time) {
        self.advance(now);
        if self.due() <= now || self.due() > now + span {
            let times = (span.as_millis() / FIRST_REPEAT.as_millis()).max(1);
            *self = Self { since: now, count: times.ilog2() };
        }
    }

    /// The same for what is repeated without end: begins anew after some hours.
    pub(super) fn advance_or_restart(&mut self, now: Time) {
        self.advance(now);
        if self.due() <= now {
            *self = Self::new(now);
        }
    }
}

/// What a session wants when it is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing: its deadline had moved.
    Nothing,
    /// To repeat its packet.
    Repeat,
    /// To go on with the change of its keys, or to begin one.
    Rekey,
    /// To be dropped.
    Close,
}

impl Session {
    pub(super) fn new(role: Role, parties: Parties, addr: SocketAddr, phase: Phase, now: Time) -> Self {
        Self {
            role,
            parties,
            addr,
            heard: now,
            phase,
            sealed: None,
            rekey: None,
            rekey_at: NEVER,
            waiting: None,
            assembler: None,
            owes: false,
            armed: Time::ZERO,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up(_))
    }

    /// Bytes of lines that wait until it is up.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.len())
    }

    /// When it next wants something.
    fn due(&self) -> Time {
        self.phase_due().min(self.rekey.as_deref().map_or(self.rekey_at, Rekey::due))
    }

    /// When its timer is to go off: then, or a little later.
    fn alarm(&self) -> Time {
        match (&self.phase, &self.rekey) {
            (Phase::Up(None), None) => self.phase_due().rounded_up(SILENT_GRAIN).min(self.rekey_at),
            _ => self.due(),
        }
    }

    fn phase_due(&self) -> Time {
        match &self.phase {
            Phase::Calling(calling) => calling.repeats.due().min(calling.repeats.since + limits::HANDSHAKE_SPAN_MAX),
            Phase::HalfOpen(half) => half.asked + limits::HANDSHAKE_SPAN_MAX,
            Phase::Up(Some(confirm)) => confirm.due().min(self.heard + limits::SILENCE_MAX),
            Phase::Up(None) => self.heard + limits::SILENCE_MAX,
        }
    }

    /// What it wants at `now`.
    pub(super) fn wake(&mut self, now: Time) -> Due {
        if now < self.due() {
            return Due::Nothing;
        }
        if now < self.phase_due() {
            let is_given_up = self.rekey.as_deref().is_some_and(|rekey| rekey.is_given_up(now));
            return if is_given_up { Due::Close } else { Due::Rekey };
        }
        match &mut self.phase {
            Phase::Calling(calling) if now < calling.repeats.since + limits::HANDSHAKE_SPAN_MAX => {
                calling.repeats.advance(now);
                calling.cookies = 0;
                Due::Repeat
            }
            Phase::Up(Some(confirm)) if confirm.count < CONFIRMS_MAX && now < self.heard + limits::SILENCE_MAX => {
                confirm.advance(now);
                confirm.count = confirm.count.min(CONFIRMS_MAX);
                Due::Repeat
            }
            _ => Due::Close,
        }
    }

    /// Forgets pieces of lines whose rest has not come for a while.
    pub(super) fn forget_stale_fragments(&mut self, now: Time) {
        if self.assembler.as_ref().is_some_and(|assembler| now.since(assembler.1) > FRAGMENTS_KEPT) {
            self.assembler = None;
        }
    }
}

/// When each session is next looked at. A deadline that moves back, as it does with each packet heard, is left where it
/// is and set anew when it comes: so hearing a packet costs nothing here.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Time, SessionId)>);

impl Timers {
    /// Sets the timer of a new session.
    pub(super) fn insert(&mut self, id: SessionId, session: &mut Session) {
        session.armed = session.alarm();
        self.0.insert((session.armed, id));
    }

    /// Sets it earlier, if the session is now due earlier.
    pub(super) fn update(&mut self, id: SessionId, session: &mut Session) {
        if session.alarm() < session.armed {
            self.remove(id, session);
            self.insert(id, session);
        }
    }

    /// Clears it.
    pub(super) fn remove(&mut self, id: SessionId, session: &Session) {
        self.0.remove(&(session.armed, id));
    }

    /// The earliest.
    pub(super) fn first(&self) -> Option<Time> {
        self.0.first().map(|(at, _)| *at)
    }

    /// A session whose timer has come; it is cleared by that.
    pub(super) fn pop(&mut self, now: Time) -> Option<SessionId> {
        self.first().filter(|at| *at <= now)?;
        self.0.pop_first().map(|(_, id)| id)
    }
}
