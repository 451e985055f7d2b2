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
                self.hear_of_myself(member);
                continue;
            }
            if !self.learn_member(member) {
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

    /// What others remember of our own id is remembered here too, or directories would differ for ever: two may have had
    /// this id, or our clock has gone back. Of our addresses we alone know the newest list.
    fn hear_of_myself(&mut self, told: Member) {
        let ours = self.myself();
        let newer = (told.boot == ours.boot && told.n > ours.n).then(|| told.n.saturating_add(1));
        self.learn_member(told);
        if let Some(n) = newer {
            self.learn_member(Member { n, ..ours });
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
            if self.learn_room(record) {
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
        self.settle_each();
    }

    /// The same where the ways to others have just been found.
    pub(super) fn settle_each(&mut self) {
        let names: Vec<_> = self.rooms.keys().cloned().collect();
        for name in &names {
            self.settle_upstream(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{beats::DIRECTORY_DIFFERS, peers::Peer};
    use super::*;
    use crate::{
        config::ServerConfig,
        ids::{Boot, ServerId},
        time::Time,
        wire::frame::{Beat, Epoch},
    };

    fn server(id: u32) -> Node {
        let config = ServerConfig { addrs: vec![([192, 0, 2, 1], 1).into()], ..ServerConfig::sample(id) };
        Node::new(config, [1; 32], Time::ZERO)
    }

    fn told(node: &Node, boot: u64, left: bool, n: u32) -> Member {
        Member { id: node.me.id, boot: Boot(boot), left, memory: true, n, addrs: vec![([192, 0, 2, 9], 1).into()] }
    }

    #[test]
    fn what_others_remember_of_our_own_id_is_remembered_here_too_and_we_count() {
        let mut node = server(1);
        let later = told(&node, node.me.boot.0 + 1, true, 1);
        let mut theirs = directory::Members::new();
        theirs.merge(later.clone());
        node.on_members(vec![later]);
        assert_eq!((node.members.digest(), node.members.count()), (theirs.digest(), 1));
        assert!(node.leaving.is_none());
    }

    #[test]
    fn of_our_own_addresses_ours_is_the_newest_list() {
        let mut node = server(1);
        let stale = told(&node, node.me.boot.0, false, 7);
        node.on_members(vec![stale]);
        let member = node.members.get(node.me.id).unwrap();
        assert_eq!((member.n, &member.addrs), (8, &node.config.addrs));
    }

    #[test]
    fn a_difference_that_sharing_does_not_mend_is_shared_less_and_less() {
        let mut node = server(1);
        let session = SessionId(7);
        let beat = |directory| Beat {
            epoch: Epoch::NONE,
            led: false,
            load: 0,
            lag: 0,
            sessions: 0,
            hears: Vec::new(),
            hearsay: Vec::new(),
            eligible: true,
            may_lead: Vec::new(),
            takes_rooms: true,
            unwritable: false,
            probation: Vec::new(),
            time: 0,
            directory,
            clients: 0,
            logs: 0,
        };
        let peer = Peer::met(Origin { id: ServerId(2), boot: Boot(1) }, ([192, 0, 2, 2], 1).into(), Time::ZERO);
        node.peers.insert(ServerId(2), peer);
        let mut shared = |directory, secs: u64| {
            let mut times = 0;
            for _ in 0..secs * 10 {
                node.now = node.now + Duration::from_millis(100);
                let peer = node.peers.get_mut(&ServerId(2)).unwrap();
                peer.beat = Some(beat(directory));
                node.mend_differences(session, ServerId(2));
                times += usize::from(node.peers.get(&ServerId(2)).unwrap().directory_differs.is_none());
            }
            (times, node.peers.get(&ServerId(2)).unwrap().directory_span)
        };
        let (times, span) = shared(1, 60);
        assert!(times < 10 && span > Duration::from_secs(10), "{times} {span:?}");
        assert_eq!(shared(1, 120).1, Duration::from_secs(30));
        let (times, _) = shared(2, 1);
        assert!(times >= 1, "another difference is another matter");
        assert_eq!(DIRECTORY_DIFFERS, Duration::from_millis(300));
    }
}
