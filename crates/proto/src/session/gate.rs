//! The gate: which handshakes are computed now, which wait, and who has to show a cookie first.
//!
//! A handshake costs 0.4 ms, almost all of it X25519, and a stranger may ask for as many as fit the wire. So a turn of the
//! loop, which ends with a flush, computes [`limits::HANDSHAKES_PER_TURN`] of them; the others wait for later turns in a
//! bounded queue, in the order in which they came. That the ration was used up, that others wait, or that there are many
//! half-open sessions is load: then, and for a second more, whoever shows no good cookie gets one and nothing else.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    limits,
    session::{
        half_open::{AskId, Source, source},
        keys::Suite,
    },
    time::{Duration, Time},
};

/// For how long a gate stays loaded: without that, each turn would begin with a ration for those without a cookie.
const LOADED_SPAN: Duration = Duration::from_secs(1);

/// An init that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ask: AskId,
    pub(super) suite: Suite,
    /// The initiator's index.
    pub(super) remote: u32,
    pub(super) noise: Box<[u8]>,
    /// How large the datagram was.
    pub(super) bytes: usize,
}

/// What is left of this turn's rations, and who waits.
#[derive(Debug)]
pub(super) struct Gate {
    handshakes: u32,
    rekeys: u32,
    loaded_until: Time,
    waiting: VecDeque<Waiting>,
}

impl Default for Gate {
    fn default() -> Self {
        let (handshakes, rekeys) = (limits::HANDSHAKES_PER_TURN, limits::REKEYS_PER_TURN);
        Self { handshakes, rekeys, loaded_until: Time::ZERO, waiting: VecDeque::new() }
    }
}

impl Gate {
    /// How many handshakes wait for a later turn.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Begins a turn with full rations.
    pub(super) fn next_turn(&mut self) {
        (self.handshakes, self.rekeys) = (limits::HANDSHAKES_PER_TURN, limits::REKEYS_PER_TURN);
    }

    /// Whether a handshake has to show a cookie.
    pub(super) fn is_loaded(&self, half_open: usize, now: Time) -> bool {
        self.handshakes == 0
            || !self.waiting.is_empty()
            || now < self.loaded_until
            || half_open >= limits::HALF_OPEN_LOADED
    }

    /// Takes one handshake from the ration, if there is one left.
    pub(super) fn take_handshake(&mut self, now: Time) -> bool {
        let left = self.handshakes > 0;
        self.handshakes = self.handshakes.saturating_sub(1);
        if self.handshakes == 0 {
            self.loaded_until = now + LOADED_SPAN;
        }
        left
    }

    /// Takes one rekey from the ration, if there is one left.
    pub(super) fn take_rekey(&mut self) -> bool {
        let left = self.rekeys > 0;
        self.rekeys = self.rekeys.saturating_sub(1);
        left
    }

