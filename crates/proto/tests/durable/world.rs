//! Servers with disks whose syncs take as long as a test says, and people, on a network that loses nothing.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use hobnob_proto::{
    client::{self, Client},
    config::{ClientConfig, ServerConfig},
    ids::{Origin, RoomName},
    log::VersionVector,
    node::{
        Event, Input, Node, Output,
        view::{RoomView, View},
    },
    rng::Rng,
    store::{Answer, Found, Read, Write, model::Model},
    time::Time,
    wire::{
        frame::{Fence, Refusal, Start},
        import::Outcome,
    },
};

use crate::common;

/// How long a datagram takes.
const LATENCY: Duration = Duration::from_micros(500);
/// How long a disk takes, if nothing else is said.
const SYNC: Duration = Duration::from_millis(2);
/// How long it takes to read.
const READ: Duration = Duration::from_millis(1);
/// The first port of people; servers are below.
const PEOPLE: u16 = 40_000;
/// The numbers of people who are on the machine of a server begin with this.
pub(crate) const HERE: u16 = 100;

/// A room in which somebody posts.
pub(crate) const ROOM: &str = "tea";

/// Which writes a disk does not get to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Hold {
    Nothing,
    /// Any, from the first of these on: writes become durable in their order.
    From(fn(&Write) -> bool),
}

/// Every write.
pub(crate) fn any(_: &Write) -> bool {
    true
}

/// The writes of entries.
pub(crate) fn entries(write: &Write) -> bool {
    matches!(write, Write::Entry(_))
}

/// The writes of rooms' records.
pub(crate) fn fences(write: &Write) -> bool {
    matches!(write, Write::Room(_))
}

/// How a disk can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Works,
    /// It says that it cannot.
    Fails,
    /// It says nothing.
    Hangs,
}

/// A server's disk, and what has not been synced to it.
pub(crate) struct Disk {
    pub(crate) model: Model,
    pub(crate) sync: Duration,
    pub(crate) hold: Hold,
    pub(crate) reading: Reading,
    /// Whether what is rotten on it cannot be mended: it takes such writes and does nothing.
    pub(crate) is_damaged: bool,
    /// How often that was tried.
    pub(crate) repairs: u64,
    /// How long that takes.
    pub(crate) seek: Duration,
    /// How many questions it was asked.
    pub(crate) reads: u64,
    /// When each is durable, at the earliest.
    pending: VecDeque<(Time, Write)>,
    durable: u64,
    answers: VecDeque<(Time, Answer)>,
}

/// What somebody was told of a post of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Ack { dot: (Origin, u64), copies: u32, stored: bool, durable: bool },
    Refused(Refusal),
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) nodes: BTreeMap<u16, Node>,
    pub(crate) disks: BTreeMap<u16, Disk>,
    people: BTreeMap<u16, Client>,
    /// What is under way, by time of arrival: from, to, content.
    wires: BTreeMap<(Time, u64), (SocketAddr, SocketAddr, Vec<u8>)>,
    /// How many datagrams were sent.
    pub(crate) sent: u64,
    pub(crate) events: Vec<(u16, Time, Event)>,
    /// What people were told of their posts: who, when, the number of the post.
    pub(crate) told: Vec<(u16, Time, u64, Told)>,
    /// What became of lines that were imported.
    pub(crate) imported: Vec<(u64, Outcome)>,
    /// What else people were told.
    pub(crate) heard: Vec<(u16, client::Event)>,
    runs: u8,
    /// Whether nothing from servers to this one arrives.
    pub(crate) deaf: Option<u32>,
    /// Whether broadcasts reach nobody.
    pub(crate) is_mute: bool,
    /// A server that nothing gets to, and nothing comes from.
    pub(crate) cut: Option<u32>,
}

fn addr(port: u16) -> SocketAddr {
    // People from here on are on the machine of whatever server they ask.
    SocketAddr::from((if port >= PEOPLE + HERE { [127, 0, 0, 1] } else { [192, 0, 2, 1] }, port))
}

pub(crate) fn port(id: u32) -> u16 {
    5_000 + u16::try_from(id).unwrap()
}

pub(crate) fn room() -> RoomName {
    ROOM.parse().unwrap()
}

