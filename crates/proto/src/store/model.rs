//! A store in memory: what a disk is to the protocol, and nothing else. Other stores are held against it, and a
//! simulator's disks are made of it.
//!
//! It does at once what it is told: whoever needs a disk that syncs later, or loses something, keeps the writes back.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, DEVICE_POSTS_MAX, Found, Head, LOST_MAX, LOST_TIME_WITHIN, Read, Restored, What, Write};
use crate::{
    hlc::Hlc,
    ids::{Boot, ClusterId, DeviceId, Origin, PersonId, RoomName, ServerId},
    log::{Entry, VersionVector, entry::DisplayOrder, room::Kept},
    planted::{self, Bug},
    rng::Rng,
    wire::frame::{Member, RoomRecord},
};

/// Everything that a server has kept.
#[derive(Clone, Debug, Default)]
pub struct Model {
    id: Option<ServerId>,
    boot: Option<Boot>,
    cluster: Option<ClusterId>,
    term: u64,
    members: BTreeMap<ServerId, Member>,
    rooms: BTreeMap<RoomName, RoomRecord>,
    logs: BTreeMap<RoomName, Log>,
    quarantine: Vec<Kept>,
    refused: u64,
}

/// What is kept of a room.
#[derive(Clone, Debug, Default)]
struct Log {
    parts: BTreeMap<Origin, BTreeMap<u64, Slot>>,
    /// What is held, or below a floor.
    held: VersionVector,
    floors: VersionVector,
    display: BTreeSet<DisplayOrder>,
    /// The entries of each post; the first is canonical.
    posts: BTreeMap<(PersonId, DeviceId, u64), BTreeSet<DisplayOrder>>,
    newest: Option<DisplayOrder>,
}

#[derive(Clone, Debug)]
struct Slot {
    /// What was written: a marker, where that came from another server.
    kept: Kept,
    rotten: bool,
    /// The marker that is found where it is rotten.
    lost: Option<Kept>,
}

impl Slot {
    fn new(kept: &Kept) -> Self {
        Self { kept: kept.clone(), rotten: false, lost: None }
    }

    /// What is found there, marker or not; `None`: it is rotten.
    fn found(&self) -> Option<&Kept> {
        if self.rotten { self.lost.as_ref() } else { Some(&self.kept) }
    }
}

impl Model {
    /// Does what `write` says. What breaks its contract (an entry with a hole before it, or with another content than
    /// the one held) is not done, and counted: [`Model::refused`].
    pub fn apply(&mut self, write: &Write) {
        let done = match write {
            Write::Entry(kept) => self.log_mut(&kept.entry.room).insert(kept),
            Write::Repair(kept) => self.log_mut(&kept.entry.room).repair(kept),
            Write::Lost { room, origin, seq } => self.log_mut(room).lose(room, *origin, *seq),
            Write::Quarantine(kept) => {
                self.quarantine.push(kept.clone());
                true
            }
            Write::Room(record) => {
                self.rooms.insert(record.room.clone(), record.clone());
                true
            }
            Write::Term(term) => {
                self.term = *term;
                true
            }
            Write::Member(member) => {
                self.members.insert(member.id, member.clone());
                true
            }
            Write::Me(me) => {
                (self.id, self.boot) = (Some(me.id), self.boot.max(Some(me.boot)));
                true
            }
            Write::Cluster(cluster) => {
                self.cluster = Some(*cluster);
                (self.term, self.rooms, self.members) = (0, BTreeMap::new(), BTreeMap::new());
                true
            }
            Write::Floors { room, floors } => {
                self.log_mut(room).trim(floors);
                true
            }
        };
        self.refused += u64::from(!done);
    }

