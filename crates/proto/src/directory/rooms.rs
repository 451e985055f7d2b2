//! Where rooms live: for each room the record with the highest fence.
//!
//! Records of one room are totally ordered, and the greatest wins. So it does not matter in which order, how often and
//! by which way records come: servers that have heard the same records agree.

use std::collections::BTreeMap;

use super::{chunk, digest::SetDigest};
use crate::{
    ids::{Origin, RoomName},
    limits,
    wire::{
        frame::{Epoch, Fence, RoomRecord},
        number,
    },
};

/// All rooms that a server knows.
#[derive(Clone, Debug, Default)]
pub struct Rooms {
    records: BTreeMap<RoomName, RoomRecord>,
    homes: BTreeMap<Origin, usize>,
    digest: SetDigest,
}

impl Rooms {
    /// No rooms yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a record; whether that changed anything. The highest fence wins. Of two records with one fence (a leader
    /// and a successor may come to the same one) the one with more successors wins, then the greater list, so that all
    /// servers keep the same. A record that no honest server makes, or a room beyond [`limits::ROOMS_MAX`], changes
    /// nothing.
    pub fn merge(&mut self, record: RoomRecord) -> bool {
        if record.successors.len() > limits::SERVERS_MAX {
            return false;
        }
        match self.records.get(&record.room) {
            Some(known) if rank(known) >= rank(&record) => return false,
            None if self.records.len() >= limits::ROOMS_MAX => return false,
            known => {
                if let Some(known) = known {
                    self.digest.remove(known);
                    forget_home(&mut self.homes, known.fence.home);
                }
            }
        }
        self.digest.add(&record);
        *self.homes.entry(record.fence.home).or_default() += 1;
        self.records.insert(record.room.clone(), record);
        true
    }

    /// The record of a room.
    pub fn get(&self, room: &RoomName) -> Option<&RoomRecord> {
        self.records.get(room)
    }

    /// All records, by name.
    pub fn iter(&self) -> impl Iterator<Item = &RoomRecord> {
        self.records.values()
    }

    /// How many rooms there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many rooms `home` homes, the lobby included.
    pub fn homed_by(&self, home: Origin) -> usize {
        self.homes.get(&home).copied().unwrap_or_default()
    }

    /// All servers that home any room.
    pub fn homes(&self) -> impl Iterator<Item = Origin> + '_ {
        self.homes.keys().copied()
    }

    /// 53 bits: equal where the records are.
    pub fn digest(&self) -> u64 {
        self.digest.value()
    }

    /// Forgets everything: the server has adopted another cluster.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The fence under which `home` may take a room: above that of the record that is known of the room, and of no older
/// epoch.
pub fn next_fence(known: Option<&RoomRecord>, epoch: Epoch, home: Origin) -> Fence {
    match known {
        Some(known) => {
            // Nobody gets to the bound by moving rooms, only by lying; a later epoch then still moves the room.
            let n = known.fence.n.saturating_add(1).min(number::BOUND - 1);
            Fence { epoch: epoch.max(known.fence.epoch), n, home }
        }
        None => Fence { epoch, n: 1, home },
    }
}

/// Records as lists that each fit a frame; at least one list.
pub fn chunks<'a>(records: impl IntoIterator<Item = &'a RoomRecord>) -> Vec<Vec<RoomRecord>> {
    chunk::chunks(records.into_iter().cloned())
}

/// Which of two records of a room wins: the greater.
fn rank(record: &RoomRecord) -> impl Ord + '_ {
    (record.fence, record.successors.len(), &record.successors)
}