impl Disk {
    fn read(&mut self, read: &Read, now: Time) {
        self.reads += 1;
        let answer = match self.reading {
            Reading::Works => self.model.answer(read),
            Reading::Fails => {
                Answer { id: read.id, room: read.room.clone(), found: Found::Nothing, rotten: Vec::new() }
            }
            Reading::Hangs => return,
        };
        self.answers.push_back((now + self.seek, answer));
    }
}

impl World {
    /// Servers 1, 2, ..., each with a disk or without, that have agreed.
    pub(crate) fn with(disks: &[bool]) -> Self {
        let mut world = Self { now: Time::from_micros(1_000_000), ..Self::default() };
        for (id, has_disk) in (1..).zip(disks) {
            if *has_disk {
                world.insert_disk(id);
            }
            world.start(id);
        }
        world.run_secs(6);
        assert!(world.nodes.values().all(|node| node.view().leader.is_some()));
        world
    }

    /// An empty disk, in place of the last one, if there was one.
    pub(crate) fn insert_disk(&mut self, id: u32) {
        let (pending, answers) = (VecDeque::new(), VecDeque::new());
        let (hold, reading) = (Hold::Nothing, Reading::Works);
        let (sync, seek, reads, durable) = (SYNC, READ, 0, 0);
        let (is_damaged, repairs, model) = (false, 0, Model::default());
        let disk = Disk { model, sync, hold, reading, is_damaged, repairs, seek, reads, pending, durable, answers };
        self.disks.insert(port(id), disk);
    }

    /// Starts a server, from its disk if it has one. What was not synced is lost.
    pub(crate) fn start(&mut self, id: u32) {
        self.runs += 1;
        let port = port(id);
        let config = common::server(Some(id), addr(port), self.now);
        let store = self.disks.get_mut(&port).map(|disk| {
            disk.pending.clear();
            disk.answers.clear();
            disk.durable = 0;
            disk.model.restore(config.wall_millis / 1000, &mut Rng::from_seed([self.runs; 32]))
        });
        let config = ServerConfig { store, ..config };
        self.nodes.insert(port, Node::new(config, [self.runs; 32], self.now));
        self.step(port, Input::Tick);
    }

    pub(crate) fn kill(&mut self, id: u32) {
        self.nodes.remove(&port(id));
    }

    pub(crate) fn disk(&mut self, id: u32) -> &mut Disk {
        self.disks.get_mut(&port(id)).unwrap()
    }

    /// The disk fails from now on.
    pub(crate) fn fail(&mut self, id: u32) {
        self.disk(id).pending.clear();
        self.step(port(id), Input::Unwritable);
    }

    pub(crate) fn leave(&mut self, id: u32) {
        self.step(port(id), Input::Leave);
    }

    // ---- people

    /// Person number `n`, at a server, as a new process of the same device each time.
    pub(crate) fn person(&mut self, n: u16, server: u32) -> u16 {
        self.person_from(n, server, Start::After(VersionVector::default()))
    }

    /// The same, who wants so much of the room.
    pub(crate) fn person_from(&mut self, n: u16, server: u32, from: Start) -> u16 {
        let seed = [n.to_le_bytes()[0] + 100; 32];
        let server = addr(port(server));
        let config = common::person(seed, n.into(), &format!("person-{n}"), &[server]);
        let config = ClientConfig { session: self.now.as_millis(), ..config };
        let port = PEOPLE + n;
        self.people.insert(port, Client::new(config, seed, self.now));
        self.command(port, client::Command::Join { room: room(), from });
        port
    }

    /// What a person was shown, and what they were told of the history.
    pub(crate) fn shown(&self, person: u16) -> Vec<String> {
        let events = self.heard.iter().filter(|(who, _)| *who == person);
        let lines = events.filter_map(|(_, event)| match event {
            client::Event::Message { entry, .. } if entry.is_lost() => Some("lost".to_owned()),
            client::Event::Message { entry, .. } => Some(entry.body.to_string()),
            client::Event::HistoryGone { before, .. } => Some(format!("gone before {}", before.is_some())),
            _ => None,
        });
        lines.collect()
    }

    /// The shell of a server wants to give up so much.
    pub(crate) fn retain(&mut self, id: u32, before: &VersionVector) {
        self.step(port(id), Input::Retain { room: &room(), before });
    }

