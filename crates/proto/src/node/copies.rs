//! Copies: how many there are of an entry, and when a leaver may go, since enough others have kept all that it holds.
//!
//! A copy counts where it is kept: on the disk of a member, or in its memory where no member has a disk. How many there are
//! to be is never shrunk to what happens to be alive.
//!
//! Each room is looked at when somebody says what they hold of it, and forgotten once it is covered: so leaving with many
//! rooms costs as much as there are rooms and peers, and not the square of that.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{Node, rooms::Room};
use crate::{
    ids::{Origin, RoomName},
    log::VersionVector,
    wire::frame::Vectors,
};

/// Whose copies of a room count.
pub(super) struct Counted<'a> {
    kept: Vec<Cow<'a, VersionVector>>,
    wanted: u32,
    on_disks: bool,
}

/// How it stands with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// On how many servers it is kept.
    pub(super) copies: u32,
    /// Whether that is enough.
    pub(super) stored: bool,
    /// Whether they have it on disk.
    pub(super) durable: bool,
}

impl Counted<'_> {
    /// How it stands with this entry.
    pub(super) fn of(&self, origin: Origin, seq: u64) -> Verdict {
        let copies = self.kept.iter().filter(|kept| kept.holds(origin, seq)).count() as u32;
        Verdict { copies, stored: copies >= self.wanted, durable: self.on_disks && copies > 0 }
    }
}

impl Node {
    /// Whose copies of a room count: ours and those of members that follow it here, each in its newest boot.
    pub(super) fn counted<'a>(&self, room: &'a Room) -> Counted<'a> {
        self.counted_beside(room, None)
    }

    /// The same, and those of others that have just said what they have kept.
    pub(super) fn counted_beside<'a>(
        &self,
        room: &'a Room,
        said: Option<&'a BTreeMap<Origin, VersionVector>>,
    ) -> Counted<'a> {
        let newest = |origin: Origin| room.holders.range(origin..).nth(1).is_none_or(|(next, _)| next.id != origin.id);
        let said_by = |origin: Origin| said.is_some_and(|said| said.keys().any(|other| other.id == origin.id));
        let followers = room.holders.iter().filter(|(origin, _)| newest(**origin) && !said_by(**origin));
        let others = followers.chain(said.into_iter().flatten()).filter(|(origin, _)| self.members.keeps(origin.id));
        let ours = self.is_keeper().then(|| room.told());
        let kept = others.map(|(_, kept)| Cow::Borrowed(kept)).chain(ours).collect();
        Counted { kept, wanted: self.copies_wanted(), on_disks: self.members.have_disks() }
    }

    /// On how many servers a message has to be to count as stored.
    pub(super) fn copies_wanted(&self) -> u32 {
        self.config.replicas.min(self.members.keepers().count() as u32).max(1)
    }
}

/// What must be kept by others.
#[derive(Debug, Default)]
pub(super) struct Copies {
    rooms: BTreeMap<RoomName, Copied>,
}

/// A room that not enough others have kept yet.
#[derive(Debug, Default)]
struct Copied {
    must: VersionVector,
    /// What others have kept, as they said, each in its boot: who has started anew may have lost its disk.
    held: BTreeMap<Origin, VersionVector>,
}

/// Whose copies count, and how many there are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Enough {
    keepers: BTreeSet<Origin>,
    wanted: usize,
}

impl Enough {
    /// As many as there are to be `replicas`, or all where there are fewer: of those that stay, or of those that leave too
    /// where nobody stays.
    pub(super) fn new(replicas: u32, staying: BTreeSet<Origin>, leaving: BTreeSet<Origin>) -> Self {
        let keepers = if staying.is_empty() { leaving } else { staying };
        let wanted = keepers.len().min(replicas as usize).max(1);
        Self { keepers, wanted }
    }

    /// Those whose copies count.
    pub(super) fn keepers(&self) -> &BTreeSet<Origin> {
        &self.keepers
    }

    /// So many of `others`, whether they are there or not.
    pub(super) fn beside(wanted: u32, others: BTreeSet<Origin>) -> Self {
        Self { keepers: others, wanted: wanted as usize }
    }
}

impl Copied {
    fn is_covered(&self, enough: &Enough) -> bool {
        let covering = self.held.iter().filter(|(id, held)| enough.keepers.contains(id) && held.covers(&self.must));
        covering.count() >= enough.wanted
    }

    /// How many entries the last of those lack who could make enough copies soonest.
    fn missing(&self, enough: &Enough) -> u64 {
        let none = VersionVector::default();
        let lacks = |id: &Origin| {
            let held = self.held.get(id).unwrap_or(&none);
            self.must.count_beyond(held)
        };
        let mut lacking: Vec<u64> = enough.keepers.iter().map(lacks).collect();
        lacking.sort_unstable();
        let all = self.must.count_beyond(&none);
        enough.wanted.checked_sub(1).map_or(0, |last| lacking.get(last).copied().unwrap_or(all))
    }
}

