//! New keys for a session that stands, each hour +-25 %: what was said before is safe from whoever learns the keys of now,
//! and whoever learned them is shut out again.
//!
//! ```text
//! initiator, keys n                                responder, keys n
//!    | -- ask n+1: Noise KK message 1 ---------------> |  has keys n+1 too; may open, does not yet seal with them
//!    | <------------- answer n+1: Noise KK message 2 - |  sealed with keys n
//!    | has keys n+1, seals with them                   |
//!    | -- any packet sealed with keys n+1 -----------> |  seals with them from now on
//!    | <------------ any packet sealed with keys n+1 - |
//! ```
//!
//! Both messages travel as sealed packets of the session. So nobody else can begin this, no packet looks other than the
//! rest, the session keeps its indices and addresses, and it needs no cookie. They are a handshake all the same, with both
//! static keys in it and bound to the session and the epoch: to have a session's keys is not enough to get the next ones.
//!
//! A packet says under which epoch's keys it is sealed. The last ones are kept until the new ones are known to work, and
//! for [`limits::LAST_KEYS_KEPT`] more, for what was overtaken on its way. The initiator repeats its ask until it is
//! answered, always the same one, since the responder may have the keys already, and drops the session after
//! [`limits::REKEY_SPAN_MAX`]; it repeats an empty packet until it hears
//! one under the new keys. A responder answers one ask at a time.

use crate::{
    limits,
    rng::Rng,
    session::{
        Role, SessionId,
        cipher::Ready,
        gate::Gate,
        handshake::{self, Binding, Initiator},
        sealed::{Sealed, Unopened},
        state::{Phase, Repeats, Session},
    },
    time::{Duration, Time},
};

/// How much the hour differs from one time to the next, in percent: so that sessions opened in one moment do not all want
/// new keys in one.
const JITTER_PERCENT: u32 = 25;
/// The first byte of a sealed ask. No line begins with a control character.
const ASK: u8 = 1;
/// The first byte of a sealed answer.
const ANSWER: u8 = 2;

/// How long an initiator waits, at the most, before it asks for new keys again.
const ASK_EVERY_MAX: Duration = Duration::from_mins(1);

/// What a session keeps besides its keys while they change, and shortly after.
#[derive(Debug)]
pub(super) enum Rekey {
    /// The initiator has asked for the next keys.
    Asking { epoch: u16, handshake: Box<Initiator>, ask: Vec<u8>, since: Time, repeats: Repeats, owed: bool },
    /// The responder has the next keys, and does not know whether the initiator has them.
    Offered { next: Sealed, ask: Vec<u8>, answer: Vec<u8>, owed: bool },
    /// The keys have changed. `until` is known once a packet under the new ones was heard; before that, the initiator
    /// repeats its own.
    Changed { last: Sealed, confirm: Repeats, until: Option<Time> },
    /// The responder could not read an ask, and reads no other for a while.
    Refusing { until: Time },
}

impl Rekey {
    /// When it next wants something.
    pub(super) fn due(&self) -> Time {
        match self {
            Self::Asking { repeats, .. } => repeats.due(),
            Self::Offered { .. } => NEVER,
            Self::Changed { until: Some(until), .. } | Self::Refusing { until } => *until,
            Self::Changed { confirm, .. } => confirm.due(),
        }
    }

    /// Whether nobody has answered for so long that the keys in use have become too old.
    pub(super) fn is_given_up(&self, now: Time) -> bool {
        matches!(self, Self::Asking { since, .. } if *since + limits::REKEY_SPAN_MAX <= now)
    }

    /// The message that has to go out now, once.
    pub(super) fn take_owed(&mut self) -> Option<&[u8]> {
        match self {
            Self::Asking { ask: message, owed, .. } | Self::Offered { answer: message, owed, .. } => {
                std::mem::take(owed).then_some(message)
            }
            Self::Changed { .. } | Self::Refusing { .. } => None,
        }
    }
}

/// Later than everything.
pub(super) const NEVER: Time = Time::from_micros(u64::MAX);

/// When a session that has new keys wants others.
pub(super) fn next_time(rng: &mut Rng, now: Time) -> Time {
    now + rng.jitter(limits::REKEY_EVERY, JITTER_PERCENT)
}

impl Session {
    /// Opens a packet into `plain`: how many bytes, and whether it is the newest so far. A packet that cannot be opened
    /// changes nothing. The first one under the next keys makes them those of the session.
    pub(super) fn open(
        &mut self,
        counter: u64,
        ciphertext: &[u8],
        plain: &mut [u8],
        ready: &mut Ready,
        now: Time,
    ) -> Result<(usize, bool), Unopened> {
        let current = self.sealed.as_mut().ok_or(Unopened::Early)?;
        if current.has(counter) {
            let opened = current.open(counter, ciphertext, plain, ready)?;
            if let Some(Rekey::Changed { until: until @ None, .. }) = self.rekey.as_deref_mut() {
                *until = Some(now + limits::LAST_KEYS_KEPT);
            }
            return Ok(opened);
        }
        match self.rekey.as_deref_mut() {
            Some(Rekey::Changed { last, until, .. }) if last.has(counter) => {
                let (len, newest) = last.open(counter, ciphertext, plain, ready)?;
                Ok((len, newest && until.is_none()))
            }
            Some(Rekey::Offered { next, .. }) if next.has(counter) => {
                let (len, _) = next.open(counter, ciphertext, plain, ready)?;
                if let Some(Rekey::Offered { next, .. }) = self.rekey.take().map(|rekey| *rekey) {
                    self.change_to(next, Some(now + limits::LAST_KEYS_KEPT), now);
                }
                Ok((len, true))
            }
            _ => Err(Unopened::UnknownKeys),
        }
    }

