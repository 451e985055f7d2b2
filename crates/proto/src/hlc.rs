//! Hybrid logical clock on cluster time.
//!
//! Kulkarni, Demirbas, Madappa, Avva, Leone: "Logical Physical Clocks", OPODIS 2014. A timestamp is cluster time in
//! milliseconds where that moves on, and a counter where it does not; so it is close to what a clock on the wall says,
//! and still always greater than what its writer had seen.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::wire::number;

/// A timestamp: `[milliseconds since 1970 on cluster time, counter]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hlc {
    /// Milliseconds of cluster time, below 2^53.
    pub millis: u64,
    /// Tells timestamps of one millisecond apart.
    pub counter: u32,
}

impl Hlc {
    /// Milliseconds of a timestamp that comes in are below this: so later ones are below 2^53 too.
    pub const MILLIS_BOUND: u64 = number::BOUND - (1 << 20);

    /// The timestamp of a new event at cluster time `now_millis` by a writer who has seen `self`: greater than `self`.
    #[must_use]
    pub fn next(self, now_millis: u64) -> Self {
        if now_millis > self.millis {
            Self { millis: now_millis, counter: 0 }
        } else if let Some(counter) = self.counter.checked_add(1) {
            Self { millis: self.millis, counter }
        } else {
            Self { millis: self.millis.saturating_add(1), counter: 0 }
        }
    }
}

impl Serialize for Hlc {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (self.millis, self.counter).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Hlc {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (millis, counter) = Deserialize::deserialize(deserializer)?;
        if millis >= Self::MILLIS_BOUND {
            return Err(D::Error::custom("this timestamp is too far ahead"));
        }
        Ok(Self { millis, counter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_timestamp_exceeds_what_was_seen_however_the_clock_stands() {
        fn check(seen: (u64, u32), now: u64, expected: (u64, u32)) {
            let next = Hlc { millis: seen.0, counter: seen.1 }.next(now);
            assert_eq!((next.millis, next.counter), expected);
        }
        check((5, 3), 9, (9, 0));
        check((5, 3), 5, (5, 4));
        check((5, 3), 1, (5, 4));
        check((5, u32::MAX), 1, (6, 0));
    }
}
