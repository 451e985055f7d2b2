//! Which network interfaces of a machine are used.
//!
//! All that are up, but for those that lead to no other person's machine: bridges of containers and virtual machines
//! would only make a server known under addresses at which nobody reaches it, and what is said into a VPN at home is
//! heard by whoever is at its other end. Those are left out unless they are named. Where nothing else is there, those of
//! containers are used: in a container the only interface may well be called like one of them. A VPN is not, so that a
//! laptop that loses its Wi-Fi does not begin to talk to whoever is at the other end.
//!
//! Nothing here looks at the machine: the list comes from whoever can read it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IPv6 group that HELLO and FIND go to, on each interface: link-local, and (by the 1 before the 2) not one that is
/// registered. The rest is `hobnob` in ASCII.
pub const GROUP: Ipv6Addr = Ipv6Addr::new(0xff12, 0, 0, 0, 0, 0x686f, 0x626e, 0x6f62);
/// Where a broadcast on loopback goes: every socket of this machine that listens.
pub const LOOPBACK_BROADCAST: Ipv4Addr = Ipv4Addr::new(127, 255, 255, 255);

/// Why an interface of containers is left out.
pub const CONTAINER: &str = "it leads to containers or virtual machines";
/// Why a VPN is left out.
pub const VPN: &str = "it is a VPN or a tunnel";
/// Why a link between two machines is left out.
pub const POINT_TO_POINT: &str = "it is a point-to-point link";
/// Why an interface is left out that is not up.
pub const DOWN: &str = "it is down";
/// Why an interface is left out where others were named.
pub const NOT_NAMED: &str = "others were named by --interface";
/// Why an interface is used that would be left out otherwise.
pub const NO_OTHER: &str = "there is no other";

/// What names of interfaces of containers and virtual machines begin with.
const CONTAINER_NAMES: &[&str] = &[
    "docker", "br-", "veth", "virbr", "vnet", "vmnet", "vboxnet", "cni", "flannel", "cali", "cilium", "podman", "lxc",
    "lxd", "incus", "kube-", "nerdctl",
];
/// The bridge to the people of a home router, which is called like one of containers.
const ROUTER_BRIDGE: &str = "br-lan";
/// What names of VPNs and tunnels begin with.
const VPN_NAMES: &[&str] = &[
    "tun",
    "tap",
    "wg",
    "utun",
    "ppp",
    "tailscale",
    "zt",
    "ipsec",
    "nordlynx",
    "proton",
    "gre",
    "gif",
    "stf",
    "sit",
    "ip6tnl",
    "awdl",
    "llw",
];

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address itself.
    pub ip: IpAddr,
    /// How many of its first bits it shares with its network.
    pub prefix: u8,
    /// Where its IPv4 broadcasts go; `None` on links that have none (tunnels), and for IPv6.
    pub broadcast: Option<Ipv4Addr>,
}

/// An interface with all its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name: `lo`, `eth0`, ...
    pub name: String,
    /// Its number on this machine, which is the scope id of link-local addresses there; 0 where it is not known.
    pub index: u32,
    /// Whether it is up, with something at its other end.
    pub up: bool,
    /// Whether there is exactly one other end.
    pub point_to_point: bool,
    /// Its addresses.
    pub addrs: Vec<Address>,
}

/// One address of an interface, as systems list them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The interface's name.
    pub name: String,
    /// Its number; `None` where it is not known.
    pub index: Option<u32>,
    /// Whether it is up, with something at its other end.
    pub up: bool,
    /// Whether there is exactly one other end.
    pub point_to_point: bool,
    /// The address.
    pub addr: Address,
}

/// An interface, and whether it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub interface: Interface,
    /// Whether it is.
    pub used: bool,
    /// Why it is not, or why it is in spite of its kind.
    pub why: Option<&'static str>,
}

impl Interface {
    /// The interfaces that a list of addresses tells of, in the order of their first one.
    pub fn collect(listed: impl IntoIterator<Item = Listed>) -> Vec<Self> {
        let mut found: Vec<Self> = Vec::new();
        for Listed { name, index, up, point_to_point, addr } in listed {
            match found.iter_mut().find(|known| known.name == name) {
                Some(known) => known.addrs.push(addr),
                None => found.push(Self {
                    index: index.unwrap_or_default(),
                    // Systems do not call loopback running, since there is nothing at its other end.
                    up: up || addr.ip.is_loopback(),
                    point_to_point,
                    addrs: vec![addr],
                    name,
                }),
            }
        }
        found
    }

    /// Whether it never leaves this machine.
    pub fn is_loopback(&self) -> bool {
        !self.addrs.is_empty() && self.addrs.iter().all(|addr| addr.ip.is_loopback())
    }

