//! Which home a room has, as we decide and as others say: what we decide counts once it is on our disk.

use super::{Node, kept::Waiting};
use crate::{
    directory,
    store::Write,
    wire::{
        Frame,
        frame::{Epoch, RoomRecord},
    },
};

/// By which right a fence is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    /// As the leader, in this epoch.
    Leader(Epoch),
    /// As the first live successor of a dead home.
    Successor,
}

impl By {
    /// How it is told that rooms have these homes, where `epoch` is the newest. What was made by a leader that has been
    /// deposed meanwhile is a command no more; but it is on the disk and would count after a restart, so it is known now, and
    /// told as what anybody knows.
    fn frame(self, epoch: Epoch, rooms: Vec<RoomRecord>) -> Frame {
        match self {
            Self::Leader(made) if made == epoch => Frame::Assign { epoch, rooms },
            Self::Leader(_) | Self::Successor => Frame::Rooms { rooms },
        }
    }
}

impl Node {
    /// Takes a room's record that somebody else has made, or that is durable; whether that is news. Where one of ours that is
    /// higher is on its way to the disk, that stays the last one there: what a disk has never goes back.
    pub(super) fn learn_room(&mut self, record: RoomRecord) -> bool {
        if !self.records.merge(record.clone()) {
            return false;
        }
        if self.kept.fences.get(&record.room).is_none_or(|ours| ours.fence < record.fence) {
            self.persist(Write::Room(record));
        }
        true
    }

    /// We give rooms their homes: once that is durable, all hear of it.
    pub(super) fn fence(&mut self, records: Vec<RoomRecord>, by: By) {
        if !self.kept.writes() {
            return self.take_fences(&records, by);
        }
        let mut last = 0;
        for record in &records {
            self.kept.fences.insert(record.room.clone(), record.clone());
            last = self.persist(Write::Room(record.clone())).unwrap_or(last);
        }
        if !records.is_empty() {
            self.kept.wait(last, Waiting::Fences(records, by));
        }
    }

    /// Fences of ours take effect, where nothing newer has come meanwhile.
    pub(super) fn take_fences(&mut self, records: &[RoomRecord], by: By) {
        for record in records {
            if self.kept.fences.get(&record.room) == Some(record) {
                self.kept.fences.remove(&record.room);
            }
        }
        for record in records {
            if self.records.merge(record.clone()) {
                self.record_changed(&record.room);
            }
        }
        let epoch = self.epoch();
        if matches!(by, By::Leader(made) if made != epoch) {
            self.count("fence_of_old_epoch");
        }
        // Of a room that has moved on meanwhile, its newest.
        let newest: Vec<_> = records.iter().filter_map(|record| self.records.get(&record.room).cloned()).collect();
        if newest.is_empty() {
            return;
        }
        for rooms in directory::rooms::chunks(&newest) {
            self.tell_all(&by.frame(epoch, rooms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::kept::tests::{server, writes};
    use super::*;
    use crate::{
        ids::{Boot, Origin, RoomName, ServerId},
        wire::frame::Fence,
    };

    #[test]
    fn a_fence_of_ours_on_its_way_to_the_disk_is_not_followed_by_a_lower_one() {
        fn check(ours: u32, theirs: u32, expected: &[u32]) {
            let record = |id: u32| RoomRecord {
                room: RoomName::lobby(),
                fence: Fence { epoch: Epoch::NONE, n: 5, home: Origin { id: ServerId(id), boot: Boot(1) } },
                successors: Vec::new(),
            };
            let mut node = server();
            node.fence(vec![record(ours)], By::Successor);
            assert!(node.learn_room(record(theirs)), "it is followed meanwhile");
            let homes: Vec<_> = writes(&mut node)
                .into_iter()
                .filter_map(|write| match write {
                    Write::Room(record) => Some(record.fence.home.id.0),
                    _ => None,
                })
                .collect();
            assert_eq!(homes, expected, "{ours} and {theirs}");
        }
        check(4, 3, &[4]);
        check(3, 4, &[3, 4]);
    }

    #[test]
    fn a_fence_that_a_leader_made_just_before_it_was_deposed_is_no_command_and_known_all_the_same() {
        let record = |n: u64| RoomRecord {
            room: RoomName::lobby(),
            fence: Fence { epoch: Epoch::NONE, n, home: Origin { id: ServerId(1), boot: Boot(1) } },
            successors: Vec::new(),
        };
        let mut node = server();
        let deposed = Epoch { term: 4, leader: ServerId(1), boot: Boot(1) };
        node.fence(vec![record(7)], By::Leader(deposed));
        node.on_durable(node.kept.unwritten());
        assert_eq!(node.records.get(&RoomName::lobby()), Some(&record(7)), "a restart would find it, too");
        assert!(!node.learn_room(record(6)), "what a disk has never goes back");
        assert_eq!(node.counters().get("fence_of_old_epoch"), Some(&1));
        let told = |epoch| By::Leader(deposed).frame(epoch, vec![record(7)]);
        assert!(matches!(told(node.epoch()), Frame::Rooms { .. }), "it is told as what anybody knows");
        assert!(matches!(told(deposed), Frame::Assign { epoch, .. } if epoch == deposed));
    }
}
