//! Servers in this process, on loopback: they start, hear each other, leave, and say why they cannot start.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{net::UdpSocket, time::Duration};

use hobnob_proto::{
    discovery::packet::{self, Nonce, Packet},
    node::{Event, Stop},
    rng::Rng,
    session::{self, Datagrams, Endpoint, keys::KeyPair},
    time::Time,
    wire::{Frame, greeting::Greeting},
};
use hobnob_server::{
    Error, Exit, Options, background,
    control::{self, Order},
    run,
    store::Keep,
};
use tokio::{sync::mpsc::unbounded_channel, time::timeout};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// A server on loopback, in a cluster of its own unless another shares its discovery port.
fn options(discovery_port: u16) -> Options {
    Options {
        port: Some(0),
        interfaces: vec!["lo".into()],
        discovery_port,
        keep: Keep::Memory,
        ..Options::new(format!("in-process-{discovery_port}").parse().unwrap())
    }
}

/// A port that nobody uses, and a socket that keeps it so.
fn taken_port() -> (u16, UdpSocket) {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    (socket.local_addr().unwrap().port(), socket)
}

/// A port that nobody uses.
fn free_port() -> u16 {
    taken_port().0
}

#[tokio::test]
async fn a_server_that_is_told_to_stops_at_once() {
    let (control, handle) = control::pair();
    handle.order(Order::StopAtOnce);
    let exit = timeout(LIMIT, run(options(free_port()), control)).await.expect("it stops");
    assert_eq!(exit.unwrap(), Exit::AtOnce);
}

#[tokio::test]
async fn a_discovery_port_that_cannot_be_shared_matters_only_without_peers() {
    let (port, _taken) = taken_port();
    let refused = timeout(LIMIT, run(options(port), control::pair().0)).await.expect("it does not start");
    assert!(matches!(refused, Err(Error::Discovery { port: named, .. }) if named == port), "{refused:?}");
    let (control, handle) = control::pair();
    handle.order(Order::StopAtOnce);
    let with_peer = Options { peers: vec!["127.0.0.1:9".parse().unwrap()], ..options(port) };
    let exit = timeout(LIMIT, run(with_peer, control)).await.expect("it stops");
    assert_eq!(exit.unwrap(), Exit::AtOnce);
}

#[tokio::test]
async fn a_server_beside_us_serves_until_it_is_asked_to_leave() {
    let spawned = timeout(LIMIT, background::spawn(options(free_port()))).await.expect("it serves");
    let (running, ready) = spawned.unwrap().unwrap();
    assert!(ready.founded && ready.addr().is_some_and(|addr| addr.ip().is_loopback()), "{ready:?}");
    let exit = timeout(LIMIT, running.leave()).await.expect("it leaves").unwrap();
    assert!(matches!(exit, Exit::Stopped(Stop::Left | Stop::LeftUnfinished | Stop::LeftAlone { .. })), "{exit:?}");
}

#[tokio::test]
async fn two_servers_that_share_a_discovery_port_hear_each_other() {
    let port = free_port();
    let (first, _) = timeout(LIMIT, background::spawn(options(port))).await.expect("it serves").unwrap().unwrap();
    let (events, mut heard) = unbounded_channel();
    let (control, mut handle) = control::pair();
    // A server stays on its thread.
    let watch = async {
        timeout(LIMIT, handle.ready()).await.expect("it serves").unwrap();
        let peer = async { while !matches!(heard.recv().await, Some(Event::PeerUp { .. })) {} };
        timeout(LIMIT, peer).await.expect("the first is heard");
        handle.order(Order::StopAtOnce);
    };
    let (exit, ()) = tokio::join!(run(options(port), control.with_events(events)), watch);
    assert_eq!(exit.unwrap(), Exit::AtOnce);
    drop(first);
}

/// None is lost on the way from one socket to the other and back, nor forgotten in the second. That there is a second one,
/// and when it is used, is not seen from here: the tests of the sockets hold that.
#[tokio::test]
async fn every_keepalive_is_answered_however_many_come() {
    let (_running, ready) =
        timeout(LIMIT, background::spawn(options(free_port()))).await.expect("it serves").unwrap().unwrap();
    let (socket, server) = (UdpSocket::bind("127.0.0.1:0").unwrap(), ready.addr().unwrap());
    socket.connect(server).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    let (mut rng, mut buffer) = (Rng::from_seed([1; 32]), [0; 2_048]);
    socket.send(&packet::find(None, Nonce::random(&mut rng))).unwrap();
    let len = socket.recv(&mut buffer).unwrap();
    let Ok(Packet::Here { facts, .. }) = packet::parse(&buffer[..len]) else { panic!("it says who it is") };
    let key = KeyPair::generate(&mut rng);
    let mut endpoint = Endpoint::new(None, rng.fork());
    let greeting = Greeting::client(None, &key.public).to_payload();
    let id = endpoint.connect(server, &key, &facts.key, facts.suite, &greeting, Time::ZERO);
    let flush = |endpoint: &mut Endpoint| {
        let mut datagrams = Datagrams::default();
        endpoint.flush(Time::ZERO, &mut datagrams);
        datagrams.iter().for_each(|(_, bytes)| assert_eq!(socket.send(bytes).unwrap(), bytes.len()));
    };
    // Takes what comes next, and says which pings it answers.
    let mut hear = |endpoint: &mut Endpoint| {
        flush(endpoint);
        let len = socket.recv(&mut buffer).expect("all is answered");
        endpoint.handle(server, &buffer[..len], Time::ZERO);
        std::iter::from_fn(|| endpoint.poll_event()).filter_map(pong).collect::<Vec<_>>()
    };
    while endpoint.heard(id).is_none() {
        hear(&mut endpoint);
    }
    // One alone, more than are many again and again, and one alone again.
    for pings in [1..=1, 2..=100, 101..=200, 201..=300, 301..=301] {
        for n in pings.clone() {
            endpoint.send(id, Frame::Ping { n }.to_line().as_bytes());
            flush(&mut endpoint);
        }
        let mut answered = Vec::new();
        while answered.len() < pings.clone().count() {
            answered.extend(hear(&mut endpoint));
        }
        answered.sort_unstable();
        assert_eq!(answered, pings.collect::<Vec<_>>());
    }
}

fn pong(event: session::Event) -> Option<u64> {
    let session::Event::Line { line, .. } = event else { return None };
    match Frame::from_line(&line) {
        Some(Frame::Pong { n }) => Some(n),
        _ => None,
    }
}
