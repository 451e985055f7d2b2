//! What a run has met: states, transitions, frames, faults, and causes for which something was dropped. A sweep that never
//! met something has not tested it.

use std::collections::{BTreeMap, BTreeSet};

use hobnob_proto::{
    client::Client,
    node::{Node, view::Role},
    session::Talk,
};

use crate::{
    link::Network,
    noise::Outsider,
    profile::{Profile, Rogue},
};

/// What a sweep of many runs has to meet.
pub const MUST: &[&str] = &[
    // Frames between followers and followed, clients and servers, servers.
    "said entry",
    "said fragment",
    "said pull",
    "said pulled",
    "said cursor",
    "said heads",
    "said join",
    "said joined",
    "said post",
    "said ack",
    "said hi",
    "said bye",
    "said ping",
    "said pong",
    "said welcome",
    "said servers",
    "said hi_first",
    "said come",
    "said beat",
    "said election",
    "said rooms",
    "said members",
    "said assign",
    "said place",
    "said sync_req",
    "said sync_rep",
    "said clients",
    "said clients_req",
    "said compare",
    "said handoff",
    "said handed",
    "said leave",
    "said leaving",
    "heard entry",
    "heard fragment",
    "heard pull",
    "heard pulled",
    "heard cursor",
    "heard heads",
    "heard join",
    "heard joined",
    "heard post",
    "heard ack",
    "heard hi",
    "heard bye",
    "heard ping",
    "heard pong",
    "heard welcome",
    "heard servers",
    "heard hi_first",
    "heard come",
    "heard beat",
    "heard election",
    "heard rooms",
    "heard members",
    "heard assign",
    "heard place",
    "heard sync_req",
    "heard sync_rep",
    "heard clients",
    "heard clients_req",
    "heard compare",
    "heard handoff",
    "heard handed",
    "heard leave",
    "heard leaving",
    // States.
    "server joining",
    "server serving",
    "server leaving",
    "leader has let one leave",
    "detour",
    "session calling",
    "session half-open",
    "session up",
    "room nowhere",
    "room opening",
    "room home",
    "room joining",
    "room followed",
    "room handed over",
    "client searching",
    "client calling",
    "client says hi",
    "client served",
    "client with a standby",
    "client on its way",
    "client looks up",
    "client compares servers",
    // Transitions of the election.
    "Joining > Follower",
    "Joining > Electing",
    "Follower > Electing",
    "Electing > Syncing",
    "Syncing > Leader",
    "Electing > Follower",
    "Electing > AwaitingCoordinator",
    "AwaitingCoordinator > Follower",
    "Leader > Follower",
    // Faults.
    "fault crash",
    "fault start",
    "fault leave",
    "fault flapping",
    "fault cut",
    "fault pause",
    "fault slow",
    "fault sleep",
    "fault clock stood still",
    "fault clock went on",
    "fault client roams",
    "fault server roams",
    "fault replaced",
    "fault future frames",
    "fault garbage",
    "fault wall clock is off",
    "fault wall clock stands still",
    "fault wall clock went back",
    "fault wall clock went on",
    "fault lost",
    "fault doubled",
    "fault overtaken",
    "fault delayed",
    "fault cut off",
    "fault bent",
    "fault replayed",
    "fault forged",
    "fault stranger",
    // Faults of disks.
    "fault disk stalls",
    "fault disk full",
    "fault writes lost",
    "fault writes torn",
    "fault rot",
    "fault disk wiped",
    "fault power off",
    // Causes.
    "cause replayed",
    "cause seal_bad",
    "cause session_unknown",
    "cause handshake_bad",
    "cause frame_bad",
    "cause hello_of_old_boot",
    "cause clock_behind",
    // What operators do.
    "operator retires a dead server",
    "operator joins two clusters",
    // What people do.
    "follows from the beginning",
    "follows after a cursor",
    "follows the last posts",
    "follows since a time",
    "two clusters",
    "a server alone",
    "more than seven servers",
    "more than eight clients",
    "nobody talks",
];

/// What a sweep may meet besides, and says so where it did not.
pub const MAY: &[&str] = &[
    "said refuse",
    "heard refuse",
    "said not_welcome",
    "said ask",
    "said answer",
    "said answer_error",
    "said retire",
    "said collision",
    "heard collision",
    "heard not_welcome",
    "heard ask",
    "heard answer",
    "heard answer_error",
    "server choosing",
    "server stopped",
    "session rekeying",
    "client has left a server",
    "client rekeying",
    "Leader > Electing",
    "Syncing > Follower",
    "Electing > Joining",
    "AwaitingCoordinator > Electing",
    "Follower > Joining",
    "Leader > Joining",
    "Follower > Syncing",
    "Joining > Syncing",
    "Joining > Leader",
];

