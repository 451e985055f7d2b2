//! The clock that the node is handed.

use std::time::{Duration, Instant};

use hobnob_proto::time::Time;

/// Microseconds since the server's start, from the clock that goes on while a laptop sleeps, where the system has one
/// (Linux). So what is kept on disk ages in a sleep too, and the node sees the sleep as a pause of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Duration,
}

impl Clock {
    /// A clock that starts at zero now.
    pub(crate) fn start() -> Self {
        Self { start: reading() }
    }

    /// The time now.
    pub(crate) fn now(self) -> Time {
        let elapsed = reading().saturating_sub(self.start);
        Time::from_micros(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX))
    }

    /// When it will be `time`, for the runtime, unless the machine sleeps before; a time too far away for it is a day from
    /// now.
    pub(crate) fn instant(self, time: Time) -> tokio::time::Instant {
        let left = Duration::from_micros(time.as_micros().saturating_sub(self.now().as_micros()));
        (Instant::now() + left.min(Duration::from_hours(24))).into()
    }
}

/// What the clock reads: a span since a moment that stays the same while this process lives.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn reading() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

/// What the clock reads: a span since its first reading.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn reading() -> Duration {
    static FIRST: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_goes_on_at_the_pace_of_the_systems_clock() {
        let (clock, start) = (Clock::start(), Instant::now());
        let before = clock.now();
        std::thread::sleep(Duration::from_millis(5));
        let passed = clock.now().since(before);
        assert!(
            passed >= Duration::from_millis(5) && passed <= start.elapsed() + Duration::from_millis(1),
            "{passed:?}"
        );
        let soon = clock.instant(clock.now() + Duration::from_secs(1)).duration_since(Instant::now().into());
        assert!(soon > Duration::from_millis(500) && soon <= Duration::from_secs(1), "{soon:?}");
    }

    #[test]
    fn a_time_that_never_comes_is_no_overflow() {
        let clock = Clock::start();
        assert!(clock.instant(Time::from_micros(u64::MAX)) > tokio::time::Instant::now());
        assert!(clock.instant(Time::ZERO) <= tokio::time::Instant::now());
    }
}
