//! A server that is sent 100,000 hostile datagrams still serves: noise, and what a small cluster really said, cut short,
//! bent, glued together, replayed, from strangers and in the name of others.

#[path = "../common/mod.rs"]
mod common;
mod frames;

use std::{collections::VecDeque, net::SocketAddr};

use hobnob_proto::{
    client::{self, Client},
    ids::RoomName,
    limits,
    log::VersionVector,
    node::{self, Node},
    rng::Rng,
    time::{Duration, Time},
    wire::frame::Start,
};

const DATAGRAMS: usize = 100_000;
/// Hostile datagrams that arrive at one moment.
const BURST: usize = 50;
/// Time between two bursts.
const PAUSE: Duration = Duration::from_millis(5);
/// How long a packet of the cluster takes.
const LATENCY: Duration = Duration::from_millis(1);
/// How long a client waits for what it wants.
const PATIENCE: Duration = Duration::from_secs(30);
/// Timers fire at least so much apart.
const TICK_MIN: Duration = Duration::from_millis(1);
/// Datagrams that are kept to be bent.
const CAPTURED_MAX: usize = 4_000;

/// A datagram that was sent.
#[derive(Clone)]
struct Packet {
    at: Time,
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

struct Server {
    addr: SocketAddr,
    node: Node,
    wake: Time,
    events: Vec<node::Event>,
}

struct Person {
    addr: SocketAddr,
    client: Client,
    wake: Time,
    events: Vec<client::Event>,
}

/// Servers and clients on a network that loses nothing.
struct Lab {
    now: Time,
    servers: Vec<Server>,
    people: Vec<Person>,
    wire: VecDeque<Packet>,
    captured: Vec<Packet>,
    /// Bytes sent to addresses at which nobody of ours is.
    to_strangers: usize,
    /// What was sent to [`frames::SUBNET`].
    inbox: Vec<Packet>,
    rng: Rng,
}

impl Lab {
    fn new(servers: u32) -> Self {
        let mut rng = Rng::from_seed([7; 32]);
        let servers = (1..=servers).map(|id| server(id, &mut rng)).collect();
        Self {
            now: Time::ZERO,
            servers,
            people: Vec::new(),
            wire: VecDeque::new(),
            captured: Vec::new(),
            to_strangers: 0,
            inbox: Vec::new(),
            rng,
        }
    }

    /// Somebody who stays with the first server, and follows the lobby from its beginning.
    fn add_person(&mut self) -> usize {
        let n = self.people.len();
        let mut seed = [0; 32];
        self.rng.fill(&mut seed);
        let device = self.rng.u64();
        let config = common::person(seed, device, &format!("person-{n}"), &[self.servers[0].addr]);
        let client = Client::new(config, seed, self.now);
        let addr = SocketAddr::from(([10, 0, 1, n as u8 + 1], 40_000));
        self.people.push(Person { addr, client, wake: self.now, events: Vec::new() });
        let from = Start::After(VersionVector::default());
        self.command(n, client::Command::Join { room: RoomName::lobby(), from });
        n
    }

    fn command(&mut self, person: usize, command: client::Command) {
        self.people[person].client.handle(client::Input::Command(command), self.now);
        self.after_client(person, false);
    }

    fn post(&mut self, person: usize, seq: u64) {
        self.command(person, client::Command::Post { room: RoomName::lobby(), seq, body: format!("post {seq}") });
    }

    /// Lets time pass until `done`, for [`PATIENCE`] at most; gives back whether it was.
    fn wait(&mut self, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + PATIENCE;
        while !done(self) && self.now < end {
            self.pass(PAUSE);
        }
        done(self)
    }

