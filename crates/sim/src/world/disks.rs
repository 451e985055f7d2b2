//! What the disks of servers do, and what is done to them.

use hobnob_proto::{
    ids::{Origin, RoomName},
    store::Write,
    time::Time,
};

use super::{Cause, Happening, World};
use crate::{
    dice::Dice as _,
    facts::{Dot, Fact, dot},
    invariants::Violation,
    link::HostId,
};

impl World {
    /// A server's disk has something to do: what it says is news to the process.
    pub(super) fn act_disk(&mut self, of: HostId) -> Result<(), Violation> {
        let host = &mut self.servers[of];
        let Some(disk) = &mut host.disk else { return Ok(()) };
        disk.woken = None;
        if host.paused.is_some() || host.process.is_none() {
            return Ok(());
        }
        let (synced, says) = disk.act(self.now);
        self.synced(of, &synced)?;
        let run = self.servers[of].run();
        for says in says {
            if self.servers[of].run() == run {
                self.step(of, &Cause::Disk(says))?;
            }
        }
        self.wake_disk(of);
        Ok(())
    }

    /// Puts the next thing that a disk does in the queue.
    pub(super) fn wake_disk(&mut self, of: HostId) {
        let Some(disk) = self.servers.get_mut(of).and_then(|host| host.disk.as_mut()) else { return };
        if let Some(due) = disk.due().filter(|due| disk.woken.is_none_or(|woken| *due < woken)) {
            disk.woken = Some(due);
            self.put(due.max(self.now), Happening::Disk(of));
        }
    }

    /// Tells the invariants what is on a disk from now on.
    fn synced(&mut self, of: HostId, writes: &[Write]) -> Result<(), Violation> {
        let server = self.servers[of].process_of();
        for write in writes {
            self.checker.observe(&Fact::Synced { server, write }, self.now)?;
            self.gives_up(of, write)?;
        }
        let refused = self.servers[of].disk.as_ref().map_or(0, |disk| disk.synced().refused());
        if refused > 0 {
            return Err(self.broken(format!("server {}: {refused} writes break the contract", server.of)));
        }
        Ok(())
    }

    /// Nothing is given up for lost that another server that runs has on its disk (a part of invariant 16).
    fn gives_up(&self, of: HostId, write: &Write) -> Result<(), Violation> {
        let Write::Lost { room, origin, seq } = write else { return Ok(()) };
        let others = self.servers.iter().enumerate().filter(|(id, host)| *id != of && host.process.is_some());
        let has_it = |disk: &crate::disk::Disk| disk.synced().get(room, *origin, *seq).is_some();
        let holder = others.filter(|(_, host)| host.disk.as_ref().is_some_and(has_it)).map(|(_, host)| host.id).next();
        match holder.filter(|_| !self.split) {
            Some(holder) => {
                let server = self.servers[of].id;
                Err(self.broken(format!("server {server} gives up {room} {origin}:{seq}, which server {holder} has")))
            }
            None => Ok(()),
        }
    }

    /// A process has ended: of what was not synced, something may have reached the disk.
    pub(super) fn crash_disk(&mut self, of: HostId) -> Result<(), Violation> {
        let Some(disk) = &mut self.servers[of].disk else { return Ok(()) };
        let synced = disk.crash();
        self.synced(of, &synced)
    }

    /// A server that has just been started holds what is on its disk.
    pub(super) fn restored(&mut self, of: HostId) -> Result<(), Violation> {
        let server = self.servers[of].process_of();
        let Some(disk) = &self.servers[of].disk else { return Ok(()) };
        let model = disk.synced();
        for room in model.rooms() {
            let held = model.held(room);
            self.checker.observe(&Fact::Restored { server, room, held: &held }, self.now)?;
            for kept in model.entries(room) {
                self.checker.observe(&Fact::Held { server, own: false, entry: &kept.entry }, self.now)?;
            }
        }
        Ok(())
    }

