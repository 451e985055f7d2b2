//! Randomness as the protocol sees it: a generator that is passed in, seeded by whoever runs the core.
//!
//! A driver seeds it from the operating system; a simulator from its seed, so that the same seed gives the same keys,
//! ids and jitter.

use std::time::Duration;

use rand_core::{Rng as _, SeedableRng as _};

/// The generator: `ChaCha` with 12 rounds, fit for keys. Nobody draws twice what only one may have: tests alone clone it.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub struct Rng(rand_chacha::ChaCha12Rng);

impl Rng {
    /// A generator that repeats itself for the same `seed`.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(rand_chacha::ChaCha12Rng::from_seed(seed))
    }

    /// A generator of its own for a part of the program: draws from this one to seed it.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        Self::from_seed(seed)
    }

    /// 32 random bits.
    pub fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// 64 random bits.
    pub fn u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Fills `bytes` with random bytes.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// A number below `bound`, which is above zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        debug_assert!(bound > 0, "nothing is below zero");
        self.u64() % bound
    }

    /// A span drawn evenly from `span` - `percent` % to `span` + `percent` %.
    pub fn jitter(&mut self, span: Duration, percent: u32) -> Duration {
        let micros = u64::try_from(span.as_micros()).unwrap_or(u64::MAX / 200);
        let width = micros * u64::from(percent) / 100;
        Duration::from_micros(micros - width + self.below(2 * width + 1))
    }
}
