//! What a server is told while people talk, turn by turn: taken down once, with real clients and their sealed sessions, and
//! then said again to a server alone. That one has the same seed, so it opens and says what the first did, and whatever it
//! costs is its own cost and nobody else's.

use std::{collections::BTreeMap, net::SocketAddr, ops::Range, time::Duration};

use hobnob_proto::{
    client::{self, Client},
    config::ServerConfig,
    ids::RoomName,
    log::VersionVector,
    node::{Input, Node, Output},
    session::{Datagrams, keys::Suite},
    time::Time,
    wire::frame::Start,
};

use crate::common;

/// How long a datagram takes.
const LATENCY: Duration = Duration::from_micros(500);
/// Ticks are so far apart, as those of the real drivers are.
const TICK_GAP: Duration = Duration::from_millis(1);
/// The server whose turns are taken down.
const SERVER: u16 = 5_001;
/// The first port of people; servers are below.
const PEOPLE: u16 = 40_000;
/// Between two lines of somebody who talks.
const GAP: Duration = Duration::from_millis(20);
/// As many characters as people like to say at once.
const LINE_BYTES: usize = 120;

/// What arrives at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Turn {
    /// When.
    pub(crate) at: Time,
    /// From which ports, and what.
    pub(crate) datagrams: Vec<(u16, Vec<u8>)>,
}

/// A part of the turns, and what was shown to people in them.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// Which turns.
    pub(crate) turns: Range<usize>,
    /// How many lines were shown: one line to ten people is ten.
    pub(crate) deliveries: u64,
}

/// A server, and what it sends in a turn.
pub(crate) struct Server {
    node: Node,
    next_tick: Time,
    /// What it has sent in the last turn, within sessions.
    pub(crate) sent: Datagrams,
    /// What it broadcasts, and sends to strangers.
    pub(crate) outputs: Vec<Output>,
}

/// A server, perhaps with others, and people: all in virtual time, on a network that loses nothing.
pub(crate) struct Stage {
    now: Time,
    servers: BTreeMap<u16, Server>,
    people: BTreeMap<u16, Client>,
    /// When each person is to be woken.
    wake: BTreeMap<u16, Time>,
    /// What is under way, by time of arrival: to whom, from whom, what.
    wires: BTreeMap<Time, Vec<(u16, u16, Vec<u8>)>>,
    posts: u64,
    shown: u64,
    /// What the first server was told so far.
    pub(crate) turns: Vec<Turn>,
}

fn addr(port: u16) -> SocketAddr {
    ([192, 0, 2, 1], port).into()
}

fn room() -> RoomName {
    "tea".parse().expect("this is a name")
}

impl Server {
    /// The one whose turns are taken down, before its first turn.
    pub(crate) fn new() -> Self {
        Self::at(SERVER, Time::ZERO)
    }

    fn at(port: u16, now: Time) -> Self {
        let config =
            ServerConfig { suite: Suite::AesGcm, ..common::server(Some(u32::from(port) - 5_000), addr(port), now) };
        let node = Node::new(config, [port.to_le_bytes()[0]; 32], now);
        Self { node, next_tick: now, sent: Datagrams::default(), outputs: Vec::new() }
    }

    fn wake(&self) -> Time {
        self.node.deadline().max(self.next_tick)
    }

    /// Takes what has arrived, and does what is due, as the real driver does.
    pub(crate) fn turn(&mut self, turn: &Turn) {
        self.sent.clear();
        for (from, bytes) in &turn.datagrams {
            self.node.handle(Input::Datagram { from: addr(*from), bytes }, turn.at);
        }
        if turn.at >= self.wake() {
            self.node.handle(Input::Tick, turn.at);
            self.next_tick = turn.at + TICK_GAP;
        }
        self.node.flush(&mut self.sent);
        self.outputs.extend(std::iter::from_fn(|| self.node.poll()));
    }
}

#[allow(dead_code, reason = "not everybody who takes turns down does all of this")]
impl Stage {
    /// So many servers, and nobody else yet. Only what the first one is told is taken down.
    pub(crate) fn new(servers: u16) -> Self {
        let now = Time::ZERO;
        Self {
            now,
            servers: (SERVER..SERVER + servers).map(|port| (port, Server::at(port, now))).collect(),
            people: BTreeMap::new(),
            wake: BTreeMap::new(),
            wires: BTreeMap::new(),
            posts: 0,
            shown: 0,
            turns: Vec::new(),
        }
    }

    /// A server, and so many people in one room there, a while after they have come.
    pub(crate) fn with_members(members: u16) -> Self {
        let mut stage = Self::new(1);
        stage.run(Duration::from_secs(2));
        for n in 0..members {
            stage.come(n);
            stage.run(Duration::from_millis(10));
        }
        stage.run(Duration::from_secs(2));
        stage
    }

