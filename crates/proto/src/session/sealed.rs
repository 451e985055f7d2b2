//! Sealed packets under one pair of a session's keys: numbered, encrypted both ways, each taken at most once.
//!
//! The window is that of RFC 4303 (appendix A2): a packet may be up to [`limits::REPLAY_WINDOW`] behind the newest one. It
//! is looked at before decryption and moved only after, so that a forger cannot push it.

use std::net::SocketAddr;

use crate::{
    limits,
    planted::{self, Bug},
    session::{
        Datagrams,
        cipher::{Keys, Ready},
    },
    wire::packet::{self, SEALED_HEAD_BYTES, TAG_BYTES, sealed_head},
};

/// One session's keys of one epoch, and their counters.
#[derive(Debug)]
pub(super) struct Sealed {
    keys: Keys,
    /// The other side's index of the session.
    remote: u32,
    /// The counter of our next packet.
    next: u64,
    window: Window,
}

/// Why a sealed packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    /// The handshake is not done.
    Early,
    /// Sealed under keys that we have not, or have forgotten.
    UnknownKeys,
    /// Taken before, or too old to tell.
    Replayed,
    /// Not sealed for this session, or changed on the way.
    Forged,
}

impl Unopened {
    /// The name of its counter.
    pub(super) fn cause(self) -> &'static str {
        match self {
            Self::Early => "sealed_early",
            Self::UnknownKeys => "keys_unknown",
            Self::Replayed => "replayed",
            Self::Forged => "seal_bad",
        }
    }
}

impl Sealed {
    pub(super) fn new(keys: Keys, remote: u32, epoch: u16) -> Self {
        let first = packet::counter(epoch);
        Self { keys, remote, next: first, window: Window::new(first) }
    }

    /// The epoch of these keys.
    pub(super) fn epoch(&self) -> u16 {
        packet::epoch(self.next)
    }

    /// Whether the packet with this counter is sealed under these keys.
    pub(super) fn has(&self, counter: u64) -> bool {
        packet::epoch(counter) == self.epoch()
    }

    /// The other side's index of the session.
    pub(super) fn remote(&self) -> u32 {
        self.remote
    }

    /// Seals lines, or nothing, into a datagram.
    pub(super) fn seal(&mut self, lines: &[u8], to: SocketAddr, out: &mut Datagrams, ready: &mut Ready) {
        let datagram = out.add(to, SEALED_HEAD_BYTES + lines.len() + TAG_BYTES);
        datagram[..SEALED_HEAD_BYTES].copy_from_slice(&sealed_head(self.remote, self.next));
        let body = &mut datagram[SEALED_HEAD_BYTES..];
        body[..lines.len()].copy_from_slice(lines);
        self.keys.seal(self.next, body, ready);
        self.next += 1;
    }

    /// Opens a packet into `lines`: how many bytes, and whether it is the newest so far. A packet that cannot be opened
    /// changes nothing. `lines` is at least as long as `ciphertext`. The greatest counter of all is nobody's, as in Noise
    /// (section 5.1): there is none after it.
    pub(super) fn open(
        &mut self,
        counter: u64,
        ciphertext: &[u8],
        lines: &mut [u8],
        ready: &mut Ready,
    ) -> Result<(usize, bool), Unopened> {
        if !self.window.is_new(counter) && !planted::is(Bug::ReplayTaken) {
            return Err(Unopened::Replayed);
        }
        if counter == u64::MAX {
            return Err(Unopened::Forged);
        }
        let len = self.keys.open(counter, ciphertext, lines, ready).ok_or(Unopened::Forged)?;
        Ok((len, self.window.mark(counter)))
    }
}

const WORDS: usize = (limits::REPLAY_WINDOW / 64) as usize;

/// Which of the newest counters have been taken.
#[derive(Debug, Default)]
struct Window {
    /// One more than the newest.
    end: u64,
    /// One bit each, at the counter modulo the window; none where all below the newest have been taken, as in a session
    /// that has lost nothing.
    taken: Option<Box<[u64; WORDS]>>,
}

