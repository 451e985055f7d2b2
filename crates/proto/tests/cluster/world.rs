//! Servers, and people where there are any, on a network that loses nothing and whose links can be cut one way.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use hobnob_proto::{
    client::{self, Client},
    config::ServerConfig,
    ids::RoomName,
    log::VersionVector,
    node::{Event, Input, Node, Output, Stop, view::View},
    session::keys::Secret,
    time::Time,
    wire::frame::Start,
};

use crate::common;

/// How long a datagram takes.
const LATENCY: Duration = Duration::from_micros(500);
/// The first port of people; servers are below.
const PEOPLE: u16 = 40_000;

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) nodes: BTreeMap<u16, Node>,
    pub(crate) people: BTreeMap<u16, Client>,
    /// What is under way, by time of arrival: from, to, content.
    wires: BTreeMap<(Time, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    pub(crate) events: Vec<(u16, Time, Event)>,
    pub(crate) heard: Vec<(u16, Time, client::Event)>,
    pub(crate) steps: u32,
    /// Pairs of ports (from, to) between which nothing passes.
    cuts: BTreeSet<(u16, u16)>,
    /// Servers that do nothing until then; what arrives waits.
    paused: BTreeMap<u16, Time>,
    /// Addresses at which servers that start now say that they are too, and are not.
    pub(crate) also_at: Vec<SocketAddr>,
    /// Whether broadcasts reach anybody.
    pub(crate) broadcasts: bool,
    /// By how much the clocks of servers that start now are behind.
    pub(crate) behind: Duration,
}

/// The session address of a server, or a person's address.
pub(crate) fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

