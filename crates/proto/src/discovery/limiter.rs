//! How often one address is answered: a token bucket for each, in a table of bounded size.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::time::{Duration, Time};

/// Addresses that are told apart; beyond that, only those that have long been silent make room.
const ADDRS_MAX: usize = 1_024;

/// Lets each address have `burst` answers at once, and one more after each `every`.
#[derive(Debug)]
pub(super) struct Limiter {
    every: Duration,
    burst: u32,
    /// For each address, when its bucket will be full again.
    full_at: BTreeMap<SocketAddr, Time>,
}

impl Limiter {
    pub(super) fn new(every: Duration, burst: u32) -> Self {
        Self { every, burst, full_at: BTreeMap::new() }
    }

    /// Whether `addr` may be answered now; if so, that counts.
    pub(super) fn allow(&mut self, addr: SocketAddr, now: Time) -> bool {
        if self.full_at.len() >= ADDRS_MAX && !self.full_at.contains_key(&addr) {
            self.full_at.retain(|_, full_at| *full_at > now);
            if self.full_at.len() >= ADDRS_MAX {
                return false;
            }
        }
        let full_at = self.full_at.entry(addr).or_insert(now);
        let next = (*full_at).max(now) + self.every;
        let allowed = next <= now + self.every * self.burst;
        if allowed {
            *full_at = next;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn an_address_is_answered_as_often_as_it_may_be_and_no_more() {
        let mut limiter = Limiter::new(Duration::from_millis(50), 20);
        let answered = |limiter: &mut Limiter, now: Time| (0..100).filter(|_| limiter.allow(addr(1), now)).count();
        let start = Time::from_micros(1_000_000);
        assert_eq!(answered(&mut limiter, start), 20);
        assert_eq!(answered(&mut limiter, start + Duration::from_millis(500)), 10);
        assert!(limiter.allow(addr(2), start), "another address has its own bucket");
    }

    #[test]
    fn a_flood_of_addresses_fills_the_table_and_then_waits() {
        let mut limiter = Limiter::new(Duration::from_millis(50), 20);
        let answered = (0..5_000).filter(|port| limiter.allow(addr(*port), Time::ZERO)).count();
        assert_eq!(answered, ADDRS_MAX);
        assert!(limiter.allow(addr(6_000), Time::ZERO + Duration::from_secs(1)));
    }
}
