//! What a server starts from: everything that its store holds, but for the entries themselves.
//!
//! Rooms come back with their vectors and floors; who leads and where they live is found out anew, above the terms and fences
//! of before. Homes of before are boots that have ended, so the next leader gives the rooms homes, by the usual sweep.

use super::{Node, cluster::Cluster, rooms::Room};
use crate::{
    log::RoomLog,
    store::{Head, Restored, Write},
};

impl Node {
    /// Takes what the store holds. Nothing of it is written again.
    pub(super) fn restore(&mut self, restored: Restored) {
        let is_empty = restored.logs.iter().all(|head| head.held.origins() == 0 && head.floors.origins() == 0);
        self.has_reopened = restored.cluster.is_some();
        if let Some(id) = restored.cluster {
            self.cluster = Cluster::reopen(id, is_empty, self.now);
        } else {
            self.persist(Write::Cluster(self.cluster.id));
        }
        for member in restored.members {
            self.members.merge(member);
        }
        for head in &restored.logs {
            self.restore_room(head);
        }
        for record in restored.rooms {
            // One in which nothing was said is followed too: that we know where it lives will be no news.
            self.room(&record.room);
            self.records.merge(record);
        }
        self.logs = self.logs_digest();
    }

    fn restore_room(&mut self, head: &Head) {
        let (mut held, now) = (head.held.clone(), self.now);
        held.merge(&head.floors);
        let room = Room::restored(&head.room, held, RoomLog::restored(head), now);
        self.rooms.insert(head.room.clone(), room);
        for &(origin, seq) in &head.lost {
            self.remember_lost(&head.room, origin, seq);
        }
    }
}