    /// Where its IPv4 broadcasts go, each once.
    pub fn broadcasts(&self) -> Vec<Ipv4Addr> {
        let mut all: Vec<_> = self
            .addrs
            .iter()
            .filter_map(|addr| {
                if addr.ip.is_loopback() && addr.ip.is_ipv4() { Some(LOOPBACK_BROADCAST) } else { addr.broadcast }
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Whether it can send to [`GROUP`]: it has an IPv6 address, and more than this machine at it.
    pub fn has_group(&self) -> bool {
        self.index != 0 && !self.is_loopback() && self.addrs.iter().any(|addr| addr.ip.is_ipv6())
    }

    /// Whether `ip` is an address of its networks.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let shares = |addr: &Address| match (addr.ip, ip) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()).leading_zeros() >= addr.prefix.into()
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => {
                (ours.to_bits() ^ theirs.to_bits()).leading_zeros() >= addr.prefix.into()
            }
            _ => false,
        };
        self.addrs.iter().any(shares)
    }

    /// Why it is left out where nothing is said; `None` where it is not.
    fn objection(&self) -> Option<&'static str> {
        let is_of = |names: &[&str]| names.iter().any(|prefix| self.name.to_ascii_lowercase().starts_with(prefix));
        if self.is_loopback() {
            None
        } else if is_of(CONTAINER_NAMES) && self.name != ROUTER_BRIDGE {
            Some(CONTAINER)
        } else if is_of(VPN_NAMES) {
            Some(VPN)
        } else if self.point_to_point {
            Some(POINT_TO_POINT)
        } else {
            None
        }
    }
}

/// The first of `wanted` that is not on this machine, and the names of `all`, with commas. One that the system knows (see
/// `exists`) and that has no address yet, as where no cable is plugged in, is there: it is used once it has one.
pub fn unknown(all: &[Interface], wanted: &[String], exists: impl Fn(&str) -> bool) -> Option<(String, String)> {
    let is_there = |name: &str| all.iter().any(|interface| interface.name == name) || exists(name);
    let name = wanted.iter().find(|name| !is_there(name))?;
    let known: Vec<&str> = all.iter().map(|interface| interface.name.as_str()).collect();
    Some((name.clone(), known.join(", ")))
}

/// Whether the same interfaces are used in both, at the same addresses: what becomes of the others is no news.
pub fn is_same_network(before: &[Choice], after: &[Choice]) -> bool {
    let used = |choices: &[Choice]| {
        let used = choices.iter().filter(|choice| choice.used).map(|choice| choice.interface.clone());
        used.collect::<Vec<_>>()
    };
    used(before) == used(after)
}

