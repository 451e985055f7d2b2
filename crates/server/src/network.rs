//! The network as it is now: looked at every 2 s, since interfaces come and go.
//!
//! A look reads the list of interfaces (one question to the kernel) and compares it with the last one. Only where they
//! differ, sockets are opened and closed, and the node hears of it. It says nothing to anybody where that is of no use:
//! where containers start and stop, there is always something new that is not used.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use hobnob_proto::{
    addr::{Reach, reach},
    discovery::interfaces::{self as policy, Choice, Interface},
};

use crate::{interfaces, udp::Sockets};

/// Between two looks: a change is noticed in half of the 5 s that are promised.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Addresses that a server says to have; some machines have dozens of IPv6 addresses.
const ADDRS_MAX: usize = 8;

/// What is known of the network.
#[derive(Debug)]
pub(crate) struct Network {
    /// Names of the interfaces to use; empty: all that lead to other people's machines.
    wanted: Vec<String>,
    session_port: u16,
    choices: Vec<Choice>,
    next: Instant,
}

/// What a look has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// All is as it was.
    Nothing,
    /// Something that is not used has changed, as where containers start and stop: of interest to a status alone.
    LeftOut,
    /// Something that is used has changed.
    Network,
}

impl Network {
    /// The network as it is at the start.
    pub(crate) fn new(wanted: Vec<String>, session_port: u16, choices: Vec<Choice>) -> Self {
        Self { wanted, session_port, choices, next: Instant::now() + LOOK_EVERY }
    }

    /// All interfaces, used or not.
    pub(crate) fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// The addresses of the session socket, the one to tell people first. Never empty while an interface is up.
    pub(crate) fn addrs(&self) -> Vec<SocketAddr> {
        session_addrs(&self.choices, self.session_port)
    }

    /// When to look again.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Looks, where it is time to. Whether the node is to hear of it: what is left out is shown in its status.
    pub(crate) fn look(&mut self, sockets: &mut Sockets) -> bool {
        if Instant::now() < self.next {
            return false;
        }
        self.next = Instant::now() + LOOK_EVERY;
        let all = match interfaces::all() {
            Ok(all) => all,
            Err(error) => {
                tracing::debug!(%error, "the interfaces cannot be read: looks again");
                return false;
            }
        };
        let news = self.take(all);
        if news == News::Network {
            tracing::info!(used = used_names(&self.choices), "the network has changed");
        }
        // A socket that was refused may be granted now, as that of an interface which was only coming up.
        let is_opened = sockets.follow(&self.choices);
        news != News::Nothing || is_opened
    }

    /// These are the interfaces now.
    fn take(&mut self, all: Vec<Interface>) -> News {
        let before = std::mem::replace(&mut self.choices, policy::choose(all, &self.wanted));
        if before == self.choices {
            News::Nothing
        } else if policy::is_same_network(&before, &self.choices) {
            News::LeftOut
        } else {
            News::Network
        }
    }
}

/// The names of the interfaces that are used, with commas.
pub(crate) fn used_names(choices: &[Choice]) -> String {
    let names: Vec<&str> = used(choices).map(|interface| interface.name.as_str()).collect();
    names.join(", ")
}

/// The interfaces that are used.
fn used(choices: &[Choice]) -> impl Iterator<Item = &Interface> {
    choices.iter().filter(|choice| choice.used).map(|choice| &choice.interface)
}

/// Every address at which the session socket can be reached, at most [`ADDRS_MAX`]: IPv4 before IPv6, loopback last.
fn session_addrs(choices: &[Choice], port: u16) -> Vec<SocketAddr> {
    let mut addrs: Vec<SocketAddr> = used(choices)
        .flat_map(|interface| interface.addrs.iter().map(move |addr| session_addr(interface, addr.ip, port)))
        .collect();
    addrs.sort_by_key(|addr| {
        (reach(*addr) == Reach::Machine, addr.is_ipv6(), reach(*addr) == Reach::Link, is_self_given(addr.ip()))
    });
    addrs.truncate(ADDRS_MAX);
    addrs
}

/// An address with its scope, where it needs one.
fn session_addr(interface: &Interface, ip: IpAddr, port: u16) -> SocketAddr {
    let mut addr = SocketAddr::new(ip, port);
    if let (SocketAddr::V6(v6), Reach::Link) = (&mut addr, reach(SocketAddr::new(ip, 1))) {
        v6.set_scope_id(interface.index);
    }
    addr
}

/// Whether it is one that a machine gives itself where nobody else does.
fn is_self_given(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if ip.is_link_local())
}

#[cfg(test)]
mod tests {
    use hobnob_proto::discovery::interfaces::Address;

    use super::*;

    #[test]
    fn the_address_to_tell_people_comes_first() {
        fn check(ips: &[&str], expected: &[&str]) {
            let addrs = ips.iter().map(|ip| Address { ip: ip.parse().unwrap(), prefix: 24, broadcast: None }).collect();
            let interface = Interface { name: "eth0".into(), index: 3, up: true, point_to_point: false, addrs };
            let choices = [Choice { interface, used: true, why: None }];
            let expected: Vec<SocketAddr> = expected.iter().map(|addr| addr.parse().unwrap()).collect();
            assert_eq!(session_addrs(&choices, 5001), expected, "{ips:?}");
        }
        check(&["127.0.0.1", "192.0.2.2"], &["192.0.2.2:5001", "127.0.0.1:5001"]);
        check(
            &["::1", "fe80::1", "2001:db8::1", "169.254.0.1", "192.0.2.2"],
            &["192.0.2.2:5001", "169.254.0.1:5001", "[2001:db8::1]:5001", "[fe80::1%3]:5001", "[::1]:5001"],
        );
    }

    #[test]
    fn containers_that_come_and_go_change_no_network() {
        let interface = |name: &str, last| {
            let addrs = vec![Address { ip: [192, 0, 2, last].into(), prefix: 24, broadcast: None }];
            Interface { name: name.into(), index: 3, up: true, point_to_point: false, addrs }
        };
        let (eth, veth) = (interface("eth0", 2), interface("veth1", 3));
        let mut network = Network::new(Vec::new(), 5001, policy::choose(vec![eth.clone()], &[]));
        assert_eq!(network.take(vec![eth.clone()]), News::Nothing);
        assert_eq!(network.take(vec![eth.clone(), veth.clone()]), News::LeftOut);
        assert_eq!(network.choices().len(), 2);
        assert_eq!(network.take(vec![interface("eth0", 9), veth]), News::Network);
        assert_eq!(network.take(Vec::new()), News::Network);
    }

    #[test]
    fn what_is_not_used_has_no_address() {
        let addrs = vec![Address { ip: [172, 17, 0, 1].into(), prefix: 16, broadcast: None }];
        let interface = Interface { name: "docker0".into(), index: 3, up: true, point_to_point: false, addrs };
        let choices = [Choice { interface, used: false, why: Some(policy::CONTAINER) }];
        assert_eq!((session_addrs(&choices, 5001), used_names(&choices)), (vec![], String::new()));
    }
}
