//! The network interfaces of this machine, as the protocol's [`interfaces`](hobnob_proto::discovery::interfaces) wants
//! them to decide which are used.

use std::{io, net::ToSocketAddrs as _};

use hobnob_proto::discovery::interfaces::{self, Address, Choice, Interface};
use if_addrs::IfAddr;

use crate::Error;

/// All interfaces that have an address, in the system's order.
pub fn all() -> io::Result<Vec<Interface>> {
    let mut found: Vec<Interface> = Vec::new();
    for one in if_addrs::get_if_addrs()? {
        let (prefix, broadcast) = match &one.addr {
            IfAddr::V4(addr) => (addr.prefixlen, addr.broadcast),
            IfAddr::V6(addr) => (addr.prefixlen, None),
        };
        let addr = Address { ip: one.ip(), prefix, broadcast };
        match found.iter_mut().find(|known| known.name == one.name) {
            Some(known) => known.addrs.push(addr),
            None => found.push(Interface {
                index: one.index.unwrap_or_default(),
                up: one.is_oper_up() || one.is_loopback(),
                point_to_point: one.is_p2p(),
                addrs: vec![addr],
                name: one.name,
            }),
        }
    }
    Ok(found)
}

/// Decides which of `all` are used: those that are `wanted`; where nothing is, all that lead to other people's machines. An
/// error names those that there are. One that is wanted and has no address yet, as where no cable is plugged in, is none: it
/// is used once it has one.
pub fn choose(all: Vec<Interface>, wanted: &[String]) -> Result<Vec<Choice>, Error> {
    choose_of(all, wanted, exists)
}

/// Whether the system has an interface of that name, with an address or without: it knows its number then.
fn exists(name: &str) -> bool {
    (format!("fe80::1%{name}").as_str(), 0).to_socket_addrs().is_ok()
}

fn choose_of(all: Vec<Interface>, wanted: &[String], exists: impl Fn(&str) -> bool) -> Result<Vec<Choice>, Error> {
    let has_addr = |name: &str| all.iter().any(|interface| interface.name == name);
    if let Some(name) = wanted.iter().find(|name| !has_addr(name) && !exists(name)) {
        let known: Vec<&str> = all.iter().map(|interface| interface.name.as_str()).collect();
        return Err(Error::UnknownInterface { name: name.clone(), known: known.join(", ") });
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
    fn a_machine_without_a_network_is_told_so() {
        assert!(matches!(choose(Vec::new(), &[]), Err(Error::NoInterface)));
    }

    #[test]
    fn the_system_knows_its_interfaces() {
        let all = all().unwrap();
        let lo = all.iter().find(|interface| interface.is_loopback()).expect("tests run where loopback is up");
        assert!(exists(&lo.name) && !exists("nowhere9"));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn addresses_that_a_link_gives_itself_are_seen() {
        // Address, index, prefix, scope, flags, name: all in hexadecimal but the name.
        let table = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
        let all = all().unwrap();
        let mut lines = table.lines().filter(|line| line.starts_with("fe80")).peekable();
        if lines.peek().is_none() {
            println!("skipped: no IPv6 link-local address here");
        }
        for name in lines.filter_map(|line| line.split_whitespace().last()) {
            let interface = all.iter().find(|interface| interface.name == name).expect("it is listed");
            assert!(interface.addrs.iter().any(|addr| addr.ip.to_string().starts_with("fe80")), "{interface:?}");
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