    /// What it says to a question.
    pub fn answer(&self, read: &Read) -> Answer {
        let mut answer =
            Answer { id: read.id, room: read.room.clone(), found: Found::Entries(Vec::new()), rotten: Vec::new() };
        let empty = Log::default();
        let log = self.logs.get(&read.room).unwrap_or(&empty);
        answer.found = match &read.what {
            What::Ranges { want, max, bytes_max } => {
                Found::Entries(log.ranges(want, (*max, *bytes_max), &mut answer.rotten))
            }
            What::Last { count } => Found::Start(log.start_of_last(*count)),
            What::Since { millis } => Found::Start(log.start_since(*millis)),
            What::Device { person, device, from } => {
                Found::Entries(log.posts_of((*person, *device, *from), &mut answer.rotten))
            }
        };
        answer
    }

    /// What a server finds that starts at `wall_secs` seconds since 1970, whatever the clock says: the boot is later than
    /// any before, and kept.
    pub fn restore(&mut self, wall_secs: u64, rng: &mut Rng) -> Restored {
        let later = Boot::new(wall_secs, self.boot, rng);
        let boot = self.boot.filter(|_| planted::is(Bug::DotReused)).unwrap_or(later);
        self.boot = Some(boot);
        Restored {
            id: self.id,
            boot: Some(boot),
            cluster: self.cluster,
            term: self.term,
            members: self.members.values().cloned().collect(),
            rooms: self.rooms.values().cloned().collect(),
            logs: self.logs.iter().map(|(room, log)| log.head(room)).collect(),
        }
    }

    /// Forgets everything: another disk is in its place.
    pub fn wipe(&mut self) {
        *self = Self::default();
    }

    /// Makes an entry rotten: what is read there is not what was written. False where there is none.
    pub fn rot(&mut self, room: &RoomName, origin: Origin, seq: u64) -> bool {
        let slot = self.logs.get_mut(room).and_then(|log| log.parts.get_mut(&origin)?.get_mut(&seq));
        slot.map(|slot| slot.rotten = true).is_some()
    }

    /// The rotten entries of a room, but for those that are lost.
    pub fn rotten<'a>(&'a self, room: &RoomName) -> impl Iterator<Item = (Origin, u64)> + 'a {
        self.logs.get(room).into_iter().flat_map(|log| log.dots(|slot| slot.found().is_none()))
    }

    /// The entries of a room that are lost: in their places markers are found.
    pub fn lost<'a>(&'a self, room: &RoomName) -> impl Iterator<Item = (Origin, u64)> + 'a {
        self.logs.get(room).into_iter().flat_map(Log::lost)
    }

    /// Who it says that the server is: the id, and the boot of its last start.
    pub fn me(&self) -> (Option<ServerId>, Option<Boot>) {
        (self.id, self.boot)
    }

    /// The highest term, as it was written last.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The cluster.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster
    }

    /// The members.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// Where rooms live.
    pub fn records(&self) -> impl Iterator<Item = &RoomRecord> {
        self.rooms.values()
    }

    /// The rooms that it has anything of.
    pub fn rooms(&self) -> impl Iterator<Item = &RoomName> {
        self.logs.keys()
    }

    /// What it holds of a room, or has given up.
    pub fn held(&self, room: &RoomName) -> VersionVector {
        self.logs.get(room).map(|log| log.held.clone()).unwrap_or_default()
    }

    /// Up to where a room is no longer kept.
    pub fn floors(&self, room: &RoomName) -> VersionVector {
        self.logs.get(room).map(|log| log.floors.clone()).unwrap_or_default()
    }

    /// One entry, if it is there, and neither rotten nor lost.
    pub fn get(&self, room: &RoomName, origin: Origin, seq: u64) -> Option<&Kept> {
        let slot = self.logs.get(room)?.parts.get(&origin)?.get(&seq)?;
        slot.found().filter(|kept| !kept.entry.is_lost())
    }

    /// The entries of a room that are neither rotten nor lost, in display order.
    pub fn entries<'a>(&'a self, room: &RoomName) -> impl Iterator<Item = &'a Kept> {
        let log = self.logs.get(room).into_iter();
        log.flat_map(|log| log.display.iter().filter_map(|order| log.slot(*order)))
            .filter(|slot| !slot.rotten)
            .map(|slot| &slot.kept)
    }

    /// What was kept aside.
    pub fn quarantined(&self) -> &[Kept] {
        &self.quarantine
    }

    /// How many writes broke the contract and were not done; zero where the node is right.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    fn log_mut(&mut self, room: &RoomName) -> &mut Log {
        self.logs.entry(room.clone()).or_default()
    }
}

