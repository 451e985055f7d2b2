//! Invariant 11: a quiet, connected network has one leader, the highest eligible id, and all agree who that is. Where nobody is
//! eligible, whoever leads goes on.

use hobnob_proto::{node::view::Role, time::Time};

use super::Invariant;
use crate::facts::{Fact, Picture};

/// The invariant.
#[derive(Debug)]
pub struct OneLeader;

impl Invariant for OneLeader {
    fn name(&self) -> &'static str {
        "i11_one_leader_once_quiet"
    }

    fn observe(&mut self, _fact: &Fact<'_>, _now: Time) -> Result<(), String> {
        Ok(())
    }

    fn settled(&self, picture: &Picture) -> Result<(), String> {
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

#[cfg(test)]
mod tests {
    use hobnob_proto::ids::{ClusterId, ServerId};

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
            assert_eq!(OneLeader.settled(&picture).is_ok(), expected, "{picture:?}");
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
            assert_eq!(OneLeader.settled(&picture).is_ok(), expected, "{picture:?}");
        }
        check([Role::Follower, Role::Leader], [2, 2], true);
        check([Role::Leader, Role::Follower], [1, 1], true);
        check([Role::Leader, Role::Leader], [1, 2], false);
        check([Role::Follower, Role::Follower], [2, 2], false);
    }
}
