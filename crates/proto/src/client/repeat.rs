//! When something that was not answered is said again: at once, then at intervals that double.

use crate::time::{Duration, Time};

/// The next repetition of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Repeat {
    /// When it was said first, since when it waits for an answer.
    pub(super) since: Time,
    /// When it is due.
    pub(super) at: Time,
    span: Duration,
    span_max: Duration,
}

impl Repeat {
    /// Due at once, then after `first`, then at doubling intervals up to `max`.
    pub(super) fn new(first: Duration, max: Duration, now: Time) -> Self {
        Self { since: now, at: now, span: first, span_max: max }
    }

    /// The same, but not due before `first` has passed.
    pub(super) fn later(first: Duration, max: Duration, now: Time) -> Self {
        Self { at: now + first, span: (first * 2).min(max), ..Self::new(first, max, now) }
    }

    /// Whether it is due; plans the next time if so.
    pub(super) fn poll(&mut self, now: Time) -> bool {
        let due = self.at <= now;
        if due {
            self.at = now + self.span;
            self.span = self.span.saturating_mul(2).min(self.span_max);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_double_up_to_their_bound() {
        fn check(mut repeat: Repeat, expected: &[u64]) {
            let due: Vec<_> = (0..3_000).filter(|ms| repeat.poll(Time::from_micros(ms * 1_000))).collect();
            assert_eq!(due, expected);
        }
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(1));
        check(Repeat::new(first, max, Time::ZERO), &[0, 100, 300, 700, 1_500, 2_500]);
        check(Repeat::later(first, max, Time::ZERO), &[100, 300, 700, 1_500, 2_500]);
    }
}
