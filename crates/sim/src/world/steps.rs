//! One step of a process: what happens to it, what it sends and tells, and what is seen of it.

use std::net::SocketAddr;

use hobnob_proto::{
    client,
    ids::DeviceId,
    limits, node,
    wire::{frame::Refusal, packet::Packet},
};

use super::{Gone, Happening, World, disks::ToDisk};
use crate::{
    disk::{Disk, Says},
    facts::Fact,
    host::{Datagram, SOCKET_DATAGRAMS_MAX, ServerHost, ServerProcess},
    invariants::Violation,
    link::HostId,
};

/// Why somebody does a step.
#[derive(Debug)]
pub(super) enum Cause {
    Tick,
    /// A datagram, and from whom.
    Datagram(SocketAddr, Datagram),
    Command(client::Command),
    Leave,
    Disk(Says),
    /// A server says this line to all.
    Blurt(Vec<u8>),
}

impl World {
    /// A datagram arrives at an address, which was that of `target` when it was sent.
    pub(super) fn arrive(
        &mut self,
        (from, to): (SocketAddr, SocketAddr),
        target: HostId,
        bytes: Datagram,
    ) -> Result<(), Violation> {
        let stayed = (self.addr(target) == to).then_some(target);
        let Some(host) = stayed.or_else(|| self.by_addr.get(&to).copied()) else { return Ok(()) };
        self.carried.arrived += 1;
        self.trace.packet(self.now, (from, to), &bytes);
        if let Some(waiting) = self.servers.get_mut(host).and_then(|host| host.paused.as_mut()) {
            if waiting.len() < SOCKET_DATAGRAMS_MAX {
                waiting.push((from, bytes));
            }
            return Ok(());
        }
        let running = self.servers.get_mut(host).and_then(|host| host.process.as_mut());
        let bytes = match running {
            Some(running) => running.keep_waiting(from, bytes, self.now),
            None => Some(bytes),
        };
        let Some(bytes) = bytes else {
            self.wakes[host] = self.wake_of(host);
            return Ok(());
        };
        self.step(host, &Cause::Datagram(from, bytes))
    }

    /// It is time for whoever runs on `host` to do something.
    pub(super) fn wake(&mut self, host: HostId) -> Result<(), Violation> {
        let running = self.servers.get_mut(host).and_then(|host| host.process.as_mut());
        let waiting = running.and_then(|running| running.next_waiting(self.now));
        self.step(host, &waiting.map_or(Cause::Tick, |(from, bytes)| Cause::Datagram(from, bytes)))
    }

    pub(super) fn command(&mut self, of: usize, command: client::Command) -> Result<(), Violation> {
        self.step(self.servers.len() + of, &Cause::Command(command))
    }

    /// One step of whoever runs on `host`, if anybody does.
    pub(super) fn step(&mut self, host: HostId, cause: &Cause) -> Result<(), Violation> {
        let clients = self.servers.len()..self.servers.len() + self.clients.len();
        let done = if clients.contains(&host) { self.step_client(host, cause) } else { self.step_server(host, cause) };
        self.wakes[host] = self.wake_of(host);
        done
    }

    /// A server's machine, be it one of ours or a stranger's.
    fn server_mut(&mut self, host: HostId) -> &mut ServerHost {
        let before = self.servers.len() + self.clients.len();
        if host < self.servers.len() { &mut self.servers[host] } else { &mut self.strangers[host - before] }
    }

