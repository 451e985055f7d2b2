//! Handshakes that were asked for and whose initiator has not yet proved itself: a bounded table of them.
//!
//! Where the table, or the share of one source in it, is full, the oldest has to go, but not before it had time for a
//! round trip. So those who proceed are never pushed out by those who only ask.

use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use sha2::{Digest as _, Sha256};

use crate::{
    limits,
    session::{SessionId, keys::Suite},
    time::{Duration, Time},
    wire::packet,
};

/// How long one is kept though others want its place.
const ROUND_TRIP: Duration = Duration::from_secs(1);

/// What tells one ask from another: who sent it, and the SHA-256 of what it says. A repeated one is the same, whatever
/// cookie it shows.
pub(super) type AskId = (SocketAddr, [u8; 32]);

/// The ask that this init is.
pub(super) fn ask_id(from: SocketAddr, suite: Suite, sender: u32, noise: &[u8]) -> AskId {
    let hash = Sha256::new().chain_update([packet::suite_byte(suite)]).chain_update(sender.to_be_bytes());
    (from, hash.chain_update(noise).finalize().into())
}

/// Those who share an address: an IPv4 address, or an IPv6 /64, which one host may have for itself. All hosts of a link
/// share the /64 of its link-local addresses: there it is the address.
pub(super) type Source = IpAddr;

/// Where somebody is; `None` for this host itself, which needs no bounds.
pub(super) fn source(from: SocketAddr) -> Option<Source> {
    match from.ip().to_canonical() {
        IpAddr::V4(ip) if ip.is_loopback() => None,
        IpAddr::V6(ip) if ip.is_loopback() => None,
        IpAddr::V4(ip) => Some(ip.into()),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some(ip.into()),
        IpAddr::V6(ip) => Some(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64).into()),
    }
}

/// Half-open sessions, at most [`limits::HALF_OPEN_MAX`], and [`limits::HALF_OPEN_PER_SOURCE_MAX`] from one source.
#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    by_ask: BTreeMap<AskId, SessionId>,
    /// Oldest first, and since when.
    order: VecDeque<(AskId, Time)>,
    by_source: BTreeMap<Source, usize>,
}

impl HalfOpen {
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }

    /// The session of an ask.
    pub(super) fn get(&self, ask: &AskId) -> Option<SessionId> {
        self.by_ask.get(ask).copied()
    }

    /// Whether there is a place for another one of that address: `Ok` with the session that has to go for it first, if
    /// any; else the cause for which there is none.
    pub(super) fn place(&self, from: SocketAddr, now: Time) -> Result<Option<SessionId>, &'static str> {
        let spare = |(ask, since): &(AskId, Time)| (now.since(*since) >= ROUND_TRIP).then(|| self.get(ask)).flatten();
        let source = source(from);
        if source.is_some_and(|source| self.by_source.get(&source) >= Some(&limits::HALF_OPEN_PER_SOURCE_MAX)) {
            let oldest = self.order.iter().find(|((other, _), _)| self::source(*other) == source);
            oldest.and_then(spare).map(Some).ok_or("half_open_source_full")
        } else if self.order.len() >= limits::HALF_OPEN_MAX {
            self.order.front().and_then(spare).map(Some).ok_or("half_open_full")
        } else {
            Ok(None)
        }
    }

    /// Adds one that is not there yet, for which there is a place.
    pub(super) fn insert(&mut self, ask: AskId, session: SessionId, now: Time) {
        self.by_ask.insert(ask, session);
        self.order.push_back((ask, now));
        if let Some(source) = source(ask.0) {
            *self.by_source.entry(source).or_default() += 1;
        }
    }

    /// Removes one.
    pub(super) fn remove(&mut self, ask: &AskId) {
        if self.by_ask.remove(ask).is_none() {
            return;
        }
        if let Some(at) = self.order.iter().position(|(other, _)| other == ask) {
            self.order.remove(at);
        }
        let Some(source) = source(ask.0) else { return };
        if let Some(count) = self.by_source.get_mut(&source) {
            *count -= 1;
            if *count == 0 {
                self.by_source.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_address_or_a_network_of_one_host() {
        fn check(addr: &str, expected: Option<&str>) {
            assert_eq!(source(addr.parse().unwrap()), expected.map(|ip| ip.parse().unwrap()), "{addr}");
        }
        check("10.0.0.1:1", Some("10.0.0.1"));
        check("[::ffff:10.0.0.1]:1", Some("10.0.0.1"));
        check("[2001:db8:1:2:3:4:5:6]:1", Some("2001:db8:1:2::"));
        check("[fe80::1]:1", Some("fe80::1"));
        check("[fe80::2]:1", Some("fe80::2"));
        check("127.0.0.9:1", None);
        check("[::ffff:127.0.0.1]:1", None);
        check("[::1]:1", None);
    }

    #[test]
    fn whoever_only_asks_gives_way_after_a_round_trip() {
        fn check(sources: u32, half_open: usize, after: Duration, expected: Result<Option<u32>, &'static str>) {
            let mut table = HalfOpen::default();
            let addr = |n: usize| SocketAddr::from(((0x0a00_0000 + n as u32 % sources).to_be_bytes(), n as u16));
            for n in 0..half_open {
                table.insert((addr(n), [0; 32]), SessionId(n as u32), Time::ZERO);
            }
            let place = table.place(addr(3), Time::ZERO + after).map(|gone| gone.map(|id| id.0));
            assert_eq!(place, expected, "{half_open} of {sources} sources after {after:?}");
        }
        let (soon, later) = (ROUND_TRIP / 2, ROUND_TRIP);
        check(1, limits::HALF_OPEN_PER_SOURCE_MAX - 1, soon, Ok(None));
        check(1, limits::HALF_OPEN_PER_SOURCE_MAX, soon, Err("half_open_source_full"));
        check(1, limits::HALF_OPEN_PER_SOURCE_MAX, later, Ok(Some(0)));
        check(4, 4 * limits::HALF_OPEN_PER_SOURCE_MAX, later, Ok(Some(3)));
        check(100, limits::HALF_OPEN_MAX - 1, soon, Ok(None));
        check(100, limits::HALF_OPEN_MAX, soon, Err("half_open_full"));
        check(100, limits::HALF_OPEN_MAX, later, Ok(Some(0)));
    }

    #[test]
    fn what_is_removed_is_no_longer_counted() {
        let (mut table, ask) = (HalfOpen::default(), ("10.0.0.1:1".parse().unwrap(), [0; 32]));
        table.insert(ask, SessionId(1), Time::ZERO);
        table.remove(&ask);
        table.remove(&ask);
        assert_eq!((table.get(&ask), table.len(), table.by_source.len()), (None, 0, 0));
    }
}
