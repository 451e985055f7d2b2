//! Leaving: how a server hands everything over before it stops.
//!
//! ```text
//! leaver                            leader
//!   | Leave (repeated) ----------------> |  one at a time
//!   | <------------- Assign, Leaving --- |  its rooms have other homes
//!   | Compare -------> all               |
//!   | <------- Heads (what they hold) -- |  until enough others hold all that the leaver holds
//!   | Members: I have left -> all        |
//! ```
//!
//! Who cannot finish within 10 s, or is the last one, stops without having left: a member that is down.

use std::collections::BTreeMap;

use super::{Node, Stage, Stop, Timer};
use crate::{
    ids::ServerId,
    session::SessionId,
    time::{Duration, Time},
    wire::{
        Frame,
        frame::{Epoch, Member, Vectors},
    },
};

/// How long leaving may take.
const LEAVE_MAX: Duration = Duration::from_secs(10);
/// Between two steps.
const STEP: Duration = Duration::from_millis(50);
/// How often the others are told that we have left: a single datagram may be lost.
const GOODBYES: u32 = 3;

/// Why a server leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its process is asked to stop.
    Asked,
    /// An operator has retired it.
    Retired,
}

/// How far leaving has come.
#[derive(Debug)]
pub(super) struct Leaving {
    why: Why,
    since: Time,
    granted: bool,
    /// What others hold, as they said since we have the leader's leave.
    held: BTreeMap<ServerId, Vectors>,
    goodbyes: u32,
}

/// Whom the leader lets leave now.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) server: ServerId,
    until: Time,
}

impl Node {
    /// Starts to leave.
    pub(super) fn leave(&mut self, why: Why) {
        if self.leaving.is_some() {
            return;
        }
        if self.stage != Stage::Serving || self.heartbeat.live().next().is_none() {
            return self.leave_alone(why);
        }
        self.leaving = Some(Leaving { why, since: self.now, granted: false, held: BTreeMap::new(), goodbyes: 0 });
        self.update_view();
        self.step_leave();
    }

    /// Stops, where nobody is there to take anything over.
    fn leave_alone(&mut self, why: Why) {
        let messages = self.rooms.values().any(|room| !room.log.is_empty());
        self.stop(if why == Why::Retired { Stop::Retired } else { Stop::LeftAlone { messages } });
    }

    /// The next step, until it is done.
    pub(super) fn step_leave(&mut self) {
        let Some(leaving) = &self.leaving else { return };
        let (why, since) = (leaving.why, leaving.since);
        let (granted, goodbyes) = (leaving.granted, leaving.goodbyes);
        if self.heartbeat.live().next().is_none() {
            return self.leave_alone(why);
        }
        if self.now.since(since) > LEAVE_MAX {
            return self.stop(Stop::LeftUnfinished);
        }
        self.timers.set(Timer::Leave, self.now + STEP);
        if goodbyes > 0 {
            self.say_goodbye();
        } else if !granted {
            self.ask_leave();
        } else if self.records.iter().any(|record| record.fence.home == self.me) {
            self.hand_over();
        } else if self.is_covered() {
            self.send_clients_away();
            self.say_goodbye();
        } else {
            let sessions: Vec<_> = self.heartbeat.live().collect();
            for peer in sessions {
                if let Some(session) = self.peers.get(&peer.id).and_then(super::peers::Peer::session) {
                    self.compare_with(session);
                }
            }
        }
    }

    /// Asks the leader; a leader grants its own leave, when nobody else is leaving.
    fn ask_leave(&mut self) {
        if let Some(session) = self.leader_session() {
            self.say(session, &Frame::Leave);
        } else if self.election.leader() == Some(self.me.id) && self.granted_now().is_none() {
            self.granted = Some(Granted { server: self.me.id, until: self.now + LEAVE_MAX });
            self.hand_over();
            if let Some(leaving) = &mut self.leaving {
                leaving.granted = true;
            }
        }
    }

    /// Whom the leader lets leave at this moment.
    pub(super) fn granted_now(&self) -> Option<ServerId> {
        self.granted.as_ref().filter(|granted| self.now < granted.until).map(|granted| granted.server)
    }

    /// A server wants to leave: one at a time.
    pub(super) fn on_leave(&mut self, session: SessionId, id: ServerId) {
        if !self.is_leader() || self.granted_now().is_some_and(|granted| granted != id) {
            return;
        }
        self.granted = Some(Granted { server: id, until: self.now + LEAVE_MAX });
        self.hand_over();
        let epoch = self.epoch();
        self.say(session, &Frame::Leaving { epoch });
    }

    /// The leader gives all rooms of the leaver to others.
    fn hand_over(&mut self) {
        if !self.is_leader() {
            return self.ask_leave();
        }
        if self.granted_now().is_some() {
            self.mend_placements();
        }
    }

    /// The leader lets us leave.
    pub(super) fn on_leaving(&mut self, id: ServerId, epoch: Epoch) {
        if epoch.leader != id || !self.election.accepts(epoch) {
            return self.count("command_of_old_epoch");
        }
        if let Some(leaving) = &mut self.leaving {
            leaving.granted = true;
        }
    }

    /// A peer says what it holds.
    pub(super) fn on_peer_heads(&mut self, id: ServerId, rooms: Vectors) {
        if let Some(leaving) = &mut self.leaving {
            let held = leaving.held.entry(id).or_default();
            for (name, vector) in rooms {
                held.entry(name).or_default().merge(&vector);
            }
        }
    }

    /// Whether enough other servers hold all that we hold.
    fn is_covered(&self) -> bool {
        let Some(leaving) = &self.leaving else { return false };
        let live = self.heartbeat.live().count();
        let wanted = (self.config.replicas as usize).min(live).max(1);
        self.rooms.iter().filter(|(_, room)| !room.log.is_empty()).all(|(name, room)| {
            let covers = |held: &&Vectors| held.get(name).is_some_and(|vector| vector.covers(room.held()));
            leaving.held.values().filter(covers).count() >= wanted
        })
    }

    /// Tells all that we have left, a few times, and stops.
    fn say_goodbye(&mut self) {
        let Some(leaving) = &mut self.leaving else { return };
        leaving.goodbyes += 1;
        let (done, why) = (leaving.goodbyes > GOODBYES, leaving.why);
        if done {
            return self.stop(if why == Why::Retired { Stop::Retired } else { Stop::Left });
        }
        let me = Member { left: true, ..self.myself() };
        self.tell_all(&Frame::Members { members: vec![me] });
    }
}