    fn step_server(&mut self, host: HostId, cause: &Cause) -> Result<(), Violation> {
        let now = self.now;
        let machine = self.server_mut(host);
        let (id, from, run) = (machine.id, machine.addr, machine.run());
        let Some(mut running) = machine.process.take() else { return Ok(()) };
        running.takes_time(now);
        let input = match cause {
            Cause::Tick => node::Input::Tick,
            Cause::Datagram(from, bytes) => node::Input::Datagram { from: *from, bytes },
            Cause::Leave => node::Input::Leave,
            Cause::Disk(Says::Durable(through)) => node::Input::Durable { through: *through },
            Cause::Disk(Says::Answer(answer)) => node::Input::Answer(answer),
            Cause::Disk(Says::Unwritable) => node::Input::Unwritable,
            Cause::Blurt(line) => {
                running.node.blurt(line);
                node::Input::Tick
            }
            Cause::Command(_) => unreachable!("people talk to clients"),
        };
        let taken = running.node.packets_taken();
        running.node.handle(input, running.alarm.local(now));
        let (mut idle, mut stopped) = (true, None);
        while let Some(output) = running.node.poll() {
            idle = false;
            match output {
                node::Output::Send { to, bytes } => {
                    let bytes = self.datagram(bytes);
                    self.send(host, from, to, &bytes)?;
                }
                node::Output::Broadcast { bytes } => self.broadcast(host, from, &Datagram::new(bytes))?,
                node::Output::Persist(write) => self.use_disk(host, ToDisk::Write(write), now)?,
                node::Output::Read(read) => self.use_disk(host, ToDisk::Read(read), now)?,
                node::Output::Event(event) => {
                    self.trace.story(now, format_args!("server {id} tells {event:?}"));
                    // A run that has ended, or a boot that its server has given up, is dead.
                    let lives =
                        |peer| self.servers.iter().flat_map(|host| &host.process).any(|of| of.node.origin() == peer);
                    if let node::Event::PeerDown { peer, .. } = event
                        && lives(peer)
                    {
                        self.checker.observe(&Fact::Blames { server: running.process, peer }, now)?;
                    }
                    if let node::Event::Stopped(why) = event {
                        stopped = Some(why);
                    }
                }
            }
        }
        self.wake_disk(host);
        let packets = running.node.packets_taken() - taken;
        self.opened(host, run, cause, packets)?;
        self.look(host, &mut running)?;
        self.came_over(&running);
        if let Some(why) = stopped {
            if why == node::Stop::Left {
                self.departed.push(Gone { who: running.process, host, origin: running.node.origin() });
            }
            if host < self.servers.len() {
                self.part_with_server(&running);
            }
            return self.stopped(host, running.process, &why);
        }
        let ticked = matches!(cause, Cause::Tick);
        if !running.alarm.set(running.node.deadline(), now, ticked, idle) {
            return Err(self.broken(format!("server {id} wants ticks without end")));
        }
        self.server_mut(host).process = Some(running);
        Ok(())
    }

    /// What has changed in a server: all that is checked of our own, and of a stranger only whom it takes for a member.
    fn look(&mut self, host: HostId, running: &mut ServerProcess) -> Result<(), Violation> {
        let (now, ours) = (self.now, host < self.servers.len());
        let ServerProcess { process, node, watch, .. } = running;
        if !self.strangers.is_empty() {
            watch.look_at_members(node, !ours, &mut self.checker, now)?;
        }
        if !ours {
            return Ok(());
        }
        let disk = self.servers[host].disk.as_ref().map(Disk::synced);
        watch.look((node, disk), &mut self.checker, (&mut self.trace, &mut self.coverage), now)?;
        for Gone { who, origin, .. } in &self.departed {
            let has_left = (origin.id, origin.boot);
            if node.members().any(|member| member.left && (member.id, member.boot) == has_left) {
                self.checker.observe(&Fact::KnowsOf { server: *process, departed: *who }, now)?;
            }
        }
        Ok(())
    }

    fn step_client(&mut self, host: HostId, cause: &Cause) -> Result<(), Violation> {
        let of = host - self.servers.len();
        if self.clients[of].asleep.is_some() {
            return Ok(());
        }
        let Some(mut running) = self.clients[of].process.take() else { return Ok(()) };
        let run = self.clients[of].told.process().run;
        let ticked = matches!(cause, Cause::Tick);
        let local = running.alarm.local(self.now);
        let taken = running.client.packets_taken();
        match cause {
            Cause::Tick => running.client.handle(client::Input::Tick, local),
            Cause::Command(command) => running.client.handle(client::Input::Command(command.clone()), local),
            Cause::Datagram(from, bytes) => {
                running.client.handle(client::Input::Datagram { from: *from, bytes }, local);
            }
            Cause::Leave | Cause::Blurt(_) | Cause::Disk(_) => unreachable!("servers leave, say and have disks"),
        }
        let from = self.clients[of].addr;
        let mut idle = true;
        loop {
            let mut clashed = false;
            while let Some(output) = running.client.poll() {
                idle = false;
                match output {
                    client::Output::Send { to, bytes } => {
                        let bytes = self.datagram(bytes);
                        self.send(host, from, to, &bytes)?;
                    }
                    client::Output::Broadcast { bytes } => self.broadcast(host, from, &Datagram::new(bytes))?,
                    client::Output::Event(event) => {
                        clashed |= matches!(event, client::Event::Refused { why: Refusal::Clash, .. });
                        self.clients[of].told.tell(&event, &mut self.checker, &mut self.trace, self.now)?;
                        self.operator_hears(of, &event)?;
                    }
                }
            }
            if !clashed {
                break;
            }
            let device = DeviceId(self.rng.u64());
            self.trace.story(self.now, format_args!("client {of} is another device"));
            self.clients[of].told.new_device(device, &mut self.checker, self.now)?;
            running.client.handle(client::Input::Command(client::Command::NewDevice { device }), local);
        }
        let packets = running.client.packets_taken() - taken;
        self.opened(host, run, cause, packets)?;
        self.clients[of].told.look(&running.client, &mut self.checker, self.now)?;
        if !running.alarm.set(running.client.deadline(), self.now, ticked, idle) {
            return Err(self.broken(format!("client {of} wants ticks without end")));
        }
        self.clients[of].process = Some(running);
        Ok(())
    }