    /// Does what is due of a change of keys; whether a packet has to go out.
    pub(super) fn advance_rekey(&mut self, id: SessionId, rng: &mut Rng, now: Time) -> bool {
        match self.rekey.as_deref_mut() {
            None => self.ask_for_keys(id, rng, now),
            Some(Rekey::Asking { repeats, owed, .. }) => {
                repeats.advance_by(ASK_EVERY_MAX, now);
                *owed = true;
                true
            }
            Some(Rekey::Changed { confirm, until: None, .. }) => {
                confirm.advance_or_restart(now);
                true
            }
            Some(Rekey::Changed { .. } | Rekey::Refusing { .. }) => {
                self.rekey = None;
                false
            }
            Some(Rekey::Offered { .. }) => false,
        }
    }

    /// Takes what a sealed packet carried, where that is about keys; `None` where it is lines. `Ok` with whether a packet
    /// has to go out, else the cause for which it is dropped.
    pub(super) fn take_rekey(
        &mut self,
        id: SessionId,
        plain: &[u8],
        gate: &mut Gate,
        rng: &mut Rng,
        now: Time,
    ) -> Option<Result<bool, &'static str>> {
        let (kind, rest) = plain.split_first().filter(|(kind, _)| [ASK, ANSWER].contains(kind))?;
        let Some((epoch, noise)) = rest.split_first_chunk() else { return Some(Err("rekey_bad")) };
        let epoch = u16::from_be_bytes(*epoch);
        Some(match (kind, self.role, &self.phase) {
            (&ASK, Role::Responder, Phase::Up(_)) => self.on_ask(id, epoch, noise, gate, rng, now),
            (&ANSWER, Role::Initiator, Phase::Up(_)) => self.on_answer(epoch, noise, rng, now),
            _ => Err("rekey_stray"),
        })
    }

    fn ask_for_keys(&mut self, id: SessionId, rng: &mut Rng, now: Time) -> bool {
        let Some(binding) = self.next_binding(id) else { return false };
        let (handshake, noise) = Initiator::again(&self.parties, binding, rng.fork());
        let (epoch, handshake) = (binding.epoch, Box::new(handshake));
        let ask = message(ASK, epoch, &noise);
        self.rekey =
            Some(Box::new(Rekey::Asking { epoch, handshake, ask, since: now, repeats: Repeats::new(now), owed: true }));
        true
    }

    fn on_ask(
        &mut self,
        id: SessionId,
        epoch: u16,
        noise: &[u8],
        gate: &mut Gate,
        rng: &mut Rng,
        now: Time,
    ) -> Result<bool, &'static str> {
        let binding = self.next_binding(id).filter(|binding| binding.epoch == epoch).ok_or("rekey_stale")?;
        match self.rekey.as_deref_mut() {
            Some(Rekey::Offered { ask, owed, .. }) if ask == noise => {
                *owed = true;
                return Ok(true);
            }
            Some(Rekey::Offered { .. }) => return Err("rekey_stale"),
            Some(_) => return Err("rekey_early"),
            None => {}
        }
        if !gate.take_rekey() {
            return Err("rekey_rationed");
        }
        let Some((keys, answer)) = handshake::answer_again(&self.parties, binding, noise, rng.fork()) else {
            self.rekey = Some(Box::new(Rekey::Refusing { until: now + limits::LAST_KEYS_KEPT }));
            return Err("rekey_bad");
        };
        let next = Sealed::new(keys, binding.initiator, epoch);
        let answer = message(ANSWER, epoch, &answer);
        self.rekey = Some(Box::new(Rekey::Offered { next, ask: noise.to_vec(), answer, owed: true }));
        Ok(true)
    }

    fn on_answer(&mut self, asked: u16, noise: &[u8], rng: &mut Rng, now: Time) -> Result<bool, &'static str> {
        let keys = match self.rekey.as_deref_mut() {
            Some(Rekey::Asking { epoch, handshake, .. }) if *epoch == asked => {
                handshake.finish(noise).ok_or("rekey_bad")?.0
            }
            _ => return Err("rekey_stale"),
        };
        let remote = self.sealed.as_ref().ok_or("rekey_stale")?.remote();
        self.change_to(Sealed::new(keys, remote, asked), None, now);
        self.rekey_at = next_time(rng, now);
        Ok(true)
    }

    /// Seals with `next` from now on.
    fn change_to(&mut self, next: Sealed, until: Option<Time>, now: Time) {
        let Some(last) = self.sealed.replace(next) else { return };
        self.rekey = Some(Box::new(Rekey::Changed { last, confirm: Repeats::new(now), until }));
    }

    /// What the next keys are bound to.
    fn next_binding(&self, id: SessionId) -> Option<Binding> {
        let sealed = self.sealed.as_ref()?;
        let (initiator, responder) = match self.role {
            Role::Initiator => (id.0, sealed.remote()),
            Role::Responder => (sealed.remote(), id.0),
        };
        Some(Binding { epoch: sealed.epoch().wrapping_add(1), initiator, responder })
    }
}

fn message(kind: u8, epoch: u16, noise: &[u8]) -> Vec<u8> {
    [&[kind], &epoch.to_be_bytes()[..], noise].concat()
}
