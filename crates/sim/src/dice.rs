//! Drawing from the one generator of a run.

use hobnob_proto::{
    rng::Rng,
    time::{Duration, Time},
};

/// One in a million: the unit of every probability here.
pub const MILLION: u32 = 1_000_000;

/// Draws that a simulator needs and the protocol does not. No floating point: every machine draws the same.
pub trait Dice {
    /// Whether something happens that has a chance of `ppm` in a million.
    fn chance(&mut self, ppm: u32) -> bool;
    /// A number from `low` to `high`, both possible; `low` is at most `high`.
    fn between(&mut self, low: u64, high: u64) -> u64;
    /// An index into something that has `len` elements, at least one.
    fn index(&mut self, len: usize) -> usize;
    /// A span from `low` to `high`.
    fn span(&mut self, low: Duration, high: Duration) -> Duration;
    /// A seed for another generator.
    fn seed(&mut self) -> [u8; 32];
}

impl Dice for Rng {
    fn chance(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.below(u64::from(MILLION)) < u64::from(ppm)
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    fn span(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_micros(self.between(micros(low), micros(high)))
    }

    fn seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.fill(&mut seed);
        seed
    }
}

/// The generator of a run, from its number.
pub fn from_number(seed: u64) -> Rng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    Rng::from_seed(bytes)
}

/// A span in microseconds.
pub fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// The point `span` after the start of a run.
pub fn after(span: Duration) -> Time {
    Time::ZERO + span
}