    /// The store of a server has found that these are rotten.
    pub(crate) fn scrub(&mut self, id: u32, rotten: &[(Origin, u64)]) {
        let found = Found::Entries(Vec::new());
        let answer = Answer { id: 0, room: room(), found, rotten: rotten.to_vec() };
        self.step(port(id), Input::Answer(&answer));
    }

    pub(crate) fn post(&mut self, person: u16, seq: u64) {
        self.command(person, client::Command::Post { room: room(), seq, body: format!("line {seq}") });
    }

    pub(crate) fn command(&mut self, person: u16, command: client::Command) {
        self.people.get_mut(&person).unwrap().handle(client::Input::Command(command), self.now);
        self.after_client(person);
    }

    fn after_client(&mut self, port: u16) {
        let Some(person) = self.people.get_mut(&port) else { return };
        let mut sent = Vec::new();
        while let Some(output) = person.poll() {
            match output {
                client::Output::Send { to, bytes } => sent.push((to, bytes)),
                client::Output::Broadcast { bytes } => sent.push((addr(0), bytes)),
                client::Output::Event(client::Event::Acked { seq, origin, entry, copies, stored, durable, .. }) => {
                    let told = Told::Ack { dot: (origin, entry), copies, stored, durable };
                    self.told.push((port, self.now, seq, told));
                }
                client::Output::Event(client::Event::Refused { seq, why, .. }) => {
                    self.told.push((port, self.now, seq, Told::Refused(why)));
                }
                client::Output::Event(client::Event::Imported { n, outcome }) => self.imported.push((n, outcome)),
                client::Output::Event(event) => self.heard.push((port, event)),
            }
        }
        for (to, bytes) in sent {
            self.send(addr(port), to, bytes);
        }
    }

    /// What a person was told of a post since then.
    pub(crate) fn told_since(&self, person: u16, seq: u64, since: Time) -> Vec<Told> {
        let told = self.told.iter().filter(|(who, at, of, _)| (*who, *of) == (person, seq) && *at >= since);
        told.map(|(.., told)| told.clone()).collect()
    }

    /// The same, as (copies, stored, durable).
    pub(crate) fn acks_since(&self, person: u16, seq: u64, since: Time) -> Vec<(u32, bool, bool)> {
        let told = self.told_since(person, seq, since).into_iter();
        told.map(|told| match told {
            Told::Ack { copies, stored, durable, .. } => (copies, stored, durable),
            Told::Refused(why) => panic!("{seq} is refused: {why:?}"),
        })
        .collect()
    }

    /// How long after `since` a person was told that a post is accepted, or stored.
    pub(crate) fn told_after(&self, person: u16, seq: u64, is_stored: bool, since: Time) -> Option<Duration> {
        let is_it = |told: &Told| matches!(told, Told::Ack { stored, .. } if *stored == is_stored);
        let mut told = self.told.iter().filter(|(who, _, of, told)| (*who, *of) == (person, seq) && is_it(told));
        told.next().map(|(_, at, ..)| at.since(since))
    }

    // ---- what has become of it

