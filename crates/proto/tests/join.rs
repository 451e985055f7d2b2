//! Two clusters that stay apart, until a server of one is brought into the other on purpose: in virtual time.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

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
    session::keys::Secret,
    time::Time,
    wire::frame::{Ask, Start},
};

/// How long a datagram takes.
const LATENCY: Duration = Duration::from_micros(500);
/// Servers sit at these ports and above, clients below.
const SERVERS: u16 = 5_000;

/// Servers and clients on one machine. A broadcast reaches those servers that are in the same network.
struct World {
    now: Time,
    nodes: BTreeMap<u16, Node>,
    clients: BTreeMap<u16, Client>,
    wires: VecDeque<(Time, SocketAddr, SocketAddr, Vec<u8>)>,
    /// The only port that broadcasts reach; `None`: all.
    networks: BTreeMap<u16, u8>,
    answers: Vec<Result<String, String>>,
    /// The posts that are stored, by client and number.
    stored: BTreeSet<(u16, u64)>,
    /// The rooms that clients are in.
    joined: BTreeSet<(u16, RoomName)>,
    /// Two servers between which nothing passes.
    cut: Option<[u16; 2]>,
    /// What this server sends to that one waits.
    late: Option<[u16; 2]>,
    waiting: Vec<(SocketAddr, SocketAddr, Vec<u8>)>,
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl World {
    fn new() -> Self {
        Self {
            now: Time::from_micros(1_000_000),
            nodes: BTreeMap::new(),
            clients: BTreeMap::new(),
            wires: VecDeque::new(),
            networks: BTreeMap::new(),
            answers: Vec::new(),
            stored: BTreeSet::new(),
            joined: BTreeSet::new(),
            cut: None,
            late: None,
            waiting: Vec::new(),
        }
    }

    /// A server at `port`, whose last two digits are its id, in a network that it shares with those of the same number.
    fn server(&mut self, port: u16, network: u8, name: &str, secret: Option<Secret>) {
        let config = common::server(Some(u32::from((port - SERVERS) % 100)), addr(port), self.now);
        let config = ServerConfig { cluster: name.parse().unwrap(), secret, ..config };
        self.networks.insert(port, network);
        self.nodes.insert(port, Node::new(config, [port.to_le_bytes()[0]; 32], self.now));
        self.step(port, Input::Tick);
    }

    /// A client at `port` that is served by the server at `to`.
    fn client(&mut self, port: u16, to: u16, name: &str) {
        let seed = [port.to_le_bytes()[0]; 32];
        let config = common::person(seed, port.into(), &format!("person-{port}"), &[addr(to)]);
        let config = ClientConfig { cluster: name.parse().unwrap(), ..config };
        let mut client = Client::new(config, seed, self.now);
        client.handle(client::Input::Tick, self.now);
        self.clients.insert(port, client);
        self.command(port, Command::Join { room: RoomName::lobby(), from: Start::After(VersionVector::default()) });
    }

    fn command(&mut self, port: u16, command: Command) {
        let now = self.now;
        self.clients.get_mut(&port).unwrap().handle(client::Input::Command(command), now);
        self.drain_client(port);
    }

    fn post(&mut self, port: u16, seq: u64, body: &str) {
        self.command(port, Command::Post { room: RoomName::lobby(), seq, body: body.into() });
    }

    /// Asks for a join; what is answered within two seconds.
    fn join(&mut self, port: u16, cluster: ClusterId) -> Result<String, String> {
        self.answers.clear();
        self.command(port, Command::Ask { id: self.now.as_micros(), ask: Ask::Join { cluster } });
        self.run(Duration::from_secs(2));
        self.answers.pop().expect("there is an answer")
    }

    fn step(&mut self, port: u16, input: Input<'_>) {
        let Some(node) = self.nodes.get_mut(&port) else { return };
        node.handle(input, self.now);
        while let Some(output) = node.poll() {
            let at = self.now + LATENCY;
            match output {
                Output::Send { to, bytes } => self.wires.push_back((at, addr(port), to, bytes)),
                Output::Broadcast { bytes } => self.wires.push_back((at, addr(port), addr(0), bytes)),
                Output::Persist(_) | Output::Read(_) => unreachable!("it has no store"),
                Output::Event(_) => {}
            }
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

    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let wire = self.wires.front().map(|(at, ..)| *at);
            let nodes = self.nodes.iter().map(|(port, node)| (node.deadline(), *port));
            let tick = nodes.chain(self.clients.iter().map(|(port, client)| (client.deadline(), *port))).min();
            let next = wire.into_iter().chain(tick.map(|(at, _)| at)).min().unwrap_or(end);
            if next > end {
                self.now = end;
                return;
            }
            self.now = self.now.max(next);
            if wire.is_some_and(|at| at <= self.now) {
                let Some((_, from, to, bytes)) = self.wires.pop_front() else { return };
                self.deliver(from, to, &bytes);
            } else if let Some((_, port)) = tick {
                self.step(port, Input::Tick);
                let now = self.now;
                if let Some(client) = self.clients.get_mut(&port) {
                    client.handle(client::Input::Tick, now);
                }
                self.drain_client(port);
            }
        }
    }

    fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let ends = [from.port(), to.port()];
        if self.cut.is_some_and(|cut| ends == cut || ends == [cut[1], cut[0]]) {
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

    fn cluster(&self, port: u16) -> ClusterId {
        self.nodes[&port].view().cluster.unwrap()
    }

    /// What people said in the lobby, as a server holds it.
    fn said(&self, port: u16) -> BTreeSet<String> {
        let all = VersionVector::default();
        let entries = self.nodes[&port].entries(&RoomName::lobby(), &all);
        entries.map(|entry| entry.body.to_string()).collect()
    }

    /// What has waited arrives.
    fn let_through(&mut self) {
        self.late = None;
        for (from, to, bytes) in std::mem::take(&mut self.waiting) {
            self.wires.push_back((self.now + LATENCY, from, to, bytes));
        }
    }

    /// Runs until a server has called the other cluster, whose answer waits.
    fn run_until_answered(&mut self, from: u16, to: u16) {
        let end = self.now + Duration::from_secs(20);
        self.late = Some([from, to]);
        while self.waiting.is_empty() && self.now < end {
            self.run(Duration::from_millis(1));
        }
        assert!(!self.waiting.is_empty(), "it is called");
    }

    /// Whether a server knows that server `id` has left its cluster.
    fn knows_left(&self, port: u16, id: u32) -> bool {
        self.nodes[&port].members().any(|member| member.id == ServerId(id) && member.left)
    }

    /// Runs in small steps until a server has gone over.
    fn run_until_in(&mut self, port: u16, cluster: ClusterId) {
        let end = self.now + Duration::from_secs(20);
        while self.cluster(port) != cluster && self.now < end {
            self.run(Duration::from_micros(100));
        }
        assert_eq!(self.cluster(port), cluster);
    }
}

fn texts(texts: &[&str]) -> BTreeSet<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// Clusters of the servers 5001 and 5002, and of 5003, in which somebody has said something, and that are older than a
/// minute when they first hear of each other. Clients at 4001 and 4003, each at a server of one of them.
fn two_old_clusters(names: [&str; 2]) -> World {
    old_clusters(names, [&[5001, 5002], &[5003]])
}

/// The same of other servers; the clients are at the first ones.
fn old_clusters(names: [&str; 2], servers: [&[u16]; 2]) -> World {
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
    world
}

#[test]
fn old_clusters_stay_apart_until_one_is_brought_into_the_other() {
    let mut world = two_old_clusters(["test", "test"]);
    let ours = world.cluster(5001);
    assert_ne!(ours, world.cluster(5003), "they stay apart by themselves");
    assert_eq!((world.said(5001), world.said(5003)), (texts(&["one"]), texts(&["three"])));

    let said = world.join(4003, ours).expect("it may");
    assert!(said.contains("server 3"), "{said}");
    world.run(Duration::from_secs(10));
    for port in [5001, 5002, 5003] {
        assert_eq!(world.cluster(port), ours);
        assert_eq!(world.said(port), texts(&["one", "three"]), "{port} holds what was said in both");
        assert_eq!(world.nodes[&port].view().live.len(), 3);
    }
    assert!(world.join(4003, ours).is_ok(), "a question that is repeated is answered in the same way");

    world.post(4003, 2, "after");
    world.post(4001, 2, "after too");
    world.run(Duration::from_secs(5));
    for port in [5001, 5002, 5003] {
        assert_eq!(world.said(port), texts(&["one", "three", "after", "after too"]), "{port}");
    }
}

#[test]
fn the_servers_that_are_not_brought_along_stay_where_they_are() {
    let mut world = two_old_clusters(["test", "test"]);
    let (old, new) = (world.cluster(5001), world.cluster(5003));
    world.join(4001, new).expect("it may");
    world.run(Duration::from_secs(20));
    assert_eq!([5001, 5002, 5003].map(|port| world.cluster(port)), [new, old, new]);
    assert_eq!(world.said(5003), texts(&["one", "three"]));
    assert_eq!(world.said(5002), texts(&["one"]));
}

#[test]
fn those_who_stay_know_that_it_has_left_and_do_not_wait_for_its_disk() {
    let mut world = two_old_clusters(["test", "test"]);
    let new = world.cluster(5003);
    world.client(4002, 5002, "test");
    world.join(4001, new).expect("it may");
    assert_eq!((world.cluster(5001), world.knows_left(5002, 1)), (new, true));
    assert!(!world.knows_left(5001, 1) && !world.knows_left(5003, 1));
    world.post(4002, 1, "alone");
    world.run(Duration::from_secs(2));
    assert!(world.stored.contains(&(4002, 1)), "there is one server, and it has it");
}

#[test]
fn that_it_has_left_is_said_more_than_once() {
    let mut world = two_old_clusters(["test", "test"]);
    let new = world.cluster(5003);
    world.command(4001, Command::Ask { id: 9, ask: Ask::Join { cluster: new } });
    world.run_until_in(5001, new);
    world.run(Duration::from_millis(49));
    world.cut = Some([5001, 5002]);
    world.run(Duration::from_millis(10));
    assert!(!world.knows_left(5002, 1), "the first word is lost");
    world.cut = None;
    world.run(Duration::from_millis(100));
    assert!(world.knows_left(5002, 1));
}

#[test]
fn it_hands_over_what_only_it_holds_before_it_goes() {
    let mut world = two_old_clusters(["test", "test"]);
    let new = world.cluster(5003);
    world.cut = Some([5001, 5002]);
    world.post(4001, 2, "at the last moment");
    world.run(Duration::from_millis(20));
    world.command(4001, Command::Ask { id: 9, ask: Ask::Join { cluster: new } });
    world.run(Duration::from_millis(300));
    assert_eq!(world.said(5002), texts(&["one"]));
    world.cut = None;
    world.run_until_in(5001, new);
    assert_eq!(world.said(5002), texts(&["one", "at the last moment"]));
}

#[test]
fn who_cannot_hand_over_goes_all_the_same_and_is_a_member_that_is_down() {
    let mut world = two_old_clusters(["test", "test"]);
    let (old, new) = (world.cluster(5001), world.cluster(5003));
    world.cut = Some([5001, 5002]);
    world.join(4001, new).expect("it may");
    world.run(Duration::from_secs(5));
    assert_eq!([5001, 5002].map(|port| world.cluster(port)), [new, old]);
    assert!(!world.knows_left(5002, 1));
}

#[test]
fn a_server_is_brought_back_as_another_boot() {
    let mut world = two_old_clusters(["test", "test"]);
    let (old, new) = (world.cluster(5001), world.cluster(5003));
    let boot = world.nodes[&5001].origin().boot;
    world.join(4001, new).expect("it may");
    world.run(Duration::from_secs(5));
    world.join(4001, old).expect("it may");
    world.run(Duration::from_secs(5));
    assert_eq!([5001, 5002, 5003].map(|port| world.cluster(port)), [old, old, new]);
    assert_eq!([5001, 5002].map(|port| world.nodes[&port].view().live.len()), [2, 2]);
    assert!(world.nodes[&5001].origin().boot > boot);
    assert!(world.knows_left(5003, 1) && !world.knows_left(5002, 1));
}

#[test]
fn where_the_other_cluster_does_not_answer_any_more_it_stays() {
    let mut world = two_old_clusters(["test", "test"]);
    let (old, new) = (world.cluster(5001), world.cluster(5003));
    world.cut = Some([5001, 5003]);
    world.join(4001, new).expect("it may try");
    world.run(Duration::from_secs(10));
    assert_eq!((world.cluster(5001), world.knows_left(5002, 1)), (old, false));
    world.post(4001, 2, "still here");
    world.run(Duration::from_secs(2));
    assert!(world.stored.contains(&(4001, 2)), "it is a copy again");
    world.cut = None;
    world.run(Duration::from_secs(5));
    world.join(4001, new).expect("it may again");
    world.run(Duration::from_secs(2));
    assert_eq!((world.cluster(5001), world.knows_left(5002, 1)), (new, true));
}

#[test]
fn an_answer_that_comes_after_it_has_stayed_does_not_take_it_over() {
    let mut world = two_old_clusters(["test", "test"]);
    let (old, new) = (world.cluster(5001), world.cluster(5003));
    world.command(4001, Command::Ask { id: 9, ask: Ask::Join { cluster: new } });
    world.run_until_answered(5003, 5001);
    let unanswered = |world: &World| world.nodes[&5001].counters().contains_key("join_unanswered");
    while !unanswered(&world) {
        world.run(Duration::from_millis(1));
    }
    world.let_through();
    world.run(Duration::from_secs(5));
    assert_eq!((world.cluster(5001), world.knows_left(5002, 1)), (old, false));
}

#[test]
fn who_is_to_stop_while_it_goes_over_stops_where_it_is() {
    let mut world = two_old_clusters(["test", "test"]);
    let (old, new) = (world.cluster(5001), world.cluster(5003));
    world.command(4001, Command::Ask { id: 9, ask: Ask::Join { cluster: new } });
    world.run_until_answered(5003, 5001);
    world.step(5001, Input::Leave);
    world.let_through();
    world.run(Duration::from_secs(5));
    assert_eq!((world.cluster(5001), world.knows_left(5002, 1)), (old, true));
}

#[test]
fn who_stays_follows_rooms_that_moved_meanwhile() {
    let mut world = two_old_clusters(["test", "test"]);
    let new = world.cluster(5003);
    let tea: RoomName = "tea".parse().unwrap();
    let joins = Command::Join { room: tea.clone(), from: Start::After(VersionVector::default()) };
    for port in [5004, 5005] {
        world.server(port, 1, "test", None);
    }
    world.run(Duration::from_secs(10));
    world.command(4001, joins.clone());
    world.run(Duration::from_secs(1));
    world.cut = Some([5001, 5003]);
    world.join(4001, new).expect("it may try");
    let home = |world: &World| {
        let view = world.nodes[&5001].view();
        let fence = view.rooms.iter().find(|room| *room.name == tea).map(|room| room.fence);
        fence.map_or(0, |fence| fence.home.id.0 as u16 + SERVERS)
    };
    let dead = home(&world);
    world.nodes.remove(&dead);
    world.run(Duration::from_secs(10));
    assert!(home(&world) != dead && home(&world) != 5001);
    world.client(4002, 5001, "test");
    world.command(4002, joins);
    world.run(Duration::from_secs(2));
    assert!(world.joined.contains(&(4002, tea)), "it follows the new home, and answers");
}

#[test]
fn who_is_brought_over_judges_nobody_by_an_id_that_it_knew() {
    let mut world = old_clusters(["test", "test"], [&[5001, 5002, 5003], &[5102, 5103]]);
    let new = world.cluster(5103);
    world.join(4001, new).expect("it may");
    for _ in 0..100 {
        world.run(Duration::from_millis(100));
        for port in [5001, 5102, 5103] {
            let view = world.nodes[&port].view();
            assert!(view.probation.is_empty(), "{port} has {:?} on probation", view.probation);
        }
    }
    assert_eq!([5001, 5102, 5103].map(|port| world.nodes[&port].view().leader), [Some(ServerId(3)); 3]);
}

/// What one server has sent to another port does not arrive.
fn lose(world: &mut World, lost: [u16; 2]) {
    world.wires.retain(|(_, from, to, _)| [from.port(), to.port()] != lost);
}

#[test]
fn its_clients_are_not_called_back_though_they_missed_that_it_went() {
    let mut world = two_old_clusters(["test", "test"]);
    let new = world.cluster(5003);
    world.command(4001, Command::Ask { id: 9, ask: Ask::Join { cluster: new } });
    world.run_until_in(5001, new);
    lose(&mut world, [5001, 4001]);
    world.run(Duration::from_secs(5));
    world.post(4001, 2, "after");
    world.run(Duration::from_secs(2));
    assert_eq!((world.said(5003), world.said(5002)), (texts(&["one", "three", "after"]), texts(&["one"])));
}

#[test]
fn it_is_not_said_to_have_left_where_one_that_it_counted_on_has_died() {
    let mut world = old_clusters(["test", "test"], [&[5001, 5002, 5004], &[5003]]);
    let new = world.cluster(5003);
    world.command(4001, Command::Ask { id: 9, ask: Ask::Join { cluster: new } });
    world.run_until_answered(5003, 5001);
    world.nodes.remove(&5004);
    world.run(Duration::from_secs(3));
    world.let_through();
    world.run(Duration::from_secs(2));
    assert_eq!((world.cluster(5001), world.knows_left(5002, 1)), (new, false));
}

#[test]
fn who_stays_is_in_nobodys_way_who_wants_to_leave() {
    let mut world = old_clusters(["test", "test"], [&[5001, 5002, 5004], &[5003]]);
    let new = world.cluster(5003);
    world.cut = Some([5001, 5003]);
    world.command(4001, Command::Ask { id: 9, ask: Ask::Join { cluster: new } });
    while !world.nodes[&5001].counters().contains_key("join_unanswered") {
        world.run(Duration::from_millis(10));
    }
    world.run(Duration::from_secs(1));
    world.step(5002, Input::Leave);
    world.run(Duration::from_secs(2));
    assert!(world.knows_left(5004, 2));
}

#[test]
fn its_clients_go_with_it() {
    let mut world = two_old_clusters(["test", "test"]);
    let new = world.cluster(5003);
    world.join(4001, new).expect("it may");
    world.run(Duration::from_secs(5));
    world.post(4001, 2, "after");
    world.run(Duration::from_secs(2));
    assert_eq!(world.said(5003), texts(&["one", "three", "after"]));
    assert_eq!(world.said(5002), texts(&["one"]));
}

#[test]
fn a_cluster_that_cannot_be_joined_is_answered_with_what_to_do() {
    fn check(world: &mut World, cluster: ClusterId, expected: &str) {
        let before = world.cluster(5003);
        let why = world.join(4003, cluster).expect_err("it may not");
        assert!(why.contains(expected), "{why}");
        world.run(Duration::from_secs(5));
        assert_eq!(world.cluster(5003), before);
    }
    let mut world = two_old_clusters(["test", "test"]);
    check(&mut world, ClusterId(7), "`hobnob clusters` lists those that answer");
    let mut world = two_old_clusters(["ship", "test"]);
    let other = world.cluster(5001);
    check(&mut world, other, "start this server with --cluster ship");
    let mut world = two_old_clusters(["test", "test"]);
    world.server(5004, 1, "test", Some(Secret::from_text(&"A".repeat(43)).unwrap()));
    world.run(Duration::from_secs(5));
    let closed = world.cluster(5004);
    check(&mut world, closed, "has another secret");
}

#[test]
fn only_somebody_on_its_machine_brings_a_server_of_an_open_cluster_elsewhere() {
    let mut world = two_old_clusters(["test", "test"]);
    let other = world.cluster(5001);
    // The same client, whose packets come from another machine from now on.
    let before = world.cluster(5003);
    let away = SocketAddr::from(([192, 0, 2, 9], 4003));
    world.command(4003, Command::Ask { id: 9, ask: Ask::Join { cluster: other } });
    for (_, from, ..) in world.wires.iter_mut().filter(|(_, from, ..)| from.port() == 4003) {
        *from = away;
    }
    world.answers.clear();
    world.run(Duration::from_millis(100));
    assert_eq!(world.cluster(5003), before);
    assert!(matches!(&world.answers[..], [Err(why)] if why.contains("run `hobnob join` there")), "{:?}", world.answers);
}
