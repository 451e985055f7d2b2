//! What was counted: deliveries, and how long they took.

/// Buckets for each power of two: a value is told to within 1/64.
const FINE: u64 = 64;
/// Powers of two beyond the first [`FINE`] values: up to 2^38 us, three days.
const POWERS: usize = 32;

/// How often each span was seen, in microseconds: logarithmic buckets, as in an HDR histogram, so that a million of them
/// cost no more than ten.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: vec![0; FINE as usize * (POWERS + 1)], count: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one.
    pub(super) fn add(&mut self, micros: u64) {
        self.buckets[bucket(micros)] += 1;
        self.count += 1;
        self.max = self.max.max(micros);
    }

    /// Counts those of another.
    pub(super) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// The longest.
    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// The least span that so many per mille of all do not exceed (nearest rank); 0 where nothing was counted. Too long by
    /// 1/64 at most.
    pub(super) fn per_mille(&self, share: u64) -> u64 {
        let rank = (self.count * share).div_ceil(1_000).max(1);
        let mut seen = 0;
        for (at, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return top(at).min(self.max);
            }
        }
        self.max
    }
}

/// Where a span is counted.
fn bucket(micros: u64) -> usize {
    if micros < FINE {
        return micros as usize;
    }
    let power = (micros.ilog2() - FINE.ilog2()) as usize;
    let fine = (micros >> power) - FINE;
    (FINE as usize * (power + 1) + fine as usize).min(FINE as usize * (POWERS + 1) - 1)
}

/// The longest span that is counted there.
fn top(bucket: usize) -> u64 {
    let (power, fine) = (bucket as u64 / FINE, bucket as u64 % FINE);
    if power == 0 { fine } else { ((FINE + fine + 1) << (power - 1)) - 1 }
}

/// What receivers got.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// Messages that were posted.
    pub(super) sent: u64,
    /// How many deliveries they make.
    pub(super) expected: u64,
    /// Deliveries that came, each counted once.
    pub(super) got: u64,
    /// Deliveries that came again.
    pub(super) doubled: u64,
    /// Lines that were damaged.
    pub(super) strange: u64,
    /// Bytes of datagrams that receivers got, without the headers of UDP and IP.
    pub(super) bytes: u64,
    /// Datagrams that receivers got.
    pub(super) datagrams: u64,
    /// How long deliveries took, from the post to the receiver.
    pub(super) latency: Histogram,
}

impl Tally {
    /// Adds what another part of the receivers got.
    pub(super) fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.expected += other.expected;
        self.got += other.got;
        self.doubled += other.doubled;
        self.strange += other.strange;
        self.bytes += other.bytes;
        self.datagrams += other.datagrams;
        self.latency.merge(&other.latency);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: impl IntoIterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram::default();
        values.into_iter().for_each(|value| histogram.add(value));
        histogram
    }

    #[test]
    fn percentiles_are_those_of_the_nearest_rank() {
        fn check(values: impl IntoIterator<Item = u64>, expected: [u64; 4]) {
            let histogram = histogram(values);
            let shares = [500, 990, 999].map(|share| histogram.per_mille(share));
            assert_eq!([shares[0], shares[1], shares[2], histogram.max()], expected);
        }
        check([], [0, 0, 0, 0]);
        check([7], [7, 7, 7, 7]);
        check(1..=10, [5, 10, 10, 10]);
        check([3, 1, 2], [2, 3, 3, 3]);
        check([0; 998].into_iter().chain([50, 60]), [0, 0, 50, 60]);
    }

    #[test]
    fn long_spans_are_told_to_within_a_sixty_fourth() {
        for value in [63, 64, 65, 127, 128, 1_000, 123_456, 7_000_000, 1 << 37] {
            let told = top(bucket(value));
            assert!(told >= value && told - value <= value / 64, "{value}: {told}");
        }
        assert_eq!(histogram([u64::MAX]).per_mille(500), top(FINE as usize * (POWERS + 1) - 1));
    }

    #[test]
    fn parts_add_up() {
        let mut all = histogram(1..=50);
        all.merge(&histogram(51..=100));
        assert_eq!((all.per_mille(500), all.per_mille(990), all.max()), (50, 99, 100));
        let part = Tally { sent: 1, expected: 4, got: 3, doubled: 2, bytes: 9, datagrams: 1, ..Tally::default() };
        let mut sum = part.clone();
        sum.merge(&part);
        assert_eq!((sum.sent, sum.expected, sum.got, sum.doubled, sum.bytes), (2, 8, 6, 4, 18));
    }
}
