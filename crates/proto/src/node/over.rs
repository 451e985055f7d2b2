//! Over to another cluster, where an operator says so: the last step of leaving our own.
//!
//! ```text
//! joiner                     other cluster          own cluster, own clients
//!   | Connect (repeated) ------> |                      |  until a session stands, or 5 s are over: then it stays
//!   | <------------------ Up --- |                      |  it is of the other cluster now, as another boot
//!   | Servers ----------------------------------------> |  its clients stay with it, and drop their old standbys
//!   | Members: I have left (3 times, from 50 ms on) --> |  in packets that were sealed before those sessions ended
//! ```
//!
//! It does not say that it has left, and is a member that is down, where not enough others held what it held after 10 s. Nor
//! where any of those has died since whose copies counted then: it may be one that held it.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    Node, Output, Timer,
    leave::{GOODBYES, Leaving, STEP, Step},
    peers::Peer,
    probation::Probations,
};
use crate::{
    discovery::Foreign,
    ids::{Boot, ClusterId},
    time::{Duration, Time},
    wire::{Frame, frame::Member},
};

/// How long a server of another cluster is called that we are to come over to.
const GO_OVER_MAX: Duration = Duration::from_secs(5);

/// A word for somebody with whom we have no session any more.
#[derive(Debug)]
pub(super) struct Goodbye {
    at: Time,
    to: SocketAddr,
    sealed: Vec<u8>,
}

impl Node {
    /// Calls the other cluster, until a session with it stands: then we are of that one. Where none does, we stay.
    pub(super) fn go_over(&mut self, cluster: ClusterId, since: Time) {
        if self.now.since(since) > GO_OVER_MAX {
            return self.stay();
        }
        self.timers.set(Timer::Leave, self.now + STEP);
        let known = self.discovery.foreign(self.now).find(|foreign| foreign.cluster == cluster);
        if let Some(contact) = known.and_then(|Foreign { contact, .. }| contact.clone()) {
            self.come_over(&contact);
        }
    }

    /// Nobody of the other cluster has answered: we are what we were, and a copy again.
    fn stay(&mut self) {
        self.leaving = None;
        self.stop_calling();
        self.granted.take_if(|granted| granted.server == self.me.id);
        self.count("join_unanswered");
        let names: Vec<_> = self.rooms.keys().cloned().collect();
        for name in &names {
            // What came meanwhile was not acknowledged: the answer to a join is followed by all that we have kept.
            self.rejoin(name);
        }
        self.update_view();
    }

    /// Forgets the calls to other clusters: an answer that comes late is not to take us over.
    pub(super) fn stop_calling(&mut self) {
        let elsewhere = self.connecting.iter().filter(|(_, call)| call.cluster.id != self.cluster.id);
        let sessions: Vec<_> = elsewhere.map(|(session, _)| *session).collect();
        for session in sessions {
            self.endpoint.close(session);
            self.on_closed(session);
        }
    }

    /// As whom we call a server of another cluster, or of ours. Who goes over because an operator says so leaves its own for
    /// good in the boot that it had, whichever cluster it comes to, and may be brought back.
    pub(super) fn boot_for(&mut self, cluster: ClusterId) -> Boot {
        let is_over = matches!(&self.leaving, Some(Leaving { step: Step::Over { .. }, .. }));
        let secs = self.cluster_millis() / 1000;
        let leaves = is_over && cluster != self.cluster.id;
        if leaves { Boot::new(secs, Some(self.me.boot), &mut self.rng) } else { self.me.boot }
    }

    /// Whether enough others held what we held, and none of those whose copies counted then has died since.
    fn may_say_farewell(&self) -> bool {
        let Some(Leaving { step: Step::Over { kept_by: Some(keepers), .. }, .. }) = &self.leaving else { return false };
        let here: BTreeSet<_> = self.heartbeat.live().chain(self.heartbeat.unheard()).collect();
        keepers.is_subset(&here)
    }

    /// We become `next` elsewhere: readies the word that this boot has left for all whom we have a session with, since there
    /// are no such sessions any more when they hear it. That is in a moment, a few times: our clients hear first where we
    /// are, and are not called back.
    pub(super) fn say_farewell(&mut self, next: Boot) {
        self.goodbyes.clear();
        if next == self.me.boot || !self.may_say_farewell() {
            return;
        }
        let me = Member { left: true, ..self.myself() };
        let line = Frame::Members { members: vec![me] }.to_line();
        let sessions: Vec<_> = self.peers.values().filter_map(Peer::session).collect();
        for n in 1..=GOODBYES {
            let at = self.now + STEP * n;
            let sealed = sessions.iter().filter_map(|session| self.endpoint.seal(*session, line.as_bytes()));
            self.goodbyes.extend(sealed.map(|(to, sealed)| Goodbye { at, to, sealed }));
        }
        if !self.goodbyes.is_empty() {
            self.timers.set(Timer::Goodbye, self.now + STEP / 2);
        }
    }

    /// Sends those that are due; before them, since a word may have been lost, our clients hear again where we are.
    pub(super) fn send_goodbyes(&mut self) {
        self.tell_servers();
        while let Some(Goodbye { to, sealed, .. }) = self.goodbyes.pop_front_if(|goodbye| goodbye.at <= self.now) {
            self.out.push_back(Output::Send { to, bytes: sealed });
        }
        if let Some(next) = self.goodbyes.front() {
            self.timers.set(Timer::Goodbye, next.at);
        }
    }

    /// We are of another cluster now: who was to be brought over has been. Whom it remembers by their ids are others there;
    /// where two clusters unite by themselves, they are mostly the same.
    pub(super) fn has_gone_over(&mut self) {
        if self.joins().is_some() {
            self.leaving = None;
            self.probations = Probations::default();
            self.timers.clear(&Timer::Leave);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::leave::Why;
    use super::*;
    use crate::config::ServerConfig;

    #[test]
    fn who_goes_over_is_another_boot_whichever_cluster_it_comes_to() {
        let mut node = Node::new(ServerConfig::sample(1), [1; 32], Time::ZERO);
        let (boot, ours) = (node.me.boot, node.cluster.id);
        assert_eq!(node.boot_for(ClusterId(8)), boot);
        node.leave(Why::Joins(ClusterId(9)));
        assert!(node.boot_for(ClusterId(8)) > boot && node.boot_for(ClusterId(9)) > boot);
        assert_eq!(node.boot_for(ours), boot);
    }
}
