//! Time as the protocol sees it: a monotonic clock that is passed in.
//!
//! The core never reads a clock. A driver hands it microseconds of the boot-time clock, which goes on while a laptop
//! sleeps; a simulator hands it whatever it likes.

use std::ops::Add;
pub use std::time::Duration;

/// A point on the driver's monotonic clock, in microseconds since an origin that means nothing to anybody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);

    /// The point `micros` microseconds after the clock's origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the clock's origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Milliseconds since the clock's origin, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }

    /// The first point at or after this one that is a whole number of `grain`, which is above zero, after the clock's origin.
    #[must_use]
    pub const fn rounded_up(self, grain: Duration) -> Self {
        let grain = grain.as_micros() as u64;
        Self(match self.0.checked_next_multiple_of(grain) {
            Some(micros) => micros,
            None => u64::MAX,
        })
    }

    /// How long before `self` the point `earlier` was; zero where it was not.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_rounded_up_and_never_down() {
        fn check(micros: u64, expected: u64) {
            let rounded = Time::from_micros(micros).rounded_up(Duration::from_millis(1));
            assert_eq!(rounded, Time::from_micros(expected));
        }
        check(0, 0);
        check(1, 1_000);
        check(1_000, 1_000);
        check(1_001, 2_000);
        check(u64::MAX, u64::MAX);
    }
}
