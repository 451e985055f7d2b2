//! What people are told where no server is found: where was looked, and what usually is the matter.

use std::net::IpAddr;

use hobnob_proto::{
    addr::{Reach, reach},
    discovery::interfaces::{Choice, DOWN, Interface, NOT_NAMED},
};

/// The first line of all.
pub(crate) const NO_ANSWER: &str = "no server answered.";
/// Addresses that are said of an interface.
const ADDRS_MAX: usize = 2;
/// Interfaces that are named as left out; on a machine with many containers there are hundreds.
const LEFT_OUT_MAX: usize = 4;

/// Several lines: where was looked at which port, where not and why, and what to try.
pub(crate) fn not_found(choices: &[Choice], wanted: &[String], port: u16) -> String {
    let used: Vec<&Interface> = choices.iter().filter(|choice| choice.used).map(|choice| &choice.interface).collect();
    let places: Vec<String> = used.iter().map(|interface| place(interface)).collect();
    let mut lines = vec![NO_ANSWER.to_owned()];
    if places.is_empty() {
        lines.push(nowhere(choices, wanted));
        return lines.join("\n");
    }
    lines.push(format!("Asked on {}, at UDP port {port}.", places.join(", ")));
    lines.extend(left_out(choices));
    if used.iter().all(|interface| interface.is_loopback()) {
        let is_named = choices.iter().any(|choice| choice.why == Some(NOT_NAMED));
        let else_where = if is_named { "leave --interface out" } else { "connect this machine to a network" };
        lines.push(format!(
            "So only this machine was asked: start a server here with `hobnob server`, or {else_where}."
        ));
    } else {
        lines.push(
            "If no server runs on this network yet, start one with `hobnob server`. If one does, it usually is:"
                .to_owned(),
        );
        lines.push(format!(
            "- a firewall, here or there: let UDP through to port {port} and to the servers' ports (5001 and up)"
        ));
        lines.push(
            "- the access point, which keeps its guests apart (\"client isolation\"): use another network, or a cable"
                .to_owned(),
        );
        lines.push("- a VPN that takes all traffic: switch it off, or let it leave the local network alone".to_owned());
        lines.push(
            "- another port or network over there: compare --discovery-port, or name the server with --server-ip"
                .to_owned(),
        );
    }
    lines.join("\n")
}

/// Why nobody was asked, and what to do about it.
fn nowhere(choices: &[Choice], wanted: &[String]) -> String {
    if wanted.is_empty() {
        return "Asked nowhere: no network interface of this machine is up. Connect it to a network.".to_owned();
    }
    let state = |name: &String| {
        let is_down = choices.iter().any(|choice| choice.interface.name == *name);
        format!("{name} {}", if is_down { "is down" } else { "has no address" })
    };
    let states: Vec<String> = wanted.iter().map(state).collect();
    format!("Asked nowhere: {}. Connect it to a network, or leave --interface out.", states.join(", "))
}

/// An interface with an address or two: those that people know it by.
fn place(interface: &Interface) -> String {
    let is_local = |ip: &IpAddr| reach((*ip, 1).into()) == Reach::Link;
    let mut ips: Vec<IpAddr> = interface.addrs.iter().map(|addr| addr.ip).collect();
    ips.sort_by_key(|ip| (is_local(ip), ip.is_ipv6()));
    let ips: Vec<String> = ips.iter().take(ADDRS_MAX).map(ToString::to_string).collect();
    format!("{} ({})", interface.name, ips.join(", "))
}

/// Which interfaces were left out although they are up and nobody said so.
fn left_out(choices: &[Choice]) -> Option<String> {
    let is_left = |choice: &&Choice| !choice.used && !matches!(choice.why, Some(DOWN | NOT_NAMED) | None);
    let names: Vec<&Choice> = choices.iter().filter(is_left).collect();
    let first = names.first()?;
    let mut shown: Vec<String> = names
        .iter()
        .take(LEFT_OUT_MAX)
        .map(|choice| format!("{} ({})", choice.interface.name, choice.why.unwrap_or_default()))
        .collect();
    if names.len() > LEFT_OUT_MAX {
        shown.push(format!("{} more", names.len() - LEFT_OUT_MAX));
    }
    Some(format!("Not on {}; to ask there: --interface {}.", shown.join(", "), first.interface.name))
}