    fn come(&mut self, n: u16) {
        let mut seed = [1; 32];
        seed[..2].copy_from_slice(&n.to_le_bytes());
        let config = common::person(seed, n.into(), &format!("person-{n}"), &[addr(SERVER)]);
        let port = PEOPLE + n;
        self.people.insert(port, Client::new(config, seed, self.now));
        self.wake.insert(port, self.now);
        self.command(port, client::Command::Join { room: room(), from: Start::After(VersionVector::default()) });
    }

    /// One line each [`GAP`]: from the first who came.
    pub(crate) fn talk(&mut self, lines: u64) -> Part {
        self.part(|stage| {
            for _ in 0..lines {
                stage.post(1);
                stage.run(GAP);
            }
        })
    }

    /// So often all that this many people say at once, one line each.
    pub(crate) fn burst(&mut self, times: u32, people: u16) -> Part {
        self.part(|stage| {
            for _ in 0..times {
                stage.post(people);
                stage.run(GAP);
            }
        })
    }

    /// Nobody says anything.
    pub(crate) fn quiet(&mut self, span: Duration) -> Part {
        self.part(|stage| stage.run(span))
    }

    fn part(&mut self, act: impl FnOnce(&mut Self)) -> Part {
        let (first, shown) = (self.turns.len(), self.shown);
        act(self);
        Part { turns: first..self.turns.len(), deliveries: self.shown - shown }
    }

    fn post(&mut self, people: u16) {
        self.posts += 1;
        for n in 0..people {
            let mut body = format!("{n} says line {} ", self.posts);
            body.extend(std::iter::repeat_n('.', LINE_BYTES - body.len()));
            self.command(PEOPLE + n, client::Command::Post { room: room(), seq: self.posts, body });
        }
    }

    fn command(&mut self, port: u16, command: client::Command) {
        let person = self.people.get_mut(&port).expect("they have come");
        person.handle(client::Input::Command(command), self.now);
        self.after_client(port);
    }

    fn after_client(&mut self, port: u16) {
        let person = self.people.get_mut(&port).expect("they have come");
        self.wake.insert(port, person.deadline().max(self.now));
        while let Some(output) = person.poll() {
            match output {
                client::Output::Send { to, bytes } => {
                    self.wires.entry(self.now + LATENCY).or_default().push((to.port(), port, bytes));
                }
                client::Output::Event(client::Event::Message { .. }) => self.shown += 1,
                client::Output::Broadcast { .. } | client::Output::Event(_) => {}
            }
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let wire = self.wires.keys().next().copied();
            let server = self.servers.values().map(Server::wake).min();
            let next = [wire, server, self.wake.values().min().copied()].into_iter().flatten().min().unwrap_or(end);
            if next >= end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            self.step();
        }
    }

    /// All that happens at this moment.
    fn step(&mut self) {
        let mut arrived: BTreeMap<u16, Vec<(u16, Vec<u8>)>> = BTreeMap::new();
        while let Some(wire) = self.wires.first_entry().filter(|wire| *wire.key() <= self.now) {
            for (to, from, bytes) in wire.remove() {
                arrived.entry(to).or_default().push((from, bytes));
            }
        }
        let ports: Vec<_> = self.servers.keys().copied().collect();
        for port in &ports {
            let datagrams = arrived.remove(port).unwrap_or_default();
            if !datagrams.is_empty() || self.servers[port].wake() <= self.now {
                self.step_server(*port, Turn { at: self.now, datagrams }, &ports);
            }
        }
        for (port, datagrams) in arrived {
            let Some(person) = self.people.get_mut(&port) else { continue };
            for (from, bytes) in datagrams {
                person.handle(client::Input::Datagram { from: addr(from), bytes: &bytes }, self.now);
            }
            self.after_client(port);
        }
        let due: Vec<_> = self.wake.iter().filter(|(_, at)| **at <= self.now).map(|(port, _)| *port).collect();
        for port in due {
            self.people.get_mut(&port).expect("they have come").handle(client::Input::Tick, self.now);
            self.after_client(port);
            let earliest = self.now + TICK_GAP;
            self.wake.entry(port).and_modify(|at| *at = earliest.max(*at));
        }
    }

    fn step_server(&mut self, port: u16, turn: Turn, all: &[u16]) {
        let server = self.servers.get_mut(&port).expect("it runs");
        server.turn(&turn);
        let wires = self.wires.entry(self.now + LATENCY).or_default();
        wires.extend(server.sent.iter().map(|(to, bytes)| (to.port(), port, bytes.to_vec())));
        for output in server.outputs.drain(..) {
            match output {
                Output::Send { to, bytes } => wires.push((to.port(), port, bytes)),
                Output::Broadcast { bytes } => {
                    let others = all.iter().filter(|other| **other != port);
                    wires.extend(others.map(|to| (*to, port, bytes.clone())));
                }
                Output::Event(_) => {}
                Output::Persist(_) | Output::Read(_) => unreachable!("it has no store"),
            }
        }
        if wires.is_empty() {
            self.wires.remove(&(self.now + LATENCY));
        }
        if port == SERVER {
            self.turns.push(turn);
        }
    }
}
