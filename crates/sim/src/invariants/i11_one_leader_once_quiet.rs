//! Invariant 11: a quiet, connected network has one leader, the highest eligible id, and all agree who that is. Where nobody is
//! eligible, whoever leads goes on.
//!
//! Nor does it change its mind: who may lead changes where a probation ends, and hardly ever else ([`Steady`]).

use hobnob_proto::{
    ids::ServerId,
    node::view::Role,
    time::{Duration, Time},
};

use super::Invariant;
use crate::facts::{Fact, Picture};

/// The invariant.
#[derive(Debug, Default)]
pub struct OneLeader {
    /// Two servers had to agree.
    shared: bool,
}

impl Invariant for OneLeader {
    fn name(&self) -> &'static str {
        "i11_one_leader_once_quiet"
    }

    fn judged(&self) -> bool {
        self.shared
    }

    fn observe(&mut self, _fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        Ok(())
    }

    fn settled(&mut self, picture: &Picture) -> Result<(), String> {
        self.led(picture)
    }

    fn led(&mut self, picture: &Picture) -> Result<(), String> {
        self.shared |= picture.servers.len() > 1;
        let Some(first) = picture.servers.first() else { return Ok(()) };
        let eligible = picture.servers.iter().filter(|server| server.eligible).map(|server| server.id).max();
        let leads = picture.servers.iter().find(|server| server.role == Role::Leader).map(|server| server.id);
        let expected = eligible.or(leads);
        if expected.is_none() {
            return Err("nobody leads".to_owned());
        }
        for server in &picture.servers {
            let id = server.id;
            if server.me.is_none_or(|me| me.id != id) {
                return Err(format!("server {id} takes itself for {:?}", server.me));
            }
            if server.cluster.is_none() || server.cluster != first.cluster {
                return Err(format!(
                    "server {id} is in {:?}, server {} in {:?}",
                    server.cluster, first.id, first.cluster
                ));
            }
            if server.leader != expected {
                return Err(format!("server {id} follows {:?} and not {expected:?}", server.leader));
            }
            if (server.role == Role::Leader) != (Some(id) == expected) {
                return Err(format!("server {id} is {:?}, and {expected:?} should lead", server.role));
            }
        }
        Ok(())
    }
}

/// After a change of who may lead, so much may pass until that one does.
const TAKE_OVER: Duration = Duration::from_secs(3);
/// In a quiet network, who may lead, or who does, may change so often where no probation ends.
const CHANGES_MAX: usize = 1;

/// Who may lead and who does, at one moment; ids in any order that is always the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Who may lead, as each server says of itself.
    pub eligible: Vec<ServerId>,
    /// Who leads, likewise.
    pub leaders: Vec<ServerId>,
    /// Who is on probation, likewise.
    pub probation: Vec<ServerId>,
}

/// Watches a network that has become quiet for changes. There may be one for each probation that was running when it
/// began to watch and has run out, and [`CHANGES_MAX`] more: else a cluster that wavers without end would be excused each
/// time.
#[derive(Debug)]
pub struct Steady {
    /// Who was on probation in the beginning.
    probation: Vec<ServerId>,
    /// As it was at the last look, and when that last changed.
    eligible: Vec<ServerId>,
    changed: Option<Time>,
    eligible_changes: usize,
    /// As it was at the last look that was judged.
    leaders: Vec<ServerId>,
    leader_changes: usize,
}

impl Steady {
    /// Watches from this moment on. Who may lead can have changed right before.
    pub fn new(first: Standing, now: Time) -> Self {
        let Standing { eligible, leaders, probation } = first;
        Self { probation, eligible, changed: Some(now), eligible_changes: 0, leaders, leader_changes: 0 }
    }

