//! The network interfaces of this machine, as far as hobnob uses them: those that are up and have an IPv4 address.

use std::{io, net::Ipv4Addr};

use crate::Error;

/// Where a broadcast on loopback goes: every socket of this machine that listens.
const LOOPBACK_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

/// One IPv4 address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address itself.
    pub ip: Ipv4Addr,
    /// Where its broadcasts go; `None` on links that have none (tunnels).
    pub broadcast: Option<Ipv4Addr>,
}

/// An interface with all its IPv4 addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name: `lo`, `eth0`, ...
    pub name: String,
    /// Its addresses, at least one.
    pub addrs: Vec<Address>,
}

impl Interface {
    /// Whether it never leaves this machine.
    pub fn is_loopback(&self) -> bool {
        self.addrs.iter().all(|addr| addr.ip.is_loopback())
    }
}

/// All interfaces that are up and have an IPv4 address, in the system's order.
pub fn up() -> io::Result<Vec<Interface>> {
    let mut found: Vec<Interface> = Vec::new();
    for interface in if_addrs::get_if_addrs()? {
        let if_addrs::IfAddr::V4(v4) = &interface.addr else { continue };
        if !interface.is_oper_up() && !v4.ip.is_loopback() {
            continue;
        }
        let broadcast = if v4.ip.is_loopback() { Some(LOOPBACK_BROADCAST) } else { v4.broadcast };
        let addr = Address { ip: v4.ip, broadcast };
        match found.iter_mut().find(|known| known.name == interface.name) {
            Some(known) => known.addrs.push(addr),
            None => found.push(Interface { name: interface.name, addrs: vec![addr] }),
        }
    }
    Ok(found)
}

/// Those of `all` that are `wanted`; all where nothing is wanted. An error names those that there are.
pub fn choose(all: Vec<Interface>, wanted: &[String]) -> Result<Vec<Interface>, Error> {
    if let Some(name) = wanted.iter().find(|name| !all.iter().any(|interface| interface.name == **name)) {
        let known: Vec<&str> = all.iter().map(|interface| interface.name.as_str()).collect();
        return Err(Error::UnknownInterface { name: name.clone(), known: known.join(", ") });
    }
    let chosen: Vec<Interface> =
        all.into_iter().filter(|interface| wanted.is_empty() || wanted.contains(&interface.name)).collect();
    if chosen.is_empty() { Err(Error::NoInterface) } else { Ok(chosen) }
}

/// Whether nothing that is sent over these leaves this machine.
pub fn only_loopback(interfaces: &[Interface]) -> bool {
    interfaces.iter().all(Interface::is_loopback)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, ip: [u8; 4]) -> Interface {
        Interface { name: name.into(), addrs: vec![Address { ip: ip.into(), broadcast: None }] }
    }

    #[test]
    fn interfaces_are_chosen_by_name() {
        fn check(wanted: &[&str], expected: Result<&[&str], &str>) {
            let all = vec![interface("lo", [127, 0, 0, 1]), interface("eth0", [192, 0, 2, 2])];
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            let chosen = choose(all, &wanted)
                .map(|chosen| chosen.into_iter().map(|interface| interface.name).collect::<Vec<_>>())
                .map_err(|error| error.to_string());
            let expected = expected
                .map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>())
                .map_err(ToString::to_string);
            assert_eq!(chosen, expected, "{wanted:?}");
        }
        check(&[], Ok(&["lo", "eth0"]));
        check(&["eth0"], Ok(&["eth0"]));
        check(&["eth0", "lo"], Ok(&["lo", "eth0"]));
        check(&["lo", "wlan9"], Err("there is no interface wlan9 with an IPv4 address: choose from lo, eth0"));
    }

    #[test]
    fn a_machine_without_a_network_is_told_so() {
        assert!(matches!(choose(Vec::new(), &[]), Err(Error::NoInterface)));
    }

    #[test]
    fn loopback_alone_is_seen() {
        assert!(only_loopback(&[interface("lo", [127, 0, 0, 1])]));
        assert!(!only_loopback(&[interface("lo", [127, 0, 0, 1]), interface("eth0", [192, 0, 2, 2])]));
    }

    #[test]
    fn this_machine_has_a_loopback_interface_that_broadcasts() {
        let all = up().unwrap();
        let lo = all.iter().find(|interface| interface.is_loopback()).expect("tests run where loopback is up");
        assert_eq!(lo.addrs[0].broadcast, Some(LOOPBACK_BROADCAST));
    }
}
