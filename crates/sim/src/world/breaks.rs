//! What faults do to machines and the network.

use std::collections::VecDeque;

use hobnob_proto::{node::Stop, time::Duration};

use super::{Cause, World, operators::Retiring};
use crate::{
    disk::Disk,
    facts::{Fact, Process},
    faults::Fault,
    host::{ServerHost, Slow},
    invariants::Violation,
    link::{Cut, HostId},
    noise,
};

/// A server that was retired while it ran is followed by another so long after it has stopped.
const RETIRED_BACK: Duration = Duration::from_secs(2);

impl World {
    /// Breaks or mends something. What is in that state already stays in it.
    pub fn apply(&mut self, fault: &Fault) -> Result<(), Violation> {
        if self.is_so(fault) {
            return Ok(());
        }
        if let Some(name) = fault.name() {
            self.coverage.meet(name);
        }
        let line = self.told(fault);
        // Of one server alone, its crash is no more than that.
        let is_last = self.servers.len() > 1 && self.servers.iter().filter(|host| host.process.is_some()).count() <= 1;
        self.checker.silences.breaks(fault, is_last, self.now);
        self.trace.story(self.now, format_args!("{line}"));
        match fault {
            Fault::Crash(of) => self.crash_server(*of)?,
            Fault::Restart(of) => {
                self.departed.retain(|gone| gone.host != *of);
                self.take_retired_place(*of);
                let jump = self.servers[*of].wall.jump_secs;
                let process = self.servers[*of].start(self.replicas, &mut self.rng, self.now);
                if process.run > 1 && jump.abs() > 1 {
                    let goes_on = (jump > 0) == process.run.is_multiple_of(2);
                    let fault = if goes_on { "fault wall clock went on" } else { "fault wall clock went back" };
                    self.coverage.meet(fault);
                }
                self.checker.observe(&Fact::Started { server: process }, self.now)?;
                self.restored(*of)?;
            }
            Fault::Wipe(of) => self.wipe(*of)?,
            Fault::Rot(of) => self.rot(*of)?,
            Fault::Full(of) => {
                if let Some(disk) = &mut self.servers[*of].disk {
                    disk.fill();
                }
            }
            Fault::Room(of) => {
                let failed = self.servers[*of].disk.as_mut().is_some_and(Disk::make_room);
                if failed && self.servers[*of].process.is_some() {
                    self.crash_server(*of)?;
                    self.apply(&Fault::Restart(*of))?;
                }
            }
            Fault::Leave(of, back) => {
                self.servers[*of].leaving = Some(*back);
                self.step(*of, &Cause::Leave)?;
            }
            Fault::Replace(of, back) => {
                self.servers[*of].leaving = Some(*back);
                self.servers[*of].successor = self.new_id();
                self.step(*of, &Cause::Leave)?;
            }
            Fault::Retire(client, of) => self.retire(*client, *of)?,
            Fault::Join(client) => self.join(*client)?,
            Fault::Blurt(of, what) => {
                let line = noise::nonsense(*what, &mut self.rng);
                self.step(*of, &Cause::Blurt(line))?;
            }
            Fault::Flap(of, on) => {
                let server = self.servers[*of].id.0 as usize;
                self.network.be_prompt(*on);
                // Where much is lost, leaders come and go by themselves.
                if self.network.is_quiet() {
                    self.checker.observe(&Fact::Flaps { server, on: *on }, self.now)?;
                }
            }
            Fault::Cut(cut) => self.network.cut(cut.clone()),
            Fault::Heal => self.network.cut(Cut::new()),
            Fault::Pause(of) => {
                self.servers[*of].paused.get_or_insert_default();
                self.checker.observe(&Fact::Paused { server: self.servers[*of].process_of() }, self.now)?;
            }
            Fault::Resume(of) => self.resume(*of)?,
            Fault::Slow(of, step) => {
                if let Some(running) = &mut self.servers[*of].process {
                    running.slow =
                        Some(Slow { step: *step, free_at: self.now, ticked: false, waiting: VecDeque::new() });
                }
            }
            Fault::Fast(of) => {
                let slow = self.servers[*of].process.as_mut().and_then(|running| running.slow.take());
                let waiting = slow.into_iter().flat_map(|slow| slow.waiting);
                waiting.into_iter().try_for_each(|(from, bytes)| self.step(*of, &Cause::Datagram(from, bytes)))?;
            }
            Fault::Sleep(of) => self.clients[*of].asleep = Some(self.now),
            Fault::Wake(of, clock) => {
                let host = &mut self.clients[*of];
                let slept = host.asleep.take().map_or(Duration::ZERO, |since| self.now.since(since));
                if let Some(running) = &mut host.process {
                    running.alarm.slept(slept, clock.unwrap_or_default(), self.now);
                }
            }
            Fault::Roam(of) => {
                self.by_addr.remove(&self.clients[*of].addr);
                self.clients[*of].roam();
                self.by_addr.insert(self.clients[*of].addr, self.servers.len() + of);
            }
            Fault::RoamServer(of) => {
                self.by_addr.remove(&self.servers[*of].addr);
                self.servers[*of].roam();
                self.by_addr.insert(self.servers[*of].addr, *of);
            }
        }
        self.weather()
    }

