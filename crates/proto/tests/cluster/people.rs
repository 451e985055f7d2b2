//! Whole servers and whole clients, in virtual time, over a network that delays, reorders and loses.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use hobnob_proto::{
    client::{self, Client, Command},
    config::ClientConfig,
    ids::{Origin, RoomName, ServerId},
    log::VersionVector,
    node::{Event, Input, Node, Output, Stop},
    rng::Rng,
    time::Time,
    wire::frame::Start,
};

use crate::{
    clock::{self, Next},
    common,
};

/// Where clients are.
const CLIENTS_FROM: u16 = 9_000;

/// A client, what it said and what it saw.
pub(crate) struct Person {
    client: Client,
    name: String,
    said: Vec<(RoomName, u64, String)>,
    said_at: BTreeMap<(RoomName, u64), Time>,
    /// What is stored, and how long that took.
    stored: BTreeMap<(RoomName, u64), Duration>,
    /// Bodies of others that it was shown, and when.
    pub(crate) shown: Vec<(Time, String)>,
    pub(crate) server: Option<ServerId>,
}

/// Servers and clients, by port.
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) nodes: BTreeMap<u16, Node>,
    pub(crate) people: BTreeMap<u16, Person>,
    pub(crate) events: Vec<(u16, Time, Event)>,
    /// Of 100 datagrams so many are lost.
    pub(crate) loss: u64,
    rng: Rng,
    wires: BTreeMap<(Time, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
    boots: u8,
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// The port of the server with that id.
pub(crate) fn port(id: u32) -> u16 {
    5_000 + u16::try_from(id).unwrap()
}

impl World {
    pub(crate) fn new(seed: u8) -> Self {
        Self {
            now: Time::from_micros(1_000_000),
            nodes: BTreeMap::new(),
            people: BTreeMap::new(),
            events: Vec::new(),
            loss: 0,
            rng: Rng::from_seed([seed; 32]),
            wires: BTreeMap::new(),
            sent: 0,
            boots: 0,
        }
    }

    /// A world with servers 1, 2, ..., the last of which leads, and people who listen and talk in all of `rooms`.
    pub(crate) fn with(seed: u8, servers: u32, people: &[&str], rooms: &[&str]) -> Self {
        let mut world = Self::new(seed);
        for id in 1..=servers {
            world.start(id);
            world.run(Duration::from_secs(3));
        }
        for name in people {
            world.arrive(name, rooms);
        }
        world.run(Duration::from_secs(5));
        world
    }

    pub(crate) fn start(&mut self, id: u32) {
        self.boots += 1;
        let config = common::server(Some(id), addr(port(id)), self.now);
        self.nodes.insert(port(id), Node::new(config, [self.boots; 32], self.now));
        self.node_step(port(id), Input::Tick);
    }

    /// Somebody comes, and joins rooms.
    pub(crate) fn arrive(&mut self, name: &str, rooms: &[&str]) {
        let number = self.people.len() as u16;
        self.arrive_as(number, number, 1, name, rooms);
    }

    /// A process arrives that says it is somebody who is here, under a higher number, and is never heard of again.
    pub(crate) fn twin(&mut self, name: &str) {
        let (of, at) = (self.person_named(name), 500);
        self.arrive_as(at, of, 1_000_000, name, &[]);
        self.run(Duration::from_secs(2));
        self.people.remove(&(CLIENTS_FROM + at));
    }

    fn person_named(&self, name: &str) -> u16 {
        self.people.iter().find(|(_, person)| person.name == name).unwrap().0 - CLIENTS_FROM
    }

    fn arrive_as(&mut self, at: u16, number: u16, session: u64, name: &str, rooms: &[&str]) {
        let seed = [100 + u8::try_from(number).unwrap(); 32];
        let config = ClientConfig { session, ..common::person(seed, number.into(), name, &[]) };
        let person = Person {
            client: Client::new(config, seed, self.now),
            name: name.to_owned(),
            said: Vec::new(),
            said_at: BTreeMap::new(),
            stored: BTreeMap::new(),
            shown: Vec::new(),
            server: None,
        };
        self.people.insert(CLIENTS_FROM + at, person);
        for room in rooms {
            let (room, from) = (room.parse().unwrap(), Start::After(VersionVector::default()));
            self.person_step(CLIENTS_FROM + at, client::Input::Command(Command::Join { room, from }));
        }
        self.person_step(CLIENTS_FROM + at, client::Input::Tick);
    }

    /// Everybody says something in that room.
    pub(crate) fn all_talk(&mut self, room: &str) {
        self.talk(room, |_| true);
    }

    /// Some say something in that room.
    fn talk(&mut self, room: &str, who: impl Fn(&str) -> bool) {
        let ports: Vec<_> = self.people.iter().filter(|(_, one)| who(&one.name)).map(|(port, _)| *port).collect();
        for at in ports {
            let person = self.people.get_mut(&at).unwrap();
            let room: RoomName = room.parse().unwrap();
            let seq = person.said.iter().filter(|said| said.0 == room).count() as u64 + 1;
            let body = format!("{} {room} {seq}", person.name);
            person.said.push((room.clone(), seq, body.clone()));
            person.said_at.insert((room.clone(), seq), self.now);
            self.person_step(at, client::Input::Command(Command::Post { room, seq, body }));
        }
    }

    /// Everybody talks in all rooms, with this gap between two messages of each.
    pub(crate) fn talk_for(&mut self, rooms: &[&str], gap: Duration, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            for room in rooms {
                self.all_talk(room);
            }
            self.run(gap);
        }
    }

    /// All but one talk in a room. The longest that this one is shown nothing.
    pub(crate) fn listen(&mut self, name: &str, room: &str, gap: Duration, span: Duration) -> Duration {
        let from = self.now;
        while self.now < from + span {
            self.talk(room, |one| one != name);
            self.run(gap);
        }
        let person = self.people.values().find(|person| person.name == name).unwrap();
        let times = person.shown.iter().map(|(at, _)| *at).filter(|at| *at >= from);
        let times: Vec<_> = std::iter::once(from).chain(times).chain([self.now]).collect();
        times.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap()
    }

    /// Who serves somebody.
    pub(crate) fn server_of(&self, name: &str) -> u32 {
        self.people.values().find(|person| person.name == name).unwrap().server.unwrap().0
    }

    pub(crate) fn leave(&mut self, id: u32) {
        self.node_step(port(id), Input::Leave);
    }

    pub(crate) fn kill(&mut self, id: u32) {
        self.nodes.remove(&port(id));
    }

    fn node_step(&mut self, at: u16, input: Input<'_>) {
        let Some(node) = self.nodes.get_mut(&at) else { return };
        node.handle(input, self.now);
        let mut stopped = false;
        let outputs: Vec<_> = std::iter::from_fn(|| node.poll()).collect();
        for output in outputs {
            match output {
                Output::Send { to, bytes } => self.send(at, to, bytes),
                Output::Broadcast { bytes } => self.send(at, addr(0), bytes),
                Output::Persist(_) | Output::Read(_) => unreachable!("it has no store"),
                Output::Event(event) => {
                    stopped |= matches!(event, Event::Stopped(_));
                    self.events.push((at, self.now, event));
                }
            }
        }
        if stopped {
            self.nodes.remove(&at);
        }
    }

    fn person_step(&mut self, at: u16, input: client::Input<'_>) {
        let now = self.now;
        let Some(person) = self.people.get_mut(&at) else { return };
        person.client.handle(input, now);
        let outputs: Vec<_> = std::iter::from_fn(|| person.client.poll()).collect();
        for output in outputs {
            match output {
                client::Output::Send { to, bytes } => self.send(at, to, bytes),
                client::Output::Broadcast { bytes } => self.send(at, addr(0), bytes),
                client::Output::Event(event) => {
                    let person = self.people.get_mut(&at).unwrap();
                    match event {
                        client::Event::Message { entry, .. } => person.shown.push((now, entry.body.to_string())),
                        client::Event::Acked { room, seq, stored: true, .. } => {
                            let said_at = person.said_at[&(room.clone(), seq)];
                            person.stored.insert((room, seq), now.since(said_at));
                        }
                        client::Event::Connected { server, .. } => person.server = Some(server),
                        _ => {}
                    }
                }
            }
        }
    }

    fn send(&mut self, from: u16, to: SocketAddr, bytes: Vec<u8>) {
        if self.rng.below(100) < self.loss {
            return;
        }
        self.sent += 1;
        let at = self.now + Duration::from_micros(300 + self.rng.below(400));
        self.wires.insert((at, self.sent), (addr(from), to, bytes));
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let wire = self.wires.first_key_value().map(|((at, _), _)| *at);
            let nodes = self.nodes.iter().map(|(port, node)| (node.deadline(), *port));
            let people = self.people.iter().map(|(port, person)| (person.client.deadline(), *port));
            let Some(next) = clock::pass(&mut self.now, end, wire, nodes.chain(people)) else { return };
            if let Next::Tick(port) = next {
                self.node_step(port, Input::Tick);
                self.person_step(port, client::Input::Tick);
            } else if let Some((_, (from, to, bytes))) = self.wires.pop_first() {
                let ports: Vec<_> = if to.port() == 0 { self.nodes.keys().copied().collect() } else { vec![to.port()] };
                for port in ports {
                    self.node_step(port, Input::Datagram { from, bytes: &bytes });
                    self.person_step(port, client::Input::Datagram { from, bytes: &bytes });
                }
            }
        }
    }

    // ---- what there is to see

    /// The home of a room, as all servers see it; `None` where they differ, or it is not open.
    pub(crate) fn home(&self, room: &str) -> Option<u32> {
        let mut homes = BTreeSet::new();
        for node in self.nodes.values() {
            let view = node.view();
            let record = view.rooms.iter().find(|known| known.name.as_str() == room)?;
            homes.insert(record.fence.home.id.0);
            if view.me.is_some_and(|me| me == record.fence.home) && !record.open {
                return None;
            }
        }
        homes.pop_first().filter(|_| homes.is_empty())
    }

    /// How many rooms but the lobby each server homes, as the first server sees it.
    pub(crate) fn spread(&self) -> Vec<usize> {
        let Some(node) = self.nodes.values().next() else { return Vec::new() };
        let view = node.view();
        let homes: Vec<u32> =
            view.rooms.iter().filter(|room| room.name.as_str() != "lobby").map(|room| room.fence.home.id.0).collect();
        let ids = self.nodes.keys().map(|port| u32::from(port - 5_000));
        ids.map(|id| homes.iter().filter(|home| **home == id).count()).collect()
    }

    /// How a server stopped.
    pub(crate) fn stopped(&self, id: u32) -> Option<&Stop> {
        self.events.iter().rev().find_map(|(at, _, event)| match event {
            Event::Stopped(stop) if *at == port(id) => Some(stop),
            _ => None,
        })
    }

    /// How often who leads has changed since then, as any server saw it.
    pub(crate) fn changes_of_leader(&self, since: Time) -> usize {
        let mut terms = BTreeSet::new();
        for (_, at, event) in &self.events {
            if let Event::Leader { leader: Some(leader), term } = event
                && *at > since
            {
                terms.insert((*term, *leader));
            }
        }
        terms.len()
    }

    /// The longest time in which one of them was shown nothing, between those moments.
    pub(crate) fn longest_silence(&self, from: Time, to: Time) -> Duration {
        let of_one = |person: &Person| {
            let times = person.shown.iter().map(|(at, _)| *at).filter(|at| (from..=to).contains(at));
            let times: Vec<_> = std::iter::once(from).chain(times).chain([to]).collect();
            times.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default()
        };
        self.people.values().map(of_one).max().unwrap_or_default()
    }

    /// The longest that anybody has waited until what they said was stored.
    pub(crate) fn longest_wait(&self) -> Duration {
        self.people.values().flat_map(|person| person.stored.values()).max().copied().unwrap_or_default()
    }

    /// Runs on until all is settled; then every post has one dot, everywhere, is stored, and was shown once to everybody.
    #[track_caller]
    pub(crate) fn check_all(&mut self) {
        self.loss = 0;
        self.run(Duration::from_secs(15));
        let mut wanted = BTreeSet::new();
        for person in self.people.values() {
            let unsettled: Vec<_> =
                person.said.iter().filter(|said| !person.stored.contains_key(&(said.0.clone(), said.1))).collect();
            assert!(unsettled.is_empty(), "not stored: {unsettled:?}");
            wanted.extend(person.said.iter().map(|said| said.2.clone()));
        }
        for (at, node) in &self.nodes {
            let mut dots: BTreeMap<String, Vec<(Origin, u64)>> = BTreeMap::new();
            for room in node.view().rooms {
                for entry in node.entries(room.name, &VersionVector::default()) {
                    dots.entry(entry.body.to_string()).or_default().push((entry.origin, entry.seq));
                }
            }
            let doubled: Vec<_> = dots.iter().filter(|(_, dots)| dots.len() > 1).collect();
            assert!(doubled.is_empty(), "under two dots at {at}: {doubled:?}");
            let lacking: Vec<_> = wanted.iter().filter(|body| !dots.contains_key(*body)).collect();
            assert!(lacking.is_empty(), "lacking at {at}: {lacking:?}");
        }
        for person in self.people.values() {
            let mut shown: Vec<_> = person.shown.iter().map(|(_, body)| body.clone()).collect();
            shown.sort();
            let wanted: Vec<_> = wanted.iter().cloned().collect();
            assert_eq!(shown, wanted, "as {} saw it", person.name);
        }
    }
}