    /// Whoever runs on `host` has opened so many packets in one step.
    fn opened(&mut self, host: HostId, run: u32, cause: &Cause, packets: u64) -> Result<(), Violation> {
        if packets == 0 {
            return Ok(());
        }
        let (packet, sealed) = match cause {
            Cause::Datagram(_, bytes) => (Some(bytes.hash()), bytes.number()),
            _ => (None, None),
        };
        self.checker.observe(&Fact::Opened { at: (host, run), packet, sealed, packets }, self.now)
    }

    fn send(&mut self, host: HostId, from: SocketAddr, to: SocketAddr, bytes: &Datagram) -> Result<(), Violation> {
        if bytes.len() > limits::DATAGRAM_BYTES_MAX {
            return Err(self.broken(format!("{from} sends {} bytes in one datagram", bytes.len())));
        }
        self.carried.sent += 1;
        let Some(&target) = self.by_addr.get(&to) else { return Ok(()) };
        if bytes.number().is_some() {
            self.note_sealed(host, target)?;
        }
        for at in self.network.carry(host, target, self.now).into_iter().flatten() {
            self.put(at, Happening::Arrival { from, to, target, bytes: bytes.clone() });
        }
        let hosts = self.servers.len() + self.clients.len() + self.strangers.len();
        for stray in self.outsider.hear(from, target, bytes, hosts, self.now) {
            self.checker.observe(&Fact::Stray, self.now)?;
            let to = self.addr(stray.to);
            for at in self.network.carry(host, stray.to, self.now).into_iter().flatten() {
                let (from, target) = (stray.from, stray.to);
                self.put(at, Happening::Arrival { from, to, target, bytes: stray.bytes.clone() });
            }
        }
        Ok(())
    }

    /// A datagram that somebody makes just now.
    fn datagram(&mut self, bytes: Vec<u8>) -> Datagram {
        if !matches!(Packet::parse(&bytes), Ok(Packet::Sealed { .. })) {
            return Datagram::new(bytes);
        }
        self.sealed += 1;
        Datagram::sealed(bytes, self.sealed - 1)
    }

    /// Says so where a sealed packet goes to a server that has left. For whom it was sealed cannot be seen from outside, so
    /// nothing is said where it may have been for another that an outsider made seem to be there.
    fn note_sealed(&mut self, host: HostId, target: HostId) -> Result<(), Violation> {
        if self.outsider.misleads(self.now) {
            return Ok(());
        }
        let gone = self.departed.iter().find(|gone| gone.host == target).map(|gone| gone.who);
        let Some((departed, machine)) = gone.zip(self.servers.get(host)) else { return Ok(()) };
        let server = machine.process_of();
        self.checker.observe(&Fact::SealedFor { server, departed }, self.now)
    }

    fn addr(&self, host: HostId) -> SocketAddr {
        let (clients, strangers) = (self.servers.len(), self.servers.len() + self.clients.len());
        if host < clients {
            self.servers[host].addr
        } else if host < strangers {
            self.clients[host - clients].addr
        } else {
            self.strangers[host - strangers].addr
        }
    }

    /// Every server hears a broadcast, its sender too: they share the discovery port.
    fn broadcast(&mut self, host: HostId, from: SocketAddr, bytes: &Datagram) -> Result<(), Violation> {
        let servers = self.servers.iter().chain(&self.strangers);
        let addrs: Vec<_> = servers.map(|server| server.addr).collect();
        addrs.into_iter().try_for_each(|to| self.send(host, from, to, bytes))
    }
}