#[cfg(test)]
mod tests {
    use hobnob_proto::discovery::interfaces::{Address, CONTAINER, VPN, choose};

    use super::*;

    fn interface(name: &str, ips: &[&str]) -> Interface {
        let addrs = ips.iter().map(|ip| Address { ip: ip.parse().unwrap(), prefix: 24, broadcast: None }).collect();
        Interface { name: name.into(), index: 1, up: true, point_to_point: false, addrs }
    }

    #[test]
    fn people_are_told_where_was_looked_and_what_to_try() {
        let all = vec![
            interface("lo", &["127.0.0.1", "::1"]),
            interface("wlan0", &["fe80::1", "fd00::2", "192.0.2.7"]),
            interface("docker0", &["172.17.0.1"]),
            interface("wg0", &["10.9.0.1"]),
        ];
        let expected = format!(
            "no server answered.
Asked on lo (127.0.0.1, ::1), wlan0 (192.0.2.7, fd00::2), at UDP port 5005.
Not on docker0 ({CONTAINER}), wg0 ({VPN}); to ask there: --interface docker0.
If no server runs on this network yet, start one with `hobnob server`. If one does, it usually is:
- a firewall, here or there: let UDP through to port 5005 and to the servers' ports (5001 and up)
- the access point, which keeps its guests apart (\"client isolation\"): use another network, or a cable
- a VPN that takes all traffic: switch it off, or let it leave the local network alone
- another port or network over there: compare --discovery-port, or name the server with --server-ip"
        );
        assert_eq!(not_found(&choose(all, &[]), &[], 5005), expected);
    }

    #[test]
    fn a_machine_without_a_network_is_not_told_of_firewalls() {
        fn check(wanted: &[&str], expected: &str) {
            let all = vec![interface("lo", &["127.0.0.1"]), interface("eth0", &["192.0.2.7"])];
            let all = if wanted.is_empty() { all[..1].to_vec() } else { all };
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            let said = not_found(&choose(all, &wanted), &wanted, 5005);
            assert!(said.ends_with(expected) && !said.contains("firewall"), "{said}");
        }
        check(&[], "or connect this machine to a network.");
        check(&["lo"], "or leave --interface out.");
    }

    #[test]
    fn who_could_ask_nowhere_is_told_why() {
        fn check(wanted: &[&str], expected: &str) {
            let down = Interface { up: false, ..interface("wlan0", &["192.0.2.7"]) };
            let all = if wanted.is_empty() { vec![down] } else { vec![interface("lo", &["127.0.0.1"]), down] };
            let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
            let said = not_found(&choose(all, &wanted), &wanted, 5005);
            assert_eq!(said, format!("{NO_ANSWER}\nAsked nowhere: {expected}"));
        }
        check(&[], "no network interface of this machine is up. Connect it to a network.");
        check(&["wlan0"], "wlan0 is down. Connect it to a network, or leave --interface out.");
        check(
            &["wlan0", "eth5"],
            "wlan0 is down, eth5 has no address. Connect it to a network, or leave --interface out.",
        );
    }

    #[test]
    fn a_machine_with_many_containers_does_not_list_them_all() {
        let containers = (0..300).map(|n| interface(&format!("veth{n}"), &["fe80::1"]));
        let all: Vec<_> = std::iter::once(interface("eth0", &["192.0.2.7"])).chain(containers).collect();
        let said = not_found(&choose(all, &[]), &[], 5005);
        assert!(said.len() < 1_200 && said.contains("296 more"), "{said}");
    }
}
