//! The scripted cluster, and the network between it and one client.

use std::{collections::BTreeMap, net::SocketAddr};

use super::fake_server::{FakeServer, Log};
use crate::{
    client::{Client, Command, Event, Input, Output},
    config::ClientConfig,
    discovery::packet::{self, Packet},
    hlc::Hlc,
    ids::{Boot, ClusterId, DeviceId, Origin, PersonId, RoomName, ServerId},
    log::{Entry, Hash, VersionVector},
    rng::Rng,
    session::{self, Datagrams, keys::KeyPair},
    time::{Duration, Time},
    wire::{Frame, frame::Start},
};

pub(super) const CLUSTER: ClusterId = ClusterId(0xc1);

pub(super) fn server_addr(id: u32) -> SocketAddr {
    ([10, 0, 0, u8::try_from(id).unwrap()], 5_001).into()
}

pub(super) fn lobby() -> RoomName {
    RoomName::lobby()
}

pub(super) fn origin(id: u32) -> Origin {
    Origin { id: ServerId(id), boot: Boot(1) }
}

pub(super) fn config() -> ClientConfig {
    ClientConfig {
        cluster: "hobnob".parse().unwrap(),
        secret: None,
        person: KeyPair::generate(&mut Rng::from_seed([9; 32])),
        device: DeviceId(77),
        name: "ann".parse().unwrap(),
        via: "terminal".into(),
        servers: Vec::new(),
        session: 1_000,
    }
}

/// An entry by somebody else.
pub(super) fn entry(of: u32, seq: u64, millis: u64, body: &str) -> Entry {
    sealed(Entry {
        room: lobby(),
        origin: origin(of),
        seq,
        hlc: Hlc { millis, counter: 0 },
        from: "bob".parse().unwrap(),
        person: PersonId([2; 16]),
        device: DeviceId(u64::from(of)),
        client_seq: seq,
        kind: "message".into(),
        body: body.into(),
        hash: Hash::default(),
    })
}

pub(super) fn sealed(entry: Entry) -> Entry {
    Entry { hash: entry.digest(), ..entry }
}

/// One client, some servers, and a network.
pub(super) struct World {
    pub(super) now: Time,
    pub(super) client: Client,
    /// The client's address: what is under way to another one is lost.
    pub(super) client_addr: SocketAddr,
    /// Whether the client is not ticked.
    pub(super) sleeps: bool,
    pub(super) servers: Vec<FakeServer>,
    pub(super) log: Log,
    pub(super) events: Vec<(Time, Event)>,
    /// Of 100 packets so many are lost, and so many doubled.
    pub(super) loss: u64,
    pub(super) broadcasts: Vec<Time>,
    pub(super) broadcasts_pass: bool,
    rng: Rng,
    wire: BTreeMap<(Time, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    sent: u64,
}

impl World {
    pub(super) fn new(servers: u32, config: ClientConfig) -> Self {
        Self {
            now: Time::from_micros(5_000_000),
            client: Client::new(config, [5; 32], Time::from_micros(5_000_000)),
            client_addr: ([10, 0, 0, 100], 9_000).into(),
            sleeps: false,
            servers: (1..=servers).map(FakeServer::new).collect(),
            log: Log::default(),
            events: Vec::new(),
            loss: 0,
            broadcasts: Vec::new(),
            broadcasts_pass: true,
            rng: Rng::from_seed([6; 32]),
            wire: BTreeMap::new(),
            sent: 0,
        }
    }

    /// A client that is connected, and has joined the lobby from the start.
    pub(super) fn joined(servers: u32) -> Self {
        let mut world = Self::new(servers, config());
        world.command(Command::Join { room: lobby(), from: Start::After(VersionVector::default()) });
        world.run(1_000);
        world
    }

    pub(super) fn server(&mut self, id: u32) -> &mut FakeServer {
        self.servers.iter_mut().find(|server| server.id == id).unwrap()
    }

    pub(super) fn command(&mut self, command: Command) {
        self.client.handle(Input::Command(command), self.now);
        self.collect();
    }

    pub(super) fn post(&mut self, seq: u64, body: &str) {
        self.command(Command::Post { room: lobby(), seq, body: body.into() });
    }

    /// Somebody else says something; whoever is alive pushes it.
    pub(super) fn publish(&mut self, entry: &Entry) {
        self.log.entries.push(entry.clone());
        for server in self.servers.iter_mut().filter(|server| server.alive) {
            server.push(entry);
        }
        self.collect();
    }

    /// Lets so many seconds pass; every second the servers repeat what there is, as they do until it is acknowledged.
    pub(super) fn run_with_heads(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.run(1_000);
            let heads = Frame::Heads { rooms: [(lobby(), self.log.heads(&lobby()))].into() };
            self.servers.iter_mut().for_each(|server| server.say_to_all(&heads));
        }
    }

    /// Lets so many milliseconds pass.
    pub(super) fn run(&mut self, millis: u64) {
        self.run_micros(millis * 1_000);
    }