impl Log {
    /// The names of what is such.
    fn dots<'a>(&'a self, is_such: impl Fn(&Slot) -> bool + Copy + 'a) -> impl Iterator<Item = (Origin, u64)> + 'a {
        self.parts.iter().flat_map(move |(&origin, part)| {
            part.iter().filter(move |(_, slot)| is_such(slot)).map(move |(&seq, _)| (origin, seq))
        })
    }

    fn lost(&self) -> impl Iterator<Item = (Origin, u64)> {
        self.dots(|slot| slot.found().is_some_and(|kept| kept.entry.is_lost()))
    }

    fn insert(&mut self, kept: &Kept) -> bool {
        let entry = &kept.entry;
        if self.floors.holds(entry.origin, entry.seq) {
            return true;
        }
        let part = self.parts.entry(entry.origin).or_default();
        if let Some(there) = part.get(&entry.seq) {
            return there.kept.entry.hash == entry.hash;
        }
        if entry.seq != self.held.get(entry.origin) + 1 {
            return false;
        }
        part.insert(entry.seq, Slot::new(kept));
        self.held.raise(entry.origin, entry.seq);
        if !entry.is_lost() {
            self.index(entry);
        }
        self.newest = self.newest.max(Some(entry.order()));
        true
    }

    fn index(&mut self, entry: &Entry) {
        self.display.insert(entry.order());
        let post = (entry.person, entry.device, entry.client_seq);
        self.posts.entry(post).or_default().insert(entry.order());
    }

    fn repair(&mut self, kept: &Kept) -> bool {
        let entry = &kept.entry;
        let there = self.parts.get_mut(&entry.origin).and_then(|part| part.get_mut(&entry.seq));
        match there {
            Some(slot) if slot.kept.entry.hash == entry.hash => (slot.rotten, slot.lost) = (false, None),
            Some(slot) if slot.kept.entry.is_lost() => {
                *slot = Slot::new(kept);
                self.index(entry);
            }
            Some(_) => return false,
            None => return self.floors.holds(entry.origin, entry.seq),
        }
        true
    }

    fn lose(&mut self, room: &RoomName, origin: Origin, seq: u64) -> bool {
        let Some(part) = self.parts.get_mut(&origin).filter(|part| part.contains_key(&seq)) else {
            return self.floors.holds(origin, seq);
        };
        let is_sound = |slot: &&Slot| !slot.rotten && !slot.kept.entry.is_lost();
        let above = part.range(seq + 1..=seq + LOST_TIME_WITHIN).map(|(_, slot)| slot).find(is_sound);
        let below = || part.range(seq.saturating_sub(LOST_TIME_WITHIN)..seq).rev().map(|(_, slot)| slot).find(is_sound);
        let hlc = above.or_else(below).map_or(Hlc::default(), |slot| slot.kept.entry.hlc);
        if let Some(slot) = part.get_mut(&seq).filter(|slot| slot.rotten) {
            slot.lost = Some(Entry::lost(room.clone(), origin, seq, hlc).into());
        }
        true
    }

    fn trim(&mut self, floors: &VersionVector) {
        for (origin, floor) in floors.iter() {
            self.floors.raise(origin, floor);
            self.held.raise(origin, floor);
            let Some(part) = self.parts.get_mut(&origin) else { continue };
            let above = part.split_off(&floor.saturating_add(1));
            for slot in std::mem::replace(part, above).into_values() {
                let entry = &slot.kept.entry;
                self.display.remove(&entry.order());
                let post = (entry.person, entry.device, entry.client_seq);
                if let Some(orders) = self.posts.get_mut(&post) {
                    orders.remove(&entry.order());
                }
            }
        }
        self.posts.retain(|_, orders| !orders.is_empty());
        self.parts.retain(|_, part| !part.is_empty());
    }

