//! What a server does for its clients, as it tells its peers: deliveries a second over the last half minute.

/// Seconds over which deliveries are averaged: long enough that a single message weighs nothing.
const WINDOW_SECS: usize = 30;

/// Deliveries of the last seconds.
#[derive(Debug, Default)]
pub(super) struct Load {
    seconds: [u64; WINDOW_SECS],
    at: usize,
    total: u64,
}

impl Load {
    /// So many entries have been sent to clients.
    pub(super) fn delivered(&mut self, entries: u64) {
        self.seconds[self.at] += entries;
        self.total += entries;
    }

    /// A second has passed.
    pub(super) fn second(&mut self) {
        self.at = (self.at + 1) % WINDOW_SECS;
        self.seconds[self.at] = 0;
    }

    /// Deliveries a second, rounded down.
    pub(super) fn rate(&self) -> u32 {
        u32::try_from(self.seconds.iter().sum::<u64>() / WINDOW_SECS as u64).unwrap_or(u32::MAX)
    }

    /// Deliveries since the start.
    pub(super) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_forgotten_after_the_window() {
        let mut load = Load::default();
        load.delivered(300);
        assert_eq!(load.rate(), 10);
        for _ in 0..WINDOW_SECS {
            load.second();
        }
        assert_eq!((load.rate(), load.total()), (0, 300));
    }
}