fn forget_home(homes: &mut BTreeMap<Origin, usize>, home: Origin) {
    if let Some(count) = homes.get_mut(&home) {
        *count -= 1;
        if *count == 0 {
            homes.remove(&home);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        ids::{Boot, ServerId},
        wire::frame::Frame,
    };

    fn origin(id: u32) -> Origin {
        Origin { id: ServerId(id), boot: Boot(7) }
    }

    fn record(room: &str, term: u64, n: u64, home: u32, successors: &[u32]) -> RoomRecord {
        let epoch = Epoch { term, leader: ServerId(3), boot: Boot(7) };
        let successors = successors.iter().copied().map(ServerId).collect();
        RoomRecord { room: room.parse().unwrap(), fence: Fence { epoch, n, home: origin(home) }, successors }
    }

    fn records() -> impl Strategy<Value = Vec<RoomRecord>> {
        let one = (0..3u8, 0..3u64, 0..3u64, 1..4u32, proptest::collection::vec(1..4u32, 0..3));
        let one = one.prop_map(|(room, term, n, home, list)| record(&format!("r{room}"), term, n, home, &list));
        proptest::collection::vec(one, 0..20)
    }

    fn merged(records: &[RoomRecord]) -> Rooms {
        let mut rooms = Rooms::new();
        for record in records {
            rooms.merge(record.clone());
        }
        rooms
    }

    #[test]
    fn the_highest_fence_wins() {
        fn check(known: (u64, u64, u32), new: (u64, u64, u32), changed: bool) {
            let mut rooms = merged(&[record("tea", known.0, known.1, known.2, &[])]);
            assert_eq!(rooms.merge(record("tea", new.0, new.1, new.2, &[])), changed, "{known:?} {new:?}");
        }
        check((1, 5, 1), (2, 1, 1), true);
        check((1, 5, 1), (1, 6, 1), true);
        check((1, 5, 1), (1, 5, 2), true);
        check((1, 5, 1), (1, 5, 1), false);
        check((1, 5, 2), (1, 5, 1), false);
        check((2, 1, 1), (1, 9, 9), false);
    }

    #[test]
    fn the_next_fence_is_above_all_that_is_known() {
        let rooms = merged(&[record("tea", 5, 9, 1, &[])]);
        let tea = "tea".parse().unwrap();
        for term in [1, 5, 6] {
            let epoch = Epoch { term, leader: ServerId(1), boot: Boot(1) };
            let next = next_fence(rooms.get(&tea), epoch, origin(0));
            assert!(next > rooms.get(&tea).unwrap().fence);
            assert_eq!((next.epoch.term, next.n), (term.max(5), 10));
        }
        assert_eq!(next_fence(None, Epoch::NONE, origin(1)).n, 1);
    }

    #[test]
    fn rooms_are_counted_where_they_live_now() {
        let rooms = merged(&[record("a", 1, 1, 1, &[]), record("b", 1, 1, 1, &[]), record("b", 1, 2, 2, &[])]);
        assert_eq!((rooms.homed_by(origin(1)), rooms.homed_by(origin(2)), rooms.homed_by(origin(3))), (1, 1, 0));
    }

    #[test]
    fn a_list_of_successors_that_cannot_be_is_dropped() {
        assert!(!Rooms::new().merge(record("tea", 1, 1, 1, &[1; limits::SERVERS_MAX + 1])));
    }

    #[test]
    fn the_longest_names_fit_their_frames() {
        let epoch = Epoch { term: u64::MAX, leader: ServerId(u32::MAX), boot: Boot(u64::MAX) };
        let home = Origin { id: ServerId(u32::MAX), boot: Boot(u64::MAX) };
        let records: Vec<_> = (0..100)
            .map(|n| RoomRecord {
                room: format!("{}{n:03}", "\u{10ffff}".repeat(limits::NAME_CHARS_MAX - 3)).parse().unwrap(),
                fence: Fence { epoch, n: u64::MAX, home },
                successors: vec![ServerId(u32::MAX); limits::SERVERS_MAX],
            })
            .collect();
        let chunks = chunks(&records);
        assert_eq!(chunks.concat(), records);
        for rooms in chunks {
            for frame in [
                Frame::Rooms { rooms: rooms.clone() },
                Frame::Assign { epoch, rooms: rooms.clone() },
                Frame::SyncRep { epoch, part: u32::MAX, last: false, rooms },
            ] {
                assert!(frame.to_line().len() <= limits::FRAME_BYTES_MAX, "{}", frame.to_line().len());
            }
        }
        assert_eq!(super::chunks([]), [vec![]]);
    }

    proptest! {
        #[test]
        fn servers_that_heard_the_same_agree(records in records(), by in any::<u64>()) {
            let once = merged(&records);
            let mut shuffled = records.clone();
            if !shuffled.is_empty() {
                let at = by as usize % shuffled.len();
                shuffled.rotate_left(at);
                shuffled.reverse();
                shuffled.extend(records);
            }
            let again = merged(&shuffled);
            prop_assert_eq!(&once.records, &again.records);
            prop_assert_eq!(&once.homes, &again.homes);
            prop_assert_eq!(once.digest(), again.digest());
        }

        #[test]
        fn a_merge_of_merges_is_one_merge(a in records(), b in records(), c in records()) {
            let join = |left: &Rooms, right: &Rooms| {
                let mut joined = left.clone();
                for record in right.iter() {
                    joined.merge(record.clone());
                }
                joined
            };
            let (a, b, c) = (merged(&a), merged(&b), merged(&c));
            prop_assert_eq!(join(&join(&a, &b), &c).records, join(&a, &join(&b, &c)).records);
            prop_assert_eq!(join(&a, &b).records, join(&b, &a).records);
            prop_assert_eq!(&join(&a, &a).records, &a.records);
        }

        #[test]
        fn digests_are_equal_where_the_content_is(a in records(), b in records()) {
            let (a, b) = (merged(&a), merged(&b));
            prop_assert_eq!(a.digest() == b.digest(), a.records == b.records);
        }
    }
}
