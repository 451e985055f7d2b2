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

    /// Whether nobody else can be in the cluster that we open again: a server becomes a member by a session with one, and
    /// there has been no other. Then there is nobody to listen for. A cluster in which nothing was said may go over to
    /// another one, so it listens as a new one does.
    pub(super) fn is_sole_member(&self) -> bool {
        let is_alone = self.members.iter().all(|member| member.id == self.me.id);
        self.has_reopened && !self.cluster.is_empty() && is_alone && self.config.peers.is_empty()
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

#[cfg(test)]
mod tests {
    use super::super::{Event, Input, Output};
    use super::*;
    use crate::{
        config::ServerConfig,
        hlc::Hlc,
        ids::{Boot, ClusterId, Origin, RoomName, ServerId},
        log::VersionVector,
        time::{Duration, Time},
        wire::frame::Member,
    };

    /// After how many milliseconds a server is ready that starts with these members and entries on a disk that takes 5 ms.
    fn ready_after(members: &[u32], entries: u64, peers: usize) -> u64 {
        ready(members, entries, peers).1
    }

    fn ready(members: &[u32], entries: u64, peers: usize) -> (Node, u64) {
        let member =
            |id| Member { id: ServerId(id), boot: Boot(1), left: false, memory: false, n: 1, addrs: Vec::new() };
        let origin = Origin { id: ServerId(1), boot: Boot(1) };
        let head = Head {
            room: RoomName::lobby(),
            held: [(origin, entries)].into_iter().collect(),
            floors: VersionVector::default(),
            newest: (Hlc::default(), origin, entries),
            entries,
            lost: Vec::new(),
        };
        let store = Restored {
            id: Some(ServerId(1)),
            boot: Some(Boot(2)),
            cluster: Some(ClusterId(7)),
            term: 3,
            members: members.iter().copied().map(member).collect(),
            rooms: Vec::new(),
            logs: vec![head],
        };
        let peers = vec![([192, 0, 2, 1], 1).into(); peers];
        let config = ServerConfig { id: None, peers, store: Some(store), ..ServerConfig::sample(1) };
        let mut node = Node::new(config, [1; 32], Time::ZERO);
        let (mut written, mut durable) = (0, Vec::new());
        for millis in 0..3_000 {
            let now = Time::from_micros(millis * 1_000);
            for (_, through) in durable.extract_if(.., |(at, _)| *at <= now) {
                node.handle(Input::Durable { through }, now);
            }
            node.handle(Input::Tick, now);
            while let Some(output) = node.poll() {
                match output {
                    Output::Event(Event::Ready { .. }) => return (node, millis),
                    Output::Persist(_) => {
                        written += 1;
                        durable.push((now + Duration::from_millis(5), written));
                    }
                    _ => {}
                }
            }
        }
        (node, u64::MAX)
    }

    #[test]
    fn whoever_did_not_listen_gives_way_for_two_seconds() {
        fn check(members: &[u32], millis: u64, expected: bool) {
            let (mut node, ready_at) = ready(members, 9, 0);
            node.handle(Input::Tick, Time::from_micros(millis.max(ready_at) * 1_000));
            assert_eq!(node.is_starting(), expected, "{members:?} after {millis} ms");
        }
        check(&[1], 0, true);
        check(&[1], 1_900, true);
        check(&[1], 2_000, false);
        check(&[1, 2], 0, false);
    }

    #[test]
    fn whoever_was_alone_in_its_cluster_waits_for_nobody() {
        assert!(ready_after(&[1], 9, 0) < 50);
        assert!(ready_after(&[1], 0, 0) >= 300, "it may go over to another cluster");
        assert!(ready_after(&[1, 2], 9, 0) >= 300, "another may be there");
        assert!(ready_after(&[1], 9, 1) >= 300, "somebody is named");
    }
}
