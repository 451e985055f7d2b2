//! How far an address means something.
//!
//! A loopback address means another machine on each machine, and an IPv6 link-local one another machine on each link; its
//! scope id is a number of the machine that says it. So loopback is told to no other machine, a link-local address only to clients and
//! without its scope (they try each of their links), and what other servers tell of such addresses is not believed.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

/// Where an address means the same to everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// On every machine that it can be reached from.
    Anywhere,
    /// On one machine: loopback.
    Machine,
    /// On one link: IPv6 link-local.
    Link,
    /// It is no address of one machine: unspecified, multicast, broadcast, or port 0.
    Nowhere,
}

/// How far an address reaches.
pub fn reach(addr: SocketAddr) -> Reach {
    match addr.ip().to_canonical() {
        _ if addr.port() == 0 => Reach::Nowhere,
        IpAddr::V4(ip) if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() => Reach::Nowhere,
        IpAddr::V6(ip) if ip.is_unspecified() || ip.is_multicast() => Reach::Nowhere,
        ip if ip.is_loopback() => Reach::Machine,
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Reach::Link,
        _ => Reach::Anywhere,
    }
}

/// The address with another port. Its scope stays: without it a link-local address reaches nobody.
pub fn with_port(mut addr: SocketAddr, port: u16) -> SocketAddr {
    addr.set_port(port);
    addr
}

/// The address without what is true of this machine alone: the scope id, and the flow that a packet belonged to.
pub fn without_scope(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V6(addr) => SocketAddrV6::new(*addr.ip(), addr.port(), 0, 0).into(),
        addr @ SocketAddr::V4(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reaches_as_far_as_it_means_the_same() {
        fn check(addr: &str, expected: Reach) {
            assert_eq!(reach(addr.parse().unwrap()), expected, "{addr}");
        }
        check("192.0.2.1:5001", Reach::Anywhere);
        check("169.254.1.1:5001", Reach::Anywhere);
        check("[2001:db8::1]:5001", Reach::Anywhere);
        check("[fd00::1]:5001", Reach::Anywhere);
        check("127.0.0.1:5001", Reach::Machine);
        check("[::1]:5001", Reach::Machine);
        check("[::ffff:127.0.0.1]:5001", Reach::Machine);
        check("[fe80::1%3]:5001", Reach::Link);
        check("[fe80::1]:5001", Reach::Link);
        check("0.0.0.0:5001", Reach::Nowhere);
        check("255.255.255.255:5001", Reach::Nowhere);
        check("224.0.0.1:5001", Reach::Nowhere);
        check("[::]:5001", Reach::Nowhere);
        check("[ff02::1]:5001", Reach::Nowhere);
        check("192.0.2.1:0", Reach::Nowhere);
    }

    #[test]
    fn a_scope_is_kept_with_another_port_and_dropped_for_others() {
        let addr: SocketAddr = "[fe80::1%3]:5005".parse().unwrap();
        assert_eq!(with_port(addr, 5001), "[fe80::1%3]:5001".parse().unwrap());
        assert_eq!(without_scope(addr), "[fe80::1]:5005".parse().unwrap());
    }
}
