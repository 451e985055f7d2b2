//! The network interfaces of this machine, as the protocol's [`interfaces`](hobnob_proto::discovery::interfaces) wants
//! them to decide which are used.

use std::{io, net::ToSocketAddrs as _};

use hobnob_proto::discovery::interfaces::{self, Address, Choice, Interface, Listed};
use if_addrs::IfAddr;

use crate::Error;

/// All interfaces that have an address, in the system's order.
pub fn all() -> io::Result<Vec<Interface>> {
    let listed = if_addrs::get_if_addrs()?.into_iter().map(|one| {
        let (prefix, broadcast) = match &one.addr {
            IfAddr::V4(addr) => (addr.prefixlen, addr.broadcast),
            IfAddr::V6(addr) => (addr.prefixlen, None),
        };
        Listed {
            index: one.index,
            up: one.is_oper_up(),
            point_to_point: one.is_p2p(),
            addr: Address { ip: one.ip(), prefix, broadcast },
            name: one.name,
        }
    });
    Ok(Interface::collect(listed))
}

/// Decides which of `all` are used: those that are `wanted`; where nothing is, all that lead to other people's machines. An
/// error names those that there are. One that is wanted and has no address yet, as where no cable is plugged in, is none: it
/// is used once it has one.
pub fn choose(all: Vec<Interface>, wanted: &[String]) -> Result<Vec<Choice>, Error> {
    choose_of(all, wanted, exists)
}

/// Whether nothing is `wanted` but what never leaves this machine. A loopback that is down has no address: then its name
/// tells, so that no server that is to be heard here alone is ever heard outside.
pub(crate) fn is_only_loopback(choices: &[Choice], wanted: &[String]) -> bool {
    let is_loopback = |name: &String| match choices.iter().find(|choice| choice.interface.name == *name) {
        Some(choice) => choice.interface.is_loopback(),
        None => name.strip_prefix("lo").is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_digit())),
    };
    !wanted.is_empty() && wanted.iter().all(is_loopback)
}

/// Whether the system has an interface of that name, with an address or without: it knows its number then. What is a number
/// itself would be taken for one.
fn exists(name: &str) -> bool {
    name.parse::<u32>().is_err() && (format!("fe80::1%{name}").as_str(), 0).to_socket_addrs().is_ok()
}

fn choose_of(all: Vec<Interface>, wanted: &[String], exists: impl Fn(&str) -> bool) -> Result<Vec<Choice>, Error> {
    if let Some((name, known)) = interfaces::unknown(&all, wanted, exists) {
        return Err(Error::UnknownInterface { name, known });
    }
    let choices = interfaces::choose(all, wanted);
    let may_come = !wanted.is_empty();
    if may_come || choices.iter().any(|choice| choice.used) { Ok(choices) } else { Err(Error::NoInterface) }
}

#[cfg(test)]
mod tests {
    use hobnob_proto::discovery::interfaces::LOOPBACK_BROADCAST;

    use super::*;

    fn interface(name: &str, ip: [u8; 4]) -> Interface {
        let addrs = vec![Address { ip: ip.into(), prefix: 24, broadcast: None }];
        Interface { name: name.into(), index: 1, up: true, point_to_point: false, addrs }
    }

    #[test]
    fn interfaces_are_chosen_by_name() {
        fn check(wanted: &[&str], expected: Result<&[&str], &str>) {
            let all = vec![interface("lo", [127, 0, 0, 1]), interface("eth0", [192, 0, 2, 2])];
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            let names = |choices: Vec<Choice>| -> Vec<String> {
                choices.into_iter().filter(|choice| choice.used).map(|choice| choice.interface.name).collect()
            };
            let chosen = choose_of(all, &wanted, |name| name == "eth1").map(names).map_err(|error| error.to_string());
            let expected = expected
                .map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>())
                .map_err(ToString::to_string);
            assert_eq!(chosen, expected, "{wanted:?}");
        }
        check(&[], Ok(&["lo", "eth0"]));
        check(&["eth0"], Ok(&["eth0"]));
        check(&["eth0", "lo"], Ok(&["lo", "eth0"]));
        check(&["eth1"], Ok(&[]));
        check(&["eth1", "lo"], Ok(&["lo"]));
        check(&["lo", "wlan9"], Err("there is no interface wlan9 with an address: choose from lo, eth0"));
    }

    #[test]
    fn a_server_for_this_machine_alone_stays_so_while_loopback_is_down() {
        fn check(there: &[(&str, [u8; 4])], wanted: &[&str], expected: bool) {
            let all = there.iter().map(|(name, ip)| interface(name, *ip)).collect();
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            assert_eq!(is_only_loopback(&interfaces::choose(all, &wanted), &wanted), expected, "{there:?} {wanted:?}");
        }
        let both = [("lo", [127, 0, 0, 1]), ("eth0", [192, 0, 2, 2])];
        check(&both, &["lo"], true);
        check(&both, &[], false);
        check(&both, &["lo", "eth0"], false);
        check(&both[1..], &["lo"], true);
        check(&both[1..], &["lo0"], true);
        check(&both[..1], &["lo", "lowpan0"], false);
    }

    #[test]
    fn a_machine_without_a_network_is_told_so() {
        assert!(matches!(choose(Vec::new(), &[]), Err(Error::NoInterface)));
    }

    #[test]
    fn the_system_knows_its_interfaces() {
        let all = all().unwrap();
        let lo = all.iter().find(|interface| interface.is_loopback()).expect("tests run where loopback is up");
        assert!(exists(&lo.name) && !exists("nowhere9") && !exists("7777"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn ipv6_addresses_are_seen_those_too_that_a_link_gives_itself() {
        // Address, index, prefix, scope, flags, name: all in hexadecimal but the name.
        let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
        if table.is_empty() {
            return crate::tests::skip("no IPv6 here");
        }
        let all = all().unwrap();
        for line in table.lines() {
            let mut words = line.split_whitespace();
            let ip = u128::from_str_radix(words.next().unwrap(), 16).map(std::net::Ipv6Addr::from_bits).unwrap();
            let name = words.next_back().unwrap();
            let interface = all.iter().find(|interface| interface.name == name).expect("it is listed");
            assert!(interface.addrs.iter().any(|addr| addr.ip == ip), "{ip} {interface:?}");
        }
    }

    #[test]
    fn this_machine_has_a_loopback_interface_that_broadcasts() {
        let all = all().unwrap();
        let lo = all.iter().find(|interface| interface.is_loopback()).expect("tests run where loopback is up");
        assert!(lo.up);
        assert_eq!(lo.broadcasts(), [LOOPBACK_BROADCAST]);
    }
}
