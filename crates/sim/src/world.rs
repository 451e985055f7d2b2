//! Virtual time: a queue of what will happen, and hosts to which it happens.
//!
//! Everything that a server or a client does, it does in one step at one moment: a datagram arrives, a deadline passes,
//! a person wants something. What it sends is handed to the network, which says when it arrives. Two things at one
//! moment happen in the order in which they were put in the queue.
//!
//! `breaks` does what faults say, `steps` lets a process do its step and carries what it sends.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::SocketAddr,
};

use hobnob_proto::{
    client,
    ids::{Origin, RoomName, ServerId},
    log::VersionVector,
    node::view::Role,
    rng::Rng,
    session::keys::Secret,
    time::{Duration, Time},
    wire::frame::Start,
};

use self::{operators::Joining, steps::Cause};
use crate::{
    coverage::Coverage,
    disk::Disk,
    facts::{Dot, Fact, Picture, Process, RoomPicture, ServerPicture},
    faults::Fault,
    host::{Alarm, ClientHost, ClientProcess, Datagram, ServerHost, ServerProcess},
    invariants::{Checker, Violation, i11_one_leader_once_quiet::Standing},
    link::{HostId, Network},
    noise::Outsider,
    oracle::Counts,
    profile::{Profile, Rogue},
    trace::Trace,
    traffic::Act,
};

mod breaks;
mod disks;
pub(crate) mod operators;
mod steps;

/// No run lasts so long.
const NEVER: Time = Time::from_micros(u64::MAX);
/// From here on, ids are used by servers that take the place of others.
const NEXT_ID: u32 = 10;
/// How often it is looked what everybody keeps, and in which states they are.
const CENSUS_EVERY: Duration = Duration::from_millis(500);
/// From here on, ids are used by strangers only.
const STRANGER_ID: u32 = 20;

/// Something that is not the network's business.
#[derive(Clone, Debug)]
pub enum Task {
    /// Something breaks, or is mended.
    Fault(Fault),
    /// People do something.
    Act(Act),
    /// A stranger's server is started.
    Stranger(usize),
}

/// What waits in the queue.
#[derive(Debug)]
enum Happening {
    Arrival {
        from: SocketAddr,
        to: SocketAddr,
        /// Who was there when it was sent.
        target: HostId,
        bytes: Datagram,
    },
    /// A server's disk has something to do.
    Disk(HostId),
    Task(Task),
}

/// Ordered by time, then by when it was put in.
#[derive(Debug)]
struct Queued {
    at: Time,
    order: u64,
    what: Happening,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

/// What the network carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carried {
    /// Datagrams sent, each receiver of a broadcast counted.
    pub sent: u64,
    /// Those that arrived, copies too.
    pub arrived: u64,
}

/// Hosts, the network between them, and time.
#[derive(Debug)]
pub struct World {
    now: Time,
    queue: BinaryHeap<Reverse<Queued>>,
    queued: u64,
    network: Network,
    servers: Vec<ServerHost>,
    clients: Vec<ClientHost>,
    /// Servers without the secret.
    strangers: Vec<ServerHost>,
    by_addr: BTreeMap<SocketAddr, HostId>,
    /// When each host wants a tick, if ever; in the order of hosts. As of its last step: other things change between calls of
    /// [`World::next_task`] only.
    wakes: Vec<Time>,
    calm: bool,
    split: bool,
    replicas: u32,
    rng: Rng,
    checker: Checker,
    trace: Trace,
    carried: Carried,
    outsider: Outsider,
    /// How many packets were sealed.
    sealed: u32,
    departed: Vec<Gone>,
    joining: Vec<Joining>,
    /// What was on the disk that was lost last.
    weak: Vec<Dot>,
    coverage: Coverage,
    /// When it is looked next what everybody keeps.
    census_at: Time,
    /// The id of the next server that takes another's place.
    next_id: u32,
}

/// A server that has left politely, and has not come back.
#[derive(Clone, Copy, Debug)]
struct Gone {
    who: Process,
    host: HostId,
    origin: Origin,
}

