//! What a server says where the network of its machine changes, in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::{collections::VecDeque, net::SocketAddr, time::Duration};

use hobnob_proto::{
    client::{self, Client, Command},
    config::ServerConfig,
    discovery::interfaces::{Address, CONTAINER, Choice, Interface},
    node::{Input, Node, Output},
    time::Time,
    wire::frame::Ask,
};
use serde_json::{Value, json};

const SERVER: &str = "127.0.0.1:5001";
const CLIENT: &str = "127.0.0.1:4001";

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn server(now: Time) -> Node {
    let config = ServerConfig { replicas: 1, ..common::server(Some(1), addr(SERVER), now) };
    Node::new(config, [1; 32], now)
}

fn choice(name: &str, ip: &str, why: Option<&'static str>) -> Choice {
    let addrs = vec![Address { ip: ip.parse().unwrap(), prefix: 24, broadcast: None }];
    let interface = Interface { name: name.into(), index: 2, up: true, point_to_point: false, addrs };
    Choice { used: why.is_none(), interface, why }
}

/// Ticks a server that nobody answers for `span`; when it said something to everybody.
fn run_alone(node: &mut Node, now: &mut Time, span: Duration) -> Vec<Time> {
    let end = *now + span;
    let mut said = Vec::new();
    while *now < end {
        node.handle(Input::Tick, *now);
        while let Some(output) = node.poll() {
            if matches!(output, Output::Broadcast { .. }) {
                said.push(*now);
            }
        }
        *now = node.deadline().max(*now);
    }
    *now = end;
    said
}

#[test]
fn a_server_says_hello_at_once_where_a_network_comes() {
    let mut now = Time::from_micros(1_000_000);
    let mut node = server(now);
    run_alone(&mut node, &mut now, Duration::from_mins(1));
    let quiet = run_alone(&mut node, &mut now, Duration::from_secs(10));
    assert!(quiet.len() <= 7, "{quiet:?}");
    let (addrs, choices) = ([addr("192.0.2.7:5001"), addr(SERVER)], [choice("eth0", "192.0.2.7", None)]);
    node.handle(Input::Network { addrs: &addrs, interfaces: &choices }, now);
    let outputs: Vec<Output> = std::iter::from_fn(|| node.poll()).collect();
    assert!(outputs.iter().any(|output| matches!(output, Output::Broadcast { .. })), "{outputs:?}");
    let often = run_alone(&mut node, &mut now, Duration::from_secs(10));
    assert!(often.len() > 10, "{often:?}");
}

#[test]
fn a_status_tells_of_the_interfaces_and_why_some_are_not_used() {
    let mut now = Time::from_micros(1_000_000);
    let mut node = server(now);
    let many = (0..300).map(|n| choice(&format!("veth{n}"), "172.17.0.1", Some(CONTAINER)));
    let choices: Vec<Choice> = many.chain([choice("eth0", "192.0.2.7", None)]).collect();
    node.handle(Input::Network { addrs: &[addr("192.0.2.7:5001"), addr(SERVER)], interfaces: &choices }, now);
    let interfaces = ask_status(&mut node, &mut now)["interfaces"].take();
    let interfaces = interfaces.as_array().unwrap();
    assert_eq!(interfaces[0], json!({"name": "eth0", "addrs": ["192.0.2.7"], "used": true, "why": null}));
    assert_eq!(interfaces[1], json!({"name": "veth0", "addrs": ["172.17.0.1"], "used": false, "why": CONTAINER}));
    assert_eq!(interfaces.len(), 40, "bounded");
}

/// What a client on loopback is answered.
fn ask_status(node: &mut Node, now: &mut Time) -> Value {
    let config = common::person([2; 32], 1, "ada", &[addr(SERVER)]);
    let mut client = Client::new(config, [3; 32], *now);
    client.handle(client::Input::Command(Command::Ask { id: 1, ask: Ask::Status }), *now);
    client.handle(client::Input::Tick, *now);
    node.handle(Input::Tick, *now);
    let (mut wires, mut whole): (VecDeque<(SocketAddr, Vec<u8>)>, Value) = (VecDeque::new(), json!({"interfaces": []}));
    let end = *now + Duration::from_secs(10);
    while *now < end {
        while let Some(output) = node.poll() {
            if let Output::Send { to, bytes } = output {
                wires.push_back((to, bytes));
            }
        }
        while let Some(output) = client.poll() {
            match output {
                client::Output::Send { to, bytes } => wires.push_back((to, bytes)),
                client::Output::Event(client::Event::Answer { mut data, last, .. }) => {
                    if let Value::Array(more) = data["interfaces"].take() {
                        whole["interfaces"].as_array_mut().unwrap().extend(more);
                    }
                    if last {
                        return whole;
                    }
                }
                client::Output::Broadcast { .. } | client::Output::Event(_) => {}
            }
        }
        if let Some((to, bytes)) = wires.pop_front() {
            if to == addr(SERVER) {
                node.handle(Input::Datagram { from: addr(CLIENT), bytes: &bytes }, *now);
            } else if to == addr(CLIENT) {
                client.handle(client::Input::Datagram { from: addr(SERVER), bytes: &bytes }, *now);
            }
            continue;
        }
        *now = node.deadline().min(client.deadline()).max(*now);
        node.handle(Input::Tick, *now);
        client.handle(client::Input::Tick, *now);
    }
    panic!("there is no answer")
}
