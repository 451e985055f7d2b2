//! Floors: up to where a room is no longer kept.
//!
//! The shell says what it wants to give up, by age or by bytes; the node gives up as much of that as is stored, on as many
//! servers as it takes. Each server has floors of its own. Who pulls below one hears of it: a server takes it over, since
//! vectors cover what is below a floor, and a client tells its person. Only messages are given up; state, once there is
//! any, is to be carried over a floor before it is taken.

use super::Node;
use crate::{ids::RoomName, log::VersionVector, store::Write, wire::vectors};

impl Node {
    /// The shell wants to give up everything up to these numbers.
    pub(super) fn retain(&mut self, name: &RoomName, before: &VersionVector) {
        let Some(room) = self.rooms.get(name) else { return };
        let counted = self.counted(room);
        let stored = |(origin, wanted): (_, u64)| {
            // What is stored, its predecessors are too.
            let (mut low, mut high) = (room.log.floors().get(origin), wanted.min(room.durable().get(origin)));
            while low < high {
                let middle = high - (high - low) / 2;
                if counted.of(origin, middle).stored { low = middle } else { high = middle - 1 }
            }
            (origin, low)
        };
        let floors = before.iter().map(stored).collect();
        self.take_floors(name, &floors);
    }

    /// Gives up everything up to these numbers, or learns that it cannot be had any more.
    pub(super) fn take_floors(&mut self, name: &RoomName, floors: &VersionVector) {
        let now = self.now;
        let Some(room) = self.rooms.get_mut(name) else { return };
        if !room.log.give_up(floors) {
            return;
        }
        let floors = room.log.floors().clone();
        if let Some(durable) = &mut room.durable {
            durable.merge(&floors);
        }
        let freed = room.receiver.give_up(&floors, now);
        room.digest = vectors::digest(name, room.receiver.held());
        self.persist(Write::Floors { room: name.clone(), floors });
        for entry in freed {
            self.keep(name, entry, None);
        }
        self.trim(name);
    }
}