impl World {
    /// A world in which nothing runs yet.
    pub fn new(profile: &Profile, rng: &mut Rng, trace: Trace) -> Self {
        let network = Network::new(profile.link.clone(), rng.fork());
        let outsider = Outsider::new(profile.noise.clone(), rng.fork());
        let secret = profile.closed.then(|| Secret::generate(rng));
        let machines = profile.ids.iter().zip(&profile.walls);
        let mut servers: Vec<_> = machines.map(|(id, wall)| ServerHost::new(*id, secret.clone(), *wall)).collect();
        for (_, host) in servers.iter_mut().enumerate().filter(|(of, _)| profile.disks.has(*of)) {
            host.disk = Some(Disk::new(profile.disks.clone(), rng.fork()));
        }
        let clients: Vec<_> = (0..profile.clients).map(|of| ClientHost::new(of, secret.clone(), rng)).collect();
        let stranger = |(of, rogue): (usize, &Rogue)| {
            let secret = (*rogue == Rogue::OtherSecret).then(|| Secret::generate(rng));
            // Every second one has an id of ours.
            let id = if of % 2 == 0 { ServerId(STRANGER_ID + of as u32) } else { profile.ids[of % profile.ids.len()] };
            ServerHost::stranger(of, id, secret)
        };
        let strangers: Vec<_> = profile.rogues.iter().enumerate().map(stranger).collect();
        let addrs = servers.iter().map(|host| host.addr).chain(clients.iter().map(|host| host.addr));
        let addrs = addrs.chain(strangers.iter().map(|host| host.addr));
        let wakes = vec![NEVER; servers.len() + clients.len() + strangers.len()];
        let (mut checker, split) = (Checker::default(), profile.is_split(profile.phases.heal));
        if split {
            checker.silences.split();
        }
        Self {
            now: Time::ZERO,
            queue: BinaryHeap::new(),
            queued: 0,
            network,
            by_addr: addrs.enumerate().map(|(host, addr)| (addr, host)).collect(),
            wakes,
            servers,
            clients,
            strangers,
            calm: false,
            split,
            replicas: profile.replicas,
            rng: rng.fork(),
            checker,
            trace,
            carried: Carried::default(),
            outsider,
            sealed: 0,
            departed: Vec::new(),
            joining: Vec::new(),
            weak: Vec::new(),
            coverage: Coverage::of(profile),
            census_at: Time::ZERO + CENSUS_EVERY,
            next_id: NEXT_ID,
        }
    }

    /// What time it is.
    pub fn now(&self) -> Time {
        self.now
    }

    /// The trace so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// What the network carried so far.
    pub fn carried(&self) -> Carried {
        self.carried
    }

    /// What happened to all clients so far.
    pub fn counts(&self) -> Counts {
        self.clients.iter().map(|host| host.told.counts()).fold(Counts::default(), |sum, one| Counts {
            posted: sum.posted + one.posted,
            stored: sum.stored + one.stored,
            shown: sum.shown + one.shown,
            moves: sum.moves + one.moves,
        })
    }

    /// The clients' machines.
    pub fn clients(&self) -> &[ClientHost] {
        &self.clients
    }

    /// Puts a task in the queue.
    pub fn schedule(&mut self, at: Time, task: Task) {
        self.put(at, Happening::Task(task));
    }

    /// Lets time pass until a task is due, or until `end`: then `None`.
    pub fn next_task(&mut self, end: Time) -> Result<Option<Task>, Violation> {
        let hosts = self.servers.len() + self.clients.len() + self.strangers.len();
        self.wakes = (0..hosts).map(|host| self.wake_of(host)).collect();
        loop {
            let queued = self.queue.peek().map(|Reverse(queued)| queued.at);
            let alarm = self.next_alarm();
            let alarm_first = alarm.filter(|(at, _)| queued.is_none_or(|queued| *at < queued));
            let Some(at) = alarm_first.map(|(at, _)| at).or(queued).filter(|at| *at <= end) else {
                self.now = end;
                return Ok(None);
            };
            // A process may have wished for a moment that has passed.
            self.now = self.now.max(at);
            if self.now >= self.census_at {
                self.census_at = self.now + CENSUS_EVERY;
                self.take_census()?;
            }
            if let Some((_, host)) = alarm_first {
                self.wake(host)?;
            } else if let Some(Reverse(Queued { what, .. })) = self.queue.pop() {
                match what {
                    Happening::Arrival { from, to, target, bytes } => self.arrive((from, to), target, bytes)?,
                    Happening::Disk(of) => self.act_disk(of)?,
                    Happening::Task(task) => return Ok(Some(task)),
                }
            }
        }
    }

