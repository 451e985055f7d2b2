//! Invariant 22: two clusters older than 60 s that hold messages never merge by themselves, but only where an operator
//! brings servers of one into the other.
//!
//! A server goes over on what it heard a moment ago: the age and the first message of a cluster count only after
//! [`HEARSAY`].

use std::collections::{BTreeMap, BTreeSet};

use hobnob_proto::{
    ids::ClusterId,
    time::{Duration, Time},
};

use super::Invariant;
use crate::facts::{Fact, Process};

/// A cluster is old from here on.
const OLD: Duration = Duration::from_mins(1);
/// How old what a server acts on may be: it stood still for 5 s, with HELLOs of 2 s before in its socket, and the
/// handshake took its time.
const HEARSAY: Duration = Duration::from_secs(15);

/// A cluster as it is known from outside.
#[derive(Debug)]
struct Known {
    since: Time,
    first_message: Option<Time>,
    servers: BTreeSet<Process>,
}

/// The invariant.
#[derive(Debug, Default)]
pub struct StayTwo {
    clusters: BTreeMap<ClusterId, Known>,
    of: BTreeMap<Process, ClusterId>,
    /// Where operators have asked servers to go that have not refused.
    joins: BTreeMap<Process, ClusterId>,
    /// Two clusters met that may not merge.
    met: bool,
}

impl StayTwo {
    /// Whether a cluster may not merge any more.
    fn is_settled(&self, cluster: ClusterId, now: Time) -> bool {
        self.clusters.get(&cluster).is_some_and(|known| {
            let talks = known.first_message.is_some_and(|at| now.since(at) >= HEARSAY);
            talks && now.since(known.since) >= OLD + HEARSAY
        })
    }

    fn leave(&mut self, server: Process) -> Option<ClusterId> {
        let before = self.of.remove(&server)?;
        let known = self.clusters.get_mut(&before)?;
        known.servers.remove(&server);
        if known.servers.is_empty() {
            // Nobody is left who could hold anything.
            self.clusters.remove(&before);
        }
        Some(before)
    }
}

impl Invariant for StayTwo {
    fn name(&self) -> &'static str {
        "i22_old_clusters_stay_two"
    }

    fn judged(&self) -> bool {
        self.met
    }

    fn observe(&mut self, fact: &Fact<'_>, now: Time) -> Result<(), String> {
        match fact {
            Fact::Belongs { server, cluster } => {
                let before = self.of.get(server).copied().filter(|before| before != cluster);
                let before = before.filter(|_| self.joins.get(server) != Some(cluster));
                if before.is_some_and(|before| self.is_settled(before, now)) && self.is_settled(*cluster, now) {
                    return Err(format!("server {} goes over from {before:?} to {cluster:?}", server.of));
                }
                self.leave(*server);
                self.of.insert(*server, *cluster);
                let new = || Known { since: now, first_message: None, servers: BTreeSet::new() };
                self.clusters.entry(*cluster).or_insert_with(new).servers.insert(*server);
            }
            Fact::Held { server, .. } => {
                let known = self.of.get(server).and_then(|cluster| self.clusters.get_mut(cluster));
                if let Some(known) = known {
                    known.first_message.get_or_insert(now);
                }
            }
            Fact::Weather { calm: true } => {
                let settled = self.clusters.keys().filter(|cluster| self.is_settled(**cluster, now));
                self.met |= settled.count() > 1;
            }
            Fact::Joins { server, to } => {
                self.joins.insert(*server, *to);
            }
            Fact::JoinsNot { server } => {
                self.joins.remove(server);
            }
            Fact::Crashed { server } | Fact::Left { server } => {
                self.leave(*server);
                self.joins.remove(server);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::history::{entry, first_bad, process};

    #[test]
    fn two_old_clusters_that_merge_are_seen() {
        fn check(talks: &[usize], secs: usize, expected: bool) {
            let entry = entry(1, 1, 1, 5, "x");
            let belongs = |of, cluster| Fact::Belongs { server: process(of), cluster: ClusterId(cluster) };
            let mut facts = vec![belongs(1, 1), belongs(2, 2), belongs(3, 1)];
            facts.extend(talks.iter().map(|of| Fact::Held { server: process(*of), own: true, entry: &entry }));
            facts.extend((0..secs).map(|_| Fact::Weather { calm: true }));
            facts.push(belongs(3, 2));
            let bad = first_bad(&mut StayTwo::default(), &facts);
            assert_eq!(bad.is_some(), expected, "{talks:?} {secs}");
        }
        check(&[1, 2], 80, true);
        check(&[1, 2], 40, false);
        check(&[1], 80, false);
        check(&[2], 80, false);
    }

    #[test]
    fn an_operator_may_bring_over_the_server_that_was_asked_unless_it_refuses() {
        fn check(asked: usize, to: u128, refuses: bool, expected: bool) {
            let entry = entry(1, 1, 1, 5, "x");
            let belongs = |of, cluster| Fact::Belongs { server: process(of), cluster: ClusterId(cluster) };
            let mut facts = vec![belongs(1, 1), belongs(2, 2), belongs(3, 1)];
            facts.extend([1, 2].map(|of| Fact::Held { server: process(of), own: true, entry: &entry }));
            facts.extend((0..80).map(|_| Fact::Weather { calm: true }));
            let server = process(asked);
            facts.push(Fact::Joins { server, to: ClusterId(to) });
            facts.extend(refuses.then_some(Fact::JoinsNot { server }));
            facts.push(belongs(1, 2));
            assert_eq!(first_bad(&mut StayTwo::default(), &facts).is_some(), expected, "{asked} {to} {refuses}");
        }
        check(1, 2, false, false);
        check(1, 2, true, true);
        check(3, 2, false, true);
        check(1, 3, false, true);
    }

    #[test]
    fn a_server_that_was_restarted_may_go_anywhere() {
        let entry = entry(1, 1, 1, 5, "x");
        let belongs = |server, cluster| Fact::Belongs { server, cluster: ClusterId(cluster) };
        let mut facts = vec![belongs(process(1), 1), belongs(process(2), 2), belongs(process(3), 1)];
        facts.extend([1, 2].map(|of| Fact::Held { server: process(of), own: true, entry: &entry }));
        facts.extend((0..80).map(|_| Fact::Weather { calm: true }));
        facts.push(Fact::Crashed { server: process(3) });
        let again = Process { of: 3, run: 2 };
        facts.extend([belongs(again, 3), belongs(again, 2)]);
        assert_eq!(first_bad(&mut StayTwo::default(), &facts), None);
    }
}