    /// Takes a look. Says whether one leader has to lead now: it has not at once after a change of who may.
    pub fn look(&mut self, seen: Standing, now: Time) -> Result<bool, String> {
        let ran_out = self.probation.iter().filter(|id| !seen.probation.contains(id)).count();
        let allowed = ran_out + CHANGES_MAX;
        if seen.eligible != self.eligible {
            self.eligible_changes += 1;
            self.changed = Some(now);
            if self.eligible_changes > allowed {
                return Err(format!(
                    "who may lead changes from {:?} to {:?}, the {}th time in a quiet network, and {ran_out} probations \
                     ran out",
                    self.eligible, seen.eligible, self.eligible_changes
                ));
            }
            self.eligible = seen.eligible;
        }
        if self.changed.is_some_and(|changed| now.since(changed) < TAKE_OVER) {
            return Ok(false);
        }
        if seen.leaders != self.leaders {
            self.leader_changes += 1;
            if self.leader_changes > allowed {
                return Err(format!(
                    "who leads changes from {:?} to {:?}, the {}th time in a quiet network, and {ran_out} probations ran \
                     out",
                    self.leaders, seen.leaders, self.leader_changes
                ));
            }
            self.leaders = seen.leaders;
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use hobnob_proto::ids::ClusterId;

    use super::*;
    use crate::{
        facts::ServerPicture,
        invariants::history::{fence, server},
    };

    #[test]
    fn two_leaders_a_low_one_none_and_two_clusters_are_seen() {
        fn check(second: ServerPicture, expected: bool) {
            let first = server(1, 2, fence(1, 1), true, &[]);
            let picture = Picture { servers: vec![first, second], ..Picture::default() };
            assert_eq!(OneLeader::default().led(&picture).is_ok(), expected, "{picture:?}");
        }
        let second = |leader| server(2, leader, fence(1, 1), false, &[]);
        check(second(2), true);
        check(second(1), false);
        check(ServerPicture { leader: None, ..second(2) }, false);
        check(ServerPicture { role: Role::Syncing, ..second(2) }, false);
        check(ServerPicture { role: Role::Leader, ..server(3, 2, fence(1, 1), false, &[]) }, false);
        check(ServerPicture { cluster: Some(ClusterId(2)), ..second(2) }, false);
        check(ServerPicture { me: None, ..second(2) }, false);
        check(ServerPicture { eligible: false, leader: Some(ServerId(2)), ..second(2) }, false);
    }

    #[test]
    fn where_nobody_is_eligible_one_leads_all_the_same() {
        fn check(roles: [Role; 2], leaders: [u32; 2], expected: bool) {
            let servers = [(1, 0), (2, 1)].map(|(id, at): (u32, usize)| {
                let picture = server(id, leaders[at], fence(1, 1), true, &[]);
                ServerPicture { eligible: false, role: roles[at], ..picture }
            });
            let picture = Picture { servers: servers.into(), ..Picture::default() };
            assert_eq!(OneLeader::default().led(&picture).is_ok(), expected, "{picture:?}");
        }
        check([Role::Follower, Role::Leader], [2, 2], true);
        check([Role::Leader, Role::Follower], [1, 1], true);
        check([Role::Leader, Role::Leader], [1, 2], false);
        check([Role::Follower, Role::Follower], [2, 2], false);
    }

    /// Looks twice a second at so many (who may lead, who leads, who is on probation); gives back how many looks were
    /// judged, or which showed too many changes.
    fn looks(history: &[(&[u32], u32, &[u32])]) -> Result<usize, usize> {
        let ids = |ids: &[u32]| ids.iter().map(|id| ServerId(*id)).collect();
        let standing = |(eligible, leader, probation): &(&[u32], u32, &[u32])| Standing {
            eligible: ids(eligible),
            leaders: vec![ServerId(*leader)],
            probation: ids(probation),
        };
        let mut steady = Steady::new(standing(&history[0]), Time::ZERO);
        let looks = history.iter().enumerate().map(|(n, seen)| {
            let now = Time::from_micros(n as u64 * 500_000);
            steady.look(standing(seen), now).map_err(|_| n).map(usize::from)
        });
        looks.sum()
    }

    #[test]
    fn a_cluster_that_wavers_is_seen_however_often_it_is_excused() {
        // Every 2 s somebody else may lead: no moment is 3 s after the last change.
        let wavering =
            |n: usize| if (n / 4).is_multiple_of(2) { (&[1, 2][..], 2, &[][..]) } else { (&[1][..], 1, &[][..]) };
        assert_eq!(looks(&(0..40).map(wavering).collect::<Vec<_>>()), Err(8));
        // Nor may it while a probation lasts that does not end.
        let on = |n: usize| (wavering(n).0, wavering(n).1, &[9][..]);
        assert_eq!(looks(&(0..40).map(on).collect::<Vec<_>>()), Err(8));
        // Nor may the leader alone.
        let leaders = |n: usize| (&[][..], [1, 2][n / 4 % 2], &[][..]);
        assert_eq!(looks(&(0..40).map(leaders).collect::<Vec<_>>()), Err(8));
    }

    #[test]
    fn each_probation_that_ends_may_change_the_leader_once() {
        let two_end = |n: usize| match n {
            0..8 => (&[1][..], 1, &[2, 3][..]),
            8..16 => (&[1, 2][..], 2, &[3][..]),
            _ => (&[1, 2, 3][..], 3, &[][..]),
        };
        assert_eq!(
            looks(&(0..40).map(two_end).collect::<Vec<_>>()),
            Ok(40 - 3 * 6),
            "3 s after each, and in the beginning, do not count"
        );
    }
}
