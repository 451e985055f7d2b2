//! Entries that are not what they were, or that are two: rotten ones are fetched from a peer, and of two contents with one
//! name the second is kept aside.
//!
//! A rotten entry is no copy: it is not served, and what we say that we have kept ends below it until it is repaired. What
//! a peer was told before, it takes back only with our next session.

use std::{borrow::Cow, collections::BTreeMap};

use super::{Event, Node, Timer, rooms::Room};
use crate::{
    ids::{Origin, RoomName, ServerId},
    log::{Entry, VersionVector, room::Kept},
    store::Write,
    time::Duration,
    wire::{Frame, frame::Pull},
};

/// Rotten entries of one room that are remembered: those beyond are found again.
const ROTTEN_MAX: usize = 1_024;
/// How often they are asked for, each time at the next peer.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// The number of pulls for them: a receiver counts from 1.
const PULL_ID: u32 = u32::MAX;
/// Ranges in one pull.
const RANGES_MAX: usize = 12;
/// Contents kept aside in one run; more are only counted.
const QUARANTINED_MAX: u32 = 256;

/// What is asked of whom.
#[derive(Debug, Default)]
pub(super) struct Mending {
    /// Whom each room was asked at last.
    asked: BTreeMap<RoomName, ServerId>,
    quarantined: u32,
}

impl Room {
    /// What we say that we have kept.
    pub(super) fn told_durable(&self) -> VersionVector {
        self.told().into_owned()
    }

    /// The same, which costs nothing where nothing is rotten.
    pub(super) fn told(&self) -> Cow<'_, VersionVector> {
        if self.rotten.is_empty() {
            return Cow::Borrowed(self.durable());
        }
        Cow::Owned(self.durable().iter().map(|(origin, _)| (origin, self.told_durable_of(origin))).collect())
    }

    /// The same of one origin.
    pub(super) fn told_durable_of(&self, origin: Origin) -> u64 {
        let rotten = self.rotten.range((origin, 0)..=(origin, u64::MAX)).next();
        let durable = self.durable().get(origin);
        rotten.map_or(durable, |(_, seq)| durable.min(seq - 1))
    }
}

impl Node {
    /// The store has found that an entry is not what was written.
    pub(super) fn on_rotten(&mut self, name: &RoomName, origin: Origin, seq: u64) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        if !room.held().holds(origin, seq) || room.log.floors().holds(origin, seq) {
            return;
        }
        if let Some(kept) = room.log.get(origin, seq).cloned() {
            self.count("entry_rotten");
            return self.repair(kept);
        }
        if room.rotten.len() >= ROTTEN_MAX || !room.rotten.insert((origin, seq)) {
            return;
        }
        self.count("entry_rotten");
        self.timers.hasten(Timer::Mend(name.clone()), self.now);
    }

    /// Asks the next peer for what is rotten.
    pub(super) fn mend(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let floors = room.log.floors().clone();
        room.rotten.retain(|(origin, seq)| !floors.holds(*origin, *seq));
        let want: Vec<_> = room.rotten.iter().take(RANGES_MAX).map(|&(origin, seq)| (origin, seq, seq)).collect();
        if want.is_empty() {
            self.mending.asked.remove(name);
            return;
        }
        let last = self.mending.asked.get(name).copied().unwrap_or(ServerId(0));
        let peers: Vec<_> = self.heartbeat.live().map(|peer| peer.id).collect();
        if let Some(next) = peers.iter().filter(|id| **id > last).min().or(peers.iter().min()) {
            self.mending.asked.insert(name.clone(), *next);
            self.tell(*next, &Frame::Pull(Pull { room: name.clone(), id: PULL_ID, max: want.len() as u32, want }));
        }
        self.timers.set(Timer::Mend(name.clone()), self.now + ASK_EVERY);
    }

    /// An intact entry has come from a server: whether it was only for this.
    pub(super) fn mends(&mut self, entry: &Entry) -> bool {
        let Some(room) = self.rooms.get_mut(&entry.room) else { return false };
        let dot = (entry.origin, entry.seq);
        if room.rotten.remove(&dot) {
            if room.rotten.is_empty() {
                self.timers.clear(&Timer::Mend(entry.room.clone()));
                self.mending.asked.remove(&entry.room);
            } else {
                self.timers.hasten(Timer::Mend(entry.room.clone()), self.now);
            }
            self.repair(entry.clone().into());
            return true;
        }
        let Some(held) = room.log.get(dot.0, dot.1).map(|kept| kept.entry.hash) else { return false };
        if held != entry.hash {
            self.quarantine(entry.clone());
        }
        held != entry.hash
    }

    fn repair(&mut self, kept: Kept) {
        self.count("entry_repaired");
        self.persist(Write::Repair(kept));
    }

    /// The name of this valid entry belongs to another content here: it goes no further.
    pub(super) fn quarantine(&mut self, entry: Entry) {
        self.count("entry_conflict");
        if self.mending.quarantined >= QUARANTINED_MAX {
            return;
        }
        self.mending.quarantined += 1;
        self.event(Event::Conflict { room: entry.room.clone(), origin: entry.origin, seq: entry.seq });
        self.persist(Write::Quarantine(entry.into()));
    }
}