impl Window {
    /// Nothing has been taken from `first` on; what is below it is too old.
    fn new(first: u64) -> Self {
        Self { end: first, taken: None }
    }

    fn is_new(&self, counter: u64) -> bool {
        let (word, bit) = place(counter);
        let is_gap = |taken: &[u64; WORDS]| taken[word] & bit == 0;
        counter >= self.end
            || (self.end - counter <= limits::REPLAY_WINDOW && self.taken.as_deref().is_some_and(is_gap))
    }

    /// Takes a counter that is new and below 2^64 - 1; whether it is the newest.
    fn mark(&mut self, counter: u64) -> bool {
        let newest = counter >= self.end;
        if self.taken.is_none() && counter == self.end {
            self.end += 1;
            return newest;
        }
        let taken = self.taken.get_or_insert_with(|| Box::new([u64::MAX; WORDS]));
        if newest {
            if counter - self.end >= limits::REPLAY_WINDOW {
                **taken = [0; WORDS];
            } else {
                for passed in self.end..counter {
                    let (word, bit) = place(passed);
                    taken[word] &= !bit;
                }
            }
            self.end = counter + 1;
        }
        let (word, bit) = place(counter);
        taken[word] |= bit;
        if taken.iter().all(|word| *word == u64::MAX) {
            self.taken = None;
        }
        newest
    }
}

fn place(counter: u64) -> (usize, u64) {
    let at = counter % limits::REPLAY_WINDOW;
    ((at / 64) as usize, 1 << (at % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::session::keys::Suite;

    #[test]
    fn the_greatest_counter_opens_nothing_and_moves_no_window() {
        let keys = |seal, open| Keys::new(Suite::AesGcm, [seal; 32].into(), [open; 32].into());
        let (theirs, mut ours, mut ready) = (keys(1, 2), Sealed::new(keys(2, 1), 7, u16::MAX), Ready::default());
        let mut check = |counter, expected| {
            let mut packet = [0; TAG_BYTES + 5];
            theirs.seal(counter, &mut packet, &mut Ready::default());
            assert_eq!(ours.open(counter, &packet, &mut [0; 64], &mut ready), expected, "{counter}");
        };
        let first = packet::counter(u16::MAX);
        check(first, Ok((5, true)));
        check(u64::MAX, Err(Unopened::Forged));
        check(first, Err(Unopened::Replayed));
        check(u64::MAX - 1, Ok((5, true)));
        check(u64::MAX, Err(Unopened::Forged));
        check(u64::MAX - 1, Err(Unopened::Replayed));
    }

    #[test]
    fn the_window_takes_each_counter_once_and_none_that_is_too_old() {
        fn check(window: &mut Window, counter: u64, expected: bool) {
            assert_eq!(window.is_new(counter), expected, "{counter}");
            if expected {
                window.mark(counter);
            }
        }
        let mut window = Window::default();
        check(&mut window, 0, true);
        check(&mut window, 0, false);
        check(&mut window, 1_023, true);
        check(&mut window, 0, false);
        check(&mut window, 1, true);
        check(&mut window, 1_025, true);
        check(&mut window, 1, false);
        check(&mut window, 2, true);
        check(&mut window, 1_024, true);
        check(&mut window, 1 << 40, true);
        check(&mut window, (1 << 40) - 1_023, true);
        check(&mut window, (1 << 40) - 1_024, false);
        check(&mut window, u64::MAX - 1, true);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_window_agrees_with_a_set(jumps in prop::collection::vec((0..2_000_u64, 0..1_200_u64), 1..300)) {
            let (mut window, mut taken, mut newest) = (Window::default(), BTreeSet::new(), 0);
            for (ahead, behind) in jumps {
                let counter = (newest + ahead).saturating_sub(behind);
                let expected = newest.saturating_sub(counter) < limits::REPLAY_WINDOW && !taken.contains(&counter);
                prop_assert_eq!(window.is_new(counter), expected);
                if expected {
                    prop_assert_eq!(window.mark(counter), taken.is_empty() || counter > newest);
                    newest = newest.max(counter);
                    taken.insert(counter);
                }
            }
        }
    }
}
