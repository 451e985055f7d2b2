//! The directory that all servers share, of members and rooms: told in full when a session stands or digests differ, and
//! merged.

use super::Node;
use crate::{
    directory,
    heartbeat::Change,
    ids::{Origin, RoomName},
    session::SessionId,
    time::Duration,
    wire::{
        Frame,
        frame::{Member, RoomRecord},
    },
};

impl Node {
    pub(super) fn directory_digest(&self) -> u64 {
        self.records.digest() ^ self.members.digest()
    }

    /// Tells a server all that we know of members and rooms.
    pub(super) fn share_directory(&mut self, session: SessionId) {
        let members: Vec<_> = self.members.iter().cloned().collect();
        self.say_members(session, &members);
        for rooms in directory::rooms::chunks(self.records.iter()) {
            self.say(session, &Frame::Rooms { rooms });
        }
    }

    /// A server tells what it knows of members.
    pub(super) fn on_members(&mut self, members: Vec<Member>) {
        for member in members {
            let (id, boot, left) = (member.id, member.boot, member.left);
            if id == self.me.id {
                if boot == self.me.boot && left && self.leaving.is_none() {
                    self.leave(super::leave::Why::Retired);
                }
                continue;
            }
            if !self.members.merge(member) {
                continue;
            }
            let origin = Origin { id, boot };
            if !left {
                self.seek(origin);
            } else if self.peers.get(&id).is_some_and(|peer| peer.origin == origin) || !self.is_dead(origin) {
                self.member_left(origin);
            }
        }
    }

    /// A member has left for good: no alarm, no reconnecting.
    fn member_left(&mut self, origin: Origin) {
        self.heartbeat.gone(origin.id);
        self.probations.dead(origin.id, self.now);
        if self.granted_now() == Some(origin.id) {
            self.granted = None;
        }
        self.forget_boot(origin.id);
        self.update_view();
        self.live_changed(&[Change::Dead { peer: origin, silent: Duration::ZERO }]);
    }

    /// A server tells where rooms live.
    pub(super) fn on_rooms(&mut self, session: SessionId, rooms: Vec<RoomRecord>) {
        let mut behind = Vec::new();
        for record in rooms {
            let name = record.room.clone();
            let fence = record.fence;
            if self.records.merge(record) {
                self.record_changed(&name);
            } else if let Some(known) = self.records.get(&name).filter(|known| known.fence > fence) {
                behind.push(known.clone());
            } else {
                self.repeat_handoff(&name);
            }
        }
        if !behind.is_empty() {
            for rooms in directory::rooms::chunks(&behind) {
                self.say(session, &Frame::Rooms { rooms });
            }
        }
    }

    /// A room's record has changed: everything that hangs on it follows.
    pub(super) fn record_changed(&mut self, name: &RoomName) {
        self.placing.remove(name);
        if self.room(name).is_some() {
            self.rejoin(name);
            self.settle_upstream(name);
            self.answer_joins(name);
        }
    }

    /// Decides anew whom each room is followed at.
    pub(super) fn settle_all(&mut self) {
        self.find_ways();
        let names: Vec<_> = self.rooms.keys().cloned().collect();
        for name in &names {
            self.settle_upstream(name);
        }
    }
}