/// The port of the server with this id, where it was started by [`World::start_all`].
pub(crate) fn port(id: u32) -> u16 {
    5000 + u16::try_from(id).expect("ids are small here")
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            now: Time::from_micros(1_000_000),
            nodes: BTreeMap::new(),
            people: BTreeMap::new(),
            wires: BTreeMap::new(),
            sent: 0,
            events: Vec::new(),
            heard: Vec::new(),
            steps: 0,
            cuts: BTreeSet::new(),
            paused: BTreeMap::new(),
            also_at: Vec::new(),
            broadcasts: true,
            behind: Duration::ZERO,
        }
    }

    /// A world in which servers 1 to `servers` have started in the same instant and have agreed.
    pub(crate) fn agreed(servers: u32) -> Self {
        let mut world = Self::new();
        (1..=servers).for_each(|id| world.start_id(id));
        world.run(Duration::from_secs(6));
        world.assert_all_follow(servers);
        world
    }

    pub(crate) fn start_id(&mut self, id: u32) {
        self.start(port(id), Some(id), None);
    }

    pub(crate) fn start(&mut self, port: u16, id: Option<u32>, secret: Option<&Secret>) {
        self.start_beside(port, id, secret, &[]);
    }

    /// The same, with `--peer` for each of `peers`.
    pub(crate) fn start_beside(&mut self, port: u16, id: Option<u32>, secret: Option<&Secret>, peers: &[u16]) {
        let addrs = [addr(port)].into_iter().chain(self.also_at.iter().copied()).collect();
        let peers = peers.iter().map(|port| addr(*port)).collect();
        let mut config =
            ServerConfig { secret: secret.cloned(), addrs, peers, ..common::server(id, addr(port), self.now) };
        config.wall_millis -= self.behind.as_millis() as u64;
        let seed = [port.to_le_bytes()[0]; 32];
        self.nodes.insert(port, Node::new(config, seed, self.now));
        self.step(port, Input::Tick);
    }

    /// Somebody who stays with one server.
    pub(crate) fn add_person(&mut self, server: u32) -> u16 {
        let n = u16::try_from(self.people.len()).expect("they are few");
        let seed = [n.to_le_bytes()[0]; 32];
        let config = common::person(seed, n.into(), &format!("person-{n}"), &[addr(port(server))]);
        self.people.insert(PEOPLE + n, Client::new(config, seed, self.now));
        self.after_client(PEOPLE + n);
        PEOPLE + n
    }

    /// Somebody says the first thing that they say in a room.
    pub(crate) fn post(&mut self, person: u16, room: &str) {
        let room: RoomName = room.parse().expect("this is a name");
        let join = client::Command::Join { room: room.clone(), from: Start::After(VersionVector::default()) };
        let post = client::Command::Post { room, seq: 1, body: "hello".to_owned() };
        for command in [join, post] {
            let person = self.people.get_mut(&person).expect("they are there");
            person.handle(client::Input::Command(command), self.now);
        }
        self.after_client(person);
    }

    fn after_client(&mut self, port: u16) {
        let Some(person) = self.people.get_mut(&port) else { return };
        let mut sent = Vec::new();
        while let Some(output) = person.poll() {
            match output {
                client::Output::Send { to, bytes } => sent.push((to, bytes)),
                client::Output::Broadcast { bytes } => sent.push((addr(0), bytes)),
                client::Output::Event(event) => self.heard.push((port, self.now, event)),
            }
        }
        for (to, bytes) in sent {
            self.send(self.now + LATENCY, addr(port), to, bytes);
        }
    }

    fn send(&mut self, at: Time, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.sent += 1;
        self.wires.insert((at, self.sent), (from, to, bytes));
    }

    pub(crate) fn step(&mut self, port: u16, input: Input<'_>) {
        let Some(node) = self.nodes.get_mut(&port) else { return };
        self.steps += 1;
        let mut sent = Vec::new();
        node.handle(input, self.now);
        while let Some(output) = node.poll() {
            match output {
                Output::Send { to, bytes } => sent.push((to, bytes)),
                Output::Broadcast { bytes } => sent.push((addr(0), bytes)),
                Output::Persist(_) | Output::Read(_) => unreachable!("it has no store"),
                Output::Event(event) => self.events.push((port, self.now, event)),
            }
        }
        for (to, bytes) in sent {
            self.send(self.now + LATENCY, addr(port), to, bytes);
        }
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let wire = self.wires.keys().next().map(|(at, _)| *at);
            let tick = self.nodes.iter().map(|(port, node)| (self.awake(*port, node.deadline()), *port)).min();
            let person = self.people.iter().map(|(port, person)| (person.deadline(), *port)).min();
            let ticks = [tick, person].into_iter().flatten().map(|(at, _)| at);
            let next = wire.into_iter().chain(ticks).min().unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if wire.is_some_and(|at| at <= self.now) {
                let Some((_, (from, to, bytes))) = self.wires.pop_first() else { return };
                let all = || self.nodes.keys().copied().filter(|_| self.broadcasts);
                let ports: Vec<_> = if to.port() == 0 { all().collect() } else { vec![to.port()] };
                for port in ports {
                    self.deliver(from, port, &bytes);
                }
            } else if let Some((_, port)) = tick.filter(|(at, _)| *at <= self.now) {
                self.step(port, Input::Tick);
            } else if let Some((_, port)) = person {
                self.people.get_mut(&port).expect("they are there").handle(client::Input::Tick, self.now);
                self.after_client(port);
            }
        }
    }

    fn awake(&self, port: u16, at: Time) -> Time {
        self.paused.get(&port).map_or(at, |until| at.max(*until))
    }

    fn deliver(&mut self, from: SocketAddr, port: u16, bytes: &[u8]) {
        if self.cuts.contains(&(from.port(), port)) {
            return;
        }
        let awake = self.awake(port, self.now);
        if awake > self.now {
            self.send(awake, from, addr(port), bytes.to_vec());
        } else if let Some(person) = self.people.get_mut(&port) {
            person.handle(client::Input::Datagram { from, bytes }, self.now);
            self.after_client(port);
        } else {
            self.step(port, Input::Datagram { from, bytes });
        }
    }

    // ---- trouble

    /// Nothing passes from one server to another any more; it still does the other way.
    pub(crate) fn cut(&mut self, from: u32, to: u32) {
        self.cuts.insert((port(from), port(to)));
    }

    /// Nothing passes between the server at `port` and those at `others`.
    pub(crate) fn cut_ports(&mut self, port: u16, others: &[u16]) {
        self.cuts.extend(others.iter().flat_map(|other| [(port, *other), (*other, port)]));
    }

    /// Nothing passes between these and all others, one way or both.
    pub(crate) fn split(&mut self, these: &[u32], inward: bool, outward: bool) {
        let ids: Vec<_> = self.nodes.keys().map(|port| u32::from(*port) - 5000).collect();
        for one in these {
            for other in ids.iter().filter(|id| !these.contains(id)) {
                if inward {
                    self.cut(*other, *one);
                }
                if outward {
                    self.cut(*one, *other);
                }
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    pub(crate) fn pause(&mut self, id: u32, span: Duration) {
        self.paused.insert(port(id), self.now + span);
    }

    pub(crate) fn kill(&mut self, id: u32) {
        self.nodes.remove(&port(id));
    }

    // ---- what has become of it

    pub(crate) fn view(&self, id: u32) -> View<'_> {
        self.nodes[&port(id)].view()
    }

    /// What each server takes for (its id, the leader, the home of the lobby).
    pub(crate) fn beliefs(&self) -> Vec<(u32, Option<u32>, Option<u32>)> {
        self.nodes
            .values()
            .map(|node| {
                let view = node.view();
                let lobby = RoomName::lobby();
                let home = view.rooms.iter().find(|room| *room.name == lobby).map(|room| room.fence.home.id.0);
                (view.me.map_or(0, |me| me.id.0), view.leader.map(|id| id.0), home)
            })
            .collect()
    }

    pub(crate) fn assert_all_follow(&self, leader: u32) {
        assert!(self.beliefs().iter().all(|belief| belief.1 == Some(leader)), "{:?}", self.beliefs());
    }

    /// The leaders that there were since `since`, one after the other: (id, term), as they said themselves.
    pub(crate) fn leaders_since(&self, since: Time) -> Vec<(u32, u64)> {
        let led = self.events.iter().filter(|(_, at, _)| *at >= since).filter_map(|(who, _, event)| match event {
            Event::Leader { leader: Some(id), term } if port(id.0) == *who => Some((id.0, *term)),
            _ => None,
        });
        let mut led: Vec<_> = led.collect();
        led.dedup();
        led
    }

    /// Whom a server has followed since `since`, one after the other.
    pub(crate) fn followed_since(&self, who: u32, since: Time) -> Vec<u32> {
        let followed = self.events.iter().filter(|(at, when, _)| *at == port(who) && *when >= since);
        let followed = followed.filter_map(|(.., event)| match event {
            Event::Leader { leader, .. } => leader.map(|id| id.0),
            _ => None,
        });
        let mut followed: Vec<_> = followed.collect();
        followed.dedup();
        followed
    }

    /// Who called whom dead since `since`.
    pub(crate) fn deaths_since(&self, since: Time) -> Vec<(u16, u32)> {
        let deaths = self.events.iter().filter(|(_, at, _)| *at >= since).filter_map(|(who, _, event)| match event {
            Event::PeerDown { peer, .. } => Some((*who, peer.id.0)),
            _ => None,
        });
        deaths.collect()
    }

    pub(crate) fn stops(&self) -> Vec<(u16, Stop)> {
        let stops = self.events.iter().filter_map(|(port, _, event)| match event {
            Event::Stopped(why) => Some((*port, why.clone())),
            _ => None,
        });
        stops.collect()
    }
}
