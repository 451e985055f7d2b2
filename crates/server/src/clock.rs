//! The clock that the node is handed.

use std::time::Instant;

use hobnob_proto::time::{Duration, Time};

/// Microseconds since the server's start, from the system's monotonic clock.
///
/// That clock may stand still while a laptop sleeps; to the node such a sleep is then no time at all, and it finds out
/// by its peers. The boot-time clock, which goes on, is to take its place once logs outlive the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// A clock that starts at zero now.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    /// The time now.
    pub(crate) fn now(self) -> Time {
        Time::from_micros(u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    /// When it will be `time`, for the runtime; a time too far away for it is a day from now.
    pub(crate) fn instant(self, time: Time) -> tokio::time::Instant {
        let at = self.0.checked_add(Duration::from_micros(time.as_micros()));
        let tomorrow = Instant::now() + Duration::from_hours(24);
        at.map_or(tomorrow, |at| at.min(tomorrow)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_that_never_comes_is_no_overflow() {
        let clock = Clock::start();
        assert!(clock.instant(Time::from_micros(u64::MAX)) > tokio::time::Instant::now());
        assert!(clock.instant(Time::ZERO) <= tokio::time::Instant::now());
    }
}