    /// A server ends, and its disk is replaced by an empty one; only the former, where the last loss of a disk is not made
    /// good.
    pub(super) fn wipe(&mut self, of: HostId) -> Result<(), Violation> {
        self.crash_server(of)?;
        self.empty_disk(of).map(drop)
    }

    /// Where there is a disk, it is replaced by an empty one. `false`: the last loss of a disk is not made good.
    pub(super) fn empty_disk(&mut self, of: HostId) -> Result<bool, Violation> {
        let server = self.servers[of].process_of();
        if self.servers[of].disk.is_none() {
            return Ok(true);
        }
        if !self.may_lose() {
            return Ok(false);
        }
        let Some(disk) = &mut self.servers[of].disk else { return Ok(true) };
        let model = disk.synced();
        self.weak = model.rooms().flat_map(|room| model.entries(room)).map(|kept| dot(&kept.entry)).collect();
        disk.wipe();
        self.trace.story(self.now, format_args!("server {} has an empty disk", server.of));
        self.checker.observe(&Fact::Wiped { server }, self.now)?;
        Ok(true)
    }

    /// An entry on a disk rots, if another disk has it.
    pub(super) fn rot(&mut self, of: HostId) -> Result<(), Violation> {
        if !self.may_lose() {
            return Ok(());
        }
        let server = self.servers[of].process_of();
        let Some(disk) = &self.servers[of].disk else { return Ok(()) };
        let model = disk.synced();
        let dots: Vec<_> = model.rooms().flat_map(|room| model.entries(room)).map(|kept| dot(&kept.entry)).collect();
        let dots: Vec<_> = dots.into_iter().filter(|dot| self.copies(dot) > 1).collect();
        if dots.is_empty() {
            return Ok(());
        }
        let dot = dots[self.rng.index(dots.len())].clone();
        let now = self.now;
        if let Some(disk) = &mut self.servers[of].disk {
            disk.rot(&dot, now);
        }
        let (room, origin, seq) = &dot;
        self.trace.story(now, format_args!("server {}: {room} {origin}:{seq} is rotten", server.of));
        self.checker.observe(&Fact::Rotten { server, dot: dot.clone() }, now)?;
        self.weak = vec![dot];
        self.wake_disk(of);
        Ok(())
    }

    /// Whether what the last loss of a disk has taken is on two disks again: one more may be lost then.
    fn may_lose(&self) -> bool {
        self.replicas > 1 && self.weak.iter().all(|dot| self.copies(dot) > 1)
    }

    /// On how many disks an entry is.
    fn copies(&self, (room, origin, seq): &Dot) -> usize {
        let on = |room: &RoomName, origin: Origin, seq: u64| {
            let disks = self.servers.iter().filter_map(|host| host.disk.as_ref());
            disks.filter(|disk| disk.synced().get(room, origin, seq).is_some()).count()
        };
        on(room, *origin, *seq)
    }

    /// The disks that hold rotten entries, for a look at a quiet moment.
    pub(super) fn rotten(&self, of: HostId) -> bool {
        let disk = self.servers[of].disk.as_ref().map(crate::disk::Disk::synced);
        disk.is_some_and(|model| model.rooms().any(|room| model.rotten(room).next().is_some()))
    }

    /// Carries a write or a question to the disk.
    pub(super) fn use_disk(&mut self, host: HostId, what: ToDisk, now: Time) -> Result<(), Violation> {
        let Some(disk) = self.servers.get_mut(host).and_then(|host| host.disk.as_mut()) else {
            return Err(self.broken("a server without a disk uses one".to_owned()));
        };
        match what {
            ToDisk::Write(write) => disk.write(write, now),
            ToDisk::Read(read) => disk.read(read, now),
        }
        Ok(())
    }
}

/// What a process wants of its disk.
#[derive(Debug)]
pub(super) enum ToDisk {
    Write(Write),
    Read(hobnob_proto::store::Read),
}
