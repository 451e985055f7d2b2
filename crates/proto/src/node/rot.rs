//! Entries that are not what they were, or that are two: rotten ones are fetched from a peer, and of two contents with one
//! name the second is kept aside.
//!
//! A rotten entry is no copy: it is not served, and what we say that we have kept ends below it until it is repaired. What
//! a peer was told before, it takes back only with our next session.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

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
const QUARANTINED_MAX: usize = 256;

/// What is asked of whom.
#[derive(Debug, Default)]
pub(super) struct Mending {
    /// Whom each room was asked at last.
    asked: BTreeMap<RoomName, ServerId>,
    /// The first and the last entry that were asked for: once all peers were, it goes on beyond the last.
    last: BTreeMap<RoomName, [(Origin, u64); 2]>,
    /// What was kept aside: a conflict may come again and again.
    quarantined: BTreeSet<(RoomName, Origin, u64, [u8; 16])>,
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
        let asked = self.mending.asked.get(name).copied().unwrap_or(ServerId(0));
        let peers: Vec<_> = self.heartbeat.live().map(|peer| peer.id).collect();
        let further = peers.iter().filter(|id| **id > asked).min();
        let last = self.mending.last.get(name).copied();
        let want = match (last, further) {
            (Some([first, _]), Some(_)) => next_from(&room.rotten, Bound::Included(first)),
            (Some([_, last]), None) => next_from(&room.rotten, Bound::Excluded(last)),
            (None, _) => next_from(&room.rotten, Bound::Unbounded),
        };
        let (Some(first), Some(last)) = (want.first(), want.last()) else {
            self.mending.asked.remove(name);
            self.mending.last.remove(name);
            return;
        };
        self.mending.last.insert(name.clone(), [(first.0, first.1), (last.0, last.1)]);
        let peer = further.or(peers.iter().min()).copied();
        self.ask_to_mend(name, want, peer);
    }

    fn ask_to_mend(&mut self, name: &RoomName, want: Vec<(Origin, u64, u64)>, peer: Option<ServerId>) {
        if let Some(next) = peer {
            self.mending.asked.insert(name.clone(), next);
            self.tell(next, &Frame::Pull(Pull { room: name.clone(), id: PULL_ID, max: want.len() as u32, want }));
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
        let known = (entry.room.clone(), entry.origin, entry.seq, entry.hash.0);
        if self.mending.quarantined.len() >= QUARANTINED_MAX || !self.mending.quarantined.insert(known) {
            return;
        }
        self.event(Event::Conflict { room: entry.room.clone(), origin: entry.origin, seq: entry.seq });
        self.persist(Write::Quarantine(entry.into()));
    }
}

/// Which rotten entries are asked for, beginning there, and from the first again after those: each by itself.
fn next_from(rotten: &BTreeSet<(Origin, u64)>, from: Bound<(Origin, u64)>) -> Vec<(Origin, u64, u64)> {
    let beyond = rotten.range((from, Bound::Unbounded));
    let before = rotten.iter().take_while(|dot| match from {
        Bound::Included(first) => **dot < first,
        Bound::Excluded(last) => **dot <= last,
        Bound::Unbounded => false,
    });
    beyond.chain(before).take(RANGES_MAX).map(|&(origin, seq)| (origin, seq, seq)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Boot;

    #[test]
    fn what_nobody_has_does_not_keep_others_from_being_asked_for() {
        let origin = Origin { id: ServerId(1), boot: Boot(1) };
        let rotten: BTreeSet<_> = (1..=30).map(|seq| (origin, seq)).collect();
        let check = |from: Bound<u64>, expected: &[u64]| {
            let next = next_from(&rotten, from.map(|seq| (origin, seq)));
            assert_eq!(next.iter().map(|(_, seq, _)| *seq).collect::<Vec<_>>(), expected, "{from:?}");
        };
        check(Bound::Unbounded, &(1..=12).collect::<Vec<_>>());
        check(Bound::Included(1), &(1..=12).collect::<Vec<_>>());
        check(Bound::Excluded(12), &(13..=24).collect::<Vec<_>>());
        check(Bound::Excluded(24), &(25..=30).chain(1..=6).collect::<Vec<_>>());
        check(Bound::Excluded(30), &(1..=12).collect::<Vec<_>>());
        assert_eq!(next_from(&BTreeSet::new(), Bound::Excluded((origin, 3))), []);
    }
}
