//! Servers and clients of two clusters on one machine, in virtual time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use hobnob_proto::{
    client::{self, Client, Command},
    config::{ClientConfig, ServerConfig},
    ids::{ClusterId, RoomName, ServerId},
    log::VersionVector,
    node::{Input, Node, Output},
    rng::Rng,
    session::keys::Secret,
    store::model::Model,
    time::Time,
    wire::frame::{Ask, Start},
};

use crate::{
    clock::{self, Next},
    common,
};

/// How long a datagram takes.
const LATENCY: Duration = Duration::from_micros(500);
/// Servers sit at these ports and above, clients below.
const SERVERS: u16 = 5_000;
/// Those from here on ask for no id.
const WITHOUT_ID: u16 = 5_200;
/// Those from here on have a disk, too.
const WITH_DISK: u16 = 5_300;
/// How long anything may take that is waited for.
const UNTIL_MAX: Duration = Duration::from_secs(20);

/// Servers and clients on one machine. A broadcast reaches those servers that are in the same network.
pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) nodes: BTreeMap<u16, Node>,
    /// What is on disks, and how many writes of the present run are.
    disks: BTreeMap<u16, (Model, u64)>,
    clients: BTreeMap<u16, Client>,
    pub(crate) wires: VecDeque<(Time, SocketAddr, SocketAddr, Vec<u8>)>,
    /// The only port that broadcasts reach; `None`: all.
    pub(crate) networks: BTreeMap<u16, u8>,
    pub(crate) answers: Vec<Result<String, String>>,
    /// The posts that are stored, by client and number.
    pub(crate) stored: BTreeSet<(u16, u64)>,
    /// The rooms that clients are in.
    pub(crate) joined: BTreeSet<(u16, RoomName)>,
    /// Pairs of ports between which nothing passes.
    pub(crate) cut: Vec<[u16; 2]>,
    /// What this server sends to that one waits.
    late: Option<[u16; 2]>,
    waiting: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            now: Time::from_micros(1_000_000),
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            clients: BTreeMap::new(),
            wires: VecDeque::new(),
            networks: BTreeMap::new(),
            answers: Vec::new(),
            stored: BTreeSet::new(),
            joined: BTreeSet::new(),
            cut: Vec::new(),
            late: None,
            waiting: Vec::new(),
        }
    }

    /// A server at `port`, whose last two digits are the id that it asks for, in a network that it shares with those of the
    /// same number. One that ran there before is started anew.
    pub(crate) fn server(&mut self, port: u16, network: u8, name: &str, secret: Option<Secret>) {
        let id = (port < WITHOUT_ID).then_some(u32::from((port - SERVERS) % 100));
        let config = common::server(id, addr(port), self.now);
        let mut rng = Rng::from_seed([port.to_le_bytes()[0]; 32]);
        let store = (port >= WITH_DISK).then(|| {
            let (disk, written) = self.disks.entry(port).or_default();
            *written = 0;
            disk.restore(config.wall_millis / 1_000, &mut rng)
        });
        let config = ServerConfig { cluster: name.parse().unwrap(), secret, store, ..config };
        self.networks.insert(port, network);
        self.nodes.insert(port, Node::new(config, [port.to_le_bytes()[0]; 32], self.now));
        self.step(port, Input::Tick);
    }

    /// A client at `port` that is served by the server at `to`.
    pub(crate) fn client(&mut self, port: u16, to: u16, name: &str) {
        let seed = [port.to_le_bytes()[0]; 32];
        let config = common::person(seed, port.into(), &format!("person-{port}"), &[addr(to)]);
        let config = ClientConfig { cluster: name.parse().unwrap(), ..config };
        let mut client = Client::new(config, seed, self.now);
        client.handle(client::Input::Tick, self.now);
        self.clients.insert(port, client);
        self.command(port, Command::Join { room: RoomName::lobby(), from: Start::After(VersionVector::default()) });
    }

    pub(crate) fn command(&mut self, port: u16, command: Command) {
        let now = self.now;
        self.clients.get_mut(&port).unwrap().handle(client::Input::Command(command), now);
        self.drain_client(port);
    }

    pub(crate) fn post(&mut self, port: u16, seq: u64, body: &str) {
        self.command(port, Command::Post { room: RoomName::lobby(), seq, body: body.into() });
    }

    /// A client asks its server to go over to a cluster.
    pub(crate) fn ask_join(&mut self, port: u16, cluster: ClusterId) {
        self.command(port, Command::Ask { id: self.now.as_micros(), ask: Ask::Join { cluster } });
    }

    /// The same; what is answered within two seconds.
    pub(crate) fn join(&mut self, port: u16, cluster: ClusterId) -> Result<String, String> {
        self.answers.clear();
        self.ask_join(port, cluster);
        self.run(Duration::from_secs(2));
        self.answers.pop().expect("there is an answer")
    }

    pub(crate) fn step(&mut self, port: u16, input: Input<'_>) {
        let Some(node) = self.nodes.get_mut(&port) else { return };
        node.handle(input, self.now);
        let (mut durable, mut answers) = (None, Vec::new());
        while let Some(output) = node.poll() {
            let at = self.now + LATENCY;
            let disk = self.disks.get_mut(&port);
            match output {
                Output::Send { to, bytes } => self.wires.push_back((at, addr(port), to, bytes)),
                Output::Broadcast { bytes } => self.wires.push_back((at, addr(port), addr(0), bytes)),
                Output::Persist(write) => {
                    let (disk, written) = disk.expect("it has a disk");
                    disk.apply(&write);
                    *written += 1;
                    durable = Some(*written);
                }
                Output::Read(read) => answers.push(disk.expect("it has a disk").0.answer(&read)),
                Output::Event(_) => {}
            }
        }
        if let Some(through) = durable {
            self.step(port, Input::Durable { through });
        }
        for answer in answers {
            self.step(port, Input::Answer(&answer));
        }
    }

    fn drain_client(&mut self, port: u16) {
        let Some(client) = self.clients.get_mut(&port) else { return };
        while let Some(output) = client.poll() {
            match output {
                client::Output::Send { to, bytes } => self.wires.push_back((self.now + LATENCY, addr(port), to, bytes)),
                client::Output::Event(client::Event::Answer { data, .. }) => {
                    self.answers.push(Ok(data.as_str().unwrap_or_default().to_owned()));
                }
                client::Output::Event(client::Event::Acked { seq, stored: true, .. }) => {
                    self.stored.insert((port, seq));
                }
                client::Output::Event(client::Event::Joined { room, .. }) => {
                    self.joined.insert((port, room));
                }
                client::Output::Event(client::Event::AnswerError { why, .. }) => self.answers.push(Err(why)),
                client::Output::Broadcast { .. } | client::Output::Event(_) => {}
            }
        }
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let wire = self.wires.front().map(|(at, ..)| *at);
            let nodes = self.nodes.iter().map(|(port, node)| (node.deadline(), *port));
            let clients = self.clients.iter().map(|(port, client)| (client.deadline(), *port));
            let Some(next) = clock::pass(&mut self.now, end, wire, nodes.chain(clients)) else { return };
            if let Next::Tick(port) = next {
                self.step(port, Input::Tick);
                let now = self.now;
                if let Some(client) = self.clients.get_mut(&port) {
                    client.handle(client::Input::Tick, now);
                }
                self.drain_client(port);
            } else if let Some((_, from, to, bytes)) = self.wires.pop_front() {
                self.deliver(from, to, &bytes);
            }
        }
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let ends = [from.port(), to.port()];
        if self.cut.iter().any(|cut| ends == *cut || ends == [cut[1], cut[0]]) {
            return;
        }
        if self.late == Some(ends) {
            return self.waiting.push((from, to, bytes.to_vec()));
        }
        if to.port() == 0 {
            let network = self.networks.get(&from.port()).copied();
            let ports: Vec<u16> =
                self.networks.iter().filter(|(_, of)| Some(**of) == network).map(|(port, _)| *port).collect();
            for port in ports {
                self.step(port, Input::Datagram { from, bytes });
            }
            return;
        }
        self.step(to.port(), Input::Datagram { from, bytes });
        let now = self.now;
        if let Some(client) = self.clients.get_mut(&to.port()) {
            client.handle(client::Input::Datagram { from, bytes }, now);
            self.drain_client(to.port());
        }
    }

    pub(crate) fn cluster(&self, port: u16) -> ClusterId {
        self.nodes[&port].view().cluster.unwrap()
    }

    /// What people said in the lobby, as a server holds it in memory or on its disk.
    pub(crate) fn said(&self, port: u16) -> BTreeSet<String> {
        let (lobby, all) = (RoomName::lobby(), VersionVector::default());
        let on_disk = self.disks.get(&port).into_iter().flat_map(|(disk, _)| disk.entries(&lobby));
        let entries = self.nodes[&port].entries(&lobby, &all).chain(on_disk.map(|kept| &*kept.entry));
        entries.map(|entry| entry.body.to_string()).collect()
    }

    /// The port of the home of a room, as a server knows it; 0 where it knows of none.
    pub(crate) fn home(&self, port: u16, room: &RoomName) -> u16 {
        let view = self.nodes[&port].view();
        let known = view.rooms.iter().find(|known| *known.name == *room);
        known.map_or(0, |known| known.fence.home.id.0 as u16 + SERVERS)
    }

    /// What has waited arrives.
    pub(crate) fn let_through(&mut self) {
        self.late = None;
        for (from, to, bytes) in std::mem::take(&mut self.waiting) {
            self.wires.push_back((self.now + LATENCY, from, to, bytes));
        }
    }

    /// Runs in such steps until that is so; it must be before long.
    #[track_caller]
    pub(crate) fn run_until(&mut self, step: Duration, is_so: impl Fn(&Self) -> bool) {
        let end = self.now + UNTIL_MAX;
        while !is_so(self) {
            assert!(self.now < end, "it is not so after {UNTIL_MAX:?}");
            self.run(step);
        }
    }

    /// Runs until a server has gone over.
    #[track_caller]
    pub(crate) fn run_until_in(&mut self, port: u16, cluster: ClusterId) {
        self.run_until(Duration::from_micros(100), |world| world.cluster(port) == cluster);
    }

    /// Runs until one server has called the other cluster; what the other one answers waits.
    #[track_caller]
    pub(crate) fn run_until_answered(&mut self, from: u16, to: u16) {
        self.late = Some([from, to]);
        self.run_until(Duration::from_millis(1), |world| !world.waiting.is_empty());
    }

    /// Whether a server has found that nobody of the other cluster answers.
    pub(crate) fn has_stayed(&self, port: u16) -> bool {
        self.nodes[&port].counters().contains_key("join_unanswered")
    }

    /// Whether a server knows that server `id` has left its cluster.
    pub(crate) fn knows_left(&self, port: u16, id: u32) -> bool {
        self.nodes[&port].members().any(|member| member.id == ServerId(id) && member.left)
    }
}