    fn pass(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let arrival = self.wire.front().map(|packet| packet.at);
            let server = self.servers.iter().enumerate().map(|(n, server)| (server.wake, n)).min();
            let person = self.people.iter().enumerate().map(|(n, person)| (person.wake, n)).min();
            let next = arrival.into_iter().chain(server.map(|(at, _)| at)).chain(person.map(|(at, _)| at)).min();
            let Some(at) = next.filter(|at| *at <= end) else { break };
            self.now = self.now.max(at);
            if arrival == Some(at) {
                let packet = self.wire.pop_front().expect("it was at the front");
                if frames::is_stranger(packet.to) {
                    self.inbox.push(packet);
                } else {
                    self.deliver(packet.from, packet.to, &packet.bytes);
                }
            } else if let Some((_, n)) = server.filter(|(wake, _)| *wake == at) {
                self.servers[n].node.handle(node::Input::Tick, self.now);
                self.after_server(n, true);
            } else if let Some((_, n)) = person {
                self.people[n].client.handle(client::Input::Tick, self.now);
                self.after_client(n, true);
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        if let Some(n) = self.servers.iter().position(|server| server.addr == to) {
            self.servers[n].node.handle(node::Input::Datagram { from, bytes }, self.now);
            self.after_server(n, false);
        } else if let Some(n) = self.people.iter().position(|person| person.addr == to) {
            self.people[n].client.handle(client::Input::Datagram { from, bytes }, self.now);
            self.after_client(n, false);
        } else {
            self.to_strangers += bytes.len();
        }
    }

    fn after_server(&mut self, n: usize, ticked: bool) {
        let from = self.servers[n].addr;
        while let Some(output) = self.servers[n].node.poll() {
            match output {
                node::Output::Send { to, bytes } => self.send(from, to, bytes),
                node::Output::Broadcast { bytes } => self.broadcast(from, &bytes),
                node::Output::Persist(_) | node::Output::Read(_) => unreachable!("it has no store"),
                node::Output::Event(event) => self.servers[n].events.push(event),
            }
        }
        let earliest = if ticked { self.now + TICK_MIN } else { self.now };
        self.servers[n].wake = self.servers[n].node.deadline().max(earliest);
    }

    fn after_client(&mut self, n: usize, ticked: bool) {
        let from = self.people[n].addr;
        while let Some(output) = self.people[n].client.poll() {
            match output {
                client::Output::Send { to, bytes } => self.send(from, to, bytes),
                client::Output::Broadcast { bytes } => self.broadcast(from, &bytes),
                client::Output::Event(event) => self.people[n].events.push(event),
            }
        }
        let earliest = if ticked { self.now + TICK_MIN } else { self.now };
        self.people[n].wake = self.people[n].client.deadline().max(earliest);
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let packet = Packet { at: self.now + LATENCY, from, to, bytes };
        if self.captured.len() < CAPTURED_MAX {
            self.captured.push(packet.clone());
        }
        self.wire.push_back(packet);
    }

    fn broadcast(&mut self, from: SocketAddr, bytes: &[u8]) {
        for n in 0..self.servers.len() {
            self.send(from, self.servers[n].addr, bytes.to_vec());
        }
    }

    fn has_stored(&self, person: usize, wanted: u64) -> bool {
        let stored =
            |event: &client::Event| matches!(event, client::Event::Acked { seq, stored: true, .. } if *seq == wanted);
        self.people[person].events.iter().any(stored)
    }

    fn shown(&self, person: usize) -> Vec<&str> {
        let messages = self.people[person].events.iter().filter_map(|event| match event {
            client::Event::Message { entry, .. } => Some(&*entry.body),
            _ => None,
        });
        messages.collect()
    }

    /// A hostile datagram, and in whose name.
    fn hostile(&mut self) -> (SocketAddr, Vec<u8>) {
        let Packet { from, mut bytes, .. } = self.any_captured().clone();
        match self.rng.below(8) {
            0 => bytes = self.noise(limits::DATAGRAM_BYTES_MAX + 100),
            1 => bytes.truncate(self.below(bytes.len())),
            2 => bytes.extend(self.noise(100)),
            3 => {
                let tail = &self.any_captured().bytes;
                let (head, from) = (bytes.len() / 2, tail.len() / 2);
                let tail = tail[from..].to_vec();
                bytes.truncate(head);
                bytes.extend(tail);
            }
            // The first bytes are right: type and receiver, or the start of an object.
            4 => {
                bytes.truncate(self.below(14));
                bytes.extend(self.noise(1_200));
            }
            5 => {}
            _ => {
                for _ in 0..=self.below(8) {
                    let (at, bit) = (self.below(bytes.len()), self.below(8));
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << bit;
                    }
                }
            }
        }
        let stranger = SocketAddr::from(([10, 9, self.below(256) as u8, 1], 1_024 + self.below(60_000) as u16));
        (if self.below(3) == 0 { from } else { stranger }, bytes)
    }

    fn any_captured(&mut self) -> &Packet {
        let n = self.below(self.captured.len());
        &self.captured[n]
    }

    fn noise(&mut self, longest: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.below(longest + 1)];
        self.rng.fill(&mut bytes);
        bytes
    }

    /// A number below `bound`; 0 where there is none.
    fn below(&mut self, bound: usize) -> usize {
        self.rng.below(bound.max(1) as u64) as usize
    }
}

fn server(id: u32, rng: &mut Rng) -> Server {
    let addr = SocketAddr::from(([10, 0, 0, id as u8], 5001));
    let config = common::server(Some(id), addr, Time::ZERO);
    let mut seed = [0; 32];
    rng.fill(&mut seed);
    Server { addr, node: Node::new(config, seed, Time::ZERO), wake: Time::ZERO, events: Vec::new() }
}

#[test]
fn a_server_under_hostile_datagrams_still_serves() {
    let mut lab = Lab::new(3);
    lab.pass(Duration::from_secs(5));
    let ann = lab.add_person();
    lab.post(ann, 1);
    assert!(lab.wait(|lab| lab.has_stored(ann, 1)), "the cluster does not work to begin with");
    // Long enough for heartbeats, cursors and heads to be among what is bent.
    lab.pass(Duration::from_secs(3));

    let (quiet, told) =
        (lab.servers.iter().map(|server| server.events.len()).collect::<Vec<_>>(), lab.people[ann].events.len());
    lab.to_strangers = 0;
    let mut from_strangers = 0;
    let victim = lab.servers[0].addr;
    for n in 0..DATAGRAMS {
        let (from, bytes) = lab.hostile();
        from_strangers += bytes.len();
        lab.deliver(from, victim, &bytes);
        if n % BURST == 0 {
            lab.pass(PAUSE);
        }
    }

    for (server, quiet) in lab.servers.iter().zip(quiet) {
        assert_eq!(server.events[quiet..], [], "nothing that was sent has changed who hears whom, or who leads");
    }
    let lost = lab.people[ann].events[told..].iter().any(|event| matches!(event, client::Event::Lost { .. }));
    assert!(!lost, "the client kept its server");
    let to_strangers = lab.to_strangers;
    assert!(to_strangers <= from_strangers, "{to_strangers} bytes in answer to {from_strangers}: a lever for a flood");
    lab.post(ann, 2);
    assert!(lab.wait(|lab| lab.has_stored(ann, 2)), "a post of a client that was there is stored");
    let bob = lab.add_person();
    assert!(lab.wait(|lab| lab.shown(bob) == ["post 1", "post 2"]), "a newcomer shows {:?}", lab.shown(bob));
}