    /// Lets an init wait behind the others, once however often it is repeated. Where the queue is full, one of the source
    /// with the most in it makes room: so a few addresses cannot keep it full. Else the cause for which one is dropped,
    /// this or that.
    pub(super) fn wait(&mut self, ask: AskId, init: impl FnOnce() -> Waiting) -> Result<(), &'static str> {
        let (source, mut others) = (source(ask.0), 0);
        for waiting in &self.waiting {
            if waiting.ask == ask {
                return Ok(());
            }
            others += usize::from(source.is_some() && self::source(waiting.ask.0) == source);
        }
        if others >= limits::HANDSHAKES_WAITING_PER_SOURCE_MAX {
            return Err("handshakes_source_full");
        }
        let is_full = self.waiting.len() >= limits::HANDSHAKES_WAITING_MAX;
        if is_full {
            let spare = self.spare(others + 1).ok_or("handshakes_full")?;
            self.waiting.remove(spare);
        }
        self.waiting.push_back(init());
        if is_full { Err("handshakes_replaced") } else { Ok(()) }
    }

    /// The last to come of the source that has the most in the queue, if those are more than `than`.
    fn spare(&self, than: usize) -> Option<usize> {
        let mut counts = BTreeMap::<Source, (usize, usize)>::new();
        for (at, waiting) in self.waiting.iter().enumerate() {
            if let Some(source) = source(waiting.ask.0) {
                let count = counts.entry(source).or_default();
                *count = (count.0 + 1, at);
            }
        }
        counts.into_values().max().filter(|(count, _)| *count > than).map(|(_, at)| at)
    }

    /// The init that has waited longest, with its part of the ration; `None` once either is used up.
    pub(super) fn next(&mut self, now: Time) -> Option<Waiting> {
        (!self.waiting.is_empty() && self.take_handshake(now)).then(|| self.waiting.pop_front()).flatten()
    }

    pub(super) fn is_waited_at(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn waiting(ip: u32, port: u16) -> (AskId, impl FnOnce() -> Waiting) {
        let ask = (SocketAddr::from((ip.to_be_bytes(), port)), [0; 32]);
        (ask, move || Waiting { ask, suite: Suite::AesGcm, remote: 1, noise: Box::default(), bytes: 0 })
    }

    #[test]
    fn a_turn_has_a_ration_and_using_it_up_is_load_for_a_second() {
        let (mut gate, now) = (Gate::default(), Time::from_micros(1));
        for _ in 0..limits::HANDSHAKES_PER_TURN {
            assert!(!gate.is_loaded(0, now) && gate.take_handshake(now));
        }
        assert!(gate.is_loaded(0, now) && !gate.take_handshake(now));
        gate.next_turn();
        assert!(gate.is_loaded(0, now) && !gate.is_loaded(0, now + LOADED_SPAN));
        assert!(gate.is_loaded(limits::HALF_OPEN_LOADED, now + LOADED_SPAN));
        assert!(gate.take_handshake(now));
    }

    #[test]
    fn only_so_many_wait_and_only_so_many_of_one_source() {
        fn check(sources: u32, expected: usize, cause: &'static str) {
            let mut gate = Gate::default();
            let mut dropped = Vec::new();
            for n in 0..1_000 {
                let (ask, init) = waiting(0x0a00_0000 + n % sources, n as u16);
                dropped.extend(gate.wait(ask, init).err());
            }
            assert_eq!((gate.waiting.len(), dropped.len()), (expected, 1_000 - expected));
            assert!(dropped.iter().all(|other| *other == cause), "{dropped:?}");
        }
        check(1, limits::HANDSHAKES_WAITING_PER_SOURCE_MAX, "handshakes_source_full");
        check(2, 2 * limits::HANDSHAKES_WAITING_PER_SOURCE_MAX, "handshakes_source_full");
        check(100, limits::HANDSHAKES_WAITING_MAX, "handshakes_full");
    }

    #[test]
    fn a_few_sources_cannot_keep_the_queue_full() {
        let mut gate = Gate::default();
        let mut wait = |ip, port| {
            let (ask, init) = waiting(ip, port);
            gate.wait(ask, init)
        };
        for n in 0..limits::HANDSHAKES_WAITING_MAX as u32 {
            wait(0x0a00_0000 + n % 4, n as u16).unwrap();
        }
        assert_eq!(wait(0x0a00_0001, 1_000), Err("handshakes_source_full"));
        for ip in 4..40 {
            assert_eq!(wait(0x0a00_0000 + ip, 1), Err("handshakes_replaced"));
            assert_eq!(wait(0x0a00_0000 + ip, 1), Ok(()), "it waits");
        }
        assert_eq!(gate.waiting.len(), limits::HANDSHAKES_WAITING_MAX);
        let first: Vec<_> = gate.waiting.iter().map(|waiting| waiting.ask.0.port()).take(100).collect();
        assert_eq!(first, (0..100).collect::<Vec<_>>(), "the last that came make room");
    }

    #[test]
    fn who_waits_is_next_in_order_and_once() {
        let (mut gate, now) = (Gate::default(), Time::ZERO);
        for n in [1, 2, 1, 3, 2] {
            let (ask, init) = waiting(0x7f00_0001, n);
            gate.wait(ask, init).unwrap();
        }
        assert!(gate.is_loaded(0, now));
        let order: Vec<_> = std::iter::from_fn(|| gate.next(now)).map(|waiting| waiting.ask.0.port()).collect();
        assert_eq!(order, [1, 2, 3]);
        assert!(!gate.is_waited_at());
    }
}