    /// The state file of a client that does not run is replaced by an older one.
    pub fn rewind_client(&mut self, of: usize) {
        if self.clients[of].process.is_none() {
            self.trace.story(self.now, format_args!("client {of} has an older state file"));
            self.clients[of].told.rewind(self.now);
        }
    }

    /// Starts a client, unless it runs: it follows its rooms again, from its cursors or from the beginning, and posts
    /// again what was not settled.
    pub fn start_client(&mut self, of: usize, resume: bool) -> Result<(), Violation> {
        if self.clients[of].process.is_some() {
            return Ok(());
        }
        let host = &mut self.clients[of];
        host.start(&mut self.rng, self.now);
        self.trace.story(self.now, format_args!("client {of} starts, resumes: {resume}"));
        let rooms: Vec<_> = host.told.rooms().iter().map(|(room, cursor)| (room.clone(), cursor.clone())).collect();
        let outbox: Vec<_> = host.told.outbox().iter().map(|(post, body)| (post.clone(), body.clone())).collect();
        self.note_able();
        for (room, cursor) in rooms {
            self.follow(of, &room, Start::After(if resume { cursor } else { VersionVector::default() }))?;
        }
        for ((room, seq), body) in outbox {
            self.command(of, client::Command::Post { room, seq, body })?;
        }
        Ok(())
    }

    /// Ends a client: with a goodbye, or without.
    pub fn stop_client(&mut self, of: usize, politely: bool) -> Result<(), Violation> {
        self.trace.story(self.now, format_args!("client {of} ends, politely: {politely}"));
        if politely {
            self.command(of, client::Command::Quit)?;
        }
        self.operator_goes(of);
        if let Some(running) = self.clients[of].process.take() {
            self.part_with_client(&running);
        }
        self.note_able();
        Ok(())
    }

    /// Makes a client follow a room.
    pub fn follow(&mut self, of: usize, room: &RoomName, from: Start) -> Result<(), Violation> {
        self.trace.story(self.now, format_args!("client {of} joins {room} from {from:?} on"));
        self.coverage.meet(match &from {
            Start::After(cursor) if *cursor == VersionVector::default() => "follows from the beginning",
            Start::After(_) => "follows after a cursor",
            Start::Last(_) => "follows the last posts",
            Start::Since(_) => "follows since a time",
        });
        self.clients[of].told.follow(room, &from, &mut self.checker, self.now)?;
        self.command(of, client::Command::Join { room: room.clone(), from })
    }

    /// Makes a client post.
    pub fn post(&mut self, of: usize, room: &RoomName, body: String) -> Result<(), Violation> {
        let seq = self.clients[of].told.post(room, body.clone(), &mut self.checker, self.now)?;
        self.trace.story(self.now, format_args!("client {of} posts {seq} to {room}: {} bytes", body.len()));
        self.command(of, client::Command::Post { room: room.clone(), seq, body })
    }

    /// Everybody who runs, now.
    pub fn picture(&self) -> Picture {
        let mut picture = self.outline();
        let running = self.servers.iter().enumerate().filter_map(|(of, host)| Some((of, host, host.process.as_ref()?)));
        for (server, (of, host, running)) in picture.servers.iter_mut().zip(running) {
            let rooms = running.node.room_views().map(|room| {
                let picture = RoomPicture { fence: room.fence, open: room.open, held: room.held.into_owned() };
                (room.name.clone(), picture)
            });
            server.rooms = rooms.collect();
            server.rotten = self.rotten(of);
            server.doubled = host.doubled();
        }
        let running = self.clients.iter().filter(|host| host.process.is_some());
        picture.clients = running.map(|host| host.told.picture()).collect();
        picture
    }

    /// The servers that run, now, without what they hold: that costs as much as everything that was ever said.
    fn outline(&self) -> Picture {
        let servers = self.servers.iter().filter_map(|host| {
            let running = host.process.as_ref()?;
            let view = running.node.view();
            Some(ServerPicture {
                process: running.process,
                id: host.id,
                me: view.me,
                cluster: view.cluster,
                role: view.role,
                eligible: view.eligible,
                epoch: view.epoch,
                leader: view.leader,
                live: view.live,
                rooms: BTreeMap::new(),
                rotten: false,
                doubled: Vec::new(),
            })
        });
        Picture { split: self.split, servers: servers.collect(), clients: Vec::new() }
    }

