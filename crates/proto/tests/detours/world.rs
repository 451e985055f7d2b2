//! Whole servers and clients in virtual time, over a network of which single paths can be cut.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use hobnob_proto::{
    client::{self, Client, Command},
    config::ClientConfig,
    ids::RoomName,
    log::{Entry, VersionVector},
    node::{self, Node},
    time::Time,
    wire::frame::Start,
};

use crate::{
    clock::{self, Next},
    common,
};

/// How long a datagram takes.
const LATENCY: Duration = Duration::from_micros(500);

/// A host: servers 1, 2, ...; clients 101, 102, ...
pub(crate) type Host = u16;

/// What a client was told.
#[derive(Default)]
pub(crate) struct Told {
    /// Messages, with the time of it and whether it was late.
    pub(crate) shown: Vec<(Time, Entry, bool)>,
    /// When each post was accepted, and when stored.
    pub(crate) accepted: BTreeMap<u64, Time>,
    pub(crate) stored: BTreeMap<u64, Time>,
    /// Who served it.
    pub(crate) servers: Vec<u32>,
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) nodes: BTreeMap<Host, Node>,
    clients: BTreeMap<Host, (Client, u64)>,
    pub(crate) told: BTreeMap<Host, Told>,
    /// When each post was handed to its client.
    pub(crate) posted: BTreeMap<(Host, u64), Time>,
    wires: BTreeMap<(Time, u64), (Host, Host, Vec<u8>)>,
    sent: u64,
    cuts: BTreeSet<(Host, Host)>,
    down: Vec<(Time, Host, u32)>,
    up: Vec<Time>,
    /// Bytes sent from one to another since the last cut.
    pub(crate) bytes: BTreeMap<(Host, Host), usize>,
}

fn addr(host: Host) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 5_000 + host))
}

