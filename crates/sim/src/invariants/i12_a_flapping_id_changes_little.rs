//! Invariant 12: a top id that is killed again and again causes at most two changes of leader for each probation served.
//!
//! Judged from outside, while the network is quiet otherwise, at each server that stays up. A probation takes
//! [`PROBATION_MIN`] at least, so a run of the flapping server that was shorter has served none. Its first death is one
//! change; each time that it has served, it may take over, and die, which are two more. Whoever goes over to another cluster
//! meets the leader of that one: that is no change.

use std::collections::BTreeMap;

use hobnob_proto::{
    ids::{ClusterId, ServerId},
    time::{Duration, Time},
};

use super::Invariant;
use crate::facts::{Fact, Process};

/// No probation is shorter.
pub const PROBATION_MIN: Duration = Duration::from_secs(5);

/// A server that is killed again and again.
#[derive(Debug)]
struct Flapping {
    of: usize,
    /// When its current run began.
    since: Option<Time>,
    served: u32,
    changes: BTreeMap<Process, u32>,
}

/// The invariant.
#[derive(Debug, Default)]
pub struct LittleChange {
    leaders: BTreeMap<Process, (Option<ClusterId>, ServerId)>,
    flapping: Option<Flapping>,
    /// A leader has changed while a server flapped.
    counted: bool,
}

impl Invariant for LittleChange {
    fn name(&self) -> &'static str {
        "i12_a_flapping_id_changes_little"
    }

    fn judged(&self) -> bool {
        self.counted
    }

    fn observe(&mut self, fact: &Fact<'_>, now: Time) -> Result<(), String> {
        match fact {
            Fact::Flaps { server, on } => {
                let of = *server;
                self.flapping = on.then(|| Flapping { of, since: None, served: 0, changes: BTreeMap::new() });
            }
            Fact::Started { server } => {
                if let Some(flapping) = self.flapping.as_mut().filter(|flapping| flapping.of == server.of) {
                    flapping.since = Some(now);
                }
            }
            Fact::Crashed { server } | Fact::Left { server } => {
                self.leaders.remove(server);
                if let Some(flapping) = self.flapping.as_mut().filter(|flapping| flapping.of == server.of) {
                    let has_served = flapping.since.take().is_some_and(|since| now.since(since) >= PROBATION_MIN);
                    flapping.served += u32::from(has_served);
                }
            }
            Fact::Accepted { server, cluster, epoch } => {
                let before = self.leaders.insert(*server, (*cluster, epoch.leader));
                let Some(flapping) = self.flapping.as_mut().filter(|flapping| flapping.of != server.of) else {
                    return Ok(());
                };
                if before.is_none_or(|(of, leader)| of != *cluster || leader == epoch.leader) {
                    return Ok(());
                }
                let serves = flapping.since.is_some_and(|since| now.since(since) >= PROBATION_MIN);
                let served = flapping.served + u32::from(serves);
                let changes = flapping.changes.entry(*server).or_default();
                *changes += 1;
                self.counted = true;
                if *changes > 2 * (served + 1) {
                    return Err(format!(
                        "server {} changes its leader {changes} times while server {} flaps, which has served {served} \
                         probations",
                        server.of, flapping.of
                    ));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use hobnob_proto::wire::frame::Epoch;

    use super::*;
    use crate::invariants::history::{epoch, first_bad, process};

    fn accepted(of: usize, term: u64, leader: u32) -> Fact<'static> {
        let epoch = Epoch { leader: ServerId(leader), ..epoch(term) };
        Fact::Accepted { server: process(of), cluster: None, epoch }
    }

    #[test]
    fn to_go_over_to_another_cluster_is_no_change() {
        let accepted = |term: u64, cluster| match accepted(1, term, 1 + (term % 2) as u32) {
            Fact::Accepted { server, epoch, .. } => Fact::Accepted { server, cluster: Some(ClusterId(cluster)), epoch },
            other => other,
        };
        let flaps = |cluster: fn(u64) -> u128| {
            let changes = (1..20).map(|term| accepted(term, cluster(term)));
            [Fact::Flaps { server: 3, on: true }].into_iter().chain(changes).collect::<Vec<_>>()
        };
        assert_eq!(first_bad(&mut LittleChange::default(), &flaps(u128::from)), None);
        assert_eq!(first_bad(&mut LittleChange::default(), &flaps(|_| 1)), Some(4));
    }

    /// Server 3 is up for so many seconds each time, leads at once, and dies.
    fn flaps(up_secs: usize, times: u64) -> Option<usize> {
        let run = |run: u32| Process { of: 3, run };
        let mut facts = vec![accepted(1, 1, 3), Fact::Flaps { server: 3, on: true }, Fact::Crashed { server: run(1) }];
        for n in 0..times {
            facts.push(accepted(1, 2 + 2 * n, 2));
            facts.push(Fact::Started { server: run(2 + n as u32) });
            facts.extend((0..up_secs).map(|_| Fact::Weather { calm: true }));
            facts.push(accepted(1, 3 + 2 * n, 3));
            facts.push(Fact::Crashed { server: run(2 + n as u32) });
        }
        first_bad(&mut LittleChange::default(), &facts)
    }

    #[test]
    fn a_server_that_takes_over_each_time_it_comes_back_is_seen() {
        assert_eq!(flaps(0, 1), None, "its first death, and that it is back");
        assert_eq!(flaps(0, 2), Some(7), "it did not wait");
        assert_eq!(flaps(6, 4), None, "it served each time");
    }

    #[test]
    fn changes_count_only_while_a_server_flaps_and_not_at_itself() {
        let changes = |of| (1..20).map(move |term| accepted(of, term, 1 + (term % 2) as u32));
        assert_eq!(first_bad(&mut LittleChange::default(), &changes(1).collect::<Vec<_>>()), None);
        let flaps = |of| [Fact::Flaps { server: 3, on: true }].into_iter().chain(changes(of)).collect::<Vec<_>>();
        assert_eq!(first_bad(&mut LittleChange::default(), &flaps(3)), None);
        assert_eq!(first_bad(&mut LittleChange::default(), &flaps(1)), Some(4));
    }
}