    /// Cluster time, as far as the servers agree: the latest that one of them has.
    pub fn cluster_millis(&self) -> u64 {
        let running = self.servers.iter().filter_map(|host| host.process.as_ref());
        running.map(|running| running.node.millis()).max().unwrap_or_default()
    }

    /// Who may lead now, and who does.
    pub fn standing(&self) -> Standing {
        let mut standing = Standing::default();
        for host in &self.servers {
            let Some(view) = host.process.as_ref().map(|running| running.node.view()) else { continue };
            let list = |list: &mut Vec<_>, is_on: bool| list.extend(is_on.then_some(host.id));
            list(&mut standing.eligible, view.eligible);
            list(&mut standing.leaders, view.role == Role::Leader);
            list(&mut standing.probation, view.probation.contains(&host.id));
        }
        standing
    }

    /// Asks the invariants about this moment, which is quiet.
    pub fn settled(&mut self) -> Result<(), Violation> {
        self.checker.settled(&self.picture(), self.now)
    }

    /// Asks those invariants about this moment that hold once there was time to elect a leader. They look at nobody but the
    /// servers, and not at what these hold.
    pub fn led(&mut self) -> Result<(), Violation> {
        self.checker.led(&self.outline(), self.now)
    }

    /// What was met so far: also of those who run.
    pub fn coverage(&mut self) -> Coverage {
        let mut coverage = self.coverage.clone();
        for running in self.servers.iter().filter_map(|host| host.process.as_ref()) {
            coverage.part_with_server(&running.node);
        }
        for running in self.clients.iter().filter_map(|host| host.process.as_ref()) {
            coverage.part_with_client(&running.client);
        }
        coverage.network(&self.network, &self.outsider);
        for (fault, times) in self.servers.iter().filter_map(|host| host.disk.as_ref()).flat_map(Disk::faults) {
            coverage.meet_often(fault, times);
        }
        coverage
    }

    /// What the invariants had to judge so far.
    pub fn checker(&self) -> &Checker {
        &self.checker
    }

    fn put(&mut self, at: Time, what: Happening) {
        self.queued += 1;
        self.queue.push(Reverse(Queued { at, order: self.queued, what }));
    }

    /// Who wants a tick first, and when.
    fn next_alarm(&self) -> Option<(Time, HostId)> {
        let first = self.wakes.iter().enumerate().min_by_key(|(_, at)| **at);
        first.filter(|(_, at)| **at < NEVER).map(|(host, at)| (*at, host))
    }

    /// When whoever runs on this host wants a tick: [`NEVER`] where nobody runs, or stands still.
    fn wake_of(&self, host: HostId) -> Time {
        let (clients, strangers) = (self.servers.len(), self.servers.len() + self.clients.len());
        let alarm = if (clients..strangers).contains(&host) {
            let host = &self.clients[host - clients];
            host.process.as_ref().filter(|_| host.asleep.is_none()).map(|running| &running.alarm)
        } else {
            let host = if host < clients { &self.servers[host] } else { &self.strangers[host - strangers] };
            let running = host.process.as_ref().filter(|_| host.paused.is_none());
            return running.map_or(NEVER, |running| running.wake());
        };
        alarm.map_or(NEVER, Alarm::wake)
    }

    /// Looks what everybody keeps, and in which states they are.
    fn take_census(&mut self) -> Result<(), Violation> {
        for running in self.servers.iter().filter_map(|host| host.process.as_ref()) {
            self.coverage.states(&running.node.states());
            let fact = Fact::Keeps { server: true, process: running.process, queues: &running.node.queues() };
            self.checker.observe(&fact, self.now)?;
        }
        for host in &self.clients {
            let Some(running) = &host.process else { continue };
            self.coverage.states(&running.client.states());
            let queues = running.client.queues();
            let fact = Fact::Keeps { server: false, process: host.told.process(), queues: &queues };
            self.checker.observe(&fact, self.now)?;
        }
        Ok(())
    }

    /// A server's process ends.
    fn part_with_server(&mut self, running: &ServerProcess) {
        self.coverage.part_with_server(&running.node);
    }

    /// A client's process ends.
    fn part_with_client(&mut self, running: &ClientProcess) {
        self.coverage.part_with_client(&running.client);
    }

    fn broken(&self, what: String) -> Violation {
        Violation { invariant: "world", at: self.now, what }
    }
}
