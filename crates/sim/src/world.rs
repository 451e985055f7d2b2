//! Virtual time: a queue of what will happen, and hosts to which it happens.
//!
//! Everything that a server or a client does, it does in one step at one moment: a datagram arrives, a deadline passes,
//! a person wants something. What it sends is handed to the network, which says when it arrives. Two things at one
//! moment happen in the order in which they were put in the queue.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    net::SocketAddr,
    rc::Rc,
};

use hobnob_proto::{client, ids::RoomName, limits, log::VersionVector, node, rng::Rng, time::Time, wire::frame::Start};

use crate::{
    facts::{Fact, Picture, RoomPicture, ServerPicture},
    faults::Fault,
    host::{ClientHost, Datagram, SOCKET_DATAGRAMS_MAX, ServerHost},
    invariants::{Checker, Violation},
    link::{Cut, HostId, Network},
    oracle::Counts,
    profile::Profile,
    trace::{Fnv, Trace},
    traffic::Act,
};

/// Something that is not the network's business.
#[derive(Clone, Debug)]
pub enum Task {
    /// Something breaks, or is mended.
    Fault(Fault),
    /// People do something.
    Act(Act),
}

/// What waits in the queue.
#[derive(Debug)]
enum Happening {
    Arrival { from: SocketAddr, to: SocketAddr, bytes: Datagram },
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
    by_addr: BTreeMap<SocketAddr, HostId>,
    calm: bool,
    replicas: u32,
    rng: Rng,
    checker: Checker,
    trace: Trace,
    carried: Carried,
}

impl World {
    /// A world in which nothing runs yet.
    pub fn new(profile: &Profile, rng: &mut Rng, trace: Trace) -> Self {
        let network = Network::new(profile.link.clone(), rng.fork());
        let servers: Vec<_> = profile.ids.iter().map(|id| ServerHost::new(*id)).collect();
        let clients: Vec<_> = (0..profile.clients).map(|of| ClientHost::new(of, rng)).collect();
        let addrs = servers.iter().map(|server| server.addr).chain(clients.iter().map(|client| client.addr));
        Self {
            now: Time::ZERO,
            queue: BinaryHeap::new(),
            queued: 0,
            network,
            by_addr: addrs.enumerate().map(|(host, addr)| (addr, host)).collect(),
            servers,
            clients,
            calm: false,
            replicas: profile.replicas,
            rng: rng.fork(),
            checker: Checker::default(),
            trace,
            carried: Carried::default(),
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
            if let Some((_, host)) = alarm_first {
                self.step(host, Cause::Tick)?;
            } else if let Some(Reverse(Queued { what, .. })) = self.queue.pop() {
                match what {
                    Happening::Arrival { from, to, bytes } => self.arrive(from, to, bytes)?,
                    Happening::Task(task) => return Ok(Some(task)),
                }
            }
        }
    }

    /// Breaks or mends something. What is in that state already stays in it.
    pub fn apply(&mut self, fault: &Fault) -> Result<(), Violation> {
        if self.is_so(fault) {
            return Ok(());
        }
        let line = self.told(fault);
        self.trace.story(self.now, format_args!("{line}"));
        match fault {
            Fault::Crash(of) => self.crash_server(*of)?,
            Fault::Restart(of) => {
                let process = self.servers[*of].start(self.replicas, &mut self.rng, self.now);
                self.checker.observe(&Fact::Started { server: process }, self.now)?;
            }
            Fault::Cut(cut) => self.network.cut(cut.clone()),
            Fault::Heal => self.network.cut(Cut::new()),
            Fault::Pause(of) => {
                self.servers[*of].paused.get_or_insert_default();
            }
            Fault::Resume(of) => self.resume(*of)?,
            Fault::Roam(of) => {
                self.by_addr.remove(&self.clients[*of].addr);
                self.clients[*of].roam();
                self.by_addr.insert(self.clients[*of].addr, self.servers.len() + of);
            }
        }
        self.weather()
    }

