//! What is known of one peer, and how long it may be silent.

use std::collections::VecDeque;

use super::{Config, Status};
use crate::{
    ids::{Boot, ServerId},
    time::{Duration, Time},
};

/// Spans between beats that a timeout is computed from.
const WINDOW: usize = 32;
/// Fewer spans than this say nothing yet.
const SPANS_MIN: usize = 8;

/// A peer's word that another one lives.
#[derive(Clone, Copy, Debug)]
pub(super) struct Voucher {
    /// Who says so.
    pub(super) by: ServerId,
    /// When it was heard both ways, by `by` or by the first of those through whom `by` knows.
    pub(super) at: Time,
    /// Over how many servers that came, `by` included.
    pub(super) hops: u8,
}

/// A peer that is known.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) boot: Boot,
    /// When it was last heard, or given credit.
    pub(super) heard: Time,
    /// When it last said that it hears us, or was given credit.
    pub(super) heard_us: Time,
    /// When its last beat that said that it hears us arrived. Never credit: it is what we vouch for to others.
    pub(super) proved: Time,
    /// When another server last heard it both ways, as far as live peers told, or it was given credit.
    pub(super) vouched: Time,
    /// What peers last told of it: ways round a bad link.
    pub(super) vouchers: Vec<Voucher>,
    /// When its last beat arrived, if the span to the next one is worth counting.
    pub(super) arrived: Option<Time>,
    /// The newest spans between its beats, microseconds; their sum, and that of their squares.
    spans: VecDeque<u64>,
    sum: u64,
    squares: u64,
    /// How long it may be silent, in a detector in perfect health. Kept, since deadlines are asked for far more often than
    /// beats arrive.
    pub(super) timeout: Duration,
    /// It is heard.
    pub(super) audible: bool,
    /// How it stands.
    pub(super) status: Status,
    /// A session with it has stood: it is more than hearsay.
    pub(super) met: bool,
    /// It said goodbye in this boot: what still arrives from it does not count.
    pub(super) gone: bool,
}

impl Peer {
    /// A peer of which a session stands, but no beat has come yet.
    pub(super) fn new(boot: Boot, now: Time, config: &Config) -> Self {
        Self {
            boot,
            heard: now,
            heard_us: now,
            proved: Time::ZERO,
            vouched: Time::ZERO,
            vouchers: Vec::new(),
            arrived: None,
            spans: VecDeque::new(),
            sum: 0,
            squares: 0,
            timeout: config.timeout_first,
            audible: false,
            status: Status::Dead,
            met: false,
            gone: false,
        }
    }

    /// The newest sign that it lives and hears anybody, or credit for one.
    pub(super) fn sign(&self) -> Time {
        self.heard_us.max(self.vouched)
    }

    /// Its beat has come: it is heard, and its timeout follows.
    pub(super) fn arrival(&mut self, now: Time, config: &Config) {
        if let Some(before) = self.arrived.replace(now) {
            if self.spans.len() == WINDOW
                && let Some(oldest) = self.spans.pop_front()
            {
                self.sum -= oldest;
                self.squares -= oldest * oldest;
            }
            let span = micros(now.since(before).min(config.timeout_max));
            self.spans.push_back(span);
            self.sum += span;
            self.squares += span * span;
        }
        self.heard = now;
        self.audible = true;
        if self.spans.len() >= SPANS_MIN {
            let n = self.spans.len() as u64;
            let mean = self.sum / n;
            // The sum of the squares of what each span is off the mean, which is rounded down.
            let off = self.squares + n * mean * mean - 2 * mean * self.sum;
            let variance = off / n;
            let timeout = Duration::from_micros(mean + 4 * variance.isqrt());
            self.timeout = timeout.clamp(config.timeout_min, config.timeout_max);
        }
    }
}

/// A span in microseconds.
pub(super) fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