/// The clusters of the servers 5001 and 5002, and of 5003, in which somebody has said something, and that are older than a
/// minute when they first hear of each other; which these are. Clients at 4001 and 4003, each at a server of one of them.
pub(crate) fn two_old_clusters() -> (World, ClusterId, ClusterId) {
    old_clusters(["test", "test"], [&[5001, 5002], &[5003]])
}

/// The same of other names and servers; the clients are at the first ones.
pub(crate) fn old_clusters(names: [&str; 2], servers: [&[u16]; 2]) -> (World, ClusterId, ClusterId) {
    let mut world = World::new();
    for ((network, name), servers) in (1..).zip(names).zip(servers) {
        for port in servers {
            world.server(*port, network, name, None);
        }
    }
    world.run(Duration::from_secs(3));
    world.client(4001, servers[0][0], names[0]);
    world.client(4003, servers[1][0], names[1]);
    world.run(Duration::from_secs(2));
    world.post(4001, 1, "one");
    world.post(4003, 1, "three");
    world.run(Duration::from_secs(65));
    for network in world.networks.values_mut() {
        *network = 1;
    }
    world.run(Duration::from_secs(20));
    let [first, second] = servers.map(|ports| world.cluster(ports[0]));
    (world, first, second)
}

/// Two old clusters of these servers and of 5003, to which 5001 is to go over: what 5003 answers when it is called has to
/// wait.
pub(crate) fn called_over(servers: &[u16]) -> (World, ClusterId, ClusterId) {
    let (mut world, old, new) = old_clusters(["test", "test"], [servers, &[5003]]);
    world.ask_join(4001, new);
    world.run_until_answered(5003, 5001);
    (world, old, new)
}

pub(crate) fn texts(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(ToString::to_string).collect()
}