    pub(crate) fn view(&self, id: u32) -> View<'_> {
        self.nodes[&port(id)].view()
    }

    pub(crate) fn room_at(&self, id: u32) -> Option<RoomView<'_>> {
        self.view(id).rooms.into_iter().find(|view| *view.name == room())
    }

    /// Where the room lives, as all servers say that run.
    pub(crate) fn home(&self) -> Option<u32> {
        self.fence().map(|fence| fence.home.id.0)
    }

    pub(crate) fn fence(&self) -> Option<Fence> {
        let ids: Vec<_> = self.nodes.keys().map(|port| u32::from(*port) - 5_000).collect();
        let mut fences = ids.into_iter().map(|id| self.room_at(id).map(|room| room.fence));
        let first = fences.next().flatten()?;
        fences.all(|fence| fence == Some(first)).then_some(first)
    }

    /// How many entries of the room a server holds, and how many of them are on its disk.
    pub(crate) fn held(&self, id: u32) -> (u64, u64) {
        let count = |vector: &VersionVector| vector.iter().map(|(_, seq)| seq).sum();
        self.room_at(id).map_or((0, 0), |room| (count(&room.held), count(&room.durable)))
    }

    // ---- time

    pub(crate) fn run_secs(&mut self, secs: u64) {
        self.run(Duration::from_secs(secs));
    }

    pub(crate) fn run_millis(&mut self, millis: u64) {
        self.run(Duration::from_millis(millis));
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.sent += 1;
        self.wires.insert((self.now + LATENCY, self.sent), (from, to, bytes));
    }

    fn step(&mut self, port: u16, input: Input<'_>) {
        let Some(node) = self.nodes.get_mut(&port) else { return };
        let mut sent = Vec::new();
        node.handle(input, self.now);
        while let Some(output) = node.poll() {
            match (output, self.disks.get_mut(&port)) {
                (Output::Send { to, bytes }, _) => sent.push((to, bytes)),
                (Output::Broadcast { bytes }, _) => sent.push((addr(0), bytes)),
                (Output::Event(event), _) => self.events.push((port, self.now, event)),
                (Output::Persist(write), Some(disk)) => disk.pending.push_back((self.now + disk.sync, write)),
                (Output::Read(read), Some(disk)) => disk.read(&read, self.now),
                (Output::Persist(_) | Output::Read(_), None) => panic!("server at {port} has no disk"),
            }
        }
        for (to, bytes) in sent {
            self.send(addr(port), to, bytes);
        }
    }

    /// When a disk has something to say.
    fn disk_due(&self, port: u16, disk: &Disk) -> Option<Time> {
        let write = disk.pending.front().filter(|(_, write)| match disk.hold {
            Hold::Nothing => true,
            Hold::From(is_held) => !is_held(write),
        });
        let due = [write.map(|(at, _)| *at), disk.answers.front().map(|(at, _)| *at)];
        due.into_iter().flatten().min().filter(|_| self.nodes.contains_key(&port))
    }

    fn step_disk(&mut self, port: u16) {
        let disk = self.disks.get_mut(&port).unwrap();
        if let Some((_, answer)) = disk.answers.pop_front() {
            return self.step(port, Input::Answer(&answer));
        }
        let (_, write) = disk.pending.pop_front().unwrap();
        disk.repairs += u64::from(matches!(write, Write::Repair(_)));
        if !(disk.is_damaged && matches!(write, Write::Repair(_) | Write::Lost { .. })) {
            disk.model.apply(&write);
        }
        disk.durable += 1;
        let through = disk.durable;
        assert_eq!(disk.model.refused(), 0, "{write:?}");
        self.step(port, Input::Durable { through });
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let wire = self.wires.keys().next().map(|(at, _)| *at);
            let tick = self.nodes.iter().map(|(port, node)| (node.deadline(), *port)).min();
            let person = self.people.iter().map(|(port, person)| (person.deadline(), *port)).min();
            let disk = self.disks.iter().filter_map(|(port, disk)| Some((self.disk_due(*port, disk)?, *port))).min();
            let ticks = [tick, person, disk].into_iter().flatten().map(|(at, _)| at);
            let next = wire.into_iter().chain(ticks).min().unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if let Some((_, port)) = disk.filter(|(at, _)| *at <= self.now) {
                self.step_disk(port);
            } else if wire.is_some_and(|at| at <= self.now) {
                let Some((_, (from, to, bytes))) = self.wires.pop_first() else { return };
                let is_deaf = |id| to.port() == self::port(id) && from.port() < PEOPLE;
                let is_cut = |id| [from.port(), to.port()].contains(&self::port(id));
                if self.deaf.is_some_and(is_deaf) || self.cut.is_some_and(is_cut) {
                    continue;
                }
                let all = || self.nodes.keys().copied().filter(|_| !self.is_mute);
                let ports: Vec<_> = if to.port() > 0 { vec![to.port()] } else { all().collect() };
                for port in ports {
                    self.deliver(from, port, &bytes);
                }
            } else if let Some((_, port)) = tick.filter(|(at, _)| *at <= self.now) {
                self.step(port, Input::Tick);
            } else if let Some((_, port)) = person {
                self.people.get_mut(&port).unwrap().handle(client::Input::Tick, self.now);
                self.after_client(port);
            }
        }
    }

    fn deliver(&mut self, from: SocketAddr, port: u16, bytes: &[u8]) {
        if let Some(person) = self.people.get_mut(&port) {
            person.handle(client::Input::Datagram { from, bytes }, self.now);
            self.after_client(port);
        } else {
            self.step(port, Input::Datagram { from, bytes });
        }
    }
}