    /// Lets so many microseconds pass.
    pub(super) fn run_micros(&mut self, micros: u64) {
        let until = self.now + Duration::from_micros(micros);
        let mut steps = 0;
        self.collect();
        while let Some(next) = self.next().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            self.step();
            steps += 1;
            assert!(steps < 100_000, "it runs hot: {:?}", self.client);
        }
        self.now = until;
    }

    fn next(&self) -> Option<Time> {
        let wire = self.wire.keys().next().map(|key| key.0);
        let servers = self.servers.iter().filter(|server| server.alive);
        let servers = servers.filter_map(|server| server.endpoint.deadline());
        let client = Some(self.client.deadline()).filter(|_| !self.sleeps);
        servers.chain(wire).chain(client).min()
    }

    fn step(&mut self) {
        while let Some(first) = self.wire.first_entry().filter(|first| first.key().0 <= self.now) {
            let (from, to, bytes) = first.remove();
            if to == self.client_addr {
                if self.sleeps {
                    continue;
                }
                self.client.handle(Input::Datagram { from, bytes: &bytes }, self.now);
            } else if let Some(index) = self.servers.iter().position(|server| server_addr(server.id) == to) {
                self.datagram_to_server(index, from, &bytes);
            }
        }
        if !self.sleeps && self.client.deadline() <= self.now {
            self.client.handle(Input::Tick, self.now);
        }
        for server in &mut self.servers {
            server.endpoint.tick(self.now);
        }
        self.collect();
    }

    fn datagram_to_server(&mut self, index: usize, from: SocketAddr, bytes: &[u8]) {
        let up: Vec<_> = self.servers.iter().filter(|server| server.alive).map(|server| server.id).collect();
        let server = &mut self.servers[index];
        if !server.alive {
            return;
        }
        if packet::is_discovery(bytes) {
            if let Ok(Packet::Find { nonce, .. }) = packet::parse(bytes) {
                let (me, here) = (server_addr(server.id), server.here(nonce));
                assert!(here.len() <= bytes.len());
                self.send(me, from, &here);
            }
            return;
        }
        server.endpoint.handle(from, bytes, self.now);
        while let Some(event) = server.endpoint.poll_event() {
            match event {
                session::Event::Asked { session, .. } => server.endpoint.accept(session, &[], self.now),
                session::Event::Up { session, key, .. } => {
                    server.sessions += 1;
                    server.people.insert(session, (key, None));
                }
                session::Event::Line { session, line } => {
                    let frame = Frame::from_line(&line).expect("clients speak well");
                    server.take(session, frame, &mut self.log, &up);
                }
                session::Event::Closed { session } => {
                    server.people.remove(&session);
                    server.followers.retain(|(of, _)| *of != session);
                }
            }
        }
    }

    /// Takes what the client and the servers have to say.
    fn collect(&mut self) {
        while let Some(output) = self.client.poll() {
            match output {
                Output::Send { to, bytes } => self.send(self.client_addr, to, &bytes),
                Output::Broadcast { bytes } => {
                    self.broadcasts.push(self.now);
                    if !self.broadcasts_pass {
                        continue;
                    }
                    for id in 1..=u32::try_from(self.servers.len()).unwrap() {
                        self.send(self.client_addr, server_addr(id), &bytes);
                    }
                }
                Output::Event(event) => self.events.push((self.now, event)),
            }
        }
        for index in 0..self.servers.len() {
            let (from, mut out) = (server_addr(self.servers[index].id), Datagrams::default());
            self.servers[index].endpoint.flush(self.now, &mut out);
            if self.servers[index].alive {
                for (to, bytes) in out {
                    self.send(from, to, &bytes);
                }
            }
        }
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let dice = self.rng.below(100);
        let copies = if dice < self.loss { 0 } else { 1 + u64::from(dice >= 100 - self.loss / 2) };
        for _ in 0..copies {
            self.sent += 1;
            let jitter = if self.loss > 0 { self.rng.below(4_000) } else { 0 };
            let at = self.now + Duration::from_micros(1_000 + jitter);
            self.wire.insert((at, self.sent), (from, to, bytes.to_vec()));
        }
    }

    /// Bodies of the messages shown so far, `~` before late ones and `<` before history.
    pub(super) fn shown(&self) -> Vec<String> {
        let message = |(_, event): &(Time, Event)| match event {
            Event::Message { entry, history, late } => {
                Some(format!("{}{}{}", if *late { "~" } else { "" }, if *history { "<" } else { "" }, entry.body))
            }
            Event::CaughtUp { .. } => Some("--".into()),
            _ => None,
        };
        self.events.iter().filter_map(message).collect()
    }

    /// Servers that were connected to, negative where one was lost.
    pub(super) fn served_by(&self) -> Vec<i64> {
        let server = |(_, event): &(Time, Event)| match event {
            Event::Connected { server, .. } => Some(i64::from(server.0)),
            Event::Lost { server } => Some(-i64::from(server.0)),
            _ => None,
        };
        self.events.iter().filter_map(server).collect()
    }

    /// (number, stored) of each acknowledgement.
    pub(super) fn acked(&self) -> Vec<(u64, bool)> {
        let ack = |(_, event): &(Time, Event)| match event {
            Event::Acked { seq, stored, .. } => Some((*seq, *stored)),
            _ => None,
        };
        self.events.iter().filter_map(ack).collect()
    }

    /// When something happened first.
    pub(super) fn when(&self, is: impl Fn(&Event) -> bool) -> Option<Time> {
        self.events.iter().find(|(_, event)| is(event)).map(|(at, _)| *at)
    }

    /// Which server serves, and which stands by.
    pub(super) fn links(&self) -> (Option<u32>, Option<u32>) {
        let id = |link: &Option<crate::client::link::Link>| link.as_ref()?.server.map(|server| server.0);
        (id(&self.client.primary), id(&self.client.standby))
    }
}