/// Decides which of `all` are used: those that are named in `wanted`; where nobody is named, all but those that lead to
/// nobody's machine; where that leaves nothing but loopback, what is up of containers too. In the order of `all`.
pub fn choose(all: Vec<Interface>, wanted: &[String]) -> Vec<Choice> {
    let mut choices: Vec<Choice> = all
        .into_iter()
        .map(|interface| {
            let why = if !interface.up {
                Some(DOWN)
            } else if wanted.is_empty() {
                interface.objection()
            } else {
                (!wanted.contains(&interface.name)).then_some(NOT_NAMED)
            };
            Choice { used: why.is_none(), interface, why }
        })
        .collect();
    let is_alone = !choices.iter().any(|choice| choice.used && !choice.interface.is_loopback());
    if wanted.is_empty() && is_alone {
        for choice in choices.iter_mut().filter(|choice| choice.why == Some(CONTAINER)) {
            (choice.used, choice.why) = (true, Some(NO_OTHER));
        }
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Interfaces from words: `name`, with `-` before it where it is down, `>` where it is a point-to-point link.
    fn interfaces(words: &str) -> Vec<Interface> {
        let interface = |(at, word): (usize, &str)| {
            let name = word.trim_start_matches(['-', '>']);
            let ip: IpAddr = if name == "lo" { [127, 0, 0, 1].into() } else { [192, 0, 2, 1].into() };
            Interface {
                name: name.into(),
                index: at as u32 + 1,
                up: !word.starts_with('-'),
                point_to_point: word.starts_with('>'),
                addrs: vec![Address { ip, prefix: 24, broadcast: None }],
            }
        };
        words.split(' ').enumerate().map(interface).collect()
    }

    fn check(words: &str, wanted: &[&str], expected: &[(&str, Option<&str>)]) {
        let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
        let choices = choose(interfaces(words), &wanted);
        let used: Vec<_> =
            choices.iter().filter(|choice| choice.used).map(|choice| (&*choice.interface.name, choice.why)).collect();
        assert_eq!(used, expected, "{words} {wanted:?}");
        assert!(choices.iter().all(|choice| choice.used || choice.why.is_some()), "{choices:?}");
    }

    #[test]
    fn what_leads_to_other_people_is_used() {
        let plain = [("lo", None), ("eth0", None)];
        check("lo eth0", &[], &plain);
        check("lo eth0 docker0 br-12ab veth3f virbr0 cni0 flannel.1 podman0 lxcbr0", &[], &plain);
        check("lo eth0 tun0 tap1 wg0 utun3 ppp0 tailscale0 ztabc >link0", &[], &plain);
        check("lo -wlan0 eth0", &[], &plain);
        check("lo br0 br-lan wlp3s0", &[], &[("lo", None), ("br0", None), ("br-lan", None), ("wlp3s0", None)]);
    }

    #[test]
    fn what_is_named_is_used_and_nothing_else() {
        check("lo eth0 docker0", &["docker0"], &[("docker0", None)]);
        check("lo eth0 wg0", &["wg0", "lo"], &[("lo", None), ("wg0", None)]);
        check("lo -eth0", &["eth0"], &[]);
    }

    #[test]
    fn where_nothing_else_is_there_what_is_there_is_used() {
        check("lo veth1 -eth0", &[], &[("lo", None), ("veth1", Some(NO_OTHER))]);
        check("lo >tun0", &[], &[("lo", None)]);
        check("lo -wlan0 wg0 tun0 >link0", &[], &[("lo", None)]);
        check("lo -wlan0 wg0 docker0", &[], &[("lo", None), ("docker0", Some(NO_OTHER))]);
        check("lo", &[], &[("lo", None)]);
    }

    #[test]
    fn what_is_left_out_is_no_news() {
        fn check(before: &str, after: &str, expected: bool) {
            let [before, after] = [before, after].map(|words| choose(interfaces(words), &[]));
            assert_eq!(is_same_network(&before, &after), expected, "{before:?} {after:?}");
        }
        check("lo eth0", "lo eth0", true);
        check("lo eth0", "lo eth0 veth1", true);
        check("lo eth0 veth1 docker0", "lo eth0 wg0", true);
        check("lo eth0", "lo eth0 wlan0", false);
        check("lo eth0", "lo -eth0", false);
        check("lo veth1", "lo", false);
        let choices = choose(interfaces("lo eth0"), &[]);
        let mut moved = choices.clone();
        moved[1].interface.addrs[0].ip = [198, 51, 100, 1].into();
        assert!(!is_same_network(&choices, &moved));
    }

    #[test]
    fn addresses_of_one_name_are_of_one_interface() {
        let listed = |name: &str, ip: [u8; 4], up| Listed {
            name: name.into(),
            index: Some(2),
            up,
            point_to_point: false,
            addr: Address { ip: ip.into(), prefix: 24, broadcast: None },
        };
        let all = [
            listed("lo", [127, 0, 0, 1], false),
            listed("eth0", [192, 0, 2, 1], true),
            listed("lo", [127, 0, 0, 2], false),
            listed("eth1", [192, 0, 2, 2], false),
        ];
        let all: Vec<_> =
            Interface::collect(all).into_iter().map(|found| (found.name, found.up, found.addrs.len())).collect();
        assert_eq!(all, [("lo".to_owned(), true, 2), ("eth0".to_owned(), true, 1), ("eth1".to_owned(), false, 1)]);
    }

    #[test]
    fn a_network_contains_its_addresses() {
        fn check(ip: &str, prefix: u8, other: &str, expected: bool) {
            let addrs = vec![Address { ip: ip.parse().unwrap(), prefix, broadcast: None }];
            let interface = Interface { addrs, ..interfaces("eth0").remove(0) };
            assert_eq!(interface.contains(other.parse().unwrap()), expected, "{ip}/{prefix} {other}");
        }
        check("192.0.2.1", 24, "192.0.2.254", true);
        check("192.0.2.1", 25, "192.0.2.254", false);
        check("192.0.2.1", 0, "203.0.113.1", true);
        check("fe80::1", 64, "fe80::2", true);
        check("fe80::1", 64, "192.0.2.1", false);
    }

    #[test]
    fn broadcasts_go_to_each_network_once() {
        let to = |last| Some(Ipv4Addr::new(192, 0, 2, last));
        let addr = |ip: [u8; 4], broadcast| Address { ip: ip.into(), prefix: 24, broadcast };
        let addrs = vec![addr([192, 0, 2, 2], to(255)), addr([192, 0, 2, 3], to(255)), addr([192, 0, 2, 4], None)];
        assert_eq!(Interface { addrs, ..interfaces("eth0").remove(0) }.broadcasts(), [Ipv4Addr::new(192, 0, 2, 255)]);
        assert_eq!(interfaces("lo").remove(0).broadcasts(), [LOOPBACK_BROADCAST]);
    }
}