/// What was met, and how often.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    met: BTreeMap<String, u64>,
}

impl Coverage {
    /// What is met by the choice of a run alone.
    pub fn of(profile: &Profile) -> Self {
        let mut coverage = Self::default();
        let wall = |is_so: fn(&crate::profile::WallProfile) -> bool| profile.walls.iter().any(is_so);
        let choices = [
            ("two clusters", profile.is_split(profile.phases.heal)),
            ("a server alone", profile.ids.len() == 1),
            ("more than seven servers", profile.ids.len() > 7),
            ("more than eight clients", profile.clients > 8),
            ("nobody talks", profile.clients == 0),
            ("fault stranger", !profile.rogues.is_empty()),
            ("stranger without a secret", profile.rogues.contains(&Rogue::Open)),
            ("stranger with another secret", profile.rogues.contains(&Rogue::OtherSecret)),
            ("fault wall clock is off", wall(|wall| wall.off_secs.abs() > 86_400)),
            ("fault wall clock stands still", wall(|wall| wall.stands)),
        ];
        for (what, _) in choices.into_iter().filter(|(_, is_so)| *is_so) {
            coverage.meet(what);
        }
        coverage
    }

    /// Somebody is in these states.
    pub fn states(&mut self, states: &[&'static str]) {
        for state in states {
            self.meet(state);
        }
    }

    /// All that a server has said and counted in its time.
    pub fn part_with_server(&mut self, node: &Node) {
        self.causes(&node.counters());
        node.talk().into_iter().for_each(|talk| self.talk(talk));
    }

    /// All that a client has said and counted in its time.
    pub fn part_with_client(&mut self, client: &Client) {
        self.causes(&client.counters());
        client.talk().into_iter().for_each(|talk| self.talk(talk));
    }

    /// What the network has done to packets, and an outsider.
    pub fn network(&mut self, network: &Network, outsider: &Outsider) {
        for (fault, times) in network.faults().into_iter().chain(outsider.faults()) {
            self.meet_often(fault, times);
        }
    }

    /// It was met.
    pub fn meet(&mut self, what: &str) {
        self.meet_often(what, 1);
    }

    /// It was met so often.
    pub fn meet_often(&mut self, what: &str, times: u64) {
        match self.met.get_mut(what) {
            Some(count) => *count += times,
            None => drop((times > 0).then(|| self.met.insert(what.to_owned(), times))),
        }
    }

    /// Somebody in the election has gone on from one state to another.
    pub fn elects(&mut self, from: Role, to: Role) {
        if from != to {
            self.meet(&format!("{from:?} > {to:?}"));
        }
    }

    /// Frames were said and heard.
    pub fn talk(&mut self, talk: &Talk) {
        let said = talk.said.iter().map(|(kind, times)| ("said", kind, times));
        for (verb, kind, times) in said.chain(talk.heard.iter().map(|(kind, times)| ("heard", kind, times))) {
            self.meet_often(&format!("{verb} {kind}"), *times);
        }
    }

    /// Something was dropped so often, or was otherwise worth counting, for these causes.
    pub fn causes(&mut self, counters: &BTreeMap<&'static str, u64>) {
        for (cause, times) in counters {
            self.meet_often(&format!("cause {cause}"), *times);
        }
    }

    /// What others have met was met here too.
    pub fn add(&mut self, other: &Self) {
        for (what, times) in &other.met {
            self.meet_often(what, *times);
        }
    }

    /// What was met, and how often.
    pub fn met(&self) -> &BTreeMap<String, u64> {
        &self.met
    }

    /// What of a list was never met.
    pub fn gaps(&self, list: &[&'static str]) -> BTreeSet<&'static str> {
        list.iter().copied().filter(|what| !self.met.contains_key(*what)).collect()
    }
}

impl FromIterator<(String, u64)> for Coverage {
    fn from_iter<I: IntoIterator<Item = (String, u64)>>(met: I) -> Self {
        Self { met: met.into_iter().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_met_is_a_gap() {
        let mut coverage = Coverage::default();
        coverage.meet("said beat");
        coverage.elects(Role::Follower, Role::Follower);
        coverage.elects(Role::Follower, Role::Electing);
        coverage.meet_often("cause replayed", 0);
        let list = ["said beat", "Follower > Electing", "Follower > Follower", "cause replayed"];
        assert_eq!(coverage.gaps(&list), BTreeSet::from(["Follower > Follower", "cause replayed"]));
    }

    #[test]
    fn each_thing_is_listed_once() {
        let all: Vec<_> = MUST.iter().chain(MAY).collect();
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    }
}