    /// Ends every fault, and starts every server that does not run.
    pub fn heal(&mut self) -> Result<(), Violation> {
        self.apply(&Fault::Heal)?;
        self.network.heal();
        self.outsider.stop();
        self.servers.iter_mut().filter_map(|host| host.disk.as_mut()).for_each(Disk::heal);
        self.trace.story(self.now, format_args!("the network is healed"));
        for of in 0..self.servers.len() {
            self.apply(&Fault::Resume(of))?;
            self.apply(&Fault::Fast(of))?;
            self.apply(&Fault::Room(of))?;
            self.apply(&Fault::Restart(of))?;
        }
        (0..self.clients.len()).try_for_each(|of| self.apply(&Fault::Wake(of, None)))?;
        self.note_able();
        Ok(())
    }

    /// Starts a stranger's server. It is not one of those that are checked.
    pub fn start_stranger(&mut self, of: usize) {
        self.trace.story(self.now, format_args!("stranger {of} is started"));
        self.strangers[of].start(self.replicas, &mut self.rng, self.now);
    }

    /// Whether there is nothing to break or mend.
    fn is_so(&self, fault: &Fault) -> bool {
        match fault {
            Fault::Crash(of) => self.servers[*of].process.is_none(),
            Fault::Restart(of) | Fault::Retire(_, of) => self.servers[*of].process.is_some(),
            Fault::Resume(of) => self.servers[*of].paused.is_none(),
            Fault::Pause(of) | Fault::Blurt(of, _) => {
                self.servers[*of].process.is_none() || self.servers[*of].paused.is_some()
            }
            Fault::Slow(of, _) => self.servers[*of].process.is_none() || self.servers[*of].is_slow(),
            Fault::Fast(of) => !self.servers[*of].is_slow(),
            Fault::Leave(of, _) | Fault::Replace(of, _) => {
                self.servers[*of].process.is_none() || self.servers[*of].leaving.is_some()
            }
            Fault::Wipe(of) | Fault::Rot(of) => self.servers[*of].disk.is_none(),
            Fault::Full(of) => self.servers[*of].disk.as_ref().is_none_or(Disk::is_full),
            Fault::Room(of) => !self.servers[*of].disk.as_ref().is_some_and(Disk::is_full),
            Fault::Heal => !self.network.is_cut(),
            Fault::Sleep(of) => !self.clients[*of].is_up(),
            Fault::Wake(of, _) => self.clients[*of].asleep.is_none(),
            Fault::Cut(_) | Fault::Flap(..) | Fault::Roam(_) | Fault::RoamServer(_) | Fault::Join(_) => false,
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
            Fault::Wipe(of) => format!("{} crashes, and may lose its disk", self.name(*of)),
            Fault::Rot(of) => format!("{}'s disk rots", self.name(*of)),
            Fault::Full(of) => format!("{}'s disk is full", self.name(*of)),
            Fault::Room(of) => format!("{}'s disk has room again", self.name(*of)),
            Fault::Cut(cut) => {
                let paths = cut.iter().map(|(from, to)| format!("{} > {}", self.name(*from), self.name(*to)));
                format!("cut: {}", paths.collect::<Vec<_>>().join(", "))
            }
            Fault::Heal => "no path is cut".to_owned(),
            Fault::Pause(of) => format!("{} stands still", self.name(*of)),
            Fault::Resume(of) => format!("{} goes on", self.name(*of)),
            Fault::Slow(of, step) => format!("{} is slow, {} us a step", self.name(*of), step.as_micros()),
            Fault::Fast(of) => format!("{} is as fast as before", self.name(*of)),
            Fault::Leave(of, _) => format!("{} is asked to leave", self.name(*of)),
            Fault::Replace(of, _) => format!("{} is asked to leave, for another to come", self.name(*of)),
            Fault::Retire(_, of) => format!("an operator has {} retired, if it may lose its disk", self.name(*of)),
            Fault::Join(client) => format!("an operator at client {client} joins the other cluster, if there is one"),
            Fault::Blurt(of, what) => format!("{} says {what:?} to all", self.name(*of)),
            Fault::Flap(of, true) => format!("{} begins to be killed again and again", self.name(*of)),
            Fault::Flap(of, false) => format!("{} is left alone", self.name(*of)),
            Fault::Sleep(of) => format!("client {of}'s machine falls asleep"),
            Fault::Wake(of, Some(clock)) => format!("client {of}'s machine wakes {} s later", clock.as_secs()),
            Fault::Wake(of, None) => format!("client {of}'s machine wakes, and its clock stood still"),
            Fault::Roam(of) => format!("client {of} has another address"),
            Fault::RoamServer(of) => format!("{} has another address", self.name(*of)),
        }
    }