    /// Ends every fault, and starts every server that does not run.
    pub fn heal(&mut self) -> Result<(), Violation> {
        self.apply(&Fault::Heal)?;
        self.network.heal();
        self.trace.story(self.now, format_args!("the network is healed"));
        for of in 0..self.servers.len() {
            self.apply(&Fault::Resume(of))?;
            self.apply(&Fault::Restart(of))?;
        }
        Ok(())
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
        for (room, cursor) in rooms {
            self.follow(of, &room, if resume { cursor } else { VersionVector::default() })?;
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
        self.clients[of].process = None;
        Ok(())
    }

    /// Makes a client follow a room, from a cursor on.
    pub fn follow(&mut self, of: usize, room: &RoomName, base: VersionVector) -> Result<(), Violation> {
        self.trace.story(self.now, format_args!("client {of} joins {room} after {base:?}"));
        self.clients[of].told.follow(room, base.clone(), &mut self.checker, self.now)?;
        let from = Start::After(base);
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
        let servers = self.servers.iter().filter_map(|host| {
            let running = host.process.as_ref()?;
            let view = running.node.view();
            let rooms = view.rooms.into_iter().map(|room| {
                let picture = RoomPicture { fence: room.fence, open: room.open, held: room.held.into_owned() };
                (room.name.clone(), picture)
            });
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
                rooms: rooms.collect(),
            })
        });
        let running = self.clients.iter().filter(|host| host.process.is_some());
        Picture { servers: servers.collect(), clients: running.map(|host| host.told.picture()).collect() }
    }

    /// Asks the invariants about this moment, which is quiet.
    pub fn settled(&self) -> Result<(), Violation> {
        self.checker.settled(&self.picture(), self.now)
    }

    /// Asks about the leader alone.
    pub fn led(&self) -> Result<(), Violation> {
        self.checker.led(&self.picture(), self.now)
    }

    /// Whether there is nothing to break or mend.
    fn is_so(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Crash(of) => self.servers[*of].process.is_none(),
            Fault::Restart(of) => self.servers[*of].process.is_some(),
            Fault::Pause(of) => self.servers[*of].process.is_none() || self.servers[*of].paused.is_some(),
            Fault::Resume(of) => self.servers[*of].paused.is_none(),
            Fault::Heal => !self.network.is_cut(),
            Fault::Cut(_) | Fault::Roam(_) => false,
        }
    }

    /// A host's name: servers go by their ids.
    fn name(&self, host: HostId) -> String {
        match self.servers.get(host) {
            Some(server) => format!("server {}", server.id),
            None => format!("client {}", host - self.servers.len()),
        }
    }

    /// A fault as the story tells it.
    fn told(&self, fault: &Fault) -> String {
        match fault {
            Fault::Crash(of) => format!("{} crashes", self.name(*of)),
            Fault::Restart(of) => format!("{} is started", self.name(*of)),
            Fault::Cut(cut) => {
                let paths = cut.iter().map(|(from, to)| format!("{} > {}", self.name(*from), self.name(*to)));
                format!("cut: {}", paths.collect::<Vec<_>>().join(", "))
            }
            Fault::Heal => "no path is cut".to_owned(),
            Fault::Pause(of) => format!("{} stands still", self.name(*of)),
            Fault::Resume(of) => format!("{} goes on", self.name(*of)),
            Fault::Roam(of) => format!("client {of} has another address"),
        }
    }

    fn put(&mut self, at: Time, what: Happening) {
        self.queued += 1;
        self.queue.push(Reverse(Queued { at, order: self.queued, what }));
    }

    /// Who wants a tick first, and when.
    fn next_alarm(&self) -> Option<(Time, HostId)> {
        let servers = self.servers.iter().map(|host| match &host.process {
            Some(running) if host.paused.is_none() => Some(running.alarm.wake()),
            _ => None,
        });
        let clients = self.clients.iter().map(|host| host.process.as_ref().map(|running| running.alarm.wake()));
        servers.chain(clients).enumerate().filter_map(|(host, wake)| wake.map(|at| (at, host))).min()
    }

    fn crash_server(&mut self, of: usize) -> Result<(), Violation> {
        self.servers[of].paused = None;
        let Some(running) = self.servers[of].process.take() else { return Ok(()) };
        self.checker.observe(&Fact::Crashed { server: running.process }, self.now)
    }

    fn resume(&mut self, of: usize) -> Result<(), Violation> {
        let waiting = self.servers[of].paused.take().unwrap_or_default();
        waiting.into_iter().try_for_each(|(from, bytes)| self.step(of, Cause::Datagram(from, bytes)))
    }

    /// Tells the invariants whether all is well from now on, where that has changed.
    fn weather(&mut self) -> Result<(), Violation> {
        let up = self.servers.iter().all(|host| host.process.is_some() && host.paused.is_none());
        let calm = up && !self.network.is_cut();
        if calm == self.calm {
            return Ok(());
        }
        self.calm = calm;
        self.checker.observe(&Fact::Weather { calm }, self.now)
    }

    fn arrive(&mut self, from: SocketAddr, to: SocketAddr, bytes: Datagram) -> Result<(), Violation> {
        let Some(&host) = self.by_addr.get(&to) else { return Ok(()) };
        self.carried.arrived += 1;
        self.trace
            .detail(self.now, format_args!("{to} gets {} bytes {:016x} from {from}", bytes.len(), Fnv::of(&bytes)));
        if let Some(waiting) = self.servers.get_mut(host).and_then(|host| host.paused.as_mut()) {
            if waiting.len() < SOCKET_DATAGRAMS_MAX {
                waiting.push((from, bytes));
            }
            return Ok(());
        }
        self.step(host, Cause::Datagram(from, bytes))
    }

    fn command(&mut self, of: usize, command: client::Command) -> Result<(), Violation> {
        self.step(self.servers.len() + of, Cause::Command(command))
    }

    /// One step of whoever runs on `host`, if anybody does.
    fn step(&mut self, host: HostId, cause: Cause) -> Result<(), Violation> {
        if host < self.servers.len() { self.step_server(host, &cause) } else { self.step_client(host, cause) }
    }

    fn step_server(&mut self, of: HostId, cause: &Cause) -> Result<(), Violation> {
        let Some(mut running) = self.servers[of].process.take() else { return Ok(()) };
        let input = match cause {
            Cause::Tick => node::Input::Tick,
            Cause::Datagram(from, bytes) => node::Input::Datagram { from: *from, bytes },
            Cause::Command(_) => unreachable!("people talk to clients"),
        };
        running.node.handle(input, running.alarm.local(self.now));
        let ServerHost { id, addr: from, .. } = self.servers[of];
        let mut idle = true;
        while let Some(output) = running.node.poll() {
            idle = false;
            match output {
                node::Output::Send { to, bytes } => self.send(of, from, to, &Rc::new(bytes))?,
                node::Output::Broadcast { bytes } => self.broadcast(of, from, &Rc::new(bytes))?,
                node::Output::Event(event) => {
                    self.trace.story(self.now, format_args!("server {id} tells {event:?}"));
                    if let node::Event::Stopped(why) = event {
                        return Err(self.broken(format!("server {id} stops by itself: {why:?}")));
                    }
                }
            }
        }
        running.watch.look(&running.node, &mut self.checker, &mut self.trace, self.now)?;
        let ticked = matches!(cause, Cause::Tick);
        if !running.alarm.set(running.node.deadline(), self.now, ticked, idle) {
            return Err(self.broken(format!("server {id} wants ticks without end")));
        }
        self.servers[of].process = Some(running);
        Ok(())
    }

    fn step_client(&mut self, host: HostId, cause: Cause) -> Result<(), Violation> {
        let of = host - self.servers.len();
        let Some(mut running) = self.clients[of].process.take() else { return Ok(()) };
        let ticked = matches!(cause, Cause::Tick);
        let local = running.alarm.local(self.now);
        match cause {
            Cause::Tick => running.client.handle(client::Input::Tick, local),
            Cause::Command(command) => running.client.handle(client::Input::Command(command), local),
            Cause::Datagram(from, bytes) => {
                running.client.handle(client::Input::Datagram { from, bytes: &bytes }, local);
            }
        }
        let from = self.clients[of].addr;
        let mut idle = true;
        while let Some(output) = running.client.poll() {
            idle = false;
            match output {
                client::Output::Send { to, bytes } => self.send(host, from, to, &Rc::new(bytes))?,
                client::Output::Broadcast { bytes } => self.broadcast(host, from, &Rc::new(bytes))?,
                client::Output::Event(event) => {
                    self.clients[of].told.tell(&event, &mut self.checker, &mut self.trace, self.now)?;
                }
            }
        }
        self.clients[of].told.look(&running.client, &mut self.checker, self.now)?;
        if !running.alarm.set(running.client.deadline(), self.now, ticked, idle) {
            return Err(self.broken(format!("client {of} wants ticks without end")));
        }
        self.clients[of].process = Some(running);
        Ok(())
    }

    fn send(&mut self, host: HostId, from: SocketAddr, to: SocketAddr, bytes: &Datagram) -> Result<(), Violation> {
        if bytes.len() > limits::DATAGRAM_BYTES_MAX {
            return Err(self.broken(format!("{from} sends {} bytes in one datagram", bytes.len())));
        }
        self.carried.sent += 1;
        let Some(&target) = self.by_addr.get(&to) else { return Ok(()) };
        for at in self.network.carry(host, target, self.now).into_iter().flatten() {
            self.put(at, Happening::Arrival { from, to, bytes: Rc::clone(bytes) });
        }
        Ok(())
    }

    /// Every server hears a broadcast, its sender too: they share the discovery port.
    fn broadcast(&mut self, host: HostId, from: SocketAddr, bytes: &Datagram) -> Result<(), Violation> {
        (0..self.servers.len()).try_for_each(|server| self.send(host, from, self.servers[server].addr, bytes))
    }

    fn broken(&self, what: String) -> Violation {
        Violation { invariant: "world", at: self.now, what }
    }
}

/// Why somebody does a step.
#[derive(Debug)]
enum Cause {
    Tick,
    Datagram(SocketAddr, Datagram),
    Command(client::Command),
}