    fn head(&self, room: &RoomName) -> Head {
        Head {
            room: room.clone(),
            held: self.held.clone(),
            floors: self.floors.clone(),
            newest: self.newest.unwrap_or((Hlc::default(), Origin::MIN, 0)),
            entries: self.parts.values().map(|part| part.len() as u64).sum(),
            lost: self.lost().take(LOST_MAX).collect(),
        }
    }

    fn slot(&self, (_, origin, seq): DisplayOrder) -> Option<&Slot> {
        self.parts.get(&origin)?.get(&seq)
    }

    /// `rotten` learns of those that should be among what is found.
    fn ranges(
        &self,
        want: &[(Origin, u64, u64)],
        (max, bytes_max): (usize, usize),
        rotten: &mut Vec<(Origin, u64)>,
    ) -> Vec<Kept> {
        let mut there = BTreeMap::new();
        for &(origin, from, to) in want.iter().filter(|(_, from, to)| from <= to) {
            let part = self.parts.get(&origin).into_iter().flat_map(|part| part.range(from..=to));
            there.extend(part.map(|(_, slot)| (slot.found().unwrap_or(&slot.kept).entry.order(), slot)));
        }
        let (mut found, mut bytes) = (Vec::new(), 0);
        for ((_, origin, seq), slot) in there {
            if found.len() == max {
                break;
            }
            let Some(kept) = slot.found() else {
                rotten.push((origin, seq));
                continue;
            };
            bytes += kept.line.len();
            if bytes > bytes_max && !found.is_empty() {
                break;
            }
            found.push(kept.clone());
        }
        found
    }

    fn posts_of(
        &self,
        (person, device, from): (PersonId, DeviceId, u64),
        rotten: &mut Vec<(Origin, u64)>,
    ) -> Vec<Kept> {
        let posts = self.posts.range((person, device, from)..=(person, device, u64::MAX));
        let is_lost = |slot: &&Slot| slot.found().is_some_and(|kept| kept.entry.is_lost());
        let first = |orders: &BTreeSet<_>| orders.iter().filter_map(|order| self.slot(*order)).find(|it| !is_lost(it));
        let mut found = Vec::new();
        for slot in posts.filter_map(|(_, orders)| first(orders)).take(DEVICE_POSTS_MAX) {
            match slot.found() {
                Some(kept) => found.push(kept.clone()),
                None => rotten.push((slot.kept.entry.origin, slot.kept.entry.seq)),
            }
        }
        found
    }

    fn start_of_last(&self, count: u32) -> VersionVector {
        if count == 0 {
            return self.held.clone();
        }
        let canonical = self.display.iter().rev().filter(|order| self.is_canonical(**order));
        let first = canonical.take(count as usize).last();
        self.start_at(first.copied())
    }

    fn is_canonical(&self, order: DisplayOrder) -> bool {
        let post = self.slot(order).map(|slot| slot.kept.entry.post_key());
        let orders = post.and_then(|post| self.posts.get(&(post.person, post.device, post.client_seq)));
        orders.and_then(BTreeSet::first) == Some(&order)
    }

    fn start_since(&self, millis: u64) -> VersionVector {
        self.start_at(self.display.range((Hlc { millis, counter: 0 }, Origin::MIN, 0)..).next().copied())
    }

    /// The cursor that covers what is displayed before `first`, and what is below the floors.
    fn start_at(&self, first: Option<DisplayOrder>) -> VersionVector {
        let Some(first) = first else { return self.held.clone() };
        let mut start = self.floors.clone();
        for &(_, origin, seq) in self.display.range(..first) {
            start.raise(origin, seq);
        }
        start
    }
}

#[cfg(test)]
mod tests;