    pub(super) fn crash_server(&mut self, of: usize) -> Result<(), Violation> {
        self.servers[of].paused = None;
        (self.servers[of].leaving, self.servers[of].successor) = (None, None);
        let Some(running) = self.servers[of].process.take() else { return Ok(()) };
        self.servers[of].ended = Some(running.node.origin());
        self.crash_disk(of)?;
        if self.servers.len() > 1 && self.servers.iter().all(|host| host.process.is_none()) {
            self.coverage.meet("fault power off");
        }
        self.part_with_server(&running);
        self.checker.observe(&Fact::Crashed { server: running.process }, self.now)
    }

    /// A server has stopped by itself: after it was asked to, nothing else is fine.
    pub(super) fn stopped(&mut self, host: HostId, process: Process, why: &Stop) -> Result<(), Violation> {
        let Some(of) = self.servers.get(host).map(|_| host) else { return Ok(()) };
        if *why == Stop::Retired
            && let Some(Retiring { successor, .. }) = self.servers[of].retiring.take()
        {
            // It came back before its cluster was asked to forget it.
            self.servers[of].leaving = Some(RETIRED_BACK);
            self.servers[of].successor = Some(successor);
        }
        let ServerHost { id, leaving, .. } = &mut self.servers[of];
        let (id, Some(back)) = (*id, leaving.take()) else {
            let id = self.servers[of].id;
            return Err(self.broken(format!("server {id} stops by itself: {why:?}")));
        };
        self.crash_disk(of)?;
        let again = self.now + back;
        self.schedule(again, super::Task::Fault(Fault::Restart(of)));
        self.trace.story(self.now, format_args!("server {id} has stopped: {why:?}"));
        if *why == Stop::Left {
            self.checker.observe(&Fact::Left { server: process }, self.now)?;
        } else {
            self.checker.observe(&Fact::Crashed { server: process }, self.now)?;
            if *why != Stop::Retired {
                self.servers[of].successor = None;
            }
        }
        if let Some(successor) = self.servers[of].successor.take()
            && self.empty_disk(of)?
        {
            self.servers[of].replace(successor);
        }
        Ok(())
    }

    fn resume(&mut self, of: usize) -> Result<(), Violation> {
        self.checker.observe(&Fact::Resumed { server: self.servers[of].process_of() }, self.now)?;
        let mut waiting = self.servers[of].paused.take().unwrap_or_default();
        // A process that is stopped finds what has come meanwhile; one whose whole machine slept does not.
        if self.rng.below(2) == 0 {
            waiting.clear();
            self.step(of, &Cause::Tick)?;
        }
        waiting.into_iter().try_for_each(|(from, bytes)| self.step(of, &Cause::Datagram(from, bytes)))?;
        self.act_disk(of)
    }

    /// Who could be served from now on: where the network is whole and loses little, and a server runs.
    pub(super) fn note_able(&mut self) {
        let runs = self.servers.iter().any(|host| host.process.is_some() && host.paused.is_none());
        let is_fast = !self.servers.iter().any(ServerHost::is_slow);
        let is_whole = runs && is_fast && !self.network.is_cut() && self.network.is_quiet();
        for (of, client) in self.clients.iter().enumerate() {
            self.checker.silences.set_able(of, is_whole && client.is_up(), self.now);
        }
    }

    /// Tells the invariants whether all is well from now on, where that has changed.
    fn weather(&mut self) -> Result<(), Violation> {
        let up = self.servers.iter().all(|host| host.process.is_some() && host.paused.is_none() && !host.is_slow());
        let calm = up && !self.network.is_cut();
        self.note_able();
        if calm == self.calm {
            return Ok(());
        }
        self.calm = calm;
        self.checker.observe(&Fact::Weather { calm }, self.now)
    }
}