fn lobby() -> RoomName {
    RoomName::lobby()
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            now: Time::from_micros(1_000_000),
            nodes: BTreeMap::new(),
            clients: BTreeMap::new(),
            told: BTreeMap::new(),
            posted: BTreeMap::new(),
            wires: BTreeMap::new(),
            sent: 0,
            cuts: BTreeSet::new(),
            down: Vec::new(),
            up: Vec::new(),
            bytes: BTreeMap::new(),
        }
    }

    pub(crate) fn start(&mut self, id: Host) {
        let config = common::server(Some(id.into()), addr(id), self.now);
        let seed = [id.to_le_bytes()[0]; 32];
        self.nodes.insert(id, Node::new(config, seed, self.now));
        self.step_node(id, node::Input::Tick);
    }

    /// A client that reaches these servers, and is in the lobby.
    pub(crate) fn client(&mut self, host: Host, reaches: &[Host]) {
        for server in self.nodes.keys().filter(|id| !reaches.contains(id)) {
            self.cuts.extend([(host, *server), (*server, host)]);
        }
        let seed = [host.to_le_bytes()[0]; 32];
        let config = ClientConfig { session: 1_000, ..common::person(seed, host.into(), &format!("c{host}"), &[]) };
        self.clients.insert(host, (Client::new(config, seed, self.now), 0));
        self.told.insert(host, Told::default());
        self.command(host, Command::Join { room: lobby(), from: Start::After(VersionVector::default()) });
        self.step_client(host, client::Input::Tick);
    }

    pub(crate) fn post(&mut self, host: Host) -> u64 {
        let seq = self.clients[&host].1 + 1;
        self.clients.get_mut(&host).expect("it runs").1 = seq;
        self.posted.insert((host, seq), self.now);
        self.command(host, Command::Post { room: lobby(), seq, body: format!("{host}.{seq}") });
        seq
    }

    fn command(&mut self, host: Host, command: Command) {
        self.step_client(host, client::Input::Command(command));
    }

    /// Nothing passes from one to another any more.
    pub(crate) fn cut(&mut self, from: Host, to: Host) {
        self.cuts.insert((from, to));
        self.bytes.clear();
    }

    pub(crate) fn cut_both(&mut self, one: Host, other: Host) {
        self.cut(one, other);
        self.cut(other, one);
    }

    /// All paths between servers carry again.
    pub(crate) fn heal(&mut self) {
        self.cuts.retain(|(from, to)| *from > 100 || *to > 100);
    }

    pub(crate) fn kill(&mut self, id: Host) {
        self.nodes.remove(&id);
    }

    /// Lets time pass; meanwhile each of these clients posts as often.
    pub(crate) fn chat(&mut self, clients: &[Host], every: Duration, span: Duration) {
        let end = self.now + span;
        while self.now < end {
            for host in clients {
                self.post(*host);
            }
            self.run(every);
        }
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let wire = self.wires.keys().next().map(|(at, _)| *at);
            let nodes = self.nodes.iter().map(|(host, node)| (node.deadline(), *host));
            let clients = self.clients.iter().map(|(host, (client, _))| (client.deadline(), *host));
            let Some(next) = clock::pass(&mut self.now, end, wire, nodes.chain(clients)) else { return };
            if let Next::Tick(host) = next {
                self.step_node(host, node::Input::Tick);
                self.step_client(host, client::Input::Tick);
            } else if let Some((_, (from, to, bytes))) = self.wires.pop_first() {
                self.step_node(to, node::Input::Datagram { from: addr(from), bytes: &bytes });
                self.step_client(to, client::Input::Datagram { from: addr(from), bytes: &bytes });
            }
        }
    }

    fn send(&mut self, from: Host, to: Host, bytes: &[u8]) {
        if !self.cuts.contains(&(from, to)) {
            self.sent += 1;
            *self.bytes.entry((from, to)).or_default() += bytes.len();
            self.wires.insert((self.now + LATENCY, self.sent), (from, to, bytes.to_vec()));
        }
    }

    fn broadcast(&mut self, from: Host, bytes: &[u8]) {
        for to in self.nodes.keys().copied().collect::<Vec<_>>() {
            self.send(from, to, bytes);
        }
    }

    fn step_node(&mut self, host: Host, input: node::Input<'_>) {
        let Some(mut node) = self.nodes.remove(&host) else { return };
        node.handle(input, self.now);
        while let Some(output) = node.poll() {
            match output {
                node::Output::Send { to, bytes } => self.send(host, to.port() - 5_000, &bytes),
                node::Output::Broadcast { bytes } => self.broadcast(host, &bytes),
                node::Output::Persist(_) | node::Output::Read(_) => unreachable!("it has no store"),
                node::Output::Event(node::Event::PeerDown { peer, .. }) => {
                    self.down.push((self.now, host, peer.id.0));
                }
                node::Output::Event(node::Event::PeerUp { .. }) => self.up.push(self.now),
                node::Output::Event(_) => {}
            }
        }
        self.nodes.insert(host, node);
    }

    fn step_client(&mut self, host: Host, input: client::Input<'_>) {
        let Some((mut client, posts)) = self.clients.remove(&host) else { return };
        client.handle(input, self.now);
        while let Some(output) = client.poll() {
            match output {
                client::Output::Send { to, bytes } => self.send(host, to.port() - 5_000, &bytes),
                client::Output::Broadcast { bytes } => self.broadcast(host, &bytes),
                client::Output::Event(event) => self.tell(host, event),
            }
        }
        self.clients.insert(host, (client, posts));
    }

    fn tell(&mut self, host: Host, event: client::Event) {
        let (now, told) = (self.now, self.told.get_mut(&host).expect("it runs"));
        match event {
            client::Event::Message { entry, late, .. } => told.shown.push((now, entry, late)),
            client::Event::Acked { seq, stored: false, .. } => drop(told.accepted.insert(seq, now)),
            client::Event::Acked { seq, stored: true, .. } => {
                assert!(told.stored.insert(seq, now).is_none(), "stored is said once");
                told.accepted.entry(seq).or_insert(now);
            }
            client::Event::Connected { server, .. } => told.servers.push(server.0),
            _ => {}
        }
    }

    // ---- what came of it

    /// The home of the lobby, as this server has it.
    pub(crate) fn home(&self, at: Host) -> Host {
        let view = self.nodes[&at].view();
        let lobby = view.rooms.iter().find(|room| *room.name == lobby()).expect("there is a lobby");
        Host::try_from(lobby.fence.home.id.0).expect("ids are small")
    }

    /// Which servers take which others for dead, since then.
    pub(crate) fn deaths_since(&self, then: Time) -> Vec<(Host, u32)> {
        self.down.iter().filter(|(at, ..)| *at >= then).map(|(_, by, dead)| (*by, *dead)).collect()
    }

    /// Through which server the lobby is followed at one that does not hear its home: the only other one that gets more
    /// than heartbeats from it.
    pub(crate) fn detour(&self, from: Host, home: Host) -> Host {
        let sent = |to: &Host| self.bytes.get(&(from, *to)).copied().unwrap_or_default();
        let others = self.nodes.keys().filter(|id| **id != from && **id != home);
        *others.max_by_key(|to| sent(to)).expect("there are others")
    }

    /// When all servers heard each other again, after the heal.
    pub(crate) fn met_at(&self, healed: Time) -> Time {
        self.up.iter().filter(|at| **at >= healed).max().copied().unwrap_or(healed)
    }

    /// What was shown to a client was marked as late exactly where it belongs above something that was shown before.
    pub(crate) fn assert_late_is_right(&self, reader: Host) {
        let mut newest = None;
        let mut marked = 0;
        for (_, entry, late) in &self.told[&reader].shown {
            assert_eq!(*late, Some(entry.order()) < newest, "{} at {reader}", entry.body);
            marked += u32::from(*late);
            newest = newest.max(Some(entry.order()));
        }
        assert!(marked > 0, "nothing was late at {reader}");
    }

    /// How many entries of the lobby a server holds.
    pub(crate) fn entries(&self, at: Host) -> usize {
        self.nodes[&at].entries(&lobby(), &VersionVector::default()).count()
    }

    /// The longest that anybody waited for a post since then to be accepted, to be stored, and to be shown to all of these.
    pub(crate) fn waits(&self, since: Time, readers: &[Host]) -> (Duration, Duration, Duration) {
        let (mut accepted, mut stored, mut shown) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        for (&(host, seq), &at) in self.posted.iter().filter(|(_, at)| **at >= since) {
            let told = &self.told[&host];
            let never = || panic!("{host}.{seq}, posted at {at:?}, was not settled");
            accepted = accepted.max(told.accepted.get(&seq).unwrap_or_else(never).since(at));
            stored = stored.max(told.stored.get(&seq).unwrap_or_else(never).since(at));
            for reader in readers {
                let body = format!("{host}.{seq}");
                let one = self.told[reader].shown.iter().find(|(_, entry, _)| *entry.body == *body);
                let Some((when, ..)) = one else { panic!("{body} was not shown to {reader}") };
                shown = shown.max(when.since(at));
            }
        }
        (accepted, stored, shown)
    }

    /// Every post is shown once to each of these, and all servers hold the same.
    pub(crate) fn assert_whole(&self, readers: &[Host]) {
        for reader in readers {
            let mut bodies: Vec<_> =
                self.told[reader].shown.iter().map(|(_, entry, _)| entry.body.to_string()).collect();
            bodies.sort_unstable();
            let mut expected: Vec<_> = self.posted.keys().map(|(host, seq)| format!("{host}.{seq}")).collect();
            expected.sort_unstable();
            assert_eq!(bodies, expected, "shown to {reader}");
        }
        let none = VersionVector::default();
        let order = |host: &Host| {
            let mut entries: Vec<_> = self.nodes[host].entries(&lobby(), &none).collect();
            entries.sort_by_key(|entry| entry.order());
            entries.into_iter().map(|entry| (entry.origin, entry.seq, entry.body.to_string())).collect::<Vec<_>>()
        };
        let orders: Vec<_> = self.nodes.keys().map(order).collect();
        assert!(orders.windows(2).all(|two| two[0] == two[1]), "the servers hold different logs");
    }
}