impl Copies {
    /// Nobody has said anything yet.
    pub(super) fn new(must: impl Iterator<Item = (RoomName, VersionVector)>) -> Self {
        Self { rooms: must.map(|(name, must)| (name, Copied { must, held: BTreeMap::new() })).collect() }
    }

    /// One more entry must be held.
    pub(super) fn want(&mut self, name: &RoomName, origin: Origin, seq: u64) {
        self.rooms.entry(name.clone()).or_default().must.raise(origin, seq);
    }

    /// A server says what it has kept of some rooms; whether nothing is lacking any more.
    pub(super) fn hear(&mut self, server: Origin, rooms: &Vectors, enough: &Enough) -> bool {
        for (name, held) in rooms {
            let Some(room) = self.rooms.get_mut(name) else { continue };
            room.held.entry(server).or_default().merge(held);
            if room.is_covered(enough) {
                self.rooms.remove(name);
            }
        }
        self.rooms.is_empty()
    }

    /// How many entries lack copies, counted at whoever needs the fewest to make enough.
    pub(super) fn missing(&self, enough: &Enough) -> u64 {
        self.rooms.values().fold(0, |sum, room| sum.saturating_add(room.missing(enough)))
    }

    /// Who counts may have changed: what is still lacking.
    pub(super) fn lacking(&mut self, enough: &Enough) -> Vec<(RoomName, VersionVector)> {
        self.rooms.retain(|_, room| !room.is_covered(enough));
        self.rooms.iter().map(|(name, room)| (name.clone(), room.must.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Boot, ServerId};

    fn server(id: u32) -> Origin {
        Origin { id: ServerId(id), boot: Boot(1) }
    }

    fn ids(ids: &[u32]) -> BTreeSet<Origin> {
        ids.iter().copied().map(server).collect()
    }

    fn vectors(rooms: &[(&str, u64)]) -> Vectors {
        let origin = Origin { id: ServerId(9), boot: Boot(9) };
        rooms.iter().map(|(name, seq)| (name.parse().unwrap(), [(origin, *seq)].into_iter().collect())).collect()
    }

    #[test]
    fn who_leaves_waits_for_enough_of_those_that_stay() {
        /// Who says that they hold so much of tea, and whether the leaver, which holds 7, goes then.
        fn check(replicas: u32, staying: &[u32], leaving: &[u32], said: &[(u32, u64)], goes: bool) {
            let enough = Enough::new(replicas, ids(staying), ids(leaving));
            let mut copies = Copies::new(vectors(&[("tea", 7)]).into_iter());
            for (id, seq) in said {
                copies.hear(server(*id), &vectors(&[("tea", *seq), ("unknown", 8)]), &enough);
            }
            let all = (replicas, staying.len(), leaving.len());
            assert_eq!(copies.lacking(&enough).is_empty(), goes, "{all:?}, {said:?}");
        }
        check(2, &[1, 2, 3], &[], &[(1, 7)], false);
        check(2, &[1, 2, 3], &[], &[(1, 7), (1, 7)], false);
        check(2, &[1, 2, 3], &[], &[(1, 7), (2, 6)], false);
        check(2, &[1, 2, 3], &[], &[(1, 7), (2, 6), (3, 8)], true);
        check(2, &[1], &[], &[(1, 7)], true);
        check(2, &[1, 2], &[3], &[(1, 7), (3, 7)], false);
        check(2, &[1], &[2, 3], &[(2, 7), (3, 7)], false);
        check(2, &[1], &[2, 3], &[(1, 7)], true);
        check(2, &[], &[2, 3], &[(2, 7)], false);
        check(2, &[], &[2, 3], &[(2, 7), (3, 7)], true);
        check(2, &[], &[], &[], false);
    }

    #[test]
    fn what_is_covered_is_not_asked_for_again_and_what_counts_may_change() {
        let enough = |staying: &[u32]| Enough::new(2, ids(staying), ids(&[]));
        let mut copies = Copies::new(vectors(&[("tea", 7), ("milk", 7)]).into_iter());
        assert!(!copies.hear(server(1), &vectors(&[("tea", 7), ("milk", 7)]), &enough(&[1, 2])));
        assert!(!copies.hear(server(2), &vectors(&[("tea", 7)]), &enough(&[1, 2])));
        assert_eq!(copies.lacking(&enough(&[1, 2])), vectors(&[("milk", 7)]).into_iter().collect::<Vec<_>>());
        assert_eq!(copies.lacking(&enough(&[1])), [], "2 has died");
    }

    #[test]
    fn who_has_started_anew_has_to_say_again_what_it_has_kept() {
        let mut copies = Copies::new(vectors(&[("tea", 7)]).into_iter());
        assert!(!copies.hear(server(2), &vectors(&[("tea", 7)]), &Enough::new(2, ids(&[1, 2]), ids(&[]))));
        let anew = Origin { boot: Boot(2), ..server(2) };
        let enough = Enough::new(2, [server(1), anew].into_iter().collect(), ids(&[]));
        assert!(!copies.hear(server(1), &vectors(&[("tea", 7)]), &enough), "its disk may be another one");
        assert!(copies.hear(anew, &vectors(&[("tea", 7)]), &enough));
    }
}
